//! The spool's promises on files: whole, durable and in this order, or not there; a fault is its own
//! message's alone, and the next one is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bulkhead::adapters::spool::{Disk, FileSpool, Options, RealDisk};
use bulkhead::mail::MessageId;
use bulkhead::outbox::{Content, Draft, Spool, SpoolError};
use bytes::Bytes;
use tempfile::TempDir;

const OPTIONS: Options = Options { writers: 8 };
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn id(number: u32) -> MessageId {
    MessageId::parse(&format!("01KAH2V4S9Q0ZC7M3T8N{number:06}")).unwrap()
}

/// Octets that differ from message to message and from place to place.
fn octets(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        octets.extend_from_slice(&next());
    }
    octets.truncate(length);
    octets
}

/// `octets` in parts of `part`, with empty parts among them.
fn parts(octets: &[u8], part: usize) -> Vec<Bytes> {
    let mut parts = vec![Bytes::new()];
    for piece in octets.chunks(part) {
        parts.push(Bytes::copy_from_slice(piece));
        parts.push(Bytes::new());
    }
    parts
}

async fn all_of(spool: &FileSpool, id: MessageId) -> Result<Vec<u8>, SpoolError> {
    spool.read(id, 0, u64::MAX).await.map(|octets| octets.to_vec())
}

/// All there is, as whoever comes later finds it.
async fn found(folder: &Path) -> BTreeMap<MessageId, Vec<u8>> {
    let spool = FileSpool::open(folder, OPTIONS).unwrap();
    let mut found = BTreeMap::new();
    for id in spool.list().await.unwrap() {
        found.insert(id, all_of(&spool, id).await.unwrap());
    }
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn in_outbox(folder: &TempDir) -> PathBuf {
    folder.path().join("outbox")
}

fn incoming(folder: &TempDir) -> BTreeSet<String> {
    names(&in_outbox(folder).join("incoming"))
}

// ---------------------------------------------------------------------------------------------
// A disk that does what the test says

/// A call, and the number of the file it was about.
type Call = (&'static str, u64);

/// Calls that wait.
struct Hold {
    call: &'static str,
    asked: mpsc::Sender<()>,
    told: Arc<Mutex<mpsc::Receiver<()>>>,
}

#[derive(Default)]
struct State {
    log: Vec<Call>,
    /// The calls that fail, by their number, and how.
    failing: Option<(Range<usize>, i32)>,
    /// The calls that, if they are writes, write half.
    short: Option<Range<usize>>,
    /// The calls of that name say so and wait to be told to go on.
    held: Option<Hold>,
    /// Is told of every name that was taken away.
    removals: Option<mpsc::Sender<PathBuf>>,
}

/// Real files, and syncs that are noted alone.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<State>>);

impl Told {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn calls(&self) -> usize {
        self.state().log.len()
    }

    fn count(&self, call: &str) -> usize {
        self.state().log.iter().filter(|(name, _)| *name == call).count()
    }

    fn fail(&self, calls: Range<usize>, with: i32) {
        self.state().failing = Some((calls, with));
    }

    fn heal(&self) {
        self.state().failing = None;
    }

    /// Holds the calls of that name: whoever is asked says so on the first, and goes on by the second.
    fn hold(&self, call: &'static str) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((asked, asks), (tell, told)) = (mpsc::channel(), mpsc::channel());
        self.state().held = Some(Hold { call, asked, told: Arc::new(Mutex::new(told)) });
        (asks, tell)
    }

    fn removals(&self) -> mpsc::Receiver<PathBuf> {
        let (tell, told) = mpsc::channel();
        self.state().removals = Some(tell);
        told
    }

    /// Notes a call; whether it is to be short.
    fn met(&self, call: &'static str, file: u64) -> io::Result<bool> {
        let mut state = self.state();
        let number = state.log.len();
        state.log.push((call, file));
        let short = state.short.as_ref().is_some_and(|calls| calls.contains(&number));
        if let Some((calls, with)) = &state.failing
            && calls.contains(&number)
        {
            return Err(io::Error::from_raw_os_error(*with));
        }
        let held = state.held.as_ref().filter(|held| held.call == call);
        if let Some((asked, told)) = held.map(|held| (held.asked.clone(), Arc::clone(&held.told))) {
            drop(state);
            let _ = asked.send(());
            // The end that tells is dropped when all may go on.
            let _ = told.lock().unwrap().recv();
        }
        Ok(short)
    }
}

fn number(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

fn number_at(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.ino())
}

impl Disk for Told {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.met("create", 0)?;
        RealDisk.create(path)
    }

    fn open(&self, path: &Path, writing: bool) -> io::Result<File> {
        self.met("open", number_at(path))?;
        RealDisk.open(path, writing)
    }

    fn length(&self, file: &File) -> io::Result<u64> {
        self.met("length", number(file))?;
        RealDisk.length(file)
    }

    fn write(&self, file: &File, octets: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        if self.met("write", number(file))? {
            let first = octets.iter().find(|part| !part.is_empty()).unwrap();
            return RealDisk.write(file, &[IoSlice::new(&first[..first.len().div_ceil(2)])], at);
        }
        RealDisk.write(file, octets, at)
    }

    fn read(&self, file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.met("read", number(file))?;
        // As little as a disk may give.
        let some = into.len().min(4_000);
        RealDisk.read(file, &mut into[..some], at)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.met("truncate", number(file))?;
        RealDisk.truncate(file, length)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.met("sync_data", number(file)).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.met("rename", number_at(from))?;
        RealDisk.rename(from, to)
    }

    fn sync_folder(&self, folder: &File) -> io::Result<()> {
        self.met("sync_folder", number(folder)).map(drop)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.met("unlink", number_at(path))?;
        let removed = RealDisk.unlink(path);
        if let Some(removals) = &self.state().removals {
            let _ = removals.send(path.to_owned());
        }
        removed
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.met("names", 0)?;
        RealDisk.names(folder)
    }

    fn room(&self, folder: &File) -> io::Result<u64> {
        RealDisk.room(folder)
    }
}

/// A spool on a disk that does what the test says.
fn told() -> (TempDir, Told, Arc<FileSpool>) {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Told::default());
    let spool = FileSpool::open_on(folder.path(), OPTIONS, disk.clone()).unwrap();
    (folder, disk, Arc::new(spool))
}

fn wait<T>(for_it: &mpsc::Receiver<T>) -> T {
    for_it.recv_timeout(Duration::from_secs(10)).expect("it never comes")
}

// ---------------------------------------------------------------------------------------------
// Kept is kept

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kept_files_are_found_whole_by_who_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(FileSpool::open(folder.path(), OPTIONS).unwrap());
    let message = |n: u32| octets(n, [0, 1, 4_096, 10_240, 70_001, 1_000_003][n as usize % 6]);
    let keepers = (0..12u32).map(|keeper| {
        let spool = Arc::clone(&spool);
        tokio::spawn(async move {
            for n in (keeper * 10..keeper * 10 + 10).rev() {
                // Also more parts than one system call takes.
                let part = if n % 12 == 5 { 300 } else { 4_001 };
                spool.keep(id(n), parts(&message(n), part)).await.unwrap();
                assert_eq!(all_of(&spool, id(n)).await.unwrap(), message(n));
            }
        })
    });
    for keeper in keepers.collect::<Vec<_>>() {
        keeper.await.unwrap();
    }
    let kept = found(folder.path()).await;
    assert_eq!(kept.len(), 120);
    for (n, (found, octets)) in (0..).zip(&kept) {
        assert_eq!((found, octets), (&id(n), &message(n)));
    }
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(in_outbox(&folder)), 0o700);
    assert_eq!(mode(in_outbox(&folder).join("incoming")), 0o700);
    assert_eq!(mode(in_outbox(&folder).join(id(3).to_string())), 0o600);
    assert!(incoming(&folder).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_ends_where_the_file_does_and_what_is_not_there_is_missing() {
    let (_folder, _disk, spool) = told();
    let message = octets(1, 10_000);
    spool.keep(id(1), parts(&message, 999)).await.unwrap();
    for (from, most) in [(0, 10_000), (0, 1), (9_999, 1), (17, 5_000), (9_990, 100), (10_000, 1), (20_000, 7), (5, 0)] {
        let expected = &message[message.len().min(from)..message.len().min(from + most)];
        assert_eq!(spool.read(id(1), from as u64, most as u64).await.unwrap(), expected, "{from}, {most}");
    }
    assert_eq!(spool.read(id(2), 0, 1).await, Err(SpoolError::Missing));
    assert_eq!(spool.append(id(2), Bytes::from("x")).await, Err(SpoolError::Missing));
    spool.append(id(1), Bytes::from("and more")).await.unwrap();
    assert_eq!(all_of(&spool, id(1)).await.unwrap(), [&message[..], b"and more"].concat());
    spool.remove(id(1)).await.unwrap();
    spool.remove(id(1)).await.unwrap();
    assert_eq!(spool.read(id(1), 0, 1).await, Err(SpoolError::Missing));
    assert!(spool.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entries_that_many_add_to_one_file_are_all_whole() {
    let (_folder, disk, spool) = told();
    // The first write of every one falls short.
    disk.state().short = Some(0..usize::MAX);
    spool.keep(id(1), Vec::new()).await.unwrap();
    let adders = (0..20u8).map(|n| {
        let spool = Arc::clone(&spool);
        tokio::spawn(async move { spool.append(id(1), Bytes::from(vec![n; 100])).await.unwrap() })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.unwrap();
    }
    let all = all_of(&spool, id(1)).await.unwrap();
    let entries: BTreeSet<&[u8]> = all.chunks(100).collect();
    assert_eq!(all.len(), 2_000);
    assert!(entries.len() == 20 && entries.iter().all(|entry| entry.iter().all(|octet| *octet == entry[0])));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_others_are_neither_listed_nor_touched() {
    let folder = tempfile::tempdir().unwrap();
    let spool = FileSpool::open(folder.path(), OPTIONS).unwrap();
    spool.keep(id(1), Vec::new()).await.unwrap();
    let lower = id(2).to_string().to_lowercase();
    let strangers =
        ["lost+found", "README", ".hidden", &lower, &format!("{}.bak", id(3)), "8ZZZZZZZZZZZZZZZZZZZZZZZZZ"];
    for stranger in strangers {
        fs::write(in_outbox(&folder).join(stranger), "x").unwrap();
    }
    fs::create_dir(in_outbox(&folder).join(id(4).to_string())).unwrap();
    assert_eq!(spool.list().await.unwrap(), [id(1)]);
    assert_eq!(found(folder.path()).await.len(), 1);
    assert!(strangers.iter().all(|stranger| names(&in_outbox(&folder)).contains(*stranger)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generation_that_was_set_last_is_there_later() {
    let folder = tempfile::tempdir().unwrap();
    let spool = FileSpool::open(folder.path(), OPTIONS).unwrap();
    assert_eq!(spool.generation().await, Ok(0));
    for generation in [1, 2, u64::MAX] {
        spool.set_generation(generation).await.unwrap();
        assert_eq!(spool.generation().await, Ok(generation));
    }
    let later = FileSpool::open(folder.path(), OPTIONS).unwrap();
    assert_eq!(later.generation().await, Ok(u64::MAX));
    assert!(later.list().await.unwrap().is_empty());
    fs::write(in_outbox(&folder).join("generation"), "7\n").unwrap();
    assert_eq!(later.generation().await, Ok(7));
    for none in ["", "seven", "-1", "99999999999999999999999999"] {
        fs::write(in_outbox(&folder).join("generation"), none).unwrap();
        assert!(matches!(later.generation().await, Err(SpoolError::Io(_))), "{none}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_could_not_be_set_does_not_take_the_earlier_one_away() {
    for (call, then) in [("sync_data", 2), ("rename", 3), ("sync_folder", 4)] {
        let (folder, disk, spool) = told();
        spool.set_generation(1).await.unwrap();
        disk.fail(disk.calls() + then..disk.calls() + then + 1, EIO);
        assert!(matches!(spool.set_generation(2).await, Err(SpoolError::Io(_))));
        assert_eq!(disk.state().log.iter().rfind(|(name, _)| *name != "unlink").unwrap().0, call);
        let later = FileSpool::open(folder.path(), OPTIONS).unwrap().generation().await.unwrap();
        assert!(later == 1 || (later == 2 && call == "sync_folder"), "{call}: {later}");
        spool.set_generation(3).await.unwrap();
        assert_eq!(spool.generation().await, Ok(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_room_and_a_probe_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = FileSpool::open(folder.path(), OPTIONS).unwrap();
    let room = spool.room().unwrap();
    assert!(room > 1_000_000 && room < 1 << 60, "{room}");
    for _ in 0..2 {
        spool.probe().await.unwrap();
    }
    assert_eq!(names(&in_outbox(&folder)), BTreeSet::from(["incoming".to_owned()]));
    assert!(incoming(&folder).is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_says_which_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("outbox"), "a file").unwrap();
    let said = FileSpool::open(folder.path(), OPTIONS).err().unwrap().to_string();
    let outbox = in_outbox(&folder).display().to_string();
    assert!(said.contains(&outbox) && said.contains("cannot be made") && said.contains("may read and write"), "{said}");
}

// ---------------------------------------------------------------------------------------------
// Drafts

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_lies_behind_its_room_before_and_after_it_is_kept() {
    const ROOM: usize = 400_000;
    let folder = tempfile::tempdir().unwrap();
    let spool = FileSpool::open(folder.path(), OPTIONS).unwrap();
    let (message, before) = (octets(1, 5_000_000), octets(2, 300_000));
    let mut draft = spool.begin(ROOM as u64).await.unwrap();
    assert!(draft.is_empty() && draft.read().await.unwrap().is_empty());
    let mut length = 0;
    for (n, piece) in message.chunks(65_537).enumerate() {
        draft.append(Bytes::copy_from_slice(piece)).await.unwrap();
        length += piece.len();
        assert_eq!((draft.len(), draft.at()), (length as u64, ROOM as u64));
        if n % 20 == 0 {
            assert_eq!(draft.read().await.unwrap(), &message[..length]);
        }
    }
    assert_eq!(draft.checksum().finalize(), crc32fast::hash(&message));
    assert!(spool.list().await.unwrap().is_empty());

    let too_long = vec![Bytes::from(vec![0; ROOM]), Bytes::from("x")];
    assert!(matches!(draft.keep(id(1), too_long).await, Err(SpoolError::Io(_))));
    draft.keep(id(1), parts(&before, 7_000)).await.unwrap();
    assert!(matches!(draft.keep(id(2), Vec::new()).await, Err(SpoolError::Io(_))));
    assert_eq!(draft.read().await.unwrap(), message);
    spool.append(id(1), Bytes::from("an entry")).await.unwrap();
    assert_eq!(draft.read().await.unwrap(), message);

    let content = Content { first: vec![Bytes::from("first")], draft: Some(draft.into()) };
    assert_eq!(content.to_vec().await.unwrap(), [b"first", &message[..]].concat());
    assert_eq!(content.checksum(), crc32fast::hash(&content.to_vec().await.unwrap()));
    drop(content);
    let expected = [&before[..], &vec![0; ROOM - before.len()], &message, b"an entry"].concat();
    assert!(found(folder.path()).await == BTreeMap::from([(id(1), expected)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_is_not_kept_is_gone() {
    let (folder, disk, spool) = told();
    let removals = disk.removals();
    let mut draft = spool.begin(10).await.unwrap();
    draft.append(Bytes::from("text")).await.unwrap();
    assert_eq!(incoming(&folder).len(), 1);
    drop(draft);
    wait(&removals);
    assert!(incoming(&folder).is_empty());

    // And of a process that ended in the midst of it, all that it was writing.
    let mut draft = spool.begin(10).await.unwrap();
    draft.append(Bytes::from("text")).await.unwrap();
    std::mem::forget(draft);
    fs::write(in_outbox(&folder).join("incoming/77"), "half a mess").unwrap();
    assert_eq!(incoming(&folder).len(), 2);
    assert!(found(folder.path()).await.is_empty());
    assert!(incoming(&folder).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_that_a_draft_could_not_take_can_be_given_again() {
    let (folder, disk, spool) = told();
    let mut draft = spool.begin(3).await.unwrap();
    draft.append(Bytes::from("one ")).await.unwrap();
    // Half of them, and then no room.
    disk.state().short = Some(disk.calls()..disk.calls() + 1);
    disk.fail(disk.calls() + 1..disk.calls() + 2, ENOSPC);
    assert!(matches!(draft.append(Bytes::from("a longer word")).await, Err(SpoolError::Full(_))));
    assert_eq!((draft.len(), draft.read().await.unwrap()), (4, Bytes::from("one ")));
    draft.append(Bytes::from("two")).await.unwrap();
    assert_eq!(draft.checksum().finalize(), crc32fast::hash(b"one two"));
    draft.keep(id(1), vec![Bytes::from("abc")]).await.unwrap();
    assert_eq!(found(folder.path()).await, BTreeMap::from([(id(1), b"abcone two".to_vec())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_whose_append_was_given_up_is_not_kept() {
    let (folder, disk, spool) = told();
    let mut draft = spool.begin(0).await.unwrap();
    draft.append(Bytes::from("one ")).await.unwrap();
    let (asks, tell) = disk.hold("write");
    {
        let mut pending = draft.append(Bytes::from("two"));
        assert!(pending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        wait(&asks);
    }
    drop(tell);
    assert!(matches!(draft.append(Bytes::from("three")).await, Err(SpoolError::Io(_))));
    assert!(matches!(draft.keep(id(1), Vec::new()).await, Err(SpoolError::Io(_))));
    assert_eq!(draft.read().await.unwrap(), "one ");
    assert!(found(folder.path()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_could_not_be_kept_can_be_read_but_its_file_is_gone() {
    for failing in ["write", "sync_data", "rename", "sync_folder"] {
        let (folder, disk, spool) = told();
        let mut draft = spool.begin(10).await.unwrap();
        draft.append(Bytes::from("text")).await.unwrap();
        let number = ["write", "sync_data", "rename", "sync_folder"].iter().position(|call| *call == failing).unwrap();
        disk.fail(disk.calls() + number..disk.calls() + number + 1, EIO);
        assert!(matches!(draft.keep(id(1), vec![Bytes::from("x")]).await, Err(SpoolError::Io(_))));
        assert_eq!(names(&in_outbox(&folder)), BTreeSet::from(["incoming".to_owned()]), "{failing}");
        assert!(incoming(&folder).is_empty(), "{failing}");
        // Its octets may be none that a second sync vouches for.
        assert!(matches!(draft.keep(id(1), vec![Bytes::from("x")]).await, Err(SpoolError::Io(_))));
        assert_eq!(draft.read().await.unwrap(), "text");
    }
}

// ---------------------------------------------------------------------------------------------
// The order of calls

/// Asserts that of the file `number`, the octets were synced after the last write to it, the name
/// given after that, and the folder synced after that.
fn in_order(log: &[Call], number: u64) {
    let last = |call: &str| log.iter().rposition(|it| *it == (call, number));
    let (write, sync) = (last("write"), last("sync_data").expect("its octets were not synced"));
    let rename = last("rename").expect("it was not renamed");
    let folder = log.iter().rposition(|(call, _)| *call == "sync_folder").expect("the folder was not synced");
    assert!(write < Some(sync), "written at {write:?}, synced at {sync}");
    assert!(sync < rename, "synced at {sync}, renamed at {rename}");
    assert!(rename < folder, "renamed at {rename}, the folder synced at {folder}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn octets_are_synced_before_the_name_and_the_name_before_the_answer() {
    let (folder, disk, spool) = told();
    let seen = Arc::new(AtomicUsize::new(0));
    let outbox = in_outbox(&folder);
    let keepers = (0..16u32).map(|keeper| {
        let (spool, disk, outbox, seen) = (Arc::clone(&spool), disk.clone(), outbox.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            for n in keeper * 5..keeper * 5 + 5 {
                if n % 3 == 0 {
                    let mut draft = spool.begin(100).await.unwrap();
                    draft.append(Bytes::from(octets(n, 5_000))).await.unwrap();
                    draft.keep(id(n), parts(&octets(n, 50), 20)).await.unwrap();
                } else {
                    spool.keep(id(n), parts(&octets(n, 5_000), 999)).await.unwrap();
                }
                let number = number_at(&outbox.join(id(n).to_string()));
                in_order(&disk.state().log, number);
                let before = disk.calls();
                spool.append(id(n), Bytes::from("entry")).await.unwrap();
                let log: Vec<&str> = disk.state().log[before..]
                    .iter()
                    .filter(|(_, about)| *about == number)
                    .map(|(call, _)| *call)
                    .collect();
                assert_eq!(log, ["open", "length", "write", "sync_data"]);
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for keeper in keepers.collect::<Vec<_>>() {
        keeper.await.unwrap();
    }
    spool.set_generation(5).await.unwrap();
    in_order(&disk.state().log, number_at(&outbox.join("generation")));
    assert_eq!(seen.load(Ordering::Relaxed), 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_does_all_that_a_message_does() {
    let (_folder, disk, spool) = told();
    spool.probe().await.unwrap();
    let calls: Vec<&str> = disk.state().log.iter().map(|(call, _)| *call).collect();
    assert_eq!(calls, ["create", "write", "sync_data", "rename", "sync_folder", "unlink"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hears_of_a_file_before_the_disk_has_it() {
    for call in ["sync_data", "rename", "sync_folder"] {
        let (_folder, disk, spool) = told();
        let (asks, tell) = disk.hold(call);
        let keeper = tokio::spawn({
            let spool = Arc::clone(&spool);
            async move { spool.keep(id(1), parts(b"text", 2)).await }
        });
        wait(&asks);
        assert!(!keeper.is_finished(), "{call}");
        assert!(call != "sync_data" || spool.list().await.unwrap().is_empty());
        drop(tell);
        assert_eq!(keeper.await.unwrap(), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_sync_of_the_folder_serves_a_group() {
    const MESSAGES: u32 = 40;
    let (folder, disk, spool) = told();
    let (asks, tell) = disk.hold("sync_folder");
    let keep = |n: u32| {
        let spool = Arc::clone(&spool);
        tokio::spawn(async move { spool.keep(id(n), parts(b"text", 2)).await })
    };
    let mut keepers = vec![keep(0)];
    wait(&asks);
    // While the folder is being synced for the first, the others come.
    keepers.extend((1..MESSAGES).map(keep));
    while disk.count("sync_data") < MESSAGES as usize {
        tokio::task::yield_now().await;
    }
    tell.send(()).unwrap();
    wait(&asks);
    drop(tell);
    for keeper in keepers {
        assert_eq!(keeper.await.unwrap(), Ok(()));
    }
    // Who has synced its octets may not yet have come to the queue: hence not two.
    let syncs = disk.count("sync_folder");
    assert!((2..=5).contains(&syncs), "{syncs}");
    assert_eq!(found(folder.path()).await.len(), MESSAGES as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_files_are_written_at_once_than_allowed() {
    let (_folder, disk, spool) = told();
    let (asks, tell) = disk.hold("sync_data");
    let keepers: Vec<_> = (0..30u32)
        .map(|n| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move { spool.keep(id(n), Vec::new()).await })
        })
        .collect();
    for turn in 0..30 {
        if turn < 23 {
            wait(&asks);
        }
        assert!(disk.count("create") <= turn + OPTIONS.writers, "at {turn}");
        tell.send(()).unwrap();
    }
    for keeper in keepers {
        assert_eq!(keeper.await.unwrap(), Ok(()));
    }
}

// ---------------------------------------------------------------------------------------------
// Given up

#[tokio::test(flavor = "multi_thread")]
async fn a_keeping_that_is_given_up_leaves_no_file() {
    for call in ["create", "write", "sync_data", "rename", "sync_folder"] {
        let (folder, disk, spool) = told();
        let removals = disk.removals();
        let (asks, tell) = disk.hold(call);
        let mut pending = spool.keep(id(1), parts(b"text", 2));
        assert_eq!(pending.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        wait(&asks);
        drop(pending);
        drop(tell);
        wait(&removals);
        assert!(incoming(&folder).is_empty(), "{call}");
        assert_eq!(names(&in_outbox(&folder)), BTreeSet::from(["incoming".to_owned()]), "{call}");
        spool.keep(id(2), Vec::new()).await.unwrap();
        assert_eq!(spool.list().await.unwrap(), [id(2)]);
        // Nor is one named that nobody waits for any more.
        let named = disk.count("rename");
        assert_eq!(named, if call == "rename" || call == "sync_folder" { 2 } else { 1 }, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_leaves_no_file() {
    let (folder, disk, spool) = told();
    let removals = disk.removals();
    let (asks, tell) = disk.hold("sync_folder");
    let mut pending = spool.keep(id(1), parts(b"text", 2));
    assert_eq!(pending.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    wait(&asks);
    let second = tokio::spawn({
        let spool = Arc::clone(&spool);
        async move { spool.keep(id(2), Vec::new()).await }
    });
    drop(tell);
    // The second is answered after the first: by now that answer is there, and it is never taken.
    second.await.unwrap().unwrap();
    drop(pending);
    wait(&removals);
    assert_eq!(found(folder.path()).await.into_keys().collect::<Vec<_>>(), [id(2)]);
}

// ---------------------------------------------------------------------------------------------
// Faults

/// What a spool ought to hold, and the faults that were heard.
#[derive(Default)]
struct Model {
    files: BTreeMap<MessageId, Vec<u8>>,
    /// What may be there if the disk takes no removal either.
    perhaps: BTreeMap<MessageId, Vec<u8>>,
    faults: Vec<SpoolError>,
    generations: Vec<u64>,
}

impl Model {
    fn heard<T>(&mut self, result: Result<T, SpoolError>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    fn kept(&mut self, id: MessageId, octets: Vec<u8>, result: Result<(), SpoolError>) {
        match self.heard(result) {
            Some(()) => self.files.insert(id, octets),
            None => self.perhaps.insert(id, octets),
        };
    }

    async fn draft(&mut self, spool: &FileSpool, id: MessageId) -> Result<(), SpoolError> {
        let mut draft: Box<dyn Draft> = spool.begin(100).await?;
        draft.append(Bytes::from(octets(3, 3_000))).await?;
        draft.append(Bytes::from(octets(4, 30))).await?;
        let kept = draft.keep(id, parts(&octets(5, 100), 33)).await;
        let whole = [octets(5, 100), octets(3, 3_000), octets(4, 30)].concat();
        if let Some(read) = self.heard(draft.read().await) {
            assert_eq!(read, whole[100..]);
        }
        self.kept(id, whole, kept);
        Ok(())
    }

    /// All that a spool is asked for, one after the other.
    async fn run(&mut self, spool: &FileSpool) {
        for n in 1..=2 {
            let message = octets(n, 2_000);
            let result = spool.keep(id(n), parts(&message, 900)).await;
            self.kept(id(n), message, result);
        }
        let drafted = self.draft(spool, id(3)).await;
        self.heard(drafted);
        self.generations.push(7);
        if self.heard(spool.set_generation(7).await).is_some() {
            self.generations = vec![7];
        }
        if let Some(file) = self.files.get(&id(1)).cloned() {
            let longer = [&file[..], b"entry"].concat();
            match spool.append(id(1), Bytes::from("entry")).await {
                Ok(()) => drop(self.files.insert(id(1), longer)),
                Err(fault) => self.faults.push(fault),
            }
            if let Some(read) = self.heard(spool.read(id(1), 1, u64::MAX).await) {
                assert_eq!(read, self.files[&id(1)][1..]);
            }
        }
        if self.heard(spool.remove(id(2)).await).is_some() {
            self.files.remove(&id(2));
            self.perhaps.remove(&id(2));
        }
        self.heard(spool.probe().await);
        if let Some(generation) = self.heard(spool.generation().await) {
            assert!(self.generations.contains(&generation), "{generation}");
        }
        if let Some(listed) = self.heard(spool.list().await) {
            assert!(self.files.keys().all(|id| listed.contains(id)));
        }
    }

    fn all_are(&self, errno: i32) {
        for fault in &self.faults {
            match fault {
                SpoolError::Full(_) => assert_eq!(errno, ENOSPC),
                SpoolError::Io(_) => assert_eq!(errno, EIO),
                SpoolError::Missing => panic!("nothing was missing"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_is_heard_by_its_message_alone_and_the_next_is_kept() {
    let mut reached = 0;
    for errno in [ENOSPC, EIO] {
        for at in 0.. {
            let (folder, disk, spool) = told();
            let mut model = Model { generations: vec![0], ..Model::default() };
            disk.fail(at..at + 1, errno);
            model.run(&spool).await;
            if disk.calls() <= at {
                assert!(model.faults.is_empty() && model.files.len() == 2);
                break;
            }
            reached += 1;
            assert_eq!(model.faults.len(), 1, "call {at}: {:?}", disk.state().log[at]);
            model.all_are(errno);
            spool.keep(id(9), parts(b"text", 3)).await.unwrap();
            model.files.insert(id(9), b"text".to_vec());
            drop(spool);
            assert_eq!(found(folder.path()).await, model.files, "call {at}: {:?}", disk.state().log[at]);
        }
    }
    assert!(reached > 70, "{reached}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_comes_back_has_what_was_kept_and_nothing_by_halves() {
    let (mut reached, mut orphans) = (0, 0);
    for errno in [ENOSPC, EIO] {
        for at in 0.. {
            let (folder, disk, spool) = told();
            let mut model = Model { generations: vec![0], ..Model::default() };
            disk.fail(at..usize::MAX, errno);
            disk.state().short = Some(at.saturating_sub(1)..at);
            model.run(&spool).await;
            if disk.calls() <= at {
                break;
            }
            reached += 1;
            model.all_are(errno);
            disk.heal();
            spool.probe().await.unwrap();
            spool.keep(id(9), parts(b"text", 3)).await.unwrap();
            model.files.insert(id(9), b"text".to_vec());
            assert!(model.generations.contains(&spool.generation().await.unwrap()));
            drop(spool);
            let mut found = found(folder.path()).await;
            if let Some(first) = model.files.get(&id(1)) {
                // An entry that could be neither synced nor cut off stays behind the message.
                assert!(found[&id(1)].starts_with(first));
                found.insert(id(1), first.clone());
            }
            for (id, octets) in found {
                let known = model.files.remove(&id);
                orphans += usize::from(known.is_none());
                assert_eq!(Some(octets), known.or_else(|| model.perhaps.remove(&id)), "call {at}");
            }
            assert!(model.files.is_empty(), "call {at}: {:?} are lost", model.files.keys());
        }
    }
    assert!(reached > 70 && orphans > 2, "{reached}, {orphans}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_falls_short_goes_on_where_it_ended() {
    let (folder, disk, spool) = told();
    disk.state().short = Some(0..usize::MAX);
    let mut model = Model { generations: vec![0], ..Model::default() };
    model.run(&spool).await;
    assert!(model.faults.is_empty() && disk.count("write") > 40);
    drop(spool);
    assert_eq!(found(folder.path()).await, model.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_fails_is_cut_off_again() {
    let (_folder, disk, spool) = told();
    spool.keep(id(1), parts(b"text", 4)).await.unwrap();
    // Half of it, and then no room; and all of it, but no sync.
    for (call, short) in [(3, true), (3, false)] {
        let now = disk.calls();
        disk.state().short = short.then_some(now + 2..now + 3);
        disk.fail(now + call..now + call + 1, ENOSPC);
        assert!(matches!(spool.append(id(1), Bytes::from("entry")).await, Err(SpoolError::Full(_))));
        assert_eq!(all_of(&spool, id(1)).await.unwrap(), b"text");
    }
    spool.append(id(1), Bytes::from("entry")).await.unwrap();
    assert_eq!(all_of(&spool, id(1)).await.unwrap(), b"textentry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn among_many_at_once_those_that_heard_they_are_kept_are() {
    const MESSAGES: u32 = 24;
    let (mut failed, mut groups) = (0, 0);
    for at in 0..MESSAGES as usize * 4 {
        let (folder, disk, spool) = told();
        disk.fail(at..at + 1, [ENOSPC, EIO][at % 2]);
        let keepers: Vec<_> = (0..MESSAGES)
            .map(|n| {
                let spool = Arc::clone(&spool);
                tokio::spawn(async move { spool.keep(id(n), parts(&octets(n, 3_000), 1_000)).await })
            })
            .collect();
        let mut kept = BTreeMap::new();
        for (n, keeper) in (0..).zip(keepers) {
            match keeper.await.unwrap() {
                Ok(()) => drop(kept.insert(id(n), octets(n, 3_000))),
                Err(SpoolError::Full(_)) => assert_eq!(at % 2, 0),
                Err(SpoolError::Io(_)) => assert_eq!(at % 2, 1),
                Err(SpoolError::Missing) => panic!("nothing was missing"),
            }
        }
        let lost = MESSAGES as usize - kept.len();
        let call = disk.state().log[at].0;
        assert!(lost == 1 || (call == "sync_folder" && lost > 1), "{call}: {lost}");
        failed += lost;
        groups += usize::from(lost > 1);
        assert!(incoming(&folder).is_empty());
        assert_eq!(found(folder.path()).await, kept, "call {at}: {call}");
    }
    assert!(failed >= MESSAGES as usize * 4, "{failed} of which {groups} groups");
}
