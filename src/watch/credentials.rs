//! The loop that keeps what credentials are used to, and judges them.
//!
//! Promises: one message after the other, in the order they were accepted; a credential's habits are
//! read at its first message and written when they changed. A suspicion is written in one commit with
//! its announcement, so it is told of once, whenever the process ends.
//! What can go wrong: the store. A credential whose habits cannot be read is not watched and nothing of
//! it is overwritten; damaged habits are begun anew. After a hold a crash may leave its announcement
//! unmade; the hold's own `changed` line and reply tell of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Effect, Means, Options, Seen, told};
use crate::announce;
use crate::journal;
use crate::mail::{TenantId, Username};
use crate::policy::takeover::{Suspicion, judge, share};
use crate::store::habits::{self, Habits, ROWS};
use crate::store::{BATCH_ITEMS, Batch, CommitError, ReadError};
use crate::time::Timestamp;

/// How often habits of credentials that are gone are looked for.
const SWEEP: Duration = Duration::from_hours(24);
/// Credentials that a sweep looks at in one step.
const SWEPT: usize = 100;

/// The keeper of habits.
pub struct Credentials {
    means: Means,
    options: Options,
    receiver: mpsc::UnboundedReceiver<Seen>,
    waiting: Arc<AtomicUsize>,
    kept: HashMap<Username, Kept>,
    /// Credentials by when they were used, the least recent first.
    order: BTreeMap<u64, Username>,
    uses: u64,
    octets: usize,
    /// The store does not answer, and the log has been told.
    failing: bool,
    swept: Timestamp,
}

/// A credential's habits in memory.
struct Kept {
    habits: Habits,
    /// Its place in the order.
    used: u64,
}

impl Credentials {
    pub(super) fn new(
        means: Means,
        options: Options,
        receiver: mpsc::UnboundedReceiver<Seen>,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            swept: means.clock.now(),
            means,
            options,
            receiver,
            waiting,
            kept: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            octets: 0,
            failing: false,
        }
    }

    /// Watches until `drain` is cancelled, and writes what there is then.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut flush = tokio::time::interval(self.options.flush);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                _ = flush.tick() => {
                    self.flush().await;
                    self.sweep().await;
                }
                seen = self.receiver.recv() => match seen {
                    Some(seen) => self.look(seen).await,
                    // Whoever accepts messages is gone, and the drain is near.
                    None => break,
                }
            }
        }
        self.look_at_all().await;
        self.flush().await;
    }

    /// Looks at all messages that wait.
    pub async fn look_at_all(&mut self) {
        while let Ok(seen) = self.receiver.try_recv() {
            self.look(seen).await;
        }
    }

    /// How many credentials are in memory, and the octets they take.
    pub fn kept(&self) -> (usize, usize) {
        (self.kept.len(), self.octets)
    }

    async fn look(&mut self, seen: Seen) {
        let many = seen.prints.len();
        self.waiting.fetch_sub(many, Ordering::Relaxed);
        if !self.kept.contains_key(&seen.credential) && !self.fetch(&seen).await {
            journal::unwatched(many);
            return;
        }
        self.uses += 1;
        let Self { kept, order, uses, octets, options, .. } = self;
        let Some(Kept { habits, used }) = kept.get_mut(&seen.credential) else { return };
        order.remove(used);
        order.insert(*uses, seen.credential.clone());
        *used = *uses;
        if *habits.tenant() != seen.tenant {
            // The username is another tenant's now, and has no past.
            *octets = octets.saturating_sub(habits.octets());
            *habits = Habits::new(&seen.tenant, seen.at);
            *octets += habits.octets();
        }
        let before = habits.octets();
        habits.note(seen.network, &seen.prints, seen.at, options.memory);
        *octets = octets.saturating_add(habits.octets()).saturating_sub(before);
        let suspicion = judge(&options.rules, &habits.past(), &habits.hour(options.memory));
        if suspicion.stands() {
            self.suspect(&seen.tenant, &seen.credential, &suspicion, seen.at).await;
        }
        self.shrink().await;
    }

    /// Reads the habits of a credential that is not in memory; whether they are now.
    async fn fetch(&mut self, seen: &Seen) -> bool {
        let habits = match habits::read(&*self.means.store, &seen.credential).await {
            Ok(habits) => habits,
            Err(error @ ReadError::Corrupt(..)) => {
                journal::watch_deferred(&format!("{error}; the habits of {} begin anew", seen.credential));
                None
            }
            Err(error @ ReadError::Unavailable(_)) => {
                self.failed(&error.to_string());
                return false;
            }
        };
        let habits = habits.unwrap_or_else(|| Habits::new(&seen.tenant, seen.at));
        self.octets = self.octets.saturating_add(habits.octets());
        self.uses += 1;
        self.order.insert(self.uses, seen.credential.clone());
        self.kept.insert(seen.credential.clone(), Kept { habits, used: self.uses });
        true
    }

    /// A credential seems stolen: it is put on hold, if that is wanted, and told of once.
    async fn suspect(&mut self, tenant: &TenantId, credential: &Username, suspicion: &Suspicion, now: Timestamp) {
        let Some(mut effect) = self.options.stolen else { return };
        let recently = |at: Timestamp| now < at.plus(self.options.again);
        let directory = self.means.directory.load_full();
        let hold = directory.last_hold(credential);
        let Some(kept) = self.kept.get_mut(credential) else { return };
        let known = kept.habits.suspected().is_some_and(recently);
        if hold.is_some_and(|hold| hold.released.as_ref().is_none_or(|released| recently(released.at))) {
            return;
        }
        let reason = told::reason(suspicion);
        match effect {
            Effect::Alert if known => return,
            Effect::Alert => {}
            Effect::Hold => {
                if let Err(words) = self.means.holding.hold(credential, &reason).await {
                    let words = format!("{credential} seems stolen and cannot be put on hold: {words}");
                    if known {
                        return;
                    }
                    journal::watch_deferred(&words);
                    effect = Effect::Alert;
                }
            }
        }
        kept.habits.suspect(now);
        let networks = kept.habits.new_networks();
        let announcement =
            told::suspected(tenant, credential, suspicion, &networks, effect, (now, &*self.means.random));
        let mut batch = Batch::new();
        kept.habits.rows(credential, &mut batch);
        announce::write(&mut batch, &announcement);
        let written = self.means.store.commit(batch).await;
        if written.is_ok() {
            kept.habits.written();
        }
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let told = journal::Suspected {
            tenant,
            credential,
            effect: effect.word(),
            recipients: suspicion.hour.recipients,
            first_time: suspicion.hour.first_time.unwrap_or_default(),
            usual_first_time: share(suspicion.past.first_time, suspicion.past.recipients),
            from_new: suspicion.hour.from_new_networks,
            networks: &networks,
            mean: suspicion.past.same_hour_mean,
        };
        journal::credential_suspected(&told, &reason);
        self.means.announce.announce(&announcement);
        if let Err(error) = written {
            self.failed(&error.to_string());
        }
    }

    /// Takes the least recently used out of memory where there are too many, or they are too large.
    async fn shrink(&mut self) {
        let Options { credentials, octets, .. } = self.options;
        if self.kept.len() <= credentials && self.octets <= octets {
            return;
        }
        self.flush().await;
        // A little further than needed, so that it is not done for each message.
        let (few, little) = (credentials - credentials / 8, octets - octets / 8);
        while self.kept.len() > few || self.octets > little {
            // The last is being used, however large it is.
            if self.kept.len() <= 1 {
                break;
            }
            let Some((_, credential)) = self.order.pop_first() else { break };
            if let Some(Kept { habits, .. }) = self.kept.remove(&credential) {
                self.octets = self.octets.saturating_sub(habits.octets());
            }
        }
    }

    /// Writes all that changed.
    pub async fn flush(&mut self) {
        journal::watched(self.kept.len(), self.octets);
        let changed: Vec<Username> =
            self.kept.iter().filter(|(_, kept)| kept.habits.is_changed()).map(|(name, _)| name.clone()).collect();
        let mut changed = changed.into_iter().peekable();
        while changed.peek().is_some() {
            let (mut batch, mut names) = (Batch::new(), Vec::new());
            while batch.len() + ROWS <= BATCH_ITEMS
                && let Some(name) = changed.next()
            {
                if let Some(kept) = self.kept.get(&name) {
                    kept.habits.rows(&name, &mut batch);
                }
                names.push(name);
            }
            match self.means.store.commit(batch).await {
                Ok(_) => {
                    self.failing = false;
                    for name in names {
                        if let Some(kept) = self.kept.get_mut(&name) {
                            kept.habits.written();
                        }
                    }
                }
                // They stay changed, and are written with the next.
                Err(error) => return self.failed(&error.to_string()),
            }
        }
    }

    /// Tells once that the store does not answer.
    fn failed(&mut self, words: &str) {
        if !self.failing {
            journal::watch_deferred(words);
        }
        self.failing = true;
    }

    /// Once a day: removes the habits of credentials that are gone.
    async fn sweep(&mut self) {
        let now = self.means.clock.now();
        if now < self.swept.plus(SWEEP) {
            return;
        }
        self.swept = now;
        if let Err(words) = self.forget_gone().await {
            self.failed(&words);
        }
    }

    /// Removes the habits of credentials that are gone; gives how many there were.
    pub async fn forget_gone(&mut self) -> Result<usize, String> {
        let directory = self.means.directory.load_full();
        let (mut after, mut gone) = (None, 0);
        loop {
            let page = habits::names(&*self.means.store, after.as_ref(), SWEPT).await;
            let (names, more) = page.map_err(|error: ReadError| error.to_string())?;
            for name in &names {
                if directory.credential(name).is_some() || directory.credential_is_damaged(name) {
                    continue;
                }
                let mut batch = Batch::new();
                habits::forget(name, &mut batch);
                self.means.store.commit(batch).await.map_err(|error: CommitError| error.to_string())?;
                if let Some(Kept { habits, used }) = self.kept.remove(name) {
                    self.order.remove(&used);
                    self.octets = self.octets.saturating_sub(habits.octets());
                }
                gone += 1;
            }
            after = names.last().cloned();
            if !more || after.is_none() {
                return Ok(gone);
            }
        }
    }
}
