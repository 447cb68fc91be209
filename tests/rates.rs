//! How much may leave when, in simulated time: rates of streams and tenants, daily caps, warm-up ladders,
//! the exposure window, the account's quota and rate, and all of it over a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

#[path = "support/simulation.rs"]
mod simulation;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulkhead::dispatch::{AccountNews, Dispatch};
use bulkhead::mail::StreamId;
use bulkhead::policy::exposure::OutcomeKind;
use bulkhead::policy::reputation::{Brake, Charge, Offence, Rule, Span, Step};
use bulkhead::policy::tenant::{Stream, Tenant, Warmup};
use bulkhead::time::Clock as _;
use tokio::time::sleep;

use simulation::*;

const DAY: Millis = 24 * HOUR;

/// A tenant whose stream of this kind was changed.
fn with(mut tenant: Tenant, stream: &str, change: impl FnOnce(&mut Stream)) -> Tenant {
    change(tenant.streams.get_mut(&stream.parse::<StreamId>().unwrap()).unwrap());
    tenant
}

fn plan(rate: f64, tenants: Vec<Tenant>) -> Plan {
    let mut plan = Plan::new(11, tenants);
    plan.terms.rate = rate;
    plan
}

/// Hands over so many messages of a stream, one after the other by eight connections; what they heard.
async fn throw(world: &Arc<World>, dispatch: &Arc<Dispatch>, of: (&str, &str), count: u32) -> Vec<Answer> {
    let mut tasks = Vec::new();
    for connection in 0..8 {
        let (world, dispatch) = (Arc::clone(world), Arc::clone(dispatch));
        let (tenant, stream) = (of.0.to_owned(), of.1.to_owned());
        let first = u32::try_from(world.heard().len()).unwrap() * 8 + connection;
        tasks.push(tokio::spawn(async move {
            let mut heard = Vec::new();
            for number in (connection..count).step_by(8) {
                let letter = Letter {
                    connection: first,
                    number,
                    tenant: tenant.clone(),
                    stream: stream.clone(),
                    to: vec![format!("r{number}@to.example")],
                    octets: 512,
                };
                heard.push(world.send(&dispatch, letter).await);
            }
            heard
        }));
    }
    let mut heard = Vec::new();
    for task in tasks {
        heard.extend(task.await.unwrap());
    }
    heard
}

/// When SES took the recipients of a stream, in order.
fn taken(world: &World, tenant: &str, stream: &str) -> Vec<Millis> {
    let of = |call: &Seen| call.is_taken() && call.tenant == tenant && (stream.is_empty() || call.stream == stream);
    let mut moments: Vec<Millis> = world
        .ses
        .seen()
        .iter()
        .filter(|call| of(call))
        .flat_map(|call| vec![call.decided.unwrap(); call.to.len()])
        .collect();
    moments.sort_unstable();
    moments
}

fn most_within(moments: &[Millis], span: Millis) -> usize {
    let within = |from: &Millis| moments.iter().filter(|at| (*from..from + span).contains(at)).count();
    moments.iter().map(within).max().unwrap_or_default()
}

fn before(moments: &[Millis], at: Millis) -> usize {
    moments.iter().filter(|moment| **moment < at).count()
}

fn slowed(stream: &mut Stream) {
    let charge =
        Charge { rule: Rule::Rate, offence: Offence::Bounce, span: Span::Day, bad: 9, accepted: 100, limit: 0.02 };
    stream.standing.brake =
        Some(Brake { step: Step::Slowed, since: Default::default(), charge, clears: None, shadow: false });
}

// ---------------------------------------------------------------------------------------------
// Rates

#[test]
fn a_streams_rate_is_kept_and_delays_no_other() {
    let one = with(tenant("one", 1), "marketing", |stream| stream.rate_per_second = Some(5.0));
    simulate(plan(100.0, vec![one, tenant("two", 1)]), async |world| {
        let life = world.live().await;
        throw(&world, &life.dispatch, ("one", "marketing"), 600).await;
        let (why, until) = life.dispatch.why(&lane("one", "marketing")).unwrap();
        assert_eq!(why, "stream_rate");
        assert!(until.unwrap() <= Duration::from_millis(200));
        for of in [("one", "transactional"), ("two", "marketing")] {
            let heard = throw(&world, &life.dispatch, of, 80).await;
            assert!(heard.iter().all(|answer| *answer == Answer::Relayed), "{of:?}");
        }
        life.until_empty(&world, HOUR).await;
        let moments = taken(&world, "one", "marketing");
        assert_eq!(moments.len(), 600);
        let most = most_within(&moments, 10 * SECOND);
        println!("5 a second: {most} in 10 seconds, the last after {} s", moments[599] / SECOND);
        assert!((48..=55 + 3).contains(&most), "{most}");
        assert!((118 * SECOND..125 * SECOND).contains(&moments[599]));
        life.stop().await;
    });
}

#[test]
fn a_tenants_rate_is_kept_over_its_streams() {
    let mut one = tenant("one", 1);
    one.rate_per_second = Some(10.0);
    simulate(plan(100.0, vec![one, tenant("two", 1)]), async |world| {
        let life = world.live().await;
        for stream in ["transactional", "marketing"] {
            throw(&world, &life.dispatch, ("one", stream), 300).await;
        }
        let heard = throw(&world, &life.dispatch, ("two", "marketing"), 80).await;
        assert!(heard.iter().all(|answer| *answer == Answer::Relayed));
        let (why, _) = life.dispatch.why(&lane("one", "marketing")).unwrap();
        assert_eq!(why, "tenant_rate");
        life.until_empty(&world, HOUR).await;
        let moments = taken(&world, "one", "");
        let most = most_within(&moments, 10 * SECOND);
        println!("10 a second over two streams: {most} in 10 seconds, the last after {} s", moments[599] / SECOND);
        assert_eq!(moments.len(), 600);
        assert!((95..=115).contains(&most), "{most}");
        assert!(moments[599] < 65 * SECOND);
        life.stop().await;
    });
}

#[test]
fn a_slowed_stream_has_half_its_rate_or_half_the_accounts() {
    let own = with(tenant("own", 1), "marketing", |stream| {
        slowed(stream);
        stream.rate_per_second = Some(10.0);
    });
    let none = with(tenant("none", 1), "marketing", slowed);
    simulate(plan(40.0, vec![own, none]), async |world| {
        let life = world.live().await;
        sleep(Duration::from_secs(1)).await;
        throw(&world, &life.dispatch, ("own", "marketing"), 300).await;
        throw(&world, &life.dispatch, ("none", "marketing"), 600).await;
        life.until_empty(&world, HOUR).await;
        let most = [("own", 5), ("none", 20)].map(|(tenant, rate)| {
            let most = most_within(&taken(&world, tenant, "marketing"), 10 * SECOND);
            assert!((rate * 9..=rate * 11 + 5).contains(&most), "{tenant}: {most}");
            most
        });
        println!("slowed: {most:?} in 10 seconds");
        life.stop().await;
    });
}

/// One tenant has the rate to itself; another comes, with three times its weight.
#[test]
fn an_idle_share_is_lent_and_taken_back_at_once() {
    simulate(plan(40.0, vec![tenant("one", 1), tenant("three", 3)]), async |world| {
        let life = world.live().await;
        throw(&world, &life.dispatch, ("one", "marketing"), 6000).await;
        world.at(MINUTE).await;
        let from = world.now();
        let lent = before(&taken(&world, "one", "marketing"), from);
        assert!(lent as u64 * SECOND >= 34 * from, "{lent}: the whole rate while nobody else wants it");
        throw(&world, &life.dispatch, ("three", "marketing"), 1200).await;
        world.at(from + 10 * SECOND).await;
        let share = before(&taken(&world, "three", "marketing"), from + 10 * SECOND);
        println!("{lent} of the lender's in {} s, then {share} of the other's in 10 s", from / SECOND);
        assert!((260..=310).contains(&share), "{share} of 300");
        world.at(2 * MINUTE).await;
        let end = *taken(&world, "three", "marketing").last().unwrap();
        let again = before(&taken(&world, "one", "marketing"), end + 20 * SECOND)
            - before(&taken(&world, "one", "marketing"), end + 10 * SECOND);
        assert!(again >= 380, "{again}: the whole rate again");
        life.stop().await;
    });
}

/// A drain does not wait for the rate: who was not offered yet goes after the start, at once and once.
#[test]
fn a_message_that_goes_out_bit_by_bit_is_cut_by_a_drain_and_goes_on_after_it() {
    const TO: usize = 80;
    let mut plan = plan(4.0, vec![tenant("acme", 1)]);
    plan.options.max_send_rate = Some(4.0);
    simulate(plan, async |world| {
        let life = world.live().await;
        let to = (0..TO).map(|n| format!("r{n}@to.example")).collect();
        let (tenant, stream) = ("acme".into(), "bulk".into());
        let letter = Letter { connection: 1, number: 1, tenant, stream, to, octets: 512 };
        let (there, dispatch) = (Arc::clone(&world), Arc::clone(&life.dispatch));
        let sending = tokio::spawn(async move { there.send(&dispatch, letter).await });
        world.at(10 * SECOND).await;
        assert_eq!(life.stop().await, 0, "none is cut off");
        let answer = sending.await.unwrap();
        assert!(matches!(answer, Answer::Held(_)), "its client hears 250: {answer:?}");
        let (stopped, before) = (world.now(), taken(&world, "acme", "bulk").len());
        assert!(stopped < 15 * SECOND && (30..50).contains(&before), "{before} of {TO} in {stopped} ms");

        let life = world.live().await;
        let ended = life.until_empty(&world, 5 * MINUTE).await;
        life.stop().await;
        assert!(ended - stopped < 60 * SECOND, "{} ms: nothing was taken for unknown", ended - stopped);
        let mut to: Vec<String> =
            world.ses.seen().iter().filter(|call| call.is_taken()).flat_map(|call| call.to.clone()).collect();
        to.sort();
        to.dedup();
        assert_eq!((to.len(), taken(&world, "acme", "bulk").len()), (TO, TO), "each once");
    });
}

// ---------------------------------------------------------------------------------------------
// Days

/// Each recipient has a call of its own, so what a message takes of the rate at once goes out bit by bit:
/// SES, which takes them one by one, has room for them. (One call that is slow to arrive may be one too
/// many for a bucket that was full meanwhile. With all calls at once there were 110 throttles, and the mail
/// took four times as long.)
#[test]
fn messages_to_many_at_a_slow_account_meet_no_throttle() {
    const TO: usize = 30;
    const MESSAGES: u32 = 20;
    let rate = 14.0;
    let mut plan = plan(rate, vec![tenant("acme", 1)]);
    plan.options.max_send_rate = Some(rate);
    simulate(plan, async |world| {
        let life = world.live().await;
        let began = world.now();
        let mut answers = Vec::new();
        for number in 0..MESSAGES {
            let to = (0..TO).map(|n| format!("r{number}-{n}@to.example")).collect();
            let (tenant, stream) = ("acme".into(), "bulk".into());
            let letter = Letter { connection: 1, number, tenant, stream, to, octets: 512 };
            answers.push(world.send(&life.dispatch, letter).await);
        }
        let ended = life.until_empty(&world, 5 * MINUTE).await;
        life.stop().await;
        let seen = world.ses.seen();
        assert_eq!(seen.iter().filter(|call| call.is_taken()).count(), TO * MESSAGES as usize);
        let throttled = seen.iter().filter(|call| call.said == Some(Said::Throttled)).count();
        let alone = (f64::from(MESSAGES) * TO as f64 / rate * 1000.0) as Millis;
        println!(
            "{MESSAGES} messages to {TO} at {rate} a second: {} ms of {alone}, {throttled} throttled",
            ended - began
        );
        assert!(throttled <= 2, "{throttled}");
        assert!(ended - began < alone * 13 / 10, "{} ms", ended - began);
        assert!(matches!(answers[0], Answer::Relayed) && matches!(answers[5], Answer::Held(_)), "{answers:?}");
    });
}

#[test]
fn a_daily_cap_holds_until_midnight_and_no_other_stream() {
    let mut one = with(tenant("one", 1), "marketing", |stream| stream.daily_recipients = Some(100));
    one.daily_recipients = Some(300);
    simulate(plan(100.0, vec![one, tenant("two", 1)]), async |world| {
        let life = world.live().await;
        world.at(23 * HOUR).await;
        throw(&world, &life.dispatch, ("one", "marketing"), 150).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(taken(&world, "one", "marketing").len(), 100);
        let (why, until) = life.dispatch.why(&lane("one", "marketing")).unwrap();
        assert_eq!(why, "daily_cap");
        let left = until.unwrap();
        assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3400), "{left:?}");
        // The tenant's own cap is over all its streams.
        throw(&world, &life.dispatch, ("one", "transactional"), 250).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(taken(&world, "one", "").len(), 300);
        assert!(throw(&world, &life.dispatch, ("two", "marketing"), 40).await.iter().all(|a| *a == Answer::Relayed));
        world.at(DAY - 1).await;
        assert_eq!(taken(&world, "one", "").len(), 300);
        world.at(DAY + MINUTE).await;
        assert_eq!(taken(&world, "one", "").len(), 400);
        assert_eq!(life.held(), 0);
        life.stop().await;
    });
}

/// Ten days with more mail than the ladder lets pass: one of them bad, one without mail.
#[test]
fn a_ladder_is_climbed_by_clean_days_and_descended_by_a_bad_one() {
    let warmup = Warmup { start: "2026-05-01".into(), first_day: 100, days: 4, target: 800 };
    let one = with(tenant("one", 1), "marketing", |stream| stream.warmup = Some(warmup));
    let per_day = simulate(plan(200.0, vec![one]), async |world| {
        for day in 0..9 {
            let begin = day * DAY;
            // On the fourth day the relay is off.
            if day == 3 {
                continue;
            }
            world.at(begin + 12 * HOUR).await;
            let life = world.live().await;
            throw(&world, &life.dispatch, ("one", "marketing"), 900).await;
            sleep(Duration::from_secs(30)).await;
            if life.held() > 0 {
                assert_eq!(life.dispatch.why(&lane("one", "marketing")).unwrap().0, "warmup");
            }
            world.count().await;
            if day == 2 {
                world.bounce("one", "marketing", 60).await;
            }
            // Some midnights are seen by a relay that runs, some by one that comes later.
            if day % 2 == 0 {
                life.stop().await;
                continue;
            }
            world.at(begin + DAY - MINUTE).await;
            world.at(begin + DAY + MINUTE).await;
            world.count().await;
            life.stop().await;
        }
        let mut per_day = BTreeMap::<u64, usize>::new();
        taken(&world, "one", "marketing").iter().for_each(|at| *per_day.entry(at / DAY).or_default() += 1);
        let steps: Vec<u64> =
            world.lines("warmup_stepped").iter().map(|(_, line)| line["rung"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 1, 2, 3, 4]);
        per_day
    });
    println!("warm-up: {per_day:?}");
    let days: Vec<(u64, usize)> = per_day.into_iter().collect();
    assert_eq!(days[..6], [(0, 100), (1, 200), (2, 400), (4, 200), (5, 400), (6, 800)]);
    assert!(days[6].0 == 7 && days[6].1 > 800, "{days:?}: no cap after the last step");
}

// ---------------------------------------------------------------------------------------------
// The exposure window

/// What SES says of what it took: bad or not, and how long after. It is told as ingest does.
fn hear(world: &Arc<World>, dispatch: &Arc<Dispatch>, of: impl Fn(u64) -> (OutcomeKind, Duration) + Send + 'static) {
    let (world, dispatch) = (Arc::clone(world), Arc::clone(dispatch));
    tokio::spawn(async move {
        let mut known = 0;
        loop {
            let seen = world.ses.seen();
            for (number, call) in seen.iter().enumerate().skip(known) {
                // A call that is under way is looked at again.
                let Some(decided) = call.decided else { break };
                known = number + 1;
                if !call.is_taken() {
                    continue;
                }
                let (kind, after) = of(number as u64);
                let sent = world.clock.now().minus(Duration::from_millis(world.now() - decided));
                let (dispatch, lane) = (Arc::clone(&dispatch), lane(&call.tenant, &call.stream));
                let recipients = u32::try_from(call.to.len()).unwrap();
                tokio::spawn(async move {
                    sleep(after).await;
                    dispatch.outcomes(&lane, sent, recipients, kind);
                });
            }
            sleep(Duration::from_millis(250)).await;
        }
    });
}

fn exposed(name: &str) -> Tenant {
    with(tenant(name, 1), "marketing", |stream| stream.exposure = true)
}

#[test]
fn without_deliveries_a_window_opens_by_the_horizon_alone() {
    simulate(plan(50.0, vec![exposed("one")]), async |world| {
        let life = world.live().await;
        throw(&world, &life.dispatch, ("one", "marketing"), 2000).await;
        let heard = throw(&world, &life.dispatch, ("one", "transactional"), 200).await;
        assert!(!heard.contains(&Answer::Held("exposure_window")), "it has no window");
        world.at(MINUTE).await;
        let (why, until) = life.dispatch.why(&lane("one", "marketing")).unwrap();
        assert_eq!(why, "exposure_window");
        assert!(until.unwrap() <= Duration::from_secs(601));
        let mut after = Vec::new();
        for rounds in 1..=5 {
            world.at(rounds * 10 * MINUTE - 10 * SECOND).await;
            after.push(taken(&world, "one", "marketing").len());
        }
        println!("by the horizon alone: {after:?}");
        assert_eq!(after[..2], [100, 200]);
        assert!(after[2] >= 300 && after[4] >= 800 && after[4] < 2000, "{after:?}");
        assert_eq!(world.lines("deliveries_unseen").len(), 1);
        life.until_empty(&world, 2 * HOUR).await;
        life.stop().await;
    });
}

#[test]
fn a_stale_list_is_held_after_few_and_an_honest_one_is_not_delayed() {
    let chance = |number: u64| Seeded::new(number).below(1000);
    let fate = move |bad: u64| {
        move |number: u64| {
            let late = Seeded::new(number ^ 0xabc);
            if chance(number) < bad {
                (OutcomeKind::Bad, late.between(5 * SECOND, 120 * SECOND))
            } else {
                (OutcomeKind::Delivered, late.between(SECOND, 10 * SECOND))
            }
        }
    };
    let stale = simulate(plan(50.0, vec![exposed("stale")]), async |world| {
        let life = world.live().await;
        hear(&world, &life.dispatch, fate(120));
        throw(&world, &life.dispatch, ("stale", "marketing"), 4000).await;
        world.at(2 * MINUTE).await;
        let view = life.dispatch.exposure(&lane("stale", "marketing")).unwrap();
        assert_eq!(view.window, Some(100));
        taken(&world, "stale", "marketing").len()
    });
    let honest = simulate(plan(50.0, vec![exposed("honest")]), async |world| {
        let life = world.live().await;
        hear(&world, &life.dispatch, fate(8));
        throw(&world, &life.dispatch, ("honest", "marketing"), 6000).await;
        let end = life.until_empty(&world, HOUR).await;
        let view = life.dispatch.exposure(&lane("honest", "marketing")).unwrap();
        assert!(view.window.unwrap() >= 400, "{view:?}");
        end
    });
    println!("stale: {stale} in two minutes; honest: 6,000 in {} s where the rate needs 120", honest / SECOND);
    assert!(stale < 2000, "{stale} of the 4,000; the window alone, without a judge");
    assert!(honest < 240 * SECOND);
}

// ---------------------------------------------------------------------------------------------
// The account

#[test]
fn the_last_of_the_quota_is_for_transactional_mail() {
    let mut plan = plan(100.0, vec![tenant("one", 1)]);
    (plan.terms.daily, plan.terms.tells_quota) = (Some(1000), true);
    simulate(plan, async |world| {
        let life = world.live().await;
        let news: Arc<Mutex<Vec<bool>>> = Arc::default();
        let heard = Arc::clone(&news);
        let hear = move |of: AccountNews| heard.lock().unwrap().extend(of.quota.map(|quota| quota.is_reached));
        life.dispatch.tell_account_news(Box::new(hear));
        sleep(Duration::from_secs(1)).await;
        throw(&world, &life.dispatch, ("one", "marketing"), 790).await;
        world.at(2 * MINUTE).await;
        assert!(news.lock().unwrap().is_empty(), "79 % are nothing to tell");
        throw(&world, &life.dispatch, ("one", "marketing"), 30).await;
        world.at(4 * MINUTE).await;
        assert_eq!(*news.lock().unwrap(), [false], "nearly used up");
        throw(&world, &life.dispatch, ("one", "marketing"), 280).await;
        world.at(5 * MINUTE).await;
        assert_eq!(taken(&world, "one", "marketing").len(), 950);
        assert_eq!(life.dispatch.why(&lane("one", "marketing")).unwrap().0, "daily_quota");
        let heard = throw(&world, &life.dispatch, ("one", "transactional"), 80).await;
        assert_eq!(heard.iter().filter(|answer| **answer == Answer::Relayed).count(), 50);
        world.at(10 * MINUTE).await;
        assert_eq!(taken(&world, "one", "").len(), 1000);
        assert_eq!(*news.lock().unwrap(), [false, true], "then what is left was too little");
        assert_eq!(world.lines("quota_near").len(), 2);
        let refused = world.ses.seen().iter().filter(|call| call.said == Some(Said::Quota)).count();
        assert_eq!(refused, 0, "SES had not to say so");
        // Of 24 hours all has left when they are over.
        life.until_empty(&world, 25 * HOUR).await;
        life.stop().await;
    });
}

#[test]
fn an_account_that_ses_shuts_holds_all_and_is_told_of_once() {
    simulate(plan(100.0, vec![tenant("one", 1)]), async |world| {
        let life = world.live().await;
        let news: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&news);
        life.dispatch.tell_account_news(Box::new(move |of| heard.lock().unwrap().push(of.enforcement_status)));
        for (minute, status) in [(2, "PROBATION"), (4, "SHUTDOWN"), (8, "HEALTHY")] {
            world.at(minute * MINUTE + 30 * SECOND).await;
            world.ses.change(|terms| terms.enforcement = status);
            world.at((minute + 2) * MINUTE).await;
            let answers = throw(&world, &life.dispatch, ("one", "transactional"), 8).await;
            let expected = if status == "SHUTDOWN" { Answer::Held("account_paused") } else { Answer::Relayed };
            assert!(answers.iter().all(|answer| *answer == expected), "{status}: {answers:?}");
        }
        assert_eq!(life.held(), 0);
        assert_eq!(*news.lock().unwrap(), ["PROBATION", "SHUTDOWN", "HEALTHY"]);
        assert_eq!(world.lines("account_standing").len(), 3);
        life.stop().await;
    });
}

// ---------------------------------------------------------------------------------------------
// Restarts, and nothing leaks

#[test]
fn a_restart_keeps_day_and_window() {
    let one = with(exposed("one"), "transactional", |stream| stream.daily_recipients = Some(100));
    simulate(plan(100.0, vec![one]), async |world| {
        let life = world.live().await;
        hear(&world, &life.dispatch, |_| (OutcomeKind::Delivered, Duration::from_secs(2)));
        throw(&world, &life.dispatch, ("one", "transactional"), 60).await;
        throw(&world, &life.dispatch, ("one", "marketing"), 120).await;
        sleep(Duration::from_secs(20)).await;
        let window = life.dispatch.exposure(&lane("one", "marketing")).unwrap().window;
        assert_eq!(window, Some(200));
        world.count().await;
        // No drain: the process is gone.
        life.kill();
        let life = world.live().await;
        assert_eq!(life.dispatch.exposure(&lane("one", "marketing")).unwrap().window, Some(200));
        throw(&world, &life.dispatch, ("one", "transactional"), 60).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(taken(&world, "one", "transactional").len(), 100);
        // What was out when it ended is taken to be out still: nothing was counted as delivered.
        assert_eq!(life.dispatch.exposure(&lane("one", "marketing")).unwrap().outstanding, 120);
        sleep(Duration::from_secs(600)).await;
        assert_eq!(life.dispatch.exposure(&lane("one", "marketing")).unwrap().outstanding, 0);
    });
}

/// Whatever calls come to, all that was reserved is used or given back.
#[test]
fn nothing_reserved_leaks() {
    let mut plan = plan(60.0, vec![exposed("one"), exposed("two")]);
    plan.terms.faults = vec![
        Fault::of_all(20 * SECOND, 40 * SECOND, Does::RefuseConnection),
        Fault::of_all(60 * SECOND, 70 * SECOND, Does::Fail),
        Fault::of("one", "marketing", 90 * SECOND, 120 * SECOND, Does::Hang(CALL_TIME)),
        Fault::of("two", "marketing", 130 * SECOND, 140 * SECOND, Does::TakeInSilence(CALL_TIME)),
    ];
    plan.options.exposure.horizon = Duration::from_secs(60);
    simulate(plan, async |world| {
        let life = world.live().await;
        hear(&world, &life.dispatch, |n| (OutcomeKind::Delivered, Duration::from_millis(500 + n % 7 * 900)));
        for _ in 0..18 {
            for tenant in ["one", "two"] {
                throw(&world, &life.dispatch, (tenant, "marketing"), 100).await;
            }
            sleep(Duration::from_secs(7)).await;
        }
        life.until_empty(&world, 2 * HOUR).await;
        sleep(Duration::from_secs(200)).await;
        for tenant in ["one", "two"] {
            let view = life.dispatch.exposure(&lane(tenant, "marketing")).unwrap();
            assert_eq!((view.reserved, view.outstanding), (0, 0), "{tenant}: {view:?}");
        }
        let failed = world.ses.seen().iter().filter(|call| !call.is_taken()).count();
        assert!(failed > 10, "{failed}");
        life.stop().await;
    });
}
