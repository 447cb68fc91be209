//! `audit …`.

use clap::Subcommand;

use super::door::{Door, strange};
use super::output::{Out, or_dash};
use super::{Context, Failure, block_on, value};
use crate::admin::view::AuditView;
use crate::admin::{Request, Response};
use crate::config::Settings;
use crate::mail::TenantId;
use crate::time::Timestamp;

/// The audit trail.
#[derive(Subcommand, Debug)]
pub(super) enum Audit {
    /// List who changed what, when and why, the newest first
    List {
        /// Only what concerns this tenant
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Only from then on: a time back as 30d or 24h, or a moment as 2027-01-01
        #[arg(long, value_parser = value::past, default_value = "30d")]
        since: Timestamp,
    },
}

impl Audit {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        block_on(async {
            match self {
                Self::List { tenant, since } => list(&settings, tenant, since, out).await,
            }
        })
    }
}

async fn list(settings: &Settings, tenant: Option<TenantId>, since: Timestamp, out: Out) -> Result<(), Failure> {
    let mut door = Door::open(settings, false).await?;
    let (mut all, mut after): (Vec<AuditView>, _) = (Vec::new(), None);
    loop {
        let request = Request::AuditList { tenant: tenant.clone(), since: Some(since), after };
        let Response::Audit(page) = door.ask(request).await? else { return Err(strange()) };
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
        out.line(format!("nothing was changed since {}", since.rfc3339()));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all.into_iter().map(cells).collect();
    out.table(&["AT", "ACTOR", "WHAT", "TENANT", "STREAM", "REASON", "BEFORE", "AFTER"], &rows);
    Ok(())
}

fn cells(entry: AuditView) -> Vec<String> {
    let AuditView { at, actor, what, tenant, stream, reason, before, after, fault } = entry;
    vec![
        or_dash(at),
        or_dash(actor),
        or_dash(what),
        or_dash(tenant.map(|tenant| tenant.to_string()).unwrap_or_default()),
        or_dash(stream.map(|stream| stream.to_string()).unwrap_or_default()),
        or_dash(fault.map_or(reason, |fault| format!("cannot be read: {fault}"))),
        or_dash(before),
        or_dash(after),
    ]
}
