//! Traffic that can be accounted for: letters of three tenants that say themselves whether they are
//! whole, clients that write down what they were answered, and a ledger that compares it with what
//! SES has.
//!
//! It holds the relay to this, whatever was done to it meanwhile: who was answered 250 has his
//! letter at SES, whole, for every recipient; SES has nothing that nobody sent, and nothing by
//! another way than its own; and nobody has a letter twice but where the relay said that a call's
//! outcome was unknown, or where its client was never answered.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bulkhead::sandbox::inbox::Message;
use bulkhead::secret::Secret;
use bulkhead::store::credential::SecretHash;
use rustls::ClientConfig;
use serde_json::Value;

use crate::binary::{Caller, Dice, Process, SECRET, code};

/// Each has the streams `through` and `queue`.
pub const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub const STREAMS: [&str; 2] = ["through", "queue"];

/// Most recipients of a letter.
pub const RECIPIENTS: u32 = 5;

/// A tenants file with all of them. Globex's streams spread their recipients in batches.
pub fn tenants() -> String {
    let hash = SecretHash::of(&Secret::new(SECRET.as_bytes().to_vec()));
    let mut text = String::new();
    for tenant in TENANTS {
        text += &format!(
            "[[tenant]]\nid = \"{tenant}\"\nsenders = [\"{tenant}.example\"]\ndefault_stream = \"through\"\n\
             [[tenant.credential]]\nusername = \"{tenant}-app\"\nsecret_hash = \"{hash}\"\n"
        );
        let fan_out = if tenant == "globex" { "batch" } else { "single" };
        for stream in STREAMS {
            let kind = if stream == "queue" { "bulk" } else { "transactional" };
            text += &format!(
                "[[tenant.stream]]\nid = \"{stream}\"\nkind = \"{kind}\"\nhandoff = \"{stream}\"\nfan_out = \"{fan_out}\"\n\
                 configuration_set = \"{tenant}-{stream}\"\nexposure = false\n"
            );
        }
    }
    text
}

// ---------------------------------------------------------------------------------------------
// Letters

/// A message that can be made again from what is here.
#[derive(Clone, Debug)]
pub struct Letter {
    pub subject: String,
    pub tenant: &'static str,
    pub stream: &'static str,
    pub recipients: Vec<String>,
    /// About so many octets.
    pub bytes: usize,
}

impl Letter {
    /// One of any tenant and stream, to one to five, of a kilobyte to two megabytes, most of them
    /// small. Recipients are each at a domain of their own, `d0.example` and so on.
    pub fn any(subject: String, tenant: &'static str, dice: &Dice) -> Self {
        let size = match dice.below(100) {
            0..70 => 1_000 + dice.below(8_000),
            70..90 => 8_000 + dice.below(60_000),
            90..98 => 66_000 + dice.below(300_000),
            _ => 300_000 + dice.below(1_700_000),
        };
        let recipients = (0..=dice.below(RECIPIENTS)).map(|n| format!("{subject}@d{n}.example")).collect();
        let stream = STREAMS[usize::try_from(dice.below(2)).unwrap()];
        Self { subject, tenant, stream, recipients, bytes: usize::try_from(size).unwrap() }
    }

    pub fn sender(&self) -> String {
        format!("app@{}.example", self.tenant)
    }

    /// Its body: lines that no other letter has, some of which begin with a dot.
    pub fn body(&self) -> Vec<u8> {
        let mut state = u64::from(crc32fast::hash(self.subject.as_bytes())) << 1 | 1;
        let mut body = Vec::with_capacity(self.bytes + 80);
        while body.len() < self.bytes {
            let line = body.len();
            while body.len() < line + 72 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                body.extend(state.to_be_bytes().map(|octet| b'.' + octet % 77));
            }
            body.extend_from_slice(b"\r\n");
        }
        body
    }

    /// Header section and body, as a client has it.
    pub fn text(&self) -> Vec<u8> {
        let body = self.body();
        let head = format!(
            "From: <{}>\r\nSubject: {}\r\nX-Bulkhead-Stream: {}\r\nX-Whole: {} {:08x}\r\n\r\n",
            self.sender(),
            self.subject,
            self.stream,
            body.len(),
            crc32fast::hash(&body)
        );
        [head.into_bytes(), body].concat()
    }
}

/// What a client sends after 354.
fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len() + text.len() / 64);
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets.extend_from_slice(b".\r\n");
    octets
}

/// A client of a tenant's.
pub async fn login(address: SocketAddr, tenant: &str, tls: &Arc<ClientConfig>) -> io::Result<Caller> {
    let mut caller = Caller::starttls(address, Ipv4Addr::LOCALHOST, tls).await?;
    let reply = caller.auth(&format!("{tenant}-app"), SECRET).await?;
    if code(&reply) == 235 { Ok(caller) } else { Err(io::Error::other(reply)) }
}

/// A whole transaction: the reply to the data, whatever it is; an error where the connection broke
/// or something before it was refused.
pub async fn transact(caller: &mut Caller, letter: &Letter) -> io::Result<String> {
    let mut envelope = format!("MAIL FROM:<{}>\r\n", letter.sender());
    for recipient in &letter.recipients {
        envelope += &format!("RCPT TO:<{recipient}>\r\n");
    }
    caller.write((envelope + "DATA\r\n").as_bytes()).await?;
    for _ in 0..=letter.recipients.len() {
        caller.expect(250).await?;
    }
    caller.expect(354).await?;
    caller.write(&stuffed(&letter.text())).await?;
    caller.reply().await
}

// ---------------------------------------------------------------------------------------------
// The ledger

/// What was sent, what was answered, what arrived, and what the relay said of it.
#[derive(Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Default)]
struct Books {
    sent: HashMap<String, Sent>,
    /// Message ids of each subject and recipient that arrived.
    arrived: BTreeMap<(String, String), Vec<String>>,
    /// Message ids that the relay called unknown.
    unknown: HashSet<String>,
}

struct Sent {
    letter: Letter,
    whole: (usize, u32),
    /// It was answered 250.
    acknowledged: bool,
    /// That 250 said that it was queued.
    held: bool,
    /// One attempt at least ended without a 250.
    doubtful: bool,
}

/// How it came out.
#[derive(Debug, Default)]
pub struct Account {
    pub sent: usize,
    pub acknowledged: usize,
    pub held: usize,
    /// Recipients of acknowledged letters.
    pub deliveries: usize,
    /// Letters and recipients that arrived more than once, by message of known unknown outcome and
    /// by client that was not answered.
    pub doubled: usize,
    pub doubled_unanswered: usize,
}

impl Ledger {
    /// Sends a letter and writes down what comes of it.
    pub async fn send(&self, caller: &mut Caller, letter: &Letter) -> io::Result<String> {
        let body = letter.body();
        {
            let mut books = self.0.lock().unwrap();
            let whole = (body.len(), crc32fast::hash(&body));
            let fresh = Sent { letter: letter.clone(), whole, acknowledged: false, held: false, doubtful: false };
            books.sent.entry(letter.subject.clone()).or_insert(fresh);
        }
        let reply = transact(caller, letter).await;
        let mut books = self.0.lock().unwrap();
        let sent = books.sent.get_mut(&letter.subject).unwrap();
        match &reply {
            Ok(reply) if code(reply) == 250 => {
                sent.acknowledged = true;
                sent.held |= reply.contains("queued as");
            }
            Ok(_) | Err(_) => sent.doubtful = true,
        }
        reply
    }

    /// The subjects that were answered 250 so far.
    pub fn acknowledged(&self) -> HashSet<String> {
        let books = self.0.lock().unwrap();
        books.sent.iter().filter(|(_, sent)| sent.acknowledged).map(|(subject, _)| subject.clone()).collect()
    }

    /// How many of them were told that they are queued.
    pub fn held(&self) -> usize {
        self.0.lock().unwrap().sent.values().filter(|sent| sent.held).count()
    }

    /// Takes what arrived at SES, each of which must be somebody's, whole and by its own way.
    pub fn receive(&self, messages: &[Arc<Message>]) {
        let mut books = self.0.lock().unwrap();
        for message in messages {
            let (head, body) = split(&message.raw);
            let subject = field(head, "Subject: ");
            let sent = books.sent.get(subject).unwrap_or_else(|| panic!("nobody sent {subject}"));
            let Letter { tenant, stream, recipients, .. } = &sent.letter;
            assert_eq!((body.len(), crc32fast::hash(body)), sent.whole, "{subject} is not whole");
            assert_eq!(message.configuration_set.as_deref(), Some(&*format!("{tenant}-{stream}")), "{subject}");
            assert_eq!(message.tag("tenant"), Some(*tenant), "{subject}");
            assert_eq!(message.tag("stream"), Some(*stream), "{subject}");
            assert_eq!(message.tag("credential"), Some(&*format!("{tenant}-app")), "{subject}");
            let to: HashSet<&String> = message.destination.iter().collect();
            assert_eq!(to.len(), message.destination.len(), "{subject} names somebody twice");
            assert!(to.iter().all(|one| recipients.contains(one)), "{subject} went to a stranger: {to:?}");
            let id = message_id(head).to_owned();
            for recipient in &message.destination {
                books.arrived.entry((subject.to_owned(), recipient.clone())).or_default().push(id.clone());
            }
        }
    }

    /// Takes what a process said of outcomes that it does not know.
    pub fn read(&self, process: &Process) {
        let mut books = self.0.lock().unwrap();
        let unknown = |line: &Value| match line["event"].as_str() {
            Some("outcome_unknown") => line["message"].is_string(),
            Some("message_deferred" | "message_queued") => line["cause"] == "unknown",
            Some("message_dispatched") => line["unknown"].as_u64() > Some(0),
            _ => false,
        };
        process.each_line(|line| {
            if unknown(line) {
                books.unknown.insert(line["message"].as_str().unwrap().to_owned());
            }
        });
    }

    /// Of these subjects, those that are missing for somebody.
    pub fn missing<'a>(&self, subjects: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let books = self.0.lock().unwrap();
        let mut missing = Vec::new();
        for subject in subjects {
            for recipient in &books.sent[subject].letter.recipients {
                if !books.arrived.contains_key(&(subject.clone(), recipient.clone())) {
                    missing.push(format!("{subject} for {recipient}"));
                }
            }
        }
        missing
    }

    /// Draws the balance: panics where the relay broke its word.
    pub fn close(&self) -> Account {
        let missing = self.missing(&self.acknowledged());
        assert!(missing.is_empty(), "{} were acknowledged and are lost, among them {:?}", missing.len(), &missing[..1]);
        let books = self.0.lock().unwrap();
        let mut account = Account { sent: books.sent.len(), ..Account::default() };
        for sent in books.sent.values().filter(|sent| sent.acknowledged) {
            account.acknowledged += 1;
            account.held += usize::from(sent.held);
            account.deliveries += sent.letter.recipients.len();
        }
        for ((subject, recipient), ids) in books.arrived.iter().filter(|(_, ids)| ids.len() > 1) {
            if ids.iter().any(|id| books.unknown.contains(id)) {
                account.doubled += 1;
            } else if books.sent[subject].doubtful {
                account.doubled_unanswered += 1;
            } else {
                panic!("{recipient} has {subject} {} times, and nobody said why: {ids:?}", ids.len());
            }
        }
        account
    }
}

fn split(raw: &[u8]) -> (&str, &[u8]) {
    let end = memchr::memmem::find(raw, b"\r\n\r\n").expect("a header section");
    (std::str::from_utf8(&raw[..end]).unwrap(), &raw[end + 4..])
}

fn field<'h>(head: &'h str, name: &str) -> &'h str {
    head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}in {head}"))
}

/// The relay's own id, out of its trace field.
fn message_id(head: &str) -> &str {
    let mut words = head.split_ascii_whitespace();
    words.find(|word| *word == "id").expect("a trace field");
    words.next().unwrap().trim_end_matches(';')
}

/// Messages whose body files lie in the spool of the data folder.
pub fn held_files(data: &Path) -> usize {
    let Ok(names) = std::fs::read_dir(data.join("outbox")) else { return 0 };
    names.filter(|name| name.as_ref().is_ok_and(|name| name.file_name().len() == 26)).count()
}
