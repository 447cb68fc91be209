//! One message, from the end of its data to its verdict.
//!
//! Read the header section, judge, choose the stream, edit, hand over. It runs in the connection's
//! own task, which does not look at its socket meanwhile: once the data is here, a client that hangs
//! up changes nothing about what is sent and what is logged. A message of one call wakes no other
//! task.
//!
//! Promises: exactly one verdict line a message, even if this panics or is abandoned at the end of
//! a drain (the [`Record`] writes it when it is dropped without one); a 250 only from a receipt,
//! which SES's answer or the outbox makes.
//! What can go wrong: SES cannot take a message now, and the outbox cannot hold it. The reply is 4xx,
//! since nobody has it; if some recipients were served already, the verdict line counts those who
//! will get the message twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{Turned, blame_of};
use super::memory::Share;
use super::trace::Trace;
use super::{Bounds, Office, wording};
use crate::dispatch::repeats;
use crate::dispatch::{Answered, Calls, HandedOver, How, Parcel, Passage, words};
use crate::journal::{self, Blame};
use crate::mail::header::{Additions, Edited, HeaderError, HeaderSection, OUR_TAGS, is_our_tag};
use crate::mail::{Envelope, Login, Mailbox, MessageId, Receipt, ReversePath, SessionId, StreamId, Taken};
use crate::outbox::{Content, Draft, Manifest};
use crate::policy::decide;
use crate::policy::tenant::{Stream, Tenant};
use crate::smtp::data::MailOctets;
use crate::smtp::{Refusal, Reply, reply};
use crate::store::suppressions;
use crate::upstream::Outcome;

/// A message whose data has come in whole.
pub(super) struct Message {
    pub(super) office: Arc<Office>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) session: SessionId,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    pub(super) login: Arc<Login>,
    pub(super) envelope: Envelope,
    pub(super) data: MailOctets,
    /// What of the data was spilled to a file while it came in.
    pub(super) draft: Option<Box<dyn Draft>>,
    pub(super) helo: String,
    /// The memory the data is counted in.
    pub(super) share: Share,
}

/// Why a message goes nowhere.
struct Stopped {
    refusal: Refusal,
    reason: String,
    blame: Blame,
}

impl Message {
    /// Accepts or refuses, to the end: nobody looks at the client's socket meanwhile, so a client
    /// that hangs up changes nothing. Only the end of a drain cuts it short.
    pub(super) async fn accept_to_the_end(self) -> Result<Receipt, Refusal> {
        let abandon = self.office.abandon.clone();
        // Without a result the record has written the verdict line.
        abandon.run_until_cancelled(self.accept()).await.unwrap_or_else(|| Err(wording::abandoned()))
    }

    async fn accept(mut self) -> Result<Receipt, Refusal> {
        let mut record = Record::open(&self);
        // The last octets came with the end of the data, and a small message in one piece.
        let here = self.data.head.len() + self.data.rest.len();
        if self.office.memory.cover(&mut self.share, here).await.is_err() {
            return Err(
                record.refused(Stopped::ours(wording::short_of_memory(), "limits.memory_bytes was used up".into()))
            );
        }
        let deadline = tokio::time::Instant::now() + self.bounds.limits.data_deadline;
        match self.prepare(&mut record).await {
            Ok((parcel, notes)) => {
                let handed = Arc::clone(&self.office.means.dispatch).hand_over(parcel, deadline).await;
                drop(self.share);
                conclude(handed, record, &notes)
            }
            Err(stopped) => Err(record.refused(stopped)),
        }
    }

    /// Everything before SES: whose the message is, by which stream it goes, what it becomes; and
    /// what the client asked for and does not get, or would not have got.
    async fn prepare(&mut self, record: &mut Record) -> Result<(Parcel, Vec<String>), Stopped> {
        let office = Arc::clone(&self.office);
        let tenant = office.tenant_of(&self.login, self.peer).map_err(|Turned { refusal, blame }| Stopped {
            reason: refusal.reply().text(),
            blame,
            refusal,
        })?;
        let bounds = Arc::clone(&self.bounds);
        let limits = &bounds.limits;
        let section = HeaderSection::scan(self.data.head.clone(), limits.header).map_err(Stopped::header)?;
        if section.hops() > limits.received_hops {
            return Err(Stopped::looping(section.hops(), limits.received_hops));
        }
        section.check_single().map_err(Stopped::header)?;
        let originators = section.originators().map_err(Stopped::header)?;
        let wishes = section.wishes().map_err(Stopped::header)?;
        let stream = decide::message(&tenant, &self.login, &originators, &wishes)
            .into_result()
            .map_err(|stop| Stopped::decided(&stop))?;
        record.stream = Some(stream.id.clone());
        let recipients = self.recipients_under(&tenant, stream).await?;
        let draft = self.whole_draft().await?;
        let digest = section.message_id().filter(|_| stream.dedupe).map(|message_id| {
            let tail = draft.as_ref().map(|draft| (draft.checksum().finalize(), draft.len()));
            repeats::digest(&self.login.credential, &message_id, &self.envelope, &self.data.head, tail)
        });
        let edited = self.edit(&section, record.id, &recipients);
        let (tags, mut notes) = tags(&tenant, stream, &self.login, wishes.tags);
        notes.extend(would_be_stopped(&tenant, stream));
        let now = office.means.clock.now();
        let mut claims: Vec<Mailbox> = originators.claims.into_iter().map(|(_, mailbox)| mailbox).collect();
        claims.dedup();
        let manifest = Manifest {
            id: record.id,
            session: self.session,
            tenant: tenant.id.clone(),
            stream: Some(stream.id.clone()),
            credential: self.login.credential.clone(),
            reverse_path: self.envelope.reverse_path.clone(),
            recipients,
            claims,
            tags,
            created: now,
            expires: now.plus(limits.ages.of(stream)),
            digest,
        };
        let passage = Passage {
            configuration_set: stream.configuration_set.clone(),
            ses_tenant: tenant.ses_tenant.clone(),
            fan_out: stream.fan_out,
            kind: stream.kind,
            handoff: stream.handoff,
        };
        let content = Content { first: edited.segments, draft };
        let calls = Arc::clone(&record.calls);
        record.recipients_offered = manifest.recipients.clone();
        Ok((Parcel { manifest, content, passage, calls }, notes))
    }

    /// The file with all that was spilled, the end of the data among it.
    async fn whole_draft(&mut self) -> Result<Option<Arc<dyn Draft>>, Stopped> {
        if self.data.spilled == 0 {
            return Ok(None);
        }
        let lost = || Stopped::ours(wording::fault(), "what was spilled to a file is not there".into());
        let mut draft = self.draft.take().filter(|draft| draft.len() == self.data.spilled).ok_or_else(lost)?;
        let outbox = self.office.means.dispatch.outbox();
        if let Err(error) = outbox.append(&mut *draft, std::mem::take(&mut self.data.rest)).await {
            return Err(Stopped::ours(wording::short_of_disk(), error.to_string()));
        }
        self.share.shrink(self.data.head.len());
        Ok(Some(Arc::from(draft)))
    }

    /// The recipients that the chosen stream may have: what RCPT could not know, because the
    /// message had not named its stream.
    async fn recipients_under(&self, tenant: &Tenant, stream: &Stream) -> Result<Vec<Mailbox>, Stopped> {
        if self.login.stream.is_some() || binds_no_more_than_others(tenant, stream) {
            return Ok(self.envelope.forward_paths.clone());
        }
        let mut kept = Vec::with_capacity(self.envelope.forward_paths.len());
        let mut first_refusal = None;
        for mailbox in &self.envelope.forward_paths {
            let account = self.bounds.limits.account_list;
            let entries = suppressions::binding(&*self.office.means.store, &self.login.tenant, mailbox, account)
                .await
                .map_err(|error| Stopped::ours(wording::store_unavailable(), error.to_string()))?;
            let now = self.office.means.clock.now();
            match decide::recipient_under(stream, &entries, now).into_result() {
                Ok(()) => kept.push(mailbox.clone()),
                Err(stop) => {
                    let refusal = wording::stopped(&stop);
                    journal::recipient_suppressed(
                        self.session,
                        &self.login,
                        Some(&stream.id),
                        mailbox,
                        refusal.reply(),
                    );
                    first_refusal.get_or_insert(stop);
                }
            }
        }
        match first_refusal {
            Some(stop) if kept.is_empty() => Err(Stopped::decided(&stop)),
            Some(_) | None => Ok(kept),
        }
    }

    fn edit(&self, section: &HeaderSection, id: MessageId, recipients: &[Mailbox]) -> Edited {
        let (hostname, now) = (&self.office.hostname, self.office.means.clock.now());
        let trace =
            Trace { helo: &self.helo, peer: self.peer.ip(), secure: self.secure, hostname, id, recipients, now };
        section.edit(&Additions {
            trace: &trace.field(),
            date: &now.rfc5322(),
            message_id: &format!("<{id}@{hostname}>"),
        })
    }
}

/// Whether every stream the client might have meant refuses at least what `stream` refuses: then
/// RCPT has said it all.
fn binds_no_more_than_others(tenant: &Tenant, stream: &Stream) -> bool {
    tenant.streams.values().all(|other| stream.suppress_on.iter().all(|reason| other.suppress_on.contains(reason)))
}

/// Our tags first, then the client's own under its own names.
fn tags(
    tenant: &Tenant,
    stream: &Stream,
    login: &Login,
    wished: Vec<(String, String)>,
) -> (Vec<(String, String)>, Vec<String>) {
    let [tenant_tag, stream_tag, credential_tag] = OUR_TAGS.map(str::to_owned);
    let mut tags = vec![
        (tenant_tag, tenant.id.to_string()),
        (stream_tag, stream.id.to_string()),
        (credential_tag, login.credential.tag()),
    ];
    let mut notes = Vec::new();
    for (name, value) in wished {
        if is_our_tag(&name) {
            notes.push(format!("tag {name}={value} was left out: the name is Bulkhead's own"));
        } else {
            tags.push((name, value));
        }
    }
    (tags, notes)
}

/// What the client would have heard if the standing of its stream were in force.
fn would_be_stopped(tenant: &Tenant, stream: &Stream) -> Option<String> {
    let reason = decide::would_stop(tenant, stream)?;
    journal::would_be_stopped(reason.name());
    Some(format!("would_defer: {}", wording::stopped(&decide::Stop::Defer(reason, None)).reply().text()))
}

/// From the hand-over to the reply, the lines and the verdict.
fn conclude(handed: HandedOver, mut record: Record, notes: &[String]) -> Result<Receipt, Refusal> {
    record.note(&handed);
    let several = handed.answers.len() > 1;
    for Answered { recipients, outcome } in &handed.answers {
        let mailboxes = record.mailboxes(recipients);
        match outcome {
            Outcome::Sent(taken) if several => record.recipients_relayed(&mailboxes, taken),
            Outcome::Refused(..) if !matches!(handed.how, How::Refused(_)) => {
                for mailbox in &mailboxes {
                    record.recipient_refused(mailbox, words(outcome));
                }
            }
            Outcome::Sent(_)
            | Outcome::Refused(..)
            | Outcome::Retry(..)
            | Outcome::Paused(..)
            | Outcome::Unknown(_) => {}
        }
    }
    match handed.how {
        How::Relayed(receipt) => {
            record.watched();
            record.relayed(&receipt, notes);
            Ok(receipt)
        }
        How::Held { receipt, cause, words } => {
            record.watched();
            record.queued(&receipt, cause.word(), &words, notes);
            Ok(receipt)
        }
        How::Repeated { first, receipt } => {
            record.repeated(&receipt, first);
            Ok(receipt)
        }
        How::Refused(outcome) => Err(record.refused(Stopped::upstream(&outcome))),
        How::Deferred { cause, words, until, error } => {
            let refusal = wording::not_held(cause, until, &error);
            let reason = if words.is_empty() { format!("{cause:?}: {error}") } else { format!("{words}; {error}") };
            Err(record.refused(Stopped::ours(refusal, reason)))
        }
    }
}

impl Stopped {
    fn header(error: HeaderError) -> Self {
        Self { refusal: wording::header(&error), reason: error.to_string(), blame: Blame::Client }
    }

    fn looping(hops: usize, most: usize) -> Self {
        Self { refusal: wording::looping(most), reason: format!("{hops} Received fields"), blame: Blame::Client }
    }

    fn decided(stop: &decide::Stop) -> Self {
        let refusal = wording::stopped(stop);
        let reason = format!("{}: {}", stop.reason().name(), refusal.reply().text());
        Self { reason, refusal, blame: blame_of(stop.reason()) }
    }

    fn ours(refusal: Refusal, reason: String) -> Self {
        Self { refusal, reason, blame: Blame::Us }
    }

    fn upstream(outcome: &Outcome) -> Self {
        let blame = match outcome {
            Outcome::Refused(..) => Blame::Client,
            // No refusal of SES's: a fault of ours that it came here.
            Outcome::Retry(..) | Outcome::Paused(..) | Outcome::Unknown(_) | Outcome::Sent(_) => Blame::Us,
        };
        let refusal = wording::refused(outcome);
        Self { refusal, reason: words(outcome).to_owned(), blame }
    }
}

/// What is known of a message so far; writes the verdict line when it is told the verdict, or when
/// it is dropped without one.
struct Record {
    office: Arc<Office>,
    id: MessageId,
    session: SessionId,
    peer: SocketAddr,
    login: Arc<Login>,
    stream: Option<StreamId>,
    from: ReversePath,
    recipients: Vec<Mailbox>,
    bytes: usize,
    began: Instant,
    /// The recipients that were offered to SES.
    recipients_offered: Vec<Mailbox>,
    /// How its calls stand.
    calls: Arc<Calls>,
    /// Time at SES.
    ses: Duration,
    taken: Vec<Taken>,
    sent: usize,
    written: bool,
}

impl Record {
    fn open(message: &Message) -> Self {
        let means = &message.office.means;
        Self {
            office: Arc::clone(&message.office),
            id: MessageId::new(means.clock.now(), &*means.random),
            session: message.session,
            peer: message.peer,
            login: Arc::clone(&message.login),
            stream: None,
            from: message.envelope.reverse_path.clone(),
            recipients: message.envelope.forward_paths.clone(),
            bytes: usize::try_from(message.data.len()).unwrap_or(usize::MAX),
            began: means.clock.instant(),
            recipients_offered: Vec::new(),
            calls: Arc::default(),
            ses: Duration::ZERO,
            taken: Vec::new(),
            sent: 0,
            written: false,
        }
    }

    /// Notes what the hand-over brought.
    fn note(&mut self, handed: &HandedOver) {
        self.taken = handed.taken();
        self.sent = handed.sent();
        self.ses = handed.ses;
    }

    fn mailboxes(&self, places: &[usize]) -> Vec<Mailbox> {
        places.iter().filter_map(|at| self.recipients_offered.get(*at).cloned()).collect()
    }

    fn recipients_relayed(&self, recipients: &[Mailbox], taken: &Taken) {
        if let Some(stream) = &self.stream {
            journal::recipient_relayed(self.session, self.id, &self.login, stream, recipients, taken.ses_id());
        }
    }

    fn recipient_refused(&self, recipient: &Mailbox, reason: &str) {
        if let Some(stream) = &self.stream {
            journal::recipient_refused(self.session, self.id, &self.login, stream, recipient, reason);
        }
    }

    /// Tells the watch whom the client hears 250 for.
    fn watched(&self) {
        let means = &self.office.means;
        means.watch.accepted(&self.login, self.peer.ip(), &self.recipients_offered, means.clock.now());
    }

    fn relayed(mut self, receipt: &Receipt, notes: &[String]) {
        let reply = reply::message_accepted(receipt);
        self.written = true;
        journal::message_relayed(&self.verdict(&reply), &self.ses_ids(), self.sent, notes);
    }

    fn queued(mut self, receipt: &Receipt, cause: &'static str, reason: &str, notes: &[String]) {
        let reply = reply::message_accepted(receipt);
        self.written = true;
        journal::message_queued(&self.verdict(&reply), cause, reason, &self.ses_ids(), self.sent, notes);
    }

    fn repeated(mut self, receipt: &Receipt, first: MessageId) {
        let reply = reply::message_accepted(receipt);
        self.written = true;
        journal::message_repeated(&self.verdict(&reply), first, receipt.is_held());
    }

    fn refused(mut self, stopped: Stopped) -> Refusal {
        self.write_refused(&stopped);
        stopped.refusal
    }

    fn write_refused(&mut self, stopped: &Stopped) {
        self.written = true;
        let verdict = self.verdict(stopped.refusal.reply());
        journal::message_refused(&verdict, &stopped.reason, stopped.blame, &self.ses_ids(), self.sent);
    }

    fn ses_ids(&self) -> Vec<&str> {
        self.taken.iter().map(Taken::ses_id).collect()
    }

    fn verdict<'a>(&'a self, reply: &'a Reply) -> journal::Verdict<'a> {
        journal::Verdict {
            session: self.session,
            message: self.id,
            peer: self.peer,
            login: &self.login,
            stream: self.stream.as_ref(),
            from: &self.from,
            recipients: &self.recipients,
            bytes: self.bytes,
            reply,
            ses: self.ses,
            total: self.office.means.clock.instant().saturating_duration_since(self.began),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.written {
            return;
        }
        let open = self.calls.under_way();
        let what = if std::thread::panicking() { "a fault of ours" } else { "abandoned at the end of the drain" };
        let reason = match open {
            0 => what.to_owned(),
            open => format!("{what}; {open} calls were under way, and Amazon SES may have taken them"),
        };
        self.write_refused(&Stopped::ours(wording::abandoned(), reason));
    }
}
