//! The outbox at start: its schedule out of the rows, and rows and files brought together.
//!
//! The store's rows are the truth while they are the store's newest. Store and spool carry a
//! generation, which goes up by one at each start and at each [`Outbox::renew`], the store's first.
//! So where the spool's is the higher one, the store is an older one than the files (restored from a
//! copy, or made anew): then the files are the truth, and every row is made anew out of its file. Else a
//! file without a row is one that has served, or whose sender never heard 250, and it is removed;
//! unless something of the rows is amiss (one cannot be read, one has no file), for then it may be
//! a message whose row is lost, and it is held.
//!
//! Promises: no body is read but of files that are taken up again; a message that was leased when
//! the process ended is one whose outcome is unknown, and waits for `unknown_wait`, not for the
//! lease's end, since nobody else can be sending it. A message that is taken up again may have been
//! sent before, and counts as unknown too.
//! What can go wrong: [`RecoverError`]. A row whose file is missing stays, and is told of
//! ([`Found::missing`]); a file that cannot be read stays where it is, and is told of as well: the
//! store then counts as older at the next start too, lest the file be swept.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::body;
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
    /// Rows without a file: messages that are lost. The first `TOLD`.
    pub missing: Vec<MessageId>,
    /// Files and rows that cannot be read, with what is wrong. The first `TOLD`.
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
    /// Rows that cannot be read.
    damaged: HashMap<MessageId, Key>,
    /// There is a key that names no message.
    nameless: bool,
    /// Files without a row that could not be taken up.
    left: usize,
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
        let until = now.plus(unknown_wait);
        let mut rows = read_rows(&*store, node, until).await?;
        let files = spool.list().await?;
        let older = generation(&*store, node).await? < spool.generation().await?;
        let there: HashSet<MessageId> = files.iter().copied().collect();
        let held = rows.index.after(None).map(|(id, _)| id);
        let missing: Vec<MessageId> = held.filter(|id| !there.contains(id)).take(TOLD).collect();
        let amiss = older || rows.nameless || !missing.is_empty();
        rows.found.missing = missing;

        let takes = |id: &MessageId| older || rows.index.slot(*id).is_none();
        let (adopt, sweep): (Vec<MessageId>, Vec<MessageId>) =
            files.into_iter().filter(takes).partition(|id| amiss || rows.damaged.contains_key(id));
        adopted(&mut rows, &*store, &*spool, node, until, adopt).await?;
        for id in sweep {
            // One that stays is swept at the next start.
            rows.found.swept += usize::from(spool.remove(id).await.is_ok());
        }
        raise(&*store, &*spool, node, rows.left == 0).await?;

        let Rows { index, mut found, .. } = rows;
        found.held = index.backlog().messages;
        // Those that were made anew are in it twice.
        found.digests.sort_by_key(|known| known.id);
        found.digests.dedup_by_key(|known| known.id);
        let outbox = Self {
            store,
            spool,
            node: node.to_owned(),
            options,
            index: Mutex::new(index),
            fault: Mutex::new(None),
            urged: Mutex::default(),
            given_up: Mutex::default(),
            news: Notify::new(),
        };
        Ok((Arc::new(outbox), found))
    }

    /// Raises the generation, so that a copy of the store that was made while the outbox was open is
    /// known to be older from here on.
    pub async fn renew(&self) -> Result<(), RecoverError> {
        let (store, spool) = (&*self.store, &*self.spool);
        let whole = generation(store, &self.node).await? >= spool.generation().await?;
        raise(store, spool, &self.node, whole).await
    }

    /// Makes all rows of `node` anew, out of the files alone. Nobody may have the outbox open. If it
    /// does not come to its end, the next start does what is left.
    pub async fn rebuild(
        store: &dyn Store,
        spool: &dyn Spool,
        node: &str,
        now: Timestamp,
    ) -> Result<Found, RecoverError> {
        raise(store, spool, node, false).await?;
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
        rows.found.missing = had_row.into_iter().filter(|id| !there.contains(id)).take(TOLD).collect();
        adopted(&mut rows, store, spool, node, now, files).await?;
        raise(store, spool, node, rows.left == 0).await?;
        rows.found.held = rows.index.backlog().messages;
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
            self.tell_damaged(key.to_string(), "its key names no message");
            self.nameless = true;
            return;
        };
        let entry: Entry = match record::open(&key, value) {
            Ok(entry) => entry,
            Err(error) => {
                self.tell_damaged(key.to_string(), &error.to_string());
                self.damaged.insert(id, key);
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
        self.restore(id, super::Slot { cause, ..slot(&lane, due, version, wait, &entry) }, entry);
    }

    fn restore(&mut self, id: MessageId, slot: super::Slot, entry: Entry) {
        if let Some(digest) = entry.digest {
            let tenant = slot.lane.tenant.clone();
            self.found.digests.push(Remembered { tenant, digest, id, created: entry.created });
        }
        self.index.restore(id, slot);
    }

    fn tell_damaged(&mut self, what: String, why: &str) {
        if self.found.damaged.len() < TOLD {
            self.found.damaged.push((what, why.to_owned()));
        }
    }
}

/// Takes files into the schedule, with rows made anew out of them. The row that a message has goes
/// in the same commit.
async fn adopted(
    rows: &mut Rows,
    store: &dyn Store,
    spool: &dyn Spool,
    node: &str,
    due: Timestamp,
    ids: Vec<MessageId>,
) -> Result<(), RecoverError> {
    for group in ids.chunks(BATCH_ITEMS / 2) {
        let mut batch = Batch::new();
        let mut taken = Vec::new();
        for id in group {
            let told = match body::read_manifest(spool, *id).await {
                Ok(told) => told,
                // The others are none the worse for it.
                Err(error) => {
                    let row = rows.index.slot(*id).is_some() || rows.damaged.contains_key(id);
                    rows.left += usize::from(!row);
                    rows.tell_damaged(format!("file {id}"), &error.to_string());
                    continue;
                }
            };
            let (lane, entry) = (Lane::of(&told.manifest), Entry::again(&told));
            let key = lane.key(node, due, *id);
            let of_slot = |slot: &super::Slot| slot.lane.key(node, slot.due, *id);
            let old = rows.damaged.remove(id).or_else(|| rows.index.slot(*id).map(of_slot));
            if let Some(old) = old.filter(|old| *old != key) {
                batch.remove(old, If::Any);
            }
            batch.put(key, If::Any, record::seal(&entry));
            taken.push((*id, lane, entry));
        }
        let version = store.commit(batch).await?;
        for (id, lane, entry) in taken {
            rows.index.remove(id);
            rows.restore(id, slot(&lane, due, version, Wait::Until(due), &entry), entry);
            rows.found.adopted += 1;
        }
    }
    Ok(())
}

/// Where the store's generation of `node` is kept.
fn generation_key(node: &str) -> Key {
    Key::meta(&format!("outbox/{node}"))
}

async fn generation(store: &dyn Store, node: &str) -> Result<u64, ReadError> {
    let key = generation_key(node);
    match store.get(&key).await? {
        // A damaged number is none: the store may be of any age.
        Some(row) => Ok(record::open(&key, &row.value).unwrap_or(0)),
        None => Ok(0),
    }
}

/// Gives both a generation higher than any before, the store's first; or the spool alone, if the
/// store does not have it all (`whole`): then it counts as older at the next start.
async fn raise(store: &dyn Store, spool: &dyn Spool, node: &str, whole: bool) -> Result<(), RecoverError> {
    let next = generation(store, node).await?.max(spool.generation().await?).saturating_add(1);
    if whole {
        let mut batch = Batch::new();
        batch.put(generation_key(node), If::Any, record::seal(&next));
        store.commit(batch).await?;
    }
    Ok(spool.set_generation(next).await?)
}
