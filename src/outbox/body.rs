//! What stands in a body file: the message's manifest, its octets, and notes of its progress.
//!
//! ```text
//! octets 0–7     "BHOUTBX1"
//! octets 8–11    length of the manifest
//! octets 12–15   CRC-32 of the manifest
//! octets 16–23   length of the message's first part, which lies right behind the manifest
//! octets 24–31   where its second part begins; 0: it has none
//! octets 32–39   length of the second part
//! octets 40–43   CRC-32 of the message, both parts
//! octets 44–47   CRC-32 of octets 0–43
//! octets 48–     the manifest (JSON), the first part, a hole where a message was spilled while it
//!                arrived, the second part
//! behind them    notes: lines "progress MARKS CRC", the last whole one counts
//! ```
//! Numbers are big-endian. The envelope is in the file itself, so that the index of the outbox can
//! be built from the files alone; the notes are there so that a message that SES took for some of
//! its recipients does not go to them again after that.
//!
//! Refuses: a file of another form, and any octet that is not as it was written ([`BodyError`]).

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::spool::{Content, Spool, SpoolError};
use crate::mail::{Mailbox, MessageId, ReversePath, SessionId, StreamId, TenantId, Username};
use crate::time::Timestamp;

const MAGIC: &[u8; 8] = b"BHOUTBX1";
/// Octets before the manifest.
const HEAD: u64 = 48;
/// What one read of a file takes at first: the whole of most.
const FIRST_READ: u64 = 64 * 1024;
/// What [`check`] reads at a time.
const PIECE: u64 = 1024 * 1024;
/// Largest manifest that is read: more than the settings allow one to be.
const MANIFEST_LONGEST: u64 = 4 * 1024 * 1024;
/// Room for a manifest and for what the relay adds to a header section, where a message is spilled
/// before either is known: a thousand recipients of the longest kind, and the claims of the largest
/// header section, each as JSON.
const SPILL_ROOM: u64 = 2 * 1024 * 1024;

/// Everything the outbox knows of a message beside its octets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Our id.
    pub id: MessageId,
    /// The connection it came by.
    pub session: SessionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its stream; `None`: a report of the relay's own about this tenant's mail, which no pause of
    /// the tenant's holds up.
    pub stream: Option<StreamId>,
    /// Who sent it.
    pub credential: Username,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO, those SES was not asked for to the end when it was held among them: [`Progress`]
    /// has their marks, in this order.
    pub recipients: Vec<Mailbox>,
    /// Every address its header section says it is from.
    pub claims: Vec<Mailbox>,
    /// The tags it leaves with, ours first.
    pub tags: Vec<(String, String)>,
    /// When its data had come in.
    pub created: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// What a client that sends it again is known by: see `dispatch::repeats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Why a body file is of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// The spool could not read it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// It is not what was written.
    #[error("its body file is damaged: {0}")]
    Damaged(&'static str),
}

/// Octets to be left free before the octets of a message that is spilled while it arrives, when
/// `head_bytes` of it stay in memory.
pub fn spill_room(head_bytes: usize) -> u64 {
    (head_bytes as u64 + SPILL_ROOM).next_multiple_of(4096)
}

/// What stands at the beginning of the file, in order: all of it but the second part of a message
/// that was spilled.
pub fn beginning(manifest: &Manifest, content: &Content) -> Vec<Bytes> {
    // No manifest of ours fails to become JSON; should one ever, the file would be refused at reading.
    let json = serde_json::to_vec(manifest).unwrap_or_default();
    let first: usize = content.first.iter().map(Bytes::len).sum();
    let (tail_at, tail) = content.draft.as_ref().map_or((0, 0), |draft| (draft.at(), draft.len()));
    let mut head = Vec::with_capacity(json.len() + 48);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
    head.extend_from_slice(&crc32fast::hash(&json).to_be_bytes());
    head.extend_from_slice(&(first as u64).to_be_bytes());
    head.extend_from_slice(&tail_at.to_be_bytes());
    head.extend_from_slice(&tail.to_be_bytes());
    head.extend_from_slice(&content.checksum().to_be_bytes());
    let own = crc32fast::hash(&head);
    head.extend_from_slice(&own.to_be_bytes());
    head.extend_from_slice(&json);
    let mut all = Vec::with_capacity(content.first.len() + 1);
    all.push(Bytes::from(head));
    all.extend(content.first.iter().cloned());
    all
}

/// The note that says how far a message has come.
pub fn note(progress: &Progress) -> Bytes {
    let line = format!("progress {}", progress.marks());
    let crc = crc32fast::hash(line.as_bytes());
    Bytes::from(format!("{line} {crc:08x}\n"))
}

/// What a body file says without the message's octets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// What is known of the message.
    pub manifest: Manifest,
    /// How far it had come.
    pub progress: Progress,
    /// Its octets.
    pub bytes: u64,
}

/// Reads what a file says without the message's octets.
pub async fn read_manifest(spool: &dyn Spool, id: MessageId) -> Result<Told, BodyError> {
    let start = spool.read(id, 0, FIRST_READ).await?;
    let (head, manifest) = open(spool, id, &start).await?;
    let progress = notes(spool, id, &head, &start, manifest.recipients.len()).await?;
    Ok(Told { manifest, progress, bytes: head.message() })
}

/// The whole of it: manifest, and the message's octets in a vector of their own, as the SDK wants
/// them.
pub async fn read(spool: &dyn Spool, id: MessageId) -> Result<(Manifest, Vec<u8>), BodyError> {
    let start = spool.read(id, 0, FIRST_READ).await?;
    let (head, manifest) = open(spool, id, &start).await?;
    let mut octets = Vec::with_capacity(usize::try_from(head.message()).unwrap_or(0));
    for part in [head.first(), head.tail()] {
        take(spool, id, &start, part, &mut octets).await?;
    }
    if crc32fast::hash(&octets) != head.message_crc {
        return Err(BodyError::Damaged("the checksum of the message does not fit"));
    }
    Ok((manifest, octets))
}

/// Reads all of it, a piece at a time, and keeps none of the message's octets: whether every octet is
/// as it was written.
pub async fn check(spool: &dyn Spool, id: MessageId) -> Result<Told, BodyError> {
    let start = spool.read(id, 0, FIRST_READ).await?;
    let (head, manifest) = open(spool, id, &start).await?;
    let mut crc = crc32fast::Hasher::new();
    for part in [head.first(), head.tail()] {
        let mut at = part.start;
        while at < part.end {
            let end = part.end.min(at.saturating_add(PIECE));
            let mut piece = Vec::new();
            take(spool, id, &start, at..end, &mut piece).await?;
            crc.update(&piece);
            at = end;
            tokio::task::yield_now().await;
        }
    }
    if crc.finalize() != head.message_crc {
        return Err(BodyError::Damaged("the checksum of the message does not fit"));
    }
    let progress = notes(spool, id, &head, &start, manifest.recipients.len()).await?;
    Ok(Told { manifest, progress, bytes: head.message() })
}

/// The fixed part.
struct Head {
    manifest: u64,
    manifest_crc: u32,
    first: u64,
    tail_at: u64,
    tail: u64,
    message_crc: u32,
}

impl Head {
    fn parse(start: &[u8]) -> Result<Self, BodyError> {
        let fixed = usize::try_from(HEAD).ok().and_then(|head| start.get(..head));
        let Some((covered, own)) = fixed.and_then(<[u8]>::split_last_chunk::<4>) else {
            return Err(BodyError::Damaged("it is shorter than its head"));
        };
        if !covered.starts_with(MAGIC) {
            return Err(BodyError::Damaged("it does not begin as a body file does"));
        }
        if crc32fast::hash(covered) != u32::from_be_bytes(*own) {
            return Err(BodyError::Damaged("the checksum of its head does not fit"));
        }
        let long = |at: usize| {
            let octets = covered.get(at..at + 8).and_then(|octets| octets.first_chunk::<8>());
            octets.map_or(0, |octets| u64::from_be_bytes(*octets))
        };
        let short = |at: usize| {
            let octets = covered.get(at..at + 4).and_then(|octets| octets.first_chunk::<4>());
            octets.map_or(0, |octets| u32::from_be_bytes(*octets))
        };
        Ok(Self {
            manifest: u64::from(short(8)),
            manifest_crc: short(12),
            first: long(16),
            tail_at: long(24),
            tail: long(32),
            message_crc: short(40),
        })
    }

    fn first(&self) -> Range<u64> {
        let at = HEAD + self.manifest;
        at..at + self.first
    }

    fn tail(&self) -> Range<u64> {
        self.tail_at..self.tail_at + self.tail
    }

    /// Octets of the message.
    fn message(&self) -> u64 {
        self.first + self.tail
    }

    /// Where the notes begin.
    fn notes(&self) -> u64 {
        if self.tail == 0 { self.first().end } else { self.tail().end }
    }
}

async fn open(spool: &dyn Spool, id: MessageId, start: &Bytes) -> Result<(Head, Manifest), BodyError> {
    let head = Head::parse(start)?;
    if head.manifest > MANIFEST_LONGEST {
        return Err(BodyError::Damaged("its manifest is too long"));
    }
    let mut json = Vec::new();
    take(spool, id, start, HEAD..HEAD + head.manifest, &mut json).await?;
    if crc32fast::hash(&json) != head.manifest_crc {
        return Err(BodyError::Damaged("the checksum of its manifest does not fit"));
    }
    let manifest: Manifest =
        serde_json::from_slice(&json).map_err(|_| BodyError::Damaged("its manifest cannot be read"))?;
    if manifest.id != id {
        return Err(BodyError::Damaged("it is another message's"));
    }
    Ok((head, manifest))
}

/// Adds the octets of `range`, out of `start` as far as they are in it.
async fn take(
    spool: &dyn Spool,
    id: MessageId,
    start: &Bytes,
    range: Range<u64>,
    into: &mut Vec<u8>,
) -> Result<(), BodyError> {
    let wanted = range.end.saturating_sub(range.start);
    let before = into.len();
    let begins = usize::try_from(range.start).unwrap_or(usize::MAX);
    let ends = usize::try_from(range.end).unwrap_or(usize::MAX).min(start.len());
    into.extend_from_slice(start.get(begins.min(ends)..ends).unwrap_or_default());
    let got = (into.len() - before) as u64;
    if got < wanted {
        into.extend_from_slice(&spool.read(id, range.start + got, wanted - got).await?);
    }
    if (into.len() - before) as u64 == wanted { Ok(()) } else { Err(BodyError::Damaged("it ends too early")) }
}

/// The progress that the last whole note tells; none is no progress.
async fn notes(
    spool: &dyn Spool,
    id: MessageId,
    head: &Head,
    start: &Bytes,
    recipients: usize,
) -> Result<Progress, BodyError> {
    let at = head.notes();
    let whole = (start.len() as u64) < FIRST_READ;
    let text = match usize::try_from(at).ok().filter(|at| whole && *at <= start.len()) {
        Some(at) => start.slice(at..),
        None => spool.read(id, at, FIRST_READ).await?,
    };
    let mut progress = Progress::none(recipients);
    for line in text.split(|octet| *octet == b'\n') {
        let told = std::str::from_utf8(line).ok().and_then(|line| line.rsplit_once(' '));
        let Some((line, crc)) = told else { continue };
        if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(line.as_bytes())) {
            continue;
        }
        let marks = line.strip_prefix("progress ").and_then(Progress::parse);
        if let Some(marks) = marks.filter(|marks| marks.recipients() == recipients) {
            progress = marks;
        }
    }
    Ok(progress)
}
