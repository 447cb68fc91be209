//! The session: one client conversation, without I/O.
//!
//! The shell does what [`Step`] says and nothing else:
//!
//! ```text
//! loop {
//!   match session.step(now) {
//!     Read          => receive(bytes, now) with what the socket gives; at deadline(): expire(now)
//!     Wait          => sleep until deadline(), then expire(now); the socket is not read
//!     Write(bytes)  => write all of it
//!     Ask(question) => find the answer, answer(answer, now)
//!     Secure        => TLS handshake, then secured(now)
//!     Close         => shut the socket
//!   }
//! }
//! ```
//!
//! Promises: the conversation depends on the octets and not on how they were segmented; replies are
//! in order; while a question is open the session is deaf; replies collect until it has to read,
//! wait or ask, so a pipelined group leaves in one write. Octets left behind STARTTLS end the
//! session; after TLS everything said before is forgotten (RFC 3207 4.2).
//! Refuses: see `tests/dialogue`, one promise a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reply::{Refusal, Reply};
use crate::mail::{Envelope, Login, Mailbox, Receipt, ReversePath};
use crate::secret::Secret;

/// What is agreed before the first octet: fixed for a listener, shared by its sessions.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Our name in greeting, EHLO and HELP.
    pub hostname: String,
    /// STARTTLS is offered (and AUTH is not, until TLS is up).
    pub starttls: bool,
    /// AUTH is offered and accepted without TLS: loopback listeners with `tls = "none"` only.
    pub cleartext_auth: bool,
    /// Largest message in octets: SIZE, 552 5.3.4.
    pub message_bytes: usize,
    /// Most recipients a message: LIMITS RCPTMAX, 452 4.5.3.
    pub recipients: usize,
    /// Messages a connection: LIMITS MAILMAX, then 421 4.7.0.
    pub messages: usize,
    /// Longest command line in octets, CRLF included: 500 5.5.2.
    pub command_bytes: usize,
    /// Longest line of an AUTH exchange in octets (RFC 4954 4): 500 5.5.6.
    pub auth_bytes: usize,
    /// Longest line of mail data in octets, CRLF included: 554 5.6.0 at its end.
    pub line_bytes: usize,
    /// Errors (5xx to commands) before 421 4.7.0.
    pub errors: usize,
    /// Refused logins before 421 4.7.0.
    pub auth_failures: usize,
    /// First delay after a refused login; doubles each time.
    pub auth_delay: Duration,
    /// Idle time for a command before login, counted to the end of its line.
    pub command_time_unauthenticated: Duration,
    /// Idle time for a command after login.
    pub command_time: Duration,
    /// Time for the whole of one message's data.
    pub data_time: Duration,
    /// Least average octets a second while data comes, judged after the first 30 s.
    pub data_rate: usize,
}

/// What the shell has to do next.
#[derive(Debug)]
pub enum Step {
    /// Wait for octets, until [`Session::deadline`].
    Read,
    /// Do nothing until [`Session::deadline`], then [`Session::expire`].
    Wait,
    /// Write these octets.
    Write(Bytes),
    /// Answer this. The session is deaf until [`Session::answer`].
    Ask(Question),
    /// Start TLS, then [`Session::secured`].
    Secure,
    /// End the connection.
    Close,
}

/// What the session cannot decide by itself.
#[derive(Debug)]
pub enum Question {
    /// May this client speak for somebody? Answer with [`Answer::Login`].
    Authenticate {
        /// The username as sent; not yet checked in any way but its length.
        username: String,
        /// The password as sent.
        secret: Secret,
        /// `PLAIN` or `LOGIN`, for the log.
        mechanism: &'static str,
    },
    /// May `login` send from this reverse-path now? Answer with [`Answer::Path`].
    Sender {
        /// Whose session this is.
        login: Arc<Login>,
        /// MAIL FROM.
        reverse_path: ReversePath,
    },
    /// May this transaction go to this forward-path? Answer with [`Answer::Path`].
    Recipient {
        /// Whose session this is.
        login: Arc<Login>,
        /// RCPT TO.
        forward_path: Mailbox,
    },
    /// Take this message. Answer with [`Answer::Accept`].
    Accept {
        /// Whose session this is.
        login: Arc<Login>,
        /// Where it goes; one recipient at least.
        envelope: Envelope,
        /// The mail data, dots unstuffed, as the client meant it; every line ends with CRLF.
        data: Bytes,
        /// What the client called itself in EHLO or HELO, for the trace field.
        helo: String,
    },
}

/// The answer to a [`Question`]. An answer of the wrong kind is a fault of ours: 421 4.3.0, closed.
#[derive(Debug)]
pub enum Answer {
    /// To `Authenticate`.
    Login(Result<Arc<Login>, Refusal>),
    /// To `Sender` and `Recipient`.
    Path(Result<(), Refusal>),
    /// To `Accept`: only a receipt makes a 250.
    Accept(Result<Receipt, Refusal>),
}

/// Why a session ended, for the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client closed or the network broke, outside of a message's data.
    Lost,
    /// The same in the middle of a message's data.
    LostInData,
    /// A time-out of ours.
    TimedOut,
    /// Too many errors, messages or refused logins.
    Expelled,
    /// Octets behind STARTTLS, bare line ends: the client is out of step or hostile.
    OutOfStep,
    /// We are draining, or a fault of ours.
    Ours,
}

/// One conversation.
#[derive(Debug)]
pub struct Session {
    // H1: yours to design
}

impl Session {
    /// A new conversation, which begins with the greeting. `secure` when TLS is already up
    /// (implicit TLS).
    pub fn new(_terms: Arc<Terms>, _secure: bool, _now: Instant) -> Self {
        todo!()
    }
    /// A conversation that is refused at the greeting (admission): writes `refusal`, closes.
    pub fn refused(_refusal: Refusal) -> Self {
        todo!()
    }
    /// Octets from the client.
    pub fn receive(&mut self, _octets: &[u8], _now: Instant) {
        todo!()
    }
    /// What to do next.
    pub fn step(&mut self, _now: Instant) -> Step {
        todo!()
    }
    /// The answer to the open question.
    pub fn answer(&mut self, _answer: Answer, _now: Instant) {
        todo!()
    }
    /// TLS is up: everything before is forgotten.
    pub fn secured(&mut self, _now: Instant) {
        todo!()
    }
    /// When [`Self::expire`] must be called; `None` while a question is open or the shell is to write.
    pub fn deadline(&self) -> Option<Instant> {
        todo!()
    }
    /// The deadline has passed.
    pub fn expire(&mut self, _now: Instant) {
        todo!()
    }
    /// We are shutting down: 421 4.3.2 as soon as no transaction is under way.
    pub fn drain(&mut self) {
        todo!()
    }
    /// The client is gone (end of file or a broken connection).
    pub fn lost(&mut self) {
        todo!()
    }
    /// Memory is short: the message that is coming in is read to its end, kept nothing of, and
    /// answered 452 4.3.1. Nothing happens outside of a message's data.
    pub fn starve(&mut self) {
        todo!()
    }
    /// Octets of mail data held now.
    pub fn held_bytes(&self) -> usize {
        todo!()
    }
    /// Whose session this is, once authenticated.
    pub fn login(&self) -> Option<&Arc<Login>> {
        todo!()
    }
    /// Why it ended; `None` while it goes on.
    pub fn ending(&self) -> Option<Ending> {
        todo!()
    }
    /// Replies since the last call, for the metrics: code and verb. Bounded by what one write holds.
    pub fn take_replies(&mut self) -> Vec<Reply> {
        todo!()
    }
}
