//! The attempts, a line each: letters first, then what takes more than a letter.

use bulkhead::policy::tenant::SuppressionReason;
use bulkhead::store::Pending;

use crate::house::{House, SECRET, SECRET_OF_ACME, address, base64};
use crate::support::{Client, code, journal};

/// The reply to a letter that passes.
pub const SENT: &str = "250 2.0.0 Ok ";
const POLICY: &str = "550 5.7.1 ";
const CONTENT: &str = "554 5.6.0 ";

/// One message by bravo to `joe` and `ann`.
pub struct Letter {
    pub name: &'static str,
    pub credential: &'static str,
    /// What follows `MAIL FROM:`.
    pub mail: &'static str,
    /// The header section, without a last CRLF; behind bravo's own From field if it begins with
    /// another one.
    pub header: &'static str,
    /// How the reply that decides begins.
    pub reply: &'static str,
    /// The configuration set it leaves by, if not the default stream's.
    pub set: Option<&'static str>,
    /// What must be there of the message still.
    pub kept: Option<&'static str>,
}

const OWN: &str = "<app@bravo.example>";

const fn letter(name: &'static str, mail: &'static str, header: &'static str, reply: &'static str) -> Letter {
    Letter { name, credential: "bravo-app", mail, header, reply, set: None, kept: None }
}

/// By its envelope sender.
const fn path(name: &'static str, mail: &'static str, reply: &'static str) -> Letter {
    letter(name, mail, "Subject: a", reply)
}

/// By its header section.
const fn header(name: &'static str, header: &'static str, reply: &'static str) -> Letter {
    letter(name, OWN, header, reply)
}

/// One that passes, with this left of it.
const fn keeps(name: &'static str, header: &'static str, kept: &'static str) -> Letter {
    Letter { kept: Some(kept), ..letter(name, OWN, header, SENT) }
}

/// One that passes by the marketing stream.
const fn marketing(name: &'static str, header: &'static str) -> Letter {
    Letter { set: Some("bravo-marketing"), ..letter(name, OWN, header, SENT) }
}

/// By the credential that is bound to the transactional stream.
const fn bound(name: &'static str, header: &'static str, reply: &'static str) -> Letter {
    Letter { credential: "bravo-bound", ..letter(name, OWN, header, reply) }
}

#[rustfmt::skip]
pub const LETTERS: [Letter; 103] = [
    // The envelope sender
    path("allowed: envelope sender of its own", OWN, SENT),
    path("allowed: envelope sender at its own subdomain", "<app@mail.bravo.example>", SENT),
    path("allowed: null envelope sender", "<>", SENT),
    path("allowed: envelope sender at the shared domain", "<app@vendor.example>", SENT),
    path("envelope sender of A", "<app@acme.example>", POLICY),
    path("envelope sender of A in capitals", "<APP@ACME.EXAMPLE>", POLICY),
    path("envelope sender at a subdomain of A", "<app@mail.acme.example>", POLICY),
    path("envelope sender at A's domain with a final dot", "<app@acme.example.>", "501 5.1.7 "),
    path("envelope sender at a look-alike suffix", "<app@evil-acme.example>", POLICY),
    path("envelope sender at a prefix of its own domain", "<app@acme.example.bravo.example.evil.example>", POLICY),
    path("envelope sender at A's one address", "<billing@acme.test>", POLICY),
    path("envelope sender beside A's one address", "<other@acme.test>", POLICY),
    path("envelope sender with A quoted in the local part", "<\"app@acme.example\"@evil.example>", POLICY),
    path("envelope sender with a route by its own domain", "<@bravo.example:app@acme.example>", "501 5.1.7 "),
    path("envelope sender with percent routing", "<app%bravo.example@acme.example>", POLICY),
    path("envelope sender with two at signs", "<app@bravo.example@acme.example>", "501 5.1.7 "),
    path("envelope sender that is an address literal", "<app@[127.0.0.1]>", "501 5.1.7 "),
    path("envelope sender at A's domain with full-width letters", "<app@\u{ff41}cme.example>", POLICY),
    path("envelope sender with a Cyrillic look-alike", "<app@\u{430}cme.example>", POLICY),
    path("envelope sender without brackets", "app@acme.example", "501 5."),
    path("AUTH parameter with A's address", "<app@bravo.example> AUTH=app@acme.example", SENT),
    path("AUTH parameter with A's address and A's sender", "<app@acme.example> AUTH=app@bravo.example", POLICY),
    path("ENVID parameter", "<app@bravo.example> ENVID=acme", "555 5.5.4 "),
    path("parameter that names a tenant", "<app@bravo.example> X-TENANT=acme", "555 5.5.4 "),

    // Whose message it says it is
    header("allowed: From of its own", "From: App <app@bravo.example>", SENT),
    header("allowed: several authors of its own with a Sender", "From: a@bravo.example, b@bravo.example\r\nSender: a@bravo.example", SENT),
    header("allowed: From at the shared domain", "From: app@vendor.example", SENT),
    keeps("allowed: A's address as a display name in quotes", "From: \"app@acme.example\" <app@bravo.example>", "\"app@acme.example\" <app@bravo.example>"),
    keeps("allowed: A's address in Reply-To", "Reply-To: app@acme.example", "Reply-To: app@acme.example"),
    header("From of A", "From: app@acme.example", POLICY),
    header("From of A with a name", "From: Acme Support <support@acme.example>", POLICY),
    header("From of A in capitals", "FROM: APP@ACME.EXAMPLE", POLICY),
    header("From at a subdomain of A", "From: app@mail.acme.example", POLICY),
    header("From at A's one address", "From: billing@acme.test", POLICY),
    header("From at a look-alike suffix", "From: app@evil-acme.example", POLICY),
    header("From at A's domain inside another", "From: app@acme.example.evil.example", POLICY),
    header("From at A's domain with a final dot", "From: app@acme.example.", CONTENT),
    header("two From fields, its own first", "From: app@bravo.example\r\nFrom: app@acme.example", CONTENT),
    header("two From fields, A's first", "From: app@acme.example\r\nFrom: app@bravo.example", CONTENT),
    header("two From fields, one obsolete spelling", "From: app@bravo.example\r\nFrom : app@acme.example", CONTENT),
    header("From list with A inside", "From: app@bravo.example, app@acme.example\r\nSender: app@bravo.example", POLICY),
    header("From list with A first", "From: app@acme.example, app@bravo.example\r\nSender: app@bravo.example", POLICY),
    header("From list without a Sender", "From: a@bravo.example, b@bravo.example", CONTENT),
    header("From in obsolete spelling", "From \t: app@acme.example", POLICY),
    header("From folded before the address", "From:\r\n app@acme.example", POLICY),
    header("From folded within the address", "From: app@\r\n acme.example", CONTENT),
    header("From folded within the brackets", "From: <app@bravo.example\r\n .acme.example>", CONTENT),
    header("From with an encoded word for a name and A's address", "From: =?utf-8?q?Bravo?= <app@acme.example>", POLICY),
    header("From that is an encoded word of A's address", "From: =?utf-8?q?app=40acme=2Eexample?=", CONTENT),
    header("From with an encoded word in the address", "From: <=?utf-8?q?app=40acme.example=3E?=@bravo.example>", CONTENT),
    header("From with an encoded comma and A's address", "From: =?utf-8?q?x=2C?= app@acme.example, app@bravo.example", CONTENT),
    header("From with a comment in the address", "From: app@acme.example(@bravo.example)", POLICY),
    header("From with a comment that hides the end", "From: app(@bravo.example)@acme.example", CONTENT),
    header("From with an open comment", "From: app@bravo.example (<app@acme.example>", CONTENT),
    header("From with a route", "From: <@bravo.example:app@acme.example>", CONTENT),
    header("From that is a group", "From: team: app@acme.example;", CONTENT),
    header("From that is an empty group", "From: bravo@bravo.example:;", CONTENT),
    header("From with A in a quoted local part", "From: <\"app@acme.example\"@bravo.example>", CONTENT),
    header("From with A as a bare display name", "From: app@acme.example <app@bravo.example>", CONTENT),
    header("From with two bracketed addresses", "From: <app@acme.example> <app@bravo.example>", CONTENT),
    header("From with brackets in brackets", "From: <<app@acme.example>app@bravo.example>", CONTENT),
    header("From with an open quote", "From: \"app@bravo.example <app@acme.example>", CONTENT),
    header("From with a backslash before the quote", "From: \"a\\\" <app@bravo.example>\" <app@acme.example>", POLICY),
    header("From with a Cyrillic look-alike", "From: app@\u{430}cme.example", POLICY),
    header("From with a sharp s", "From: app@stra\u{df}e.example", CONTENT),
    header("From with an empty list element", "From: , app@acme.example", CONTENT),
    header("From with a semicolon for a comma", "From: app@bravo.example; app@acme.example", CONTENT),
    header("From without an address", "From: Acme", CONTENT),
    header("no From at all", "From-: app@bravo.example", CONTENT),
    header("Sender of A", "Sender: app@acme.example", POLICY),
    header("two Sender fields", "Sender: app@bravo.example\r\nSender: app@acme.example", CONTENT),
    header("Resent-From of A", "Resent-From: app@acme.example", POLICY),
    header("second Resent-From of A", "Resent-From: app@bravo.example\r\nResent-From: app@acme.example", POLICY),
    header("Resent-Sender of A", "Resent-Sender: app@acme.example", POLICY),

    // What it asks of SES and of us
    marketing("allowed: its own set", "X-SES-CONFIGURATION-SET: bravo-marketing"),
    marketing("allowed: its own stream", "X-Bulkhead-Stream: marketing"),
    bound("allowed: the bound credential names its own stream", "X-Bulkhead-Stream: transactional", SENT),
    header("configuration set of A", "X-SES-CONFIGURATION-SET: acme-transactional", POLICY),
    header("configuration set of A in small letters", "x-ses-configuration-set: acme-transactional", POLICY),
    header("configuration set of A in obsolete spelling", "X-SES-CONFIGURATION-SET \t: acme-transactional", POLICY),
    header("configuration set of A folded", "X-SES-CONFIGURATION-SET:\r\n acme-transactional", POLICY),
    header("configuration set of A behind its own", "X-SES-CONFIGURATION-SET: bravo-marketing\r\nX-SES-CONFIGURATION-SET: acme-marketing", CONTENT),
    header("configuration set of A beside its own stream", "X-Bulkhead-Stream: marketing\r\nX-SES-CONFIGURATION-SET: acme-marketing", POLICY),
    header("configuration set of A behind a comma", "X-SES-CONFIGURATION-SET: bravo-marketing, acme-marketing", POLICY),
    header("stream by A's name for it", "X-Bulkhead-Stream: acme-marketing", POLICY),
    header("stream with a path to A", "X-Bulkhead-Stream: acme/marketing", POLICY),
    bound("bound credential asks for the other stream", "X-Bulkhead-Stream: marketing", POLICY),
    bound("bound credential asks for the other stream's set", "X-SES-CONFIGURATION-SET: bravo-marketing", POLICY),
    header("tag tenant of A", "X-SES-MESSAGE-TAGS: tenant=acme, stream=marketing, credential=acme-app", SENT),
    header("tag tenant of A in other cases", "X-SES-MESSAGE-TAGS: Tenant=acme, TENANT=acme, Stream=x", SENT),
    header("tag tenant of A in two folded fields", "X-SES-MESSAGE-TAGS: a=b,\r\n tenant=acme\r\nx-ses-message-tags : tenant=acme", SENT),
    header("tag in SES's own name space", "X-SES-MESSAGE-TAGS: ses:configuration-set=acme-transactional", CONTENT),
    header("tag with a space in its name", "X-SES-MESSAGE-TAGS: ten ant=acme", CONTENT),
    header("SES's own fields with A's ARNs", "X-SES-TENANT: acme\r\nX-SES-SOURCE-ARN: arn:aws:ses:x:1:identity/acme.example\r\nX-SES-FROM-ARN: arn:aws:ses:x:1:identity/acme.example\r\nX-SES-RETURN-PATH-ARN: arn:aws:ses:x:1:identity/acme.example\r\nX-SES-LIST-MANAGEMENT-OPTIONS: acme; topic=x", SENT),
    header("fields of ours with A's name", "X-Bulkhead-Tenant: acme\r\nX-BULKHEAD-CREDENTIAL : acme-app", SENT),
    header("Return-Path of A and a signature of A", "Return-Path: <app@acme.example>\r\nDKIM-Signature: v=1; d=acme.example;\r\n b=x", SENT),

    // Hidden recipients and hidden fields
    header("Bcc in every spelling", "Bcc: hidden@dest.example\r\nbCC:hidden@dest.example\r\nBcc \t: hidden@dest.example\r\nBCC:\r\n hidden@dest.example", SENT),
    header("Resent-Bcc in every spelling", "Resent-Bcc: hidden@dest.example\r\nresent-bcc : hidden@dest.example", SENT),
    header("Bcc with its name folded", "Bcc\r\n : hidden@dest.example", CONTENT),
    header("field hidden behind a NUL", "Subject: a\0\r\nBcc: hidden@dest.example", CONTENT),
    header("field hidden behind a bare CR", "Subject: a\rBcc: hidden@dest.example", CONTENT),
    header("field hidden behind a bare LF", "Subject: a\nBcc: hidden@dest.example", CONTENT),
    keeps("allowed: a body that looks like a header section", "Subject: a\r\n\r\nBcc: hidden@dest.example\r\nFrom: app@acme.example\r\nX-SES-CONFIGURATION-SET: acme-marketing", "\r\n\r\nBcc: hidden@dest.example\r\nFrom: app@acme.example\r\nX-SES-"),
];

/// What takes more than a letter.
pub type Deed = for<'a> fn(&'a House) -> Pending<'a, ()>;

#[rustfmt::skip]
pub const DEEDS: [(&str, Deed); 27] = [
    // Who speaks
    ("allowed: acme sends as acme", |house| Box::pin(acme_sends(house))),
    ("A's username with B's secret", |house| Box::pin(logs_in(house, "", "acme-app", SECRET, "535 5.7.8 "))),
    ("authorisation identity of A with B's login", |house| Box::pin(logs_in(house, "acme-app", "bravo-app", SECRET, "535 5.7.8 "))),
    ("allowed: authorisation identity of its own", |house| Box::pin(logs_in(house, "bravo-app", "bravo-app", SECRET, "235 2.7.0 "))),
    ("A's username in capitals with B's secret", |house| Box::pin(logs_in(house, "", "ACME-APP", SECRET, "535 5.7.8 "))),
    ("two usernames in one exchange", |house| Box::pin(logs_in(house, "", "bravo-app\0acme-app", SECRET, "501 5.5.2 "))),
    ("credential from a foreign network", |house| Box::pin(logs_in(house, "", "bravo-elsewhere", SECRET, "535 5.7.8 "))),
    ("expired credential", |house| Box::pin(logs_in(house, "", "bravo-expired", SECRET, "535 5.7.8 "))),
    ("second login as A within a session of B", |house| Box::pin(second_login(house))),
    ("revoked credential in an open session", |house| Box::pin(revoked(house))),
    ("MAIL without a login", |house| Box::pin(unauthenticated(house))),
    ("MAIL pipelined before AUTH's answer", |house| Box::pin(pipelined(house))),
    ("login before TLS", |house| Box::pin(before_tls(house))),
    ("STARTTLS with a login behind it in the clear", |house| Box::pin(injection(house))),
    ("login before STARTTLS kept through it", |house| Box::pin(forgotten(house))),
    ("storm of wrong passwords for A", |house| Box::pin(storm(house))),
    // A second message inside the first
    ("smuggled end of data", |house| Box::pin(smuggled(house))),
    ("smuggled message behind BDAT", |house| Box::pin(chunks(house))),
    // Suppressions and standing
    ("recipient suppressed for A alone", |house| Box::pin(suppressed_for(house, "acme"))),
    ("recipient suppressed for B alone", |house| Box::pin(suppressed_for(house, "bravo"))),
    ("bounce of B's mail with A's tags in its header section", |house| Box::pin(event(house, "x@bounce.test", "X-SES-MESSAGE-TAGS: tenant=acme\r\nX-Tenant: acme\r\nReply-To: app@acme.example\r\n"))),
    ("complaint about B's mail", |house| Box::pin(event(house, "x@complaint.test", ""))),
    ("bounce of B's mail from the shared domain", |house| Box::pin(event(house, "y@bounce.test", "Resent-From: app@vendor.example\r\n"))),
    ("event that names A in mail.headers alone", |house| Box::pin(forged_headers(house))),
    ("event of the shared domain without tags", |house| Box::pin(ambiguous(house))),
    ("pause of B", |house| Box::pin(paused(house, None))),
    ("pause of B's stream", |house| Box::pin(paused(house, Some("marketing")))),
];

async fn acme_sends(house: &House) {
    let before = house.inbox.all().len();
    let mut acme = house.login("acme-app", SECRET_OF_ACME).await;
    for from in ["app@acme.example", "app@mail.acme.example", "billing@acme.test", "app@vendor.example"] {
        let message = format!("From: {from}\r\nX-SES-CONFIGURATION-SET: acme-marketing\r\n\r\nbody\r\n");
        let reply = acme.send(from, &["joe@dest.example"], &message).await;
        assert!(reply.starts_with(SENT), "{from}: {reply}");
    }
    let got = house.since(before);
    assert_eq!(got.len(), 4);
    for message in got {
        assert_eq!(message.configuration_set.as_deref(), Some("acme-marketing"));
        assert_eq!((message.tag("tenant"), message.tag("credential")), (Some("acme"), Some("acme-app")));
    }
}

fn plain(identity: &str, username: &str, secret: &str) -> String {
    format!("AUTH PLAIN {}", base64(format!("{identity}\0{username}\0{secret}").as_bytes()))
}

async fn logs_in(house: &House, identity: &str, username: &str, secret: &str, expected: &str) {
    let mut client = house.client().await;
    let reply = client.say(&plain(identity, username, secret)).await;
    assert!(reply.starts_with(expected), "{reply}");
    let reply = client.say("MAIL FROM:<app@acme.example>").await;
    assert!(reply.starts_with(if expected.starts_with("235") { POLICY } else { "530 5.7.0 " }), "{reply}");
}

async fn second_login(house: &House) {
    let mut client = house.login("bravo-app", SECRET).await;
    let reply = client.say(&plain("", "acme-app", SECRET_OF_ACME)).await;
    assert!(reply.starts_with("503 5.5.1 "), "{reply}");
    assert!(client.say("MAIL FROM:<app@acme.example>").await.starts_with(POLICY));
    assert_eq!(code(&client.say("MAIL FROM:<app@bravo.example>").await), 250);
}

async fn revoked(house: &House) {
    let before = house.inbox.all().len();
    let mut at_mail = house.login("bravo-passing", SECRET).await;
    let mut at_data = house.login("bravo-passing", SECRET).await;
    at_data.envelope("app@bravo.example", &["joe@dest.example"]).await;
    house.revoke("bravo-passing");
    let reply = at_mail.say("MAIL FROM:<app@bravo.example>").await;
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    assert!(at_mail.closed().await);
    at_data.data("From: app@bravo.example\r\n\r\nbody\r\n").await;
    let reply = at_data.reply().await;
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    logs_in(house, "", "bravo-passing", SECRET, "535 5.7.8 ").await;
    assert_eq!(house.since(before).len(), 0);
    // The tenant's other credential goes on.
    send(house, "bravo-app", "joe@dest.example", "", SENT).await;
}

/// A message by one of the two, and what it hears at last.
async fn send(house: &House, username: &str, to: &str, header: &str, expected: &str) {
    let (tenant, _) = username.split_once('-').unwrap();
    let secret = if tenant == "acme" { SECRET_OF_ACME } else { SECRET };
    let mut client = house.login(username, secret).await;
    let from = format!("app@{tenant}.example");
    let mut reply = client.say(&format!("MAIL FROM:<{from}>")).await;
    if code(&reply) == 250 {
        reply = client.say(&format!("RCPT TO:<{to}>")).await;
    }
    if code(&reply) == 250 {
        client.data(&format!("From: {from}\r\n{header}\r\nbody\r\n")).await;
        reply = client.reply().await;
    }
    assert!(reply.starts_with(expected), "{username} to {to}: {reply}");
}

async fn unauthenticated(house: &House) {
    let mut client = house.client().await;
    for command in ["MAIL FROM:<app@acme.example>", "MAIL FROM:<>", "MAIL FROM:<app@acme.example> AUTH=<>"] {
        let reply = client.say(command).await;
        assert!(reply.starts_with("530 5.7.0 "), "{command}: {reply}");
    }
    assert!(client.say("RCPT TO:<joe@dest.example>").await.starts_with("5"));
    assert!(client.say("DATA").await.starts_with("5"));
}

async fn pipelined(house: &House) {
    let before = house.inbox.all().len();
    let mut client = house.client().await;
    let rest = "MAIL FROM:<app@acme.example>\r\nRCPT TO:<joe@dest.example>\r\nDATA\r\n";
    client.write(format!("{}\r\n{rest}", plain("", "acme-app", SECRET)).as_bytes()).await;
    for expected in ["535 5.7.8 ", "530 5.7.0 ", "5", "5"] {
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    // With a login that is right the same pipeline is bravo's, and acme's sender is refused.
    client.write(format!("{}\r\n{rest}", plain("", "bravo-app", SECRET)).as_bytes()).await;
    for expected in ["235 2.7.0 ", POLICY, "503 ", "503 "] {
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    assert_eq!(house.since(before).len(), 0);
}

async fn before_tls(house: &House) {
    let mut client = crate::plain(house).await;
    assert!(!client.say("EHLO client.example").await.contains("AUTH"));
    let reply = client.say(&plain("", "bravo-app", SECRET)).await;
    assert!(reply.starts_with("5"), "{reply}");
    let reply = client.say("MAIL FROM:<app@bravo.example>").await;
    assert!(reply.starts_with("530 5.7.0 "), "{reply}");
}

async fn injection(house: &House) {
    let mut client = crate::plain(house).await;
    client.say("EHLO client.example").await;
    let behind = plain("", "bravo-app", SECRET);
    client.write(format!("STARTTLS\r\n{behind}\r\nMAIL FROM:<app@acme.example>\r\n").as_bytes()).await;
    // What lay behind STARTTLS is never heard, in the clear or in TLS: the session is over.
    assert_eq!(code(&client.reply().await), 220);
    assert!(client.closed().await);
}

async fn forgotten(house: &House) {
    let mut client = crate::plain(house).await;
    client.say("EHLO client.example").await;
    client.say(&plain("", "bravo-app", SECRET)).await;
    assert_eq!(code(&client.say("STARTTLS").await), 220);
    client.secure(&house.ca).await.unwrap();
    let reply = client.say("MAIL FROM:<app@bravo.example>").await;
    assert!(reply.starts_with("5"), "{reply}");
    client.say("EHLO client.example").await;
    let reply = client.say("MAIL FROM:<app@bravo.example>").await;
    assert!(reply.starts_with("530 5.7.0 "), "{reply}");
    // A login in TLS counts.
    assert_eq!(code(&client.say(&plain("", "bravo-app", SECRET)).await), 235);
    assert_eq!(code(&client.say("MAIL FROM:<app@bravo.example>").await), 250);
}

async fn storm(house: &House) {
    let elsewhere = "127.7.7.7:0".parse().unwrap();
    for _ in 0..30 {
        let mut client = Client::connect_from(elsewhere, house.implicit).await;
        client.secure(&house.ca).await.unwrap();
        client.reply().await;
        client.say("EHLO client.example").await;
        for expected in ["535 5.7.8 ", "535 5.7.8 ", "421 4.7.0 "] {
            let reply = client.say(&plain("", "acme-app", SECRET)).await;
            assert!(reply.starts_with(expected), "{reply}");
        }
        assert!(client.closed().await);
    }
    // From its own address acme is let in at once.
    send(house, "acme-app", "joe@dest.example", "", SENT).await;
}

/// An end of data that a server behind might see, and another message behind it.
async fn smuggled(house: &House) {
    let inner =
        "MAIL FROM:<app@acme.example>\r\nRCPT TO:<hidden@dest.example>\r\nDATA\r\nFrom: app@acme.example\r\n\r\nx\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r\n.\r\r\n", "\r\n.\n", "\r\n\0.\r\n"] {
        let before = house.inbox.all().len();
        let mut client = house.login("bravo-app", SECRET).await;
        client.envelope("app@bravo.example", &["joe@dest.example"]).await;
        client.data(&format!("From: app@bravo.example\r\n\r\nbody{end}{inner}")).await;
        let reply = client.reply().await;
        assert!(reply.starts_with("5"), "{end:?}: {reply}");
        let next = client.say("NOOP").await;
        assert!(next.starts_with("250 2.0.0") || next.is_empty(), "{end:?}: the next reply is NOOP's: {next}");
        assert_eq!(house.since(before).len(), 0, "{end:?}");
    }
    // Stuffed as it should be, all of it is one body.
    let before = house.inbox.all().len();
    send(house, "bravo-app", "joe@dest.example", "\r\n..\r\nMAIL FROM:<app@acme.example>\r\n", SENT).await;
    assert_eq!(house.since(before).len(), 1);
}

async fn chunks(house: &House) {
    let before = house.inbox.all().len();
    let mut client = house.login("bravo-app", SECRET).await;
    client.envelope("app@bravo.example", &["joe@dest.example"]).await;
    let message =
        "From: app@bravo.example\r\n\r\n.\r\nMAIL FROM:<app@acme.example>\r\nRCPT TO:<hidden@dest.example>\r\n";
    client.write(format!("BDAT {} LAST\r\n{message}NOOP\r\n", message.len()).as_bytes()).await;
    let replies = [client.reply().await, client.reply().await];
    assert!(replies[0].starts_with(SENT) && replies[1].starts_with("250 2.0.0"), "{replies:?}");
    let got = house.since(before);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].destination, ["joe@dest.example"]);
    assert!(got[0].raw.ends_with(message.split_once("\r\n\r\n").unwrap().1.as_bytes()));
}

/// Suppressed for one of them, by a bounce: only that one hears of it.
async fn suppressed_for(house: &House, whose: &str) {
    let mailbox = format!("gone-for-{whose}@dest.example");
    house.suppress(whose, &mailbox, SuppressionReason::Bounce).await;
    for tenant in ["acme", "bravo"] {
        let expected = if tenant == whose { "550 5.1.1 " } else { SENT };
        send(house, &format!("{tenant}-app"), &mailbox, "", expected).await;
    }
}

/// B's mail to `to` makes an event; it is B's alone.
async fn event(house: &House, to: &str, header: &str) {
    for tenant in ["acme", "bravo"] {
        assert!(!house.is_suppressed(tenant, to).await, "{tenant} {to}: before");
    }
    let header = header.replace("Resent-From", "Sender");
    let before = house.inbox.all().len();
    send(house, "bravo-app", to, &header, SENT).await;
    let id = house.since(before)[0].id.clone();
    let word = if to.ends_with("@complaint.test") { "message_complained" } else { "message_bounced" };
    let line = journal().wait(word, "ses_id", &id).await;
    assert_eq!((&line["tenant"], &line["stream"]), (&"bravo".into(), &"transactional".into()));
    assert!(house.is_suppressed("bravo", to).await);
    assert!(!house.is_suppressed("acme", to).await);
    send(house, "acme-app", to, "", SENT).await;
}

/// An event as the queue may hold it, SES's own tags as given.
fn bounce(id: &str, source: &str, to: &str, tags: &str) -> String {
    let now = bulkhead::time::Clock::now(&bulkhead::adapters::clock::MachineClock).rfc3339();
    format!(
        r#"{{"eventType":"Bounce","bounce":{{"bounceType":"Permanent","bounceSubType":"General","feedbackId":"{id}",
        "timestamp":"{now}","bouncedRecipients":[{{"emailAddress":"{to}"}}]}},
        "mail":{{"messageId":"{id}","timestamp":"{now}","source":"{source}","destination":["{to}"],
        "headers":[{{"name":"X-SES-MESSAGE-TAGS","value":"tenant=acme, stream=marketing"}},
        {{"name":"From","value":"app@acme.example"}},{{"name":"X-SES-CONFIGURATION-SET","value":"acme-marketing"}}],
        "commonHeaders":{{"from":["app@acme.example"]}},"tags":{{{tags}}}}}}}"#
    )
}

async fn forged_headers(house: &House) {
    let to = "forged@dest.example";
    let tags = r#""tenant":["bravo"],"stream":["marketing"],"ses:configuration-set":["bravo-marketing"]"#;
    house.queue.put(bounce("forged-1", "app@bravo.example", to, tags));
    let line = journal().wait("message_bounced", "ses_id", "forged-1").await;
    assert_eq!(line["tenant"], "bravo");
    assert_eq!([house.is_suppressed("bravo", to).await, house.is_suppressed("acme", to).await], [true, false]);
    assert_eq!(address(to).to_string(), to);
}

/// Nobody's rather than a guess.
async fn ambiguous(house: &House) {
    let to = "shared@dest.example";
    house.queue.put(bounce("shared-1", "app@vendor.example", to, ""));
    journal().wait("event_unowned", "ses_id", "shared-1").await;
    assert_eq!([house.is_suppressed("bravo", to).await, house.is_suppressed("acme", to).await], [false; 2]);
    // A domain of one tenant alone is enough.
    house.queue.put(bounce("single-1", "app@bravo.example", to, ""));
    assert_eq!(journal().wait("message_bounced", "ses_id", "single-1").await["tenant"], "bravo");
    assert_eq!([house.is_suppressed("bravo", to).await, house.is_suppressed("acme", to).await], [true, false]);
}

async fn paused(house: &House, stream: Option<&str>) {
    house.pause(1, stream);
    let marketing = "X-Bulkhead-Stream: marketing\r\n";
    send(house, "bravo-app", "joe@dest.example", marketing, "451 4.7.1 ").await;
    send(house, "acme-app", "joe@dest.example", marketing, SENT).await;
    send(house, "acme-app", "joe@dest.example", "", SENT).await;
    // A stream's pause is not its tenant's.
    let other = if stream.is_some() { SENT } else { "451 4.7.1 " };
    send(house, "bravo-app", "joe@dest.example", "", other).await;
}
