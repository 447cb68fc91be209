//! `simulate`: the stored history under other limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::door::{Door, strange};
use super::output::{Out, or_dash};
use super::{Context, Failure, block_on, value};
use crate::adapters::clock::MachineClock;
use crate::admin::history::TENANTS;
use crate::admin::view::TenantState;
use crate::admin::{Request, Response};
use crate::config::{self, Problem, Tried};
use crate::mail::{StreamId, TenantId};
use crate::policy::cohort::WEEK;
use crate::policy::reputation::{Step, begin_of};
use crate::policy::tenant::{Cohort, Tenant};
use crate::reputation::replay::{Mail, Past, Transition, replay};
use crate::time::{Clock as _, Hour, Timestamp};

/// Most rows of counts that are replayed at a time.
const ROWS: usize = 5_000_000;

/// `simulate`.
#[derive(Args, Debug)]
pub(super) struct Simulate {
    /// The limits to try, as TOML: settings of [reputation], and [[tenant]] with id and limits,
    /// [[tenant.stream]] with id and limits; what it does not say is as it is in force
    #[arg(long, value_name = "FILE")]
    limits: PathBuf,
    /// Since when: 7d, or 2026-01-01; counts are kept for events.counter_days
    #[arg(long, value_parser = value::past)]
    since: Timestamp,
    /// Only this tenant, as though it were alone: the account's line is left out
    #[arg(long)]
    tenant: Option<TenantId>,
}

/// A standing that would have changed, as JSON has it.
#[derive(Serialize)]
struct TransitionView<'a> {
    at: String,
    tenant: &'a TenantId,
    stream: Option<&'a StreamId>,
    from: Step,
    to: Step,
    reason: Option<String>,
    until: Option<String>,
    shadow: bool,
}

impl Simulate {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let present = settings.reputation.rules;
        let tried = config::load_limits(&self.limits, present).map_err(Failure::Config)?;
        let (since, until) = (self.since.hour(), MachineClock.now().hour());
        if since > until {
            return Err(Failure::Usage("--since lies ahead".into()));
        }
        let (states, past) = block_on(async {
            let mut door = Door::open(&settings, false).await?;
            let states = states(&mut door, self.tenant.as_ref()).await?;
            let past = past(&mut door, self.tenant.as_ref(), &states, since).await?;
            Ok((states, past))
        })?;
        let (mut present, mut rules) = (present, tried.rules);
        if self.tenant.is_some() {
            // Its share of the account's rate says nothing without the others'.
            for rules in [&mut present, &mut rules] {
                (rules.account_bounce, rules.account_complaint) = (1.0, 1.0);
            }
        }
        let other = with_limits(&states, &tried)?;
        let as_it_is = states.iter().map(tenant_of).collect();
        let tried = replay(&past, &rules, other, since, until);
        let now = replay(&past, &present, as_it_is, since, until);
        show(&tried, &now, since, context.out)
    }
}

async fn states(door: &mut Door, only: Option<&TenantId>) -> Result<Vec<TenantState>, Failure> {
    let mut all: Vec<TenantState> = Vec::new();
    loop {
        let after = all.last().map(|state| state.tenant.id.clone());
        let request = Request::TenantStates { tenant: only.cloned(), after };
        let Response::States(page) = door.ask(request).await? else { return Err(strange()) };
        let more = page.len() == TENANTS;
        all.extend(page);
        if !more {
            return Ok(all);
        }
    }
}

/// The counts that the windows of the first hour need and all after them, and what was resumed meanwhile.
async fn past(door: &mut Door, only: Option<&TenantId>, states: &[TenantState], since: Hour) -> Result<Past, Failure> {
    let from = Hour(since.0.saturating_sub(WEEK));
    let mut past = Past::default();
    let mut after = None;
    loop {
        let request = Request::HistoryPage { tenant: only.cloned(), from, after };
        let Response::History(page) = door.ask(request).await? else { return Err(strange()) };
        for stream in page.streams {
            for of in stream.cohorts {
                let (tenant, stream) = (stream.tenant.clone(), stream.stream.clone());
                let cohort = Cohort { hour: of.hour, from_second: of.from_second };
                past.add(Mail { tenant, stream, cohort, counts: of.counts });
            }
        }
        if past.rows() > ROWS {
            return Err(Failure::because(format!(
                "there are more than {ROWS} rows of counts; give --tenant, or a later --since"
            )));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let request = Request::AuditList { tenant: only.cloned(), since: Some(begin_of(from)), after };
        let Response::Audit(page) = door.ask(request).await? else { return Err(strange()) };
        for entry in page.rows {
            let at = Timestamp::parse_rfc3339(&entry.at);
            if let (true, Some(at), Some(tenant)) = (entry.what.starts_with("tenant resume"), at, entry.tenant) {
                past.resumed(at.hour(), tenant, entry.stream);
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for state in states {
        let resumed = state.resumed.iter().filter(|(_, at)| at.hour() >= from);
        resumed.for_each(|(stream, at)| past.resumed(at.hour(), state.tenant.id.clone(), stream.clone()));
    }
    Ok(past)
}

/// A tenant as it would have been at the beginning: known since its first mail, and in good standing.
fn tenant_of(state: &TenantState) -> Tenant {
    let mut tenant = (*state.tenant).clone();
    tenant.standing.first = state.first;
    tenant
}

/// The tenants with the limits that are tried.
fn with_limits(states: &[TenantState], tried: &Tried) -> Result<Vec<Tenant>, Failure> {
    let mut tenants: BTreeMap<TenantId, Tenant> =
        states.iter().map(tenant_of).map(|tenant| (tenant.id.clone(), tenant)).collect();
    let mut problems = Vec::new();
    let mut missing = |place: &config::Place, key: String, what: &str| {
        let (file, line, what) = (place.file.clone(), place.line, what.to_owned());
        let cure = "`bulkhead tenant list` shows which there are".to_owned();
        problems.push(Problem { file, line, key, what, cure });
    };
    for (id, other) in &tried.tenants {
        let Some(tenant) = tenants.get_mut(id) else {
            missing(&other.place, format!("tenant.{id}"), "is no tenant here, or not the one of --tenant");
            continue;
        };
        tenant.limits = other.limits.unwrap_or(tenant.limits);
        tenant.enforce = other.enforce.unwrap_or(tenant.enforce);
        for (stream, (place, limits)) in &other.streams {
            match tenant.streams.get_mut(stream) {
                Some(stream) => stream.limits = limits.unwrap_or(stream.limits),
                None => missing(place, format!("tenant.{id}.stream.{stream}"), "is no stream of that tenant"),
            }
        }
    }
    if problems.is_empty() { Ok(tenants.into_values().collect()) } else { Err(Failure::Config(problems)) }
}

fn show(tried: &[Transition], present: &[Transition], since: Hour, out: Out) -> Result<(), Failure> {
    if out.json {
        let views =
            |all: &[Transition]| all.iter().map(|one| serde_json::to_value(view(one))).collect::<Result<Vec<_>, _>>();
        let answer = serde_json::json!({
            "since": begin_of(since).rfc3339(),
            "tried": views(tried)?,
            "present": views(present)?,
        });
        return Ok(out.json(&answer)?);
    }
    if tried.is_empty() && present.is_empty() {
        out.line("nobody would have been warned, slowed or paused, nor is by the limits in force");
        return Ok(());
    }
    // What happens to one in one hour stands in one line.
    type Lines<'a> = BTreeMap<(Hour, &'a TenantId, Option<&'a StreamId>), [Option<&'a Transition>; 2]>;
    let mut lines = Lines::new();
    for (column, all) in [tried, present].into_iter().enumerate() {
        for one in all {
            let line = lines.entry((one.at, &one.tenant, one.stream.as_ref())).or_default();
            if let Some(place) = line.get_mut(column) {
                *place = Some(one);
            }
        }
    }
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|((at, tenant, stream), [tried, present])| {
            let stream = stream.map(|stream| format!("/{stream}")).unwrap_or_default();
            let cell = |one: Option<&Transition>| or_dash(one.map(words).unwrap_or_default());
            vec![begin_of(at).rfc3339(), format!("{tenant}{stream}"), cell(tried), cell(present)]
        })
        .collect();
    out.table(&["HOUR", "WHO", "WITH THE LIMITS TRIED", "WITH THOSE IN FORCE"], &rows);
    out.line("");
    out.line(format!("with the limits tried: {}", summary(tried)));
    out.line(format!("with those in force: {}", summary(present)));
    Ok(())
}

fn view(one: &Transition) -> TransitionView<'_> {
    TransitionView {
        at: begin_of(one.at).rfc3339(),
        tenant: &one.tenant,
        stream: one.stream.as_ref(),
        from: one.from,
        to: one.to,
        reason: one.charge.map(|charge| charge.to_string()),
        until: one.clears.map(Timestamp::rfc3339),
        shadow: one.shadow,
    }
}

fn words(one: &Transition) -> String {
    let would = if one.shadow { "only told of: " } else { "" };
    let until = one.clears.map(|until| format!(" until {}", until.rfc3339())).unwrap_or_default();
    let why = one.charge.map(|charge| format!(": {charge}")).unwrap_or_default();
    format!("{would}{}{until}{why}", one.to.words())
}

/// How often somebody came to each step from a better one.
fn summary(all: &[Transition]) -> String {
    let count = |step: Step| all.iter().filter(|one| one.to == step && one.to > one.from).count();
    let steps = [Step::Warned, Step::Slowed, Step::TransactionalOnly, Step::Paused];
    let words = steps.map(|step| (count(step), step)).into_iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = words.map(|(count, step)| format!("{count} times {}", step.words())).collect();
    if words.is_empty() { "nobody restrained".into() } else { words.join(", ") }
}
