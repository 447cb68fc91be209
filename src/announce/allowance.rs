//! How many mails a recipient gets in an hour, and how what waits is spread over them.
//!
//! Promises: no recipient gets more than its allowance in any hour; nobody waits who need not.
//! Nothing is dropped: what is over waits, and goes in one mail when there is room again. The
//! allowance is forgotten at a restart. A clock that was set back owes nobody a wait.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::time::Timestamp;

/// The time for which the allowance is.
const WINDOW: Duration = Duration::from_secs(3600);

/// When whom a mail was sent to.
#[derive(Clone, Debug)]
pub struct Allowance {
    mails: usize,
    sent: HashMap<String, VecDeque<Timestamp>>,
}

impl Allowance {
    /// So many mails an hour for each recipient, one at least.
    pub fn new(mails: usize) -> Self {
        Self { mails: mails.max(1), sent: HashMap::new() }
    }

    /// How many may be sent to a recipient now.
    pub fn room(&self, recipient: &str, now: Timestamp) -> usize {
        self.mails.saturating_sub(self.recent(recipient, now).count())
    }

    /// When there is room for one more.
    pub fn next(&self, recipient: &str, now: Timestamp) -> Timestamp {
        let (room, mut recent) = (self.room(recipient, now), self.recent(recipient, now));
        if room > 0 { now } else { recent.next().map_or(now, |first| first.plus(WINDOW)) }
    }

    /// Notes one that was sent.
    pub fn spend(&mut self, recipient: &str, now: Timestamp) {
        self.sent.retain(|_, sent| {
            sent.retain(|at| counts(*at, now));
            !sent.is_empty()
        });
        self.sent.entry(recipient.to_owned()).or_default().push_back(now);
    }

    /// Recipients who had any in the last hour.
    pub fn recipients(&self) -> usize {
        self.sent.len()
    }

    fn recent(&self, recipient: &str, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.sent.get(recipient).into_iter().flatten().copied().filter(move |at| counts(*at, now))
    }
}

fn counts(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at) < WINDOW
}

/// How many announcements go into the next mail, of so many that wait where there is `room` for so
/// many mails: one each, while the last of the room is not for all the rest.
pub fn share(waiting: usize, room: usize) -> usize {
    match room {
        0 => 0,
        1 => waiting,
        _ => waiting.min(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_777_000_000_000 + seconds * 1000)
    }

    #[test]
    fn no_hour_has_more_than_the_allowance() {
        let mut allowance = Allowance::new(3);
        let mut sent: Vec<u64> = Vec::new();
        let mut refused = 0;
        // Somebody who always has something to say.
        for second in (0..20_000).step_by(7) {
            if allowance.room("a@x.example", at(second)) > 0 {
                assert_eq!(allowance.next("a@x.example", at(second)), at(second));
                allowance.spend("a@x.example", at(second));
                sent.push(second);
            } else {
                refused += 1;
                let next = allowance.next("a@x.example", at(second));
                assert!(next > at(second) && allowance.room("a@x.example", next) == 1);
            }
        }
        assert!(refused > 1000);
        assert!(sent.len() > 15, "{sent:?}");
        for window in sent.windows(4) {
            assert!(window[3] - window[0] >= 3600, "{window:?}");
        }
    }

    #[test]
    fn recipients_do_not_share_and_are_forgotten() {
        let mut allowance = Allowance::new(1);
        for n in 0..100 {
            allowance.spend(&format!("{n}@x.example"), at(n));
        }
        assert_eq!(allowance.recipients(), 100);
        assert_eq!((allowance.room("5@x.example", at(100)), allowance.room("other@x.example", at(100))), (0, 1));
        allowance.spend("late@x.example", at(3_650));
        assert_eq!(allowance.recipients(), 50, "those of the first 50 seconds are an hour old");
        // A clock that was set back by a day keeps nobody waiting for one.
        let before = Timestamp::from_millis(at(0).millis() - 86_400_000);
        assert_eq!(allowance.room("late@x.example", before), 1);
    }

    #[test]
    fn the_last_room_is_for_all_the_rest() {
        for (waiting, room, mails) in [
            (0, 10, vec![]),
            (1, 1, vec![1]),
            (3, 10, vec![1, 1, 1]),
            (3, 3, vec![1, 1, 1]),
            (500, 3, vec![1, 1, 498]),
            (5, 0, vec![]),
        ] {
            let (mut left, mut room, mut sizes) = (waiting, room, Vec::new());
            while share(left, room) > 0 {
                sizes.push(share(left, room));
                left -= share(left, room);
                room -= 1;
            }
            assert_eq!(sizes, mails, "{waiting} waiting");
        }
    }
}
