//! The header section: what is scanned, refused, edited and kept.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

const LIMITS: HeaderLimits = HeaderLimits { bytes: 256 * 1024, fields: 500, line: 998 };
const ADDITIONS: Additions<'static> = Additions {
    trace: "Received: from c.example by relay.example; Fri, 01 May 2026 09:15:02 +0000\r\n",
    date: "Fri, 01 May 2026 09:15:02 +0000",
    message_id: "<1@relay.example>",
};

fn scan(message: impl AsRef<[u8]>) -> Result<HeaderSection, HeaderError> {
    HeaderSection::scan(Bytes::copy_from_slice(message.as_ref()), LIMITS)
}

/// The section of a message with these header lines.
fn section(lines: &str) -> HeaderSection {
    scan(lines.replace('\n', "\r\n") + "\r\n\r\nbody\r\n").unwrap()
}

fn names(section: &HeaderSection) -> Vec<String> {
    section.fields().iter().map(|f| String::from_utf8_lossy(section.name(f)).into_owned()).collect()
}

fn edited(message: impl AsRef<[u8]>) -> (String, Vec<String>) {
    let edited = scan(message).unwrap().edit(&ADDITIONS);
    assert_eq!(edited.to_vec().len(), edited.len());
    let text = String::from_utf8(edited.to_vec()).unwrap();
    (text.strip_prefix(ADDITIONS.trace).unwrap().to_owned(), edited.removed)
}

#[test]
fn every_octet_belongs_to_one_field() {
    let message = b"From: a\r\nSubject:\r\n b\r\n\tc\r\nX \t :d\r\nx\x3b!~:\xff\r\n\r\nBcc: body\r\n";
    let section = scan(message).unwrap();
    assert_eq!(names(&section), ["From", "Subject", "X", "x;!~"]);
    let values: Vec<_> = section.fields().iter().map(|f| section.octets(&f.value)).collect();
    assert_eq!(values, [&b" a"[..], b"\r\n b\r\n\tc", b"d", b"\xff"]);
    let mut at = 0;
    for field in section.fields() {
        assert_eq!(field.span.start, at);
        at = field.span.end;
    }
    assert_eq!(&message[at..], b"\r\nBcc: body\r\n");
}

#[test]
fn header_sections_that_are_refused_and_why() {
    use HeaderError::*;
    let ok998 = format!("X: {}\r\n\r\n", "a".repeat(995));
    let long999 = format!("X: {}\r\n\r\n", "a".repeat(996));
    let folded999 = format!("X: a\r\n {}\r\n\r\n", "a".repeat(998));
    let unended = "a".repeat(2000);
    assert!(scan(&ok998).is_ok());
    let cases: &[(&[u8], HeaderError)] = &[
        // mail-parser does not see these fields; other readers might
        (b"From: a@b.c\r\nBcc\r\n : x@y.z\r\n\r\n", NotAField(2)),
        (b"From: a@b.c\r\nno colon\r\n\r\n", NotAField(2)),
        (b"From: a@b.c\r\n: x\r\n\r\n", NotAField(2)),
        (b"X Foo: x\r\n\r\n", NotAField(1)),
        (b" From: a@b.c\r\n\r\n", NotAField(1)),
        (b" \r\nFrom: a@b.c\r\n\r\n", NotAField(1)),
        (b"From a@b.c Fri May  1 09:15:02 2026\r\n\r\n", NotAField(1)),
        (b"B\xc3\xa9: x\r\n\r\n", NotAField(1)),
        (b"Bcc\xa0: x\r\n\r\n", NotAField(1)),
        (b"\xef\xbb\xbfFrom: a@b.c\r\n\r\n", NotAField(1)),
        (b"B\x7f: x\r\n\r\n", NotAField(1)),
        (b"B\x0bcc: x\r\n\r\n", NotAField(1)),
        (b"From: a\rBcc: b\r\n\r\n", Control(1)),
        (b"From: a\nBcc: b\r\n\r\n", Control(1)),
        (b"From: a\r\n\nBcc: b\r\n\r\n", Control(2)),
        (b"From: a\r\nX: \0\r\n\r\n", Control(2)),
        (b"From: a\r\r\n\r\n", Control(1)),
        (b"From: a\r\n\r\r\n\r\n", Control(2)),
        (b"From: a\r", Control(1)),
        (b"\n", Control(1)),
        (long999.as_bytes(), LineTooLong(1, 998)),
        (folded999.as_bytes(), LineTooLong(2, 998)),
        (unended.as_bytes(), LineTooLong(1, 998)),
    ];
    for (message, error) in cases {
        assert_eq!(scan(message).err(), Some(error.clone()), "{:?}", String::from_utf8_lossy(message));
    }
}

#[test]
fn the_limits_of_a_section_are_exact() {
    let message = Bytes::from_static(b"A: 1\r\n b\r\nB: 2\r\n\r\nbody body body");
    let whole = 6 + 4 + 6 + 2;
    let scan = |limits| HeaderSection::scan(message.clone(), limits).map(|_| ());
    let with = |bytes, fields| scan(HeaderLimits { bytes, fields, line: 998 });
    assert_eq!(with(whole, 2), Ok(()));
    for bytes in 0..whole {
        assert_eq!(with(bytes, 2), Err(HeaderError::TooLarge(bytes)));
    }
    assert_eq!(with(whole, 1), Err(HeaderError::TooMany(1)));
    let with_lines = |line| scan(HeaderLimits { bytes: whole, fields: 2, line });
    assert_eq!(with_lines(4), Ok(()));
    assert_eq!(with_lines(3), Err(HeaderError::LineTooLong(1, 3)));
}

#[test]
fn what_must_not_leave_is_removed_in_any_spelling() {
    let lines = [
        ("Bcc: x@y.z\r\n", "Bcc"),
        ("bCC:x@y.z\r\n", "bCC"),
        ("Bcc \t: x@y.z\r\n", "Bcc"),
        ("BCC:\r\n x@y.z,\r\n\tw@y.z\r\n", "BCC"),
        ("Bcc:\r\n", "Bcc"),
        ("Resent-bcc: x@y.z\r\n", "Resent-bcc"),
        ("Return-Path: <x@y.z>\r\n", "Return-Path"),
        ("DKIM-Signature: v=1;\r\n b=a;\r\n \r\n c=d\r\n", "DKIM-Signature"),
        ("X-SES-CONFIGURATION-SET: other\r\n", "X-SES-CONFIGURATION-SET"),
        ("x-ses-source-arn:\r\n arn:aws:ses:x\r\n", "x-ses-source-arn"),
        ("X-Ses-Tenant\t:b\r\n", "X-Ses-Tenant"),
        ("X-SES-: b\r\n", "X-SES-"),
        ("X-BULKHEAD-anything: b\r\n", "X-BULKHEAD-anything"),
    ];
    for (line, name) in lines {
        for (before, after) in [("", "From: a@b.c\r\n"), ("From: a@b.c\r\n", ""), ("From: a@b.c\r\n", "To: d@e.f\r\n")]
        {
            let (text, removed) = edited(format!("{before}{line}{after}\r\nBcc: body\r\n"));
            assert_eq!(removed, [name]);
            let added = "Date: Fri, 01 May 2026 09:15:02 +0000\r\nMessage-ID: <1@relay.example>\r\n";
            assert_eq!(text, format!("{before}{after}{added}\r\nBcc: body\r\n"));
        }
    }
}

#[test]
fn names_that_only_look_forbidden_stay() {
    let message = "Bcc2: a\r\nX-Bcc: b\r\nX-SES: c\r\nX-SESAME: d\r\nX-Bulkhead: e\r\nReturn-Path-X: f\r\nSubject: X\r\n \
                   Bcc: g\r\nDate: h\r\nMessage-ID: i\r\n\r\n";
    assert_eq!(edited(message), (message.to_owned(), vec![]));
}

#[test]
fn date_and_message_id_are_added_where_they_are_missing() {
    let cases = [
        ("From: a\r\nDate: x\r\nmessage-id:\r\n <y>\r\n\r\nz", "From: a\r\nDate: x\r\nmessage-id:\r\n <y>\r\n\r\nz"),
        ("DATE : x\r\n\r\nz", "DATE : x\r\nMessage-ID: <1@relay.example>\r\n\r\nz"),
        ("Message-ID: y\r\n\r\n", "Message-ID: y\r\nDate: Fri, 01 May 2026 09:15:02 +0000\r\n\r\n"),
        (
            "Resent-Date: x\r\nResent-Message-ID: y\r\nDate: z\r\n\r\n",
            "Resent-Date: x\r\nResent-Message-ID: y\r\nDate: z\r\nMessage-ID: <1@relay.example>\r\n\r\n",
        ),
    ];
    for (message, leaves) in cases {
        assert_eq!(edited(message).0, leaves);
    }
}

#[test]
fn a_message_that_is_all_header_leaves_with_an_empty_line() {
    let added = "Date: Fri, 01 May 2026 09:15:02 +0000\r\nMessage-ID: <1@relay.example>\r\n\r\n";
    assert_eq!(edited("").0, added);
    assert_eq!(edited("\r\nbody").0, format!("{added}body"));
    assert_eq!(edited("From: a\r\n").0, format!("From: a\r\n{added}"));
    assert_eq!(edited("From: a").0, format!("From: a\r\n{added}"));
    assert_eq!(edited("From: a\r\nBcc: b").0, format!("From: a\r\n{added}"));
    assert_eq!(edited("Bcc: b\r\nFrom: a").0, format!("From: a\r\n{added}"));
    assert_eq!(edited("Date: a\r\nMessage-ID: b\r\n").0, "Date: a\r\nMessage-ID: b\r\n\r\n");
}

#[test]
fn the_body_is_not_copied() {
    let mut message = b"From: a\r\nBcc: b\r\nTo: c\r\n\r\n".to_vec();
    message.extend((0..=255).cycle().take(100_000).map(|b: u8| b));
    let message = Bytes::from(message);
    let edited = HeaderSection::scan(message.clone(), LIMITS).unwrap().edit(&ADDITIONS);
    let body = edited.segments.last().unwrap();
    assert_eq!(body.as_ptr(), message[message.len() - body.len()..].as_ptr());
    assert_eq!(body.len(), 100_002);
    assert!(!edited.is_empty());
}

#[test]
fn a_field_that_ses_takes_once_is_refused_twice() {
    let duplicate = |lines: &str| match section(lines).check_single() {
        Ok(()) => None,
        Err(HeaderError::Duplicate(name)) => Some(name),
        Err(other) => panic!("{other}"),
    };
    for name in [
        "Subject",
        "Message-ID",
        "Date",
        "From",
        "Sender",
        "List-Unsubscribe-Post",
        "Content-MD5",
        "Original-Subject",
        "acceptLanguage",
        "VBR-Info",
    ] {
        let (upper, lower) = (name.to_uppercase(), name.to_lowercase());
        assert_eq!(duplicate(&format!("{name}: a\nX: b\n{upper} : a")), Some(name.to_owned()));
        assert_eq!(duplicate(&format!("{lower}: a\nX: b")), None);
    }
    assert_eq!(duplicate("Accept-Language: a\nacceptLanguage: a"), None);
    assert_eq!(duplicate("Received: a\nReceived: b\nResent-From: c\nResent-From: d\nX: e\nX: f\nTo: g\nTo: h"), None);
    assert_eq!(duplicate("DKIM-Signature: a\nDKIM-Signature: b\nReturn-Path: c\nReturn-Path: d\nBcc: e\nBcc: f"), None);
}

#[test]
fn hops_and_message_id() {
    let seen = section("Received: a\nRECEIVED : b\nX-Received: c\nMessage-Id:\n <d@e.f>\t\nMessage-ID: g");
    assert_eq!((seen.hops(), seen.message_id().as_deref()), (2, Some("<d@e.f>")));
    assert_eq!(section("X: a").message_id(), None);
    let long = section(&format!("Message-ID: {}", "é".repeat(300))).message_id().unwrap();
    assert_eq!(long, "é".repeat(SHOWN_MESSAGE_ID));
}

/// `Field address`, one claim each; or the error.
fn claims(lines: &str) -> Result<Vec<String>, HeaderError> {
    let claims = section(lines).originators()?.claims;
    Ok(claims.into_iter().map(|(name, mailbox)| format!("{name} {mailbox}")).collect())
}

#[test]
fn originators_that_are_read() {
    let cases = [
        ("From: joe@a.example", &["From joe@a.example"][..]),
        ("from \t:\n joe@a.example", &["From joe@a.example"]),
        ("From: Joe Bloggs <joe@a.example>", &["From joe@a.example"]),
        ("From: Joe Q. Bloggs <joe@a.example>", &["From joe@a.example"]),
        ("From: \"Bloggs, Joe <x@evil.example>\" <joe@a.example>", &["From joe@a.example"]),
        ("From: \"a \\\" b\" <joe@a.example> (comment (nested) \\) x@evil.example)", &["From joe@a.example"]),
        ("From: (hello) joe@a.example", &["From joe@a.example"]),
        ("From: <joe@a.example>", &["From joe@a.example"]),
        ("From: \"(\" (\\() <joe@a.example>(c)\n (d)", &["From joe@a.example"]),
        ("From: Joe\n \n <joe@a.example>", &["From joe@a.example"]),
        ("From: =?utf-8?q?Foo_(Bar)?= <joe@a.example>", &["From joe@a.example"]),
        ("From: =?utf-8?q?=3Cx=40evil.example=3E?= <joe@a.example>", &["From joe@a.example"]),
        ("From: =?utf-8?q?J=C3=B6e?= <joe@a.example>", &["From joe@a.example"]),
        ("From: =?utf-8?b?SsO2ZQ==?=\n =?utf-8?b?SsO2ZQ==?= <joe@a.example>", &["From joe@a.example"]),
        ("From: Jörg 中 <joe@a.example>", &["From joe@a.example"]),
        ("From: \"Jörg\" <joe@a.example>", &["From joe@a.example"]),
        ("From: joe@bücher.example", &["From joe@xn--bcher-kva.example"]),
        ("From: Joe\n <joe@A.EXAMPLE>", &["From joe@a.example"]),
        (
            "From: joe@a.example, Ann <ann@b.example>\nSender: joe@a.example",
            &["From joe@a.example", "From ann@b.example", "Sender joe@a.example"],
        ),
        (
            "From: joe@a.example\nResent-From: x@b.example, y@b.example\nResent-Sender: z@b.example\nRESENT-from: w@c.example",
            &[
                "From joe@a.example",
                "Resent-From x@b.example",
                "Resent-From y@b.example",
                "Resent-From w@c.example",
                "Resent-Sender z@b.example",
            ],
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(
            claims(lines).as_deref(),
            Ok(expected.iter().map(|c| c.to_string()).collect::<Vec<_>>().as_slice()),
            "{lines}"
        );
    }
}

#[test]
fn originators_that_cannot_be_read_in_one_way_only() {
    let values = [
        "",
        " ",
        "joe",
        "Joe Bloggs",
        "<>",
        "Joe <>",
        "John joe@a.example",
        "joe@a.example John",
        "joe@a.example <ann@b.example>",
        "Joe <joe@a.example> <ann@b.example>",
        "<joe@a.example>, <ann@b.example> x",
        "<joe@a.example> Joe",
        "<a@b.c> <d@e.f>",
        "<@r1.example:joe@a.example>",
        "<@r1.example,@r2.example:joe@a.example>",
        "Team: joe@a.example;",
        "Team: joe@a.example, ann@b.example;",
        "undisclosed:;",
        "joe@a.example,",
        ",joe@a.example",
        "joe@a.example,,ann@b.example",
        "joe@a.example; ann@b.example",
        "joe @ a.example",
        "joe@a .example",
        "joe(c)@a.example",
        "<joe@a.example(c)>",
        "< joe@a.example>",
        "<joe@a.example",
        "joe@a.example>",
        "<<joe@a.example>>",
        "\"joe@a.example",
        "(joe@a.example",
        "joe@a.example)",
        "Joe \\<joe@a.example>",
        "joe@[192.0.2.1]",
        "joe@localhost",
        "jöe@a.example",
        "joe@faß.example",
        "=?utf-8?b?dmlwQGV2aWw=?=@a.example",
        "=?utf-8?q?x:_y?= <joe@a.example>",
        "joe@a.example\u{1b}[31m",
        "Joe\u{7f} <joe@a.example>",
        "\"Joe\u{1}\" <joe@a.example>",
        "((((((((((((((((((joe)))))))))))))))))) joe@a.example",
        "joe@a.example@b.example",
        // ours alone reads these; mail-parser does not, so nobody does
        "\"a@b\"@c.example",
        "\"joe.b\"@c.example",
        "<\"a@b\"@c.example>",
        "Joe <\"joe.b\"@c.example>",
        "joe@a..example",
        "\"joe\"@a.example \"x\"@b.example",
    ];
    for value in values {
        assert_eq!(claims(&format!("From: {value}")), Err(HeaderError::Address("From")), "{value:?}");
        let lines = format!("From: joe@a.example\nResent-From: {value}");
        assert_eq!(claims(&lines), Err(HeaderError::Address("Resent-From")), "{value:?}");
    }
    let latin1 = scan(b"From: J\xf6rg <joe@a.example>\r\n\r\n").unwrap();
    assert_eq!(latin1.originators(), Err(HeaderError::Address("From")));
}

#[test]
fn how_many_originators_there_may_be() {
    let two = "joe@a.example, ann@b.example";
    assert_eq!(claims("To: joe@a.example"), Err(HeaderError::NoFrom));
    assert_eq!(scan("").unwrap().originators(), Err(HeaderError::NoFrom));
    assert_eq!(scan("\r\nFrom: a@b.example\r\n").unwrap().originators(), Err(HeaderError::NoFrom));
    assert_eq!(claims("From: a@b.example\nfrom: a@b.example"), Err(HeaderError::Duplicate("From".into())));
    let senders = "From: a@b.example\nSender: a@b.example\nSENDER : c@d.example";
    assert_eq!(claims(senders), Err(HeaderError::Duplicate("Sender".into())));
    assert_eq!(claims(&format!("From: {two}")), Err(HeaderError::NoSender));
    assert_eq!(claims(&format!("From: a@b.example\nSender: {two}")), Err(HeaderError::Address("Sender")));
    let resent = format!("From: a@b.example\nResent-Sender: {two}");
    assert_eq!(claims(&resent), Err(HeaderError::Address("Resent-Sender")));
}

#[test]
fn wishes_that_are_read() {
    let wishes = |lines: &str| section(lines).wishes().unwrap();
    assert_eq!(wishes("From: a"), Wishes::default());
    assert_eq!(wishes("X-Bulkhead-Stream:\nX-SES-CONFIGURATION-SET: \nX-SES-MESSAGE-TAGS: "), Wishes::default());
    let seen = wishes(
        "x-bulkhead-stream :\n marketing \nX-Bulkhead-Stream: marketing\nx-ses-configuration-set:acme-marketing\n\
         X-SES-MESSAGE-TAGS: a=1,\n b=2, a=1,\nX-SES-Message-Tags: Tenant=other, tenant=x, c-_C = 3",
    );
    assert_eq!(seen.stream.as_deref(), Some("marketing"));
    assert_eq!(seen.configuration_set.as_deref(), Some("acme-marketing"));
    let tags: Vec<_> = seen.tags.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(tags, ["a=1", "b=2", "Tenant=other", "tenant=x", "c-_C=3"]);
    assert!(is_our_tag("Tenant") && is_our_tag("stream") && !is_our_tag("streams"));
    let most = "X-SES-MESSAGE-TAGS: a=1,b=1,c=1,d=1,tenant=1,stream=1,e=1,f=1,g=1,credential=1";
    assert_eq!(wishes(most).tags.len(), CLIENT_TAGS + OUR_TAGS.len());
    let long = "n".repeat(256);
    assert_eq!(wishes(&format!("X-SES-MESSAGE-TAGS: {long}={long}")).tags[0].0, long);
}

#[test]
fn wishes_that_are_refused() {
    let refused = |lines: &str| section(lines).wishes().unwrap_err();
    let stream = "X-Bulkhead-Stream: a\nX-BULKHEAD-STREAM: b";
    assert_eq!(refused(stream), HeaderError::Contradiction("X-Bulkhead-Stream"));
    let set = "X-SES-CONFIGURATION-SET: a\nX-SES-CONFIGURATION-SET: A";
    assert_eq!(refused(set), HeaderError::Contradiction("X-SES-CONFIGURATION-SET"));
    let long = format!("a={}", "v".repeat(257));
    let cases = [
        ("a", "a"),
        ("a=", "a"),
        ("=1", ""),
        ("ses:feedback-id-a=1", "ses:feedback-id-a"),
        ("b=2, a=x@y", "a"),
        ("a=1=2", "a"),
        ("a b=1", "a b"),
        ("ä=1", "ä"),
        ("a=1; b=2", "a"),
        ("a=1, a=2", "a"),
        (&long, "a"),
    ];
    for (tags, name) in cases {
        assert_eq!(refused(&format!("X-SES-MESSAGE-TAGS: {tags}")), HeaderError::Tag(name.into()), "{tags}");
    }
    let shown = refused(&format!("X-SES-MESSAGE-TAGS: {}", "n".repeat(900)));
    assert_eq!(shown, HeaderError::Tag("n".repeat(64)));
    let many = "X-SES-MESSAGE-TAGS: a=1,b=1,c=1,d=1\nX-SES-MESSAGE-TAGS: e=1,f=1,g=1,h=1";
    assert_eq!(refused(many), HeaderError::TooManyTags(CLIENT_TAGS));
}

/// A field, and whether it must not leave.
fn field() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let good = prop::sample::select(vec![
        "From: Joe <joe@a.example>",
        "To: a@b.example,\r\n c@d.example",
        "Subject: Bcc:\r\n Bcc: not a field",
        "X-Bccd: a",
        "X-SES : a",
        "Received: from a\r\n\tby b",
        "Date: Fri, 01 May 2026 09:15:02 +0000",
        "Message-ID: <a@b.example>",
        "Comments:",
        "Return-Path2:\r\n \r\n x",
    ]);
    let name = prop::sample::select(vec![
        "Bcc",
        "Resent-Bcc",
        "X-SES-SOURCE-ARN",
        "X-SES-TENANT",
        "X-SES-x",
        "X-Bulkhead-Stream",
        "Return-Path",
        "DKIM-Signature",
    ]);
    let spelled = (name, any::<u64>(), "[ \t]{0,2}", "(\r\n[ \t])?", "[ -~]{0,20}", "(\r\n[ \t][!-~]{1,9}){0,2}")
        .prop_map(|(name, cases, gap, fold, value, more)| {
            let name: String = name
                .chars()
                .enumerate()
                .map(|(i, c)| if cases >> i & 1 == 1 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            format!("{name}{gap}:{fold}{value}{more}\r\n").into_bytes()
        });
    prop_oneof![
        2 => good.prop_map(|text| (false, format!("{text}\r\n").into_bytes())),
        1 => prop::collection::vec(0x80_u8.., 0..9).prop_map(|v| (false, [b"X-8bit: ", v.as_slice(), b"\r\n"].concat())),
        2 => spelled.prop_map(|field| (true, field)),
    ]
}

#[test]
fn an_edited_message_holds_all_it_should_and_nothing_it_should_not() {
    let fields = prop::collection::vec(field(), 0..12);
    let body = prop::option::weighted(0.9, prop::collection::vec(any::<u8>(), 0..200));
    let mut runner = TestRunner::deterministic();
    let (mut planted, mut removed, mut bodies) = (0, 0, 0);
    for _ in 0..1500 {
        let (fields, body) = (&fields, &body).new_tree(&mut runner).unwrap().current();
        let header: Vec<u8> = fields.iter().flat_map(|(_, octets)| octets.clone()).collect();
        let kept: Vec<u8> = fields.iter().filter(|(bad, _)| !bad).flat_map(|(_, octets)| octets.clone()).collect();
        let rest = body.as_ref().map(|body| [b"\r\n", body.as_slice()].concat());
        let message = [header, rest.clone().unwrap_or_default()].concat();

        let before = scan(&message).unwrap();
        assert_eq!(before.fields().len(), fields.len());
        let edited = before.edit(&ADDITIONS);
        planted += fields.iter().filter(|(bad, _)| *bad).count();
        removed += edited.removed.len();
        bodies += usize::from(body.is_some());

        let octets = edited.to_vec();
        let after = scan(&octets).unwrap();
        assert!(after.fields().iter().all(|f| !must_not_leave(after.name(f))));
        for once in ["Date", "Message-ID"] {
            assert!(after.named(once).next().is_some());
        }
        let octets = octets.strip_prefix(ADDITIONS.trace.as_bytes()).unwrap();
        let rest = rest.unwrap_or(b"\r\n".to_vec());
        let mut added = String::new();
        for (name, line) in [
            ("Date:", "Date: Fri, 01 May 2026 09:15:02 +0000\r\n"),
            ("Message-ID:", "Message-ID: <1@relay.example>\r\n"),
        ] {
            if !fields.iter().any(|(_, octets)| octets.starts_with(name.as_bytes())) {
                added.push_str(line);
            }
        }
        assert_eq!(octets, [kept.as_slice(), added.as_bytes(), &rest].concat());
    }
    assert_eq!(planted, removed);
    assert!(planted > 2000 && bodies > 1000, "{planted} planted, {bodies} bodies");
}

#[test]
fn a_section_at_its_limits_takes_no_time() {
    let mut message = String::from("From: joe@a.example\r\n");
    for i in 0..498 {
        let name = if i % 2 == 0 { "X-SES-x" } else { "X-y" };
        message += &format!("{name}: {}\r\n", format!("{}\r\n ", "a".repeat(120)).repeat(4));
    }
    message += &format!("Resent-From: {}z@a.example\r\n\r\n", "Joe <joe@a.example>,\r\n ".repeat(300));
    assert!(message.len() > 240 * 1024 && message.len() < LIMITS.bytes, "{}", message.len());
    let message = Bytes::from(message);
    let quickest = (0..5).map(|_| {
        let start = Instant::now();
        let section = HeaderSection::scan(message.clone(), LIMITS).unwrap();
        section.check_single().unwrap();
        assert_eq!(section.originators().unwrap().claims.len(), 302);
        section.wishes().unwrap();
        assert_eq!(section.edit(&ADDITIONS).removed.len(), 249);
        start.elapsed()
    });
    // Unoptimised and on a busy machine; linear work takes a few milliseconds of it.
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_millis(150), "{quickest:?}");
}
