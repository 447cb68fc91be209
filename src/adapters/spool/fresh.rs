//! A name that is taken away again unless somebody has heard that its file is kept; and the octets
//! of files, to the last one or not at all.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::disk::Disk;

/// The name of a file that nobody may count on yet. Dropped before [`kept`](Self::kept), the name is
/// taken away, as far as the disk does it.
pub(super) struct Fresh {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Whether the name is ours to take away.
    ours: bool,
}

impl Fresh {
    /// Makes the file at `path`.
    pub(super) fn create(disk: &Arc<dyn Disk>, path: PathBuf) -> io::Result<(Self, File)> {
        let file = disk.create(&path)?;
        Ok((Self { disk: Arc::clone(disk), path, ours: true }, file))
    }

    /// Gives the file its name to be. `replacing` says that another file may have had that name: then
    /// it is not taken away any more, for that one does not come back.
    pub(super) fn rename(&mut self, to: PathBuf, replacing: bool) -> io::Result<()> {
        self.disk.rename(&self.path, &to)?;
        self.path = to;
        self.ours = !replacing;
        Ok(())
    }

    /// Takes the name away here and now if `written` says that its octets are not there.
    pub(super) fn unless_failed(self, written: io::Result<()>) -> io::Result<Self> {
        match written {
            Ok(()) => Ok(self),
            Err(error) => {
                // The fault to tell of is the first.
                let _ = self.remove();
                Err(error)
            }
        }
    }

    /// The file is durable, and who asked for it knows.
    pub(super) fn kept(mut self) {
        self.ours = false;
    }

    /// Takes the name away now, and tells how that went.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.ours = false;
        self.disk.unlink(&self.path)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if self.ours {
            let (disk, path) = (Arc::clone(&self.disk), std::mem::take(&mut self.path));
            // A name that stays is emptied out at the next open, or found to be nobody's.
            off_the_async_threads(move || drop(disk.unlink(&path)));
        }
    }
}

/// Does `work` where it may wait for the disk: here, if this is no thread of a runtime.
pub(super) fn off_the_async_threads(work: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Writes all `octets` at `at`, as they lie, without a copy.
pub(super) fn write_all(disk: &dyn Disk, file: &File, octets: &[Bytes], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = octets.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    // Empty parts at the beginning would look like a disk that takes nothing.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match disk.write(file, left, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut left, written);
                at = at.saturating_add(written as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads `most` octets from `from` on; fewer where the file ends.
pub(super) fn read_all(disk: &dyn Disk, file: &File, from: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; most];
    let mut filled = 0;
    while let Some(into) = octets.get_mut(filled..).filter(|into| !into.is_empty()) {
        match disk.read(file, into, from.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    octets.truncate(filled);
    Ok(octets)
}

/// A path of the folder, in words.
pub(super) fn named(what: &str, path: &Path) -> String {
    format!("{what} {}", path.display())
}
