//! The system calls of the spool, as a trait, so that tests can have a disk that fails, is full,
//! writes short, hangs or counts.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// What a spool asks of a disk. Each is one system call, or nearly; all may wait for the disk, but
/// [`room`](Self::room).
pub trait Disk: Send + Sync + 'static {
    /// Makes a file that is not there, for its owner alone, to be written and read.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Opens a file that is there, to be written if `writing` and else to be read.
    fn open(&self, path: &Path, writing: bool) -> io::Result<File>;
    /// Octets in the file.
    fn length(&self, file: &File) -> io::Result<u64>;
    /// Writes some of `octets` at `at`; says how many.
    fn write(&self, file: &File, octets: &[IoSlice<'_>], at: u64) -> io::Result<usize>;
    /// Reads some octets from `at` on; says how many.
    fn read(&self, file: &File, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Cuts the file to `length`.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Returns when the file's octets, and what is needed to find them, are on the disk.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// Gives a file another name, in the place of what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns when all names of the folder are on the disk.
    fn sync_folder(&self, folder: &File) -> io::Result<()>;
    /// Takes a name away.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// The names of the regular files in a folder.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Octets that are free for others than root on the disk of the folder. Does not wait.
    fn room(&self, folder: &File) -> io::Result<u64>;
}

/// The disk there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    fn open(&self, path: &Path, writing: bool) -> io::Result<File> {
        OpenOptions::new().read(!writing).write(writing).open(path)
    }

    fn length(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn write(&self, file: &File, octets: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, octets, at)?)
    }

    fn read(&self, file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(into, at)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &File) -> io::Result<()> {
        folder.sync_all()
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // The kind comes with the name: no file is looked at.
            if entry.file_type()?.is_file() {
                names.push(entry.file_name());
            }
        }
        Ok(names)
    }

    fn room(&self, folder: &File) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
