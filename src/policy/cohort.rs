//! Cohorts: what became of the mail of each hour, and the sums over a day and a week of them.
//!
//! An event counts in the hour in which its mail was sent, however late it comes. So a rate is bad ÷
//! accepted of the same mail, and a day that was bad stays so until it leaves the window.
//!
//! Promises: the sums are kept as figures come and hours pass; reading them costs nothing. The order
//! in which figures are added changes nothing. Memory is bounded by the week: one entry an hour.
//! Refuses: figures of hours that have left the week; they are of no window.

use std::collections::VecDeque;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::time::Hour;

/// Hours of the shorter window: the hour that has begun and 24 full ones, so that no mail of the last
/// 24 hours is left out.
pub const DAY: u32 = 24;
/// Hours of the longer one.
pub const WEEK: u32 = 7 * 24;

/// Recipients that SES took, and of those the bad ones, each once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Accepted by SES.
    pub accepted: u64,
    /// Permanent bounces.
    pub bounced: u64,
    /// Complaints.
    pub complained: u64,
}

/// The figures of both windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Windows {
    /// Of the last 24 hours.
    pub day: Figures,
    /// Of the last 7 days.
    pub week: Figures,
}

/// The cohorts of a week.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// In the order of the hours, none twice.
    hours: VecDeque<(Hour, Figures)>,
    now: u32,
    windows: Windows,
}

impl Figures {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn take_away(&mut self, other: Self) {
        self.accepted = self.accepted.saturating_sub(other.accepted);
        self.bounced = self.bounced.saturating_sub(other.bounced);
        self.complained = self.complained.saturating_sub(other.complained);
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.bounced = self.bounced.saturating_add(other.bounced);
        self.complained = self.complained.saturating_add(other.complained);
    }
}

impl AddAssign for Windows {
    fn add_assign(&mut self, other: Self) {
        self.day += other.day;
        self.week += other.week;
    }
}

impl History {
    /// Adds to an hour's cohort. An hour ahead of [`roll`](Self::roll)'s is in both windows already.
    pub fn add(&mut self, hour: Hour, figures: Figures) {
        if hour.0 < self.now.saturating_sub(WEEK) || figures.is_empty() {
            return;
        }
        match self.hours.binary_search_by_key(&hour, |(of, _)| *of) {
            Ok(at) => {
                if let Some((_, there)) = self.hours.get_mut(at) {
                    *there += figures;
                }
            }
            Err(at) => self.hours.insert(at, (hour, figures)),
        }
        self.windows.week += figures;
        if hour.0 >= self.now.saturating_sub(DAY) {
            self.windows.day += figures;
        }
    }

    /// Time has come to `now`: what is too old leaves the windows. It never goes back.
    pub fn roll(&mut self, now: Hour) {
        if now.0 <= self.now {
            return;
        }
        let (before, first) = (self.now.saturating_sub(DAY), now.0.saturating_sub(DAY));
        let from = self.hours.partition_point(|(hour, _)| hour.0 < before);
        for (_, figures) in self.hours.range(from..).take_while(|(hour, _)| hour.0 < first) {
            self.windows.day.take_away(*figures);
        }
        self.now = now.0;
        while let Some((_, figures)) = self.hours.pop_front_if(|(hour, _)| hour.0 < now.0.saturating_sub(WEEK)) {
            self.windows.week.take_away(figures);
        }
    }

    /// The sums as of the last [`roll`](Self::roll).
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// The sums of the hours from `from` to before `to`.
    pub fn between(&self, from: Hour, to: Hour) -> Figures {
        let mut sum = Figures::default();
        for (_, figures) in self.hours.iter().filter(|(hour, _)| (from..to).contains(hour)) {
            sum += *figures;
        }
        sum
    }

    /// The first hour with mail in the week.
    pub fn first(&self) -> Option<Hour> {
        self.hours.front().map(|(hour, _)| *hour)
    }

    /// The hours and their figures, the oldest first.
    pub fn hours(&self) -> impl Iterator<Item = (Hour, Figures)> {
        self.hours.iter().copied()
    }

    /// Adds all of another's cohorts.
    pub fn merge(&mut self, other: &Self) {
        for (hour, figures) in other.hours() {
            self.add(hour, figures);
        }
    }

    /// Forgets everything before now: a fresh window.
    pub fn clear(&mut self) {
        self.hours.clear();
        self.windows = Windows::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    fn of(accepted: u64, bounced: u64, complained: u64) -> Figures {
        Figures { accepted, bounced, complained }
    }

    #[test]
    fn a_day_has_its_hour_and_twenty_four_before_it() {
        let mut history = History::default();
        history.roll(Hour(1000));
        history.add(Hour(1000), of(1, 0, 0));
        history.add(Hour(976), of(10, 0, 0));
        history.add(Hour(975), of(100, 0, 0));
        history.add(Hour(832), of(1000, 0, 0));
        history.add(Hour(831), of(10_000, 0, 0));
        assert_eq!((history.windows().day.accepted, history.windows().week.accepted), (11, 1111));
        history.roll(Hour(1001));
        assert_eq!((history.windows().day.accepted, history.windows().week.accepted), (1, 111));
        history.roll(Hour(999));
        assert_eq!(history.windows().day.accepted, 1, "time does not go back");
        history.roll(Hour(2000));
        assert_eq!((history.windows(), history.first()), (Windows::default(), None));
    }

    /// Whatever comes in what order while hours pass, the sums are those of a plain count.
    #[test]
    fn sums_are_those_of_a_plain_count() {
        let late = std::cell::Cell::new(0_u32);
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let steps = prop::collection::vec((0..40_u32, 0..220_u32, 0..5_u64, 0..3_u64), 1..120);
        runner
            .run(&steps, |steps| {
                let (mut history, mut plain, mut now) = (History::default(), Vec::new(), 5000);
                history.roll(Hour(now));
                for (pass, age, accepted, bounced) in steps {
                    now += if pass < 30 { 0 } else { pass };
                    history.roll(Hour(now));
                    let (hour, figures) = (now - age, of(accepted, bounced, 0));
                    history.add(Hour(hour), figures);
                    plain.push((hour, figures));
                    late.set(late.get() + u32::from(age > DAY && age <= WEEK));
                    let sum = |hours: u32| {
                        let mut sum = Figures::default();
                        // What was too old when it came is of no window, now or later.
                        plain.iter().filter(|(hour, _)| now - hour <= hours).for_each(|(_, f)| sum += *f);
                        sum
                    };
                    prop_assert_eq!(history.windows(), Windows { day: sum(DAY), week: sum(WEEK) });
                    prop_assert!(history.hours.len() <= WEEK as usize + 1);
                }
                Ok(())
            })
            .unwrap();
        assert!(late.get() > 3000, "{}", late.get());
    }
}
