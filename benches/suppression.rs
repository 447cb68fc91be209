//! What a suppression list of a million entries costs: `cargo bench --bench suppression`, with
//! `SUPPRESSION_BENCH=FOLDER` for a folder on the disk in question (the temporary one if none is
//! named), and `SUPPRESSION_ENTRIES=NUMBER` for a smaller one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::MachineClock;
use bulkhead::adapters::sled::SledStore;
use bulkhead::event::{Notice, parse};
use bulkhead::ingest::{Applier, Outcome};
use bulkhead::mail::{Mailbox, TenantId};
use bulkhead::policy::tenant::{SenderPattern, Suppression, SuppressionReason, Tenant};
use bulkhead::store::directory::Directory;
use bulkhead::store::suppressions;
use bulkhead::time::{Clock, Timestamp};
use divan::Bencher;
use divan::counter::ItemsCount;
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

const TENANTS: usize = 10_000;
/// Commits under way at once while the list is made.
const AT_ONCE: usize = 64;

fn entries() -> usize {
    std::env::var("SUPPRESSION_ENTRIES").map_or(1_000_000, |text| text.parse().unwrap())
}

fn tenant(n: usize) -> TenantId {
    format!("tenant-{:05}", n % TENANTS).parse().unwrap()
}

fn mailbox(n: usize) -> Mailbox {
    Mailbox::parse(format!("reader.{n}@domain{}.example", n % 977).as_bytes()).unwrap()
}

fn entry(n: usize) -> Suppression {
    let reason = if n.is_multiple_of(7) { SuppressionReason::Complaint } else { SuppressionReason::Bounce };
    let (at, actor) = (Timestamp::from_millis(1_795_000_000_000), "ses".to_owned());
    let origin = format!("0100019ab{n:07}-5cbb1b0e-1b1d-4a2c-9d5f-0c7e9a0d2b11-000000");
    Suppression { reason, origin, at, expires: None, actor }
}

/// A store with all the entries, on the disk; made once.
struct Place {
    store: Arc<SledStore>,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let folder = std::env::var_os("SUPPRESSION_BENCH").map_or_else(std::env::temp_dir, Into::into);
        let folder = tempfile::tempdir_in::<std::path::PathBuf>(folder).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        let began = Instant::now();
        runtime.block_on(fill(&store));
        eprintln!("{} entries of {TENANTS} tenants were stored in {:.1?}", entries(), began.elapsed());
        // As a relay has it that was started since and has run for a while: each page has been read.
        store.close();
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        let began = Instant::now();
        runtime.block_on(async {
            for n in 0..entries() {
                assert_eq!(suppressions::find(&*store, &tenant(n), &mailbox(n)).await.unwrap().len(), 1);
            }
        });
        eprintln!("and each was looked up for the first time in {:.1?}", began.elapsed());
        for (which, other) in [("listed", 0), ("unlisted", 1)] {
            let asked: Vec<_> =
                (1..200_000).map(|n| n * 7_919 % entries()).map(|n| (tenant(n + other), mailbox(n))).collect();
            let before = processor_time();
            runtime.block_on(async {
                for (tenant, mailbox) in &asked {
                    divan::black_box(suppressions::find(&*store, tenant, mailbox).await.unwrap());
                }
            });
            if let (Some(before), Some(after)) = (before, processor_time()) {
                let each = (after - before) / asked.len() as u64;
                eprintln!("{which}: {each} ns of processor time a look-up");
            }
        }
        Place { store, runtime, _folder: folder }
    })
}

/// Nanoseconds that this thread has been on a processor; Linux alone tells.
fn processor_time() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

async fn fill(store: &Arc<SledStore>) {
    let mut under_way = tokio::task::JoinSet::new();
    let each = entries().div_ceil(TENANTS);
    for n in 0..TENANTS {
        if under_way.len() == AT_ONCE {
            under_way.join_next().await.unwrap().unwrap();
        }
        let store = Arc::clone(store);
        under_way.spawn(async move {
            let all: Vec<_> = (0..each).map(|k| n + k * TENANTS).map(|n| (mailbox(n), entry(n))).collect();
            for some in all.chunks(suppressions::MANY) {
                suppressions::add_many(&*store, &tenant(n), some).await.unwrap();
            }
        });
    }
    while let Some(done) = under_way.join_next().await {
        done.unwrap();
    }
}

/// The look-up of RCPT: an address that is on its tenant's list, another each time.
#[divan::bench(sample_count = 100, sample_size = 1000)]
fn find_listed(bencher: Bencher<'_, '_>) {
    find(bencher, |n| (tenant(n), mailbox(n)), 1);
}

/// One that is not, which is what most are.
#[divan::bench(sample_count = 100, sample_size = 1000)]
fn find_unlisted(bencher: Bencher<'_, '_>) {
    find(bencher, |n| (tenant(n + 1), mailbox(n)), 0);
}

/// The same with a look at what is known of SES's account list, which is empty.
#[divan::bench(sample_count = 100, sample_size = 1000)]
fn find_unlisted_with_the_account(bencher: Bencher<'_, '_>) {
    let Place { store, runtime, .. } = place();
    let mut n = 0;
    bencher
        .with_inputs(|| {
            n = (n + 7_919) % entries();
            (tenant(n + 1), mailbox(n))
        })
        .bench_local_refs(|(tenant, mailbox)| {
            runtime.block_on(suppressions::binding(&**store, tenant, mailbox, true)).unwrap()
        });
}

fn find(bencher: Bencher<'_, '_>, of: impl Fn(usize) -> (TenantId, Mailbox), found: usize) {
    let Place { store, runtime, .. } = place();
    let mut n = 0;
    bencher
        .with_inputs(|| {
            // A step that comes by all of them, far from each other.
            n = (n + 7_919) % entries();
            of(n)
        })
        .bench_local_refs(|(tenant, mailbox)| {
            let entries = runtime.block_on(suppressions::find(&**store, tenant, mailbox)).unwrap();
            assert_eq!(entries.len(), found);
        });
}

/// Deliveries that are applied durably, to addresses that never bounced softly, with the million
/// entries beside them: the items are events. As many come at a time as the pollers bring.
#[divan::bench(args = [10, 320], sample_count = 20, sample_size = 1)]
fn apply_deliveries(bencher: Bencher<'_, '_>, together: usize) {
    apply(bencher, together, |n| {
        let at = MachineClock.now().rfc3339();
        format!(
            r#"{{"eventType":"Delivery","delivery":{{"timestamp":"{at}","recipients":["reader.{n}@domain.example"]}},{}}}"#,
            mail(n, &at)
        )
    });
}

/// The same of soft bounces, each of an address of its own: a row each is written.
#[divan::bench(args = [10, 320], sample_count = 20, sample_size = 1)]
fn apply_soft_bounces(bencher: Bencher<'_, '_>, together: usize) {
    apply(bencher, together, |n| {
        let at = MachineClock.now().rfc3339();
        format!(
            r#"{{"eventType":"Bounce","bounce":{{"bounceType":"Transient","bounceSubType":"MailboxFull","feedbackId":"f-{n}",
            "timestamp":"{at}","bouncedRecipients":[{{"emailAddress":"reader.{n}@domain.example","status":"5.2.2"}}]}},{}}}"#,
            mail(n, &at)
        )
    });
}

fn mail(n: usize, at: &str) -> String {
    format!(
        r#""mail":{{"timestamp":"{at}","messageId":"0100019ab{n:07}","source":"x@acme.example","destination":[],
        "tags":{{"tenant":["tenant-00000"],"stream":["main"]}}}}"#
    )
}

/// Whose stream it is the events' own tags say.
fn owner() -> Tenant {
    Tenant {
        senders: vec![SenderPattern::parse("acme.example").unwrap()],
        ..Tenant::new(tenant(0), "main".parse().unwrap())
    }
}

fn apply(bencher: Bencher<'_, '_>, together: usize, body: impl Fn(usize) -> String) {
    const EVENTS: usize = 3200;
    let Place { store, runtime, .. } = place();
    let directory = Arc::new(ArcSwap::from_pointee(Directory::new([owner()], [])));
    let applier = Applier::new(store.clone(), directory, Arc::new(MachineClock), "bench".into());
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    bencher
        .counter(ItemsCount::new(EVENTS))
        .with_inputs(|| {
            let from = NUMBER.fetch_add(EVENTS, std::sync::atomic::Ordering::Relaxed);
            let read = |n| -> (String, Notice) { (String::new(), parse(body(n).as_bytes()).unwrap()) };
            (from..from + EVENTS).map(read).collect::<Vec<_>>()
        })
        .bench_local_values(|mut events| {
            while !events.is_empty() {
                let some = events.split_off(events.len().saturating_sub(together));
                let outcomes = runtime.block_on(applier.apply(some));
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{outcomes:?}");
            }
        });
}
