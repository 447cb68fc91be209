//! Lines of a conversation: octets in, whole lines out (RFC 5321 2.3.8, 4.5.3.1.4; RFC 4954 4).
//!
//! Promises: only CRLF ends a line; what a line is depends on the octets and never on how they were
//! segmented; a line that is too long is dropped as it comes in, held by no more than its bound, and
//! told of once, at its CRLF, so that its tail is never read as a command.
//! Refuses: bare CR, bare LF (the client is out of step, or somebody wants two readers to disagree)
//! and NUL.
//! What can go wrong: nothing; each thing a client may send is a [`Line`].

use std::fmt;

use memchr::memchr3;

const CR: u8 = b'\r';
const LF: u8 = b'\n';

/// How long a line may be, CRLF included.
#[derive(Clone, Copy, Debug)]
pub struct LineBounds {
    /// A command.
    pub command: usize,
    /// A line of an AUTH exchange: every line while `exchange` is on, and one that begins with `AUTH `.
    pub auth: usize,
    /// An AUTH exchange is under way.
    pub exchange: bool,
}

/// Which bound a line went over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// [`LineBounds::command`].
    Command,
    /// [`LineBounds::auth`].
    Auth,
}

/// What came in up to the end of a line.
#[derive(PartialEq, Eq)]
pub enum Line {
    /// A line, without its CRLF.
    Whole(Vec<u8>),
    /// A line over its bound; its octets are gone.
    TooLong(Bound),
    /// A line with a NUL in it; its octets are gone.
    Nul,
    /// A CR without its LF.
    BareCr,
    /// An LF without its CR.
    BareLf,
}

/// The octets that were received and not yet read.
#[derive(Default)]
pub struct Lines {
    held: Vec<u8>,
    /// Where the unread octets begin in `held`.
    start: usize,
    /// How many unread octets are known to hold no line end.
    scanned: usize,
    /// The line that is coming in is too long; its octets are dropped.
    dropping: Option<Bound>,
    /// The line that is coming in has a NUL.
    nul: bool,
}

impl Lines {
    /// Adds what was received.
    pub fn push(&mut self, octets: &[u8]) {
        if self.start > 0 {
            self.held.drain(..self.start);
            self.start = 0;
        }
        self.held.extend_from_slice(octets);
    }

    /// The octets that were not yet read.
    pub fn unread(&self) -> &[u8] {
        self.held.get(self.start..).unwrap_or_default()
    }

    /// Takes `octets` off the front; the allocation goes with the last of them, so that an idle
    /// connection holds none.
    pub fn consume(&mut self, octets: usize) {
        self.start = self.start.saturating_add(octets).min(self.held.len());
        self.scanned = self.scanned.saturating_sub(octets);
        if self.start == self.held.len() {
            self.held = Vec::new();
            self.start = 0;
        }
    }

    /// The next line, once it is whole.
    pub fn next(&mut self, bounds: LineBounds) -> Option<Line> {
        loop {
            let unread = self.unread();
            let fresh = unread.get(self.scanned..).unwrap_or_default();
            let Some(at) = memchr3(CR, LF, 0, fresh).map(|found| self.scanned + found) else {
                self.rest_is_text(unread.len(), bounds);
                return None;
            };
            match (unread.get(at), unread.get(at + 1)) {
                (Some(&0), _) => {
                    self.nul = true;
                    self.scanned = at + 1;
                }
                (Some(&CR), Some(&LF)) => return Some(self.cut(at, bounds)),
                (Some(&CR), None) => {
                    self.rest_is_text(at, bounds);
                    return None;
                }
                (Some(&CR), Some(_)) => return Some(Line::BareCr),
                (Some(_) | None, _) => return Some(Line::BareLf),
            }
        }
    }

    /// The first `len` unread octets hold no line end: over the bound they are dropped.
    fn rest_is_text(&mut self, len: usize, bounds: LineBounds) {
        self.scanned = len;
        if self.dropping.is_none() {
            self.dropping = over(self.unread().get(..len).unwrap_or_default(), bounds);
        }
        if self.dropping.is_some() {
            self.consume(len);
        }
    }

    /// A CRLF stands at `at`.
    fn cut(&mut self, at: usize, bounds: LineBounds) -> Line {
        let text = self.unread().get(..at).unwrap_or_default();
        let line = match self.dropping.or_else(|| over(text, bounds)) {
            Some(bound) => Line::TooLong(bound),
            None if self.nul => Line::Nul,
            None => Line::Whole(text.to_vec()),
        };
        self.consume(at + 2);
        self.scanned = 0;
        self.dropping = None;
        self.nul = false;
        line
    }
}

/// The bound that `text` and its CRLF go over, if they do.
fn over(text: &[u8], bounds: LineBounds) -> Option<Bound> {
    let is_auth = bounds.exchange || text.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
    let (most, bound) = if is_auth { (bounds.auth, Bound::Auth) } else { (bounds.command, Bound::Command) };
    (text.len() + 2 > most).then_some(bound)
}

impl fmt::Debug for Lines {
    /// How much is held, never what: it may be somebody's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("unread", &self.unread().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Line {
    /// Which kind of line, never what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(text) => write!(f, "Whole({} octets)", text.len()),
            Self::TooLong(bound) => write!(f, "TooLong({bound:?})"),
            Self::Nul => f.write_str("Nul"),
            Self::BareCr => f.write_str("BareCr"),
            Self::BareLf => f.write_str("BareLf"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LineBounds = LineBounds { command: 16, auth: 32, exchange: false };

    fn lines(octets: &[u8], segment: usize) -> Vec<Line> {
        let mut reader = Lines::default();
        let mut all = Vec::new();
        for part in octets.chunks(segment) {
            reader.push(part);
            while let Some(line) = reader.next(BOUNDS) {
                let ends = matches!(line, Line::BareCr | Line::BareLf);
                all.push(line);
                if ends {
                    return all;
                }
            }
            assert!(reader.unread().len() <= 32, "more than a line is held");
        }
        all
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_are_the_same_however_they_are_segmented() {
        let table: [(&[u8], Vec<Line>); 9] = [
            (b"NOOP\r\nQUIT\r\n", vec![whole("NOOP"), whole("QUIT")]),
            (b"12345678901234\r\n", vec![whole("12345678901234")]),
            (b"123456789012345\r\nQUIT\r\n", vec![Line::TooLong(Bound::Command), whole("QUIT")]),
            (b"auth 9012345678901234567890\r\n", vec![whole("auth 9012345678901234567890")]),
            (b"AUTH 90123456789012345678901234\r\nx\r\n", vec![Line::TooLong(Bound::Auth), whole("x")]),
            (b"NO\0OP\r\nx\r\n", vec![Line::Nul, whole("x")]),
            (b"a\nb\r\n", vec![Line::BareLf]),
            (b"ok\r\na\rb\r\n", vec![whole("ok"), Line::BareCr]),
            (b"123456789012345678901234567890\rb\r\n", vec![Line::BareCr]),
        ];
        for (octets, wanted) in table {
            for segment in 1..=octets.len() {
                assert_eq!(lines(octets, segment), wanted, "{:?} by {segment}", String::from_utf8_lossy(octets));
            }
        }
    }

    #[test]
    fn an_idle_reader_holds_no_memory() {
        let mut reader = Lines::default();
        reader.push(b"NOOP\r\n");
        assert_eq!(reader.next(BOUNDS), Some(whole("NOOP")));
        assert_eq!(reader.held.capacity(), 0);
    }

    #[test]
    fn an_endless_line_holds_no_memory() {
        let mut reader = Lines::default();
        for _ in 0..1000 {
            reader.push(&[b'x'; 100]);
            assert_eq!(reader.next(BOUNDS), None);
            assert!(reader.held.capacity() <= 200);
        }
    }
}
