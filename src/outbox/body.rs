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
//! behind them    notes: lines "progress MARKS CRC", an empty one before each, so that one that was
//!                torn does not spoil the next; the last whole one counts
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
/// Largest message, or part of one, that is read: far more than SES takes.
const MESSAGE_LONGEST: u64 = 1 << 30;
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
    Bytes::from(format!("\n{line} {crc:08x}\n"))
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
        let head = Self {
            manifest: u64::from(short(8)),
            manifest_crc: short(12),
            first: long(16),
            tail_at: long(24),
            tail: long(32),
            message_crc: short(40),
        };
        if head.manifest > MANIFEST_LONGEST || head.first > MESSAGE_LONGEST || head.tail > MESSAGE_LONGEST {
            return Err(BodyError::Damaged("it says that it is longer than any"));
        }
        if head.tail_at > MESSAGE_LONGEST || (head.tail_at != 0 && head.tail_at < head.first().end) {
            return Err(BodyError::Damaged("its parts lie over one another"));
        }
        Ok(head)
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
        if self.tail_at == 0 { self.first().end } else { self.tail().end }
    }
}

async fn open(spool: &dyn Spool, id: MessageId, start: &Bytes) -> Result<(Head, Manifest), BodyError> {
    let head = Head::parse(start)?;
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
    let mut text = usize::try_from(at).ok().and_then(|at| start.get(at..)).unwrap_or_default().to_vec();
    // A first read that was not filled saw the end of the file.
    let mut ended = (start.len() as u64) < FIRST_READ;
    while !ended {
        let more = spool.read(id, at + text.len() as u64, FIRST_READ).await?;
        ended = (more.len() as u64) < FIRST_READ;
        text.extend_from_slice(&more);
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::outbox::memory::MemorySpool;
    use crate::outbox::progress::Mark;

    const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn id() -> MessageId {
        MessageId::parse(ID).unwrap()
    }

    fn manifest(recipients: usize) -> Manifest {
        let mailbox = |text: String| Mailbox::parse(text.as_bytes()).unwrap();
        Manifest {
            id: id(),
            session: SessionId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAW").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            stream: Some(StreamId::parse("news").unwrap()),
            credential: Username::parse("app").unwrap(),
            reverse_path: ReversePath::Mailbox(mailbox("bounce@acme.example".into())),
            recipients: (0..recipients).map(|n| mailbox(format!("r{n}@{}.example", "x".repeat(60)))).collect(),
            claims: vec![mailbox("joe@acme.example".into())],
            tags: vec![("bulkhead-id".into(), ID.into())],
            created: Timestamp::from_millis(1_777_000_000_000),
            expires: Timestamp::from_millis(1_777_345_600_000),
            digest: None,
        }
    }

    /// What a spool has of a message: `first` in memory, `tail` spilled.
    async fn kept(manifest: &Manifest, first: &[u8], tail: Option<&[u8]>, behind: &[u8]) -> MemorySpool {
        let spool = MemorySpool::new();
        let content = content(&spool, first, tail).await;
        let mut octets = beginning(manifest, &content);
        match &content.draft {
            Some(draft) => draft.keep(manifest.id, octets).await.unwrap(),
            None => {
                octets.push(Bytes::new());
                spool.keep(manifest.id, octets).await.unwrap();
            }
        }
        spool.append(manifest.id, Bytes::copy_from_slice(behind)).await.unwrap();
        spool
    }

    async fn content(spool: &MemorySpool, first: &[u8], tail: Option<&[u8]>) -> Content {
        let draft = match tail {
            Some(tail) => {
                let mut draft = spool.begin(spill_room(first.len())).await.unwrap();
                for part in tail.chunks(1000) {
                    draft.append(Bytes::copy_from_slice(part)).await.unwrap();
                }
                Some(Arc::from(draft))
            }
            None => None,
        };
        let (one, other) = first.split_at(first.len() / 2);
        Content { first: vec![Bytes::copy_from_slice(one), Bytes::copy_from_slice(other)], draft }
    }

    fn marks(text: &str) -> Progress {
        Progress::parse(text).unwrap()
    }

    /// A change here is a change of the format on disk.
    #[tokio::test]
    async fn golden_octets() {
        let mut small = manifest(0);
        small.recipients = vec![Mailbox::parse(b"joe@b.example").unwrap(), Mailbox::parse(b"eva@b.example").unwrap()];
        small.digest = Some("00ff".into());
        let spool = kept(&small, b"Subject: x\r\n\r\nHi\r\n", None, &note(&marks("t."))).await;
        let json = concat!(
            r#"{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","session":"01ARZ3NDEKTSV4RRFFQ69G5FAW","tenant":"acme","#,
            r#""stream":"news","credential":"app","reverse_path":"bounce@acme.example","#,
            r#""recipients":["joe@b.example","eva@b.example"],"claims":["joe@acme.example"],"#,
            r#""tags":[["bulkhead-id","01ARZ3NDEKTSV4RRFFQ69G5FAV"]],"#,
            r#""created":1777000000000,"expires":1777345600000,"digest":"00ff"}"#
        );
        let mut golden = b"BHOUTBX1".to_vec();
        golden.extend([0x00, 0x00, 0x01, 0x65]);
        golden.extend([0x18, 0x98, 0xc8, 0x1d]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 18]);
        golden.extend([0; 16]);
        golden.extend([0xc5, 0x17, 0x46, 0xad]);
        golden.extend([0x3d, 0x5a, 0xb8, 0x83]);
        golden.extend(json.as_bytes());
        golden.extend(b"Subject: x\r\n\r\nHi\r\n\nprogress t. 75136c36\n");
        let octets = spool.octets(id()).unwrap();
        assert_eq!(octets.escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(read(&spool, id()).await.unwrap(), (small.clone(), b"Subject: x\r\n\r\nHi\r\n".to_vec()));
        let told = Told { manifest: small, progress: marks("t."), bytes: 18 };
        assert_eq!(read_manifest(&spool, id()).await, Ok(told));
    }

    /// Small and large, spilled and not, with a manifest that is longer than the first read, with
    /// notes and without: the same comes back.
    #[tokio::test]
    async fn a_message_comes_back_as_it_was_kept() {
        let octets: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let (mut large, mut spilled, mut beyond) = (0, 0, 0);
        for recipients in [1, 50, 1000] {
            let manifest = manifest(recipients);
            for first in [0, 1, 2000, 70_000] {
                for tail in [None, Some(0), Some(1), Some(3000), Some(200_000)] {
                    for notes in [0, 1, 3] {
                        let (mut behind, mut progress) = (Vec::new(), Progress::none(recipients));
                        for at in 0..notes {
                            progress.mark(at, Mark::Taken);
                            behind.extend(note(&progress));
                        }
                        let tail = tail.map(|tail| &octets[first..first + tail]);
                        let bytes = first + tail.map_or(0, <[u8]>::len);
                        let spool = kept(&manifest, &octets[..first], tail, &behind).await;
                        let whole = read(&spool, id()).await.unwrap();
                        assert_eq!(whole, (manifest.clone(), octets[..bytes].to_vec()), "{recipients} {bytes}");
                        let told = read_manifest(&spool, id()).await.unwrap();
                        assert_eq!(told, Told { manifest: manifest.clone(), progress, bytes: bytes as u64 });
                        large += usize::from(recipients == 1000);
                        spilled += usize::from(tail.is_some());
                        beyond += usize::from(bytes > FIRST_READ as usize && notes > 0);
                    }
                }
            }
        }
        assert!(serde_json::to_vec(&manifest(1000)).unwrap().len() > FIRST_READ as usize);
        assert_eq!((large, spilled, beyond), (60, 144, 48));
    }

    #[tokio::test]
    async fn every_flipped_bit_of_head_manifest_and_message_is_found() {
        for tail in [None, Some(b"its second part".as_slice())] {
            let spool = kept(&manifest(2), b"Subject: x\r\n\r\nHi\r\n", tail, b"").await;
            let whole = spool.octets(id()).unwrap();
            let first_end = HEAD as usize + serde_json::to_vec(&manifest(2)).unwrap().len() + 18;
            let tail_from = whole.len() - tail.map_or(0, <[u8]>::len);
            let (mut found, mut hole) = (0, 0);
            for bit in (0..first_end * 8).chain(tail_from * 8..whole.len() * 8) {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                spool.put(id(), Some(damaged));
                let read = read(&spool, id()).await;
                assert!(matches!(read, Err(BodyError::Damaged(_))), "bit {bit}: {read:?}");
                let in_message = bit / 8 >= first_end - 18;
                let told = read_manifest(&spool, id()).await;
                assert_eq!(told.is_ok(), in_message, "bit {bit}: the manifest is read without the message");
                found += 1;
            }
            // Nobody reads the hole.
            for octet in (first_end..tail_from).step_by(100_000) {
                let mut damaged = whole.clone();
                damaged[octet] ^= 1;
                spool.put(id(), Some(damaged));
                assert!(read(&spool, id()).await.is_ok());
                hole += 1;
            }
            assert!(found > 3000 && hole > 0 || tail.is_none(), "{found} {hole}");
        }
    }

    #[tokio::test]
    async fn every_cut_is_found() {
        for tail in [None, Some(b"its second part".as_slice())] {
            let spool = kept(&manifest(1), b"Hi\r\n", tail, b"").await;
            let whole = spool.octets(id()).unwrap();
            let hole = if tail.is_some() { 2000..whole.len() - 100 } else { 0..0 };
            for cut in (0..whole.len()).filter(|cut| !hole.contains(cut) || cut % 50_000 == 0) {
                spool.put(id(), Some(whole[..cut].to_vec()));
                assert!(matches!(read(&spool, id()).await, Err(BodyError::Damaged(_))), "cut at {cut}");
            }
            spool.put(id(), None);
            assert_eq!(read(&spool, id()).await, Err(BodyError::Spool(SpoolError::Missing)));
        }
    }

    #[tokio::test]
    async fn another_messages_file_is_not_taken_for_this_ones() {
        let spool = kept(&manifest(1), b"Hi\r\n", None, b"").await;
        let other = MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAX").unwrap();
        spool.put(other, spool.octets(id()));
        assert_eq!(read(&spool, other).await, Err(BodyError::Damaged("it is another message's")));
    }

    /// Numbers that a checksum covers, and that still cannot be: nothing is allotted for them.
    #[tokio::test]
    async fn a_head_whose_numbers_cannot_be_is_damaged() {
        let spool = kept(&manifest(1), b"Hi\r\n", None, b"").await;
        let whole = spool.octets(id()).unwrap();
        for (at, number) in [(8, u64::MAX), (16, u64::MAX), (24, u64::MAX), (24, 60), (32, u64::MAX), (16, 1 << 31)] {
            let mut false_head = whole.clone();
            false_head[at..at + 8].copy_from_slice(&number.to_be_bytes());
            let own = crc32fast::hash(&false_head[..44]);
            false_head[44..48].copy_from_slice(&own.to_be_bytes());
            spool.put(id(), Some(false_head));
            assert!(matches!(read(&spool, id()).await, Err(BodyError::Damaged(_))), "{number} at {at}");
        }
    }

    #[tokio::test]
    async fn the_last_whole_note_counts() {
        let (one, two, three) = (note(&marks("t..")), note(&marks("tr.")), note(&marks("trt")));
        let cut = |note: &Bytes, at: usize| note.slice(..at);
        let mut flipped = two.to_vec();
        flipped[11] ^= 2;
        let upside_down = "progress ... 00000000\n".to_owned();
        let of_another_length = [note(&marks("tttt")), note(&marks("tt")), note(&marks(""))].concat();
        for (behind, expected) in [
            (vec![], "..."),
            (vec![one.clone()], "t.."),
            (vec![one.clone(), two.clone(), three.clone()], "trt"),
            // torn by a power cut, and noted anew behind it
            (vec![one.clone(), cut(&two, 15)], "t.."),
            (vec![one.clone(), cut(&two, 15), three.clone()], "trt"),
            (vec![cut(&one, 3), three.clone()], "trt"),
            (vec![one.clone(), cut(&two, 0), two.clone()], "tr."),
            (vec![one.clone(), flipped.into()], "t.."),
            (vec![one.clone(), Bytes::from(upside_down)], "t.."),
            (vec![one.clone(), of_another_length.into()], "t.."),
            (vec![one.clone(), Bytes::from_static(b"\xff\xfe \xff\n \n\0\0\0\n")], "t.."),
            (vec![Bytes::from_static(b"progress x.. 11111111"), two.clone()], "tr."),
        ] {
            for tail in [None, Some(b"".as_slice()), Some(b"its second part".as_slice())] {
                let spool = kept(&manifest(3), b"progress ttt\n", tail, &behind.concat()).await;
                let told = read_manifest(&spool, id()).await.unwrap();
                assert_eq!(told.progress.marks(), expected, "{:?}", behind.concat().escape_ascii().to_string());
            }
        }
        let mut skipped = 0;
        for at in 0..two.len() {
            for bit in 0..8 {
                let mut damaged = two.to_vec();
                damaged[at] ^= 1 << bit;
                let spool = kept(&manifest(3), b"Hi\r\n", None, &[&one[..], &damaged].concat()).await;
                let told = read_manifest(&spool, id()).await.unwrap().progress.marks();
                // A capital in the checksum is the same number, and what ends a line may be anything
                // where the file ends.
                assert!(told == "t.." || told == "tr.", "{told}");
                skipped += usize::from(told == "t..");
            }
        }
        assert!(skipped > two.len() * 7, "{skipped} of {}", two.len() * 8);
    }

    /// A thousand recipients, taken one by one: a mebibyte of notes.
    #[tokio::test]
    async fn notes_are_read_however_many_there_are() {
        let (mut progress, mut behind) = (Progress::none(1000), Vec::new());
        for at in 0..1000 {
            progress.mark(at, Mark::Taken);
            behind.extend(note(&progress));
            if at % 111 == 0 || at == 999 {
                let spool = kept(&manifest(1000), b"Hi\r\n", None, &behind).await;
                assert_eq!(read_manifest(&spool, id()).await.unwrap().progress.count(Mark::Taken), at + 1);
            }
        }
        assert!(behind.len() > 1_000_000);
    }

    #[test]
    fn the_largest_manifest_has_room_before_a_spilled_message() {
        let longest = format!("{}@{}", "a".repeat(64), "b234567.".repeat(22) + "c2345.example");
        let mut largest = manifest(0);
        largest.recipients = vec![Mailbox::parse(longest.as_bytes()).unwrap(); 1000];
        largest.claims = vec![Mailbox::parse(longest.as_bytes()).unwrap(); 1000];
        let json = serde_json::to_vec(&largest).unwrap().len() as u64;
        assert!(json > 500_000 && HEAD + json < spill_room(0) && json < MANIFEST_LONGEST, "{json}");
    }
}
