//! The manual says what the code does: its tables are held against the code, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead::announce::Kind;
use bulkhead::mail::header::HeaderError;
use bulkhead::mail::mailbox::MailboxError;
use bulkhead::mail::{Durable, Mailbox, MessageId, Receipt, StreamId, Taken, TenantId, Username};
use bulkhead::outbox::{Cause, HoldError, Past, SpoolError};
use bulkhead::policy::decide::{Reason, Stop};
use bulkhead::policy::reputation::{Brake, Charge, Offence, Rule, Span, Step};
use bulkhead::policy::tenant::{Pause, SuppressionReason};
use bulkhead::relay::admission::LADDER;
use bulkhead::relay::wording;
use bulkhead::smtp::command::CommandError;
use bulkhead::smtp::data::Fault;
use bulkhead::smtp::line::Bound;
use bulkhead::smtp::{Refusal, Reply, reply};
use bulkhead::store::{CommitError, Key};
use bulkhead::time::Timestamp;
use bulkhead::upstream::{Outcome, Refused};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder`, but for what is built or fetched.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == ".git" || name == "target" || name == "node_modules" || name == "__pycache__" {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The rows of a page's tables whose header begins with `head`: cells, trimmed.
fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('|').trim().to_owned()).collect()
    };
    let mut found = Vec::new();
    let mut inside = false;
    for line in text(page).lines() {
        if !line.starts_with('|') {
            inside = false;
        } else if cells(line)[0] == head {
            inside = true;
        } else if inside && !line.starts_with("|---") {
            found.push(cells(line));
        }
    }
    assert!(!found.is_empty(), "{page} has no table of {head}s");
    found
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn code(reply: &Reply) -> String {
    format!("{} {}", reply.code(), reply.enhanced()).trim_end().to_owned()
}

// --- Replies ----------------------------------------------------------------------------------

/// Each reply under its name in the manual.
#[derive(Default)]
struct Built(Vec<(String, String)>);

impl Built {
    fn add(&mut self, name: impl Into<String>, reply: &Reply) {
        self.0.push((name.into(), code(reply)));
    }
    fn refusal(&mut self, name: impl Into<String>, refusal: &Refusal) {
        self.add(name, refusal.reply());
    }
}

fn receipts() -> [(&'static str, Receipt); 3] {
    let id = MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
    let taken = || Taken::by_ses("ses-1".into());
    [
        ("one call", Receipt::one(taken())),
        ("several calls", Receipt::several(id, &[taken(), taken()], 2).unwrap()),
        ("held", Receipt::held(Durable::in_outbox(id))),
    ]
}

fn replies_that_go_well(built: &mut Built) {
    built.add("reply::greeting", &reply::greeting("relay.example"));
    built.add("reply::greeting_with", &reply::greeting_with("relay.example", "a note"));
    built.add("reply::extensions", &reply::extensions(vec!["relay.example".into()]));
    built.add("reply::hello", &reply::hello("relay.example"));
    built.add("reply::ready_for_tls", &reply::ready_for_tls());
    built.add("reply::challenge", &reply::challenge(""));
    built.add("reply::authenticated", &reply::authenticated());
    built.add("reply::ok", &reply::ok());
    built.add("reply::sender_ok", &reply::sender_ok());
    built.add("reply::recipient_ok", &reply::recipient_ok());
    built.add("reply::start_mail_data", &reply::start_mail_data());
    built.add("reply::chunk_taken", &reply::chunk_taken(1));
    for (which, receipt) in receipts() {
        built.add(format!("reply::message_accepted ({which})"), &reply::message_accepted(&receipt));
    }
    built.add("reply::not_verified", &reply::not_verified());
    built.add("reply::help", &reply::help());
    built.add("reply::goodbye", &reply::goodbye("relay.example"));
}

fn replies_that_end_or_refuse(built: &mut Built) {
    for rung in LADDER {
        built.refusal(format!("Rung::{rung:?}"), &rung.refusal());
    }
    built.add("reply::draining", &reply::draining());
    built.add("reply::timed_out", &reply::timed_out());
    built.add("reply::our_fault", &reply::our_fault());
    built.add("reply::too_many_errors", &reply::too_many_errors());
    built.add("reply::too_many_commands", &reply::too_many_commands());
    built.add("reply::too_many_messages", &reply::too_many_messages(1));
    built.refusal("reply::too_many_logins", &reply::too_many_logins());
    built.add("reply::bare_cr", &reply::bare_cr());
    built.add("reply::bare_lf", &reply::bare_lf());
    for bound in [Bound::Command, Bound::Auth] {
        built.add(format!("reply::line_too_long ({bound:?})"), &reply::line_too_long(bound));
    }
    built.add("reply::nul_in_line", &reply::nul_in_line());
    built.add("reply::exchange_malformed", &reply::exchange_malformed());
    built.add("reply::exchange_cancelled", &reply::exchange_cancelled());
    for starttls in [true, false] {
        built.add("reply::encryption_needed", &reply::encryption_needed(starttls));
    }
    built.add("reply::authentication_needed", &reply::authentication_needed());
    built.add("reply::out_of_order", &reply::out_of_order("Send EHLO first"));
    built.add("reply::not_implemented", &reply::not_implemented("EXPN"));
    built.refusal("reply::credentials_invalid", &reply::credentials_invalid());
    built.refusal("reply::authentication_unavailable", &reply::authentication_unavailable());
    built.add("reply::no_valid_recipients", &reply::no_valid_recipients());
    built.add("reply::no_recipients_now", &reply::no_recipients_now());
    built.add("reply::message_too_big", &reply::message_too_big(1));
    built.add("reply::too_many_recipients", &reply::too_many_recipients(1));
    built.refusal("wording::too_many_of_tenant", &wording::too_many_of_tenant());
    built.refusal("wording::short_of_memory", &wording::short_of_memory());
    built.refusal("wording::short_of_disk", &wording::short_of_disk());
    built.refusal("wording::record_damaged", &wording::record_damaged());
    built.refusal("wording::store_unavailable", &wording::store_unavailable());
    built.refusal("wording::fault", &wording::fault());
    built.refusal("wording::abandoned", &wording::abandoned());
    built.refusal("wording::looping", &wording::looping(50));
}

/// Bad commands, as a client sends them, and the name each has in the manual.
fn replies_to_bad_commands(built: &mut Built) {
    let lines = [
        ("FROB", ""),
        ("RSET x", ""),
        ("MAIL FRO:<a@b.example>", ""),
        ("BDAT x", ""),
        ("MAIL FROM:<a b@c.example>", "sender"),
        ("RCPT TO:<a b@c.example>", "recipient"),
        ("MAIL FROM:<ü@b.example>", "non-ASCII local part"),
        ("RCPT TO:<ü@b.example>", "non-ASCII local part"),
        ("MAIL FROM:<@a:b@c.example>", "sender"),
        ("RCPT TO:<@a:b@c.example>", "recipient"),
        ("MAIL FROM:<postmaster>", "sender"),
        ("RCPT TO:<postmaster>", "recipient"),
        ("RCPT TO:<>", ""),
        ("MAIL FROM:<> SIZE=1 SIZE=1", ""),
        ("MAIL FROM:<> SIZE=x", ""),
        ("MAIL FROM:<> =", ""),
        ("MAIL FROM:<> FROB=1", ""),
        ("MAIL FROM:<> SMTPUTF8", ""),
        ("AUTH GSSAPI", ""),
    ];
    for (line, which) in lines {
        let error = bulkhead::smtp::command::parse(line.as_bytes()).expect_err(line);
        // A new variant does not compile before it has its line above and its row.
        let name = match &error {
            CommandError::Unknown => "Unknown",
            CommandError::NoArgumentAllowed(_) => "NoArgumentAllowed",
            CommandError::Syntax(_) => "Syntax",
            CommandError::ChunkSize => "ChunkSize",
            CommandError::Path { .. } => "Path",
            CommandError::SourceRoute(_) => "SourceRoute",
            CommandError::NoDomain(_) => "NoDomain",
            CommandError::NullRecipient => "NullRecipient",
            CommandError::ParameterTwice(_) => "ParameterTwice",
            CommandError::ParameterValue(_) => "ParameterValue",
            CommandError::ParameterSyntax => "ParameterSyntax",
            CommandError::ParameterUnknown(_) => "ParameterUnknown",
            CommandError::SmtpUtf8 => "SmtpUtf8",
            CommandError::MechanismUnknown => "MechanismUnknown",
        };
        if let CommandError::Path { error, .. } = &error {
            let narrow = *error == MailboxError::NonAsciiLocalPart;
            assert_eq!(narrow, which == "non-ASCII local part", "{line}");
        }
        let name = if which.is_empty() { name.to_owned() } else { format!("{name} ({which})") };
        built.add(format!("CommandError::{name}"), &reply::no_command(error));
    }
    use Fault::{BareCr, BareLf, LongLine, NoRoom, Nul, OpenLine, Starved, TooBig};
    for fault in [BareCr, BareLf, Nul, LongLine, OpenLine, TooBig, Starved, NoRoom] {
        let name = match fault {
            BareCr | BareLf | Nul | LongLine | OpenLine | TooBig | Starved | NoRoom => format!("Fault::{fault:?}"),
        };
        built.add(name, &reply::faulty(fault, 1, 1));
    }
}

fn replies_of_policy(built: &mut Built) {
    let (at, actor) = (Timestamp::from_millis(0), "cli:root".to_owned());
    let pause = || Pause { at, actor: actor.clone(), reason: "stale list".into() };
    let brake = || Brake {
        step: Step::Paused,
        since: at,
        charge: Charge {
            rule: Rule::Rate,
            offence: Offence::Bounce,
            span: Span::Day,
            bad: 31,
            accepted: 500,
            limit: 0.05,
        },
        clears: Some(at),
        shadow: false,
    };
    let stream = || StreamId::parse("main").unwrap();
    let name = || "news".to_owned();
    let address = Mailbox::parse(b"a@b.example").unwrap();
    let later = |reason| Stop::Defer(reason, None);
    let suppressed = |reason| Stop::Refuse(Reason::Suppressed { reason, at, until: None, run: None });
    let stops = [
        (Stop::Refuse(Reason::SenderNotOwned { claim: "From", address }), ""),
        (later(Reason::TenantGone), ""),
        (later(Reason::CredentialGone), ""),
        (later(Reason::CredentialHeld { credential: Username::parse("acme-app").unwrap(), hold: pause() }), ""),
        (later(Reason::StreamGone { stream: stream() }), ""),
        (later(Reason::TenantPaused(pause())), ""),
        (Stop::Refuse(Reason::TenantPaused(pause())), "reject"),
        (later(Reason::SesTenantDisabled(pause())), ""),
        (Stop::Refuse(Reason::SesTenantDisabled(pause())), "reject"),
        (later(Reason::TenantBraked(brake())), ""),
        (Stop::Refuse(Reason::TenantBraked(brake())), "reject"),
        (later(Reason::StreamBraked { stream: stream(), brake: brake() }), ""),
        (Stop::Refuse(Reason::StreamBraked { stream: stream(), brake: brake() }), "reject"),
        (later(Reason::StreamPaused { stream: stream(), pause: pause() }), ""),
        (Stop::Refuse(Reason::StreamPaused { stream: stream(), pause: pause() }), "reject"),
        (Stop::Refuse(Reason::StreamUnknown { name: name() }), ""),
        (Stop::Refuse(Reason::StreamNotAllowed { name: name(), bound: stream() }), ""),
        (Stop::Refuse(Reason::SetNotOwned { name: name() }), ""),
        (Stop::Refuse(Reason::SetNotAllowed { name: name(), bound: stream() }), ""),
        (Stop::Refuse(Reason::WishesDisagree { stream: name(), set: name() }), ""),
        (suppressed(SuppressionReason::Bounce), "bounce"),
        (suppressed(SuppressionReason::Complaint), "complaint"),
        (suppressed(SuppressionReason::Manual), "manual"),
        (suppressed(SuppressionReason::Soft), "soft"),
    ];
    for (stop, which) in stops {
        let name = match stop.reason() {
            Reason::SenderNotOwned { .. } => "SenderNotOwned",
            Reason::TenantGone => "TenantGone",
            Reason::CredentialGone => "CredentialGone",
            Reason::CredentialHeld { .. } => "CredentialHeld",
            Reason::StreamGone { .. } => "StreamGone",
            Reason::TenantPaused(_) => "TenantPaused",
            Reason::SesTenantDisabled(_) => "SesTenantDisabled",
            Reason::TenantBraked(_) => "TenantBraked",
            Reason::StreamBraked { .. } => "StreamBraked",
            Reason::StreamPaused { .. } => "StreamPaused",
            Reason::StreamUnknown { .. } => "StreamUnknown",
            Reason::StreamNotAllowed { .. } => "StreamNotAllowed",
            Reason::SetNotOwned { .. } => "SetNotOwned",
            Reason::SetNotAllowed { .. } => "SetNotAllowed",
            Reason::WishesDisagree { .. } => "WishesDisagree",
            Reason::Suppressed { .. } => "Suppressed",
        };
        let name = if which.is_empty() { name.to_owned() } else { format!("{name} ({which})") };
        built.refusal(format!("Reason::{name}"), &wording::stopped(&stop));
    }
}

fn replies_to_header_sections(built: &mut Built) {
    let errors = [
        HeaderError::NotAField(1),
        HeaderError::Control(1),
        HeaderError::LineTooLong(1, 998),
        HeaderError::TooLarge(1),
        HeaderError::TooMany(1),
        HeaderError::Duplicate("Subject".into()),
        HeaderError::NoFrom,
        HeaderError::Address("From"),
        HeaderError::NoSender,
        HeaderError::Contradiction("X-Bulkhead-Stream"),
        HeaderError::Tag("a".into()),
        HeaderError::TooManyTags(7),
    ];
    for error in errors {
        let name = match error {
            HeaderError::NotAField(_) => "NotAField",
            HeaderError::Control(_) => "Control",
            HeaderError::LineTooLong(..) => "LineTooLong",
            HeaderError::TooLarge(_) => "TooLarge",
            HeaderError::TooMany(_) => "TooMany",
            HeaderError::Duplicate(_) => "Duplicate",
            HeaderError::NoFrom => "NoFrom",
            HeaderError::Address(_) => "Address",
            HeaderError::NoSender => "NoSender",
            HeaderError::Contradiction(_) => "Contradiction",
            HeaderError::Tag(_) => "Tag",
            HeaderError::TooManyTags(_) => "TooManyTags",
        };
        built.refusal(format!("HeaderError::{name}"), &wording::header(&error));
    }
}

fn replies_of_ses(built: &mut Built) {
    for refused in [Refused::Content, Refused::IdentityNotVerified, Refused::TooLarge] {
        let name = match refused {
            Refused::Content | Refused::IdentityNotVerified | Refused::TooLarge => format!("Refused::{refused:?}"),
        };
        built.refusal(name, &wording::refused(&Outcome::Refused(refused, String::new())));
    }
}

/// Why a message is not held, and the name each has in the manual.
fn lacks() -> Vec<(String, HoldError)> {
    let errors = [
        HoldError::Past(Past::Messages),
        HoldError::Past(Past::MessagesOfTenant),
        HoldError::Past(Past::BytesOfTenant),
        HoldError::Reserve { free: 1, reserve: 2 },
        HoldError::Spool(SpoolError::Full("no space".into())),
        HoldError::Spool(SpoolError::Io("EIO".into())),
        HoldError::Spool(SpoolError::Missing),
        HoldError::Store(CommitError::Conflict(Key::tenant(&TenantId::parse("acme").unwrap()))),
        HoldError::Store(CommitError::Unavailable("stopped".into())),
    ];
    let named = |error: HoldError| {
        let name = match &error {
            HoldError::Past(Past::Messages) => "Past::Messages",
            HoldError::Past(Past::MessagesOfTenant) => "Past::MessagesOfTenant",
            HoldError::Past(Past::BytesOfTenant) => "Past::BytesOfTenant",
            HoldError::Reserve { .. } => "Reserve",
            HoldError::Spool(SpoolError::Full(_)) => "SpoolError::Full",
            HoldError::Spool(SpoolError::Io(_)) => "SpoolError::Io",
            HoldError::Spool(SpoolError::Missing) => "SpoolError::Missing",
            HoldError::Store(_) => "Store",
        };
        (format!("HoldError::{name}"), error)
    };
    errors.into_iter().map(named).collect()
}

fn replies_where_nothing_can_be_held(built: &mut Built) {
    for (name, error) in lacks() {
        for cause in Cause::ALL {
            // A limit of the tenant's own is said by its own code, whatever lacks besides.
            let name = if cause.is_limit() { "Cause::is_limit" } else { &name };
            built.refusal(name.to_owned(), &wording::not_held(cause, None, &error));
        }
    }
}

fn built() -> BTreeMap<String, String> {
    let mut built = Built::default();
    replies_that_go_well(&mut built);
    replies_that_end_or_refuse(&mut built);
    replies_to_bad_commands(&mut built);
    replies_of_policy(&mut built);
    replies_to_header_sections(&mut built);
    replies_of_ses(&mut built);
    replies_where_nothing_can_be_held(&mut built);
    let mut codes: BTreeMap<String, String> = BTreeMap::new();
    for (name, code) in built.0 {
        let known = codes.entry(name.clone()).or_insert_with(|| code.clone());
        assert_eq!(*known, code, "{name} has two codes: give each a row");
    }
    codes
}

fn reply_rows() -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for row in rows("src/manual/replies.md", "name") {
        let name = quoted(&row[0]).remove(0);
        assert!(row.len() >= 3 && !row[2].is_empty(), "{name} does not say when");
        assert!(table.insert(name.clone(), row[1].clone()).is_none(), "{name} has two rows");
    }
    table
}

#[test]
fn every_reply_has_its_row_and_every_row_its_reply() {
    let (built, table) = (built(), reply_rows());
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<BTreeSet<_>>();
    let lacking: Vec<_> = names(&built).difference(&names(&table)).cloned().collect();
    let idle: Vec<_> = names(&table).difference(&names(&built)).cloned().collect();
    assert!(lacking.is_empty() && idle.is_empty(), "no row: {lacking:?}; no reply: {idle:?}");
    for (name, code) in &built {
        assert_eq!(&table[name], code, "{name}");
    }
    assert!(built.len() > 100, "only {}", built.len());
}

/// Why a message waits, as a client hears it that it cannot be held either: each cause has its row,
/// with its word in the log.
#[test]
fn every_cause_has_its_row_with_its_word_and_what_a_client_hears() {
    let error = HoldError::Past(Past::Messages);
    let said = |cause| {
        let refusal = wording::not_held(cause, None, &error);
        let text = refusal.reply().text();
        text.split(", and this relay holds ").next().unwrap().to_owned()
    };
    let code: Vec<(String, String)> = Cause::ALL.iter().map(|cause| (cause.word().to_owned(), said(*cause))).collect();
    let table: Vec<(String, String)> = rows("src/manual/replies.md", "cause")
        .into_iter()
        .map(|row| {
            assert!(row.len() == 3 && !row[2].is_empty(), "{row:?}");
            (quoted(&row[0]).remove(0), row[1].clone())
        })
        .collect();
    assert_eq!(table, code);
}

/// What is made above is all there is: the public functions that make replies.
#[test]
fn every_function_that_makes_a_reply_is_called_here() {
    // Those that tell cases apart, each of which has a row of its own; and those that only write text.
    let by_case = [
        "reply::no_command",
        "reply::faulty",
        "reply::printable",
        "wording::stopped",
        "wording::spoken",
        "wording::header",
        "wording::refused",
        "wording::not_held",
    ];
    let table = reply_rows();
    let mut found = 0;
    for (file, room) in [("src/smtp/reply.rs", "reply"), ("src/relay/wording.rs", "wording")] {
        let source = text(file);
        let names = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub fn "))
            .map(|rest| format!("{room}::{}", rest.split(['(', '<']).next().unwrap()));
        for name in names.filter(|name| !by_case.contains(&name.as_str())) {
            let has_row = table.keys().any(|row| row.split(' ').next() == Some(name.as_str()));
            assert!(has_row, "{name} has no row in src/manual/replies.md");
            found += 1;
        }
    }
    assert!(found > 40, "only {found}: looked in the wrong place");
}

/// Each code is met in a conversation, or in the table of words of the module that makes it.
#[test]
fn every_code_is_reached_by_a_test() {
    let mut tests: String = text("tests/relay.rs");
    for file in files(&root().join("tests/dialogue")) {
        tests.push_str(&fs::read_to_string(file).unwrap().replace("S* ", "S: "));
    }
    for file in ["src/relay/wording.rs", "src/smtp/session.rs"] {
        tests.push_str(text(file).split("#[cfg(test)]").nth(1).unwrap());
    }
    for (name, code) in reply_rows() {
        assert!(tests.contains(&code), "{name}: no test meets {code}");
    }
}

// --- Operating --------------------------------------------------------------------------------

/// The name of every `counter!`, `gauge!` and `histogram!` of the sources, with its kind.
fn metrics() -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    for file in files(&root().join("src")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")) {
        let source = fs::read_to_string(file).unwrap();
        for kind in ["counter", "gauge", "histogram"] {
            for rest in source.split(&format!("{kind}!(\"")).skip(1) {
                let name = rest.split('"').next().unwrap();
                if name.starts_with("bulkhead_") {
                    found.insert(name.to_owned(), kind);
                }
            }
        }
    }
    found
}

#[test]
fn every_metric_has_its_row() {
    let table: BTreeMap<String, String> = rows("src/manual/operating.md", "name")
        .into_iter()
        .map(|row| (quoted(&row[0]).remove(0), row[1].clone()))
        .collect();
    let metrics: BTreeMap<String, String> = metrics().into_iter().map(|(name, kind)| (name, kind.to_owned())).collect();
    assert_eq!(table, metrics);
    assert!(metrics.len() > 20);
}

/// A kind that nobody makes would be a promise without effect.
#[test]
fn every_announcement_has_its_row_and_is_made() {
    let rows = rows("src/manual/announcements.md", "kind");
    let table: BTreeSet<String> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let kinds: BTreeSet<String> = Kind::ALL.iter().map(|kind| kind.word().to_owned()).collect();
    assert_eq!(table, kinds);
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "rs");
    let makers: String = files(&root().join("src"))
        .into_iter()
        .filter(|path| is_source(path) && !path.starts_with(root().join("src/announce")))
        .map(|path| fs::read_to_string(path).unwrap())
        .map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned())
        .collect();
    let unmade: Vec<&Kind> = Kind::ALL.iter().filter(|kind| !makers.contains(&format!("Kind::{kind:?}"))).collect();
    assert!(unmade.is_empty(), "{unmade:?}");
}

#[test]
fn every_log_event_has_its_row() {
    let schema: Value = serde_json::from_str(&text("src/manual/log.schema.json")).unwrap();
    let events = schema["$defs"]["events"].as_object().unwrap();
    let strings = |value: &Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let common = ["ts", "level", "event"].map(str::to_owned);
    let mut told = BTreeSet::new();
    for row in rows("src/manual/operating.md", "event") {
        let name = quoted(&row[0]).remove(0);
        let event = events.get(&name).unwrap_or_else(|| panic!("{name} is in no schema"));
        let levels: BTreeSet<String> = row[1].split(", ").map(str::to_owned).collect();
        assert_eq!(levels, strings(&event["properties"]["level"]["enum"]), "{name}: level");
        let (always, sometimes) = row[2].split_once('(').unwrap_or((&row[2], ""));
        let mut required = strings(&event["required"]);
        let mut optional: BTreeSet<String> = event["properties"].as_object().unwrap().keys().cloned().collect();
        optional.retain(|field| !required.contains(field));
        required.retain(|field| !common.contains(field));
        let cell = |text: &str| quoted(text).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(cell(always), required, "{name}: fields");
        assert_eq!(cell(sometimes), optional, "{name}: fields in parentheses");
        told.insert(name);
    }
    assert_eq!(told, events.keys().cloned().collect());
    assert!(told.len() > 40);
}

#[test]
fn every_limit_has_its_row_with_its_default() {
    let defaults = bulkhead::config::default_file();
    let section = defaults.split("\n[limits]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let code: BTreeMap<String, String> = section
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let table: BTreeMap<String, String> = rows("src/manual/operating.md", "key")
        .into_iter()
        .map(|row| {
            assert!(row.len() == 4 && !row[3].is_empty(), "{row:?}");
            (quoted(&row[0]).remove(0), row[1].clone())
        })
        .collect();
    assert_eq!(table, code);
    assert!(code.len() > 30);
}

// --- Commands ---------------------------------------------------------------------------------

/// The commands of `bulkhead [of] --help`.
fn commands(of: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead")).args(of).arg("--help").output().unwrap();
    assert!(output.status.success(), "{of:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let Some((_, list)) = help.split_once("Commands:\n") else { return BTreeSet::new() };
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_fault_of_the_sandbox_has_its_row() {
    // Who asks for a kind that is not there is told all that are.
    let told = serde_json::from_str::<bulkhead::sandbox::fault::Kind>(r#""nope""#).unwrap_err().to_string();
    let kinds: BTreeSet<_> = quoted(&told).into_iter().filter(|kind| kind != "nope").collect();
    assert!(kinds.contains("reset_body") && kinds.len() > 20, "{told}");
    let shown: Vec<_> = rows("src/manual/operating.md", "fault kind").iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(shown.iter().cloned().collect::<BTreeSet<_>>(), kinds);
    assert_eq!(shown.len(), kinds.len(), "a kind is there twice");
}

#[test]
fn every_command_has_its_row() {
    let table: BTreeSet<String> =
        rows("src/manual/operating.md", "command").into_iter().map(|row| quoted(&row[0]).remove(0)).collect();
    assert_eq!(table, commands(&[]));
    for row in rows("src/manual/operating.md", "command") {
        let name = quoted(&row[0]).remove(0);
        let told: BTreeSet<String> = quoted(&row[1])
            .into_iter()
            .map(|word| word.split(' ').next().unwrap().to_owned())
            .filter(|word| !word.starts_with('-'))
            .collect();
        let there = commands(&[&name]);
        assert!(told.is_superset(&there), "{name} has {there:?}, the manual {told:?}");
    }
}

/// What an operator looks up at three in the morning is there, with a meaning and a cure each.
#[test]
fn every_cause_has_its_row() {
    use bulkhead::outbox::Cause;
    let mut told = Vec::new();
    for row in rows("src/manual/operating.md", "cause") {
        assert!(row.len() == 3 && row.iter().all(|cell| cell.len() > 5), "{row:?}");
        told.extend(quoted(&row[0]));
    }
    assert_eq!(told, Cause::ALL.map(|cause| cause.word().to_owned()));
    // What lasts until somebody mends it has something to mend.
    for row in rows("src/manual/operating.md", "cause") {
        let cause = Cause::parse(&quoted(&row[0])[0]).unwrap();
        assert!(!cause.is_operators() || !row[2].starts_with("none"), "{row:?}");
    }
}

/// Commands in the pages people read are commands there are, options included.
#[test]
fn the_commands_of_the_pages_exist() {
    let mut seen = 0;
    let pages = files(root()).into_iter().filter(|file| file.extension().is_some_and(|e| e == "md"));
    for page in pages.filter(|page| !page.ends_with("product.md")) {
        let text = fs::read_to_string(&page).unwrap();
        let calls = text.split(['`', '\n']).filter_map(|piece| {
            let piece = piece.trim();
            let rest = piece.strip_prefix("bulkhead ").or_else(|| piece.strip_prefix("target/dist/bulkhead "))?;
            Some(rest.split(" #").next().unwrap_or(rest).trim().to_owned())
        });
        for call in calls.filter(|call| call.starts_with(|c: char| c.is_ascii_lowercase())) {
            let words: Vec<&str> = call.split_whitespace().collect();
            assert!(commands(&[]).contains(words[0]), "{}: bulkhead {call}", page.display());
            let below = commands(&[words[0]]);
            let path: Vec<&str> = match words.get(1).filter(|_| !below.is_empty()) {
                Some(sub) => {
                    assert!(below.contains(*sub), "{}: bulkhead {call}", page.display());
                    vec![words[0], sub]
                }
                None => vec![words[0]],
            };
            let output = Command::new(env!("CARGO_BIN_EXE_bulkhead")).args(&path).arg("--help").output().unwrap();
            let help = String::from_utf8(output.stdout).unwrap();
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(*option), "{}: bulkhead {call}: no {option}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} commands");
}

/// The functions of a source file.
fn functions(path: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().map(str::to_owned);
    text(path).lines().filter_map(|line| name(line.split_once("fn ")?.1)).collect()
}

/// Every test that a cell names, as `file::test`, is there and is a test.
fn assert_tests_exist(page: &str, cell: &str) -> usize {
    let named = quoted(cell);
    for name in &named {
        let (file, test) = name.split_once("::").unwrap_or_else(|| panic!("{page}: {name} is no `file::test`"));
        assert!(file.starts_with("tests/") || file.starts_with("src/"), "{page}: {name}");
        assert!(functions(file).contains(test), "{page}: {file} has no {test}");
        let source = text(file);
        let before: Vec<&str> = source.split(&format!("fn {test}(")).next().unwrap().lines().rev().take(4).collect();
        let is_test = before.iter().any(|line| line.contains("test]") || line.contains("#[tokio::test"));
        assert!(is_test || source.contains("proptest!"), "{page}: {name} is no test");
    }
    named.len()
}

#[test]
fn every_way_to_lose_double_or_leak_names_tests_that_are_there() {
    let page = "src/manual/losses.md";
    let rows = rows(page, "way");
    for row in &rows {
        assert!(row.len() == 3 && row.iter().all(|cell| cell.len() > 3), "{page}: {row:?}");
        assert!(assert_tests_exist(page, &row[2]) > 0, "{page}: nothing shows {:?}", row[0]);
    }
    assert!(rows.len() > 75, "{}", rows.len());
    let ways: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(ways.len(), rows.len(), "a way is there twice");
    let sections: Vec<String> =
        text(page).lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    assert_eq!(sections, ["To lose", "To double", "To leak", "What remains"]);
    // What a page's prose names is held to as well.
    for row in self::rows("src/manual/attacks.md", "attempt on held mail") {
        assert!(row.len() == 3 && assert_tests_exist("src/manual/attacks.md", &row[2]) > 0, "{row:?}");
    }
}

// --- Every file -------------------------------------------------------------------------------

#[test]
fn every_link_between_pages_resolves() {
    let mut seen = 0;
    for page in files(root()).into_iter().filter(|file| file.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") || target.contains("::") || target.starts_with("mailto:") {
                continue;
            }
            assert!(page.parent().unwrap().join(target).exists(), "{}: {target}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 1, "{seen} links: looked in the wrong place");
}

#[test]
fn every_page_of_the_manual_is_in_it_and_says_something() {
    let manual = text("src/manual/mod.rs");
    for page in files(&root().join("src/manual")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "md"))
    {
        let name = page.strip_prefix(root().join("src/manual")).unwrap().to_string_lossy().into_owned();
        assert!(manual.contains(&format!("include_str!(\"{name}\")")), "{name} is left out");
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("# "), "{name} has no title");
        if name.starts_with("decisions/") {
            for part in ["**Context.**", "**Choice.**", "**What it costs.**", "**What would change our mind.**"] {
                assert!(text.contains(part), "{name} lacks {part}");
            }
            assert!(text.split_whitespace().count() < 330, "{name} is longer than half a page");
        }
    }
}

#[test]
fn every_source_says_what_it_is() {
    let sources = files(&root().join("src")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs"));
    let mut seen = 0;
    for source in sources {
        let text = fs::read_to_string(&source).unwrap();
        assert!(text.starts_with("//!"), "{}", source.display());
        seen += 1;
    }
    assert!(seen > 80, "{seen}");
}

/// The project speaks of itself only: no path of the machine it was written on, and nothing of how.
#[test]
fn no_file_speaks_of_the_machine_it_was_written_on() {
    // In pieces, so that this file does not say them either.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("bash_", "jobs"),
        concat!("chat", "gpt"),
        concat!("clau", "de"),
        concat!("anthro", "pic"),
        concat!("lang", "uage model"),
        concat!("co-authored", "-by"),
        concat!("sub", "agent"),
    ];
    let mut seen = 0;
    for file in files(root()) {
        // What is fuzzed, and what is fetched, is not prose.
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if name.starts_with("fuzz/corpus") || name.ends_with(".lock") || name.starts_with("data/") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let text = text.to_lowercase();
        for word in words {
            assert!(!text.contains(word), "{name} has {word:?}");
        }
        seen += 1;
    }
    assert!(seen > 250, "{seen} files");
}

/// Settings that the pages name as `section.key` exist.
#[test]
fn settings_that_the_pages_name_exist() {
    let defaults = bulkhead::config::default_file();
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in defaults.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert!(keys.len() > 50);
    let mut seen = 0;
    for file in files(root())
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "md" || e == "rs") && !file.ends_with("tests/docs.rs"))
    {
        let text = fs::read_to_string(&file).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_setting = ["limits.", "aws.", "outbox.", "notify.", "events.", "suppression.", "admin.", "log."]
                .iter()
                .any(|s| name.starts_with(s))
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.')
                && name.matches('.').count() == 1
                && !name.ends_with(".rs");
            if is_setting {
                assert!(keys.contains(name), "{}: `{name}` is no setting", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}
