//! What may happen to tenant, stream, sender and recipient while a message is held.

use std::time::Duration;

use bulkhead::adapters::clock::MachineClock;
use bulkhead::dispatch::Hold;
use bulkhead::mail::{ConfigurationSet, MessageId, SesTenant, StreamId};
use bulkhead::outbox::Wait;
use bulkhead::policy::tenant::{FanOut, Handoff, SenderPattern, Stream, SuppressionReason, Tenant};
use bulkhead::sandbox::fault::{Fault, Kind};
use bulkhead::time::{Clock as _, Timestamp};

use crate::house::{Plan, SECRET};
use crate::scene::{A_WHILE, Letter, Scene, post, queued, recipients, relayed, until};
use crate::support::{code, journal};

fn by_outbox(tenant: &mut Tenant, stream: &str) {
    tenant.streams.get_mut(&StreamId::parse(stream).unwrap()).unwrap().handoff = Handoff::Queue;
}

/// A message that is held because of a quota, which is over after [`A_WHILE`].
async fn held(scene: &mut Scene, count: usize) -> (MessageId, Letter) {
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let id = queued(&scene.send(&recipients(count), &letter).await);
    assert_eq!(scene.entry(id).await.0.wait, Wait::Ready);
    (id, letter)
}

/// The other tenant has a message on its way by the outbox: the dispatcher has looked at everything
/// since, and whatever it had to send it has begun to.
async fn look_around(scene: &Scene) {
    let name = format!("{}-b", scene.name);
    let mut client = scene.house.login(&format!("{name}-app"), SECRET).await;
    for _ in 0..2 {
        let octets = format!("From: app@{name}.example\r\nSubject: beside\r\n\r\nbody\r\n").into_bytes();
        let letter = Letter { octets, subject: "beside".into() };
        let reply = post(&mut client, &format!("app@{name}.example"), &recipients(1), &letter).await;
        let id = queued(&reply).to_string();
        journal().wait("message_dispatched", "message", &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_by_the_outbox_is_held_first_and_goes_by_itself() {
    let mut scene = Scene::named("handoff").await;
    scene.house.with(|tenants| by_outbox(&mut tenants[0], "transactional"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        let letter = scene.letter();
        ids.push((queued(&scene.send(&recipients(2), &letter).await), letter));
    }
    for (id, letter) in &ids {
        let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
        assert_eq!((&line["sent"], &line["attempts"]), (&2.into(), &1.into()), "{line}");
        scene.assert_copies(letter, 2, "transactional");
        let verdict = scene.verdict(*id);
        assert_eq!((&verdict["cause"], verdict.get("sent")), (&"handoff".into(), None), "{verdict}");
    }
    assert_eq!(scene.held(), 0);
    let direct = scene.letter_with("X-Bulkhead-Stream: marketing\r\n", b"campaign\r\n");
    relayed(&scene.send(&recipients(1), &direct).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_waits_and_goes_when_it_is_resumed() {
    let mut scene = Scene::named("paused").await;
    let stream = StreamId::parse("transactional").unwrap();
    type Change = fn(&mut Vec<Tenant>, &StreamId);
    let changes: [(&str, Change); 4] = [
        ("tenant_paused", |tenants, _| tenants[0].pause = Some(a_pause())),
        ("stream_paused", |tenants, stream| tenants[0].streams.get_mut(stream).unwrap().pause = Some(a_pause())),
        ("tenant_gone", |tenants, _| drop(tenants.remove(0))),
        ("stream_gone", |tenants, stream| drop(tenants[0].streams.remove(stream))),
    ];
    for (reason, change) in changes {
        let (id, letter) = held(&mut scene, 1).await;
        scene.house.with(|tenants| {
            by_outbox(&mut tenants[1], "transactional");
            change(tenants, &stream);
        });
        let why = |scene: &Scene| scene.dispatch().why(&scene.lane("transactional")).map(|(why, _)| why);
        until(reason, || why(&scene).as_deref() == Some(reason)).await;
        scene.house.pass(A_WHILE);
        look_around(&scene).await;
        let (slot, entry) = scene.entry(id).await;
        assert_eq!((slot.wait, entry.attempts), (Wait::Ready, 0), "{reason}: it keeps its place");
        scene.assert_copies(&letter, 0, "transactional");
        scene.house.restore();
        let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
        assert_eq!((&line["sent"], &line["attempts"]), (&1.into(), &1.into()), "{reason}: {line}");
        scene.assert_copies(&letter, 1, "transactional");
        // Removing a tenant or a stream ends its clients' sessions.
        scene.client = scene.another().await;
    }
}

fn a_pause() -> bulkhead::policy::tenant::Pause {
    bulkhead::policy::tenant::Pause { at: crate::support::long_ago(), actor: "test".into(), reason: "a test".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_was_taken_away_is_not_sent_as() {
    let mut scene = Scene::named("moved").await;
    let (id, letter) = held(&mut scene, 2).await;
    // It is the other tenant's now.
    scene.house.with(|tenants| {
        tenants[0].senders = vec![SenderPattern::parse("elsewhere.example").unwrap()];
        tenants[1].senders.push(SenderPattern::parse("moved.example").unwrap());
    });
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"], &line["attempts"]), (&0.into(), &2.into(), &1.into()), "{line}");
    let told = journal().lines("recipient_refused", "message", &id.to_string());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|line| line["reason"].as_str().unwrap().contains("sender")), "{told:?}");
    scene.assert_copies(&letter, 0, "transactional");
    assert_eq!(scene.held(), 0);
    until("the body file to be gone", || scene.house.files() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_suppressed_meanwhile_is_not_sent_to() {
    let mut scene = Scene::named("bounced").await;
    let (id, letter) = held(&mut scene, 3).await;
    scene.house.suppress("bounced", "r1@dest.example", SuppressionReason::Bounce).await;
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"]), (&2.into(), &1.into()), "{line}");
    let served: Vec<String> = scene.copies(&letter).iter().flat_map(|copy| copy.destination.clone()).collect();
    assert!(!served.contains(&"r1@dest.example".into()) && served.len() == 2, "{served:?}");
    let told = journal().lines("recipient_refused", "message", &id.to_string());
    assert_eq!((told.len(), &told[0]["reason"]), (1, &"recipient_suppressed".into()), "{told:?}");

    // Everybody.
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let id = scene.send_held(&letter).await;
    scene.house.suppress("bounced", "r0@dest.example", SuppressionReason::Manual).await;
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"]), (&0.into(), &1.into()), "{line}");
    scene.assert_copies(&letter, 0, "transactional");
    // No call was made; the next who asks is the probe still.
    let after = scene.letter();
    let to = ["r7@dest.example".to_owned()];
    let id = queued(&scene.send(&to, &after).await);
    assert_eq!(scene.verdict(id)["cause"], "daily_quota");
    scene.emptied().await;
    scene.assert_copies(&after, 1, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_held_by_hand_waits_until_it_is_released() {
    let mut scene = Scene::named("byhand").await;
    scene.house.with(|tenants| by_outbox(&mut tenants[1], "transactional"));
    let lane = scene.lane("transactional");
    scene.dispatch().hold_lane(&lane, Hold { reason: "looked at".into(), until: None });
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    assert_eq!(scene.verdict(id)["cause"], "standing");
    assert_eq!(scene.dispatch().why(&lane).unwrap().0, "looked at");
    let other = scene.letter_with("X-Bulkhead-Stream: marketing\r\n", b"campaign\r\n");
    relayed(&scene.send(&recipients(1), &other).await);
    scene.house.pass(A_WHILE);
    look_around(&scene).await;
    assert_eq!(scene.entry(id).await.1.attempts, 0);
    scene.assert_copies(&letter, 0, "transactional");
    scene.dispatch().release_lane(&lane);
    journal().wait("message_dispatched", "message", &id.to_string()).await;
    scene.assert_copies(&letter, 1, "transactional");
    assert_eq!((scene.lines("lane_held").len(), scene.lines("lane_released").len()), (1, 1));
    // Once more releases nothing.
    scene.dispatch().release_lane(&lane);
    assert_eq!(scene.lines("lane_released").len(), 1);
    relayed(&scene.send(&recipients(1), &scene_letter(&scene)).await);
}

fn scene_letter(scene: &Scene) -> Letter {
    let octets = format!("From: {}\r\nSubject: beside\r\n\r\nbody\r\n", scene.from()).into_bytes();
    Letter { octets, subject: "beside".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_held_until_a_moment_goes_then() {
    let mut scene = Scene::named("untilthen").await;
    scene.house.with(|tenants| by_outbox(&mut tenants[1], "transactional"));
    let lane = scene.lane("transactional");
    let until = scene.house.now().plus(Duration::from_secs(3600));
    scene.dispatch().hold_lane(&lane, Hold { reason: "an hour".into(), until: Some(until) });
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.house.pass(Duration::from_secs(1800));
    look_around(&scene).await;
    scene.assert_copies(&letter, 0, "transactional");
    assert!(scene.lines("lane_released").is_empty());
    scene.house.pass(Duration::from_secs(1801));
    journal().wait("message_dispatched", "message", &id.to_string()).await;
    scene.assert_copies(&letter, 1, "transactional");
    assert_eq!(scene.lines("lane_released").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_over_is_told_once_whatever_else_the_lane_waits_for() {
    let mut scene = Scene::named("twofold").await;
    scene.house.with(|tenants| by_outbox(&mut tenants[1], "transactional"));
    let lane = scene.lane("transactional");
    let moment = scene.house.now().plus(Duration::from_secs(600));
    scene.dispatch().hold_lane(&lane, Hold { reason: "ten minutes".into(), until: Some(moment) });
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.house.with(|tenants| {
        by_outbox(&mut tenants[1], "transactional");
        tenants[0].pause = Some(a_pause());
    });
    scene.house.pass(Duration::from_secs(601));
    until("the hold to be over", || !scene.lines("lane_released").is_empty()).await;
    look_around(&scene).await;
    look_around(&scene).await;
    assert_eq!(scene.lines("lane_released").len(), 1, "told once");
    assert_eq!(scene.dispatch().why(&lane).unwrap().0, "tenant_paused", "and what it waits for now");
    scene.assert_copies(&letter, 0, "transactional");
    scene.house.restore();
    journal().wait("message_dispatched", "message", &id.to_string()).await;
    let reply = scene.send(&recipients(1), &scene_letter(&scene)).await;
    assert_eq!(code(&reply), 250);
    relayed(&reply);
}

/// A message leaves by what its stream says when its turn comes, under the tags it was accepted with.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_message_goes_by_what_its_stream_says_by_then() {
    let mut scene = Scene::named("changed").await;
    let (id, letter) = held(&mut scene, 3).await;
    scene.house.with(|tenants| {
        tenants[0].ses_tenant = Some(SesTenant::parse("changed-at-ses").unwrap());
        let stream = tenants[0].streams.get_mut(&StreamId::parse("transactional").unwrap()).unwrap();
        stream.fan_out = FanOut::Batch;
        stream.configuration_set = ConfigurationSet::parse("changed-anew").unwrap();
    });
    scene.dispatched(id).await;
    let [copy] = scene.copies(&letter).try_into().unwrap();
    assert_eq!((copy.destination.clone(), copy.tag("stream")), (recipients(3), Some("transactional")));
    assert_eq!(copy.configuration_set.as_deref(), Some("changed-anew"));
    assert_eq!(copy.tenant_name.as_deref(), Some("changed-at-ses"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_leaves_no_room_to_wait_says_which_it_is_and_until_when() {
    type Limit = fn(&mut Tenant);
    let limits: [(&str, Limit, &str, u64); 4] = [
        ("capday", |tenant| of_stream(tenant).daily_recipients = Some(1), "daily_recipients", 86_400),
        ("captday", |tenant| tenant.daily_recipients = Some(1), "daily_recipients", 86_400),
        ("caprate", |tenant| of_stream(tenant).rate_per_second = Some(0.01), "rate_per_second of this stream", 100),
        ("captrate", |tenant| tenant.rate_per_second = Some(0.01), "rate_per_second of this tenant", 100),
    ];
    for (name, limit, word, most) in limits {
        let mut plan = Plan::named(name, &format!("{name}-b"));
        plan.bounds.messages_per_tenant = 1;
        let mut scene = Scene::of(plan).await;
        scene.house.with(|tenants| {
            by_outbox(&mut tenants[1], "transactional");
            limit(&mut tenants[0]);
        });
        look_around(&scene).await;
        let letters = [scene.letter(), scene.letter(), scene.letter()];
        relayed(&scene.send(&recipients(1), &letters[0]).await);
        queued(&scene.send(&recipients(1), &letters[1]).await);
        let before = MachineClock.now();
        let reply = scene.send(&recipients(1), &letters[2]).await;
        assert!(reply.starts_with("451 4.7.1 ") && reply.contains(word), "{name}: {reply}");
        let (_, moment) = reply.trim_end().rsplit_once("; try after ").unwrap();
        let until = Timestamp::parse_rfc3339(moment).unwrap();
        assert!(before < until && until <= before.plus(Duration::from_secs(most + 60)), "{name}: {reply}");
        let verdict = scene.lines("message_refused").pop().unwrap();
        assert_eq!((&verdict["code"], &verdict["enhanced"]), (&451.into(), &"4.7.1".into()), "{name}: {verdict}");
        scene.assert_copies(&letters[2], 0, "transactional");
        // A limit of one tenant is none of another's.
        look_around(&scene).await;
    }
}

fn of_stream(tenant: &mut Tenant) -> &mut Stream {
    tenant.streams.get_mut(&StreamId::parse("transactional").unwrap()).unwrap()
}
