//! The schedule of one node's outbox in memory: which messages are held, in which lane, what each
//! waits for. Pure: a moment is handed in, nothing is awaited.
//!
//! It is made from the rows at start and follows every commit; the rows are the truth, this is how
//! nobody has to scan them. About two hundred octets a message.
//!
//! Promises: a message is in one state at a time (ready, waiting until a moment, or active); the
//! ready ones of a lane come in the order they were accepted, but for those that wait behind another
//! of their connection ([`Order`]); a lane whose state changed is told of
//! once ([`Index::take_changed`]); what is reserved for a message that is being written counts
//! against the bounds until it is held or given back. Refuses: a message past a bound, by its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cause::Cause;
use super::entry::Lane;
use super::order::{Line, Order};
use crate::mail::{MessageId, TenantId};
use crate::time::Timestamp;

/// How many of a lane's ready messages are asked whose turn it is, where the first must wait.
const LOOK: usize = 256;

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
    /// What it does not overtake.
    pub order: Order,
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
    /// When those that are not being sent are given up.
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
    /// Those that wait for a moment and that others do not overtake.
    ahead: BTreeSet<MessageId>,
    /// Those of `ahead`.
    waiting: Line,
    /// Those that are being sent.
    active: Line,
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
            self.give_back(&slot.lane.tenant, slot.bytes);
            return;
        }
        self.bytes = self.bytes.saturating_add(slot.bytes);
        self.enter(id, &slot);
        self.slots.insert(id, slot);
    }

    /// Holds a message that was found at start, whatever the bounds are.
    pub fn restore(&mut self, id: MessageId, slot: Slot) {
        if !self.slots.contains_key(&id) {
            self.count(&slot.lane.tenant, slot.bytes);
            self.hold(id, slot);
        }
    }

    /// Forgets a message.
    pub fn remove(&mut self, id: MessageId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(slot.bytes);
        self.leave(id, &slot);
        self.give_back(&slot.lane.tenant, slot.bytes);
        Some(slot)
    }

    /// Changes what a message waits for, and whatever else `change` does to its slot; its lane and
    /// its octets stay.
    pub fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Slot)) -> Option<&Slot> {
        let mut slot = self.slots.get(&id)?.clone();
        self.leave(id, &slot);
        change(&mut slot);
        self.enter(id, &slot);
        self.slots.insert(id, slot);
        self.slots.get(&id)
    }

    /// The message of a lane whose turn it is next: the first accepted of the ready ones that has
    /// none before it which it must not overtake. Of a long line only the first `LOOK` are asked.
    pub fn next(&self, lane: &Lane) -> Option<(MessageId, &Slot)> {
        let queue = self.lanes.get(lane)?;
        let mut before = Line::default();
        let mut ahead = queue.ahead.iter().peekable();
        for id in queue.ready.iter().take(LOOK) {
            while let Some(earlier) = ahead.next_if(|earlier| *earlier < id) {
                before.join(self.slots.get(earlier)?.order);
            }
            let slot = self.slots.get(id)?;
            if !queue.active.holds_up(slot.order) && !before.holds_up(slot.order) {
                return Some((*id, slot));
            }
            before.join(slot.order);
        }
        None
    }

    /// Whether a message that has just come in would overtake one that waits for a moment.
    pub fn would_overtake(&self, lane: &Lane, order: Order) -> bool {
        self.lanes.get(lane).is_some_and(|queue| queue.waiting.holds_up(order))
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

    /// Lets those of a lane (`None`: of all) that wait for one of `causes` wait until `latest` at the
    /// longest. Says how many would have waited longer.
    pub fn bring_forward(&mut self, lane: Option<&Lane>, causes: &[Cause], latest: Timestamp) -> usize {
        let of_lane = |slot: &Slot| lane.is_none_or(|lane| slot.lane == *lane) && causes.contains(&slot.cause);
        let later: Vec<MessageId> = self.timers.range((latest, MessageId::LAST)..).map(|(_, id)| *id).collect();
        let brought = later.into_iter().filter(|id| self.slots.get(id).is_some_and(of_lane)).collect::<Vec<_>>();
        for id in &brought {
            self.change(*id, |slot| slot.wait = Wait::Until(latest));
        }
        brought.len()
    }

    /// Messages past their age, up to `limit`; not those that are being sent.
    pub fn expired(&self, now: Timestamp, limit: usize) -> Vec<MessageId> {
        self.expiries.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).take(limit).collect()
    }

    /// The next moment at which something changes by itself: a message's turn comes, or its end.
    pub fn next_moment(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let expiry = self.expiries.first().map(|(at, _)| *at);
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
                if !slot.cause.is_the_messages_own() {
                    queue.ahead.insert(id);
                    queue.waiting.join(slot.order);
                }
            }
            Wait::Active => {
                self.active += 1;
                queue.state.active += 1;
                queue.active.join(slot.order);
            }
        }
        if slot.wait != Wait::Active {
            self.expiries.insert((slot.expires, id));
        }
        queue.state.bytes = queue.state.bytes.saturating_add(slot.bytes);
        self.changed.insert(slot.lane.clone());
    }

    /// Takes it away from there.
    fn leave(&mut self, id: MessageId, slot: &Slot) {
        self.expiries.remove(&(slot.expires, id));
        if let Some(queue) = self.lanes.get_mut(&slot.lane) {
            match slot.wait {
                Wait::Ready => {
                    queue.ready.remove(&id);
                    queue.state.ready = queue.state.ready.saturating_sub(1);
                }
                Wait::Until(at) => {
                    self.timers.remove(&(at, id));
                    queue.state.waiting = queue.state.waiting.saturating_sub(1);
                    if queue.ahead.remove(&id) {
                        queue.waiting.leave(slot.order);
                    }
                }
                Wait::Active => {
                    queue.active.leave(slot.order);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;
    use crate::mail::StreamId;

    const BOUNDS: Bounds = Bounds { messages: 14, messages_per_tenant: 8, bytes_per_tenant: 60 };
    const CAUSES: [Cause; 4] = [Cause::Throttled, Cause::Network, Cause::Handoff, Cause::Service];

    /// Everything there is, and whatever is asked of it counted anew each time.
    #[derive(Default)]
    struct Naive {
        slots: Vec<(MessageId, Slot)>,
        reserved: Vec<(TenantId, u64)>,
    }

    /// How deep the sequences got.
    #[derive(Default, Debug)]
    struct Depth {
        held: usize,
        twice: usize,
        given_back: usize,
        restored: usize,
        past: [usize; 3],
        ready: usize,
        waiting: usize,
        active: usize,
        promoted: usize,
        released: usize,
        removed: usize,
        expired: usize,
        active_past_age: usize,
        leased: usize,
        held_up: usize,
        brought: usize,
        most: usize,
    }

    impl Naive {
        fn refuses(&self, tenant: &TenantId, bytes: u64) -> Option<Past> {
            let held = self.slots.iter().map(|(_, slot)| (&slot.lane.tenant, slot.bytes));
            let all: Vec<(&TenantId, u64)> = held.chain(self.reserved.iter().map(|(of, bytes)| (of, *bytes))).collect();
            let own: Vec<u64> = all.iter().filter(|(of, _)| *of == tenant).map(|(_, bytes)| *bytes).collect();
            if all.len() >= BOUNDS.messages {
                Some(Past::Messages)
            } else if own.len() >= BOUNDS.messages_per_tenant {
                Some(Past::MessagesOfTenant)
            } else if own.iter().sum::<u64>() + bytes > BOUNDS.bytes_per_tenant {
                Some(Past::BytesOfTenant)
            } else {
                None
            }
        }

        fn of_lane<'a>(&'a self, lane: &'a Lane) -> impl Iterator<Item = &'a (MessageId, Slot)> {
            self.slots.iter().filter(move |(_, slot)| slot.lane == *lane)
        }

        fn state(&self, lane: &Lane) -> LaneState {
            let count = |is: fn(Wait) -> bool| self.of_lane(lane).filter(|(_, slot)| is(slot.wait)).count();
            LaneState {
                ready: count(|wait| wait == Wait::Ready),
                waiting: count(|wait| matches!(wait, Wait::Until(_))),
                active: count(|wait| wait == Wait::Active),
                bytes: self.of_lane(lane).map(|(_, slot)| slot.bytes).sum(),
            }
        }

        fn next(&self, lane: &Lane) -> Option<MessageId> {
            let goes_before = |(other, slot): &(MessageId, Slot), id: MessageId| match slot.wait {
                Wait::Active => true,
                Wait::Ready => *other < id,
                Wait::Until(_) => *other < id && slot.cause != Cause::Service,
            };
            let ready = self.of_lane(lane).filter(|(_, slot)| slot.wait == Wait::Ready);
            let may_go = ready.filter(|(id, slot)| {
                let mut before = self.of_lane(lane).filter(|other| other.0 != *id && goes_before(other, *id));
                !before.any(|(_, other)| slot.order.waits_behind(other.order))
            });
            may_go.map(|(id, _)| *id).min()
        }

        fn expired(&self, now: Timestamp) -> Vec<MessageId> {
            let idle = self.slots.iter().filter(|(_, slot)| slot.wait != Wait::Active && slot.expires <= now);
            let mut past: Vec<(Timestamp, MessageId)> = idle.map(|(id, slot)| (slot.expires, *id)).collect();
            past.sort();
            past.into_iter().map(|(_, id)| id).collect()
        }

        fn next_moment(&self) -> Option<Timestamp> {
            let moments = self.slots.iter().flat_map(|(_, slot)| match slot.wait {
                Wait::Ready => vec![slot.expires],
                Wait::Until(at) => vec![at, slot.expires],
                Wait::Active => vec![],
            });
            moments.min()
        }

        fn backlog(&self, lanes: &[Lane]) -> Backlog {
            let states: Vec<LaneState> = lanes.iter().map(|lane| self.state(lane)).collect();
            Backlog {
                messages: self.slots.len(),
                bytes: self.slots.iter().map(|(_, slot)| slot.bytes).sum(),
                oldest: self.slots.iter().map(|(id, _)| id.made()).min(),
                waiting: states.iter().map(|state| state.waiting).sum(),
                active: states.iter().map(|state| state.active).sum(),
                lanes: lanes.iter().filter(|lane| self.of_lane(lane).next().is_some()).count(),
            }
        }
    }

    /// Of two connections, to one of two recipients or to several.
    fn order(b: usize, c: usize) -> Order {
        let session = ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"][b / 3 % 2];
        let (first, recipients) = [("a@x.example", 1), ("b@x.example", 1), ("a@x.example", 2)][c / 4 % 3];
        Order::new(crate::mail::SessionId::parse(session).unwrap(), first, recipients)
    }

    fn id(number: u64) -> MessageId {
        // Not in the order they are held in.
        let made = 1_777_000_000_000 + number * 7919 % 100_000;
        let text = format!("{}", ulid::Ulid::from_parts(made, u128::from(number)));
        MessageId::parse(&text).unwrap()
    }

    fn all_lanes() -> Vec<Lane> {
        let lane = |tenant, stream: &str| Lane {
            tenant: TenantId::parse(tenant).unwrap(),
            stream: StreamId::parse(stream).ok(),
        };
        vec![lane("acme", "news"), lane("acme", "resets"), lane("acme", ""), lane("other", "news"), lane("third", "")]
    }

    fn same(index: &mut Index, naive: &Naive, now: Timestamp, before: &[LaneState]) {
        let lanes = all_lanes();
        let states: Vec<LaneState> = lanes.iter().map(|lane| naive.state(lane)).collect();
        let told = index.take_changed();
        for ((lane, state), before) in lanes.iter().zip(&states).zip(before) {
            assert_eq!(index.lane(lane), *state, "{lane}");
            assert_eq!(index.next(lane).map(|(id, _)| id), naive.next(lane), "{lane}");
            let waits = naive.of_lane(lane).filter(|(_, slot)| slot.wait != Wait::Ready);
            let waits: Vec<&Slot> = waits.map(|(_, slot)| slot).collect();
            for order in (0..12).map(|n| order(n, n * 4)) {
                let behind =
                    waits.iter().filter(|slot| matches!(slot.wait, Wait::Until(_)) && slot.cause != Cause::Service);
                let overtakes = behind.clone().any(|slot| order.waits_behind(slot.order));
                assert_eq!(index.would_overtake(lane, order), overtakes, "{lane}");
            }
            assert!(state == before || told.contains(lane), "{lane} changed and nobody was told");
        }
        let with_any = lanes.iter().zip(&states).filter(|(lane, _)| naive.of_lane(lane).next().is_some());
        let mut with_any: Vec<(&Lane, LaneState)> = with_any.map(|(lane, state)| (lane, *state)).collect();
        with_any.sort_by_key(|(lane, _)| *lane);
        assert_eq!(index.lanes().collect::<Vec<_>>(), with_any);
        assert_eq!(index.backlog(), naive.backlog(&lanes));
        assert_eq!(index.next_moment(), naive.next_moment());
        let expired = naive.expired(now);
        for limit in [0, 1, 2, 100] {
            assert_eq!(index.expired(now, limit), expired[..limit.min(expired.len())]);
        }
        let mut slots: Vec<(MessageId, &Slot)> = naive.slots.iter().map(|(id, slot)| (*id, slot)).collect();
        slots.sort_by_key(|(id, _)| *id);
        assert_eq!(index.after(None).collect::<Vec<_>>(), slots);
        if let Some((middle, _)) = slots.get(slots.len() / 2) {
            assert_eq!(index.after(Some(*middle)).count(), slots.len() - slots.len() / 2 - 1);
            assert_eq!(index.slot(*middle), slots.get(slots.len() / 2).map(|(_, slot)| *slot));
        }
        for lane in &lanes {
            for bytes in [0, 9, 25] {
                let refused = naive.refuses(&lane.tenant, bytes);
                let reserved = index.reserve(&BOUNDS, &lane.tenant, bytes);
                assert_eq!(reserved.err(), refused, "{} {bytes}", lane.tenant);
                if reserved.is_ok() {
                    index.give_back(&lane.tenant, bytes);
                }
            }
        }
    }

    /// One operation on both, out of four numbers.
    fn step(index: &mut Index, naive: &mut Naive, depth: &mut Depth, now: &mut Timestamp, step: u64, op: [u8; 4]) {
        let [kind, a, b, c] = op.map(usize::from);
        let lanes = all_lanes();
        let lane = &lanes[a % lanes.len()];
        let moment = |by: usize| Timestamp::from_millis(1000 + by as u64);
        let wait = [Wait::Ready, Wait::Until(moment(c)), Wait::Active][b % 3];
        let slot = |lane: &Lane, bytes: u64| Slot {
            lane: lane.clone(),
            due: moment(b),
            version: step,
            wait,
            cause: CAUSES[c % 4],
            bytes,
            recipients: 1,
            order: order(b, c),
            expires: moment(b / 2 + 60),
        };
        let held = (!naive.slots.is_empty()).then(|| b % naive.slots.len().max(1));
        match kind % 16 {
            0..=4 => {
                let bytes = [0, 1, 9, 25][b % 4];
                let refused = naive.refuses(&lane.tenant, bytes);
                assert_eq!(index.reserve(&BOUNDS, &lane.tenant, bytes).err(), refused);
                match refused {
                    None => naive.reserved.push((lane.tenant.clone(), bytes)),
                    Some(Past::Messages) => depth.past[0] += 1,
                    Some(Past::MessagesOfTenant) => depth.past[1] += 1,
                    Some(Past::BytesOfTenant) => depth.past[2] += 1,
                }
            }
            5..=7 if !naive.reserved.is_empty() => {
                let (tenant, bytes) = naive.reserved.remove(a % naive.reserved.len());
                let lane = lanes.iter().rfind(|lane| lane.tenant == tenant && (c % 2 == 0 || lane.stream.is_some()));
                let Some(lane) = lane else {
                    index.give_back(&tenant, bytes);
                    depth.given_back += 1;
                    return;
                };
                match held.filter(|_| c % 16 == 0).map(|at| naive.slots[at].0) {
                    Some(twice) => {
                        index.hold(twice, slot(lane, bytes));
                        depth.twice += 1;
                    }
                    None => {
                        index.hold(id(step), slot(lane, bytes));
                        naive.slots.push((id(step), slot(lane, bytes)));
                        depth.held += 1;
                    }
                }
            }
            8 if c % 4 == 0 => {
                index.restore(id(step), slot(lane, 9));
                index.restore(id(step), slot(lane, 25));
                naive.slots.push((id(step), slot(lane, 9)));
                depth.restored += 1;
            }
            8 | 9 if !naive.reserved.is_empty() && c % 2 == 0 => {
                let (tenant, bytes) = naive.reserved.remove(a % naive.reserved.len());
                index.give_back(&tenant, bytes);
                depth.given_back += 1;
            }
            9..=11 => {
                let Some(at) = held else {
                    assert_eq!(index.change(id(step), |_| panic!("nobody is there")), None);
                    return;
                };
                let (id, old) = naive.slots[at].clone();
                let new = slot(&old.lane, old.bytes);
                assert_eq!(index.change(id, |slot| *slot = new.clone()), Some(&new));
                naive.slots[at].1 = new;
                match wait {
                    Wait::Ready => depth.ready += 1,
                    Wait::Until(_) => depth.waiting += 1,
                    Wait::Active => depth.active += 1,
                }
            }
            12 => {
                *now = now.plus(std::time::Duration::from_millis((c % 32) as u64));
                index.promote(*now);
                for (_, slot) in &mut naive.slots {
                    if matches!(slot.wait, Wait::Until(at) if at <= *now) {
                        slot.wait = Wait::Ready;
                        depth.promoted += 1;
                    }
                }
            }
            13 => {
                let of = (b % 3 > 0).then_some(lane);
                let causes = &CAUSES[..c % 3];
                let mut released = 0;
                for (_, slot) in &mut naive.slots {
                    let waits = matches!(slot.wait, Wait::Until(_)) && causes.contains(&slot.cause);
                    if waits && of.is_none_or(|lane| slot.lane == *lane) {
                        slot.wait = Wait::Ready;
                        released += 1;
                    }
                }
                assert_eq!(index.release(of, causes), released);
                depth.released += released;
                let (latest, mut brought) = (now.plus(std::time::Duration::from_millis(20)), 0);
                for (_, slot) in &mut naive.slots {
                    let longer = matches!(slot.wait, Wait::Until(at) if at > latest);
                    if longer && slot.cause == CAUSES[a % 4] && of.is_none_or(|lane| slot.lane == *lane) {
                        slot.wait = Wait::Until(latest);
                        brought += 1;
                    }
                }
                assert_eq!(index.bring_forward(of, &[CAUSES[a % 4]], latest), brought);
                depth.brought += brought;
            }
            14 => {
                let Some(at) = held else {
                    assert_eq!(index.remove(id(step)), None);
                    return;
                };
                let (id, slot) = naive.slots.remove(at);
                assert_eq!(index.remove(id), Some(slot));
                depth.removed += 1;
            }
            _ => {
                let first = naive.of_lane(lane).filter(|(_, slot)| slot.wait == Wait::Ready).map(|(id, _)| *id).min();
                if first != naive.next(lane) {
                    depth.held_up += 1;
                }
                if let Some(id) = naive.next(lane) {
                    index.change(id, |slot| slot.wait = Wait::Active);
                    let slot = naive.slots.iter_mut().find(|(of, _)| *of == id);
                    slot.unwrap().1.wait = Wait::Active;
                    depth.leased += 1;
                }
            }
        }
        let age = |slot: &&(MessageId, Slot)| slot.1.wait == Wait::Active && slot.1.expires <= *now;
        depth.active_past_age += naive.slots.iter().filter(age).count();
        depth.expired += naive.expired(*now).len();
        depth.most = depth.most.max(naive.slots.len());
    }

    #[test]
    fn the_schedule_is_what_its_messages_are() {
        let ops = prop::collection::vec(any::<[u8; 4]>(), 1..160);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut depth = Depth::default();
        for _ in 0..400 {
            let ops = ops.new_tree(&mut runner).unwrap().current();
            let (mut index, mut naive) = (Index::default(), Naive::default());
            let mut now = Timestamp::from_millis(1000);
            for (number, op) in ops.into_iter().enumerate() {
                let before: Vec<LaneState> = all_lanes().iter().map(|lane| naive.state(lane)).collect();
                step(&mut index, &mut naive, &mut depth, &mut now, number as u64, op);
                same(&mut index, &naive, now, &before);
            }
            // All that was counted is given back.
            for (id, _) in naive.slots.drain(..) {
                assert!(index.remove(id).is_some());
            }
            for (tenant, bytes) in naive.reserved.drain(..) {
                index.give_back(&tenant, bytes);
            }
            assert_eq!((index.messages, index.bytes, index.active, index.tenants.len()), (0, 0, 0, 0));
            assert!(index.lanes.is_empty() && index.timers.is_empty() && index.expiries.is_empty());
        }
        let Depth { held, twice, given_back, restored, past, ready, waiting, active, .. } = depth;
        assert!(held > 2500 && twice > 100 && given_back > 500 && restored > 300, "{depth:?}");
        assert!(past.iter().all(|past| *past > 100), "{depth:?}");
        assert!(ready > 1000 && waiting > 1000 && active > 1000, "{depth:?}");
        assert!(depth.promoted > 300 && depth.released > 100 && depth.removed > 800, "{depth:?}");
        assert!(depth.expired > 1000 && depth.active_past_age > 300 && depth.leased > 300, "{depth:?}");
        assert!(depth.most >= BOUNDS.messages && depth.held_up > 100 && depth.brought > 50, "{depth:?}");
    }

    #[test]
    fn what_is_being_sent_wakes_nobody_by_its_age() {
        let lane = all_lanes().remove(0);
        let mut index = Index::default();
        let slot = Slot {
            lane,
            due: Timestamp::from_millis(1),
            version: 1,
            wait: Wait::Active,
            cause: Cause::Handoff,
            bytes: 1,
            recipients: 1,
            expires: Timestamp::from_millis(5),
            order: order(0, 0),
        };
        index.restore(id(1), slot);
        assert_eq!((index.next_moment(), index.expired(Timestamp::from_millis(9), 1)), (None, vec![]));
        index.change(id(1), |slot| slot.wait = Wait::Until(Timestamp::from_millis(7)));
        assert_eq!(index.next_moment(), Some(Timestamp::from_millis(5)));
        assert_eq!(index.expired(Timestamp::from_millis(9), 1), [id(1)]);
    }
}
