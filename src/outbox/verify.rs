//! Whether all that was written is still there as it was: every record of the store, every row's
//! file, every octet of a body.
//!
//! A page at a time, records in the order of their keys, so that a reader with a deadline can ask for
//! one after the other; behind the last record come the files that no row has. Reads, and changes
//! nothing. While messages come and go ([`Outbox::verify`]) a finding is looked at again before it is
//! told: a message that is done with meanwhile is no finding, nor is a file whose row is about to be
//! written.
//!
//! Bounds: [`RECORDS`] and, but for the last body, [`OCTETS`] a page; [`TOLD`] faults are told of, the
//! rest is counted. What can go wrong: [`RecoverError`]. A body file that the disk does not give is a
//! fault of that message and stops nothing.

use std::collections::HashSet;
use std::time::Duration;

use super::Outbox;
use super::body::{self, BodyError, Told};
use super::entry::{Entry, Lane};
use super::recover::RecoverError;
use super::spool::{Spool, SpoolError};
use crate::mail::MessageId;
use crate::store::{Key, Store, Versioned, record};
use crate::time::Timestamp;

/// Most records of a page.
pub const RECORDS: usize = 10_000;
/// Octets of bodies after which a page ends.
pub const OCTETS: u64 = 256 * 1024 * 1024;
/// Most faults of a page that are told one by one.
pub const TOLD: usize = 500;
/// Records read at a time.
const AT_ONCE: usize = 250;
/// Age from which a file without a row is one that nobody is about to write a row for. A message is
/// held at the latest when SES has not answered; that takes minutes at most.
const SETTLED: Duration = Duration::from_secs(3600);

/// What a page of the check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Records read.
    pub records: usize,
    /// Of them, rows of held messages whose file was read as well.
    pub messages: usize,
    /// Octets of their messages.
    pub bytes: u64,
    /// Files there are; on the last page alone.
    pub files: usize,
    /// What is wrong. The first [`TOLD`].
    pub faults: Vec<Fault>,
    /// How much is.
    pub faults_in_all: usize,
    /// Where the next page goes on; `None`: that was all.
    pub next: Option<Key>,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What kind of thing.
    pub kind: Kind,
    /// The record's key, or the message's id.
    pub name: String,
    /// What is wrong with it.
    pub words: String,
}

/// What may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A record that is no row of this outbox cannot be read.
    Record,
    /// A row cannot be read.
    Row,
    /// A row has no file.
    Missing,
    /// A row's file is not what was written, or cannot be read.
    Body,
    /// A row and its file are about two different messages.
    Mismatch,
    /// A file has no row.
    Stray,
}

/// The outbox whose files are read.
#[derive(Clone, Copy)]
struct Files<'a> {
    spool: &'a dyn Spool,
    node: &'a str,
    /// Its schedule, if somebody works with it.
    open: Option<&'a Outbox>,
}

/// Checks a page of a store that nobody works with, and the files of the outbox of `node`; without
/// `files` the records alone.
pub async fn verify(
    store: &dyn Store,
    files: Option<(&dyn Spool, &str)>,
    after: Option<&Key>,
    now: Timestamp,
) -> Result<Checked, RecoverError> {
    let files = files.map(|(spool, node)| Files { spool, node, open: None });
    page(store, files, after, now).await
}

impl Outbox {
    /// Checks a page of this outbox's store, and its files, while it works.
    pub async fn verify(&self, after: Option<&Key>, now: Timestamp) -> Result<Checked, RecoverError> {
        let files = Files { spool: &*self.spool, node: &self.node, open: Some(self) };
        page(&*self.store, Some(files), after, now).await
    }
}

async fn page(
    store: &dyn Store,
    files: Option<Files<'_>>,
    after: Option<&Key>,
    now: Timestamp,
) -> Result<Checked, RecoverError> {
    let mut checked = Checked::default();
    let mut last = after.cloned();
    loop {
        let some = store.scan(&Key::all(), last.as_ref(), AT_ONCE).await?;
        let ended = some.len() < AT_ONCE;
        for (key, row) in some {
            checked.records += 1;
            match files.filter(|files| key.begins_with(&Key::outbox_of(files.node))) {
                None => {
                    if let Err(error) = record::check(&key, &row.value) {
                        checked.tell(Kind::Record, &key, error);
                    }
                }
                Some(files) => checked.message(files, &key, &row).await,
            }
            last = Some(key);
            if checked.bytes >= OCTETS {
                checked.next = last;
                return Ok(checked);
            }
        }
        if ended {
            break;
        }
        if checked.records >= RECORDS {
            checked.next = last;
            return Ok(checked);
        }
        tokio::task::yield_now().await;
    }
    if let Some(files) = files {
        checked.strays(store, files, now).await?;
    }
    Ok(checked)
}

impl Checked {
    /// Notes a fault.
    fn tell(&mut self, kind: Kind, name: impl ToString, words: impl ToString) {
        self.faults_in_all += 1;
        if self.faults.len() < TOLD {
            self.faults.push(Fault { kind, name: name.to_string(), words: words.to_string() });
        }
    }

    /// A row, and its file.
    async fn message(&mut self, files: Files<'_>, key: &Key, row: &Versioned) {
        let Some((lane, _, id)) = Lane::of_key(key) else {
            self.tell(Kind::Row, key, "its key names no message");
            return;
        };
        let entry: Entry = match record::open(key, &row.value) {
            Ok(entry) => entry,
            Err(error) => {
                self.tell(Kind::Row, key, error);
                return;
            }
        };
        let told = body::check(files.spool, id).await;
        // Its file goes after it has left the schedule: who is in there still must have one.
        if told.is_err() && files.open.is_some_and(|outbox| !outbox.holds(id)) {
            return;
        }
        self.messages += 1;
        match told {
            Ok(told) => {
                self.bytes += told.bytes;
                if let Some(words) = disagreement(&lane, &entry, &told) {
                    self.tell(Kind::Mismatch, id, words);
                }
            }
            Err(error @ BodyError::Spool(SpoolError::Missing)) => self.tell(Kind::Missing, id, error),
            Err(error @ (BodyError::Spool(_) | BodyError::Damaged(_))) => self.tell(Kind::Body, id, error),
        }
    }

    /// Files that no row has.
    async fn strays(&mut self, store: &dyn Store, files: Files<'_>, now: Timestamp) -> Result<(), RecoverError> {
        let ids = files.spool.list().await?;
        self.files = ids.len();
        let rows = match files.open {
            Some(_) => HashSet::new(),
            None => ids_of_rows(store, files.node).await?,
        };
        for (seen, id) in ids.into_iter().enumerate() {
            if seen % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let stray = match files.open {
                None => !rows.contains(&id),
                Some(outbox) => id.made().plus(SETTLED) <= now && !outbox.holds(id) && is_there(files.spool, id).await,
            };
            if stray {
                self.tell(Kind::Stray, id, "its body file has no row");
            }
        }
        Ok(())
    }
}

/// What a row and its file say differently.
fn disagreement(lane: &Lane, entry: &Entry, told: &Told) -> Option<&'static str> {
    if *lane != Lane::of(&told.manifest) {
        return Some("its row and its body file name different tenants or streams");
    }
    if entry.progress.recipients() != told.manifest.recipients.len() {
        return Some("its row and its body file have different numbers of recipients");
    }
    (entry.bytes != told.bytes).then_some("its row and its body file have different lengths")
}

async fn is_there(spool: &dyn Spool, id: MessageId) -> bool {
    !matches!(spool.read(id, 0, 1).await, Err(SpoolError::Missing))
}

async fn ids_of_rows(store: &dyn Store, node: &str) -> Result<HashSet<MessageId>, RecoverError> {
    let prefix = Key::outbox_of(node);
    let (mut ids, mut last) = (HashSet::new(), None);
    loop {
        let some = store.scan(&prefix, last.as_ref(), AT_ONCE).await?;
        ids.extend(some.iter().filter_map(|(key, _)| Lane::of_key(key)).map(|(_, _, id)| id));
        if some.len() < AT_ONCE {
            return Ok(ids);
        }
        last = some.into_iter().last().map(|(key, _)| key);
        tokio::task::yield_now().await;
    }
}
