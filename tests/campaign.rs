//! What this relay is for, in simulated time: one tenant throws a stale list beside nine clean ones; and
//! the mirror of it, an honest new tenant's first campaign. Figures are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

#[path = "support/feedback.rs"]
mod feedback;
#[path = "support/simulation.rs"]
mod simulation;

use std::sync::Arc;

use bulkhead::dispatch::Dispatch;
use bulkhead::policy::reputation::{Rules, Step, percent};
use bulkhead::policy::tenant::{StreamKind, Tenant};
use feedback::{Delays, Feedback};
use simulation::{Answer, Letter, MINUTE, Millis, Plan, SECOND, Terms, World, simulate};
use tokio::task::JoinSet;

/// Recipients of the stale list, and of the honest campaign.
const STALE: u64 = 20_000;
const HONEST: u64 = 50_000;
/// The clean tenants.
const NEIGHBOURS: usize = 9;
/// How long they send, each a message every so often.
const SENDING: Millis = 6 * MINUTE;
const EVERY: Millis = 500;

/// A tenant whose streams all have an exposure window.
fn tenant(name: &str) -> Tenant {
    let mut tenant = simulation::tenant(name, 1);
    tenant.streams.values_mut().for_each(|stream| stream.exposure = true);
    tenant
}

fn letter(tenant: &str, stream: &str, connection: u32, number: u32, to: Vec<String>) -> Letter {
    Letter { connection, number, tenant: tenant.into(), stream: stream.into(), to, octets: 100 }
}

/// Recipients of a message of the stale list, and of one of the honest campaigns.
const AT_ONCE: u64 = 5;

/// Of every thousand recipients so many bounce, spread evenly.
fn recipient(number: u64, bouncing: u64) -> String {
    // A step that is prime to a thousand visits each place once.
    let place = number * 617 % 1000;
    if place < bouncing { format!("r{number}@bounce.test") } else { format!("r{number}@reader.test") }
}

/// A stream's steady mail, a message to one every `every`.
async fn steady(
    world: Arc<World>,
    dispatch: Arc<Dispatch>,
    who: (String, &'static str, u32),
    every: Millis,
    bouncing: u64,
) {
    let (tenant, stream, connection) = who;
    let (mut number, mut moment) = (0, world.now());
    let end = moment + SENDING;
    while moment < end {
        world.at(moment).await;
        let to = recipient(u64::from(connection) * 100_000 + number, bouncing);
        let answer = world.send(&dispatch, letter(&tenant, stream, connection, number as u32, vec![to])).await;
        assert!(matches!(answer, Answer::Relayed | Answer::Held(_)), "{tenant}/{stream}: {answer:?}");
        number += 1;
        moment += every;
    }
}

/// A list thrown as fast as SMTP takes it, over several connections.
async fn thrown(
    world: &Arc<World>,
    dispatch: &Arc<Dispatch>,
    tenant: &str,
    (recipients, at_once): (u64, u64),
    bouncing: u64,
) -> Vec<Answer> {
    const CONNECTIONS: u64 = 20;
    // What a message takes at the least, so that the connections take turns.
    const EACH: std::time::Duration = std::time::Duration::from_millis(1);
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (world, dispatch, tenant) = (Arc::clone(world), Arc::clone(dispatch), tenant.to_owned());
        connections.spawn(async move {
            let mut answers = Vec::new();
            for number in (connection..recipients / at_once).step_by(CONNECTIONS as usize) {
                let first = number * at_once;
                let to = (first..first + at_once).map(|number| recipient(number, bouncing)).collect();
                let letter = letter(&tenant, "marketing", 900 + connection as u32, number as u32, to);
                answers.push(world.send(&dispatch, letter).await);
                tokio::time::sleep(EACH).await;
            }
            answers
        });
    }
    connections.join_all().await.concat()
}

/// What one run with or without the offender came to.
struct Outcome {
    /// Recipients of the clean tenants that SES took while they sent, and in the end.
    in_time: usize,
    all: usize,
    /// Of the offender's marketing stream.
    offender: usize,
    /// Of its transactional stream, and the longest time from offer to SES.
    resets: usize,
    slowest_reset: Millis,
    account_rate: f64,
    step: Step,
    told: Vec<&'static str>,
}

fn neighbours(offends: bool) -> Outcome {
    let mut tenants: Vec<_> = (0..NEIGHBOURS).map(|n| tenant(&format!("clean{n}"))).collect();
    tenants.push(tenant("offender"));
    let terms = Terms { rate: 30.0, ..Terms::default() };
    simulate(Plan { terms, ..Plan::new(4, tenants) }, async |world| {
        let life = world.live().await;
        let feedback = Feedback::begin(&world, &life.dispatch, Rules::default(), Delays::default()).await;
        let mut senders = JoinSet::new();
        for n in 0..NEIGHBOURS {
            let kind = StreamKind::ALL[n % 3].word();
            let who = (format!("clean{n}"), kind, n as u32);
            senders.spawn(steady(Arc::clone(&world), Arc::clone(&life.dispatch), who, EVERY, 3));
        }
        let who = ("offender".to_owned(), "transactional", 100);
        senders.spawn(steady(Arc::clone(&world), Arc::clone(&life.dispatch), who, 5 * SECOND, 0));
        if offends {
            world.at(MINUTE).await;
            let answers = thrown(&world, &life.dispatch, "offender", (STALE, AT_ONCE), 120).await;
            assert_eq!(answers.len() as u64 * AT_ONCE, STALE);
        }
        senders.join_all().await;
        let ended = world.now();
        world.at(ended + 10 * MINUTE).await;
        let directory = world.directory.load_full();
        let step = directory.tenant(&"offender".parse().unwrap()).unwrap().streams[&"marketing".parse().unwrap()]
            .standing
            .brake
            .map_or(Step::Good, |brake| brake.step);
        let (taken, bounced) = feedback.at_ses();
        let seen = world.ses.seen();
        let of = |tenant: &'static str, stream: &'static str| {
            seen.iter().filter(move |s| s.is_taken() && s.tenant.starts_with(tenant) && s.stream.starts_with(stream))
        };
        let heard = world.heard();
        let slowest_reset = of("offender", "transactional")
            .map(|s| {
                let offered =
                    heard.iter().find(|h| h.connection == s.connection && h.number == s.number).unwrap().offered;
                s.decided.unwrap() - offered
            })
            .max()
            .unwrap_or_default();
        let outcome = Outcome {
            in_time: of("clean", "").filter(|s| s.decided.unwrap() <= ended).count(),
            all: of("clean", "").count(),
            offender: of("offender", "marketing").map(|seen| seen.to.len()).sum(),
            resets: of("offender", "transactional").count(),
            slowest_reset,
            account_rate: bounced as f64 / taken as f64,
            step,
            told: feedback.told.all().iter().map(|told| told.kind.word()).collect(),
        };
        feedback.stop().await;
        life.stop().await;
        outcome
    })
}

#[test]
fn a_stale_list_beside_nine_clean_tenants() {
    let (without, with) = (neighbours(false), neighbours(true));
    let offered = NEIGHBOURS * (SENDING / EVERY) as usize;
    let kept = with.in_time as f64 / without.in_time as f64;
    println!(
        "stale list of {STALE} with 12 % bounces beside nine clean tenants: {} reached SES; account rate {} (with all \
         of it out it would be {}); the nine: {} of {offered} sent, {} of their rate; resets of the offender: {} of \
         {}, the slowest after {} ms; told: {:?}",
        with.offender,
        percent(with.account_rate),
        percent((STALE as f64 * 0.12 + offered as f64 * 0.003) / (STALE as f64 + offered as f64)),
        with.all,
        percent(kept),
        with.resets,
        SENDING / (5 * SECOND),
        with.slowest_reset,
        with.told,
    );
    assert_eq!(without.all, offered, "the clean tenants alone");
    assert!(without.told.is_empty(), "{:?}", without.told);
    assert!(with.account_rate < 0.02, "{}", with.account_rate);
    assert!(with.offender < 1000, "{} of the stale list reached SES", with.offender);
    assert!(with.offender >= 100, "the first window went out, or nothing was learned");
    assert_eq!(with.all, offered, "the nine lose not one message");
    assert!(kept > 0.9, "{kept} of their rate");
    assert_eq!(with.resets as u64, SENDING / (5 * SECOND), "the offender's transactional mail passes");
    assert!(with.slowest_reset < 30 * SECOND, "{}", with.slowest_reset);
    assert_eq!(with.step, Step::Paused);
    assert!(with.told.contains(&"stream_paused"), "{:?}", with.told);
}

#[test]
fn an_honest_first_campaign_is_never_paused() {
    honest(1);
}

#[test]
fn an_honest_first_campaign_of_messages_to_five_is_never_paused() {
    honest(AT_ONCE);
}

fn honest(at_once: u64) {
    // The quicker the account, the more the window costs: 14 a second, SES's first grant, needs 1.03 times.
    let rate = 50.0;
    let terms = Terms { rate, ..Terms::default() };
    let plan = Plan { terms, ..Plan::new(5, vec![tenant("honest")]) };
    let (took, told, step) = simulate(plan, async |world| {
        let life = world.live().await;
        let feedback = Feedback::begin(&world, &life.dispatch, Rules::default(), Delays::default()).await;
        let began = world.now();
        thrown(&world, &life.dispatch, "honest", (HONEST, at_once), 8).await;
        let most = (HONEST as f64 / rate * 3.0) as Millis * SECOND;
        let ended = life.until_empty(&world, most).await;
        let directory = world.directory.load_full();
        let tenant = directory.tenant(&"honest".parse().unwrap()).unwrap();
        let step = tenant.streams[&"marketing".parse().unwrap()].standing.brake.map_or(Step::Good, |b| b.step);
        let told: Vec<&str> = feedback.told.all().iter().map(|told| told.kind.word()).collect();
        let taken: usize = world.ses.seen().iter().filter(|seen| seen.is_taken()).map(|seen| seen.to.len()).sum();
        assert_eq!(taken as u64, HONEST);
        feedback.stop().await;
        life.stop().await;
        (ended - began, told, step)
    });
    let alone = HONEST as f64 / rate;
    println!(
        "honest first campaign of {HONEST}, {at_once} a message, with 0.8 % bounces at {rate} a second: {} s, {:.2} times what the rate \
         alone needs; told: {told:?}",
        took / SECOND,
        took as f64 / 1000.0 / alone
    );
    assert_eq!(step, Step::Good);
    assert!(!told.iter().any(|kind| kind.contains("paused")), "{told:?}");
    assert!((took as f64) < alone * 2000.0, "{took} ms");
}
