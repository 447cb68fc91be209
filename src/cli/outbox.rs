//! `outbox …`.

use clap::{Args, Subcommand};

use super::door::{Door, Needs, strange};
use super::output::{Out, or_dash};
use super::value;
use super::{Context, Failure, block_on};
use crate::adapters::clock::MachineClock;
use crate::admin::command::{CHUNK, Selection};
use crate::admin::view::{BehindView, HeldRow, HeldState, HeldView, LeftAlone};
use crate::admin::{Request, Response};
use crate::config::Settings;
use crate::mail::{MessageId, StreamId, TenantId};
use crate::outbox::Cause;
use crate::time::{Clock as _, Timestamp};

/// Most messages with which nothing was done that are told one by one.
const TOLD: usize = 50;

/// Held messages.
#[derive(Subcommand, Debug)]
pub(super) enum Outbox {
    /// List held messages: what each waits for, and until when
    List {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Only those of streams of this name
        #[arg(long)]
        stream: Option<StreamId>,
        /// Only those that wait for this, by the word that the list shows
        #[arg(long, value_parser = value::cause)]
        cause: Option<Cause>,
    },
    /// Show a held message: recipients, tags, who sent it; never what it says
    Show {
        /// Which
        #[arg(value_parser = value::message)]
        message: MessageId,
    },
    /// Try messages now, whatever they wait for
    Retry(Which),
    /// Give messages up; nobody is told but the log
    Discard {
        #[command(flatten)]
        which: Which,
        /// Why; for the log
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Which held messages are meant.
#[derive(Args, Debug)]
#[group(id = "which", required = true, multiple = true)]
pub(super) struct Which {
    /// These
    #[arg(value_name = "ID", value_parser = value::message, conflicts_with_all = ["tenant", "all"])]
    messages: Vec<MessageId>,
    /// A tenant's
    #[arg(long, conflicts_with = "all")]
    tenant: Option<TenantId>,
    /// Of a tenant's, this stream's alone
    #[arg(long, requires = "tenant")]
    stream: Option<StreamId>,
    /// All there are
    #[arg(long)]
    all: bool,
}

impl Outbox {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        block_on(async {
            match self {
                Self::List { tenant, stream, cause } => list(&settings, (tenant, stream, cause), out).await,
                Self::Show { message } => show(&settings, message, out).await,
                Self::Retry(which) => change(&settings, which, &Change::Retry, out).await,
                Self::Discard { which, reason } => change(&settings, which, &Change::Discard { reason }, out).await,
            }
        })
    }
}

async fn list(
    settings: &Settings,
    (tenant, stream, cause): (Option<TenantId>, Option<StreamId>, Option<Cause>),
    out: Out,
) -> Result<(), Failure> {
    let mut door = Door::open_for(settings, Needs::Outbox, out).await?;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let request = Request::OutboxList { tenant: tenant.clone(), stream: stream.clone(), cause, after };
        let Response::Held(page) = door.ask(request).await? else { return Err(strange()) };
        all.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if out.json {
        return Ok(out.json(&all)?);
    }
    if all.is_empty() {
        out.line("no message is held");
        return Ok(());
    }
    let now = MachineClock.now();
    let totals = totals(&all);
    let rows: Vec<_> = all.into_iter().map(|row| cells(row, now)).collect();
    out.table(&["MESSAGE", "TENANT", "STREAM", "TO", "RECIPIENTS", "SIZE", "AGE", "ATTEMPTS", "CAUSE", "NEXT"], &rows);
    out.line(totals);
    Ok(())
}

fn cells(row: HeldRow, now: Timestamp) -> Vec<String> {
    let recipients = row.recipients;
    let next = next(&row, now);
    vec![
        row.message.to_string(),
        row.tenant.to_string(),
        row.stream.map_or_else(|| "reports".into(), |stream| stream.to_string()),
        or_dash(row.to),
        if recipients.open == recipients.all {
            recipients.all.to_string()
        } else {
            format!("{} of {}", recipients.open, recipients.all)
        },
        size(row.bytes),
        Timestamp::parse_rfc3339(&row.created).map_or_else(|| "-".into(), |created| span(created, now)),
        row.attempts.to_string(),
        row.cause,
        next,
    ]
}

/// When its turn comes.
fn next(row: &HeldRow, now: Timestamp) -> String {
    if row.fault.is_some() {
        return "never: its row cannot be read".into();
    }
    let at = row.next.as_deref().and_then(Timestamp::parse_rfc3339);
    let later = || at.map_or_else(|| "later".into(), |at| format!("in {}", span(now, at)));
    match (row.state, &row.behind) {
        (HeldState::Ready, None) => "now".into(),
        (HeldState::Ready, Some(BehindView { reason, until })) => {
            match until.as_deref().and_then(Timestamp::parse_rfc3339) {
                Some(at) if at > now => format!("behind {reason}, in {}", span(now, at)),
                Some(_) => "now".into(),
                None => format!("behind {reason}"),
            }
        }
        (HeldState::Sending, _) => "being sent".into(),
        (HeldState::Waiting, _) => later(),
        (HeldState::Held, _) => format!("held, {}", later()),
    }
}

fn totals(rows: &[HeldRow]) -> String {
    let of = |state| rows.iter().filter(|row| row.state == state).count();
    let open: usize = rows.iter().map(|row| row.recipients.open).sum();
    let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
    format!(
        "messages: {}, open recipients: {open}, size: {}; ready: {}, waiting: {}, being sent: {}, held: {}",
        rows.len(),
        size(bytes),
        of(HeldState::Ready),
        of(HeldState::Waiting),
        of(HeldState::Sending),
        of(HeldState::Held),
    )
}

async fn show(settings: &Settings, message: MessageId, out: Out) -> Result<(), Failure> {
    let mut door = Door::open_for(settings, Needs::Outbox, out).await?;
    let Response::HeldMessage(view) = door.ask(Request::OutboxShow { message }).await? else { return Err(strange()) };
    if out.json {
        return Ok(out.json(&view)?);
    }
    let HeldView { row, session, credential, tags, addresses, body_fault } = *view;
    let counts = row.recipients;
    let next = next(&row, MachineClock.now());
    let tags: Vec<String> = tags.iter().map(|tag| format!("{}={}", tag.name, tag.value)).collect();
    out.pairs(&[
        ("message", row.message.to_string()),
        ("tenant", row.tenant.to_string()),
        ("stream", row.stream.map_or_else(|| "the relay's own reports".into(), |stream| stream.to_string())),
        ("credential", credential.map(|credential| credential.to_string()).unwrap_or_default()),
        ("session", session.unwrap_or_default()),
        ("from", row.from),
        (
            "recipients",
            format!("{}: {} open, {} taken, {} refused", counts.all, counts.open, counts.taken, counts.refused),
        ),
        ("size", size(row.bytes)),
        ("tags", tags.join(", ")),
        ("created", row.created),
        ("expires", row.expires),
        ("attempts", row.attempts.to_string()),
        ("unknown", row.unknown.to_string()),
        ("cause", row.cause),
        ("words", row.words),
        ("next", row.next.map_or_else(|| next.clone(), |at| format!("{at} ({next})"))),
        ("row", row.fault.unwrap_or_default()),
        ("body", body_fault.unwrap_or_default()),
    ]);
    if addresses.is_empty() {
        return Ok(());
    }
    let left_out = counts.all.saturating_sub(addresses.len());
    let rows: Vec<_> = addresses.into_iter().map(|one| vec![one.address, one.mark]).collect();
    out.line("");
    out.table(&["RECIPIENT", "MARK"], &rows);
    if left_out > 0 {
        out.line(format!("… and {left_out} more"));
    }
    Ok(())
}

/// What is done to the messages that are meant.
enum Change {
    Retry,
    Discard { reason: String },
}

impl Change {
    fn request(&self, selection: Selection, after: Option<MessageId>, until: Option<Timestamp>) -> Request {
        match self {
            Self::Retry => Request::OutboxRetry { selection, after, until },
            Self::Discard { reason } => Request::OutboxDiscard { selection, after, until, reason: reason.clone() },
        }
    }

    /// The word in answers.
    fn word(&self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Discard { .. } => "discarded",
        }
    }
}

/// Goes on page by page to what had been accepted when the command was given.
async fn change(settings: &Settings, which: Which, change: &Change, out: Out) -> Result<(), Failure> {
    let mut door = Door::open_for(settings, Needs::Outbox, out).await?;
    let until = Some(MachineClock.now());
    let (mut count, mut left_alone): (usize, Vec<LeftAlone>) = (0, Vec::new());
    for selection in selections(which) {
        let mut after = None;
        loop {
            let (done, left, next) = match door.ask(change.request(selection.clone(), after, until)).await? {
                Response::Retried(answer) => (answer.retried, answer.left_alone, answer.next),
                Response::Discarded(answer) => (answer.discarded, answer.left_alone, answer.next),
                _ => return Err(strange()),
            };
            count += done;
            left_alone.extend(left);
            after = next;
            if after.is_none() {
                break;
            }
            out.note(format!("{count} messages so far"));
        }
    }
    if out.json {
        out.json(&serde_json::json!({change.word(): count, "left_alone": left_alone}))?;
    } else {
        for one in left_alone.iter().take(TOLD) {
            out.note(format!("{}: {}", one.message, one.why));
        }
        if left_alone.len() > TOLD {
            out.note(format!("… and {} more were left alone", left_alone.len() - TOLD));
        }
        out.line(format!("messages {}: {count}, left alone: {}", change.word(), left_alone.len()));
        if matches!(change, Change::Retry) && count > 0 && !door.is_relay() {
            out.note("no relay runs; they are due as soon as it does");
        }
    }
    // The rest is done, but who runs this in a script should look.
    if left_alone.is_empty() { Ok(()) } else { Err(Failure::silent()) }
}

fn selections(which: Which) -> Vec<Selection> {
    let Which { messages, tenant, stream, all: _ } = which;
    match tenant {
        Some(tenant) => vec![Selection::Of { tenant, stream }],
        None if messages.is_empty() => vec![Selection::All],
        None => messages.chunks(CHUNK).map(|ids| Selection::Messages(ids.to_vec())).collect(),
    }
}

/// The time from one moment to another, in its largest unit.
fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.millis().saturating_sub(from.millis()) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Octets in a unit that leaves few digits.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_have_few_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (26_214_400, "25.0 MiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (172_799, "47h"), (172_800, "2d")] {
            assert_eq!(span(at(5), at(5 + seconds)), shown);
        }
        assert_eq!(span(at(5), at(1)), "0s");
    }
}
