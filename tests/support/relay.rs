//! A relay on loopback ports with a scripted SES behind it, a client that speaks SMTP to it over
//! TCP and TLS, and the journal's lines as they are written.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::tls::{CaPem, Certificates, client_trusting, self_signed};
use bulkhead::dispatch::{self, Dispatch};
use bulkhead::mail::{ConfigurationSet, Domain, StreamId, Taken, TenantId, Username};
use bulkhead::outbox::memory::MemorySpool;
use bulkhead::outbox::{self, Bounds, Outbox};
use bulkhead::policy::tenant::{SenderPattern, Stream, StreamKind, Tenant};
use bulkhead::relay::{Limits, Listener, Means, Options, Relay, Tls};
use bulkhead::secret::Secret;
use bulkhead::smtp::Terms;
use bulkhead::store::credential::{Credential, Origin, SecretHash, StoredSecret};
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tally::Tally;
use bulkhead::store::{Batch, CommitError, Key, Pending, ReadError, Store, Versioned};
use bulkhead::time::{Clock, Timestamp};
use bulkhead::upstream::{Call, Mailer, Outcome, Paused, Refused, Retry};
use bulkhead::watch::Watch;
use bulkhead::wire::Duplex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What nothing here may take longer than.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The secret of the machine-made credentials.
pub const SECRET: &str = "bh_a-secret-of-a-machine";
/// The chosen password.
pub const PASSWORD: &str = "correct horse";

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

// ---------------------------------------------------------------------------------------------
// SES

/// SES as the recipients' local parts script it.
#[derive(Default)]
pub struct Script {
    pub calls: Mutex<Vec<Call>>,
    taken: AtomicUsize,
    /// Calls that wait at the gate.
    pub waiting: Semaphores,
}

pub struct Semaphores {
    pub arrived: Semaphore,
    pub open: Semaphore,
}

impl Default for Semaphores {
    fn default() -> Self {
        Self { arrived: Semaphore::new(0), open: Semaphore::new(0) }
    }
}

impl Mailer for Script {
    fn send(&self, call: Call) -> Pending<'_, Outcome> {
        Box::pin(async move {
            let first = call.recipients[0].local_part().to_owned();
            self.calls.lock().unwrap().push(call);
            let sent = || {
                let n = self.taken.fetch_add(1, Ordering::Relaxed);
                Outcome::Sent(Taken::by_ses(format!("ses-{n}")))
            };
            match first.split('-').next().unwrap() {
                "refused" => Outcome::Refused(Refused::Content, "Local address contains control or whitespace".into()),
                "unverified" => {
                    Outcome::Refused(Refused::IdentityNotVerified, "Email address is not verified: x@y".into())
                }
                "throttled" => Outcome::Retry(Retry::Throttled, "Maximum sending rate exceeded.".into()),
                "denied" => Outcome::Retry(Retry::AccessDenied, "User is not authorized".into()),
                "paused" => Outcome::Paused(Paused::Account, "Sending paused for this account.".into()),
                "unknown" => Outcome::Unknown("no answer".into()),
                "panic" => panic!("scripted"),
                "hang" => {
                    self.waiting.arrived.add_permits(1);
                    self.waiting.open.acquire().await.unwrap().forget();
                    sent()
                }
                _ => sent(),
            }
        })
    }
}

impl Script {
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
    /// Waits until a call hangs.
    pub async fn hanging(&self) {
        soon("a hanging call", self.waiting.arrived.acquire()).await.unwrap().forget();
    }
    pub fn release(&self) {
        self.waiting.open.add_permits(1);
    }
}

// ---------------------------------------------------------------------------------------------
// The store

/// A store in memory that can be told to panic.
#[derive(Default)]
pub struct Fragile {
    inner: MemoryStore,
    panics: AtomicBool,
}

impl Fragile {
    pub fn fail_with(&self, reason: &str) {
        self.inner.fail_with(reason);
    }
    pub fn heal(&self) {
        self.inner.heal();
    }
    /// The next read panics.
    pub fn panic_once(&self) {
        self.panics.store(true, Ordering::Relaxed);
    }
}

impl Store for Fragile {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "scripted");
        self.inner.get(key)
    }
    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "scripted");
        self.inner.scan(prefix, after, limit)
    }
    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        self.inner.commit(batch)
    }
}

// ---------------------------------------------------------------------------------------------
// The journal

#[derive(Default)]
pub struct Journal {
    lines: Mutex<Vec<serde_json::Value>>,
    news: Notify,
}

/// The lines of all tests of this process; a test looks for its own tenant's or peer's.
pub fn journal() -> &'static Journal {
    static JOURNAL: OnceLock<Journal> = OnceLock::new();
    static SUBSCRIBED: OnceLock<()> = OnceLock::new();
    let journal = JOURNAL.get_or_init(Journal::default);
    SUBSCRIBED.get_or_init(|| {
        use tracing_subscriber::layer::SubscriberExt as _;
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Collector)).unwrap();
    });
    journal
}

struct Collector;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Collector {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Line(Option<String>);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "line" && self.0.is_none() {
                    self.0 = Some(format!("{value:?}"));
                }
            }
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "line" {
                    self.0 = Some(value.to_owned());
                }
            }
        }
        if event.metadata().target() != "bulkhead" {
            return;
        }
        let mut line = Line(None);
        event.record(&mut line);
        let text = format!("{{{}}}", line.0.expect("every event of the journal has a line"));
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        journal().lines.lock().unwrap().push(value);
        journal().news.notify_waiters();
    }
}

impl Journal {
    /// The lines of `event` with `member` = `value`, so far.
    pub fn lines(&self, event: &str, member: &str, value: &str) -> Vec<serde_json::Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line["event"] == event && line[member] == value).cloned().collect()
    }

    /// Waits for such a line and gives the first.
    pub async fn wait(&self, event: &str, member: &str, value: &str) -> serde_json::Value {
        let look = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(line) = self.lines(event, member, value).pop() {
                    return line;
                }
                news.await;
            }
        };
        soon(&format!("{event} with {member}={value}"), look).await
    }

    /// All lines with `member` = `value`.
    pub fn all(&self, member: &str, value: &str) -> Vec<serde_json::Value> {
        self.lines.lock().unwrap().iter().filter(|line| line[member] == value).cloned().collect()
    }
}

// ---------------------------------------------------------------------------------------------
// The relay

pub struct Stand {
    pub name: String,
    pub starttls: SocketAddr,
    pub implicit: SocketAddr,
    pub clear: SocketAddr,
    pub proxied: SocketAddr,
    pub distrustful: SocketAddr,
    /// STARTTLS on the IPv6 loopback address, where the machine has one.
    pub six: Option<SocketAddr>,
    pub ca: CaPem,
    pub certificates: Arc<Certificates>,
    pub ses: Arc<Script>,
    pub store: Arc<Fragile>,
    /// Where bodies of held messages are.
    pub spool: MemorySpool,
    pub dispatch: Arc<Dispatch>,
    pub store_available: Arc<AtomicBool>,
    pub directory: Current,
    pub tenant: Tenant,
    pub credentials: Vec<Credential>,
    pub drain: CancellationToken,
    pub task: Option<JoinHandle<usize>>,
}

pub fn terms() -> Terms {
    Terms {
        hostname: "relay.example".into(),
        starttls: false,
        cleartext_auth: false,
        message_bytes: 8 * 1024 * 1024,
        head_bytes: 128 * 1024,
        spill_bytes: usize::MAX,
        recipients: 100,
        messages: 100,
        command_bytes: 2048,
        auth_bytes: 12288,
        line_bytes: 2000,
        errors: 20,
        commands_before_login: 100,
        auth_failures: 3,
        auth_delay: Duration::from_millis(1),
        auth_delay_longest: Duration::from_secs(60),
        command_time_unauthenticated: PATIENCE,
        command_time: PATIENCE,
        data_time: PATIENCE,
        data_rate: 1,
        data_grace: Duration::from_secs(30),
    }
}

/// Room for all that any test holds.
pub fn bounds() -> Bounds {
    Bounds { messages: 10_000, messages_per_tenant: 10_000, bytes_per_tenant: 1 << 40 }
}

pub fn limits() -> Limits {
    Limits { linger_time: Duration::from_millis(300), ..Limits::default() }
}

impl Stand {
    pub async fn start() -> Self {
        Self::with(limits()).await
    }

    pub async fn with(limits: Limits) -> Self {
        Self::watched(limits, Arc::new(MachineClock), |_, _| Watch::off()).await
    }

    /// With a clock of its own, and who is told of what is accepted.
    pub async fn watched(
        limits: Limits,
        clock: Arc<dyn Clock>,
        watch: impl FnOnce(&Arc<Fragile>, &Current) -> Watch,
    ) -> Self {
        static STANDS: AtomicUsize = AtomicUsize::new(0);
        journal();
        let number = STANDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{number}");
        let (ca, certificate, key) = self_signed(&["relay.example".into()]).unwrap();
        let certificates = Arc::new(Certificates::from_pem(&certificate, &key, Arc::new(MachineClock)).unwrap());
        let tenant = tenant(&name);
        let credentials = vec![
            credential(&name, "app", None, vec![hash(SECRET)]),
            credential(&name, "bound", Some("transactional"), vec![hash(SECRET)]),
            credential(&name, "chosen", None, vec![chosen(PASSWORD)]),
        ];
        let directory: Current = Arc::new(ArcSwap::from_pointee(Directory::new([tenant.clone()], credentials.clone())));
        let (ses, store) = (Arc::new(Script::default()), Arc::new(Fragile::default()));
        let store_available = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&store_available);
        let spool = MemorySpool::new();
        let dispatch = dispatcher(Arc::clone(&ses), Arc::clone(&store) as _, spool.clone(), &directory).await;
        let means = Means {
            store: Arc::clone(&store) as _,
            store_available: Arc::new(move || asked.load(Ordering::Relaxed)),
            directory: Arc::clone(&directory),
            dispatch: Arc::clone(&dispatch),
            acceptor: Some(Arc::clone(&certificates) as _),
            clock,
            random: Arc::new(MachineRandom),
            watch: watch(&store, &directory),
        };
        let listener = |tls, trusted: Option<&str>| Listener {
            address: "127.0.0.1:0".parse().unwrap(),
            tls,
            trusted_proxies: trusted.map(|network| vec![network.parse().unwrap()]),
        };
        let mut listeners = vec![
            listener(Tls::Starttls, None),
            listener(Tls::Implicit, None),
            listener(Tls::None, None),
            listener(Tls::None, Some("127.0.0.0/8")),
            listener(Tls::None, Some("192.0.2.0/24")),
        ];
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            listeners.push(Listener { address: "[::1]:0".parse().unwrap(), ..listener(Tls::Starttls, None) });
        }
        let relay = Relay::bind(means, Options { terms: terms(), listeners, limits }).await.unwrap();
        let addresses = relay.addresses();
        clients_of(&addresses, number);
        let drain = CancellationToken::new();
        let task = tokio::spawn(relay.run(drain.clone()));
        Self {
            name,
            starttls: addresses[0],
            implicit: addresses[1],
            clear: addresses[2],
            proxied: addresses[3],
            distrustful: addresses[4],
            six: addresses.get(5).copied(),
            ca,
            certificates,
            ses,
            store,
            spool,
            dispatch,
            store_available,
            directory,
            tenant,
            credentials,
            drain,
            task: Some(task),
        }
    }

    pub fn username(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    pub fn sender(&self) -> String {
        format!("app@{}.example", self.name)
    }

    /// Puts tenant and credentials as they are now in force.
    pub fn publish(&self) {
        self.directory.store(Arc::new(Directory::new([self.tenant.clone()], self.credentials.clone())));
    }

    /// Drains and gives the number of abandoned sessions.
    pub async fn stop(&mut self) -> usize {
        self.drain.cancel();
        soon("the drain", self.task.take().unwrap()).await.unwrap()
    }

    /// A client that is logged in over STARTTLS.
    pub async fn client(&self, which: &str) -> Client {
        let mut client = Client::starttls(self.starttls, &self.ca).await;
        assert_eq!(code(&client.login(&self.username(which), SECRET).await), 235);
        client
    }

    pub fn mailbox(&self, text: &str) -> bulkhead::mail::Mailbox {
        bulkhead::mail::Mailbox::parse(text.as_bytes()).unwrap()
    }

    /// A header section and a body of this tenant's.
    pub fn message(&self, extra: &str) -> String {
        format!("From: App <{}>\r\nTo: list@example.com\r\nSubject: hello\r\n{extra}\r\nbody\r\n", self.sender())
    }

    /// Verdict lines of this tenant.
    pub fn verdicts(&self) -> Vec<serde_json::Value> {
        journal().all("tenant", &self.name).into_iter().filter(is_verdict).collect()
    }
}

/// Whether a line of the log is a message's verdict.
pub fn is_verdict(line: &serde_json::Value) -> bool {
    ["message_relayed", "message_queued", "message_refused"].iter().any(|event| line["event"] == *event)
}

/// A dispatcher that holds in memory. Unless it is run, it makes the calls of new mail alone.
pub async fn dispatcher(
    ses: Arc<Script>,
    store: Arc<dyn Store>,
    spool: MemorySpool,
    directory: &Current,
) -> Arc<Dispatch> {
    let clock = Arc::new(MachineClock);
    let options = outbox::Options { bounds: bounds(), disk_reserve_bytes: 0 };
    let opened =
        Outbox::open(Arc::clone(&store), Arc::new(spool), "test", options, clock.now(), PATIENCE).await.unwrap();
    let means = dispatch::Means {
        outbox: opened.0,
        mailer: ses,
        store,
        directory: Arc::clone(directory),
        clock,
        random: Arc::new(MachineRandom),
        tally: Arc::new(Tally::default()),
    };
    Dispatch::new(means, dispatch::Options::default(), &[])
}

pub fn hash(secret: &str) -> SecretHash {
    SecretHash::of(&Secret::new(secret.as_bytes().to_vec()))
}

/// Argon2id at its cheapest.
pub fn chosen(password: &str) -> SecretHash {
    use argon2::password_hash::PasswordHasher as _;
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    SecretHash::parse(&argon.hash_password(password.as_bytes()).unwrap().to_string()).unwrap()
}

pub fn credential(tenant: &str, which: &str, stream: Option<&str>, hashes: Vec<SecretHash>) -> Credential {
    Credential {
        username: Username::parse(&format!("{tenant}-{which}")).unwrap(),
        tenant: TenantId::parse(tenant).unwrap(),
        stream: stream.map(|stream| StreamId::parse(stream).unwrap()),
        secrets: hashes.into_iter().map(|hash| StoredSecret { hash, expires: None }).collect(),
        from_ip: Vec::new(),
        expires: None,
        origin: Origin::Issued,
        created: MachineClock.now(),
        actor: "test".into(),
    }
}

pub fn tenant(name: &str) -> Tenant {
    let stream = |id: &str, kind| Stream {
        exposure: false,
        ..Stream::new(StreamId::parse(id).unwrap(), kind, ConfigurationSet::parse(&format!("{name}-{id}")).unwrap())
    };
    let streams = [stream("transactional", StreamKind::Transactional), stream("marketing", StreamKind::Marketing)];
    Tenant {
        senders: vec![SenderPattern::Domain(Domain::parse(&format!("{name}.example")).unwrap())],
        streams: streams.into_iter().map(|stream| (stream.id.clone(), stream)).collect::<BTreeMap<_, _>>(),
        ..Tenant::new(TenantId::parse(name).unwrap(), StreamId::parse("transactional").unwrap())
    }
}

pub fn long_ago() -> Timestamp {
    Timestamp::parse_rfc3339("2026-05-01T00:00:00Z").unwrap()
}

// ---------------------------------------------------------------------------------------------
// The client

pub struct Client {
    stream: Option<Box<dyn Duplex>>,
    plain: Option<TcpStream>,
    read: Vec<u8>,
    pub local: SocketAddr,
}

pub fn code(reply: &str) -> u16 {
    reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default()
}

impl Client {
    /// TCP alone; the greeting has not been read.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from(source_for(address), address).await
    }

    /// The same from a loopback address of the test's choice.
    pub async fn connect_from(source: SocketAddr, address: SocketAddr) -> Self {
        let socket = if source.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.unwrap();
        socket.bind(source).unwrap();
        let plain = soon("connecting", socket.connect(address)).await.unwrap();
        plain.set_nodelay(true).unwrap();
        let local = plain.local_addr().unwrap();
        Self { stream: None, plain: Some(plain), read: Vec::new(), local }
    }

    /// TCP, the greeting read.
    pub async fn plain(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        let greeting = client.reply().await;
        assert_eq!(code(&greeting), 220, "{greeting}");
        client
    }

    pub async fn starttls(address: SocketAddr, ca: &CaPem) -> Self {
        let mut client = Self::plain(address).await;
        assert!(client.say("EHLO client.example").await.contains("STARTTLS"));
        assert_eq!(code(&client.say("STARTTLS").await), 220);
        client.secure(ca).await.unwrap();
        client
    }

    pub async fn implicit(address: SocketAddr, ca: &CaPem) -> std::io::Result<Self> {
        let mut client = Self::connect(address).await;
        client.secure(ca).await?;
        assert_eq!(code(&client.reply().await), 220);
        Ok(client)
    }

    pub async fn secure(&mut self, ca: &CaPem) -> std::io::Result<()> {
        let connector = tokio_rustls::TlsConnector::from(client_trusting(ca).unwrap());
        let name = "relay.example".try_into().unwrap();
        let secured = soon("the handshake", connector.connect(name, self.plain.take().unwrap())).await?;
        self.stream = Some(Box::new(secured));
        Ok(())
    }

    pub async fn write(&mut self, octets: &[u8]) {
        let written = match (&mut self.stream, &mut self.plain) {
            (Some(stream), _) => {
                soon("writing", async {
                    stream.write_all(octets).await?;
                    stream.flush().await
                })
                .await
            }
            (None, Some(plain)) => soon("writing", plain.write_all(octets)).await,
            (None, None) => panic!("no connection"),
        };
        written.unwrap();
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        let mut octets = [0; 4096];
        let n = match (&mut self.stream, &mut self.plain) {
            (Some(stream), _) => soon("reading", stream.read(&mut octets)).await?,
            (None, Some(plain)) => soon("reading", plain.read(&mut octets)).await?,
            (None, None) => 0,
        };
        self.read.extend_from_slice(&octets[..n]);
        Ok(n)
    }

    /// One reply, all of its lines; what there is when the connection ends.
    pub async fn reply(&mut self) -> String {
        loop {
            if let Some(end) = whole_reply(&self.read) {
                let rest = self.read.split_off(end);
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            if self.fill().await.unwrap_or(0) == 0 {
                return String::from_utf8(std::mem::take(&mut self.read)).unwrap();
            }
        }
    }

    pub async fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Whether the connection has ended and nothing was left unsaid.
    pub async fn closed(&mut self) -> bool {
        self.read.is_empty() && matches!(self.fill().await, Ok(0) | Err(_))
    }

    /// Closes the client's half and gives all that is said until the relay has closed its own.
    pub async fn hang_up(mut self) -> String {
        let _ = match (&mut self.stream, &mut self.plain) {
            (Some(stream), _) => stream.shutdown().await,
            (None, Some(plain)) => plain.shutdown().await,
            (None, None) => Ok(()),
        };
        while self.fill().await.unwrap_or(0) > 0 {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// How it ended: `Ok` for an orderly end, after TLS's close_notify where there is TLS.
    pub async fn end(&mut self) -> std::io::Result<()> {
        assert_eq!(String::from_utf8_lossy(&self.read), "");
        match self.fill().await? {
            0 => Ok(()),
            _ => panic!("more was said: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    pub async fn login(&mut self, username: &str, password: &str) -> String {
        self.say("EHLO client.example").await;
        let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{username}\0{password}"));
        self.say(&format!("AUTH PLAIN {plain}")).await
    }

    /// MAIL and RCPTs; gives the replies to the RCPTs.
    pub async fn envelope(&mut self, from: &str, to: &[&str]) -> Vec<String> {
        let reply = self.say(&format!("MAIL FROM:<{from}>")).await;
        assert_eq!(code(&reply), 250, "{reply}");
        let mut replies = Vec::new();
        for to in to {
            replies.push(self.say(&format!("RCPT TO:<{to}>")).await);
        }
        replies
    }

    /// DATA to the end of the data, without waiting for the reply.
    pub async fn data(&mut self, message: &str) {
        assert_eq!(code(&self.say("DATA").await), 354);
        self.write(format!("{message}.\r\n").as_bytes()).await;
    }

    /// A whole transaction; the reply to its data.
    pub async fn send(&mut self, from: &str, to: &[&str], message: &str) -> String {
        for reply in self.envelope(from, to).await {
            assert_eq!(code(&reply), 250, "{reply}");
        }
        self.data(message).await;
        self.reply().await
    }
}

/// Each relay's clients come from a loopback address of their own, so that a peer in the journal is
/// one test's alone.
fn source_for(listener: SocketAddr) -> SocketAddr {
    if listener.is_ipv6() {
        // There is but one.
        return "[::1]:0".parse().unwrap();
    }
    let stand = SOURCES.lock().unwrap().get(&listener).copied().unwrap_or_default();
    let [.., high, low] = stand.to_be_bytes();
    SocketAddr::from(([127, 1, high, low.wrapping_add(1)], 0))
}

/// Says that the clients of these listeners come from the address of that number.
pub fn clients_of(listeners: &[SocketAddr], number: usize) {
    SOURCES.lock().unwrap().extend(listeners.iter().map(|address| (*address, number)));
}

static SOURCES: Mutex<BTreeMap<SocketAddr, usize>> = Mutex::new(BTreeMap::new());

fn whole_reply(read: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + read[from..].windows(2).position(|pair| pair == b"\r\n")?;
        if read.get(from + 3) != Some(&b'-') {
            return Some(end + 2);
        }
        from = end + 2;
    }
}
