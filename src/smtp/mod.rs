//! The SMTP session as a machine without I/O (RFC 5321, 6409, 4954, 3207, 3030, 9422).
//!
//! [`session::Session`] is the machine and its face to the shell; `phase` is where it stands and
//! `verb` what each command does there. [`mod@line`] cuts lines, [`command`] names them, [`sasl`] reads
//! AUTH exchanges, [`data`] unstuffs mail data, [`reply`] spells every answer, [`extension`] says
//! what EHLO offers. Nothing here knows tenants, SES, sockets or clocks.

pub mod command;
pub mod data;
pub mod extension;
pub mod line;
mod phase;
pub mod reply;
pub mod sasl;
pub mod session;
mod verb;

pub use reply::{Refusal, Reply};
pub use session::{Answer, Question, Session, Step, Terms};
