//! Mailboxes as the envelope has them (RFC 5321 4.1.2): `local-part@domain`.
//!
//! Promises: a [`Domain`] is an A-label domain in lower case; a U-label one is converted (RFC 5890,
//! UTS 46), because SES carries nothing else. A local part keeps its bytes, quotes included. A
//! mailbox is printable US-ASCII without space and angle brackets, so it can be written into a log
//! line, a header field or a path as it is.
//! Refuses: non-ASCII local parts (SES has no SMTPUTF8), address literals (SES delivers to domains),
//! source routes, anything past RFC 5321 4.5.3.1's lengths. Narrower than the RFC on purpose: space
//! and angle brackets in quoted local parts (SES reads a recipient as a header address, where they
//! could be taken for another one), single-label and all-numeric domains (nobody can deliver to
//! them), and a trailing dot (RFC 5321 2.3.5 has none; dropping it would be a guess).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

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

/// Longest local part in octets, quotes included (RFC 5321 4.5.3.1.1).
pub const LONGEST_LOCAL_PART: usize = 64;
/// Longest domain in octets, as A-labels (RFC 5321 4.5.3.1.2).
pub const LONGEST_DOMAIN: usize = 255;
/// Longest mailbox in octets: a path has 256 with its angle brackets (RFC 5321 4.5.3.1.3).
pub const LONGEST_MAILBOX: usize = 254;
/// Longest label of a domain (RFC 1035 2.3.4).
const LONGEST_LABEL: usize = 63;
/// Octets of a domain as given that are looked at: U-labels are longer in UTF-8 than as A-labels,
/// and their conversion takes more than linear time.
const LONGEST_DOMAIN_GIVEN: usize = 4 * LONGEST_DOMAIN;

impl Domain {
    /// Reads a domain of two labels or more in A-label or U-label form, in any case.
    pub fn parse(text: &str) -> Result<Self, MailboxError> {
        if text.starts_with('[') {
            return Err(MailboxError::AddressLiteral);
        }
        if text.len() > LONGEST_DOMAIN_GIVEN {
            return Err(MailboxError::Domain);
        }
        // UTS 46, non-transitional; the hyphens in positions 3 and 4 of CDN-like names are let be.
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Ignore)
            .map_err(|_| MailboxError::Domain)?;
        let mut labels = 0;
        let mut numeric = false;
        for label in ascii.split('.') {
            if !is_label(label) {
                return Err(MailboxError::Domain);
            }
            labels += 1;
            numeric = label.bytes().all(|b| b.is_ascii_digit());
        }
        if labels < 2 || numeric || ascii.len() > LONGEST_DOMAIN {
            return Err(MailboxError::Domain);
        }
        Ok(Self(ascii.as_ref().into()))
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this domain is `parent` or lies under it.
    pub fn is_within(&self, parent: &Self) -> bool {
        match self.0.strip_suffix(parent.as_str()) {
            Some(below) => below.is_empty() || below.ends_with('.'),
            None => false,
        }
    }
}

impl Mailbox {
    /// Reads `local-part@domain` without angle brackets. Bytes, for a client may send anything.
    pub fn parse(bytes: &[u8]) -> Result<Self, MailboxError> {
        // A quoted local part may hold an `@` of its own; a domain holds none.
        let at = memchr::memrchr(b'@', bytes).ok_or(MailboxError::Syntax)?;
        let (local, domain) = bytes.split_at(at);
        let local = local_part(local)?;
        let domain = domain.strip_prefix(b"@").and_then(|d| std::str::from_utf8(d).ok());
        let domain = Domain::parse(domain.ok_or(MailboxError::Domain)?)?;
        if local.len() + 1 + domain.as_str().len() > LONGEST_MAILBOX {
            // With a local part of 64 at most, it is the domain that is too long.
            return Err(MailboxError::Domain);
        }
        Ok(Self { local: local.into(), domain })
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
    /// Quoting that changes nothing is undone, for `"joe"@x.example` is `joe@x.example` (RFC 5321
    /// 4.1.2 calls them the same mailbox). The result is a mailbox again.
    pub fn folded(&self) -> String {
        let mut folded = unquoted(&self.local).to_ascii_lowercase();
        folded.push('@');
        folded.push_str(self.domain.as_str());
        folded
    }
}

/// Whether `label` is an LDH label (RFC 5890 2.3.1) in lower case.
fn is_label(label: &str) -> bool {
    let ldh = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(ldh)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Checks a local part: a dot-string or a quoted string (RFC 5321 4.1.2).
fn local_part(bytes: &[u8]) -> Result<&str, MailboxError> {
    if !bytes.is_ascii() {
        return Err(MailboxError::NonAsciiLocalPart);
    }
    if bytes.len() > LONGEST_LOCAL_PART {
        return Err(MailboxError::LocalPartTooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| MailboxError::NonAsciiLocalPart)?;
    if is_dot_string(text) || is_quoted_string(text) { Ok(text) } else { Err(MailboxError::Syntax) }
}

/// Atoms joined by single dots.
fn is_dot_string(text: &str) -> bool {
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext))
}

/// A quoted string of printable octets without space and angle brackets; not an empty one.
fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for b in inner.bytes() {
        match b {
            b'<' | b'>' => return false,
            0x21..=0x7e if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
    }
    !escaped && !inner.is_empty()
}

/// A checked local part in its plainest spelling: without quotes where they are not needed, and
/// with escapes only where they are.
fn unquoted(local: &str) -> Cow<'_, str> {
    let Some(inner) = local.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return Cow::Borrowed(local) };
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        escaped = !escaped && c == '\\';
        if !escaped {
            plain.push(c);
        }
    }
    if is_dot_string(&plain) {
        return Cow::Owned(plain);
    }
    let mut quoted = String::with_capacity(local.len());
    quoted.push('"');
    for c in plain.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Cow::Owned(quoted)
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
as_text!(ReversePath, |text: &str| match text {
    "<>" => Ok(ReversePath::Null),
    mailbox => Mailbox::parse(mailbox.as_bytes()).map(ReversePath::Mailbox),
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::MailboxError::{AddressLiteral, Domain as NotADomain, LocalPartTooLong, NonAsciiLocalPart, Syntax};
    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn addresses_that_are_taken_and_how_they_leave() {
        let long = "a".repeat(64);
        let cases = [
            ("joe@example.com", "joe@example.com"),
            ("Joe.Bloggs+tag@EXAMPLE.Com", "Joe.Bloggs+tag@example.com"),
            ("!#$%&'*+-/=?^_`{|}~@a.example", "!#$%&'*+-/=?^_`{|}~@a.example"),
            (r#""a@b"@c.example"#, r#""a@b"@c.example"#),
            (r#""a..b"@c.example"#, r#""a..b"@c.example"#),
            (r#""a\"b\\c"@d.example"#, r#""a\"b\\c"@d.example"#),
            ("joe@bücher.example", "joe@xn--bcher-kva.example"),
            ("joe@XN--BCHER-KVA.example", "joe@xn--bcher-kva.example"),
            ("joe@faß.example", "joe@xn--fa-hia.example"),
            ("joe@例え。テスト", "joe@xn--r8jz45g.xn--zckzah"),
            ("joe@r3---sn.example", "joe@r3---sn.example"),
            ("joe@1.2.3.example", "joe@1.2.3.example"),
        ];
        for (given, leaves) in cases {
            assert_eq!(mailbox(given).to_string(), leaves);
        }
        assert_eq!(mailbox(&format!("{long}@a.example")).local_part(), long);
    }

    #[test]
    fn addresses_that_are_refused_and_why() {
        let local65 = format!("{}@a.example", "a".repeat(65));
        let label64 = format!("a@{}.example", "b".repeat(64));
        let domain256 = format!("a@{}example", "b234567.".repeat(32));
        let mailbox255 = format!("{}@{}example", "a".repeat(64), "b234567.".repeat(23).split_off(1));
        let mailbox254 = format!("{}@{}", "a".repeat(64), &mailbox255[66..]);
        assert_eq!((mailbox255.len(), mailbox254.len()), (255, 254));
        assert!(Mailbox::parse(mailbox254.as_bytes()).is_ok());
        let endless = format!("a@{}", "ü".repeat(100_000));
        let cases: &[(&[u8], MailboxError)] = &[
            (b"", Syntax),
            (b"postmaster", Syntax),
            (b"@a.example", Syntax),
            (b"a..b@c.example", Syntax),
            (b".a@c.example", Syntax),
            (b"a.@c.example", Syntax),
            (b"a b@c.example", Syntax),
            (b"a@b@c.example", Syntax),
            (b"<a@c.example>", Syntax),
            (b"@r.example:a@c.example", Syntax),
            (b"a,b@c.example", Syntax),
            (b"a\rb@c.example", Syntax),
            (b"a\0@c.example", Syntax),
            (b"\"\"@c.example", Syntax),
            (b"\"@c.example", Syntax),
            (b"\"a\"b\"@c.example", Syntax),
            (b"\"a\\\"@c.example", Syntax),
            (b"\"a b\"@c.example", Syntax),
            (b"\"x<a@b.example>\"@c.example", Syntax),
            (b"\"x\\<a\"@c.example", Syntax),
            ("é@c.example".as_bytes(), NonAsciiLocalPart),
            (b"\xff@c.example", NonAsciiLocalPart),
            (b"\"\xff\"@c.example", NonAsciiLocalPart),
            (local65.as_bytes(), LocalPartTooLong),
            (label64.as_bytes(), NotADomain),
            (domain256.as_bytes(), NotADomain),
            (mailbox255.as_bytes(), NotADomain),
            (endless.as_bytes(), NotADomain),
            (b"a@", NotADomain),
            (b"a@localhost", NotADomain),
            (b"a@c.example.", NotADomain),
            (b"a@.c.example", NotADomain),
            (b"a@c..example", NotADomain),
            (b"a@-c.example", NotADomain),
            (b"a@c-.example", NotADomain),
            (b"a@c_d.example", NotADomain),
            (b"a@c d.example", NotADomain),
            (b"a@c.example ", NotADomain),
            (b"a@c.example>", NotADomain),
            (b"a@192.0.2.1", NotADomain),
            (b"a@xn--a.example", NotADomain),
            (b"a@c.\xff", NotADomain),
            ("a@a\u{202e}b.example".as_bytes(), NotADomain),
            (b"a@[192.0.2.1]", AddressLiteral),
            (b"a@[IPv6:2001:db8::1]", AddressLiteral),
        ];
        for (given, error) in cases {
            assert_eq!(Mailbox::parse(given).err(), Some(*error), "{:?}", String::from_utf8_lossy(given));
        }
    }

    #[test]
    fn a_domain_is_within_itself_and_its_parents_alone() {
        let within = |a: &str, b: &str| Domain::parse(a).unwrap().is_within(&Domain::parse(b).unwrap());
        assert!(within("acme.example", "ACME.example"));
        assert!(within("mail.acme.example", "acme.example"));
        assert!(within("a.b.acme.example", "acme.example"));
        assert!(!within("evilacme.example", "acme.example"));
        assert!(!within("acme.example", "mail.acme.example"));
        assert!(!within("acme.example.evil.example", "acme.example"));
    }

    #[test]
    fn addresses_that_reach_one_mailbox_fold_alike() {
        for (one, other) in [
            ("joe@a.example", "JOE@A.EXAMPLE"),
            ("joe@a.example", r#""Joe"@a.example"#),
            ("joe.x@a.example", r#""j\oe.x"@a.example"#),
            (r#""a@b"@c.example"#, r#""\a@\b"@c.example"#),
            (r#""a\\b"@c.example"#, r#""A\\b"@c.example"#),
        ] {
            assert_eq!(mailbox(one).folded(), mailbox(other).folded());
        }
        assert_ne!(mailbox(r#""a..b"@c.example"#).folded(), mailbox(r#""a.b"@c.example"#).folded());
    }

    #[test]
    fn addresses_keep_through_serde() {
        let json = serde_json::to_string(&mailbox(r#""a@b"@c.example"#)).unwrap();
        assert_eq!(serde_json::from_str::<Mailbox>(&json).unwrap(), mailbox(r#""a@b"@c.example"#));
        assert!(serde_json::from_str::<Mailbox>(r#""nobody""#).is_err());
        assert!(serde_json::from_str::<Domain>(r#""localhost""#).is_err());
    }

    /// Addresses and things that nearly are: one octet in four of them is replaced.
    fn near_addresses() -> impl Strategy<Value = Vec<u8>> {
        let local = prop_oneof!["[a-zA-Z0-9!+=_-]{1,8}(\\.[a-z]{1,4}){0,2}", "\"([a-z@,.;!]|\\\\[ -~]){1,6}\""];
        let domain = prop_oneof!["([a-zA-Z0-9-]{1,8}\\.){1,3}[a-z]{2,5}", "[a-zäöß中。.]{1,9}\\.[a-z]{2,4}"];
        let octets = (local, domain).prop_map(|(l, d)| format!("{l}@{d}").into_bytes());
        (octets, proptest::option::weighted(0.25, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(
            |(mut octets, change)| {
                if let Some((at, octet)) = change {
                    let at = at.index(octets.len());
                    octets[at] = octet;
                }
                octets
            },
        )
    }

    #[test]
    fn what_is_read_is_clean_and_reads_back() {
        let (mut taken, mut refused) = (0, 0);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..4000 {
            let octets = near_addresses().new_tree(&mut runner).unwrap().current();
            let Ok(mailbox) = Mailbox::parse(&octets) else {
                refused += 1;
                continue;
            };
            taken += 1;
            let text = mailbox.to_string();
            assert!(text.bytes().all(|b| (0x21..=0x7e).contains(&b) && !b"<>".contains(&b)), "{text:?}");
            assert_eq!(Mailbox::parse(text.as_bytes()), Ok(mailbox.clone()), "{text:?}");
            let folded = mailbox.folded();
            assert_eq!(Mailbox::parse(folded.as_bytes()).unwrap().folded(), folded);
            assert!(text.len() <= LONGEST_MAILBOX && mailbox.domain().as_str().len() <= LONGEST_DOMAIN);
        }
        assert!(taken > 1500 && refused > 500, "{taken} taken, {refused} refused");
    }
}
