//! Why a message waits, and whom that concerns.
//!
//! Promises: every [`Outcome`] that is not final has a cause, and every cause a word that stays the
//! same for ever: it stands in rows, in the log and in what commands print.
//! Refuses: words it does not know ([`Cause::parse`] gives `None`).

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
    /// As many of its stream's recipients are out unheard of as may be.
    ExposureWindow,
    /// Its stream's or its tenant's recipients of the day are used up.
    DailyCap,
    /// Its stream's step of the warm-up ladder is used up for today.
    Warmup,
    /// Its stream's rate is spent.
    StreamRate,
    /// Its tenant's rate is spent.
    TenantRate,
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

impl Cause {
    /// All of them: what SES says, what the way to it says, what we say ourselves.
    pub const ALL: [Self; 28] = [
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
        Self::ExposureWindow,
        Self::DailyCap,
        Self::Warmup,
        Self::StreamRate,
        Self::TenantRate,
        Self::Deadline,
        Self::Drain,
        Self::Standing,
        Self::Damaged,
    ];

    /// Those of gates, which a stream waits for rather than a message.
    pub const GATES: [Self; 7] = [
        Self::DailyQuota,
        Self::AccountPaused,
        Self::ExposureWindow,
        Self::DailyCap,
        Self::Warmup,
        Self::StreamRate,
        Self::TenantRate,
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
            Self::ExposureWindow => "exposure_window",
            Self::DailyCap => "daily_cap",
            Self::Warmup => "warmup",
            Self::StreamRate => "stream_rate",
            Self::TenantRate => "tenant_rate",
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
            | Self::ExposureWindow
            | Self::DailyCap
            | Self::Warmup
            | Self::StreamRate
            | Self::TenantRate
            | Self::Deadline
            | Self::Drain
            | Self::Standing => false,
        }
    }

    /// Whether SES itself answered for the message that it waits on, or nobody can tell what SES did
    /// with it: then those behind it need not wait for it.
    pub fn is_the_messages_own(self) -> bool {
        match self {
            Self::Service
            | Self::AccessDenied
            | Self::SetMissing
            | Self::TenantMissing
            | Self::NotAssociated
            | Self::MailFromDomain
            | Self::Unrecognised
            | Self::SetPaused
            | Self::Unknown
            | Self::Damaged => true,
            Self::Throttled
            | Self::DailyQuota
            | Self::Network
            | Self::Credentials
            | Self::AccountPaused
            | Self::AccountSuspended
            | Self::Busy
            | Self::Handoff
            | Self::Backlog
            | Self::Rate
            | Self::ExposureWindow
            | Self::DailyCap
            | Self::Warmup
            | Self::StreamRate
            | Self::TenantRate
            | Self::Deadline
            | Self::Drain
            | Self::Standing => false,
        }
    }

    /// Whether it is a limit that Bulkhead itself sets to what a stream or a tenant may send.
    pub fn is_limit(self) -> bool {
        match self {
            Self::ExposureWindow | Self::DailyCap | Self::Warmup | Self::StreamRate | Self::TenantRate => true,
            Self::Throttled
            | Self::DailyQuota
            | Self::Service
            | Self::Network
            | Self::Credentials
            | Self::AccessDenied
            | Self::SetMissing
            | Self::TenantMissing
            | Self::NotAssociated
            | Self::MailFromDomain
            | Self::Busy
            | Self::Unrecognised
            | Self::AccountPaused
            | Self::AccountSuspended
            | Self::SetPaused
            | Self::Unknown
            | Self::Handoff
            | Self::Backlog
            | Self::Rate
            | Self::Deadline
            | Self::Drain
            | Self::Standing
            | Self::Damaged => false,
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
            | Self::ExposureWindow
            | Self::DailyCap
            | Self::Warmup
            | Self::StreamRate
            | Self::TenantRate
            | Self::Deadline
            | Self::Drain
            | Self::Standing
            | Self::Damaged => Scope::Message,
        }
    }
}

impl serde::Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.word())
    }
}

impl<'de> serde::Deserialize<'de> for Cause {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let word = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&word).ok_or_else(|| serde::de::Error::custom(format!("{word:?} is no cause")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::upstream::Refused;

    /// Every cause with its word, its scope, and whether it lasts until the operator does something.
    /// The words stand in rows: one that changes here is a row that cannot be read.
    const TABLE: [(Cause, &str, Scope, bool); 28] = [
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
        (Cause::ExposureWindow, "exposure_window", Scope::Message, false),
        (Cause::DailyCap, "daily_cap", Scope::Message, false),
        (Cause::Warmup, "warmup", Scope::Message, false),
        (Cause::StreamRate, "stream_rate", Scope::Message, false),
        (Cause::TenantRate, "tenant_rate", Scope::Message, false),
        (Cause::Deadline, "deadline", Scope::Message, false),
        (Cause::Drain, "drain", Scope::Message, false),
        (Cause::Standing, "standing", Scope::Message, false),
        (Cause::Damaged, "damaged", Scope::Message, true),
    ];

    #[test]
    fn every_cause_has_its_word_its_scope_and_its_reader() {
        assert_eq!(TABLE.map(|(cause, ..)| cause), Cause::ALL);
        for (cause, word, scope, operators) in TABLE {
            assert_eq!((cause.word(), cause.scope(), cause.is_operators()), (word, scope, operators));
            assert_eq!(Cause::parse(word), Some(cause));
            let json = serde_json::to_string(&cause).unwrap();
            assert_eq!(json, format!("{word:?}"));
            assert_eq!(serde_json::from_str::<Cause>(&json).unwrap(), cause);
            assert!(word.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_'));
        }
        assert_eq!(Cause::ALL.map(Cause::word).into_iter().collect::<HashSet<_>>().len(), Cause::ALL.len());
        for word in ["", "Throttled", "throttled ", "sent"] {
            assert_eq!(Cause::parse(word), None);
            assert!(serde_json::from_str::<Cause>(&format!("{word:?}")).is_err());
        }
    }

    #[test]
    fn every_outcome_that_is_not_final_has_its_cause() {
        let said = String::new;
        for (outcome, cause) in [
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
        ] {
            assert_eq!(Cause::of(&outcome), cause, "{outcome:?}");
        }
    }
}
