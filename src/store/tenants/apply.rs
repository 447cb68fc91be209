//! Changes become commits.
//!
//! A tenant's changes are one commit where they fit. Where they do not, the order sees to it that a
//! commit that is the last one leaves no tenant half: streams and senders come before the tenant's
//! row, credentials after it, and on the way out in the opposite order. Applied again, the same
//! changes do the rest.

use std::collections::{BTreeMap, HashSet};

use super::difference::{Change, What};
use super::rows;
use crate::mail::TenantId;
use crate::store::audit::{self, Entry};
use crate::store::credential::Credential;
use crate::store::{BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, Store, record};

/// Makes the changes; idempotent. On an error some tenants may have been done and others not; of the
/// tenant it stopped at, what was committed is consistent. What `trail` says of a tenant is in the last
/// commit of its changes; what it says of no tenant, in the last of all.
pub async fn apply(store: &dyn Store, changes: &[Change], trail: &[Entry]) -> Result<(), CommitError> {
    let mut tenants: BTreeMap<(bool, &TenantId), Vec<&What>> = BTreeMap::new();
    let goes: HashSet<&TenantId> =
        changes.iter().filter(|c| matches!(c.what, What::RemoveTenant)).map(|c| &c.tenant).collect();
    for change in changes {
        // Who goes comes last: what moves to another tenant is there before it is away.
        tenants.entry((goes.contains(&change.tenant), &change.tenant)).or_default().push(&change.what);
    }
    let mut trails: BTreeMap<Option<&TenantId>, Vec<&Entry>> = BTreeMap::new();
    for entry in trail {
        trails.entry(entry.tenant.as_ref()).or_default().push(entry);
    }
    for ((goes, tenant), changes) in tenants {
        let mut plan = Plan::of(tenant, &changes);
        if goes {
            plan.remove_rest(store, tenant).await?;
        } else {
            plan.clear(store, tenant, &changes).await?;
        }
        plan.trail = trails.remove(&Some(tenant)).unwrap_or_default();
        plan.commit(store).await?;
    }
    let rest = Plan { trail: trails.into_values().flatten().collect(), ..Plan::default() };
    rest.commit(store).await
}

/// The writes of one tenant, in the order of the fields.
#[derive(Default)]
struct Plan<'a> {
    /// What was left of an earlier tenant of the name.
    leftovers: Vec<Key>,
    /// Streams and senders, then the tenant, then credentials.
    puts: [Vec<(Key, bytes::Bytes)>; 3],
    /// Credentials, then the tenant, then the rest.
    removals: [Vec<Key>; 3],
    /// What the audit trail says of all that.
    trail: Vec<&'a Entry>,
}

impl Plan<'_> {
    fn of(tenant: &TenantId, changes: &[&What]) -> Self {
        let mut plan = Self::default();
        let [parts, tenants, credentials] = &mut plan.puts;
        let [gone_credentials, gone_tenants, gone_parts] = &mut plan.removals;
        for what in changes {
            match what {
                What::AddTenant { row, .. } | What::AlterTenant { row, .. } => {
                    tenants.push((Key::tenant(tenant), record::seal(row)));
                }
                What::RemoveTenant => gone_tenants.push(Key::tenant(tenant)),
                What::AddStream { id, row } | What::AlterStream { id, row, .. } => {
                    parts.push((Key::stream(tenant, id), record::seal(row)));
                }
                What::RemoveStream { id } => {
                    gone_parts.push(Key::stream(tenant, id));
                    gone_parts.push(Key::pause(tenant, Some(id)));
                }
                What::AddSender(pattern) => parts.push((Key::sender(tenant, pattern), record::seal(&()))),
                What::RemoveSender(pattern) => gone_parts.push(Key::sender(tenant, pattern)),
                What::AddCredential(credential) | What::AlterCredential { credential, .. } => {
                    credentials.push((Key::credential(&credential.username), record::seal(credential)));
                }
                What::RemoveCredential(username) => gone_credentials.push(Key::credential(username)),
            }
        }
        plan
    }

    /// For a tenant that goes: everything of its name but what it suppressed and counted, and what that
    /// came to: these are still true should it come back.
    async fn remove_rest(&mut self, store: &dyn Store, tenant: &TenantId) -> Result<(), CommitError> {
        let [credentials, _, parts] = &mut self.removals;
        for prefix in [Key::streams_of(tenant), Key::senders_of(tenant), Key::pauses_of(tenant)] {
            parts.extend(keys(store, &prefix).await?);
        }
        credentials.extend(credentials_of(store, tenant).await?);
        Ok(())
    }

    /// For a tenant that comes: what a removal that was cut short has left under its name, or, where
    /// the tenant is there but damaged, the senders and, when pruning, the streams it should not have.
    async fn clear(&mut self, store: &dyn Store, tenant: &TenantId, changes: &[&What]) -> Result<(), CommitError> {
        let Some(prune) = changes.iter().find_map(|what| match what {
            What::AddTenant { prune, .. } => Some(*prune),
            _ => None,
        }) else {
            return Ok(());
        };
        let orphaned = store.get(&Key::tenant(tenant)).await.map_err(unavailable)?.is_none();
        let mut found = keys(store, &Key::senders_of(tenant)).await?;
        if orphaned || prune {
            found.extend(keys(store, &Key::streams_of(tenant)).await?);
        }
        if orphaned {
            found.extend(keys(store, &Key::pauses_of(tenant)).await?);
            found.extend(credentials_of(store, tenant).await?);
        }
        let wanted: HashSet<&Key> = self.puts.iter().flatten().map(|(key, _)| key).collect();
        self.leftovers = found.into_iter().filter(|key| !wanted.contains(key)).collect();
        Ok(())
    }

    async fn commit(self, store: &dyn Store) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        let mut seen = HashSet::new();
        let puts = self.puts.into_iter().flatten().map(|(key, value)| (key, Some(value)));
        let removals = self.removals.into_iter().flatten().map(|key| (key, None));
        let leftovers = self.leftovers.into_iter().map(|key| (key, None));
        for (key, value) in leftovers.chain(puts).chain(removals) {
            if !seen.insert(key.clone()) {
                continue;
            }
            match value {
                Some(value) => batch.put(key, If::Any, value),
                None => batch.remove(key, If::Any),
            };
            if batch.len() == BATCH_ITEMS {
                store.commit(std::mem::take(&mut batch)).await?;
            }
        }
        for entry in self.trail {
            audit::write(&mut batch, entry);
            if batch.len() == BATCH_ITEMS {
                store.commit(std::mem::take(&mut batch)).await?;
            }
        }
        if batch.is_empty() { Ok(()) } else { store.commit(batch).await.map(drop) }
    }
}

async fn keys(store: &dyn Store, prefix: &Key) -> Result<Vec<Key>, CommitError> {
    Ok(rows(store, prefix).await.map_err(unavailable)?.into_iter().map(|(key, _)| key).collect())
}

/// The credentials of a tenant, those that can be read.
async fn credentials_of(store: &dyn Store, tenant: &TenantId) -> Result<Vec<Key>, CommitError> {
    let rows = rows(store, &Key::credentials()).await.map_err(unavailable)?;
    let own = |key: &Key, value: &[u8]| record::open::<Credential>(key, value).is_ok_and(|c| c.tenant == *tenant);
    Ok(rows.into_iter().filter(|(key, row)| own(key, &row.value)).map(|(key, _)| key).collect())
}

/// Here only keys are read and nothing is opened, so a read fails when the store has stopped.
fn unavailable(error: ReadError) -> CommitError {
    match error {
        ReadError::Unavailable(reason) => CommitError::Unavailable(reason),
        ReadError::Corrupt(key, what) => CommitError::Unavailable(format!("the record {key} is damaged: {what}")),
    }
}
