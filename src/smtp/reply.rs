//! Every reply by name (RFC 5321 4.2, RFC 3463).
//!
//! Promises: a reply is one or more lines of printable US-ASCII within 512 octets each, whatever
//! text of SES's or a client's it carries; a [`Refusal`] is always 4xx or 5xx, so no refusal can
//! read as success; 250 after mail data is made of a [`Receipt`] and of nothing else.
//! Refuses: text beyond [`TEXT_LONGEST`] octets, which is cut.

use std::fmt;

use super::command::CommandError;
use super::data::Fault;
use super::line::Bound;
use crate::mail::Receipt;
use crate::mail::mailbox::MailboxError;

/// Longest reply line in octets, CRLF included (RFC 5321 4.5.3.1.5).
pub const LINE_LONGEST: usize = 512;
/// Most octets of text in a reply, over all of its lines.
pub const TEXT_LONGEST: usize = 2000;
/// Room for `250-`, `5.999.999 ` and CRLF beside the text of a line.
const TEXT_OF_A_LINE: usize = LINE_LONGEST - 16;

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
    pub fn temporary(code: u16, enhanced: (u16, u16), text: impl Into<String>) -> Self {
        debug_assert!((400..=499).contains(&code), "{code} is not temporary");
        let code = if (400..=499).contains(&code) { code } else { 451 };
        Self { reply: Reply::new(code, (4, enhanced.0, enhanced.1), &text.into()), closes: false }
    }
    /// "Never": 5xx, likewise, falling back to 554.
    pub fn permanent(code: u16, enhanced: (u16, u16), text: impl Into<String>) -> Self {
        debug_assert!((500..=599).contains(&code), "{code} is not permanent");
        let code = if (500..=599).contains(&code) { code } else { 554 };
        Self { reply: Reply::new(code, (5, enhanced.0, enhanced.1), &text.into()), closes: false }
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
    /// The reply, when the refusal is no longer needed.
    pub fn into_reply(self) -> Reply {
        self.reply
    }
    /// Whether the session ends after it.
    pub fn closes(&self) -> bool {
        self.closes
    }
    /// Whether it may pass later.
    pub fn is_temporary(&self) -> bool {
        self.reply.code < 500
    }
}

impl Reply {
    /// Text is cleaned, cut and wrapped.
    fn new(code: u16, enhanced: (u8, u16, u16), text: &str) -> Self {
        Self { code, enhanced: Some(enhanced), lines: wrapped(text) }
    }

    /// A reply that carries no enhanced status code.
    fn plain(code: u16, text: &str) -> Self {
        Self { code, enhanced: None, lines: wrapped(text) }
    }

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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.lines.len().saturating_sub(1);
        for (n, line) in self.lines.iter().enumerate() {
            let mark = if n == last { ' ' } else { '-' };
            write!(f, "{}{mark}", self.code)?;
            if let Some((class, subject, detail)) = self.enhanced {
                write!(f, "{class}.{subject}.{detail} ")?;
            }
            write!(f, "{line}\r\n")?;
        }
        Ok(())
    }
}

/// `text` as printable US-ASCII: white space is a space, any other character a question mark.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' => c,
            c if c.is_whitespace() => ' ',
            _ => '?',
        })
        .collect()
}

/// `text` in lines that fit, broken at spaces where there are any; one line at least.
fn wrapped(text: &str) -> Vec<String> {
    let clean = printable(text);
    let mut rest = clean.get(..TEXT_LONGEST).unwrap_or(&clean);
    let mut lines = Vec::with_capacity(1);
    while let Some((full, _)) = rest.split_at_checked(TEXT_OF_A_LINE) {
        let (line, behind) = match full.rfind(' ') {
            Some(space) if space > 0 => rest.split_at(space),
            Some(_) | None => rest.split_at(TEXT_OF_A_LINE),
        };
        lines.push(line.to_owned());
        rest = behind.trim_start_matches(' ');
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

// --- What goes well -------------------------------------------------------------------------

/// 220: the first words.
pub fn greeting(hostname: &str) -> Reply {
    Reply::plain(220, &format!("{hostname} ESMTP Bulkhead"))
}
/// 220 with a note on what does not work at the moment.
pub fn greeting_with(hostname: &str, note: &str) -> Reply {
    Reply::plain(220, &format!("{hostname} ESMTP Bulkhead ({note})"))
}
/// 250 to EHLO, a line for each extension.
pub fn extensions(lines: Vec<String>) -> Reply {
    Reply { code: 250, enhanced: None, lines: lines.iter().flat_map(|line| wrapped(line)).collect() }
}
/// 250 to HELO.
pub fn hello(hostname: &str) -> Reply {
    Reply::plain(250, hostname)
}
/// 220: TLS may begin.
pub fn ready_for_tls() -> Reply {
    Reply::new(220, (2, 0, 0), "Ready to start TLS")
}
/// 334: the next turn of an AUTH exchange, in base64.
pub fn challenge(base64: &str) -> Reply {
    Reply::plain(334, base64)
}
/// 235: logged in.
pub fn authenticated() -> Reply {
    Reply::new(235, (2, 7, 0), "Authentication succeeded")
}
/// 250 to NOOP and RSET.
pub fn ok() -> Reply {
    Reply::new(250, (2, 0, 0), "Ok")
}
/// 250 to MAIL.
pub fn sender_ok() -> Reply {
    Reply::new(250, (2, 1, 0), "Sender ok")
}
/// 250 to RCPT.
pub fn recipient_ok() -> Reply {
    Reply::new(250, (2, 1, 5), "Recipient ok")
}
/// 354 to DATA.
pub fn start_mail_data() -> Reply {
    Reply::plain(354, "End the mail data with <CRLF>.<CRLF>")
}
/// 250 to a BDAT chunk that is not the last.
pub fn chunk_taken(octets: u64) -> Reply {
    Reply::new(250, (2, 0, 0), &format!("{octets} octets received"))
}
/// 250 to the end of the mail data: somebody has the message.
pub fn message_accepted(receipt: &Receipt) -> Reply {
    Reply::new(250, (2, 0, 0), &receipt.words())
}
/// 252 to VRFY: nobody is told which addresses exist (RFC 5321 7.3).
pub fn not_verified() -> Reply {
    Reply::new(252, (2, 0, 0), "Not verified; send the message and see")
}
/// 214 to HELP.
pub fn help() -> Reply {
    Reply::new(214, (2, 0, 0), "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT (RFC 5321)")
}
/// 221 to QUIT.
pub fn goodbye(hostname: &str) -> Reply {
    Reply::new(221, (2, 0, 0), &format!("{hostname} closes the connection"))
}

// --- What ends the session ------------------------------------------------------------------

/// 421: we are shutting down.
pub fn draining() -> Reply {
    Reply::new(421, (4, 3, 2), "Shutting down, please connect again")
}
/// 421: no command in its time, or mail data too slow.
pub fn timed_out() -> Reply {
    Reply::new(421, (4, 4, 2), "Timed out waiting for the client")
}
/// 421: a fault of ours.
pub fn our_fault() -> Reply {
    Reply::new(421, (4, 3, 0), "Internal fault, please try again later")
}
/// 421: more errors than [`super::Terms::errors`].
pub fn too_many_errors() -> Reply {
    Reply::new(421, (4, 7, 0), "Too many errors")
}
/// 421: more commands before a login than a client needs.
pub fn too_many_commands() -> Reply {
    Reply::new(421, (4, 7, 0), "Too many commands without a login")
}
/// 421: more messages than [`super::Terms::messages`].
pub fn too_many_messages(most: usize) -> Reply {
    Reply::new(421, (4, 7, 0), &format!("{most} messages were sent on this connection, please connect again"))
}
/// 421: as many refused logins as [`super::Terms::auth_failures`].
pub fn too_many_logins() -> Refusal {
    Refusal::temporary(421, (7, 0), "Too many refused logins").and_close()
}
/// 500: CR without LF between commands.
pub fn bare_cr() -> Reply {
    Reply::new(500, (5, 5, 2), "Carriage return without line feed; lines end with CRLF")
}
/// 500: LF without CR between commands.
pub fn bare_lf() -> Reply {
    Reply::new(500, (5, 5, 2), "Line feed without carriage return; lines end with CRLF")
}

// --- What is refused ------------------------------------------------------------------------

/// 535: the one answer to every login that is wrong, whatever is wrong with it.
pub fn credentials_invalid() -> Refusal {
    Refusal::permanent(535, (7, 8), "Authentication credentials invalid")
}
/// 454: we could not find out whether the login is right (RFC 4954 4.7).
pub fn authentication_unavailable() -> Refusal {
    Refusal::temporary(454, (7, 0), "Temporary authentication failure")
}
/// 500: a line over its bound.
pub fn line_too_long(bound: Bound) -> Reply {
    match bound {
        Bound::Command => Reply::new(500, (5, 5, 2), "Line too long"),
        Bound::Auth => Reply::new(500, (5, 5, 6), "Authentication exchange line too long"),
    }
}
/// 500: NUL in a command.
pub fn nul_in_line() -> Reply {
    Reply::new(500, (5, 5, 2), "NUL octet in a command")
}
/// 501 to an exchange that is not base64 or not the mechanism's form.
pub fn exchange_malformed() -> Reply {
    Reply::new(501, (5, 5, 2), "Cannot decode the response")
}
/// 501 to `*`.
pub fn exchange_cancelled() -> Reply {
    Reply::new(501, (5, 7, 0), "Authentication cancelled")
}
/// 530 to what needs TLS first (RFC 3207 4; 538 is historical by RFC 4954 6).
pub fn encryption_needed(starttls: bool) -> Reply {
    let text = if starttls { "Must issue a STARTTLS command first" } else { "An encrypted connection is required" };
    Reply::new(530, (5, 7, 0), text)
}
/// 530 to what needs a login first (RFC 4954 6).
pub fn authentication_needed() -> Reply {
    Reply::new(530, (5, 7, 0), "Authentication required")
}
/// 503 with what was expected instead.
pub fn out_of_order(wanted: &str) -> Reply {
    Reply::new(503, (5, 5, 1), wanted)
}
/// 502: known and not done here.
pub fn not_implemented(what: &str) -> Reply {
    Reply::new(502, (5, 5, 1), &format!("{what} is not available"))
}
/// 554 to DATA when every RCPT was refused.
pub fn no_valid_recipients() -> Reply {
    Reply::new(554, (5, 5, 1), "No valid recipients")
}
/// 451 to DATA when every RCPT was refused and one of them may pass later.
pub fn no_recipients_now() -> Reply {
    Reply::new(451, (4, 5, 1), "No valid recipients now, please try again later")
}
/// 552: larger than [`super::Terms::message_bytes`].
pub fn message_too_big(most: usize) -> Reply {
    Reply::new(552, (5, 3, 4), &format!("Message is larger than {most} octets"))
}
/// 452: more recipients than [`super::Terms::recipients`]; the message may go to those accepted.
pub fn too_many_recipients(most: usize) -> Reply {
    Reply::new(452, (4, 5, 3), &format!("More than {most} recipients, send the others a message of their own"))
}

/// The answer to mail data with a fault; nothing of it was kept.
pub fn faulty(fault: Fault, message_bytes: usize, line_bytes: usize) -> Reply {
    let content = |text: &str| Reply::new(554, (5, 6, 0), text);
    match fault {
        Fault::BareCr => content("Message has a carriage return without a line feed"),
        Fault::BareLf => content("Message has a line feed without a carriage return"),
        Fault::Nul => content("Message has a NUL octet"),
        Fault::LongLine => content(&format!("Message has a line of more than {line_bytes} octets")),
        Fault::OpenLine => content("Message does not end with CRLF"),
        Fault::TooBig => message_too_big(message_bytes),
        Fault::Starved => Reply::new(452, (4, 3, 1), "Insufficient memory, please try again later"),
        Fault::NoRoom => Reply::new(452, (4, 3, 1), "Insufficient disk space, please try again later"),
    }
}

/// The answer to a line that is no command.
pub fn no_command(error: CommandError) -> Reply {
    let syntax = |text: &str| Reply::new(501, (5, 5, 4), text);
    match error {
        CommandError::Unknown => Reply::new(500, (5, 5, 1), "Unknown command"),
        CommandError::NoArgumentAllowed(verb) => syntax(&format!("{verb} takes no argument")),
        CommandError::Syntax(form) => syntax(&format!("Syntax: {form}")),
        CommandError::ChunkSize => syntax("Syntax: BDAT octets [LAST]; where the chunk ends cannot be known"),
        CommandError::Path { of, error } => bad_path(of.status(), error),
        CommandError::SourceRoute(of) => address(of.status(), "Source routes are not accepted"),
        CommandError::NoDomain(of) => address(of.status(), "Address has no domain; write postmaster@your.domain"),
        CommandError::NullRecipient => address((1, 3), "The null path is no recipient"),
        CommandError::ParameterTwice(name) => syntax(&format!("{name} was given twice")),
        CommandError::ParameterValue(name) => syntax(&format!("{name} has a value that cannot be read")),
        CommandError::ParameterSyntax => syntax("Parameters have the form KEYWORD=value"),
        CommandError::ParameterUnknown(name) => {
            Reply::new(555, (5, 5, 4), &format!("Parameter {name} is not recognised or not implemented"))
        }
        CommandError::SmtpUtf8 => {
            Reply::new(555, (5, 5, 4), "SMTPUTF8 is not implemented, Amazon SES cannot carry such addresses")
        }
        CommandError::MechanismUnknown => {
            Reply::new(504, (5, 5, 4), "Authentication mechanism is not offered; use PLAIN or LOGIN")
        }
    }
}

/// The answer to an address that is none.
fn bad_path(status: (u16, u16), error: MailboxError) -> Reply {
    match error {
        MailboxError::NonAsciiLocalPart => Reply::new(553, (5, 6, 7), &format!("Address {error}")),
        MailboxError::Syntax | MailboxError::LocalPartTooLong | MailboxError::Domain | MailboxError::AddressLiteral => {
            address(status, &format!("Address {error}"))
        }
    }
}

fn address((subject, detail): (u16, u16), text: &str) -> Reply {
    Reply::new(501, (5, subject, detail), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_printable_lines_of_512_octets_whatever_it_carries() {
        let texts = [
            String::new(),
            "short".to_owned(),
            "x".repeat(5000),
            "word ".repeat(1000),
            "a\r\n250 2.0.0 forged\r\n".to_owned(),
            "é\0\u{1b}[31m漢".repeat(400),
            format!(" {}", "x".repeat(600)),
        ];
        for text in texts {
            let wire = Refusal::permanent(554, (6, 0), text).reply().to_string();
            assert!(wire.ends_with("\r\n"));
            let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
            assert!(lines.len() <= 8, "{} lines", lines.len());
            for (n, line) in lines.iter().enumerate() {
                assert!(line.len() + 2 <= LINE_LONGEST);
                assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
                let start = if n + 1 == lines.len() { "554 5.6.0 " } else { "554-5.6.0 " };
                assert!(line.starts_with(start), "{line:?}");
            }
        }
    }

    #[test]
    fn wrapping_loses_no_word() {
        let text = (0..300).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(Refusal::permanent(554, (6, 0), text.clone()).reply().text(), text);
    }

    #[test]
    fn a_refusal_is_never_a_success() {
        assert_eq!(Refusal::temporary(451, (7, 1), "x").reply().to_string(), "451 4.7.1 x\r\n");
        assert_eq!(Refusal::permanent(550, (7, 1), "x").reply().to_string(), "550 5.7.1 x\r\n");
        assert!(Refusal::temporary(451, (7, 1), "x").is_temporary());
        assert!(!Refusal::permanent(550, (7, 1), "x").is_temporary());
        assert!(!Refusal::permanent(550, (7, 1), "x").closes());
        assert!(Refusal::permanent(550, (7, 1), "x").and_close().closes());
    }

    #[test]
    fn challenges_keep_the_space_that_clients_look_for() {
        assert_eq!(challenge("").to_string(), "334 \r\n");
        assert_eq!(greeting("relay.example").to_string(), "220 relay.example ESMTP Bulkhead\r\n");
        assert_eq!(extensions(vec!["a".into(), "B".into()]).to_string(), "250-a\r\n250 B\r\n");
    }
}
