//! Events are applied once: twice delivered, out of order, in two forms, split over recipients,
//! before the send was counted, across faults of the store and of the queue.

// Outside of test functions clippy does not see that these are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "ingest/queue.rs"]
mod queue;
#[path = "ingest/runs.rs"]
mod runs;
#[path = "ingest/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use bulkhead::event::{Notice, parse};
use bulkhead::ingest::{Outcome, Swept};
use bulkhead::policy::decide::{self, Reason, Verdict};
use bulkhead::policy::effect::COUNTED;
use bulkhead::policy::tenant::{Cohort, Stream, StreamKind, Suppression, SuppressionReason};
use bulkhead::store::audit;
use bulkhead::store::counters::{self, Counts, Row};
use bulkhead::store::directory::{Directory, Fault};
use bulkhead::store::{Batch, If, Key, Store, ledger, suppressions};
use bulkhead::time::Clock as _;
use world::{DAY, Dice, SENT, World, bounce, bridge, complaint, delivery, sns};

fn notice(body: &str) -> Notice {
    parse(body.as_bytes()).unwrap()
}

async fn apply(world: &World, bodies: &[String]) -> Vec<Outcome> {
    world.applier().apply(bodies.iter().map(|body| (String::from("n"), notice(body))).collect()).await
}

const A: &str = "a@there.example";
const B: &str = "b@there.example";

#[tokio::test]
async fn a_bounce_delivered_twice_counts_once() {
    let world = World::new();
    let body = bounce("f-1", &[A]);
    assert_eq!(apply(&world, &[body.clone(), body.clone()]).await, [Outcome::Applied, Outcome::Repeated]);
    // each with an applier of its own, as after a restart between commit and delete
    assert_eq!(apply(&world, std::slice::from_ref(&body)).await, [Outcome::Repeated]);
    world.clock.pass(3 * DAY);
    assert_eq!(apply(&world, &[body]).await, [Outcome::Repeated]);
    assert_eq!(world.counts().await, Counts { bounced: 1, ..Counts::default() });
    assert_eq!(world.suppressed().await, ["acme/a@there.example Bounce f-1"]);
}

#[tokio::test]
async fn both_forms_of_one_event_count_once() {
    let world = World::new();
    let raw = bounce("f-1", &[A]);
    let forms = [sns(&raw), bridge(&raw), raw.clone(), raw.replace("eventType", "notificationType")];
    let outcomes = apply(&world, &forms).await;
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Repeated, Outcome::Repeated, Outcome::Repeated]);
    let raw = delivery(&[A]);
    apply(&world, &[bridge(&raw), sns(&raw)]).await;
    assert_eq!(world.counts().await, Counts { bounced: 1, delivered: 1, ..Counts::default() });
}

#[tokio::test]
async fn order_does_not_matter() {
    let all = [delivery(&[A]), complaint("f-2", &[A]), bounce("f-1", &[A]), bounce("f-3", &[B])];
    let mut seen = 0;
    let mut first = None;
    for order in world::orders(all.len()) {
        let world = World::new();
        for at in order {
            assert_eq!(apply(&world, std::slice::from_ref(&all[at])).await, [Outcome::Applied]);
        }
        world.tally.accepted(&world.tenant(), &world.stream(), Cohort::of(SENT.hour()), 2);
        let state = (world.counts_with_tally().await, world.suppressed().await);
        assert_eq!(*first.get_or_insert(state.clone()), state);
        seen += 1;
    }
    assert_eq!(seen, 24);
    let (counts, suppressed) = first.unwrap();
    assert_eq!(counts, Counts { accepted: 2, delivered: 1, bounced: 2, complained: 1, ..Counts::default() });
    let both = ["acme/a@there.example Bounce f-1", "acme/a@there.example Complaint f-2"];
    assert_eq!(suppressed, [both[0], both[1], "acme/b@there.example Bounce f-3"]);
}

#[tokio::test]
async fn recipients_that_come_in_parts_count_once_each() {
    let world = World::new();
    assert_eq!(apply(&world, &[bounce("f-1", &[A])]).await, [Outcome::Applied]);
    assert_eq!(apply(&world, &[bounce("f-1", &[A, B])]).await, [Outcome::Applied]);
    assert_eq!(apply(&world, &[bounce("f-1", &[B]), bounce("f-1", &[B, A])]).await, [Outcome::Repeated; 2]);
    assert_eq!(world.counts().await.bounced, 2);
    assert_eq!(world.suppressed().await.len(), 2);
}

#[tokio::test]
async fn a_bounce_before_its_send_was_counted_is_counted_in_the_hour_of_sending() {
    let world = World::new();
    world.clock.pass(5 * 3_600_000);
    apply(&world, &[bounce("f-1", &[A])]).await;
    world.tally.accepted(&world.tenant(), &world.stream(), Cohort::of(SENT.hour()), 1);
    assert_eq!(world.counts_with_tally().await, Counts { accepted: 1, bounced: 1, ..Counts::default() });
    let hour = SENT.hour();
    let of = counters::of(&*world.store, &world.tenant(), &world.stream(), hour, hour).await.unwrap();
    assert_eq!(of, Counts { accepted: 1, bounced: 1, ..Counts::default() });
}

#[tokio::test]
async fn what_names_no_effect_is_safe_and_leaves_no_row() {
    let world = World::new();
    let bodies = [
        sns("Successfully validated SNS topic for Amazon SES event publishing."),
        r#"{"Type":"SubscriptionConfirmation","TopicArn":"arn:t"}"#.into(),
        r#"{"eventType":"Teleport"}"#.into(),
        bounce("f-1", &["bounce+x@simulator.amazonses.com"]),
        bounce("f-1", &[A]).replace("\"acme\"", "\"nobody\"").replace("acme-main", "foreign"),
        std::fs::read_to_string(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/events/envelope_eventbridge_sending_status_disabled.json"),
        )
        .unwrap(),
    ];
    use Outcome::{Applied, Noted, Unowned};
    assert_eq!(apply(&world, &bodies).await, [Noted, Noted, Noted, Applied, Unowned, Noted]);
    // What SES says of its tenant is mirrored.
    let rows = world.store.scan(&Key::all(), None, 10).await.unwrap();
    assert!(rows.len() == 1 && rows[0].0.begins_with(&Key::ses_statuses()), "{rows:?}");
}

#[tokio::test]
async fn fifty_recipients_need_several_commits_and_a_fault_between_them_loses_none() {
    let given: Vec<String> = (0..50).map(|n| format!("r{n}@there.example")).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let body = bounce("f-1", &given);
    let world = World::new();
    world.store.fail_after_commits(1);
    assert_eq!(apply(&world, std::slice::from_ref(&body)).await, [Outcome::Deferred]);
    let half = world.suppressed().await;
    assert!(!half.is_empty() && half.len() < 50, "{}", half.len());
    world.store.heal();
    assert_eq!(world.counts().await.bounced, u64::try_from(half.len()).unwrap(), "a share is whole or not there");
    assert_eq!(apply(&world, &[body.clone(), body]).await, [Outcome::Applied, Outcome::Repeated]);
    assert_eq!(world.counts().await.bounced, 50);
    assert_eq!(world.suppressed().await.len(), 50);
}

/// Whatever the commit at which the store stops, and whether that commit was written or not:
/// nothing is half there, and all counts once after the restart.
#[tokio::test]
async fn a_store_that_stops_midway_has_all_of_a_share_or_nothing() {
    let mut bodies: Vec<String> =
        (0..60).map(|n| bounce(&format!("f-{n}"), &[&format!("r{n}@there.example")])).collect();
    bodies.push(bounce("many", &["x@a.example", "y@a.example", "z@a.example"]));
    let (mut deferred, mut lost_answers) = (0, 0);
    for stop in 0..4 {
        for written in [false, true] {
            let world = World::new();
            world.store.fail_after_commits(stop);
            world.store.lose_the_answer(written);
            let outcomes = apply(&world, &bodies).await;
            world.store.heal();
            let safe = outcomes.iter().filter(|outcome| outcome.is_safe()).count();
            let (counts, suppressed) = (world.counts().await, world.suppressed().await);
            assert_eq!(counts.bounced, u64::try_from(suppressed.len()).unwrap());
            assert_eq!(world.shares().await, suppressed.len());
            assert!(suppressed.len() >= safe, "a safe event that is not in the store");
            deferred += bodies.len() - safe;
            lost_answers += suppressed.len().saturating_sub(safe);
            let again = apply(&world, &bodies).await;
            assert!(again.iter().all(|outcome| outcome.is_safe()), "{again:?}");
            assert_eq!(world.counts().await.bounced, 63, "stop {stop} written {written}");
            assert_eq!(world.suppressed().await.len(), 63);
        }
    }
    assert!(deferred > 100 && lost_answers > 60, "{deferred} {lost_answers}");
}

#[tokio::test]
async fn a_repeat_is_no_safer_than_the_first() {
    let world = World::new();
    world.store.fail_after_commits(0);
    let bodies = [bounce("f-1", &[A]), bounce("f-1", &[A])];
    assert_eq!(apply(&world, &bodies).await, [Outcome::Deferred, Outcome::Deferred]);
    world.store.heal();
    assert_eq!(apply(&world, &bodies).await, [Outcome::Applied, Outcome::Repeated]);
}

#[tokio::test]
async fn a_damaged_record_holds_up_only_its_own_events() {
    let world = World::new();
    let damaged = world.damage_suppression(A).await;
    let outcomes = apply(&world, &[bounce("f-1", &[A]), bounce("f-2", &[B]), delivery(&[A])]).await;
    assert_eq!(outcomes, [Outcome::Deferred, Outcome::Applied, Outcome::Applied]);
    assert_eq!(world.counts().await, Counts { bounced: 1, delivered: 1, ..Counts::default() });
    let mut batch = Batch::new();
    batch.remove(damaged, If::Any);
    world.store.commit(batch).await.unwrap();
    assert_eq!(apply(&world, &[bounce("f-1", &[A])]).await, [Outcome::Applied]);
    assert_eq!(world.counts().await.bounced, 2);
}

#[tokio::test]
async fn a_command_between_read_and_commit_is_not_overwritten() {
    let world = World::new();
    let entry = |reason| Suppression {
        reason,
        origin: "cli".into(),
        at: bulkhead::time::Timestamp::from_millis(0),
        expires: None,
        actor: "cli:root".into(),
    };
    let mut batch = Batch::new();
    suppressions::write(&mut batch, &world.tenant(), &world::mailbox(A), &entry(SuppressionReason::Bounce));
    suppressions::write(&mut batch, &world.tenant(), &world::mailbox(A), &entry(SuppressionReason::Manual));
    world.store.before_next_commit(batch);
    assert_eq!(apply(&world, &[bounce("f-1", &[A])]).await, [Outcome::Applied]);
    let both = ["acme/a@there.example Bounce cli", "acme/a@there.example Manual cli"];
    assert_eq!(world.suppressed().await, both);
    assert_eq!(world.counts().await.bounced, 1);
}

/// A hard bounce that follows a complaint is kept beside it, and stops the stream that lets
/// complaints pass.
#[tokio::test]
async fn a_bounce_after_a_complaint_stops_every_stream() {
    let world = World::new();
    let stream = |id: &str, kind, suppress_on: &[SuppressionReason]| Stream {
        id: id.parse().unwrap(),
        kind,
        suppress_on: suppress_on.to_vec(),
        ..world.directory.load().tenant(&world.tenant()).unwrap().streams.values().next().unwrap().clone()
    };
    use SuppressionReason::{Bounce, Complaint};
    let transactional = stream("resets", StreamKind::Transactional, &[Bounce]);
    let marketing = stream("offers", StreamKind::Marketing, &[Bounce, Complaint]);
    let judged = async || {
        let entries = suppressions::find(&*world.store, &world.tenant(), &world::mailbox(A)).await.unwrap();
        [&transactional, &marketing].map(|stream| match decide::recipient_under(stream, &entries, SENT) {
            Verdict::Refuse(Reason::Suppressed { reason, .. }) => Some(reason),
            Verdict::Grant(()) => None,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(judged().await, [None, None]);
    assert_eq!(apply(&world, &[complaint("f-1", &[A])]).await, [Outcome::Applied]);
    assert_eq!(judged().await, [None, Some(Complaint)]);
    assert_eq!(apply(&world, &[bounce("f-2", &[A])]).await, [Outcome::Applied]);
    assert_eq!(judged().await, [Some(Bounce), Some(Bounce)]);
    let both = ["acme/a@there.example Bounce f-2", "acme/a@there.example Complaint f-1"];
    assert_eq!(world.suppressed().await, both);
}

/// Its events are in nobody's hands but ours: they wait, or go by our own tags.
#[tokio::test]
async fn events_of_a_damaged_tenant_are_not_nobodys() {
    let world = World::new();
    let key = Key::tenant(&world.tenant());
    let fault = Fault { key, tenant: Some(world.tenant()), username: None, what: "a test's".into() };
    let whole = world.directory.swap(Arc::new(Directory::new([], []).with_faults(vec![fault])));
    let tagged = bounce("f-1", &[A]);
    let untagged = bounce("f-2", &[B]).replace("\"tenant\"", "\"other\"");
    assert_ne!(untagged, bounce("f-2", &[B]));
    let outcomes = apply(&world, &[tagged.clone(), untagged.clone()]).await;
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Deferred]);
    assert_eq!(world.suppressed().await, ["acme/a@there.example Bounce f-1"]);
    world.directory.store(whole);
    assert_eq!(apply(&world, &[tagged, untagged]).await, [Outcome::Repeated, Outcome::Applied]);
    assert_eq!(world.counts().await.bounced, 2);
}

/// A relay and a replay at the same rows: every write is on the version that was read.
#[tokio::test]
async fn two_appliers_of_one_node_lose_no_count() {
    let world = World::new();
    world.store.yield_before_commits();
    let work = |from: u32| {
        let applier = world.applier();
        async move {
            let mut safe = 0;
            for n in from..from + 40 {
                // every third event goes to both
                let id = if n % 3 == 0 { n % 40 } else { n };
                let body = bounce(&format!("f-{id}"), &[&format!("r{id}@there.example")]);
                let outcomes = applier.apply(vec![("n".into(), notice(&body))]).await;
                safe += outcomes.iter().filter(|outcome| outcome.is_safe()).count();
            }
            safe
        }
    };
    let (one, two) = tokio::join!(work(0), work(40));
    assert_eq!((one, two), (40, 40));
    assert!(world.store.conflicts() > 20, "{}", world.store.conflicts());
    let distinct = world.suppressed().await.len();
    assert!(distinct > 50 && distinct < 80, "{distinct}");
    assert_eq!(world.counts().await.bounced, u64::try_from(distinct).unwrap());
}

/// Any order, grouping, form, splitting and repetition of a set of events gives the same state.
#[tokio::test]
async fn any_interleaving_gives_the_same_state() {
    let (mut repeats, mut faults, mut rounds) = (0, 0, 0);
    for seed in 1..=60 {
        let dice = Dice::new(seed);
        let events = world::some_events(&dice);
        let clean = World::new();
        for event in &events {
            apply(&clean, &[event.body(&event.recipients)]).await;
        }
        let wanted = (clean.counts().await, clean.suppressed().await);

        let world = World::new();
        let mut queue: Vec<String> = Vec::new();
        for event in &events {
            let copies = event.copies(&dice);
            repeats += copies.len() - 1;
            queue.extend(copies);
        }
        dice.shuffle(&mut queue);
        while !queue.is_empty() {
            let most = queue.len().min(1 + dice.below(40));
            let bodies: Vec<String> = queue.drain(..most).collect();
            let fault = dice.below(4) == 0;
            if fault {
                world.store.fail_after_commits(dice.below(2));
                world.store.lose_the_answer(dice.below(2) == 0);
            }
            let outcomes = apply(&world, &bodies).await;
            world.store.heal();
            // What is not safe stays in the queue; now and then a delete fails as well.
            for (body, outcome) in bodies.into_iter().zip(outcomes) {
                let deleted = outcome.is_safe() && dice.below(10) > 0;
                faults += usize::from(!outcome.is_safe());
                repeats += usize::from(!deleted);
                if !deleted {
                    queue.push(body);
                }
            }
        }
        assert_eq!((world.counts().await, world.suppressed().await), wanted, "seed {seed}");
        rounds += usize::from(wanted.0.bounced > 2 && wanted.0.complained > 2 && wanted.0.delivered > 2);
    }
    assert!(repeats > 2000 && faults > 100 && rounds > 40, "{repeats} repeats, {faults} faults, {rounds} rounds");
}

#[tokio::test]
async fn accepted_recipients_wait_for_the_store_and_are_written_once() {
    let world = World::new();
    let applier = world.applier();
    let row = |hour: u32| Row {
        tenant: world.tenant(),
        stream: world.stream(),
        cohort: Cohort::of(bulkhead::time::Hour(SENT.hour().0 + hour)),
    };
    let rows: Vec<(Row, u64)> = (0..150).map(|n| (row(n), 2)).collect();
    world.store.fail_after_commits(1);
    let left = applier.count(rows).await;
    assert_eq!(left.len(), 50);
    world.store.heal();
    assert_eq!(applier.count(left).await, []);
    assert_eq!(applier.count(vec![(row(0), 5)]).await, []);
    let (from, to) = (row(0).cohort.hour, row(200).cohort.hour);
    let all = counters::of(&*world.store, &world.tenant(), &world.stream(), from, to).await.unwrap();
    assert_eq!(all, Counts { accepted: 305, ..Counts::default() });
}

#[tokio::test]
async fn an_event_that_the_ledger_has_forgotten_is_not_counted_again() {
    let world = World::new();
    let body = bounce("f-1", &[A]);
    apply(&world, std::slice::from_ref(&body)).await;
    let janitor = world.janitor();
    let swept = |shares, counters| Swept { shares, counters, ..Swept::default() };
    world.clock.pass(15 * DAY);
    assert_eq!(janitor.sweep().await.unwrap(), swept(0, 0));
    assert_eq!(apply(&world, std::slice::from_ref(&body)).await, [Outcome::Repeated]);
    world.clock.pass(3_600_000);
    assert_eq!(janitor.sweep().await.unwrap(), swept(1, 0));
    assert_eq!(apply(&world, std::slice::from_ref(&body)).await, [Outcome::Applied], "it suppresses still");
    assert_eq!(world.counts().await.bounced, 1, "and counts no more");
    world.clock.pass(20 * DAY);
    assert_eq!(janitor.sweep().await.unwrap(), swept(1, 1));
    assert_eq!(world.counts().await, Counts::default());
    assert_eq!(world.suppressed().await.len(), 1);
}

#[tokio::test]
async fn the_settings_say_how_long_events_and_counts_are_kept() {
    let world = World::new();
    apply(&world, &[bounce("f-1", &[A])]).await;
    let janitor = world.janitor().keeping(30, 10);
    let swept = |shares, counters| Swept { shares, counters, ..Swept::default() };
    world.clock.pass(12 * DAY);
    let counts = Swept { domains: 1, ..swept(0, 1) };
    assert_eq!(janitor.sweep().await.unwrap(), counts, "counts for 10 days, the ledger for 30");
    world.clock.pass(19 * DAY);
    assert_eq!(janitor.sweep().await.unwrap(), swept(1, 0));
    // Less than SQS may bring an event again is not to be had.
    apply(&world, &[bounce("f-2", &[A])]).await;
    world.clock.pass(2 * DAY);
    assert_eq!(world.janitor().keeping(1, 400).sweep().await.unwrap(), swept(0, 0));
}

#[test]
fn events_are_counted_for_a_shorter_time_than_they_are_remembered() {
    let remembered = Duration::from_secs(u64::from(ledger::KEPT_HOURS) * 3600);
    // A row made late in an hour goes up to an hour before its time.
    assert!(COUNTED + Duration::from_secs(3600) < remembered);
}

#[tokio::test]
async fn what_is_kept_is_kept_as_long_as_the_settings_say() {
    let world = World::new();
    apply(&world, &[bounce("f-1", &[A])]).await;
    let janitor = world.janitor().keeping(30, 8);
    let swept = |shares, counters| Swept { shares, counters, ..Swept::default() };
    world.clock.pass(8 * DAY);
    assert_eq!(janitor.sweep().await.unwrap(), swept(0, 0));
    world.clock.pass(3_600_000);
    assert_eq!(janitor.sweep().await.unwrap(), swept(0, 1));
    world.clock.pass(22 * DAY - 3_600_000);
    // What is counted by domain goes by whole days.
    assert_eq!(janitor.sweep().await.unwrap(), Swept { domains: 1, ..swept(0, 0) });
    world.clock.pass(3_600_000);
    // A ledger shorter than the queue's memory would count events twice.
    assert_eq!(world.janitor().keeping(1, 8).sweep().await.unwrap(), swept(1, 0));
    apply(&world, &[bounce("f-2", &[A])]).await;
    world.clock.pass(15 * DAY);
    assert_eq!(world.janitor().keeping(1, 8).sweep().await.unwrap().shares, 0);
}

#[tokio::test]
async fn the_audit_trail_is_kept_as_long_as_the_settings_say() {
    let world = World::new();
    let entries = |n: u64| -> Vec<audit::Entry> {
        let id = || bulkhead::mail::MessageId::new(world.clock.now(), &bulkhead::adapters::clock::MachineRandom);
        (0..n).map(|_| audit::Entry::new(id(), "cli:root", "tenant pause")).collect()
    };
    audit::append_all(&*world.store, &entries(250)).await.unwrap();
    world.clock.pass(9 * DAY);
    audit::append_all(&*world.store, &entries(3)).await.unwrap();
    let janitor = world.janitor().keeping_audit(10);
    assert_eq!(janitor.sweep().await.unwrap().audit, 0);
    world.clock.pass(2 * DAY);
    assert_eq!(janitor.sweep().await.unwrap().audit, 250);
    assert_eq!(janitor.sweep().await.unwrap().audit, 0);
    world.clock.pass(400 * DAY - 2 * DAY);
    assert_eq!(world.janitor().sweep().await.unwrap().audit, 0, "400 days by default");
    world.clock.pass(1);
    assert_eq!(world.janitor().sweep().await.unwrap().audit, 3);
}

#[tokio::test]
async fn a_sweep_is_in_small_commits() {
    let world = World::new();
    let bodies: Vec<String> = (0..130).map(|n| bounce(&format!("f-{n}"), &[A])).collect();
    apply(&world, &bodies).await;
    world.clock.pass(40 * DAY);
    let swept = world.janitor().sweep().await.unwrap();
    assert_eq!((swept.shares, swept.counters), (130, 1));
    assert_eq!(world.store.scan(&Key::events(), None, 10).await.unwrap(), []);
    assert_eq!(world.shares().await, 0);
}

/// By the recipient's domain and the day of sending, each recipient once, with the event's own commit; what
/// SES took with the tally; so many domains a day and all others together.
#[tokio::test]
async fn mail_is_counted_by_domain_and_day_too() {
    use bulkhead::store::domains::{self, Domains, OTHERS};
    let world = World::new();
    let applier = world.applier().with_domains(Arc::new(Domains::new(2)));
    let day = domains::day_of(SENT);
    let left = applier
        .count_domains(
            [("there.example", 3), ("other.example", 2), ("third.example", 1), ("fourth.example", 4)]
                .map(|(domain, sum)| (domains::Row { tenant: world.tenant(), day, domain: domain.into() }, sum))
                .to_vec(),
        )
        .await;
    assert_eq!(left, []);
    let bodies = [
        bounce("f-1", &[A, "x@Other.example"]),
        bounce("f-1", &[A]),
        complaint("f-2", &["y@third.example"]),
        delivery(&[B]),
        delivery(&["z@[192.0.2.1]"]),
        bounce("f-3", &["bounce@simulator.amazonses.com"]),
    ];
    for body in bodies.iter().chain(&bodies) {
        let outcomes = applier.apply(vec![(String::from("n"), notice(body))]).await;
        assert!(outcomes.iter().all(|outcome| outcome.is_safe()));
    }
    let found = domains::of(&*world.store, &world.tenant(), 0, u32::MAX).await.unwrap();
    let counts = |accepted, delivered, bounced, complained| Counts {
        accepted,
        delivered,
        bounced,
        complained,
        ..Counts::default()
    };
    let wanted = [
        (day, OTHERS.to_owned(), counts(5, 1, 0, 1)),
        (day, "other.example".into(), counts(2, 0, 1, 0)),
        (day, "there.example".into(), counts(3, 1, 1, 0)),
    ];
    assert_eq!(found, wanted);

    // A damaged row is told, and holds up no event.
    let row = domains::Row { tenant: world.tenant(), day, domain: "there.example".into() };
    let mut batch = Batch::new();
    batch.put(row.key("n1"), If::Any, bytes::Bytes::from_static(b"rubbish"));
    world.store.commit(batch).await.unwrap();
    let outcomes = applier.apply(vec![(String::from("n"), notice(&bounce("f-9", &[A])))]).await;
    assert_eq!(outcomes, [Outcome::Applied]);
    assert_eq!(world.counts().await.bounced, 3);
    assert!(domains::of(&*world.store, &world.tenant(), 0, u32::MAX).await.is_err(), "damage is no zero");
}

/// Two appliers of one node at one row, and a store that is away: no recipient is lost or counted twice.
#[tokio::test]
async fn accepted_recipients_by_domain_wait_for_the_store() {
    use bulkhead::store::domains;
    let world = World::new();
    let day = domains::day_of(SENT);
    world.tally.at_domains(&world.tenant(), day, ["a.example", "b.example", "a.example"]);
    world.store.refuse_commits(true);
    let left = world.applier().count_domains(world.tally.take_domains()).await;
    assert_eq!(left.len(), 2);
    world.tally.put_back_domains(left);
    world.tally.at_domains(&world.tenant(), day, ["b.example"]);
    world.store.refuse_commits(false);
    assert_eq!(world.counts_with_tally().await, Counts::default(), "they are in no stream's row");
    let found = domains::of(&*world.store, &world.tenant(), 0, u32::MAX).await.unwrap();
    let sums: Vec<_> = found.into_iter().map(|(_, domain, counts)| (domain, counts.accepted)).collect();
    assert_eq!(sums, [("a.example".to_owned(), 2), ("b.example".to_owned(), 2)]);
}
