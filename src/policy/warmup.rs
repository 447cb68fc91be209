//! The warm-up ladder: how many recipients a new stream may send a day, step by step. Pure.
//!
//! The caps of the steps grow geometrically from `first_day` to `target`. A step is earned: at midnight
//! (UTC) a day with mail that stayed clean leads one step up, a bad day one step back, a day without mail
//! leads nowhere. After the last step there is no cap.
//!
//! Promises: no step is skipped, forth or back; the cap never exceeds the target nor falls below the
//! first day's. Before its start date the first day's cap holds, for the ladder says how much is safe to
//! begin with. A ladder declared with another start date begins anew; one that was climbed stays so.
//! Refuses: a start that is no date ([`Plan::of`] gives `None`).

use serde::{Deserialize, Serialize};

use super::tenant::Warmup;
use crate::time::Timestamp;

const DAY_MILLIS: u64 = 86_400_000;

/// A declared ladder, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Its start date: days since the epoch (UTC).
    pub start: u64,
    first_day: u64,
    days: u32,
    target: u64,
}

/// Where a stream stands on its ladder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The start date of the ladder that this is of.
    pub start: u64,
    /// The step, from 0; as many as the ladder has days: it is climbed.
    pub step: u32,
    /// The day (UTC, since the epoch) that the step is of.
    pub day: u64,
}

/// What a day came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DayJudged {
    /// Mail went out, and no rate was over its warning.
    Clean,
    /// A rate was over its warning.
    Bad,
    /// Nothing was sent.
    Idle,
}

impl Plan {
    /// The ladder of a declaration.
    pub fn of(warmup: &Warmup) -> Option<Self> {
        let start = Timestamp::parse_rfc3339(&format!("{}T00:00:00Z", warmup.start))?;
        Some(Self {
            start: day_of(start),
            first_day: warmup.first_day,
            days: warmup.days.max(1),
            target: warmup.target.max(warmup.first_day),
        })
    }

    /// How many steps it has.
    pub fn steps(&self) -> u32 {
        self.days
    }

    /// Recipients a day on a step; `None`: the ladder is climbed.
    pub fn cap(&self, step: u32) -> Option<u64> {
        if step >= self.days {
            return None;
        }
        let last = self.days.saturating_sub(1);
        if step == 0 || self.first_day == 0 {
            return Some(self.first_day);
        }
        if step == last {
            return Some(self.target);
        }
        let growth = self.target as f64 / self.first_day as f64;
        let cap = self.first_day as f64 * growth.powf(f64::from(step) / f64::from(last));
        // Between two whole numbers that fit, so it fits.
        Some((cap.round() as u64).clamp(self.first_day, self.target))
    }

    /// The first step, of a stream that was not on this ladder before.
    pub fn begin(&self, today: u64) -> Position {
        Position { start: self.start, step: 0, day: today }
    }

    /// Whether a position is one on this ladder.
    pub fn has(&self, position: &Position) -> bool {
        position.start == self.start
    }

    /// The position of the day after, when this is what the position's day came to.
    pub fn after(&self, position: Position, judged: DayJudged) -> Position {
        let step = match judged {
            _ if position.day < self.start || position.step >= self.days => position.step,
            DayJudged::Clean => position.step + 1,
            DayJudged::Bad => position.step.saturating_sub(1),
            DayJudged::Idle => position.step,
        };
        Position { step, day: position.day + 1, ..position }
    }

    /// Whether its start date is still to come.
    pub fn is_ahead(&self, today: u64) -> bool {
        today < self.start
    }
}

/// The day (UTC, since the epoch) of a moment.
pub fn day_of(at: Timestamp) -> u64 {
    at.millis() / DAY_MILLIS
}

/// The first moment of a day.
pub fn begin_of_day(day: u64) -> Timestamp {
    Timestamp::from_millis(day.saturating_mul(DAY_MILLIS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::DayJudged::{Bad, Clean, Idle};
    use super::*;

    fn plan(first_day: u64, days: u32, target: u64) -> Plan {
        Plan::of(&Warmup { start: "2026-12-01".into(), first_day, days, target }).unwrap()
    }

    #[test]
    fn caps_grow_geometrically_from_the_first_day_to_the_target() {
        let caps = |plan: Plan| (0..=plan.steps()).map(|step| plan.cap(step)).collect::<Vec<_>>();
        assert_eq!(caps(plan(100, 5, 1600)), [Some(100), Some(200), Some(400), Some(800), Some(1600), None]);
        assert_eq!(caps(plan(200, 1, 50_000)), [Some(200), None]);
        assert_eq!(caps(plan(10, 2, 70)), [Some(10), Some(70), None]);
        assert_eq!(caps(plan(50, 3, 20)), [Some(50), Some(50), Some(50), None], "a target below is the first day's");
        let long = caps(plan(200, 30, 50_000));
        assert_eq!((long[0], long[1], long[29]), (Some(200), Some(242), Some(50_000)));
        assert!(long[..30].is_sorted());
        assert_eq!(plan(0, 3, 9).cap(1), Some(0), "nothing grows out of nothing");
    }

    #[test]
    fn a_step_is_earned_and_lost_and_only_in_its_time() {
        let plan = plan(100, 5, 1600);
        let before = plan.begin(plan.start - 2);
        assert_eq!(plan.after(before, Clean).step, 0, "its start is to come");
        let mut position = plan.begin(plan.start);
        for (judged, step) in
            [(Clean, 1), (Idle, 1), (Clean, 2), (Bad, 1), (Bad, 0), (Bad, 0), (Clean, 1), (Clean, 2), (Clean, 3)]
        {
            position = plan.after(position, judged);
            assert_eq!(position.step, step, "{judged:?}");
        }
        position = plan.after(plan.after(position, Clean), Clean);
        assert_eq!((position.step, plan.cap(position.step)), (5, None));
        assert_eq!(plan.after(position, Bad).step, 5, "who has climbed it is judged by its rates");
        assert_eq!(position.day, plan.start + 11);
        let other = Plan { start: plan.start + 1, ..plan };
        assert!(plan.has(&position) && !other.has(&position));
    }

    #[test]
    fn a_start_that_is_no_date_is_none() {
        for start in ["", "tomorrow", "2026-13-01", "2026-12-01T00:00:00Z", "1969-01-01"] {
            assert_eq!(Plan::of(&Warmup { start: start.into(), first_day: 1, days: 1, target: 1 }), None, "{start}");
        }
    }

    /// Whatever days come: each moves by one step at the most, and caps stay between first and target.
    #[test]
    fn no_step_is_skipped() {
        let climbed = std::cell::Cell::new(0_u32);
        let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let day = prop_oneof![6 => Just(Clean), 2 => Just(Bad), 2 => Just(Idle)];
        let cases = (1..500_u64, 1..40_u32, 1..100_000_u64, prop::collection::vec(day, 1..120));
        runner
            .run(&cases, |(first, days, target, judged)| {
                let plan = plan(first, days, target);
                let mut position = plan.begin(plan.start);
                for judged in judged {
                    let next = plan.after(position, judged);
                    prop_assert!(next.step.abs_diff(position.step) <= 1 && next.step <= days);
                    let cap = |position: Position| plan.cap(position.step).unwrap_or(u64::MAX);
                    match judged {
                        Clean => prop_assert!(cap(next) >= cap(position)),
                        Bad => prop_assert!(cap(next) <= cap(position)),
                        Idle => prop_assert_eq!(next.step, position.step),
                    }
                    prop_assert!(cap(next) >= first);
                    prop_assert!(cap(next) <= target.max(first) || next.step == days);
                    position = next;
                }
                climbed.set(climbed.get() + u32::from(position.step == days));
                Ok(())
            })
            .unwrap();
        assert!(climbed.get() > 100, "{}", climbed.get());
    }
}
