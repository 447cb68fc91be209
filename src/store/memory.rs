//! The reference backend: a map behind a mutex.
//!
//! It is what the tests of everything above run on, and what `adapters/sled` is compared with in
//! `tests/store.rs`. Durable only as long as the process; [`MemoryStore::fail_with`] makes it behave
//! as a store that has stopped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, CommitError, Key, Pending, ReadError, Store, Versioned};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<Key, Versioned>,
    /// The version of the latest commit; never repeats, so neither does that of a key.
    sequence: u64,
    failure: Option<String>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every read and commit is `Unavailable` with this reason.
    pub fn fail_with(&self, reason: &str) {
        self.lock().failure = Some(reason.to_owned());
    }

    /// Ends what [`Self::fail_with`] began: the store as it is after a restart.
    pub fn heal(&self) {
        self.lock().failure = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<MutexGuard<'_, State>, ReadError> {
        let state = self.lock();
        match &state.failure {
            Some(reason) => Err(ReadError::Unavailable(reason.clone())),
            None => Ok(state),
        }
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        let found = self.read().map(|state| state.rows.get(key).cloned());
        Box::pin(std::future::ready(found))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let found = self.read().map(|state| {
            state
                .rows
                .range::<Key, _>((start, Bound::Unbounded))
                .take_while(|(key, _)| key.begins_with(prefix))
                .take(limit)
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect()
        });
        Box::pin(std::future::ready(found))
    }

    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        Box::pin(std::future::ready(self.lock().commit(&batch)))
    }
}

impl State {
    fn commit(&mut self, batch: &Batch) -> Result<u64, CommitError> {
        batch.check()?;
        if let Some(reason) = &self.failure {
            return Err(CommitError::Unavailable(reason.clone()));
        }
        if batch.is_empty() {
            return Ok(0);
        }
        for write in batch.writes() {
            if !write.condition.holds(self.rows.get(&write.key).map(|row| row.version)) {
                return Err(CommitError::Conflict(write.key.clone()));
            }
        }
        self.sequence += 1;
        for write in batch.writes() {
            match &write.value {
                Some(value) => {
                    // Copied, so that a slice of a large buffer does not keep the buffer.
                    let value = Bytes::copy_from_slice(value);
                    self.rows.insert(write.key.clone(), Versioned { value, version: self.sequence });
                }
                None => {
                    self.rows.remove(&write.key);
                }
            }
        }
        Ok(self.sequence)
    }
}
