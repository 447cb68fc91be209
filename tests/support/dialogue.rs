//! Dialogues: conversations as files, one promise a file, and the world behind them.
//!
//! A file is a list of lines:
//!
//! | line | meaning |
//! |---|---|
//! | `# text` | the promise; the first line of a file is one |
//! | `LISTENER starttls\|implicit\|cleartext` | which listener; `implicit` unless said |
//! | `TERMS key=number …` | other terms than [`terms`]; times in milliseconds |
//! | `BEGIN` | greeting, EHLO and login, for files that are about what follows |
//! | `C: text` | the client sends the text and CRLF |
//! | `C\: text` | the client sends exactly this; `\r \n \0 \t \\ \xHH`, and `\{n:x}` for n times x |
//! | `S: text` | the next reply line begins with this |
//! | `S* 250` | the next reply, of however many lines, has this code |
//! | `TLS` | the session asks for TLS; the handshake succeeds |
//! | `WAIT 999ms` | so much time passes, in which nothing is said but what follows |
//! | `DRAIN`, `STARVE`, `LOST` | the shell says so |
//! | `FULL` | the shell finds no room for the next octets that are spilled |
//! | `HELD none\|some` | whether mail data is held |
//! | `SPILLED none\|some` | whether octets of the message were spilled, and are still of use |
//! | `MESSAGE key=value …` | the next message that came through: `from to body helo length data` |
//! | `CLOSED Ending` | the session is over, for this reason |
//!
//! The world behind the session: `acme-app` with `open-sesame-open-sesame` may log in, nobody else.
//! The null path and senders at `acme.example` pass, others hear 550 5.7.1. The recipient
//! `suppressed@dest.example` hears 550 5.1.1, others pass. A message that comes through is taken
//! with `250 2.0.0 Ok ses-<n>`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead::mail::{Body, Envelope, Login, Receipt, ReversePath, Taken, TenantId, Username};
use bulkhead::smtp::session::Ending;
use bulkhead::smtp::{Answer, Question, Refusal, Session, Step, Terms, reply};

pub const USERNAME: &str = "acme-app";
pub const PASSWORD: &str = "open-sesame-open-sesame";
/// `\0acme-app\0open-sesame-open-sesame` in base64.
pub const PLAIN: &str = "AGFjbWUtYXBwAG9wZW4tc2VzYW1lLW9wZW4tc2VzYW1l";

/// One line of a dialogue.
#[derive(Clone, Debug)]
pub enum Act {
    Client(Vec<u8>),
    ReplyLine(String),
    Reply(String),
    Tls,
    Wait(Duration),
    Drain,
    Starve,
    Lost,
    Full,
    Held(bool),
    Spilled(bool),
    Message(Vec<(String, Vec<u8>)>),
    Closed(String),
}

/// A dialogue file.
#[derive(Clone, Debug)]
pub struct Dialogue {
    pub name: String,
    pub promise: String,
    pub listener: String,
    pub terms: Terms,
    /// Acts with the line each stands on.
    pub acts: Vec<(usize, Act)>,
}

/// A message that came through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub envelope: Envelope,
    pub data: Vec<u8>,
    pub helo: String,
}

/// Terms that are small enough to be met in a file.
pub fn terms(listener: &str) -> Terms {
    Terms {
        hostname: "relay.example".into(),
        starttls: listener == "starttls",
        cleartext_auth: listener == "cleartext",
        message_bytes: 2000,
        head_bytes: 0,
        spill_bytes: usize::MAX,
        recipients: 50,
        messages: 100,
        command_bytes: 512,
        auth_bytes: 1500,
        line_bytes: 1000,
        errors: 10,
        commands_before_login: 100,
        auth_failures: 3,
        auth_delay: Duration::from_secs(1),
        auth_delay_longest: Duration::from_secs(60),
        command_time_unauthenticated: Duration::from_secs(60),
        command_time: Duration::from_secs(300),
        data_time: Duration::from_secs(600),
        data_rate: 100,
        data_grace: Duration::from_secs(30),
    }
}

impl Dialogue {
    pub fn load(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Self::parse(&name, &std::fs::read_to_string(path).unwrap())
    }

    pub fn parse(name: &str, text: &str) -> Self {
        let promise = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let promise = promise.unwrap_or_else(|| panic!("{name}: begins with no promise")).to_owned();
        let listener = text.lines().find_map(|line| line.strip_prefix("LISTENER ")).unwrap_or("implicit").to_owned();
        let mut terms = terms(&listener);
        let mut acts = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let fail = |what: &str| -> ! { panic!("{name}:{number}: {what}: {line}") };
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let act = match word {
                "" | "#" | "LISTENER" => continue,
                "TERMS" => {
                    rest.split(' ').for_each(|setting| set(&mut terms, setting));
                    continue;
                }
                "BEGIN" => {
                    acts.extend(begin(&listener).into_iter().map(|act| (number, act)));
                    continue;
                }
                "C:" => Act::Client([rest.as_bytes(), b"\r\n"].concat()),
                "C\\:" => Act::Client(unescape(rest)),
                "S:" => Act::ReplyLine(rest.to_owned()),
                "S*" => Act::Reply(rest.to_owned()),
                "TLS" => Act::Tls,
                "WAIT" => Act::Wait(Duration::from_millis(
                    rest.strip_suffix("ms").and_then(|n| n.parse().ok()).unwrap_or_else(|| fail("no time")),
                )),
                "DRAIN" => Act::Drain,
                "STARVE" => Act::Starve,
                "LOST" => Act::Lost,
                "FULL" => Act::Full,
                "HELD" => Act::Held(rest == "some"),
                "SPILLED" => Act::Spilled(rest == "some"),
                "MESSAGE" => Act::Message(pairs(rest)),
                "CLOSED" => Act::Closed(rest.to_owned()),
                _ => fail("what is this"),
            };
            acts.push((number, act));
        }
        Self { name: name.to_owned(), promise, listener, terms, acts }
    }

    /// Octets the client sends between two acts that need to know where the conversation stands.
    pub fn groups(&self) -> Vec<Vec<u8>> {
        let mut groups = vec![Vec::new()];
        for (_, act) in &self.acts {
            match act {
                Act::Client(octets) => groups.last_mut().unwrap().extend_from_slice(octets),
                Act::ReplyLine(_) | Act::Reply(_) | Act::Message(_) => {}
                Act::Tls
                | Act::Wait(_)
                | Act::Drain
                | Act::Starve
                | Act::Lost
                | Act::Full
                | Act::Held(_)
                | Act::Spilled(_)
                | Act::Closed(_) => groups.push(Vec::new()),
            }
        }
        groups
    }
}

fn begin(listener: &str) -> Vec<Act> {
    let client = |text: &str| Act::Client(format!("{text}\r\n").into_bytes());
    let mut acts = vec![Act::Reply("220".into()), client("EHLO client.example"), Act::Reply("250".into())];
    if listener == "starttls" {
        acts.extend([client("STARTTLS"), Act::Reply("220".into()), Act::Tls]);
        acts.extend([client("EHLO client.example"), Act::Reply("250".into())]);
    }
    acts.extend([client(&format!("AUTH PLAIN {PLAIN}")), Act::Reply("235".into())]);
    acts
}

fn set(terms: &mut Terms, setting: &str) {
    let (key, value) = setting.split_once('=').unwrap();
    let number: usize = value.parse().unwrap();
    let time = Duration::from_millis(number as u64);
    match key {
        "message_bytes" => terms.message_bytes = number,
        "head_bytes" => terms.head_bytes = number,
        "spill_bytes" => terms.spill_bytes = number,
        "recipients" => terms.recipients = number,
        "messages" => terms.messages = number,
        "command_bytes" => terms.command_bytes = number,
        "auth_bytes" => terms.auth_bytes = number,
        "line_bytes" => terms.line_bytes = number,
        "errors" => terms.errors = number,
        "auth_failures" => terms.auth_failures = number,
        "auth_delay" => terms.auth_delay = time,
        "auth_delay_longest" => terms.auth_delay_longest = time,
        "commands_before_login" => terms.commands_before_login = number,
        "data_grace" => terms.data_grace = time,
        "command_time_unauthenticated" => terms.command_time_unauthenticated = time,
        "command_time" => terms.command_time = time,
        "data_time" => terms.data_time = time,
        "data_rate" => terms.data_rate = number,
        _ => panic!("no such term: {key}"),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            octets.extend_from_slice(c.to_string().as_bytes());
            continue;
        }
        let (kind, behind) = rest.split_at(1);
        rest = behind;
        match kind {
            "r" => octets.push(b'\r'),
            "n" => octets.push(b'\n'),
            "t" => octets.push(b'\t'),
            "0" => octets.push(0),
            "\\" => octets.push(b'\\'),
            "x" => {
                octets.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            "{" => {
                let (inside, behind) = rest.split_once('}').unwrap();
                let (times, what) = inside.split_once(':').unwrap();
                octets.extend(what.repeat(times.parse().unwrap()).into_bytes());
                rest = behind;
            }
            _ => panic!("no such escape: \\{kind}"),
        }
    }
    octets
}

/// `key=value key="value with \r\n"`.
fn pairs(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=').unwrap();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => behind.split_once(' ').unwrap_or((behind, "")),
        };
        all.push((key.to_owned(), unescape(value)));
        rest = behind.trim_start();
    }
    all
}

impl Message {
    fn matches(&self, key: &str, value: &[u8]) -> bool {
        let shown = match key {
            "from" => match &self.envelope.reverse_path {
                ReversePath::Null => b"<>".to_vec(),
                ReversePath::Mailbox(mailbox) => mailbox.to_string().into_bytes(),
            },
            "to" => {
                self.envelope.forward_paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(",").into_bytes()
            }
            "body" => match self.envelope.body {
                Body::SevenBit => b"7BIT".to_vec(),
                Body::EightBitMime => b"8BITMIME".to_vec(),
            },
            "helo" => self.helo.clone().into_bytes(),
            "length" => self.data.len().to_string().into_bytes(),
            "data" => self.data.clone(),
            _ => panic!("nothing to check: {key}"),
        };
        shown == value
    }
}

/// How a group's octets are cut into segments.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// All that may be sent, in one.
    Whole,
    /// One cut, at this octet of the conversation.
    At(usize),
    /// Octet by octet.
    Octets,
    /// As the file has it: each time after what is said to it.
    Lines,
}

/// A session and the world behind it.
#[derive(Debug)]
pub struct Room {
    pub session: Session,
    pub now: Instant,
    pub said: String,
    pub messages: Vec<Message>,
    pub logins: usize,
    pub largest_write: usize,
    pub stopped: Option<&'static str>,
    /// What was spilled of the message that comes in.
    pub spilled: Vec<u8>,
    /// How often something was.
    pub spills: usize,
    /// The next octets that are spilled find no room.
    pub full: bool,
}

impl Room {
    pub fn new(terms: &Terms, secure: bool) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(Arc::new(terms.clone()), secure, now),
            now,
            said: String::new(),
            messages: Vec::new(),
            logins: 0,
            largest_write: 0,
            stopped: None,
            spilled: Vec::new(),
            spills: 0,
            full: false,
        }
    }

    /// Does what the session says until it needs something from outside.
    pub fn run(&mut self) {
        self.stopped = loop {
            match self.session.step(self.now) {
                Step::Read => break Some("read"),
                Step::Wait => break Some("wait"),
                Step::Secure => break Some("secure"),
                Step::Close => break Some("close"),
                Step::Write(octets) => {
                    assert!(self.session.deadline().is_none() || !octets.is_empty());
                    self.largest_write = self.largest_write.max(octets.len());
                    let text = std::str::from_utf8(&octets).unwrap();
                    let replies: String = self.session.take_replies().iter().map(ToString::to_string).collect();
                    assert_eq!(replies, text, "what is told of is what is written");
                    self.said.push_str(text);
                }
                Step::Ask(question) => {
                    assert!(self.session.deadline().is_none(), "a deadline while a question is open");
                    let answer = self.answer(question);
                    self.session.answer(answer, self.now);
                }
            }
        };
    }

    pub fn hear(&mut self, octets: &[u8]) {
        self.session.receive(octets, self.now);
        self.keep_spilled();
        self.run();
        // Data that came in one segment with its DATA or BDAT is only known now.
        self.keep_spilled();
    }

    fn keep_spilled(&mut self) {
        if self.session.spilled_bytes() == 0 {
            self.spilled.clear();
        }
        assert_eq!(self.session.spilled_bytes(), self.spilled.len() as u64);
        while let Some(octets) = self.session.spill() {
            assert!(!octets.is_empty());
            if std::mem::take(&mut self.full) {
                self.session.spill_failed();
                continue;
            }
            self.spilled.extend_from_slice(&octets);
            self.spills += 1;
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Authenticate { username, secret, mechanism } => {
                assert!(matches!(mechanism, "PLAIN" | "LOGIN"));
                if username == USERNAME && secret.expose() == PASSWORD.as_bytes() {
                    self.logins += 1;
                    return Answer::Login(Ok(Arc::new(login())));
                }
                Answer::Login(Err(reply::credentials_invalid()))
            }
            Question::Sender { login, reverse_path } => {
                self.is_ours(&login);
                Answer::Path(match reverse_path {
                    ReversePath::Mailbox(mailbox) if mailbox.domain().as_str() != "acme.example" => {
                        Err(Refusal::permanent(550, (7, 1), "Sender is not yours"))
                    }
                    ReversePath::Mailbox(_) | ReversePath::Null => Ok(()),
                })
            }
            Question::Recipient { login, forward_path } => {
                self.is_ours(&login);
                Answer::Path(if forward_path.folded() == "suppressed@dest.example" {
                    Err(Refusal::permanent(550, (1, 1), "Recipient is suppressed: hard bounce on 2026-05-01"))
                } else {
                    Ok(())
                })
            }
            Question::Accept { login, envelope, data, helo } => {
                self.is_ours(&login);
                assert!(!envelope.forward_paths.is_empty(), "a message to nobody");
                assert_eq!(data.spilled, self.spilled.len() as u64);
                let whole = [&data.head, self.spilled.as_slice(), &data.rest].concat();
                assert_eq!(data.len(), whole.len() as u64);
                self.spilled.clear();
                self.messages.push(Message { envelope, data: whole, helo });
                Answer::Accept(Ok(Receipt::one(Taken::by_ses(format!("ses-{}", self.messages.len())))))
            }
        }
    }

    /// Nothing is asked for somebody who has not logged in.
    fn is_ours(&self, login: &Login) {
        assert!(self.logins > 0, "asked for a client that has not logged in");
        assert_eq!(login.credential.as_str(), USERNAME);
        assert_eq!(self.session.login().map(|l| l.credential.as_str()), Some(USERNAME));
    }
}

fn login() -> Login {
    Login {
        tenant: TenantId::parse("acme").unwrap(),
        credential: Username::parse(USERNAME).unwrap(),
        stream: None,
        secret_fingerprint: 1,
    }
}

/// Runs a dialogue with its octets cut in one way; a description of what went wrong, if anything.
pub fn play(dialogue: &Dialogue, cut: Cut) -> Result<Room, String> {
    let mut stage = Stage {
        room: Room::new(&dialogue.terms, dialogue.listener == "implicit"),
        pending: Vec::new(),
        sent: 0,
        heard: 0,
        taken: 0,
        cut,
    };
    stage.room.run();
    let mut ended = false;
    for (number, act) in &dialogue.acts {
        stage
            .act(act, &mut ended)
            .map_err(|what| format!("{}:{number}: {what}\n{}", dialogue.name, stage.room.said))?;
    }
    stage.finish(ended).map_err(|what| format!("{}: at the end: {what}\n{}", dialogue.name, stage.room.said))?;
    Ok(stage.room)
}

struct Stage {
    room: Room,
    /// Octets that were not sent yet, and what is expected to be said once they are.
    pending: Vec<Act>,
    /// Octets sent so far.
    sent: usize,
    /// How much of what was said was looked at.
    heard: usize,
    /// Messages that were looked at.
    taken: usize,
    cut: Cut,
}

impl Stage {
    fn act(&mut self, act: &Act, ended: &mut bool) -> Result<(), String> {
        match act {
            Act::Client(_) => {
                let answered = !matches!(self.pending.last(), None | Some(Act::Client(_)));
                if matches!(self.cut, Cut::Lines) && answered {
                    self.sync()?;
                }
                self.pending.push(act.clone());
                return Ok(());
            }
            Act::ReplyLine(_) | Act::Reply(_) | Act::Message(_) => {
                self.pending.push(act.clone());
                return Ok(());
            }
            _ => self.sync()?,
        }
        match act {
            Act::Tls => {
                if self.room.stopped != Some("secure") {
                    return Err(format!("no TLS is asked for, but {:?}", self.room.stopped));
                }
                self.room.session.secured(self.room.now);
            }
            Act::Wait(time) => {
                self.room.now += *time;
                if self.room.session.deadline().is_some_and(|deadline| deadline <= self.room.now) {
                    self.room.session.expire(self.room.now);
                }
            }
            Act::Drain => self.room.session.drain(),
            Act::Starve => self.room.session.starve(),
            Act::Lost => self.room.session.lost(),
            Act::Held(wanted) => {
                if (self.room.session.held_bytes() > 0) != *wanted {
                    return Err(format!("{} octets are held", self.room.session.held_bytes()));
                }
            }
            Act::Full => self.room.full = true,
            Act::Spilled(wanted) => {
                if (self.room.session.spilled_bytes() > 0) != *wanted {
                    return Err(format!("{} octets are spilled", self.room.session.spilled_bytes()));
                }
            }
            Act::Closed(wanted) => {
                *ended = true;
                let ending = self.room.session.ending().map(|ending: Ending| format!("{ending:?}"));
                if self.room.stopped != Some("close") || ending.as_deref() != Some(wanted) {
                    return Err(format!("is {ending:?}, {:?}", self.room.stopped));
                }
            }
            Act::Client(_) | Act::ReplyLine(_) | Act::Reply(_) | Act::Message(_) => unreachable!(),
        }
        self.room.run();
        Ok(())
    }

    /// Sends what is pending and looks at all that is said.
    fn sync(&mut self) -> Result<(), String> {
        let pending = std::mem::take(&mut self.pending);
        let octets: Vec<u8> = pending
            .iter()
            .filter_map(|act| if let Act::Client(octets) = act { Some(octets.as_slice()) } else { None })
            .collect::<Vec<_>>()
            .concat();
        let segments: Vec<&[u8]> = match self.cut {
            Cut::Whole | Cut::Lines => vec![&octets],
            Cut::Octets => octets.chunks(1).collect(),
            Cut::At(at) => match at.checked_sub(self.sent).filter(|at| *at <= octets.len()) {
                Some(at) => vec![&octets[..at], &octets[at..]],
                None => vec![&octets],
            },
        };
        for segment in segments.into_iter().filter(|segment| !segment.is_empty()) {
            self.room.hear(segment);
        }
        self.sent += octets.len();
        self.expect(&pending)
    }

    fn expect(&mut self, wanted: &[Act]) -> Result<(), String> {
        for act in wanted {
            match act {
                Act::ReplyLine(text) => {
                    let line = self.next_line().ok_or(format!("nothing said, not {text:?}"))?;
                    if !line.starts_with(text.as_str()) {
                        return Err(format!("said {line:?}, not {text:?}"));
                    }
                }
                Act::Reply(code) => loop {
                    let line = self.next_line().ok_or(format!("nothing said, not {code}"))?;
                    if !line.starts_with(code.as_str()) {
                        return Err(format!("said {line:?}, not {code}"));
                    }
                    if line.as_bytes().get(3) == Some(&b' ') {
                        break;
                    }
                },
                Act::Message(checks) => {
                    let message = self.room.messages.get(self.taken).ok_or("no message came through")?;
                    self.taken += 1;
                    for (key, value) in checks {
                        if !message.matches(key, value) {
                            return Err(format!("{key} is not {:?} in {message:?}", String::from_utf8_lossy(value)));
                        }
                    }
                }
                _ => {}
            }
        }
        match self.next_line() {
            Some(line) => Err(format!("said {line:?}, which is in no line")),
            None => Ok(()),
        }
    }

    fn next_line(&mut self) -> Option<String> {
        let line = self.room.said[self.heard..].split_inclusive("\r\n").next()?.to_owned();
        self.heard += line.len();
        Some(line)
    }

    fn finish(&mut self, ended: bool) -> Result<(), String> {
        self.sync()?;
        if self.taken != self.room.messages.len() {
            return Err(format!("{} messages came through, {} are in the file", self.room.messages.len(), self.taken));
        }
        if self.room.session.ending().is_some() && !ended {
            return Err(format!("is over: {:?}", self.room.session.ending()));
        }
        Ok(())
    }
}

/// What is wrong with a write as replies of RFC 5321 4.2, if anything.
pub fn malformed(said: &str) -> Option<String> {
    let mut wrong = String::new();
    let mut open: Option<&str> = None;
    for line in said.split_inclusive("\r\n") {
        let text = line.strip_suffix("\r\n");
        let code = text.and_then(|text| text.get(..3));
        let mark = text.and_then(|text| text.as_bytes().get(3));
        let printable = text.is_some_and(|text| text.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
        let known = code.is_some_and(|code| code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)));
        let follows = open.is_none() || open == code;
        if !printable || !known || !follows || line.len() > 512 || !matches!(mark, Some(b' ' | b'-')) {
            let _ = write!(wrong, "{line:?} ");
        }
        open = if mark == Some(&b'-') { code } else { None };
    }
    (!wrong.is_empty() || open.is_some()).then_some(wrong)
}
