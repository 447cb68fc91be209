//! `warmup …`.

use clap::Subcommand;

use super::door::{Door, strange};
use super::output::{Out, or_dash};
use super::{Context, Failure, block_on};
use crate::admin::warmup::{LADDERS, WarmupView};
use crate::admin::{Request, Response};
use crate::mail::{StreamId, TenantId};

/// Warm-up ladders.
#[derive(Subcommand, Debug)]
pub(super) enum Warmup {
    /// Show the plan of each ladder day by day, and where its stream stands
    Show {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Only of streams of this name
        #[arg(long)]
        stream: Option<StreamId>,
    },
}

impl Warmup {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        let Self::Show { tenant, stream } = self;
        let ladders = block_on(async {
            let mut door = Door::open(&settings, false).await?;
            let mut ladders: Vec<WarmupView> = Vec::new();
            loop {
                let after = ladders.last().map(|last| (last.tenant.clone(), last.stream.clone()));
                let request = Request::WarmupShow { tenant: tenant.clone(), stream: stream.clone(), after };
                let Response::Warmups(page) = door.ask(request).await? else { return Err(strange()) };
                let more = page.len() == LADDERS;
                ladders.extend(page);
                if !more {
                    return Ok(ladders);
                }
            }
        })?;
        show(&ladders, out)
    }
}

fn show(ladders: &[WarmupView], out: Out) -> Result<(), Failure> {
    if out.json {
        return Ok(out.json(&ladders)?);
    }
    if ladders.is_empty() {
        out.line("no stream has a warm-up ladder; `warmup` in the tenants file declares one");
    }
    for ladder in ladders {
        let stands = match (ladder.cap, ladder.is_ahead) {
            (None, _) => "climbed: no cap".to_owned(),
            (Some(cap), ahead) => format!(
                "step {} of {}: {} of {cap} recipients today{}",
                ladder.step,
                ladder.plan.len(),
                ladder.sent_today,
                if ahead { format!("; it begins on {}", ladder.start) } else { String::new() }
            ),
        };
        out.line(format!("{}/{}  {stands}", ladder.tenant, ladder.stream));
        if ladder.cap.is_none() {
            continue;
        }
        let rows: Vec<Vec<String>> = ladder
            .plan
            .iter()
            .map(|day| {
                let here = if day.step == ladder.step { "<" } else { "" };
                vec![
                    day.step.to_string(),
                    or_dash(day.day.clone().unwrap_or_default()),
                    day.cap.to_string(),
                    here.into(),
                ]
            })
            .collect();
        out.table(&["STEP", "DAY IF CLEAN", "RECIPIENTS", ""], &rows);
        out.line("");
    }
    Ok(())
}
