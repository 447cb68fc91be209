//! The store on sled: one tree, one thread that writes, one `fdatasync` of our own a group.
//!
//! sled 0.34's flush writes but does not reach the disk's platter or flash: after a power cut every
//! acknowledged record may be gone. So all commits go through one thread, which takes what waits,
//! checks each batch's conditions, writes the accepted ones as one sled batch, flushes, calls
//! `fdatasync` on its own descriptor of `<dir>/db`, and only then answers. Conditions hold by
//! serialisation, sled's transactions are not used.
//!
//! Promises:
//! - A commit that returned is on the disk. An answer that tells of another's write, a conflict or
//!   what a read saw, is given only when that write is on the disk too.
//! - A conflict fails its own batch and no other of the group.
//! - A version never repeats: it is the number of the commit, kept in the same sled batch.
//! - Fail-stop: after a failed write or sync, or a panic inside sled, every read and commit is
//!   `Unavailable` until a restart, and the sync is not tried again (after a failed one the kernel
//!   may have dropped the pages, so a second success would say nothing).
//! - A second process is refused at open.
//!
//! What can go wrong at open: [`OpenError`]. Afterwards: a commit that hangs (a dying disk) makes
//! [`SledStore::available`] false after [`STUCK`]; commits then wait, they do not fail, for nobody
//! knows yet how they end.
//!
//! On disk: sled's own files, and `lock`. A row is its key, and for a value its version in eight
//! octets, big-endian, before it. [`SEQUENCE`] is a row of our own that no scan shows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::sled::Db;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::journal;
use crate::store::{Batch, CommitError, If, Key, Pending, ReadError, Store, Versioned};

/// Commits that wait for the writer; more wait for a place.
pub const QUEUE: usize = 1024;
/// Most commits in a group.
const GROUP_COMMITS: usize = 1024;
/// Octets of keys and values at which a group takes no further commit.
const GROUP_OCTETS: usize = 4 * 1024 * 1024;
/// A group that takes longer makes the store unavailable while it lasts.
pub const STUCK: Duration = Duration::from_secs(10);
/// How long [`SledStore::close`] waits for the writer to finish what is queued.
pub const CLOSING: Duration = Duration::from_secs(10);
/// sled's page cache in octets; sled takes about two and a half times as much.
const CACHE: u64 = 64 * 1024 * 1024;
/// How often sled rolls its buffers and collects garbage, in milliseconds. Not how often we sync.
const FLUSH_EVERY: u64 = 500;
/// The row that holds the format of the rows and the number of the last commit. Sorts before every
/// [`Key`], which begin with a letter.
const SEQUENCE: &[u8] = b"\0sequence";
/// The format of the rows.
const FORMAT: u8 = 1;
/// Octets of the version before a value.
const VERSION: usize = 8;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has the folder.
    #[error(
        "the data folder {} is in use by another process; is `bulkhead serve` running? While it is, commands go through its control socket", .0.display()
    )]
    InUse(PathBuf),
    /// What is there cannot be read.
    #[error("the store in {} is damaged: {what}", dir.display())]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// What sled or we found.
        what: String,
    },
    /// The folder cannot be made, read, written or synced.
    #[error("the data folder {}: {what}: {source}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What makes writes durable. A trait, so that tests can have a disk that fails, panics or hangs.
pub trait Disk: Send + 'static {
    /// Returns when all that was written to the data file is on the disk.
    fn sync_data(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// The store on sled.
pub struct SledStore {
    shared: Arc<Shared>,
    /// `None` once closed. Readers take a handle and let the lock go.
    db: RwLock<Option<Db>>,
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<Running>>,
}

/// The writer's thread, and what it holds open.
struct Running {
    thread: JoinHandle<()>,
    /// Ends when the thread does: a join that can be waited for with a bound.
    ended: Receiver<()>,
    /// sled's data file.
    data: PathBuf,
    /// Held until the writer has ended.
    lock: File,
}

/// One commit and where its answer goes.
struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<(), CommitError>>,
}

/// What readers and the writer both see.
struct Shared {
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

impl SledStore {
    /// Opens the store in `dir`, which is made if it is not there, and starts its writer. On return
    /// all that was found or made is on the disk.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_on(dir, |file| Box::new(file))
    }

    /// [`Self::open`] on a disk of the caller's; `disk` gets the descriptor of the data file.
    pub fn open_on(dir: &Path, disk: impl FnOnce(File) -> Box<dyn Disk>) -> Result<Self, OpenError> {
        let at = |what: &'static str| move |source: io::Error| OpenError::Io { dir: dir.to_owned(), what, source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at("cannot be made"))?;
        let dir = dir.canonicalize().map_err(at("cannot be found"))?;
        let lock = lock(&dir)?;
        let db = open_sled(&dir)?;
        // Opened before the first write: a descriptor is told of the write errors since its opening,
        // and sled's own, whose errors sled only logs, takes none of them away from this one.
        let file = File::open(dir.join("db")).map_err(at("db cannot be opened"))?;
        let sequence = read_sequence(&db, &dir)?;
        let blobs = sync_all(&dir).map_err(at("cannot be synced"))?;

        let shared = Arc::new(Shared::new());
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (ending, ended) = std::sync::mpsc::channel::<()>();
        let writer = Writer {
            db: db.clone(),
            disk: disk(file),
            blobs_dir: dir.join("blobs"),
            blobs,
            sequence,
            shared: Arc::clone(&shared),
            jobs,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                writer.run();
                drop(ending);
            })
            .map_err(at("the writer's thread cannot be started"))?;
        Ok(Self {
            shared,
            db: RwLock::new(Some(db)),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(Running { thread, ended, data: dir.join("db"), lock })),
        })
    }

    /// Commits what is queued, stops the writer and lets the folder go, within [`CLOSING`]. Reads
    /// and commits that come later are `Unavailable`.
    pub fn close(&self) {
        drop(lock_of(&self.queue).take());
        drop(self.db.write().unwrap_or_else(PoisonError::into_inner).take());
        let Some(running) = lock_of(&self.writer).take() else { return };
        let until = Instant::now() + CLOSING;
        let ended = match running.ended.recv_timeout(CLOSING) {
            // A panic of the thread has been told where it was caught.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => running.thread.join().is_ok(),
            Err(RecvTimeoutError::Timeout) => false,
        };
        if !ended || !let_go(&running.data, until) {
            self.shared.fail("the last commits did not end; the store is left as it is");
            // The writer may yet write, so the folder stays ours to the end of the process.
            std::mem::forget(running.lock);
        }
    }

    /// Whether commits go through: not failed, not closed, and no group hangs for [`STUCK`].
    pub fn available(&self) -> bool {
        self.shared.check().is_ok() && lock_of(&self.queue).is_some() && !self.shared.stuck(Instant::now())
    }

    /// Reads from sled; any fault there stops the store.
    fn read<T>(&self, reading: impl FnOnce(&Db) -> Result<T, ::sled::Error>) -> Result<T, ReadError> {
        self.shared.check().map_err(ReadError::Unavailable)?;
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(db) = db else { return Err(ReadError::Unavailable(CLOSED.into())) };
        let fault = match catch_unwind(AssertUnwindSafe(|| reading(&db))) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => format!("reading failed: {error}"),
            Err(panic) => format!("reading failed: {}", words_of(panic.as_ref())),
        };
        Err(ReadError::Unavailable(self.shared.fail(&fault)))
    }
}

const CLOSED: &str = "it has been closed";

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for SledStore {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        Box::pin(async move {
            let found = self.read(|db| db.get(key.octets()))?.map(|row| versioned(&row));
            self.shared.settled(|in_flight| in_flight.contains(key)).await?;
            Ok(found)
        })
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        Box::pin(async move {
            let found = self.read(|db| {
                let start = match after {
                    Some(after) if after >= prefix => Bound::Excluded(after.octets()),
                    Some(_) | None => Bound::Included(prefix.octets()),
                };
                let mut rows = Vec::new();
                for row in db.range::<&[u8], _>((start, Bound::Unbounded)) {
                    let (key, value) = row?;
                    if rows.len() == limit || !key.starts_with(prefix.octets()) {
                        break;
                    }
                    if key != SEQUENCE {
                        rows.push((Key::from_octets(Bytes::copy_from_slice(&key)), versioned(&value)));
                    }
                }
                Ok(rows)
            })?;
            let among = |in_flight: &BTreeSet<Key>| {
                in_flight.range::<Key, _>(prefix..).next().is_some_and(|key| key.begins_with(prefix))
            };
            self.shared.settled(among).await?;
            Ok(found)
        })
    }

    fn commit(&self, batch: Batch) -> Pending<'_, Result<(), CommitError>> {
        Box::pin(async move {
            batch.check()?;
            self.shared.check().map_err(CommitError::Unavailable)?;
            let stopped = || CommitError::Unavailable(self.shared.check().err().unwrap_or_else(|| CLOSED.into()));
            let queue = lock_of(&self.queue).clone().ok_or_else(stopped)?;
            if batch.is_empty() {
                return Ok(());
            }
            let (answer, answered) = oneshot::channel();
            queue.send(Job { batch, answer }).await.map_err(|_| stopped())?;
            answered.await.unwrap_or_else(|_| Err(stopped()))
        })
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            failed: OnceLock::new(),
            busy_since: Mutex::new(None),
            in_flight: Mutex::new(InFlight::default()),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// The reason if the store has failed.
    fn check(&self) -> Result<(), String> {
        self.failed.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Stops the store for good; tells of it once. Gives the reason that holds, which is the first.
    fn fail(&self, reason: &str) -> String {
        if self.failed.set(reason.to_owned()).is_ok() {
            journal::store_failed(reason);
        }
        self.progress.send_modify(|progress| progress.failed = true);
        self.failed.get().cloned().unwrap_or_default()
    }

    fn stuck(&self, now: Instant) -> bool {
        lock_of(&self.busy_since).is_some_and(|since| now.saturating_duration_since(since) > STUCK)
    }

    /// Waits until what a read may have seen is on the disk. The keys of a group are noted before it
    /// is written and forgotten after it is synced, so who reads first and asks here second cannot
    /// have seen an unsynced write and find no note of it.
    async fn settled(&self, seen: impl FnOnce(&BTreeSet<Key>) -> bool) -> Result<(), ReadError> {
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

/// The one thread that writes.
struct Writer {
    db: Db,
    disk: Box<dyn Disk>,
    blobs_dir: PathBuf,
    /// Blob files that have been synced.
    blobs: HashSet<OsString>,
    /// The number of the last commit.
    sequence: u64,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
}

impl Writer {
    /// Writes group after group until the store is closed or fails.
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let group = self.fill(first);
            let began = Instant::now();
            *lock_of(&self.shared.busy_since) = Some(began);
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&group)));
            *lock_of(&self.shared.busy_since) = None;
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
    fn write(&mut self, group: &[Job]) -> Result<Vec<Result<(), CommitError>>, String> {
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
                    Some(value) => rows.insert(write.key.octets(), row(sequence, value)),
                    None => rows.remove(write.key.octets()),
                }
                versions.insert(&write.key, write.value.is_some().then_some(sequence));
            }
            verdicts.push(Ok(()));
        }
        if sequence == self.sequence {
            // Conflicts with what is on the disk already: nothing to write, nothing to wait for.
            return Ok(verdicts);
        }
        rows.insert(SEQUENCE, sequence_row(sequence));
        let number = self.begin(versions.into_keys());
        self.db.apply_batch(rows).map_err(|e| format!("writing failed: {e}"))?;
        self.sync()?;
        self.sequence = sequence;
        self.end(number);
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

    fn begin<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> u64 {
        let mut in_flight = lock_of(&self.shared.in_flight);
        in_flight.group += 1;
        in_flight.keys = keys.cloned().collect();
        in_flight.group
    }

    fn end(&self, group: u64) {
        lock_of(&self.shared.in_flight).keys.clear();
        self.shared.progress.send_modify(|progress| progress.synced = group);
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

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn octets_of(batch: &Batch) -> usize {
    batch.writes().iter().map(|write| write.key.octets().len() + write.value.as_ref().map_or(0, Bytes::len)).sum()
}

/// A value as it is kept: its version, then itself.
fn row(version: u64, value: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), value].concat()
}

/// What [`row`] wrote. Damage shows as version 0, which no commit has, and an empty value, which
/// cannot be opened.
fn versioned(row: &[u8]) -> Versioned {
    match row.split_first_chunk::<VERSION>() {
        Some((version, value)) => {
            Versioned { value: Bytes::copy_from_slice(value), version: u64::from_be_bytes(*version) }
        }
        None => Versioned { value: Bytes::new(), version: 0 },
    }
}

fn sequence_row(sequence: u64) -> Vec<u8> {
    [&[FORMAT][..], &sequence.to_be_bytes()].concat()
}

/// The number of the last commit; writes the row if the store is new.
fn read_sequence(db: &Db, dir: &Path) -> Result<u64, OpenError> {
    let damaged = |what: String| OpenError::Damaged { dir: dir.to_owned(), what };
    let sled = |e: ::sled::Error| damaged(e.to_string());
    match db.get(SEQUENCE).map_err(sled)?.as_deref() {
        Some([FORMAT, number @ ..]) => number
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| damaged("the number of its last commit cannot be read".into())),
        Some([format, ..]) => Err(damaged(format!("its format is {format}, this version reads format {FORMAT}"))),
        Some([]) => Err(damaged("the number of its last commit is empty".into())),
        None if db.is_empty() => {
            db.insert(SEQUENCE, sequence_row(0)).map_err(sled)?;
            db.flush().map_err(sled)?;
            Ok(0)
        }
        None => Err(damaged("it has records, but not the number of its last commit".into())),
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), what: "its lock file cannot be locked", source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Waits until sled has let its data file go. Its own threads hold it a moment longer than the last
/// handle, and whoever opened the folder in that moment would be refused.
fn let_go(data: &Path, until: Instant) -> bool {
    while Instant::now() < until {
        match File::open(data).map(|file| file.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => std::thread::sleep(Duration::from_millis(1)),
            // A folder that is gone, or that cannot be locked, holds nobody up.
            Ok(Ok(()) | Err(TryLockError::Error(_))) | Err(_) => return true,
        }
    }
    false
}

fn open_sled(dir: &Path) -> Result<Db, OpenError> {
    let opening = || {
        ::sled::Config::new()
            .path(dir)
            .mode(::sled::Mode::LowSpace)
            .cache_capacity(CACHE)
            .flush_every_ms(Some(FLUSH_EVERY))
            .open()
    };
    let damaged = |what: String| OpenError::Damaged { dir: dir.to_owned(), what };
    match catch_unwind(opening) {
        Ok(Ok(db)) => Ok(db),
        // sled has no error of its own for this one.
        Ok(Err(::sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
            Err(OpenError::InUse(dir.to_owned()))
        }
        Ok(Err(::sled::Error::Io(source))) => {
            Err(OpenError::Io { dir: dir.to_owned(), what: "the database cannot be opened", source })
        }
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(panic) => Err(damaged(words_of(panic.as_ref()))),
    }
}

/// Syncs every file of the store, its folders and the folder it lies in. Gives the blob files.
fn sync_all(dir: &Path) -> io::Result<HashSet<OsString>> {
    let blobs = dir.join("blobs");
    sync_folder(&blobs)?;
    sync_folder(dir)?;
    if let Some(parent) = dir.parent() {
        File::open(parent)?.sync_all()?;
    }
    names_in(&blobs)
}

/// Syncs the regular files of a folder, then the folder.
fn sync_folder(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn names_in(dir: &Path) -> io::Result<HashSet<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", words.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_version_and_its_value() {
        assert_eq!(row(0x0102, b"v"), [0, 0, 0, 0, 0, 0, 1, 2, b'v']);
        assert_eq!(versioned(&row(7, b"v")), Versioned { value: Bytes::from_static(b"v"), version: 7 });
        assert_eq!(versioned(b"short").version, 0);
    }

    #[test]
    fn a_group_that_hangs_is_noticed() {
        let shared = Shared::new();
        let now = Instant::now();
        assert!(!shared.stuck(now));
        *lock_of(&shared.busy_since) = Some(now);
        assert!(!shared.stuck(now + STUCK));
        assert!(shared.stuck(now + STUCK + Duration::from_millis(1)));
    }
}
