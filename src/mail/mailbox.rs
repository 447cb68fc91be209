//! Mailboxes as the envelope has them (RFC 5321 4.1.2): `local-part@domain`.
//!
//! Promises: a [`Domain`] is an A-label domain in lower case; a U-label one is converted (RFC 5890,
//! UTS 46), because SES carries nothing else. A local part keeps its bytes, quotes included.
//! Refuses: non-ASCII local parts (SES has no SMTPUTF8), address literals (SES delivers to domains),
//! source routes, anything past RFC 5321 4.5.3.1's lengths.

use std::fmt;
use std::sync::Arc;

/// A domain name: A-labels, lower case, 1 to 255 octets, no trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

/// `local-part@domain`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mailbox {
    local: Arc<str>,
    domain: Domain,
}

/// The reverse-path of MAIL FROM: null (`<>`) or a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReversePath {
    /// `<>`: bounces must not be answered (RFC 5321 4.5.5).
    Null,
    /// A sender.
    Mailbox(Mailbox),
}

/// What is wrong with an address. Each has its own reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MailboxError {
    /// Not of the form `local-part@domain`.
    #[error("is not of the form local-part@domain")]
    Syntax,
    /// A byte above 127 in the local part (553 5.6.7).
    #[error("has a non-ASCII local part, which Amazon SES cannot carry")]
    NonAsciiLocalPart,
    /// Longer than 64 octets before the `@`.
    #[error("has a local part of more than 64 octets")]
    LocalPartTooLong,
    /// The domain is not one: labels, length or IDNA.
    #[error("has no valid domain")]
    Domain,
    /// `[192.0.2.1]`: SES does not deliver to literals.
    #[error("has an address literal for a domain, which Amazon SES cannot deliver to")]
    AddressLiteral,
}

impl Domain {
    /// Reads a domain in A-label or U-label form, in any case.
    pub fn parse(_text: &str) -> Result<Self, MailboxError> {
        todo!()
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this domain is `parent` or lies under it.
    pub fn is_within(&self, _parent: &Self) -> bool {
        todo!()
    }
}

impl Mailbox {
    /// Reads `local-part@domain` without angle brackets. Bytes, for a client may send anything.
    pub fn parse(_bytes: &[u8]) -> Result<Self, MailboxError> {
        todo!()
    }

    /// The local part as it was given, quotes included.
    pub fn local_part(&self) -> &str {
        &self.local
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The form under which addresses are compared: all in lower case (RFC 5321 2.4 lets a host
    /// tell cases apart; no mailbox provider does, and a suppression must not be dodged by a capital).
    pub fn folded(&self) -> String {
        todo!()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

macro_rules! as_text {
    ($name:ty, $parse:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                $parse(&text).map_err(|e| serde::de::Error::custom(format!("{text:?} {e}")))
            }
        }
    };
}
as_text!(Domain, Domain::parse);
as_text!(Mailbox, |text: &str| Mailbox::parse(text.as_bytes()));
