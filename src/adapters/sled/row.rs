//! How rows are kept: a value behind its version, and the number of the last commit.

use std::path::Path;

use ::sled::Db;
use bytes::Bytes;

use super::OpenError;
use crate::store::Versioned;

/// The row that holds the format of the rows and the number of the last commit. Sorts before every
/// [`Key`](crate::store::Key), which begin with a letter.
pub(super) const SEQUENCE: &[u8] = b"\0sequence";
/// The format of the rows.
pub(super) const FORMAT: u8 = 1;
/// Octets of the version before a value.
pub(super) const VERSION: usize = 8;

/// A value as it is kept: its version, then itself.
pub(super) fn row(version: u64, value: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), value].concat()
}

/// What [`row`] wrote. Damage shows as version 0, which no commit has, and an empty value, which
/// cannot be opened.
pub(super) fn versioned(row: &[u8]) -> Versioned {
    match row.split_first_chunk::<VERSION>() {
        Some((version, value)) => {
            Versioned { value: Bytes::copy_from_slice(value), version: u64::from_be_bytes(*version) }
        }
        None => Versioned { value: Bytes::new(), version: 0 },
    }
}

pub(super) fn sequence_row(sequence: u64) -> Vec<u8> {
    [&[FORMAT][..], &sequence.to_be_bytes()].concat()
}

/// The number of the last commit; writes the row if the store is new.
pub(super) fn read_sequence(db: &Db, dir: &Path) -> Result<u64, OpenError> {
    let damaged = |what: String| OpenError::Damaged { dir: dir.to_owned(), what };
    let sled = |e: ::sled::Error| damaged(e.to_string());
    match db.get(SEQUENCE).map_err(sled)?.as_deref() {
        Some([FORMAT, number @ ..]) => number
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| damaged("the number of its last commit cannot be read".into())),
        Some([format, ..]) => Err(damaged(format!("its format is {format}, this version reads format {FORMAT}"))),
        Some([]) => Err(damaged("the number of its last commit is empty".into())),
        None if db.is_empty() => {
            db.insert(SEQUENCE, sequence_row(0)).map_err(sled)?;
            db.flush().map_err(sled)?;
            Ok(0)
        }
        None => Err(damaged("it has records, but not the number of its last commit".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_version_and_its_value() {
        assert_eq!(row(0x0102, b"v"), [0, 0, 0, 0, 0, 0, 1, 2, b'v']);
        assert_eq!(versioned(&row(7, b"v")), Versioned { value: Bytes::from_static(b"v"), version: 7 });
        assert_eq!(versioned(b"short").version, 0);
    }
}
