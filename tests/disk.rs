//! A full disk under the relay: a small file system of its own as its data folder. Full up to the
//! reserve, mail is refused that would have to be held, and nothing else happens; full to the last
//! octet, the relay may stop and be started again. Either way what was acknowledged reaches SES, and
//! nobody has to mend anything but the disk.
//!
//! Where nothing can be mounted (which takes root) each test says that it was skipped, and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/mount.rs"]
mod mount;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use binary::{Aws, Place, Process, code, get, soon};
use bulkhead::sandbox::fault::{Fault, Kind};
use mount::{Mount, skipped};
use tokio::io::AsyncReadExt as _;
use traffic::{Ledger, Letter, held_files, login};

const MIB: u64 = 1024 * 1024;
/// The whole of the disk.
const DISK: u64 = 64 * MIB;
const RESERVE: u64 = 16 * MIB;
/// What the greeting says while nothing can be held.
const NOTE: &str = "no mail can be held at the moment";
/// How often the relay is started on a disk without room.
const STARTS: u32 = 3;
/// Longer than the backlog of a full disk takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay whose data folder is a disk of its own; `None` where there can be none, which is told. The
/// disk is to go before the place.
fn place(aws: &Aws, reserve: u64) -> Option<(Place, Mount)> {
    // They begin in the section that the other settings end with, `[aws]`.
    let settings = format!(
        "call_seconds = 5\nlarge_call_seconds = 5\ncall_wait_seconds = 5\n\
         [limits]\ndrain_seconds = 1\nlinger_seconds = 0\n\
         [outbox]\ndisk_reserve_bytes = {reserve}\nlease_seconds = 11\nunknown_wait_seconds = 1\n\
         retry_first_seconds = 1\nretry_longest_seconds = 1\noperator_first_seconds = 1\noperator_longest_seconds = 1\n"
    );
    let place = Place::new(&aws.url, None, &settings);
    place.write("tenants.toml", &traffic::tenants());
    match Mount::memory(&place.path("data"), DISK) {
        Ok(disk) => Some((place, disk)),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

fn letter(subject: String, tenant: &'static str, stream: &'static str, bytes: usize) -> Letter {
    let recipients = vec![format!("r-{subject}@dest.example")];
    Letter { subject, tenant, stream, recipients, bytes }
}

async fn greeting(address: SocketAddr) -> String {
    let mut socket = binary::tcp(address, Ipv4Addr::LOCALHOST).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n") {
        assert!(soon("a greeting", socket.read_buf(&mut read)).await.unwrap() > 0);
    }
    String::from_utf8(read).unwrap()
}

async fn admin(place: &Place) -> String {
    place.ask(&["status"]).await["admin"].as_str().unwrap().to_owned()
}

/// Writes until the file system takes nothing more, for root neither.
fn fill(at: &Path) -> u64 {
    let mut filler = File::create(at).unwrap();
    let mut written = 0;
    for size in [256 * 1024, 4096, 1] {
        let octets = vec![0x55; size];
        loop {
            match filler.write(&octets) {
                Ok(some) => written += some as u64,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_full_to_its_reserve_defers_what_would_be_held_and_recovers_by_itself() {
    let aws = Aws::start().await;
    let Some((place, _disk)) = place(&aws, RESERVE) else { return };
    let (data, tls, ledger) = (place.path("data"), place.tls(), Ledger::default());
    let relay = place.start().await;
    let (address, admin) = (relay.listener("starttls").await, admin(&place).await);
    assert_eq!(get(&admin, "/readyz").await.0, 200);
    assert!(!greeting(address).await.contains(NOTE));

    // SES is down: mail is held until the disk is full.
    aws.door.close().unwrap();
    let mut acme = login(address, "acme", &tls).await.unwrap();
    let (mut held, mut number) = (0, 0);
    for bytes in [900_000, 90_000, 9_000, 1_000] {
        let full = loop {
            let (subject, stream) = (format!("f{number}"), ["through", "queue"][number % 2]);
            number += 1;
            let reply = ledger.send(&mut acme, &letter(subject, "acme", stream, bytes)).await.unwrap();
            if code(&reply) != 250 {
                break reply;
            }
            assert!(reply.contains("queued as"), "{reply}");
            held += 1;
            assert!(held < 200, "more is held than there is room for");
        };
        println!("{held} messages are held on a disk of {DISK} octets when one of {bytes} hears: {full}");
        assert!(full.starts_with("452 4.3.1 "), "{full}");
        assert!(held >= 25, "{held}");
    }
    let (status, body) = get(&admin, "/readyz").await;
    println!("{body}");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("no mail can be held") && body.contains("outbox.disk_reserve_bytes"), "{body}");
    assert!(greeting(address).await.contains(NOTE));
    relay.line("outbox_failed", |line| line["reason"].as_str().unwrap().contains("disk_reserve_bytes")).await;
    assert_eq!(held_files(&data), held);

    // SES is up again, for all but the streams with the backlog: the disk is as full as it was, and
    // what passes at once passes.
    aws.faults.script([
        Fault::lasting(Kind::SetPaused).with_set("acme-through"),
        Fault::lasting(Kind::SetPaused).with_set("acme-queue"),
    ]);
    aws.door.open().unwrap();
    relay.line("breaker_closed", |line| line["scope"].is_null() || line["scope"] == "account").await;
    let mut globex = login(address, "globex", &tls).await.unwrap();
    let small = ledger.send(&mut globex, &letter("passes".into(), "globex", "through", 2000)).await.unwrap();
    assert!(code(&small) == 250 && !small.contains("queued as"), "{small}");
    // One that would go to a file while it arrives stays in memory.
    let large = ledger.send(&mut globex, &letter("large".into(), "globex", "through", 3_000_000)).await.unwrap();
    assert!(code(&large) == 250 && !large.contains("queued as"), "{large}");
    // What would be held otherwise passes as well, unless SES does not take it.
    let queued = ledger.send(&mut globex, &letter("waits".into(), "globex", "queue", 2000)).await.unwrap();
    assert!(code(&queued) == 250 && !queued.contains("queued as"), "{queued}");
    let paused = ledger.send(&mut acme, &letter("paused".into(), "acme", "queue", 2000)).await.unwrap();
    assert!(paused.starts_with("452 4.3.1 "), "{paused}");
    assert_eq!((held_files(&data), get(&admin, "/readyz").await.0), (held, 503));

    // SES takes the backlog; nobody does anything else.
    aws.faults.clear();
    relay.until("an empty outbox", PATIENCE, || held_files(&data) == 0).await;
    let (status, body) = get(&admin, "/readyz").await;
    assert_eq!(status, 200, "{body}");
    assert!(!greeting(address).await.contains(NOTE));
    relay.line("outbox_recovered", |_| true).await;
    let queued = ledger.send(&mut globex, &letter("waits-no-more".into(), "globex", "queue", 900_000)).await.unwrap();
    assert!(code(&queued) == 250 && queued.contains("queued as"), "{queued}");
    relay.until("an empty outbox", PATIENCE, || held_files(&data) == 0).await;

    // With a little more than the reserve left, a large message does not take of the reserve while it
    // arrives, and a small one is held.
    let free = rustix::fs::statvfs(&data).map(|disk| disk.f_bavail * disk.f_frsize).unwrap();
    let filler = File::create(data.join("filler")).unwrap();
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, free - RESERVE - 3 * MIB / 2).unwrap();
    let large = ledger.send(&mut globex, &letter("larger".into(), "globex", "through", 4_000_000)).await.unwrap();
    assert!(large.starts_with("452 4.3.1 "), "{large}");
    let queued = ledger.send(&mut globex, &letter("smaller".into(), "globex", "queue", 100_000)).await.unwrap();
    assert!(code(&queued) == 250 && queued.contains("queued as"), "{queued}");
    relay.until("an empty outbox", PATIENCE, || held_files(&data) == 0).await;
    ledger.read(&relay);
    ledger.receive(&aws.messages.take());
    let account = ledger.close();
    println!("0 lost: {account:?}");
    assert_eq!((account.acknowledged, account.doubled + account.doubled_unanswered), (held + 5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_full_to_the_last_octet_loses_nothing_that_was_acknowledged() {
    let aws = Aws::start().await;
    // Without a reserve nothing keeps the relay from running into it.
    let Some((place, _disk)) = place(&aws, 0) else { return };
    let (data, tls, ledger) = (place.path("data"), place.tls(), Ledger::default());
    let mut relay = place.start().await;
    aws.door.close().unwrap();
    let mut caller = login(relay.listener("starttls").await, "acme", &tls).await.unwrap();
    let mut number = 0;
    let mut next = |bytes| {
        number += 1;
        letter(format!("e{number}"), "acme", ["through", "queue"][number % 2], bytes)
    };
    for _ in 0..20 {
        let reply = ledger.send(&mut caller, &next(50_000)).await.unwrap();
        assert!(reply.contains("queued as"), "{reply}");
    }

    // Somebody else takes all of the disk, the last octet too.
    let filler = data.join("filler");
    let taken = fill(&filler);
    let (status, body) = get(&admin(&place).await, "/readyz").await;
    assert_eq!(status, 503, "{body}");
    let mut heard = Vec::new();
    for _ in 0..10 {
        heard.push(ledger.send(&mut caller, &next(20_000)).await.unwrap());
    }
    println!("{taken} octets were taken; then: {} and {body}", heard[0].trim());
    assert!(heard.iter().all(|reply| reply.starts_with("452 4.3.1 ")), "{heard:?}");

    // The store has to write more than it had room for: it stops, and the relay with it.
    let addresses: Vec<String> = (0..20_000).map(|n| format!("somebody-{n}@dest.example")).collect();
    place.write("addresses.csv", &format!("address\n{}\n", addresses.join("\n")));
    let import = place.run(&["suppression", "import", "acme", "addresses.csv"]).await;
    println!("an import on the full disk: {}", String::from_utf8_lossy(&import.stderr).trim());
    assert!(!import.status.success());
    relay.line("store_failed", |_| true).await;
    let last = ledger.send(&mut caller, &next(20_000)).await;
    assert!(last.as_ref().map_or(true, |reply| code(reply) / 100 == 4), "{last:?}");
    drop(caller);
    let (status, said) = relay.ended().await;
    assert_eq!(status.code(), Some(1), "{said}");
    ledger.read(&relay);

    // A supervisor starts it again, and again, whether or not it can work there.
    let mut in_vain = 0;
    for _ in 0..STARTS {
        let mut relay = Process::spawn(place.program(&["serve"]));
        if started(&relay).await {
            let mut caller = login(relay.listener("starttls").await, "acme", &tls).await.unwrap();
            let reply = ledger.send(&mut caller, &next(20_000)).await;
            assert!(reply.as_ref().map_or(true, |reply| code(reply) / 100 == 4), "{reply:?}");
            relay.kill();
        } else {
            let (status, said) = relay.ended().await;
            assert_eq!(status.code(), Some(1), "{said}");
            println!("a start on the full disk: {}", said.trim());
            in_vain += 1;
        }
        relay.silent().await;
        ledger.read(&relay);
    }

    // The disk has room again.
    std::fs::remove_file(&filler).unwrap();
    aws.door.open().unwrap();
    let relay = place.start().await;
    relay.until("an empty outbox", PATIENCE, || held_files(&data) == 0).await;
    ledger.read(&relay);
    ledger.receive(&aws.messages.take());
    let account = ledger.close();
    println!("{STARTS} starts on the full disk, {in_vain} of them in vain; 0 lost: {account:?}");
    assert_eq!(account.acknowledged, 20);
    let mut caller = login(relay.listener("starttls").await, "acme", &tls).await.unwrap();
    let reply = ledger.send(&mut caller, &letter("after".into(), "acme", "queue", 50_000)).await.unwrap();
    assert!(reply.contains("queued as"), "{reply}");
}

/// Whether a process comes up; if not, it ends.
async fn started(relay: &Process) -> bool {
    let up = || !relay.lines("relay_started").is_empty();
    relay.until("a start or an end", PATIENCE, || up() || relay.has_ended()).await;
    up()
}
