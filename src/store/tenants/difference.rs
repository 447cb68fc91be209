//! What has to change so that the store is what a file declares, in words and as writes.
//!
//! A pure function of a directory and a declaration. It refuses, with all reasons at once, what would
//! leave two with one configuration set or one username, or a tenant without its default stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::row::{StreamRow, TenantRow, changes};
use super::{Declared, DeclaredTenant};
use crate::mail::{ConfigurationSet, StreamId, TenantId, Username};
use crate::policy::tenant::Tenant;
use crate::store::credential::{Credential, Origin};
use crate::store::directory::Directory;

/// One change: a line for a person, and what [`super::apply()`] needs to make it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Change {
    pub(super) tenant: TenantId,
    pub(super) what: What,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum What {
    /// `prune`: rows of the tenant that the file does not have go, should there be some.
    AddTenant {
        row: TenantRow,
        prune: bool,
    },
    AlterTenant {
        row: TenantRow,
        words: Vec<String>,
    },
    RemoveTenant,
    AddStream {
        id: StreamId,
        row: StreamRow,
    },
    AlterStream {
        id: StreamId,
        row: StreamRow,
        words: Vec<String>,
    },
    RemoveStream {
        id: StreamId,
    },
    AddSender(String),
    RemoveSender(String),
    AddCredential(Credential),
    AlterCredential {
        credential: Credential,
        words: Vec<String>,
    },
    RemoveCredential(Username),
}

/// Why a declaration cannot be applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Conflict {
    /// Two streams have one configuration set.
    #[error("the configuration set {set} would be that of {first} and of {second}{}", cure(*.stored))]
    ConfigurationSet {
        /// The set.
        set: ConfigurationSet,
        /// `tenant/stream`.
        first: String,
        /// `tenant/stream`.
        second: String,
        /// Whether one of them is in the store and not in the file.
        stored: bool,
    },
    /// Two tenants have one username.
    #[error("the username {username} would be that of tenant {first} and of tenant {second}{}", cure(*.stored))]
    Username {
        /// The username.
        username: Username,
        /// Who has it.
        first: TenantId,
        /// Who has it as well; the same where one tenant's file has it twice.
        second: TenantId,
        /// Whether the first is in the store and not in the file.
        stored: bool,
    },
    /// The file has a tenant twice.
    #[error("the tenant {0} is declared twice")]
    TenantTwice(TenantId),
    /// A tenant would be without its default stream.
    #[error("the default stream {stream} of tenant {tenant} is none of its streams")]
    NoDefaultStream {
        /// The tenant.
        tenant: TenantId,
        /// What its `default_stream` says.
        stream: StreamId,
    },
}

fn cure(stored: bool) -> &'static str {
    if stored { "; the first is in the store and not in the file, --prune would remove it" } else { "" }
}

/// What makes `current` what `wanted` declares, in an order to be read and applied in.
///
/// Without `prune` no tenant, stream or credential is removed; senders always become the file's. With
/// it, what the file does not have goes, but issued credentials go only with their tenant. When and
/// by whom a credential was made is no difference; neither is a pause.
pub fn differences(current: &Directory, wanted: &Declared, prune: bool) -> Result<Vec<Change>, Vec<Conflict>> {
    let conflicts = conflicts(current, wanted, prune);
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let declared: BTreeMap<&TenantId, &DeclaredTenant> = wanted.tenants.iter().map(|t| (&t.tenant.id, t)).collect();
    let usernames: BTreeSet<&Username> = credentials(wanted).map(|credential| &credential.username).collect();
    let mut found = Vec::new();
    for declared in declared.values() {
        let tenant = &declared.tenant;
        let mut to = To { tenant: &tenant.id, found: &mut found };
        let there = current.tenant(&tenant.id).map(|there| &**there);
        to.tenant(there, tenant, prune);
        to.streams(there, tenant, prune);
        to.senders(there, tenant);
        to.credentials(current, &declared.credentials);
        if prune {
            to.drop_credentials(current, |c| c.origin == Origin::File && !usernames.contains(&c.username));
        }
    }
    for gone in current.tenants().filter(|there| prune && !declared.contains_key(&there.id)) {
        let mut to = To { tenant: &gone.id, found: &mut found };
        to.push(What::RemoveTenant);
        gone.streams.keys().for_each(|id| to.push(What::RemoveStream { id: id.clone() }));
        gone.senders.iter().for_each(|pattern| to.push(What::RemoveSender(pattern.to_string())));
        to.drop_credentials(current, |credential| !usernames.contains(&credential.username));
    }
    Ok(found)
}

/// The changes of one tenant, as they are found.
struct To<'a> {
    tenant: &'a TenantId,
    found: &'a mut Vec<Change>,
}

impl To<'_> {
    fn push(&mut self, what: What) {
        self.found.push(Change { tenant: self.tenant.clone(), what });
    }

    fn tenant(&mut self, there: Option<&Tenant>, wanted: &Tenant, prune: bool) {
        let row = TenantRow::of(wanted);
        match there.map(TenantRow::of) {
            None => self.push(What::AddTenant { row, prune }),
            Some(old) if old != row => {
                let words = changes(&old, &row);
                self.push(What::AlterTenant { row, words });
            }
            Some(_) => {}
        }
    }

    fn streams(&mut self, there: Option<&Tenant>, wanted: &Tenant, prune: bool) {
        for (id, stream) in &wanted.streams {
            let (id, row) = (id.clone(), StreamRow::of(stream));
            match there.and_then(|there| there.streams.get(&id)).map(StreamRow::of) {
                None => self.push(What::AddStream { id, row }),
                Some(old) if old != row => {
                    let words = changes(&old, &row);
                    self.push(What::AlterStream { id, row, words });
                }
                Some(_) => {}
            }
        }
        let stored = there.into_iter().flat_map(|there| there.streams.keys());
        for id in stored.filter(|id| prune && !wanted.streams.contains_key(*id)) {
            self.push(What::RemoveStream { id: id.clone() });
        }
    }

    fn senders(&mut self, there: Option<&Tenant>, wanted: &Tenant) {
        let patterns = |tenant: &Tenant| tenant.senders.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let (old, new) = (there.map(patterns).unwrap_or_default(), patterns(wanted));
        new.difference(&old).for_each(|pattern| self.push(What::AddSender(pattern.clone())));
        old.difference(&new).for_each(|pattern| self.push(What::RemoveSender(pattern.clone())));
    }

    fn credentials(&mut self, current: &Directory, wanted: &[Credential]) {
        for credential in wanted {
            let credential = Credential { tenant: self.tenant.clone(), origin: Origin::File, ..credential.clone() };
            match current.credential(&credential.username) {
                None => self.push(What::AddCredential(credential)),
                Some(old) => {
                    let words = credential_changes(old, &credential);
                    if !words.is_empty() {
                        self.push(What::AlterCredential { credential, words });
                    }
                }
            }
        }
    }

    fn drop_credentials(&mut self, current: &Directory, which: impl Fn(&Credential) -> bool) {
        let own = current.credentials().filter(|credential| credential.tenant == *self.tenant && which(credential));
        let usernames: BTreeSet<&Username> = own.map(|credential| &credential.username).collect();
        usernames.into_iter().for_each(|username| self.push(What::RemoveCredential(username.clone())));
    }
}

/// What differs between two credentials of one username; hashes are not shown.
fn credential_changes(old: &Credential, new: &Credential) -> Vec<String> {
    let shown = |credential: &Credential| Credential {
        secrets: Vec::new(),
        created: old.created,
        actor: old.actor.clone(),
        ..credential.clone()
    };
    let mut words = changes(&shown(old), &shown(new));
    if old.secrets != new.secrets {
        words.insert(0, "secret changed".into());
    }
    words
}

fn credentials(wanted: &Declared) -> impl Iterator<Item = &Credential> {
    wanted.tenants.iter().flat_map(|declared| &declared.credentials)
}

fn conflicts(current: &Directory, wanted: &Declared, prune: bool) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut declared: BTreeMap<&TenantId, &Tenant> = BTreeMap::new();
    for DeclaredTenant { tenant, .. } in &wanted.tenants {
        if declared.insert(&tenant.id, tenant).is_some() {
            found.push(Conflict::TenantTwice(tenant.id.clone()));
        }
        let stored = current.tenant(&tenant.id).filter(|_| !prune);
        let has = |tenant: &Tenant, stream| tenant.streams.contains_key(stream);
        let kept = stored.is_some_and(|stored| has(stored, &tenant.default_stream));
        if !has(tenant, &tenant.default_stream) && !kept {
            let (tenant, stream) = (tenant.id.clone(), tenant.default_stream.clone());
            found.push(Conflict::NoDefaultStream { tenant, stream });
        }
    }
    found.extend(set_conflicts(current, wanted, &declared, prune));
    found.extend(username_conflicts(current, wanted, &declared, prune));
    found
}

/// Configuration sets that two streams would have.
fn set_conflicts(
    current: &Directory,
    wanted: &Declared,
    declared: &BTreeMap<&TenantId, &Tenant>,
    prune: bool,
) -> Vec<Conflict> {
    // What stays of the store though the file does not have it comes first, so that a conflict names
    // it first.
    let stays = current.tenants().filter(|_| !prune).flat_map(|there| {
        let file = declared.get(&there.id);
        let kept = there.streams.values().filter(move |s| !file.is_some_and(|t| t.streams.contains_key(&s.id)));
        kept.map(move |stream| (&there.id, stream, true))
    });
    let file = wanted
        .tenants
        .iter()
        .flat_map(|declared| declared.tenant.streams.values().map(|stream| (&declared.tenant.id, stream, false)));
    let mut claims: HashMap<&ConfigurationSet, (String, bool)> = HashMap::new();
    let mut found = Vec::new();
    for (tenant, stream, stored) in stays.chain(file) {
        let claim = (format!("{tenant}/{}", stream.id), stored);
        match claims.get(&stream.configuration_set) {
            Some((first, stored)) if *first != claim.0 => found.push(Conflict::ConfigurationSet {
                set: stream.configuration_set.clone(),
                first: first.clone(),
                second: claim.0,
                stored: *stored,
            }),
            Some(_) => {}
            None => {
                claims.insert(&stream.configuration_set, claim);
            }
        }
    }
    found
}

/// Usernames that two would have: two of the file, or one of the file and one that stays in the store.
fn username_conflicts(
    current: &Directory,
    wanted: &Declared,
    declared: &BTreeMap<&TenantId, &Tenant>,
    prune: bool,
) -> Vec<Conflict> {
    let mut claims: HashMap<&Username, &TenantId> = HashMap::new();
    let mut found = Vec::new();
    for DeclaredTenant { tenant, credentials } in &wanted.tenants {
        for Credential { username, .. } in credentials {
            let conflict = |first: &TenantId, stored| Conflict::Username {
                username: username.clone(),
                first: first.clone(),
                second: tenant.id.clone(),
                stored,
            };
            if let Some(first) = claims.insert(username, &tenant.id) {
                found.push(conflict(first, false));
            }
            let Some(there) = current.credential(username).filter(|there| there.tenant != tenant.id) else { continue };
            if declared.contains_key(&there.tenant) {
                // The file gives its own credentials to whom it likes, but none that was issued.
                if there.origin == Origin::Issued {
                    found.push(conflict(&there.tenant, false));
                }
            } else if !prune {
                found.push(conflict(&there.tenant, true));
            }
        }
    }
    found
}

impl Change {
    /// Whose it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = &self.tenant;
        match &self.what {
            What::AddTenant { row: TenantRow { contact: Some(contact), .. }, .. } => {
                write!(f, "+ tenant {tenant} (contact {contact})")
            }
            What::AddTenant { row: TenantRow { contact: None, .. }, .. } => write!(f, "+ tenant {tenant}"),
            What::AlterTenant { words, .. } => write!(f, "~ tenant {tenant}: {}", words.join(", ")),
            What::RemoveTenant => write!(f, "- tenant {tenant}"),
            What::AddStream { id, row } => {
                write!(f, "+ stream {tenant}/{id} ({}, set {})", row.kind.word(), row.configuration_set)
            }
            What::AlterStream { id, words, .. } => write!(f, "~ stream {tenant}/{id}: {}", words.join(", ")),
            What::RemoveStream { id } => write!(f, "- stream {tenant}/{id}"),
            What::AddSender(pattern) => write!(f, "+ sender {tenant}: {pattern}"),
            What::RemoveSender(pattern) => write!(f, "- sender {tenant}: {pattern}"),
            What::AddCredential(credential) => write!(f, "+ credential {} (tenant {tenant})", credential.username),
            What::AlterCredential { credential, words } => {
                write!(f, "~ credential {}: {}", credential.username, words.join(", "))
            }
            What::RemoveCredential(username) => write!(f, "- credential {username}"),
        }
    }
}
