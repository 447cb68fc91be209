//! The chain of rules that a message meets, in the order in which the gate asks them. Pure.
//!
//! [`verdict`] is what the gate comes to: it calls the same functions of [`decide`] in the same order.
//! [`chain`] says of each rule how it stands, whether it passes and when it would clear; so the first
//! one that does not pass is the verdict's reason, and what stands against the message besides is seen,
//! too.
//!
//! Promises: nothing is asked that the gate does not ask, and nothing is left out; figures of windows are
//! shown for what they are, since the gate goes by the standing that was judged of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mail::header::{Originators, Wishes};
use crate::mail::{Login, Mailbox, ReversePath, StreamId};
use crate::policy::cohort::Windows;
use crate::policy::decide::{self, Reason, Stop};
use crate::policy::reputation::{self, Ceilings, Lines, Offence, Rules, Span, Step as Standing, percent};
use crate::policy::tenant::{self, Pause, Stream, Suppression, Tenant};
use crate::time::Timestamp;

/// What is asked: one message from one address to one other.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose mail.
    pub tenant: &'a Tenant,
    /// By which login.
    pub login: &'a Login,
    /// Whether its credential is there with a secret that lives; true where no credential is named.
    pub credential_stands: bool,
    /// What stands against the credential.
    pub hold: Option<&'a Pause>,
    /// The reverse-path, and the author.
    pub from: &'a Mailbox,
    /// What the tenant's suppression list says of the recipient.
    pub entries: &'a [Suppression],
    /// The stream that the message names.
    pub wish: Option<&'a str>,
    /// What became of the mail of each stream.
    pub windows: &'a BTreeMap<StreamId, Windows>,
    /// The relay's rules of reputation.
    pub rules: &'a Rules,
    /// Whether the tenant has the ceilings of the young.
    pub young: bool,
    /// When.
    pub now: Timestamp,
}

/// When a rule is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// After DATA.
    Data,
    /// When the message is accepted: whether it goes at once or waits in the outbox.
    Outbox,
}

/// One rule.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// When it is asked.
    pub moment: Moment,
    /// Which.
    pub rule: &'static str,
    /// How it stands.
    pub value: String,
    /// What it is held against; empty where that says nothing.
    pub limit: String,
    /// Whether it passes; `None`: it is shown, and not asked by itself.
    pub passes: Option<bool>,
    /// When it would pass, if that is known.
    pub clears: Option<Timestamp>,
}

/// The name of the exposure window's gate.
pub const EXPOSURE: &str = "exposure window";

/// What an accepted message may have to wait for: a rate, a cap, a window, a breaker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gate {
    /// Which.
    pub name: String,
    /// How it stands.
    pub value: String,
    /// What it is held against.
    pub limit: String,
    /// Whether it is open.
    pub open: bool,
    /// When it opens, if that is known.
    pub until: Option<Timestamp>,
}

/// Why a message is not taken, and when it is told.
#[derive(Clone, PartialEq, Debug)]
pub struct Stopped {
    /// When.
    pub moment: Moment,
    /// Why.
    pub stop: Stop,
}

/// What the gate comes to: the stream by which the message goes, or why it is not taken.
pub fn verdict<'a>(ask: &Ask<'a>) -> Result<&'a Stream, Stopped> {
    let at = |moment| move |stop| Stopped { moment, stop };
    let Ask { tenant, login, entries, now, .. } = *ask;
    decide::standing(Some(tenant), login, ask.credential_stands)
        .into_result()
        .and_then(|_| decide::credential(login, ask.hold).into_result())
        .and_then(|()| decide::sender(tenant, login, &ReversePath::Mailbox(ask.from.clone())).into_result())
        .map_err(at(Moment::Mail))?;
    decide::recipient(tenant, login, entries, now).into_result().map_err(at(Moment::Rcpt))?;
    let originators = Originators { claims: vec![("From", ask.from.clone())] };
    let stream = decide::message(tenant, login, &originators, &wishes(ask)).into_result().map_err(at(Moment::Data))?;
    decide::recipient_under(stream, entries, now).into_result().map_err(at(Moment::Data))?;
    Ok(stream)
}

/// Every rule as it stands.
pub fn chain(ask: &Ask<'_>) -> Vec<Step> {
    let Ask { tenant, login, .. } = *ask;
    let mut steps = at_mail(ask);
    steps.push(recipient(ask));
    let stream = match decide::choose(tenant, login, &wishes(ask)) {
        Ok(stream) => {
            let why = match (&login.stream, ask.wish) {
                (_, Some(_)) => "the message names it",
                (Some(_), None) => "the credential is bound to it",
                (None, None) => "the tenant's default",
            };
            steps.push(Step {
                moment: Moment::Data,
                rule: "stream",
                value: format!("{}, {} ({why})", stream.id, stream.kind.word()),
                limit: String::new(),
                passes: Some(true),
                clears: None,
            });
            stream
        }
        Err(stop) => {
            let name = ask.wish.or(login.stream.as_ref().map(StreamId::as_str)).unwrap_or("the default");
            steps.push(Step {
                moment: Moment::Data,
                rule: "stream",
                value: format!("{name}: {}", stop.reason().name()),
                limit: listed(tenant.streams.keys()),
                passes: Some(false),
                clears: None,
            });
            return steps;
        }
    };
    steps.extend(of_stream(ask, stream));
    steps.push(owned(ask, Moment::Data, "From"));
    let binds = decide::suppressed_under(stream, ask.entries, ask.now);
    let reasons: Vec<&str> = stream.suppress_on.iter().map(|reason| reason.word()).collect();
    steps.push(Step {
        moment: Moment::Data,
        rule: "recipient under the stream",
        value: binds.map_or_else(|| "nothing binds".into(), entry_words),
        limit: format!("suppress_on: {}", if reasons.is_empty() { "nothing".into() } else { reasons.join(", ") }),
        passes: Some(binds.is_none()),
        clears: binds.and_then(|entry| entry.expires),
    });
    steps
}

/// What an accepted message meets, as rules.
pub fn at_outbox(gates: &[Gate]) -> impl Iterator<Item = Step> {
    gates.iter().map(|gate| Step {
        moment: Moment::Outbox,
        rule: "gate",
        value: format!("{}: {}", gate.name, gate.value),
        limit: gate.limit.clone(),
        passes: Some(gate.open),
        clears: gate.until.filter(|_| !gate.open),
    })
}

fn wishes(ask: &Ask<'_>) -> Wishes {
    Wishes { stream: ask.wish.map(str::to_owned), configuration_set: None, tags: Vec::new() }
}

fn at_mail(ask: &Ask<'_>) -> Vec<Step> {
    let Ask { tenant, login, .. } = *ask;
    let step = |rule, value: String, passes| Step {
        moment: Moment::Mail,
        rule,
        value,
        limit: String::new(),
        passes: Some(passes),
        clears: None,
    };
    let bound = login.stream.as_ref().map_or_else(|| "bound to no stream".into(), |id| format!("bound to {id}"));
    let gone = if ask.credential_stands { bound } else { "revoked, expired or without a secret that lives".into() };
    let mut steps = vec![
        step("tenant", tenant.id.to_string(), true),
        step("credential", format!("{}, {gone}", login.credential), ask.credential_stands),
        step("credential's hold", pause_words(ask.hold), ask.hold.is_none()),
        step("tenant's pause", pause_words(tenant.pause.as_ref()), tenant.pause.is_none()),
        step("Amazon SES's word on the tenant", pause_words(tenant.ses_pause.as_ref()), tenant.ses_pause.is_none()),
    ];
    let braked = tenant.standing.braked(Standing::Paused);
    steps.push(Step {
        clears: braked.and_then(|brake| brake.clears),
        ..step("tenant's standing", standing_words(&tenant.standing), braked.is_none())
    });
    let mut sum = Windows::default();
    ask.windows.values().for_each(|windows| sum += *windows);
    steps.extend(rates(ask, Moment::Mail, "tenant", &sum, &ask.rules.lines_of_tenant(&tenant.limits)));
    steps.push(some_stream(ask));
    steps.push(owned(ask, Moment::Mail, "MAIL FROM"));
    steps
}

/// Whether one of the streams that the login may choose may send.
fn some_stream(ask: &Ask<'_>) -> Step {
    let Ask { tenant, login, .. } = *ask;
    let step = |value: String, passes, clears| Step {
        moment: Moment::Mail,
        rule: "streams to choose from",
        value,
        limit: "one that may send".into(),
        passes: Some(passes),
        clears,
    };
    match decide::choices(tenant, login) {
        Err(stop) => step(stop.reason().name().into(), false, None),
        Ok(choices) => {
            let stops = |stream: &Stream| decide::stream_stops(tenant, stream);
            let each = choices.iter().map(|stream| match stops(stream) {
                None => format!("{} may send", stream.id),
                Some(reason) => format!("{} may not: {}", stream.id, reason.name()),
            });
            let words = each.collect::<Vec<_>>().join("; ");
            let runs = choices.iter().any(|stream| stops(stream).is_none());
            let clears = choices.iter().filter_map(|stream| stops(stream)).filter_map(|reason| decide::ends(&reason));
            step(words, runs, if runs { None } else { clears.min() })
        }
    }
}

fn owned(ask: &Ask<'_>, moment: Moment, claim: &'static str) -> Step {
    Step {
        moment,
        rule: claim,
        value: ask.from.to_string(),
        limit: listed(&ask.tenant.senders),
        passes: Some(ask.tenant.owns(ask.from)),
        clears: None,
    }
}

fn recipient(ask: &Ask<'_>) -> Step {
    let verdict = decide::recipient(ask.tenant, ask.login, ask.entries, ask.now).into_result();
    let standing: Vec<&Suppression> = ask.entries.iter().filter(|entry| entry.stands(ask.now)).collect();
    let words: Vec<String> = standing.iter().map(|entry| entry_words(entry)).collect();
    // All that stand must end, or change, for it to pass; one without an end never does by itself.
    let ends: Option<Vec<Timestamp>> = standing.iter().map(|entry| entry.expires).collect();
    Step {
        moment: Moment::Rcpt,
        rule: "recipient",
        value: if words.is_empty() { "not suppressed".into() } else { words.join("; ") },
        limit: "not suppressed under every stream to choose from".into(),
        passes: Some(verdict.is_ok()),
        clears: if verdict.is_ok() { None } else { ends.and_then(|ends| ends.into_iter().max()) },
    }
}

fn of_stream(ask: &Ask<'_>, stream: &Stream) -> Vec<Step> {
    let tenant = ask.tenant;
    let step = |rule, value: String, passes| Step {
        moment: Moment::Data,
        rule,
        value,
        limit: String::new(),
        passes: Some(passes),
        clears: None,
    };
    let braked = stream.standing.braked(Standing::Paused);
    let mut steps = vec![
        step("stream's pause", pause_words(stream.pause.as_ref()), stream.pause.is_none()),
        Step {
            clears: braked.and_then(|brake| brake.clears),
            ..step("stream's standing", standing_words(&stream.standing), braked.is_none())
        },
    ];
    let windows = ask.windows.get(&stream.id).copied().unwrap_or_default();
    let lines = ask.rules.lines_of_stream(stream.kind, &stream.limits, &tenant.limits);
    steps.extend(rates(ask, Moment::Data, "stream", &windows, &lines));
    let left_out = stream.kind != tenant::StreamKind::Transactional;
    let restricted = tenant.standing.braked(Standing::TransactionalOnly).filter(|_| left_out);
    steps.push(Step {
        limit: "transactional streams alone, where the tenant is left with them".into(),
        clears: restricted.and_then(|brake| brake.clears),
        ..step("tenant's restriction", standing_words(&tenant.standing), restricted.is_none())
    });
    steps
}

/// The rates of both windows beside their limits.
fn rates(ask: &Ask<'_>, moment: Moment, whose: &str, windows: &Windows, lines: &Lines) -> Vec<Step> {
    let of_tenant = whose == "tenant";
    let one = |(span, offence): (Span, Offence)| {
        let figures = span.of(windows);
        let (bad, accepted) = (offence.of(&figures), figures.accepted);
        let least = reputation::lower_bound(bad, accepted.max(ask.rules.least_recipients));
        let rate = percent(reputation::rate(bad, accepted));
        let (warn, slow, pause) =
            (percent(lines.warn(offence)), percent(lines.slow(offence)), percent(lines.pause(offence)));
        let mut limit = match of_tenant {
            true => format!("restricted over {pause}"),
            false => format!("warned over {warn}, slowed over {slow}, paused over {pause}"),
        };
        if ask.young {
            let ceilings = match span {
                Span::Day => &ask.rules.ceilings_day,
                Span::Week => &ask.rules.ceilings_week,
            };
            limit.push_str(&ceiling_words(ceilings, offence, of_tenant, &warn));
        }
        Step {
            moment,
            rule: rule_of(of_tenant, span, offence),
            value: format!("{rate} ({bad} of {accepted}), at least {}", percent(least)),
            limit,
            passes: None,
            clears: None,
        }
    };
    Offence::ALL.into_iter().flat_map(|offence| Span::ALL.map(|span| one((span, offence)))).collect()
}

fn ceiling_words(ceilings: &Ceilings, offence: Offence, of_tenant: bool, warn: &str) -> String {
    let (first, last) = ceilings.of(offence);
    let bad = offence.word();
    match of_tenant {
        true => format!("; new: {last} {bad}s over {warn}"),
        false => format!("; new: warned at {first} {bad}s over {warn}, paused at {last}"),
    }
}

fn rule_of(of_tenant: bool, span: Span, offence: Offence) -> &'static str {
    match (of_tenant, offence, span) {
        (true, Offence::Bounce, Span::Day) => "tenant's bounces, 24 hours",
        (true, Offence::Bounce, Span::Week) => "tenant's bounces, 7 days",
        (true, Offence::Complaint, Span::Day) => "tenant's complaints, 24 hours",
        (true, Offence::Complaint, Span::Week) => "tenant's complaints, 7 days",
        (false, Offence::Bounce, Span::Day) => "stream's bounces, 24 hours",
        (false, Offence::Bounce, Span::Week) => "stream's bounces, 7 days",
        (false, Offence::Complaint, Span::Day) => "stream's complaints, 24 hours",
        (false, Offence::Complaint, Span::Week) => "stream's complaints, 7 days",
    }
}

/// A standing in words: `good`, `paused since …: …`, `would be paused …`.
pub fn standing_words(standing: &tenant::Standing) -> String {
    let Some(brake) = &standing.brake else { return "good".into() };
    let would = if brake.shadow { "only told of: would be " } else { "" };
    format!("{would}{} since {}: {}", brake.step.words(), brake.since.rfc3339(), brake.charge)
}

fn pause_words(pause: Option<&Pause>) -> String {
    pause.map_or_else(|| "none".into(), |pause| format!("since {}: {}", pause.at.rfc3339(), pause.reason))
}

fn entry_words(entry: &Suppression) -> String {
    let until = entry.expires.map(|until| format!(" until {}", until.rfc3339())).unwrap_or_default();
    format!("{} since {}{until} ({})", entry.reason.word(), entry.at.rfc3339(), entry.origin)
}

fn listed<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

impl Moment {
    /// `MAIL`, `RCPT`, `DATA`, `outbox`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Outbox => "outbox",
        }
    }
}

/// The rule of [`chain`] that is the reason of a verdict.
pub fn rule_for(moment: Moment, reason: &Reason) -> &'static str {
    let at_mail = moment == Moment::Mail;
    match reason {
        Reason::TenantGone => "tenant",
        Reason::CredentialGone => "credential",
        Reason::CredentialHeld { .. } => "credential's hold",
        Reason::TenantPaused(_) => "tenant's pause",
        Reason::SesTenantDisabled(_) => "Amazon SES's word on the tenant",
        Reason::TenantBraked(brake) if brake.step == Standing::Paused => "tenant's standing",
        Reason::TenantBraked(_) | Reason::StreamBraked { .. } | Reason::StreamPaused { .. } if at_mail => {
            "streams to choose from"
        }
        Reason::TenantBraked(_) => "tenant's restriction",
        Reason::StreamBraked { .. } => "stream's standing",
        Reason::StreamPaused { .. } => "stream's pause",
        Reason::StreamGone { .. } => "streams to choose from",
        Reason::SenderNotOwned { claim, .. } => claim,
        Reason::StreamUnknown { .. }
        | Reason::StreamNotAllowed { .. }
        | Reason::SetNotOwned { .. }
        | Reason::SetNotAllowed { .. }
        | Reason::WishesDisagree { .. } => "stream",
        Reason::Suppressed { .. } if moment == Moment::Rcpt => "recipient",
        Reason::Suppressed { .. } => "recipient under the stream",
    }
}
