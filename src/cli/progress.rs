//! How far a long command has come: a bar on a terminal, a line now and then elsewhere.
//!
//! On standard error, so that the answer stays alone on standard output. Promises: nothing at all with
//! `--json`; on a terminal one line that is drawn anew, a few times a second at most, and is gone at
//! the end; elsewhere a line each [`EACH`] entries, and each [`SILENCE`] if they are slow.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::adapters::clock::MachineClock;
use crate::time::Clock as _;

/// How often a bar is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// After how many entries there is a line, where there is no terminal.
pub(super) const EACH: usize = 100_000;
/// Longest time without one.
const SILENCE: Duration = Duration::from_secs(10);
/// Columns of the bar itself.
const WIDTH: usize = 24;

/// Where and how it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Nowhere,
    Terminal,
    Lines,
}

/// The progress of one command.
pub(super) struct Progress {
    place: Place,
    /// Octets of the whole file, where that is known.
    whole: Option<u64>,
    began: Instant,
    shown: Instant,
    told: usize,
}

impl Progress {
    /// `quiet` with `--json`; `whole`: how many octets there are.
    pub(super) fn new(quiet: bool, whole: Option<u64>) -> Self {
        let place = if quiet {
            Place::Nowhere
        } else if io::stderr().is_terminal() {
            Place::Terminal
        } else {
            Place::Lines
        };
        let now = MachineClock.instant();
        Self { place, whole, began: now, shown: now, told: 0 }
    }

    /// So many entries are done, and so many octets read.
    pub(super) fn at(&mut self, entries: usize, octets: u64) {
        if let Some(text) = self.text(entries, octets, MachineClock.instant()) {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }

    /// Takes the bar away, for a remark or at the end.
    pub(super) fn clear(&self) {
        if self.place == Place::Terminal {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }

    /// What is to be shown at `now`, if anything.
    fn text(&mut self, entries: usize, octets: u64, now: Instant) -> Option<String> {
        let quiet_for = now.duration_since(self.shown);
        let due = match self.place {
            Place::Nowhere => false,
            Place::Terminal => quiet_for >= DRAW,
            Place::Lines => entries / EACH > self.told / EACH || (quiet_for >= SILENCE && entries > self.told),
        };
        if !due {
            return None;
        }
        (self.shown, self.told) = (now, entries);
        let part = self.whole.filter(|whole| *whole > 0).map(|whole| share(octets, whole));
        let spent = now.duration_since(self.began);
        Some(match self.place {
            Place::Nowhere => return None,
            Place::Terminal => format!("\r\x1b[K{}", bar(entries, part, spent)),
            Place::Lines => {
                let percent = part.map_or_else(String::new, |part| format!(", {:.0} % of the file", part * 100.0));
                format!("{entries} entries so far{percent}\n")
            }
        })
    }
}

fn share(octets: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a bar has two dozen columns")]
    let share = octets as f64 / whole as f64;
    share.clamp(0.0, 1.0)
}

/// `[=========>              ]  41 %  412000 entries, 51500 a second, 12 s left`
fn bar(entries: usize, part: Option<f64>, spent: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = entries as f64 / spent.as_secs_f64().max(0.001);
    let counted = format!("{entries} entries, {rate:.0} a second");
    let Some(part) = part else { return counted };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to WIDTH"
    )]
    let full = (part * WIDTH as f64) as usize;
    let head = if full < WIDTH { ">" } else { "" };
    let left =
        if part > 0.01 { format!(", {:.0} s left", spent.as_secs_f64() * (1.0 - part) / part) } else { String::new() };
    let bar = format!("{}{head}", "=".repeat(full));
    format!("[{bar:WIDTH$}] {:3.0} %  {counted}{left}", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(place: Place, whole: Option<u64>) -> (Progress, Instant) {
        let began = MachineClock.instant();
        (Progress { place, whole, began, shown: began, told: 0 }, began)
    }

    #[test]
    fn a_bar_says_how_far_how_fast_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(
            bar(41_000, Some(0.41), second),
            "[=========>              ]  41 %  41000 entries, 41000 a second, 1 s left"
        );
        assert_eq!(bar(5, Some(0.0), second), "[>                       ]   0 %  5 entries, 5 a second");
        assert_eq!(bar(5, Some(1.0), second), "[========================] 100 %  5 entries, 5 a second, 0 s left");
        assert_eq!(bar(5, None, second), "5 entries, 5 a second");
        assert_eq!(share(7, 5), 1.0);
    }

    #[test]
    fn a_terminal_is_not_drawn_on_all_the_time() {
        let (mut progress, began) = progress(Place::Terminal, Some(1000));
        let drawn = (0..1000_u64).filter(|n| {
            let now = began + Duration::from_millis(*n);
            progress.text(usize::try_from(*n).unwrap(), *n, now).is_some_and(|text| text.starts_with("\r\x1b[K["))
        });
        assert_eq!(drawn.count(), 4);
    }

    #[test]
    fn elsewhere_there_is_a_line_now_and_then_and_with_json_nothing() {
        let (mut progress, began) = progress(Place::Lines, Some(2_000_000));
        let lines: Vec<String> =
            (0..=2000).filter_map(|n| progress.text(n * 500, u64::try_from(n).unwrap() * 500, began)).collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "100000 entries so far, 5 % of the file\n");
        // Slow ones are heard of as well, but not twice of the same.
        assert!(progress.text(1_000_001, 1, began + SILENCE).is_some());
        assert!(progress.text(1_000_001, 1, began + 2 * SILENCE).is_none());
        let (mut progress, began) = self::progress(Place::Nowhere, None);
        assert_eq!(progress.text(10 * EACH, 1, began + SILENCE), None);
    }
}
