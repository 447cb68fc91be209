//! The machine's clock and the operating system's randomness: the only ones in the house.
//!
//! What can go wrong: a machine whose randomness fails cannot make secrets; that ends the process
//! rather than making weak ones.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::secret::Random;
use crate::time::{Clock, Timestamp};

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineRandom;

impl Random for MachineRandom {
    fn fill(&self, into: &mut [u8]) {
        if getrandom::fill(into).is_err() {
            // Without randomness there are no secrets and no ids: nothing may go on.
            std::process::abort();
        }
    }
}
