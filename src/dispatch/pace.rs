//! How many recipients a second: a rate held by arithmetic on one moment (GCRA).
//!
//! The moment is when the bucket will be full again; the further ahead of now, the emptier it is. It
//! holds what three quarters of a second bring, one recipient at the least. SES's own holds a second's;
//! but it is full until a call arrives, which is later than it began, and what it could not take in until
//! then is lacking at the end of a burst.
//!
//! Promises: over any time no more recipients pass than the rate times that time and one bucket. A
//! message for more recipients than are left passes as soon as there is room for one, and what follows
//! pays for it: so SES's own bucket has it with a call, which cannot be cut. A message of several calls
//! can: its [`Slot`] says from when each of them may begin, else SES would refuse the last ones. After SES
//! says that the rate is exceeded it is halved, and comes back to what was set in [`RECOVERY`].
//! Refuses: nothing; without a rate everything passes.
//! What can go wrong: a rate that is no number above zero is taken as [`LEAST`].

use std::time::{Duration, Instant};

/// How long the rate takes from nothing to what was set; from half of it, half as long.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// Answers that come within this time are about one overrun, and halve the rate once.
pub const ONE_OVERRUN: Duration = Duration::from_secs(1);

/// The lowest rate: one recipient an hour.
pub const LEAST: f64 = 1.0 / 3600.0;

/// For how many seconds of the rate a full bucket has room.
const HELD: f64 = 0.75;

/// Of a rate whose bucket has room for one alone this part is held.
const UNHURRIED: f64 = 0.9;

/// The rate is not halved below this.
const FLOOR: f64 = 1.0;

/// A rate and what has been taken of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Pace {
    rate: Option<f64>,
    /// When the bucket is full.
    full: Option<Instant>,
    slowed: Option<Slowed>,
}

/// What a message took of a rate: from when its calls may begin.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Slot {
    /// From when its first recipient may go, and the rate; `None`: no rate is known.
    first: Option<(Instant, f64)>,
}

impl Slot {
    /// From when a call may begin that comes after calls for so many others of the same message; `None`: at
    /// any time.
    pub fn after(self, others: u32) -> Option<Instant> {
        let (first, rate) = self.first?;
        Some(after(first, time_for(f64::from(others), rate)))
    }
}

/// The rate was lowered to `to`, and grows since.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Slowed {
    to: f64,
    at: Instant,
}

/// The rate to hold for an account that SES lets send so many a second. Where SES's bucket has hardly room for
/// one, ours cannot be smaller: whatever a call is late, the next one comes too early by. So a tenth of the
/// time between two is left over; an account of SES's sandbox has one a second.
pub fn beside_ses(rate: f64) -> f64 {
    if rate * UNHURRIED < 1.0 { rate * UNHURRIED } else { rate }
}

impl Pace {
    /// So many recipients a second; `None` is no limit. The bucket is full.
    pub fn new(rate: Option<f64>) -> Self {
        Self { rate: rate.map(sound), full: None, slowed: None }
    }

    /// A message to so many recipients wants to begin. When it may not, it says when to come back.
    pub fn take(&mut self, recipients: u32, now: Instant) -> Result<Slot, Instant> {
        self.peek(now)?;
        let Some(rate) = self.effective(now) else { return Ok(Slot::default()) };
        let from = self.full.map_or(now, |full| full.max(now));
        self.full = Some(after(from, time_for(f64::from(recipients), rate)));
        // In a full bucket there is room for some beside the first.
        let first = from.checked_sub(time_for(bucket(rate) - 1.0, rate)).unwrap_or(now);
        Ok(Slot { first: Some((first, rate)) })
    }

    /// What [`take`](Self::take) would say, without taking.
    pub fn peek(&self, now: Instant) -> Result<(), Instant> {
        let (Some(rate), Some(full)) = (self.effective(now), self.full) else { return Ok(()) };
        // There is room for one as long as the bucket is full within the time of all the others.
        let others = time_for(bucket(rate) - 1.0, rate);
        let at = full.checked_sub(others).unwrap_or(now);
        if at <= now { Ok(()) } else { Err(at) }
    }

    /// From now on the rate is another. What was taken stays taken; but nobody waits longer for it
    /// than before, or than for an empty bucket of the new rate.
    pub fn change(&mut self, rate: Option<f64>, now: Instant) {
        let rate = rate.map(sound);
        if rate == self.rate {
            return;
        }
        self.full = match (self.effective(now), rate, self.full) {
            (Some(before), Some(rate), Some(full)) => {
                let ahead = full.saturating_duration_since(now);
                let taken = ahead.as_secs_f64() * before;
                let most = ahead.max(time_for(bucket(rate), rate));
                Some(after(now, time_for(taken, rate).min(most)))
            }
            (None, ..) | (_, None, _) | (.., None) => None,
        };
        self.rate = rate;
        self.slowed = None;
    }

    /// SES said that the rate is exceeded: its bucket is empty, and so is this. Without a rate
    /// nothing happens: the account's breaker waits.
    pub fn throttled(&mut self, now: Instant) {
        let (Some(set), Some(rate)) = (self.rate, self.effective(now)) else { return };
        if self.slowed.is_some_and(|slowed| now.saturating_duration_since(slowed.at) < ONE_OVERRUN) {
            return;
        }
        let to = (rate / 2.0).max(FLOOR.min(set));
        self.slowed = Some(Slowed { to, at: now });
        let empty = after(now, time_for(bucket(to), to));
        self.full = Some(self.full.map_or(empty, |full| full.max(empty)));
    }

    /// The rate that holds now: what was set, or less for a while after SES said it was too much.
    pub fn effective(&self, now: Instant) -> Option<f64> {
        let set = self.rate?;
        let Some(slowed) = self.slowed else { return Some(set) };
        let regained = now.saturating_duration_since(slowed.at).as_secs_f64() / RECOVERY.as_secs_f64();
        Some((slowed.to + set * regained).min(set))
    }
}

/// How many recipients a full bucket holds, one at the least.
fn bucket(rate: f64) -> f64 {
    (rate * HELD).max(1.0)
}

fn sound(rate: f64) -> f64 {
    if rate.is_nan() { LEAST } else { rate.clamp(LEAST, 1e9) }
}

fn time_for(recipients: f64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(recipients / rate).unwrap_or(Duration::ZERO)
}

/// A moment beyond what the clock can say is now.
fn after(from: Instant, time: Duration) -> Instant {
    from.checked_add(time).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many calls for one recipient pass at once.
    fn at_once(pace: &mut Pace, now: Instant) -> u32 {
        (0..100_000).take_while(|_| pace.take(1, now).is_ok()).count() as u32
    }

    /// How many recipients pass in this time for those who always come back when they are told to.
    fn passes(pace: &mut Pace, from: Instant, time: Duration, recipients: u32) -> u32 {
        let (mut now, mut passed) = (from, 0);
        while now < from + time {
            match pace.take(recipients, now) {
                Ok(_) => passed += recipients,
                Err(at) => {
                    assert!(at > now && pace.peek(now) == Err(at));
                    now = at;
                }
            }
        }
        passed
    }

    #[test]
    fn a_bucket_holds_what_three_quarters_of_a_second_bring_and_one_at_the_least() {
        let now = Instant::now();
        for (rate, bucket) in [(14.0, 10), (1.0, 1), (2.5, 1), (4.0, 3), (0.1, 1), (500.0, 375), (0.0, 1), (-3.0, 1)] {
            let mut pace = Pace::new(Some(rate));
            assert_eq!(at_once(&mut pace, now), bucket, "{rate}");
        }
        assert_eq!(at_once(&mut Pace::new(None), now), 100_000);
        assert_eq!(at_once(&mut Pace::new(Some(f64::NAN)), now), 1);
    }

    #[test]
    fn who_comes_back_when_told_is_let_through() {
        let now = Instant::now();
        for rate in [0.1, 0.7, 1.0, 3.0, 14.0, 333.0] {
            let mut pace = Pace::new(Some(rate));
            let hour = passes(&mut pace, now, Duration::from_secs(3600), 1);
            let expected = rate * 3600.0 + bucket(rate);
            assert!((f64::from(hour) - expected).abs() <= 2.0, "{hour} at {rate}, not {expected}");
        }
    }

    #[test]
    fn a_call_larger_than_what_is_left_passes_and_is_paid_for() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(10.0));
        assert_eq!(pace.take(6, now).map(drop), Ok(()));
        assert_eq!(pace.take(50, now).map(drop), Ok(()), "there is room for one");
        // 56 are taken of 7.5, and there is room for one when 6.5 of these are taken.
        assert_eq!(pace.peek(now), pace.clone().take(1, now).map(drop));
        let Err(at) = pace.take(1, now) else { panic!("the bucket is empty") };
        assert_eq!((at - now).as_millis(), 4950);
        assert_eq!(pace.take(1, at).map(drop), Ok(()));
        assert!(pace.take(1, at).is_err());
        let hour = passes(&mut Pace::new(Some(10.0)), now, Duration::from_secs(3600), 50);
        assert!((36_000..=36_060).contains(&hour), "{hour}");
    }

    #[test]
    fn a_rate_can_change_without_gain_or_undue_wait() {
        let now = Instant::now();
        let emptied = |rate| {
            let mut pace = Pace::new(Some(rate));
            at_once(&mut pace, now);
            pace
        };
        let wait = |pace: &Pace| pace.peek(now).map_or_else(|at| (at - now).as_millis(), |()| 0);
        let mut pace = emptied(100.0);
        pace.change(Some(1.0), now);
        assert_eq!(wait(&pace), 1000, "not the hundred seconds that a hundred would take");
        let mut pace = emptied(0.1);
        pace.change(Some(100.0), now);
        assert_eq!(at_once(&mut pace, now), 74, "one was taken");
        let mut pace = emptied(10.0);
        pace.change(Some(10.0), now);
        assert_eq!(wait(&pace), 50);
        pace.change(None, now);
        assert_eq!(at_once(&mut pace, now), 100_000);
        pace.change(Some(5.0), now);
        assert_eq!(at_once(&mut pace, now), 3);
        // Changed to and fro, nothing is gained.
        let mut pace = emptied(10.0);
        for _ in 0..100 {
            pace.change(Some(20.0), now);
            pace.change(Some(10.0), now);
        }
        assert_eq!(at_once(&mut pace, now), 0);
    }

    #[test]
    fn after_a_throttle_the_rate_is_halved_and_comes_back_within_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Some(60.0));
        pace.throttled(start);
        pace.throttled(start + Duration::from_millis(900));
        assert_eq!(pace.effective(start), Some(30.0), "several answers, one overrun");
        assert_eq!(at_once(&mut pace, start), 0, "the bucket is empty");
        let rates: Vec<f64> = [1, 10, 29, 30, 60, 3600].map(|s| pace.effective(at(s)).unwrap().round()).to_vec();
        assert_eq!(rates, [31.0, 40.0, 59.0, 60.0, 60.0, 60.0]);
        let mut pace = Pace::new(Some(60.0));
        for second in 0..100 {
            pace.throttled(at(second));
        }
        assert!(pace.effective(at(100)).unwrap() >= 1.0);
        assert!(pace.effective(at(99)).unwrap() < 2.0);
        assert_eq!(pace.effective(at(99 + 60)), Some(60.0));
        let mut slow = Pace::new(Some(0.5));
        slow.throttled(start);
        assert_eq!(slow.effective(start), Some(0.5), "one a second is the floor, or what was set");
        let mut none = Pace::new(None);
        none.throttled(start);
        assert_eq!(at_once(&mut none, start), 100_000);
    }

    /// SES lets 14 a second pass, the account's rate was set to 50.
    #[test]
    fn a_rate_that_was_set_too_high_finds_what_ses_takes() {
        let (mut now, mut pace) = (Instant::now(), Pace::new(Some(50.0)));
        let mut ses = Pace::new(Some(14.0));
        let end = now + Duration::from_secs(600);
        let (mut sent, mut refused) = (0, 0);
        while now < end {
            match pace.take(1, now) {
                Err(at) => now = at,
                Ok(_) if ses.take(1, now).is_ok() => sent += 1,
                Ok(_) => {
                    refused += 1;
                    pace.throttled(now);
                }
            }
        }
        assert!(sent > 600 * 14 * 7 / 10, "{sent} sent: most of what SES takes");
        assert!(refused < sent / 10, "{refused} refused of {sent}");
    }

    /// Messages of many sizes whose recipients each have a call of their own, offered from their slots on:
    /// SES, whose bucket takes them one by one, has room for every one of them.
    #[test]
    fn calls_that_begin_from_their_slots_on_find_room_at_ses() {
        let sizes = [1_u32, 5, 50, 1, 1, 20, 3];
        for rate in [0.5, 1.0, 14.0, 50.0] {
            let (mut now, mut pace) = (Instant::now(), Pace::new(Some(rate)));
            let begun = now;
            let mut calls = Vec::new();
            for size in sizes.iter().cycle().take(200) {
                let slot = loop {
                    match pace.take(*size, now) {
                        Ok(slot) => break slot,
                        Err(at) => now = at,
                    }
                };
                calls.extend((0..*size).map(|others| slot.after(others).unwrap().max(now)));
            }
            calls.sort();
            let (mut ses, all) = (Pace::new(Some(rate)), calls.len());
            // What a duration rounds off.
            let refused = calls.iter().filter(|at| ses.take(1, **at + Duration::from_micros(1)).is_err()).count();
            assert_eq!(refused, 0, "of {all} at {rate} a second");
            let took = calls.last().unwrap().saturating_duration_since(begun).as_secs_f64();
            assert!(took <= all as f64 / rate, "{took} s for {all} at {rate} a second: no time is lost");
        }
        assert_eq!(Pace::new(None).take(50, Instant::now()).unwrap().after(49), None);
    }

    /// Calls reach SES late by what a network takes, now more, now less.
    #[test]
    fn an_account_of_one_a_second_is_not_throttled_by_its_own_delays() {
        let refused = |set: f64, held: f64| {
            let (mut now, mut pace, mut ses) = (Instant::now(), Pace::new(Some(held)), Pace::new(Some(set)));
            let calls = (0..1000_u64).map(|n| {
                while let Err(at) = pace.take(1, now) {
                    now = at;
                }
                now + Duration::from_millis(n * 7919 % 100)
            });
            calls.filter(|at| ses.take(1, *at).is_err()).count()
        };
        for rate in [1.0, 1.1] {
            assert!(refused(rate, rate) > 100, "else nothing is shown");
            assert_eq!(refused(rate, beside_ses(rate)), 0, "{rate}");
        }
        assert_eq!([1.2, 14.0].map(beside_ses), [1.2, 14.0]);
        assert!(beside_ses(0.0) < LEAST, "and held at the least rate, as any that is none");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pass(u64),
        Take(u32),
        Throttled,
    }

    fn a_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3_000_u64).prop_map(Step::Pass),
            6 => prop_oneof![9 => Just(1_u32), 1 => 1..=50_u32].prop_map(Step::Take),
            1 => Just(Step::Throttled),
        ]
    }

    /// Whatever is asked when: in no window do more pass than the rate brings in it, one bucket, and
    /// the last call's own recipients beyond its first.
    #[test]
    fn no_window_lets_more_pass_than_rate_and_bucket() {
        let (passed, told) = (std::cell::Cell::new(0_u32), std::cell::Cell::new(0_u32));
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let cases = (0.05..60.0_f64, prop::collection::vec(a_step(), 1..200));
        runner
            .run(&cases, |(rate, steps)| {
                let mut now = Instant::now();
                let mut pace = Pace::new(Some(rate));
                let mut log: Vec<(Instant, u32)> = Vec::new();
                for step in steps {
                    match step {
                        Step::Pass(millis) => now += Duration::from_millis(millis),
                        Step::Throttled => pace.throttled(now),
                        Step::Take(recipients) => match pace.take(recipients, now) {
                            Ok(_) => log.push((now, recipients)),
                            Err(at) => {
                                told.set(told.get() + 1);
                                prop_assert!(at > now);
                                prop_assert!(pace.peek(at).is_ok(), "who comes back when told is let through");
                            }
                        },
                    }
                }
                passed.set(passed.get() + log.len() as u32);
                for (i, (from, _)) in log.iter().enumerate() {
                    let mut sum = 0;
                    for (to, recipients) in &log[i..] {
                        sum += recipients;
                        let most = rate * (*to - *from).as_secs_f64() + rate.max(1.0) + f64::from(recipients - 1);
                        prop_assert!(f64::from(sum) <= most + 1e-3, "{} of {}", sum, most);
                    }
                }
                Ok(())
            })
            .unwrap();
        assert!(passed.get() > 5_000 && told.get() > 2_000, "{} {}", passed.get(), told.get());
    }

    #[test]
    fn years_of_use_leave_nothing_behind() {
        let (mut now, mut pace) = (Instant::now(), Pace::new(Some(14.0)));
        for _ in 0..100_000 {
            now += Duration::from_secs(3600);
            assert_eq!(pace.take(50, now).map(drop), Ok(()));
        }
        assert_eq!(pace.full.map(|full| full < now + 5 * SECOND), Some(true));
    }
}
