//! The manual, compiled with the crate: `cargo doc --open` shows it.
//!
//! - [`life_of_a_message`]: from the first octet to the bounce that decides the next one
//! - [`replies`]: every reply, when it is given, what a client should do
//! - [`operating`]: commands, log, metrics, health, signals, limits
//! - [`tenants`]: tenants, streams, credentials, and whose an event is
//! - [`reputation`]: what counts, the limits, the ladder, and how to change them
//! - [`announcements`]: what people and their programs are told, and how a webhook is verified
//! - [`watch`]: credentials that seem stolen, holds, tenants whose volume is unusual
//! - [`suppression`]: what is on a suppression list, how it comes there, import, SES's own lists
//! - [`losses`]: every way to lose, to double or to leak a message, what prevents it, and what remains
//! - [`attacks`]: what one tenant might try against another, and what stops it
//! - [`rfc_status`]: which RFCs, how far
//! - [`measured`]: CPU, latency and memory, with the commands that measured them
//! - [`decisions`]: why it is as it is

/// From the first octet to the bounce that decides the next one.
#[doc = include_str!("life_of_a_message.md")]
pub mod life_of_a_message {}

/// Every reply, when it is given, what a client should do.
#[doc = include_str!("replies.md")]
pub mod replies {}

/// Commands, log, metrics, health, signals, limits.
#[doc = include_str!("operating.md")]
pub mod operating {}

/// Tenants, streams, credentials, suppressions, and whose an event is.
#[doc = include_str!("tenants.md")]
pub mod tenants {}

/// What counts, the limits, the ladder, and how to change them.
#[doc = include_str!("reputation.md")]
pub mod reputation {}

/// What people and their programs are told, and how a webhook is verified.
#[doc = include_str!("announcements.md")]
pub mod announcements {}

/// Credentials that seem stolen, holds, tenants whose volume is unusual.
#[doc = include_str!("watch.md")]
pub mod watch {}

/// What is on a suppression list, how it comes there, import, Amazon SES's own lists.
#[doc = include_str!("suppression.md")]
pub mod suppression {}

/// How much may leave when: rates, shares, days, warm-up, the exposure window.
#[doc = include_str!("rates.md")]
pub mod rates {}

/// Every way to lose, to double or to leak a message, what prevents it, and what remains.
#[doc = include_str!("losses.md")]
pub mod losses {}

/// What one tenant might try against another, and what stops it.
#[doc = include_str!("attacks.md")]
pub mod attacks {}

/// Which RFCs, how far.
#[doc = include_str!("rfc_status.md")]
pub mod rfc_status {}

/// CPU, latency and memory, with the commands that measured them.
#[doc = include_str!("measured.md")]
pub mod measured {}

/// Why it is as it is: context, choice, what it costs, what would change our mind.
pub mod decisions {
    /// The store is sled, driven in one particular way.
    #[doc = include_str!("decisions/store.md")]
    pub mod store {}

    /// Bodies are files in one folder, synced in groups.
    #[doc = include_str!("decisions/spool.md")]
    pub mod spool {}

    /// Settings are read by a walker of our own.
    #[doc = include_str!("decisions/settings.md")]
    pub mod settings {}

    /// What is out unheard of is bounded, as TCP bounds octets.
    #[doc = include_str!("decisions/exposure.md")]
    pub mod exposure {}

    /// A suppression may be judged twice.
    #[doc = include_str!("decisions/suppression.md")]
    pub mod suppression {}

    /// Commands are JSON lines over a Unix socket.
    #[doc = include_str!("decisions/control.md")]
    pub mod control {}

    /// The journal writes its own lines.
    #[doc = include_str!("decisions/journal.md")]
    pub mod journal {}

    /// Header fields are refused, not repaired.
    #[doc = include_str!("decisions/strictness.md")]
    pub mod strictness {}

    /// Octets behind STARTTLS get their 220 and the end.
    #[doc = include_str!("decisions/starttls.md")]
    pub mod starttls {}

    /// Errors of conduct are counted, decisions are not.
    #[doc = include_str!("decisions/errors.md")]
    pub mod errors {}

    /// The first of several calls goes alone.
    #[doc = include_str!("decisions/first_call.md")]
    pub mod first_call {}

    /// Connections refused on implicit TLS are closed without a word.
    #[doc = include_str!("decisions/silence.md")]
    pub mod silence {}

    /// What a refused login looks like.
    #[doc = include_str!("decisions/logins.md")]
    pub mod logins {}

    /// Mailboxes are narrower than RFC 5321.
    #[doc = include_str!("decisions/mailboxes.md")]
    pub mod mailboxes {}

    /// A message without an empty line gets one.
    #[doc = include_str!("decisions/empty_line.md")]
    pub mod empty_line {}

    /// Old events suppress and no longer count.
    #[doc = include_str!("decisions/old_events.md")]
    pub mod old_events {}

    /// Which events count and which suppress.
    #[doc = include_str!("decisions/effects.md")]
    pub mod effects {}

    /// Soft bounces are counted by their moments.
    #[doc = include_str!("decisions/soft_bounces.md")]
    pub mod soft_bounces {}

    /// The account's list is nobody's.
    #[doc = include_str!("decisions/ses_lists.md")]
    pub mod ses_lists {}

    /// The trace field keeps private addresses private.
    #[doc = include_str!("decisions/trace.md")]
    pub mod trace {}

    /// No TLS session tickets.
    #[doc = include_str!("decisions/tickets.md")]
    pub mod tickets {}

    /// The tenants file has the last word on its credentials.
    #[doc = include_str!("decisions/credentials.md")]
    pub mod credentials {}

    /// SES first, the outbox behind it.
    #[doc = include_str!("decisions/handoff.md")]
    pub mod handoff {}

    /// What waits behind what.
    #[doc = include_str!("decisions/order.md")]
    pub mod order {}

    /// Rows are the truth, unless the files are newer.
    #[doc = include_str!("decisions/recover.md")]
    pub mod recover {}

    /// The duplicate window is in memory.
    #[doc = include_str!("decisions/duplicate_window.md")]
    pub mod duplicate_window {}

    /// A full disk closes no door.
    #[doc = include_str!("decisions/full_disk.md")]
    pub mod full_disk {}

    /// Half of the processors serve connections.
    #[doc = include_str!("decisions/workers.md")]
    pub mod workers {}

    /// Turns go by class, then tenant, then stream.
    #[doc = include_str!("decisions/turns.md")]
    pub mod turns {}

    /// Few recipients are padded, not passed over.
    #[doc = include_str!("decisions/judge.md")]
    pub mod judge {}

    /// Breakers of the account and of streams.
    #[doc = include_str!("decisions/breakers.md")]
    pub mod breakers {}
}
