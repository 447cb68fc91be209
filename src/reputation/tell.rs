//! What a change of standing says: in the audit trail, in the log, and to people.
//!
//! Promises: what is told of a tenant names no other tenant and none of its figures; the account's
//! contributors are told to the operator alone.

use crate::announce::{Announcement, Kind, Severity};
use crate::journal;
use crate::mail::{MessageId, StreamId, TenantId};
use crate::policy::reputation::{Brake, Charge, Offence, Rule, Step, percent};
use crate::policy::tenant::{StreamKind, Tenant};
use crate::secret::Random;
use crate::store::audit::{Entry, RELAY};
use crate::store::directory::Directory;
use crate::time::Timestamp;

use super::book::{Change, why};

/// Most contributors that are named.
const NAMED: usize = 10;

/// The change in the audit trail.
pub(super) fn entry(change: &Change, now: Timestamp, random: &dyn Random) -> Entry {
    let shadow = if change.is_shadow() { "would be " } else { "" };
    let whose = if change.stream.is_some() { "stream" } else { "tenant" };
    let what = format!("{whose} {shadow}{}", change.to().word());
    Entry {
        tenant: Some(change.tenant.clone()),
        stream: change.stream.clone(),
        reason: why(if change.to() > Step::Good { &change.after } else { &change.before }),
        before: change.from().word().into(),
        after: change.to().word().into(),
        ..Entry::new(MessageId::new(now, random), RELAY, &what)
    }
}

/// The change in the log.
pub(super) fn line(change: &Change) {
    let brake = change.after.brake.as_ref();
    let told = journal::StandingChanged {
        tenant: &change.tenant,
        stream: change.stream.as_ref(),
        from: change.from().word(),
        to: change.to().word(),
        is_worse: change.to() > change.from(),
        is_shadow: change.is_shadow(),
        reason: why(if change.to() > Step::Good { &change.after } else { &change.before }),
        until: brake.and_then(|brake| brake.clears),
    };
    journal::standing_changed(&told);
}

/// The change for the tenant's contact, the operator and the webhook.
pub(super) fn announcement(change: &Change, tenant: &Tenant, now: Timestamp, random: &dyn Random) -> Announcement {
    let (kind, severity) = kind_of(change);
    let mut told = Announcement::new(now, random, kind, severity, &headline(change));
    told.tenant = Some(change.tenant.clone());
    told.stream = change.stream.clone();
    if let Some(brake) = &change.after.brake {
        told.figures = figures(&brake.charge);
        told.clears = brake.clears.filter(|_| brake.step >= Step::TransactionalOnly);
    }
    told.still_works = still_works(change, tenant);
    told.to_do = to_do(change);
    told
}

fn kind_of(change: &Change) -> (Kind, Severity) {
    let is_stream = change.stream.is_some();
    if change.to() < change.from() {
        return (if is_stream { Kind::StreamResumed } else { Kind::TenantResumed }, Severity::Notice);
    }
    match (change.to(), is_stream) {
        (Step::Good, true) => (Kind::StreamResumed, Severity::Notice),
        (Step::Good, false) => (Kind::TenantResumed, Severity::Notice),
        (Step::Warned, true) => (Kind::StreamWarned, Severity::Warning),
        (Step::Slowed, true) => (Kind::StreamSlowed, Severity::Warning),
        (Step::Warned | Step::Slowed, false) => (Kind::TenantWarned, Severity::Warning),
        (Step::TransactionalOnly, _) => (Kind::TenantRestricted, Severity::Alarm),
        (Step::Paused, true) => (Kind::StreamPaused, Severity::Alarm),
        (Step::Paused, false) => (Kind::TenantPaused, Severity::Alarm),
    }
}

fn headline(change: &Change) -> String {
    let who = match &change.stream {
        Some(stream) => format!("stream {stream} of tenant {}", change.tenant),
        None => format!("tenant {}", change.tenant),
    };
    let charge = change.after.brake.as_ref().map(|brake| brake.charge.to_string()).unwrap_or_default();
    let what = match change.to() {
        Step::Good => return format!("The {who} is in good standing again"),
        Step::Warned if change.to() < change.from() => "sends again, and stays warned",
        Step::Slowed if change.to() < change.from() => "sends again, at half its rate",
        Step::Warned => "is warned",
        Step::Slowed => "is slowed to half its rate",
        Step::TransactionalOnly => "is left with its transactional streams",
        Step::Paused => "is paused",
    };
    format!("The {who} {what}: {charge}")
}

/// The charge's figures, one by one.
fn figures(charge: &Charge) -> Vec<(String, String)> {
    let rate = format!("{} ({} of {})", percent(charge.rate()), charge.bad, charge.accepted);
    let limit = match charge.rule {
        Rule::Ceiling => format!("{} {}s for a tenant's first weeks", charge.limit, charge.offence.word()),
        Rule::Rate | Rule::Account | Rule::SesTenant | Rule::Damaged => percent(charge.limit),
    };
    let label = format!("{} rate, {}", charge.offence.word(), charge.span.words());
    vec![(label, rate), ("limit".into(), limit)]
}

fn still_works(change: &Change, tenant: &Tenant) -> Vec<String> {
    let ids = |runs: &dyn Fn(&crate::policy::tenant::Stream) -> bool| {
        let ids: Vec<&str> = tenant.streams.values().filter(|stream| runs(stream)).map(|s| s.id.as_str()).collect();
        ids.join(", ")
    };
    let others = match (change.to(), &change.stream) {
        (Step::Good, _) => return Vec::new(),
        (Step::Warned | Step::Slowed, _) => return vec!["all mail is still sent".into()],
        (Step::Paused, None) => return vec!["nothing is lost: mail that was accepted waits".into()],
        (Step::TransactionalOnly, _) => ids(&|stream| stream.kind == StreamKind::Transactional),
        (Step::Paused, Some(paused)) => {
            ids(&|stream| stream.id != *paused && stream.standing.braked(Step::Paused).is_none())
        }
    };
    let waits = "nothing is lost: mail that was accepted waits until it may be sent or is too old".to_owned();
    if others.is_empty() { vec![waits] } else { vec![format!("mail of these streams: {others}"), waits] }
}

fn to_do(change: &Change) -> Vec<String> {
    let Some(Brake { charge, step, .. }) = &change.after.brake else { return Vec::new() };
    let list = match charge.offence {
        Offence::Bounce => "stop the campaign, and take the addresses that bounced off the list it was sent to",
        Offence::Complaint => "stop the campaign; write only to those who asked for it, with a way out in each mail",
    };
    let mut todo = vec![list.to_owned()];
    if *step >= Step::TransactionalOnly {
        let stream = change.stream.as_ref().map(|stream| format!(" --stream {stream}")).unwrap_or_default();
        todo.push(format!(
            "once the list is clean, the operator resumes it with a fresh window: bulkhead tenant resume {}{stream} --reason \"list cleaned\"",
            change.tenant
        ));
    }
    todo.push(format!("the chain of rules with their figures: bulkhead tenant show {}", change.tenant));
    todo
}

/// That the account is over its line, or under it again.
pub(super) fn account(
    charge: Option<&Charge>,
    worst: &[(TenantId, StreamId, f64)],
    directory: &Directory,
    now: Timestamp,
    random: &dyn Random,
) -> Announcement {
    let Some(charge) = charge else {
        let headline = "The account's bounce and complaint rates are under their lines again";
        return Announcement::new(now, random, Kind::AccountResumed, Severity::Notice, headline);
    };
    let headline = format!(
        "The account's {} rate nears Amazon SES's line: {} ({} of {} in {})",
        charge.offence.word(),
        percent(charge.rate()),
        charge.bad,
        charge.accepted,
        charge.span.words()
    );
    let mut told = Announcement::new(now, random, Kind::AccountWarned, Severity::Alarm, &headline);
    told.figures = figures(charge);
    for (tenant, stream, share) in worst.iter().take(NAMED) {
        told.figures.push((format!("{tenant}, stream {stream}"), format!("{} of what is bad", percent(*share))));
    }
    let others = directory.tenants().count().saturating_sub(worst.len());
    told.still_works = vec![format!("transactional mail of all tenants, and all mail of {others} tenants")];
    told.to_do =
        vec!["talk to the contributors named here; their streams are paused until their figures are better".into()];
    told
}

/// The contributors by their shares, for the log.
pub(super) fn shares(worst: &[(TenantId, StreamId, f64)]) -> String {
    let share = |(tenant, stream, share): &(TenantId, StreamId, f64)| format!("{tenant}/{stream} {}", percent(*share));
    worst.iter().take(NAMED).map(share).collect::<Vec<_>>().join(", ")
}
