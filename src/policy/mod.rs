//! Policy: pure functions from a snapshot to a verdict.
//!
//! [`tenant`] is the snapshot; [`decide`] says what may pass and why not, for the gate and for
//! `explain` alike; [`effect`] says what an SES event changes, [`run`] when soft bounces suppress. Knows no SMTP, no store, no clock.

pub mod decide;
pub mod effect;
pub mod run;
pub mod tenant;
