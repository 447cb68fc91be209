//! Telling people: the mails and the webhook of [announcements](crate::announce).
//!
//! The rows in the store are what is to be told; [`Service`] knows them by heart, is woken by its
//! [`Bell`], and does whatever is due: a mail is held in the [outbox](crate::outbox) as the relay's own
//! reports are, so that no pause keeps it; an offer to the webhook is made in a task of its own. Each
//! part that is done is struck off the row before the next begins.
//!
//! Promises: what was written is told, over restarts, within [`AGE`]; what is not is logged as
//! `announcement_lost`. A contact gets mail about its own tenant alone. No recipient gets more mails in
//! an hour than the setting says; what is over comes in one. A crash may tell somebody twice, never
//! not at all. Those who are not to be told, for there is no contact, no operator, no sender or no
//! webhook, are struck off at once.
//! Bounds: [`Options::pending`] announcements, the oldest give way; [`QUEUE`] that were rung for and not looked
//! at, behind which the store is read instead; [`schedule::AT_ONCE`](crate::announce::schedule::AT_ONCE)
//! offers.
//! What can go wrong: the outbox is full or the store does not work; then it is tried again after
//! [`PAUSE`]. The webhook does not answer; see [`schedule`](crate::announce::schedule).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::announce::allowance::{Allowance, share};
use crate::announce::letter::{self, Compose, Letter, Reader};
use crate::announce::schedule::{Schedule, Step};
use crate::announce::webhook::{Answer, Post, Signer};
use crate::announce::{self, Announce, Announcement, Audience, Row};
use crate::journal::{self, Told};
use crate::mail::{Mailbox, MessageId, ReversePath, SessionId, TenantId, Username};
use crate::outbox::{Cause, Content, Holding, Manifest, Outbox, Progress, Start};
use crate::secret::Random;
use crate::store::directory::Current;
use crate::store::{Batch, If, Key, Store};
use crate::time::{Clock, Timestamp};

/// Announcements that were rung for and not looked at yet.
pub const QUEUE: usize = 1_000;
/// How long it is tried to tell somebody of an announcement.
pub const AGE: Duration = Duration::from_secs(3 * 24 * 3600);
/// How long is waited after the outbox or the store said no.
pub const PAUSE: Duration = Duration::from_secs(60);
/// How long a mail is tried.
const MAIL_AGE: Duration = Duration::from_secs(24 * 3600);
/// Rows of one scan.
const SCANNED: usize = 500;
/// Announcements that are remembered as told to all, whose bell may ring late.
const REMEMBERED: usize = 2 * QUEUE;
/// How long it sleeps at most, so that a clock that was set is noticed.
const NAP: Duration = Duration::from_secs(60);
/// The tenant in whose name the relay's own mail is held: nobody's, so that no tenant's full outbox
/// keeps news of it from anybody.
const NOBODY: &str = "-";

/// What it works with.
pub struct Means {
    /// What is to be told.
    pub store: Arc<dyn Store>,
    /// What mails are held in.
    pub outbox: Arc<Outbox>,
    /// The tenants' contacts.
    pub directory: Current,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and jitter.
    pub random: Arc<dyn Random>,
    /// Makes mails.
    pub compose: Compose,
    /// The webhook; `None`: there is none.
    pub webhook: Option<Webhook>,
}

/// A program that is told.
pub struct Webhook {
    /// The way to it.
    pub post: Arc<dyn Post>,
    /// Signs what goes there.
    pub signer: Signer,
}

/// How it is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our name.
    pub hostname: String,
    /// The sender of mails; `None`: there are none.
    pub from: Option<Mailbox>,
    /// Who is mailed of everything.
    pub operator: Option<Mailbox>,
    /// Mails a recipient gets in an hour at the most.
    pub mails_per_hour: usize,
    /// Most announcements that are still to be told to somebody.
    pub pending: usize,
}

/// Wakes the [`Service`].
#[derive(Clone, Debug)]
pub struct Bell {
    queue: mpsc::Sender<MessageId>,
    missed: Arc<AtomicBool>,
}

impl Announce for Bell {
    fn announce(&self, announcement: &Announcement) {
        // Its row is in the store: where the queue is full, the store is read.
        if self.queue.try_send(announcement.id).is_err() {
            self.missed.store(true, Ordering::Release);
        }
    }
}

/// Tells people.
pub struct Service {
    means: Means,
    options: Options,
    queue: mpsc::Receiver<MessageId>,
    missed: Arc<AtomicBool>,
    pending: BTreeMap<MessageId, Waiting>,
    allowance: Allowance,
    schedule: Schedule,
    offers: JoinSet<(MessageId, Answer, Duration)>,
    /// Told to all, the newest last.
    told: VecDeque<MessageId>,
    /// Damaged rows that were told of.
    damaged: std::collections::BTreeSet<Key>,
    /// No mail is tried before this moment.
    no_mail_before: Timestamp,
    /// The store is not asked before this moment.
    no_store_before: Timestamp,
}

/// An announcement that somebody is still to be told of.
struct Waiting {
    row: Row,
    version: u64,
    /// The row in the store says less than this one: it could not be written.
    unwritten: bool,
}

impl Service {
    /// Nothing happens before [`run`](Self::run) or [`turn`](Self::turn).
    pub fn new(means: Means, options: Options) -> (Bell, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        // What was left is in the store.
        let missed = Arc::new(AtomicBool::new(true));
        if means.webhook.is_some() {
            journal::webhook_enabled();
        }
        let service = Self {
            allowance: Allowance::new(options.mails_per_hour),
            means,
            options,
            queue,
            missed: Arc::clone(&missed),
            pending: BTreeMap::new(),
            schedule: Schedule::default(),
            offers: JoinSet::new(),
            told: VecDeque::new(),
            damaged: std::collections::BTreeSet::new(),
            no_mail_before: Timestamp::default(),
            no_store_before: Timestamp::default(),
        };
        (Bell { queue: sender, missed }, service)
    }

    /// Tells until `drain` is cancelled; then mails what was rung for are still held. Offers under way are
    /// abandoned, and made again after the next start.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut open = true;
        loop {
            let next = self.turn().await;
            let nap = next.map_or(NAP, |next| next.since(self.means.clock.now()).min(NAP));
            tokio::select! {
                () = drain.cancelled() => return self.end().await,
                id = self.queue.recv(), if open => match id {
                    Some(id) => self.take_up(id).await,
                    None => open = false,
                },
                Some(answered) = self.offers.join_next() => if let Ok((id, answer, took)) = answered {
                    self.answered(id, &answer, took).await;
                },
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    async fn end(&mut self) {
        while let Ok(id) = self.queue.try_recv() {
            self.take_up(id).await;
        }
        let now = self.means.clock.now();
        if now >= self.no_mail_before {
            self.mail(now).await;
        }
    }

    /// Does all that is due now; gives when to look again, if nothing wakes it before.
    pub async fn turn(&mut self) -> Option<Timestamp> {
        let now = self.means.clock.now();
        while let Ok(id) = self.queue.try_recv() {
            self.take_up(id).await;
        }
        if now >= self.no_store_before {
            if self.missed.swap(false, Ordering::AcqRel) {
                self.take_up_all().await;
            }
            self.write_again().await;
        }
        self.give_up_old(now).await;
        if now >= self.no_mail_before {
            self.mail(now).await;
        }
        self.offer(now);
        journal::announcements_pending(self.pending.len());
        self.next(now)
    }

    /// Waits for the answers to all offers under way, and does what follows from them.
    pub async fn settle(&mut self) {
        while let Some(answered) = self.offers.join_next().await {
            if let Ok((id, answer, took)) = answered {
                self.answered(id, &answer, took).await;
            }
        }
    }

    /// How many announcements are still to be told to somebody.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let store = (self.missed.load(Ordering::Acquire) || self.pending.values().any(|one| one.unwritten))
            .then_some(self.no_store_before);
        let mails = self.mailboxes().keys().map(|(to, _)| self.allowance.next(&to.folded(), now)).min();
        let mails = mails.map(|room| room.max(self.no_mail_before));
        let old = self.pending.values().next().map(|one| one.row.announcement.at.plus(AGE));
        store.into_iter().chain(mails).chain(old).chain(self.schedule.next()).min()
    }

    // -----------------------------------------------------------------------------------------
    // What is to be told

    async fn take_up(&mut self, id: MessageId) {
        if self.pending.contains_key(&id) || self.told.contains(&id) {
            return;
        }
        match announce::find(&*self.means.store, id).await {
            Ok(Some((row, version))) => self.add(row, version).await,
            Ok(None) => {
                let told = Told { id, kind: "unknown", tenant: None, stream: None };
                journal::announcement_lost(told, "all", "it was not written to the store");
            }
            Err(error) => self.trouble(&error.to_string()),
        }
    }

    async fn take_up_all(&mut self) {
        let mut after = None;
        loop {
            let rows = match announce::pending(&*self.means.store, after, SCANNED).await {
                Ok(rows) => rows,
                Err(error) => return self.trouble(&error.to_string()),
            };
            let full = rows.len() == SCANNED;
            for (key, row) in rows {
                after = key.parts().and_then(|parts| MessageId::parse(parts.get(1)?)).or(after);
                match row {
                    Ok((row, version)) => {
                        let id = row.announcement.id;
                        if !self.pending.contains_key(&id) && !self.told.contains(&id) {
                            self.add(row, version).await;
                        }
                    }
                    Err(error) => {
                        if self.damaged.insert(key.clone()) {
                            journal::record_damaged(
                                &key.to_string(),
                                &error.to_string(),
                                "none is needed: somebody is not told of something; the audit trail has it",
                            );
                        }
                    }
                }
            }
            if !full {
                return;
            }
        }
    }

    async fn add(&mut self, mut row: Row, version: u64) {
        let id = row.announcement.id;
        let (before, mails) = (row.left, self.options.from.is_some());
        let contact = row.announcement.tenant.as_ref().and_then(|tenant| self.contact(tenant));
        row.left.contact &= mails && contact.is_some();
        row.left.operator &= mails && self.options.operator.is_some();
        row.left.webhook &= self.means.webhook.is_some() && !self.schedule.is_gone();
        if row.left.contact && row.left.operator && contact == self.options.operator {
            // One person, who gets to read all of it anyway.
            row.left.contact = false;
        }
        if row.left.webhook {
            self.schedule.add(id, row.left.offers, row.left.next_offer);
        }
        let changed = row.left != before;
        self.pending.insert(id, Waiting { row, version, unwritten: changed });
        if changed {
            self.write(id).await;
        }
        while self.pending.len() > self.options.pending {
            let Some(oldest) = self.pending.keys().next().copied() else { break };
            self.give_up(oldest, "too many wait to be told").await;
        }
    }

    fn contact(&self, tenant: &TenantId) -> Option<Mailbox> {
        self.means.directory.load().tenant(tenant)?.contact.clone()
    }

    /// Strikes somebody off.
    async fn strike(&mut self, id: MessageId, audience: Audience) {
        if let Some(waiting) = self.pending.get_mut(&id) {
            waiting.row.left.strike(audience);
            waiting.unwritten = true;
            self.write(id).await;
        }
    }

    /// Writes the row as it is known. What cannot be written is kept, and written later.
    async fn write(&mut self, id: MessageId) {
        let Some(waiting) = self.pending.get_mut(&id) else { return };
        match announce::leave(&*self.means.store, &waiting.row, waiting.version).await {
            Ok(version) => {
                waiting.version = version;
                waiting.unwritten = false;
                if waiting.row.left.is_nobody() {
                    self.forget(id);
                }
            }
            // Somebody else wrote it: another process told, or a backup was put in place. Theirs holds.
            Err(crate::store::CommitError::Conflict(_)) => self.forget(id),
            Err(error) => self.trouble(&error.to_string()),
        }
    }

    async fn write_again(&mut self) {
        let unwritten: Vec<MessageId> =
            self.pending.iter().filter(|(_, one)| one.unwritten).map(|(id, _)| *id).collect();
        for id in unwritten {
            if self.means.clock.now() < self.no_store_before {
                return;
            }
            self.write(id).await;
        }
    }

    fn forget(&mut self, id: MessageId) {
        self.pending.remove(&id);
        self.schedule.forget(id);
        self.told.push_back(id);
        if self.told.len() > REMEMBERED {
            self.told.pop_front();
        }
    }

    fn trouble(&mut self, reason: &str) {
        // What was not read or written is looked for again.
        self.missed.store(true, Ordering::Release);
        let now = self.means.clock.now();
        if now >= self.no_store_before {
            journal::announcement_deferred(self.pending.len(), reason, PAUSE);
        }
        self.no_store_before = now.plus(PAUSE);
    }

    async fn give_up_old(&mut self, now: Timestamp) {
        let is_old = |one: &Waiting| one.row.announcement.at.plus(AGE) <= now;
        let old: Vec<MessageId> = self.pending.iter().filter(|(_, one)| is_old(one)).map(|(id, _)| *id).collect();
        for id in old {
            self.give_up(id, "it was tried for three days").await;
        }
    }

    async fn give_up(&mut self, id: MessageId, why: &str) {
        let Some(waiting) = self.pending.get(&id) else { return };
        for audience in waiting.row.left.audiences() {
            journal::announcement_lost(told(&waiting.row.announcement), audience.word(), why);
        }
        let version = waiting.version;
        self.forget(id);
        let mut batch = Batch::new();
        batch.remove(Key::announcement(id), If::At(version));
        // Where it cannot be removed it is given up again after the next start.
        let _ = self.means.store.commit(batch).await;
    }

    // -----------------------------------------------------------------------------------------
    // Mails

    /// Whom mails are to go to, and about which announcements, oldest first.
    fn mailboxes(&self) -> BTreeMap<(Mailbox, Reader), Vec<MessageId>> {
        let mut mailboxes: BTreeMap<(Mailbox, Reader), Vec<MessageId>> = BTreeMap::new();
        for (id, Waiting { row, .. }) in &self.pending {
            if let (true, Some(operator)) = (row.left.operator, &self.options.operator) {
                mailboxes.entry((operator.clone(), Reader::Operator)).or_default().push(*id);
            }
            if let (true, Some(tenant)) = (row.left.contact, &row.announcement.tenant)
                && let Some(contact) = self.contact(tenant)
            {
                mailboxes.entry((contact, Reader::Contact(tenant.clone()))).or_default().push(*id);
            }
        }
        mailboxes
    }

    async fn mail(&mut self, now: Timestamp) {
        let has_no_contact = |one: &Waiting| {
            let Row { announcement, left } = &one.row;
            left.contact && announcement.tenant.as_ref().is_none_or(|tenant| self.contact(tenant).is_none())
        };
        let without: Vec<MessageId> =
            self.pending.iter().filter(|(_, one)| has_no_contact(one)).map(|(id, _)| *id).collect();
        for id in without {
            self.strike(id, Audience::Contact).await;
        }
        for ((to, reader), mut waiting) in self.mailboxes() {
            loop {
                let many = share(waiting.len(), self.allowance.room(&to.folded(), now));
                if many == 0 {
                    break;
                }
                let rest = waiting.split_off(many);
                let about = std::mem::replace(&mut waiting, rest);
                if !self.mail_one(&to, &reader, &about, now).await {
                    self.no_mail_before = now.plus(PAUSE);
                    return;
                }
            }
        }
    }

    /// Holds one mail about some announcements, and strikes its reader off them. Whether it could be
    /// held, or never will be.
    async fn mail_one(&mut self, to: &Mailbox, reader: &Reader, about: &[MessageId], now: Timestamp) -> bool {
        let Some(from) = self.options.from.clone() else { return true };
        let audience = match reader {
            Reader::Contact(_) => Audience::Contact,
            Reader::Operator => Audience::Operator,
        };
        let announcements: Vec<&Announcement> =
            about.iter().filter_map(|id| Some(&self.pending.get(id)?.row.announcement)).collect();
        let mails = self.options.mails_per_hour;
        let Some((subject, text)) = letter::text(&announcements, reader, &self.options.hostname, mails) else {
            return true;
        };
        let id = MessageId::new(now, &*self.means.random);
        let hostname = self.options.hostname.clone();
        let letter = Letter { id, hostname, from, to: to.clone(), date: now, subject, text };
        match self.hold(&letter).await {
            Ok(()) => {
                self.allowance.spend(&to.folded(), now);
                for announcement in announcements {
                    journal::announcement_mailed(told(announcement), audience.word(), id, to);
                }
            }
            Err(NotHeld::Never(why)) => {
                for announcement in announcements {
                    journal::announcement_lost(told(announcement), audience.word(), &why);
                }
            }
            Err(NotHeld::Later(why)) => {
                journal::announcement_deferred(about.len(), &why, PAUSE);
                return false;
            }
        }
        for id in about {
            self.strike(*id, audience).await;
        }
        true
    }

    /// Holds a letter in the lane of the relay's own mail, which no pause keeps.
    async fn hold(&self, letter: &Letter) -> Result<(), NotHeld> {
        let octets = (self.means.compose)(letter).map_err(NotHeld::Never)?;
        let (Ok(tenant), Ok(credential)) = (TenantId::parse(NOBODY), Username::parse(NOBODY)) else {
            return Err(NotHeld::Never("the relay has no name of its own".into()));
        };
        let manifest = Manifest {
            id: letter.id,
            session: SessionId::new(letter.date, &*self.means.random),
            tenant,
            stream: None,
            credential,
            reverse_path: ReversePath::Null,
            recipients: vec![letter.to.clone()],
            claims: vec![letter.from.clone()],
            tags: vec![("report".into(), "announcement".into())],
            created: letter.date,
            expires: letter.date.plus(MAIL_AGE),
            digest: None,
        };
        let content = Content { first: vec![Bytes::from(octets)], draft: None };
        let holding = Holding {
            manifest: &manifest,
            content: &content,
            progress: Progress::none(1),
            cause: Cause::Handoff,
            words: "",
            unknown: 0,
            until: Start::Ready,
        };
        self.means.outbox.hold(holding).await.map(drop).map_err(|error| NotHeld::Later(error.to_string()))
    }

    // -----------------------------------------------------------------------------------------
    // The webhook

    /// Begins all offers that are due and have room.
    fn offer(&mut self, now: Timestamp) {
        let Some(webhook) = &self.means.webhook else { return };
        while let Some(id) = self.schedule.take(now) {
            let Some(waiting) = self.pending.get(&id) else {
                self.schedule.answered(id, &Answer::Status(200), now, 0.0);
                continue;
            };
            let offer = webhook.signer.offer(&waiting.row.announcement, now);
            let (post, clock) = (Arc::clone(&webhook.post), Arc::clone(&self.means.clock));
            self.offers.spawn(async move {
                let began = clock.instant();
                let answer = post.post(offer).await;
                (id, answer, clock.instant().saturating_duration_since(began))
            });
        }
    }

    async fn answered(&mut self, id: MessageId, answer: &Answer, took: Duration) {
        let now = self.means.clock.now();
        let step = self.schedule.answered(id, answer, now, self.means.random.fraction());
        let Some(waiting) = self.pending.get_mut(&id) else { return };
        let (about, offers) = (told(&waiting.row.announcement), waiting.row.left.offers.saturating_add(1));
        match step {
            Step::Delivered => {
                journal::webhook_delivered(about, offers, took);
                self.strike(id, Audience::Webhook).await;
            }
            Step::Again { offers, at } => {
                journal::webhook_failed(about, offers, &answer.words(), at.since(now), took);
                (waiting.row.left.offers, waiting.row.left.next_offer) = (offers, at);
                waiting.unwritten = true;
                self.write(id).await;
            }
            Step::GivenUp => {
                let why = format!("offered {offers} times; at last {}", answer.words());
                journal::announcement_lost(about, Audience::Webhook.word(), &why);
                self.strike(id, Audience::Webhook).await;
            }
            Step::Gone => {
                journal::webhook_disabled(about);
                let all: Vec<MessageId> =
                    self.pending.iter().filter(|(_, one)| one.row.left.webhook).map(|(id, _)| *id).collect();
                for id in all {
                    self.schedule.forget(id);
                    self.strike(id, Audience::Webhook).await;
                }
            }
            Step::Unasked => {}
        }
    }
}

/// Why a mail is not held.
enum NotHeld {
    /// It may be later.
    Later(String),
    /// It never will be.
    Never(String),
}

fn told(announcement: &Announcement) -> Told<'_> {
    let Announcement { id, kind, tenant, stream, .. } = announcement;
    Told { id: *id, kind: kind.word(), tenant: tenant.as_ref(), stream: stream.as_ref() }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}
