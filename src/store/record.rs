//! How a value is sealed: what was written comes back, or a fault that names its key.
//!
//! ```text
//! octet 0      the format of the rest, 1 today
//! octets 1–4   CRC-32 of octet 0 and the payload, big-endian
//! octets 5–    the payload: JSON
//! ```
//! JSON, because a record is then read by a person with a dump in front of them, and because a field
//! that a newer version adds does not change what an older one wrote. The version of a value belongs
//! to the backend and is not in here.
//!
//! Refuses: a format it does not know, a checksum that does not fit, JSON of another shape. Each is
//! [`ReadError::Corrupt`]; what the value holds is not repeated in it but for what serde says of the
//! shape.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Key, ReadError, VALUE_BYTES};

/// The format written today.
const FORMAT: u8 = 1;
/// Octets before the payload.
const HEAD: usize = 5;

/// The sealed form of `value`.
///
/// No type of ours fails to become JSON. Should one ever, the outcome is a value that every backend
/// refuses as too long, so that nothing false is stored.
pub fn seal<T: Serialize>(value: &T) -> Bytes {
    let mut sealed = vec![FORMAT, 0, 0, 0, 0];
    if serde_json::to_writer(&mut sealed, value).is_err() {
        return vec![0; VALUE_BYTES + 1].into();
    }
    if let Some((head, payload)) = sealed.split_at_mut_checked(HEAD)
        && let Some(room) = head.get_mut(1..)
    {
        room.copy_from_slice(&checksum(FORMAT, payload).to_be_bytes());
    }
    sealed.into()
}

/// The value out of its sealed form; `key` is for the fault.
pub fn open<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, ReadError> {
    let corrupt = |what: String| ReadError::Corrupt(key.clone(), what);
    let Some((&[format, a, b, c, d], payload)) = value.split_first_chunk::<HEAD>() else {
        return Err(corrupt(format!("it has {} octets and no payload", value.len())));
    };
    if format != FORMAT {
        return Err(corrupt(format!("format {format} is not known here; this version reads format {FORMAT}")));
    }
    if u32::from_be_bytes([a, b, c, d]) != checksum(format, payload) {
        return Err(corrupt("its checksum does not fit".into()));
    }
    serde_json::from_slice(payload).map_err(|e| corrupt(e.to_string()))
}

/// Whether a value could be opened, whatever its type: format, checksum, and that it is JSON.
pub fn check(key: &Key, value: &[u8]) -> Result<(), ReadError> {
    open::<serde::de::IgnoredAny>(key, value).map(drop)
}

fn checksum(format: u8, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[format]);
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_encoding() {
        assert_eq!(seal(&7u8).as_ref(), [1, 0xe0, 0x7f, 0x86, 0xb1, b'7']);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let key = Key::meta("test");
        let sealed = seal(&vec![("acme".to_owned(), 5u32), ("other".to_owned(), 7)]);
        let whole: Vec<(String, u32)> = open(&key, &sealed).unwrap();
        assert_eq!(whole.len(), 2);
        assert_eq!(check(&key, &sealed), Ok(()));
        let mut found = 0;
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open::<Vec<(String, u32)>>(&key, &damaged), Err(ReadError::Corrupt(k, _)) if k == key));
            assert!(matches!(check(&key, &damaged), Err(ReadError::Corrupt(k, _)) if k == key));
            found += 1;
        }
        for cut in 0..sealed.len() {
            assert!(open::<Vec<(String, u32)>>(&key, &sealed[..cut]).is_err());
        }
        assert_eq!(found, sealed.len() * 8);
    }

    #[test]
    fn another_shape_is_a_fault_and_not_a_default() {
        let key = Key::meta("test");
        assert!(matches!(open::<u32>(&key, &seal(&"text")), Err(ReadError::Corrupt(..))));
    }

    #[test]
    fn what_cannot_be_json_cannot_be_committed() {
        let map = std::collections::HashMap::from([((1, 2), 3)]);
        let mut batch = crate::store::Batch::new();
        batch.put(Key::meta("test"), crate::store::If::Any, seal(&map));
        assert!(matches!(batch.check(), Err(crate::store::CommitError::TooLong(_))));
    }
}
