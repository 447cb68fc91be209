//! The account's sending rate and its quota of 24 hours, both in recipients.
//!
//! The rate is a bucket of one second that may go into debt, as SES's does: at 1 a second a call of
//! five recipients passes, and for five seconds nothing after it (AWS's own account of it).

use std::collections::VecDeque;
use std::time::Instant;

use crate::time::Timestamp;

const DAY_MINUTES: u64 = 24 * 60;

/// Which bound was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exceeded {
    Rate,
    Daily,
}

#[derive(Debug)]
pub(super) struct Quota {
    rate: f64,
    tokens: f64,
    filled: Option<Instant>,
    daily: Option<u64>,
    /// Minute of the epoch and recipients in it, oldest first: at most a day of them.
    sent: VecDeque<(u64, u64)>,
}

impl Quota {
    pub(super) fn new(rate: f64, daily: Option<u64>) -> Self {
        Self { rate, tokens: rate.max(1.0), filled: None, daily, sent: VecDeque::new() }
    }

    /// Takes a call of `recipients`, of whom `counted` are no simulator addresses.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        at: Timestamp,
        recipients: usize,
        counted: usize,
    ) -> Result<(), Exceeded> {
        let passed = self.filled.map_or(0.0, |filled| now.saturating_duration_since(filled).as_secs_f64());
        self.filled = Some(now);
        self.tokens = (self.tokens + passed * self.rate).min(self.rate.max(1.0));
        if self.tokens < 1.0 {
            return Err(Exceeded::Rate);
        }
        let counted = u64::try_from(counted).unwrap_or(u64::MAX);
        if self.daily.is_some_and(|most| self.last_24_hours(at).saturating_add(counted) > most) {
            return Err(Exceeded::Daily);
        }
        self.tokens -= f64::from(u32::try_from(recipients).unwrap_or(u32::MAX));
        let minute = at.millis() / 60_000;
        match self.sent.back_mut() {
            Some((last, sum)) if *last == minute => *sum = sum.saturating_add(counted),
            Some(_) | None => self.sent.push_back((minute, counted)),
        }
        Ok(())
    }

    pub(super) fn last_24_hours(&mut self, at: Timestamp) -> u64 {
        let first = (at.millis() / 60_000).saturating_sub(DAY_MINUTES);
        while self.sent.front().is_some_and(|(minute, _)| *minute <= first) {
            self.sent.pop_front();
        }
        self.sent.iter().map(|(_, sum)| sum).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_call_above_the_rate_passes_and_its_debt_is_paid_before_the_next() {
        let mut quota = Quota::new(1.0, None);
        let (start, at) = (Instant::now(), Timestamp::from_millis(0));
        assert_eq!(quota.admit(start, at, 5, 5), Ok(()));
        for millis in [0, 1000, 4900] {
            assert_eq!(quota.admit(start + Duration::from_millis(millis), at, 1, 1), Err(Exceeded::Rate), "{millis}");
        }
        assert_eq!(quota.admit(start + Duration::from_millis(5001), at, 1, 1), Ok(()));
    }

    #[test]
    fn the_daily_quota_frees_itself_after_a_day_and_simulator_mail_does_not_use_it() {
        let mut quota = Quota::new(1e9, Some(10));
        let now = Instant::now();
        let at = |hours: u64| Timestamp::from_millis(1_800_000_000_000 + hours * 3_600_000);
        assert_eq!(quota.admit(now, at(0), 9, 9), Ok(()));
        assert_eq!(quota.admit(now, at(1), 2, 2), Err(Exceeded::Daily));
        assert_eq!(quota.admit(now, at(1), 2, 0), Ok(()));
        assert_eq!(quota.admit(now, at(1), 1, 1), Ok(()));
        assert_eq!(quota.last_24_hours(at(1)), 10);
        assert_eq!(quota.admit(now, at(23), 1, 1), Err(Exceeded::Daily));
        assert_eq!(quota.admit(now, at(24), 9, 9), Ok(()));
        assert_eq!(quota.last_24_hours(at(24)), 10);
    }
}
