//! The audit trail: who changed what, when and why, and what of it the relay did itself.
//!
//! A row an entry, under `audit/{moment}/{id}`. The moment is counted down from the end of time, so
//! that the newest sorts first: a list begins there, and what is too old lies behind one place.
//! [`write()`] puts the row into the batch of the change it tells of, [`append_all`] is for what was done in
//! many commits.
//!
//! Promises: a row fits the store whatever it is told; its texts are cut to do so. A damaged row is
//! shown as one, and ends no list.
//! What can go wrong: the store. What was done in many commits and lacks its row is still in the log, whose
//! `changed` line says the same.

use serde::{Deserialize, Serialize};

use super::{BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, Store, VALUE_BYTES, record};
use crate::mail::{MessageId, StreamId, TenantId};
use crate::time::Timestamp;

/// The actor of what the relay does by itself.
pub const RELAY: &str = "bulkhead";
/// Days for which an entry is kept by default.
pub const KEPT_DAYS: usize = 400;
/// Longest text of an entry, in characters.
pub const TEXT: usize = 600;
/// Most rows that one call of [`list`] looks at.
const LOOKED_AT: usize = 10_000;
/// Rows of one scan.
const SCANNED: usize = 500;

/// A change and who made it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Which; also tells apart what happened in one millisecond.
    pub id: MessageId,
    /// When.
    pub at: Timestamp,
    /// Who: `cli:root`, `bulkhead` for what the relay did itself.
    pub actor: String,
    /// What was done, as a command says it: `tenant pause`, `stream paused`.
    pub what: String,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Of which stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Why, in words; empty where nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How it was before; empty where there was nothing, or nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// How it is now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
}

impl Entry {
    /// An entry of the moment that `id` was made at, which concerns nobody yet and has no words.
    pub fn new(id: MessageId, actor: &str, what: &str) -> Self {
        Self {
            id,
            at: id.made(),
            actor: actor.into(),
            what: what.into(),
            tenant: None,
            stream: None,
            reason: String::new(),
            before: String::new(),
            after: String::new(),
        }
    }

    /// The same with texts so short that the row fits the store.
    fn cut(&self) -> Self {
        let mut most = TEXT;
        loop {
            let short = |text: &String| shortened(text, most);
            let cut = Self {
                actor: short(&self.actor),
                what: short(&self.what),
                reason: short(&self.reason),
                before: short(&self.before),
                after: short(&self.after),
                ..self.clone()
            };
            if most == 0 || record::seal(&cut).len() <= VALUE_BYTES {
                return cut;
            }
            most /= 2;
        }
    }
}

/// The text, or its first `most` characters and an ellipsis.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most).and_then(|(at, _)| text.get(..at)) {
        Some(first) => format!("{first}…"),
        None => text.to_owned(),
    }
}

/// Adds the entry to the batch of the change it tells of: one write.
pub fn write(batch: &mut Batch, entry: &Entry) {
    batch.put(Key::audit(entry.at, entry.id), If::Absent, record::seal(&entry.cut()));
}

/// Writes entries of what is in the store already, as many in one commit as fit.
pub async fn append_all(store: &dyn Store, entries: &[Entry]) -> Result<(), CommitError> {
    for some in entries.chunks(BATCH_ITEMS) {
        let mut batch = Batch::new();
        for entry in some {
            write(&mut batch, entry);
        }
        store.commit(batch).await?;
    }
    Ok(())
}

/// Which entries are listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only those from this moment on.
    pub since: Option<Timestamp>,
}

/// Where a list goes on: behind this entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Its moment.
    pub at: Timestamp,
    /// Its id.
    pub id: MessageId,
}

/// A part of the trail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Entries, newest first; a damaged row is its fault.
    pub entries: Vec<Result<Entry, ReadError>>,
    /// Where to go on, if there may be more. A page may have few entries, or none, and yet more behind it.
    pub next: Option<Place>,
}

/// Up to `limit` entries, newest first, from behind `after` on.
pub async fn list(store: &dyn Store, filter: &Filter, after: Option<Place>, limit: usize) -> Result<Page, ReadError> {
    let mut page = Page::default();
    let mut behind = after.map(|place| Key::audit(place.at, place.id));
    let mut looked_at = 0;
    while looked_at < LOOKED_AT {
        let rows = store.scan(&Key::audits(), behind.as_ref(), SCANNED).await?;
        let last = rows.len() < SCANNED;
        for (key, row) in rows {
            looked_at += 1;
            let place = place(&key);
            if let (Some(place), Some(since)) = (place, filter.since)
                && place.at < since
            {
                page.next = None;
                return Ok(page);
            }
            let entry = record::open::<Entry>(&key, &row.value);
            // Nobody can say whose a damaged row is: it is in every list.
            let wanted = match &entry {
                Ok(entry) => filter.tenant.is_none() || entry.tenant == filter.tenant,
                Err(_) => true,
            };
            if wanted {
                page.entries.push(entry);
            }
            page.next = place.or(page.next);
            behind = Some(key);
            if page.entries.len() >= limit {
                return Ok(page);
            }
        }
        if last {
            page.next = None;
            return Ok(page);
        }
    }
    Ok(page)
}

/// The keys of up to `limit` entries from before the moment `before`.
pub async fn expired(store: &dyn Store, before: Timestamp, limit: usize) -> Result<Vec<Key>, ReadError> {
    let rows = store.scan(&Key::audits(), Some(&Key::audit_place(before)), limit).await?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

fn place(key: &Key) -> Option<Place> {
    let parts = key.parts()?;
    let ["audit", moment, id] = parts.as_slice() else { return None };
    let at = Timestamp::from_millis(u64::MAX - u64::from_str_radix(moment, 16).ok()?);
    Some(Place { at, id: MessageId::parse(id)? })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::secret::Random;
    use crate::store::memory::MemoryStore;

    struct Counting(AtomicU64);

    impl Random for Counting {
        fn fill(&self, into: &mut [u8]) {
            let n = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            for (octet, from) in into.iter_mut().zip(n.into_iter().cycle()) {
                *octet = from;
            }
        }
    }

    fn entries(count: u64) -> Vec<Entry> {
        let random = Counting(AtomicU64::new(1));
        let tenants = ["acme", "globex"].map(|id| TenantId::parse(id).unwrap());
        (0..count)
            .map(|n| {
                // Three in a millisecond.
                let id = MessageId::new(Timestamp::from_millis(1_000 + n / 3), &random);
                let tenant = tenants.get(usize::try_from(n % 2).unwrap()).cloned();
                Entry { tenant, ..Entry::new(id, "cli:root", "tenant pause") }
            })
            .collect()
    }

    async fn all(store: &MemoryStore, filter: &Filter, limit: usize) -> Vec<Entry> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = list(store, filter, after, limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(page.entries.into_iter().map(Result::unwrap));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn the_newest_is_first_and_pages_join() {
        let store = MemoryStore::new();
        let written = entries(250);
        append_all(&store, &written).await.unwrap();
        let mut expected = written.clone();
        expected.sort_by_key(|entry| (std::cmp::Reverse(entry.at), entry.id));
        for limit in [1, 7, 250, 1000] {
            assert_eq!(all(&store, &Filter::default(), limit).await, expected, "{limit}");
        }
        let acme = Filter { tenant: TenantId::parse("acme").ok(), ..Filter::default() };
        let found = all(&store, &acme, 10).await;
        assert_eq!(found.len(), 125);
        assert!(found.iter().all(|entry| entry.tenant == acme.tenant));
        let since = Filter { since: Some(Timestamp::from_millis(1_080)), ..Filter::default() };
        let found = all(&store, &since, 10).await;
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(|entry| entry.at >= Timestamp::from_millis(1_080)));
    }

    #[tokio::test]
    async fn what_is_old_and_no_more_expires() {
        let store = MemoryStore::new();
        append_all(&store, &entries(30)).await.unwrap();
        let old = expired(&store, Timestamp::from_millis(1_004), 100).await.unwrap();
        assert_eq!(old.len(), 12);
        assert!(old.iter().all(|key| place(key).unwrap().at < Timestamp::from_millis(1_004)));
        assert_eq!(expired(&store, Timestamp::from_millis(1_004), 5).await.unwrap().len(), 5);
        assert_eq!(expired(&store, Timestamp::from_millis(1_000), 5).await.unwrap(), []);
        assert_eq!(expired(&store, Timestamp::from_millis(0), 5).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_row_fits_whatever_it_is_told() {
        let store = MemoryStore::new();
        for (n, text) in ["x".repeat(10_000), "\u{1f980}".repeat(10_000), "\0".repeat(10_000)].into_iter().enumerate() {
            let mut entry = entries(1).remove(0);
            entry.at = Timestamp::from_millis(n as u64);
            entry.tenant = TenantId::parse(&"t".repeat(64)).ok();
            entry.stream = StreamId::parse(&"s".repeat(64)).ok();
            (entry.actor, entry.what, entry.reason) = (text.clone(), text.clone(), text.clone());
            (entry.before, entry.after) = (text.clone(), text);
            append_all(&store, &[entry]).await.unwrap();
        }
        let found = all(&store, &Filter::default(), 10).await;
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|entry| entry.reason.ends_with('…') && entry.after.chars().count() > 30));
    }

    #[tokio::test]
    async fn a_damaged_row_is_shown_and_ends_nothing() {
        let store = MemoryStore::new();
        let written = entries(9);
        append_all(&store, &written).await.unwrap();
        let mut batch = Batch::new();
        batch.put(Key::audit(written[4].at, written[4].id), If::Any, bytes::Bytes::from_static(b"rubbish"));
        store.commit(batch).await.unwrap();
        let globex = Filter { tenant: TenantId::parse("globex").ok(), ..Filter::default() };
        let page = list(&store, &globex, None, 100).await.unwrap();
        assert_eq!(page.entries.iter().filter(|entry| entry.is_ok()).count(), 4);
        assert_eq!(page.entries.iter().filter(|entry| entry.is_err()).count(), 1);
    }
}
