//! What each command does, by where the session stands; and what each answer brings about.
//!
//! Promises: a function here takes the phase a command was heard in and gives the next one, so a
//! command that is refused leaves all as it was. Refused logins are told of after their delay,
//! counted from the attempt's last octet, so that a quick refusal looks like a slow one. A BDAT
//! chunk that is refused is still read to its end.
//! Refuses: whatever is out of order (503), before TLS or a login (530), or over a bound.

use std::sync::Arc;
use std::time::Instant;

use super::command::{self, Command, CommandError, Mail};
use super::data::{DataBounds, MailData};
use super::extension;
use super::line::Line;
use super::phase::{
    Asking, Authenticated, Challenged, Chunk, Chunks, Data, Listening, Pace, Penalised, Phase, Refused, Swallowing,
    Transaction,
};
use super::reply::{self, Refusal, Reply};
use super::sasl::{self, Exchange, Mechanism, Turn};
use super::session::{Answer, Ending, Question, Session, Spurned, Terms, UNKEPT, Unkept};
use crate::mail::{Envelope, Login, Mailbox};

const WANT_EHLO: &str = "Send EHLO first";
const WANT_MAIL: &str = "Send MAIL first";
const WANT_RCPT: &str = "Send RCPT first";
const WANT_CHUNK: &str = "The message began with BDAT and goes on with BDAT; RSET gives it up";

impl Session {
    // --- Commands ---------------------------------------------------------------------------

    /// A command line, without its CRLF.
    pub(super) fn command(&mut self, at: Listening, line: &[u8], now: Instant) -> Phase {
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(CommandError::ChunkSize) => {
                // Octets of unknown number follow: reading on would take mail data for commands.
                return self.end(reply::no_command(CommandError::ChunkSize), Ending::OutOfStep);
            }
            Err(error) => return self.not_a_command(at, error),
        };
        match command {
            Command::Ehlo(helo) => {
                let lines = extension::lines(&self.terms, self.secure);
                self.well(reply::extensions(lines), at.named(helo))
            }
            Command::Helo(helo) => self.well(reply::hello(&self.terms.hostname), at.named(helo)),
            Command::StartTls => self.starttls(at),
            Command::Auth(mechanism, initial) => self.auth(at, mechanism, initial, now),
            Command::Mail(mail) => self.mail(at, mail),
            Command::Rcpt(forward_path) => self.rcpt(at, forward_path),
            Command::Data => self.data(at, now),
            Command::Bdat { octets, last } => self.bdat(at, octets, last, now),
            Command::Rset => self.well(reply::ok(), at.reset()),
            Command::Noop => self.well(reply::ok(), at),
            Command::Vrfy => self.well(reply::not_verified(), at),
            Command::Expn => self.complain(reply::not_implemented("EXPN"), at),
            Command::Help => self.well(reply::help(), at),
            Command::Quit => self.end(reply::goodbye(&self.terms.hostname), Ending::Quit),
        }
    }

    /// A bad address of one recipient among many is not held against a client that has logged in.
    fn not_a_command(&mut self, at: Listening, error: CommandError) -> Phase {
        let is_address = match &error {
            CommandError::Path { .. }
            | CommandError::SourceRoute(_)
            | CommandError::NoDomain(_)
            | CommandError::NullRecipient => true,
            CommandError::Unknown
            | CommandError::NoArgumentAllowed(_)
            | CommandError::Syntax(_)
            | CommandError::ChunkSize
            | CommandError::ParameterTwice(_)
            | CommandError::ParameterValue(_)
            | CommandError::ParameterSyntax
            | CommandError::ParameterUnknown(_)
            | CommandError::SmtpUtf8
            | CommandError::MechanismUnknown => false,
        };
        let reply = reply::no_command(error);
        match at {
            Listening::Transaction(mut transaction) if is_address => {
                transaction.refused = transaction.refused.max(Refused::ForGood);
                self.well(reply, Listening::Transaction(transaction))
            }
            at if is_address && at.is_authenticated() => self.well(reply, at),
            at => self.complain(reply, at),
        }
    }

    fn starttls(&mut self, at: Listening) -> Phase {
        match at {
            at if self.secure => self.complain(reply::out_of_order("TLS is already up"), at),
            at if !extension::starttls_works(&self.terms, self.secure) => {
                self.complain(reply::not_implemented("STARTTLS"), at)
            }
            Listening::Transaction(_) | Listening::Chunks(_) => {
                self.complain(reply::out_of_order("Not within a transaction"), at)
            }
            Listening::Unnamed | Listening::Named(_) | Listening::Authenticated(_) => {
                if self.has_more() {
                    return self.end(reply::ready_for_tls(), Ending::OutOfStep);
                }
                self.say(reply::ready_for_tls());
                Phase::Securing
            }
        }
    }

    fn auth(&mut self, at: Listening, mechanism: Mechanism, initial: Option<&[u8]>, now: Instant) -> Phase {
        match at {
            Listening::Unnamed => self.complain(reply::out_of_order(WANT_EHLO), at),
            Listening::Named(_) if !extension::auth_works(&self.terms, self.secure) => {
                self.complain(reply::encryption_needed(self.terms.starttls), at)
            }
            Listening::Named(helo) => self.turn(helo, sasl::begin(mechanism, initial), now),
            Listening::Authenticated(_) => self.complain(reply::out_of_order("Already authenticated"), at),
            Listening::Transaction(_) | Listening::Chunks(_) => {
                self.complain(reply::out_of_order("Not within a transaction"), at)
            }
        }
    }

    /// A line of an AUTH exchange.
    pub(super) fn exchange_line(&mut self, challenged: Challenged, line: Line, now: Instant) -> Phase {
        let Challenged { helo, exchange } = challenged;
        match line {
            Line::Whole(response) => self.turn(helo, sasl::respond(exchange, &response), now),
            Line::TooLong(bound) => self.complain(reply::line_too_long(bound), Listening::Named(helo)),
            Line::Nul | Line::BareCr | Line::BareLf => self.complain(reply::nul_in_line(), Listening::Named(helo)),
        }
    }

    fn turn(&mut self, helo: String, turn: Turn, now: Instant) -> Phase {
        match turn {
            Turn::Challenge(exchange, challenge) => self.challenge(helo, exchange, challenge),
            Turn::Attempt { username, secret, mechanism } => {
                let heard = self.heard_at(now);
                self.ask(Question::Authenticate { username, secret, mechanism }, Asking::Login { helo, heard })
            }
            Turn::Refused { username, why } => {
                let heard = self.heard_at(now);
                self.spurned.push(Spurned { username, why });
                self.login_refused(helo, heard, reply::credentials_invalid())
            }
            Turn::Cancelled => self.complain(reply::exchange_cancelled(), Listening::Named(helo)),
            Turn::Malformed => self.complain(reply::exchange_malformed(), Listening::Named(helo)),
        }
    }

    fn challenge(&mut self, helo: String, exchange: Exchange, challenge: &'static str) -> Phase {
        self.say(reply::challenge(challenge));
        Phase::Challenged(Box::new(Challenged { helo, exchange }))
    }

    fn mail(&mut self, at: Listening, mail: Mail) -> Phase {
        match at {
            Listening::Unnamed => self.complain(reply::out_of_order(WANT_EHLO), at),
            Listening::Named(_) => self.complain(self.login_needed(), at),
            Listening::Transaction(_) | Listening::Chunks(_) => {
                self.complain(reply::out_of_order("A transaction is under way; RSET gives it up"), at)
            }
            Listening::Authenticated(_) if self.tally.messages >= self.terms.messages => {
                self.end(reply::too_many_messages(self.terms.messages), Ending::Expelled)
            }
            Listening::Authenticated(_) if mail.size.is_some_and(|size| size > self.terms.message_bytes as u64) => {
                self.well(reply::message_too_big(self.terms.message_bytes), at)
            }
            Listening::Authenticated(client) => {
                let question =
                    Question::Sender { login: client.login.clone(), reverse_path: mail.reverse_path.clone() };
                self.ask(question, Asking::Sender(client, mail))
            }
        }
    }

    fn rcpt(&mut self, at: Listening, forward_path: Mailbox) -> Phase {
        match at {
            Listening::Unnamed | Listening::Named(_) | Listening::Authenticated(_) => self.not_yet(at, WANT_MAIL),
            Listening::Chunks(_) => self.complain(reply::out_of_order(WANT_CHUNK), at),
            Listening::Transaction(transaction) if transaction.forward_paths.contains(&forward_path) => {
                self.well(reply::recipient_ok(), Listening::Transaction(transaction))
            }
            Listening::Transaction(mut transaction) if transaction.forward_paths.len() >= self.terms.recipients => {
                transaction.refused = Refused::ForNow;
                self.well(reply::too_many_recipients(self.terms.recipients), Listening::Transaction(transaction))
            }
            Listening::Transaction(transaction) => {
                let question =
                    Question::Recipient { login: transaction.client.login.clone(), forward_path: forward_path.clone() };
                self.ask(question, Asking::Recipient(transaction, forward_path))
            }
        }
    }

    fn data(&mut self, at: Listening, now: Instant) -> Phase {
        match at {
            Listening::Unnamed | Listening::Named(_) | Listening::Authenticated(_) => self.not_yet(at, WANT_MAIL),
            Listening::Chunks(_) => self.complain(reply::out_of_order(WANT_CHUNK), at),
            Listening::Transaction(transaction) => match transaction.envelope() {
                Err(transaction) => self.nobody(transaction),
                Ok((client, envelope, declared)) => {
                    self.say(reply::start_mail_data());
                    let data = self.empty_message(declared);
                    Phase::Data(Box::new(Data { client, envelope, data, pace: Pace::new(now) }))
                }
            },
        }
    }

    fn bdat(&mut self, at: Listening, size: u64, last: bool, now: Instant) -> Phase {
        let chunks = match at {
            Listening::Unnamed => return self.swallow(at, size, reply::out_of_order(WANT_EHLO), true, now),
            Listening::Named(_) => return self.swallow(at, size, self.login_needed(), true, now),
            Listening::Authenticated(_) => {
                return self.swallow(at, size, reply::out_of_order(WANT_MAIL), false, now);
            }
            Listening::Transaction(transaction) => match transaction.envelope() {
                Err(transaction) => {
                    let reply = nobody_to_send_to(transaction.refused);
                    return self.swallow(Listening::Transaction(transaction), size, reply, false, now);
                }
                Ok((client, envelope, declared)) => {
                    Box::new(Chunks { client, envelope, data: self.empty_message(declared), began: now })
                }
            },
            Listening::Chunks(chunks) => chunks,
        };
        let chunk = Chunk { chunks, size, left: size, last, pace: Pace::new(now) };
        if size == 0 { self.chunk_is_in(chunk) } else { Phase::Chunk(Box::new(chunk)) }
    }

    // --- Mail data --------------------------------------------------------------------------

    /// Takes what belongs to the mail data that is coming in; says how many octets that was.
    pub(super) fn take_data(&mut self, octets: &[u8]) -> usize {
        let (taken, next) = match self.leave() {
            Phase::Data(mut data) => {
                let (taken, ended) = data.data.take_dotted(octets);
                data.pace.add(taken);
                (taken, if ended { self.data_is_in(*data) } else { Phase::Data(data) })
            }
            Phase::Chunk(mut chunk) => {
                let part = first(octets, chunk.left);
                chunk.chunks.data.take_chunk(part);
                chunk.pace.add(part.len());
                chunk.left -= part.len() as u64;
                (part.len(), if chunk.left == 0 { self.chunk_is_in(*chunk) } else { Phase::Chunk(chunk) })
            }
            Phase::Swallowing(mut swallowing) => {
                let part = first(octets, swallowing.left);
                swallowing.pace.add(part.len());
                swallowing.left -= part.len() as u64;
                (
                    part.len(),
                    if swallowing.left == 0 { self.swallowed(*swallowing) } else { Phase::Swallowing(swallowing) },
                )
            }
            other => (0, other),
        };
        self.phase = next;
        taken
    }

    fn empty_message(&self, declared: Option<usize>) -> MailData {
        let Terms { message_bytes, line_bytes, head_bytes, spill_bytes, .. } = *self.terms;
        MailData::new(DataBounds { message_bytes, line_bytes, head_bytes, spill_bytes }, declared)
    }

    fn data_is_in(&mut self, data: Data) -> Phase {
        let Data { client, envelope, data, pace: _ } = data;
        self.message_is_in(client, envelope, data)
    }

    fn chunk_is_in(&mut self, chunk: Chunk) -> Phase {
        let Chunk { chunks, size, left: _, last, pace: _ } = chunk;
        if last {
            let Chunks { client, envelope, data, began: _ } = *chunks;
            return self.message_is_in(client, envelope, data);
        }
        // Every chunk of a message with a fault hears of it: a client that looks at the last reply
        // alone must not take "try again later" for "never".
        let reply = match chunks.data.fault() {
            Some(fault) => reply::faulty(fault, self.terms.message_bytes, self.terms.line_bytes),
            None => reply::chunk_taken(size),
        };
        self.well(reply, Listening::Chunks(chunks))
    }

    fn message_is_in(&mut self, client: Box<Authenticated>, envelope: Envelope, data: MailData) -> Phase {
        match data.finish() {
            Ok(data) => {
                let question =
                    Question::Accept { login: client.login.clone(), envelope, data, helo: client.helo.clone() };
                self.ask(question, Asking::Message(client))
            }
            Err(fault) => {
                let reply = reply::faulty(fault, self.terms.message_bytes, self.terms.line_bytes);
                if self.unkept.len() < UNKEPT {
                    self.unkept.push(Unkept { login: client.login.clone(), envelope, reply: reply.clone() });
                }
                self.well(reply, Listening::Authenticated(client))
            }
        }
    }

    /// A chunk that is refused is read to its end before it is answered (RFC 3030 2).
    fn swallow(&mut self, back: Listening, size: u64, reply: Reply, counts: bool, now: Instant) -> Phase {
        let swallowing = Swallowing { left: size, reply, counts, back, pace: Pace::new(now) };
        if size == 0 { self.swallowed(swallowing) } else { Phase::Swallowing(Box::new(swallowing)) }
    }

    fn swallowed(&mut self, swallowing: Swallowing) -> Phase {
        if swallowing.counts {
            self.complain(swallowing.reply, swallowing.back)
        } else {
            self.well(swallowing.reply, swallowing.back)
        }
    }

    // --- Answers ----------------------------------------------------------------------------

    /// The answer to the open question; one of another kind is a fault of ours.
    pub(super) fn answered(&mut self, asking: Asking, answer: Answer) -> Phase {
        match (asking, answer) {
            (Asking::Login { helo, heard: _ }, Answer::Login(Ok(login))) => self.logged_in(helo, login),
            (Asking::Login { helo, heard }, Answer::Login(Err(refusal))) => self.login_refused(helo, heard, refusal),
            (Asking::Sender(client, mail), Answer::Path(Ok(()))) => {
                self.tally.messages += 1;
                let transaction = Transaction::new(client, mail);
                self.well(reply::sender_ok(), Listening::Transaction(Box::new(transaction)))
            }
            (Asking::Sender(client, _), Answer::Path(Err(refusal))) => {
                self.refuse(refusal, Listening::Authenticated(client))
            }
            (Asking::Recipient(mut transaction, forward_path), Answer::Path(Ok(()))) => {
                transaction.forward_paths.push(forward_path);
                self.well(reply::recipient_ok(), Listening::Transaction(transaction))
            }
            (Asking::Recipient(mut transaction, _), Answer::Path(Err(refusal))) => {
                let kind = if refusal.is_temporary() { Refused::ForNow } else { Refused::ForGood };
                transaction.refused = transaction.refused.max(kind);
                self.refuse(refusal, Listening::Transaction(transaction))
            }
            (Asking::Message(client), Answer::Accept(Ok(receipt))) => {
                self.tally.errors = 0;
                self.well(reply::message_accepted(&receipt), Listening::Authenticated(client))
            }
            (Asking::Message(client), Answer::Accept(Err(refusal))) => {
                self.refuse(refusal, Listening::Authenticated(client))
            }
            (Asking::Login { .. }, Answer::Path(_) | Answer::Accept(_))
            | (Asking::Sender(..) | Asking::Recipient(..), Answer::Login(_) | Answer::Accept(_))
            | (Asking::Message(_), Answer::Login(_) | Answer::Path(_)) => self.end(reply::our_fault(), Ending::Ours),
        }
    }

    fn logged_in(&mut self, helo: String, login: Arc<Login>) -> Phase {
        self.told_login = Some(login.clone());
        self.well(reply::authenticated(), Listening::Authenticated(Box::new(Authenticated { helo, login })))
    }

    /// A refusal of ours (4xx) is told at once. One for good is counted and told after its delay.
    fn login_refused(&mut self, helo: String, heard: Instant, refusal: Refusal) -> Phase {
        if refusal.is_temporary() {
            return self.refuse(refusal, Listening::Named(helo));
        }
        let doublings = u32::try_from(self.tally.auth_failures).unwrap_or(u32::MAX);
        self.tally.auth_failures += 1;
        let delay = self.terms.auth_delay.saturating_mul(2_u32.saturating_pow(doublings));
        let delay = delay.min(self.terms.auth_delay_longest);
        let refusal =
            if self.tally.auth_failures >= self.terms.auth_failures { reply::too_many_logins() } else { refusal };
        Phase::Penalised(Box::new(Penalised { helo, until: heard + delay, refusal }))
    }

    /// The refused login is told of.
    pub(super) fn penalty_is_over(&mut self, penalised: Penalised) -> Phase {
        let Penalised { helo, until: _, refusal } = penalised;
        if refusal.closes() {
            return self.end(refusal.into_reply(), Ending::Expelled);
        }
        self.well(refusal.into_reply(), Listening::Named(helo))
    }

    // --- What all of them say ---------------------------------------------------------------

    fn ask(&mut self, question: Question, asking: Asking) -> Phase {
        self.question = Some(Box::new(question));
        Phase::Asking(Box::new(asking))
    }

    /// A reply that is no error of the client's conduct.
    fn well(&mut self, reply: Reply, next: Listening) -> Phase {
        self.say(reply);
        Phase::Listening(next)
    }

    /// An error of the client's conduct; one too many ends the session.
    pub(super) fn complain(&mut self, reply: Reply, next: Listening) -> Phase {
        self.tally.errors += 1;
        if self.tally.errors >= self.terms.errors {
            return self.end(reply::too_many_errors(), Ending::Expelled);
        }
        self.well(reply, next)
    }

    /// Somebody's decision. It is not held against the client: twenty suppressed recipients are no
    /// attack.
    fn refuse(&mut self, refusal: Refusal, next: Listening) -> Phase {
        if refusal.closes() {
            let ending = if refusal.is_temporary() { Ending::Ours } else { Ending::Expelled };
            return self.end(refusal.into_reply(), ending);
        }
        self.well(refusal.into_reply(), next)
    }

    /// RCPT or DATA without its transaction. Behind a refused MAIL a pipelining client sends one for
    /// each recipient, which is not held against it once it has logged in.
    fn not_yet(&mut self, at: Listening, wanted: &str) -> Phase {
        match at {
            Listening::Unnamed => self.complain(reply::out_of_order(WANT_EHLO), at),
            Listening::Named(_) => self.complain(self.login_needed(), at),
            Listening::Authenticated(_) | Listening::Transaction(_) | Listening::Chunks(_) => {
                self.well(reply::out_of_order(wanted), at)
            }
        }
    }

    fn nobody(&mut self, transaction: Box<Transaction>) -> Phase {
        let reply = nobody_to_send_to(transaction.refused);
        self.well(reply, Listening::Transaction(transaction))
    }

    fn login_needed(&self) -> Reply {
        if extension::auth_works(&self.terms, self.secure) {
            reply::authentication_needed()
        } else {
            reply::encryption_needed(self.terms.starttls)
        }
    }
}

fn nobody_to_send_to(refused: Refused) -> Reply {
    match refused {
        Refused::None => reply::out_of_order(WANT_RCPT),
        Refused::ForGood => reply::no_valid_recipients(),
        Refused::ForNow => reply::no_recipients_now(),
    }
}

/// The first `most` of `octets`, or all of them.
fn first(octets: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    octets.get(..most).unwrap_or(octets)
}
