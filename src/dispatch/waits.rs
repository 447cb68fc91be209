//! How long is waited, for each cause: a message before its next try, a breaker before its probe.
//!
//! Promises: waits grow with each failure, carry jitter, and never exceed what [`Waits`] says.
//! What can go wrong: nothing. A random fraction outside `0.0..1.0` is taken as the nearer end.

use std::time::Duration;

use crate::outbox::Cause;
use crate::retry::backoff;

/// How long is waited. Where there are two, the wait begins with the first (of which the upper half
/// is jitter), doubles, and ends at the second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waits {
    /// After SES said that the rate is exceeded.
    pub throttle_first: Duration,
    /// The longest of these.
    pub throttle_most: Duration,
    /// After SES said that the daily quota is used up. It is one of 24 rolling hours and frees itself
    /// bit by bit; the SES Developer Guide says to wait up to ten minutes.
    pub quota: Duration,
    /// After what time may mend: SES's trouble, the network's, errors we do not know.
    pub retry_first: Duration,
    /// The longest of these.
    pub retry_most: Duration,
    /// The longest that a breaker stays open for SES's or the network's trouble. Shorter than a
    /// message's own wait: one probe is cheap, nobody tells us when it is over, and all mail waits.
    pub outage_most: Duration,
    /// After what the operator has to mend.
    pub operator_first: Duration,
    /// The longest of these.
    pub operator_most: Duration,
    /// The least after a call whose fate is unknown: SES's event may tell it meanwhile.
    pub unknown: Duration,
}

/// How a wait grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Growth {
    /// Something else says when.
    Zero,
    Fixed(Duration),
    Doubling {
        first: Duration,
        most: Duration,
        least: Duration,
    },
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            throttle_first: Duration::from_secs(1),
            throttle_most: Duration::from_secs(60),
            quota: Duration::from_secs(10 * 60),
            retry_first: Duration::from_secs(30),
            retry_most: Duration::from_secs(30 * 60),
            outage_most: Duration::from_secs(2 * 60),
            operator_first: Duration::from_secs(60),
            operator_most: Duration::from_secs(15 * 60),
            unknown: Duration::from_secs(60),
        }
    }
}

impl Waits {
    /// How long a message waits before it is offered again, after `attempt` failures of its own.
    /// Zero where something else says when (a breaker, the rate, the lane's standing): the message
    /// keeps its place in the lane's order.
    pub fn of_message(&self, cause: Cause, attempt: u32, fraction: f64) -> Duration {
        self.of_messages(cause).after(attempt, fraction)
    }

    /// How long a breaker stays open that opened for the time number `trips` without an answer
    /// between. Zero for causes that open none.
    pub fn of_breaker(&self, cause: Cause, trips: u32, fraction: f64) -> Duration {
        self.of_breakers(cause).after(trips, fraction)
    }

    fn of_messages(&self, cause: Cause) -> Growth {
        match cause {
            Cause::Throttled
            | Cause::DailyQuota
            | Cause::Credentials
            | Cause::AccountPaused
            | Cause::AccountSuspended
            | Cause::Busy
            | Cause::Handoff
            | Cause::Backlog
            | Cause::Rate
            | Cause::ExposureWindow
            | Cause::DailyCap
            | Cause::Warmup
            | Cause::StreamRate
            | Cause::TenantRate
            // No failure of the message's: it goes in its order when we are up again.
            | Cause::Drain
            | Cause::Standing => Growth::Zero,
            Cause::Service | Cause::Network | Cause::Unrecognised | Cause::Deadline => self.retries(),
            Cause::Unknown => self.unknowns(self.retry_most),
            Cause::AccessDenied
            | Cause::SetMissing
            | Cause::TenantMissing
            | Cause::NotAssociated
            | Cause::MailFromDomain
            | Cause::SetPaused
            | Cause::Damaged => self.operators(),
        }
    }

    fn of_breakers(&self, cause: Cause) -> Growth {
        match cause {
            Cause::Throttled => {
                Growth::Doubling { first: self.throttle_first, most: self.throttle_most, least: Duration::ZERO }
            }
            Cause::DailyQuota => Growth::Fixed(self.quota),
            Cause::Service | Cause::Network => {
                Growth::Doubling { first: self.retry_first, most: self.outage_most, least: Duration::ZERO }
            }
            Cause::Unknown => self.unknowns(self.outage_most),
            Cause::Unrecognised => self.retries(),
            Cause::Credentials
            | Cause::AccessDenied
            | Cause::SetMissing
            | Cause::TenantMissing
            | Cause::NotAssociated
            | Cause::MailFromDomain
            | Cause::AccountPaused
            | Cause::AccountSuspended
            | Cause::SetPaused => self.operators(),
            Cause::Busy
            | Cause::Handoff
            | Cause::Backlog
            | Cause::Rate
            | Cause::ExposureWindow
            | Cause::DailyCap
            | Cause::Warmup
            | Cause::StreamRate
            | Cause::TenantRate
            | Cause::Deadline
            | Cause::Drain
            | Cause::Standing
            | Cause::Damaged => Growth::Zero,
        }
    }

    fn retries(&self) -> Growth {
        Growth::Doubling { first: self.retry_first, most: self.retry_most, least: Duration::ZERO }
    }

    fn operators(&self) -> Growth {
        Growth::Doubling { first: self.operator_first, most: self.operator_most, least: Duration::ZERO }
    }

    /// Begins at twice the least, so that the jitter of the first wait lies above it.
    fn unknowns(&self, most: Duration) -> Growth {
        Growth::Doubling { first: self.unknown.saturating_mul(2), most, least: self.unknown }
    }
}

impl Growth {
    /// The wait after failure number `times`; the first is 1.
    fn after(self, times: u32, fraction: f64) -> Duration {
        match self {
            Self::Zero => Duration::ZERO,
            Self::Fixed(wait) => wait,
            Self::Doubling { first, most, least } => backoff(times.saturating_sub(1), first, most, fraction).max(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::cause::Scope;

    /// Least and most of the first wait and of the hundredth, in seconds.
    type Span = [u64; 4];

    fn span(wait: impl Fn(u32, f64) -> Duration) -> Span {
        [wait(1, 0.0), wait(1, 1.0), wait(100, 0.0), wait(100, 1.0)].map(|wait| wait.as_secs())
    }

    #[test]
    fn a_message_waits_by_its_cause() {
        const RETRY: Span = [15, 30, 900, 1800];
        const OPERATOR: Span = [30, 60, 450, 900];
        let waits = Waits::default();
        for cause in Cause::ALL {
            let expected = match cause {
                Cause::Service | Cause::Network | Cause::Unrecognised | Cause::Deadline => RETRY,
                Cause::Unknown => [60, 120, 900, 1800],
                Cause::Damaged => OPERATOR,
                cause if cause.is_operators() && cause.scope() == Scope::Lane => OPERATOR,
                _ => [0; 4],
            };
            assert_eq!(span(|n, f| waits.of_message(cause, n, f)), expected, "{cause:?}");
        }
    }

    #[test]
    fn a_breaker_stays_open_by_its_cause() {
        const OPERATOR: Span = [30, 60, 450, 900];
        let waits = Waits::default();
        for cause in Cause::ALL {
            let expected = match cause {
                Cause::Throttled => [0, 1, 30, 60],
                Cause::DailyQuota => [600; 4],
                Cause::Service | Cause::Network => [15, 30, 60, 120],
                Cause::Unknown => [60, 120, 60, 120],
                Cause::Unrecognised => [15, 30, 900, 1800],
                cause if cause.scope() == Scope::Message => [0; 4],
                _ => OPERATOR,
            };
            assert_eq!(span(|n, f| waits.of_breaker(cause, n, f)), expected, "{cause:?}");
        }
        let doubling: Vec<u128> = (0..8).map(|n| waits.of_breaker(Cause::Throttled, n, 1.0).as_millis()).collect();
        assert_eq!(doubling, [1000, 1000, 2000, 4000, 8000, 16000, 32000, 60000]);
    }

    #[test]
    fn an_unknown_fate_is_never_tried_again_at_once() {
        let short = Waits { retry_most: Duration::from_secs(5), ..Waits::default() };
        for attempt in [0, 1, 2, 50, u32::MAX] {
            for fraction in [-1.0, 0.0, 0.5, 1.0, f64::NAN] {
                assert!(short.of_message(Cause::Unknown, attempt, fraction) >= short.unknown);
                assert!(short.of_breaker(Cause::Unknown, attempt, fraction) >= short.unknown);
            }
        }
    }

    /// What opens a breaker at all keeps it open for a while.
    #[test]
    fn no_breaker_opens_for_no_time() {
        for cause in Cause::ALL {
            let opens = cause.scope() != Scope::Message;
            assert_eq!(Waits::default().of_breaker(cause, 1, 0.0) > Duration::ZERO, opens, "{cause:?}");
        }
    }
}
