//! Answers that come late or never: the data deadline, the time of a call, a drain.

use std::time::Duration;

use bulkhead::mail::MessageId;
use bulkhead::outbox::{Cause, Wait};
use bulkhead::sandbox::fault::{Fault, Kind};
use serde_json::json;

use crate::house::Plan;
use crate::scene::{A_WHILE, Scene, begin, queued, recipients, relayed, until};
use crate::support::journal;

/// Far longer than [`DEADLINE`], so that a slow machine makes no answer early.
const LATE: u64 = 2500;
const DEADLINE: Duration = Duration::from_millis(100);

fn late(kind: Kind) -> Fault {
    Fault { delay_ms: LATE, ..Fault::once(kind) }
}

/// A scene whose clients hear something within [`DEADLINE`].
async fn hasty(name: &str) -> Scene {
    let mut plan = Plan::named(name, &format!("{name}-b"));
    plan.limits.data_deadline = DEADLINE;
    Scene::of(plan).await
}

/// It is held while its call goes on.
async fn assert_under_way(scene: &Scene, id: MessageId, cause: Cause) {
    let (slot, entry) = scene.entry(id).await;
    assert_eq!((slot.wait, slot.cause, entry.cause), (Wait::Active, cause, cause));
    assert_eq!((entry.attempts, entry.unknown, entry.leased), (1, 0, true), "the call under way is an attempt");
    let verdict = scene.verdict(id);
    assert_eq!((&verdict["event"], &verdict["cause"]), (&"message_queued".into(), &cause.word().into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_before_the_deadline_is_the_reply() {
    let mut scene = Scene::named("slow").await;
    let letter = scene.letter();
    let before = (scene.house.path.commits(), scene.house.platter.counts());
    assert!(scene.house.faults.script([Fault { delay_ms: 300, ..Fault::once(Kind::Slow) }]));
    let id = relayed(&scene.send(&recipients(1), &letter).await);
    let copies = scene.assert_copies(&letter, 1, "transactional");
    assert_eq!((copies[0].id.as_str(), scene.held()), (id.as_str(), 0));
    assert_eq!((scene.house.path.commits(), scene.house.platter.counts()), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_after_the_deadline_still_counts() {
    let mut scene = hasty("slower").await;
    let letter = scene.letter();
    assert!(scene.house.faults.script([late(Kind::Slow)]));
    let id = scene.send_held(&letter).await;
    assert_under_way(&scene, id, Cause::Deadline).await;
    scene.assert_copies(&letter, 0, "transactional");

    let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
    assert_eq!((&line["sent"], &line["attempts"], &line["unknown"]), (&1.into(), &1.into(), &0.into()), "{line}");
    let copies = scene.assert_copies(&letter, 1, "transactional");
    let told = journal().lines("recipient_relayed", "message", &id.to_string());
    assert_eq!((told.len(), &told[0]["ses_id"]), (1, &copies[0].id.as_str().into()));
    assert_eq!(scene.held(), 0);
    until("the body file to be gone", || scene.house.files() == 0).await;
    assert!(scene.lines("outcome_unknown").is_empty() && scene.lines("message_deferred").is_empty());

    // Nor does it go again later.
    scene.house.pass(A_WHILE);
    let after = scene.letter();
    assert!(scene.send(&recipients(1), &after).await.starts_with("250 "));
    scene.assert_copies(&letter, 1, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_refusal_ends_a_message_and_a_late_throttle_does_not() {
    let mut scene = hasty("lateno").await;
    let letter = scene.letter();
    assert!(scene.house.faults.script([late(Kind::Reject)]));
    let id = scene.send_held(&letter).await;
    assert_under_way(&scene, id, Cause::Deadline).await;
    let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
    assert_eq!((&line["sent"], &line["refused"], &line["blame"]), (&0.into(), &1.into(), &"upstream".into()), "{line}");
    let told = journal().lines("recipient_refused", "message", &id.to_string());
    assert_eq!((told.len(), &told[0]["recipients"]), (1, &json!(["dest.example"])));
    scene.assert_copies(&letter, 0, "transactional");
    assert_eq!(scene.held(), 0);

    let letter = scene.letter();
    assert!(scene.house.faults.script([late(Kind::Quota)]));
    let id = scene.send_held(&letter).await;
    assert_under_way(&scene, id, Cause::Deadline).await;
    let (slot, entry) = scene.deferred(id, 1).await;
    assert_eq!((slot.wait, slot.cause, entry.cause), (Wait::Ready, Cause::DailyQuota, Cause::DailyQuota));
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["attempts"]), (&1.into(), &2.into()), "{line}");
    scene.assert_copies(&letter, 1, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_answered_is_unknown_before_the_deadline_and_after_it() {
    for (name, deadline) in [("hang", Duration::from_secs(25)), ("hanging", DEADLINE)] {
        let mut plan = Plan::named(name, &format!("{name}-b"));
        plan.limits.data_deadline = deadline;
        plan.mailer.call_time = Duration::from_millis(LATE);
        let mut scene = Scene::of(plan).await;
        let letter = scene.letter();
        assert!(scene.house.faults.script([Fault::once(Kind::Hang)]));
        let id = scene.send_held(&letter).await;
        let attempts = if deadline == DEADLINE {
            assert_under_way(&scene, id, Cause::Deadline).await;
            1
        } else {
            assert_eq!(scene.verdict(id)["cause"], "unknown");
            0
        };
        let (slot, entry) = scene.deferred(id, attempts).await;
        assert_eq!((slot.cause, entry.unknown), (Cause::Unknown, 1));
        let least = scene.house.now().plus(Duration::from_secs(45));
        assert!(matches!(slot.wait, Wait::Until(moment) if moment >= least), "{:?}", slot.wait);
        assert_eq!(scene.lines("outcome_unknown").len(), 1);
        let line = scene.dispatched(id).await;
        let expected = (&json!(1), &json!(attempts + 1), &json!(1));
        assert_eq!((&line["sent"], &line["attempts"], &line["unknown"]), expected, "{line}");
        scene.assert_copies(&letter, 1, "transactional");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_recipients_at_the_deadline_get_it_once_each() {
    let mut scene = hasty("lateall").await;
    let letter = scene.letter();
    assert!(
        scene.house.faults.script([late(Kind::Slow).to("r0@dest.example"), late(Kind::Quota).to("r5@dest.example")])
    );
    let id = queued(&scene.send(&recipients(6), &letter).await);
    assert_under_way(&scene, id, Cause::Deadline).await;
    let (slot, entry) = scene.deferred(id, 1).await;
    assert_eq!((slot.recipients, entry.progress.marks().as_str(), entry.cause), (1, "ttttt.", Cause::DailyQuota));
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["attempts"]), (&6.into(), &2.into()), "{line}");
    let mut served: Vec<String> =
        scene.assert_copies(&letter, 6, "transactional").iter().flat_map(|copy| copy.destination.clone()).collect();
    served.sort_unstable();
    assert_eq!(served, recipients(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_served_while_others_wait_is_noted_at_once() {
    let mut scene = hasty("noted").await;
    let letter = scene.letter();
    let later = Fault { delay_ms: LATE / 2, ..Fault::once(Kind::Slow) };
    let latest = Fault { delay_ms: LATE * 2, ..Fault::once(Kind::Slow) };
    assert!(scene.house.faults.script([later.to("r1@dest.example"), latest.clone().to("r4@dest.example")]));
    let id = queued(&scene.send(&recipients(5), &letter).await);
    let (_, entry) = scene.entry(id).await;
    assert_eq!((entry.progress.marks().as_str(), entry.leased), ("t.tt.", true), "known at the deadline");
    until("the answer after the deadline to be noted", || scene.house.notes("tttt.")).await;
    let (_, entry) = scene.entry(id).await;
    assert_eq!((entry.progress.marks().as_str(), entry.leased), ("t.tt.", true), "its attempt goes on");
    scene.dispatched(id).await;
    scene.assert_copies(&letter, 5, "transactional");

    // The same of one that was held before it was offered.
    let letter = scene.letter();
    scene.dispatch().resize(1 << 30, A_WHILE, 4);
    assert!(scene.house.faults.script([Fault::times(Kind::Throttle, 4), latest.to("r2@dest.example")]));
    let id = queued(&scene.send(&recipients(4), &letter).await);
    assert!(scene.entry(id).await.1.progress.is_none());
    scene.house.pass(A_WHILE);
    until("the answers to be noted", || scene.house.notes("tt.t")).await;
    assert!(scene.entry(id).await.1.leased);
    scene.dispatched(id).await;
    scene.assert_copies(&letter, 4, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_drain_who_waits_for_ses_is_held_and_the_call_still_counts() {
    let mut scene = Scene::named("drain").await;
    let letter = scene.letter();
    assert!(scene.house.faults.script([late(Kind::Slow)]));
    let (from, mut client) = (scene.from(), scene.another().await);
    begin(&mut client, &from, &recipients(1), &letter).await;
    until("the call to be under way", || scene.house.faults.waiting().is_empty()).await;
    scene.dispatch().hurry();
    let id = queued(&client.reply().await);
    assert_under_way(&scene, id, Cause::Drain).await;
    let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
    assert_eq!((&line["sent"], &line["attempts"]), (&1.into(), &1.into()), "{line}");
    scene.assert_copies(&letter, 1, "transactional");
    assert_eq!(scene.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_held_at_the_deadline_has_the_answer_of_ses() {
    let mut scene = hasty("latefull").await;
    scene.house.platter.fill(true);
    let letter = scene.letter();
    assert!(scene.house.faults.script([late(Kind::Slow), late(Kind::Quota)]));
    let id = relayed(&scene.send(&recipients(1), &letter).await);
    assert_eq!(scene.assert_copies(&letter, 1, "transactional")[0].id, id);
    let letter = scene.letter();
    let reply = scene.send(&recipients(1), &letter).await;
    assert!(reply.starts_with("452 4.3.1 ") && reply.contains("daily quota"), "{reply}");
    scene.assert_copies(&letter, 0, "transactional");
    assert_eq!(scene.held(), 0);
}
