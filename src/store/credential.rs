//! Credentials: what a tenant's applications log in with.
//!
//! Promises: a secret is kept as a hash alone; it is compared in constant time; two secrets at most
//! live at once (rotation). Machine-made secrets have 256 bits and need no slow hash; chosen
//! passwords come as `$argon2id$…` and are verified by the caller off the async threads.
//! What can go wrong: a hash that is neither form is refused when it is read in.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::mail::{StreamId, TenantId, Username};
use crate::secret::{Random, Secret};
use crate::time::Timestamp;

/// Most secrets a credential has: the new one and, during an overlap, the old one.
pub const SECRETS: usize = 2;

/// One credential.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Credential {
    /// What the client says.
    pub username: Username,
    /// Whose it is.
    pub tenant: TenantId,
    /// The stream it is bound to, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// 1 to [`SECRETS`], newest first.
    pub secrets: Vec<StoredSecret>,
    /// Networks it may be used from; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_ip: Vec<IpNet>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Where it came from.
    pub origin: Origin,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub actor: String,
}

/// Where a credential came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The tenants file: `apply --prune` may remove it.
    File,
    /// `credential issue` or the API.
    Issued,
}

/// One live secret.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StoredSecret {
    /// Its hash.
    pub hash: SecretHash,
    /// When it ends (the old secret of a rotation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// How a secret is kept.
#[derive(Clone, PartialEq, Debug)]
pub enum SecretHash {
    /// `sha256:` and 64 hex digits: of a machine-made 256-bit secret.
    Sha256([u8; 32]),
    /// A PHC string `$argon2id$…`: of a chosen password.
    Argon2id(String),
}

/// Why text is no secret hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashError {
    /// Neither form.
    #[error(
        "is neither sha256: with 64 hex digits nor an $argon2id$ string; `bulkhead credential issue --print-hash` makes one"
    )]
    Form,
    /// Argon2 parameters that would take too much memory or time to verify.
    #[error("asks for more than 64 MiB or 10 passes to verify")]
    TooCostly,
}

impl SecretHash {
    /// Reads either form.
    pub fn parse(_text: &str) -> Result<Self, HashError> {
        todo!()
    }
    /// The hash of a machine-made secret.
    pub fn of(_secret: &Secret) -> Self {
        todo!()
    }
    /// Whether verifying takes milliseconds rather than microseconds.
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Argon2id(_))
    }
    /// Compares, in constant time for SHA-256. Blocks for milliseconds where [`Self::is_slow`].
    pub fn verify(&self, _secret: &Secret) -> bool {
        todo!()
    }
    /// A short number that tells one hash from another, for [`crate::mail::Login`].
    pub fn fingerprint(&self) -> u64 {
        todo!()
    }
}

impl std::fmt::Display for SecretHash {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

impl serde::Serialize for SecretHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SecretHash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl Credential {
    /// Its secrets that live at `now`; none if the credential itself has ended.
    pub fn live_secrets(&self, now: Timestamp) -> impl Iterator<Item = &StoredSecret> {
        let alive = self.expires.is_none_or(|until| now < until);
        self.secrets.iter().filter(move |secret| alive && secret.expires.is_none_or(|until| now < until))
    }
}

/// A new machine-made secret: `bh_` and 43 characters of base64url (256 bits).
pub fn new_secret(_random: &dyn Random) -> Secret {
    todo!()
}
