//! The words of mail: mailboxes, envelopes, header sections, identifiers.
//!
//! Pure: no I/O, no clock, no randomness of its own.

pub mod envelope;
pub mod header;
pub mod id;
pub mod login;
pub mod mailbox;
pub mod receipt;

pub use envelope::{Body, Envelope};
pub use id::{ConfigurationSet, MessageId, SesTenant, SessionId, StreamId, TenantId, Username};
pub use login::Login;
pub use mailbox::{Domain, Mailbox, ReversePath};
pub use receipt::{Durable, Receipt, Taken};
