//! Soft bounces in a row: when an address has had so many that mail to it stops for a while.
//!
//! A run is what is remembered of one tenant's address: the moment of its last delivery and the
//! moments of the soft bounces after it. A soft bounce joins the run, a delivery ends what lies
//! before it. At [`Rules::bounces`] the address is suppressed ([`Run::entry`]) for [`Rules::time`]
//! from the last of them on; each further one moves that end on; a delivery lifts the entry, for the
//! mailbox works.
//!
//! Promises: pure. Of the same events the same run is left, whatever order they come in: moments are
//! compared, never the order of coming, and only the newest [`LONGEST`] bounces are kept. A delivery
//! and a bounce of one moment are a delivery last.
//! What remains: a run begins with the first soft bounce that is applied. A delivery that came before
//! it, of an address without a run, was written nowhere; so a soft bounce that is older than that
//! delivery and comes after it counts one too many, never one too few, until the next delivery.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::ACTOR;
use super::tenant::{Suppression, SuppressionReason};
use crate::time::Timestamp;

/// Most soft bounces of a run that are kept.
pub const LONGEST: usize = 20;
/// How long after its last event a run is remembered.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How the origin of an entry that a run made goes on behind the number.
const WORDS: &str = " soft bounces in a row";

/// When soft bounces suppress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// How many in a row suppress, up to [`LONGEST`]; 0: none ever does.
    pub bounces: usize,
    /// For how long.
    pub time: Duration,
}

/// What an event does to a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A soft bounce of that moment.
    Bounced(Timestamp),
    /// A delivery of that moment.
    Delivered(Timestamp),
}

/// What is remembered of an address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// The last delivery that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivered: Option<Timestamp>,
    /// Soft bounces after it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bounced: Vec<Timestamp>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { bounces: 5, time: Duration::from_secs(14 * 24 * 3600) }
    }
}

impl Rules {
    /// How long after its last event a run is remembered: as long as an entry that it made, at least.
    pub fn kept(&self) -> Duration {
        KEPT.max(self.time)
    }
}

impl Run {
    /// The run after one more event.
    #[must_use]
    pub fn after(&self, step: Step) -> Self {
        let mut run = self.clone();
        match step {
            Step::Bounced(at) if run.delivered.is_some_and(|delivered| at <= delivered) => {}
            Step::Bounced(at) => {
                let place = run.bounced.partition_point(|other| *other <= at);
                run.bounced.insert(place, at);
                let over = run.bounced.len().saturating_sub(LONGEST);
                run.bounced.drain(..over);
            }
            Step::Delivered(at) => {
                run.delivered = run.delivered.max(Some(at));
                run.bounced.retain(|bounced| *bounced > at);
            }
        }
        run
    }

    /// How many soft bounces in a row there are, up to [`LONGEST`].
    pub fn length(&self) -> usize {
        self.bounced.len()
    }

    /// The moment of the last event that it knows; `None` for a run that has not begun.
    pub fn last(&self) -> Option<Timestamp> {
        self.bounced.last().copied().max(self.delivered)
    }

    /// The entry that the run is a reason for.
    pub fn entry(&self, rules: &Rules) -> Option<Suppression> {
        let last = *self.bounced.last()?;
        (rules.bounces > 0 && self.length() >= rules.bounces).then(|| Suppression {
            reason: SuppressionReason::Soft,
            origin: format!("{}{WORDS}", self.length()),
            at: last,
            expires: Some(last.plus(rules.time)),
            actor: ACTOR.to_owned(),
        })
    }
}

/// How many soft bounces in a row brought `entry`; `None` for one that no run made.
pub fn counted(entry: &Suppression) -> Option<usize> {
    match entry.reason {
        SuppressionReason::Soft => entry.origin.strip_suffix(WORDS)?.parse().ok(),
        SuppressionReason::Bounce | SuppressionReason::Complaint | SuppressionReason::Manual => None,
    }
}

/// Whether a run made `entry`, so that a run may replace it and a delivery lift it.
pub fn made(entry: &Suppression) -> bool {
    entry.reason == SuppressionReason::Soft && entry.actor == ACTOR
}

#[cfg(test)]
mod tests {
    use super::Step::{Bounced, Delivered};
    use super::*;

    const RULES: Rules = Rules { bounces: 3, time: Duration::from_millis(100) };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn bounced(millis: u64) -> Step {
        Bounced(at(millis))
    }

    fn delivered(millis: u64) -> Step {
        Delivered(at(millis))
    }

    fn run(steps: &[Step]) -> Run {
        steps.iter().fold(Run::default(), |run, step| run.after(*step))
    }

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_encodings() {
        let json = |run: &Run| serde_json::to_string(run).unwrap();
        assert_eq!(json(&Run::default()), "{}");
        let both = run(&[delivered(3), bounced(7), bounced(5)]);
        assert_eq!(json(&both), r#"{"delivered":3,"bounced":[5,7]}"#);
        assert_eq!(serde_json::from_str::<Run>(&json(&both)).unwrap(), both);
        let full = (0..LONGEST as u64).fold(Run::default(), |run, n| run.after(bounced(u64::MAX - n)));
        assert!(json(&full.after(delivered(1))).len() < 1000, "a row is small");
    }

    #[test]
    fn the_last_of_so_many_in_a_row_suppresses_and_each_more_moves_the_end_on() {
        let mut now = Run::default();
        for (millis, entry) in [(1, None), (2, None), (3, Some((3, "3"))), (10, Some((10, "4"))), (4, Some((10, "5")))]
        {
            now = now.after(bounced(millis));
            let wanted = entry.map(|(last, count)| Suppression {
                reason: SuppressionReason::Soft,
                origin: format!("{count} soft bounces in a row"),
                at: at(last),
                expires: Some(at(last + 100)),
                actor: "ses".into(),
            });
            assert_eq!(now.entry(&RULES), wanted, "{millis}");
            assert_eq!(now.entry(&Rules { bounces: 0, ..RULES }), None);
            if let Some(entry) = wanted {
                assert_eq!(counted(&entry), Some(now.length()));
                assert!(made(&entry));
                assert!(!made(&Suppression { actor: "cli:root".into(), ..entry.clone() }));
                assert_eq!(counted(&Suppression { origin: "import x".into(), ..entry }), None);
            }
        }
    }

    /// steps; how many are left in a row.
    #[test]
    fn a_delivery_ends_what_lies_before_it_whenever_it_comes() {
        for (steps, left) in [
            (&[bounced(1), bounced(2), delivered(3)][..], 0),
            (&[bounced(1), delivered(3), bounced(2)], 0),
            (&[bounced(4), delivered(3), bounced(5)], 2),
            (&[bounced(1), bounced(4), bounced(5), delivered(3)], 2),
            // One moment: delivered last.
            (&[bounced(3), delivered(3)], 0),
            (&[delivered(3), bounced(3)], 0),
            // An old delivery that comes late ends nothing new.
            (&[delivered(5), bounced(6), delivered(2)], 1),
        ] {
            assert_eq!(run(steps).length(), left, "{steps:?}");
        }
        assert_eq!(run(&[bounced(4), delivered(3)]).last(), Some(at(4)));
        assert_eq!(run(&[bounced(4), delivered(9)]).last(), Some(at(9)));
        assert_eq!(Run::default().last(), None);
    }

    /// Small sets in every order, and larger ones than are kept in many.
    #[test]
    fn the_order_of_coming_does_not_matter() {
        let mut state = 7_u64;
        let mut below = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let (mut suppressed, mut lifted, mut full) = (0, 0, 0);
        for round in 0..400 {
            let count = if round % 4 == 0 { 30 } else { 1 + below(8) };
            let mut steps: Vec<Step> = (0..count)
                .map(|_| {
                    let at = at(below(40));
                    if below(9) == 0 { Delivered(at) } else { Bounced(at) }
                })
                .collect();
            let first = run(&steps);
            for _ in 0..20 {
                for n in (1..steps.len()).rev() {
                    let other = below(n as u64 + 1) as usize;
                    steps.swap(n, other);
                }
                assert_eq!(run(&steps), first, "{steps:?}");
            }
            let entry = first.entry(&RULES);
            suppressed += usize::from(entry.is_some());
            full += usize::from(first.length() == LONGEST);
            let bounces = steps.iter().filter(|step| matches!(step, Bounced(_))).count();
            lifted += usize::from(entry.is_none() && bounces >= RULES.bounces);
        }
        assert!(suppressed > 100 && lifted > 50 && full > 5, "{suppressed} {lifted} {full}");
    }

    #[test]
    fn a_run_is_kept_as_long_as_its_entry() {
        assert_eq!(RULES.kept(), KEPT);
        let long = Duration::from_secs(60 * 24 * 3600);
        assert_eq!(Rules { time: long, ..RULES }.kept(), long);
    }
}
