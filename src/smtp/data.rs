//! Mail data: from the octets behind DATA or BDAT to the message the client meant (RFC 5321 4.5.2,
//! RFC 3030).
//!
//! Promises: mail data ends at CRLF `.` CRLF and nowhere else; a dot is removed only at the start of
//! a line, which is after CRLF or at the very first octet; what is kept is the client's message octet
//! for octet. Every octet is looked at once, at memory speed. A message with a fault is read on to
//! its end so that the session stays in step, and nothing of it is held from the fault on. The
//! buffer becomes the message without a copy and never outgrows the bound on messages.
//!
//! A large message leaves while it comes in: once more than [`DataBounds::spill_bytes`] of it are
//! held, [`MailData::spill`] gives out all behind its first [`DataBounds::head_bytes`], in order and
//! each octet once. What has left counts in every bound as if it were here. Head, spilled octets
//! and rest, joined, are the message, wherever it was cut and whenever somebody asked.
//!
//! Refuses, and never repairs: bare CR, bare LF, NUL, a line over its bound, a message over its, and
//! a last line without its end (possible with BDAT alone).
//! What can go wrong: a [`Fault`], the first one met; which one that is depends on the octets alone.

use std::fmt;

use bytes::Bytes;
use memchr::memchr3;

/// The smallest buffer a message begins with.
const FIRST_BUFFER: usize = 4096;
/// Most octets that come in before the shell may take some out: what it reads at once.
const READ: usize = 16 * 1024;

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
    /// What was spilled found no room.
    #[error("no disk space to hold it")]
    NoRoom,
}

/// What a message may have, and how much of it is held while it comes in.
#[derive(Clone, Copy, Debug)]
pub struct DataBounds {
    /// Octets of a message.
    pub message_bytes: usize,
    /// Octets of a line, CRLF included.
    pub line_bytes: usize,
    /// Octets at the beginning of a message that never leave.
    pub head_bytes: usize,
    /// A message that holds more than this gives out what is behind its head. `usize::MAX`: never.
    pub spill_bytes: usize,
}

/// A message that has come in whole: `head`, then what was spilled, then `rest`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MailOctets {
    /// How it begins; all of it if nothing was spilled.
    pub head: Bytes,
    /// How many octets behind the head were given out while it came in.
    pub spilled: u64,
    /// How it ends; nothing if nothing was spilled.
    pub rest: Bytes,
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
    /// All that is held until something is spilled; from then on what stays.
    head: Vec<u8>,
    /// Octets that were given out.
    spilled: usize,
    /// What came in behind them.
    rest: Vec<u8>,
    at: At,
    /// Octets of the line that is coming in, as kept.
    line: usize,
    fault: Option<Fault>,
    bounds: DataBounds,
    /// What SIZE said, to allocate no more than that.
    declared: Option<usize>,
}

impl MailData {
    /// Nothing yet. `declared` is the SIZE the client gave.
    pub fn new(bounds: DataBounds, declared: Option<usize>) -> Self {
        let (head, rest) = (Vec::new(), Vec::new());
        Self { head, spilled: 0, rest, at: At::LineStart, line: 0, fault: None, bounds, declared }
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

    /// Gives out what is held behind the head, if more is held than is meant to be; whoever takes it
    /// has it from now on, behind what was given out before.
    pub fn spill(&mut self) -> Option<Bytes> {
        if self.head.len() + self.rest.len() <= self.bounds.spill_bytes {
            return None;
        }
        let octets = if self.spilled == 0 { self.behind_head() } else { std::mem::take(&mut self.rest) };
        self.spilled += octets.len();
        (!octets.is_empty()).then(|| Bytes::from(octets))
    }

    /// Gives the message up: what is held is released, what was spilled is no longer asked for, what
    /// still comes is read past.
    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.head = Vec::new();
        self.spilled = 0;
        self.rest = Vec::new();
    }

    /// The first fault so far.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Octets held, counted as allocated.
    pub fn held(&self) -> usize {
        self.head.capacity() + self.rest.capacity()
    }

    /// Octets given out that belong to the message; none once it has a fault.
    pub fn spilled(&self) -> u64 {
        self.spilled as u64
    }

    /// The message, once it has come in whole.
    pub fn finish(mut self) -> Result<MailOctets, Fault> {
        match self.at {
            At::LineStart | At::Dot | At::DotCr => {}
            At::Text => self.fail(Fault::OpenLine),
            At::Cr => self.fail(Fault::BareCr),
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => {
                let spilled = self.spilled();
                Ok(MailOctets { head: Bytes::from(self.head), spilled, rest: Bytes::from(self.rest) })
            }
        }
    }

    /// Cuts off what is behind the head; its room goes with it.
    fn behind_head(&mut self) -> Vec<u8> {
        if self.head.len() <= self.bounds.head_bytes {
            return Vec::new();
        }
        let behind = self.head.split_off(self.bounds.head_bytes);
        self.head.shrink_to_fit();
        behind
    }

    /// Octets of the message so far, here or given out.
    fn total(&self) -> usize {
        self.head.len() + self.spilled + self.rest.len()
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
        let line_room = self.bounds.line_bytes.saturating_sub(2).saturating_sub(self.line);
        let size_room = self.bounds.message_bytes.saturating_sub(self.total());
        if text.len() > line_room && line_room <= size_room {
            return self.fail(Fault::LongLine);
        }
        if text.len() > size_room {
            return self.fail(Fault::TooBig);
        }
        self.line += text.len();
        self.append(text);
    }

    fn keep_line_end(&mut self) {
        self.at = At::LineStart;
        self.line = 0;
        if self.fault.is_some() {
            return;
        }
        if self.total() + 2 > self.bounds.message_bytes {
            return self.fail(Fault::TooBig);
        }
        self.append(b"\r\n");
    }

    /// Doubles the buffer as it fills, but not past what was declared, nor past the bound on messages,
    /// nor past what is held before it is spilled.
    fn append(&mut self, octets: &[u8]) {
        let head = if self.spilled == 0 { 0 } else { self.head.len() };
        let before = head + self.spilled;
        let most_held = self.bounds.spill_bytes.saturating_add(READ).saturating_sub(head);
        let most = self.bounds.message_bytes.saturating_sub(before).min(most_held);
        let declared = self.declared.and_then(|size| size.checked_sub(before));
        let buffer = if self.spilled == 0 { &mut self.head } else { &mut self.rest };
        let needed = buffer.len() + octets.len();
        if needed > buffer.capacity() {
            let doubled = buffer.capacity().saturating_mul(2).max(FIRST_BUFFER).min(most).max(needed);
            let target = declared.filter(|size| (needed..doubled).contains(size)).unwrap_or(doubled);
            buffer.reserve_exact(target - buffer.len());
        }
        buffer.extend_from_slice(octets);
    }
}

impl MailOctets {
    /// Octets of the whole message.
    pub fn len(&self) -> u64 {
        self.spilled + self.head.len() as u64 + self.rest.len() as u64
    }

    /// Whether the message has no octet at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in one piece; `None` when some of it was spilled.
    pub fn whole(self) -> Option<Bytes> {
        (self.spilled == 0).then_some(self.head)
    }
}

impl fmt::Debug for MailOctets {
    /// How much, never what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, spilled, rest } = self;
        f.debug_struct("MailOctets")
            .field("head", &head.len())
            .field("spilled", spilled)
            .field("rest", &rest.len())
            .finish()
    }
}

impl fmt::Debug for MailData {
    /// How much, never what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailData").field("octets", &self.total()).field("fault", &self.fault).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: DataBounds = DataBounds { message_bytes: 64, line_bytes: 20, ..NEVER_SPILLED };
    const NEVER_SPILLED: DataBounds =
        DataBounds { message_bytes: 100_000, line_bytes: 1000, head_bytes: 0, spill_bytes: usize::MAX };

    /// The message, and the octets behind its end.
    type Ended = (Result<Vec<u8>, Fault>, Vec<u8>);

    /// What comes of `octets` taken in segments; `None` when the message has not ended.
    fn dotted(octets: &[u8], segment: usize, bounds: DataBounds) -> Option<Ended> {
        let mut data = MailData::new(bounds, None);
        let (mut seen, mut spilled) = (0, Vec::new());
        for part in octets.chunks(segment) {
            let (taken, ended) = data.take_dotted(part);
            seen += taken;
            if ended {
                return Some((data.finish().map(|message| joined(&message, &spilled)), octets[seen..].to_vec()));
            }
            assert_eq!(taken, part.len());
            while let Some(more) = data.spill() {
                spilled.extend_from_slice(&more);
            }
        }
        None
    }

    fn joined(message: &MailOctets, spilled: &[u8]) -> Vec<u8> {
        assert_eq!(message.spilled, spilled.len() as u64);
        let octets = [&message.head, spilled, &message.rest].concat();
        assert_eq!(message.len(), octets.len() as u64);
        octets
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
                assert_eq!(dotted(octets.as_bytes(), segment, SMALL), wanted, "{octets:?} by {segment}");
                for (head_bytes, spill_bytes) in [(0, 0), (0, 1), (1, 1), (3, 8), (8, 3), (20, 40)] {
                    let bounds = DataBounds { head_bytes, spill_bytes, ..SMALL };
                    assert_eq!(
                        dotted(octets.as_bytes(), segment, bounds),
                        wanted,
                        "{octets:?} by {segment}, {bounds:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn chunks_join_wherever_they_are_cut() {
        let message = b".a\r\n..\r\nb\r\n";
        for cut in 0..=message.len() {
            let mut data = MailData::new(SMALL, None);
            data.take_chunk(&message[..cut]);
            data.take_chunk(&message[cut..]);
            assert_eq!(data.finish().unwrap().whole().unwrap().as_ref(), message);
        }
        for (octets, fault) in [("a\rb\r\n", Fault::BareCr), ("a", Fault::OpenLine), ("a\r", Fault::BareCr)] {
            let mut data = MailData::new(SMALL, None);
            data.take_chunk(octets.as_bytes());
            assert_eq!(data.finish(), Err(fault));
        }
    }

    #[test]
    fn the_buffer_becomes_the_message_and_never_outgrows_the_bound() {
        for declared in [None, Some(70_000)] {
            let mut data = MailData::new(NEVER_SPILLED, declared);
            let line = [b"x".repeat(98), b"\r\n".to_vec()].concat();
            for _ in 0..700 {
                data.take_dotted(&line);
                assert!(data.held() <= declared.unwrap_or(100_000));
            }
            let at = data.head.as_ptr();
            let message = data.finish().unwrap();
            assert_eq!((message.len(), message.spilled), (70_000, 0));
            assert_eq!(message.whole().unwrap().as_ptr(), at);
        }
    }

    #[test]
    fn a_message_that_is_spilled_holds_its_head_and_what_came_in_since() {
        const HEAD: usize = 10_000;
        const SPILL: usize = 40_000;
        for declared in [None, Some(1_000_000), Some(30)] {
            let bounds = DataBounds { message_bytes: 2_000_000, head_bytes: HEAD, spill_bytes: SPILL, ..NEVER_SPILLED };
            let mut data = MailData::new(bounds, declared);
            let line = [b"x".repeat(98), b"\r\n".to_vec()].concat();
            let read = line.repeat(READ / line.len());
            let (mut taken, mut spilled, mut spills) = (0, 0, 0);
            while taken < 1_000_000 {
                data.take_chunk(&read);
                taken += read.len();
                assert!(data.held() <= SPILL + READ, "{} octets are held of {taken}", data.held());
                if let Some(octets) = data.spill() {
                    spilled += octets.len();
                    spills += 1;
                    assert!(octets.len() <= SPILL - HEAD + READ);
                    assert_eq!((data.held(), data.spilled()), (HEAD, spilled as u64));
                }
                assert!(data.spill().is_none(), "each octet once");
            }
            assert!(spills > 20, "{spills} spills");
            let message = data.finish().unwrap();
            assert_eq!((message.head.len(), message.spilled, message.len()), (HEAD, spilled as u64, taken as u64));
            assert!(message.whole().is_none());
        }
    }

    #[test]
    fn what_was_spilled_counts_in_the_bound_on_messages() {
        let bounds = DataBounds { head_bytes: 4, spill_bytes: 10, ..SMALL };
        for (last, wanted) in [("12\r\n", Ok(64)), ("123\r\n", Err(Fault::TooBig))] {
            let mut data = MailData::new(bounds, None);
            for _ in 0..6 {
                data.take_chunk(b"12345678\r\n");
                data.spill();
            }
            assert!(data.spilled() > 40);
            data.take_chunk(last.as_bytes());
            assert_eq!(data.finish().map(|message| message.len()), wanted);
        }
    }

    #[test]
    fn a_message_with_a_fault_spills_nothing_more() {
        let mut data = MailData::new(DataBounds { head_bytes: 4, spill_bytes: 10, ..SMALL }, None);
        data.take_chunk(b"12345678\r\n12345678\r\n");
        assert_eq!(data.spill().unwrap(), "5678\r\n12345678\r\n");
        data.fail(Fault::NoRoom);
        data.take_chunk(b"12345678\r\n12345678\r\n");
        assert_eq!((data.spill(), data.spilled(), data.held()), (None, 0, 0));
        assert_eq!(data.finish(), Err(Fault::NoRoom));
    }

    #[test]
    fn nothing_is_held_of_a_message_with_a_fault() {
        let mut data = MailData::new(NEVER_SPILLED, None);
        data.take_dotted(b"text\r\n");
        assert!(data.held() > 0);
        data.take_dotted(b"bare\ntext\r\n");
        assert_eq!(data.held(), 0);
        data.take_dotted(&b"text\r\n".repeat(1000));
        assert_eq!(data.held(), 0);
    }
}
