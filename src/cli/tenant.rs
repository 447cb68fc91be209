//! `tenant …` and `apply`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::door::{Door, ask, strange};
use super::output::{Out, or_dash};
use super::{Context, Failure, block_on, value};
use crate::admin::command::PAGE;
use crate::admin::view::{DomainRow, RateView, StandingView, StreamView, TenantRow, TenantView};
use crate::admin::{Request, Response};
use crate::config::{self, Settings};
use crate::mail::{StreamId, TenantId};
use crate::policy::reputation::{Offence, Step, percent};
use crate::policy::tenant::{Limits, StreamKind};

/// Tenants.
#[derive(Subcommand, Debug)]
pub(super) enum Tenant {
    /// List all tenants
    List,
    /// Show one tenant: streams, limits, credentials, what became of its mail, its standing, and how near
    /// the next step is
    Show {
        /// Which tenant
        tenant: TenantId,
    },
    /// Show what became of a tenant's mail by recipient domain, the worst first
    Domains {
        /// Which tenant
        tenant: TenantId,
        /// Days (UTC), today among them
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=400))]
        days: u32,
    },
    /// Stop a tenant's mail, or one stream's; its clients hear 451, or 550 if so declared
    Pause {
        /// Which tenant
        tenant: TenantId,
        /// Only this stream
        #[arg(long)]
        stream: Option<StreamId>,
        /// Why; the clients hear it
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a paused tenant, or stream, go on
    Resume {
        /// Which tenant
        tenant: TenantId,
        /// Only this stream
        #[arg(long)]
        stream: Option<StreamId>,
        /// Why; for the log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Show or change the rates at which a tenant, or a stream, is warned and paused
    Limits(LimitsOf),
}

/// `tenant limits`.
#[derive(Args, Debug)]
pub(super) struct LimitsOf {
    /// Which tenant
    tenant: TenantId,
    /// Only this stream
    #[arg(long)]
    stream: Option<StreamId>,
    /// Bounce rate of the first warning, 0.02 or 2%
    #[arg(long, value_parser = value::rate)]
    warn_bounce: Option<f64>,
    /// Complaint rate of the first warning
    #[arg(long, value_parser = value::rate)]
    warn_complaint: Option<f64>,
    /// Bounce rate of the pause
    #[arg(long, value_parser = value::rate)]
    pause_bounce: Option<f64>,
    /// Complaint rate of the pause
    #[arg(long, value_parser = value::rate)]
    pause_complaint: Option<f64>,
    /// Take away all limits of its own first, so that its kind's hold
    #[arg(long)]
    reset: bool,
    /// Why; for the log
    #[arg(long, default_value = "")]
    reason: String,
}

/// `apply`.
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// Tenants file
    file: PathBuf,
    /// Only show the difference
    #[arg(long)]
    dry_run: bool,
    /// Remove tenants, streams and credentials that the file does not have; issued credentials go
    /// with their tenant only
    #[arg(long)]
    prune: bool,
}

impl Tenant {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        block_on(async {
            let request = match self {
                Self::List => return list(&settings, out).await,
                Self::Show { tenant } => Request::TenantShow { tenant },
                Self::Domains { tenant, days } => return domains(&settings, out, tenant, days).await,
                Self::Pause { tenant, stream, reason } => Request::TenantPause { tenant, stream, reason },
                Self::Resume { tenant, stream, reason } => Request::TenantResume { tenant, stream, reason },
                Self::Limits(limits) => limits.request(),
            };
            let resumed = match &request {
                Request::TenantResume { stream: Some(stream), .. } => Some(stream.clone()),
                _ => None,
            };
            match ask(&settings, request).await? {
                Response::Tenant(tenant) => {
                    show(&tenant, out)?;
                    resumed.into_iter().for_each(|stream| tell_of_what_stays(&tenant, &stream, out));
                    Ok(())
                }
                _ => Err(strange()),
            }
        })
    }
}

impl LimitsOf {
    fn request(self) -> Request {
        let limits = Limits {
            warn_bounce: self.warn_bounce,
            warn_complaint: self.warn_complaint,
            pause_bounce: self.pause_bounce,
            pause_complaint: self.pause_complaint,
        };
        if limits == Limits::default() && !self.reset {
            return Request::TenantShow { tenant: self.tenant };
        }
        let Self { tenant, stream, reset, reason, .. } = self;
        Request::TenantLimits { tenant, stream, limits, reset, reason }
    }
}

impl Apply {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        let (declared, notes) = config::load_tenants(&self.file).map_err(Failure::Config)?;
        for note in &notes {
            out.note(format!("note: {note}"));
        }
        let source = self.file.display().to_string();
        let request = Request::Apply { declared, source, dry_run: self.dry_run, prune: self.prune };
        let answer = block_on(async { Ok(Door::open(&settings, true).await?.ask(request).await?) })?;
        let Response::Applied { changes, words, dry_run } = answer else { return Err(strange()) };
        if out.json {
            out.json(&serde_json::json!({"applied": !dry_run, "changes": words}))?;
            return Ok(());
        }
        for word in &words {
            out.line(word);
        }
        match (changes.len(), dry_run) {
            (0, _) => out.line("nothing to change"),
            (many, true) => out.line(format!("{many} changes; nothing was changed (--dry-run)")),
            (many, false) => out.line(format!("{many} changes applied")),
        }
        Ok(())
    }
}

async fn list(settings: &Settings, out: Out) -> Result<(), Failure> {
    let mut door = Door::open(settings, false).await?;
    let mut rows: Vec<TenantRow> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.id.clone());
        let Response::Tenants(page) = door.ask(Request::TenantList { after }).await? else { return Err(strange()) };
        let more = page.len() == PAGE;
        rows.extend(page);
        if !more {
            break;
        }
    }
    if out.json {
        return Ok(out.json(&rows)?);
    }
    if rows.is_empty() {
        out.line("no tenants; `bulkhead apply TENANTS.toml` makes them");
        return Ok(());
    }
    let cells = rows.iter().map(|row| {
        let sending = match (row.paused, row.ses_disabled, row.paused_streams.as_slice()) {
            (true, ..) => "paused".to_owned(),
            (false, true, _) => "disabled by Amazon SES".to_owned(),
            (false, false, []) => "yes".to_owned(),
            (false, false, streams) => format!("but {}", joined(streams)),
        };
        vec![
            row.id.to_string(),
            sending,
            standings(row),
            joined(&row.streams),
            row.credentials.to_string(),
            row.senders.join(", "),
        ]
    });
    out.table(&["TENANT", "SENDING", "STANDING", "STREAMS", "CREDENTIALS", "SENDERS"], &cells.collect::<Vec<_>>());
    Ok(())
}

fn show(tenant: &TenantView, out: Out) -> Result<(), Failure> {
    if out.json {
        return Ok(out.json(tenant)?);
    }
    let standing = |pause: &Option<crate::admin::view::PauseView>| match pause {
        None => "sending".to_owned(),
        Some(pause) => format!("paused since {} by {}: {}", pause.at, pause.actor, pause.reason),
    };
    out.pairs(&[
        ("tenant", tenant.id.to_string()),
        ("sending", standing(&tenant.pause)),
        (
            "Amazon SES",
            tenant
                .ses_pause
                .as_ref()
                .map(|pause| format!("disabled since {}: {}", pause.at, pause.reason))
                .unwrap_or_default(),
        ),
        ("standing", standing_words(&tenant.standing)),
        ("rates of all", rates(&tenant.rates)),
        ("ceilings", if tenant.young { "those of a new tenant".into() } else { String::new() }),
        ("contact", tenant.contact.clone().unwrap_or_default()),
        ("senders", tenant.senders.join(", ")),
        ("SES tenant", tenant.ses_tenant.clone().unwrap_or_default()),
        ("default stream", tenant.default_stream.to_string()),
        ("limits", limits(&tenant.limits)),
        ("weight", tenant.weight.to_string()),
        ("enforce", if tenant.enforce { String::new() } else { "no: standing is only logged".into() }),
    ]);
    out.line("");
    let rows: Vec<_> = tenant.streams.iter().map(|stream| row(stream, &standing(&stream.pause))).collect();
    out.table(
        &[
            "STREAM",
            "KIND",
            "CONFIGURATION SET",
            "ACCEPTED 24H",
            "BOUNCED",
            "COMPLAINED",
            "7 DAYS",
            "OUTBOX",
            "LIMITS",
            "SENDING",
        ],
        &rows,
    );
    for stream in &tenant.streams {
        out.line("");
        judged(stream, out);
    }
    out.line("");
    if tenant.credentials.is_empty() {
        out.line(format!("no credentials; `bulkhead credential issue {}` makes one", tenant.id));
        return Ok(());
    }
    super::credential::table(&tenant.credentials, out);
    Ok(())
}

fn row(stream: &StreamView, standing: &str) -> Vec<String> {
    let (day, week) = (&stream.last_day, &stream.last_week);
    vec![
        stream.id.to_string(),
        stream.kind.word().to_owned(),
        stream.configuration_set.clone(),
        day.accepted.to_string(),
        day.bounced.to_string(),
        day.complained.to_string(),
        format!("{} accepted, {} bounced, {} complained", week.accepted, week.bounced, week.complained),
        outbox(stream),
        or_dash(limits(&stream.limits)),
        standing.to_owned(),
    ]
}

/// How a stream uses the outbox: its handoff, and what is not as it is by default.
fn outbox(stream: &StreamView) -> String {
    let mut words = vec![stream.handoff.word().to_owned()];
    words.extend(stream.max_age_hours.map(|hours| format!("max_age_hours {hours}")));
    words.extend((!stream.dedupe).then(|| "no dedupe".to_owned()));
    words.extend(stream.dsn.then(|| "dsn".to_owned()));
    words.join(", ")
}

fn limits(limits: &Limits) -> String {
    [
        ("warn_bounce", limits.warn_bounce),
        ("warn_complaint", limits.warn_complaint),
        ("pause_bounce", limits.pause_bounce),
        ("pause_complaint", limits.pause_complaint),
    ]
    .into_iter()
    .filter_map(|(name, rate)| rate.map(|rate| format!("{name} {rate}")))
    .collect::<Vec<_>>()
    .join(", ")
}

/// A tenant's standings in a list: its sum's, then its streams'.
fn standings(row: &TenantRow) -> String {
    let streams = row.braked_streams.iter().map(|(stream, step)| format!("{stream} {}", step.words()));
    let own = (row.standing > Step::Good).then(|| row.standing.words().to_owned());
    let all: Vec<String> = own.into_iter().chain(streams).collect();
    if all.is_empty() { Step::Good.words().to_owned() } else { all.join(", ") }
}

fn standing_words(standing: &StandingView) -> String {
    let resumed = standing.resumed.as_ref().map(|at| format!("; counted from {at}")).unwrap_or_default();
    let (Some(since), Some(charge)) = (&standing.since, &standing.charge) else {
        let since = standing.good_since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        return format!("good{since}{resumed}");
    };
    let would = if standing.shadow { "only told of: would be " } else { "" };
    format!("{would}{} since {since}: {charge}{resumed}", standing.step.words())
}

/// `bounces 6.2 % in 24 hours (31 of 500), 1.2 % in 7 days (…)`.
fn rates(rates: &[RateView]) -> String {
    let one = |rate: &RateView| {
        format!(
            "{}s {} in {} ({} of {})",
            rate.offence.word(),
            percent(rate.rate),
            rate.span.words(),
            rate.bad,
            rate.accepted
        )
    };
    rates.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A stream's standing, its rates beside their limits, and what comes next.
fn judged(stream: &StreamView, out: Out) {
    let lines = |offence: Offence| {
        let limits = stream.rates.iter().find(|rate| rate.offence == offence);
        limits.map(|rate| {
            let (warn, slow, pause) = (percent(rate.warn), percent(rate.slow), percent(rate.pause));
            format!("{}s: warned over {warn}, slowed over {slow}, paused over {pause}", offence.word())
        })
    };
    let limits: Vec<String> = Offence::ALL.into_iter().filter_map(lines).collect();
    out.pairs(&[
        ("stream", stream.id.to_string()),
        ("standing", standing_words(&stream.standing)),
        ("enforce", if stream.enforce { String::new() } else { "no: standing is only logged".into() }),
        ("rates", rates(&stream.rates)),
        ("limits", limits.join("; ")),
        ("forecast", forecast(stream)),
        ("exposure", stream.exposure.clone().unwrap_or_default()),
    ]);
}

fn forecast(stream: &StreamView) -> String {
    let more = |next: &crate::admin::view::ForecastView| {
        let (s, what) = (if next.more == 1 { "" } else { "s" }, next.offence.word());
        format!("{} more {what}{s} at this volume: {}", next.more, next.step.words())
    };
    let mut words: Vec<String> = stream.forecast.iter().map(more).collect();
    let standing = &stream.standing;
    if standing.step > Step::Good {
        match (&standing.clears, &standing.good) {
            (Some(better), Some(good)) if better == good => words.push(format!("clean until {good}: good again")),
            (Some(better), Some(good)) => words.push(format!("clean until {better}: better; until {good}: good again")),
            (_, _) => words.push("it stays until `bulkhead tenant resume`".into()),
        }
    }
    words.join("; ")
}

/// A stream's fresh window does not end what its tenant's sum has come to.
fn tell_of_what_stays(tenant: &TenantView, stream: &StreamId, out: Out) {
    let kind = tenant.streams.iter().find(|one| one.id == *stream).map(|one| one.kind);
    let stops = match tenant.standing.step {
        Step::Paused => true,
        Step::TransactionalOnly => kind != Some(StreamKind::Transactional),
        Step::Good | Step::Warned | Step::Slowed => false,
    };
    if stops && !tenant.standing.shadow {
        out.note(format!(
            "note: stream {stream} still waits, since its tenant is {}; `bulkhead tenant resume {}` ends that, too",
            tenant.standing.step.words(),
            tenant.id
        ));
    }
}

async fn domains(settings: &Settings, out: Out, tenant: TenantId, days: u32) -> Result<(), Failure> {
    let Response::Domains(rows) = ask(settings, Request::TenantDomains { tenant, days }).await? else {
        return Err(strange());
    };
    if out.json {
        return Ok(out.json(&rows)?);
    }
    if rows.is_empty() {
        out.line(format!("no mail of the last {days} days"));
        return Ok(());
    }
    let cells = rows.iter().map(|DomainRow { domain, counts, bounce_rate, complaint_rate }| {
        vec![
            if domain == "*" { "all others".to_owned() } else { domain.clone() },
            counts.accepted.to_string(),
            counts.delivered.to_string(),
            counts.bounced.to_string(),
            percent(*bounce_rate),
            counts.complained.to_string(),
            percent(*complaint_rate),
            counts.soft_bounced.to_string(),
        ]
    });
    let header = ["DOMAIN", "ACCEPTED", "DELIVERED", "BOUNCED", "RATE", "COMPLAINED", "RATE", "SOFT BOUNCED"];
    out.table(&header, &cells.collect::<Vec<_>>());
    Ok(())
}

fn joined(names: &[StreamId]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
