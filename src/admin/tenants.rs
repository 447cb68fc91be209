//! Commands on tenants and streams.

use crate::journal;
use crate::mail::{StreamId, TenantId};
use crate::policy::tenant::{Limits, Pause, Tenant};
use crate::store::counters::{self, Counts};
use crate::store::directory::Directory;
use crate::store::tenants::{self, Declared, DeclaredTenant};
use crate::time::Hour;

use super::command::{Desk, PAGE, Response, nearest, reason};
use super::error::CommandError;
use super::view::{CredentialView, StreamView, TenantRow, TenantView};

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
    let now = desk.clock.now();
    let mut streams = Vec::with_capacity(tenant.streams.len());
    for stream in tenant.streams.values() {
        let Hour(this) = now.hour();
        let since = async |hours: u32| -> Result<Counts, CommandError> {
            // The hour that has begun and so many full ones before it.
            let from = Hour(this.saturating_sub(hours));
            Ok(counters::of(desk.store.as_ref(), id, &stream.id, from, Hour(this)).await?)
        };
        streams.push(StreamView::of(stream, since(24).await?, since(24 * 7).await?));
    }
    let mut credentials: Vec<_> = directory
        .credentials()
        .filter(|credential| credential.tenant == *id)
        .map(|credential| CredentialView::of(credential, directory.hold(&credential.username), now))
        .collect();
    credentials.sort_by(|a, b| a.username.cmp(&b.username));
    Ok(Response::Tenant(Box::new(TenantView::of(tenant, streams, credentials))))
}

pub(super) async fn pause(
    desk: &Desk,
    id: &TenantId,
    stream: Option<&StreamId>,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    check_stream(find(&desk.directory.load(), id)?, stream)?;
    let why = reason(why, "paused by the operator");
    let pause = Pause { at: desk.clock.now(), actor: actor.into(), reason: why.clone() };
    tenants::pause(desk.store.as_ref(), id, stream, &pause).await?;
    desk.reload().await?;
    journal::changed(actor, &on_stream("tenant pause", stream), Some(id), &why);
    show(desk, id).await
}

pub(super) async fn resume(
    desk: &Desk,
    id: &TenantId,
    stream: Option<&StreamId>,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let paused = {
        let directory = desk.directory.load();
        let tenant = find(&directory, id)?;
        check_stream(tenant, stream)?;
        match stream {
            None => tenant.pause.is_some(),
            Some(stream) => tenant.streams.get(stream).is_some_and(|stream| stream.pause.is_some()),
        }
    };
    if !paused {
        let what = stream.map_or_else(|| format!("tenant {id}"), |stream| format!("stream {stream} of tenant {id}"));
        return Err(CommandError::NotPaused { what });
    }
    tenants::resume(desk.store.as_ref(), id, stream).await?;
    desk.reload().await?;
    journal::changed(actor, &on_stream("tenant resume", stream), Some(id), &reason(why, ""));
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
    *limits = merged(if reset { Limits::default() } else { *limits }, wanted);
    check_limits(limits)?;
    // The same way as a tenants file, so that there is one way to write a tenant. Its senders and
    // streams are the ones it has: without prune nothing else changes.
    let declared = Declared { tenants: vec![DeclaredTenant { tenant, credentials: Vec::new() }] };
    let changes = differences(&directory, &declared, false)?;
    tenants::apply(desk.store.as_ref(), &changes).await?;
    desk.reload().await?;
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    journal::changed(actor, &on_stream("tenant limits", stream), Some(id), &reason(why, &words.join("; ")));
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
        let applied = tenants::apply(desk.store.as_ref(), &changes).await;
        // Several batches: some may be in when a later one failed, so what is there is put in force either way.
        desk.reload().await?;
        applied?;
        let command = if prune { "apply --prune" } else { "apply" };
        journal::changed(actor, command, None, &format!("{source}: {} changes", changes.len()));
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
