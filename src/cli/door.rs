//! The way to the store: through the relay that runs, or by opening the store.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Failure;
use super::output::Out;
use crate::adapters::clock::{MachineClock, MachineRandom};
use crate::adapters::sled::{OpenError, SledStore};
use crate::adapters::spool::{self, FileSpool};
use crate::admin::control::{AskError, ConnectError, own_actor};
use crate::admin::{Client, Desk, Request, Response, perform};
use crate::config::Settings;
use crate::ingest::Applier;
use crate::outbox::{Bounds, Options, Outbox, Spool};
use crate::relay::wording;
use crate::store::Store;
use crate::store::domains::Domains;
use crate::time::Clock as _;

/// Whom commands are given to.
pub(super) enum Door {
    /// The relay.
    Relay(Box<Client>),
    /// The store, which nobody else has open.
    Store {
        /// What carries commands out.
        desk: Box<Desk>,
        /// To be closed at the end.
        store: Arc<SledStore>,
    },
}

/// What a command needs beside the records, when no relay runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// The outbox, open: its rows and files brought together as at a start.
    Outbox,
    /// The outbox's files as they are.
    Files,
}

impl Door {
    /// Reaches the relay that runs with the settings' data folder, or opens the store in it. A
    /// store is made by those commands only that set one up (`may_create`).
    pub(super) async fn open(settings: &Settings, may_create: bool) -> Result<Self, Failure> {
        if let Some(client) = relay_of(settings).await? {
            return Ok(Self::Relay(Box::new(client)));
        }
        let (desk, store) = desk_of(settings, may_create).await?;
        Ok(Self::Store { desk: Box::new(desk), store })
    }

    /// The same for commands that need more. What an outbox that had to be opened is found to lack is
    /// told to `out`.
    pub(super) async fn open_for(settings: &Settings, needs: Needs, out: Out) -> Result<Self, Failure> {
        if let Some(client) = relay_of(settings).await? {
            return Ok(Self::Relay(Box::new(client)));
        }
        let (desk, store) = desk_of(settings, false).await?;
        let spool = spool_of(settings)?;
        let desk = match needs {
            Needs::Files => desk.with_files(spool, settings.node.clone()),
            Needs::Outbox => {
                let (options, wait) = (outbox_options(settings), settings.outbox.unknown_wait_seconds);
                let now = MachineClock.now();
                let (outbox, found) = Outbox::open(store.clone(), spool, &settings.node, options, now, wait).await?;
                if !found.missing.is_empty() || !found.damaged.is_empty() {
                    out.note("some of what is held is damaged or has no body file; `bulkhead store verify` tells what");
                }
                desk.with_outbox(outbox)
            }
        };
        Ok(Self::Store { desk: Box::new(desk), store })
    }

    /// Gives a command.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Response, AskError> {
        match self {
            Self::Relay(client) => client.ask(request).await,
            Self::Store { desk, .. } => Ok(perform(desk, request, &own_actor()).await?),
        }
    }

    /// Whether a relay answers.
    pub(super) fn is_relay(&self) -> bool {
        matches!(self, Self::Relay(_))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        match self {
            Self::Relay(_) => {}
            Self::Store { store, .. } => store.close(),
        }
    }
}

/// The relay that runs with the settings' data folder, if one does.
pub(super) async fn relay_of(settings: &Settings) -> Result<Option<Client>, Failure> {
    match Client::connect(&settings.data_dir).await {
        Ok(client) => Ok(Some(client)),
        Err(ConnectError::NotRunning) => Ok(None),
        Err(error @ (ConnectError::Denied(_) | ConnectError::Io(..))) => Err(error.into()),
    }
}

/// A desk on the store, which is opened.
async fn desk_of(settings: &Settings, may_create: bool) -> Result<(Desk, Arc<SledStore>), Failure> {
    let data_dir = &settings.data_dir;
    if !may_create && !data_dir.exists() {
        return Err(Failure::because(format!(
            "there is no data folder {}: `bulkhead serve` or `bulkhead apply` make one; or say by --config which settings to use",
            shown(data_dir)
        )));
    }
    let store = Arc::new(open_store(settings)?);
    let object: Arc<dyn Store> = store.clone();
    let clock = Arc::new(MachineClock);
    let directory = Arc::new(ArcSwap::from_pointee(crate::store::tenants::load(object.as_ref()).await?));
    let applier = Applier::new(Arc::clone(&object), Arc::clone(&directory), clock.clone(), settings.node.clone())
        .with_rules(settings.suppression.rules())
        .with_domains(Arc::new(Domains::new(settings.events.domains_per_day)));
    let desk = Desk::new(object, directory, clock, Arc::new(MachineRandom), applier, None);
    let rules = settings.reputation.rules;
    desk.ask_of_rules(Box::new(move || rules));
    desk.speak_as(wording::spoken);
    Ok((desk, store))
}

/// Opens the store.
pub(super) fn open_store(settings: &Settings) -> Result<SledStore, Failure> {
    let data_dir = &settings.data_dir;
    SledStore::open_with(data_dir, settings.store.cache_bytes).map_err(|error| {
        let cure = match error {
            OpenError::Damaged { .. } => "; `bulkhead store rebuild` tells what can be done",
            OpenError::InUse(_) | OpenError::Io { .. } => "",
        };
        let folder = shown(data_dir);
        Failure::because(format!("no relay answers in {folder}, and its store cannot be opened: {error}{cure}"))
    })
}

/// The outbox's files, in the folder `outbox` of the data folder. The store is to be open: its lock
/// keeps others from the files too.
pub(super) fn spool_of(settings: &Settings) -> Result<Arc<dyn Spool>, Failure> {
    Ok(Arc::new(FileSpool::open(&settings.data_dir, spool::Options { writers: settings.outbox.writers })?))
}

fn outbox_options(settings: &Settings) -> Options {
    let outbox = &settings.outbox;
    let octets = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Options {
        bounds: Bounds {
            messages: outbox.messages,
            messages_per_tenant: outbox.messages_per_tenant,
            bytes_per_tenant: octets(outbox.bytes_per_tenant),
        },
        disk_reserve_bytes: octets(outbox.disk_reserve_bytes),
    }
}

pub(super) fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Gives one command and returns its answer.
pub(super) async fn ask(settings: &Settings, request: Request) -> Result<Response, Failure> {
    Ok(Door::open(settings, false).await?.ask(request).await?)
}

/// An answer of the wrong kind: the relay is of another version.
pub(super) fn strange() -> Failure {
    Failure::because("the relay gave an answer of another kind; is it another version? `bulkhead status` tells")
}
