//! When which announcement is offered to the webhook, and what follows from its answer.
//!
//! Offers are made at once and then after [`WAITS`], each with up to a tenth more so that many do not
//! come together; a few at a time, those that are due first in front. Any 2xx is the end of it. 410
//! says that nobody listens there any more: nothing is offered until a restart. All else is a failure,
//! a redirect too.
//!
//! Promises: an announcement is offered [`OFFERS`] times at the most, and one at a time. What
//! comes of it does not depend on who else waits.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::webhook::Answer;
use crate::mail::MessageId;
use crate::time::Timestamp;

/// The waits between the offers, as Standard Webhooks proposes them.
pub const WAITS: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
];
/// Most offers of one announcement.
pub const OFFERS: u32 = 8;
/// Most offers under way at once.
pub const AT_ONCE: usize = 4;
/// How much longer a wait may be than it has to, as a part of it.
const JITTER: f64 = 0.1;

/// What waits for the webhook.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    waiting: BTreeSet<(Timestamp, MessageId)>,
    /// How often each that waits or is under way has been offered, and when it is due, if it waits.
    known: BTreeMap<MessageId, (u32, Option<Timestamp>)>,
    under_way: usize,
    gone: bool,
}

/// What follows from an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It has arrived.
    Delivered,
    /// It is offered again.
    Again {
        /// How often it has been.
        offers: u32,
        /// When.
        at: Timestamp,
    },
    /// It is not offered again.
    GivenUp,
    /// Nothing is, until a restart.
    Gone,
    /// Nobody waits for this answer.
    Unasked,
}

impl Schedule {
    /// Takes up what was offered so many times and is due at a moment. What is known already stays as it is.
    pub fn add(&mut self, id: MessageId, offers: u32, due: Timestamp) {
        if let Entry::Vacant(room) = self.known.entry(id) {
            room.insert((offers, Some(due)));
            self.waiting.insert((due, id));
        }
    }

    /// The next to be offered, if one is due and there is room. It is under way until it is
    /// [`answered`](Self::answered).
    pub fn take(&mut self, now: Timestamp) -> Option<MessageId> {
        let (due, id) = *self.waiting.first()?;
        if due > now || self.under_way >= AT_ONCE || self.gone {
            return None;
        }
        self.waiting.remove(&(due, id));
        if let Some((_, waits)) = self.known.get_mut(&id) {
            *waits = None;
        }
        self.under_way += 1;
        Some(id)
    }

    /// What follows from the answer to an offer. `fraction` is from `0.0..1.0`.
    pub fn answered(&mut self, id: MessageId, answer: &Answer, now: Timestamp, fraction: f64) -> Step {
        let Some((before, None)) = self.known.get(&id).copied() else { return Step::Unasked };
        self.under_way = self.under_way.saturating_sub(1);
        let offers = before.saturating_add(1);
        match answer {
            Answer::Status(200..=299) => {
                self.known.remove(&id);
                Step::Delivered
            }
            Answer::Status(410) => {
                self.known.remove(&id);
                self.gone = true;
                Step::Gone
            }
            Answer::Status(_) | Answer::Refused(_) | Answer::Failed(_) => {
                let wait = usize::try_from(before).ok().and_then(|made| WAITS.get(made));
                let Some(wait) = wait else {
                    self.known.remove(&id);
                    return Step::GivenUp;
                };
                let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
                let at = now.plus(*wait + wait.mul_f64(JITTER * fraction));
                self.known.insert(id, (offers, Some(at)));
                self.waiting.insert((at, id));
                Step::Again { offers, at }
            }
        }
    }

    /// That nobody is to hear of it any more. What is under way has its answer all the same.
    pub fn forget(&mut self, id: MessageId) {
        if let Some((_, Some(due))) = self.known.get(&id).copied() {
            self.known.remove(&id);
            self.waiting.remove(&(due, id));
        }
    }

    /// When the next is due; `None` where nothing waits, or only an answer makes room.
    pub fn next(&self) -> Option<Timestamp> {
        let blocked = self.gone || self.under_way >= AT_ONCE;
        self.waiting.first().filter(|_| !blocked).map(|(due, _)| *due)
    }

    /// Whether the webhook said that nobody listens there any more.
    pub fn is_gone(&self) -> bool {
        self.gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Random;

    struct Sevens;

    impl Random for Sevens {
        fn fill(&self, into: &mut [u8]) {
            into.fill(7);
        }
    }

    const START: Timestamp = Timestamp::from_millis(1_777_000_000_000);

    fn id(n: u64) -> MessageId {
        MessageId::new(START.plus(Duration::from_millis(n)), &Sevens)
    }

    /// Offers one until nothing is left to do; gives the moments of the offers in seconds from the start.
    fn offered(answer: &Answer, fraction: f64) -> (Vec<u64>, Step) {
        let mut schedule = Schedule::default();
        schedule.add(id(0), 0, START);
        let (mut now, mut moments) = (START, Vec::new());
        loop {
            assert_eq!(schedule.take(now), Some(id(0)));
            assert_eq!(schedule.take(now), None, "one at a time");
            moments.push(now.since(START).as_secs());
            match schedule.answered(id(0), answer, now, fraction) {
                Step::Again { offers, at } => {
                    assert_eq!(offers as usize, moments.len());
                    assert_eq!(schedule.next(), Some(at));
                    assert_eq!(schedule.take(Timestamp::from_millis(at.millis() - 1)), None);
                    now = at;
                }
                step => return (moments, step),
            }
        }
    }

    #[test]
    fn a_failing_webhook_is_offered_eight_times_in_a_day_and_a_third() {
        let failures = [
            Answer::Status(500),
            Answer::Status(404),
            Answer::Status(301),
            Answer::Status(199),
            Answer::Failed("no answer".into()),
            Answer::Refused("a private address".into()),
        ];
        for answer in failures {
            let (moments, step) = offered(&answer, 0.0);
            assert_eq!(moments, [0, 5, 305, 2105, 9305, 27_305, 63_305, 113_705], "{answer:?}");
            assert_eq!(step, Step::GivenUp);
            assert_eq!(moments.len(), OFFERS as usize);
        }
        let (moments, _) = offered(&Answer::Status(500), 1.0);
        assert_eq!(moments[7], 125_075, "a tenth more");
        assert_eq!(offered(&Answer::Status(500), f64::NAN).0[7], 113_705);
        assert_eq!(offered(&Answer::Status(200), 0.5), (vec![0], Step::Delivered));
        assert_eq!(offered(&Answer::Status(204), 0.5), (vec![0], Step::Delivered));
        assert_eq!(offered(&Answer::Status(410), 0.5), (vec![0], Step::Gone));
    }

    #[test]
    fn after_gone_nothing_is_offered() {
        let mut schedule = Schedule::default();
        (0..3).for_each(|n| schedule.add(id(n), 0, START));
        assert_eq!(schedule.take(START), Some(id(0)));
        assert_eq!(schedule.take(START), Some(id(1)));
        assert_eq!(schedule.answered(id(0), &Answer::Status(410), START, 0.0), Step::Gone);
        assert!(schedule.is_gone());
        // What was under way has its answer.
        assert_eq!(schedule.answered(id(1), &Answer::Status(200), START, 0.0), Step::Delivered);
        assert_eq!((schedule.take(START), schedule.next()), (None, None));
    }

    #[test]
    fn a_few_at_once_those_that_are_due_first_in_front() {
        let mut schedule = Schedule::default();
        for n in 0..20 {
            schedule.add(id(n), 0, START.plus(Duration::from_secs(20 - n)));
            schedule.add(id(n), 5, START);
        }
        assert_eq!(schedule.take(START), None, "what is known is not added anew");
        let now = START.plus(Duration::from_secs(60));
        let taken: Vec<MessageId> = std::iter::from_fn(|| schedule.take(now)).collect();
        assert_eq!(taken, [19, 18, 17, 16].map(id));
        assert_eq!(schedule.next(), None, "an answer makes room");
        schedule.forget(id(15));
        schedule.forget(id(19));
        assert_eq!(schedule.answered(id(15), &Answer::Status(200), now, 0.0), Step::Unasked);
        assert_eq!(schedule.answered(id(14), &Answer::Status(200), now, 0.0), Step::Unasked, "it is not under way");
        assert_eq!(schedule.answered(id(19), &Answer::Status(200), now, 0.0), Step::Delivered);
        assert_eq!(schedule.answered(id(19), &Answer::Status(200), now, 0.0), Step::Unasked);
        assert_eq!(schedule.take(now), Some(id(14)));
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let mut schedule = Schedule::default();
        let due = START.plus(WAITS[6]);
        schedule.add(id(0), 7, due);
        assert_eq!(schedule.take(START), None);
        assert_eq!(schedule.take(due), Some(id(0)));
        assert_eq!(schedule.answered(id(0), &Answer::Status(500), due, 0.0), Step::GivenUp);
    }

    /// Whatever the answers and the moments: never more than a few under way, never one too often, and
    /// all come to an end.
    #[test]
    fn whatever_is_answered_the_bounds_hold() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut deepest, mut given_up, mut delivered) = (0, 0, 0);
        for _ in 0..200 {
            let mut schedule = Schedule::default();
            let mut offers: BTreeMap<MessageId, u32> = BTreeMap::new();
            let mut under_way: Vec<MessageId> = Vec::new();
            let (mut now, mut added) = (START, 0);
            loop {
                if added < 12 {
                    schedule.add(id(added), 0, now.plus(Duration::from_secs(random(100))));
                    added += 1;
                }
                while let Some(id) = schedule.take(now) {
                    assert!(!under_way.contains(&id));
                    under_way.push(id);
                    *offers.entry(id).or_default() += 1;
                }
                assert!(under_way.len() <= AT_ONCE);
                deepest = deepest.max(under_way.len());
                if under_way.is_empty() {
                    match schedule.next() {
                        Some(next) => now = now.max(next),
                        None if added == 12 => break,
                        None => {}
                    }
                    continue;
                }
                let id = under_way.swap_remove(random(under_way.len() as u64) as usize);
                let answer = if random(8) == 0 { Answer::Status(200) } else { Answer::Status(503) };
                match schedule.answered(id, &answer, now, random(100) as f64 / 100.0) {
                    Step::Delivered => delivered += 1,
                    Step::GivenUp => {
                        given_up += 1;
                        assert_eq!(offers[&id], OFFERS);
                    }
                    Step::Again { at, .. } => assert!(at > now),
                    step @ (Step::Gone | Step::Unasked) => panic!("{step:?}"),
                }
                now = now.plus(Duration::from_secs(random(20)));
            }
            assert_eq!(offers.len(), 12);
        }
        assert_eq!(delivered + given_up, 2400);
        assert!(deepest == AT_ONCE && given_up > 300 && delivered > 300, "{deepest} {given_up} {delivered}");
    }
}
