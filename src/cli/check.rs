//! `check`: settings, tenants file and the files they name.

use std::sync::Arc;

use super::{Context, DEFAULT_CONFIG, Failure};
use crate::adapters::clock::MachineClock;
use crate::adapters::tls::Certificates;
use crate::config::{self, Note, Problem, Settings};

/// Validates without binding or changing anything; tells every problem at once.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let out = context.out;
    let mut problems: Vec<Problem> = Vec::new();
    let mut notes: Vec<Note> = Vec::new();
    let mut tenants = 0;
    let file = context.config_file();
    match context.settings() {
        Ok(settings) => {
            notes.extend(settings.notes());
            problems.extend(settings.certificate_problems());
            problems.extend(settings.webhook_signer().err());
            if problems.is_empty() && settings.needs_certificate() {
                problems.extend(pair_problem(&settings));
            }
            if let Some(file) = &settings.tenants_file {
                match config::load_tenants(file) {
                    Ok((declared, more)) => {
                        tenants = declared.tenants.len();
                        notes.extend(more);
                        notes.extend(settings.notes_on(&declared));
                    }
                    Err(more) => problems.extend(more),
                }
            }
        }
        Err(Failure::Config(more)) => problems.extend(more),
        Err(other) => return Err(other),
    }
    let ok = problems.is_empty();
    if out.json {
        out.json(&serde_json::json!({"ok": ok, "problems": problems, "notes": notes}))?;
    } else {
        for note in &notes {
            out.line(format!("note: {note}"));
        }
        if ok {
            match file {
                Some(file) => out.line(format!("{} is good; {tenants} tenants declared", file.display())),
                None => out.line(format!("there is no {DEFAULT_CONFIG}; the defaults are good")),
            }
        }
    }
    match (ok, out.json) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Setting(String::new())),
        (false, false) => Err(Failure::Config(problems)),
    }
}

/// What keeps certificate and key, each of them readable, from being used together.
fn pair_problem(settings: &Settings) -> Option<Problem> {
    let files = &settings.tls;
    let error =
        Certificates::load(&files.certificate_file, &files.private_key_file, Arc::new(MachineClock)).err()?.to_string();
    let (what, cure) = error.split_once("; ").unwrap_or((&error, "put a certificate and its key in place"));
    Some(Problem {
        file: files.certificate_file.display().to_string(),
        line: None,
        key: "tls".into(),
        what: what.into(),
        cure: cure.into(),
    })
}
