//! Too much, too large, and a disk without room.

use bulkhead::outbox::Bounds;
use bulkhead::sandbox::fault::{Fault, Kind};

use crate::house::{Plan, SECRET};
use crate::scene::{A_WHILE, Letter, Scene, long_body, post, queued, recipients, relayed, until};
use crate::support::{bounds, code, journal};

/// The lasting trouble of these tests: nothing is taken until it is cleared.
fn outage() -> [Fault; 1] {
    [Fault::lasting(Kind::Quota)]
}

async fn as_other(scene: &Scene) -> String {
    let name = format!("{}-b", scene.name);
    let mut client = scene.house.login(&format!("{name}-app"), SECRET).await;
    let octets = format!("From: app@{name}.example\r\nSubject: beside\r\n\r\nbody\r\n").into_bytes();
    let letter = Letter { octets, subject: "beside".into() };
    post(&mut client, &format!("app@{name}.example"), &recipients(1), &letter).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_full_says_which_bound_it_is() {
    let table = [
        ("fullall", Bounds { messages: 2, ..bounds() }, "(outbox.messages)", false),
        ("fullone", Bounds { messages_per_tenant: 2, ..bounds() }, "(outbox.messages_per_tenant)", true),
        // Two of them fit, three do not.
        ("fulloct", Bounds { bytes_per_tenant: 2500, ..bounds() }, "(outbox.bytes_per_tenant)", true),
    ];
    for (name, bounds, word, others) in table {
        let mut plan = Plan::named(name, &format!("{name}-b"));
        plan.bounds = bounds;
        let mut scene = Scene::of(plan).await;
        assert!(scene.house.faults.script(outage()));
        let mut letters = Vec::new();
        for _ in 0..2 {
            let letter = scene.letter_with("", &long_body(700));
            scene.send_held(&letter).await;
            letters.push(letter);
        }
        let refused = scene.letter_with("", &long_body(700));
        let reply = scene.send(&recipients(1), &refused).await;
        assert!(reply.starts_with("452 4.3.1 ") && reply.contains(word) && reply.contains("daily quota"), "{reply}");
        let verdict = scene.lines("message_refused").pop().unwrap();
        assert_eq!((&verdict["code"], &verdict["blame"]), (&452.into(), &"us".into()), "{verdict}");
        let theirs = as_other(&scene).await;
        assert_eq!(theirs.starts_with("250 2.0.0 queued as "), others, "{name}: {theirs}");
        assert_eq!(scene.house.files(), scene.held(), "{name}: nothing is left of what was refused");

        scene.house.faults.clear();
        scene.house.pass(A_WHILE);
        scene.emptied().await;
        for letter in &letters {
            scene.assert_copies(letter, 1, "transactional");
        }
        scene.assert_copies(&refused, 0, "transactional");
        assert!(scene.house.faults.script(outage()));
        queued(&scene.send(&recipients(1), &refused).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_held_after_some_were_served_says_who_gets_it_twice() {
    let mut plan = Plan::named("fullpart", "fullpart-b");
    plan.bounds.messages = 0;
    let mut scene = Scene::of(plan).await;
    assert!(scene.house.faults.script([Fault::once(Kind::Quota).to("r1@dest.example")]));
    let letter = scene.letter();
    let reply = scene.send(&recipients(3), &letter).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    let verdict = scene.lines("message_refused").pop().unwrap();
    assert_eq!(verdict["sent"], 2, "{verdict}");
    assert!(verdict["warning"].as_str().unwrap().contains("twice"), "{verdict}");
    scene.assert_copies(&letter, 2, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_of_the_disk_is_left_free_and_mail_goes_through_all_the_same() {
    let mut plan = Plan::named("reserve", "reserve-b");
    plan.disk_reserve_bytes = u64::MAX / 2;
    let mut scene = Scene::of(plan).await;
    let before = scene.house.platter.counts();
    let letter = scene.letter();
    relayed(&scene.send(&recipients(1), &letter).await);
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let letter = scene.letter();
    let reply = scene.send(&recipients(1), &letter).await;
    assert!(reply.starts_with("452 4.3.1 ") && reply.contains("has no room"), "{reply}");
    assert!(scene.dispatch().outbox().fault().unwrap().contains("disk_reserve_bytes"));
    assert_eq!((scene.held(), scene.house.files(), scene.house.platter.counts()), (0, 0, before));
    // The breaker is open, and nobody is held who could find out: the next message has to.
    scene.house.pass(A_WHILE);
    let letter = scene.letter();
    relayed(&scene.send(&recipients(1), &letter).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_refuses_what_is_to_be_held_until_it_has_room() {
    let mut scene = Scene::named("enospc").await;
    assert!(scene.house.faults.script(outage()));
    let kept = scene.letter();
    scene.send_held(&kept).await;
    scene.house.platter.fill(true);
    let letter = scene.letter();
    let reply = scene.send(&recipients(1), &letter).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert!(scene.dispatch().outbox().fault().is_some());
    assert_eq!((scene.held(), scene.house.files()), (1, 1), "nothing is left of it");
    scene.house.platter.fill(false);
    scene.send_held(&letter).await;
    assert_eq!(scene.dispatch().outbox().fault(), None);
    scene.house.faults.clear();
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    for letter in [kept, letter] {
        scene.assert_copies(&letter, 1, "transactional");
    }
}

/// A scene where messages above 256 KiB leave the memory while they come in.
async fn spilling(name: &str) -> Scene {
    let mut plan = Plan::named(name, &format!("{name}-b"));
    plan.terms.spill_bytes = 256 * 1024;
    plan.terms.head_bytes = 64 * 1024;
    Scene::of(plan).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_spilled_is_relayed_whole_and_leaves_no_file() {
    let mut scene = spilling("spilled").await;
    let letter = scene.letter_with("", &long_body(3_000_000));
    let before = (scene.house.path.commits(), scene.house.platter.counts());
    let id = relayed(&scene.send(&recipients(3), &letter).await);
    assert!(scene.house.platter.counts()[0] > before.1[0], "it was spilled");
    assert_eq!(scene.house.platter.counts()[1..], before.1[1..], "and nobody waited for the disk");
    let copies = scene.assert_copies(&letter, 1, "transactional");
    assert_eq!(copies[0].destination, recipients(3));
    until("the file to be gone", || scene.house.files() == 0).await;
    assert_eq!((scene.house.path.commits(), scene.held()), (before.0, 0), "no row for it");
    // Known by its octets in the file as well.
    assert_eq!(relayed(&scene.send(&recipients(3), &letter).await), id);
    scene.assert_copies(&letter, 1, "transactional");
    let mut other = letter.clone();
    *other.octets.iter_mut().rev().find(|octet| **octet == b'x').unwrap() = b'y';
    assert_ne!(relayed(&scene.send(&recipients(3), &other).await), id);
    assert_eq!(scene.copies(&letter).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_spilled_is_held_and_sent_whole() {
    let mut scene = spilling("spillheld").await;
    let letter = scene.letter_with("", &long_body(3_000_000));
    assert!(scene.house.faults.script([Fault::once(Kind::Unavailable), Fault::once(Kind::ResetBody)]));
    let id = scene.send_held(&letter).await;
    assert_eq!(scene.house.files(), 1);
    let (slot, entry) = scene.entry(id).await;
    assert!(slot.bytes == entry.bytes && entry.bytes > letter.octets.len() as u64, "our trace is added");
    scene.house.pass(A_WHILE);
    let (_, entry) = scene.deferred(id, 1).await;
    assert_eq!(entry.unknown, 1);
    scene.dispatched(id).await;
    scene.assert_copies(&letter, 1, "transactional");
    until("the file to be gone", || scene.house.files() == 0).await;

    // And with recipients that were served before it was held.
    let letter = scene.letter_with("X-Bulkhead-Stream: marketing\r\n", &long_body(3_000_000));
    assert!(scene.house.faults.script([Fault::once(Kind::Quota).to("r60@dest.example")]));
    let id = queued(&scene.send(&recipients(70), &letter).await);
    assert_eq!(scene.entry(id).await.1.progress.marks(), format!("{}{}", "t".repeat(50), ".".repeat(20)));
    scene.dispatched(id).await;
    let copies = scene.assert_copies(&letter, 2, "marketing");
    assert_eq!(copies.iter().map(|copy| copy.destination.len()).collect::<Vec<_>>(), [50, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_spilled_stays_in_memory() {
    let mut plan = Plan::named("spillnone", "spillnone-b");
    (plan.terms.spill_bytes, plan.terms.head_bytes) = (256 * 1024, 64 * 1024);
    plan.disk_reserve_bytes = u64::MAX / 2;
    let mut scene = Scene::of(plan).await;
    let before = scene.house.platter.counts();
    let letter = scene.letter_with("", &long_body(3_000_000));
    relayed(&scene.send(&recipients(1), &letter).await);
    scene.assert_copies(&letter, 1, "transactional");
    assert_eq!((scene.house.platter.counts(), scene.house.files()), (before, 0));
    // It is whether it can be held that makes the difference.
    assert!(scene.house.faults.script(outage()));
    let reply = scene.send(&recipients(1), &letter).await;
    assert!(reply.starts_with("250 2.0.0 "), "said again: {reply}");
    let letter = scene.letter_with("", &long_body(3_000_000));
    let reply = scene.send(&recipients(1), &letter).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_in_the_middle_of_a_spilled_message_leaves_no_file() {
    let mut scene = spilling("spillgone").await;
    let from = scene.from();
    let mut client = scene.another().await;
    client.envelope(&from, &["r0@dest.example"]).await;
    assert_eq!(code(&client.say("DATA").await), 354);
    let letter = scene.letter_with("", &long_body(2_000_000));
    client.write(&letter.octets).await;
    until("a part of it to be in a file", || scene.house.files() == 1).await;
    drop(client);
    until("the file to be gone", || scene.house.files() == 0).await;
    scene.assert_copies(&letter, 0, "transactional");
    assert_eq!(scene.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_spilled_is_a_452_and_the_session_goes_on() {
    let mut scene = spilling("spillfull").await;
    scene.house.platter.fill(true);
    let letter = scene.letter_with("", &long_body(3_000_000));
    let reply = scene.send(&recipients(1), &letter).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    scene.assert_copies(&letter, 0, "transactional");
    until("the file to be gone", || scene.house.files() == 0).await;
    let small = scene.letter();
    relayed(&scene.send(&recipients(1), &small).await);
    scene.house.platter.fill(false);
    relayed(&scene.send(&recipients(1), &letter).await);
    scene.assert_copies(&letter, 1, "transactional");
    assert_eq!(journal().lines("message_refused", "tenant", "spillfull").len(), 1);
}
