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
    accepted: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    /// Not written yet.
    unwritten: BTreeMap<Row, u64>,
    /// Not judged by yet.
    fresh: BTreeMap<Row, u64>,
}

impl Tally {
    /// SES took a message for `recipients` recipients, sent in `cohort`.
    pub fn accepted(&self, tenant: &TenantId, stream: &StreamId, cohort: Cohort, recipients: u64) {
        if recipients > 0 {
            let row = Row { tenant: tenant.clone(), stream: stream.clone(), cohort };
            let mut sums = self.lock();
            add(&mut sums.fresh, row.clone(), recipients);
            add(&mut sums.unwritten, row, recipients);
        }
    }

    /// Takes all there is, to be written.
    pub fn take(&self) -> Vec<(Row, u64)> {
        std::mem::take(&mut self.lock().unwritten).into_iter().collect()
    }

    /// Gives back what could not be written.
    pub fn put_back(&self, rows: Vec<(Row, u64)>) {
        let mut sums = self.lock();
        for (row, recipients) in rows {
            add(&mut sums.unwritten, row, recipients);
        }
    }

    /// Takes what was added since this was called last, to be judged by. It is written besides.
    pub fn take_fresh(&self) -> Vec<(Row, u64)> {
        std::mem::take(&mut self.lock().fresh).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(sums: &mut BTreeMap<Row, u64>, row: Row, recipients: u64) {
    let sum = sums.entry(row).or_default();
    *sum = sum.saturating_add(recipients);
}
