//! What becomes of mail that the simulated SES took: its events, late and out of order, through the real
//! applier into the real book, whose judge runs beside it.
//!
//! A recipient at `bounce.test` bounces for good, at `complaint.test` it complains, all others are
//! delivered.

#![allow(dead_code, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulkhead::announce::{Announce, Announcement};
use bulkhead::dispatch::Dispatch;
use bulkhead::event::Notice;
use bulkhead::event::kind::{BounceType, Event, Fate, Form, Mail, Recipient};
use bulkhead::ingest::{Applier, Hearing};
use bulkhead::policy::reputation::Rules;
use bulkhead::reputation::{Means, Reputation};
use bulkhead::store::directory::Changing;
use bulkhead::time::{Clock, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::simulation::{Millis, SECOND, Seeded, Seen, World};

/// How late events come.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub bounce: (Millis, Millis),
    pub delivery: (Millis, Millis),
}

impl Default for Delays {
    fn default() -> Self {
        Self { bounce: (5 * SECOND, 120 * SECOND), delivery: (2 * SECOND, 60 * SECOND) }
    }
}

/// Announcements, as whoever is told hears them.
#[derive(Debug, Default)]
pub struct Told(std::sync::Mutex<Vec<Announcement>>);

impl Announce for Told {
    fn announce(&self, announcement: &Announcement) {
        self.0.lock().unwrap().push(announcement.clone());
    }
}

impl Told {
    pub fn all(&self) -> Vec<Announcement> {
        self.0.lock().unwrap().clone()
    }
}

/// Events and the judge, running.
pub struct Feedback {
    pub reputation: Arc<Reputation>,
    pub told: Arc<Told>,
    bounced: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Feedback {
    pub async fn begin(world: &Arc<World>, dispatch: &Arc<Dispatch>, rules: Rules, delays: Delays) -> Self {
        let told = Arc::new(Told::default());
        let means = Means {
            store: Arc::clone(&world.store) as _,
            directory: Arc::clone(&world.directory),
            changing: Changing::default(),
            tally: Arc::clone(&world.tally),
            clock: Arc::clone(&world.clock) as _,
            random: Arc::clone(&world.random) as _,
            announce: Arc::clone(&told) as _,
        };
        let reputation = Reputation::open(means, rules).await.unwrap();
        bulkhead::app::hear_outcomes(&reputation, dispatch);
        let hearing = Hearing::default();
        hearing.set(Arc::clone(&reputation) as _).ok().unwrap();
        let applier = Applier::new(
            Arc::clone(&world.store) as _,
            Arc::clone(&world.directory),
            Arc::clone(&world.clock) as _,
            "node".into(),
        )
        .heard_by(hearing);
        let stop = CancellationToken::new();
        let (bounced, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let queue = {
            let (world, stop) = (Arc::clone(world), stop.clone());
            let (bounced, taken) = (Arc::clone(&bounced), Arc::clone(&taken));
            async move {
                let random = Seeded::new(0xfeed);
                let mut due: BTreeMap<(Millis, u64), Notice> = BTreeMap::new();
                let mut number = 0;
                while !stop.is_cancelled() {
                    for (at, seen) in world.ses.drain_taken() {
                        taken.fetch_add(seen.to.len() as u64, Ordering::Relaxed);
                        for recipient in &seen.to {
                            let event = event(&world, at, &seen, recipient, &format!("f-{number}"));
                            let bad = !matches!(event.fate, Fate::Delivery { .. });
                            bounced.fetch_add(u64::from(bad), Ordering::Relaxed);
                            let (least, most) = if bad { delays.bounce } else { delays.delivery };
                            let after = random.between(least, most).as_millis() as Millis;
                            due.insert((seen.decided.unwrap() + after, number), Notice::Event(event));
                            number += 1;
                        }
                    }
                    let later = due.split_off(&(world.now() + 1, 0));
                    let now = std::mem::replace(&mut due, later);
                    let notices: Vec<_> = now.into_values().map(|notice| ("n".to_owned(), notice)).collect();
                    if !notices.is_empty() {
                        let outcomes = applier.apply(notices).await;
                        assert!(outcomes.iter().all(|outcome| outcome.is_safe()));
                    }
                    applier.count(world.tally.take()).await;
                    sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let tasks = vec![tokio::spawn(queue), tokio::spawn(Arc::clone(&reputation).run(stop.clone()))];
        Self { reputation, told, bounced, taken, stop, tasks }
    }

    /// Recipients that SES took, and of those the ones that bounced or will.
    pub fn at_ses(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed), self.bounced.load(Ordering::Relaxed))
    }

    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn event(world: &World, at: usize, seen: &Seen, recipient: &str, feedback_id: &str) -> Event {
    let sent = world.clock.now().minus(Duration::from_millis(world.now() - seen.decided.unwrap()));
    let recipients = vec![Recipient::read(recipient)];
    let fate = match recipient.rsplit_once('@').unwrap().1 {
        "bounce.test" => Fate::Bounce {
            bounce_type: BounceType::Permanent,
            sub_type: "General".into(),
            recipients,
            feedback_id: feedback_id.into(),
        },
        "complaint.test" => {
            Fate::Complaint { sub_type: None, feedback_type: None, recipients, feedback_id: feedback_id.into() }
        }
        _ => Fate::Delivery { recipients },
    };
    let mail = Mail {
        message_id: format!("ses-{at}"),
        timestamp: sent,
        source: None,
        destination: seen.to.clone(),
        tenant: Some(seen.tenant.parse().unwrap()),
        stream: Some(seen.stream.parse().unwrap()),
        credential: None,
        configuration_set: None,
        ses_tenant: None,
    };
    Event { fate, at: Timestamp::max(sent, world.clock.now()), mail, form: Form::Raw }
}
