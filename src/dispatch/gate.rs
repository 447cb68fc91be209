//! The gates of lanes: what of a stream, of its tenant and of the account may leave now, beside the
//! account's rate. Pure but for living behind the board's mutex.
//!
//! | gate | whose | opens again |
//! |---|---|---|
//! | the account's standing | all | when SES says so |
//! | the account's quota of 24 hours | all; the last part is for transactional mail | with SES's next answer |
//! | recipients a day | a tenant's, a stream's | at midnight (UTC) |
//! | the warm-up's step | a stream's | at midnight (UTC) |
//! | the [exposure window](crate::policy::exposure) | a stream's | as outcomes come in |
//! | recipients a second | a tenant's, a stream's | soon |
//!
//! A message is looked at ([`Gates::peek`]), and then [reserves](Gates::reserve) for all its open
//! recipients at every gate at once, so that none of them is passed twice by what is being offered.
//! What SES takes, or may have taken, is [`taken`](Gates::taken); the rest comes
//! [back](Gates::give_back).
//!
//! Promises: no gate of one lane shuts another's, but a tenant's gates those of its lanes and the
//! account's all. No day, window or quota takes more than it has, but for one message larger than all of
//! it, which goes when nothing else has gone or is out. Nothing is allocated for a message.
//! What can go wrong: counts of what was sent before the process began are as good as the counters
//! (`recall`): they may lack the last second before a crash.

use std::collections::HashMap;
use std::time::Instant;

use super::pace::Pace;
use crate::mail::TenantId;
use crate::outbox::{Cause, Lane};
use crate::policy::exposure::{self, Exposure, Kept, OutcomeKind};
use crate::policy::reputation::{self, Step};
use crate::policy::tenant::{Standing, Stream, StreamKind, Tenant};
use crate::policy::warmup::{self, Plan, Position};
use crate::time::Timestamp;

/// What holds of a lane now, out of its tenant's and its stream's declaration and standing.
#[derive(Clone, PartialEq, Debug)]
pub struct Terms {
    kind: StreamKind,
    rate: Option<f64>,
    /// Half the rate.
    is_slowed: bool,
    daily: Option<u64>,
    tenant_rate: Option<f64>,
    tenant_daily: Option<u64>,
    warmup: Option<Plan>,
    /// The exposure window is in force.
    is_bound: bool,
    standing: Standing,
    warn: f64,
}

/// What is known of a lane's time before the process began.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Past {
    /// Recipients that SES took today (UTC).
    pub today: u64,
    /// For the window.
    pub exposure: exposure::Past,
    /// The window as it was kept.
    pub kept: Option<Kept>,
    /// Where it stands on its ladder.
    pub position: Option<Position>,
}

/// A moment by both clocks.
pub type Moment = (Instant, Timestamp);

/// Why something may not go now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shut {
    /// Which gate.
    pub cause: Cause,
    /// When to look again; `None`: when something changes.
    pub until: Option<Instant>,
}

/// What the account may still send.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Quota {
    /// Recipients in 24 hours; `None`: no limit.
    pub most: Option<f64>,
    /// Of these, sent when SES was asked last.
    pub sent: f64,
    /// The part of `most` that is for transactional mail, 0 to 1.
    pub reserve: f64,
    /// SES takes nothing from the account.
    pub is_shut: bool,
}

/// The gates of all lanes.
#[derive(Debug)]
pub struct Gates {
    rules: exposure::Rules,
    lanes: HashMap<Lane, Gate>,
    tenants: HashMap<TenantId, Shared>,
    quota: Quota,
    /// Recipients taken since SES was asked, and being offered.
    account: Day,
    rate: Option<f64>,
    /// Lanes whose window may have to be kept.
    unkept: Vec<Lane>,
}

/// One lane's.
#[derive(Debug)]
struct Gate {
    terms: Terms,
    pace: Pace,
    day: Day,
    position: Option<Position>,
    /// The position that is on the disk.
    kept_position: Option<Position>,
    exposure: Exposure,
    /// It is among the `unkept`.
    is_listed: bool,
    has_past: bool,
}

/// A tenant's, over its lanes.
#[derive(Debug)]
struct Shared {
    pace: Pace,
    daily: Option<u64>,
    day: Day,
}

/// Recipients of a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Day {
    day: u64,
    taken: u64,
    reserved: u64,
}

impl Terms {
    /// The terms of a stream.
    pub fn of(tenant: &Tenant, stream: &Stream, rules: &reputation::Rules) -> Self {
        let lines = rules.lines_of_stream(stream.kind, &stream.limits, &tenant.limits);
        Self {
            kind: stream.kind,
            rate: stream.rate_per_second,
            is_slowed: stream.standing.braked(Step::Slowed).is_some(),
            daily: stream.daily_recipients,
            tenant_rate: tenant.rate_per_second,
            tenant_daily: tenant.daily_recipients,
            warmup: stream.warmup.as_ref().and_then(Plan::of),
            is_bound: stream.exposure && rules.enforce && stream.enforce.unwrap_or(tenant.enforce),
            standing: stream.standing.clone(),
            warn: lines.warn_bounce,
        }
    }

    /// The rate in force, where the account has this one.
    fn pace(&self, account: Option<f64>) -> Option<f64> {
        if self.is_slowed { self.rate.or(account).map(|rate| rate / 2.0) } else { self.rate }
    }
}

impl Day {
    fn roll(&mut self, today: u64) {
        if self.day != today {
            (self.day, self.taken) = (today, 0);
        }
    }

    /// Whether so many more are within a cap. More than a whole day's go when nothing else has gone.
    fn has_room(&self, recipients: u64, cap: Option<u64>) -> bool {
        let Some(cap) = cap else { return true };
        let used = self.taken.saturating_add(self.reserved);
        used.saturating_add(recipients) <= cap || used == 0 && cap > 0
    }

    fn reserve(&mut self, recipients: u64) {
        self.reserved = self.reserved.saturating_add(recipients);
    }

    fn give_back(&mut self, recipients: u64) {
        self.reserved = self.reserved.saturating_sub(recipients);
    }

    fn take(&mut self, recipients: u64) {
        self.taken = self.taken.saturating_add(recipients);
    }
}

impl Quota {
    fn is_spent(&self, account: &Day, recipients: u64, kind: StreamKind) -> bool {
        let Some(most) = self.most else { return false };
        let kept_back = match kind {
            StreamKind::Transactional => 0.0,
            StreamKind::Bulk | StreamKind::Marketing => most * self.reserve,
        };
        let used = self.sent + account.taken as f64 + account.reserved as f64;
        used + recipients as f64 > most - kept_back
    }
}

impl Gates {
    /// No lane is known yet.
    pub fn new(rules: exposure::Rules, rate: Option<f64>) -> Self {
        Self {
            rules,
            lanes: HashMap::new(),
            tenants: HashMap::new(),
            quota: Quota::default(),
            account: Day::default(),
            rate,
            unkept: Vec::new(),
        }
    }

    /// Whether the terms of a lane are known here.
    pub fn knows(&self, lane: &Lane) -> bool {
        lane.stream.is_none() || self.lanes.contains_key(lane)
    }

    /// Whether what a lane sent before the process began is known here.
    pub fn has_past(&self, lane: &Lane) -> bool {
        self.lanes.get(lane).is_some_and(|gate| gate.has_past)
    }

    /// From now on these terms hold of a lane.
    pub fn change(&mut self, lane: &Lane, terms: Terms, now: Instant, at: Timestamp) {
        let tenant = self.tenants.entry(lane.tenant.clone()).or_insert_with(|| Shared {
            pace: Pace::new(terms.tenant_rate),
            daily: None,
            day: Day::default(),
        });
        tenant.daily = terms.tenant_daily;
        tenant.pace.change(terms.tenant_rate, now);
        let rate = terms.pace(self.rate);
        let today = warmup::day_of(at);
        let (gate, changed) = match self.lanes.get_mut(lane) {
            Some(gate) => {
                gate.pace.change(rate, now);
                let changed = gate.exposure.standing(&terms.standing, terms.warn, at);
                gate.terms = terms;
                (gate, changed)
            }
            None => {
                let mut exposure = Exposure::new(self.rules, None, &exposure::Past::default(), at);
                let changed = exposure.standing(&terms.standing, terms.warn, at);
                let gate = Gate {
                    pace: Pace::new(rate),
                    day: Day::default(),
                    position: None,
                    kept_position: None,
                    exposure,
                    is_listed: false,
                    has_past: false,
                    terms,
                };
                (self.lanes.entry(lane.clone()).or_insert(gate), changed)
            }
        };
        gate.climb_from_here(today);
        if changed {
            gate.list(&mut self.unkept, lane);
        }
    }

    /// What a lane sent before the process began; to be told once, after its terms.
    pub fn recall(&mut self, lane: &Lane, past: Past, at: Timestamp) {
        let today = warmup::day_of(at);
        let Some(gate) = self.lanes.get_mut(lane) else { return };
        if std::mem::replace(&mut gate.has_past, true) {
            return;
        }
        gate.day.roll(today);
        gate.day.take(past.today);
        if let Some(tenant) = self.tenants.get_mut(&lane.tenant) {
            tenant.day.roll(today);
            tenant.day.take(past.today);
        }
        // Who has begun to send meanwhile began with what a new stream has, which is no more.
        if gate.exposure.is_idle() {
            gate.exposure = Exposure::new(self.rules, past.kept, &past.exposure, at);
            gate.exposure.standing(&gate.terms.standing, gate.terms.warn, at);
            gate.list(&mut self.unkept, lane);
        }
        (gate.position, gate.kept_position) = (past.position, past.position);
        gate.climb_from_here(today);
    }

    /// A lane has come to this step of its ladder.
    pub fn climb(&mut self, lane: &Lane, position: Position) {
        if let Some(gate) = self.lanes.get_mut(lane) {
            (gate.position, gate.kept_position) = (Some(position), Some(position));
        }
    }

    /// Forgets lanes that are gone, unless something of theirs is out.
    pub fn retain(&mut self, is_there: impl Fn(&Lane) -> bool) {
        self.lanes.retain(|lane, gate| is_there(lane) || !gate.exposure.is_idle());
        let lanes = &self.lanes;
        let mut tenants: std::collections::HashSet<&TenantId> = std::collections::HashSet::new();
        tenants.extend(lanes.keys().map(|lane| &lane.tenant));
        self.tenants.retain(|tenant, _| tenants.contains(tenant));
    }

    /// The account takes so many recipients a second: half of it is what a slowed lane without a rate of
    /// its own has.
    pub fn change_rate(&mut self, rate: Option<f64>, now: Instant) {
        self.rate = rate;
        for gate in self.lanes.values_mut().filter(|gate| gate.terms.is_slowed) {
            gate.pace.change(gate.terms.pace(rate), now);
        }
    }

    /// What SES says that the account may send.
    pub fn change_quota(&mut self, quota: Quota) {
        self.quota = quota;
        self.account.taken = 0;
    }

    /// Whether so many recipients of a lane may go now.
    pub fn peek(&mut self, lane: &Lane, kind: StreamKind, recipients: u32, (now, at): Moment) -> Result<(), Shut> {
        let recipients = u64::from(recipients);
        if self.quota.is_shut {
            return Err(Shut { cause: Cause::AccountPaused, until: None });
        }
        if self.quota.is_spent(&self.account, recipients, kind) {
            return Err(Shut { cause: Cause::DailyQuota, until: None });
        }
        let Some(gate) = self.lanes.get_mut(lane) else { return Ok(()) };
        let today = warmup::day_of(at);
        let moment = |until: Timestamp| now.checked_add(until.since(at));
        let tomorrow = |cause| Err(Shut { cause, until: moment(warmup::begin_of_day(today + 1)) });
        gate.day.roll(today);
        let mut tenant = self.tenants.get_mut(&lane.tenant);
        if let Some(tenant) = &mut tenant {
            tenant.day.roll(today);
            if !tenant.day.has_room(recipients, tenant.daily) {
                return tomorrow(Cause::DailyCap);
            }
        }
        if !gate.day.has_room(recipients, gate.terms.daily) {
            return tomorrow(Cause::DailyCap);
        }
        if !gate.day.has_room(recipients, gate.step_cap()) {
            return tomorrow(Cause::Warmup);
        }
        if gate.terms.is_bound
            && let Err(until) = gate.exposure.admits(recipients, at)
        {
            return Err(Shut { cause: Cause::ExposureWindow, until: until.and_then(moment) });
        }
        if let Some(tenant) = tenant
            && let Err(until) = tenant.pace.peek(now)
        {
            return Err(Shut { cause: Cause::TenantRate, until: Some(until) });
        }
        gate.pace.peek(now).map_err(|until| Shut { cause: Cause::StreamRate, until: Some(until) })
    }

    /// So many recipients of a lane are about to be offered, which [`peek`](Self::peek) has let pass.
    pub fn reserve(&mut self, lane: &Lane, recipients: u32, now: Instant) {
        let count = u64::from(recipients);
        self.account.reserve(count);
        let Some(gate) = self.lanes.get_mut(lane) else { return };
        gate.day.reserve(count);
        gate.exposure.reserve(count);
        // It was just looked at.
        let _ = gate.pace.take(recipients, now);
        if let Some(tenant) = self.tenants.get_mut(&lane.tenant) {
            tenant.day.reserve(count);
            let _ = tenant.pace.take(recipients, now);
        }
    }

    /// So many recipients of a lane, of which `covered` were reserved, are with SES or may be, by a call
    /// that began at `sent`.
    pub fn taken(&mut self, lane: &Lane, recipients: u32, covered: u32, sent: Timestamp, at: Timestamp) {
        let (count, covered) = (u64::from(recipients), u64::from(covered));
        let today = warmup::day_of(at);
        self.account.take(count);
        self.account.give_back(covered);
        let Some(gate) = self.lanes.get_mut(lane) else { return };
        gate.day.roll(today);
        gate.day.take(count);
        gate.day.give_back(covered);
        gate.exposure.taken(count, sent, at);
        gate.exposure.unreserve(covered);
        gate.list(&mut self.unkept, lane);
        if let Some(tenant) = self.tenants.get_mut(&lane.tenant) {
            tenant.day.roll(today);
            tenant.day.take(count);
            tenant.day.give_back(covered);
        }
    }

    /// So many reserved recipients of a lane are not offered.
    pub fn give_back(&mut self, lane: &Lane, recipients: u32) {
        let count = u64::from(recipients);
        self.account.give_back(count);
        if let Some(gate) = self.lanes.get_mut(lane) {
            gate.day.give_back(count);
            gate.exposure.unreserve(count);
        }
        if let Some(tenant) = self.tenants.get_mut(&lane.tenant) {
            tenant.day.give_back(count);
        }
    }

    /// What became of recipients of a lane; whether it has more room now.
    pub fn outcome(&mut self, lane: &Lane, sent: Timestamp, recipients: u32, kind: OutcomeKind, at: Timestamp) -> bool {
        let Some(gate) = self.lanes.get_mut(lane) else { return false };
        let has_room = gate.exposure.outcome(sent, u64::from(recipients), kind, at);
        gate.list(&mut self.unkept, lane);
        has_room
    }

    /// The windows that are to be kept, at most so many, with their lanes; and the lanes of which it came to
    /// be known that deliveries are not published.
    pub fn take_unkept(&mut self, most: usize, at: Timestamp) -> (Vec<(Lane, Kept)>, Vec<Lane>) {
        let (mut kept, mut unseen) = (Vec::new(), Vec::new());
        while kept.len() < most
            && let Some(lane) = self.unkept.pop()
        {
            let Some(gate) = self.lanes.get_mut(&lane) else { continue };
            gate.is_listed = false;
            if !gate.terms.is_bound {
                continue;
            }
            if gate.exposure.take_unseen(at) {
                unseen.push(lane.clone());
            }
            if let Some(window) = gate.exposure.take_kept(at) {
                kept.push((lane, window));
            }
        }
        (kept, unseen)
    }

    /// What was taken to be kept was not.
    pub fn not_kept(&mut self, lane: &Lane) {
        if let Some(gate) = self.lanes.get_mut(lane) {
            gate.exposure.not_kept();
            gate.list(&mut self.unkept, lane);
        }
    }

    /// How a lane's window stands; `None` where none is in force.
    pub fn view(&mut self, lane: &Lane, at: Timestamp) -> Option<exposure::View> {
        self.lanes.get_mut(lane).filter(|gate| gate.terms.is_bound).map(|gate| gate.exposure.view(at))
    }

    /// The lanes on a ladder that have not come to `today`, or whose position is not on the disk: each with
    /// its ladder and where it stands.
    pub fn climbers(&self, today: u64) -> Vec<(Lane, Plan, Position)> {
        let climber = |(lane, gate): (&Lane, &Gate)| {
            let (plan, position) = (gate.terms.warmup?, gate.position?);
            (position.day < today || gate.kept_position != Some(position)).then(|| (lane.clone(), plan, position))
        };
        self.lanes.iter().filter_map(climber).collect()
    }

    /// Recipients the account has left of its 24 hours, as far as is known; `None`: no limit.
    pub fn left(&self) -> Option<f64> {
        let used = self.quota.sent + self.account.taken as f64 + self.account.reserved as f64;
        self.quota.most.map(|most| (most - used).max(0.0))
    }
}

impl Gate {
    /// Recipients a day on its step.
    fn step_cap(&self) -> Option<u64> {
        let plan = self.terms.warmup?;
        self.position.filter(|position| plan.has(position)).map_or(plan.cap(0), |position| plan.cap(position.step))
    }

    /// A stream that is not on its ladder begins with it.
    fn climb_from_here(&mut self, today: u64) {
        self.position = match (self.terms.warmup, self.position) {
            (None, _) => None,
            (Some(plan), Some(position)) if plan.has(&position) => Some(position),
            // Where it stood before the process began is not known yet.
            (Some(plan), _) if self.has_past => Some(plan.begin(today)),
            (Some(_), _) => None,
        };
    }

    fn list(&mut self, unkept: &mut Vec<Lane>, lane: &Lane) {
        if self.terms.is_bound && !std::mem::replace(&mut self.is_listed, true) {
            unkept.push(lane.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    fn at(millis: u64) -> Timestamp {
        // Half an hour before midnight.
        Timestamp::from_millis(1_777_075_200_000 + 84_600_000 + millis)
    }

    fn lane(stream: &str) -> Lane {
        Lane { tenant: "acme".parse().unwrap(), stream: Some(stream.parse().unwrap()) }
    }

    fn terms() -> Terms {
        Terms {
            kind: StreamKind::Marketing,
            rate: None,
            is_slowed: false,
            daily: None,
            tenant_rate: None,
            tenant_daily: None,
            warmup: None,
            is_bound: false,
            standing: Standing::default(),
            warn: 0.02,
        }
    }

    fn gates(of: &[(&str, Terms)], now: Instant) -> Gates {
        let mut gates = Gates::new(exposure::Rules::default(), Some(100.0));
        for (stream, terms) in of {
            gates.change(&lane(stream), terms.clone(), now, at(0));
            gates.recall(&lane(stream), Past::default(), at(0));
        }
        gates
    }

    fn pass(gates: &mut Gates, stream: &str, recipients: u32, moment: Moment) -> Result<(), Shut> {
        let lane = lane(stream);
        gates.peek(&lane, StreamKind::Marketing, recipients, moment)?;
        gates.reserve(&lane, recipients, moment.0);
        gates.taken(&lane, recipients, recipients, moment.1, moment.1);
        Ok(())
    }

    #[test]
    fn each_gate_says_its_name_and_when_to_look_again() {
        let now = Instant::now();
        let midnight = Some(now + Duration::from_secs(1800));
        let second = Some(now + Duration::from_secs(1));
        let plan =
            Plan::of(&crate::policy::tenant::Warmup { start: "2026-01-01".into(), first_day: 1, days: 9, target: 9 });
        for (terms, cause, until) in [
            (Terms { daily: Some(1), ..terms() }, Cause::DailyCap, midnight),
            (Terms { tenant_daily: Some(1), ..terms() }, Cause::DailyCap, midnight),
            (Terms { warmup: plan, ..terms() }, Cause::Warmup, midnight),
            (Terms { rate: Some(1.0), ..terms() }, Cause::StreamRate, second),
            (Terms { rate: Some(2.0), is_slowed: true, ..terms() }, Cause::StreamRate, second),
            (Terms { tenant_rate: Some(1.0), ..terms() }, Cause::TenantRate, second),
        ] {
            let mut gates = gates(&[("news", terms)], now);
            assert_eq!(pass(&mut gates, "news", 1, (now, at(0))), Ok(()), "{cause:?}");
            assert_eq!(pass(&mut gates, "news", 1, (now, at(0))), Err(Shut { cause, until }));
            let later = until.unwrap();
            let moment = (later, at(u64::try_from((later - now).as_millis()).unwrap()));
            assert_eq!(pass(&mut gates, "news", 1, moment), Ok(()), "{cause:?}");
        }
        let mut bound = gates(&[("news", Terms { is_bound: true, ..terms() })], now);
        assert_eq!(pass(&mut bound, "news", 100, (now, at(0))), Ok(()));
        let horizon = Some(now + Duration::from_secs(601));
        let shut = Shut { cause: Cause::ExposureWindow, until: horizon };
        assert_eq!(pass(&mut bound, "news", 1, (now, at(0))), Err(shut));
        assert!(bound.outcome(&lane("news"), at(0), 1, OutcomeKind::Delivered, at(1)));
        assert_eq!(pass(&mut bound, "news", 1, (now, at(1))), Ok(()));
    }

    #[test]
    fn a_tenants_gates_are_over_its_lanes_and_anothers_are_not() {
        let now = Instant::now();
        let terms = Terms { tenant_daily: Some(10), ..terms() };
        let mut gates = gates(&[("news", terms.clone()), ("main", terms)], now);
        assert_eq!(pass(&mut gates, "news", 6, (now, at(0))), Ok(()));
        assert!(pass(&mut gates, "main", 5, (now, at(0))).is_err());
        assert_eq!(pass(&mut gates, "main", 4, (now, at(0))), Ok(()));
        let other = Lane { tenant: "globex".parse().unwrap(), stream: None };
        assert_eq!(gates.peek(&other, StreamKind::Marketing, 1000, (now, at(0))), Ok(()));
        assert!(!gates.knows(&lane("gone")) && gates.knows(&other));
    }

    #[test]
    fn what_is_larger_than_a_day_goes_when_nothing_else_has() {
        let now = Instant::now();
        let mut gates = gates(&[("news", Terms { daily: Some(10), ..terms() })], now);
        assert_eq!(pass(&mut gates, "news", 50, (now, at(0))), Ok(()));
        assert!(pass(&mut gates, "news", 1, (now, at(0))).is_err());
        let tomorrow = (now + Duration::from_secs(1800), at(1_800_000));
        assert_eq!(pass(&mut gates, "news", 1, tomorrow), Ok(()));
        assert!(pass(&mut gates, "news", 50, tomorrow).is_err());
    }

    #[test]
    fn the_day_before_the_start_counts() {
        let now = Instant::now();
        let mut gates = Gates::new(exposure::Rules::default(), None);
        gates.change(&lane("news"), Terms { daily: Some(100), tenant_daily: Some(150), ..terms() }, now, at(0));
        gates.change(&lane("main"), Terms { tenant_daily: Some(150), ..terms() }, now, at(0));
        for (stream, today) in [("news", 90), ("main", 40)] {
            for _ in 0..2 {
                gates.recall(&lane(stream), Past { today, ..Past::default() }, at(0));
            }
        }
        assert!(pass(&mut gates, "news", 11, (now, at(0))).is_err());
        assert_eq!(pass(&mut gates, "news", 10, (now, at(0))), Ok(()));
        assert!(pass(&mut gates, "main", 11, (now, at(0))).is_err());
        assert_eq!(pass(&mut gates, "main", 10, (now, at(0))), Ok(()));
    }

    #[test]
    fn the_quota_keeps_its_last_part_for_transactional_mail() {
        let now = Instant::now();
        let mut gates = gates(&[("news", terms())], now);
        let (news, moment) = (lane("news"), (now, at(0)));
        gates.change_quota(Quota { most: Some(100.0), sent: 80.0, reserve: 0.05, is_shut: false });
        assert_eq!(pass(&mut gates, "news", 15, moment), Ok(()));
        let spent = Err(Shut { cause: Cause::DailyQuota, until: None });
        assert_eq!(gates.peek(&news, StreamKind::Bulk, 1, moment), spent);
        assert_eq!(gates.peek(&news, StreamKind::Transactional, 5, moment), Ok(()));
        assert_eq!(gates.peek(&news, StreamKind::Transactional, 6, moment), spent);
        assert_eq!(gates.left(), Some(5.0));
        gates.change_quota(Quota { is_shut: true, ..Quota::default() });
        let shut = Err(Shut { cause: Cause::AccountPaused, until: None });
        assert_eq!(gates.peek(&news, StreamKind::Transactional, 1, moment), shut);
    }

    #[derive(Clone, Copy, Debug)]
    enum Deed {
        Pass(u64),
        Offer(usize, u32),
        /// So many of ten parts of the oldest offer are taken, the rest comes back.
        End(u32),
    }

    /// Whatever is offered and however it ends: no cap is passed, and nothing stays reserved.
    #[test]
    fn no_cap_is_passed_and_nothing_stays_reserved() {
        let deep = std::cell::Cell::new((0_u32, 0_u32));
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let deed = prop_oneof![
            3 => (0..400_000_u64).prop_map(Deed::Pass),
            6 => (0..2_usize, 1..=20_u32).prop_map(|(of, n)| Deed::Offer(of, n)),
            5 => (0..=10_u32).prop_map(Deed::End),
        ];
        runner
            .run(&prop::collection::vec(deed, 1..150), |deeds| {
                let begun = Instant::now();
                let streams = ["news", "main"];
                let terms = Terms { daily: Some(100), tenant_daily: Some(150), is_bound: true, ..terms() };
                let mut gates = gates(&[("news", terms.clone()), ("main", terms)], begun);
                let (mut millis, mut offers) = (0, std::collections::VecDeque::new());
                for deed in deeds {
                    let moment = (begun + Duration::from_millis(millis), at(millis));
                    match deed {
                        Deed::Pass(more) => millis += more,
                        Deed::Offer(of, recipients) => {
                            let lane = lane(streams[of]);
                            let (mut offered, mut shut) = deep.get();
                            if gates.peek(&lane, StreamKind::Marketing, recipients, moment).is_ok() {
                                gates.reserve(&lane, recipients, moment.0);
                                offers.push_back((lane, recipients));
                                offered += 1;
                            } else {
                                shut += 1;
                            }
                            deep.set((offered, shut));
                        }
                        Deed::End(tenths) => {
                            let Some((lane, recipients)) = offers.pop_front() else { continue };
                            let taken = recipients * tenths / 10;
                            gates.taken(&lane, taken, taken, moment.1, moment.1);
                            gates.give_back(&lane, recipients - taken);
                        }
                    }
                    for gate in gates.lanes.values() {
                        prop_assert!(
                            gate.day.taken + gate.day.reserved <= 100 + 20,
                            "but for what midnight found on its way"
                        );
                        let view = gate.exposure.clone().view(at(millis));
                        prop_assert!(view.outstanding + view.reserved <= view.window.unwrap());
                    }
                    let shared = &gates.tenants[&lane("news").tenant];
                    prop_assert!(shared.day.taken <= 150 + 20);
                }
                for (lane, recipients) in offers {
                    gates.give_back(&lane, recipients);
                }
                let left = gates
                    .lanes
                    .values()
                    .map(|gate| gate.day.reserved + gate.exposure.clone().view(at(millis)).reserved);
                let shared = gates.tenants.values().map(|tenant| tenant.day.reserved);
                prop_assert_eq!(left.chain(shared).sum::<u64>() + gates.account.reserved, 0);
                Ok(())
            })
            .unwrap();
        let (offered, shut) = deep.get();
        assert!(offered > 3000 && shut > 1000, "{offered} {shut}");
    }
}
