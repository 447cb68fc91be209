//! What is fuzzed: one function per target. Each panics where a promise is broken, and says how
//! deep it got, so that a run that never reached anything cannot pass for a good one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead::mail::header::{Additions, HeaderLimits, HeaderSection};
use bulkhead::mail::{Domain, Login, Mailbox, Receipt, StreamId, Taken, TenantId, Username};
use bulkhead::smtp::data::{DataBounds, Fault, MailData};
use bulkhead::smtp::session::{Answer, Question, Session, Step, Terms};
use bulkhead::smtp::{Refusal, command};
use bytes::Bytes;

/// How far an input came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Depth {
    /// Things that were taken: messages, lines, fields, notices.
    pub taken: usize,
    /// Things that were refused in the right way.
    pub refused: usize,
    /// Messages taken of which some octets were spilled while they came in.
    pub spilled: usize,
    /// Whether the whole input was let go of (the session ended, the form was wrong).
    pub ended: bool,
}

// ---------------------------------------------------------------------------------------------

const MESSAGE_BYTES: usize = 4_000;
const RECIPIENTS: usize = 3;

fn terms(head_bytes: usize, spill_bytes: usize) -> Arc<Terms> {
    Arc::new(Terms {
        hostname: "relay.test".into(),
        starttls: true,
        cleartext_auth: false,
        message_bytes: MESSAGE_BYTES,
        head_bytes,
        spill_bytes,
        recipients: RECIPIENTS,
        messages: 5,
        command_bytes: 512,
        auth_bytes: 1_024,
        line_bytes: 200,
        errors: 8,
        commands_before_login: 100,
        auth_failures: 3,
        auth_delay: Duration::from_secs(1),
        auth_delay_longest: Duration::from_secs(60),
        command_time_unauthenticated: Duration::from_secs(60),
        command_time: Duration::from_secs(300),
        data_time: Duration::from_secs(600),
        data_rate: 1,
        data_grace: Duration::from_secs(30),
    })
}

/// A client behind TLS that says `input` in one piece, and again cut at every `first octet + 1`
/// octets, and once more with its messages spilled at small thresholds: the conversation and the
/// messages must be the same, well-formed, and no message is taken without a login.
pub fn session(input: &[u8]) -> Depth {
    let Some((&first, octets)) = input.split_first() else { return Depth::default() };
    let first = usize::from(first);
    let (whole, messages, depth) = converse(octets, octets.len().max(1), terms(0, usize::MAX));
    let (cut, again, cut_depth) = converse(octets, first + 1, terms(0, usize::MAX));
    assert_eq!(whole, cut, "the conversation depends on how the octets were cut");
    assert_eq!(messages, again, "a message depends on how the octets were cut");
    assert_eq!(depth, cut_depth);
    let (head_bytes, spill_bytes) = (first % 16, first / 16);
    let (spilled, again, spilled_depth) = converse(octets, first % 32 + 1, terms(head_bytes, spill_bytes));
    assert_eq!(whole, spilled, "the conversation depends on what was spilled");
    assert_eq!(messages, again, "a message depends on what of it was spilled");
    assert_eq!(depth, Depth { spilled: 0, ..spilled_depth });
    let depth = spilled_depth;
    for line in whole.split_inclusive("\r\n") {
        assert!(line.ends_with("\r\n") && line.len() <= 512, "{line:?} is no reply line");
        let text = line.trim_end_matches("\r\n");
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?} is not printable");
        assert!(text.len() >= 4 && text.bytes().take(3).all(|b| b.is_ascii_digit()), "{line:?} has no code");
    }
    depth
}

/// What a client's shell and its world have seen.
#[derive(Default)]
struct World {
    granted: bool,
    /// What was spilled of the message that comes in.
    spilled: Vec<u8>,
    messages: Vec<Vec<u8>>,
    depth: Depth,
}

fn converse(octets: &[u8], cut: usize, terms: Arc<Terms>) -> (String, Vec<Vec<u8>>, Depth) {
    let start = Instant::now();
    let mut now = start;
    let mut session = Session::new(terms, true, now);
    let (mut said, mut world) = (String::new(), World::default());
    let mut chunks = octets.chunks(cut);
    // An input can make the session do only so much per octet; a machine that spins is a fault.
    for _ in 0..octets.len() * 4 + 1_000 {
        assert!(session.held_bytes() <= MESSAGE_BYTES + 512, "more held than a message may have");
        match session.step(now) {
            Step::Read => match chunks.next() {
                Some(chunk) => {
                    session.receive(chunk, now);
                    world.keep_spilled(&mut session);
                }
                None => {
                    session.lost();
                    world.depth.ended = true;
                }
            },
            Step::Wait => {
                now = session.deadline().expect("a wait has an end");
                session.expire(now);
            }
            Step::Write(bytes) => said.push_str(std::str::from_utf8(&bytes).expect("replies are text")),
            Step::Ask(question) => {
                let answer = world.answer(question);
                session.answer(answer, now);
            }
            Step::Secure => unreachable!("TLS is up from the start"),
            Step::Close => return (said, world.messages, world.depth),
        }
    }
    panic!("the session does not come to an end");
}

impl World {
    fn keep_spilled(&mut self, session: &mut Session) {
        if session.spilled_bytes() == 0 {
            self.spilled.clear();
        }
        if let Some(octets) = session.spill() {
            self.spilled.extend_from_slice(&octets);
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Authenticate { username, secret, .. } => {
                if username == "acme-app" && secret.expose() == b"open-sesame-open-sesame" {
                    self.granted = true;
                    Answer::Login(Ok(Arc::new(Login {
                        tenant: TenantId::parse("acme").expect("an id"),
                        credential: Username::parse("acme-app").expect("a username"),
                        stream: StreamId::parse("transactional").ok(),
                        secret_fingerprint: 1,
                    })))
                } else {
                    self.depth.refused += 1;
                    Answer::Login(Err(Refusal::permanent(535, (7, 8), "no")))
                }
            }
            Question::Sender { .. } => Answer::Path(Ok(())),
            Question::Recipient { forward_path, .. } => {
                if forward_path.local_part() == "suppressed" {
                    self.depth.refused += 1;
                    Answer::Path(Err(Refusal::permanent(550, (1, 1), "no")))
                } else {
                    Answer::Path(Ok(()))
                }
            }
            Question::Accept { envelope, data, .. } => {
                assert!(self.granted, "a message without a login");
                assert_eq!(data.spilled, self.spilled.len() as u64);
                let whole = [&data.head, self.spilled.as_slice(), &data.rest].concat();
                assert!(whole.len() <= MESSAGE_BYTES, "a message over the bound");
                assert!((1..=RECIPIENTS).contains(&envelope.forward_paths.len()));
                assert_lines(&whole);
                self.depth.spilled += usize::from(!self.spilled.is_empty());
                self.spilled.clear();
                self.messages.push(whole);
                self.depth.taken += 1;
                Answer::Accept(Ok(Receipt::one(Taken::by_ses("id".into()))))
            }
        }
    }
}

fn assert_lines(data: &[u8]) {
    assert!(data.is_empty() || data.ends_with(b"\r\n"), "the last line has no end");
    let mut last = b'\n';
    for (at, octet) in data.iter().enumerate() {
        match octet {
            0 => panic!("NUL"),
            b'\n' => assert_eq!(last, b'\r', "bare LF"),
            b'\r' => assert_eq!(data.get(at + 1), Some(&b'\n'), "bare CR"),
            _ => {}
        }
        last = *octet;
    }
}

// ---------------------------------------------------------------------------------------------

/// Mail data behind DATA, kept in memory and spilled, against a reader that is slow and obviously right.
pub fn data(input: &[u8]) -> Depth {
    let Some((&first, octets)) = input.split_first() else { return Depth::default() };
    let first = usize::from(first);
    let whole = DataBounds { message_bytes: MESSAGE_BYTES, line_bytes: 200, head_bytes: 0, spill_bytes: usize::MAX };
    let (read, none) = read_data(octets, first + 1, whole);
    let spilling = DataBounds { head_bytes: first % 16, spill_bytes: first / 16, ..whole };
    let (again, spilled) = read_data(octets, first % 64 + 1, spilling);
    assert_eq!(none, 0, "spilled without being told to");
    assert_eq!(read, again, "the message depends on what of it was spilled");
    let model = plain(octets);
    assert_eq!(read.is_some(), model.is_some(), "the end of the data was seen or missed wrongly");
    let (Some((consumed, message)), Some((end, text))) = (read, model) else {
        return Depth { ended: true, ..Depth::default() };
    };
    assert_eq!(consumed, end, "the data ends elsewhere");
    match message {
        Ok(message) => {
            assert_eq!(message, text);
            assert_lines(&message);
            Depth { taken: 1, spilled: usize::from(spilled > 0), ..Depth::default() }
        }
        Err(_) => {
            let clean = !text.contains(&0)
                && text.len() <= MESSAGE_BYTES
                && bare_free(&text)
                && text.split(|b| *b == b'\n').all(|line| line.len() < 200);
            assert!(!clean, "a message without fault was refused");
            Depth { refused: 1, ..Depth::default() }
        }
    }
}

/// How many octets belonged to mail data that has ended, and what it was.
type Ended = (usize, Result<Vec<u8>, Fault>);

/// What a reader makes of `octets`, and how many of them were spilled.
fn read_data(octets: &[u8], cut: usize, bounds: DataBounds) -> (Option<Ended>, usize) {
    let mut reader = MailData::new(bounds, None);
    let mut consumed = 0;
    let mut spilled = Vec::new();
    for chunk in octets.chunks(cut) {
        let (taken, end) = reader.take_dotted(chunk);
        consumed += taken;
        if end {
            let message = reader.finish().map(|message| {
                assert_eq!(message.spilled, spilled.len() as u64);
                [&message.head, spilled.as_slice(), &message.rest].concat()
            });
            return (Some((consumed, message)), spilled.len());
        }
        assert_eq!(taken, chunk.len(), "octets left although the data goes on");
        if let Some(more) = reader.spill() {
            spilled.extend_from_slice(&more);
        }
    }
    (None, spilled.len())
}

/// Where the data ends and what it says: line by line, as RFC 5321 4.5.2 has it.
fn plain(octets: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut text = Vec::new();
    let mut at = 0;
    let mut fresh = true;
    while at < octets.len() {
        if fresh && octets[at..].starts_with(b".\r\n") {
            return Some((at + 3, text));
        }
        if fresh && octets[at] == b'.' {
            at += 1;
            fresh = false;
            continue;
        }
        if octets[at..].starts_with(b"\r\n") {
            text.extend_from_slice(b"\r\n");
            at += 2;
            fresh = true;
            continue;
        }
        text.push(octets[at]);
        at += 1;
        fresh = false;
    }
    None
}

fn bare_free(text: &[u8]) -> bool {
    let cr = text.iter().filter(|b| **b == b'\r').count();
    let lf = text.iter().filter(|b| **b == b'\n').count();
    cr == lf && cr == text.windows(2).filter(|w| w == b"\r\n").count()
}

// ---------------------------------------------------------------------------------------------

/// Command lines: never a panic; an address that is taken is one that prints and reads back.
pub fn command(input: &[u8]) -> Depth {
    match command::parse(input) {
        Ok(found) => {
            match &found {
                command::Command::Rcpt(mailbox) => reads_back(mailbox),
                command::Command::Ehlo(name) | command::Command::Helo(name) => {
                    assert!(name.bytes().all(|b| (b'!'..=b'~').contains(&b)), "{name:?} cannot be shown");
                }
                _ => {}
            }
            Depth { taken: 1, ..Depth::default() }
        }
        Err(_) => Depth { refused: 1, ..Depth::default() },
    }
}

/// Mailboxes and domains.
pub fn mailbox(input: &[u8]) -> Depth {
    match Mailbox::parse(input) {
        Ok(mailbox) => {
            reads_back(&mailbox);
            assert!(mailbox.domain().is_within(mailbox.domain()));
            Depth { taken: 1, ..Depth::default() }
        }
        Err(_) => {
            let domain = std::str::from_utf8(input).ok().and_then(|text| Domain::parse(text).ok());
            if let Some(domain) = domain {
                assert_eq!(Domain::parse(domain.as_str()).as_ref(), Ok(&domain));
            }
            Depth { refused: 1, ..Depth::default() }
        }
    }
}

fn reads_back(mailbox: &Mailbox) {
    let text = mailbox.to_string();
    assert!(text.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'<' && b != b'>'), "{text:?}");
    assert_eq!(Mailbox::parse(text.as_bytes()).as_ref(), Ok(mailbox), "{text:?} does not read back");
}

// ---------------------------------------------------------------------------------------------

const LIMITS: HeaderLimits = HeaderLimits { bytes: 8_192, fields: 100, line: 998 };

/// A message: scanned, edited, and scanned again, nothing that must not leave is left, the body is
/// what it was, and a second edit changes nothing but the trace.
pub fn header(input: &[u8]) -> Depth {
    let message = Bytes::copy_from_slice(input);
    let Ok(section) = HeaderSection::scan(message.clone(), LIMITS) else {
        return Depth { refused: 1, ..Depth::default() };
    };
    let covered: usize = section.fields().iter().map(|field| field.span.len()).sum();
    assert!(covered <= input.len());
    for pair in section.fields().windows(2) {
        assert_eq!(pair[0].span.end, pair[1].span.start, "octets between two fields");
    }
    let _ = (section.hops(), section.message_id(), section.check_single(), section.wishes());
    if let Ok(originators) = section.originators() {
        assert!(!originators.claims.is_empty());
        originators.claims.iter().for_each(|(_, mailbox)| reads_back(mailbox));
    }
    let additions = Additions {
        trace: "Received: from client by relay.test; Fri, 01 May 2026 09:15:02 +0000\r\n",
        date: "Fri, 01 May 2026 09:15:02 +0000",
        message_id: "<1@relay.test>",
    };
    let edited = section.edit(&additions).to_vec();
    let body = body_of(&message);
    assert!(edited.ends_with(body), "the body changed");
    let wide = HeaderLimits { bytes: LIMITS.bytes * 2, fields: LIMITS.fields + 10, ..LIMITS };
    let again = HeaderSection::scan(edited.clone().into(), wide).expect("an edited message reads");
    for field in again.fields() {
        let name = String::from_utf8_lossy(&edited[field.name.clone()]).to_ascii_lowercase();
        let forbidden = ["bcc", "resent-bcc", "return-path", "dkim-signature"].contains(&name.as_str())
            || name.starts_with("x-ses-")
            || name.starts_with("x-bulkhead-");
        assert!(!forbidden, "{name} is still there");
    }
    Depth { taken: section.fields().len().max(1), ..Depth::default() }
}

fn body_of(message: &[u8]) -> &[u8] {
    if message.starts_with(b"\r\n") {
        return &message[2..];
    }
    message.windows(4).position(|w| w == b"\r\n\r\n").map_or(&[], |at| &message[at + 4..])
}

// ---------------------------------------------------------------------------------------------

/// Queue notices: never a panic, and what is read keeps its bounds.
pub fn event(input: &[u8]) -> Depth {
    use bulkhead::event::{Notice, parse};
    match parse(input) {
        Ok(notice) => {
            if let Notice::Event(event) = &notice {
                for recipient in event.fate.recipients().unwrap_or_default() {
                    assert!(recipient.given.chars().count() <= 320);
                    assert!(recipient.diagnostic.as_ref().is_none_or(|words| words.chars().count() <= 500));
                }
            }
            Depth { taken: 1, ..Depth::default() }
        }
        Err(why) => {
            assert!(why.0.chars().count() <= 300, "a reason as long as its cause");
            Depth { refused: 1, ..Depth::default() }
        }
    }
}
