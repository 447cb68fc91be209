//! `explain`.

use clap::Args;

use super::door::{ask, strange};
use super::output::{Out, or_dash};
use super::{Context, Failure, block_on, value};
use crate::admin::view::{ExplainView, StepView};
use crate::admin::{Request, Response};
use crate::mail::{Mailbox, StreamId, TenantId, Username};

/// `explain`.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// Whose mail
    #[arg(long)]
    tenant: TenantId,
    /// From whom: the reverse-path, and the author
    #[arg(long, value_parser = value::mailbox)]
    from: Mailbox,
    /// To whom
    #[arg(long, value_parser = value::mailbox)]
    to: Mailbox,
    /// The stream that the message names [default: the credential's, or the tenant's default stream]
    #[arg(long)]
    stream: Option<StreamId>,
    /// By which credential [default: one that is bound to no stream]
    #[arg(long)]
    credential: Option<Username>,
}

impl Explain {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let Self { tenant, from, to, stream, credential } = self;
        let stream = stream.map(|stream| stream.to_string());
        let request = Request::Explain { tenant, from, to, stream, credential };
        match block_on(ask(&settings, request))? {
            Response::Explained(explained) => show(&explained, context.out),
            _ => Err(strange()),
        }
    }
}

fn show(explained: &ExplainView, out: Out) -> Result<(), Failure> {
    if out.json {
        return Ok(out.json(explained)?);
    }
    let row = |step: &StepView| {
        let passes = match step.passes {
            Some(true) => "passes",
            Some(false) => "STOPS",
            None => "",
        };
        let clears = step.clears.clone().unwrap_or_default();
        vec![
            step.moment.word().to_owned(),
            step.rule.clone(),
            passes.to_owned(),
            step.value.clone(),
            or_dash(step.limit.clone()),
            or_dash(clears),
        ]
    };
    let rows: Vec<Vec<String>> = explained.steps.iter().map(row).collect();
    out.table(&["AT", "RULE", "", "IT STANDS AT", "LIMIT", "CLEARS"], &rows);
    out.line("");
    let verdict = &explained.verdict;
    let by = verdict.stream.as_ref().map(|stream| format!(" by stream {stream}")).unwrap_or_default();
    let why = verdict.rule.as_ref().map(|rule| format!(", for {rule}")).unwrap_or_default();
    let until = verdict.clears.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
    out.line(format!("{}{by}{why}{until}: {}", verdict.outcome, verdict.reply));
    Ok(())
}
