//! Policy: pure functions from a snapshot to a verdict.
//!
//! [`tenant`] is the snapshot; [`decide`] says what may pass and why not, for the gate and for
//! `explain` alike, and [`explain`] shows the chain; [`effect`] says what an SES event changes, [`run`] when
//! soft bounces suppress; [`cohort`] adds up what became of the mail of each hour, and [`reputation`] judges
//! by it; [`exposure`] bounds what may be out unheard of, and [`warmup`] what a new stream may send a day;
//! [`takeover`] and [`volume`] say what is unusual. Knows no SMTP, no store, no clock.

pub mod cohort;
pub mod decide;
pub mod effect;
pub mod explain;
pub mod exposure;
pub mod reputation;
pub mod run;
pub mod takeover;
pub mod tenant;
pub mod volume;
pub mod warmup;
