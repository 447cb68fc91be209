//! The file of a message that is too large for memory: written as it arrives, kept or gone.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::fresh::{Fresh, off_the_async_threads, read_all, write_all};
use super::{House, INCOMING_FAULT, blocking, fault};
use crate::mail::MessageId;
use crate::outbox::{Draft, SpoolError};
use crate::store::Pending;

/// A [`Draft`] in a file.
pub(super) struct FileDraft {
    house: Arc<House>,
    /// `None` while it is being dropped.
    file: Option<Arc<File>>,
    /// `None` once it was to be kept, however that ended.
    fresh: Mutex<Option<Fresh>>,
    at: u64,
    len: u64,
    crc: crc32fast::Hasher,
    /// Whether octets of an append that was given up, or that failed and could not be undone, may lie
    /// behind those that count.
    ragged: bool,
}

impl FileDraft {
    pub(super) fn new(house: Arc<House>, fresh: Fresh, file: File, at: u64) -> Self {
        Self {
            house,
            file: Some(Arc::new(file)),
            fresh: Mutex::new(Some(fresh)),
            at,
            len: 0,
            crc: crc32fast::Hasher::new(),
            ragged: false,
        }
    }

    fn file(&self) -> Result<Arc<File>, SpoolError> {
        self.file.clone().ok_or_else(|| SpoolError::Io("the draft has been dropped".into()))
    }

    fn check(&self) -> Result<(), SpoolError> {
        if self.ragged { Err(SpoolError::Io("an append to the draft did not end".into())) } else { Ok(()) }
    }
}

impl Draft for FileDraft {
    fn append(&mut self, octets: Bytes) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            self.check()?;
            let permit = self.house.permit().await?;
            let (house, file) = (Arc::clone(&self.house), self.file()?);
            let (end, mut crc) = (self.at.saturating_add(self.len), self.crc.clone());
            let more = octets.len() as u64;
            // Given up from here on, the write may still come to pass, and at its own time.
            self.ragged = true;
            let written = blocking(move || {
                let _permit = permit;
                let parts = [octets];
                if let Err(error) = write_all(&*house.disk, &file, &parts, end) {
                    let undone = house.disk.truncate(&file, end).is_ok();
                    return Err((fault(INCOMING_FAULT, &error), undone));
                }
                parts.iter().for_each(|part| crc.update(part));
                Ok(crc)
            })
            .await?;
            match written {
                Ok(crc) => {
                    self.crc = crc;
                    self.len = self.len.saturating_add(more);
                    self.ragged = false;
                    Ok(())
                }
                Err((error, undone)) => {
                    self.ragged = !undone;
                    Err(error)
                }
            }
        })
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn at(&self) -> u64 {
        self.at
    }

    fn checksum(&self) -> crc32fast::Hasher {
        self.crc.clone()
    }

    fn read(&self) -> Pending<'_, Result<Bytes, SpoolError>> {
        Box::pin(async move {
            let (house, file) = (Arc::clone(&self.house), self.file()?);
            let too_long = |_| SpoolError::Io("the draft is longer than memory".into());
            let (at, len) = (self.at, usize::try_from(self.len).map_err(too_long)?);
            let octets = blocking(move || read_all(&*house.disk, &file, at, len)).await?;
            let octets = octets.map_err(|error| fault("the draft cannot be read", &error))?;
            if octets.len() < len {
                return Err(SpoolError::Io("the draft is shorter than what was written".into()));
            }
            Ok(octets.into())
        })
    }

    fn keep(&self, id: MessageId, before: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(async move {
            self.check()?;
            let octets: u64 = before.iter().map(|part| part.len() as u64).sum();
            if octets > self.at {
                let words = format!("{octets} octets do not fit in the {} before the draft", self.at);
                return Err(SpoolError::Io(words));
            }
            let permit = self.house.permit().await?;
            let file = self.file()?;
            let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
            let fresh = fresh.ok_or_else(|| SpoolError::Io("the draft was to be kept before".into()))?;
            let to = self.house.path(id);
            let fresh = self
                .house
                .place(permit, to, false, move |house| {
                    let written = write_all(&*house.disk, &file, &before, 0);
                    fresh.unless_failed(written.and_then(|()| house.disk.sync_data(&file)))
                })
                .await?;
            fresh.kept();
            Ok(())
        })
    }
}

impl Drop for FileDraft {
    /// The octets of a large file are freed with its last name or its last descriptor, which takes
    /// time: neither is let go on an async thread.
    fn drop(&mut self) {
        let fresh = self.fresh.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let file = self.file.take();
        off_the_async_threads(move || {
            drop(fresh);
            drop(file);
        });
    }
}
