//! Messages on their whole way: a client in TLS, the relay, the real AWS SDK, the sandbox, and its
//! events back over SQS into the next decision.

// In the helpers of the tests, which clippy's leave for tests does not reach.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/house.rs"]
mod house;
#[path = "support/relay.rs"]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bulkhead::adapters::ses;
use bulkhead::mail::MessageId;
use bulkhead::outbox::Bounds;
use bulkhead::sandbox::fault::{Fault, Kind};
use bulkhead::sandbox::inbox::Message;
use bulkhead::smtp::Terms;
use house::{House, Plan, SECRET_OF_ACME, stuffed};
use serde_json::Value;
use support::{Client, bounds, code, is_verdict, journal};

/// One tenant's name for each test: the journal is one for all of them.
async fn house(name: &str) -> House {
    House::build(plan(name)).await
}

fn plan(name: &str) -> Plan {
    Plan::named(name, &format!("{name}-b")).without_waits()
}

/// The last of a tenant's messages, which is held: what the client heard, the verdict, and the end.
async fn held(name: &str, reply: &str) -> (Value, Value) {
    let verdict = verdicts(name).pop().unwrap();
    assert_eq!(verdict["event"], "message_queued", "{verdict}");
    let id = verdict["message"].as_str().unwrap();
    assert_eq!(reply, format!("250 2.0.0 queued as {id}\r\n"));
    let end = journal().wait("message_dispatched", "message", id).await;
    (verdict, end)
}

fn from(name: &str) -> String {
    format!("app@{name}.example")
}

async fn client(house: &House, name: &str) -> Client {
    house.login(&format!("{name}-app"), SECRET_OF_ACME).await
}

/// The verdict lines of a tenant.
fn verdicts(name: &str) -> Vec<Value> {
    let mut lines = journal().all("tenant", name);
    lines.retain(is_verdict);
    lines
}

fn body_of(raw: &[u8]) -> &[u8] {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    &raw[end + 4..]
}

fn section_of(message: &Message) -> String {
    let text = String::from_utf8_lossy(&message.raw);
    text.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase()
}

/// 8-bit octets, dots in all places, and lines up to the bound.
fn odd_body() -> Vec<u8> {
    let mut body = b".\r\n..\r\n.one\r\n...\r\n\r\n\r\n.\r\n".to_vec();
    body.extend((1..=255_u8).filter(|octet| !matches!(octet, b'\r' | b'\n')));
    body.extend_from_slice(b"\r\n");
    for length in [77, 998, 1000, 1900] {
        body.extend(std::iter::repeat_n(b'.', length));
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// A transaction with these octets; the replies to RCPT and to the data.
async fn post(client: &mut Client, from: &str, to: &[String], message: &[u8]) -> (Vec<String>, String) {
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let recipients = client.envelope(from, &to).await;
    assert_eq!(code(&client.say("DATA").await), 354);
    client.write(&stuffed(message)).await;
    (recipients, client.reply().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_comes_back_and_forty_nine_of_fifty_pass() {
    let name = "fifty";
    let house = house(name).await;
    let mut client = client(&house, name).await;
    let bouncing = "r7@bounce.test";
    let first = format!("From: {}\r\n\r\nfirst\r\n", from(name));
    let reply = client.send(&from(name), &[bouncing], &first).await;
    let id = reply.trim_end().rsplit_once(' ').unwrap().1.to_owned();
    let bounced = journal().wait("message_bounced", "ses_id", &id).await;
    assert_eq!((&bounced["tenant"], &bounced["stream"]), (&name.into(), &"transactional".into()));
    assert!(house.is_suppressed(name, bouncing).await);

    let to: Vec<String> =
        (0..50).map(|n| if n == 7 { bouncing.to_owned() } else { format!("r{n}@dest.example") }).collect();
    let body = odd_body();
    let mut message = format!(
        "From: App <{}>\r\nBcc: r7@bounce.test, hidden@dest.example\r\nX-SES-CONFIGURATION-SET: {name}-marketing\r\n\
         X-SES-MESSAGE-TAGS: campaign=spring, tenant=other\r\nx-ses-source-arn : arn:x\r\nSubject: caf\u{e9}\r\n\r\n",
        from(name)
    )
    .into_bytes();
    message.extend_from_slice(&body);
    let (recipients, reply) = post(&mut client, &from(name), &to, &message).await;
    let refused: Vec<&String> = recipients.iter().filter(|reply| code(reply) != 250).collect();
    assert_eq!((recipients.len(), refused.len()), (50, 1));
    assert!(
        recipients[7].starts_with("550 5.1.1 ") && recipients[7].contains("hard bounce on 20"),
        "{}",
        recipients[7]
    );
    assert!(reply.starts_with("250 2.0.0 Ok ") && reply.ends_with(" 49 recipients\r\n"), "{reply}");

    let got = house.since(1);
    assert_eq!(got.len(), 49, "a call for each");
    let served: BTreeSet<&str> = got.iter().flat_map(|one| &one.destination).map(String::as_str).collect();
    let expected: BTreeSet<&str> = to.iter().map(String::as_str).filter(|to| *to != bouncing).collect();
    assert_eq!(served, expected);
    for one in &got {
        assert_eq!(one.destination.len(), 1);
        assert_eq!(one.configuration_set.as_deref(), Some("fifty-marketing"));
        let tag = |tag: &str| one.tags.iter().filter(|(name, _)| name == tag).map(|(_, v)| &**v).collect::<Vec<_>>();
        assert_eq!((tag("tenant"), tag("stream")), (vec![name], vec!["marketing"]));
        assert_eq!((tag("credential"), tag("campaign")), (vec!["fifty-app"], vec!["spring"]));
        assert_eq!(body_of(&one.raw), body, "octet by octet");
        let section = section_of(one);
        assert!(!section.contains("bcc") && !section.contains("x-ses") && !section.contains("hidden"), "{section}");
        assert!(section.contains("subject: caf\u{e9}"), "{section}");
    }
    let ids: BTreeSet<&str> = got.iter().map(|one| one.id.as_str()).collect();
    let verdict = verdicts(name).pop().unwrap();
    assert_eq!((verdicts(name).len(), &verdict["sent"]), (2, &49.into()));
    let lines = journal().lines("recipient_relayed", "message", verdict["message"].as_str().unwrap());
    let told: BTreeSet<&str> = lines.iter().map(|line| line["ses_id"].as_str().unwrap()).collect();
    assert_eq!(told, ids, "each recipient's line has SES's own id");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_and_batches_share_calls_of_fifty() {
    let name = "large";
    let house = house(name).await;
    let mut client = client(&house, name).await;
    let to: Vec<String> = (0..60).map(|n| format!("r{n}@dest.example")).collect();
    let line = format!("{}\r\n", "x".repeat(74));
    let head = format!("From: {}\r\nX-Bulkhead-Stream: marketing\r\n\r\n", from(name));
    for (round, size) in [1_500_000, 1000].into_iter().enumerate() {
        if round == 1 {
            house.batch(0, "marketing");
        }
        let before = house.inbox.all().len();
        let body = line.repeat(size / line.len() + 1);
        let (_, reply) = post(&mut client, &from(name), &to, format!("{head}{body}").as_bytes()).await;
        assert!(reply.starts_with("250 2.0.0 Ok ") && reply.ends_with(" 60 recipients\r\n"), "{reply}");
        let got = house.since(before);
        let mut sizes: Vec<usize> = got.iter().map(|one| one.destination.len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [10, 50], "{size} octets");
        let served: BTreeSet<&String> = got.iter().flat_map(|one| &one.destination).collect();
        assert_eq!(served, to.iter().collect());
        assert!(got.iter().all(|one| body_of(&one.raw) == body.as_bytes()));
    }
    // Without the batch, small messages have a call for each recipient.
    house.restore();
    let before = house.inbox.all().len();
    post(&mut client, &from(name), &to[..3], format!("{head}small\r\n").as_bytes()).await;
    assert_eq!(house.since(before).len(), 3);
    assert_eq!(verdicts(name).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ses_refuses_for_one_recipient_leaves_the_others() {
    let name = "partial";
    let house = house(name).await;
    let mut client = client(&house, name).await;
    let to: Vec<String> = (0..5).map(|n| format!("r{n}@dest.example")).collect();
    let message = format!("From: {}\r\n\r\nbody\r\n", from(name));
    assert!(house.faults.script([Fault::once(Kind::Reject).to("r3@dest.example")]));
    let (_, reply) = post(&mut client, &from(name), &to, message.as_bytes()).await;
    assert!(reply.starts_with("250 2.0.0 Ok "), "{reply}");
    let served: BTreeSet<String> = house.inbox.all().iter().flat_map(|one| one.destination.clone()).collect();
    assert_eq!(served, to.iter().filter(|to| **to != "r3@dest.example").cloned().collect());
    let all = verdicts(name);
    assert_eq!((all.len(), &all[0]["event"], &all[0]["sent"]), (1, &"message_relayed".into(), &4.into()));
    let lines = journal().lines("recipient_refused", "message", all[0]["message"].as_str().unwrap());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["recipients"], serde_json::json!(["dest.example"]));
    assert!(lines[0]["reason"].as_str().unwrap().contains("content"), "{lines:?}");

    // In the middle something that may pass later: the message is held for those whom SES has not
    // taken it for, and nobody gets it twice.
    let before = house.inbox.all().len();
    assert!(house.faults.script([Fault::once(Kind::Throttle).to("r2@dest.example")]));
    let (_, reply) = post(&mut client, &from(name), &to, message.as_bytes()).await;
    let (verdict, end) = held(name, &reply).await;
    assert_eq!((verdicts(name).len(), &verdict["cause"]), (2, &"throttled".into()));
    let sent = verdict["sent"].as_u64().unwrap();
    assert!((1..5).contains(&sent), "{sent}");
    assert_eq!(verdict["ses_ids"].as_array().unwrap().len(), usize::try_from(sent).unwrap());
    assert!(verdict["warning"].is_null(), "{verdict}");
    assert_eq!((&end["sent"], &end["refused"], &end["attempts"]), (&5.into(), &0.into(), &1.into()), "{end}");
    let got = house.since(before);
    let mut served: Vec<String> = got.iter().flat_map(|one| one.destination.clone()).collect();
    served.sort();
    assert_eq!(served, to, "each once");
    for one in &got {
        assert_eq!(body_of(&one.raw), b"body\r\n");
        assert_eq!(section_of(one), section_of(&got[0]), "whoever has it later has the same");
        assert_eq!(one.configuration_set.as_deref(), Some("partial-transactional"));
        assert_eq!(one.tags, got[0].tags);
    }
    let lines = journal().lines("recipient_relayed", "message", verdict["message"].as_str().unwrap());
    let told: BTreeSet<&str> = lines.iter().map(|line| line["ses_id"].as_str().unwrap()).collect();
    assert_eq!(told, got.iter().map(|one| one.id.as_str()).collect(), "each who has it is named");
    assert_eq!((lines.len(), house.outbox.backlog().messages), (5, 0));

    // Who is refused for good while the message is held is told of as well, and the others get it.
    let before = house.inbox.all().len();
    let faults = ["r0@dest.example", "r4@dest.example"].map(|to| Fault::once(Kind::Reject).to(to));
    assert!(house.faults.script([Fault::once(Kind::Internal).to("r0@dest.example")].into_iter().chain(faults)));
    let (_, reply) = post(&mut client, &from(name), &to, message.as_bytes()).await;
    let (verdict, end) = held(name, &reply).await;
    assert_eq!((&verdict["cause"], &verdict["sent"]), (&"service".into(), &Value::Null));
    assert_eq!((&end["sent"], &end["refused"], &end["attempts"]), (&3.into(), &2.into(), &1.into()), "{end}");
    let mut served: Vec<String> = house.since(before).iter().flat_map(|one| one.destination.clone()).collect();
    served.sort();
    assert_eq!(served, to[1..4]);
    let lines = journal().lines("recipient_refused", "message", verdict["message"].as_str().unwrap());
    assert_eq!(lines.len(), 2, "{lines:?}");
}

/// What goes wrong at SES and may pass later: why it is held, and what a client hears that it cannot
/// be held for either.
const LATER: [(Kind, &str, &str); 18] = [
    (Kind::Throttle, "throttled", "sending rate"),
    (Kind::Quota, "daily_quota", "daily quota"),
    (Kind::Paused, "account_paused", "paused the account"),
    (Kind::SetPaused, "configuration_set_paused", "paused the configuration set"),
    (Kind::Suspended, "account_suspended", "suspended the account"),
    (Kind::Internal, "service", "fault of its own"),
    (Kind::Unavailable, "service", "fault of its own"),
    (Kind::ExpiredToken, "credentials", "cannot log in"),
    (Kind::WrongCredentials, "credentials", "cannot log in"),
    (Kind::AccessDenied, "access_denied", "may not send"),
    (Kind::MissingSet, "configuration_set_missing", "configuration set"),
    (Kind::MissingTenant, "ses_tenant_missing", "tenant is not there"),
    (Kind::NotAssociated, "not_associated", "are not this tenant's"),
    (Kind::MailFrom, "mail_from_domain", "MX record"),
    (Kind::ResetConnect, "unknown", "may arrive twice"),
    (Kind::ResetBody, "unknown", "may arrive twice"),
    (Kind::Reset, "unknown", "may arrive twice"),
    (Kind::ResetAfter, "unknown", "may arrive twice"),
];

/// What SES refuses for good, and what the client hears.
const NEVER: [(Kind, &str, &str); 3] = [
    (Kind::Unverified, "550 5.7.1 ", "sender@example.com"),
    (Kind::BadRequest, "554 5.6.0 ", "Invalid MIME structure."),
    (Kind::Reject, "554 5.6.0 ", "rejected for its content"),
];

/// One message that meets `kind`; what its client hears, and its one verdict line.
async fn meet(house: &House, client: &mut Client, name: &str, kind: Kind) -> (String, Value) {
    let message = format!("From: {}\r\n\r\nbody\r\n", from(name));
    let before = verdicts(name).len();
    assert!(house.faults.script([Fault::once(kind)]));
    let reply = client.send(&from(name), &["joe@dest.example"], &message).await;
    assert!(house.faults.waiting().is_empty(), "{kind:?} did not strike");
    let mut lines = verdicts(name).split_off(before);
    assert_eq!(lines.len(), 1, "{kind:?}: {lines:?}");
    assert!(!lines[0]["reason"].as_str().unwrap().is_empty(), "{kind:?}");
    // The relay's own secrets stay in the log.
    assert!(!reply.contains("arn:"), "{kind:?}: {reply}");
    (reply, lines.remove(0))
}

fn assert_refused(kind: Kind, (reply, line): &(String, Value), expected: &str, words: &str) {
    assert!(reply.starts_with(expected) && reply.contains(words), "{kind:?}: {reply}");
    assert_eq!((&line["event"], &line["code"]), (&"message_refused".into(), &code(reply).into()));
    assert_eq!(line["enhanced"], expected.split(' ').nth(1).unwrap(), "{kind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_ses_that_may_pass_later_holds_the_message_and_it_passes_later() {
    let name = "answers";
    let house = house(name).await;
    let mut client = client(&house, name).await;
    let mut received = 0;
    for (kind, cause, _) in LATER {
        let (reply, line) = meet(&house, &mut client, name, kind).await;
        let (verdict, end) = held(name, &reply).await;
        assert_eq!((&verdict, &verdict["cause"]), (&line, &cause.into()), "{kind:?}");
        let unknown = u64::from(cause == "unknown");
        assert_eq!((&end["sent"], &end["unknown"]), (&1.into(), &unknown.into()), "{kind:?}: {end}");
        assert_eq!(end["attempts"], 1, "{kind:?}: {end}");
        // Nobody can know that SES has it where the answer was lost: it is there twice.
        received += if kind == Kind::ResetAfter { 2 } else { 1 };
        assert_eq!(house.inbox.received(), received, "{kind:?}");
        assert_eq!(house.outbox.backlog().messages, 0, "{kind:?}");
    }
    assert_eq!(journal().lines("outcome_unknown", "tenant", name).len(), 4);
    for (kind, expected, words) in NEVER {
        assert_refused(kind, &meet(&house, &mut client, name, kind).await, expected, words);
    }
    let message = format!("From: {}\r\n\r\nbody\r\n", from(name));
    let reply = client.send(&from(name), &["joe@dest.example"], &message).await;
    assert!(reply.starts_with("250 2.0.0 Ok "), "all is well again: {reply}");
    assert_eq!(house.inbox.received(), received + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_ses_has_its_words_where_nothing_can_be_held() {
    let name = "full";
    let house = House::build(Plan { bounds: Bounds { messages: 0, ..bounds() }, ..plan(name) }).await;
    let mut client = client(&house, name).await;
    for (kind, _, words) in LATER {
        let told = meet(&house, &mut client, name, kind).await;
        assert_refused(kind, &told, "452 4.3.1 ", words);
        assert!(told.0.contains("(outbox.messages); try again later"), "{kind:?}: {}", told.0);
    }
    for (kind, expected, words) in NEVER {
        assert_refused(kind, &meet(&house, &mut client, name, kind).await, expected, words);
    }
    assert_eq!(house.inbox.received(), 1, "reset_after has its message");
    let message = format!("From: {}\r\n\r\nbody\r\n", from(name));
    let reply = client.send(&from(name), &["joe@dest.example"], &message).await;
    assert!(reply.starts_with("250 2.0.0 Ok "), "all is well again: {reply}");
    assert_eq!((house.inbox.received(), house.outbox.backlog().messages), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_an_endpoint_that_is_not_there_is_held() {
    let name = "unplugged";
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mailer = ses::Options { endpoint_url: Some(format!("http://{free}")), ..ses::Options::default() };
    let house = House::build(Plan { mailer, ..Plan::named(name, "unplugged-b") }).await;
    let mut client = client(&house, name).await;
    let message = format!("From: {}\r\n\r\nbody\r\n", from(name));
    let reply = client.send(&from(name), &["joe@dest.example", "ann@dest.example"], &message).await;
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    let all = verdicts(name);
    assert_eq!((all.len(), &all[0]["cause"], &all[0]["sent"]), (1, &"network".into(), &Value::Null));
    let id = MessageId::parse(all[0]["message"].as_str().unwrap()).unwrap();
    let (_, entry) = house.outbox.entry(id).await.unwrap();
    assert_eq!((entry.progress.marks().as_str(), entry.unknown), ("..", 0), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_an_unknown_outcome() {
    let name = "silent";
    let mailer = ses::Options { call_time: Duration::from_millis(300), ..ses::Options::default() };
    let house = House::build(Plan { mailer, ..plan(name) }).await;
    let mut client = client(&house, name).await;
    assert!(house.faults.script([Fault::once(Kind::Hang)]));
    let message = format!("From: {}\r\n\r\nbody\r\n", from(name));
    let reply = client.send(&from(name), &["joe@dest.example"], &message).await;
    let (verdict, end) = held(name, &reply).await;
    assert_eq!((verdicts(name).len(), &verdict["cause"]), (1, &"unknown".into()));
    assert_eq!((&end["unknown"], house.inbox.received()), (&1.into(), 1), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_ses_takes_is_552() {
    let name = "toolarge";
    let plan = Plan::named(name, "toolarge-b");
    let terms = Terms { message_bytes: 64 * 1024 * 1024, ..plan.terms.clone() };
    let house = House::build(Plan { terms, ..plan }).await;
    let mut client = client(&house, name).await;
    let line = format!("{}\r\n", "x".repeat(998));
    let message = format!("From: {}\r\n\r\n{}", from(name), line.repeat(41 * 1024 * 1024 / line.len()));
    let reply = client.send(&from(name), &["joe@dest.example"], &message).await;
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    assert_eq!((verdicts(name).len(), house.inbox.received()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn lettre_sends_on_starttls_and_implicit_tls() {
    use lettre::message::{Attachment, MultiPart, SinglePart, header::ContentType};
    use lettre::transport::smtp::authentication::Credentials;
    use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
    use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

    let name = "lettre";
    let house = house(name).await;
    let attachment: Vec<u8> =
        (0..3_800_000_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    for (port, wrapped) in [(house.starttls.port(), false), (house.implicit.port(), true)] {
        let certificate = Certificate::from_pem(house.ca.0.as_bytes()).unwrap();
        let parameters =
            TlsParameters::builder("relay.example".into()).add_root_certificate(certificate).build_rustls().unwrap();
        let tls = if wrapped { Tls::Wrapper(parameters) } else { Tls::Required(parameters) };
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(port)
            .tls(tls)
            .credentials(Credentials::new("lettre-app".into(), SECRET_OF_ACME.into()))
            .build();
        let part = Attachment::new("d\u{e4}ta.bin".into())
            .body(attachment.clone(), ContentType::parse("application/octet-stream").unwrap());
        let message = lettre::Message::builder()
            .from(format!("J\u{fc}rgen <{}>", from(name)).parse().unwrap())
            .to("joe@dest.example".parse().unwrap())
            .bcc("ann@dest.example".parse().unwrap())
            .subject("Gr\u{fc}\u{df}e \u{2014} \u{1f4e8}")
            .multipart(
                MultiPart::mixed().singlepart(SinglePart::plain("h\u{e9}llo\r\n.\r\n".to_owned())).singlepart(part),
            )
            .unwrap();
        let formatted = message.formatted();
        assert!(formatted.len() > 5_000_000, "{}", formatted.len());
        let before = house.inbox.all().len();
        let answer = transport.send(message).await.unwrap();
        assert!(answer.is_positive(), "{answer:?}");

        let got = house.since(before);
        let served: Vec<&String> = got.iter().flat_map(|one| &one.destination).collect();
        assert_eq!(served, ["joe@dest.example", "ann@dest.example"]);
        // lettre ends its data with CRLF, dot, CRLF, whether the message ended with CRLF or not.
        let expected = [body_of(&formatted), b"\r\n"].concat();
        assert!(body_of(&got[0].raw) == expected, "octet by octet");
        assert!(!section_of(&got[0]).contains("bcc"));
        let read = mail_parser::MessageParser::new().parse(&got[0].raw[..]).unwrap();
        assert_eq!(read.subject(), Some("Gr\u{fc}\u{df}e \u{2014} \u{1f4e8}"));
        assert_eq!(read.attachment(0).unwrap().contents(), attachment);
    }
    assert_eq!(verdicts(name).len(), 2);
}
