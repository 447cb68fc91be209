//! The only values that can become a 250 after DATA.
//!
//! Promises: a [`Receipt`] is made from a [`Taken`] and nothing else, and a [`Taken`] only where
//! SES's answer is read (`adapters/ses`); `tests/floors.rs` holds the sources to that. So no path
//! through the relay can acknowledge a message that nobody has.

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

/// Why the client may be told 250.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt(Kind);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    /// One call carried the whole message.
    One(Taken),
    /// Several calls, under our id.
    Several { id: MessageId, recipients: usize },
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

    /// The text after `250 2.0.0`.
    pub fn words(&self) -> String {
        match &self.0 {
            Kind::One(taken) => format!("Ok {}", taken.ses_id()),
            Kind::Several { id, recipients } => format!("Ok {id} {recipients} recipients"),
        }
    }
}
