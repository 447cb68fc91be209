//! Amazon SES v2 by the AWS SDK: SendEmail with raw content, GetAccount, and SES's suppression lists.
//!
//! Promises: every call names its configuration set and tags; none names a FromEmailAddress, which
//! would replace the From field. The SDK retries nothing: SendEmail has no idempotency token, so
//! who retries must know it. An answer becomes an [`Outcome`] by `upstream::classify`;
//! [`Taken`] is made here and nowhere else, from a 200 with a message id. Calls and octets in
//! flight are bounded, and a call waits for its turn at most [`Options::queue_time`].
//!
//! Memory: the SDK holds a message about four times (the octets, their base64, the JSON, the
//! request body), so a call counts [`COPIES`] times its size against [`Options::bytes_in_flight`].
//!
//! Dropping a [`Mailer::send`] future gives its permits back at once and closes its connection.
//! What had left already SES may still take; the caller that drops it has an unknown outcome.
//!
//! What can go wrong: whether SES took a message is unknown when a connection breaks after it was
//! used. Before that nothing has left: see `Trail`, which watches how far a call came.

mod lists;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sesv2::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use aws_sdk_sesv2::config::{ConfigBag, Intercept, RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig};
use aws_sdk_sesv2::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, MessageTag, RawMessage};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::journal;
use crate::mail::Taken;
use crate::secret::Secret;
use crate::store::Pending;
use crate::upstream::classify::{Failure, classify, tidy};
use crate::upstream::{Account, Call, Mailer, Outcome};

/// How often a message lies in memory while its call is in flight.
pub const COPIES: usize = 4;
/// Longest time for name, connection and TLS handshake.
pub const CONNECT_TIME: Duration = Duration::from_secs(3);
/// An idle connection is closed after this, before SES closes it under a call: a call that meets
/// the close has an unknown outcome.
pub const IDLE_TIME: Duration = Duration::from_secs(20);
/// Messages above this get [`Options::large_call_time`].
pub const LARGE: usize = 5 * 1024 * 1024;

/// Octets are counted in units of this, so that any bound fits a semaphore's 32-bit request.
const UNIT: usize = 1024;

/// Bounds and time-outs of the mailer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Another endpoint than the region's; `None` leaves the SDK's own `AWS_ENDPOINT_URL_SESV2`.
    pub endpoint_url: Option<String>,
    /// Most calls at once; a connection each.
    pub calls_in_flight: usize,
    /// Most octets held by calls at once, each message counted [`COPIES`] times. A message above
    /// it goes alone.
    pub bytes_in_flight: usize,
    /// Longest time from sending to the whole answer.
    pub call_time: Duration,
    /// The same for messages above [`LARGE`].
    pub large_call_time: Duration,
    /// Longest wait for a turn; then the outcome is `Retry(Busy)`.
    pub queue_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint_url: None,
            calls_in_flight: 64,
            bytes_in_flight: 256 * 1024 * 1024,
            call_time: Duration::from_secs(30),
            large_call_time: Duration::from_secs(60),
            queue_time: Duration::from_secs(10),
        }
    }
}

/// Where AWS credentials come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The SDK's default chain: environment, profile, web identity, container, instance role.
    Chain,
    /// These. For the sandbox and for tests; long-lived keys have no place in production.
    Static {
        /// Access key id.
        access_key_id: String,
        /// Secret access key, ASCII.
        secret_access_key: Secret,
    },
}

/// The configuration all AWS clients are made from, with the one HTTP client they share. Without a
/// `region` the SDK's chain is asked for it, which may ask the network.
pub async fn sdk_config(region: Option<String>, credentials: Credentials) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    match credentials {
        Credentials::Chain => loader,
        Credentials::Static { access_key_id, secret_access_key } => {
            let secret = String::from_utf8_lossy(secret_access_key.expose());
            loader.credentials_provider(aws_sdk_sesv2::config::Credentials::new(
                access_key_id,
                secret,
                None,
                None,
                "bulkhead-static",
            ))
        }
    }
    .load()
    .await
}

/// One pool of connections. It sets TCP_NODELAY on each by default.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .pool_idle_timeout(IDLE_TIME)
        .build_https()
}

/// SES v2 as a [`Mailer`].
#[derive(Debug)]
pub struct SesMailer {
    client: aws_sdk_sesv2::Client,
    has_region: bool,
    calls: Arc<Semaphore>,
    units: Arc<Semaphore>,
    all_units: u32,
    options: Options,
}

impl SesMailer {
    /// A mailer over `config`'s HTTP client and credentials.
    pub fn new(config: &SdkConfig, options: Options) -> Self {
        let mut builder = aws_sdk_sesv2::config::Builder::from(config)
            .behavior_version(BehaviorVersion::v2026_01_12())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(times(options.call_time))
            .interceptor(Watch);
        if let Some(url) = &options.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        let all_units = u32::try_from(options.bytes_in_flight.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        Self {
            client: aws_sdk_sesv2::Client::from_conf(builder.build()),
            has_region: config.region().is_some(),
            calls: Arc::new(Semaphore::new(options.calls_in_flight.clamp(1, Semaphore::MAX_PERMITS))),
            units: Arc::new(Semaphore::new(usize::try_from(all_units).unwrap_or(Semaphore::MAX_PERMITS))),
            all_units,
            options,
        }
    }

    /// GetAccount. It waits for no turn: it carries nothing, and is asked most when calls are stuck.
    async fn ask_account(&self) -> Result<Account, String> {
        let trail = Trail::default();
        let answer = TRAIL.scope(trail.clone(), self.client.get_account().send()).await;
        let account = answer.map_err(|error| match classify(&self.failure(error, &trail)) {
            Outcome::Retry(_, words)
            | Outcome::Refused(_, words)
            | Outcome::Paused(_, words)
            | Outcome::Unknown(words) => words,
            Outcome::Sent(taken) => taken.ses_id().to_owned(),
        })?;
        let quota = account.send_quota().ok_or("GetAccount answered without SendQuota")?;
        Ok(Account {
            max_send_rate: quota.max_send_rate(),
            max_24_hour_send: quota.max24_hour_send(),
            sent_last_24_hours: quota.sent_last24_hours(),
            sending_enabled: account.sending_enabled(),
            production_access: account.production_access_enabled(),
            enforcement_status: account.enforcement_status().unwrap_or_default().to_owned(),
        })
    }

    async fn offer(&self, call: Call) -> Outcome {
        let _turn = match self.turn(call.raw.len()).await {
            Ok(turn) => turn,
            Err(words) => return classify(&Failure::Busy(words)),
        };
        let began = Instant::now();
        let outcome = self.ask(call).await;
        journal::ses_called(&outcome, began.elapsed());
        outcome
    }

    /// Waits for room: octets first, then a call, so that a large message never holds a call slot
    /// while it waits for octets. Both queues are first come, first served.
    async fn turn(&self, bytes: usize) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), String> {
        let units = u32::try_from(bytes.saturating_mul(COPIES).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.all_units);
        let wait = async {
            let octets = self.units.clone().acquire_many_owned(units).await?;
            let slot = self.calls.clone().acquire_owned().await?;
            Ok((octets, slot))
        };
        match tokio::time::timeout(self.options.queue_time, wait).await {
            Ok(turn) => turn.map_err(|error: tokio::sync::AcquireError| error.to_string()),
            Err(_) => Err(format!(
                "no turn within {:?}: {} calls of {} and {} KiB of {} KiB are free",
                self.options.queue_time,
                self.calls.available_permits(),
                self.options.calls_in_flight,
                self.units.available_permits(),
                self.all_units
            )),
        }
    }

    async fn ask(&self, call: Call) -> Outcome {
        let large = call.raw.len() > LARGE;
        let trail = Trail::default();
        let request = match request(&self.client, call) {
            Ok(request) => request,
            Err(words) => return classify(&Failure::NotSent(words)),
        };
        // The watch is the client's, made once; what it sees goes into the trail of this call.
        let answer = if large {
            let longer = aws_sdk_sesv2::config::Config::builder().timeout_config(times(self.options.large_call_time));
            TRAIL.scope(trail.clone(), request.customize().config_override(longer).send()).await
        } else {
            TRAIL.scope(trail.clone(), request.send()).await
        };
        match answer {
            Ok(answer) => match answer.message_id {
                Some(id) if !id.is_empty() => Outcome::Sent(Taken::by_ses(id)),
                Some(_) | None => classify(&Failure::Interrupted("SES answered 200 without a MessageId".into())),
            },
            Err(error) => classify(&self.failure(error, &trail)),
        }
    }

    /// What an SDK error says about what left and what came back.
    fn failure<E>(&self, error: SdkError<E, HttpResponse>, trail: &Trail) -> Failure
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match &error {
            SdkError::ServiceError(answer) => {
                let meta = answer.err().meta();
                answered(answer.raw(), meta.code(), meta.message(), &error)
            }
            // The status came, the body did not, or makes no sense.
            SdkError::ResponseError(answer) => answered(answer.raw(), None, None, &error),
            SdkError::ConstructionFailure(_) => Failure::NotSent(told(&error)),
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => match trail.reached() {
                // Without a region endpoint or signature cannot be made, whichever comes first.
                Stage::Preparing | Stage::Signing if !self.has_region => {
                    Failure::CredentialsMissing(format!("no AWS region is set and none was found: {}", told(&error)))
                }
                Stage::Preparing => Failure::CredentialsMissing(told(&error)),
                Stage::Signing | Stage::Connecting => Failure::NotSent(told(&error)),
                Stage::Connected => Failure::Interrupted(told(&error)),
            },
            // The SDK's enum may grow: what we do not know may have left.
            _ => Failure::Interrupted(told(&error)),
        }
    }
}

impl Mailer for SesMailer {
    fn send(&self, call: Call) -> Pending<'_, Outcome> {
        Box::pin(self.offer(call))
    }

    fn account(&self) -> Pending<'_, Result<Account, String>> {
        Box::pin(self.ask_account())
    }
}

/// How far a call came. Everything before [`Stage::Connected`] left nothing behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Region, endpoint and credentials are being found.
    Preparing,
    /// They were found; the request is being signed.
    Signing,
    /// Waiting for a connection.
    Connecting,
    /// A connection was given the request; some of it may have left.
    Connected,
}

tokio::task_local! {
    /// The trail of the call under way.
    static TRAIL: Trail;
}

/// Watches every call from inside the SDK. Its errors alone do not tell a refused connection from a
/// broken one, nor missing credentials from either.
#[derive(Clone, Copy, Debug)]
struct Watch;

/// What [`Watch`] saw of one call.
#[derive(Clone, Debug, Default)]
struct Trail(Arc<Mutex<Steps>>);

#[derive(Debug, Default)]
struct Steps {
    signing: bool,
    transmitting: bool,
    connection: Option<CaptureSmithyConnection>,
}

impl Trail {
    fn note(&self, what: impl FnOnce(&mut Steps)) {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn reached(&self) -> Stage {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&steps.connection, steps.transmitting, steps.signing) {
            (Some(connection), ..) if connection.get().is_none() => Stage::Connecting,
            // Without the SDK's watch nobody can tell: it may have left.
            (_, true, _) => Stage::Connected,
            (_, false, true) => Stage::Signing,
            (_, false, false) => Stage::Preparing,
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "Watch"
    }

    fn read_before_signing(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let _ = TRAIL.try_with(|trail| trail.note(|steps| steps.signing = true));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The SDK's own connection watch fills this when a connection is given the request.
        let connection = bag.load::<CaptureSmithyConnection>().cloned();
        let _ = TRAIL.try_with(|trail| {
            trail.note(|steps| {
                steps.transmitting = true;
                steps.connection = connection;
            });
        });
        Ok(())
    }
}

fn times(call_time: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIME).operation_attempt_timeout(call_time).build()
}

fn request(
    client: &aws_sdk_sesv2::Client,
    call: Call,
) -> Result<aws_sdk_sesv2::operation::send_email::builders::SendEmailFluentBuilder, String> {
    let raw = RawMessage::builder().data(Blob::new(call.raw)).build().map_err(|e| e.to_string())?;
    let recipients = call.recipients.iter().map(ToString::to_string).collect();
    let tags = call
        .tags
        .into_iter()
        .map(|(name, value)| MessageTag::builder().name(name).value(value).build())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    Ok(client
        .send_email()
        .content(EmailContent::builder().raw(raw).build())
        .destination(Destination::builder().set_to_addresses(Some(recipients)).build())
        .configuration_set_name(call.configuration_set.as_str())
        .set_email_tags(Some(tags))
        .set_tenant_name(call.ses_tenant.map(|tenant| tenant.to_string())))
}

/// An answer with a status: an error's name and words, or a success that cannot be read.
fn answered<E>(
    raw: &HttpResponse,
    code: Option<&str>,
    message: Option<&str>,
    error: &SdkError<E, HttpResponse>,
) -> Failure
where
    E: std::error::Error + Send + Sync + 'static,
{
    if raw.status().is_success() {
        return Failure::Interrupted(format!("SES answered {} unreadably: {}", raw.status(), told(error)));
    }
    let code = code.or_else(|| raw.headers().get("x-amzn-errortype")).map(str::to_owned);
    let message = match message {
        Some(message) => message.to_owned(),
        // Not SES's JSON: a proxy's page, or nothing. Its beginning says more than "unhandled".
        None => raw
            .body()
            .bytes()
            .map_or_else(String::new, |bytes| tidy(&String::from_utf8_lossy(bytes.get(..2000).unwrap_or(bytes)))),
    };
    Failure::Service { status: raw.status().as_u16(), code, message }
}

/// An SDK error with all its causes, on one line.
fn told<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut words = String::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !words.contains(&text) {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(&text);
        }
        next = cause.source();
    }
    tidy(&words)
}
