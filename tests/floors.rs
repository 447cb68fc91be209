//! The house's floors: imports go down only, and some values are made in one room alone.
//!
//! Rust would allow circles; this reads the sources and does not. It looks at every `crate::room`
//! path outside of test modules, wherever it stands, not at `use` lines alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room and what it may import. What is not named here may not be imported.
const FLOORS: &[(&str, &[&str])] = &[
    // 0 words
    ("mail", &["secret", "time"]),
    ("time", &[]),
    ("secret", &[]),
    // 1 machines
    ("smtp", &["mail", "time", "secret"]),
    ("event", &["mail", "time", "secret"]),
    ("policy", &["mail", "time", "secret", "event"]),
    ("retry", &["time"]),
    // 2 records
    ("store", &["mail", "time", "secret", "policy", "event", "retry"]),
    ("upstream", &["mail", "time", "secret", "policy", "event", "retry", "store"]),
    ("outbox", &["mail", "time", "secret", "policy", "event", "retry", "store", "upstream"]),
    ("wire", &["store"]),
    ("announce", &["mail", "time", "secret", "store"]),
    // the journal takes a `smtp::Reply` to write its code: the one look from the records at SMTP
    ("journal", &["mail", "time", "secret", "event", "outbox", "upstream", "smtp"]),
    // 3 adapters
    ("adapters", &["mail", "time", "secret", "store", "outbox", "upstream", "journal", "wire", "announce"]),
    // 4 services
    ("dispatch", &["mail", "time", "secret", "policy", "event", "retry", "store", "outbox", "upstream", "journal"]),
    // the relay hands over; the dispatcher knows nothing of SMTP
    (
        "relay",
        &[
            "mail", "time", "secret", "smtp", "policy", "event", "retry", "store", "outbox", "upstream", "journal",
            "wire", "dispatch", "watch",
        ],
    ),
    ("ingest", &["mail", "time", "secret", "policy", "event", "retry", "store", "upstream", "journal", "announce"]),
    // what the applier has made durable is what standings are judged by
    ("reputation", &["mail", "time", "secret", "policy", "store", "journal", "announce", "ingest"]),
    ("notify", &["mail", "time", "secret", "store", "outbox", "announce", "journal"]),
    // what was accepted is told to it; it knows nothing of who tells
    ("watch", &["mail", "time", "secret", "policy", "store", "announce", "journal"]),
    // `events replay` goes through the one applier there is; whoever was told of a hold is told of its end
    (
        "admin",
        &[
            "mail", "time", "secret", "policy", "event", "retry", "store", "outbox", "upstream", "announce", "journal",
            "ingest",
        ],
    ),
    ("suppression", &["mail", "time", "secret", "policy", "retry", "store", "upstream", "journal"]),
    ("sandbox", &["mail", "time", "secret"]),
];

/// Rooms of the top floor: they import anything, nobody below imports them.
const HOUSE: &[&str] = &["app", "cli", "config", "manual", "main", "lib"];

/// A name that may stand in these files alone (and in tests).
const ONLY_IN: &[(&str, &[&str])] = &[
    // 250 means safe: only SES's own answer is proof, or a message that is durable here
    ("Taken::by_ses(", &["adapters/ses"]),
    ("Durable::in_outbox(", &["outbox/"]),
    ("Receipt::one(", &["dispatch/"]),
    ("Receipt::several(", &["dispatch/"]),
    ("Receipt::held(", &["dispatch/"]),
    // one clock, one source of randomness
    ("SystemTime::now", &["adapters/clock.rs"]),
    // adapters time their own waits; the others wait by tokio's clock, which tests pause
    (
        "Instant::now",
        &[
            "adapters/",
            "ingest/mod.rs",
            "reputation/mod.rs",
            "dispatch/mod.rs",
            "relay/message.rs",
            "sandbox/sqs.rs",
            "suppression/mod.rs",
            "cli/demo/",
        ],
    ),
    ("getrandom::", &["adapters/clock.rs"]),
    // vendors
    (" ::sled::", &["adapters/sled"]),
    ("rustix::", &["adapters/spool"]),
    ("aws_sdk_sesv2", &["adapters/ses"]),
    ("aws_sdk_sqs", &["adapters/sqs"]),
    ("aws_config", &["adapters/ses", "adapters/sqs"]),
    ("rustls", &["adapters/tls", "adapters/ses", "adapters/webhook"]),
    ("rcgen", &["adapters/tls"]),
    ("hyper", &["adapters/webhook"]),
    ("lettre", &["cli/", "adapters/letter"]),
    ("anyhow", &["cli/", "main.rs"]),
];

/// What a machine (floors 0 and 1) must not touch.
const NOT_IN_MACHINES: &[&str] =
    &["tokio", "tracing", "metrics::", "std::fs", "std::net::Tcp", "Mutex", "RwLock", "Atomic", "async fn", "println!"];

/// Machines that live with the service they are made for.
const MACHINES_ABOVE: &[&str] = &[
    "announce/allowance.rs",
    "announce/letter.rs",
    "announce/schedule.rs",
    "dispatch/board.rs",
    "dispatch/breaker.rs",
    "dispatch/choose.rs",
    "dispatch/gate.rs",
    "dispatch/join.rs",
    "dispatch/pace.rs",
    "dispatch/waits.rs",
    "outbox/cause.rs",
    "outbox/index.rs",
    "outbox/progress.rs",
];

struct Source {
    path: String,
    room: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let room = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&file).unwrap();
            // Test modules stand last in their file, and may import what they like.
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            Source { path, room, text: code.join("\n") }
        })
        .collect()
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            into.push(path);
        }
    }
}

/// The rooms named after `crate::`, also inside `use crate::{a, b::c}`.
fn imports(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split(';').next().unwrap();
            let mut depth = 0;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        found.push(word(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(word(rest));
        }
    }
    found
}

#[test]
fn imports_go_down_only() {
    let floors: BTreeMap<&str, &[&str]> = FLOORS.iter().copied().collect();
    let mut seen = 0;
    let mut faults = Vec::new();
    for source in sources() {
        if HOUSE.contains(&source.room.as_str()) {
            continue;
        }
        let Some(allowed) = floors.get(source.room.as_str()) else {
            faults.push(format!("{}: the room {} stands on no floor", source.path, source.room));
            continue;
        };
        for import in imports(&source.text) {
            seen += 1;
            if import != source.room && !allowed.contains(&import.as_str()) {
                faults.push(format!("{} imports crate::{import}", source.path));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were read: the reader is broken");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn adapters_do_not_know_each_other() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| s.room == "adapters" && s.path != "adapters/mod.rs") {
        for (at, _) in source.text.match_indices("adapters::") {
            faults.push(format!("{}: {}", source.path, source.text[at..].lines().next().unwrap()));
        }
        if source.text.contains("super::") && source.path.matches('/').count() == 1 {
            faults.push(format!("{} reaches for its neighbours by super::", source.path));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn some_names_stand_in_one_room_alone() {
    let sources = sources();
    let mut faults = Vec::new();
    for (name, rooms) in ONLY_IN {
        assert!(sources.iter().any(|s| s.text.contains(name)), "nobody uses {name} any more: mend this table");
        for source in sources.iter().filter(|s| s.text.contains(name)) {
            if !rooms.iter().any(|room| source.path.starts_with(room)) {
                faults.push(format!("{} has {name}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What may wait by `Instant::now` outside of adapters does so by tokio's.
#[test]
fn services_wait_by_the_clock_that_tests_pause() {
    let (mut seen, mut faults) = (0, Vec::new());
    let services = ["ingest", "dispatch", "relay", "notify", "reputation", "sandbox", "suppression", "watch"];
    for source in sources().iter().filter(|source| services.contains(&source.room.as_str())) {
        let text = &source.text;
        let imported = |of: &str| {
            text.lines().any(|line| {
                let list = line.strip_prefix("use ").and_then(|line| line.strip_prefix(of));
                list.is_some_and(|list| list.split(|c: char| !c.is_alphanumeric()).any(|name| name == "Instant"))
            })
        };
        for (at, _) in text.match_indices("Instant::now") {
            seen += 1;
            let path = text[..at].rsplit(|c: char| !c.is_alphanumeric() && c != ':' && c != '_').next().unwrap();
            let by_tokio = path == "tokio::time::" || (path.is_empty() && imported("tokio::time::"));
            if !by_tokio || imported("std::time::") && path.is_empty() {
                faults.push(format!("{}: {path}Instant::now is not tokio's", source.path));
            }
        }
    }
    assert!(seen > 5, "only {seen} were read: the reader is broken");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn machines_have_no_io_no_clock_and_no_locks() {
    let mut faults = Vec::new();
    let sources = sources();
    for path in MACHINES_ABOVE {
        assert!(sources.iter().any(|s| s.path == *path), "there is no {path} any more: mend this table");
    }
    for source in sources {
        if ["mail", "time", "secret", "smtp", "event", "policy", "retry"].contains(&source.room.as_str())
            || MACHINES_ABOVE.contains(&source.path.as_str())
        {
            faults.extend(
                NOT_IN_MACHINES
                    .iter()
                    .filter(|name| source.text.contains(**name))
                    .map(|name| format!("{} has {name}", source.path)),
            );
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_of_imports_reads_groups() {
    assert_eq!(
        imports("use crate::{mail::{Login, Mailbox}, time::Clock};\ncrate::store::Key"),
        ["mail", "time", "store"]
    );
}
