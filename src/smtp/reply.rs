//! Every reply by name (RFC 5321 4.2, RFC 3463).
//!
//! Promises: a reply is one or more lines of printable US-ASCII within 512 octets each, whatever
//! text of SES's or a client's it carries; a [`Refusal`] is always 4xx or 5xx, so no refusal can
//! read as success.

use std::fmt;

/// One reply: code, enhanced status code, text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    code: u16,
    enhanced: Option<(u8, u16, u16)>,
    lines: Vec<String>,
}

/// A reply that says no: 4xx or 5xx, by construction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    reply: Reply,
    /// Whether the session ends after it.
    closes: bool,
}

impl Refusal {
    /// "Not now": 4xx. `code` is clamped to 400..=499 in debug by assertion, in release by falling
    /// back to 451.
    pub fn temporary(_code: u16, _enhanced: (u16, u16), _text: impl Into<String>) -> Self {
        todo!()
    }
    /// "Never": 5xx, likewise.
    pub fn permanent(_code: u16, _enhanced: (u16, u16), _text: impl Into<String>) -> Self {
        todo!()
    }
    /// The same refusal, after which the session ends.
    pub fn and_close(mut self) -> Self {
        self.closes = true;
        self
    }
    /// The reply to be sent.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }
    /// Whether the session ends after it.
    pub fn closes(&self) -> bool {
        self.closes
    }
}

impl Reply {
    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }
    /// `2.0.0` and the like; empty for replies that carry none (greeting, EHLO, 334, 354).
    pub fn enhanced(&self) -> String {
        self.enhanced.map_or_else(String::new, |(a, b, c)| format!("{a}.{b}.{c}"))
    }
    /// The text of all lines, joined by a space, for the log.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

impl fmt::Display for Reply {
    /// The reply as it goes on the wire, CRLF included.
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
