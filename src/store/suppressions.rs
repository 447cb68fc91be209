//! Each tenant's list of addresses that get no mail.
//!
//! One row for each folded mailbox, so a capital letter or needless quotes dodge nothing. Whether an
//! entry still stands, and for which stream it binds, is judged by the reader (`policy::decide`);
//! which of two entries stays is `policy::effect`'s rule, here as for events.
//!
//! Promises: of two that write one address at once neither is lost unseen: who comes second judges
//! by what the first one wrote. A complaint leaves the list by [`remove`] with `force` alone.
//! What can go wrong: [`ChangeError`], [`RemoveError`].

use super::{Batch, CommitError, If, Key, ReadError, Store, Versioned, record};
use crate::mail::{Mailbox, TenantId};
use crate::policy::effect;
use crate::policy::tenant::{Suppression, SuppressionReason};
use crate::time::Timestamp;

/// How often a change is tried again when somebody else wrote first.
const TRIES: usize = 16;

/// Why an entry was not added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// What is there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change could not be committed. A conflict: others wrote first, too often.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why an entry was not removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoveError {
    /// The address is not on the list.
    #[error("the address is not on the tenant's suppression list")]
    NotThere,
    /// Somebody called the tenant's mail spam; to mail them again is a decision of its own.
    #[error("the entry is a complaint, which needs --force to remove")]
    ComplaintNeedsForce,
    /// What is there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The removal could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The entry of `mailbox`, expired or not: the reader judges with [`Suppression::stands`].
pub async fn find(store: &dyn Store, tenant: &TenantId, mailbox: &Mailbox) -> Result<Option<Suppression>, ReadError> {
    let key = Key::suppression(tenant, mailbox);
    Ok(read(store, &key).await?.map(|(entry, _)| entry))
}

/// Adds `entry`, unless what is there outweighs it at the moment of `entry.at`
/// ([`effect::merged`]): then `false`, and that one stays.
pub async fn add(
    store: &dyn Store,
    tenant: &TenantId,
    mailbox: &Mailbox,
    entry: &Suppression,
) -> Result<bool, ChangeError> {
    let key = Key::suppression(tenant, mailbox);
    let mut tries = TRIES;
    loop {
        let found = read(store, &key).await?;
        let (there, condition) = found.map_or((None, If::Absent), |(there, version)| (Some(there), If::At(version)));
        if effect::merged(there.as_ref(), entry, entry.at).is_none() {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.put(key.clone(), condition, record::seal(entry));
        tries -= 1;
        match store.commit(batch).await {
            Ok(()) => return Ok(true),
            Err(CommitError::Conflict(_)) if tries > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes `mailbox` off the list and gives what stood there. A complaint needs `force`, expired or
/// not. A damaged record can be removed by `force` as well, which is how it is repaired; it is given
/// as an entry by hand that says so.
pub async fn remove(
    store: &dyn Store,
    tenant: &TenantId,
    mailbox: &Mailbox,
    force: bool,
) -> Result<Suppression, RemoveError> {
    let key = Key::suppression(tenant, mailbox);
    let mut tries = TRIES;
    loop {
        let Versioned { value, version } = store.get(&key).await?.ok_or(RemoveError::NotThere)?;
        let entry = match record::open::<Suppression>(&key, &value) {
            Ok(entry) if entry.reason == SuppressionReason::Complaint && !force => {
                return Err(RemoveError::ComplaintNeedsForce);
            }
            Ok(entry) => entry,
            Err(ReadError::Corrupt(..)) if force => unreadable(),
            Err(error) => return Err(error.into()),
        };
        let mut batch = Batch::new();
        batch.remove(key.clone(), If::At(version));
        tries -= 1;
        match store.commit(batch).await {
            Ok(()) => return Ok(entry),
            Err(CommitError::Conflict(_)) if tries > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Up to `limit` entries in the order of the folded mailboxes, from after `after` on.
pub async fn list(
    store: &dyn Store,
    tenant: &TenantId,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Suppression)>, ReadError> {
    let after = after.map(|folded| Key::suppression_place(tenant, folded));
    let rows = store.scan(&Key::suppressions(tenant), after.as_ref(), limit).await?;
    rows.into_iter().map(|(key, row)| Ok((folded(&key)?, record::open(&key, &row.value)?))).collect()
}

/// Adds the put of `entry` to a batch, whatever is there: for who has judged already.
pub fn write(batch: &mut Batch, tenant: &TenantId, mailbox: &Mailbox, entry: &Suppression) {
    batch.put(Key::suppression(tenant, mailbox), If::Any, record::seal(entry));
}

fn unreadable() -> Suppression {
    Suppression {
        reason: SuppressionReason::Manual,
        origin: "a damaged record".into(),
        at: Timestamp::default(),
        expires: None,
        actor: "unknown".into(),
    }
}

async fn read(store: &dyn Store, key: &Key) -> Result<Option<(Suppression, u64)>, ReadError> {
    match store.get(key).await? {
        Some(Versioned { value, version }) => Ok(Some((record::open(key, &value)?, version))),
        None => Ok(None),
    }
}

fn folded(key: &Key) -> Result<String, ReadError> {
    match key.parts().as_deref() {
        Some([_, _, folded]) => Ok((*folded).to_owned()),
        Some(_) | None => Err(ReadError::Corrupt(key.clone(), "its key is none of a suppression".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::store::Pending;
    use crate::store::memory::MemoryStore;

    fn acme() -> TenantId {
        TenantId::parse("acme").unwrap()
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text.as_bytes()).unwrap()
    }

    fn entry(reason: SuppressionReason, at: u64) -> Suppression {
        let at = Timestamp::from_millis(at);
        Suppression { reason, origin: "f-1".into(), at, expires: None, actor: "ses".into() }
    }

    /// A store in which somebody else writes first, as often as there are batches.
    struct Contended {
        store: MemoryStore,
        others: Mutex<Vec<Batch>>,
    }

    impl Store for Contended {
        fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
            self.store.get(key)
        }
        fn scan<'a>(
            &'a self,
            prefix: &'a Key,
            after: Option<&'a Key>,
            limit: usize,
        ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
            self.store.scan(prefix, after, limit)
        }
        fn commit(&self, batch: Batch) -> Pending<'_, Result<(), CommitError>> {
            let other = self.others.lock().unwrap().pop();
            Box::pin(async move {
                if let Some(other) = other {
                    self.store.commit(other).await.unwrap();
                }
                self.store.commit(batch).await
            })
        }
    }

    #[tokio::test]
    async fn an_entry_is_found_however_the_address_is_spelled() {
        let store = MemoryStore::new();
        assert_eq!(find(&store, &acme(), &mailbox("joe@x.example")).await, Ok(None));
        let bounce = entry(SuppressionReason::Bounce, 1);
        assert_eq!(add(&store, &acme(), &mailbox("Joe@X.example"), &bounce).await, Ok(true));
        for spelling in ["joe@x.example", "JOE@x.EXAMPLE", "\"joe\"@x.example"] {
            assert_eq!(find(&store, &acme(), &mailbox(spelling)).await, Ok(Some(bounce.clone())), "{spelling}");
        }
        let other = TenantId::parse("other").unwrap();
        assert_eq!(find(&store, &other, &mailbox("joe@x.example")).await, Ok(None), "lists are a tenant's own");
    }

    #[tokio::test]
    async fn what_outweighs_stays() {
        use SuppressionReason::{Bounce, Complaint, Manual};
        let table = [
            (Bounce, Complaint, true),
            (Complaint, Bounce, false),
            (Bounce, Manual, true),
            (Manual, Bounce, false),
            (Manual, Complaint, false),
            (Complaint, Complaint, false),
        ];
        for (there, new, added) in table {
            let (store, joe) = (MemoryStore::new(), mailbox("joe@x.example"));
            add(&store, &acme(), &joe, &entry(there, 1)).await.unwrap();
            assert_eq!(add(&store, &acme(), &joe, &entry(new, 2)).await, Ok(added), "{there:?} {new:?}");
            let stays = if added { new } else { there };
            assert_eq!(find(&store, &acme(), &joe).await.unwrap().unwrap().reason, stays);
        }
    }

    #[tokio::test]
    async fn who_comes_second_judges_by_what_the_first_wrote() {
        use SuppressionReason::{Bounce, Complaint};
        let joe = mailbox("joe@x.example");
        let mut other = Batch::new();
        write(&mut other, &acme(), &joe, &entry(Complaint, 1));
        // Between the read and the write of a bounce comes a complaint: it stays.
        let store = Contended { store: MemoryStore::new(), others: Mutex::new(vec![other.clone()]) };
        assert_eq!(add(&store, &acme(), &joe, &entry(Bounce, 2)).await, Ok(false));
        // Between the read and the removal of a bounce comes a complaint: it needs force.
        let store = Contended { store: MemoryStore::new(), others: Mutex::new(vec![other, Batch::new()]) };
        add(&store, &acme(), &joe, &entry(Bounce, 0)).await.unwrap();
        assert_eq!(remove(&store, &acme(), &joe, false).await, Err(RemoveError::ComplaintNeedsForce));
        // Somebody who always comes first: an end is made.
        let bounces = (0..TRIES + 9).map(|n| {
            let mut batch = Batch::new();
            write(&mut batch, &acme(), &joe, &entry(Bounce, 9 + n as u64));
            batch
        });
        let store = Contended { store: MemoryStore::new(), others: Mutex::new(bounces.collect()) };
        let conflict = CommitError::Conflict(Key::suppression(&acme(), &joe));
        assert_eq!(add(&store, &acme(), &joe, &entry(Complaint, 1)).await, Err(ChangeError::Commit(conflict)));
        assert_eq!(store.others.lock().unwrap().len(), 9);
    }

    #[tokio::test]
    async fn a_complaint_leaves_by_force_alone_and_so_does_damage() {
        let (store, joe) = (MemoryStore::new(), mailbox("joe@x.example"));
        assert_eq!(remove(&store, &acme(), &joe, true).await, Err(RemoveError::NotThere));
        let complaint = entry(SuppressionReason::Complaint, 1);
        add(&store, &acme(), &joe, &complaint).await.unwrap();
        assert_eq!(remove(&store, &acme(), &joe, false).await, Err(RemoveError::ComplaintNeedsForce));
        assert_eq!(remove(&store, &acme(), &joe, true).await, Ok(complaint));
        assert_eq!(find(&store, &acme(), &joe).await, Ok(None));

        let mut batch = Batch::new();
        batch.put(Key::suppression(&acme(), &joe), If::Any, Bytes::from_static(b"damaged"));
        store.commit(batch).await.unwrap();
        assert!(matches!(find(&store, &acme(), &joe).await, Err(ReadError::Corrupt(..))));
        assert!(matches!(list(&store, &acme(), None, 9).await, Err(ReadError::Corrupt(..))));
        assert!(matches!(remove(&store, &acme(), &joe, false).await, Err(RemoveError::Read(_))));
        assert_eq!(remove(&store, &acme(), &joe, true).await.unwrap().origin, "a damaged record");
        assert_eq!(find(&store, &acme(), &joe).await, Ok(None));
    }

    #[tokio::test]
    async fn a_list_is_walked_in_pages() {
        let store = MemoryStore::new();
        for n in 0..10 {
            let joe = mailbox(&format!("Joe{n}@x.example"));
            add(&store, &acme(), &joe, &entry(SuppressionReason::Manual, n)).await.unwrap();
        }
        let neighbour = TenantId::parse("acme-two").unwrap();
        add(&store, &neighbour, &mailbox("a@x.example"), &entry(SuppressionReason::Manual, 1)).await.unwrap();
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let after = seen.last().cloned();
            let page = list(&store, &acme(), after.as_deref(), 3).await.unwrap();
            if page.is_empty() {
                break;
            }
            pages += 1;
            seen.extend(page.into_iter().map(|(folded, _)| folded));
        }
        assert_eq!(seen, (0..10).map(|n| format!("joe{n}@x.example")).collect::<Vec<_>>());
        assert_eq!(pages, 4);
        assert!(list(&store, &acme(), Some("joe8@x.example\0"), 3).await.is_ok());
    }

    #[tokio::test]
    async fn a_store_that_has_stopped_says_so() {
        let (store, joe) = (MemoryStore::new(), mailbox("joe@x.example"));
        store.fail_with("test");
        let stopped = ReadError::Unavailable("test".into());
        assert_eq!(find(&store, &acme(), &joe).await, Err(stopped.clone()));
        let bounce = entry(SuppressionReason::Bounce, 1);
        assert_eq!(add(&store, &acme(), &joe, &bounce).await, Err(ChangeError::Read(stopped.clone())));
        assert_eq!(remove(&store, &acme(), &joe, true).await, Err(RemoveError::Read(stopped)));
    }
}
