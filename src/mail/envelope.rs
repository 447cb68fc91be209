//! The envelope of a message: what MAIL and RCPT said (RFC 5321 2.3.1).

use super::mailbox::{Mailbox, ReversePath};

/// What the client declared about the body with `BODY=` (RFC 6152).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Body {
    /// Not said, or `7BIT`.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// Where a message comes from and goes to. There is at least one forward-path once DATA begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// Each accepted RCPT TO, in order, duplicates dropped.
    pub forward_paths: Vec<Mailbox>,
    /// BODY= of MAIL.
    pub body: Body,
}
