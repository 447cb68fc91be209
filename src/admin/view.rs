//! What commands show: the JSON of `--json`, and what tables are made of.
//!
//! Promises: moments are RFC 3339 in UTC; members are added in later versions, never renamed; no
//! hash of a secret is in any of them, and a secret only in [`Issued`].

use serde::{Deserialize, Serialize};

use crate::mail::{MessageId, StreamId, TenantId, Username};
use crate::outbox::{Entry, Manifest, Mark, Progress, Slot, Wait};
use crate::policy::cohort::{History, Windows};
use crate::policy::explain;
use crate::policy::reputation::{self, Lines, Offence, Rules, Span, Step};
use crate::policy::tenant::{
    FanOut, Handoff, Limits, Pause, PausedReply, Standing, Stream, StreamKind, Suppression, SuppressionReason, Tenant,
    Warmup,
};
use crate::store::audit::{self, Place};
use crate::store::counters::Counts;
use crate::store::credential::{Credential, Origin, SecretHash};
use crate::time::{Hour, Timestamp};

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
    /// What its sum has come to.
    #[serde(default)]
    pub standing: Step,
    /// Its streams that are in no good standing, and how far each is restrained.
    #[serde(default)]
    pub braked_streams: Vec<(StreamId, Step)>,
    /// Whether SES has disabled its SES tenant.
    #[serde(default)]
    pub ses_disabled: bool,
}

/// A standing as it is shown.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StandingView {
    /// How far it is restrained.
    pub step: Step,
    /// Whether that is only told of.
    pub shadow: bool,
    /// Since when.
    pub since: Option<String>,
    /// Why, in words.
    pub charge: Option<String>,
    /// When it is better if nothing bad comes.
    pub clears: Option<String>,
    /// When it is good if nothing bad comes.
    pub good: Option<String>,
    /// Since when it has been good without a break.
    pub good_since: Option<String>,
    /// Mail sent before counts no more.
    pub resumed: Option<String>,
}

/// A rate over a window beside its limits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RateView {
    /// Of what.
    pub offence: Offence,
    /// Over which time.
    pub span: Span,
    /// Bad events.
    pub bad: u64,
    /// Recipients accepted.
    pub accepted: u64,
    /// The one by the other.
    pub rate: f64,
    /// The lower bound of its 95 % interval, which is held against the limits.
    pub at_least: f64,
    /// The limit of the warning.
    pub warn: f64,
    /// Of the slowing.
    pub slow: f64,
    /// Of the pause.
    pub pause: f64,
}

/// How near the next step is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForecastView {
    /// By what.
    pub offence: Offence,
    /// How many more of it, of the recipients there are.
    pub more: u64,
    /// The step they lead to.
    pub step: Step,
}

/// The chain of rules for one message, and what the gate would come to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExplainView {
    /// Whose.
    pub tenant: TenantId,
    /// By which credential; none: by one that is bound to no stream.
    pub credential: Option<Username>,
    /// From.
    pub from: String,
    /// To.
    pub to: String,
    /// The rules in the order the gate asks them.
    pub steps: Vec<StepView>,
    /// What it comes to.
    pub verdict: VerdictView,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// When it is asked.
    pub moment: explain::Moment,
    /// Which.
    pub rule: String,
    /// How it stands.
    pub value: String,
    /// What it is held against.
    pub limit: String,
    /// Whether it passes; none: it is shown, and not asked by itself.
    pub passes: Option<bool>,
    /// When it would pass, if that is known.
    pub clears: Option<String>,
}

/// What the gate would come to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VerdictView {
    /// `relayed`, `held`, `deferred` or `refused`.
    pub outcome: String,
    /// When a rule does not pass.
    pub moment: Option<explain::Moment>,
    /// Which does not.
    pub rule: Option<String>,
    /// Its reason, as the log names it.
    pub reason: Option<String>,
    /// The stream it leaves by.
    pub stream: Option<StreamId>,
    /// What the client hears.
    pub reply: String,
    /// When that is over, if it is known.
    pub clears: Option<String>,
}

/// A tenant as a replay begins with it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TenantState {
    /// Its declaration, its limits among it.
    pub tenant: Box<Tenant>,
    /// When its first mail was counted.
    pub first: Option<Timestamp>,
    /// When a stream, or the tenant with all its streams, was resumed last.
    pub resumed: Vec<(Option<StreamId>, Timestamp)>,
}

/// A page of stored counts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Whole streams.
    pub streams: Vec<StreamHistory>,
    /// What to go on after, if there may be more.
    pub next: Option<(TenantId, StreamId)>,
}

/// The counts of a stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamHistory {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub stream: StreamId,
    /// By cohorts and nodes, in the order of the hours.
    pub cohorts: Vec<CohortView>,
}

/// A row of counts.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct CohortView {
    /// The hour, since the epoch.
    pub hour: Hour,
    /// The second from which on, where the window began anew within the hour.
    #[serde(default)]
    pub from_second: u16,
    /// Recipients by what became of them.
    pub counts: Counts,
}

/// What became of a tenant's mail to one domain.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DomainRow {
    /// The domain; `*`: all further ones.
    pub domain: String,
    /// Recipients by what became of them.
    #[serde(flatten)]
    pub counts: Counts,
    /// Bounces by accepted.
    pub bounce_rate: f64,
    /// Complaints by accepted.
    pub complaint_rate: f64,
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
    /// Set while SES has its SES tenant disabled.
    #[serde(default)]
    pub ses_pause: Option<PauseView>,
    /// What its sum has come to.
    #[serde(default)]
    pub standing: StandingView,
    /// Whether it has the ceilings of the young.
    #[serde(default)]
    pub young: bool,
    /// The rates of its sum.
    #[serde(default)]
    pub rates: Vec<RateView>,
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
    /// Whether its standing is put in force.
    #[serde(default)]
    pub enforce: bool,
    /// What its mail has come to.
    #[serde(default)]
    pub standing: StandingView,
    /// Its rates, of what counts since the last resume.
    #[serde(default)]
    pub rates: Vec<RateView>,
    /// How near the next step is.
    #[serde(default)]
    pub forecast: Vec<ForecastView>,
    /// How its exposure window stands, while a relay runs and one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<String>,
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
            standing: step_of(&tenant.standing),
            braked_streams: tenant
                .streams
                .values()
                .map(|stream| (stream.id.clone(), step_of(&stream.standing)))
                .filter(|(_, step)| *step > Step::Good)
                .collect(),
            ses_disabled: tenant.ses_pause.is_some(),
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
            ses_pause: tenant.ses_pause.as_ref().map(PauseView::of),
            standing: StandingView::of(&tenant.standing),
            young: false,
            rates: Vec::new(),
            streams,
            credentials,
        }
    }

    /// The same with the rates of its sum beside their limits.
    pub fn with_rates(self, sum: &Windows, tenant: &Tenant, rules: &Rules, young: bool) -> Self {
        let rates = RateView::all(sum, &rules.lines_of_tenant(&tenant.limits), rules);
        Self { rates, young, ..self }
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
            enforce: true,
            standing: StandingView::of(&stream.standing),
            rates: Vec::new(),
            forecast: Vec::new(),
            exposure: None,
        }
    }

    /// The same with its rates beside their limits, and how near the next step is.
    pub fn judged(
        self,
        history: &History,
        (tenant, stream): (&Tenant, &Stream),
        rules: &Rules,
        young: bool,
        now: Timestamp,
    ) -> Self {
        let lines = rules.lines_of_stream(stream.kind, &stream.limits, &tenant.limits);
        let windows = history.windows();
        let more = |offence| {
            let (more, step) = reputation::more_until_worse(&windows, &lines, rules, young, offence)?;
            Some(ForecastView { offence, more, step })
        };
        let mut standing = self.standing;
        if let Some(brake) = &stream.standing.brake {
            let judge = |windows: &Windows| reputation::judge(windows, &lines, rules, young).step;
            let figures = reputation::clears(history, Step::Warned, now.hour(), judge);
            // A pause holds to the moment that was said, and what has no end needs a person.
            standing.good = brake.clears.map(|said| said.max(figures).rfc3339());
        }
        Self {
            enforce: rules.enforce && stream.enforce.unwrap_or(tenant.enforce),
            standing,
            rates: RateView::all(&windows, &lines, rules),
            forecast: Offence::ALL.into_iter().filter_map(more).collect(),
            ..self
        }
    }
}

impl StandingView {
    /// A standing as it is shown.
    pub fn of(standing: &Standing) -> Self {
        let brake = standing.brake.as_ref();
        Self {
            step: step_of(standing),
            shadow: brake.is_some_and(|brake| brake.shadow),
            since: brake.map(|brake| brake.since.rfc3339()),
            charge: brake.map(|brake| brake.charge.to_string()),
            clears: brake.and_then(|brake| brake.clears).map(Timestamp::rfc3339),
            good: brake.and_then(|brake| brake.clears).map(Timestamp::rfc3339),
            good_since: standing.good_since.map(Timestamp::rfc3339),
            resumed: standing.resumed.map(Timestamp::rfc3339),
        }
    }
}

fn step_of(standing: &Standing) -> Step {
    standing.brake.as_ref().map_or(Step::Good, |brake| brake.step)
}

impl RateView {
    /// All rates of both windows.
    pub fn all(windows: &Windows, lines: &Lines, rules: &Rules) -> Vec<Self> {
        let one = |(offence, span): (Offence, Span)| {
            let figures = span.of(windows);
            let (bad, accepted) = (offence.of(&figures), figures.accepted);
            Self {
                offence,
                span,
                bad,
                accepted,
                rate: reputation::rate(bad, accepted),
                at_least: reputation::lower_bound(bad, accepted.max(rules.least_recipients)),
                warn: lines.warn(offence),
                slow: lines.slow(offence),
                pause: lines.pause(offence),
            }
        };
        Offence::ALL.into_iter().flat_map(|offence| Span::ALL.map(|span| one((offence, span)))).collect()
    }
}

impl StepView {
    /// A rule as it is shown.
    pub fn of(step: explain::Step) -> Self {
        Self {
            moment: step.moment,
            rule: step.rule.into(),
            value: step.value,
            limit: step.limit,
            passes: step.passes,
            clears: step.clears.map(Timestamp::rfc3339),
        }
    }
}

impl DomainRow {
    /// A domain with its counts.
    pub fn of(domain: String, counts: Counts) -> Self {
        Self {
            bounce_rate: reputation::rate(counts.bounced, counts.accepted),
            complaint_rate: reputation::rate(counts.complained, counts.accepted),
            domain,
            counts,
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
