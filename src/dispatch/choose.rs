//! Whose turn it is: weighted fair turns for classes of mail, tenants, and their lanes.
//!
//! Three wheels, one in the other. The classes (transactional, bulk, marketing) share by
//! [`share_of`]; within a class its tenants share by their weight, however many lanes they have;
//! within a tenant its lanes of that class go in turn. Classes and tenants go by strides: each has a
//! *pass*, the least pass goes next, and what it sends moves it on, the further the less its weight.
//!
//! Promises: whoever is ready is served within a bounded number of turns, whatever others do and
//! however much they have waiting. A turn takes time by the logarithm of how many are ready. Who
//! comes back has no credit for the time it was away, and has not lost its debt either. When nothing
//! is ready nothing is remembered.
//! Refuses: to look at messages. It knows that a lane has some, not which or how many.
//! What can go wrong: nothing. Passes have 128 bits: at a million recipients a second the first
//! overflow is beyond the age of the sun.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::policy::tenant::StreamKind;

/// Least and greatest weight of a tenant; others are taken as the nearer.
pub const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=100;

/// How far one recipient moves what has weight 1. Divided by a weight it keeps ten digits.
const STRIDE: u128 = 1 << 40;

/// The classes, the most urgent first.
const KINDS: [StreamKind; 3] = [StreamKind::Transactional, StreamKind::Bulk, StreamKind::Marketing];

/// How many of a hundred recipients a class may send while the others want to send too.
pub const fn share_of(kind: StreamKind) -> u32 {
    match kind {
        StreamKind::Transactional => 95,
        StreamKind::Bulk => 4,
        StreamKind::Marketing => 1,
    }
}

/// The lanes `L` of tenants `T` that have something to send, and whose turn it is.
#[derive(Debug)]
pub struct Turns<L, T> {
    transactional: Class<L, T>,
    bulk: Class<L, T>,
    marketing: Class<L, T>,
    seats: HashMap<L, Seat<T>>,
    /// The pass below which no class that is ready stands.
    floor: u128,
    /// The number of the next place in any tenant's line.
    next_place: u64,
}

/// Where a lane that is ready stands.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seat<T> {
    tenant: T,
    kind: StreamKind,
    place: u64,
}

#[derive(Debug)]
struct Class<L, T> {
    pass: u128,
    tenants: HashMap<T, Line<L>>,
    /// The tenants by their passes: the first is next.
    order: BTreeSet<(u128, T)>,
    /// Tenants that are not ready and whose pass is above the floor.
    away: HashMap<T, u128>,
    away_order: BTreeSet<(u128, T)>,
    /// The pass below which no tenant that is ready stands.
    floor: u128,
}

/// A tenant's lanes of one class, in turn.
#[derive(Debug)]
struct Line<L> {
    pass: u128,
    weight: u32,
    lanes: BTreeMap<u64, L>,
}

impl<L, T> Default for Turns<L, T> {
    fn default() -> Self {
        Self {
            transactional: Class::default(),
            bulk: Class::default(),
            marketing: Class::default(),
            seats: HashMap::new(),
            floor: 0,
            next_place: 0,
        }
    }
}

impl<L, T> Default for Class<L, T> {
    fn default() -> Self {
        Self {
            pass: 0,
            tenants: HashMap::new(),
            order: BTreeSet::new(),
            away: HashMap::new(),
            away_order: BTreeSet::new(),
            floor: 0,
        }
    }
}

impl<L: Clone + Eq + Hash + Ord, T: Clone + Eq + Hash + Ord> Turns<L, T> {
    /// `lane` has something to send. Said again it changes nothing but the tenant's weight; with
    /// another tenant or kind the lane moves. It joins at the end of its tenant's line, and the
    /// tenant where the others are.
    pub fn ready(&mut self, lane: L, tenant: T, kind: StreamKind, weight: u32) {
        let weight = weight.clamp(*WEIGHTS.start(), *WEIGHTS.end());
        if let Some(seat) = self.seats.get(&lane) {
            if seat.tenant == tenant && seat.kind == kind {
                self.class_mut(kind).reweigh(&tenant, weight);
                return;
            }
            self.unready(&lane);
        }
        let place = self.take_place();
        let floor = self.floor;
        let class = self.class_mut(kind);
        if class.is_empty() {
            class.pass = class.pass.max(floor);
        }
        class.join(&tenant, weight, place, lane.clone());
        self.seats.insert(lane, Seat { tenant, kind, place });
        self.raise_floor();
    }

    /// `lane` has nothing to send, or may not.
    pub fn unready(&mut self, lane: &L) {
        let Some(seat) = self.seats.remove(lane) else { return };
        self.class_mut(seat.kind).leave(&seat.tenant, seat.place);
        if self.seats.is_empty() {
            *self = Self::default();
            return;
        }
        self.raise_floor();
    }

    /// Whose turn it is. It stays so until the lane is [`charge`](Self::charge)d or no longer ready.
    pub fn next(&self) -> Option<&L> {
        let kind = self.ready_kinds().min_by_key(|kind| self.class(*kind).pass)?;
        self.class(kind).next()
    }

    /// `lane` sends to this many recipients. To be said while it is ready: of others nothing is
    /// known. It goes to the end of its tenant's line; a turn without recipients counts as one.
    pub fn charge(&mut self, lane: &L, recipients: u32) {
        let place = self.take_place();
        let Some(seat) = self.seats.get_mut(lane) else { return };
        let (kind, before) = (seat.kind, seat.place);
        seat.place = place;
        let tenant = seat.tenant.clone();
        let recipients = recipients.max(1);
        let class = self.class_mut(kind);
        class.pass = class.pass.saturating_add(stride(recipients, share_of(kind)));
        class.charge(&tenant, recipients, before, place);
        self.raise_floor();
    }

    /// Whether nothing is ready.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The class of a lane that is ready.
    pub fn kind_of(&self, lane: &L) -> Option<StreamKind> {
        self.seats.get(lane).map(|seat| seat.kind)
    }

    /// The most urgent class that has something to send.
    pub fn best(&self) -> Option<StreamKind> {
        self.ready_kinds().next()
    }

    /// The classes that have something to send; the most urgent first, so that it wins where passes
    /// are equal.
    fn ready_kinds(&self) -> impl Iterator<Item = StreamKind> {
        KINDS.into_iter().filter(|kind| !self.class(*kind).is_empty())
    }

    fn class(&self, kind: StreamKind) -> &Class<L, T> {
        match kind {
            StreamKind::Transactional => &self.transactional,
            StreamKind::Bulk => &self.bulk,
            StreamKind::Marketing => &self.marketing,
        }
    }

    fn class_mut(&mut self, kind: StreamKind) -> &mut Class<L, T> {
        match kind {
            StreamKind::Transactional => &mut self.transactional,
            StreamKind::Bulk => &mut self.bulk,
            StreamKind::Marketing => &mut self.marketing,
        }
    }

    fn take_place(&mut self) -> u64 {
        let place = self.next_place;
        // A million turns a second come round after half a million years.
        self.next_place = self.next_place.wrapping_add(1);
        place
    }

    fn raise_floor(&mut self) {
        let least = self.ready_kinds().map(|kind| self.class(kind).pass).min();
        self.floor = self.floor.max(least.unwrap_or(0));
    }
}

impl<L, T: Clone + Eq + Hash + Ord> Class<L, T> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn next(&self) -> Option<&L> {
        let (_, tenant) = self.order.first()?;
        self.tenants.get(tenant)?.lanes.first_key_value().map(|(_, lane)| lane)
    }

    fn join(&mut self, tenant: &T, weight: u32, place: u64, lane: L) {
        if let Some(line) = self.tenants.get_mut(tenant) {
            line.weight = weight;
            line.lanes.insert(place, lane);
            return;
        }
        let owed = self.away.remove(tenant);
        if let Some(pass) = owed {
            self.away_order.remove(&(pass, tenant.clone()));
        }
        let pass = owed.unwrap_or(0).max(self.floor);
        self.order.insert((pass, tenant.clone()));
        self.tenants.insert(tenant.clone(), Line { pass, weight, lanes: BTreeMap::from([(place, lane)]) });
        self.raise_floor();
    }

    fn reweigh(&mut self, tenant: &T, weight: u32) {
        if let Some(line) = self.tenants.get_mut(tenant) {
            line.weight = weight;
        }
    }

    fn leave(&mut self, tenant: &T, place: u64) {
        let Some(line) = self.tenants.get_mut(tenant) else { return };
        line.lanes.remove(&place);
        if !line.lanes.is_empty() {
            return;
        }
        let key = (line.pass, tenant.clone());
        self.tenants.remove(tenant);
        self.order.remove(&key);
        if self.order.is_empty() {
            // Nobody is there to whom anything could be owed.
            self.away.clear();
            self.away_order.clear();
            self.floor = 0;
            return;
        }
        self.away.insert(key.1.clone(), key.0);
        self.away_order.insert(key);
        self.raise_floor();
    }

    fn charge(&mut self, tenant: &T, recipients: u32, before: u64, after: u64) {
        let Some(line) = self.tenants.get_mut(tenant) else { return };
        if let Some(lane) = line.lanes.remove(&before) {
            line.lanes.insert(after, lane);
        }
        self.order.remove(&(line.pass, tenant.clone()));
        line.pass = line.pass.saturating_add(stride(recipients, line.weight));
        self.order.insert((line.pass, tenant.clone()));
        self.raise_floor();
    }

    /// Follows the least pass, and forgets those away who have nothing left to pay.
    fn raise_floor(&mut self) {
        if let Some((least, _)) = self.order.first() {
            self.floor = self.floor.max(*least);
        }
        while let Some((pass, _)) = self.away_order.first()
            && *pass <= self.floor
        {
            if let Some((_, tenant)) = self.away_order.pop_first() {
                self.away.remove(&tenant);
            }
        }
    }
}

/// How far so many recipients move what has this weight.
fn stride(recipients: u32, weight: u32) -> u128 {
    u128::from(recipients) * STRIDE / u128::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::StreamKind::{Bulk, Marketing, Transactional};
    use super::*;

    /// Tenant and stream.
    type Lane = (u32, u32);

    fn lanes(of: impl IntoIterator<Item = (Lane, StreamKind, u32)>) -> Turns<Lane, u32> {
        let mut turns = Turns::default();
        for (lane, kind, weight) in of {
            turns.ready(lane, lane.0, kind, weight);
        }
        turns
    }

    /// So many turns of so many recipients; how many each lane sent to.
    fn run(turns: &mut Turns<Lane, u32>, count: u32, recipients: impl Fn(Lane) -> u32) -> BTreeMap<Lane, u32> {
        let mut sent = BTreeMap::new();
        for _ in 0..count {
            let lane = *turns.next().unwrap();
            turns.charge(&lane, recipients(lane));
            *sent.entry(lane).or_default() += recipients(lane);
        }
        sent
    }

    fn assert_near(sent: u32, expected: f64, what: &str) {
        let off = (f64::from(sent) / expected - 1.0).abs();
        assert!(off < 0.05, "{what}: {sent}, not {expected}");
    }

    #[test]
    fn nothing_ready_is_nobodys_turn() {
        let mut turns: Turns<Lane, u32> = Turns::default();
        assert!(turns.is_empty());
        assert_eq!((turns.next(), turns.best()), (None, None));
        turns.charge(&(1, 1), 5);
        turns.unready(&(1, 1));
        assert!(turns.is_empty());
    }

    #[test]
    fn transactional_goes_first_and_nobody_starves() {
        let mut turns = lanes([((1, 1), Marketing, 100), ((2, 1), Bulk, 100), ((3, 1), Transactional, 1)]);
        assert_eq!((turns.next(), turns.best()), (Some(&(3, 1)), Some(Transactional)));
        let sent = run(&mut turns, 10_000, |_| 1);
        assert_near(sent[&(3, 1)], 9500.0, "transactional");
        assert_near(sent[&(2, 1)], 400.0, "bulk");
        assert_near(sent[&(1, 1)], 100.0, "marketing");
        turns.unready(&(3, 1));
        assert_eq!(turns.best(), Some(Bulk));
        let sent = run(&mut turns, 10_000, |_| 1);
        assert_near(sent[&(2, 1)], 8000.0, "bulk");
        assert_near(sent[&(1, 1)], 2000.0, "marketing");
    }

    #[test]
    fn classes_share_recipients_not_calls() {
        let mut turns = lanes([((1, 1), Marketing, 1), ((2, 1), Bulk, 1), ((3, 1), Transactional, 1)]);
        let sent = run(&mut turns, 100_000, |lane| [0, 50, 10, 1][lane.0 as usize]);
        let all = f64::from(sent.values().sum::<u32>());
        assert_near(sent[&(3, 1)], all * 0.95, "transactional");
        assert_near(sent[&(2, 1)], all * 0.04, "bulk");
        assert_near(sent[&(1, 1)], all * 0.01, "marketing");
    }

    /// A campaign has run for hours; a password reset comes in.
    #[test]
    fn transactional_that_comes_in_is_next() {
        for recipients in [1, 50, 1000] {
            let mut turns = lanes((1..100).map(|tenant| ((tenant, 1), Marketing, 100)));
            turns.ready((1, 2), 1, Bulk, 1);
            run(&mut turns, 5_000, |_| recipients);
            turns.ready((200, 1), 200, Transactional, 1);
            let mut behind = 0;
            while *turns.next().unwrap() != (200, 1) {
                behind += 1;
                let lane = *turns.next().unwrap();
                turns.charge(&lane, recipients);
            }
            assert!(behind <= 1, "{behind} before it");
            let sent = run(&mut turns, 1_000, |lane| if lane.0 == 200 { 1 } else { recipients });
            assert!(sent[&(200, 1)] >= 940, "it has nearly all of the turns");
        }
    }

    #[test]
    fn tenants_share_by_weight_and_by_recipients() {
        let weights = [1, 2, 5, 10, 100];
        let sizes = [50, 1, 7, 2, 13];
        let mut turns = lanes((0..5).map(|t| ((t, 0), Bulk, weights[t as usize])));
        let sent = run(&mut turns, 200_000, |lane| sizes[lane.0 as usize]);
        let all: u32 = sent.values().sum();
        for (lane, sent) in sent {
            let share = f64::from(weights[lane.0 as usize]) / 118.0;
            assert_near(sent, f64::from(all) * share, &format!("{lane:?}"));
        }
    }

    #[test]
    fn weights_are_bounded_and_can_change() {
        let mut turns = lanes([((1, 1), Bulk, 0), ((2, 1), Bulk, 10_000)]);
        let sent = run(&mut turns, 10_100, |_| 1);
        assert_near(sent[&(1, 1)], 100.0, "taken as 1");
        turns.ready((1, 1), 1, Bulk, 100);
        let sent = run(&mut turns, 10_000, |_| 1);
        assert_near(sent[&(1, 1)], 5000.0, "taken as 100");
    }

    #[test]
    fn a_tenant_of_fifty_lanes_has_no_more_than_one_of_one() {
        let mut turns = lanes((0..50).map(|stream| ((1, stream), Transactional, 10)));
        turns.ready((2, 0), 2, Transactional, 10);
        let sent = run(&mut turns, 10_000, |_| 1);
        assert_near(sent[&(2, 0)], 5000.0, "the one lane");
        for stream in 0..50 {
            assert_eq!(sent[&(1, stream)], 100, "and the fifty share alike");
        }
    }

    /// One tenant has a million messages waiting, the other sends one now and then.
    #[test]
    fn a_million_waiting_messages_delay_another_tenant_by_one_turn() {
        let mut turns = lanes([((1, 1), Bulk, 10)]);
        let mut waiting = 1_000_000_u32;
        let mut late = 0;
        while waiting > 0 {
            if waiting.is_multiple_of(100) {
                turns.ready((2, 1), 2, Bulk, 10);
                let mut behind = 0;
                while *turns.next().unwrap() == (1, 1) {
                    turns.charge(&(1, 1), 1);
                    waiting -= 1;
                    behind += 1;
                }
                turns.charge(&(2, 1), 1);
                turns.unready(&(2, 1));
                late = late.max(behind);
            }
            turns.charge(&(1, 1), 1);
            waiting = waiting.saturating_sub(1);
        }
        assert!(late <= 1, "{late} turns late");
        assert!(turns.bulk.away.is_empty(), "what was owed is long paid");
    }

    #[test]
    fn who_comes_back_has_neither_credit_nor_less_debt() {
        // Away for long: no credit.
        let mut turns = lanes([((1, 1), Bulk, 1), ((2, 1), Bulk, 1)]);
        run(&mut turns, 100, |_| 1);
        turns.unready(&(2, 1));
        run(&mut turns, 100_000, |_| 1);
        turns.ready((2, 1), 2, Bulk, 1);
        assert_near(run(&mut turns, 1_000, |_| 1)[&(2, 1)], 500.0, "half, not all");

        // Away after each message: no gain by it.
        let mut turns = lanes([((1, 1), Bulk, 1), ((2, 1), Bulk, 10)]);
        let mut sent = [0_u32; 2];
        for _ in 0..11_000 {
            let lane = *turns.next().unwrap();
            turns.charge(&lane, 1);
            sent[lane.0 as usize - 1] += 1;
            if lane == (1, 1) {
                turns.unready(&lane);
                turns.ready(lane, 1, Bulk, 1);
            }
        }
        assert_near(sent[0], 1000.0, "its share");

        // The same for classes.
        let mut turns = lanes([((1, 1), Marketing, 1), ((2, 1), Transactional, 1)]);
        let mut sent = [0_u32; 2];
        for _ in 0..9_600 {
            let lane = *turns.next().unwrap();
            turns.charge(&lane, 1);
            sent[lane.0 as usize - 1] += 1;
            if lane == (1, 1) {
                turns.unready(&lane);
                turns.ready(lane, 1, Marketing, 1);
            }
        }
        assert_near(sent[0], 100.0, "its share");
    }

    #[test]
    fn ready_said_twice_changes_nothing_and_moves_what_has_moved() {
        let mut turns = lanes([((1, 1), Bulk, 1), ((1, 2), Bulk, 1), ((2, 1), Bulk, 1)]);
        turns.charge(&(1, 1), 3);
        for _ in 0..5 {
            turns.ready((1, 1), 1, Bulk, 1);
            turns.ready((2, 1), 2, Bulk, 1);
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            let lane = *turns.next().unwrap();
            order.push(lane);
            turns.charge(&lane, 1);
        }
        assert_eq!(order, [(2, 1), (2, 1), (2, 1), (1, 2), (2, 1), (1, 1)]);
        turns.ready((1, 1), 1, Transactional, 1);
        assert_eq!((turns.best(), turns.next()), (Some(Transactional), Some(&(1, 1))));
        turns.ready((1, 1), 7, Transactional, 1);
        assert_eq!(turns.transactional.tenants.keys().collect::<Vec<_>>(), [&7]);
        assert_eq!(turns.seats.len(), 3);
    }

    #[test]
    fn when_nothing_is_ready_nothing_is_remembered() {
        let mut turns = lanes((0..1000).map(|t| ((t, 0), KINDS[t as usize % 3], 1 + t % 100)));
        run(&mut turns, 5_000, |_| 7);
        for tenant in 0..1000 {
            turns.unready(&(tenant, 0));
            let away = turns.bulk.away.len();
            assert_eq!(away, turns.bulk.away_order.len());
        }
        assert!(turns.is_empty() && turns.seats.capacity() == 0);
        for class in [&turns.transactional, &turns.bulk, &turns.marketing] {
            assert!(class.is_empty() && class.tenants.is_empty() && class.away.is_empty() && class.pass == 0);
        }
    }

    /// Ten thousand tenants, and a turn is still a matter of microseconds: what is counted here is
    /// that each gets exactly one of ten thousand turns.
    #[test]
    fn ten_thousand_tenants_have_a_turn_each() {
        let mut turns = lanes((0..10_000).map(|tenant| ((tenant, 0), Bulk, 10)));
        for _ in 0..3 {
            let sent = run(&mut turns, 10_000, |_| 1);
            assert_eq!(sent.len(), 10_000);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ready {
            lane: Lane,
            kind: usize,
            weight: u32,
        },
        Unready(Lane),
        /// Turns of up to so many recipients.
        Serve {
            turns: u32,
            most: u32,
        },
    }

    fn a_step() -> impl Strategy<Value = Step> {
        let lane = (0..6_u32, 0..4_u32);
        prop_oneof![
            3 => (lane.clone(), 0..3_usize, 1..=100_u32)
                .prop_map(|(lane, kind, weight)| Step::Ready { lane, kind, weight }),
            2 => lane.prop_map(Step::Unready),
            3 => (1..40_u32, 1..=50_u32).prop_map(|(turns, most)| Step::Serve { turns, most }),
        ]
    }

    /// One lane is ready all the time; others come, go, change class and weight and send what they
    /// like. Between two of its turns no more recipients are served than the shares allow.
    #[test]
    fn nobody_starves_whatever_the_others_do() {
        const MOST: u64 = 50;
        const LANE: Lane = (77, 0);
        let (longest, served) = (std::cell::Cell::new(0_u64), std::cell::Cell::new(0_u64));
        let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let cases = (0..3_usize, 1..=100_u32, prop::collection::vec(a_step(), 50..300));
        runner
            .run(&cases, |(kind, weight, steps)| {
                let mut turns = lanes([(LANE, KINDS[kind], weight)]);
                // Of a hundred recipients so many are its class's; of those its tenant has `weight`
                // of at most 6 × 100 + its own; the tenants are 7 in all, and any call may overrun.
                let class = u64::from(share_of(KINDS[kind]));
                let tenants = 600 / u64::from(weight) + 1;
                let bound = (tenants + 8) * MOST * (100 / class + 3);
                let mut since = 0_u64;
                for step in steps {
                    match step {
                        Step::Ready { lane, kind, weight } => turns.ready(lane, lane.0, KINDS[kind], weight),
                        Step::Unready(lane) => turns.unready(&lane),
                        Step::Serve { turns: count, most } => {
                            for n in 0..count {
                                let lane = *turns.next().unwrap();
                                let recipients = 1 + (n * 31 + lane.1) % most;
                                turns.charge(&lane, recipients);
                                since += u64::from(recipients);
                                if lane == LANE {
                                    served.set(served.get() + 1);
                                    since = 0;
                                }
                                longest.set(longest.get().max(since));
                                prop_assert!(since <= bound, "{} recipients since, {}", since, bound);
                            }
                        }
                    }
                    for class in [&turns.transactional, &turns.bulk, &turns.marketing] {
                        prop_assert_eq!(class.order.len(), class.tenants.len());
                        prop_assert_eq!(class.away.len(), class.away_order.len());
                        let least = class.order.first().map_or(class.floor, |(pass, _)| *pass);
                        prop_assert!(least >= class.floor);
                    }
                    let lanes: usize = KINDS
                        .iter()
                        .flat_map(|kind| turns.class(*kind).tenants.values().map(|line| line.lanes.len()))
                        .sum();
                    prop_assert_eq!(lanes, turns.seats.len());
                }
                Ok(())
            })
            .unwrap();
        assert!(longest.get() > 500 && served.get() > 10_000, "{} {}", longest.get(), served.get());
    }

    /// Any weights: the shares come within a twentieth of them, and a lane waits no longer than the
    /// sum of the weights over its own.
    #[test]
    fn shares_converge_to_any_weights() {
        let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let widest = std::cell::Cell::new(0);
        runner
            .run(&prop::collection::vec(1..=100_u32, 2..30), |weights| {
                let mut turns = lanes((0..).zip(&weights).map(|(tenant, weight)| ((tenant, 0), Bulk, *weight)));
                let all: u32 = weights.iter().sum();
                let rounds = 60;
                let mut last = vec![0_u32; weights.len()];
                let mut sent = vec![0_u32; weights.len()];
                for turn in 0..all * rounds {
                    let lane = *turns.next().unwrap();
                    turns.charge(&lane, 1);
                    let tenant = lane.0 as usize;
                    let longest = all.div_ceil(weights[tenant]) + weights.len() as u32;
                    prop_assert!(turn - last[tenant] <= longest);
                    last[tenant] = turn;
                    sent[tenant] += 1;
                }
                for (sent, weight) in sent.into_iter().zip(&weights) {
                    let off = (f64::from(sent) / f64::from(weight * rounds) - 1.0).abs();
                    prop_assert!(off < 0.05, "{} of {}", sent, weight * rounds);
                }
                let spread = weights.iter().max().unwrap() / weights.iter().min().unwrap();
                widest.set(widest.get().max(spread));
                Ok(())
            })
            .unwrap();
        assert!(widest.get() >= 50, "{}", widest.get());
    }
}
