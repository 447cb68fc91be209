//! Our suppression lists and Amazon SES's: compared through the real AWS SDK, over HTTP, with the
//! sandbox for SES; and with an SES that fails, for what goes wrong.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects by panicking"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::ses::{self, Credentials, SesMailer, sdk_config};
use bulkhead::journal::Synced;
use bulkhead::mail::{Mailbox, SesTenant, TenantId};
use bulkhead::policy::tenant::{Suppression, SuppressionReason, Tenant};
use bulkhead::sandbox::lists::Lists;
use bulkhead::sandbox::{self, Sandbox, SesTenantResources};
use bulkhead::secret::Secret;
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, Key, Pending, Store, mirror, suppressions};
use bulkhead::suppression::{Fault, ListSync, Mode, Options, Scope};
use bulkhead::time::{Clock, Timestamp};
use bulkhead::upstream::lists::{ListError, ListPage, ListReason, Listed, Suppressions};
use tokio_util::sync::{CancellationToken, DropGuard};

const NOW: u64 = 1_795_000_000_000;
const HOUR: u64 = 3_600_000;
use SuppressionReason::{Bounce, Complaint, Manual, Soft};

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

fn tenant(id: &str, ses_tenant: Option<&str>) -> Tenant {
    Tenant {
        ses_tenant: ses_tenant.map(|name| SesTenant::parse(name).unwrap()),
        ..Tenant::new(id.parse().unwrap(), "main".parse().unwrap())
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

/// SES at the other end of HTTP, `acme` with an SES tenant, `globex` without one.
struct Place {
    store: Arc<MemoryStore>,
    clock: Arc<TestClock>,
    directory: Current,
    lists: Arc<Lists>,
    ses: Arc<dyn Suppressions>,
    door: Arc<sandbox::socket::Door>,
    _drain: DropGuard,
}

impl Place {
    async fn new() -> Self {
        let mut options = sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom));
        let known = |name: &str| SesTenantResources {
            name: name.into(),
            identities: Vec::new(),
            configuration_sets: Vec::new(),
        };
        options.ses_tenants = Some(vec![known("acme-ses"), known("acme-new")]);
        let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
        let drain = CancellationToken::new();
        let (url, lists, door) = (sandbox.url(), sandbox.lists(), sandbox.door());
        tokio::spawn(sandbox.run(drain.clone()));
        let credentials =
            Credentials::Static { access_key_id: "test".into(), secret_access_key: Secret::new(b"test".to_vec()) };
        let config = sdk_config(Some("eu-west-1".into()), credentials).await;
        let ses = SesMailer::new(&config, ses::Options { endpoint_url: Some(url), ..ses::Options::default() });
        let directory = Directory::new([tenant("acme", Some("acme-ses")), tenant("globex", None)], []);
        Self {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(TestClock(AtomicU64::new(NOW))),
            directory: Arc::new(ArcSwap::from_pointee(directory)),
            lists,
            ses: Arc::new(ses),
            door,
            _drain: drain.drop_guard(),
        }
    }

    fn sync(&self, mode: Mode) -> ListSync {
        let options = Options { mode, every: Duration::from_secs(24 * 3600), pace: Duration::ZERO };
        sync_of(self.store.clone(), &self.directory, self.ses.clone(), self.clock.clone(), options)
    }

    /// A round once all is due; what became of acme's list.
    async fn round(&self, mode: Mode) -> Synced {
        self.clock.0.fetch_add(25 * HOUR, Ordering::SeqCst);
        let done = self.sync(mode).round().await;
        assert_eq!(done.len(), 2, "{done:?}");
        assert_eq!(done[0].0, Scope(None));
        done[0].1.clone().unwrap();
        done[1].1.clone().unwrap()
    }

    fn at_ses(&self) -> Vec<(String, String)> {
        self.lists.of(Some("acme-ses"))
    }

    async fn ours(&self) -> Vec<String> {
        let all = suppressions::list(&*self.store, &acme(), None, 1000).await.unwrap();
        all.into_iter().map(|(folded, entry)| format!("{folded} {} {}", entry.reason.word(), entry.origin)).collect()
    }

    async fn add(&self, address: &str, reason: SuppressionReason, expires: Option<u64>) {
        let entry = Suppression {
            reason,
            origin: "cli".into(),
            at: self.clock.now(),
            expires: expires.map(Timestamp::from_millis),
            actor: "cli:root".into(),
        };
        suppressions::add(&*self.store, &acme(), &mailbox(address), &entry, &Batch::new()).await.unwrap();
    }

    async fn remove(&self, address: &str) {
        suppressions::remove(&*self.store, &acme(), &mailbox(address), None, true, |_| Batch::new()).await.unwrap();
    }

    fn put(&self, of: Option<&str>, address: &str, reason: &str) {
        assert!(self.lists.put(of, address, reason, Timestamp::from_millis(NOW - HOUR)));
    }
}

fn sync_of(
    store: Arc<MemoryStore>,
    directory: &Current,
    ses: Arc<dyn Suppressions>,
    clock: Arc<dyn Clock>,
    options: Options,
) -> ListSync {
    ListSync::new(store, directory.clone(), ses, clock, Arc::new(MachineRandom), options)
}

#[tokio::test]
async fn what_ses_has_binds_here_and_goes_when_it_goes_there() {
    let place = Place::new().await;
    place.put(None, "Everybody@x.example", "BOUNCE");
    place.put(None, "everybody@x.example", "COMPLAINT");
    place.put(Some("acme-ses"), "Gone@x.example", "BOUNCE");
    place.put(Some("acme-ses"), "angry@x.example", "COMPLAINT");
    place.put(Some("acme-new"), "other@x.example", "BOUNCE");
    let synced = place.round(Mode::Pull).await;
    assert_eq!(synced, Synced { listed: 2, added: 2, ..Synced::default() });
    assert_eq!(place.ours().await, ["angry@x.example complaint ses list", "gone@x.example bounce ses list"]);
    // The account's binds everybody's mail, where it is asked for, and is on nobody's list.
    let who = mailbox("EVERYBODY@x.example");
    for tenant in ["acme", "globex"] {
        let tenant: TenantId = tenant.parse().unwrap();
        let of = async |account| suppressions::binding(&*place.store, &tenant, &who, account).await.unwrap();
        assert_eq!(of(false).await, []);
        let reasons: Vec<_> = of(true).await.into_iter().map(|entry| (entry.reason, entry.origin)).collect();
        let origin = || "ses account list".to_owned();
        assert_eq!(reasons, [(Bounce, origin()), (Complaint, origin())]);
    }

    // Nothing is due before its time.
    assert_eq!(place.sync(Mode::Pull).round().await, []);
    assert!(place.lists.delete(Some("acme-ses"), "Gone@x.example"));
    assert!(place.lists.delete(None, "Everybody@x.example"));
    let synced = place.round(Mode::Pull).await;
    assert_eq!(synced, Synced { listed: 1, removed: 1, ..Synced::default() });
    assert_eq!(place.ours().await, ["angry@x.example complaint ses list"]);
    let left = suppressions::binding(&*place.store, &acme(), &who, true).await.unwrap();
    assert_eq!(left.iter().map(|entry| entry.reason).collect::<Vec<_>>(), [Complaint]);
    // Pulling changes nothing there.
    assert_eq!(place.at_ses(), [("angry@x.example".into(), "COMPLAINT".into())]);
}

#[tokio::test]
async fn what_stands_here_is_not_replaced_and_what_was_taken_off_does_not_come_back() {
    let place = Place::new().await;
    place.add("mine@x.example", Bounce, None).await;
    place.add("hand@x.example", Manual, None).await;
    place.add("ended@x.example", Bounce, Some(NOW + 1)).await;
    place.add("both@x.example", Complaint, None).await;
    for name in ["Mine", "hand", "ended", "both"] {
        place.put(Some("acme-ses"), &format!("{name}@x.example"), "BOUNCE");
    }
    assert_eq!(place.round(Mode::Pull).await.added, 2);
    let wanted = [
        "both@x.example bounce ses list",
        "both@x.example complaint cli",
        "ended@x.example bounce ses list",
        "hand@x.example manual cli",
        "mine@x.example bounce cli",
    ];
    assert_eq!(place.ours().await, wanted);
    // What an operator takes off stays off, whatever SES still has; and ours outlives SES's.
    place.remove("ended@x.example").await;
    assert!(place.lists.delete(Some("acme-ses"), "Mine@x.example"));
    assert_eq!(place.round(Mode::Pull).await, Synced { listed: 3, ..Synced::default() });
    assert_eq!(place.ours().await.len(), 4);
}

#[tokio::test]
async fn both_ways_what_is_ours_is_put_there_and_deleted_in_its_spelling() {
    let place = Place::new().await;
    place.put(Some("acme-ses"), "Joe.Spelled@x.example", "BOUNCE");
    place.add("Bounced@x.example", Bounce, None).await;
    place.add("angry@x.example", Complaint, None).await;
    place.add("hand@x.example", Manual, Some(NOW + 100 * HOUR)).await;
    place.add("full@x.example", Soft, None).await;
    place.add("bounced@x.example", Complaint, None).await;
    let synced = place.round(Mode::Both).await;
    assert_eq!(synced, Synced { listed: 1, added: 1, put: 3, ..Synced::default() });
    let listed = |names: &[(&str, &str)]| -> Vec<(String, String)> {
        names.iter().map(|(name, reason)| (format!("{name}@x.example"), (*reason).to_owned())).collect()
    };
    let four = [("Joe.Spelled", "BOUNCE"), ("angry", "COMPLAINT"), ("bounced", "BOUNCE"), ("hand", "BOUNCE")];
    assert_eq!(place.at_ses(), listed(&four));
    // Nothing changed, nothing is done; what we put there does not come back as SES's own.
    let again = place.round(Mode::Both).await;
    assert_eq!(again, Synced { listed: 4, ..Synced::default() });
    assert!(!place.ours().await.contains(&"hand@x.example bounce ses list".to_owned()));

    place.remove("joe.spelled@x.example").await;
    place.remove("bounced@x.example").await;
    let synced = place.round(Mode::Both).await;
    assert_eq!(synced, Synced { listed: 4, deleted: 2, ..Synced::default() });
    assert_eq!(place.at_ses(), listed(&four[1..2].iter().chain(&four[3..]).copied().collect::<Vec<_>>()));
    // An entry that ends here ends there; one that was deleted there and stands here is put again.
    assert!(place.lists.delete(Some("acme-ses"), "angry@x.example"));
    place.round(Mode::Both).await;
    assert_eq!(place.at_ses(), listed(&[("angry", "COMPLAINT")]));
    let ours = place.ours().await;
    assert!(ours.contains(&"angry@x.example complaint cli".to_owned()), "{ours:?}");
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end_and_a_cut_goes_on_where_it_was() {
    let place = Place::new().await;
    for n in 0..237 {
        place.put(Some("acme-ses"), &format!("r{n}@x.example"), if n % 2 == 0 { "BOUNCE" } else { "COMPLAINT" });
    }
    place.lists.pages_of(20);
    // SES goes away in the middle of it, again and again.
    let cut = Cut { inner: place.ses.clone(), left: Mutex::new(5), calls: Mutex::default() };
    let cut = Arc::new(cut);
    let options = Options { mode: Mode::Pull, every: Duration::from_secs(24 * 3600), pace: Duration::ZERO };
    let (mut failures, mut rounds) = (0, 0);
    let synced = loop {
        let sync = sync_of(place.store.clone(), &place.directory, cut.clone(), place.clock.clone(), options);
        let done = sync.round().await;
        rounds += 1;
        *cut.left.lock().unwrap() = 5;
        match done.into_iter().find(|(scope, _)| scope.tenant().is_some()) {
            Some((_, Ok(synced))) => break synced,
            Some((_, Err(Fault::List(ListError::Unavailable(_))))) => failures += 1,
            other => panic!("{other:?}"),
        }
        assert!(rounds < 20);
    };
    assert!(failures >= 2, "{failures}");
    assert!(synced.listed < 237, "it did not begin anew: {synced:?}");
    assert_eq!(place.ours().await.len(), 237);
    // Each page of each list was asked for once, but for those that failed.
    let calls = cut.calls.lock().unwrap().clone();
    let distinct: std::collections::BTreeSet<_> = calls.iter().collect();
    assert_eq!(distinct.len(), 12, "{calls:?}");
    assert_eq!(calls.len(), 12 + failures, "{calls:?}");
}

/// The token of a pass that was cut short has expired when it goes on: it begins anew, once.
#[tokio::test]
async fn an_expired_token_begins_the_pass_anew() {
    let place = Place::new().await;
    for n in 0..30 {
        place.put(Some("acme-ses"), &format!("r{n:02}@x.example"), "BOUNCE");
    }
    place.lists.pages_of(10);
    let cut = Arc::new(Cut { inner: place.ses.clone(), left: Mutex::new(2), calls: Mutex::default() });
    let options = Options { mode: Mode::Pull, every: Duration::from_secs(24 * 3600), pace: Duration::ZERO };
    let sync = sync_of(place.store.clone(), &place.directory, cut, place.clock.clone(), options);
    assert!(sync.round().await[1].1.is_err());
    let state = mirror::state(&*place.store, Some(&acme())).await.unwrap().unwrap();
    assert_eq!((state.token.as_deref(), state.listed), (Some("r09@x.example"), false));
    assert!(place.lists.delete(Some("acme-ses"), "r09@x.example"), "the sandbox's token is an entry");
    let done = place.sync(Mode::Pull).round().await;
    let [(_, Ok(synced))] = &done[..] else { panic!("{done:?}") };
    assert_eq!((synced.listed, synced.removed), (29, 1));
    assert_eq!(place.ours().await.len(), 29);
}

#[tokio::test]
async fn a_tenant_that_ses_does_not_have_hinders_nobody_and_is_told_with_a_cure() {
    let place = Place::new().await;
    let tenants = [tenant("acme", Some("acme-ses")), tenant("lost", Some("no-such"))];
    place.directory.store(Arc::new(Directory::new(tenants, [])));
    place.put(Some("acme-ses"), "gone@x.example", "BOUNCE");
    let done = place.sync(Mode::Both).round().await;
    assert_eq!(done.len(), 3);
    let Err(Fault::List(error @ ListError::Missing(_))) = &done[2].1 else { panic!("{done:?}") };
    assert!(error.cure().contains("ses_tenant"), "{error}");
    assert_eq!(place.ours().await, ["gone@x.example bounce ses list"]);
    // SES is down: all that is due fails, and loses nothing.
    place.clock.0.fetch_add(25 * HOUR, Ordering::SeqCst);
    place.door.close().unwrap();
    let done = place.sync(Mode::Both).round().await;
    assert!(done.iter().all(|(_, done)| matches!(done, Err(Fault::List(ListError::Unavailable(_))))), "{done:?}");
    assert_eq!(place.ours().await.len(), 1);
}

/// The tenant moves to another SES tenant: what the old list brought goes, what is ours is put there.
#[tokio::test]
async fn another_ses_tenant_is_another_list() {
    let place = Place::new().await;
    place.put(Some("acme-ses"), "old@x.example", "BOUNCE");
    place.put(Some("acme-new"), "new@x.example", "BOUNCE");
    place.add("hand@x.example", Manual, None).await;
    place.round(Mode::Both).await;
    place.directory.store(Arc::new(Directory::new([tenant("acme", Some("acme-new"))], [])));
    let done = place.sync(Mode::Both).round().await;
    assert!(matches!(&done[..], [(_, Ok(_))]), "due at once, whatever the clock: {done:?}");
    assert_eq!(place.ours().await, ["hand@x.example manual cli", "new@x.example bounce ses list"]);
    let names: Vec<String> = place.lists.of(Some("acme-new")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["hand@x.example", "new@x.example"]);
}

/// An SES that goes away after so many calls.
struct Cut {
    inner: Arc<dyn Suppressions>,
    left: Mutex<usize>,
    /// The tokens of the tenant's list that were asked for.
    calls: Mutex<Vec<Option<String>>>,
}

impl Cut {
    fn spent(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        let spent = *left == 0;
        *left = left.saturating_sub(1);
        spent
    }
}

impl Suppressions for Cut {
    fn list<'a>(
        &'a self,
        of: Option<&'a SesTenant>,
        token: Option<&'a str>,
    ) -> Pending<'a, Result<ListPage, ListError>> {
        if of.is_some() {
            self.calls.lock().unwrap().push(token.map(str::to_owned));
        }
        if self.spent() {
            return Box::pin(async { Err(ListError::Unavailable("cut".into())) });
        }
        self.inner.list(of, token)
    }
    fn put<'a>(
        &'a self,
        of: &'a SesTenant,
        address: &'a str,
        reason: ListReason,
    ) -> Pending<'a, Result<(), ListError>> {
        self.inner.put(of, address, reason)
    }
    fn delete<'a>(&'a self, of: &'a SesTenant, address: &'a str) -> Pending<'a, Result<(), ListError>> {
        self.inner.delete(of, address)
    }
}

/// An SES that notes when it is called, and fails while it is told to.
#[derive(Default)]
struct Noted {
    calls: Mutex<Vec<tokio::time::Instant>>,
    failing: Mutex<usize>,
}

impl Noted {
    fn note(&self) -> Result<(), ListError> {
        self.calls.lock().unwrap().push(tokio::time::Instant::now());
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(ListError::Throttled("told to".into()));
        }
        Ok(())
    }
}

impl Suppressions for Noted {
    fn list<'a>(
        &'a self,
        of: Option<&'a SesTenant>,
        token: Option<&'a str>,
    ) -> Pending<'a, Result<ListPage, ListError>> {
        Box::pin(async move {
            self.note()?;
            let page: usize = token.map_or(0, |token| token.parse().unwrap());
            let name = if of.is_some() { "t" } else { "a" };
            let address = format!("{name}{page}@x.example");
            let listed = Listed { address, reason: ListReason::Bounce, at: Timestamp::from_millis(NOW) };
            Ok(ListPage { entries: vec![listed], next: (page < 4).then(|| (page + 1).to_string()) })
        })
    }
    fn put<'a>(&'a self, _: &'a SesTenant, _: &'a str, _: ListReason) -> Pending<'a, Result<(), ListError>> {
        Box::pin(async move { self.note() })
    }
    fn delete<'a>(&'a self, _: &'a SesTenant, _: &'a str) -> Pending<'a, Result<(), ListError>> {
        Box::pin(async move { self.note() })
    }
}

/// The service itself: never two calls in a second, whatever list they are about and whatever fails;
/// after failures with growing pauses; and all of it ends when it is told to.
#[tokio::test(start_paused = true)]
async fn calls_keep_their_distance_and_failures_are_waited_out() {
    let store = Arc::new(MemoryStore::new());
    let directory: Current = Arc::new(ArcSwap::from_pointee(Directory::new([tenant("acme", Some("acme-ses"))], [])));
    for n in 0..6 {
        let entry = Suppression {
            reason: Manual,
            origin: "cli".into(),
            at: Timestamp::from_millis(1),
            expires: None,
            actor: "cli:root".into(),
        };
        suppressions::add(&*store, &acme(), &mailbox(&format!("m{n}@x.example")), &entry, &Batch::new()).await.unwrap();
    }
    let ses = Arc::new(Noted { failing: Mutex::new(7), ..Noted::default() });
    let clock = Arc::new(TestClock(AtomicU64::new(NOW)));
    let pace = Duration::from_secs(1);
    let options = Options { mode: Mode::Both, every: Duration::from_secs(24 * 3600), pace };
    let sync = sync_of(store.clone(), &directory, ses.clone(), clock, options);
    let drain = CancellationToken::new();
    let running = tokio::spawn(sync.run(drain.clone()));
    let done = async |tenant: Option<TenantId>| {
        let state = mirror::state(&*store, tenant.as_ref()).await.unwrap();
        state.is_some_and(|state| state.done.is_some())
    };
    while !(done(None).await && done(Some(acme())).await) {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    let calls = ses.calls.lock().unwrap().clone();
    // Ten pages and six entries, and what failed.
    assert_eq!(calls.len(), 10 + 6 + 7);
    for pair in calls.windows(2) {
        assert!(pair[1] - pair[0] >= pace, "{:?}", pair[1] - pair[0]);
    }
    assert!(calls[calls.len() - 1] - calls[0] > Duration::from_secs(60), "failures were waited out");
    drain.cancel();
    running.await.unwrap();
    let rows = store.scan(&Key::ses_lists(&acme()), None, 100).await.unwrap();
    assert_eq!(rows.len(), 5 + 6);
}
