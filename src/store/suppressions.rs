//! Each tenant's list of addresses that get no mail.
//!
//! One row for each folded mailbox and reason, so a capital letter or needless quotes dodge nothing,
//! and neither does one reason hide another: an address that bounced after its owner complained is
//! on the list for both, and each binds where its kind binds. Whether an entry still stands, and for
//! which stream it binds, is judged by the reader (`policy::decide`); which of two entries for one
//! reason stays is `policy::effect`'s rule, here as for events.
//!
//! Promises: of two that write one entry at once neither is lost unseen: who comes second judges
//! by what the first one wrote. A complaint leaves the list by [`remove`] with `force` alone.
//! What can go wrong: [`ChangeError`], [`RemoveError`]. A damaged entry makes the address unreadable,
//! so its mail is deferred and not let through.

use std::collections::BTreeMap;

use super::{BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, Store, Versioned, mirror, record};
use crate::mail::{Mailbox, TenantId};
use crate::policy::effect;
use crate::policy::tenant::{Suppression, SuppressionReason};
use crate::time::Timestamp;

/// How often a change is tried again when somebody else wrote first.
const TRIES: usize = 16;

/// Most entries that [`add_many`] takes.
pub const MANY: usize = BATCH_ITEMS;

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

/// What was removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The entries that are gone, one at least, as they were.
    pub gone: Vec<Suppression>,
    /// The complaint that stays, because `force` was not given.
    pub stays: Option<Suppression>,
}

/// Why no entry was removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoveError {
    /// The address is not on the list, or not for that reason.
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

/// The entries of `mailbox`, one a reason at most, in the order of [`SuppressionReason::ALL`];
/// expired or not: the reader judges with [`Suppression::stands`]. One read of the store.
pub async fn find(store: &dyn Store, tenant: &TenantId, mailbox: &Mailbox) -> Result<Vec<Suppression>, ReadError> {
    let folded = mailbox.folded();
    let keys = SuppressionReason::ALL.map(|reason| Key::suppression_place(tenant, &folded, reason));
    let rows = store.get_each(&keys).await?;
    let found = keys.iter().zip(rows).filter_map(|(key, row)| Some((key, row?)));
    found.map(|(key, row)| opened(key, &row.value)).collect()
}

/// The same, and with `account` what SES's account list has of `mailbox`, for it binds everybody's mail:
/// one read more. The account's entries are nobody's: no list of a tenant shows them.
pub async fn binding(
    store: &dyn Store,
    tenant: &TenantId,
    mailbox: &Mailbox,
    account: bool,
) -> Result<Vec<Suppression>, ReadError> {
    let mut entries = find(store, tenant, mailbox).await?;
    if account {
        entries.extend(mirror::of_account(store, mailbox).await?);
    }
    Ok(entries)
}

/// Adds entries to a tenant's list, up to [`MANY`] at a time; how many are new or took another's place.
/// Of those for one address and reason the one that outlasts the others is added, and counts alone.
///
/// One commit, so that an import of a million is ten thousand of them.
pub async fn add_many(
    store: &dyn Store,
    tenant: &TenantId,
    entries: &[(Mailbox, Suppression)],
) -> Result<usize, ChangeError> {
    let mut best: BTreeMap<Key, &Suppression> = BTreeMap::new();
    for (mailbox, entry) in entries {
        let place = best.entry(Key::suppression(tenant, mailbox, entry.reason)).or_insert(entry);
        if !effect::outlasts(place, entry) {
            *place = entry;
        }
    }
    let mut tries = TRIES;
    loop {
        let mut batch = Batch::new();
        for (key, entry) in &best {
            let condition = match store.get(key).await? {
                Some(Versioned { value, .. }) if effect::outlasts(&opened(key, &value)?, entry) => continue,
                Some(Versioned { version, .. }) => If::At(version),
                None => If::Absent,
            };
            batch.put(key.clone(), condition, record::seal(entry));
        }
        let added = batch.len();
        tries -= 1;
        match store.commit(batch).await {
            Ok(_) => return Ok(added),
            Err(CommitError::Conflict(_)) if tries > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Adds `entry`, unless what is there for its reason outlasts it ([`effect::outlasts`]): then
/// `false`, and that one stays. Entries for other reasons stay beside it. `with` is in the same commit.
pub async fn add(
    store: &dyn Store,
    tenant: &TenantId,
    mailbox: &Mailbox,
    entry: &Suppression,
    with: &Batch,
) -> Result<bool, ChangeError> {
    let key = Key::suppression(tenant, mailbox, entry.reason);
    let mut tries = TRIES;
    loop {
        let condition = match store.get(&key).await? {
            Some(Versioned { value, .. }) if effect::outlasts(&opened(&key, &value)?, entry) => return Ok(false),
            Some(Versioned { version, .. }) => If::At(version),
            None => If::Absent,
        };
        let mut batch = with.clone();
        batch.put(key.clone(), condition, record::seal(entry));
        tries -= 1;
        match store.commit(batch).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Conflict(_)) if tries > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes `mailbox` off the list, for `reason` or for all, and gives what stood there. A complaint,
/// expired or not, needs `force`; without it the other entries go and the complaint stays. With an
/// entry for soft bounces the run goes that made it. A damaged
/// record can be removed by `force` as well, which is how it is repaired; it is given as an entry
/// that says so. What `with` makes of it is in the same commit.
pub async fn remove(
    store: &dyn Store,
    tenant: &TenantId,
    mailbox: &Mailbox,
    reason: Option<SuppressionReason>,
    force: bool,
    with: impl Fn(&Removed) -> Batch,
) -> Result<Removed, RemoveError> {
    let mut tries = TRIES;
    loop {
        let mut removed = Removed { gone: Vec::new(), stays: None };
        let mut removals = Vec::new();
        for (key, row) in rows(store, tenant, mailbox).await? {
            let kind = place(&key)?.1;
            if reason.is_some_and(|reason| reason != kind) {
                continue;
            }
            let entry = match opened(&key, &row.value) {
                Ok(entry) => entry,
                Err(ReadError::Corrupt(..)) if force => unreadable(kind),
                Err(error) => return Err(error.into()),
            };
            if kind == SuppressionReason::Complaint && !force {
                removed.stays = Some(entry);
            } else {
                removals.push((key, If::At(row.version)));
                if kind == SuppressionReason::Soft {
                    // Else the next soft bounce would bring it back, as one more of the same run.
                    removals.push((Key::run(tenant, mailbox), If::Any));
                }
                removed.gone.push(entry);
            }
        }
        match &removed {
            Removed { gone, stays: Some(_) } if gone.is_empty() => return Err(RemoveError::ComplaintNeedsForce),
            Removed { gone, stays: None } if gone.is_empty() => return Err(RemoveError::NotThere),
            Removed { .. } => {}
        }
        let mut batch = with(&removed);
        for (key, condition) in removals {
            batch.remove(key, condition);
        }
        tries -= 1;
        match store.commit(batch).await {
            Ok(_) => return Ok(removed),
            Err(CommitError::Conflict(_)) if tries > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Up to `limit` entries in the order of the folded mailboxes, then of the reasons, from after the
/// entry `after` on.
pub async fn list(
    store: &dyn Store,
    tenant: &TenantId,
    after: Option<(&str, SuppressionReason)>,
    limit: usize,
) -> Result<Vec<(String, Suppression)>, ReadError> {
    let after = after.map(|(folded, reason)| Key::suppression_place(tenant, folded, reason));
    let rows = store.scan(&Key::suppressions(tenant), after.as_ref(), limit).await?;
    rows.into_iter().map(|(key, row)| Ok((place(&key)?.0, opened(&key, &row.value)?))).collect()
}

/// Keys and versions of entries among the next `limit` after `after`, of whatever tenant, that ended
/// before `before`; and from where to go on, if there are more. A damaged one is left to whoever
/// repairs it.
pub async fn expired(
    store: &dyn Store,
    before: Timestamp,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<(Key, u64)>, Option<Key>), ReadError> {
    let page = store.scan(&Key::all_suppressions(), after.as_ref(), limit).await?;
    let next = page.last().filter(|_| page.len() == limit).map(|(key, _)| key.clone());
    let ended = page.into_iter().filter_map(|(key, row)| {
        let entry = opened(&key, &row.value).ok()?;
        entry.expires.is_some_and(|until| until < before).then_some((key, row.version))
    });
    Ok((ended.collect(), next))
}

/// Adds the put of `entry` to a batch, whatever is there: for who has judged already.
pub fn write(batch: &mut Batch, tenant: &TenantId, mailbox: &Mailbox, entry: &Suppression) {
    batch.put(Key::suppression(tenant, mailbox, entry.reason), If::Any, record::seal(entry));
}

/// Opens the value of an entry, which has to be for the reason that its key names.
pub fn opened(key: &Key, value: &[u8]) -> Result<Suppression, ReadError> {
    let entry: Suppression = record::open(key, value)?;
    if entry.reason == place(key)?.1 {
        Ok(entry)
    } else {
        Err(ReadError::Corrupt(key.clone(), format!("it holds a {} entry", entry.reason.word())))
    }
}

fn unreadable(reason: SuppressionReason) -> Suppression {
    Suppression {
        reason,
        origin: "a damaged record".into(),
        at: Timestamp::default(),
        expires: None,
        actor: "unknown".into(),
    }
}

async fn rows(store: &dyn Store, tenant: &TenantId, mailbox: &Mailbox) -> Result<Vec<(Key, Versioned)>, ReadError> {
    store.scan(&Key::suppressions_of(tenant, mailbox), None, SuppressionReason::ALL.len()).await
}

/// The folded mailbox and the reason in an entry's key.
fn place(key: &Key) -> Result<(String, SuppressionReason), ReadError> {
    let named = |word: &str| SuppressionReason::ALL.into_iter().find(|reason| reason.word() == word);
    match key.parts().as_deref() {
        Some([_, _, folded, word]) => named(word).map(|reason| ((*folded).to_owned(), reason)),
        Some(_) | None => None,
    }
    .ok_or_else(|| ReadError::Corrupt(key.clone(), "its key is none of a suppression".into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use SuppressionReason::{Bounce, Complaint, Manual};
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
        fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
            let other = self.others.lock().unwrap().pop();
            Box::pin(async move {
                if let Some(other) = other {
                    self.store.commit(other).await.unwrap();
                }
                self.store.commit(batch).await
            })
        }
    }

    fn until(reason: SuppressionReason, at: u64, expires: u64) -> Suppression {
        Suppression { expires: Some(Timestamp::from_millis(expires)), ..entry(reason, at) }
    }

    #[tokio::test]
    async fn an_entry_is_found_however_the_address_is_spelled() {
        let store = MemoryStore::new();
        assert_eq!(find(&store, &acme(), &mailbox("joe@x.example")).await, Ok(vec![]));
        let bounce = entry(Bounce, 1);
        assert_eq!(add(&store, &acme(), &mailbox("Joe@X.example"), &bounce, &Batch::new()).await, Ok(true));
        for spelling in ["joe@x.example", "JOE@x.EXAMPLE", "\"joe\"@x.example"] {
            assert_eq!(find(&store, &acme(), &mailbox(spelling)).await, Ok(vec![bounce.clone()]), "{spelling}");
        }
        let other = TenantId::parse("other").unwrap();
        assert_eq!(find(&store, &other, &mailbox("joe@x.example")).await, Ok(vec![]), "lists are a tenant's own");
        assert_eq!(find(&store, &acme(), &mailbox("joe@x.example.net")).await, Ok(vec![]));
    }

    /// Every sequence of entries leaves, for each reason, the one that outlasts the others of it.
    #[tokio::test]
    async fn each_reason_has_an_entry_of_its_own() {
        let given = [
            entry(Complaint, 2),
            entry(Bounce, 3),
            entry(Manual, 4),
            until(Manual, 1, 9),
            entry(Bounce, 5),
            until(Complaint, 6, 7),
        ];
        let kept = [entry(Bounce, 3), entry(Complaint, 2), entry(Manual, 4)];
        let mut replaced = 0;
        for turn in 0..given.len() {
            for step in [1, 5] {
                let (store, joe) = (MemoryStore::new(), mailbox("joe@x.example"));
                let mut model: Vec<Suppression> = Vec::new();
                for n in 0..given.len() {
                    let new = &given[(turn + n * step) % given.len()];
                    let there = model.iter().position(|entry| entry.reason == new.reason);
                    let stays = there.is_some_and(|at| effect::outlasts(&model[at], new));
                    if !stays {
                        replaced += usize::from(there.is_some());
                        model.retain(|entry| entry.reason != new.reason);
                        model.push(new.clone());
                        model.sort_by_key(|entry| entry.reason);
                    }
                    assert_eq!(add(&store, &acme(), &joe, new, &Batch::new()).await, Ok(!stays), "{new:?}");
                    assert_eq!(find(&store, &acme(), &joe).await.as_ref(), Ok(&model));
                }
                assert_eq!(model, kept);
            }
        }
        assert!(replaced > 6, "{replaced}");
    }

    #[tokio::test]
    async fn who_comes_second_judges_by_what_the_first_wrote() {
        let joe = mailbox("joe@x.example");
        let mut other = Batch::new();
        write(&mut other, &acme(), &joe, &entry(Bounce, 1));
        // Between the read and the write of a bounce comes an earlier one: it stays.
        let store = Contended { store: MemoryStore::new(), others: Mutex::new(vec![other]) };
        assert_eq!(add(&store, &acme(), &joe, &entry(Bounce, 2), &Batch::new()).await, Ok(false));
        // Between the read and the removal of a bounce comes a complaint: it is not removed with it.
        let mut other = Batch::new();
        write(&mut other, &acme(), &joe, &entry(Complaint, 1));
        write(&mut other, &acme(), &joe, &entry(Bounce, 1));
        let store = Contended { store: MemoryStore::new(), others: Mutex::new(vec![other, Batch::new()]) };
        add(&store, &acme(), &joe, &entry(Bounce, 3), &Batch::new()).await.unwrap();
        let removed = Removed { gone: vec![entry(Bounce, 1)], stays: Some(entry(Complaint, 1)) };
        assert_eq!(remove(&store, &acme(), &joe, None, false, |_| Batch::new()).await, Ok(removed));
        assert_eq!(find(&store, &acme(), &joe).await, Ok(vec![entry(Complaint, 1)]));
        // Somebody who always comes first: an end is made.
        let bounces = (0..TRIES + 9).map(|n| {
            let mut batch = Batch::new();
            write(&mut batch, &acme(), &joe, &entry(Bounce, 9 + n as u64));
            batch
        });
        let store = Contended { store: MemoryStore::new(), others: Mutex::new(bounces.collect()) };
        let conflict = CommitError::Conflict(Key::suppression(&acme(), &joe, Bounce));
        assert_eq!(
            add(&store, &acme(), &joe, &entry(Bounce, 1), &Batch::new()).await,
            Err(ChangeError::Commit(conflict))
        );
        assert_eq!(store.others.lock().unwrap().len(), 9);
    }

    /// entries; asked for; without force what goes and whether the complaint stays.
    #[tokio::test]
    async fn a_complaint_leaves_by_force_alone() {
        use RemoveError::{ComplaintNeedsForce, NotThere};
        type Case<'a> =
            (&'a [SuppressionReason], Option<SuppressionReason>, Result<(&'a [SuppressionReason], bool), RemoveError>);
        let table: &[Case<'_>] = &[
            (&[], None, Err(NotThere)),
            (&[Bounce], None, Ok((&[Bounce], false))),
            (&[Bounce], Some(Complaint), Err(NotThere)),
            (&[Complaint], None, Err(ComplaintNeedsForce)),
            (&[Complaint], Some(Complaint), Err(ComplaintNeedsForce)),
            (&[Complaint], Some(Manual), Err(NotThere)),
            // A manual entry over a complaint is no way round it.
            (&[Complaint, Manual], None, Ok((&[Manual], true))),
            (&[Complaint, Manual], Some(Manual), Ok((&[Manual], false))),
            (&[Bounce, Complaint, Manual], None, Ok((&[Bounce, Manual], true))),
            (&[Bounce, Complaint, Manual], Some(Bounce), Ok((&[Bounce], false))),
        ];
        for (there, asked, expected) in table {
            let joe = mailbox("joe@x.example");
            for force in [false, true] {
                let store = MemoryStore::new();
                for reason in *there {
                    // Expired or not.
                    add(&store, &acme(), &joe, &until(*reason, 1, 2), &Batch::new()).await.unwrap();
                }
                let meant: Vec<_> =
                    there.iter().copied().filter(|reason| asked.is_none_or(|asked| asked == *reason)).collect();
                let (gone, stays) = match (expected, force) {
                    (_, true) if meant.is_empty() => (Err(NotThere), false),
                    (_, true) => (Ok(meant), false),
                    (Ok((gone, stays)), false) => (Ok(gone.to_vec()), *stays),
                    (Err(error), false) => (Err(error.clone()), false),
                };
                let removed = remove(&store, &acme(), &joe, *asked, force, |_| Batch::new()).await;
                let reasons = |entries: &[Suppression]| entries.iter().map(|entry| entry.reason).collect::<Vec<_>>();
                assert_eq!(removed.as_ref().is_ok_and(|removed| removed.stays.is_some()), stays, "{there:?} {asked:?}");
                let removed = removed.map(|removed| reasons(&removed.gone));
                assert_eq!(removed, gone, "{there:?} {asked:?} {force}");
                let left = reasons(&find(&store, &acme(), &joe).await.unwrap());
                let gone = gone.unwrap_or_default();
                assert_eq!(left, there.iter().copied().filter(|reason| !gone.contains(reason)).collect::<Vec<_>>());
            }
        }
    }

    #[tokio::test]
    async fn damage_defers_and_is_repaired_by_force() {
        let joe = mailbox("joe@x.example");
        // Octets that are no record, and a record under another's key.
        for value in [Bytes::from_static(b"damaged"), record::seal(&entry(Complaint, 1))] {
            let store = MemoryStore::new();
            add(&store, &acme(), &joe, &entry(Manual, 1), &Batch::new()).await.unwrap();
            let mut batch = Batch::new();
            batch.put(Key::suppression(&acme(), &joe, Bounce), If::Any, value);
            store.commit(batch).await.unwrap();
            assert!(matches!(find(&store, &acme(), &joe).await, Err(ReadError::Corrupt(..))));
            assert!(matches!(list(&store, &acme(), None, 9).await, Err(ReadError::Corrupt(..))));
            let added = add(&store, &acme(), &joe, &entry(Bounce, 1), &Batch::new()).await;
            assert!(matches!(added, Err(ChangeError::Read(ReadError::Corrupt(..)))), "{added:?}");
            assert!(matches!(
                remove(&store, &acme(), &joe, None, false, |_| Batch::new()).await,
                Err(RemoveError::Read(_))
            ));
            let removed = remove(&store, &acme(), &joe, Some(Bounce), true, |_| Batch::new()).await.unwrap();
            assert_eq!(removed, Removed { gone: vec![unreadable(Bounce)], stays: None });
            assert_eq!(find(&store, &acme(), &joe).await, Ok(vec![entry(Manual, 1)]));
        }
    }

    #[tokio::test]
    async fn a_list_is_walked_in_pages() {
        let store = MemoryStore::new();
        for n in 0..5 {
            let joe = mailbox(&format!("Joe{n}@x.example"));
            add(&store, &acme(), &joe, &entry(Manual, n), &Batch::new()).await.unwrap();
            add(&store, &acme(), &joe, &entry(Complaint, n), &Batch::new()).await.unwrap();
        }
        let neighbour = TenantId::parse("acme-two").unwrap();
        add(&store, &neighbour, &mailbox("a@x.example"), &entry(Manual, 1), &Batch::new()).await.unwrap();
        let (mut seen, mut pages) = (Vec::<(String, SuppressionReason)>::new(), 0);
        loop {
            let after = seen.last().map(|(folded, reason)| (folded.as_str(), *reason));
            let page = list(&store, &acme(), after, 3).await.unwrap();
            if page.is_empty() {
                break;
            }
            pages += 1;
            seen.extend(page.into_iter().map(|(folded, entry)| (folded, entry.reason)));
        }
        let all = (0..5).flat_map(|n| [Complaint, Manual].map(|reason| (format!("joe{n}@x.example"), reason)));
        assert_eq!(seen, all.collect::<Vec<_>>());
        assert_eq!(pages, 4);
        assert!(list(&store, &acme(), Some(("joe8@x.example\0", Manual)), 3).await.is_ok());
    }

    #[tokio::test]
    async fn a_store_that_has_stopped_says_so() {
        let (store, joe) = (MemoryStore::new(), mailbox("joe@x.example"));
        store.fail_with("test");
        let stopped = ReadError::Unavailable("test".into());
        assert_eq!(find(&store, &acme(), &joe).await, Err(stopped.clone()));
        let bounce = entry(Bounce, 1);
        assert_eq!(add(&store, &acme(), &joe, &bounce, &Batch::new()).await, Err(ChangeError::Read(stopped.clone())));
        assert_eq!(remove(&store, &acme(), &joe, None, true, |_| Batch::new()).await, Err(RemoveError::Read(stopped)));
    }
}
