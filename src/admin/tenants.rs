//! Commands on tenants and streams.

use std::collections::BTreeMap;

use crate::mail::{StreamId, TenantId};
use crate::outbox::Lane;
use crate::policy::cohort::{DAY, Figures, History, WEEK, Windows};
use crate::policy::explain::EXPOSURE;
use crate::policy::reputation::{Rules, begin_of};
use crate::policy::tenant::{Cohort, Limits, Pause, Stream, Tenant};
use crate::store::counters::{self, Counts};
use crate::store::directory::Directory;
use crate::store::domains;
use crate::store::tenants::{self, Declared, DeclaredTenant};
use crate::time::{Hour, Timestamp};

use super::command::{Changed, Desk, PAGE, Response, nearest, reason};
use super::error::CommandError;
use super::view::{CredentialView, DomainRow, StreamView, TenantRow, TenantView};

/// The tenant, or an error with the nearest name.
pub(super) fn find<'a>(directory: &'a Directory, id: &TenantId) -> Result<&'a std::sync::Arc<Tenant>, CommandError> {
    directory.tenant(id).ok_or_else(|| CommandError::NoTenant {
        tenant: id.to_string(),
        near: nearest(id.as_str(), directory.tenants().map(|tenant| tenant.id.as_str())),
    })
}

/// That the tenant has the stream, or an error with the nearest name.
pub(super) fn check_stream(tenant: &Tenant, stream: Option<&StreamId>) -> Result<(), CommandError> {
    match stream {
        Some(stream) if !tenant.streams.contains_key(stream) => Err(CommandError::NoStream {
            tenant: tenant.id.to_string(),
            stream: stream.to_string(),
            near: nearest(stream.as_str(), tenant.streams.keys().map(StreamId::as_str)),
        }),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn list(desk: &Desk, after: Option<&TenantId>) -> Response {
    let directory = desk.directory.load();
    let mut credentials = std::collections::HashMap::<&TenantId, usize>::new();
    for credential in directory.credentials() {
        *credentials.entry(&credential.tenant).or_default() += 1;
    }
    let rows = directory
        .tenants()
        .filter(|tenant| after.is_none_or(|after| tenant.id > *after))
        .take(PAGE)
        .map(|tenant| TenantRow::of(tenant, credentials.get(&tenant.id).copied().unwrap_or_default()));
    Response::Tenants(rows.collect())
}

pub(super) async fn show(desk: &Desk, id: &TenantId) -> Result<Response, CommandError> {
    let directory = desk.directory.load_full();
    let tenant = find(&directory, id)?;
    let (now, rules) = (desk.clock.now(), desk.rules());
    let mut read = Vec::with_capacity(tenant.streams.len());
    let (mut sum, mut first) = (Windows::default(), None);
    for stream in tenant.streams.values() {
        let cohorts = cohorts(desk, tenant, stream, now).await?;
        let history = counted(stream, &cohorts, now);
        sum += history.windows();
        first = first.into_iter().chain(history.first()).min();
        read.push((stream, cohorts, history));
    }
    let young = is_young(tenant, first, &rules, now);
    let view = |(stream, cohorts, history): (&Stream, Vec<(Cohort, Counts)>, History)| {
        let Hour(this) = now.hour();
        let since = |hours: u32| {
            // The hour that has begun and so many full ones before it.
            let hours = Hour(this.saturating_sub(hours))..=Hour(this);
            let mut all = Counts::default();
            cohorts.iter().filter(|(of, _)| hours.contains(&of.hour)).for_each(|(_, counts)| all += *counts);
            all
        };
        let view = StreamView::of(stream, since(DAY), since(WEEK));
        let lane = Lane { tenant: id.clone(), stream: Some(stream.id.clone()) };
        let exposure = desk.gates(&lane).into_iter().find(|gate| gate.name == EXPOSURE);
        let exposure = exposure.map(|gate| format!("{}; the window: {}", gate.value, gate.limit));
        StreamView { exposure, ..view.judged(&history, (tenant, stream), &rules, young, now) }
    };
    let streams = read.into_iter().map(view).collect();
    let mut credentials: Vec<_> = directory
        .credentials()
        .filter(|credential| credential.tenant == *id)
        .map(|credential| CredentialView::of(credential, directory.hold(&credential.username), now))
        .collect();
    credentials.sort_by(|a, b| a.username.cmp(&b.username));
    let view = TenantView::of(tenant, streams, credentials).with_rates(&sum, tenant, &rules, young);
    Ok(Response::Tenant(Box::new(view)))
}

/// The rows of a stream's mail of the last 7 days.
async fn cohorts(
    desk: &Desk,
    tenant: &Tenant,
    stream: &Stream,
    now: Timestamp,
) -> Result<Vec<(Cohort, Counts)>, CommandError> {
    let from = Hour(now.hour().0.saturating_sub(WEEK));
    Ok(counters::cohorts(desk.store.as_ref(), &tenant.id, &stream.id, from, Hour(u32::MAX)).await?)
}

/// What of them counts: what was sent since the last resume.
fn counted(stream: &Stream, cohorts: &[(Cohort, Counts)], now: Timestamp) -> History {
    let mut history = History::default();
    history.roll(now.hour());
    for (cohort, counts) in cohorts.iter().filter(|(cohort, _)| stream.standing.counts(*cohort)) {
        let Counts { accepted, bounced, complained, .. } = *counts;
        history.add(cohort.hour, Figures { accepted, bounced, complained });
    }
    history
}

/// What counts of a stream's mail of the last 7 days.
pub(super) async fn history(
    desk: &Desk,
    tenant: &Tenant,
    stream: &Stream,
    now: Timestamp,
) -> Result<History, CommandError> {
    Ok(counted(stream, &cohorts(desk, tenant, stream, now).await?, now))
}

/// Whether the tenant has the ceilings of the young; `first` is the first hour that its counters know.
pub(super) fn is_young(tenant: &Tenant, first: Option<Hour>, rules: &Rules, now: Timestamp) -> bool {
    rules.is_young(tenant.standing.first.or(first.map(begin_of)), now)
}

/// What became of a tenant's mail by recipient domain, the worst first.
pub(super) async fn domains(desk: &Desk, id: &TenantId, days: u32) -> Result<Response, CommandError> {
    find(&desk.directory.load(), id)?;
    let today = domains::day_of(desk.clock.now());
    let from = today.saturating_sub(days.saturating_sub(1));
    let mut sums: BTreeMap<String, Counts> = BTreeMap::new();
    for (_, domain, counts) in domains::of(desk.store.as_ref(), id, from, u32::MAX).await? {
        *sums.entry(domain).or_default() += counts;
    }
    let mut rows: Vec<DomainRow> = sums.into_iter().map(|(domain, counts)| DomainRow::of(domain, counts)).collect();
    let badness = |row: &DomainRow| (row.bounce_rate, row.complaint_rate);
    rows.sort_by(|a, b| {
        let ((bounces, complaints), (others, other_complaints)) = (badness(a), badness(b));
        let by_rate = others.total_cmp(&bounces).then(other_complaints.total_cmp(&complaints));
        by_rate.then(b.counts.accepted.cmp(&a.counts.accepted)).then_with(|| a.domain.cmp(&b.domain))
    });
    rows.truncate(PAGE);
    Ok(Response::Domains(rows))
}

pub(super) async fn pause(
    desk: &Desk,
    id: &TenantId,
    stream: Option<&StreamId>,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let before = {
        let directory = desk.directory.load();
        let tenant = find(&directory, id)?;
        check_stream(tenant, stream)?;
        standing(pause_of(tenant, stream))
    };
    let why = reason(why, "paused by the operator");
    let pause = Pause { at: desk.clock.now(), actor: actor.into(), reason: why.clone() };
    let command = on_stream("tenant pause", stream);
    let changed = Changed {
        tenant: Some(id),
        stream,
        reason: &why,
        before: &before,
        after: &standing(Some(&pause)),
        ..Changed::by(actor, &command)
    };
    tenants::pause(desk.store.as_ref(), id, stream, &pause, desk.batch_of(&changed)).await?;
    desk.reload().await?;
    changed.tell();
    show(desk, id).await
}

pub(super) async fn resume(
    desk: &Desk,
    id: &TenantId,
    stream: Option<&StreamId>,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let directory = desk.directory.load_full();
    let tenant = find(&directory, id)?;
    check_stream(tenant, stream)?;
    let restrained = match stream.and_then(|stream| tenant.streams.get(stream)) {
        Some(stream) => stream.pause.is_some() || stream.standing.brake.is_some(),
        None => {
            let braked = tenant.streams.values().any(|stream| stream.standing.brake.is_some());
            tenant.pause.is_some() || tenant.standing.brake.is_some() || braked
        }
    };
    let before = standing(pause_of(tenant, stream));
    if !restrained {
        let what = stream.map_or_else(|| format!("tenant {id}"), |stream| format!("stream {stream} of tenant {id}"));
        return Err(CommandError::NotPaused { what });
    }
    let command = on_stream("tenant resume", stream);
    let changed = Changed {
        tenant: Some(id),
        stream,
        reason: &reason(why, ""),
        before: &before,
        after: &standing(None),
        ..Changed::by(actor, &command)
    };
    tenants::resume(desk.store.as_ref(), tenant, stream, desk.clock.now(), desk.batch_of(&changed)).await?;
    desk.reload().await?;
    desk.resumed(tenant, stream);
    changed.tell();
    show(desk, id).await
}

pub(super) async fn limits(
    desk: &Desk,
    id: &TenantId,
    stream: Option<&StreamId>,
    wanted: &Limits,
    reset: bool,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let directory = desk.directory.load_full();
    let mut tenant = Tenant::clone(find(&directory, id)?);
    check_stream(&tenant, stream)?;
    let limits = match stream.and_then(|stream| tenant.streams.get_mut(stream)) {
        Some(stream) => &mut stream.limits,
        None => &mut tenant.limits,
    };
    let before = limit_words(limits);
    *limits = merged(if reset { Limits::default() } else { *limits }, wanted);
    check_limits(limits)?;
    let after = limit_words(limits);
    // The same way as a tenants file, so that there is one way to write a tenant. Its senders and
    // streams are the ones it has: without prune nothing else changes.
    let declared = Declared { tenants: vec![DeclaredTenant { tenant, credentials: Vec::new() }] };
    let changes = differences(&directory, &declared, false)?;
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let command = on_stream("tenant limits", stream);
    let changed = Changed {
        tenant: Some(id),
        stream,
        reason: &reason(why, &words.join("; ")),
        before: &before,
        after: &after,
        ..Changed::by(actor, &command)
    };
    tenants::apply(desk.store.as_ref(), &changes, &desk.trail(&changed)).await?;
    desk.reload().await?;
    changed.tell();
    show(desk, id).await
}

pub(super) async fn apply(
    desk: &Desk,
    declared: &Declared,
    source: &str,
    dry_run: bool,
    prune: bool,
    actor: &str,
) -> Result<Response, CommandError> {
    let changes = differences(&desk.directory.load_full(), declared, prune)?;
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    if !dry_run && !changes.is_empty() {
        let command = if prune { "apply --prune" } else { "apply" };
        let parts: Vec<_> =
            changes.iter().zip(&words).map(|(change, words)| (change.tenant().clone(), words.clone())).collect();
        let why = format!("{source}: {} changes", changes.len());
        let changed = Changed { reason: &why, parts: &parts, ..Changed::by(actor, command) };
        let applied = tenants::apply(desk.store.as_ref(), &changes, &desk.trail(&changed)).await;
        // Several batches: some may be in when a later one failed, so what is there is put in force either way.
        desk.reload().await?;
        applied?;
        changed.tell();
    }
    Ok(Response::Applied { changes, words, dry_run })
}

fn differences(current: &Directory, wanted: &Declared, prune: bool) -> Result<Vec<tenants::Change>, CommandError> {
    tenants::differences(current, wanted, prune)
        .map_err(|conflicts| CommandError::Conflicts { conflicts: conflicts.iter().map(ToString::to_string).collect() })
}

fn on_stream(command: &str, stream: Option<&StreamId>) -> String {
    stream.map_or_else(|| command.to_owned(), |stream| format!("{command} --stream {stream}"))
}

fn pause_of<'a>(tenant: &'a Tenant, stream: Option<&StreamId>) -> Option<&'a Pause> {
    match stream {
        None => tenant.pause.as_ref(),
        Some(stream) => tenant.streams.get(stream)?.pause.as_ref(),
    }
}

/// For the audit trail.
fn standing(pause: Option<&Pause>) -> String {
    match pause {
        None => "sending".into(),
        Some(pause) => format!("paused since {} by {}: {}", pause.at.rfc3339(), pause.actor, pause.reason),
    }
}

/// For the audit trail.
fn limit_words(limits: &Limits) -> String {
    let Limits { warn_bounce, warn_complaint, pause_bounce, pause_complaint } = limits;
    let named = [
        ("warn_bounce", warn_bounce),
        ("warn_complaint", warn_complaint),
        ("pause_bounce", pause_bounce),
        ("pause_complaint", pause_complaint),
    ];
    let own: Vec<String> =
        named.into_iter().filter_map(|(name, rate)| Some(format!("{name} {}", rate.as_ref()?))).collect();
    if own.is_empty() { "its kind's".into() } else { own.join(", ") }
}

fn merged(old: Limits, new: &Limits) -> Limits {
    Limits {
        warn_bounce: new.warn_bounce.or(old.warn_bounce),
        warn_complaint: new.warn_complaint.or(old.warn_complaint),
        pause_bounce: new.pause_bounce.or(old.pause_bounce),
        pause_complaint: new.pause_complaint.or(old.pause_complaint),
    }
}

fn check_limits(limits: &Limits) -> Result<(), CommandError> {
    let bad = |limit: &str, value: f64| CommandError::BadLimit { limit: limit.into(), value: value.to_string() };
    for (warn_name, warn, pause) in [
        ("warn_bounce", limits.warn_bounce, limits.pause_bounce),
        ("warn_complaint", limits.warn_complaint, limits.pause_complaint),
    ] {
        for (name, rate) in [(warn_name.to_owned(), warn), (warn_name.replace("warn", "pause"), pause)] {
            if let Some(rate) = rate.filter(|rate| !(0.0..=1.0).contains(rate)) {
                return Err(bad(&name, rate));
            }
        }
        if let (Some(warn), Some(pause)) = (warn, pause)
            && warn > pause
        {
            return Err(bad(warn_name, warn));
        }
    }
    Ok(())
}
