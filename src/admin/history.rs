//! The stored history, in pages, for whoever replays it.

use super::command::{Desk, PAGE, Response};
use super::error::CommandError;
use super::tenants::find;
use super::view::{CohortView, HistoryPage, StreamHistory, TenantState};
use crate::mail::{StreamId, TenantId};
use crate::policy::tenant::{Standing, Tenant};
use crate::store::counters;
use crate::store::directory::Directory;
use crate::time::Hour;

/// Most tenants of one page: their rows may be large.
pub const TENANTS: usize = 100;

/// Tenants with their limits and their first mail.
pub(super) fn tenants(
    desk: &Desk,
    only: Option<&TenantId>,
    after: Option<&TenantId>,
) -> Result<Response, CommandError> {
    let directory = desk.directory.load();
    if let Some(only) = only {
        find(&directory, only)?;
    }
    let rows = directory
        .tenants()
        .filter(|tenant| only.is_none_or(|only| tenant.id == *only))
        .filter(|tenant| after.is_none_or(|after| tenant.id > *after))
        .take(TENANTS)
        .map(|tenant| {
            let of = |stream: Option<&StreamId>, standing: &Standing| Some((stream.cloned(), standing.resumed?));
            let streams = tenant.streams.values().filter_map(|stream| of(Some(&stream.id), &stream.standing));
            TenantState {
                first: tenant.standing.first,
                resumed: of(None, &tenant.standing).into_iter().chain(streams).collect(),
                tenant: Box::new(Tenant::clone(tenant).declared()),
            }
        });
    Ok(Response::States(rows.collect()))
}

/// The counts of streams from an hour on: whole streams, as many as make a page.
pub(super) async fn page(
    desk: &Desk,
    only: Option<&TenantId>,
    from: Hour,
    after: Option<(TenantId, StreamId)>,
) -> Result<Response, CommandError> {
    let streams = streams_after(&desk.directory.load(), only, after.as_ref());
    let looked_at_all = streams.len() < PAGE;
    let mut page = HistoryPage { streams: Vec::new(), next: None };
    let mut rows = 0;
    let last = streams.len().saturating_sub(1);
    for (at, (tenant, stream)) in streams.into_iter().enumerate() {
        let cohorts = counters::cohorts(&*desk.store, &tenant, &stream, from, Hour(u32::MAX)).await?;
        rows += cohorts.len();
        if rows >= PAGE || at == last && !looked_at_all {
            page.next = Some((tenant.clone(), stream.clone()));
        }
        if !cohorts.is_empty() {
            let cohorts = cohorts.into_iter().map(|(cohort, counts)| CohortView {
                hour: cohort.hour,
                from_second: cohort.from_second,
                counts,
            });
            page.streams.push(StreamHistory { tenant, stream, cohorts: cohorts.collect() });
        }
        if page.next.is_some() {
            break;
        }
    }
    Ok(Response::History(page))
}

/// The next streams behind a place, at most as many as a page has rows.
fn streams_after(
    directory: &Directory,
    only: Option<&TenantId>,
    after: Option<&(TenantId, StreamId)>,
) -> Vec<(TenantId, StreamId)> {
    let mut streams = Vec::new();
    let from = after.map(|(tenant, _)| tenant);
    let tenants = directory.tenants().filter(|tenant| only.is_none_or(|only| tenant.id == *only));
    for tenant in tenants.filter(|tenant| from.is_none_or(|from| tenant.id >= *from)) {
        for stream in tenant.streams.keys() {
            let place = (tenant.id.clone(), stream.clone());
            if after.is_none_or(|after| place > *after) {
                streams.push(place);
            }
            if streams.len() == PAGE {
                return streams;
            }
        }
    }
    streams
}
