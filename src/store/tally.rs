//! Recipients that SES accepted from us, added up in memory until the applier writes them.
//!
//! The message path adds here and nowhere else: a message costs no write to the store. A process
//! that is killed loses at most what came since the last flush, a second's worth; that makes a
//! denominator a little small, never a bounce unseen.
//!
//! Promises: bounded by tenants, streams and hours; of domains [`MOST_DOMAINS`] at a time, all further
//! ones of their tenant together, also while the store takes nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counters::Row;
use super::domains::{self, OTHERS};
use crate::mail::{StreamId, TenantId};
use crate::policy::tenant::Cohort;

/// Domains that are added up at a time, over all tenants; of one tenant's day a tenth of it.
pub const MOST_DOMAINS: usize = 10_000;

/// Accepted recipients by tenant, stream and cohort, and by tenant, day and domain.
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
    /// By domain, not written yet.
    domains: BTreeMap<(TenantId, u32), BTreeMap<String, u64>>,
    /// How many domains those are.
    distinct: usize,
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

    /// They were at these domains, each named once a recipient, and it was this day.
    pub fn at_domains<'a>(&self, tenant: &TenantId, day: u32, domains: impl IntoIterator<Item = &'a str>) {
        let mut sums = self.lock();
        for domain in domains {
            sums.at(tenant, day, domain, 1);
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

    /// The same by domain.
    pub fn take_domains(&self) -> Vec<(domains::Row, u64)> {
        let taken = {
            let mut sums = self.lock();
            sums.distinct = 0;
            std::mem::take(&mut sums.domains)
        };
        let rows = taken.into_iter().flat_map(|((tenant, day), domains)| {
            let row = move |domain| domains::Row { tenant: tenant.clone(), day, domain };
            domains.into_iter().map(move |(domain, recipients)| (row(domain), recipients))
        });
        rows.collect()
    }

    /// The same by domain.
    pub fn put_back_domains(&self, rows: Vec<(domains::Row, u64)>) {
        let mut sums = self.lock();
        for (domains::Row { tenant, day, domain }, recipients) in rows {
            sums.at(&tenant, day, &domain, recipients);
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

impl Sums {
    fn at(&mut self, tenant: &TenantId, day: u32, domain: &str, recipients: u64) {
        let of_day = self.domains.entry((tenant.clone(), day)).or_default();
        if let Some(sum) = of_day.get_mut(domain) {
            *sum = sum.saturating_add(recipients);
            return;
        }
        let has_room = self.distinct < MOST_DOMAINS && of_day.len() < MOST_DOMAINS / 10;
        let domain = if has_room { domain } else { OTHERS };
        let before = of_day.len();
        let sum = of_day.entry(domain.to_owned()).or_default();
        *sum = sum.saturating_add(recipients);
        self.distinct += of_day.len() - before;
    }
}

fn add(sums: &mut BTreeMap<Row, u64>, row: Row, recipients: u64) {
    let sum = sums.entry(row).or_default();
    *sum = sum.saturating_add(recipients);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_bounded_and_no_recipient_is_lost() {
        let tally = Tally::default();
        let (acme, many) = (TenantId::parse("acme").unwrap(), MOST_DOMAINS / 10 + 50);
        let names: Vec<String> = (0..many).map(|number| format!("d{number}.example")).collect();
        let add = || tally.at_domains(&acme, 1, names.iter().map(String::as_str));
        add();
        add();
        let taken = tally.take_domains();
        assert_eq!(taken.len(), MOST_DOMAINS / 10 + 1);
        assert_eq!(taken.iter().map(|(_, sum)| sum).sum::<u64>(), 2 * many as u64);
        let others = taken.iter().find(|(row, _)| row.domain == OTHERS).unwrap().1;
        assert_eq!(others, 100);
        assert_eq!(tally.take_domains(), []);
        // What the store did not take comes back, and the bound holds still.
        tally.put_back_domains(taken);
        add();
        let taken = tally.take_domains();
        assert!(taken.len() <= MOST_DOMAINS / 10 + 1, "{}", taken.len());
        assert_eq!(taken.iter().map(|(_, sum)| sum).sum::<u64>(), 3 * many as u64);
    }

    #[test]
    fn the_bound_is_over_all_tenants() {
        let tally = Tally::default();
        for number in 0..30 {
            let tenant = TenantId::parse(&format!("t{number}")).unwrap();
            let names: Vec<String> = (0..900).map(|number| format!("d{number}.example")).collect();
            tally.at_domains(&tenant, 1, names.iter().map(String::as_str));
        }
        let taken = tally.take_domains();
        assert!(taken.len() <= MOST_DOMAINS + 30, "{}", taken.len());
        assert_eq!(taken.iter().map(|(_, sum)| sum).sum::<u64>(), 27_000);
    }
}
