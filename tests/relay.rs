//! The relay over real sockets: TCP and TLS on loopback, SES scripted, the journal read line by line.

// In the helpers of the tests, which clippy's leave for tests does not reach.
#![allow(clippy::unwrap_used)]

#[path = "support/relay.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulkhead::adapters::tls::{Certificates, self_signed};
use bulkhead::mail::MessageId;
use bulkhead::outbox::{Cause, Lane, SpoolError, Wait};
use bulkhead::policy::tenant::{FanOut, Pause, Suppression, SuppressionReason};
use bulkhead::relay::Limits;
use bulkhead::store::directory::{Directory, Fault};
use bulkhead::store::{Batch, Key, Store as _, mirror, suppressions};
use bulkhead::time::{Clock, Timestamp};
use bulkhead::upstream::Call;
use support::{Client, PASSWORD, SECRET, Stand, chosen, code, credential, hash, journal, limits, long_ago, soon};
use tokio_util::sync::CancellationToken;

fn raw(call: &Call) -> String {
    String::from_utf8(call.raw.clone()).unwrap()
}

fn tag<'a>(call: &'a Call, name: &str) -> Vec<&'a str> {
    call.tags.iter().filter(|(tag, _)| tag == name).map(|(_, value)| value.as_str()).collect()
}

async fn suppress(stand: &Stand, mailbox: &str, reason: SuppressionReason) {
    let entry = Suppression { reason, origin: "test".into(), at: long_ago(), expires: None, actor: "test".into() };
    suppressions::add(&*stand.store, &stand.tenant.id, &stand.mailbox(mailbox), &entry, &Batch::new()).await.unwrap();
}

/// What SES has on its account's list binds whoever sends, once the lists are compared at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_sess_account_list_is_refused_where_the_lists_are_compared() {
    for account_list in [true, false] {
        let stand = Stand::with(Limits { account_list, ..limits() }).await;
        let reason = SuppressionReason::Bounce;
        let entry = mirror::Mirrored { reason, at: long_ago(), seen: long_ago() };
        let mut batch = Batch::new();
        mirror::write_of_account(&mut batch, &stand.mailbox("Listed@example.com"), &entry);
        stand.store.commit(batch).await.unwrap();
        let mut client = stand.client("bound").await;
        let replies = client.envelope(&stand.sender(), &["listed@example.com", "other@example.com"]).await;
        if account_list {
            assert!(replies[0].starts_with("550 5.1.1 ") && replies[0].contains("suppressed: hard bounce on"));
        } else {
            assert_eq!(code(&replies[0]), 250);
        }
        assert_eq!(code(&replies[1]), 250, "{replies:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// The way of a message

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_through_on_starttls_and_on_implicit_tls() {
    let stand = Stand::start().await;
    let clients =
        [Client::starttls(stand.starttls, &stand.ca).await, Client::implicit(stand.implicit, &stand.ca).await.unwrap()];
    for (n, mut client) in clients.into_iter().enumerate() {
        assert_eq!(code(&client.login(&stand.username("bound"), SECRET).await), 235);
        let message = stand.message("Bcc: secret@example.com\r\nX-SES-FROM-ARN: arn:x\r\n");
        let reply = client.send(&stand.sender(), &["one@example.com"], &message).await;
        assert_eq!(reply, format!("250 2.0.0 Ok ses-{n}\r\n"));
        assert_eq!(code(&client.say("QUIT").await), 221);
        assert!(client.closed().await);

        let calls = stand.ses.calls();
        let call = &calls[n];
        assert_eq!(call.recipients, [stand.mailbox("one@example.com")]);
        assert_eq!(call.configuration_set.as_str(), format!("{}-transactional", stand.name));
        assert_eq!(tag(call, "tenant"), [&stand.name]);
        assert_eq!(tag(call, "stream"), ["transactional"]);
        assert_eq!(tag(call, "credential"), [stand.username("bound")]);
        let sent = raw(call).replace("\r\n\t", " ");
        assert!(sent.starts_with("Received: from client.example by relay.example (Bulkhead) with"), "{sent}");
        assert!(sent.contains("ESMTPSA id ") && sent.contains("for <one@example.com>;"), "{sent}");
        assert!(!sent.contains("Bcc") && !sent.contains("X-SES"), "{sent}");
        assert!(sent.contains("\r\nDate: ") && sent.contains("\r\nMessage-ID: <"), "{sent}");
        assert!(sent.ends_with("\r\n\r\nbody\r\n"), "{sent}");

        let line = journal().wait("session_closed", "peer", &client.local.to_string()).await;
        assert_eq!((line["reason"].as_str(), line["messages"].as_u64()), (Some("quit"), Some(1)));
        let line = journal().wait("message_relayed", "ses_id", &format!("ses-{n}")).await;
        assert_eq!(line["recipient_count"], 1);
    }
    let verdicts = stand.verdicts();
    assert_eq!(verdicts.len(), 2, "{verdicts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_through_over_ipv6() {
    let stand = Stand::start().await;
    let Some(six) = stand.six else {
        eprintln!("NOT TESTED: this machine has no IPv6 loopback address, so nothing was sent over IPv6");
        return;
    };
    let mut client = Client::starttls(six, &stand.ca).await;
    assert!(client.local.is_ipv6() && six.is_ipv6());
    assert_eq!(code(&client.login(&stand.username("app"), SECRET).await), 235);
    let reply = client.send(&stand.sender(), &["one@example.com"], &stand.message("")).await;
    assert_eq!(reply, "250 2.0.0 Ok ses-0\r\n");
    let sent = raw(&stand.ses.calls()[0]).replace("\r\n\t", " ");
    assert!(sent.starts_with("Received: from client.example "), "{sent}");
    let verdict = stand.verdicts().pop().unwrap();
    assert_eq!((&verdict["event"], &verdict["peer"]), (&"message_relayed".into(), &client.local.to_string().into()));
    let opened = journal().lines("session_opened", "peer", &client.local.to_string());
    assert_eq!(opened[0]["listener"], six.to_string());
    assert_eq!(code(&client.say("QUIT").await), 221);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_recipients_one_suppressed_make_forty_nine_calls() {
    let stand = Stand::start().await;
    suppress(&stand, "R7@Example.com", SuppressionReason::Bounce).await;
    let mut client = stand.client("app").await;
    let recipients: Vec<String> = (0..50).map(|n| format!("r{n}@example.com")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let replies = client.envelope(&stand.sender(), &recipients).await;
    for (n, reply) in replies.iter().enumerate() {
        if n == 7 {
            assert!(reply.starts_with("550 5.1.1 ") && reply.contains("2026-05-01"), "{reply}");
        } else {
            assert_eq!(code(reply), 250, "{reply}");
        }
    }
    client.data(&stand.message("X-SES-MESSAGE-TAGS: campaign=spring, tenant=other\r\n")).await;
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0 Ok ") && reply.ends_with(" 49 recipients\r\n"), "{reply}");

    let calls = stand.ses.calls();
    assert_eq!(calls.len(), 49);
    let mut served: Vec<String> = calls.iter().flat_map(|call| &call.recipients).map(ToString::to_string).collect();
    served.sort();
    let mut expected: Vec<String> = (0..50).filter(|n| *n != 7).map(|n| format!("r{n}@example.com")).collect();
    expected.sort();
    assert_eq!(served, expected);
    for call in &calls {
        assert_eq!(call.configuration_set.as_str(), format!("{}-transactional", stand.name));
        assert_eq!(tag(call, "tenant"), [&stand.name], "the client's own never replaces ours");
        assert_eq!(tag(call, "campaign"), ["spring"]);
        assert!(!raw(call).contains(" for <"), "nobody is told of the others");
        assert_eq!(call.raw, calls[0].raw);
    }
    let verdicts = stand.verdicts();
    assert_eq!(verdicts.len(), 1);
    assert_eq!((&verdicts[0]["sent"], &verdicts[0]["recipient_count"]), (&49.into(), &49.into()));
    assert!(verdicts[0]["notes"][0].as_str().unwrap().contains("tenant=other"), "{verdicts:?}");
    let id = verdicts[0]["message"].as_str().unwrap();
    assert_eq!(journal().lines("recipient_relayed", "message", id).len(), 49);
    assert_eq!(journal().lines("recipient_suppressed", "tenant", &stand.name).len(), 1);
}

/// What is held: why, and the marks of its recipients.
type Held = Option<(Cause, &'static str)>;

/// recipients → reply, calls SES got, recipients sent, `recipient_refused` lines, what is held
type Partial = (&'static [&'static str], &'static str, usize, u64, usize, Held);

const PARTIAL: [Partial; 13] = [
    (&["a", "b"], "250 2.0.0 Ok ", 2, 2, 0, None),
    (&["a", "refused-1", "b"], "250 2.0.0 Ok ", 3, 2, 1, None),
    (&["refused-1", "a"], "250 2.0.0 Ok ", 2, 1, 1, None),
    (&["refused-1"], "554 5.6.0 ", 1, 0, 0, None),
    (&["refused-1", "refused-2"], "554 5.6.0 ", 2, 0, 0, None),
    (&["refused-1", "unverified-1"], "550 5.7.1 ", 2, 0, 0, None),
    // After what may pass later nobody else is served: what stopped one would stop the others.
    (&["throttled-1", "a", "b"], "250 2.0.0 queued as ", 1, 0, 0, Some((Cause::Throttled, "..."))),
    (&["denied-1", "a"], "250 2.0.0 queued as ", 1, 0, 0, Some((Cause::AccessDenied, ".."))),
    (&["paused-1", "a"], "250 2.0.0 queued as ", 1, 0, 0, Some((Cause::AccountPaused, ".."))),
    (&["unknown-1", "a"], "250 2.0.0 queued as ", 1, 0, 0, Some((Cause::Unknown, ".."))),
    (&["panic-1", "a"], "250 2.0.0 queued as ", 1, 0, 0, Some((Cause::Unknown, ".."))),
    (&["a", "throttled-1"], "250 2.0.0 queued as ", 2, 1, 0, Some((Cause::Throttled, "t."))),
    (&["a", "refused-1", "throttled-1"], "250 2.0.0 queued as ", 3, 1, 1, Some((Cause::Throttled, "tr."))),
];

/// A stand of two calls side by side, and what a message to these recipients hears there. What opens
/// a breaker would decide for the next message, so each has a stand of its own.
async fn partial(recipients: &[&str], fault: Option<SpoolError>) -> (Stand, String) {
    let stand = Stand::with(Limits { calls_per_message: 2, ..limits() }).await;
    stand.spool.fail_with(fault);
    let mut client = stand.client("app").await;
    let to: Vec<String> = recipients.iter().map(|local| format!("{local}@example.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let reply = client.send(&stand.sender(), &to, &stand.message("")).await;
    (stand, reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replies_to_partial_results() {
    let mut alarmed = Vec::new();
    for (recipients, expected, calls, sent, refused, held) in PARTIAL {
        let (stand, reply) = partial(recipients, None).await;
        assert!(reply.starts_with(expected), "{recipients:?}: {reply}");
        assert_eq!(stand.ses.calls().len(), calls, "{recipients:?}");
        let verdicts = stand.verdicts();
        assert_eq!(verdicts.len(), 1, "{recipients:?}: one verdict line");
        let verdict = verdicts.last().unwrap();
        assert_eq!(verdict["code"], code(&reply));
        if recipients.len() > 1 {
            assert_eq!(verdict["sent"].as_u64().unwrap_or(0), sent, "{recipients:?}");
        }
        assert!(verdict["warning"].is_null(), "nobody has it twice: {verdict}");
        let id = verdict["message"].as_str().unwrap();
        assert_eq!(journal().lines("recipient_refused", "message", id).len(), refused, "{recipients:?}");

        let outbox = stand.dispatch.outbox();
        assert_eq!(outbox.backlog().messages, usize::from(held.is_some()), "{recipients:?}");
        if let Some((cause, marks)) = held {
            assert_eq!(reply, format!("250 2.0.0 queued as {id}\r\n"));
            assert_eq!((&verdict["event"], &verdict["cause"]), (&"message_queued".into(), &cause.word().into()));
            let (_, entry) = outbox.entry(MessageId::parse(id).unwrap()).await.unwrap();
            assert_eq!(entry.progress.marks(), marks, "{recipients:?}");
            assert_eq!((entry.cause, entry.unknown), (cause, u32::from(cause == Cause::Unknown)));
        }
        let alarms = journal().lines("upstream_alarm", "tenant", &stand.name);
        alarmed.extend(alarms.iter().map(|alarm| alarm["reason"].as_str().unwrap().to_owned()));
    }
    assert_eq!(
        alarmed,
        ["Email address is not verified: x@y", "User is not authorized", "Sending paused for this account."]
    );
}

/// What may pass later and cannot be held: the client keeps it, and the log says who has it already.
#[tokio::test(flavor = "multi_thread")]
async fn the_replies_to_partial_results_that_cannot_be_held() {
    let mut doubled = 0;
    for (recipients, whole, calls, sent, refused, held) in PARTIAL {
        let (stand, reply) = partial(recipients, Some(SpoolError::Full("the disk is full".into()))).await;
        let expected = if held.is_some() { "452 4.3.1 " } else { whole };
        assert!(reply.starts_with(expected), "{recipients:?}: {reply}");
        assert_eq!(stand.ses.calls().len(), calls, "{recipients:?}");
        assert_eq!(stand.dispatch.outbox().backlog().messages, 0, "{recipients:?}");
        let verdicts = stand.verdicts();
        assert_eq!(verdicts.len(), 1, "{recipients:?}: one verdict line");
        let verdict = verdicts.last().unwrap();
        assert_eq!(verdict["code"], code(&reply));
        if recipients.len() > 1 {
            assert_eq!(verdict["sent"].as_u64().unwrap_or(0), sent, "{recipients:?}");
        }
        let twice = code(&reply) >= 400 && sent > 0;
        doubled += usize::from(twice);
        assert_eq!(verdict["warning"].is_string(), twice, "{recipients:?}: {verdict}");
        if held.is_some() {
            assert!(verdict["reason"].as_str().unwrap().contains("the disk is full"), "{verdict}");
            assert!(!reply.contains("disk is full") && reply.contains("no room to hold it"), "{reply}");
        }
        let id = verdict["message"].as_str().unwrap();
        assert_eq!(journal().lines("recipient_refused", "message", id).len(), refused, "{recipients:?}");
        // A client learns of it when it comes again.
        let greeting = Client::connect(stand.starttls).await.reply().await;
        assert_eq!(code(&greeting), 220);
        assert_eq!(greeting.contains("no mail can be held"), held.is_some(), "{greeting}");
    }
    assert_eq!(doubled, 2);
}

/// While nothing can be held no held mail asks whether SES answers again: new mail does, one message
/// at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_closes_by_new_mail_while_nothing_can_be_held() {
    let (stand, reply) = partial(&["throttled-1"], Some(SpoolError::Full("the disk is full".into()))).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    let mut client = stand.client("app").await;
    // Before its time nobody is asked.
    let reply = client.send(&stand.sender(), &["a@example.com"], &stand.message("")).await;
    assert!(reply.starts_with("452 4.3.1 ") && reply.contains("sending rate"), "{reply}");
    assert_eq!(stand.ses.calls().len(), 1);
    // Then one is, and while it has no answer no other.
    stand.dispatch.try_now(None);
    client.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    client.data(&stand.message("")).await;
    stand.ses.hanging().await;
    let mut other = stand.client("bound").await;
    let reply = other.send(&stand.sender(), &["b@example.com"], &stand.message("")).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(stand.ses.calls().len(), 2);
    stand.ses.release();
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0 Ok "), "{reply}");
    let reply = other.send(&stand.sender(), &["b@example.com"], &stand.message("")).await;
    assert!(reply.starts_with("250 2.0.0 Ok "), "{reply}");
}

/// The same alarm again within the minute is no news, whether new mail or held mail gives it.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_given_once_a_minute() {
    let stand = Stand::start().await;
    let mut client = stand.client("app").await;
    for n in 0..3 {
        let to = format!("unverified-{n}@example.com");
        assert_eq!(code(&client.send(&stand.sender(), &[&to], &stand.message("")).await), 550);
    }
    let alarms = || journal().lines("upstream_alarm", "tenant", &stand.name).len();
    assert_eq!((alarms(), stand.ses.calls().len()), (1, 3));

    let reply = client.send(&stand.sender(), &["denied-1@example.com"], &stand.message("")).await;
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    assert_eq!(alarms(), 2);
    let id = stand.verdicts().pop().unwrap()["message"].as_str().unwrap().to_owned();
    let stop = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&stand.dispatch).run(stop.clone(), stop.clone(), Duration::ZERO));
    let outbox = stand.dispatch.outbox();
    let far = bulkhead::time::Timestamp::from_millis(u64::MAX);
    outbox.retry(MessageId::parse(&id).unwrap(), far).await.unwrap();
    stand.dispatch.try_now(Some(&Lane { tenant: stand.tenant.id.clone(), stream: "transactional".parse().ok() }));
    let line = journal().wait("message_deferred", "message", &id).await;
    assert_eq!((&line["cause"], &line["attempts"]), (&"access_denied".into(), &1.into()));
    assert_eq!((alarms(), stand.ses.calls().len()), (2, 5));
    stop.cancel();
    soon("the dispatcher's end", running).await.unwrap();
}

/// A call that is refused for good is refused for each of its recipients, and each has its line.
#[tokio::test(flavor = "multi_thread")]
async fn every_recipient_of_a_refused_batch_has_its_own_line() {
    let mut stand = Stand::start().await;
    for stream in stand.tenant.streams.values_mut() {
        stream.fan_out = FanOut::Batch;
    }
    stand.publish();
    let mut client = stand.client("app").await;
    let mut to: Vec<String> = (0..50).map(|n| format!("good{n}@example.com")).collect();
    // The first of the second call says what becomes of it. Domains tell them apart in the log.
    to.extend((0..12).map(|n| format!("refused-{n}@d{n}.example")));
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let reply = client.send(&stand.sender(), &to, &stand.message("")).await;
    assert!(reply.starts_with("250 2.0.0 Ok ") && reply.ends_with(" 50 recipients\r\n"), "{reply}");
    assert_eq!(stand.ses.calls().iter().map(|call| call.recipients.len()).collect::<Vec<_>>(), [50, 12]);
    let verdicts = stand.verdicts();
    let lines = journal().lines("recipient_refused", "message", verdicts[0]["message"].as_str().unwrap());
    let told: Vec<_> = lines.iter().map(|line| line["recipients"].clone()).collect();
    assert_eq!(told, (0..12).map(|n| serde_json::json!([format!("d{n}.example")])).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line["reason"].as_str().unwrap().contains("control or whitespace")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn above_one_mebibyte_recipients_share_calls() {
    let stand = Stand::start().await;
    let mut client = stand.client("app").await;
    let line = format!("{}\r\n", "x".repeat(70));
    let message = stand.message("") + &line.repeat(16 * 1024);
    let reply = client.send(&stand.sender(), &["a@example.com", "b@example.com"], &message).await;
    assert_eq!(reply, "250 2.0.0 Ok ses-0\r\n", "one call, so SES's own id");
    let calls = stand.ses.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].recipients.len(), 2);
    assert!(calls[0].raw.ends_with(message.split_once("\r\n\r\n").unwrap().1.as_bytes()));
}

/// What a complaint binds is known only once the message has named its stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_only_the_chosen_stream_refuses_is_left_out_after_data() {
    let stand = Stand::start().await;
    suppress(&stand, "angry@example.com", SuppressionReason::Complaint).await;
    let mut client = stand.client("app").await;
    let marketing = stand.message("X-Bulkhead-Stream: marketing\r\n");
    let table = [
        (vec!["angry@example.com", "glad@example.com"], marketing.as_str(), "250 2.0.0 Ok ", vec!["glad@example.com"]),
        (vec!["angry@example.com"], marketing.as_str(), "550 5.7.1 ", vec![]),
        (vec!["angry@example.com"], &stand.message(""), "250 2.0.0 Ok ", vec!["angry@example.com"]),
    ];
    for (to, message, expected, served) in table {
        let before = stand.ses.calls().len();
        let reply = client.send(&stand.sender(), &to, message).await;
        assert!(reply.starts_with(expected), "{to:?}: {reply}");
        let calls = stand.ses.calls();
        let got: Vec<String> =
            calls[before..].iter().flat_map(|call| &call.recipients).map(ToString::to_string).collect();
        assert_eq!(got, served);
    }
    let lines = journal().lines("recipient_suppressed", "tenant", &stand.name);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["stream"] == "marketing"));
    assert_eq!(stand.verdicts().len(), 3);

    // The store does not answer any more: that is no suppression, and nobody is served.
    let replies = client.envelope(&stand.sender(), &["glad@example.com"]).await;
    assert_eq!(code(&replies[0]), 250);
    stand.store.fail_with("the disk is gone");
    client.data(&marketing).await;
    let reply = client.reply().await;
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    assert_eq!(stand.verdicts().last().unwrap()["blame"], "us");
}

/// Each entry of an address binds as if it stood alone, and the client hears the most telling one.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_beside_a_complaint_is_refused_on_every_stream() {
    use SuppressionReason::{Bounce, Complaint, Manual};
    let mut stand = Stand::start().await;
    stand.credentials.push(credential(&stand.name, "news", Some("marketing"), vec![hash(SECRET)]));
    stand.publish();
    for (mailbox, reasons) in [
        ("angry@example.com", &[Complaint][..]),
        ("dead@example.com", &[Complaint, Bounce]),
        ("by-hand@example.com", &[Complaint, Manual]),
    ] {
        for reason in reasons {
            suppress(&stand, mailbox, *reason).await;
        }
    }
    // Bound to transactional, bound to marketing, free to choose.
    for (login, replies) in [
        ("bound", ["250 2.1.5 ", "550 5.1.1 ", "550 5.7.1 "]),
        ("news", ["550 5.7.1 ", "550 5.1.1 ", "550 5.7.1 "]),
        ("app", ["250 2.1.5 ", "550 5.1.1 ", "550 5.7.1 "]),
    ] {
        let mut client = stand.client(login).await;
        let told =
            client.envelope(&stand.sender(), &["angry@example.com", "dead@example.com", "by-hand@example.com"]).await;
        for (told, expected) in told.iter().zip(replies) {
            assert!(told.starts_with(expected), "{login}: {told}");
        }
        assert!(told[1].contains("hard bounce"), "{login}: {}", told[1]);
    }
}

/// Damage is our fault: who it hits is told to come again, never that nobody knows them.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_defers_its_own_and_nobody_else() {
    let stand = Stand::start().await;
    let mut open = [stand.client("app").await, stand.client("app").await, stand.client("app").await];
    assert_eq!(code(&open[1].say(&format!("MAIL FROM:<{}>", stand.sender())).await), 250);
    assert!(open[2].envelope(&stand.sender(), &["one@example.com"]).await.iter().all(|reply| code(reply) == 250));
    let whole = stand.directory.load_full();
    let fault = |tenant: bool| Fault {
        key: Key::tenant(&stand.tenant.id),
        tenant: tenant.then(|| stand.tenant.id.clone()),
        username: (!tenant).then(|| stand.username("app").parse().unwrap()),
        what: "a test's".into(),
    };

    // The tenant: at MAIL, at RCPT and at the end of the data, in sessions that go on.
    let others = stand.credentials.clone();
    stand.directory.store(Arc::new(Directory::new([], others.clone()).with_faults(vec![fault(true)])));
    let replies = [
        open[0].say(&format!("MAIL FROM:<{}>", stand.sender())).await,
        open[1].say("RCPT TO:<one@example.com>").await,
        {
            open[2].data(&stand.message("")).await;
            open[2].reply().await
        },
    ];
    for reply in replies {
        assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    }
    assert_eq!(stand.verdicts().last().unwrap()["blame"], "us");
    for event in ["sender_refused", "recipient_deferred"] {
        assert_eq!(journal().lines(event, "tenant", &stand.name)[0]["blame"], "us", "{event}");
    }
    // The right secret is deferred and counts as no failure; the wrong one is refused as ever.
    let mut client = Client::starttls(stand.starttls, &stand.ca).await;
    for _ in 0..10 {
        let reply = client.login(&stand.username("app"), SECRET).await;
        assert!(reply.starts_with("454 4.7.0 "), "{reply}");
    }
    assert_eq!(code(&client.login(&stand.username("app"), "wrong").await), 535);
    let line = journal().wait("login_deferred", "peer", &client.local.to_string()).await;
    assert!(line["reason"].as_str().unwrap().contains("damaged"), "{line}");

    // One credential: others of the tenant are served.
    let others = others.into_iter().filter(|one| one.username.as_str() != stand.username("app"));
    stand.directory.store(Arc::new(Directory::new([stand.tenant.clone()], others).with_faults(vec![fault(false)])));
    let reply = open[0].say(&format!("MAIL FROM:<{}>", stand.sender())).await;
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    let mut client = Client::starttls(stand.starttls, &stand.ca).await;
    let reply = client.login(&stand.username("app"), SECRET).await;
    assert!(reply.starts_with("454 4.7.0 "), "{reply}");
    let mut other = stand.client("bound").await;
    assert_eq!(code(&other.send(&stand.sender(), &["one@example.com"], &stand.message("")).await), 250);

    // Repaired: the same sessions send.
    stand.directory.store(whole);
    for client in &mut open {
        assert_eq!(code(&client.say("RSET").await), 250);
        assert_eq!(code(&client.send(&stand.sender(), &["one@example.com"], &stand.message("")).await), 250);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_after_data_leaves_the_conversation_in_step() {
    let stand = Stand::start().await;
    let mut client = stand.client("app").await;
    let hops = "Received: by x.example; Fri, 01 May 2026 09:15:02 +0000\r\n";
    let table = [
        (stand.message(&hops.repeat(51)), "554 5.4.6 "),
        (stand.message("no field\r\n"), "554 5.6.0 "),
        (stand.message("Subject: again\r\n"), "554 5.6.0 "),
        ("To: x@example.com\r\n\r\nbody\r\n".to_owned(), "554 5.6.0 "),
        ("From: boss@other.example\r\n\r\nbody\r\n".to_owned(), "550 5.7.1 "),
        (stand.message("X-Bulkhead-Stream: nobodys\r\n"), "550 5.7.1 "),
        (stand.message("X-SES-CONFIGURATION-SET: other-set\r\n"), "550 5.7.1 "),
    ];
    for (n, (message, expected)) in table.iter().enumerate() {
        let reply = client.send(&stand.sender(), &["a@example.com"], message).await;
        assert!(reply.starts_with(expected), "{reply}\n{message}");
        assert_eq!(stand.verdicts().len(), n + 1, "{message}");
    }
    assert_eq!(stand.ses.calls().len(), 0);
    let reply = client.send(&stand.sender(), &["a@example.com"], &stand.message(&hops.repeat(50))).await;
    assert_eq!(code(&reply), 250, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_and_recipient_are_judged_at_their_commands() {
    let stand = Stand::start().await;
    let mut client = stand.client("app").await;
    let reply = client.say("MAIL FROM:<boss@other.example>").await;
    assert!(reply.starts_with("550 5.7.1 "), "{reply}");
    assert_eq!(journal().lines("sender_refused", "tenant", &stand.name).len(), 1);
    stand.store.fail_with("the disk is gone");
    let replies = client.envelope(&stand.sender(), &["a@example.com"]).await;
    assert!(replies[0].starts_with("451 4.3.0 "), "{replies:?}");
    assert_eq!(journal().lines("recipient_deferred", "tenant", &stand.name)[0]["blame"], "us");
    stand.store.heal();
    assert_eq!(code(&client.say("RCPT TO:<a@example.com>").await), 250);
}

/// What was taken away is nobody's fault but the login's; what points nowhere is the operator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_blamed_on_whose_it_is() {
    let mut stand = Stand::start().await;
    let mut open = [stand.client("bound").await, stand.client("bound").await, stand.client("bound").await];
    assert_eq!(code(&open[1].say(&format!("MAIL FROM:<{}>", stand.sender())).await), 250);
    assert!(open[2].envelope(&stand.sender(), &["one@example.com"]).await.iter().all(|reply| code(reply) == 250));
    suppress(&stand, "two@example.com", SuppressionReason::Bounce).await;

    // The stream that the credential is bound to is gone: at MAIL, at RCPT, after DATA.
    let stream = stand.tenant.streams.remove(&"transactional".parse().unwrap()).unwrap();
    stand.tenant.default_stream = "marketing".parse().unwrap();
    stand.publish();
    for reply in [
        open[0].say(&format!("MAIL FROM:<{}>", stand.sender())).await,
        open[1].say("RCPT TO:<two@example.com>").await,
        {
            open[2].data(&stand.message("")).await;
            open[2].reply().await
        },
    ] {
        assert!(reply.starts_with("451 "), "{reply}");
    }
    for event in ["sender_refused", "recipient_deferred", "message_refused"] {
        let lines = journal().lines(event, "tenant", &stand.name);
        assert_eq!((lines.len(), &lines[0]["blame"]), (1, &"us".into()), "{event}: {lines:?}");
    }

    // The credential is gone, in the middle of a transaction.
    stand.tenant.streams.insert(stream.id.clone(), stream);
    stand.publish();
    stand.credentials.clear();
    stand.publish();
    let reply = open[1].say("RCPT TO:<one@example.com>").await;
    assert!(reply.starts_with("421 "), "{reply}");
    let lines = journal().lines("recipient_deferred", "tenant", &stand.name);
    assert_eq!((lines.len(), &lines[1]["blame"], &lines[1]["code"]), (2, &"client".into(), &421.into()), "{lines:?}");
    assert_eq!(lines[1]["recipients"], serde_json::json!(["example.com"]));
}

// ---------------------------------------------------------------------------------------------
// Clients that go, mailers that hang

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_changes_nothing_about_its_message() {
    let stand = Stand::start().await;
    let mut client = stand.client("app").await;
    client.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    client.data(&stand.message("")).await;
    stand.ses.hanging().await;
    drop(client);
    assert_eq!(stand.verdicts().len(), 0);
    stand.ses.release();
    let line = journal().wait("message_relayed", "tenant", &stand.name).await;
    assert_eq!(line["ses_id"], "ses-0");
    assert_eq!(stand.verdicts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailer_that_hangs_holds_up_nobody_else() {
    let stand = Stand::start().await;
    let mut stuck = stand.client("app").await;
    stuck.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    stuck.data(&stand.message("")).await;
    stand.ses.hanging().await;
    let mut good = stand.client("app").await;
    assert_eq!(code(&good.send(&stand.sender(), &["a@example.com"], &stand.message("")).await), 250);
    stand.ses.release();
    assert_eq!(code(&stuck.reply().await), 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_connection_ends_that_connection_alone() {
    let stand = Stand::with(Limits { connections: 2, connections_per_tenant: 2, ..limits() }).await;
    let mut bystander = stand.client("app").await;
    let mut client = stand.client("app").await;
    client.envelope(&stand.sender(), &[]).await;
    stand.store.panic_once();
    client.write(b"RCPT TO:<a@example.com>\r\n").await;
    assert!(client.closed().await);
    let line = journal().wait("session_closed", "peer", &client.local.to_string()).await;
    assert_eq!(line["reason"], "panicked");
    assert_eq!(code(&bystander.send(&stand.sender(), &["a@example.com"], &stand.message("")).await), 250);
    // Its places came back.
    let mut next = greeted(&stand, 220).await;
    assert_eq!(code(&next.say("QUIT").await), 221);
}

// ---------------------------------------------------------------------------------------------
// Logins

/// What the session refuses without asking anybody: response, username and reason in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_can_only_be_wrong_is_logged_and_shows_no_secret() {
    use base64::Engine as _;
    let stand = Stand::start().await;
    let (user, long) = (stand.username("app"), "n".repeat(256));
    let cases = [
        (format!("boss\0{user}\0{SECRET}"), user.as_str(), "authorisation identity"),
        (format!("\0\0{SECRET}"), "", "username is empty"),
        (format!("\0{user}\0"), &user, "secret is empty"),
        (format!("\0{long}\0{SECRET}"), &long[..64], "username is longer than 255"),
        (format!("\0{user}\0{}", SECRET.repeat(50)), &user, "secret is longer than 1024"),
    ];
    for (response, username, reason) in cases {
        let mut client = Client::starttls(stand.starttls, &stand.ca).await;
        client.say("EHLO client.example").await;
        let response = base64::engine::general_purpose::STANDARD.encode(response);
        assert!(client.say(&format!("AUTH PLAIN {response}")).await.starts_with("535 5.7.8 "), "{reason}");
        let lines = journal().lines("login_refused", "peer", &client.local.to_string());
        assert_eq!(lines.len(), 1, "{reason}");
        assert_eq!((&lines[0]["credential"], &lines[0]["blame"]), (&username.into(), &"client".into()));
        assert!(lines[0]["reason"].as_str().unwrap().contains(reason), "{reason}: {}", lines[0]);
        assert!(journal().all("peer", &client.local.to_string()).iter().all(|line| !line.to_string().contains(SECRET)));
    }
    // One session's attempts, sent in one go: a line each, and the one too many ends it.
    let mut client = Client::starttls(stand.starttls, &stand.ca).await;
    client.say("EHLO client.example").await;
    client.write(b"AUTH PLAIN AABw\r\nAUTH PLAIN AABw\r\nAUTH PLAIN AABw\r\n").await;
    for expected in [535, 535, 421] {
        assert_eq!(code(&client.reply().await), expected);
    }
    assert_eq!(journal().lines("login_refused", "peer", &client.local.to_string()).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_login_hears_the_same_words() {
    let mut stand = Stand::start().await;
    let mut elsewhere = support::credential(&stand.name, "elsewhere", None, vec![hash(SECRET)]);
    elsewhere.from_ip = vec!["192.0.2.0/24".parse().unwrap()];
    let mut expired = support::credential(&stand.name, "expired", None, vec![hash(SECRET)]);
    expired.expires = Some(long_ago());
    stand.credentials.extend([elsewhere, expired]);
    stand.publish();
    let cases = [
        (stand.username("app"), "wrong", "wrong secret"),
        (stand.username("chosen"), SECRET, "wrong secret"),
        (stand.username("nobody"), SECRET, "unknown username"),
        (stand.username("elsewhere"), SECRET, "the client's address is not in the credential's from_ip"),
        (stand.username("expired"), SECRET, "the credential has expired"),
    ];
    let mut replies = Vec::new();
    for (username, secret, reason) in cases {
        let mut client = Client::starttls(stand.starttls, &stand.ca).await;
        replies.push(client.login(&username, secret).await);
        let line = journal().wait("login_refused", "credential", &username).await;
        assert_eq!(line["reason"], reason);
    }
    assert!(replies[0].starts_with("535 5.7.8 "), "{replies:?}");
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    let all = journal().all("tenant", &stand.name);
    assert!(!format!("{all:?}").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_password_logs_in_and_its_cache_knows_of_a_rotation() {
    let mut stand = Stand::start().await;
    for _ in 0..2 {
        let mut client = Client::starttls(stand.starttls, &stand.ca).await;
        assert_eq!(code(&client.login(&stand.username("chosen"), PASSWORD).await), 235);
    }
    stand.credentials[2].secrets[0].hash = chosen("another one");
    stand.publish();
    let mut client = Client::starttls(stand.starttls, &stand.ca).await;
    assert_eq!(code(&client.login(&stand.username("chosen"), PASSWORD).await), 535);
    let mut client = Client::starttls(stand.starttls, &stand.ca).await;
    assert_eq!(code(&client.login(&stand.username("chosen"), "another one").await), 235);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_beyond_the_bound_are_put_off_and_not_counted() {
    let stand = Stand::with(Limits { auth_verifications: 0, auth_wait: Duration::ZERO, ..limits() }).await;
    let mut client = Client::starttls(stand.starttls, &stand.ca).await;
    for _ in 0..4 {
        let reply = client.login(&stand.username("chosen"), PASSWORD).await;
        assert!(reply.starts_with("454 4.7.0 "), "{reply}");
    }
    assert_eq!(code(&client.login(&stand.username("app"), SECRET).await), 235, "a quick hash needs no place");
}

/// A change of the directory in the middle of a session, and what the next command hears.
#[tokio::test(flavor = "multi_thread")]
async fn revoke_rotate_and_pause_are_heard_at_the_next_command() {
    type Change = fn(&mut Stand);
    let revoke: Change = |stand| stand.credentials.clear();
    let rotate: Change = |stand| stand.credentials[0].secrets[0].hash = hash("the new one");
    let pause: Change = |stand| {
        stand.tenant.pause =
            Some(Pause { at: long_ago(), actor: "cli:root".into(), reason: "too many bounces".into() });
    };
    let nothing: Change = |_| {};
    // (change, reply to MAIL, whether the connection ends)
    let table: [(&str, Change, &str, bool); 4] = [
        ("revoke", revoke, "421 4.7.0 ", true),
        ("rotate", rotate, "421 4.7.0 ", true),
        ("pause", pause, "451 4.7.1 ", false),
        ("nothing", nothing, "250 ", false),
    ];
    for (name, change, expected, ends) in table {
        let mut stand = Stand::start().await;
        let mut at_mail = stand.client("app").await;
        let mut at_rcpt = stand.client("app").await;
        let mut at_data = stand.client("app").await;
        assert_eq!(code(&at_rcpt.envelope(&stand.sender(), &[]).await.len().to_string()), 0);
        at_data.envelope(&stand.sender(), &["a@example.com"]).await;
        assert_eq!(code(&at_data.say("DATA").await), 354);
        change(&mut stand);
        stand.publish();

        let reply = at_mail.say(&format!("MAIL FROM:<{}>", stand.sender())).await;
        assert!(reply.starts_with(expected), "{name}: {reply}");
        assert_eq!(ends, code(&at_mail.say("NOOP").await) != 250, "{name}");
        let reply = at_rcpt.say("RCPT TO:<a@example.com>").await;
        assert_eq!(ends, code(&reply) == 421, "{name}: {reply}");
        at_data.write(format!("{}.\r\n", stand.message("")).as_bytes()).await;
        let reply = at_data.reply().await;
        assert!(reply.starts_with(expected), "{name}: {reply}");
        assert_eq!(stand.ses.calls().len(), usize::from(name == "nothing"), "{name}");
        assert_eq!(stand.verdicts().len(), 1, "{name}");
        if name == "pause" {
            assert!(reply.contains("too many bounces"), "{reply}");
            let mut client = stand.client("app").await;
            assert_eq!(code(&client.say("NOOP").await), 250, "a paused tenant logs in to hear why");
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Admission

/// Connects until the greeting is `code`: places come back when the server has seen the end.
async fn greeted(stand: &Stand, expected: u16) -> Client {
    soon("a greeting", async {
        loop {
            let mut client = Client::connect(stand.starttls).await;
            if code(&client.reply().await) == expected {
                return client;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rung_has_its_421() {
    let table: [(&str, Limits, &str); 4] = [
        ("connections", Limits { connections: 2, ..limits() }, "421 4.3.2 "),
        ("connections_per_ip", Limits { connections_per_ip: 2, ..limits() }, "421 4.7.0 "),
        ("memory", Limits { memory_bytes: 0, ..limits() }, "421 4.3.1 "),
        ("store", limits(), "421 4.3.0 "),
    ];
    for (limit, limits, expected) in table {
        let stand = Stand::with(limits).await;
        stand.store_available.store(limit != "store", Ordering::Relaxed);
        let counted = limit.starts_with("connections");
        let mut held = Vec::new();
        if counted {
            held.push(Client::plain(stand.starttls).await);
            held.push(Client::implicit(stand.implicit, &stand.ca).await.unwrap());
        }
        let mut refused = Client::connect(stand.starttls).await;
        let reply = refused.reply().await;
        assert!(reply.starts_with(expected), "{limit}: {reply}");
        assert!(refused.closed().await, "{limit}");
        let line = journal().wait("session_refused", "peer", &refused.local.to_string()).await;
        assert_eq!((&line["reason"], &line["code"]), (&limit.into(), &421.into()));
        // On implicit TLS there are no words, and no handshake for them.
        let mut unsecured = Client::connect(stand.implicit).await;
        assert_eq!(unsecured.reply().await, "", "{limit}");
        assert!(Client::implicit(stand.implicit, &stand.ca).await.is_err(), "{limit}");
        if counted {
            drop(held);
            greeted(&stand, 220).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_its_own_number_of_connections() {
    let stand = Stand::with(Limits { connections_per_tenant: 1, ..limits() }).await;
    let first = stand.client("app").await;
    let mut second = Client::starttls(stand.starttls, &stand.ca).await;
    let reply = second.login(&stand.username("bound"), SECRET).await;
    assert!(reply.starts_with("421 4.7.0 ") && reply.contains("connections_per_tenant"), "{reply}");
    assert!(second.closed().await);
    drop(first);
    soon("a place", async {
        loop {
            let mut client = Client::starttls(stand.starttls, &stand.ca).await;
            if code(&client.login(&stand.username("bound"), SECRET).await) == 235 {
                return;
            }
        }
    })
    .await;
}

/// Who is over `limits.refusals` too is not even told so.
#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_are_turned_away_with_words() {
    for (refusals, heard) in [(1, "421 4.3.2 "), (0, "")] {
        let stand = Stand::with(Limits { connections: 1, refusals, ..limits() }).await;
        let _held = Client::plain(stand.clear).await;
        let mut client = Client::connect(stand.clear).await;
        // Closed without a word the system may also call it a reset.
        let reply = client.reply().await;
        assert!(reply.starts_with(heard) && reply.is_empty() == heard.is_empty(), "{refusals}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_header_section_may_be_longer_where_the_settings_say_so() {
    for (line, expected) in [(998, 554), (1500, 250)] {
        let header = bulkhead::mail::header::HeaderLimits { line, ..limits().header };
        let stand = Stand::with(Limits { header, ..limits() }).await;
        let mut client = stand.client("app").await;
        let message = format!("X-Long: {}\r\n{}", "x".repeat(1400), stand.message(""));
        let reply = client.send(&stand.sender(), &["a@example.com"], &message).await;
        assert_eq!(code(&reply), expected, "{reply}");
        assert_eq!(reply.contains("longer than 998 octets"), expected == 554, "{reply}");
    }
}

/// The last reply is neither lost to a reset nor left without TLS's close_notify.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_closed_in_order() {
    let stand = Stand::start().await;
    let mut plain = Client::plain(stand.clear).await;
    let clients =
        [Client::starttls(stand.starttls, &stand.ca).await, Client::implicit(stand.implicit, &stand.ca).await.unwrap()];
    // More than one read takes, behind the QUIT that ends it.
    plain.write(format!("QUIT\r\n{}", "NOOP\r\n".repeat(8000)).as_bytes()).await;
    for mut client in clients.into_iter().chain([plain]) {
        client.write(b"QUIT\r\n").await;
        assert_eq!(code(&client.reply().await), 221);
        client.end().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_leaves_no_lines() {
    let mut stand = Stand::start().await;
    let mut silent = Vec::new();
    for address in [stand.starttls, stand.implicit, stand.proxied] {
        silent.push(Client::connect(address).await.local);
    }
    // Listeners accept in order: who is served now comes after them, and the drain ends after all.
    Client::plain(stand.starttls).await.say("QUIT").await;
    Client::implicit(stand.implicit, &stand.ca).await.unwrap().say("QUIT").await;
    let mut balanced = Client::connect(stand.proxied).await;
    balanced.write(b"PROXY UNKNOWN\r\n").await;
    assert_eq!(code(&balanced.reply().await), 220);
    drop(balanced);
    stand.stop().await;
    for peer in silent {
        assert_eq!(journal().all("peer", &peer.to_string()), Vec::<serde_json::Value>::new());
    }
}

// ---------------------------------------------------------------------------------------------
// The PROXY protocol

fn version_2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\x00\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend(source);
    header.extend([10, 0, 0, 1, 0x30, 0x39, 0x02, 0x4b]);
    header
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_behind_a_balancer_is_the_one_in_the_header() {
    let mut stand = Stand::start().await;
    stand.credentials[0].from_ip = vec!["192.0.2.0/24".parse().unwrap()];
    stand.publish();
    let table: [(&[u8], u16, Option<&str>); 4] = [
        (b"PROXY TCP4 192.0.2.71 10.0.0.1 12345 587\r\n", 235, Some("192.0.2.71:12345")),
        (b"PROXY TCP4 198.51.100.71 10.0.0.1 12345 587\r\n", 535, Some("198.51.100.71:12345")),
        (&version_2(1, [192, 0, 2, 72]), 235, Some("192.0.2.72:12345")),
        (&version_2(0, [192, 0, 2, 73]), 535, None),
    ];
    for (header, expected, peer) in table {
        let mut client = Client::connect(stand.proxied).await;
        client.write(header).await;
        assert_eq!(code(&client.reply().await), 220);
        let reply = client.login(&stand.username("app"), SECRET).await;
        assert_eq!(code(&reply), expected, "{reply}");
        let own = client.local.to_string();
        match peer {
            Some(peer) => {
                journal().wait("session_opened", "peer", peer).await;
            }
            // LOCAL: the balancer itself, whose sessions are not logged.
            None => assert_eq!(journal().lines("session_opened", "peer", &own), Vec::<serde_json::Value>::new()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_the_client_behind_the_balancer() {
    let stand = Stand::with(Limits { connections_per_ip: 1, ..limits() }).await;
    let mut held = Vec::new();
    for (source, expected) in [("192.0.2.1", 220), ("192.0.2.2", 220), ("192.0.2.1", 421), ("192.0.2.3", 220)] {
        let mut client = Client::connect(stand.proxied).await;
        client.write(format!("PROXY TCP4 {source} 10.0.0.1 1 587\r\n").as_bytes()).await;
        assert_eq!(code(&client.reply().await), expected, "{source}");
        held.push(client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_and_no_trust_are_refused() {
    let stand = Stand::with(Limits { proxy_time: Duration::from_millis(100), ..limits() }).await;
    let table = [
        (stand.distrustful, "PROXY TCP4 192.0.2.1 10.0.0.1 1 587\r\n", "trusted_proxies"),
        (stand.proxied, "EHLO client.example\r\n", "does not begin"),
        (stand.proxied, "PROXY TCP4 nonsense\r\n", "malformed"),
        (stand.proxied, "PROXY TCP4 192.0", "within limits.proxy_seconds"),
    ];
    for (address, octets, words) in table {
        let mut client = Client::connect(address).await;
        client.write(octets.as_bytes()).await;
        assert!(client.closed().await, "{words}");
        let line = journal().wait("proxy_refused", "peer", &client.local.to_string()).await;
        assert!(line["reason"].as_str().unwrap().contains(words), "{line}");
    }
}

// ---------------------------------------------------------------------------------------------
// TLS

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_serves_the_next_connection_and_drops_none() {
    let stand = Stand::start().await;
    let mut open = Client::implicit(stand.implicit, &stand.ca).await.unwrap();
    let mut before = Client::plain(stand.starttls).await;
    let (new_ca, certificate, key) = self_signed(&["relay.example".into()]).unwrap();
    stand.certificates.replace(&certificate, &key).unwrap();

    assert_eq!(code(&open.login(&stand.username("app"), SECRET).await), 235);
    assert_eq!(code(&open.send(&stand.sender(), &["a@example.com"], &stand.message("")).await), 250);
    assert!(Client::implicit(stand.implicit, &stand.ca).await.is_err(), "the old CA is no longer of use");
    assert!(Client::implicit(stand.implicit, &new_ca).await.is_ok());
    assert_eq!(code(&before.say("NOOP").await), 250);
    Client::starttls(stand.starttls, &new_ca).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_handshake_is_logged_and_ends_that_connection() {
    let stand = Stand::with(Limits { handshake_time: Duration::from_millis(200), ..limits() }).await;
    for octets in [b"EHLO client.example\r\n".as_slice(), b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = Client::connect(stand.implicit).await;
        client.write(octets).await;
        let line = journal().wait("tls_failed", "peer", &client.local.to_string()).await;
        assert_eq!(line["blame"], "client");
        let line = journal().wait("session_closed", "peer", &client.local.to_string()).await;
        assert_eq!(line["reason"], "tls_failed");
        // An alert may be there; then it ends.
        client.reply().await;
        assert!(client.closed().await);
    }
    assert!(Client::implicit(stand.implicit, &stand.ca).await.is_ok());
}

/// A clock that goes when it is told to.
struct Hands {
    began: std::time::Instant,
    at: std::sync::Mutex<Duration>,
    /// How often it was looked at.
    looks: AtomicUsize,
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap().plus(*self.at.lock().unwrap())
    }
    fn instant(&self) -> std::time::Instant {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.began + *self.at.lock().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_renews_is_warned_of_every_day() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    journal();
    let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2026, 6, 15);
    let key = rcgen::KeyPair::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate_file, key_file) = (dir.path().join("relay.pem"), dir.path().join("relay.key"));
    std::fs::write(&certificate_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let file = certificate_file.display().to_string();
    let told = || journal().lines("certificate_ends", "file", &file);

    let hands = Arc::new(Hands {
        began: std::time::Instant::now(),
        at: std::sync::Mutex::default(),
        looks: AtomicUsize::new(0),
    });
    let certificates =
        Arc::new(Certificates::load(&certificate_file, &key_file, Arc::clone(&hands) as Arc<dyn Clock>).unwrap());
    let drain = CancellationToken::new();
    let watch = tokio::spawn(Arc::clone(&certificates).watch(Duration::from_millis(1), drain.clone()));
    assert_eq!(told().len(), 0, "fourteen days are no news");
    // Day after day, to the day after its end.
    for day in 1..=15 {
        *hands.at.lock().unwrap() += DAY;
        support::soon("the day's warning", async {
            while told().len() < day {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    // Less than a day later nothing is said again, however often the watch looks.
    *hands.at.lock().unwrap() += DAY - Duration::from_secs(1);
    let before = hands.looks.load(Ordering::Relaxed);
    support::soon("the watch's looks", async {
        while hands.looks.load(Ordering::Relaxed) < before + 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drain.cancel();
    watch.await.unwrap();
    let lines = told();
    assert_eq!(lines.len(), 15);
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_ne!(reasons.first(), reasons.last(), "an end that is over is told as such");
    assert!(lines.iter().all(|line| line["expires"] == "2026-06-15T00:00:00.000Z"), "{lines:?}");
}

// ---------------------------------------------------------------------------------------------
// Crowds, memory, the drain

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_slow_clients_does_not_keep_a_good_one_waiting() {
    const EACH: usize = 100;
    let stand = Stand::with(Limits { connections_per_ip: 1000, handshake_time: support::PATIENCE, ..limits() }).await;
    let mut crowd = Vec::new();
    for _ in 0..EACH {
        // Idle after the greeting; the beginning of a TLS record; the beginning of a command.
        crowd.push(Client::plain(stand.starttls).await);
        let mut hello = Client::connect(stand.implicit).await;
        hello.write(b"\x16\x03\x01\x02\x00\x01\x00").await;
        crowd.push(hello);
        let mut dribbler = Client::plain(stand.clear).await;
        dribbler.write(b"EH").await;
        crowd.push(dribbler);
    }
    let began = std::time::Instant::now();
    for _ in 0..10 {
        let mut good = stand.client("app").await;
        assert_eq!(code(&good.send(&stand.sender(), &["a@example.com"], &stand.message("")).await), 250);
        let mut other = Client::implicit(stand.implicit, &stand.ca).await.unwrap();
        assert_eq!(code(&other.say("QUIT").await), 221);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for idle in crowd.iter_mut().step_by(3) {
        assert_eq!(code(&idle.say("NOOP").await), 250, "the crowd itself is still served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_memory_has_no_room_for_is_452_and_the_next_one_passes() {
    let limits = Limits { memory_bytes: 256 * 1024, memory_wait: Duration::from_millis(50), ..limits() };
    let stand = Stand::with(limits).await;
    let mut client = stand.client("app").await;
    let line = format!("{}\r\n", "x".repeat(998));
    let large = stand.message("") + &line.repeat(1000);
    for _ in 0..3 {
        let reply = client.send(&stand.sender(), &["a@example.com"], &large).await;
        assert!(reply.starts_with("452 4.3.1 "), "{reply}");
        let reply = client.send(&stand.sender(), &["a@example.com"], &stand.message("")).await;
        assert_eq!(code(&reply), 250, "{reply}");
    }
    assert_eq!(stand.ses.calls().len(), 3);
    // What one message waits for comes when another is done.
    let mut hanging = stand.client("app").await;
    let half = stand.message("") + &line.repeat(150);
    hanging.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    hanging.data(&half).await;
    stand.ses.hanging().await;
    let reply = client.send(&stand.sender(), &["a@example.com"], &half).await;
    assert!(reply.starts_with("452 4.3.1 "), "a message at SES is still held: {reply}");
    stand.ses.release();
    assert_eq!(code(&hanging.reply().await), 250);
    let reply = client.send(&stand.sender(), &["a@example.com"], &half).await;
    assert_eq!(code(&reply), 250, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_counts_small_messages_and_is_free_again_after_a_refused_one() {
    let limits = Limits { memory_bytes: 256 * 1024, memory_wait: Duration::from_millis(50), ..limits() };
    let stand = Stand::with(limits).await;
    let large = stand.message("") + &format!("{}\r\n", "x".repeat(998)).repeat(200);
    let (mut first, mut second) = (stand.client("app").await, stand.client("app").await);
    let too_large = large.clone() + &large.replace(':', "");
    let reply = first.send(&stand.sender(), &["a@example.com"], &too_large).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    let reply = second.send(&stand.sender(), &["a@example.com"], &large).await;
    assert_eq!(code(&reply), 250, "the first holds nothing any more: {reply}");

    // Each takes a step of 64 KiB while SES has it.
    let mut hanging = Vec::new();
    for _ in 0..4 {
        hanging.push(stand.client("app").await);
    }
    for client in &mut hanging {
        client.envelope(&stand.sender(), &["hang-1@example.com"]).await;
        client.data(&stand.message("")).await;
        stand.ses.hanging().await;
    }
    let reply = second.send(&stand.sender(), &["a@example.com"], &stand.message("")).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(stand.verdicts().last().unwrap()["code"], 452);
    for _ in &hanging {
        stand.ses.release();
    }
    for client in &mut hanging {
        assert_eq!(code(&client.reply().await), 250);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_421_to_the_idle_and_finishes_the_busy() {
    let mut stand = Stand::start().await;
    let mut idle = stand.client("app").await;
    let mut unsecured = Client::connect(stand.implicit).await;
    let mut busy = stand.client("app").await;
    busy.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    busy.data(&stand.message("")).await;
    stand.ses.hanging().await;
    stand.drain.cancel();
    let reply = idle.reply().await;
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert!(idle.closed().await);
    assert!(unsecured.closed().await);
    stand.ses.release();
    assert_eq!(code(&busy.reply().await), 250);
    assert_eq!(code(&busy.reply().await), 421);
    assert_eq!(stand.stop().await, 0);
    assert!(tokio::net::TcpStream::connect(stand.starttls).await.is_err(), "nobody listens any more");
}

/// Who still waits for SES shortly before the end is held, and SES's answer counts when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_ses_has_not_answered_by_the_end_of_the_drain_is_held_and_sent_once() {
    let mut stand = Stand::with(Limits { drain_time: Duration::from_secs(2), ..limits() }).await;
    let mut client = stand.client("app").await;
    client.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    client.data(&stand.message("")).await;
    stand.ses.hanging().await;
    assert_eq!(stand.stop().await, 0);
    let reply = client.reply().await;
    let verdicts = stand.verdicts();
    assert_eq!((verdicts.len(), &verdicts[0]["cause"]), (1, &"drain".into()), "{verdicts:?}");
    let id = verdicts[0]["message"].as_str().unwrap();
    assert_eq!(reply, format!("250 2.0.0 queued as {id}\r\n"));
    assert_eq!(code(&client.reply().await), 421);

    let outbox = stand.dispatch.outbox();
    let (slot, entry) = outbox.entry(MessageId::parse(id).unwrap()).await.unwrap();
    assert_eq!((slot.wait, entry.attempts, entry.leased), (Wait::Active, 1, true), "its call goes on");
    stand.ses.release();
    let line = journal().wait("message_dispatched", "message", id).await;
    assert_eq!((&line["sent"], &line["refused"], &line["unknown"]), (&1.into(), &0.into(), &0.into()), "{line}");
    assert_eq!(journal().lines("recipient_relayed", "message", id)[0]["ses_id"], "ses-0");
    assert_eq!((outbox.backlog().messages, stand.spool.ids().len(), stand.ses.calls().len()), (0, 0, 1));
}

/// The deadline of the data is no end of the call either.
#[tokio::test(flavor = "multi_thread")]
async fn what_ses_does_not_answer_in_time_is_held_and_the_late_answer_counts() {
    let stand = Stand::with(Limits { data_deadline: Duration::from_millis(100), ..limits() }).await;
    let mut client = stand.client("app").await;
    let reply = client.send(&stand.sender(), &["hang-1@example.com"], &stand.message("")).await;
    let verdict = stand.verdicts().pop().unwrap();
    let id = verdict["message"].as_str().unwrap();
    assert_eq!(reply, format!("250 2.0.0 queued as {id}\r\n"));
    assert_eq!(verdict["cause"], "deadline");
    // Where it cannot be held the client waits on for the one answer there can be. By another stream,
    // for this one's mail does not overtake what is held.
    stand.spool.fail_with(Some(SpoolError::Io("the disk is gone".into())));
    let mut patient = stand.client("app").await;
    patient.envelope(&stand.sender(), &["hang-2@example.com"]).await;
    patient.data(&stand.message("X-Bulkhead-Stream: marketing\r\n")).await;
    for _ in 0..2 {
        stand.ses.hanging().await;
    }
    let tried = async {
        while stand.spool.writes() < 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("the write that fails", tried).await;
    stand.spool.fail_with(None);
    for _ in 0..2 {
        stand.ses.release();
    }
    let reply = patient.reply().await;
    assert!(reply.starts_with("250 2.0.0 Ok ses-"), "{reply}");
    let line = journal().wait("message_dispatched", "message", id).await;
    assert_eq!((&line["sent"], &line["attempts"]), (&1.into(), &1.into()), "{line}");
    assert_eq!((stand.dispatch.outbox().backlog().messages, stand.ses.calls().len()), (0, 2));
}

/// A call that has no answer at the very end is cut off: the dispatcher ends, and the row says that
/// the message was being sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_outlasts_everything_is_cut_off_and_stays_on_the_disk() {
    let mut stand = Stand::with(Limits { drain_time: Duration::from_secs(2), ..limits() }).await;
    let attempts = CancellationToken::new();
    let dispatch = Arc::clone(&stand.dispatch).run(stand.drain.clone(), attempts.clone(), Duration::from_millis(50));
    let running = tokio::spawn(dispatch);
    let mut client = stand.client("app").await;
    client.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    client.data(&stand.message("")).await;
    stand.ses.hanging().await;
    assert_eq!(stand.stop().await, 0);
    assert!(client.reply().await.starts_with("250 2.0.0 queued as "));
    attempts.cancel();
    assert_eq!(soon("the dispatcher's end", running).await.unwrap(), 1);
    let id = stand.verdicts()[0]["message"].as_str().unwrap().to_owned();
    let (_, entry) = stand.dispatch.outbox().entry(MessageId::parse(&id).unwrap()).await.unwrap();
    assert_eq!((entry.leased, entry.progress.marks().as_str()), (true, "."));
    assert!(stand.spool.octets(MessageId::parse(&id).unwrap()).is_some());
    for event in ["message_dispatched", "message_deferred"] {
        assert!(journal().lines(event, "message", &id).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_drain_and_cannot_be_held_is_abandoned_counted_and_has_its_verdict() {
    let mut stand = Stand::with(Limits { drain_time: Duration::from_millis(100), ..limits() }).await;
    stand.spool.fail_with(Some(SpoolError::Io("the disk is gone".into())));
    let mut client = stand.client("app").await;
    client.envelope(&stand.sender(), &["hang-1@example.com"]).await;
    client.data(&stand.message("")).await;
    stand.ses.hanging().await;
    assert_eq!(stand.stop().await, 1);
    let verdicts = stand.verdicts();
    assert_eq!(verdicts.len(), 1);
    let reason = verdicts[0]["reason"].as_str().unwrap();
    assert!(reason.contains("abandoned") && reason.contains("may have taken"), "{reason}");
    let reply = client.reply().await;
    assert!(reply.starts_with("451 4.3.2 "), "{reply}");
    assert_eq!(code(&client.reply().await), 421);
    let line = journal().wait("session_closed", "peer", &client.local.to_string()).await;
    assert_eq!(line["reason"], "ours");
    assert_eq!(stand.dispatch.outbox().backlog().messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_outlasts_the_drain_is_cut() {
    let mut stand = Stand::with(Limits { drain_time: Duration::from_millis(100), ..limits() }).await;
    let mut client = stand.client("app").await;
    // In the middle of a transaction it is not told to go, and it sends nothing more.
    client.envelope(&stand.sender(), &["a@example.com"]).await;
    assert_eq!(code(&client.say("DATA").await), 354);
    client.write(b"From: ").await;
    assert_eq!(stand.stop().await, 1);
    assert!(client.closed().await);
    let line = journal().wait("session_closed", "peer", &client.local.to_string()).await;
    assert_eq!(line["reason"], "abandoned");
}
