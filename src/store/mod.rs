//! The store: a few methods, and the records written above them.
//!
//! [`Store`] gets, scans and commits, and gets several at once as a backend does it best. sled (`adapters/sled`) and memory ([`memory`]) have them;
//! tenants, credentials, suppressions, runs of soft bounces, counters, the ledger of applied events and the
//! audit trail are each written once on top. All keys are built in [`key`], all values sealed in
//! [`record`].
//!
//! Promises: a commit is all or nothing and durable on return; a version tells whether a value is
//! still the one that was read. Expiry is judged by the reader with its own `now`.
//! What can go wrong: [`CommitError`], [`ReadError`]. `Unavailable` means that the store has stopped
//! for good (fail-stop): nothing is retried here, the relay answers 4xx and its health says so.

pub mod audit;
pub mod counters;
pub mod credential;
pub mod directory;
pub mod domains;
pub mod habits;
pub mod holds;
pub mod key;
pub mod ledger;
pub mod memory;
pub mod mirror;
pub mod record;
pub mod runs;
pub mod ses_statuses;
pub mod suppressions;
pub mod tally;
pub mod tenants;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use key::Key;

/// Most items in a [`Batch`], for every backend (DynamoDB's TransactWriteItems has this bound).
pub const BATCH_ITEMS: usize = 100;
/// Longest value in octets; above, sled would make blob files that are never synced.
pub const VALUE_BYTES: usize = 4096;

/// A value as it was read.
///
/// A backend gives back what it has, a damaged value as well: [`record::open`] is where damage is
/// found, so that a scan goes on behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Changes with every write of this key.
    pub version: u64,
}

/// On what a write depends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum If {
    /// The key must not be there.
    Absent,
    /// The key must be there, at this version.
    At(u64),
    /// Whatever is there.
    Any,
}

impl If {
    /// Whether it holds where `version` is that of the value there; `None`: there is none.
    pub fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::At(expected) => version == Some(expected),
            Self::Any => true,
        }
    }
}

/// One write of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// On what condition.
    pub condition: If,
    /// The new value; `None` removes.
    pub value: Option<Bytes>,
}

/// Writes that happen together or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

/// Why a commit did not happen. Nothing of the batch was written, but for `Unavailable`, after which
/// only a restart tells: then all of it is there or nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// A condition did not hold: somebody else wrote first.
    #[error("the record {0} changed in between")]
    Conflict(Key),
    /// The batch names a key twice.
    #[error("the batch names {0} twice")]
    KeyTwice(Key),
    /// Over [`BATCH_ITEMS`].
    #[error("the batch has more than {BATCH_ITEMS} writes")]
    TooMany,
    /// Over [`VALUE_BYTES`].
    #[error("the value of {0} is longer than {VALUE_BYTES} octets")]
    TooLong(Key),
    /// The store has stopped.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// Why a read gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The value's checksum or form is wrong.
    #[error("the record {0} is damaged: {1}")]
    Corrupt(Key, String),
    /// The store has stopped.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// A future on the heap, so that a store can be an object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keys and values, atomically and durably.
pub trait Store: Send + Sync + 'static {
    /// The value of `key`.
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>>;

    /// The values of a few keys, in their order: cheaper than a scan, which costs a backend a copy of the
    /// page that it begins on.
    fn get_each<'a>(&'a self, keys: &'a [Key]) -> Pending<'a, Result<Vec<Option<Versioned>>, ReadError>> {
        Box::pin(async move {
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                found.push(self.get(key).await?);
            }
            Ok(found)
        })
    }

    /// Up to `limit` pairs with keys that begin with `prefix`, in key order, from after `after` on.
    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>>;

    /// Writes all of `batch`, durably, or nothing. Gives the version that every value it wrote now
    /// has; 0 for a batch without writes.
    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>>;
}

impl Batch {
    /// A batch without writes, which commits at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a write.
    pub fn put(&mut self, key: Key, condition: If, value: Bytes) -> &mut Self {
        self.writes.push(Write { key, condition, value: Some(value) });
        self
    }

    /// Adds a removal.
    pub fn remove(&mut self, key: Key, condition: If) -> &mut Self {
        self.writes.push(Write { key, condition, value: None });
        self
    }

    /// The writes in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The rules that hold for every backend: number, length, no key twice.
    pub fn check(&self) -> Result<(), CommitError> {
        if self.writes.len() > BATCH_ITEMS {
            return Err(CommitError::TooMany);
        }
        let mut seen = std::collections::HashSet::with_capacity(self.writes.len());
        for write in &self.writes {
            if !seen.insert(&write.key) {
                return Err(CommitError::KeyTwice(write.key.clone()));
            }
            if write.value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES) {
                return Err(CommitError::TooLong(write.key.clone()));
            }
        }
        Ok(())
    }
}
