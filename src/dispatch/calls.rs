//! The SendEmail calls of one message, for mail that has just come in and for mail that was held.
//!
//! The first call goes alone, to learn cheaply of what stops all of them; then
//! `limits.calls_per_message` at a time, none before the account's rate has room for it. After an answer
//! that may pass later no further call begins: what stopped one would stop the others. Neither does one
//! that would have to wait for the rate once the drain has begun.
//!
//! Promises: no call without the stream's configuration set and our tags; the message's octets are
//! copied once for each call and never otherwise; every outcome is told to the breakers, the gates,
//! the alarms and the counts, whoever made the call. Of a held message with several calls each answer is noted in
//! its file, so that a process that dies between two calls sends to nobody again who was served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Dispatch;
use super::alarm::words;
use super::join::go_on_after;
use super::parcel::{Answered, Parcel};
use crate::journal;
use crate::mail::{StreamId, TenantId};
use crate::outbox::Cause;
use crate::policy::effect::SIMULATOR;
use crate::policy::tenant::Cohort;
use crate::store::domains;
use crate::time::Timestamp;
use crate::upstream::{Call, Outcome, Retry, classify};

impl Dispatch {
    /// Makes the calls. The answers are in the order of `calls`; one that was not made may pass
    /// later, and what was reserved for it is given back.
    pub(super) async fn call_all(self: Arc<Self>, parcel: Arc<Parcel>, calls: Vec<Vec<usize>>) -> Vec<Answered> {
        let answers = self.make_calls(&parcel, calls).await;
        parcel.calls.release();
        answers
    }

    async fn make_calls(self: Arc<Self>, parcel: &Arc<Parcel>, calls: Vec<Vec<usize>>) -> Vec<Answered> {
        if let [only] = calls.as_slice() {
            let outcome = self.call(parcel, only).await;
            parcel.calls.answered(only, &outcome);
            let recipients = only.clone();
            return vec![Answered { recipients, outcome }];
        }
        let mut answers: Vec<Option<Outcome>> = vec![None; calls.len()];
        let mut under_way = JoinSet::new();
        let (mut begun, mut width, mut going_on) = (0, 1, true);
        // Recipients of the calls that have begun.
        let mut before = 0;
        loop {
            let mut wait = Duration::ZERO;
            while going_on && under_way.len() < width {
                let Some(recipients) = calls.get(begun).cloned() else { break };
                wait = self.until(parcel.calls.begins_after(before));
                if wait > Duration::ZERO {
                    break;
                }
                before = before.saturating_add(u32::try_from(recipients.len()).unwrap_or(u32::MAX));
                let (dispatch, parcel, at) = (Arc::clone(&self), Arc::clone(parcel), begun);
                under_way.spawn(async move { (at, dispatch.call(&parcel, &recipients).await) });
                begun += 1;
            }
            let joined = tokio::select! {
                biased;
                Some(joined) = under_way.join_next() => Some(joined),
                () = self.hurry.cancelled(), if wait > Duration::ZERO => {
                    going_on = false;
                    continue;
                }
                () = sleep(wait), if wait > Duration::ZERO => continue,
                else => None,
            };
            match joined {
                Some(Ok((at, outcome))) => {
                    going_on &= go_on_after(&outcome);
                    let recipients = calls.get(at).map(Vec::as_slice).unwrap_or_default();
                    let noted = parcel.calls.answered(recipients, &outcome);
                    // The last answers are written with the end of the attempt.
                    if let Some(marks) = noted.filter(|_| !under_way.is_empty() || begun < calls.len()) {
                        self.means.outbox.note_progress(parcel.manifest.id, &marks).await;
                    }
                    if let Some(place) = answers.get_mut(at) {
                        *place = Some(outcome);
                    }
                }
                // A call that panicked has no outcome: it is unknown.
                Some(Err(_)) => going_on = false,
                None => break,
            }
            width = self.calls_per_message();
        }
        let answered = |(at, (recipients, outcome)): (usize, (Vec<usize>, Option<Outcome>))| {
            let outcome = outcome.unwrap_or_else(|| match at < begun {
                true => Outcome::Unknown("the call ended without an outcome".into()),
                false => {
                    Outcome::Retry(Retry::Busy, "not offered: another call was deferred, or the drain had begun".into())
                }
            });
            Answered { recipients, outcome }
        };
        calls.into_iter().zip(answers).enumerate().map(answered).collect()
    }

    /// How long it is until then; nothing where it is over, or there is no such moment.
    fn until(&self, moment: Option<Instant>) -> Duration {
        moment.map_or(Duration::ZERO, |moment| moment.saturating_duration_since(self.means.clock.instant()))
    }

    async fn call(&self, parcel: &Parcel, recipients: &[usize]) -> Outcome {
        let begun = self.means.clock.instant();
        let outcome = self.offer(parcel, recipients).await;
        self.observe(parcel, recipients, &outcome, begun);
        outcome
    }

    async fn offer(&self, parcel: &Parcel, recipients: &[usize]) -> Outcome {
        let room = match self.copies.take(parcel.content.len()).await {
            Ok(room) => room,
            Err(short) => return Outcome::Retry(Retry::Busy, short.to_string()),
        };
        let raw = match parcel.content.to_vec().await {
            Ok(raw) => raw,
            Err(error) => return Outcome::Retry(Retry::Busy, format!("its octets cannot be read: {error}")),
        };
        let call = Call {
            raw,
            recipients: parcel.mailboxes(recipients),
            configuration_set: parcel.passage.configuration_set.clone(),
            tags: parcel.manifest.tags.clone(),
            ses_tenant: parcel.passage.ses_tenant.clone(),
        };
        parcel.calls.begin();
        let outcome = self.means.mailer.send(call).await;
        parcel.calls.end();
        drop(room);
        outcome
    }

    /// The cohort of mail that is sent now. A stream that is gone has no window that could begin anew.
    fn cohort(&self, tenant: &TenantId, stream: &StreamId, now: Timestamp) -> Cohort {
        let directory = self.means.directory.load();
        let stream = directory.tenant(tenant).and_then(|tenant| tenant.streams.get(stream));
        stream.map_or(Cohort::of(now.hour()), |stream| stream.standing.cohort(now))
    }

    /// Counts recipients that SES took. Those of its simulator never count: their events do not either, and
    /// mail to it would make every rate look better.
    fn count(&self, parcel: &Parcel, stream: &StreamId, recipients: &[usize]) {
        let (tally, now) = (&self.means.tally, self.means.clock.now());
        let to = parcel.manifest.recipients.as_slice();
        let domains = recipients.iter().filter_map(|at| to.get(*at)).map(|mailbox| mailbox.domain().as_str());
        let counted: Vec<&str> = domains.filter(|domain| !domain.eq_ignore_ascii_case(SIMULATOR)).collect();
        let tenant = &parcel.manifest.tenant;
        let cohort = self.cohort(tenant, stream, now);
        tally.accepted(tenant, stream, cohort, u64::try_from(counted.len()).unwrap_or(u64::MAX));
        tally.at_domains(tenant, domains::day_of(now), counted);
    }

    /// Notes an outcome wherever it counts. The mailer has counted its call.
    fn observe(&self, parcel: &Parcel, recipients: &[usize], outcome: &Outcome, begun: Instant) {
        let (means, lane) = (&self.means, &parcel.lane());
        let now = means.clock.instant();
        if let Some(cure) = classify::cure(outcome) {
            self.alarms.consider(lane, outcome, cure, now);
        }
        if let (Outcome::Sent(_), Some(stream)) = (outcome, &lane.stream) {
            self.count(parcel, stream, recipients);
        }
        let failure = Cause::of(outcome);
        if failure == Some(Cause::Unknown) {
            journal::outcome_unknown(&parcel.manifest, recipients.len(), words(outcome));
        }
        let fraction = means.random.fraction();
        // Whom SES may have counts as sent: at its gates it is the one that costs.
        let taken = matches!(outcome, Outcome::Sent(_) | Outcome::Unknown(_)).then(|| {
            let recipients = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
            (recipients, parcel.calls.use_up(recipients))
        });
        let changes = {
            let mut board = self.board();
            if let Some((recipients, covered)) = taken {
                let at = means.clock.now();
                let sent = at.minus(now.saturating_duration_since(begun));
                board.gates.taken(lane, recipients, covered, sent, at);
            }
            board.answered(lane, failure, (begun, now), fraction, &self.options.waits)
        };
        for change in changes {
            self.follow(change, now);
        }
    }
}
