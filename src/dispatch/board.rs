//! What the dispatcher knows between two turns: the breakers, whose turn it is, the account's rate,
//! which lanes are held and how many calls each has under way. Pure but for living behind a mutex.
//!
//! Promises: a lane is among those whose turn may come only while it has something ready, its
//! standing lets it send, it has a call to spare, its [gates](super::gate) have room and its breaker lets
//! it; what a lane is let send is reserved at all its gates at once; mail that has just come in does not
//! overtake mail that waits: not its own lane's, nor any of its class or a more urgent one
//! while the rate is what all wait for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::breaker::{Breakers, Change, Permit};
use super::choose::Turns;
use super::gate::{Gates, Moment, Shut};
use super::pace::{Pace, Slot, beside_ses};
use super::waits::Waits;
use crate::mail::TenantId;
use crate::outbox::{Cause, Lane, LaneState};
use crate::policy::exposure;
use crate::policy::tenant::StreamKind;
use crate::time::Timestamp;

/// Whether a lane may send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may, as mail of this kind and with its tenant's weight.
    Granted {
        /// Its class.
        kind: StreamKind,
        /// Its tenant's share.
        weight: u32,
    },
    /// It may not, until a moment if one is known.
    Held {
        /// Why, in words.
        reason: String,
        /// Until when; `None`: until whoever holds it lets go.
        until: Option<Timestamp>,
    },
}

/// A lane held by hand or by a verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Why, in words.
    pub reason: String,
    /// Until when; `None`: until it is released.
    pub until: Option<Timestamp>,
}

/// Whose turn it is, if anybody's.
#[derive(Clone, PartialEq, Debug)]
pub enum Pick {
    /// This lane's next message goes.
    Go {
        /// Whose.
        lane: Lane,
        /// For so many recipients, which are reserved.
        recipients: u32,
        /// From when its calls may begin.
        slot: Slot,
        /// What becomes of it decides for others.
        probe: bool,
    },
    /// Nobody's, before a moment if one is known.
    Wait(Option<Instant>),
}

/// Mail that has just come in and wants to go at once.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Its lane.
    pub lane: &'a Lane,
    /// Its class.
    pub kind: StreamKind,
    /// To how many.
    pub recipients: u32,
    /// What of its lane is held.
    pub waiting: LaneState,
}

/// Why mail that has just come in may not go at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Why.
    pub cause: Cause,
    /// From when it may, if that is known.
    pub until: Option<Instant>,
}

/// The state.
#[derive(Debug)]
pub struct Board {
    breakers: Breakers<Lane>,
    turns: Turns<Lane, TenantId>,
    pace: Pace,
    /// Calls under way of held messages.
    flights: HashMap<Lane, usize>,
    calls_per_lane: usize,
    /// Held by hand or by a verdict.
    holds: HashMap<Lane, Hold>,
    /// Lanes that do not send by their standing, and why.
    standing: HashMap<Lane, String>,
    /// Lanes that wait for a breaker.
    parked: BTreeSet<Lane>,
    /// When the first of them may ask again.
    parked_until: Option<Instant>,
    /// The most urgent class that waits for the rate.
    starved: Option<StreamKind>,
    /// What may leave of each lane.
    pub gates: Gates,
    /// Lanes that wait for a gate, and those of them that know until when.
    gated: BTreeMap<Lane, Shut>,
    gated_until: BTreeSet<(Instant, Lane)>,
}

impl From<Cause> for Kept {
    fn from(cause: Cause) -> Self {
        Self { cause, until: None }
    }
}

impl Board {
    /// Nothing is known yet. `calls_per_lane`: calls of one lane's held messages at once.
    pub fn new(rate: Option<f64>, calls_per_lane: usize, exposure: exposure::Rules) -> Self {
        Self {
            breakers: Breakers::default(),
            turns: Turns::default(),
            pace: Pace::new(rate.map(beside_ses)),
            flights: HashMap::new(),
            calls_per_lane: calls_per_lane.max(1),
            holds: HashMap::new(),
            standing: HashMap::new(),
            parked: BTreeSet::new(),
            parked_until: None,
            starved: None,
            gates: Gates::new(exposure, rate),
            gated: BTreeMap::new(),
            gated_until: BTreeSet::new(),
        }
    }

    /// Whether mail that has just come in may be offered to SES at once, and its recipients are reserved;
    /// else why it is held.
    pub fn direct(&mut self, asking: &Asking<'_>, moment: Moment) -> Result<Slot, Kept> {
        let Asking { lane, kind, recipients, waiting } = *asking;
        if self.holds.contains_key(lane) {
            return Err(Cause::Standing.into());
        }
        if let Some((cause, _)) = self.breakers.ask(lane) {
            return Err(cause.into());
        }
        if waiting.ready + waiting.active > 0 {
            // What keeps those before it keeps it too, and says more.
            let shut = self.gated.get(lane);
            return Err(shut.map_or(Cause::Backlog.into(), |shut| Kept { cause: shut.cause, until: shut.until }));
        }
        if self.starved.is_some_and(|urgent| urgent <= kind) {
            return Err(Cause::Rate.into());
        }
        self.gates
            .peek(lane, kind, recipients, moment)
            .map_err(|shut| Kept { cause: shut.cause, until: shut.until })?;
        let taken = self.pace.take(recipients, moment.0);
        let slot = taken.map_err(|until| Kept { cause: Cause::Rate, until: Some(until) })?;
        self.gates.reserve(lane, recipients, moment.0);
        Ok(slot)
    }

    /// Whether mail that has just come in and that cannot be held may go to SES after all, and whether
    /// it goes as a probe: while nothing can be held no held mail finds out that SES answers again. Its
    /// recipients are reserved.
    pub fn last_resort(&mut self, asking: &Asking<'_>, moment: Moment) -> Option<(Slot, bool)> {
        let Asking { lane, kind, recipients, waiting } = *asking;
        let must_wait = self.holds.contains_key(lane) || waiting.ready + waiting.active > 0;
        if must_wait
            || self.starved.is_some_and(|urgent| urgent <= kind)
            || self.pace.peek(moment.0).is_err()
            || self.gates.peek(lane, kind, recipients, moment).is_err()
        {
            return None;
        }
        let is_probe = match self.breakers.permit(lane, moment.0) {
            Permit::Go => false,
            Permit::Probe => true,
            Permit::Wait { .. } => return None,
        };
        let slot = self.pace.take(recipients, moment.0).unwrap_or_default();
        self.gates.reserve(lane, recipients, moment.0);
        Some((slot, is_probe))
    }

    /// Says anew whether a lane is among those whose turn may come.
    pub fn refresh(&mut self, lane: &Lane, state: LaneState, standing: &Standing, now: Timestamp) {
        self.parked.remove(lane);
        self.open_gate(lane);
        if state == LaneState::default() {
            self.standing.remove(lane);
        }
        let held = self.holds.get(lane).filter(|hold| hold.until.is_none_or(|until| now < until));
        match (held, standing) {
            (Some(_), _) => self.turns.unready(lane),
            (None, Standing::Held { reason, .. }) => {
                if state != LaneState::default() {
                    self.standing.insert(lane.clone(), reason.clone());
                }
                self.turns.unready(lane);
            }
            (None, Standing::Granted { kind, weight }) => {
                self.standing.remove(lane);
                let flying = self.flights.get(lane).copied().unwrap_or_default();
                if state.ready > 0 && flying < self.calls_per_lane {
                    self.turns.ready(lane.clone(), lane.tenant.clone(), *kind, *weight);
                } else {
                    self.turns.unready(lane);
                }
            }
        }
    }

    /// Whose turn it is; its recipients are reserved. `recipients` tells how many the next message of a
    /// lane goes to, `None` where none can go at the moment.
    pub fn pick(&mut self, moment: Moment, recipients: impl Fn(&Lane) -> Option<u32>) -> Pick {
        let now = moment.0;
        self.starved = None;
        loop {
            let Some(lane) = self.turns.next().cloned() else {
                return Pick::Wait(self.breakers.next(now).into_iter().chain(self.next_gate()).min());
            };
            let Some(recipients) = recipients(&lane) else {
                self.turns.unready(&lane);
                continue;
            };
            let kind = self.turns.kind_of(&lane).unwrap_or(StreamKind::Transactional);
            if let Err(shut) = self.gates.peek(&lane, kind, recipients, moment) {
                self.turns.unready(&lane);
                self.shut_gate(lane, shut);
                continue;
            }
            if let Err(at) = self.pace.peek(now) {
                self.starved = self.turns.best();
                return Pick::Wait(Some(self.next_gate().map_or(at, |gate| gate.min(at))));
            }
            let permit = self.breakers.permit(&lane, now);
            if let Permit::Wait { until, .. } = permit {
                self.turns.unready(&lane);
                self.parked.insert(lane);
                self.parked_until = Some(self.parked_until.map_or(until, |first| first.min(until)));
                continue;
            }
            let slot = self.pace.take(recipients, now).unwrap_or_default();
            self.gates.reserve(&lane, recipients, now);
            self.turns.charge(&lane, recipients);
            let flying = self.flights.entry(lane.clone()).or_default();
            *flying += 1;
            if *flying >= self.calls_per_lane {
                self.turns.unready(&lane);
            }
            return Pick::Go { lane, recipients, slot, probe: permit == Permit::Probe };
        }
    }

    fn shut_gate(&mut self, lane: Lane, shut: Shut) {
        if let Some(until) = shut.until {
            self.gated_until.insert((until, lane.clone()));
        }
        self.gated.insert(lane, shut);
    }

    fn open_gate(&mut self, lane: &Lane) {
        if let Some(Shut { until: Some(until), .. }) = self.gated.remove(lane) {
            self.gated_until.remove(&(until, lane.clone()));
        }
    }

    /// When the first lane that waits for a gate may look again.
    pub fn next_gate(&self) -> Option<Instant> {
        self.gated_until.first().map(|(until, _)| *until)
    }

    /// The lanes whose gate may be open by now, to be looked at anew.
    pub fn take_gates_over(&mut self, now: Instant) -> Vec<Lane> {
        let mut over = Vec::new();
        while self.next_gate().is_some_and(|until| until <= now)
            && let Some((_, lane)) = self.gated_until.pop_first()
        {
            self.gated.remove(&lane);
            over.push(lane);
        }
        over
    }

    /// All lanes that wait for a gate, to be looked at anew.
    pub fn take_gated(&mut self) -> Vec<Lane> {
        self.gated_until.clear();
        std::mem::take(&mut self.gated).into_keys().collect()
    }

    /// What a lane gave back, or was heard of, may be what it waits for, or another of its tenant's: those,
    /// to be looked at anew. What waits for the account waits for SES's next answer.
    pub fn take_gated_by(&mut self, lane: &Lane) -> Vec<Lane> {
        if self.gated.is_empty() {
            return Vec::new();
        }
        let first = Lane { tenant: lane.tenant.clone(), stream: None };
        let of_tenant = self.gated.range(first..).take_while(|(of, _)| of.tenant == lane.tenant);
        let concerned = of_tenant.filter(|(of, shut)| *of == lane || shut.cause == Cause::DailyCap);
        let concerned: Vec<Lane> = concerned.map(|(of, _)| of.clone()).collect();
        concerned.iter().for_each(|lane| self.open_gate(lane));
        concerned
    }

    /// How many lanes wait for which gate: for the metrics.
    pub fn gated(&self) -> BTreeMap<Cause, usize> {
        let mut counts = BTreeMap::new();
        for shut in self.gated.values() {
            *counts.entry(shut.cause).or_default() += 1;
        }
        counts
    }

    /// A message of a lane that was picked has come to the end of its attempt.
    pub fn landed(&mut self, lane: &Lane) {
        if let Some(flying) = self.flights.get_mut(lane) {
            *flying -= 1;
            if *flying == 0 {
                self.flights.remove(lane);
            }
        }
    }

    /// A probe ended without a call's outcome.
    pub fn abandoned(&mut self, lane: &Lane) {
        self.breakers.abandoned(lane);
    }

    /// A call has come to its end; `failure` as [`Breakers::answered`] has it.
    pub fn answered(
        &mut self,
        lane: &Lane,
        failure: Option<Cause>,
        (begun, now): (Instant, Instant),
        fraction: f64,
        waits: &Waits,
    ) -> Vec<Change<Lane>> {
        if failure == Some(Cause::Throttled) {
            self.pace.throttled(now);
        }
        self.breakers.answered(lane, failure, begun, now, fraction, waits)
    }

    /// Whether a lane waits for its own breaker or the account's.
    pub fn is_shut(&self, lane: &Lane) -> bool {
        self.breakers.ask(lane).is_some()
    }

    /// What a lane waits for that no message of its own says: a hold, its standing, a breaker, a gate.
    pub fn why(&self, lane: &Lane, now: Instant) -> Option<(String, Option<Duration>)> {
        if let Some(hold) = self.holds.get(lane) {
            return Some((hold.reason.clone(), None));
        }
        if let Some(reason) = self.standing.get(lane) {
            return Some((reason.clone(), None));
        }
        if let Some((cause, until)) = self.breakers.ask(lane) {
            return Some((cause.word().to_owned(), Some(until.saturating_duration_since(now))));
        }
        let shut = self.gated.get(lane)?;
        Some((shut.cause.word().to_owned(), shut.until.map(|until| until.saturating_duration_since(now))))
    }

    /// Holds a lane until a moment, or until it is released.
    pub fn hold(&mut self, lane: &Lane, hold: Hold) {
        self.turns.unready(lane);
        self.holds.insert(lane.clone(), hold);
    }

    /// Lets a lane go; whether it was held.
    pub fn let_go(&mut self, lane: &Lane) -> bool {
        self.holds.remove(lane).is_some()
    }

    /// By hand: what a breaker keeps is tried at once, of a lane or of all.
    pub fn try_now(&mut self, lane: Option<&Lane>) {
        self.breakers.reopen_now(None);
        if let Some(lane) = lane {
            self.breakers.reopen_now(Some(lane));
        }
    }

    /// The account takes so many recipients a second.
    pub fn change_rate(&mut self, rate: Option<f64>, now: Instant) {
        self.pace.change(rate.map(beside_ses), now);
        self.gates.change_rate(rate, now);
    }

    /// The account's rate as it is in force, which is less for a while after it was exceeded.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        self.pace.effective(now)
    }

    /// The lanes that wait for a breaker, to be looked at anew.
    pub fn take_parked(&mut self) -> Vec<Lane> {
        self.parked_until = None;
        std::mem::take(&mut self.parked).into_iter().collect()
    }

    /// Lanes that are held, by whatever: for the metrics.
    pub fn held(&self) -> usize {
        self.holds.len() + self.standing.keys().filter(|lane| !self.holds.contains_key(lane)).count()
    }

    /// Lets go the lanes whose hold is over, whatever else they wait for; which they are.
    pub fn take_holds_over(&mut self, now: Timestamp) -> Vec<Lane> {
        let over = |hold: &mut Hold| hold.until.is_some_and(|until| until <= now);
        self.holds.extract_if(|_, hold| over(hold)).map(|(lane, _)| lane).collect()
    }

    /// The next moment at which a hold is over.
    pub fn next_hold(&self) -> Option<Timestamp> {
        self.holds.values().filter_map(|hold| hold.until).min()
    }

    /// When the first lane that waits for a breaker may ask again.
    pub fn parked_until(&self) -> Option<Instant> {
        self.parked_until
    }
}
