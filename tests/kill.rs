//! kill -9 at any moment, under load and with SES in every kind of trouble: whatever was answered 250
//! reaches SES, and what reaches it twice was told of. Then starts that are out of the ordinary: with
//! a hundred thousand messages held, and with another process on the same data.
//!
//! `BULKHEAD_KILL_ROUNDS` says how many rounds, `BULKHEAD_KILL_SEED` where the chance begins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/traffic.rs"]
mod traffic;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binary::{Aws, Dice, Place, Process, code, soon};
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::sled::SledStore;
use bulkhead::mail::{Mailbox, MessageId, ReversePath, SessionId};
use bulkhead::outbox::{Cause, Entry, Lane, Manifest, Progress};
use bulkhead::sandbox::fault::{Fault, Kind};
use bulkhead::store::{BATCH_ITEMS, Batch, If, Key, Store as _, record};
use bulkhead::time::Clock as _;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use traffic::{Ledger, Letter, RECIPIENTS, TENANTS, held_files, login};

/// Rounds, each of which ends with a kill.
const ROUNDS: u32 = 100;
/// Clients of each tenant.
const CLIENTS: u32 = 2;
/// Held messages of the long start.
const BACKLOG: usize = 100_000;
/// How long that start may take. Unoptimised code is given more; it shows no less whether bodies
/// are read.
const START: Duration = if cfg!(debug_assertions) { Duration::from_secs(60) } else { Duration::from_secs(5) };

/// The shortest waits that the settings allow together: a lease outlasts a call and its turn.
/// They begin in the section that the other settings end with, `[aws]`.
const HASTE: &str = r#"
call_seconds = 2
large_call_seconds = 3
call_wait_seconds = 2
[outbox]
disk_reserve_bytes = 1048576
spill_bytes = 65536
data_deadline_seconds = 1
lease_seconds = 6
unknown_wait_seconds = 1
retry_first_seconds = 1
retry_longest_seconds = 2
throttle_first_seconds = 1
throttle_longest_seconds = 1
quota_wait_seconds = 1
operator_first_seconds = 1
operator_longest_seconds = 1
"#;

/// A relay in front of `aws` that reads no queue.
fn place(aws: &Aws) -> Place {
    let place = Place::new(&aws.url, None, HASTE);
    place.write("tenants.toml", &traffic::tenants());
    place
}

/// What SES does in the next round.
fn weather(aws: &Aws, dice: &Dice) {
    let some = |kind| Fault::times(kind, 1 + dice.below(12));
    let late = |fault: Fault| Fault { delay_ms: u64::from(dice.below(1500)), ..fault };
    let sky = dice.below(4);
    if sky > 0 {
        aws.door.open().unwrap();
        aws.faults.clear();
    }
    if sky == 1 {
        return;
    }
    for _ in 0..dice.below(4) {
        let fault = match dice.below(11) {
            0 => some(Kind::Throttle),
            1 => some(Kind::Internal),
            2 => some(Kind::Unavailable),
            3 => Fault::once(Kind::Hang),
            4 | 5 => late(some(Kind::Slow)),
            6 => some(Kind::Reset),
            7 => some(Kind::ResetAfter),
            8 => late(Fault::once(Kind::ResetAfter)),
            9 => some(Kind::ResetBody),
            _ => some(Kind::Quota).with_set("acme-through"),
        };
        // In the middle of a message, after some of its recipients were served.
        let some_recipients = !fault.kind.is_blind() && dice.below(2) == 0;
        let fault =
            if some_recipients { fault.to(&format!("@d{}.example", 1 + dice.below(RECIPIENTS - 1))) } else { fault };
        assert!(aws.faults.script([fault]));
    }
    if dice.below(5) == 0 {
        aws.door.close().unwrap();
    }
}

/// The clients of a round: each sends until the relay is gone.
struct Crowd {
    ledger: Arc<Ledger>,
    /// Letters whose clients were not answered, and who may try again.
    again: Mutex<Vec<Letter>>,
    dice: Dice,
    number: AtomicUsize,
    refused: Mutex<Vec<String>>,
}

impl Crowd {
    fn letter(&self, round: u32, tenant: &'static str) -> Letter {
        let mut again = self.again.lock().unwrap();
        if let Some(at) = again.iter().position(|letter| letter.tenant == tenant) {
            return again.swap_remove(at);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Letter::any(format!("k{round}-{number}"), tenant, &self.dice)
    }

    async fn send(
        &self,
        round: u32,
        tenant: &'static str,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        enough: &Semaphore,
    ) {
        let Ok(mut caller) = login(address, tenant, tls).await else { return };
        loop {
            let letter = self.letter(round, tenant);
            match self.ledger.send(&mut caller, &letter).await {
                Ok(reply) if code(&reply) == 250 => enough.add_permits(1),
                Ok(reply) => self.refused.lock().unwrap().push(reply),
                Err(error) => {
                    let words = error.to_string();
                    // A relay that drains says goodbye.
                    if error.kind() == io::ErrorKind::Other && !words.starts_with("421 4.3.2 ") {
                        self.refused.lock().unwrap().push(words);
                    }
                    if self.dice.below(2) == 0 {
                        self.again.lock().unwrap().push(letter);
                    }
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_is_killed_nothing_acknowledged_is_lost_and_nothing_doubled_in_silence() {
    let number = |name: &str, otherwise: u32| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (rounds, seed) = (number("BULKHEAD_KILL_ROUNDS", ROUNDS), number("BULKHEAD_KILL_SEED", 0x5eed_0003));
    let aws = Aws::start_with(|account| {
        (account.messages, account.message_bytes, account.notices) = (1_000_000, usize::MAX, 1000);
    })
    .await;
    let place = place(&aws);
    let (data, tls, dice) = (place.path("data"), place.tls(), Dice::new(seed));
    let ledger = Arc::new(Ledger::default());
    let crowd = Arc::new(Crowd {
        ledger: Arc::clone(&ledger),
        again: Mutex::default(),
        dice: Dice::new(seed ^ 0x00c0_ffee),
        number: AtomicUsize::new(0),
        refused: Mutex::default(),
    });
    let began = Instant::now();
    let (mut in_start, mut in_drain, mut unknown, mut deepest) = (0, 0, 0, 0);
    for round in 0..rounds {
        weather(&aws, &dice);
        let mut relay = Process::spawn(place.program(&["serve"]));
        if dice.below(5) == 0 {
            // Any moment of a start is as good as another.
            tokio::time::sleep(Duration::from_millis(u64::from(dice.below(500)))).await;
            in_start += 1;
        } else {
            let address = relay.listener("starttls").await;
            relay.line("relay_started", |_| true).await;
            let enough = Arc::new(Semaphore::new(0));
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.extend(TENANTS.map(|tenant| {
                    let (crowd, tls, enough) = (Arc::clone(&crowd), Arc::clone(&tls), Arc::clone(&enough));
                    tokio::spawn(async move { crowd.send(round, tenant, address, &tls, &enough).await })
                }));
            }
            soon("some messages", enough.acquire_many(3 + dice.below(25))).await.unwrap().forget();
            tokio::time::sleep(Duration::from_micros(u64::from(dice.below(8000)))).await;
            if dice.below(6) == 0 {
                // In the middle of a drain.
                relay.signal("TERM");
                tokio::time::sleep(Duration::from_millis(u64::from(dice.below(300)))).await;
                in_drain += 1;
            }
            relay.kill();
            for client in clients {
                soon("a client's end", client).await.unwrap();
            }
        }
        if relay.is_running() {
            relay.kill();
        }
        relay.silent().await;
        unknown += relay.lines("outcome_unknown").len();
        deepest = deepest.max(held_files(&data));
        ledger.read(&relay);
        ledger.receive(&aws.messages.take());
    }
    let killed = began.elapsed();

    aws.faults.clear();
    aws.door.open().unwrap();
    let mut relay = place.start().await;
    let patience = Duration::from_secs(120);
    relay.until("an empty outbox", patience, || held_files(&data) == 0).await;
    relay.signal("TERM");
    assert_eq!(relay.ended().await.0.code(), Some(0), "{}", relay.transcript());
    relay.silent().await;
    ledger.read(&relay);
    ledger.receive(&aws.messages.take());
    assert_eq!(aws.messages.dropped(), 0);
    let account = ledger.close();
    println!(
        "{rounds} kills in {killed:?}, {in_start} of them in the start and {in_drain} in a drain, and {:?} to send what was left; at most {deepest} \
         messages lay in the outbox at a kill; {unknown} outcomes were told to be unknown; {} heard something else than \
         250; 0 lost: {account:?}",
        began.elapsed() - killed,
        crowd.refused.lock().unwrap().len(),
    );
    let refused = crowd.refused.lock().unwrap().clone();
    assert!(refused.is_empty(), "nothing was at its bounds, and yet: {:?}", &refused[..1]);
    assert!(account.acknowledged >= 3 * usize::try_from(rounds).unwrap() / 2, "too little load");
    assert!(account.held > account.acknowledged / 10, "too little was held");
    assert!(in_start > 0 && in_drain > 0 && deepest > 0 && unknown > 0, "not deep enough");

    // Nothing is left that the next start would find.
    let relay = place.start().await;
    let opened = relay.line("outbox_opened", |_| true).await;
    for what in ["held", "unknown", "swept", "adopted"] {
        assert_eq!(opened[what], 0, "{opened}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_being_sent_when_it_was_killed_is_told_of_and_goes_again() {
    let aws = Aws::start().await;
    let place = place(&aws);
    let mut relay = place.start().await;
    let mut caller = login(relay.listener("starttls").await, "acme", &place.tls()).await.unwrap();
    let mut letter = Letter::any("under-way".into(), "acme", &Dice::new(7));
    (letter.stream, letter.bytes) = ("queue", 2000);
    letter.recipients.truncate(1);
    assert!(aws.faults.script([Fault { delay_ms: 60_000, ..Fault::once(Kind::Hang) }]));
    let ledger = Ledger::default();
    let reply = ledger.send(&mut caller, &letter).await.unwrap();
    assert!(reply.contains("queued as"), "{reply}");
    soon("the call", async {
        while !aws.faults.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    relay.kill();

    let relay = place.start().await;
    let opened = relay.line("outbox_opened", |_| true).await;
    assert_eq!((&opened["held"], &opened["unknown"]), (&1.into(), &1.into()), "{opened}");
    let told = relay.line("outcome_unknown", |_| true).await;
    let done = relay.line("message_dispatched", |_| true).await;
    assert_eq!(told["message"], done["message"]);
    assert_eq!((&done["attempts"], &done["unknown"]), (&2.into(), &1.into()), "{done}");
    ledger.receive(&aws.messages.take());
    let account = ledger.close();
    assert_eq!((account.deliveries, account.doubled), (1, 0));
}

// ---------------------------------------------------------------------------------------------
// Starts

/// A row of a message that is due tomorrow, and its id.
fn held_message(subject: usize) -> (MessageId, Key, bytes::Bytes) {
    let now = MachineClock.now();
    let id = MessageId::new(now, &MachineRandom);
    let tenant = TENANTS[subject % TENANTS.len()];
    let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
    let sender = mailbox(&format!("app@{tenant}.example"));
    let manifest = Manifest {
        id,
        session: SessionId::new(now, &MachineRandom),
        tenant: tenant.parse().unwrap(),
        stream: Some("queue".parse().unwrap()),
        credential: format!("{tenant}-app").parse().unwrap(),
        reverse_path: ReversePath::Mailbox(sender.clone()),
        recipients: vec![mailbox(&format!("r{subject}@dest.example"))],
        claims: vec![sender],
        tags: Vec::new(),
        created: now,
        expires: now.plus(Duration::from_hours(48)),
        digest: None,
    };
    let entry = Entry::new(&manifest, 64 * 1024, Progress::none(1), Cause::Service, "Service unavailable");
    let key = Lane::of(&manifest).key("main", now.plus(Duration::from_hours(24)), id);
    (id, key, record::seal(&entry))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_hundred_thousand_held_messages_is_quick_and_reads_no_body() {
    let aws = Aws::start().await;
    let place = place(&aws);
    let data = place.path("data");
    // The tenants, the folders, and generations that go together.
    let mut first = place.start().await;
    first.signal("TERM");
    assert_eq!(first.ended().await.0.code(), Some(0));

    let began = Instant::now();
    let store = SledStore::open(&data).unwrap();
    let (outbox, mut body) = (data.join("outbox"), place.path("garbage"));
    let mut made = 0;
    while made < BACKLOG {
        // A file may not have more names than this on some file systems.
        if made % 25_000 == 0 {
            body = place.path(&format!("garbage-{made}"));
            std::fs::write(&body, vec![0xaa; 64 * 1024]).unwrap();
            std::fs::set_permissions(&body, std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        let mut batch = Batch::new();
        for _ in 0..BATCH_ITEMS {
            let (id, key, row) = held_message(made);
            batch.put(key, If::Absent, row);
            std::fs::hard_link(&body, outbox.join(id.to_string())).unwrap();
            made += 1;
        }
        store.commit(batch).await.unwrap();
    }
    store.close();
    drop(store);
    println!("{made} held messages made in {:?}", began.elapsed());

    let began = Instant::now();
    let relay = Process::spawn(place.program(&["serve"]));
    relay.until("the start", START * 2, || !relay.lines("relay_started").is_empty()).await;
    let took = began.elapsed();
    let opened = relay.line("outbox_opened", |_| true).await;
    let read = relay.octets_read();
    println!("started in {took:?}, {read} octets read, {} KiB of memory: {opened}", relay.memory());
    assert_eq!((&opened["held"], &opened["swept"]), (&made.into(), &0.into()), "{opened}");
    for damage in ["body_missing", "body_damaged", "record_damaged"] {
        assert!(relay.lines(damage).is_empty(), "{}", relay.lines(damage)[0]);
    }
    assert!(took < START, "{took:?}");
    // One read of each body, even the shortest the relay makes, would be ten times this.
    assert!(read < 640_000_000, "{read} octets were read, of rows that have {} in all", made * 500);
    // It works: what does not wait passes.
    let mut caller = login(relay.listener("starttls").await, "acme", &place.tls()).await.unwrap();
    let letter = Letter::any("beside".into(), "acme", &Dice::new(1));
    assert_eq!(code(&traffic::transact(&mut caller, &letter).await.unwrap()), 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_an_outbox_in_use_is_refused_and_touches_nothing() {
    let aws = Aws::start().await;
    let place = place(&aws);
    let relay = place.start().await;
    aws.door.close().unwrap();
    let ledger = Ledger::default();
    let mut caller = login(relay.listener("starttls").await, "acme", &place.tls()).await.unwrap();
    let mut letters = Vec::new();
    for n in 0..5 {
        let letter = Letter { bytes: 2000, ..Letter::any(format!("two-{n}"), "acme", &Dice::new(n + 1)) };
        let reply = ledger.send(&mut caller, &letter).await.unwrap();
        assert!(reply.contains("queued as"), "{reply}");
        letters.push(letter);
    }
    let before = held_files(&place.path("data"));
    let mut second = Process::spawn(place.program(&["serve"]));
    let (status, said) = second.ended().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another process"), "{said}");
    assert!(second.lines("outbox_opened").is_empty() && second.lines("listener_opened").is_empty());
    assert_eq!((before, held_files(&place.path("data"))), (5, 5));
    aws.door.open().unwrap();
    relay.until("an empty outbox", Duration::from_secs(30), || held_files(&place.path("data")) == 0).await;
    ledger.receive(&aws.messages.take());
    assert_eq!(ledger.close().held, letters.len());
}
