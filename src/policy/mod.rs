//! Policy: pure functions from a snapshot to a verdict.
//!
//! [`tenant`] is the snapshot; [`decide`] says what may pass and why not, for the gate and for
//! `explain` alike; [`effect`] says what an SES event changes; [`cohort`] adds up what became of the
//! mail of each hour, and [`reputation`] judges by it; [`explain`] shows the chain of rules; [`takeover`] and [`volume`] say what is unusual.
//! Knows no SMTP, no store, no clock.

pub mod cohort;
pub mod decide;
pub mod effect;
pub mod explain;
pub mod reputation;
pub mod takeover;
pub mod tenant;
pub mod volume;
