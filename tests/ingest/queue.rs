//! The loops around the applier: pollers, deletes, the tally, the drain. Time is tokio's own and
//! paused, so that hours of back-off pass at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulkhead::ingest::{Ingest, Options};
use bulkhead::store::Pending;
use bulkhead::store::counters::Counts;
use bulkhead::upstream::{Item, Notices, QueueError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::world::{Dice, SENT, World, bounce, delivery, sns};

const VISIBILITY: Duration = Duration::from_secs(30);

pub fn ingest(world: &World, notices: Arc<dyn Notices>, pollers: usize) -> Ingest {
    let options = Options { pollers, wait: Duration::from_secs(20), node: "n1".into() };
    Ingest::new(
        world.store.clone(),
        world.directory.clone(),
        notices,
        world.clock.clone(),
        Arc::new(Dice::new(7)),
        world.tally.clone(),
        options,
    )
}

/// A queue as SQS is one: what was received and not deleted is seen again after a while, under a
/// new receipt handle; an old handle deletes nothing.
#[derive(Default)]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    items: Vec<(Item, Instant, u32)>,
    /// What the next calls answer instead.
    receive_faults: VecDeque<String>,
    delete_faults: VecDeque<String>,
    /// Ids that one delete call fails for.
    stuck: Vec<String>,
    deleted: Vec<String>,
    receives: usize,
}

impl Queue {
    fn with(bodies: &[String]) -> Arc<Self> {
        let item = |(n, body): (usize, &String)| {
            let item = Item { id: format!("i-{n}"), receipt_handle: String::new(), body: body.clone() };
            (item, Instant::now(), 0)
        };
        let items = bodies.iter().enumerate().map(item).collect();
        Arc::new(Self(Mutex::new(State { items, ..State::default() })))
    }
    fn left(&self) -> Vec<String> {
        self.0.lock().unwrap().items.iter().map(|(item, ..)| item.id.clone()).collect()
    }
    /// How often an item was received.
    fn receives_of(&self, id: &str) -> u32 {
        self.0.lock().unwrap().items.iter().find(|(item, ..)| item.id == id).unwrap().2
    }
    fn take_ten(&self) -> Result<Vec<Item>, QueueError> {
        let mut state = self.0.lock().unwrap();
        state.receives += 1;
        if let Some(fault) = state.receive_faults.pop_front() {
            return Err(QueueError(fault));
        }
        let now = Instant::now();
        let seen = state.items.iter_mut().filter(|(_, visible, _)| *visible <= now).take(10);
        Ok(seen
            .map(|(item, visible, receives)| {
                *visible = now + VISIBILITY;
                *receives += 1;
                item.receipt_handle = format!("{}-{receives}", item.id);
                item.clone()
            })
            .collect())
    }
}

impl Notices for Queue {
    fn receive(&self, wait: Duration) -> Pending<'_, Result<Vec<Item>, QueueError>> {
        Box::pin(async move {
            let until = Instant::now() + wait;
            loop {
                let items = self.take_ten()?;
                if !items.is_empty() || Instant::now() >= until {
                    return Ok(items);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
    fn delete<'a>(&'a self, items: &'a [Item]) -> Pending<'a, Result<Vec<(Item, String)>, QueueError>> {
        Box::pin(async move {
            assert!(!items.is_empty() && items.len() <= 10);
            let mut state = self.0.lock().unwrap();
            if let Some(fault) = state.delete_faults.pop_front() {
                return Err(QueueError(fault));
            }
            let mut failed = Vec::new();
            for item in items {
                if let Some(at) = state.stuck.iter().position(|id| *id == item.id) {
                    state.stuck.remove(at);
                    failed.push((item.clone(), "ReceiptHandleIsInvalid".to_owned()));
                    continue;
                }
                state.items.retain(|(there, ..)| there.receipt_handle != item.receipt_handle);
                state.deleted.push(item.id.clone());
            }
            Ok(failed)
        })
    }
}

/// Runs ingest for `time`, then drains it.
async fn run_for(world: &World, queue: &Arc<Queue>, pollers: usize, time: Duration) {
    let drain = CancellationToken::new();
    let running = tokio::spawn(ingest(world, queue.clone(), pollers).run(drain.clone()));
    tokio::time::sleep(time).await;
    drain.cancel();
    running.await.unwrap();
}

fn many(n: usize) -> Vec<String> {
    (0..n).map(|n| sns(&bounce(&format!("f-{n}"), &[&format!("r{n}@there.example")]))).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_is_applied_and_deleted() {
    let world = World::new();
    let queue = Queue::with(&many(137));
    run_for(&world, &queue, 3, Duration::from_secs(25)).await;
    assert_eq!(queue.left(), [""; 0]);
    assert_eq!(world.counts().await.bounced, 137);
    assert_eq!(queue.0.lock().unwrap().deleted.len(), 137);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_deleted_comes_again_and_counts_once() {
    let world = World::new();
    let queue = Queue::with(&many(12));
    {
        let mut state = queue.0.lock().unwrap();
        state.stuck = vec!["i-3".into(), "i-4".into(), "i-3".into()];
        state.delete_faults = ["InternalError".to_owned()].into();
    }
    run_for(&world, &queue, 1, Duration::from_secs(29)).await;
    assert!(!queue.left().is_empty(), "not visible again yet");
    assert_eq!(world.counts().await.bounced, 12);
    run_for(&world, &queue, 1, Duration::from_secs(100)).await;
    assert_eq!(queue.left(), [""; 0]);
    assert_eq!(world.counts().await.bounced, 12);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_notice_stays_and_does_not_hold_up_the_rest() {
    let world = World::new();
    let mut bodies = many(3);
    bodies.insert(1, "rubbish".into());
    bodies.insert(2, r#"{"eventType":"Teleport"}"#.into());
    let queue = Queue::with(&bodies);
    run_for(&world, &queue, 2, Duration::from_secs(100)).await;
    assert_eq!(queue.left(), ["i-1"]);
    assert_eq!(queue.receives_of("i-1"), 4, "every 30 s: left to the redrive policy");
    assert_eq!(world.counts().await.bounced, 3);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_nothing_is_deleted() {
    let world = World::new();
    let queue = Queue::with(&many(40));
    world.store.fail_after_commits(0);
    run_for(&world, &queue, 2, Duration::from_secs(600)).await;
    assert_eq!(queue.left().len(), 40);
    assert_eq!(queue.0.lock().unwrap().deleted, [""; 0]);
    assert_eq!(world.shares().await, 0);
    // Each poller tried once; then it asked the store, not the queue: a redrive policy counts receives.
    let receives: u32 = (0..40).map(|n| queue.receives_of(&format!("i-{n}"))).sum();
    assert_eq!(receives, 20);
    world.store.heal();
    run_for(&world, &queue, 2, Duration::from_secs(100)).await;
    assert_eq!(queue.left(), [""; 0]);
    assert_eq!(world.counts().await.bounced, 40);
}

/// Reads pass and commits do not: the pauses alone keep the receives few.
#[tokio::test(start_paused = true)]
async fn a_store_that_only_reads_slows_the_pollers() {
    let world = World::new();
    let queue = Queue::with(&many(10));
    world.store.refuse_commits(true);
    run_for(&world, &queue, 1, Duration::from_secs(1200)).await;
    let receives = queue.receives_of("i-0");
    assert!((10..36).contains(&receives), "{receives}: every 30 s it would be 40");
    world.store.refuse_commits(false);
    run_for(&world, &queue, 1, Duration::from_secs(100)).await;
    assert_eq!((queue.left(), world.counts().await.bounced), (Vec::new(), 10));
}

/// One notice that the store cannot take must not slow the others.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_does_not_slow_the_pollers() {
    let world = World::new();
    world.damage_suppression("r0@there.example").await;
    let queue = Queue::with(&many(60));
    run_for(&world, &queue, 1, Duration::from_millis(200)).await;
    assert_eq!((queue.left(), world.counts().await.bounced), (vec!["i-0".to_owned()], 59));
}

#[tokio::test(start_paused = true)]
async fn a_failing_queue_is_asked_again_ever_more_slowly_and_for_ever() {
    let world = World::new();
    let queue = Queue::with(&many(1));
    queue.0.lock().unwrap().receive_faults = vec!["RequestThrottled".to_owned(); 30].into();
    run_for(&world, &queue, 1, Duration::from_secs(600)).await;
    let receives = queue.0.lock().unwrap().receives;
    assert!((10..30).contains(&receives), "{receives}");
    assert_eq!(queue.left().len(), 1);
    run_for(&world, &queue, 1, Duration::from_secs(3600)).await;
    assert_eq!(queue.left(), [""; 0]);
    assert_eq!(world.counts().await.bounced, 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_once_and_finishes_what_was_received() {
    let world = World::new();
    let queue = Queue::with(&[delivery(&["a@there.example"])]);
    let drain = CancellationToken::new();
    let running = tokio::spawn(ingest(&world, queue.clone(), 4).run(drain.clone()));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let before = Instant::now();
    drain.cancel();
    running.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!((queue.left(), world.counts().await.delivered), (Vec::new(), 1));
}

#[tokio::test(start_paused = true)]
async fn the_tally_is_written_each_second_and_after_the_drain() {
    let world = World::new();
    let (tenant, stream) = (world.tenant(), world.stream());
    let drain = CancellationToken::new();
    let running = tokio::spawn(ingest(&world, Arc::new(bulkhead::ingest::NoQueue), 2).run(drain.clone()));
    for _ in 0..5 {
        world.tally.accepted(&tenant, &stream, bulkhead::policy::tenant::Cohort::of(SENT.hour()), 3);
    }
    world.tally.accepted(&tenant, &stream, bulkhead::policy::tenant::Cohort::of(SENT.hour()), 0);
    assert_eq!(world.counts().await, Counts::default());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(world.counts().await.accepted, 15);
    // The store stops and comes back: nothing is lost in between.
    world.store.fail_after_commits(0);
    world.tally.accepted(&tenant, &stream, bulkhead::policy::tenant::Cohort::of(SENT.hour()), 1);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.counts().await.accepted, 15);
    world.store.heal();
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(world.counts().await.accepted, 16);
    world.tally.accepted(&tenant, &stream, bulkhead::policy::tenant::Cohort::of(SENT.hour()), 4);
    drain.cancel();
    running.await.unwrap();
    assert_eq!(world.counts().await.accepted, 20);
}

#[tokio::test(start_paused = true)]
async fn without_pollers_the_tally_is_written_all_the_same() {
    let world = World::new();
    world.tally.accepted(&world.tenant(), &world.stream(), bulkhead::policy::tenant::Cohort::of(SENT.hour()), 2);
    let queue = Queue::with(&many(1));
    run_for(&world, &queue, 0, Duration::from_secs(5)).await;
    assert_eq!((world.counts().await.accepted, queue.left().len()), (2, 1));
}
