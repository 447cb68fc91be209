//! Which addresses are surely on no suppression list: what nearly every recipient is asked for and
//! nearly none is found by, so the answer does not go down sled's tree to learn it.
//!
//! A Bloom filter of the keys of the lists, in memory, [`BLOCKS`] blocks of 64 octets; a key sets and asks
//! four bits of one block. A thread of the store's fills it after the start; every write notes its keys
//! here first.
//!
//! Promises: a key that is in the store is never said to be absent, neither while the thread is under
//! way (until it has come to its end nothing is said to be absent) nor when a write comes by it. Of a
//! million entries one absent key in some 40,000 is looked for in vain, of ten million one in twenty, and
//! what was removed is looked for until the next start: that costs time, and nothing else. The hash is
//! keyed by chance at each start, so nobody can choose addresses that are slow to look for.
//! What can go wrong: the walk meets a fault of the disk; then all keys are looked for, as without it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::sled::Db;

use crate::store::Key;

/// Blocks of the filter, a power of two: 8 MiB.
const BLOCKS: usize = 1 << 17;
/// Words of a block, one line of a processor's cache.
const WORDS: usize = 8;
/// Bits that a key sets in its block.
const BITS: u32 = 4;

/// What is known of the lists' keys.
pub(super) struct Sieve {
    hash: RandomState,
    blocks: Box<[[AtomicU64; WORDS]]>,
    /// Every key of the lists has been noted.
    is_whole: AtomicBool,
    /// Whoever fills it is to stop.
    is_over: AtomicBool,
    /// What the keys of the lists begin with.
    lists: [Key; 2],
}

impl Sieve {
    /// Knows nothing yet, and therefore says nothing.
    pub(super) fn new() -> Self {
        Self {
            hash: RandomState::new(),
            blocks: (0..BLOCKS).map(|_| Default::default()).collect(),
            is_whole: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            lists: [Key::all_suppressions(), Key::account_suppressions()],
        }
    }

    /// Notes a key that is about to be written; one that is none of the lists' is passed over.
    pub(super) fn note(&self, key: &[u8]) {
        if self.concerns(key) {
            // The write that follows makes these seen by whoever sees it.
            self.bits(key).for_each(|(word, bit)| {
                word.fetch_or(bit, Ordering::Relaxed);
            });
        }
    }

    /// Whether a key may be in the store; `false`: it surely is not.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        !self.is_whole.load(Ordering::Acquire)
            || !self.concerns(key)
            || self.bits(key).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Notes what is in the store, to be called once, beside its writers.
    pub(super) fn fill(&self, db: &Db) -> Result<(), ::sled::Error> {
        for list in &self.lists {
            for key in db.scan_prefix(list.octets()).keys() {
                if self.is_over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.note(&key?);
            }
        }
        self.is_whole.store(true, Ordering::Release);
        Ok(())
    }

    /// Lets whoever fills it come to an end.
    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn concerns(&self, key: &[u8]) -> bool {
        self.lists.iter().any(|list| key.starts_with(list.octets()))
    }

    fn bits(&self, key: &[u8]) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let hash = self.hash.hash_one(key);
        // The block by the upper half, its bits by nine bits each of the lower one.
        let at = usize::try_from(hash >> 40).unwrap_or_default() % BLOCKS;
        let block = self.blocks.get(at);
        (0..BITS).filter_map(move |nth| {
            let place = hash >> (nth * 9);
            let word = usize::try_from((place >> 6) & 7).unwrap_or_default();
            Some((block?.get(word)?, 1 << (place & 63)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Mailbox, TenantId};
    use crate::policy::tenant::SuppressionReason;

    fn key(n: usize) -> Key {
        let tenant: TenantId = format!("tenant-{}", n % 1000).parse().unwrap();
        let mailbox = Mailbox::parse(format!("reader.{n}@dest.example").as_bytes()).unwrap();
        Key::suppression(&tenant, &mailbox, SuppressionReason::Bounce)
    }

    fn emptied() -> Sieve {
        let sieve = Sieve::new();
        sieve.is_whole.store(true, Ordering::Release);
        sieve
    }

    #[test]
    fn what_was_noted_is_never_absent_and_little_else_is_looked_for() {
        const MANY: usize = 200_000;
        let sieve = emptied();
        let keys: Vec<Key> = (0..MANY).map(key).collect();
        keys.iter().for_each(|key| sieve.note(key.octets()));
        assert!(keys.iter().all(|key| sieve.may_have(key.octets())));
        let in_vain = (MANY..2 * MANY).filter(|n| sieve.may_have(key(*n).octets())).count();
        // Hardly one is expected; a hash that is no good has thousands.
        assert!(in_vain < 20, "{in_vain} of {MANY}");
    }

    #[test]
    fn until_it_is_whole_and_of_other_keys_it_says_nothing() {
        let sieve = Sieve::new();
        assert!(sieve.may_have(key(1).octets()));
        let sieve = emptied();
        assert!(!sieve.may_have(key(1).octets()));
        assert!(sieve.may_have(Key::meta("sequence").octets()) && sieve.may_have(b""));
        sieve.note(key(1).octets());
        assert!(sieve.may_have(key(1).octets()) && !sieve.may_have(key(2).octets()));
    }
}
