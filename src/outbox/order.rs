//! What of a connection's mail must not overtake: its messages to one recipient go in the order in
//! which they came.
//!
//! A message of one recipient waits for those before it of its connection and recipient; one of
//! several waits for all of its connection, and they for it. Compared are 32-bit checksums: two that
//! fall together by chance wait for each other, which costs a moment and no order.

use std::collections::HashMap;

use crate::mail::{Mailbox, SessionId};

/// What a message waits behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Order {
    session: u32,
    /// `None`: it has several recipients.
    recipient: Option<u32>,
}

/// The messages that others wait behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(HashMap<u32, Place>);

/// What of one connection's.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Messages of several recipients.
    several: usize,
    /// Messages of one.
    single: HashMap<u32, usize>,
}

impl Order {
    /// That of a message which came by `session`. `first` is the first of its recipients as text,
    /// `recipients` how many it has.
    pub fn new(session: SessionId, first: &str, recipients: usize) -> Self {
        let sum = |text: &str| crc32fast::hash(text.to_ascii_lowercase().as_bytes());
        Self { session: sum(&session.to_string()), recipient: (recipients == 1).then(|| sum(first)) }
    }

    /// The same, of a message that is to these.
    pub fn of(session: SessionId, recipients: &[Mailbox]) -> Self {
        let first = recipients.first().map_or_else(String::new, ToString::to_string);
        Self::new(session, &super::entry::plain(&first), recipients.len())
    }

    /// Whether a message waits behind one that came before it.
    pub fn waits_behind(self, before: Self) -> bool {
        let same = self.recipient.is_none() || before.recipient.is_none() || self.recipient == before.recipient;
        self.session == before.session && same
    }
}

impl Line {
    /// A message joins.
    pub(super) fn join(&mut self, order: Order) {
        let place = self.0.entry(order.session).or_default();
        match order.recipient {
            None => place.several += 1,
            Some(recipient) => *place.single.entry(recipient).or_default() += 1,
        }
    }

    /// It leaves.
    pub(super) fn leave(&mut self, order: Order) {
        let Some(place) = self.0.get_mut(&order.session) else { return };
        match order.recipient {
            None => place.several = place.several.saturating_sub(1),
            Some(recipient) => {
                if let Some(many) = place.single.get_mut(&recipient) {
                    *many -= 1;
                    if *many == 0 {
                        place.single.remove(&recipient);
                    }
                }
            }
        }
        if place.several == 0 && place.single.is_empty() {
            self.0.remove(&order.session);
        }
    }

    /// Whether a message waits behind any of these.
    pub(super) fn holds_up(&self, order: Order) -> bool {
        let Some(place) = self.0.get(&order.session) else { return false };
        match order.recipient {
            _ if place.several > 0 => true,
            None => true,
            Some(recipient) => place.single.contains_key(&recipient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(letter: char) -> SessionId {
        SessionId::parse(&format!("01ARZ3NDEKTSV4RRFFQ69G5FA{letter}")).unwrap()
    }

    #[test]
    fn who_waits_behind_whom() {
        let one = |letter, to: &str| Order::new(session(letter), to, 1);
        let many = |letter| Order::new(session(letter), "a@x.example", 2);
        let mut line = Line::default();
        assert!(!line.holds_up(one('A', "a@x.example")));
        line.join(one('A', "a@x.example"));
        assert!(line.holds_up(one('A', "A@x.example")), "the same recipient");
        assert!(!line.holds_up(one('A', "b@x.example")), "another recipient");
        assert!(!line.holds_up(one('B', "a@x.example")), "another connection");
        assert!(line.holds_up(many('A')) && !line.holds_up(many('B')), "several wait for all of theirs");
        line.join(many('B'));
        assert!(line.holds_up(one('B', "b@x.example")), "and all for several");
        line.join(one('A', "a@x.example"));
        line.leave(one('A', "a@x.example"));
        assert!(line.holds_up(one('A', "a@x.example")), "one of two has left");
        line.leave(one('A', "a@x.example"));
        line.leave(many('B'));
        assert!(line.0.is_empty(), "nothing is remembered of who has left");
    }
}
