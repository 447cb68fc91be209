//! A store with faults, a clock that is set, a tenant, and events about its mail.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bulkhead::ingest::{Applier, Janitor};
use bulkhead::mail::{Mailbox, StreamId, TenantId};
use bulkhead::policy::tenant::{SenderPattern, Stream, StreamKind, Suppression, SuppressionReason, Tenant};
use bulkhead::secret::Random;
use bulkhead::store::counters::{self, Counts};
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tally::Tally;
use bulkhead::store::{Batch, CommitError, If, Key, Pending, ReadError, Store, Versioned, record};
use bulkhead::time::{Clock, Hour, Timestamp};

/// A day in milliseconds.
pub const DAY: u64 = 24 * 3_600_000;
/// 2026-11-20T09:15:02.418Z, when all mail here was sent.
pub const SENT: Timestamp = Timestamp::from_millis(1_795_166_102_418);

pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn pass(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

/// Reproducible chance.
pub struct Dice(Mutex<u64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
    pub fn below(&self, n: usize) -> usize {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state % u64::try_from(n).unwrap()).unwrap()
    }
    pub fn shuffle<T>(&self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}

impl Random for Dice {
    fn fill(&self, into: &mut [u8]) {
        for byte in into {
            *byte = u8::try_from(self.below(256)).unwrap();
        }
    }
}

/// A store that can be told how to fail.
pub struct FaultyStore {
    inner: MemoryStore,
    /// Commits that still succeed; `usize::MAX`: all.
    left: AtomicUsize,
    stopped: AtomicBool,
    /// Whether the commit that fails is written all the same.
    written: AtomicBool,
    yields: AtomicBool,
    refuses: AtomicBool,
    first: Mutex<Option<Batch>>,
    conflicts: AtomicUsize,
}

impl FaultyStore {
    fn new() -> Self {
        Self {
            inner: MemoryStore::new(),
            left: AtomicUsize::new(usize::MAX),
            stopped: AtomicBool::new(false),
            written: AtomicBool::new(false),
            yields: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            first: Mutex::new(None),
            conflicts: AtomicUsize::new(0),
        }
    }
    pub fn fail_after_commits(&self, n: usize) {
        self.left.store(n, Ordering::SeqCst);
    }
    pub fn lose_the_answer(&self, written: bool) {
        self.written.store(written, Ordering::SeqCst);
    }
    pub fn heal(&self) {
        self.left.store(usize::MAX, Ordering::SeqCst);
        self.stopped.store(false, Ordering::SeqCst);
        self.written.store(false, Ordering::SeqCst);
    }
    /// Reads go on.
    pub fn refuse_commits(&self, refuse: bool) {
        self.refuses.store(refuse, Ordering::SeqCst);
    }
    pub fn yield_before_commits(&self) {
        self.yields.store(true, Ordering::SeqCst);
    }
    /// Somebody else's commit that comes in just before the next one.
    pub fn before_next_commit(&self, batch: Batch) {
        *self.first.lock().unwrap() = Some(batch);
    }
    pub fn conflicts(&self) -> usize {
        self.conflicts.load(Ordering::SeqCst)
    }
    fn up(&self) -> Result<(), ReadError> {
        if self.stopped.load(Ordering::SeqCst) { Err(ReadError::Unavailable("told to fail".into())) } else { Ok(()) }
    }
}

impl Store for FaultyStore {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        Box::pin(async move {
            self.up()?;
            self.inner.get(key).await
        })
    }
    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        Box::pin(async move {
            self.up()?;
            self.inner.scan(prefix, after, limit).await
        })
    }
    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        Box::pin(async move {
            if self.yields.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            let first = self.first.lock().unwrap().take();
            if let Some(first) = first {
                self.inner.commit(first).await.unwrap();
            }
            if self.refuses.load(Ordering::SeqCst) {
                return Err(CommitError::Unavailable("told to refuse".into()));
            }
            let left = self.left.load(Ordering::SeqCst);
            if left == 0 || self.stopped.load(Ordering::SeqCst) {
                if !self.stopped.swap(true, Ordering::SeqCst) && self.written.load(Ordering::SeqCst) {
                    let _ = self.inner.commit(batch).await;
                }
                return Err(CommitError::Unavailable("told to fail".into()));
            }
            let done = self.inner.commit(batch).await;
            match &done {
                Ok(_) if left != usize::MAX => self.left.store(left - 1, Ordering::SeqCst),
                Err(CommitError::Conflict(_)) => {
                    self.conflicts.fetch_add(1, Ordering::SeqCst);
                }
                Ok(_) | Err(_) => {}
            }
            done
        })
    }
}

/// One tenant, `acme`, with the streams `main` and `news`.
pub struct World {
    pub store: Arc<FaultyStore>,
    pub clock: Arc<TestClock>,
    pub directory: Current,
    pub tally: Arc<Tally>,
}

impl World {
    pub fn new() -> Self {
        let directory = Directory::new([acme()], []);
        Self {
            store: Arc::new(FaultyStore::new()),
            clock: Arc::new(TestClock(AtomicU64::new(SENT.millis() + 60_000))),
            directory: Arc::new(ArcSwap::from_pointee(directory)),
            tally: Arc::new(Tally::default()),
        }
    }
    /// A new applier on the same store: what a restart gives.
    pub fn applier(&self) -> Applier {
        Applier::new(self.store.clone(), self.directory.clone(), self.clock.clone(), "n1".into())
    }
    pub fn janitor(&self) -> Janitor {
        Janitor::new(self.store.clone(), self.clock.clone())
    }
    /// Makes the bounce entry of an address unreadable; gives its key.
    pub async fn damage_suppression(&self, given: &str) -> Key {
        let key = Key::suppression(&self.tenant(), &mailbox(given), SuppressionReason::Bounce);
        let mut batch = Batch::new();
        batch.put(key.clone(), If::Any, bytes::Bytes::from_static(b"rubbish"));
        self.store.commit(batch).await.unwrap();
        key
    }
    pub fn tenant(&self) -> TenantId {
        TenantId::parse("acme").unwrap()
    }
    pub fn stream(&self) -> StreamId {
        StreamId::parse("main").unwrap()
    }
    /// The counts of both streams.
    pub async fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for stream in ["main", "news"] {
            let stream = StreamId::parse(stream).unwrap();
            all += counters::of(&self.store.inner, &self.tenant(), &stream, Hour(0), Hour(u32::MAX)).await.unwrap();
        }
        all
    }
    /// The same after a run of ingest, which writes the tally as it drains.
    pub async fn counts_with_tally(&self) -> Counts {
        let drain = tokio_util::sync::CancellationToken::new();
        drain.cancel();
        super::queue::ingest(self, Arc::new(bulkhead::ingest::NoQueue), 1).run(drain).await;
        self.counts().await
    }
    pub async fn suppressed(&self) -> Vec<String> {
        let found = self.store.inner.scan(&Key::suppressions(&self.tenant()), None, 10_000).await.unwrap();
        let line = |(key, row): (Key, Versioned)| {
            let entry: Suppression = record::open(&key, &row.value).unwrap();
            let parts = key.parts().unwrap();
            format!("{}/{} {:?} {}", parts[1], parts[2], entry.reason, entry.origin)
        };
        found.into_iter().map(line).collect()
    }
    /// How many shares the ledger has.
    pub async fn shares(&self) -> usize {
        let ids = self.store.inner.scan(&Key::from_octets(&b"eventid\0"[..]), None, 10_000).await.unwrap().len();
        assert_eq!(self.store.inner.scan(&Key::events(), None, 10_000).await.unwrap().len(), ids);
        ids
    }
}

fn acme() -> Tenant {
    let stream = |name: &str| Stream {
        suppress_on: Vec::new(),
        ..Stream::new(name.parse().unwrap(), StreamKind::Bulk, format!("acme-{name}").parse().unwrap())
    };
    Tenant {
        senders: vec![SenderPattern::parse("acme.example").unwrap()],
        streams: ["main", "news"].map(stream).into_iter().map(|stream| (stream.id.clone(), stream)).collect(),
        ..Tenant::new("acme".parse().unwrap(), "main".parse().unwrap())
    }
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

fn mail(message: &str, stream: &str) -> String {
    format!(
        r#""mail":{{"timestamp":"2026-11-20T09:15:02.418Z","messageId":"{message}","source":"x@acme.example",
        "destination":[],"tags":{{"tenant":["acme"],"stream":["{stream}"],"ses:configuration-set":["acme-{stream}"]}}}}"#
    )
}

fn addresses(given: &[&str]) -> String {
    given.iter().map(|given| format!(r#"{{"emailAddress":"{given}"}}"#)).collect::<Vec<_>>().join(",")
}

/// A permanent bounce, as an event.
pub fn bounce(feedback_id: &str, given: &[&str]) -> String {
    some_bounce("Permanent", feedback_id, "m-1", "main", given)
}

fn some_bounce(bounce_type: &str, feedback_id: &str, message: &str, stream: &str, given: &[&str]) -> String {
    format!(
        r#"{{"eventType":"Bounce","bounce":{{"bounceType":"{bounce_type}","bounceSubType":"General","feedbackId":"{feedback_id}",
        "timestamp":"2026-11-20T09:15:04.120Z","bouncedRecipients":[{}]}},{}}}"#,
        addresses(given),
        mail(message, stream)
    )
}

/// A complaint, as an event.
pub fn complaint(feedback_id: &str, given: &[&str]) -> String {
    some_complaint(feedback_id, "m-1", "main", given)
}

fn some_complaint(feedback_id: &str, message: &str, stream: &str, given: &[&str]) -> String {
    format!(
        r#"{{"eventType":"Complaint","complaint":{{"feedbackId":"{feedback_id}","complaintFeedbackType":"abuse",
        "timestamp":"2026-11-20T09:15:05.120Z","complainedRecipients":[{}]}},{}}}"#,
        addresses(given),
        mail(message, stream)
    )
}

/// A delivery, as an event.
pub fn delivery(given: &[&str]) -> String {
    some_delivery("m-1", "main", given)
}

fn some_delivery(message: &str, stream: &str, given: &[&str]) -> String {
    let recipients = given.iter().map(|given| format!("\"{given}\"")).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"eventType":"Delivery","delivery":{{"timestamp":"2026-11-20T09:15:03.377Z","recipients":[{recipients}]}},{}}}"#,
        mail(message, stream)
    )
}

/// A soft bounce of a full mailbox, so many seconds after the message was sent.
pub fn soft(feedback_id: &str, given: &str, seconds: u64) -> String {
    soft_as("MailboxFull", feedback_id, given, seconds, r#","status":"5.2.2","action":"failed""#)
}

/// A transient bounce; `more` is what it says of the recipient beside the address.
pub fn soft_as(sub_type: &str, feedback_id: &str, given: &str, seconds: u64, more: &str) -> String {
    let at = Timestamp::from_millis(SENT.millis() + seconds * 1000).rfc3339();
    format!(
        r#"{{"eventType":"Bounce","bounce":{{"bounceType":"Transient","bounceSubType":"{sub_type}","feedbackId":"{feedback_id}",
        "timestamp":"{at}","bouncedRecipients":[{{"emailAddress":"{given}"{more}}}]}},{}}}"#,
        mail("m-1", "main")
    )
}

/// A delivery, so many seconds after the message was sent.
pub fn delivered(given: &str, seconds: u64) -> String {
    let at = Timestamp::from_millis(SENT.millis() + seconds * 1000).rfc3339();
    format!(
        r#"{{"eventType":"Delivery","delivery":{{"timestamp":"{at}","recipients":["{given}"]}},{}}}"#,
        mail("m-1", "main")
    )
}

/// A notice of delay, so many seconds after the message was sent.
pub fn delayed(given: &str, seconds: u64) -> String {
    let at = Timestamp::from_millis(SENT.millis() + seconds * 1000).rfc3339();
    format!(
        r#"{{"eventType":"DeliveryDelay","deliveryDelay":{{"timestamp":"{at}","delayType":"MailboxFull",
        "delayedRecipients":[{{"emailAddress":"{given}"}}]}},{}}}"#,
        mail("m-1", "main")
    )
}

pub fn sns(message: &str) -> String {
    serde_json::json!({"Type": "Notification", "TopicArn": "arn:t", "Message": message}).to_string()
}

pub fn bridge(event: &str) -> String {
    format!(
        r#"{{"id":"e","time":"2026-11-20T09:15:05Z","source":"aws.ses","detail-type":"Email Something","detail":{event}}}"#
    )
}

/// All orders of `0..n`.
pub fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let with = |order: Vec<usize>| {
        (0..n).map(move |at| {
            let mut order = order.clone();
            order.insert(at, n - 1);
            order
        })
    };
    orders(n - 1).into_iter().flat_map(with).collect()
}

/// One event of a random set.
pub struct Some {
    kind: usize,
    id: String,
    message: String,
    stream: &'static str,
    pub recipients: Vec<String>,
}

/// A set of events over few addresses, so that they meet.
pub fn some_events(dice: &Dice) -> Vec<Some> {
    let one = |n: usize| {
        let mut recipients: Vec<String> =
            (0..=dice.below(6)).map(|_| format!("r{}@there.example", dice.below(12))).collect();
        recipients.sort();
        recipients.dedup();
        Some {
            kind: dice.below(4),
            id: format!("f-{n}"),
            message: format!("m-{n}"),
            stream: ["main", "news"][dice.below(2)],
            recipients,
        }
    };
    (0..5 + dice.below(30)).map(one).collect()
}

impl Some {
    pub fn body(&self, recipients: &[String]) -> String {
        let given: Vec<&str> = recipients.iter().map(String::as_str).collect();
        match self.kind {
            0 => some_delivery(&self.message, self.stream, &given),
            1 => some_bounce("Permanent", &self.id, &self.message, self.stream, &given),
            2 => some_bounce("Transient", &self.id, &self.message, self.stream, &given),
            _ => some_complaint(&self.id, &self.message, self.stream, &given),
        }
    }

    /// The event as the queue may bring it: in parts and again, wrapped this way and that.
    pub fn copies(&self, dice: &Dice) -> Vec<String> {
        let mut parts: Vec<Vec<String>> = vec![self.recipients.clone()];
        if dice.below(3) == 0 {
            let (one, two) = self.recipients.split_at(dice.below(self.recipients.len()));
            parts = vec![one.to_vec(), two.to_vec()];
            parts.retain(|part| !part.is_empty());
        }
        for _ in 0..dice.below(4) {
            let mut some = self.recipients.clone();
            dice.shuffle(&mut some);
            some.truncate(1 + dice.below(some.len()));
            let some = some.into_iter().map(|given| if dice.below(3) == 0 { given.to_uppercase() } else { given });
            parts.push(some.collect());
        }
        let wrapped = |part: Vec<String>| {
            let raw = self.body(&part);
            match dice.below(3) {
                0 => raw,
                1 => sns(&raw),
                _ => bridge(&raw),
            }
        };
        parts.into_iter().map(wrapped).collect()
    }
}
