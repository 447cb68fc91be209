//! The only values that can become a 250 after DATA.
//!
//! Promises: a [`Receipt`] is made from a [`Taken`] or a [`Durable`] and nothing else; a [`Taken`]
//! only where SES's answer is read (`adapters/ses`), a [`Durable`] only where body file and row are
//! on the disk (`outbox`); `tests/floors.rs` holds the sources to that. So no path through the relay
//! can acknowledge a message that nobody has.

use super::id::MessageId;

/// Proof that SES accepted one SendEmail call: it holds SES's message id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken(String);

impl Taken {
    /// SES answered 200 with this `MessageId`. Called where that answer is read, nowhere else.
    pub fn by_ses(message_id: String) -> Self {
        Self(message_id)
    }

    /// SES's message id.
    pub fn ses_id(&self) -> &str {
        &self.0
    }
}

/// Proof that a message is durable in our outbox: it holds the message's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable(MessageId);

impl Durable {
    /// Body and row of this message are on the disk. Called where the commit of the row has returned,
    /// nowhere else.
    pub fn in_outbox(id: MessageId) -> Self {
        Self(id)
    }

    /// The message's id, ours.
    pub fn id(&self) -> MessageId {
        self.0
    }
}

/// Why the client may be told 250.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt(Kind);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    /// One call carried the whole message.
    One(Taken),
    /// Several calls, under our id.
    Several { id: MessageId, recipients: usize },
    /// The outbox has it.
    Held(Durable),
}

impl Receipt {
    /// The whole message went in one call.
    pub fn one(taken: Taken) -> Self {
        Self(Kind::One(taken))
    }

    /// Several calls were made; `taken` are those SES accepted, `recipients` how many they hold.
    /// `None` when SES took none.
    pub fn several(id: MessageId, taken: &[Taken], recipients: usize) -> Option<Self> {
        (!taken.is_empty()).then_some(Self(Kind::Several { id, recipients }))
    }

    /// The outbox has it, for all whom SES has neither taken nor refused.
    pub fn held(durable: Durable) -> Self {
        Self(Kind::Held(durable))
    }

    /// Whether the outbox has it, rather than SES.
    pub fn is_held(&self) -> bool {
        matches!(self.0, Kind::Held(_))
    }

    /// The text after `250 2.0.0`.
    pub fn words(&self) -> String {
        match &self.0 {
            Kind::One(taken) => format!("Ok {}", taken.ses_id()),
            Kind::Several { id, recipients } => format!("Ok {id} {recipients} recipients"),
            Kind::Held(durable) => format!("queued as {}", durable.id()),
        }
    }
}
