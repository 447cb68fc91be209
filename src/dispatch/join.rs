//! Many calls, one reply: what the outcomes of a message's SendEmail calls mean together.
//!
//! Pure. The rule: a 250 only when every call has its final answer and SES took one at least; a 5xx
//! only when SES refused every one for good; anything that may pass later defers the whole message,
//! because a client can try again only the whole.

use crate::upstream::{Outcome, Paused, Refused, Retry};

/// What the client is to hear. Numbers are indices of the outcomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// SES took `sent`, and will never take `refused`.
    Taken {
        /// One at least.
        sent: Vec<usize>,
        /// Often none.
        refused: Vec<usize>,
    },
    /// SES will take none of them, ever; `why` is the outcome that says most.
    Refused {
        /// Whose words the client hears.
        why: usize,
    },
    /// Some may pass later; `sent` have gone already and will go twice if the client tries again.
    Deferred {
        /// The gravest of those that may pass later.
        why: usize,
        /// Often none.
        sent: Vec<usize>,
    },
    /// There was no outcome at all: no call was made.
    Nothing,
}

/// Joins the outcomes.
pub fn join(outcomes: &[Outcome]) -> Joined {
    let mut sent = Vec::new();
    let mut refused = Vec::new();
    let mut worst_refusal: Option<(u8, usize)> = None;
    let mut worst_delay: Option<(u8, usize)> = None;
    for (at, outcome) in outcomes.iter().enumerate() {
        match weigh(outcome) {
            Weight::Sent => sent.push(at),
            Weight::Refused(weight) => {
                refused.push(at);
                heavier(&mut worst_refusal, weight, at);
            }
            Weight::Later(weight) => heavier(&mut worst_delay, weight, at),
        }
    }
    match (worst_delay, worst_refusal) {
        (Some((_, why)), _) => Joined::Deferred { why, sent },
        (None, _) if !sent.is_empty() => Joined::Taken { sent, refused },
        (None, Some((_, why))) => Joined::Refused { why },
        (None, None) => Joined::Nothing,
    }
}

fn heavier(worst: &mut Option<(u8, usize)>, weight: u8, at: usize) {
    if worst.is_none_or(|(heaviest, _)| weight > heaviest) {
        *worst = Some((weight, at));
    }
}

enum Weight {
    Sent,
    Refused(u8),
    Later(u8),
}

/// How much an outcome says: what names a thing to mend says more than what passes by itself.
fn weigh(outcome: &Outcome) -> Weight {
    match outcome {
        Outcome::Sent(_) => Weight::Sent,
        Outcome::Refused(refused, _) => Weight::Refused(match refused {
            Refused::IdentityNotVerified => 2,
            Refused::TooLarge => 1,
            Refused::Content => 0,
        }),
        Outcome::Paused(paused, _) => Weight::Later(match paused {
            Paused::AccountSuspended => 33,
            Paused::Account => 32,
            Paused::ConfigurationSet => 31,
        }),
        Outcome::Retry(retry, _) => Weight::Later(match retry {
            Retry::Credentials => 27,
            Retry::AccessDenied => 26,
            Retry::ConfigurationSetMissing => 25,
            Retry::TenantMissing => 24,
            Retry::NotAssociated => 23,
            Retry::MailFromDomain => 22,
            Retry::Unrecognised => 21,
            Retry::DailyQuota => 10,
            Retry::Service => 4,
            Retry::Network => 3,
            Retry::Throttled => 2,
            Retry::Busy => 1,
        }),
        // The duplicate it may lead to weighs more than what passes by itself.
        Outcome::Unknown(_) => Weight::Later(15),
    }
}

/// Whether to go on with the other calls of a message after this outcome. What may pass later
/// defers the whole message, and every call made after it would be one more to go twice.
pub fn go_on_after(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Sent(_) | Outcome::Refused(..) => true,
        Outcome::Retry(..) | Outcome::Paused(..) | Outcome::Unknown(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Taken;

    fn of(letter: char) -> Outcome {
        let words = || letter.to_string();
        match letter {
            'S' => Outcome::Sent(Taken::by_ses("ses-1".into())),
            'c' => Outcome::Refused(Refused::Content, words()),
            'i' => Outcome::Refused(Refused::IdentityNotVerified, words()),
            'l' => Outcome::Refused(Refused::TooLarge, words()),
            't' => Outcome::Retry(Retry::Throttled, words()),
            'b' => Outcome::Retry(Retry::Busy, words()),
            'q' => Outcome::Retry(Retry::DailyQuota, words()),
            'd' => Outcome::Retry(Retry::AccessDenied, words()),
            'P' => Outcome::Paused(Paused::Account, words()),
            'U' => Outcome::Unknown(words()),
            other => panic!("{other} is no outcome"),
        }
    }

    /// outcomes → what, why, sent, refused
    const TABLE: [(&str, &str, &str, &str, &str); 21] = [
        ("", "nothing", "", "", ""),
        ("S", "taken", "", "0", ""),
        ("SSS", "taken", "", "012", ""),
        ("Sc", "taken", "", "0", "1"),
        ("cSi", "taken", "", "1", "02"),
        ("c", "refused", "0", "", ""),
        ("cc", "refused", "0", "", ""),
        ("ci", "refused", "1", "", ""),
        ("cli", "refused", "2", "", ""),
        ("clc", "refused", "1", "", ""),
        ("t", "deferred", "0", "", ""),
        ("St", "deferred", "1", "0", ""),
        ("Sct", "deferred", "2", "0", ""),
        ("ct", "deferred", "1", "", ""),
        ("tP", "deferred", "1", "", ""),
        ("Pt", "deferred", "0", "", ""),
        ("tUd", "deferred", "2", "", ""),
        ("tUq", "deferred", "1", "", ""),
        ("SSU", "deferred", "2", "01", ""),
        ("tbbb", "deferred", "0", "", ""),
        ("qq", "deferred", "0", "", ""),
    ];

    #[test]
    fn the_table_of_partial_results() {
        for (outcomes, what, why, sent, refused) in TABLE {
            let numbers = |text: &str| text.chars().map(|c| c.to_digit(10).unwrap() as usize).collect::<Vec<_>>();
            let first = |text: &str| numbers(text).first().copied().unwrap_or_default();
            let expected = match what {
                "taken" => Joined::Taken { sent: numbers(sent), refused: numbers(refused) },
                "refused" => Joined::Refused { why: first(why) },
                "deferred" => Joined::Deferred { why: first(why), sent: numbers(sent) },
                _ => Joined::Nothing,
            };
            let outcomes: Vec<Outcome> = outcomes.chars().map(of).collect();
            assert_eq!(join(&outcomes), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn whatever_the_outcomes_250_means_all_final_and_5xx_means_all_refused() {
        let letters = ['S', 'c', 'i', 't', 'U', 'P'];
        let (mut taken, mut refused, mut deferred) = (0, 0, 0);
        for a in letters {
            for b in letters {
                for c in letters {
                    let outcomes = [of(a), of(b), of(c)];
                    let is = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|o| of(o)).count();
                    let gone = is(|o| matches!(o, Outcome::Sent(_)));
                    let never = is(|o| matches!(o, Outcome::Refused(..)));
                    match join(&outcomes) {
                        Joined::Taken { sent, refused } => {
                            assert!(gone >= 1 && sent.len() == gone && refused.len() == never && gone + never == 3);
                            taken += 1;
                        }
                        Joined::Refused { .. } => {
                            assert_eq!(never, 3);
                            refused += 1;
                        }
                        Joined::Deferred { why, sent } => {
                            assert!(gone + never < 3 && sent.len() == gone && !go_on_after(&outcomes[why]));
                            deferred += 1;
                        }
                        Joined::Nothing => panic!("there were outcomes"),
                    }
                }
            }
        }
        assert_eq!((taken, refused, deferred), (19, 8, 189));
    }
}
