//! Messages that grow too old, and what the relay itself writes about them.

use std::time::Duration;

use bulkhead::dispatch::Reports;
use bulkhead::mail::{ConfigurationSet, MessageId};
use bulkhead::policy::tenant::SuppressionReason;
use bulkhead::sandbox::fault::{Fault, Kind};
use bulkhead::sandbox::inbox::Message;
use mail_parser::{MessageParser, MimeHeaders as _, PartType};

use crate::house::{Plan, address};
use crate::scene::{A_WHILE, Letter, Scene, post, queued, recipients, until};
use crate::support::journal;

/// Past the age of transactional mail.
const TOO_LONG: Duration = Duration::from_secs(49 * 3600);

/// A house with reports, whose first tenant wants them and has a contact.
async fn reporting(name: &str) -> Scene {
    let mut plan = Plan::named(name, &format!("{name}-b"));
    plan.dispatch.reports = Some(Reports {
        from: address("bulkhead@notify.example"),
        configuration_set: ConfigurationSet::parse("notify").unwrap(),
    });
    let scene = Scene::of(plan).await;
    scene.house.with(|tenants| {
        tenants[0].contact = Some(address("ops@contact.example"));
        tenants[0].streams.values_mut().for_each(|stream| stream.dsn = true);
    });
    scene
}

/// What takes nothing of the tenant's transactional mail, and reports alone.
fn outage(scene: &Scene) -> [Fault; 1] {
    [Fault::lasting(Kind::MissingSet).with_set(&format!("{}-transactional", scene.name))]
}

/// Mail of the relay's own at SES.
fn reports(scene: &Scene, kind: &str) -> Vec<std::sync::Arc<Message>> {
    let mut all = scene.house.inbox.all();
    all.retain(|message| message.tag("report") == Some(kind));
    all
}

async fn expired(id: MessageId) -> serde_json::Value {
    journal().wait("message_expired", "message", &id.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_old_is_given_up_and_told() {
    let mut scene = Scene::named("old").await;
    assert!(scene.house.faults.script([Fault::lasting(Kind::MailFrom)]));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    let young = scene.letter();
    scene.house.pass(Duration::from_secs(47 * 3600));
    scene.deferred(id, 1).await;
    let kept = scene.send_held(&young).await;
    scene.house.pass(Duration::from_secs(2 * 3600));
    let line = expired(id).await;
    assert_eq!((&line["cause"], &line["sent"]), (&"mail_from_domain".into(), &0.into()), "{line}");
    assert!(line["reason"].as_str().unwrap().contains("Mail From"), "{line}");
    assert!(line["held_ms"].as_f64().unwrap() >= 48.0 * 3_600_000.0, "{line}");
    assert!(scene.slot(id).is_none() && scene.slot(kept).is_some(), "the younger one waits on");
    until("the body file to be gone", || scene.house.files() == 1).await;
    scene.house.faults.clear();
    scene.dispatched(kept).await;
    scene.assert_copies(&letter, 0, "transactional");
    scene.assert_copies(&young, 1, "transactional");
    assert!(scene.lines("report_queued").is_empty(), "nobody asked for reports");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_grows_old_as_well() {
    let mut scene = Scene::named("oldpause").await;
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.house.pause(0, None);
    let why = |scene: &Scene| scene.dispatch().why(&scene.lane("transactional")).map(|(why, _)| why);
    until("the pause", || why(&scene).as_deref() == Some("tenant_paused")).await;
    scene.house.pass(TOO_LONG);
    let line = expired(id).await;
    assert_eq!(line["attempts"], 0, "{line}");
    assert_eq!(scene.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_what_expired_has_a_delivery_status_notification() {
    let mut scene = reporting("dsn").await;
    assert!(scene.house.faults.script(outage(&scene)));
    let letter = scene.letter();
    let id = queued(&scene.send(&recipients(2), &letter).await);
    scene.house.pass(TOO_LONG);
    expired(id).await;
    until("two reports", || scene.house.inbox.received() == 2).await;
    scene.emptied().await;

    let [dsn] = reports(&scene, "dsn").try_into().unwrap();
    assert_eq!((dsn.destination.clone(), dsn.configuration_set.as_deref()), (vec![scene.from()], Some("notify")));
    let read = MessageParser::new().parse(&dsn.raw[..]).unwrap();
    assert_eq!(read.from().unwrap().first().unwrap().address(), Some("bulkhead@notify.example"));
    assert_eq!(read.to().unwrap().first().unwrap().address(), Some(scene.from().as_str()));
    assert!(read.subject().is_some() && read.message_id().is_some() && read.date().is_some());
    assert_eq!(read.header("Auto-Submitted").unwrap().as_text(), Some("auto-replied"));
    let kind = read.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    let PartType::Multipart(parts) = &read.parts[0].body else { panic!("{:?}", read.parts[0].body) };
    assert_eq!(parts.len(), 2);
    let person = read.body_text(0).unwrap();
    assert!(person.contains("r0@dest.example") && person.contains("r1@dest.example"), "{person}");
    assert!(person.contains("onfiguration set"), "why, in SES's words: {person}");
    let machine = &read.parts[parts[1] as usize];
    assert_eq!(machine.content_type().unwrap().subtype(), Some("delivery-status"));
    let status = String::from_utf8_lossy(machine.contents()).into_owned();
    let groups: Vec<&str> = status.trim_end().split("\r\n\r\n").collect();
    assert_eq!(groups.len(), 3, "of the message, and of each recipient: {status}");
    assert!(groups[0].starts_with("Reporting-MTA: dns; ") && groups[0].contains(&id.to_string()), "{status}");
    for (number, group) in groups[1..].iter().enumerate() {
        let fields: Vec<&str> = group.trim_start().lines().collect();
        assert_eq!(fields[0], format!("Final-Recipient: rfc822; r{number}@dest.example"));
        assert!(fields.contains(&"Action: failed") && fields.contains(&"Status: 5.4.7"), "{status}");
    }
    assert!(!status.contains("octet"), "the body is nobody's");
    assert!(dsn.raw.is_ascii());

    let [notice] = reports(&scene, "notice").try_into().unwrap();
    assert_eq!(notice.destination, ["ops@contact.example"]);
    assert_eq!(notice.configuration_set.as_deref(), Some("notify"));
    let read = MessageParser::new().parse(&notice.raw[..]).unwrap();
    let text = read.body_text(0).unwrap();
    assert!(text.contains("dsn") && text.contains(&id.to_string()) && text.contains("2 of 2"), "{text}");
    scene.assert_copies(&letter, 0, "transactional");
    let told = scene.lines("report_queued");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|line| line["message"] == id.to_string()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_did_not_get_it_is_reported() {
    let mut scene = reporting("dsnpart").await;
    assert!(scene.house.faults.script([
        Fault::lasting(Kind::MissingSet).to("r1@dest.example"),
        Fault::once(Kind::Reject).to("r2@dest.example"),
    ]));
    let letter = scene.letter();
    let id = queued(&scene.send(&recipients(4), &letter).await);
    assert_eq!(scene.entry(id).await.1.progress.marks(), "t.rt");
    scene.house.pass(TOO_LONG);
    let line = expired(id).await;
    assert_eq!((&line["sent"], &line["refused"]), (&2.into(), &1.into()), "{line}");
    until("the reports", || scene.house.inbox.received() == 4).await;
    let [dsn] = reports(&scene, "dsn").try_into().unwrap();
    let text = String::from_utf8_lossy(&dsn.raw);
    let named = |n: usize| text.contains(&format!("Final-Recipient: rfc822; r{n}@dest.example"));
    assert_eq!([0, 1, 2, 3].map(named), [false, true, true, false], "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_the_250_is_reported_and_one_before_it_is_not() {
    let mut scene = reporting("dsnlate").await;
    assert!(scene.house.faults.script([Fault::once(Kind::Quota), Fault::once(Kind::Reject)]));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.dispatched(id).await;
    until("the reports", || scene.house.inbox.received() == 2).await;
    let [dsn] = reports(&scene, "dsn").try_into().unwrap();
    let text = String::from_utf8_lossy(&dsn.raw);
    assert!(text.contains("Status: 5.0.0\r\n") && text.contains("rejected for its content"), "{text}");

    assert!(scene.house.faults.script([Fault::once(Kind::Reject)]));
    let letter = scene.letter();
    assert!(scene.send(&recipients(1), &letter).await.starts_with("554 "));
    assert_eq!(scene.lines("report_queued").len(), 2, "the client was told itself");
}

/// Who was refused while it waited is told of, although the attempt that ends the message refuses nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_an_attempt_that_ended_nothing_is_reported_in_the_end() {
    let mut scene = reporting("dsnearly").await;
    // One call of a message at a time.
    scene.dispatch().resize(1 << 30, TOO_LONG, 1);
    assert!(scene.house.faults.script([
        Fault::once(Kind::Quota).to("r0@dest.example"),
        Fault::once(Kind::Reject).to("r0@dest.example"),
        Fault::once(Kind::Quota).to("r1@dest.example"),
    ]));
    let letter = scene.letter();
    let id = queued(&scene.send(&recipients(3), &letter).await);
    scene.house.pass(A_WHILE);
    let (_, entry) = scene.deferred(id, 1).await;
    assert_eq!(entry.progress.marks(), "r..");
    let line = scene.dispatched(id).await;
    assert_eq!((&line["sent"], &line["refused"]), (&2.into(), &1.into()), "{line}");
    until("the reports", || scene.house.inbox.received() == 4).await;
    let [dsn] = reports(&scene, "dsn").try_into().unwrap();
    let text = String::from_utf8_lossy(&dsn.raw);
    let named = |n: usize| text.contains(&format!("Final-Recipient: rfc822; r{n}@dest.example"));
    assert_eq!([0, 1, 2].map(named), [true, false, false], "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_has_one_notice_an_hour() {
    let mut scene = reporting("notice").await;
    assert!(scene.house.faults.script(outage(&scene)));
    for (round, notices) in [(1, 1), (2, 2)] {
        let mut ids = Vec::new();
        for _ in 0..3 {
            let letter = scene.letter();
            ids.push(scene.send_held(&letter).await);
        }
        scene.house.pass(TOO_LONG);
        for id in ids {
            expired(id).await;
        }
        until("the reports", || scene.house.inbox.received() == 3 * round + notices).await;
        assert_eq!(reports(&scene, "dsn").len(), 3 * round as usize);
        assert_eq!(reports(&scene, "notice").len(), notices as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_report_answers_a_null_reverse_path_or_a_report() {
    let mut scene = reporting("null").await;
    assert!(scene.house.faults.script(outage(&scene)));
    let letter = scene.letter();
    let id = queued(&post(&mut scene.client, "", &recipients(1), &letter).await);
    // Reports themselves are refused for good.
    assert!(scene.house.faults.script([Fault::lasting(Kind::Reject).with_set("notify")]));
    scene.house.pass(TOO_LONG);
    expired(id).await;
    let told = journal().wait("report_queued", "message", &id.to_string()).await;
    assert_eq!(told["kind"], "notice", "nobody sent it");
    let report = told["report"].as_str().unwrap();
    let line = journal().wait("message_dispatched", "message", report).await;
    assert_eq!((&line["sent"], &line["refused"]), (&0.into(), &1.into()), "{line}");
    scene.emptied().await;
    assert_eq!(scene.lines("report_queued").len(), 1, "nor is that told");
    assert_eq!(scene.house.inbox.received(), 0);

    // And one that grows too old.
    scene.house.faults.clear();
    let held = [outage(&scene)[0].clone(), Fault::lasting(Kind::MissingSet).with_set("notify")];
    assert!(scene.house.faults.script(held));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.house.pass(TOO_LONG);
    expired(id).await;
    until("the reports", || scene.lines("report_queued").len() == 3).await;
    until("them to be deferred", || scene.held() == 2).await;
    scene.house.pass(Duration::from_secs(25 * 3600));
    until("both to be given up", || scene.lines("message_expired").len() == 4).await;
    scene.emptied().await;
    assert_eq!(scene.lines("report_queued").len(), 3, "nor is that told");
    assert_eq!(scene.house.inbox.received(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sender_of_its_own_the_relay_reports_nothing() {
    let mut scene = Scene::named("mute").await;
    scene.house.with(|tenants| {
        tenants[0].contact = Some(address("ops@contact.example"));
        tenants[0].streams.values_mut().for_each(|stream| stream.dsn = true);
    });
    assert!(scene.house.faults.script(outage(&scene)));
    let letter: Letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.house.pass(TOO_LONG);
    expired(id).await;
    assert_eq!((scene.held(), scene.lines("report_queued").len()), (0, 0));
    assert_eq!(scene.house.inbox.received(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_go_out_while_their_tenant_is_paused() {
    let mut scene = reporting("mutedone").await;
    assert!(scene.house.faults.script(outage(&scene)));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    scene.house.with(|tenants| {
        tenants[0].contact = Some(address("ops@contact.example"));
        tenants[0].pause = Some(bulkhead::policy::tenant::Pause {
            at: crate::support::long_ago(),
            actor: "test".into(),
            reason: "a test".into(),
        });
    });
    scene.house.pass(TOO_LONG);
    expired(id).await;
    until("the notice", || scene.house.inbox.received() == 1).await;
    assert_eq!(reports(&scene, "notice").len(), 1);
    scene.emptied().await;
}

/// A suppression that came meanwhile is no secret to who was told 250.
#[tokio::test(flavor = "multi_thread")]
async fn who_sent_to_somebody_suppressed_meanwhile_is_told() {
    let mut scene = reporting("dsnsupp").await;
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let letter = scene.letter();
    let id = queued(&scene.send(&recipients(2), &letter).await);
    scene.house.suppress("dsnsupp", "r1@dest.example", SuppressionReason::Bounce).await;
    scene.dispatched(id).await;
    until("the reports", || scene.house.inbox.received() == 3).await;
    let [dsn] = reports(&scene, "dsn").try_into().unwrap();
    let text = String::from_utf8_lossy(&dsn.raw);
    assert!(text.contains("Final-Recipient: rfc822; r1@dest.example") && text.contains("suppressed"), "{text}");
    assert!(!text.contains("Final-Recipient: rfc822; r0@dest.example"), "{text}");
}
