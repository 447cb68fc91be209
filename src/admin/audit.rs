//! The audit trail: what is written of a change, and the command that lists it.

use super::command::{Changed, Desk, PAGE, Response};
use super::error::CommandError;
use super::view::{AuditPage, AuditView};
use crate::mail::{MessageId, TenantId};
use crate::secret::Random;
use crate::store::audit::{self, Entry, Filter, Place};
use crate::time::Timestamp;

/// Most entries that one command leaves; what is over is counted in the last of them.
const PARTS: usize = 1000;

/// The entries of a change: one, or one for each of its parts.
pub(super) fn entries(changed: &Changed<'_>, now: Timestamp, random: &dyn Random) -> Vec<Entry> {
    let whole = || Entry {
        tenant: changed.tenant.cloned(),
        stream: changed.stream.cloned(),
        reason: changed.reason.into(),
        before: changed.before.into(),
        after: changed.after.into(),
        ..Entry::new(MessageId::new(now, random), changed.actor, changed.command)
    };
    if changed.parts.is_empty() {
        return vec![whole()];
    }
    let parts = changed.parts.iter().take(PARTS).map(|(tenant, words)| Entry {
        tenant: Some(tenant.clone()),
        after: words.clone(),
        ..whole()
    });
    let over = changed.parts.len().checked_sub(PARTS).filter(|over| *over > 0);
    let over = over.map(|over| Entry { tenant: None, after: format!("and {over} more"), ..whole() });
    parts.chain(over).collect()
}

pub(super) async fn list(
    desk: &Desk,
    tenant: Option<TenantId>,
    since: Option<Timestamp>,
    after: Option<Place>,
) -> Result<Response, CommandError> {
    // A tenant that is gone has its trail all the same.
    let page = audit::list(&*desk.store, &Filter { tenant, since }, after, PAGE).await?;
    let rows = page.entries.into_iter().map(|entry| match entry {
        Ok(entry) => AuditView::of(entry),
        Err(error) => AuditView { fault: Some(error.to_string()), ..AuditView::default() },
    });
    Ok(Response::Audit(AuditPage { rows: rows.collect(), next: page.next }))
}
