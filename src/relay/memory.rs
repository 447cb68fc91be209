//! Octets of mail held at once, by all connections together (`limits.memory_bytes`).
//!
//! A message that comes in takes octets in steps as it grows and gives them back when it has been
//! answered. Where a step is not to be had within `limits.memory_wait_seconds`, the message is starved
//! (452 4.3.1) rather than the machine. Copies for SES are counted apart (`limits.call_bytes`):
//! they are made while the message is still held, and waiting for one budget with a share of it in
//! hand could wait for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::Limits;
use super::budget::{Budget, Room};

/// Octets a place stands for, so that large budgets fit a semaphore.
const UNIT: usize = 1024;

/// The budgets.
#[derive(Debug)]
pub(super) struct Memory {
    held: Arc<Budget>,
    calls: Arc<Budget>,
    step: usize,
    waits: Mutex<Waits>,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    held: Duration,
    call: Duration,
}

/// What one connection holds of the budget.
#[derive(Debug, Default)]
pub(super) struct Share {
    room: Option<Room>,
}

impl Share {
    /// Gives all of it back.
    pub(super) fn give_back(&mut self) {
        self.room = None;
    }
}

/// There was not enough within the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Short;

impl Memory {
    pub(super) fn new(limits: &Limits) -> Self {
        let (held, calls, waits) = sizes(limits);
        Self {
            held: Budget::new(held),
            calls: Budget::new(calls),
            step: (limits.memory_step / UNIT).max(1),
            waits: Mutex::new(waits),
        }
    }

    /// From now on these are the bounds. Messages that are held stay, whatever they are.
    pub(super) fn resize(&self, limits: &Limits) {
        let (held, calls, waits) = sizes(limits);
        self.held.resize(held);
        self.calls.resize(calls);
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = waits;
    }

    fn waits(&self) -> Waits {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another message could begin now.
    pub(super) fn has_room(&self) -> bool {
        self.held.available() >= self.step
    }

    /// Makes `share` cover `octets`: grows it in steps, waiting at most `limits.memory_wait_seconds`. It never
    /// shrinks.
    pub(super) async fn cover(&self, share: &mut Share, octets: usize) -> Result<(), Short> {
        let have = share.room.as_ref().map_or(0, Room::places);
        let need = octets.div_ceil(UNIT);
        if need <= have {
            return Ok(());
        }
        let more = (need - have).next_multiple_of(self.step);
        let more = u32::try_from(more).map_err(|_| Short)?;
        let more = timeout(self.waits().held, self.held.take(more)).await.map_err(|_| Short)?;
        match &mut share.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Room for a copy of `octets` for SES. A message larger than the whole budget takes all of it,
    /// so that it goes alone rather than never.
    pub(super) async fn copy(&self, octets: usize) -> Result<Room, Short> {
        let units = octets.div_ceil(UNIT).clamp(1, self.calls.size().max(1));
        let units = u32::try_from(units).map_err(|_| Short)?;
        timeout(self.waits().call, self.calls.take(units)).await.map_err(|_| Short)
    }
}

/// Places for what is held and for the copies, and how long each is waited for.
fn sizes(limits: &Limits) -> (usize, usize, Waits) {
    let most = u32::MAX as usize;
    let held = (limits.memory_bytes / UNIT).min(most);
    let calls = (limits.call_bytes / UNIT).clamp(1, most);
    (held, calls, Waits { held: limits.memory_wait, call: limits.call_wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: usize) -> Memory {
        Memory::new(&Limits {
            memory_bytes: bytes,
            memory_step: 64 * 1024,
            memory_wait: Duration::ZERO,
            call_bytes: 1024 * 1024,
            call_wait: Duration::ZERO,
            ..Limits::default()
        })
    }

    #[tokio::test]
    async fn a_share_grows_in_steps_and_is_given_back_whole() {
        let memory = memory(128 * 1024);
        let mut one = Share::default();
        let mut two = Share::default();
        assert_eq!(memory.cover(&mut one, 1).await, Ok(()));
        assert_eq!(memory.held.available(), 64);
        assert_eq!(memory.cover(&mut one, 64 * 1024).await, Ok(()));
        assert_eq!(memory.held.available(), 64, "the first step covers 64 KiB");
        assert_eq!(memory.cover(&mut two, 1).await, Ok(()));
        assert!(!memory.has_room());
        assert_eq!(memory.cover(&mut one, 64 * 1024 + 1).await, Err(Short));
        two.give_back();
        assert_eq!(memory.cover(&mut one, 64 * 1024 + 1).await, Ok(()));
        drop(one);
        assert_eq!(memory.held.available(), 128);
    }

    #[tokio::test]
    async fn a_copy_larger_than_the_budget_goes_alone() {
        let memory = memory(0);
        let small = memory.copy(10).await.unwrap();
        assert_eq!(memory.copy(40 * 1024 * 1024).await.err(), Some(Short));
        drop(small);
        let huge = memory.copy(40 * 1024 * 1024).await.unwrap();
        assert_eq!(memory.copy(10).await.err(), Some(Short));
        drop(huge);
        assert!(memory.copy(10).await.is_ok());
    }
}
