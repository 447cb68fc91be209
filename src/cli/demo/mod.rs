//! `demo`: what Bulkhead is for, on this machine alone, in under a minute.
//!
//! Three tenants share one SES account: atlas, who keeps its lists clean, bargain, who buys them and is
//! only watched so far, and comet, who throws a stale one and is restrained.
//! The sandbox stands in for SES; relay, TLS, AUTH, SendEmail, SQS and the store are the real ones.
//!
//! Promises: every sentence it prints about what happened is checked against what the sandbox was
//! sent and what the relay answered; if any did not happen, it says which and exits 1. It touches
//! no file but its own throw-away folder, and no network but loopback.

mod client;
mod letter;
mod story;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::door::strange;
use super::output::{self, Out};
use super::serve::{Behind, Scratch, loopback, made_certificate, not_built, signals, start_log, write_ca};
use super::{Context, Failure};
use crate::adapters::clock::{MachineClock, MachineRandom};
use crate::adapters::log::Output;
use crate::adapters::tls::CaPem;
use crate::admin::view::Issued;
use crate::admin::{Desk, Metrics, Request, Response, perform};
use crate::app::{House, Surroundings};
use crate::config::{self, Settings, Tls};
use crate::journal::Addresses;
use crate::mail::{ConfigurationSet, Mailbox, StreamId};
use crate::sandbox;

/// Longest time for the whole story; it takes a few seconds.
const TIME: Duration = Duration::from_secs(55);

/// `demo`.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Leave it running, and print commands to try it with
    #[arg(long)]
    keep: bool,
    /// How many addresses the careless tenant's list has
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(10..=2000))]
    messages: u16,
}

/// The tenants, as a tenants file would have them. bargain's standing is only told of, so that its list
/// can be followed to the end.
const TENANTS: &str = r#"
[[tenant]]
id = "atlas"
senders = ["atlas.example"]
default_stream = "transactional"
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "atlas-transactional"
suppress_on = ["bounce"]
[[tenant.stream]]
id = "marketing"
kind = "marketing"
configuration_set = "atlas-marketing"
suppress_on = ["bounce", "complaint"]

[[tenant]]
id = "bargain"
senders = ["bargain.example"]
default_stream = "transactional"
enforce = false
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "bargain-transactional"
suppress_on = ["bounce"]
[[tenant.stream]]
id = "marketing"
kind = "marketing"
configuration_set = "bargain-marketing"
suppress_on = ["bounce", "complaint"]
exposure = false

[[tenant]]
id = "comet"
contact = "ops@comet.example"
senders = ["comet.example"]
default_stream = "transactional"
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "comet-transactional"
[[tenant.stream]]
id = "marketing"
kind = "marketing"
configuration_set = "comet-marketing"
"#;

/// The configuration set of the relay's own mail.
const NOTICES: &str = "relay-notices";

/// The house as the story needs it.
struct Stage {
    desk: Arc<Desk>,
    messages: Arc<sandbox::inbox::Inbox>,
    faults: Arc<sandbox::fault::Faults>,
    submission: std::net::SocketAddr,
    implicit: std::net::SocketAddr,
    ca: CaPem,
}

impl Demo {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let mut scratch = Scratch::make()?;
        let log = scratch.path().join("relay.log");
        let mut settings = config::load(None, std::iter::empty()).map_err(Failure::Config)?;
        settings.data_dir = scratch.path().join("data");
        settings.listeners = vec![loopback(0, Tls::Starttls), loopback(0, Tls::Implicit)];
        settings.admin.address.set_port(0);
        settings.tenants_file = None;
        settings.notify.from = Some(Mailbox::parse(b"postmaster@relay.example")?);
        settings.notify.configuration_set = Some(ConfigurationSet::parse(NOTICES)?);
        // Nobody in this story is real.
        settings.log.recipients = Addresses::Full;
        start_log(context, &settings, Output::to(File::create(&log)?))?;
        let out = context.out;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.play(settings, &mut scratch, out));
        runtime.shutdown_timeout(Duration::from_secs(1));
        if outcome.is_err() {
            scratch.keep();
            out.note(format!("The relay's log is in {}", log.display()));
        }
        outcome
    }

    async fn play(&self, mut settings: Settings, scratch: &mut Scratch, out: Out) -> Result<(), Failure> {
        let behind = Behind::start(sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom))).await?;
        let credentials = behind.take_over(&mut settings);
        let (certificates, ca) = made_certificate(&settings.hostname)?;
        let (declared, _) = config::read_tenants("the demo's tenants", TENANTS).map_err(Failure::Config)?;
        let surroundings = Surroundings {
            credentials,
            certificates: Some(certificates),
            tenants: Some(declared),
            metrics: Metrics::install()?,
            source: None,
        };
        let house = House::build(settings.clone(), surroundings).await.map_err(not_built)?;
        let [submission, implicit] = house.addresses().try_into().map_err(|_| Failure::because("no listeners"))?;
        let (messages, faults) = (behind.messages.clone(), behind.faults.clone());
        let stage = Stage { desk: house.desk(), messages, faults, submission, implicit, ca };
        let (stop, (interrupted, _reload)) = (CancellationToken::new(), signals()?);
        let (_ask, reload) = mpsc::channel(1);
        let house = tokio::spawn(house.run(stop.clone(), reload));

        let told = tokio::select! {
            told = tokio::time::timeout(TIME, story::tell(&stage, usize::from(self.messages), out)) => {
                told.unwrap_or_else(|_| Err(Failure::because(format!("the demo took longer than {TIME:?}"))))
            }
            () = interrupted.cancelled() => Err(Failure::because("interrupted")),
        };
        if told.is_ok() && self.keep {
            let ca = write_ca(&settings.data_dir, &stage.ca)?;
            print_commands(&stage, &behind, &settings, &ca).await?;
            out.note(format!(
                "\nIt runs until Ctrl-C. The relay's log: {}",
                scratch.path().join("relay.log").display()
            ));
            interrupted.cancelled().await;
        }
        stop.cancel();
        // How it ended is in the log, and nobody's mail hangs on it.
        let _ = house.await;
        behind.stop().await;
        told
    }
}

impl Stage {
    /// A credential for `tenant`, bound to `stream` if there is one.
    async fn credential(&self, tenant: &str, stream: Option<&str>) -> Result<Issued, Failure> {
        let request = Request::CredentialIssue {
            tenant: tenant.parse()?,
            username: None,
            stream: stream.map(str::parse::<StreamId>).transpose()?,
            expires: None,
            from_ip: Vec::new(),
            reason: "the demo".into(),
        };
        match perform(&self.desk, request, "demo").await? {
            Response::Issued(issued) => Ok(issued),
            _ => Err(strange()),
        }
    }
}

/// Commands to try the running demo with.
async fn print_commands(
    stage: &Stage,
    behind: &Behind,
    settings: &Settings,
    ca: &std::path::Path,
) -> Result<(), Failure> {
    let Issued { credential, secret, .. } = stage.credential("bargain", None).await?;
    let (user, secret, ca) = (credential.username, secret.0, ca.display());
    let (host, port, tls_port) = (stage.submission.ip(), stage.submission.port(), stage.implicit.port());
    let (url, data) = (&behind.url, settings.data_dir.display());
    let text = format!(
        r#"
Try it. bargain's mail to whatever@bounce.test bounces, to whatever@complaint.test is called spam; the second
message to the same address hears 550.

curl:
  printf 'From: me@bargain.example\r\nTo: you@bounce.test\r\nSubject: hello\r\n\r\nhello\r\n' |
    curl --ssl-reqd --cacert {ca} --user {user}:{secret} \
      --mail-from me@bargain.example --mail-rcpt you@bounce.test --upload-file - smtp://{host}:{port}

swaks:
  swaks --server {host}:{port} --tls --tls-ca-path {ca} --auth PLAIN \
    --auth-user {user} --auth-password {secret} --from me@bargain.example --to you@bounce.test

Python:
python3 - <<'END'
import smtplib, ssl
with smtplib.SMTP_SSL("{host}", {tls_port}, context=ssl.create_default_context(cafile="{ca}")) as relay:
    relay.login("{user}", "{secret}")
    relay.sendmail("me@bargain.example", ["you@complaint.test"], "From: me@bargain.example\r\nSubject: hello\r\n\r\nhello\r\n")
END

What SES got:
  curl {url}/sandbox/messages
Commands to the relay:
  BULKHEAD_DATA_DIR={data} bulkhead tenant show bargain
  BULKHEAD_DATA_DIR={data} bulkhead suppression list bargain
"#
    );
    output::put(&text);
    Ok(())
}
