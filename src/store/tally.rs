//! Recipients that SES accepted from us, added up in memory until the applier writes them.
//!
//! The message path adds here and nowhere else: a message costs no write to the store. A process
//! that is killed loses at most what came since the last flush, a second's worth; that makes a
//! denominator a little small, never a bounce unseen.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counters::Row;
use crate::mail::{StreamId, TenantId};
use crate::policy::tenant::Cohort;

/// Accepted recipients by tenant, stream and cohort.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: Mutex<BTreeMap<Row, u64>>,
}

impl Tally {
    /// SES took a message for `recipients` recipients, sent in `cohort`.
    pub fn accepted(&self, tenant: &TenantId, stream: &StreamId, cohort: Cohort, recipients: u64) {
        if recipients > 0 {
            self.add(Row { tenant: tenant.clone(), stream: stream.clone(), cohort }, recipients);
        }
    }

    /// Takes all there is, to be written.
    pub fn take(&self) -> Vec<(Row, u64)> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    /// Gives back what could not be written.
    pub fn put_back(&self, rows: Vec<(Row, u64)>) {
        for (row, recipients) in rows {
            self.add(row, recipients);
        }
    }

    fn add(&self, row: Row, recipients: u64) {
        let mut accepted = self.lock();
        let sum = accepted.entry(row).or_default();
        *sum = sum.saturating_add(recipients);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Row, u64>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
