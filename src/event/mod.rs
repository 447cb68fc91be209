//! SES's events: what they say, read purely.
//!
//! [`kind`] has the words, [`parse()`] reads a queue notice in any of the forms SES sends it in.

pub mod kind;
pub mod parse;

pub use kind::{Event, Fate, Notice};
pub use parse::{Malformed, parse};
