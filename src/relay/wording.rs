//! What a client is told: every reason, header fault and answer of SES's as a refusal.
//!
//! Promises: total, without a catch-all, so a new reason does not compile before it has its words.
//! A text says what was not allowed and what to do. It is printable US-ASCII and bounded, whatever
//! a client, an operator or SES put into it. What a fault of the operator's or ours is about stays
//! in the log: SES's words there name roles and account numbers.

use crate::mail::header::HeaderError;
use crate::outbox::{Cause, HoldError, SpoolError};
use crate::policy::decide::{Reason, Stop};
use crate::policy::reputation::{Brake, Step};
use crate::policy::tenant::{Pause, SuppressionReason};
use crate::smtp::Refusal;
use crate::time::Timestamp;
use crate::upstream::{Outcome, Refused};

/// Most characters of a client's name, stream or tag that are said back.
const QUOTED: usize = 64;
/// Most characters of an operator's or SES's words, and of an address.
const WORDS: usize = 320;

/// What stands against something, as the client hears it.
///
/// Deferred: 451; refused: 550. A login that stands for nobody any more is 421 and ends the
/// session, for the client to log in again and hear the truth there.
pub fn stopped(stop: &Stop) -> Refusal {
    let (enhanced, text, gone) = words(stop.reason());
    match stop {
        Stop::Defer(_, _) if gone => Refusal::temporary(421, enhanced, text).and_close(),
        Stop::Defer(_, None) => Refusal::temporary(451, enhanced, text),
        Stop::Defer(_, Some(until)) => {
            Refusal::temporary(451, enhanced, format!("{text}; try after {}", until.rfc3339()))
        }
        Stop::Refuse(_) => Refusal::permanent(550, enhanced, text),
    }
}

/// The same as it stands on the wire: `451 4.7.1 …`.
pub fn spoken(stop: &Stop) -> String {
    let refusal = stopped(stop);
    let reply = refusal.reply();
    format!("{} {} {}", reply.code(), reply.enhanced(), reply.text())
}

/// Subject and detail of the enhanced status code, the text, and whether it is the login itself
/// that is gone.
fn words(reason: &Reason) -> ((u16, u16), String, bool) {
    const POLICY: (u16, u16) = (7, 1);
    let (enhanced, text) = match reason {
        Reason::SenderNotOwned { claim, address } => {
            let address = plain(&address.to_string(), WORDS);
            (POLICY, format!("{claim} <{address}> is not this tenant's; send as one of its own domains or addresses"))
        }
        Reason::TenantGone => {
            return ((7, 0), "the tenant of this session was removed; log in again".into(), true);
        }
        Reason::CredentialGone => {
            return ((7, 0), "the credential of this session is no longer valid; log in again".into(), true);
        }
        Reason::CredentialHeld { credential, hold } => {
            let reason = plain(&hold.reason, WORDS);
            let since = hold.at.rfc3339();
            (POLICY, format!("credential {credential} is on hold since {since}: {reason}; ask your operator"))
        }
        Reason::StreamGone { stream } => {
            ((3, 5), format!("stream {stream} is not set up at this relay; its operator has to mend that"))
        }
        Reason::TenantPaused(pause) => (POLICY, format!("tenant paused {}", since(pause))),
        Reason::StreamPaused { stream, pause } => (POLICY, format!("stream {stream} paused {}", since(pause))),
        Reason::SesTenantDisabled(pause) => {
            (POLICY, format!("Amazon SES has disabled sending for this tenant {}", since(pause)))
        }
        Reason::TenantBraked(brake) if brake.step == Step::TransactionalOnly => {
            (POLICY, format!("tenant left with its transactional streams {}", charged(brake)))
        }
        Reason::TenantBraked(brake) => (POLICY, format!("tenant paused {}", charged(brake))),
        Reason::StreamBraked { stream, brake } => (POLICY, format!("stream {stream} paused {}", charged(brake))),
        Reason::StreamUnknown { name } => {
            (POLICY, format!("X-Bulkhead-Stream names {}, which is no stream of this tenant", quoted(name)))
        }
        Reason::StreamNotAllowed { name, bound } => {
            (POLICY, format!("X-Bulkhead-Stream names {}, but this credential is bound to {bound}", quoted(name)))
        }
        Reason::SetNotOwned { name } => (
            POLICY,
            format!("X-SES-CONFIGURATION-SET names {}, which is no configuration set of this tenant", quoted(name)),
        ),
        Reason::SetNotAllowed { name, bound } => (
            POLICY,
            format!("X-SES-CONFIGURATION-SET names {}, but this credential is bound to stream {bound}", quoted(name)),
        ),
        Reason::WishesDisagree { stream, set } => (
            POLICY,
            format!(
                "X-Bulkhead-Stream names {} and X-SES-CONFIGURATION-SET names {} of another stream; give one of them",
                quoted(stream),
                quoted(set)
            ),
        ),
        Reason::Suppressed { reason, at, until, run } => suppressed(*reason, *at, *until, *run),
    };
    (enhanced, text, false)
}

/// `run`: how many soft bounces in a row it was, where that is known.
fn suppressed(
    reason: SuppressionReason,
    at: Timestamp,
    until: Option<Timestamp>,
    run: Option<usize>,
) -> ((u16, u16), String) {
    let (enhanced, what, cure) = match reason {
        SuppressionReason::Bounce => {
            ((1, 1), format!("hard bounce on {}", at.date()), "take the address off your list")
        }
        SuppressionReason::Complaint => {
            ((7, 1), format!("complaint on {}", at.date()), "do not write to this address again")
        }
        SuppressionReason::Manual => {
            ((7, 1), format!("entered by hand on {}", at.date()), "ask the operator of this relay")
        }
        SuppressionReason::Soft => {
            let many = run.map_or_else(String::new, |run| format!("{run} "));
            let ends = until.map_or_else(|| format!(" on {}", at.date()), |until| format!(", until {}", until.date()));
            ((1, 1), format!("{many}soft bounces in a row{ends}"), "write to it again after that")
        }
    };
    (enhanced, format!("recipient suppressed: {what}; {cure}"))
}

fn charged(brake: &Brake) -> String {
    let ends = brake.clears.map(|until| format!(", ends {} at the earliest", until.rfc3339())).unwrap_or_default();
    format!("since {}{ends}: {}", brake.since.rfc3339(), brake.charge)
}

fn since(pause: &Pause) -> String {
    let reason = plain(&pause.reason, WORDS);
    format!("since {}: {}; nothing is taken until it is resumed", pause.at.rfc3339(), reason)
}

/// A header section that cannot be sent: 554 5.6.0.
pub fn header(error: &HeaderError) -> Refusal {
    let cure = match error {
        HeaderError::NotAField(_) => "each line is `name: value` or begins with a space",
        HeaderError::Control(_) => "lines end with CRLF and hold no NUL",
        HeaderError::LineTooLong(..) => "fold it",
        HeaderError::TooLarge(_) | HeaderError::TooMany(_) => "send fewer or shorter fields",
        HeaderError::Duplicate(_) => "Amazon SES takes it once",
        HeaderError::NoFrom | HeaderError::NoSender => "add it",
        HeaderError::Address(_) => "give it as Name <local-part@domain>, names with special characters in quotes",
        HeaderError::Contradiction(_) => "give it once",
        HeaderError::Tag(_) => "correct it in X-SES-MESSAGE-TAGS",
        HeaderError::TooManyTags(_) => "send fewer in X-SES-MESSAGE-TAGS",
    };
    Refusal::permanent(554, (6, 0), format!("{}; {cure}", plain(&error.to_string(), WORDS)))
}

/// A message that has been through too many relays (RFC 5321 6.3): 554 5.4.6.
pub fn looping(most: usize) -> Refusal {
    Refusal::permanent(554, (4, 6), format!("more than {most} Received fields: the message goes round in circles"))
}

/// SES's refusal for good. Any other outcome is none, and a fault of ours.
pub fn refused(outcome: &Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refused, words) => never(*refused, words),
        Outcome::Sent(_) | Outcome::Retry(..) | Outcome::Paused(..) | Outcome::Unknown(_) => fault(),
    }
}

/// 452 4.3.1 or 451 4.3.0: the message cannot leave now, and cannot be held. 451 4.7.1 where a limit of
/// its stream or tenant keeps it: with the moment from which it may go, if one is known.
pub fn not_held(cause: Cause, until: Option<Timestamp>, error: &HoldError) -> Refusal {
    let (why, lack) = (waiting(cause), lacking(error));
    let when = until.map_or_else(|| "try again later".to_owned(), |until| format!("try after {}", until.rfc3339()));
    let text = format!("{why}, and {lack}; {when}");
    if cause.is_limit() {
        return Refusal::temporary(451, (7, 1), text);
    }
    if error.is_room() { Refusal::temporary(452, (3, 1), text) } else { Refusal::temporary(451, (3, 0), text) }
}

fn waiting(cause: Cause) -> &'static str {
    match cause {
        Cause::Throttled => "the sending rate of this relay at Amazon SES is exceeded",
        Cause::DailyQuota => "the daily quota of this relay at Amazon SES is used up",
        Cause::Service => "Amazon SES has a fault of its own",
        Cause::Network => "Amazon SES cannot be reached",
        Cause::Credentials => "this relay cannot log in to Amazon SES",
        Cause::AccessDenied => "this relay may not send by Amazon SES",
        Cause::SetMissing => "the configuration set of this stream is not there at Amazon SES",
        Cause::TenantMissing => "this tenant is not there at Amazon SES",
        Cause::NotAssociated => "identity or configuration set are not this tenant's at Amazon SES",
        Cause::MailFromDomain => "the MX record of the custom MAIL FROM domain is broken",
        Cause::Busy => "this relay has as much under way to Amazon SES as it may",
        Cause::Unrecognised => "Amazon SES gave an answer this relay does not know",
        Cause::AccountPaused => "Amazon SES has paused the account of this relay",
        Cause::AccountSuspended => "Amazon SES has suspended the account of this relay",
        Cause::SetPaused => "Amazon SES has paused the configuration set of this stream",
        Cause::Unknown => "Amazon SES did not answer and may have the message, so that sent again it may arrive twice",
        Cause::Handoff => "the mail of this stream is held before it is sent",
        Cause::Backlog => "other mail of this stream waits before it",
        Cause::Rate => "the sending rate of this relay is used up",
        Cause::ExposureWindow => "as much mail of this stream is out unheard of as its exposure window allows",
        Cause::DailyCap => "the daily_recipients of this stream or tenant are used up",
        Cause::Warmup => "the warm-up of this stream allows no more today",
        Cause::StreamRate => "the rate_per_second of this stream is used up",
        Cause::TenantRate => "the rate_per_second of this tenant is used up",
        Cause::Deadline => "Amazon SES has not answered in time",
        Cause::Drain => "this relay is shutting down",
        Cause::Standing => "the mail of this stream is held",
        Cause::Damaged => "the message cannot be read",
    }
}

fn lacking(error: &HoldError) -> String {
    match error {
        HoldError::Past(past) => format!("this relay holds as much mail as it may ({past})"),
        HoldError::Reserve { .. } | HoldError::Spool(SpoolError::Full(_)) => {
            "the disk of this relay has no room to hold it".into()
        }
        HoldError::Spool(SpoolError::Io(_) | SpoolError::Missing) => "the disk of this relay does not hold it".into(),
        HoldError::Store(_) => "the store of this relay does not hold it".into(),
    }
}

fn never(refused: Refused, words: &str) -> Refusal {
    let words = plain(words, WORDS);
    match refused {
        Refused::Content => Refusal::permanent(554, (6, 0), format!("Amazon SES refused the message: {words}")),
        Refused::IdentityNotVerified => Refusal::permanent(550, (7, 1), format!("Amazon SES: {words}")),
        Refused::TooLarge => {
            Refusal::permanent(552, (3, 4), format!("the message is too large for Amazon SES: {words}"))
        }
    }
}

/// 451: whether a recipient is suppressed cannot be told.
pub fn store_unavailable() -> Refusal {
    Refusal::temporary(451, (3, 0), "The store of this relay does not answer; try again later")
}

/// 421 to a login over `limits.connections_per_tenant`.
pub fn too_many_of_tenant() -> Refusal {
    Refusal::temporary(
        421,
        (7, 0),
        "Too many connections of your tenant (limits.connections_per_tenant); use fewer, or close idle ones",
    )
    .and_close()
}

/// 451: what the relay knows of the tenant or of the credential cannot be read.
pub fn record_damaged() -> Refusal {
    Refusal::temporary(451, (3, 0), "A record of this relay is damaged; try again later")
}

/// 451: a fault of ours.
pub fn fault() -> Refusal {
    Refusal::temporary(451, (3, 0), "This relay met a fault of its own; try again later")
}

/// 452: there is no room for the message.
pub fn short_of_memory() -> Refusal {
    Refusal::temporary(452, (3, 1), "This relay is short of memory; try again later")
}

/// 452: there is no room on the disk for what is spilled to it.
pub fn short_of_disk() -> Refusal {
    Refusal::temporary(452, (3, 1), "This relay is short of disk space; try again later")
}

/// 451: the drain came to its end first.
pub fn abandoned() -> Refusal {
    Refusal::temporary(451, (3, 2), "This relay shut down before Amazon SES had answered; try again later")
}

/// Somebody else's words: printable US-ASCII, at most `most` characters.
fn plain(text: &str, most: usize) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.trim().chars().take(most).map(printable).collect()
}

/// A client's name for something, in quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", plain(name, QUOTED))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::*;
    use crate::mail::{Mailbox, StreamId, Username};
    use crate::outbox::Past;
    use crate::policy::reputation::{Charge, Offence, Rule, Span};
    use crate::store::CommitError;

    const DAY: Timestamp = Timestamp::from_millis(1_777_626_902_418);

    /// Checks what holds for every refusal; gives `550 5.7.1 text`.
    fn spelled(refusal: &Refusal) -> String {
        let reply = refusal.reply();
        let text = reply.text();
        assert!(!text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
        assert!(text.len() < 480, "{text:?}");
        assert!((400..600).contains(&reply.code()));
        assert!(reply.enhanced().starts_with(if reply.code() < 500 { "4." } else { "5." }));
        assert_eq!(refusal.closes(), reply.code() == 421);
        format!("{} {} {text}", reply.code(), reply.enhanced())
    }

    fn assert_told(refusal: &Refusal, expected: &str, part: &str) {
        let text = spelled(refusal);
        assert!(text.starts_with(&format!("{expected} ")), "{text:?} is not {expected}");
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }

    #[test]
    fn every_reason_has_its_words() {
        use SuppressionReason::{Bounce, Complaint, Manual, Soft};
        let stream = || StreamId::parse("marketing").unwrap();
        let pause = || Pause { at: DAY, actor: "cli:root".into(), reason: "bounces über 5 %\r\n250 ok".into() };
        let brake = |step| {
            let (rule, offence, span) = (Rule::Rate, Offence::Bounce, Span::Day);
            let charge = Charge { rule, offence, span, bad: 31, accepted: 500, limit: 0.05 };
            Brake { step, since: DAY, charge, clears: Some(DAY), shadow: false }
        };
        let not_owned = |claim| Reason::SenderNotOwned { claim, address: Mailbox::parse(b"a@b.example").unwrap() };
        let suppressed = |reason| Reason::Suppressed { reason, at: DAY, until: None, run: None };
        let soft = |until, run| Reason::Suppressed { reason: Soft, at: DAY, until, run };
        let fortnight = Some(DAY.plus(std::time::Duration::from_secs(14 * 24 * 3600)));
        let (name, bound) = ("evil\r\n250 ok\u{7f}é", stream());
        let name = || name.to_owned();
        // reason; deferred; refused; a part of the text
        let cases = [
            (not_owned("MAIL FROM"), "451 4.7.1", "550 5.7.1", "MAIL FROM <a@b.example> is not this tenant's; send as"),
            (not_owned("Sender"), "451 4.7.1", "550 5.7.1", "Sender <a@b.example>"),
            (Reason::TenantGone, "421 4.7.0", "550 5.7.0", "log in again"),
            (Reason::CredentialGone, "421 4.7.0", "550 5.7.0", "log in again"),
            (
                Reason::CredentialHeld { credential: Username::parse("acme-app").unwrap(), hold: pause() },
                "451 4.7.1",
                "550 5.7.1",
                "credential acme-app is on hold since 2026-05-01T09:15:02.418Z: bounces ?ber 5 %??250 ok; ask your operator",
            ),
            (Reason::StreamGone { stream: stream() }, "451 4.3.5", "550 5.3.5", "stream marketing is not set up"),
            (
                Reason::TenantPaused(pause()),
                "451 4.7.1",
                "550 5.7.1",
                "tenant paused since 2026-05-01T09:15:02.418Z: bounces ?ber 5 %??250 ok;",
            ),
            (
                Reason::StreamPaused { stream: stream(), pause: pause() },
                "451 4.7.1",
                "550 5.7.1",
                "stream marketing paused since 2026-05-01",
            ),
            (
                Reason::SesTenantDisabled(pause()),
                "451 4.7.1",
                "550 5.7.1",
                "Amazon SES has disabled sending for this tenant since 2026-05-01",
            ),
            (
                Reason::TenantBraked(brake(Step::Paused)),
                "451 4.7.1",
                "550 5.7.1",
                "tenant paused since 2026-05-01T09:15:02.418Z, ends 2026-05-01T09:15:02.418Z at the earliest: bounce \
                 rate 6.2 % (31 of 500 in 24 hours) is over 5 %",
            ),
            (
                Reason::TenantBraked(brake(Step::TransactionalOnly)),
                "451 4.7.1",
                "550 5.7.1",
                "tenant left with its transactional streams since",
            ),
            (
                Reason::StreamBraked { stream: stream(), brake: brake(Step::Paused) },
                "451 4.7.1",
                "550 5.7.1",
                "stream marketing paused since 2026-05-01T09:15:02.418Z, ends",
            ),
            (
                Reason::StreamUnknown { name: name() },
                "451 4.7.1",
                "550 5.7.1",
                "\"evil??250 ok??\", which is no stream",
            ),
            (
                Reason::StreamNotAllowed { name: name(), bound: bound.clone() },
                "451 4.7.1",
                "550 5.7.1",
                "bound to marketing",
            ),
            (
                Reason::SetNotOwned { name: name() },
                "451 4.7.1",
                "550 5.7.1",
                "X-SES-CONFIGURATION-SET names \"evil??250 ok??\"",
            ),
            (Reason::SetNotAllowed { name: name(), bound }, "451 4.7.1", "550 5.7.1", "bound to stream marketing"),
            (Reason::WishesDisagree { stream: name(), set: name() }, "451 4.7.1", "550 5.7.1", "give one of them"),
            (suppressed(Bounce), "451 4.1.1", "550 5.1.1", "suppressed: hard bounce on 2026-05-01;"),
            (suppressed(Complaint), "451 4.7.1", "550 5.7.1", "suppressed: complaint on 2026-05-01;"),
            (suppressed(Manual), "451 4.7.1", "550 5.7.1", "suppressed: entered by hand on 2026-05-01;"),
            (
                soft(fortnight, Some(5)),
                "451 4.1.1",
                "550 5.1.1",
                "suppressed: 5 soft bounces in a row, until 2026-05-15;",
            ),
            (soft(None, None), "451 4.1.1", "550 5.1.1", "suppressed: soft bounces in a row on 2026-05-01;"),
        ];
        let mut names = HashSet::new();
        for (reason, deferred, refused, part) in cases {
            names.insert(reason.name());
            assert_told(&stopped(&Stop::Defer(reason.clone(), None)), deferred, part);
            let until = Stop::Defer(reason.clone(), Some(DAY));
            let dated = if deferred.starts_with("421") { part } else { "; try after 2026-05-01T09:15:02.418Z" };
            assert_told(&stopped(&until), deferred, dated);
            assert_told(&stopped(&Stop::Refuse(reason)), refused, part);
        }
        assert_eq!(names.len(), 16, "as many as policy has");
    }

    #[test]
    fn every_fault_of_our_own_has_its_words() {
        assert_told(&store_unavailable(), "451 4.3.0", "store");
        assert_told(&record_damaged(), "451 4.3.0", "damaged");
        assert_told(&too_many_of_tenant(), "421 4.7.0", "limits.connections_per_tenant");
        assert_told(&fault(), "451 4.3.0", "fault of its own");
        assert_told(&short_of_memory(), "452 4.3.1", "memory");
        assert_told(&short_of_disk(), "452 4.3.1", "disk");
        assert_told(&abandoned(), "451 4.3.2", "shut down");
    }

    #[test]
    fn every_header_fault_has_its_words() {
        let cases = [
            (HeaderError::NotAField(3), "line 3 of the header section is not a header field"),
            (HeaderError::Control(3), "NUL"),
            (HeaderError::LineTooLong(3, 998), "longer than 998 octets; fold it"),
            (HeaderError::TooLarge(262_144), "262144 octets"),
            (HeaderError::TooMany(500), "more than 500 fields"),
            (HeaderError::Duplicate("Subject".into()), "duplicate header field Subject; Amazon SES takes it once"),
            (HeaderError::NoFrom, "no From field"),
            (HeaderError::Address("Resent-From"), "the Resent-From field"),
            (HeaderError::NoSender, "Sender field"),
            (HeaderError::Contradiction("X-Bulkhead-Stream"), "X-Bulkhead-Stream is given twice"),
            (HeaderError::Tag("ses:\u{1}é".into()), "ses:"),
            (HeaderError::TooManyTags(7), "more than 7 message tags"),
        ];
        let kinds: HashSet<_> = cases.iter().map(|(error, _)| discriminant(error)).collect();
        assert_eq!(kinds.len(), 12);
        for (error, part) in &cases {
            assert_told(&header(error), "554 5.6.0", part);
        }
        assert_told(&looping(50), "554 5.4.6", "more than 50 Received fields");
    }

    #[test]
    fn every_refusal_of_ses_has_its_words() {
        let refused = |refused, words: &str| Outcome::Refused(refused, words.into());
        let cases = [
            (
                refused(Refused::Content, "Duplicate header 'X'.\r\né"),
                "554 5.6.0",
                "refused the message: Duplicate header 'X'.???",
            ),
            (
                refused(Refused::IdentityNotVerified, "Email address is not verified: a@b.example"),
                "550 5.7.1",
                "not verified: a@b.example",
            ),
            (refused(Refused::TooLarge, &"long ".repeat(500)), "552 5.3.4", "too large for Amazon SES: long long"),
        ];
        for (outcome, expected, part) in &cases {
            assert_told(&super::refused(outcome), expected, part);
        }
        // What is no refusal never reads as one for good.
        assert_told(&super::refused(&Outcome::Unknown("x".into())), "451 4.3.0", "fault of its own");
    }

    #[test]
    fn what_cannot_be_held_hears_why_it_waits_and_what_lacks() {
        let errors = [
            (HoldError::Past(Past::Messages), "452 4.3.1", "(outbox.messages)"),
            (HoldError::Past(Past::MessagesOfTenant), "452 4.3.1", "(outbox.messages_per_tenant)"),
            (HoldError::Past(Past::BytesOfTenant), "452 4.3.1", "(outbox.bytes_per_tenant)"),
            (HoldError::Reserve { free: 1, reserve: 2 }, "452 4.3.1", "no room"),
            (HoldError::Spool(SpoolError::Full("ENOSPC".into())), "452 4.3.1", "no room"),
            (HoldError::Spool(SpoolError::Io("EIO at /secret".into())), "451 4.3.0", "disk"),
            (HoldError::Store(CommitError::Unavailable("arn:x".into())), "451 4.3.0", "store"),
        ];
        let mut texts = HashSet::new();
        for cause in Cause::ALL {
            for (error, expected, part) in &errors {
                let refusal = not_held(cause, None, error);
                assert_told(&refusal, if cause.is_limit() { "451 4.7.1" } else { expected }, part);
                let text = refusal.reply().text();
                assert!(!text.contains("arn:") && !text.contains("secret"), "the operator's own: {text}");
            }
            let until = Timestamp::parse_rfc3339("2026-05-02T00:00:00Z");
            let text = not_held(cause, until, &errors[0].0).reply().text();
            assert!(text.ends_with("; try after 2026-05-02T00:00:00.000Z"), "{text}");
            assert!(
                texts.insert(not_held(cause, None, &errors[0].0).reply().text()),
                "each has its own words: {cause:?}"
            );
        }
    }
}
