//! The duplicate window: a client that did not wait for its answer and sends the same message again
//! hears the first answer, instead of sending it twice.
//!
//! The same is: the same credential, Message-ID, envelope and octets ([`digest`]). A message without
//! a Message-ID has no digest: two alike may be meant.
//!
//! Promises: only a 250 is remembered, and no longer than somebody has the message or will get it:
//! what was held and reached nobody is forgotten ([`Repeats::forget`]), so that sending it again
//! sends it; who comes while the first is still under way waits for it,
//! and goes its own way if that one was not accepted. Bounded in time and number; a tenant that
//! sends much forgets its own first. In memory: what a restart forgets, and the outbox does not
//! still hold, may be sent twice.
//! What can go wrong: nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
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
    /// Answers of each tenant, oldest first; those that were [forgotten](Repeats::forget) among them.
    tenants: HashMap<TenantId, VecDeque<Answer>>,
    answers: usize,
}

/// When an answer was given, to what, and as which message.
#[derive(Clone, Debug)]
struct Answer {
    at: Timestamp,
    digest: String,
    id: MessageId,
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
    let mut hasher = Context::new(&SHA256);
    let mut part = |octets: &[u8]| {
        hasher.update(&(octets.len() as u64).to_be_bytes());
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
    hasher.finish().as_ref().iter().take(16).fold(String::with_capacity(32), |mut text, octet| {
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
        known.tenants.entry(tenant.clone()).or_default().push_back(Answer { at, digest: digest.to_owned(), id });
        known.answers += 1;
        while known.answers > self.most {
            known.forget_one(tenant);
        }
    }

    /// Forgets the answer that was given as message `id`: nobody has it, and nobody will get it.
    pub fn forget(&self, tenant: &TenantId, digest: &str, id: MessageId) {
        self.known().forget(tenant, digest, id);
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
        let mut old = Vec::new();
        while let Some(answer) = answers.pop_front_if(|answer| answer.at < before) {
            old.push(answer);
        }
        if answers.is_empty() {
            self.tenants.remove(tenant);
        }
        for Answer { digest, id, .. } in old {
            self.forget(tenant, &digest, id);
            self.answers = self.answers.saturating_sub(1);
        }
    }

    /// A later answer to the same message stays.
    fn forget(&mut self, tenant: &TenantId, digest: &str, id: MessageId) {
        let key = (tenant.clone(), digest.to_owned());
        if matches!(self.entries.get(&key), Some(State::Accepted(known, _)) if *known == id) {
            self.entries.remove(&key);
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
        if let Some(Answer { digest, id, .. }) = self.tenants.get_mut(&whose).and_then(VecDeque::pop_front) {
            self.forget(&whose, &digest, id);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Body, Mailbox, ReversePath, Taken};

    /// Rows of the outbox have it: another one would send twice what is sent again after an upgrade.
    #[test]
    fn golden_digest() {
        let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
        let envelope = Envelope {
            reverse_path: ReversePath::Mailbox(mailbox("app@acme.example")),
            forward_paths: vec![mailbox("b@x.example"), mailbox("a@x.example")],
            body: Body::SevenBit,
        };
        let credential = Username::parse("acme-app").unwrap();
        let found = digest(&credential, "<1@acme.example>", &envelope, b"Subject: x\r\n\r\n", Some((7, 9)));
        assert_eq!(found, "58dae1e95c45c9bc5a33b1db3c3e909a");
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn id(last: char) -> MessageId {
        MessageId::parse(&format!("01ARZ3NDEKTSV4RRFFQ69G5FA{last}")).unwrap()
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(1_000_000 + second))
    }

    fn remember(repeats: &Arc<Repeats>, tenant: &TenantId, digest: &str, id: MessageId, second: u64) {
        repeats.remember(tenant, digest, id, Receipt::one(Taken::by_ses("ses-1".into())), at(second));
    }

    /// As which message it was accepted before; asks and leaves no trace.
    fn known(repeats: &Arc<Repeats>, tenant: &TenantId, digest: &str, second: u64) -> Option<MessageId> {
        match repeats.begin(tenant, digest, at(second)) {
            Begun::Repeat(first, _) => Some(first),
            Begun::First(_) => None,
            Begun::UnderWay(_) => panic!("nothing is under way"),
        }
    }

    #[test]
    fn who_sends_much_forgets_its_own_answers_first() {
        let repeats = Repeats::new(Duration::from_secs(600), 10);
        let (quiet, loud) = (tenant("quiet"), tenant("loud"));
        remember(&repeats, &quiet, "q", id('A'), 0);
        for number in 0..1000 {
            remember(&repeats, &loud, &number.to_string(), id('B'), 1);
        }
        assert_eq!(repeats.len(), 10);
        assert_eq!(known(&repeats, &quiet, "q", 2), Some(id('A')));
        assert_eq!(known(&repeats, &loud, "990", 2), None, "the loud one's oldest went");
        assert_eq!(known(&repeats, &loud, "991", 2), Some(id('B')));
        assert_eq!(known(&repeats, &quiet, "991", 2), None, "an answer is its tenant's own");
    }

    #[test]
    fn what_is_forgotten_is_known_again_for_a_whole_window_when_it_is_accepted_anew() {
        let repeats = Repeats::new(Duration::from_secs(600), 10);
        let acme = tenant("acme");
        remember(&repeats, &acme, "d", id('A'), 0);
        repeats.forget(&acme, "d", id('B'));
        assert_eq!(known(&repeats, &acme, "d", 1), Some(id('A')), "the answer of another message stays");
        repeats.forget(&acme, "d", id('A'));
        assert_eq!(known(&repeats, &acme, "d", 2), None);
        remember(&repeats, &acme, "d", id('C'), 500);
        assert_eq!(known(&repeats, &acme, "d", 700), Some(id('C')), "the first one's end is not its end");
        assert_eq!(known(&repeats, &acme, "d", 1101), None);
        assert!(repeats.is_empty());
    }
}
