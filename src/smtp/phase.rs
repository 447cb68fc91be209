//! The phases of a session, each with what is true in it and nothing else.
//!
//! Promises: a value that a phase has not earned is not there to be had. There is no [`Transaction`]
//! without a login, because it holds an [`Authenticated`]; there is no mail data without a
//! recipient, because only [`Transaction::envelope`] makes an [`Envelope`] here; a question is open
//! in [`Phase::Asking`] alone, and with it what its answer decides on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::Mail;
use super::data::MailData;
use super::reply::{Refusal, Reply};
use super::sasl::Exchange;
use super::session::{Ending, Terms};
use crate::mail::{Envelope, Login, Mailbox};

/// Where a session stands.
#[derive(Debug)]
pub enum Phase {
    /// Waits for a command.
    Listening(Listening),
    /// Waits for a line of an AUTH exchange.
    Challenged(Box<Challenged>),
    /// Waits for an answer; deaf.
    Asking(Box<Asking>),
    /// Holds back the refusal of a login; deaf.
    Penalised(Box<Penalised>),
    /// Mail data comes in behind DATA.
    Data(Box<Data>),
    /// Octets of a BDAT chunk come in.
    Chunk(Box<Chunk>),
    /// Octets of a BDAT chunk that was refused come in and are dropped.
    Swallowing(Box<Swallowing>),
    /// STARTTLS was answered; only TLS may follow.
    Securing,
    /// Nothing more is heard.
    Over(Ending),
}

/// What a command is heard in.
#[derive(Debug)]
pub enum Listening {
    /// No EHLO or HELO yet.
    Unnamed,
    /// A client with a name (what it calls itself).
    Named(String),
    /// A client that may send.
    Authenticated(Box<Authenticated>),
    /// A message whose sender was accepted.
    Transaction(Box<Transaction>),
    /// A message of which chunks have come in.
    Chunks(Box<Chunks>),
}

/// Who speaks.
#[derive(Debug)]
pub struct Authenticated {
    /// What the client calls itself.
    pub helo: String,
    /// Whom it speaks for.
    pub login: Arc<Login>,
}

/// An AUTH exchange.
#[derive(Debug)]
pub struct Challenged {
    /// What the client calls itself.
    pub helo: String,
    /// What its next line is.
    pub exchange: Exchange,
}

/// An open question, by what its answer decides on.
#[derive(Debug)]
pub enum Asking {
    /// [`super::Question::Authenticate`].
    Login {
        /// What the client calls itself.
        helo: String,
        /// When the attempt's last octet came in.
        heard: Instant,
    },
    /// [`super::Question::Sender`].
    Sender(Box<Authenticated>, Mail),
    /// [`super::Question::Recipient`].
    Recipient(Box<Transaction>, Mailbox),
    /// [`super::Question::Accept`].
    Message(Box<Authenticated>),
}

/// A refused login.
#[derive(Debug)]
pub struct Penalised {
    /// What the client calls itself.
    pub helo: String,
    /// When it hears of it.
    pub until: Instant,
    /// What it hears.
    pub refusal: Refusal,
}

/// MAIL was accepted.
#[derive(Debug)]
pub struct Transaction {
    /// Who sends.
    pub client: Box<Authenticated>,
    /// MAIL as it was given.
    pub mail: Mail,
    /// The recipients accepted so far, in order, each once.
    pub forward_paths: Vec<Mailbox>,
    /// What became of the recipients refused so far.
    pub refused: Refused,
}

/// Recipients that were refused in a transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refused {
    /// None was.
    None,
    /// Some were, for good.
    ForGood,
    /// Some were that may pass later.
    ForNow,
}

/// DATA was accepted.
#[derive(Debug)]
pub struct Data {
    /// Who sends.
    pub client: Box<Authenticated>,
    /// Where it goes.
    pub envelope: Envelope,
    /// What has come in.
    pub data: MailData,
    /// How fast.
    pub pace: Pace,
}

/// Between chunks of a message.
#[derive(Debug)]
pub struct Chunks {
    /// Who sends.
    pub client: Box<Authenticated>,
    /// Where it goes.
    pub envelope: Envelope,
    /// What has come in.
    pub data: MailData,
    /// When the first BDAT came.
    pub began: Instant,
}

/// Within a chunk.
#[derive(Debug)]
pub struct Chunk {
    /// The message so far.
    pub chunks: Box<Chunks>,
    /// Octets of the chunk.
    pub size: u64,
    /// Octets that are still to come.
    pub left: u64,
    /// Whether the message ends with it.
    pub last: bool,
    /// How fast the chunk comes.
    pub pace: Pace,
}

/// Within a chunk that nobody wants.
#[derive(Debug)]
pub struct Swallowing {
    /// Octets that are still to come.
    pub left: u64,
    /// What is said behind them.
    pub reply: Reply,
    /// Whether the reply counts as an error of the client's.
    pub counts: bool,
    /// Where the session goes on.
    pub back: Listening,
    /// How fast they come.
    pub pace: Pace,
}

/// How fast mail data comes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    began: Instant,
    octets: u64,
}

impl Phase {
    /// Whether nothing is lost if the session ends here.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Listening(listening) => match listening {
                Listening::Unnamed | Listening::Named(_) | Listening::Authenticated(_) => true,
                Listening::Transaction(_) | Listening::Chunks(_) => false,
            },
            Self::Challenged(_) => true,
            Self::Asking(_)
            | Self::Penalised(_)
            | Self::Data(_)
            | Self::Chunk(_)
            | Self::Swallowing(_)
            | Self::Securing
            | Self::Over(_) => false,
        }
    }

    /// Whether a message's data has begun and not ended.
    pub fn is_in_data(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Chunk(_) | Self::Listening(Listening::Chunks(_)))
    }

    /// The mail data that is held, if any is.
    pub fn mail_data(&mut self) -> Option<&mut MailData> {
        match self {
            Self::Data(data) => Some(&mut data.data),
            Self::Chunk(chunk) => Some(&mut chunk.chunks.data),
            Self::Listening(Listening::Chunks(chunks)) => Some(&mut chunks.data),
            Self::Listening(_)
            | Self::Challenged(_)
            | Self::Asking(_)
            | Self::Penalised(_)
            | Self::Swallowing(_)
            | Self::Securing
            | Self::Over(_) => None,
        }
    }

    /// Octets of mail data held.
    pub fn held(&self) -> usize {
        self.incoming().map_or(0, MailData::held)
    }

    /// Octets of the message that is coming in which the shell has.
    pub fn spilled(&self) -> u64 {
        self.incoming().map_or(0, MailData::spilled)
    }

    fn incoming(&self) -> Option<&MailData> {
        match self {
            Self::Data(data) => Some(&data.data),
            Self::Chunk(chunk) => Some(&chunk.chunks.data),
            Self::Listening(Listening::Chunks(chunks)) => Some(&chunks.data),
            Self::Listening(_)
            | Self::Challenged(_)
            | Self::Asking(_)
            | Self::Penalised(_)
            | Self::Swallowing(_)
            | Self::Securing
            | Self::Over(_) => None,
        }
    }

    /// When the client's time is up. `since` is when the session began to wait for a command.
    pub fn deadline(&self, since: Instant, terms: &Terms) -> Option<Instant> {
        let command = match self {
            Self::Listening(Listening::Unnamed | Listening::Named(_)) | Self::Challenged(_) => {
                since + terms.command_time_unauthenticated
            }
            Self::Listening(_) => since + terms.command_time,
            Self::Penalised(penalised) => return Some(penalised.until),
            Self::Data(data) => return Some(data.pace.deadline(data.pace.began, terms)),
            Self::Chunk(chunk) => return Some(chunk.pace.deadline(chunk.chunks.began, terms)),
            Self::Swallowing(swallowing) => return Some(swallowing.pace.deadline(swallowing.pace.began, terms)),
            Self::Asking(_) | Self::Securing | Self::Over(_) => return None,
        };
        match self {
            Self::Listening(Listening::Chunks(chunks)) => Some(command.min(chunks.began + terms.data_time)),
            _ => Some(command),
        }
    }
}

impl Listening {
    /// After RSET: no transaction, all else as it was.
    pub fn reset(self) -> Self {
        match self {
            Self::Unnamed | Self::Named(_) | Self::Authenticated(_) => self,
            Self::Transaction(transaction) => Self::Authenticated(transaction.client),
            Self::Chunks(chunks) => Self::Authenticated(chunks.client),
        }
    }

    /// After EHLO or HELO: no transaction, and a name.
    pub fn named(self, helo: String) -> Self {
        match self.reset() {
            Self::Authenticated(client) => Self::Authenticated(Box::new(Authenticated { helo, login: client.login })),
            Self::Unnamed | Self::Named(_) | Self::Transaction(_) | Self::Chunks(_) => Self::Named(helo),
        }
    }

    /// Whether the client has logged in.
    pub fn is_authenticated(&self) -> bool {
        match self {
            Self::Unnamed | Self::Named(_) => false,
            Self::Authenticated(_) | Self::Transaction(_) | Self::Chunks(_) => true,
        }
    }
}

impl Transaction {
    /// A transaction without recipients.
    pub fn new(client: Box<Authenticated>, mail: Mail) -> Self {
        Self { client, mail, forward_paths: Vec::new(), refused: Refused::None }
    }

    /// Who sends, to whom, and what size was declared; the transaction back if there is nobody to
    /// send to.
    pub fn envelope(self: Box<Self>) -> Result<(Box<Authenticated>, Envelope, Option<usize>), Box<Self>> {
        if self.forward_paths.is_empty() {
            return Err(self);
        }
        let Self { client, mail, forward_paths, refused: _ } = *self;
        let declared = mail.size.and_then(|size| usize::try_from(size).ok());
        let envelope = Envelope { reverse_path: mail.reverse_path, forward_paths, body: mail.body };
        Ok((client, envelope, declared))
    }
}

impl Pace {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, octets: 0 }
    }

    /// `octets` more have come.
    pub fn add(&mut self, octets: usize) {
        self.octets = self.octets.saturating_add(octets as u64);
    }

    /// When what has come is too little: the whole has `data_time` from `message_began`, and behind
    /// the grace the average may not fall under `data_rate`.
    fn deadline(&self, message_began: Instant, terms: &Terms) -> Instant {
        let whole = message_began + terms.data_time;
        match self.octets.checked_div(terms.data_rate as u64) {
            Some(paid) => whole.min(self.began + Duration::from_secs(paid).max(terms.data_grace).min(terms.data_time)),
            None => whole,
        }
    }
}
