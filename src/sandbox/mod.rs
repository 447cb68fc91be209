//! The sandbox: a local SES v2 and SQS that the unmodified AWS SDK talks to, for `demo`,
//! `serve --sandbox`, the tests, and other programs' tests.
//!
//! Promises: it refuses what SES refuses (more than 50 recipients, 40 MiB, duplicate header fields,
//! and, where told, unknown configuration sets, identities and SES tenants, rate and daily quota)
//! in SES's words; it keeps what it takes, octet by octet; it tells what became of it in SES's
//! events through a queue that hides and redelivers as SQS does. Everything is bounded:
//! connections, messages, octets, notices, faults. It goes wrong on demand: `sandbox/fault`; and it
//! is down on demand: [`socket::Door`].
//! Refuses: to listen anywhere but on loopback, for it lets anybody in (signatures are not
//! verified) and shows everybody's mail; content that is not raw; FromEmailAddress.
//! It keeps SES's suppression lists, and no mail is stopped by them: `sandbox/lists`.
//! What it does not do: deliver anything, DKIM, VDM, more than one queue.

pub mod check;
pub mod control;
pub mod event;
pub mod fault;
pub mod inbox;
pub mod lists;
mod md5;
mod queue;
mod quota;
mod refusal;
mod ses;
pub mod socket;
pub mod sqs;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::event::Place;
use self::fault::Faults;
use self::inbox::Inbox;
use self::lists::Lists;
use self::quota::Quota;
use self::refusal::Refusal;
use self::socket::{Door, Entrance, Fuse};
use self::sqs::EventQueue;
use crate::secret::Random;
use crate::time::{Clock, Timestamp};

/// Largest request body: SES's largest message in base64, and room for the rest.
pub const BODY_BYTES: usize = 64 * 1024 * 1024;
/// How long requests under way may take once the sandbox drains.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How events are wrapped in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EventForm {
    /// An SNS notification.
    #[default]
    Sns,
    /// The event itself: SNS with raw delivery.
    Raw,
    /// An EventBridge event.
    EventBridge,
}

/// A native SES tenant and what is associated with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SesTenantResources {
    /// TenantName.
    pub name: String,
    /// Domains and addresses.
    pub identities: Vec<String>,
    /// Configuration sets.
    pub configuration_sets: Vec<String>,
}

/// What the sandbox's account is like.
#[derive(Clone)]
pub struct Options {
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub random: Arc<dyn Random>,
    /// The region it says it is in.
    pub region: String,
    /// The account it says it is.
    pub account_id: String,
    /// Domains and addresses that may send; `None`: all.
    pub verified_identities: Option<Vec<String>>,
    /// Configuration sets there are; `None`: any.
    pub configuration_sets: Option<Vec<String>>,
    /// SES tenants there are; `None`: any, with everything associated.
    pub ses_tenants: Option<Vec<SesTenantResources>>,
    /// Recipients a second, as GetAccount tells and SendEmail enforces.
    pub max_send_rate: f64,
    /// Recipients in 24 hours, likewise; `None`: no limit.
    pub max_24_hour_send: Option<u64>,
    /// False: the account's sending is paused.
    pub sending_enabled: bool,
    /// GetAccount's EnforcementStatus.
    pub enforcement_status: String,
    /// Whether lines over [`check::LINE_BYTES`] are refused. SES asks for shorter ones and does
    /// not say what it does with longer ones.
    pub refuse_long_lines: bool,
    /// Time from a message to its events.
    pub event_delay: Duration,
    /// Time from a DeliveryDelay event to the delivery, at `slow.test`.
    pub slow_delay: Duration,
    /// How events are wrapped.
    pub event_form: EventForm,
    /// The queue's visibility timeout, whole seconds.
    pub visibility_timeout: Duration,
    /// Most messages kept.
    pub messages: usize,
    /// Most octets of messages kept.
    pub message_bytes: usize,
    /// Most notices in the queue.
    pub notices: usize,
}

impl Options {
    /// An account that lets everything pass, with bounds for a small machine.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            clock,
            random,
            region: "eu-west-1".into(),
            account_id: "000000000000".into(),
            verified_identities: None,
            configuration_sets: None,
            ses_tenants: None,
            max_send_rate: 100_000.0,
            max_24_hour_send: None,
            sending_enabled: true,
            enforcement_status: "HEALTHY".into(),
            refuse_long_lines: false,
            event_delay: Duration::ZERO,
            slow_delay: Duration::from_secs(2),
            event_form: EventForm::Sns,
            visibility_timeout: Duration::from_secs(30),
            messages: 10_000,
            message_bytes: 256 * 1024 * 1024,
            notices: 100_000,
        }
    }
}

/// The sandbox, bound and not yet running.
pub struct Sandbox {
    house: Shared,
    door: Arc<Door>,
    address: SocketAddr,
}

/// What all its routes share.
struct House {
    options: Options,
    place: Place,
    queue_url: String,
    inbox: Arc<Inbox>,
    lists: Arc<Lists>,
    faults: Arc<Faults>,
    queue: Arc<EventQueue>,
    quota: Mutex<Quota>,
    closing: CancellationToken,
}

type Shared = Arc<House>;

impl Sandbox {
    /// Binds `address`, which must be on loopback (`InvalidInput` otherwise); port 0 takes a free one.
    pub async fn bind(address: SocketAddr, options: Options) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the sandbox lets anybody in and shows all mail, so it listens on loopback only; {address} is not: use 127.0.0.1 or [::1]"
                ),
            ));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let place =
            Place { region: options.region.clone(), account: options.account_id.clone(), slow: options.slow_delay };
        let house = House {
            place,
            queue_url: format!("http://{address}/{}/{}", options.account_id, sqs::QUEUE_NAME),
            inbox: Arc::new(Inbox::new(options.messages, options.message_bytes)),
            lists: Arc::default(),
            faults: Arc::default(),
            queue: Arc::new(EventQueue::new(options.notices, options.clock.clone(), options.random.clone())),
            quota: Mutex::new(Quota::new(options.max_send_rate, options.max_24_hour_send)),
            closing: CancellationToken::new(),
            options,
        };
        Ok(Self { house: Arc::new(house), door: Arc::new(Door::new(listener, address)), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL for SES and SQS clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of its one queue.
    pub fn queue_url(&self) -> String {
        self.house.queue_url.clone()
    }

    /// What it was sent; stays usable while it runs.
    pub fn messages(&self) -> Arc<Inbox> {
        self.house.inbox.clone()
    }

    /// SES's suppression lists.
    pub fn lists(&self) -> Arc<Lists> {
        self.house.lists.clone()
    }

    /// What is to go wrong.
    pub fn faults(&self) -> Arc<Faults> {
        self.house.faults.clone()
    }

    /// What lets connections in: closed, SES is down.
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    /// The events queue.
    pub fn queue(&self) -> Arc<EventQueue> {
        self.house.queue.clone()
    }

    /// Serves until `drain`; then takes no more connections, ends long polls and hanging calls,
    /// and waits up to [`DRAIN_TIME`] for the rest.
    pub async fn run(self, drain: CancellationToken) {
        let closing = self.house.closing.clone();
        let service = router(self.house).into_make_service_with_connect_info::<Fuse>();
        let draining = drain.clone();
        let served = axum::serve(Entrance::new(self.door), service).with_graceful_shutdown(async move {
            draining.cancelled().await;
            closing.cancel();
        });
        let late = async {
            drain.cancelled().await;
            tokio::time::sleep(DRAIN_TIME).await;
        };
        tokio::select! {
            // Never an error: axum's accept loop waits out every fault.
            _ = served => {}
            () = late => {}
        }
    }
}

fn router(house: Shared) -> Router {
    Router::new()
        .route("/v2/email/outbound-emails", post(ses::send_email))
        .route("/v2/email/account", get(ses::get_account))
        .route("/v2/email/suppression/addresses", get(lists::list).put(lists::put))
        .route("/v2/email/suppression/addresses/{address}", get(lists::show).delete(lists::delete))
        .route("/", post(sqs::call))
        .route("/{account}/{queue}", post(sqs::call))
        .route("/sandbox/messages", get(control::messages).delete(control::clear_messages))
        .route("/sandbox/faults", get(control::faults).post(control::script).delete(control::clear_faults))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(house)
}

async fn unknown(State(house): State<Shared>) -> Response<Body> {
    house.refused(&Refusal::new(404, "UnknownOperationException", "The sandbox does not know this operation."))
}

impl House {
    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id as SES makes them: region's prefix, time, randomness.
    fn message_id(&self, at: Timestamp) -> String {
        format!("0102{:012x}-{}-000000", at.millis(), self.uuid())
    }

    fn uuid(&self) -> String {
        uuid(&*self.options.random)
    }

    fn refused(&self, refusal: &Refusal) -> Response<Body> {
        self.reply(refusal.status, Some(refusal.code), &refusal.body())
    }

    fn reply(&self, status: u16, error: Option<&str>, body: &Value) -> Response<Body> {
        match error {
            Some(error) => self.reply_as("application/json", status, &[("x-amzn-errortype", error.to_owned())], body),
            None => self.reply_as("application/json", status, &[], body),
        }
    }

    fn reply_as(
        &self,
        kind: &'static str,
        status: u16,
        extra: &[(&'static str, String)],
        body: &Value,
    ) -> Response<Body> {
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(kind));
        let id = [("x-amzn-requestid", self.uuid())];
        for (name, value) in extra.iter().chain(&id) {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(*name, value);
            }
        }
        response
    }
}

/// 32 hex digits in a UUID's five groups.
fn uuid(random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}
