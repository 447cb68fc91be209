//! The duplicate window: a client that did not wait for its answer and sends the same message again
//! hears the first answer, instead of sending it twice.
//!
//! The same is: the same credential, Message-ID, envelope and octets ([`digest`]). A message without
//! a Message-ID has no digest: two alike may be meant.
//!
//! Promises: only a 250 is remembered; who comes while the first is still under way waits for it,
//! and goes its own way if that one was not accepted. Bounded in time and number; a tenant that
//! sends much forgets its own first. In memory: what a restart forgets, and the outbox does not
//! still hold, may be sent twice.
//! What can go wrong: nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::mail::{Envelope, MessageId, Receipt, TenantId, Username};
use crate::time::Timestamp;

/// What is remembered.
#[derive(Debug)]
pub struct Repeats {
    window: Duration,
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<(TenantId, String), State>,
    /// Answers of each tenant, oldest first.
    tenants: HashMap<TenantId, VecDeque<(Timestamp, String)>>,
    answers: usize,
}

#[derive(Clone, Debug)]
enum State {
    /// The first is under way.
    UnderWay(watch::Receiver<bool>),
    /// It was accepted.
    Accepted(MessageId, Receipt),
}

/// What a message is.
#[derive(Debug)]
pub enum Begun {
    /// The first of its kind, to be ended by [`Ticket::accepted`], or dropped.
    First(Ticket),
    /// One that was accepted before, as this message, with this receipt.
    Repeat(MessageId, Receipt),
    /// One whose first is under way: look again when this changes.
    UnderWay(watch::Receiver<bool>),
}

/// The place of a first message. Dropped without a receipt, nothing is remembered.
#[derive(Debug)]
pub struct Ticket {
    repeats: Arc<Repeats>,
    key: (TenantId, String),
    done: watch::Sender<bool>,
}

/// What a message is known by: the credential, its Message-ID, its envelope and its octets, of which
/// `tail` stands for those in a file (their CRC-32 and number).
pub fn digest(
    credential: &Username,
    message_id: &str,
    envelope: &Envelope,
    octets: &[u8],
    tail: Option<(u32, u64)>,
) -> String {
    let mut hasher = Sha256::new();
    let mut part = |octets: &[u8]| {
        hasher.update((octets.len() as u64).to_be_bytes());
        hasher.update(octets);
    };
    part(credential.as_str().as_bytes());
    part(message_id.as_bytes());
    part(envelope.reverse_path.to_string().as_bytes());
    let mut recipients: Vec<String> = envelope.forward_paths.iter().map(ToString::to_string).collect();
    recipients.sort_unstable();
    part(recipients.join("\n").as_bytes());
    part(octets);
    if let Some((crc, octets)) = tail {
        part(&crc.to_be_bytes());
        part(&octets.to_be_bytes());
    }
    // Half of it tells messages apart as well as all of it, and rows are short.
    hasher.finalize().iter().take(16).fold(String::with_capacity(32), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

impl Repeats {
    /// Remembers up to `most` answers for `window`; a window of zero remembers nothing.
    pub fn new(window: Duration, most: usize) -> Arc<Self> {
        Arc::new(Self { window, most: most.max(1), known: Mutex::default() })
    }

    /// What the message with this digest is.
    pub fn begin(self: &Arc<Self>, tenant: &TenantId, digest: &str, now: Timestamp) -> Begun {
        let key = (tenant.clone(), digest.to_owned());
        let mut known = self.known();
        known.forget_old(tenant, now.minus(self.window));
        match known.entries.get(&key) {
            Some(State::Accepted(id, receipt)) => Begun::Repeat(*id, receipt.clone()),
            Some(State::UnderWay(done)) => Begun::UnderWay(done.clone()),
            None => {
                let (done, seen) = watch::channel(false);
                known.entries.insert(key.clone(), State::UnderWay(seen));
                Begun::First(Ticket { repeats: Arc::clone(self), key, done })
            }
        }
    }

    /// Whether there is a window at all.
    pub fn is_on(&self) -> bool {
        self.window > Duration::ZERO
    }

    /// Remembers an answer that was given at `at`.
    pub fn remember(&self, tenant: &TenantId, digest: &str, id: MessageId, receipt: Receipt, at: Timestamp) {
        if !self.is_on() {
            return;
        }
        let mut known = self.known();
        known.entries.insert((tenant.clone(), digest.to_owned()), State::Accepted(id, receipt));
        known.tenants.entry(tenant.clone()).or_default().push_back((at, digest.to_owned()));
        known.answers += 1;
        while known.answers > self.most {
            known.forget_one(tenant);
        }
    }

    /// How many answers are remembered.
    pub fn len(&self) -> usize {
        self.known().answers
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every answer that is older than the window.
    pub fn sweep(&self, now: Timestamp) {
        let mut known = self.known();
        let tenants: Vec<TenantId> = known.tenants.keys().cloned().collect();
        for tenant in tenants {
            known.forget_old(&tenant, now.minus(self.window));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget_old(&mut self, tenant: &TenantId, before: Timestamp) {
        let Some(answers) = self.tenants.get_mut(tenant) else { return };
        while let Some((_, digest)) = answers.pop_front_if(|(at, _)| *at < before) {
            self.entries.remove(&(tenant.clone(), digest));
            self.answers = self.answers.saturating_sub(1);
        }
        if answers.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Forgets the oldest answer of `tenant` if it has its share or more, else of who has most.
    fn forget_one(&mut self, tenant: &TenantId) {
        let share = self.answers / self.tenants.len().max(1);
        let own = self.tenants.get(tenant).is_some_and(|answers| answers.len() >= share);
        let whose = if own {
            Some(tenant.clone())
        } else {
            self.tenants.iter().max_by_key(|(_, answers)| answers.len()).map(|(tenant, _)| tenant.clone())
        };
        let Some(whose) = whose else { return };
        if let Some((_, digest)) = self.tenants.get_mut(&whose).and_then(VecDeque::pop_front) {
            self.entries.remove(&(whose, digest));
        }
        self.answers = self.answers.saturating_sub(1);
    }
}

impl Ticket {
    /// The message was accepted: who repeats it hears the same.
    pub fn accepted(self, id: MessageId, receipt: Receipt, now: Timestamp) {
        self.repeats.remember(&self.key.0, &self.key.1, id, receipt, now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut known = self.repeats.known();
        if matches!(known.entries.get(&self.key), Some(State::UnderWay(_))) {
            known.entries.remove(&self.key);
        }
        drop(known);
        let _ = self.done.send(true);
    }
}
