//! The mailer against the sandbox, through the real AWS SDK: what a call carries, and what becomes
//! of every way in which it can go wrong.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::ses::{self, Credentials, SesMailer, sdk_config};
use bulkhead::mail::{ConfigurationSet, Mailbox, SesTenant};
use bulkhead::sandbox::fault::{Fault, Faults, Kind};
use bulkhead::sandbox::inbox::Inbox;
use bulkhead::sandbox::socket::Door;
use bulkhead::sandbox::{self, Sandbox, SesTenantResources};
use bulkhead::secret::Secret;
use bulkhead::store::Pending;
use bulkhead::upstream::{Account, Call, Mailer, Outcome, Paused, Refused, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const MESSAGE: &[u8] = b"From: App <app@acme.example>\r\nTo: a@ok.example\r\nSubject: hello\r\n\r\nbody\r\n";

struct Running {
    url: String,
    inbox: Arc<Inbox>,
    faults: Arc<Faults>,
    door: Arc<Door>,
    _drain: DropGuard,
}

async fn sandbox(change: impl FnOnce(&mut sandbox::Options)) -> Running {
    let mut options = sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom));
    change(&mut options);
    let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
    let drain = CancellationToken::new();
    let running = Running {
        url: sandbox.url(),
        inbox: sandbox.messages(),
        faults: sandbox.faults(),
        door: sandbox.door(),
        _drain: drain.clone().drop_guard(),
    };
    tokio::spawn(sandbox.run(drain));
    running
}

async fn config() -> SdkConfig {
    let credentials =
        Credentials::Static { access_key_id: "test".into(), secret_access_key: Secret::new(b"test".to_vec()) };
    sdk_config(Some("eu-west-1".into()), credentials).await
}

fn options(url: &str) -> ses::Options {
    ses::Options { endpoint_url: Some(url.to_owned()), ..ses::Options::default() }
}

async fn mailer(url: &str) -> SesMailer {
    SesMailer::new(&config().await, options(url))
}

fn call() -> Call {
    to(&["a@ok.example"])
}

fn to(recipients: &[&str]) -> Call {
    Call {
        raw: MESSAGE.to_vec(),
        recipients: recipients.iter().map(|r| Mailbox::parse(r.as_bytes()).unwrap()).collect(),
        configuration_set: ConfigurationSet::parse("acme-tx").unwrap(),
        tags: vec![("tenant".into(), "acme".into()), ("stream".into(), "tx".into())],
        ses_tenant: None,
    }
}

fn with(raw: impl Into<Vec<u8>>) -> Call {
    Call { raw: raw.into(), ..call() }
}

fn sized(octets: usize) -> Call {
    let mut raw = MESSAGE.to_vec();
    raw.resize(octets, b'x');
    with(raw)
}

#[track_caller]
fn sent_id(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Sent(taken) => taken.ses_id(),
        other => panic!("not sent: {other:?}"),
    }
}

#[track_caller]
fn assert_retry(outcome: &Outcome, wanted: Retry) {
    assert!(matches!(outcome, Outcome::Retry(why, _) if *why == wanted), "{outcome:?} is not {wanted:?}");
}

#[track_caller]
fn assert_refused(outcome: &Outcome, wanted: Refused, words: &str) {
    let Outcome::Refused(why, said) = outcome else { panic!("{outcome:?} is not refused") };
    assert_eq!(*why, wanted, "{said}");
    assert!(said.contains(words), "{said:?} does not say {words:?}");
}

#[track_caller]
fn assert_unknown(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Unknown(words) if !words.is_empty()), "{outcome:?} is not unknown");
}

#[tokio::test]
async fn a_call_arrives_octet_by_octet_with_its_set_tags_tenant_and_envelope() {
    let house = sandbox(|_| ()).await;
    let mut raw = MESSAGE.to_vec();
    raw.extend(0_u8..=255);
    raw.extend_from_slice(b"\r\n.\r\n\n\r \0\xff\xfe end without a newline");
    let mut call = to(&["a@ok.example", "B.c+d@Other.Example"]);
    call.raw = raw.clone();
    call.ses_tenant = Some(SesTenant::parse("acme_ses").unwrap());

    let outcome = mailer(&house.url).await.send(call).await;

    let got = house.inbox.wait_for(1).await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].id, sent_id(&outcome));
    assert_eq!(got[0].raw, raw);
    assert_eq!(got[0].destination, ["a@ok.example", "B.c+d@other.example"]);
    assert_eq!(got[0].configuration_set.as_deref(), Some("acme-tx"));
    assert_eq!(got[0].tenant_name.as_deref(), Some("acme_ses"));
    assert_eq!(got[0].tags, [("tenant".into(), "acme".into()), ("stream".into(), "tx".into())]);
}

#[tokio::test]
async fn what_the_call_says_wins_over_what_the_header_section_says() {
    let house = sandbox(|_| ()).await;
    let raw = [b"X-SES-CONFIGURATION-SET: other\r\nX-SES-MESSAGE-TAGS: tenant=other\r\n", MESSAGE].concat();
    sent_id(&mailer(&house.url).await.send(with(raw)).await);
    let got = house.inbox.wait_for(1).await;
    assert_eq!(got[0].configuration_set.as_deref(), Some("acme-tx"));
    assert_eq!(got[0].tag("tenant"), Some("acme"));
}

#[tokio::test]
async fn every_answer_of_ses_has_its_outcome_through_the_sdk() {
    let house = sandbox(|_| ()).await;
    let mailer = mailer(&house.url).await;
    for (kind, wanted) in [
        (Kind::Throttle, Retry::Throttled),
        (Kind::Quota, Retry::DailyQuota),
        (Kind::Internal, Retry::Service),
        (Kind::Unavailable, Retry::Service),
        (Kind::AccessDenied, Retry::AccessDenied),
        (Kind::NotAssociated, Retry::NotAssociated),
        (Kind::MissingSet, Retry::ConfigurationSetMissing),
        (Kind::MissingTenant, Retry::TenantMissing),
        (Kind::ExpiredToken, Retry::Credentials),
        (Kind::WrongCredentials, Retry::Credentials),
        (Kind::MailFrom, Retry::MailFromDomain),
    ] {
        assert!(house.faults.script([Fault::once(kind)]));
        assert_retry(&mailer.send(call()).await, wanted);
    }
    for (kind, wanted) in [
        (Kind::Paused, Paused::Account),
        (Kind::SetPaused, Paused::ConfigurationSet),
        (Kind::Suspended, Paused::AccountSuspended),
    ] {
        assert!(house.faults.script([Fault::once(kind)]));
        let outcome = mailer.send(call()).await;
        assert!(matches!(&outcome, Outcome::Paused(what, _) if *what == wanted), "{kind:?}: {outcome:?}");
    }
    for (kind, wanted, words) in [
        (Kind::Reject, Refused::Content, "content"),
        (Kind::BadRequest, Refused::Content, "MIME"),
        (Kind::Unverified, Refused::IdentityNotVerified, "sender@example.com"),
    ] {
        assert!(house.faults.script([Fault::once(kind)]));
        assert_refused(&mailer.send(call()).await, wanted, words);
    }
    assert_eq!(house.inbox.received(), 0, "a refused message was kept");
    assert!(house.faults.waiting().is_empty(), "a call did not reach the sandbox");
    sent_id(&mailer.send(call()).await);
}

#[tokio::test]
async fn the_sdk_never_sends_twice_by_itself() {
    let house = sandbox(|_| ()).await;
    let mailer = mailer(&house.url).await;
    for kind in [
        Kind::Throttle,
        Kind::Internal,
        Kind::Unavailable,
        Kind::ResetConnect,
        Kind::ResetBody,
        Kind::Reset,
        Kind::ResetAfter,
    ] {
        assert!(house.faults.script([Fault::times(kind, 5)]));
        let outcome = mailer.send(call()).await;
        assert!(!matches!(outcome, Outcome::Sent(_)), "{kind:?}: {outcome:?}");
        assert_eq!(house.faults.waiting()[0].count, 4, "{kind:?}");
        house.faults.clear();
    }
    assert_eq!(house.inbox.received(), 1, "reset_after keeps its one message");
}

#[tokio::test]
async fn a_broken_connection_after_the_request_is_an_unknown_outcome() {
    let house = sandbox(|_| ()).await;
    let mailer = mailer(&house.url).await;
    // On a fresh connection and on one that has served before.
    for _ in 0..2 {
        assert!(house.faults.script([Fault::once(Kind::Reset)]));
        assert_unknown(&mailer.send(call()).await);
        sent_id(&mailer.send(call()).await);
    }
    assert_eq!(house.inbox.received(), 2);
    assert!(house.faults.script([Fault::once(Kind::ResetAfter)]));
    assert_unknown(&mailer.send(call()).await);
    assert_eq!(house.inbox.received(), 3, "SES had it");
}

#[tokio::test]
async fn a_connection_that_breaks_under_the_request_is_an_unknown_outcome() {
    let house = sandbox(|_| ()).await;
    let mailer = mailer(&house.url).await;
    for (round, kind) in [Kind::ResetConnect, Kind::ResetBody].into_iter().enumerate() {
        // Small and large, on a fresh connection and on one that has served before.
        for octets in [1024, 2 * 1024 * 1024, 1024] {
            assert!(house.faults.script([Fault::once(kind)]));
            assert_unknown(&mailer.send(sized(octets)).await);
            assert!(house.faults.waiting().is_empty(), "{kind:?} did not strike");
        }
        sent_id(&mailer.send(call()).await);
        assert_eq!(house.inbox.received(), round as u64 + 1, "{kind:?}: the message was taken");
    }
}

#[tokio::test]
async fn while_ses_is_down_nothing_leaves_and_once_it_is_up_all_is_as_before() {
    let house = sandbox(|_| ()).await;
    let used = mailer(&house.url).await;
    for round in 1..=3 {
        sent_id(&used.send(call()).await);
        house.door.close().unwrap();
        let fresh = mailer(&house.url).await;
        assert_retry(&fresh.send(call()).await, Retry::Network);
        // Its connection was broken too. Used before the break is noticed, nobody knows what left;
        // with the connection gone it is as with the fresh one.
        let outcome = used.send(call()).await;
        assert!(matches!(outcome, Outcome::Retry(Retry::Network, _) | Outcome::Unknown(_)), "{outcome:?}");
        assert_retry(&used.send(call()).await, Retry::Network);
        assert_eq!(house.inbox.received(), round * 2 - 1);

        house.door.open().unwrap();
        sent_id(&fresh.send(call()).await);
    }
}

#[tokio::test]
async fn a_call_under_way_when_ses_goes_down_is_an_unknown_outcome() {
    let house = sandbox(|_| ()).await;
    let mailer = Arc::new(mailer(&house.url).await);
    assert!(house.faults.script([Fault::once(Kind::Hang)]));
    let hanging = start(&mailer, call());
    until(|| house.faults.waiting().is_empty()).await;
    let began = Instant::now();
    house.door.close().unwrap();
    assert_unknown(&hanging.await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(10), "not by the break");
    house.door.open().unwrap();
    sent_id(&mailer.send(call()).await);
    assert_eq!(house.inbox.received(), 1);
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_call_time_is_an_unknown_outcome() {
    let house = sandbox(|_| ()).await;
    let options = ses::Options { call_time: Duration::from_millis(300), ..options(&house.url) };
    let mailer = SesMailer::new(&config().await, options);
    assert!(house.faults.script([Fault::once(Kind::Hang)]));
    let began = Instant::now();
    assert_unknown(&mailer.send(call()).await);
    assert!(began.elapsed() >= Duration::from_millis(300), "not by the time-out");
    assert!(began.elapsed() < Duration::from_secs(10), "not by ours");

    assert!(house.faults.script([Fault { delay_ms: 20, ..Fault::once(Kind::Slow) }]));
    sent_id(&mailer.send(call()).await);
}

#[tokio::test]
async fn a_large_message_has_its_own_call_time() {
    let house = sandbox(|_| ()).await;
    let short = Duration::from_millis(300);
    let slow = Fault { delay_ms: 600, ..Fault::once(Kind::Slow) };
    let mailer = SesMailer::new(&config().await, ses::Options { call_time: short, ..options(&house.url) });
    assert!(house.faults.script([slow.clone(), slow]));
    assert_unknown(&mailer.send(call()).await);
    sent_id(&mailer.send(sized(ses::LARGE + 1)).await);
    assert_eq!(house.inbox.all().last().map(|m| m.raw.len()), Some(ses::LARGE + 1));
}

#[tokio::test]
async fn what_never_left_is_a_retry() {
    // Refused: a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_retry(&mailer(&format!("http://{free}")).await.send(call()).await, Retry::Network);

    // A TLS handshake that fails leaves no request behind either.
    let plain = answering(b"220 no TLS here\r\n").await;
    assert_retry(&mailer(&format!("https://{plain}")).await.send(call()).await, Retry::Network);
}

#[tokio::test]
async fn missing_credentials_and_region_are_told_from_a_network_fault() {
    let house = sandbox(|_| ()).await;
    let bare = || SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12());
    let region = Region::new("eu-west-1");
    let http = config().await.http_client().unwrap();

    let none = bare().region(region.clone()).http_client(http.clone()).build();
    assert_retry(&SesMailer::new(&none, options(&house.url)).send(call()).await, Retry::Credentials);

    let profile = aws_config::profile::ProfileFileCredentialsProvider::builder()
        .profile_name("no-such-profile-of-the-bulkhead-tests")
        .build();
    let failing = bare()
        .region(region)
        .http_client(http.clone())
        .credentials_provider(aws_sdk_sesv2::config::SharedCredentialsProvider::new(profile))
        .build();
    assert_retry(&SesMailer::new(&failing, options(&house.url)).send(call()).await, Retry::Credentials);

    let keys = aws_sdk_sesv2::config::Credentials::new("a", "b", None, None, "test");
    let nowhere = bare()
        .http_client(http)
        .credentials_provider(aws_sdk_sesv2::config::SharedCredentialsProvider::new(keys))
        .build();
    for endpoint_url in [None, Some(house.url.clone())] {
        let mailer = SesMailer::new(&nowhere, ses::Options { endpoint_url, ..ses::Options::default() });
        let outcome = mailer.send(call()).await;
        assert_retry(&outcome, Retry::Credentials);
        assert!(matches!(&outcome, Outcome::Retry(_, words) if words.contains("region")), "{outcome:?}");
    }
    assert_eq!(house.inbox.received(), 0);
}

#[tokio::test]
async fn ses_limits_are_met_as_ses_has_them() {
    let house = sandbox(|_| ()).await;
    let mailer = mailer(&house.url).await;
    let many: Vec<String> = (0..51).map(|n| format!("r{n}@ok.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    sent_id(&mailer.send(to(&many[..50])).await);
    // Splitting is the relay's own business: SES's no to 51 is never the client's fault.
    let outcome = mailer.send(to(&many)).await;
    assert_retry(&outcome, Retry::Unrecognised);
    assert!(matches!(&outcome, Outcome::Retry(_, words) if words.contains("Recipient count exceeds 50.")));

    let twice = [b"Subject: again\r\n", MESSAGE].concat();
    assert_refused(&mailer.send(with(twice)).await, Refused::Content, "Duplicate header 'Subject'.");
    let nobody = b"To: a@ok.example\r\n\r\nbody\r\n";
    assert_refused(&mailer.send(with(nobody)).await, Refused::Content, "Missing required header 'From'.");

    let mut ours = call();
    ours.tags.push(("not a tag".into(), "x".into()));
    assert_retry(&mailer.send(ours).await, Retry::Unrecognised);
    assert_eq!(house.inbox.received(), 1);
}

#[tokio::test]
async fn forty_mebibytes_pass_and_one_octet_more_is_too_large() {
    let house = sandbox(|_| ()).await;
    let mailer = mailer(&house.url).await;
    sent_id(&mailer.send(sized(sandbox::check::MESSAGE_BYTES)).await);
    assert_refused(&mailer.send(sized(sandbox::check::MESSAGE_BYTES + 1)).await, Refused::TooLarge, "41943041");
    assert_eq!(house.inbox.received(), 1);
}

#[tokio::test]
async fn sets_identities_and_tenants_the_account_does_not_have_are_found_out() {
    let house = sandbox(|options| {
        options.configuration_sets = Some(vec!["acme-tx".into(), "acme-marketing".into()]);
        options.verified_identities = Some(vec!["acme.example".into()]);
        options.ses_tenants = Some(vec![SesTenantResources {
            name: "acme".into(),
            identities: vec!["acme.example".into()],
            configuration_sets: vec!["acme-tx".into()],
        }]);
    })
    .await;
    let mailer = mailer(&house.url).await;
    let set = |name: &str| ConfigurationSet::parse(name).unwrap();
    let tenant = |name: &str| Some(SesTenant::parse(name).unwrap());

    sent_id(&mailer.send(call()).await);
    sent_id(&mailer.send(Call { ses_tenant: tenant("acme"), ..call() }).await);
    let outcome = mailer.send(Call { configuration_set: set("gone"), ..call() }).await;
    assert_retry(&outcome, Retry::ConfigurationSetMissing);
    let outcome = mailer.send(Call { ses_tenant: tenant("other"), ..call() }).await;
    assert_retry(&outcome, Retry::TenantMissing);
    let crossed = Call { ses_tenant: tenant("acme"), configuration_set: set("acme-marketing"), ..call() };
    assert_retry(&mailer.send(crossed).await, Retry::NotAssociated);
    let stranger = with("From: x@stranger.example\r\n\r\n");
    assert_refused(&mailer.send(stranger).await, Refused::IdentityNotVerified, "x@stranger.example");
    let sender = with("From: x@mail.acme.example\r\nSender: y@stranger.example\r\n\r\n");
    assert_refused(&mailer.send(sender).await, Refused::IdentityNotVerified, "y@stranger.example");
    assert_eq!(house.inbox.received(), 2);
}

#[tokio::test]
async fn rate_and_daily_quota_are_enforced_and_told_by_get_account() {
    let rated = sandbox(|options| options.max_send_rate = 0.001).await;
    let by_rate = mailer(&rated.url).await;
    sent_id(&by_rate.send(to(&["a@ok.example", "b@ok.example"])).await);
    assert_retry(&by_rate.send(call()).await, Retry::Throttled);

    let capped = sandbox(|options| {
        options.max_24_hour_send = Some(2);
        options.enforcement_status = "PROBATION".into();
    })
    .await;
    let by_quota = mailer(&capped.url).await;
    sent_id(&by_quota.send(to(&["a@ok.example", "b@ok.example"])).await);
    assert_retry(&by_quota.send(call()).await, Retry::DailyQuota);
    sent_id(&by_quota.send(to(&["success+x@simulator.amazonses.com"])).await);

    let account = by_quota.account().await.unwrap();
    assert_eq!((account.max_24_hour_send, account.sent_last_24_hours), (2.0, 2.0));
    assert_eq!(account.max_send_rate, 100_000.0);
    assert!(account.sending_enabled && account.production_access);
    assert_eq!(account.enforcement_status, "PROBATION");
    assert_eq!(by_rate.account().await.unwrap().max_24_hour_send, -1.0);

    let paused = sandbox(|options| options.sending_enabled = false).await;
    let mailer = mailer(&paused.url).await;
    assert!(!mailer.account().await.unwrap().sending_enabled);
    assert!(matches!(mailer.send(call()).await, Outcome::Paused(Paused::Account, _)));
}

#[tokio::test]
async fn who_knows_only_a_mailer_learns_rate_quota_and_standing_of_the_account() {
    let house = sandbox(|options| {
        options.max_send_rate = 14.0;
        options.max_24_hour_send = Some(50_000);
        options.enforcement_status = "PROBATION".into();
    })
    .await;
    let mailer: Arc<dyn Mailer> = Arc::new(mailer(&house.url).await);
    sent_id(&mailer.send(to(&["a@ok.example", "b@ok.example", "c@ok.example"])).await);
    let wanted = Account {
        max_send_rate: 14.0,
        max_24_hour_send: 50_000.0,
        sent_last_24_hours: 3.0,
        sending_enabled: true,
        production_access: true,
        enforcement_status: "PROBATION".into(),
    };
    assert_eq!(mailer.account().await, Ok(wanted));

    struct Mute;
    impl Mailer for Mute {
        fn send(&self, _call: Call) -> Pending<'_, Outcome> {
            Box::pin(async { Outcome::Unknown("mute".into()) })
        }
    }
    let mailer: Arc<dyn Mailer> = Arc::new(Mute);
    assert_eq!(mailer.account().await, Err("this mailer does not know its account".into()));
}

#[tokio::test]
async fn get_account_fails_in_words() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let words = mailer(&format!("http://{closed}")).await.account().await.unwrap_err();
    assert!(words.contains("onnect"), "{words}");
    let denied = answering(
        b"HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: AccessDeniedException\r\ncontent-length: 28\r\n\r\n{\"Message\":\"not for you !!\"}",
    )
    .await;
    let words = mailer(&format!("http://{denied}")).await.account().await.unwrap_err();
    assert!(words.contains("AccessDenied (HTTP 403): not for you"), "{words}");
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_a_dropped_call_gives_its_place_back() {
    let house = sandbox(|_| ()).await;
    let options = ses::Options { calls_in_flight: 1, queue_time: Duration::from_millis(100), ..options(&house.url) };
    let mailer = Arc::new(SesMailer::new(&config().await, options));
    assert!(house.faults.script([Fault::once(Kind::Hang)]));
    let hanging = start(&mailer, call());
    until(|| house.faults.waiting().is_empty()).await;

    assert_retry(&mailer.send(call()).await, Retry::Busy);
    assert_eq!(house.inbox.received(), 0);

    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    sent_id(&mailer.send(call()).await);
}

#[tokio::test]
async fn calls_dropped_while_they_wait_for_their_turn_give_everything_back() {
    let house = sandbox(|_| ()).await;
    let options = ses::Options {
        calls_in_flight: 1,
        bytes_in_flight: 64 * 1024,
        queue_time: Duration::from_secs(5),
        ..options(&house.url)
    };
    let mailer = Arc::new(SesMailer::new(&config().await, options));
    for _ in 0..3 {
        // Of 64 KiB the one under way holds 4.
        assert!(house.faults.script([Fault::once(Kind::Hang)]));
        let under_way = start(&mailer, sized(1024));
        until(|| house.faults.waiting().is_empty()).await;
        // This one has 56 more and waits for the call; that one has the 4 that are left, and waits
        // for more of them; the last stands behind both.
        let mut for_a_call = mailer.send(sized(14 * 1024));
        let mut for_octets = mailer.send(sized(4 * 1024));
        let mut behind = mailer.send(sized(1024));
        let mut cx = Context::from_waker(Waker::noop());
        for waiting in [&mut for_a_call, &mut for_octets, &mut behind] {
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        drop(for_octets);
        drop(for_a_call);
        under_way.abort();
        assert!(under_way.await.unwrap_err().is_cancelled());
        sent_id(&behind.await);
        // All 64 at once: nothing is held by the dropped.
        sent_id(&mailer.send(sized(16 * 1024)).await);
    }
    assert_eq!(house.inbox.received(), 6);
}

#[tokio::test]
async fn octets_in_flight_are_bounded_and_a_message_above_the_bound_goes_alone() {
    let house = sandbox(|_| ()).await;
    let options =
        ses::Options { bytes_in_flight: 64 * 1024, queue_time: Duration::from_millis(100), ..options(&house.url) };
    let mailer = Arc::new(SesMailer::new(&config().await, options));
    sent_id(&mailer.send(sized(1024 * 1024)).await);

    assert!(house.faults.script([Fault::once(Kind::Hang)]));
    let hanging = start(&mailer, sized(1024 * 1024));
    until(|| house.faults.waiting().is_empty()).await;
    assert_retry(&mailer.send(call()).await, Retry::Busy);
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());

    // 64 KiB hold fifteen messages of 1 KiB at four copies each and leave room for one more.
    assert!(house.faults.script([Fault::times(Kind::Hang, 15)]));
    let many: Vec<_> = (0..15).map(|_| start(&mailer, sized(1024))).collect();
    until(|| house.faults.waiting().is_empty()).await;
    assert_retry(&mailer.send(sized(1025)).await, Retry::Busy);
    sent_id(&mailer.send(sized(1024)).await);
    many.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn answers_that_are_not_sess_are_kept_or_unknown_never_refused() {
    let rows: &[(&[u8], Result<Retry, ()>)] = &[
        // a success without an id, unreadable, or cut off: SES may have it
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"MessageId\":\"\"}", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"MessageId\":\"abc", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-le", Err(())),
        (b"", Err(())),
        (b"not HTTP at all\r\n\r\n", Err(())),
        // a proxy's pages
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 13\r\n\r\n<html>go away", Ok(Retry::Service)),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 900\r\n\r\n<html>", Ok(Retry::Service)),
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\n<html>bad", Ok(Retry::Unrecognised)),
        (b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n", Ok(Retry::Unrecognised)),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", Ok(Retry::Unrecognised)),
        (b"HTTP/1.1 429 Slow Down\r\ncontent-length: 0\r\n\r\n", Ok(Retry::Throttled)),
        // SES's name survives a body that does not
        (
            b"HTTP/1.1 403 No\r\nx-amzn-errortype: ExpiredTokenException:http://x/\r\ncontent-length: 900\r\n\r\n{",
            Ok(Retry::Credentials),
        ),
    ];
    for (answer, wanted) in rows {
        let address = answering(answer).await;
        let outcome = mailer(&format!("http://{address}")).await.send(call()).await;
        let shown = String::from_utf8_lossy(answer);
        match (wanted, &outcome) {
            (Ok(wanted), Outcome::Retry(why, _)) => assert_eq!(why, wanted, "{shown}: {outcome:?}"),
            (Err(()), Outcome::Unknown(_)) => {}
            _ => panic!("{shown}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_told_with_its_cause() {
    let address = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>").await;
    let outcome = mailer(&format!("http://{address}")).await.send(call()).await;
    let Outcome::Unknown(words) = &outcome else { panic!("{outcome:?}") };
    assert!(words.starts_with("SES answered 200") && words.contains("unreadably"), "{words}");
}

/// The SDK's own endpoint variable, in a process of its own: the environment is shared by all tests.
#[tokio::test]
async fn the_sdks_own_endpoint_variable_works_when_no_endpoint_is_set() {
    let house = sandbox(|_| ()).await;
    let url = house.url.clone();
    let child = tokio::task::spawn_blocking(move || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sends_where_the_environment_says", "--ignored"])
            .env("AWS_ENDPOINT_URL_SESV2", url)
            .output()
            .unwrap()
    });
    let output = child.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(house.inbox.received(), 1);
}

#[tokio::test]
#[ignore = "run by the test above, with the variable set"]
async fn sends_where_the_environment_says() {
    let mailer = SesMailer::new(&config().await, ses::Options::default());
    sent_id(&mailer.send(call()).await);
}

fn start(mailer: &Arc<SesMailer>, call: Call) -> tokio::task::JoinHandle<Outcome> {
    let mailer = mailer.clone();
    tokio::spawn(async move { mailer.send(call).await })
}

/// A server that reads one request a connection and answers `bytes`, whatever it was, then closes.
async fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => request.extend_from_slice(&buffer[..n]),
                }
            }
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// Whether a request is complete, or no HTTP request.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    if !request.is_empty() && !text.starts_with('g') && !text.starts_with('p') {
        return true;
    }
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

/// Lets the other tasks run until `done`.
async fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it never came to that");
        tokio::task::yield_now().await;
    }
}
