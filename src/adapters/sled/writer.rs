//! The one thread that writes: takes what waits, checks it, writes it, syncs it, answers.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ::sled::Db;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::folder::{Disk, names_in, sync_folder};
use super::row::{SEQUENCE, row, sequence_row, versioned};
use super::shared::{Shared, words_of};
use super::sieve::Sieve;
use crate::journal;
use crate::store::{Batch, CommitError, If, Key};

/// Most commits in a group.
const GROUP_COMMITS: usize = 1024;
/// Octets of keys and values at which a group takes no further commit.
const GROUP_OCTETS: usize = 4 * 1024 * 1024;

/// One commit and where its answer goes.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Result<u64, CommitError>>,
}

/// The one thread that writes.
pub(super) struct Writer {
    pub(super) db: Db,
    pub(super) disk: Box<dyn Disk>,
    pub(super) blobs_dir: PathBuf,
    /// Blob files that have been synced.
    pub(super) blobs: HashSet<OsString>,
    /// The number of the last commit.
    pub(super) sequence: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) sieve: Arc<Sieve>,
    pub(super) jobs: mpsc::Receiver<Job>,
}

impl Writer {
    /// Writes group after group until the store is closed or fails.
    pub(super) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let group = self.fill(first);
            let began = Instant::now();
            self.shared.busy(Some(began));
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&group)));
            self.shared.busy(None);
            let fault = match written {
                Ok(Ok(verdicts)) => {
                    let writes = group.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
                    journal::store_committed(began.elapsed(), writes.map(|(job, _)| job.batch.len()).sum());
                    for (job, verdict) in group.into_iter().zip(verdicts) {
                        // Who has gone away in the meantime does not want to know.
                        let _ = job.answer.send(verdict);
                    }
                    continue;
                }
                Ok(Err(fault)) => fault,
                Err(panic) => format!("writing failed: {}", words_of(panic.as_ref())),
            };
            return self.stop(group, &fault);
        }
    }

    /// `first` and what else waits, within the bounds of a group.
    fn fill(&mut self, first: Job) -> Vec<Job> {
        let mut octets = octets_of(&first.batch);
        let mut group = vec![first];
        while group.len() < GROUP_COMMITS && octets < GROUP_OCTETS {
            let Ok(job) = self.jobs.try_recv() else { break };
            octets += octets_of(&job.batch);
            group.push(job);
        }
        group
    }

    /// Writes what of the group may be written, durably. The verdicts are in the order of the group;
    /// an error stops the store.
    fn write(&mut self, group: &[Job]) -> Result<Vec<Result<u64, CommitError>>, String> {
        // The store may have been stopped by a reader since.
        self.shared.check()?;
        let mut versions: HashMap<&Key, Option<u64>> = HashMap::new();
        let mut rows = ::sled::Batch::default();
        let mut verdicts = Vec::with_capacity(group.len());
        let mut sequence = self.sequence;
        for Job { batch, .. } in group {
            if let Some(key) = self.conflict(batch, &versions)? {
                verdicts.push(Err(CommitError::Conflict(key)));
                continue;
            }
            sequence += 1;
            for write in batch.writes() {
                match &write.value {
                    Some(value) => {
                        self.sieve.note(write.key.octets());
                        rows.insert(write.key.octets(), row(sequence, value));
                    }
                    None => rows.remove(write.key.octets()),
                }
                versions.insert(&write.key, write.value.is_some().then_some(sequence));
            }
            verdicts.push(Ok(sequence));
        }
        if sequence == self.sequence {
            // Conflicts with what is on the disk already: nothing to write, nothing to wait for.
            return Ok(verdicts);
        }
        rows.insert(SEQUENCE, sequence_row(sequence));
        let number = self.shared.begin(versions.into_keys());
        self.db.apply_batch(rows).map_err(|e| format!("writing failed: {e}"))?;
        self.sync()?;
        self.sequence = sequence;
        self.shared.end(number);
        Ok(verdicts)
    }

    /// The first key whose condition does not hold, after the writes of the group so far.
    fn conflict(&self, batch: &Batch, so_far: &HashMap<&Key, Option<u64>>) -> Result<Option<Key>, String> {
        for write in batch.writes() {
            if write.condition == If::Any {
                continue;
            }
            let version = match so_far.get(&write.key) {
                Some(version) => *version,
                None if !self.sieve.may_have(write.key.octets()) => None,
                None => {
                    let found = self.db.get(write.key.octets()).map_err(|e| format!("reading failed: {e}"))?;
                    found.map(|row| versioned(&row).version)
                }
            };
            if !write.condition.holds(version) {
                return Ok(Some(write.key.clone()));
            }
        }
        Ok(None)
    }

    fn sync(&mut self) -> Result<(), String> {
        self.db.flush().map_err(|e| format!("flushing failed: {e}"))?;
        self.disk.sync_data().map_err(|e| format!("fdatasync failed: {e}"))?;
        // Values are bounded so that sled makes no blob files, which it never syncs. Should it make
        // one nevertheless, it is synced here before anybody is told that the value is safe.
        let found = names_in(&self.blobs_dir).map_err(|e| format!("listing blobs failed: {e}"))?;
        if found.iter().any(|name| !self.blobs.contains(name)) {
            journal::store_blobs_found(found.len());
            sync_folder(&self.blobs_dir).map_err(|e| format!("syncing blobs failed: {e}"))?;
        }
        self.blobs = found;
        Ok(())
    }

    /// Ends the store: every commit of the group and of the queue hears so.
    fn stop(mut self, group: Vec<Job>, fault: &str) {
        let reason = self.shared.fail(fault);
        self.jobs.close();
        let queued = std::iter::from_fn(|| self.jobs.blocking_recv());
        for job in group.into_iter().chain(queued) {
            let _ = job.answer.send(Err(CommitError::Unavailable(reason.clone())));
        }
    }
}

fn octets_of(batch: &Batch) -> usize {
    batch.writes().iter().map(|write| write.key.octets().len() + write.value.as_ref().map_or(0, Bytes::len)).sum()
}
