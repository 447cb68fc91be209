//! Whether a credential has mailed an address before: a Bloom filter that grows.
//!
//! It is made of chunks of [`CHUNK`] octets, each of which is one row. A filter of 1 chunk that is
//! half full is given another, of 2 another 2, and so on up to its bound; each such layer is asked,
//! the newest is written to. Within a layer the address says which chunk it is in, so that one
//! address changes one row.
//!
//! Promises: an address that was noted is known for ever. One that was not is taken for known in
//! less than one case of 256 a layer, which is for the credential. No address can be read out of it:
//! what is kept are bits of a [`Print`].
//! Refuses: once the newest layer is half full at the bound, the filter is [`Filter::is_saturated`]
//! and notes nothing more; what it then says of new addresses would be a guess.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::mail::{Mailbox, Username};

/// Octets of a chunk. In base64 it has 2,732, and a row 4,096 at most.
pub const CHUNK: usize = 2_048;
/// Most chunks that a filter may ever have: 64 KiB.
pub const MOST_CHUNKS: usize = 32;
/// Bits of a chunk: 2 to the power of [`PLACE`].
const BITS: u32 = 8 * 2_048;
/// Bits of a print that name one bit of a chunk.
const PLACE: u32 = 14;
/// Bits of a chunk that an address sets.
const PROBES: u32 = 8;

/// An address as a credential's filter knows it: 128 bits of the SHA-256 of username, NUL and folded
/// address, so that one credential's filter says nothing of another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Print(u128);

/// One row's worth.
pub type Chunk = [u8; CHUNK];

/// The addresses that a credential has mailed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// 0, or a power of two of them.
    chunks: Vec<Chunk>,
    /// Bits set in the newest layer.
    ones: u32,
    /// Chunks that changed since they were written.
    dirty: BTreeSet<usize>,
}

impl Print {
    /// The print of `mailbox` for `username`'s filter.
    pub fn of(username: &Username, mailbox: &Mailbox) -> Self {
        let mut hash = Sha256::new();
        hash.update(username.as_str());
        hash.update([0]);
        hash.update(mailbox.folded());
        let digest: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(u128::from_be_bytes(half))
    }

    /// The bits it sets within its chunk.
    fn places(self) -> impl Iterator<Item = usize> {
        (0..PROBES).map(move |probe| {
            let place = (self.0 >> (probe * PLACE)) & u128::from(BITS - 1);
            usize::try_from(place).unwrap_or_default()
        })
    }

    /// Its chunk within a layer of `size` chunks.
    fn chunk(self, size: usize) -> usize {
        // The 16 bits that name no place; a layer has far fewer chunks.
        usize::try_from(self.0 >> (PROBES * PLACE)).unwrap_or_default() % size.max(1)
    }
}

impl Filter {
    /// A filter out of its chunks; `None` where they are no power of two in number, or too many.
    pub fn of(chunks: Vec<Chunk>) -> Option<Self> {
        if !(chunks.is_empty() || chunks.len().is_power_of_two()) || chunks.len() > MOST_CHUNKS {
            return None;
        }
        let mut filter = Self { chunks, ones: 0, dirty: BTreeSet::new() };
        let newest = filter.newest();
        let chunks = filter.chunks.get(newest.0..).unwrap_or_default();
        filter.ones = chunks.iter().flat_map(|chunk| chunk.iter()).map(|octet| octet.count_ones()).sum();
        Some(filter)
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Whether its newest layer is half full and it may not have more than `most` chunks.
    pub fn is_saturated(&self, most: usize) -> bool {
        self.is_full() && self.chunks.len().saturating_mul(2).max(1) > most.min(MOST_CHUNKS)
    }

    /// Whether `print` was noted, or is taken for it.
    pub fn knows(&self, print: Print) -> bool {
        let mut size = self.chunks.len();
        // From the newest layer to the oldest: half of the chunks, half of the rest, …, one.
        while size > 0 {
            let (start, layer) = (size / 2, size - size / 2);
            if let Some(chunk) = self.chunks.get(start + print.chunk(layer))
                && print.places().all(|place| bit(chunk, place))
            {
                return true;
            }
            size /= 2;
        }
        false
    }

    /// Notes `print`, growing to `most` chunks; whether it is new. `None` once the filter is saturated
    /// and does not know it.
    pub fn note(&mut self, print: Print, most: usize) -> Option<bool> {
        if self.knows(print) {
            return Some(false);
        }
        if self.is_saturated(most) {
            return None;
        }
        if self.is_full() {
            let more = self.chunks.len().max(1);
            self.chunks.extend(std::iter::repeat_with(|| [0; CHUNK]).take(more));
            self.ones = 0;
        }
        let (start, layer) = self.newest();
        let at = start + print.chunk(layer);
        if let Some(chunk) = self.chunks.get_mut(at) {
            for place in print.places() {
                if !bit(chunk, place) {
                    set(chunk, place);
                    self.ones += 1;
                }
            }
            self.dirty.insert(at);
        }
        Some(true)
    }

    /// The chunks that changed since they were written, with their numbers.
    pub fn changed(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.dirty.iter().filter_map(|at| Some((*at, self.chunks.get(*at)?)))
    }

    /// They have been written.
    pub fn written(&mut self) {
        self.dirty.clear();
    }

    /// Where the newest layer begins, and how many chunks it has.
    fn newest(&self) -> (usize, usize) {
        let all = self.chunks.len();
        (all / 2, all - all / 2)
    }

    fn is_full(&self) -> bool {
        let layer = u32::try_from(self.newest().1).unwrap_or(u32::MAX);
        self.ones >= layer.saturating_mul(BITS / 2)
    }
}

fn bit(chunk: &Chunk, place: usize) -> bool {
    chunk.get(place / 8).is_some_and(|octet| octet & (1 << (place % 8)) != 0)
}

fn set(chunk: &mut Chunk, place: usize) {
    if let Some(octet) = chunk.get_mut(place / 8) {
        *octet |= 1 << (place % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(n: usize) -> Print {
        let mailbox = Mailbox::parse(format!("Reader{n}@customer.example").as_bytes()).unwrap();
        Print::of(&Username::parse("acme-app").unwrap(), &mailbox)
    }

    #[test]
    fn what_was_noted_is_known_and_little_else() {
        let mut filter = Filter::default();
        assert!(!filter.knows(print(0)));
        let mut noted = 0;
        while !filter.is_saturated(MOST_CHUNKS) {
            // Whatever is taken for known was not noted, and is known all the same.
            assert_ne!(filter.note(print(noted), MOST_CHUNKS), None);
            noted += 1;
        }
        assert!((0..noted).all(|n| filter.knows(print(n))));
        let mistaken = (1_000_000..1_100_000).filter(|n| filter.knows(print(*n))).count();
        println!("a filter of 64 KiB holds {noted} addresses and mistakes {mistaken} of 100,000 others for them");
        assert_eq!(filter.chunks(), MOST_CHUNKS);
        assert!(noted > 40_000, "{noted}");
        // Six layers, each under 1 in 256 when it is half full.
        assert!(mistaken < 2_400, "{mistaken}");
    }

    #[test]
    fn it_grows_by_its_own_size_and_no_further_than_it_may() {
        let mut filter = Filter::default();
        let mut sizes = Vec::new();
        let mut n = 0;
        while filter.note(print(n), 8).is_some() {
            if sizes.last() != Some(&filter.chunks()) {
                sizes.push(filter.chunks());
            }
            n += 1;
        }
        assert_eq!(sizes, [1, 2, 4, 8]);
        assert!(filter.is_saturated(8) && !filter.is_saturated(16));
        // Those it knows it still knows; of others it says nothing.
        assert_eq!(filter.note(print(0), 8), Some(false));
        let other = (n..).find(|n| !filter.knows(print(*n))).unwrap();
        assert_eq!(filter.note(print(other), 8), None);
        // A bound that was made larger lets it go on; one that was made smaller forgets nothing.
        assert_eq!(filter.note(print(other), 16), Some(true));
        assert_eq!(filter.chunks(), 16);
        assert!(filter.knows(print(0)) && filter.is_saturated(1) == filter.is_full());
    }

    #[test]
    fn it_is_the_same_out_of_its_chunks() {
        let mut filter = Filter::default();
        for n in 0..5_000 {
            filter.note(print(n), MOST_CHUNKS);
        }
        let all: Vec<usize> = filter.changed().map(|(at, _)| at).collect();
        assert_eq!(all, (0..filter.chunks()).collect::<Vec<_>>());
        let chunks: Vec<Chunk> = filter.changed().map(|(_, chunk)| *chunk).collect();
        filter.written();
        assert_eq!(filter.changed().count(), 0);
        let again = Filter::of(chunks.clone()).unwrap();
        assert_eq!((again.chunks(), again.ones), (filter.chunks(), filter.ones));
        assert!((0..5_000).all(|n| again.knows(print(n))));
        // One more address changes one chunk.
        let other = (5_000..).find(|n| !filter.knows(print(*n))).unwrap();
        filter.note(print(other), MOST_CHUNKS);
        assert_eq!(filter.changed().count(), 1);
        assert!(Filter::of(chunks[..3].to_vec()).is_none());
        assert!(Filter::of(Vec::new()).is_some());
    }

    #[test]
    fn a_print_is_the_credentials_own_and_of_the_folded_address() {
        let of = |user: &str, mailbox: &str| {
            Print::of(&Username::parse(user).unwrap(), &Mailbox::parse(mailbox.as_bytes()).unwrap())
        };
        assert_eq!(of("a", "Joe@Acme.example"), of("a", "joe@acme.EXAMPLE"));
        assert_ne!(of("a", "joe@acme.example"), of("b", "joe@acme.example"));
        assert_ne!(of("a", "joe@acme.example"), of("a", "jo@acme.example"));
    }
}
