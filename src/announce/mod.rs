//! Announcements: what has happened to a tenant's standing or to the account, for people and for
//! their programs.
//!
//! An [`Announcement`] is made once for each transition. Its row, under `announce/{id}`, goes into the
//! batch of the change it tells of ([`write()`]), and says who is still to be told: the tenant's
//! contact, the operator, the webhook. After the commit [`Announce::announce`] wakes whoever tells
//! them; what a crash left is taken up at the next start. So nobody is told of what was not
//! committed, and what was committed is told.
//!
//! - [`allowance`]: how many mails a recipient gets in an hour
//! - [`schedule`]: when which announcement is offered to the webhook
//!
//! these are pure machines;
//!
//! - [`letter`]: what a mail says
//! - [`webhook`]: what the webhook gets, and how it is signed
//!
//! Promises: a row fits the store whatever it is told. Refuses: nothing.
//! What can go wrong: a damaged row; it is told of and left to `store verify`.

pub mod allowance;
pub mod letter;
pub mod schedule;
pub mod webhook;

use serde::{Deserialize, Serialize};

use crate::mail::{MessageId, StreamId, TenantId, Username};
use crate::secret::Random;
use crate::store::{Batch, CommitError, If, Key, ReadError, Store, VALUE_BYTES, Versioned, record};
use crate::time::Timestamp;

/// Longest text of an announcement, in characters.
pub const TEXT: usize = 300;
/// Most figures, and most entries of each list.
pub const LIST: usize = 12;

/// What has happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// Which; one a transition.
    pub id: MessageId,
    /// When.
    pub at: Timestamp,
    /// Of what kind.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Whose; `None`: the account's, of which the operator alone is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Of which stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Of which credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Username>,
    /// What happened, in one sentence. Of a tenant's, as all that follows: nothing of any other
    /// tenant, for its contact reads it.
    pub headline: String,
    /// Label and value: `bounce rate, 24 h`, `6.2 % (31 of 500)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<(String, String)>,
    /// What goes on all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_works: Vec<String>,
    /// What somebody should do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_do: Vec<String>,
    /// When it ends by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clears: Option<Timestamp>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        /// What an announcement is about. A closed set: kinds are labels of metrics, and types of the
        /// webhook.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Its name in rows, log and metrics.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// A stream's rate is over its first limit.
    StreamWarned = "stream_warned",
    /// A stream is braked: it sends at half its rate.
    StreamSlowed = "stream_slowed",
    /// A stream is paused.
    StreamPaused = "stream_paused",
    /// A stream is as it was before.
    StreamResumed = "stream_resumed",
    /// A tenant's sum is over its first limit.
    TenantWarned = "tenant_warned",
    /// A tenant is left with its transactional streams.
    TenantRestricted = "tenant_restricted",
    /// All of a tenant's mail is paused.
    TenantPaused = "tenant_paused",
    /// A tenant is as it was before.
    TenantResumed = "tenant_resumed",
    /// The account nears the line at which SES reviews it.
    AccountWarned = "account_warned",
    /// SES reviews the account.
    AccountProbation = "account_probation",
    /// The account is past the line, or SES has paused it.
    AccountPaused = "account_paused",
    /// The account is as it was before.
    AccountResumed = "account_resumed",
    /// SES has changed the status of one of its tenants.
    SesTenantChanged = "ses_tenant_changed",
    /// A credential sends what it never used to send; nothing is held.
    CredentialSuspected = "credential_suspected",
    /// A credential is held: what it sends is not what it used to send.
    CredentialHeld = "credential_held",
    /// A credential may send again.
    CredentialReleased = "credential_released",
    /// Far more mail than usual, or far less.
    VolumeUnusual = "volume_unusual",
    /// A daily quota is nearly used up.
    QuotaNear = "quota_near",
    /// A daily quota is used up.
    QuotaReached = "quota_reached",
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Notice,
    /// Something should be done, before more happens.
    Warning,
    /// Mail is not sent.
    Alarm,
}

impl Severity {
    /// Its name in mails, log and webhook.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Alarm => "alarm",
        }
    }
}

impl Announcement {
    /// One of the moment `now`, about nobody yet, that says no more than its headline.
    pub fn new(now: Timestamp, random: &dyn Random, kind: Kind, severity: Severity, headline: &str) -> Self {
        Self {
            id: MessageId::new(now, random),
            at: now,
            kind,
            severity,
            tenant: None,
            stream: None,
            credential: None,
            headline: headline.into(),
            figures: Vec::new(),
            still_works: Vec::new(),
            to_do: Vec::new(),
            clears: None,
        }
    }

    /// The same with texts of at most `most` characters, each on one line, and lists of at most `list`
    /// entries.
    fn cut(&self, most: usize, list: usize) -> Self {
        let short = |text: &String| one_line(text, most);
        let shorter = |texts: &[String]| texts.iter().take(list).map(short).collect();
        Self {
            headline: short(&self.headline),
            figures: self.figures.iter().take(list).map(|(label, value)| (short(label), short(value))).collect(),
            still_works: shorter(&self.still_works),
            to_do: shorter(&self.to_do),
            ..self.clone()
        }
    }
}

/// Somebody's words on one line, cut.
fn one_line(text: &str, most: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    crate::store::audit::shortened(text.trim(), most)
}

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Audience {
    /// The tenant's contact, by mail.
    Contact,
    /// The operator, by mail.
    Operator,
    /// A program, by HTTP.
    Webhook,
}

impl Audience {
    /// Its name in the log and in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Operator => "operator",
            Self::Webhook => "webhook",
        }
    }
}

/// Who is still to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Left {
    /// The tenant's contact.
    pub contact: bool,
    /// The operator.
    pub operator: bool,
    /// The webhook.
    pub webhook: bool,
    /// How often it was offered to the webhook.
    #[serde(default)]
    pub offers: u32,
    /// When it is offered next.
    #[serde(default)]
    pub next_offer: Timestamp,
}

impl Left {
    /// Everybody whom an announcement may concern.
    fn all_of(announcement: &Announcement) -> Self {
        Self {
            contact: announcement.tenant.is_some(),
            operator: true,
            webhook: true,
            offers: 0,
            next_offer: announcement.at,
        }
    }

    /// Those who are left.
    pub fn audiences(&self) -> impl Iterator<Item = Audience> {
        [
            self.contact.then_some(Audience::Contact),
            self.operator.then_some(Audience::Operator),
            self.webhook.then_some(Audience::Webhook),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether nobody is.
    pub fn is_nobody(&self) -> bool {
        self.audiences().next().is_none()
    }

    /// That one has been told, or does not want to be.
    pub fn strike(&mut self, audience: Audience) {
        match audience {
            Audience::Contact => self.contact = false,
            Audience::Operator => self.operator = false,
            Audience::Webhook => self.webhook = false,
        }
    }
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What is told.
    pub announcement: Announcement,
    /// To whom still.
    pub left: Left,
}

impl Row {
    /// Its sealed form, with texts so short that it fits the store.
    fn seal(&self) -> bytes::Bytes {
        let (mut most, mut list) = (TEXT, LIST);
        loop {
            let sealed = record::seal(&Self { announcement: self.announcement.cut(most, list), left: self.left });
            if most == 0 || sealed.len() <= VALUE_BYTES {
                return sealed;
            }
            // Short entries of a full list say more than long ones of an empty one.
            most /= 2;
            if most < TEXT / 4 {
                list = list.div_ceil(2);
            }
        }
    }
}

/// Wakes whoever tells of announcements.
pub trait Announce: Send + Sync + 'static {
    /// To be called once after the commit of the batch that [`write()`] was called on. Never waits; what
    /// finds no room is found in the store.
    fn announce(&self, announcement: &Announcement);
}

/// Tells nobody: for commands without a relay, and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence;

impl Announce for Silence {
    fn announce(&self, _: &Announcement) {}
}

/// Adds the announcement to the batch of the change it tells of, with all that is to be done: one write.
pub fn write(batch: &mut Batch, announcement: &Announcement) {
    let row = Row { announcement: announcement.clone(), left: Left::all_of(announcement) };
    batch.put(Key::announcement(announcement.id), If::Absent, row.seal());
}

/// Writes an announcement of what is in the store already, or in no store.
pub async fn append(store: &dyn Store, announcement: &Announcement) -> Result<(), CommitError> {
    let mut batch = Batch::new();
    write(&mut batch, announcement);
    store.commit(batch).await.map(drop)
}

/// Writes who is left; where nobody is, the row goes. `version` is that of the row that was read.
/// Gives the row's new version.
pub async fn leave(store: &dyn Store, row: &Row, version: u64) -> Result<u64, CommitError> {
    let key = Key::announcement(row.announcement.id);
    let mut batch = Batch::new();
    if row.left.is_nobody() {
        batch.remove(key, If::At(version));
    } else {
        batch.put(key, If::At(version), row.seal());
    }
    store.commit(batch).await
}

/// The row of an announcement and its version; `None`: everybody has been told.
pub async fn find(store: &dyn Store, id: MessageId) -> Result<Option<(Row, u64)>, ReadError> {
    let key = Key::announcement(id);
    match store.get(&key).await? {
        Some(Versioned { value, version }) => Ok(Some((record::open(&key, &value)?, version))),
        None => Ok(None),
    }
}

/// What is in the store, oldest first, up to `limit` rows from after `after` on. A damaged row is its
/// fault.
pub async fn pending(
    store: &dyn Store,
    after: Option<MessageId>,
    limit: usize,
) -> Result<Vec<(Key, Result<(Row, u64), ReadError>)>, ReadError> {
    let after = after.map(Key::announcement);
    let rows = store.scan(&Key::announcements(), after.as_ref(), limit).await?;
    let opened = rows.into_iter().map(|(key, row)| {
        let opened = record::open(&key, &row.value).map(|opened| (opened, row.version));
        (key, opened)
    });
    Ok(opened.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    struct Sevens;

    impl Random for Sevens {
        fn fill(&self, into: &mut [u8]) {
            into.fill(7);
        }
    }

    fn paused() -> Announcement {
        let at = Timestamp::from_millis(1_777_000_000_000);
        Announcement {
            tenant: TenantId::parse("acme").ok(),
            stream: StreamId::parse("marketing").ok(),
            figures: vec![("bounce rate, 24 h".into(), "6.2 % (31 of 500)".into()), ("limit".into(), "5 %".into())],
            still_works: vec!["stream transactional".into()],
            to_do: vec!["remove addresses that bounced".into()],
            clears: Some(at.plus(std::time::Duration::from_hours(24))),
            ..Announcement::new(at, &Sevens, Kind::StreamPaused, Severity::Alarm, "Stream marketing was paused")
        }
    }

    #[tokio::test]
    async fn a_row_lives_until_everybody_is_told() {
        let store = MemoryStore::new();
        let announcement = paused();
        append(&store, &announcement).await.unwrap();
        assert!(append(&store, &announcement).await.is_err(), "once");
        let (mut row, mut version) = find(&store, announcement.id).await.unwrap().unwrap();
        assert_eq!(row.announcement, announcement);
        for (audience, left) in [(Audience::Operator, 2), (Audience::Webhook, 1), (Audience::Contact, 0)] {
            row.left.strike(audience);
            let before = version;
            version = leave(&store, &row, version).await.unwrap();
            assert_eq!(row.left.audiences().count(), left);
            assert_eq!(find(&store, announcement.id).await.unwrap().is_some(), left > 0);
            assert!(leave(&store, &row, before).await.is_err(), "an old version writes nothing");
        }
        // Nobody but the operator and the webhook hears of the account.
        let account = Announcement { tenant: None, ..paused() };
        append(&store, &account).await.unwrap();
        let (row, _) = find(&store, account.id).await.unwrap().unwrap();
        assert_eq!(row.left.audiences().collect::<Vec<_>>(), [Audience::Operator, Audience::Webhook]);
    }

    #[tokio::test]
    async fn a_row_fits_whatever_it_is_told() {
        let store = MemoryStore::new();
        let mut seen = 0;
        for text in ["x".repeat(5_000), "\u{1f980}".repeat(5_000), "\"\\".repeat(5_000), "\r\n\0x".repeat(5_000)] {
            for entries in [0, 1, LIST, 100] {
                let texts = vec![text.clone(); entries];
                let at = Timestamp::from_millis(1_777_000_000_000 + seen);
                let announcement = Announcement {
                    tenant: TenantId::parse(&"t".repeat(64)).ok(),
                    stream: StreamId::parse(&"s".repeat(64)).ok(),
                    credential: Username::parse(&"c".repeat(64)).ok(),
                    figures: texts.iter().map(|text| (text.clone(), text.clone())).collect(),
                    still_works: texts.clone(),
                    to_do: texts,
                    ..Announcement::new(at, &Sevens, Kind::StreamPaused, Severity::Alarm, &text)
                };
                append(&store, &announcement).await.unwrap();
                let (Row { announcement: kept, .. }, _) = find(&store, announcement.id).await.unwrap().unwrap();
                assert!(kept.headline.chars().count() > 10, "{}", kept.headline);
                assert!(!kept.headline.contains(['\r', '\n', '\0']));
                assert_eq!(kept.figures.is_empty(), entries == 0);
                assert_eq!(kept.to_do.is_empty(), entries == 0);
                seen += 1;
            }
        }
        assert_eq!(seen, 16);
        assert_eq!(pending(&store, None, 100).await.unwrap().len(), 16);
    }

    #[test]
    fn kinds_have_words_of_their_own() {
        let words: std::collections::BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{}\"", kind.word()));
        }
    }
}
