//! What the sandbox was sent: the newest messages, bounded in number and octets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::time::Timestamp;

/// A message SES would have sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// SES's message id, as SendEmail answered.
    pub id: String,
    /// When it came.
    pub at: Timestamp,
    /// EmailTags; those of `X-SES-MESSAGE-TAGS` when the call had none.
    pub tags: Vec<(String, String)>,
    /// TenantName.
    pub tenant_name: Option<String>,
    /// ConfigurationSetName; that of `X-SES-CONFIGURATION-SET` when the call had none.
    pub configuration_set: Option<String>,
    /// The envelope: To, Cc and Bcc of Destination.
    pub destination: Vec<String>,
    /// The octets.
    pub raw: Bytes,
}

/// The messages, oldest first.
#[derive(Debug)]
pub struct Inbox {
    kept: Mutex<Kept>,
    received: watch::Sender<u64>,
    most: usize,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    dropped: u64,
}

impl Message {
    /// The value of a tag.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Inbox {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { kept: Mutex::default(), received: watch::Sender::new(0), most, most_bytes }
    }

    /// The messages that are kept, oldest first.
    pub fn all(&self) -> Vec<Arc<Message>> {
        self.kept().messages.iter().cloned().collect()
    }

    /// Those with this `tenant` tag, oldest first.
    pub fn by_tenant(&self, name: &str) -> Vec<Arc<Message>> {
        self.kept().messages.iter().filter(|message| message.tag("tenant") == Some(name)).cloned().collect()
    }

    /// How many came since the start or the last [`Inbox::clear`], dropped ones included.
    pub fn received(&self) -> u64 {
        *self.received.borrow()
    }

    /// How many of them were dropped to stay within bounds.
    pub fn dropped(&self) -> u64 {
        self.kept().dropped
    }

    /// Waits until `count` messages have come since the start or the last [`Inbox::clear`]; returns
    /// those that are kept. Waits for ever if they do not come: callers bound it.
    pub async fn wait_for(&self, count: u64) -> Vec<Arc<Message>> {
        // The sender lives in self, so the wait can only end with the count.
        let _ = self.received.subscribe().wait_for(|received| *received >= count).await;
        self.all()
    }

    /// Gives the messages that are kept, oldest first, and forgets them; they stay counted.
    pub fn take(&self) -> Vec<Arc<Message>> {
        let mut kept = self.kept();
        kept.bytes = 0;
        std::mem::take(&mut kept.messages).into()
    }

    /// Forgets everything and counts from zero.
    pub fn clear(&self) {
        let mut kept = self.kept();
        *kept = Kept::default();
        self.received.send_replace(0);
    }

    /// Up to `limit` messages after the one with the id `after`; from the oldest if that is not
    /// kept or not given.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> Vec<Arc<Message>> {
        let kept = self.kept();
        let from = after.and_then(|id| kept.messages.iter().position(|m| m.id == id)).map_or(0, |at| at + 1);
        kept.messages.iter().skip(from).take(limit).cloned().collect()
    }

    pub(super) fn put(&self, message: Message) {
        let mut kept = self.kept();
        kept.bytes += message.raw.len();
        kept.messages.push_back(Arc::new(message));
        while kept.messages.len() > self.most || (kept.bytes > self.most_bytes && kept.messages.len() > 1) {
            let Some(oldest) = kept.messages.pop_front() else { break };
            kept.bytes -= oldest.raw.len();
            kept.dropped += 1;
        }
        self.received.send_modify(|received| *received += 1);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: usize, size: usize) -> Message {
        Message {
            id: id.to_string(),
            at: Timestamp::from_millis(0),
            tags: vec![],
            tenant_name: None,
            configuration_set: None,
            destination: vec![],
            raw: vec![b'x'; size].into(),
        }
    }

    fn ids(messages: &[Arc<Message>]) -> Vec<&str> {
        messages.iter().map(|m| m.id.as_str()).collect()
    }

    #[tokio::test]
    async fn the_oldest_go_when_number_or_octets_are_over_and_are_counted() {
        let inbox = Inbox::new(3, 100);
        for id in 0..4 {
            inbox.put(message(id, 10));
        }
        assert_eq!(ids(&inbox.all()), ["1", "2", "3"]);
        inbox.put(message(4, 75));
        assert_eq!(ids(&inbox.all()), ["2", "3", "4"]);
        inbox.put(message(5, 500));
        assert_eq!(ids(&inbox.all()), ["5"], "one message is always kept");
        assert_eq!((inbox.received(), inbox.dropped()), (6, 5));
        assert_eq!(ids(&inbox.wait_for(6).await), ["5"]);
        assert_eq!(ids(&inbox.take()), ["5"]);
        assert_eq!((inbox.received(), inbox.dropped(), inbox.all().len()), (6, 5, 0));
        inbox.put(message(6, 100));
        assert_eq!(ids(&inbox.take()), ["6"], "what was taken does not count in octets");
        inbox.clear();
        assert_eq!((inbox.received(), inbox.dropped(), inbox.all().len()), (0, 0, 0));
    }

    #[test]
    fn a_tenants_messages_are_told_by_their_tag() {
        let inbox = Inbox::new(10, 1000);
        for (id, tenant) in ["acme", "globex", "acme"].into_iter().enumerate() {
            inbox.put(Message { tags: vec![("tenant".into(), tenant.into())], ..message(id, 1) });
        }
        inbox.put(message(3, 1));
        assert_eq!(ids(&inbox.by_tenant("acme")), ["0", "2"]);
        assert_eq!(ids(&inbox.by_tenant("")), [""; 0]);
    }

    #[test]
    fn pages_follow_each_other() {
        let inbox = Inbox::new(10, 1000);
        for id in 0..5 {
            inbox.put(message(id, 1));
        }
        assert_eq!(ids(&inbox.page(None, 2)), ["0", "1"]);
        assert_eq!(ids(&inbox.page(Some("1"), 2)), ["2", "3"]);
        assert_eq!(ids(&inbox.page(Some("4"), 2)), [""; 0]);
        assert_eq!(ids(&inbox.page(Some("gone"), 1)), ["0"]);
    }
}
