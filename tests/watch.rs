//! The watch: what the relay tells of by itself, with a real relay in front of it where mail is sent,
//! in simulated time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/relay.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::MachineRandom;
use bulkhead::admin::{CommandError, Desk, Request, Response, perform};
use bulkhead::announce::{Announce, Announcement, Kind};
use bulkhead::ingest::Applier;
use bulkhead::mail::{Login, Mailbox, StreamId, TenantId, Username};
use bulkhead::policy::tenant::Cohort;
use bulkhead::policy::volume;
use bulkhead::store::counters::{self, Counts, Row};
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tenants::{Declared, DeclaredTenant, load};
use bulkhead::store::{Batch, If, Key, Pending, Store, habits, record};
use bulkhead::time::{Clock, Hour, Timestamp};
use bulkhead::watch::{self, Credentials, Effect, Holding, Means, Options, Volumes, Watch};
use support::{Client, SECRET, Stand, code, journal, limits};
use tokio_util::sync::CancellationToken;

/// 10:00 of a day.
const START: Timestamp = Timestamp::from_millis((20_700 * 24 + 10) * 3_600_000);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Where the credential is at home, and where it never was.
const HOME: &str = "192.0.2.71";
const AWAY: &str = "198.51.100.71";

#[derive(Debug)]
struct Ours(Mutex<Timestamp>);

impl Ours {
    fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = now;
    }
}

impl Clock for Ours {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Who is told, and what.
#[derive(Default)]
struct Heard(Mutex<Vec<Announcement>>);

impl Announce for Heard {
    fn announce(&self, announcement: &Announcement) {
        self.0.lock().unwrap().push(announcement.clone());
    }
}

impl Heard {
    fn kinds(&self) -> Vec<Kind> {
        self.0.lock().unwrap().iter().map(|one| one.kind).collect()
    }
}

/// Puts on hold as the house does.
struct ByDesk(Arc<Desk>);

impl Holding for ByDesk {
    fn hold<'a>(&'a self, credential: &'a Username, reason: &'a str) -> Pending<'a, Result<(), String>> {
        let request = Request::CredentialHold { username: credential.clone(), reason: reason.into() };
        Box::pin(async move { perform(&self.0, request, "bulkhead").await.map(drop).map_err(|e| e.to_string()) })
    }
}

fn means(store: Arc<dyn Store>, directory: &Current, clock: &Arc<Ours>, heard: &Arc<Heard>) -> (Means, Arc<Desk>) {
    let (clock, random) = (Arc::clone(clock), Arc::new(MachineRandom));
    let applier = Applier::new(store.clone(), directory.clone(), clock.clone(), "n1".into());
    let desk = Desk::new(store.clone(), directory.clone(), clock.clone(), random.clone(), applier, None);
    desk.announce_by(Arc::clone(heard) as _);
    let desk = Arc::new(desk);
    let means = Means {
        store,
        directory: directory.clone(),
        clock,
        random,
        announce: Arc::clone(heard) as _,
        holding: Arc::new(ByDesk(Arc::clone(&desk))),
    };
    (means, desk)
}

struct Scene {
    stand: Stand,
    clock: Arc<Ours>,
    desk: Arc<Desk>,
    means: Means,
    credentials: Credentials,
    heard: Arc<Heard>,
    options: Options,
}

impl Scene {
    /// A relay whose tenant is in the store.
    async fn with(effect: Effect) -> Self {
        let (clock, heard) = (Arc::new(Ours(Mutex::new(START))), Arc::new(Heard::default()));
        let options = Options { stolen: Some(effect), ..Options::default() };
        let mut built = None;
        let stand = Stand::watched(limits(), Arc::clone(&clock) as _, |store, directory| {
            let (means, desk) = means(Arc::clone(store) as _, directory, &clock, &heard);
            let (watch, credentials) = watch::credentials(means.clone(), options.clone());
            built = Some((means, desk, credentials));
            watch
        })
        .await;
        let (means, desk, credentials) = built.unwrap();
        // The stand's directory came from no store.
        stand.directory.store(Arc::default());
        let declared = DeclaredTenant { tenant: stand.tenant.clone(), credentials: stand.credentials.clone() };
        let declared = Declared { tenants: vec![declared] };
        let request = Request::Apply { declared, source: "test".into(), dry_run: false, prune: false };
        perform(&desk, request, "test").await.unwrap();
        Self { stand, clock, desk, means, credentials, heard, options }
    }

    async fn client(&self, which: &str, from: &str) -> Client {
        let mut client = Client::connect(self.stand.proxied).await;
        client.write(format!("PROXY TCP4 {from} 10.0.0.1 12345 587\r\n").as_bytes()).await;
        assert_eq!(code(&client.reply().await), 220);
        assert_eq!(code(&client.login(&self.stand.username(which), SECRET).await), 235);
        client
    }

    /// One message to the readers `from..to`; what was said to MAIL, or else to the data.
    async fn send(&mut self, which: &str, peer: &str, name: &str, readers: std::ops::Range<usize>) -> String {
        let mut client = self.client(which, peer).await;
        let sender = self.stand.sender();
        let said = client.say(&format!("MAIL FROM:<{sender}>")).await;
        if code(&said) != 250 {
            return said;
        }
        assert_eq!(code(&client.say("RSET").await), 250);
        let to: Vec<String> = readers.map(|n| format!("{name}-{n}@customer.example")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let said = client.send(&sender, &to, &self.stand.message("")).await;
        self.credentials.look_at_all().await;
        said
    }

    /// Eight days on each of which 20 readers have mail at ten o'clock; then it is ten o'clock again.
    async fn usual_days(&mut self) {
        for day in 0..8 {
            self.clock.set(START.plus(DAY * day));
            assert_eq!(code(&self.send("app", HOME, "reader", 0..20).await), 250);
        }
        self.clock.set(START.plus(DAY * 8));
    }

    /// 300 recipients in three messages.
    async fn flood(&mut self, peer: &str, name: &str) -> Vec<u16> {
        let mut codes = Vec::new();
        for n in 0..3 {
            codes.push(code(&self.send("app", peer, name, n * 100..(n + 1) * 100).await));
        }
        codes
    }

    fn suspicions(&self) -> Vec<serde_json::Value> {
        journal().lines("credential_suspected", "tenant", &self.stand.name)
    }

    fn username(&self) -> Username {
        Username::parse(&self.stand.username("app")).unwrap()
    }
}

#[tokio::test]
async fn a_credential_that_seems_stolen_is_told_of_once() {
    let mut scene = Scene::with(Effect::Alert).await;
    scene.usual_days().await;
    // What is held is accepted as well: SES takes none of these now.
    assert_eq!(scene.flood(AWAY, "throttled").await, [250, 250, 250]);
    let told = scene.suspicions();
    assert_eq!(told.len(), 1, "{told:?}");
    let line = &told[0];
    assert_eq!(line["credential"], scene.stand.username("app"));
    assert_eq!((line["effect"].as_str(), line["level"].as_str()), (Some("alert"), None));
    // The second message made it: the first was no jump yet.
    assert_eq!((&line["recipient_count"], &line["first_time"]), (&200.into(), &200.into()));
    assert_eq!((&line["from_new"], &line["networks"][0]), (&200.into(), &"198.51.100.0/24".into()));
    assert_eq!((&line["mean"], &line["usual_first_time"]), (&20.into(), &0.into()));
    assert_eq!(scene.heard.kinds(), [Kind::CredentialSuspected]);
    let rows = scene.stand.store.scan(&Key::announcements(), None, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    let announcement = scene.heard.0.lock().unwrap()[0].clone();
    assert_eq!(announcement.credential, Some(scene.username()));
    assert!(announcement.figures.iter().any(|(_, value)| value == "100 % (200 of 200)"), "{announcement:?}");
    // Nothing is held, and later the same day nothing is told again.
    scene.clock.set(START.plus(DAY * 8 + HOUR * 2));
    assert_eq!(scene.flood(AWAY, "other").await, [250, 250, 250]);
    assert_eq!((scene.suspicions().len(), scene.heard.kinds().len()), (1, 1));
    // Nor after a restart, which reads back that it was.
    let (watch, mut again) = watch::credentials(scene.means.clone(), scene.options.clone());
    let login = login(&scene.stand.name, &scene.stand.username("app"));
    watch.accepted(&login, AWAY.parse().unwrap(), &readers("third", 0..300), scene.clock.now());
    again.look_at_all().await;
    assert_eq!(scene.suspicions().len(), 1);
}

#[tokio::test]
async fn a_stolen_credential_is_put_on_hold_and_the_tenants_other_goes_on() {
    let mut scene = Scene::with(Effect::Hold).await;
    scene.usual_days().await;
    assert_eq!(scene.flood(AWAY, "victim").await, [250, 250, 451]);
    let told = scene.suspicions();
    assert_eq!((told.len(), &told[0]["effect"]), (1, &"hold".into()));
    assert_eq!(scene.heard.kinds(), [Kind::CredentialHeld]);
    // Its clients log in and hear why; from everywhere.
    let username = scene.stand.username("app");
    let said = scene.send("app", HOME, "reader", 0..1).await;
    assert!(said.starts_with(&format!("451 4.7.1 credential {username} is on hold since 2026-09-12T10:00")), "{said}");
    assert!(said.contains("it seems stolen: 200 of 200 recipients") && said.contains("ask your operator"), "{said}");
    let line = journal().lines("sender_refused", "tenant", &scene.stand.name).pop().unwrap();
    assert_eq!((&line["code"], &line["blame"]), (&451.into(), &"client".into()));
    assert_eq!(code(&scene.send("bound", HOME, "reader", 0..1).await), 250);
    // An open session hears it at its next MAIL; in a transaction that has begun, at its next RCPT.
    // The list shows it.
    let list = Request::CredentialList { tenant: None, after: None };
    let Response::Credentials(all) = perform(&scene.desk, list, "test").await.unwrap() else { panic!() };
    let held: Vec<&str> = all.iter().filter(|one| one.hold.is_some()).map(|one| one.username.as_str()).collect();
    assert_eq!(held, [username.as_str()]);

    // A restart keeps it.
    let directory = load(&*scene.stand.store).await.unwrap();
    assert_eq!(directory.hold(&scene.username()).unwrap().actor, "bulkhead");
    assert_eq!(directory.held_credentials(), 1);
    // A new secret does not end it, and says so.
    let rotate =
        Request::CredentialRotate { username: scene.username(), overlap_seconds: 3_600, reason: String::new() };
    let Response::Issued(issued) = perform(&scene.desk, rotate, "test").await.unwrap() else { panic!() };
    assert!(issued.warning.unwrap().contains("is on hold, and a new secret does not change that"));
    assert!(scene.desk.directory.load().hold(&scene.username()).is_some());

    // A release does, for what goes on as well: for a day it is not held again.
    let release = || Request::CredentialRelease { username: scene.username(), reason: "it was us".into() };
    let Response::Credential(view) = perform(&scene.desk, release(), "cli:root").await.unwrap() else { panic!() };
    assert!(view.hold.is_none());
    let refused = perform(&scene.desk, release(), "cli:root").await.unwrap_err();
    assert!(matches!(refused, CommandError::CredentialNotHeld { .. }), "{refused}");
    assert_eq!(scene.flood(AWAY, "victim").await, [250, 250, 250]);
    assert_eq!(scene.flood(AWAY, "another").await, [250, 250, 250]);
    assert_eq!(scene.suspicions().len(), 1);
    let hold = load(&*scene.stand.store).await.unwrap().last_hold(&scene.username()).cloned().unwrap();
    assert!(hold.standing().is_none());
    assert_eq!(hold.released.unwrap().reason, "it was us");

    // Whoever was told of the hold is told of its end, once.
    assert_eq!(scene.heard.kinds(), [Kind::CredentialHeld, Kind::CredentialReleased]);
    let free = scene.heard.0.lock().unwrap()[1].clone();
    assert_eq!((&free.credential, &free.tenant), (&Some(scene.username()), &Some(scene.stand.tenant.id.clone())));
    assert!(free.figures.contains(&("released by".into(), "cli:root".into())), "{free:?}");
    let rows = scene.stand.store.scan(&Key::announcements(), None, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_hold_by_hand_and_its_end_are_no_news() {
    let scene = Scene::with(Effect::Hold).await;
    let hold = Request::CredentialHold { username: scene.username(), reason: "a rumour".into() };
    perform(&scene.desk, hold, "cli:root").await.unwrap();
    let release = Request::CredentialRelease { username: scene.username(), reason: "it was none".into() };
    perform(&scene.desk, release, "cli:root").await.unwrap();
    assert_eq!(scene.stand.store.scan(&Key::announcements(), None, 10).await.unwrap(), []);
    assert!(scene.heard.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_hold_is_heard_within_a_session_and_a_revoked_name_begins_anew() {
    let scene = Scene::with(Effect::Alert).await;
    let mut client = scene.client("app", HOME).await;
    let sender = scene.stand.sender();
    assert_eq!(code(&client.say(&format!("MAIL FROM:<{sender}>")).await), 250);
    let hold = Request::CredentialHold { username: scene.username(), reason: "asked for".into() };
    perform(&scene.desk, hold, "cli:root").await.unwrap();
    assert!(client.say("RCPT TO:<a@b.example>").await.starts_with("451 4.7.1 credential "));
    assert_eq!(code(&client.say("RSET").await), 250);
    assert!(client.say(&format!("MAIL FROM:<{sender}>")).await.contains("asked for; ask your operator"));
    // Who revokes a credential and issues one of its name has another.
    let revoke = Request::CredentialRevoke { username: scene.username(), reason: String::new() };
    let Response::Revoked(revoked) = perform(&scene.desk, revoke, "cli:root").await.unwrap() else { panic!() };
    assert!(revoked.credential.hold.is_some());
    let issue = Request::CredentialIssue {
        tenant: scene.stand.tenant.id.clone(),
        username: Some(scene.username()),
        stream: None,
        expires: None,
        from_ip: Vec::new(),
        reason: String::new(),
    };
    perform(&scene.desk, issue, "cli:root").await.unwrap();
    assert!(scene.desk.directory.load().hold(&scene.username()).is_none());
    assert!(load(&*scene.stand.store).await.unwrap().last_hold(&scene.username()).is_none());
}

#[tokio::test]
async fn a_damaged_hold_is_a_hold_until_it_is_released() {
    let scene = Scene::with(Effect::Alert).await;
    let mut batch = Batch::new();
    batch.put(Key::credential_hold(&scene.username()), If::Any, bytes::Bytes::from_static(b"rubbish"));
    scene.stand.store.commit(batch).await.unwrap();
    let directory = load(&*scene.stand.store).await.unwrap();
    assert!(directory.hold(&scene.username()).unwrap().reason.contains("damaged"));
    scene.stand.directory.store(Arc::new(directory));
    let release = Request::CredentialRelease { username: scene.username(), reason: String::new() };
    perform(&scene.desk, release, "cli:root").await.unwrap();
    let directory = load(&*scene.stand.store).await.unwrap();
    assert!(directory.hold(&scene.username()).is_none() && directory.faults().is_empty());
}

#[tokio::test]
async fn each_signal_alone_and_each_two_do_nothing() {
    let mut scene = Scene::with(Effect::Hold).await;
    scene.usual_days().await;
    let ten = START.plus(DAY * 8);
    // New readers from home, as a campaign has them: volume too.
    assert_eq!(scene.flood(HOME, "campaign").await, [250, 250, 250]);
    // From elsewhere to known readers, as after a move: with a jump of the volume, an hour later.
    scene.clock.set(ten.plus(HOUR));
    assert_eq!(scene.flood(AWAY, "campaign").await, [250, 250, 250]);
    // From elsewhere to new readers, and not many.
    scene.clock.set(ten.plus(HOUR * 2));
    assert_eq!(code(&scene.send("app", AWAY, "few", 0..90).await), 250);
    // A credential without a past.
    scene.clock.set(ten.plus(HOUR * 3));
    for n in 0..3 {
        assert_eq!(code(&scene.send("bound", AWAY, "stranger", n * 100..(n + 1) * 100).await), 250);
    }
    assert!(scene.suspicions().is_empty() && scene.heard.kinds().is_empty());
    assert_eq!(scene.desk.directory.load().held_credentials(), 0);
}

#[tokio::test]
async fn what_was_usual_before_a_restart_is_so_after_it() {
    let mut scene = Scene::with(Effect::Alert).await;
    scene.usual_days().await;
    // The drain writes; nothing had been written before.
    let names = || habits::names(&*scene.means.store, None, 10);
    assert!(names().await.unwrap().0.is_empty());
    let drain = CancellationToken::new();
    drain.cancel();
    let (watch, mut again) = watch::credentials(scene.means.clone(), scene.options.clone());
    scene.credentials.run(drain).await;
    assert_eq!(names().await.unwrap().0.len(), 1);
    let login = login(&scene.stand.name, &scene.stand.username("app"));
    let now = scene.clock.now();
    watch.accepted(&login, HOME.parse().unwrap(), &readers("reader", 0..20), now);
    watch.accepted(&login, AWAY.parse().unwrap(), &readers("victim", 0..200), now);
    again.look_at_all().await;
    let told = journal().lines("credential_suspected", "tenant", &scene.stand.name);
    assert_eq!(told.len(), 1);
    // Those of before are known.
    assert_eq!((&told[0]["first_time"], &told[0]["recipient_count"]), (&200.into(), &220.into()));
}

// ---------------------------------------------------------------------------------------------
// Without a relay

fn login(tenant: &str, username: &str) -> Login {
    Login {
        tenant: TenantId::parse(tenant).unwrap(),
        credential: Username::parse(username).unwrap(),
        stream: None,
        secret_fingerprint: 1,
    }
}

fn readers(name: &str, numbers: std::ops::Range<usize>) -> Vec<Mailbox> {
    numbers.map(|n| Mailbox::parse(format!("{name}-{n}@customer.example").as_bytes()).unwrap()).collect()
}

struct Bare {
    store: Arc<MemoryStore>,
    directory: Current,
    clock: Arc<Ours>,
    heard: Arc<Heard>,
    means: Means,
}

fn bare() -> Bare {
    let store = Arc::new(MemoryStore::new());
    let directory: Current = Arc::new(ArcSwap::from_pointee(Directory::default()));
    let (clock, heard) = (Arc::new(Ours(Mutex::new(START))), Arc::new(Heard::default()));
    let (means, _) = means(store.clone(), &directory, &clock, &heard);
    Bare { store, directory, clock, heard, means }
}

fn send(watch: &Watch, username: &str, to: std::ops::Range<usize>) {
    watch.accepted(&login("acme", username), HOME.parse().unwrap(), &readers("reader", to), START);
}

#[tokio::test]
async fn no_more_credentials_are_in_memory_than_may_be() {
    let bare = bare();
    let options = Options { credentials: 8, ..Options::default() };
    let (watch, mut credentials) = watch::credentials(bare.means.clone(), options);
    for n in 0..40 {
        send(&watch, &format!("acme-{n}"), 0..5);
        credentials.look_at_all().await;
        assert!(credentials.kept().0 <= 8);
    }
    assert!(credentials.kept().0 >= 7);
    // What was taken out is written, and goes on where it was.
    let first = Username::parse("acme-0").unwrap();
    let memory = Options::default().memory;
    assert_eq!(habits::read(&*bare.store, &first).await.unwrap().unwrap().hour(memory).first_time, Some(5));
    send(&watch, "acme-0", 0..7);
    credentials.look_at_all().await;
    credentials.flush().await;
    let hour = habits::read(&*bare.store, &first).await.unwrap().unwrap().hour(memory);
    assert_eq!((hour.recipients, hour.first_time), (12, Some(7)));
    assert_eq!(habits::names(&*bare.store, None, 100).await.unwrap().0.len(), 40);
}

#[tokio::test]
async fn no_more_octets_are_in_memory_than_may_be() {
    let bare = bare();
    let most = 1_048_576;
    let options = Options { octets: most, ..Options::default() };
    let (watch, mut credentials) = watch::credentials(bare.means.clone(), options);
    let mut largest = 0;
    for n in 0..60 {
        send(&watch, &format!("acme-{n}"), 0..10_000);
        credentials.look_at_all().await;
        largest = largest.max(credentials.kept().1);
    }
    assert!(largest <= most && largest > most / 2, "{largest}");
    assert!(credentials.kept().0 < 60);
}

#[tokio::test]
async fn no_more_recipients_wait_than_may() {
    let bare = bare();
    let options = Options { waiting: 100, ..Options::default() };
    let (watch, mut credentials) = watch::credentials(bare.means.clone(), options);
    send(&watch, "acme-a", 0..100);
    send(&watch, "acme-b", 0..1);
    credentials.look_at_all().await;
    assert_eq!(credentials.kept().0, 1);
    // There is room again.
    send(&watch, "acme-b", 0..1);
    credentials.look_at_all().await;
    assert_eq!(credentials.kept().0, 2);
    // Off is off.
    let (watch, mut credentials) = watch::credentials(bare.means, Options { stolen: None, ..Options::default() });
    send(&watch, "acme-a", 0..100);
    credentials.look_at_all().await;
    assert_eq!(credentials.kept().0, 0);
}

#[tokio::test]
async fn without_a_store_nothing_is_watched_and_nothing_overwritten() {
    let bare = bare();
    let (watch, mut credentials) = watch::credentials(bare.means.clone(), Options::default());
    send(&watch, "acme-a", 0..10);
    credentials.look_at_all().await;
    credentials.flush().await;
    let (watch, mut again) = watch::credentials(bare.means.clone(), Options::default());
    bare.store.fail_with("scripted");
    send(&watch, "acme-a", 0..20);
    again.look_at_all().await;
    assert_eq!(again.kept().0, 0);
    again.flush().await;
    bare.store.heal();
    send(&watch, "acme-a", 0..20);
    again.look_at_all().await;
    again.flush().await;
    let name = Username::parse("acme-a").unwrap();
    let hour = habits::read(&*bare.store, &name).await.unwrap().unwrap().hour(Options::default().memory);
    assert_eq!((hour.recipients, hour.first_time), (30, Some(20)));
    // What cannot be written is written later.
    bare.store.fail_with("scripted");
    send(&watch, "acme-a", 20..25);
    again.look_at_all().await;
    again.flush().await;
    bare.store.heal();
    again.flush().await;
    let hour = habits::read(&*bare.store, &name).await.unwrap().unwrap().hour(Options::default().memory);
    assert_eq!((hour.recipients, hour.first_time), (35, Some(25)));
    // Damage is a new beginning.
    let mut batch = Batch::new();
    batch.put(Key::habit(&name), If::Any, bytes::Bytes::from_static(b"rubbish"));
    bare.store.commit(batch).await.unwrap();
    let (watch, mut third) = watch::credentials(bare.means, Options::default());
    send(&watch, "acme-a", 0..3);
    third.look_at_all().await;
    third.flush().await;
    let hour = habits::read(&*bare.store, &name).await.unwrap().unwrap().hour(Options::default().memory);
    assert_eq!((hour.recipients, hour.first_time), (3, Some(3)));
}

#[tokio::test]
async fn habits_of_credentials_that_are_gone_are_removed() {
    let bare = bare();
    let (watch, mut credentials) = watch::credentials(bare.means, Options::default());
    let there = support::credential("acme", "there", None, vec![support::hash(SECRET)]);
    bare.directory.store(Arc::new(Directory::new([support::tenant("acme")], [there])));
    for n in 0..250 {
        send(&watch, &format!("acme-{n}"), 0..2);
    }
    send(&watch, "acme-there", 0..2);
    credentials.look_at_all().await;
    credentials.flush().await;
    assert_eq!(credentials.forget_gone().await.unwrap(), 250);
    assert_eq!(credentials.kept().0, 1);
    let left = bare.store.scan(&Key::all(), None, 1_000).await.unwrap();
    let kinds: Vec<String> = left.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(kinds, ["habit/acme-there", "habitfilter/acme-there/00"]);
}

// ---------------------------------------------------------------------------------------------
// Volumes

impl Bare {
    async fn count(&self, tenant: &str, stream: &str, hour: Hour, accepted: u64) {
        let (tenant, stream) = (TenantId::parse(tenant).unwrap(), StreamId::parse(stream).unwrap());
        let mut batch = Batch::new();
        let counts = Counts { accepted, ..Counts::default() };
        counters::write(&mut batch, &Row { tenant, stream, cohort: Cohort::of(hour) }, "n1", If::Any, &counts);
        self.store.commit(batch).await.unwrap();
    }

    fn volumes(&self) -> Volumes {
        Volumes::new(self.means.clone(), volume::Rules::default())
    }
}

#[tokio::test]
async fn an_unusual_volume_is_told_of_once_a_tenant_and_hour() {
    let bare = bare();
    let mut paused = support::tenant("volpaused");
    paused.pause = Some(bulkhead::policy::tenant::Pause { at: START, actor: "x".into(), reason: "y".into() });
    let names = ["volrose", "volfell", "volusual", "volnew"];
    let tenants = names.iter().map(|name| support::tenant(name)).chain([paused]);
    bare.directory.store(Arc::new(Directory::new(tenants, [])));
    let ten = START.hour();
    for day in 1..=7 {
        let hour = Hour(ten.0 - 24 * day);
        for name in ["volrose", "volfell", "volusual", "volpaused"] {
            // The sum of the streams is what counts.
            bare.count(name, "transactional", hour, 40).await;
            bare.count(name, "marketing", hour, 60).await;
        }
        // Two days are no past; and other hours are others.
        if day <= 2 {
            bare.count("volnew", "marketing", hour, 100).await;
        }
        bare.count("volusual", "marketing", Hour(hour.0 + 1), 100_000).await;
    }
    bare.count("volrose", "marketing", ten, 301).await;
    bare.count("volfell", "transactional", ten, 33).await;
    bare.count("volusual", "marketing", ten, 300).await;
    bare.count("volnew", "marketing", ten, 9_000).await;

    let volumes = bare.volumes();
    // Not before the hour is over and its counts are written.
    bare.clock.set(START.plus(HOUR));
    assert_eq!(volumes.look().await.unwrap(), 0);
    bare.clock.set(START.plus(HOUR + Duration::from_secs(61)));
    assert_eq!(volumes.look().await.unwrap(), 2);
    let told = |kind: &str| {
        let lines = journal().lines("volume_unusual", "kind", kind);
        lines.into_iter().filter(|line| line["tenant"].as_str().unwrap().starts_with("vol")).collect::<Vec<_>>()
    };
    let (rose, fell) = (told("rose"), told("fell"));
    assert_eq!((rose.len(), fell.len()), (1, 1), "{rose:?} {fell:?}");
    assert_eq!((&rose[0]["tenant"], &rose[0]["recipient_count"]), (&"volrose".into(), &301.into()));
    assert_eq!((&fell[0]["tenant"], &fell[0]["recipient_count"]), (&"volfell".into(), &33.into()));
    assert_eq!((&rose[0]["mean"], &rose[0]["hour"]), (&100.into(), &START.rfc3339().into()));
    assert_eq!(bare.heard.kinds(), [Kind::VolumeUnusual; 2]);
    // Not again, neither here nor after a restart.
    assert_eq!(volumes.look().await.unwrap(), 0);
    assert_eq!(bare.volumes().look().await.unwrap(), 0);
    let rows = bare.store.scan(&Key::announcements(), None, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    // An hour in which the store fails is looked at when it answers; others that passed are not.
    bare.clock.set(START.plus(DAY + HOUR * 2));
    bare.store.fail_with("scripted");
    assert!(volumes.look().await.is_err());
    bare.store.heal();
    bare.clock.set(START.plus(DAY + HOUR + Duration::from_secs(90)));
    // At ten of the next day nobody sent anything: four have a mean that they fell under, the newest
    // among them, which has its third day now.
    assert_eq!(volumes.look().await.unwrap(), 4);
    assert_eq!(bare.heard.kinds().len(), 6);
}

#[tokio::test]
async fn a_damaged_count_leaves_its_tenant_out_and_a_damaged_mark_is_written_anew() {
    let bare = bare();
    bare.directory.store(Arc::new(Directory::new([support::tenant("cnta"), support::tenant("cntb")], [])));
    let ten = START.hour();
    for day in 1..=3 {
        for name in ["cnta", "cntb"] {
            bare.count(name, "marketing", Hour(ten.0 - 24 * day), 100).await;
        }
    }
    let row = Row {
        tenant: TenantId::parse("cnta").unwrap(),
        stream: StreamId::parse("marketing").unwrap(),
        cohort: Cohort::of(ten),
    };
    let mut batch = Batch::new();
    batch.put(row.key("n1"), If::Any, bytes::Bytes::from_static(b"rubbish"));
    batch.put(Key::meta("volumes_judged"), If::Any, bytes::Bytes::from_static(b"rubbish"));
    bare.store.commit(batch).await.unwrap();
    bare.clock.set(START.plus(HOUR + Duration::from_secs(70)));
    assert_eq!(bare.volumes().look().await.unwrap(), 1);
    assert_eq!(bare.heard.0.lock().unwrap()[0].tenant, Some(TenantId::parse("cntb").unwrap()));
    let key = Key::meta("volumes_judged");
    let mark = bare.store.get(&key).await.unwrap().unwrap();
    assert_eq!(record::open::<Hour>(&key, &mark.value).unwrap(), ten);
    // Off is off.
    let off = Volumes::new(bare.means.clone(), volume::Rules { times: 0.0, least: 50 });
    tokio::time::timeout(Duration::from_secs(30), off.run(CancellationToken::new())).await.unwrap();
}
