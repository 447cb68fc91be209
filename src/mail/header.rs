//! The header section of a message: read strictly, edited by byte range (RFC 5322 2.2, 3.6).
//!
//! Promises: every octet of the header section belongs to exactly one field or the scan fails, so
//! nothing can hide between fields; the body is never copied, and every octet that is not removed
//! leaves as it came.
//! Refuses, rather than repairs: a line that is neither a field nor a continuation, bare CR or LF,
//! NUL, lines over 998 octets, header sections over the limits.

use std::ops::Range;

use bytes::Bytes;

use super::mailbox::Mailbox;

/// How large a header section may be.
#[derive(Clone, Copy, Debug)]
pub struct HeaderLimits {
    /// Octets up to and with the empty line.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
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
    /// More than 998 octets in a line (RFC 5322 2.1.1).
    #[error("line {0} of the header section is longer than 998 octets")]
    LineTooLong(usize),
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
    pub fn scan(_message: Bytes, _limits: HeaderLimits) -> Result<Self, HeaderError> {
        todo!()
    }
    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
    /// How many Received fields there are (RFC 5321 6.3).
    pub fn hops(&self) -> usize {
        todo!()
    }
    /// The first Message-ID, for the log; unfolded and cut to 200 characters.
    pub fn message_id(&self) -> Option<String> {
        todo!()
    }
    /// Fails on a second occurrence of a field that SES allows once, among those that are kept.
    pub fn check_single(&self) -> Result<(), HeaderError> {
        todo!()
    }
    /// Every address the message claims to be from.
    pub fn originators(&self) -> Result<Originators, HeaderError> {
        todo!()
    }
    /// Stream, configuration set and tags the client asked for.
    pub fn wishes(&self) -> Result<Wishes, HeaderError> {
        todo!()
    }
    /// The message for SES: removed what must not leave, added what is missing.
    pub fn edit(&self, _additions: &Additions<'_>) -> Edited {
        todo!()
    }
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
