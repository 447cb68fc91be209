//! The hand-over of a message that has just come in: to SES at once where that is possible, to the
//! outbox where it is not.
//!
//! Promises: whatever is answered 250 is with SES or durable here, for every recipient that SES did
//! not refuse for good; with SES healthy nothing is written. When the data deadline nears, the
//! message is held while its call goes on, so that a slow answer of SES's still counts and nobody
//! gets the message twice. What cannot be held is never acknowledged, and goes to SES if SES may be
//! asked: as the probe, where a breaker waits for one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Dispatch;
use super::alarm::words;
use super::board::{Asking, Kept};
use super::held::refusal_in;
use super::join::{Joined, join};
use super::pace::Slot;
use super::parcel::{Answered, Parcel};
use super::repeats::Begun;
use super::reserved::Reserved;
use crate::mail::{MessageId, Receipt, Taken};
use crate::outbox::recover::Remembered;
use crate::outbox::{Cause, HoldError, Holding, Lane, Order, Progress, Start};
use crate::policy::tenant::Handoff;
use crate::time::Timestamp;
use crate::upstream::{Outcome, Retry};

/// What became of a message.
#[derive(Debug)]
pub struct HandedOver {
    /// How it ended.
    pub how: How,
    /// The calls that were made, with their answers.
    pub answers: Vec<Answered>,
    /// From the first call's beginning to the last answer, or to the hold.
    pub ses: Duration,
}

/// How a hand-over ended.
#[derive(Debug)]
pub enum How {
    /// SES has it for one recipient at least, and refused the others for good.
    Relayed(Receipt),
    /// The outbox has it, for whom SES has neither taken nor refused it.
    Held {
        /// What makes the 250.
        receipt: Receipt,
        /// Why.
        cause: Cause,
        /// SES's words, if it said any.
        words: String,
    },
    /// It was accepted before, and the client hears the same again.
    Repeated {
        /// As which message.
        first: MessageId,
        /// The first answer.
        receipt: Receipt,
    },
    /// SES refused it for everybody, for good: the outcome that says most.
    Refused(Outcome),
    /// It may pass later, and is not held.
    Deferred {
        /// Why it does not pass now.
        cause: Cause,
        /// SES's words, if it said any.
        words: String,
        /// From when it may pass, if that is known.
        until: Option<Timestamp>,
        /// Why it is not held.
        error: HoldError,
    },
}

/// New mail on its way as a probe: given up if it ends without a call's outcome.
struct Probe {
    dispatch: Arc<Dispatch>,
    lane: Lane,
    is_told: bool,
}

impl HandedOver {
    /// The receipts of SES for this message.
    pub fn taken(&self) -> Vec<Taken> {
        let taken = |answer: &Answered| match &answer.outcome {
            Outcome::Sent(taken) => Some(taken.clone()),
            Outcome::Retry(..) | Outcome::Refused(..) | Outcome::Paused(..) | Outcome::Unknown(_) => None,
        };
        self.answers.iter().filter_map(taken).collect()
    }

    /// For how many recipients SES has it.
    pub fn sent(&self) -> usize {
        let sent = |answer: &&Answered| matches!(answer.outcome, Outcome::Sent(_));
        self.answers.iter().filter(sent).map(|answer| answer.recipients.len()).sum()
    }

    fn without_calls(how: How) -> Self {
        Self { how, answers: Vec::new(), ses: Duration::ZERO }
    }
}

impl Dispatch {
    /// Takes a message over, with an answer by `deadline` if the disk allows it at all.
    pub async fn hand_over(self: &Arc<Self>, parcel: Parcel, deadline: Instant) -> HandedOver {
        let Some(digest) = parcel.manifest.digest.clone().filter(|_| self.repeats.is_on()) else {
            return self.take(parcel, deadline).await;
        };
        loop {
            self.forget_given_up();
            match self.repeats.begin(&parcel.manifest.tenant, &digest, self.means.clock.now()) {
                Begun::First(ticket) => {
                    let id = parcel.manifest.id;
                    let handed = self.take(parcel, deadline).await;
                    if let How::Relayed(receipt) | How::Held { receipt, .. } = &handed.how {
                        ticket.accepted(id, receipt.clone(), self.means.clock.now());
                    }
                    return handed;
                }
                Begun::Repeat(first, receipt) => {
                    return HandedOver::without_calls(How::Repeated { first, receipt });
                }
                // The first began before this one, so its deadline comes before this one's.
                Begun::UnderWay(mut done) => {
                    let _ = done.changed().await;
                }
            }
        }
    }

    /// Whoever sends again what was given up meanwhile, and reached nobody, is to hear of it anew.
    pub(super) fn forget_given_up(&self) {
        for Remembered { tenant, digest, id, .. } in self.means.outbox.take_given_up() {
            self.repeats.forget(&tenant, &digest, id);
        }
    }

    async fn take(self: &Arc<Self>, parcel: Parcel, deadline: Instant) -> HandedOver {
        let (slot, mut probe) = match self.admit(&parcel).await {
            Ok(admitted) => admitted,
            Err(how) => return HandedOver::without_calls(how),
        };
        parcel.calls.reserve(Reserved::of(self, parcel.lane(), count(&parcel), slot));
        let began = self.means.clock.instant();
        let everybody: Vec<usize> = (0..parcel.manifest.recipients.len()).collect();
        let calls = parcel.spread(&everybody);
        parcel.calls.start(Progress::none(everybody.len()), false);
        let parcel = Arc::new(parcel);
        let all = Arc::clone(self).call_all(Arc::clone(&parcel), calls);
        let mut calling = Box::pin(async move {
            let answers = all.await;
            let was_made = |answer: &Answered| !matches!(answer.outcome, Outcome::Retry(Retry::Busy, _));
            if answers.iter().any(was_made)
                && let Some(probe) = &mut probe
            {
                probe.is_told = true;
            }
            answers
        });
        let late = tokio::select! {
            biased;
            answers = &mut calling => Ok(answers),
            () = sleep_until(deadline) => Err(Cause::Deadline),
            () = self.hurry.cancelled() => Err(Cause::Drain),
        };
        let answers = match late {
            Ok(answers) => answers,
            Err(cause) => {
                let end = self.means.clock.now().plus(self.options.lease_time);
                let holding = Holding {
                    manifest: &parcel.manifest,
                    content: &parcel.content,
                    // Whom the calls have reached so far; the others they reach are noted from now on.
                    progress: parcel.calls.marks(),
                    cause,
                    words: "",
                    unknown: 0,
                    until: Start::Leased(end),
                };
                match self.means.outbox.hold(holding).await {
                    Ok((durable, lease)) => {
                        parcel.calls.held();
                        let ses = self.means.clock.instant().saturating_duration_since(began);
                        if let Some(lease) = lease {
                            let (dispatch, parcel) = (Arc::clone(self), Arc::clone(&parcel));
                            let abandon = self.abandon.clone();
                            self.tasks.spawn(async move {
                                // A call that is cut off leaves its lease behind.
                                let attempt = async { dispatch.conclude(lease, &parcel, calling.await).await };
                                abandon.run_until_cancelled(attempt).await;
                            });
                        }
                        let how = How::Held { receipt: Receipt::held(durable), cause, words: String::new() };
                        return HandedOver { how, answers: Vec::new(), ses };
                    }
                    // What cannot be held goes on with the call: its answer is all there can be.
                    Err(_) => calling.await,
                }
            }
        };
        let ses = self.means.clock.instant().saturating_duration_since(began);
        let how = self.end(&parcel, &answers).await;
        if matches!(how, How::Relayed(_)) && answers.iter().any(|answer| matches!(answer.outcome, Outcome::Refused(..)))
        {
            self.report_later(parcel, answers.clone());
        }
        HandedOver { how, answers, ses }
    }

    /// Reports on recipients that SES refused of a message which others get, behind the reply's back.
    fn report_later(self: &Arc<Self>, parcel: Arc<Parcel>, answers: Vec<Answered>) {
        let dispatch = Arc::clone(self);
        self.tasks.spawn(async move {
            dispatch.report(&parcel.manifest, &parcel.calls.marks(), refusal_in(&answers), false).await;
        });
    }

    /// From the answers of a message's calls to how it ended; holds what may pass later.
    async fn end(self: &Arc<Self>, parcel: &Parcel, answers: &[Answered]) -> How {
        let outcomes: Vec<Outcome> = answers.iter().map(|answer| answer.outcome.clone()).collect();
        match join(&outcomes) {
            Joined::Taken { .. } => match receipt(parcel.manifest.id, answers) {
                Some(receipt) => How::Relayed(receipt),
                None => How::Refused(Outcome::Unknown("taken without an id".into())),
            },
            Joined::Refused { why } => How::Refused(said(&outcomes, why)),
            Joined::Deferred { why, .. } => {
                let why = said(&outcomes, why);
                let cause = Cause::of(&why).unwrap_or(Cause::Unrecognised);
                let unknown = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Unknown(_))).count();
                self.hold(parcel, parcel.calls.marks(), cause, words(&why), u32::try_from(unknown).unwrap_or(u32::MAX))
                    .await
            }
            Joined::Nothing => How::Refused(Outcome::Unknown("there was no call to make".into())),
        }
    }

    async fn hold(
        self: &Arc<Self>,
        parcel: &Parcel,
        progress: Progress,
        cause: Cause,
        words: &str,
        unknown: u32,
    ) -> How {
        let holding = Holding {
            manifest: &parcel.manifest,
            content: &parcel.content,
            progress,
            cause,
            words,
            unknown,
            until: match self.wait_of(&parcel.lane(), cause, 1) {
                Some(until) => Start::At(until),
                None => Start::Ready,
            },
        };
        match self.means.outbox.hold(holding).await {
            Ok((durable, _)) => How::Held { receipt: Receipt::held(durable), cause, words: words.to_owned() },
            Err(error) => How::Deferred { cause, words: words.to_owned(), until: None, error },
        }
    }

    /// From when the calls of a message may begin, and its probe if it is one; a message that may not go now
    /// is held, and one that cannot be held goes if it may all the same. Else how it ended.
    async fn admit(self: &Arc<Self>, parcel: &Parcel) -> Result<(Slot, Option<Probe>), How> {
        let kept = match self.may_go_at_once(parcel) {
            Ok(slot) => return Ok((slot, None)),
            Err(kept) => kept,
        };
        let progress = Progress::none(parcel.manifest.recipients.len());
        let mut how = self.hold(parcel, progress, kept.cause, "", 0).await;
        if let (How::Deferred { until, .. }, Some(at)) = (&mut how, kept.until) {
            let ahead = at.saturating_duration_since(self.means.clock.instant());
            *until = Some(self.means.clock.now().plus(ahead));
        }
        match self.last_resort(parcel, &how) {
            Some((slot, is_probe)) => Ok((slot, is_probe.then(|| self.probe_of(parcel)))),
            None => Err(how),
        }
    }

    /// What cannot be held goes to SES if it may go now, whatever it was to be held for; says from when its
    /// calls may begin, and whether as a probe.
    fn last_resort(&self, parcel: &Parcel, how: &How) -> Option<(Slot, bool)> {
        if !matches!(how, How::Deferred { .. }) {
            return None;
        }
        let lane = parcel.lane();
        let waiting = self.means.outbox.with_index(|index| index.lane(&lane));
        let asking = Asking { lane: &lane, kind: parcel.passage.kind, recipients: count(parcel), waiting };
        self.board().last_resort(&asking, self.moment())
    }

    fn probe_of(self: &Arc<Self>, parcel: &Parcel) -> Probe {
        Probe { dispatch: Arc::clone(self), lane: parcel.lane(), is_told: false }
    }

    /// Whether a message may be offered to SES at once, and its recipients are reserved; else why it is
    /// held.
    fn may_go_at_once(&self, parcel: &Parcel) -> Result<Slot, Kept> {
        if parcel.passage.handoff == Handoff::Queue {
            return Err(Cause::Handoff.into());
        }
        let lane = parcel.lane();
        let manifest = &parcel.manifest;
        let (waiting, overtakes) = self.means.outbox.with_index(|index| {
            let state = index.lane(&lane);
            let overtakes =
                state.waiting > 0 && index.would_overtake(&lane, Order::of(manifest.session, &manifest.recipients));
            (state, overtakes)
        });
        if overtakes {
            return Err(Cause::Backlog.into());
        }
        let asking = Asking { lane: &lane, kind: parcel.passage.kind, recipients: count(parcel), waiting };
        let moment = self.moment();
        let mut board = self.board();
        if !board.gates.knows(&lane) {
            self.acquaint(&mut board, [&lane], &self.means.directory.load(), moment);
        }
        board.direct(&asking, moment)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.is_told {
            self.dispatch.board().abandoned(&self.lane);
            self.dispatch.unpark();
        }
    }
}

/// The receipt of a message that SES has.
fn receipt(id: MessageId, answers: &[Answered]) -> Option<Receipt> {
    let taken = |answer: &Answered| match &answer.outcome {
        Outcome::Sent(taken) => Some((taken.clone(), answer.recipients.len())),
        Outcome::Retry(..) | Outcome::Refused(..) | Outcome::Paused(..) | Outcome::Unknown(_) => None,
    };
    let taken: Vec<(Taken, usize)> = answers.iter().filter_map(taken).collect();
    match taken.as_slice() {
        [(one, _)] if answers.len() == 1 => Some(Receipt::one(one.clone())),
        several => {
            let sent = several.iter().map(|(_, recipients)| recipients).sum();
            let taken: Vec<Taken> = several.iter().map(|(taken, _)| taken.clone()).collect();
            Receipt::several(id, &taken, sent)
        }
    }
}

fn count(parcel: &Parcel) -> u32 {
    u32::try_from(parcel.manifest.recipients.len()).unwrap_or(u32::MAX)
}

fn said(outcomes: &[Outcome], why: usize) -> Outcome {
    outcomes.get(why).cloned().unwrap_or_else(|| Outcome::Unknown("no outcome".into()))
}
