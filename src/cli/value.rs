//! Values as people type them.

use std::time::Duration;

use clap::builder::PossibleValue;

use crate::mail::{Mailbox, MessageId};
use crate::outbox::Cause;
use crate::policy::tenant::SuppressionReason;
use crate::time::{Clock as _, Timestamp};

/// `30d`, `24h`, `1h30m`; a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write it as 30d, 24h or 1h30m";
    let span: jiff::Span = text.trim().parse().map_err(|_| FORM.to_owned())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| FORM.to_owned())?;
    Duration::try_from(signed).map_err(|_| "is negative".to_owned())
}

/// A moment: `2027-01-01`, `2027-01-01T12:00:00Z`, or from now on as [`duration`] has it.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    Timestamp::parse_rfc3339(text)
        .or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(|| Some(crate::adapters::clock::MachineClock.now().plus(duration(text).ok()?)))
        .ok_or_else(|| "write a time from now as 30d or 24h, or a moment as 2027-01-01 or 2027-01-01T12:00:00Z".into())
}

/// A moment that has passed: `2026-01-01`, `2026-01-01T12:00:00Z`, or so long ago as [`duration`] has it.
pub(super) fn past(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    Timestamp::parse_rfc3339(text)
        .or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(|| Some(crate::adapters::clock::MachineClock.now().minus(duration(text).ok()?)))
        .ok_or_else(|| "write a time back as 30d or 24h, or a moment as 2026-01-01 or 2026-01-01T12:00:00Z".into())
}

/// `name@domain`.
pub(super) fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text.trim().as_bytes()).map_err(|error| error.to_string())
}

/// The id of a message: its 26 characters, in any case.
pub(super) fn message(text: &str) -> Result<MessageId, String> {
    MessageId::parse(text.trim()).ok_or_else(|| "is no message's id, which has 26 characters".into())
}

/// Why a message waits, by its word.
pub(super) fn cause(text: &str) -> Result<Cause, String> {
    Cause::parse(text.trim()).ok_or_else(|| {
        let words: Vec<&str> = Cause::ALL.into_iter().map(Cause::word).collect();
        format!("is no cause; there are {}", words.join(", "))
    })
}

/// A rate from 0 to 1; `5%` is 0.05.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent.trim(), 100.0),
        None => (text.trim(), 1.0),
    };
    let rate = number.parse::<f64>().map_err(|_| "is no number; write 0.05 or 5%".to_owned())? / scale;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err("is not from 0 to 1; 5 % is 0.05 or 5%".into()) }
}

/// Why an address is suppressed, as an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind(pub(super) SuppressionReason);

impl clap::ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(SuppressionReason::Manual),
            Self(SuppressionReason::Bounce),
            Self(SuppressionReason::Complaint),
            Self(SuppressionReason::Soft),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(crate::admin::listfile::word(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_people_write_them() {
        for (text, seconds) in [("30d", 30 * 86_400), ("24h", 86_400), ("1h30m", 5400), ("0s", 0), ("2w", 14 * 86_400)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "soon", "-5m"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_past_is_dates_or_so_long_ago() {
        assert_eq!(past("2026-01-01").unwrap().rfc3339(), "2026-01-01T00:00:00.000Z");
        assert!(past("30d").unwrap() < past("29d").unwrap());
        assert!(past("0s").unwrap() <= crate::adapters::clock::MachineClock.now());
        assert!(past("soon").is_err());
    }

    #[test]
    fn moments_are_dates_or_from_now_on() {
        assert_eq!(moment("2027-01-01").unwrap().rfc3339(), "2027-01-01T00:00:00.000Z");
        assert_eq!(moment("2027-01-01T12:00:00+02:00").unwrap().rfc3339(), "2027-01-01T10:00:00.000Z");
        assert!(moment("30d").unwrap() > moment("29d").unwrap());
        assert!(moment("tomorrow").is_err());
    }

    #[test]
    fn rates_may_be_percent() {
        assert_eq!(rate("5%"), Ok(0.05));
        assert_eq!(rate("0.001"), Ok(0.001));
        assert!(rate("5").is_err());
        assert!(rate("NaN").is_err());
    }
}
