//! Why commands are not carried out, each with what to do next.
//!
//! They travel over the control socket as values, so that who asks may tell them apart, and are put
//! in words where they are shown.

use serde::{Deserialize, Serialize};

use crate::outbox::OutboxError;
use crate::outbox::recover::RecoverError;
use crate::store::{CommitError, ReadError};

/// Why a command was not carried out. Nothing was changed, unless the words say so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum CommandError {
    /// There is no such tenant.
    #[error("no tenant {tenant}{}; `bulkhead tenant list` shows all", did_you_mean(near.as_ref()))]
    NoTenant {
        /// What was asked for.
        tenant: String,
        /// What is there and looks like it.
        near: Option<String>,
    },
    /// The tenant has no such stream.
    #[error(
        "tenant {tenant} has no stream {stream}{}; `bulkhead tenant show {tenant}` shows them",
        did_you_mean(near.as_ref())
    )]
    NoStream {
        /// Whose.
        tenant: String,
        /// What was asked for.
        stream: String,
        /// What is there and looks like it.
        near: Option<String>,
    },
    /// There is no such credential.
    #[error("no credential {username}{}; `bulkhead credential list` shows all", did_you_mean(near.as_ref()))]
    NoCredential {
        /// What was asked for.
        username: String,
        /// What is there and looks like it.
        near: Option<String>,
    },
    /// Somebody has the username.
    #[error(
        "the username {username} is tenant {tenant}'s already; choose another, or `bulkhead credential rotate {username}` for a new secret"
    )]
    UsernameTaken {
        /// Which.
        username: String,
        /// Whose.
        tenant: String,
    },
    /// The address is not on the list.
    #[error("{address} is not on the suppression list of {tenant}")]
    NotSuppressed {
        /// Which.
        address: String,
        /// Whose.
        tenant: String,
    },
    /// Somebody complained.
    #[error(
        "{address} is on the list for a complaint: its owner called this mail spam; give --force if they asked for it back"
    )]
    ComplaintNeedsForce {
        /// Which.
        address: String,
    },
    /// It is not paused.
    #[error("{what} is not paused")]
    NotPaused {
        /// Tenant, or tenant and stream.
        what: String,
    },
    /// It is not on hold.
    #[error("credential {username} is not on hold")]
    CredentialNotHeld {
        /// Which.
        username: String,
    },
    /// A limit that cannot be.
    #[error("{limit} = {value}: a rate is from 0 to 1, so 5 % is 0.05, and a warning comes before its pause")]
    BadLimit {
        /// Which.
        limit: String,
        /// What was given.
        value: String,
    },
    /// An end that is past.
    #[error("{what} would end at {at}, which is past")]
    InThePast {
        /// What.
        what: String,
        /// When.
        at: String,
    },
    /// The file claims what somebody else has.
    #[error("the file cannot be applied: {}", conflicts.join("; "))]
    Conflicts {
        /// Each conflict in words.
        conflicts: Vec<String>,
    },
    /// More in one request than is taken.
    #[error("{given} {what} in one request; at most {most} are taken")]
    TooMany {
        /// Of what.
        what: String,
        /// How many there were.
        given: usize,
        /// How many are taken.
        most: usize,
    },
    /// This relay holds no messages.
    #[error("there is no outbox here: this relay was started without one")]
    NoOutbox,
    /// No such message is held.
    #[error(
        "no message {message} is held: it has been sent, has expired or was discarded; the log's lines of this message say which"
    )]
    NotHeld {
        /// Which.
        message: String,
    },
    /// It is being sent.
    #[error("message {message} is being sent at this moment; try again in a moment{}", nothing_done(*many))]
    BeingSent {
        /// Which.
        message: String,
        /// Whether it was one of several, with none of which anything was done.
        many: bool,
    },
    /// No message was selected.
    #[error("say which messages: their ids, --tenant with or without --stream, or --all")]
    NothingSelected,
    /// The outbox's files cannot be read.
    #[error("the outbox's files: {words}; see that the disk works and that the outbox folder can be read")]
    OutboxFiles {
        /// Why.
        words: String,
    },
    /// The place to go on from is none.
    #[error("the place to go on from is none that a check gave; begin anew")]
    NoPlace,
    /// Somebody else changed the same thing at the same time.
    #[error("{key} was changed by somebody else at the same time; look again and give the command again")]
    Conflict {
        /// Which record.
        key: String,
    },
    /// The store has stopped.
    #[error("the store has stopped: {words}; restart the relay")]
    StoreUnavailable {
        /// Its words.
        words: String,
    },
    /// A record cannot be read.
    #[error("{words}; restore a backup, or take the record's tenant out and apply it anew")]
    Damaged {
        /// Which and how.
        words: String,
    },
    /// A record would be too large.
    #[error("{words}; the record is too large, shorten its lists")]
    TooLarge {
        /// Which.
        words: String,
    },
    /// It was committed, but the relay still goes by the old state.
    #[error("the change is stored but not yet in force ({words}); restart the relay")]
    NotInForce {
        /// Why.
        words: String,
    },
    /// The line on the socket was no request of ours.
    #[error("the request cannot be read ({words}); use the `bulkhead` that the relay runs")]
    Unreadable {
        /// Why.
        words: String,
    },
    /// A fault of ours.
    #[error("a fault in Bulkhead ended the command; the log has more; look whether it was carried out")]
    Fault,
}

impl From<CommitError> for CommandError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(key) => Self::Conflict { key: key.to_string() },
            CommitError::Unavailable(words) => Self::StoreUnavailable { words },
            error @ (CommitError::TooLong(_) | CommitError::TooMany) => Self::TooLarge { words: error.to_string() },
            CommitError::KeyTwice(_) => Self::Fault,
        }
    }
}

impl From<ReadError> for CommandError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(words) => Self::StoreUnavailable { words },
            error @ ReadError::Corrupt(..) => Self::Damaged { words: error.to_string() },
        }
    }
}

fn nothing_done(many: bool) -> &'static str {
    if many { "; nothing was done with the others either" } else { "" }
}

impl From<OutboxError> for CommandError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::NotHeld(id) => Self::NotHeld { message: id.to_string() },
            OutboxError::Active(id) => Self::BeingSent { message: id.to_string(), many: false },
            OutboxError::Read(error) => error.into(),
            OutboxError::Commit(error) => error.into(),
            OutboxError::Spool(error) => Self::OutboxFiles { words: error.to_string() },
        }
    }
}

impl From<RecoverError> for CommandError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Read(error) => error.into(),
            RecoverError::Commit(error) => error.into(),
            RecoverError::Spool(error) => Self::OutboxFiles { words: error.to_string() },
        }
    }
}

fn did_you_mean(near: Option<&String>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"))
}
