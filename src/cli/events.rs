//! `events …`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use clap::Subcommand;

use super::door::{Door, strange};
use super::output::Out;
use super::{Context, Failure, block_on};
use crate::admin::command::{ArchivedNotice, CHUNK};
use crate::admin::control;
use crate::admin::listfile::bounded_line;
use crate::admin::{Request, Response};
use crate::config::Settings;

/// Longest line of an archive in octets; SQS carries no longer notices.
const LINE: usize = 1024 * 1024;
/// Most octets of one request, well below what the control socket takes.
const REQUEST: usize = control::LINE / 4;
/// Most bad lines that are told one by one.
const TOLD: usize = 50;

/// Archived events.
#[derive(Subcommand, Debug)]
pub(super) enum Events {
    /// Apply archived events, one JSON document a line, each once: what was applied before is passed over
    Replay {
        /// File, or - for standard input
        file: PathBuf,
    },
}

#[derive(Default)]
struct Sum {
    taken: usize,
    malformed: usize,
    deferred: usize,
}

impl Events {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::Replay { file } = self;
        let settings = context.settings()?;
        block_on(replay(&settings, &file, context.out))
    }
}

async fn replay(settings: &Settings, file: &std::path::Path, out: Out) -> Result<(), Failure> {
    let stdin = file == std::path::Path::new("-");
    let name = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let at = |error: std::io::Error| Failure::because(format!("{name}: {error}"));
    let mut lines: Box<dyn std::io::BufRead> = if stdin {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(file).map_err(at)?))
    };
    let mut door = Door::open(settings, false).await?;
    let mut sum = Sum::default();
    let mut chunk: Vec<ArchivedNotice> = Vec::new();
    let (mut number, mut octets) = (0, 0);
    loop {
        let line = bounded_line(&mut lines, LINE).map_err(at)?.0;
        number += 1;
        let ended = line.is_none();
        if let Some(line) = line.filter(|line| !line.trim_ascii().is_empty()) {
            octets += line.len();
            chunk.push(ArchivedNotice { line: number, body: String::from_utf8_lossy(&line).into_owned() });
        }
        if !chunk.is_empty() && (ended || chunk.len() == CHUNK || octets >= REQUEST) {
            octets = 0;
            let request = Request::EventsReplay { source: name.clone(), lines: std::mem::take(&mut chunk) };
            let Response::Replayed { taken, malformed, deferred } = door.ask(request).await? else {
                return Err(strange());
            };
            for (line, what) in malformed.iter().take(TOLD.saturating_sub(sum.malformed)) {
                out.note(format!("{name}: line {line}: {what}"));
            }
            sum.taken += taken;
            sum.malformed += malformed.len();
            sum.deferred += deferred.len();
            if !ended {
                out.note(format!("{} events so far", sum.taken));
            }
        }
        if ended {
            break;
        }
    }
    let Sum { taken, malformed, deferred } = sum;
    if out.json {
        out.json(&serde_json::json!({"taken": taken, "malformed": malformed, "deferred": deferred}))?;
    } else {
        out.line(format!(
            "{taken} events applied or known, {malformed} lines malformed, {deferred} not taken by the store"
        ));
    }
    if malformed + deferred > 0 { Err(Failure::silent()) } else { Ok(()) }
}
