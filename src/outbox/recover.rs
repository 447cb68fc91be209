//! The outbox at start: its schedule out of the rows, and rows and files brought together.
//!
//! The store's rows are the truth while they are the store's newest. Store and spool carry a
//! generation, which goes up by one at each start, the store's first. So where the spool's is the
//! higher one, the store is an older one than the files (restored from a backup, or made anew), and
//! a file without a row is a message to be held; else it is one that has served, or whose sender
//! never heard 250, and it is removed.
//!
//! Promises: no body is read but of files that are taken up again; a message that was leased when
//! the process ended is one whose outcome is unknown, and waits for `unknown_wait`, not for the
//! lease's end, since nobody else can be sending it. A message that is taken up again may have been
//! sent before, and counts as unknown too.
//! What can go wrong: [`RecoverError`]. A row whose file is missing stays, and is told of
//! ([`Found::missing`]); a file that is damaged stays where it is, and is told of as well.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::body::{self, BodyError, Told};
use super::cause::Cause;
use super::entry::{Entry, Lane};
use super::index::{Index, Wait};
use super::spool::{Spool, SpoolError};
use super::{Options, Outbox, slot};
use crate::mail::{MessageId, TenantId};
use crate::store::{BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, Store, record};
use crate::time::Timestamp;

/// Rows read at a time.
const PAGE: usize = 1000;
/// The fact that holds the store's generation.
const GENERATION: &str = "outbox";
/// Most ids that are told of one by one.
const TOLD: usize = 50;

/// What was found at start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Messages held.
    pub held: usize,
    /// Messages that were being sent when the process ended.
    pub unknown: Vec<(MessageId, Lane)>,
    /// Files without a row that were removed.
    pub swept: usize,
    /// Files without a row that are held again.
    pub adopted: usize,
    /// Rows without a file: messages that are lost. The first [`TOLD`].
    pub missing: Vec<MessageId>,
    /// Files and rows that cannot be read, with what is wrong. The first [`TOLD`].
    pub damaged: Vec<(String, String)>,
    /// What the duplicate window may still need of those that are held.
    pub digests: Vec<Remembered>,
}

/// A held message, as the duplicate window knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// Whose.
    pub tenant: TenantId,
    /// What it is known by.
    pub digest: String,
    /// Which it is.
    pub id: MessageId,
    /// When it was accepted.
    pub created: Timestamp,
}

/// Why an outbox cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// The store.
    #[error("the outbox cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The store.
    #[error("the outbox cannot be written: {0}")]
    Commit(#[from] CommitError),
    /// The spool.
    #[error("the outbox's files: {0}")]
    Spool(#[from] SpoolError),
}

/// What reading the rows found.
#[derive(Default)]
struct Rows {
    index: Index,
    ids: HashSet<MessageId>,
    /// Keys of rows that cannot be read.
    damaged: Vec<Key>,
    found: Found,
}

impl Outbox {
    /// Reads what is held. `now` is the start; a message that was being sent waits for
    /// `unknown_wait` from then on.
    pub async fn open(
        store: Arc<dyn Store>,
        spool: Arc<dyn Spool>,
        node: &str,
        options: Options,
        now: Timestamp,
        unknown_wait: Duration,
    ) -> Result<(Arc<Self>, Found), RecoverError> {
        let mut rows = read_rows(&*store, node, now.plus(unknown_wait)).await?;
        let files = spool.list().await?;
        let (of_store, of_spool) = (generation(&*store).await?, spool.generation().await?);
        let older = of_store < of_spool;
        let strangers: Vec<MessageId> = files.iter().filter(|id| !rows.ids.contains(id)).copied().collect();
        let damaged: HashSet<MessageId> = rows.damaged.iter().filter_map(|key| Some(Lane::of_key(key)?.2)).collect();
        let (adopt, sweep): (Vec<MessageId>, Vec<MessageId>) =
            strangers.into_iter().partition(|id| older || damaged.contains(id));

        adopted(&mut rows, &*store, &*spool, node, now.plus(unknown_wait), adopt).await?;
        for id in &sweep {
            spool.remove(*id).await?;
        }
        let there: HashSet<MessageId> = files.into_iter().collect();
        let missing = rows.ids.iter().filter(|id| !there.contains(id)).copied();
        rows.found.missing = missing.take(TOLD).collect();
        rows.found.swept = sweep.len();

        let next = of_store.max(of_spool) + 1;
        let mut batch = Batch::new();
        batch.put(Key::meta(GENERATION), If::Any, record::seal(&next));
        store.commit(batch).await?;
        spool.set_generation(next).await?;

        let Rows { index, mut found, .. } = rows;
        found.held = index.backlog().messages;
        let outbox = Self {
            store,
            spool,
            node: node.to_owned(),
            options,
            index: Mutex::new(index),
            fault: Mutex::new(None),
            news: Notify::new(),
        };
        Ok((Arc::new(outbox), found))
    }

    /// Makes all rows of `node` anew, out of the files alone. Nobody may have the outbox open.
    ///
    /// Before any row goes, the spool's generation goes up: should this end half way, whoever opens
    /// the outbox next finds a store older than its files, and takes up what has no row yet.
    pub async fn rebuild(
        store: &dyn Store,
        spool: &dyn Spool,
        node: &str,
        now: Timestamp,
    ) -> Result<Found, RecoverError> {
        let next = generation(store).await?.max(spool.generation().await?) + 1;
        spool.set_generation(next).await?;
        let mut had_row = Vec::new();
        loop {
            let page = store.scan(&Key::outbox_of(node), None, BATCH_ITEMS).await?;
            if page.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            for (key, _) in page {
                had_row.extend(Lane::of_key(&key).map(|(_, _, id)| id));
                batch.remove(key, If::Any);
            }
            store.commit(batch).await?;
        }
        let mut rows = Rows::default();
        let files = spool.list().await?;
        let there: HashSet<MessageId> = files.iter().copied().collect();
        adopted(&mut rows, store, spool, node, now, files).await?;
        let mut batch = Batch::new();
        batch.put(Key::meta(GENERATION), If::Any, record::seal(&next));
        store.commit(batch).await?;
        rows.found.held = rows.index.backlog().messages;
        rows.found.missing = had_row.into_iter().filter(|id| !there.contains(id)).take(TOLD).collect();
        Ok(rows.found)
    }
}

/// Reads every row of `node`.
async fn read_rows(store: &dyn Store, node: &str, unknown_until: Timestamp) -> Result<Rows, RecoverError> {
    let prefix = Key::outbox_of(node);
    let mut rows = Rows::default();
    let mut after: Option<Key> = None;
    loop {
        let page = store.scan(&prefix, after.as_ref(), PAGE).await?;
        let full = page.len() == PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, row) in page {
            rows.take(key, &row.value, row.version, unknown_until);
        }
        if !full {
            return Ok(rows);
        }
        // A long backlog must not hold the thread all the while.
        tokio::task::yield_now().await;
    }
}

impl Rows {
    fn take(&mut self, key: Key, value: &[u8], version: u64, unknown_until: Timestamp) {
        let Some((lane, due, id)) = Lane::of_key(&key) else {
            self.tell_damaged(&key.to_string(), "its key names no message");
            return;
        };
        let entry: Entry = match record::open(&key, value) {
            Ok(entry) => entry,
            Err(error) => {
                self.tell_damaged(&key.to_string(), &error.to_string());
                self.damaged.push(key);
                return;
            }
        };
        let (wait, cause) = if entry.leased {
            self.found.unknown.push((id, lane.clone()));
            (Wait::Until(due.min(unknown_until)), Cause::Unknown)
        } else {
            // Its moment may have come: the first look at the clock makes it ready.
            (Wait::Until(due), entry.cause)
        };
        if let Some(digest) = entry.digest.clone() {
            let tenant = lane.tenant.clone();
            self.found.digests.push(Remembered { tenant, digest, id, created: entry.created });
        }
        self.ids.insert(id);
        self.index.restore(id, super::Slot { cause, ..slot(&lane, due, version, wait, &entry) });
    }

    fn tell_damaged(&mut self, what: &str, why: &str) {
        if self.found.damaged.len() < TOLD {
            self.found.damaged.push((what.to_owned(), why.to_owned()));
        }
    }
}

/// Writes rows for files that have none, and takes them into the schedule. A damaged row of the
/// same message goes in the same commit.
async fn adopted(
    rows: &mut Rows,
    store: &dyn Store,
    spool: &dyn Spool,
    node: &str,
    due: Timestamp,
    ids: Vec<MessageId>,
) -> Result<(), RecoverError> {
    let damaged = std::mem::take(&mut rows.damaged);
    for group in ids.chunks(BATCH_ITEMS / 2) {
        let mut batch = Batch::new();
        let mut taken = Vec::new();
        for id in group {
            let Told { manifest, progress, bytes } = match body::read_manifest(spool, *id).await {
                Ok(told) => told,
                Err(BodyError::Spool(error)) => return Err(error.into()),
                Err(error @ BodyError::Damaged(_)) => {
                    rows.tell_damaged(&format!("file {id}"), &error.to_string());
                    continue;
                }
            };
            let mut entry = Entry::new(&manifest, bytes, progress, Cause::Unknown, "taken up again out of its file");
            entry.unknown = 1;
            let lane = Lane::of(&manifest);
            let key = lane.key(node, due, *id);
            for old in damaged.iter().filter(|old| Lane::of_key(old).is_some_and(|(_, _, of)| of == *id)) {
                if *old != key {
                    batch.remove(old.clone(), If::Any);
                }
            }
            batch.put(key, If::Any, record::seal(&entry));
            taken.push((*id, lane, entry));
        }
        let version = store.commit(batch).await?;
        for (id, lane, entry) in taken {
            rows.ids.insert(id);
            rows.index.restore(id, slot(&lane, due, version, Wait::Until(due), &entry));
            rows.found.adopted += 1;
        }
    }
    Ok(())
}

async fn generation(store: &dyn Store) -> Result<u64, ReadError> {
    let key = Key::meta(GENERATION);
    match store.get(&key).await? {
        Some(row) => record::open(&key, &row.value),
        None => Ok(0),
    }
}
