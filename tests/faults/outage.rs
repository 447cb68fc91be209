//! SES is down, or does not let us in: nothing is lost, and few calls find out.

use std::time::{Duration, Instant};

use bulkhead::mail::MessageId;
use bulkhead::outbox::Cause;
use bulkhead::sandbox::fault::{Fault, Kind};

use crate::house::{House, Plan, SECRET};
use crate::scene::{A_WHILE, Letter, Scene, begin, post, queued, recipients, relayed, until};
use crate::support::journal;

/// A scene with no connection to SES yet: a call by one that breaks would be unknown.
async fn unconnected(name: &str) -> Scene {
    let mut plan = Plan::named(name, &format!("{name}-b"));
    // So nobody asks for it.
    plan.dispatch.max_send_rate = Some(100_000.0);
    Scene::of(plan).await
}

/// Messages that were offered to SES when they came in: SES, or the way to it, had words for them.
fn offered(scene: &Scene) -> usize {
    scene.lines("message_queued").iter().filter(|line| line.get("reason").is_some()).count()
}

/// Attempts at held messages that ended without an end.
fn deferred(scene: &Scene) -> usize {
    scene.lines("message_deferred").len()
}

/// Messages to as many recipients: those to one wait for each other.
async fn fill(scene: &mut Scene, count: usize) -> Vec<(MessageId, Letter)> {
    let mut held = Vec::with_capacity(count);
    for to in recipients(count) {
        let letter = scene.letter();
        held.push((queued(&scene.send(&[to], &letter).await), letter));
    }
    held
}

/// Sends as the other tenant of the house.
async fn as_other(scene: &Scene, letter: &Letter) -> String {
    let name = format!("{}-b", scene.name);
    let mut client = scene.house.login(&format!("{name}-app"), SECRET).await;
    let octets = String::from_utf8_lossy(&letter.octets).replace(&scene.from(), &format!("app@{name}.example"));
    let letter = Letter { octets: octets.into_bytes(), ..letter.clone() };
    post(&mut client, &format!("app@{name}.example"), &recipients(1), &letter).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_ses_is_down_all_is_held_and_one_message_at_a_time_finds_out() {
    let mut scene = unconnected("down").await;
    let scope = "down/transactional";
    scene.house.door.close().unwrap();
    let held = fill(&mut scene, 40).await;
    assert_eq!(offered(&scene), 3, "three in a row, and it is left alone");
    for (number, (id, _)) in held.iter().enumerate() {
        let (slot, entry) = scene.entry(*id).await;
        assert_eq!((slot.cause, entry.attempts, entry.unknown), (Cause::Network, 0, 0), "nothing has left");
        assert_eq!(entry.words.is_empty(), number >= 3, "{}", entry.words);
    }
    assert_eq!(scene.dispatch().why(&scene.lane("transactional")).unwrap().0, "network");
    assert_eq!(journal().lines("breaker_opened", "scope", scope).len(), 1);
    assert_eq!(deferred(&scene), 0);

    for probes in 1..=3 {
        scene.house.pass(A_WHILE);
        until("a probe", || deferred(&scene) == probes).await;
        until("its breaker", || journal().lines("breaker_opened", "scope", scope).len() == 1 + probes).await;
        let last = journal().lines("breaker_opened", "scope", scope).pop().unwrap();
        assert_eq!(last["attempts"], 1 + probes, "{last}");
    }
    assert_eq!((scene.held(), scene.house.inbox.received()), (40, 0));
    let (_, first) = scene.entry(held[0].0).await;
    assert_eq!(first.attempts, 3, "who waits longest finds out");
    assert_eq!(scene.entry(held[39].0).await.1.attempts, 0);

    scene.house.door.open().unwrap();
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    for (_, letter) in &held {
        scene.assert_copies(letter, 1, "transactional");
    }
    assert_eq!(deferred(&scene), 3, "no call failed but the probes");
    assert_eq!(journal().lines("breaker_closed", "scope", scope).len(), 1);
    until("the body files to be gone", || scene.house.files() == 0).await;
    let letter = scene.letter();
    relayed(&scene.send(&recipients(1), &letter).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_several_lanes_meet_the_outage_the_account_is_left_alone() {
    let mut scene = unconnected("alldown").await;
    scene.house.door.close().unwrap();
    let held = fill(&mut scene, 5).await;
    let theirs = scene.letter();
    queued(&as_other(&scene, &theirs).await);
    let marketing = scene.letter_with("X-Bulkhead-Stream: marketing\r\n", b"campaign\r\n");
    let id = scene.send_held(&marketing).await;
    let (_, entry) = scene.entry(id).await;
    assert_eq!((entry.cause, entry.words.as_str()), (Cause::Network, ""), "it was not even offered");
    scene.house.pass(A_WHILE);
    let all = |scene: &Scene| deferred(scene) + journal().lines("message_deferred", "tenant", "alldown-b").len();
    until("a probe", || all(&scene) > 0).await;

    scene.house.door.open().unwrap();
    for _ in 0..3 {
        scene.house.pass(A_WHILE);
    }
    scene.emptied().await;
    assert!(all(&scene) <= 3, "one probe a turn and one for each lane at the most: {}", all(&scene));
    for (_, letter) in &held {
        scene.assert_copies(letter, 1, "transactional");
    }
    assert_eq!(scene.copies(&theirs).len(), 1);
    scene.assert_copies(&marketing, 1, "marketing");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_under_calls_leave_each_message_once_or_counted_as_unknown() {
    let mut scene = unconnected("cut").await;
    let (from, mut clients) = (scene.from(), Vec::new());
    assert!(scene.house.faults.script([Fault::times(Kind::Hang, 4)]));
    let mut letters = Vec::new();
    for _ in 0..4 {
        let (letter, mut client) = (scene.letter(), scene.another().await);
        begin(&mut client, &from, &recipients(1), &letter).await;
        clients.push(client);
        letters.push(letter);
    }
    until("the calls to be under way", || scene.house.faults.waiting().is_empty()).await;
    scene.house.door.close().unwrap();
    for client in &mut clients {
        let id = queued(&client.reply().await);
        let (slot, entry) = scene.entry(id).await;
        assert_eq!((slot.cause, entry.unknown), (Cause::Unknown, 1), "{}", entry.words);
    }
    assert_eq!(scene.lines("outcome_unknown").len(), 4);
    scene.house.door.open().unwrap();
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    for letter in &letters {
        scene.assert_copies(letter, 1, "transactional");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_lane_lacks_delays_no_other() {
    let mut scene = Scene::named("lacking").await;
    assert!(scene.house.faults.script([Fault::lasting(Kind::MissingSet).with_set("lacking-transactional")]));
    let held = fill(&mut scene, 10).await;
    assert_eq!(offered(&scene), 1, "it is believed at once");
    for _ in 0..5 {
        let letter = scene.letter_with("X-Bulkhead-Stream: marketing\r\n", b"campaign\r\n");
        relayed(&scene.send(&recipients(1), &letter).await);
        scene.assert_copies(&letter, 1, "marketing");
        relayed(&as_other(&scene, &scene_letter(&scene)).await);
    }
    scene.house.pass(A_WHILE);
    until("a probe", || deferred(&scene) == 1).await;
    assert_eq!((scene.held(), scene.dispatch().why(&scene.lane("marketing"))), (10, None));
    let opened = journal().lines("breaker_opened", "scope", "lacking/transactional");
    assert!(opened.iter().all(|line| line["cause"] == "configuration_set_missing"), "{opened:?}");

    scene.house.faults.clear();
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    for (_, letter) in &held {
        scene.assert_copies(letter, 1, "transactional");
    }
    assert_eq!(deferred(&scene), 1);
    assert_eq!(journal().lines("breaker_closed", "scope", "lacking/transactional").len(), 1);
}

/// A letter of no account, for who sends as somebody else.
fn scene_letter(scene: &Scene) -> Letter {
    let octets = format!("From: {}\r\nSubject: beside\r\n\r\nbody\r\n", scene.from()).into_bytes();
    Letter { octets, subject: "beside".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_nobodys_hold_everybody_with_one_call_in_all() {
    let mut scene = Scene::named("nobody").await;
    assert!(scene.house.faults.script([Fault::lasting(Kind::WrongCredentials)]));
    let held = fill(&mut scene, 5).await;
    let theirs = scene.letter();
    queued(&as_other(&scene, &theirs).await);
    let told = journal().lines("message_queued", "tenant", "nobody-b").pop().unwrap();
    assert_eq!((offered(&scene), &told["cause"], told.get("reason")), (1, &"credentials".into(), None), "{told}");
    assert_eq!(scene.lines("upstream_alarm").len(), 1, "and it is told once");
    scene.house.faults.clear();
    // By hand, without waiting: the operator has mended it.
    scene.dispatch().try_now(None);
    scene.emptied().await;
    for (_, letter) in &held {
        scene.assert_copies(letter, 1, "transactional");
    }
    assert_eq!(scene.copies(&theirs).len(), 1);
}

/// While a backlog goes out, what comes in waits behind it rather than overtake it.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_comes_in_goes_behind_what_its_lane_has_waiting() {
    let mut scene = unconnected("behind").await;
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let held = fill(&mut scene, 3).await;
    assert!(scene.house.faults.script([Fault::lasting(Kind::Hang)]));
    scene.house.pass(A_WHILE);
    let active = |house: &House| house.dispatch.outbox().backlog().active;
    until("the probe to be under way", || active(&scene.house) == 1).await;
    let letter = scene.letter();
    let late = scene.send_held(&letter).await;
    assert_eq!(scene.verdict(late)["cause"], "daily_quota", "nothing is known to be over yet");
    scene.house.faults.clear();
    // The call that hangs breaks with its connection, and is unknown.
    scene.house.door.close().unwrap();
    scene.house.door.open().unwrap();
    let (_, entry) = scene.deferred(held[0].0, 1).await;
    assert_eq!((entry.cause, entry.unknown), (Cause::Unknown, 1));
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    for (_, letter) in held.iter().chain([&(late, letter)]) {
        scene.assert_copies(letter, 1, "transactional");
    }
}

/// The probe's copy finds no room: no call was made, so the next try is the probe.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_makes_no_call_keeps_nobody_waiting() {
    let mut scene = Scene::named("noroom").await;
    let (from, mut client) = (scene.from(), scene.another().await);
    let stuck = scene.letter_with("X-Bulkhead-Stream: marketing\r\n", b"campaign\r\n");
    assert!(scene.house.faults.script([Fault::once(Kind::Hang)]));
    begin(&mut client, &from, &recipients(1), &stuck).await;
    until("the call to be under way", || scene.house.faults.waiting().is_empty()).await;
    assert!(scene.house.faults.script([Fault::once(Kind::Throttle)]));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    // All there is for copies is taken by the call that hangs.
    scene.dispatch().resize(1024, Duration::ZERO, 8);
    scene.house.pass(Duration::from_secs(10));
    let (_, entry) = scene.deferred(id, 1).await;
    assert_eq!((entry.cause, entry.words.contains("limits.call_bytes")), (Cause::Busy, true), "{}", entry.words);
    scene.dispatch().resize(1 << 30, A_WHILE, 8);
    scene.house.pass(Duration::from_secs(10));
    journal().wait("message_dispatched", "message", &id.to_string()).await;
    scene.assert_copies(&letter, 1, "transactional");
}

/// Many clients at once: no more calls than were under way when it was found out.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_in_an_outage_makes_few_calls_and_loses_nothing() {
    const CLIENTS: usize = 12;
    const EACH: usize = 10;
    let mut scene = unconnected("crowd").await;
    let from = scene.from();
    scene.house.door.close().unwrap();
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..CLIENTS {
        let letters: Vec<Letter> = (0..EACH).map(|_| scene.letter()).collect();
        let (mut client, from) = (scene.another().await, from.clone());
        tasks.push(tokio::spawn(async move {
            for letter in &letters {
                queued(&post(&mut client, &from, &recipients(1), letter).await);
            }
            letters
        }));
    }
    let mut letters = Vec::new();
    for task in tasks {
        letters.extend(task.await.unwrap());
    }
    assert_eq!(scene.held(), CLIENTS * EACH);
    // Those that began before the third failure was told, and on a slow machine a probe now and then.
    // There the first to be held may fail again before a third client comes.
    let (tried, again) = (offered(&scene) + deferred(&scene), deferred(&scene));
    let most = 3 + CLIENTS + began.elapsed().as_secs() as usize;
    assert!((3..most).contains(&tried), "{tried} of {most}, {again} of them again");
    scene.house.door.open().unwrap();
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    assert_eq!((scene.house.inbox.received(), deferred(&scene)), ((CLIENTS * EACH) as u64, again));
    for letter in &letters {
        scene.assert_copies(letter, 1, "transactional");
    }
}

/// What one connection sends to one recipient waits for what it sent before, and comes in order.
#[tokio::test(flavor = "multi_thread")]
async fn mail_of_one_connection_to_one_recipient_comes_in_order() {
    let mut scene = unconnected("inorder").await;
    scene.house.door.close().unwrap();
    let mut letters = Vec::new();
    for number in 0..10 {
        let letter = scene.letter();
        let id = scene.send_held(&letter).await;
        assert_eq!(scene.verdict(id)["cause"], if number == 0 { "network" } else { "backlog" });
        letters.push(letter);
    }
    assert_eq!(offered(&scene), 1);
    scene.house.door.open().unwrap();
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    let got = scene.house.inbox.all();
    assert_eq!(got.len(), letters.len());
    for (got, letter) in got.iter().zip(&letters) {
        assert!(got.raw == scene.assert_copies(letter, 1, "transactional")[0].raw, "{}", letter.subject);
    }
}
