//! What policy knows of a tenant: its senders, streams, limits and standing.
//!
//! A [`Tenant`] is a snapshot: whoever holds one decides by it, changes come as a new one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mail::{ConfigurationSet, Domain, Mailbox, SesTenant, StreamId, TenantId};
use crate::policy::reputation::{Brake, Step};
use crate::time::{Hour, Timestamp};

/// A customer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name, also an SES tag.
    pub id: TenantId,
    /// Who is told about its standing.
    pub contact: Option<Mailbox>,
    /// What it may send as.
    pub senders: Vec<SenderPattern>,
    /// SES's native `TenantName`.
    pub ses_tenant: Option<SesTenant>,
    /// The stream of mail that names none.
    pub default_stream: StreamId,
    /// Its own limits, where they differ from its streams' kinds.
    pub limits: Limits,
    /// Its share of sending beside other tenants while held mail waits, 1 to [`Self::LARGEST_WEIGHT`].
    pub weight: u32,
    /// False: standing is logged as `would_…` and nothing is braked.
    pub enforce: bool,
    /// What a paused tenant's or stream's clients hear.
    pub paused_reply: PausedReply,
    /// Recipients a second, over all its streams.
    #[serde(default)]
    pub rate_per_second: Option<f64>,
    /// Recipients a day (UTC), over all its streams.
    #[serde(default)]
    pub daily_recipients: Option<u64>,
    /// Set while the tenant is paused by hand.
    pub pause: Option<Pause>,
    /// Set while SES has its SES tenant's sending disabled.
    #[serde(skip)]
    pub ses_pause: Option<Pause>,
    /// What its sum has come to.
    #[serde(skip)]
    pub standing: Standing,
    /// Its streams; one at least, `default_stream` among them.
    pub streams: BTreeMap<StreamId, Stream>,
}

/// One kind of mail of a tenant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// Its name, also an SES tag.
    pub id: StreamId,
    /// Sets default limits and priority.
    pub kind: StreamKind,
    /// SES's configuration set for it. Never absent: no message leaves without isolation.
    pub configuration_set: ConfigurationSet,
    /// Which suppressions bind.
    pub suppress_on: Vec<SuppressionReason>,
    /// Recipients a second.
    pub rate_per_second: Option<f64>,
    /// Recipients a day.
    pub daily_recipients: Option<u64>,
    /// Its warm-up ladder.
    pub warmup: Option<Warmup>,
    /// How many recipients go into one SendEmail call.
    pub fan_out: FanOut,
    /// Whether SES is asked before the outbox.
    pub handoff: Handoff,
    /// Hours after which a held message expires; `None`: as its kind has it.
    pub max_age_hours: Option<u32>,
    /// Whether a message that a client sends again is answered as the first was, and not sent again.
    pub dedupe: bool,
    /// Whether delivery status notifications (RFC 3464) go to the reverse-path of mail that expires,
    /// or that is refused after its 250.
    pub dsn: bool,
    /// False: its standing is logged as `would_…` and nothing is braked; `None`: as its tenant has it.
    #[serde(default)]
    pub enforce: Option<bool>,
    /// Whether its recipients whose outcome is not known yet are bounded by the exposure window.
    #[serde(default = "yes")]
    pub exposure: bool,
    /// Its own limits.
    pub limits: Limits,
    /// Set while the stream is paused by hand.
    pub pause: Option<Pause>,
    /// What its mail has come to.
    #[serde(skip)]
    pub standing: Standing,
}

/// What the judge has come to, of a tenant's sum or of one stream. State, not declaration: no file
/// brings or takes it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// What restrains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brake: Option<Brake>,
    /// When it was resumed last: mail sent before counts no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Timestamp>,
    /// When its first mail was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// Since when it has been good without a break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good_since: Option<Timestamp>,
}

/// Mail that is counted together: of one hour, and where a resume falls into it, from then on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cohort {
    /// The hour it was sent in.
    pub hour: Hour,
    /// The second of the hour at which the window began anew; 0: it did not.
    pub from_second: u16,
}

/// A domain with its subdomains, or one address, that a tenant may send as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderPattern {
    /// `acme.example` and all below it.
    Domain(Domain),
    /// `billing@acme.io`.
    Address(Mailbox),
}

/// What a stream is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// Password resets, receipts: somebody waits for each.
    Transactional,
    /// Notices to many that were asked for.
    Bulk,
    /// Campaigns.
    Marketing,
}

/// Why an address is suppressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuppressionReason {
    /// A permanent bounce.
    Bounce,
    /// Somebody called our mail spam.
    Complaint,
    /// Put there by hand or import.
    Manual,
    /// Soft bounces in a row (`policy::run`): for a while.
    Soft,
}

/// How a message's recipients are spread over SendEmail calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOut {
    /// One call a recipient up to 1 MiB of message, up to 50 a call above.
    #[default]
    Single,
    /// Up to 50 a call.
    Batch,
}

/// Who has a message first: SES or the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handoff {
    /// SES first, the outbox where it cannot.
    #[default]
    Through,
    /// The outbox always, the fastest 250.
    Queue,
}

/// What the clients of a paused tenant or stream hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PausedReply {
    /// 451 4.7.1.
    #[default]
    Defer,
    /// 550 5.7.1.
    Reject,
}

/// A pause: when, by whom, why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub at: Timestamp,
    /// `cli:root`, `api:…`, `bulkhead`.
    pub actor: String,
    /// In the words of whoever paused.
    pub reason: String,
}

/// Rates from 0 to 1 at which standing changes; `None` means the kind's default.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bounce rate of the first warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_bounce: Option<f64>,
    /// Complaint rate of the first warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_complaint: Option<f64>,
    /// Bounce rate of the pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_bounce: Option<f64>,
    /// Complaint rate of the pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_complaint: Option<f64>,
}

/// A warm-up ladder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    /// `2026-12-01`, UTC.
    pub start: String,
    /// Recipients on the first day.
    pub first_day: u64,
    /// Steps.
    pub days: u32,
    /// Recipients a day at the end.
    pub target: u64,
}

/// An address on a tenant's suppression list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suppression {
    /// Why.
    pub reason: SuppressionReason,
    /// What brought it: an SES feedback id, `import FILE`, `cli`.
    pub origin: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when; `None`: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Who did it.
    pub actor: String,
}

impl SenderPattern {
    /// Reads `acme.example` or `billing@acme.io`.
    pub fn parse(text: &str) -> Result<Self, crate::mail::mailbox::MailboxError> {
        if text.contains('@') {
            Mailbox::parse(text.as_bytes()).map(Self::Address)
        } else {
            Domain::parse(text).map(Self::Domain)
        }
    }

    /// Whether `mailbox` is covered.
    pub fn covers(&self, mailbox: &Mailbox) -> bool {
        match self {
            Self::Domain(domain) => mailbox.domain().is_within(domain),
            Self::Address(address) => address.folded() == mailbox.folded(),
        }
    }
}

impl std::fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Serialize for SenderPattern {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SenderPattern {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(|error| serde::de::Error::custom(format!("{text:?} {error}")))
    }
}

impl Cohort {
    /// A whole hour.
    pub const fn of(hour: Hour) -> Self {
        Self { hour, from_second: 0 }
    }
}

impl Standing {
    /// What restrains it, where that is in force and goes as far as `step`.
    pub fn braked(&self, step: Step) -> Option<&Brake> {
        self.brake.as_ref().filter(|brake| brake.is_in_force() && brake.step >= step)
    }

    /// The same where it is only told of.
    pub fn would_brake(&self, step: Step) -> Option<&Brake> {
        self.brake.as_ref().filter(|brake| brake.shadow && brake.step >= step)
    }

    /// The cohort of mail sent at `sent`.
    pub fn cohort(&self, sent: Timestamp) -> Cohort {
        let hour = sent.hour();
        let resumed = self.resumed.filter(|resumed| resumed.hour() == hour && sent >= *resumed);
        // The 0 is taken, and one second is no matter.
        let from_second = resumed.map_or(0, |at| u16::try_from(at.millis() / 1000 % 3600).unwrap_or(0).max(1));
        Cohort { hour, from_second }
    }

    /// Whether a cohort counts still: it began with the last resume or after it.
    pub fn counts(&self, cohort: Cohort) -> bool {
        let Some(resumed) = self.resumed else { return true };
        cohort.hour > resumed.hour() || cohort == self.cohort(resumed)
    }
}

impl Stream {
    /// A stream of which a tenants file says no more than this: the file's defaults.
    pub fn new(id: StreamId, kind: StreamKind, configuration_set: ConfigurationSet) -> Self {
        Self {
            id,
            kind,
            configuration_set,
            suppress_on: kind.suppresses(),
            rate_per_second: None,
            daily_recipients: None,
            warmup: None,
            fan_out: FanOut::default(),
            handoff: Handoff::default(),
            max_age_hours: None,
            dedupe: true,
            dsn: false,
            enforce: None,
            exposure: true,
            limits: Limits::default(),
            pause: None,
            standing: Standing::default(),
        }
    }
}

impl Tenant {
    /// The weight of a tenant that has none of its own.
    pub const WEIGHT: u32 = 1;
    /// The largest weight: one tenant has at most this many times another's share.
    pub const LARGEST_WEIGHT: u32 = 100;

    /// A tenant of which a tenants file says no more than this: the file's defaults. Its senders
    /// and streams, which no file leaves out, are still to come.
    pub fn new(id: TenantId, default_stream: StreamId) -> Self {
        Self {
            id,
            contact: None,
            senders: Vec::new(),
            ses_tenant: None,
            default_stream,
            limits: Limits::default(),
            weight: Self::WEIGHT,
            enforce: true,
            paused_reply: PausedReply::default(),
            rate_per_second: None,
            daily_recipients: None,
            pause: None,
            ses_pause: None,
            standing: Standing::default(),
            streams: BTreeMap::new(),
        }
    }

    /// The same tenant without its state: as a file would declare it.
    pub fn declared(mut self) -> Self {
        (self.pause, self.ses_pause, self.standing) = (None, None, Standing::default());
        for stream in self.streams.values_mut() {
            (stream.pause, stream.standing) = (None, Standing::default());
        }
        self
    }

    /// Whether the tenant may send as `mailbox`.
    pub fn owns(&self, mailbox: &Mailbox) -> bool {
        self.senders.iter().any(|pattern| pattern.covers(mailbox))
    }
}

fn yes() -> bool {
    true
}

impl StreamKind {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Transactional, Self::Bulk, Self::Marketing];

    /// `transactional`, `bulk`, `marketing`: in files, records and what commands show.
    pub fn word(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Bulk => "bulk",
            Self::Marketing => "marketing",
        }
    }

    /// Which suppressions bind a stream of this kind where the tenants file does not say.
    pub fn suppresses(self) -> Vec<SuppressionReason> {
        match self {
            Self::Transactional => vec![SuppressionReason::Bounce],
            Self::Bulk | Self::Marketing => vec![SuppressionReason::Bounce, SuppressionReason::Complaint],
        }
    }
}

impl Handoff {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Through, Self::Queue];

    /// `through`, `queue`: in files, records and what commands show.
    pub fn word(self) -> &'static str {
        match self {
            Self::Through => "through",
            Self::Queue => "queue",
        }
    }
}

impl SuppressionReason {
    /// All of them, the most telling first: of a bounced address a client learns that nobody is
    /// there, whatever else was said of it; what passes by itself comes last.
    pub const ALL: [Self; 4] = [Self::Bounce, Self::Complaint, Self::Manual, Self::Soft];

    /// `bounce`, `complaint`, `manual`, `soft`: in keys, files and arguments, for ever.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Complaint => "complaint",
            Self::Manual => "manual",
            Self::Soft => "soft",
        }
    }
}

impl Suppression {
    /// Whether it still stands at `now`.
    pub fn stands(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_records_have() {
        let written = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        for kind in StreamKind::ALL {
            assert_eq!(written(&serde_json::to_value(kind).unwrap()), kind.word());
        }
        for handoff in Handoff::ALL {
            assert_eq!(written(&serde_json::to_value(handoff).unwrap()), handoff.word());
        }
        for reason in SuppressionReason::ALL {
            assert_eq!(written(&serde_json::to_value(reason).unwrap()), reason.word());
        }
        assert_eq!(Handoff::default(), Handoff::Through);
    }
}
