//! `suppression …`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::door::{Door, ask, strange};
use super::import;
use super::output::{self, Out, or_dash};
use super::progress::Progress;
use super::value::{self, Kind};
use super::{Context, Failure, block_on};
use crate::admin::command::PAGE;
use crate::admin::listfile::{self, Form, Reader};
use crate::admin::view::SuppressionView;
use crate::admin::{Request, Response};
use crate::config::Settings;
use crate::mail::{Mailbox, TenantId};
use crate::time::Timestamp;

/// Suppression lists.
#[derive(Subcommand, Debug)]
pub(super) enum Suppression {
    /// List a tenant's entries
    List {
        /// Whose
        tenant: TenantId,
    },
    /// Show the entries of an address
    Show {
        /// Whose
        tenant: TenantId,
        /// Which address
        #[arg(value_parser = value::mailbox)]
        address: Mailbox,
    },
    /// Put an address on the list
    Add(Add),
    /// Take an address off the list; a complaint stays unless --force is given
    Remove {
        /// Whose
        tenant: TenantId,
        /// Which address
        #[arg(value_parser = value::mailbox)]
        address: Mailbox,
        /// Only the entry of this kind [default: all]
        #[arg(long)]
        kind: Option<Kind>,
        /// Even if it is there for a complaint
        #[arg(long)]
        force: bool,
        /// Why; for the log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Add the entries of a CSV or JSON lines file; bad lines are told, the rest is imported. Exports of
    /// Amazon SES, SendGrid, Mailgun and Postmark are known by their columns
    Import {
        /// Whose
        tenant: TenantId,
        /// File, or - for standard input
        file: PathBuf,
        /// How the file is written [default: by its name, else CSV]
        #[arg(long)]
        format: Option<ListForm>,
        /// What entries count as that do not say it [default: what the file's columns tell, else manual]
        #[arg(long, visible_alias = "reason")]
        kind: Option<Kind>,
    },
    /// Write all entries as CSV or JSON lines, for `import` or other programs
    Export {
        /// Whose
        tenant: TenantId,
        /// File [default: standard output]
        file: Option<PathBuf>,
        /// How to write it [default: by the file's name, else CSV]
        #[arg(long)]
        format: Option<ListForm>,
    },
}

/// `suppression add`.
#[derive(Args, Debug)]
pub(super) struct Add {
    /// Whose
    tenant: TenantId,
    /// Which address
    #[arg(value_parser = value::mailbox)]
    address: Mailbox,
    /// What it counts as
    #[arg(long, default_value = "manual")]
    kind: Kind,
    /// Until when: 30d, or 2027-01-01 [default: until it is removed]
    #[arg(long, value_name = "WHEN", value_parser = value::moment)]
    expires: Option<Timestamp>,
    /// Why; kept with the entry
    #[arg(long, default_value = "")]
    reason: String,
}

/// How a list is written.
#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum ListForm {
    /// Comma-separated, with a header
    Csv,
    /// One JSON object a line
    Jsonl,
}

impl Suppression {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        block_on(async {
            match self {
                Self::List { tenant } => list(&settings, tenant, out).await,
                Self::Show { tenant, address } => {
                    shown(ask(&settings, Request::SuppressionShow { tenant, address }).await?, out)
                }
                Self::Add(Add { tenant, address, kind: Kind(kind), expires, reason }) => {
                    let request = Request::SuppressionAdd { tenant, address, kind, expires, reason };
                    shown(ask(&settings, request).await?, out)
                }
                Self::Remove { tenant, address, kind, force, reason } => {
                    let kind = kind.map(|Kind(kind)| kind);
                    removed(
                        ask(&settings, Request::SuppressionRemove { tenant, address, kind, force, reason }).await?,
                        out,
                    )
                }
                Self::Import { tenant, file, format, kind } => {
                    let form = form(format, &file);
                    let kind = kind.map(|Kind(kind)| kind);
                    import(&settings, &tenant, &file, Reader::new(form, kind), out).await
                }
                Self::Export { tenant, file, format } => {
                    let form = form(format, file.as_deref().unwrap_or(Path::new("")));
                    export(&settings, &tenant, file.as_deref(), form, out).await
                }
            }
        })
    }
}

fn form(given: Option<ListForm>, file: &Path) -> Form {
    match given {
        Some(ListForm::Csv) => Form::Csv,
        Some(ListForm::Jsonl) => Form::Jsonl,
        None => Form::of_name(&file.display().to_string()),
    }
}

/// The entries of an address.
fn shown(answer: Response, out: Out) -> Result<(), Failure> {
    let Response::Suppressions(entries) = answer else { return Err(strange()) };
    if out.json {
        return Ok(out.json(&entries)?);
    }
    table(entries, out);
    Ok(())
}

fn removed(answer: Response, out: Out) -> Result<(), Failure> {
    let Response::Unsuppressed(answer) = answer else { return Err(strange()) };
    if let Some(complaint) = &answer.stays {
        out.note(format!(
            "note: the complaint of {} stays on the list: its owner called this mail spam; give --force if they asked for it back",
            complaint.address
        ));
    }
    if out.json {
        return Ok(out.json(&answer)?);
    }
    for entry in answer.removed {
        out.line(format!("{} is no longer on the list for {}", entry.address, listfile::word(entry.reason)));
    }
    Ok(())
}

/// All entries, a page at a time.
async fn each_page(
    settings: &Settings,
    tenant: &TenantId,
    mut take: impl FnMut(Vec<SuppressionView>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut door = Door::open(settings, false).await?;
    let mut after = None;
    loop {
        let request = Request::SuppressionList { tenant: tenant.clone(), after: after.take() };
        let Response::Suppressions(page) = door.ask(request).await? else { return Err(strange()) };
        let more = page.len() == PAGE;
        after = page.last().map(|entry| (entry.address.clone(), entry.reason));
        take(page)?;
        if !more {
            return Ok(());
        }
    }
}

async fn list(settings: &Settings, tenant: TenantId, out: Out) -> Result<(), Failure> {
    let mut all = Vec::new();
    each_page(settings, &tenant, |page| {
        all.extend(page);
        Ok(())
    })
    .await?;
    if out.json {
        return Ok(out.json(&all)?);
    }
    if all.is_empty() {
        out.line(format!("the suppression list of {tenant} is empty"));
        return Ok(());
    }
    table(all, out);
    Ok(())
}

fn table(entries: Vec<SuppressionView>, out: Out) {
    let rows: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let until = match (entry.expires, entry.stands) {
                (None, _) => "-".into(),
                (Some(at), true) => at,
                (Some(at), false) => format!("expired {at}"),
            };
            vec![
                entry.address,
                listfile::word(entry.reason).into(),
                entry.at,
                until,
                or_dash(entry.origin),
                entry.actor,
            ]
        })
        .collect();
    out.table(&["ADDRESS", "REASON", "SINCE", "UNTIL", "ORIGIN", "BY"], &rows);
}

async fn export(
    settings: &Settings,
    tenant: &TenantId,
    file: Option<&Path>,
    form: Form,
    out: Out,
) -> Result<(), Failure> {
    // Asked first, so that a wrong tenant does not leave an empty file.
    let mut target: Option<File> = None;
    let mut count = 0;
    let mut write = |text: &str| -> Result<(), Failure> {
        match (file, &mut target) {
            (None, _) => output::put(text),
            (Some(_), Some(target)) => target.write_all(text.as_bytes())?,
            (Some(path), None) => {
                let mut made = File::create(path).map_err(|error| at(path, &error))?;
                made.write_all(text.as_bytes())?;
                target = Some(made);
            }
        }
        Ok(())
    };
    let mut first = true;
    // A list on a terminal is progress enough.
    let mut progress = Progress::new(out.json || file.is_none(), None);
    each_page(settings, tenant, |page| {
        count += page.len();
        progress.at(count, 0);
        let mut text = if std::mem::take(&mut first) { form.header() } else { String::new() };
        page.iter().for_each(|entry| text.push_str(&form.line(entry)));
        write(&text)
    })
    .await?;
    progress.clear();
    if !out.json {
        out.note(format!("{count} entries exported"));
    }
    Ok(())
}

async fn import(settings: &Settings, tenant: &TenantId, file: &Path, reader: Reader, out: Out) -> Result<(), Failure> {
    let (source, name, whole): (Box<dyn BufRead + Send>, _, _) = if file == Path::new("-") {
        (Box::new(BufReader::new(std::io::stdin())), "standard input".to_owned(), None)
    } else {
        let opened = File::open(file).map_err(|error| at(file, &error))?;
        // Of a pipe it says nothing, and a bar without an end does not either.
        let whole = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
        (Box::new(BufReader::new(opened)), file.display().to_string(), whole)
    };
    let mut door = Door::open(settings, false).await?;
    let mut progress = Progress::new(out.json, whole);
    let give = async |entries| {
        let request = Request::SuppressionImport { tenant: tenant.clone(), source: name.clone(), entries };
        match door.ask(request).await? {
            Response::Imported { added, kept } => Ok((added, kept)),
            _ => Err(strange()),
        }
    };
    let poured = import::pour(source, reader, &name, give, |bad, sum, octets| {
        if !bad.is_empty() && !out.json {
            progress.clear();
            bad.iter().for_each(|bad| out.note(format!("{name}: {bad}")));
        }
        progress.at(sum.added + sum.kept, octets);
    })
    .await;
    progress.clear();
    let sum = poured?;
    if out.json {
        out.json(&serde_json::json!({
            "added": sum.added, "kept": sum.kept, "bad": sum.bad, "bad_lines": sum.told,
        }))?;
    } else {
        if sum.bad > sum.told.len() {
            out.note(format!("… and {} bad lines more", sum.bad - sum.told.len()));
        }
        out.line(format!("{} added, {} were there as strong, {} bad lines left out", sum.added, sum.kept, sum.bad));
    }
    // The rest is imported, but who runs this in a script should look.
    if sum.bad > 0 { Err(Failure::silent()) } else { Ok(()) }
}

fn at(file: &Path, error: &std::io::Error) -> Failure {
    Failure::because(format!("{}: {error}", file.display()))
}
