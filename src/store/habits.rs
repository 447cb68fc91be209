//! What a credential is used to: whence, how much, and to whom it has written.
//!
//! | row | holds |
//! |---|---|
//! | `habit` | networks, volumes by hour, first-time recipients by day, the current hour |
//! | `habitfilter` | a chunk of the filter of addresses it has mailed ([`filter`]) |
//!
//! [`Habits`] is the state in memory, told of what was accepted; the rows are written now and then
//! ([`Habits::rows`]), all that changed at once, so that they fit each other. What came since is lost
//! by a crash: those recipients look first-time once more.
//!
//! Promises: bounded, whatever is sent: [`NETWORKS`] networks, a week of hours, a filter of the size
//! it may have; each row is under 4 KB. A clock that is set back counts into the hour it had reached.
//! What can go wrong: a damaged row is [`ReadError::Corrupt`]; the caller begins anew, and who has no
//! past is not suspected.

pub mod filter;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::filter::{CHUNK, Chunk, Filter, Print};
use super::{Batch, If, Key, ReadError, Store, record};
use crate::mail::{TenantId, Username};
use crate::policy::takeover::{DAYS, Hour, Past};
use crate::time::Timestamp;

/// Most networks that are remembered.
pub const NETWORKS: usize = 32;
/// Most of them first seen today: a flood from everywhere does not push out those that are known.
const NEWCOMERS: usize = NETWORKS / 2;
/// Most new networks of an hour that are told of by name.
pub const NAMED: usize = 4;
/// Hours of a day.
const HOURS: u32 = 24;
/// The largest count of an hour or day that is kept; it keeps rows short.
const LARGEST: u32 = 99_999_999;
/// Most rows of one credential: fewer than a batch may have.
pub const ROWS: usize = 1 + filter::MOST_CHUNKS;
/// Octets of a credential's habits in memory beside its filter's, about.
pub const OCTETS: usize = 6_144;

/// How much is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Days for which a network is known after its last use.
    pub network_days: u32,
    /// Most chunks of a filter.
    pub chunks: usize,
}

/// One credential's habits.
#[derive(Clone, Debug)]
pub struct Habits {
    summary: Summary,
    filter: Filter,
    changed: bool,
}

/// The row of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Summary {
    /// Whose it was: a username that was given to another tenant begins anew.
    tenant: TenantId,
    /// The day of its first use.
    began: u32,
    /// When it was last suspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspected: Option<Timestamp>,
    /// Chunks of the filter.
    chunks: usize,
    networks: Vec<Seen>,
    /// Recipients by hour, for a week.
    #[serde(with = "hours")]
    volumes: BTreeMap<u32, u32>,
    /// Recipients and first-time ones by day, for a week.
    days: BTreeMap<u32, (u32, u32)>,
    now: Current,
}

/// A network with the days on which it was first and last seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Seen(IpNet, u32, u32);

/// The current hour beside its volume.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Current {
    hour: u32,
    first_time: u32,
    /// Somebody's first time could not be told.
    #[serde(default)]
    unknown: bool,
    /// Recipients from networks that were not known before today.
    from_new: u32,
    /// Some of those networks, with their recipients.
    new: Vec<(IpNet, u32)>,
}

impl Habits {
    /// Of a credential that is used for the first time.
    pub fn new(tenant: &TenantId, now: Timestamp) -> Self {
        let hour = now.hour().0;
        let summary = Summary {
            tenant: tenant.clone(),
            began: hour / HOURS,
            suspected: None,
            chunks: 0,
            networks: Vec::new(),
            volumes: BTreeMap::new(),
            days: BTreeMap::new(),
            now: Current { hour, ..Current::default() },
        };
        Self { summary, filter: Filter::default(), changed: true }
    }

    /// Whose they are.
    pub fn tenant(&self) -> &TenantId {
        &self.summary.tenant
    }

    /// Notes mail to the addresses of `prints` that was accepted from `network`.
    pub fn note(&mut self, network: IpNet, prints: &[Print], now: Timestamp, memory: Memory) {
        let recipients = u32::try_from(prints.len()).unwrap_or(u32::MAX);
        if recipients == 0 {
            return;
        }
        self.changed = true;
        self.turn(now, memory);
        let mut first = 0;
        for print in prints {
            match self.filter.note(*print, memory.chunks) {
                Some(true) => first += 1,
                Some(false) => {}
                None => self.summary.now.unknown = true,
            }
        }
        let Summary { volumes, days, now: current, .. } = &mut self.summary;
        let day = days.entry(current.hour / HOURS).or_default();
        (day.0, day.1) = (add(day.0, recipients), add(day.1, first));
        let volume = volumes.entry(current.hour).or_default();
        *volume = add(*volume, recipients);
        current.first_time = add(current.first_time, first);
        if self.is_new(network) {
            let Current { from_new, new, .. } = &mut self.summary.now;
            *from_new = add(*from_new, recipients);
            let room = new.len() < NAMED;
            match new.iter_mut().find(|(known, _)| *known == network) {
                Some((_, sum)) => *sum = add(*sum, recipients),
                None if room => new.push((network, recipients)),
                None => {}
            }
        }
    }

    /// Whether `network` was not known before today; from now on it has been seen today.
    fn is_new(&mut self, network: IpNet) -> bool {
        let today = self.summary.now.hour / HOURS;
        let networks = &mut self.summary.networks;
        if let Some(seen) = networks.iter_mut().find(|seen| seen.0 == network) {
            seen.2 = today;
            return seen.1 == today;
        }
        let seen = Seen(network, today, today);
        if networks.len() < NETWORKS {
            networks.push(seen);
            return true;
        }
        let crowded = networks.iter().filter(|seen| seen.1 == today).count() >= NEWCOMERS;
        let leaves = networks.iter_mut().filter(|seen| !crowded || seen.1 == today).min_by_key(|seen| seen.2);
        if let Some(leaves) = leaves {
            *leaves = seen;
        }
        true
    }

    /// Begins a new hour where one has come, and forgets what is too old.
    fn turn(&mut self, now: Timestamp, memory: Memory) {
        let hour = now.hour().0;
        let summary = &mut self.summary;
        if hour <= summary.now.hour {
            return;
        }
        summary.now = Current { hour, ..Current::default() };
        let day = hour / HOURS;
        summary.volumes.retain(|one, _| one.saturating_add(DAYS * HOURS) >= hour);
        summary.days.retain(|one, _| one.saturating_add(DAYS) >= day);
        summary.networks.retain(|seen| seen.2.saturating_add(memory.network_days) >= day);
    }

    /// The past of the current hour.
    pub fn past(&self) -> Past {
        let Summary { began, volumes, days, now, .. } = &self.summary;
        let today = now.hour / HOURS;
        let before = days.range(today.saturating_sub(DAYS)..today);
        let (recipients, first_time) =
            before.fold((0_u64, 0_u64), |(all, first), (_, day)| (all + u64::from(day.0), first + u64::from(day.1)));
        let same_hours = (1..=DAYS).filter_map(|day| volumes.get(&now.hour.checked_sub(day * HOURS)?));
        let sum: f64 = same_hours.map(|volume| f64::from(*volume)).sum();
        Past {
            days_of_use: today.saturating_sub(*began),
            recipients,
            first_time,
            same_hour_mean: sum / f64::from(DAYS),
        }
    }

    /// The current hour.
    pub fn hour(&self, memory: Memory) -> Hour {
        let Current { hour, first_time, unknown, from_new, .. } = &self.summary.now;
        let told = !unknown && !self.filter.is_saturated(memory.chunks);
        Hour {
            recipients: self.summary.volumes.get(hour).copied().unwrap_or_default().into(),
            first_time: told.then_some(u64::from(*first_time)),
            from_new_networks: u64::from(*from_new),
        }
    }

    /// New networks of the current hour, the busiest first, [`NAMED`] at most.
    pub fn new_networks(&self) -> Vec<IpNet> {
        let mut new = self.summary.now.new.clone();
        new.sort_by_key(|(_, recipients)| std::cmp::Reverse(*recipients));
        new.into_iter().map(|(network, _)| network).collect()
    }

    /// When it was last suspected.
    pub fn suspected(&self) -> Option<Timestamp> {
        self.summary.suspected
    }

    /// It is suspected now.
    pub fn suspect(&mut self, now: Timestamp) {
        self.summary.suspected = Some(now);
        self.changed = true;
    }

    /// Octets it takes in memory, about.
    pub fn octets(&self) -> usize {
        OCTETS.saturating_add(self.filter.chunks().saturating_mul(CHUNK))
    }

    /// Whether anything changed since it was written.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Adds all rows of `username` that changed to `batch`, [`ROWS`] at most.
    pub fn rows(&self, username: &Username, batch: &mut Batch) {
        if !self.changed {
            return;
        }
        let summary = Summary { chunks: self.filter.chunks(), ..self.summary.clone() };
        batch.put(Key::habit(username), If::Any, record::seal(&summary));
        for (at, chunk) in self.filter.changed() {
            batch.put(Key::habit_filter(username, at), If::Any, record::seal(&STANDARD.encode(chunk)));
        }
    }

    /// Its rows have been written.
    pub fn written(&mut self) {
        self.changed = false;
        self.filter.written();
    }
}

/// The habits of `username` as they were last written.
pub async fn read(store: &dyn Store, username: &Username) -> Result<Option<Habits>, ReadError> {
    let key = Key::habit(username);
    let Some(row) = store.get(&key).await? else { return Ok(None) };
    let summary: Summary = record::open(&key, &row.value)?;
    let corrupt = |key: &Key, what: &str| ReadError::Corrupt(key.clone(), what.to_owned());
    if summary.chunks > filter::MOST_CHUNKS {
        return Err(corrupt(&key, "it has more chunks than there may be"));
    }
    let mut chunks = Vec::with_capacity(summary.chunks);
    for at in 0..summary.chunks {
        let key = Key::habit_filter(username, at);
        let row = store.get(&key).await?.ok_or_else(|| corrupt(&key, "it is not there"))?;
        let text: String = record::open(&key, &row.value)?;
        let octets = STANDARD.decode(text).map_err(|error| corrupt(&key, &error.to_string()))?;
        let chunk: Chunk = octets.try_into().map_err(|_| corrupt(&key, "it has another length"))?;
        chunks.push(chunk);
    }
    let filter = Filter::of(chunks).ok_or_else(|| corrupt(&key, "it has a number of chunks that none has"))?;
    Ok(Some(Habits { summary, filter, changed: false }))
}

/// The next `limit` credentials after `after` that have habits.
pub async fn names(
    store: &dyn Store,
    after: Option<&Username>,
    limit: usize,
) -> Result<(Vec<Username>, bool), ReadError> {
    let after = after.map(Key::habit);
    let page = store.scan(&Key::habits(), after.as_ref(), limit).await?;
    let more = page.len() == limit;
    let name = |key: &Key| Username::parse(key.parts()?.get(1)?).ok();
    Ok((page.iter().filter_map(|(key, _)| name(key)).collect(), more))
}

/// Removes all rows of `username`.
pub fn forget(username: &Username, batch: &mut Batch) {
    batch.remove(Key::habit(username), If::Any);
    for at in 0..filter::MOST_CHUNKS {
        batch.remove(Key::habit_filter(username, at), If::Any);
    }
}

fn add(a: u32, b: u32) -> u32 {
    a.saturating_add(b).min(LARGEST)
}

/// Hours as the first of them and a number for each from there on.
mod hours {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Hours that a row may have; more are no week.
    const MOST: usize = 200;

    pub(super) fn serialize<S: Serializer>(hours: &BTreeMap<u32, u32>, s: S) -> Result<S::Ok, S::Error> {
        let first = hours.keys().next().copied().unwrap_or_default();
        let last = hours.keys().next_back().copied().unwrap_or_default();
        let counts: Vec<u32> = match hours.is_empty() {
            true => Vec::new(),
            false => (first..=last).map(|hour| hours.get(&hour).copied().unwrap_or_default()).collect(),
        };
        (first, counts).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<u32, u32>, D::Error> {
        let (first, counts) = <(u32, Vec<u32>)>::deserialize(d)?;
        Ok((first..).zip(counts.into_iter().take(MOST)).filter(|(_, count)| *count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mail::Mailbox;
    use crate::store::VALUE_BYTES;
    use crate::store::memory::MemoryStore;

    const MEMORY: Memory = Memory { network_days: 30, chunks: filter::MOST_CHUNKS };
    const HOUR: Duration = Duration::from_hours(1);
    /// 10:00 of a day.
    const START: Timestamp = Timestamp::from_millis((20_700 * 24 + 10) * 3_600_000);

    fn username() -> Username {
        Username::parse("acme-app").unwrap()
    }

    fn tenant() -> TenantId {
        TenantId::parse("acme").unwrap()
    }

    fn prints(from: usize, to: usize) -> Vec<Print> {
        let mailbox = |n| Mailbox::parse(format!("reader{n}@customer.example").as_bytes()).unwrap();
        (from..to).map(|n| Print::of(&username(), &mailbox(n))).collect()
    }

    fn network(n: u32) -> IpNet {
        format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap()
    }

    fn days(n: u32) -> Duration {
        HOUR * (24 * n)
    }

    #[test]
    fn past_and_hour_are_what_was_noted() {
        let mut habits = Habits::new(&tenant(), START);
        // A week of 70 recipients at ten o'clock, the first ten of which are new each day.
        for day in 0..7 {
            let (now, new) = (START.plus(days(day)), day as usize * 10);
            habits.note(network(1), &prints(new, new + 10), now, MEMORY);
            habits.note(network(1), &vec![prints(new, new + 1)[0]; 60], now.plus(HOUR / 2), MEMORY);
        }
        let now = START.plus(days(7));
        habits.note(network(2), &prints(1_000, 1_100), now, MEMORY);
        habits.note(network(3), &prints(1_100, 1_110), now, MEMORY);
        habits.note(network(1), &prints(0, 5), now, MEMORY);
        let past = habits.past();
        assert_eq!((past.days_of_use, past.recipients, past.first_time), (7, 490, 70));
        assert!((past.same_hour_mean - 70.0).abs() < 1e-9, "{}", past.same_hour_mean);
        let hour = habits.hour(MEMORY);
        assert_eq!(hour, Hour { recipients: 115, first_time: Some(110), from_new_networks: 110 });
        assert_eq!(habits.new_networks(), [network(2), network(3)]);
        // The next hour is empty, its past at that hour too; the days before are the same.
        habits.note(network(1), &prints(0, 1), now.plus(HOUR), MEMORY);
        assert_eq!(habits.hour(MEMORY).recipients, 1);
        assert!(habits.past().same_hour_mean < 1e-9);
        assert_eq!(habits.past().recipients, 490);
        // A new network of today is new all day, and known tomorrow.
        habits.note(network(2), &prints(0, 1), now.plus(HOUR), MEMORY);
        assert_eq!(habits.hour(MEMORY).from_new_networks, 1);
        habits.note(network(2), &prints(0, 1), now.plus(days(1)), MEMORY);
        assert_eq!(habits.hour(MEMORY).from_new_networks, 0);
        assert_eq!(habits.past().recipients, 420 + 117);
    }

    #[test]
    fn a_network_is_forgotten_after_its_days() {
        let mut habits = Habits::new(&tenant(), START);
        habits.note(network(1), &prints(0, 1), START, MEMORY);
        for (after, new) in [(30, 0), (60, 0), (91, 1)] {
            habits.note(network(1), &prints(0, 1), START.plus(days(after)), MEMORY);
            assert_eq!(habits.hour(MEMORY).from_new_networks, new, "after {after} days");
        }
    }

    #[test]
    fn a_flood_of_networks_leaves_room_for_those_that_are_known() {
        let mut habits = Habits::new(&tenant(), START);
        for n in 0..u32::try_from(NETWORKS).unwrap() {
            habits.note(network(n), &prints(0, 1), START.plus(days(n % 3)), MEMORY);
        }
        let now = START.plus(days(3));
        for n in 1_000..2_000 {
            habits.note(network(n), &prints(0, 1), now, MEMORY);
        }
        assert_eq!(habits.summary.networks.len(), NETWORKS);
        assert_eq!(habits.hour(MEMORY).from_new_networks, 1_000);
        assert_eq!(habits.new_networks().len(), NAMED);
        let known = habits.summary.networks.iter().filter(|seen| seen.1 < now.hour().0 / 24).count();
        assert_eq!(known, NETWORKS - NEWCOMERS);
    }

    #[test]
    fn a_saturated_filter_tells_nothing_of_first_times() {
        let small = Memory { chunks: 1, ..MEMORY };
        let mut habits = Habits::new(&tenant(), START);
        habits.note(network(1), &prints(0, 500), START, small);
        assert_eq!(habits.hour(small).first_time, Some(500));
        habits.note(network(1), &prints(500, 3_000), START, small);
        assert_eq!(habits.hour(small).first_time, None);
        habits.note(network(1), &prints(0, 1), START.plus(HOUR), small);
        assert_eq!(habits.hour(small).first_time, None);
        assert_eq!(habits.octets(), OCTETS + CHUNK);
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_hour() {
        let mut habits = Habits::new(&tenant(), START);
        habits.note(network(1), &prints(0, 3), START, MEMORY);
        habits.note(network(1), &prints(0, 3), START.minus(days(2)), MEMORY);
        assert_eq!(habits.hour(MEMORY).recipients, 6);
    }

    #[tokio::test]
    async fn the_rows_bring_it_back() {
        let store = MemoryStore::new();
        assert!(read(&store, &username()).await.unwrap().is_none());
        let mut habits = Habits::new(&tenant(), START);
        for day in 0..9 {
            habits.note(network(day), &prints(0, 300 * (day as usize + 1)), START.plus(days(day)), MEMORY);
        }
        habits.suspect(START.plus(days(8)));
        let mut batch = Batch::new();
        habits.rows(&username(), &mut batch);
        store.commit(batch).await.unwrap();
        habits.written();
        let mut again = read(&store, &username()).await.unwrap().unwrap();
        assert_eq!((again.past(), again.hour(MEMORY)), (habits.past(), habits.hour(MEMORY)));
        assert_eq!((again.suspected(), again.new_networks()), (habits.suspected(), habits.new_networks()));
        assert_eq!(again.tenant(), &tenant());
        // Known recipients are known, and one that is added changes two rows.
        let (mut batch, now) = (Batch::new(), START.plus(days(8)));
        again.rows(&username(), &mut batch);
        assert!(batch.is_empty() && !again.is_changed());
        again.note(network(1), &prints(0, 2_700), now, MEMORY);
        assert_eq!(again.hour(MEMORY).first_time, habits.hour(MEMORY).first_time);
        again.note(network(1), &prints(7_000, 7_001), now, MEMORY);
        again.rows(&username(), &mut batch);
        assert_eq!(batch.len(), 2);
        assert_eq!(names(&store, None, 10).await.unwrap(), (vec![username()], false));

        let mut batch = Batch::new();
        forget(&username(), &mut batch);
        batch.check().unwrap();
        store.commit(batch).await.unwrap();
        assert!(store.scan(&Key::all(), None, 100).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_lost_or_damaged_chunk_is_a_fault_and_not_an_empty_one() {
        let store = MemoryStore::new();
        let mut habits = Habits::new(&tenant(), START);
        habits.note(network(1), &prints(0, 3_000), START, MEMORY);
        for damage in [None, Some(bytes::Bytes::from_static(b"rubbish")), Some(record::seal(&STANDARD.encode("short")))]
        {
            let mut batch = Batch::new();
            habits.rows(&username(), &mut batch);
            assert!(batch.len() > 2);
            store.commit(batch).await.unwrap();
            assert!(read(&store, &username()).await.unwrap().is_some());
            let mut batch = Batch::new();
            match damage {
                None => batch.remove(Key::habit_filter(&username(), 1), If::Any),
                Some(value) => batch.put(Key::habit_filter(&username(), 1), If::Any, value),
            };
            store.commit(batch).await.unwrap();
            assert!(matches!(read(&store, &username()).await, Err(ReadError::Corrupt(..))));
        }
    }

    /// The fullest that habits can be.
    #[test]
    fn every_row_fits_and_so_does_a_batch_of_them() {
        let name = Username::parse(&"u".repeat(64)).unwrap();
        let mut habits = Habits::new(&TenantId::parse(&"t".repeat(64)).unwrap(), START);
        let wide = |n: u32| -> IpNet { format!("ffff:ffff:f{n:03x}::/48").parse().unwrap() };
        let many = prints(0, 1);
        for hour in 0..=8 * 24 {
            habits.note(wide(hour), &many, START.plus(HOUR * hour), MEMORY);
        }
        let mut n = 0;
        while !habits.filter.is_saturated(MEMORY.chunks) {
            habits.note(wide(n), &prints(n as usize * 500, (n as usize + 1) * 500), START.plus(days(8)), MEMORY);
            n += 1;
        }
        habits.suspect(START);
        habits.summary.volumes.values_mut().for_each(|volume| *volume = LARGEST);
        habits.summary.days.values_mut().for_each(|day| *day = (LARGEST, LARGEST));
        habits.summary.now.new.iter_mut().for_each(|new| new.1 = LARGEST);
        let mut batch = Batch::new();
        habits.rows(&name, &mut batch);
        let longest =
            batch.writes().iter().filter_map(|write| write.value.as_ref()).map(bytes::Bytes::len).max().unwrap();
        println!("the longest row has {longest} octets, a saturated credential {} rows", batch.len());
        assert_eq!(batch.len(), ROWS);
        assert!(longest < VALUE_BYTES, "{longest}");
        assert_eq!((habits.summary.networks.len(), habits.summary.volumes.len()), (NETWORKS, 169));
        batch.check().unwrap();
    }

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_encoding() {
        let mut habits = Habits::new(&tenant(), START);
        habits.note(network(1), &prints(0, 3), START, MEMORY);
        habits.note(network(1), &prints(0, 2), START.plus(HOUR * 2), MEMORY);
        assert_eq!(
            serde_json::to_string(&habits.summary).unwrap(),
            r#"{"tenant":"acme","began":20700,"chunks":0,"networks":[["10.0.1.0/24",20700,20700]],"volumes":[496810,[3,0,2]],"days":{"20700":[5,3]},"now":{"hour":496812,"first_time":0,"unknown":false,"from_new":2,"new":[["10.0.1.0/24",2]]}}"#
        );
    }
}
