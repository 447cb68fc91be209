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
//!
//! Large messages leave while they come in. After each `receive` the shell does this:
//!
//! ```text
//! if spilled_bytes() == 0 { throw away what was spilled before, and not yet asked about }
//! if let Some(octets) = spill() { write them behind those of before; or spill_failed() }
//! ```
//!
//! [`Question::Accept`] then has the head and the rest, and the shell what is between them. What a
//! message had spilled is void when it is given up (a fault, RSET, EHLO, the end of the session):
//! nobody says so but [`Session::spilled_bytes`], which is asked before [`Session::spill`] so that
//! octets of two messages never come together.
//! Refuses: see `tests/dialogue`, one promise a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::data::{Fault, MailOctets};
use super::line::{Line, LineBounds, Lines};
use super::phase::{Listening, Phase};
use super::reply::{self, Refusal, Reply};
use super::sasl::Unfit;
use crate::mail::{Envelope, Login, Mailbox, Receipt, ReversePath};
use crate::secret::Secret;

/// Most replies that are collected for one write.
const REPLIES_COLLECTED: usize = 64;

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
    /// Octets at the beginning of a message that always stay in memory: its header section has to
    /// lie within them.
    pub head_bytes: usize,
    /// A message that holds more than this in memory offers what is behind its head to the shell
    /// ([`Session::spill`]); more than `head_bytes`, or each read is offered by itself. `usize::MAX`:
    /// never.
    pub spill_bytes: usize,
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
    /// Errors of conduct (syntax, order, unknown commands): the one that makes this many is answered
    /// 421 4.7.0. Refusals that somebody decided on do not count; a message that was taken clears them.
    pub errors: usize,
    /// Commands before a login; the next is answered 421 4.7.0. An honest client needs five.
    pub commands_before_login: usize,
    /// Refused logins: the one that makes this many is answered 421 4.7.0, after its delay.
    pub auth_failures: usize,
    /// First delay after a refused login; doubles each time.
    pub auth_delay: Duration,
    /// The delay grows no further than this.
    pub auth_delay_longest: Duration,
    /// Idle time for a command before login, counted to the end of its line.
    pub command_time_unauthenticated: Duration,
    /// Idle time for a command after login.
    pub command_time: Duration,
    /// Time for the whole of one message's data.
    pub data_time: Duration,
    /// Least average octets a second while data comes, judged after `data_grace`.
    pub data_rate: usize,
    /// How long data may come as slowly as it likes before its rate is judged.
    pub data_grace: Duration,
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
        data: MailOctets,
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
    pub(super) terms: Arc<Terms>,
    pub(super) phase: Phase,
    lines: Lines,
    /// Replies for the next write.
    collected: Vec<Reply>,
    /// Replies of the last write.
    written: Vec<Reply>,
    /// Messages that were refused for their octets, for the log.
    pub(super) unkept: Vec<Unkept>,
    /// Logins that were refused without a question, for the log.
    pub(super) spurned: Vec<Spurned>,
    /// The question that the shell has not been given yet.
    pub(super) question: Option<Box<Question>>,
    /// The last login, for [`Self::login`] alone: what may be done is the phase's to know.
    pub(super) told_login: Option<Arc<Login>>,
    /// When the wait for the next command began.
    since: Option<Instant>,
    /// When octets last came in.
    heard: Option<Instant>,
    pub(super) tally: Tally,
    /// TLS is up.
    pub(super) secure: bool,
    draining: bool,
    /// A write was handed out: the client's time begins when it is done.
    writing: bool,
}

/// Most messages of [`Session::take_unkept`].
pub const UNKEPT: usize = 64;

/// A message that came to its end and was refused for its octets alone: nobody was asked, and
/// nothing of it was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unkept {
    /// Who sent it.
    pub login: Arc<Login>,
    /// Where it would have gone.
    pub envelope: Envelope,
    /// What the client hears.
    pub reply: Reply,
}

/// A login that could only be wrong: nobody was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spurned {
    /// As sent, cut to [`USERNAME_BYTES`](super::sasl::USERNAME_BYTES).
    pub username: String,
    /// Why.
    pub why: Unfit,
}

/// What is counted over a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) errors: usize,
    pub(super) auth_failures: usize,
    pub(super) messages: usize,
    pub(super) commands_before_login: usize,
}

impl Session {
    /// A new conversation, which begins with the greeting. `secure` when TLS is already up
    /// (implicit TLS).
    pub fn new(terms: Arc<Terms>, secure: bool, now: Instant) -> Self {
        let greeting = reply::greeting(&terms.hostname);
        Self::starting(terms, Phase::Listening(Listening::Unnamed), greeting, secure, Some(now))
    }

    /// Says in the greeting, which must not have been written yet, what a client's operator may want
    /// to know.
    pub fn note_in_greeting(&mut self, note: &str) {
        if let (Some(greeting), Phase::Listening(Listening::Unnamed)) = (self.collected.first_mut(), &self.phase) {
            *greeting = reply::greeting_with(&self.terms.hostname, note);
        }
    }

    /// A conversation that is refused at the greeting (admission): writes `refusal`, closes.
    pub fn refused(refusal: Refusal) -> Self {
        Self::starting(Arc::new(Terms::none()), Phase::Over(Ending::Ours), refusal.into_reply(), false, None)
    }

    fn starting(terms: Arc<Terms>, phase: Phase, first: Reply, secure: bool, now: Option<Instant>) -> Self {
        Self {
            terms,
            phase,
            lines: Lines::default(),
            collected: vec![first],
            written: Vec::new(),
            unkept: Vec::new(),
            spurned: Vec::new(),
            question: None,
            told_login: None,
            since: now,
            heard: now,
            tally: Tally::default(),
            secure,
            draining: false,
            writing: false,
        }
    }

    /// Octets from the client.
    pub fn receive(&mut self, octets: &[u8], now: Instant) {
        self.heard = Some(now);
        match self.phase {
            Phase::Over(_) => {}
            // Nothing but TLS may follow STARTTLS, and TLS does not come this way.
            Phase::Securing => self.phase = Phase::Over(Ending::OutOfStep),
            Phase::Data(_) | Phase::Chunk(_) | Phase::Swallowing(_) if self.lines.unread().is_empty() => {
                let taken = self.take_data(octets);
                // A session that ended meanwhile reads nothing more.
                if !matches!(self.phase, Phase::Over(_)) {
                    self.lines.push(octets.get(taken..).unwrap_or_default());
                }
            }
            Phase::Data(_)
            | Phase::Chunk(_)
            | Phase::Swallowing(_)
            | Phase::Listening(_)
            | Phase::Challenged(_)
            | Phase::Asking(_)
            | Phase::Penalised(_) => self.lines.push(octets),
        }
    }

    /// What to do next.
    pub fn step(&mut self, now: Instant) -> Step {
        while self.collected.len() < REPLIES_COLLECTED && self.advance(now) {}
        if !self.collected.is_empty() {
            return self.write();
        }
        if std::mem::take(&mut self.writing) {
            self.since = Some(now);
        }
        if let Some(question) = self.question.take() {
            return Step::Ask(*question);
        }
        match self.phase {
            Phase::Over(_) => Step::Close,
            Phase::Securing => Step::Secure,
            // A question that the shell holds open has no deadline; there is nothing to do.
            Phase::Penalised(_) | Phase::Asking(_) => Step::Wait,
            Phase::Listening(_) | Phase::Challenged(_) | Phase::Data(_) | Phase::Chunk(_) | Phase::Swallowing(_) => {
                Step::Read
            }
        }
    }

    /// The answer to the open question.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        self.since = Some(now);
        self.question = None;
        self.phase = match self.leave() {
            Phase::Asking(asking) => self.answered(*asking, answer),
            Phase::Over(ending) => Phase::Over(ending),
            Phase::Listening(_)
            | Phase::Challenged(_)
            | Phase::Penalised(_)
            | Phase::Data(_)
            | Phase::Chunk(_)
            | Phase::Swallowing(_)
            | Phase::Securing => self.end(reply::our_fault(), Ending::Ours),
        };
    }

    /// TLS is up: everything before is forgotten.
    pub fn secured(&mut self, now: Instant) {
        if let Phase::Over(_) = self.phase {
            return;
        }
        self.secure = true;
        self.since = Some(now);
        self.lines = Lines::default();
        self.question = None;
        self.told_login = None;
        self.phase = Phase::Listening(Listening::Unnamed);
    }

    /// When [`Self::expire`] must be called; `None` while a question is open or the shell is to write.
    pub fn deadline(&self) -> Option<Instant> {
        if self.question.is_some() || !self.collected.is_empty() {
            return None;
        }
        self.phase.deadline(self.since?, &self.terms)
    }

    /// The deadline has passed. Before it has, nothing happens.
    pub fn expire(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.since = Some(now);
        self.phase = match self.leave() {
            Phase::Penalised(penalised) => self.penalty_is_over(*penalised),
            Phase::Over(ending) => Phase::Over(ending),
            Phase::Listening(_)
            | Phase::Challenged(_)
            | Phase::Asking(_)
            | Phase::Data(_)
            | Phase::Chunk(_)
            | Phase::Swallowing(_)
            | Phase::Securing => self.end(reply::timed_out(), Ending::TimedOut),
        };
    }

    /// We are shutting down: 421 4.3.2 as soon as no transaction is under way.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The client is gone (end of file or a broken connection).
    pub fn lost(&mut self) {
        let ending = match self.phase {
            Phase::Over(ending) => ending,
            _ if self.phase.is_in_data() => Ending::LostInData,
            _ => Ending::Lost,
        };
        self.phase = Phase::Over(ending);
        self.question = None;
        self.collected = Vec::new();
        self.lines = Lines::default();
    }

    /// Memory is short: the message that is coming in is read to its end, kept nothing of, and
    /// answered 452 4.3.1. Nothing happens outside of a message's data.
    pub fn starve(&mut self) {
        self.give_up(Fault::Starved);
    }

    /// Octets of the message that is coming in, to be kept outside of memory behind those that were
    /// given out before; asked for after [`Self::receive`]. `None` unless more than
    /// [`Terms::spill_bytes`] are held. From here on they are the shell's alone.
    pub fn spill(&mut self) -> Option<Bytes> {
        self.phase.mail_data()?.spill()
    }

    /// What [`Self::spill`] gave could not be kept: the message is read to its end, kept nothing of,
    /// and answered 452 4.3.1. Nothing happens outside of a message's data.
    pub fn spill_failed(&mut self) {
        self.give_up(Fault::NoRoom);
    }

    /// Octets that the shell has of the message that is coming in, or has come in and is not yet
    /// asked about. With none, whatever it was given before is of no more use.
    pub fn spilled_bytes(&self) -> u64 {
        match self.question.as_deref() {
            Some(Question::Accept { data, .. }) => data.spilled,
            Some(Question::Authenticate { .. } | Question::Sender { .. } | Question::Recipient { .. }) | None => {
                self.phase.spilled()
            }
        }
    }

    /// Octets of mail data held now, as allocated.
    pub fn held_bytes(&self) -> usize {
        self.phase.held()
    }

    /// Whose session this is, once authenticated; still known when the session is over.
    pub fn login(&self) -> Option<&Arc<Login>> {
        self.told_login.as_ref()
    }

    /// Why it ended; `None` while it goes on.
    pub fn ending(&self) -> Option<Ending> {
        match self.phase {
            Phase::Over(ending) => Some(ending),
            _ => None,
        }
    }

    /// The replies of the last [`Step::Write`], for the metrics; each is given once, and those that
    /// nobody took are gone with the next write.
    pub fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.written)
    }

    /// The messages that were refused for their octets since this was last asked, for the log; past
    /// [`UNKEPT`] of them the oldest are known and the others are not.
    pub fn take_unkept(&mut self) -> Vec<Unkept> {
        std::mem::take(&mut self.unkept)
    }

    /// The logins that the session refused by itself since this was last asked, for the log: no more
    /// than [`Terms::auth_failures`], which end the session.
    pub fn take_spurned(&mut self) -> Vec<Spurned> {
        std::mem::take(&mut self.spurned)
    }

    fn give_up(&mut self, fault: Fault) {
        if let Some(data) = self.phase.mail_data() {
            data.fail(fault);
        }
    }

    /// The phase, to be consumed; every caller puts the next one in its place.
    pub(super) fn leave(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Over(Ending::Ours))
    }

    /// Adds a reply to the next write.
    pub(super) fn say(&mut self, reply: Reply) {
        self.collected.push(reply);
    }

    /// The last reply; what the client still sent is not read.
    pub(super) fn end(&mut self, reply: Reply, ending: Ending) -> Phase {
        self.say(reply);
        self.lines = Lines::default();
        Phase::Over(ending)
    }

    /// When the line that is being answered had come in.
    pub(super) fn heard_at(&self, now: Instant) -> Instant {
        self.heard.unwrap_or(now)
    }

    /// Whether octets came in behind the command that is being answered.
    pub(super) fn has_more(&self) -> bool {
        !self.lines.unread().is_empty()
    }

    fn write(&mut self) -> Step {
        self.writing = true;
        self.written = std::mem::take(&mut self.collected);
        let text: String = self.written.iter().map(Reply::to_string).collect();
        Step::Write(Bytes::from(text))
    }

    /// One thing that can be done with what is here; false when there is none.
    fn advance(&mut self, now: Instant) -> bool {
        if self.draining && self.phase.is_idle() {
            self.phase = self.end(reply::draining(), Ending::Ours);
            return false;
        }
        match &self.phase {
            Phase::Over(_) | Phase::Securing | Phase::Asking(_) => false,
            Phase::Penalised(penalised) => {
                let is_over = now >= penalised.until;
                if is_over {
                    self.expire_penalty(now);
                }
                is_over
            }
            Phase::Data(_) | Phase::Chunk(_) | Phase::Swallowing(_) => {
                if !self.has_more() {
                    return false;
                }
                let lines = std::mem::take(&mut self.lines);
                let taken = self.take_data(lines.unread());
                if !matches!(self.phase, Phase::Over(_)) {
                    self.lines = lines;
                    self.lines.consume(taken);
                }
                true
            }
            Phase::Listening(_) | Phase::Challenged(_) => self.advance_line(now),
        }
    }

    fn advance_line(&mut self, now: Instant) -> bool {
        let bounds = LineBounds {
            command: self.terms.command_bytes,
            auth: self.terms.auth_bytes,
            exchange: matches!(self.phase, Phase::Challenged(_)),
        };
        let Some(line) = self.lines.next(bounds) else { return false };
        self.since = Some(now);
        self.phase = match (self.leave(), line) {
            (_, Line::BareCr) => self.end(reply::bare_cr(), Ending::OutOfStep),
            (_, Line::BareLf) => self.end(reply::bare_lf(), Ending::OutOfStep),
            (Phase::Challenged(challenged), line) => self.exchange_line(*challenged, line, now),
            (Phase::Listening(at), line) => {
                if !at.is_authenticated() {
                    self.tally.commands_before_login += 1;
                }
                match line {
                    _ if self.tally.commands_before_login > self.terms.commands_before_login => {
                        self.end(reply::too_many_commands(), Ending::Expelled)
                    }
                    Line::Whole(text) => self.command(at, &text, now),
                    Line::TooLong(bound) => self.complain(reply::line_too_long(bound), at),
                    Line::Nul | Line::BareCr | Line::BareLf => self.complain(reply::nul_in_line(), at),
                }
            }
            (other, _) => other,
        };
        true
    }

    fn expire_penalty(&mut self, now: Instant) {
        self.since = Some(now);
        self.phase = match self.leave() {
            Phase::Penalised(penalised) => self.penalty_is_over(*penalised),
            other => other,
        };
    }
}

impl Terms {
    /// The terms of a conversation that is over before it begins.
    fn none() -> Self {
        Self {
            hostname: String::new(),
            starttls: false,
            cleartext_auth: false,
            message_bytes: 0,
            head_bytes: 0,
            spill_bytes: usize::MAX,
            recipients: 0,
            messages: 0,
            command_bytes: 0,
            auth_bytes: 0,
            line_bytes: 0,
            errors: 0,
            commands_before_login: 0,
            auth_failures: 0,
            auth_delay: Duration::ZERO,
            auth_delay_longest: Duration::ZERO,
            command_time_unauthenticated: Duration::ZERO,
            command_time: Duration::ZERO,
            data_time: Duration::ZERO,
            data_rate: 0,
            data_grace: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Taken, TenantId, Username};

    const LOGIN: &[u8] = b"EHLO c.example\r\nAUTH PLAIN AGEAYg==\r\n";

    fn terms() -> Terms {
        Terms {
            hostname: "relay.example".into(),
            message_bytes: 1000,
            recipients: 10,
            messages: 10,
            command_bytes: 512,
            auth_bytes: 512,
            line_bytes: 1000,
            errors: 10,
            commands_before_login: 100,
            auth_failures: 3,
            auth_delay: Duration::from_secs(1),
            auth_delay_longest: Duration::from_secs(60),
            command_time_unauthenticated: Duration::from_secs(60),
            command_time: Duration::from_secs(300),
            data_time: Duration::from_secs(600),
            ..Terms::none()
        }
    }

    fn login() -> Answer {
        Answer::Login(Ok(Arc::new(Login {
            tenant: TenantId::parse("acme").unwrap(),
            credential: Username::parse("acme-app").unwrap(),
            stream: None,
            secret_fingerprint: 1,
        })))
    }

    /// A session and what it wrote; stops at the first step that is no write.
    struct Talk {
        session: Session,
        now: Instant,
        writes: Vec<String>,
    }

    impl Talk {
        fn new() -> Self {
            Self::under(Arc::new(terms()))
        }

        fn under(terms: Arc<Terms>) -> Self {
            let now = Instant::now();
            Self { session: Session::new(terms, true, now), now, writes: Vec::new() }
        }

        fn hear(&mut self, octets: &[u8]) -> Step {
            self.session.receive(octets, self.now);
            self.run()
        }

        fn run(&mut self) -> Step {
            loop {
                match self.session.step(self.now) {
                    Step::Write(octets) => self.writes.push(String::from_utf8(octets.to_vec()).unwrap()),
                    other => return other,
                }
            }
        }

        fn answer(&mut self, answer: Answer) -> Step {
            self.session.answer(answer, self.now);
            self.run()
        }

        fn last(&self) -> &str {
            self.writes.last().map_or("", String::as_str)
        }

        /// Logged in, with a sender.
        fn in_transaction() -> Self {
            Self::in_transaction_under(Arc::new(terms()))
        }

        fn in_transaction_under(terms: Arc<Terms>) -> Self {
            let mut talk = Self::under(terms);
            assert!(matches!(talk.hear(LOGIN), Step::Ask(Question::Authenticate { .. })));
            assert!(matches!(talk.answer(login()), Step::Read));
            assert!(matches!(talk.hear(b"MAIL FROM:<a@b.example>\r\n"), Step::Ask(Question::Sender { .. })));
            assert!(matches!(talk.answer(Answer::Path(Ok(()))), Step::Read));
            talk
        }
    }

    #[test]
    fn a_group_leaves_in_one_write_up_to_a_question() {
        let mut talk = Talk::new();
        assert!(matches!(talk.hear(b"EHLO c.example\r\nNOOP\r\nRSET\r\nHELP\r\n"), Step::Read));
        assert_eq!(talk.writes.len(), 1);
        assert!(matches!(talk.hear(b"NOOP\r\nAUTH PLAIN AGEAYg==\r\nNOOP\r\nNOOP\r\n"), Step::Ask(_)));
        assert_eq!((talk.writes.len(), talk.last()), (2, "250 2.0.0 Ok\r\n"));
        assert!(matches!(talk.answer(login()), Step::Read));
        assert_eq!(talk.writes.len(), 3);
        assert!(talk.last().starts_with("235 2.7.0 ") && talk.last().matches("250 2.0.0").count() == 2);
    }

    #[test]
    fn a_long_group_leaves_in_bounded_writes() {
        let mut talk = Talk::in_transaction();
        talk.writes.clear();
        talk.hear(&b"NOOP\r\n".repeat(1000));
        assert_eq!(talk.writes.concat(), "250 2.0.0 Ok\r\n".repeat(1000));
        assert!(talk.writes.iter().all(|write| write.lines().count() <= REPLIES_COLLECTED));
    }

    #[test]
    fn a_fault_of_ours_at_login_is_told_at_once_and_not_counted() {
        let mut talk = Talk::new();
        talk.hear(b"EHLO c.example\r\n");
        for _ in 0..5 {
            talk.hear(b"AUTH PLAIN AGEAYg==\r\n");
            let answer = Answer::Login(Err(reply::authentication_unavailable()));
            assert!(matches!(talk.answer(answer), Step::Read));
            assert!(talk.last().starts_with("454 4.7.0 "));
        }
        assert_eq!(talk.session.tally.auth_failures, 0);
    }

    #[test]
    fn a_slow_refusal_is_no_later_than_a_quick_one() {
        let mut talk = Talk::new();
        let begun = talk.now;
        talk.hear(LOGIN);
        talk.now += Duration::from_millis(700);
        assert!(matches!(talk.answer(Answer::Login(Err(reply::credentials_invalid()))), Step::Wait));
        assert_eq!(talk.session.deadline(), Some(begun + Duration::from_secs(1)));
        talk.session.expire(talk.now);
        assert!(matches!(talk.run(), Step::Wait), "told before its time");
        talk.now += Duration::from_millis(300);
        talk.session.expire(talk.now);
        assert!(matches!(talk.run(), Step::Read));
        assert!(talk.last().starts_with("535 5.7.8 "));
        talk.hear(b"AUTH PLAIN AGEAYg==\r\n");
        talk.now += Duration::from_secs(9);
        assert!(
            matches!(talk.answer(Answer::Login(Err(reply::credentials_invalid()))), Step::Read),
            "its time is over"
        );
        assert!(talk.last().starts_with("535 5.7.8 "));
    }

    #[test]
    fn recipients_refused_for_now_make_data_try_again() {
        let mut talk = Talk::in_transaction();
        for refusal in [Refusal::temporary(451, (7, 1), "paused"), Refusal::permanent(550, (1, 1), "suppressed")] {
            talk.hear(b"RCPT TO:<a@b.example>\r\n");
            talk.answer(Answer::Path(Err(refusal)));
        }
        assert!(matches!(talk.hear(b"DATA\r\n"), Step::Read));
        assert!(talk.last().starts_with("451 4.5.1 "), "{}", talk.last());
    }

    #[test]
    fn a_client_that_never_logs_in_is_heard_for_so_many_commands() {
        let mut talk = Talk::new();
        for n in 0..terms().commands_before_login {
            assert!(matches!(talk.hear(b"NOOP\r\n"), Step::Read), "{n}");
        }
        assert!(talk.last().starts_with("250 2.0.0 "));
        assert!(matches!(talk.hear(b"NOOP\r\n"), Step::Close));
        assert_eq!(talk.last(), "421 4.7.0 Too many commands without a login\r\n");
        assert_eq!(talk.session.ending(), Some(Ending::Expelled));
    }

    #[test]
    fn only_a_receipt_makes_a_250() {
        let mut talk = Talk::in_transaction();
        talk.hear(b"RCPT TO:<a@b.example>\r\n");
        talk.answer(Answer::Path(Ok(())));
        assert!(matches!(talk.hear(b"DATA\r\na\r\n.\r\n"), Step::Ask(Question::Accept { .. })));
        assert!(talk.session.deadline().is_none());
        talk.answer(Answer::Accept(Err(Refusal::temporary(451, (3, 0), "held nowhere"))));
        assert_eq!(talk.last(), "451 4.3.0 held nowhere\r\n");
        talk.hear(b"MAIL FROM:<a@b.example>\r\n");
        talk.answer(Answer::Path(Ok(())));
        talk.hear(b"RCPT TO:<a@b.example>\r\n");
        talk.answer(Answer::Path(Ok(())));
        talk.hear(b"DATA\r\na\r\n.\r\n");
        talk.answer(Answer::Accept(Ok(Receipt::one(Taken::by_ses("0100-x".into())))));
        assert_eq!(talk.last(), "250 2.0.0 Ok 0100-x\r\n");
    }

    #[test]
    fn what_was_spilled_is_void_when_its_message_is_given_up() {
        let terms = Arc::new(Terms { head_bytes: 4, spill_bytes: 8, ..terms() });
        let mut talk = Talk::in_transaction_under(terms);
        talk.hear(b"RCPT TO:<a@b.example>\r\n");
        talk.answer(Answer::Path(Ok(())));
        for given_up in [&b"RSET\r\n"[..], b"BDAT 1\r\n\0", b"EHLO c.example\r\n"] {
            talk.hear(b"BDAT 10\r\n12345678\r\n");
            assert_eq!((talk.session.spill().unwrap(), talk.session.spilled_bytes()), ("5678\r\n".into(), 6));
            assert!(talk.session.spill().is_none() && talk.session.held_bytes() == 4);
            talk.hear(given_up);
            assert_eq!((talk.session.spilled_bytes(), talk.session.held_bytes()), (0, 0));
            talk.hear(b"RSET\r\n");
            talk.hear(b"MAIL FROM:<a@b.example>\r\n");
            talk.answer(Answer::Path(Ok(())));
            talk.hear(b"RCPT TO:<a@b.example>\r\n");
            talk.answer(Answer::Path(Ok(())));
        }
        talk.hear(b"BDAT 10\r\n12345678\r\n");
        assert_eq!(talk.session.spill().unwrap(), "5678\r\n");
        talk.hear(b"BDAT 3 LAST\r\n");
        talk.session.receive(b"9\r\n", talk.now);
        assert_eq!(talk.session.spilled_bytes(), 6, "until the question is asked");
        let Step::Ask(Question::Accept { data, .. }) = talk.run() else { panic!("not asked") };
        assert_eq!((data.head, data.spilled, data.rest), ("1234".into(), 6, "9\r\n".into()));
        assert_eq!((talk.session.spilled_bytes(), talk.session.held_bytes()), (0, 0));
    }

    #[test]
    fn a_refusal_that_closes_ends_the_session() {
        for (refusal, ending) in [
            (Refusal::temporary(421, (3, 2), "too many"), Ending::Ours),
            (Refusal::permanent(550, (7, 1), "revoked"), Ending::Expelled),
        ] {
            let mut talk = Talk::in_transaction();
            talk.hear(b"RCPT TO:<a@b.example>\r\nNOOP\r\n");
            let wire = refusal.reply().to_string();
            assert!(matches!(talk.answer(Answer::Path(Err(refusal.and_close()))), Step::Close));
            assert_eq!((talk.last(), talk.session.ending()), (wire.as_str(), Some(ending)));
        }
    }

    #[test]
    fn an_answer_of_the_wrong_kind_is_a_fault_of_ours() {
        let mut talk = Talk::new();
        talk.hear(LOGIN);
        assert!(matches!(talk.answer(Answer::Path(Ok(()))), Step::Close));
        assert!(talk.last().starts_with("421 4.3.0 "));
        assert_eq!(talk.session.ending(), Some(Ending::Ours));
        let mut talk = Talk::new();
        assert!(matches!(talk.answer(login()), Step::Close), "an answer to no question");
        assert_eq!(talk.session.ending(), Some(Ending::Ours));
    }

    #[test]
    fn a_client_that_left_hears_no_answer() {
        let mut talk = Talk::in_transaction();
        talk.hear(b"RCPT TO:<a@b.example>\r\n");
        talk.session.lost();
        let writes = talk.writes.len();
        assert!(matches!(talk.answer(Answer::Path(Ok(()))), Step::Close));
        assert_eq!((talk.writes.len(), talk.session.ending()), (writes, Some(Ending::Lost)));
        assert!(talk.session.login().is_some(), "the journal may still ask whose session it was");
    }

    #[test]
    fn a_refused_conversation_says_so_and_closes() {
        let mut session = Session::refused(Refusal::temporary(421, (3, 2), "Too many connections").and_close());
        let now = Instant::now();
        assert!(matches!(session.step(now), Step::Write(octets) if octets == "421 4.3.2 Too many connections\r\n"));
        assert_eq!(session.take_replies().len(), 1);
        assert!(matches!(session.step(now), Step::Close));
        assert_eq!((session.ending(), session.deadline()), (Some(Ending::Ours), None));
    }

    #[test]
    fn commands_before_a_login_are_bounded() {
        let mut talk = Talk::new();
        assert!(matches!(talk.hear(&b"NOOP\r\n".repeat(terms().commands_before_login)), Step::Read));
        assert!(matches!(talk.hear(b"NOOP\r\n"), Step::Close));
        assert!(talk.last().starts_with("421 4.7.0 "));
    }

    #[test]
    fn time_for_a_command_begins_when_the_write_is_done() {
        let mut talk = Talk::new();
        talk.hear(b"NOOP\r\n");
        talk.session.receive(b"NOOP\r\n", talk.now);
        assert!(matches!(talk.session.step(talk.now), Step::Write(_)));
        let later = talk.now + Duration::from_secs(20);
        assert!(matches!(talk.session.step(later), Step::Read));
        assert_eq!(talk.session.deadline(), Some(later + Duration::from_secs(60)));
        talk.session.receive(b"N", later + Duration::from_secs(5));
        assert!(matches!(talk.session.step(later + Duration::from_secs(5)), Step::Read));
        assert_eq!(talk.session.deadline(), Some(later + Duration::from_secs(60)), "dribbling earns nothing");
    }

    #[test]
    fn octets_after_starttls_was_answered_are_an_injection_too() {
        let now = Instant::now();
        let mut session = Session::new(Arc::new(Terms { starttls: true, ..terms() }), false, now);
        session.receive(b"STARTTLS\r\n", now);
        assert!(matches!(session.step(now), Step::Write(_)));
        assert!(matches!(session.step(now), Step::Secure));
        session.receive(b"EHLO evil.example\r\n", now);
        assert!(matches!(session.step(now), Step::Close));
        assert_eq!(session.ending(), Some(Ending::OutOfStep));
    }

    #[test]
    fn an_idle_session_is_small_and_holds_nothing() {
        assert!(size_of::<Session>() <= 320, "{} octets", size_of::<Session>());
        let mut talk = Talk::in_transaction();
        talk.hear(b"RSET\r\n");
        talk.session.take_replies();
        assert_eq!(talk.session.collected.capacity() + talk.session.written.capacity(), 0);
        assert!(talk.session.lines.unread().is_empty());
    }

    #[test]
    fn nothing_of_a_conversation_shows_in_debug() {
        let mut talk = Talk::in_transaction();
        talk.hear(b"RCPT TO:<a@b.example>\r\n");
        talk.answer(Answer::Path(Ok(())));
        talk.hear(b"DATA\r\nhunter2 in the body\r\n");
        assert!(!format!("{:?}", talk.session).contains("hunter2"));
        let mut talk = Talk::new();
        talk.hear(b"EHLO c.example\r\nAUTH PLAIN hunter2");
        assert!(!format!("{:?}", talk.session).contains("hunter2"));
    }
}
