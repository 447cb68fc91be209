//! The house: build, run, drain. The only place where services are made and spawned.
//!
//! [`House::build`] opens the store, applies the tenants file, binds everything; nothing answers
//! before all of it stands. [`House::run`] serves until it is told to stop, reloads limits,
//! certificates and tenants when told to, and drains: no new connections, what is under way is finished, events
//! received are applied and deleted, the store is closed.
//!
//! Order of the drain, and why: readiness first (balancers look elsewhere), the relay (its last
//! messages count), the dispatcher (calls of what was held go on till then, and count), ingest
//! (which writes those counts, and judges by them) and the watch (which writes what it heard), who tells people (who is told by those, and holds
//! mail for the next start; offers to the webhook that are under way are made again then), admin and
//! control (which could tell of it all the while), the store.
//!
//! What can go wrong: [`BuildError`] at start. Later the store may stop for good; then clients hear
//! 4xx, readiness says so, and the house drains by itself and ends [`Ending::StoreFailed`], so that
//! a supervisor starts it anew. Settings, a tenants file or a certificate of no use at a reload
//! are logged, and what was there stays.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::adapters::clock::{MachineClock, MachineRandom};
use crate::adapters::letter;
use crate::adapters::ses::{self, Credentials, SesMailer};
use crate::adapters::sled::{OpenError, SledStore};
use crate::adapters::spool::{self, FileSpool};
use crate::adapters::sqs::SqsNotices;
use crate::adapters::tls::{Certificates, TlsError};
use crate::adapters::webhook::{self, Webhook, WebhookError};
use crate::admin::control::BindError;
use crate::admin::view::ListenerView;
use crate::admin::{CommandError, Control, Desk, Health, Metrics, Request, Response, health, perform};
use crate::announce::{self, Announce, Announcement, Kind, Severity};
use crate::config::{self, Problem, SesSync, Settings, Stolen, Tls};
use crate::dispatch::waits::Waits;
use crate::dispatch::{self, AccountNews, Dispatch, QuotaNews, Reports};
use crate::ingest::{self, Applier, Hearing, Ingest, Janitor, NoQueue};
use crate::journal;
use crate::mail::Username;
use crate::mail::header::HeaderLimits;
use crate::notify;
use crate::outbox::recover::{Found, RecoverError};
use crate::outbox::{self, Lane, Outbox};
use crate::policy::effect::Count;
use crate::policy::exposure::OutcomeKind;
use crate::policy::{takeover, volume};
use crate::relay::{self, Ages, Means, Relay, wording};
use crate::reputation::{self, Reputation};
use crate::smtp::Terms;
use crate::store::audit::RELAY;
use crate::store::directory::{Current, Directory};
use crate::store::domains::Domains;
use crate::store::habits::Memory;
use crate::store::habits::filter::CHUNK;
use crate::store::tally::Tally;
use crate::store::tenants::Declared;
use crate::store::{Key, Pending, ReadError, Store};
use crate::suppression::{self, ListSync};
use crate::time::Clock as _;
use crate::upstream::lists::Suppressions;
use crate::upstream::{Mailer, Notices};
use crate::watch::{self, Holding, Volumes};
use crate::wire::Acceptor;

/// How often certificate files are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);
/// How often the store is asked whether it works.
const STORE_LOOK: Duration = Duration::from_millis(500);
/// How often metrics are folded together.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
// How long a stop may take, whatever hangs. With the defaults, in seconds:
//
//   limits.drain_seconds    20     what is under way at the relay
//   limits.linger_seconds    2     its last replies
//   RELAY_SLACK              0.5   its connections are cut
//   LAST_WORDS               5     ingest, admin, control (the first 2), the store (the rest, 3 at least)
//   RUNTIME_END              1     tasks and threads that nobody waits for
//                           28.5   under the 30 that supervisors commonly grant before they kill
//
// What is cut short loses nothing that anybody was promised: events come again from the queue, and
// the store is left as a crash would leave it.
/// Time for the relay to end beyond `limits.drain_seconds` and `limits.linger_seconds`.
const RELAY_SLACK: Duration = Duration::from_millis(500);
/// Time for attempts at held messages that are under way once the relay has ended.
const DISPATCH_GRACE: Duration = Duration::from_millis(1500);
/// Time for all that comes after the relay.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much of that is kept for the store.
const STORE_WORDS: Duration = Duration::from_secs(3);
/// Time for the runtime to end once the house has, for whoever owns the runtime.
pub const RUNTIME_END: Duration = Duration::from_secs(1);
/// Descriptors beside one for each connection: store, calls to AWS, admin.
const OTHER_DESCRIPTORS: u64 = 512;
/// Octets at the end of a line, which limits.line_bytes counts and a field's text does not have.
const CRLF: usize = 2;
/// Octets behind the largest header section that stay in memory with it, whatever is spilled.
const BEHIND_HEADER: usize = 64 * 1024;
/// From one call about SES's suppression lists to the next: SES allows one a second.
const LIST_PACE: Duration = Duration::from_secs(1);

/// What differs between the relay and its rehearsals.
pub struct Surroundings {
    /// Where AWS credentials come from.
    pub credentials: Credentials,
    /// The listeners' certificate; `None`: the files of the settings.
    pub certificates: Option<Certificates>,
    /// Tenants to be declared besides those of the tenants file.
    pub tenants: Option<Declared>,
    /// This process's metrics.
    pub metrics: Metrics,
    /// Where the limits are read anew; `None`: they stay.
    pub source: Option<Source>,
}

/// Where settings come from.
pub struct Source {
    /// What it is called in the log.
    pub name: String,
    /// As they were first read.
    pub first: Settings,
    /// Reads them anew.
    pub read: Arc<dyn Fn() -> Result<Settings, Vec<Problem>> + Send + Sync>,
}

/// Everything, bound and not yet running.
pub struct House {
    settings: Settings,
    store: Arc<SledStore>,
    desk: Arc<Desk>,
    certificates: Option<Arc<Certificates>>,
    source: Option<Source>,
    health: Arc<Health>,
    metrics: Metrics,
    relay: Relay,
    dispatch: Arc<Dispatch>,
    ingest: Ingest,
    reputation: Arc<Reputation>,
    janitor: Janitor,
    teller: notify::Service,
    announce: Arc<dyn Announce>,
    credentials: watch::Credentials,
    volumes: Volumes,
    sync: Option<ListSync>,
    server: health::Server,
    control: Control,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It was told to stop, and drained.
    Stopped,
    /// The store stopped for good.
    StoreFailed,
}

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The tenants file is wrong.
    #[error("the tenants file is wrong:{}", .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Tenants(Vec<Problem>),
    /// The tenants file could not be applied.
    #[error("{0}: {1}")]
    Apply(PathBuf, CommandError),
    /// The certificate is of no use.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// The webhook's secret is of no use.
    #[error("{0}")]
    Secret(Problem),
    /// The webhook is of no use.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store cannot be read.
    #[error("the store cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The outbox's files cannot be opened.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    /// The outbox cannot be read.
    #[error(transparent)]
    Outbox(#[from] RecoverError),
    /// A listener cannot be bound.
    #[error("a listener cannot be bound: {0}")]
    Listener(io::Error),
    /// The admin address cannot be bound.
    #[error("admin.address {0} cannot be bound: {1}; choose another, or stop what has it")]
    Admin(SocketAddr, io::Error),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] BindError),
}

impl BuildError {
    /// Whether the settings or a file they name are at fault, rather than the machine.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tenants(_) | Self::Apply(..) | Self::Certificate(_) | Self::Secret(_) | Self::Webhook(_) => true,
            Self::Store(_)
            | Self::Read(_)
            | Self::Spool(_)
            | Self::Outbox(_)
            | Self::Listener(_)
            | Self::Admin(..)
            | Self::Control(_) => false,
        }
    }
}

impl House {
    /// Builds everything and binds it. Clients may connect from now on; they are answered by
    /// [`run`](Self::run).
    pub async fn build(settings: Settings, surroundings: Surroundings) -> Result<Self, BuildError> {
        let Surroundings { credentials, certificates, tenants, metrics, source } = surroundings;
        let clock = Arc::new(MachineClock);
        let random = Arc::new(MachineRandom);
        raise_descriptors(settings.limits.connections);

        let certificates = certificates_of(&settings, certificates)?;
        let webhook = webhook_of(&settings)?;
        let sled = Arc::new(SledStore::open_with(&settings.data_dir, settings.store.cache_bytes)?);
        let store: Arc<dyn Store> = sled.clone();
        let available = {
            let sled = Arc::clone(&sled);
            move || sled.available()
        };
        let (outbox, found) = open_outbox(&settings, &store, clock.as_ref()).await?;
        let holds = outbox.clone();
        let health = Arc::new(Health::new(clock.now(), available.clone()).holding(move || holds.fault()));
        let directory: Current = Arc::new(ArcSwap::from_pointee(crate::store::tenants::load(store.as_ref()).await?));
        let hearing = Hearing::default();
        let domains = Arc::new(Domains::new(settings.events.domains_per_day));
        let rules = settings.suppression.rules();
        let applier = Applier::new(store.clone(), directory.clone(), clock.clone(), settings.node.clone())
            .with_rules(rules)
            .heard_by(hearing.clone())
            .with_domains(domains.clone());
        let desk =
            Desk::new(store.clone(), directory.clone(), clock.clone(), random.clone(), applier, Some(health.clone()));
        let desk = Arc::new(desk.with_outbox(outbox.clone()));
        if let Some(declared) = tenants {
            declare(&desk, declared, "built in").await.map_err(|error| BuildError::Apply("built in".into(), error))?;
        }
        apply_tenants_file(&desk, &settings).await?;

        if settings.notify.from.is_none() {
            note_unsent_reports(&directory.load());
        }
        let (mailer, notices, lists) = upstream(&settings, credentials).await;
        let sync = sync_options(&settings).map(|options| {
            ListSync::new(store.clone(), directory.clone(), lists, clock.clone(), random.clone(), options)
        });
        let tally = Arc::new(Tally::default());
        let ingest = Ingest::new(
            store.clone(),
            directory.clone(),
            notices,
            clock.clone(),
            random.clone(),
            tally.clone(),
            ingest::Options {
                pollers: if settings.events.queue_url.is_some() { settings.events.pollers } else { 0 },
                wait: settings.events.wait_seconds,
                node: settings.node.clone(),
            },
        )
        .with_rules(rules)
        .heard_by(hearing.clone())
        .with_domains(domains);
        let (bell, teller) = notify::Service::new(
            notify::Means {
                store: store.clone(),
                outbox: outbox.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                random: random.clone(),
                compose: letter::compose,
                webhook,
            },
            notify_options(&settings),
        );
        let bell: Arc<dyn Announce> = Arc::new(bell);
        let reputation = Reputation::open(
            reputation::Means {
                store: store.clone(),
                directory: directory.clone(),
                changing: desk.changing(),
                tally: tally.clone(),
                clock: clock.clone(),
                random: random.clone(),
                announce: bell.clone(),
            },
            settings.reputation.rules,
        )
        .await?;
        let _ = hearing.set(reputation.clone());
        let windows = reputation.clone();
        desk.announce_by(bell.clone());
        desk.tell_of_resumes(Box::new(move |tenant, stream| windows.resumed(tenant, stream)));
        let judging = reputation.clone();
        desk.ask_of_rules(Box::new(move || judging.rules()));
        desk.speak_as(wording::spoken);
        let dispatch = Dispatch::new(
            dispatch::Means {
                outbox: outbox.clone(),
                mailer,
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                random: random.clone(),
                tally: tally.clone(),
            },
            dispatch_options(&settings),
            &found.digests,
        );
        dispatch.recall().await?;
        hear_outcomes(&reputation, &dispatch);
        let lanes = Arc::downgrade(&dispatch);
        desk.ask_of_lanes(Box::new(move |lane| lanes.upgrade()?.why(lane)));
        let gates = Arc::downgrade(&dispatch);
        desk.ask_of_gates(Box::new(move |lane| {
            gates.upgrade().map(|dispatch| dispatch.gates_of(lane)).unwrap_or_default()
        }));
        let account =
            AccountTold { store: store.clone(), announce: bell.clone(), clock: clock.clone(), random: random.clone() };
        dispatch.tell_account_news(Box::new(move |news| account.tell(&news)));
        let janitor = Janitor::new(store.clone(), clock.clone())
            .with_rules(rules)
            .keeping(settings.events.ledger_days, settings.events.counter_days)
            .keeping_audit(settings.audit.days);
        let watching = watch::Means {
            store: store.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
            random: random.clone(),
            announce: bell.clone(),
            holding: Arc::new(HoldingDesk(Arc::clone(&desk))),
        };
        let watch_options = watch_options(&settings);
        let volumes = Volumes::new(watching.clone(), watch_options.volume);
        let (watch, credentials) = watch::credentials(watching, watch_options);
        let means = Means {
            store,
            store_available: Arc::new(available),
            directory,
            dispatch: dispatch.clone(),
            acceptor: certificates.clone().map(|one| one as Arc<dyn Acceptor>),
            clock,
            random,
            watch,
        };
        let relay = Relay::bind(means, relay_options(&settings)).await.map_err(BuildError::Listener)?;
        let address = settings.admin.address;
        let server = health::Server::bind(address, health.clone(), metrics.clone())
            .await
            .map_err(|error| BuildError::Admin(address, error))?;
        let control = Control::bind(&settings.data_dir, desk.clone()).await?;
        Ok(Self {
            settings,
            store: sled,
            desk,
            certificates,
            source,
            health,
            metrics,
            relay,
            dispatch,
            ingest,
            reputation,
            janitor,
            teller,
            announce: bell,
            credentials,
            volumes,
            sync,
            server,
            control,
        })
    }

    /// Where clients connect, in the order of the settings.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.relay.addresses()
    }

    /// Where health and metrics are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.server.address().ok()
    }

    /// What carries commands out.
    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// What wakes whoever tells people, for whatever writes announcements.
    pub fn announce(&self) -> Arc<dyn Announce> {
        self.announce.clone()
    }

    /// Serves until `stop`, then drains. Each message on `reload` reads limits, certificates and
    /// tenants anew.
    pub async fn run(self, stop: CancellationToken, reload: mpsc::Receiver<()>) -> Ending {
        let listeners = self.views();
        let Self {
            settings,
            store,
            desk,
            certificates,
            source,
            health,
            metrics,
            relay,
            dispatch,
            ingest,
            reputation,
            janitor,
            teller,
            // Whoever rings it has it as well.
            announce: _bell,
            credentials,
            volumes,
            sync,
            server,
            control,
        } = self;
        let limits = source.map(|source| LimitsInUse {
            relay: relay.handle(),
            reputation: reputation.clone(),
            last: source.first.clone(),
            source,
        });
        let (drain, events, last) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let quiet = CancellationToken::new();

        // Attempts that are under way go on while the relay drains.
        let attempts = CancellationToken::new();
        let dispatch = tokio::spawn(dispatch.run(drain.clone(), attempts.clone(), DISPATCH_GRACE));
        let relay = tokio::spawn(relay.run(drain.clone()));
        let ingest = tokio::spawn(ingest.run(events.clone()));
        let judge = tokio::spawn(reputation.clone().run(events.clone()));
        let janitor = tokio::spawn(janitor.run(events.clone()));
        let teller = tokio::spawn(teller.run(quiet.clone()));
        let credentials = tokio::spawn(credentials.run(events.clone()));
        let volumes = tokio::spawn(volumes.run(events.clone()));
        // What it has not come to is taken up after the next start.
        let sync = sync.map(|sync| tokio::spawn(sync.run(drain.clone())));
        let server = tokio::spawn(server.run(last.clone()));
        let control = tokio::spawn(control.run(last.clone()));
        if let Some(certificates) = &certificates {
            tokio::spawn(Arc::clone(certificates).watch(CERTIFICATE_LOOK, drain.clone()));
        }
        tokio::spawn(keep_metrics(metrics, last.clone()));
        tokio::spawn(keep_current(desk, settings.clone(), limits, certificates, reload, drain.clone()));
        health.listening(listeners);
        journal::relay_started(env!("CARGO_PKG_VERSION"), &settings.data_dir.display().to_string());

        let ending = tokio::select! {
            () = stop.cancelled() => Ending::Stopped,
            () = failed(&store) => Ending::StoreFailed,
        };
        health.drain();
        drain.cancel();
        let limits = &settings.limits;
        let now = || Instant::from_std(MachineClock.instant());
        let drained = now() + limits.drain_seconds + limits.linger_seconds + RELAY_SLACK;
        // A relay that panicked has abandoned all it had.
        let abandoned = ended_by(drained, relay).await.unwrap_or_default();
        let over = now() + LAST_WORDS;
        attempts.cancel();
        // What is cut off is leased on the disk: it is sent again after the next start.
        ended_by(over - STORE_WORDS, dispatch).await;
        events.cancel();
        ended_by(over - STORE_WORDS, ingest).await;
        ended_by(over - STORE_WORDS, judge).await;
        ended_by(over - STORE_WORDS, janitor).await;
        if let Some(sync) = sync {
            ended_by(over - STORE_WORDS, sync).await;
        }
        ended_by(over - STORE_WORDS, volumes).await;
        ended_by(over - STORE_WORDS, credentials).await;
        // The last to be told of may have been judged just now.
        quiet.cancel();
        ended_by(over - STORE_WORDS, teller).await;
        last.cancel();
        ended_by(over - STORE_WORDS, control).await;
        ended_by(over - STORE_WORDS, server).await;
        // It waits for the writer thread; a panic in there ends with the process.
        ended_by(over, tokio::task::spawn_blocking(move || store.close())).await;
        journal::relay_stopped(abandoned);
        ending
    }

    fn views(&self) -> Vec<ListenerView> {
        let views = self.relay.addresses().into_iter().zip(&self.settings.listeners).map(|(address, listener)| {
            let tls = match listener.tls {
                Tls::Starttls => "starttls",
                Tls::Implicit => "implicit",
                Tls::None => "none",
            };
            ListenerView { address: address.to_string(), tls: tls.into(), proxy_protocol: listener.proxy_protocol }
        });
        views.collect()
    }
}

/// The certificate that was handed in, else the files of the settings, if any listener needs one.
fn certificates_of(settings: &Settings, given: Option<Certificates>) -> Result<Option<Arc<Certificates>>, TlsError> {
    match given {
        Some(certificates) => Ok(Some(Arc::new(certificates))),
        None if settings.needs_certificate() => {
            let files = &settings.tls;
            let certificates =
                Certificates::load(&files.certificate_file, &files.private_key_file, Arc::new(MachineClock))?;
            Ok(Some(Arc::new(certificates)))
        }
        None => Ok(None),
    }
}

/// The webhook of the settings, if they have one.
fn webhook_of(settings: &Settings) -> Result<Option<notify::Webhook>, BuildError> {
    let notify = &settings.notify;
    let signer = settings.webhook_signer().map_err(BuildError::Secret)?;
    let (Some(url), Some(signer)) = (notify.webhook_url.clone(), signer) else { return Ok(None) };
    let options = webhook::Options { url, time: notify.webhook_seconds, private: notify.webhook_private };
    Ok(Some(notify::Webhook { post: Arc::new(Webhook::new(&options)?), signer }))
}

/// From now on the dispatcher hears of standings at once, and its exposure windows what SES tells of their
/// mail. A complaint comes of mail whose
/// delivery was told, and a delay tells nothing yet.
pub fn hear_outcomes(reputation: &Reputation, dispatch: &Arc<Dispatch>) {
    let dispatch = Arc::downgrade(dispatch);
    let standings = dispatch.clone();
    reputation.tell_of_standings(Box::new(move || {
        if let Some(dispatch) = standings.upgrade() {
            dispatch.directory_changed();
        }
    }));
    reputation.tell_of_outcomes(Box::new(move |fact| {
        let kind = match fact.count {
            Count::Delivered => OutcomeKind::Delivered,
            Count::Bounced => OutcomeKind::Bad,
            Count::SoftBounced | Count::Rejected => OutcomeKind::Other,
            Count::Complained | Count::Delayed => return,
        };
        if let Some(dispatch) = dispatch.upgrade() {
            let lane = Lane { tenant: fact.tenant.clone(), stream: Some(fact.stream.clone()) };
            dispatch.outcomes(&lane, fact.sent, 1, kind);
        }
    }));
}

/// Tells people how Amazon SES sees the account.
struct AccountTold {
    store: Arc<dyn Store>,
    announce: Arc<dyn Announce>,
    clock: Arc<MachineClock>,
    random: Arc<MachineRandom>,
}

impl AccountTold {
    fn tell(&self, news: &AccountNews) {
        let announcement = self.announcement(news);
        let (store, announce) = (self.store.clone(), self.announce.clone());
        tokio::spawn(async move {
            match announce::append(&*store, &announcement).await {
                Ok(()) => announce.announce(&announcement),
                // The journal has the line of what is to be told.
                Err(error) => journal::standings_deferred(&error.to_string()),
            }
        });
    }

    fn announcement(&self, news: &AccountNews) -> Announcement {
        let AccountNews { enforcement_status, sending_enabled, quota } = news;
        let new = |kind, severity, headline: &str| {
            Announcement::new(self.clock.now(), &*self.random, kind, severity, headline)
        };
        if let Some(QuotaNews { sent, most, is_reached }) = quota {
            let headline = format!("{sent} of the {most} recipients that Amazon SES takes in 24 hours are used up");
            let (kind, severity) =
                if *is_reached { (Kind::QuotaReached, Severity::Alarm) } else { (Kind::QuotaNear, Severity::Warning) };
            let mut told = new(kind, severity, &headline);
            if *is_reached {
                told.still_works = vec![
                    "nothing is lost: mail waits in the outbox, and the last part is for transactional mail".into(),
                ];
            }
            told.to_do = vec!["ask Amazon SES for a higher quota, or move campaigns to another day".into()];
            return told;
        }
        let shut = !sending_enabled || enforcement_status == "SHUTDOWN";
        let mut told = match (shut, enforcement_status.as_str()) {
            (true, _) => new(Kind::AccountPaused, Severity::Alarm, "Amazon SES has paused the account's sending"),
            (false, "PROBATION") => {
                new(Kind::AccountProbation, Severity::Alarm, "Amazon SES has put the account under review")
            }
            (false, _) => new(Kind::AccountResumed, Severity::Notice, "Amazon SES takes the account's mail as ever"),
        };
        told.figures = vec![
            ("EnforcementStatus".into(), enforcement_status.clone()),
            ("SendingEnabled".into(), sending_enabled.to_string()),
        ];
        if shut {
            told.still_works = vec!["nothing is lost: mail is accepted and waits in the outbox".into()];
        }
        if told.severity == Severity::Alarm {
            told.to_do = vec!["read Amazon SES's mail to the account's owner, and answer it".into()];
        }
        told
    }
}

/// What is held, as it was left; what was found is told.
async fn open_outbox(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &MachineClock,
) -> Result<(Arc<Outbox>, Found), BuildError> {
    let set = &settings.outbox;
    let spool = Arc::new(FileSpool::open(&settings.data_dir, spool::Options { writers: set.writers })?);
    let options = outbox::Options {
        bounds: outbox::Bounds {
            messages: set.messages,
            messages_per_tenant: set.messages_per_tenant,
            bytes_per_tenant: set.bytes_per_tenant as u64,
        },
        disk_reserve_bytes: set.disk_reserve_bytes as u64,
    };
    let (node, now) = (&settings.node, clock.now());
    let (outbox, found) = Outbox::open(Arc::clone(store), spool, node, options, now, set.unknown_wait_seconds).await?;
    journal::outbox_opened(found.held, found.unknown.len(), found.swept, found.adopted);
    for (id, lane) in &found.unknown {
        journal::outcome_unknown_at_start(*id, &lane.tenant, lane.stream.as_ref());
    }
    found.missing.iter().for_each(|id| journal::body_missing(*id));
    for (what, why) in &found.damaged {
        journal::record_damaged(what, why, "`bulkhead store verify` tells of all; restore a backup");
    }
    Ok((outbox, found))
}

/// Streams that want delivery status notifications get none without a sender for them.
fn note_unsent_reports(directory: &Directory) {
    for tenant in directory.tenants() {
        for stream in tenant.streams.values().filter(|stream| stream.dsn) {
            let (tenant, stream) = (&tenant.id, &stream.id);
            journal::setting_noted(&format!(
                "dsn is set for stream {stream} of tenant {tenant}, but notify.from is not: no notifications are sent"
            ));
        }
    }
}

/// Puts credentials on hold as an operator would, one change at a time with all others.
struct HoldingDesk(Arc<Desk>);

impl Holding for HoldingDesk {
    fn hold<'a>(&'a self, credential: &'a Username, reason: &'a str) -> Pending<'a, Result<(), String>> {
        let request = Request::CredentialHold { username: credential.clone(), reason: reason.into() };
        Box::pin(async move {
            perform(&self.0, request, RELAY).await.map(drop).map_err(|error: CommandError| error.to_string())
        })
    }
}

fn watch_options(settings: &Settings) -> watch::Options {
    let set = &settings.watch;
    let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let percent = |number: usize| f64::from(whole(number)) / 100.0;
    let chunks = (set.filter_bytes / CHUNK).max(1);
    watch::Options {
        stolen: match set.stolen_credentials {
            Stolen::Alert => Some(watch::Effect::Alert),
            Stolen::Hold => Some(watch::Effect::Hold),
            Stolen::Off => None,
        },
        rules: takeover::Rules {
            first_time_share: percent(set.first_time_percent),
            usual_share: percent(set.usual_first_time_percent),
            first_time_least: set.first_time_least_recipients as u64,
            jump_times: set.jump_times,
            jump_least: set.jump_least_recipients as u64,
        },
        memory: Memory {
            network_days: whole(set.network_days),
            // A filter doubles, so its size is a power of two.
            chunks: 1 << chunks.ilog2(),
        },
        again: set.again_hours,
        credentials: set.credentials,
        octets: set.memory_bytes,
        waiting: set.waiting_recipients,
        flush: set.flush_seconds,
        volume: volume::Rules { times: set.volume_times, least: set.volume_least_recipients as u64 },
    }
}

fn dispatch_options(settings: &Settings) -> dispatch::Options {
    let (set, limits) = (&settings.outbox, &settings.limits);
    let notify = &settings.notify;
    dispatch::Options {
        hostname: settings.hostname.clone(),
        calls_in_flight: set.calls_in_flight,
        calls_per_stream: set.calls_per_stream,
        bytes_in_flight: set.bytes_in_flight as u64,
        call_bytes: limits.call_bytes,
        call_wait: limits.call_wait_seconds,
        calls_per_message: limits.calls_per_message,
        lease_time: set.lease_seconds,
        waits: Waits {
            throttle_first: set.throttle_first_seconds,
            throttle_most: set.throttle_longest_seconds,
            quota: set.quota_wait_seconds,
            retry_first: set.retry_first_seconds,
            retry_most: set.retry_longest_seconds,
            // Nobody is told when an outage is over, and all mail waits for the probe that finds out.
            outage_most: Waits::default().outage_most.min(set.retry_longest_seconds),
            operator_first: set.operator_first_seconds,
            operator_most: set.operator_longest_seconds,
            unknown: set.unknown_wait_seconds,
        },
        dedupe_window: set.dedupe_window_seconds,
        dedupe_entries: set.dedupe_entries,
        max_send_rate: settings.aws.max_send_rate,
        max_24_hour_send: settings.aws.max_24_hour_send,
        quota_reserve: settings.aws.quota_reserve_percent as f64 / 100.0,
        exposure: settings.exposure.rules(),
        reputation: settings.reputation.rules,
        reports: notify
            .from
            .clone()
            .zip(notify.configuration_set.clone())
            .map(|(from, configuration_set)| Reports { from, configuration_set }),
        account_list: settings.suppression.ses_sync != SesSync::Off,
    }
}

/// How SES's suppression lists are compared with ours, if they are.
fn sync_options(settings: &Settings) -> Option<suppression::Options> {
    let mode = match settings.suppression.ses_sync {
        SesSync::Off => return None,
        SesSync::Pull => suppression::Mode::Pull,
        SesSync::Both => suppression::Mode::Both,
    };
    Some(suppression::Options { mode, every: settings.suppression.ses_sync_hours, pace: LIST_PACE })
}

/// SES, the queue of its events and its suppression lists, over one pool of connections.
async fn upstream(
    settings: &Settings,
    credentials: Credentials,
) -> (Arc<dyn Mailer>, Arc<dyn Notices>, Arc<dyn Suppressions>) {
    let aws = &settings.aws;
    let config = ses::sdk_config(aws.region.clone(), credentials).await;
    let options = ses::Options {
        endpoint_url: aws.ses_endpoint_url.clone(),
        calls_in_flight: aws.calls_in_flight,
        bytes_in_flight: aws.bytes_in_flight,
        call_time: aws.call_seconds,
        large_call_time: aws.large_call_seconds,
        queue_time: aws.call_wait_seconds,
    };
    let mailer = Arc::new(SesMailer::new(&config, options));
    match &settings.events.queue_url {
        Some(url) => {
            let notices = SqsNotices::new(&config, aws.sqs_endpoint_url.clone(), url.clone());
            (mailer.clone(), Arc::new(notices), mailer)
        }
        None => (mailer.clone(), Arc::new(NoQueue), mailer),
    }
}

/// What a task that ends by `deadline` gives; `None` if it panicked or was aborted then. A task that
/// has ended gives its result however late it is.
async fn ended_by<T>(deadline: Instant, task: JoinHandle<T>) -> Option<T> {
    let abort = task.abort_handle();
    match tokio::time::timeout_at(deadline, task).await {
        Ok(ended) => ended.ok(),
        Err(_) => {
            abort.abort();
            None
        }
    }
}

async fn keep_metrics(metrics: Metrics, last: CancellationToken) {
    while tokio::time::timeout(METRICS_UPKEEP, last.cancelled()).await.is_err() {
        metrics.upkeep();
    }
}

/// The limits that the relay has, and where others come from.
struct LimitsInUse {
    relay: relay::Handle,
    reputation: Arc<Reputation>,
    source: Source,
    last: Settings,
}

impl LimitsInUse {
    /// Reads the settings anew and follows their limits; tells of all that it does not follow.
    async fn reread(&mut self) {
        let read = Arc::clone(&self.source.read);
        match tokio::task::spawn_blocking(move || read()).await {
            Ok(Ok(settings)) => {
                let changes = self.last.changed_limits(&settings).len();
                raise_descriptors(settings.limits.connections);
                let followed = followed(&self.source.first, &settings);
                let relay::Options { terms, limits, listeners: _ } = relay_options(&followed);
                self.relay.change(terms, limits);
                self.reputation.change_rules(settings.reputation.rules);
                let restart = self.source.first.changed_beside_limits(&settings);
                self.last = settings;
                journal::settings_applied(&self.source.name, changes, &restart);
            }
            Ok(Err(problems)) => {
                journal::settings_refused(&self.source.name, problems.iter().map(ToString::to_string));
            }
            Err(error) => journal::settings_refused(&self.source.name, std::iter::once(error.to_string())),
        }
    }
}

/// The settings of the start with the limits of others: what is told to want a restart is not followed by
/// halves.
fn followed(first: &Settings, settings: &Settings) -> Settings {
    let mut followed = first.clone();
    followed.limits = settings.limits.clone();
    followed
}

/// Reads limits, certificates and tenants anew whenever it is asked to.
async fn keep_current(
    desk: Arc<Desk>,
    settings: Settings,
    mut limits: Option<LimitsInUse>,
    certificates: Option<Arc<Certificates>>,
    mut reload: mpsc::Receiver<()>,
    drain: CancellationToken,
) {
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            asked = reload.recv() => if asked.is_none() { return },
        }
        if let Some(limits) = &mut limits {
            limits.reread().await;
        }
        if let Some(certificates) = certificates.clone() {
            // The outcome is in the journal.
            let _ = tokio::task::spawn_blocking(move || certificates.reload()).await;
        }
        if let Err(error) = apply_tenants_file(&desk, &settings).await {
            let file = settings.tenants_file.as_deref().unwrap_or(std::path::Path::new("")).display().to_string();
            journal::tenants_refused(&file, &error.to_string());
        }
    }
}

/// Ends when the store has stopped for good. A store that only hangs is waited for: nobody knows
/// yet how its commits end, and readiness tells of it.
async fn failed(store: &SledStore) {
    loop {
        tokio::time::sleep(STORE_LOOK).await;
        if !store.available() && matches!(store.get(&Key::meta("alive")).await, Err(ReadError::Unavailable(_))) {
            return;
        }
    }
}

/// Applies the settings' tenants file, without removing anything.
async fn apply_tenants_file(desk: &Desk, settings: &Settings) -> Result<(), BuildError> {
    let Some(file) = &settings.tenants_file else { return Ok(()) };
    let (declared, _) = config::load_tenants(file).map_err(BuildError::Tenants)?;
    let source = file.display().to_string();
    let changes = declare(desk, declared, &source).await.map_err(|error| BuildError::Apply(file.clone(), error))?;
    journal::tenants_applied(&source, changes);
    Ok(())
}

async fn declare(desk: &Desk, declared: Declared, source: &str) -> Result<usize, CommandError> {
    let request = Request::Apply { declared, source: source.into(), dry_run: false, prune: false };
    match perform(desk, request, RELAY).await? {
        Response::Applied { changes, .. } => Ok(changes.len()),
        _ => Err(CommandError::Fault),
    }
}

/// As many descriptors as the connections need, or as many as there may be.
fn raise_descriptors(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    match rlimit::increase_nofile_limit(wanted.max(4096)) {
        Ok(got) if got >= wanted => {}
        Ok(got) => journal::setting_noted(&format!(
            "only {got} file descriptors may be open, {wanted} are needed for limits.connections = {connections}; raise the limit (ulimit -n, LimitNOFILE) or lower limits.connections"
        )),
        Err(error) => journal::setting_noted(&format!("the limit of file descriptors cannot be raised: {error}")),
    }
}

/// The settings of whoever tells of announcements.
fn notify_options(settings: &Settings) -> notify::Options {
    notify::Options {
        hostname: settings.hostname.clone(),
        from: settings.notify.from.clone(),
        operator: settings.notify.operator.clone(),
        mails_per_hour: settings.notify.mails_per_hour,
        pending: settings.notify.announcements,
    }
}

fn relay_options(settings: &Settings) -> relay::Options {
    let limits = &settings.limits;
    relay::Options {
        terms: Terms {
            hostname: settings.hostname.clone(),
            // By listener: the relay sets them.
            starttls: false,
            cleartext_auth: false,
            message_bytes: limits.message_bytes,
            head_bytes: limits.header_bytes.saturating_add(BEHIND_HEADER),
            // Below it every read would be written by itself.
            spill_bytes: settings.outbox.spill_bytes.max(limits.header_bytes.saturating_add(2 * BEHIND_HEADER)),
            recipients: limits.recipients,
            messages: limits.messages_per_connection,
            command_bytes: limits.command_bytes,
            auth_bytes: limits.auth_bytes,
            line_bytes: limits.line_bytes,
            errors: limits.errors,
            commands_before_login: limits.commands_before_login,
            auth_failures: limits.auth_failures,
            auth_delay: limits.auth_delay_seconds,
            auth_delay_longest: limits.auth_delay_longest_seconds,
            command_time_unauthenticated: limits.command_seconds_unauthenticated,
            command_time: limits.command_seconds,
            data_time: limits.data_seconds,
            data_rate: limits.data_rate_bytes_per_second,
            data_grace: limits.data_grace_seconds,
        },
        listeners: settings
            .listeners
            .iter()
            .map(|listener| relay::Listener {
                address: listener.address,
                tls: match listener.tls {
                    Tls::Starttls => relay::Tls::Starttls,
                    Tls::Implicit => relay::Tls::Implicit,
                    Tls::None => relay::Tls::None,
                },
                trusted_proxies: listener.proxy_protocol.then(|| listener.trusted_proxies.clone()),
            })
            .collect(),
        limits: relay::Limits {
            connections: limits.connections,
            refusals: limits.refusals,
            connections_per_ip: limits.connections_per_ip,
            connections_per_tenant: limits.connections_per_tenant,
            memory_bytes: limits.memory_bytes,
            // How finely memory is handed out is no setting.
            memory_step: relay::Limits::default().memory_step,
            memory_wait: limits.memory_wait_seconds,
            call_bytes: limits.call_bytes,
            call_wait: limits.call_wait_seconds,
            calls_per_message: limits.calls_per_message,
            write_time: limits.write_seconds,
            handshake_time: limits.handshake_seconds,
            handshakes: limits.handshakes,
            proxy_time: limits.proxy_seconds,
            linger_time: limits.linger_seconds,
            auth_verifications: limits.auth_verifications,
            auth_wait: limits.auth_wait_seconds,
            auth_cache_time: limits.auth_cache_seconds,
            auth_cache_entries: limits.auth_cache_entries,
            received_hops: limits.received_hops,
            header: HeaderLimits {
                bytes: limits.header_bytes,
                fields: limits.header_fields,
                line: limits.line_bytes.saturating_sub(CRLF),
            },
            drain_time: limits.drain_seconds,
            data_deadline: settings.outbox.data_deadline_seconds,
            ages: Ages {
                transactional: settings.outbox.max_age_transactional_hours,
                bulk: settings.outbox.max_age_bulk_hours,
                marketing: settings.outbox.max_age_marketing_hours,
            },
            account_list: settings.suppression.ses_sync != SesSync::Off,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_with_the_defaults_takes_less_than_thirty_seconds_whatever_hangs() {
        let settings = config::load(None, std::iter::empty()).unwrap();
        let limits = &settings.limits;
        let longest = limits.drain_seconds + limits.linger_seconds + RELAY_SLACK + LAST_WORDS + RUNTIME_END;
        assert_eq!(longest, Duration::from_millis(28_500), "the sum at the head of this file");
        assert!(longest < Duration::from_secs(30));
        assert!(STORE_WORDS < LAST_WORDS);
        let own = relay::Limits::default();
        assert_eq!((own.drain_time, own.linger_time), (limits.drain_seconds, limits.linger_seconds));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_hang_share_one_deadline() {
        let began = Instant::now();
        let over = began + LAST_WORDS;
        for _ in 0..4 {
            let hanging = tokio::spawn(std::future::pending::<()>());
            assert_eq!(ended_by(over - STORE_WORDS, hanging).await, None);
        }
        assert_eq!(began.elapsed(), LAST_WORDS - STORE_WORDS);
        assert_eq!(ended_by(over, tokio::spawn(std::future::pending::<()>())).await, None);
        assert_eq!(began.elapsed(), LAST_WORDS);
        // One that has ended is not called late.
        let done = tokio::spawn(std::future::ready(7));
        tokio::task::yield_now().await;
        assert_eq!(ended_by(began, done).await, Some(7));
    }

    #[test]
    fn every_setting_of_the_watch_reaches_it() {
        let of = |variable: Option<(String, String)>| {
            let settings = config::load(None, variable.into_iter()).unwrap();
            format!("{:?}", watch_options(&settings))
        };
        let defaults = of(None);
        assert_eq!(defaults, format!("{:?}", watch::Options::default()));
        let file = config::default_file();
        let section = file.split("\n[watch]\n").nth(1).unwrap().split("\n[").next().unwrap();
        let keys = section.lines().filter_map(|line| line.split_once(" = ")).filter(|(key, _)| !key.starts_with('#'));
        let mut told = 0;
        for (key, value) in keys {
            let variable = format!("BULKHEAD_WATCH__{}", key.to_ascii_uppercase());
            let other = match value.parse::<f64>() {
                Ok(_) if key == "filter_bytes" => "32768".into(),
                Ok(number) => (number + 1.0).to_string(),
                Err(_) => "hold".into(),
            };
            assert_ne!(of(Some((variable, other))), defaults, "watch.{key} has no effect");
            told += 1;
        }
        assert_eq!(told, 15);
    }

    /// The defaults, but for these variables.
    fn load(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(key, value)| (format!("BULKHEAD_{key}"), (*value).to_owned()));
        config::load(None, variables).unwrap()
    }

    #[test]
    fn what_wants_a_restart_is_followed_nowhere_before_it() {
        let shown = |settings: &Settings| format!("{:?}", relay_options(settings));
        let first = load(&[]);
        for variable in [("SUPPRESSION__SES_SYNC", "pull"), ("OUTBOX__DATA_DEADLINE_SECONDS", "11")] {
            let other = load(&[variable]);
            assert!(!first.changed_beside_limits(&other).is_empty(), "{variable:?} is told to want a restart");
            assert_ne!(shown(&other), shown(&first));
            assert_eq!(shown(&followed(&first, &other)), shown(&first), "{variable:?}");
            let both = load(&[variable, ("LIMITS__RECIPIENTS", "7")]);
            assert_eq!(shown(&followed(&first, &both)), shown(&load(&[("LIMITS__RECIPIENTS", "7")])));
        }
    }

    #[test]
    fn both_bounds_of_announcements_reach_whoever_tells_them() {
        let of = |name: &str, value: &str| {
            let options = notify_options(&load(&[(name, value)]));
            (options.mails_per_hour, options.pending)
        };
        assert_eq!(of("NOTIFY__MAILS_PER_HOUR", "7"), (7, 10_000));
        assert_eq!(of("NOTIFY__ANNOUNCEMENTS", "123"), (10, 123));
    }

    /// A setting that is read and then forgotten would be a promise without effect.
    #[test]
    fn every_limit_of_the_settings_reaches_the_relay() {
        let of = |variable: Option<(String, String)>| {
            let settings = config::load(None, variable.into_iter()).unwrap();
            format!("{:?}", relay_options(&settings))
        };
        let defaults = of(None);
        let file = config::default_file();
        let section = file.split("\n[limits]\n").nth(1).unwrap().split("\n[").next().unwrap();
        let keys = section.lines().filter_map(|line| line.split_once(" = ")).filter(|(key, _)| !key.starts_with('#'));
        let mut told = 0;
        for (key, value) in keys {
            let variable = format!("BULKHEAD_LIMITS__{}", key.to_ascii_uppercase());
            let other = value.parse::<u64>().unwrap() + 1;
            assert_ne!(of(Some((variable, other.to_string()))), defaults, "limits.{key} has no effect");
            told += 1;
        }
        assert!(told > 30, "only {told} limits");
    }
}
