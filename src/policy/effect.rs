//! What an SES event changes: a pure function, the same for the queue and for a replayed archive.
//!
//! | event | counts as | suppresses |
//! |---|---|---|
//! | Delivery | delivered | no; ends a run of soft bounces |
//! | Bounce, Permanent | bounced | yes (bounce) |
//! | … OnAccountSuppressionList, OnTenantSuppressionList | nothing | yes (bounce) |
//! | … UnsubscribedRecipient | bounced | no |
//! | Bounce, Transient or Undetermined | soft-bounced | after some in a row (soft) |
//! | … an automatic reply; MessageTooLarge, ContentRejected, AttachmentRejected | soft-bounced | no |
//! | Complaint | complained | yes (complaint) |
//! | … OnAccountSuppressionList, OnTenantSuppressionList | nothing | yes (complaint) |
//! | … not-spam | nothing | no |
//! | DeliveryDelay | delayed, each notice | no |
//! | Reject | rejected, each recipient of the call | no |
//! | Send, Open, Click, Rendering Failure, Subscription | nothing | no |
//!
//! Why these: SES sends nothing to an address on a suppression list of its own, so our list takes
//! it over and the client hears the truth at RCPT next time; but nobody's server was bothered, and
//! SES does not count it either. Whoever left a contact list still has a good address: password
//! resets must go on reaching it. A complaint names everybody at the complainer's domain, since
//! SES cannot tell who it was; each of them is suppressed and counted, as SES counts them.
//! An automatic reply (Transient/General that names an address and nothing else; a Delivery tells of
//! the same message) shows that the mailbox works. A bounce for the message's size or content says
//! nothing of the mailbox: the next message may pass. Neither is one of a run (`policy::run`).
//!
//! Promises: SES's simulator never counts and never suppresses, whatever its label. A recipient
//! that the event names twice counts once. Events need no order: [`outlasts`] picks the same entry
//! whichever came first. An event is counted only while the ledger can tell whether it has been
//! counted before ([`COUNTED`]); after that it still suppresses.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

use super::run::Step;
use super::tenant::{Suppression, SuppressionReason};
use crate::event::kind::{BounceType, Event, Fate, Recipient};
use crate::mail::Mailbox;
use crate::time::Timestamp;

/// How old a message may be for its events to count: less than the time for which applied events
/// are remembered, and longer than any window that rates are made of. A bounce out of an archive
/// older than this might have been counted and forgotten.
pub const COUNTED: Duration = Duration::from_secs(14 * 24 * 3600);
/// How far SES's clock may be ahead of ours.
pub const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// The domain of SES's mailbox simulator (Developer Guide, "Using the mailbox simulator").
pub const SIMULATOR: &str = "simulator.amazonses.com";

/// Who suppressed, in entries that come of events.
pub const ACTOR: &str = "ses";

/// What is known before the event.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// The time of applying it.
    pub now: Timestamp,
}

/// What becomes of one recipient of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// Under which name the recipient is told apart: [`Recipient::folded`].
    pub recipient: String,
    /// As what it counts, in the hour of `mail.timestamp`.
    pub count: Option<Count>,
    /// What comes onto the tenant's list.
    pub suppress: Option<(Mailbox, Suppression)>,
    /// What it does to the address's run of soft bounces. Only of what counts: what is older might have
    /// been applied and forgotten.
    pub run: Option<(Mailbox, Step)>,
}

/// As what a recipient is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Count {
    /// The recipient's server took it.
    Delivered,
    /// A permanent bounce.
    Bounced,
    /// A transient or undetermined bounce.
    SoftBounced,
    /// A complaint.
    Complained,
    /// A notice of delay.
    Delayed,
    /// SES found a virus.
    Rejected,
}

/// What `event` changes, recipient by recipient. Empty: nothing, and it need not be remembered.
pub fn effects(event: &Event, before: &Before) -> Vec<Effect> {
    let Ruling { count, suppress, origin } = ruling(&event.fate);
    let count = count.filter(|_| counted(event.mail.timestamp, before.now));
    if count.is_none() && suppress.is_none() {
        return Vec::new();
    }
    let entry = suppress.map(|reason| Suppression {
        reason,
        origin: origin.to_owned(),
        at: event.at,
        expires: None,
        actor: ACTOR.to_owned(),
    });
    let mut seen = HashSet::new();
    let mut effects = Vec::new();
    for recipient in named(event) {
        let folded = recipient.folded();
        if simulated(&folded) || !seen.insert(folded.clone()) {
            continue;
        }
        let run = count
            .and_then(|count| step(event, count, &recipient))
            .and_then(|step| Some((recipient.mailbox.clone()?, step)));
        let suppress = recipient.mailbox.zip(entry.clone());
        if count.is_some() || suppress.is_some() {
            effects.push(Effect { recipient: folded, count, suppress, run });
        }
    }
    effects
}

/// Whether the entry `there` stays when `new` comes for the same address and the same reason.
///
/// The one that stands longer does, so one without an end for ever; of two that end together the
/// earlier. A total order, so it does not matter who comes first, and no clock is asked: what has
/// ended gives way to all that has not.
pub fn outlasts(there: &Suppression, new: &Suppression) -> bool {
    let end = |entry: &Suppression| entry.expires.map_or((true, Timestamp::default()), |until| (false, until));
    match end(there).cmp(&end(new)) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal => (there.at, &there.origin, &there.actor) <= (new.at, &new.origin, &new.actor),
    }
}

/// What the event does to the run of soft bounces of one recipient that counts as `count`.
fn step(event: &Event, count: Count, recipient: &Recipient) -> Option<Step> {
    match count {
        Count::Delivered => Some(Step::Delivered(event.at)),
        Count::SoftBounced if of_the_mailbox(&event.fate, recipient) => Some(Step::Bounced(event.at)),
        Count::SoftBounced | Count::Bounced | Count::Complained | Count::Delayed | Count::Rejected => None,
    }
}

/// Whether a soft bounce says something of the recipient's mailbox.
fn of_the_mailbox(fate: &Fate, recipient: &Recipient) -> bool {
    match fate {
        Fate::Bounce { bounce_type: BounceType::Transient, sub_type, .. } => match sub_type.as_str() {
            "General" => !recipient.is_bare(),
            "MessageTooLarge" | "ContentRejected" | "AttachmentRejected" => false,
            // MailboxFull, CustomTimeoutExceeded, and what SES adds later.
            _ => true,
        },
        Fate::Bounce { bounce_type: BounceType::Undetermined, .. } => true,
        Fate::Bounce { bounce_type: BounceType::Permanent, .. }
        | Fate::Send
        | Fate::Delivery { .. }
        | Fate::Complaint { .. }
        | Fate::Reject { .. }
        | Fate::DeliveryDelay { .. }
        | Fate::Open
        | Fate::Click
        | Fate::RenderingFailure { .. }
        | Fate::Subscription => false,
    }
}

struct Ruling<'a> {
    count: Option<Count>,
    suppress: Option<SuppressionReason>,
    origin: &'a str,
}

fn ruling(fate: &Fate) -> Ruling<'_> {
    let counts = |count| Ruling { count: Some(count), suppress: None, origin: "" };
    match fate {
        Fate::Delivery { .. } => counts(Count::Delivered),
        Fate::DeliveryDelay { .. } => counts(Count::Delayed),
        Fate::Reject { .. } => counts(Count::Rejected),
        Fate::Bounce { bounce_type: BounceType::Transient | BounceType::Undetermined, .. } => {
            counts(Count::SoftBounced)
        }
        Fate::Bounce { bounce_type: BounceType::Permanent, sub_type, feedback_id, .. } => Ruling {
            count: (!listed(sub_type)).then_some(Count::Bounced),
            suppress: (sub_type != "UnsubscribedRecipient").then_some(SuppressionReason::Bounce),
            origin: feedback_id,
        },
        Fate::Complaint { sub_type, feedback_type, feedback_id, .. } => {
            let meant = feedback_type.as_deref() != Some("not-spam");
            Ruling {
                count: (meant && !sub_type.as_deref().is_some_and(listed)).then_some(Count::Complained),
                suppress: meant.then_some(SuppressionReason::Complaint),
                origin: feedback_id,
            }
        }
        Fate::Send | Fate::Open | Fate::Click | Fate::RenderingFailure { .. } | Fate::Subscription => {
            Ruling { count: None, suppress: None, origin: "" }
        }
    }
}

/// Whether SES sent nothing because of a suppression list of its own.
fn listed(sub_type: &str) -> bool {
    matches!(sub_type, "OnAccountSuppressionList" | "OnTenantSuppressionList")
}

/// Whom it concerns: whom it names, or the whole call where the kind names nobody. A recipient
/// that the call did not have (a forwarded address in a bounce) is taken as named.
fn named(event: &Event) -> Vec<Recipient> {
    match event.fate.recipients() {
        Some(recipients) => recipients.to_vec(),
        None => event.mail.destination.iter().map(|given| Recipient::read(given)).collect(),
    }
}

fn simulated(folded: &str) -> bool {
    folded.rsplit_once('@').is_some_and(|(_, domain)| domain == SIMULATOR)
}

fn counted(sent: Timestamp, now: Timestamp) -> bool {
    now.since(sent) <= COUNTED && sent.since(now) <= AHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::kind::{Form, Mail};

    const SENT: u64 = 1_800_000_000_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(SENT + millis)
    }

    fn event(fate: Fate) -> Event {
        let mail = Mail {
            message_id: "m-1".into(),
            timestamp: at(0),
            source: None,
            destination: vec!["a@there.example".into(), "A@THERE.example".into(), "b@there.example".into()],
            tenant: None,
            stream: None,
            credential: None,
            configuration_set: None,
            ses_tenant: None,
        };
        Event { fate, at: at(1000), mail, form: Form::Raw }
    }

    fn named(given: &[&str]) -> Vec<Recipient> {
        given.iter().map(|text| Recipient::read(text)).collect()
    }

    fn bounce(bounce_type: BounceType, sub_type: &str, given: &[&str]) -> Event {
        let recipients = named(given);
        event(Fate::Bounce { bounce_type, sub_type: sub_type.into(), recipients, feedback_id: "f-1".into() })
    }

    fn complaint(sub_type: Option<&str>, feedback_type: Option<&str>, given: &[&str]) -> Event {
        event(Fate::Complaint {
            sub_type: sub_type.map(Into::into),
            feedback_type: feedback_type.map(Into::into),
            recipients: named(given),
            feedback_id: "f-1".into(),
        })
    }

    fn now(event: &Event) -> Vec<Effect> {
        effects(event, &Before { now: at(2000) })
    }

    /// The effect on the one recipient, as `count/suppression`.
    fn essence(event: &Event) -> String {
        match now(event).as_slice() {
            [] => "nothing".into(),
            [Effect { count, suppress, .. }] => {
                let count = count.map_or_else(|| "-".into(), |count| format!("{count:?}"));
                let suppress = suppress.as_ref().map_or_else(|| "-".into(), |(_, s)| format!("{:?}", s.reason));
                format!("{count}/{suppress}")
            }
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn the_table_of_bounces() {
        use BounceType::{Permanent, Transient, Undetermined};
        for (bounce_type, sub_type, effect) in [
            (Permanent, "General", "Bounced/Bounce"),
            (Permanent, "NoEmail", "Bounced/Bounce"),
            (Permanent, "Suppressed", "Bounced/Bounce"),
            (Permanent, "EmailValidationSuppressed", "Bounced/Bounce"),
            (Permanent, "OnAccountSuppressionList", "-/Bounce"),
            (Permanent, "OnTenantSuppressionList", "-/Bounce"),
            (Permanent, "UnsubscribedRecipient", "Bounced/-"),
            (Permanent, "SomethingNew", "Bounced/Bounce"),
            (Transient, "General", "SoftBounced/-"),
            (Transient, "MailboxFull", "SoftBounced/-"),
            (Transient, "MessageTooLarge", "SoftBounced/-"),
            (Transient, "CustomTimeoutExceeded", "SoftBounced/-"),
            (Transient, "ContentRejected", "SoftBounced/-"),
            (Transient, "AttachmentRejected", "SoftBounced/-"),
            (Transient, "OnAccountSuppressionList", "SoftBounced/-"),
            (Undetermined, "Undetermined", "SoftBounced/-"),
        ] {
            let one = bounce(bounce_type, sub_type, &["a@there.example"]);
            assert_eq!(essence(&one), effect, "{bounce_type:?}/{sub_type}");
            for simulated in ["bounce@simulator.amazonses.com", "bounce+acme-7@SIMULATOR.amazonses.com"] {
                assert_eq!(essence(&bounce(bounce_type, sub_type, &[simulated])), "nothing", "{sub_type}");
            }
        }
    }

    #[test]
    fn the_table_of_complaints() {
        for (sub_type, feedback_type, effect) in [
            (None, None, "Complained/Complaint"),
            (None, Some("abuse"), "Complained/Complaint"),
            (None, Some("auth-failure"), "Complained/Complaint"),
            (None, Some("fraud"), "Complained/Complaint"),
            (None, Some("other"), "Complained/Complaint"),
            (None, Some("virus"), "Complained/Complaint"),
            (None, Some("not-spam"), "nothing"),
            (Some("OnAccountSuppressionList"), None, "-/Complaint"),
            (Some("OnTenantSuppressionList"), None, "-/Complaint"),
            (Some("OnAccountSuppressionList"), Some("not-spam"), "nothing"),
            (Some("SomethingNew"), None, "Complained/Complaint"),
        ] {
            let one = complaint(sub_type, feedback_type, &["a@there.example"]);
            assert_eq!(essence(&one), effect, "{sub_type:?}/{feedback_type:?}");
            let simulated = complaint(sub_type, feedback_type, &["complaint+x@simulator.amazonses.com"]);
            assert_eq!(essence(&simulated), "nothing");
        }
    }

    #[test]
    fn the_table_of_the_rest() {
        let recipients = || named(&["a@there.example"]);
        for (fate, effect) in [
            (Fate::Delivery { recipients: recipients() }, "Delivered/-"),
            (Fate::DeliveryDelay { delay_type: "General".into(), recipients: recipients() }, "Delayed/-"),
            (Fate::Delivery { recipients: named(&["success@simulator.amazonses.com"]) }, "nothing"),
            (Fate::Send, "nothing"),
            (Fate::Open, "nothing"),
            (Fate::Click, "nothing"),
            (Fate::RenderingFailure { message: String::new() }, "nothing"),
            (Fate::Subscription, "nothing"),
        ] {
            assert_eq!(essence(&event(fate.clone())), effect, "{fate:?}");
        }
    }

    /// kind; sub-type; what SES says of the recipient besides; the step.
    #[test]
    fn which_events_are_of_a_run() {
        use BounceType::{Permanent, Transient, Undetermined};
        let bounced = Some(Step::Bounced(at(1000)));
        let told = [(true, false, false), (false, true, false), (false, false, true)];
        let mut cases = vec![
            (bounce(Transient, "General", &["a@there.example"]), None),
            (bounce(Transient, "MailboxFull", &["a@there.example"]), bounced),
            (bounce(Transient, "CustomTimeoutExceeded", &["a@there.example"]), bounced),
            (bounce(Transient, "SomethingNew", &["a@there.example"]), bounced),
            (bounce(Transient, "MessageTooLarge", &["a@there.example"]), None),
            (bounce(Transient, "ContentRejected", &["a@there.example"]), None),
            (bounce(Transient, "AttachmentRejected", &["a@there.example"]), None),
            (bounce(Undetermined, "Undetermined", &["a@there.example"]), bounced),
            (bounce(Permanent, "General", &["a@there.example"]), None),
            (bounce(Transient, "MailboxFull", &["ooto@simulator.amazonses.com"]), None),
            (bounce(Transient, "MailboxFull", &["MAILER-DAEMON"]), None),
            (complaint(None, None, &["a@there.example"]), None),
            (event(Fate::Delivery { recipients: named(&["a@there.example"]) }), Some(Step::Delivered(at(1000)))),
            (
                event(Fate::DeliveryDelay { delay_type: "General".into(), recipients: named(&["a@there.example"]) }),
                None,
            ),
        ];
        for (status, action, diagnostic) in told {
            let mut one = bounce(Transient, "General", &["a@there.example"]);
            if let Fate::Bounce { recipients, .. } = &mut one.fate {
                recipients[0].status = status.then(|| "4.2.0".into());
                recipients[0].action = action.then(|| "failed".into());
                recipients[0].diagnostic = diagnostic.then(|| "smtp; 421 later".into());
            }
            cases.push((one, bounced));
        }
        for (event, expected) in cases {
            let step = now(&event).into_iter().next().and_then(|effect| effect.run);
            assert_eq!(step.map(|(_, step)| step), expected, "{:?}", event.fate);
        }
        // What may have been applied and forgotten does nothing to a run.
        let old = bounce(Transient, "MailboxFull", &["a@there.example"]);
        assert_eq!(effects(&old, &Before { now: at(15 * 24 * 3_600_000) }), []);
    }

    #[test]
    fn a_reject_is_of_every_recipient_of_the_call_once() {
        let who: Vec<String> =
            now(&event(Fate::Reject { reason: "Bad content".into() })).into_iter().map(|e| e.recipient).collect();
        assert_eq!(who, ["a@there.example", "b@there.example"]);
    }

    #[test]
    fn each_named_recipient_counts_once_whether_it_was_in_the_call_or_not() {
        let given = [
            "A@there.example",
            "a@There.Example",
            "forwarded@elsewhere.example",
            "MAILER-DAEMON",
            "x@simulator.amazonses.com",
        ];
        let effects = now(&bounce(BounceType::Permanent, "General", &given));
        let who: Vec<&str> = effects.iter().map(|e| e.recipient.as_str()).collect();
        assert_eq!(who, ["a@there.example", "forwarded@elsewhere.example", "mailer-daemon"]);
        assert!(effects.iter().all(|e| e.count == Some(Count::Bounced)));
        assert_eq!(effects[2].suppress, None, "what is no address cannot be on a list");
        let (mailbox, entry) = effects[0].suppress.clone().unwrap();
        assert_eq!(mailbox.to_string(), "A@there.example");
        let (reason, actor) = (SuppressionReason::Bounce, "ses".to_owned());
        assert_eq!(entry, Suppression { reason, origin: "f-1".into(), at: at(1000), expires: None, actor });
    }

    #[test]
    fn an_old_event_suppresses_and_no_longer_counts() {
        let old = bounce(BounceType::Permanent, "General", &["a@there.example"]);
        let days = |n: u64| n * 24 * 3_600_000;
        for (now, count) in [(days(14), Some(Count::Bounced)), (days(14) + 1, None), (days(400), None)] {
            let effects = effects(&old, &Before { now: at(now) });
            assert_eq!((effects[0].count, effects[0].suppress.is_some()), (count, true), "{now}");
        }
        let early = Before { now: Timestamp::from_millis(SENT - days(1) - 1) };
        assert_eq!(effects(&old, &early)[0].count, None);
        let delivered = event(Fate::Delivery { recipients: named(&["a@there.example"]) });
        assert_eq!(effects(&delivered, &Before { now: at(days(15)) }), []);
    }

    fn entry(at_millis: u64, expires: Option<u64>) -> Suppression {
        let (reason, actor) = (SuppressionReason::Bounce, "a".into());
        Suppression { reason, origin: "o".into(), at: at(at_millis), expires: expires.map(at), actor }
    }

    #[test]
    fn what_stays_when_entries_meet() {
        for (there, new, stays) in [
            (entry(1, None), entry(2, None), true),
            (entry(2, None), entry(1, None), false),
            (entry(1, None), entry(1, None), true),
            (entry(1, Some(100)), entry(2, None), false),
            (entry(2, None), entry(1, Some(100)), true),
            (entry(1, Some(100)), entry(2, Some(101)), false),
            (entry(2, Some(101)), entry(1, Some(100)), true),
            (entry(2, Some(100)), entry(1, Some(100)), false),
        ] {
            assert_eq!(outlasts(&there, &new), stays, "{there:?} {new:?}");
        }
    }

    /// Whatever the order in which entries come, the same one is left.
    #[test]
    fn what_stays_does_not_depend_on_the_order() {
        let mut all = Vec::new();
        for (at, expires, origin) in [0, 1, 2]
            .into_iter()
            .flat_map(|at| [None, Some(5), Some(9)].map(|expires| (at, expires)))
            .flat_map(|(at, expires)| ["f-1", "f-2"].map(|origin| (at, expires, origin)))
        {
            all.push(Suppression { origin: origin.into(), ..entry(at, expires) });
        }
        let left = |entries: [&Suppression; 3]| {
            let fold = |there, new| if outlasts(there, new) { there } else { new };
            fold(fold(entries[0], entries[1]), entries[2]).clone()
        };
        let mut triples = 0;
        for a in &all {
            for b in &all {
                for c in &all {
                    let expected = left([a, b, c]);
                    for order in [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
                        assert_eq!(left(order), expected);
                    }
                    triples += 1;
                }
            }
        }
        assert_eq!(triples, 18 * 18 * 18);
    }
}
