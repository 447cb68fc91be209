//! What readers and the writer both see: whether the store has failed, and what is not yet synced.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::journal;
use crate::store::{Key, ReadError};

/// A group that takes longer makes the store unavailable while it lasts.
pub const STUCK: Duration = Duration::from_secs(10);

/// What readers and the writer both see.
pub(super) struct Shared {
    failed: OnceLock<String>,
    /// When the group that is being written began.
    busy_since: Mutex<Option<Instant>>,
    in_flight: Mutex<InFlight>,
    progress: watch::Sender<Progress>,
}

/// The keys that are written but not yet synced.
#[derive(Default)]
struct InFlight {
    group: u64,
    keys: BTreeSet<Key>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// The last group that is on the disk.
    synced: u64,
    failed: bool,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            failed: OnceLock::new(),
            busy_since: Mutex::new(None),
            in_flight: Mutex::new(InFlight::default()),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// The reason if the store has failed.
    pub(super) fn check(&self) -> Result<(), String> {
        self.failed.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Stops the store for good; tells of it once. Gives the reason that holds, which is the first.
    pub(super) fn fail(&self, reason: &str) -> String {
        if self.failed.set(reason.to_owned()).is_ok() {
            journal::store_failed(reason);
        }
        self.progress.send_modify(|progress| progress.failed = true);
        self.failed.get().cloned().unwrap_or_default()
    }

    /// Since when a group is being written.
    pub(super) fn busy(&self, since: Option<Instant>) {
        *lock_of(&self.busy_since) = since;
    }

    /// Whether that is longer than [`STUCK`].
    pub(super) fn stuck(&self, now: Instant) -> bool {
        lock_of(&self.busy_since).is_some_and(|since| now.saturating_duration_since(since) > STUCK)
    }

    /// Notes the keys of a group before it is written; gives its number.
    pub(super) fn begin<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> u64 {
        let mut in_flight = lock_of(&self.in_flight);
        in_flight.group += 1;
        in_flight.keys = keys.cloned().collect();
        in_flight.group
    }

    /// Forgets them once it is synced.
    pub(super) fn end(&self, group: u64) {
        lock_of(&self.in_flight).keys.clear();
        self.progress.send_modify(|progress| progress.synced = group);
    }

    /// Waits until what a read may have seen is on the disk. The keys of a group are noted before it
    /// is written and forgotten after it is synced, so who reads first and asks here second cannot
    /// have seen an unsynced write and find no note of it.
    pub(super) async fn settled(&self, seen: impl FnOnce(&BTreeSet<Key>) -> bool) -> Result<(), ReadError> {
        let group = {
            let in_flight = lock_of(&self.in_flight);
            if !seen(&in_flight.keys) {
                return Ok(());
            }
            in_flight.group
        };
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`; the wait ends with the group or with the store.
        let _ = progress.wait_for(|progress| progress.failed || progress.synced >= group).await;
        self.check().map_err(ReadError::Unavailable)
    }
}

pub(super) fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", words.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_hangs_is_noticed() {
        let shared = Shared::new();
        let now = Instant::now();
        assert!(!shared.stuck(now));
        shared.busy(Some(now));
        assert!(!shared.stuck(now + STUCK));
        assert!(shared.stuck(now + STUCK + Duration::from_millis(1)));
    }
}
