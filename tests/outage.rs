//! The dispatcher through an outage of SES, and through everything else that makes mail wait, in
//! simulated time: hours pass in seconds, and two runs are the same to the millisecond.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

#[path = "support/simulation.rs"]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead::dispatch::Dispatch;
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
    connection: u32,
    earlier: (u32, Millis),
    later: (u32, Millis),
}

fn overtakings(seen: &[Seen]) -> Vec<Overtaken> {
    let failed: BTreeSet<(u32, u32)> = seen
        .iter()
        .filter(|call| !matches!(call.said, Some(Said::Taken | Said::Network)))
        .map(|call| (call.connection, call.number))
        .collect();
    let mut lines: BTreeMap<(u32, String), Vec<(Millis, usize, u32)>> = BTreeMap::new();
    for (at, call) in seen.iter().enumerate().filter(|(_, call)| call.is_taken()) {
        for to in &call.to {
            lines.entry((call.connection, to.clone())).or_default().push((call.decided.unwrap(), at, call.number));
        }
    }
    let mut overtaken = Vec::new();
    for ((connection, _), mut line) in lines {
        line.sort_unstable();
        let mut latest: Option<(u32, Millis)> = None;
        for (at, _, number) in line {
            match latest {
                Some(later) if later.0 > number => {
                    let by_ses = failed.contains(&(connection, number));
                    overtaken.push(Overtaken { by_ses, connection, earlier: (number, at), later });
                }
                _ => latest = Some((number, at)),
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
const LOAD_ENDS: Millis = 30 * MINUTE;
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
        for overtaken in overtakings(&seen).iter().take(5) {
            println!("   {overtaken:?}");
        }
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

#[test]
fn an_outage_of_refused_connections() {
    let figures = outage(Does::RefuseConnection);
    println!("{figures:#?}");
    assert_eq!(figures, outage(Does::RefuseConnection));
}

#[test]
fn an_outage_of_500s() {
    let figures = outage(Does::Fail);
    println!("{figures:#?}");
}

#[test]
fn an_outage_of_silence() {
    let figures = outage(Does::Hang(CALL_TIME));
    println!("{figures:#?}");
}
