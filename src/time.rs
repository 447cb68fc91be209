//! Wall-clock time as the records and the policy see it: whole milliseconds since the Unix epoch.
//!
//! Promises: a [`Timestamp`] is a plain number, so that policy stays arithmetic and tests choose
//! their own time. Deadlines inside a connection use [`std::time::Instant`] instead, which never
//! jumps. Nothing here reads a clock: [`Clock`] is the one door to it, and `adapters/clock` the
//! only real one.
//!
//! What can go wrong: text that is no date is `None`, never a guess.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

/// Hours since the epoch: the cohort in which a message's fate is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Hour(pub u32);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This moment moved on by `by`; far futures saturate.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This moment moved back by `by`; not before the epoch.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The hour this moment lies in.
    pub fn hour(self) -> Hour {
        Hour(u32::try_from(self.0 / 3_600_000).unwrap_or(u32::MAX))
    }

    /// `2026-05-01T09:15:02.418Z` (RFC 3339, UTC, milliseconds).
    pub fn rfc3339(self) -> String {
        self.zoned().map_or_else(String::new, |z| format!("{z:.3}"))
    }

    /// `2026-05-01`, the UTC day.
    pub fn date(self) -> String {
        self.zoned().map_or_else(String::new, |z| z.strftime("%Y-%m-%d").to_string())
    }

    /// `Fri, 01 May 2026 09:15:02 +0000`, as Date and Received fields have it (RFC 5322 3.3).
    pub fn rfc5322(self) -> String {
        self.zoned().map_or_else(String::new, |z| z.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
    }

    /// Reads an RFC 3339 date and time with its zone. `None` for anything else and for moments
    /// before the epoch.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self)
    }

    /// Reads a date and time as mail has it (RFC 5322 3.3). `None` for anything else and for moments
    /// before the epoch.
    pub fn parse_rfc5322(text: &str) -> Option<Self> {
        // Not in the grammar, and yet what some write for GMT.
        let text = text.trim().strip_suffix(" UTC").map_or_else(|| text.to_owned(), |text| format!("{text} GMT"));
        let at = jiff::fmt::rfc2822::parse(&text).ok()?;
        u64::try_from(at.timestamp().as_millisecond()).ok().map(Self)
    }

    fn zoned(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_millisecond(i64::try_from(self.0).ok()?).ok()
    }
}

/// Where the time comes from. `adapters/clock` reads the machine's; tests have their own.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, for records, logs and policy.
    fn now(&self) -> Timestamp;
    /// Monotonic time, for deadlines.
    fn instant(&self) -> Instant;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_spelled_as_the_rfcs_have_them() {
        let at = Timestamp::parse_rfc3339("2026-05-01T09:15:02.418Z").unwrap();
        assert_eq!(at.rfc3339(), "2026-05-01T09:15:02.418Z");
        assert_eq!(at.rfc5322(), "Fri, 01 May 2026 09:15:02 +0000");
        assert_eq!(at.date(), "2026-05-01");
        assert_eq!(Timestamp::parse_rfc3339("2026-05-01T11:15:02.418+02:00"), Some(at));
        for text in [
            "Fri, 01 May 2026 09:15:02 +0000",
            "Fri, 1 May 2026 11:15:02 +0200",
            "Fri, 01 May 2026 09:15:02 GMT",
            "Fri, 01 May 2026 09:15:02 UTC",
        ] {
            assert_eq!(Timestamp::parse_rfc5322(text).map(Timestamp::rfc5322), Some(at.rfc5322()), "{text}");
        }
        assert_eq!(Timestamp::parse_rfc5322("yesterday"), None);
        assert_eq!(Timestamp::parse_rfc3339("1969-01-01T00:00:00Z"), None);
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }
}
