//! The ledger: which events have been applied to which recipients, so that each is applied once.
//!
//! SQS delivers at least once and SNS and EventBridge may both bring the same event, whole or a
//! few recipients at a time. So what is remembered is one recipient's share of an event, under the
//! SHA-256 of what SES calls it by:
//!
//! | event | key |
//! |---|---|
//! | bounce, complaint | kind, feedback id, recipient |
//! | all others | kind, message id, recipient, timestamp |
//!
//! Two rows each: `eventid/{digest}`, written `If::Absent` in the same commit as the effects, which
//! is what makes it once; and `event/{hour applied}/{digest}`, by which the janitor finds the old.
//!
//! Promises: what was applied is known for [`KEPT_HOURS`], longer than SQS keeps a message (14
//! days) and than `policy::effect` counts events for. A digest holds no address that can be read.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{Batch, If, Key, ReadError, Store, record};
use crate::event::{Event, Fate};
use crate::time::Hour;

/// Hours for which an applied event is remembered: 15 days.
pub const KEPT_HOURS: u32 = 15 * 24;

/// Writes that [`write()`] adds.
pub const WRITES: usize = 2;

/// One recipient's share of an event, by what SES calls it: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(String);

impl Share {
    /// `recipient` is [`Recipient::folded`](crate::event::kind::Recipient::folded).
    pub fn of(event: &Event, recipient: &str) -> Self {
        let mut hasher = Sha256::new();
        // Lengths go in too, so that no two lists of parts look alike.
        let mut part = |octets: &[u8]| {
            hasher.update(u64::try_from(octets.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(octets);
        };
        part(kind(&event.fate).as_bytes());
        match &event.fate {
            Fate::Bounce { feedback_id, .. } | Fate::Complaint { feedback_id, .. } => {
                part(feedback_id.as_bytes());
                part(recipient.as_bytes());
            }
            Fate::Send
            | Fate::Delivery { .. }
            | Fate::Reject { .. }
            | Fate::DeliveryDelay { .. }
            | Fate::Open
            | Fate::Click
            | Fate::RenderingFailure { .. }
            | Fate::Subscription => {
                part(event.mail.message_id.as_bytes());
                part(recipient.as_bytes());
                part(&event.at.millis().to_be_bytes());
            }
        }
        let mut text = String::with_capacity(64);
        for octet in hasher.finalize() {
            let _ = write!(text, "{octet:02x}");
        }
        Self(text)
    }

    /// The digest.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds to `batch` that `share` was applied in the hour `applied`. The commit is a
/// [`Conflict`](super::CommitError::Conflict) if it was applied before.
pub fn write(batch: &mut Batch, share: &Share, applied: Hour) {
    batch.put(Key::event_id(share.as_str()), If::Absent, record::seal(&applied));
    batch.put(Key::event(applied, share.as_str()), If::Any, record::seal(&()));
}

/// Whether `share` was applied.
pub async fn contains(store: &dyn Store, share: &Share) -> Result<bool, ReadError> {
    Ok(store.get(&Key::event_id(share.as_str())).await?.is_some())
}

/// The keys of up to `limit` shares that were applied before the hour `before`, two a share.
pub async fn expired(store: &dyn Store, before: Hour, limit: usize) -> Result<Vec<Key>, ReadError> {
    let mut keys = Vec::new();
    for (key, _) in store.scan(&Key::events(), None, limit).await? {
        let Some((hour, digest)) = when(&key) else {
            return Err(ReadError::Corrupt(key, "its key holds no hour".into()));
        };
        if hour >= before {
            break;
        }
        keys.push(Key::event_id(digest));
        keys.push(key);
    }
    Ok(keys)
}

fn when(key: &Key) -> Option<(Hour, &str)> {
    let parts = key.parts()?;
    let hour = u32::from_str_radix(parts.get(1)?, 16).ok()?;
    Some((Hour(hour), parts.get(2)?))
}

fn kind(fate: &Fate) -> &'static str {
    match fate {
        Fate::Send => "send",
        Fate::Delivery { .. } => "delivery",
        Fate::Bounce { .. } => "bounce",
        Fate::Complaint { .. } => "complaint",
        Fate::Reject { .. } => "reject",
        Fate::DeliveryDelay { .. } => "delivery-delay",
        Fate::Open => "open",
        Fate::Click => "click",
        Fate::RenderingFailure { .. } => "rendering-failure",
        Fate::Subscription => "subscription",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::kind::{BounceType, Form, Mail};
    use crate::store::memory::MemoryStore;
    use crate::store::{BATCH_ITEMS, CommitError};
    use crate::time::Timestamp;

    fn event(fate: Fate, at: u64, form: Form) -> Event {
        let mail = Mail {
            message_id: "m-1".into(),
            timestamp: Timestamp::from_millis(1),
            source: None,
            destination: Vec::new(),
            tenant: None,
            stream: None,
            credential: None,
            configuration_set: None,
            ses_tenant: None,
        };
        Event { fate, at: Timestamp::from_millis(at), mail, form }
    }

    fn bounce(feedback_id: &str) -> Fate {
        Fate::Bounce {
            bounce_type: BounceType::Permanent,
            sub_type: "General".into(),
            recipients: Vec::new(),
            feedback_id: feedback_id.into(),
        }
    }

    #[test]
    fn what_makes_two_shares_one() {
        let first = Share::of(&event(bounce("f-1"), 5, Form::Sns), "a@x.example");
        let same = [event(bounce("f-1"), 5, Form::EventBridge), event(bounce("f-1"), 6, Form::Sns)];
        for event in same {
            assert_eq!(Share::of(&event, "a@x.example"), first);
        }
        let complaint =
            Fate::Complaint { sub_type: None, feedback_type: None, recipients: Vec::new(), feedback_id: "f-1".into() };
        let delivery = Fate::Delivery { recipients: Vec::new() };
        let others = [
            Share::of(&event(bounce("f-1"), 5, Form::Sns), "b@x.example"),
            Share::of(&event(bounce("f-2"), 5, Form::Sns), "a@x.example"),
            Share::of(&event(bounce("f-1a"), 5, Form::Sns), "@x.example"),
            Share::of(&event(complaint, 5, Form::Sns), "a@x.example"),
            Share::of(&event(delivery.clone(), 5, Form::Sns), "a@x.example"),
            Share::of(&event(delivery, 6, Form::Sns), "a@x.example"),
        ];
        let mut all: std::collections::BTreeSet<Share> = others.into_iter().collect();
        all.insert(first);
        assert_eq!(all.len(), 7);
        assert!(all.iter().all(|share| share.as_str().len() == 64));
    }

    /// A change here would apply remembered events again.
    #[test]
    fn golden_digest() {
        let share = Share::of(&event(bounce("f-1"), 5, Form::Sns), "a@x.example");
        assert_eq!(share.as_str(), "4d2c9ce3875c5d416168c01500c1ef762ec635942bc1d7663180d041d263eb19");
    }

    #[tokio::test]
    async fn a_share_is_written_once_and_found_until_it_is_old() {
        let store = MemoryStore::new();
        let shares: Vec<Share> =
            (0..70).map(|n| Share::of(&event(bounce("f-1"), 5, Form::Sns), &format!("{n}@x.example"))).collect();
        for (n, share) in (0..).zip(&shares) {
            assert!(!contains(&store, share).await.unwrap());
            let mut batch = Batch::new();
            write(&mut batch, share, Hour(n));
            assert_eq!(batch.len(), WRITES);
            store.commit(batch.clone()).await.unwrap();
            assert_eq!(store.commit(batch).await, Err(CommitError::Conflict(Key::event_id(share.as_str()))));
            assert!(contains(&store, share).await.unwrap());
        }
        assert_eq!(expired(&store, Hour(60), BATCH_ITEMS / WRITES).await.unwrap().len(), BATCH_ITEMS);
        let old = expired(&store, Hour(2), BATCH_ITEMS / WRITES).await.unwrap();
        assert_eq!(old.len(), 4);
        let mut batch = Batch::new();
        for key in old {
            batch.remove(key, If::Any);
        }
        store.commit(batch).await.unwrap();
        let mut left = Vec::new();
        for share in &shares {
            left.push(contains(&store, share).await.unwrap());
        }
        assert_eq!(left.iter().take_while(|there| !**there).count(), 2);
        assert!(left[2..].iter().all(|there| *there));
        assert_eq!(expired(&store, Hour(2), 50).await.unwrap(), []);
    }
}
