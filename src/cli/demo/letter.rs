//! The demo's messages: real MIME, with what real applications put in it.

use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, MultiPart, SinglePart};

use crate::cli::Failure;

/// One message to be.
pub(super) struct Letter<'a> {
    /// The From field.
    pub(super) from: &'a str,
    /// The To field.
    pub(super) to: &'a str,
    /// The Subject field.
    pub(super) subject: &'a str,
    /// Further fields.
    pub(super) fields: &'a [(&'static str, &'a str)],
}

impl Letter<'_> {
    /// Its octets: text, HTML and an attachment.
    pub(super) fn octets(&self) -> Result<Vec<u8>, Failure> {
        let mut builder = Message::builder()
            .from(self.from.parse()?)
            .to(self.to.parse()?)
            .subject(self.subject)
            // The fields of this demo are to arrive as they are, Bcc too.
            .keep_bcc();
        for (name, value) in self.fields {
            let name = HeaderName::new_from_ascii(String::from(*name))?;
            builder = builder.raw_header(HeaderValue::new(name, (*value).to_owned()));
        }
        let body = MultiPart::mixed()
            .multipart(MultiPart::alternative_plain_html(
                format!("{}\r\n\r\nGrüße, and a line that begins with a dot:\r\n.like this\r\n", self.subject),
                format!("<p>{}</p>", self.subject),
            ))
            .singlepart(attachment()?);
        Ok(builder.multipart(body)?.formatted())
    }
}

fn attachment() -> Result<SinglePart, Failure> {
    let octets: Vec<u8> = (0..=255).collect();
    Ok(Attachment::new("all-octets.bin".into()).body(octets, ContentType::parse("application/octet-stream")?))
}

/// Header section and body, parted at the first empty line.
pub(super) fn parted(message: &[u8]) -> (&[u8], &[u8]) {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |at| at + 4);
    message.split_at(end)
}

/// Names of the header fields, in lower case.
pub(super) fn field_names(message: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(parted(message).0)
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_ascii_lowercase())
        .collect()
}

/// Whether the Subject field is this (ASCII) one.
pub(super) fn has_subject(message: &[u8], subject: &str) -> bool {
    let wanted = format!("Subject: {subject}");
    String::from_utf8_lossy(parted(message).0).lines().any(|line| line == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_what_it_was_given() {
        let letter = Letter {
            from: "a@atlas.example",
            to: "b@customers.example",
            subject: "hello",
            fields: &[("Bcc", "spy@customers.example"), ("X-SES-CONFIGURATION-SET", "other")],
        };
        let octets = letter.octets().unwrap();
        let names = field_names(&octets);
        assert!(names.contains(&"bcc".into()) && names.contains(&"x-ses-configuration-set".into()), "{names:?}");
        assert!(has_subject(&octets, "hello"));
        assert!(!has_subject(&octets, "hell"));
        let (head, body) = parted(&octets);
        assert!(head.ends_with(b"\r\n\r\n") && !body.is_empty());
    }
}
