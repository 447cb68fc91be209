//! `suppression import`: a file of any length, in bounded memory.
//!
//! ```text
//! a thread reads and parses ──── a channel of WAITING pieces ────▶ a request at a time to the store
//! ```
//!
//! Promises: what is read and not yet in the store is at most [`WAITING`] pieces and two more (one
//! being made, one being stored), of [`CHUNK`] entries each; bad lines are counted, and the first
//! [`TOLD`] kept. What is in when the import ends in the middle stays in, and the same file may be
//! imported again. What can go wrong: the file, and the answers to the requests.

use std::io::{self, BufRead};

use tokio::sync::mpsc;

use super::Failure;
use crate::admin::command::CHUNK;
use crate::admin::listfile::{BadLine, Entries, Entry, Reader, Unread};

/// Pieces that wait for the store.
pub(super) const WAITING: usize = 4;
/// Most bad lines that are told one by one.
pub(super) const TOLD: usize = 50;

/// Entries and bad lines as they came.
struct Piece {
    entries: Vec<Entry>,
    bad: Vec<BadLine>,
    /// Octets read by then.
    octets: u64,
    /// Why there is no more: the file cannot be read, or what it is cannot be told.
    fault: Option<Fault>,
}

enum Fault {
    Io(io::Error),
    Unknown(BadLine),
}

/// What an import came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) added: usize,
    pub(super) kept: usize,
    pub(super) bad: usize,
    /// The first [`TOLD`] of the bad lines.
    pub(super) told: Vec<BadLine>,
}

/// Reads `source` to its end and has its entries stored by `give`, which says how many it added and
/// how many were there as strong. `tell` hears of each piece: the bad lines that are new and to be
/// told, the sum so far, and the octets read.
pub(super) async fn pour<R: BufRead + Send + 'static>(
    source: R,
    reader: Reader,
    name: &str,
    mut give: impl AsyncFnMut(Vec<Entry>) -> Result<(usize, usize), Failure>,
    mut tell: impl FnMut(&[BadLine], &Sum, u64),
) -> Result<Sum, Failure> {
    let (sender, mut pieces) = mpsc::channel(WAITING);
    // No task of the runtime, which would wait for it at its end: a terminal may never say more.
    std::thread::Builder::new().name("import".into()).spawn(move || read(Entries::new(source, reader), &sender))?;
    let mut sum = Sum::default();
    while let Some(Piece { entries, bad, octets, fault }) = pieces.recv().await {
        sum.bad += bad.len();
        let known = sum.told.len();
        sum.told.extend(bad.into_iter().take(TOLD - known));
        if !entries.is_empty() {
            let (added, kept) = give(entries).await?;
            sum.added += added;
            sum.kept += kept;
        }
        tell(sum.told.get(known..).unwrap_or_default(), &sum, octets);
        match fault {
            None => {}
            Some(Fault::Io(error)) => return Err(Failure::because(format!("{name}: {error}"))),
            Some(Fault::Unknown(bad)) => return Err(Failure::because(format!("{name}: {bad}"))),
        }
    }
    Ok(sum)
}

/// Sends piece after piece, until the file ends or nobody wants more.
fn read<R: BufRead>(mut source: Entries<R>, pieces: &mpsc::Sender<Piece>) {
    loop {
        let mut piece = Piece { entries: Vec::new(), bad: Vec::new(), octets: 0, fault: None };
        let mut ended = false;
        while !ended && piece.entries.len() < CHUNK && piece.bad.len() < CHUNK {
            match source.next() {
                Ok(Some(Ok(entry))) => piece.entries.push(entry),
                Ok(Some(Err(Unread::Line(bad)))) => piece.bad.push(bad),
                Ok(Some(Err(Unread::File(bad)))) => piece.fault = Some(Fault::Unknown(bad)),
                Ok(None) => ended = true,
                Err(error) => piece.fault = Some(Fault::Io(error)),
            }
            ended |= piece.fault.is_some();
        }
        piece.octets = source.octets();
        if pieces.blocking_send(piece).is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::admin::listfile::Form;
    use crate::mail::TenantId;
    use crate::policy::tenant::{Suppression, SuppressionReason};
    use crate::store::memory::MemoryStore;
    use crate::store::suppressions;
    use crate::time::Timestamp;

    /// A file that is made as it is read, and counts how many of its lines were.
    struct Made {
        lines: usize,
        made: Arc<AtomicUsize>,
        rest: Vec<u8>,
        bad_every: usize,
    }

    impl Read for Made {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.rest.is_empty() {
                let n = self.made.load(Ordering::SeqCst);
                if n == self.lines {
                    return Ok(0);
                }
                self.made.store(n + 1, Ordering::SeqCst);
                self.rest = if n % self.bad_every == self.bad_every - 1 {
                    b"nobody\n".to_vec()
                } else {
                    format!("reader{n}@b{}.example,bounce\n", n % 7).into_bytes()
                };
            }
            let taken = self.rest.len().min(into.len());
            into[..taken].copy_from_slice(&self.rest[..taken]);
            self.rest.drain(..taken);
            Ok(taken)
        }
    }

    /// A hundred thousand entries and more: what has been read and is not in the store never grows
    /// beyond what the head of this file says, however slow the store is.
    #[tokio::test]
    async fn an_import_of_any_length_holds_a_bounded_number_of_entries() {
        const LINES: usize = 120_000;
        let store = MemoryStore::new();
        let acme = TenantId::parse("acme").unwrap();
        let made = Arc::new(AtomicUsize::new(0));
        let source = Made { lines: LINES, made: made.clone(), rest: Vec::new(), bad_every: 1000 };
        let (mut stored, mut ahead, mut pieces) = (0, 0, 0);
        let mut read = 0;
        let sum = pour(
            BufReader::with_capacity(256, source),
            Reader::new(Form::Csv, None),
            "made",
            async |entries| {
                pieces += 1;
                if pieces % 50 == 0 {
                    // Long enough for the reader to run as far ahead as it may.
                    tokio::task::yield_now().await;
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                // What is bad and what is buffered as text is a few lines.
                ahead = ahead.max(made.load(Ordering::SeqCst) - stored);
                let entries: Vec<_> = entries
                    .into_iter()
                    .map(|entry| {
                        let (at, origin, actor) = (Timestamp::from_millis(1), "made".into(), "test".into());
                        (entry.address, Suppression { reason: entry.reason, origin, at, expires: None, actor })
                    })
                    .collect();
                let mut added = 0;
                for some in entries.chunks(suppressions::MANY) {
                    added += suppressions::add_many(&store, &acme, some).await.unwrap();
                }
                stored += entries.len();
                Ok((added, entries.len() - added))
            },
            |_, sum, octets| {
                assert!(octets >= read, "{sum:?}");
                read = octets;
            },
        )
        .await
        .unwrap();
        assert_eq!((sum.added, sum.kept, sum.bad, sum.told.len()), (LINES - 120, 0, 120, TOLD));
        assert!(pieces >= LINES / CHUNK - 1, "{pieces}");
        let most = (WAITING + 2) * CHUNK;
        // Bad lines are read and never stored; and some lines of text are in the buffer.
        let (bad, buffered) = (120, 64);
        assert!(ahead <= most + bad + buffered, "{ahead} entries were held");
        assert!(ahead > 2 * CHUNK, "the reader never ran ahead: {ahead}");
        let page = suppressions::list(&store, &acme, None, 2).await.unwrap();
        assert_eq!(page[0].0, "reader0@b0.example");
        assert_eq!(page[0].1.reason, SuppressionReason::Bounce);
    }

    #[tokio::test]
    async fn an_import_ends_at_the_first_answer_that_is_none_and_at_a_file_that_cannot_be_told() {
        let many: String = (0..CHUNK * 20).map(|n| format!("r{n}@b.example\n")).collect();
        let mut asked = 0;
        let refused = pour(
            io::Cursor::new(many.into_bytes()),
            Reader::new(Form::Csv, None),
            "list.csv",
            async |_| {
                asked += 1;
                Err(Failure::because("there is no tenant nobody"))
            },
            |_, _, _| {},
        )
        .await;
        assert!(refused.is_err());
        assert_eq!(asked, 1);
        let unknown = pour(
            io::Cursor::new(b"email,created\na@b.example,1\n".to_vec()),
            Reader::new(Form::Csv, None),
            "list.csv",
            async |_| panic!("nothing of it is to be stored"),
            |_, _, _| {},
        )
        .await;
        let words = format!("{:?}", unknown.unwrap_err());
        assert!(words.contains("list.csv: line 1: ") && words.contains("--reason"), "{words}");
    }
}
