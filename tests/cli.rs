//! The program as people and scripts meet it: exit codes, what is printed where, and that commands
//! do the same with the relay running and without.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking, its helpers too"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

const TENANTS: &str = r#"
[[tenant]]
id = "acme"
senders = ["acme.example"]
default_stream = "transactional"
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "acme-transactional"
suppress_on = ["bounce"]
[[tenant.stream]]
id = "marketing"
kind = "marketing"
configuration_set = "acme-marketing"
suppress_on = ["bounce", "complaint"]
[[tenant.credential]]
username = "acme-file"
secret_hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
"#;

/// A folder with settings and a tenants file.
struct Place {
    folder: tempfile::TempDir,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    /// Everything on loopback and free ports.
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write("tenants.toml", TENANTS);
        place.write(
            "bulkhead.toml",
            &format!(
                "hostname = \"relay.test\"\ndata_dir = {:?}\n\
                 [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\n\
                 [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n\
                 [admin]\naddress = \"127.0.0.1:0\"\n",
                place.path("data")
            ),
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.current_dir(self.folder.path()).args(arguments).env_clear().stdin(Stdio::null());
        command.env("BULKHEAD_CONFIG", self.path("bulkhead.toml"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).output().unwrap())
    }

    /// Runs what must succeed.
    fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ran:?}"))
    }

    fn tenants(&self) -> String {
        self.path("tenants.toml").display().to_string()
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `serve --sandbox` in a place, until it is stopped.
struct Served {
    child: Child,
    log: mpsc::Receiver<Value>,
}

impl Served {
    fn start(place: &Place) -> Self {
        let mut child =
            place.command(&["serve", "--sandbox"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let served = Self { child, log };
        served.wait_for("relay_started");
        served
    }

    /// The next log line of this event.
    fn wait_for(&self, event: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line["event"] == event => return line,
                Ok(_) => {}
                Err(error) => panic!("no {event} came: {error}"),
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Stops it as a supervisor would; what it said on standard error.
    fn stop(mut self) -> (i32, String) {
        self.signal("-TERM");
        self.wait_for("relay_stopped");
        let status = self.child.wait().unwrap();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code().unwrap_or(-1), err)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn exit_codes_tell_what_kind_of_trouble_it_is() {
    let place = Place::new();
    assert_eq!(place.run(&["--help"]).code, 0);
    assert_eq!(place.run(&["--version"]).out.trim(), format!("bulkhead {}", env!("CARGO_PKG_VERSION")));
    for wrong in [&["bogus"][..], &[], &["tenant", "show"], &["tenant", "show", "No Such"], &["credential", "issue"]] {
        let ran = place.run(wrong);
        assert_eq!(ran.code, 64, "{wrong:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{wrong:?}: {ran:?}");
    }
    place.write("bad.toml", "hostnam = \"x\"\n");
    let ran = place.run(&["--config", "bad.toml", "tenant", "list"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.err.contains("bad.toml:1") && ran.err.contains("hostname"), "{ran:?}");
    let ran = place.run(&["--config", "missing.toml", "tenant", "list"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    let ran = place.run(&["tenant", "list"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no data folder"), "{ran:?}");
}

#[test]
fn check_tells_every_fault_and_binds_and_makes_nothing() {
    let place = Place::new();
    place.write(
        "broken.toml",
        "hostname = \"relay.test\"\ntenants_file = \"broken-tenants.toml\"\n[limits]\nrecipients = 0\nrecipient = 5\n",
    );
    let ran = place.run(&["--config", "broken.toml", "check"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    for wanted in ["broken.toml:4", "limits.recipients", "broken.toml:5", "limits.recipient"] {
        assert!(ran.err.contains(wanted), "{wanted}: {ran:?}");
    }

    // Good settings, but a stream without a configuration set in the tenants file, and no certificate.
    place.write("broken-tenants.toml", &TENANTS.replace("configuration_set = \"acme-marketing\"\n", ""));
    place.write("half.toml", "hostname = \"relay.test\"\ntenants_file = \"broken-tenants.toml\"\n");
    let ran = place.run(&["--config", "half.toml", "check"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    for wanted in ["broken-tenants.toml:", "configuration_set", "tls.certificate_file", "tls.private_key_file"] {
        assert!(ran.err.contains(wanted), "{wanted}: {ran:?}");
    }
    let ran = place.run(&["--config", "half.toml", "check", "--json"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(told["ok"], false);
    assert!(told["problems"].as_array().unwrap().len() >= 3, "{told}");

    place.write(
        "good.toml",
        "hostname = \"relay.test\"\ntenants_file = \"tenants.toml\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"none\"\n",
    );
    let ran = place.ok(&["--config", "good.toml", "check"]);
    assert!(ran.out.contains("events.queue_url: is not set"), "what is no fault but worth knowing: {ran:?}");
    assert!(ran.out.contains("good.toml is good; 1 tenants declared"), "{ran:?}");
    assert!(!place.path("data").exists(), "check makes no data folder");
}

#[test]
fn check_notes_a_stream_that_asks_for_reports_where_none_are_sent() {
    let place = Place::new();
    let asks = TENANTS
        .replace("configuration_set = \"acme-marketing\"\n", "configuration_set = \"acme-marketing\"\ndsn = true\n");
    assert_ne!(asks, TENANTS);
    place.write("tenants.toml", &asks);
    let settings = "hostname = \"relay.test\"\ntenants_file = \"tenants.toml\"\n\
                    [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"none\"\n";
    let note = "tenants.toml: tenant.acme.stream.marketing.dsn: is true, but the settings have no [notify]";
    place.write("silent.toml", settings);
    let ran = place.ok(&["--config", "silent.toml", "check"]);
    assert!(ran.out.contains(note), "{ran:?}");
    let sends = "[notify]\nfrom = \"postmaster@relay.test\"\nconfiguration_set = \"notices\"\n";
    place.write("telling.toml", &format!("{settings}{sends}"));
    let ran = place.ok(&["--config", "telling.toml", "check"]);
    assert!(!ran.out.contains("dsn"), "{ran:?}");
}

#[test]
fn the_files_of_the_configuration_tests_exit_78() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let files: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect(),
        Err(_) => Vec::new(),
    };
    let place = Place::new();
    let mut checked = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "toml")) {
        let text = std::fs::read_to_string(file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if text.contains("[[tenant]]") {
            continue;
        }
        let copy = place.write(&name, &text);
        let ran = place.run(&["--config", copy.to_str().unwrap(), "check"]);
        assert_eq!(ran.code, 78, "{name}: {ran:?}");
        assert!(ran.err.contains(&name), "{name}: {ran:?}");
        checked += 1;
    }
    assert!(checked >= 5, "{checked} files of {} in {}", files.len(), folder.display());
}

#[test]
fn apply_shows_the_difference_and_changes_nothing_the_second_time() {
    let place = Place::new();
    let file = place.tenants();
    let dry = place.ok(&["apply", &file, "--dry-run"]);
    assert!(dry.out.contains("+ tenant acme") && dry.out.contains("nothing was changed"), "{dry:?}");
    assert_eq!(place.json(&["tenant", "list"]), serde_json::json!([]), "a dry run applies nothing");

    let first = place.json(&["apply", &file]);
    assert_eq!(first["applied"], true);
    assert!(first["changes"].as_array().unwrap().len() >= 4, "{first}");
    assert_eq!(place.ok(&["apply", &file]).out, "nothing to change\n");

    // An issued credential and a pause are no declaration: no file takes them away.
    place.ok(&["credential", "issue", "acme", "--username", "by-hand"]);
    place.ok(&["tenant", "pause", "acme", "--stream", "marketing", "--reason", "stale list"]);
    assert_eq!(place.ok(&["apply", &file, "--prune"]).out, "nothing to change\n");
    let tenant = place.json(&["tenant", "show", "acme"]);
    assert_eq!(tenant["streams"][0]["pause"]["reason"], "stale list", "{tenant}");
    assert_eq!(tenant["credentials"].as_array().unwrap().len(), 2, "{tenant}");

    let without = place.write("fewer.toml", TENANTS.split("[[tenant.credential]]").next().unwrap());
    let without = without.display().to_string();
    assert_eq!(place.ok(&["apply", &without]).out, "nothing to change\n", "nothing goes without --prune");
    let pruned = place.ok(&["apply", &without, "--prune"]);
    assert!(pruned.out.contains("- credential acme-file"), "{pruned:?}");
    let left = place.json(&["credential", "list"]);
    assert_eq!(left.as_array().unwrap().iter().map(|one| &one["username"]).collect::<Vec<_>>(), ["by-hand"]);
}

#[test]
fn how_a_stream_uses_the_outbox_is_shown() {
    let place = Place::new();
    let own = "handoff = \"queue\"\nmax_age_hours = 12\ndedupe = false\ndsn = true\n";
    let text = TENANTS
        .replace("default_stream", "weight = 7\ndefault_stream")
        .replace("configuration_set = \"acme-marketing\"\n", &format!("configuration_set = \"acme-marketing\"\n{own}"));
    let file = place.write("outbox.toml", &text).display().to_string();
    place.ok(&["apply", &file]);
    assert_eq!(place.ok(&["apply", &file]).out, "nothing to change\n");
    let shown = place.json(&["tenant", "show", "acme"]);
    assert_eq!(shown["weight"], 7);
    let members = |stream: &serde_json::Value| {
        ["handoff", "max_age_hours", "dedupe", "dsn"].map(|member| stream[member].to_string()).join(" ")
    };
    assert_eq!(members(&shown["streams"][0]), "\"queue\" 12 false true");
    assert_eq!(members(&shown["streams"][1]), "\"through\" null true false");
    let text = place.ok(&["tenant", "show", "acme"]).out;
    let weight = text.lines().find(|line| line.starts_with("weight")).unwrap();
    assert_eq!(weight.split_whitespace().last(), Some("7"), "{text}");
    let row = |stream: &str| text.lines().find(|line| line.starts_with(stream)).unwrap().to_owned();
    assert!(row("marketing").contains("  queue, max_age_hours 12, no dedupe, dsn  "), "{text}");
    assert!(row("transactional").contains("  through  "), "{text}");
    // Changing its limits leaves the rest as it is.
    place.ok(&["tenant", "limits", "acme", "--pause-bounce", "0.03"]);
    let declared = |shown: &Value| {
        let mut streams = shown["streams"].clone();
        for stream in streams.as_array_mut().unwrap() {
            for judged in ["rates", "forecast"] {
                stream.as_object_mut().unwrap().remove(judged).unwrap();
            }
        }
        streams
    };
    let after = place.json(&["tenant", "show", "acme"]);
    assert_eq!(declared(&after), declared(&shown));
    assert_eq!(
        (&after["streams"][0]["rates"][0]["pause"], &shown["streams"][0]["rates"][0]["pause"]),
        (&0.03.into(), &0.05.into())
    );
}

#[test]
fn a_secret_is_shown_once_and_never_again() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let issued = place.ok(&[
        "credential",
        "issue",
        "acme",
        "--stream",
        "marketing",
        "--expires",
        "30d",
        "--from-ip",
        "10.0.0.0/8",
    ]);
    let secret = field(&issued.out, "secret");
    let username = field(&issued.out, "username");
    assert!(secret.starts_with("bh_") && secret.len() == 46, "{secret}");
    assert!(username.starts_with("acme-") && username.len() == 11, "{username}");

    let rotated = place.ok(&["credential", "rotate", &username, "--overlap", "1h"]);
    let second = field(&rotated.out, "secret");
    assert_ne!(secret, second);
    assert!(rotated.out.contains("lives until"), "{rotated:?}");
    for arguments in
        [&["credential", "list"][..], &["credential", "list", "--json"], &["tenant", "show", "acme", "--json"]]
    {
        let ran = place.ok(arguments);
        assert!(ran.out.contains(&username), "{ran:?}");
        assert!(!ran.out.contains(&secret) && !ran.out.contains(&second) && !ran.out.contains("sha256:"), "{ran:?}");
    }
    assert!(!holds(&place.path("data"), secret.as_bytes()), "the store has the hash alone");
    let list = place.json(&["credential", "list", "acme"]);
    let one = list.as_array().unwrap().iter().find(|one| one["username"] == username.as_str()).unwrap();
    assert_eq!(one["secrets"].as_array().unwrap().len(), 2, "both live during the overlap: {one}");
    assert_eq!(one["from_ip"][0], "10.0.0.0/8");

    let taken = place.run(&["credential", "issue", "acme", "--username", &username]);
    assert_eq!(taken.code, 1);
    assert!(taken.err.contains("is tenant acme's already"), "{taken:?}");
    place.ok(&["credential", "revoke", &username]);
    let gone = place.run(&["credential", "revoke", &username]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("no credential"), "{gone:?}");

    let printed = place.json(&["credential", "issue", "--print-hash"]);
    assert!(printed["secret"].as_str().unwrap().starts_with("bh_"));
    assert!(printed["secret_hash"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(place.json(&["credential", "list"]).as_array().unwrap().len(), 1, "it stored nothing");
}

#[test]
fn errors_say_what_to_do_next() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    for (arguments, wanted) in [
        (&["tenant", "show", "acne"][..], "no tenant acne (did you mean acme?); `bulkhead tenant list` shows all"),
        (&["tenant", "pause", "acme", "--stream", "marketin"], "did you mean marketing?"),
        (&["tenant", "resume", "acme"], "tenant acme is not paused"),
        (&["credential", "issue", "acme", "--expires", "2020-01-01"], "is past"),
        (&["suppression", "show", "acme", "a@b.example"], "is not on the suppression list"),
        (
            &["tenant", "limits", "acme", "--warn-bounce", "9%", "--pause-bounce", "5%"],
            "a warning comes before its pause",
        ),
        (&["send-test", "--tenant", "acme", "--to", "a@b.example"], "start it with `bulkhead serve`"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 1, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(wanted), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn limits_are_changed_one_by_one_and_reset() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    place.ok(&["tenant", "limits", "acme", "--stream", "marketing", "--warn-bounce", "3%"]);
    place.ok(&["tenant", "limits", "acme", "--stream", "marketing", "--pause-bounce", "0.06"]);
    let shown = place.json(&["tenant", "limits", "acme"]);
    assert_eq!(shown["streams"][0]["limits"], serde_json::json!({"warn_bounce": 0.03, "pause_bounce": 0.06}));
    assert_eq!(shown["senders"], serde_json::json!(["acme.example"]), "nothing else changed");
    place.ok(&["tenant", "limits", "acme", "--stream", "marketing", "--reset"]);
    assert_eq!(place.json(&["tenant", "show", "acme"])["streams"][0]["limits"], serde_json::json!({}));
}

#[test]
fn suppression_lists_come_and_go_as_files() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let many: String = (0..1200).map(|n| format!("bulk{n}@b.example,bounce\n")).collect();
    place.write("list.csv", &format!("address,reason\n{many}nobody,bounce\nangry@b.example,complaint\n"));
    let imported = place.run(&["suppression", "import", "acme", "list.csv"]);
    assert_eq!(imported.code, 1, "a bad line is a failure for scripts: {imported:?}");
    assert!(imported.out.contains("1201 added, 0 were there as strong, 1 bad lines"), "{imported:?}");
    assert!(imported.err.contains("list.csv: line 1202: the address \"nobody\""), "{imported:?}");

    let again = place.run(&["suppression", "import", "acme", "list.csv"]);
    assert!(again.out.contains("0 added, 1201 were there as strong"), "{again:?}");

    let csv = place.ok(&["suppression", "export", "acme"]).out;
    assert_eq!(csv.lines().count(), 1202);
    assert!(csv.starts_with("address,reason,origin,at,expires,actor\n"), "{}", &csv[..80]);
    place.ok(&["suppression", "export", "acme", "copy.jsonl"]);
    assert_eq!(std::fs::read_to_string(place.path("copy.jsonl")).unwrap().lines().count(), 1201);

    let kept = place.run(&["suppression", "remove", "acme", "angry@b.example"]);
    assert_eq!(kept.code, 1);
    assert!(kept.err.contains("--force"), "{kept:?}");
    place.ok(&["suppression", "remove", "acme", "Angry@b.example", "--force"]);
    // An address has an entry for each reason.
    place.ok(&["suppression", "add", "acme", "bulk7@b.example", "--kind", "complaint"]);
    let shown = place.json(&["suppression", "show", "acme", "BULK7@b.example"]);
    let reasons: Vec<&str> = shown.as_array().unwrap().iter().map(|entry| entry["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["bounce", "complaint"]);
    assert_eq!(place.json(&["suppression", "list", "acme"]).as_array().unwrap().len(), 1201);

    // From one tenant's file to another's list, by standard input.
    let mut child = place
        .command(&["suppression", "import", "acme", "-", "--format", "jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"address\":\"new@b.example\"}\n").unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("1 added"), "{ran:?}");
}

/// Exports of others, as they are downloaded; and what a script sees of an import.
#[test]
fn lists_of_other_services_are_imported_as_they_are() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let reason = |address: &str| place.json(&["suppression", "show", "acme", address])[0]["reason"].clone();
    place.write("ses.csv", "EmailAddress,Reason,LastUpdateTime\nses@b.example,COMPLAINT,2026-05-01T12:00:00Z\n");
    place.ok(&["suppression", "import", "acme", "ses.csv"]);
    assert_eq!(reason("ses@b.example"), "complaint");
    place.write(
        "ses.jsonl",
        "{\"EmailAddress\":\"two@b.example\",\"Reason\":\"BOUNCE\",\"LastUpdateTime\":1777636800.0}\n",
    );
    place.ok(&["suppression", "import", "acme", "ses.jsonl"]);
    assert_eq!(reason("two@b.example"), "bounce");
    place.write(
        "postmark.csv",
        "EmailAddress,SuppressionReason,Origin,CreatedAt\npm@b.example,ManualSuppression,Customer,\n",
    );
    place.ok(&["suppression", "import", "acme", "postmark.csv"]);
    assert_eq!(reason("pm@b.example"), "manual");
    place.write(
        "mailgun.csv",
        "address,code,error,created_at\nmg@b.example,550,\"no\nsuch\",\"Fri, 01 May 2026 12:00:00 GMT\"\n",
    );
    place.ok(&["suppression", "import", "acme", "mailgun.csv"]);
    let shown = place.json(&["suppression", "show", "acme", "mg@b.example"]);
    assert_eq!(
        (shown[0]["origin"].as_str(), shown[0]["at"].as_str()),
        (Some("Mailgun: 550 no such"), Some("2026-05-01T12:00:00.000Z"))
    );

    // Which of SendGrid's lists this is, nobody can see.
    place.write("sendgrid.csv", "email,created\nsg@b.example,1777636800\n");
    let asked = place.run(&["suppression", "import", "acme", "sendgrid.csv"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.err.contains("sendgrid.csv: line 1:") && asked.err.contains("--reason complaint"), "{asked:?}");
    place.ok(&["suppression", "import", "acme", "sendgrid.csv", "--reason", "complaint"]);
    assert_eq!(reason("sg@b.example"), "complaint");

    // A program hears the result and nothing else.
    place.write("bad.csv", "address\nnobody\nfine@b.example\n");
    let told = place.run(&["--json", "suppression", "import", "acme", "bad.csv"]);
    assert_eq!((told.code, told.err.as_str()), (1, ""), "{told:?}");
    let result: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&result["added"], &result["bad"], &result["bad_lines"][0]["line"]), (&1.into(), &1.into(), &2.into()));
}

/// A mailbox that stays full: the sixth message hears why, and until when. And with the comparison of
/// lists on, the sandbox is asked for its own.
#[test]
fn five_soft_bounces_in_a_row_are_told_to_the_next_message() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let config = std::fs::read_to_string(place.path("bulkhead.toml")).unwrap();
    place.write("bulkhead.toml", &format!("{config}\n[suppression]\nses_sync = \"pull\"\nsoft_days = 3\n"));
    let served = Served::start(&place);
    let synced = served.wait_for("suppressions_synced");
    assert_eq!((synced.get("tenant"), &synced["listed"]), (None, &Value::from(0)), "the account's: {synced}");
    for n in 1..=5 {
        let sent = place.ok(&["send-test", "--tenant", "acme", "--to", "Full@soft.test"]);
        assert!(sent.out.contains("250 2.0.0 Ok"), "{n}: {sent:?}");
        let bounced = served.wait_for("message_bounced");
        assert_eq!(bounced.get("suppressed").is_some(), n == 5, "{bounced}");
    }
    let refused = place.run(&["send-test", "--tenant", "acme", "--to", "full@soft.test"]);
    assert_eq!(refused.code, 1);
    let shown = place.json(&["suppression", "show", "acme", "full@soft.test"]);
    assert_eq!(shown[0]["reason"], "soft");
    let until = shown[0]["expires"].as_str().unwrap().split('T').next().unwrap().to_owned();
    let told = format!("5 soft bounces in a row, until {until}");
    assert!(refused.err.contains("550") && refused.err.contains(&told), "{refused:?}");
    place.ok(&["suppression", "remove", "acme", "full@soft.test"]);
    place.ok(&["send-test", "--tenant", "acme", "--to", "full@soft.test"]);
    assert_eq!(served.wait_for("message_bounced").get("suppressed"), None, "a run of its own");
    assert_eq!(served.stop().0, 0);
}

#[test]
fn archived_events_are_applied_once() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let event = serde_json::json!({
        "eventType": "Bounce",
        "mail": {
            "timestamp": "2026-05-01T09:15:02.418Z", "messageId": "0102-archived", "source": "a@acme.example",
            "destination": ["gone@b.example"], "tags": {"tenant": ["acme"], "stream": ["marketing"]}
        },
        "bounce": {
            "bounceType": "Permanent", "bounceSubType": "General", "feedbackId": "0102-feedback",
            "timestamp": "2026-05-01T09:15:05.000Z", "bouncedRecipients": [{"emailAddress": "gone@b.example"}]
        }
    });
    place.write("events.jsonl", &format!("{event}\n\n{event}\nnonsense\n"));
    let first = place.run(&["events", "replay", "events.jsonl"]);
    assert_eq!(first.code, 1, "{first:?}");
    assert!(first.out.contains("2 events applied or known, 1 lines malformed, 0 not taken"), "{first:?}");
    assert!(first.err.contains("events.jsonl: line 4"), "{first:?}");
    let list = place.json(&["suppression", "list", "acme"]);
    assert_eq!(list[0]["address"], "gone@b.example");
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn commands_go_to_the_relay_while_it_runs_and_to_the_store_while_it_does_not() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let served = Served::start(&place);

    let status = place.json(&["status"]);
    assert_eq!((&status["running"], &status["ready"]), (&Value::from(true), &Value::from(true)), "{status}");
    assert_eq!(status["listeners"].as_array().unwrap().len(), 2);
    let admin = status["admin"].as_str().unwrap();
    assert_eq!(place.ok(&["health", "--address", admin]).out, "ok\n");
    assert!(place.ok(&["health", "--ready", "--address", admin]).out.contains("true"));

    // A message out, its bounce back, the next one refused.
    let sent = place.ok(&["send-test", "--tenant", "acme", "--to", "gone@bounce.test"]);
    assert!(sent.out.contains("250 2.0.0 Ok"), "{sent:?}");
    served.wait_for("message_bounced");
    let refused = place.run(&["send-test", "--tenant", "acme", "--to", "gone@bounce.test"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("550") && refused.err.contains("suppressed"), "{refused:?}");
    assert_eq!(place.json(&["credential", "list"]).as_array().unwrap().len(), 1, "send-test leaves no credential");

    // A change is in force at once, and says who made it.
    place.ok(&["tenant", "pause", "acme", "--reason", "for the test"]);
    let mut changed = served.wait_for("changed");
    while changed["command"] != "tenant pause" {
        changed = served.wait_for("changed");
    }
    assert_eq!(changed["reason"], "for the test");
    assert!(changed["actor"].as_str().unwrap().starts_with("cli:"), "{changed}");
    let paused = place.run(&["send-test", "--tenant", "acme", "--to", "a@customers.example"]);
    assert!(paused.err.contains("451") && paused.err.contains("for the test"), "{paused:?}");
    place.ok(&["tenant", "resume", "acme"]);
    place.ok(&["send-test", "--tenant", "acme", "--to", "a@customers.example", "--stream", "marketing"]);

    // Nobody else gets at the store or the socket meanwhile.
    let second = place.run(&["serve", "--sandbox"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.err.contains("in use"), "{second:?}");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(place.path("data/control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (code, err) = served.stop();
    assert_eq!(code, 0, "{err}");
    assert!(!place.path("data/control.sock").exists(), "the socket goes with the relay");
    let health = place.run(&["health", "--address", admin]);
    assert_eq!(health.code, 1, "{health:?}");

    let list = place.json(&["suppression", "list", "acme"]);
    assert_eq!(list[0]["address"], "gone@bounce.test", "what the relay stored is there without it");
    assert_eq!(place.json(&["status"])["running"], false);
}

/// What was committed before the relay ran is told once it does: by mail, through SES, and to the
/// webhook.
#[test]
fn announcements_go_out_by_mail_and_webhook() {
    use bulkhead::announce::{Announcement, Kind, Severity, append};
    use bulkhead::time::Clock as _;

    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let random = bulkhead::adapters::clock::MachineRandom;
    let now = bulkhead::adapters::clock::MachineClock.now();
    let headline = "SES reviews the account";
    let announcement = Announcement::new(now, &random, Kind::AccountProbation, Severity::Alarm, headline);
    with_store(&place, |store| wait_for(append(store, &announcement)).unwrap());

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = place.write("hook.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let settings = std::fs::read_to_string(place.path("bulkhead.toml")).unwrap();
    let notify = format!(
        "[notify]\nfrom = \"postmaster@relay.test\"\nconfiguration_set = \"notices\"\noperator = \"ops@vendor.example\"\n\
         webhook_url = \"http://{}/\"\nwebhook_secret_file = {secret:?}\nwebhook_private = true\n",
        listener.local_addr().unwrap()
    );
    place.write("bulkhead.toml", &(settings + &notify));
    let hook = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut room = [0; 8192];
        let mut read = String::new();
        while !read.ends_with("}}") {
            let n = stream.read(&mut room).unwrap();
            read.push_str(&String::from_utf8_lossy(&room[..n]));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        read
    });
    let served = Served::start(&place);
    // The mail's way and the webhook's are apart: their lines come in any order.
    let mut lines = std::collections::BTreeMap::new();
    while lines.len() < 3 {
        let line = served.log.recv_timeout(PATIENCE).unwrap();
        let event = line["event"].as_str().unwrap().to_owned();
        if ["announcement_mailed", "message_dispatched", "webhook_delivered"].contains(&event.as_str()) {
            lines.insert(event, line);
        }
    }
    let (mailed, dispatched) = (&lines["announcement_mailed"], &lines["message_dispatched"]);
    assert_eq!((&mailed["audience"], &mailed["to"]), (&Value::from("operator"), &Value::from("vendor.example")));
    assert_eq!((&dispatched["message"], &dispatched["sent"]), (&mailed["report"], &Value::from(1)), "{dispatched}");
    let read = hook.join().unwrap();
    assert!(read.contains("\"type\":\"bulkhead.account.probation\"") && read.contains(headline), "{read}");
    let (code, err) = served.stop();
    assert_eq!(code, 0, "{err}");
    let left = with_store(&place, |store| wait_for(bulkhead::announce::pending(store, None, 10)).unwrap().len());
    assert_eq!(left, 0);
    // Without its secret the relay does not start, and says what to do.
    place.write("hook.secret", "hunter2");
    let refused = place.run(&["serve", "--sandbox"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(refused.err.contains("notify.webhook_secret_file") && !refused.err.contains("hunter2"), "{refused:?}");
    assert_eq!(place.run(&["check"]).code, 78);
}

#[test]
fn the_audit_trail_is_listed_with_a_relay_and_without() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    place.ok(&["tenant", "pause", "acme", "--stream", "marketing", "--reason", "a stale list"]);
    let served = Served::start(&place);
    place.ok(&["tenant", "resume", "acme", "--stream", "marketing"]);
    let running = place.json(&["audit", "list", "--tenant", "acme"]);
    let (code, err) = served.stop();
    assert_eq!(code, 0, "{err}");
    let rows = place.json(&["audit", "list"]);
    assert_eq!(rows, running);
    let rows = rows.as_array().unwrap();
    let what: Vec<&str> = rows.iter().take(2).map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["tenant resume --stream marketing", "tenant pause --stream marketing"], "the newest first");
    assert!(rows.len() > 4 && rows[2..].iter().all(|row| row["what"] == "apply"), "{rows:?}");
    let pause = &rows[1];
    assert_eq!((&pause["reason"], &pause["before"]), (&Value::from("a stale list"), &Value::from("sending")));
    assert!(pause["actor"].as_str().unwrap().starts_with("cli:"));
    let table = place.ok(&["audit", "list", "--since", "1h"]).out;
    assert!(table.starts_with("AT ") && table.contains("a stale list"), "{table}");
    assert!(place.ok(&["audit", "list", "--since", "0s"]).out.starts_with("nothing was changed since"));
    assert_eq!(place.json(&["audit", "list", "--tenant", "globex"]), serde_json::json!([]));
    assert_eq!(place.run(&["audit", "list", "--since", "yesterday"]).code, 64);
}

#[test]
fn a_hangup_applies_the_tenants_file_and_a_bad_one_changes_nothing() {
    let place = Place::new();
    let config = std::fs::read_to_string(place.path("bulkhead.toml")).unwrap();
    place.write("bulkhead.toml", &format!("tenants_file = {:?}\n{config}", place.path("tenants.toml")));
    let served = Served::start(&place);
    place.write(
        "tenants.toml",
        &TENANTS.replace("senders = [\"acme.example\"]", "senders = [\"acme.example\", \"acme.io\"]"),
    );
    served.signal("-HUP");
    assert_eq!(served.wait_for("tenants_applied")["changes"], 1);
    assert_eq!(place.json(&["tenant", "show", "acme"])["senders"], serde_json::json!(["acme.example", "acme.io"]));
    place.write("tenants.toml", "[[tenant]]\nid = \"other\"\n");
    served.signal("-HUP");
    let refused = served.wait_for("tenants_refused");
    assert_eq!(refused["blame"], "us");
    assert_eq!(place.json(&["tenant", "list"]).as_array().unwrap().len(), 1);
    let (code, err) = served.stop();
    assert_eq!(code, 0, "{err}");
    // At start it is another matter: a relay does not run with a tenants file it cannot follow.
    let ran = place.run(&["serve", "--sandbox"]);
    assert_eq!(ran.code, 78, "{ran:?}");
}

#[test]
fn a_socket_that_a_dead_relay_left_is_replaced() {
    let place = Place::new();
    let served = Served::start(&place);
    served.signal("-KILL");
    drop(served);
    assert!(place.path("data/control.sock").exists(), "there is something to replace");
    assert!(place.json(&["tenant", "list"]).as_array().is_some(), "commands go to the store then");
    let served = Served::start(&place);
    assert_eq!(place.json(&["status"])["running"], true);
    assert_eq!(served.stop().0, 0);
}

#[test]
fn the_sandbox_alone_tells_what_an_sdk_needs() {
    let place = Place::new();
    let mut child = place.command(&["sandbox", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    while !told.contains("AWS_SECRET_ACCESS_KEY") {
        assert_ne!(out.read_line(&mut told).unwrap(), 0, "{told}");
    }
    let url = told.lines().find_map(|line| line.split("AWS_ENDPOINT_URL_SESV2=").nth(1)).unwrap();
    let answer = ureq::get(&format!("{url}/sandbox/messages")).call().unwrap();
    assert_eq!(answer.status(), 200);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let outside = place.run(&["sandbox", "--listen", "0.0.0.0:0"]);
    assert_eq!(outside.code, 1);
    assert!(outside.err.contains("loopback"), "{outside:?}");
}

#[test]
fn the_demo_ends_well_and_proves_it() {
    let place = Place::new();
    let told = place.json(&["demo", "--messages", "15"]);
    assert_eq!(told["ok"], true, "{told}");
    let claims = told["claims"].as_array().unwrap();
    assert!(claims.len() >= 15, "{told}");
    assert!(claims.iter().all(|claim| claim["happened"] == true), "{told}");
    assert_eq!(place.run(&["demo", "--messages", "1"]).code, 64);
}

// --- Held messages and the check of the store ---------------------------------------------------

/// Message data that no command may show.
const HUSH: &str = "Subject: hush\r\n\r\nfor the recipients alone\r\n";

/// Holds messages in the place's outbox, one for each stream and recipient, of whom one has it already.
fn hold(place: &Place, letters: &[(&str, &str)]) -> Vec<String> {
    use bulkhead::adapters::clock::{MachineClock, MachineRandom};
    use bulkhead::adapters::spool::{FileSpool, Options as Spooling};
    use bulkhead::mail::{Mailbox, MessageId, ReversePath, SessionId, StreamId, TenantId, Username};
    use bulkhead::outbox::{Bounds, Cause, Content, Holding, Manifest, Options, Outbox, Progress, Start};
    use bulkhead::store::Store;
    use bulkhead::time::Clock as _;
    use std::sync::Arc;

    let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
    let store = Arc::new(bulkhead::adapters::sled::SledStore::open(&place.path("data")).unwrap());
    let held = wait_for(async {
        let spool = Arc::new(FileSpool::open(&place.path("data"), Spooling { writers: 4 }).unwrap());
        let bounds = Bounds { messages: 5000, messages_per_tenant: 5000, bytes_per_tenant: 1 << 30 };
        let options = Options { bounds, disk_reserve_bytes: 0 };
        let object: Arc<dyn Store> = store.clone();
        let opened = Outbox::open(object, spool, "main", options, MachineClock.now(), Duration::ZERO).await;
        let (outbox, _) = opened.unwrap();
        let mut ids = Vec::new();
        for (later, (stream, to)) in (0..).zip(letters) {
            // Each in a millisecond of its own, so that they sort as they were given.
            let now = MachineClock.now().plus(Duration::from_millis(later));
            let manifest = Manifest {
                id: MessageId::new(now, &MachineRandom),
                session: SessionId::new(now, &MachineRandom),
                tenant: TenantId::parse("acme").unwrap(),
                stream: Some(StreamId::parse(stream).unwrap()),
                credential: Username::parse("acme-file").unwrap(),
                reverse_path: ReversePath::Mailbox(mailbox("bounces@acme.example")),
                recipients: vec![mailbox(to), mailbox("has.it@z.example")],
                claims: vec![mailbox("news@acme.example")],
                tags: vec![("campaign".into(), "may".into())],
                created: now,
                expires: now.plus(Duration::from_secs(86_400)),
                digest: None,
            };
            let content = Content { first: vec![bytes::Bytes::from_static(HUSH.as_bytes())], draft: None };
            let holding = Holding {
                manifest: &manifest,
                content: &content,
                progress: Progress::parse(".t").unwrap(),
                cause: Cause::SetPaused,
                words: "sending paused",
                unknown: 0,
                until: Start::At(now.plus(Duration::from_secs(630))),
            };
            outbox.hold(holding).await.unwrap();
            ids.push(manifest.id.to_string());
        }
        ids
    });
    store.close();
    held
}

/// Something done to the store while nobody else has it.
fn with_store<T>(place: &Place, work: impl FnOnce(&bulkhead::adapters::sled::SledStore) -> T) -> T {
    let store = bulkhead::adapters::sled::SledStore::open(&place.path("data")).unwrap();
    let done = work(&store);
    store.close();
    done
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn held_messages_are_listed_retried_and_discarded_without_a_relay() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    assert_eq!(place.ok(&["outbox", "list"]).out, "no message is held\n");
    assert_eq!(place.json(&["outbox", "list"]), serde_json::json!([]));
    let held = hold(&place, &[("marketing", "joe@x.example"), ("transactional", "ann@y.example")]);
    let [first, second] = &held[..] else { panic!("{held:?}") };

    let table = place.ok(&["outbox", "list"]).out;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let head = "MESSAGE TENANT STREAM TO RECIPIENTS SIZE AGE ATTEMPTS CAUSE NEXT";
    assert_eq!(lines[0], head.split(' ').collect::<Vec<_>>());
    assert_eq!(lines[1][..9], [first, "acme", "marketing", "joe@x.example", "1", "of", "2", "43", "B"], "{table}");
    assert_eq!(lines[1][10..], ["0", "configuration_set_paused", "held,", "in", "10m"], "{table}");
    let totals = "messages: 2, open recipients: 2, size: 86 B; ready: 0, waiting: 0, being sent: 0, held: 2";
    assert_eq!(table.lines().last(), Some(totals));
    let rows = place.json(&["outbox", "list", "--stream", "transactional", "--cause", "configuration_set_paused"]);
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!((&rows[0]["message"], &rows[0]["state"]), (&Value::from(second.as_str()), &Value::from("held")));
    assert_eq!(place.json(&["outbox", "list", "--cause", "rate"]), serde_json::json!([]));

    let shown = place.ok(&["outbox", "show", &first.to_lowercase()]).out;
    assert_eq!(&field(&shown, "message"), first);
    assert!(shown.contains("2: 1 open, 1 taken, 0 refused") && shown.contains("sending paused"), "{shown}");
    let recipients: Vec<Vec<&str>> =
        shown.lines().rev().take(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(recipients, [["has.it@z.example", "taken"], ["joe@x.example", "open"]]);
    assert!(shown.contains("campaign=may") && field(&shown, "credential") == "acme-file", "{shown}");
    assert!(!shown.contains("hush") && !shown.contains("for the recipients"), "{shown}");

    let retried = place.ok(&["outbox", "retry", first]);
    assert_eq!(retried.out, "messages retried: 1, left alone: 0\n");
    assert!(retried.err.contains("no relay runs"), "{retried:?}");
    let states = |rows: Value| rows.as_array().unwrap().iter().map(|row| row["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states(place.json(&["outbox", "list"])), ["ready", "held"], "and it is written down");
    let retried = place.json(&["outbox", "retry", "--tenant", "acme", "--stream", "transactional"]);
    assert_eq!(retried, serde_json::json!({"retried": 1, "left_alone": []}));

    let discarded = place.ok(&["outbox", "discard", second, "--reason", "stale"]);
    assert_eq!(discarded.out, "messages discarded: 1, left alone: 0\n");
    assert_eq!(place.json(&["outbox", "discard", "--all"])["discarded"], 1);
    assert_eq!(place.json(&["outbox", "list"]), serde_json::json!([]));
}

#[test]
fn a_list_says_what_keeps_a_whole_stream() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let id = hold(&place, &[("transactional", "ann@y.example")]).remove(0);
    place.ok(&["tenant", "pause", "acme", "--reason", "stale list"]);
    place.ok(&["outbox", "retry", &id]);
    assert_eq!(place.json(&["outbox", "list"])[0]["behind"], Value::Null, "nobody sends, so nobody keeps it");
    let served = Served::start(&place);
    // The dispatcher looks at its lanes once it runs.
    let listed = || place.json(&["outbox", "list"]);
    let rows = std::iter::repeat_with(listed).take(500).find(|rows| !rows[0]["behind"].is_null()).unwrap();
    assert_eq!(rows[0]["behind"], serde_json::json!({"reason": "tenant_paused", "until": null}), "{rows}");
    assert_eq!(rows[0]["state"], "ready");
    let shown = place.ok(&["outbox", "show", &id]).out;
    assert!(shown.contains("behind tenant_paused\n"), "{shown}");
    place.ok(&["tenant", "resume", "acme"]);
    served.wait_for("message_dispatched");
    assert_eq!(place.json(&["outbox", "list"]), serde_json::json!([]));
    served.stop();
}

#[test]
fn what_is_meant_has_to_be_said_before_anything_is_discarded() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let id = hold(&place, &[("marketing", "joe@x.example")]).remove(0);
    for wrong in [
        &["outbox", "discard"][..],
        &["outbox", "retry"],
        &["outbox", "discard", "--stream", "marketing"],
        &["outbox", "discard", &id, "--all"],
        &["outbox", "discard", &id, "--tenant", "acme"],
        &["outbox", "retry", "--tenant", "acme", "--all"],
        &["outbox", "discard", "not-an-id"],
        &["outbox", "list", "--cause", "moon"],
        &["outbox", "show"],
        &["store"],
    ] {
        let ran = place.run(wrong);
        assert_eq!(ran.code, 64, "{wrong:?}: {ran:?}");
    }
    let gone = "01KAH2V4S9Q0ZC7M3T8N5XW1YE";
    for (arguments, wanted) in [
        (&["outbox", "show", gone][..], "is held: it has been sent"),
        (&["outbox", "retry", &id, gone], "is held: it has been sent"),
        (&["outbox", "discard", "--tenant", "acne"], "did you mean acme?"),
        (&["outbox", "discard", "--tenant", "acme", "--stream", "marketin"], "did you mean marketing?"),
        (&["outbox", "list", "--tenant", "acne"], "no tenant acne"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 1, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(wanted), "{arguments:?}: {ran:?}");
    }
    assert_eq!(place.json(&["outbox", "list"])[0]["state"], "held", "nothing was done");
}

#[test]
fn the_store_is_checked_with_a_relay_and_without() {
    use bulkhead::store::{Batch, If, Key, Store as _};
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let whole = place.ok(&["store", "verify"]);
    assert!(whole.out.starts_with("records: ") && whole.out.ends_with("faults: 0\n"), "{whole:?}");
    let served = Served::start(&place);
    let verified = place.json(&["store", "verify"]);
    assert!(verified["records"].as_u64().unwrap() >= 5, "{verified}");
    assert_eq!((&verified["faults_in_all"], &verified["faults"]), (&Value::from(0), &serde_json::json!([])));
    let refused = place.run(&["store", "rebuild"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("a relay runs") && refused.err.contains("stop it first"), "{refused:?}");
    served.stop();

    let held = hold(&place, &[("marketing", "joe@x.example"); 4]);
    let [lost, flipped, stray, _] = &held[..] else { panic!("{held:?}") };
    std::fs::remove_file(place.path("data/outbox").join(lost)).unwrap();
    let file = place.path("data/outbox").join(flipped);
    let mut octets = std::fs::read(&file).unwrap();
    let at = octets.windows(4).position(|part| part == b"hush").unwrap();
    octets[at] ^= 4;
    std::fs::write(&file, octets).unwrap();
    // A file that no row has: the row of another one's copy.
    let copy = format!("{}{}", &stray[..25], if stray.ends_with('0') { '1' } else { '0' });
    std::fs::copy(place.path("data/outbox").join(stray), place.path("data/outbox").join(&copy)).unwrap();
    let credential = Key::credential(&"acme-file".parse().unwrap());
    let mut batch = Batch::new();
    batch.put(credential, If::Any, bytes::Bytes::from_static(b"rubbish"));
    with_store(&place, |store| wait_for(store.commit(batch)).map(drop).unwrap());
    let found = place.run(&["store", "verify"]);
    assert_eq!(found.code, 1, "{found:?}");
    for wanted in [
        "record: credential/acme-file: ",
        "apply the tenants file",
        &format!("missing: {lost}: "),
        &format!("body: {flipped}: "),
        &format!("stray: {copy}: "),
        "held messages: 4 (",
        "body files: 4, faults: 4\n",
    ] {
        assert!(found.out.contains(wanted), "{wanted}: {found:?}");
    }
    let found = place.run(&["store", "verify", "--json"]);
    assert_eq!(found.code, 1);
    let found: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((&found["faults_in_all"], &found["faults"][0]["kind"]), (&Value::from(4), &Value::from("record")));
    assert!(place.path("data/outbox").join(&copy).exists(), "it changed nothing");
}

#[test]
fn a_store_that_cannot_be_opened_is_moved_aside_only_when_that_is_asked_for() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    place.ok(&["suppression", "add", "acme", "gone@b.example"]);
    let held = hold(&place, &[("marketing", "joe@x.example"); 30]);
    place.write("data/outbox/a-file", "of the outbox");
    let rebuilt = place.json(&["store", "rebuild", "--move-aside"]);
    assert_eq!((&rebuilt["held"], &rebuilt["moved_to"]), (&Value::from(30), &Value::Null), "a whole store stays");
    assert_eq!(place.json(&["suppression", "list", "acme"]).as_array().unwrap().len(), 1);

    place.write("data/conf", "this is no sled's configuration, and longer than its checksum");
    let refused = place.run(&["tenant", "list"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("is damaged") && refused.err.contains("bulkhead store rebuild"), "{refused:?}");
    let refused = place.run(&["store", "rebuild"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for wanted in ["is damaged", "--move-aside", "loses suppressions", "backup"] {
        assert!(refused.err.contains(wanted), "{wanted}: {refused:?}");
    }
    assert!(place.path("data/db").exists(), "nothing was moved");

    let rebuilt = place.run(&["store", "rebuild", "--move-aside", "--json"]);
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    assert!(rebuilt.err.contains("Lost with it: suppressions"), "{rebuilt:?}");
    let told: Value = serde_json::from_str(&rebuilt.out).unwrap();
    assert_eq!(told["held"], 30);
    let rows = place.json(&["outbox", "list"]);
    let ids: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["message"].as_str().unwrap()).collect();
    let mut sorted: Vec<&str> = held.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    assert_eq!(ids, sorted);
    assert!(rows.as_array().unwrap().iter().all(|row| row["recipients"]["taken"] == 1), "{rows}");
    assert_eq!(place.json(&["store", "verify"])["messages"], 30);
    let aside = PathBuf::from(told["moved_to"].as_str().unwrap());
    assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("damaged-2"), "{told}");
    for name in ["conf", "db"] {
        assert!(aside.join(name).exists() && place.path("data").join(name).exists(), "{name}");
    }
    assert!(std::fs::read(aside.join("conf")).unwrap().starts_with(b"this is no sled's"));
    assert_eq!(std::fs::read_to_string(place.path("data/outbox/a-file")).unwrap(), "of the outbox");
    assert!(!aside.join("outbox").exists() && !aside.join("lock").exists());
    assert_eq!(place.json(&["tenant", "list"]), serde_json::json!([]));
    place.ok(&["apply", &place.tenants()]);
    assert_eq!(place.json(&["suppression", "list", "acme"]), serde_json::json!([]), "lost, as was said");
}

/// The value behind a name in two-column output.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Whether any file under `folder` holds `octets`.
fn holds(folder: &Path, octets: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, octets);
        }
        std::fs::read(&path).is_ok_and(|found| found.windows(octets.len()).any(|part| part == octets))
    })
}

/// Writes what became of acme's marketing mail into a store that no relay runs with: so many hours ago.
fn sent(place: &Place, mail: &[(u32, u64, u64)]) {
    use bulkhead::policy::tenant::Cohort;
    use bulkhead::store::counters::{self, Counts, Row};
    use bulkhead::store::{Batch, If, Store as _, domains};
    use bulkhead::time::{Clock as _, Hour};

    let now = bulkhead::adapters::clock::MachineClock.now();
    let store = bulkhead::adapters::sled::SledStore::open(&place.path("data")).unwrap();
    let mut batch = Batch::new();
    for (hours, accepted, bounced) in mail {
        let cohort = Cohort::of(Hour(now.hour().0 - hours));
        let row = Row { tenant: "acme".parse().unwrap(), stream: "marketing".parse().unwrap(), cohort };
        let counts = Counts { accepted: *accepted, bounced: *bounced, ..Counts::default() };
        counters::write(&mut batch, &row, "main", If::Any, &counts);
        let day = domains::day_of(now);
        for (domain, share) in [("good.example", 0), ("bad.example", 1)] {
            let row = domains::Row { tenant: "acme".parse().unwrap(), day, domain: format!("{hours}.{domain}") };
            let counts = Counts { bounced: bounced * share, accepted: accepted / 2, ..Counts::default() };
            domains::write(&mut batch, &row, "main", If::Any, &counts);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(batch)).unwrap();
    store.close();
}

#[test]
fn explain_says_what_the_gate_would_with_the_relay_and_without() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    let ask = ["explain", "--tenant", "acme", "--from", "app@acme.example", "--to", "joe@there.example"];
    let ran = place.ok(&ask);
    assert!(ran.out.starts_with("AT "), "{ran:?}");
    assert!(ran.out.ends_with("relayed by stream transactional: 250 2.0.0 Ok <Amazon SES's message id>\n"), "{ran:?}");
    for rule in ["tenant's standing", "MAIL FROM", "stream's bounces, 24 hours", "recipient under the stream"] {
        assert!(ran.out.contains(rule), "{rule}: {ran:?}");
    }
    place.ok(&["tenant", "pause", "acme", "--stream", "marketing", "--reason", "stale list"]);
    let marketing = [ask.as_slice(), &["--stream", "marketing"]].concat();
    let ran = place.ok(&marketing);
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("deferred, for stream's pause: 451 4.7.1 stream marketing paused since "), "{ran:?}");
    assert!(ran.out.lines().any(|line| line.contains("stream's pause") && line.contains("STOPS")), "{ran:?}");
    let alone = place.json(&marketing);
    let served = Served::start(&place);
    let running = place.json(&marketing);
    assert_eq!(alone["verdict"], running["verdict"]);
    assert_eq!(alone["steps"], running["steps"], "what is accepted alone meets the outbox");
    let other = place.json(&ask);
    assert_eq!(other["verdict"]["outcome"], "relayed", "{other}");
    let outbox: Vec<&Value> = other["steps"].as_array().unwrap().iter().filter(|s| s["moment"] == "outbox").collect();
    for gate in ["handoff: ", "the stream's mail: ", "backlog: ", "exposure window: "] {
        let shown = outbox.iter().filter(|step| step["value"].as_str().unwrap().starts_with(gate));
        assert_eq!(shown.count(), 1, "{gate}: {other}");
    }
    place.ok(&["suppression", "add", "acme", "joe@there.example"]);
    let refused = place.json(&ask);
    assert_eq!(refused["verdict"]["moment"], "rcpt");
    assert!(refused["verdict"]["reply"].as_str().unwrap().starts_with("550 5.7.1 recipient suppressed"), "{refused}");
    assert_eq!(served.stop().0, 0);
    let ran = place.run(&["explain", "--tenant", "acne", "--from", "a@acme.example", "--to", "b@c.example"]);
    assert!(ran.code == 1 && ran.err.contains("did you mean acme?"), "{ran:?}");
    assert_eq!(place.run(&["explain", "--tenant", "acme"]).code, 64);
}

#[test]
fn a_tenants_standing_is_shown_with_its_forecast() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    assert!(place.ok(&["tenant", "list"]).out.contains(" good "), "nobody has done anything");
    sent(&place, &[(0, 1000, 27)]);
    let shown = place.json(&["tenant", "show", "acme"]);
    let marketing = &shown["streams"][0];
    assert_eq!(marketing["standing"]["step"], "good");
    let rate = &marketing["rates"][0];
    assert_eq!((&rate["offence"], &rate["span"], &rate["bad"]), (&"bounce".into(), &"day".into(), &27.into()));
    assert!((rate["rate"].as_f64().unwrap() - 0.027).abs() < 1e-9 && rate["pause"] == 0.05, "{rate}");
    let text = place.ok(&["tenant", "show", "acme"]).out;
    // A new tenant: its 27 bounces are over the warning's rate, and three over the ceiling of the pause.
    assert!(text.contains("those of a new tenant"), "{text}");
    assert!(text.contains("limits    bounces: warned over 2 %, slowed over 3.5 %, paused over 5 %"), "{text}");

    // The relay judges, and what it comes to is shown with its end.
    let served = Served::start(&place);
    served.wait_for("stream_paused");
    let text = place.ok(&["tenant", "show", "acme"]).out;
    for part in ["paused since ", "27 bounces of 1000 in 24 hours (2.7 %)", "clean until ", ": good again"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let list = place.ok(&["tenant", "list"]).out;
    assert!(list.contains("marketing paused"), "{list}");
    let rows = place.json(&["tenant", "list"]);
    assert_eq!(rows[0]["braked_streams"][0], serde_json::json!(["marketing", "paused"]), "{rows}");
    // Its stream's fresh window does not end what its sum has come to.
    let ran = place.ok(&["tenant", "resume", "acme", "--stream", "marketing", "--reason", "list cleaned"]);
    assert!(ran.err.contains("`bulkhead tenant resume acme` ends that, too"), "{ran:?}");
    assert!(ran.out.contains("counted from "), "{ran:?}");
    assert_eq!(served.stop().0, 0);
}

#[test]
fn mail_is_shown_by_domain_the_worst_first() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    assert_eq!(place.ok(&["tenant", "domains", "acme"]).out, "no mail of the last 7 days\n");
    sent(&place, &[(1, 1000, 50), (2, 400, 60)]);
    let rows = place.json(&["tenant", "domains", "acme", "--days", "2"]);
    let named: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["domain"].as_str().unwrap()).collect();
    assert_eq!(named, ["2.bad.example", "1.bad.example", "1.good.example", "2.good.example"]);
    assert_eq!(
        (&rows[0]["accepted"], &rows[0]["bounced"], &rows[0]["bounce_rate"]),
        (&200.into(), &60.into(), &0.3.into())
    );
    let text = place.ok(&["tenant", "domains", "acme"]).out;
    assert!(text.starts_with("DOMAIN ") && text.lines().nth(1).unwrap().starts_with("2.bad.example "), "{text}");
    assert_eq!(place.run(&["tenant", "domains", "acme", "--days", "0"]).code, 64);
}

#[test]
fn what_was_sent_is_replayed_under_other_limits() {
    let place = Place::new();
    place.ok(&["apply", &place.tenants()]);
    sent(&place, &[(30, 1000, 40), (400, 500, 10)]);
    let file =
        place.write("try.toml", "[reputation]\nyoung_days = 0\nmarketing_pause_bounce = 0.025\n").display().to_string();
    let simulate = ["simulate", "--limits", &file, "--since", "3d"];
    let told = place.json(&simulate);
    let to = |whose: &str| -> Vec<String> {
        let all = told[whose].as_array().unwrap().iter();
        all.map(|one| format!("{}: {}", one["stream"].as_str().unwrap_or("all"), one["to"].as_str().unwrap())).collect()
    };
    // 40 of 1,000 are 2.9 % at least. New, the tenant is over its ceiling besides; the trial has none.
    assert!(to("tried").contains(&"marketing: paused".into()), "{told}");
    assert!(to("tried").iter().all(|line| !line.starts_with("all")), "its sum is judged by the limits of bulk: {told}");
    assert!(to("present").contains(&"all: transactional_only".into()), "{told}");
    let text = place.ok(&simulate).out;
    assert!(text.starts_with("HOUR ") && text.contains("acme/marketing"), "{text}");
    assert!(text.contains("with the limits tried: 1 times paused\n"), "{text}");
    // The relay gives the same; another tenant's limits are found by its name.
    let served = Served::start(&place);
    assert_eq!(place.json(&simulate), told);
    let one = place.json(&[simulate.as_slice(), &["--tenant", "acme"]].concat());
    assert_eq!(one["tried"], told["tried"]);
    assert_eq!(served.stop().0, 0);

    let bad = "[reputation]\nleast_bounces = 0\n[[tenant]]\nid = \"acme\"\n[[tenant.stream]]\nid = \"news\"\n";
    let bad_file = place.write("bad.toml", bad).display().to_string();
    let ran = place.run(&["simulate", "--limits", &bad_file, "--since", "3d"]);
    assert!(ran.code == 78 && ran.err.contains("bad.toml:2: reputation.least_bounces"), "{ran:?}");
    place.write("bad.toml", &bad.replace("= 0", "= 1"));
    let ran = place.run(&["simulate", "--limits", &bad_file, "--since", "3d"]);
    assert!(ran.code == 78 && ran.err.contains("bad.toml:5: tenant.acme.stream.news: is no stream"), "{ran:?}");
    let help = place.ok(&["simulate", "--help"]).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("when an event arrived is not kept"), "{help}");
}
