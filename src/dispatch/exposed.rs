//! What is out unheard of: outcomes come in, reservations come back, and the windows are kept.
//!
//! Promises: whoever waits for what came back is looked at again at once. A window that changed is on the
//! disk a second later, in batches; what a crash loses is growth alone, since a window that was cut is cut
//! again by the standing that is durable.

use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Dispatch;
use super::past::KEEP;
use crate::journal;
use crate::outbox::Lane;
use crate::policy::explain::{EXPOSURE, Gate};
use crate::policy::exposure::{OutcomeKind, View};
use crate::policy::warmup::day_of;
use crate::store::{BATCH_ITEMS, Batch, If, Key, record};
use crate::time::Timestamp;

impl Dispatch {
    /// What became of so many recipients of a lane's mail that SES was given at `sent`, by its clock: to
    /// be told once, after it is durable.
    pub fn outcomes(&self, lane: &Lane, sent: Timestamp, recipients: u32, kind: OutcomeKind) {
        let at = self.means.clock.now();
        let waiting = {
            let mut board = self.board();
            let has_room = board.gates.outcome(lane, sent, recipients, kind, at);
            if has_room { board.take_gated_by(lane) } else { Vec::new() }
        };
        self.look_again(waiting);
    }

    /// How a stream's exposure window stands; `None` where none is in force.
    pub fn exposure(&self, lane: &Lane) -> Option<View> {
        self.board().gates.view(lane, self.means.clock.now())
    }

    /// The gates of a lane that are no breaker, no rate and no cap, as `explain` shows them: its exposure
    /// window.
    pub fn gates_of(&self, lane: &Lane) -> Vec<Gate> {
        let Some(View { window, outstanding, reserved, round, outcomes, bad }) = self.exposure(lane) else {
            return Vec::new();
        };
        let out = outstanding + reserved;
        let limit = match window {
            Some(window) => format!("{window} ({outcomes} outcomes of the {round} that decide, {bad} bad)"),
            None => "open".into(),
        };
        vec![Gate {
            name: EXPOSURE.into(),
            value: format!("{out} recipients without an outcome"),
            limit,
            open: window.is_none_or(|window| out < window),
            until: None,
        }]
    }

    /// Reserved recipients are not offered.
    pub(super) fn give_back(&self, lane: &Lane, recipients: u32) {
        let waiting = {
            let mut board = self.board();
            board.gates.give_back(lane, recipients);
            board.take_gated_by(lane)
        };
        self.look_again(waiting);
    }

    fn look_again(&self, lanes: Vec<Lane>) {
        if !lanes.is_empty() {
            self.refresh(lanes, &self.means.directory.load());
            self.news.notify_one();
        }
    }

    /// Keeps the windows that change, and takes the ladders up at midnight, until the drain.
    pub(super) async fn keep_windows(self: Arc<Self>, drain: CancellationToken) {
        let mut day = day_of(self.means.clock.now());
        while timeout(KEEP, drain.cancelled()).await.is_err() {
            while self.keep_some().await == Some(true) {}
            let today = day_of(self.means.clock.now());
            if today != day {
                match self.climb().await {
                    Ok(()) => {
                        day = today;
                        self.unpark_gated();
                    }
                    Err(error) => journal::counts_unknown(&error.to_string()),
                }
            }
        }
    }

    /// Keeps some of the windows that changed; whether there may be more. `None`: the store did not take
    /// them.
    pub(super) async fn keep_some(&self) -> Option<bool> {
        let (kept, unseen) = self.board().gates.take_unkept(BATCH_ITEMS, self.means.clock.now());
        for lane in unseen {
            journal::deliveries_unseen(&lane.tenant, lane.stream.as_ref());
        }
        if kept.is_empty() {
            return Some(false);
        }
        let mut batch = Batch::new();
        for (lane, window) in &kept {
            if let Some(stream) = &lane.stream {
                batch.put(Key::exposure(&lane.tenant, stream), If::Any, record::seal(window));
            }
        }
        if self.means.store.commit(batch).await.is_ok() {
            return Some(kept.len() == BATCH_ITEMS);
        }
        let mut board = self.board();
        kept.iter().for_each(|(lane, _)| board.gates.not_kept(lane));
        None
    }
}
