//! `warmup show`: the plan of each ladder, and where its stream stands.
//!
//! Read from the store, so that it is the same with a running relay and without one. What was sent today is
//! as new as the counters, a second old at most.

use serde::{Deserialize, Serialize};

use super::command::{Desk, Response};
use super::error::CommandError;
use super::tenants::{check_stream, find};
use crate::mail::{StreamId, TenantId};
use crate::policy::tenant::{Stream, Tenant};
use crate::policy::warmup::{Plan, Position, begin_of_day, day_of};
use crate::store::{Key, counters, record};
use crate::time::Hour;

/// Most ladders of one answer; more are asked for with `after`.
pub const LADDERS: usize = 100;

/// A stream's ladder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WarmupView {
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream.
    pub stream: StreamId,
    /// The declared start date, UTC.
    pub start: String,
    /// Whether that is still to come: until then the first day's cap holds.
    pub is_ahead: bool,
    /// The step of today, from 1; one more than there are: the ladder is climbed.
    pub step: u32,
    /// Recipients it may send today; `None`: the ladder is climbed.
    pub cap: Option<u64>,
    /// Recipients that SES took today.
    pub sent_today: u64,
    /// All steps.
    pub plan: Vec<DayView>,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DayView {
    /// From 1.
    pub step: u32,
    /// The day it is of, if every day from today on has mail and stays clean; `None`: it is behind.
    pub day: Option<String>,
    /// Recipients.
    pub cap: u64,
}

pub(super) async fn show(
    desk: &Desk,
    tenant: Option<&TenantId>,
    stream: Option<&StreamId>,
    after: Option<&(TenantId, StreamId)>,
) -> Result<Response, CommandError> {
    let directory = desk.directory.load_full();
    if let Some(tenant) = tenant {
        check_stream(find(&directory, tenant)?, stream)?;
    }
    let meant = |of: &&(&Tenant, &Stream)| {
        let (whose, which) = of;
        tenant.is_none_or(|tenant| whose.id == *tenant)
            && stream.is_none_or(|stream| which.id == *stream)
            && after.is_none_or(|(tenant, stream)| (&whose.id, &which.id) > (tenant, stream))
    };
    let all: Vec<(&Tenant, &Stream)> = directory
        .tenants()
        .flat_map(|tenant| tenant.streams.values().map(|stream| (&**tenant, stream)))
        .filter(|(_, stream)| stream.warmup.is_some())
        .collect();
    let mut views = Vec::new();
    for (tenant, stream) in all.iter().filter(meant).take(LADDERS) {
        views.extend(view(desk, tenant, stream).await?);
    }
    Ok(Response::Warmups(views))
}

async fn view(desk: &Desk, tenant: &Tenant, stream: &Stream) -> Result<Option<WarmupView>, CommandError> {
    let Some((declared, plan)) = stream.warmup.as_ref().and_then(|warmup| Some((warmup, Plan::of(warmup)?))) else {
        return Ok(None);
    };
    let now = desk.clock.now();
    let today = day_of(now);
    let key = Key::ladder(&tenant.id, &stream.id);
    let kept: Option<Position> = match desk.store.get(&key).await? {
        Some(row) => Some(record::open(&key, &row.value)?),
        None => None,
    };
    let position = kept.filter(|position| plan.has(position)).unwrap_or_else(|| plan.begin(today));
    let (from, to): (Hour, Hour) = (begin_of_day(today).hour(), now.hour());
    let sent_today = counters::of(desk.store.as_ref(), &tenant.id, &stream.id, from, to).await?.accepted;
    let begins = today.max(plan.start);
    let day = |step: u32| {
        let on = |ahead: u32| match ahead {
            // Before its start the first day's cap holds.
            0 => begin_of_day(today),
            ahead => begin_of_day(begins + u64::from(ahead)),
        };
        step.checked_sub(position.step).map(|ahead| on(ahead).date())
    };
    let steps =
        (0..plan.steps()).filter_map(|step| Some(DayView { step: step + 1, day: day(step), cap: plan.cap(step)? }));
    Ok(Some(WarmupView {
        tenant: tenant.id.clone(),
        stream: stream.id.clone(),
        start: declared.start.clone(),
        is_ahead: plan.is_ahead(today),
        step: position.step + 1,
        cap: plan.cap(position.step),
        sent_today,
        plan: steps.collect(),
    }))
}
