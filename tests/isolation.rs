//! What one tenant may try against another, each attempt by its name: bravo, with every header
//! trick, parameter and credential it has, against acme's domain, sets, tags, suppressions and
//! standing.
//!
//! Everything is real but the network and SES's inside: TLS, the AWS SDK, the store on sled, ingest
//! on a queue. After each attempt the same is held against all that SES got (see [`clean`]),
//! so that an attempt that passes is judged by what left and not by what was said. Attempts named
//! `allowed: …` are the positive controls of their family. The manual's page `attacks` has the same
//! list, which the last test compares.

// In the helpers of the tests, which clippy's leave for tests does not reach.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "isolation/attempts.rs"]
mod attempts;
#[path = "support/house.rs"]
mod house;
#[path = "support/relay.rs"]
mod support;

use attempts::{DEEDS, LETTERS, Letter, SENT};
use bulkhead::sandbox::inbox::Message;
use house::{House, Plan, SECRET};
use support::{Client, code, journal};

/// Addresses that no letter is for: whoever is written to here was written to by a trick.
const HIDDEN: &str = "hidden@dest.example";
/// The addresses of every envelope of [`LETTERS`].
const TO: [&str; 2] = ["joe@dest.example", "ann@dest.example"];

#[tokio::test(flavor = "multi_thread")]
async fn no_letter_of_bravos_is_acmes() {
    let house = House::build(Plan::named("acme", "bravo")).await;
    let (mut passed, mut refused) = (0, 0);
    let mut surprises = Vec::new();
    for letter in LETTERS {
        let before = house.inbox.all().len();
        let (reply, stage, peer) = post(&house, &letter).await;
        let got = house.since(before);
        if !reply.starts_with(letter.reply) {
            surprises.push(format!("{}: {} expected, {stage}: {reply}", letter.name, letter.reply));
            continue;
        }
        // What was refused left nothing; what passed left a call for each recipient and no more.
        let expected: &[&str] = if letter.reply == SENT { &TO } else { &[] };
        let mut to: Vec<&str> = got.iter().flat_map(|message| &message.destination).map(String::as_str).collect();
        to.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(to, expected, "{}", letter.name);
        for message in &got {
            clean(letter.name, message);
            let set = letter.set.unwrap_or("bravo-transactional");
            assert_eq!(message.configuration_set.as_deref(), Some(set), "{}", letter.name);
            if let Some(kept) = letter.kept {
                let text = String::from_utf8_lossy(&message.raw);
                assert!(text.contains(kept), "{}: no {kept:?} in {text}", letter.name);
            }
        }
        // Bad syntax in a command is nobody's decision; all else has its one line, and it is bravo's.
        let mut lines = journal().all("peer", &peer);
        lines.retain(|line| VERDICTS.iter().any(|event| line["event"] == *event));
        let broken = ["501 5.", "555 5."];
        let judged = usize::from(!broken.iter().any(|syntax| reply.starts_with(syntax)));
        assert_eq!(lines.len(), judged, "{}: {lines:?}", letter.name);
        assert!(lines.iter().all(|line| line["tenant"] == "bravo"), "{}: {lines:?}", letter.name);
        if letter.reply == SENT { passed += 1 } else { refused += 1 }
    }
    assert!(surprises.is_empty(), "{}", surprises.concat());
    assert!(passed >= 20 && refused >= 80, "{passed} passed, {refused} refused");
}

/// The lines that say what became of a letter.
const VERDICTS: [&str; 4] = ["sender_refused", "message_refused", "message_queued", "message_relayed"];

/// One letter by bravo; the reply that decided, where it came, and the client's address.
async fn post(house: &House, letter: &Letter) -> (String, &'static str, String) {
    let mut client = house.login(letter.credential, SECRET).await;
    let peer = client.local.to_string();
    let reply = client.say(&format!("MAIL FROM:{}", letter.mail)).await;
    if code(&reply) != 250 {
        return (reply, "at MAIL", peer);
    }
    for to in TO {
        let reply = client.say(&format!("RCPT TO:<{to}>")).await;
        assert_eq!(code(&reply), 250, "{}: {reply}", letter.name);
    }
    assert_eq!(code(&client.say("DATA").await), 354);
    let header = letter.header;
    let from = if header[..4].eq_ignore_ascii_case("from") { "" } else { "From: app@bravo.example\r\n" };
    client.write(format!("{from}{header}\r\n\r\nbody\r\n.\r\n").as_bytes()).await;
    let reply = client.reply().await;
    let still = client.say("NOOP").await;
    assert_eq!(code(&still), 250, "{}: the conversation is in step: {still}", letter.name);
    (reply, "after DATA", peer)
}

/// What must be true of anything bravo sends: its own domain alone is the author, its own set and
/// tags, no word to SES, nobody hidden.
fn clean(name: &str, message: &Message) {
    let text = String::from_utf8_lossy(&message.raw).into_owned();
    let section = text.split_once("\r\n\r\n").unwrap().0;
    assert!(!section.contains(['\0']), "{name}");
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in section.split("\r\n") {
        assert!(!line.contains(['\r', '\n']), "{name}: {line:?}");
        if line.starts_with([' ', '\t']) {
            fields.last_mut().unwrap().1.push_str(line);
        } else {
            let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line:?} is no field"));
            fields.push((field.trim_end_matches([' ', '\t']).to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    for (field, value) in &fields {
        let speaks = field.starts_with("x-ses") || field.starts_with("x-bulkhead");
        let hides = ["bcc", "resent-bcc", "return-path", "dkim-signature"].contains(&field.as_str());
        assert!(!speaks && !hides, "{name}: {field} left: {section}");
        assert!(!value.contains(HIDDEN) || field == "subject", "{name}: {section}");
    }
    assert_eq!(fields.iter().filter(|(field, _)| field == "from").count(), 1, "{name}: {section}");
    for (field, value) in &fields {
        if ["from", "sender", "resent-from", "resent-sender"].contains(&field.as_str()) {
            for author in authors(value) {
                let domain = author.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase();
                let ours = ["bravo.example", "vendor.example"].iter();
                let own = ours.clone().any(|own| domain == **own || domain.ends_with(&format!(".{own}")));
                assert!(own, "{name}: {field} is {author}");
            }
        }
    }
    let tags = |name: &str| -> Vec<&str> {
        message.tags.iter().filter(|(tag, _)| tag.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(tags("tenant"), ["bravo"], "{name}");
    assert_eq!(tags("stream").len(), 1, "{name}");
    assert_eq!(tags("credential").len(), 1, "{name}");
    assert!(tags("credential")[0].starts_with("bravo-"), "{name}");
    assert!(message.tags.iter().all(|(tag, _)| !tag.contains(':')), "{name}: {:?}", message.tags);
    let set = message.configuration_set.as_deref().unwrap();
    assert!(set.starts_with("bravo-") && set.ends_with(tags("stream")[0]), "{name}: {set}");
    assert_eq!(message.tenant_name, None, "{name}");
}

/// Who a reader would show: mail-parser's reading, which is not the relay's own.
fn authors(value: &str) -> Vec<String> {
    let field = format!("From: {value}\r\n\r\n");
    let message = mail_parser::MessageParser::new().parse(field.as_bytes()).unwrap();
    let authors: Vec<String> =
        message.from().unwrap().iter().filter_map(|one| one.address().map(ToOwned::to_owned)).collect();
    assert!(!authors.is_empty(), "{value}");
    authors
}

#[tokio::test(flavor = "multi_thread")]
async fn no_deed_of_bravos_touches_acme() {
    let house = House::build(Plan::named("acme", "bravo")).await;
    for (name, deed) in DEEDS {
        let before = house.inbox.all().len();
        tokio::time::timeout(support::PATIENCE, deed(&house)).await.unwrap_or_else(|_| panic!("{name} takes too long"));
        for message in house.since(before) {
            if message.tag("tenant") != Some("acme") {
                clean(name, &message);
            } else {
                let credential = message.tag("credential").unwrap();
                assert!(credential.starts_with("acme-"), "{name}: {credential} sent as acme");
            }
        }
        house.restore();
    }
}

#[test]
fn the_manual_lists_every_attempt() {
    let manual = include_str!("../src/manual/attacks.md");
    let rows = manual.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{line}");
        assert!(cells[1].len() > 10, "{line}: what stops it");
        (cells[0].trim_matches('`').to_owned(), cells[2].trim_matches('`').to_owned())
    });
    let rows: Vec<(String, String)> = rows.collect();
    let letters = LETTERS.iter().map(|letter| (letter.name, "no_letter_of_bravos_is_acmes"));
    let deeds = DEEDS.iter().map(|(name, _)| (*name, "no_deed_of_bravos_touches_acme"));
    let expected: Vec<(String, String)> =
        letters.chain(deeds).map(|(name, test)| (name.to_owned(), test.to_owned())).collect();
    assert_eq!(rows, expected);
    let names: std::collections::BTreeSet<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), rows.len(), "each has a name of its own");
    let attempts = rows.iter().filter(|(name, _)| !name.starts_with("allowed: ")).count();
    assert!(attempts >= 90, "{attempts} attempts");
    let allowed = rows.len() - attempts;
    assert!(allowed >= 14, "{allowed} controls");
}

/// A client that has only connected, for attempts before TLS.
async fn plain(house: &House) -> Client {
    Client::plain(house.starttls).await
}
