//! Why a message waits, whom that concerns, and how long it is left alone.
//!
//! Promises: every [`Outcome`] that is not final has a cause, and every cause a word that stays the
//! same for ever: it stands in rows, in the log and in what commands print. Waits grow with each
//! failure, carry jitter, and never exceed what [`Waits`] says.
//! Refuses: words it does not know ([`Cause::parse`] gives `None`).
//! What can go wrong: nothing. A random fraction outside `0.0..1.0` is taken as the nearer end.

use std::time::Duration;

use crate::retry::backoff;
use crate::upstream::{Outcome, Paused, Retry};

/// Why a message waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// SES: the maximum sending rate is exceeded.
    Throttled,
    /// SES: the quota of 24 hours is used up.
    DailyQuota,
    /// SES's own trouble.
    Service,
    /// No connection to SES.
    Network,
    /// Our credentials are missing, expired or wrong.
    Credentials,
    /// Our role may not do this.
    AccessDenied,
    /// The configuration set is not there.
    SetMissing,
    /// The SES tenant is not there.
    TenantMissing,
    /// Identity or configuration set is not associated with the SES tenant.
    NotAssociated,
    /// The custom MAIL FROM domain's MX is broken.
    MailFromDomain,
    /// Our own bound on calls or octets in flight was reached.
    Busy,
    /// An error of SES that we have never seen.
    Unrecognised,
    /// SES has paused the account.
    AccountPaused,
    /// SES has shut the account's sending down.
    AccountSuspended,
    /// SES has paused the configuration set.
    SetPaused,
    /// The request was sent, no answer came: SES may have it.
    Unknown,
    /// Its stream hands everything over by the outbox.
    Handoff,
    /// Others of its lane wait before it.
    Backlog,
    /// The rate is spent.
    Rate,
    /// SES had not answered when the client had to hear something.
    Deadline,
    /// We were shutting down.
    Drain,
    /// Its tenant or stream is paused or gone.
    Standing,
    /// Its body file cannot be read.
    Damaged,
}

/// Whom a cause concerns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// Everything we send.
    Account,
    /// What one stream of one tenant sends.
    Lane,
    /// This message.
    Message,
}

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

impl Cause {
    /// All of them: what SES says, what the way to it says, what we say ourselves.
    pub const ALL: [Self; 23] = [
        Self::Throttled,
        Self::DailyQuota,
        Self::Service,
        Self::Network,
        Self::Credentials,
        Self::AccessDenied,
        Self::SetMissing,
        Self::TenantMissing,
        Self::NotAssociated,
        Self::MailFromDomain,
        Self::Busy,
        Self::Unrecognised,
        Self::AccountPaused,
        Self::AccountSuspended,
        Self::SetPaused,
        Self::Unknown,
        Self::Handoff,
        Self::Backlog,
        Self::Rate,
        Self::Deadline,
        Self::Drain,
        Self::Standing,
        Self::Damaged,
    ];

    /// Why a message waits after this. `None` when it does not: SES has it, or never will.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Sent(_) | Outcome::Refused(..) => None,
            Outcome::Retry(retry, _) => Some(match retry {
                Retry::Throttled => Self::Throttled,
                Retry::DailyQuota => Self::DailyQuota,
                Retry::Service => Self::Service,
                Retry::Network => Self::Network,
                Retry::Credentials => Self::Credentials,
                Retry::AccessDenied => Self::AccessDenied,
                Retry::ConfigurationSetMissing => Self::SetMissing,
                Retry::TenantMissing => Self::TenantMissing,
                Retry::NotAssociated => Self::NotAssociated,
                Retry::MailFromDomain => Self::MailFromDomain,
                Retry::Busy => Self::Busy,
                Retry::Unrecognised => Self::Unrecognised,
            }),
            Outcome::Paused(paused, _) => Some(match paused {
                Paused::Account => Self::AccountPaused,
                Paused::AccountSuspended => Self::AccountSuspended,
                Paused::ConfigurationSet => Self::SetPaused,
            }),
            Outcome::Unknown(_) => Some(Self::Unknown),
        }
    }

    /// Its word in rows, log and commands, for ever.
    pub fn word(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::DailyQuota => "daily_quota",
            Self::Service => "service",
            Self::Network => "network",
            Self::Credentials => "credentials",
            Self::AccessDenied => "access_denied",
            Self::SetMissing => "configuration_set_missing",
            Self::TenantMissing => "ses_tenant_missing",
            Self::NotAssociated => "not_associated",
            Self::MailFromDomain => "mail_from_domain",
            Self::Busy => "busy",
            Self::Unrecognised => "unrecognised",
            Self::AccountPaused => "account_paused",
            Self::AccountSuspended => "account_suspended",
            Self::SetPaused => "configuration_set_paused",
            Self::Unknown => "unknown",
            Self::Handoff => "handoff",
            Self::Backlog => "backlog",
            Self::Rate => "rate",
            Self::Deadline => "deadline",
            Self::Drain => "drain",
            Self::Standing => "standing",
            Self::Damaged => "damaged",
        }
    }

    /// The cause with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// Whether it lasts until the operator does something: held, with an alarm.
    pub fn is_operators(self) -> bool {
        match self {
            Self::Credentials
            | Self::AccessDenied
            | Self::SetMissing
            | Self::TenantMissing
            | Self::NotAssociated
            | Self::MailFromDomain
            | Self::AccountPaused
            | Self::AccountSuspended
            | Self::SetPaused
            | Self::Damaged => true,
            Self::Throttled
            | Self::DailyQuota
            | Self::Service
            | Self::Network
            | Self::Busy
            | Self::Unrecognised
            | Self::Unknown
            | Self::Handoff
            | Self::Backlog
            | Self::Rate
            | Self::Deadline
            | Self::Drain
            | Self::Standing => false,
        }
    }

    /// Whom it concerns.
    pub fn scope(self) -> Scope {
        match self {
            Self::Throttled
            | Self::DailyQuota
            | Self::Service
            | Self::Network
            | Self::Credentials
            | Self::AccountPaused
            | Self::AccountSuspended
            | Self::Unknown => Scope::Account,
            // A role's rules may be about one identity, so that even these are the lane's.
            Self::AccessDenied
            | Self::SetMissing
            | Self::TenantMissing
            | Self::NotAssociated
            | Self::MailFromDomain
            | Self::SetPaused
            | Self::Unrecognised => Scope::Lane,
            Self::Busy
            | Self::Handoff
            | Self::Backlog
            | Self::Rate
            | Self::Deadline
            | Self::Drain
            | Self::Standing
            | Self::Damaged => Scope::Message,
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
    use std::collections::HashSet;

    use super::*;
    use crate::upstream::Refused;

    /// Every cause with its word, its scope, and whether it is the operator's.
    const TABLE: [(Cause, &str, Scope, bool); 23] = [
        (Cause::Throttled, "throttled", Scope::Account, false),
        (Cause::DailyQuota, "daily_quota", Scope::Account, false),
        (Cause::Service, "service", Scope::Account, false),
        (Cause::Network, "network", Scope::Account, false),
        (Cause::Credentials, "credentials", Scope::Account, true),
        (Cause::AccessDenied, "access_denied", Scope::Lane, true),
        (Cause::SetMissing, "configuration_set_missing", Scope::Lane, true),
        (Cause::TenantMissing, "ses_tenant_missing", Scope::Lane, true),
        (Cause::NotAssociated, "not_associated", Scope::Lane, true),
        (Cause::MailFromDomain, "mail_from_domain", Scope::Lane, true),
        (Cause::Busy, "busy", Scope::Message, false),
        (Cause::Unrecognised, "unrecognised", Scope::Lane, false),
        (Cause::AccountPaused, "account_paused", Scope::Account, true),
        (Cause::AccountSuspended, "account_suspended", Scope::Account, true),
        (Cause::SetPaused, "configuration_set_paused", Scope::Lane, true),
        (Cause::Unknown, "unknown", Scope::Account, false),
        (Cause::Handoff, "handoff", Scope::Message, false),
        (Cause::Backlog, "backlog", Scope::Message, false),
        (Cause::Rate, "rate", Scope::Message, false),
        (Cause::Deadline, "deadline", Scope::Message, false),
        (Cause::Drain, "drain", Scope::Message, false),
        (Cause::Standing, "standing", Scope::Message, false),
        (Cause::Damaged, "damaged", Scope::Message, true),
    ];

    #[test]
    fn every_cause_has_the_word_that_stands_in_rows() {
        for ((cause, word, scope, operators), listed) in TABLE.into_iter().zip(Cause::ALL) {
            assert_eq!(cause, listed);
            assert_eq!((cause.word(), cause.scope(), cause.is_operators()), (word, scope, operators));
            assert_eq!(Cause::parse(word), Some(cause));
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        let words: HashSet<&str> = Cause::ALL.into_iter().map(Cause::word).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        assert_eq!(Cause::parse("Throttled"), None);
        assert_eq!(Cause::parse(""), None);
    }

    #[test]
    fn every_outcome_that_is_not_final_has_its_cause() {
        let said = String::new;
        let rows = [
            (Outcome::Retry(Retry::Throttled, said()), Some(Cause::Throttled)),
            (Outcome::Retry(Retry::DailyQuota, said()), Some(Cause::DailyQuota)),
            (Outcome::Retry(Retry::Service, said()), Some(Cause::Service)),
            (Outcome::Retry(Retry::Network, said()), Some(Cause::Network)),
            (Outcome::Retry(Retry::Credentials, said()), Some(Cause::Credentials)),
            (Outcome::Retry(Retry::AccessDenied, said()), Some(Cause::AccessDenied)),
            (Outcome::Retry(Retry::ConfigurationSetMissing, said()), Some(Cause::SetMissing)),
            (Outcome::Retry(Retry::TenantMissing, said()), Some(Cause::TenantMissing)),
            (Outcome::Retry(Retry::NotAssociated, said()), Some(Cause::NotAssociated)),
            (Outcome::Retry(Retry::MailFromDomain, said()), Some(Cause::MailFromDomain)),
            (Outcome::Retry(Retry::Busy, said()), Some(Cause::Busy)),
            (Outcome::Retry(Retry::Unrecognised, said()), Some(Cause::Unrecognised)),
            (Outcome::Paused(Paused::Account, said()), Some(Cause::AccountPaused)),
            (Outcome::Paused(Paused::AccountSuspended, said()), Some(Cause::AccountSuspended)),
            (Outcome::Paused(Paused::ConfigurationSet, said()), Some(Cause::SetPaused)),
            (Outcome::Unknown(said()), Some(Cause::Unknown)),
            (Outcome::Refused(Refused::Content, said()), None),
            (Outcome::Refused(Refused::IdentityNotVerified, said()), None),
            (Outcome::Refused(Refused::TooLarge, said()), None),
        ];
        for (outcome, cause) in rows {
            assert_eq!(Cause::of(&outcome), cause, "{outcome:?}");
        }
    }

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
