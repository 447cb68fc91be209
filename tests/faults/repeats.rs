//! The duplicate window: a client that sends the same again hears the same, and SES gets it once.

use std::time::Duration;

use bulkhead::sandbox::fault::{Fault, Kind};

use crate::house::{Plan, SECRET};
use crate::scene::{Letter, Scene, begin, post, queued, recipients, relayed, until};
use crate::support::code;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_again_after_it_was_relayed_has_the_same_id() {
    let mut scene = Scene::named("again").await;
    let letter = scene.letter();
    let first = relayed(&scene.send(&recipients(1), &letter).await);
    let again = relayed(&scene.send(&recipients(1), &letter).await);
    assert_eq!(first, again);
    scene.assert_copies(&letter, 1, "transactional");
    let lines = scene.lines("message_relayed");
    assert_eq!((lines.len(), &lines[1]["repeat_of"]), (2, &lines[0]["message"]), "{lines:?}");

    // With several recipients, whatever their order.
    let letter = scene.letter();
    let first = scene.send(&recipients(3), &letter).await;
    let mut turned = recipients(3);
    turned.reverse();
    assert_eq!(scene.send(&turned, &letter).await, first);
    scene.assert_copies(&letter, 3, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_again_while_it_is_held_and_after_is_held_once() {
    let mut scene = Scene::named("heldagain").await;
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let id = scene.send_held(&letter).await;
    assert_eq!(scene.send_held(&letter).await, id);
    assert_eq!(scene.held(), 1);
    let lines = scene.lines("message_queued");
    assert_eq!((lines.len(), &lines[1]["repeat_of"]), (2, &id.to_string().into()), "{lines:?}");
    scene.house.pass(Duration::from_secs(599));
    scene.house.dispatch.try_now(None);
    scene.emptied().await;
    assert_eq!(scene.send_held(&letter).await, id, "by the first answer, although SES has it now");
    scene.assert_copies(&letter, 1, "transactional");
    assert_eq!(scene.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_while_the_first_is_under_way_waits_for_its_answer() {
    let mut scene = Scene::named("meanwhile").await;
    let (from, mut client) = (scene.from(), scene.another().await);
    for kind in [Kind::Slow, Kind::Quota] {
        let letter = scene.letter();
        assert!(scene.house.faults.script([Fault { delay_ms: 1500, ..Fault::once(kind) }]));
        begin(&mut client, &from, &recipients(1), &letter).await;
        until("the call to be under way", || scene.house.faults.waiting().is_empty()).await;
        let second = scene.send(&recipients(1), &letter).await;
        assert_eq!(client.reply().await, second);
        if kind == Kind::Quota {
            queued(&second);
            assert_eq!(scene.held(), 1);
            scene.house.pass(Duration::from_secs(700));
            scene.emptied().await;
        }
        scene.assert_copies(&letter, 1, "transactional");
    }

    // What was refused is no answer for another: the second goes its own way.
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault { delay_ms: 1500, ..Fault::once(Kind::Reject) }]));
    begin(&mut client, &from, &recipients(1), &letter).await;
    until("the call to be under way", || scene.house.faults.waiting().is_empty()).await;
    relayed(&scene.send(&recipients(1), &letter).await);
    assert_eq!(code(&client.reply().await), 554);
    scene.assert_copies(&letter, 1, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_in_anything_is_sent() {
    let mut scene = Scene::named("differs").await;
    let letter = scene.letter();
    let first = relayed(&scene.send(&recipients(1), &letter).await);
    let mut ids = vec![first];

    // Another body, Subject and Message-ID being the same.
    let other = Letter { octets: [&letter.octets[..], b"more\r\n"].concat(), ..letter.clone() };
    ids.push(relayed(&scene.send(&recipients(1), &other).await));
    // Other recipients.
    let to = ["r9@dest.example".to_owned()];
    ids.push(relayed(&scene.send(&to, &letter).await));
    assert!(scene.send(&recipients(2), &letter).await.ends_with(" 2 recipients\r\n"));
    // Another reverse-path.
    for from in ["other@differs.example", ""] {
        ids.push(relayed(&post(&mut scene.client, from, &recipients(1), &letter).await));
    }
    // No Message-ID: two alike may be meant.
    let text = String::from_utf8_lossy(&letter.octets).into_owned();
    let line = text.lines().find(|line| line.starts_with("Message-ID:")).unwrap();
    let without = Letter { octets: text.replace(&format!("{line}\r\n"), "").into_bytes(), ..letter.clone() };
    for _ in 0..2 {
        ids.push(relayed(&scene.send(&recipients(1), &without).await));
    }
    assert_eq!(scene.copies(&letter).len(), ids.len() + 2);

    // Another credential of the same tenant.
    let from = "app@differs-b.example";
    let octets = text.replace("app@differs.example", from).into_bytes();
    let theirs = Letter { octets, ..letter.clone() };
    for username in ["differs-b-app", "differs-b-passing"] {
        let mut client = scene.house.login(username, SECRET).await;
        let id = relayed(&post(&mut client, from, &recipients(1), &theirs).await);
        assert_eq!(relayed(&post(&mut client, from, &recipients(1), &theirs).await), id);
        ids.push(id);
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "each is a message of its own");
    assert_eq!(scene.copies(&letter).len(), count + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_and_without_one_the_same_is_sent_again() {
    let mut plan = Plan::named("window", "window-b");
    plan.dispatch.dedupe_window = Duration::from_secs(600);
    let mut scene = Scene::of(plan).await;
    let letter = scene.letter();
    let first = relayed(&scene.send(&recipients(1), &letter).await);
    scene.house.pass(Duration::from_secs(590));
    assert_eq!(relayed(&scene.send(&recipients(1), &letter).await), first);
    scene.house.pass(Duration::from_secs(20));
    let second = relayed(&scene.send(&recipients(1), &letter).await);
    assert_ne!(first, second, "the window counts from the first answer");
    scene.assert_copies(&letter, 2, "transactional");
    assert_eq!(relayed(&scene.send(&recipients(1), &letter).await), second);

    scene.house.with(|tenants| {
        for stream in tenants[0].streams.values_mut() {
            stream.dedupe = false;
        }
    });
    assert_ne!(relayed(&scene.send(&recipients(1), &letter).await), second, "the stream does not ask for it");
    scene.assert_copies(&letter, 3, "transactional");
}

/// Two tenants of one domain send the same, octet by octet: each its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_of_another_tenant_is_a_message_of_its_own() {
    let mut scene = Scene::named("samewords").await;
    let mut theirs = scene.house.login("samewords-b-app", SECRET).await;
    let from = "app@vendor.example";
    let octets = format!("From: {from}\r\nMessage-ID: <1@vendor.example>\r\nSubject: letter-1\r\n\r\nbody\r\n");
    let letter = Letter { octets: octets.into_bytes(), subject: "letter-1".into() };
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let first = queued(&post(&mut scene.client, from, &recipients(1), &letter).await);
    let second = queued(&post(&mut theirs, from, &recipients(1), &letter).await);
    assert_ne!(first, second);
    for id in [first, second] {
        scene.dispatched(id).await;
    }
    let owners: Vec<_> = scene.copies(&letter).iter().map(|copy| copy.tag("tenant").unwrap().to_owned()).collect();
    assert_eq!(owners.len(), 2, "{owners:?}");
    assert!(owners.contains(&"samewords".into()) && owners.contains(&"samewords-b".into()), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_and_reached_nobody_is_sent_when_it_comes_again() {
    let mut plan = Plan::named("givenup", "givenup-b");
    plan.dispatch.dedupe_window = Duration::from_secs(24 * 3600);
    let mut scene = Scene::of(plan).await;
    // Discarded by hand.
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let id = scene.send_held(&letter).await;
    assert_eq!(scene.send_held(&letter).await, id, "it is held still");
    scene.dispatch().outbox().discard(id).await.unwrap();
    // The quota's breaker stands open still, so it is held once more, as a message of its own.
    let again = scene.send_held(&letter).await;
    assert_ne!(again, id);
    scene.house.dispatch.try_now(None);
    scene.dispatched(again).await;
    scene.assert_copies(&letter, 1, "transactional");

    // Refused by SES after its 250.
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault::once(Kind::Throttle), Fault::once(Kind::Reject)]));
    let id = scene.send_held(&letter).await;
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"]), (&0.into(), &1.into()), "{line}");
    relayed(&scene.send(&recipients(1), &letter).await);
    scene.assert_copies(&letter, 1, "transactional");

    // Where one of them has it, whoever sends again hears the first answer.
    let letter = scene.letter();
    let second = Fault::once(Kind::Quota).to("r1@dest.example");
    assert!(scene.house.faults.script([second]));
    let first = scene.send(&recipients(2), &letter).await;
    scene.dispatch().outbox().discard(queued(&first)).await.unwrap();
    assert_eq!(scene.send(&recipients(2), &letter).await, first);
    scene.assert_copies(&letter, 1, "transactional");
}
