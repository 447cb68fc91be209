//! The spool on files: one flat folder, one file a message, one folder sync a group.
//!
//! A file is written in `incoming` under a number, its octets are synced there, and only then is it
//! renamed to its id; a name that is found so holds all its octets. The octets are written and synced
//! by as many blocking threads as [`Options::writers`] says, first come first served. The renames go
//! through one thread, which takes all that wait, renames each, syncs the folder once and answers all
//! of them (manual: `decisions/spool`).
//!
//! Promises, beside those of [`Spool`]:
//! - A call that was given up (its future dropped) leaves no file, though perhaps a moment later: an
//!   id whose keeping was given up is not to be used again.
//! - A fault of a file's own calls is heard by its message alone; a fault of the folder's sync by the
//!   whole group, whose files are taken away again before their messages hear of it.
//! - Nothing is poisoned: the next file is written afresh and synced on a descriptor of its own, so a
//!   failed sync of an earlier file says nothing about it; and of a group whose folder could not be
//!   synced nothing stays that a later sync would have to vouch for. A draft's octets that could not
//!   be synced are never synced again: after one failed keep it can be read, not kept.
//! - An append that fails is cut off again, and appends to one file wait for one another.
//!
//! What can go wrong at open: [`OpenError`]. Afterwards [`SpoolError`]; a disk that hangs makes
//! calls wait. If the disk takes neither the sync nor the removal after it, a name nobody was told
//! of may be found later, with all its octets; it is for who lists to see that the store does not know it. A
//! limit on file sizes (RLIMIT_FSIZE) is [`SpoolError::Full`] only where SIGXFSZ is ignored;
//! otherwise the system ends the process.
//!
//! On disk, in the data folder: `outbox/` for the owner alone, in it `<id>` (26 characters), the
//! folder `incoming`, which is emptied at open, `generation`, a number in decimal, and for a moment
//! `probe`. Other names are left alone. That one process alone has the data folder is seen to by the
//! store's lock, which is taken first.

mod disk;
mod draft;
mod fresh;
mod placing;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use self::disk::{Disk, RealDisk};
use self::draft::FileDraft;
use self::fresh::{Fresh, named, read_all, write_all};
use self::placing::{Job, Placing};
use crate::mail::MessageId;
use crate::outbox::{Draft, Spool, SpoolError};
use crate::store::Pending;

/// The folder of the spool in the data folder.
pub const FOLDER: &str = "outbox";
const INCOMING: &str = "incoming";
const GENERATION: &str = "generation";
const PROBE: &str = "probe";

/// Files that wait for the thread that names them; more wait with their writer.
const QUEUE: usize = 1024;
/// Files that are removed at once; more wait.
const REMOVERS: usize = 4;
/// What is written to see whether the disk works: a block, so that a full disk says so.
const PROBE_OCTETS: &[u8] = &[0; 4096];

const INCOMING_FAULT: &str = "the body file cannot be written";

/// How a spool works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Body files that are written and synced at once, each on a thread; at least 1. With 32 a fast
    /// disk gives what it can (manual: `measured`).
    pub writers: usize,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "the outbox folder {}: {what}: {source}; it must be a folder that this process may read and write, on a disk that works and has room", dir.display()
)]
pub struct OpenError {
    /// The folder.
    pub dir: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

/// The spool on files.
pub struct FileSpool {
    house: Arc<House>,
    removers: Arc<Semaphore>,
}

impl FileSpool {
    /// Opens the spool in the data folder `dir`; its folders are made if they are not there, and what
    /// was being written when an earlier process ended is removed.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_on(dir, options, RealDisk)
    }

    /// [`Self::open`] on a disk of the caller's. Opening itself is not its affair.
    pub fn open_on(dir: &Path, options: Options, disk: impl Disk) -> Result<Self, OpenError> {
        let outbox = dir.join(FOLDER);
        let at = |what: &'static str| {
            let dir = outbox.clone();
            move |source: io::Error| OpenError { dir, what, source }
        };
        let incoming = outbox.join(INCOMING);
        DirBuilder::new().recursive(true).mode(0o700).create(&incoming).map_err(at("cannot be made"))?;
        let outbox = outbox.canonicalize().map_err(at("cannot be found"))?;
        let incoming = outbox.join(INCOMING);
        empty(&incoming).map_err(at("what was being written there cannot be removed"))?;
        let folder = File::open(&outbox).map_err(at("cannot be opened"))?;
        sync(&incoming, &folder, outbox.parent()).map_err(at("cannot be synced"))?;

        let disk: Arc<dyn Disk> = Arc::new(disk);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let names = folder.try_clone().map_err(at("cannot be opened"))?;
        let placing = Placing { disk: Arc::clone(&disk), folder: names, jobs };
        std::thread::Builder::new()
            .name("spool-names".into())
            .spawn(move || placing.run())
            .map_err(at("the thread that names its files cannot be started"))?;
        let house = House {
            disk,
            outbox,
            incoming,
            folder,
            next: AtomicU64::new(0),
            writers: Arc::new(Semaphore::new(options.writers.max(1))),
            queue,
        };
        Ok(Self { house: Arc::new(house), removers: Arc::new(Semaphore::new(REMOVERS)) })
    }
}

impl Spool for FileSpool {
    fn begin(&self, room: u64) -> Pending<'_, Result<Box<dyn Draft>, SpoolError>> {
        Box::pin(async move {
            let permit = self.house.permit().await?;
            let house = Arc::clone(&self.house);
            let draft = blocking(move || {
                let _permit = permit;
                let (fresh, file) = house.create()?;
                Ok(FileDraft::new(house, fresh, file, room))
            })
            .await?;
            let draft = draft.map_err(|error| fault(INCOMING_FAULT, &error))?;
            Ok(Box::new(draft) as Box<dyn Draft>)
        })
    }

    fn keep(&self, id: MessageId, octets: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            self.house.write(octets, self.house.path(id), false).await?.kept();
            Ok(())
        })
    }

    fn read(&self, id: MessageId, from: u64, most: u64) -> Pending<'_, Result<Bytes, SpoolError>> {
        Box::pin(async move {
            let house = Arc::clone(&self.house);
            blocking(move || {
                let path = house.path(id);
                let failed = |error: io::Error| SpoolError::of(&named("reading", &path), &error);
                let file = house.disk.open(&path, false).map_err(failed)?;
                let most = most.min(house.disk.length(&file).map_err(failed)?.saturating_sub(from));
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                Ok(read_all(&*house.disk, &file, from, most).map_err(failed)?.into())
            })
            .await?
        })
    }

    fn append(&self, id: MessageId, octets: Bytes) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            let permit = self.house.permit().await?;
            let house = Arc::clone(&self.house);
            blocking(move || {
                let _permit = permit;
                house.append(id, octets)
            })
            .await?
        })
    }

    fn remove(&self, id: MessageId) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            let permit = Arc::clone(&self.removers).acquire_owned().await.map_err(|_| ended())?;
            let house = Arc::clone(&self.house);
            blocking(move || {
                let _permit = permit;
                let path = house.path(id);
                absent_is_fine(house.disk.unlink(&path)).map_err(|error| fault(&named("removing", &path), &error))
            })
            .await?
        })
    }

    fn list(&self) -> Pending<'_, Result<Vec<MessageId>, SpoolError>> {
        Box::pin(async move {
            let house = Arc::clone(&self.house);
            let names = blocking(move || house.disk.names(&house.outbox)).await?;
            let names = names.map_err(|error| fault("the outbox folder cannot be listed", &error))?;
            Ok(names.iter().filter_map(|name| id_of(name.to_str()?)).collect())
        })
    }

    fn generation(&self) -> Pending<'_, Result<u64, SpoolError>> {
        Box::pin(async move {
            let house = Arc::clone(&self.house);
            blocking(move || house.generation()).await?
        })
    }

    fn set_generation(&self, generation: u64) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            let (text, to) = (Bytes::from(generation.to_string()), self.house.outbox.join(GENERATION));
            self.house.write(vec![text], to, true).await?.kept();
            Ok(())
        })
    }

    fn room(&self) -> Result<u64, SpoolError> {
        self.house.disk.room(&self.house.folder).map_err(|error| fault("the free room cannot be asked for", &error))
    }

    fn probe(&self) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            let octets = vec![Bytes::from_static(PROBE_OCTETS)];
            let fresh = self.house.write(octets, self.house.outbox.join(PROBE), false).await?;
            // Another probe may have removed it.
            let removed = blocking(move || absent_is_fine(fresh.remove())).await?;
            removed.map_err(|error| fault("the probe cannot be removed", &error))
        })
    }
}

/// What the spool and its drafts share.
struct House {
    disk: Arc<dyn Disk>,
    outbox: PathBuf,
    incoming: PathBuf,
    /// The folder, to ask for its room.
    folder: File,
    /// The number of the next file in `incoming`.
    next: AtomicU64,
    writers: Arc<Semaphore>,
    queue: mpsc::Sender<Job>,
}

impl House {
    fn path(&self, id: MessageId) -> PathBuf {
        self.outbox.join(id.to_string())
    }

    /// A turn to write, first come first served.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, SpoolError> {
        Arc::clone(&self.writers).acquire_owned().await.map_err(|_| ended())
    }

    fn create(&self) -> io::Result<(Fresh, File)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Fresh::create(&self.disk, self.incoming.join(number.to_string()))
    }

    /// Makes a file of `octets` and has it placed as `to`.
    async fn write(self: &Arc<Self>, octets: Vec<Bytes>, to: PathBuf, replacing: bool) -> Result<Fresh, SpoolError> {
        let permit = self.permit().await?;
        self.place(permit, to, replacing, move |house| {
            let (fresh, file) = house.create()?;
            let written = write_all(&*house.disk, &file, &octets, 0).and_then(|()| house.disk.sync_data(&file));
            fresh.unless_failed(written)
        })
        .await
    }

    /// Has `writing` write and sync the octets of a file, and the file placed as `to`. On return it is
    /// durable; it stays if its keeper says so.
    async fn place(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        to: PathBuf,
        replacing: bool,
        writing: impl FnOnce(&Self) -> io::Result<Fresh> + Send + 'static,
    ) -> Result<Fresh, SpoolError> {
        let house = Arc::clone(self);
        let (answer, answered) = oneshot::channel();
        // Not waited for: the answer comes from the thread that names files, or from the fault.
        tokio::task::spawn_blocking(move || {
            // To the end, so that no more threads wait for a place in the queue than may write.
            let _permit = permit;
            match writing(&house) {
                Ok(fresh) => {
                    // That thread ends with the spool; the answer is dropped with the job then.
                    let _ = house.queue.blocking_send(Job { fresh, to, replacing, answer });
                }
                Err(error) => drop(answer.send(Err(fault(INCOMING_FAULT, &error)))),
            }
        });
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    fn append(&self, id: MessageId, octets: Bytes) -> Result<(), SpoolError> {
        let path = self.path(id);
        let failed = |error: io::Error| SpoolError::of(&named("adding to", &path), &error);
        let file = self.disk.open(&path, true).map_err(failed)?;
        // Let go with the descriptor. Between finding the end and cutting it off again, nobody else.
        file.lock().map_err(failed)?;
        let end = self.disk.length(&file).map_err(failed)?;
        let added = write_all(&*self.disk, &file, &[octets], end).and_then(|()| self.disk.sync_data(&file));
        added.map_err(|error| {
            // What cannot be cut off stays; its reader finds that it is no whole entry.
            let _ = self.disk.truncate(&file, end);
            failed(error)
        })
    }

    fn generation(&self) -> Result<u64, SpoolError> {
        let path = self.outbox.join(GENERATION);
        let failed = |error: io::Error| fault(&named("reading", &path), &error);
        let file = match self.disk.open(&path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        let text = read_all(&*self.disk, &file, 0, LONGEST_NUMBER).map_err(failed)?;
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        number.ok_or_else(|| SpoolError::Io(format!("{} holds no number", path.display())))
    }
}

/// Octets of `generation` that are read: those of any number there is, and a line end.
const LONGEST_NUMBER: usize = 24;

/// Waits for `work` on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ended())
}

/// The process ends, and its threads with it.
fn ended() -> SpoolError {
    SpoolError::Io("the spool has ended".into())
}

/// What `error`, met at `what`, means where no file is asked for by its id.
fn fault(what: &str, error: &io::Error) -> SpoolError {
    match SpoolError::of(what, error) {
        SpoolError::Missing => SpoolError::Io(format!("{what}: {error}")),
        known @ (SpoolError::Full(_) | SpoolError::Io(_)) => known,
    }
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The id a file of that name has the octets of. Ids are written in one way, and read in several.
fn id_of(name: &str) -> Option<MessageId> {
    MessageId::parse(name).filter(|id| id.to_string() == name)
}

/// Removes the files of a folder.
fn empty(folder: &Path) -> io::Result<()> {
    for name in RealDisk.names(folder)? {
        absent_is_fine(RealDisk.unlink(&folder.join(name)))?;
    }
    Ok(())
}

/// Syncs the folders, and the one they lie in.
fn sync(incoming: &Path, outbox: &File, parent: Option<&Path>) -> io::Result<()> {
    File::open(incoming)?.sync_all()?;
    outbox.sync_all()?;
    match parent {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_id_as_it_is_written() {
        let name = "01KAH2V4S9Q0ZC7M3T8N5XW1YE";
        assert_eq!(id_of(name).unwrap().to_string(), name);
        let strangers = [&name.to_lowercase(), "generation", "incoming", "probe", "", "01KAH2V4S9Q0ZC7M3T8N5XW1YE.tmp"];
        for stranger in strangers {
            assert_eq!(id_of(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_file_size_limit_is_no_room_and_a_lost_folder_is_a_fault() {
        let limit = io::Error::from_raw_os_error(27);
        assert!(matches!(fault("x", &limit), SpoolError::Full(_)), "{limit}");
        assert!(matches!(fault("x", &io::ErrorKind::NotFound.into()), SpoolError::Io(_)));
    }
}
