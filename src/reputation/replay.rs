//! What would have come of the mail that was sent, under other limits: the stored history, hour by hour,
//! through the [`Book`] and the judge that are in force every day. No I/O.
//!
//! Each hour has the figures that its mail came to in the end, for when an event arrived is not kept; so
//! a standing is found in the hour the mail was sent, where the relay found it as the bounces came in.
//! Mail is replayed as it was sent, also what a pause would have kept from leaving.
//!
//! Promises: the same history and limits always give the same. Nothing but time and what was resumed
//! makes a standing better, as in the relay.

use std::collections::{BTreeMap, BTreeSet};

use crate::mail::{StreamId, TenantId};
use crate::policy::cohort::WEEK;
use crate::policy::reputation::{Charge, Rules, Step, begin_of};
use crate::policy::tenant::{Cohort, Standing, Tenant};
use crate::store::counters::Counts;
use crate::store::directory::Directory;
use crate::time::{Hour, Timestamp};

use super::book::{Book, Change};

/// What was sent, and what became of it; nodes need not be summed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream.
    pub stream: StreamId,
    /// When, and what became of it.
    pub cohort: Cohort,
    /// How many.
    pub counts: Counts,
}

/// What a replay goes by.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// By hours.
    mail: BTreeMap<Hour, Vec<Mail>>,
    /// Hours in which a stream's window, or a tenant's with all its streams, began anew.
    resumes: BTreeMap<Hour, BTreeSet<(TenantId, Option<StreamId>)>>,
    rows: usize,
}

/// A standing that would have changed.
#[derive(Clone, PartialEq, Debug)]
pub struct Transition {
    /// In which hour.
    pub at: Hour,
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream; `None`: of the tenant's sum.
    pub stream: Option<StreamId>,
    /// From.
    pub from: Step,
    /// To.
    pub to: Step,
    /// Why, if it is no good standing.
    pub charge: Option<Charge>,
    /// Until when, as it would have been said.
    pub clears: Option<Timestamp>,
    /// It would only have been told of.
    pub shadow: bool,
}

impl Past {
    /// Adds mail. A cohort that began within its hour says that the window began anew there.
    pub fn add(&mut self, mail: Mail) {
        if mail.cohort.from_second > 0 {
            self.resumed(mail.cohort.hour, mail.tenant.clone(), Some(mail.stream.clone()));
        }
        self.rows += 1;
        self.mail.entry(mail.cohort.hour).or_default().push(mail);
    }

    /// A window began anew.
    pub fn resumed(&mut self, hour: Hour, tenant: TenantId, stream: Option<StreamId>) {
        self.resumes.entry(hour).or_default().insert((tenant, stream));
    }

    /// How many rows of mail there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What of an hour's mail counts at its end: where the window began anew within it, what came after.
    fn counted<'a>(&'a self, hour: Hour, tenant: &TenantId, stream: &StreamId) -> impl Iterator<Item = &'a Mail> {
        let (tenant, stream) = (tenant.clone(), stream.clone());
        let of_stream = move |mail: &&Mail| mail.tenant == tenant && mail.stream == stream;
        let mail = self.mail.get(&hour).map(Vec::as_slice).unwrap_or_default();
        let last = mail.iter().filter(|mail| of_stream(mail)).map(|mail| mail.cohort.from_second).max().unwrap_or(0);
        // A window that began anew before any mail was sent after it has none.
        mail.iter().filter(move |mail| of_stream(mail) && last > 0 && mail.cohort.from_second == last)
    }
}

/// Judges the hours from `since` to `until`, both included. Windows are filled by the mail before; who was
/// braked then is found so in the first hour.
pub fn replay(past: &Past, rules: &Rules, tenants: Vec<Tenant>, since: Hour, until: Hour) -> Vec<Transition> {
    let mut directory = Directory::new(tenants, []);
    let mut book = Book::default();
    let mut transitions = Vec::new();
    // In whose windows there is something, and until when at the longest.
    let mut alive: BTreeMap<TenantId, Hour> = BTreeMap::new();
    let begin = Hour(since.0.saturating_sub(WEEK));
    for hour in (begin.0..=until.0).map(Hour) {
        book.roll(hour);
        for mail in past.mail.get(&hour).into_iter().flatten() {
            book.add(&mail.tenant, &mail.stream, &Standing::default(), mail.cohort, &mail.counts);
            alive.insert(mail.tenant.clone(), Hour(hour.0.saturating_add(WEEK + 1)));
        }
        let resumed = past.resumes.get(&hour).into_iter().flatten();
        let anew: Vec<(TenantId, Option<StreamId>, Standing)> =
            resumed.flat_map(|(tenant, stream)| resume(&mut book, past, &directory, hour, (tenant, stream))).collect();
        if !anew.is_empty() {
            directory = directory.with_standings(&anew);
        }
        if hour < since {
            continue;
        }
        // The hour's last moment: its mail is there, and the windows are still its own.
        let now = Timestamp::from_millis(begin_of(Hour(hour.0.saturating_add(1))).millis().saturating_sub(1));
        let worst = if book.judge_account(&directory, rules) { book.worst(&directory) } else { Vec::new() };
        let mut changes: Vec<Change> = Vec::new();
        for tenant in directory.tenants() {
            let braked = tenant.standing.brake.is_some() || tenant.streams.values().any(|s| s.standing.brake.is_some());
            if braked || alive.get(&tenant.id).is_some_and(|last| *last >= hour) {
                let worst = worst.iter().filter(|(id, ..)| *id == tenant.id).map(|(_, stream, _)| stream.clone());
                changes.extend(book.judge(tenant, rules, &worst.collect(), now));
            }
        }
        transitions.extend(changes.iter().filter(|change| change.is_transition()).map(|change| told(change, hour)));
        let after: Vec<_> = changes.into_iter().map(|change| (change.tenant, change.stream, change.after)).collect();
        if !after.is_empty() {
            directory = directory.with_standings(&after);
        }
    }
    transitions
}

/// Begins windows anew; the standings that follow.
fn resume(
    book: &mut Book,
    past: &Past,
    directory: &Directory,
    hour: Hour,
    (id, stream): (&TenantId, &Option<StreamId>),
) -> Vec<(TenantId, Option<StreamId>, Standing)> {
    let Some(tenant) = directory.tenant(id) else { return Vec::new() };
    let anew = |standing: &Standing| Standing { brake: None, first: standing.first, ..Standing::default() };
    let mut standings = Vec::new();
    for of in tenant.streams.values().filter(|of| stream.as_ref().is_none_or(|stream| of.id == *stream)) {
        book.resumed(id, &of.id);
        for mail in past.counted(hour, id, &of.id) {
            book.add(id, &of.id, &Standing::default(), Cohort::of(hour), &mail.counts);
        }
        standings.push((id.clone(), Some(of.id.clone()), anew(&of.standing)));
    }
    if stream.is_none() {
        standings.push((id.clone(), None, anew(&tenant.standing)));
    }
    standings
}

fn told(change: &Change, at: Hour) -> Transition {
    let brake = change.after.brake.as_ref();
    Transition {
        at,
        tenant: change.tenant.clone(),
        stream: change.stream.clone(),
        from: change.from(),
        to: change.to(),
        charge: brake.map(|brake| brake.charge),
        clears: brake.and_then(|brake| brake.clears),
        shadow: change.is_shadow(),
    }
}

#[cfg(test)]
mod tests;
