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
//! - An address on no suppression list is told by a sieve in memory (`sieve.rs`), in a fraction of a
//!   microsecond; sled is asked where there may be an entry.
//!
//! What can go wrong at open: [`OpenError`]. Afterwards: a commit that hangs (a dying disk) makes
//! [`SledStore::available`] false after [`STUCK`]; commits then wait, they do not fail, for nobody
//! knows yet how they end.
//!
//! On disk: sled's own files, and `lock`. A row is its key, and for a value its version in eight
//! octets, big-endian, before it. One row of our own, with the number of the
//! last commit, shows in no scan.

mod folder;
mod row;
mod shared;
mod sieve;
mod writer;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::sled::Db;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::folder::{CACHE, let_go, lock, open_sled, sync_all, unlock};
pub use self::folder::{Disk, OpenError};
use self::row::{SEQUENCE, read_sequence, versioned};
pub use self::shared::STUCK;
use self::shared::{Shared, lock_of, words_of};
use self::sieve::Sieve;
use self::writer::{Job, Writer};
use crate::store::{Batch, CommitError, Key, Pending, ReadError, Store, Versioned};

/// Commits that wait for the writer; more wait for a place.
pub const QUEUE: usize = 1024;
/// How long [`SledStore::close`] waits for the writer to finish what is queued.
pub const CLOSING: Duration = Duration::from_secs(10);

/// The store on sled.
pub struct SledStore {
    shared: Arc<Shared>,
    /// `None` once closed. Readers take a handle and let the lock go.
    db: RwLock<Option<Db>>,
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<Running>>,
    sieve: Arc<Sieve>,
    /// The thread that fills the sieve.
    filling: Mutex<Option<JoinHandle<()>>>,
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

impl SledStore {
    /// Opens the store in `dir`, which is made if it is not there, and starts its writer. On return
    /// all that was found or made is on the disk.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(dir, CACHE)
    }

    /// [`Self::open`] with a page cache of so many octets.
    pub fn open_with(dir: &Path, cache: usize) -> Result<Self, OpenError> {
        Self::begin(dir, cache, |file| Box::new(file))
    }

    /// [`Self::open`] on a disk of the caller's; `disk` gets the descriptor of the data file.
    pub fn open_on(dir: &Path, disk: impl FnOnce(File) -> Box<dyn Disk>) -> Result<Self, OpenError> {
        Self::begin(dir, CACHE, disk)
    }

    fn begin(dir: &Path, cache: usize, disk: impl FnOnce(File) -> Box<dyn Disk>) -> Result<Self, OpenError> {
        let at = |what: &'static str| move |source: io::Error| OpenError::Io { dir: dir.to_owned(), what, source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at("cannot be made"))?;
        let dir = dir.canonicalize().map_err(at("cannot be found"))?;
        let lock = lock(&dir)?;
        let db = open_sled(&dir, cache)?;
        // Opened before the first write: a descriptor is told of the write errors since its opening,
        // and sled's own, whose errors sled only logs, takes none of them away from this one.
        let file = File::open(dir.join("db")).map_err(at("db cannot be opened"))?;
        let sequence = read_sequence(&db, &dir)?;
        let blobs = sync_all(&dir).map_err(at("cannot be synced"))?;

        let (shared, sieve) = (Arc::new(Shared::new()), Arc::new(Sieve::new()));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (ending, ended) = std::sync::mpsc::channel::<()>();
        let writer = Writer {
            db: db.clone(),
            disk: disk(file),
            blobs_dir: dir.join("blobs"),
            blobs,
            sequence,
            shared: Arc::clone(&shared),
            sieve: Arc::clone(&sieve),
            jobs,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                writer.run();
                drop(ending);
            })
            .map_err(at("the writer's thread cannot be started"))?;
        let filling = {
            let (db, sieve) = (db.clone(), Arc::clone(&sieve));
            // A fault here is met again, and told, by whoever reads what lies there.
            let fill = move || drop(catch_unwind(AssertUnwindSafe(|| sieve.fill(&db))));
            std::thread::Builder::new().name("store-sieve".into()).spawn(fill)
        };
        let filling = filling.map_err(at("the sieve's thread cannot be started"))?;
        Ok(Self {
            shared,
            sieve,
            filling: Mutex::new(Some(filling)),
            db: RwLock::new(Some(db)),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(Running { thread, ended, data: dir.join("db"), lock })),
        })
    }

    /// Moves the files of a store that cannot be opened into the new folder `to` in `dir`, so that
    /// [`open`](Self::open) makes a new one. Nobody may have the folder.
    pub fn move_aside(dir: &Path, to: &str) -> Result<PathBuf, OpenError> {
        folder::move_aside(dir, to)
    }

    /// Commits what is queued, stops the writer and lets the folder go, within [`CLOSING`]. Reads
    /// and commits that come later are `Unavailable`.
    pub fn close(&self) {
        drop(lock_of(&self.queue).take());
        drop(self.db.write().unwrap_or_else(PoisonError::into_inner).take());
        self.sieve.stop();
        if let Some(filling) = lock_of(&self.filling).take() {
            let _ = filling.join();
        }
        let Some(running) = lock_of(&self.writer).take() else { return };
        let until = Instant::now() + CLOSING;
        let ended = match running.ended.recv_timeout(CLOSING) {
            // A panic of the thread has been told where it was caught.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => running.thread.join().is_ok(),
            Err(RecvTimeoutError::Timeout) => false,
        };
        if ended && let_go(&running.data, until) {
            unlock(&running.lock);
        } else {
            self.shared.fail("the last commits did not end; the store is left as it is");
            // The writer may yet write, so the folder stays ours to the end of the process.
            std::mem::forget(running.lock);
        }
    }

    /// Whether commits go through: not failed, not closed, and no group hangs for [`STUCK`].
    pub fn available(&self) -> bool {
        self.shared.check().is_ok() && lock_of(&self.queue).is_some() && !self.shared.stuck(Instant::now())
    }

    /// The value of a key, looked for where it may be.
    fn seek(&self, db: &Db, key: &Key) -> Result<Option<Versioned>, ::sled::Error> {
        if !self.sieve.may_have(key.octets()) {
            return Ok(None);
        }
        Ok(db.get(key.octets())?.map(|row| versioned(&row)))
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
            let found = self.read(|db| self.seek(db, key))?;
            self.shared.settled(|in_flight| in_flight.contains(key)).await?;
            Ok(found)
        })
    }

    fn get_each<'a>(&'a self, keys: &'a [Key]) -> Pending<'a, Result<Vec<Option<Versioned>>, ReadError>> {
        Box::pin(async move {
            let found = self.read(|db| keys.iter().map(|key| self.seek(db, key)).collect::<Result<Vec<_>, _>>())?;
            self.shared.settled(|in_flight| keys.iter().any(|key| in_flight.contains(key))).await?;
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

    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        Box::pin(async move {
            batch.check()?;
            self.shared.check().map_err(CommitError::Unavailable)?;
            let stopped = || CommitError::Unavailable(self.shared.check().err().unwrap_or_else(|| CLOSED.into()));
            let queue = lock_of(&self.queue).clone().ok_or_else(stopped)?;
            if batch.is_empty() {
                return Ok(0);
            }
            let (answer, answered) = oneshot::channel();
            queue.send(Job { batch, answer }).await.map_err(|_| stopped())?;
            // The writer ends when the last sender is gone; who waits for an answer is none.
            drop(queue);
            answered.await.unwrap_or_else(|_| Err(stopped()))
        })
    }
}
