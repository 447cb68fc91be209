//! What became of a tenant's mail by the domain of the recipient and the day it was sent (UTC): which
//! tenant is hitting which mailbox provider.
//!
//! A row is one node's [`Counts`] of one tenant, day and domain; readers sum the nodes. Only the fates
//! that say something of a provider are counted. A tenant's day has so many distinct domains and no more
//! ([`Domains`]); all further ones are counted together under [`OTHERS`]. Which domains have a row of
//! their own is read from the rows themselves, so that a bounce of next week lands where its mail was
//! counted.
//!
//! Promises: nobody's list of random domains grows the store beyond the bound. Counts only grow; rows of
//! days past [`counters::KEPT_HOURS`](super::counters::KEPT_HOURS) are removed by the janitor. It is a
//! statistic: a damaged row of it holds up no event.
//! What can go wrong: two appliers of a node that meet a new domain at the same moment may each give one
//! a row, so that there is one over the bound.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counters::Counts;
use super::{Batch, If, Key, ReadError, Store, Versioned, record};
use crate::mail::TenantId;
use crate::policy::effect::Count;
use crate::time::{Hour, Timestamp};

/// The domain that stands for all without a row of their own.
pub const OTHERS: &str = "*";
/// Distinct domains of a tenant's day by default.
pub const MOST: usize = 200;
/// Domains of tenants' days that are known by heart, a day counting as one besides.
const KNOWN: usize = 200_000;
/// Rows read at a time.
const PAGE: usize = 500;
const DAY_MILLIS: u64 = 24 * 3_600_000;

/// Which row: a domain of a tenant's day.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// Whose mail.
    pub tenant: TenantId,
    /// The day it was sent, since the epoch.
    pub day: u32,
    /// To which domain.
    pub domain: String,
}

/// Which domains have a row of their own, tenant by tenant and day by day.
#[derive(Debug)]
pub struct Domains {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    days: HashMap<(TenantId, u32), HashSet<String>>,
    /// How much that is.
    size: usize,
}

/// The day (UTC, since the epoch) of a moment.
pub fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / DAY_MILLIS).unwrap_or(u32::MAX)
}

/// Whether a fate is counted by domain.
pub fn counts(count: Count) -> bool {
    match count {
        Count::Delivered | Count::Bounced | Count::SoftBounced | Count::Complained => true,
        Count::Delayed | Count::Rejected => false,
    }
}

/// The domain of a recipient under the name that it is told apart by.
pub fn domain_of(recipient: &str) -> String {
    match recipient.rsplit_once('@') {
        // What is no domain's name would be a row for every slip of a pen.
        Some((_, domain)) if crate::mail::Domain::parse(domain).is_ok() => domain.to_ascii_lowercase(),
        Some(_) | None => OTHERS.to_owned(),
    }
}

impl Default for Domains {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Domains {
    /// A tenant's day has `most` domains besides [`OTHERS`].
    pub fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The row in which a domain is counted: its own, while there is room for one.
    pub async fn row(&self, store: &dyn Store, tenant: &TenantId, day: u32, domain: &str) -> Result<Row, ReadError> {
        let whose = (tenant.clone(), day);
        let named = |domain: &str| Row { tenant: tenant.clone(), day, domain: domain.to_owned() };
        if domain == OTHERS {
            return Ok(named(OTHERS));
        }
        let known = self.lock().admit(&whose, domain, self.most);
        let own = match known {
            Some(own) => own,
            None => {
                let names = names(store, tenant, day).await?;
                let mut known = self.lock();
                known.learn(whose.clone(), names);
                known.admit(&whose, domain, self.most).unwrap_or(false)
            }
        };
        Ok(named(if own { domain } else { OTHERS }))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether the domain has a row of its own, or gets one; `None`: the day is not known.
    fn admit(&mut self, whose: &(TenantId, u32), domain: &str, most: usize) -> Option<bool> {
        let names = self.days.get_mut(whose)?;
        if names.contains(domain) {
            return Some(true);
        }
        let has_room = names.len() < most;
        if has_room {
            names.insert(domain.to_owned());
            self.size += 1;
        }
        Some(has_room)
    }

    /// What is known is forgotten when it gets too much, and read again as it is needed.
    fn learn(&mut self, whose: (TenantId, u32), names: HashSet<String>) {
        let more = names.len() + 1;
        if self.size + more > KNOWN {
            (self.days, self.size) = (HashMap::new(), 0);
        }
        if self.days.insert(whose, names).is_none() {
            self.size += more;
        }
    }
}

/// The domains that have a row of a tenant's day, at whatever node.
async fn names(store: &dyn Store, tenant: &TenantId, day: u32) -> Result<HashSet<String>, ReadError> {
    let prefix = Key::domains_of_day(tenant, day);
    let mut names = HashSet::new();
    let mut after = None;
    loop {
        let page = store.scan(&prefix, after.as_ref(), PAGE).await?;
        let full = page.len() == PAGE;
        for (key, _) in page {
            let (_, domain) = place(&key)?;
            if domain != OTHERS {
                names.insert(domain);
            }
            after = Some(key);
        }
        if !full {
            return Ok(names);
        }
    }
}

impl Row {
    /// Its key at `node`.
    pub fn key(&self, node: &str) -> Key {
        Key::domain(&self.tenant, self.day, &self.domain, node)
    }
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

/// A tenant's counts of the days `from` to `to`, both included: by day and domain, all nodes summed.
pub async fn of(
    store: &dyn Store,
    tenant: &TenantId,
    from: u32,
    to: u32,
) -> Result<Vec<(u32, String, Counts)>, ReadError> {
    let prefix = Key::domains_of(tenant);
    // No domain has an empty name, so this key comes before every row of `from`.
    let mut after = Key::domain(tenant, from, "", "");
    let mut sums: BTreeMap<(u32, String), Counts> = BTreeMap::new();
    'pages: loop {
        let page = store.scan(&prefix, Some(&after), PAGE).await?;
        let full = page.len() == PAGE;
        for (key, row) in page {
            let place = place(&key)?;
            if place.0 > to {
                break 'pages;
            }
            *sums.entry(place).or_default() += record::open(&key, &row.value)?;
            after = key;
        }
        if !full {
            break;
        }
    }
    Ok(sums.into_iter().map(|((day, domain), counts)| (day, domain, counts)).collect())
}

/// Rows of days that ended before `before` among the next `limit` after `after`; and from where to go on,
/// if there are more. A tenant's fresh rows are skipped in one step.
pub async fn expired(
    store: &dyn Store,
    before: Hour,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Key>, Option<Key>), ReadError> {
    let first_kept = before.0 / 24;
    let page = store.scan(&Key::domains(), after.as_ref(), limit).await?;
    let full = page.len() == limit;
    let (mut old, mut last) = (Vec::new(), None);
    for (key, _) in page {
        if place(&key)?.0 >= first_kept {
            return Ok((old, Some(end_of_tenant(&key)?)));
        }
        last = Some(key.clone());
        old.push(key);
    }
    Ok((old, last.filter(|_| full)))
}

/// The day and the domain that a row is of.
fn place(key: &Key) -> Result<(u32, String), ReadError> {
    let place = || {
        let parts = key.parts()?;
        Some((u32::from_str_radix(parts.get(2)?, 16).ok()?, (*parts.get(3)?).to_owned()))
    };
    place().ok_or_else(|| ReadError::Corrupt(key.clone(), "its key holds no day and domain".into()))
}

/// A key after all rows of the tenant that `key` is of, and before the next tenant's.
fn end_of_tenant(key: &Key) -> Result<Key, ReadError> {
    let tenant = || Some(Key::domains_of(&key.parts()?.get(1)?.parse().ok()?));
    let prefix = tenant().ok_or_else(|| ReadError::Corrupt(key.clone(), "its key names no tenant".into()))?;
    let mut octets = prefix.octets().to_vec();
    // The part's end is 0x00 and no part has 0x01 in it.
    if let Some(end) = octets.last_mut() {
        *end = 1;
    }
    Ok(Key::from_octets(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    async fn put(store: &MemoryStore, row: &Row, node: &str, counts: Counts) {
        let (there, condition) = read(store, row, node).await.unwrap();
        let mut batch = Batch::new();
        let mut sum = there;
        sum += counts;
        write(&mut batch, row, node, condition, &sum);
        store.commit(batch).await.unwrap();
    }

    fn one() -> Counts {
        Counts { accepted: 1, ..Counts::default() }
    }

    #[test]
    fn a_domain_is_a_name_in_lower_case_or_one_of_the_others() {
        assert_eq!(domain_of("joe@Gmail.COM"), "gmail.com");
        assert_eq!(domain_of("\"a@b\"@there.example"), "there.example");
        for odd in ["joe", "joe@", "joe@no domain", "joe@localhost"] {
            assert_eq!(domain_of(odd), OTHERS, "{odd}");
        }
        assert_eq!(day_of(Timestamp::from_millis(2 * DAY_MILLIS - 1)), 1);
    }

    #[tokio::test]
    async fn a_day_has_so_many_domains_and_no_more_even_after_a_restart() {
        let (store, acme) = (MemoryStore::new(), tenant("acme"));
        let domains = Domains::new(3);
        for day in [7, 8] {
            for number in 0..10 {
                let row = domains.row(&store, &acme, day, &format!("d{number}.example")).await.unwrap();
                put(&store, &row, "n1", one()).await;
            }
        }
        let named = |rows: Vec<(u32, String, Counts)>| {
            rows.into_iter()
                .map(|(day, domain, counts)| format!("{day} {domain} {}", counts.accepted))
                .collect::<Vec<_>>()
        };
        let first = ["7 * 7", "7 d0.example 1", "7 d1.example 1", "7 d2.example 1"];
        assert_eq!(named(of(&store, &acme, 7, 7).await.unwrap()), first);
        assert_eq!(of(&store, &acme, 7, 9).await.unwrap().len(), 8);
        // Known by what is there, whichever node wrote it.
        let after = Domains::new(3);
        for (domain, own) in [("d1.example", "d1.example"), ("new.example", OTHERS), (OTHERS, OTHERS)] {
            let row = after.row(&store, &acme, 7, domain).await.unwrap();
            assert_eq!(row.domain, own);
            put(&store, &row, "n2", one()).await;
        }
        let sums = named(of(&store, &acme, 7, 7).await.unwrap());
        assert_eq!(sums, ["7 * 9", "7 d0.example 1", "7 d1.example 2", "7 d2.example 1"]);
        assert_eq!(of(&store, &tenant("acme-two"), 0, u32::MAX).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_known_by_heart_is_bounded() {
        let (store, domains) = (MemoryStore::new(), Domains::new(2));
        let mut largest = 0;
        for day in 0..u32::try_from(KNOWN * 3 / 4).unwrap() {
            domains.row(&store, &tenant("acme"), day, "a.example").await.unwrap();
            let known = domains.lock();
            assert!(known.size <= KNOWN + 1 && known.days.len() <= known.size);
            largest = largest.max(known.size);
        }
        assert!(largest > KNOWN - 3 && domains.lock().size < largest, "it was full once");
    }

    #[tokio::test]
    async fn old_days_are_found_without_reading_the_fresh() {
        let store = MemoryStore::new();
        for name in ["a", "a-1", "b"] {
            for day in 0..40 {
                put(&store, &Row { tenant: tenant(name), day, domain: "x.example".into() }, "n1", one()).await;
            }
        }
        let (mut found, mut after, mut scans) = (Vec::new(), None, 0);
        loop {
            let (keys, next) = expired(&store, Hour(3 * 24 + 5), after, 5).await.unwrap();
            found.extend(keys.iter().map(ToString::to_string));
            scans += 1;
            match next {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        let of =
            |name: &str| (0..3).map(move |day| format!("domain/{name}/{day:08x}/x.example/n1")).collect::<Vec<_>>();
        assert_eq!(found, [of("a"), of("a-1"), of("b")].concat());
        assert_eq!(scans, 4, "one a tenant, and one that finds the end");
    }
}
