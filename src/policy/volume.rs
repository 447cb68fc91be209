//! Whether a tenant's volume is unusual: an hour that has ended against the same hour of the days
//! before.
//!
//! Promises: pure; says nothing of who has too little past, too little mail, or where it is switched
//! off. What can go wrong: a weekly rhythm looks unusual, since seven days are one mean.

/// Days that the past is.
pub const DAYS: u32 = 7;
/// Least days with mail in this hour before it has a mean.
pub const LEAST_DAYS: usize = 3;

/// From what on a volume is unusual.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rules {
    /// How many times the mean is unusual, and what part of it, one in so many; 0: nothing is.
    pub times: f64,
    /// Least mean, in recipients.
    pub least: u64,
}

/// Which way it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Far under the mean.
    Fell,
    /// Far over it.
    Rose,
}

/// An unusual hour with its figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Unusual {
    /// Which way.
    pub turn: Turn,
    /// Recipients of the hour.
    pub recipients: u64,
    /// Mean recipients of the same hour on the days that had any.
    pub mean: f64,
    /// How many days had any.
    pub days: usize,
}

impl Turn {
    /// `fell`, `rose`: in the log and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fell => "fell",
            Self::Rose => "rose",
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { times: 3.0, least: 50 }
    }
}

/// Judges an hour of `recipients` recipients. `past`: those of the same hour on each of the last
/// [`DAYS`] days; a day without any counts as one that nothing is known of.
pub fn judge(rules: &Rules, past: &[u64], recipients: u64) -> Option<Unusual> {
    if rules.times <= 0.0 {
        return None;
    }
    let days = past.iter().filter(|day| **day > 0).count();
    if days < LEAST_DAYS {
        return None;
    }
    let sum = past.iter().fold(0_u64, |sum, day| sum.saturating_add(*day));
    let mean = number(sum) / number(u64::try_from(days).unwrap_or(u64::MAX));
    if mean < number(rules.least) {
        return None;
    }
    let turn = if number(recipients) > mean * rules.times {
        Turn::Rose
    } else if number(recipients) * rules.times < mean {
        Turn::Fell
    } else {
        return None;
    };
    Some(Unusual { turn, recipients, mean, days })
}

#[expect(clippy::cast_precision_loss, reason = "numbers of recipients are far below 2^53")]
fn number(recipients: u64) -> f64 {
    recipients as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(past: &[u64], recipients: u64) -> Option<Turn> {
        judge(&Rules::default(), past, recipients).map(|unusual| unusual.turn)
    }

    #[test]
    fn a_third_and_three_times_are_the_lines() {
        let cases: [(&[u64], u64, Option<Turn>); 12] = [
            (&[300; 7], 100, None),
            (&[300; 7], 99, Some(Turn::Fell)),
            (&[300; 7], 0, Some(Turn::Fell)),
            (&[300; 7], 900, None),
            (&[300; 7], 901, Some(Turn::Rose)),
            // Days without mail are not in the mean.
            (&[300, 0, 300, 0, 300, 0, 0], 901, Some(Turn::Rose)),
            (&[300, 0, 300, 0, 300, 0, 0], 400, None),
            // Two days are no past.
            (&[300, 300, 0, 0, 0, 0, 0], 10_000, None),
            (&[], 10_000, None),
            // A mean under 50 is none.
            (&[49; 7], 10_000, None),
            (&[50; 7], 151, Some(Turn::Rose)),
            (&[50; 7], 0, Some(Turn::Fell)),
        ];
        for (past, recipients, expected) in cases {
            assert_eq!(turn(past, recipients), expected, "{past:?} {recipients}");
        }
    }

    #[test]
    fn the_figures_are_those_it_was_judged_by() {
        let unusual = judge(&Rules::default(), &[100, 200, 300, 0, 0, 0, 0], 1_000);
        assert_eq!(unusual, Some(Unusual { turn: Turn::Rose, recipients: 1_000, mean: 200.0, days: 3 }));
    }

    #[test]
    fn it_can_be_switched_off() {
        assert_eq!(judge(&Rules { times: 0.0, least: 0 }, &[300; 7], 0), None);
        assert_eq!(judge(&Rules { times: 0.0, least: 0 }, &[300; 7], 90_000), None);
        let twice = Rules { times: 2.0, least: 50 };
        assert!(judge(&twice, &[300; 7], 601).is_some() && judge(&twice, &[300; 7], 149).is_some());
    }

    proptest! {
        #[test]
        fn what_lies_between_the_lines_is_usual(past in proptest::collection::vec(0..5_000_u64, 7), part in 0.34..3.0_f64) {
            let days = past.iter().filter(|day| **day > 0).count();
            let mean = number(past.iter().sum::<u64>()) / number(days.max(1) as u64);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a small number above 0")]
            let recipients = (mean * part).ceil() as u64;
            prop_assume!(number(recipients) <= mean * 3.0);
            prop_assert_eq!(turn(&past, recipients), None);
        }
    }
}
