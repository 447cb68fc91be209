//! What became of a stream's mail, counted in the hour it was sent.
//!
//! A row is one node's [`Counts`] of one tenant, stream and hour; readers sum the nodes, so nodes
//! never contend. A node writes a row on the version it read, so that a second writer of the same
//! node's row (an archive being replayed, say) costs a conflict and no count.
//!
//! Promises: counts only grow. Rows of hours past [`KEPT_HOURS`] are removed by the janitor.
//! What can go wrong: a damaged row is [`ReadError::Corrupt`] for its readers, never a zero.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::{Batch, If, Key, ReadError, Store, Versioned, record};
use crate::mail::{StreamId, TenantId};
use crate::policy::tenant::Cohort;
use crate::time::Hour;

/// Hours for which counts are kept: 35 days.
pub const KEPT_HOURS: u32 = 35 * 24;

/// Rows read at a time.
const PAGE: usize = 200;

/// Recipients by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// SES took the message for them.
    #[serde(skip_serializing_if = "is_zero")]
    pub accepted: u64,
    /// Their servers took it.
    #[serde(skip_serializing_if = "is_zero")]
    pub delivered: u64,
    /// It came back for good.
    #[serde(skip_serializing_if = "is_zero")]
    pub bounced: u64,
    /// They, or somebody at their domain, complained.
    #[serde(skip_serializing_if = "is_zero")]
    pub complained: u64,
    /// It came back, perhaps not for good.
    #[serde(skip_serializing_if = "is_zero")]
    pub soft_bounced: u64,
    /// Notices that it is not there yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub delayed: u64,
    /// SES found a virus.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected: u64,
}

/// Which row: a stream of a tenant, in the hour its mail was sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// Whose mail.
    pub tenant: TenantId,
    /// Of which stream.
    pub stream: StreamId,
    /// Sent when.
    pub cohort: Cohort,
}

impl Row {
    /// Its key at `node`, which must not be empty.
    pub fn key(&self, node: &str) -> Key {
        Key::counter(&self.tenant, &self.stream, self.cohort, node)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let add = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        add(&mut self.accepted, other.accepted);
        add(&mut self.delivered, other.delivered);
        add(&mut self.bounced, other.bounced);
        add(&mut self.complained, other.complained);
        add(&mut self.soft_bounced, other.soft_bounced);
        add(&mut self.delayed, other.delayed);
        add(&mut self.rejected, other.rejected);
    }
}

/// The counts of `stream`'s mail sent in the hours `from` to `to`, both included: all nodes summed.
pub async fn of(
    store: &dyn Store,
    tenant: &TenantId,
    stream: &StreamId,
    from: Hour,
    to: Hour,
) -> Result<Counts, ReadError> {
    let mut sum = Counts::default();
    cohorts(store, tenant, stream, from, to).await?.into_iter().for_each(|(_, counts)| sum += counts);
    Ok(sum)
}

/// The rows of `stream`'s mail sent in the hours `from` to `to`, both included: each node's, in the order
/// of the hours.
pub async fn cohorts(
    store: &dyn Store,
    tenant: &TenantId,
    stream: &StreamId,
    from: Hour,
    to: Hour,
) -> Result<Vec<(Cohort, Counts)>, ReadError> {
    let prefix = Key::counters_of(tenant, stream);
    // No node has an empty name, so this key comes before every node's row of `from`.
    let mut after = Key::counter(tenant, stream, Cohort::of(from), "");
    let mut found = Vec::new();
    loop {
        let page = store.scan(&prefix, Some(&after), PAGE).await?;
        let full = page.len() == PAGE;
        for (key, row) in page {
            let cohort = cohort_of(&key)?;
            if cohort.hour > to {
                return Ok(found);
            }
            found.push((cohort, record::open(&key, &row.value)?));
            after = key;
        }
        if !full {
            return Ok(found);
        }
    }
}

/// Recipients that SES took messages for, by the hours `from` to `to` in which there were any: all nodes
/// summed.
pub async fn accepted(
    store: &dyn Store,
    tenant: &TenantId,
    stream: &StreamId,
    from: Hour,
    to: Hour,
) -> Result<BTreeMap<Hour, u64>, ReadError> {
    let mut hours: BTreeMap<Hour, u64> = BTreeMap::new();
    for (cohort, counts) in cohorts(store, tenant, stream, from, to).await? {
        if counts.accepted > 0 {
            let sum = hours.entry(cohort.hour).or_default();
            *sum = sum.saturating_add(counts.accepted);
        }
    }
    Ok(hours)
}

/// One row as it stands at `node`; nothing there is zero.
pub async fn read(store: &dyn Store, row: &Row, node: &str) -> Result<(Counts, If), ReadError> {
    let key = row.key(node);
    match store.get(&key).await? {
        None => Ok((Counts::default(), If::Absent)),
        Some(Versioned { value, version }) => Ok((record::open(&key, &value)?, If::At(version))),
    }
}

/// Adds the write of one row.
pub fn write(batch: &mut Batch, row: &Row, node: &str, condition: If, counts: &Counts) {
    batch.put(row.key(node), condition, record::seal(counts));
}

/// Rows of hours before `before` among the next `limit` after `after`; and from where to go on, if
/// there are more. Rows of a stream lie in the order of their hours, so a stream's fresh rows are skipped
/// in one step.
pub async fn expired(
    store: &dyn Store,
    before: Hour,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Key>, Option<Key>), ReadError> {
    let page = store.scan(&Key::counters(), after.as_ref(), limit).await?;
    let full = page.len() == limit;
    let mut old = Vec::new();
    let mut last = None;
    for (key, _) in page {
        if hour_of(&key)? >= before {
            return Ok((old, Some(end_of_stream(&key)?)));
        }
        last = Some(key.clone());
        old.push(key);
    }
    Ok((old, last.filter(|_| full)))
}

fn hour_of(key: &Key) -> Result<Hour, ReadError> {
    Ok(cohort_of(key)?.hour)
}

fn cohort_of(key: &Key) -> Result<Cohort, ReadError> {
    let cohort = || {
        let parts = key.parts()?;
        let hour = Hour(u32::from_str_radix(parts.get(3)?, 16).ok()?);
        let from_second = match parts.get(4)?.split_once('~') {
            Some((_, second)) => u16::from_str_radix(second, 16).ok()?,
            None => 0,
        };
        Some(Cohort { hour, from_second })
    };
    cohort().ok_or_else(|| ReadError::Corrupt(key.clone(), "its key holds no hour".into()))
}

/// A key after all rows of the stream that `key` is of, and before the next stream's.
fn end_of_stream(key: &Key) -> Result<Key, ReadError> {
    let stream = || {
        let parts = key.parts()?;
        Some(Key::counters_of(&parts.get(1)?.parse().ok()?, &parts.get(2)?.parse().ok()?))
    };
    let prefix = stream().ok_or_else(|| ReadError::Corrupt(key.clone(), "its key names no stream".into()))?;
    let mut octets = prefix.octets().to_vec();
    // The part's end is 0x00 and no part has 0x01 in it.
    if let Some(end) = octets.last_mut() {
        *end = 1;
    }
    Ok(Key::from_octets(octets))
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn row(stream: &str, hour: u32) -> Row {
        Row {
            tenant: TenantId::parse("acme").unwrap(),
            stream: StreamId::parse(stream).unwrap(),
            cohort: Cohort::of(Hour(hour)),
        }
    }

    async fn put(store: &MemoryStore, row: &Row, node: &str, counts: Counts) {
        let mut batch = Batch::new();
        write(&mut batch, row, node, If::Absent, &counts);
        store.commit(batch).await.unwrap();
    }

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_encoding() {
        let json = |counts: Counts| serde_json::to_string(&counts).unwrap();
        assert_eq!(json(Counts::default()), "{}");
        assert_eq!(
            json(Counts {
                accepted: 1,
                delivered: 2,
                bounced: 3,
                complained: 4,
                soft_bounced: 5,
                delayed: 6,
                rejected: 7
            }),
            r#"{"accepted":1,"delivered":2,"bounced":3,"complained":4,"soft_bounced":5,"delayed":6,"rejected":7}"#
        );
    }

    #[tokio::test]
    async fn hours_and_nodes_are_summed_and_neighbours_are_not() {
        let store = MemoryStore::new();
        for hour in 0..500 {
            for node in ["n1", "n2"] {
                put(
                    &store,
                    &row("news", hour),
                    node,
                    Counts { accepted: 1, bounced: u64::from(hour), ..Counts::default() },
                )
                .await;
            }
        }
        put(&store, &row("news-2", 10), "n1", Counts { accepted: 1000, ..Counts::default() }).await;
        let of = |from, to| {
            let Row { tenant, stream, .. } = row("news", 0);
            let store = &store;
            async move { of(store, &tenant, &stream, Hour(from), Hour(to)).await.unwrap() }
        };
        assert_eq!(of(10, 10).await, Counts { accepted: 2, bounced: 20, ..Counts::default() });
        assert_eq!(of(10, 12).await, Counts { accepted: 6, bounced: 66, ..Counts::default() });
        assert_eq!(of(0, u32::MAX).await.accepted, 1000);
        assert_eq!(of(499, 600).await.accepted, 2);
        assert_eq!(of(500, 600).await, Counts::default());
        assert_eq!(of(12, 10).await, Counts::default());
        let Row { tenant, stream, .. } = row("news", 0);
        let hours = accepted(&store, &tenant, &stream, Hour(100), Hour(399)).await.unwrap();
        assert_eq!(hours.len(), 300);
        assert!(hours.iter().zip(100..).all(|((hour, sum), n)| (hour.0, *sum) == (n, 2)));
    }

    #[tokio::test]
    async fn a_damaged_row_is_a_fault_and_not_a_zero() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(row("news", 1).key("n1"), If::Any, bytes::Bytes::from_static(b"rubbish"));
        store.commit(batch).await.unwrap();
        let Row { tenant, stream, .. } = row("news", 1);
        assert!(matches!(of(&store, &tenant, &stream, Hour(0), Hour(9)).await, Err(ReadError::Corrupt(..))));
        assert!(matches!(read(&store, &row("news", 1), "n1").await, Err(ReadError::Corrupt(..))));
    }

    #[tokio::test]
    async fn old_rows_are_found_without_reading_the_fresh() {
        let store = MemoryStore::new();
        for stream in ["a", "a-1", "b"] {
            for hour in 0..40 {
                put(&store, &row(stream, hour), "n1", Counts::default()).await;
            }
        }
        let (mut found, mut after, mut scans) = (Vec::new(), None, 0);
        loop {
            let (keys, next) = expired(&store, Hour(3), after, 5).await.unwrap();
            found.extend(keys.iter().map(ToString::to_string));
            scans += 1;
            match next {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        let wanted: Vec<String> = ["a", "a-1", "b"]
            .iter()
            .flat_map(|stream| (0..3).map(move |hour| format!("counter/acme/{stream}/{hour:08x}/n1")))
            .collect();
        assert_eq!(found, wanted);
        assert_eq!(scans, 4, "one a stream, and one that finds the end");
    }
}
