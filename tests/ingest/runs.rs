//! Soft bounces in a row: after five the address is suppressed for a while.

use std::collections::BTreeMap;

use bulkhead::ingest::{Outcome, Swept};
use bulkhead::policy::run::{Run, Step};
use bulkhead::policy::tenant::{Suppression, SuppressionReason};
use bulkhead::store::counters::Counts;
use bulkhead::store::{Batch, Key, Store, runs, suppressions};
use bulkhead::time::Timestamp;

use super::world::{self, DAY, Dice, SENT, World, bounce, complaint, delayed, delivered, soft, soft_as};
use super::{A, B, apply};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(SENT.millis() + seconds * 1000)
}

async fn entries(world: &World, given: &str) -> Vec<Suppression> {
    suppressions::find(&*world.store, &world.tenant(), &world::mailbox(given)).await.unwrap()
}

async fn run(world: &World, given: &str) -> Run {
    runs::read(&*world.store, &world.tenant(), &world::mailbox(given)).await.unwrap().run
}

async fn rows(world: &World) -> usize {
    world.store.scan(&Key::runs(), None, 1000).await.unwrap().len()
}

#[tokio::test]
async fn five_in_a_row_suppress_for_a_fortnight() {
    let world = World::new();
    for n in 1..=4 {
        assert_eq!(apply(&world, &[soft(&format!("f-{n}"), A, n)]).await, [Outcome::Applied]);
        assert_eq!(entries(&world, A).await, [], "{n}");
    }
    // The same bounce again is none more.
    assert_eq!(apply(&world, &[soft("f-4", A, 4), world::sns(&soft("f-3", A, 3))]).await, [Outcome::Repeated; 2]);
    assert_eq!(entries(&world, A).await, []);
    apply(&world, &[soft("f-5", &A.to_uppercase(), 5)]).await;
    let entry = |last: u64, origin: &str| Suppression {
        reason: SuppressionReason::Soft,
        origin: origin.into(),
        at: at(last),
        expires: Some(Timestamp::from_millis(at(last).millis() + 14 * DAY)),
        actor: "ses".into(),
    };
    assert_eq!(entries(&world, A).await, [entry(5, "5 soft bounces in a row")]);
    // Mail that was under way bounces as well, and moves the end on.
    apply(&world, &[soft("f-6", A, 9)]).await;
    assert_eq!(entries(&world, A).await, [entry(9, "6 soft bounces in a row")]);
    assert_eq!(world.counts().await, Counts { soft_bounced: 6, ..Counts::default() });
    assert_eq!(entries(&world, B).await, []);
}

#[tokio::test]
async fn a_delivery_ends_a_run_and_lifts_what_it_brought() {
    let world = World::new();
    let softs = |from: u64, to: u64| (from..=to).map(|n| soft(&format!("f-{n}"), A, n)).collect::<Vec<_>>();
    apply(&world, &softs(1, 4)).await;
    apply(&world, &[delivered(A, 5)]).await;
    apply(&world, &softs(6, 9)).await;
    assert_eq!(entries(&world, A).await, [], "four and four are not eight in a row");
    apply(&world, &softs(10, 10)).await;
    assert_eq!(entries(&world, A).await.len(), 1);
    // The mailbox has room again.
    apply(&world, &[delivered(A, 11)]).await;
    assert_eq!(entries(&world, A).await, []);
    assert_eq!(run(&world, A).await.length(), 0);
    // Nor does an older delivery that comes late leave what it would have prevented.
    let world = World::new();
    apply(&world, &softs(1, 5)).await;
    assert_eq!(entries(&world, A).await.len(), 1);
    apply(&world, &[delivered(A, 3)]).await;
    assert_eq!(entries(&world, A).await, []);
    assert_eq!(run(&world, A).await.length(), 2);
}

#[tokio::test]
async fn what_says_nothing_of_the_mailbox_is_not_of_the_run() {
    let world = World::new();
    for n in 0..10 {
        let id = format!("f-{n}");
        let bodies = [
            // An automatic reply, which comes beside a delivery.
            soft_as("General", &id, A, n, ""),
            soft_as("MessageTooLarge", &format!("{id}-l"), A, n, r#","status":"5.3.4""#),
            delayed(A, n),
            complaint(&format!("c-{n}"), &["other@there.example"]),
        ];
        assert_eq!(apply(&world, &bodies).await, [Outcome::Applied; 4]);
    }
    assert_eq!((entries(&world, A).await, rows(&world).await), (vec![], 0));
    assert_eq!(world.counts().await.soft_bounced, 20, "counted they are");
    // One with a status is a bounce.
    for n in 0..5 {
        apply(&world, &[soft_as("General", &format!("s-{n}"), A, n, r#","status":"4.4.7""#)]).await;
    }
    assert_eq!(entries(&world, A).await.len(), 1);
}

/// A delivery is read once and written nowhere, which is what most events are.
#[tokio::test]
async fn an_address_without_a_soft_bounce_has_no_row() {
    let world = World::new();
    let bodies: Vec<String> = (0..200).map(|n| delivered(&format!("r{n}@there.example"), n)).collect();
    apply(&world, &bodies).await;
    apply(&world, &[bounce("f-1", &[B])]).await;
    assert_eq!(rows(&world).await, 0);
    apply(&world, &[soft("f-2", A, 1)]).await;
    assert_eq!(rows(&world).await, 1);
    // Deliveries and a bounce that come together know of each other, whichever comes first.
    for order in [[0, 1], [1, 0]] {
        let world = World::new();
        let both = [delivered(A, 7), soft("f-1", A, 5)];
        apply(&world, &order.map(|n| both[n].clone())).await;
        assert_eq!(run(&world, A).await.length(), 0, "{order:?}");
    }
}

#[tokio::test]
async fn an_entry_by_hand_is_neither_replaced_nor_lifted() {
    let world = World::new();
    let by_hand = Suppression {
        reason: SuppressionReason::Soft,
        origin: "cli".into(),
        at: at(0),
        expires: None,
        actor: "cli:root".into(),
    };
    suppressions::add(&*world.store, &world.tenant(), &world::mailbox(A), &by_hand, &Batch::new()).await.unwrap();
    for n in 1..=6 {
        apply(&world, &[soft(&format!("f-{n}"), A, n)]).await;
    }
    apply(&world, &[delivered(A, 9)]).await;
    assert_eq!(entries(&world, A).await, [by_hand]);
}

#[tokio::test]
async fn an_entry_that_was_removed_does_not_come_back_with_the_next_bounce() {
    let world = World::new();
    for n in 1..=5 {
        apply(&world, &[soft(&format!("f-{n}"), A, n)]).await;
    }
    suppressions::remove(&*world.store, &world.tenant(), &world::mailbox(A), None, false, |_| Batch::new())
        .await
        .unwrap();
    assert_eq!(rows(&world).await, 0);
    apply(&world, &[soft("f-6", A, 6)]).await;
    assert_eq!((entries(&world, A).await, run(&world, A).await.length()), (vec![], 1));
}

#[tokio::test]
async fn runs_and_what_has_ended_are_swept() {
    let world = World::new();
    for n in 1..=5 {
        apply(&world, &[soft(&format!("f-{n}"), A, n)]).await;
    }
    apply(&world, &[soft("f-6", B, 1), bounce("f-7", &[B])]).await;
    let swept = async |world: &World| {
        let Swept { runs, suppressions, .. } = world.janitor().sweep().await.unwrap();
        (runs, suppressions)
    };
    world.clock.pass(20 * DAY);
    assert_eq!(swept(&world).await, (0, 0));
    assert!(!entries(&world, A).await[0].stands(at(20 * 86_400)), "it has ended");
    // A week after its end, and a month after the last event.
    world.clock.pass(DAY + 60_000);
    assert_eq!(swept(&world).await, (0, 1));
    assert_eq!((entries(&world, A).await.len(), entries(&world, B).await.len()), (0, 1), "the others stay");
    world.clock.pass(9 * DAY);
    assert_eq!(swept(&world).await, (2, 0));
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test]
async fn a_sweep_leaves_what_changed_meanwhile() {
    let world = World::new();
    let one = Suppression {
        reason: SuppressionReason::Manual,
        origin: "cli".into(),
        at: at(0),
        expires: Some(at(10)),
        actor: "cli:root".into(),
    };
    suppressions::add(&*world.store, &world.tenant(), &world::mailbox(A), &one, &Batch::new()).await.unwrap();
    world.clock.pass(30 * DAY);
    let renewed = Suppression { expires: None, ..one };
    let mut batch = Batch::new();
    suppressions::write(&mut batch, &world.tenant(), &world::mailbox(A), &renewed);
    world.store.before_next_commit(batch);
    assert_eq!(world.janitor().sweep().await.unwrap().suppressions, 0);
    assert_eq!(entries(&world, A).await, [renewed]);
}

/// One event of an address, by its moment in seconds.
type Given = (usize, u64, bool);

/// What the events of an address leave, whatever the order: its bounces after its last delivery.
fn truth(events: &[Given], address: usize) -> Vec<u64> {
    let of = events.iter().filter(|(who, ..)| *who == address);
    let delivered = of.clone().filter(|(.., bounced)| !bounced).map(|(_, at, _)| *at).max();
    let mut left: Vec<u64> =
        of.filter(|(_, at, bounced)| *bounced && delivered.is_none_or(|end| *at > end)).map(|(_, at, _)| *at).collect();
    left.sort_unstable();
    left
}

/// Events of few addresses in any order, grouping, repetition, and over faults of the store. Where a
/// soft bounce comes first of all, nothing depends on the order; where deliveries come before any, a
/// run may be too long by bounces that are older than them, and is never too short.
#[tokio::test]
async fn runs_do_not_depend_on_the_order_of_events() {
    let (mut suppressed, mut lifted, mut longer, mut repeats, mut faults) = (0, 0, 0, 0, 0);
    for seed in 1..=150_u64 {
        let dice = Dice::new(seed);
        let name = |address: usize| format!("r{address}@there.example");
        let begun = dice.below(2) == 0;
        let mut events: Vec<Given> = (0..10 + dice.below(50))
            .map(|_| (dice.below(4), 1 + dice.below(5000) as u64, dice.below(12) > 0))
            .collect();
        // A moment of its own for each: deliveries of one moment and message are one event.
        let mut moments = BTreeMap::new();
        events.retain(|(_, at, _)| moments.insert(*at, ()).is_none());
        if begun {
            // Old bounces, which come first whatever the order of the others.
            events.splice(0..0, (0..4).map(|address| (address, 0, true)));
        }
        let world = World::new();
        let body = |n: usize, (address, at, bounced): Given| {
            if bounced { soft(&format!("f-{n}"), &name(address), at) } else { delivered(&name(address), at) }
        };
        let mut queue: Vec<String> = events.iter().enumerate().map(|(n, event)| body(n, *event)).collect();
        if begun {
            let first: Vec<String> = queue.drain(..4).collect();
            apply(&world, &first).await;
        }
        for n in 0..dice.below(20) {
            let copy = queue[n % queue.len()].clone();
            queue.push(copy);
            repeats += 1;
        }
        dice.shuffle(&mut queue);
        let mut lifted_here = false;
        while !queue.is_empty() {
            let most = queue.len().min(1 + dice.below(9));
            let bodies: Vec<String> = queue.drain(..most).collect();
            let before = world.suppressed().await.len();
            if dice.below(5) == 0 {
                world.store.fail_after_commits(dice.below(2));
                world.store.lose_the_answer(dice.below(2) == 0);
            }
            let outcomes = apply(&world, &bodies).await;
            world.store.heal();
            for (body, outcome) in bodies.into_iter().zip(outcomes) {
                if !outcome.is_safe() {
                    faults += 1;
                    queue.push(body);
                }
            }
            lifted_here |= world.suppressed().await.len() < before;
        }
        lifted += usize::from(lifted_here);
        for address in 0..4 {
            let truth = truth(&events, address);
            let run = run(&world, &name(address)).await;
            let found = entries(&world, &name(address)).await;
            if begun {
                let mut wanted = Run::default();
                let first = events.iter().filter(|(who, ..)| *who == address);
                for (_, seconds, bounced) in first {
                    let step = if *bounced { Step::Bounced(at(*seconds)) } else { Step::Delivered(at(*seconds)) };
                    wanted = wanted.after(step);
                }
                assert_eq!(run, wanted, "seed {seed}");
                assert_eq!(run.length(), truth.len().min(20), "seed {seed}");
            } else {
                assert!(run.length() >= truth.len().min(20), "seed {seed}: too short");
                longer += usize::from(run.length() > truth.len());
            }
            let wanted = (run.length() >= 5).then(|| format!("{} soft bounces in a row", run.length()));
            assert_eq!(found.first().map(|entry| entry.origin.clone()), wanted, "seed {seed}");
            assert!(found.len() <= 1);
            suppressed += found.len();
        }
    }
    let deep = suppressed > 150 && lifted > 40 && longer > 3 && repeats > 500 && faults > 200;
    assert!(deep, "{suppressed} suppressed, {lifted} lifted, {longer} longer, {repeats} repeats, {faults} faults");
}
