//! The dispatcher through an outage of SES, and through everything else that makes mail wait, in
//! simulated time: hours pass in seconds, and two runs are the same to the millisecond.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

#[path = "support/simulation.rs"]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bulkhead::dispatch::{Dispatch, Hold};
use bulkhead::mail::StreamId;
use bulkhead::policy::tenant::{Handoff, Pause, Tenant};
use bulkhead::time::Clock as _;
use bulkhead::upstream::{Outcome, Retry};
use tokio::time::sleep;

use simulation::*;

// ---------------------------------------------------------------------------------------------
// Load and figures

/// A connection that sends one message after the other, about every `every` milliseconds, until
/// `until`; every fifth message goes to three recipients. Its recipients are few, so that each gets
/// many messages and their order can be seen.
async fn connection(
    world: Arc<World>,
    dispatch: Arc<Dispatch>,
    (number, tenant, stream): (u32, String, &'static str),
    (every, until): (Millis, Millis),
) {
    let chance = Seeded::new(u64::from(number) + 77);
    let mut sent = 0;
    sleep(chance.between(0, every)).await;
    while world.now() < until {
        let first = chance.below(5);
        let several = if chance.below(5) == 0 { 3 } else { 1 };
        let to = (first..first + several).map(|n| format!("r{}@to-{number}.example", n % 5)).collect();
        let letter = Letter {
            connection: number,
            number: sent,
            tenant: tenant.clone(),
            stream: stream.to_owned(),
            to,
            octets: 2048,
        };
        world.send(&dispatch, letter).await;
        sent += 1;
        sleep(chance.between(every / 2, every * 3 / 2)).await;
    }
}

/// When SES took each message for each recipient: all of the moments.
fn takings(seen: &[Seen]) -> BTreeMap<(u32, u32, String), Vec<Millis>> {
    let mut taken: BTreeMap<_, Vec<Millis>> = BTreeMap::new();
    for call in seen.iter().filter(|call| call.is_taken()) {
        for to in &call.to {
            taken.entry((call.connection, call.number, to.clone())).or_default().push(call.decided.unwrap());
        }
    }
    taken
}

/// Every recipient of every message that got a 250 has it once; what got none is not there. Gives
/// how many came more than once.
fn assert_none_lost(heard: &[Heard], seen: &[Seen]) -> usize {
    let taken = takings(seen);
    let mut twice = 0;
    for message in heard {
        for to in &message.to {
            let times = taken.get(&(message.connection, message.number, to.clone())).map_or(0, Vec::len);
            assert!(times > 0, "lost: {message:?} for {to}");
            twice += times - 1;
        }
    }
    twice
}

/// A message that SES took before one that its connection had sent to the same recipient earlier.
#[derive(Debug)]
struct Overtaken {
    /// Whether SES itself had answered the earlier one with a failure.
    by_ses: bool,
    what: String,
}

fn overtakings(seen: &[Seen]) -> Vec<Overtaken> {
    let failed: BTreeSet<(u32, u32)> = seen
        .iter()
        .filter(|call| !matches!(call.said, Some(Said::Taken | Said::Network)))
        .map(|call| (call.connection, call.number))
        .collect();
    let mut taken: Vec<&Seen> = seen.iter().filter(|call| call.is_taken()).collect();
    taken.sort_by_key(|call| call.decided);
    let mut latest: BTreeMap<(u32, &str), &Seen> = BTreeMap::new();
    let mut overtaken = Vec::new();
    for call in taken {
        for to in &call.to {
            match latest.get(&(call.connection, to.as_str())) {
                Some(later) if later.number > call.number => {
                    let by_ses = failed.contains(&(call.connection, call.number));
                    overtaken.push(Overtaken { by_ses, what: format!("{call:?} after {later:?}") });
                }
                Some(_) | None => {
                    latest.insert((call.connection, to), call);
                }
            }
        }
    }
    overtaken
}

/// Most recipients that were offered within any `span`.
fn most_within(seen: &[Seen], span: Millis) -> usize {
    let counted = seen.iter().filter(|call| matches!(call.said, Some(Said::Taken | Said::Throttled)));
    let mut offers: Vec<(Millis, usize)> = counted.filter_map(|call| Some((call.decided?, call.to.len()))).collect();
    offers.sort_unstable();
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for (at, recipients) in &offers {
        sum += recipients;
        while offers[first].0 + span <= *at {
            sum -= offers[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

// ---------------------------------------------------------------------------------------------
// The outage

const OUTAGE: std::ops::Range<Millis> = MINUTE..11 * MINUTE;
const LOAD_ENDS: Millis = 22 * MINUTE;
const RATE: f64 = 20.0;

/// What came of an outage.
#[derive(Clone, PartialEq, Debug)]
struct Figures {
    messages: usize,
    held: usize,
    longest_answer: Millis,
    /// Of transactional and marketing messages, from their 250 to the last taking.
    longest_wait: [Millis; 2],
    /// From the end of the outage until what had been accepted before it is gone.
    drained: [Millis; 2],
    throttles: usize,
    most_in_a_second: usize,
    calls_in_outage: usize,
    most_probes_at_once: usize,
    twice: usize,
    overtaken: usize,
    overtaken_by_ses: usize,
    fingerprint: String,
}

fn outage(does: Does) -> Figures {
    let tenants: Vec<_> = (0..10).map(|n| tenant(&format!("tenant-{n}"), 1)).collect();
    let mut plan = Plan::new(7, tenants);
    plan.terms.rate = RATE;
    plan.terms.faults = vec![Fault::of_all(OUTAGE.start, OUTAGE.end, does)];
    simulate(plan, async |world| {
        let life = world.live().await;
        let mut clients = Vec::new();
        for number in 0..40 {
            let stream = if number % 2 == 0 { "transactional" } else { "marketing" };
            let who = (number, format!("tenant-{}", number / 4), stream);
            // 40 connections, 1.4 recipients a message: 12 recipients a second.
            let pace = (4666, LOAD_ENDS);
            clients.push(tokio::spawn(connection(Arc::clone(&world), Arc::clone(&life.dispatch), who, pace)));
        }
        for client in clients {
            client.await.unwrap();
        }
        life.until_empty(&world, 2 * HOUR).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        let figures = figures(&world, &heard, &seen);
        assert_eq!(life.stop().await, 0);
        figures
    })
}

fn figures(world: &World, heard: &[Heard], seen: &[Seen]) -> Figures {
    let twice = assert_none_lost(heard, seen);
    let taken = takings(seen);
    let last_of = |message: &Heard| {
        let of = |to: &String| taken[&(message.connection, message.number, to.clone())].iter().copied().max();
        message.to.iter().filter_map(of).max().unwrap()
    };
    let mut longest_wait = [0; 2];
    let mut drained = [0; 2];
    for message in heard.iter().filter(|message| matches!(message.answer, Answer::Held(_))) {
        let class = usize::from(message.stream != "transactional");
        let last = last_of(message);
        longest_wait[class] = longest_wait[class].max(last - message.answered.min(last));
        if message.answered <= OUTAGE.end {
            drained[class] = drained[class].max(last.saturating_sub(OUTAGE.end));
        }
    }
    let in_outage: Vec<&Seen> = seen.iter().filter(|call| OUTAGE.contains(&call.begun)).collect();
    let first_trip = world.lines("breaker_opened").first().map_or(0, |(at, _)| *at);
    let probes = in_outage.iter().filter(|call| call.begun > first_trip);
    let most_probes_at_once = probes
        .clone()
        .map(|probe| {
            let during = |other: &&&Seen| (other.begun..=other.answered.unwrap_or(u64::MAX)).contains(&probe.begun);
            probes.clone().filter(during).count()
        })
        .max()
        .unwrap_or_default();
    let overtaken = overtakings(seen);
    Figures {
        messages: heard.len(),
        held: heard.iter().filter(|message| matches!(message.answer, Answer::Held(_))).count(),
        longest_answer: heard.iter().map(|message| message.answered - message.offered).max().unwrap(),
        longest_wait,
        drained,
        throttles: seen.iter().filter(|call| call.said == Some(Said::Throttled)).count(),
        most_in_a_second: most_within(seen, SECOND),
        calls_in_outage: in_outage.len(),
        most_probes_at_once,
        twice,
        overtaken: overtaken.iter().filter(|one| !one.by_ses).count(),
        overtaken_by_ses: overtaken.iter().filter(|one| one.by_ses).count(),
        fingerprint: world.fingerprint(),
    }
}

/// What holds whatever the outage is like.
fn assert_well(figures: &Figures, what: &str) {
    println!("{what}: {figures:#?}");
    assert!(figures.held * 10 > figures.messages * 7, "the outage and its drain are most of the story");
    // No client waited longer than it was told to, and none heard of the outage.
    assert!(figures.longest_answer <= 25 * SECOND + 100);
    // A bucket and what comes in a second, and no call beyond what the rate allows but few.
    assert!(figures.most_in_a_second <= 2 * RATE as usize + 5);
    assert!(figures.throttles <= 5);
    assert!(figures.most_probes_at_once <= 1);
    assert_eq!(figures.overtaken, 0);
    assert_eq!(figures.twice, 0);
}

#[test]
fn an_outage_of_refused_connections_is_nobodys_but_ours() {
    let figures = outage(Does::RefuseConnection);
    assert_well(&figures, "connections refused");
    // Three failures open the breaker, then it probes: after 15 to 30 seconds, 30 to 60, 1 to 2 minutes.
    assert!((8..=18).contains(&figures.calls_in_outage));
    assert_eq!(figures.overtaken_by_ses, 0);
    // While new mail comes in at 12 recipients a second, of which half are transactional.
    assert!(figures.drained[0] <= 6 * MINUTE && figures.drained[1] <= 16 * MINUTE);
    assert!(figures.drained[0] * 2 < figures.drained[1]);
    assert_eq!(figures, outage(Does::RefuseConnection), "two runs are one");
}

#[test]
fn an_outage_of_500s_is_nobodys_but_ours() {
    let figures = outage(Does::Fail);
    assert_well(&figures, "500s");
    // Whoever had a call under way in the first second meets it too.
    assert!((8..=60).contains(&figures.calls_in_outage));
    assert!(figures.drained[0] <= 6 * MINUTE && figures.drained[1] <= 16 * MINUTE);
    assert!(figures.drained[0] * 2 < figures.drained[1]);
}

#[test]
fn an_outage_of_silence_is_nobodys_but_ours() {
    let figures = outage(Does::Hang(CALL_TIME));
    assert_well(&figures, "silence");
    // Every connection meets it once before anybody can know, and so do the workers.
    assert!((20..=40 + 32 + 12).contains(&figures.calls_in_outage));
    assert_eq!(figures, outage(Does::Hang(CALL_TIME)), "two runs are one");
}

/// Four connections of one tenant's, each at this pace and for so long, until all have ended.
async fn four_connections(world: &Arc<World>, dispatch: &Arc<Dispatch>, pace: (u64, u64)) {
    let mut clients = Vec::new();
    for number in 0..4 {
        let who = (number, "one".to_owned(), "transactional");
        clients.push(tokio::spawn(connection(Arc::clone(world), Arc::clone(dispatch), who, pace)));
    }
    for client in clients {
        client.await.unwrap();
    }
}

/// One connection, one recipient, a rate that lets many of its messages be under way at once.
#[test]
fn a_connections_messages_reach_a_recipient_in_their_order() {
    let mut plan = Plan::new(3, vec![tenant("one", 1)]);
    plan.terms.rate = 200.0;
    plan.terms.faults = vec![Fault::of_all(10 * SECOND, MINUTE, Does::RefuseConnection)];
    let overtaken = simulate(plan, async |world| {
        let life = world.live().await;
        four_connections(&world, &life.dispatch, (100, 90 * SECOND)).await;
        life.until_empty(&world, HOUR).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        assert_eq!(assert_none_lost(&heard, &seen), 0);
        println!(
            "in order: {} messages, most at once {}",
            heard.len(),
            world.ses.most_under_way("one", "transactional")
        );
        overtakings(&seen)
    });
    let ours: Vec<&Overtaken> = overtaken.iter().filter(|one| !one.by_ses).collect();
    println!("overtaken {} times, {} of them for SES's own failures", overtaken.len(), overtaken.len() - ours.len());
    assert!(ours.is_empty(), "{} times, as {:?}", ours.len(), ours.first().map(|one| &one.what));
}

/// Connections that break for a moment, again and again: too few failures in a row for any breaker.
#[test]
fn a_moments_break_puts_no_message_before_an_earlier_one() {
    let mut plan = Plan::new(4, vec![tenant("one", 1)]);
    plan.terms.rate = 100.0;
    let breaks = (1..60).map(|n| Fault::of_all(n * 5 * SECOND, n * 5 * SECOND + 60, Does::RefuseConnection));
    plan.terms.faults = breaks.collect();
    simulate(plan, async |world| {
        let life = world.live().await;
        four_connections(&world, &life.dispatch, (300, 5 * MINUTE)).await;
        life.until_empty(&world, HOUR).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        assert_eq!(assert_none_lost(&heard, &seen), 0);
        let broken = seen.iter().filter(|call| call.said == Some(Said::Network)).count();
        let ours: Vec<Overtaken> = overtakings(&seen).into_iter().filter(|one| !one.by_ses).collect();
        println!("breaks: {} messages, {broken} calls broke, overtaken {}", heard.len(), ours.len());
        assert!(broken >= 20);
        assert!(ours.is_empty(), "{} times, as {:?}", ours.len(), ours.first().map(|one| &one.what));
    });
}

/// The worst of all: SES takes what it is given and does not say so.
#[test]
fn what_ses_takes_in_silence_is_sent_again_late_and_no_oftener_than_it_was_silent() {
    let mut plan = Plan::new(5, (0..5).map(|n| tenant(&format!("tenant-{n}"), 1)).collect());
    plan.terms.faults = vec![Fault::of_all(30 * SECOND, 150 * SECOND, Does::TakeInSilence(CALL_TIME))];
    simulate(plan, async |world| {
        let life = world.live().await;
        let mut clients = Vec::new();
        for number in 0..10 {
            let who = (number, format!("tenant-{}", number / 2), "transactional");
            let pace = (2 * SECOND, 5 * MINUTE);
            clients.push(tokio::spawn(connection(Arc::clone(&world), Arc::clone(&life.dispatch), who, pace)));
        }
        for client in clients {
            client.await.unwrap();
        }
        life.until_empty(&world, 2 * HOUR).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        let twice = assert_none_lost(&heard, &seen);
        let unheard = seen.iter().filter(|call| call.unheard).map(|call| call.to.len()).sum::<usize>();
        let told = world.lines("outcome_unknown").len();
        println!("in silence: {} messages, {unheard} recipients unheard of, {twice} had it again", heard.len());
        assert!((5..=60).contains(&unheard));
        assert_eq!(twice, unheard, "each is sent again once it may be, and never of itself");
        assert!(told >= unheard, "each is in the log");
        for moments in takings(&seen).values() {
            assert!(moments.windows(2).all(|pair| pair[1] - pair[0] >= MINUTE), "{moments:?}");
        }
    });
}

// ---------------------------------------------------------------------------------------------
// Waits

fn letter(tenant: &str, stream: &str, number: u32) -> Letter {
    let to = vec![format!("r{number}@to-{tenant}.example")];
    Letter { connection: 0, number, tenant: tenant.into(), stream: stream.into(), to, octets: 2048 }
}

/// Every stream hands over by the outbox.
fn queueing(mut tenant: Tenant) -> Tenant {
    for stream in tenant.streams.values_mut() {
        stream.handoff = Handoff::Queue;
    }
    tenant
}

/// How long after the end of one call of a lonely message the next begins, while all is answered
/// with `does`; and the alarms.
fn gaps(does: Does, until: Millis) -> (Vec<Millis>, Vec<Millis>) {
    let mut plan = Plan::new(11, vec![tenant("one", 1)]);
    plan.terms.latency = (0, 0);
    plan.terms.faults = vec![Fault::of_all(0, until, does)];
    simulate(plan, async |world| {
        let life = world.live().await;
        let answer = world.send(&life.dispatch, letter("one", "marketing", 0)).await;
        assert!(matches!(answer, Answer::Held(_)), "{answer:?}");
        life.until_empty(&world, 2 * until).await;
        let seen = world.ses.seen();
        assert_none_lost(&world.heard(), &seen);
        let gaps = seen.windows(2).map(|pair| pair[1].begun - pair[0].answered.unwrap()).collect();
        (gaps, world.lines("upstream_alarm").iter().map(|(at, _)| *at).collect())
    })
}

/// The first wait is from half to all of `first` seconds, and so on, and the last goes on.
fn assert_gaps(what: &str, gaps: &[Millis], spans: &[[u64; 2]]) {
    println!("{what}: {} waits, {:?}", gaps.len(), &gaps[..gaps.len().min(12)]);
    assert!(gaps.len() > spans.len(), "{what}: {gaps:?}");
    for (at, gap) in gaps.iter().enumerate() {
        let [least, most] = spans[at.min(spans.len() - 1)];
        // A turn may be late by one nap of the dispatcher, no more.
        assert!((least..=most + 500).contains(gap), "{what}: wait {at} is {gap}, not {least} to {most}");
    }
}

#[test]
fn each_kind_of_failure_is_tried_again_when_its_table_says() {
    let seconds = |spans: &[u64]| spans.iter().map(|most| [most * 500, most * 1000]).collect::<Vec<_>>();
    let throttled = Does::Say(Outcome::Retry(Retry::Throttled, "slower".into()));
    let quota = Does::Say(Outcome::Retry(Retry::DailyQuota, "tomorrow".into()));
    let unrecognised = Does::Say(Outcome::Retry(Retry::Unrecognised, "what?".into()));
    let (waits, alarms) = gaps(throttled, 10 * MINUTE);
    assert_gaps("throttled", &waits, &seconds(&[1, 2, 4, 8, 16, 32, 60]));
    assert!(alarms.is_empty());
    let (waits, alarms) = gaps(quota, 2 * HOUR);
    assert_gaps("daily quota", &waits, &[[600_000, 600_000]]);
    assert_eq!(alarms.len(), waits.len(), "each of its tries is news");
    // The message's own waits until the third failure opens its lane's breaker, which then has them.
    let (waits, _) = gaps(Does::RefuseConnection, HOUR);
    assert_gaps("network", &waits, &seconds(&[30, 30, 30, 60, 120]));
    // SES's answer is the message's own: its waits go on growing.
    let (waits, _) = gaps(Does::Fail, 4 * HOUR);
    assert_gaps("service", &waits, &seconds(&[30, 30, 60, 120, 240, 480, 960, 1800]));
    let (waits, _) = gaps(unrecognised, 4 * HOUR);
    assert_gaps("unrecognised", &waits, &seconds(&[30, 30, 60, 120, 240, 480, 960, 1800]));
    let (waits, _) = gaps(Does::Hang(CALL_TIME), 4 * HOUR);
    assert_gaps("unknown", &waits, &seconds(&[120, 240, 480, 960, 1800]));
    for (cause, outcome) in operators() {
        let (waits, alarms) = gaps(Does::Say(outcome), 3 * HOUR);
        let spans: &[u64] = match cause {
            // What may be about one sender of several opens nothing before the third time.
            "access_denied" | "not_associated" | "mail_from_domain" => &[60, 60, 120, 240, 480, 900],
            _ => &[60, 120, 240, 480, 900],
        };
        assert_gaps(cause, &waits, &seconds(spans));
        assert!(!alarms.is_empty() && alarms.windows(2).all(|pair| pair[1] - pair[0] >= MINUTE), "{alarms:?}");
    }
}

/// All that an operator has to mend is told once a minute at the most, however many messages meet it.
#[test]
fn a_fault_of_the_operators_is_an_alarm_a_minute_however_many_messages_meet_it() {
    let mut plan = Plan::new(12, vec![tenant("one", 1)]);
    let denied = Does::Say(Outcome::Retry(Retry::AccessDenied, "denied".into()));
    plan.terms.faults = vec![Fault::of("one", "marketing", 0, 20 * MINUTE, denied)];
    simulate(plan, async |world| {
        let life = world.live().await;
        let mut clients = Vec::new();
        for number in 0..20 {
            let who = (number, "one".to_owned(), "marketing");
            clients.push(tokio::spawn(connection(
                Arc::clone(&world),
                Arc::clone(&life.dispatch),
                who,
                (3 * SECOND, 10 * MINUTE),
            )));
        }
        for client in clients {
            client.await.unwrap();
        }
        life.until_empty(&world, 2 * HOUR).await;
        assert_none_lost(&world.heard(), &world.ses.seen());
        let alarms: Vec<Millis> = world.lines("upstream_alarm").iter().map(|(at, _)| *at).collect();
        let calls = world.ses.seen().iter().filter(|call| !call.is_taken()).count();
        println!("operators: {} messages, {calls} failed calls, {} alarms", world.heard().len(), alarms.len());
        assert!(alarms.windows(2).all(|pair| pair[1] - pair[0] >= MINUTE) && alarms.len() <= 20);
        assert!(calls <= 60);
    });
}

#[test]
fn a_daily_quota_lets_mail_pass_as_its_window_moves() {
    let mut plan = Plan::new(13, vec![tenant("one", 1)]);
    plan.terms.daily = Some(100);
    simulate(plan, async |world| {
        let life = world.live().await;
        for number in 0..150 {
            world.send(&life.dispatch, letter("one", "marketing", number)).await;
            sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(life.held(), 50);
        let empty = life.until_empty(&world, 26 * HOUR).await;
        let seen = world.ses.seen();
        assert_eq!(assert_none_lost(&world.heard(), &seen), 0);
        assert!(overtakings(&seen).is_empty());
        let refused = seen.iter().filter(|call| call.said == Some(Said::Quota)).count();
        let late = seen.iter().filter(|call| call.is_taken() && call.begun > 12 * HOUR).map(|call| call.begun);
        println!("daily quota: {refused} refused, the rest from {:?} to {empty}", late.clone().min());
        assert_eq!(late.clone().count(), 50);
        // A try in ten minutes, and those that went before its time was over.
        assert!((130..=160).contains(&refused), "{refused}");
        assert!(late.clone().min().unwrap() >= 24 * HOUR && empty <= 24 * HOUR + 30 * MINUTE);
    });
}

#[test]
fn mail_expires_by_its_class_or_its_streams_own_age_and_a_pause_does_not_save_it() {
    let mut short = tenant("short", 1);
    short.streams.get_mut(&StreamId::parse("bulk").unwrap()).unwrap().max_age_hours = Some(1);
    let mut plan = Plan::new(14, vec![short, tenant("paused", 1)]);
    plan.terms.faults = vec![Fault::of_all(0, 100 * HOUR, Does::RefuseConnection)];
    simulate(plan, async |world| {
        let life = world.live().await;
        for (number, (tenant, stream)) in
            [("short", "bulk"), ("short", "transactional"), ("short", "marketing"), ("paused", "transactional")]
                .into_iter()
                .enumerate()
        {
            let number = u32::try_from(number).unwrap();
            assert!(matches!(world.send(&life.dispatch, letter(tenant, stream, number)).await, Answer::Held(_)));
        }
        let pause = Pause { at: world.clock.now(), actor: "cli:root".into(), reason: "unpaid".into() };
        world.change_tenant("paused", |tenant| tenant.pause = Some(pause));
        let before = world.ses.seen().iter().filter(|call| call.tenant == "paused").count();
        life.until_empty(&world, 49 * HOUR).await;
        let after = world.ses.seen().iter().filter(|call| call.tenant == "paused").count();
        assert_eq!(before, after, "what is paused makes no calls");
        let expired: Vec<(Millis, String)> = world
            .lines("message_expired")
            .iter()
            .map(|(at, line)| (*at, format!("{}/{}", line["tenant"], line["stream"]).replace('"', "")))
            .collect();
        println!("expired: {expired:?}, {} calls in 48 hours", world.ses.count());
        let expected =
            [(1, "short/bulk"), (24, "paused/transactional"), (24, "short/transactional"), (48, "short/marketing")];
        let mut sorted = expired.clone();
        sorted.sort_by_key(|(at, name)| (at / HOUR, name.clone()));
        for ((at, name), (hours, of)) in sorted.iter().zip(expected) {
            assert!((hours * HOUR..hours * HOUR + SECOND).contains(at) && name == of, "{sorted:?}");
        }
        assert_eq!(expired.len(), 4);
    });
}

/// A message whose time is over while SES is asked: what SES says counts, and nobody spins meanwhile.
#[test]
fn a_message_that_expires_while_it_is_sent_is_given_up_when_its_call_has_ended() {
    let mut short = queueing(tenant("short", 1));
    short.streams.get_mut(&StreamId::parse("bulk").unwrap()).unwrap().max_age_hours = Some(1);
    let mut plan = Plan::new(15, vec![short]);
    plan.terms.faults = vec![
        Fault::of_all(0, HOUR - 10 * SECOND, Does::RefuseConnection),
        Fault::of_all(HOUR - 10 * SECOND, 2 * HOUR, Does::Hang(CALL_TIME)),
    ];
    simulate(plan, async |world| {
        let life = world.live().await;
        assert_eq!(world.send(&life.dispatch, letter("short", "bulk", 0)).await, Answer::Held("handoff"));
        world.at(HOUR - 5 * SECOND).await;
        life.dispatch.try_now(None);
        life.dispatch.try_now(Some(&lane("short", "bulk")));
        let call_ends = HOUR - 5 * SECOND + u64::try_from(CALL_TIME.as_millis()).unwrap();
        world.at(HOUR + SECOND).await;
        assert_eq!((life.held(), world.lines("message_expired").len()), (1, 0), "it is being sent");
        world.at(call_ends + SECOND).await;
        assert_eq!((life.held(), world.lines("message_expired").len()), (0, 1));
    });
}

/// A store that stopped gives nothing up: it is asked again now and then, and nobody spins.
#[test]
fn what_has_expired_while_the_store_is_away_is_given_up_when_it_is_back() {
    let mut short = queueing(tenant("short", 1));
    short.streams.get_mut(&StreamId::parse("bulk").unwrap()).unwrap().max_age_hours = Some(1);
    let mut plan = Plan::new(18, vec![short]);
    plan.terms.faults = vec![Fault::of_all(0, 2 * HOUR, Does::RefuseConnection)];
    simulate(plan, async |world| {
        let life = world.live().await;
        for number in 0..150 {
            world.send(&life.dispatch, letter("short", "bulk", number)).await;
        }
        world.at(HOUR - MINUTE).await;
        world.store.fail_with("gone");
        world.at(HOUR + MINUTE).await;
        assert_eq!((life.held(), world.lines("message_expired").len()), (150, 0));
        world.store.heal();
        world.at(HOUR + 2 * MINUTE).await;
        assert_eq!((life.held(), world.lines("message_expired").len()), (0, 150));
    });
}

#[test]
fn a_lane_that_is_paused_or_held_waits_until_it_is_let_go() {
    let plan = Plan::new(16, vec![queueing(tenant("one", 1))]);
    simulate(plan, async |world| {
        let life = world.live().await;
        let (held, other) = (lane("one", "bulk"), lane("one", "marketing"));
        let until = world.clock.now().plus(Duration::from_secs(600));
        life.dispatch.hold_lane(&held, Hold { reason: "bounces".into(), until: Some(until) });
        life.dispatch.hold_lane(&other, Hold { reason: "by hand".into(), until: None });
        let pause = Pause { at: world.clock.now(), actor: "cli:root".into(), reason: "unpaid".into() };
        for number in 0..5 {
            for stream in ["bulk", "marketing"] {
                world.send(&life.dispatch, letter("one", stream, number)).await;
            }
        }
        world.at(5 * MINUTE).await;
        assert_eq!((world.ses.count(), life.held()), (0, 10));
        assert_eq!(life.dispatch.why(&held).unwrap().0, "bounces");
        world.at(10 * MINUTE + SECOND).await;
        assert_eq!((world.ses.count(), life.held()), (5, 5), "its time was over by itself");
        assert!(world.ses.seen().iter().all(|call| (600_000..601_000).contains(&call.begun) && call.stream == "bulk"));
        world.at(HOUR).await;
        life.dispatch.release_lane(&other);
        world.at(HOUR + SECOND).await;
        assert_eq!((world.ses.count(), life.held()), (10, 0));

        world.change_tenant("one", |tenant| tenant.pause = Some(pause));
        world.send(&life.dispatch, letter("one", "transactional", 9)).await;
        world.at(2 * HOUR).await;
        assert_eq!((world.ses.count(), life.held()), (10, 1));
        assert_eq!(life.dispatch.why(&lane("one", "transactional")).unwrap().0, "tenant_paused");
        world.change_tenant("one", |tenant| tenant.pause = None);
        world.at(2 * HOUR + SECOND).await;
        assert_eq!((world.ses.count(), life.held()), (11, 0));
    });
}

/// A hold that ends while its tenant is paused ends once, and the pause holds on.
#[test]
fn a_hold_that_ends_under_a_pause_ends_once() {
    let plan = Plan::new(17, vec![queueing(tenant("one", 1))]);
    simulate(plan, async |world| {
        let life = world.live().await;
        let until = world.clock.now().plus(Duration::from_secs(60));
        life.dispatch.hold_lane(&lane("one", "bulk"), Hold { reason: "bounces".into(), until: Some(until) });
        let pause = Pause { at: world.clock.now(), actor: "cli:root".into(), reason: "unpaid".into() };
        world.change_tenant("one", |tenant| tenant.pause = Some(pause));
        world.send(&life.dispatch, letter("one", "bulk", 0)).await;
        world.at(5 * MINUTE).await;
        assert_eq!((world.lines("lane_released").len(), life.held()), (1, 1));
        assert_eq!(life.dispatch.why(&lane("one", "bulk")).unwrap().0, "tenant_paused");
        world.change_tenant("one", |tenant| tenant.pause = None);
        world.at(6 * MINUTE).await;
        assert_eq!((world.lines("lane_released").len(), life.held()), (1, 0));
    });
}

// ---------------------------------------------------------------------------------------------
// Fairness

/// How long each relayed or held message of the tenants that `of` names took from being offered to
/// the last recipient's taking, sorted.
fn delays(heard: &[Heard], seen: &[Seen], of: impl Fn(&str) -> bool) -> Vec<Millis> {
    let taken = takings(seen);
    let last = |message: &Heard| {
        let of = |to: &String| taken.get(&(message.connection, message.number, to.clone()))?.iter().copied().max();
        message.to.iter().filter_map(of).max()
    };
    let ours = heard.iter().filter(|message| of(&message.tenant));
    let mut delays: Vec<Millis> = ours.map(|message| last(message).unwrap() - message.offered).collect();
    delays.sort_unstable();
    delays
}

fn tenants(names: &[&str]) -> Vec<Tenant> {
    names.iter().map(|name| tenant(name, 1)).collect()
}

const NINE: [&str; 9] = ["t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"];

/// Messages of one tenant that wait already when the dispatcher begins to run.
async fn backlog(world: &Arc<World>, life: &Life, tenant: &str, stream: &str, messages: u32) {
    for number in 0..messages {
        let letter = Letter { connection: 1_000_000, ..letter(tenant, stream, number) };
        assert!(matches!(world.send(&life.dispatch, letter).await, Answer::Held(_)));
    }
}

/// Each of [`NINE`] sends a message now and then by one connection.
async fn nine_send(world: &Arc<World>, life: &Life, stream: &'static str, every: Millis, until: Millis) {
    let clients: Vec<_> = (1..10)
        .map(|number| {
            let who = (number, format!("t{number}"), stream);
            tokio::spawn(connection(Arc::clone(world), Arc::clone(&life.dispatch), who, (every, until)))
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[test]
fn twenty_thousand_messages_of_one_tenant_delay_nine_others_by_no_more_than_their_share() {
    let mut all = tenants(&NINE);
    all.push(queueing(tenant("big", 1)));
    let mut plan = Plan::new(21, all);
    plan.terms.rate = 50.0;
    simulate(plan, async |world| {
        let life = world.live().await;
        backlog(&world, &life, "big", "marketing", 20_000).await;
        nine_send(&world, &life, "marketing", 2 * SECOND, 5 * MINUTE).await;
        let drained = life.until_empty(&world, HOUR).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        assert_eq!(assert_none_lost(&heard, &seen), 0);
        let few = delays(&heard, &seen, |tenant| tenant != "big");
        let (middle, most) = (few[few.len() / 2], few[few.len() - 1]);
        let throttles = seen.iter().filter(|call| call.said == Some(Said::Throttled)).count();
        println!(
            "20000 beside {}: middle {middle} ms, most {most} ms, gone after {drained} ms, {throttles} throttles",
            few.len()
        );
        // Ten lanes in turn at 50 a second, three recipients at the most: under a second, and SES's own time.
        assert!(middle <= 500 && most <= 4 * SECOND && throttles <= 10);
        // The rate is used: 20000 and what the nine sent, at 50 a second.
        let recipients: usize = seen.iter().filter(|call| call.is_taken()).map(|call| call.to.len()).sum();
        assert!(drained <= recipients as u64 * 1000 / 50 * 110 / 100, "{recipients} in {drained} ms");
    });
}

#[test]
fn a_lane_whose_calls_hang_keeps_to_its_calls_and_delays_nobody() {
    let mut all = tenants(&NINE);
    all.push(queueing(tenant("slow", 1)));
    let mut plan = Plan::new(22, all);
    plan.terms.rate = 50.0;
    plan.terms.faults = vec![Fault::of("slow", "transactional", 0, 20 * MINUTE, Does::Hang(CALL_TIME))];
    simulate(plan, async |world| {
        let life = world.live().await;
        backlog(&world, &life, "slow", "transactional", 500).await;
        nine_send(&world, &life, "transactional", 500, 10 * MINUTE).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        let most = world.ses.most_under_way("slow", "transactional");
        let few = delays(&heard, &seen, |tenant| tenant != "slow");
        let held = heard.iter().filter(|message| message.tenant != "slow" && message.answer != Answer::Relayed).count();
        let calls = seen.iter().filter(|call| call.tenant == "slow").count();
        println!(
            "a lane that hangs: {calls} calls, {most} at once; {} others, {held} of them held, most {} ms",
            few.len(),
            few[few.len() - 1]
        );
        assert!(most <= 8 && calls <= 8 + 12);
        assert_eq!(held, 0, "nobody else is held");
        assert!(few[few.len() - 1] <= 6 * SECOND, "SES's own latency, of three calls");
        life.until_empty(&world, 2 * HOUR).await;
        assert_eq!(assert_none_lost(&world.heard(), &world.ses.seen()), 0);
    });
}

#[test]
fn a_lane_without_its_configuration_set_probes_rarely_and_delays_nobody() {
    let mut all = tenants(&NINE);
    all.push(queueing(tenant("bare", 1)));
    let mut plan = Plan::new(23, all);
    plan.terms.rate = 50.0;
    let missing = Does::Say(Outcome::Retry(Retry::ConfigurationSetMissing, "no such set".into()));
    plan.terms.faults = vec![Fault::of("bare", "transactional", 0, HOUR, missing)];
    simulate(plan, async |world| {
        let life = world.live().await;
        backlog(&world, &life, "bare", "transactional", 500).await;
        nine_send(&world, &life, "transactional", 2 * SECOND, HOUR).await;
        let (heard, seen) = (world.heard(), world.ses.seen());
        let calls = seen.iter().filter(|call| call.tenant == "bare").count();
        let held = heard.iter().filter(|message| message.tenant != "bare" && message.answer != Answer::Relayed).count();
        println!("a lane without its set: {calls} calls in an hour, {held} others held");
        assert!((5..=8 + 10).contains(&calls));
        assert_eq!(held, 0);
        life.until_empty(&world, HOUR).await;
        assert_eq!(assert_none_lost(&world.heard(), &world.ses.seen()), 0);
    });
}

#[test]
fn new_mail_passes_a_backlog_that_waits_for_workers_and_takes_its_turn_where_the_rate_is_the_limit() {
    let run = |latency: (Millis, Millis)| {
        let mut plan = Plan::new(24, vec![queueing(tenant("big", 1)), tenant("fresh", 1)]);
        plan.terms.rate = 50.0;
        plan.terms.latency = latency;
        simulate(plan, async |world| {
            let life = world.live().await;
            backlog(&world, &life, "big", "marketing", 2000).await;
            let mut answers: BTreeMap<String, usize> = BTreeMap::new();
            for number in 0..20 {
                sleep(Duration::from_millis(700)).await;
                let answer = world.send(&life.dispatch, letter("fresh", "marketing", number)).await;
                *answers.entry(format!("{answer:?}")).or_default() += 1;
            }
            life.until_empty(&world, HOUR).await;
            let (heard, seen) = (world.heard(), world.ses.seen());
            assert_eq!(assert_none_lost(&heard, &seen), 0);
            let delays = delays(&heard, &seen, |tenant| tenant == "fresh");
            println!("fresh beside a backlog, latency {latency:?}: {answers:?}, most {} ms", delays[delays.len() - 1]);
            (answers, delays[delays.len() - 1])
        })
    };
    // Eight calls of a second each leave most of the rate free.
    let (answers, _) = run((1000, 1000));
    assert_eq!(answers, BTreeMap::from([("Relayed".into(), 20)]));
    // Eight calls of a twentieth of a second would go beyond it.
    let (answers, most) = run((50, 50));
    assert!(answers.get("Held(\"rate\")").is_some_and(|held| *held >= 10), "{answers:?}");
    assert!(most <= SECOND);
}

#[test]
fn a_tenant_of_three_times_the_weight_has_three_times_the_share() {
    let mut plan = Plan::new(25, vec![queueing(tenant("three", 3)), queueing(tenant("one", 1))]);
    plan.terms.rate = 40.0;
    simulate(plan, async |world| {
        let life = world.live().await;
        backlog(&world, &life, "one", "bulk", 2000).await;
        backlog(&world, &life, "three", "bulk", 2000).await;
        let count = |from: Millis, tenant: &str| {
            let seen = world.ses.seen();
            seen.iter().filter(|call| call.is_taken() && call.begun >= from && call.tenant == tenant).count()
        };
        world.at(40 * SECOND).await;
        let (three, one) = (count(5 * SECOND, "three"), count(5 * SECOND, "one"));
        println!("by weight: {three} to {one}");
        assert!((28..=32).contains(&(three * 10 / one)), "{three} to {one}");
    });
}

// ---------------------------------------------------------------------------------------------
// The end of a process, and the next one

#[test]
fn a_restart_in_the_middle_loses_nothing_and_sends_again_only_what_was_under_way() {
    let mut plan = Plan::new(31, vec![queueing(tenant("one", 1)), queueing(tenant("two", 1))]);
    plan.terms.latency = (300, 900);
    simulate(plan, async |world| {
        let life = world.live_with_grace(Duration::ZERO).await;
        backlog(&world, &life, "one", "transactional", 300).await;
        backlog(&world, &life, "two", "marketing", 300).await;
        world.at(8 * SECOND).await;
        let before = life.held();
        // No grace: attempts under way are cut off as they are, their leases stay behind.
        let cut = life.stop().await;
        let seen = world.ses.seen();
        let unheard = seen.iter().filter(|call| call.is_taken() && call.answered.is_none()).count();
        let open = seen.iter().filter(|call| call.answered.is_none()).count();
        let taken: usize = seen.iter().filter(|call| call.is_taken()).count();
        assert!(cut > 0 && cut == open, "{cut} cut, {open} without an answer");

        let life = world.live().await;
        println!("restart: {before} held, {taken} taken, {cut} cut off, {unheard} of them taken unheard");
        assert_eq!((life.found.held, life.found.unknown.len()), (before, cut));
        let began = world.now();
        life.until_empty(&world, HOUR).await;
        let (heard, all) = (world.heard(), world.ses.seen());
        assert_eq!(assert_none_lost(&heard, &all), unheard, "once more, and only what SES had taken");
        let again =
            |call: &&Seen| all[..seen.len()].iter().any(|old| old.number == call.number && old.tenant == call.tenant);
        let again: Vec<&Seen> = all[seen.len()..].iter().filter(again).collect();
        assert_eq!(again.len(), cut, "each of them once");
        // SES's events have had time to tell.
        assert!(again.iter().all(|call| call.begun >= began + MINUTE));
        assert!(world.spool.ids().is_empty());
        assert_eq!(life.stop().await, 0);
    });
}

#[test]
fn a_drain_holds_who_waits_for_ses_and_ends_within_its_grace() {
    let mut plan = Plan::new(32, vec![tenant("one", 1), tenant("two", 1), queueing(tenant("three", 1))]);
    plan.terms.faults = vec![Fault::of_all(0, 10 * MINUTE, Does::Hang(CALL_TIME))];
    simulate(plan, async |world| {
        let grace = Duration::from_secs(5);
        let life = world.live_with_grace(grace).await;
        backlog(&world, &life, "three", "bulk", 3).await;
        let clients: Vec<_> = (0..6)
            .map(|number| {
                let tenant = if number % 2 == 0 { "one" } else { "two" };
                let letter = Letter { connection: number, ..letter(tenant, "transactional", number) };
                let (world, dispatch) = (Arc::clone(&world), Arc::clone(&life.dispatch));
                tokio::spawn(async move { (world.send(&dispatch, letter).await, world.now()) })
            })
            .collect();
        world.at(10 * SECOND).await;
        let task = life.begin_stop();
        for client in clients {
            let (answer, at) = client.await.unwrap();
            assert_eq!(answer, Answer::Held("drain"));
            assert!(at <= 10 * SECOND + 100, "held at once, not at {at}");
        }
        let cut = task.await.unwrap();
        println!("drain: {cut} cut off, over at {} ms", world.now());
        assert_eq!(cut, 9);
        assert!(world.now() <= 15 * SECOND + 100, "the grace is five seconds");

        world.at(11 * MINUTE).await;
        let life = world.live().await;
        assert_eq!((life.found.held, life.found.unknown.len()), (9, 9));
        life.until_empty(&world, HOUR).await;
        assert_eq!(assert_none_lost(&world.heard(), &world.ses.seen()), 0);
    });
}
