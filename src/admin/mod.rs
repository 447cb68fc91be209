//! The operator's side: commands, the socket they come by, health and metrics.
//!
//! [`command`] is every change and question as a value and the one function that carries it out;
//! [`control`] brings them over a Unix socket while the relay runs; the command line calls the same
//! function itself when it does not. [`view`] is what is shown, [`listfile`] how suppression lists
//! are written in files, [`health`] what load balancers and Prometheus read.

mod audit;
pub mod command;
pub mod control;
mod credentials;
pub mod error;
mod explain;
pub mod health;
pub mod history;
pub mod listfile;
mod outbox;
mod suppressions;
mod tenants;
mod verify;
pub mod view;
pub mod warmup;

pub use command::{Desk, Request, Response, perform};
pub use control::{Client, Control};
pub use error::CommandError;
pub use health::{Health, Metrics};
