//! The outbox's promises, over restarts, faults of store and spool, and stores of another day: what
//! was held is held until it is completed or discarded, whole, and nothing else is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/outbox_model.rs"]
mod outbox_model;
#[path = "support/store_model.rs"]
#[allow(dead_code)]
mod store_model;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead::adapters::sled::SledStore;
use bulkhead::mail::MessageId;
use bulkhead::outbox::memory::MemorySpool;
use bulkhead::outbox::recover::Found;
use bulkhead::outbox::{
    BodyError, Bounds, Cause, Content, Deferral, Draft, Entry, HoldError, Holding, LEAST, Lane, Lease, Mark, Options,
    Outbox, OutboxError, Progress, Spool, SpoolError, Start, Wait,
};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, CommitError, If, Key, Pending, ReadError, Store, Versioned, record};
use bulkhead::time::Timestamp;
use bytes::Bytes;
use outbox_model::{Fault, Flaky, Held, Row, lanes, manifest, past};
use store_model::Dice;

const NODE: &str = "main";
const UNKNOWN_WAIT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(300);
const OPTIONS: Options = Options {
    bounds: Bounds { messages: 12, messages_per_tenant: 9, bytes_per_tenant: 9000 },
    disk_reserve_bytes: 1000,
};
const CAUSES: [Cause; 4] = [Cause::Throttled, Cause::Network, Cause::Handoff, Cause::Unknown];

// ---------------------------------------------------------------------------------------------
// The model

/// Where the rows are.
enum Backend {
    Memory(Arc<MemoryStore>),
    Sled(tempfile::TempDir, Arc<SledStore>),
}

impl Backend {
    fn sled() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        Self::Sled(folder, store)
    }

    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Sled(_, store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    /// As after a restart; without anything, if `anew`.
    fn again(self, anew: bool) -> Self {
        match self {
            Self::Memory(_) if anew => Self::Memory(Arc::default()),
            Self::Sled(..) if anew => Self::sled(),
            Self::Memory(store) => Self::Memory(store),
            Self::Sled(folder, store) => {
                store.close();
                drop(store);
                let store = Arc::new(SledStore::open(folder.path()).unwrap());
                Self::Sled(folder, store)
            }
        }
    }
}

/// How deep the sequences got.
#[derive(Default, Debug)]
struct Depth {
    held: usize,
    spilled: usize,
    held_leased: usize,
    past: usize,
    no_room: usize,
    spool_failed: usize,
    leased: usize,
    leased_without_end: usize,
    knew_more: usize,
    deferred: usize,
    unnoted: usize,
    completed: usize,
    dropped: usize,
    discarded: usize,
    retried: usize,
    released: usize,
    promoted: usize,
    conflicts: usize,
    stopped: usize,
    one_more: usize,
    refused_while_stopped: usize,
    restarts: usize,
    older: usize,
    unknown: usize,
    adopted: usize,
    strays_adopted: usize,
    swept: usize,
    missing: usize,
    ghosts: usize,
    damaged: usize,
}

struct World {
    backend: Option<Backend>,
    store: Arc<Flaky>,
    spool: MemorySpool,
    outbox: Arc<Outbox>,
    leases: Vec<Lease>,
    now: Timestamp,
    dice: Dice,
    number: u64,
    held: BTreeMap<MessageId, Held>,
    /// Files that have no row, as what they would be held again.
    strays: BTreeMap<MessageId, Held>,
    free: u64,
    spool_fails: bool,
    copy: Option<Vec<(Key, Bytes)>>,
    depth: Depth,
}

impl World {
    async fn new(seed: u64, backend: Backend) -> Self {
        let (store, spool) = (Flaky::new(backend.store()), MemorySpool::new());
        let now = Timestamp::from_millis(1_777_000_000_000);
        let (outbox, found) = open(&store, &spool, now).await;
        assert_eq!(found, Found::default());
        Self {
            backend: Some(backend),
            store,
            spool,
            outbox,
            leases: Vec::new(),
            now,
            dice: Dice::new(seed),
            number: 0,
            held: BTreeMap::new(),
            strays: BTreeMap::new(),
            free: 1 << 30,
            spool_fails: false,
            copy: None,
            depth: Depth::default(),
        }
    }

    fn roll(&mut self, sides: u64) -> usize {
        self.dice.roll(sides) as usize
    }

    async fn step(&mut self) {
        // A disk that fails or is full, and a store that has stopped, are seen to soon.
        if self.roll(6) == 0 {
            self.spool_fails = false;
            self.spool.fail_with(None);
            self.free = 1 << 30;
            self.spool.leave_room(self.free);
        }
        let sides = if self.store.stopped() { 100 } else { 72 };
        match self.roll(sides) {
            0..=14 => self.hold().await,
            15..=31 => self.lease().await,
            32..=42 => self.defer().await,
            43..=47 => self.complete().await,
            48..=50 => self.drop_lease(),
            51 | 52 => self.discard().await,
            53 | 54 => self.retry().await,
            55 => self.release(),
            56..=63 => self.promote(),
            64 => {
                let fault = [SpoolError::Full("disk".into()), SpoolError::Io("I/O".into())][self.roll(2)].clone();
                self.spool_fails = self.roll(4) > 0;
                self.spool.fail_with(self.spool_fails.then_some(fault));
                self.outbox.probe().await;
                assert!(self.spool_fails || self.free < 1000 + LEAST || self.outbox.fault().is_none());
            }
            65 => {
                self.free = [1 << 30, 999, 1500, 6000][self.roll(4)];
                self.spool.leave_room(self.free);
            }
            66 => self.copy().await,
            67 => self.restart(1, false).await,
            68 if self.copy.is_some() => self.restart(0, true).await,
            69 if self.roll(2) == 0 => self.restart(2, false).await,
            68..=70 => {}
            _ => {
                // Files that served, or that nobody was promised, meet each kind of start.
                let (harm, older) = ([0, 0, 0, 2][self.roll(4)], self.copy.is_some() && self.roll(4) == 0);
                self.restart(if older { 0 } else { harm }, older).await;
            }
        }
        self.look().await;
    }

    /// Lets the next commit fail now and then. Says how it will go.
    fn arm(&mut self) -> Option<Fault> {
        if self.store.stopped() {
            return Some(Fault::Stops);
        }
        let fault = match self.roll(30) {
            0 | 1 => Some(Fault::Conflict),
            2 => Some(Fault::Stops),
            3 => Some(Fault::StopsBehindIt),
            _ => None,
        };
        self.store.arm(fault);
        fault
    }

    /// Whether the commit wrote, which had this fault.
    fn wrote(&mut self, fault: Option<Fault>) -> bool {
        match fault {
            Some(Fault::Conflict) => self.depth.conflicts += 1,
            Some(_) => self.depth.stopped += 1,
            None => {}
        }
        matches!(fault, None | Some(Fault::StopsBehindIt))
    }

    async fn hold(&mut self) {
        self.number += 1;
        let lane = lanes().swap_remove(self.roll(4));
        let recipients = 1 + self.roll(4);
        let manifest = manifest(self.number, &lane, recipients, self.now);
        let octets: Vec<u8> = (0..[0, 10, 700, 2500][self.roll(4)]).map(|at| (at + self.number) as u8).collect();
        let mut progress = Progress::none(recipients);
        if self.roll(3) == 0 {
            self.advance(&mut progress);
        }
        let (mut content, mut first) =
            (Content { first: vec![Bytes::from(octets.clone())], draft: None }, octets.len());
        if self.roll(3) == 0 {
            first = self.roll(octets.len() as u64 + 1);
            let Some(draft) = self.spill(first, &octets[first..]).await else { return };
            content = Content { first: vec![Bytes::copy_from_slice(&octets[..first])], draft: Some(draft) };
        }
        let (until, wait) = match self.roll(4) {
            0 | 1 => (Start::Ready, Wait::Ready),
            2 => {
                let at = self.now.plus(Duration::from_secs(self.dice.roll(600)));
                (Start::At(at), Wait::Until(at))
            }
            _ => (Start::Leased(self.now.plus(LEASE)), Wait::Active),
        };
        let (cause, unknown) = (CAUSES[self.roll(4)], self.dice.roll(2) as u32);
        let stopped = self.store.stopped();
        let fault = self.arm();
        let holding = Holding {
            manifest: &manifest,
            content: &content,
            progress: progress.clone(),
            cause,
            words: "",
            unknown,
            until,
        };
        let done = self.outbox.hold(holding).await;
        self.store.arm(None);

        if stopped {
            // What the schedule counts is no longer what is held: only the restart tells.
            assert!(done.is_err());
            self.depth.refused_while_stopped += 1;
            if self.spool.octets(manifest.id).is_some() {
                let row = Row { due: self.now, attempts: 0, unknown, leased: false, cause, progress: progress.clone() };
                let id = manifest.id;
                self.strays.insert(id, Held { manifest, octets, noted: progress, row, wait, cause });
            }
            return;
        }
        if self.free < OPTIONS.disk_reserve_bytes + first as u64 {
            let reserve = OPTIONS.disk_reserve_bytes;
            assert_eq!(done.unwrap_err(), HoldError::Reserve { free: self.free, reserve });
            self.depth.no_room += 1;
            return;
        }
        if let Some(past) = past(&self.held, &OPTIONS.bounds, &lane.tenant, octets.len() as u64) {
            assert_eq!(done.unwrap_err(), HoldError::Past(past));
            self.depth.past += 1;
            return;
        }
        if self.spool_fails {
            assert!(matches!(done, Err(HoldError::Spool(_))));
            assert!(self.outbox.fault().is_some());
            assert_eq!(self.spool.octets(manifest.id), None);
            self.depth.spool_failed += 1;
            return;
        }
        let due = match until {
            Start::Ready => self.now,
            Start::At(at) | Start::Leased(at) => at,
        };
        let leased = wait == Wait::Active;
        let row = Row { due, attempts: u32::from(leased), unknown, leased, cause, progress: progress.clone() };
        let id = manifest.id;
        let held = Held { manifest, octets, noted: progress, row, wait, cause };
        if fault.is_none() {
            let (_, lease) = done.unwrap();
            assert_eq!(lease.is_some(), leased);
            self.leases.extend(lease);
            self.depth.held += 1;
            self.depth.held_leased += usize::from(leased);
            self.depth.spilled += usize::from(content.draft.is_some());
            self.held.insert(id, held);
            return;
        }
        assert!(matches!(done, Err(HoldError::Store(_))), "{done:?}");
        if self.wrote(fault) {
            // Nobody was told, and it is held at the next start.
            self.depth.one_more += 1;
            self.held.insert(id, Held { wait: Wait::Active, ..held });
        } else if fault == Some(Fault::Stops) {
            self.strays.insert(id, held);
        }
    }

    async fn spill(&mut self, first: usize, tail: &[u8]) -> Option<Arc<dyn Draft>> {
        let begun = self.outbox.begin(first).await;
        if self.free < OPTIONS.disk_reserve_bytes + LEAST {
            assert!(matches!(begun.err(), Some(HoldError::Reserve { .. })));
            self.depth.no_room += 1;
            return None;
        }
        if self.spool_fails {
            assert!(matches!(begun.err(), Some(HoldError::Spool(_))));
            self.depth.spool_failed += 1;
            return None;
        }
        let mut draft = begun.unwrap();
        for part in tail.chunks(300) {
            draft.append(Bytes::copy_from_slice(part)).await.unwrap();
        }
        Some(Arc::from(draft))
    }

    /// Marks some that are open, and leaves at least one.
    fn advance(&mut self, progress: &mut Progress) {
        for at in progress.open() {
            if progress.open().len() > 1 && self.roll(2) == 0 {
                progress.mark(at, [Mark::Taken, Mark::Refused][self.roll(2)]);
            }
        }
    }

    async fn lease(&mut self) {
        let lane = lanes().swap_remove(self.roll(4));
        let end = self.now.plus(LEASE);
        let ready = self.held.iter().filter(|(_, held)| held.lane() == lane && held.wait == Wait::Ready);
        let next = ready.map(|(id, _)| *id).min();
        let stopped = self.store.stopped();
        let fault = self.arm();
        let leased = self.outbox.lease(&lane, end).await;
        self.store.arm(None);
        if stopped {
            assert!(matches!(leased, Err(_) | Ok(None)));
            self.depth.refused_while_stopped += 1;
            return;
        }
        let Some(id) = next else {
            assert!(matches!(leased, Ok(None)));
            return;
        };
        let wrote = self.wrote(fault);
        let held = self.held.get_mut(&id).unwrap();
        if wrote {
            let row = &mut held.row;
            if row.leased {
                self.depth.leased_without_end += 1;
                (row.unknown, row.cause) = (row.unknown + 1, Cause::Unknown);
                self.depth.knew_more += usize::from(row.progress != held.noted && !held.noted.is_none());
                row.progress.join(&held.noted);
            }
            (row.due, row.leased, row.attempts) = (end, true, row.attempts + 1);
            held.cause = row.cause;
        }
        if fault.is_none() {
            let lease = leased.unwrap().expect("one was ready");
            assert_eq!((lease.id(), lease.lane()), (id, &lane));
            assert_eq!(Held::row_of(end, lease.entry()), held.row);
            held.wait = Wait::Active;
            self.leases.push(lease);
            self.depth.leased += 1;
        } else {
            assert!(leased.is_err());
            held.wait = Wait::Until(end);
        }
    }

    fn a_lease(&mut self) -> Option<Lease> {
        let at = self.roll(self.leases.len().max(1) as u64);
        (!self.leases.is_empty()).then(|| self.leases.swap_remove(at))
    }

    async fn defer(&mut self) {
        let Some(lease) = self.a_lease() else { return };
        let (id, due) = (lease.id(), self.held[&lease.id()].row.due);
        let mut progress = lease.entry().progress.clone();
        if self.roll(2) == 0 {
            self.advance(&mut progress);
        }
        let until = (self.roll(3) > 0).then(|| self.now.plus(Duration::from_secs(self.dice.roll(600))));
        let (cause, unknown) = (CAUSES[self.roll(4)], self.dice.roll(2) as u32);
        let fault = self.arm();
        let changed = progress != lease.entry().progress;
        let deferral = Deferral { until, cause, words: "said".into(), progress: progress.clone(), unknown };
        let done = lease.defer(deferral, self.now).await;
        self.store.arm(None);
        assert_eq!(done.is_ok(), fault.is_none());
        let wrote = self.wrote(fault);
        let held = self.held.get_mut(&id).unwrap();
        if changed && self.spool_fails {
            self.depth.unnoted += 1;
        } else if changed {
            held.noted = progress.clone();
        }
        if wrote {
            let row = &mut held.row;
            (row.due, row.leased, row.cause, row.progress) = (until.unwrap_or(self.now), false, cause, progress);
            row.unknown += unknown;
            held.cause = cause;
        }
        held.wait = match until {
            _ if fault.is_some() => Wait::Until(due),
            Some(until) => Wait::Until(until),
            None => Wait::Ready,
        };
        self.depth.deferred += usize::from(fault.is_none());
    }

    async fn complete(&mut self) {
        let Some(lease) = self.a_lease() else { return };
        let id = lease.id();
        let fault = self.arm();
        let done = lease.complete().await;
        self.store.arm(None);
        assert_eq!(done.is_ok(), fault.is_none());
        let back = Wait::Until(self.held[&id].row.due);
        self.ended(id, fault, back);
        self.depth.completed += usize::from(fault.is_none());
    }

    /// A message's row is gone, or not.
    fn ended(&mut self, id: MessageId, fault: Option<Fault>, back: Wait) {
        if fault.is_none() {
            assert_eq!(self.spool.octets(id), None);
            self.held.remove(&id);
        } else if self.wrote(fault) {
            // It has served, its file is still there, and the schedule has it until the restart.
            let held = self.held.remove(&id).unwrap();
            self.strays.insert(id, held);
        } else {
            self.held.get_mut(&id).unwrap().wait = back;
        }
    }

    fn drop_lease(&mut self) {
        let Some(lease) = self.a_lease() else { return };
        let held = self.held.get_mut(&lease.id()).unwrap();
        held.wait = Wait::Until(held.row.due);
        self.depth.dropped += 1;
    }

    fn any(&mut self) -> Option<MessageId> {
        let at = self.roll(self.held.len().max(1) as u64);
        self.held.keys().nth(at).copied()
    }

    async fn discard(&mut self) {
        let Some(id) = self.any() else { return };
        if self.store.stopped() {
            return;
        }
        let wait = self.held[&id].wait;
        let fault = self.arm();
        let done = self.outbox.discard(id).await;
        self.store.arm(None);
        if wait == Wait::Active {
            assert_eq!(done.unwrap_err(), OutboxError::Active(id));
            return;
        }
        if let Ok((slot, entry)) = &done {
            assert_eq!(Held::row_of(slot.due, entry), self.held[&id].row);
            self.depth.discarded += 1;
            assert_eq!(self.outbox.discard(id).await.unwrap_err(), OutboxError::NotHeld(id));
        }
        assert_eq!(done.is_ok(), fault.is_none());
        self.ended(id, fault, wait);
    }

    async fn retry(&mut self) {
        let Some(id) = self.any() else { return };
        if self.store.stopped() {
            return;
        }
        // Its moment has come, so nothing is written.
        let done = self.outbox.retry(id, FAR).await;
        let held = self.held.get_mut(&id).unwrap();
        if held.wait == Wait::Active {
            assert_eq!(done, Err(OutboxError::Active(id)));
            return;
        }
        done.unwrap();
        held.wait = Wait::Ready;
        self.depth.retried += 1;
    }

    fn release(&mut self) {
        if self.store.stopped() {
            return;
        }
        let lane = (self.roll(3) > 0).then(|| lanes().swap_remove(0));
        let causes = [CAUSES[self.roll(4)], CAUSES[self.roll(4)]];
        let mut released = 0;
        for held in self.held.values_mut() {
            let waits = matches!(held.wait, Wait::Until(_)) && causes.contains(&held.cause);
            if waits && lane.as_ref().is_none_or(|lane| held.lane() == *lane) {
                held.wait = Wait::Ready;
                released += 1;
            }
        }
        assert_eq!(self.outbox.release(lane.as_ref(), &causes), released);
        self.depth.released += released;
    }

    fn promote(&mut self) {
        self.now = self.now.plus(Duration::from_millis(self.dice.roll(200_000)));
        let now = self.now;
        self.outbox.with_index(|index| index.promote(now));
        for held in self.held.values_mut() {
            if matches!(held.wait, Wait::Until(at) if at <= now) {
                held.wait = Wait::Ready;
                self.depth.promoted += 1;
            }
        }
    }

    /// A copy of the store, as a backup would be.
    async fn copy(&mut self) {
        if self.store.stopped() || self.spool_fails {
            return;
        }
        self.copy = Some(all_rows(self.store.inner()).await);
        self.outbox.renew().await.unwrap();
    }

    /// Ends the process and starts it again: with `harm` 1 a row is damaged in between, with 2 a file
    /// is lost; `older`: on the copy of the store.
    async fn restart(&mut self, harm: usize, older: bool) {
        self.leases.clear();
        let victim = self.any().filter(|_| harm > 0);
        let mut backend = self.backend.take().unwrap();
        let dead = Flaky::new(Arc::new(MemoryStore::new()));
        let (outbox, _) = open(&dead, &MemorySpool::new(), self.now).await;
        drop(std::mem::replace(&mut self.outbox, outbox));
        self.store = dead;
        backend = backend.again(older);
        let store = Flaky::new(backend.store());
        let mut ghosts = BTreeSet::new();
        if older {
            let copy = self.copy.take().unwrap();
            let of_copy: Vec<MessageId> = copy.iter().filter_map(|(key, _)| Some(Lane::of_key(key)?.2)).collect();
            ghosts = of_copy.into_iter().filter(|id| self.spool.octets(*id).is_none()).collect();
            for group in copy.chunks(100) {
                let mut batch = Batch::new();
                for (key, value) in group {
                    batch.put(key.clone(), If::Any, value.clone());
                }
                store.commit(batch).await.unwrap();
            }
            self.copy = Some(copy);
        }
        let mut lost = None;
        match victim {
            Some(id) if harm == 1 => {
                let held = &self.held[&id];
                let key = held.lane().key(NODE, held.row.due, id);
                let mut value = store.get(&key).await.unwrap().unwrap().value.to_vec();
                let at = self.roll(value.len() as u64);
                value[at] ^= 1 << self.roll(8);
                let mut batch = Batch::new();
                batch.put(key, If::Any, value.into());
                store.commit(batch).await.unwrap();
                self.depth.damaged += 1;
            }
            Some(id) => {
                self.spool.put(id, None);
                lost = self.held.remove(&id);
                ghosts.insert(id);
                self.depth.missing += 1;
            }
            None => {}
        }
        // Writing the generation is no write that this spool lets fail.
        let (outbox, found) = open(&store, &self.spool, self.now).await;
        (self.outbox, self.store) = (outbox, store);
        self.backend = Some(backend);
        self.depth.restarts += 1;
        self.depth.older += usize::from(older);
        self.found(found, &ghosts, older, victim.filter(|_| harm == 1), lost).await;
    }

    /// What must be held after a restart, and what must have been said of it.
    async fn found(
        &mut self,
        found: Found,
        ghosts: &BTreeSet<MessageId>,
        older: bool,
        damaged: Option<MessageId>,
        lost: Option<Held>,
    ) {
        let until = self.now.plus(UNKNOWN_WAIT);
        let strays = std::mem::take(&mut self.strays);
        let (mut adopted, mut swept) = (0, 0);
        let mut unknown = BTreeSet::new();
        unknown.extend(lost.filter(|held| held.row.leased).map(|held| held.manifest.id));
        for (id, held) in &mut self.held {
            if older || damaged == Some(*id) {
                held.again(until);
                adopted += 1;
                continue;
            }
            (held.wait, held.cause) = (Wait::Until(held.row.due), held.row.cause);
            if held.row.leased {
                unknown.insert(*id);
                (held.wait, held.cause) = (Wait::Until(held.row.due.min(until)), Cause::Unknown);
            }
        }
        for (id, mut held) in strays {
            if older || !ghosts.is_empty() {
                // It may have been sent, and counts so.
                held.again(until);
                self.held.insert(id, held);
                adopted += 1;
                self.depth.strays_adopted += 1;
            } else {
                assert_eq!(self.spool.octets(id), None, "{id} has no row");
                swept += 1;
            }
        }
        assert_eq!((found.adopted, found.swept), (adopted, swept));
        assert_eq!(found.missing, ghosts.iter().copied().collect::<Vec<_>>());
        assert_eq!(found.held, self.held.len() + ghosts.len());
        assert_eq!(found.damaged.len(), usize::from(damaged.is_some()));
        if !older {
            assert_eq!(found.unknown.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), unknown);
        }
        let digests = found.digests.iter().filter(|known| !ghosts.contains(&known.id));
        let digests: Vec<_> = digests.map(|known| (known.id, Some(known.digest.clone()))).collect();
        let expected = self.held.iter().filter(|(_, held)| held.manifest.digest.is_some());
        assert_eq!(digests, expected.map(|(id, held)| (*id, held.manifest.digest.clone())).collect::<Vec<_>>());
        self.depth.adopted += adopted;
        self.depth.swept += swept;
        self.depth.unknown += unknown.len();
        // Whoever sends finds no file, and gives the message up.
        for id in ghosts {
            assert_eq!(self.outbox.read(*id).await, Err(BodyError::Spool(SpoolError::Missing)));
            self.outbox.discard(*id).await.unwrap();
            self.depth.ghosts += 1;
        }
        let rows = all_rows(self.store.inner()).await;
        let mut rows: Vec<MessageId> = rows.iter().filter_map(|(key, _)| Some(Lane::of_key(key)?.2)).collect();
        rows.sort();
        assert_eq!(rows, self.spool.ids(), "rows and files agree");
        for id in rows {
            self.is_whole(id).await;
        }
    }

    async fn is_whole(&self, id: MessageId) {
        let held = &self.held[&id];
        assert_eq!(self.outbox.read(id).await.unwrap(), (held.manifest.clone(), held.octets.clone()));
        assert_eq!(self.outbox.manifest(id).await.unwrap(), held.manifest);
    }

    /// Compares all of the outbox with the model.
    async fn look(&mut self) {
        if self.store.stopped() {
            return;
        }
        let slots =
            self.outbox.with_index(|index| index.after(None).map(|(id, slot)| (id, slot.clone())).collect::<Vec<_>>());
        assert_eq!(slots.len(), self.held.len());
        for ((id, slot), (expected, held)) in slots.iter().zip(&self.held) {
            assert_eq!(id, expected);
            assert_eq!((slot.wait, slot.cause, slot.due), (held.wait, held.cause, held.row.due), "{id}");
            assert_eq!(slot.recipients as usize, held.row.progress.count(Mark::Open));
            let (_, entry) = self.outbox.entry(*id).await.unwrap();
            assert_eq!(Held::row_of(slot.due, &entry), held.row);
            assert_eq!(held.wait == Wait::Active, self.leases.iter().any(|lease| lease.id() == *id));
        }
        if let Some(id) = self.any() {
            self.is_whole(id).await;
        }
        // What is reserved is what is held, no more and no less.
        for lane in lanes() {
            for bytes in [0, 10, 2500] {
                let past = past(&self.held, &OPTIONS.bounds, &lane.tenant, bytes);
                let reserved = self.outbox.with_index(|index| {
                    let reserved = index.reserve(&OPTIONS.bounds, &lane.tenant, bytes);
                    if reserved.is_ok() {
                        index.give_back(&lane.tenant, bytes);
                    }
                    reserved
                });
                assert_eq!(reserved.err(), past);
            }
        }
    }
}

async fn open(store: &Arc<Flaky>, spool: &MemorySpool, now: Timestamp) -> (Arc<Outbox>, Found) {
    open_on(Arc::clone(store) as Arc<dyn Store>, Arc::new(spool.clone()), now).await
}

async fn open_on(store: Arc<dyn Store>, spool: Arc<dyn Spool>, now: Timestamp) -> (Arc<Outbox>, Found) {
    Outbox::open(store, spool, NODE, OPTIONS, now, UNKNOWN_WAIT).await.unwrap()
}

async fn all_rows(store: &dyn Store) -> Vec<(Key, Bytes)> {
    let rows = store.scan(&Key::all(), None, 10_000).await.unwrap();
    rows.into_iter().map(|(key, row)| (key, row.value)).collect()
}

async fn sequences(count: u64, steps: usize, backend: impl Fn() -> Backend) -> Depth {
    let mut depth = Depth::default();
    for seed in 0..count {
        let mut world = World::new(seed, backend()).await;
        world.depth = depth;
        for _ in 0..steps {
            world.step().await;
        }
        world.restart(0, false).await;
        world.look().await;
        depth = world.depth;
    }
    println!("{depth:?}");
    depth
}

#[tokio::test]
async fn what_is_held_is_held_until_its_end_whatever_happens() {
    let depth = sequences(140, 150, || Backend::Memory(Arc::default())).await;
    let Depth { held, spilled, held_leased, past, no_room, spool_failed, .. } = depth;
    assert!(held > 1200 && spilled > 400 && held_leased > 300, "{depth:?}");
    assert!(past > 500 && no_room > 50 && spool_failed > 50, "{depth:?}");
    let Depth { leased, leased_without_end, knew_more, deferred, unnoted, completed, dropped, .. } = depth;
    assert!(leased > 900 && leased_without_end > 150 && knew_more > 5, "{depth:?}");
    assert!(deferred > 400 && unnoted > 3 && completed > 200 && dropped > 100, "{depth:?}");
    let Depth { discarded, retried, released, promoted, .. } = depth;
    assert!(discarded > 150 && retried > 150 && released > 100 && promoted > 2000, "{depth:?}");
    let Depth { conflicts, stopped, one_more, refused_while_stopped, restarts, older, .. } = depth;
    assert!(conflicts > 200 && stopped > 200 && one_more > 30 && refused_while_stopped > 200, "{depth:?}");
    assert!(restarts > 700 && older > 100, "{depth:?}");
    let Depth { unknown, adopted, strays_adopted, swept, missing, ghosts, damaged, .. } = depth;
    assert!(unknown > 800 && adopted > 800 && strays_adopted > 30 && swept > 80, "{depth:?}");
    assert!(missing > 100 && ghosts > 200 && damaged > 80, "{depth:?}");
}

#[tokio::test]
async fn what_is_held_on_the_real_store_is_held_until_its_end() {
    let depth = sequences(8, 120, Backend::sled).await;
    let Depth { held, leased, deferred, completed, restarts, older, unknown, adopted, swept, .. } = depth;
    assert!(held > 80 && leased > 50 && deferred > 20 && completed > 10, "{depth:?}");
    assert!(restarts > 50 && older > 3 && unknown > 30 && adopted > 30 && swept > 3, "{depth:?}");
}

// ---------------------------------------------------------------------------------------------
// One thing at a time

const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);
/// A moment at which everything is due.
const FAR: Timestamp = Timestamp::from_millis(u64::MAX);

/// An outbox, what it lies on, and so many ready messages in its first lane.
async fn with(messages: u64) -> (Arc<Outbox>, Arc<Flaky>, MemorySpool, Vec<MessageId>) {
    let (store, spool) = (Flaky::new(Arc::new(MemoryStore::new())), MemorySpool::new());
    let (outbox, _) = open(&store, &spool, NOW).await;
    let mut ids = Vec::new();
    for number in 1..=messages {
        hold(&outbox, number, &Progress::none(2)).await.unwrap();
        ids.push(manifest(number, &lanes()[0], 2, NOW).id);
    }
    ids.sort();
    (outbox, store, spool, ids)
}

async fn hold(outbox: &Arc<Outbox>, number: u64, progress: &Progress) -> Result<(), HoldError> {
    let mut draft = outbox.begin(2).await?;
    draft.append(Bytes::from_static(b"\r\n")).await.unwrap();
    let content = Content { first: vec![Bytes::from_static(b"Hi")], draft: Some(Arc::from(draft)) };
    let manifest = manifest(number, &lanes()[0], 2, NOW);
    let (cause, until) = (Cause::Handoff, Start::Ready);
    let progress = progress.clone();
    let holding = Holding { manifest: &manifest, content: &content, progress, cause, words: "", unknown: 0, until };
    outbox.hold(holding).await.map(|_| ())
}

fn deferral(marks: &str) -> Deferral {
    let progress = Progress::parse(marks).unwrap();
    Deferral { until: None, cause: Cause::Network, words: String::new(), progress, unknown: 0 }
}

/// Polls once, and is gone.
async fn once<T>(work: impl Future<Output = T>) {
    let mut work = Box::pin(work);
    let waker = std::task::Waker::noop();
    let polled = work.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending());
    drop(work);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_write_goes_to_its_end_even_if_nobody_waits_for_it() {
    let (outbox, store, spool, _) = with(0).await;
    let lane = lanes().swap_remove(0);
    let manifest = manifest(1, &lane, 2, NOW);
    let content = Content { first: vec![Bytes::from_static(b"Hi")], draft: None };
    let (progress, cause) = (Progress::none(2), Cause::Handoff);
    let until = Start::Leased(NOW.plus(LEASE));
    let holding = Holding { manifest: &manifest, content: &content, progress, cause, words: "", unknown: 0, until };
    once(outbox.hold(holding)).await;
    let (slot, entry) = outbox.entry(manifest.id).await.unwrap();
    assert_eq!((slot.wait, entry.leased), (Wait::Until(NOW.plus(LEASE)), true));

    let later = NOW.plus(LEASE * 2);
    outbox.retry(manifest.id, FAR).await.unwrap();
    once(outbox.lease(&lane, later)).await;
    let (slot, entry) = outbox.entry(manifest.id).await.unwrap();
    assert_eq!((slot.wait, slot.due, entry.attempts, entry.unknown), (Wait::Until(later), later, 2, 1));

    outbox.retry(manifest.id, FAR).await.unwrap();
    let lease = outbox.lease(&lane, later).await.unwrap().unwrap();
    assert_eq!((lease.entry().attempts, lease.entry().unknown), (3, 2));
    once(lease.defer(deferral("t."), NOW)).await;
    let (slot, entry) = outbox.entry(manifest.id).await.unwrap();
    assert_eq!((slot.wait, slot.due, entry.progress.marks()), (Wait::Ready, NOW, "t.".to_owned()));

    let lease = outbox.lease(&lane, later).await.unwrap().unwrap();
    assert_eq!(lease.entry().unknown, 2);
    once(lease.complete()).await;
    assert_eq!((outbox.backlog().messages, spool.ids().len()), (0, 0));
    assert_eq!(store.scan(&Key::outbox_of(NODE), None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_noted_while_an_attempt_goes_on_outlives_it() {
    let (outbox, store, spool, ids) = with(1).await;
    let lane = lanes().swap_remove(0);
    let lease = outbox.lease(&lane, NOW.plus(LEASE)).await.unwrap().unwrap();
    outbox.note_progress(ids[0], &Progress::parse("t.").unwrap()).await;
    assert_eq!(outbox.entry(ids[0]).await.unwrap().1.progress.marks(), "..", "the row is written at the end");
    drop(lease);
    drop(outbox);

    let later = NOW.plus(LEASE * 2);
    let (outbox, _) = open(&store, &spool, later).await;
    outbox.with_index(|index| index.promote(later.plus(UNKNOWN_WAIT)));
    let lease = outbox.lease(&lane, later.plus(LEASE)).await.unwrap().unwrap();
    assert_eq!((lease.entry().progress.marks().as_str(), lease.entry().unknown), ("t.", 1));
}

#[tokio::test]
async fn who_stops_waiting_before_the_write_leaves_the_message_as_it_was() {
    let (outbox, store, _, ids) = with(1).await;
    let lane = lanes().swap_remove(0);
    store.be_slow();
    once(outbox.lease(&lane, NOW.plus(LEASE))).await;
    let (slot, entry) = outbox.entry(ids[0]).await.unwrap();
    assert_eq!((slot.wait, entry.attempts), (Wait::Until(NOW.plus(LEASE)), 0));
    outbox.retry(ids[0], FAR).await.unwrap();
    once(outbox.discard(ids[0])).await;
    assert_eq!(outbox.entry(ids[0]).await.unwrap().0.wait, Wait::Ready);
}

#[tokio::test]
async fn nobody_leases_what_is_being_discarded_nor_the_other_way_round() {
    let (outbox, store, spool, ids) = with(1).await;
    let lane = lanes().swap_remove(0);
    store.be_slow();
    let (leased, discarded) = tokio::join!(outbox.lease(&lane, NOW.plus(LEASE)), outbox.discard(ids[0]));
    let lease = leased.unwrap().unwrap();
    assert_eq!(discarded.unwrap_err(), OutboxError::Active(ids[0]));
    assert_eq!(outbox.retry(ids[0], FAR).await, Err(OutboxError::Active(ids[0])));
    lease.defer(deferral(".."), NOW).await.unwrap();
    let (discarded, leased) = tokio::join!(outbox.discard(ids[0]), outbox.lease(&lane, NOW.plus(LEASE)));
    assert!(discarded.is_ok() && leased.unwrap().is_none());
    assert_eq!(spool.ids(), []);
}

#[tokio::test]
async fn a_row_that_is_damaged_while_we_run_is_mended_from_its_file() {
    let (outbox, store, _, ids) = with(2).await;
    let lane = lanes().swap_remove(0);
    for (id, marks) in ids.iter().zip(["t.", ".r"]) {
        let lease = outbox.lease(&lane, NOW.plus(LEASE)).await.unwrap().unwrap();
        assert_eq!(lease.id(), *id);
        let until = Some(NOW.plus(LEASE));
        lease.defer(Deferral { until, ..deferral(marks) }, NOW).await.unwrap();
        store.damage(Some(lane.key(NODE, NOW.plus(LEASE), *id)));
        let (_, entry) = outbox.entry(*id).await.unwrap();
        assert_eq!((entry.progress.marks().as_str(), entry.unknown, entry.cause), (marks, 1, Cause::Unknown));
    }
    assert_eq!(outbox.discard(ids[1]).await.unwrap().1.unknown, 1);
    store.damage(Some(lane.key(NODE, NOW.plus(LEASE), ids[0])));
    outbox.retry(ids[0], FAR).await.unwrap();
    let lease = outbox.lease(&lane, NOW.plus(LEASE * 2)).await.unwrap().unwrap();
    assert_eq!((lease.entry().progress.marks().as_str(), lease.entry().attempts), ("t.", 1));
    lease.complete().await.unwrap();
}

#[tokio::test]
async fn a_lost_file_is_no_fault_of_the_disk() {
    let (outbox, _, spool, ids) = with(1).await;
    let lease = outbox.lease(&lanes()[0], NOW.plus(LEASE)).await.unwrap().unwrap();
    spool.put(ids[0], None);
    lease.defer(deferral("t."), NOW).await.unwrap();
    assert_eq!(outbox.fault(), None);
    assert_eq!(outbox.read(ids[0]).await, Err(BodyError::Spool(SpoolError::Missing)));
}

/// A spool that takes files, and no notes.
struct NoNotes(MemorySpool);

impl Spool for NoNotes {
    fn begin(&self, room: u64) -> Pending<'_, Result<Box<dyn Draft>, SpoolError>> {
        self.0.begin(room)
    }
    fn keep(&self, id: MessageId, octets: Vec<Bytes>) -> Pending<'_, Result<(), SpoolError>> {
        self.0.keep(id, octets)
    }
    fn read(&self, id: MessageId, from: u64, most: u64) -> Pending<'_, Result<Bytes, SpoolError>> {
        self.0.read(id, from, most)
    }
    fn append(&self, _: MessageId, _: Bytes) -> Pending<'_, Result<(), SpoolError>> {
        Box::pin(std::future::ready(Err(SpoolError::Full("no notes".into()))))
    }
    fn remove(&self, id: MessageId) -> Pending<'_, Result<(), SpoolError>> {
        self.0.remove(id)
    }
    fn list(&self) -> Pending<'_, Result<Vec<MessageId>, SpoolError>> {
        self.0.list()
    }
    fn generation(&self) -> Pending<'_, Result<u64, SpoolError>> {
        self.0.generation()
    }
    fn set_generation(&self, generation: u64) -> Pending<'_, Result<(), SpoolError>> {
        self.0.set_generation(generation)
    }
    fn room(&self) -> Result<u64, SpoolError> {
        self.0.room()
    }
    fn probe(&self) -> Pending<'_, Result<(), SpoolError>> {
        self.0.probe()
    }
}

#[tokio::test]
async fn a_message_whose_note_fails_is_not_held_and_leaves_no_file() {
    let spool = MemorySpool::new();
    let (outbox, _) = open_on(Arc::new(MemoryStore::new()), Arc::new(NoNotes(spool.clone())), NOW).await;
    let held = hold(&outbox, 1, &Progress::parse("t.").unwrap()).await;
    assert_eq!(held, Err(HoldError::Spool(SpoolError::Full("no notes".into()))));
    assert!(held.unwrap_err().is_room());
    assert_eq!((spool.ids(), outbox.backlog().messages), (vec![], 0));
    hold(&outbox, 1, &Progress::none(2)).await.unwrap();
}

/// A store of another day, and a file that the disk does not give back: it stays, however often we
/// start, and once it can be read again the message is held.
#[tokio::test]
async fn a_damaged_file_of_an_older_store_is_swept_by_no_later_start() {
    let (outbox, _, spool, ids) = with(3).await;
    drop(outbox);
    let whole = spool.octets(ids[1]).unwrap();
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    spool.put(ids[1], Some(damaged));
    let store = Flaky::new(Arc::new(MemoryStore::new()));
    for start in 0..3 {
        let (outbox, found) = open(&store, &spool, NOW).await;
        assert_eq!((found.held, found.adopted, found.swept, found.damaged.len()), (2, 2, 0, 1), "start {start}");
        assert!(found.damaged[0].0.contains(&ids[1].to_string()));
        outbox.renew().await.unwrap();
        assert_eq!(spool.ids(), ids);
    }
    spool.put(ids[1], Some(whole));
    let (_, found) = open(&store, &spool, NOW).await;
    assert_eq!((found.held, found.adopted, found.damaged.len()), (3, 3, 0));
    let (_, found) = open(&store, &spool, NOW).await;
    assert_eq!((found.held, found.adopted, found.swept), (3, 0, 0));
}

/// A key that cannot be read may be any message's: no file is swept while it is there.
#[tokio::test]
async fn no_file_is_swept_while_a_key_names_no_message() {
    let (outbox, store, spool, ids) = with(2).await;
    drop(outbox);
    let key = lanes()[0].key(NODE, NOW, ids[0]);
    let value = store.get(&key).await.unwrap().unwrap().value;
    let mut octets = key.octets().to_vec();
    octets[14] ^= 0x80;
    let mut batch = Batch::new();
    batch.remove(key, If::Any).put(Key::from_octets(octets), If::Any, value);
    store.commit(batch).await.unwrap();
    for adopted in [1, 0] {
        let (_, found) = open(&store, &spool, NOW).await;
        assert_eq!((found.held, found.adopted, found.swept, found.damaged.len()), (2, adopted, 0, 1));
        assert_eq!(spool.ids(), ids);
    }
}

/// Wherever it breaks off, the next start holds every message.
#[tokio::test]
async fn a_rebuild_that_breaks_off_loses_nothing() {
    let mut broken = 0;
    for fault in [Fault::Stops, Fault::StopsBehindIt] {
        for pass in 0..5 {
            let (outbox, store, spool, ids) = with(9).await;
            drop(outbox);
            store.arm_behind(pass, fault);
            let rebuilt = Outbox::rebuild(&*store, &spool, NODE, NOW).await;
            broken += usize::from(rebuilt.is_err());
            let store = Flaky::new(Arc::new(Again(store)));
            let (outbox, found) = open(&store, &spool, NOW).await;
            assert_eq!((found.held, found.swept, found.missing.len()), (9, 0, 0), "{fault:?} behind {pass}");
            for id in ids {
                assert_eq!(outbox.entry(id).await.unwrap().1.unknown, 1, "{fault:?} behind {pass}");
                assert_eq!(outbox.read(id).await.unwrap().1, b"Hi\r\n");
            }
            let (_, found) = open(&store, &spool, NOW).await;
            assert_eq!((found.held, found.adopted), (9, 0));
        }
    }
    assert_eq!(broken, 6);
}

#[tokio::test]
async fn a_rebuild_makes_every_row_out_of_the_files_and_tells_what_is_lost() {
    let (outbox, store, spool, ids) = with(9).await;
    let lease = outbox.lease(&lanes()[0], NOW.plus(LEASE)).await.unwrap().unwrap();
    lease.defer(deferral("tr"), NOW).await.unwrap();
    drop(outbox);
    spool.put(ids[7], None);
    let found = Outbox::rebuild(&*store, &spool, NODE, NOW).await.unwrap();
    assert_eq!((found.held, found.adopted, &found.missing[..]), (8, 8, &ids[7..8]));
    let (outbox, found) = open(&store, &spool, NOW).await;
    assert_eq!((found.held, found.adopted, found.missing.len()), (8, 0, 0));
    assert_eq!(outbox.entry(ids[0]).await.unwrap().1.progress.marks(), "tr");
}

/// What a store that has stopped holds, after a restart.
struct Again(Arc<Flaky>);

impl Store for Again {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Versioned>, ReadError>> {
        self.0.inner().get(key)
    }
    fn scan<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        self.0.inner().scan(prefix, after, limit)
    }
    fn commit(&self, batch: Batch) -> Pending<'_, Result<u64, CommitError>> {
        self.0.inner().commit(batch)
    }
}

#[tokio::test]
async fn a_hundred_thousand_messages_are_known_again_without_reading_one() {
    const MANY: u64 = 100_000;
    let (store, spool) = (Arc::new(MemoryStore::new()), MemorySpool::new());
    let mut batch = Batch::new();
    for number in 0..MANY {
        let lane = lanes().swap_remove((number % 4) as usize);
        let manifest = manifest(number, &lane, 1, NOW.plus(Duration::from_millis(number)));
        let entry = Entry::new(&manifest, 5000, Progress::none(1), Cause::Service, "");
        batch.put(lane.key(NODE, manifest.created, manifest.id), If::Absent, record::seal(&entry));
        // Whoever read it would find it damaged.
        spool.put(manifest.id, Some(Vec::new()));
        if batch.len() == 100 {
            store.commit(std::mem::take(&mut batch)).await.unwrap();
        }
    }
    let began = Instant::now();
    let (outbox, found) = open_on(store, Arc::new(spool.clone()), NOW).await;
    println!("{MANY} messages were known after {:?}", began.elapsed());
    assert_eq!((found.held, found.swept, found.adopted), (MANY as usize, 0, 0));
    assert_eq!(found.digests.len(), MANY as usize / 2);
    assert_eq!(spool.reads(), 0);
    let backlog = outbox.backlog();
    assert_eq!((backlog.messages, backlog.bytes, backlog.lanes), (MANY as usize, MANY * 5000, 4));
    outbox.with_index(|index| index.promote(NOW.plus(LEASE)));
    assert!(lanes().iter().all(|lane| outbox.with_index(|index| index.lane(lane).ready) == MANY as usize / 4));
}
