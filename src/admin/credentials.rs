//! Commands on credentials.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::announce::{self, Announcement, Kind, Severity};
use crate::mail::{StreamId, TenantId, Username};
use crate::policy::tenant::Pause;
use crate::secret::Random;
use crate::store::audit::RELAY;
use crate::store::credential::{Credential, Origin, SECRETS, SecretHash, StoredSecret, new_secret};
use crate::store::directory::Directory;
use crate::store::holds::{self, Hold};
use crate::store::tenants::{put_credential, put_new_credential, remove_credential};
use crate::store::{Batch, CommitError, If};
use crate::time::Timestamp;

use super::command::{Changed, Desk, PAGE, Response, nearest, reason};
use super::error::CommandError;
use super::tenants::{check_stream, find};
use super::view::{CredentialView, Issued, Revoked, ShownOnce};

/// How often a username is thought up before it is given up.
const TRIES: usize = 8;

/// A credential to be made.
pub(super) struct Wish {
    pub(super) tenant: TenantId,
    pub(super) username: Option<Username>,
    pub(super) stream: Option<StreamId>,
    pub(super) expires: Option<Timestamp>,
    pub(super) from_ip: Vec<IpNet>,
}

pub(super) async fn issue(desk: &Desk, wish: Wish, why: &str, actor: &str) -> Result<Response, CommandError> {
    let now = desk.clock.now();
    let directory = desk.directory.load_full();
    check_stream(find(&directory, &wish.tenant)?, wish.stream.as_ref())?;
    if let Some(at) = wish.expires.filter(|at| *at <= now) {
        return Err(CommandError::InThePast { what: "the credential".into(), at: at.rfc3339() });
    }
    let username = match wish.username {
        Some(username) => match directory.credential(&username) {
            Some(taken) => {
                return Err(CommandError::UsernameTaken {
                    username: username.to_string(),
                    tenant: taken.tenant.to_string(),
                });
            }
            None => username,
        },
        None => new_username(&wish.tenant, &directory, desk.random.as_ref()).ok_or(CommandError::Fault)?,
    };
    let secret = new_secret(desk.random.as_ref());
    let credential = Credential {
        username,
        tenant: wish.tenant,
        stream: wish.stream,
        secrets: vec![StoredSecret { hash: SecretHash::of(&secret), expires: None }],
        from_ip: wish.from_ip,
        expires: wish.expires,
        origin: Origin::Issued,
        created: now,
        actor: actor.into(),
    };
    // What cannot be read is made anew: nobody can log in with it as it is.
    let damaged = directory.credential_is_damaged(&credential.username);
    let condition = if damaged { If::Any } else { If::Absent };
    let change = Change { of: &credential, before: None, after: Some(&credential), what: "issue", why, actor };
    change
        .make(desk, async |trail| put_new_credential(desk.store.as_ref(), &credential, condition, trail).await)
        .await?;
    Ok(Response::Issued(Issued {
        credential: CredentialView::of(&credential, None, now),
        secret: ShownOnce(String::from_utf8_lossy(secret.expose()).into_owned()),
        old_secret_ends: None,
        warning: None,
    }))
}

pub(super) fn list(desk: &Desk, tenant: Option<&TenantId>, after: Option<&Username>) -> Result<Response, CommandError> {
    let directory = desk.directory.load();
    if let Some(tenant) = tenant {
        find(&directory, tenant)?;
    }
    let mut found: Vec<_> = directory
        .credentials()
        .filter(|credential| tenant.is_none_or(|tenant| credential.tenant == *tenant))
        .filter(|credential| after.is_none_or(|after| credential.username > *after))
        .collect();
    found.sort_by(|a, b| a.username.cmp(&b.username));
    let now = desk.clock.now();
    let view = |one: &Arc<Credential>| CredentialView::of(one, directory.hold(&one.username), now);
    Ok(Response::Credentials(found.into_iter().take(PAGE).map(view).collect()))
}

pub(super) async fn revoke(desk: &Desk, username: &Username, why: &str, actor: &str) -> Result<Response, CommandError> {
    let before = desk.directory.load_full();
    let credential = known(&before, username)?;
    let change = Change { of: &credential, before: Some(&credential), after: None, what: "revoke", why, actor };
    change.make(desk, async |trail| remove_credential(desk.store.as_ref(), username, trail).await).await?;
    Ok(Response::Revoked(Revoked {
        credential: CredentialView::of(&credential, before.hold(username), desk.clock.now()),
        warning: of_file(&credential).then(|| revoked_beside_the_file(username)),
    }))
}

pub(super) async fn rotate(
    desk: &Desk,
    username: &Username,
    overlap_seconds: u64,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let now = desk.clock.now();
    let ends = now.plus(Duration::from_secs(overlap_seconds));
    let directory = desk.directory.load_full();
    let before = known(&directory, username)?;
    let mut credential = before.clone();
    let secret = new_secret(desk.random.as_ref());
    // The newest that lives stays for the overlap; who had only the one before it has had their time.
    let old = credential.live_secrets(now).next().cloned();
    let old = old.filter(|_| overlap_seconds > 0).map(|mut old| {
        old.expires = Some(old.expires.map_or(ends, |already| already.min(ends)));
        old
    });
    let old_secret_ends = old.as_ref().and_then(|old| old.expires).map(Timestamp::rfc3339);
    credential.secrets = std::iter::once(StoredSecret { hash: SecretHash::of(&secret), expires: None })
        .chain(old)
        .take(SECRETS)
        .collect();
    let change =
        Change { of: &credential, before: Some(&before), after: Some(&credential), what: "rotate", why, actor };
    change.make(desk, async |trail| put_credential(desk.store.as_ref(), &credential, If::Any, trail).await).await?;
    Ok(Response::Issued(Issued {
        credential: CredentialView::of(&credential, directory.hold(username), now),
        secret: ShownOnce(String::from_utf8_lossy(secret.expose()).into_owned()),
        old_secret_ends,
        warning: rotation_warning(&directory, &credential, &SecretHash::of(&secret)),
    }))
}

/// A change of a credential: how it was, and how it is.
struct Change<'a> {
    of: &'a Credential,
    before: Option<&'a Credential>,
    after: Option<&'a Credential>,
    /// Which command, without `credential` and the name.
    what: &'a str,
    why: &'a str,
    actor: &'a str,
}

impl Change<'_> {
    /// Makes it with `commit`, which writes its trail as well, puts it in force and tells of it.
    async fn make(
        &self,
        desk: &Desk,
        commit: impl AsyncFnOnce(Batch) -> Result<(), CommitError>,
    ) -> Result<(), CommandError> {
        let now = desk.clock.now();
        let words = |credential: Option<&Credential>| credential.map(|one| shape(one, now)).unwrap_or_default();
        let command = format!("credential {} {}", self.what, self.of.username);
        let changed = Changed {
            tenant: Some(&self.of.tenant),
            stream: self.of.stream.as_ref(),
            reason: &reason(self.why, ""),
            before: &words(self.before),
            after: &words(self.after),
            ..Changed::by(self.actor, &command)
        };
        commit(desk.batch_of(&changed)).await?;
        desk.reload().await?;
        changed.tell();
        Ok(())
    }
}

/// A credential for the audit trail, but for its secrets, of which there is only the number.
fn shape(credential: &Credential, now: Timestamp) -> String {
    let mut words = vec![format!("live secrets {}", credential.live_secrets(now).count())];
    words.extend(credential.expires.map(|at| format!("until {}", at.rfc3339())));
    if !credential.from_ip.is_empty() {
        let networks: Vec<String> = credential.from_ip.iter().map(ToString::to_string).collect();
        words.push(format!("from {}", networks.join(" ")));
    }
    words.join(", ")
}

/// How a credential is, for the audit trail.
const HELD: &str = "on hold";
const FREE: &str = "not on hold";

/// Puts a credential on hold: what it sends is deferred from the next MAIL on. A hold that is there
/// stays as it is.
pub(super) async fn hold(desk: &Desk, username: &Username, why: &str, actor: &str) -> Result<Response, CommandError> {
    let directory = desk.directory.load_full();
    let credential = known(&directory, username)?;
    if directory.hold(username).is_none() {
        let since = Pause { at: desk.clock.now(), actor: actor.into(), reason: reason(why, "no reason was given") };
        let hold = Hold { tenant: credential.tenant.clone(), since, released: None };
        let command = format!("credential hold {username}");
        let changed = held(&credential, HELD, &command, &hold.since.reason, actor);
        let mut batch = desk.batch_of(&changed);
        holds::write(&mut batch, username, &hold);
        desk.store.commit(batch).await?;
        desk.reload().await?;
        changed.tell();
    }
    let directory = desk.directory.load();
    Ok(Response::Credential(CredentialView::of(&credential, directory.hold(username), desk.clock.now())))
}

/// Ends the hold on a credential. What was behind it stays behind, so that the relay does not at once
/// put it on hold again by itself. Whoever was told that the relay put it on hold is told of the end.
pub(super) async fn release(
    desk: &Desk,
    username: &Username,
    why: &str,
    actor: &str,
) -> Result<Response, CommandError> {
    let directory = desk.directory.load_full();
    let credential = known(&directory, username)?;
    let standing = directory.last_hold(username).filter(|hold| hold.standing().is_some());
    let Some(hold) = standing else {
        return Err(CommandError::CredentialNotHeld { username: username.to_string() });
    };
    let released = Pause { at: desk.clock.now(), actor: actor.into(), reason: reason(why, "") };
    let command = format!("credential release {username}");
    let hold = Hold { released: Some(released.clone()), ..hold.clone() };
    let changed = held(&credential, FREE, &command, &released.reason, actor);
    let mut batch = desk.batch_of(&changed);
    holds::write(&mut batch, username, &hold);
    let announcement = (hold.since.actor == RELAY).then(|| free_again(desk, &credential, &released));
    announcement.iter().for_each(|announcement| announce::write(&mut batch, announcement));
    desk.store.commit(batch).await?;
    desk.reload().await?;
    announcement.iter().for_each(|announcement| desk.announce(announcement));
    changed.tell();
    Ok(Response::Credential(CredentialView::of(&credential, None, desk.clock.now())))
}

/// That a credential which the relay had put on hold by itself may send again.
fn free_again(desk: &Desk, credential: &Credential, released: &Pause) -> Announcement {
    let username = &credential.username;
    let headline = format!("Credential {username} is no longer on hold");
    let (kind, severity) = (Kind::CredentialReleased, Severity::Notice);
    let mut announcement = Announcement::new(released.at, &*desk.random, kind, severity, &headline);
    announcement.tenant = Some(credential.tenant.clone());
    announcement.credential = Some(username.clone());
    let why = if released.reason.is_empty() { "no reason was given" } else { &released.reason };
    announcement.figures = vec![("released by".into(), released.actor.clone()), ("reason".into(), why.to_owned())];
    announcement.still_works = vec!["All of the tenant's mail, this credential's too".into()];
    announcement
}

/// A hold, or its end.
fn held<'a>(credential: &'a Credential, after: &'a str, command: &'a str, why: &'a str, actor: &'a str) -> Changed<'a> {
    Changed {
        tenant: Some(&credential.tenant),
        stream: credential.stream.as_ref(),
        reason: why,
        before: if after == HELD { FREE } else { HELD },
        after,
        ..Changed::by(actor, command)
    }
}

/// What a rotation leaves to be done.
fn rotation_warning(directory: &Directory, credential: &Credential, hash: &SecretHash) -> Option<String> {
    let username = &credential.username;
    let file = of_file(credential).then(|| rotated_beside_the_file(username, hash));
    let held = directory.hold(username).map(|_| {
        format!(
            "{username} is on hold, and a new secret does not change that: `bulkhead credential release {username}` ends it, once the old secret is of no use to whoever had it"
        )
    });
    match (file, held) {
        (Some(file), Some(held)) => Some(format!("{file}; {held}")),
        (one, other) => one.or(other),
    }
}

/// Whether the tenants file declares it, and so puts it back whenever it is applied.
fn of_file(credential: &Credential) -> bool {
    match credential.origin {
        Origin::File => true,
        Origin::Issued => false,
    }
}

fn rotated_beside_the_file(username: &Username, hash: &SecretHash) -> String {
    format!(
        "{username} comes from the tenants file: its next apply, at a start or reload too, brings the old secret back and ends the new one; \
         put its hash into the file, secret_hash = \"{hash}\""
    )
}

fn revoked_beside_the_file(username: &Username) -> String {
    format!(
        "{username} comes from the tenants file: its next apply, at a start or reload too, brings the credential back; \
         remove it from the file"
    )
}

fn known(directory: &Directory, username: &Username) -> Result<Credential, CommandError> {
    match directory.credential(username) {
        Some(credential) => Ok(Credential::clone(credential)),
        None => Err(CommandError::NoCredential {
            username: username.to_string(),
            near: nearest(username.as_str(), directory.credentials().map(|one| one.username.as_str())),
        }),
    }
}

/// `acme-k3x9f2`: six characters that cannot be mistaken for one another; not a secret.
fn new_username(tenant: &TenantId, directory: &Directory, random: &dyn Random) -> Option<Username> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    // A username has 64 characters at most, and a tenant's name may have as many.
    let stem: String = tenant.as_str().chars().take(57).collect();
    (0..TRIES)
        .filter_map(|_| {
            let mut octets = [0; 6];
            random.fill(&mut octets);
            let tail: String = octets
                .iter()
                .filter_map(|octet| LETTERS.get(usize::from(octet % 32)))
                .map(|c| char::from(*c))
                .collect();
            Username::parse(&format!("{stem}-{tail}")).ok()
        })
        .find(|username| directory.credential(username).is_none())
}
