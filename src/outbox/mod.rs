//! The outbox: messages that are held until SES takes them.

pub mod spool;

pub use spool::{Content, Draft, Spool, SpoolError};
