//! The data folder: who has it, how sled is opened in it, and how its files get onto the disk.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::sled::Db;

use super::shared::words_of;

/// sled's page cache in octets where nobody says another: at most, for it fills with what is read; sled takes
/// up to two and a half times as much. A million suppressions fit in it, and not in half of it. A look-up of an
/// address whose page is not in it takes several times as long as one whose page is, and RCPT waits for it
/// (`benches/suppression.rs`).
pub(super) const CACHE: usize = 256 * 1024 * 1024;
/// How often sled rolls its buffers and collects garbage, in milliseconds. Not how often we sync.
const FLUSH_EVERY: u64 = 500;
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

pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
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
pub(super) fn let_go(data: &Path, until: Instant) -> bool {
    while Instant::now() < until {
        // A folder that is gone, or that cannot be locked, holds nobody up.
        let Ok(file) = File::open(data) else { return true };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            Ok(()) | Err(TryLockError::Error(_)) => {
                unlock(&file);
                return true;
            }
        }
    }
    false
}

/// Unlocks, rather than closes alone: a process that is being forked in this moment has the lock too,
/// until it becomes another program.
pub(super) fn unlock(file: &File) {
    let _ = file.unlock();
}

/// Removes snapshots of sled's own index that a process did not live to finish. sled writes one under
/// this name and renames it when it is whole; at open it takes the name that sorts last, which is the
/// torn one's, and finds the database damaged. The one before it is still there.
fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("snap.") && text.ends_with(".generating") {
            fs::remove_file(dir.join(&name))?;
        }
    }
    Ok(())
}

pub(super) fn open_sled(dir: &Path, cache: usize) -> Result<Db, OpenError> {
    remove_unfinished_snapshots(dir).map_err(|source| OpenError::Io {
        dir: dir.to_owned(),
        what: "an unfinished snapshot cannot be removed",
        source,
    })?;
    let opening = || {
        ::sled::Config::new()
            .path(dir)
            .mode(::sled::Mode::LowSpace)
            .cache_capacity(u64::try_from(cache).unwrap_or(u64::MAX))
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

/// Moves sled's own files into a new folder `to` in `dir`. What is there beside them stays: the lock,
/// the control socket, the outbox's files.
pub(super) fn move_aside(dir: &Path, to: &str) -> Result<PathBuf, OpenError> {
    let at = |what: &'static str| move |source: io::Error| OpenError::Io { dir: dir.to_owned(), what, source };
    let lock = lock(dir)?;
    let aside = dir.join(to);
    DirBuilder::new().mode(0o700).create(&aside).map_err(at("the folder for the damaged store cannot be made"))?;
    let moved = || -> io::Result<()> {
        for name in names_in(dir)?.into_iter().filter(|name| is_sleds(name)) {
            fs::rename(dir.join(&name), aside.join(&name))?;
        }
        File::open(&aside)?.sync_all()?;
        File::open(dir)?.sync_all()
    };
    moved().map_err(at("the damaged store cannot be moved"))?;
    unlock(&lock);
    Ok(aside)
}

/// Whether sled makes files of this name.
fn is_sleds(name: &OsStr) -> bool {
    name == "db" || name == "conf" || name == "blobs" || name.as_encoded_bytes().starts_with(b"snap.")
}

/// Syncs every file of the store, its folders and the folder it lies in. Gives the blob files.
pub(super) fn sync_all(dir: &Path) -> io::Result<HashSet<OsString>> {
    let blobs = dir.join("blobs");
    sync_folder(&blobs)?;
    sync_folder(dir)?;
    if let Some(parent) = dir.parent() {
        File::open(parent)?.sync_all()?;
    }
    names_in(&blobs)
}

/// Syncs the regular files of a folder, then the folder.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

pub(super) fn names_in(dir: &Path) -> io::Result<HashSet<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}
