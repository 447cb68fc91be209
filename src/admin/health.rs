//! Health and metrics over HTTP, on the admin address.
//!
//! | path | says |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs: for restarts |
//! | `GET /readyz` | 200 while it takes mail; 503 with the reasons otherwise: for load balancers |
//! | `GET /metrics` | every metric in Prometheus's text format |
//!
//! Promises: nothing here changes anything, asks the store or makes a log line; an answer ends its
//! connection. At most [`CONNECTIONS`] at a time, each for [`CONNECTION_TIME`] at most.
//! What can go wrong: the address is taken, or is not this machine's; that is a start-up error.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::view::{ListenerView, Status};
use crate::time::Timestamp;

/// Most connections to the admin address at a time; more wait.
pub const CONNECTIONS: usize = 64;
/// Longest life of a connection, from accept to close.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// How the process is: what `/readyz` and `status` tell.
pub struct Health {
    started: Timestamp,
    listeners: OnceLock<Vec<ListenerView>>,
    admin: OnceLock<SocketAddr>,
    draining: AtomicBool,
    store: Box<dyn Fn() -> bool + Send + Sync>,
    outbox: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// The numbers of this process. There is one recorder in a process, so there is one of these.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Why metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The recorder refused, most likely since there is one already.
    #[error("metrics cannot be set up: {0}")]
    Recorder(#[from] BuildError),
}

impl Health {
    /// A process that started at `now` and whose store `available` can tell about.
    pub fn new(now: Timestamp, available: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            started: now,
            listeners: OnceLock::new(),
            admin: OnceLock::new(),
            draining: AtomicBool::new(false),
            store: Box::new(available),
            outbox: Box::new(|| None),
        }
    }

    /// The same, with an outbox whose `fault` says why nothing can be held.
    pub fn holding(self, fault: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { outbox: Box::new(fault), ..self }
    }

    /// The listeners are bound and answer. Counts once.
    pub fn listening(&self, listeners: Vec<ListenerView>) {
        let _ = self.listeners.set(listeners);
    }

    /// The admin address answers. Counts once.
    pub fn admin_at(&self, address: SocketAddr) {
        let _ = self.admin.set(address);
    }

    /// From now on no mail is taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why no mail is taken, or not all; nothing when it is.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        if self.listeners.get().is_none() {
            reasons.push("the listeners are not up yet".into());
        }
        if !(self.store)() {
            reasons.push("the store has stopped; restart the relay, the log's store_failed line says why".into());
        }
        if let Some(fault) = (self.outbox)() {
            reasons.push(format!("no mail can be held: {fault}"));
        }
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("the relay is draining".into());
        }
        reasons
    }

    /// What `status` says about the process.
    pub fn status(&self) -> Status {
        let reasons = self.reasons();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            running: true,
            pid: Some(std::process::id()),
            started: Some(self.started.rfc3339()),
            ready: reasons.is_empty(),
            reasons,
            listeners: self.listeners.get().cloned().unwrap_or_default(),
            admin: self.admin.get().map(ToString::to_string),
            tenants: 0,
            credentials: 0,
        }
    }
}

impl Metrics {
    /// Makes this process's recorder, with buckets and help texts.
    pub fn install() -> Result<Self, MetricsError> {
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in BUCKETS {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).into()), buckets)?;
        }
        let handle = builder.install_recorder()?;
        describe();
        // So that who watches for 0 sees 1 before; `store_failed` sets it to 0.
        gauge!("bulkhead_store_available").set(1.0);
        Ok(Self(handle))
    }

    /// Every metric in Prometheus's text format.
    pub fn text(&self) -> String {
        self.0.render()
    }

    /// Folds samples together, so that histograms nobody scrapes stay small. To be called every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

const BUCKETS: &[(&str, &[f64])] = &[
    ("bulkhead_ses_call_seconds", &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
    ("bulkhead_message_seconds", &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
    ("bulkhead_webhook_seconds", &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
    ("bulkhead_store_commit_seconds", &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]),
    ("bulkhead_outbox_held_seconds", &[1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 172800.0]),
    ("bulkhead_event_lag_seconds", &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0]),
];

const COUNTERS: &[(&str, &str)] = &[
    ("bulkhead_sessions_total", "Connections admitted"),
    ("bulkhead_sessions_closed_total", "Sessions ended, by how"),
    ("bulkhead_sessions_refused_total", "Connections refused at the door, by the limit that refused them"),
    ("bulkhead_tls_failures_total", "TLS handshakes that failed"),
    ("bulkhead_logins_total", "AUTH by outcome"),
    ("bulkhead_replies_total", "SMTP replies by code"),
    ("bulkhead_messages_total", "Messages whose data came in whole, by outcome"),
    ("bulkhead_messages_discarded_total", "Held messages that an operator gave up"),
    ("bulkhead_recipients_relayed_total", "Recipients SES took a message for"),
    ("bulkhead_recipients_refused_total", "Recipients SES refused for good while it took the message for others"),
    ("bulkhead_recipients_doubled_total", "Recipients that a client's next try reaches twice"),
    ("bulkhead_recipients_suppressed_total", "Recipients refused as suppressed"),
    ("bulkhead_suppression_syncs_total", "Comparisons with the suppression lists of SES, by outcome"),
    ("bulkhead_upstream_alarms_total", "Alarms about SES that the operator must see to"),
    ("bulkhead_events_total", "SES events by kind and outcome"),
    ("bulkhead_notices_total", "Queue items that are no SES event, by outcome"),
    ("bulkhead_queue_failures_total", "SQS calls that failed, by call"),
    ("bulkhead_store_writes_total", "Records written"),
    ("bulkhead_messages_held_total", "Messages that the outbox took over, by cause"),
    ("bulkhead_outbox_attempts_total", "Attempts at held messages that ended without an end of the message, by cause"),
    ("bulkhead_outbox_messages_total", "Held messages that came to their end, by outcome"),
    ("bulkhead_outcomes_unknown_total", "Calls whose outcome never came to be known: SES may have taken the message"),
    ("bulkhead_breakers_opened_total", "How often a breaker opened, by cause"),
    ("bulkhead_credentials_suspected_total", "Credentials that came to seem stolen, by what follows"),
    ("bulkhead_volumes_unusual_total", "Tenants' hours whose volume was unusual, by which way it went"),
    ("bulkhead_watch_skipped_total", "Recipients that were accepted and not watched"),
    ("bulkhead_reports_total", "Delivery status notifications and notices of the relay's own, by kind"),
    (
        "bulkhead_standing_changes_total",
        "Changes of standing, by whose it is, the step, and whether it is only told of",
    ),
    (
        "bulkhead_messages_would_be_stopped_total",
        "Messages that passed because the standing against them is only told of",
    ),
    ("bulkhead_announcements_told_total", "Announcements that somebody was told of, by kind and by whom"),
    ("bulkhead_announcements_lost_total", "Announcements that somebody will not be told of, by kind and by whom"),
];

const GAUGES: &[(&str, &str)] = &[
    ("bulkhead_sessions_open", "Sessions open now"),
    ("bulkhead_damaged_records", "Records of tenants and credentials that cannot be read, whose mail is deferred"),
    ("bulkhead_credentials_held", "Credentials on hold"),
    ("bulkhead_watch_credentials", "Credentials whose habits are in memory"),
    ("bulkhead_watch_bytes", "Octets of the habits in memory"),
    ("bulkhead_store_available", "1 while the store takes commits, 0 once it has stopped"),
    ("bulkhead_outbox_messages", "Messages held"),
    ("bulkhead_outbox_bytes", "Octets of messages held"),
    ("bulkhead_outbox_oldest_seconds", "Age of the oldest message held"),
    ("bulkhead_outbox_sending", "Held messages that are being sent"),
    ("bulkhead_outbox_lanes", "Streams with messages held"),
    ("bulkhead_outbox_lanes_held", "Streams with messages held whose sending is held too"),
    ("bulkhead_outbox_available", "1 while messages can be held, 0 while they cannot"),
    ("bulkhead_standings", "Tenants and streams by how far their mail is restrained, also where that is only told of"),
    ("bulkhead_account_bounce_rate", "Permanent bounces of all recipients that SES took, 0 to 1, by window"),
    ("bulkhead_account_complaint_rate", "Complaints of all recipients that SES took, 0 to 1, by window"),
    ("bulkhead_send_rate", "Recipients a second that SES takes, as it says"),
    ("bulkhead_announcements_pending", "Announcements that somebody is still to be told of"),
    ("bulkhead_webhook_enabled", "1 while announcements are offered to the webhook, 0 once it has answered 410"),
    ("bulkhead_quota_recipients", "Recipients in 24 hours that SES takes, as it says; 0: no limit is known"),
    ("bulkhead_quota_used_recipients", "Recipients that SES took in the last 24 hours, as it says"),
    ("bulkhead_outbox_lanes_waiting", "Streams with messages held that wait for a limit, by which"),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("bulkhead_ses_call_seconds", "Time of one SendEmail call, by outcome"),
    ("bulkhead_message_seconds", "Time from the end of the data to the reply, by outcome"),
    ("bulkhead_store_commit_seconds", "Time of one durable commit"),
    ("bulkhead_outbox_held_seconds", "Time from a held message's data to its end"),
    ("bulkhead_webhook_seconds", "Time of one POST to the webhook, by outcome"),
    ("bulkhead_event_lag_seconds", "Time from what an event tells to its being applied"),
];

fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, Unit::Count, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, Unit::Count, *help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(*name, Unit::Seconds, *help);
    }
}

/// The HTTP server, bound.
pub struct Server {
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Metrics,
}

impl Server {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr, health: Arc<Health>, metrics: Metrics) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        health.admin_at(listener.local_addr()?);
        Ok(Self { listener, health, metrics })
    }

    /// Where it answers.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`. It outlives the drain, so that `/readyz` can tell of it.
    pub async fn run(self, stop: CancellationToken) {
        let router = routes(self.health, self.metrics);
        let doors = Doors { listener: self.listener, permits: Arc::new(Semaphore::new(CONNECTIONS)) };
        let served = axum::serve(doors, router).with_graceful_shutdown(stop.cancelled_owned());
        // `axum::serve` keeps on accepting whatever happens; its result carries no error.
        let _ = served.await;
    }
}

type Shared = (Arc<Health>, Metrics);

fn routes(health: Arc<Health>, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(numbers))
        .with_state((health, metrics))
}

async fn healthz() -> Response {
    last((StatusCode::OK, "ok\n"))
}

async fn readyz(State((health, _)): State<Shared>) -> Response {
    let reasons = health.reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    last((status, Json(serde_json::json!({"ready": reasons.is_empty(), "reasons": reasons}))))
}

async fn numbers(State((_, metrics)): State<Shared>) -> Response {
    last(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.text()))
}

/// The answer is the connection's last.
fn last(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets so many in at a time.
struct Doors {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

/// A connection with an end.
struct Guest {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl axum::serve::Listener for Doors {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        // The semaphore is never closed, so there is always a permit in the end.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        (Guest { stream, end: Box::pin(tokio::time::sleep(CONNECTION_TIME)), _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Guest {
    fn ended(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// The one recorder of the test process.
    fn metrics() -> Metrics {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        METRICS.get_or_init(|| Metrics::install().unwrap()).clone()
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get_path(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    async fn served(health: Arc<Health>) -> (SocketAddr, CancellationToken) {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), health, metrics()).await.unwrap();
        let address = server.address().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        (address, stop)
    }

    #[tokio::test]
    async fn readiness_follows_the_process_and_names_each_reason() {
        let available = Arc::new(AtomicBool::new(true));
        let asked = available.clone();
        let health = Arc::new(Health::new(Timestamp::from_millis(0), move || asked.load(Ordering::Relaxed)));
        let (address, _stop) = served(health.clone()).await;

        let starting = get_path(address, "/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503"), "{starting}");
        assert!(starting.contains("not up yet"), "{starting}");

        health.listening(Vec::new());
        let up = get_path(address, "/readyz").await;
        assert!(up.starts_with("HTTP/1.1 200") && up.ends_with(r#"{"ready":true,"reasons":[]}"#), "{up}");

        available.store(false, Ordering::Relaxed);
        let stopped = get_path(address, "/readyz").await;
        assert!(stopped.starts_with("HTTP/1.1 503") && stopped.contains("store has stopped"), "{stopped}");
        available.store(true, Ordering::Relaxed);

        health.drain();
        let draining = get_path(address, "/readyz").await;
        assert!(draining.starts_with("HTTP/1.1 503") && draining.contains("draining"), "{draining}");
        assert!(get_path(address, "/healthz").await.starts_with("HTTP/1.1 200"), "alive all the while");
        assert_eq!(health.status().reasons.len(), 1);
    }

    #[tokio::test]
    async fn metrics_come_with_help_and_buckets() {
        let health = Arc::new(Health::new(Timestamp::from_millis(0), || true));
        let (address, _stop) = served(health).await;
        crate::journal::store_committed(Duration::from_millis(3), 2);
        let text = get_path(address, "/metrics").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("# HELP bulkhead_store_commit_seconds Time of one durable commit"), "{text}");
        assert!(text.contains("# TYPE bulkhead_store_commit_seconds histogram"), "{text}");
        assert!(text.contains("bulkhead_store_commit_seconds_bucket{le=\"0.005\"}"), "{text}");
        assert!(text.contains("bulkhead_store_writes_total"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_ends_the_connection_and_nothing_can_be_changed() {
        let health = Arc::new(Health::new(Timestamp::from_millis(0), || true));
        let (address, _stop) = served(health).await;
        let two = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(ask(address, two).await.matches("HTTP/1.1 200").count(), 1);
        for method in ["POST", "PUT", "DELETE"] {
            let answer =
                ask(address, &format!("{method} /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        }
        let answer = ask(address, "GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_shut_out_in_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut doors = Doors { listener, permits: Arc::new(Semaphore::new(1)) };
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut guest, _) = axum::serve::Listener::accept(&mut doors).await;
        assert_eq!(doors.permits.available_permits(), 0);
        let error = guest.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(guest);
        assert_eq!(doors.permits.available_permits(), 1);
    }

    /// Every metric that any source names has its help text here, and the other way round.
    #[test]
    fn every_metric_is_described() {
        fn walk(folder: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|ext| ext == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for macro_name in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
                        found.extend(
                            text.split(macro_name).skip(1).filter_map(|rest| rest.split('"').next()).map(Into::into),
                        );
                    }
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        // What the search itself looks for, in this very file.
        found.retain(|name: &String| name.starts_with("bulkhead_"));
        let described: BTreeSet<String> =
            [COUNTERS, GAUGES, HISTOGRAMS].concat().iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, described);
    }
}
