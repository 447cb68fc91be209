//! The directory: every tenant, stream and credential in memory, as one snapshot.
//!
//! The message path reads tenants and credentials here and never in the store. A change is
//! committed first, then a new directory takes the old one's place ([`Current`]); who holds the old
//! one decides by it to the end of the question.
//!
//! What can go wrong: damaged records leave their tenant or credential out, and a [`Fault`] behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::credential::Credential;
use super::holds::Hold;
use super::key::Key;
use crate::mail::{ConfigurationSet, Mailbox, SesTenant, StreamId, TenantId, Username};
use crate::policy::tenant::{Pause, Standing, Tenant};

/// The snapshot everybody reads.
pub type Current = Arc<ArcSwap<Directory>>;
/// Held by whoever replaces the snapshot, from what is read to what takes its place: so no change is
/// lost to another's.
pub type Changing = Arc<tokio::sync::Mutex<()>>;

/// All tenants and credentials at one moment.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    credentials: HashMap<Username, Arc<Credential>>,
    sets: HashMap<ConfigurationSet, (TenantId, StreamId)>,
    holds: HashMap<Username, Hold>,
    faults: Vec<Fault>,
}

/// A record that could not be taken into the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its key.
    pub key: Key,
    /// The tenant that is left out because of it.
    pub tenant: Option<TenantId>,
    /// The credential that is left out because of it.
    pub username: Option<Username>,
    /// What is wrong.
    pub what: String,
}

impl Directory {
    /// Builds the lookups. Later wins where two tenants claim a configuration set; `apply` and
    /// `check` refuse such files before it comes to that.
    pub fn new(tenants: impl IntoIterator<Item = Tenant>, credentials: impl IntoIterator<Item = Credential>) -> Self {
        let mut directory = Self::default();
        for tenant in tenants {
            for stream in tenant.streams.values() {
                directory.sets.insert(stream.configuration_set.clone(), (tenant.id.clone(), stream.id.clone()));
            }
            directory.tenants.insert(tenant.id.clone(), Arc::new(tenant));
        }
        for credential in credentials {
            directory.credentials.insert(credential.username.clone(), Arc::new(credential));
        }
        directory
    }

    /// The same directory with other standings of some tenants and streams.
    pub fn with_standings(&self, standings: &[(TenantId, Option<StreamId>, Standing)]) -> Self {
        let mut directory = self.clone();
        for (tenant, stream, standing) in standings {
            let Some(tenant) = directory.tenants.get_mut(tenant).map(Arc::make_mut) else { continue };
            match stream {
                None => tenant.standing = standing.clone(),
                Some(stream) => {
                    if let Some(stream) = tenant.streams.get_mut(stream) {
                        stream.standing = standing.clone();
                    }
                }
            }
        }
        directory
    }

    /// The same directory where SES has disabled these SES tenants and no others.
    pub fn with_ses_statuses(&self, disabled: &BTreeMap<SesTenant, Pause>) -> Self {
        let mut directory = self.clone();
        for tenant in directory.tenants.values_mut() {
            let pause = tenant.ses_tenant.as_ref().and_then(|name| disabled.get(name));
            if tenant.ses_pause.as_ref() != pause {
                Arc::make_mut(tenant).ses_pause = pause.cloned();
            }
        }
        directory
    }

    /// The same directory, with the holds on credentials.
    pub fn with_holds(self, holds: HashMap<Username, Hold>) -> Self {
        Self { holds, ..self }
    }

    /// The same directory, with what could not be read.
    pub fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// What could not be read: for the log, for `store verify`, and for the two below.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether the tenant is missing here because a record of it is damaged. That is our fault: its
    /// clients are told to come again (4xx), not that they are unknown.
    pub fn tenant_is_damaged(&self, id: &TenantId) -> bool {
        self.faults.iter().any(|fault| fault.tenant.as_ref() == Some(id))
    }

    /// The same of a credential.
    pub fn credential_is_damaged(&self, username: &Username) -> bool {
        self.faults.iter().any(|fault| fault.username.as_ref() == Some(username))
    }

    /// A tenant by name.
    pub fn tenant(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    /// All tenants by name.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// A credential by username.
    pub fn credential(&self, username: &Username) -> Option<&Arc<Credential>> {
        self.credentials.get(username)
    }

    /// All credentials, in no order.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.credentials.values()
    }

    /// What stands against a credential now.
    pub fn hold(&self, username: &Username) -> Option<&Pause> {
        self.last_hold(username)?.standing()
    }

    /// The hold that stands, or the last one that was released, of its present tenant's time.
    pub fn last_hold(&self, username: &Username) -> Option<&Hold> {
        let tenant = &self.credentials.get(username)?.tenant;
        self.holds.get(username).filter(|hold| hold.tenant == *tenant)
    }

    /// How many credentials are on hold.
    pub fn held_credentials(&self) -> usize {
        self.holds.keys().filter(|username| self.hold(username).is_some()).count()
    }

    /// Whose a configuration set is.
    pub fn owner_of_set(&self, set: &ConfigurationSet) -> Option<&(TenantId, StreamId)> {
        self.sets.get(set)
    }

    /// The one tenant that may send as `mailbox`; `None` if there is none or more than one.
    pub fn owner_of_sender(&self, mailbox: &Mailbox) -> Option<&Arc<Tenant>> {
        let mut owners = self.tenants.values().filter(|tenant| tenant.owns(mailbox));
        let first = owners.next()?;
        owners.next().is_none().then_some(first)
    }
}
