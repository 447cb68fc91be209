//! Octets of the copies of messages that are made for SES, over all messages (`limits.call_bytes`).
//!
//! They are counted apart from the octets of messages that are held in memory: a copy is made while
//! the message is still held, and waiting for one budget with a share of it in hand could wait for
//! ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::budget::{Budget, Room};

/// Octets a place stands for, so that large budgets fit a semaphore.
const UNIT: usize = 1024;

/// The budget.
#[derive(Debug)]
pub(super) struct Copies {
    places: Arc<Budget>,
    wait: Mutex<Duration>,
}

/// There was no room within the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("limits.call_bytes was used up for longer than limits.call_wait_seconds")]
pub(super) struct Short;

impl Copies {
    pub(super) fn new(bytes: usize, wait: Duration) -> Self {
        Self { places: Budget::new(places(bytes)), wait: Mutex::new(wait) }
    }

    pub(super) fn resize(&self, bytes: usize, wait: Duration) {
        self.places.resize(places(bytes));
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }

    /// Room for a copy of `octets`. A message larger than the whole budget takes all of it, so that
    /// it goes alone rather than never.
    pub(super) async fn take(&self, octets: u64) -> Result<Room, Short> {
        let octets = usize::try_from(octets).unwrap_or(usize::MAX);
        let units = octets.div_ceil(UNIT).clamp(1, self.places.size().max(1));
        let units = u32::try_from(units).map_err(|_| Short)?;
        let wait = *self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        timeout(wait, self.places.take(units)).await.map_err(|_| Short)
    }
}

fn places(bytes: usize) -> usize {
    (bytes / UNIT).clamp(1, u32::MAX as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_larger_than_the_budget_goes_alone() {
        let copies = Copies::new(1024 * 1024, Duration::ZERO);
        let small = copies.take(10).await.unwrap();
        assert_eq!(copies.take(40 * 1024 * 1024).await.err(), Some(Short));
        drop(small);
        let huge = copies.take(40 * 1024 * 1024).await.unwrap();
        assert_eq!(copies.take(10).await.err(), Some(Short));
        drop(huge);
        assert!(copies.take(10).await.is_ok());
    }
}
