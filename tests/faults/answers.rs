//! Every answer of SES's, and every way to get none.

use std::time::Duration;

use bulkhead::mail::MessageId;
use bulkhead::outbox::{Cause, Entry, Slot, Wait};
use bulkhead::sandbox::fault::{Fault, Kind};
use bulkhead::time::Timestamp;

use crate::house::Plan;
use crate::scene::{A_WHILE, Scene, recipients, relayed};
use crate::support::journal;

/// What a message waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// Its turn: the account's breaker says when.
    Turn,
    /// A moment, first so many seconds ahead.
    Seconds(u64, u64),
}

/// Whose breaker opens at the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opens {
    Account,
    Lane,
    None,
}

struct Row {
    kind: Kind,
    cause: Cause,
    /// Of SES's words, or those of who could not reach it.
    words: &'static str,
    waits: Waits,
    opens: Opens,
    /// Whether SES takes a message although this goes wrong.
    takes: bool,
}

const fn row(kind: Kind, cause: Cause, words: &'static str, waits: Waits, opens: Opens) -> Row {
    Row { kind, cause, words, waits, opens, takes: false }
}

const RETRY: Waits = Waits::Seconds(15, 30);
const OPERATOR: Waits = Waits::Seconds(30, 60);
const UNKNOWN: Waits = Waits::Seconds(60, 120);

const ACCOUNT: [Row; 7] = [
    row(Kind::Quota, Cause::DailyQuota, "Daily message quota", Waits::Turn, Opens::Account),
    row(Kind::WrongCredentials, Cause::Credentials, "token", Waits::Turn, Opens::Account),
    row(Kind::ExpiredToken, Cause::Credentials, "expired", Waits::Turn, Opens::Account),
    row(Kind::Paused, Cause::AccountPaused, "paused for this account", Waits::Turn, Opens::Account),
    row(Kind::Suspended, Cause::AccountSuspended, "shut down", Waits::Turn, Opens::Account),
    row(Kind::Internal, Cause::Service, "internal fault", RETRY, Opens::None),
    row(Kind::Unavailable, Cause::Service, "not available", RETRY, Opens::None),
];

const LANE: [Row; 6] = [
    row(Kind::SetPaused, Cause::SetPaused, "paused for configuration set", OPERATOR, Opens::Lane),
    row(Kind::MissingSet, Cause::SetMissing, "onfiguration set", OPERATOR, Opens::Lane),
    row(Kind::MissingTenant, Cause::TenantMissing, "enant", OPERATOR, Opens::Lane),
    row(Kind::AccessDenied, Cause::AccessDenied, "not authorized", OPERATOR, Opens::None),
    row(Kind::NotAssociated, Cause::NotAssociated, "not associated", OPERATOR, Opens::None),
    row(Kind::MailFrom, Cause::MailFromDomain, "Mail From", OPERATOR, Opens::None),
];

const BROKEN: [Row; 4] = [
    row(Kind::ResetConnect, Cause::Unknown, "", UNKNOWN, Opens::None),
    row(Kind::ResetBody, Cause::Unknown, "", UNKNOWN, Opens::None),
    row(Kind::Reset, Cause::Unknown, "", UNKNOWN, Opens::None),
    Row { takes: true, ..row(Kind::ResetAfter, Cause::Unknown, "", UNKNOWN, Opens::None) },
];

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_the_account_is_held_and_goes_when_it_is_over() {
    go_through(&mut Scene::named("account").await, &ACCOUNT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_a_lane_is_held_and_goes_when_it_is_over() {
    go_through(&mut Scene::named("lane").await, &LANE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_without_an_answer_is_unknown_and_goes_again() {
    go_through(&mut Scene::named("broken").await, &BROKEN).await;
}

/// Each fault strikes a message when it comes in, and once more when it is tried again.
async fn go_through(scene: &mut Scene, rows: &[Row]) {
    for row in rows {
        let Row { kind, cause, .. } = *row;
        let (letter, unknown_before) = (scene.letter(), scene.lines("outcome_unknown").len());
        assert!(scene.house.faults.script([Fault::once(kind)]));
        let id = scene.send_held(&letter).await;
        let is_unknown = usize::from(cause == Cause::Unknown);
        let took = usize::from(row.takes);

        let (slot, entry) = scene.entry(id).await;
        assert_waits(row, &slot, &entry, 1, scene.house.now());
        assert_eq!((entry.attempts, entry.unknown), (0, is_unknown as u32), "{kind:?}");
        assert_stands(scene, row, id);
        let verdict = scene.verdict(id);
        assert_eq!((&verdict["event"], &verdict["cause"]), (&"message_queued".into(), &cause.word().into()));
        assert_eq!(verdict["code"], 250, "{verdict}");
        scene.assert_copies(&letter, took, "transactional");

        // Once more, when its wait is over.
        assert!(scene.house.faults.script([Fault::once(kind)]));
        scene.house.pass(A_WHILE);
        let (slot, entry) = scene.deferred(id, 1).await;
        assert!(scene.house.faults.waiting().is_empty(), "{kind:?} did not strike");
        assert_waits(row, &slot, &entry, 2, scene.house.now());
        assert_eq!(entry.unknown, 2 * is_unknown as u32, "{kind:?}");
        assert_stands(scene, row, id);
        let line = journal().wait("message_deferred", "message", &id.to_string()).await;
        assert_eq!((&line["cause"], &line["attempts"]), (&cause.word().into(), &1.into()), "{line}");
        scene.assert_copies(&letter, 2 * took, "transactional");

        let line = scene.dispatched(id).await;
        assert_eq!((&line["sent"], &line["refused"], &line["attempts"]), (&1.into(), &0.into(), &2.into()), "{line}");
        assert_eq!(line["unknown"], 2 * is_unknown, "{line}");
        let copies = scene.assert_copies(&letter, 2 * took + 1, "transactional");
        assert_eq!(copies.last().unwrap().destination, recipients(1));
        let told = journal().lines("recipient_relayed", "message", &id.to_string());
        assert_eq!(told.len(), 1, "{kind:?}: {told:?}");
        assert_eq!(told[0]["ses_id"], copies.last().unwrap().id, "{kind:?}");
        let unknown = scene.lines("outcome_unknown").len() - unknown_before;
        assert_eq!(unknown, 2 * is_unknown, "{kind:?}: each call without an answer is told");
        assert_eq!(scene.dispatch().why(&scene.lane("transactional")), None, "{kind:?}: all is well again");
    }
}

/// The row says why and until when.
fn assert_waits(row: &Row, slot: &Slot, entry: &Entry, failures: u32, now: Timestamp) {
    let Row { kind, cause, words, waits, .. } = row;
    assert_eq!((slot.cause, entry.cause), (*cause, *cause), "{kind:?}");
    assert!(entry.words.contains(words), "{kind:?}: {}", entry.words);
    assert_eq!((entry.progress.marks(), slot.recipients), (".".into(), 1), "{kind:?}");
    assert!(!entry.leased);
    match (waits, slot.wait) {
        (Waits::Turn, wait) => assert_eq!(wait, Wait::Ready, "{kind:?}"),
        (Waits::Seconds(least, most), Wait::Until(moment)) => {
            let least = entry.created.plus(Duration::from_secs(*least));
            let most = now.plus(Duration::from_secs(most * u64::from(failures)));
            assert!(moment >= least && moment <= most, "{kind:?}: {moment:?} after failure {failures}");
        }
        (Waits::Seconds(..), wait) => panic!("{kind:?}: {wait:?}"),
    }
}

/// The breaker says what is the matter, and the log that it opened.
fn assert_stands(scene: &Scene, row: &Row, id: MessageId) {
    let why = scene.dispatch().why(&scene.lane("transactional"));
    if row.opens == Opens::None {
        assert_eq!(why, None, "{:?}: one alone may be chance", row.kind);
        return;
    }
    let (word, wait) = why.unwrap_or_else(|| panic!("{:?} opened nothing", row.kind));
    assert_eq!(word, row.cause.word());
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "{:?}: {wait:?} for {id}", row.kind);
    let scope = match row.opens {
        Opens::Lane => format!("{}/transactional", scene.name),
        Opens::Account | Opens::None => "account".into(),
    };
    let mut told = journal().lines("breaker_opened", "scope", &scope);
    told.retain(|line| line["cause"] == row.cause.word());
    assert!(!told.is_empty(), "{:?}", row.kind);
}

/// What SES will never take as it is, and its reply.
const REFUSED: [(Kind, &str, &str); 3] = [
    (Kind::Reject, "554 5.6.0 ", "rejected for its content"),
    (Kind::Unverified, "550 5.7.1 ", "sender@example.com"),
    (Kind::BadRequest, "554 5.6.0 ", "Invalid MIME structure."),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_ses_refuses_for_good_is_told_at_once_and_not_held() {
    let mut scene = Scene::named("never").await;
    let before = (scene.house.path.commits(), scene.house.platter.counts());
    for (kind, start, words) in REFUSED {
        let letter = scene.letter();
        assert!(scene.house.faults.script([Fault::times(kind, 2)]));
        let reply = scene.send(&recipients(2), &letter).await;
        assert!(reply.starts_with(start) && reply.contains(words), "{kind:?}: {reply}");
        assert_eq!(scene.held(), 0);
        scene.assert_copies(&letter, 0, "transactional");
        let verdict = scene.lines("message_refused").pop().unwrap();
        assert_eq!(verdict["code"], reply[..3].parse::<u16>().unwrap(), "{verdict}");
        // Nothing is remembered of it: the same again is sent.
        assert!(scene.send(&recipients(2), &letter).await.ends_with(" 2 recipients\r\n"));
        scene.assert_copies(&letter, 2, "transactional");
    }
    assert_eq!(scene.lines("message_refused").len(), REFUSED.len());
    assert_eq!((scene.house.path.commits(), scene.house.platter.counts()), before, "and nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_beyond_the_rate_is_held_with_one_call_at_a_time_to_find_out() {
    let mut plan = Plan::named("burst", "burst-b");
    plan.dispatch.waits.throttle_first = Duration::from_secs(60);
    plan.dispatch.waits.throttle_most = Duration::from_secs(600);
    let mut scene = Scene::of(plan).await;
    assert!(scene.house.faults.script([Fault::times(Kind::Throttle, 3)]));
    let mut held = Vec::new();
    for _ in 0..10 {
        let letter = scene.letter();
        held.push((scene.send_held(&letter).await, letter));
    }
    let left = |scene: &Scene| scene.house.faults.waiting().first().map_or(0, |fault| fault.count);
    assert_eq!(left(&scene), 2, "one call told it for ten messages");
    for (id, _) in &held {
        let (slot, entry) = scene.entry(*id).await;
        assert_eq!((slot.cause, slot.wait, entry.attempts), (Cause::Throttled, Wait::Ready, 0));
        assert_eq!(scene.verdict(*id)["cause"], "throttled");
    }
    let first = held[0].0;
    for attempt in [1, 2] {
        scene.house.pass(A_WHILE);
        let (slot, _) = scene.deferred(first, attempt).await;
        assert_eq!((slot.cause, slot.wait), (Cause::Throttled, Wait::Ready), "it keeps its place");
        assert_eq!(left(&scene), 2 - attempt, "one call finds out");
        assert_eq!(scene.lines("message_deferred").len(), attempt as usize);
    }
    scene.house.pass(A_WHILE);
    scene.emptied().await;
    for (id, letter) in &held {
        scene.assert_copies(letter, 1, "transactional");
        let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
        assert_eq!(line["attempts"], if *id == first { 3 } else { 1 }, "{line}");
    }
    assert!(scene.house.inbox.all()[0].raw == scene.copies(&held[0].1)[0].raw, "who waits longest goes first");
}

/// Words that no table has: another service answers where SES should.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_nobody_knows_is_held_and_told() {
    let somebody = Scene::named("somebody").await;
    let mut plan = Plan::named("unrecognised", "unrecognised-b");
    plan.mailer.endpoint_url = Some(format!("{}/not-ses", somebody.house.url));
    let mut scene = Scene::of(plan).await;
    for number in 0..5 {
        let letter = scene.letter();
        let id = scene.send_held(&letter).await;
        let (_, entry) = scene.entry(id).await;
        assert_eq!((entry.cause, entry.unknown), (Cause::Unrecognised, 0));
        assert_eq!(scene.verdict(id)["cause"], "unrecognised");
        assert_eq!(entry.words.is_empty(), number >= 3, "three tell, and the lane is left alone: {}", entry.words);
    }
    assert_eq!(journal().lines("breaker_opened", "scope", "unrecognised/transactional").len(), 1);
    assert!(!scene.lines("upstream_alarm").is_empty(), "the operator is told");
    assert_eq!((somebody.house.inbox.received(), scene.held()), (0, 5));
}

/// The rate is held by the dispatcher itself: nothing is offered that SES would throttle.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_rate_is_held_without_asking() {
    let mut plan = Plan::named("pace", "pace-b");
    plan.dispatch.max_send_rate = Some(0.001);
    let mut scene = Scene::of(plan).await;
    let letter = scene.letter();
    relayed(&scene.send(&recipients(1), &letter).await);
    let mut held = Vec::new();
    for cause in ["rate", "backlog"] {
        let letter = scene.letter();
        let id = scene.send_held(&letter).await;
        assert_eq!(scene.verdict(id)["cause"], cause);
        held.push((id, letter));
    }
    for (at, (id, letter)) in held.iter().enumerate() {
        assert_eq!(scene.house.inbox.received(), 1 + at as u64, "one recipient in a thousand seconds");
        let line = scene.dispatched(*id).await;
        assert_eq!(line["attempts"], 1, "{line}");
        scene.assert_copies(letter, 1, "transactional");
    }
}
