//! Commands: a line in, what it asks for out (RFC 5321 4.1.1, 1870, 6152, 4954, 3030).
//!
//! Promises: every line is a [`Command`] or a [`CommandError`] that has its own reply; verbs and
//! keywords are read in any case; `MAIL FROM: <a@b>` with its stray space and blanks at the end of
//! a line are taken, because much software sends them.
//! Refuses: arguments where there are none, parameters we did not offer, a parameter given twice,
//! source routes, addresses without brackets or domain.
//! What can go wrong: a BDAT whose size cannot be read leaves nobody knowing where its chunk ends.

use super::reply::printable;
use super::sasl::Mechanism;
use crate::mail::mailbox::MailboxError;
use crate::mail::{Body, Mailbox, ReversePath};

/// Longest name a client may give itself in octets.
const HELO_BYTES: usize = 255;
/// Longest keyword or value of a parameter that is repeated in a reply.
const SHOWN_BYTES: usize = 40;

const MAIL_FORM: &str = "MAIL FROM:<address> [SIZE=octets] [BODY=8BITMIME]";
const RCPT_FORM: &str = "RCPT TO:<address>";
const EHLO_FORM: &str = "EHLO name";

/// What a line asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// EHLO with the name, made safe to show.
    Ehlo(String),
    /// HELO likewise.
    Helo(String),
    /// STARTTLS.
    StartTls,
    /// AUTH with its initial response, if it has one.
    Auth(Mechanism, Option<&'a [u8]>),
    /// MAIL.
    Mail(Mail),
    /// RCPT.
    Rcpt(Mailbox),
    /// DATA.
    Data,
    /// BDAT: octets of the chunk that follows, and whether it is the last.
    Bdat {
        /// Octets that follow the line.
        octets: u64,
        /// LAST was said.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, with or without text.
    Noop,
    /// VRFY with something.
    Vrfy,
    /// EXPN with something.
    Expn,
    /// HELP, with or without a topic.
    Help,
    /// QUIT.
    Quit,
}

/// MAIL and its parameters.
#[derive(PartialEq, Eq, Debug)]
pub struct Mail {
    /// FROM.
    pub reverse_path: ReversePath,
    /// BODY.
    pub body: Body,
    /// SIZE; numbers past 64 bits are the largest.
    pub size: Option<u64>,
}

/// Whose address is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
}

impl Of {
    /// Subject and detail of a bad address (RFC 3463 3.2).
    pub fn status(self) -> (u16, u16) {
        match self {
            Self::Sender => (1, 7),
            Self::Recipient => (1, 3),
        }
    }
}

/// Why a line is no command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// No verb of ours.
    #[error("unknown verb")]
    Unknown,
    /// Text behind a verb that stands alone.
    #[error("{0} takes no argument")]
    NoArgumentAllowed(&'static str),
    /// Not of the form named.
    #[error("not of the form {0}")]
    Syntax(&'static str),
    /// BDAT without a size that can be read.
    #[error("BDAT without a size")]
    ChunkSize,
    /// An address that is none.
    #[error("the address {error}")]
    Path {
        /// Whose.
        of: Of,
        /// What is wrong.
        error: MailboxError,
    },
    /// `<@a,@b:c@d>` (RFC 5321 appendix C deprecates it).
    #[error("a source route")]
    SourceRoute(Of),
    /// `<postmaster>`: whose postmaster it would be is not said.
    #[error("an address without a domain")]
    NoDomain(Of),
    /// `RCPT TO:<>`.
    #[error("the null path as a recipient")]
    NullRecipient,
    /// The same parameter again.
    #[error("{0} twice")]
    ParameterTwice(&'static str),
    /// A value outside of the parameter's form.
    #[error("{0} with a bad value")]
    ParameterValue(&'static str),
    /// Not `KEYWORD` or `KEYWORD=value`.
    #[error("a parameter that is none")]
    ParameterSyntax,
    /// Not one we offered.
    #[error("unknown parameter {0}")]
    ParameterUnknown(String),
    /// RFC 6531, which SES cannot carry.
    #[error("SMTPUTF8")]
    SmtpUtf8,
    /// Neither PLAIN nor LOGIN.
    #[error("unknown mechanism")]
    MechanismUnknown,
}

/// Reads a line, given without its CRLF.
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let line = line.trim_ascii_end();
    let (verb, argument) = match line.iter().position(|octet| *octet == b' ') {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at..).unwrap_or_default().trim_ascii_start()),
        None => (line, [].as_slice()),
    };
    let alone = |name: &'static str, command| match argument {
        [] => Ok(command),
        [..] => Err(CommandError::NoArgumentAllowed(name)),
    };
    let with_something = |form: &'static str, command| match argument {
        [] => Err(CommandError::Syntax(form)),
        [..] => Ok(command),
    };
    // The longest verb has eight letters.
    let mut upper = [0; 8];
    let Some(upper) = upper.get_mut(..verb.len()) else { return Err(CommandError::Unknown) };
    upper.copy_from_slice(verb);
    upper.make_ascii_uppercase();
    match &*upper {
        b"EHLO" => helo(argument).map(Command::Ehlo),
        b"HELO" => helo(argument).map(Command::Helo),
        b"STARTTLS" => alone("STARTTLS", Command::StartTls),
        b"AUTH" => auth(argument),
        b"MAIL" => mail(argument).map(Command::Mail),
        b"RCPT" => rcpt(argument).map(Command::Rcpt),
        b"DATA" => alone("DATA", Command::Data),
        b"BDAT" => bdat(argument),
        b"RSET" => alone("RSET", Command::Rset),
        b"NOOP" => Ok(Command::Noop),
        b"VRFY" => with_something("VRFY address", Command::Vrfy),
        b"EXPN" => with_something("EXPN list", Command::Expn),
        b"HELP" => Ok(Command::Help),
        b"QUIT" => alone("QUIT", Command::Quit),
        _ => Err(CommandError::Unknown),
    }
}

/// The name a client gives itself. Old applications send odd ones: anything without blanks and
/// control characters will do; what a trace field cannot hold is shown as a question mark.
fn helo(argument: &[u8]) -> Result<String, CommandError> {
    let odd = |octet: &u8| octet.is_ascii_control() || *octet == b' ';
    if argument.is_empty() || argument.len() > HELO_BYTES || argument.iter().any(odd) {
        return Err(CommandError::Syntax(EHLO_FORM));
    }
    let safe = |octet: &u8| if octet.is_ascii_alphanumeric() || b"-._:[]".contains(octet) { *octet } else { b'?' };
    Ok(argument.iter().map(safe).map(char::from).collect())
}

fn auth(argument: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let (name, initial) = match (words.next(), words.next(), words.next()) {
        (Some(name), initial, None) => (name, initial),
        (_, _, _) => return Err(CommandError::Syntax("AUTH mechanism [initial-response]")),
    };
    if name.eq_ignore_ascii_case(b"PLAIN") {
        Ok(Command::Auth(Mechanism::Plain, initial))
    } else if name.eq_ignore_ascii_case(b"LOGIN") {
        Ok(Command::Auth(Mechanism::Login, initial))
    } else {
        Err(CommandError::MechanismUnknown)
    }
}

/// `size [LAST]` (RFC 3030 2).
fn bdat(argument: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let octets = words.next().and_then(digits).and_then(|(number, exact)| exact.then_some(number));
    match (octets, words.next(), words.next()) {
        (Some(octets), None, _) => Ok(Command::Bdat { octets, last: false }),
        (Some(octets), Some(last), None) if last.eq_ignore_ascii_case(b"LAST") => {
            Ok(Command::Bdat { octets, last: true })
        }
        (_, _, _) => Err(CommandError::ChunkSize),
    }
}

/// 1 to 20 digits, and whether they fit into 64 bits; the largest number where they do not.
fn digits(text: &[u8]) -> Option<(u64, bool)> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse();
    Some((number.clone().unwrap_or(u64::MAX), number.is_ok()))
}

fn mail(argument: &[u8]) -> Result<Mail, CommandError> {
    let (path, parameters) = path(argument, b"FROM:", MAIL_FORM)?;
    let mut mail = Mail {
        reverse_path: match path {
            [] => ReversePath::Null,
            path => ReversePath::Mailbox(mailbox(path, Of::Sender)?),
        },
        body: Body::SevenBit,
        size: None,
    };
    let (mut body_seen, mut auth_seen) = (false, false);
    let once = |seen: &mut bool, name| {
        if std::mem::replace(seen, true) { Err(CommandError::ParameterTwice(name)) } else { Ok(()) }
    };
    for (keyword, value) in each_parameter(parameters) {
        let (keyword, value) = checked(keyword, value)?;
        match (keyword.as_str(), value) {
            ("SIZE", value) => {
                let mut seen = mail.size.is_some();
                once(&mut seen, "SIZE")?;
                let number = value.and_then(digits).ok_or(CommandError::ParameterValue("SIZE"))?;
                mail.size = Some(number.0);
            }
            ("BODY", value) => {
                once(&mut body_seen, "BODY")?;
                mail.body = body(value.unwrap_or_default())?;
            }
            ("AUTH", value) => {
                once(&mut auth_seen, "AUTH")?;
                if !is_submitter(value.unwrap_or_default()) {
                    return Err(CommandError::ParameterValue("AUTH"));
                }
            }
            ("SMTPUTF8", _) => return Err(CommandError::SmtpUtf8),
            (_, _) => return Err(CommandError::ParameterUnknown(keyword)),
        }
    }
    Ok(mail)
}

fn rcpt(argument: &[u8]) -> Result<Mailbox, CommandError> {
    let (path, parameters) = path(argument, b"TO:", RCPT_FORM)?;
    if path.is_empty() {
        return Err(CommandError::NullRecipient);
    }
    let mailbox = mailbox(path, Of::Recipient)?;
    match each_parameter(parameters).next() {
        Some((keyword, value)) => Err(CommandError::ParameterUnknown(checked(keyword, value)?.0)),
        None => Ok(mailbox),
    }
}

/// What stands between the brackets behind `keyword`, and what follows them.
fn path<'a>(argument: &'a [u8], keyword: &[u8], form: &'static str) -> Result<(&'a [u8], &'a [u8]), CommandError> {
    let bad = CommandError::Syntax(form);
    match argument.split_at_checked(keyword.len()) {
        Some((word, rest)) if word.eq_ignore_ascii_case(keyword) => match rest.trim_ascii_start().split_first() {
            Some((b'<', rest)) => {
                let end = closing(rest).ok_or(bad.clone())?;
                let (path, behind) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
                if behind.first().is_some_and(|octet| *octet != b' ') {
                    return Err(bad);
                }
                Ok((path, behind))
            }
            Some(_) | None => Err(bad),
        },
        Some(_) | None => Err(bad),
    }
}

/// Where the bracket closes; one in a quoted string does not count.
fn closing(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, octet) in text.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn mailbox(path: &[u8], of: Of) -> Result<Mailbox, CommandError> {
    if path.starts_with(b"@") {
        return Err(CommandError::SourceRoute(of));
    }
    if path.eq_ignore_ascii_case(b"postmaster") {
        return Err(CommandError::NoDomain(of));
    }
    Mailbox::parse(path).map_err(|error| CommandError::Path { of, error })
}

/// Keyword and value of each parameter, unchecked.
fn each_parameter(parameters: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    parameters.split(|octet| *octet == b' ').filter(|word| !word.is_empty()).map(|word| {
        match word.iter().position(|octet| *octet == b'=') {
            Some(at) => (word.get(..at).unwrap_or_default(), word.get(at + 1..)),
            None => (word, None),
        }
    })
}

/// The keyword in upper case, if both have the form of RFC 5321 4.1.2 (esmtp-param).
fn checked<'a>(keyword: &[u8], value: Option<&'a [u8]>) -> Result<(String, Option<&'a [u8]>), CommandError> {
    let is_keyword = keyword.first().is_some_and(u8::is_ascii_alphanumeric)
        && keyword.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-');
    let is_value =
        value.is_none_or(|value| !value.is_empty() && value.iter().all(|o| o.is_ascii_graphic() && *o != b'='));
    if !is_keyword || !is_value {
        return Err(CommandError::ParameterSyntax);
    }
    let shown = keyword.get(..SHOWN_BYTES).unwrap_or(keyword);
    Ok((printable(&String::from_utf8_lossy(shown)).to_ascii_uppercase(), value))
}

/// RFC 6152. BINARYMIME (RFC 3030) was not offered: SES takes lines.
fn body(value: &[u8]) -> Result<Body, CommandError> {
    if value.eq_ignore_ascii_case(b"7BIT") {
        Ok(Body::SevenBit)
    } else if value.eq_ignore_ascii_case(b"8BITMIME") {
        Ok(Body::EightBitMime)
    } else if value.eq_ignore_ascii_case(b"BINARYMIME") {
        Err(CommandError::ParameterUnknown("BODY=BINARYMIME".to_owned()))
    } else {
        Err(CommandError::ParameterValue("BODY"))
    }
}

/// Whether `value` is `<>` or xtext (RFC 4954 5, RFC 3461 4). Who wrote the message is for the
/// login to say, so it is read and no more.
fn is_submitter(value: &[u8]) -> bool {
    if value == b"<>" {
        return true;
    }
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'+', [high, low, behind @ ..]) if is_upper_hex(*high) && is_upper_hex(*low) => behind,
            (b'+' | b'=', _) => return false,
            (_, behind) => behind,
        };
    }
    !value.is_empty()
}

fn is_upper_hex(octet: u8) -> bool {
    octet.is_ascii_digit() || (b'A'..=b'F').contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_read() {
        let table: [(&str, Command<'_>); 13] = [
            ("EHLO a.example", Command::Ehlo("a.example".into())),
            ("helo [IPv6:::1]", Command::Helo("[IPv6:::1]".into())),
            ("EHLO <b>(x)", Command::Ehlo("?b??x?".into())),
            ("STARTTLS", Command::StartTls),
            ("AUTH PLAIN", Command::Auth(Mechanism::Plain, None)),
            ("AUTH login  =", Command::Auth(Mechanism::Login, Some(b"="))),
            ("DATA \t", Command::Data),
            ("BDAT 0 LAST", Command::Bdat { octets: 0, last: true }),
            ("BDAT 18446744073709551615", Command::Bdat { octets: u64::MAX, last: false }),
            ("RSET", Command::Rset),
            ("noop x", Command::Noop),
            ("VRFY x", Command::Vrfy),
            ("QUIT", Command::Quit),
        ];
        for (line, wanted) in table {
            assert_eq!(parse(line.as_bytes()), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_says_why() {
        let table = [
            ("", CommandError::Unknown),
            ("STARTTLSX", CommandError::Unknown),
            ("QUIT\tnow", CommandError::Unknown),
            ("RSET x", CommandError::NoArgumentAllowed("RSET")),
            ("EHLO a b", CommandError::Syntax(EHLO_FORM)),
            ("BDAT", CommandError::ChunkSize),
            ("BDAT 18446744073709551616", CommandError::ChunkSize),
            ("BDAT +1", CommandError::ChunkSize),
            ("AUTH GSSAPI", CommandError::MechanismUnknown),
            ("MAIL FROM:<a", CommandError::Syntax(MAIL_FORM)),
            ("MAIL FROM:<\"a>", CommandError::Syntax(MAIL_FORM)),
            ("MAIL FROM:<> SIZE=1 size=2", CommandError::ParameterTwice("SIZE")),
            ("MAIL FROM:<> SIZE=1x", CommandError::ParameterValue("SIZE")),
            ("MAIL FROM:<> AUTH=+4g", CommandError::ParameterValue("AUTH")),
            ("MAIL FROM:<> A=B=C", CommandError::ParameterSyntax),
            ("MAIL FROM:<> -A", CommandError::ParameterSyntax),
            ("MAIL FROM:<> Frob=1", CommandError::ParameterUnknown("FROB".into())),
            ("RCPT TO:<>", CommandError::NullRecipient),
            ("RCPT TO:<@a:b@c>", CommandError::SourceRoute(Of::Recipient)),
            ("MAIL FROM:<PostMaster>", CommandError::NoDomain(Of::Sender)),
        ];
        for (line, wanted) in table {
            assert_eq!(parse(line.as_bytes()), Err(wanted), "{line}");
        }
    }

    #[test]
    fn sizes_beyond_counting_are_the_largest() {
        for (size, wanted) in [("0", 0), ("00000000000000000007", 7), ("99999999999999999999", u64::MAX)] {
            let Ok(Command::Mail(mail)) = parse(format!("MAIL FROM:<> SIZE={size}").as_bytes()) else {
                panic!("{size}")
            };
            assert_eq!(mail.size, Some(wanted));
        }
    }
}
