//! The row of a held message: what the dispatcher and an operator need without reading its body.
//!
//! A row lies under `outbox/{node}/{tenant}/{stream}/{due}/{id}`, so that a range of the store is a
//! lane in the order it is due. `due` is when it may be tried next; while it is leased, when the
//! lease ends. What the row says of recipients is their [`Progress`]; the recipients themselves are
//! in the body file, for a row stays under 4 KB.

use serde::{Deserialize, Serialize};

use super::body::{Manifest, Told};
use super::cause::Cause;
use super::progress::Progress;
use crate::mail::{MessageId, SessionId, StreamId, TenantId};
use crate::store::Key;
use crate::time::Timestamp;

/// Longest words of SES's, and addresses, that a row keeps, in octets.
const WORDS: usize = 160;

/// Mail that waits in one line: a tenant's stream, or the relay's own reports about a tenant's mail.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane {
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream; `None`: the relay's own reports.
    pub stream: Option<StreamId>,
}

/// What a row holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When its data had come in.
    pub created: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// Octets of the message.
    pub bytes: u64,
    /// Attempts begun, the one before it was held not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Calls whose outcome never came to be known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u32,
    /// An attempt is under way, or was when the process ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leased: bool,
    /// Why it waits.
    pub cause: Cause,
    /// SES's words, cut.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// What became of each recipient.
    pub progress: Progress,
    /// The connection it came by: its messages to one recipient go in order.
    pub session: SessionId,
    /// The reverse-path, for lists.
    pub from: String,
    /// The first recipient, for lists.
    pub to: String,
    /// What a client that sends it again is known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Entry {
    /// The row of a message that begins to be held.
    pub fn new(manifest: &Manifest, bytes: u64, progress: Progress, cause: Cause, words: &str) -> Self {
        Self {
            created: manifest.created,
            expires: manifest.expires,
            bytes,
            attempts: 0,
            unknown: 0,
            leased: false,
            cause,
            words: plain(words),
            progress,
            session: manifest.session,
            from: plain(&manifest.reverse_path.to_string()),
            to: manifest.recipients.first().map_or_else(String::new, |to| plain(&to.to_string())),
            digest: manifest.digest.clone(),
        }
    }

    /// The row of a message that is taken up again out of its file: it may have been sent before.
    pub fn again(told: &Told) -> Self {
        let Told { manifest, progress, bytes } = told;
        let words = "taken up again out of its file";
        Self { unknown: 1, ..Self::new(manifest, *bytes, progress.clone(), Cause::Unknown, words) }
    }

    /// Says anew why it waits.
    pub fn because(&mut self, cause: Cause, words: &str) {
        self.cause = cause;
        self.words = plain(words);
    }
}

impl Lane {
    /// The lane of a message.
    pub fn of(manifest: &Manifest) -> Self {
        Self { tenant: manifest.tenant.clone(), stream: manifest.stream.clone() }
    }

    /// The key of a row of this lane.
    pub fn key(&self, node: &str, due: Timestamp, id: MessageId) -> Key {
        Key::outbox(node, &self.tenant, self.stream.as_ref(), due, id)
    }

    /// What a row's key says. `None` for a key that [`key`](Self::key) would not make of it.
    pub fn of_key(key: &Key) -> Option<(Self, Timestamp, MessageId)> {
        let parts = key.parts()?;
        let ["outbox", node, tenant, stream, due, id] = parts.as_slice() else { return None };
        let stream = if stream.is_empty() { None } else { Some(StreamId::parse(stream).ok()?) };
        let lane = Self { tenant: TenantId::parse(tenant).ok()?, stream };
        let due = Timestamp::from_millis(u64::from_str_radix(due, 16).ok()?);
        let id = MessageId::parse(id)?;
        (lane.key(node, due, id) == *key).then_some((lane, due, id))
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.stream {
            Some(stream) => write!(f, "{}/{stream}", self.tenant),
            None => write!(f, "{} (reports)", self.tenant),
        }
    }
}

/// Printable US-ASCII, cut.
pub(super) fn plain(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(WORDS).map(printable).collect()
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Mailbox, ReversePath, SessionId, Username};
    use crate::outbox::progress::Mark;
    use crate::store::{VALUE_BYTES, record};

    fn manifest(from: &str, to: Vec<Mailbox>) -> Manifest {
        Manifest {
            id: MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap(),
            session: SessionId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAW").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            stream: Some(StreamId::parse("news").unwrap()),
            credential: Username::parse("app").unwrap(),
            reverse_path: ReversePath::Mailbox(mailbox(from)),
            recipients: to,
            claims: Vec::new(),
            tags: Vec::new(),
            created: Timestamp::from_millis(1_777_000_000_000),
            expires: Timestamp::from_millis(1_777_345_600_000),
            digest: None,
        }
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text.as_bytes()).unwrap()
    }

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_rows() {
        let manifest = manifest("bounce@acme.example", vec![mailbox("joe@b.example"), mailbox("eva@b.example")]);
        let fresh = Entry::new(&manifest, 1000, Progress::none(2), Cause::Handoff, "");
        let json = concat!(
            r#"{"created":1777000000000,"expires":1777345600000,"bytes":1000,"cause":"handoff","#,
            r#""progress":"..","session":"01ARZ3NDEKTSV4RRFFQ69G5FAW","from":"bounce@acme.example","to":"joe@b.example"}"#
        );
        assert_eq!(serde_json::to_string(&fresh).unwrap(), json);
        assert_eq!(serde_json::from_str::<Entry>(json).unwrap(), fresh);
        let mut progress = Progress::none(2);
        progress.mark(1, Mark::Taken);
        let mut tried = Entry { attempts: 3, unknown: 1, leased: true, progress, digest: Some("00ff".into()), ..fresh };
        tried.because(Cause::Throttled, "Maximum sending rate exceeded.\r\n\u{e9}\0");
        let json = concat!(
            r#"{"created":1777000000000,"expires":1777345600000,"bytes":1000,"attempts":3,"unknown":1,"leased":true,"#,
            r#""cause":"throttled","words":"Maximum sending rate exceeded.????","progress":".t","#,
            r#""session":"01ARZ3NDEKTSV4RRFFQ69G5FAW","from":"bounce@acme.example","to":"joe@b.example","digest":"00ff"}"#
        );
        assert_eq!(serde_json::to_string(&tried).unwrap(), json);
        assert_eq!(serde_json::from_str::<Entry>(json).unwrap(), tried);
    }

    #[test]
    fn what_is_taken_up_again_counts_as_unknown() {
        let manifest = manifest("bounce@acme.example", vec![mailbox("joe@b.example")]);
        let told = Told { manifest, progress: Progress::none(1), bytes: 7 };
        let again = Entry::again(&told);
        assert_eq!((again.unknown, again.cause, again.leased, again.bytes), (1, Cause::Unknown, false, 7));
    }

    /// The most recipients that the settings allow, the longest addresses, each octet of the words
    /// and of the local parts one that JSON writes as two.
    #[test]
    fn the_longest_row_is_short_enough_for_every_store() {
        let address = format!("\"{}\"@{}", "\\\"".repeat(31), "b234567.".repeat(22) + "c2345.example");
        assert!(address.len() > 250);
        let mut manifest = manifest(&address, vec![mailbox(&address); 1000]);
        manifest.digest = Some("f".repeat(64));
        let mut entry = Entry::new(&manifest, u64::MAX, Progress::none(1000), Cause::SetMissing, &"\"".repeat(9000));
        entry.created = Timestamp::from_millis(u64::MAX);
        entry.expires = entry.created;
        (entry.attempts, entry.unknown, entry.leased) = (u32::MAX, u32::MAX, true);
        let sealed = record::seal(&entry);
        assert!((1900..VALUE_BYTES).contains(&sealed.len()), "{}", sealed.len());
        assert_eq!((entry.words.len(), entry.to.len()), (WORDS, WORDS));
    }

    #[test]
    fn a_key_says_lane_moment_and_message() {
        let id = MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
        let tenant = TenantId::parse("acme").unwrap();
        for stream in [None, Some(StreamId::parse("news").unwrap())] {
            let lane = Lane { tenant: tenant.clone(), stream };
            for due in [0, 1, 0x19_9abc, u64::MAX].map(Timestamp::from_millis) {
                let key = lane.key("main", due, id);
                assert_eq!(Lane::of_key(&key), Some((lane.clone(), due, id)));
            }
        }
        let lane = Lane { tenant: tenant.clone(), stream: None };
        assert_eq!(lane.to_string(), "acme (reports)");
        assert_eq!(Lane { stream: Some(StreamId::parse("news").unwrap()), ..lane }.to_string(), "acme/news");
    }

    #[test]
    fn a_key_of_another_form_names_no_message() {
        let whole = "outbox\0main\0acme\0news\x000000000000000001\x0001ARZ3NDEKTSV4RRFFQ69G5FAV\0";
        assert!(Lane::of_key(&Key::from_octets(whole.as_bytes().to_vec())).is_some());
        for (old, new) in [
            ("outbox", "outbux"),
            ("acme", "Acme"),
            ("acme", ""),
            ("news", "n_s"),
            ("0000000000000001", "1"),
            ("0000000000000001", "000000000000000A"),
            ("0000000000000001", "+000000000000001"),
            ("0000000000000001", "00000000000000001"),
            ("5FAV\0", "5FAV"),
            ("5FAV", "5FA"),
            ("5FAV", "5fav"),
            ("5FAV\0", "5FAV\0more\0"),
            ("main\0", ""),
        ] {
            let key = Key::from_octets(whole.replace(old, new).into_bytes());
            assert_eq!(Lane::of_key(&key), None, "{old} {new}");
        }
    }
}
