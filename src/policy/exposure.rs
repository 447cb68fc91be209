//! The exposure window: how many recipients of a stream may be out whose fate is not known. Pure.
//!
//! A bounce comes seconds to minutes after its mail, so that a rate alone stops a stale list when it is
//! already out. As TCP bounds the octets that were sent and not acknowledged, this bounds the recipients
//! that SES has taken and of whom nothing was heard. It begins at [`Rules::start`] and doubles each time
//! a *round* came back clean: the first recipients that were taken since it was changed, as many as the
//! window has and [`Rules::start`] at the least. It is halved when the stream is warned, again when it is
//! slowed, and shut while it is paused; what is beyond it waits (manual: `decisions/exposure`).
//!
//! A round is judged on the outcomes of its own recipients, for what is still out would dilute it. It is
//! not judged before the rest could no longer change the judgement, for good news travels faster than
//! bad: of a list with 12 % bounces the first hundred outcomes may all be deliveries. A quarter of
//! [`Rules::horizon`] after it was full it is judged all the same, and after the horizon nobody is waited
//! for. It is clean if its rate is not over the stream's warning, and if the lower bound of the 95 %
//! interval is not either once the round before it is added, should that have been unclean: luck does not
//! strike twice.
//!
//! Promises: outstanding and reserved recipients never exceed the window together, but for one message
//! larger than it, which goes alone. A stream that was good for [`Rules::settled_for`] and has
//! [`Rules::settled_recipients`] in the week, and one whose window grew past [`Rules::open`], has no
//! window until it is warned. Nothing here grows but by a clean round. Memory is bounded by the horizon:
//! one entry a second with mail. Where SES publishes no deliveries, the horizon alone frees and grows it,
//! and that is told once ([`Exposure::take_unseen`]).
//! Refuses: to know messages; who hands in an outcome has seen to it that it comes once.
//! What can go wrong: an outcome whose recipient is not found here. It frees nobody; a bad one counts
//! against the round that runs.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reputation::{Step, lower_bound, rate};
use super::tenant::Standing;
use crate::time::Timestamp;

/// How far apart SES's time of sending and ours may be, in seconds: the longest call.
const SKEW: u64 = 35;

/// After so many recipients in a row that passed the horizon without a word, deliveries are not
/// published.
pub const UNSEEN: u64 = 200;

/// A delivery seen within this time says that deliveries are published, and that silence is a fault of
/// the events' way rather than good news.
const PUBLISHED: Duration = Duration::from_secs(24 * 3600);

const DAY: u64 = 24 * 3600;

/// The relay's rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Recipients: the window of a new stream, and after a resume.
    pub start: u64,
    /// Recipients: the window is not halved below it.
    pub floor: u64,
    /// Recipients: a window that is larger is none.
    pub open: u64,
    /// Nobody's outcome is waited for longer.
    pub horizon: Duration,
    /// So long a stream has to have been good to need no window.
    pub settled_for: Duration,
    /// And so many recipients it needs in the last 7 days.
    pub settled_recipients: u64,
}

/// What became of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OutcomeKind {
    /// Their server took it.
    Delivered,
    /// It came back for good.
    Bad,
    /// Nothing more will be heard, and it is not the list's fault: SES found a virus, or a mailbox
    /// stayed full.
    Other,
}

/// How many recipients may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// There is no window.
    Open,
    /// So many; one at the least.
    For(u64),
    /// None, until the oldest pass the horizon; `None`: until the standing changes or what is being
    /// offered comes back.
    Shut(Option<Timestamp>),
}

/// What survives the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Recipients.
    pub window: u64,
    /// Outcomes of the round, and of an unclean one before it.
    #[serde(default)]
    pub outcomes: u64,
    /// Bad ones.
    #[serde(default)]
    pub bad: u64,
    /// The standing that the window was cut for.
    #[serde(default)]
    pub step: Step,
    /// The resume since which it grew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Timestamp>,
    /// When a delivery was seen; to the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Timestamp>,
}

/// What the counters say of the time before the process began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// Recipients that may still be out.
    pub outstanding: u64,
    /// Recipients taken on each day (UTC, since the epoch) of the last week, in their order.
    pub days: Vec<(u64, u64)>,
}

/// How it stands, for people and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Recipients; `None`: there is no window.
    pub window: Option<u64>,
    /// SES has them, and their outcome is not known.
    pub outstanding: u64,
    /// Being offered.
    pub reserved: u64,
    /// Recipients of the round that were taken.
    pub round: u64,
    /// Of these, with an outcome.
    pub outcomes: u64,
    /// Bad ones.
    pub bad: u64,
}

/// One stream's window.
#[derive(Clone, PartialEq, Debug)]
pub struct Exposure {
    rules: Rules,
    /// The bounce rate of the stream's warning.
    warn: f64,
    window: u64,
    step: Step,
    resumed: Option<Timestamp>,
    good_since: Option<Timestamp>,
    reserved: u64,
    /// Those in `buckets` and those from before the start.
    outstanding: u64,
    buckets: VecDeque<Bucket>,
    /// Out since before the start, and until when they are taken to be.
    before: (u64, Timestamp),
    early: Early,
    round: Round,
    /// Outcomes and bad ones of the round before, if it was unclean.
    unclean: (u64, u64),
    /// Passed the horizon since the last delivery.
    unseen: u64,
    delivery: Option<Timestamp>,
    is_told: bool,
    week: VecDeque<(u64, u64)>,
    week_sum: u64,
    kept: Option<Kept>,
}

/// Recipients taken within a second whose outcome is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bucket {
    second: u64,
    open: u64,
}

/// Outcomes that came before SES's answer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Early {
    bad: u64,
    other: u64,
}

/// The recipients taken in the seconds `from` to `to`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Round {
    from: u64,
    /// `None`: it is not full.
    to: Option<u64>,
    /// The last second of which it has somebody.
    last: u64,
    sent: u64,
    open: u64,
    outcomes: u64,
    bad: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            start: 100,
            floor: 10,
            open: 100_000,
            horizon: Duration::from_secs(600),
            settled_for: Duration::from_secs(14 * DAY),
            settled_recipients: 1000,
        }
    }
}

impl Round {
    fn of(from: u64) -> Self {
        Self { from, to: None, last: from, sent: 0, open: 0, outcomes: 0, bad: 0 }
    }

    fn has(&self, second: u64) -> bool {
        second >= self.from && self.to.is_none_or(|to| second <= to)
    }
}

impl Exposure {
    /// A stream's window as it was kept, or at its start; a kept one holds nothing that is wider than
    /// what was known when the process ended. [`standing`](Self::standing) is to be told next.
    pub fn new(rules: Rules, kept: Option<Kept>, past: &Past, now: Timestamp) -> Self {
        let known = kept.unwrap_or(Kept {
            window: rules.start,
            outcomes: 0,
            bad: 0,
            step: Step::Good,
            resumed: None,
            delivery: None,
        });
        let week: VecDeque<(u64, u64)> = past.days.iter().copied().collect();
        Self {
            rules,
            warn: 0.0,
            window: known.window.max(1),
            step: known.step,
            resumed: known.resumed,
            good_since: None,
            reserved: 0,
            outstanding: past.outstanding,
            buckets: VecDeque::new(),
            before: (past.outstanding, now.plus(rules.horizon)),
            early: Early::default(),
            round: Round::of(second(now)),
            // Who of that round was still out is not known, so that it can only tell against the next.
            unclean: if known.bad > 0 { (known.outcomes, known.bad) } else { (0, 0) },
            unseen: 0,
            delivery: known.delivery,
            is_told: false,
            week_sum: week.iter().map(|(_, recipients)| recipients).sum(),
            week,
            kept,
        }
    }

    /// How many recipients may go now.
    pub fn room(&mut self, now: Timestamp) -> Room {
        self.roll(now);
        if self.step >= Step::Paused {
            return Room::Shut(None);
        }
        if self.is_open(now) {
            return Room::Open;
        }
        match self.window.saturating_sub(self.in_use()) {
            0 => Room::Shut(self.next_change()),
            room => Room::For(room),
        }
    }

    /// Whether a message for so many recipients may go; if not, until when, should nothing be heard. One
    /// larger than the window goes when nobody is out.
    pub fn admits(&mut self, recipients: u64, now: Timestamp) -> Result<(), Option<Timestamp>> {
        match self.room(now) {
            Room::Open => Ok(()),
            Room::For(room) if recipients <= room || self.in_use() == 0 => Ok(()),
            Room::For(_) => Err(self.next_change()),
            Room::Shut(until) => Err(until),
        }
    }

    /// So many are about to be offered.
    pub fn reserve(&mut self, recipients: u64) {
        self.reserved = self.reserved.saturating_add(recipients);
    }

    /// So many of them are not: SES refused them, or was not asked.
    pub fn unreserve(&mut self, recipients: u64) {
        self.reserved = self.reserved.saturating_sub(recipients);
        if self.reserved == 0 {
            self.early = Early::default();
        }
    }

    /// SES took so many, or may have, by a call that began at `sent`. Those of them that were reserved are
    /// to be [`unreserve`](Self::unreserve)d after it.
    pub fn taken(&mut self, recipients: u64, sent: Timestamp, now: Timestamp) {
        self.roll(now);
        self.count_day(recipients, now);
        let second = second(sent);
        self.outstanding = self.outstanding.saturating_add(recipients);
        match self.buckets.iter().rposition(|bucket| bucket.second <= second) {
            Some(at) => match self.buckets.get_mut(at) {
                Some(bucket) if bucket.second == second => bucket.open = bucket.open.saturating_add(recipients),
                Some(_) | None => self.buckets.insert(at + 1, Bucket { second, open: recipients }),
            },
            None => self.buckets.push_front(Bucket { second, open: recipients }),
        }
        if self.round.has(second) {
            self.round.sent = self.round.sent.saturating_add(recipients);
            self.round.open = self.round.open.saturating_add(recipients);
            // Calls end in another order than they began.
            self.round.last = self.round.last.max(second);
            if self.round.to.is_none() && self.round.sent >= self.goal() {
                self.round.to = Some(self.round.last);
            }
        }
        let early = self.early;
        if early != Early::default() {
            let bad = early.bad.min(recipients);
            let other = early.other.min(recipients - bad);
            self.early = Early { bad: early.bad - bad, other: early.other - other };
            self.resolve(second, bad, true);
            self.resolve(second, other, false);
            self.close_round(now);
        }
    }

    /// What became of so many recipients of mail that SES was given at `sent`, by its clock. Whether
    /// there is more room now.
    pub fn outcome(&mut self, sent: Timestamp, recipients: u64, kind: OutcomeKind, now: Timestamp) -> bool {
        self.roll(now);
        if kind == OutcomeKind::Delivered {
            self.unseen = 0;
            self.delivery = Some(now);
        }
        let (outstanding, window) = (self.outstanding, self.window);
        let (second, is_bad) = (second(sent), kind == OutcomeKind::Bad);
        let mut left = self.resolve(second, recipients, is_bad);
        for off in 1..=SKEW {
            // Our time of sending is the call's beginning, so SES's is more often later than earlier.
            for near in [second.saturating_sub(off), second + off] {
                left = self.resolve(near, left, is_bad);
            }
            if left == 0 {
                break;
            }
        }
        if left > 0 && sent <= self.began().plus(Duration::from_secs(SKEW)) {
            let of_before = left.min(self.before.0);
            self.before.0 -= of_before;
            self.outstanding = self.outstanding.saturating_sub(of_before);
            left -= of_before;
        }
        if left > 0 && self.reserved > 0 && self::second(now).saturating_sub(second) <= SKEW {
            let room = self.reserved.saturating_sub(self.early.bad + self.early.other);
            let early = left.min(room);
            match kind {
                OutcomeKind::Bad => self.early.bad += early,
                OutcomeKind::Delivered | OutcomeKind::Other => self.early.other += early,
            }
            left -= early;
        }
        if left > 0 && is_bad {
            // Nobody waited for it any more: the round that runs is the worse for it.
            self.round.bad += left;
            self.round.outcomes += left;
        }
        self.close_round(now);
        self.outstanding < outstanding || self.window > window
    }

    /// How the stream stands now, and the bounce rate of its warning. Each step down cuts the window
    /// once, however often it is said; a resume starts it anew. Whether it was changed.
    pub fn standing(&mut self, standing: &Standing, warn: f64, now: Timestamp) -> bool {
        self.roll(now);
        let before = (self.window, self.step);
        self.warn = warn;
        if standing.resumed > self.resumed {
            self.resumed = standing.resumed;
            self.window = self.rules.start;
            self.step = Step::Good;
            self.begin_round(now);
            self.unclean = (0, 0);
        }
        let step = standing.braked(Step::Warned).map_or(Step::Good, |brake| brake.step);
        for mark in [Step::Warned, Step::Slowed] {
            if self.step < mark && step >= mark {
                self.halve(now);
            }
        }
        if step >= Step::Paused {
            // A pause that ends by itself is no praise.
            self.window = self.window.min(self.rules.start);
        }
        self.step = step;
        if step != before.1 {
            self.begin_round(now);
        }
        self.good_since = standing.good_since;
        before != (self.window, self.step)
    }

    /// What is to be kept, if that has changed: at once where the window has, and of a stream without a
    /// window nothing else.
    pub fn take_kept(&mut self, now: Timestamp) -> Option<Kept> {
        let kept = self.to_keep();
        let is_news = match self.kept {
            None => kept != self.unwritten(),
            Some(before) if before.window != kept.window || before.step != kept.step => true,
            Some(before) => before != kept && !self.is_open(now),
        };
        if !is_news {
            return None;
        }
        self.kept = Some(kept);
        Some(kept)
    }

    /// What was taken to be kept was not: it is given out again.
    pub fn not_kept(&mut self) {
        // No window is zero, so whatever is next differs from it.
        self.kept = Some(Kept { window: 0, ..self.to_keep() });
    }

    /// Once: whether deliveries of this stream are not published.
    pub fn take_unseen(&mut self, now: Timestamp) -> bool {
        let news = self.is_blind(now) && !self.is_told;
        self.is_told |= news;
        news
    }

    /// How it stands.
    pub fn view(&mut self, now: Timestamp) -> View {
        self.roll(now);
        View {
            window: (!self.is_open(now)).then_some(self.window),
            outstanding: self.outstanding,
            reserved: self.reserved,
            round: self.round.sent.min(self.goal()),
            outcomes: self.round.outcomes,
            bad: self.round.bad,
        }
    }

    /// Whether nothing is out and nothing is being offered.
    pub fn is_idle(&self) -> bool {
        self.in_use() == 0
    }

    /// Whether there is no window.
    fn is_open(&self, now: Timestamp) -> bool {
        self.step == Step::Good && (self.window > self.rules.open || self.is_settled(now))
    }

    fn is_settled(&self, now: Timestamp) -> bool {
        self.week_sum >= self.rules.settled_recipients
            && self.good_since.is_some_and(|since| now.since(since) >= self.rules.settled_for)
    }

    fn began(&self) -> Timestamp {
        self.before.1.minus(self.rules.horizon)
    }

    fn in_use(&self) -> u64 {
        self.outstanding.saturating_add(self.reserved)
    }

    fn is_blind(&self, now: Timestamp) -> bool {
        self.unseen >= UNSEEN && self.delivery.is_none_or(|seen| now.since(seen) > PUBLISHED)
    }

    /// Half of what is in use.
    fn halve(&mut self, now: Timestamp) {
        let half = if self.is_open(now) {
            (self.in_use() / 2).max(self.rules.start)
        } else {
            // A window under the floor was set so, and no warning widens it.
            (self.window.min(self.in_use()) / 2).max(self.rules.floor.min(self.window))
        };
        self.window = half.max(1);
        // The next step halves this one.
        self.step = self.step.max(Step::Warned);
    }

    /// Finds up to so many open recipients of a second; gives how many it did not find.
    fn resolve(&mut self, second: u64, recipients: u64, is_bad: bool) -> u64 {
        if recipients == 0 {
            return 0;
        }
        let Ok(at) = self.buckets.binary_search_by_key(&second, |bucket| bucket.second) else { return recipients };
        let Some(bucket) = self.buckets.get_mut(at) else { return recipients };
        let found = recipients.min(bucket.open);
        bucket.open -= found;
        self.outstanding = self.outstanding.saturating_sub(found);
        if self.round.has(second) {
            self.round.open = self.round.open.saturating_sub(found);
            self.round.outcomes += found;
            self.round.bad += if is_bad { found } else { 0 };
        }
        recipients - found
    }

    /// Time has come to `now`: those past the horizon are no longer waited for.
    fn roll(&mut self, now: Timestamp) {
        while let Some(bucket) = self.buckets.front().copied()
            && self.leaves(bucket.second) <= now
        {
            self.buckets.pop_front();
            self.outstanding = self.outstanding.saturating_sub(bucket.open);
            self.unseen = self.unseen.saturating_add(bucket.open);
            if self.round.has(bucket.second) {
                self.round.open = self.round.open.saturating_sub(bucket.open);
                if self.is_blind(now) {
                    self.round.outcomes += bucket.open;
                }
            }
        }
        if self.before.0 > 0 && self.before.1 <= now {
            self.outstanding = self.outstanding.saturating_sub(self.before.0);
            self.before.0 = 0;
        }
        self.close_round(now);
        let today = second(now) / DAY;
        while let Some((_, recipients)) = self.week.pop_front_if(|(day, _)| *day + 7 < today) {
            self.week_sum = self.week_sum.saturating_sub(recipients);
        }
    }

    /// When those taken in a second pass the horizon: the whole second is over then.
    fn leaves(&self, second: u64) -> Timestamp {
        Timestamp::from_millis(second.saturating_add(1).saturating_mul(1000)).plus(self.rules.horizon)
    }

    /// When there may be more room although nothing is heard: the oldest pass the horizon, or the round
    /// is judged without those who are still out.
    fn next_change(&self) -> Option<Timestamp> {
        let bucket = self.buckets.iter().find(|bucket| bucket.open > 0).map(|bucket| self.leaves(bucket.second));
        let before = (self.before.0 > 0).then_some(self.before.1);
        let judged = self.impatient().filter(|_| self.is_known());
        bucket.into_iter().chain(before).chain(judged).min()
    }

    /// How many recipients a round has.
    fn goal(&self) -> u64 {
        self.window.max(self.rules.start)
    }

    /// When the round is judged whoever of it is still out.
    fn impatient(&self) -> Option<Timestamp> {
        let full = self.round.to?;
        Some(Timestamp::from_millis(full.saturating_add(1).saturating_mul(1000)).plus(self.rules.horizon / 4))
    }

    /// Whether most of the round was heard of. Silence of most is no good news, unless silence is all that
    /// good news ever is.
    fn is_known(&self) -> bool {
        self.round.outcomes.saturating_mul(2) >= self.goal()
    }

    /// Judges the round, if the rest of it can no longer change the judgement or was waited for.
    fn close_round(&mut self, now: Timestamp) {
        let Round { sent, open, outcomes, bad, .. } = self.round;
        if sent < self.goal() {
            return;
        }
        // Whoever is still out may yet be bad.
        let is_decided = open == 0 || self.is_known() && self.is_clean(outcomes + open, bad + open);
        let is_late = self.is_known() && self.impatient().is_some_and(|at| at <= now);
        if !is_decided && !is_late {
            return;
        }
        if self.is_known() && self.is_clean(outcomes, bad) {
            self.unclean = (0, 0);
            if self.step == Step::Good && self.window <= self.rules.open {
                self.window = self.window.saturating_mul(2);
            }
        } else {
            self.unclean = (outcomes, bad);
        }
        self.begin_round(now);
    }

    fn begin_round(&mut self, now: Timestamp) {
        let from = second(now);
        self.round = Round::of(from);
        // Of the second that has begun some may be out already.
        for bucket in self.buckets.iter().rev().take_while(|bucket| bucket.second >= from) {
            self.round.sent += bucket.open;
            self.round.open += bucket.open;
            self.round.last = self.round.last.max(bucket.second);
        }
        if self.round.sent >= self.goal() {
            self.round.to = Some(self.round.last);
        }
    }

    fn is_clean(&self, outcomes: u64, bad: u64) -> bool {
        let (before, bad_before) = self.unclean;
        rate(bad, outcomes) <= self.warn && lower_bound(bad + bad_before, outcomes + before) <= self.warn
    }

    fn count_day(&mut self, recipients: u64, now: Timestamp) {
        let today = second(now) / DAY;
        self.week_sum = self.week_sum.saturating_add(recipients);
        match self.week.back_mut() {
            Some((day, sum)) if *day == today => *sum = sum.saturating_add(recipients),
            Some(_) | None => self.week.push_back((today, recipients)),
        }
    }

    fn to_keep(&self) -> Kept {
        let hour = |at: Timestamp| Timestamp::from_millis(at.millis() / 3_600_000 * 3_600_000);
        Kept {
            window: self.window,
            outcomes: self.round.outcomes + self.unclean.0,
            bad: self.round.bad + self.unclean.1,
            step: self.step,
            resumed: self.resumed,
            delivery: self.delivery.map(hour),
        }
    }

    /// What a stream without a row is taken to have.
    fn unwritten(&self) -> Kept {
        let window = self.rules.start;
        Kept { window, outcomes: 0, bad: 0, step: Step::Good, resumed: None, delivery: None }
    }
}

fn second(at: Timestamp) -> u64 {
    at.millis() / 1000
}

#[cfg(test)]
mod tests;
