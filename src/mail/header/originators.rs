//! Whose message it is: the addresses of From, Sender, Resent-From and Resent-Sender.
//!
//! Promises: an address list is read in one way only or not at all. Our own reader takes a subset
//! of RFC 5322 3.4: display names, comments and quoted strings, but no groups, no routes, no empty
//! list elements, no white space or comment inside an address. mail-parser reads the same octets,
//! and the two must name the same addresses: a second opinion can refuse and never allow. Quoted
//! local parts are refused: mail-parser takes them for names, and other readers end them at an `@`.
//! Display names may be encoded words (RFC 2047) or UTF-8; neither is decoded.

use std::iter::Peekable;
use std::slice::Iter;

use super::{Field, HeaderError, HeaderSection, Originators};
use crate::mail::mailbox::Mailbox;

/// How deep comments may nest.
const COMMENTS: usize = 16;

impl HeaderSection {
    /// Every address the message claims to be from.
    ///
    /// There is one From field with one mailbox at least, at most one Sender field with exactly one
    /// mailbox, and a Sender field where From has several. Resent fields come in blocks and may be
    /// there several times (RFC 5322 3.6.6): all are claims.
    pub fn originators(&self) -> Result<Originators, HeaderError> {
        let mut claims = Vec::new();
        let from = self.only("From")?.ok_or(HeaderError::NoFrom)?;
        self.claim(&mut claims, "From", from, usize::MAX)?;
        match self.only("Sender")? {
            Some(sender) => self.claim(&mut claims, "Sender", sender, 1)?,
            None if claims.len() > 1 => return Err(HeaderError::NoSender),
            None => {}
        }
        for (name, most) in [("Resent-From", usize::MAX), ("Resent-Sender", 1)] {
            for field in self.named(name) {
                self.claim(&mut claims, name, field, most)?;
            }
        }
        Ok(Originators { claims })
    }

    /// The field of that name, which may be there once.
    fn only(&self, name: &'static str) -> Result<Option<&Field>, HeaderError> {
        let mut fields = self.named(name);
        let first = fields.next();
        if fields.next().is_some() { Err(HeaderError::Duplicate(name.to_owned())) } else { Ok(first) }
    }

    /// Adds the 1 to `most` mailboxes of a field.
    fn claim(
        &self,
        claims: &mut Vec<(&'static str, Mailbox)>,
        name: &'static str,
        field: &Field,
        most: usize,
    ) -> Result<(), HeaderError> {
        let value = self.octets(&field.value);
        let mailboxes = mailbox_list(value).filter(|list| list.len() <= most);
        let mailboxes = mailboxes.filter(|list| second_opinion(value).as_ref() == Some(list));
        claims.extend(mailboxes.ok_or(HeaderError::Address(name))?.into_iter().map(|mailbox| (name, mailbox)));
        Ok(())
    }
}

/// What mail-parser reads in the same value; `None` if there is anything in it that is no mailbox.
fn second_opinion(value: &[u8]) -> Option<Vec<Mailbox>> {
    let field = [b"From:", value, b"\r\n\r\n"].concat();
    let message = mail_parser::MessageParser::new().with_address_headers().parse_headers(&field)?;
    match message.from()? {
        mail_parser::Address::List(list) => {
            list.iter().map(|entry| Mailbox::parse(entry.address.as_deref()?.as_bytes()).ok()).collect()
        }
        mail_parser::Address::Group(_) => None,
    }
}

/// One lexical unit of an address field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'a> {
    /// `atext`, or octets above 127 in UTF-8.
    Atom(&'a str),
    /// A quoted string with its quotes.
    Quoted(&'a str),
    /// One of `<>@,:;.[]`.
    Special(u8),
    /// White space and comments, at least one of them.
    Gap,
}

/// Reads a whole value as a mailbox list of one at least. `None` if it is anything else.
fn mailbox_list(value: &[u8]) -> Option<Vec<Mailbox>> {
    let tokens = tokens(std::str::from_utf8(value).ok()?)?;
    let mut tokens = tokens.iter().peekable();
    let mut list = Vec::new();
    loop {
        list.push(mailbox(&mut tokens)?);
        match tokens.next() {
            None => return Some(list),
            Some(Token::Special(b',')) => {}
            Some(_) => return None,
        }
    }
}

type Tokens<'t, 'a> = Peekable<Iter<'t, Token<'a>>>;

/// `addr-spec`, or `[display-name] "<" addr-spec ">"`, with white space and comments around.
fn mailbox(tokens: &mut Tokens<'_, '_>) -> Option<Mailbox> {
    skip_gap(tokens);
    let mut words: Vec<Token<'_>> = Vec::new();
    // Up to the angle bracket this is a display name; without one it is the address itself.
    while let Some(token) = tokens.next_if(|t| !matches!(t, Token::Special(b'<' | b','))) {
        words.push(*token);
    }
    if tokens.next_if_eq(&&Token::Special(b'<')).is_none() {
        if words.last() == Some(&Token::Gap) {
            words.pop();
        }
        return address(&words);
    }
    // `J. Doe <j@a.example>` is an obsolete phrase (RFC 5322 4.1) and clear enough; an address in
    // the place of a name is not.
    if words.iter().any(|word| matches!(word, Token::Special(b) if *b != b'.')) {
        return None;
    }
    let mut inner = Vec::new();
    while let Some(token) = tokens.next_if(|t| !matches!(t, Token::Special(b'<' | b'>' | b','))) {
        inner.push(*token);
    }
    tokens.next_if_eq(&&Token::Special(b'>'))?;
    skip_gap(tokens);
    address(&inner)
}

fn skip_gap(tokens: &mut Tokens<'_, '_>) {
    while tokens.next_if_eq(&&Token::Gap).is_some() {}
}

/// `local-part@domain` without anything between.
fn address(tokens: &[Token<'_>]) -> Option<Mailbox> {
    let mut text = String::new();
    for token in tokens {
        match token {
            // Some readers decode encoded words even here, and show another address.
            Token::Atom(atom) if atom.contains("=?") => return None,
            // IDNA 2003 turns these into other domains than UTS 46 does; which one SES means by it
            // is not ours to guess.
            Token::Atom(atom) if atom.contains(['ß', 'ẞ', 'ς', '\u{200c}', '\u{200d}']) => return None,
            // `"a@b.example"@c.example`: the first @ is the address's end to some readers.
            Token::Quoted(_) => return None,
            Token::Atom(part) => text.push_str(part),
            Token::Special(special @ (b'.' | b'@')) => text.push(char::from(*special)),
            Token::Special(_) | Token::Gap => return None,
        }
    }
    Mailbox::parse(text.as_bytes()).ok()
}

/// Cuts a value into tokens; `None` at a control octet, an open comment or an open quoted string.
/// Line ends are known to be folding: the scan has seen to that.
fn tokens(value: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = value;
    while let Some(first) = rest.bytes().next() {
        let (token, length) = match first {
            b' ' | b'\t' | b'\r' | b'\n' | b'(' => (Token::Gap, gap(rest)?),
            b'"' => {
                let length = quoted(rest)?;
                (Token::Quoted(rest.get(..length)?), length)
            }
            b'<' | b'>' | b'@' | b',' | b':' | b';' | b'.' | b'[' | b']' => (Token::Special(first), 1),
            _ => {
                let length = rest.bytes().position(|b| !is_atext(b)).unwrap_or(rest.len());
                if length == 0 {
                    return None;
                }
                (Token::Atom(rest.get(..length)?), length)
            }
        };
        tokens.push(token);
        rest = rest.get(length..)?;
    }
    Some(tokens)
}

fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || !b.is_ascii() || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

/// The length of the white space and comments that `text` begins with.
fn gap(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, b) in text.bytes().enumerate() {
        match b {
            b' ' | b'\t' | b'\r' | b'\n' => escaped = false,
            _ if depth > 0 && (b < b' ' || b == 0x7f) => return None,
            _ if escaped => escaped = false,
            b'\\' if depth > 0 => escaped = true,
            b'(' if depth == COMMENTS => return None,
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            _ => return Some(at),
        }
    }
    (depth == 0).then_some(text.len())
}

/// The length of the quoted string that `text` begins with.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, b) in text.bytes().enumerate().skip(1) {
        match b {
            b'\t' | b'\r' | b'\n' => escaped = false,
            _ if b < b' ' || b == 0x7f => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}
