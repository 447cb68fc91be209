//! A message on its way to SES: what it is, by what it leaves, to whom in which calls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::reserved::Reserved;
use crate::mail::{ConfigurationSet, Mailbox, SesTenant};
use crate::outbox::{Content, Lane, Manifest, Mark, Progress};
use crate::policy::tenant::{FanOut, Handoff, StreamKind};
use crate::upstream::{CALL_RECIPIENTS, Outcome};

/// Up to this many octets a message goes to each recipient by a call of its own: exact attribution,
/// and one bad address spoils nobody (SES Developer Guide, managing sending quotas).
pub const SINGLE_BYTES: u64 = 1024 * 1024;

/// By what a message leaves: what its stream says at the moment of sending.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passage {
    /// Its stream's configuration set.
    pub configuration_set: ConfigurationSet,
    /// Its tenant's SES tenant.
    pub ses_tenant: Option<SesTenant>,
    /// How its recipients are spread over calls.
    pub fan_out: FanOut,
    /// Its class.
    pub kind: StreamKind,
    /// Whether it goes through at once or always by the outbox.
    pub handoff: Handoff,
}

/// A message that is to leave.
#[derive(Debug)]
pub struct Parcel {
    /// What is known of it.
    pub manifest: Manifest,
    /// Its octets.
    pub content: Content,
    /// By what it leaves.
    pub passage: Passage,
    /// How its calls stand and what has become of its recipients, also for who cuts it short.
    pub calls: Arc<Calls>,
}

/// How the calls of a message stand while they are made.
#[derive(Debug, Default)]
pub struct Calls {
    under_way: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What has become of its recipients.
    marks: Progress,
    /// It is held: what becomes of them is to be noted in its file.
    is_held: bool,
    /// What is reserved for them at their lane's gates.
    reserved: Option<Reserved>,
}

/// What came of one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// To whom it was: places in the manifest.
    pub recipients: Vec<usize>,
    /// What came of it; of one that was not made, that it may pass later.
    pub outcome: Outcome,
}

impl Parcel {
    /// Its lane.
    pub fn lane(&self) -> Lane {
        Lane::of(&self.manifest)
    }

    /// The recipients at these places.
    pub fn mailboxes(&self, places: &[usize]) -> Vec<Mailbox> {
        places.iter().filter_map(|at| self.manifest.recipients.get(*at).cloned()).collect()
    }

    /// The recipients of each call, when these are still to be served.
    pub fn spread(&self, open: &[usize]) -> Vec<Vec<usize>> {
        spread(open, self.passage.fan_out, self.content.len())
    }
}

impl Calls {
    /// How many have begun and not ended.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// They are about to begin, and this has become of the recipients so far.
    pub(super) fn start(&self, marks: Progress, is_held: bool) {
        let mut known = self.known();
        (known.marks, known.is_held) = (marks, is_held);
    }

    /// So much is reserved for them.
    pub(super) fn reserve(&self, reserved: Reserved) {
        let before = self.known().reserved.replace(reserved);
        drop(before);
    }

    /// From when a call may begin that comes after calls for so many others; `None`: at any time.
    pub(super) fn begins_after(&self, others: u32) -> Option<Instant> {
        self.known().reserved.as_ref()?.slot().after(others)
    }

    /// SES has so many, or may; how many of them were reserved.
    pub(super) fn use_up(&self, recipients: u32) -> u32 {
        self.known().reserved.as_mut().map_or(0, |reserved| reserved.use_up(recipients))
    }

    /// No further call is made: what is left of the reservation goes back.
    pub(super) fn release(&self) {
        // Not while this lock is held: it has the board's to take.
        let left = self.known().reserved.take();
        drop(left);
    }

    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes an answer in; gives the marks if they are to be noted.
    pub(super) fn answered(&self, recipients: &[usize], outcome: &Outcome) -> Option<Progress> {
        let mut known = self.known();
        known.marks.take(recipients, mark_of(outcome)?);
        known.is_held.then(|| known.marks.clone())
    }

    /// What has become of the recipients so far.
    pub(super) fn marks(&self) -> Progress {
        self.known().marks.clone()
    }

    /// The message is held from now on.
    pub(super) fn held(&self) {
        self.known().is_held = true;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mark that an outcome gives; `None` for one that may pass later.
fn mark_of(outcome: &Outcome) -> Option<Mark> {
    match outcome {
        Outcome::Sent(_) => Some(Mark::Taken),
        Outcome::Refused(..) => Some(Mark::Refused),
        Outcome::Retry(..) | Outcome::Paused(..) | Outcome::Unknown(_) => None,
    }
}

fn spread(open: &[usize], fan_out: FanOut, bytes: u64) -> Vec<Vec<usize>> {
    let most = match fan_out {
        FanOut::Single if bytes <= SINGLE_BYTES => 1,
        FanOut::Single | FanOut::Batch => CALL_RECIPIENTS,
    };
    open.chunks(most).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let open: Vec<usize> = (0..recipients).collect();
            let calls = spread(&open, fan_out, bytes);
            assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            assert_eq!(calls.concat(), open, "nobody is lost, doubled or moved");
        }
    }
}
