//! The dispatcher of the outbox: whose message goes to SES next, how fast, and what is left alone
//! for a while because SES does not take it.
//!
//! The four files below are pure machines: time and random fractions are handed in as values. A
//! *lane* is what is kept in order and is held or let go as one: a stream of a tenant.
//!
//! - [`cause`]: why a message waits, and how long
//! - [`breaker`]: what is not called while it does not answer
//! - [`choose`]: whose turn it is
//! - [`pace`]: how many recipients a second

pub mod breaker;
pub mod cause;
pub mod choose;
pub mod pace;
