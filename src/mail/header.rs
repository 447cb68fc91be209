//! The header section of a message: read strictly, edited by byte range (RFC 5322 2.2, 3.6).
//!
//! Promises: every octet of the header section belongs to exactly one field or the scan fails, so
//! nothing can hide between fields; the body is never copied, and every octet that is not removed
//! leaves as it came.
//! Refuses, rather than repairs: a line that is neither a field nor a continuation, bare CR or LF,
//! NUL, lines and header sections over the limits.
//! Lets be: white space between name and colon (RFC 5322 4.5: the name counts as if it were not
//! there), 8-bit octets in values that nobody decides by, and a message without an empty line,
//! which is all header (RFC 5322 2.1) and leaves with one.
//!
//! `header/single` has SES's list of fields that may be there once, `header/originators` reads whose
//! message it is, `header/wishes` what the client asked of us.

mod originators;
mod single;
#[cfg(test)]
mod tests;
mod wishes;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr2};

use super::mailbox::Mailbox;
pub use wishes::{CLIENT_TAGS, OUR_TAGS, is_our_tag};

/// Characters of a Message-ID that are shown.
pub const SHOWN_MESSAGE_ID: usize = 200;

/// How large a header section may be.
#[derive(Clone, Copy, Debug)]
pub struct HeaderLimits {
    /// Octets up to and with the empty line.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
    /// Octets of a line without its CRLF; RFC 5322 2.1.1 has 998.
    pub line: usize,
}

/// One field: `name ":" value CRLF`, folded lines included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// The name, without colon and without obsolete white space before it.
    pub name: Range<usize>,
    /// The value: everything after the colon but the last CRLF, folding included.
    pub value: Range<usize>,
    /// The whole field with its last CRLF.
    pub span: Range<usize>,
}

/// A scanned header section over the octets of a message.
#[derive(Clone, Debug)]
pub struct HeaderSection {
    message: Bytes,
    fields: Vec<Field>,
    /// Where the empty line begins; the section's fields end here.
    end: usize,
}

/// Why a header section is refused. Positions are line numbers from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// A line that is neither `name: value` nor a continuation of one.
    #[error("line {0} of the header section is not a header field")]
    NotAField(usize),
    /// A control octet that has no place in a header section (NUL, bare CR, bare LF).
    #[error("line {0} of the header section has a NUL, bare CR or bare LF")]
    Control(usize),
    /// A line over [`HeaderLimits::line`], which comes second.
    #[error("line {0} of the header section is longer than {1} octets")]
    LineTooLong(usize, usize),
    /// Over [`HeaderLimits::bytes`].
    #[error("the header section is longer than {0} octets")]
    TooLarge(usize),
    /// Over [`HeaderLimits::fields`].
    #[error("the header section has more than {0} fields")]
    TooMany(usize),
    /// A field that SES allows once is there again.
    #[error("duplicate header field {0}")]
    Duplicate(String),
    /// There is no From field (RFC 5322 3.6).
    #[error("there is no From field")]
    NoFrom,
    /// An address field that cannot be read without guessing.
    #[error("the {0} field holds no address list that can be read unambiguously")]
    Address(&'static str),
    /// More than one author needs a Sender field (RFC 5322 3.6.2).
    #[error("several From addresses need a Sender field")]
    NoSender,
    /// X-Bulkhead-Stream or X-SES-CONFIGURATION-SET is there twice and does not say the same.
    #[error("{0} is given twice with different values")]
    Contradiction(&'static str),
    /// A message tag that SES would not take, or that is given two values. The text is its name, or
    /// as much of it as there is; it is the client's.
    #[error("message tag {0:?} is not name=value with 1 to 256 of A-Z, a-z, 0-9, _ and - each, once")]
    Tag(String),
    /// More tags than there is room for beside ours.
    #[error("more than {0} message tags")]
    TooManyTags(usize),
}

/// Whose message this says it is: every address that must be the tenant's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Originators {
    /// The field name ("From", "Sender", "Resent-From", "Resent-Sender") and the address.
    pub claims: Vec<(&'static str, Mailbox)>,
}

/// What the client asked of us in the header section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// `X-Bulkhead-Stream`, trimmed, unfolded.
    pub stream: Option<String>,
    /// `X-SES-CONFIGURATION-SET`, trimmed, unfolded.
    pub configuration_set: Option<String>,
    /// `X-SES-MESSAGE-TAGS`: `name=value` pairs in order, as given.
    pub tags: Vec<(String, String)>,
}

/// What to add to a header section.
#[derive(Clone, Debug)]
pub struct Additions<'a> {
    /// The whole trace field with its CRLF, put first.
    pub trace: &'a str,
    /// The value of a Date field, if there is none.
    pub date: &'a str,
    /// The value of a Message-ID field with its angle brackets, if there is none.
    pub message_id: &'a str,
}

/// A message ready for SES: slices of what came and the few octets we added, in order.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The octets in order; concatenated they are the message.
    pub segments: Vec<Bytes>,
    /// Names of removed fields, as given, for the log.
    pub removed: Vec<String>,
}

impl HeaderSection {
    /// Scans `message` up to its first empty line; a message without one is all header.
    pub fn scan(message: Bytes, limits: HeaderLimits) -> Result<Self, HeaderError> {
        let mut fields: Vec<Field> = Vec::new();
        let mut at = 0;
        let mut number = 0;
        while at < message.len() {
            number += 1;
            let line = Line::at(&message, at, number, limits)?;
            let text = message.get(line.text.clone()).unwrap_or_default();
            match text.first() {
                None => break,
                Some(b' ' | b'\t') => {
                    let field = fields.last_mut().ok_or(HeaderError::NotAField(number))?;
                    field.value.end = line.text.end;
                    field.span.end = line.end;
                }
                Some(_) => {
                    let (name, colon) = name(text).ok_or(HeaderError::NotAField(number))?;
                    if fields.len() >= limits.fields {
                        return Err(HeaderError::TooMany(limits.fields));
                    }
                    fields.push(Field {
                        name: at..at + name,
                        value: at + colon + 1..line.text.end,
                        span: at..line.end,
                    });
                }
            }
            at = line.end;
        }
        Ok(Self { message, fields, end: at })
    }

    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// How many Received fields there are (RFC 5321 6.3).
    pub fn hops(&self) -> usize {
        self.named("Received").count()
    }

    /// The first Message-ID, for the log; unfolded and cut to 200 characters.
    pub fn message_id(&self) -> Option<String> {
        let text = self.unfolded(self.named("Message-ID").next()?);
        Some(text.chars().take(SHOWN_MESSAGE_ID).collect())
    }

    /// The message for SES: removed what must not leave, added what is missing.
    ///
    /// The trace field comes first, Date and Message-ID last in the header section. Everything that
    /// is kept is a slice of the message.
    pub fn edit(&self, additions: &Additions<'_>) -> Edited {
        let mut segments = vec![Bytes::copy_from_slice(additions.trace.as_bytes())];
        let mut removed = Vec::new();
        let mut kept = 0..0;
        for field in &self.fields {
            if must_not_leave(self.name(field)) {
                removed.push(String::from_utf8_lossy(self.name(field)).into_owned());
                self.keep(&mut segments, kept);
                kept = field.span.end..field.span.end;
            } else {
                kept.end = field.span.end;
            }
        }
        // A last line of the message without its CRLF would run into what follows.
        let unterminated = kept.end == self.message.len() && !self.octets(&kept).ends_with(b"\r\n") && !kept.is_empty();
        self.keep(&mut segments, kept);
        let mut added = String::new();
        if unterminated {
            added.push_str("\r\n");
        }
        for (name, value) in [("Date", additions.date), ("Message-ID", additions.message_id)] {
            if self.named(name).next().is_none() {
                added.extend([name, ": ", value, "\r\n"]);
            }
        }
        if self.end == self.message.len() {
            added.push_str("\r\n");
        }
        if !added.is_empty() {
            segments.push(Bytes::from(added));
        }
        self.keep(&mut segments, self.end..self.message.len());
        Edited { segments, removed }
    }

    /// Adds a piece of the message, without a copy.
    fn keep(&self, segments: &mut Vec<Bytes>, kept: Range<usize>) {
        if !kept.is_empty() {
            segments.push(self.message.slice(kept));
        }
    }

    fn octets(&self, range: &Range<usize>) -> &[u8] {
        self.message.get(range.clone()).unwrap_or_default()
    }

    fn name(&self, field: &Field) -> &[u8] {
        self.octets(&field.name)
    }

    /// The fields of that name, whatever their case.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| self.name(field).eq_ignore_ascii_case(name.as_bytes()))
    }

    /// A field's value on one line, trimmed; what is not UTF-8 becomes U+FFFD.
    fn unfolded(&self, field: &Field) -> String {
        let text = String::from_utf8_lossy(self.octets(&field.value));
        let text = if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "")) } else { text };
        text.trim_matches([' ', '\t']).to_owned()
    }
}

/// One line: its text, and where the next one begins.
struct Line {
    text: Range<usize>,
    end: usize,
}

impl Line {
    /// The line that begins at `at`, which lies within the message. Nothing beyond
    /// the octets that the header section may have is looked at.
    fn at(message: &[u8], at: usize, number: usize, limits: HeaderLimits) -> Result<Self, HeaderError> {
        let most = limits.bytes;
        let rest = message.get(at..message.len().min(most)).unwrap_or_default();
        let (length, end) = match memchr(b'\n', rest) {
            Some(0) => return Err(HeaderError::Control(number)),
            Some(lf) => (lf - 1, at + lf + 1),
            None => (rest.len(), at + rest.len()),
        };
        let (text, cr) = rest.split_at(length);
        if cr.is_empty() && message.len() > most && length <= limits.line {
            return Err(HeaderError::TooLarge(most));
        }
        if memchr2(0, b'\r', text).is_some() || !matches!(cr.first(), None | Some(b'\r')) {
            return Err(HeaderError::Control(number));
        }
        if length > limits.line {
            return Err(HeaderError::LineTooLong(number, limits.line));
        }
        Ok(Self { text: at..at + length, end })
    }
}

/// Where in a line the field name ends and where the colon is.
fn name(text: &[u8]) -> Option<(usize, usize)> {
    let name = text.iter().position(|b| !matches!(b, b'!'..=b'9' | b';'..=b'~'))?;
    let colon = name + text.get(name..)?.iter().position(|b| !matches!(b, b' ' | b'\t'))?;
    (name > 0 && text.get(colon) == Some(&b':')).then_some((name, colon))
}

/// Whether a field stays here: blind copies, whatever speaks to SES or to us, the return path that
/// is not the client's to set, and a signature that SES's own changes would break.
fn must_not_leave(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [b"Bcc", b"Resent-Bcc", b"Return-Path", b"DKIM-Signature"];
    const PREFIXES: [&[u8]; 2] = [b"X-SES-", b"X-Bulkhead-"];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
        || PREFIXES.iter().any(|p| name.get(..p.len()).is_some_and(|start| start.eq_ignore_ascii_case(p)))
}

impl Edited {
    /// Octets in all.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The one copy: what the SDK needs in a vector.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for segment in &self.segments {
            all.extend_from_slice(segment);
        }
        all
    }
}
