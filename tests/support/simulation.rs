//! The dispatcher in simulated time: a runtime whose clock stands still and jumps to the next timer,
//! seeded randomness, store and spool in memory, and an SES that keeps its rate and its quota,
//! follows a script of faults and remembers every call.
//!
//! Two runs of one story are the same to the millisecond: [`World::fingerprint`] says so.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead::dispatch::{Calls, Dispatch, How, Means, Options, Parcel, Passage};
use bulkhead::mail::{
    ConfigurationSet, Domain, Mailbox, MessageId, ReversePath, SessionId, StreamId, Taken, TenantId, Username,
};
use bulkhead::outbox::memory::MemorySpool;
use bulkhead::outbox::recover::Found;
use bulkhead::outbox::{self, Bounds, Content, Lane, Manifest, Outbox};
use bulkhead::policy::tenant::{SenderPattern, Stream, StreamKind, SuppressionReason, Tenant};
use bulkhead::secret::Random;
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tally::Tally;
use bulkhead::store::{Pending, counters};
use bulkhead::time::{Clock, Timestamp};
use bulkhead::upstream::{Account, Call, Mailer, Outcome, Paused, Retry};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// As `outbox.data_deadline_seconds` has it.
pub const DATA_DEADLINE: Duration = Duration::from_secs(25);
/// As the mailer's `call_time` has it.
pub const CALL_TIME: Duration = Duration::from_secs(30);
/// How long a held message may wait where its stream says nothing, as the settings have it.
pub const AGES: [(StreamKind, u64); 3] =
    [(StreamKind::Transactional, 24), (StreamKind::Bulk, 48), (StreamKind::Marketing, 48)];

/// Whole milliseconds since the story began.
pub type Millis = u64;

pub const SECOND: Millis = 1000;
pub const MINUTE: Millis = 60 * SECOND;
pub const HOUR: Millis = 60 * MINUTE;

// ---------------------------------------------------------------------------------------------
// Time and chance

/// When every story begins: 2026-05-01T00:00:00Z.
const BEGIN: Timestamp = Timestamp::from_millis(1_777_593_600_000);

/// The clock of the runtime, which stands still while anybody has something to do.
pub struct SimulatedClock(Instant);

impl SimulatedClock {
    pub fn millis(&self) -> Millis {
        u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        BEGIN.plus(self.0.elapsed())
    }
    fn instant(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// SplitMix64.
pub struct Seeded(AtomicU64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub fn number(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.number() % end
    }

    pub fn between(&self, least: Millis, most: Millis) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

impl Random for Seeded {
    fn fill(&self, into: &mut [u8]) {
        for part in into.chunks_mut(8) {
            let octets = self.number().to_le_bytes();
            part.copy_from_slice(&octets[..part.len()]);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// SES

/// What SES does instead of taking a message.
#[derive(Clone, Debug)]
pub enum Does {
    /// No connection, told at once.
    RefuseConnection,
    /// HTTP 500 after a second.
    Fail,
    /// No answer within so long; SES does not have the message.
    Hang(Duration),
    /// It takes the message, and the answer never comes: for so long the caller waits.
    TakeInSilence(Duration),
    /// This answer, after the usual latency.
    Say(Outcome),
}

/// When, and to whom.
#[derive(Clone, Debug)]
pub struct Fault {
    pub from: Millis,
    pub until: Millis,
    /// `None`: every tenant's.
    pub tenant: Option<String>,
    /// `None`: every stream's.
    pub stream: Option<String>,
    pub does: Does,
}

impl Fault {
    pub fn of_all(from: Millis, until: Millis, does: Does) -> Self {
        Self { from, until, tenant: None, stream: None, does }
    }

    pub fn of(tenant: &str, stream: &str, from: Millis, until: Millis, does: Does) -> Self {
        Self { from, until, tenant: Some(tenant.into()), stream: Some(stream.into()), does }
    }
}

/// How an answer of SES's is written down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Said {
    Taken,
    Throttled,
    Quota,
    Network,
    Service,
    Nothing,
    Other,
}

/// A call, as SES saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub begun: Millis,
    /// When SES decided; for a call that was cut off before, `None`.
    pub decided: Option<Millis>,
    /// When the caller heard of it.
    pub answered: Option<Millis>,
    pub tenant: String,
    pub stream: String,
    pub connection: u32,
    pub number: u32,
    pub to: Vec<String>,
    pub octets: usize,
    pub said: Option<Said>,
    /// SES took it, and the caller waited in vain to hear so.
    pub unheard: bool,
}

impl Seen {
    pub fn is_taken(&self) -> bool {
        self.said == Some(Said::Taken)
    }
}

/// What the account is like.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Recipients a second; the bucket holds what one second brings.
    pub rate: f64,
    /// Recipients in 24 hours.
    pub daily: Option<u64>,
    /// Least and most of an answer's latency; one in twenty takes up to ten times as long.
    pub latency: (Millis, Millis),
    /// GetAccount tells of `daily` and what was sent of it.
    pub tells_quota: bool,
    /// What it says of the account's standing.
    pub enforcement: &'static str,
    pub faults: Vec<Fault>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            rate: 20.0,
            daily: None,
            latency: (40, 160),
            tells_quota: false,
            enforcement: "HEALTHY",
            faults: Vec::new(),
        }
    }
}

pub struct Ses {
    clock: Arc<SimulatedClock>,
    random: Seeded,
    state: Mutex<Books>,
}

struct Books {
    terms: Terms,
    tokens: f64,
    filled: Millis,
    /// Minute and recipients.
    sent: VecDeque<(u64, u64)>,
    seen: Vec<Seen>,
    /// What SES took since this was drained last: places in `seen`.
    taken: Vec<usize>,
    under_way: BTreeMap<(String, String), usize>,
    most_under_way: BTreeMap<(String, String), usize>,
}

/// A call under way, even if nobody waits for it any more.
struct UnderWay<'a>(&'a Ses, (String, String));

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.state.lock().unwrap().under_way.get_mut(&self.1).unwrap() -= 1;
    }
}

impl Ses {
    fn new(clock: Arc<SimulatedClock>, terms: Terms, seed: u64) -> Self {
        let state = Books {
            tokens: terms.rate.max(1.0),
            terms,
            filled: 0,
            sent: VecDeque::new(),
            seen: Vec::new(),
            taken: Vec::new(),
            under_way: BTreeMap::new(),
            most_under_way: BTreeMap::new(),
        };
        Self { clock, random: Seeded::new(seed), state: Mutex::new(state) }
    }

    /// Every call so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// What SES took since this was asked last, each with its place among all calls.
    pub fn drain_taken(&self) -> Vec<(usize, Seen)> {
        let mut state = self.state.lock().unwrap();
        let taken = std::mem::take(&mut state.taken);
        taken.into_iter().map(|at| (at, state.seen[at].clone())).collect()
    }

    /// Calls so far.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    /// Most calls of one lane at once.
    pub fn most_under_way(&self, tenant: &str, stream: &str) -> usize {
        let lane = (tenant.to_owned(), stream.to_owned());
        self.state.lock().unwrap().most_under_way.get(&lane).copied().unwrap_or_default()
    }

    /// From now on the account is like this.
    pub fn change(&self, change: impl FnOnce(&mut Terms)) {
        change(&mut self.state.lock().unwrap().terms);
    }

    async fn answer(&self, call: Call) -> Outcome {
        let now = self.clock.millis();
        let latency = {
            let terms = self.state.lock().unwrap().terms.latency;
            let usual = self.random.between(terms.0, terms.1);
            if self.random.below(20) == 0 { usual * u32::try_from(self.random.below(10) + 1).unwrap() } else { usual }
        };
        let tag = |name: &str| call.tags.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value).to_owned();
        let lane = (tag("tenant"), tag("stream"));
        let (at, does) = {
            let mut state = self.state.lock().unwrap();
            let state = &mut *state;
            state.seen.push(Seen {
                begun: now,
                decided: None,
                answered: None,
                tenant: lane.0.clone(),
                stream: lane.1.clone(),
                connection: tag("connection").parse().unwrap_or(u32::MAX),
                number: tag("number").parse().unwrap_or(u32::MAX),
                to: call.recipients.iter().map(ToString::to_string).collect(),
                octets: call.raw.len(),
                said: None,
                unheard: false,
            });
            let now_under_way = state.under_way.entry(lane.clone()).or_default();
            *now_under_way += 1;
            let most = state.most_under_way.entry(lane.clone()).or_default();
            *most = (*most).max(*now_under_way);
            let hit = |fault: &&Fault| {
                (fault.from..fault.until).contains(&now)
                    && fault.tenant.as_ref().is_none_or(|tenant| *tenant == lane.0)
                    && fault.stream.as_ref().is_none_or(|stream| *stream == lane.1)
            };
            (state.seen.len() - 1, state.terms.faults.iter().find(hit).map(|fault| fault.does.clone()))
        };
        let _under_way = UnderWay(self, lane);
        let (outcome, after) = match does {
            Some(Does::RefuseConnection) => {
                (Outcome::Retry(Retry::Network, "connection refused".into()), Duration::ZERO)
            }
            Some(Does::Fail) => {
                sleep(Duration::from_secs(1)).await;
                (Outcome::Retry(Retry::Service, "500".into()), Duration::ZERO)
            }
            Some(Does::Hang(time)) => {
                sleep(time).await;
                (Outcome::Unknown("no answer".into()), Duration::ZERO)
            }
            Some(Does::TakeInSilence(time)) => {
                sleep(latency / 2).await;
                let decided = self.decide(at, call.recipients.len());
                let is_taken = matches!(decided, Outcome::Sent(_));
                self.note(at, &decided);
                sleep(time.saturating_sub(latency / 2)).await;
                self.state.lock().unwrap().seen[at].unheard = is_taken;
                return Outcome::Unknown("no answer".into());
            }
            Some(Does::Say(outcome)) => {
                sleep(latency / 2).await;
                (outcome, latency / 2)
            }
            None => {
                sleep(latency / 2).await;
                (self.decide(at, call.recipients.len()), latency / 2)
            }
        };
        self.note(at, &outcome);
        if after > Duration::ZERO {
            sleep(after).await;
        }
        self.state.lock().unwrap().seen[at].answered = Some(self.clock.millis());
        outcome
    }

    fn note(&self, at: usize, outcome: &Outcome) {
        let mut state = self.state.lock().unwrap();
        state.seen[at].decided = Some(self.clock.millis());
        state.seen[at].said = Some(said(outcome));
        if matches!(outcome, Outcome::Sent(_)) {
            state.taken.push(at);
        }
    }

    /// A bucket that may go into debt, as SES's does: while there is a token left, a call passes
    /// whatever its size.
    fn decide(&self, at: usize, recipients: usize) -> Outcome {
        let now = self.clock.millis();
        let mut state = self.state.lock().unwrap();
        let passed = (now - state.filled) as f64 / 1000.0;
        state.filled = now;
        state.tokens = (state.tokens + passed * state.terms.rate).min(state.terms.rate.max(1.0));
        if state.tokens < 1.0 {
            return Outcome::Retry(Retry::Throttled, "Maximum sending rate exceeded.".into());
        }
        let minute = now / MINUTE;
        while state.sent.front().is_some_and(|(sent, _)| sent + 24 * 60 <= minute) {
            state.sent.pop_front();
        }
        let today: u64 = state.sent.iter().map(|(_, recipients)| recipients).sum();
        if state.terms.daily.is_some_and(|most| today + recipients as u64 > most) {
            return Outcome::Retry(Retry::DailyQuota, "Daily message quota exceeded.".into());
        }
        state.tokens -= recipients as f64;
        match state.sent.back_mut() {
            Some((last, sum)) if *last == minute => *sum += recipients as u64,
            _ => state.sent.push_back((minute, recipients as u64)),
        }
        Outcome::Sent(Taken::by_ses(format!("ses-{at}")))
    }
}

impl Mailer for Ses {
    fn send(&self, call: Call) -> Pending<'_, Outcome> {
        Box::pin(self.answer(call))
    }

    fn account(&self) -> Pending<'_, Result<Account, String>> {
        let state = self.state.lock().unwrap();
        let (rate, enforcement) = (state.terms.rate, state.terms.enforcement);
        let daily = state.terms.daily.filter(|_| state.terms.tells_quota);
        let minute = self.clock.millis() / MINUTE;
        let within = state.sent.iter().filter(|(sent, _)| sent + 24 * 60 > minute);
        let sent: u64 = within.map(|(_, recipients)| recipients).sum();
        Box::pin(std::future::ready(Ok(Account {
            max_send_rate: rate,
            max_24_hour_send: daily.map_or(-1.0, |daily| daily as f64),
            sent_last_24_hours: sent as f64,
            sending_enabled: true,
            production_access: true,
            enforcement_status: enforcement.into(),
        })))
    }
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Sent(_) => Said::Taken,
        Outcome::Retry(Retry::Throttled, _) => Said::Throttled,
        Outcome::Retry(Retry::DailyQuota, _) => Said::Quota,
        Outcome::Retry(Retry::Network, _) => Said::Network,
        Outcome::Retry(Retry::Service, _) => Said::Service,
        Outcome::Unknown(_) => Said::Nothing,
        Outcome::Retry(..) | Outcome::Refused(..) | Outcome::Paused(..) => Said::Other,
    }
}

/// What a set that is not there sounds like, and other faults that are the operator's.
pub fn operators() -> Vec<(&'static str, Outcome)> {
    let words = || "as SES has it".to_owned();
    vec![
        ("configuration_set_missing", Outcome::Retry(Retry::ConfigurationSetMissing, words())),
        ("ses_tenant_missing", Outcome::Retry(Retry::TenantMissing, words())),
        ("access_denied", Outcome::Retry(Retry::AccessDenied, words())),
        ("not_associated", Outcome::Retry(Retry::NotAssociated, words())),
        ("mail_from_domain", Outcome::Retry(Retry::MailFromDomain, words())),
        ("configuration_set_paused", Outcome::Paused(Paused::ConfigurationSet, words())),
        ("credentials", Outcome::Retry(Retry::Credentials, words())),
        ("account_paused", Outcome::Paused(Paused::Account, words())),
        ("account_suspended", Outcome::Paused(Paused::AccountSuspended, words())),
    ]
}

// ---------------------------------------------------------------------------------------------
// The house

/// What a story needs from the beginning.
pub struct Plan {
    pub seed: u64,
    pub terms: Terms,
    pub tenants: Vec<Tenant>,
    pub options: Options,
}

impl Plan {
    pub fn new(seed: u64, tenants: Vec<Tenant>) -> Self {
        // Clients here never repeat themselves.
        let options = Options { dedupe_window: Duration::ZERO, ..Options::default() };
        Self { seed, terms: Terms::default(), tenants, options }
    }
}

pub struct World {
    pub clock: Arc<SimulatedClock>,
    pub random: Arc<Seeded>,
    pub store: Arc<MemoryStore>,
    pub spool: MemorySpool,
    pub ses: Arc<Ses>,
    pub directory: Current,
    /// What SES took, for the counters and the book.
    pub tally: Arc<Tally>,
    pub options: Options,
    heard: Mutex<Vec<Heard>>,
    lines: Lines,
}

/// One life of the dispatcher.
pub struct Life {
    pub dispatch: Arc<Dispatch>,
    pub found: Found,
    drain: CancellationToken,
    end: CancellationToken,
    task: JoinHandle<usize>,
}

/// A message that a client sends.
#[derive(Clone, Debug)]
pub struct Letter {
    pub connection: u32,
    pub number: u32,
    pub tenant: String,
    pub stream: String,
    pub to: Vec<String>,
    pub octets: usize,
}

/// What a client heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    pub connection: u32,
    pub number: u32,
    pub tenant: String,
    pub stream: String,
    pub to: Vec<String>,
    pub offered: Millis,
    pub answered: Millis,
    pub answer: Answer,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Relayed,
    /// The outbox has it, for this cause.
    Held(&'static str),
    Deferred(&'static str),
    Refused,
}

/// Plays a story in its own time.
pub fn simulate<T>(plan: Plan, story: impl AsyncFnOnce(Arc<World>) -> T) -> T {
    use tracing_subscriber::layer::SubscriberExt as _;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _listening = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        lines.0.lock().unwrap().began = Some(began);
        let clock = Arc::new(SimulatedClock(began));
        let ses = Arc::new(Ses::new(Arc::clone(&clock), plan.terms, plan.seed ^ 0x5e5));
        let world = World {
            random: Arc::new(Seeded::new(plan.seed)),
            store: Arc::new(MemoryStore::new()),
            spool: MemorySpool::new(),
            ses,
            directory: Arc::new(ArcSwap::from_pointee(Directory::new(plan.tenants, []))),
            tally: Arc::new(Tally::default()),
            options: plan.options,
            heard: Mutex::default(),
            lines,
            clock,
        };
        story(Arc::new(world)).await
    })
}

impl World {
    /// Opens the outbox and lets a dispatcher run.
    pub async fn live(self: &Arc<Self>) -> Life {
        // Longer than any call takes: who wants less says so.
        self.live_with_grace(Duration::from_secs(3600)).await
    }

    /// The same with this grace at its end.
    pub async fn live_with_grace(self: &Arc<Self>, grace: Duration) -> Life {
        let (dispatch, found) = self.open().await;
        let (drain, end) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(Arc::clone(&dispatch).run(drain.clone(), end.clone(), grace));
        Life { dispatch, found, drain, end, task }
    }

    /// A dispatcher that does not run.
    pub async fn open(self: &Arc<Self>) -> (Arc<Dispatch>, Found) {
        let bounds = Bounds { messages: 1_000_000, messages_per_tenant: 1_000_000, bytes_per_tenant: 1 << 40 };
        let options = outbox::Options { bounds, disk_reserve_bytes: 0 };
        let (store, spool) = (Arc::clone(&self.store), Arc::new(self.spool.clone()));
        let unknown = self.options.waits.unknown;
        let (outbox, found) =
            Outbox::open(store.clone(), spool, "node", options, self.clock.now(), unknown).await.unwrap();
        let means = Means {
            outbox,
            mailer: Arc::clone(&self.ses) as _,
            store,
            directory: Arc::clone(&self.directory),
            clock: Arc::clone(&self.clock) as _,
            random: Arc::clone(&self.random) as _,
            tally: Arc::clone(&self.tally),
        };
        let dispatch = Dispatch::new(means, self.options.clone(), &found.digests);
        dispatch.recall().await.unwrap();
        (dispatch, found)
    }

    pub fn now(&self) -> Millis {
        self.clock.millis()
    }

    /// Writes what SES took into the counters, as the applier does every second.
    pub async fn count(&self) {
        let (store, directory) = (Arc::clone(&self.store) as _, Arc::clone(&self.directory));
        let applier = bulkhead::ingest::Applier::new(store, directory, Arc::clone(&self.clock) as _, "node".into());
        assert_eq!(applier.count(self.tally.take()).await, []);
    }

    /// Adds bounces to the counters, in the hour that has begun.
    pub async fn bounce(&self, tenant: &str, stream: &str, bounced: u64) {
        let lane = lane(tenant, stream);
        let cohort = bulkhead::policy::tenant::Cohort::of(self.clock.now().hour());
        let row = counters::Row { tenant: lane.tenant, stream: lane.stream.unwrap(), cohort };
        let (mut counts, condition) = counters::read(&*self.store, &row, "node").await.unwrap();
        counts.bounced += bounced;
        let mut batch = bulkhead::store::Batch::new();
        counters::write(&mut batch, &row, "node", condition, &counts);
        bulkhead::store::Store::commit(&*self.store, batch).await.unwrap();
    }

    /// Waits until a moment of the story.
    pub async fn at(&self, moment: Millis) {
        sleep(Duration::from_millis(moment.saturating_sub(self.now()))).await;
    }

    /// Hands a message over as a connection does, and writes down what it heard.
    pub async fn send(&self, dispatch: &Arc<Dispatch>, letter: Letter) -> Answer {
        let (offered, parcel) = (self.now(), self.parcel(&letter));
        let handed = dispatch.hand_over(parcel, Instant::now() + DATA_DEADLINE).await;
        let answer = match handed.how {
            How::Relayed(_) => Answer::Relayed,
            How::Held { cause, .. } => Answer::Held(cause.word()),
            How::Deferred { cause, .. } => Answer::Deferred(cause.word()),
            How::Refused(_) | How::Repeated { .. } => Answer::Refused,
        };
        self.heard.lock().unwrap().push(Heard {
            connection: letter.connection,
            number: letter.number,
            tenant: letter.tenant,
            stream: letter.stream,
            to: letter.to,
            offered,
            answered: self.now(),
            answer: answer.clone(),
        });
        answer
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// What the journal said of an event, and when.
    pub fn lines(&self, event: &str) -> Vec<(Millis, serde_json::Value)> {
        let told = self.lines.0.lock().unwrap();
        told.lines.iter().filter(|(_, line)| line["event"] == event).cloned().collect()
    }

    /// Changes a tenant as it is in force.
    pub fn change_tenant(&self, name: &str, change: impl FnOnce(&mut Tenant)) {
        let directory = self.directory.load_full();
        let mut tenants: Vec<Tenant> = directory.tenants().map(|tenant| Tenant::clone(tenant)).collect();
        change(tenants.iter_mut().find(|tenant| tenant.id.as_str() == name).unwrap());
        self.directory.store(Arc::new(Directory::new(tenants, [])));
    }

    /// All that happened, in one number.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for seen in self.ses.seen() {
            hasher.update(format!("{seen:?}"));
        }
        for heard in self.heard() {
            hasher.update(format!("{heard:?}"));
        }
        hasher.finalize().iter().take(8).fold(String::new(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        })
    }

    fn parcel(&self, letter: &Letter) -> Parcel {
        let directory = self.directory.load();
        let tenant = directory.tenant(&letter.tenant.parse().unwrap()).unwrap();
        let stream = &tenant.streams[&letter.stream.parse::<StreamId>().unwrap()];
        let now = self.clock.now();
        let sender = mailbox(&format!("app@{}.example", letter.tenant));
        let hours = AGES.iter().find(|(kind, _)| *kind == stream.kind).unwrap().1;
        let hours = stream.max_age_hours.map_or(hours, u64::from);
        let tags = [
            ("tenant", letter.tenant.clone()),
            ("stream", letter.stream.clone()),
            ("connection", letter.connection.to_string()),
            ("number", letter.number.to_string()),
        ];
        let manifest = Manifest {
            id: MessageId::new(now, &*self.random),
            session: session(letter.connection),
            tenant: tenant.id.clone(),
            stream: Some(stream.id.clone()),
            credential: Username::parse("app").unwrap(),
            reverse_path: ReversePath::Mailbox(sender.clone()),
            recipients: letter.to.iter().map(|to| mailbox(to)).collect(),
            claims: vec![sender],
            tags: tags.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            created: now,
            expires: now.plus(Duration::from_secs(hours * 3600)),
            digest: None,
        };
        let passage = Passage {
            configuration_set: stream.configuration_set.clone(),
            ses_tenant: None,
            fan_out: stream.fan_out,
            kind: stream.kind,
            handoff: stream.handoff,
        };
        let octets = Bytes::from(vec![b'x'; letter.octets]);
        let content = Content { first: vec![octets], draft: None };
        Parcel { manifest, content, passage, calls: Arc::new(Calls::default()) }
    }
}

impl Life {
    pub fn held(&self) -> usize {
        self.dispatch.outbox().backlog().messages
    }

    /// Waits until nothing is held, looking every second.
    pub async fn until_empty(&self, world: &World, most: Millis) -> Millis {
        let end = world.now() + most;
        while self.held() > 0 {
            assert!(world.now() < end, "{} are still held", self.held());
            sleep(Duration::from_secs(1)).await;
        }
        world.now()
    }

    /// The drain, from who waits for SES to the end of attempts. Gives how many were cut off.
    pub async fn stop(self) -> usize {
        self.begin_stop().await.unwrap()
    }

    /// The process is gone: nothing is finished or written any more.
    pub fn kill(self) {
        self.task.abort();
    }

    /// The end begins; who waits for SES is held.
    pub fn begin_stop(self) -> JoinHandle<usize> {
        self.dispatch.hurry();
        self.drain.cancel();
        self.end.cancel();
        self.task
    }
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

pub fn lane(tenant: &str, stream: &str) -> Lane {
    Lane { tenant: TenantId::parse(tenant).unwrap(), stream: Some(StreamId::parse(stream).unwrap()) }
}

/// A tenant with a stream of each kind, named by it.
pub fn tenant(name: &str, weight: u32) -> Tenant {
    let set = |kind: StreamKind| ConfigurationSet::parse(&format!("{name}-{}", kind.word())).unwrap();
    let stream = |kind: StreamKind| Stream {
        suppress_on: vec![SuppressionReason::Bounce],
        dedupe: false,
        // Its SES publishes no events; a story about the window says so.
        exposure: false,
        ..Stream::new(StreamId::parse(kind.word()).unwrap(), kind, set(kind))
    };
    Tenant {
        senders: vec![SenderPattern::Domain(Domain::parse(&format!("{name}.example")).unwrap())],
        weight,
        streams: StreamKind::ALL.map(stream).into_iter().map(|stream| (stream.id.clone(), stream)).collect(),
        ..Tenant::new(TenantId::parse(name).unwrap(), StreamId::parse("transactional").unwrap())
    }
}

/// One session a connection.
fn session(connection: u32) -> SessionId {
    SessionId::new(Timestamp::from_millis(u64::from(connection)), &Seeded::new(u64::from(connection)))
}

// ---------------------------------------------------------------------------------------------
// The journal

/// The journal's lines about what the dispatcher decides; those of each message are too many.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    began: Option<Instant>,
    lines: Vec<(Millis, serde_json::Value)>,
}

const KEPT: [&str; 14] = [
    "breaker_opened",
    "breaker_closed",
    "upstream_alarm",
    "message_deferred",
    "message_expired",
    "lane_held",
    "lane_released",
    "rate_learned",
    "outbox_deferred",
    "outcome_unknown",
    "quota_near",
    "account_standing",
    "warmup_stepped",
    "deliveries_unseen",
];

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Line(Option<String>);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "line" {
                    self.0 = Some(value.to_owned());
                }
            }
        }
        let mut line = Line(None);
        event.record(&mut line);
        let Some(text) = line.0.filter(|_| event.metadata().target() == "bulkhead") else { return };
        if !KEPT.iter().any(|kept| text.starts_with(&format!("\"event\":\"{kept}\""))) {
            return;
        }
        let value = serde_json::from_str(&format!("{{{text}}}")).unwrap();
        let mut told = self.0.lock().unwrap();
        let at = told.began.map_or(0, |began| u64::try_from(began.elapsed().as_millis()).unwrap());
        told.lines.push((at, value));
    }
}
