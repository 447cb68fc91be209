//! A power cut under the relay: its data folder is an ext4 file system in a file, of which a copy is
//! taken while mail is coming in and SES is down. The copy is what a machine finds that comes back
//! after the cut: its journal is replayed, the relay started on it, and every message that was
//! acknowledged before has to reach SES, whole.
//!
//! What makes this a cut: what was written to the file system and not yet synced lies in the kernel's
//! memory, above the loop device, and is not in the file. A sync that is left out anywhere on the way
//! to a 250 is missing from the copy (the file system is mounted so that it writes nothing by itself
//! for minutes). What it does not show: a device that loses or reorders what it was told to keep,
//! for the file has everything that reached the device, in order.
//!
//! The copy has to be of one moment, as a cut is. So the relay is stopped (SIGSTOP) wherever it is in
//! its work, and the file is read until two readings are the same. Whatever clients have heard by
//! then was said before the copy.
//!
//! Where nothing can be mounted (which takes root) the test says that it was skipped, and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/mount.rs"]
mod mount;
#[path = "support/traffic.rs"]
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use binary::{Aws, Dice, Place, Process, code, soon};
use mount::{Mount, make_image, skipped};
use tokio::sync::Semaphore;
use traffic::{Ledger, Letter, TENANTS, held_files, login};

const ROUNDS: u32 = 5;
/// Clients of each tenant.
const CLIENTS: usize = 2;
/// The whole of the disk.
const DISK: u64 = 96 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// They begin in the section that the other settings end with, `[aws]`.
const SETTINGS: &str = r#"
call_seconds = 5
large_call_seconds = 5
call_wait_seconds = 5
[outbox]
disk_reserve_bytes = 1048576
spill_bytes = 65536
lease_seconds = 11
unknown_wait_seconds = 1
retry_first_seconds = 1
retry_longest_seconds = 1
"#;

/// Stops a process wherever it is; on return none of its threads runs or waits for the disk.
async fn stop(relay: &Process) {
    relay.signal("STOP");
    let tasks = format!("/proc/{}/task", relay.pid);
    let stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // Behind the name, which is in brackets and may hold anything.
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    soon("a stop", async {
        while !std::fs::read_dir(&tasks).unwrap().all(stopped) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The octets of the image at one moment.
fn copy(image: &Path) -> Vec<u8> {
    let mut octets = std::fs::read(image).unwrap();
    loop {
        let again = std::fs::read(image).unwrap();
        if again == octets {
            return octets;
        }
        octets = again;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_power_cut_is_on_the_disk_after_it() {
    let aws = Aws::start_with(|account| {
        (account.messages, account.message_bytes, account.notices) = (100_000, usize::MAX, 1000);
    })
    .await;
    let place = Place::new(&aws.url, None, SETTINGS);
    place.write("tenants.toml", &traffic::tenants());
    let (data, image, tls) = (place.path("data"), place.path("disk.img"), place.tls());
    let mounted = make_image(&image, DISK).and_then(|()| Mount::image(&data, &image));
    let mut disk = match mounted {
        Ok(disk) => disk,
        Err(why) => return skipped(&why),
    };
    let ledger = Arc::new(Ledger::default());
    let (number, letters) = (Arc::new(AtomicUsize::new(0)), Arc::new(Dice::new(0x5eed_0005)));
    let dice = Dice::new(0x5eed_0004);
    let began = Instant::now();
    let mut account = Vec::new();
    for round in 0..ROUNDS {
        aws.door.close().unwrap();
        let mut relay = place.start().await;
        let address = relay.listener("starttls").await;
        let enough = Arc::new(Semaphore::new(0));
        let clients: Vec<_> = (0..CLIENTS * TENANTS.len())
            .map(|client| {
                let (ledger, tls, enough) = (Arc::clone(&ledger), Arc::clone(&tls), Arc::clone(&enough));
                let (number, letters, tenant) =
                    (Arc::clone(&number), Arc::clone(&letters), TENANTS[client % TENANTS.len()]);
                tokio::spawn(async move {
                    let mut caller = login(address, tenant, &tls).await.unwrap();
                    loop {
                        let subject = format!("p{round}-{}", number.fetch_add(1, Ordering::Relaxed));
                        let Ok(reply) = ledger.send(&mut caller, &Letter::any(subject, tenant, &letters)).await else {
                            return;
                        };
                        assert!(code(&reply) == 250 && reply.contains("queued as"), "{reply}");
                        enough.add_permits(1);
                    }
                })
            })
            .collect();
        soon("some messages", enough.acquire_many(30 + dice.below(60))).await.unwrap().forget();
        tokio::time::sleep(Duration::from_micros(u64::from(dice.below(20_000)))).await;

        stop(&relay).await;
        let octets = copy(&image);
        relay.kill();
        for client in clients {
            soon("a client's end", client).await.unwrap();
        }
        relay.silent().await;
        ledger.read(&relay);
        let acknowledged = ledger.acknowledged();

        // The machine comes back.
        disk.unmount();
        std::fs::write(&image, octets).unwrap();
        disk = Mount::image(&data, &image).unwrap();
        aws.door.open().unwrap();
        let mut relay = place.start().await;
        let opened = relay.line("outbox_opened", |_| true).await;
        let broken = || ["body_missing", "body_damaged"].iter().flat_map(|line| relay.lines(line)).next();
        let over = || held_files(&data) == 0 || broken().is_some();
        relay.until("an empty outbox", PATIENCE, over).await;
        assert_eq!(broken(), None, "round {round}: {opened}");
        ledger.receive(&aws.messages.take());
        let missing = ledger.missing(&acknowledged);
        assert!(
            missing.is_empty(),
            "round {round}: of {} acknowledged {} are lost, as {:?}; {opened}",
            acknowledged.len(),
            missing.len(),
            &missing[..1]
        );
        account.push(opened);
        relay.signal("TERM");
        assert_eq!(relay.ended().await.0.code(), Some(0), "{}", relay.transcript());
        relay.silent().await;
        ledger.read(&relay);
        ledger.receive(&aws.messages.take());
    }
    let found: Vec<String> =
        account.iter().map(|line| format!("{} held and {} swept", line["held"], line["swept"])).collect();
    let account = ledger.close();
    println!("{ROUNDS} cuts in {:?}: {found:?}; 0 lost: {account:?}", began.elapsed());
    assert!(account.acknowledged >= 30 * usize::try_from(ROUNDS).unwrap());
    drop(disk);
}
