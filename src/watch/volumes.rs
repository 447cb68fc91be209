//! The loop that looks, once an hour is over, whether a tenant's volume in it was unusual.
//!
//! Promises: an hour is looked at once, after its counts are written; the note that it was looked at
//! is committed with what is told of it. Of hours that passed while nobody ran only the last is looked
//! at. A tenant that is paused as a whole is passed over: it was told why it sends nothing.
//! What can go wrong: the store; then the hour is looked at a minute later. A damaged count leaves its
//! tenant out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Means, told};
use crate::announce::{self, Announcement};
use crate::journal;
use crate::policy::tenant::Tenant;
use crate::policy::volume::{self, Rules, Unusual, judge};
use crate::store::{BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, counters, record};
use crate::time::Hour;

/// How often it looks whether an hour is over.
const LOOK: Duration = Duration::from_secs(60);
/// How long after its end an hour is looked at: its last counts are written by then.
const SETTLE: Duration = Duration::from_secs(60);
/// Under which name the last hour that was looked at is kept.
const MARK: &str = "volumes_judged";
const HOURS: u32 = 24;

/// The looker.
pub struct Volumes {
    means: Means,
    rules: Rules,
}

/// Why an hour could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookError {
    /// Counts could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was found could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Volumes {
    /// Nothing happens before [`run`](Self::run) or [`look`](Self::look).
    pub fn new(means: Means, rules: Rules) -> Self {
        Self { means, rules }
    }

    /// Looks once an hour until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        if self.rules.times <= 0.0 {
            return;
        }
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.look().await {
                Ok(_) => failing = false,
                Err(error) => {
                    if !failing {
                        journal::watch_deferred(&format!("volumes were not looked at: {error}"));
                    }
                    failing = true;
                }
            }
        }
    }

    /// Looks at the last hour that is over, unless that was done; gives how many tenants are told of.
    pub async fn look(&self) -> Result<usize, LookError> {
        let now = self.means.clock.now();
        let Some(hour) = now.minus(SETTLE).hour().0.checked_sub(1).map(Hour) else { return Ok(0) };
        let key = Key::meta(MARK);
        let last = match self.means.store.get(&key).await? {
            // A mark that cannot be read is written anew.
            Some(row) => record::open::<Hour>(&key, &row.value).ok(),
            None => None,
        };
        if last.is_some_and(|last| last >= hour) {
            return Ok(0);
        }
        let mut found = Vec::new();
        let directory = self.means.directory.load_full();
        for tenant in directory.tenants().filter(|tenant| tenant.pause.is_none()) {
            match self.unusual(tenant, hour).await {
                Ok(Some(unusual)) => found.push((Arc::clone(tenant), unusual)),
                Ok(None) => {}
                Err(error @ ReadError::Corrupt(..)) => journal::watch_deferred(&error.to_string()),
                Err(error @ ReadError::Unavailable(_)) => return Err(error.into()),
            }
        }
        let told: Vec<Announcement> = found
            .iter()
            .map(|(tenant, unusual)| told::unusual(&tenant.id, hour, unusual, (now, &*self.means.random)))
            .collect();
        let mut batch = Batch::new();
        batch.put(key, If::Any, record::seal(&hour));
        for announcement in &told {
            if batch.len() == BATCH_ITEMS {
                self.means.store.commit(std::mem::take(&mut batch)).await?;
            }
            announce::write(&mut batch, announcement);
        }
        self.means.store.commit(batch).await?;
        for ((tenant, unusual), announcement) in found.iter().zip(&told) {
            let Unusual { turn, recipients, mean, .. } = *unusual;
            let (began, why) = (told::began(hour), &announcement.headline);
            journal::volume_unusual(&tenant.id, began, turn.word(), recipients, mean, why);
            self.means.announce.announce(announcement);
        }
        Ok(found.len())
    }

    /// What was unusual of `tenant`'s volume in `hour`, over all its streams.
    async fn unusual(&self, tenant: &Tenant, hour: Hour) -> Result<Option<Unusual>, ReadError> {
        let days = volume::DAYS;
        let first = Hour(hour.0.saturating_sub(days * HOURS));
        let mut recipients = 0_u64;
        let mut past = vec![0_u64; usize::try_from(days).unwrap_or_default()];
        for stream in tenant.streams.keys() {
            let hours = counters::accepted(&*self.means.store, &tenant.id, stream, first, hour).await?;
            let of = |hour: Hour| hours.get(&hour).copied().unwrap_or_default();
            recipients = recipients.saturating_add(of(hour));
            for (sum, day) in past.iter_mut().zip(1..) {
                *sum = sum.saturating_add(of(Hour(hour.0.saturating_sub(day * HOURS))));
            }
        }
        Ok(judge(&self.rules, &past, recipients))
    }
}
