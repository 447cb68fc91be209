//! Settings: what is meant by the file, the variables and the defaults.
//!
//! [`load`] reads all of it before anything is bound, and tells every problem at once: file, line,
//! key, what is wrong and the cure. What comes out has nothing optional that code needs: durations
//! are durations, addresses are addresses, and the settings fit each other.
//!
//! Order of rule: a variable `BULKHEAD_SECTION__KEY`, then the file, then the default. Variables
//! hold TOML values; text needs no quotes. A listener is named by its number from 0
//! (`BULKHEAD_LISTENER__0__ADDRESS`); the number after the last one adds a listener. Relative paths
//! start at the working directory.
//!
//! `config/bulkhead.toml` is [`default_file`], so the file and the code cannot part.
//!
//! What can go wrong: a file that cannot be read, that is not TOML (then its TOML faults are all
//! that is told), or that means nothing usable. Whether certificates are where the settings say is
//! [`Settings::certificate_problems`]'s to tell, since a sandbox needs none; and so with the webhook's
//! secret ([`Settings::webhook_signer`]).

mod check;
mod defaults;
mod difference;
mod file;
mod given;
mod groups;
mod limits;
mod problem;
mod setting;
mod tenants;
mod unknown;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use defaults::default_file;
pub use file::OTHER_VARIABLES;
pub use groups::{
    Admin, Audit, Aws, CertificateFiles, Events, Exposure, Format, LARGEST_MESSAGE_BYTES, Limits, Listener, Log,
    Notify, Outbox, Reputation, SesSync, Stolen, Store, Suppression, Tls, Watch,
};
pub use limits::{Tried, TriedTenant, load_limits, read_limits};
pub use problem::{Note, Place, Problem};
pub use tenants::{load_tenants, read_tenants};

use file::Document;
use problem::Fault;
use setting::Entry;

/// Everything that can be set.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Our name in the greeting, in EHLO and in trace fields.
    pub hostname: String,
    /// The store, the control socket.
    pub data_dir: PathBuf,
    /// What is applied at start and on SIGHUP; `None`: tenants are managed by commands alone.
    pub tenants_file: Option<PathBuf>,
    /// Whose counters these are, where several nodes share a store.
    pub node: String,
    /// Threads that serve connections; 0: half of the machine's processors.
    pub workers: usize,
    /// Where clients connect; one at least.
    pub listeners: Vec<Listener>,
    /// The listeners' certificate.
    pub tls: CertificateFiles,
    /// Every bound of the relay.
    pub limits: Limits,
    /// SES and SQS.
    pub aws: Aws,
    /// Messages that are held until SES takes them.
    pub outbox: Outbox,
    /// The relay's own mail, and its webhook.
    pub notify: Notify,
    /// The local store.
    pub store: Store,
    /// The audit trail.
    pub audit: Audit,
    /// Where SES's events come from.
    pub events: Events,
    /// When standing changes.
    pub reputation: Reputation,
    /// What is watched for.
    pub watch: Watch,
    /// What may be out unheard of.
    pub exposure: Exposure,
    /// Tenants' suppression lists.
    pub suppression: Suppression,
    /// Health and metrics.
    pub admin: Admin,
    /// The journal.
    pub log: Log,
    places: Places,
}

/// Where each key was typed, for later findings about it. Equal to any other: it is no setting.
#[derive(Clone, Debug, Default)]
struct Places {
    file: String,
    keys: BTreeMap<String, Place>,
}

/// Reads the settings: defaults, `file` over them, the `BULKHEAD_…` variables of `env` over both.
/// Binds nothing, and reads no other file.
pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Settings, Vec<Problem>> {
    let variables: Vec<(String, String)> = env.collect();
    let text = file.map(file::text_of).transpose()?;
    let document = match (file, &text) {
        (Some(path), Some(text)) => Document::parse(&path.display().to_string(), text)?,
        (_, _) => Document::empty(),
    };
    read(document.with_variables(&variables)).map(|(settings, _)| settings)
}

/// Settings from a document, and the catalogue of all there are.
fn read(document: Document<'_>) -> Result<(Settings, Vec<Entry>), Vec<Problem>> {
    let file = document.top().place().file;
    let settings = Settings::of(&document);
    if let Some(settings) = &settings {
        check::together(settings, &document);
    }
    let reading = document.end()?;
    let Some(settings) = settings else {
        // A hole without a problem would be a fault of the reading itself.
        let fault = Fault::new("was read without a problem and yet not in whole", "report this as a fault of Bulkhead");
        return Err(vec![Place { file, line: None }.problem("", fault)]);
    };
    let places = Places { file, keys: reading.places };
    Ok((Settings { places, ..settings }, reading.entries))
}

impl Settings {
    /// `None` after a fault that leaves a hole; the document has its problem.
    fn of(document: &Document<'_>) -> Option<Self> {
        let mut top = document.top();
        let hostname = top.text("hostname", "relay.example.com", value::hostname,
            "The relay's name in its greeting and in the trace field of every message. Set it to the name clients reach it by.");
        let data_dir = top.text(
            "data_dir",
            "data",
            value::path,
            "Folder of the store and the control socket. It must be on a local disk, and one relay alone uses it.",
        );
        let tenants_file = top.optional(
            "tenants_file",
            "config/tenants.toml",
            value::path,
            "Tenants file that is applied at start and on SIGHUP. Without it tenants are managed by commands alone.",
        );
        let node =
            top.text("node", "main", value::node, "The name under which this node keeps its counters: a-z, 0-9 and -.");
        let workers = top.whole("workers", 0, 0..=1024,
            "Threads that serve connections, SES and events; 0 stands for half of the machine's processors, one at least. One serves some thousands of messages a second, and each more makes a message dearer.");
        let listeners = Listener::all(&mut top);
        let tls = CertificateFiles::of(
            top.section("tls", "The certificate of all listeners; it is read again when it changes and on SIGHUP."),
        );
        let limits =
            Limits::of(top.section(
                "limits",
                "Every bound of the relay, read again on SIGHUP. A client that meets one hears which.",
            ));
        let aws = Aws::of(top.section("aws", "Amazon SES and SQS. Credentials come from the AWS SDK's default chain."));
        let outbox = Outbox::of(top.section("outbox", "Messages that are held until Amazon SES takes them."));
        let notify = Notify::of(top.section(
            "notify",
            "The relay's own mail: notices of expired messages, delivery status notifications, and what happens to a tenant's standing, which a webhook is told of as well. Without it none are sent.",
        ));
        let store =
            Store::of(top.section("store", "The local store: tenants, suppressions, counters and what is held."));
        let audit = Audit::of(top.section("audit", "The audit trail: who changed what, when and why."));
        let events = Events::of(top.section("events", "SES's events: bounces, complaints, deliveries."));
        let reputation = Reputation::of(top.section(
            "reputation",
            "When a stream or a tenant is warned, slowed and paused by what becomes of its mail, read again on SIGHUP. A tenants file may have limits for each tenant and stream.",
        ));

        let watch = Watch::of(top.section(
            "watch",
            "Credentials that seem stolen, and tenants whose volume is unusual: what the relay tells of by itself.",
        ));

        let exposure = Exposure::of(top.section(
            "exposure",
            "The exposure window: how many recipients of a stream may be out whose outcome is not known.",
        ));
        let suppression = Suppression::of(top.section("suppression", "The tenants' suppression lists."));
        let admin = Admin::of(top.section("admin", "Health and metrics, by HTTP: /healthz, /readyz, /metrics."));
        let log = Log::of(top.section("log", "The log on standard output."));
        top.end();
        Some(Self {
            hostname: hostname?,
            data_dir: data_dir?,
            tenants_file,
            node: node?,
            workers,
            listeners: listeners?,
            tls: tls?,
            limits,
            aws,
            outbox,
            notify,
            store,
            audit,
            events,
            reputation,
            watch,
            exposure,
            suppression,
            admin: admin?,
            log: log?,
            places: Places::default(),
        })
    }

    /// Whether any listener needs a certificate.
    pub fn needs_certificate(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls != Tls::None)
    }

    /// Threads that serve connections, SES and events: `workers`, or half of `processors`.
    pub fn worker_threads(&self, processors: usize) -> usize {
        if self.workers == 0 { (processors / 2).max(1) } else { self.workers }
    }

    fn place(&self, key: &str) -> Place {
        let whole = || Place { file: self.places.file.clone(), line: None };
        self.places.keys.get(key).cloned().unwrap_or_else(whole)
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
