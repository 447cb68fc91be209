//! Recipients that are being offered to SES, reserved at all gates of their lane; and from when the
//! account's rate has room for them.
//!
//! Promises: whatever becomes of an attempt, what it has not used comes back: the value is dropped with
//! it. Nothing comes back twice.

use std::sync::Arc;

use super::Dispatch;
use super::pace::Slot;
use crate::outbox::Lane;

/// A reservation, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    dispatch: Arc<Dispatch>,
    lane: Lane,
    left: u32,
    slot: Slot,
}

impl Reserved {
    /// So many recipients of a lane, which the board has reserved.
    pub(super) fn of(dispatch: &Arc<Dispatch>, lane: Lane, recipients: u32, slot: Slot) -> Self {
        Self { dispatch: Arc::clone(dispatch), lane, left: recipients, slot }
    }

    /// From when its calls may begin.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// So many were offered, and SES has them or may have them; how many of them were reserved.
    pub(super) fn use_up(&mut self, recipients: u32) -> u32 {
        let covered = recipients.min(self.left);
        self.left -= covered;
        covered
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.left > 0 {
            self.dispatch.give_back(&self.lane, self.left);
        }
    }
}
