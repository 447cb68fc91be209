//! Adapters: the vendor's side of each trait, one vendor each; none knows another.

pub mod clock;
pub mod letter;
pub mod log;
pub mod ses;
pub mod sled;
pub mod spool;
pub mod sqs;
pub mod tls;
pub mod webhook;
