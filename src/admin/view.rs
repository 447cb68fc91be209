//! What commands show: the JSON of `--json`, and what tables are made of.
//!
//! Promises: moments are RFC 3339 in UTC; members are added in later versions, never renamed; no
//! hash of a secret is in any of them, and a secret only in [`Issued`].

use serde::{Deserialize, Serialize};

use crate::mail::{MessageId, StreamId, TenantId, Username};
use crate::outbox::{Entry, Manifest, Mark, Progress, Slot, Wait};
use crate::policy::tenant::{
    FanOut, Handoff, Limits, Pause, PausedReply, Stream, StreamKind, Suppression, SuppressionReason, Tenant, Warmup,
};
use crate::store::audit::{self, Place};
use crate::store::counters::Counts;
use crate::store::credential::{Credential, Origin, SecretHash};
use crate::time::Timestamp;

/// How the relay is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Bulkhead's version.
    pub version: String,
    /// Whether a relay runs; false when the command opened the store itself.
    pub running: bool,
    /// Process id of the relay.
    pub pid: Option<u32>,
    /// Since when it runs.
    pub started: Option<String>,
    /// Whether it takes mail now.
    pub ready: bool,
    /// Why it does not.
    pub reasons: Vec<String>,
    /// What it listens on.
    pub listeners: Vec<ListenerView>,
    /// Where health and metrics are.
    pub admin: Option<String>,
    /// How many tenants there are.
    pub tenants: usize,
    /// How many credentials there are.
    pub credentials: usize,
}

/// One listener.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListenerView {
    /// Address and port it is bound to.
    pub address: String,
    /// `starttls`, `implicit` or `none`.
    pub tls: String,
    /// Whether it takes connections from balancers with a PROXY header alone.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// A tenant in a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its name.
    pub id: TenantId,
    /// What it may send as.
    pub senders: Vec<String>,
    /// Names of its streams.
    pub streams: Vec<StreamId>,
    /// How many credentials it has.
    pub credentials: usize,
    /// Whether it is paused as a whole.
    pub paused: bool,
    /// Which of its streams are paused by themselves.
    pub paused_streams: Vec<StreamId>,
}

/// A tenant in full.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TenantView {
    /// Its name.
    pub id: TenantId,
    /// Who is told about its standing.
    pub contact: Option<String>,
    /// What it may send as.
    pub senders: Vec<String>,
    /// SES's `TenantName`.
    pub ses_tenant: Option<String>,
    /// The stream of mail that names none.
    pub default_stream: StreamId,
    /// Whether standing is enforced.
    pub enforce: bool,
    /// What its clients hear while it is paused.
    pub paused_reply: PausedReply,
    /// Its limits, where they are its own.
    pub limits: Limits,
    /// Its share of sending while held mail waits; 0 in the answer of a relay that has no outbox.
    #[serde(default)]
    pub weight: u32,
    /// Set while it is paused.
    pub pause: Option<PauseView>,
    /// Its streams by name.
    pub streams: Vec<StreamView>,
    /// Its credentials by username.
    pub credentials: Vec<CredentialView>,
}

/// A stream in full.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamView {
    /// Its name.
    pub id: StreamId,
    /// What it is for.
    pub kind: StreamKind,
    /// SES's configuration set.
    pub configuration_set: String,
    /// Which suppressions bind.
    pub suppress_on: Vec<SuppressionReason>,
    /// Recipients a second.
    pub rate_per_second: Option<f64>,
    /// Recipients a day.
    pub daily_recipients: Option<u64>,
    /// Its warm-up ladder.
    pub warmup: Option<Warmup>,
    /// How recipients are spread over calls.
    pub fan_out: FanOut,
    /// Whether SES is asked before the outbox.
    #[serde(default)]
    pub handoff: Handoff,
    /// Hours after which held mail expires, where they are its own.
    #[serde(default)]
    pub max_age_hours: Option<u32>,
    /// Whether a message that is sent again is answered as the first was.
    #[serde(default)]
    pub dedupe: bool,
    /// Whether delivery status notifications are sent.
    #[serde(default)]
    pub dsn: bool,
    /// Its limits, where they are its own.
    pub limits: Limits,
    /// Set while it is paused.
    pub pause: Option<PauseView>,
    /// Recipients of mail sent in the last 24 hours, by fate.
    pub last_day: Counts,
    /// Recipients of mail sent in the last 7 days, by fate.
    pub last_week: Counts,
}

/// A pause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PauseView {
    /// Since when.
    pub at: String,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A credential without its secrets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CredentialView {
    /// What the client says.
    pub username: Username,
    /// Whose it is.
    pub tenant: TenantId,
    /// The stream it is bound to.
    pub stream: Option<StreamId>,
    /// Where it came from.
    pub origin: Origin,
    /// Networks it may be used from; none: any.
    pub from_ip: Vec<String>,
    /// When it ends.
    pub expires: Option<String>,
    /// Whether it has ended.
    pub expired: bool,
    /// When it was made.
    pub created: String,
    /// By whom.
    pub actor: String,
    /// Its secrets that live, newest first.
    pub secrets: Vec<SecretView>,
    /// Set while it is on hold.
    #[serde(default)]
    pub hold: Option<PauseView>,
}

/// That there is a secret, not what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SecretView {
    /// `sha256` or `argon2id`.
    pub kind: String,
    /// When it ends.
    pub expires: Option<String>,
}

/// A secret on its one way to whoever asked for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShownOnce(pub String);

/// A credential that was made or rotated, with its new secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// The credential.
    pub credential: CredentialView,
    /// The secret, which is shown this once.
    pub secret: ShownOnce,
    /// After a rotation: when the old secret ends.
    pub old_secret_ends: Option<String>,
    /// What undoes the change, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A credential that was revoked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// The credential as it was.
    #[serde(flatten)]
    pub credential: CredentialView,
    /// What undoes the change, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// An entry of a suppression list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SuppressionView {
    /// The address, in lower case.
    pub address: String,
    /// Why.
    pub reason: SuppressionReason,
    /// What brought it.
    pub origin: String,
    /// Since when.
    pub at: String,
    /// Until when.
    pub expires: Option<String>,
    /// Who did it.
    pub actor: String,
    /// Whether it stands now.
    pub stands: bool,
}

/// What became of the entries of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unsuppressed {
    /// The entries that are gone, as they were.
    pub removed: Vec<SuppressionView>,
    /// The complaint that stays, because it needs `--force`.
    pub stays: Option<SuppressionView>,
}

/// A held message in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldRow {
    /// Our id.
    pub message: MessageId,
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream; none: a report of the relay's own about the tenant's mail.
    pub stream: Option<StreamId>,
    /// The reverse-path.
    pub from: String,
    /// The first recipient.
    pub to: String,
    /// How many recipients, by what became of them.
    pub recipients: RecipientCounts,
    /// Octets of the message.
    pub bytes: u64,
    /// When its data had come in.
    pub created: String,
    /// When it is given up.
    pub expires: String,
    /// Attempts begun, the one before it was held not counted.
    pub attempts: u32,
    /// Calls to SES whose outcome never came to be known.
    pub unknown: u32,
    /// The word of what it waits for.
    pub cause: String,
    /// SES's words.
    pub words: String,
    /// How it stands.
    pub state: HeldState,
    /// When its turn may come again, where that is later.
    pub next: Option<String>,
    /// What its stream waits for, or all of SES, whatever it waits for by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<BehindView>,
    /// Why nothing but its place is known: its row cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What keeps all mail of a stream: a breaker, a pause, a hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BehindView {
    /// The breaker's cause, or why it is held.
    pub reason: String,
    /// When it is looked at again, where that is known.
    pub until: Option<String>,
}

/// Recipients by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RecipientCounts {
    /// In all.
    pub all: usize,
    /// Nothing final yet.
    pub open: usize,
    /// SES took the message for them.
    pub taken: usize,
    /// It will never be sent to them.
    pub refused: usize,
}

/// How a held message stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// It waits for its turn.
    Ready,
    /// It waits for a moment.
    Waiting,
    /// It is being sent.
    Sending,
    /// It waits for what the operator must mend; it is tried now and then.
    Held,
}

/// A page of held messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldPage {
    /// The messages.
    pub rows: Vec<HeldRow>,
    /// What to go on after, if there may be more.
    pub next: Option<MessageId>,
}

/// A held message in full, but for its octets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldView {
    /// What its row says.
    #[serde(flatten)]
    pub row: HeldRow,
    /// The connection it came by.
    pub session: Option<String>,
    /// Who sent it.
    pub credential: Option<Username>,
    /// The tags it leaves with.
    pub tags: Vec<TagView>,
    /// Its recipients, the first [`PAGE`](super::command::PAGE).
    pub addresses: Vec<AddressView>,
    /// Why its body file is of no use, and session, credential, tags and recipients are not known.
    pub body_fault: Option<String>,
}

/// A tag of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TagView {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A recipient of a held message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressView {
    /// The forward-path.
    pub address: String,
    /// `open`, `taken` or `refused`.
    pub mark: String,
}

/// Held messages that were made ready.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Retried {
    /// How many.
    pub retried: usize,
    /// Those with which nothing was done.
    pub left_alone: Vec<LeftAlone>,
    /// What to go on after, if there may be more.
    pub next: Option<MessageId>,
}

/// Held messages that were given up.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Discarded {
    /// How many.
    pub discarded: usize,
    /// Those with which nothing was done.
    pub left_alone: Vec<LeftAlone>,
    /// What to go on after, if there may be more.
    pub next: Option<MessageId>,
}

/// A held message with which nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Which.
    pub message: MessageId,
    /// Why.
    pub why: String,
}

/// What a page of a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Records read.
    pub records: usize,
    /// Rows of held messages whose file was read.
    pub messages: usize,
    /// Octets of their messages.
    pub bytes: u64,
    /// Body files; on the last page alone.
    pub files: usize,
    /// Whether the outbox's files were read at all.
    pub outbox: bool,
    /// How many faults there are.
    pub faults_in_all: usize,
    /// The faults; those of a page are bounded.
    pub faults: Vec<FaultView>,
    /// What to go on after, if there is more.
    pub next: Option<String>,
}

/// A part of the audit trail.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AuditPage {
    /// Entries, newest first.
    pub rows: Vec<AuditView>,
    /// What to go on after, if there may be more.
    pub next: Option<Place>,
}

/// An entry of the audit trail.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AuditView {
    /// When.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What was done.
    pub what: String,
    /// Whose.
    pub tenant: Option<TenantId>,
    /// Of which stream.
    pub stream: Option<StreamId>,
    /// Why; empty where nobody said.
    pub reason: String,
    /// How it was.
    pub before: String,
    /// How it is.
    pub after: String,
    /// What is wrong with it, where it cannot be read; nothing else is known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Something that is wrong in the store or the outbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FaultView {
    /// `record`, `row`, `missing`, `body`, `mismatch` or `stray`.
    pub kind: String,
    /// The record's key, or the message's id.
    pub name: String,
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub cure: String,
}

impl std::fmt::Debug for ShownOnce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShownOnce(…)")
    }
}

impl TenantRow {
    /// A row of a tenant that has `credentials` credentials.
    pub fn of(tenant: &Tenant, credentials: usize) -> Self {
        Self {
            id: tenant.id.clone(),
            senders: tenant.senders.iter().map(ToString::to_string).collect(),
            streams: tenant.streams.keys().cloned().collect(),
            credentials,
            paused: tenant.pause.is_some(),
            paused_streams: tenant.streams.values().filter(|s| s.pause.is_some()).map(|s| s.id.clone()).collect(),
        }
    }
}

impl TenantView {
    /// A tenant with the views of its streams and credentials.
    pub fn of(tenant: &Tenant, streams: Vec<StreamView>, credentials: Vec<CredentialView>) -> Self {
        Self {
            id: tenant.id.clone(),
            contact: tenant.contact.as_ref().map(ToString::to_string),
            senders: tenant.senders.iter().map(ToString::to_string).collect(),
            ses_tenant: tenant.ses_tenant.as_ref().map(ToString::to_string),
            default_stream: tenant.default_stream.clone(),
            enforce: tenant.enforce,
            paused_reply: tenant.paused_reply,
            limits: tenant.limits,
            weight: tenant.weight,
            pause: tenant.pause.as_ref().map(PauseView::of),
            streams,
            credentials,
        }
    }
}

impl StreamView {
    /// A stream with its counts.
    pub fn of(stream: &Stream, last_day: Counts, last_week: Counts) -> Self {
        Self {
            id: stream.id.clone(),
            kind: stream.kind,
            configuration_set: stream.configuration_set.to_string(),
            suppress_on: stream.suppress_on.clone(),
            rate_per_second: stream.rate_per_second,
            daily_recipients: stream.daily_recipients,
            warmup: stream.warmup.clone(),
            fan_out: stream.fan_out,
            handoff: stream.handoff,
            max_age_hours: stream.max_age_hours,
            dedupe: stream.dedupe,
            dsn: stream.dsn,
            limits: stream.limits,
            pause: stream.pause.as_ref().map(PauseView::of),
            last_day,
            last_week,
        }
    }
}

impl PauseView {
    /// A pause as it is shown.
    pub fn of(pause: &Pause) -> Self {
        Self { at: pause.at.rfc3339(), actor: pause.actor.clone(), reason: pause.reason.clone() }
    }
}

impl CredentialView {
    /// A credential as it is at `now`, and what holds it.
    pub fn of(credential: &Credential, hold: Option<&Pause>, now: Timestamp) -> Self {
        Self {
            hold: hold.map(PauseView::of),
            username: credential.username.clone(),
            tenant: credential.tenant.clone(),
            stream: credential.stream.clone(),
            origin: credential.origin,
            from_ip: credential.from_ip.iter().map(ToString::to_string).collect(),
            expires: credential.expires.map(Timestamp::rfc3339),
            expired: credential.expires.is_some_and(|until| until <= now),
            created: credential.created.rfc3339(),
            actor: credential.actor.clone(),
            secrets: credential
                .live_secrets(now)
                .map(|secret| SecretView {
                    kind: match secret.hash {
                        SecretHash::Sha256(_) => "sha256".into(),
                        SecretHash::Argon2id(_) => "argon2id".into(),
                    },
                    expires: secret.expires.map(Timestamp::rfc3339),
                })
                .collect(),
        }
    }
}

impl SuppressionView {
    /// An entry as it is at `now`.
    pub fn of(address: String, entry: &Suppression, now: Timestamp) -> Self {
        Self {
            address,
            reason: entry.reason,
            origin: entry.origin.clone(),
            at: entry.at.rfc3339(),
            expires: entry.expires.map(Timestamp::rfc3339),
            actor: entry.actor.clone(),
            stands: entry.stands(now),
        }
    }
}

impl AuditView {
    /// An entry as it is shown.
    pub fn of(entry: audit::Entry) -> Self {
        let audit::Entry { id: _, at, actor, what, tenant, stream, reason, before, after } = entry;
        Self { at: at.rfc3339(), actor, what, tenant, stream, reason, before, after, fault: None }
    }
}

impl RecipientCounts {
    fn of(progress: &Progress) -> Self {
        Self {
            all: progress.recipients(),
            open: progress.count(Mark::Open),
            taken: progress.count(Mark::Taken),
            refused: progress.count(Mark::Refused),
        }
    }
}

impl HeldRow {
    /// A held message as it is at `now`.
    pub fn of(message: MessageId, slot: &Slot, entry: &Entry, now: Timestamp) -> Self {
        Self {
            from: entry.from.clone(),
            to: entry.to.clone(),
            recipients: RecipientCounts::of(&entry.progress),
            created: entry.created.rfc3339(),
            attempts: entry.attempts,
            unknown: entry.unknown,
            words: entry.words.clone(),
            fault: None,
            ..Self::unread(message, slot, String::new(), now)
        }
    }

    /// One whose row cannot be read: what the schedule knows of it.
    pub fn unread(message: MessageId, slot: &Slot, fault: String, now: Timestamp) -> Self {
        let open = usize::try_from(slot.recipients).unwrap_or(usize::MAX);
        let (state, next) = match slot.wait {
            Wait::Active => (HeldState::Sending, None),
            Wait::Until(at) if at > now && slot.cause.is_operators() => (HeldState::Held, Some(at)),
            Wait::Until(at) if at > now => (HeldState::Waiting, Some(at)),
            Wait::Ready | Wait::Until(_) => (HeldState::Ready, None),
        };
        Self {
            message,
            tenant: slot.lane.tenant.clone(),
            stream: slot.lane.stream.clone(),
            from: String::new(),
            to: String::new(),
            recipients: RecipientCounts { all: open, open, ..RecipientCounts::default() },
            bytes: slot.bytes,
            created: message.made().rfc3339(),
            expires: slot.expires.rfc3339(),
            attempts: 0,
            unknown: 0,
            cause: slot.cause.word().into(),
            words: String::new(),
            state,
            next: next.map(Timestamp::rfc3339),
            behind: None,
            fault: Some(fault),
        }
    }
}

impl HeldView {
    /// A held message with what its body file says beside its octets.
    pub fn of(mut row: HeldRow, manifest: &Manifest, progress: &Progress, most: usize) -> Self {
        row.from = manifest.reverse_path.to_string();
        let address = |(at, mailbox): (usize, &crate::mail::Mailbox)| AddressView {
            address: mailbox.to_string(),
            mark: match progress.of(at) {
                Mark::Open => "open".into(),
                Mark::Taken => "taken".into(),
                Mark::Refused => "refused".into(),
            },
        };
        Self {
            row,
            session: Some(manifest.session.to_string()),
            credential: Some(manifest.credential.clone()),
            tags: manifest
                .tags
                .iter()
                .map(|(name, value)| TagView { name: name.clone(), value: value.clone() })
                .collect(),
            addresses: manifest.recipients.iter().enumerate().take(most).map(address).collect(),
            body_fault: None,
        }
    }

    /// One whose body file cannot be read.
    pub fn without_body(row: HeldRow, fault: String) -> Self {
        Self { row, session: None, credential: None, tags: Vec::new(), addresses: Vec::new(), body_fault: Some(fault) }
    }
}
