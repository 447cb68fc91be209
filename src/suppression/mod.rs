//! The comparison of our suppression lists with Amazon SES's own.
//!
//! ```text
//! the account's list ─┐                      ┌─ account-suppression: binds everybody's mail
//! a tenant's list ────┼─ a pass, now and then ┼─ ses-list: what SES has, in its spelling
//!        ▲            ┘                      └─ the tenant's own list
//!        └────────── put, delete ([`Mode::Both`])
//! ```
//!
//! A pass over a list reads all its pages, lets go what SES no longer has, and with [`Mode::Both`] puts
//! on SES's list what the tenant's own has and SES's has not, and deletes there what was taken off
//! here: see `pass`. Then it waits for [`Options::every`].
//!
//! Promises: one call at a time, and a call's begin is [`Options::pace`] from the one's before, over all
//! lists; a pass that is cut short goes on where it was, after a restart as well; nothing here is on
//! the way of a message. What can go wrong: SES, the network, our permissions, the store. It is logged
//! with its cure and tried again with growing pauses, the other lists meanwhile go on.

mod pass;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::{self, Blame, Synced};
use crate::mail::{SesTenant, TenantId};
use crate::retry::backoff;
use crate::secret::Random;
use crate::store::directory::Current;
use crate::store::{CommitError, ReadError, Store};
use crate::time::Clock;
use crate::upstream::lists::{ListError, Suppressions};

/// How often it is looked whether a list is due.
const LOOK: Duration = Duration::from_secs(60);
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_secs(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Which way entries go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// From SES's lists to ours.
    Pull,
    /// That, and from a tenant's list to that of its SES tenant.
    Both,
}

/// How lists are compared.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which way.
    pub mode: Mode,
    /// From the end of a pass to the next.
    pub every: Duration,
    /// From the begin of one call to the next, at least. SES allows about one a second.
    pub pace: Duration,
}

/// Compares lists.
pub struct ListSync {
    store: Arc<dyn Store>,
    directory: Current,
    lists: Arc<dyn Suppressions>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    options: Options,
}

/// A list of SES's: the account's (`None`), or a tenant's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scope(pub Option<(TenantId, SesTenant)>);

/// Why a pass stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// SES did not do what it was asked.
    #[error(transparent)]
    List(#[from] ListError),
    /// A record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was found could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// When the next call may begin.
#[derive(Debug)]
struct Pace {
    next: Option<Instant>,
    every: Duration,
}

impl Scope {
    /// Whose list it is; `None`: nobody's.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.0.as_ref().map(|(tenant, _)| tenant)
    }

    fn ses_tenant(&self) -> Option<&SesTenant> {
        self.0.as_ref().map(|(_, ses_tenant)| ses_tenant)
    }
}

impl Pace {
    async fn turn(&mut self) {
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
        self.next = Some(Instant::now() + self.every);
    }
}

impl Fault {
    fn blame(&self) -> Blame {
        match self {
            Self::List(ListError::Denied(_) | ListError::Missing(_)) | Self::Read(_) | Self::Commit(_) => Blame::Us,
            Self::List(ListError::Throttled(_) | ListError::Refused(_) | ListError::Unavailable(_)) => Blame::Upstream,
        }
    }

    fn cure(&self) -> &'static str {
        match self {
            Self::List(error) => error.cure(),
            Self::Read(ReadError::Corrupt(..)) => {
                "`bulkhead suppression remove --force` takes a damaged entry off its list"
            }
            Self::Read(ReadError::Unavailable(_)) | Self::Commit(_) => "see what the log says of the store",
        }
    }
}

impl ListSync {
    /// Nothing happens before [`run`](Self::run) or [`round`](Self::round).
    pub fn new(
        store: Arc<dyn Store>,
        directory: Current,
        lists: Arc<dyn Suppressions>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        options: Options,
    ) -> Self {
        Self { store, directory, lists, clock, random, options }
    }

    /// Compares whatever is due, until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        let mut pace = self.pace();
        let mut waits: HashMap<Scope, (u32, Instant)> = HashMap::new();
        loop {
            let scopes = self.scopes();
            waits.retain(|scope, _| scopes.contains(scope));
            for scope in scopes {
                if waits.get(&scope).is_some_and(|(_, until)| Instant::now() < *until) {
                    continue;
                }
                // What is dropped in the middle is taken up where it was.
                let ended = tokio::select! {
                    biased;
                    () = drain.cancelled() => return,
                    ended = self.advance(&scope, &mut pace) => ended,
                };
                let Err(fault) = ended else {
                    waits.remove(&scope);
                    continue;
                };
                let failures = waits.get(&scope).map_or(0, |(failures, _)| *failures);
                let pause = backoff(failures, PAUSE, LONGEST_PAUSE, self.random.fraction());
                journal::sync_failed(scope.tenant(), &fault.to_string(), fault.cure(), fault.blame(), pause);
                waits.insert(scope, (failures.saturating_add(1), Instant::now() + pause));
            }
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Compares each list that is due once; what became of them. A list that is not due is not there.
    pub async fn round(&self) -> Vec<(Scope, Result<Synced, Fault>)> {
        let mut pace = self.pace();
        let mut done = Vec::new();
        for scope in self.scopes() {
            match self.advance(&scope, &mut pace).await {
                Ok(None) => {}
                Ok(Some(synced)) => done.push((scope, Ok(synced))),
                Err(fault) => done.push((scope, Err(fault))),
            }
        }
        done
    }

    fn pace(&self) -> Pace {
        Pace { next: None, every: self.options.pace }
    }

    /// The account's list, and those of tenants that have an SES tenant.
    fn scopes(&self) -> Vec<Scope> {
        let directory = self.directory.load();
        let tenants =
            directory.tenants().filter_map(|tenant| Some(Scope(Some((tenant.id.clone(), tenant.ses_tenant.clone()?)))));
        std::iter::once(Scope(None)).chain(tenants).collect()
    }
}
