//! What is not called while it does not answer: one breaker for the account, one for each lane that
//! fails.
//!
//! A breaker is *closed* while all is well, *open* after failures, and *probing* while the one call
//! is out that may go when its time is over: if SES answers, it closes, otherwise it opens again, for
//! longer.
//!
//! Promises: while SES is down one call at a time finds out, and the waits between them grow. What
//! concerns one lane closes no other: not even trouble of SES's own opens the account's breaker as
//! long as one lane alone has met it. Only lanes that failed since SES last answered them take
//! memory.
//! Refuses: to learn from late failures. A call that began before the breaker last changed tells what
//! was then: its failure neither lengthens a wait nor decides a probe, and its success closes only
//! what opened for trouble of SES's or the network's, where any answer is news.
//! What can go wrong: a probe whose task is lost and never [`abandoned`](Breakers::abandoned) blocks
//! others for [`PROBE_TIME`], no longer.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::waits::Waits;
use crate::outbox::cause::{Cause, Scope};

/// How many failures in a row open a breaker where one alone may be chance.
pub const ROW: u32 = 3;

/// How long a probe may be out before another may go in its stead; longer than any call takes.
pub const PROBE_TIME: Duration = Duration::from_secs(10 * 60);

/// The account's breaker and those of the lanes.
#[derive(Debug)]
pub struct Breakers<L> {
    account: Breaker,
    /// The lane whose call is the account's probe.
    prober: Option<L>,
    /// Who met SES's trouble since SES last answered anybody.
    witnesses: Witnesses<L>,
    lanes: HashMap<L, Breaker>,
}

/// Whether a lane's next message may be offered to SES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permit {
    /// Yes.
    Go,
    /// Yes, and what becomes of it decides for the others: it must be [`Breakers::answered`] or
    /// [`Breakers::abandoned`].
    Probe,
    /// Not before `until`, or before a probe is answered.
    Wait {
        /// What is the matter.
        cause: Cause,
        /// When to ask again.
        until: Instant,
    },
}

/// A breaker has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change<L> {
    /// It has opened, or its probe has failed.
    Opened {
        /// The lane; `None` is the account.
        scope: Option<L>,
        /// What is the matter.
        cause: Cause,
        /// When a probe may go.
        until: Instant,
        /// How often it has opened for this without an answer between; at 1 it was closed before, or
        /// open for something else.
        trips: u32,
    },
    /// SES answers again.
    Closed {
        /// The lane; `None` is the account.
        scope: Option<L>,
        /// What was the matter.
        cause: Cause,
    },
}

/// One breaker.
#[derive(Debug, Default)]
struct Breaker {
    state: State,
    /// When the state last changed. A call that began before is late.
    since: Option<Instant>,
    /// How often it opened for the same without an answer between.
    trips: u32,
    /// Failures without an answer between, by what is counted together.
    rows: Vec<(Kind, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        cause: Cause,
        until: Instant,
    },
    Probing {
        cause: Cause,
        /// When the probe is given up.
        until: Instant,
    },
}

/// How a breaker stands towards a call that wants to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stand {
    Closed,
    /// A probe may go.
    Due,
    Shut(Cause, Instant),
}

/// Causes that are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// SES's or the network's trouble: it tells nothing of whose it is.
    Outage,
    /// Each of the others is by itself.
    Alone(Cause),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Witnesses<L> {
    #[default]
    Nobody,
    One(L),
    Several,
}

impl<L> Default for Breakers<L> {
    fn default() -> Self {
        Self { account: Breaker::default(), prober: None, witnesses: Witnesses::Nobody, lanes: HashMap::new() }
    }
}

impl<L: Clone + Eq + Hash + Ord> Breakers<L> {
    /// Whether the next message of `lane` may be offered to SES. Who gets a [`Permit::Probe`] makes
    /// the call, or abandons it.
    pub fn permit(&mut self, lane: &L, now: Instant) -> Permit {
        let own = self.lanes.get(lane).map_or(Stand::Closed, |breaker| breaker.stand(now));
        let account = self.account.stand(now);
        match (account, own) {
            (Stand::Closed, Stand::Closed) => Permit::Go,
            (Stand::Shut(_, sooner), Stand::Shut(cause, until)) if sooner < until => Permit::Wait { cause, until },
            (Stand::Shut(cause, until), _) | (_, Stand::Shut(cause, until)) => Permit::Wait { cause, until },
            (Stand::Due, _) | (_, Stand::Due) => {
                if account == Stand::Due {
                    self.account.probe(now);
                    self.prober = Some(lane.clone());
                }
                if own == Stand::Due
                    && let Some(breaker) = self.lanes.get_mut(lane)
                {
                    breaker.probe(now);
                }
                Permit::Probe
            }
        }
    }

    /// Why mail that has just come in for `lane` is not offered to SES at once, and until when;
    /// `None` when it may be. It is not the probe: that is the outbox's, so that a thousand clients do
    /// not all find out together. (What cannot be held asks for a [`permit`](Self::permit) then.)
    pub fn ask(&self, lane: &L) -> Option<(Cause, Instant)> {
        self.account.shut().or_else(|| self.lanes.get(lane)?.shut())
    }

    /// A call of `lane` that began at `begun` has come to its end. `failure` is `None` when SES took
    /// the message or refused it for good: it answers. Direct calls are told here as well.
    pub fn answered(
        &mut self,
        lane: &L,
        failure: Option<Cause>,
        begun: Instant,
        now: Instant,
        fraction: f64,
        waits: &Waits,
    ) -> Vec<Change<L>> {
        let call = Call { begun, now, fraction, waits };
        let mut changes = Vec::new();
        changes.extend(self.tell_account(lane, failure, &call));
        changes.extend(self.tell_lane(lane, failure, &call));
        changes
    }

    /// A probe of `lane` has ended without an answer: the next one may go at once.
    pub fn abandoned(&mut self, lane: &L) {
        if self.prober.as_ref() == Some(lane) {
            self.account.give_up();
            self.prober = None;
        }
        if let Some(breaker) = self.lanes.get_mut(lane) {
            breaker.give_up();
        }
    }

    /// The first moment after `now` at which a probe may go.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let all = std::iter::once(&self.account).chain(self.lanes.values());
        all.filter_map(Breaker::shut).map(|(_, until)| until).filter(|until| *until > now).min()
    }

    /// By hand: the next call that asks is a probe, of `lane` or, with `None`, of the account.
    pub fn reopen_now(&mut self, lane: Option<&L>) {
        match lane {
            None => {
                self.account.fall_due();
                self.prober = None;
            }
            Some(lane) => {
                if let Some(breaker) = self.lanes.get_mut(lane) {
                    breaker.fall_due();
                }
            }
        }
    }

    /// The lane is gone: its stream or tenant was removed.
    pub fn forget(&mut self, lane: &L) {
        self.abandoned(lane);
        self.lanes.remove(lane);
    }

    fn tell_account(&mut self, lane: &L, failure: Option<Cause>, call: &Call<'_>) -> Option<Change<L>> {
        let is_probe = self.prober.as_ref() == Some(lane);
        if self.account.is_disproved_by(failure) {
            self.witnesses = Witnesses::Nobody;
            let cause = self.account.passed(call)?;
            self.prober = None;
            if Kind::of(cause) == Kind::Outage {
                self.outage_is_over();
            }
            return Some(Change::Closed { scope: None, cause });
        }
        let opened = match failure.filter(|cause| cause.scope() == Scope::Account) {
            Some(cause) => {
                let is_alone = self.witness(lane, cause);
                self.account.failed(cause, is_probe, is_alone, call)
            }
            None => {
                if is_probe {
                    self.account.undecided(call);
                }
                None
            }
        };
        if !self.account.is_probing() {
            self.prober = None;
        }
        opened.map(|opened| opened.change(None))
    }

    fn tell_lane(&mut self, lane: &L, failure: Option<Cause>, call: &Call<'_>) -> Option<Change<L>> {
        let Some(cause) = failure else {
            let breaker = self.lanes.get_mut(lane)?;
            let closed = breaker.passed(call);
            if breaker.state == State::Closed {
                self.lanes.remove(lane);
            }
            return closed.map(|cause| Change::Closed { scope: Some(lane.clone()), cause });
        };
        if cause.scope() != Scope::Lane && Kind::of(cause) != Kind::Outage {
            if let Some(breaker) = self.lanes.get_mut(lane) {
                breaker.undecided(call);
            }
            return None;
        }
        let breaker = self.lanes.entry(lane.clone()).or_default();
        breaker.failed(cause, true, false, call).map(|opened| opened.change(Some(lane.clone())))
    }

    /// Notes who has met SES's trouble; whether that is this lane alone.
    fn witness(&mut self, lane: &L, cause: Cause) -> bool {
        if Kind::of(cause) != Kind::Outage {
            return false;
        }
        match &self.witnesses {
            Witnesses::Nobody => {
                self.witnesses = Witnesses::One(lane.clone());
                true
            }
            Witnesses::One(first) if first == lane => true,
            Witnesses::One(_) | Witnesses::Several => {
                self.witnesses = Witnesses::Several;
                false
            }
        }
    }

    /// What holds the lanes may have been the same: each finds out now.
    fn outage_is_over(&mut self) {
        for breaker in self.lanes.values_mut() {
            if let State::Open { cause, .. } = breaker.state
                && Kind::of(cause) == Kind::Outage
            {
                breaker.fall_due();
            }
        }
    }
}

/// A call that has come to its end.
struct Call<'a> {
    begun: Instant,
    now: Instant,
    fraction: f64,
    waits: &'a Waits,
}

struct Opened {
    cause: Cause,
    until: Instant,
    trips: u32,
}

impl Opened {
    fn change<L>(self, scope: Option<L>) -> Change<L> {
        Change::Opened { scope, cause: self.cause, until: self.until, trips: self.trips }
    }
}

impl Breaker {
    fn stand(&self, now: Instant) -> Stand {
        match self.shut() {
            None => Stand::Closed,
            Some((cause, until)) if now < until => Stand::Shut(cause, until),
            Some(_) => Stand::Due,
        }
    }

    fn shut(&self) -> Option<(Cause, Instant)> {
        match self.state {
            State::Closed => None,
            State::Open { cause, until } | State::Probing { cause, until } => Some((cause, until)),
        }
    }

    fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    fn is_late(&self, call: &Call<'_>) -> bool {
        self.since.is_some_and(|since| call.begun < since)
    }

    /// Whether this answer shows that what the breaker is, or may soon be, open for is not so. SES
    /// answers all of these only after it has let us in.
    fn is_disproved_by(&self, failure: Option<Cause>) -> bool {
        let Some(cause) = failure else { return true };
        // Words we do not know may be a proxy's.
        if cause.scope() != Scope::Lane || cause == Cause::Unrecognised {
            return false;
        }
        self.shut().is_none_or(|(open, _)| Kind::of(open) == Kind::Outage || open == Cause::Credentials)
    }

    fn probe(&mut self, now: Instant) {
        if let Some((cause, _)) = self.shut() {
            self.state = State::Probing { cause, until: after(now, PROBE_TIME) };
            self.since = Some(now);
        }
    }

    /// SES answers. What was the matter, if that is over.
    fn passed(&mut self, call: &Call<'_>) -> Option<Cause> {
        self.rows.clear();
        let (cause, _) = self.shut()?;
        if self.is_late(call) && Kind::of(cause) != Kind::Outage {
            return None;
        }
        self.state = State::Closed;
        self.since = Some(call.now);
        self.trips = 0;
        Some(cause)
    }

    /// A call met `cause`. With `is_spared` it is counted and opens nothing by its count.
    fn failed(&mut self, cause: Cause, is_probe: bool, is_spared: bool, call: &Call<'_>) -> Option<Opened> {
        if self.is_late(call) {
            return None;
        }
        match self.state {
            State::Open { .. } => None,
            State::Probing { cause: before, .. } => is_probe.then(|| {
                let trips = if Kind::of(before) == Kind::of(cause) { self.trips.saturating_add(1) } else { 1 };
                self.open(cause, trips, call)
            }),
            State::Closed => {
                let row = self.count(Kind::of(cause));
                let is_enough = row >= row_of(cause) && !is_spared;
                is_enough.then(|| self.open(cause, 1, call))
            }
        }
    }

    /// A call ended with something that is not this breaker's matter. If it was the probe, the next
    /// call is.
    fn undecided(&mut self, call: &Call<'_>) {
        if !self.is_late(call) {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        if self.is_probing() {
            self.fall_due();
        }
    }

    /// A probe may go from now on: `since` is never ahead of anybody's clock.
    fn fall_due(&mut self) {
        if let (Some((cause, _)), Some(until)) = (self.shut(), self.since) {
            self.state = State::Open { cause, until };
        }
    }

    fn open(&mut self, cause: Cause, trips: u32, call: &Call<'_>) -> Opened {
        let until = after(call.now, call.waits.of_breaker(cause, trips, call.fraction));
        self.state = State::Open { cause, until };
        self.since = Some(call.now);
        self.trips = trips;
        self.rows.clear();
        Opened { cause, until, trips }
    }

    /// One more of `kind`; how many there are.
    fn count(&mut self, kind: Kind) -> u32 {
        if let Some((_, count)) = self.rows.iter_mut().find(|(of, _)| *of == kind) {
            *count = count.saturating_add(1);
            return *count;
        }
        self.rows.push((kind, 1));
        1
    }
}

impl Kind {
    fn of(cause: Cause) -> Self {
        match cause {
            Cause::Service | Cause::Network | Cause::Unknown => Self::Outage,
            Cause::Throttled
            | Cause::DailyQuota
            | Cause::Credentials
            | Cause::AccessDenied
            | Cause::SetMissing
            | Cause::TenantMissing
            | Cause::NotAssociated
            | Cause::MailFromDomain
            | Cause::Busy
            | Cause::Unrecognised
            | Cause::AccountPaused
            | Cause::AccountSuspended
            | Cause::SetPaused
            | Cause::Handoff
            | Cause::Backlog
            | Cause::Rate
            | Cause::ExposureWindow
            | Cause::DailyCap
            | Cause::Warmup
            | Cause::StreamRate
            | Cause::TenantRate
            | Cause::Deadline
            | Cause::Drain
            | Cause::Standing
            | Cause::Damaged => Self::Alone(cause),
        }
    }
}

/// How many of them in a row open a breaker. What SES says plainly about the account, the set or
/// the SES tenant is believed at once.
fn row_of(cause: Cause) -> u32 {
    match cause {
        Cause::Throttled
        | Cause::DailyQuota
        | Cause::Credentials
        | Cause::AccountPaused
        | Cause::AccountSuspended
        | Cause::SetMissing
        | Cause::TenantMissing
        | Cause::SetPaused => 1,
        Cause::Service
        | Cause::Network
        | Cause::Unknown
        // About one sender of several, perhaps.
        | Cause::AccessDenied
        | Cause::NotAssociated
        | Cause::MailFromDomain
        | Cause::Unrecognised => ROW,
        // These are no breaker's.
        Cause::Busy
        | Cause::Handoff
        | Cause::Backlog
        | Cause::Rate
        | Cause::ExposureWindow
        | Cause::DailyCap
        | Cause::Warmup
        | Cause::StreamRate
        | Cause::TenantRate
        | Cause::Deadline
        | Cause::Drain
        | Cause::Standing
        | Cause::Damaged => u32::MAX,
    }
}

/// A wait beyond what the clock can say is none: a probe too many does no harm.
fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    type Lane = u32;

    /// Breakers with a clock and without jitter: waits are their longest.
    struct Bench {
        breakers: Breakers<Lane>,
        start: Instant,
        now: Instant,
        waits: Waits,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { breakers: Breakers::default(), start, now: start, waits: Waits::default() }
        }

        fn pass(&mut self, seconds: f64) {
            self.now += Duration::from_secs_f64(seconds);
        }

        /// A call that takes 10 ms.
        fn call(&mut self, lane: Lane, failure: Option<Cause>) -> Vec<Change<Lane>> {
            let begun = self.now;
            self.pass(0.01);
            self.late(lane, failure, begun)
        }

        fn late(&mut self, lane: Lane, failure: Option<Cause>, begun: Instant) -> Vec<Change<Lane>> {
            self.breakers.answered(&lane, failure, begun, self.now, 1.0, &self.waits)
        }

        fn permit(&mut self, lane: Lane) -> Permit {
            self.breakers.permit(&lane, self.now)
        }

        fn is_open(&mut self, lane: Lane) -> bool {
            self.breakers.ask(&lane).is_some()
        }

        /// Until the wait is over; what it was for, and how many seconds it took.
        fn sit_out(&mut self, lane: Lane) -> (Cause, u64) {
            let Permit::Wait { cause, until } = self.permit(lane) else { panic!("nothing to wait for") };
            let seconds = until.duration_since(self.now).as_secs_f64().round();
            self.now = until;
            (cause, seconds as u64)
        }
    }

    fn opened(changes: &[Change<Lane>]) -> Vec<(Option<Lane>, Cause, u32)> {
        let opened = changes.iter().filter_map(|change| match change {
            Change::Opened { scope, cause, trips, .. } => Some((*scope, *cause, *trips)),
            Change::Closed { .. } => None,
        });
        opened.collect()
    }

    #[test]
    fn every_cause_opens_what_it_concerns_after_its_row() {
        use Cause::*;
        // How many failures open the account's breaker and the lane's; failures of two lanes by turns.
        let rows = [
            (Throttled, Some(1), None),
            (DailyQuota, Some(1), None),
            (Service, Some(3), Some(3)),
            (Network, Some(3), Some(3)),
            (Unknown, Some(3), Some(3)),
            (Credentials, Some(1), None),
            (AccountPaused, Some(1), None),
            (AccountSuspended, Some(1), None),
            (SetMissing, None, Some(1)),
            (TenantMissing, None, Some(1)),
            (SetPaused, None, Some(1)),
            (AccessDenied, None, Some(3)),
            (NotAssociated, None, Some(3)),
            (MailFromDomain, None, Some(3)),
            (Unrecognised, None, Some(3)),
            (Busy, None, None),
            (Handoff, None, None),
            (Backlog, None, None),
            (Rate, None, None),
            (ExposureWindow, None, None),
            (DailyCap, None, None),
            (Warmup, None, None),
            (StreamRate, None, None),
            (TenantRate, None, None),
            (Deadline, None, None),
            (Drain, None, None),
            (Standing, None, None),
            (Damaged, None, None),
        ];
        assert_eq!(rows.len(), Cause::ALL.len());
        for (cause, account, lane) in rows {
            let mut bench = Bench::new();
            let at = (1..=10).find(|n| opened(&bench.call(n % 2, Some(cause))).iter().any(|o| o.0.is_none()));
            assert_eq!(at, account, "{cause:?} and the account");
            assert_eq!(bench.is_open(7), account.is_some(), "{cause:?}");

            let mut bench = Bench::new();
            let at = (1..=10).find(|_| opened(&bench.call(1, Some(cause))).iter().any(|o| o.0 == Some(1)));
            assert_eq!(at, lane, "{cause:?} and the lane");
            if account.is_none() || lane.is_some() {
                assert!(!bench.is_open(7), "{cause:?} in one lane is no other's");
            }
        }
    }

    #[test]
    fn what_is_counted_together_is_one_row_and_an_answer_ends_it() {
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::Service));
        bench.call(2, Some(Cause::Network));
        assert_eq!(opened(&bench.call(3, Some(Cause::Unknown))), [(None, Cause::Unknown, 1)]);

        let mut bench = Bench::new();
        for _ in 0..50 {
            bench.call(1, Some(Cause::Service));
            bench.call(2, Some(Cause::Service));
            assert!(bench.call(1, None).is_empty());
            assert!(bench.call(2, None).is_empty());
        }
        assert!(bench.breakers.lanes.is_empty(), "only lanes that fail take memory");

        // A refusal for want of a configuration set is an answer of SES's too.
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::Service));
        bench.call(2, Some(Cause::Service));
        assert_eq!(opened(&bench.call(3, Some(Cause::SetMissing))), [(Some(3), Cause::SetMissing, 1)]);
        assert!(bench.call(4, Some(Cause::Service)).is_empty());
        assert!(!bench.is_open(5));
    }

    #[test]
    fn one_probe_goes_and_others_wait_for_its_answer() {
        let mut bench = Bench::new();
        assert_eq!(bench.permit(1), Permit::Go);
        bench.call(1, Some(Cause::DailyQuota));
        let until = bench.now + bench.waits.quota;
        assert_eq!(bench.permit(2), Permit::Wait { cause: Cause::DailyQuota, until });
        assert_eq!(bench.breakers.next(bench.now), Some(until));
        assert_eq!(bench.sit_out(2), (Cause::DailyQuota, 600));
        assert_eq!(bench.breakers.next(bench.now), None, "whoever asks may go");
        assert_eq!(bench.breakers.ask(&2), Some((Cause::DailyQuota, until)), "new mail is no probe");
        assert_eq!(bench.permit(2), Permit::Probe);
        for lane in [1, 2, 3] {
            assert!(matches!(bench.permit(lane), Permit::Wait { cause: Cause::DailyQuota, .. }));
        }
        assert_eq!(bench.call(2, None), [Change::Closed { scope: None, cause: Cause::DailyQuota }]);
        assert_eq!((bench.permit(1), bench.permit(3)), (Permit::Go, Permit::Go));
    }

    #[test]
    fn a_probe_that_fails_lengthens_the_wait_up_to_its_most() {
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::Throttled));
        let mut waits = Vec::new();
        for trips in 2..=9 {
            waits.push(bench.sit_out(2).1);
            assert_eq!(bench.permit(2), Permit::Probe);
            assert_eq!(opened(&bench.call(2, Some(Cause::Throttled))), [(None, Cause::Throttled, trips)]);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        bench.sit_out(2);
        assert_eq!(bench.permit(2), Permit::Probe);
        bench.call(2, None);
        assert_eq!(opened(&bench.call(1, Some(Cause::Throttled))), [(None, Cause::Throttled, 1)], "it begins anew");
    }

    #[test]
    fn a_probe_that_meets_something_else_opens_for_that() {
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::Throttled));
        bench.sit_out(2);
        assert_eq!(bench.permit(2), Permit::Probe);
        assert_eq!(opened(&bench.call(2, Some(Cause::AccountPaused))), [(None, Cause::AccountPaused, 1)]);
        assert_eq!(bench.sit_out(3), (Cause::AccountPaused, 60));
        // Its own lane's trouble tells nothing of the account's pause: the next one may probe.
        assert_eq!(bench.permit(3), Permit::Probe);
        assert_eq!(opened(&bench.call(3, Some(Cause::SetMissing))), [(Some(3), Cause::SetMissing, 1)]);
        assert!(matches!(bench.permit(3), Permit::Wait { cause: Cause::SetMissing, .. }));
        assert_eq!(bench.permit(4), Permit::Probe);
        // Nor does our own bound.
        assert!(bench.call(4, Some(Cause::Busy)).is_empty());
        assert_eq!(bench.permit(5), Permit::Probe);
        assert_eq!(bench.call(5, None), [Change::Closed { scope: None, cause: Cause::AccountPaused }]);
        assert!(bench.is_open(3) && !bench.is_open(4));
    }

    #[test]
    fn an_answer_about_a_lane_ends_an_outage() {
        for failure in [Cause::SetMissing, Cause::NotAssociated, Cause::AccessDenied] {
            let mut bench = Bench::new();
            for lane in 1..=3 {
                bench.call(lane, Some(Cause::Network));
            }
            bench.sit_out(9);
            assert_eq!(bench.permit(9), Permit::Probe);
            let changes = bench.call(9, Some(failure));
            assert!(changes.contains(&Change::Closed { scope: None, cause: Cause::Network }), "{failure:?}");
        }
    }

    #[test]
    fn late_failures_neither_lengthen_a_wait_nor_decide_a_probe() {
        let mut bench = Bench::new();
        let long_ago = bench.now;
        bench.call(1, Some(Cause::Throttled));
        let until = bench.breakers.ask(&1).unwrap().1;
        for lane in 1..=20 {
            assert!(bench.late(lane, Some(Cause::Throttled), long_ago).is_empty());
            assert!(bench.late(lane, Some(Cause::DailyQuota), long_ago).is_empty());
            assert!(bench.late(lane, None, long_ago).is_empty(), "it was taken before the rate was exceeded");
        }
        assert_eq!(bench.breakers.ask(&1), Some((Cause::Throttled, until)));
        bench.now = until;
        assert_eq!(bench.permit(1), Permit::Probe);
        let probe = bench.now;
        bench.pass(0.5);
        for lane in 1..=20 {
            assert!(bench.late(lane, Some(Cause::Throttled), long_ago).is_empty());
        }
        assert!(matches!(bench.permit(2), Permit::Wait { .. }), "the probe is still out");
        assert_eq!(bench.late(1, None, probe), [Change::Closed { scope: None, cause: Cause::Throttled }]);
        assert!(bench.late(1, Some(Cause::Throttled), long_ago).is_empty());
        assert_eq!(bench.permit(2), Permit::Go);
    }

    /// Between asking and calling the breaker has opened, or a probe has gone.
    #[test]
    fn a_call_that_slipped_through_decides_nothing_by_its_failure() {
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::DailyQuota));
        let shut = bench.breakers.ask(&2);
        assert!(bench.call(2, Some(Cause::DailyQuota)).is_empty());
        assert_eq!(bench.breakers.ask(&2), shut, "the wait is no longer for it");
        bench.sit_out(1);
        assert_eq!(bench.permit(1), Permit::Probe);
        assert!(bench.call(2, Some(Cause::DailyQuota)).is_empty());
        assert_eq!(opened(&bench.call(1, Some(Cause::DailyQuota))), [(None, Cause::DailyQuota, 2)]);
    }

    #[test]
    fn any_answer_ends_an_outage() {
        let mut bench = Bench::new();
        let long_ago = bench.now;
        for lane in 1..=3 {
            bench.call(lane, Some(Cause::Unknown));
        }
        assert!(bench.is_open(9));
        assert_eq!(bench.late(9, None, long_ago), [Change::Closed { scope: None, cause: Cause::Unknown }]);
        assert!(!bench.is_open(9));
    }

    #[test]
    fn a_probe_that_is_abandoned_is_followed_by_another() {
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::SetPaused));
        bench.call(2, Some(Cause::AccountPaused));
        bench.sit_out(1);
        assert_eq!(bench.permit(1), Permit::Probe, "of both");
        bench.breakers.abandoned(&2);
        assert!(matches!(bench.permit(2), Permit::Wait { .. }), "it was not its probe");
        bench.breakers.abandoned(&1);
        assert_eq!(bench.permit(2), Permit::Probe);
        bench.breakers.forget(&2);
        assert_eq!(bench.permit(1), Permit::Probe);
        let closed = bench.call(1, None);
        assert_eq!(
            closed,
            [
                Change::Closed { scope: None, cause: Cause::AccountPaused },
                Change::Closed { scope: Some(1), cause: Cause::SetPaused }
            ]
        );
        assert!(bench.breakers.lanes.is_empty());
        // And one that is lost altogether holds others up for its time alone.
        bench.call(1, Some(Cause::Credentials));
        bench.sit_out(1);
        assert_eq!(bench.permit(1), Permit::Probe);
        assert_eq!(bench.sit_out(2), (Cause::Credentials, PROBE_TIME.as_secs()));
        assert_eq!(bench.permit(2), Permit::Probe);
    }

    #[test]
    fn by_hand_a_probe_goes_at_once() {
        let mut bench = Bench::new();
        bench.breakers.reopen_now(None);
        bench.breakers.reopen_now(Some(&1));
        assert_eq!(bench.permit(1), Permit::Go, "nothing was open");
        bench.call(1, Some(Cause::AccountSuspended));
        bench.call(1, Some(Cause::SetMissing));
        bench.breakers.reopen_now(Some(&1));
        assert!(matches!(bench.permit(1), Permit::Wait { cause: Cause::AccountSuspended, .. }));
        bench.breakers.reopen_now(None);
        assert_eq!(bench.permit(1), Permit::Probe);
        assert!(matches!(bench.permit(2), Permit::Wait { .. }));
        bench.breakers.reopen_now(None);
        assert_eq!(bench.permit(2), Permit::Probe, "a probe that hangs is not waited for");
    }

    #[test]
    fn a_lane_whose_calls_hang_is_left_alone_while_others_send() {
        let mut bench = Bench::new();
        for round in 0..3 {
            assert_eq!(bench.permit(1), Permit::Go, "round {round}");
            let begun = bench.now;
            bench.pass(30.0);
            bench.call(2, None);
            bench.late(1, Some(Cause::Unknown), begun);
        }
        assert!(bench.is_open(1) && !bench.is_open(2));
        assert_eq!(bench.breakers.lanes.len(), 1);
    }

    #[test]
    fn when_an_outage_ends_every_lane_that_it_held_finds_out_at_once() {
        let mut bench = Bench::new();
        bench.call(1, Some(Cause::SetMissing));
        for _ in 0..3 {
            bench.call(2, Some(Cause::Service));
        }
        bench.call(3, Some(Cause::Service));
        assert!(bench.is_open(9) && bench.is_open(2));
        bench.breakers.reopen_now(None);
        assert_eq!(bench.permit(9), Permit::Probe);
        bench.call(9, None);
        assert_eq!(bench.permit(2), Permit::Probe);
        assert!(matches!(bench.permit(1), Permit::Wait { cause: Cause::SetMissing, .. }), "that is its own");
    }

    #[test]
    fn a_poison_message_in_one_lane_never_closes_others() {
        // Whether others send much, little or nothing.
        for others in [0, 1, 5] {
            let mut bench = Bench::new();
            let mut calls = 0;
            for _ in 0..2_000 {
                for lane in 2..2 + others {
                    assert_eq!(bench.permit(lane), Permit::Go);
                    bench.call(lane, None);
                }
                if !matches!(bench.permit(1), Permit::Wait { .. }) {
                    calls += 1;
                    bench.call(1, Some(Cause::Service));
                }
                assert!(!bench.is_open(9));
                bench.pass(1.0);
            }
            assert!((10..=60).contains(&calls), "{calls} calls of the lane itself in half an hour");
        }
    }

    /// SES is down for ten minutes; many lanes want to send all the time, sixteen calls at once.
    #[test]
    fn an_outage_meets_one_probe_at_a_time_and_no_storm() {
        for (cause, most) in
            [(Cause::Service, 16), (Cause::Unknown, 12), (Cause::Throttled, 24), (Cause::DailyQuota, 2)]
        {
            let (mut attempts, mut made, mut together) = (0, 0, 0);
            let mut bench = Bench::new();
            // Calls that are out: lane, when they began, when they are answered, whether a probe.
            let mut out: Vec<(Lane, Instant, Instant, bool)> = Vec::new();
            let down_until = bench.start + Duration::from_secs(600);
            while bench.now < down_until {
                bench.pass(0.06);
                let (done, still): (Vec<_>, Vec<_>) = out.into_iter().partition(|call| call.2 <= bench.now);
                out = still;
                for (lane, begun, _, _) in done {
                    bench.late(lane, Some(cause), begun);
                }
                attempts += 1;
                let lane = attempts * 7919 % 500;
                if out.len() >= 16 {
                    continue;
                }
                let permit = bench.permit(lane);
                if !matches!(permit, Permit::Wait { .. }) {
                    made += 1;
                    out.push((lane, bench.now, bench.now + Duration::from_millis(200), permit == Permit::Probe));
                }
                together = together.max(out.iter().filter(|call| call.3).count());
            }
            assert_eq!(attempts, 10_000);
            assert_eq!(together, usize::from(cause != Cause::DailyQuota), "{cause:?}: probes at a time");
            // Those that were out when it opened, and the probes.
            assert!(made <= most + 4, "{cause:?}: {made} calls");
            // It is over: the next probe lets everybody go within its wait.
            let mut waited = Duration::ZERO;
            bench.pass(1.0);
            for (lane, begun, _, _) in out {
                bench.late(lane, Some(cause), begun);
            }
            while let Permit::Wait { until, .. } = bench.permit(1) {
                waited += until.duration_since(bench.now);
                bench.now = until;
            }
            assert!(waited <= bench.waits.quota, "{waited:?}");
            bench.call(1, None);
            assert!((2..500).all(|lane| bench.permit(lane) != Permit::Probe || bench.call(lane, None).len() == 1));
            assert!((2..500).all(|lane| bench.permit(lane) == Permit::Go));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin(Lane),
        /// Which of those that are out, and how it ends.
        End(prop::sample::Index, Option<Cause>),
        Abandon(prop::sample::Index),
        Pass(u64),
        ByHand(Option<Lane>),
    }

    fn a_step() -> impl Strategy<Value = Step> {
        let lane = 0..5_u32;
        let failure = prop::option::of(prop::sample::select(Cause::ALL.to_vec()));
        prop_oneof![
            6 => lane.clone().prop_map(Step::Begin),
            6 => (any::<prop::sample::Index>(), failure).prop_map(|(i, failure)| Step::End(i, failure)),
            1 => any::<prop::sample::Index>().prop_map(Step::Abandon),
            2 => (1..400_000_u64).prop_map(Step::Pass),
            1 => prop::option::of(lane).prop_map(Step::ByHand),
        ]
    }

    /// Whatever happens: nobody goes through what is open, nothing stays shut for ever, one answer
    /// opens all that is due, and what is remembered is what failed.
    #[test]
    fn whatever_happens_nothing_stays_shut_for_ever() {
        let (mut probes, mut waits, mut reopened) = (0, 0, 0);
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let seen = std::cell::RefCell::new((&mut probes, &mut waits, &mut reopened));
        runner
            .run(&prop::collection::vec(a_step(), 1..150), |steps| {
                let mut seen = seen.borrow_mut();
                let mut bench = Bench::new();
                let mut out: Vec<(Lane, Instant)> = Vec::new();
                for step in steps {
                    match step {
                        Step::Begin(lane) => {
                            let ask = bench.breakers.ask(&lane);
                            match bench.permit(lane) {
                                Permit::Go => prop_assert_eq!(ask, None),
                                Permit::Probe => *seen.0 += 1,
                                Permit::Wait { until, .. } => {
                                    prop_assert!(ask.is_some() && until > bench.now);
                                    prop_assert!(bench.breakers.next(bench.now).unwrap() <= until);
                                    *seen.1 += 1;
                                    continue;
                                }
                            }
                            out.push((lane, bench.now));
                        }
                        Step::End(which, failure) if !out.is_empty() => {
                            let (lane, begun) = out.swap_remove(which.index(out.len()));
                            bench.pass(0.001);
                            for change in bench.late(lane, failure, begun) {
                                if let Change::Opened { until, trips, .. } = change {
                                    prop_assert!(until > bench.now && failure.is_some());
                                    *seen.2 += u32::from(trips > 1);
                                }
                            }
                        }
                        Step::Abandon(which) if !out.is_empty() => {
                            let (lane, _) = out.swap_remove(which.index(out.len()));
                            bench.breakers.abandoned(&lane);
                        }
                        Step::End(..) | Step::Abandon(_) => {}
                        Step::Pass(millis) => bench.now += Duration::from_millis(millis),
                        Step::ByHand(lane) => bench.breakers.reopen_now(lane.as_ref()),
                    }
                    prop_assert!(bench.breakers.prober.is_some() == bench.breakers.account.is_probing());
                }
                bench.pass(3600.0);
                for lane in 0..5 {
                    let shut = matches!(bench.permit(lane), Permit::Wait { .. });
                    prop_assert!(!shut, "lane {}", lane);
                    bench.call(lane, None);
                    prop_assert_eq!(bench.permit(lane), Permit::Go);
                }
                prop_assert!(bench.breakers.lanes.is_empty());
                Ok(())
            })
            .unwrap();
        assert!(probes > 200 && waits > 1000 && reopened > 10, "{probes} probes, {waits} waits, {reopened} reopened");
    }
}
