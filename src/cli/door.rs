//! The way to the store: through the relay that runs, or by opening the store.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Failure;
use crate::adapters::clock::{MachineClock, MachineRandom};
use crate::adapters::sled::SledStore;
use crate::admin::control::{AskError, ConnectError, own_actor};
use crate::admin::{Client, Desk, Request, Response, perform};
use crate::config::Settings;
use crate::ingest::Applier;
use crate::store::Store;

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

impl Door {
    /// Reaches the relay that runs with the settings' data folder, or opens the store in it. A
    /// store is made by those commands only that set one up (`may_create`).
    pub(super) async fn open(settings: &Settings, may_create: bool) -> Result<Self, Failure> {
        let data_dir = &settings.data_dir;
        match Client::connect(data_dir).await {
            Ok(client) => return Ok(Self::Relay(Box::new(client))),
            Err(ConnectError::NotRunning) => {}
            Err(error @ (ConnectError::Denied(_) | ConnectError::Io(..))) => return Err(error.into()),
        }
        if !may_create && !data_dir.exists() {
            return Err(Failure::because(format!(
                "there is no data folder {}: `bulkhead serve` or `bulkhead apply` make one; or say by --config which settings to use",
                shown(data_dir)
            )));
        }
        let store = Arc::new(SledStore::open(data_dir).map_err(|error| {
            Failure::because(format!(
                "no relay answers in {}, and its store cannot be opened: {error}",
                shown(data_dir)
            ))
        })?);
        let object: Arc<dyn Store> = store.clone();
        let clock = Arc::new(MachineClock);
        let directory = Arc::new(ArcSwap::from_pointee(crate::store::tenants::load(object.as_ref()).await?));
        let applier = Applier::new(Arc::clone(&object), Arc::clone(&directory), clock.clone(), settings.node.clone());
        let desk = Desk::new(object, directory, clock, Arc::new(MachineRandom), applier, None);
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

fn shown(path: &Path) -> String {
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
