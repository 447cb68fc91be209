//! Who a session speaks for once it is authenticated.

use super::id::{StreamId, TenantId, Username};

/// The outcome of a verified AUTH. Policy looks the tenant up again at each step, so a login is a
/// name, not a permit: a credential revoked since is found out at the next MAIL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Whose mail this is.
    pub tenant: TenantId,
    /// The credential that was used.
    pub credential: Username,
    /// The stream the credential is bound to, if it is.
    pub stream: Option<StreamId>,
    /// Which of the credential's secrets was used: a short fingerprint of its stored hash, so that
    /// a revoked or rotated-away secret ends the sessions that used it.
    pub secret_fingerprint: u64,
}
