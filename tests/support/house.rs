//! Two tenants in one house: the relay on TLS, the real AWS SDK, the sandbox in this process, the
//! store on sled, and ingest on the sandbox's queue.
//!
//! acme (A) and bravo (B) have a transactional and a marketing stream each, a domain each, and
//! share `vendor.example`. acme may also send as the one address `billing@acme.test`.
//!
//! Time can be let pass ([`House::pass`]), the disk of the bodies can be filled ([`Platter::fill`]), and
//! what the way of a message writes is counted.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::ses::{self, Credentials, SesMailer, sdk_config};
use bulkhead::adapters::sled::SledStore;
use bulkhead::adapters::spool::{self, Disk, FileSpool, RealDisk};
use bulkhead::adapters::sqs::SqsNotices;
use bulkhead::adapters::tls::{CaPem, Certificates, self_signed};
use bulkhead::dispatch::waits::Waits;
use bulkhead::dispatch::{self, Dispatch};
use bulkhead::ingest::{self, Ingest};
use bulkhead::mail::{Mailbox, StreamId, TenantId};
use bulkhead::outbox::{self, Bounds, Outbox};
use bulkhead::policy::tenant::{FanOut, Pause, SenderPattern, Suppression, SuppressionReason, Tenant};
use bulkhead::relay::{Limits, Listener, Means, Options, Relay, Tls};
use bulkhead::sandbox::fault::Faults;
use bulkhead::sandbox::inbox::{Inbox, Message};
use bulkhead::sandbox::socket::Door;
use bulkhead::sandbox::sqs::EventQueue;
use bulkhead::sandbox::{self, Sandbox};
use bulkhead::secret::Secret;
use bulkhead::smtp::Terms;
use bulkhead::store::credential::Credential;
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::suppressions;
use bulkhead::store::tally::Tally;
use bulkhead::store::{Batch, CommitError, Key, Pending, ReadError, Store, Versioned};
use bulkhead::time::{Clock, Timestamp};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{Client, bounds, clients_of, code, credential, hash, journal, limits, long_ago, tenant, terms};

/// bravo's secret; acme's is another.
pub const SECRET: &str = "bh_bravo-knows-this-one";
pub const SECRET_OF_ACME: &str = "bh_only-acme-knows-this";

pub struct House {
    pub starttls: SocketAddr,
    pub implicit: SocketAddr,
    pub ca: CaPem,
    /// The sandbox's.
    pub url: String,
    pub inbox: Arc<Inbox>,
    pub faults: Arc<Faults>,
    pub queue: Arc<EventQueue>,
    /// Of the sandbox.
    pub door: Arc<Door>,
    pub store: Arc<SledStore>,
    /// The store as relay, dispatcher and outbox have it.
    pub path: Arc<Counted>,
    /// The disk of the bodies.
    pub platter: Arc<Platter>,
    pub dispatch: Arc<Dispatch>,
    pub directory: Current,
    pub tenants: Vec<Tenant>,
    pub credentials: Vec<Credential>,
    pub outbox: Arc<Outbox>,
    ahead: Arc<AtomicU64>,
    _drain: DropGuard,
    folder: tempfile::TempDir,
}

/// What a house is like, to be changed before it is built.
pub struct Plan {
    pub terms: Terms,
    pub limits: Limits,
    pub mailer: ses::Options,
    pub dispatch: dispatch::Options,
    /// What the outbox holds at most.
    pub bounds: Bounds,
    /// Octets of the disk that it leaves free.
    pub disk_reserve_bytes: u64,
    /// The names of the two tenants.
    pub names: [String; 2],
}

impl Plan {
    /// Nothing that is held waits for anything but its turn.
    pub fn without_waits(mut self) -> Self {
        self.dispatch.waits = Waits {
            throttle_first: Duration::ZERO,
            throttle_most: Duration::ZERO,
            quota: Duration::ZERO,
            retry_first: Duration::ZERO,
            retry_most: Duration::ZERO,
            outage_most: Duration::ZERO,
            operator_first: Duration::ZERO,
            operator_most: Duration::ZERO,
            unknown: Duration::ZERO,
        };
        self
    }

    /// Both tenants with names of their own, for the journal is one for all tests of a process.
    pub fn named(a: &str, b: &str) -> Self {
        Self {
            terms: Terms { auth_delay: Duration::from_millis(1), ..terms() },
            limits: limits(),
            mailer: ses::Options::default(),
            dispatch: dispatch::Options::default(),
            bounds: bounds(),
            disk_reserve_bytes: 0,
            names: [a.into(), b.into()],
        }
    }
}

/// The machine's clock, ahead by what a test has let pass. Conversations keep the machine's instants,
/// or they would all be over.
#[derive(Clone)]
struct Ahead {
    millis: Arc<AtomicU64>,
    instants: bool,
}

/// A store of which is counted what is committed.
pub struct Counted {
    inner: Arc<SledStore>,
    commits: AtomicUsize,
    refuses: AtomicBool,
}

/// A disk that can be full, and on which is counted what is written.
#[derive(Default)]
pub struct Platter {
    full: AtomicBool,
    writes: AtomicUsize,
    renames: AtomicUsize,
    syncs: AtomicUsize,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        MachineClock.now().plus(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }

    fn instant(&self) -> Instant {
        let ahead = if self.instants { self.millis.load(Ordering::Relaxed) } else { 0 };
        MachineClock.instant() + Duration::from_millis(ahead)
    }
}

impl Counted {
    /// Commits since the start.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// From now on nothing can be written, or it can again.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }
}

impl Store for Counted {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        self.inner.get(key)
    }
    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        self.inner.scan(prefix, after, limit)
    }
    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Box::pin(async { Err(CommitError::Unavailable("refused by the test".into())) });
        }
        self.inner.commit(batch)
    }
}

impl Platter {
    /// From now on there is no room on it, or there is again.
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Pieces written, names given and syncs since the start.
    pub fn counts(&self) -> [usize; 3] {
        [&self.writes, &self.renames, &self.syncs].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The platter of a house, as its spool has it.
struct Mounted(Arc<Platter>);

impl Disk for Mounted {
    fn create(&self, path: &Path) -> io::Result<File> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path, writing: bool) -> io::Result<File> {
        RealDisk.open(path, writing)
    }
    fn length(&self, file: &File) -> io::Result<u64> {
        RealDisk.length(file)
    }
    fn write(&self, file: &File, octets: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        if self.0.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        RealDisk.write(file, octets, at)
    }
    fn read(&self, file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
        RealDisk.read(file, into, at)
    }
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        RealDisk.truncate(file, length)
    }
    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        RealDisk.sync_data(file)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.renames.fetch_add(1, Ordering::Relaxed);
        RealDisk.rename(from, to)
    }
    fn sync_folder(&self, folder: &File) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        RealDisk.sync_folder(folder)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.names(folder)
    }
    fn room(&self, folder: &File) -> io::Result<u64> {
        RealDisk.room(folder)
    }
}

impl House {
    pub async fn build(plan: Plan) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        journal();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        let clock = Arc::new(MachineClock);
        let random = Arc::new(MachineRandom);
        let drain = CancellationToken::new();

        let sandbox_options = sandbox::Options::new(clock.clone(), random.clone());
        let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), sandbox_options).await.unwrap();
        let (url, queue_url) = (sandbox.url(), sandbox.queue_url());
        let (inbox, faults, queue) = (sandbox.messages(), sandbox.faults(), sandbox.queue());
        let door = sandbox.door();
        tokio::spawn(sandbox.run(drain.clone()));

        let keys =
            || Credentials::Static { access_key_id: "test".into(), secret_access_key: Secret::new(b"test".to_vec()) };
        let aws = sdk_config(Some("eu-west-1".into()), keys()).await;
        // With connections of its own: a call never goes by one that ingest has used.
        let aws_of_ingest = sdk_config(Some("eu-west-1".into()), keys()).await;
        let endpoint_url = plan.mailer.endpoint_url.clone().unwrap_or_else(|| url.clone());
        let mailer = SesMailer::new(&aws, ses::Options { endpoint_url: Some(endpoint_url), ..plan.mailer });

        let [a, b] = &plan.names;
        let tenants = vec![shared(tenant(a), a), shared(tenant(b), "bravo")];
        let credentials = vec![
            credential(a, "app", None, vec![hash(SECRET_OF_ACME)]),
            credential(b, "app", None, vec![hash(SECRET)]),
            credential(b, "bound", Some("transactional"), vec![hash(SECRET)]),
            credential(b, "passing", None, vec![hash(SECRET)]),
            Credential {
                from_ip: vec!["192.0.2.0/24".parse().unwrap()],
                ..credential(b, "elsewhere", None, vec![hash(SECRET)])
            },
            Credential { expires: Some(long_ago()), ..credential(b, "expired", None, vec![hash(SECRET)]) },
        ];
        let directory: Current = Arc::new(ArcSwap::from_pointee(Directory::new(tenants.clone(), credentials.clone())));
        let tally = Arc::new(Tally::default());
        let ingest = Ingest::new(
            Arc::clone(&store) as _,
            Arc::clone(&directory),
            Arc::new(SqsNotices::new(&aws_of_ingest, Some(url.clone()), queue_url)),
            clock.clone(),
            random.clone(),
            tally.clone(),
            ingest::Options { pollers: 1, wait: Duration::from_secs(1), node: "test".into() },
        );
        tokio::spawn(ingest.run(drain.clone()));

        let (ca, certificate, key) = self_signed(&["relay.example".into()]).unwrap();
        let certificates = Certificates::from_pem(&certificate, &key, clock.clone()).unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let clock_of = |instants| Arc::new(Ahead { millis: Arc::clone(&ahead), instants });
        let path = Arc::new(Counted {
            inner: Arc::clone(&store),
            commits: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
        });
        let platter = Arc::new(Platter::default());
        let mounted = Mounted(Arc::clone(&platter));
        let spool = Arc::new(FileSpool::open_on(folder.path(), spool::Options { writers: 4 }, mounted).unwrap());
        let outbox = outbox::Options { bounds: plan.bounds, disk_reserve_bytes: plan.disk_reserve_bytes };
        let opened = Outbox::open(Arc::clone(&path) as _, spool, "test", outbox, clock.now(), Duration::ZERO).await;
        let outbox = opened.unwrap().0;
        let dispatch = Dispatch::new(
            dispatch::Means {
                outbox: Arc::clone(&outbox),
                mailer: Arc::new(mailer),
                store: Arc::clone(&path) as _,
                directory: Arc::clone(&directory),
                clock: clock_of(true),
                random: random.clone(),
                tally,
            },
            plan.dispatch,
            &[],
        );
        tokio::spawn(Arc::clone(&dispatch).run(drain.clone(), drain.clone(), Duration::ZERO));
        let means = Means {
            store: Arc::clone(&path) as _,
            store_available: Arc::new(|| true),
            directory: Arc::clone(&directory),
            dispatch: Arc::clone(&dispatch),
            acceptor: Some(Arc::new(certificates)),
            clock: clock_of(false),
            random,
            watch: bulkhead::watch::Watch::off(),
        };
        let listener = |tls| Listener { address: "127.0.0.1:0".parse().unwrap(), tls, trusted_proxies: None };
        let listeners = vec![listener(Tls::Starttls), listener(Tls::Implicit)];
        let relay = Relay::bind(means, Options { terms: plan.terms, listeners, limits: plan.limits }).await.unwrap();
        let addresses = relay.addresses();
        clients_of(&addresses, 1000 + NUMBER.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(relay.run(drain.clone()));
        Self {
            starttls: addresses[0],
            implicit: addresses[1],
            ca,
            url,
            inbox,
            faults,
            queue,
            door,
            store,
            path,
            platter,
            dispatch,
            directory,
            tenants,
            credentials,
            outbox,
            ahead,
            _drain: drain.drop_guard(),
            folder,
        }
    }

    /// Lets time pass for relay and dispatcher. The dispatcher finds out within half a second.
    pub fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    /// The time as relay and dispatcher have it.
    pub fn now(&self) -> Timestamp {
        Ahead { millis: Arc::clone(&self.ahead), instants: false }.now()
    }

    /// Body files in the outbox's folder, those that are being written among them.
    pub fn files(&self) -> usize {
        let outbox = self.folder.path().join("outbox");
        let bodies = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
            entries.filter(|entry| entry.file_type().unwrap().is_file() && entry.file_name() != "generation").count()
        };
        bodies(&outbox) + bodies(&outbox.join("incoming"))
    }

    /// Whether a body file notes these marks of a message's recipients.
    pub fn notes(&self, marks: &str) -> bool {
        let entries = std::fs::read_dir(self.folder.path().join("outbox")).unwrap().map(Result::unwrap);
        let note = format!("\nprogress {marks} ").into_bytes();
        entries
            .filter_map(|entry| std::fs::read(entry.path()).ok())
            .any(|octets| octets.windows(note.len()).any(|window| window == note))
    }

    /// With the tenants as `change` makes them of those it was built with.
    pub fn with(&self, change: impl FnOnce(&mut Vec<Tenant>)) {
        let mut tenants = self.tenants.clone();
        change(&mut tenants);
        self.publish(tenants, self.credentials.clone());
    }

    fn publish(&self, tenants: Vec<Tenant>, credentials: Vec<Credential>) {
        self.directory.store(Arc::new(Directory::new(tenants, credentials)));
    }

    /// Everything as it was built.
    pub fn restore(&self) {
        self.publish(self.tenants.clone(), self.credentials.clone());
    }

    /// Without that credential.
    pub fn revoke(&self, username: &str) {
        let mut credentials = self.credentials.clone();
        credentials.retain(|credential| credential.username.as_str() != username);
        self.publish(self.tenants.clone(), credentials);
    }

    /// With that tenant, or a stream of it, paused.
    pub fn pause(&self, tenant: usize, stream: Option<&str>) {
        let mut tenants = self.tenants.clone();
        let pause = Some(Pause { at: long_ago(), actor: "test".into(), reason: "a test".into() });
        match stream {
            Some(stream) => {
                tenants[tenant].streams.get_mut(&StreamId::parse(stream).unwrap()).unwrap().pause = pause;
            }
            None => tenants[tenant].pause = pause,
        }
        self.publish(tenants, self.credentials.clone());
    }

    /// With that stream sent in batches.
    pub fn batch(&self, tenant: usize, stream: &str) {
        let mut tenants = self.tenants.clone();
        tenants[tenant].streams.get_mut(&StreamId::parse(stream).unwrap()).unwrap().fan_out = FanOut::Batch;
        self.publish(tenants, self.credentials.clone());
    }

    /// A client in TLS that has said EHLO.
    pub async fn client(&self) -> Client {
        let mut client = Client::implicit(self.implicit, &self.ca).await.unwrap();
        assert_eq!(code(&client.say("EHLO client.example").await), 250);
        client
    }

    /// A client that is logged in.
    pub async fn login(&self, username: &str, secret: &str) -> Client {
        let mut client = Client::implicit(self.implicit, &self.ca).await.unwrap();
        let reply = client.login(username, secret).await;
        assert_eq!(code(&reply), 235, "{username}: {reply}");
        client
    }

    pub async fn suppress(&self, tenant: &str, mailbox: &str, reason: SuppressionReason) {
        let entry = Suppression { reason, origin: "test".into(), at: long_ago(), expires: None, actor: "test".into() };
        suppressions::add(&*self.store, &TenantId::parse(tenant).unwrap(), &address(mailbox), &entry, &Batch::new())
            .await
            .unwrap();
    }

    pub async fn is_suppressed(&self, tenant: &str, mailbox: &str) -> bool {
        let tenant = TenantId::parse(tenant).unwrap();
        !suppressions::find(&*self.store, &tenant, &address(mailbox)).await.unwrap().is_empty()
    }

    /// What SES got since `before`.
    pub fn since(&self, before: usize) -> Vec<Arc<Message>> {
        self.inbox.all().split_off(before)
    }
}

fn shared(mut tenant: Tenant, name: &str) -> Tenant {
    tenant.senders.push(SenderPattern::parse("vendor.example").unwrap());
    if name == "acme" {
        tenant.senders.push(SenderPattern::parse("billing@acme.test").unwrap());
    }
    tenant
}

pub fn address(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

pub fn base64(octets: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(octets)
}

/// DATA with the dots of RFC 5321 4.5.2.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets.extend_from_slice(b".\r\n");
    octets
}
