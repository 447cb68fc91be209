//! The command line: what was typed, then what is meant, then one file per group of commands.
//!
//! Promises: exit 0 when it was done, 1 when it failed, 64 when it was typed wrongly, 78 when the
//! settings or the tenants file are wrong. Answers on standard output, remarks and errors on
//! standard error, no colours. Commands on tenants, credentials, suppressions, held messages and
//! the audit trail go to the relay that runs with the data folder, else to the store itself.

mod audit;
mod check;
mod credential;
mod demo;
mod door;
mod events;
mod explain;
mod import;
mod outbox;
mod output;
mod progress;
mod send_test;
mod serve;
mod simulate;
mod store;
mod suppression;
mod tenant;
mod value;
mod warmup;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::adapters::log::Format;
use crate::config::{self, Problem, Settings};
use output::Out;

/// Where the settings are looked for when nobody says.
const DEFAULT_CONFIG: &str = "config/bulkhead.toml";

/// Exit code for a wrong command line (sysexits EX_USAGE).
const USAGE: u8 = 64;
/// Exit code for wrong settings (sysexits EX_CONFIG).
const CONFIG: u8 = 78;

/// A multi-tenant SMTP relay in front of Amazon SES that keeps one tenant's bad campaign from
/// sinking everybody's mail.
#[derive(Parser, Debug)]
#[command(name = "bulkhead", version, max_term_width = 100)]
struct Typed {
    /// Settings file [default: config/bulkhead.toml, if it is there]
    #[arg(long, global = true, env = "BULKHEAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answers as JSON
    #[arg(long, global = true)]
    json: bool,
    /// How the log looks: json or text [default: log.format]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what Bulkhead does, on this machine alone, with three tenants and a local SES
    Demo(demo::Demo),
    /// Run the relay
    Serve(serve::Serve),
    /// Run only the local SES v2 and SQS endpoint, for other programs' tests
    Sandbox(serve::SandboxOnly),
    /// Validate settings and tenants file; bind nothing
    Check,
    /// Make the store equal to a tenants file
    Apply(tenant::Apply),
    /// Show, pause and resume tenants
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Issue, rotate and revoke what tenants log in with
    #[command(subcommand)]
    Credential(credential::Credential),
    /// Look at and change tenants' suppression lists
    #[command(subcommand)]
    Suppression(suppression::Suppression),
    /// Look at held messages, try them now, give them up
    #[command(subcommand)]
    Outbox(outbox::Outbox),
    /// Look at who changed what, when and why
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show warm-up ladders
    #[command(subcommand)]
    Warmup(warmup::Warmup),
    /// Check the store and the outbox's files, and make the outbox's rows anew
    #[command(subcommand)]
    Store(store::Store),
    /// Show the chain of rules that a message would meet, each with its value and its limit, and the reply
    Explain(explain::Explain),
    /// Show who would have been warned, slowed and paused under other limits, by the mail that was sent
    ///
    /// Replays the stored counts hour by hour, and shows when, why and until when; beside it what the limits in
    /// force say of the same mail. Each hour is judged by what became of its mail in the end: when an event
    /// arrived is not kept. So steps come earlier here than they came from day to day, and mail that a pause
    /// would have kept is counted.
    Simulate(simulate::Simulate),
    /// Send one message through the running relay, by SMTP
    SendTest(send_test::SendTest),
    /// Work with archived SES events
    #[command(subcommand)]
    Events(events::Events),
    /// Show whether the relay runs, where, and whether it takes mail
    Status,
    /// Ask the running relay's /healthz; for a container's health check
    Health(serve::HealthCheck),
}

/// Why a command ends with another code than 0.
#[derive(Debug)]
enum Failure {
    /// The command line means nothing: 64.
    Usage(String),
    /// The settings or the tenants file are wrong: 78.
    Config(Vec<Problem>),
    /// The settings are of no use here: 78.
    Setting(String),
    /// It could not be done: 1. Nothing more is to be said after an empty text.
    Failed(anyhow::Error),
}

/// What every command gets.
#[derive(Debug)]
struct Context {
    out: Out,
    config: Option<PathBuf>,
    log_format: Option<Format>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let typed = match Typed::try_parse() {
        Ok(typed) => typed,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which stream each belongs to.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            };
        }
    };
    let context = Context { out: Out { json: typed.json }, config: typed.config, log_format: typed.log_format };
    match run(&context, typed.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                context.out.note(format!("bulkhead: {text}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(demo) => demo.run(context),
        Command::Serve(serve) => serve.run(context),
        Command::Sandbox(sandbox) => sandbox.run(context),
        Command::Check => check::run(context),
        Command::Apply(apply) => apply.run(context),
        Command::Tenant(tenant) => tenant.run(context),
        Command::Credential(credential) => credential.run(context),
        Command::Suppression(suppression) => suppression.run(context),
        Command::Outbox(outbox) => outbox.run(context),
        Command::Audit(audit) => audit.run(context),
        Command::Warmup(warmup) => warmup.run(context),
        Command::Store(store) => store.run(context),
        Command::Explain(explain) => explain.run(context),
        Command::Simulate(simulate) => simulate.run(context),
        Command::SendTest(send_test) => send_test.run(context),
        Command::Events(events) => events.run(context),
        Command::Status => serve::status(context),
        Command::Health(check) => check.run(context),
    }
}

impl Context {
    /// The settings file: the one that was named, or the default one if it is there.
    fn config_file(&self) -> Option<&Path> {
        match &self.config {
            Some(file) => Some(file),
            None => Some(Path::new(DEFAULT_CONFIG)).filter(|file| file.exists()),
        }
    }

    /// The settings of this process's file and variables.
    fn settings(&self) -> Result<Settings, Failure> {
        config::load(self.config_file(), variables()).map_err(Failure::Config)
    }
}

/// The environment, but for what is no text and so none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Runs `work` on a runtime of one thread, which is enough for a command.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Config(_) | Self::Setting(_) => CONFIG,
            Self::Failed(_) => 1,
        }
    }

    /// It failed, and why.
    fn because(text: impl fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{text}"))
    }

    /// It failed, and all has been said.
    fn silent() -> Self {
        Self::because("")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Setting(text) => f.write_str(text),
            Self::Config(problems) => {
                match problems.len() {
                    1 => f.write_str("the configuration has a fault")?,
                    many => write!(f, "the configuration has {many} faults")?,
                }
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Typed::command().debug_assert();
    }
}
