//! `serve`, `sandbox`, `status` and `health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::door::{Door, strange};
use super::output::Out;
use super::{Context, Failure, block_on};
use crate::adapters::clock::{MachineClock, MachineRandom};
use crate::adapters::log::{self, Output};
use crate::adapters::ses::Credentials;
use crate::adapters::tls::{CaPem, Certificates, self_signed};
use crate::admin::{Metrics, Request, Response, perform};
use crate::app::{BuildError, Ending, House, RUNTIME_END, Source, Surroundings};
use crate::config::{self, Format, Listener, Settings, Tls};
use crate::journal;
use crate::sandbox::{self, Sandbox};
use crate::secret::{Random as _, Secret};
use crate::store::tenants::Declared;

/// Where the sandbox listens by itself.
const SANDBOX_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8026);
/// Where `serve --sandbox` listens when no settings say.
const SANDBOX_LISTENERS: [(u16, Tls); 2] = [(2587, Tls::Starttls), (2465, Tls::Implicit)];
/// How long `health` waits.
const HEALTH_TIME: Duration = Duration::from_secs(5);
/// Most of an answer that `health` reads.
const HEALTH_BYTES: u64 = 64 * 1024;

/// `serve`.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Put the local SES and SQS behind the relay; needs no settings, no certificate and no AWS
    #[arg(long)]
    sandbox: bool,
}

/// `sandbox`.
#[derive(Args, Debug)]
pub(super) struct SandboxOnly {
    /// Where it listens; loopback only, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value_t = SANDBOX_ADDRESS)]
    listen: SocketAddr,
}

/// `health`.
#[derive(Args, Debug)]
pub(super) struct HealthCheck {
    /// Ask /readyz instead: whether it takes mail
    #[arg(long)]
    ready: bool,
    /// Whom to ask [default: admin.address]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
}

impl Serve {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        start_log(context, &settings, Output::stdout())?;
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.worker_threads(processors))
            .enable_all()
            .build()?;
        let ending = runtime.block_on(async {
            if self.sandbox { serve_sandbox(context, settings).await } else { serve(context, settings).await }
        });
        // Idle connections to AWS and the like need no farewell.
        runtime.shutdown_timeout(RUNTIME_END);
        match ending? {
            Ending::Stopped => Ok(()),
            Ending::StoreFailed => Err(Failure::because("the store has stopped; the log's store_failed line says why")),
        }
    }
}

/// Sets the log up as settings and command line say.
pub(super) fn start_log(context: &Context, settings: &Settings, output: Output) -> Result<(), Failure> {
    journal::show_addresses(settings.log.recipients);
    let format = context.log_format.unwrap_or(match settings.log.format {
        Format::Json => log::Format::Json,
        Format::Text => log::Format::Text,
    });
    log::install(format, &settings.log.level, output, Arc::new(MachineClock))
        .map_err(|error| Failure::Setting(error.to_string()))
}

async fn serve(context: &Context, settings: Settings) -> Result<Ending, Failure> {
    let surroundings = Surroundings {
        credentials: Credentials::Chain,
        certificates: None,
        tenants: None,
        metrics: Metrics::install()?,
        source: Some(source(context, settings.clone())),
    };
    for note in settings.notes() {
        journal::setting_noted(&note.to_string());
    }
    // Before anything is bound, so that no signal is lost.
    let (stop, reload) = signals()?;
    let house = House::build(settings, surroundings).await.map_err(not_built)?;
    Ok(house.run(stop, reload).await)
}

/// Where this process's settings, which were `first`, are read again.
fn source(context: &Context, first: Settings) -> Source {
    let file = context.config_file().map(Path::to_owned);
    let name = file.as_deref().map_or_else(|| "defaults".into(), |file| file.display().to_string());
    Source { name, first, read: Arc::new(move || config::load(file.as_deref(), super::variables())) }
}

/// What SIGTERM and SIGINT stop, and what SIGHUP reloads. A second SIGTERM or SIGINT ends the
/// process at once.
pub(super) fn signals() -> Result<(CancellationToken, mpsc::Receiver<()>), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    // One reload waits at most: a second one would read the same files.
    let (ask, reload) = mpsc::channel(1);
    let stopping = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    let _ = ask.try_send(());
                    continue;
                }
            }
            if stopping.is_cancelled() {
                std::process::exit(1);
            }
            stopping.cancel();
        }
    });
    Ok((stop, reload))
}

pub(super) fn not_built(error: BuildError) -> Failure {
    match error {
        BuildError::Tenants(problems) => Failure::Config(problems),
        other if other.is_configuration() => Failure::Setting(other.to_string()),
        other => Failure::because(other),
    }
}

/// A sandbox that runs, for a relay in the same process.
pub(super) struct Behind {
    pub(super) url: String,
    pub(super) messages: Arc<sandbox::inbox::Inbox>,
    pub(super) faults: Arc<sandbox::fault::Faults>,
    queue_url: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Behind {
    /// Starts it on a free loopback port.
    pub(super) async fn start(options: sandbox::Options) -> Result<Self, Failure> {
        let sandbox = Sandbox::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), options).await?;
        let stop = CancellationToken::new();
        Ok(Self {
            url: sandbox.url(),
            queue_url: sandbox.queue_url(),
            messages: sandbox.messages(),
            faults: sandbox.faults(),
            task: tokio::spawn(sandbox.run(stop.clone())),
            stop,
        })
    }

    /// Points `settings` at it, and gives the credentials it does not look at.
    pub(super) fn take_over(&self, settings: &mut Settings) -> Credentials {
        settings.aws.ses_endpoint_url = Some(self.url.clone());
        settings.aws.sqs_endpoint_url = Some(self.url.clone());
        settings.aws.region.get_or_insert_with(|| "eu-west-1".into());
        settings.events.queue_url = Some(self.queue_url.clone());
        Credentials::Static { access_key_id: "sandbox".into(), secret_access_key: Secret::new(b"sandbox".to_vec()) }
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // It has its own bound on how long that takes.
        let _ = self.task.await;
    }
}

/// A folder that goes when this value does, unless it is kept.
pub(super) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes it, for this user alone.
    pub(super) fn make() -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut octets = [0; 6];
        MachineRandom.fill(&mut octets);
        let name: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let path = std::env::temp_dir().join(format!("bulkhead-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, keep: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It stays when this value goes.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

async fn serve_sandbox(context: &Context, mut settings: Settings) -> Result<Ending, Failure> {
    let behind = Behind::start(sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom))).await?;
    let source = source(context, settings.clone());
    let credentials = behind.take_over(&mut settings);
    let given = context.config_file().is_some();
    let set = |prefix: &str| std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with(prefix));
    if !given && !set("BULKHEAD_LISTENER__") {
        settings.listeners = SANDBOX_LISTENERS.into_iter().map(|(port, tls)| loopback(port, tls)).collect();
    }
    let scratch = if given || set("BULKHEAD_DATA_DIR") { None } else { Some(Scratch::make()?) };
    if let Some(scratch) = &scratch {
        settings.data_dir = scratch.path().to_owned();
    }
    let has_certificate = settings.needs_certificate() && settings.certificate_problems().is_empty();
    let made = if has_certificate || !settings.needs_certificate() {
        None
    } else {
        Some(made_certificate(&settings.hostname)?)
    };
    let ca = made.as_ref().map(|(_, ca)| ca.clone());
    let surroundings = Surroundings {
        credentials,
        certificates: made.map(|(certificates, _)| certificates),
        tenants: None,
        metrics: Metrics::install()?,
        source: Some(source),
    };
    let (stop, reload) = signals()?;
    let house = House::build(settings.clone(), surroundings).await.map_err(not_built)?;
    let ca_file = match ca {
        Some(ca) => Some(write_ca(&settings.data_dir, &ca)?),
        None => None,
    };
    welcome(context.out, &house, &settings, &behind, ca_file.as_deref()).await?;
    let ending = house.run(stop, reload).await;
    behind.stop().await;
    Ok(ending)
}

/// A listener for this machine alone.
pub(super) fn loopback(port: u16, tls: Tls) -> Listener {
    Listener {
        address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        tls,
        allow_insecure: false,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
    }
}

/// A throw-away certificate in memory, and the CA that vouches for it.
pub(super) fn made_certificate(hostname: &str) -> Result<(Certificates, CaPem), Failure> {
    let (ca, certificate, key) = self_signed(&[hostname.to_owned()])?;
    Ok((Certificates::from_pem(&certificate, &key, Arc::new(MachineClock))?, ca))
}

/// Puts the CA's certificate where clients can be pointed at.
pub(super) fn write_ca(data_dir: &Path, ca: &CaPem) -> Result<PathBuf, Failure> {
    let file = data_dir.join("sandbox-ca.pem");
    std::fs::write(&file, &ca.0).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Says on standard error, so that the log stays whole, how to use a sandboxed relay. A store
/// without tenants gets one first.
async fn welcome(
    out: Out,
    house: &House,
    settings: &Settings,
    behind: &Behind,
    ca_file: Option<&Path>,
) -> Result<(), Failure> {
    let desk = house.desk();
    let mut lines = vec!["Bulkhead with the sandbox behind it: no mail leaves this machine.".to_owned(), String::new()];
    for (address, listener) in house.addresses().into_iter().zip(&settings.listeners) {
        let tls = match listener.tls {
            Tls::Starttls => "STARTTLS",
            Tls::Implicit => "implicit TLS",
            Tls::None => "no TLS",
        };
        lines.push(format!("  SMTP       {address} ({tls})"));
    }
    if let Some(file) = ca_file {
        lines.push(format!("  CA         {}", file.display()));
    }
    if desk.directory.load().tenants().next().is_none() {
        let (declared, _) = sandbox_tenant().map_err(Failure::Config)?;
        let request = Request::Apply { declared, source: "the sandbox".into(), dry_run: false, prune: false };
        perform(&desk, request, "bulkhead").await?;
        let request = Request::CredentialIssue {
            tenant: "sandbox".parse()?,
            username: None,
            stream: None,
            expires: None,
            from_ip: Vec::new(),
            reason: "first start of the sandbox".into(),
        };
        let Response::Issued(issued) = perform(&desk, request, "bulkhead").await? else { return Err(strange()) };
        lines.push(format!("  username   {}", issued.credential.username));
        lines.push(format!("  secret     {}  (shown this once)", issued.secret.0));
        lines.push("  tenant     sandbox, may send as example.com, example.net and example.org".into());
    }
    lines.push(format!("  messages   {}/sandbox/messages", behind.url));
    if let Some(admin) = house.admin_address() {
        lines.push(format!("  metrics    http://{admin}/metrics"));
    }
    lines.push(format!("  commands   BULKHEAD_DATA_DIR={} bulkhead tenant list", settings.data_dir.display()));
    lines.push(String::new());
    out.note(lines.join("\n"));
    Ok(())
}

fn sandbox_tenant() -> Result<(Declared, Vec<config::Note>), Vec<config::Problem>> {
    config::read_tenants(
        "the sandbox's tenant",
        r#"
[[tenant]]
id = "sandbox"
senders = ["example.com", "example.net", "example.org"]
default_stream = "transactional"
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "sandbox-transactional"
suppress_on = ["bounce"]
[[tenant.stream]]
id = "marketing"
kind = "marketing"
configuration_set = "sandbox-marketing"
suppress_on = ["bounce", "complaint"]
"#,
    )
}

impl SandboxOnly {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let out = context.out;
        block_on(async {
            let (stop, _reload) = signals()?;
            let options = sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom));
            let region = options.region.clone();
            let sandbox = Sandbox::bind(self.listen, options)
                .await
                .map_err(|error| Failure::because(format!("{}: {error}", self.listen)))?;
            let (url, queue) = (sandbox.url(), sandbox.queue_url());
            if out.json {
                // One line: the program that started us reads it while we go on.
                out.line(serde_json::json!({"url": url, "queue_url": queue, "region": region}).to_string());
            } else {
                out.line(format!("A local SES v2 and SQS at {url}. No mail leaves this machine.\n"));
                out.line(format!("  queue      {queue}"));
                out.line(format!("  messages   {url}/sandbox/messages\n"));
                out.line("For an AWS SDK:\n");
                for (name, value) in [
                    ("AWS_ENDPOINT_URL_SESV2", url.as_str()),
                    ("AWS_ENDPOINT_URL_SQS", &url),
                    ("AWS_REGION", &region),
                    ("AWS_ACCESS_KEY_ID", "sandbox"),
                    ("AWS_SECRET_ACCESS_KEY", "sandbox"),
                ] {
                    out.line(format!("  export {name}={value}"));
                }
            }
            sandbox.run(stop).await;
            Ok(())
        })
    }
}

/// `status`.
pub(super) fn status(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let out = context.out;
    block_on(async {
        let mut door = Door::open(&settings, false).await?;
        let is_relay = door.is_relay();
        let Response::Status(status) = door.ask(Request::Status).await? else { return Err(strange()) };
        if out.json {
            out.json(&status)?;
        } else {
            let listeners: Vec<String> =
                status.listeners.iter().map(|one| format!("{} ({})", one.address, one.tls)).collect();
            out.pairs(&[
                ("relay", if is_relay { "runs".into() } else { "does not run".into() }),
                ("version", status.version.clone()),
                ("process", status.pid.map(|pid| pid.to_string()).unwrap_or_default()),
                ("since", status.started.clone().unwrap_or_default()),
                ("takes mail", if status.ready { "yes".into() } else { format!("no: {}", status.reasons.join("; ")) }),
                ("listeners", listeners.join(", ")),
                ("admin", status.admin.clone().unwrap_or_default()),
                ("tenants", status.tenants.to_string()),
                ("credentials", status.credentials.to_string()),
            ]);
        }
        Ok(())
    })
}

impl HealthCheck {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let address = match self.address {
            Some(address) => address,
            None => context.settings()?.admin.address,
        };
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let answer = block_on(async {
            tokio::time::timeout(HEALTH_TIME, get(reachable(address), path))
                .await
                .map_err(|_| Failure::because(format!("{address} did not answer within {HEALTH_TIME:?}")))?
                .map_err(|error| Failure::because(format!("{address}: {error}")))
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let good = head.split(' ').nth(1) == Some("200");
        if good {
            context.out.line(body.trim());
            Ok(())
        } else {
            Err(Failure::because(format!("{address}{path}: {}", body.trim())))
        }
    }
}

/// Where to reach what listens on `address`: all addresses of this machine have loopback among them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(HEALTH_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
