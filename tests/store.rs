//! The store's promises, on both backends: all or nothing, durable on return, versions that tell,
//! and an end of it when the disk fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/store_model.rs"]
mod store_model;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkhead::adapters::sled::{Disk, OpenError, SledStore};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, CommitError, If, Key, Pending, ReadError, Store, VALUE_BYTES, record};
use bytes::Bytes;
use store_model::{Depth, Dice, Model, Op, Versions};

fn key(name: &str) -> Key {
    Key::meta(name)
}

fn put(name: &str, condition: If, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key(name), condition, Bytes::copy_from_slice(value.as_bytes()));
    batch
}

async fn value(store: &dyn Store, name: &str) -> Option<String> {
    store.get(&key(name)).await.unwrap().map(|row| String::from_utf8(row.value.to_vec()).unwrap())
}

fn poll<T>(pending: &mut Pending<'_, T>) -> Poll<T> {
    pending.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

// ---------------------------------------------------------------------------------------------
// The model

#[tokio::test]
async fn both_backends_do_what_the_model_does() {
    let mut deepest = Depth::default();
    for seed in 0..24 {
        let folder = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let mut sled = SledStore::open(folder.path()).unwrap();
        let (mut model, mut of_memory, mut of_sled) = (Model::default(), Versions::default(), Versions::default());
        let mut dice = Dice::new(seed);
        for step in 0..250 {
            let op = dice.op();
            let expected = model.run(&op);
            assert_eq!(of_memory.run(&memory, &op).await, expected, "memory, seed {seed}, step {step}: {op:?}");
            assert_eq!(of_sled.run(&sled, &op).await, expected, "sled, seed {seed}, step {step}: {op:?}");
            match op {
                Op::Restart => {
                    sled.close();
                    assert!(!sled.available());
                    assert!(matches!(sled.get(&key("x")).await, Err(ReadError::Unavailable(_))));
                    assert!(matches!(sled.commit(Batch::new()).await, Err(CommitError::Unavailable(_))));
                    sled = SledStore::open(folder.path()).unwrap();
                }
                Op::Drop => {
                    drop(sled);
                    sled = SledStore::open(folder.path()).unwrap();
                }
                Op::Commit(_) | Op::Get(_) | Op::GetEach(_) | Op::Scan { .. } => {}
            }
        }
        deepest = Depth {
            committed: deepest.committed + model.depth.committed,
            conflicts: deepest.conflicts + model.depth.conflicts,
            hits: deepest.hits + model.depth.hits,
            misses: deepest.misses + model.depth.misses,
            rows_scanned: deepest.rows_scanned + model.depth.rows_scanned,
            recreated: deepest.recreated + model.depth.recreated,
            restarts: deepest.restarts + model.depth.restarts,
            drops: deepest.drops + model.depth.drops,
        };
    }
    let Depth { committed, conflicts, hits, misses, rows_scanned, recreated, restarts, drops } = deepest;
    assert!(committed > 400 && conflicts > 700, "{deepest:?}");
    assert!(hits > 500 && misses > 1000 && rows_scanned > 400, "{deepest:?}");
    assert!(recreated > 60 && restarts > 100 && drops > 100, "{deepest:?}");
}

#[tokio::test]
async fn what_no_backend_takes() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [&dyn Store; 2] = [&MemoryStore::new(), &SledStore::open(folder.path()).unwrap()];
    for store in stores {
        let mut twice = put("a", If::Any, "1");
        twice.remove(key("a"), If::Any);
        assert_eq!(store.commit(twice).await, Err(CommitError::KeyTwice(key("a"))));
        let long = "x".repeat(VALUE_BYTES + 1);
        assert_eq!(store.commit(put("a", If::Any, &long)).await, Err(CommitError::TooLong(key("a"))));
        let mut many = Batch::new();
        (0..101).for_each(|n| {
            many.put(key(&n.to_string()), If::Any, Bytes::new());
        });
        assert_eq!(store.commit(many).await, Err(CommitError::TooMany));
        assert_eq!(store.commit(Batch::new()).await, Ok(0));
        assert!(store.scan(&Key::all(), None, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_memory_store_that_was_told_to_fails() {
    let store = MemoryStore::new();
    store.commit(put("a", If::Absent, "1")).await.unwrap();
    store.fail_with("test");
    assert_eq!(store.get(&key("a")).await, Err(ReadError::Unavailable("test".into())));
    assert_eq!(store.scan(&Key::all(), None, 1).await, Err(ReadError::Unavailable("test".into())));
    assert_eq!(store.commit(put("a", If::Any, "2")).await, Err(CommitError::Unavailable("test".into())));
    store.heal();
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
}

// ---------------------------------------------------------------------------------------------
// Many at once

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_that_many_raise_come_to_the_exact_sum() {
    const TASKS: u64 = 24;
    const TIMES: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(SledStore::open(folder.path()).unwrap())];
    for store in stores {
        let conflicts = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, conflicts) = (Arc::clone(&store), Arc::clone(&conflicts));
                tokio::spawn(async move {
                    for time in 0..TIMES {
                        raise(&*store, &format!("counter{}", (task + time) % 3), &conflicts).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let mut sum = 0;
        for counter in ["counter0", "counter1", "counter2"] {
            sum += value(&*store, counter).await.unwrap().parse::<u64>().unwrap();
        }
        assert_eq!(sum, TASKS * TIMES);
        assert_eq!(value(&*store, "both").await.unwrap().parse::<u64>().unwrap(), TASKS * TIMES);
        assert!(conflicts.load(Ordering::Relaxed) > 100, "they never met");
    }
}

/// Adds one to a counter and to the counter of all, together.
async fn raise(store: &dyn Store, counter: &str, conflicts: &AtomicUsize) {
    loop {
        let mut batch = Batch::new();
        for name in [counter, "both"] {
            let found = store.get(&key(name)).await.unwrap();
            let count: u64 = found.as_ref().map_or(0, |row| std::str::from_utf8(&row.value).unwrap().parse().unwrap());
            let condition = found.map_or(If::Absent, |row| If::At(row.version));
            batch.put(key(name), condition, Bytes::from((count + 1).to_string()));
            tokio::task::yield_now().await;
        }
        match store.commit(batch).await {
            Ok(_) => return,
            Err(CommitError::Conflict(_)) => conflicts.fetch_add(1, Ordering::Relaxed),
            Err(other) => panic!("{other}"),
        };
    }
}

/// A disk that says when it is asked to sync, and then does what it is told to.
struct Told {
    asked: mpsc::Sender<()>,
    told: mpsc::Receiver<io::Result<()>>,
}

impl Disk for Told {
    fn sync_data(&mut self) -> io::Result<()> {
        let _ = self.asked.send(());
        self.told.recv().expect("told to panic")
    }
}

/// Waits until the disk is asked to sync.
fn asked(asks: &mpsc::Receiver<()>) {
    asks.recv_timeout(Duration::from_secs(10)).expect("the disk is never asked to sync");
}

/// A store whose disk does what the test says, and the ends of the test.
fn told(folder: &Path) -> (SledStore, mpsc::Receiver<()>, mpsc::Sender<io::Result<()>>) {
    let ((asked, asks), (tell, told)) = (mpsc::channel(), mpsc::channel());
    let store = SledStore::open_on(folder, |_| Box::new(Told { asked, told })).unwrap();
    (store, asks, tell)
}

#[tokio::test]
async fn one_sync_serves_a_group_and_a_conflict_fails_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (store, asks, tell) = told(folder.path());
    let mut first = store.commit(put("first", If::Absent, "1"));
    assert!(poll(&mut first).is_pending());
    asked(&asks);
    // While the disk works, others queue up: all these make the next group.
    let mut waiting = [
        store.commit(put("a", If::Absent, "1")),
        store.commit(put("a", If::Absent, "2")),
        store.commit(put("a", If::At(2), "3")),
        store.commit(put("first", If::At(9), "2")),
        store.commit(put("b", If::Absent, "1")),
    ];
    assert!(waiting.iter_mut().all(|commit| poll(commit).is_pending()));
    tell.send(Ok(())).unwrap();
    assert_eq!(first.await, Ok(1));
    asked(&asks);
    // Written, not yet synced: nobody hears anything, of a conflict neither.
    assert!(waiting.iter_mut().all(|commit| poll(commit).is_pending()));
    tell.send(Ok(())).unwrap();
    let mut verdicts = Vec::new();
    for commit in waiting {
        verdicts.push(commit.await);
    }
    let conflict = |name| Err(CommitError::Conflict(key(name)));
    assert_eq!(verdicts, [Ok(2), conflict("a"), Ok(3), conflict("first"), Ok(4)]);
    assert!(asks.try_recv().is_err(), "one sync a group");
    assert_eq!(value(&store, "a").await.as_deref(), Some("3"));
    // A conflict alone needs no disk.
    assert_eq!(store.commit(put("a", If::Absent, "4")).await, conflict("a"));
    assert!(asks.try_recv().is_err());
}

#[tokio::test]
async fn a_read_never_tells_of_what_is_not_yet_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (store, asks, tell) = told(folder.path());
    tell.send(Ok(())).unwrap();
    store.commit(put("old", If::Absent, "1")).await.unwrap();
    asked(&asks);

    let mut batch = put("new", If::Absent, "1");
    batch.remove(key("old"), If::Any);
    let mut commit = store.commit(batch);
    assert!(poll(&mut commit).is_pending());
    asked(&asks);
    let (new, old, other) = (key("new"), key("old"), key("other"));
    let (all, metas, tenants) = (Key::all(), key("n"), Key::tenants());
    let mut seen = store.get(&new);
    let mut gone = store.get(&old);
    let mut scanned = store.scan(&all, None, 9);
    let (several, others) = ([key("other"), key("new")], [key("other")]);
    let mut each = store.get_each(&several);
    assert!(poll(&mut seen).is_pending(), "the put");
    assert!(poll(&mut gone).is_pending(), "the removal");
    assert!(poll(&mut scanned).is_pending(), "the scan");
    assert!(poll(&mut each).is_pending(), "one of several");
    // Who asks for something else does not wait.
    assert_eq!(poll(&mut store.get(&other)), Poll::Ready(Ok(None)));
    assert_eq!(poll(&mut store.get_each(&others)), Poll::Ready(Ok(vec![None])));
    assert_eq!(poll(&mut store.scan(&metas, None, 9)), Poll::Ready(Ok(Vec::new())));
    assert_eq!(poll(&mut store.scan(&tenants, None, 9)), Poll::Ready(Ok(Vec::new())));
    tell.send(Ok(())).unwrap();
    commit.await.unwrap();
    assert_eq!(seen.await.unwrap().unwrap().value.as_ref(), b"1");
    assert_eq!(gone.await.unwrap(), None);
    assert_eq!(scanned.await.unwrap().len(), 1);
    assert_eq!(each.await.unwrap().iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
}

/// sled reads what it finds under the name that sorts last, whole or not.
#[tokio::test]
async fn a_snapshot_that_was_not_finished_keeps_nobody_from_opening() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = SledStore::open(folder.path()).unwrap();
        store.commit(put("a", If::Absent, "1")).await.unwrap();
    }
    for torn in ["snap.00000000000000FF.generating", "snap.7FFFFFFFFFFFFFFF.generating"] {
        std::fs::write(folder.path().join(torn), b"torn").unwrap();
    }
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    let left = std::fs::read_dir(folder.path()).unwrap().filter_map(Result::ok);
    assert_eq!(left.filter(|file| file.file_name().to_string_lossy().ends_with(".generating")).count(), 0);
}

#[tokio::test]
async fn a_close_commits_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let (store, asks, tell) = told(folder.path());
    let mut first = store.commit(put("a", If::Absent, "1"));
    assert!(poll(&mut first).is_pending());
    asked(&asks);
    let mut queued = store.commit(put("b", If::Absent, "2"));
    assert!(poll(&mut queued).is_pending());
    tell.send(Ok(())).unwrap();
    tell.send(Ok(())).unwrap();
    store.close();
    assert_eq!((first.await, queued.await), (Ok(1), Ok(2)));
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(value(&store, "b").await.as_deref(), Some("2"));
}

// ---------------------------------------------------------------------------------------------
// The end of a store

#[tokio::test]
async fn a_failed_sync_ends_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (store, asks, tell) = told(folder.path());
    tell.send(Ok(())).unwrap();
    store.commit(put("safe", If::Absent, "1")).await.unwrap();
    asked(&asks);
    assert!(store.available());

    let mut pair = put("left", If::Absent, "1");
    pair.put(key("right"), If::Absent, Bytes::from_static(b"1"));
    let mut commit = store.commit(pair);
    assert!(poll(&mut commit).is_pending());
    asked(&asks);
    let left = key("left");
    let mut queued = store.commit(put("queued", If::Absent, "1"));
    let mut read = store.get(&left);
    assert!(poll(&mut queued).is_pending());
    assert!(poll(&mut read).is_pending());
    tell.send(Err(io::Error::other("the disk is gone"))).unwrap();

    let reason = "fdatasync failed: the disk is gone";
    assert_eq!(commit.await, Err(CommitError::Unavailable(reason.into())));
    assert_eq!(queued.await, Err(CommitError::Unavailable(reason.into())));
    assert_eq!(read.await, Err(ReadError::Unavailable(reason.into())));
    assert!(!store.available());
    // The disk works again, which nobody finds out.
    for _ in 0..9 {
        let _ = tell.send(Ok(()));
    }
    assert_eq!(store.commit(put("later", If::Any, "1")).await, Err(CommitError::Unavailable(reason.into())));
    assert_eq!(store.get(&key("safe")).await, Err(ReadError::Unavailable(reason.into())));
    assert_eq!(store.scan(&Key::all(), None, 9).await, Err(ReadError::Unavailable(reason.into())));
    assert!(asks.try_recv().is_err(), "no sync is tried again");

    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(value(&store, "safe").await.as_deref(), Some("1"));
    assert_eq!(value(&store, "left").await, value(&store, "right").await, "all or nothing");
    assert_eq!(value(&store, "queued").await, None);
    assert_eq!(value(&store, "later").await, None);
    assert!(store.available());
}

#[tokio::test]
async fn a_panic_while_writing_ends_the_store_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (store, asks, tell) = told(folder.path());
    drop(tell);
    let Err(CommitError::Unavailable(reason)) = store.commit(put("a", If::Absent, "1")).await else {
        panic!("it was committed");
    };
    assert!(reason.contains("told to panic"), "{reason}");
    asked(&asks);
    assert_eq!(store.commit(put("b", If::Absent, "1")).await, Err(CommitError::Unavailable(reason.clone())));
    assert_eq!(store.get(&key("a")).await, Err(ReadError::Unavailable(reason)));
    drop(store);
    SledStore::open(folder.path()).unwrap();
}

/// Opens a folder that sled itself had open: its threads let it go a moment after its last handle.
fn open_after_sled(folder: &Path) -> Result<SledStore, OpenError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match SledStore::open(folder) {
            Err(OpenError::InUse(_)) if Instant::now() < until => std::thread::yield_now(),
            other => return other,
        }
    }
}

#[test]
fn a_folder_that_is_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = SledStore::open(folder.path()).unwrap();
    let Err(error) = SledStore::open(folder.path()) else { panic!("opened twice") };
    assert!(matches!(&error, OpenError::InUse(dir) if dir == &folder.path().canonicalize().unwrap()));
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    first.close();
    let lock = std::fs::File::open(folder.path().join("lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(SledStore::open(folder.path()), Err(OpenError::InUse(_))));
    lock.unlock().unwrap();
    // sled's own lock, as another program that uses sled would hold it.
    let foreign = sled::open(folder.path()).unwrap();
    assert!(matches!(SledStore::open(folder.path()), Err(OpenError::InUse(_))));
    drop(foreign);
    open_after_sled(folder.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_a_store_is_refused_and_not_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    assert!(matches!(SledStore::open(&file), Err(OpenError::Io { .. })));

    let foreign = folder.path().join("foreign");
    sled::open(&foreign).unwrap().insert("somebody's", "record").unwrap();
    assert!(matches!(open_after_sled(&foreign), Err(OpenError::Damaged { .. })));

    let newer = folder.path().join("newer");
    sled::open(&newer).unwrap().insert(b"\0sequence", [2, 0, 0, 0, 0, 0, 0, 0, 1].to_vec()).unwrap();
    let Err(OpenError::Damaged { what, .. }) = open_after_sled(&newer) else { panic!("opened") };
    assert!(what.contains("format is 2"), "{what}");

    let damaged = folder.path().join("damaged");
    drop(SledStore::open(&damaged).unwrap());
    std::fs::write(damaged.join("conf"), "no settings of sled's").unwrap();
    let Err(error) = SledStore::open(&damaged) else { panic!("opened") };
    assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_row_is_named_and_does_not_stop_a_scan() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    for name in ["a", "b", "c"] {
        let mut batch = Batch::new();
        batch.put(key(name), If::Any, record::seal(&name));
        store.commit(batch).await.unwrap();
    }
    store.close();
    let raw = sled::open(folder.path()).unwrap();
    raw.insert(key("b").octets(), b"cut").unwrap();
    raw.flush().unwrap();
    drop(raw);
    let store = open_after_sled(folder.path()).unwrap();
    let rows = store.scan(&Key::all(), None, 9).await.unwrap();
    let opened: Vec<Result<String, _>> = rows.iter().map(|(key, row)| record::open(key, &row.value)).collect();
    assert!(
        matches!(&opened[..], [Ok(a), Err(ReadError::Corrupt(b, _)), Ok(c)] if a == "a" && *b == key("b") && c == "c")
    );
    // It is there, so it is no place for a new one; but it can be replaced.
    assert!(store.commit(put("b", If::Absent, "new")).await.is_err());
    store.commit(put("b", If::Any, "new")).await.unwrap();
    assert_eq!(value(&store, "b").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn the_longest_values_make_no_blob_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    let tasks: Vec<_> = (0..60)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut batch = Batch::new();
                for n in 0..50 {
                    let name = format!("{task:02}-{n:02}-{}", "k".repeat(300));
                    batch.put(key(&name), If::Any, Bytes::from(vec![task; VALUE_BYTES]));
                }
                store.commit(batch.clone()).await.unwrap();
                store.commit(batch).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
    let mut rows = 0;
    let mut after = None;
    loop {
        let page = store.scan(&Key::all(), after.as_ref(), 512).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        rows += page.len();
    }
    assert_eq!(rows, 60 * 50);
}

// ---------------------------------------------------------------------------------------------
// kill -9

const CHILD: &str = "BULKHEAD_TEST_STORE_FOLDER";

/// Not a test but the process that is killed: commits groups of three rows and prints each that was
/// acknowledged. Without the variable it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_commits() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let store = Arc::new(SledStore::open(Path::new(&folder)).unwrap());
    let run = std::process::id();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0.. {
                    let name = format!("{run}-{task}-{n}");
                    let mut batch = Batch::new();
                    for part in ["x", "y", "z"] {
                        batch.put(key(&format!("{name}-{part}")), If::Absent, Bytes::from(vec![b'v'; 200]));
                    }
                    store.commit(batch).await.unwrap();
                    println!("ack {name} end");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    const ROUNDS: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acks = |line: io::Result<String>| {
            // Cut off lines, and those of the test harness, are no acknowledgements.
            let line = line.unwrap_or_default();
            line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix(" end")).map(str::to_owned)
        };
        let before = acknowledged.len();
        while acknowledged.len() < before + 100 + 70 * round {
            acknowledged.extend(acks(lines.next().expect("the child ended by itself")));
        }
        assert!(matches!(SledStore::open(folder.path()), Err(OpenError::InUse(_))), "while the child has it");
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.filter_map(acks));

        let store = SledStore::open(folder.path()).unwrap();
        let groups = groups(&store).await;
        for name in &acknowledged {
            assert_eq!(groups.get(name), Some(&3), "round {round}: {name} was acknowledged");
        }
        assert!(groups.values().all(|parts| *parts == 3), "round {round}: half a batch");
    }
    assert!(acknowledged.len() >= ROUNDS * 100, "{}", acknowledged.len());
}

/// How many rows of each batch are there.
async fn groups(store: &SledStore) -> BTreeMap<String, usize> {
    let mut groups = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.scan(&Key::all(), after.as_ref(), 1000).await.unwrap();
        let Some((last, _)) = page.last() else { return groups };
        after = Some(last.clone());
        for (key, row) in page {
            assert_eq!(row.value.len(), 200);
            let name = key.parts().unwrap()[1].to_owned();
            *groups.entry(name.rsplit_once('-').unwrap().0.to_owned()).or_default() += 1;
        }
    }
}
