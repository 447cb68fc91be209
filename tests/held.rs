//! Commands on held messages and the check of the store, on memory and over the control socket: what
//! they answer, what they change, and what the log keeps of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::MachineRandom;
use bulkhead::adapters::log::{Format, Lines, Output};
use bulkhead::admin::command::{CHUNK, PAGE, Selection};
use bulkhead::admin::view::{Discarded, FaultView, HeldPage, HeldState, HeldView, Retried, Verified};
use bulkhead::admin::{Client, CommandError, Control, Desk, Request, Response, perform};
use bulkhead::ingest::Applier;
use bulkhead::mail::{Mailbox, MessageId, ReversePath, SessionId, StreamId, TenantId, Username};
use bulkhead::outbox::memory::MemorySpool;
use bulkhead::outbox::recover::Found;
use bulkhead::outbox::{
    Bounds, Cause, Content, Deferral, Holding, Lane, Manifest, Mark, Options, Outbox, Progress, Spool, Start,
};
use bulkhead::secret::Random;
use bulkhead::store::directory::Directory;
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, CommitError, If, Key, Pending, ReadError, Store, Versioned, record};
use bulkhead::time::{Clock, Timestamp};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;

const NODE: &str = "n1";
const ACTOR: &str = "cli:test";
const BODY: &str = "Subject: hush\r\n\r\nthe words nobody else may read\r\n";
/// 2026-05-01T09:15:02.418Z
const START: u64 = 1_777_626_902_418;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const OPTIONS: Options = Options {
    bounds: Bounds { messages: 100_000, messages_per_tenant: 100_000, bytes_per_tenant: 1 << 40 },
    disk_reserve_bytes: 0,
};

/// A clock that stands.
struct Still(AtomicU64);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn instant(&self) -> Instant {
        panic!("nobody here waits")
    }
}

/// A counter in place of randomness: the tests know the ids.
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        bytes.fill(0);
        bytes[..8].copy_from_slice(&n.to_le_bytes());
    }
}

struct Office {
    store: Arc<MemoryStore>,
    spool: MemorySpool,
    clock: Arc<Still>,
    ids: Counting,
    outbox: Arc<Outbox>,
    desk: Arc<Desk>,
    actor: &'static str,
}

/// What a message that is to be held is like.
struct Letter {
    tenant: &'static str,
    stream: Option<&'static str>,
    to: Vec<String>,
    cause: Cause,
    start: Start,
    marks: &'static str,
}

impl Default for Letter {
    fn default() -> Self {
        Self {
            tenant: "acme",
            stream: Some("main"),
            to: vec!["joe@x.example".into()],
            cause: Cause::Throttled,
            start: Start::At(at(10)),
            marks: ".",
        }
    }
}

/// So many minutes after the start.
fn at(minutes: u32) -> Timestamp {
    Timestamp::from_millis(START).plus(MINUTE * minutes)
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn stream(name: &str) -> StreamId {
    StreamId::parse(name).unwrap()
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

impl Office {
    async fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()), MemorySpool::new()).await.0
    }

    /// The outbox as after a start.
    async fn on(store: Arc<MemoryStore>, spool: MemorySpool) -> (Self, Found) {
        LazyLock::force(&LOG);
        let clock = Arc::new(Still(AtomicU64::new(START)));
        let opened = Outbox::open(store.clone(), Arc::new(spool.clone()), NODE, OPTIONS, clock.now(), MINUTE).await;
        let (outbox, found) = opened.unwrap();
        let desk = Arc::new(desk(store.clone(), clock.clone()).with_outbox(outbox.clone()));
        (Self { store, spool, clock, ids: Counting(AtomicU64::new(1)), outbox, desk, actor: ACTOR }, found)
    }

    /// The same store and files, opened anew.
    async fn again(self) -> Self {
        let Self { store, spool, .. } = self;
        Self::on(store, spool).await.0
    }

    async fn hold(&self, letter: Letter) -> MessageId {
        let id = MessageId::new(self.clock.now(), &self.ids);
        let manifest = Manifest {
            id,
            session: SessionId::new(self.clock.now(), &self.ids),
            tenant: tenant(letter.tenant),
            stream: letter.stream.map(stream),
            credential: Username::parse("acme-app").unwrap(),
            reverse_path: ReversePath::Mailbox(mailbox("bounces@acme.example")),
            recipients: letter.to.iter().map(|to| mailbox(to)).collect(),
            claims: vec![mailbox("news@acme.example")],
            tags: vec![("tenant".into(), letter.tenant.into()), ("campaign".into(), "may".into())],
            created: self.clock.now(),
            expires: self.clock.now().plus(DAY),
            digest: None,
        };
        let content = Content { first: vec![Bytes::from_static(BODY.as_bytes())], draft: None };
        let holding = Holding {
            manifest: &manifest,
            content: &content,
            progress: Progress::parse(letter.marks).unwrap(),
            cause: letter.cause,
            words: "Maximum sending rate exceeded.",
            unknown: 0,
            until: letter.start,
        };
        let (_, lease) = self.outbox.hold(holding).await.unwrap();
        assert!(lease.is_none());
        id
    }

    async fn ask(&self, request: Request) -> Result<Response, CommandError> {
        // As it goes over the socket, both ways.
        let request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        let response = perform(&self.desk, request, self.actor).await?;
        Ok(serde_json::from_str(&serde_json::to_string(&response).unwrap()).unwrap())
    }

    async fn list(&self, filter: Value) -> HeldPage {
        let mut request =
            json!({"command": "outbox_list", "tenant": null, "stream": null, "cause": null, "after": null});
        for (member, value) in filter.as_object().unwrap() {
            request[member] = value.clone();
        }
        match self.ask(serde_json::from_value(request).unwrap()).await.unwrap() {
            Response::Held(page) => page,
            other => panic!("{other:?}"),
        }
    }

    async fn listed(&self, filter: Value) -> Vec<MessageId> {
        self.list(filter).await.rows.into_iter().map(|row| row.message).collect()
    }

    async fn show(&self, message: MessageId) -> HeldView {
        match self.ask(Request::OutboxShow { message }).await.unwrap() {
            Response::HeldMessage(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    async fn retry(&self, selection: Selection) -> Result<Retried, CommandError> {
        match self.ask(Request::OutboxRetry { selection, after: None, until: None }).await? {
            Response::Retried(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    async fn discard(&self, selection: Selection, reason: &str) -> Result<Discarded, CommandError> {
        let request = Request::OutboxDiscard { selection, after: None, until: None, reason: reason.into() };
        match self.ask(request).await? {
            Response::Discarded(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    async fn verify(&self) -> Verified {
        verified(&self.desk).await
    }

    /// What a check finds that has the store and the files to itself.
    async fn verify_closed(&self) -> Verified {
        let desk = desk(self.store.clone(), self.clock.clone());
        verified(&desk.with_files(Arc::new(self.spool.clone()), NODE.into())).await
    }

    async fn keys(&self) -> Vec<Key> {
        let rows = self.store.scan(&Key::outbox_of(NODE), None, 10_000).await.unwrap();
        rows.into_iter().map(|(key, _)| key).collect()
    }

    async fn key_of(&self, id: MessageId) -> Key {
        let keys = self.keys().await;
        keys.into_iter().find(|key| Lane::of_key(key).is_some_and(|(_, _, of)| of == id)).unwrap()
    }

    async fn write(&self, key: Key, value: Option<Bytes>) {
        let mut batch = Batch::new();
        match value {
            Some(value) => batch.put(key, If::Any, value),
            None => batch.remove(key, If::Any),
        };
        self.store.commit(batch).await.unwrap();
    }

    fn flip_the_last_octet(&self, id: MessageId) {
        let mut octets = self.spool.octets(id).unwrap();
        *octets.last_mut().unwrap() ^= 1;
        self.spool.put(id, Some(octets));
    }
}

fn desk(store: Arc<MemoryStore>, clock: Arc<Still>) -> Desk {
    let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
    let applier = Applier::new(store.clone(), directory.clone(), clock.clone(), NODE.into());
    Desk::new(store, directory, clock, Arc::new(MachineRandom), applier, None)
}

/// All pages as one.
async fn verified(desk: &Desk) -> Verified {
    let mut all = Verified::default();
    let mut after = None;
    loop {
        let Response::Verified(page) = perform(desk, Request::StoreVerify { after }, ACTOR).await.unwrap() else {
            panic!()
        };
        all.records += page.records;
        all.messages += page.messages;
        all.bytes += page.bytes;
        all.files += page.files;
        all.outbox = page.outbox;
        all.faults_in_all += page.faults_in_all;
        all.faults.extend(page.faults);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

fn kinds(verified: &Verified) -> Vec<(&str, &str)> {
    assert!(verified.faults.iter().all(|fault| !fault.cure.is_empty() && !fault.fault.is_empty()));
    let mut kinds: Vec<_> = verified.faults.iter().map(|FaultView { kind, name, .. }| (&**kind, &**name)).collect();
    kinds.sort_unstable();
    kinds
}

/// The log of this process, from before its first line.
static LOG: LazyLock<Sink> = LazyLock::new(|| {
    let sink = Sink::default();
    let lines = Lines::new(Format::Json, Output::to(sink.clone()), Arc::new(Still(AtomicU64::new(START))));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines)).unwrap();
    sink
});

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// The lines of an event so far that name this actor.
    fn lines(&self, event: &str, actor: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event && line["actor"] == actor).collect()
    }
}

// --- What is shown -----------------------------------------------------------------------------

#[tokio::test]
async fn a_row_has_these_members() {
    let office = Office::new().await;
    let id = office
        .hold(Letter {
            to: vec!["joe@x.example".into(), "ann@y.example".into(), "bob@z.example".into()],
            marks: ".tr",
            ..Letter::default()
        })
        .await;
    let page = office.list(json!({})).await;
    assert_eq!(page.next, None);
    let row = json!({
        "message": id.to_string(),
        "tenant": "acme",
        "stream": "main",
        "from": "bounces@acme.example",
        "to": "joe@x.example",
        "recipients": {"all": 3, "open": 1, "taken": 1, "refused": 1},
        "bytes": BODY.len(),
        "created": "2026-05-01T09:15:02.418Z",
        "expires": "2026-05-02T09:15:02.418Z",
        "attempts": 0,
        "unknown": 0,
        "cause": "throttled",
        "words": "Maximum sending rate exceeded.",
        "state": "waiting",
        "next": "2026-05-01T09:25:02.418Z",
    });
    assert_eq!(serde_json::to_value(&page.rows).unwrap(), json!([row]));

    let mut whole = row;
    let more = json!({
        "session": null,
        "credential": "acme-app",
        "tags": [{"name": "tenant", "value": "acme"}, {"name": "campaign", "value": "may"}],
        "addresses": [
            {"address": "joe@x.example", "mark": "open"},
            {"address": "ann@y.example", "mark": "taken"},
            {"address": "bob@z.example", "mark": "refused"},
        ],
        "body_fault": null,
    });
    for (member, value) in more.as_object().unwrap() {
        whole[member] = value.clone();
    }
    let shown = serde_json::to_value(office.show(id).await).unwrap();
    whole["session"] = shown["session"].clone();
    assert!(SessionId::parse(shown["session"].as_str().unwrap()).is_some(), "{shown}");
    assert_eq!(shown, whole);
    assert!(!shown.to_string().contains("hush") && !shown.to_string().contains("nobody else"));
}

#[tokio::test]
async fn the_state_tells_what_a_message_waits_for() {
    let office = Office::new().await;
    let ready = office.hold(Letter { start: Start::Ready, cause: Cause::Handoff, ..Letter::default() }).await;
    let due = office.hold(Letter { start: Start::At(at(0)), ..Letter::default() }).await;
    let waiting = office.hold(Letter { stream: None, ..Letter::default() }).await;
    let held = office.hold(Letter { cause: Cause::SetPaused, ..Letter::default() }).await;
    let sending = office.hold(Letter { stream: Some("other"), start: Start::Ready, ..Letter::default() }).await;
    let lane = Lane { tenant: tenant("acme"), stream: Some(stream("other")) };
    let lease = office.outbox.lease(&lane, at(5)).await.unwrap().unwrap();

    let rows = office.list(json!({})).await.rows;
    let states: Vec<_> = rows.iter().map(|row| (row.message, row.state, row.next.is_some())).collect();
    assert_eq!(
        states,
        [
            (ready, HeldState::Ready, false),
            (due, HeldState::Ready, false),
            (waiting, HeldState::Waiting, true),
            (held, HeldState::Held, true),
            (sending, HeldState::Sending, false),
        ]
    );
    assert_eq!(serde_json::to_value(&rows[2]).unwrap()["stream"], Value::Null, "a report");
    assert_eq!((rows[3].cause.as_str(), rows[4].attempts), ("configuration_set_paused", 1));

    let deferral = Deferral {
        until: Some(at(20)),
        cause: Cause::Service,
        words: "503".into(),
        progress: Progress::none(1),
        unknown: 2,
    };
    lease.defer(deferral, at(1)).await.unwrap();
    let shown = office.show(sending).await.row;
    assert_eq!((shown.cause.as_str(), shown.words.as_str(), shown.unknown), ("service", "503", 2));
    assert_eq!(shown.next, Some(at(20).rfc3339()));
}

#[tokio::test]
async fn filters_join_and_the_order_is_that_of_acceptance() {
    let office = Office::new().await;
    let mut ids = Vec::new();
    for (tenant, stream, cause) in [
        ("beta", Some("main"), Cause::Throttled),
        ("acme", Some("main"), Cause::Throttled),
        ("acme", Some("news"), Cause::Rate),
        ("acme", None, Cause::Throttled),
        ("acme", Some("main"), Cause::Rate),
    ] {
        ids.push(office.hold(Letter { tenant, stream, cause, ..Letter::default() }).await);
        office.clock.0.fetch_add(1, Ordering::Relaxed);
    }
    let of = |places: &[usize]| places.iter().map(|at| ids[*at]).collect::<Vec<_>>();
    for (filter, expected) in [
        (json!({}), of(&[0, 1, 2, 3, 4])),
        (json!({"tenant": "acme"}), of(&[1, 2, 3, 4])),
        (json!({"stream": "main"}), of(&[0, 1, 4])),
        (json!({"cause": "rate"}), of(&[2, 4])),
        (json!({"tenant": "acme", "stream": "main", "cause": "rate"}), of(&[4])),
        (json!({"tenant": "beta", "cause": "rate"}), of(&[])),
        (json!({"tenant": "acme", "after": ids[2]}), of(&[3, 4])),
        (json!({"after": ids[4]}), of(&[])),
    ] {
        assert_eq!(office.listed(filter.clone()).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn a_long_outbox_is_listed_a_page_at_a_time() {
    let office = Office::new().await;
    let mut all = Vec::new();
    for n in 0..2 * PAGE + 500 {
        let stream = if n % 5 == 0 { "rare" } else { "main" };
        all.push(office.hold(Letter { stream: Some(stream), ..Letter::default() }).await);
    }
    assert!(all.is_sorted());
    let (mut seen, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let page = office.list(json!({"after": after})).await;
        assert!(page.rows.len() <= PAGE && serde_json::to_string(&page).unwrap().len() < 2 << 20);
        seen.extend(page.rows.iter().map(|row| row.message));
        pages += 1;
        let Some(next) = page.next else { break };
        after = json!(next);
    }
    assert_eq!((seen == all, pages), (true, 3));
    // A filter's page is filled with what fits it.
    let page = office.list(json!({"stream": "rare"})).await;
    assert_eq!((page.rows.len(), page.next), ((2 * PAGE + 500) / 5, None));
    let page = office.list(json!({"stream": "main"})).await;
    assert_eq!(page.rows.len(), PAGE);
    assert!(page.rows.iter().all(|row| row.stream == Some(stream("main"))));
}

/// With as many recipients as may be, of the longest kind.
#[tokio::test]
async fn an_answer_about_a_large_message_stays_bounded() {
    let office = Office::new().await;
    let local = "l".repeat(60);
    let domain = vec!["d".repeat(58); 3].join(".");
    let to: Vec<String> = (0..PAGE + 50).map(|n| format!("{local}{n:04}@{domain}.example")).collect();
    let marks: &'static str = ".".repeat(to.len()).leak();
    let id = office.hold(Letter { to, marks, ..Letter::default() }).await;
    let view = office.show(id).await;
    assert_eq!((view.addresses.len(), view.row.recipients.all), (PAGE, PAGE + 50));
    assert!(serde_json::to_string(&view).unwrap().len() < bulkhead::admin::control::LINE);
}

#[tokio::test]
async fn what_cannot_be_read_is_shown_by_what_is_known() {
    let office = Office::new().await;
    let (no_body, no_row) = (office.hold(Letter::default()).await, office.hold(Letter::default()).await);
    let neither = office.hold(Letter::default()).await;
    office.spool.put(no_body, None);
    let view = office.show(no_body).await;
    assert_eq!(view.body_fault.as_deref(), Some("its body file is not there"));
    assert_eq!((view.row.to.as_str(), view.addresses.len()), ("joe@x.example", 0));

    for id in [no_row, neither] {
        office.write(office.key_of(id).await, Some(Bytes::from_static(b"rubbish"))).await;
    }
    office.spool.put(neither, None);
    let rows = office.list(json!({})).await.rows;
    assert_eq!(rows.len(), 3);
    // Its file says enough.
    assert_eq!((&rows[1].fault, rows[1].cause.as_str(), rows[1].unknown), (&None, "throttled", 1));
    assert!(rows[2].fault.as_ref().unwrap().contains("is damaged"), "{:?}", rows[2]);
    assert_eq!((rows[2].tenant.as_str(), rows[2].cause.as_str()), ("acme", "throttled"));
    assert!(office.show(neither).await.row.fault.is_some());
    // One damaged row keeps nobody from the others.
    let answer = office.retry(Selection::All).await.unwrap();
    assert_eq!((answer.retried, answer.left_alone.len()), (1, 2), "{answer:?}");
    assert!(answer.left_alone[0].why.contains("not as this process wrote it"), "{answer:?}");
    assert!(answer.left_alone[1].why.contains("store rebuild"), "{answer:?}");
}

// --- What is changed ---------------------------------------------------------------------------

#[tokio::test]
async fn what_is_retried_is_ready_and_stays_so_after_a_restart() {
    let office = Office::new().await;
    let mut ids = Vec::new();
    for (tenant, stream) in [("acme", "main"), ("acme", "news"), ("beta", "main"), ("gamma", "main")] {
        ids.push(office.hold(Letter { tenant, stream: Some(stream), ..Letter::default() }).await);
    }
    let ready = async |office: &Office| -> Vec<bool> {
        office.list(json!({})).await.rows.iter().map(|row| row.state == HeldState::Ready).collect()
    };
    assert_eq!(ready(&office).await, [false; 4]);
    let of = |tenant_name: &str, stream_name: Option<&str>| Selection::Of {
        tenant: tenant(tenant_name),
        stream: stream_name.map(stream),
    };
    assert_eq!(office.retry(of("acme", Some("news"))).await.unwrap().retried, 1);
    assert_eq!(ready(&office).await, [false, true, false, false]);
    assert_eq!(office.retry(Selection::Messages(vec![ids[3], ids[3]])).await.unwrap().retried, 1, "twice is once");
    assert_eq!(ready(&office).await, [false, true, false, true]);

    let office = office.again().await;
    assert_eq!(ready(&office).await, [false, true, false, true]);
    assert_eq!(office.retry(of("acme", None)).await.unwrap().retried, 2);
    assert_eq!(ready(&office).await, [true, true, false, true]);
    assert_eq!(office.retry(Selection::All).await.unwrap().retried, 4);
    let office = office.again().await;
    assert_eq!(ready(&office).await, [true; 4]);
    assert_eq!(office.keys().await.len(), 4);
    // And each can be leased: schedule and rows agree.
    let lane = Lane { tenant: tenant("beta"), stream: Some(stream("main")) };
    office.outbox.with_index(|index| index.promote(at(0)));
    assert_eq!(office.outbox.lease(&lane, at(5)).await.unwrap().unwrap().id(), ids[2]);
}

#[tokio::test]
async fn what_is_discarded_is_gone_and_leaves_a_line_each_and_one_in_all() {
    let actor = "cli:discarder";
    let office = Office { actor, ..Office::new().await };
    let told = |event| LOG.lines(event, actor);
    let to = vec!["joe@x.example".into(), "ann@y.example".into()];
    let first = office.hold(Letter { to, marks: ".t", ..Letter::default() }).await;
    let second = office.hold(Letter { stream: None, ..Letter::default() }).await;
    let stays = office.hold(Letter { tenant: "beta", ..Letter::default() }).await;

    let acme = || Selection::Of { tenant: tenant("acme"), stream: None };
    let answer = office.discard(acme(), " a list that\nwas bought ").await.unwrap();
    assert_eq!(answer, Discarded { discarded: 2, left_alone: Vec::new(), next: None });
    assert_eq!(office.listed(json!({})).await, [stays]);
    assert_eq!((office.spool.ids(), office.keys().await.len()), (vec![stays], 1));

    let mut lines = told("message_discarded");
    lines.sort_by_key(|line| line["message"].to_string());
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("ts");
            line
        })
        .collect();
    let (reason, tenant, event) = ("a list thatwas bought", "acme", "message_discarded");
    assert_eq!(
        lines,
        [
            json!({"level": "warn", "event": event, "message": first, "tenant": tenant, "stream": "main",
                "recipient_count": 1, "bytes": BODY.len(), "actor": actor, "reason": reason}),
            json!({"level": "warn", "event": event, "message": second, "tenant": tenant,
                "recipient_count": 1, "bytes": BODY.len(), "actor": actor, "reason": reason}),
        ]
    );
    let changed = told("changed");
    assert_eq!(changed.len(), 1);
    assert_eq!((&changed[0]["command"], &changed[0]["tenant"]), (&json!("outbox discard"), &json!("acme")));
    assert_eq!(changed[0]["reason"], "2 messages of acme: a list thatwas bought");

    office.discard(Selection::Messages(vec![stays]), "").await.unwrap();
    assert_eq!(told("changed")[1]["reason"], format!("1 message {stays}"));
    assert_eq!(told("message_discarded")[2].get("reason"), None);
    // Where nothing was done, nothing is told.
    assert_eq!(office.discard(Selection::All, "").await.unwrap().discarded, 0);
    assert_eq!(told("changed").len(), 2);
}

#[tokio::test]
async fn a_message_that_is_being_sent_is_left_alone() {
    let office = Office::new().await;
    let sending = office.hold(Letter { start: Start::Ready, ..Letter::default() }).await;
    let other = office.hold(Letter::default()).await;
    let lane = Lane { tenant: tenant("acme"), stream: Some(stream("main")) };
    let lease = office.outbox.lease(&lane, at(5)).await.unwrap().unwrap();
    assert_eq!(lease.id(), sending);

    for ids in [vec![sending], vec![other, sending]] {
        let many = ids.len() > 1;
        let retried = office.retry(Selection::Messages(ids.clone())).await.unwrap_err();
        let discarded = office.discard(Selection::Messages(ids), "").await.unwrap_err();
        for refused in [retried, discarded] {
            assert_eq!(refused, CommandError::BeingSent { message: sending.to_string(), many });
            assert!(refused.to_string().contains("try again in a moment"), "{refused}");
        }
    }
    assert_eq!(office.list(json!({})).await.rows[1].state, HeldState::Waiting, "nothing was done with the other");

    let answer = office.discard(Selection::All, "").await.unwrap();
    assert_eq!((answer.discarded, answer.left_alone.len()), (1, 1));
    assert_eq!(answer.left_alone[0].message, sending);
    assert!(answer.left_alone[0].why.contains("being sent"), "{answer:?}");
    lease.complete().await.unwrap();
    assert_eq!(office.listed(json!({})).await, []);
}

#[tokio::test]
async fn a_large_selection_is_gone_through_page_by_page_and_comes_to_an_end() {
    let office = Office::new().await;
    for _ in 0..PAGE + 200 {
        office.hold(Letter::default()).await;
    }
    let until = office.clock.now();
    office.clock.0.fetch_add(1, Ordering::Relaxed);
    let later = office.hold(Letter::default()).await;
    let (mut after, mut counts) = (None, Vec::new());
    loop {
        let request =
            Request::OutboxDiscard { selection: Selection::All, after, until: Some(until), reason: String::new() };
        let Response::Discarded(answer) = office.ask(request).await.unwrap() else { panic!() };
        counts.push(answer.discarded);
        after = answer.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(counts, [PAGE, 200]);
    assert_eq!(office.listed(json!({})).await, [later], "what came later was not meant");
    assert_eq!(office.spool.ids(), [later]);
}

#[tokio::test]
async fn errors_say_what_is_not_there() {
    let office = Office::new().await;
    let id = office.hold(Letter::default()).await;
    let gone = MessageId::new(at(0), &MachineRandom);
    let not_held = CommandError::NotHeld { message: gone.to_string() };
    assert_eq!(office.ask(Request::OutboxShow { message: gone }).await.unwrap_err(), not_held);
    assert_eq!(office.retry(Selection::Messages(vec![id, gone])).await.unwrap_err(), not_held);
    assert_eq!(office.discard(Selection::Messages(vec![id, gone]), "").await.unwrap_err(), not_held);
    assert_eq!(
        office.list(json!({})).await.rows[0].state,
        HeldState::Waiting,
        "nothing was done with the one there is"
    );

    assert_eq!(office.discard(Selection::Messages(Vec::new()), "").await.unwrap_err(), CommandError::NothingSelected);
    let many = office.retry(Selection::Messages(vec![id; CHUNK + 1])).await.unwrap_err();
    assert!(matches!(many, CommandError::TooMany { given, .. } if given == CHUNK + 1), "{many}");

    // A tenant that has mail here is known even if it has been removed; another is not.
    let of = |name: &str| Selection::Of { tenant: tenant(name), stream: None };
    let unknown = office.discard(of("acne"), "").await.unwrap_err();
    assert_eq!(unknown, CommandError::NoTenant { tenant: "acne".into(), near: Some("acme".into()) });
    assert_eq!(office.retry(of("acme")).await.unwrap().retried, 1);

    let without = desk(office.store.clone(), office.clock.clone());
    for request in [
        Request::OutboxList { tenant: None, stream: None, cause: None, after: None },
        Request::OutboxShow { message: id },
        Request::OutboxRetry { selection: Selection::All, after: None, until: None },
        Request::OutboxDiscard { selection: Selection::All, after: None, until: None, reason: String::new() },
    ] {
        assert_eq!(perform(&without, request, ACTOR).await.unwrap_err(), CommandError::NoOutbox);
    }
    office.store.fail_with("the disk is gone");
    let stopped = office.retry(Selection::All).await;
    assert!(matches!(stopped, Ok(Retried { retried: 1, .. })), "a message that is due needs no write: {stopped:?}");
    let stopped = office.discard(Selection::All, "").await.unwrap_err();
    assert!(matches!(stopped, CommandError::StoreUnavailable { .. }), "{stopped}");
    office.store.heal();
    assert_eq!(office.discard(Selection::All, "").await.unwrap().discarded, 1, "it was put back");
}

/// Somebody leases while the operator discards: one of them has it, never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_discards_and_whoever_sends_never_both_have_a_message() {
    let office = Arc::new(Office::new().await);
    let mut ids = BTreeSet::new();
    for _ in 0..400 {
        ids.insert(office.hold(Letter { start: Start::Ready, ..Letter::default() }).await);
    }
    let lane = Lane { tenant: tenant("acme"), stream: Some(stream("main")) };
    let sender = {
        let office = office.clone();
        tokio::spawn(async move {
            let mut sent = BTreeSet::new();
            while let Some(lease) = office.outbox.lease(&lane, at(5)).await.unwrap() {
                let id = lease.id();
                tokio::task::yield_now().await;
                lease.complete().await.unwrap();
                assert!(sent.insert(id));
                if sent.len() >= 200 {
                    break;
                }
            }
            sent
        })
    };
    let mut discarded = 0;
    for id in ids.iter().rev() {
        match office.outbox.discard(*id).await {
            Ok(_) => discarded += 1,
            Err(error) => assert!(!error.to_string().contains("changed in between"), "{error}"),
        }
    }
    let sent = sender.await.unwrap();
    let left = office.listed(json!({})).await.len();
    assert_eq!(sent.len() + discarded + left, ids.len());
    assert!(discarded > 0 && !sent.is_empty(), "{discarded} {}", sent.len());
}

/// The moment in which the discard reads the row: nobody gets a lease in it.
#[tokio::test]
async fn a_message_is_out_of_turn_from_the_moment_its_discard_begins() {
    let memory = Arc::new(MemoryStore::new());
    let office = Office::on(memory.clone(), MemorySpool::new()).await.0;
    let id = office.hold(Letter { start: Start::Ready, ..Letter::default() }).await;
    let gated = Arc::new(Gated { store: memory, gate: RwLock::new(()) });
    let spool = Arc::new(office.spool.clone());
    let opened = Outbox::open(gated.clone(), spool, NODE, OPTIONS, at(0), MINUTE).await;
    let (outbox, _) = opened.unwrap();
    outbox.with_index(|index| index.promote(at(1)));

    let closed = gated.gate.write().await;
    let mut discard = std::pin::pin!(outbox.discard(id));
    assert!(std::future::poll_fn(|context| Poll::Ready(discard.as_mut().poll(context))).await.is_pending());
    let lane = Lane { tenant: tenant("acme"), stream: Some(stream("main")) };
    assert_eq!(outbox.with_index(|index| index.next(&lane).map(|(id, _)| id)), None);
    drop(closed);
    discard.await.unwrap();
    assert!(!outbox.holds(id));
}

/// A store that is read only while nobody has its gate.
struct Gated {
    store: Arc<MemoryStore>,
    gate: RwLock<()>,
}

impl Store for Gated {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        Box::pin(async move {
            let _open = self.gate.read().await;
            self.store.get(key).await
        })
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        self.store.scan(prefix, after, limit)
    }

    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        self.store.commit(batch)
    }
}

// --- Over the socket ---------------------------------------------------------------------------

#[tokio::test]
async fn the_same_commands_are_answered_over_the_control_socket() {
    let office = Office::new().await;
    let id = office.hold(Letter::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let control = Control::bind(folder.path(), office.desk.clone()).await.unwrap();
    let running = tokio::spawn(control.run(stop.clone()));
    let mut client = Client::connect(folder.path()).await.unwrap();
    let listed = client.ask(Request::OutboxList { tenant: None, stream: None, cause: None, after: None }).await;
    let Ok(Response::Held(page)) = listed else { panic!("{listed:?}") };
    assert_eq!(page, office.list(json!({})).await);
    let shown = client.ask(Request::OutboxShow { message: id }).await;
    let Ok(Response::HeldMessage(view)) = shown else { panic!("{shown:?}") };
    assert_eq!(*view, office.show(id).await);
    let retry = Request::OutboxRetry { selection: Selection::Messages(vec![id]), after: None, until: None };
    let retried = client.ask(retry).await;
    assert!(matches!(&retried, Ok(Response::Retried(Retried { retried: 1, .. }))), "{retried:?}");
    let verified = client.ask(Request::StoreVerify { after: None }).await;
    assert!(
        matches!(&verified, Ok(Response::Verified(Verified { messages: 1, faults_in_all: 0, .. }))),
        "{verified:?}"
    );
    let discard = Request::OutboxDiscard { selection: Selection::All, after: None, until: None, reason: "why".into() };
    let discarded = client.ask(discard).await;
    assert!(matches!(&discarded, Ok(Response::Discarded(Discarded { discarded: 1, .. }))), "{discarded:?}");
    let gone = client.ask(Request::OutboxShow { message: id }).await.unwrap_err();
    assert!(gone.to_string().contains("no message") && gone.to_string().contains("is held"), "{gone}");
    stop.cancel();
    running.await.unwrap();
}

// --- The check ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_check_of_what_is_whole_finds_nothing_and_counts_all() {
    let office = Office::new().await;
    for n in 0..700 {
        let start = if n % 2 == 0 { Start::Ready } else { Start::At(at(10)) };
        office.hold(Letter { start, ..Letter::default() }).await;
    }
    // With notes behind the message, and one of them cut off by a crash.
    let lane = Lane { tenant: tenant("acme"), stream: Some(stream("main")) };
    let lease = office.outbox.lease(&lane, at(5)).await.unwrap().unwrap();
    let id = lease.id();
    let mut progress = Progress::none(1);
    progress.mark(0, Mark::Taken);
    let deferral = Deferral { until: None, cause: Cause::Service, words: String::new(), progress, unknown: 0 };
    lease.defer(deferral, at(1)).await.unwrap();
    office.spool.append(id, Bytes::from_static(b"progress ")).await.unwrap();
    let before = (office.keys().await, office.spool.writes());
    for verified in [office.verify().await, office.verify_closed().await] {
        let bytes = 700 * u64::try_from(BODY.len()).unwrap();
        // One record is the store's generation.
        let expected = Verified { records: 701, messages: 700, bytes, files: 700, outbox: true, ..Verified::default() };
        assert_eq!(verified, expected);
    }
    assert_eq!((office.keys().await, office.spool.writes()), before, "it changed nothing");

    // Without its outbox the records alone are read.
    let verified = verified(&desk(office.store.clone(), office.clock.clone())).await;
    assert_eq!(verified, Verified { records: 701, ..Verified::default() });
}

#[tokio::test]
async fn a_check_finds_each_kind_of_damage_and_names_it() {
    let office = Office::new().await;
    let whole = office.hold(Letter::default()).await;
    let mut damaged = Vec::new();
    for _ in 0..6 {
        damaged.push(office.hold(Letter::default()).await);
    }
    let [bad_row, no_file, bad_body, short, other_lane, stray] = damaged[..] else { panic!() };
    let names: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    let key = office.key_of(bad_row).await;
    let mut value = office.store.get(&key).await.unwrap().unwrap().value.to_vec();
    *value.last_mut().unwrap() ^= 1;
    office.write(key.clone(), Some(value.into())).await;
    office.spool.put(no_file, None);
    office.flip_the_last_octet(bad_body);
    let mut octets = office.spool.octets(short).unwrap();
    octets.pop();
    office.spool.put(short, Some(octets));
    // The row of a lane that the file does not name.
    let there = office.key_of(other_lane).await;
    let row = office.store.get(&there).await.unwrap().unwrap().value;
    let moved = Key::outbox(NODE, &tenant("beta"), Some(&stream("main")), at(10), other_lane);
    office.write(there, None).await;
    office.write(moved, Some(row)).await;
    let stray_key = office.key_of(stray).await;
    office.write(stray_key, None).await;
    // Records of others, and what is no key of an outbox's.
    office.write(Key::tenant(&tenant("acme")), Some(Bytes::from_static(b"rubbish"))).await;
    let pause = Key::pause(&tenant("acme"), None);
    office.write(pause, Some(record::seal(&json!({"at": 1})))).await;

    let closed = office.verify_closed().await;
    let key = key.to_string();
    let expected = BTreeSet::from([
        ("row", &*key),
        ("missing", &*names[1]),
        ("body", &*names[2]),
        ("body", &*names[3]),
        ("mismatch", &*names[4]),
        ("stray", &*names[5]),
        ("record", "tenant/acme"),
    ]);
    assert_eq!(kinds(&closed).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!((closed.faults_in_all, closed.messages, closed.files), (7, 5, 6));
    assert!(!kinds(&closed).iter().any(|(_, name)| *name == whole.to_string()));
    let of = |kind: &str| closed.faults.iter().find(|fault| fault.kind == kind).unwrap().clone();
    assert!(of("record").cure.contains("apply a tenants file"));
    assert!(of("row").cure.contains("store rebuild"));
    assert!(of("missing").cure.contains(&format!("outbox discard {no_file}")));
    assert_eq!(of("body").fault, "its body file is damaged: the checksum of the message does not fit");

    // While it works: the stray file is still known to the schedule, and the rest is found as well.
    let open = office.verify().await;
    let expected: BTreeSet<_> = expected.into_iter().filter(|(kind, _)| *kind != "stray").collect();
    assert_eq!(kinds(&open).into_iter().collect::<BTreeSet<_>>(), expected);
}

/// A file whose row may be about to be written is none that is told of, an old one is.
#[tokio::test]
async fn a_stray_file_is_told_of_once_nobody_can_be_about_to_write_its_row() {
    let office = Office::new().await;
    let id = MessageId::new(office.clock.now(), &MachineRandom);
    office.spool.put(id, Some(b"half a message".to_vec()));
    assert_eq!(office.verify().await.faults_in_all, 0);
    assert_eq!(kinds(&office.verify_closed().await), [("stray", &*id.to_string())], "nobody works with it");
    office.clock.0.fetch_add(60 * 60 * 1000, Ordering::Relaxed);
    let verified = office.verify().await;
    assert_eq!(kinds(&verified), [("stray", &*id.to_string())]);
    assert_eq!((verified.files, verified.messages), (1, 0));
}

#[tokio::test]
async fn a_check_goes_on_where_the_page_before_ended() {
    let office = Office::new().await;
    for n in 0..25_000u64 {
        let key = Key::event_id(&format!("{n:06}"));
        let value = if n % 10_000 == 9_999 { Bytes::from_static(b"rubbish") } else { record::seal(&n) };
        let mut batch = Batch::new();
        batch.put(key, If::Any, value);
        office.store.commit(batch).await.unwrap();
    }
    let (mut after, mut records, mut faults) = (None, Vec::new(), 0);
    loop {
        let Response::Verified(page) = office.ask(Request::StoreVerify { after }).await.unwrap() else { panic!() };
        records.push(page.records);
        faults += page.faults_in_all;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((records, faults), (vec![10_000, 10_000, 5001], 2));
    let odd = office.ask(Request::StoreVerify { after: Some("no place".into()) }).await.unwrap_err();
    assert_eq!(odd, CommandError::NoPlace);
}

/// Thousands of messages come and go while the check reads: nothing of that is damage.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_beside_traffic_finds_nothing() {
    let office = Arc::new(Office::new().await);
    for _ in 0..300 {
        office.hold(Letter { start: Start::Ready, ..Letter::default() }).await;
    }
    let stop = CancellationToken::new();
    let traffic = {
        let (office, stop) = (office.clone(), stop.clone());
        tokio::spawn(async move {
            let lane = Lane { tenant: tenant("acme"), stream: Some(stream("main")) };
            let mut sent = 0;
            while !stop.is_cancelled() {
                let lease = office.outbox.lease(&lane, at(5)).await.unwrap().unwrap();
                if sent % 3 == 0 {
                    let progress = Progress::none(1);
                    let (until, cause, words) = (Some(at(sent % 7)), Cause::Service, String::new());
                    lease.defer(Deferral { until, cause, words, progress, unknown: 0 }, at(1)).await.unwrap();
                    office.outbox.with_index(|index| index.promote(at(10)));
                } else {
                    lease.complete().await.unwrap();
                    office.hold(Letter { start: Start::Ready, ..Letter::default() }).await;
                }
                sent += 1;
                tokio::task::yield_now().await;
            }
            sent
        })
    };
    for _ in 0..40 {
        let verified = office.verify().await;
        assert_eq!(verified.faults, []);
    }
    stop.cancel();
    assert!(traffic.await.unwrap() > 100);
}

// --- Rows made anew ----------------------------------------------------------------------------

async fn rebuild(store: &MemoryStore, spool: &MemorySpool) -> Found {
    Outbox::rebuild(store, spool, NODE, at(1)).await.unwrap()
}

#[tokio::test]
async fn a_rebuild_brings_back_every_message_with_what_became_of_its_recipients() {
    let office = Office::new().await;
    let mut ids = Vec::new();
    for n in 0..523 {
        let to = vec!["joe@x.example".into(), "ann@y.example".into()];
        let (stream, marks) = if n % 3 == 0 { (None, "..") } else { (Some("main"), "t.") };
        ids.push(office.hold(Letter { to, stream, marks, ..Letter::default() }).await);
    }
    // Later progress, which only a note in the file keeps.
    office.retry(Selection::Messages(vec![ids[1]])).await.unwrap();
    let lane = Lane { tenant: tenant("acme"), stream: Some(stream("main")) };
    let lease = office.outbox.lease(&lane, at(5)).await.unwrap().unwrap();
    let progress = Progress::parse("tr").unwrap();
    let deferral = Deferral { until: None, cause: Cause::Service, words: String::new(), progress, unknown: 0 };
    lease.defer(deferral, at(1)).await.unwrap();

    for key in office.keys().await {
        office.write(key, None).await;
    }
    let found = rebuild(&office.store, &office.spool).await;
    assert_eq!((found.held, found.adopted, found.missing.len(), found.damaged.len()), (523, 523, 0, 0));
    let office = office.again().await;
    let rows = office.list(json!({})).await.rows;
    assert_eq!(rows.iter().map(|row| row.message).collect::<Vec<_>>(), ids);
    for (n, row) in rows.iter().enumerate() {
        let expected = if n == 1 {
            (0, 1, 1)
        } else if n % 3 == 0 {
            (2, 0, 0)
        } else {
            (1, 1, 0)
        };
        assert_eq!((row.recipients.open, row.recipients.taken, row.recipients.refused), expected, "{n}");
        assert_eq!((row.stream.is_none(), row.cause.as_str(), row.unknown), (n % 3 == 0, "unknown", 1));
    }
    assert_eq!(office.verify().await.faults, []);
    assert_eq!(office.outbox.read(ids[0]).await.unwrap().1, BODY.as_bytes());
}

#[tokio::test]
async fn a_rebuild_mends_damaged_rows_and_tells_what_is_lost() {
    let office = Office::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(office.hold(Letter::default()).await);
    }
    office.write(office.key_of(ids[0]).await, Some(Bytes::from_static(b"rubbish"))).await;
    office.spool.put(ids[1], None);
    let mut octets = office.spool.octets(ids[2]).unwrap();
    octets[50] ^= 1;
    office.spool.put(ids[2], Some(octets));
    let found = rebuild(&office.store, &office.spool).await;
    assert_eq!((found.held, &found.missing[..], found.damaged.len()), (3, &ids[1..2], 1));
    assert_eq!(found.damaged[0].0, format!("file {}", ids[2]));
    let office = office.again().await;
    assert_eq!(office.listed(json!({})).await, [ids[0], ids[3], ids[4]]);
}

/// The moment between the old rows and the new ones: nothing is lost by it.
#[tokio::test]
async fn a_rebuild_that_is_cut_off_loses_nothing() {
    let mut cut = 0;
    for commits in 0.. {
        let office = Office::new().await;
        let mut ids = Vec::new();
        for _ in 0..120 {
            ids.push(office.hold(Letter::default()).await);
        }
        let dying = Dying { store: office.store.clone(), left: Mutex::new(commits) };
        let ended = Outbox::rebuild(&dying, &office.spool, NODE, at(1)).await.is_ok();
        office.store.heal();
        let office = office.again().await;
        assert_eq!(office.listed(json!({})).await, ids, "after {commits} commits");
        if ended {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 5, "{cut}");
}

/// A store whose process dies after so many commits.
struct Dying {
    store: Arc<MemoryStore>,
    left: Mutex<usize>,
}

impl Store for Dying {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        self.store.get(key)
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        self.store.scan(prefix, after, limit)
    }

    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        let mut left = self.left.lock().unwrap();
        match left.checked_sub(1) {
            Some(now) => *left = now,
            None => self.store.fail_with("the process has died"),
        }
        self.store.commit(batch)
    }
}
