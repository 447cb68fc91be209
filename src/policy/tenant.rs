//! What policy knows of a tenant: its senders, streams, limits and standing.
//!
//! A [`Tenant`] is a snapshot: whoever holds one decides by it, changes come as a new one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mail::{ConfigurationSet, Domain, Mailbox, SesTenant, StreamId, TenantId};
use crate::time::Timestamp;

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
    /// False: standing is logged as `would_…` and nothing is braked.
    pub enforce: bool,
    /// What a paused tenant's or stream's clients hear.
    pub paused_reply: PausedReply,
    /// Set while the tenant is paused.
    pub pause: Option<Pause>,
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
    /// Its own limits.
    pub limits: Limits,
    /// Set while the stream is paused.
    pub pause: Option<Pause>,
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

impl Tenant {
    /// Whether the tenant may send as `mailbox`.
    pub fn owns(&self, mailbox: &Mailbox) -> bool {
        self.senders.iter().any(|pattern| pattern.covers(mailbox))
    }
}

impl SuppressionReason {
    /// All of them, the most telling first: of a bounced address a client learns that nobody is
    /// there, whatever else was said of it.
    pub const ALL: [Self; 3] = [Self::Bounce, Self::Complaint, Self::Manual];

    /// `bounce`, `complaint`, `manual`: in keys, files and arguments, for ever.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Complaint => "complaint",
            Self::Manual => "manual",
        }
    }
}

impl Suppression {
    /// Whether it still stands at `now`.
    pub fn stands(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|until| now < until)
    }
}
