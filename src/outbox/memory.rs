//! The reference spool: octets in a map, and faults on demand. What the tests of the outbox and the
//! dispatcher run on; `adapters/spool` has the files.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::spool::{Draft, Spool, SpoolError};
use crate::mail::MessageId;
use crate::store::Pending;

/// Octets that are free when nobody says otherwise.
const ROOM: u64 = 1 << 40;

/// Files in memory. Clones are the same spool.
#[derive(Clone, Debug, Default)]
pub struct MemorySpool(Arc<State>);

#[derive(Debug, Default)]
struct State {
    files: Mutex<BTreeMap<MessageId, Vec<u8>>>,
    generation: AtomicU64,
    /// Octets taken off [`ROOM`].
    used: AtomicU64,
    /// Calls that write, so far.
    writes: AtomicUsize,
    /// Calls that read a file, so far.
    reads: AtomicUsize,
    fault: Mutex<Option<SpoolError>>,
}

impl MemorySpool {
    /// An empty spool.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every write fails so; `None`: none does.
    pub fn fail_with(&self, fault: Option<SpoolError>) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// From now on so many octets are free.
    pub fn leave_room(&self, octets: u64) {
        self.0.used.store(ROOM.saturating_sub(octets), Ordering::Relaxed);
    }

    /// Calls that wrote, or tried to.
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::Relaxed)
    }

    /// Calls that read a file.
    pub fn reads(&self) -> usize {
        self.0.reads.load(Ordering::Relaxed)
    }

    /// The ids of all files.
    pub fn ids(&self) -> Vec<MessageId> {
        self.files().keys().copied().collect()
    }

    /// Puts a file there as it is, or takes it away.
    pub fn put(&self, id: MessageId, octets: Option<Vec<u8>>) {
        match octets {
            Some(octets) => self.files().insert(id, octets),
            None => self.files().remove(&id),
        };
    }

    /// The octets of a file.
    pub fn octets(&self, id: MessageId) -> Option<Vec<u8>> {
        self.files().get(&id).cloned()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<MessageId, Vec<u8>>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> Result<(), SpoolError> {
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        match &*self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Spool for MemorySpool {
    fn begin(&self, room: u64) -> Pending<'_, Result<Box<dyn Draft>, SpoolError>> {
        let draft = MemoryDraft { spool: self.clone(), at: room, octets: Vec::new() };
        ready(self.write().map(|()| Box::new(draft) as Box<dyn Draft>))
    }

    fn keep(&self, id: MessageId, octets: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>> {
        let kept = self.write().map(|()| {
            self.files().insert(id, octets.concat());
        });
        ready(kept)
    }

    fn read(&self, id: MessageId, from: u64, most: u64) -> Pending<'_, Result<Bytes, SpoolError>> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        let files = self.files();
        let part = files.get(&id).map(|octets| {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(octets.len());
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let to = from.saturating_add(most).min(octets.len());
            Bytes::copy_from_slice(octets.get(from..to).unwrap_or_default())
        });
        ready(part.ok_or(SpoolError::Missing))
    }

    fn append(&self, id: MessageId, octets: Bytes) -> Pending<'_, Result<(), SpoolError>> {
        let appended = self.write().and_then(|()| match self.files().get_mut(&id) {
            Some(file) => {
                file.extend_from_slice(&octets);
                Ok(())
            }
            None => Err(SpoolError::Missing),
        });
        ready(appended)
    }

    fn remove(&self, id: MessageId) -> Pending<'_, Result<(), SpoolError>> {
        self.files().remove(&id);
        ready(Ok(()))
    }

    fn list(&self) -> Pending<'_, Result<Vec<MessageId>, SpoolError>> {
        ready(Ok(self.ids()))
    }

    fn generation(&self) -> Pending<'_, Result<u64, SpoolError>> {
        ready(Ok(self.0.generation.load(Ordering::Relaxed)))
    }

    fn set_generation(&self, generation: u64) -> Pending<'_, Result<(), SpoolError>> {
        self.0.generation.store(generation, Ordering::Relaxed);
        ready(Ok(()))
    }

    fn room(&self) -> Result<u64, SpoolError> {
        Ok(ROOM - self.0.used.load(Ordering::Relaxed))
    }

    fn probe(&self) -> Pending<'_, Result<(), SpoolError>> {
        ready(self.write())
    }
}

/// A draft in memory.
#[derive(Debug)]
struct MemoryDraft {
    spool: MemorySpool,
    at: u64,
    octets: Vec<u8>,
}

impl Draft for MemoryDraft {
    fn append(&mut self, octets: Bytes) -> Pending<'_, Result<(), SpoolError>> {
        let appended = self.spool.write();
        if appended.is_ok() {
            self.octets.extend_from_slice(&octets);
        }
        ready(appended)
    }

    fn len(&self) -> u64 {
        self.octets.len() as u64
    }

    fn at(&self) -> u64 {
        self.at
    }

    fn checksum(&self) -> crc32fast::Hasher {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.octets);
        crc
    }

    fn read(&self) -> Pending<'_, Result<Bytes, SpoolError>> {
        ready(Ok(Bytes::copy_from_slice(&self.octets)))
    }

    fn keep(&self, id: MessageId, before: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>> {
        let kept = self.spool.write().and_then(|()| {
            let mut file = before.concat();
            let at = usize::try_from(self.at).unwrap_or(usize::MAX);
            if file.len() > at {
                return Err(SpoolError::Io("what stands before a spilled message has no room".into()));
            }
            file.resize(at, 0);
            file.extend_from_slice(&self.octets);
            self.spool.files().insert(id, file);
            Ok(())
        });
        ready(kept)
    }
}
