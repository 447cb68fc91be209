//! What goes wrong at SES, on the way to it and on the way from it, and what becomes of the mail: the
//! relay in TLS, the dispatcher, the real AWS SDK, the sandbox, a store on sled and bodies in files.
//!
//! Of each fault: what the client hears, what the outbox says meanwhile, what SES has in the end and
//! how often, and what the log tells. Waits are the ones of production; time is let pass instead.

// In the helpers of the tests, which clippy's leave for tests does not reach.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/house.rs"]
mod house;
#[path = "support/relay.rs"]
mod support;

#[path = "faults/answers.rs"]
mod answers;
#[path = "faults/expiry.rs"]
mod expiry;
#[path = "faults/healthy.rs"]
mod healthy;
#[path = "faults/late.rs"]
mod late;
#[path = "faults/outage.rs"]
mod outage;
#[path = "faults/recipients.rs"]
mod recipients;
#[path = "faults/repeats.rs"]
mod repeats;
#[path = "faults/room.rs"]
mod room;
#[path = "faults/scene.rs"]
mod scene;
#[path = "faults/standing.rs"]
mod standing;
