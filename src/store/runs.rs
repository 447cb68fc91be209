//! Soft bounces in a row: a row for each address that had one since it was last forgotten.
//!
//! Of an address that never bounced softly there is no row, and its deliveries write none. What a
//! row means is `policy::run`'s.
//!
//! Promises: a row that cannot be read is taken as one that has not begun, and the next soft bounce
//! writes it anew: it is a memory of a nuisance, and nobody's mail may wait for its repair.

use super::{Batch, If, Key, ReadError, Store, Versioned, record};
use crate::mail::{Mailbox, TenantId};
use crate::policy::run::Run;
use crate::time::Timestamp;

/// A run as it stands, and on what its next write depends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The run; one that has not begun where there is no row.
    pub run: Run,
    /// [`If::Absent`] where there is no row.
    pub condition: If,
}

/// Reads the run of an address.
pub async fn read(store: &dyn Store, tenant: &TenantId, mailbox: &Mailbox) -> Result<Found, ReadError> {
    let key = Key::run(tenant, mailbox);
    Ok(match store.get(&key).await? {
        None => Found { run: Run::default(), condition: If::Absent },
        Some(Versioned { value, version }) => {
            Found { run: record::open(&key, &value).unwrap_or_default(), condition: If::At(version) }
        }
    })
}

/// Adds the write of a run.
pub fn write(batch: &mut Batch, key: Key, condition: If, run: &Run) {
    batch.put(key, condition, record::seal(run));
}

/// Rows among the next `limit` after `after` whose last event was before `before`, with their
/// versions; and from where to go on, if there are more.
pub async fn expired(
    store: &dyn Store,
    before: Timestamp,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<(Key, u64)>, Option<Key>), ReadError> {
    let page = store.scan(&Key::runs(), after.as_ref(), limit).await?;
    let next = page.last().filter(|_| page.len() == limit).map(|(key, _)| key.clone());
    let old = page.into_iter().filter_map(|(key, row)| {
        let run: Run = record::open(&key, &row.value).unwrap_or_default();
        run.last().is_none_or(|last| last < before).then_some((key, row.version))
    });
    Ok((old.collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::run::Step;
    use crate::store::memory::MemoryStore;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[tokio::test]
    async fn runs_are_found_by_the_folded_address_and_forgotten_by_their_last_event() {
        let store = MemoryStore::new();
        let acme = TenantId::parse("acme").unwrap();
        let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
        let absent = Found { run: Run::default(), condition: If::Absent };
        assert_eq!(read(&store, &acme, &mailbox("joe@x.example")).await, Ok(absent));
        let mut batch = Batch::new();
        for (name, last) in [("Joe@X.example", 10), ("old@x.example", 4), ("older@x.example", 3)] {
            let run = Run::default().after(Step::Bounced(at(1))).after(Step::Bounced(at(last)));
            write(&mut batch, Key::run(&acme, &mailbox(name)), If::Absent, &run);
        }
        batch.put(Key::run(&acme, &mailbox("torn@x.example")), If::Absent, bytes::Bytes::from_static(b"rubbish"));
        store.commit(batch).await.unwrap();
        let found = read(&store, &acme, &mailbox("\"joe\"@x.example")).await.unwrap();
        assert_eq!((found.run.length(), found.run.last()), (2, Some(at(10))));
        let torn = read(&store, &acme, &mailbox("torn@x.example")).await.unwrap();
        assert_eq!((torn.run, torn.condition), (Run::default(), found.condition), "begun anew, over what is there");

        let mut gone = Vec::new();
        let mut after = None;
        let mut pages = 0;
        loop {
            let (old, next) = expired(&store, at(5), after, 1).await.unwrap();
            gone.extend(old.into_iter().map(|(key, _)| key.to_string()));
            pages += 1;
            after = match next {
                Some(next) => Some(next),
                None => break,
            };
        }
        assert_eq!(gone, ["run/acme/old@x.example", "run/acme/older@x.example", "run/acme/torn@x.example"]);
        assert_eq!(pages, 5);
    }
}
