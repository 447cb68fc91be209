//! The one thread that gives files their names: takes what waits, renames each, syncs the folder
//! once, answers all.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::fault;
use super::fresh::Fresh;
use crate::outbox::SpoolError;

/// Most files in a group.
const GROUP: usize = 256;

/// A file whose octets are on the disk, the name it is to have, and where the answer goes.
pub(super) struct Job {
    pub(super) fresh: Fresh,
    pub(super) to: PathBuf,
    /// Whether another file may have that name.
    pub(super) replacing: bool,
    pub(super) answer: oneshot::Sender<Result<Fresh, SpoolError>>,
}

/// The one thread that gives files their names.
pub(super) struct Placing {
    pub(super) disk: Arc<dyn Disk>,
    /// The folder of the names. One descriptor for all groups: it is told of every fault there is.
    pub(super) folder: File,
    pub(super) jobs: mpsc::Receiver<Job>,
}

impl Placing {
    /// Places group after group until the spool and its drafts are gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP {
                let Ok(job) = self.jobs.try_recv() else { break };
                group.push(job);
            }
            self.place(group);
        }
    }

    fn place(&self, group: Vec<Job>) {
        let mut placed = Vec::with_capacity(group.len());
        for Job { mut fresh, to, replacing, answer } in group {
            // Who has gone away in the meantime would never learn that the file is there: it goes, unnamed.
            if answer.is_closed() {
                continue;
            }
            match fresh.rename(to, replacing) {
                Ok(()) => placed.push((fresh, answer)),
                Err(error) => refuse(fresh, answer, fault("the body file cannot be named", &error)),
            }
        }
        if placed.is_empty() {
            return;
        }
        let synced = self.disk.sync_folder(&self.folder);
        for (fresh, answer) in placed {
            match &synced {
                // If nobody hears it, the answer is dropped, and so is the file.
                Ok(()) => drop(answer.send(Ok(fresh))),
                Err(error) => refuse(fresh, answer, fault("the outbox folder cannot be synced", error)),
            }
        }
    }
}

/// The file goes first: who hears of the fault may come again with the same name.
fn refuse(fresh: Fresh, answer: oneshot::Sender<Result<Fresh, SpoolError>>, error: SpoolError) {
    drop(fresh);
    // Who has gone away does not want to know.
    let _ = answer.send(Err(error));
}
