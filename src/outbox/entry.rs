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
use crate::mail::{MessageId, StreamId, TenantId};
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
fn plain(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(WORDS).map(printable).collect()
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}
