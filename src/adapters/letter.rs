//! Letters: the relay's own mail about announcements, made by lettre.
//!
//! Promises: one text part, in an encoding that any relay carries, lines of a length it takes; names
//! and subject encoded where they are no ASCII, so that no text can add a header field; our own
//! Message-ID; `Auto-Submitted: auto-generated` (RFC 3834), which no vacation program answers.
//! Refuses: addresses that lettre does not take.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Address;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};

use crate::announce::letter::Letter;

#[derive(Clone, Copy, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The octets of a letter. The error says which address is of no use, and not the address.
pub fn compose(letter: &Letter) -> Result<Vec<u8>, String> {
    let Letter { id, hostname, from, to, date, subject, text } = letter;
    let address = |mailbox: &crate::mail::Mailbox, which: &str| -> Result<Address, String> {
        mailbox.to_string().parse().map_err(|error| format!("the address it is {which} is of no use: {error}"))
    };
    let message = Message::builder()
        .from(Mailbox::new(Some(format!("Bulkhead at {hostname}")), address(from, "from")?))
        .to(Mailbox::new(None, address(to, "to")?))
        .subject(subject.as_str())
        .date(UNIX_EPOCH + Duration::from_millis(date.millis()))
        .message_id(Some(format!("<{id}@{hostname}>")))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN)
        .body(text.clone())
        .map_err(|error| error.to_string())?;
    Ok(message.formatted())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::MessageId;
    use crate::time::Timestamp;

    fn letter(subject: &str, text: &str) -> Letter {
        let mailbox = |text: &str| crate::mail::Mailbox::parse(text.as_bytes()).unwrap();
        Letter {
            id: MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap(),
            hostname: "relay.example.com".into(),
            from: mailbox("postmaster@relay.example.com"),
            to: mailbox("ops@acme.example"),
            date: Timestamp::parse_rfc3339("2026-05-01T09:15:02.418Z").unwrap(),
            subject: subject.into(),
            text: text.into(),
        }
    }

    /// Read by another library than the one that wrote it.
    #[test]
    fn a_letter_reads_as_it_was_meant() {
        let octets = compose(&letter("Stream marketing was paused", "Es wurde gestoppt: 6,2 %.\n\n.\nü\n")).unwrap();
        let read = mail_parser::MessageParser::default().parse(&octets).unwrap();
        assert_eq!(read.subject(), Some("Stream marketing was paused"));
        assert_eq!(read.message_id(), Some("01ARZ3NDEKTSV4RRFFQ69G5FAV@relay.example.com"));
        assert_eq!(read.date().unwrap().to_rfc3339(), "2026-05-01T09:15:02Z");
        assert_eq!(read.from().unwrap().first().unwrap().address(), Some("postmaster@relay.example.com"));
        assert_eq!(read.to().unwrap().first().unwrap().address(), Some("ops@acme.example"));
        assert_eq!(read.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
        assert_eq!(read.body_text(0).unwrap().replace("\r\n", "\n"), "Es wurde gestoppt: 6,2 %.\n\n.\nü\n");
        let bare = octets.windows(2).filter(|pair| pair[1] == b'\n' && pair[0] != b'\r').count();
        assert_eq!(bare, 0);
    }

    #[test]
    fn no_text_adds_a_header_field() {
        let octets = compose(&letter("x\r\nBcc: all@x.example\r\n\r\nbody", "\r\nBcc: b@x.example\r\n")).unwrap();
        let text = String::from_utf8(octets).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{head}");
        assert!(head.lines().count() >= 7 && head.contains("Auto-Submitted: auto-generated"), "{head}");
    }
}
