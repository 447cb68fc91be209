//! `send-test`: one message through the running relay, by SMTP, as a client would send it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use lettre::address::Envelope;
use lettre::message::Message;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::door::{Door, strange};
use super::output::Out;
use super::{Context, Failure, block_on, value};
use crate::adapters::clock::MachineClock;
use crate::admin::view::{Issued, ListenerView, Status, TenantView};
use crate::admin::{Request, Response};
use crate::config::Settings;
use crate::mail::{Mailbox, StreamId, TenantId};
use crate::time::Clock as _;

/// How long the credential of a test lives, should its removal fail.
const CREDENTIAL_TIME: Duration = Duration::from_secs(300);
/// How long the relay may take.
const SMTP_TIME: Duration = Duration::from_secs(90);

/// `send-test`.
#[derive(Args, Debug)]
pub(super) struct SendTest {
    /// As which tenant
    #[arg(long)]
    tenant: TenantId,
    /// To whom
    #[arg(long, value_parser = value::mailbox)]
    to: Mailbox,
    /// From whom [default: bulkhead-test at the tenant's first sender]
    #[arg(long, value_parser = value::mailbox)]
    from: Option<Mailbox>,
    /// On which stream [default: the tenant's default stream]
    #[arg(long)]
    stream: Option<StreamId>,
    /// The subject
    #[arg(long, default_value = "A test by bulkhead send-test")]
    subject: String,
}

impl SendTest {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        block_on(self.send(&settings, context.out))
    }

    async fn send(self, settings: &Settings, out: Out) -> Result<(), Failure> {
        let mut door = Door::open(settings, false).await?;
        if !door.is_relay() {
            return Err(Failure::because("no relay runs with this data folder; start it with `bulkhead serve`"));
        }
        let Response::Status(status) = door.ask(Request::Status).await? else { return Err(strange()) };
        let listener = listener(&status)?;
        let request = Request::TenantShow { tenant: self.tenant.clone() };
        let Response::Tenant(tenant) = door.ask(request).await? else { return Err(strange()) };
        let from = match self.from.clone() {
            Some(from) => from,
            None => sender(&tenant)?,
        };
        // A credential for this one message, so that nobody has to know a secret for a test.
        let request = Request::CredentialIssue {
            tenant: self.tenant.clone(),
            username: None,
            stream: self.stream.clone(),
            expires: Some(MachineClock.now().plus(CREDENTIAL_TIME)),
            from_ip: Vec::new(),
            reason: "send-test".into(),
        };
        let Response::Issued(issued) = door.ask(request).await? else { return Err(strange()) };
        let sent = deliver(&listener, &issued, &from, &self.to, &self.subject).await;
        let request =
            Request::CredentialRevoke { username: issued.credential.username.clone(), reason: "send-test".into() };
        let revoked = door.ask(request).await;
        let reply = sent?;
        if out.json {
            out.json(&serde_json::json!({"listener": listener.address, "from": from.to_string(), "reply": reply}))?;
        } else {
            out.line(format!("{} ({}) from {from}: {reply}", listener.address, listener.tls));
        }
        revoked?;
        Ok(())
    }
}

/// A listener that a client on this machine can use.
fn listener(status: &Status) -> Result<ListenerView, Failure> {
    status.listeners.iter().find(|listener| !listener.proxy_protocol).cloned().ok_or_else(|| {
        Failure::because("every listener of the relay takes connections with a PROXY header only; add one without")
    })
}

/// An address the tenant may send as.
fn sender(tenant: &TenantView) -> Result<Mailbox, Failure> {
    let first = tenant
        .senders
        .first()
        .ok_or_else(|| Failure::because(format!("tenant {} may send as nobody; give it senders", tenant.id)))?;
    let text = if first.contains('@') { first.clone() } else { format!("bulkhead-test@{first}") };
    value::mailbox(&text).map_err(Failure::because)
}

/// Sends it; the reply, or why there is none.
async fn deliver(
    listener: &ListenerView,
    issued: &Issued,
    from: &Mailbox,
    to: &Mailbox,
    subject: &str,
) -> Result<String, Failure> {
    let mut address: SocketAddr = listener.address.parse()?;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let host = address.ip().to_string();
    // This machine's own listener, whose address the relay itself told over a socket that is ours
    // alone: its certificate has another name, and nobody stands between.
    let parameters = || TlsParameters::builder(host.clone()).dangerous_accept_invalid_certs(true).build();
    let tls = match listener.tls.as_str() {
        "starttls" => Tls::Required(parameters()?),
        "implicit" => Tls::Wrapper(parameters()?),
        _ => Tls::None,
    };
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(address.port())
        .tls(tls)
        .timeout(Some(SMTP_TIME))
        .credentials(Credentials::new(issued.credential.username.to_string(), issued.secret.0.clone()))
        .build();
    let message = Message::builder()
        .from(from.to_string().parse()?)
        .to(to.to_string().parse()?)
        .subject(subject)
        .body("This message was sent by `bulkhead send-test`.\r\n".to_owned())?;
    let envelope = Envelope::new(Some(from.to_string().parse()?), vec![to.to_string().parse()?])?;
    match transport.send_raw(&envelope, &message.formatted()).await {
        Ok(response) => Ok(format!("{} {}", response.code(), response.message().collect::<Vec<_>>().join(" "))),
        Err(error) => Err(Failure::because(error)),
    }
}
