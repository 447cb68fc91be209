//! What may pass, and why not: the same functions for the gate and for `explain`.
//!
//! Promises: pure and total; a verdict depends on the tenant's snapshot, the login, what was asked
//! and the moment, and on nothing else. Everything not granted has a [`Reason`] in the tenant's own
//! terms; how a client is told stands elsewhere. What a message claims is judged by the tenant's
//! senders alone, never by whose domain it is besides.
//!
//! The gate asks four times: [`standing`], [`credential`] and [`sender`] at MAIL, [`recipient`] at
//! RCPT, [`message`] after DATA, and [`recipient_under`] again for the stream that the message chose. The dispatcher
//! asks [`leaving`], [`still_owned`] and [`recipient_under`] when the turn of held mail comes.
//! What can go wrong: a login whose tenant, credential or stream is no longer there. That is for
//! the operator to mend, so such mail is deferred and never refused for good.

use crate::mail::header::{Originators, Wishes};
use crate::mail::{Login, Mailbox, ReversePath, StreamId, Username};
use crate::policy::reputation::{Brake, Step};
use crate::policy::run;
use crate::policy::tenant::{Pause, PausedReply, Stream, StreamKind, Suppression, SuppressionReason, Tenant};
use crate::time::Timestamp;

/// A decision.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict<T> {
    /// It may pass.
    Grant(T),
    /// Not now; after the moment, if one is known.
    Defer(Reason, Option<Timestamp>),
    /// Never, as it is.
    Refuse(Reason),
}

/// A decision that is not a grant.
#[derive(Clone, PartialEq, Debug)]
pub enum Stop {
    /// Not now; after the moment, if one is known.
    Defer(Reason, Option<Timestamp>),
    /// Never, as it is.
    Refuse(Reason),
}

/// Why something may not pass.
#[derive(Clone, PartialEq, Debug)]
pub enum Reason {
    /// An address that the tenant may not send as.
    SenderNotOwned {
        /// Where it was claimed: `MAIL FROM`, `From`, `Sender`, `Resent-From`, `Resent-Sender`.
        claim: &'static str,
        /// The address.
        address: Mailbox,
    },
    /// The tenant was removed while the session lived.
    TenantGone,
    /// The credential was revoked, has expired, or its secret was rotated away.
    CredentialGone,
    /// The credential is on hold: it seems stolen, or somebody holds it by hand.
    CredentialHeld {
        /// Which.
        credential: Username,
        /// Since when and why.
        hold: Pause,
    },
    /// The stream that the credential is bound to, or the tenant's default, is not there.
    StreamGone {
        /// Which.
        stream: StreamId,
    },
    /// The tenant is paused by hand.
    TenantPaused(Pause),
    /// SES has disabled the sending of the tenant's SES tenant.
    SesTenantDisabled(Pause),
    /// The tenant is paused by its standing, or left with its transactional streams.
    TenantBraked(Brake),
    /// The stream is paused by its standing, and every other that the login might choose.
    StreamBraked {
        /// Which.
        stream: StreamId,
        /// Since when and why.
        brake: Brake,
    },
    /// The stream is paused by hand, and every other that the login might choose.
    StreamPaused {
        /// Which.
        stream: StreamId,
        /// Since when and why.
        pause: Pause,
    },
    /// The message names a stream that the tenant does not have.
    StreamUnknown {
        /// As the client gave it.
        name: String,
    },
    /// The message names another stream than its credential is bound to.
    StreamNotAllowed {
        /// As the client gave it.
        name: String,
        /// The credential's stream.
        bound: StreamId,
    },
    /// The message names a configuration set that is none of the tenant's.
    SetNotOwned {
        /// As the client gave it.
        name: String,
    },
    /// The message names the configuration set of another stream than its credential is bound to.
    SetNotAllowed {
        /// As the client gave it.
        name: String,
        /// The credential's stream.
        bound: StreamId,
    },
    /// The message names a stream, and the configuration set of another.
    WishesDisagree {
        /// The stream.
        stream: String,
        /// The configuration set.
        set: String,
    },
    /// The recipient is on the tenant's suppression list. Of several entries that bind, the most
    /// telling: bounce, complaint, manual, soft.
    Suppressed {
        /// What put it there.
        reason: SuppressionReason,
        /// When.
        at: Timestamp,
        /// When it ends by itself, if it does.
        until: Option<Timestamp>,
        /// How many soft bounces in a row it was, where it was that.
        run: Option<usize>,
    },
}

impl<T> Verdict<T> {
    /// The grant, or what stands against it.
    pub fn into_result(self) -> Result<T, Stop> {
        match self {
            Self::Grant(granted) => Ok(granted),
            Self::Defer(reason, until) => Err(Stop::Defer(reason, until)),
            Self::Refuse(reason) => Err(Stop::Refuse(reason)),
        }
    }
}

impl<T> From<Result<T, Stop>> for Verdict<T> {
    fn from(result: Result<T, Stop>) -> Self {
        match result {
            Ok(granted) => Self::Grant(granted),
            Err(Stop::Defer(reason, until)) => Self::Defer(reason, until),
            Err(Stop::Refuse(reason)) => Self::Refuse(reason),
        }
    }
}

impl Stop {
    /// Why.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Defer(reason, _) | Self::Refuse(reason) => reason,
        }
    }
}

impl Reason {
    /// Its name in logs and metrics: one of a dozen, for ever.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SenderNotOwned { .. } => "sender_not_owned",
            Self::TenantGone => "tenant_gone",
            Self::CredentialGone => "credential_gone",
            Self::CredentialHeld { .. } => "credential_held",
            Self::StreamGone { .. } => "stream_gone",
            Self::TenantPaused(_) => "tenant_paused",
            Self::SesTenantDisabled(_) => "ses_tenant_disabled",
            Self::TenantBraked(_) => "tenant_braked",
            Self::StreamBraked { .. } => "stream_braked",
            Self::StreamPaused { .. } => "stream_paused",
            Self::StreamUnknown { .. } => "stream_unknown",
            Self::StreamNotAllowed { .. } => "stream_not_allowed",
            Self::SetNotOwned { .. } => "set_not_owned",
            Self::SetNotAllowed { .. } => "set_not_allowed",
            Self::WishesDisagree { .. } => "wishes_disagree",
            Self::Suppressed { .. } => "recipient_suppressed",
        }
    }
}

impl Reason {
    /// Whether it is for the operator to mend, and so no fault of the client's or its tenant's: a
    /// login or a tenant that points at a stream which is not there. A tenant or a credential that
    /// was taken away was meant to be, and a pause is somebody's decision.
    pub fn is_operators(&self) -> bool {
        match self {
            Self::StreamGone { .. } => true,
            Self::SenderNotOwned { .. }
            | Self::TenantGone
            | Self::CredentialGone
            | Self::CredentialHeld { .. }
            | Self::TenantPaused(_)
            | Self::SesTenantDisabled(_)
            | Self::TenantBraked(_)
            | Self::StreamBraked { .. }
            | Self::StreamPaused { .. }
            | Self::StreamUnknown { .. }
            | Self::StreamNotAllowed { .. }
            | Self::SetNotOwned { .. }
            | Self::SetNotAllowed { .. }
            | Self::WishesDisagree { .. }
            | Self::Suppressed { .. } => false,
        }
    }
}

/// Whether there is still somebody to speak for: `tenant` is what the directory has under the
/// login's tenant now, `credential_stands` whether it has the credential with the secret that was
/// used, unexpired.
pub fn standing<'a>(tenant: Option<&'a Tenant>, login: &Login, credential_stands: bool) -> Verdict<&'a Tenant> {
    match tenant {
        Some(tenant) if tenant.id == login.tenant && credential_stands => Verdict::Grant(tenant),
        Some(tenant) if tenant.id == login.tenant => Verdict::Defer(Reason::CredentialGone, None),
        Some(_) | None => Verdict::Defer(Reason::TenantGone, None),
    }
}

/// Whether the credential of `login` may be used: `hold` is what stands against it now. What it sends
/// is deferred and nothing is lost; what was accepted from it before leaves as ever, and so does the
/// mail of the tenant's other credentials.
pub fn credential(login: &Login, hold: Option<&Pause>) -> Verdict<()> {
    match hold {
        Some(hold) => {
            let held = Reason::CredentialHeld { credential: login.credential.clone(), hold: hold.clone() };
            Verdict::Defer(held, None)
        }
        None => Verdict::Grant(()),
    }
}

/// At MAIL: whether this login may send from this reverse-path now. A null reverse-path is
/// nobody's; the header section will say whose the message is.
pub fn sender(tenant: &Tenant, login: &Login, reverse_path: &ReversePath) -> Verdict<()> {
    let judged = || {
        tenant_runs(tenant)?;
        some_stream_runs(tenant, login)?;
        match reverse_path {
            ReversePath::Null => Ok(()),
            ReversePath::Mailbox(mailbox) => owned(tenant, "MAIL FROM", mailbox),
        }
    };
    judged().into()
}

/// At RCPT: whether a recipient may be had at all. `entries` are what the tenant's suppression list
/// says of it. It is refused here when one or another of them binds under every stream the login may
/// still choose; else the message's stream decides ([`recipient_under`]).
pub fn recipient(tenant: &Tenant, login: &Login, entries: &[Suppression], now: Timestamp) -> Verdict<()> {
    let judged = || {
        if entries.is_empty() {
            return Ok(());
        }
        let binding = |stream: &&Stream| suppressed_under(stream, entries, now);
        let binding: Option<Vec<&Suppression>> = choices(tenant, login)?.iter().map(binding).collect();
        match binding.and_then(most_telling) {
            Some(entry) => Err(suppressed(entry)),
            None => Ok(()),
        }
    };
    judged().into()
}

/// After DATA: whether the message may leave, and by which stream.
pub fn message<'a>(
    tenant: &'a Tenant,
    login: &Login,
    originators: &Originators,
    wishes: &Wishes,
) -> Verdict<&'a Stream> {
    let judged = || {
        tenant_runs(tenant)?;
        let stream = choose(tenant, login, wishes)?;
        stream_runs(tenant, stream)?;
        for (claim, mailbox) in &originators.claims {
            owned(tenant, claim, mailbox)?;
        }
        Ok(stream)
    };
    judged().into()
}

/// After DATA: whether a recipient may be had under the stream that was chosen.
pub fn recipient_under(stream: &Stream, entries: &[Suppression], now: Timestamp) -> Verdict<()> {
    match suppressed_under(stream, entries, now) {
        Some(entry) => suppressed(entry).into_verdict(),
        None => Verdict::Grant(()),
    }
}

/// When the turn of held mail comes: whether its stream may send now. A pause holds it, whatever the
/// tenant's clients would hear: what was accepted waits until it may leave or is too old, and is
/// never refused for a pause.
pub fn leaving<'a>(tenant: Option<&'a Tenant>, stream: &StreamId) -> Verdict<&'a Stream> {
    let Some(tenant) = tenant else { return Verdict::Defer(Reason::TenantGone, None) };
    if let Some(reason) = tenant_stops(tenant) {
        return held(reason);
    }
    match tenant.streams.get(stream) {
        None => Verdict::Defer(Reason::StreamGone { stream: stream.clone() }, None),
        Some(stream) => stream_stops(tenant, stream).map_or(Verdict::Grant(stream), held),
    }
}

/// What would stop a stream's mail if its standing were in force: for tenants and streams whose standing
/// is only told of.
pub fn would_stop(tenant: &Tenant, stream: &Stream) -> Option<Reason> {
    if let Some(brake) = tenant.standing.would_brake(Step::Paused) {
        return Some(Reason::TenantBraked(*brake));
    }
    if let Some(brake) = stream.standing.would_brake(Step::Paused) {
        return Some(Reason::StreamBraked { stream: stream.id.clone(), brake: *brake });
    }
    let left_out = stream.kind != StreamKind::Transactional;
    tenant.standing.would_brake(Step::TransactionalOnly).filter(|_| left_out).map(|brake| Reason::TenantBraked(*brake))
}

/// When the turn of held mail comes: whether all it says it is from is still the tenant's. An
/// address that was taken away since, and may be another's by now, is not sent as.
pub fn still_owned(tenant: &Tenant, claims: &[Mailbox]) -> Verdict<()> {
    claims.iter().try_for_each(|claim| owned(tenant, "From", claim)).into()
}

/// The most telling of an address's entries that bind a stream, in whatever order they are given.
/// An entry binds as long as it stands: one put there by hand always, others as the stream's
/// `suppress_on` says; soft bounces in a row bind where a hard one does.
pub fn suppressed_under<'a>(stream: &Stream, entries: &'a [Suppression], now: Timestamp) -> Option<&'a Suppression> {
    let binds = |reason| match reason {
        SuppressionReason::Manual => true,
        SuppressionReason::Bounce | SuppressionReason::Soft => stream.suppress_on.contains(&SuppressionReason::Bounce),
        SuppressionReason::Complaint => stream.suppress_on.contains(&SuppressionReason::Complaint),
    };
    most_telling(entries.iter().filter(|entry| binds(entry.reason) && entry.stands(now)))
}

/// A bounce before a complaint before an entry by hand, as [`SuppressionReason`] orders them: 5.1.1
/// lets clients clean their lists by themselves, the others ask for a person. Soft bounces, which
/// pass, are last.
fn most_telling<'a>(entries: impl IntoIterator<Item = &'a Suppression>) -> Option<&'a Suppression> {
    entries.into_iter().min_by_key(|entry| entry.reason)
}

impl Stop {
    fn into_verdict<T>(self) -> Verdict<T> {
        Err(self).into()
    }
}

fn suppressed(entry: &Suppression) -> Stop {
    Stop::Refuse(Reason::Suppressed {
        reason: entry.reason,
        at: entry.at,
        until: entry.expires,
        run: run::counted(entry),
    })
}

/// A pause, as the tenant wants its clients to hear of it.
fn paused(tenant: &Tenant, reason: Reason) -> Stop {
    match tenant.paused_reply {
        PausedReply::Defer => Stop::Defer(reason.clone(), ends(&reason)),
        PausedReply::Reject => Stop::Refuse(reason),
    }
}

fn held<T>(reason: Reason) -> Verdict<T> {
    let until = ends(&reason);
    Verdict::Defer(reason, until)
}

/// When what stops a tenant or stream ends by itself.
pub(super) fn ends(reason: &Reason) -> Option<Timestamp> {
    match reason {
        Reason::TenantBraked(brake) | Reason::StreamBraked { brake, .. } => brake.clears,
        Reason::SenderNotOwned { .. }
        | Reason::TenantGone
        | Reason::CredentialGone
        | Reason::CredentialHeld { .. }
        | Reason::StreamGone { .. }
        | Reason::TenantPaused(_)
        | Reason::SesTenantDisabled(_)
        | Reason::StreamPaused { .. }
        | Reason::StreamUnknown { .. }
        | Reason::StreamNotAllowed { .. }
        | Reason::SetNotOwned { .. }
        | Reason::SetNotAllowed { .. }
        | Reason::WishesDisagree { .. }
        | Reason::Suppressed { .. } => None,
    }
}

/// What stops all of a tenant's mail: a person's word before SES's, and SES's before the judge's.
fn tenant_stops(tenant: &Tenant) -> Option<Reason> {
    if let Some(pause) = &tenant.pause {
        return Some(Reason::TenantPaused(pause.clone()));
    }
    if let Some(pause) = &tenant.ses_pause {
        return Some(Reason::SesTenantDisabled(pause.clone()));
    }
    tenant.standing.braked(Step::Paused).map(|brake| Reason::TenantBraked(*brake))
}

/// What stops a stream's mail, where nothing stops its tenant's.
pub(super) fn stream_stops(tenant: &Tenant, stream: &Stream) -> Option<Reason> {
    let id = &stream.id;
    if let Some(pause) = &stream.pause {
        return Some(Reason::StreamPaused { stream: id.clone(), pause: pause.clone() });
    }
    if let Some(brake) = stream.standing.braked(Step::Paused) {
        return Some(Reason::StreamBraked { stream: id.clone(), brake: *brake });
    }
    let left_out = stream.kind != StreamKind::Transactional;
    tenant.standing.braked(Step::TransactionalOnly).filter(|_| left_out).map(|brake| Reason::TenantBraked(*brake))
}

fn tenant_runs(tenant: &Tenant) -> Result<(), Stop> {
    tenant_stops(tenant).map_or(Ok(()), |reason| Err(paused(tenant, reason)))
}

fn stream_runs(tenant: &Tenant, stream: &Stream) -> Result<(), Stop> {
    stream_stops(tenant, stream).map_or(Ok(()), |reason| Err(paused(tenant, reason)))
}

/// Whether any stream the login may choose runs. The pause that is told is the default choice's.
fn some_stream_runs(tenant: &Tenant, login: &Login) -> Result<(), Stop> {
    let choices = choices(tenant, login)?;
    if choices.iter().any(|stream| stream_stops(tenant, stream).is_none()) {
        return Ok(());
    }
    stream_runs(tenant, default_choice(tenant, login)?)
}

/// The streams that the login may choose from, one at least.
pub(super) fn choices<'a>(tenant: &'a Tenant, login: &Login) -> Result<Vec<&'a Stream>, Stop> {
    let default = default_choice(tenant, login)?;
    Ok(if login.stream.is_some() { vec![default] } else { tenant.streams.values().collect() })
}

/// The credential's own stream, or the tenant's default.
fn default_choice<'a>(tenant: &'a Tenant, login: &Login) -> Result<&'a Stream, Stop> {
    let id = login.stream.as_ref().unwrap_or(&tenant.default_stream);
    tenant.streams.get(id).ok_or_else(|| Stop::Defer(Reason::StreamGone { stream: id.clone() }, None))
}

/// The stream of a message: the credential's own; else the one it names, or whose configuration set
/// it names; else the default.
pub(super) fn choose<'a>(tenant: &'a Tenant, login: &Login, wishes: &Wishes) -> Result<&'a Stream, Stop> {
    let default = default_choice(tenant, login)?;
    let by_name = wishes.stream.as_deref().map(|name| named(tenant, login, name)).transpose()?;
    let by_set = wishes.configuration_set.as_deref().map(|name| owning(tenant, login, name)).transpose()?;
    match (by_name, by_set) {
        (Some(one), Some(other)) if one.id != other.id => Err(Stop::Refuse(Reason::WishesDisagree {
            stream: one.id.to_string(),
            set: other.configuration_set.to_string(),
        })),
        (Some(stream), _) | (None, Some(stream)) => Ok(stream),
        (None, None) => Ok(default),
    }
}

/// The stream of that name, if the login may use it.
fn named<'a>(tenant: &'a Tenant, login: &Login, name: &str) -> Result<&'a Stream, Stop> {
    let stream = tenant.streams.values().find(|stream| stream.id.as_str() == name);
    match (stream, &login.stream) {
        (None, _) => Err(Stop::Refuse(Reason::StreamUnknown { name: name.to_owned() })),
        (Some(stream), Some(bound)) if stream.id != *bound => {
            Err(Stop::Refuse(Reason::StreamNotAllowed { name: name.to_owned(), bound: bound.clone() }))
        }
        (Some(stream), _) => Ok(stream),
    }
}

/// The stream with that configuration set, if the login may use it.
fn owning<'a>(tenant: &'a Tenant, login: &Login, name: &str) -> Result<&'a Stream, Stop> {
    let stream = tenant.streams.values().find(|stream| stream.configuration_set.as_str() == name);
    match (stream, &login.stream) {
        (None, _) => Err(Stop::Refuse(Reason::SetNotOwned { name: name.to_owned() })),
        (Some(stream), Some(bound)) if stream.id != *bound => {
            Err(Stop::Refuse(Reason::SetNotAllowed { name: name.to_owned(), bound: bound.clone() }))
        }
        (Some(stream), _) => Ok(stream),
    }
}

fn owned(tenant: &Tenant, claim: &'static str, mailbox: &Mailbox) -> Result<(), Stop> {
    if tenant.owns(mailbox) {
        return Ok(());
    }
    Err(Stop::Refuse(Reason::SenderNotOwned { claim, address: mailbox.clone() }))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::policy::reputation::{Charge, Offence, Rule, Span};
    use crate::policy::tenant::{SenderPattern, StreamKind};

    const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);

    fn stream(id: &str, kind: StreamKind) -> Stream {
        Stream::new(StreamId::parse(id).unwrap(), kind, format!("acme-{id}").parse().unwrap())
    }

    /// acme: `transactional` (default; bounces bind) and `marketing` (bounces and complaints bind).
    fn acme() -> Tenant {
        let streams = [stream("transactional", StreamKind::Transactional), stream("marketing", StreamKind::Marketing)];
        Tenant {
            senders: ["acme.example", "billing@acme.test"].map(|s| SenderPattern::parse(s).unwrap()).to_vec(),
            streams: streams.map(|stream| (stream.id.clone(), stream)).into_iter().collect::<BTreeMap<_, _>>(),
            ..Tenant::new("acme".parse().unwrap(), StreamId::parse("transactional").unwrap())
        }
    }

    fn pause(reason: &str) -> Pause {
        Pause { at: NOW, actor: "cli:root".into(), reason: reason.into() }
    }

    /// acme with these of `tenant`, `transactional`, `marketing` paused.
    fn paused_acme(what: &[&str]) -> Tenant {
        let mut tenant = acme();
        for name in what {
            match tenant.streams.get_mut(&StreamId::parse(name).unwrap()) {
                Some(stream) => stream.pause = Some(pause(name)),
                None => tenant.pause = Some(pause(name)),
            }
        }
        tenant
    }

    fn login(bound: Option<&str>) -> Login {
        Login {
            tenant: "acme".parse().unwrap(),
            credential: "acme-app".parse().unwrap(),
            stream: bound.map(|id| StreamId::parse(id).unwrap()),
            secret_fingerprint: 1,
        }
    }

    fn path(text: &str) -> ReversePath {
        if text == "<>" { ReversePath::Null } else { ReversePath::Mailbox(Mailbox::parse(text.as_bytes()).unwrap()) }
    }

    fn entry(reason: SuppressionReason) -> Suppression {
        Suppression { reason, origin: "ses".into(), at: NOW, expires: None, actor: "ses".into() }
    }

    fn wishes(stream: Option<&str>, set: Option<&str>) -> Wishes {
        Wishes { stream: stream.map(str::to_owned), configuration_set: set.map(str::to_owned), tags: vec![] }
    }

    /// A field name and an address.
    type Claim<'a> = (&'static str, &'a str);

    fn from(addresses: &[Claim<'_>]) -> Originators {
        Originators { claims: addresses.iter().map(|(c, a)| (*c, Mailbox::parse(a.as_bytes()).unwrap())).collect() }
    }

    /// `grant …`, `defer …` or `refuse …` with the reason's name, as tables have it.
    fn told<T>(verdict: &Verdict<T>, granted: impl Fn(&T) -> String) -> String {
        match verdict {
            Verdict::Grant(what) => format!("grant {}", granted(what)).trim_end().to_owned(),
            Verdict::Defer(reason, until) => {
                assert_eq!(*until, None);
                format!("defer {}", reason.name())
            }
            Verdict::Refuse(reason) => format!("refuse {}", reason.name()),
        }
    }

    #[test]
    fn standing_ends_with_tenant_and_credential() {
        let (tenant, login) = (acme(), login(None));
        let mut other = acme();
        other.id = "other".parse().unwrap();
        let cases = [
            (Some(&tenant), true, "grant acme"),
            (Some(&tenant), false, "defer credential_gone"),
            (None, true, "defer tenant_gone"),
            (Some(&other), true, "defer tenant_gone"),
        ];
        for (tenant, credential, expected) in cases {
            assert_eq!(told(&standing(tenant, &login, credential), |t| t.id.to_string()), expected);
        }
    }

    #[test]
    fn who_may_send_from_what_and_when() {
        let cases: &[(&[&str], Option<&str>, &str, &str)] = &[
            (&[], None, "app@acme.example", "grant"),
            (&[], None, "app@mail.ACME.example", "grant"),
            (&[], None, "Billing@acme.test", "grant"),
            (&[], Some("marketing"), "app@acme.example", "grant"),
            (&[], None, "<>", "grant"),
            (&[], None, "joe@acme.test", "refuse sender_not_owned"),
            (&[], None, "app@other.example", "refuse sender_not_owned"),
            (&[], None, "app@evilacme.example", "refuse sender_not_owned"),
            (&[], None, "app@acme.example.other.example", "refuse sender_not_owned"),
            (&[], None, "\"app@acme.example\"@other.example", "refuse sender_not_owned"),
            (&[], Some("gone"), "app@acme.example", "defer stream_gone"),
            (&["tenant"], None, "app@acme.example", "defer tenant_paused"),
            (&["tenant"], Some("marketing"), "<>", "defer tenant_paused"),
            (&["tenant", "marketing"], None, "app@other.example", "defer tenant_paused"),
            (&["marketing"], None, "app@acme.example", "grant"),
            (&["transactional"], None, "app@acme.example", "grant"),
            (&["marketing", "transactional"], None, "app@acme.example", "defer stream_paused"),
            (&["marketing"], Some("marketing"), "app@acme.example", "defer stream_paused"),
            (&["marketing"], Some("transactional"), "app@acme.example", "grant"),
        ];
        for (pauses, bound, from, expected) in cases {
            let mut tenant = paused_acme(pauses);
            assert_eq!(told(&sender(&tenant, &login(*bound), &path(from)), |()| String::new()), *expected);
            tenant.paused_reply = PausedReply::Reject;
            let rejected = match *expected {
                "defer tenant_paused" => "refuse tenant_paused",
                "defer stream_paused" => "refuse stream_paused",
                other => other,
            };
            assert_eq!(told(&sender(&tenant, &login(*bound), &path(from)), |()| String::new()), rejected);
            // Shadow mode is about reputation, not about a pause that somebody made.
            tenant.enforce = false;
            assert_eq!(told(&sender(&tenant, &login(*bound), &path(from)), |()| String::new()), rejected);
        }
    }

    /// acme with a standing of its own, or of all its streams.
    fn braked_acme(step: Step, at_the_tenant: bool, shadow: bool) -> Tenant {
        let (rule, offence, span) = (Rule::Rate, Offence::Bounce, Span::Day);
        let charge = Charge { rule, offence, span, bad: 31, accepted: 500, limit: 0.05 };
        let until = NOW.plus(Duration::from_secs(60));
        let brake = Some(Brake { step, since: NOW, charge, clears: Some(until), shadow });
        let mut tenant = acme();
        if at_the_tenant {
            tenant.standing.brake = brake;
        } else {
            tenant.streams.values_mut().for_each(|stream| stream.standing.brake = brake);
        }
        tenant
    }

    /// What a standing stops: streams of its own step, a tenant's all but the transactional ones, or all;
    /// told with its end; and nothing where it is only told of.
    #[test]
    fn what_a_standing_stops() {
        use Step::{Good, Paused, Slowed, TransactionalOnly, Warned};
        // step, of the tenant; what marketing and transactional mail meets
        let cases = [
            (Good, true, [None, None]),
            (Warned, false, [None, None]),
            (Slowed, false, [None, None]),
            (TransactionalOnly, true, [Some("tenant_braked"), None]),
            (Paused, true, [Some("tenant_braked"); 2]),
            (Paused, false, [Some("stream_braked"); 2]),
        ];
        for (step, at_the_tenant, expected) in cases {
            for (name, expected) in ["marketing", "transactional"].into_iter().zip(expected) {
                let id = StreamId::parse(name).unwrap();
                let tenant = braked_acme(step, at_the_tenant, false);
                for verdict in [
                    sender(&tenant, &login(Some(name)), &ReversePath::Null).into_result(),
                    leaving(Some(&tenant), &id).into_result().map(drop),
                ] {
                    let met = verdict.err().map(|stop| match stop {
                        Stop::Defer(reason, until) => (reason.name(), until),
                        Stop::Refuse(reason) => panic!("{reason:?}"),
                    });
                    let expected = expected.map(|name| (name, Some(NOW.plus(Duration::from_secs(60)))));
                    assert_eq!(met, expected, "{step:?} {name}");
                }
                assert_eq!(would_stop(&tenant, &tenant.streams[&id]), None, "it does");
                let shadow = braked_acme(step, at_the_tenant, true);
                assert_eq!(sender(&shadow, &login(Some(name)), &ReversePath::Null), Verdict::Grant(()));
                assert!(matches!(leaving(Some(&shadow), &id), Verdict::Grant(_)));
                let would = would_stop(&shadow, &shadow.streams[&id]);
                assert_eq!(would.as_ref().map(Reason::name), expected, "{step:?} {name}");
            }
        }
    }

    #[test]
    fn reasons_carry_what_the_client_must_know() {
        let all_paused = paused_acme(&["marketing", "transactional"]);
        let expected =
            Reason::StreamPaused { stream: StreamId::parse("transactional").unwrap(), pause: pause("transactional") };
        let stop = sender(&all_paused, &login(None), &ReversePath::Null).into_result().unwrap_err();
        assert_eq!(stop, Stop::Defer(expected.clone(), None));
        assert_eq!(stop.reason(), &expected);
        let address = Mailbox::parse(b"x@other.example").unwrap();
        let claims = from(&[("From", "x@acme.example"), ("Sender", "x@other.example")]);
        assert_eq!(
            message(&acme(), &login(None), &claims, &Wishes::default()),
            Verdict::Refuse(Reason::SenderNotOwned { claim: "Sender", address })
        );
    }

    #[test]
    fn which_recipients_may_be_had() {
        use SuppressionReason::{Bounce, Complaint, Manual, Soft};
        let until = |reason, expires| Suppression { expires: Some(expires), ..entry(reason) };
        let later = NOW.plus(Duration::from_secs(1));
        let entries = |reasons: &[SuppressionReason]| reasons.iter().copied().map(entry).collect::<Vec<_>>();
        const GRANT: Option<SuppressionReason> = None;
        // entries; what binds at RCPT for an unbound, a transactional, a marketing login
        let cases = [
            (vec![], [GRANT, GRANT, GRANT]),
            (entries(&[Bounce]), [Some(Bounce), Some(Bounce), Some(Bounce)]),
            (entries(&[Complaint]), [GRANT, GRANT, Some(Complaint)]),
            (entries(&[Manual]), [Some(Manual), Some(Manual), Some(Manual)]),
            (vec![until(Bounce, NOW)], [GRANT, GRANT, GRANT]),
            // What comes beside a complaint binds as if it stood alone.
            (entries(&[Complaint, Bounce]), [Some(Bounce), Some(Bounce), Some(Bounce)]),
            (entries(&[Complaint, Manual]), [Some(Complaint), Some(Manual), Some(Complaint)]),
            (entries(&[Bounce, Manual]), [Some(Bounce), Some(Bounce), Some(Bounce)]),
            (entries(&[Bounce, Complaint, Manual]), [Some(Bounce), Some(Bounce), Some(Bounce)]),
            (vec![until(Bounce, NOW), entry(Complaint)], [GRANT, GRANT, Some(Complaint)]),
            (vec![until(Bounce, NOW), entry(Manual)], [Some(Manual), Some(Manual), Some(Manual)]),
            (vec![until(Complaint, NOW), entry(Bounce)], [Some(Bounce), Some(Bounce), Some(Bounce)]),
            // Soft bounces bind where bounces do, and are the last to be told.
            (vec![until(Soft, later)], [Some(Soft), Some(Soft), Some(Soft)]),
            (vec![until(Soft, NOW)], [GRANT, GRANT, GRANT]),
            (vec![until(Soft, later), entry(Complaint)], [Some(Complaint), Some(Soft), Some(Complaint)]),
            (vec![until(Soft, later), entry(Manual)], [Some(Manual), Some(Manual), Some(Manual)]),
            (vec![until(Soft, later), until(Bounce, NOW)], [Some(Soft), Some(Soft), Some(Soft)]),
        ];
        let judged = |reason: Option<SuppressionReason>| match reason {
            Some(reason) => {
                let until = matches!(reason, Soft).then_some(later);
                Verdict::Refuse(Reason::Suppressed { reason, at: NOW, until, run: None })
            }
            None => Verdict::Grant(()),
        };
        let mut tenant = acme();
        for (mut entries, expected) in cases {
            for (bound, expected) in [None, Some("transactional"), Some("marketing")].into_iter().zip(expected) {
                // The order in which entries are given does not matter.
                for _ in 0..2 {
                    entries.reverse();
                    let verdict = recipient(&tenant, &login(bound), &entries, NOW);
                    assert_eq!(verdict, judged(expected), "{entries:?} {bound:?}");
                    let Some(stream) = bound.and_then(|id| tenant.streams.get(&StreamId::parse(id).unwrap())) else {
                        continue;
                    };
                    assert_eq!(recipient_under(stream, &entries, NOW), verdict, "a bound login has one answer");
                    assert_eq!(suppressed_under(stream, &entries, NOW).map(|entry| entry.reason), expected);
                }
            }
        }
        let ends = recipient(&tenant, &login(None), &[until(Bounce, later)], NOW);
        assert_eq!(
            ends,
            Verdict::Refuse(Reason::Suppressed { reason: Bounce, at: NOW, until: Some(later), run: None })
        );
        let counted = Suppression { origin: "7 soft bounces in a row".into(), ..until(Soft, later) };
        let counted = recipient(&tenant, &login(None), &[counted], NOW);
        let seven = Reason::Suppressed { reason: Soft, at: NOW, until: Some(later), run: Some(7) };
        assert_eq!(counted, Verdict::Refuse(seven));
        let gone = recipient(&tenant, &login(Some("gone")), &[entry(Bounce)], NOW);
        assert_eq!(told(&gone, |()| String::new()), "defer stream_gone");
        // Two entries that each bind one stream leave an unbound login none.
        for (id, reason) in [("transactional", Bounce), ("marketing", Complaint)] {
            tenant.streams.get_mut(&StreamId::parse(id).unwrap()).unwrap().suppress_on = vec![reason];
        }
        assert_eq!(recipient(&tenant, &login(None), &[entry(Bounce)], NOW), Verdict::Grant(()));
        assert_eq!(recipient(&tenant, &login(None), &[entry(Complaint)], NOW), Verdict::Grant(()));
        assert_eq!(recipient(&tenant, &login(None), &[entry(Complaint), entry(Bounce)], NOW), judged(Some(Bounce)));
        // Nothing but what was put there by hand binds a stream that suppresses on nothing.
        for stream in tenant.streams.values_mut() {
            stream.suppress_on.clear();
        }
        assert_eq!(recipient(&tenant, &login(None), &[entry(Bounce), entry(Complaint)], NOW), Verdict::Grant(()));
        assert_eq!(recipient(&tenant, &login(None), &[entry(Bounce), entry(Manual)], NOW), judged(Some(Manual)));
    }

    #[test]
    fn which_stream_a_message_goes_by() {
        const T: Option<&str> = Some("transactional");
        const M: Option<&str> = Some("marketing");
        const TS: Option<&str> = Some("acme-transactional");
        const MS: Option<&str> = Some("acme-marketing");
        // bound to; X-Bulkhead-Stream; X-SES-CONFIGURATION-SET; verdict
        let cases = [
            (None, None, None, "grant transactional"),
            (None, M, None, "grant marketing"),
            (None, None, MS, "grant marketing"),
            (None, M, MS, "grant marketing"),
            (None, T, TS, "grant transactional"),
            (None, M, TS, "refuse wishes_disagree"),
            (None, T, MS, "refuse wishes_disagree"),
            (None, Some("Marketing"), None, "refuse stream_unknown"),
            (None, Some("news"), MS, "refuse stream_unknown"),
            (None, None, Some("other-marketing"), "refuse set_not_owned"),
            (None, None, Some("ACME-marketing"), "refuse set_not_owned"),
            (None, None, Some("marketing"), "refuse set_not_owned"),
            (None, M, Some("other-marketing"), "refuse set_not_owned"),
            (M, None, None, "grant marketing"),
            (M, M, MS, "grant marketing"),
            (M, T, None, "refuse stream_not_allowed"),
            (M, None, TS, "refuse set_not_allowed"),
            (M, M, TS, "refuse set_not_allowed"),
            (M, T, MS, "refuse stream_not_allowed"),
            (M, Some("news"), None, "refuse stream_unknown"),
            (M, None, Some("other-marketing"), "refuse set_not_owned"),
            (Some("gone"), None, None, "defer stream_gone"),
            (Some("gone"), M, None, "defer stream_gone"),
        ];
        let tenant = acme();
        let claims = from(&[("From", "app@acme.example")]);
        for (bound, stream, set, expected) in cases {
            let verdict = message(&tenant, &login(bound), &claims, &wishes(stream, set));
            assert_eq!(told(&verdict, |s| s.id.to_string()), expected, "{bound:?} {stream:?} {set:?}");
        }
        let mut headless = acme();
        headless.default_stream = StreamId::parse("gone").unwrap();
        let verdict = message(&headless, &login(None), &claims, &Wishes::default());
        assert_eq!(told(&verdict, |s| s.id.to_string()), "defer stream_gone");
    }

    #[test]
    fn which_messages_may_leave() {
        let ours = ("From", "app@acme.example");
        type Case<'a> = (&'a [&'a str], &'a [Claim<'a>], Option<&'a str>, &'a str);
        let cases: &[Case<'_>] = &[
            (&[], &[ours, ("Sender", "x@b.acme.example"), ("Resent-From", "billing@acme.test")], None, "grant"),
            (&[], &[("From", "app@other.example")], None, "refuse sender_not_owned"),
            (&[], &[ours, ("From", "app@other.example")], None, "refuse sender_not_owned"),
            (&[], &[ours, ("Sender", "app@other.example")], None, "refuse sender_not_owned"),
            (&[], &[ours, ("Resent-From", "app@other.example")], None, "refuse sender_not_owned"),
            (&[], &[ours, ("Resent-Sender", "app@other.example")], None, "refuse sender_not_owned"),
            (&["tenant"], &[ours], None, "defer tenant_paused"),
            (&["marketing"], &[ours], None, "grant"),
            (&["marketing"], &[ours], Some("marketing"), "defer stream_paused"),
            (&["transactional"], &[ours], None, "defer stream_paused"),
            (&["transactional"], &[ours], Some("marketing"), "grant"),
        ];
        for (pauses, claims, stream, expected) in cases {
            let tenant = paused_acme(pauses);
            let verdict = message(&tenant, &login(None), &from(claims), &wishes(*stream, None));
            assert_eq!(told(&verdict, |_| String::new()), *expected, "{pauses:?} {claims:?} {stream:?}");
        }
    }

    /// Every verdict of every question over all small worlds: each reason is reached, each name is
    /// its own, and no paused stream is ever granted.
    #[test]
    fn every_reason_is_reached() {
        let some = [None, Some("transactional"), Some("marketing"), Some("gone")];
        let sets = [None, Some("acme-transactional"), Some("acme-marketing"), Some("other")];
        let mut names = BTreeSet::new();
        let mut granted = 0;
        let mut see = |stop: Stop| names.insert(stop.reason().name());
        for pauses in [&[][..], &["tenant"], &["marketing"], &["transactional", "marketing"]] {
            let tenant = paused_acme(pauses);
            for bound in some {
                let login = login(bound);
                for from in ["app@acme.example", "app@other.example", "<>"] {
                    sender(&tenant, &login, &path(from)).into_result().map_err(&mut see).ok();
                }
                let bounced = entry(SuppressionReason::Bounce);
                recipient(&tenant, &login, std::slice::from_ref(&bounced), NOW).into_result().map_err(&mut see).ok();
                standing(None, &login, true).into_result().map_err(&mut see).ok();
                standing(Some(&tenant), &login, false).into_result().map_err(&mut see).ok();
                for at_the_tenant in [false, true] {
                    for step in [Step::Slowed, Step::TransactionalOnly, Step::Paused] {
                        let tenant = braked_acme(step, at_the_tenant, false);
                        sender(&tenant, &login, &ReversePath::Null).into_result().map_err(&mut see).ok();
                    }
                }
                let disabled = Tenant { ses_pause: Some(pause("ses")), ..acme() };
                sender(&disabled, &login, &ReversePath::Null).into_result().map_err(&mut see).ok();
                for (stream, set) in some.into_iter().flat_map(|stream| sets.map(|set| (stream, set))) {
                    let claims = from(&[("From", "app@acme.example")]);
                    match message(&tenant, &login, &claims, &wishes(stream, set)).into_result() {
                        Ok(stream) => {
                            granted += 1;
                            assert!(stream.pause.is_none() && tenant.pause.is_none());
                            assert!(login.stream.as_ref().is_none_or(|bound| *bound == stream.id));
                            assert!(set.is_none_or(|set| set == stream.configuration_set.as_str()));
                        }
                        Err(stop) => {
                            see(stop);
                        }
                    }
                }
            }
        }
        assert_eq!(names.len(), 15, "{names:?}");
        assert!(granted > 10, "{granted}");
    }
}
