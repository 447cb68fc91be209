//! The events queue as a machine: SQS's visibility, receipts and redelivery. No I/O; who asks
//! brings the time.
//!
//! Promises: a notice that was received and not deleted comes again when its visibility time has
//! passed; a receipt handle of an earlier receive deletes nothing (SQS Developer Guide, visibility
//! timeout; API reference, DeleteMessage). The oldest notices are dropped, and counted, above the
//! bound.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Queue {
    items: HashMap<u64, Item>,
    /// Every item by the moment it becomes visible, then by age.
    order: BTreeSet<(Instant, u64)>,
    ages: BTreeSet<u64>,
    next: u64,
    dropped: u64,
    most: usize,
}

#[derive(Debug)]
struct Item {
    id: String,
    body: String,
    visible: Instant,
    sent: Timestamp,
    first_received: Option<Timestamp>,
    receives: u32,
}

/// One received notice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Received {
    pub(super) id: String,
    pub(super) body: String,
    pub(super) handle: String,
    pub(super) sent: Timestamp,
    pub(super) first_received: Timestamp,
    pub(super) receives: u32,
}

/// What is wrong with a receipt handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HandleError {
    /// Not one of ours at all.
    Malformed,
    /// Of a notice that is gone, or of an earlier receive.
    Stale,
}

/// How many notices are where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) visible: usize,
    pub(super) in_flight: usize,
    pub(super) delayed: usize,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self {
            items: HashMap::new(),
            order: BTreeSet::new(),
            ages: BTreeSet::new(),
            next: 0,
            dropped: 0,
            most: most.max(1),
        }
    }

    pub(super) fn push(&mut self, id: String, body: String, visible: Instant, sent: Timestamp) {
        while self.items.len() >= self.most {
            let Some(oldest) = self.ages.first().copied() else { break };
            self.remove(oldest);
            self.dropped += 1;
        }
        let key = self.next;
        self.next += 1;
        self.order.insert((visible, key));
        self.ages.insert(key);
        self.items.insert(key, Item { id, body, visible, sent, first_received: None, receives: 0 });
    }

    /// Up to `most` visible notices, hidden from now on for `hidden`.
    pub(super) fn receive(&mut self, now: Instant, at: Timestamp, most: usize, hidden: Duration) -> Vec<Received> {
        let due: Vec<u64> = self.order.range(..=(now, u64::MAX)).take(most).map(|(_, key)| *key).collect();
        let mut received = Vec::with_capacity(due.len());
        for key in due {
            let Some(item) = self.items.get_mut(&key) else { continue };
            self.order.remove(&(item.visible, key));
            item.visible = now + hidden;
            self.order.insert((item.visible, key));
            item.receives += 1;
            received.push(Received {
                id: item.id.clone(),
                body: item.body.clone(),
                handle: format!("bulkhead-{key}-{}", item.receives),
                sent: item.sent,
                first_received: *item.first_received.get_or_insert(at),
                receives: item.receives,
            });
        }
        received
    }

    pub(super) fn delete(&mut self, handle: &str) -> Result<(), HandleError> {
        let key = self.find(handle)?;
        self.remove(key);
        Ok(())
    }

    /// Makes a received notice visible at `visible`.
    pub(super) fn change(&mut self, handle: &str, visible: Instant) -> Result<(), HandleError> {
        let key = self.find(handle)?;
        if let Some(item) = self.items.get_mut(&key) {
            self.order.remove(&(item.visible, key));
            item.visible = visible;
            self.order.insert((visible, key));
        }
        Ok(())
    }

    pub(super) fn purge(&mut self) {
        self.items.clear();
        self.order.clear();
        self.ages.clear();
    }

    pub(super) fn counts(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        for item in self.items.values() {
            match (item.visible <= now, item.receives) {
                (true, _) => counts.visible += 1,
                (false, 0) => counts.delayed += 1,
                (false, _) => counts.in_flight += 1,
            }
        }
        counts
    }

    /// When the next notice becomes visible; in the past if one is.
    pub(super) fn next_visible(&self) -> Option<Instant> {
        self.order.first().map(|(visible, _)| *visible)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn find(&self, handle: &str) -> Result<u64, HandleError> {
        let numbers = handle.strip_prefix("bulkhead-").and_then(|rest| rest.split_once('-'));
        let parsed = numbers.and_then(|(key, receives)| Some((key.parse().ok()?, receives.parse::<u32>().ok()?)));
        let (key, receives) = parsed.ok_or(HandleError::Malformed)?;
        match self.items.get(&key) {
            Some(item) if item.receives == receives => Ok(key),
            Some(_) | None => Err(HandleError::Stale),
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(item) = self.items.remove(&key) {
            self.order.remove(&(item.visible, key));
        }
        self.ages.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: Duration = Duration::from_secs(30);

    fn filled(count: usize) -> (Queue, Instant) {
        let (mut queue, now) = (Queue::new(5), Instant::now());
        for n in 0..count {
            queue.push(format!("id{n}"), format!("body{n}"), now, Timestamp::from_millis(0));
        }
        (queue, now)
    }

    fn bodies(received: &[Received]) -> Vec<&str> {
        received.iter().map(|r| r.body.as_str()).collect()
    }

    #[test]
    fn what_is_received_is_hidden_and_comes_again_unless_it_is_deleted() {
        let (mut queue, now) = filled(3);
        let at = Timestamp::from_millis(7);
        let first = queue.receive(now, at, 2, HIDDEN);
        assert_eq!(bodies(&first), ["body0", "body1"]);
        assert_eq!(bodies(&queue.receive(now, at, 10, HIDDEN)), ["body2"]);
        assert_eq!(queue.counts(now), Counts { visible: 0, in_flight: 3, delayed: 0 });
        assert_eq!(queue.delete(&first[0].handle), Ok(()));
        assert_eq!(queue.delete(&first[0].handle), Err(HandleError::Stale));
        assert!(queue.receive(now + HIDDEN - Duration::from_millis(1), at, 10, HIDDEN).is_empty());
        let again = queue.receive(now + HIDDEN, Timestamp::from_millis(9), 10, HIDDEN);
        assert_eq!(bodies(&again), ["body1", "body2"]);
        assert_eq!((again[0].receives, again[0].first_received), (2, at));
        assert_eq!(queue.delete(&first[1].handle), Err(HandleError::Stale), "a handle of an earlier receive");
        assert_eq!(queue.delete("nonsense"), Err(HandleError::Malformed));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn visibility_can_be_changed_and_delays_are_waited_for() {
        let (mut queue, now) = filled(1);
        let at = Timestamp::from_millis(0);
        let later = now + Duration::from_secs(5);
        queue.push("late".into(), "late".into(), later, at);
        assert_eq!(queue.counts(now), Counts { visible: 1, in_flight: 0, delayed: 1 });
        let got = queue.receive(now, at, 10, HIDDEN);
        assert_eq!(queue.next_visible(), Some(later));
        assert_eq!(queue.change(&got[0].handle, now), Ok(()));
        assert_eq!(bodies(&queue.receive(now, at, 10, HIDDEN)), ["body0"]);
        assert_eq!(bodies(&queue.receive(later, at, 10, HIDDEN)), ["late"]);
        queue.purge();
        assert_eq!((queue.len(), queue.next_visible()), (0, None));
    }

    #[test]
    fn the_oldest_are_dropped_above_the_bound_and_counted() {
        let (mut queue, now) = filled(7);
        assert_eq!(queue.dropped(), 2);
        let got = queue.receive(now, Timestamp::from_millis(0), 10, HIDDEN);
        assert_eq!(bodies(&got), ["body2", "body3", "body4", "body5", "body6"]);
    }
}
