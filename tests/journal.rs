//! Every line of the journal, as it leaves the process, is what the manual's schema says it is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::log::{Format, Lines, Output};
use bulkhead::event::kind::{BounceType, Event, Fate, Form, Mail, Recipient};
use bulkhead::journal::{self, Addresses, Blame, Owner, Told, Verdict};
use bulkhead::mail::{Login, Mailbox, MessageId, ReversePath, SessionId, StreamId, TenantId, Username};
use bulkhead::outbox::{Cause, Entry, Manifest, Progress};
use bulkhead::smtp::reply::Refusal;
use bulkhead::time::{Clock as _, Timestamp};
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

const SCHEMA: &str = include_str!("../src/manual/log.schema.json");
const HEADER: &str = include_str!("../src/journal.rs");

/// What a peer may try in any text it has a say in.
const HOSTILE: &str =
    "x\r\n{\"event\":\"message_relayed\"}\n\u{1b}[2J\u{9b}31m\u{7f}\0\u{2028}\u{202e}\",\"tenant\":\"b\"\\";

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `tell` makes, as they would stand in the log.
fn lines(format: Format, tell: impl FnOnce()) -> Vec<String> {
    let page = Page::default();
    let layer = Lines::new(format, Output::to(page.clone()), Arc::new(MachineClock));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), tell);
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(ToOwned::to_owned).collect()
}

/// What the journal is told about, with `text` wherever text is taken.
struct Scene {
    text: String,
    session: SessionId,
    message: MessageId,
    peer: SocketAddr,
    login: Login,
    stream: StreamId,
    from: ReversePath,
    recipients: Vec<Mailbox>,
    soft: bulkhead::smtp::Reply,
    hard: bulkhead::smtp::Reply,
}

impl Scene {
    fn new(text: &str) -> Self {
        let now = MachineClock.now();
        Self {
            text: text.into(),
            session: SessionId::new(now, &MachineRandom),
            message: MessageId::new(now, &MachineRandom),
            peer: "[2001:db8::1]:50000".parse().unwrap(),
            login: Login {
                tenant: TenantId::parse("acme").unwrap(),
                credential: Username::parse("acme.app@x").unwrap(),
                stream: None,
                secret_fingerprint: 7,
            },
            stream: StreamId::parse("marketing").unwrap(),
            from: ReversePath::Mailbox(mailbox("bounces@acme.example")),
            recipients: (0..60).map(|n| mailbox(&format!("Reader{n}@customer.example"))).collect(),
            soft: Refusal::temporary(451, (3, 0), text).reply().clone(),
            hard: Refusal::permanent(550, (1, 1), text).reply().clone(),
        }
    }

    /// Calls every function of the journal that writes a line, in each of its shapes.
    fn tell(&self) {
        self.tell_of_the_process();
        self.tell_of_sessions();
        self.tell_of_messages();
        self.tell_of_verdicts();
        self.tell_of_held_mail();
        self.tell_of_the_outbox();
        self.tell_of_standings();
        self.tell_of_announcements();
        self.tell_of_watching();
        self.tell_of_events();
    }

    fn tell_of_the_process(&self) {
        let text = &self.text;
        journal::relay_started(text, text);
        journal::listener_opened(self.peer, "starttls");
        journal::drain_started(3);
        journal::relay_stopped(0);
        journal::certificate_loaded(text);
        journal::certificate_refused(text, text);
        journal::certificate_ends(text, Timestamp::from_millis(1), true);
        journal::tenants_applied(text, 2);
        journal::tenants_refused(text, text);
        journal::settings_applied(text, 2, &[]);
        journal::settings_applied(text, 0, &["hostname"]);
        journal::setting_noted(text);
        journal::settings_refused(text, std::iter::repeat_n(text.clone(), 60));
        journal::store_failed(text);
        journal::store_blobs_found(1);
        journal::record_damaged(text, text, text);
        journal::damaged_records(1);
        journal::store_committed(Duration::from_millis(3), 2);
        journal::changed(text, text, Some(&self.login.tenant), text);
        journal::changed(text, text, None, "");
        tracing::warn!(target: "library", text, "spoke");
    }

    fn tell_of_sessions(&self) {
        let text = &self.text;
        journal::accept_failed(self.peer, text, Duration::from_secs(1));
        journal::session_opened(self.session, self.peer, self.peer);
        journal::session_closed(self.session, self.peer, None, "quit", 0, Duration::from_micros(1500));
        journal::session_closed(self.session, self.peer, Some(&self.login), "lost", 2, Duration::ZERO);
        journal::session_refused(self.peer, "connections", &self.soft);
        journal::tls_failed(self.session, self.peer, text);
        journal::proxy_refused(self.peer, text);
        journal::login_accepted(self.session, self.peer, &self.login);
        journal::login_refused(self.session, self.peer, text, text);
        journal::login_deferred(self.session, self.peer, text);
        journal::spill_failed(self.session, text);
        journal::replied(&self.soft);
        for blame in [Blame::Client, Blame::Upstream, Blame::Us] {
            journal::sender_refused(self.session, self.peer, &self.login, &self.from, &self.hard, blame);
        }
        journal::sender_refused(self.session, self.peer, &self.login, &ReversePath::Null, &self.hard, Blame::Client);
        for stream in [None, Some(&self.stream)] {
            journal::recipient_suppressed(self.session, &self.login, stream, &self.recipients[0], &self.hard);
        }
        for blame in [Blame::Client, Blame::Upstream, Blame::Us] {
            journal::recipient_deferred(self.session, &self.login, &self.recipients[0], &self.soft, text, blame);
        }
    }

    fn verdict(&self) -> Verdict<'_> {
        Verdict {
            session: self.session,
            message: self.message,
            peer: self.peer,
            login: &self.login,
            stream: Some(&self.stream),
            from: &self.from,
            recipients: &self.recipients,
            bytes: 12_345,
            reply: &self.hard,
            ses: Duration::from_micros(81_234),
            total: Duration::from_micros(90_000),
        }
    }

    fn tell_of_verdicts(&self) {
        let (text, verdict) = (&self.text, self.verdict());
        let without_stream = Verdict { stream: None, ..self.verdict() };
        journal::message_relayed(&verdict, &[text], 1, &[]);
        journal::message_relayed(&verdict, &[text.as_str(); 60], 60, &vec![text.clone(); 60]);
        for cause in Cause::ALL {
            journal::message_queued(&verdict, cause.word(), text, &[], 0, &[]);
        }
        journal::message_queued(&verdict, Cause::Drain.word(), "", &[text.as_str(); 60], 60, &vec![text.clone(); 60]);
        for held in [true, false] {
            journal::message_repeated(&verdict, self.message, held);
        }
        journal::message_refused(&verdict, text, Blame::Client, &[], 0);
        journal::message_refused(&without_stream, text, Blame::Upstream, &[text], 1);
        journal::message_refused(&Verdict { reply: &self.soft, ..verdict }, text, Blame::Us, &[], 0);
    }

    fn tell_of_messages(&self) {
        let text = &self.text;
        journal::recipient_relayed(self.session, self.message, &self.login, &self.stream, &self.recipients, text);
        journal::recipient_refused(self.session, self.message, &self.login, &self.stream, &self.recipients[0], text);
        for (stream, why) in [(None, ""), (Some(&self.stream), text.as_str())] {
            journal::message_discarded(self.message, &self.login.tenant, stream, 3, 12_345, text, why);
        }
        journal::upstream_alarm(None, None, text, text);
        journal::upstream_alarm(Some(&self.login.tenant), Some(&self.stream), text, text);
    }

    fn manifest(&self, stream: Option<&StreamId>) -> Manifest {
        Manifest {
            id: self.message,
            session: self.session,
            tenant: self.login.tenant.clone(),
            stream: stream.cloned(),
            credential: self.login.credential.clone(),
            reverse_path: self.from.clone(),
            recipients: self.recipients.clone(),
            claims: Vec::new(),
            tags: Vec::new(),
            created: Timestamp::from_millis(1),
            expires: Timestamp::from_millis(2),
            digest: None,
        }
    }

    /// A tenant's, and a report of the relay's own, which has no stream.
    fn tell_of_held_mail(&self) {
        let (text, tenant) = (&self.text, &self.login.tenant);
        for stream in [Some(&self.stream), None] {
            let manifest = self.manifest(stream);
            let progress = Progress::none(self.recipients.len());
            let entry = Entry::new(&manifest, 12_345, progress, Cause::Throttled, text);
            journal::outcome_unknown_at_start(self.message, tenant, stream);
            journal::outcome_unknown(&manifest, 60, text);
            journal::body_damaged(self.message, tenant, stream, text);
            journal::held_relayed(&manifest, &self.recipients, text);
            journal::held_refused(&manifest, &self.recipients[0], text);
            journal::message_dispatched(&manifest, 59, 1, 2, 1, Duration::from_secs(3));
            journal::message_dispatched(&manifest, 0, 60, 2, 0, Duration::from_secs(3));
            let wait = Some(Duration::from_millis(1500));
            journal::message_deferred(self.message, tenant, stream, 1, Cause::Service.word(), text, wait);
            journal::message_deferred(self.message, tenant, stream, 1, Cause::Busy.word(), "", None);
            journal::message_expired(self.message, tenant, stream, &entry, Timestamp::from_millis(5));
        }
        journal::body_missing(self.message);
    }

    fn tell_of_the_outbox(&self) {
        let (text, tenant) = (&self.text, &self.login.tenant);
        journal::outbox_opened(4, 3, 2, 1);
        journal::outbox_failed(text);
        journal::outbox_recovered();
        journal::outbox_unrenewed(text);
        journal::outbox_available(true);
        journal::backlog(1, 12_345, Duration::from_secs(1), 1);
        journal::lanes(2, 1);
        for stream in [Some(&self.stream), None] {
            journal::outbox_deferred(tenant, stream, text);
            journal::lane_held(tenant, stream, text, stream.map(|_| Timestamp::from_millis(1)));
            journal::lane_released(tenant, stream);
        }
        for scope in [Some(text), None] {
            journal::breaker_opened(scope.cloned(), Cause::Network.word(), Duration::from_secs(30), 2);
            journal::breaker_closed(scope.cloned(), Cause::Network.word());
        }
        journal::report_queued(self.message, self.message, tenant, "failed", &self.recipients[0]);
        journal::report_lost(self.message, tenant, "failed", text);
        journal::rate_learned(14.0);
        journal::account_unknown(text);
        journal::quota(Some(50_000.0), 40_000.0);
        journal::quota(None, 1.0);
        journal::quota_near(50_000.0, 40_000.0);
        for status in [text.as_str(), "HEALTHY", "PROBATION", "SHUTDOWN"] {
            journal::account_standing(status, true);
            journal::account_standing(status, false);
        }
        journal::counts_unknown(text);
        journal::lanes_gated(Cause::Warmup.word(), 1);
        journal::deliveries_unseen(tenant, Some(&self.stream));
        journal::deliveries_unseen(tenant, None);
        journal::warmup_stepped(tenant, &self.stream, 3, 30, Some(400));
        journal::warmup_stepped(tenant, &self.stream, 30, 30, None);
    }

    fn tell_of_standings(&self) {
        let (tenant, text) = (&self.login.tenant, &self.text);
        for (stream, is_shadow) in [(true, false), (true, true), (false, false), (false, true)] {
            let steps =
                if stream { ["warned", "slowed", "paused"] } else { ["warned", "transactional_only", "paused"] };
            for step in &steps[usize::from(!stream)..] {
                for (from, to) in [("good", *step), (*step, "good")] {
                    journal::standing_changed(&journal::StandingChanged {
                        tenant,
                        stream: stream.then_some(&self.stream),
                        from,
                        to,
                        is_worse: from == "good",
                        is_shadow,
                        reason: if from == "good" { text.clone() } else { String::new() },
                        until: (from == "good").then_some(Timestamp::from_millis(1)),
                    });
                }
            }
        }
        journal::would_be_stopped("stream_braked");
        journal::standings_deferred(text);
        journal::account_near_line(text, text);
        journal::account_clear();
        journal::standings("paused", 1);
        journal::account_rates("24h", 0.01, 0.0001);
    }

    fn tell_of_announcements(&self) {
        let (text, took) = (&self.text, Duration::from_millis(12));
        for (tenant, stream) in [(Some(&self.login.tenant), Some(&self.stream)), (None, None)] {
            let told = Told { id: self.message, kind: "stream_paused", tenant, stream };
            journal::announcement_mailed(told, "contact", self.message, &self.recipients[0]);
            journal::announcement_lost(told, "operator", text);
            journal::webhook_delivered(told, 2, took);
            journal::webhook_failed(told, 1, text, Duration::from_secs(5), took);
            journal::webhook_disabled(told);
        }
        journal::announcement_deferred(3, text, Duration::from_secs(60));
        journal::webhook_enabled();
        journal::announcements_pending(1);
        journal::audit_failed(text, text, text);
    }

    fn tell_of_watching(&self) {
        let (text, networks) = (&self.text, vec![self.text.clone(); 60]);
        for effect in ["alert", "hold"] {
            let suspected = journal::Suspected {
                tenant: &self.login.tenant,
                credential: &self.login.credential,
                effect,
                recipients: 1_000,
                first_time: 990,
                usual_first_time: 0.125,
                from_new: 1_000,
                networks: &networks,
                mean: 71.5,
            };
            journal::credential_suspected(&suspected, text);
        }
        journal::credentials_held(1);
        for kind in ["fell", "rose"] {
            journal::volume_unusual(&self.login.tenant, Timestamp::from_millis(1), kind, 7, 71.5, text);
        }
        journal::watch_deferred(text);
        journal::watched(3, 12_345);
        journal::unwatched(2);
    }

    fn tell_of_events(&self) {
        let text = &self.text;
        let owner = Owner { tenant: self.login.tenant.clone(), stream: Some(self.stream.clone()) };
        for fate in self.fates() {
            let event = self.event(fate);
            journal::event_applied(&event, &owner, &[], Duration::from_secs(2));
            journal::event_repeated(&event.fate);
            journal::event_unowned(&event);
        }
        let event = self.event(Fate::Bounce {
            bounce_type: BounceType::Permanent,
            sub_type: text.clone(),
            recipients: self.named(),
            feedback_id: text.clone(),
        });
        let owner = Owner { stream: None, ..owner };
        journal::event_applied(&event, &owner, &self.recipients, Duration::ZERO);
        journal::notice_malformed(text, text);
        journal::notice_unknown(text, text);
        journal::subscription_unconfirmed(text);
        journal::topic_validated();
        journal::sending_status_noted(text, text, text);
        journal::queue_failed("receive", text, Duration::from_millis(1500));
        journal::events_deferred(10, text);
        let synced = journal::Synced { listed: 5, added: 4, removed: 3, put: 2, deleted: 1 };
        for tenant in [None, Some(&self.login.tenant)] {
            journal::suppressions_synced(tenant, &synced);
            for blame in [Blame::Upstream, Blame::Us] {
                journal::sync_failed(tenant, text, text, blame, Duration::from_secs(20));
            }
        }
    }

    fn named(&self) -> Vec<Recipient> {
        let words = Some(self.text.clone());
        let known = self.recipients.iter().map(|mailbox| Some(mailbox.clone()));
        known
            .chain([None])
            .map(|mailbox| Recipient {
                mailbox,
                given: self.text.clone(),
                status: words.clone(),
                action: words.clone(),
                diagnostic: words.clone(),
            })
            .collect()
    }

    fn event(&self, fate: Fate) -> Event {
        Event {
            fate,
            at: Timestamp::from_millis(1),
            mail: Mail {
                message_id: self.text.clone(),
                timestamp: Timestamp::from_millis(1),
                source: Some(mailbox("Owner@acme.example")),
                destination: Vec::new(),
                tenant: None,
                stream: None,
                credential: Some(self.text.clone()),
                configuration_set: None,
                ses_tenant: None,
            },
            form: Form::Sns,
        }
    }

    /// One of each kind.
    fn fates(&self) -> Vec<Fate> {
        let text = || self.text.clone();
        vec![
            Fate::Send,
            Fate::Delivery { recipients: self.named() },
            Fate::Bounce {
                bounce_type: BounceType::Transient,
                sub_type: text(),
                recipients: Vec::new(),
                feedback_id: text(),
            },
            Fate::Complaint {
                sub_type: None,
                feedback_type: Some(text()),
                recipients: self.named(),
                feedback_id: text(),
            },
            Fate::Complaint { sub_type: None, feedback_type: None, recipients: self.named(), feedback_id: text() },
            Fate::Reject { reason: text() },
            Fate::DeliveryDelay { delay_type: text(), recipients: self.named() },
            Fate::Open,
            Fate::Click,
            Fate::RenderingFailure { message: text() },
            Fate::Subscription,
        ]
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Names of the events the schema knows.
fn known_events() -> BTreeSet<String> {
    schema()["$defs"]["events"].as_object().unwrap().keys().cloned().collect()
}

/// Of each message there is one of these, and no other line is one.
const VERDICTS: [&str; 3] = ["message_queued", "message_refused", "message_relayed"];

#[test]
fn there_are_three_verdicts_and_each_says_what_a_verdict_says() {
    let told = lines(Format::Json, || Scene::new("a reason").tell_of_verdicts());
    let seen = validate(&told);
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), VERDICTS);
    for (event, schema) in schema()["$defs"]["events"].as_object().unwrap() {
        let verdict = schema["description"].as_str().unwrap().starts_with("Verdict: ");
        assert_eq!(verdict, VERDICTS.contains(&event.as_str()), "{event}");
        // What comes of a message later is told without what its client heard.
        let heard = schema["properties"].get("total_ms").is_some() && schema["properties"].get("code").is_some();
        assert_eq!(heard, verdict, "{event}");
    }
    // Who waits is told why, who repeats what; who is served by which of SES's ids.
    for (event, member) in [("message_queued", "cause"), ("message_queued", "repeat_of"), ("message_relayed", "ses_id")]
    {
        let has = |line: &&Value| line["event"] == event && line.get(member).is_some();
        let lines: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut lacking = (*lines.iter().find(has).unwrap()).clone();
        let whole = jsonschema::validator_for(&self::schema()).unwrap();
        assert!(whole.is_valid(&lacking));
        lacking.as_object_mut().unwrap().remove(member);
        assert!(!whole.is_valid(&lacking), "{lacking}");
    }
}

/// Each line against the schema of its own event, which gives better words than the whole schema;
/// and against the whole, which is what readers of the log have.
fn validate(lines: &[String]) -> BTreeSet<String> {
    let schema = schema();
    let whole = jsonschema::validator_for(&schema).unwrap();
    let single: BTreeMap<String, jsonschema::Validator> = known_events()
        .into_iter()
        .map(|event| {
            let one = serde_json::json!({"$ref": format!("#/$defs/events/{event}"), "$defs": schema["$defs"]});
            (event, jsonschema::validator_for(&one).unwrap())
        })
        .collect();
    let mut seen = BTreeSet::new();
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let event = value["event"].as_str().unwrap().to_owned();
        let validator = single.get(&event).unwrap_or_else(|| panic!("the schema does not know {event}"));
        let faults: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{event} {faults:?}\n{line}");
        assert!(whole.is_valid(&value), "{line}");
        seen.insert(event);
    }
    seen
}

#[test]
fn every_line_is_as_the_schema_says_and_every_event_of_the_schema_is_told() {
    let seen = validate(&lines(Format::Json, || Scene::new("a reason").tell()));
    assert_eq!(seen, known_events());
}

#[test]
fn the_schema_tells_a_good_line_from_a_bad_one() {
    let schema = schema();
    let whole = jsonschema::validator_for(&schema).unwrap();
    let good = lines(Format::Json, || journal::changed("cli:root", "tenant pause", None, "why"));
    let good: Value = serde_json::from_str(&good[0]).unwrap();
    assert!(whole.is_valid(&good));
    for (member, value) in [
        ("event", Value::from("unheard_of")),
        ("level", Value::from("error")),
        ("ts", Value::from("yesterday")),
        ("actor", Value::Null),
        ("tenant", Value::from("Not A Tenant")),
        ("reason", Value::from("x".repeat(600))),
        ("surprise", Value::from(1)),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        assert!(!whole.is_valid(&bad), "{bad}");
    }
    let mut lacking = good;
    lacking.as_object_mut().unwrap().remove("actor");
    assert!(!whole.is_valid(&lacking), "{lacking}");
}

#[test]
fn every_function_of_the_journal_that_writes_a_line_is_called_here() {
    let this = include_str!("journal.rs");
    let mut functions = 0;
    for line in HEADER.lines().filter(|line| line.starts_with("pub fn ")) {
        let name = line.trim_start_matches("pub fn ").split('(').next().unwrap();
        // No line: how addresses show, and the count of one SendEmail call.
        if ["show_addresses", "shown", "shown_as", "ses_called"].contains(&name) {
            continue;
        }
        assert!(this.contains(&format!("journal::{name}(")), "journal::{name} is not exercised");
        functions += 1;
    }
    assert!(functions > 30, "the functions were looked for in the wrong place: {functions}");
}

#[test]
fn hostile_text_stays_inside_its_field() {
    let plain = lines(Format::Json, || Scene::new("calm").tell());
    let hostile = lines(Format::Json, || Scene::new(HOSTILE).tell());
    assert_eq!(plain.len(), hostile.len(), "one event, one line");
    validate(&hostile);
    for (line, calm) in hostile.iter().zip(&plain) {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'), "{line:?}");
        let keys = |text: &str| -> Vec<String> {
            serde_json::from_str::<Value>(text).unwrap().as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(line), keys(calm), "hostile text must not add a field");
    }
    let text = lines(Format::Text, || Scene::new(HOSTILE).tell());
    assert_eq!(text.len(), plain.len());
    for line in &text {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'), "{line:?}");
    }
}

#[test]
fn long_texts_and_lists_are_cut() {
    let long = "ü".repeat(5000);
    let told = lines(Format::Json, || Scene::new(&long).tell());
    validate(&told);
    let relayed: Value = serde_json::from_str(told.iter().find(|line| line.contains("\"ses_ids\"")).unwrap()).unwrap();
    assert_eq!(relayed["recipients"].as_array().unwrap().len(), journal::LIST);
    assert_eq!(relayed["recipient_count"], 60);
    assert_eq!(relayed["notes"][0].as_str().unwrap().chars().count(), journal::TEXT + 1);
    assert!(relayed["notes"][0].as_str().unwrap().ends_with("ü…"));
    let longest = told.iter().map(String::len).max().unwrap();
    assert!(longest < bulkhead::adapters::log::LINE, "{longest}");
}

#[test]
fn addresses_show_as_the_setting_says() {
    let address = mailbox("Ada.Lovelace@customer.example");
    assert_eq!(journal::shown_as(&address, Addresses::Domain), "customer.example");
    assert_eq!(journal::shown_as(&address, Addresses::Full), "Ada.Lovelace@customer.example");
    let hash = journal::shown_as(&address, Addresses::Hash);
    let (digits, domain) = hash.split_once('@').unwrap();
    assert_eq!((digits.len(), domain), (12, "customer.example"));
    assert!(digits.chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(
        hash,
        journal::shown_as(&mailbox("ADA.LOVELACE@customer.example"), Addresses::Hash),
        "whatever the case"
    );
    assert_ne!(hash, journal::shown_as(&mailbox("bda.lovelace@customer.example"), Addresses::Hash));
}

/// The default, which is what this process has: no line shows who somebody is.
#[test]
fn no_line_shows_a_local_part_unless_it_was_asked_for() {
    let told = lines(Format::Json, || Scene::new("calm").tell());
    assert!(told.iter().any(|line| line.contains("customer.example")), "addresses are there at all");
    for line in &told {
        let lower = line.to_lowercase();
        assert!(!lower.contains("reader") && !lower.contains("owner@") && !lower.contains("bounces@"), "{line}");
    }
}

#[test]
fn the_journals_header_and_the_schema_name_the_same_fields() {
    let header: String = HEADER.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    let documented: BTreeSet<String> = header
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|names| names.split(['`', ' ']))
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    let in_schema: BTreeSet<String> = schema()["$defs"]["fields"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(documented, in_schema);
    let allowed: BTreeSet<String> = schema()["$defs"]["events"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|event| event["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        .filter(|name| !["ts", "level", "event"].contains(&name.as_str()))
        .collect();
    assert_eq!(allowed, in_schema, "every field is some event's");
}
