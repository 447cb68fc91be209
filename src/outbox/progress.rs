//! How far a message has come: a mark for each of its recipients.
//!
//! Kept in the row, noted in the body file, so that a retry never goes to somebody for whom SES
//! took the message, or refused it for good. Written as one character a recipient, in the order of
//! the manifest: `.` open, `t` taken, `r` refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of one recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing final yet.
    Open,
    /// SES took the message.
    Taken,
    /// It will never be sent: SES refused it for good, or the recipient is suppressed.
    Refused,
}

/// The marks of all recipients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress(Vec<Mark>);

impl Progress {
    /// Nothing final for any of `recipients`.
    pub fn none(recipients: usize) -> Self {
        Self(vec![Mark::Open; recipients])
    }

    /// Notes what became of the recipient at `at`.
    pub fn mark(&mut self, at: usize, mark: Mark) {
        if let Some(place) = self.0.get_mut(at) {
            *place = mark;
        }
    }

    /// Takes over what `other` knows of the recipients that are open here.
    pub fn join(&mut self, other: &Self) {
        for (mark, known) in self.0.iter_mut().zip(&other.0) {
            if *mark == Mark::Open {
                *mark = *known;
            }
        }
    }

    /// Notes the same of all recipients of one call.
    pub fn take(&mut self, places: &[usize], mark: Mark) {
        places.iter().for_each(|at| self.mark(*at, mark));
    }

    /// What became of the recipient at `at`; one that is not there is not sent to.
    pub fn of(&self, at: usize) -> Mark {
        self.0.get(at).copied().unwrap_or(Mark::Refused)
    }

    /// The places of the recipients that are still open.
    pub fn open(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|at| self.of(*at) == Mark::Open).collect()
    }

    /// How many have this mark.
    pub fn count(&self, mark: Mark) -> usize {
        self.0.iter().filter(|is| **is == mark).count()
    }

    /// How many there are.
    pub fn recipients(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing has become of anybody.
    pub fn is_none(&self) -> bool {
        self.0.iter().all(|mark| *mark == Mark::Open)
    }

    /// One character a recipient.
    pub fn marks(&self) -> String {
        let letter = |mark: &Mark| match mark {
            Mark::Open => '.',
            Mark::Taken => 't',
            Mark::Refused => 'r',
        };
        self.0.iter().map(letter).collect()
    }

    /// Reads what [`marks`](Self::marks) wrote.
    pub fn parse(marks: &str) -> Option<Self> {
        let mark = |letter| match letter {
            '.' => Some(Mark::Open),
            't' => Some(Mark::Taken),
            'r' => Some(Mark::Refused),
            _ => None,
        };
        marks.chars().map(mark).collect::<Option<_>>().map(Self)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.marks())
    }
}

impl Serialize for Progress {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.marks())
    }
}

impl<'de> Deserialize<'de> for Progress {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("marks are ., t and r"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_written_as_letters_and_read_back() {
        let mut progress = Progress::none(4);
        assert!(progress.is_none());
        progress.mark(1, Mark::Taken);
        progress.mark(3, Mark::Refused);
        progress.mark(4, Mark::Taken);
        assert_eq!((progress.marks(), progress.to_string()), (".t.r".to_owned(), ".t.r".to_owned()));
        assert_eq!(Progress::parse(".t.r"), Some(progress.clone()));
        assert_eq!(serde_json::to_string(&progress).unwrap(), "\".t.r\"");
        assert_eq!(serde_json::from_str::<Progress>("\".t.r\"").unwrap(), progress);
        for text in ["T", ". ", ".t.r\n", "é", "x"] {
            assert_eq!(Progress::parse(text), None, "{text:?}");
        }
        assert!(serde_json::from_str::<Progress>("\"no\"").is_err());
        assert_eq!(Progress::parse(""), Some(Progress::none(0)));
    }

    #[test]
    fn who_is_open_may_be_sent_to_and_nobody_else() {
        let progress = Progress::parse("..tr.").unwrap();
        assert_eq!(progress.open(), [0, 1, 4]);
        assert_eq!([Mark::Open, Mark::Taken, Mark::Refused].map(|mark| progress.count(mark)), [3, 1, 1]);
        assert_eq!((progress.recipients(), progress.is_none()), (5, false));
        assert_eq!(progress.of(5), Mark::Refused);
        assert!(Progress::none(0).is_none() && Progress::none(0).open().is_empty());
    }

    #[test]
    fn what_another_knows_of_the_open_is_taken_over() {
        for (own, other, joined) in
            [("...", "t.r", "t.r"), ("tr.", "rtt", "trt"), ("..", "...", ".."), ("..", "t", "t.")]
        {
            let mut progress = Progress::parse(own).unwrap();
            progress.join(&Progress::parse(other).unwrap());
            assert_eq!(progress.marks(), joined, "{own} {other}");
        }
    }
}
