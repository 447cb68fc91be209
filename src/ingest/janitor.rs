//! Removes what has served: applied events and counts, after `events.ledger_days` and
//! `events.counter_days` (15 and 35); the audit trail, after `audit.days` (400); runs of soft bounces, 30
//! days after their last event; suppressions, [`ENDED`] after their end, so that it can still be seen why
//! mail was refused.
//!
//! Promises: in small commits, so that nobody waits for it; a row is removed only when every reader
//! has stopped asking for it (see `store::ledger` and `store::counters`). What can go wrong: the
//! store; then it tries again at the next hour.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::journal;
use crate::policy::run::Rules;
use crate::store::{
    BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, Store, audit, counters, domains, ledger, runs, suppressions,
};
use crate::time::{Clock, Hour, Timestamp};

/// How often it sweeps.
const EVERY: Duration = Duration::from_secs(3600);
/// How long after the start it sweeps first, so that a restart is not burdened by it.
const FIRST: Duration = Duration::from_secs(60);

/// How long a suppression is kept after its end.
pub const ENDED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The sweeper.
pub struct Janitor {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Hours for which applied events and counts are kept.
    ledger_hours: u32,
    counter_hours: u32,
    /// How long an entry of the audit trail is.
    audit: Duration,
    rules: Rules,
}

/// What a sweep removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Recipients' shares of events.
    pub shares: usize,
    /// Rows of counts.
    pub counters: usize,
    /// Rows of counts by domain.
    pub domains: usize,
    /// Entries of the audit trail.
    pub audit: usize,
    /// Runs of soft bounces.
    pub runs: usize,
    /// Suppressions that had ended.
    pub suppressions: usize,
}

/// Why a sweep stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SweepError {
    /// A row could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows could not be removed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Janitor {
    /// Nothing happens before [`run`](Self::run) or [`sweep`](Self::sweep).
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            ledger_hours: ledger::KEPT_HOURS,
            counter_hours: counters::KEPT_HOURS,
            audit: days(audit::KEPT_DAYS),
            rules: Rules::default(),
        }
    }

    /// The same with other times, in days. Applied events are kept for 15 days at least: events
    /// count for 14 (`policy::effect::COUNTED`), and what counts must be remembered.
    pub fn keeping(self, ledger_days: usize, counter_days: usize) -> Self {
        let hours = |days: usize| u32::try_from(days.saturating_mul(24)).unwrap_or(u32::MAX);
        Self { ledger_hours: hours(ledger_days).max(ledger::KEPT_HOURS), counter_hours: hours(counter_days), ..self }
    }

    /// The same with another time for the audit trail, in days.
    pub fn keeping_audit(self, audit_days: usize) -> Self {
        Self { audit: days(audit_days), ..self }
    }

    /// The same with other rules of when soft bounces suppress: a run is kept as long as its entry.
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Sweeps once an hour until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        let mut pause = FIRST;
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = self.sweep().await {
                journal::events_deferred(0, &format!("old records were not removed: {error}"));
            }
            pause = EVERY;
        }
    }

    /// Removes all that is old now.
    pub async fn sweep(&self) -> Result<Swept, SweepError> {
        let moment = self.clock.now();
        let now = moment.hour();
        let shares = self.sweep_ledger(Hour(now.0.saturating_sub(self.ledger_hours))).await?;
        let counters = self.sweep_counters(Hour(now.0.saturating_sub(self.counter_hours))).await?;
        let domains = self.sweep_domains(Hour(now.0.saturating_sub(self.counter_hours))).await?;
        let audit = self.sweep_audit(self.clock.now().minus(self.audit)).await?;
        let runs = self.sweep_runs(moment.minus(self.rules.kept())).await?;
        let suppressions = self.sweep_suppressions(moment.minus(ENDED)).await?;
        Ok(Swept { shares, counters, domains, audit, runs, suppressions })
    }

    async fn sweep_ledger(&self, before: Hour) -> Result<usize, SweepError> {
        let mut shares = 0;
        loop {
            let keys = ledger::expired(&*self.store, before, BATCH_ITEMS / ledger::WRITES).await?;
            if keys.is_empty() {
                return Ok(shares);
            }
            shares += keys.len() / ledger::WRITES;
            self.remove(keys).await?;
        }
    }

    async fn sweep_counters(&self, before: Hour) -> Result<usize, SweepError> {
        let mut rows = 0;
        let mut after = None;
        loop {
            let (keys, next) = counters::expired(&*self.store, before, after, BATCH_ITEMS).await?;
            rows += keys.len();
            if !keys.is_empty() {
                self.remove(keys).await?;
            }
            match next {
                Some(key) => after = Some(key),
                None => return Ok(rows),
            }
        }
    }

    async fn sweep_domains(&self, before: Hour) -> Result<usize, SweepError> {
        let mut rows = 0;
        let mut after = None;
        loop {
            let (keys, next) = domains::expired(&*self.store, before, after, BATCH_ITEMS).await?;
            rows += keys.len();
            if !keys.is_empty() {
                self.remove(keys).await?;
            }
            match next {
                Some(key) => after = Some(key),
                None => return Ok(rows),
            }
        }
    }

    async fn sweep_audit(&self, before: Timestamp) -> Result<usize, SweepError> {
        let mut entries = 0;
        loop {
            let keys = audit::expired(&*self.store, before, BATCH_ITEMS).await?;
            if keys.is_empty() {
                return Ok(entries);
            }
            entries += keys.len();
            self.remove(keys).await?;
        }
    }

    async fn sweep_runs(&self, before: Timestamp) -> Result<usize, SweepError> {
        let (mut gone, mut after) = (0, None);
        loop {
            let (old, next) = runs::expired(&*self.store, before, after, BATCH_ITEMS).await?;
            gone += self.remove_unchanged(old).await?;
            match next {
                Some(key) => after = Some(key),
                None => return Ok(gone),
            }
        }
    }

    async fn sweep_suppressions(&self, before: Timestamp) -> Result<usize, SweepError> {
        let (mut gone, mut after) = (0, None);
        loop {
            let (old, next) = suppressions::expired(&*self.store, before, after, BATCH_ITEMS).await?;
            gone += self.remove_unchanged(old).await?;
            match next {
                Some(key) => after = Some(key),
                None => return Ok(gone),
            }
            // Lists may be long, and reading them waits for nobody.
            tokio::task::yield_now().await;
        }
    }

    /// Removes rows that are still as they were read; how many. Where one has changed it lives on, and
    /// the others wait for the next sweep.
    async fn remove_unchanged(&self, rows: Vec<(Key, u64)>) -> Result<usize, SweepError> {
        let mut batch = Batch::new();
        let count = rows.len();
        for (key, version) in rows {
            batch.remove(key, If::At(version));
        }
        match self.store.commit(batch).await {
            Ok(_) => Ok(count),
            Err(CommitError::Conflict(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove(&self, keys: Vec<Key>) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        for key in keys {
            batch.remove(key, If::Any);
        }
        self.store.commit(batch).await.map(drop)
    }
}

fn days(days: usize) -> Duration {
    Duration::from_secs(u64::try_from(days).unwrap_or(u64::MAX).saturating_mul(24 * 3600))
}
