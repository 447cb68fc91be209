//! The book: the cohorts of every stream in memory, and what follows from them. No I/O.
//!
//! It is filled from the counters at the start, then fed with what the store has been told. What it
//! comes to is compared with the standings that the directory has: [`Book::judge`] says what is to
//! change and nothing else, so that the same figures always say the same.
//!
//! Promises: reading a rate costs no scan. A stream whose counters could not be read gets no better
//! standing by what is missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::mail::{StreamId, TenantId};
use crate::policy::cohort::{Figures, History, Windows};
use crate::policy::reputation::{
    self, AccountJudged, Brake, Charge, Contributor, Judged, Rule, Rules, Span, Step, settle,
};
use crate::policy::tenant::{Cohort, Standing, Stream, StreamKind, Tenant};
use crate::store::counters::Counts;
use crate::store::directory::Directory;
use crate::time::{Hour, Timestamp};

/// What is known of every stream's mail.
#[derive(Debug, Default)]
pub struct Book {
    pages: BTreeMap<TenantId, BTreeMap<StreamId, Page>>,
    /// Tenants of whom something is new.
    fresh: BTreeSet<TenantId>,
    /// What the account's sum came to last.
    account: Option<AccountJudged>,
}

/// A stream's page.
#[derive(Clone, Debug, Default)]
struct Page {
    history: History,
    /// A row of its counters could not be read.
    is_damaged: bool,
}

/// A standing that is to change.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream; `None`: of the tenant's sum.
    pub stream: Option<StreamId>,
    /// As it is.
    pub before: Standing,
    /// As it is to be.
    pub after: Standing,
}

impl Change {
    /// The step before.
    pub fn from(&self) -> Step {
        step_of(&self.before)
    }

    /// The step after.
    pub fn to(&self) -> Step {
        step_of(&self.after)
    }

    /// Whether it is more than bookkeeping: another step, or in force where it was only told of.
    pub fn is_transition(&self) -> bool {
        let shadow = |standing: &Standing| standing.brake.as_ref().is_some_and(|brake| brake.shadow);
        self.from() != self.to() || shadow(&self.before) != shadow(&self.after)
    }

    /// Whether what it comes to is only told of.
    pub fn is_shadow(&self) -> bool {
        self.after.brake.as_ref().or(self.before.brake.as_ref()).is_some_and(|brake| brake.shadow)
    }
}

fn step_of(standing: &Standing) -> Step {
    standing.brake.as_ref().map_or(Step::Good, |brake| brake.step)
}

/// The figures that a rate is made of.
pub fn figures_of(counts: &Counts) -> Figures {
    Figures { accepted: counts.accepted, bounced: counts.bounced, complained: counts.complained }
}

impl Book {
    /// Adds what was counted of a stream's cohort. What was sent before the last resume counts no more.
    pub fn add(&mut self, tenant: &TenantId, stream: &StreamId, standing: &Standing, cohort: Cohort, counts: &Counts) {
        if !standing.counts(cohort) {
            return;
        }
        self.page(tenant, stream).history.add(cohort.hour, figures_of(counts));
        self.fresh.insert(tenant.clone());
    }

    /// A row of a stream's counters could not be read.
    pub fn damaged(&mut self, tenant: &TenantId, stream: &StreamId) {
        self.page(tenant, stream).is_damaged = true;
    }

    /// Begins a stream's window anew.
    pub fn resumed(&mut self, tenant: &TenantId, stream: &StreamId) {
        let page = self.page(tenant, stream);
        page.history.clear();
        page.is_damaged = false;
        self.fresh.insert(tenant.clone());
    }

    /// Time has come to `now`.
    pub fn roll(&mut self, now: Hour) {
        for page in self.pages.values_mut().flat_map(BTreeMap::values_mut) {
            page.history.roll(now);
        }
    }

    /// Tenants and streams that are no more are forgotten.
    pub fn keep(&mut self, directory: &Directory) {
        self.pages.retain(|id, pages| {
            let Some(tenant) = directory.tenant(id) else { return false };
            pages.retain(|stream, _| tenant.streams.contains_key(stream));
            true
        });
    }

    /// The tenants of whom something is new since this was asked last.
    pub fn take_fresh(&mut self) -> BTreeSet<TenantId> {
        std::mem::take(&mut self.fresh)
    }

    /// Something is new of these tenants still.
    pub fn remember(&mut self, tenants: BTreeSet<TenantId>) {
        self.fresh.extend(tenants);
    }

    /// The sums of a stream.
    pub fn windows(&self, tenant: &TenantId, stream: &StreamId) -> Windows {
        self.history(tenant, stream).map(History::windows).unwrap_or_default()
    }

    /// The cohorts of a stream.
    pub fn history(&self, tenant: &TenantId, stream: &StreamId) -> Option<&History> {
        Some(&self.pages.get(tenant)?.get(stream)?.history)
    }

    /// What the account's sum came to last.
    pub fn account(&self) -> Option<&AccountJudged> {
        self.account.as_ref()
    }

    /// The sums of the account.
    pub fn account_windows(&self) -> Windows {
        let mut sum = Windows::default();
        self.pages.values().flat_map(BTreeMap::values).for_each(|page| sum += page.history.windows());
        sum
    }

    /// Judges the account's sum anew. Whether it is over its line.
    pub fn judge_account(&mut self, directory: &Directory, rules: &Rules) -> bool {
        let contributors: Vec<Contributor> = self
            .each(directory)
            .map(|(_, stream, page)| Contributor {
                windows: page.history.windows(),
                may_be_paused: stream.kind != StreamKind::Transactional,
            })
            .collect();
        let judged = reputation::judge_account(&contributors, rules);
        let is_over = judged.charge.is_some();
        self.account = Some(judged);
        is_over
    }

    /// The streams that are to be paused for the account's sake, each with its share of what is bad.
    pub fn worst(&self, directory: &Directory) -> Vec<(TenantId, StreamId, f64)> {
        let Some(account) = &self.account else { return Vec::new() };
        let streams: Vec<(&TenantId, &StreamId)> =
            self.each(directory).map(|(tenant, stream, _)| (&tenant.id, &stream.id)).collect();
        let named = |(at, share): &(usize, f64)| {
            streams.get(*at).map(|(tenant, stream)| (TenantId::clone(tenant), StreamId::clone(stream), *share))
        };
        account.worst.iter().filter_map(named).collect()
    }

    /// What is to change of a tenant and its streams. `worst` are the tenant's streams that the account's
    /// sum wants paused.
    pub fn judge(&self, tenant: &Tenant, rules: &Rules, worst: &BTreeSet<StreamId>, now: Timestamp) -> Vec<Change> {
        let (no_pages, blank) = (BTreeMap::new(), Page::default());
        // Who has no page is judged all the same: a brake ends at its moment, whatever was lost.
        let pages = self.pages.get(&tenant.id).unwrap_or(&no_pages);
        let (mut all, mut transactional) = (History::default(), History::default());
        all.roll(now.hour());
        transactional.roll(now.hour());
        let first = tenant.standing.first.or_else(|| {
            let first = pages.values().filter_map(|page| page.history.first()).min()?;
            Some(reputation::begin_of(first))
        });
        let young = rules.is_young(first, now);
        let (mut changes, mut is_damaged) = (Vec::new(), false);
        for stream in tenant.streams.values() {
            let page = pages.get(&stream.id).unwrap_or(&blank);
            is_damaged |= page.is_damaged;
            all.merge(&page.history);
            if stream.kind == StreamKind::Transactional {
                transactional.merge(&page.history);
            }
            let lines = rules.lines_of_stream(stream.kind, &stream.limits, &tenant.limits);
            let judge = |windows: &Windows| reputation::judge(windows, &lines, rules, young);
            let mut judged = judge(&page.history.windows());
            let mut clears = clears_of(&page.history, judged, now, |windows| judge(windows).step);
            if judged.step < Step::Paused && worst.contains(&stream.id) {
                (judged, clears) = self.for_the_account(&page.history, now);
            }
            let shadow = !(rules.enforce && stream.enforce.unwrap_or(tenant.enforce));
            let brake = settled(&stream.standing, judged, clears, (shadow, page.is_damaged), now);
            let after = standing_of(&stream.standing, brake, page.history.first(), now);
            changes.extend(change(tenant, Some(stream), after));
        }
        let lines = rules.lines_of_tenant(&tenant.limits);
        let judged = reputation::judge_tenant(&all.windows(), &transactional.windows(), &lines, rules, young);
        let judge = |all: &Windows, transactional: &Windows| {
            reputation::judge_tenant(all, transactional, &lines, rules, young).step
        };
        let clears = (judged.step > Step::Good)
            .then(|| reputation::clears_of_tenant(&all, &transactional, judged.step, now.hour(), judge));
        let shadow = !(rules.enforce && tenant.enforce);
        let brake = settled(&tenant.standing, judged, clears, (shadow, is_damaged), now);
        let mut after = standing_of(&tenant.standing, brake, all.first(), now);
        after.first = first;
        changes.extend(change(tenant, None, after));
        changes
    }

    /// A pause for the account's sake, kept until the stream's own figures do no harm to it.
    fn for_the_account(&self, history: &History, now: Timestamp) -> (Judged, Option<Timestamp>) {
        let windows = history.windows();
        let rate_of = |charge: &Charge| {
            let figures = charge.span.of(&windows);
            reputation::rate(charge.offence.of(&figures), figures.accepted)
        };
        // Of the lines that the account is over, the one to which this stream adds most.
        let charges = self.account.as_ref().map(|account| account.charges.as_slice()).unwrap_or_default();
        let excess = |charge: &&Charge| rate_of(charge) / charge.limit.max(1e-9);
        let most = charges.iter().max_by(|a, b| excess(a).total_cmp(&excess(b)));
        let Some(mut charge) = most.copied() else { return (Judged::GOOD, None) };
        // The line is the account's, the figures are the stream's own: its contact hears of no others'.
        let figures = charge.span.of(&windows);
        (charge.bad, charge.accepted) = (charge.offence.of(&figures), figures.accepted);
        let judged = Judged { step: Step::Paused, charge: Some(charge) };
        let harms = |windows: &Windows| {
            let harmful = Span::ALL.into_iter().any(|span| {
                let figures = span.of(windows);
                let bad = charge.offence.of(&figures);
                bad > 0 && reputation::rate(bad, figures.accepted) > charge.limit
            });
            if harmful { Step::Paused } else { Step::Good }
        };
        (judged, clears_of(history, judged, now, harms))
    }

    fn page(&mut self, tenant: &TenantId, stream: &StreamId) -> &mut Page {
        self.pages.entry(tenant.clone()).or_default().entry(stream.clone()).or_default()
    }

    /// Every stream of the directory that has a page, always in the same order.
    fn each<'a>(&'a self, directory: &'a Directory) -> impl Iterator<Item = (&'a Tenant, &'a Stream, &'a Page)> {
        self.pages.iter().filter_map(|(id, pages)| Some((directory.tenant(id)?, pages))).flat_map(|(tenant, pages)| {
            let known = move |(id, page)| Some((&**tenant, tenant.streams.get(id)?, page));
            pages.iter().filter_map(known)
        })
    }
}

fn clears_of(history: &History, judged: Judged, now: Timestamp, judge: impl Fn(&Windows) -> Step) -> Option<Timestamp> {
    (judged.step > Step::Good).then(|| reputation::clears(history, judged.step, now.hour(), judge))
}

/// The brake that follows; what is missing in damaged figures makes nothing better.
fn settled(
    standing: &Standing,
    judged: Judged,
    clears: Option<Timestamp>,
    (shadow, is_damaged): (bool, bool),
    now: Timestamp,
) -> Option<Brake> {
    let before = standing.brake.as_ref();
    let after = settle(before, judged, clears, shadow, now);
    let better = step_in(after.as_ref()) < step_in(before);
    // A damaged standing has no figures to judge by: a person has to end it.
    let beyond_judging = is_damaged || before.is_some_and(|brake| brake.charge.rule == Rule::Damaged);
    if better && beyond_judging { before.map(|brake| Brake { shadow, ..*brake }) } else { after }
}

fn step_in(brake: Option<&Brake>) -> Step {
    brake.map_or(Step::Good, |brake| brake.step)
}

fn standing_of(before: &Standing, brake: Option<Brake>, first: Option<Hour>, now: Timestamp) -> Standing {
    let first = before.first.or_else(|| first.map(reputation::begin_of));
    let good_since = match (&brake, before.good_since) {
        (Some(_), _) => None,
        (None, Some(since)) => Some(since),
        // The first mail begins it, or the end of a brake.
        (None, None) if before.brake.is_some() => Some(now),
        (None, None) => before.resumed.or(first),
    };
    Standing { brake, resumed: before.resumed, first, good_since }
}

/// What is to be written of a standing: figures that move within a step are not, so that a bad hour
/// costs no write an event.
fn change(tenant: &Tenant, stream: Option<&Stream>, after: Standing) -> Option<Change> {
    let before = stream.map_or(&tenant.standing, |stream| &stream.standing);
    let told = |standing: &Standing| {
        let brake = standing.brake.as_ref().map(|brake| (brake.step, brake.shadow, brake.clears));
        (brake, standing.first, standing.good_since)
    };
    (told(before) != told(&after)).then(|| Change {
        tenant: tenant.id.clone(),
        stream: stream.map(|stream| stream.id.clone()),
        before: before.clone(),
        after,
    })
}

/// The charge as the log and the audit trail have it.
pub fn why(standing: &Standing) -> String {
    standing.brake.as_ref().map(|brake| Charge::to_string(&brake.charge)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
