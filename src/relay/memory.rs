//! Octets of mail held at once, by all connections together (`limits.memory_bytes`).
//!
//! A message that comes in takes octets in steps as it grows and gives them back when it has been
//! answered. Where a step is not to be had within `limits.memory_wait_seconds`, the message is starved
//! (452 4.3.1) rather than the machine. What a message spilled to a file no longer counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::Limits;
use super::budget::{Budget, Room};

/// Octets a place stands for, so that large budgets fit a semaphore.
const UNIT: usize = 1024;

/// The budget.
#[derive(Debug)]
pub(super) struct Memory {
    held: Arc<Budget>,
    step: usize,
    wait: Mutex<Duration>,
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

    /// Gives back what is not needed to cover `octets`.
    pub(super) fn shrink(&mut self, octets: usize) {
        if let Some(room) = &mut self.room {
            room.keep(octets.div_ceil(UNIT));
        }
    }
}

/// There was not enough within the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Short;

impl Memory {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            held: Budget::new(places(limits)),
            step: (limits.memory_step / UNIT).max(1),
            wait: Mutex::new(limits.memory_wait),
        }
    }

    /// From now on these are the bounds. Messages that are held stay, whatever they are.
    pub(super) fn resize(&self, limits: &Limits) {
        self.held.resize(places(limits));
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = limits.memory_wait;
    }

    fn wait(&self) -> Duration {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
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
        let more = timeout(self.wait(), self.held.take(more)).await.map_err(|_| Short)?;
        match &mut share.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// Places for what is held.
fn places(limits: &Limits) -> usize {
    (limits.memory_bytes / UNIT).min(u32::MAX as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: usize) -> Memory {
        Memory::new(&Limits {
            memory_bytes: bytes,
            memory_step: 64 * 1024,
            memory_wait: Duration::ZERO,
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
}
