//! Tenants and credentials in the store: read into a [`Directory`], made equal to a declaration.
//!
//! | row | holds |
//! |---|---|
//! | `tenant` | what is one to a tenant |
//! | `sender`, `stream` | one each, so that no row grows past 4 KB with their number |
//! | `pause` `standing` `sesstatus` | state, not declaration: no file brings or takes one |
//! | `credential` | one each, found by username |
//! | `credentialhold` | state, as a pause is |
//!
//! The tenant's row is what makes it a tenant: rows that refer to none are left behind by a removal
//! that was cut short, and are passed over here and cleared away when the tenant comes again.
//!
//! Promises: one damaged record takes one tenant out, with everything that hangs on it, and no other;
//! the directory names it ([`Directory::faults`]), so that its clients can be told to come again
//! rather than that nobody knows them. A damaged pause is a pause, and so is a damaged standing.
//! What can go wrong: [`ReadError::Unavailable`] alone; damage is in the directory, not an error.

mod apply;
mod difference;
mod row;

use std::collections::{BTreeMap, HashMap, HashSet};

pub use apply::apply;
pub use difference::{Change, Conflict, differences};

use self::row::{StreamRow, TenantRow};
use super::credential::Credential;
use super::directory::{Directory, Fault};
use super::holds::Hold;
use super::ses_statuses::Status;
use super::{Batch, CommitError, If, Key, ReadError, Store, Versioned, record};
use crate::mail::{SesTenant, StreamId, TenantId, Username};
use crate::policy::reputation::{Brake, Charge, Offence, Rule, Span, Step};
use crate::policy::tenant::{Pause, SenderPattern, Standing, Stream, Tenant};
use crate::time::Timestamp;

/// Rows read at once.
const PAGE: usize = 500;

/// What a tenants file declares.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Declared {
    /// Its tenants.
    pub tenants: Vec<DeclaredTenant>,
}

/// One tenant of a tenants file.
#[derive(Clone, PartialEq, Debug)]
pub struct DeclaredTenant {
    /// The tenant with its streams and senders. Pauses in it are passed over: they are state.
    pub tenant: Tenant,
    /// The credentials the file gives it.
    pub credentials: Vec<Credential>,
}

/// Reads which SES tenants SES has disabled.
pub async fn load_ses_statuses(store: &dyn Store) -> Result<BTreeMap<SesTenant, Pause>, ReadError> {
    let mut loading = Loading::default();
    for (key, row) in rows(store, &Key::ses_statuses()).await? {
        loading.ses_status(&key, &row.value);
    }
    Ok(loading.ses_statuses)
}

/// Reads every tenant and credential.
pub async fn load(store: &dyn Store) -> Result<Directory, ReadError> {
    let mut loading = Loading::default();
    for (key, row) in rows(store, &Key::tenants()).await? {
        loading.tenant(&key, &row.value);
    }
    for (key, _) in rows(store, &Key::senders()).await? {
        loading.sender(&key);
    }
    for (key, row) in rows(store, &Key::streams()).await? {
        loading.stream(&key, &row.value);
    }
    for (key, row) in rows(store, &Key::pauses()).await? {
        loading.pause(&key, &row.value);
    }
    for (key, row) in rows(store, &Key::standings()).await? {
        loading.standing(&key, &row.value);
    }
    for (key, row) in rows(store, &Key::ses_statuses()).await? {
        loading.ses_status(&key, &row.value);
    }
    for (key, row) in rows(store, &Key::credentials()).await? {
        loading.credential(&key, &row.value);
    }
    for (key, row) in rows(store, &Key::credential_holds()).await? {
        loading.hold(&key, &row.value);
    }
    Ok(loading.finish())
}

/// Pauses a tenant, or one of its streams; a pause that is there is replaced. `with` is in the same commit.
pub async fn pause(
    store: &dyn Store,
    tenant: &TenantId,
    stream: Option<&StreamId>,
    pause: &Pause,
    with: Batch,
) -> Result<(), CommitError> {
    let mut batch = with;
    batch.put(Key::pause(tenant, stream), If::Any, record::seal(pause));
    store.commit(batch).await.map(drop)
}

/// Ends what restrains a tenant with all its streams, or one stream: a pause by hand and the judge's
/// brakes. Mail sent until now counts no more. Pauses by hand of a tenant's streams stay. `with` is in the
/// commit that ends it.
pub async fn resume(
    store: &dyn Store,
    tenant: &Tenant,
    stream: Option<&StreamId>,
    now: Timestamp,
    with: Batch,
) -> Result<(), CommitError> {
    let anew = |standing: &Standing| Standing {
        brake: None,
        resumed: Some(now),
        first: standing.first,
        good_since: Some(now),
    };
    let mut rows = Vec::new();
    for (id, of) in &tenant.streams {
        if stream.is_none_or(|stream| stream == id) {
            rows.push((Key::standing(&tenant.id, Some(id)), anew(&of.standing)));
        }
    }
    if stream.is_none() {
        rows.push((Key::standing(&tenant.id, None), anew(&tenant.standing)));
    }
    // The pause goes with the last of them: who comes to an end half-way is still paused.
    let room = super::BATCH_ITEMS.saturating_sub(with.len() + 1).max(1);
    let (before, last) = rows.split_at(rows.len().saturating_sub(1) / room * room);
    let write = |mut batch: Batch, some: &[(Key, Standing)]| {
        for (key, standing) in some {
            batch.put(key.clone(), If::Any, record::seal(standing));
        }
        batch
    };
    for some in before.chunks(room) {
        store.commit(write(Batch::new(), some)).await?;
    }
    let mut batch = write(with, last);
    batch.remove(Key::pause(&tenant.id, stream), If::Any);
    store.commit(batch).await.map(drop)
}

/// Writes a credential that was made with a new secret; what stood against an older one of its name
/// is gone. `If::Absent` where nobody's username may be taken. `with` is in the same commit.
pub async fn put_new_credential(
    store: &dyn Store,
    credential: &Credential,
    condition: If,
    mut with: Batch,
) -> Result<(), CommitError> {
    with.remove(Key::credential_hold(&credential.username), If::Any);
    put_credential(store, credential, condition, with).await
}

/// Writes a credential that is there. `with` is in the same commit.
pub async fn put_credential(
    store: &dyn Store,
    credential: &Credential,
    condition: If,
    with: Batch,
) -> Result<(), CommitError> {
    let mut batch = with;
    batch.put(Key::credential(&credential.username), condition, record::seal(credential));
    store.commit(batch).await.map(drop)
}

/// Removes a credential; where there is none, nothing but `with` is written, which is in the same commit.
pub async fn remove_credential(store: &dyn Store, username: &Username, with: Batch) -> Result<(), CommitError> {
    let mut batch = with;
    batch.remove(Key::credential(username), If::Any);
    store.commit(batch).await.map(drop)
}

/// All rows under `prefix`, read in pages.
async fn rows(store: &dyn Store, prefix: &Key) -> Result<Vec<(Key, Versioned)>, ReadError> {
    let mut rows: Vec<(Key, Versioned)> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        let page = store.scan(prefix, after.as_ref(), PAGE).await?;
        let last = page.len() < PAGE;
        rows.extend(page);
        if last {
            return Ok(rows);
        }
    }
}

/// A directory on its way.
#[derive(Default)]
struct Loading {
    /// `None`: there is a row, and it cannot be read.
    tenants: BTreeMap<TenantId, Option<TenantRow>>,
    senders: BTreeMap<TenantId, Vec<SenderPattern>>,
    streams: BTreeMap<TenantId, BTreeMap<StreamId, Stream>>,
    pauses: BTreeMap<(TenantId, Option<StreamId>), Pause>,
    standings: BTreeMap<(TenantId, Option<StreamId>), Standing>,
    ses_statuses: BTreeMap<SesTenant, Pause>,
    credentials: Vec<Credential>,
    /// `None`: there is a row, and it cannot be read.
    holds: HashMap<Username, Option<Hold>>,
    faults: Vec<Fault>,
}

impl Loading {
    fn tenant(&mut self, key: &Key, value: &[u8]) {
        let Some([id]) = self.names(key) else { return };
        let Some(id) = self.checked(key, TenantId::parse(&id)) else { return };
        let row = self.opened(key, value, Some(&id));
        self.tenants.insert(id, row);
    }

    fn sender(&mut self, key: &Key) {
        let Some([tenant, pattern]) = self.names(key) else { return };
        let Some(tenant) = self.checked(key, TenantId::parse(&tenant)) else { return };
        match SenderPattern::parse(&pattern) {
            Ok(pattern) => self.senders.entry(tenant).or_default().push(pattern),
            Err(error) => self.fault(key, Some(&tenant), None, error.to_string()),
        }
    }

    fn stream(&mut self, key: &Key, value: &[u8]) {
        let Some([tenant, stream]) = self.names(key) else { return };
        let Some(tenant) = self.checked(key, TenantId::parse(&tenant)) else { return };
        match StreamId::parse(&stream) {
            Ok(id) => {
                if let Some(row) = self.opened::<StreamRow>(key, value, Some(&tenant)) {
                    self.streams.entry(tenant).or_default().insert(id.clone(), row.stream(id));
                }
            }
            Err(error) => self.fault(key, Some(&tenant), None, error.to_string()),
        }
    }

    /// The tenant and the stream, if any, that a row of state is of.
    fn whose(&mut self, key: &Key) -> Option<(TenantId, Option<StreamId>)> {
        let [tenant, stream] = self.names(key)?;
        let tenant = self.checked(key, TenantId::parse(&tenant))?;
        match stream.as_str() {
            "" => Some((tenant, None)),
            stream => Some((tenant, Some(self.checked(key, StreamId::parse(stream))?))),
        }
    }

    fn standing(&mut self, key: &Key, value: &[u8]) {
        let Some(whose) = self.whose(key) else { return };
        let standing = self.opened(key, value, None).unwrap_or_else(damaged);
        self.standings.insert(whose, standing);
    }

    fn ses_status(&mut self, key: &Key, value: &[u8]) {
        let Some([name]) = self.names(key) else { return };
        let Some(name) = self.checked(key, SesTenant::parse(&name)) else { return };
        let status = self.opened(key, value, None).unwrap_or_else(|| Status {
            at: Timestamp::default(),
            disabled: true,
            cause: "the record of this status is damaged; SES's next one takes its place".into(),
        });
        self.ses_statuses.extend(status.pause().map(|pause| (name, pause)));
    }

    fn pause(&mut self, key: &Key, value: &[u8]) {
        let Some(whose) = self.whose(key) else { return };
        // Who cannot be told why is paused all the same: the record was made to stop something.
        let pause = self.opened(key, value, None).unwrap_or_else(|| Pause {
            at: Timestamp::default(),
            actor: "bulkhead".into(),
            reason: "the record of this pause is damaged; resume ends it".into(),
        });
        self.pauses.insert(whose, pause);
    }

    fn credential(&mut self, key: &Key, value: &[u8]) {
        let Some([username]) = self.names(key) else { return };
        let Some(username) = self.checked(key, Username::parse(&username)) else { return };
        match record::open::<Credential>(key, value) {
            Ok(credential) if credential.username == username => self.credentials.push(credential),
            Ok(other) => {
                let what = format!("it holds the credential {}", other.username);
                self.fault(key, None, Some(&username), what);
            }
            Err(error) => self.fault(key, None, Some(&username), error.to_string()),
        }
    }

    fn hold(&mut self, key: &Key, value: &[u8]) {
        let Some([username]) = self.names(key) else { return };
        let Some(username) = self.checked(key, Username::parse(&username)) else { return };
        let hold = self.opened(key, value, None);
        self.holds.insert(username, hold);
    }

    /// The parts of a key behind its kind.
    fn names<const N: usize>(&mut self, key: &Key) -> Option<[String; N]> {
        let parts = key.parts().unwrap_or_default();
        let names: Vec<String> = parts.iter().skip(1).map(|part| (*part).to_owned()).collect();
        let names = names.try_into().ok();
        if names.is_none() {
            self.fault(key, None, None, "its key is none of ours".into());
        }
        names
    }

    fn checked<T, E: std::fmt::Display>(&mut self, key: &Key, name: Result<T, E>) -> Option<T> {
        name.map_err(|error| self.fault(key, None, None, format!("a name in its key {error}"))).ok()
    }

    fn opened<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &Key,
        value: &[u8],
        tenant: Option<&TenantId>,
    ) -> Option<T> {
        record::open(key, value).map_err(|error| self.fault(key, tenant, None, error.to_string())).ok()
    }

    fn fault(&mut self, key: &Key, tenant: Option<&TenantId>, username: Option<&Username>, what: String) {
        self.faults.push(Fault { key: key.clone(), tenant: tenant.cloned(), username: username.cloned(), what });
    }

    fn finish(mut self) -> Directory {
        let there: HashSet<TenantId> = self.tenants.keys().cloned().collect();
        // What is left of a tenant that is gone harms nobody, damaged or not.
        self.faults.retain(|fault| fault.tenant.as_ref().is_none_or(|tenant| there.contains(tenant)));
        let mut damaged: HashSet<TenantId> = self.faults.iter().filter_map(|fault| fault.tenant.clone()).collect();
        let mut tenants = Vec::with_capacity(self.tenants.len());
        for (id, row) in std::mem::take(&mut self.tenants) {
            let Some(row) = row.filter(|_| !damaged.contains(&id)) else { continue };
            let mut streams = self.streams.remove(&id).unwrap_or_default();
            if !streams.contains_key(&row.default_stream) {
                let what = format!("its default stream {} is not there", row.default_stream);
                self.fault(&Key::tenant(&id), Some(&id), None, what);
                damaged.insert(id);
                continue;
            }
            for stream in streams.values_mut() {
                let whose = (id.clone(), Some(stream.id.clone()));
                stream.pause = self.pauses.remove(&whose);
                stream.standing = self.standings.remove(&whose).unwrap_or_default();
            }
            let senders = self.senders.remove(&id).unwrap_or_default();
            let whose = (id.clone(), None);
            let pause = self.pauses.remove(&whose);
            let mut tenant = row.tenant(id, senders, streams, pause);
            tenant.standing = self.standings.remove(&whose).unwrap_or_default();
            // Two tenants may have one SES tenant: SES judges them as one.
            tenant.ses_pause = tenant.ses_tenant.as_ref().and_then(|name| self.ses_statuses.get(name)).cloned();
            tenants.push(tenant);
        }
        self.credentials.retain(|credential| there.contains(&credential.tenant));
        let holds = self.credentials.iter().filter_map(|credential| {
            let hold = self.holds.remove(&credential.username)?;
            let damaged = || Hold {
                tenant: credential.tenant.clone(),
                since: Pause {
                    at: Timestamp::default(),
                    actor: "bulkhead".into(),
                    reason: "the record of this hold is damaged; a release ends it".into(),
                },
                released: None,
            };
            Some((credential.username.clone(), hold.unwrap_or_else(damaged)))
        });
        let holds = holds.collect();
        Directory::new(tenants, self.credentials).with_holds(holds).with_faults(self.faults)
    }
}

/// What stands in for a standing that cannot be read: nobody becomes good by a damaged record.
fn damaged() -> Standing {
    let charge =
        Charge { rule: Rule::Damaged, offence: Offence::Bounce, span: Span::Week, bad: 0, accepted: 0, limit: 0.0 };
    let brake = Brake { step: Step::Paused, since: Timestamp::default(), charge, clears: None, shadow: false };
    Standing { brake: Some(brake), ..Standing::default() }
}

#[cfg(test)]
mod tests;
