//! Credentials: what a tenant's applications log in with.
//!
//! Promises: a secret is kept as a hash alone; it is compared in constant time; two secrets at most
//! live at once (rotation). Machine-made secrets have 256 bits and need no slow hash; chosen
//! passwords come as `$argon2id$…` and are verified by the caller off the async threads.
//! What can go wrong: a hash that is neither form is refused when it is read in.

use std::fmt;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::mail::{StreamId, TenantId, Username};
use crate::secret::{Random, Secret, same};
use crate::time::Timestamp;

/// Most secrets a credential has: the new one and, during an overlap, the old one.
pub const SECRETS: usize = 2;
/// Most memory an Argon2 hash may ask for, in KiB.
pub const ARGON2_KIBIBYTES: u32 = 64 * 1024;
/// Most passes.
pub const ARGON2_PASSES: u32 = 10;
/// Most lanes.
pub const ARGON2_LANES: u32 = 4;
/// Longest PHC string.
const PHC_OCTETS: usize = 256;

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
    #[error("asks for more than 64 MiB, 10 passes or 4 lanes to verify")]
    TooCostly,
}

impl SecretHash {
    /// Reads either form.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        if let Some(digits) = text.strip_prefix("sha256:") {
            return from_hex(digits).map(Self::Sha256).ok_or(HashError::Form);
        }
        if !text.starts_with("$argon2id$") || text.len() > PHC_OCTETS {
            return Err(HashError::Form);
        }
        let phc = PasswordHash::new(text).map_err(|_| HashError::Form)?;
        if phc.salt.is_none() || phc.hash.is_none() {
            return Err(HashError::Form);
        }
        if phc.version.is_some_and(|version| argon2::Version::try_from(version).is_err()) {
            return Err(HashError::Form);
        }
        let params = argon2::Params::try_from(&phc).map_err(|_| HashError::Form)?;
        if params.m_cost() > ARGON2_KIBIBYTES || params.t_cost() > ARGON2_PASSES || params.p_cost() > ARGON2_LANES {
            return Err(HashError::TooCostly);
        }
        Ok(Self::Argon2id(text.to_owned()))
    }

    /// The hash of a machine-made secret.
    pub fn of(secret: &Secret) -> Self {
        Self::Sha256(Sha256::digest(secret.expose()).into())
    }

    /// Whether verifying takes milliseconds rather than microseconds.
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Argon2id(_))
    }

    /// Compares, in constant time. Blocks for milliseconds where [`Self::is_slow`].
    pub fn verify(&self, secret: &Secret) -> bool {
        match self {
            Self::Sha256(digest) => {
                let given: [u8; 32] = Sha256::digest(secret.expose()).into();
                same(&given, digest)
            }
            Self::Argon2id(text) => PasswordHash::new(text)
                .is_ok_and(|phc| Argon2::default().verify_password(secret.expose(), &phc).is_ok()),
        }
    }

    /// A short number that tells one hash from another, for [`crate::mail::Login`]: the first eight
    /// octets of the SHA-256 of the hash's text.
    pub fn fingerprint(&self) -> u64 {
        // Asked for at every MAIL, RCPT and message: of a SHA-256 hash its own first octets do.
        let digest: [u8; 32] = match self {
            Self::Sha256(digest) => *digest,
            Self::Argon2id(text) => Sha256::digest(text.as_bytes()).into(),
        };
        let mut first = [0; 8];
        first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        u64::from_be_bytes(first)
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => {
                f.write_str("sha256:")?;
                digest.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
            Self::Argon2id(text) => f.write_str(text),
        }
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
pub fn new_secret(random: &dyn Random) -> Secret {
    let mut octets = Zeroizing::new([0; 32]);
    random.fill(&mut *octets);
    let mut text = Vec::with_capacity(3 + 43);
    text.extend_from_slice(b"bh_");
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(*octets));
    text.extend_from_slice(encoded.as_bytes());
    Secret::new(text)
}

/// `credential` with `new` for its secret. The secret that was newest goes on living for `overlap`,
/// or until its own end if that is sooner; older ones, and without an overlap this one too, end now.
pub fn rotated(credential: &Credential, new: SecretHash, overlap: Option<Duration>, now: Timestamp) -> Credential {
    let old = overlap.and_then(|overlap| {
        let newest = credential.live_secrets(now).find(|secret| secret.hash != new)?;
        let until = now.plus(overlap);
        let expires = Some(newest.expires.map_or(until, |own| own.min(until)));
        Some(StoredSecret { hash: newest.hash.clone(), expires })
    });
    let mut secrets = vec![StoredSecret { hash: new, expires: None }];
    secrets.extend(old);
    secrets.truncate(SECRETS);
    Credential { secrets, ..credential.clone() }
}

/// 64 hexadecimal digits of either case as 32 octets.
fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let mut octets = [0; 32];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != octets.len() || !rest.is_empty() {
        return None;
    }
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
        *octet = u8::try_from(value).ok()?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `password`, from the tests of the reference implementation (phc-winner-argon2, test.c).
    const PHC: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    struct Counting(std::sync::atomic::AtomicU8);

    impl Random for Counting {
        fn fill(&self, into: &mut [u8]) {
            into.iter_mut().for_each(|octet| *octet = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn both_forms_are_read_written_and_verified() {
        let table = [
            // SHA-256 of "abc", as FIPS 180-4's example has it.
            ("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "abc", false),
            (PHC, "password", true),
        ];
        for (text, right, slow) in table {
            let hash = SecretHash::parse(text).unwrap();
            assert_eq!(hash.to_string(), text);
            assert_eq!(serde_json::from_str::<SecretHash>(&serde_json::to_string(&hash).unwrap()).unwrap(), hash);
            assert_eq!(hash.is_slow(), slow);
            assert!(hash.verify(&secret(right)), "{text}");
            for wrong in ["", "abd", "passwor", "Password", "password\0"] {
                assert!(!hash.verify(&secret(wrong)), "{text} {wrong}");
            }
        }
        let upper = "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert_eq!(SecretHash::parse(upper).unwrap(), SecretHash::of(&secret("abc")));
    }

    #[test]
    fn fingerprints_tell_hashes_apart() {
        let (a, b) = (SecretHash::of(&secret("a")), SecretHash::of(&secret("b")));
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.fingerprint(), SecretHash::of(&secret("a")).fingerprint());
    }

    #[test]
    fn what_is_neither_form_or_costs_too_much_is_refused() {
        let with = |params: &str| {
            format!("$argon2id$v=19${params}$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        };
        assert!(SecretHash::parse(&with("m=65536,t=10,p=4")).is_ok());
        let table = [
            (String::new(), HashError::Form),
            ("hunter42".into(), HashError::Form),
            ("sha256:".into(), HashError::Form),
            (format!("sha256:{}", "0".repeat(63)), HashError::Form),
            (format!("sha256:{}", "0".repeat(65)), HashError::Form),
            (format!("sha256:{}", "0".repeat(66)), HashError::Form),
            (format!("sha256:{}g", "0".repeat(63)), HashError::Form),
            (format!("sha256:+{}", "0".repeat(63)), HashError::Form),
            ("$argon2id$".into(), HashError::Form),
            ("$argon2id$v=19$m=19456,t=2,p=1".into(), HashError::Form),
            ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA".into(), HashError::Form),
            (with("m=19456,t=0,p=1"), HashError::Form),
            (with("m=19456,t=2,p=1,z=9"), HashError::Form),
            (with("m=19456,t=2,p=1").replace("v=19", "v=20"), HashError::Form),
            (PHC.replace("argon2id", "argon2i"), HashError::Form),
            (PHC.replace("argon2id", "argon2d"), HashError::Form),
            (format!("{PHC}{}", "A".repeat(PHC_OCTETS)), HashError::Form),
            (with("m=65537,t=2,p=1"), HashError::TooCostly),
            (with("m=19456,t=11,p=1"), HashError::TooCostly),
            (with("m=19456,t=2,p=5"), HashError::TooCostly),
            (with("m=4194304,t=4294967295,p=1"), HashError::TooCostly),
        ];
        for (text, expected) in table {
            assert_eq!(SecretHash::parse(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_new_secret_is_256_bits_in_base64url() {
        let random = Counting(0.into());
        let (first, second) = (new_secret(&random), new_secret(&random));
        let text = std::str::from_utf8(first.expose()).unwrap();
        assert_eq!(text, "bh_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        assert_eq!(text.len(), 46);
        assert_ne!(first, second);
        assert!(SecretHash::of(&first).verify(&first));
        assert!(!SecretHash::of(&first).verify(&second));
    }

    #[test]
    fn a_rotation_keeps_the_old_secret_for_its_overlap_and_no_other() {
        let at = Timestamp::from_millis;
        let hash = |text: &str| SecretHash::of(&secret(text));
        let first = Credential {
            username: Username::parse("acme-app").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            stream: None,
            secrets: vec![StoredSecret { hash: hash("one"), expires: None }],
            from_ip: Vec::new(),
            expires: None,
            origin: Origin::Issued,
            created: at(0),
            actor: "cli:root".into(),
        };
        let live = |credential: &Credential, now| {
            credential.live_secrets(at(now)).map(|secret| secret.hash.clone()).collect::<Vec<_>>()
        };
        let second = rotated(&first, hash("two"), Some(Duration::from_secs(10)), at(1_000));
        assert_eq!(live(&second, 10_999), [hash("two"), hash("one")]);
        assert_eq!(live(&second, 11_000), [hash("two")]);
        // A third within the overlap of the second: the first one ends.
        let third = rotated(&second, hash("three"), Some(Duration::from_secs(1)), at(2_000));
        assert_eq!(live(&third, 2_999), [hash("three"), hash("two")]);
        assert_eq!(live(&third, 3_000), [hash("three")]);
        // Without an overlap the old ones end at once.
        assert_eq!(rotated(&third, hash("four"), None, at(2_500)).secrets.len(), 1);
        // An overlap does not lengthen a life, and the same secret again is no second one.
        let ending =
            Credential { secrets: vec![StoredSecret { hash: hash("one"), expires: Some(at(1_500)) }], ..first.clone() };
        let after = rotated(&ending, hash("two"), Some(Duration::from_secs(10)), at(1_000));
        assert_eq!(after.secrets[1].expires, Some(at(1_500)));
        assert_eq!(rotated(&first, hash("one"), Some(Duration::from_secs(10)), at(1_000)).secrets, first.secrets);
        // Nothing of an ended credential lives.
        assert!(live(&Credential { expires: Some(at(5)), ..first }, 5).is_empty());
    }
}
