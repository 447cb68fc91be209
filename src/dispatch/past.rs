//! What was sent before the process began, for the gates: the counts of the day and of what may still be
//! out, the windows and the ladders as they were kept; and the step up or down that midnight brings.
//!
//! Promises: a lane's terms are in force with the directory that has them; its past is read once. A damaged
//! record makes a stream a new one here, never a settled one.
//! What can go wrong: a store that does not answer; then it is asked again, and meanwhile a lane has what
//! a new one has.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Dispatch;
use super::board::Board;
use super::gate::{Moment, Past, Terms};
use crate::journal;
use crate::mail::StreamId;
use crate::outbox::Lane;
use crate::policy::cohort::{Figures, Windows};
use crate::policy::exposure;
use crate::policy::reputation::{self, Step};
use crate::policy::tenant::{Stream, Tenant};
use crate::policy::warmup::{DayJudged, Plan, Position, begin_of_day, day_of};
use crate::store::counters::{self, Counts};
use crate::store::directory::Directory;
use crate::store::{BATCH_ITEMS, Batch, If, Key, ReadError, record};
use crate::time::{Hour, Timestamp};

/// Most days that a ladder is taken up over at once; before them nothing was sent.
const MOST_DAYS: u64 = 60;

impl Dispatch {
    /// Reads what every stream sent before the process began. To be awaited before anything is handed
    /// over; [`run`](Self::run) follows every change of the directory by itself.
    pub async fn recall(&self) -> Result<(), ReadError> {
        let directory = self.means.directory.load_full();
        self.recall_of(&directory).await
    }

    /// The directory has changed, which is looked at within half a second otherwise.
    pub fn directory_changed(&self) {
        self.news.notify_one();
    }

    /// What a new directory says is in force; the past of lanes that it brings is read.
    pub(super) async fn follow_directory(&self, directory: &Directory) {
        let recalled = self.recall_of(directory).await;
        if let Err(error) = &recalled {
            journal::counts_unknown(&error.to_string());
        }
        self.unrecalled.store(recalled.is_err(), Ordering::Relaxed);
        let gated = self.board().take_gated();
        self.refresh(gated, directory);
    }

    /// Puts the terms of lanes in force as a directory has them.
    pub(super) fn acquaint<'a>(
        &self,
        board: &mut Board,
        lanes: impl IntoIterator<Item = &'a Lane>,
        directory: &Directory,
        (now, at): Moment,
    ) {
        for lane in lanes {
            if let Some((tenant, stream)) = found(directory, lane) {
                board.gates.change(lane, Terms::of(tenant, stream, &self.options.reputation), now, at);
            }
        }
    }

    async fn recall_of(&self, directory: &Directory) -> Result<(), ReadError> {
        let lane_of =
            |tenant: &Tenant, stream: &StreamId| Lane { tenant: tenant.id.clone(), stream: Some(stream.clone()) };
        let lanes: Vec<Lane> = directory
            .tenants()
            .flat_map(|tenant| tenant.streams.keys().map(|stream| lane_of(tenant, stream)))
            .collect();
        let moment = self.moment();
        let mut new = Vec::new();
        {
            let mut board = self.board();
            self.acquaint(&mut board, &lanes, directory, moment);
            board.gates.retain(|lane| found(directory, lane).is_some());
            new.extend(lanes.into_iter().filter(|lane| !board.gates.has_past(lane)));
        }
        for lane in new {
            let past = self.past_of(&lane, moment.1).await?;
            self.board().gates.recall(&lane, past, moment.1);
        }
        self.climb().await
    }

    async fn past_of(&self, lane: &Lane, at: Timestamp) -> Result<Past, ReadError> {
        let (store, tenant) = (&*self.means.store, &lane.tenant);
        let Some(stream) = &lane.stream else { return Ok(Past::default()) };
        let kept = told(record_at(self, &Key::exposure(tenant, stream)).await)?.flatten();
        let position = told(record_at(self, &Key::ladder(tenant, stream)).await)?.flatten();
        let today = day_of(at);
        let from = begin_of_day(today.saturating_sub(7)).hour();
        let rows = told(counters::cohorts(store, tenant, stream, from, at.hour()).await)?.unwrap_or_default();
        let horizon = at.minus(self.options.exposure.horizon).hour();
        let (mut days, mut hours) = (BTreeMap::<u64, u64>::new(), BTreeMap::<Hour, Counts>::new());
        for (cohort, counts) in rows {
            *days.entry(u64::from(cohort.hour.0) / 24).or_default() += counts.accepted;
            if cohort.hour >= horizon {
                *hours.entry(cohort.hour).or_default() += counts;
            }
        }
        let out = |counts: &Counts| {
            let heard = counts.delivered + counts.bounced + counts.soft_bounced + counts.rejected;
            counts.accepted.saturating_sub(heard)
        };
        Ok(Past {
            today: days.get(&today).copied().unwrap_or_default(),
            exposure: exposure::Past { outstanding: hours.values().map(out).sum(), days: days.into_iter().collect() },
            kept,
            position,
        })
    }

    /// Brings every ladder to today, and keeps where it stands.
    pub(super) async fn climb(&self) -> Result<(), ReadError> {
        let at = self.means.clock.now();
        let today = day_of(at);
        let climbers = self.board().gates.climbers(today);
        if climbers.is_empty() {
            return Ok(());
        }
        let directory = self.means.directory.load_full();
        let mut climbed = Vec::with_capacity(climbers.len());
        for (lane, plan, position) in climbers {
            let Some((tenant, stream)) = found(&directory, &lane) else { continue };
            let to = self.climb_one((tenant, stream), plan, position, today).await?;
            if to.step != position.step {
                let cap = plan.cap(to.step);
                journal::warmup_stepped(&lane.tenant, &stream.id, to.step, plan.steps(), cap);
            }
            climbed.push((lane, to));
        }
        for part in climbed.chunks(BATCH_ITEMS) {
            let mut batch = Batch::new();
            for (lane, position) in part {
                if let Some(stream) = &lane.stream {
                    batch.put(Key::ladder(&lane.tenant, stream), If::Any, record::seal(position));
                }
            }
            if let Err(error) = self.means.store.commit(batch).await {
                // Today's caps are right; who asks again tomorrow finds where it stood yesterday.
                journal::counts_unknown(&error.to_string());
            }
            let mut board = self.board();
            part.iter().for_each(|(lane, position)| board.gates.climb(lane, *position));
        }
        self.unpark_gated();
        Ok(())
    }

    async fn climb_one(
        &self,
        of: (&Tenant, &Stream),
        plan: Plan,
        mut position: Position,
        today: u64,
    ) -> Result<Position, ReadError> {
        if position.day + MOST_DAYS < today {
            position.day = today - MOST_DAYS;
        }
        while position.day < today {
            let judged = judge_day(&*self.means.store, of, position.day, &self.options.reputation).await?;
            position = plan.after(position, judged);
        }
        Ok(position)
    }

    /// Lanes that wait for a gate look again.
    pub(super) fn unpark_gated(&self) {
        let gated = self.board().take_gated();
        if !gated.is_empty() {
            self.refresh(gated, &self.means.directory.load());
            self.news.notify_one();
        }
    }
}

/// What a day (UTC) of a stream came to: by its own cohort and by how the stream stands.
pub async fn judge_day(
    store: &dyn crate::store::Store,
    (tenant, stream): (&Tenant, &Stream),
    day: u64,
    rules: &reputation::Rules,
) -> Result<DayJudged, ReadError> {
    let (from, to) = (begin_of_day(day).hour(), Hour(begin_of_day(day + 1).hour().0.saturating_sub(1)));
    let rows = told(counters::cohorts(store, &tenant.id, &stream.id, from, to).await)?.unwrap_or_default();
    let mut sum = Figures::default();
    for (_, Counts { accepted, bounced, complained, .. }) in rows {
        sum += Figures { accepted, bounced, complained };
    }
    if sum.accepted == 0 {
        return Ok(DayJudged::Idle);
    }
    let lines = rules.lines_of_stream(stream.kind, &stream.limits, &tenant.limits);
    let judged = reputation::judge(&Windows { day: sum, week: sum }, &lines, rules, false);
    let is_warned = stream.standing.braked(Step::Warned).is_some();
    Ok(if judged.step >= Step::Warned || is_warned { DayJudged::Bad } else { DayJudged::Clean })
}

async fn record_at<T: serde::de::DeserializeOwned>(dispatch: &Dispatch, key: &Key) -> Result<Option<T>, ReadError> {
    let found = dispatch.means.store.get(key).await?;
    found.map(|row| record::open(key, &row.value)).transpose()
}

/// A damaged record is told, and nothing.
fn told<T>(read: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::Corrupt(key, why)) => {
            let cure = "the stream is taken for a new one here; `bulkhead store verify` tells of all";
            journal::record_damaged(&key.to_string(), &why, cure);
            Ok(None)
        }
        Err(error @ ReadError::Unavailable(_)) => Err(error),
    }
}

fn found<'a>(directory: &'a Directory, lane: &Lane) -> Option<(&'a Tenant, &'a Stream)> {
    let tenant = directory.tenant(&lane.tenant)?;
    Some((tenant, tenant.streams.get(lane.stream.as_ref()?)?))
}

/// How often windows that changed are kept, and midnight is looked for.
pub(super) const KEEP: Duration = Duration::from_secs(1);
