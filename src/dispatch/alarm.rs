//! Alarms about SES that an operator must mend, told once a minute for each cause.
//!
//! What SES refuses for a whole tenant or account it refuses for every message: a line for each
//! would bury the one that matters. The memory of what was told is bounded (`CAUSES`); past that
//! a new cause waits until an old one may be told again.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::journal;
use crate::outbox::Lane;
use crate::upstream::{Outcome, Paused, Refused, Retry};

/// How long one cause is silent after it was told.
const SILENCE: Duration = Duration::from_secs(60);
/// Most causes remembered.
const CAUSES: usize = 1000;

/// What tells one cause from another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cause {
    kind: Discriminant<Outcome>,
    retry: Option<Retry>,
    refused: Option<Refused>,
    paused: Option<Paused>,
    lane: Lane,
}

/// What was told when.
#[derive(Debug, Default)]
pub(super) struct Alarms(Mutex<HashMap<Cause, Instant>>);

impl Alarms {
    /// Tells `outcome`, which the operator can mend by `cure`, if it was not told within the last
    /// minute.
    pub(super) fn consider(&self, lane: &Lane, outcome: &Outcome, cure: &str, now: Instant) {
        if self.is_news(cause(lane, outcome), now) {
            journal::upstream_alarm(Some(&lane.tenant), lane.stream.as_ref(), words(outcome), cure);
        }
    }

    fn is_news(&self, cause: Cause, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Instant| now.saturating_duration_since(*at) < SILENCE;
        if told.get(&cause).is_some_and(recent) {
            return false;
        }
        if told.len() >= CAUSES {
            told.retain(|_, at| recent(at));
        }
        if told.len() >= CAUSES && !told.contains_key(&cause) {
            return false;
        }
        told.insert(cause, now);
        true
    }
}

fn cause(lane: &Lane, outcome: &Outcome) -> Cause {
    let (mut retry, mut refused, mut paused) = (None, None, None);
    match outcome {
        Outcome::Retry(why, _) => retry = Some(*why),
        Outcome::Refused(why, _) => refused = Some(*why),
        Outcome::Paused(why, _) => paused = Some(*why),
        Outcome::Sent(_) | Outcome::Unknown(_) => {}
    }
    Cause { kind: discriminant(outcome), retry, refused, paused, lane: lane.clone() }
}

/// SES's words in an outcome, for the log.
pub fn words(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Sent(taken) => taken.ses_id(),
        Outcome::Retry(_, words) | Outcome::Refused(_, words) | Outcome::Paused(_, words) | Outcome::Unknown(words) => {
            words
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_cause(tenant: &str, retry: Retry) -> Cause {
        let outcome = Outcome::Retry(retry, "words differ".into());
        cause(&Lane { tenant: tenant.parse().unwrap(), stream: Some("main".parse().unwrap()) }, &outcome)
    }

    #[test]
    fn a_cause_is_news_once_a_minute() {
        let alarms = Alarms::default();
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        assert!(alarms.is_news(a_cause("acme", Retry::AccessDenied), second(0)));
        assert!(!alarms.is_news(a_cause("acme", Retry::AccessDenied), second(59)));
        assert!(alarms.is_news(a_cause("acme", Retry::Credentials), second(59)), "another cause");
        assert!(alarms.is_news(a_cause("globex", Retry::AccessDenied), second(59)), "another tenant");
        assert!(alarms.is_news(a_cause("acme", Retry::AccessDenied), second(60)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let alarms = Alarms::default();
        let start = Instant::now();
        for n in 0..CAUSES {
            assert!(alarms.is_news(a_cause(&format!("t{n}"), Retry::Credentials), start));
        }
        assert!(!alarms.is_news(a_cause("one-more", Retry::Credentials), start));
        assert!(alarms.is_news(a_cause("one-more", Retry::Credentials), start + SILENCE));
        assert_eq!(alarms.0.lock().unwrap().len(), 1);
    }
}
