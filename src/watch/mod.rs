//! The watch: credentials that seem stolen, tenants whose volume is unusual.
//!
//! ```text
//! relay ── accepted ──▶ channel ──▶ Credentials: habits, judge ──▶ told, put on hold
//!                                       └─ every flush: changed rows ──▶ store
//! every hour: counters ──▶ Volumes: judge ──▶ told
//! ```
//!
//! The message path hands over what was accepted ([`Watch::accepted`]) and goes on: it hashes the
//! recipients and waits for nothing. [`Credentials`] keeps what each credential is used to in memory,
//! judges its hour after each message, and writes now and then; [`Volumes`] reads the counters once an
//! hour.
//!
//! Promises: nothing here delays or refuses mail but a hold, which `policy::decide` reads in the
//! directory. Everything in memory is bounded, by [`Options::waiting`], [`Options::credentials`] and
//! [`Options::octets`]. A credential is told of once in [`Options::again`], a tenant's hour once.
//! What can go wrong: the store. Then nothing is watched, mail goes on, and the log says so. A crash
//! forgets what came since the last flush: those recipients look first-time once more.

mod credentials;
mod told;
mod volumes;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::mpsc;

pub use credentials::Credentials;
pub use volumes::Volumes;

use crate::announce::Announce;
use crate::journal;
use crate::mail::{Login, Mailbox, TenantId, Username};
use crate::policy::{takeover, volume};
use crate::secret::Random;
use crate::store::directory::Current;
use crate::store::habits::Memory;
use crate::store::habits::filter::Print;
use crate::store::{Pending, Store};
use crate::time::{Clock, Timestamp};

/// What follows where a credential seems stolen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It is told.
    Alert,
    /// The credential is put on hold as well.
    Hold,
}

/// How it watches.
#[derive(Clone, Debug)]
pub struct Options {
    /// What follows; `None`: credentials are not watched.
    pub stolen: Option<Effect>,
    /// From what on a credential seems stolen.
    pub rules: takeover::Rules,
    /// How much of a credential's past is remembered.
    pub memory: Memory,
    /// Time in which a credential is not told of again, nor put on hold again after a release.
    pub again: Duration,
    /// Credentials in memory at once.
    pub credentials: usize,
    /// Octets they take there.
    pub octets: usize,
    /// Recipients that wait to be looked at.
    pub waiting: usize,
    /// How often habits are written.
    pub flush: Duration,
    /// From what on a tenant's volume is unusual.
    pub volume: volume::Rules,
}

/// What it works with.
#[derive(Clone)]
pub struct Means {
    /// Habits and counters.
    pub store: Arc<dyn Store>,
    /// Tenants and holds of the moment.
    pub directory: Current,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// For the ids of announcements.
    pub random: Arc<dyn Random>,
    /// Who tells people.
    pub announce: Arc<dyn Announce>,
    /// Who puts credentials on hold.
    pub holding: Arc<dyn Holding>,
}

/// Puts credentials on hold.
pub trait Holding: Send + Sync + 'static {
    /// Nothing more is taken from `credential` once this has answered. An error is words for the log.
    fn hold<'a>(&'a self, credential: &'a Username, reason: &'a str) -> Pending<'a, Result<(), String>>;
}

/// What the message path knows of it.
#[derive(Clone, Debug)]
pub struct Watch(Option<Ear>);

#[derive(Clone, Debug)]
struct Ear {
    sender: mpsc::UnboundedSender<Seen>,
    /// Recipients in the channel.
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// A message that was accepted.
#[derive(Debug)]
struct Seen {
    tenant: TenantId,
    credential: Username,
    network: IpNet,
    prints: Vec<Print>,
    at: Timestamp,
}

/// The two ends of the watch on credentials.
pub fn credentials(means: Means, options: Options) -> (Watch, Credentials) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let ear = Ear { sender, waiting: Arc::clone(&waiting), most: options.waiting };
    let watch = Watch(options.stolen.is_some().then_some(ear));
    (watch, Credentials::new(means, options, receiver, waiting))
}

impl Watch {
    /// Hears nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// A message of `login`'s from `peer` was accepted for `recipients` at `now`.
    pub fn accepted(&self, login: &Login, peer: IpAddr, recipients: &[Mailbox], now: Timestamp) {
        let Some(ear) = &self.0 else { return };
        let many = recipients.len();
        let before = ear.waiting.fetch_add(many, Ordering::Relaxed);
        if before.saturating_add(many) > ear.most {
            ear.waiting.fetch_sub(many, Ordering::Relaxed);
            journal::unwatched(many);
            return;
        }
        let seen = Seen {
            tenant: login.tenant.clone(),
            credential: login.credential.clone(),
            network: takeover::network_of(peer),
            prints: recipients.iter().map(|mailbox| Print::of(&login.credential, mailbox)).collect(),
            at: now,
        };
        // Nobody listens any more at the end of a drain.
        if ear.sender.send(seen).is_err() {
            ear.waiting.fetch_sub(many, Ordering::Relaxed);
        }
    }
}

impl Effect {
    /// `alert`, `hold`: in the log and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Hold => "hold",
        }
    }
}

impl Default for Options {
    /// As the settings have it.
    fn default() -> Self {
        Self {
            stolen: Some(Effect::Alert),
            rules: takeover::Rules::default(),
            memory: Memory { network_days: 30, chunks: crate::store::habits::filter::MOST_CHUNKS },
            again: Duration::from_hours(24),
            credentials: 10_000,
            octets: 64 * 1024 * 1024,
            waiting: 100_000,
            flush: Duration::from_secs(30),
            volume: volume::Rules::default(),
        }
    }
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}
