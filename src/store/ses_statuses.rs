//! What SES has told of its own tenants' sending: the last word of each, by SES's clock.
//!
//! EventBridge tells at best effort and in no order, so a row has the moment of what it holds, and an
//! older word changes nothing. What can go wrong: the store; a damaged row is a disabled tenant (see
//! [`tenants::load`](super::tenants::load)) until SES's next word.

use serde::{Deserialize, Serialize};

use super::{Batch, If, Key, ReadError, Store, record};
use crate::mail::SesTenant;
use crate::policy::tenant::Pause;
use crate::time::Timestamp;

/// Who pauses, where SES does.
pub const ACTOR: &str = "ses";

/// SES's last word on one of its tenants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// When it was said.
    pub at: Timestamp,
    /// Whether it may not send.
    pub disabled: bool,
    /// SES's words.
    pub cause: String,
}

impl Status {
    /// The pause that it is, if it is one.
    pub fn pause(&self) -> Option<Pause> {
        self.disabled.then(|| Pause { at: self.at, actor: ACTOR.into(), reason: self.cause.clone() })
    }
}

/// The status as it stands, and on which condition it may be replaced.
pub async fn read(store: &dyn Store, ses_tenant: &SesTenant) -> Result<(Option<Status>, If), ReadError> {
    let key = Key::ses_status(ses_tenant);
    match store.get(&key).await? {
        None => Ok((None, If::Absent)),
        // What cannot be read is replaced by what can.
        Some(found) => Ok((record::open(&key, &found.value).ok(), If::At(found.version))),
    }
}

/// Adds the write of a status.
pub fn write(batch: &mut Batch, ses_tenant: &SesTenant, condition: If, status: &Status) {
    batch.put(Key::ses_status(ses_tenant), condition, record::seal(status));
}
