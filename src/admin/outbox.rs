//! Commands on held messages.
//!
//! Promises: nothing is done to a message while it is being sent; what is made ready is so after a
//! restart too; each message that is given up leaves its own line in the log, and each command one
//! with how many. The octets of a message are never read.
//! Bounds: [`PAGE`] messages of an answer or a change; whoever wants more goes on after the last one.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::command::{CHUNK, Changed, Desk, PAGE, Response, Selection, nearest, reason};
use super::error::CommandError;
use super::view::{BehindView, Discarded, HeldPage, HeldRow, HeldView, LeftAlone, Retried};
use crate::journal;
use crate::mail::{MessageId, StreamId, TenantId};
use crate::outbox::{Cause, Entry, Lane, Mark, Outbox, OutboxError, Slot, Wait};
use crate::store::{CommitError, ReadError};
use crate::time::Timestamp;

/// Most messages that are looked at without letting others at the schedule.
const LOOKED_AT: usize = 10_000;
/// Most changes on their way into the store at a time.
const AT_ONCE: usize = 64;

/// Which messages are listed or changed.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) tenant: Option<TenantId>,
    pub(super) stream: Option<StreamId>,
    pub(super) cause: Option<Cause>,
}

impl Filter {
    fn takes(&self, slot: &Slot) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| slot.lane.tenant == *tenant)
            && self.stream.as_ref().is_none_or(|stream| slot.lane.stream.as_ref() == Some(stream))
            && self.cause.is_none_or(|cause| slot.cause == cause)
    }

    /// For the log.
    fn words(&self) -> String {
        match (&self.tenant, &self.stream) {
            (Some(tenant), Some(stream)) => format!("of {tenant}/{stream}"),
            (Some(tenant), None) => format!("of {tenant}"),
            (None, _) => "of all".into(),
        }
    }
}

fn outbox(desk: &Desk) -> Result<&Arc<Outbox>, CommandError> {
    desk.outbox.as_ref().ok_or(CommandError::NoOutbox)
}

pub(super) async fn list(desk: &Desk, filter: Filter, after: Option<MessageId>) -> Result<Response, CommandError> {
    let outbox = outbox(desk)?;
    check_names(desk, outbox, &filter)?;
    let now = desk.clock.now();
    let (ids, next) = page(outbox, &filter, after, None).await;
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        rows.extend(row(desk, outbox, id, now).await?.map(|(row, _)| row));
    }
    Ok(Response::Held(HeldPage { rows, next }))
}

pub(super) async fn show(desk: &Desk, message: MessageId) -> Result<Response, CommandError> {
    let outbox = outbox(desk)?;
    let Some((row, entry)) = row(desk, outbox, message, desk.clock.now()).await? else {
        return Err(CommandError::NotHeld { message: message.to_string() });
    };
    let view = match (outbox.manifest(message).await, entry) {
        (Ok(manifest), Some(entry)) => HeldView::of(row, &manifest, &entry.progress, PAGE),
        (Ok(_), None) => HeldView::without_body(row, "its row cannot be read".into()),
        (Err(error), _) => HeldView::without_body(row, error.to_string()),
    };
    Ok(Response::HeldMessage(Box::new(view)))
}

/// A message as it is shown; `None`: it is no longer held. One whose row cannot be read is shown by
/// what the schedule knows of it.
async fn row(
    desk: &Desk,
    outbox: &Outbox,
    id: MessageId,
    now: Timestamp,
) -> Result<Option<(HeldRow, Option<Entry>)>, CommandError> {
    let shown = |row: HeldRow, lane: &Lane| {
        let behind = desk
            .behind(lane)
            .map(|(reason, span)| BehindView { reason, until: span.map(|span| now.plus(span).rfc3339()) });
        HeldRow { behind, ..row }
    };
    let unread = |words: String| {
        let slot = outbox.with_index(|index| index.slot(id).cloned());
        slot.map(|slot| (shown(HeldRow::unread(id, &slot, words, now), &slot.lane), None))
    };
    match outbox.entry(id).await {
        Ok((slot, entry)) => Ok(Some((shown(HeldRow::of(id, &slot, &entry, now), &slot.lane), Some(entry)))),
        Err(OutboxError::Read(error @ ReadError::Corrupt(..))) => Ok(unread(error.to_string())),
        // It moves faster than it can be read, or its row is gone: the schedule knows its place.
        Err(OutboxError::Active(_) | OutboxError::NotHeld(_)) => Ok(unread("its row is not there".into())),
        Err(error @ (OutboxError::Read(_) | OutboxError::Commit(_) | OutboxError::Spool(_))) => Err(error.into()),
    }
}

/// The next [`PAGE`] of a filter, and what to go on after.
async fn page(
    outbox: &Outbox,
    filter: &Filter,
    mut after: Option<MessageId>,
    until: Option<Timestamp>,
) -> (Vec<MessageId>, Option<MessageId>) {
    let mut found = Vec::new();
    loop {
        let mut looked_at = 0;
        outbox.with_index(|index| {
            let by_then = |id: &MessageId| until.is_none_or(|until| id.made() <= until);
            for (id, slot) in index.after(after).take_while(|(id, _)| by_then(id)).take(LOOKED_AT) {
                looked_at += 1;
                after = Some(id);
                if filter.takes(slot) {
                    found.push(id);
                }
                if found.len() == PAGE {
                    break;
                }
            }
        });
        if found.len() == PAGE {
            return (found, after);
        }
        if looked_at < LOOKED_AT {
            return (found, None);
        }
        tokio::task::yield_now().await;
    }
}

/// That tenant and stream are there, or have mail here that outlived them.
fn check_names(desk: &Desk, outbox: &Outbox, filter: &Filter) -> Result<(), CommandError> {
    let directory = desk.directory.load();
    let lanes: Vec<_> = outbox.with_index(|index| index.lanes().map(|(lane, _)| lane.clone()).collect());
    if let Some(tenant) = &filter.tenant {
        let known = directory.tenant(tenant);
        if known.is_none() && !lanes.iter().any(|lane| lane.tenant == *tenant) {
            let names = directory.tenants().map(|tenant| tenant.id.as_str());
            return Err(CommandError::NoTenant {
                tenant: tenant.to_string(),
                near: nearest(tenant.as_str(), names.chain(lanes.iter().map(|lane| lane.tenant.as_str()))),
            });
        }
        if let (Some(stream), Some(known)) = (&filter.stream, known)
            && !lanes.iter().any(|lane| lane.tenant == *tenant && lane.stream.as_ref() == Some(stream))
        {
            super::tenants::check_stream(known, Some(stream))?;
        }
    }
    Ok(())
}

/// What a selection comes to: messages, what to go on after, and its words for the log.
struct Selected {
    ids: Vec<MessageId>,
    next: Option<MessageId>,
    filter: Option<Filter>,
}

async fn select(
    desk: &Desk,
    outbox: &Outbox,
    selection: Selection,
    after: Option<MessageId>,
    until: Option<Timestamp>,
) -> Result<Selected, CommandError> {
    let filter = match selection {
        Selection::Messages(mut ids) => {
            if ids.is_empty() {
                return Err(CommandError::NothingSelected);
            }
            if ids.len() > CHUNK {
                return Err(CommandError::TooMany { what: "messages".into(), given: ids.len(), most: CHUNK });
            }
            ids.sort_unstable();
            ids.dedup();
            let many = ids.len() > 1;
            outbox.with_index(|index| {
                ids.iter().try_for_each(|id| match index.slot(*id).map(|slot| slot.wait) {
                    None => Err(CommandError::NotHeld { message: id.to_string() }),
                    Some(Wait::Active) => Err(CommandError::BeingSent { message: id.to_string(), many }),
                    Some(Wait::Ready | Wait::Until(_)) => Ok(()),
                })
            })?;
            return Ok(Selected { ids, next: None, filter: None });
        }
        Selection::Of { tenant, stream } => Filter { tenant: Some(tenant), stream, cause: None },
        Selection::All => Filter::default(),
    };
    check_names(desk, outbox, &filter)?;
    let (ids, next) = page(outbox, &filter, after, until).await;
    Ok(Selected { ids, next, filter: Some(filter) })
}

impl Selected {
    fn tenant(&self) -> Option<&TenantId> {
        self.filter.as_ref()?.tenant.as_ref()
    }

    /// Tells log and audit trail of what was done.
    async fn told(&self, desk: &Desk, actor: &str, command: &str, count: usize, why: &str) {
        let changed = Changed {
            tenant: self.tenant(),
            stream: self.filter.as_ref().and_then(|filter| filter.stream.as_ref()),
            reason: &self.words(count, why),
            ..Changed::by(actor, command)
        };
        desk.changed(changed).await;
    }

    /// For the log: how many were meant by what, and why.
    fn words(&self, count: usize, why: &str) -> String {
        let which = match (&self.filter, self.ids.as_slice()) {
            (Some(filter), _) => filter.words(),
            (None, [one]) => one.to_string(),
            (None, _) => "by their ids".into(),
        };
        let messages = if count == 1 { "message" } else { "messages" };
        if why.is_empty() {
            format!("{count} {messages} {which}")
        } else {
            format!("{count} {messages} {which}: {why}")
        }
    }
}

/// What came of doing the same to several messages.
struct Done<T> {
    done: Vec<T>,
    left_alone: Vec<LeftAlone>,
    failed: Option<CommandError>,
}

/// Does `work` to each message, several at a time. The first fault of the store ends it; what one
/// message alone is to blame for does not.
async fn each<T, F>(ids: &[MessageId], work: impl Fn(MessageId) -> F) -> Done<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, OutboxError>> + Send + 'static,
{
    let mut all = Done { done: Vec::new(), left_alone: Vec::new(), failed: None };
    let mut under_way = JoinSet::new();
    let mut ids = ids.iter().copied();
    loop {
        while under_way.len() < AT_ONCE && all.failed.is_none() {
            let Some(id) = ids.next() else { break };
            let working = work(id);
            under_way.spawn(async move { (id, working.await) });
        }
        match under_way.join_next().await {
            Some(Ok((_, Ok(done)))) => all.done.push(done),
            Some(Ok((message, Err(error)))) => match error {
                OutboxError::Active(_) => {
                    let why = "it is being sent; try again in a moment".into();
                    all.left_alone.push(LeftAlone { message, why });
                }
                OutboxError::NotHeld(_) => {
                    all.left_alone.push(LeftAlone { message, why: "it is no longer held".into() });
                }
                OutboxError::Read(error @ ReadError::Corrupt(..)) => {
                    let why = format!("{error}; `bulkhead store rebuild` makes the row anew");
                    all.left_alone.push(LeftAlone { message, why });
                }
                OutboxError::Commit(CommitError::Conflict(_)) => {
                    let why = "its row is not as this process wrote it; `bulkhead store verify` says more".into();
                    all.left_alone.push(LeftAlone { message, why });
                }
                error @ (OutboxError::Read(_) | OutboxError::Commit(_) | OutboxError::Spool(_)) => {
                    all.failed = Some(error.into());
                }
            },
            Some(Err(_)) => all.failed = Some(CommandError::Fault),
            None => break,
        }
    }
    all.left_alone.sort_unstable_by_key(|one| one.message);
    all
}

pub(super) async fn retry(
    desk: &Desk,
    selection: Selection,
    after: Option<MessageId>,
    until: Option<Timestamp>,
    actor: &str,
) -> Result<Response, CommandError> {
    let outbox = outbox(desk)?;
    let selected = select(desk, outbox, selection, after, until).await?;
    let now = desk.clock.now();
    let Done { done, left_alone, failed } = each(&selected.ids, |id| {
        let outbox = Arc::clone(outbox);
        async move { outbox.retry(id, now).await }
    })
    .await;
    // Told even if it failed half way: what is ready, is ready.
    if !done.is_empty() {
        selected.told(desk, actor, "outbox retry", done.len(), "").await;
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(Response::Retried(Retried { retried: done.len(), left_alone, next: selected.next })),
    }
}

pub(super) async fn discard(
    desk: &Desk,
    selection: Selection,
    (after, until): (Option<MessageId>, Option<Timestamp>),
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let outbox = outbox(desk)?;
    let selected = select(desk, outbox, selection, after, until).await?;
    let why = reason(why, "");
    let (actor_of_each, why_of_each): (Arc<str>, Arc<str>) = (actor.into(), why.as_str().into());
    let Done { done, left_alone, failed } = each(&selected.ids, |id| {
        let (outbox, actor, why) = (Arc::clone(outbox), Arc::clone(&actor_of_each), Arc::clone(&why_of_each));
        async move {
            let (Slot { lane, .. }, entry) = outbox.discard(id).await?;
            let open = entry.progress.count(Mark::Open);
            journal::message_discarded(id, &lane.tenant, lane.stream.as_ref(), open, entry.bytes, &actor, &why);
            Ok(())
        }
    })
    .await;
    // Told even if it failed half way: what is gone, is gone.
    if !done.is_empty() {
        selected.told(desk, actor, "outbox discard", done.len(), &why).await;
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(Response::Discarded(Discarded { discarded: done.len(), left_alone, next: selected.next })),
    }
}
