//! A store that fails on demand, and an outbox as a map: what is held, and what stands in its row and
//! in its file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bulkhead::mail::{Mailbox, MessageId, ReversePath, SessionId, StreamId, TenantId, Username};
use bulkhead::outbox::{Bounds, Cause, Entry, Lane, Manifest, Past, Progress, Wait};
use bulkhead::store::{Batch, CommitError, Key, Pending, ReadError, Store, Versioned};
use bulkhead::time::Timestamp;

/// How a commit goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing is written, and the store goes on.
    Conflict,
    /// Nothing is written, and the store has stopped.
    Stops,
    /// All is written, nobody is told, and the store has stopped.
    StopsBehindIt,
}

/// A store of which a commit may fail. One that has stopped stays so; a new one around the same
/// store is a restart.
pub struct Flaky {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The fault of a commit, and how many pass before it.
    armed: Option<(usize, Fault)>,
    stopped: bool,
    /// What is read here has a flipped bit.
    damaged: Option<Key>,
    /// Reads are not ready at once.
    slow: bool,
}

impl Flaky {
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, state: Mutex::default() })
    }

    /// How the next commit goes.
    pub fn arm(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().armed = fault.map(|fault| (0, fault));
    }

    /// How the commit behind the next `pass` goes.
    pub fn arm_behind(&self, pass: usize, fault: Fault) {
        self.state.lock().unwrap().armed = Some((pass, fault));
    }

    pub fn damage(&self, key: Option<Key>) {
        self.state.lock().unwrap().damaged = key;
    }

    pub fn be_slow(&self) {
        self.state.lock().unwrap().slow = true;
    }

    pub fn stopped(&self) -> bool {
        self.state.lock().unwrap().stopped
    }

    pub fn inner(&self) -> &dyn Store {
        &*self.inner
    }
}

fn stopped() -> String {
    "it has stopped".into()
}

impl Store for Flaky {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        Box::pin(async move {
            let (slow, damaged) = {
                let state = self.state.lock().unwrap();
                if state.stopped {
                    return Err(ReadError::Unavailable(stopped()));
                }
                (state.slow, state.damaged.as_ref() == Some(key))
            };
            if slow {
                tokio::task::yield_now().await;
            }
            let mut row = self.inner.get(key).await?;
            if let Some(row) = row.as_mut().filter(|_| damaged) {
                let mut value = row.value.to_vec();
                value[9] ^= 4;
                row.value = value.into();
            }
            Ok(row)
        })
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        if self.stopped() {
            return Box::pin(std::future::ready(Err(ReadError::Unavailable(stopped()))));
        }
        self.inner.scan(prefix, after, limit)
    }

    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            let fault = match state.armed {
                _ if state.stopped => Some(Fault::Stops),
                Some((0, fault)) => Some(fault),
                Some(_) | None => None,
            };
            state.armed = state.armed.and_then(|(pass, fault)| Some((pass.checked_sub(1)?, fault)));
            state.stopped |= matches!(fault, Some(Fault::Stops | Fault::StopsBehindIt));
            fault
        };
        Box::pin(async move {
            match fault {
                None => self.inner.commit(batch).await,
                Some(Fault::Conflict) => Err(CommitError::Conflict(batch.writes()[0].key.clone())),
                Some(Fault::Stops) => Err(CommitError::Unavailable(stopped())),
                Some(Fault::StopsBehindIt) => {
                    self.inner.commit(batch).await.unwrap();
                    Err(CommitError::Unavailable(stopped()))
                }
            }
        })
    }
}

/// A message as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub manifest: Manifest,
    pub octets: Vec<u8>,
    /// What the last note in its file says.
    pub noted: Progress,
    pub row: Row,
    /// What it waits for in the schedule.
    pub wait: Wait,
    /// Why, in the schedule.
    pub cause: Cause,
}

/// What stands in its row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub due: Timestamp,
    pub attempts: u32,
    pub unknown: u32,
    pub leased: bool,
    pub cause: Cause,
    pub progress: Progress,
}

impl Held {
    pub fn lane(&self) -> Lane {
        Lane::of(&self.manifest)
    }

    /// Its row as the outbox tells it.
    pub fn row_of(due: Timestamp, entry: &Entry) -> Row {
        let Entry { attempts, unknown, leased, cause, .. } = *entry;
        Row { due, attempts, unknown, leased, cause, progress: entry.progress.clone() }
    }

    /// As it is after it was taken up again out of its file.
    pub fn again(&mut self, until: Timestamp) {
        let progress = self.noted.clone();
        self.row = Row { due: until, attempts: 0, unknown: 1, leased: false, cause: Cause::Unknown, progress };
        (self.wait, self.cause) = (Wait::Until(until), Cause::Unknown);
    }
}

/// What refuses one more.
pub fn past(held: &BTreeMap<MessageId, Held>, bounds: &Bounds, tenant: &TenantId, bytes: u64) -> Option<Past> {
    let own = held.values().filter(|held| held.manifest.tenant == *tenant);
    let own: Vec<u64> = own.map(|held| held.octets.len() as u64).collect();
    if held.len() >= bounds.messages {
        Some(Past::Messages)
    } else if own.len() >= bounds.messages_per_tenant {
        Some(Past::MessagesOfTenant)
    } else if own.iter().sum::<u64>() + bytes > bounds.bytes_per_tenant {
        Some(Past::BytesOfTenant)
    } else {
        None
    }
}

pub fn lanes() -> Vec<Lane> {
    let lane =
        |tenant, stream: &str| Lane { tenant: TenantId::parse(tenant).unwrap(), stream: StreamId::parse(stream).ok() };
    vec![lane("acme", "news"), lane("acme", "resets"), lane("acme", ""), lane("other", "news")]
}

/// Message number `number`, made at `now`.
pub fn manifest(number: u64, lane: &Lane, recipients: usize, now: Timestamp) -> Manifest {
    let mailbox = |text: String| Mailbox::parse(text.as_bytes()).unwrap();
    let id = MessageId::new(now, &Numbered(number));
    Manifest {
        id,
        session: SessionId::new(now, &Numbered(number)),
        tenant: lane.tenant.clone(),
        stream: lane.stream.clone(),
        credential: Username::parse("app").unwrap(),
        reverse_path: ReversePath::Mailbox(mailbox(format!("bounce-{number}@acme.example"))),
        recipients: (0..recipients).map(|n| mailbox(format!("r{n}@b.example"))).collect(),
        claims: vec![mailbox("joe@acme.example".into())],
        tags: vec![("bulkhead-id".into(), id.to_string())],
        created: now,
        expires: now.plus(std::time::Duration::from_hours(96)),
        digest: number.is_multiple_of(2).then(|| format!("{number:064x}")),
    }
}

/// A number in place of randomness.
struct Numbered(u64);

impl bulkhead::secret::Random for Numbered {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        for (to, from) in bytes.iter_mut().zip(self.0.to_le_bytes()) {
            *to = from;
        }
    }
}
