//! Where bodies are kept: files by message id, as a trait.
//!
//! `adapters/spool` has the files; [`memory`](super::memory) is what the tests of everything above
//! run on. The octets of a file are `body`'s affair: a spool knows ids and octets.
//!
//! Promises, of every spool: a file that [`Spool::keep`] or [`Draft::keep`] returned from is whole,
//! durable and found under its id after a power cut; one that was not kept is not found, ever; a
//! name that was found holds all its octets. What can go wrong: [`SpoolError`]. A fault concerns the
//! call that met it and no other file; whoever meets one may try again at once.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::mail::MessageId;
use crate::store::Pending;

/// Why a spool could not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpoolError {
    /// There is no room: ENOSPC, a quota, a file size limit.
    #[error("there is no room: {0}")]
    Full(String),
    /// The disk does not do it.
    #[error("{0}")]
    Io(String),
    /// There is no file of that id.
    #[error("its body file is not there")]
    Missing,
}

impl SpoolError {
    /// What `error`, met at `what`, means.
    pub fn of(what: &str, error: &io::Error) -> Self {
        let words = format!("{what}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(words)
            }
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(words),
        }
    }
}

/// Files by message id.
pub trait Spool: Send + Sync + 'static {
    /// Begins a file for a message that is too large for memory and still arriving. Its octets lie
    /// behind `room` octets that are left free for what will stand before them.
    fn begin(&self, room: u64) -> Pending<'_, Result<Box<dyn Draft>, SpoolError>>;

    /// Keeps `octets`, in order, as the file of `id`, durably.
    fn keep(&self, id: MessageId, octets: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>>;

    /// Up to `most` octets of the file of `id` from `from` on; fewer where it ends.
    fn read(&self, id: MessageId, from: u64, most: u64) -> Pending<'_, Result<Bytes, SpoolError>>;

    /// Adds octets at the end of the file of `id`, durably.
    fn append(&self, id: MessageId, octets: Bytes) -> Pending<'_, Result<(), SpoolError>>;

    /// Removes the file of `id`, not necessarily durably: who comes back after a power cut finds
    /// out by the store that it has served. It is no fault if there is none.
    fn remove(&self, id: MessageId) -> Pending<'_, Result<(), SpoolError>>;

    /// The ids of all files. Reads none of them.
    fn list(&self) -> Pending<'_, Result<Vec<MessageId>, SpoolError>>;

    /// The number that was last set, 0 if none was.
    fn generation(&self) -> Pending<'_, Result<u64, SpoolError>>;

    /// Sets it, durably.
    fn set_generation(&self, generation: u64) -> Pending<'_, Result<(), SpoolError>>;

    /// Octets that are free for others than root on the disk; asked at every message that is to be
    /// held, so it must not wait.
    fn room(&self) -> Result<u64, SpoolError>;

    /// Writes a small file durably and removes it: whether the disk works (again).
    fn probe(&self) -> Pending<'_, Result<(), SpoolError>>;
}

/// A file that takes a message's octets as they arrive. Dropped without [`keep`](Self::keep), it is
/// gone.
pub trait Draft: Send + Sync {
    /// Adds octets. Not durable.
    fn append(&mut self, octets: Bytes) -> Pending<'_, Result<(), SpoolError>>;

    /// Octets that were added.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where in the file they begin: the `room` that was asked for.
    fn at(&self) -> u64;

    /// The checksum of what was added, to be combined with that of what will stand before it.
    fn checksum(&self) -> crc32fast::Hasher;

    /// All that was added.
    fn read(&self) -> Pending<'_, Result<Bytes, SpoolError>>;

    /// Writes `before` at the beginning of the file, no more of it than [`at`](Self::at), and keeps
    /// the file as that of `id`, durably.
    fn keep(&self, id: MessageId, before: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>>;
}

/// The octets of a message: those in memory, in order, and behind them those in a draft.
#[derive(Clone)]
pub struct Content {
    /// In memory.
    pub first: Vec<Bytes>,
    /// In a file.
    pub draft: Option<Arc<dyn Draft>>,
}

impl Content {
    /// Octets in all.
    pub fn len(&self) -> u64 {
        let first: usize = self.first.iter().map(Bytes::len).sum();
        first as u64 + self.draft.as_ref().map_or(0, |draft| draft.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one copy: what the SDK needs in a vector.
    pub async fn to_vec(&self) -> Result<Vec<u8>, SpoolError> {
        let mut all = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        for segment in &self.first {
            all.extend_from_slice(segment);
        }
        if let Some(draft) = &self.draft {
            all.extend_from_slice(&draft.read().await?);
        }
        Ok(all)
    }

    /// The CRC-32 of all octets.
    pub fn checksum(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        for segment in &self.first {
            crc.update(segment);
        }
        if let Some(draft) = &self.draft {
            crc.combine(&draft.checksum());
        }
        crc.finalize()
    }
}

impl std::fmt::Debug for Content {
    /// How much, never what.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} octets)", self.len())
    }
}
