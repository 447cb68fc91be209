//! Announcements on memory, with a clock that is moved by hand: who is told of what, by how many mails,
//! what a restart finds, what the webhook is offered and when.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking, its helpers too"
)]

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read as _, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use bulkhead::adapters::letter;
use bulkhead::adapters::log::{Format, Lines, Output};
use bulkhead::adapters::webhook;
use bulkhead::announce::schedule::{OFFERS, WAITS};
use bulkhead::announce::webhook::{Answer, Offer, Post, Signer};
use bulkhead::announce::{self, Announce as _, Announcement, Kind, Severity};
use bulkhead::config::load_tenants;
use bulkhead::mail::{Mailbox, MessageId, StreamId, TenantId};
use bulkhead::notify::{AGE, Bell, Means, Options, PAUSE, QUEUE, Service, Webhook};
use bulkhead::outbox::memory::MemorySpool;
use bulkhead::outbox::{Bounds, Outbox, SpoolError};
use bulkhead::secret::Random;
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, If, Key, Pending};
use bulkhead::time::{Clock, Timestamp};
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

/// 2026-05-01T09:15:02.418Z
const START: u64 = 1_777_626_902_418;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HOUR: Duration = Duration::from_secs(3600);

/// A clock that is moved by hand.
struct Hand(AtomicU64);

impl Hand {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A counter in place of randomness; no jitter.
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        bytes.fill(0);
        if bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&n.to_le_bytes());
        }
    }
}

/// A webhook that answers as it is told to, 200 by default.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    offers: Arc<Mutex<Vec<Offer>>>,
}

impl Post for Scripted {
    fn post(&self, offer: Offer) -> Pending<'_, Answer> {
        self.offers.lock().unwrap().push(offer);
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200));
        Box::pin(async move { answer })
    }
}

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

/// The lines of all tests of this process.
static LOG: LazyLock<Sink> = LazyLock::new(|| {
    let sink = Sink::default();
    let clock = Arc::new(Hand(AtomicU64::new(START)));
    let lines = Lines::new(Format::Json, Output::to(sink.clone()), clock);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines)).unwrap();
    sink
});

/// What the log says of an announcement: the events, in order.
fn told_of(id: MessageId) -> Vec<(String, String)> {
    let text = String::from_utf8(LOG.0.lock().unwrap().clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["announcement"] == id.to_string())
        .map(|line| {
            let audience = line["audience"].as_str().unwrap_or("webhook");
            (line["event"].as_str().unwrap().to_owned(), audience.to_owned())
        })
        .collect()
}

/// Ids are made apart by the whole process, so that tests find their own in the log.
static IDS: Counting = Counting(AtomicU64::new(1));

struct World {
    store: Arc<MemoryStore>,
    spool: MemorySpool,
    clock: Arc<Hand>,
    directory: Current,
    outbox: Arc<Outbox>,
    webhook: Option<Scripted>,
    options: Options,
    bell: Bell,
    service: Service,
}

/// acme and globex, each with a contact; nobody looks after initech.
fn directory() -> Current {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let tenants = ["acme", "globex", "initech"].map(|id| {
        let contact = if id == "initech" { String::new() } else { format!("contact = \"ops@{id}.example\"\n") };
        format!(
            "[[tenant]]\nid = \"{id}\"\n{contact}senders = [\"{id}.example\"]\n\
             [[tenant.stream]]\nid = \"marketing\"\nkind = \"marketing\"\nconfiguration_set = \"{id}-marketing\"\n"
        )
    });
    std::fs::write(&file, tenants.concat()).unwrap();
    let (declared, _) = load_tenants(&file).unwrap();
    let tenants = declared.tenants.into_iter().map(|declared| declared.tenant);
    Arc::new(ArcSwap::from_pointee(Directory::new(tenants, [])))
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

impl World {
    async fn new() -> Self {
        let options = Options {
            hostname: "relay.example.com".into(),
            from: Some(mailbox("postmaster@relay.example.com")),
            operator: Some(mailbox("ops@vendor.example")),
            mails_per_hour: 3,
            pending: 10_000,
        };
        let parts = (Arc::new(MemoryStore::new()), MemorySpool::new(), Arc::new(Hand(AtomicU64::new(START))));
        Self::on(parts, directory(), Some(Scripted::default()), options).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut world = Self::new().await;
        change(&mut world.options);
        world.again().await
    }

    async fn on(
        (store, spool, clock): (Arc<MemoryStore>, MemorySpool, Arc<Hand>),
        directory: Current,
        webhook: Option<Scripted>,
        options: Options,
    ) -> Self {
        LazyLock::force(&LOG);
        let bounds = Bounds { messages: 1000, messages_per_tenant: 1000, bytes_per_tenant: 1 << 30 };
        let set = bulkhead::outbox::Options { bounds, disk_reserve_bytes: 0 };
        let (outbox, _) =
            Outbox::open(store.clone(), Arc::new(spool.clone()), "n1", set, clock.now(), HOUR).await.unwrap();
        let hook = webhook.clone().map(|post| hook(Arc::new(post)));
        let (bell, service) = Service::new(
            Means {
                store: store.clone(),
                outbox: outbox.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                random: Arc::new(Counting(AtomicU64::new(clock.now().millis()))),
                compose: letter::compose,
                webhook: hook,
            },
            options.clone(),
        );
        Self { store, spool, clock, directory, outbox, webhook, options, bell, service }
    }

    /// The same store and files after a restart.
    async fn again(self) -> Self {
        let Self { store, spool, clock, directory, webhook, options, .. } = self;
        Self::on((store, spool, clock), directory, webhook, options).await
    }

    fn announcement(&self, tenant: Option<&str>, headline: &str) -> Announcement {
        let new = Announcement::new(self.clock.now(), &IDS, Kind::StreamPaused, Severity::Alarm, headline);
        let tenant = tenant.map(|tenant| TenantId::parse(tenant).unwrap());
        Announcement { stream: tenant.is_some().then(|| StreamId::parse("marketing").unwrap()), tenant, ..new }
    }

    /// Makes an announcement as the judge does: in the store, then the bell.
    async fn announce(&self, tenant: Option<&str>, headline: &str) -> MessageId {
        let announcement = self.announcement(tenant, headline);
        announce::append(&*self.store, &announcement).await.unwrap();
        self.bell.announce(&announcement);
        announcement.id
    }

    async fn turn(&mut self) -> Option<Timestamp> {
        self.service.turn().await;
        self.service.settle().await;
        self.service.turn().await
    }

    /// The mails that are held: to whom, subject, text.
    async fn mails(&self) -> Vec<(String, String, String)> {
        let ids: Vec<MessageId> = self.outbox.with_index(|index| index.after(None).map(|(id, _)| id).collect());
        let mut mails = Vec::new();
        for id in ids {
            let (manifest, octets) = self.outbox.read(id).await.unwrap();
            assert_eq!(manifest.stream, None, "the lane that no pause keeps");
            assert_eq!(manifest.reverse_path, bulkhead::mail::ReversePath::Null);
            let read = mail_parser::MessageParser::default().parse(&octets).unwrap();
            let to = read.to().unwrap().first().unwrap().address().unwrap().to_owned();
            assert_eq!(manifest.recipients, [mailbox(&to)]);
            assert_eq!(read.message_id().unwrap(), format!("{id}@relay.example.com"));
            mails.push((to, read.subject().unwrap().to_owned(), read.body_text(0).unwrap().replace("\r\n", "\n")));
        }
        mails
    }

    async fn rows(&self) -> usize {
        announce::pending(&*self.store, None, 1000).await.unwrap().len()
    }

    fn offers(&self) -> Vec<Offer> {
        self.webhook.as_ref().unwrap().offers.lock().unwrap().clone()
    }

    fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.webhook.as_ref().unwrap().answers.lock().unwrap().extend(answers);
    }
}

fn hook(post: Arc<dyn Post>) -> Webhook {
    Webhook { post, signer: Signer::parse(SECRET.as_bytes()).unwrap() }
}

#[tokio::test]
async fn contact_operator_and_webhook_are_each_told_once() {
    let mut world = World::new().await;
    let id = world.announce(Some("acme"), "Stream marketing of acme was paused").await;
    world.turn().await;
    let mut mails = world.mails().await;
    mails.sort();
    assert_eq!(
        mails.iter().map(|(to, ..)| to.as_str()).collect::<Vec<_>>(),
        ["ops@acme.example", "ops@vendor.example"]
    );
    assert!(mails.iter().all(|(_, subject, _)| subject == "Stream marketing of acme was paused"));
    assert!(mails[0].2.contains("contact of tenant acme") && mails[1].2.contains("as the operator"));
    let offers = world.offers();
    assert_eq!(offers.len(), 1);
    assert_eq!(offers[0].id, id.to_string());
    let body: Value = serde_json::from_slice(&offers[0].body).unwrap();
    assert_eq!(
        (body["type"].as_str(), body["data"]["tenant"].as_str()),
        (Some("bulkhead.stream.paused"), Some("acme"))
    );
    assert_eq!((world.rows().await, world.service.pending()), (0, 0));
    let told: BTreeSet<_> = told_of(id).into_iter().collect();
    let expected =
        [("announcement_mailed", "contact"), ("announcement_mailed", "operator"), ("webhook_delivered", "webhook")];
    assert_eq!(told, expected.map(|(event, who)| (event.to_owned(), who.to_owned())).into_iter().collect());

    // Rung for late, or again: nobody hears of it twice.
    let announcement = Announcement { id, ..world.announcement(Some("acme"), "x") };
    world.bell.announce(&announcement);
    world.turn().await;
    let mut world = world.again().await;
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.offers().len()), (2, 1));
}

#[tokio::test]
async fn nobody_hears_of_another_tenant() {
    let mut world = World::with(|options| options.mails_per_hour = 1).await;
    for n in 0..5 {
        world.announce(Some("acme"), &format!("Acme's affair {n}")).await;
        world.announce(Some("globex"), &format!("Globex's affair {n}")).await;
        world.announce(None, &format!("The account's affair {n}")).await;
        world.announce(Some("initech"), &format!("Initech's affair {n}")).await;
    }
    world.turn().await;
    let mails = world.mails().await;
    assert_eq!(mails.len(), 3);
    for (to, subject, text) in mails {
        let said = format!("{subject}\n{text}").to_lowercase();
        let hears = |word: &str| said.contains(word);
        let all = (hears("acme"), hears("globex"), hears("account"), hears("initech"));
        match to.as_str() {
            "ops@acme.example" => assert_eq!(all, (true, false, false, false), "{said}"),
            "ops@globex.example" => assert_eq!(all, (false, true, false, false), "{said}"),
            "ops@vendor.example" => assert_eq!(all, (true, true, true, true), "{said}"),
            other => panic!("{other}"),
        }
    }
    // The webhook hears of all, a few at once.
    for _ in 0..5 {
        world.turn().await;
    }
    assert_eq!((world.offers().len(), world.rows().await), (20, 0));
}

#[tokio::test]
async fn what_is_over_the_allowance_comes_in_one_mail_and_nothing_is_lost() {
    let mut world = World::with(|options| options.operator = None).await;
    world.webhook = None;
    let mut world = world.again().await;
    for n in 0..3 {
        world.announce(Some("acme"), &format!("Affair {n}")).await;
        world.turn().await;
    }
    assert_eq!(world.mails().await.len(), 3);
    for n in 3..40 {
        world.announce(Some("acme"), &format!("Affair {n}")).await;
        world.clock.pass(Duration::from_secs(1));
    }
    let next = world.turn().await.unwrap();
    assert_eq!((world.mails().await.len(), world.rows().await), (3, 37), "they wait");
    assert!(next > world.clock.now() && next.since(world.clock.now()) <= HOUR);
    world.clock.pass(HOUR);
    let before = world.mails().await.len();
    world.turn().await;
    let mails = world.mails().await;
    let (singles, rest) = (&mails[before..before + 2], &mails[before + 2]);
    assert_eq!(singles.iter().map(|mail| mail.1.as_str()).collect::<Vec<_>>(), ["Affair 3", "Affair 4"]);
    assert_eq!(rest.1, "Affair 5 (and 34 more)");
    assert!(rest.2.contains("Affair 25\n") && !rest.2.contains("Affair 26"), "{}", rest.2);
    assert!(rest.2.contains("and 14 more"), "{}", rest.2);
    assert_eq!((mails.len(), world.rows().await), (6, 0));
}

#[tokio::test]
async fn a_crash_between_commit_and_mail_loses_nothing() {
    let world = World::new().await;
    // Committed, and the process ends before the bell rings.
    let announcement = world.announcement(Some("acme"), "Paused");
    announce::append(&*world.store, &announcement).await.unwrap();
    let mut world = world.again().await;
    world.script([Answer::Status(500)]);
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.offers().len(), world.rows().await), (2, 1, 1));
    // What is done stays done, and the webhook's turn is where it was.
    let mut world = world.again().await;
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.offers().len()), (2, 1), "it is not due yet");
    world.clock.pass(WAITS[0]);
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.offers().len(), world.rows().await), (2, 2, 0));
}

#[tokio::test]
async fn more_than_the_queue_holds_is_found_in_the_store() {
    let mut world = World::with(|options| options.operator = None).await;
    // The start's own look at the store is over.
    world.turn().await;
    let many = QUEUE + 700;
    for n in 0..many {
        world.announce(Some("acme"), &format!("Affair {n}")).await;
    }
    world.turn().await;
    while world.service.pending() > 0 {
        world.turn().await;
    }
    assert_eq!(world.rows().await, 0);
    let ids: BTreeSet<String> = world.offers().into_iter().map(|offer| offer.id).collect();
    assert_eq!((ids.len(), world.offers().len()), (many, many));
    let mails = world.mails().await;
    assert_eq!(mails.last().unwrap().1, format!("Affair 2 (and {} more)", many - 3));
}

#[tokio::test]
async fn those_who_are_not_there_are_struck_off_at_once() {
    // No contact, and the operator alone; then nobody at all.
    let mut world = World::new().await;
    world.announce(Some("initech"), "Nobody's").await;
    world.turn().await;
    assert_eq!(world.mails().await.len(), 1);
    let mut world = World::with(|options| (options.from, options.operator) = (None, None)).await;
    world.webhook = None;
    let mut world = world.again().await;
    let id = world.announce(Some("acme"), "Unheard").await;
    world.turn().await;
    assert_eq!((world.rows().await, world.mails().await.len()), (0, 0));
    assert_eq!(told_of(id), []);
    // A contact who is the operator reads it once.
    let mut world = World::with(|options| options.operator = Some(mailbox("ops@acme.example"))).await;
    world.announce(Some("acme"), "Once").await;
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.rows().await), (1, 0));
    // One that goes while the news waits.
    let mut world = World::with(|options| options.operator = None).await;
    world.spool.fail_with(Some(SpoolError::Io("broken".into())));
    world.announce(Some("acme"), "Too late").await;
    world.turn().await;
    assert_eq!(world.rows().await, 1);
    world.directory.store(Arc::new(Directory::default()));
    world.clock.pass(PAUSE);
    world.turn().await;
    assert_eq!(world.rows().await, 0);
}

#[tokio::test]
async fn a_full_disk_keeps_a_mail_waiting_and_three_days_are_the_end() {
    let mut world = World::new().await;
    world.spool.fail_with(Some(SpoolError::Full("full".into())));
    let id = world.announce(Some("acme"), "Paused").await;
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.rows().await), (0, 1));
    assert_eq!(world.offers().len(), 1, "the webhook does not wait for the disk");
    world.spool.fail_with(None);
    world.clock.pass(PAUSE - Duration::from_secs(1));
    let next = world.turn().await.unwrap();
    assert_eq!(world.mails().await.len(), 0);
    assert_eq!(next, world.clock.now().plus(Duration::from_secs(1)));
    world.clock.pass(Duration::from_secs(1));
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.rows().await), (2, 0));
    assert!(told_of(id).iter().all(|(event, _)| event != "announcement_lost"));

    world.spool.fail_with(Some(SpoolError::Full("full".into())));
    let id = world.announce(Some("acme"), "Paused again").await;
    world.turn().await;
    world.clock.pass(AGE);
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.rows().await), (2, 0));
    let lost: BTreeSet<String> =
        told_of(id).into_iter().filter(|(event, _)| event == "announcement_lost").map(|(_, who)| who).collect();
    assert_eq!(lost, ["contact".to_owned(), "operator".to_owned()].into());
}

#[tokio::test]
async fn of_too_many_that_wait_the_oldest_give_way_and_the_log_says_so() {
    let mut world = World::with(|options| options.pending = 5).await;
    world.webhook = None;
    let mut world = world.again().await;
    world.spool.fail_with(Some(SpoolError::Full("full".into())));
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(world.announce(Some("acme"), &format!("Affair {n}")).await);
        world.clock.pass(Duration::from_secs(1));
    }
    world.turn().await;
    assert_eq!((world.service.pending(), world.rows().await), (5, 5));
    for (n, id) in ids.into_iter().enumerate() {
        let lost = told_of(id).iter().filter(|(event, _)| event == "announcement_lost").count();
        assert_eq!(lost, if n < 3 { 2 } else { 0 }, "contact and operator of {n}");
    }
}

#[tokio::test]
async fn a_store_that_stopped_is_asked_again() {
    let mut world = World::new().await;
    world.turn().await;
    let announcement = world.announcement(Some("acme"), "Paused");
    announce::append(&*world.store, &announcement).await.unwrap();
    world.store.fail_with("gone");
    world.bell.announce(&announcement);
    world.turn().await;
    world.store.heal();
    world.turn().await;
    assert_eq!(world.mails().await.len(), 0);
    world.clock.pass(PAUSE);
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.rows().await), (2, 0));
}

#[tokio::test]
async fn a_damaged_row_is_told_of_once_and_keeps_nobody_waiting() {
    let world = World::new().await;
    let damaged = world.announcement(Some("acme"), "Damaged");
    let mut batch = Batch::new();
    batch.put(Key::announcement(damaged.id), If::Any, bytes::Bytes::from_static(b"rubbish"));
    bulkhead::store::Store::commit(&*world.store, batch).await.unwrap();
    world.announce(Some("acme"), "Whole").await;
    let mut world = world.again().await;
    world.turn().await;
    assert_eq!((world.mails().await.len(), world.rows().await), (2, 1));
    let text = String::from_utf8(LOG.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches(&format!("announce/{}", damaged.id)).count(), 2, "its key, in two fields of one line");
}

#[tokio::test]
async fn a_webhook_that_fails_is_offered_again_by_the_schedule_and_given_up() {
    let mut world = World::with(|options| options.from = None).await;
    let began = world.clock.now();
    world.script((0..OFFERS).map(|_| Answer::Status(500)));
    let id = world.announce(Some("acme"), "Paused").await;
    let mut moments = Vec::new();
    loop {
        let seen = world.offers().len();
        let next = world.turn().await;
        if world.offers().len() > seen {
            moments.push(world.clock.now().since(began).as_secs());
        }
        let Some(next) = next else { break };
        world.clock.pass(next.since(world.clock.now()));
        // Restarts in between change nothing.
        world = world.again().await;
    }
    assert_eq!(moments, [0, 5, 305, 2105, 9305, 27_305, 63_305, 113_705]);
    assert_eq!(world.rows().await, 0);
    let told = told_of(id);
    assert_eq!(told.iter().filter(|(event, _)| event == "webhook_failed").count(), 7);
    assert_eq!(told.last().unwrap(), &("announcement_lost".to_owned(), "webhook".to_owned()));
    let ids: BTreeSet<String> = world.offers().into_iter().map(|offer| offer.id).collect();
    assert_eq!(ids.len(), 1, "the id stays the same");
    let signatures: BTreeSet<String> = world.offers().into_iter().map(|offer| offer.signature).collect();
    assert_eq!(signatures.len(), 8, "each offer is signed for its own moment");
}

#[tokio::test]
async fn a_webhook_that_says_gone_is_left_alone_until_a_restart() {
    let mut world = World::with(|options| options.operator = None).await;
    world.script([Answer::Status(410)]);
    let first = world.announce(Some("acme"), "First").await;
    world.turn().await;
    world.announce(Some("acme"), "Second").await;
    world.turn().await;
    assert_eq!((world.offers().len(), world.rows().await, world.mails().await.len()), (1, 0, 2));
    assert!(told_of(first).contains(&("webhook_disabled".to_owned(), "webhook".to_owned())));
    let mut world = world.again().await;
    world.announce(Some("acme"), "Third").await;
    world.turn().await;
    assert_eq!(world.offers().len(), 2);
}

/// Over a real connection to a real server, in the real service: the signature is verified by the
/// specification, the secret shows nowhere.
#[tokio::test]
async fn a_receiver_can_verify_what_it_gets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        ["500 Oh", "204 Fine"].map(|status| {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut read, mut room) = (Vec::new(), [0; 4096]);
            loop {
                read.extend_from_slice({
                    let n = stream.read(&mut room).unwrap();
                    &room[..n]
                });
                let text = String::from_utf8(read.clone()).unwrap();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let field = |name: &str| {
                    let of = |line: &str| {
                        let (field, value) = line.split_once(": ")?;
                        field.eq_ignore_ascii_case(name).then(|| value.to_owned())
                    };
                    head.lines().find_map(of).unwrap()
                };
                if body.len() == field("content-length").parse::<usize>().unwrap() {
                    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
                    let fields = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(field);
                    return (fields, body.to_owned());
                }
            }
        })
    });
    let world = World::new().await;
    let options = webhook::Options { url, time: Duration::from_secs(10), private: true };
    let post = Arc::new(webhook::Webhook::new(&options).unwrap());
    let (bell, mut service) = Service::new(
        Means {
            store: world.store.clone(),
            outbox: world.outbox.clone(),
            directory: world.directory.clone(),
            clock: world.clock.clone(),
            random: Arc::new(Counting(AtomicU64::new(1))),
            compose: letter::compose,
            webhook: Some(hook(post)),
        },
        Options { from: None, ..world.options.clone() },
    );
    let announcement = world.announcement(Some("acme"), "Paused");
    announce::append(&*world.store, &announcement).await.unwrap();
    bell.announce(&announcement);
    service.turn().await;
    service.settle().await;
    assert_eq!(world.rows().await, 1, "500 is no success");
    world.clock.pass(WAITS[0]);
    service.turn().await;
    service.settle().await;
    assert_eq!(world.rows().await, 0);
    let seen = server.join().unwrap();
    assert_eq!((seen[0].0[0].as_str(), seen[0].1.as_str()), (seen[1].0[0].as_str(), seen[1].1.as_str()));
    for ([id, timestamp, signature], body) in &seen {
        assert_eq!(*signature, format!("v1,{}", independent_hmac(&format!("{id}.{timestamp}.{body}"))));
        assert_eq!(*id, announcement.id.to_string());
    }
    assert_eq!(seen[1].0[1].parse::<u64>().unwrap() - seen[0].0[1].parse::<u64>().unwrap(), 5);
    let log = String::from_utf8(LOG.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("webhook_failed") && log.contains("webhook_delivered"));
    assert!(!log.contains("MfKQ9r8G") && !log.contains("/hook"), "{log}");
}

/// HMAC-SHA256 by RFC 2104, from the hash alone.
fn independent_hmac(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let engine = base64::engine::general_purpose::STANDARD;
    let mut key = engine.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    assert_eq!(key.len(), 24);
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(|octet| octet ^ with).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    engine.encode(Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}
