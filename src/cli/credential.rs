//! `credential …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::door::{Door, ask, strange};
use super::output::{Out, or_dash};
use super::{Context, Failure, block_on, value};
use crate::adapters::clock::MachineRandom;
use crate::admin::command::PAGE;
use crate::admin::view::{CredentialView, Issued};
use crate::admin::{Request, Response};
use crate::config::Settings;
use crate::mail::{StreamId, TenantId, Username};
use crate::store::credential::{Origin, SecretHash, new_secret};
use crate::time::Timestamp;

/// Credentials.
#[derive(Subcommand, Debug)]
pub(super) enum Credential {
    /// Make a credential with a new secret, which is shown this once
    Issue(Issue),
    /// List credentials, without their secrets
    List {
        /// Only this tenant's
        tenant: Option<TenantId>,
    },
    /// End a credential at once
    Revoke {
        /// Which
        username: Username,
        /// Why; for the log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Put a credential on hold: what it sends is deferred with 451 until it is released
    Hold {
        /// Which
        username: Username,
        /// Why; its clients hear it
        #[arg(long)]
        reason: String,
    },
    /// End the hold on a credential, by hand or by the relay itself
    Release {
        /// Which
        username: Username,
        /// Why; for the log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Give a credential a new secret, which is shown this once; the old one lives on for a while
    Rotate {
        /// Which
        username: Username,
        /// How long the old secret lives on; 0s ends it now
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = value::duration)]
        overlap: Duration,
        /// Why; for the log
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// `credential issue`.
#[derive(Args, Debug)]
pub(super) struct Issue {
    /// Whose; not needed with --print-hash
    #[arg(required_unless_present = "print_hash")]
    tenant: Option<TenantId>,
    /// What the client logs in as [default: the tenant's name and six characters]
    #[arg(long)]
    username: Option<Username>,
    /// Bind it to this stream
    #[arg(long)]
    stream: Option<StreamId>,
    /// When it ends: 30d, or 2027-01-01 [default: never]
    #[arg(long, value_name = "WHEN", value_parser = value::moment)]
    expires: Option<Timestamp>,
    /// Network it may be used from, as 192.0.2.0/24; may be given several times [default: any]
    #[arg(long, value_name = "CIDR")]
    from_ip: Vec<IpNet>,
    /// Only make a secret and its hash for a tenants file; nothing is stored
    #[arg(long, conflicts_with_all = ["username", "stream", "expires", "from_ip"])]
    print_hash: bool,
    /// Why; for the log
    #[arg(long, default_value = "")]
    reason: String,
}

impl Credential {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let out = context.out;
        match self {
            Self::Issue(Issue { print_hash: true, .. }) => print_hash(out),
            Self::Issue(Issue { tenant: None, .. }) => Err(Failure::Usage("name a tenant".into())),
            Self::Issue(Issue { tenant: Some(tenant), username, stream, expires, from_ip, reason, .. }) => {
                issued(context, Request::CredentialIssue { tenant, username, stream, expires, from_ip, reason })
            }
            Self::List { tenant } => {
                let settings = context.settings()?;
                block_on(list(&settings, tenant, out))
            }
            Self::Revoke { username, reason } => {
                let settings = context.settings()?;
                let answer = block_on(ask(&settings, Request::CredentialRevoke { username, reason }))?;
                let Response::Revoked(revoked) = answer else { return Err(strange()) };
                warn(revoked.warning.as_deref(), out);
                if out.json {
                    return Ok(out.json(&revoked)?);
                }
                let credential = revoked.credential;
                out.line(format!("{} of tenant {} is revoked", credential.username, credential.tenant));
                Ok(())
            }
            Self::Hold { username, reason } => held(context, Request::CredentialHold { username, reason }),
            Self::Release { username, reason } => held(context, Request::CredentialRelease { username, reason }),
            Self::Rotate { username, overlap, reason } => {
                issued(context, Request::CredentialRotate { username, overlap_seconds: overlap.as_secs(), reason })
            }
        }
    }
}

fn held(context: &Context, request: Request) -> Result<(), Failure> {
    let settings = context.settings()?;
    let Response::Credential(credential) = block_on(ask(&settings, request))? else { return Err(strange()) };
    if context.out.json {
        return Ok(context.out.json(&credential)?);
    }
    let (username, tenant) = (&credential.username, &credential.tenant);
    context.out.line(match &credential.hold {
        Some(hold) => format!("{username} of tenant {tenant} is on hold since {}: {}", hold.at, hold.reason),
        None => format!("{username} of tenant {tenant} is not on hold"),
    });
    Ok(())
}

fn issued(context: &Context, request: Request) -> Result<(), Failure> {
    let settings = context.settings()?;
    let Response::Issued(issued) = block_on(ask(&settings, request))? else { return Err(strange()) };
    warn(issued.warning.as_deref(), context.out);
    show(&issued, context.out)
}

fn show(issued: &Issued, out: Out) -> Result<(), Failure> {
    if out.json {
        return Ok(out.json(issued)?);
    }
    let credential = &issued.credential;
    out.pairs(&[
        ("username", credential.username.to_string()),
        ("secret", issued.secret.0.clone()),
        ("tenant", credential.tenant.to_string()),
        ("stream", credential.stream.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("from", credential.from_ip.join(", ")),
        ("expires", credential.expires.clone().unwrap_or_default()),
        ("old secret", issued.old_secret_ends.as_ref().map(|end| format!("lives until {end}")).unwrap_or_default()),
    ]);
    out.note("The secret is shown this once; only its hash is kept.");
    Ok(())
}

fn warn(warning: Option<&str>, out: Out) {
    if let Some(warning) = warning {
        out.note(format!("warning: {warning}"));
    }
}

fn print_hash(out: Out) -> Result<(), Failure> {
    let secret = new_secret(&MachineRandom);
    let hash = SecretHash::of(&secret).to_string();
    let secret = String::from_utf8_lossy(secret.expose());
    if out.json {
        return Ok(out.json(&serde_json::json!({"secret": secret, "secret_hash": hash}))?);
    }
    out.pairs(&[("secret", secret.into_owned()), ("secret_hash", hash)]);
    out.note("Give the secret to the client and put secret_hash into the tenants file; neither is stored here.");
    Ok(())
}

async fn list(settings: &Settings, tenant: Option<TenantId>, out: Out) -> Result<(), Failure> {
    let mut door = Door::open(settings, false).await?;
    let mut all: Vec<CredentialView> = Vec::new();
    loop {
        let after = all.last().map(|one| one.username.clone());
        let request = Request::CredentialList { tenant: tenant.clone(), after };
        let Response::Credentials(page) = door.ask(request).await? else { return Err(strange()) };
        let more = page.len() == PAGE;
        all.extend(page);
        if !more {
            break;
        }
    }
    if out.json {
        return Ok(out.json(&all)?);
    }
    if all.is_empty() {
        out.line("no credentials; `bulkhead credential issue TENANT` makes one");
        return Ok(());
    }
    table(&all, out);
    Ok(())
}

/// Credentials as a table.
pub(super) fn table(credentials: &[CredentialView], out: Out) {
    let rows: Vec<_> = credentials
        .iter()
        .map(|one| {
            let secrets: Vec<String> = one
                .secrets
                .iter()
                .map(|secret| match &secret.expires {
                    Some(end) => format!("{} until {end}", secret.kind),
                    None => secret.kind.clone(),
                })
                .collect();
            let expires = match (&one.expires, one.expired) {
                (Some(at), true) => format!("expired {at}"),
                (Some(at), false) => at.clone(),
                (None, _) => "-".into(),
            };
            vec![
                one.username.to_string(),
                one.tenant.to_string(),
                or_dash(one.stream.as_ref().map(ToString::to_string).unwrap_or_default()),
                or_dash(secrets.join(", ")),
                or_dash(one.from_ip.join(", ")),
                expires,
                match one.origin {
                    Origin::File => "file".into(),
                    Origin::Issued => "issued".into(),
                },
                or_dash(one.hold.as_ref().map(|hold| format!("since {}", hold.at)).unwrap_or_default()),
            ]
        })
        .collect();
    out.table(&["USERNAME", "TENANT", "STREAM", "SECRETS", "FROM", "EXPIRES", "ORIGIN", "ON HOLD"], &rows);
}
