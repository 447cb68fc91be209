//! The dialogue files, run against the session in memory: each with the client's octets cut at every
//! point, octet by octet, command by command and in as few segments as there can be; always the same
//! conversation. And a generator that spoils good conversations, asserting how deep it got.

// A test says what it expects by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/dialogue.rs"]
mod support;

use std::path::{Path, PathBuf};

use bulkhead::smtp::Terms;
use support::{Act, Cut, Dialogue, PLAIN, Room, malformed, play, terms};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    files
}

#[test]
fn every_dialogue_is_the_same_however_it_is_segmented() {
    let files = files();
    assert!(files.len() >= 60, "{} files", files.len());
    let mut runs = 0;
    let mut failures = Vec::new();
    for file in &files {
        let dialogue = Dialogue::load(file);
        let octets: usize = dialogue.groups().iter().map(Vec::len).sum();
        let cuts = [Cut::Lines, Cut::Whole, Cut::Octets].into_iter().chain((0..=octets).map(Cut::At));
        for cut in cuts {
            runs += 1;
            if let Err(what) = play(&dialogue, cut) {
                failures.push(format!("{cut:?} {what}"));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(runs > 10_000, "{runs} runs");
}

#[test]
fn every_dialogue_says_what_it_promises() {
    for file in files() {
        let dialogue = Dialogue::load(&file);
        let name = &dialogue.name;
        assert!(dialogue.promise.ends_with('.') && dialogue.promise.len() > 20, "{name}: {}", dialogue.promise);
        assert!(dialogue.promise.contains("RFC") || dialogue.promise.contains("Ours"), "{name}: names no source");
        let checks = dialogue.acts.iter().filter(|(_, act)| matches!(act, Act::ReplyLine(_) | Act::Message(_)));
        assert!(checks.count() > 0, "{name}: checks nothing");
    }
}

/// A small generator of numbers (xorshift): the same rounds each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// A conversation that is right, as pieces that may be moved about.
fn good_conversation(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = vec![b"EHLO client.example\r\n".to_vec()];
    match dice.roll(3) {
        0 => pieces.push(format!("AUTH PLAIN {PLAIN}\r\n").into_bytes()),
        1 => pieces.extend([b"AUTH PLAIN\r\n".to_vec(), format!("{PLAIN}\r\n").into_bytes()]),
        _ => pieces.extend([
            b"AUTH LOGIN\r\n".to_vec(),
            b"YWNtZS1hcHA=\r\n".to_vec(),
            b"b3Blbi1zZXNhbWUtb3Blbi1zZXNhbWU=\r\n".to_vec(),
        ]),
    }
    for _ in 0..=dice.roll(2) {
        pieces.push(b"MAIL FROM:<app@acme.example> SIZE=100 BODY=8BITMIME\r\n".to_vec());
        for n in 0..=dice.roll(3) {
            pieces.push(format!("RCPT TO:<r{n}@dest.example>\r\n").into_bytes());
        }
        if dice.roll(2) == 0 {
            pieces.extend([b"DATA\r\n".to_vec(), b"Subject: a\r\n\r\n..b\r\n".to_vec(), b".\r\n".to_vec()]);
        } else {
            pieces.push(b"BDAT 14\r\nSubject: a\r\n\r\n".to_vec());
            pieces.push(b"BDAT 5 LAST\r\n.b.\r\n".to_vec());
        }
    }
    pieces.push(b"QUIT\r\n".to_vec());
    pieces
}

/// Spoils a conversation in one way: a piece dropped, doubled, moved, cut or replaced, an octet
/// dropped, changed or added.
fn spoil(pieces: &mut Vec<Vec<u8>>, dice: &mut Dice) {
    const ODD: [&[u8]; 16] = [
        b"\r",
        b"\n",
        b"\0",
        b".",
        b" ",
        b"\r\n",
        b"\r\n.\r\n",
        b"\n.\n",
        b"\xff",
        b"=",
        b"<",
        b">",
        b"LAST",
        b"STARTTLS\r\n",
        b"BDAT 3\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
    ];
    let at = dice.roll(pieces.len());
    match dice.roll(8) {
        0 if pieces.len() > 1 => drop(pieces.remove(at)),
        1 => pieces.insert(at, pieces[at].clone()),
        2 => {
            let other = dice.roll(pieces.len());
            pieces.swap(at, other);
        }
        3 => {
            let keep = dice.roll(pieces[at].len() + 1);
            pieces[at].truncate(keep);
        }
        4 => pieces.insert(at, ODD[dice.roll(ODD.len())].to_vec()),
        5 => {
            let place = dice.roll(pieces[at].len() + 1);
            pieces[at].splice(place..place, ODD[dice.roll(ODD.len())].iter().copied());
        }
        6 if !pieces[at].is_empty() => {
            let place = dice.roll(pieces[at].len());
            pieces[at][place] = u8::try_from(dice.roll(256)).unwrap();
        }
        _ => pieces[at].extend(vec![b'x'; dice.roll(3000)]),
    }
}

#[test]
fn spoiled_conversations_never_break_a_promise() {
    const ROUNDS: usize = 20_000;
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut accepted, mut refused, mut cut_off, mut quit, mut spills) = (0, 0, 0, 0, 0);
    for round in 0..ROUNDS {
        let mut pieces = good_conversation(&mut dice);
        for _ in 0..dice.roll(4) {
            spoil(&mut pieces, &mut dice);
        }
        let octets = pieces.concat();
        let secure = dice.roll(8) > 0;
        let listener = if secure { "implicit" } else { "starttls" };
        let (segment, other) = (1 + dice.roll(200), 1 + dice.roll(60));
        let first = converse(&terms(listener), listener, &octets, segment);
        let again = converse(&terms(listener), listener, &octets, other);
        let (head_bytes, spill_bytes) = (dice.roll(20), dice.roll(30));
        let spilling = Terms { head_bytes, spill_bytes, ..terms(listener) };
        let third = converse(&spilling, listener, &octets, other);
        assert_eq!((&first.said, &first.messages), (&third.said, &third.messages), "round {round}: spilled");
        spills += third.spills;
        assert_eq!(first.said, again.said, "round {round}: {:?}", String::from_utf8_lossy(&octets));
        assert_eq!(first.messages, again.messages, "round {round}");
        assert_eq!(malformed(&first.said), None, "round {round}");
        if !secure {
            assert_eq!((first.logins, first.messages.len()), (0, 0), "round {round}");
        }
        accepted += first.messages.len();
        refused += first.said.split("\r\n").filter(|line| line.starts_with('5')).count();
        match first.session.ending() {
            Some(bulkhead::smtp::session::Ending::Quit) => quit += 1,
            Some(_) => cut_off += 1,
            None => {}
        }
    }
    println!("{accepted} accepted, {refused} refused, {cut_off} cut off, {quit} quit, {spills} spills");
    assert!(accepted > 10_000, "{accepted} accepted");
    assert!(refused > 5_000, "{refused} refused");
    assert!(cut_off > 500, "{cut_off} cut off");
    assert!(quit > 5_000, "{quit} quit");
    assert!(spills > 10_000, "{spills} spills");
}

fn converse(terms: &Terms, listener: &str, octets: &[u8], segment: usize) -> Room {
    let mut room = Room::new(terms, listener == "implicit");
    room.run();
    for part in octets.chunks(segment) {
        room.hear(part);
        assert!(room.session.held_bytes() <= 2000, "{} octets are held", room.session.held_bytes());
        // A refused login is told of when its delay is over.
        while room.stopped == Some("wait") {
            room.now = room.session.deadline().unwrap();
            room.session.expire(room.now);
            room.run();
        }
    }
    assert!(room.largest_write <= 64 * 512 * 8, "{} octets in a write", room.largest_write);
    assert_eq!(room.said.matches("250 2.0.0 Ok ses-").count(), room.messages.len());
    room
}
