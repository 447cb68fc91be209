//! Holds on credentials: nothing more is taken from a credential that is on hold.
//!
//! One row a credential, beside the credential's own: a hold is state and no declaration, so that an
//! `apply` of the tenants file neither brings nor takes one, and neither does a new secret. A hold
//! that was released stays behind as what it was, for whoever would put the credential on hold again
//! by itself.
//!
//! A row that cannot be read is a hold: it was made to stop something, and a release ends it.

use serde::{Deserialize, Serialize};

use super::{Batch, If, Key, record};
use crate::mail::{TenantId, Username};
use crate::policy::tenant::Pause;

/// A hold, or what is left of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Whose credential it was; a username that another tenant has since is not on hold.
    pub tenant: TenantId,
    /// When, by whom, why.
    pub since: Pause,
    /// When, by whom and why it was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Pause>,
}

impl Hold {
    /// The hold, while it stands.
    pub fn standing(&self) -> Option<&Pause> {
        self.released.is_none().then_some(&self.since)
    }
}

/// Adds to a batch that `username` is on hold, or that it was released.
pub fn write(batch: &mut Batch, username: &Username, hold: &Hold) {
    batch.put(Key::credential_hold(username), If::Any, record::seal(hold));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_encoding() {
        let pause = |actor: &str| Pause { at: Timestamp::from_millis(7), actor: actor.into(), reason: "why".into() };
        let mut hold = Hold { tenant: TenantId::parse("acme").unwrap(), since: pause("bulkhead"), released: None };
        assert!(hold.standing().is_some());
        assert_eq!(
            serde_json::to_string(&hold).unwrap(),
            r#"{"tenant":"acme","since":{"at":7,"actor":"bulkhead","reason":"why"}}"#
        );
        hold.released = Some(pause("cli:root"));
        assert!(hold.standing().is_none());
        assert_eq!(serde_json::from_str::<Hold>(&serde_json::to_string(&hold).unwrap()).unwrap(), hold);
    }
}
