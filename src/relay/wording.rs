//! What a client is told: every reason, header fault and answer of SES's as a refusal.
//!
//! Promises: total, without a catch-all, so a new reason does not compile before it has its words.
//! A text says what was not allowed and what to do. It is printable US-ASCII and bounded, whatever
//! a client, an operator or SES put into it. What a fault of the operator's or ours is about stays
//! in the log: SES's words there name roles and account numbers.

use crate::mail::Taken;
use crate::mail::header::HeaderError;
use crate::policy::decide::{Reason, Stop};
use crate::policy::tenant::{Pause, SuppressionReason};
use crate::smtp::Refusal;
use crate::time::Timestamp;
use crate::upstream::{Outcome, Paused, Refused, Retry};

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
        Reason::StreamGone { stream } => {
            ((3, 5), format!("stream {stream} is not set up at this relay; its operator has to mend that"))
        }
        Reason::TenantPaused(pause) => (POLICY, format!("tenant paused {}", since(pause))),
        Reason::StreamPaused { stream, pause } => (POLICY, format!("stream {stream} paused {}", since(pause))),
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
        Reason::Suppressed { reason, at } => suppressed(*reason, *at),
    };
    (enhanced, text, false)
}

fn suppressed(reason: SuppressionReason, at: Timestamp) -> ((u16, u16), String) {
    let (enhanced, what, cure) = match reason {
        SuppressionReason::Bounce => ((1, 1), "hard bounce", "take the address off your list"),
        SuppressionReason::Complaint => ((7, 1), "complaint", "do not write to this address again"),
        SuppressionReason::Manual => ((7, 1), "entered by hand", "ask the operator of this relay"),
    };
    (enhanced, format!("recipient suppressed: {what} on {}; {cure}", at.date()))
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

/// SES's answer: what it took, or what the client hears while nothing holds the message for it.
pub fn outcome(outcome: &Outcome) -> Result<&Taken, Refusal> {
    match outcome {
        Outcome::Sent(taken) => Ok(taken),
        Outcome::Retry(retry, _) => Err(later(*retry)),
        Outcome::Refused(refused, words) => Err(never(*refused, words)),
        Outcome::Paused(paused, _) => Err(halted(*paused)),
        Outcome::Unknown(_) => Err(Refusal::temporary(
            451,
            (4, 2),
            "Amazon SES did not answer and may have the message; sent again, it may arrive twice",
        )),
    }
}

fn later(retry: Retry) -> Refusal {
    let (detail, text) = match retry {
        Retry::Throttled => (2, "the sending rate of this relay at Amazon SES is used up; try again in a minute"),
        Retry::DailyQuota => (2, "the daily quota of this relay at Amazon SES is used up; try again in an hour"),
        Retry::Service => (0, "Amazon SES has a fault of its own; try again later"),
        Retry::Network => (0, "Amazon SES cannot be reached; try again later"),
        Retry::Credentials => (5, "this relay cannot log in to Amazon SES; its operator has to mend that"),
        Retry::AccessDenied => (5, "this relay may not send by Amazon SES; its operator has to mend that"),
        Retry::ConfigurationSetMissing => {
            (5, "the configuration set of this stream is not there at Amazon SES; the operator has to mend that")
        }
        Retry::TenantMissing => (5, "this tenant is not there at Amazon SES; the operator has to mend that"),
        Retry::NotAssociated => {
            (5, "identity or configuration set are not this tenant's at Amazon SES; the operator has to mend that")
        }
        Retry::MailFromDomain => {
            (5, "the MX record of the custom MAIL FROM domain is broken; its owner has to mend it")
        }
        Retry::Busy => (2, "this relay has as much under way to Amazon SES as it may; try again in a minute"),
        Retry::Unrecognised => (0, "Amazon SES gave an answer this relay does not know; try again later"),
    };
    Refusal::temporary(451, (3, detail), text)
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

fn halted(paused: Paused) -> Refusal {
    match paused {
        Paused::Account => {
            Refusal::temporary(451, (3, 2), "Amazon SES has paused the account of this relay; try again later")
        }
        Paused::AccountSuspended => {
            Refusal::temporary(451, (3, 2), "Amazon SES has suspended the account of this relay; try again later")
        }
        Paused::ConfigurationSet => Refusal::temporary(
            451,
            (7, 1),
            "Amazon SES has paused the configuration set of this stream; try again later",
        ),
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
    use crate::mail::{Mailbox, StreamId};

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
        use SuppressionReason::{Bounce, Complaint, Manual};
        let stream = || StreamId::parse("marketing").unwrap();
        let pause = || Pause { at: DAY, actor: "cli:root".into(), reason: "bounces über 5 %\r\n250 ok".into() };
        let not_owned = |claim| Reason::SenderNotOwned { claim, address: Mailbox::parse(b"a@b.example").unwrap() };
        let suppressed = |reason| Reason::Suppressed { reason, at: DAY };
        let (name, bound) = ("evil\r\n250 ok\u{7f}é", stream());
        let name = || name.to_owned();
        // reason; deferred; refused; a part of the text
        let cases = [
            (not_owned("MAIL FROM"), "451 4.7.1", "550 5.7.1", "MAIL FROM <a@b.example> is not this tenant's; send as"),
            (not_owned("Sender"), "451 4.7.1", "550 5.7.1", "Sender <a@b.example>"),
            (Reason::TenantGone, "421 4.7.0", "550 5.7.0", "log in again"),
            (Reason::CredentialGone, "421 4.7.0", "550 5.7.0", "log in again"),
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
        assert_eq!(names.len(), 12, "as many as policy has");
    }

    #[test]
    fn every_fault_of_our_own_has_its_words() {
        assert_told(&store_unavailable(), "451 4.3.0", "store");
        assert_told(&record_damaged(), "451 4.3.0", "damaged");
        assert_told(&too_many_of_tenant(), "421 4.7.0", "limits.connections_per_tenant");
        assert_told(&fault(), "451 4.3.0", "fault of its own");
        assert_told(&short_of_memory(), "452 4.3.1", "memory");
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
    fn every_answer_of_ses_has_its_words() {
        let secret = "arn:aws:iam::123456789012:role/relay";
        let retry = |retry| Outcome::Retry(retry, secret.into());
        let refused = |refused, words: &str| Outcome::Refused(refused, words.into());
        let paused = |paused| Outcome::Paused(paused, secret.into());
        let cases = [
            (retry(Retry::Throttled), "451 4.3.2", "sending rate"),
            (retry(Retry::DailyQuota), "451 4.3.2", "daily quota"),
            (retry(Retry::Service), "451 4.3.0", "fault of its own"),
            (retry(Retry::Network), "451 4.3.0", "cannot be reached"),
            (retry(Retry::Credentials), "451 4.3.5", "cannot log in"),
            (retry(Retry::AccessDenied), "451 4.3.5", "may not send"),
            (retry(Retry::ConfigurationSetMissing), "451 4.3.5", "configuration set of this stream is not there"),
            (retry(Retry::TenantMissing), "451 4.3.5", "tenant is not there"),
            (retry(Retry::NotAssociated), "451 4.3.5", "are not this tenant's"),
            (retry(Retry::MailFromDomain), "451 4.3.5", "MX record"),
            (retry(Retry::Busy), "451 4.3.2", "under way"),
            (retry(Retry::Unrecognised), "451 4.3.0", "does not know"),
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
            (paused(Paused::Account), "451 4.3.2", "has paused the account"),
            (paused(Paused::AccountSuspended), "451 4.3.2", "has suspended the account"),
            (paused(Paused::ConfigurationSet), "451 4.7.1", "has paused the configuration set"),
            (Outcome::Unknown(secret.into()), "451 4.4.2", "may arrive twice"),
        ];
        let mut texts = HashSet::new();
        for (answer, expected, part) in &cases {
            let refusal = outcome(answer).unwrap_err();
            assert_told(&refusal, expected, part);
            assert!(!spelled(&refusal).contains("arn:"), "the operator's own");
            assert!(texts.insert(refusal.reply().text()), "each has its own words");
        }
        assert_eq!(cases.len(), 12 + 3 + 3 + 1);
        let taken = Taken::by_ses("0100".into());
        assert_eq!(outcome(&Outcome::Sent(taken.clone())), Ok(&taken));
    }
}
