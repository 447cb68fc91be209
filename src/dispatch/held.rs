//! Held mail on its way: one message leased, judged anew, offered to SES, and done with, deferred or
//! given up.
//!
//! Promises: the attempt is recorded before the first call; whoever SES took the message for, or
//! refused it for, is never sent it again; what the tenant may no longer send, and who is suppressed
//! by now, is not sent. However this ends, the message is neither lost nor stuck: a lease that is
//! dropped comes due by itself.

use std::sync::Arc;
use std::time::Duration;

use super::alarm::words;
use super::join::{Joined, join};
use super::parcel::{Answered, Calls, Parcel, Passage};
use super::reserved::Reserved;
use super::{Dispatch, Ended};
use crate::journal;
use crate::mail::MessageId;
use crate::outbox::{Cause, Claim, Content, Deferral, Lane, Lease, Manifest, Mark, Progress};
use crate::policy::decide::{self, Stop};
use crate::policy::tenant::{FanOut, Handoff, StreamKind};
use crate::store::suppressions;
use crate::time::Timestamp;
use crate::upstream::Outcome;

/// How long a message waits that our own bounds on calls kept from being offered.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What a report says where the attempt that ended the message refused nobody.
const EARLIER: &str = "refused in an earlier attempt, or suppressed since it was accepted";

/// Why a message is not offered although its turn has come.
enum NotNow {
    /// It waits on.
    Later(Cause, String),
    /// It will never be sent.
    Never(String),
}

impl Dispatch {
    /// Makes an attempt at a message, whose recipients are reserved.
    pub(super) async fn send(self: Arc<Self>, claim: Claim, lane: &Lane, reserved: Reserved) -> Ended {
        let end = self.means.clock.now().plus(self.options.lease_time);
        let lease = match claim.lease(end).await {
            Ok(lease) => lease,
            Err(error) => {
                journal::outbox_deferred(&lane.tenant, lane.stream.as_ref(), &error.to_string());
                return Ended::Uncalled;
            }
        };
        let (manifest, raw) = match self.means.outbox.read(lease.id()).await {
            Ok(read) => read,
            Err(error) => {
                journal::body_damaged(lease.id(), &lane.tenant, lane.stream.as_ref(), &error.to_string());
                self.put_off(lease, Cause::Damaged, &error.to_string()).await;
                return Ended::Uncalled;
            }
        };
        let passage = match self.passage(&manifest) {
            Ok(passage) => passage,
            Err(not_now) => {
                match not_now {
                    NotNow::Later(cause, why) => self.put_off(lease, cause, &why).await,
                    NotNow::Never(why) => self.refuse(lease, &manifest, &why).await,
                }
                return Ended::Uncalled;
            }
        };
        let mut marks = lease.entry().progress.clone();
        if let Err(why) = self.drop_suppressed(&manifest, &mut marks).await {
            self.put_off(lease, Cause::Busy, &why).await;
            return Ended::Uncalled;
        }
        let content = Content { first: vec![raw.into()], draft: None };
        let parcel = Arc::new(Parcel { manifest, content, passage, calls: Arc::new(Calls::default()) });
        parcel.calls.reserve(reserved);
        parcel.calls.start(marks.clone(), true);
        let calls = parcel.spread(&marks.open());
        if calls.is_empty() {
            self.finish(lease, &parcel, marks, Vec::new()).await;
            return Ended::Uncalled;
        }
        let answers = Arc::clone(&self).call_all(Arc::clone(&parcel), calls).await;
        self.conclude(lease, &parcel, answers).await;
        Ended::Called
    }

    /// Ends an attempt, whether it began when the message was handed over or later.
    pub(super) async fn conclude(self: &Arc<Self>, lease: Lease, parcel: &Parcel, answers: Vec<Answered>) {
        for Answered { recipients, outcome } in &answers {
            match outcome {
                Outcome::Sent(taken) => {
                    journal::held_relayed(&parcel.manifest, &parcel.mailboxes(recipients), taken.ses_id());
                }
                Outcome::Refused(..) => {
                    for recipient in parcel.mailboxes(recipients) {
                        journal::held_refused(&parcel.manifest, &recipient, words(outcome));
                    }
                }
                Outcome::Retry(..) | Outcome::Paused(..) | Outcome::Unknown(_) => {}
            }
        }
        let marks = parcel.calls.marks();
        if marks.count(Mark::Open) == 0 {
            return self.finish(lease, parcel, marks, answers).await;
        }
        let outcomes: Vec<Outcome> = answers.iter().map(|answer| answer.outcome.clone()).collect();
        let why = match join(&outcomes) {
            Joined::Deferred { why, .. } | Joined::Refused { why } => outcomes.get(why).cloned(),
            Joined::Taken { .. } | Joined::Nothing => None,
        };
        let why = why.unwrap_or_else(|| Outcome::Unknown("no outcome".into()));
        let cause = Cause::of(&why).unwrap_or(Cause::Unrecognised);
        let unknown = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Unknown(_))).count();
        let until = self.wait_of(lease.lane(), cause, lease.entry().attempts);
        let deferral = Deferral {
            until,
            cause,
            words: words(&why).to_owned(),
            progress: marks,
            unknown: u32::try_from(unknown).unwrap_or(u32::MAX),
        };
        self.defer(lease, deferral).await;
    }

    /// When a message may be tried again that waits for `cause` after so many attempts; `None`: when
    /// its turn comes, for something else says when.
    pub(super) fn wait_of(&self, lane: &Lane, cause: Cause, attempts: u32) -> Option<Timestamp> {
        let now = self.means.clock.now();
        match cause {
            Cause::Busy => return Some(now.plus(BUSY_WAIT)),
            // The breaker has the wait, and the lane keeps its order: without a connection no message
            // is to blame.
            Cause::Network if self.board().is_shut(lane) => return None,
            _ => {}
        }
        let wait = self.options.waits.of_message(cause, attempts, self.means.random.fraction());
        (wait > Duration::ZERO).then(|| now.plus(wait))
    }

    /// By what a held message leaves now.
    fn passage(&self, manifest: &Manifest) -> Result<Passage, NotNow> {
        let Some(stream) = &manifest.stream else { return self.passage_of_report() };
        let directory = self.means.directory.load();
        let tenant = directory.tenant(&manifest.tenant);
        let later = |stop: &Stop| NotNow::Later(Cause::Standing, stop.reason().name().to_owned());
        let leaving = decide::leaving(tenant.map(|tenant| &**tenant), stream).into_result();
        let (Ok(stream), Some(tenant)) = (&leaving, tenant) else {
            return Err(leaving.as_ref().err().map_or(NotNow::Later(Cause::Standing, "tenant_gone".into()), later));
        };
        match decide::still_owned(tenant, &manifest.claims).into_result() {
            Ok(()) => {}
            Err(stop @ Stop::Defer(..)) => return Err(later(&stop)),
            Err(stop @ Stop::Refuse(_)) => return Err(NotNow::Never(stop.reason().name().to_owned())),
        }
        Ok(Passage {
            configuration_set: stream.configuration_set.clone(),
            ses_tenant: tenant.ses_tenant.clone(),
            fan_out: stream.fan_out,
            kind: stream.kind,
            handoff: stream.handoff,
        })
    }

    fn passage_of_report(&self) -> Result<Passage, NotNow> {
        match &self.options.reports {
            Some(reports) => Ok(Passage {
                configuration_set: reports.configuration_set.clone(),
                ses_tenant: None,
                fan_out: FanOut::Single,
                kind: StreamKind::Transactional,
                handoff: Handoff::Queue,
            }),
            None => Err(NotNow::Later(Cause::Standing, "notify.from is not set".into())),
        }
    }

    /// Marks recipients that were suppressed since the message was accepted.
    async fn drop_suppressed(&self, manifest: &Manifest, marks: &mut Progress) -> Result<(), String> {
        let Some(stream) = &manifest.stream else { return Ok(()) };
        let directory = self.means.directory.load_full();
        let Some(stream) = directory.tenant(&manifest.tenant).and_then(|tenant| tenant.streams.get(stream)) else {
            return Ok(());
        };
        let now = self.means.clock.now();
        for at in marks.open() {
            let Some(mailbox) = manifest.recipients.get(at) else { continue };
            let entries =
                suppressions::binding(&*self.means.store, &manifest.tenant, mailbox, self.options.account_list)
                    .await
                    .map_err(|error| format!("the store cannot tell whom it suppresses: {error}"))?;
            if let Err(stop) = decide::recipient_under(stream, &entries, now).into_result() {
                journal::held_refused(manifest, mailbox, stop.reason().name());
                marks.mark(at, Mark::Refused);
            }
        }
        Ok(())
    }

    /// The message is done with: everybody is served or refused.
    async fn finish(self: &Arc<Self>, lease: Lease, parcel: &Parcel, marks: Progress, answers: Vec<Answered>) {
        let manifest = &parcel.manifest;
        let held = self.means.clock.now().since(manifest.created);
        let (sent, refused) = (marks.count(Mark::Taken), marks.count(Mark::Refused));
        let (attempts, unknown) = (lease.entry().attempts, lease.entry().unknown);
        if let Err(error) = lease.complete().await {
            journal::outbox_deferred(&manifest.tenant, manifest.stream.as_ref(), &error.to_string());
            // The row stays. Its file says that nobody is left, to whoever takes it up again.
            self.means.outbox.note_progress(manifest.id, &marks).await;
            return;
        }
        self.forget_unserved(manifest, sent);
        journal::message_dispatched(manifest, sent, refused, attempts, unknown, held);
        if refused > 0 {
            self.report(manifest, &marks, refusal_in(&answers), false).await;
        }
    }

    /// The message will never be sent.
    async fn refuse(self: &Arc<Self>, lease: Lease, manifest: &Manifest, why: &str) {
        let held = self.means.clock.now().since(manifest.created);
        let mut marks = lease.entry().progress.clone();
        let (attempts, unknown) = (lease.entry().attempts, lease.entry().unknown);
        for at in marks.open() {
            if let Some(recipient) = manifest.recipients.get(at) {
                journal::held_refused(manifest, recipient, why);
            }
            marks.mark(at, Mark::Refused);
        }
        if let Err(error) = lease.complete().await {
            journal::outbox_deferred(&manifest.tenant, manifest.stream.as_ref(), &error.to_string());
            return;
        }
        let (sent, refused) = (marks.count(Mark::Taken), marks.count(Mark::Refused));
        self.forget_unserved(manifest, sent);
        journal::message_dispatched(manifest, sent, refused, attempts, unknown, held);
        self.report(manifest, &marks, why, false).await;
    }

    /// A message that reached nobody is no first one: who sends it again is to be heard.
    fn forget_unserved(&self, manifest: &Manifest, sent: usize) {
        if let (0, Some(digest)) = (sent, &manifest.digest) {
            self.repeats.forget(&manifest.tenant, digest, manifest.id);
        }
    }

    /// The message is too old: it is given up. Whether it could be.
    pub(super) async fn expire(self: &Arc<Self>, id: MessageId) -> bool {
        let manifest = self.means.outbox.manifest(id).await;
        let (slot, entry) = match self.means.outbox.discard(id).await {
            Ok(discarded) => discarded,
            // It was finished or taken up meanwhile, or the store does not work: another time.
            Err(_) => return false,
        };
        journal::message_expired(id, &slot.lane.tenant, slot.lane.stream.as_ref(), &entry, self.means.clock.now());
        if let Ok(manifest) = manifest {
            let why = if entry.words.is_empty() { entry.cause.word() } else { &entry.words };
            self.report(&manifest, &entry.progress, why, true).await;
        }
        true
    }

    /// An attempt that made no call: the message waits on.
    async fn put_off(self: &Arc<Self>, lease: Lease, cause: Cause, why: &str) {
        let until = self.wait_of(lease.lane(), cause, lease.entry().attempts);
        let progress = lease.entry().progress.clone();
        self.defer(lease, Deferral { until, cause, words: why.to_owned(), progress, unknown: 0 }).await;
    }

    async fn defer(self: &Arc<Self>, lease: Lease, deferral: Deferral) {
        let now = self.means.clock.now();
        let (id, lane) = (lease.id(), lease.lane().clone());
        let (attempts, cause, said) = (lease.entry().attempts, deferral.cause, deferral.words.clone());
        let wait = deferral.until.map(|until| until.since(now));
        match lease.defer(deferral, now).await {
            Ok(()) => {
                journal::message_deferred(id, &lane.tenant, lane.stream.as_ref(), attempts, cause.word(), &said, wait)
            }
            Err(error) => journal::outbox_deferred(&lane.tenant, lane.stream.as_ref(), &error.to_string()),
        }
    }
}

/// SES's words in the first refusal among these answers.
pub(super) fn refusal_in(answers: &[Answered]) -> &str {
    let refusals =
        answers.iter().map(|answer| &answer.outcome).filter(|outcome| matches!(outcome, Outcome::Refused(..)));
    refusals.map(words).next().unwrap_or(EARLIER)
}
