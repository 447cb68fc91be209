//! Settings and tenants files, as an operator meets them.
//!
//! `tests/config/*.toml` are broken files. Each begins with comments that say what has to be told:
//! `# problem:` lines, compared exactly and in order; `# variable:` lines are laid over it;
//! `# tenants` marks a tenants file. `BLESS=1 cargo test --test config` writes
//! `config/bulkhead.toml` and the expected problems anew; read the difference before you keep it.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bulkhead::config::{self, Note, Problem, Settings};

const DEFAULTS: &str = "config/bulkhead.toml";

fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

fn load(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, Vec<Problem>> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(file.map(Path::new), variables)
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn the_file_of_defaults_is_what_the_code_has() {
    let wanted = config::default_file();
    if blessing() {
        std::fs::write(DEFAULTS, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(DEFAULTS).unwrap();
    assert_eq!(written, wanted, "write it anew with BLESS=1 cargo test --test config");
    assert_eq!(load(Some(DEFAULTS), &[]).unwrap(), load(None, &[]).unwrap());
}

#[test]
fn every_optional_setting_of_the_file_may_be_switched_on() {
    let commented = std::fs::read_to_string(DEFAULTS).unwrap();
    let mut switched_on = 0;
    let lines = commented.lines().map(|line| match line.strip_prefix("# ") {
        Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
            switched_on += 1;
            setting
        }
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let settings = load(file.path().to_str(), &[]).unwrap();
    assert_eq!(switched_on, 12);
    assert_eq!(settings.tenants_file.as_deref(), Some(Path::new("config/tenants.toml")));
    assert_eq!(settings.aws.region.as_deref(), Some("eu-central-1"));
    assert_eq!((settings.aws.max_send_rate, settings.aws.max_24_hour_send), (Some(14.0), Some(50_000.0)));
    assert!(settings.events.queue_url.is_some());
    assert!(settings.notify.from.is_some() && settings.notify.configuration_set.is_some());
}

#[test]
fn broken_files_are_told_exactly() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir("tests/config").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 30, "{} broken files", files.len());
    let mut kinds = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let header = |mark: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
        };
        let problems = problems_of(&file, &header("# variable: "), text.contains("# tenants\n"));
        assert!(!problems.is_empty(), "{} is not broken", file.display());
        for problem in &problems {
            assert!(!problem.what.is_empty() && !problem.cure.is_empty());
            kinds.insert(problem.what.split([' ', ',']).take(3).collect::<Vec<_>>().join(" "));
        }
        let problems = told(&problems);
        if blessing() {
            bless(&file, &text, &problems);
        } else {
            assert_eq!(problems, header("# problem: "), "{}", file.display());
        }
    }
    assert!(kinds.len() >= 20, "only these kinds of problems: {kinds:?}");
}

/// A rule that two settings break by one is kept when they meet: at the bound nothing is told.
#[test]
fn settings_of_the_outbox_may_meet_at_their_bounds() {
    let told = |key: &str, value: u64| {
        let name = format!("BULKHEAD_{}", key.replace('.', "__").to_uppercase());
        let problems = load(None, &[(&name, &value.to_string())]).err().unwrap_or_default();
        problems.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
    };
    for (key, good, bad, fault) in [
        ("outbox.messages_per_tenant", 200_000, 200_001, "outbox.messages_per_tenant"),
        ("outbox.messages", 50_000, 49_999, "outbox.messages_per_tenant"),
        ("outbox.calls_per_stream", 32, 33, "outbox.calls_per_stream"),
        ("outbox.spill_bytes", 536_870_912, 536_870_913, "outbox.spill_bytes"),
        ("outbox.lease_seconds", 71, 70, "outbox.lease_seconds"),
        ("aws.large_call_seconds", 289, 290, "outbox.lease_seconds"),
        ("aws.call_wait_seconds", 239, 240, "outbox.lease_seconds"),
        ("outbox.retry_first_seconds", 1_800, 1_801, "outbox.retry_first_seconds"),
        ("outbox.throttle_longest_seconds", 1, 0, "outbox.throttle_longest_seconds"),
        ("outbox.throttle_first_seconds", 60, 61, "outbox.throttle_first_seconds"),
        ("outbox.operator_longest_seconds", 60, 59, "outbox.operator_first_seconds"),
    ] {
        assert_eq!(told(key, good), [""; 0], "{key} = {good}");
        assert_eq!(told(key, bad), [fault], "{key} = {bad}");
    }
}

fn problems_of(file: &Path, variables: &[String], tenants: bool) -> Vec<Problem> {
    if tenants {
        return config::load_tenants(file).map_or_else(|problems| problems, |_| Vec::new());
    }
    let variables = variables.iter().map(|line| {
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    match config::load(Some(file), variables) {
        Ok(settings) => settings.certificate_problems().into_iter().chain(settings.webhook_signer().err()).collect(),
        Err(problems) => problems,
    }
}

/// Puts the problems at the head of the file, in as many lines as stood there: line numbers are
/// part of them.
fn bless(file: &Path, text: &str, problems: &[String]) {
    let old = text.lines().take_while(|line| line.starts_with("# problem:")).count();
    assert_eq!(old, problems.len(), "{} needs {} lines `# problem:` at its head", file.display(), problems.len());
    let mut lines: Vec<String> = problems.iter().map(|problem| format!("# problem: {problem}")).collect();
    lines.extend(text.lines().skip(old).map(str::to_owned));
    std::fs::write(file, lines.join("\n") + "\n").unwrap();
}

#[test]
fn a_missing_file_is_told_with_its_name() {
    let problems = load(Some("config/nowhere.toml"), &[]).unwrap_err();
    assert_eq!(
        told(&problems),
        [
            "config/nowhere.toml: cannot be read: No such file or directory (os error 2); give the path of a readable file, relative to the working directory"
        ]
    );
    assert!(config::load_tenants(Path::new("config")).is_err(), "a folder is no file");
}

#[test]
fn variables_rule_over_the_file() {
    let settings = load(
        Some(DEFAULTS),
        &[
            ("BULKHEAD_HOSTNAME", "mx1.example.net"),
            ("BULKHEAD_NODE", "7"),
            ("BULKHEAD_LIMITS__RECIPIENTS", "100"),
            ("BULKHEAD_LISTENER__0__ADDRESS", "[::1]:2525"),
            ("BULKHEAD_LISTENER__1__TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"192.0.2.7\"]"),
            ("BULKHEAD_LISTENER__1__PROXY_PROTOCOL", "true"),
            ("BULKHEAD_LISTENER__2__ADDRESS", "\"127.0.0.1:25\""),
            ("BULKHEAD_LISTENER__2__TLS", "none"),
            ("BULKHEAD_AWS__REGION", "us-east-1"),
            // Not settings:
            ("BULKHEAD_CONFIG", "config/bulkhead.toml"),
            ("BULKHEAD_SERVICE_HOST", "10.1.2.3"),
            ("BULKHEAD_PORT", "tcp://10.1.2.3:587"),
            ("BULKHEAD_PORT_587_TCP_ADDR", "10.1.2.3"),
            ("BULKHEAD_RELAY_SERVICE_PORT_SUBMISSION", "587"),
            ("HOSTNAME", "elsewhere"),
        ],
    )
    .unwrap();
    assert_eq!(settings.hostname, "mx1.example.net");
    assert_eq!(settings.node, "7");
    assert_eq!(settings.limits.recipients, 100);
    assert_eq!(settings.aws.region.as_deref(), Some("us-east-1"));
    let addresses: Vec<String> = settings.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["[::1]:2525", "0.0.0.0:465", "127.0.0.1:25"]);
    assert_eq!(settings.listeners[2].tls, config::Tls::None);
    assert_eq!(settings.listeners[1].trusted_proxies.len(), 2);
}

#[test]
fn certificate_files_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("relay.pem"), dir.path().join("relay.key"));
    let settings = || {
        load(
            None,
            &[
                ("BULKHEAD_TLS__CERTIFICATE_FILE", cert.to_str().unwrap()),
                ("BULKHEAD_TLS__PRIVATE_KEY_FILE", key.to_str().unwrap()),
            ],
        )
        .unwrap()
    };
    let keys = |settings: &Settings| -> Vec<String> {
        settings
            .certificate_problems()
            .into_iter()
            .map(|problem| format!("{}: {}", problem.file, problem.key))
            .collect()
    };
    let both = [
        "BULKHEAD_TLS__CERTIFICATE_FILE: tls.certificate_file",
        "BULKHEAD_TLS__PRIVATE_KEY_FILE: tls.private_key_file",
    ];
    assert_eq!(keys(&settings()), both, "neither is there");

    std::fs::write(&cert, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    std::fs::write(&key, "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert_eq!(keys(&settings()), both, "each holds the other");

    std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\n").unwrap();
    std::fs::write(&key, "-----BEGIN EC PRIVATE KEY-----\n").unwrap();
    assert_eq!(keys(&settings()), [""; 0]);
}

#[test]
fn the_webhooks_secret_is_looked_into_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hook.secret");
    let settings = load(
        None,
        &[
            ("BULKHEAD_NOTIFY__WEBHOOK_URL", "https://hooks.example.com/x"),
            ("BULKHEAD_NOTIFY__WEBHOOK_SECRET_FILE", file.to_str().unwrap()),
        ],
    )
    .unwrap();
    for (text, words) in [
        (None, "cannot be read"),
        (Some("hunter2hunter2"), "does not begin with whsec_"),
        (Some("whsec_hunter2!"), "is no base64"),
        (Some("whsec_aHVudGVyMg=="), "has not from 24 to 64 octets"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let problem = settings.webhook_signer().unwrap_err();
        let told = problem.to_string();
        assert!(told.contains(words) && told.contains("hook.secret"), "{told}");
        assert!(!told.contains("hunter2") && !told.contains("aHVudGVy"), "{told}");
        assert_eq!(problem.key, "notify.webhook_secret_file");
    }
    std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    assert!(settings.webhook_signer().unwrap().is_some());
    assert!(load(None, &[]).unwrap().webhook_signer().unwrap().is_none());
}

#[test]
#[cfg(unix)]
fn a_key_that_others_can_read_is_noted() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("relay.key");
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let noted = |mode: u32| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let settings = load(None, &[("BULKHEAD_TLS__PRIVATE_KEY_FILE", key.to_str().unwrap())]).unwrap();
        settings.notes().iter().any(|note| note.key == "tls.private_key_file")
    };
    assert!(noted(0o644));
    assert!(noted(0o640));
    assert!(!noted(0o600));
}

#[test]
fn notes_tell_what_is_allowed_and_worth_knowing() {
    let dir = tempfile::tempdir().unwrap();
    let data = ("BULKHEAD_DATA_DIR", dir.path().to_str().unwrap());
    let keys = |variables: &[(&str, &str)]| -> Vec<String> {
        let settings = load(None, &[&[data], variables].concat()).unwrap();
        settings.notes().into_iter().map(|note: Note| note.key).collect()
    };
    assert_eq!(keys(&[]), ["events.queue_url", "hostname"]);
    let set_up = [
        ("BULKHEAD_HOSTNAME", "mx1.example.net"),
        ("BULKHEAD_EVENTS__QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/1/q"),
    ];
    assert_eq!(keys(&set_up), [""; 0]);
    for (name, value, key) in [
        ("BULKHEAD_AWS__REGION", "eu-west-1", "events.queue_url"),
        ("BULKHEAD_AWS__SES_ENDPOINT_URL", "http://ses.example.net:80/", "aws.ses_endpoint_url"),
        ("BULKHEAD_LIMITS__CONNECTIONS_PER_IP", "1001", "limits.connections_per_ip"),
        ("BULKHEAD_LISTENER__0__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]", "listener.0.trusted_proxies"),
        ("BULKHEAD_DATA_DIR", "Cargo.toml", "data_dir"),
    ] {
        assert_eq!(keys(&[&set_up[..], &[(name, value)]].concat()), [key], "{name}={value}");
    }
    for (name, value) in [
        ("BULKHEAD_AWS__REGION", "eu-central-1"),
        ("BULKHEAD_AWS__SES_ENDPOINT_URL", "http://127.0.0.1:9025"),
        ("BULKHEAD_AWS__SQS_ENDPOINT_URL", "http://localhost:9025/"),
    ] {
        assert_eq!(keys(&[&set_up[..], &[(name, value)]].concat()), [""; 0], "{name}={value}");
    }
}

#[test]
fn the_example_of_a_tenants_file_is_a_whole_one() {
    let (declared, notes) = config::load_tenants(Path::new("config/tenants.toml")).unwrap();
    let ids: Vec<&str> = declared.tenants.iter().map(|declared| declared.tenant.id.as_str()).collect();
    assert_eq!(ids, ["acme", "globex"]);
    assert_eq!(declared.tenants[0].tenant.streams.len(), 2);
    assert_eq!(declared.tenants[0].credentials.len(), 2);
    let handoffs = declared.tenants[0].tenant.streams.values().map(|stream| stream.handoff.word());
    assert_eq!(handoffs.collect::<Vec<_>>(), ["queue", "through"]);
    assert!(!notes.iter().any(|note| note.what.contains("not yet enforced") && note.key.contains("stream")));
}
