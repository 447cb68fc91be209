//! Verifying a username and a secret.
//!
//! Promises: the client learns one thing, whether both were right. Unknown username, wrong secret,
//! expired credential, address outside `from_ip`: same words, same work (a secret that could not be
//! accepted anyway is not compared). Machine-made secrets are
//! hashed in place (a microsecond); chosen passwords (argon2id, tens of milliseconds and megabytes)
//! off the async threads, `limits.auth_verifications` at a time. A refused login costs as many
//! argon2id runs as the dearest credential of the directory would, whoever was named: the padding
//! runs verify against a stored hash and are thrown away.
//!
//! A verified argon2id secret is remembered for `limits.auth_cache_seconds` under
//! HMAC-SHA256(process key, username ‖ 0 ‖ secret ‖ 0 ‖ stored hash). The stored hash comes from
//! the directory of the moment, and only live secrets of a credential that is there are looked up:
//! what was revoked, rotated away or changed is not found from the next login on, without anybody
//! telling the cache.
//!
//! What can go wrong: more logins with chosen passwords than the bound can work off in
//! `limits.auth_wait_seconds` hear 454 4.7.0, a fault of ours that counts against nobody. So does who
//! has a credential whose record is damaged, or the right secret where the tenant's record is: a wrong
//! secret is refused as ever.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Limits;
use super::budget::Budget;
use crate::mail::{Login, Username};
use crate::secret::{Random, Secret};
use crate::store::credential::{Credential, SecretHash};
use crate::store::directory::Directory;
use crate::time::Timestamp;

/// Why there is no login. The client hears one sentence for every cause but the last two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoLogin {
    /// Not of a username's alphabet, or not in the directory.
    #[error("unknown username")]
    Unknown,
    /// The secret is none of the credential's live ones.
    #[error("wrong secret")]
    WrongSecret,
    /// The credential, or every secret of it, has ended.
    #[error("the credential has expired")]
    Expired,
    /// The wrong place, whatever the secret.
    #[error("the client's address is not in the credential's from_ip")]
    Network,
    /// The credential's tenant is gone.
    #[error("the credential's tenant is not there")]
    NoTenant,
    /// Not told: the record of the credential, or of its tenant, cannot be read.
    #[error("the record of the credential or of its tenant is damaged")]
    Damaged,
    /// Not told: the verifications are busy.
    #[error("limits.auth_verifications was busy for longer than limits.auth_wait_seconds")]
    Busy,
}

/// Verifies, and remembers what was dear to verify.
#[derive(Debug)]
pub(super) struct Verifier {
    slots: Arc<Budget>,
    wait: Mutex<Duration>,
    cache: Mutex<Cache>,
    key: [u8; 32],
    padding: Mutex<(Weak<Directory>, Padding)>,
}

/// What a refused login has to cost.
#[derive(Clone, Debug, Default)]
struct Padding {
    /// Argon2id runs.
    runs: usize,
    /// Some argon2id hash of the directory; there is one where `runs > 0`.
    hash: Option<SecretHash>,
}

#[derive(Debug)]
struct Cache {
    verified: HashMap<[u8; 32], Instant>,
    entries: usize,
    time: Duration,
}

impl Verifier {
    pub(super) fn new(limits: &Limits, random: &dyn Random) -> Self {
        let mut key = [0; 32];
        random.fill(&mut key);
        Self {
            slots: Budget::new(limits.auth_verifications),
            wait: Mutex::new(limits.auth_wait),
            cache: Mutex::new(Cache {
                verified: HashMap::new(),
                entries: limits.auth_cache_entries,
                time: limits.auth_cache_time,
            }),
            key,
            padding: Mutex::default(),
        }
    }

    /// From now on these are the bounds. What is under way or remembered already stays as it is.
    pub(super) fn resize(&self, limits: &Limits) {
        self.slots.resize(limits.auth_verifications);
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = limits.auth_wait;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        (cache.entries, cache.time) = (limits.auth_cache_entries, limits.auth_cache_time);
    }

    /// Whose `username` and `secret` are, coming from `peer`.
    pub(super) async fn verify(
        &self,
        directory: &Arc<Directory>,
        username: &str,
        secret: Secret,
        peer: IpAddr,
        now: Timestamp,
        instant: Instant,
    ) -> Result<Login, NoLogin> {
        let username = Username::parse(username).ok();
        let credential = username.as_ref().and_then(|name| directory.credential(name));
        if username.as_ref().is_some_and(|name| directory.credential_is_damaged(name)) {
            return Err(NoLogin::Damaged);
        }
        let (live, cause) = candidates(directory, credential, peer, now);

        // Machine-made secrets, and chosen ones that were verified a while ago.
        let quick = live.iter().find(|hash| match &username {
            Some(name) if hash.is_slow() => self.remembers(self.tag(name, &secret, hash), instant),
            _ => hash.verify(&secret),
        });
        let found = match quick {
            Some(hash) => Some(hash.clone()),
            None => self.verify_slowly(directory, username.as_ref(), live.clone(), secret, instant).await?,
        };
        match (found, credential) {
            (Some(_), Some(credential)) if directory.tenant_is_damaged(&credential.tenant) => Err(NoLogin::Damaged),
            (Some(hash), Some(credential)) => Ok(Login {
                tenant: credential.tenant.clone(),
                credential: credential.username.clone(),
                stream: credential.stream.clone(),
                secret_fingerprint: hash.fingerprint(),
            }),
            (None, _) | (_, None) => Err(cause),
        }
    }

    /// Which of the `live` argon2id hashes is of `secret`; runs as often as any refusal does.
    async fn verify_slowly(
        &self,
        directory: &Arc<Directory>,
        username: Option<&Username>,
        live: Vec<SecretHash>,
        secret: Secret,
        instant: Instant,
    ) -> Result<Option<SecretHash>, NoLogin> {
        let slow: Vec<SecretHash> = live.into_iter().filter(SecretHash::is_slow).collect();
        let padding = self.padding(directory);
        if slow.is_empty() && padding.runs == 0 {
            return Ok(None);
        }
        let wait = *self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(slot) = tokio::time::timeout(wait, self.slots.take(1)).await else { return Err(NoLogin::Busy) };
        let offered = secret.clone();
        let verified = tokio::task::spawn_blocking(move || {
            // The slot is the thread's: a client that hangs up frees it no sooner than its work ends.
            let _slot = slot;
            find(slow, &padding, |hash| std::hint::black_box(hash.verify(&offered)))
        })
        .await;
        // A verification that panicked has told nothing.
        let Ok(found) = verified else { return Err(NoLogin::Busy) };
        if let (Some(hash), Some(name)) = (&found, username) {
            self.remember(self.tag(name, &secret, hash), instant);
        }
        Ok(found)
    }

    fn padding(&self, directory: &Arc<Directory>) -> Padding {
        let mut known = self.padding.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ptr() != Arc::as_ptr(directory) {
            let slow = |c: &Credential| c.secrets.iter().filter(|s| s.hash.is_slow()).count();
            let dearest = directory.credentials().max_by_key(|credential| slow(credential));
            let padding = Padding {
                runs: dearest.map_or(0, |credential| slow(credential)),
                hash: dearest.and_then(|c| c.secrets.iter().find(|s| s.hash.is_slow())).map(|s| s.hash.clone()),
            };
            // The weak pointer keeps the address from being used again for another directory.
            *known = (Arc::downgrade(directory), padding);
        }
        known.1.clone()
    }

    /// What a verified secret is remembered under; without a tag nothing is remembered.
    fn tag(&self, username: &Username, secret: &Secret, hash: &SecretHash) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        // Neither username nor stored hash has a NUL, so the first and the last one separate.
        mac.update(username.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(secret.expose());
        mac.update(&[0]);
        mac.update(hash.to_string().as_bytes());
        Some(mac.finalize().into_bytes().into())
    }

    fn remembers(&self, tag: Option<[u8; 32]>, now: Instant) -> bool {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        tag.and_then(|tag| cache.verified.get(&tag)).is_some_and(|until| now < *until)
    }

    fn remember(&self, tag: Option<[u8; 32]>, now: Instant) {
        let Some(tag) = tag else { return };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.verified.len() >= cache.entries {
            cache.verified.retain(|_, until| now < *until);
        }
        if cache.verified.len() < cache.entries {
            let until = now + cache.time;
            cache.verified.insert(tag, until);
        }
    }
}

/// The first hash that `verify` says yes to. Where it says no to all, it is asked as often as for any
/// other username: the answers to the padding are nobody's.
fn find(slow: Vec<SecretHash>, padding: &Padding, mut verify: impl FnMut(&SecretHash) -> bool) -> Option<SecretHash> {
    let missing = padding.runs.saturating_sub(slow.len());
    let found = slow.into_iter().find(&mut verify);
    if found.is_none() {
        for hash in padding.hash.iter().cycle().take(missing) {
            verify(hash);
        }
    }
    found
}

/// The hashes that the secret may be of, and what to call it when it is of none of them.
fn candidates(
    directory: &Directory,
    credential: Option<&Arc<Credential>>,
    peer: IpAddr,
    now: Timestamp,
) -> (Vec<SecretHash>, NoLogin) {
    let Some(credential) = credential else { return (Vec::new(), NoLogin::Unknown) };
    if !may_come_from(credential, peer) {
        return (Vec::new(), NoLogin::Network);
    }
    if directory.tenant(&credential.tenant).is_none() && !directory.tenant_is_damaged(&credential.tenant) {
        return (Vec::new(), NoLogin::NoTenant);
    }
    let live: Vec<SecretHash> = credential.live_secrets(now).map(|secret| secret.hash.clone()).collect();
    let cause = if live.is_empty() { NoLogin::Expired } else { NoLogin::WrongSecret };
    (live, cause)
}

/// Whether `peer` lies in the credential's networks; an IPv4-mapped address counts as IPv4.
pub(super) fn may_come_from(credential: &Credential, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    credential.from_ip.is_empty() || credential.from_ip.iter().any(|network| network.contains(&peer))
}

/// Whether `login` still is what it was when it was made: the credential is there, is its tenant's,
/// is bound as it was, may come from here, and the secret that was used lives.
pub(super) fn still_stands(directory: &Directory, login: &Login, peer: IpAddr, now: Timestamp) -> bool {
    directory.credential(&login.credential).is_some_and(|credential| {
        credential.tenant == login.tenant
            && credential.stream == login.stream
            && may_come_from(credential, peer)
            && credential.live_secrets(now).any(|secret| secret.hash.fingerprint() == login.secret_fingerprint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{StreamId, TenantId};
    use crate::policy::tenant::Tenant;
    use crate::store::credential::{Origin, StoredSecret};

    struct Fixed;

    impl Random for Fixed {
        fn fill(&self, into: &mut [u8]) {
            into.fill(7);
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    /// Argon2id at its cheapest, so that tests are quick; the form is what counts.
    fn slow(password: &str) -> SecretHash {
        use argon2::password_hash::PasswordHasher as _;
        let argon = argon2::Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            argon2::Params::new(8, 1, 1, None).unwrap(),
        );
        SecretHash::parse(&argon.hash_password(password.as_bytes()).unwrap().to_string()).unwrap()
    }

    fn credential(username: &str, hashes: Vec<SecretHash>) -> Credential {
        Credential {
            username: Username::parse(username).unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            stream: None,
            secrets: hashes.into_iter().map(|hash| StoredSecret { hash, expires: None }).collect(),
            from_ip: Vec::new(),
            expires: None,
            origin: Origin::Issued,
            created: NOW,
            actor: "test".into(),
        }
    }

    fn directory(credentials: Vec<Credential>) -> Arc<Directory> {
        let tenant = Tenant::new(TenantId::parse("acme").unwrap(), StreamId::parse("main").unwrap());
        Arc::new(Directory::new([tenant], credentials))
    }

    fn verifier(limits: &Limits) -> Verifier {
        Verifier::new(limits, &Fixed)
    }

    async fn outcome(v: &Verifier, d: &Arc<Directory>, username: &str, password: &str) -> Result<Login, NoLogin> {
        v.verify(d, username, secret(password), "192.0.2.1".parse().unwrap(), NOW, Instant::now()).await
    }

    #[tokio::test]
    async fn every_cause_has_its_name_for_the_log() {
        let v = verifier(&Limits::default());
        let right = SecretHash::of(&secret("right"));
        let mut expired = credential("expired", vec![right.clone()]);
        expired.expires = Some(NOW);
        let mut elsewhere = credential("elsewhere", vec![right.clone()]);
        elsewhere.from_ip = vec!["198.51.100.0/24".parse().unwrap()];
        let mut homeless = credential("homeless", vec![right.clone()]);
        homeless.tenant = TenantId::parse("gone").unwrap();
        let d = directory(vec![
            credential("app", vec![right]),
            credential("chosen", vec![slow("hunter2")]),
            expired,
            elsewhere,
            homeless,
        ]);
        let cases = [
            ("app", "right", None),
            ("chosen", "hunter2", None),
            ("app", "wrong", Some(NoLogin::WrongSecret)),
            ("chosen", "wrong", Some(NoLogin::WrongSecret)),
            ("nobody", "right", Some(NoLogin::Unknown)),
            ("not a username", "right", Some(NoLogin::Unknown)),
            ("expired", "right", Some(NoLogin::Expired)),
            ("elsewhere", "right", Some(NoLogin::Network)),
            ("elsewhere", "wrong", Some(NoLogin::Network)),
            ("homeless", "right", Some(NoLogin::NoTenant)),
        ];
        for (username, password, expected) in cases {
            assert_eq!(outcome(&v, &d, username, password).await.err(), expected, "{username} {password}");
        }
    }

    #[tokio::test]
    async fn a_verified_password_is_remembered_until_the_hash_changes_or_time_passes() {
        let v = verifier(&Limits { auth_cache_time: Duration::from_secs(300), ..Limits::default() });
        let d = directory(vec![credential("chosen", vec![slow("hunter2")])]);
        outcome(&v, &d, "chosen", "hunter2").await.unwrap();
        // With the slots gone only the cache can answer.
        v.resize(&Limits { auth_verifications: 0, auth_wait: Duration::ZERO, ..Limits::default() });
        outcome(&v, &d, "chosen", "hunter2").await.unwrap();
        assert_eq!(outcome(&v, &d, "chosen", "hunter3").await.err(), Some(NoLogin::Busy));

        // Rotated, even to the same password; revoked; the same name with another tenant's hash.
        let rotated = directory(vec![credential("chosen", vec![slow("hunter2")])]);
        assert_eq!(outcome(&v, &rotated, "chosen", "hunter2").await.err(), Some(NoLogin::Busy));
        let revoked = directory(Vec::new());
        assert_eq!(outcome(&v, &revoked, "chosen", "hunter2").await.err(), Some(NoLogin::Unknown));

        let later = Instant::now() + Duration::from_secs(301);
        let peer = "192.0.2.1".parse().unwrap();
        let stale = v.verify(&d, "chosen", secret("hunter2"), peer, NOW, later).await;
        assert_eq!(stale.err(), Some(NoLogin::Busy));
    }

    #[tokio::test]
    async fn the_cache_is_bounded_and_a_refusal_is_never_in_it() {
        let v = verifier(&Limits { auth_cache_entries: 2, ..Limits::default() });
        let names = ["a", "b", "c"];
        let d = directory(names.iter().map(|name| credential(name, vec![slow("hunter2")])).collect());
        for name in names {
            assert!(outcome(&v, &d, name, "wrong").await.is_err());
        }
        assert_eq!(v.cache.lock().unwrap().verified.len(), 0);
        for name in names {
            outcome(&v, &d, name, "hunter2").await.unwrap();
        }
        assert_eq!(v.cache.lock().unwrap().verified.len(), 2);
    }

    #[test]
    fn a_refusal_takes_as_many_runs_for_every_username_and_padding_lets_nobody_in() {
        let (a, b) = (slow("a"), slow("b"));
        let padding = Padding { runs: 2, hash: Some(a.clone()) };
        for live in [vec![], vec![a.clone()], vec![a.clone(), b.clone()]] {
            let mut runs = 0;
            let found = find(live.clone(), &padding, |_| {
                runs += 1;
                false
            });
            assert_eq!((found, runs), (None, 2), "{} live", live.len());
        }
        assert_eq!(find(vec![], &padding, |hash| *hash == a), None, "the padding hash is not the user's");
        assert_eq!(find(vec![b.clone(), a.clone()], &padding, |hash| *hash == a), Some(a));
    }

    /// What a refusal costs is the same whoever is named: told by whether it needs a slot.
    #[tokio::test]
    async fn a_refusal_costs_the_same_for_every_username() {
        let v = verifier(&Limits::default());
        let fast = SecretHash::of(&secret("right"));
        let d =
            directory(vec![credential("app", vec![fast.clone()]), credential("chosen", vec![slow("a"), slow("b")])]);
        assert_eq!(v.padding(&d).runs, 2);
        v.resize(&Limits { auth_verifications: 0, auth_wait: Duration::ZERO, ..Limits::default() });
        for username in ["app", "chosen", "nobody", "\u{7f}"] {
            assert_eq!(outcome(&v, &d, username, "wrong").await.err(), Some(NoLogin::Busy), "{username}");
        }
        let without = directory(vec![credential("app", vec![fast])]);
        for (username, cause) in [("app", NoLogin::WrongSecret), ("nobody", NoLogin::Unknown)] {
            assert_eq!(outcome(&v, &without, username, "wrong").await.err(), Some(cause));
        }
    }

    #[tokio::test]
    async fn a_login_stands_while_its_credential_is_what_it_was() {
        let v = verifier(&Limits::default());
        let (old, new) = (SecretHash::of(&secret("old")), SecretHash::of(&secret("new")));
        let base = credential("app", vec![new.clone(), old.clone()]);
        let login = outcome(&v, &directory(vec![base.clone()]), "app", "old").await.unwrap();
        let stands = |credentials: Vec<Credential>| {
            still_stands(&directory(credentials), &login, "192.0.2.1".parse().unwrap(), NOW)
        };
        assert!(stands(vec![base.clone()]));
        assert!(stands(vec![credential("app", vec![old.clone()])]));
        assert!(!stands(vec![]), "revoked");
        assert!(!stands(vec![credential("app", vec![new])]), "rotated away");
        let mut overlap_over = base.clone();
        overlap_over.secrets[1].expires = Some(NOW);
        assert!(!stands(vec![overlap_over]), "the overlap is over");
        let mut moved = base.clone();
        moved.tenant = TenantId::parse("other").unwrap();
        assert!(!stands(vec![moved]), "another tenant's");
        let mut bound = base.clone();
        bound.stream = Some(crate::mail::StreamId::parse("main").unwrap());
        assert!(!stands(vec![bound]), "bound to a stream since");
        let mut elsewhere = base;
        elsewhere.from_ip = vec!["198.51.100.0/24".parse().unwrap()];
        assert!(!stands(vec![elsewhere]), "not from here any more");
    }
}
