//! What stands upstream: SES that takes messages, SQS that brings its events.
//!
//! [`Mailer`] and [`Notices`] are all that the services know of AWS; [`classify`] is the table from
//! every SES error to an [`Outcome`]; [`lists`] is about SES's own suppression lists.

pub mod classify;
pub mod lists;

use std::time::Duration;

use crate::mail::{ConfigurationSet, Mailbox, SesTenant, Taken};
use crate::store::Pending;

/// Most recipients SES takes in one call.
pub const CALL_RECIPIENTS: usize = 50;

/// One SendEmail call with raw content. There is no FromEmailAddress: it would replace the From
/// field. Configuration set and tags are not optional: no message leaves without isolation.
#[derive(Clone, Debug)]
pub struct Call {
    /// The message as it is to leave. `Bytes`-backed segments would need a copy for each call; the
    /// SDK wants a vector of its own, so this is the one copy.
    pub raw: Vec<u8>,
    /// `Destination.ToAddresses`, 1 to [`CALL_RECIPIENTS`].
    pub recipients: Vec<Mailbox>,
    /// `ConfigurationSetName`.
    pub configuration_set: ConfigurationSet,
    /// `EmailTags`: name and value, each `[A-Za-z0-9_-]{1,256}`.
    pub tags: Vec<(String, String)>,
    /// `TenantName`.
    pub ses_tenant: Option<SesTenant>,
}

/// What became of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// SES has it.
    Sent(Taken),
    /// It may pass later.
    Retry(Retry, String),
    /// It will never pass as it is. The words are SES's.
    Refused(Refused, String),
    /// SES has paused us or a part of us.
    Paused(Paused, String),
    /// The request was sent, the answer did not come: SES may have it.
    Unknown(String),
}

/// Why a call may pass later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retry {
    /// "Maximum sending rate exceeded".
    Throttled,
    /// "Daily message quota exceeded".
    DailyQuota,
    /// SES's own trouble: 5xx, RequestTimeout.
    Service,
    /// No connection, or it broke before the request was out.
    Network,
    /// Our credentials are missing, expired or wrong.
    Credentials,
    /// Our role may not do this.
    AccessDenied,
    /// The configuration set is not there.
    ConfigurationSetMissing,
    /// The SES tenant is not there.
    TenantMissing,
    /// Identity or configuration set is not associated with the SES tenant.
    NotAssociated,
    /// The custom MAIL FROM domain's MX is broken.
    MailFromDomain,
    /// Our own bound on calls or octets in flight was reached.
    Busy,
    /// An error we have never seen: kept safe, and alarmed.
    Unrecognised,
}

/// Why a call will never pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// MessageRejected, BadRequest: the content or the envelope.
    Content,
    /// An identity is not verified; the words name it.
    IdentityNotVerified,
    /// Over SES's size.
    TooLarge,
}

/// What SES has paused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Paused {
    /// The whole account, until AWS or the owner resumes it.
    Account,
    /// The account, permanently restricted.
    AccountSuspended,
    /// This configuration set.
    ConfigurationSet,
}

/// What GetAccount says of the account in this region.
#[derive(Clone, PartialEq, Debug)]
pub struct Account {
    /// Recipients a second.
    pub max_send_rate: f64,
    /// Recipients in 24 hours; -1 is no limit.
    pub max_24_hour_send: f64,
    /// Recipients in the last 24 hours.
    pub sent_last_24_hours: f64,
    /// False: the account's sending is paused.
    pub sending_enabled: bool,
    /// False: SES's own sandbox, verified recipients only.
    pub production_access: bool,
    /// `HEALTHY`, `PROBATION`, `SHUTDOWN`; empty if SES says nothing.
    pub enforcement_status: String,
}

/// Sends messages.
pub trait Mailer: Send + Sync + 'static {
    /// Offers one call to SES and waits for its answer, within the mailer's own time-outs and
    /// bounds. Never fails: every fault is an outcome. Dropping the future abandons the call; what
    /// had left already may still be taken.
    fn send(&self, call: Call) -> Pending<'_, Outcome>;

    /// Asks SES for rate, quota and standing of the account; SES allows it once a second. The error
    /// is in words for the log. A mailer without an account of its own says that it knows none.
    fn account(&self) -> Pending<'_, Result<Account, String>> {
        Box::pin(async { Err("this mailer does not know its account".to_owned()) })
    }
}

/// One item of the events queue.
#[derive(Clone, Debug)]
pub struct Item {
    /// SQS's message id.
    pub id: String,
    /// What deletes it.
    pub receipt_handle: String,
    /// The body.
    pub body: String,
}

/// What went wrong at the queue; the words are for the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct QueueError(pub String);

/// Brings SES's events.
pub trait Notices: Send + Sync + 'static {
    /// Up to 10 items; waits up to `wait` for the first (long poll).
    fn receive(&self, wait: Duration) -> Pending<'_, Result<Vec<Item>, QueueError>>;

    /// Deletes up to 10 items. The items SQS did not delete come back, with its words.
    fn delete<'a>(&'a self, items: &'a [Item]) -> Pending<'a, Result<Vec<(Item, String)>, QueueError>>;
}
