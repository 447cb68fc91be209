//! Commands on a store in memory: what they answer, what they leave in the store and in the log.

// In the helpers of the tests, which clippy's leave for tests does not reach.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::log::{Format, Lines, Output};
use bulkhead::admin::view::{SuppressionView, Unsuppressed};
use bulkhead::admin::{CommandError, Desk, Metrics, Request, Response, perform};
use bulkhead::config::load_tenants;
use bulkhead::ingest::Applier;
use bulkhead::mail::{Mailbox, StreamId, TenantId, Username};
use bulkhead::policy::tenant::Limits;
use bulkhead::policy::tenant::SuppressionReason::{self, Bounce, Complaint, Manual};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tenants::{Declared, load};
use bulkhead::store::{Batch, If, Key, Store};
use tokio::sync::RwLock;
use tracing_subscriber::layer::SubscriberExt as _;

/// A hash in a tenants file; whose secret it is does not matter here.
const HASH: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const ACTOR: &str = "cli:test";

/// The gauge of damaged records is the process's: one test looks at it, the others set it.
static GAUGE: RwLock<()> = RwLock::const_new(());

struct Office {
    store: Arc<MemoryStore>,
    desk: Desk,
}

impl Office {
    /// A desk on what `store` holds, as after a start.
    async fn on(store: Arc<MemoryStore>) -> Self {
        let (clock, random) = (Arc::new(MachineClock), Arc::new(MachineRandom));
        let directory = Arc::new(ArcSwap::from_pointee(load(&*store).await.unwrap()));
        let applier = Applier::new(store.clone(), directory.clone(), clock.clone(), "n1".into());
        let desk = Desk::new(store.clone(), directory, clock, random, applier, None);
        Self { store, desk }
    }

    async fn with_acme() -> Self {
        let office = Self::on(Arc::new(MemoryStore::new())).await;
        office.apply().await;
        office
    }

    async fn ask(&self, request: Request) -> Result<Response, CommandError> {
        perform(&self.desk, request, ACTOR).await
    }

    /// Applies the tenants file; gives how much it changed.
    async fn apply(&self) -> usize {
        let request = Request::Apply { declared: declared(), source: "t.toml".into(), dry_run: false, prune: false };
        let Ok(Response::Applied { changes, .. }) = self.ask(request).await else { panic!() };
        changes.len()
    }

    async fn add(&self, kind: SuppressionReason) -> Vec<SuppressionReason> {
        let request =
            Request::SuppressionAdd { tenant: acme(), address: joe(), kind, expires: None, reason: String::new() };
        let Ok(Response::Suppressions(all)) = self.ask(request).await else { panic!() };
        reasons(&all)
    }

    async fn remove(&self, kind: Option<SuppressionReason>, force: bool) -> Result<Unsuppressed, CommandError> {
        let (tenant, address, reason) = (acme(), joe(), String::new());
        match self.ask(Request::SuppressionRemove { tenant, address, kind, force, reason }).await? {
            Response::Unsuppressed(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    async fn damage(&self, key: Key) {
        let mut batch = Batch::new();
        batch.put(key, If::Any, bytes::Bytes::from_static(b"rubbish"));
        self.store.commit(batch).await.unwrap();
    }

    /// How many commits there were, with the one that asks.
    async fn commits(&self) -> u64 {
        let mut batch = Batch::new();
        batch.put(Key::meta("asked"), If::Any, bytes::Bytes::from_static(b"x"));
        self.store.commit(batch).await.unwrap()
    }

    /// How many entries the audit trail has.
    async fn entries(&self) -> usize {
        let Ok(Response::Audit(page)) = self.ask(Request::AuditList { tenant: None, since: None, after: None }).await
        else {
            panic!()
        };
        page.rows.len()
    }

    fn live(&self, name: &str) -> Vec<String> {
        let directory = self.desk.directory.load();
        let credential = directory.credential(&username(name)).unwrap();
        credential.secrets.iter().map(|secret| secret.hash.to_string()).collect()
    }
}

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn joe() -> Mailbox {
    Mailbox::parse(b"Joe@x.example").unwrap()
}

fn username(name: &str) -> Username {
    Username::parse(name).unwrap()
}

fn reasons(entries: &[SuppressionView]) -> Vec<SuppressionReason> {
    assert!(entries.iter().all(|entry| entry.address == "joe@x.example"));
    entries.iter().map(|entry| entry.reason).collect()
}

/// acme with the credential `acme-app`.
fn declared() -> Declared {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let text = format!(
        "[[tenant]]\nid = \"acme\"\nsenders = [\"acme.example\"]\n\
         [[tenant.stream]]\nid = \"main\"\nkind = \"transactional\"\nconfiguration_set = \"acme-main\"\n\
         [[tenant.credential]]\nusername = \"acme-app\"\nsecret_hash = \"{HASH}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    load_tenants(&file).unwrap().0
}

/// The way round `--force` that one entry an address left open: an entry by hand over a complaint.
#[tokio::test]
async fn a_complaint_outlives_what_is_added_and_removed_beside_it() {
    let _others = GAUGE.read().await;
    let office = Office::with_acme().await;
    assert_eq!(office.add(Complaint).await, [Complaint]);
    assert_eq!(office.add(Manual).await, [Complaint, Manual]);
    assert_eq!(office.add(Bounce).await, [Bounce, Complaint, Manual]);

    let answer = office.remove(Some(Bounce), false).await.unwrap();
    assert_eq!((reasons(&answer.removed), answer.stays.is_some()), (vec![Bounce], false));
    let answer = office.remove(None, false).await.unwrap();
    assert_eq!(reasons(&answer.removed), [Manual]);
    assert_eq!(answer.stays.unwrap().reason, Complaint);
    let refused = office.remove(None, false).await.unwrap_err();
    assert!(matches!(refused, CommandError::ComplaintNeedsForce { .. }), "{refused}");
    assert_eq!(reasons(&office.remove(None, true).await.unwrap().removed), [Complaint]);
    let refused = office.remove(None, true).await.unwrap_err();
    assert!(matches!(refused, CommandError::NotSuppressed { .. }), "{refused}");
}

#[tokio::test]
async fn a_list_goes_on_behind_the_last_entry() {
    let _others = GAUGE.read().await;
    let office = Office::with_acme().await;
    for kind in [Manual, Bounce, Complaint] {
        office.add(kind).await;
    }
    for (after, expected) in [
        (None, &[Bounce, Complaint, Manual][..]),
        (Some(Bounce), &[Complaint, Manual]),
        (Some(Complaint), &[Manual]),
        (Some(Manual), &[]),
    ] {
        let after = after.map(|reason| ("joe@x.example".to_owned(), reason));
        let request = Request::SuppressionList { tenant: acme(), after };
        // As it goes over the socket.
        let request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        let Ok(Response::Suppressions(page)) = office.ask(request).await else { panic!() };
        assert_eq!(reasons(&page), expected);
    }
}

/// What a command changes of a credential of the file, the file undoes: the answer says so, and how
/// it is made to last.
#[tokio::test]
async fn a_change_that_the_tenants_file_undoes_is_warned_of() {
    let _others = GAUGE.read().await;
    let office = Office::with_acme().await;
    let rotate =
        |name: &str| Request::CredentialRotate { username: username(name), overlap_seconds: 60, reason: String::new() };
    let revoke = |name: &str| Request::CredentialRevoke { username: username(name), reason: String::new() };

    let Ok(Response::Issued(issued)) = office.ask(rotate("acme-app")).await else { panic!() };
    let rotated = office.live("acme-app");
    assert_eq!(rotated.len(), 2);
    let warning = issued.warning.unwrap();
    assert!(warning.contains("tenants file") && warning.contains(&rotated[0]), "{warning}");
    assert!(!warning.contains(&issued.secret.0));
    assert!(office.apply().await > 0);
    assert_eq!(office.live("acme-app"), [HASH], "the warning is true");

    let Ok(Response::Revoked(revoked)) = office.ask(revoke("acme-app")).await else { panic!() };
    assert!(revoked.warning.unwrap().contains("remove it from the file"));
    assert!(office.desk.directory.load().credential(&username("acme-app")).is_none());
    assert!(office.apply().await > 0);
    assert_eq!(office.live("acme-app"), [HASH], "the warning is true");

    // Of what was issued the file knows nothing.
    let issue = Request::CredentialIssue {
        tenant: acme(),
        username: Some(username("other")),
        stream: None,
        expires: None,
        from_ip: Vec::new(),
        reason: String::new(),
    };
    let Ok(Response::Issued(issued)) = office.ask(issue).await else { panic!() };
    assert_eq!(issued.warning, None);
    let Ok(Response::Issued(issued)) = office.ask(rotate("other")).await else { panic!() };
    assert_eq!(issued.warning, None);
    let Ok(Response::Revoked(revoked)) = office.ask(revoke("other")).await else { panic!() };
    assert_eq!(revoked.warning, None);
}

/// Every change leaves its entries, newest first, with who, whose and how it was.
#[tokio::test]
async fn every_change_is_in_the_audit_trail() {
    let _others = GAUGE.read().await;
    let office = Office::with_acme().await;
    let reason = || "because".to_owned();
    let (tenant, stream) = (acme(), StreamId::parse("main").ok());
    let limits = Limits { pause_bounce: Some(0.04), ..Limits::default() };
    for request in [
        Request::TenantPause { tenant: tenant.clone(), stream: stream.clone(), reason: reason() },
        Request::TenantResume { tenant: tenant.clone(), stream, reason: reason() },
        Request::TenantLimits { tenant: tenant.clone(), stream: None, limits, reset: false, reason: reason() },
        Request::CredentialIssue {
            tenant: tenant.clone(),
            username: Some(username("other")),
            stream: None,
            expires: None,
            from_ip: Vec::new(),
            reason: reason(),
        },
        Request::CredentialRotate { username: username("other"), overlap_seconds: 60, reason: reason() },
        Request::CredentialRevoke { username: username("other"), reason: reason() },
        // What changes nothing leaves nothing.
        Request::TenantShow { tenant: tenant.clone() },
        Request::Status,
    ] {
        office.ask(request).await.unwrap();
    }
    office.add(Manual).await;
    office.remove(None, true).await.unwrap();
    let refused = office.ask(Request::CredentialRevoke { username: username("other"), reason: reason() }).await;
    assert!(refused.is_err());
    let list = |tenant: Option<TenantId>| async {
        let request = Request::AuditList { tenant, since: None, after: None };
        let request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        let Ok(Response::Audit(page)) = office.ask(request).await else { panic!() };
        assert_eq!(page.next, None);
        page.rows
    };
    let mut rows = list(None).await;
    assert!(rows.is_sorted_by(|a, b| a.at >= b.at));
    assert!(rows.iter().all(|row| row.actor == ACTOR && row.tenant == Some(acme()) && row.fault.is_none()));
    assert_eq!(list(Some(acme())).await, rows);
    assert_eq!(list(TenantId::parse("globex").ok()).await, []);
    rows.sort_by(|a, b| (&a.what, &a.after).cmp(&(&b.what, &b.after)));
    let told: Vec<(&str, &str, &str)> =
        rows.iter().map(|row| (row.what.as_str(), row.before.as_str(), row.after.as_str())).collect();
    let applied: Vec<&str> = told.iter().filter(|row| row.0 == "apply").map(|row| row.2).collect();
    assert_eq!(
        applied,
        [
            "+ credential acme-app (tenant acme)",
            "+ sender acme: acme.example",
            "+ stream acme/main (transactional, set acme-main)",
            "+ tenant acme"
        ]
    );
    let others: Vec<&str> = told.iter().filter(|row| row.0 != "apply").map(|row| row.0).collect();
    assert_eq!(
        others,
        [
            "credential issue other",
            "credential revoke other",
            "credential rotate other",
            "suppression add",
            "suppression remove",
            "tenant limits",
            "tenant pause --stream main",
            "tenant resume --stream main",
        ]
    );
    let of = |what: &str| rows.iter().find(|row| row.what == what).unwrap();
    let pause = of("tenant pause --stream main");
    assert_eq!((pause.reason.as_str(), pause.before.as_str()), ("because", "sending"));
    assert!(pause.after.starts_with("paused since ") && pause.after.ends_with(" by cli:test: because"));
    assert_eq!(pause.stream, StreamId::parse("main").ok());
    let resume = of("tenant resume --stream main");
    assert_eq!((resume.before.as_str(), resume.after.as_str()), (pause.after.as_str(), "sending"));
    let limits = of("tenant limits");
    assert_eq!((limits.before.as_str(), limits.after.as_str()), ("its kind's", "pause_bounce 0.04"));
    let rotate = of("credential rotate other");
    assert_eq!((rotate.before.as_str(), rotate.after.as_str()), ("live secrets 1", "live secrets 2"));
    assert_eq!((of("suppression add").after.as_str(), of("suppression remove").before.as_str()), ("manual", "manual"));
    let text = serde_json::to_string(&rows).unwrap();
    assert!(!text.contains("joe@") && !text.contains("sha256:"), "{text}");
}

/// There is no moment at which a change is in the store and its entry is not.
#[tokio::test]
async fn a_change_and_its_entry_are_one_commit() {
    let _others = GAUGE.read().await;
    let office = Office::with_acme().await;
    let (tenant, stream, other, why) = (acme(), StreamId::parse("main").ok(), username("other"), String::new);
    let limits = Limits { pause_bounce: Some(0.04), ..Limits::default() };
    let suppress =
        |kind| Request::SuppressionAdd { tenant: acme(), address: joe(), kind, expires: None, reason: String::new() };
    let changes = [
        Request::TenantPause { tenant: tenant.clone(), stream: stream.clone(), reason: why() },
        Request::TenantResume { tenant: tenant.clone(), stream, reason: why() },
        Request::TenantPause { tenant: tenant.clone(), stream: None, reason: why() },
        Request::TenantResume { tenant: tenant.clone(), stream: None, reason: why() },
        Request::TenantLimits { tenant: tenant.clone(), stream: None, limits, reset: false, reason: why() },
        Request::CredentialIssue {
            tenant: tenant.clone(),
            username: Some(other.clone()),
            stream: None,
            expires: None,
            from_ip: Vec::new(),
            reason: why(),
        },
        Request::CredentialRotate { username: other.clone(), overlap_seconds: 60, reason: why() },
        Request::CredentialHold { username: other.clone(), reason: why() },
        Request::CredentialRelease { username: other.clone(), reason: why() },
        Request::CredentialRevoke { username: other, reason: why() },
        suppress(Complaint),
        Request::SuppressionRemove { tenant, address: joe(), kind: None, force: true, reason: why() },
    ];
    let mut entries = office.entries().await;
    for change in changes {
        let (before, words) = (office.commits().await, format!("{change:?}"));
        office.ask(change).await.unwrap();
        assert_eq!(office.commits().await - before, 2, "one beside the one that asks: {words}");
        entries += 1;
        assert_eq!(office.entries().await, entries, "{words}");
    }
    // What is there already, and stays, is no change; nor is what the store did not take.
    office.ask(suppress(Manual)).await.unwrap();
    office.ask(suppress(Manual)).await.unwrap();
    assert_eq!(office.entries().await, entries + 1);
    office.store.fail_with("refused by the test");
    assert!(office.ask(suppress(Complaint)).await.is_err());
    office.store.heal();
    assert_eq!(office.entries().await, entries + 1);
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

impl Sink {
    /// The keys of the `record_damaged` lines so far, each of them whole.
    fn damaged(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let key = |line: serde_json::Value| {
            assert_eq!((line["level"].as_str(), line["blame"].as_str()), (Some("error"), Some("us")), "{line}");
            assert!(line["cure"].as_str().is_some_and(|cure| !cure.is_empty()), "{line}");
            line["key"].as_str().unwrap().to_owned()
        };
        lines.filter(|line| line["event"] == "record_damaged").map(key).collect()
    }
}

/// At a start and whenever the tenants are read anew, each damaged record is told of once, and
/// counted as long as it is there.
#[tokio::test]
async fn damaged_records_are_told_of_once_and_counted() {
    let _alone = GAUGE.write().await;
    let sink = Sink::default();
    let lines = Lines::new(Format::Json, Output::to(sink.clone()), Arc::new(MachineClock));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines)).unwrap();
    let metrics = Metrics::install().unwrap();
    let counted = |expected: usize| {
        let text = metrics.text();
        assert!(text.contains(&format!("\nbulkhead_damaged_records {expected}\n")), "{expected}: {text}");
    };
    let office = Office::with_acme().await;
    assert_eq!(sink.damaged(), [""; 0]);
    counted(0);
    let issue = |name: &str| Request::CredentialIssue {
        tenant: acme(),
        username: Some(username(name)),
        stream: None,
        expires: None,
        from_ip: Vec::new(),
        reason: String::new(),
    };
    office.ask(issue("other")).await.unwrap();

    // Found by the next command that reads all anew, told of once, by whatever comes after.
    office.damage(Key::credential(&username("other"))).await;
    office.ask(issue("third")).await.unwrap();
    office.ask(issue("fourth")).await.unwrap();
    assert_eq!(sink.damaged(), ["credential/other"]);
    counted(1);

    // A start tells of all there are.
    office.damage(Key::tenant(&acme())).await;
    let office = Office::on(office.store.clone()).await;
    let told = sink.damaged();
    assert_eq!(told[..1], ["credential/other"]);
    let mut started = told[1..].to_vec();
    started.sort();
    assert_eq!(started, ["credential/other", "tenant/acme"]);
    counted(2);

    // What the lines name as cures are cures.
    assert!(office.apply().await > 0);
    counted(1);
    office.ask(issue("other")).await.unwrap();
    counted(0);
    assert_eq!(sink.damaged().len(), 3);
    assert_eq!(office.live("other").len(), 1);
    assert_eq!(office.live("acme-app"), [HASH]);
    let taken = office.ask(issue("other")).await.unwrap_err();
    assert!(matches!(taken, CommandError::UsernameTaken { .. }), "{taken}");
}

/// Where a stream stands on its ladder is told with a relay and without one: it is all in the store.
#[tokio::test]
async fn a_ladder_is_shown_day_by_day_with_where_its_stream_stands() {
    use bulkhead::policy::tenant::Warmup;
    use bulkhead::policy::warmup::{Plan, day_of};
    use bulkhead::store::directory::Directory;

    let _others = GAUGE.read().await;
    let office = Office::with_acme().await;
    let show = |tenant: &str| Request::WarmupShow { tenant: Some(tenant.parse().unwrap()), stream: None, after: None };
    let Ok(Response::Warmups(none)) = office.ask(show("acme")).await else { panic!() };
    assert_eq!(none, []);
    assert!(matches!(office.ask(show("acne")).await, Err(CommandError::NoTenant { near: Some(_), .. })));

    let warmup = Warmup { start: "2026-01-01".into(), first_day: 100, days: 4, target: 800 };
    let plan = Plan::of(&warmup).unwrap();
    let mut tenant = declared().tenants.remove(0).tenant;
    tenant.streams.values_mut().for_each(|stream| stream.warmup = Some(warmup.clone()));
    office.desk.directory.store(Arc::new(Directory::new([tenant], [])));
    let shown = async || {
        let Ok(Response::Warmups(mut ladders)) = office.ask(show("acme")).await else { panic!() };
        ladders.remove(0)
    };
    let first = shown().await;
    assert_eq!((first.step, first.cap, first.sent_today, first.is_ahead), (1, Some(100), 0, false));
    assert_eq!(first.plan.iter().map(|day| day.cap).collect::<Vec<_>>(), [100, 200, 400, 800]);
    let position = bulkhead::policy::warmup::Position { step: 2, ..plan.begin(day_of(office.desk.clock.now())) };
    let mut batch = Batch::new();
    let key = Key::ladder(&acme(), &"main".parse().unwrap());
    batch.put(key, If::Any, bulkhead::store::record::seal(&position));
    office.store.commit(batch).await.unwrap();
    let third = shown().await;
    assert_eq!((third.step, third.cap), (3, Some(400)));
    assert_eq!(third.plan.iter().map(|day| day.day.is_some()).collect::<Vec<_>>(), [false, false, true, true]);
}
