//! Messages to several: some are taken, some wait, some are refused, and nobody gets one twice.

use bulkhead::outbox::{Cause, Wait};
use bulkhead::sandbox::fault::{Fault, Kind};
use serde_json::json;

use crate::house::Plan;
use crate::scene::{A_WHILE, Letter, Scene, long_body, queued, recipients, until};
use crate::support::journal;

/// Every recipient has the letter once, but for those of `missing`.
fn assert_served(scene: &Scene, letter: &Letter, count: usize, missing: &[usize]) {
    let mut served: Vec<String> = scene.copies(letter).iter().flat_map(|copy| copy.destination.clone()).collect();
    served.sort_unstable();
    let mut expected: Vec<String> = recipients(count);
    expected.retain(|to| !missing.iter().any(|n| *to == format!("r{n}@dest.example")));
    expected.sort_unstable();
    assert_eq!(served, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn some_are_taken_some_wait_and_some_are_refused() {
    let mut scene = Scene::named("mixed").await;
    let letter = scene.letter();
    assert!(
        scene
            .house
            .faults
            .script([Fault::once(Kind::Quota).to("r1@dest.example"), Fault::once(Kind::Reject).to("r3@dest.example"),])
    );
    let id = queued(&scene.send(&recipients(5), &letter).await);
    let (slot, entry) = scene.entry(id).await;
    assert_eq!((entry.progress.marks().as_str(), slot.recipients), ("t.trt", 1));
    assert_eq!((slot.wait, slot.cause, entry.attempts), (Wait::Ready, Cause::DailyQuota, 0));
    let verdict = scene.verdict(id);
    assert_eq!((&verdict["sent"], &verdict["cause"]), (&3.into(), &"daily_quota".into()), "{verdict}");
    assert_eq!(verdict["ses_ids"].as_array().unwrap().len(), 3);
    assert_served(&scene, &letter, 5, &[1, 3]);

    let line = scene.dispatched(id).await;
    let expected = (&json!(4), &json!(1), &json!(1), &json!(0));
    assert_eq!((&line["sent"], &line["refused"], &line["attempts"], &line["unknown"]), expected, "{line}");
    assert_served(&scene, &letter, 5, &[3]);
    scene.assert_copies(&letter, 4, "transactional");
    let told = journal().lines("recipient_refused", "message", &id.to_string());
    assert_eq!(told.len(), 1, "once: {told:?}");
    assert!(told[0]["reason"].as_str().unwrap().contains("content"), "{told:?}");
    let told = journal().lines("recipient_relayed", "message", &id.to_string());
    let mut ids: Vec<&str> = told.iter().map(|line| line["ses_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let copies = scene.copies(&letter);
    let mut at_ses: Vec<&str> = copies.iter().map(|copy| copy.id.as_str()).collect();
    at_ses.sort_unstable();
    assert_eq!(ids, at_ses, "each call has its line");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_answer_that_may_pass_later_the_rest_is_not_offered() {
    let mut scene = Scene::named("rest").await;
    // One call of a message at a time.
    scene.dispatch().resize(1 << 30, A_WHILE, 1);
    let letter = scene.letter();
    assert!(scene.house.faults.script([
        Fault::once(Kind::Quota).to("r1@dest.example"),
        Fault::once(Kind::Quota).to("r4@dest.example"),
        Fault::once(Kind::Unverified).to("r2@dest.example"),
    ]));
    let id = queued(&scene.send(&recipients(6), &letter).await);
    assert_eq!(scene.entry(id).await.1.progress.marks(), "t.....");
    assert_served(&scene, &letter, 1, &[]);

    scene.house.pass(A_WHILE);
    let (slot, entry) = scene.deferred(id, 1).await;
    assert_eq!((entry.progress.marks().as_str(), slot.recipients), ("ttrt..", 2));
    assert_eq!(scene.copies(&letter).len(), 3);

    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"], &line["attempts"]), (&5.into(), &1.into(), &2.into()), "{line}");
    assert_served(&scene, &letter, 6, &[2]);
    assert_eq!(journal().lines("recipient_refused", "message", &id.to_string()).len(), 1);
    assert_eq!(scene.lines("message_deferred").len(), 1);
}

/// SES has it for all, and the row that says otherwise cannot be removed.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_cannot_be_told_is_known_by_the_file() {
    let mut scene = Scene::named("untold").await;
    let letter = scene.letter();
    let slow = Fault { delay_ms: 1000, ..Fault::once(Kind::Slow) };
    assert!(scene.house.faults.script([Fault::once(Kind::Throttle), slow]));
    let id = queued(&scene.send(&recipients(2), &letter).await);
    scene.house.pass(A_WHILE);
    until("the call to be under way", || scene.house.faults.waiting().is_empty()).await;
    scene.house.path.refuse(true);
    journal().wait("outbox_deferred", "tenant", "untold").await;
    until("the answers to be noted", || scene.house.notes("tt")).await;
    scene.house.path.refuse(false);
    assert_eq!((scene.entry(id).await.1.progress.marks().as_str(), scene.held()), ("..", 1), "the row is as it was");
    scene.house.pass(A_WHILE);
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["attempts"]), (&2.into(), &2.into()), "{line}");
    scene.assert_copies(&letter, 2, "transactional");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_call_doubles_its_own_recipient_alone() {
    let mut scene = Scene::named("double").await;
    let letter = scene.letter();
    assert!(scene.house.faults.script([Fault::once(Kind::ResetAfter).to("r2@dest.example")]));
    let id = queued(&scene.send(&recipients(4), &letter).await);
    let (slot, entry) = scene.entry(id).await;
    assert_eq!((entry.progress.marks().as_str(), entry.unknown, slot.cause), ("tt.t", 1, Cause::Unknown));
    assert_eq!(scene.lines("outcome_unknown").len(), 1);
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["unknown"]), (&4.into(), &1.into()), "{line}");
    let mut served: Vec<String> =
        scene.assert_copies(&letter, 5, "transactional").iter().flat_map(|copy| copy.destination.clone()).collect();
    served.sort_unstable();
    assert_eq!(served.iter().filter(|to| *to == "r2@dest.example").count(), 2);
    served.dedup();
    assert_eq!(served, recipients(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_to_120_goes_in_three_calls_and_the_one_that_waited_goes_alone() {
    let mut plan = Plan::named("chunks", "chunks-b");
    plan.terms.recipients = 200;
    let mut scene = Scene::of(plan).await;
    let letter = scene.letter_with("", &long_body(1_200_000));
    assert!(
        scene.house.faults.script([
            Fault::once(Kind::Quota).to("r70@dest.example"),
            Fault::once(Kind::Reject).to("r110@dest.example"),
        ])
    );
    let id = queued(&scene.send(&recipients(120), &letter).await);
    let (slot, entry) = scene.entry(id).await;
    let marks = format!("{}{}{}", "t".repeat(50), ".".repeat(50), "r".repeat(20));
    assert_eq!((entry.progress.marks(), slot.recipients), (marks, 50));
    assert_eq!(scene.copies(&letter).len(), 1);
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"], &line["attempts"]), (&100.into(), &20.into(), &1.into()), "{line}");
    let copies = scene.assert_copies(&letter, 2, "transactional");
    assert_eq!(copies.iter().map(|copy| copy.destination.len()).collect::<Vec<_>>(), [50, 50]);
    assert_served(&scene, &letter, 120, &(100..120).collect::<Vec<_>>());
    assert_eq!(journal().lines("recipient_refused", "message", &id.to_string()).len(), 20);
}
