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
//! store itself stopped, after which only a restart tells. A message is leased once at a time, and an
//! attempt that had no end counts as unknown when the next begins. How far a message has come
//! ([`progress`]) is in its row, and in its file before that. The row goes before the file, so that
//! a file without a row is one that has served, or that nobody was promised.
//! Refuses: what is past a bound or would leave less than [`Options::disk_reserve_bytes`] of the disk.
//! What can go wrong: the disk. It is told by [`Outbox::fault`] until a write passes again; nothing
//! that is held is touched by it, and nobody has to mend anything but the disk. Somebody who stops
//! waiting: a write that was begun goes to its end all the same, so that schedule and rows agree.

mod body;
pub mod cause;
pub mod entry;
pub mod index;
pub mod memory;
pub mod order;
pub mod progress;
pub mod recover;
pub mod spool;
pub mod verify;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::mail::{Durable, MessageId, TenantId};
use crate::store::{Batch, CommitError, If, ReadError, Store, record};
use crate::time::Timestamp;

pub use body::{BodyError, Manifest, spill_room};
pub use cause::Cause;
pub use entry::{Entry, Lane};
pub use index::{Backlog, Bounds, LaneState, Past, Slot, Wait};
pub use order::Order;
pub use progress::{Mark, Progress};
pub use spool::{Content, Draft, Spool, SpoolError};

use index::Index;

/// How often a row that moves is looked for where the schedule says it is.
const LOOKS: usize = 16;

/// The least that a held message takes of a disk: a block.
pub const LEAST: u64 = 4096;

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
    /// Lanes of which somebody wants a message tried at once.
    urged: Mutex<BTreeSet<Lane>>,
    /// Messages that were given up and that nobody has.
    given_up: Mutex<Vec<recover::Remembered>>,
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
    seat: Seat,
    slot: Slot,
}

/// The right to try a message: nobody else does. Dropped without an end, the message comes due when
/// the lease ends, as it would after a crash.
#[derive(Debug)]
pub struct Lease {
    seat: Seat,
    lane: Lane,
    due: Timestamp,
    version: u64,
    entry: Entry,
}

/// A message that is active in the schedule. Dropped, it waits for `back`, unless it is gone.
#[derive(Debug)]
struct Seat {
    outbox: Arc<Outbox>,
    id: MessageId,
    back: Wait,
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
        let outbox = Arc::clone(self);
        to_the_end(async move {
            let version = match outbox.store.commit(batch).await {
                Ok(version) => version,
                Err(error) => {
                    // A store that stopped may have written the row: then the file must be there.
                    if !matches!(error, CommitError::Unavailable(_)) {
                        let _ = outbox.spool.remove(id).await;
                    }
                    return Err(error.into());
                }
            };
            reserved.hold(id, slot(&lane, due, version, wait, &entry));
            outbox.news.notify_one();
            let lease = (wait == Wait::Active).then(|| Lease {
                seat: Seat { outbox, id, back: Wait::Until(due) },
                lane,
                due,
                version,
                entry,
            });
            Ok((Durable::in_outbox(id), lease))
        })
        .await
    }

    /// Begins a file for a message that is still arriving and has outgrown memory; `head_bytes` of it
    /// stay there.
    pub async fn begin(&self, head_bytes: usize) -> Result<Box<dyn Draft>, HoldError> {
        self.check_room(LEAST)?;
        let begun = self.spool.begin(spill_room(head_bytes)).await;
        self.note(&begun);
        Ok(begun?)
    }

    /// Writes more of a message that is still arriving. What arrives leaves the reserve alone as well:
    /// many large messages at once would be the end of it.
    pub async fn append(&self, draft: &mut dyn Draft, octets: Bytes) -> Result<(), HoldError> {
        self.check_room(octets.len() as u64)?;
        let written = draft.append(octets).await;
        if written.is_err() {
            self.note(&written);
        }
        Ok(written?)
    }

    fn note<T>(&self, written: &Result<T, SpoolError>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(_) => *fault = None,
            Err(error @ (SpoolError::Full(_) | SpoolError::Io(_))) => *fault = Some(error.to_string()),
            // One file's misfortune: it says nothing of the disk.
            Err(SpoolError::Missing) => {}
        }
    }

    /// Notes in its file how far a message has come whose attempt goes on: should the process end
    /// before the attempt does, those who are served by then are not served again.
    pub async fn note_progress(&self, id: MessageId, progress: &Progress) {
        // Without its note those may get it twice, and only if the process ends.
        self.note(&self.spool.append(id, body::note(progress)).await);
    }

    /// Claims the next ready message of a lane; `None` where there is none. Nothing is written yet.
    pub fn claim(self: &Arc<Self>, lane: &Lane) -> Option<Claim> {
        let mut index = self.index();
        let (id, slot) = index.next(lane).map(|(id, slot)| (id, slot.clone()))?;
        index.change(id, |slot| slot.wait = Wait::Active);
        Some(Claim { seat: Seat { outbox: Arc::clone(self), id, back: Wait::Ready }, slot })
    }

    /// Leases the next ready message of a lane until `end`; `None` where there is none. After an
    /// error the message comes due at `end`.
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
        let mut active = false;
        for _ in 0..LOOKS {
            let slot = self.index().slot(id).cloned().ok_or(OutboxError::NotHeld(id))?;
            match self.entry_of(id, &slot).await {
                Ok(entry) => return Ok((slot, entry)),
                // Its row has just moved, and the schedule is about to say so.
                Err(OutboxError::NotHeld(_)) => active = slot.wait == Wait::Active,
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
        Err(if active { OutboxError::Active(id) } else { OutboxError::NotHeld(id) })
    }

    /// Gives a message up that is not being sent: expired, or discarded by hand. Gives its row as it
    /// was.
    pub async fn discard(self: &Arc<Self>, id: MessageId) -> Result<(Slot, Entry), OutboxError> {
        let (seat, slot) = self.take_out(id)?;
        let entry = self.entry_of(id, &slot).await?;
        let mut batch = Batch::new();
        batch.remove(slot.lane.key(&self.node, slot.due, id), If::At(slot.version));
        to_the_end(seat.remove(batch)).await?;
        if let (0, Some(digest)) = (entry.progress.count(Mark::Taken), &entry.digest) {
            let (tenant, digest, created) = (slot.lane.tenant.clone(), digest.clone(), entry.created);
            let given_up = recover::Remembered { tenant, digest, id, created };
            self.given_up.lock().unwrap_or_else(PoisonError::into_inner).push(given_up);
        }
        Ok((slot, entry))
    }

    /// Makes a message ready at once, whatever it waits for; its row says so too, so that it stays so.
    pub async fn retry(self: &Arc<Self>, id: MessageId, now: Timestamp) -> Result<(), OutboxError> {
        let (mut seat, slot) = self.take_out(id)?;
        let Slot { lane, mut due, mut version, .. } = slot.clone();
        if due > now {
            let entry = self.entry_of(id, &slot).await?;
            let (from, to) = (lane.key(&self.node, due, id), lane.key(&self.node, now, id));
            let mut batch = Batch::new();
            batch.remove(from, If::At(version));
            batch.put(to, If::Absent, record::seal(&entry));
            let outbox = Arc::clone(self);
            let written = async move { Ok::<_, OutboxError>((outbox.store.commit(batch).await?, seat)) };
            (version, seat) = to_the_end(written).await?;
            due = now;
        }
        self.index().change(id, |slot| {
            slot.due = due;
            slot.version = version;
        });
        seat.goes_back_to(Wait::Ready);
        drop(seat);
        self.urged.lock().unwrap_or_else(PoisonError::into_inner).insert(lane);
        self.news.notify_one();
        Ok(())
    }

    /// Whether a message is held.
    pub fn holds(&self, id: MessageId) -> bool {
        self.index().slot(id).is_some()
    }

    /// The lanes of which a message was made ready by [`retry`](Self::retry) since this was last asked:
    /// whatever else keeps them is to be tried, too.
    pub fn take_urged(&self) -> BTreeSet<Lane> {
        std::mem::take(&mut *self.urged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Messages that were given up since this was last asked, that nobody has, and that the duplicate
    /// window may know.
    pub fn take_given_up(&self) -> Vec<recover::Remembered> {
        std::mem::take(&mut *self.given_up.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes ready those of a lane (`None`: of all) that wait for one of `causes`; says how many.
    pub fn release(&self, lane: Option<&Lane>, causes: &[Cause]) -> usize {
        let released = self.index().release(lane, causes);
        if released > 0 {
            self.news.notify_one();
        }
        released
    }

    /// Lets those of a lane (`None`: of all) that wait for one of `causes` wait until `latest` at the
    /// longest.
    pub fn bring_forward(&self, lane: Option<&Lane>, causes: &[Cause], latest: Timestamp) {
        if self.index().bring_forward(lane, causes, latest) > 0 {
            self.news.notify_one();
        }
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

    /// Writes the file; who fails leaves none.
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
        if kept.is_err() {
            let _ = self.spool.remove(manifest.id).await;
        }
        kept
    }

    async fn entry_of(&self, id: MessageId, slot: &Slot) -> Result<Entry, OutboxError> {
        let key = slot.lane.key(&self.node, slot.due, id);
        let Some(row) = self.store.get(&key).await? else { return Err(OutboxError::NotHeld(id)) };
        match record::open(&key, &row.value) {
            Ok(entry) => Ok(entry),
            // Its file says enough; the next write mends the row.
            Err(damaged) => match body::read_manifest(&*self.spool, id).await {
                Ok(told) => Ok(Entry::again(&told)),
                Err(_) => Err(damaged.into()),
            },
        }
    }

    /// Whether the disk has room for so many octets beside the reserve.
    fn check_room(&self, octets: u64) -> Result<(), HoldError> {
        let reserve = self.options.disk_reserve_bytes;
        let free = self.spool.room()?;
        if free < reserve.saturating_add(octets) { Err(HoldError::Reserve { free, reserve }) } else { Ok(()) }
    }

    /// Takes a message that is not being sent away from whoever would lease it; gives its place in
    /// the schedule as it was.
    fn take_out(self: &Arc<Self>, id: MessageId) -> Result<(Seat, Slot), OutboxError> {
        let mut index = self.index();
        let slot = index.slot(id).cloned().ok_or(OutboxError::NotHeld(id))?;
        if slot.wait == Wait::Active {
            return Err(OutboxError::Active(id));
        }
        index.change(id, |slot| slot.wait = Wait::Active);
        drop(index);
        Ok((Seat { outbox: Arc::clone(self), id, back: slot.wait }, slot))
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

    /// Records the attempt, and gives the right to make it until `end`. After an error the message
    /// comes due at `end`.
    pub async fn lease(self, end: Timestamp) -> Result<Lease, OutboxError> {
        let Self { mut seat, slot } = self;
        // Whatever happens from here on, the message is not forgotten.
        seat.goes_back_to(Wait::Until(end));
        let outbox = &seat.outbox;
        let mut entry = outbox.entry_of(seat.id, &slot).await?;
        if entry.leased {
            // The attempt before this one had no end: SES may have the message, for all who are open.
            entry.unknown = entry.unknown.saturating_add(1);
            entry.because(Cause::Unknown, "the attempt before this one had no end");
            // The file may know of more than the row, which is written after it.
            if let Ok(told) = body::read_manifest(&*outbox.spool, seat.id).await {
                entry.progress.join(&told.progress);
            }
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.leased = true;
        let Slot { lane, due, version, .. } = slot;
        let mut lease = Lease { seat, lane, due, version, entry };
        to_the_end(async move {
            lease.write(end).await?;
            Ok(lease)
        })
        .await
    }
}

impl Lease {
    /// Which message.
    pub fn id(&self) -> MessageId {
        self.seat.id
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
    pub async fn complete(self) -> Result<(), OutboxError> {
        let mut batch = Batch::new();
        batch.remove(self.lane.key(&self.seat.outbox.node, self.due, self.seat.id), If::At(self.version));
        to_the_end(self.seat.remove(batch)).await
    }

    /// The message waits on, as `deferral` says.
    pub async fn defer(mut self, deferral: Deferral, now: Timestamp) -> Result<(), OutboxError> {
        let Deferral { until, cause, words, progress, unknown } = deferral;
        to_the_end(async move {
            if progress != self.entry.progress {
                let outbox = &self.seat.outbox;
                // Without its note the message may go twice, but only if the row were lost as well.
                outbox.note(&outbox.spool.append(self.seat.id, body::note(&progress)).await);
            }
            self.entry.because(cause, &words);
            self.entry.progress = progress;
            self.entry.unknown = self.entry.unknown.saturating_add(unknown);
            self.entry.leased = false;
            self.write(until.unwrap_or(now)).await?;
            self.seat.goes_back_to(until.map_or(Wait::Ready, Wait::Until));
            Ok(())
        })
        .await
    }

    /// Moves the row to `due`, as its entry now is.
    async fn write(&mut self, due: Timestamp) -> Result<(), OutboxError> {
        let Seat { outbox, id, .. } = &self.seat;
        let (from, to) = (self.lane.key(&outbox.node, self.due, *id), self.lane.key(&outbox.node, due, *id));
        let mut batch = Batch::new();
        if from == to {
            batch.put(to, If::At(self.version), record::seal(&self.entry));
        } else {
            batch.remove(from, If::At(self.version));
            batch.put(to, If::Absent, record::seal(&self.entry));
        }
        self.version = outbox.store.commit(batch).await?;
        self.due = due;
        let now = slot(&self.lane, due, self.version, Wait::Active, &self.entry);
        outbox.index().change(*id, |slot| *slot = now);
        Ok(())
    }
}

impl Seat {
    fn goes_back_to(&mut self, wait: Wait) {
        self.back = wait;
    }

    /// Commits the removal of the message's row, then forgets the message and removes its file.
    async fn remove(self, row: Batch) -> Result<(), OutboxError> {
        let Self { outbox, id, .. } = &self;
        outbox.store.commit(row).await?;
        outbox.index().remove(*id);
        // It has served; a file that stays is swept at the next start.
        let _ = outbox.spool.remove(*id).await;
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.outbox.index().change(self.id, |slot| slot.wait = self.back);
        self.outbox.news.notify_one();
    }
}

/// Runs `work` to its end, even if nobody waits for it any more.
async fn to_the_end<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<CommitError> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(ended) => Err(CommitError::Unavailable(ended.to_string()).into()),
    }
}

/// What [`Index::reserve`] counted, given back unless the message is held.
struct Reserved {
    outbox: Arc<Outbox>,
    tenant: TenantId,
    bytes: u64,
    held: bool,
}

impl Reserved {
    fn take(outbox: &Arc<Outbox>, tenant: &TenantId, bytes: u64) -> Result<Self, Past> {
        outbox.index().reserve(&outbox.options.bounds, tenant, bytes)?;
        Ok(Self { outbox: Arc::clone(outbox), tenant: tenant.clone(), bytes, held: false })
    }

    fn hold(mut self, id: MessageId, slot: Slot) {
        self.held = true;
        self.outbox.index().hold(id, slot);
    }
}

impl Drop for Reserved {
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
        order: Order::new(entry.session, &entry.to, entry.progress.recipients()),
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
