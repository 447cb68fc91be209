//! A house with one client that sends, and what the tests ask about it.

use std::sync::Arc;
use std::time::Duration;

use bulkhead::dispatch::Dispatch;
use bulkhead::mail::{MessageId, StreamId, TenantId};
use bulkhead::outbox::{Entry, Lane, Slot, Wait};
use bulkhead::sandbox::inbox::Message;
use serde_json::Value;

use crate::house::{House, Plan, SECRET_OF_ACME, stuffed};
use crate::support::{Client, code, journal, soon};

/// Longer than any wait of these tests, and far below the age of held mail.
pub const A_WHILE: Duration = Duration::from_secs(1200);

pub struct Scene {
    pub house: House,
    /// The tenant's, for the journal is one for all tests of a process.
    pub name: String,
    pub client: Client,
    /// Messages written so far.
    letters: usize,
}

/// A message as a client sends it.
#[derive(Clone)]
pub struct Letter {
    pub octets: Vec<u8>,
    pub subject: String,
}

impl Scene {
    pub async fn named(name: &str) -> Self {
        Self::of(Plan::named(name, &format!("{name}-b"))).await
    }

    pub async fn of(plan: Plan) -> Self {
        let name = plan.names[0].clone();
        let house = House::build(plan).await;
        let client = house.login(&format!("{name}-app"), SECRET_OF_ACME).await;
        Self { house, name, client, letters: 0 }
    }

    /// Another client of the same tenant.
    pub async fn another(&self) -> Client {
        self.house.login(&format!("{}-app", self.name), SECRET_OF_ACME).await
    }

    pub fn dispatch(&self) -> &Arc<Dispatch> {
        &self.house.dispatch
    }

    pub fn from(&self) -> String {
        format!("app@{}.example", self.name)
    }

    pub fn tenant(&self) -> TenantId {
        TenantId::parse(&self.name).unwrap()
    }

    pub fn lane(&self, stream: &str) -> Lane {
        Lane { tenant: self.tenant(), stream: Some(StreamId::parse(stream).unwrap()) }
    }

    /// A message of the transactional stream, like no other.
    pub fn letter(&mut self) -> Letter {
        self.letter_with("", &odd_body())
    }

    /// One with more header fields and another body.
    pub fn letter_with(&mut self, fields: &str, body: &[u8]) -> Letter {
        self.letters += 1;
        let subject = format!("letter-{}", self.letters);
        let head = format!(
            "From: App <{from}>\r\nMessage-ID: <{subject}@{name}.example>\r\nSubject: {subject}\r\n{fields}\r\n",
            from = self.from(),
            name = self.name,
        );
        Letter { octets: [head.as_bytes(), body].concat(), subject }
    }

    /// The reply to a transaction whose recipients are all let pass.
    pub async fn send(&mut self, to: &[String], letter: &Letter) -> String {
        let from = self.from();
        post(&mut self.client, &from, to, letter).await
    }

    /// Sends to one recipient; the message is held.
    pub async fn send_held(&mut self, letter: &Letter) -> MessageId {
        queued(&self.send(&recipients(1), letter).await)
    }

    pub async fn entry(&self, id: MessageId) -> (Slot, Entry) {
        self.dispatch().outbox().entry(id).await.unwrap()
    }

    pub fn slot(&self, id: MessageId) -> Option<Slot> {
        self.dispatch().outbox().with_index(|index| index.slot(id).cloned())
    }

    pub fn held(&self) -> usize {
        self.dispatch().outbox().backlog().messages
    }

    /// Waits until nothing is held.
    pub async fn emptied(&self) {
        until("the outbox to be empty", || self.held() == 0).await;
    }

    /// Lets so much time pass that every wait is over, and waits for the message to be done with; its
    /// last line.
    pub async fn dispatched(&self, id: MessageId) -> Value {
        self.house.pass(A_WHILE);
        let line = journal().wait("message_dispatched", "message", &id.to_string()).await;
        assert_eq!(self.slot(id), None, "done with, and still held");
        line
    }

    /// Waits until an attempt at a held message has ended and the message waits on; how it stands then.
    pub async fn deferred(&self, id: MessageId, attempts: u32) -> (Slot, Entry) {
        // The log has it a little later than the store.
        let told = || {
            let lines = journal().lines("message_deferred", "message", &id.to_string());
            attempts == 0 || lines.iter().any(|line| line["attempts"] == attempts)
        };
        let look = async {
            loop {
                let entry = self.dispatch().outbox().entry(id).await;
                if let Ok((slot, entry)) = entry
                    && entry.attempts == attempts
                    && !entry.leased
                    && slot.wait != Wait::Active
                    && told()
                {
                    return (slot, entry);
                }
                breathe().await;
            }
        };
        soon(&format!("attempt {attempts} at {id}"), look).await
    }

    /// What SES has of a letter, in the order it came.
    pub fn copies(&self, letter: &Letter) -> Vec<Arc<Message>> {
        let subject = format!("\r\nSubject: {}\r\n", letter.subject);
        let mut all = self.house.inbox.all();
        all.retain(|message| contains(&message.raw, subject.as_bytes()));
        all
    }

    /// SES has a letter so many times: each whole, by the right set, with our tags.
    pub fn assert_copies(&self, letter: &Letter, count: usize, stream: &str) -> Vec<Arc<Message>> {
        let copies = self.copies(letter);
        assert_eq!(copies.len(), count, "{}", letter.subject);
        for copy in &copies {
            assert!(body_of(&copy.raw) == body_of(&letter.octets), "{}: octet by octet", letter.subject);
            assert_eq!(copy.configuration_set.as_deref(), Some(format!("{}-{stream}", self.name).as_str()));
            assert_eq!(copy.tag("tenant"), Some(self.name.as_str()));
            assert_eq!(copy.tag("stream"), Some(stream));
            assert_eq!(copy.tag("credential"), Some(format!("{}-app", self.name).as_str()));
        }
        copies
    }

    /// The verdict line of a message.
    pub fn verdict(&self, id: MessageId) -> Value {
        let mut lines = journal().all("message", &id.to_string());
        lines.retain(|line| ["message_relayed", "message_queued", "message_refused"].contains(&event(line)));
        assert_eq!(lines.len(), 1, "one verdict a message: {lines:?}");
        lines.pop().unwrap()
    }

    /// The lines of this tenant with that event.
    pub fn lines(&self, event: &str) -> Vec<Value> {
        journal().lines(event, "tenant", &self.name)
    }
}

fn event(line: &Value) -> &str {
    line["event"].as_str().unwrap()
}

pub fn recipients(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("r{n}@dest.example")).collect()
}

/// A transaction; the reply to its data.
pub async fn post(client: &mut Client, from: &str, to: &[String], letter: &Letter) -> String {
    begin(client, from, to, letter).await;
    client.reply().await
}

/// A transaction, without waiting for its last reply.
pub async fn begin(client: &mut Client, from: &str, to: &[String], letter: &Letter) {
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for reply in client.envelope(from, &to).await {
        assert_eq!(code(&reply), 250, "{reply}");
    }
    assert_eq!(code(&client.say("DATA").await), 354);
    client.write(&stuffed(&letter.octets)).await;
}

/// As which message a reply says that one is held.
pub fn queued(reply: &str) -> MessageId {
    let id = reply.strip_prefix("250 2.0.0 queued as ").unwrap_or_else(|| panic!("not held: {reply}"));
    MessageId::parse(id.trim_end()).unwrap()
}

/// SES's id in the reply to a message that went in one call.
pub fn relayed(reply: &str) -> String {
    let id = reply.strip_prefix("250 2.0.0 Ok ").unwrap_or_else(|| panic!("not relayed: {reply}"));
    id.trim_end().to_owned()
}

/// Looks again and again until it is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let look = async {
        while !so() {
            breathe().await;
        }
    };
    soon(what, look).await;
}

/// Between two looks: there is nothing to be told by, and a spinning thread would take one of few.
pub async fn breathe() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

pub fn body_of(raw: &[u8]) -> &[u8] {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    &raw[end + 4..]
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    let head = &octets[..octets.len().min(4096)];
    head.windows(part.len()).any(|window| window == part)
}

/// 8-bit octets, and dots in all places.
fn odd_body() -> Vec<u8> {
    let mut body = b".\r\n..\r\n.one\r\n\r\n.\r\n".to_vec();
    body.extend((1..=255_u8).filter(|octet| !matches!(octet, b'\r' | b'\n')));
    body.extend_from_slice(b"\r\n");
    body
}

/// A body of lines, of about so many octets.
pub fn long_body(octets: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(octets + 100);
    let mut line = 0;
    while body.len() < octets {
        body.extend_from_slice(format!("{line:08} {}\r\n", "x".repeat(70)).as_bytes());
        line += 1;
    }
    body
}
