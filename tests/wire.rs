//! Every dialogue over real sockets: the relay itself on TCP and, where the file has it, rustls.
//!
//! The files and their language are those of `support/dialogue`; the world behind the session is a
//! tenant in the directory, a suppression in the store, and an SES that takes everything. What is
//! different on the wire, and why:
//!
//! - The session alone takes any octets for a message, the relay wants a From field. So `Subject: a`
//!   in a file is sent as `From:a@b.c`, which has as many octets and is the tenant's; a message
//!   without it, as the file has it, hears 554 5.6.0 where the file says 250 and nothing reaches SES.
//! - `HELD` cannot be seen from outside. A `WAIT` for the answer to a refused login is a real one.
//! - [`NOT_HERE`] are the files that need a clock or a lack of memory that only the session's own
//!   tests can make.

// In the helpers of the tests, which clippy's leave for tests does not reach.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
#[path = "support/dialogue.rs"]
mod dialogue;
#[path = "support/relay.rs"]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::tls::{CaPem, Certificates, self_signed};
use bulkhead::mail::{Domain, Mailbox, TenantId};
use bulkhead::outbox::memory::MemorySpool;
use bulkhead::policy::tenant::{SenderPattern, Suppression, SuppressionReason};
use bulkhead::relay::{Listener, Means, Options, Relay, Tls};
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, Store, suppressions};
use dialogue::{Act, Cut, Dialogue, Message, malformed, play};
use support::{
    Client, Script, clients_of, credential, dispatcher, hash, is_verdict, journal, limits, long_ago, soon, tenant,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Files that are not played here, each with the reason. Exactly these: a file that could be played
/// and is listed fails the test, as does one that could not and is missing.
const NOT_HERE: [(&str, &str); 13] = [
    ("bdat-starved.smtp", MEMORY),
    ("data-starved.smtp", MEMORY),
    ("spill-no-room.smtp", SPACE),
    ("spill-starved.smtp", MEMORY),
    ("starve-outside-data.smtp", MEMORY),
    ("time-after-login.smtp", TIME),
    ("time-before-login.smtp", TIME),
    ("time-chunk-slow.smtp", TIME),
    ("time-chunks.smtp", TIME),
    ("time-data-paid.smtp", TIME),
    ("time-data-slow.smtp", TIME),
    ("time-data-whole.smtp", TIME),
    ("time-in-auth.smtp", TIME),
];
const MEMORY: &str = "runs out of memory at one certain octet; tests/relay.rs starves sessions by limits.memory_bytes";
const SPACE: &str = "runs out of disk space at one certain octet";
const TIME: &str = "would take minutes of real time, and sockets know no other";

/// The longest a file may WAIT here.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a file's octets are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// Each command once the last was answered.
    Lines,
    /// All that may be sent before the next thing that is no line, in one write.
    Pipelined,
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    files
}

/// Why a dialogue cannot be played over sockets, if it cannot.
fn obstacle(dialogue: &Dialogue) -> Option<&'static str> {
    let waits = dialogue.acts.iter().filter_map(|(_, act)| if let Act::Wait(time) = act { Some(*time) } else { None });
    let starves = dialogue.acts.iter().any(|(_, act)| matches!(act, Act::Starve));
    if dialogue.acts.iter().any(|(_, act)| matches!(act, Act::Full)) {
        return Some(SPACE);
    }
    if starves { Some(MEMORY) } else { (waits.sum::<Duration>() > PATIENCE).then_some(TIME) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_dialogue_is_the_same_over_tcp_and_tls() {
    let mut not_here = Vec::new();
    let mut plays = tokio::task::JoinSet::new();
    let (mut played, mut refused, mut taken, mut drained, mut secured) = (0, 0, 0, 0, 0);
    let mut failures = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap().replace("Subject: a", "From:a@b.c");
        let dialogue = Arc::new(Dialogue::parse(&file.file_name().unwrap().to_string_lossy(), &text));
        if let Some(reason) = obstacle(&dialogue) {
            not_here.push((dialogue.name.clone(), reason));
            continue;
        }
        for pace in [Pace::Lines, Pace::Pipelined] {
            let dialogue = Arc::clone(&dialogue);
            plays.spawn(async move { (dialogue.clone(), Stage::play(&dialogue, pace).await) });
        }
        // A few at a time: each has a relay of its own.
        while plays.len() >= 16 {
            count(plays.join_next().await, &mut failures, [&mut played, &mut refused, &mut taken]);
        }
        drained += usize::from(dialogue.acts.iter().any(|(_, act)| matches!(act, Act::Drain)));
        secured += usize::from(dialogue.listener != "cleartext");
    }
    while let Some(one) = plays.join_next().await {
        count(Some(one), &mut failures, [&mut played, &mut refused, &mut taken]);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let not_here: Vec<(&str, &str)> = not_here.iter().map(|(name, reason)| (name.as_str(), *reason)).collect();
    assert_eq!(not_here, NOT_HERE);
    println!("{played} plays, {taken} messages taken, {refused} refused for their header section");
    assert_eq!(played, 2 * (files().len() - NOT_HERE.len()));
    assert!(played >= 220, "{played}");
    assert!(taken >= 50 && refused >= 60, "{taken} taken, {refused} refused");
    assert!(drained >= 6 && secured >= 110, "{drained} drained, {secured} over TLS");
}

type Played = Result<(Arc<Dialogue>, Result<(usize, usize), String>), tokio::task::JoinError>;

fn count(one: Option<Played>, failures: &mut Vec<String>, [played, refused, taken]: [&mut usize; 3]) {
    match one.unwrap() {
        Ok((_, Ok((sent, unsendable)))) => {
            *played += 1;
            *taken += sent;
            *refused += unsendable;
        }
        Ok((_, Err(what))) => failures.push(what),
        Err(panic) => failures.push(panic.to_string()),
    }
}

/// The relay of one dialogue.
struct World {
    address: SocketAddr,
    ca: CaPem,
    ses: Arc<Script>,
    drain: CancellationToken,
    task: JoinHandle<usize>,
}

impl World {
    async fn of(dialogue: &Dialogue) -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        journal();
        let (ca, certificate, key) = self_signed(&["relay.example".into()]).unwrap();
        let certificates = Certificates::from_pem(&certificate, &key, Arc::new(MachineClock)).unwrap();
        let mut acme = tenant("acme");
        acme.senders.push(SenderPattern::Domain(Domain::parse("b.c").unwrap()));
        let app = credential("acme", "app", None, vec![hash(dialogue::PASSWORD)]);
        assert_eq!(app.username.as_str(), dialogue::USERNAME);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let bounced = Mailbox::parse(b"suppressed@dest.example").unwrap();
        let entry = Suppression {
            reason: SuppressionReason::Bounce,
            origin: "test".into(),
            at: long_ago(),
            expires: None,
            actor: "test".into(),
        };
        suppressions::add(&*store, &TenantId::parse("acme").unwrap(), &bounced, &entry, &Batch::new()).await.unwrap();
        let ses = Arc::new(Script::default());
        let directory: Current = Arc::new(ArcSwap::from_pointee(Directory::new([acme], [app])));
        let dispatch = dispatcher(Arc::clone(&ses), Arc::clone(&store), MemorySpool::new(), &directory).await;
        let means = Means {
            store,
            store_available: Arc::new(|| true),
            directory,
            dispatch,
            acceptor: Some(Arc::new(certificates)),
            clock: Arc::new(MachineClock),
            random: Arc::new(MachineRandom),
            watch: bulkhead::watch::Watch::off(),
        };
        let tls = match dialogue.listener.as_str() {
            "starttls" => Tls::Starttls,
            "implicit" => Tls::Implicit,
            "cleartext" => Tls::None,
            other => panic!("{}: what listener is {other}", dialogue.name),
        };
        let listener = Listener { address: "127.0.0.1:0".parse().unwrap(), tls, trusted_proxies: None };
        let options = Options { terms: dialogue.terms.clone(), listeners: vec![listener], limits: limits() };
        let relay = Relay::bind(means, options).await.unwrap();
        let address = relay.addresses()[0];
        clients_of(&[address], NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let drain = CancellationToken::new();
        let task = tokio::spawn(relay.run(drain.clone()));
        Self { address, ca, ses, drain, task }
    }
}

/// A dialogue under way.
struct Stage<'a> {
    dialogue: &'a Dialogue,
    world: World,
    /// `None` once it hung up.
    client: Option<Client>,
    peer: String,
    pace: Pace,
    /// Acts that were not sent and looked at yet.
    pending: Vec<Act>,
    /// All that was said.
    said: String,
    /// Lines of it that were not looked at.
    lines: std::collections::VecDeque<String>,
    /// The messages that the session alone takes, as the file has them.
    messages: Vec<Message>,
    /// How many it refuses for their octets.
    unkept: usize,
    /// How many of them were looked at, and how many of these SES got.
    seen: usize,
    sent: usize,
}

impl<'a> Stage<'a> {
    /// How many messages SES got, and how many were refused for their header section.
    async fn play(dialogue: &'a Dialogue, pace: Pace) -> Result<(usize, usize), String> {
        let name = &dialogue.name;
        let mut room = play(dialogue, Cut::Whole).map_err(|what| format!("{name} in memory: {what}"))?;
        let unkept = room.session.take_unkept().len();
        let messages = room.messages;
        let world = World::of(dialogue).await;
        let mut client = Client::connect(world.address).await;
        if dialogue.listener == "implicit" {
            client.secure(&world.ca).await.map_err(|error| format!("{name}: {error}"))?;
        }
        let peer = client.local.to_string();
        let mut stage = Stage {
            dialogue,
            world,
            client: Some(client),
            peer,
            pace,
            pending: Vec::new(),
            said: String::new(),
            lines: std::collections::VecDeque::new(),
            messages,
            unkept,
            seen: 0,
            sent: 0,
        };
        for (number, act) in &dialogue.acts {
            if let Err(what) = stage.act(act).await {
                return Err(format!("{name}:{number} {pace:?}: {what}\n{}", stage.said));
            }
        }
        stage.finish().await.map_err(|what| format!("{name} {pace:?} at the end: {what}"))
    }

    async fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Client(_) => {
                let answered = !matches!(self.pending.last(), None | Some(Act::Client(_)));
                if self.pace == Pace::Lines && answered {
                    self.sync().await?;
                }
                self.pending.push(act.clone());
                return Ok(());
            }
            Act::ReplyLine(_) | Act::Reply(_) | Act::Message(_) => {
                self.pending.push(act.clone());
                return Ok(());
            }
            // What is held cannot be seen from here; what is waited for comes in its own time.
            Act::Held(_) | Act::Spilled(_) | Act::Wait(_) => return Ok(()),
            Act::Tls | Act::Drain | Act::Starve | Act::Lost | Act::Full | Act::Closed(_) => self.sync().await?,
        }
        match act {
            Act::Tls => {
                let client = self.client.as_mut().ok_or("hung up")?;
                client.secure(&self.world.ca).await.map_err(|error| error.to_string())?;
            }
            Act::Drain => {
                // A login that is being refused hears of it late: the relay has it when it says so.
                if self.dialogue.acts.iter().any(|(_, act)| matches!(act, Act::Wait(_))) {
                    journal().wait("login_refused", "peer", &self.peer).await;
                }
                self.world.drain.cancel();
            }
            Act::Lost => {
                if let Some(client) = self.client.take() {
                    let rest = client.hang_up().await;
                    if !rest.is_empty() {
                        return Err(format!("said {rest:?} to a client that hung up"));
                    }
                }
            }
            Act::Closed(ending) => self.closed(ending).await?,
            _ => return Err("no such act here".into()),
        }
        Ok(())
    }

    /// The relay has closed the connection, and its log says why.
    async fn closed(&mut self, ending: &str) -> Result<(), String> {
        if let Some(mut client) = self.client.take()
            && let Err(error) = client.end().await
        {
            return Err(format!("ended with {error}"));
        }
        let word = match ending {
            "Quit" => "quit",
            "Lost" => "lost",
            "LostInData" => "lost_in_data",
            "Expelled" => "expelled",
            "OutOfStep" => "out_of_step",
            "TimedOut" => "timed_out",
            "Ours" => "ours",
            other => return Err(format!("there is no word for {other}")),
        };
        let line = journal().wait("session_closed", "peer", &self.peer).await;
        if line["reason"] != word { Err(format!("closed for {}, not {word}", line["reason"])) } else { Ok(()) }
    }

    /// Sends what is pending in one write and looks at all that is said.
    async fn sync(&mut self) -> Result<(), String> {
        let pending = std::mem::take(&mut self.pending);
        let octets: Vec<u8> = pending
            .iter()
            .filter_map(|act| if let Act::Client(octets) = act { Some(octets.as_slice()) } else { None })
            .collect::<Vec<_>>()
            .concat();
        if !octets.is_empty() {
            self.client.as_mut().ok_or("hung up")?.write(&octets).await;
        }
        for (at, act) in pending.iter().enumerate() {
            match act {
                Act::ReplyLine(text) => {
                    let verdict = matches!(pending.get(at + 1), Some(Act::Message(_))).then(|| self.verdict());
                    let text = verdict.as_ref().unwrap_or(text);
                    let line = self.line().await;
                    if !line.starts_with(text.as_str()) {
                        return Err(format!("said {line:?}, not {text:?}"));
                    }
                }
                Act::Reply(code) => loop {
                    let line = self.line().await;
                    if !line.starts_with(code.as_str()) {
                        return Err(format!("said {line:?}, not {code}"));
                    }
                    if line.as_bytes().get(3) == Some(&b' ') {
                        break;
                    }
                },
                Act::Message(_) => self.message()?,
                _ => {}
            }
        }
        match self.lines.pop_front() {
            Some(line) => Err(format!("said {line:?}, which is in no line")),
            None => Ok(()),
        }
    }

    async fn line(&mut self) -> String {
        if self.lines.is_empty()
            && let Some(client) = &mut self.client
        {
            let reply = client.reply().await;
            self.said.push_str(&reply);
            self.lines.extend(reply.split_inclusive("\r\n").map(str::to_owned));
        }
        self.lines.pop_front().unwrap_or_default()
    }

    /// What the next message hears.
    fn verdict(&self) -> String {
        let message = &self.messages[self.seen];
        match message.envelope.forward_paths.len() {
            _ if !sendable(message) => "554 5.6.0 ".into(),
            1 => format!("250 2.0.0 Ok ses-{}\r\n", self.sent),
            _ => "250 2.0.0 Ok ".into(),
        }
    }

    /// What SES got of the next message: a call for each recipient, with every octet of it.
    fn message(&mut self) -> Result<(), String> {
        let message = self.messages[self.seen].clone();
        self.seen += 1;
        if !sendable(&message) {
            return Ok(());
        }
        let calls = self.world.ses.calls();
        for (at, recipient) in message.envelope.forward_paths.iter().enumerate() {
            let call = calls.get(self.sent + at).ok_or("SES got no call")?;
            let body = &message.data[message.data.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0)..];
            if call.recipients != [recipient.clone()] || !call.raw.ends_with(body) {
                return Err(format!("SES got {call:?}"));
            }
            let text = String::from_utf8_lossy(&call.raw).replace("\r\n\t", " ");
            // A name that is none is not repeated in the trace field.
            let helo = if message.helo.contains('?') { "unknown" } else { &message.helo };
            let helo = format!("Received: from {helo} ");
            if !text.starts_with(&helo) || !text.contains("\r\nFrom:a@b.c\r\n") {
                return Err(format!("SES got {text:?}"));
            }
            let tagged = call.tags.iter().any(|tag| *tag == ("tenant".into(), "acme".into()));
            if call.configuration_set.as_str() != "acme-transactional" || !tagged {
                return Err(format!("SES got {call:?}"));
            }
        }
        self.sent += message.envelope.forward_paths.len();
        Ok(())
    }

    async fn finish(mut self) -> Result<(usize, usize), String> {
        self.sync().await.map_err(|what| format!("{what}\n{}", self.said))?;
        if self.seen != self.messages.len() {
            return Err(format!("{} of {} messages are in the file", self.seen, self.messages.len()));
        }
        if let Some(client) = self.client.take() {
            let rest = client.hang_up().await;
            if !rest.is_empty() {
                return Err(format!("said {rest:?} behind the last line\n{}", self.said));
            }
            let line = journal().wait("session_closed", "peer", &self.peer).await;
            // Not over before, or the file had said so.
            if !matches!(line["reason"].as_str(), Some("lost" | "lost_in_data")) {
                return Err(format!("was over: {}\n{}", line["reason"], self.said));
            }
        }
        if let Some(wrong) = malformed(&self.said) {
            return Err(format!("no reply: {wrong}"));
        }
        let mut verdicts = journal().all("peer", &self.peer);
        verdicts.retain(is_verdict);
        if verdicts.len() != self.messages.len() + self.unkept {
            return Err(format!("{} messages and {verdicts:?}", self.messages.len() + self.unkept));
        }
        self.world.drain.cancel();
        let abandoned = soon("the drain", self.world.task).await.map_err(|error| error.to_string())?;
        if abandoned != 0 || self.world.ses.calls().len() != self.sent {
            return Err(format!("{abandoned} abandoned, {} calls for {}", self.world.ses.calls().len(), self.sent));
        }
        let sendable = self.messages.iter().filter(|message| sendable(message)).count();
        Ok((sendable, self.messages.len() - sendable))
    }
}

/// Whether the relay takes it as the tenant's.
fn sendable(message: &Message) -> bool {
    message.data.starts_with(b"From:a@b.c\r\n")
}
