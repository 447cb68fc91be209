//! The outbox: messages that are held until SES takes them.
//!
//! A held message is a file in the [`spool`] (its octets behind its [`Manifest`]) and a row in the
//! store (an [`Entry`] under `outbox/{node}/{lane}/{due}/{id}`). The file is durable before the row
//! is written, the row before anybody is told: only then is there a [`Durable`], which a 250 is made
//! of. Which message is due when is known by heart ([`index`]), so nothing is scanned but at start.
//!
//! To try a message is to lease it: one commit moves its row to the end of the lease, counts the
//! attempt, and gives the row a new version, which is the fence of whatever is written next. Done is
//! a removal on that version, later a move on it. A process that dies in between leaves a row that
//! says so, and comes due by itself: no lock table, no recovery but reading ([`recover`]).
//!
//! Promises: nothing is held halfway: who is refused ([`HoldError`]) leaves no row behind, unless the
//! store itself stopped, after which only a restart tells. A message is leased once at a time. How
//! far it has come ([`progress`]) is in its row, and in its file before that. The row goes before
//! the file, so that a file without a row is one that has served, or that nobody was promised.
//! Refuses: what is past a bound or would leave less than [`Options::disk_reserve_bytes`] of the disk.
//! What can go wrong: the disk. It is told by [`Outbox::fault`] until a write passes again; nothing
//! that is held is touched by it, and nobody has to mend anything but the disk.

mod body;
pub mod cause;
pub mod entry;
pub mod index;
pub mod memory;
pub mod progress;
pub mod recover;
pub mod spool;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::mail::{Durable, MessageId, TenantId};
use crate::store::{Batch, CommitError, If, ReadError, Store, Versioned, record};
use crate::time::Timestamp;

pub use body::{BodyError, Manifest, spill_room};
pub use cause::Cause;
pub use entry::{Entry, Lane};
pub use index::{Backlog, Bounds, LaneState, Past, Slot, Wait};
pub use progress::{Mark, Progress};
pub use spool::{Content, Draft, Spool, SpoolError};

use index::Index;

/// The least that a held message takes of a disk: a block.
const LEAST: u64 = 4096;

/// How an outbox is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most of everything.
    pub bounds: Bounds,
    /// Octets of the disk that are left free.
    pub disk_reserve_bytes: u64,
}

/// One node's outbox.
pub struct Outbox {
    store: Arc<dyn Store>,
    spool: Arc<dyn Spool>,
    /// Whose rows these are, where several nodes share a store.
    node: String,
    options: Options,
    index: Mutex<Index>,
    /// Why the last write failed.
    fault: Mutex<Option<String>>,
    /// Something changed that whoever sends may want to know.
    news: Notify,
}

/// A message that is to be held.
#[derive(Debug)]
pub struct Holding<'a> {
    /// What is known of it.
    pub manifest: &'a Manifest,
    /// Its octets.
    pub content: &'a Content,
    /// What became of its recipients so far.
    pub progress: Progress,
    /// Why it is held.
    pub cause: Cause,
    /// SES's words, if it said any.
    pub words: &'a str,
    /// Calls so far whose outcome is not known.
    pub unknown: u32,
    /// What it waits for.
    pub until: Start,
}

/// When a message that begins to be held may be tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// When its turn comes.
    Ready,
    /// Not before a moment.
    At(Timestamp),
    /// It is being tried already; the lease ends then.
    Leased(Timestamp),
}

/// Why a message is not held.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HoldError {
    /// A bound of the outbox.
    #[error("the outbox is full ({0})")]
    Past(#[from] Past),
    /// The disk has too little left.
    #[error("the disk has {free} octets left, and outbox.disk_reserve_bytes keeps {reserve}")]
    Reserve {
        /// Free.
        free: u64,
        /// To be left.
        reserve: u64,
    },
    /// The body file could not be written.
    #[error("the body file: {0}")]
    Spool(#[from] SpoolError),
    /// The row could not be written.
    #[error("the row: {0}")]
    Store(#[from] CommitError),
}

/// Why something that is held could not be worked on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OutboxError {
    /// It is not there, or no longer.
    #[error("no message {0} is held")]
    NotHeld(MessageId),
    /// It is being sent at the moment.
    #[error("message {0} is being sent")]
    Active(MessageId),
    /// Its row could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its row could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Its file could not be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// A message that nobody else leases. Dropped, it is ready again.
#[derive(Debug)]
pub struct Claim {
    outbox: Arc<Outbox>,
    id: MessageId,
    slot: Slot,
    ended: bool,
}

/// The right to try a message: nobody else does. Dropped without an end, the message comes due when
/// the lease ends, as it would after a crash.
#[derive(Debug)]
pub struct Lease {
    outbox: Arc<Outbox>,
    id: MessageId,
    lane: Lane,
    due: Timestamp,
    version: u64,
    entry: Entry,
    ended: bool,
}

/// What is written of an attempt that did not end a message.
#[derive(Clone, Debug)]
pub struct Deferral {
    /// Not before this moment; `None`: when its turn comes.
    pub until: Option<Timestamp>,
    /// Why it waits.
    pub cause: Cause,
    /// SES's words.
    pub words: String,
    /// What became of its recipients.
    pub progress: Progress,
    /// Calls whose outcome is not known, of this attempt.
    pub unknown: u32,
}

impl HoldError {
    /// Whether it is room that lacks, rather than a disk or store that works.
    pub fn is_room(&self) -> bool {
        match self {
            Self::Past(_) | Self::Reserve { .. } | Self::Spool(SpoolError::Full(_)) => true,
            Self::Spool(SpoolError::Io(_) | SpoolError::Missing) | Self::Store(_) => false,
        }
    }
}

impl Outbox {
    /// Holds a message. On return it is durable; with [`Start::Leased`] the lease is given as well.
    pub async fn hold(self: &Arc<Self>, holding: Holding<'_>) -> Result<(Durable, Option<Lease>), HoldError> {
        let Holding { manifest, content, progress, cause, words, unknown, until } = holding;
        let (id, lane, bytes) = (manifest.id, Lane::of(manifest), content.len());
        self.check_room(content.first.iter().map(|octets| octets.len() as u64).sum())?;
        let reserved = Reserved::take(self, &lane.tenant, bytes)?;
        self.keep(manifest, content, &progress).await?;

        let mut entry = Entry::new(manifest, bytes, progress, cause, words);
        entry.unknown = unknown;
        let (due, wait) = match until {
            Start::Ready => (manifest.created, Wait::Ready),
            Start::At(moment) => (moment, Wait::Until(moment)),
            Start::Leased(end) => {
                entry.attempts = 1;
                entry.leased = true;
                (end, Wait::Active)
            }
        };
        let mut batch = Batch::new();
        batch.put(lane.key(&self.node, due, id), If::Absent, record::seal(&entry));
        let version = match self.store.commit(batch).await {
            Ok(version) => version,
            Err(error) => {
                // A store that stopped may have written the row: then the file must be there.
                if !matches!(error, CommitError::Unavailable(_)) {
                    let _ = self.spool.remove(id).await;
                }
                return Err(error.into());
            }
        };
        reserved.hold(id, slot(&lane, due, version, wait, &entry));
        let lease = (wait == Wait::Active).then(|| Lease {
            outbox: Arc::clone(self),
            id,
            lane,
            due,
            version,
            entry,
            ended: false,
        });
        self.news.notify_one();
        Ok((Durable::in_outbox(id), lease))
    }

    /// Begins a file for a message that is still arriving and has outgrown memory; `head_bytes` of it
    /// stay there.
    pub async fn begin(&self, head_bytes: usize) -> Result<Box<dyn Draft>, HoldError> {
        self.check_room(0)?;
        let begun = self.spool.begin(spill_room(head_bytes)).await;
        self.note(&begun);
        Ok(begun?)
    }

    /// Notes how a write that somebody else made went (to a draft, say).
    pub fn note<T>(&self, written: &Result<T, SpoolError>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(_) => *fault = None,
            Err(error) => *fault = Some(error.to_string()),
        }
    }

    /// Claims the next ready message of a lane; `None` where there is none. Nothing is written yet.
    pub fn claim(self: &Arc<Self>, lane: &Lane) -> Option<Claim> {
        let mut index = self.index();
        let (id, slot) = index.next(lane).map(|(id, slot)| (id, slot.clone()))?;
        index.change(id, |slot| slot.wait = Wait::Active);
        Some(Claim { outbox: Arc::clone(self), id, slot, ended: false })
    }

    /// Leases the next ready message of a lane until `end`; `None` where there is none.
    pub async fn lease(self: &Arc<Self>, lane: &Lane, end: Timestamp) -> Result<Option<Lease>, OutboxError> {
        match self.claim(lane) {
            Some(claim) => claim.lease(end).await.map(Some),
            None => Ok(None),
        }
    }

    /// Proof that a message is held.
    pub fn durable(&self, id: MessageId) -> Option<Durable> {
        self.index().slot(id).map(|_| Durable::in_outbox(id))
    }

    /// The message's manifest and its octets.
    pub async fn read(&self, id: MessageId) -> Result<(Manifest, Vec<u8>), BodyError> {
        body::read(&*self.spool, id).await
    }

    /// The message's manifest.
    pub async fn manifest(&self, id: MessageId) -> Result<Manifest, BodyError> {
        Ok(body::read_manifest(&*self.spool, id).await?.manifest)
    }

    /// The row of a held message.
    pub async fn entry(&self, id: MessageId) -> Result<(Slot, Entry), OutboxError> {
        let slot = self.index().slot(id).cloned().ok_or(OutboxError::NotHeld(id))?;
        let entry = self.entry_of(id, &slot).await?;
        Ok((slot, entry))
    }

    /// Gives a message up that is not being sent: expired, or discarded by hand. Gives its row as it
    /// was.
    pub async fn discard(&self, id: MessageId) -> Result<(Slot, Entry), OutboxError> {
        let (slot, entry) = self.entry(id).await?;
        if slot.wait == Wait::Active {
            return Err(OutboxError::Active(id));
        }
        // From here on nobody leases it.
        self.index().change(id, |slot| slot.wait = Wait::Active);
        let mut batch = Batch::new();
        batch.remove(slot.lane.key(&self.node, slot.due, id), If::At(slot.version));
        if let Err(error) = self.store.commit(batch).await {
            self.index().change(id, |now| now.wait = slot.wait);
            return Err(error.into());
        }
        self.index().remove(id);
        let _ = self.spool.remove(id).await;
        self.news.notify_one();
        Ok((slot, entry))
    }

    /// Makes a message ready at once, whatever it waits for.
    pub fn retry(&self, id: MessageId) -> Result<(), OutboxError> {
        let mut index = self.index();
        let slot = index.slot(id).ok_or(OutboxError::NotHeld(id))?;
        if slot.wait == Wait::Active {
            return Err(OutboxError::Active(id));
        }
        index.change(id, |slot| slot.wait = Wait::Ready);
        drop(index);
        self.news.notify_one();
        Ok(())
    }

    /// Makes ready those of a lane (`None`: of all) that wait for one of `causes`; says how many.
    pub fn release(&self, lane: Option<&Lane>, causes: &[Cause]) -> usize {
        let released = self.index().release(lane, causes);
        if released > 0 {
            self.news.notify_one();
        }
        released
    }

    /// Whatever is asked of the schedule in one go. Nothing may be awaited in `ask`.
    pub fn with_index<T>(&self, ask: impl FnOnce(&mut Index) -> T) -> T {
        ask(&mut self.index())
    }

    /// How much is held.
    pub fn backlog(&self) -> Backlog {
        self.index().backlog()
    }

    /// Ends when something changed since it last ended.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Why nothing can be held at the moment: the last write failed, or the disk has too little left,
    /// even for the smallest message.
    pub fn fault(&self) -> Option<String> {
        let failed = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failed.or_else(|| self.check_room(LEAST).err().map(|error| error.to_string()))
    }

    /// Tries the disk, if its last write failed.
    pub async fn probe(&self) {
        if self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.note(&self.spool.probe().await);
        }
    }

    async fn keep(&self, manifest: &Manifest, content: &Content, progress: &Progress) -> Result<(), SpoolError> {
        let mut octets = body::beginning(manifest, content);
        let kept = match &content.draft {
            None => {
                if !progress.is_none() {
                    octets.push(body::note(progress));
                }
                self.spool.keep(manifest.id, octets).await
            }
            Some(draft) => match draft.keep(manifest.id, octets).await {
                Ok(()) if !progress.is_none() => self.spool.append(manifest.id, body::note(progress)).await,
                kept => kept,
            },
        };
        self.note(&kept);
        kept
    }

    async fn entry_of(&self, id: MessageId, slot: &Slot) -> Result<Entry, OutboxError> {
        let key = slot.lane.key(&self.node, slot.due, id);
        match self.store.get(&key).await? {
            Some(Versioned { value, .. }) => Ok(record::open(&key, &value)?),
            None => Err(OutboxError::NotHeld(id)),
        }
    }

    /// Whether the disk has room for so many octets beside the reserve.
    fn check_room(&self, octets: u64) -> Result<(), HoldError> {
        let reserve = self.options.disk_reserve_bytes;
        let free = self.spool.room()?;
        if free < reserve.saturating_add(octets) { Err(HoldError::Reserve { free, reserve }) } else { Ok(()) }
    }

    fn postpone(&self, id: MessageId, until: Timestamp) {
        self.index().change(id, |slot| slot.wait = Wait::Until(until));
        self.news.notify_one();
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Octets of the message.
    pub fn bytes(&self) -> u64 {
        self.slot.bytes
    }

    /// Records the attempt, and gives the right to make it until `end`.
    pub async fn lease(mut self, end: Timestamp) -> Result<Lease, OutboxError> {
        let (id, slot) = (self.id, self.slot.clone());
        let entry = match self.outbox.entry_of(id, &slot).await {
            Ok(entry) => entry,
            Err(error) => {
                // What cannot be read now is not asked for again at once.
                self.ended = true;
                self.outbox.postpone(id, end);
                return Err(error);
            }
        };
        let mut lease = Lease {
            outbox: Arc::clone(&self.outbox),
            id,
            lane: slot.lane,
            due: slot.due,
            version: slot.version,
            entry,
            ended: false,
        };
        self.ended = true;
        if lease.entry.leased {
            // Whoever had it last did not live to say what came of its call.
            lease.entry.unknown = lease.entry.unknown.saturating_add(1);
        }
        lease.entry.attempts = lease.entry.attempts.saturating_add(1);
        lease.entry.leased = true;
        lease.write(end).await?;
        Ok(lease)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.ended {
            self.outbox.index().change(self.id, |slot| slot.wait = Wait::Ready);
            self.outbox.news.notify_one();
        }
    }
}

impl Lease {
    /// Which message.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Its lane.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Its row, the attempt under way counted.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The message is done with: its row goes, then its file.
    pub async fn complete(mut self) -> Result<(), OutboxError> {
        let outbox = Arc::clone(&self.outbox);
        let mut batch = Batch::new();
        batch.remove(self.lane.key(&outbox.node, self.due, self.id), If::At(self.version));
        outbox.store.commit(batch).await?;
        self.ended = true;
        outbox.index().remove(self.id);
        // It has served; a file that stays is swept at the next start.
        let _ = outbox.spool.remove(self.id).await;
        outbox.news.notify_one();
        Ok(())
    }

    /// The message waits on, as `deferral` says.
    pub async fn defer(mut self, deferral: Deferral, now: Timestamp) -> Result<(), OutboxError> {
        let Deferral { until, cause, words, progress, unknown } = deferral;
        let outbox = Arc::clone(&self.outbox);
        if progress != self.entry.progress {
            let noted = outbox.spool.append(self.id, body::note(&progress)).await;
            // Without its note the message may go twice, but only if the row were lost as well.
            outbox.note(&noted);
        }
        self.entry.because(cause, &words);
        self.entry.progress = progress;
        self.entry.unknown = self.entry.unknown.saturating_add(unknown);
        self.entry.leased = false;
        self.write(until.unwrap_or(now)).await?;
        self.ended = true;
        let wait = until.map_or(Wait::Ready, Wait::Until);
        outbox.index().change(self.id, |slot| {
            slot.wait = wait;
            slot.cause = cause;
        });
        outbox.news.notify_one();
        Ok(())
    }

    /// Moves the row to `due`, as its entry now is.
    async fn write(&mut self, due: Timestamp) -> Result<(), OutboxError> {
        let node = &self.outbox.node;
        let (from, to) = (self.lane.key(node, self.due, self.id), self.lane.key(node, due, self.id));
        let mut batch = Batch::new();
        if from == to {
            batch.put(to, If::At(self.version), record::seal(&self.entry));
        } else {
            batch.remove(from, If::At(self.version));
            batch.put(to, If::Absent, record::seal(&self.entry));
        }
        self.version = self.outbox.store.commit(batch).await?;
        self.due = due;
        let (version, open) = (self.version, open_recipients(&self.entry));
        self.outbox.index().change(self.id, |slot| {
            slot.due = due;
            slot.version = version;
            slot.recipients = open;
        });
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.ended {
            self.outbox.postpone(self.id, self.due);
        }
    }
}

/// What [`Index::reserve`] counted, given back unless the message is held.
struct Reserved<'a> {
    outbox: &'a Outbox,
    tenant: TenantId,
    bytes: u64,
    held: bool,
}

impl<'a> Reserved<'a> {
    fn take(outbox: &'a Outbox, tenant: &TenantId, bytes: u64) -> Result<Self, Past> {
        outbox.index().reserve(&outbox.options.bounds, tenant, bytes)?;
        Ok(Self { outbox, tenant: tenant.clone(), bytes, held: false })
    }

    fn hold(mut self, id: MessageId, slot: Slot) {
        self.held = true;
        self.outbox.index().hold(id, slot);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.held {
            self.outbox.index().give_back(&self.tenant, self.bytes);
        }
    }
}

fn slot(lane: &Lane, due: Timestamp, version: u64, wait: Wait, entry: &Entry) -> Slot {
    Slot {
        lane: lane.clone(),
        due,
        version,
        wait,
        cause: entry.cause,
        bytes: entry.bytes,
        recipients: open_recipients(entry),
        expires: entry.expires,
    }
}

fn open_recipients(entry: &Entry) -> u32 {
    u32::try_from(entry.progress.count(Mark::Open)).unwrap_or(u32::MAX)
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("node", &self.node).finish_non_exhaustive()
    }
}
