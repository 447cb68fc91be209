//! The trace field that says a message went through here (RFC 5321 4.4, RFC 3848).
//!
//! It carries what a reader of headers can use: the name the client gave itself, its address, our
//! name, our message id (which finds the message in our log) and the time. The credential is not in
//! it. An address that means nothing outside (private, loopback, link-local, unique local) is left
//! out, since it would only tell the world how a tenant's network is laid out; the log has it.

use std::net::IpAddr;

use crate::mail::{Mailbox, MessageId};
use crate::time::Timestamp;

/// Line length that folding keeps to wherever a word fits (RFC 5322 2.1.1).
const FOLD: usize = 78;
/// Longest name a client may have called itself, in octets (RFC 5321 4.5.3.1.2).
const NAME: usize = 255;

/// What the field tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace<'a> {
    /// What the client called itself, as sent.
    pub(super) helo: &'a str,
    /// Where it is.
    pub(super) peer: IpAddr,
    /// Whether TLS was up.
    pub(super) secure: bool,
    /// Our name.
    pub(super) hostname: &'a str,
    /// Our id of the message.
    pub(super) id: MessageId,
    /// The recipients; only one alone is named, so that nobody is told of the others.
    pub(super) recipients: &'a [Mailbox],
    /// When.
    pub(super) now: Timestamp,
}

impl Trace<'_> {
    /// The whole field with its CRLF.
    pub(super) fn field(&self) -> String {
        let mut words: Vec<String> = vec!["from".into(), name(self.helo)];
        words.extend(literal(self.peer).map(|literal| format!("({literal})")));
        words.extend(["by".into(), name(self.hostname), "(Bulkhead)".into(), "with".into()]);
        // RFC 3848; every session that comes so far is authenticated.
        words.push(if self.secure { "ESMTPSA".into() } else { "ESMTPA".into() });
        words.extend(["id".into(), self.id.to_string()]);
        if let [only] = self.recipients {
            words.extend(["for".into(), format!("<{only}>")]);
        }
        if let Some(last) = words.last_mut() {
            last.push(';');
        }
        words.push(self.now.rfc5322());
        fold("Received:", &words)
    }
}

fn fold(name: &str, words: &[String]) -> String {
    let mut field = String::from(name);
    let mut line = name.len();
    for word in words {
        if line + 1 + word.len() > FOLD && line > name.len() {
            field.push_str("\r\n\t");
            line = 1;
        } else {
            field.push(' ');
            line += 1;
        }
        field.push_str(word);
        line += word.len();
    }
    field.push_str("\r\n");
    field
}

/// A name as it may stand in a trace field; `unknown` for what is none.
fn name(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if text.is_empty() || text.len() > NAME || !text.chars().all(allowed) { "unknown".into() } else { text.into() }
}

/// An address literal (RFC 5321 4.1.3), if the address means something outside.
fn literal(peer: IpAddr) -> Option<String> {
    match peer.to_canonical() {
        IpAddr::V4(address) => {
            let inside = address.is_private() || address.is_loopback() || address.is_link_local();
            (!inside && !address.is_unspecified()).then(|| format!("[{address}]"))
        }
        IpAddr::V6(address) => {
            let inside = address.is_loopback() || address.is_unicast_link_local() || address.is_unique_local();
            (!inside && !address.is_unspecified()).then(|| format!("[IPv6:{address}]"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(helo: &str, peer: &str, recipients: &[&str]) -> String {
        let recipients: Vec<Mailbox> = recipients.iter().map(|r| Mailbox::parse(r.as_bytes()).unwrap()).collect();
        Trace {
            helo,
            peer: peer.parse().unwrap(),
            secure: true,
            hostname: "relay.example",
            id: MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap(),
            recipients: &recipients,
            now: Timestamp::from_millis(1_777_626_902_000),
        }
        .field()
    }

    #[test]
    fn it_is_folded_and_names_a_lone_recipient() {
        assert_eq!(
            field("app.acme.example", "192.0.2.1", &["a@b.example"]),
            "Received: from app.acme.example ([192.0.2.1]) by relay.example (Bulkhead) with\r\n\
             \tESMTPSA id 01ARZ3NDEKTSV4RRFFQ69G5FAV for <a@b.example>;\r\n\
             \tFri, 01 May 2026 09:15:02 +0000\r\n"
        );
        assert!(!field("x.example", "192.0.2.1", &["a@b.example", "c@d.example"]).contains("for <"));
    }

    #[test]
    fn addresses_that_mean_nothing_outside_are_left_out() {
        for inside in ["10.1.2.3", "192.168.0.1", "172.16.0.9", "127.0.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"]
        {
            assert!(!field("x.example", inside, &[]).contains('['), "{inside}");
        }
        for (outside, shown) in [
            ("2001:db8::1", "([IPv6:2001:db8::1])"),
            ("::ffff:192.0.2.1", "([192.0.2.1])"),
            ("198.51.100.9", "([198.51.100.9])"),
        ] {
            assert!(field("x.example", outside, &[]).contains(shown), "{outside}");
        }
    }

    #[test]
    fn nothing_a_client_calls_itself_breaks_out_of_the_field() {
        let long = "a".repeat(256);
        let hostile = ["", "x\r\nBcc: a@b", "x y", "(comment", "x;y", "<script>", "caf\u{e9}", "\0", long.as_str()];
        for helo in hostile {
            let field = field(helo, "192.0.2.1", &[]);
            assert!(field.starts_with("Received: from unknown ("), "{helo:?}: {field}");
            assert_eq!(field.matches("\r\n").count(), field.matches("\r\n\t").count() + 1);
        }
        assert!(field("[192.0.2.1]", "192.0.2.1", &[]).contains("from [192.0.2.1] ("));
        for line in field(&"a.".repeat(60), "2001:db8::1", &["someone.with.a.long.name@department.example"]).lines() {
            assert!(line.len() <= 140, "{line}");
        }
    }
}
