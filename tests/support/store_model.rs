//! A store as a map without versions, and random operations that mean the same for every backend.
//!
//! An operation names versions by what they are to the reader ("the one that is there", "one that
//! was there before"), and each backend's own numbers are put in when it is run.

use std::collections::{BTreeMap, HashMap};

use bulkhead::mail::TenantId;
use bulkhead::policy::tenant::SuppressionReason;
use bulkhead::store::{Batch, CommitError, If, Key, Store};
use bytes::Bytes;

/// Which version a write asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    Absent,
    Any,
    /// The version that is there; for an absent key, the one it had last.
    Current,
    /// A version that the key had before the one it has.
    Stale,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    pub key: Key,
    pub want: Want,
    pub value: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub enum Op {
    Commit(Vec<Put>),
    Get(Key),
    GetEach(Vec<Key>),
    Scan {
        prefix: Key,
        after: Option<Key>,
        limit: usize,
    },
    /// Closed and opened again.
    Restart,
    /// Dropped without a close, and opened again.
    Drop,
}

/// What the model expects of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    Committed,
    Conflict(Key),
    KeyTwice(Key),
    Found(Option<Vec<u8>>),
    FoundEach(Vec<Option<Vec<u8>>>),
    Rows(Vec<(Key, Vec<u8>)>),
    Nothing,
}

/// How deep a run got.
#[derive(Clone, Copy, Default, Debug)]
pub struct Depth {
    pub committed: usize,
    pub conflicts: usize,
    pub hits: usize,
    pub misses: usize,
    pub rows_scanned: usize,
    pub recreated: usize,
    pub restarts: usize,
    pub drops: usize,
}

/// The model.
#[derive(Default)]
pub struct Model {
    rows: BTreeMap<Key, Vec<u8>>,
    removed: std::collections::BTreeSet<Key>,
    pub depth: Depth,
}

/// The versions one backend gave to each key, oldest first.
#[derive(Default)]
pub struct Versions(HashMap<Key, Vec<u64>>);

/// SplitMix64: small, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// One of few keys, so that writes meet.
    fn key(&mut self) -> Key {
        let tenant = TenantId::parse(["a", "ab", "b"][self.roll(3) as usize]).unwrap();
        match self.roll(5) {
            0 => Key::tenant(&tenant),
            1 => {
                let reason = SuppressionReason::ALL[self.roll(2) as usize];
                Key::suppression_place(&tenant, ["x@a.example", "y@a.example"][self.roll(2) as usize], reason)
            }
            2 => Key::suppression_place(&tenant, "z@a.example", SuppressionReason::Soft),
            3 => Key::sender(&tenant, ["a.example", "b.example", "c.example"][self.roll(3) as usize]),
            _ => Key::meta(["x", "y"][self.roll(2) as usize]),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let length = [0, 1, 9, 300, 4096][self.roll(5) as usize];
        vec![self.roll(256) as u8; length]
    }

    pub fn op(&mut self) -> Op {
        match self.roll(20) {
            0..=10 => Op::Commit((0..=self.roll(4)).map(|_| self.put()).collect()),
            11..=12 => Op::Get(self.key()),
            13..=14 => Op::GetEach((0..=self.roll(4)).map(|_| self.key()).collect()),
            15..=17 => Op::Scan {
                prefix: match self.roll(4) {
                    0 => Key::all(),
                    1 => Key::senders(),
                    2 => Key::tenants(),
                    _ => self.key(),
                },
                after: (self.roll(2) == 0).then(|| self.key()),
                limit: self.roll(6) as usize,
            },
            18 => Op::Restart,
            _ => Op::Drop,
        }
    }

    fn put(&mut self) -> Put {
        Put {
            key: self.key(),
            want: [Want::Absent, Want::Any, Want::Any, Want::Current, Want::Current, Want::Stale]
                [self.roll(6) as usize],
            value: (self.roll(3) > 0).then(|| self.value()),
        }
    }
}

impl Model {
    pub fn run(&mut self, op: &Op) -> Expected {
        match op {
            Op::Commit(puts) => self.commit(puts),
            Op::Get(key) => {
                let found = self.rows.get(key).cloned();
                *(if found.is_some() { &mut self.depth.hits } else { &mut self.depth.misses }) += 1;
                Expected::Found(found)
            }
            Op::GetEach(keys) => {
                let found: Vec<_> = keys.iter().map(|key| self.rows.get(key).cloned()).collect();
                let hits = found.iter().filter(|found| found.is_some()).count();
                self.depth.hits += hits;
                self.depth.misses += found.len() - hits;
                Expected::FoundEach(found)
            }
            Op::Scan { prefix, after, limit } => {
                let rows = self.rows.iter().filter(|(key, _)| key.octets().starts_with(prefix.octets()));
                let rows = rows.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
                let rows: Vec<_> = rows.take(*limit).map(|(key, value)| (key.clone(), value.clone())).collect();
                self.depth.rows_scanned += rows.len();
                Expected::Rows(rows)
            }
            Op::Restart => {
                self.depth.restarts += 1;
                Expected::Nothing
            }
            Op::Drop => {
                self.depth.drops += 1;
                Expected::Nothing
            }
        }
    }

    fn commit(&mut self, puts: &[Put]) -> Expected {
        for (at, put) in puts.iter().enumerate() {
            if puts[..at].iter().any(|earlier| earlier.key == put.key) {
                return Expected::KeyTwice(put.key.clone());
            }
        }
        for put in puts {
            let there = self.rows.contains_key(&put.key);
            let holds = match put.want {
                Want::Absent => !there,
                Want::Any => true,
                Want::Current => there,
                Want::Stale => false,
            };
            if !holds {
                self.depth.conflicts += 1;
                return Expected::Conflict(put.key.clone());
            }
        }
        self.depth.committed += 1;
        for put in puts {
            match &put.value {
                Some(value) => {
                    self.depth.recreated += usize::from(self.removed.remove(&put.key));
                    self.rows.insert(put.key.clone(), value.clone());
                }
                None => {
                    if self.rows.remove(&put.key).is_some() {
                        self.removed.insert(put.key.clone());
                    }
                }
            }
        }
        Expected::Committed
    }
}

impl Versions {
    /// Runs everything but restarts, which are the caller's, and says what happened.
    pub async fn run(&mut self, store: &dyn Store, op: &Op) -> Expected {
        match op {
            Op::Commit(puts) => self.commit(store, puts).await,
            Op::Get(key) => Expected::Found(store.get(key).await.unwrap().map(|found| found.value.to_vec())),
            Op::GetEach(keys) => {
                let found = store.get_each(keys).await.unwrap();
                Expected::FoundEach(found.into_iter().map(|row| Some(row?.value.to_vec())).collect())
            }
            Op::Scan { prefix, after, limit } => {
                let rows = store.scan(prefix, after.as_ref(), *limit).await.unwrap();
                Expected::Rows(rows.into_iter().map(|(key, row)| (key, row.value.to_vec())).collect())
            }
            Op::Restart | Op::Drop => Expected::Nothing,
        }
    }

    async fn commit(&mut self, store: &dyn Store, puts: &[Put]) -> Expected {
        let mut batch = Batch::new();
        for put in puts {
            let known = self.0.get(&put.key).map_or(&[][..], Vec::as_slice);
            let there = store.get(&put.key).await.unwrap().map(|row| row.version);
            let condition = match put.want {
                Want::Absent => If::Absent,
                Want::Any => If::Any,
                Want::Current => If::At(there.or(known.last().copied()).unwrap_or(1)),
                Want::Stale => If::At(known.iter().rev().copied().find(|v| Some(*v) != there).unwrap_or(u64::MAX)),
            };
            match &put.value {
                Some(value) => batch.put(put.key.clone(), condition, Bytes::from(value.clone())),
                None => batch.remove(put.key.clone(), condition),
            };
        }
        let committed = match store.commit(batch).await {
            Ok(written) => written,
            Err(CommitError::Conflict(key)) => return Expected::Conflict(key),
            Err(CommitError::KeyTwice(key)) => return Expected::KeyTwice(key),
            Err(other) => panic!("{other}"),
        };
        for put in puts.iter().filter(|put| put.value.is_some()) {
            let version = store.get(&put.key).await.unwrap().unwrap().version;
            let known = self.0.entry(put.key.clone()).or_default();
            assert_eq!(version, committed, "a commit gives the version of what it wrote");
            assert!(!known.contains(&version), "version {version} of {} came twice", put.key);
            known.push(version);
        }
        Expected::Committed
    }
}
