//! The schedule of one node's outbox in memory: which messages are held, in which lane, what each
//! waits for. Pure: a moment is handed in, nothing is awaited.
//!
//! It is made from the rows at start and follows every commit; the rows are the truth, this is how
//! nobody has to scan them. About two hundred octets a message.
//!
//! Promises: a message is in one state at a time (ready, waiting until a moment, or active); the
//! ready ones of a lane come in the order they were accepted; a lane whose state changed is told of
//! once ([`Index::take_changed`]); what is reserved for a message that is being written counts
//! against the bounds until it is held or given back. Refuses: a message past a bound, by its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cause::Cause;
use super::entry::Lane;
use crate::mail::{MessageId, TenantId};
use crate::time::Timestamp;

/// Most of everything that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Messages in all.
    pub messages: usize,
    /// Messages of one tenant.
    pub messages_per_tenant: usize,
    /// Octets of one tenant.
    pub bytes_per_tenant: u64,
}

/// What a message waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Its turn.
    Ready,
    /// A moment, then its turn.
    Until(Timestamp),
    /// Nothing: it is being sent.
    Active,
}

/// A held message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its lane.
    pub lane: Lane,
    /// The moment in its row's key.
    pub due: Timestamp,
    /// The row's version: the fence of the next write.
    pub version: u64,
    /// What it waits for.
    pub wait: Wait,
    /// Why.
    pub cause: Cause,
    /// Octets.
    pub bytes: u64,
    /// Recipients that are still open.
    pub recipients: u32,
    /// When it is given up.
    pub expires: Timestamp,
}

/// How a lane stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneState {
    /// Messages whose turn may come.
    pub ready: usize,
    /// Messages that wait for a moment.
    pub waiting: usize,
    /// Messages that are being sent.
    pub active: usize,
    /// Octets of them all.
    pub bytes: u64,
}

/// How the whole stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Messages held.
    pub messages: usize,
    /// Their octets.
    pub bytes: u64,
    /// When the oldest was accepted.
    pub oldest: Option<Timestamp>,
    /// Messages that wait for a moment.
    pub waiting: usize,
    /// Messages that are being sent.
    pub active: usize,
    /// Lanes with any.
    pub lanes: usize,
}

/// The bound that a message would go past.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Past {
    /// [`Bounds::messages`].
    #[error("outbox.messages")]
    Messages,
    /// [`Bounds::messages_per_tenant`].
    #[error("outbox.messages_per_tenant")]
    MessagesOfTenant,
    /// [`Bounds::bytes_per_tenant`].
    #[error("outbox.bytes_per_tenant")]
    BytesOfTenant,
}

/// The schedule.
#[derive(Debug, Default)]
pub struct Index {
    slots: BTreeMap<MessageId, Slot>,
    lanes: BTreeMap<Lane, Queue>,
    timers: BTreeSet<(Timestamp, MessageId)>,
    expiries: BTreeSet<(Timestamp, MessageId)>,
    tenants: HashMap<TenantId, Share>,
    /// Messages that are reserved for or held.
    messages: usize,
    bytes: u64,
    active: usize,
    changed: BTreeSet<Lane>,
}

#[derive(Debug, Default)]
struct Queue {
    ready: BTreeSet<MessageId>,
    state: LaneState,
}

/// What of the bounds is a tenant's.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    messages: usize,
    bytes: u64,
}

impl Index {
    /// Counts a message that is about to be written.
    pub fn reserve(&mut self, bounds: &Bounds, tenant: &TenantId, bytes: u64) -> Result<(), Past> {
        let share = self.tenants.get(tenant).copied().unwrap_or_default();
        if self.messages >= bounds.messages {
            return Err(Past::Messages);
        }
        if share.messages >= bounds.messages_per_tenant {
            return Err(Past::MessagesOfTenant);
        }
        if share.bytes.saturating_add(bytes) > bounds.bytes_per_tenant {
            return Err(Past::BytesOfTenant);
        }
        self.count(tenant, bytes);
        Ok(())
    }

    /// Takes back what [`reserve`](Self::reserve) counted, for a message that was not held after all.
    pub fn give_back(&mut self, tenant: &TenantId, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.messages = share.messages.saturating_sub(1);
            share.bytes = share.bytes.saturating_sub(bytes);
            if share.messages == 0 {
                self.tenants.remove(tenant);
            }
        }
    }

    /// Holds a message that was reserved for.
    pub fn hold(&mut self, id: MessageId, slot: Slot) {
        if self.slots.contains_key(&id) {
            return;
        }
        self.bytes += slot.bytes;
        self.expiries.insert((slot.expires, id));
        self.enter(id, &slot);
        self.slots.insert(id, slot);
    }

    /// Holds a message that was found at start, whatever the bounds are.
    pub fn restore(&mut self, id: MessageId, slot: Slot) {
        if !self.slots.contains_key(&id) {
            self.count(&slot.lane.tenant.clone(), slot.bytes);
            self.hold(id, slot);
        }
    }

    /// Forgets a message.
    pub fn remove(&mut self, id: MessageId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(slot.bytes);
        self.expiries.remove(&(slot.expires, id));
        self.leave(id, &slot);
        self.give_back(&slot.lane.tenant, slot.bytes);
        Some(slot)
    }

    /// Changes what a message waits for, and whatever else `change` does to its slot.
    pub fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Slot)) -> Option<&Slot> {
        let mut slot = self.slots.get(&id)?.clone();
        self.leave(id, &slot);
        change(&mut slot);
        self.enter(id, &slot);
        self.slots.insert(id, slot);
        self.slots.get(&id)
    }

    /// The message of a lane whose turn it is next: the first accepted of the ready ones.
    pub fn next(&self, lane: &Lane) -> Option<(MessageId, &Slot)> {
        let id = *self.lanes.get(lane)?.ready.first()?;
        Some((id, self.slots.get(&id)?))
    }

    /// Makes ready whose moment has come.
    pub fn promote(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            self.change(id, |slot| slot.wait = Wait::Ready);
        }
    }

    /// Makes ready, before their moment, those of a lane (`None`: of all) that wait for one of
    /// `causes`: what they waited for is over. Says how many there were.
    pub fn release(&mut self, lane: Option<&Lane>, causes: &[Cause]) -> usize {
        let of_lane = |slot: &Slot| lane.is_none_or(|lane| slot.lane == *lane) && causes.contains(&slot.cause);
        let ids: Vec<MessageId> = self.timers.iter().map(|(_, id)| *id).collect();
        let released = ids.into_iter().filter(|id| self.slots.get(id).is_some_and(of_lane)).collect::<Vec<_>>();
        for id in &released {
            self.change(*id, |slot| slot.wait = Wait::Ready);
        }
        released.len()
    }

    /// Messages past their age, up to `limit`; not those that are being sent.
    pub fn expired(&self, now: Timestamp, limit: usize) -> Vec<MessageId> {
        let past = self.expiries.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        past.filter(|id| self.slots.get(id).is_some_and(|slot| slot.wait != Wait::Active)).take(limit).collect()
    }

    /// The next moment at which something changes by itself. What is being sent does not: it is looked
    /// at when its attempt has ended.
    pub fn next_moment(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let is_active = |id| self.slots.get(id).is_some_and(|slot| slot.wait == Wait::Active);
        let expiry = self.expiries.iter().find(|(_, id)| !is_active(id)).map(|(at, _)| *at);
        timer.into_iter().chain(expiry).min()
    }

    /// The lanes whose state may have changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<Lane> {
        std::mem::take(&mut self.changed)
    }

    /// How a lane stands.
    pub fn lane(&self, lane: &Lane) -> LaneState {
        self.lanes.get(lane).map_or_else(LaneState::default, |queue| queue.state)
    }

    /// Every lane that has messages.
    pub fn lanes(&self) -> impl Iterator<Item = (&Lane, LaneState)> {
        self.lanes.iter().map(|(lane, queue)| (lane, queue.state))
    }

    /// A message.
    pub fn slot(&self, id: MessageId) -> Option<&Slot> {
        self.slots.get(&id)
    }

    /// Messages in the order they were accepted, from after `after` on.
    pub fn after(&self, after: Option<MessageId>) -> impl Iterator<Item = (MessageId, &Slot)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.slots.range((from, Unbounded)).map(|(id, slot)| (*id, slot))
    }

    /// How the whole stands.
    pub fn backlog(&self) -> Backlog {
        Backlog {
            messages: self.slots.len(),
            bytes: self.bytes,
            oldest: self.slots.keys().next().map(MessageId::made),
            waiting: self.timers.len(),
            active: self.active,
            lanes: self.lanes.len(),
        }
    }

    fn count(&mut self, tenant: &TenantId, bytes: u64) {
        self.messages += 1;
        let share = self.tenants.entry(tenant.clone()).or_default();
        share.messages += 1;
        share.bytes = share.bytes.saturating_add(bytes);
    }

    /// Puts a message where its wait belongs.
    fn enter(&mut self, id: MessageId, slot: &Slot) {
        let queue = self.lanes.entry(slot.lane.clone()).or_default();
        match slot.wait {
            Wait::Ready => {
                queue.ready.insert(id);
                queue.state.ready += 1;
            }
            Wait::Until(at) => {
                self.timers.insert((at, id));
                queue.state.waiting += 1;
            }
            Wait::Active => {
                self.active += 1;
                queue.state.active += 1;
            }
        }
        queue.state.bytes += slot.bytes;
        self.changed.insert(slot.lane.clone());
    }

    /// Takes it away from there.
    fn leave(&mut self, id: MessageId, slot: &Slot) {
        if let Some(queue) = self.lanes.get_mut(&slot.lane) {
            match slot.wait {
                Wait::Ready => {
                    queue.ready.remove(&id);
                    queue.state.ready = queue.state.ready.saturating_sub(1);
                }
                Wait::Until(at) => {
                    self.timers.remove(&(at, id));
                    queue.state.waiting = queue.state.waiting.saturating_sub(1);
                }
                Wait::Active => {
                    self.active = self.active.saturating_sub(1);
                    queue.state.active = queue.state.active.saturating_sub(1);
                }
            }
            queue.state.bytes = queue.state.bytes.saturating_sub(slot.bytes);
            if queue.state.ready + queue.state.waiting + queue.state.active == 0 {
                self.lanes.remove(&slot.lane);
            }
        }
        self.changed.insert(slot.lane.clone());
    }
}
