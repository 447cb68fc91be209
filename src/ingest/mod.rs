//! Ingest: what SES tells us about our mail, from the queue into the store.
//!
//! ```text
//! poller ─┐ receive, parse                    ┌─ delete, then the next receive
//! poller ─┼──── bounded channel ──▶ Applier ──┤
//! poller ─┘    whose, what, once, commit      └─ not safe: left in the queue
//! ```
//!
//! Each poller long-polls, reads what came and hands it to the one [`Applier`], which works through
//! whatever waits, commits, and only then answers; only what it calls safe is deleted. A notice that
//! cannot be read is never deleted: the queue's redrive policy moves it to the dead-letter queue.
//!
//! Promises: nothing is deleted before its effects are durable; nothing is applied twice; a poller
//! waits for the answer before it receives again, so what is in memory is bounded. A drain stops
//! receiving, applies and deletes what was received, and writes the last [`Tally`]; drain it after
//! the relay, whose last messages it counts.
//!
//! What can go wrong: the queue (tried again for ever, with growing pauses), the store (nothing is
//! deleted, and nothing more is received until it answers). Neither ends the loop.

mod applier;
mod janitor;
mod owner;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use applier::{Applier, Outcome};
pub use janitor::{Janitor, SweepError, Swept};
pub use owner::owner;
pub use witness::{Fact, Hearing, Witness, one};

use crate::event::{self, Notice};
use crate::journal;
use crate::policy::run::Rules;
use crate::retry::backoff;
use crate::secret::Random;
use crate::store::directory::Current;
use crate::store::domains::Domains;
use crate::store::tally::Tally;
use crate::store::{Key, Pending, ReadError, Store};
use crate::time::Clock;
use crate::upstream::{Item, Notices, QueueError};

/// Deliveries that wait for the applier before pollers have to wait themselves.
const WAITING: usize = 16;
/// Most deliveries the applier takes up at a time.
const TOGETHER: usize = 32;
/// Most items in one delete call (SQS's bound).
const DELETE: usize = 10;
/// How often the tally is written.
const FLUSH: Duration = Duration::from_secs(1);
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How ingest runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Long polls at a time. With none nothing is received, and the tally is written all the same.
    pub pollers: usize,
    /// How long a receive waits for the first item; SQS allows 20 s.
    pub wait: Duration,
    /// Whose counter rows these are: not empty, and one running process's alone.
    pub node: String,
}

/// The pollers and the applier.
pub struct Ingest {
    poller: Poller,
    applier: Applier,
    tally: Arc<Tally>,
    pollers: usize,
}

/// Notices out of no queue, for a relay that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoQueue;

#[derive(Clone)]
struct Poller {
    store: Arc<dyn Store>,
    notices: Arc<dyn Notices>,
    random: Arc<dyn Random>,
    wait: Duration,
}

/// What one receive brought, and where the answer goes.
struct Delivery {
    notices: Vec<(String, Notice)>,
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// What became of one receive.
struct Delivered {
    /// May be deleted.
    safe: Vec<Item>,
    /// Whether the store did not take some.
    deferred: bool,
}

impl Ingest {
    /// Nothing happens before [`run`](Self::run).
    pub fn new(
        store: Arc<dyn Store>,
        directory: Current,
        notices: Arc<dyn Notices>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        tally: Arc<Tally>,
        options: Options,
    ) -> Self {
        let poller = Poller { store: store.clone(), notices, random, wait: options.wait };
        let applier = Applier::new(store, directory, clock, options.node);
        Self { poller, applier, tally, pollers: options.pollers }
    }

    /// The same with a bound on the domains that a tenant's day is counted by.
    pub fn with_domains(self, domains: Arc<Domains>) -> Self {
        Self { applier: self.applier.with_domains(domains), ..self }
    }

    /// The same, with what it applies heard by whoever is there.
    pub fn heard_by(self, hearing: Hearing) -> Self {
        Self { applier: self.applier.heard_by(hearing), ..self }
    }

    /// The same with other rules of when soft bounces suppress.
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { applier: self.applier.with_rules(rules), ..self }
    }

    /// Runs until `drain` is cancelled and what was received by then is applied and deleted.
    pub async fn run(self, drain: CancellationToken) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut pollers = JoinSet::new();
        for _ in 0..self.pollers {
            pollers.spawn(self.poller.clone().run(sender.clone(), drain.clone()));
        }
        // The channel must stay open until the drain, also when there are no pollers.
        pollers.spawn(async move {
            drain.cancelled().await;
            drop(sender);
        });
        apply_all(&self.applier, &self.tally, receiver, &*self.poller.random).await;
        while pollers.join_next().await.is_some() {}
    }
}

/// The applier's loop: ends when all senders are gone.
async fn apply_all(applier: &Applier, tally: &Tally, mut deliveries: mpsc::Receiver<Delivery>, random: &dyn Random) {
    let mut flush_at = tokio::time::Instant::now() + FLUSH;
    let mut failures = 0;
    loop {
        tokio::select! {
            // A busy queue must not keep the tally from being written.
            biased;
            () = tokio::time::sleep_until(flush_at) => {
                let pause = if flush(applier, tally).await {
                    failures = 0;
                    FLUSH
                } else {
                    failures += 1;
                    FLUSH + backoff(failures, PAUSE, LONGEST_PAUSE, random.fraction())
                };
                flush_at = tokio::time::Instant::now() + pause;
            }
            delivery = deliveries.recv() => {
                let Some(first) = delivery else { break };
                let mut together = vec![first];
                while together.len() < TOGETHER && let Ok(next) = deliveries.try_recv() {
                    together.push(next);
                }
                apply(applier, together).await;
            }
        }
    }
    flush(applier, tally).await;
}

async fn apply(applier: &Applier, deliveries: Vec<Delivery>) {
    let mut all = Vec::new();
    let mut answers = Vec::with_capacity(deliveries.len());
    for Delivery { notices, answer } in deliveries {
        answers.push((notices.len(), answer));
        all.extend(notices);
    }
    let mut outcomes = applier.apply(all).await.into_iter();
    for (count, answer) in answers {
        // A poller that is gone has deleted nothing; the queue brings its items again.
        let _ = answer.send(outcomes.by_ref().take(count).collect());
    }
}

/// Writes the tally; what the store did not take goes back. Whether it took all.
async fn flush(applier: &Applier, tally: &Tally) -> bool {
    let left = applier.count(tally.take()).await;
    let left_domains = applier.count_domains(tally.take_domains()).await;
    let all = left.is_empty() && left_domains.is_empty();
    tally.put_back(left);
    tally.put_back_domains(left_domains);
    all
}

impl Poller {
    async fn run(self, applier: mpsc::Sender<Delivery>, drain: CancellationToken) {
        let (mut queue_failures, mut store_failures) = (0, 0);
        while !drain.is_cancelled() {
            // Each receive counts towards the redrive policy: while the store is down, good notices
            // would end in the dead-letter queue.
            if store_failures > 0 {
                self.pause(self.backoff(store_failures - 1), &drain).await;
                if !self.store_answers().await {
                    store_failures += 1;
                    continue;
                }
            }
            let received = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                received = self.notices.receive(self.wait) => received,
            };
            let fault = match received {
                Err(error) => Some(("receive", error)),
                Ok(items) => {
                    let Delivered { safe, deferred } = self.deliver(items, &applier).await;
                    if !safe.is_empty() {
                        store_failures = 0;
                    } else if deferred {
                        store_failures += 1;
                    }
                    self.delete(&safe).await.err().map(|error| ("delete", error))
                }
            };
            let Some((call, error)) = fault else {
                queue_failures = 0;
                continue;
            };
            let pause = self.backoff(queue_failures);
            queue_failures += 1;
            journal::queue_failed(call, &error.to_string(), pause);
            self.pause(pause, &drain).await;
        }
    }

    /// Has `items` applied.
    async fn deliver(&self, items: Vec<Item>, applier: &mpsc::Sender<Delivery>) -> Delivered {
        let mut readable = Vec::with_capacity(items.len());
        let mut notices = Vec::with_capacity(items.len());
        for item in items {
            match event::parse(item.body.as_bytes()) {
                Ok(notice) => {
                    notices.push((item.id.clone(), notice));
                    readable.push(item);
                }
                Err(why) => journal::notice_malformed(&item.id, &why.to_string()),
            }
        }
        if readable.is_empty() {
            return Delivered { safe: Vec::new(), deferred: false };
        }
        let (answer, answered) = oneshot::channel();
        // The applier outlives the pollers; without an answer nothing is safe.
        let sent = applier.send(Delivery { notices, answer }).await;
        let outcomes = if sent.is_ok() { answered.await.unwrap_or_default() } else { Vec::new() };
        let read = readable.len();
        let safe: Vec<Item> =
            readable.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_safe()).map(|(item, _)| item).collect();
        Delivered { deferred: safe.len() < read, safe }
    }

    async fn store_answers(&self) -> bool {
        match self.store.get(&Key::meta("format")).await {
            Ok(_) | Err(ReadError::Corrupt(..)) => true,
            Err(ReadError::Unavailable(_)) => false,
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        backoff(failures, PAUSE, LONGEST_PAUSE, self.random.fraction())
    }

    async fn pause(&self, pause: Duration, drain: &CancellationToken) {
        tokio::select! {
            () = drain.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// What cannot be deleted comes again and is found to have been applied.
    async fn delete(&self, items: &[Item]) -> Result<(), QueueError> {
        for chunk in items.chunks(DELETE) {
            let failed = self.notices.delete(chunk).await?;
            for (item, words) in failed {
                journal::queue_failed("delete", &format!("{}: {words}", item.id), Duration::ZERO);
            }
        }
        Ok(())
    }
}

impl Notices for NoQueue {
    fn receive(&self, _wait: Duration) -> Pending<'_, Result<Vec<Item>, QueueError>> {
        Box::pin(std::future::pending())
    }

    fn delete<'a>(&'a self, _items: &'a [Item]) -> Pending<'a, Result<Vec<(Item, String)>, QueueError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}
