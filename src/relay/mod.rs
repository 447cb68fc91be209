//! The relay: listeners, admission, connections.
//!
//! [`Relay::bind`] opens the listeners, [`Relay::run`] serves until the drain. A connection climbs
//! the [`admission`] ladder, then its [`Session`] is walked by `connection`, which asks `answer`;
//! `message` takes a message from the end of its data to its one verdict line.
//!
//! Promises: nothing here blocks an async thread but for microseconds; every bound has a name in
//! [`Limits`]; a fault of ours is a 4xx; a panic in one connection ends that connection.
//! Refuses: connections past the ladder, with a 421 each has a name for. On implicit TLS they are
//! closed without a word, since the handshake that the word would need is what the ladder spares;
//! a client takes that as it takes a 421: it comes back.
//! What can go wrong: the process runs out of descriptors. Accepting then pauses, longer each time
//! up to [`ACCEPT_PAUSE`], and goes on.
//!
//! The drain: listeners close, sessions hear 421 as soon as no transaction is under way, messages
//! are finished; those that still wait for SES [`HOLD_TIME`] before the end are held. What is not
//! finished within `limits.drain_seconds` is abandoned and counted: each
//! message gets its verdict line and each client, if it listens, its 451; `limits.linger_seconds`
//! later the connections that are left are cut.

pub mod admission;
mod answer;
mod connection;
mod login;
mod memory;
mod message;
mod proxy;
mod trace;
pub mod wording;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::Dispatch;
use crate::dispatch::budget;
use crate::journal;
use crate::mail::header::HeaderLimits;
use crate::policy::tenant::{Stream, StreamKind};
use crate::secret::Random;
use crate::smtp::{Session, Terms};
use crate::store::Store;
use crate::store::directory::Current;
use crate::time::Clock;
use crate::watch::Watch;
use crate::wire::Acceptor;
use admission::{Place, Tally as Places};

/// Connections that wait in the kernel until they are accepted.
const BACKLOG: i32 = 1024;
/// How long before the end of a drain messages that wait for SES are held.
pub const HOLD_TIME: Duration = Duration::from_secs(5);
/// Longest pause after a failed accept.
pub const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the relay works with.
pub struct Means {
    /// Suppressions are read here.
    pub store: Arc<dyn Store>,
    /// Whether the store still works; asked at each connection.
    pub store_available: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Tenants and credentials of the moment.
    pub directory: Current,
    /// Who takes messages over.
    pub dispatch: Arc<Dispatch>,
    /// TLS; `None` only where no listener has any.
    pub acceptor: Option<Arc<dyn Acceptor>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and the credential cache's key.
    pub random: Arc<dyn Random>,
    /// Who is told of what was accepted.
    pub watch: Watch,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

/// How the relay is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all listeners agree on with their clients. `starttls` and `cleartext_auth` follow from
    /// each listener's [`Tls`].
    pub terms: Terms,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// The bounds.
    pub limits: Limits,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where; port 0 lets the system choose. An IPv6 address takes IPv6 connections only.
    pub address: SocketAddr,
    /// When TLS begins.
    pub tls: Tls,
    /// With the PROXY protocol: the addresses that may speak it; all others are refused.
    pub trusted_proxies: Option<Vec<IpNet>>,
}

/// When TLS begins on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// After STARTTLS; AUTH only then.
    Starttls,
    /// Before the greeting.
    Implicit,
    /// Never; AUTH in the clear. Where that may be is the settings' affair.
    None,
}

impl Tls {
    fn word(self) -> &'static str {
        match self {
            Self::Starttls => "starttls",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }
}

/// The relay's bounds; those of a single conversation are in [`Terms`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections that are being turned away at the same time; past it they are closed at once.
    pub refusals: usize,
    /// Connections from one IPv4 address or one IPv6 /64.
    pub connections_per_ip: usize,
    /// Connections logged in for one tenant.
    pub connections_per_tenant: usize,
    /// Octets of mail data held by all connections together.
    pub memory_bytes: usize,
    /// Octets that a growing message takes of that at a time.
    pub memory_step: usize,
    /// How long a message waits for room before it is refused with 452 4.3.1.
    pub memory_wait: Duration,
    /// Octets of the copies made for SES.
    pub call_bytes: usize,
    /// How long a call waits for room among them before the message is deferred.
    pub call_wait: Duration,
    /// SendEmail calls of one message at the same time.
    pub calls_per_message: usize,
    /// Time for one write of replies.
    pub write_time: Duration,
    /// Time for a TLS handshake, from the moment it is due.
    pub handshake_time: Duration,
    /// Handshakes at the same time, from their first octet on.
    pub handshakes: usize,
    /// Time for a PROXY header.
    pub proxy_time: Duration,
    /// How long a closed connection is listened to, so that its last reply arrives.
    pub linger_time: Duration,
    /// Argon2id verifications at the same time; each takes a thread and its memory.
    pub auth_verifications: usize,
    /// How long a login waits for one before it hears 454 4.7.0.
    pub auth_wait: Duration,
    /// How long a verified argon2id secret is remembered.
    pub auth_cache_time: Duration,
    /// Most of them remembered.
    pub auth_cache_entries: usize,
    /// Most Received fields of a message.
    pub received_hops: usize,
    /// How large a header section may be.
    pub header: HeaderLimits,
    /// How long a drain waits for what is under way.
    pub drain_time: Duration,
    /// From the end of a message's data to its reply; where SES has not answered by then, the
    /// message is held.
    pub data_deadline: Duration,
    /// How long a held message is tried, by kind of stream.
    pub ages: Ages,
    /// Whether what is known of SES's account list binds recipients.
    pub account_list: bool,
}

/// How long held messages are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ages {
    /// Transactional mail.
    pub transactional: Duration,
    /// Bulk mail.
    pub bulk: Duration,
    /// Campaigns.
    pub marketing: Duration,
}

impl Ages {
    /// How long mail of `stream` is tried.
    fn of(&self, stream: &Stream) -> Duration {
        match (stream.max_age_hours, stream.kind) {
            (Some(hours), _) => Duration::from_secs(u64::from(hours) * 3600),
            (None, StreamKind::Transactional) => self.transactional,
            (None, StreamKind::Bulk) => self.bulk,
            (None, StreamKind::Marketing) => self.marketing,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4000,
            refusals: 256,
            connections_per_ip: 200,
            connections_per_tenant: 500,
            memory_bytes: 512 * 1024 * 1024,
            memory_step: 64 * 1024,
            memory_wait: Duration::from_secs(5),
            call_bytes: 256 * 1024 * 1024,
            call_wait: Duration::from_secs(60),
            calls_per_message: 8,
            write_time: Duration::from_secs(60),
            handshake_time: Duration::from_secs(15),
            handshakes: 1000,
            proxy_time: Duration::from_secs(5),
            linger_time: Duration::from_secs(2),
            auth_verifications: 2,
            auth_wait: Duration::from_secs(5),
            auth_cache_time: Duration::from_secs(300),
            auth_cache_entries: 10_000,
            received_hops: 50,
            header: HeaderLimits { bytes: 256 * 1024, fields: 1000, line: 998 },
            drain_time: Duration::from_secs(20),
            data_deadline: Duration::from_secs(25),
            ages: Ages {
                transactional: Duration::from_secs(48 * 3600),
                bulk: Duration::from_secs(24 * 3600),
                marketing: Duration::from_secs(24 * 3600),
            },
            account_list: false,
        }
    }
}

/// Whether new connections are welcome at all.
#[derive(Clone, Copy, Debug)]
struct Standing {
    draining: bool,
    store_available: bool,
}

/// What all connections share.
struct Office {
    means: Means,
    bounds: ArcSwap<Bounds>,
    hostname: String,
    gate: admission::Gate,
    memory: memory::Memory,
    verifier: login::Verifier,
    handshakes: Arc<budget::Budget>,
    /// Conversations under way.
    sessions: AtomicUsize,
    /// Connections and messages under way.
    tasks: TaskTracker,
    /// The drain's time is over: messages end.
    abandon: CancellationToken,
    /// And so do connections.
    cut: CancellationToken,
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").finish_non_exhaustive()
    }
}

/// What the connections of one listener share.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    tls: Tls,
    trusted_proxies: Option<Vec<IpNet>>,
}

/// What a connection keeps to, from its first octet to its last.
#[derive(Debug)]
struct Bounds {
    limits: Limits,
    /// By when TLS begins.
    starttls: Arc<Terms>,
    implicit: Arc<Terms>,
    none: Arc<Terms>,
}

impl Bounds {
    fn new(terms: &Terms, limits: Limits) -> Self {
        let of = |tls| {
            let (starttls, cleartext_auth) = (tls == Tls::Starttls, tls == Tls::None);
            Arc::new(Terms { starttls, cleartext_auth, ..terms.clone() })
        };
        Self { limits, starttls: of(Tls::Starttls), implicit: of(Tls::Implicit), none: of(Tls::None) }
    }

    /// Octets of a message that stay in memory when it is spilled.
    fn head_bytes(&self) -> usize {
        self.none.head_bytes
    }

    /// Octets of a message above which it is spilled.
    fn spill_bytes(&self) -> usize {
        self.none.spill_bytes
    }

    fn terms(&self, tls: Tls) -> Arc<Terms> {
        Arc::clone(match tls {
            Tls::Starttls => &self.starttls,
            Tls::Implicit => &self.implicit,
            Tls::None => &self.none,
        })
    }

    /// Connections that are served or turned away.
    fn places(&self) -> usize {
        self.limits.connections.saturating_add(self.limits.refusals)
    }
}

/// Changes the bounds of a relay that runs.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Office>);

impl Handle {
    /// From now on these are the bounds. What all connections share is resized at once; whatever is
    /// taken stays until it is given back. What a connection agreed on with its client
    /// (`terms` and its own times) it keeps; the next one gets the new. The host name stays.
    pub fn change(&self, terms: Terms, limits: Limits) {
        let office = &self.0;
        office.gate.resize(&limits);
        office.memory.resize(&limits);
        office.means.dispatch.resize(limits.call_bytes, limits.call_wait, limits.calls_per_message);
        office.verifier.resize(&limits);
        office.handshakes.resize(limits.handshakes);
        let terms = Terms { hostname: office.hostname.clone(), ..terms };
        office.bounds.store(Arc::new(Bounds::new(&terms, limits)));
    }
}

/// The relay, bound.
#[derive(Debug)]
pub struct Relay {
    office: Arc<Office>,
    listeners: Vec<(TcpListener, Arc<Door>)>,
}

impl Relay {
    /// Opens all listeners or none. An error names the address.
    pub async fn bind(means: Means, options: Options) -> io::Result<Self> {
        let Options { terms, listeners, limits } = options;
        let mut bound = Vec::with_capacity(listeners.len());
        for listener in listeners {
            if listener.tls != Tls::None && means.acceptor.is_none() {
                let what = format!("{}: tls = \"{}\" needs a certificate", listener.address, listener.tls.word());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            let socket = open(listener.address)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", listener.address)))?;
            let door =
                Door { address: socket.local_addr()?, tls: listener.tls, trusted_proxies: listener.trusted_proxies };
            bound.push((socket, Arc::new(door)));
        }
        let office = Office {
            gate: admission::Gate::new(&limits),
            memory: memory::Memory::new(&limits),
            verifier: login::Verifier::new(&limits, &*means.random),
            handshakes: budget::Budget::new(limits.handshakes),
            sessions: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
            cut: CancellationToken::new(),
            hostname: terms.hostname.clone(),
            means,
            bounds: ArcSwap::from_pointee(Bounds::new(&terms, limits)),
        };
        Ok(Self { office: Arc::new(office), listeners: bound })
    }

    /// What its bounds are changed with.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.office))
    }

    /// Where it listens, in the order of the settings, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, door)| door.address).collect()
    }

    /// Serves until `drain`, then finishes what is under way. Returns how many sessions were
    /// abandoned because `limits.drain_seconds` was over.
    pub async fn run(self, drain: CancellationToken) -> usize {
        let Self { office, listeners } = self;
        // Its turn comes when no listener hands out places any more.
        let places = Arc::default();
        let doors = TaskTracker::new();
        for (socket, door) in listeners {
            journal::listener_opened(door.address, door.tls.word());
            doors.spawn(listen(Arc::clone(&office), socket, door, Arc::clone(&places), drain.clone()));
        }
        doors.close();
        drain.cancelled().await;
        doors.wait().await;
        journal::drain_started(office.sessions.load(Ordering::Relaxed));
        office.tasks.close();
        let limits = office.bounds.load().limits.clone();
        // Who still waits for SES a little before the end is held, so that its client hears 250.
        let patience = limits.drain_time.saturating_sub(HOLD_TIME.min(limits.drain_time / 2));
        if timeout(patience, office.tasks.wait()).await.is_ok() {
            return 0;
        }
        office.means.dispatch.hurry();
        if timeout(limits.drain_time - patience, office.tasks.wait()).await.is_ok() {
            return 0;
        }
        let abandoned = office.sessions.load(Ordering::Relaxed);
        office.abandon.cancel();
        let _ = timeout(limits.linger_time, office.tasks.wait()).await;
        office.cut.cancel();
        office.tasks.wait().await;
        abandoned
    }
}

/// A listening socket. IPv6 ones take IPv6 alone, so that `0.0.0.0` and `::` can stand side by side
/// on every system.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart need not wait for connections of the old process to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the drain.
async fn listen(
    office: Arc<Office>,
    socket: TcpListener,
    door: Arc<Door>,
    places: Arc<Places<()>>,
    drain: CancellationToken,
) {
    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((connection, peer)) => {
                pause = Duration::ZERO;
                // Past even the places for those who are turned away: closed at once.
                if let Some(place) = places.take((), office.bounds.load().places()) {
                    let welcome = welcome(Arc::clone(&office), Arc::clone(&door), connection, peer, drain.clone());
                    spawn(&office, place, welcome);
                }
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                pause = (pause * 2).clamp(Duration::from_millis(10), ACCEPT_PAUSE);
                journal::accept_failed(door.address, &error.to_string(), pause);
                // An end of the pause by the drain is seen at the next turn.
                let _ = timeout(pause, drain.cancelled()).await;
            }
        }
    }
}

fn spawn(office: &Office, place: Place<()>, connection: impl Future<Output = ()> + Send + 'static) {
    office.tasks.spawn(until_cut(office.cut.clone(), place, Box::pin(connection)));
}

/// Carries a connection until it ends or is cut. It comes in a box, since a future that is handed on
/// by value is kept once more by each that hands it on.
async fn until_cut(cut: CancellationToken, place: Place<()>, connection: Pin<Box<impl Future<Output = ()> + Send>>) {
    let _place = place;
    let _ = cut.run_until_cancelled(connection).await;
}

/// Whether a failed accept says something about one client rather than about us.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Finds out who is there, walks the ladder, and lets in or turns away.
async fn welcome(
    office: Arc<Office>,
    door: Arc<Door>,
    mut socket: TcpStream,
    from: SocketAddr,
    drain: CancellationToken,
) {
    // Replies are whole when written: waiting for more would only hold them back.
    let _ = socket.set_nodelay(true);
    let bounds = office.bounds.load_full();
    let Some((peer, quiet)) = origin(&bounds, &door, &mut socket, from).await else { return };
    let standing = Standing { draining: drain.is_cancelled(), store_available: (office.means.store_available)() };
    match office.gate.admit(standing, &office.memory, peer.ip()) {
        Ok(admission) => {
            connection::Connection::new(office, bounds, door, socket, peer, quiet, drain).run().await;
            drop(admission);
        }
        Err(rung) => {
            let refusal = rung.refusal();
            journal::session_refused(peer, rung.name(), refusal.reply());
            if door.tls != Tls::Implicit {
                Box::pin(connection::turn_away(&office, &bounds, socket, Session::refused(refusal))).await;
            }
        }
    }
}

/// Who is there, and whether it is a balancer that speaks for itself; `None` when that cannot be
/// told, which has been logged.
async fn origin(bounds: &Bounds, door: &Door, socket: &mut TcpStream, from: SocketAddr) -> Option<(SocketAddr, bool)> {
    let Some(trusted) = &door.trusted_proxies else { return Some((from, false)) };
    let address = from.ip().to_canonical();
    if !trusted.iter().any(|network| network.contains(&address)) {
        journal::proxy_refused(from, "the address is not in trusted_proxies");
        return None;
    }
    match timeout(bounds.limits.proxy_time, Box::pin(proxy::read(socket))).await {
        Ok(Ok(proxy::Origin::Client(client))) => Some((client, false)),
        Ok(Ok(proxy::Origin::Balancer)) => Some((from, true)),
        // A balancer's health check that only connects.
        Ok(Err(proxy::ProxyError::Silent)) => None,
        Ok(Err(error)) => {
            journal::proxy_refused(from, &error.to_string());
            None
        }
        Err(_) => {
            journal::proxy_refused(from, "no PROXY header came within limits.proxy_seconds");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use super::*;

    /// What an idle connection costs beside rustls's own state and the kernel's: the manual has the
    /// measured sum; this holds our share of it down.
    #[test]
    fn the_state_of_a_connection_stays_small() {
        fn size<F: Future>(_: fn(Arc<Office>, Arc<Door>, TcpStream, SocketAddr, CancellationToken) -> F) -> usize {
            size_of::<F>()
        }
        type Idle = Pin<Box<Ready<()>>>;
        fn size_around<F: Future>(_: fn(CancellationToken, Place<()>, Idle) -> F) -> usize {
            size_of::<F>()
        }
        let (octets, around) = (size(welcome), size_around(until_cut));
        println!("{octets} octets of state a connection, and {around} of the task around it");
        assert!(octets <= 4096, "{octets} octets");
        assert!(around <= 512, "{around} octets");
    }

    #[tokio::test]
    async fn ipv4_and_ipv6_stand_on_the_same_port() {
        let four = open("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = four.local_addr().unwrap().port();
        open(SocketAddr::new("::".parse().unwrap(), port)).unwrap();
    }
}
