//! Mail data: from the octets behind DATA or BDAT to the message the client meant (RFC 5321 4.5.2,
//! RFC 3030).
//!
//! Promises: mail data ends at CRLF `.` CRLF and nowhere else; a dot is removed only at the start of
//! a line, which is after CRLF or at the very first octet; what is kept is the client's message octet
//! for octet. Every octet is looked at once, at memory speed. A message with a fault is read on to
//! its end so that the session stays in step, and nothing of it is held from the fault on. The
//! buffer becomes the message without a copy and never outgrows the bound on messages.
//! Refuses, and never repairs: bare CR, bare LF, NUL, a line over its bound, a message over its, and
//! a last line without its end (possible with BDAT alone).
//! What can go wrong: a [`Fault`], the first one met; which one that is depends on the octets alone.

use std::fmt;

use bytes::Bytes;
use memchr::memchr3;

/// The smallest buffer a message begins with.
const FIRST_BUFFER: usize = 4096;

/// Why a message is refused before anybody is asked about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// CR without LF.
    #[error("a carriage return without a line feed")]
    BareCr,
    /// LF without CR.
    #[error("a line feed without a carriage return")]
    BareLf,
    /// A NUL octet.
    #[error("a NUL octet")]
    Nul,
    /// A line over the bound.
    #[error("a line that is too long")]
    LongLine,
    /// The last line does not end with CRLF.
    #[error("a last line without CRLF")]
    OpenLine,
    /// More octets than the bound on messages.
    #[error("too many octets")]
    TooBig,
    /// We are short of memory.
    #[error("no memory to hold it")]
    Starved,
}

/// Where in the text we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// At the first octet of a line.
    LineStart,
    /// Behind a dot that began a line.
    Dot,
    /// Behind a CR behind such a dot.
    DotCr,
    /// Within a line.
    Text,
    /// Behind a CR within a line.
    Cr,
}

/// A message that is coming in.
pub struct MailData {
    kept: Vec<u8>,
    at: At,
    /// Octets of the line that is coming in, as kept.
    line: usize,
    fault: Option<Fault>,
    message_bytes: usize,
    line_bytes: usize,
    /// What SIZE said, to allocate no more than that.
    declared: Option<usize>,
}

impl MailData {
    /// Nothing yet. `message_bytes` and `line_bytes` (CRLF included) are the bounds, `declared` the
    /// SIZE the client gave.
    pub fn new(message_bytes: usize, line_bytes: usize, declared: Option<usize>) -> Self {
        Self { kept: Vec::new(), at: At::LineStart, line: 0, fault: None, message_bytes, line_bytes, declared }
    }

    /// Takes octets as they come behind DATA. Says how many were taken, and whether the last of
    /// them ended the mail data; all are taken unless it did.
    pub fn take_dotted(&mut self, octets: &[u8]) -> (usize, bool) {
        let mut rest = octets;
        while let Some((&first, behind)) = rest.split_first() {
            match (self.at, first) {
                (At::LineStart, b'.') => {
                    self.at = At::Dot;
                    rest = behind;
                }
                (At::Dot, b'\r') => {
                    self.at = At::DotCr;
                    rest = behind;
                }
                (At::DotCr, b'\n') => return (octets.len() - behind.len(), true),
                // The dot was stuffed: it is dropped, the line goes on behind it.
                (At::Dot, _) => self.at = At::Text,
                // The dot was dropped, the CR behind it is a bare one.
                (At::DotCr, _) => self.at = At::Cr,
                (At::LineStart | At::Text | At::Cr, _) => {
                    let taken = self.take_line(rest);
                    rest = rest.get(taken..).unwrap_or_default();
                }
            }
        }
        (octets.len(), false)
    }

    /// Takes octets of a BDAT chunk, all of them.
    pub fn take_chunk(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let taken = self.take_line(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Gives the message up: what is held is released, what still comes is read past.
    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.kept = Vec::new();
    }

    /// The first fault so far.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Octets held, counted as allocated.
    pub fn held(&self) -> usize {
        self.kept.capacity()
    }

    /// The message, once it has come in whole.
    pub fn finish(mut self) -> Result<Bytes, Fault> {
        match self.at {
            At::LineStart | At::Dot | At::DotCr => {}
            At::Text => self.fail(Fault::OpenLine),
            At::Cr => self.fail(Fault::BareCr),
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Bytes::from(self.kept)),
        }
    }

    /// Takes octets up to the end of a line, or all there are; says how many.
    fn take_line(&mut self, octets: &[u8]) -> usize {
        let mut done = 0;
        if self.at == At::Cr {
            if octets.first() == Some(&b'\n') {
                self.keep_line_end();
                return 1;
            }
            self.fail(Fault::BareCr);
        }
        self.at = At::Text;
        loop {
            let rest = octets.get(done..).unwrap_or_default();
            let Some(found) = memchr3(b'\r', b'\n', 0, rest) else {
                self.keep(rest);
                return octets.len();
            };
            self.keep(rest.get(..found).unwrap_or_default());
            done += found + 1;
            match (rest.get(found), rest.get(found + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    self.keep_line_end();
                    return done + 1;
                }
                (Some(b'\r'), None) => {
                    self.at = At::Cr;
                    return done;
                }
                (Some(b'\r'), Some(_)) => self.fail(Fault::BareCr),
                (Some(b'\n'), _) => self.fail(Fault::BareLf),
                (Some(_) | None, _) => self.fail(Fault::Nul),
            }
        }
    }

    /// Keeps text of a line. Where it goes over both bounds, the one it meets first counts.
    fn keep(&mut self, text: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let line_room = self.line_bytes.saturating_sub(2).saturating_sub(self.line);
        let size_room = self.message_bytes.saturating_sub(self.kept.len());
        if text.len() > line_room && line_room <= size_room {
            return self.fail(Fault::LongLine);
        }
        if text.len() > size_room {
            return self.fail(Fault::TooBig);
        }
        self.line += text.len();
        self.make_room(text.len());
        self.kept.extend_from_slice(text);
    }

    fn keep_line_end(&mut self) {
        self.at = At::LineStart;
        self.line = 0;
        if self.fault.is_some() {
            return;
        }
        if self.kept.len() + 2 > self.message_bytes {
            return self.fail(Fault::TooBig);
        }
        self.make_room(2);
        self.kept.extend_from_slice(b"\r\n");
    }

    /// Doubles the buffer as it fills, but not past what was declared, nor past the bound.
    fn make_room(&mut self, more: usize) {
        let needed = self.kept.len() + more;
        if needed <= self.kept.capacity() {
            return;
        }
        let doubled = self.kept.capacity().saturating_mul(2).max(FIRST_BUFFER).min(self.message_bytes).max(needed);
        let target = self.declared.filter(|size| (needed..doubled).contains(size)).unwrap_or(doubled);
        self.kept.reserve_exact(target - self.kept.len());
    }
}

impl fmt::Debug for MailData {
    /// How much, never what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailData").field("octets", &self.kept.len()).field("fault", &self.fault).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message, and the octets behind its end.
    type Ended = (Result<Vec<u8>, Fault>, Vec<u8>);

    /// What comes of `octets` taken in segments; `None` when the message has not ended.
    fn dotted(octets: &[u8], segment: usize) -> Option<Ended> {
        let mut data = MailData::new(64, 20, None);
        let mut seen = 0;
        for part in octets.chunks(segment) {
            let (taken, ended) = data.take_dotted(part);
            seen += taken;
            if ended {
                return Some((data.finish().map(|message| message.to_vec()), octets[seen..].to_vec()));
            }
            assert_eq!(taken, part.len());
        }
        None
    }

    #[test]
    fn mail_data_is_read_the_same_however_it_is_segmented() {
        let ends = |message: &str, rest: &str| Some((Ok(message.into()), rest.into()));
        let faulty = |fault, rest: &str| Some((Err(fault), rest.into()));
        let long = "123456789012345678";
        let table: Vec<(String, _)> = vec![
            ("a\r\n.\r\n".into(), ends("a\r\n", "")),
            (".\r\nQUIT\r\n".into(), ends("", "QUIT\r\n")),
            ("..\r\n.\r\n".into(), ends(".\r\n", "")),
            (".a\r\n..b\r\nc.\r\n.\r\nx".into(), ends("a\r\n.b\r\nc.\r\n", "x")),
            ("a\n.\r\nb\r\n.\r\n".into(), faulty(Fault::BareLf, "")),
            ("a\n.\nb\r\n.\r\n".into(), faulty(Fault::BareLf, "")),
            ("a\r\n.\nb\r\n.\r\n".into(), faulty(Fault::BareLf, "")),
            ("a\r.\rb\r\n.\r\n".into(), faulty(Fault::BareCr, "")),
            ("a\r\n.\rb\r\n.\r\n".into(), faulty(Fault::BareCr, "")),
            ("a\r\n.\r\r\nb\r\n.\r\n".into(), faulty(Fault::BareCr, "")),
            ("a\r\r\n.\r\n".into(), faulty(Fault::BareCr, "")),
            ("a\0\r\n.\r\nx".into(), faulty(Fault::Nul, "x")),
            ("a\n\0\r\n.\r\n".into(), faulty(Fault::BareLf, "")),
            (format!("{long}\r\n.{long}\r\n.\r\n"), ends(&format!("{long}\r\n{long}\r\n"), "")),
            (format!("{long}9\r\n.\r\n"), faulty(Fault::LongLine, "")),
            (format!("{long}9\0\r\n.\r\n"), faulty(Fault::LongLine, "")),
            (format!("{}\r\n.\r\n", "abc\r\n".repeat(13).trim_end()), faulty(Fault::TooBig, "")),
            (format!("{}1234\r\n.\r\n", "12345678\r\n".repeat(6)), faulty(Fault::TooBig, "")),
            (
                format!("{}12\r\n.\r\n", "12345678\r\n".repeat(6)),
                ends(&format!("{}12\r\n", "12345678\r\n".repeat(6)), ""),
            ),
            ("a\r\n.\n".into(), None),
            ("a\r\n.\r".into(), None),
        ];
        for (octets, wanted) in table {
            for segment in 1..=octets.len() {
                assert_eq!(dotted(octets.as_bytes(), segment), wanted, "{octets:?} by {segment}");
            }
        }
    }

    #[test]
    fn chunks_join_wherever_they_are_cut() {
        let message = b".a\r\n..\r\nb\r\n";
        for cut in 0..=message.len() {
            let mut data = MailData::new(64, 20, None);
            data.take_chunk(&message[..cut]);
            data.take_chunk(&message[cut..]);
            assert_eq!(data.finish().unwrap().as_ref(), message);
        }
        for (octets, fault) in [("a\rb\r\n", Fault::BareCr), ("a", Fault::OpenLine), ("a\r", Fault::BareCr)] {
            let mut data = MailData::new(64, 20, None);
            data.take_chunk(octets.as_bytes());
            assert_eq!(data.finish(), Err(fault));
        }
    }

    #[test]
    fn the_buffer_becomes_the_message_and_never_outgrows_the_bound() {
        for declared in [None, Some(70_000)] {
            let mut data = MailData::new(100_000, 1000, declared);
            let line = [b"x".repeat(98), b"\r\n".to_vec()].concat();
            for _ in 0..700 {
                data.take_dotted(&line);
                assert!(data.held() <= declared.unwrap_or(100_000));
            }
            let at = data.kept.as_ptr();
            let message = data.finish().unwrap();
            assert_eq!(message.len(), 70_000);
            assert_eq!(message.as_ptr(), at);
        }
    }

    #[test]
    fn nothing_is_held_of_a_message_with_a_fault() {
        let mut data = MailData::new(100_000, 1000, None);
        data.take_dotted(b"text\r\n");
        assert!(data.held() > 0);
        data.take_dotted(b"bare\ntext\r\n");
        assert_eq!(data.held(), 0);
        data.take_dotted(&b"text\r\n".repeat(1000));
        assert_eq!(data.held(), 0);
    }
}
