//! `store …`.

use std::sync::Arc;

use clap::Subcommand;

use super::door::{Door, Needs, open_store, relay_of, shown, spool_of, strange};
use super::outbox::size;
use super::output::Out;
use super::{Context, Failure, block_on};
use crate::adapters::clock::MachineClock;
use crate::adapters::sled::{OpenError, SledStore};
use crate::admin::view::FaultView;
use crate::admin::{Request, Response};
use crate::config::Settings;
use crate::outbox::Outbox;
use crate::outbox::recover::Found;
use crate::time::{Clock as _, Timestamp};

/// What a store that is moved aside takes with it.
const LOST: &str = "suppressions, counters, credentials that were issued by command, and pauses; what the tenants file declares is applied again at the next start";

/// The store and the outbox's files.
#[derive(Subcommand, Debug)]
pub(super) enum Store {
    /// Read every record and every held message, and tell what is damaged; changes nothing
    Verify,
    /// Make the rows of the outbox anew out of its files; only while no relay runs
    Rebuild {
        /// If the store is too damaged to be opened: move it to a folder of its own, and begin a new one
        #[arg(long)]
        move_aside: bool,
    },
}

impl Store {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        let out = context.out;
        block_on(async {
            match self {
                Self::Verify => verify(&settings, out).await,
                Self::Rebuild { move_aside } => rebuild(&settings, move_aside, out).await,
            }
        })
    }
}

async fn verify(settings: &Settings, out: Out) -> Result<(), Failure> {
    let mut door = Door::open_for(settings, Needs::Files, out).await?;
    let (mut records, mut messages, mut bytes, mut files) = (0, 0, 0, 0);
    let (mut in_all, mut faults): (usize, Vec<FaultView>) = (0, Vec::new());
    let mut after = None;
    let of_outbox = loop {
        let Response::Verified(page) = door.ask(Request::StoreVerify { after }).await? else { return Err(strange()) };
        records += page.records;
        messages += page.messages;
        bytes += page.bytes;
        files += page.files;
        in_all += page.faults_in_all;
        if out.json {
            faults.extend(page.faults);
        } else {
            page.faults.iter().for_each(|fault| {
                out.line(format!("{}: {}: {}\n  {}", fault.kind, fault.name, fault.fault, fault.cure));
            });
        }
        after = page.next;
        if after.is_none() {
            break page.outbox;
        }
        out.note(format!("{records} records so far, {} of held messages", size(bytes)));
    };
    if out.json {
        out.json(&serde_json::json!({
            "records": records, "messages": messages, "bytes": bytes, "files": files, "outbox": of_outbox,
            "faults_in_all": in_all, "faults": faults,
        }))?;
    } else {
        let of_files = if of_outbox {
            format!("held messages: {messages} ({}), body files: {files}", size(bytes))
        } else {
            "the relay has no outbox".into()
        };
        out.line(format!("records: {records}, {of_files}, faults: {in_all}"));
    }
    if in_all == 0 { Ok(()) } else { Err(Failure::silent()) }
}

async fn rebuild(settings: &Settings, move_aside: bool, out: Out) -> Result<(), Failure> {
    let data_dir = &settings.data_dir;
    if relay_of(settings).await?.is_some() {
        return Err(Failure::because(
            "a relay runs with this data folder, and works with the outbox's rows; stop it first, then give the command again",
        ));
    }
    if !data_dir.exists() {
        return Err(Failure::because(format!("there is no data folder {}", shown(data_dir))));
    }
    let now = MachineClock.now();
    let (store, aside) = match SledStore::open_with(data_dir, settings.store.cache_bytes) {
        Ok(store) => (store, None),
        Err(error @ OpenError::Damaged { .. }) if !move_aside => {
            return Err(Failure::because(format!(
                "{error}. Restore it from a backup; or give --move-aside, which moves it to a folder of its own, begins a new store, and makes the outbox's rows out of its files. That loses {LOST}"
            )));
        }
        Err(OpenError::Damaged { .. }) => {
            let aside = SledStore::move_aside(data_dir, &name_of(now)).map_err(Failure::because)?;
            out.note(format!("the damaged store is in {}. Lost with it: {LOST}", shown(&aside)));
            (open_store(settings)?, Some(aside))
        }
        Err(error @ (OpenError::InUse(_) | OpenError::Io { .. })) => return Err(Failure::because(error)),
    };
    let store = Arc::new(store);
    let rebuilt = match spool_of(settings) {
        Ok(spool) => Outbox::rebuild(&*store, &*spool, &settings.node, now).await.map_err(Failure::because),
        Err(failure) => Err(failure),
    };
    store.close();
    let Found { held, missing, damaged, .. } = rebuilt?;
    let aside = aside.map(|aside| shown(&aside));
    if out.json {
        out.json(&serde_json::json!({
            "held": held, "missing": missing,
            "damaged": damaged.iter().map(|(what, why)| serde_json::json!({"what": what, "why": why})).collect::<Vec<_>>(),
            "moved_to": aside,
        }))?;
    } else {
        for id in &missing {
            out.note(format!("{id}: its row had no body file and is gone; the message is lost"));
        }
        for (what, why) in &damaged {
            out.note(format!("{what}: {why}; it is left where it is, and is not held"));
        }
        out.line(format!(
            "messages held: {held}, rows without a file: {}, damaged files: {}",
            missing.len(),
            damaged.len()
        ));
        if held > 0 {
            out.note("whether one of them had been sent already is not known; their turn comes when the relay starts");
        }
    }
    if missing.is_empty() && damaged.is_empty() { Ok(()) } else { Err(Failure::silent()) }
}

/// The folder that a damaged store is moved to: `damaged-20260501T091502Z`.
fn name_of(now: Timestamp) -> String {
    let text = now.rfc3339();
    let seconds = text.split('.').next().unwrap_or(&text);
    let digits: String = seconds.chars().filter(|c| *c != '-' && *c != ':').collect();
    format!("damaged-{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_damaged_store_sorts_by_time() {
        assert_eq!(name_of(Timestamp::from_millis(0)), "damaged-19700101T000000Z");
    }
}
