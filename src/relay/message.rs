//! One message, from the end of its data to its verdict.
//!
//! Read the header section, judge, choose the stream, edit, offer to SES, join the outcomes. It runs
//! in the connection's own task, which does not look at its socket meanwhile: once the data is here,
//! a client that hangs up changes nothing about what is sent and what is logged. A message of one
//! call wakes no other task.
//!
//! Promises: exactly one verdict line a message, even if this panics or is abandoned at the end of
//! a drain (the [`Record`] writes it when it is dropped without one); a 250 only from SES's own
//! answers; no call without the stream's configuration set and our tags; the message's octets are
//! copied once for each call and never otherwise. After an outcome that may pass later no further
//! call is begun, because the client will send the whole message again: every recipient already
//! served would get it twice.
//! What can go wrong: some recipients are served and others deferred. The reply is 4xx, since the
//! others must not be lost, and the verdict line counts those who will get the message twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::alarm::words;
use super::answer::{Turned, blame_of};
use super::join::{Joined, go_on_after, join};
use super::memory::{Share, Short};
use super::trace::Trace;
use super::{Bounds, Office, wording};
use crate::journal::{self, Blame};
use crate::mail::header::{Additions, Edited, HeaderError, HeaderSection, OUR_TAGS, is_our_tag};
use crate::mail::{
    ConfigurationSet, Envelope, Login, Mailbox, MessageId, Receipt, ReversePath, SesTenant, SessionId, StreamId, Taken,
};
use crate::policy::decide;
use crate::policy::tenant::{FanOut, Stream, Tenant};
use crate::smtp::{Refusal, Reply, reply};
use crate::store::suppressions;
use crate::upstream::{CALL_RECIPIENTS, Call, Outcome, Retry, classify};

/// Up to this many octets a message goes to each recipient by a call of its own: exact attribution,
/// and one bad address spoils nobody (SES Developer Guide, managing sending quotas).
pub const SINGLE_BYTES: usize = 1024 * 1024;

/// A message whose data has come in whole.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) office: Arc<Office>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) session: SessionId,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    pub(super) login: Arc<Login>,
    pub(super) envelope: Envelope,
    pub(super) data: Bytes,
    pub(super) helo: String,
    /// The memory the data is counted in.
    pub(super) share: Share,
}

/// A message ready for SES.
#[derive(Debug)]
struct Shipment {
    stream: StreamId,
    configuration_set: ConfigurationSet,
    ses_tenant: Option<SesTenant>,
    tags: Vec<(String, String)>,
    /// What the client asked for and did not get, for the log.
    notes: Vec<String>,
    edited: Edited,
    /// The recipients of each call.
    calls: Vec<Vec<Mailbox>>,
    /// How many of them are under way at the same time.
    calls_at_once: usize,
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
        if self.office.memory.cover(&mut self.share, self.data.len()).await.is_err() {
            return Err(
                record.refused(Stopped::ours(wording::short_of_memory(), "limits.memory_bytes was used up".into()))
            );
        }
        match self.prepare(&mut record).await {
            Ok(shipment) => {
                let (share, shipment) = (self.share, Arc::new(shipment));
                offer(&shipment, &mut record).await;
                drop(share);
                conclude(&shipment, record)
            }
            Err(stopped) => Err(record.refused(stopped)),
        }
    }

    /// Everything before SES: whose the message is, by which stream it goes, what it becomes.
    async fn prepare(&self, record: &mut Record) -> Result<Shipment, Stopped> {
        let office = &self.office;
        let tenant = office.tenant_of(&self.login, self.peer).map_err(|Turned { refusal, blame }| Stopped {
            reason: refusal.reply().text(),
            blame,
            refusal,
        })?;
        let limits = &self.bounds.limits;
        let section = HeaderSection::scan(self.data.clone(), limits.header).map_err(Stopped::header)?;
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
        let edited = self.edit(&section, record.id, &recipients);
        let (tags, notes) = tags(&tenant, stream, &self.login, wishes.tags);
        Ok(Shipment {
            stream: stream.id.clone(),
            configuration_set: stream.configuration_set.clone(),
            ses_tenant: tenant.ses_tenant.clone(),
            tags,
            notes,
            calls: spread(recipients, stream.fan_out, edited.len()),
            calls_at_once: limits.calls_per_message.max(1),
            edited,
        })
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
            let entries = suppressions::find(&*self.office.means.store, &self.login.tenant, mailbox)
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

/// The recipients of each call.
fn spread(recipients: Vec<Mailbox>, fan_out: FanOut, bytes: usize) -> Vec<Vec<Mailbox>> {
    let most = match fan_out {
        FanOut::Single if bytes <= SINGLE_BYTES => 1,
        FanOut::Single | FanOut::Batch => CALL_RECIPIENTS,
    };
    recipients.chunks(most).map(<[Mailbox]>::to_vec).collect()
}

/// Makes the calls: the first alone, to learn cheaply of what stops all of them, then
/// `limits.calls_per_message` at a time.
async fn offer(shipment: &Arc<Shipment>, record: &mut Record) {
    let office = Arc::clone(&record.office);
    record.offered(shipment.calls.len());
    if shipment.calls.len() == 1 {
        record.begun(0);
        let (at, outcome) = call(office, Arc::clone(shipment), 0).await;
        record.answered(shipment, at, outcome);
        return;
    }
    let mut under_way = JoinSet::new();
    let mut begun = 0;
    let mut width = 1;
    let mut going_on = true;
    loop {
        while going_on && begun < shipment.calls.len() && under_way.len() < width {
            under_way.spawn(call(Arc::clone(&office), Arc::clone(shipment), begun));
            record.begun(begun);
            begun += 1;
        }
        match under_way.join_next().await {
            Some(Ok((at, outcome))) => {
                going_on &= go_on_after(&outcome);
                record.answered(shipment, at, outcome);
            }
            // A call that panicked has no outcome; the record knows it as unknown.
            Some(Err(_)) => going_on = false,
            None => return,
        }
        width = shipment.calls_at_once;
    }
}

async fn call(office: Arc<Office>, shipment: Arc<Shipment>, at: usize) -> (usize, Outcome) {
    let room = match office.memory.copy(shipment.edited.len()).await {
        Ok(room) => room,
        Err(Short) => {
            let why = "limits.call_bytes was used up for longer than limits.call_wait_seconds".to_owned();
            return (at, Outcome::Retry(Retry::Busy, why));
        }
    };
    let call = Call {
        raw: shipment.edited.to_vec(),
        recipients: shipment.calls.get(at).cloned().unwrap_or_default(),
        configuration_set: shipment.configuration_set.clone(),
        tags: shipment.tags.clone(),
        ses_tenant: shipment.ses_tenant.clone(),
    };
    let outcome = office.means.mailer.send(call).await;
    drop(room);
    (at, outcome)
}

/// From the outcomes to the reply, the lines and the verdict.
fn conclude(shipment: &Shipment, mut record: Record) -> Result<Receipt, Refusal> {
    let outcomes = record.outcomes();
    let joined = join(&outcomes);
    let outcome = |at: usize| outcomes.get(at);
    if shipment.calls.len() > 1 {
        for (at, recipients) in shipment.calls.iter().enumerate() {
            if let Some(Outcome::Sent(taken)) = outcome(at) {
                record.recipients_relayed(&shipment.stream, recipients, taken);
            }
        }
    }
    match joined {
        Joined::Taken { refused, .. } => {
            for (at, recipients) in refused.iter().filter_map(|at| Some((*at, shipment.calls.get(*at)?))) {
                for recipient in recipients {
                    record.recipient_refused(&shipment.stream, recipient, outcome(at).map_or("", words));
                }
            }
            match record.receipt(shipment.calls.len()) {
                Some(receipt) => {
                    record.relayed(&receipt, &shipment.notes);
                    Ok(receipt)
                }
                None => Err(record.refused(Stopped::ours(wording::fault(), "taken without an id".into()))),
            }
        }
        Joined::Refused { why } | Joined::Deferred { why, .. } => match outcome(why) {
            Some(outcome) => Err(record.refused(Stopped::upstream(outcome))),
            None => Err(record.refused(Stopped::ours(wording::fault(), "no outcome".into()))),
        },
        Joined::Nothing => Err(record.refused(Stopped::ours(wording::fault(), "there was no call to make".into()))),
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
            Outcome::Retry(Retry::Busy, _) => Blame::Us,
            Outcome::Retry(..) | Outcome::Paused(..) if classify::cure(outcome).is_some() => Blame::Us,
            Outcome::Retry(..) | Outcome::Paused(..) | Outcome::Unknown(_) | Outcome::Sent(_) => Blame::Upstream,
        };
        let refusal = wording::outcome(outcome).err().unwrap_or_else(wording::fault);
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
    /// When the first call began and the last one was answered.
    calls_began: Option<Instant>,
    calls_ended: Option<Instant>,
    calls: Vec<Progress>,
    taken: Vec<Taken>,
    sent: usize,
    written: bool,
}

/// How far a call has come.
enum Progress {
    NotBegun,
    UnderWay,
    Answered(Outcome),
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
            bytes: message.data.len(),
            began: means.clock.instant(),
            calls_began: None,
            calls_ended: None,
            calls: Vec::new(),
            taken: Vec::new(),
            sent: 0,
            written: false,
        }
    }

    fn offered(&mut self, calls: usize) {
        self.calls = std::iter::repeat_with(|| Progress::NotBegun).take(calls).collect();
        self.calls_began = Some(self.office.means.clock.instant());
    }

    fn begun(&mut self, at: usize) {
        if let Some(call) = self.calls.get_mut(at) {
            *call = Progress::UnderWay;
        }
    }

    /// Notes an outcome where it counts: tally and alarms. The mailer has counted its call.
    fn answered(&mut self, shipment: &Shipment, at: usize, outcome: Outcome) {
        let means = &self.office.means;
        let now = means.clock.instant();
        self.office.alarms.consider(&self.login.tenant, &shipment.stream, &outcome, now);
        self.calls_ended = Some(now);
        if let Outcome::Sent(taken) = &outcome {
            let recipients = shipment.calls.get(at).map_or(0, Vec::len);
            let hour = means.clock.now().hour();
            means.tally.accepted(
                &self.login.tenant,
                &shipment.stream,
                hour,
                u64::try_from(recipients).unwrap_or(u64::MAX),
            );
            self.taken.push(taken.clone());
            self.sent += recipients;
        }
        if let Some(call) = self.calls.get_mut(at) {
            *call = Progress::Answered(outcome);
        }
    }

    /// The outcome of every call, made or not.
    fn outcomes(&mut self) -> Vec<Outcome> {
        let outcome = |call| match call {
            Progress::Answered(outcome) => outcome,
            Progress::UnderWay => Outcome::Unknown("the call ended without an outcome".into()),
            Progress::NotBegun => Outcome::Retry(Retry::Busy, "not offered after another call was deferred".into()),
        };
        std::mem::take(&mut self.calls).into_iter().map(outcome).collect()
    }

    fn receipt(&self, calls: usize) -> Option<Receipt> {
        match self.taken.as_slice() {
            [taken] if calls == 1 => Some(Receipt::one(taken.clone())),
            taken => Receipt::several(self.id, taken, self.sent),
        }
    }

    fn recipients_relayed(&self, stream: &StreamId, recipients: &[Mailbox], taken: &Taken) {
        journal::recipient_relayed(self.session, self.id, &self.login, stream, recipients, taken.ses_id());
    }

    fn recipient_refused(&self, stream: &StreamId, recipient: &Mailbox, reason: &str) {
        journal::recipient_refused(self.session, self.id, &self.login, stream, recipient, reason);
    }

    fn relayed(mut self, receipt: &Receipt, notes: &[String]) {
        let reply = reply::message_accepted(receipt);
        self.written = true;
        journal::message_relayed(&self.verdict(&reply), &self.ses_ids(), self.sent, notes);
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
        let ended = self.calls_ended.or(self.calls_began);
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
            ses: match (self.calls_began, ended) {
                (Some(began), Some(ended)) => ended.saturating_duration_since(began),
                (None, _) | (_, None) => Duration::ZERO,
            },
            total: self.office.means.clock.instant().saturating_duration_since(self.began),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.written {
            return;
        }
        let open = self.calls.iter().filter(|call| matches!(call, Progress::UnderWay)).count();
        let what = if std::thread::panicking() { "a fault of ours" } else { "abandoned at the end of the drain" };
        let reason = match open {
            0 => what.to_owned(),
            open => format!("{what}; {open} calls were under way, and Amazon SES may have taken them"),
        };
        self.write_refused(&Stopped::ours(wording::abandoned(), reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailboxes(n: usize) -> Vec<Mailbox> {
        (0..n).map(|n| Mailbox::parse(format!("r{n}@example.com").as_bytes()).unwrap()).collect()
    }

    #[test]
    fn recipients_are_spread_over_calls() {
        let table = [
            (1, FanOut::Single, 100, vec![1]),
            (3, FanOut::Single, SINGLE_BYTES, vec![1, 1, 1]),
            (3, FanOut::Single, SINGLE_BYTES + 1, vec![3]),
            (51, FanOut::Single, SINGLE_BYTES + 1, vec![50, 1]),
            (120, FanOut::Batch, 100, vec![50, 50, 20]),
            (0, FanOut::Batch, 100, vec![]),
        ];
        for (recipients, fan_out, bytes, expected) in table {
            let calls = spread(mailboxes(recipients), fan_out, bytes);
            assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            assert_eq!(calls.concat(), mailboxes(recipients), "nobody is lost, doubled or moved");
        }
    }
}
