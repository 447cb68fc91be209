//! Bulkhead: a multi-tenant SMTP relay in front of Amazon SES.
//!
//! The house has floors; imports go down only (`tests/floors.rs` holds the sources to it).
//!
//! | floor | rooms | what they are |
//! |---|---|---|
//! | 0 words | [`mail`], [`time`], [`secret`] | values that are valid once made |
//! | 1 machines | [`smtp`], [`policy`], [`event`], [`retry`] | pure: state and input give state and output |
//! | 2 records | [`store`], [`outbox`], [`upstream`], [`wire`], [`announce`], [`journal`] | what is kept, what is asked of AWS, what is told |
//! | 3 adapters | [`adapters`] | sled, SES, SQS, TLS, the clock: one vendor each |
//! | 4 services | [`dispatch`], [`relay`] (which hands over to it, and tells the watch), [`ingest`], [`reputation`], [`notify`], [`watch`], [`suppression`], [`admin`], [`sandbox`] | dull loops around the machines |
//! | 5 house | [`config`], [`app`], [`cli`] | settings, building, running, commands |
//!
//! The way of one message through it: [`manual`].

pub mod adapters;
pub mod admin;
pub mod announce;
pub mod app;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod event;
pub mod ingest;
pub mod journal;
pub mod mail;
pub mod manual;
pub mod notify;
pub mod outbox;
pub mod policy;
pub mod relay;
pub mod reputation;
pub mod retry;
pub mod sandbox;
pub mod secret;
pub mod smtp;
pub mod store;
pub mod suppression;
pub mod time;
pub mod upstream;
pub mod watch;
pub mod wire;
