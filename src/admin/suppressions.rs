//! Commands on suppression lists.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::journal;
use crate::mail::{Mailbox, TenantId};
use crate::policy::tenant::{Suppression, SuppressionReason};
use crate::store::suppressions::{self as entries, ChangeError, RemoveError, Removed};
use crate::time::Timestamp;

use super::command::{CHUNK, Changed, Desk, PAGE, Response, reason};
use super::error::CommandError;
use super::listfile::{self, Entry};
use super::tenants::find;
use super::view::{SuppressionView, Unsuppressed};

pub(super) async fn list(
    desk: &Desk,
    tenant: &TenantId,
    after: Option<(String, SuppressionReason)>,
) -> Result<Response, CommandError> {
    find(&desk.directory.load(), tenant)?;
    let now = desk.clock.now();
    let after = after.as_ref().map(|(folded, reason)| (folded.as_str(), *reason));
    let page = entries::list(desk.store.as_ref(), tenant, after, PAGE).await?;
    Ok(Response::Suppressions(
        page.into_iter().map(|(address, entry)| SuppressionView::of(address, &entry, now)).collect(),
    ))
}

pub(super) async fn show(desk: &Desk, tenant: &TenantId, address: &Mailbox) -> Result<Response, CommandError> {
    find(&desk.directory.load(), tenant)?;
    let found = entries::find(desk.store.as_ref(), tenant, address).await?;
    if found.is_empty() {
        Err(not_there(tenant, address))
    } else {
        Ok(Response::Suppressions(views(desk, address, &found)))
    }
}

pub(super) async fn add(
    desk: &Desk,
    tenant: &TenantId,
    address: &Mailbox,
    (kind, expires): (SuppressionReason, Option<Timestamp>),
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    find(&desk.directory.load(), tenant)?;
    let now = desk.clock.now();
    if let Some(at) = expires.filter(|at| *at <= now) {
        return Err(CommandError::InThePast { what: "the entry".into(), at: at.rfc3339() });
    }
    let entry = Suppression { reason: kind, origin: reason(why, "cli"), at: now, expires, actor: actor.into() };
    let changed = Changed {
        tenant: Some(tenant),
        reason: &about(address, why),
        after: listfile::word(kind),
        ..Changed::by(actor, "suppression add")
    };
    // What outlasts it stays, and nothing was changed.
    if entries::add(desk.store.as_ref(), tenant, address, &entry, &desk.batch_of(&changed)).await? {
        changed.tell();
    }
    show(desk, tenant, address).await
}

pub(super) async fn remove(
    desk: &Desk,
    tenant: &TenantId,
    address: &Mailbox,
    (kind, force): (Option<SuppressionReason>, bool),
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    find(&desk.directory.load(), tenant)?;
    let changed =
        Changed { tenant: Some(tenant), reason: &about(address, why), ..Changed::by(actor, "suppression remove") };
    let trail = |removed: &Removed| {
        let gone: Vec<&str> = removed.gone.iter().map(|entry| listfile::word(entry.reason)).collect();
        let stays = removed.stays.as_ref().map(|entry| listfile::word(entry.reason));
        desk.batch_of(&Changed { before: &gone.join(", "), after: stays.unwrap_or_default(), ..changed })
    };
    let removed =
        entries::remove(desk.store.as_ref(), tenant, address, kind, force, trail).await.map_err(
            |error| match error {
                RemoveError::NotThere => not_there(tenant, address),
                RemoveError::ComplaintNeedsForce => CommandError::ComplaintNeedsForce { address: address.to_string() },
                RemoveError::Read(error) => error.into(),
                RemoveError::Commit(error) => error.into(),
            },
        )?;
    changed.tell();
    Ok(Response::Unsuppressed(Unsuppressed {
        removed: views(desk, address, &removed.gone),
        stays: removed.stays.map(|entry| SuppressionView::of(address.folded(), &entry, desk.clock.now())),
    }))
}

fn views(desk: &Desk, address: &Mailbox, entries: &[Suppression]) -> Vec<SuppressionView> {
    let now = desk.clock.now();
    entries.iter().map(|entry| SuppressionView::of(address.folded(), entry, now)).collect()
}

pub(super) async fn import(
    desk: &Desk,
    tenant: &TenantId,
    source: &str,
    given: Vec<Entry>,
    actor: &str,
) -> Result<Response, CommandError> {
    find(&desk.directory.load(), tenant)?;
    if given.len() > CHUNK {
        return Err(CommandError::TooMany { what: "entries".into(), given: given.len(), most: CHUNK });
    }
    let now = desk.clock.now();
    let source = reason(source, "file");
    let count = given.len();
    let (mut added, mut kept) = (0, 0);
    let mut under_way = JoinSet::new();
    let mut failed = None;
    let mut given: Vec<_> = given
        .into_iter()
        .map(|one| {
            let origin = reason(one.origin.as_deref().unwrap_or_default(), &format!("import {source}"));
            let (at, expires) = (one.at.unwrap_or(now), one.expires);
            (one.address, Suppression { reason: one.reason, origin, at, expires, actor: actor.into() })
        })
        .collect();
    // A commit for every so many, and several at once, which the store writes together.
    while !given.is_empty() {
        let some = given.split_off(given.len().saturating_sub(entries::MANY));
        let (store, tenant) = (Arc::clone(&desk.store), tenant.clone());
        under_way.spawn(async move {
            let added = entries::add_many(store.as_ref(), &tenant, &some).await?;
            Ok::<_, ChangeError>((added, some.len() - added))
        });
    }
    while let Some(ended) = under_way.join_next().await {
        match ended {
            Ok(Ok((new, there))) => {
                added += new;
                kept += there;
            }
            Ok(Err(error)) => failed = Some(CommandError::from(error)),
            Err(_) => failed = Some(CommandError::Fault),
        }
    }
    // Told even if it failed half way: what is in, is in, and the same file may be imported again.
    if count > 0 {
        let what = format!("{source}: {added} added, {kept} kept");
        let changed = Changed { tenant: Some(tenant), reason: &what, ..Changed::by(actor, "suppression import") };
        desk.changed(changed).await;
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(Response::Imported { added, kept }),
    }
}

fn not_there(tenant: &TenantId, address: &Mailbox) -> CommandError {
    CommandError::NotSuppressed { address: address.to_string(), tenant: tenant.to_string() }
}

/// For the log: the address as the log shows addresses, and why.
fn about(address: &Mailbox, why: &str) -> String {
    let why = reason(why, "");
    let address = journal::shown(address);
    if why.is_empty() { address } else { format!("{address}: {why}") }
}

impl From<ChangeError> for CommandError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Read(error) => error.into(),
            ChangeError::Commit(error) => error.into(),
        }
    }
}
