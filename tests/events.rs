//! Every event file parses to what its name says, and none is left out.

// Outside of test functions clippy does not see that these are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bulkhead::event::kind::{BounceType, Event, Fate, Form};
use bulkhead::event::{Notice, parse};
use bulkhead::time::Timestamp;

/// One line of the table: the file and the essence of what it is.
const FILES: &[(&str, &str)] = &[
    ("bounce_multi_recipient", "raw Bounce Permanent/General of 2"),
    ("bounce_permanent_emailvalidationsuppressed", "raw Bounce Permanent/EmailValidationSuppressed of 1"),
    ("bounce_permanent_general", "raw Bounce Permanent/General of 1"),
    ("bounce_permanent_noemail", "raw Bounce Permanent/NoEmail of 1"),
    ("bounce_permanent_onaccountsuppressionlist", "raw Bounce Permanent/OnAccountSuppressionList of 1"),
    ("bounce_permanent_ontenantsuppressionlist", "raw Bounce Permanent/OnTenantSuppressionList of 1"),
    ("bounce_permanent_suppressed", "raw Bounce Permanent/Suppressed of 1"),
    ("bounce_permanent_unsubscribedrecipient", "raw Bounce Permanent/UnsubscribedRecipient of 1"),
    ("bounce_transient_attachmentrejected", "raw Bounce Transient/AttachmentRejected of 1"),
    ("bounce_transient_contentrejected", "raw Bounce Transient/ContentRejected of 1"),
    ("bounce_transient_customtimeoutexceeded", "raw Bounce Transient/CustomTimeoutExceeded of 1"),
    ("bounce_transient_general", "raw Bounce Transient/General of 1"),
    ("bounce_transient_general_ooto", "raw Bounce Transient/General of 1, bare"),
    ("bounce_transient_mailboxfull", "raw Bounce Transient/MailboxFull of 1"),
    ("bounce_transient_messagetoolarge", "raw Bounce Transient/MessageTooLarge of 1"),
    ("bounce_undetermined", "raw Bounce Undetermined/Undetermined of 1"),
    ("click", "raw Click"),
    ("complaint_abuse", "raw Complaint -/abuse of 1"),
    ("complaint_auth_failure", "raw Complaint -/auth-failure of 1"),
    ("complaint_fraud", "raw Complaint -/fraud of 1"),
    ("complaint_minimal", "raw Complaint -/- of 1"),
    ("complaint_not_spam", "raw Complaint -/not-spam of 1"),
    ("complaint_onaccountsuppressionlist", "raw Complaint OnAccountSuppressionList/- of 1"),
    ("complaint_ontenantsuppressionlist_unverified", "raw Complaint OnTenantSuppressionList/- of 1"),
    ("complaint_other", "raw Complaint -/other of 1"),
    ("complaint_virus", "raw Complaint -/virus of 1"),
    ("delivery", "raw Delivery of 1"),
    ("deliverydelay_byoiphostnamelookupunavailable", "raw DeliveryDelay BYOIPHostNameLookupUnavailable of 1"),
    ("deliverydelay_general", "raw DeliveryDelay General of 1"),
    ("deliverydelay_internalfailure", "raw DeliveryDelay InternalFailure of 1"),
    ("deliverydelay_ipfailure", "raw DeliveryDelay IPFailure of 1"),
    ("deliverydelay_mailboxfull", "raw DeliveryDelay MailboxFull of 1"),
    ("deliverydelay_recipientservererror", "raw DeliveryDelay RecipientServerError of 1"),
    ("deliverydelay_sendingdeferral", "raw DeliveryDelay SendingDeferral of 1"),
    ("deliverydelay_spamdetected", "raw DeliveryDelay SpamDetected of 1"),
    ("deliverydelay_transientcommunicationfailure", "raw DeliveryDelay TransientCommunicationFailure of 1"),
    ("deliverydelay_undetermined", "raw DeliveryDelay Undetermined of 1"),
    ("envelope_eventbridge_advisor_recommendation_status_closed", "finding HIGH BOUNCE resolved for rx-t0042"),
    ("envelope_eventbridge_advisor_recommendation_status_open", "finding HIGH BOUNCE open for rx-t0042"),
    ("envelope_eventbridge_advisor_recommendation_status_resolved", "finding HIGH BOUNCE resolved for rx-t0042"),
    ("envelope_eventbridge_email_bounced", "bridge Bounce Permanent/NoEmail of 1"),
    ("envelope_eventbridge_email_clicked", "bridge Click"),
    ("envelope_eventbridge_email_complaint_received", "bridge Complaint -/abuse of 1"),
    ("envelope_eventbridge_email_delivered", "bridge Delivery of 1"),
    ("envelope_eventbridge_email_delivery_delayed", "bridge DeliveryDelay MailboxFull of 1"),
    ("envelope_eventbridge_email_opened", "bridge Open"),
    ("envelope_eventbridge_email_rejected", "bridge Reject Bad content"),
    ("envelope_eventbridge_email_rendering_failed", "bridge Rendering Failure"),
    ("envelope_eventbridge_email_sent", "bridge Send"),
    ("envelope_eventbridge_email_subscribed", "bridge Subscription"),
    ("envelope_eventbridge_sending_status_disabled", "DISABLED by AWS_MANAGED for rx-t0042"),
    ("envelope_eventbridge_sending_status_enabled", "ENABLED by CUSTOMER_MANAGED for rx-t0042"),
    ("envelope_sns_raw_delivery_bounce", "raw Bounce Permanent/NoEmail of 1"),
    ("envelope_sns_to_sqs_bounce", "sns Bounce Permanent/NoEmail of 1"),
    ("envelope_sns_to_sqs_topic_validation", "topic validated"),
    ("legacy_notification_bounce", "raw legacy Bounce Permanent/General of 1"),
    ("legacy_notification_complaint", "raw legacy Complaint -/abuse of 1"),
    ("legacy_notification_delivery", "raw legacy Delivery of 1"),
    ("open", "raw Open"),
    ("reject", "raw Reject Bad content"),
    ("rendering_failure", "raw Rendering Failure"),
    ("send", "raw Send"),
    ("subscription", "raw Subscription"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/events")
}

fn read(name: &str) -> Notice {
    let body = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
    parse(&body).unwrap_or_else(|why| panic!("{name}: {why}"))
}

#[test]
fn every_file_is_in_the_table() {
    let there: BTreeSet<String> =
        std::fs::read_dir(folder()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<String> = FILES.iter().map(|(name, _)| format!("{name}.json")).collect();
    assert_eq!(there, listed);
    assert_eq!(FILES.len(), 63);
}

#[test]
fn every_file_is_what_its_name_says() {
    for (name, essence) in FILES {
        assert_eq!(summary(&read(name)), *essence, "{name}");
    }
}

fn summary(notice: &Notice) -> String {
    match notice {
        Notice::Event(event) => format!("{} {}", form(event), fate(event)),
        Notice::SendingStatus(it) => {
            format!("{} by {} for {}", it.status, it.origin, it.ses_tenant.as_ref().unwrap())
        }
        Notice::Recommendation(it) => format!(
            "finding {} {} {} for {}",
            it.impact,
            it.finding,
            if it.open { "open" } else { "resolved" },
            it.ses_tenant.as_ref().unwrap()
        ),
        Notice::SubscriptionConfirmation { topic_arn } => format!("confirmation of {topic_arn}"),
        Notice::TopicValidated => "topic validated".into(),
        Notice::Unknown { kind } => format!("unknown {kind}"),
    }
}

fn form(event: &Event) -> &'static str {
    // The older notifications carry no tags; all others here have the configuration set's.
    match (event.form, event.mail.configuration_set.is_some()) {
        (Form::Raw, true) => "raw",
        (Form::Raw, false) => "raw legacy",
        (Form::Sns, _) => "sns",
        (Form::EventBridge, _) => "bridge",
    }
}

fn fate(event: &Event) -> String {
    let dash = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".into());
    match &event.fate {
        Fate::Send => "Send".into(),
        Fate::Delivery { recipients } => format!("Delivery of {}", recipients.len()),
        Fate::Bounce { bounce_type, sub_type, recipients, .. } => {
            let bare = recipients.iter().all(|r| r.status.is_none() && r.diagnostic.is_none());
            let told = if bare && *bounce_type == BounceType::Transient { ", bare" } else { "" };
            format!("Bounce {bounce_type:?}/{sub_type} of {}{told}", recipients.len())
        }
        Fate::Complaint { sub_type, feedback_type, recipients, .. } => {
            format!("Complaint {}/{} of {}", dash(sub_type), dash(feedback_type), recipients.len())
        }
        Fate::Reject { reason } => format!("Reject {reason}"),
        Fate::DeliveryDelay { delay_type, recipients } => format!("DeliveryDelay {delay_type} of {}", recipients.len()),
        Fate::Open => "Open".into(),
        Fate::Click => "Click".into(),
        Fate::RenderingFailure { message } => {
            assert!(message.contains("order_no"));
            "Rendering Failure".into()
        }
        Fate::Subscription => "Subscription".into(),
    }
}

#[test]
fn what_all_events_say_of_their_message() {
    let mut seen = 0;
    for (name, _) in FILES {
        let Notice::Event(event) = read(name) else { continue };
        seen += 1;
        assert_eq!(event.mail.message_id, "0102019aa2f1c3d4-7b0e5c1a-3f42-4d8e-9b61-5a2cf0d7e911-000000", "{name}");
        assert_eq!(event.mail.timestamp.rfc3339(), "2026-11-20T09:15:02.418Z", "{name}");
        assert_eq!(event.mail.source.as_ref().unwrap().to_string(), "orders@shop.harbour-example.com", "{name}");
        assert!(!event.mail.destination.is_empty(), "{name}");
        for recipient in event.fate.recipients().unwrap_or_default() {
            assert_eq!(recipient.mailbox.as_ref().unwrap().to_string(), recipient.given, "{name}");
        }
        if !name.starts_with("legacy") {
            assert_eq!(event.mail.configuration_set.as_ref().unwrap().as_str(), "rx-t0042-tx", "{name}");
        }
        // These files' own tags are named otherwise than ours.
        assert_eq!((event.mail.tenant, event.mail.stream, event.mail.credential), (None, None, None), "{name}");
    }
    assert_eq!(seen, 57);
}

#[test]
fn a_bounce_in_full() {
    let Notice::Event(event) = read("envelope_sns_to_sqs_bounce") else { panic!("no event") };
    assert_eq!(event.at, Timestamp::parse_rfc3339("2026-11-20T09:15:04.120Z").unwrap());
    assert_eq!(event.mail.ses_tenant.as_ref().unwrap().as_str(), "rx-t0042");
    let Fate::Bounce { feedback_id, recipients, .. } = &event.fate else { panic!("no bounce") };
    assert_eq!(feedback_id, "0102019aa2f1f0aa-1c9d2e3f-4a5b-4c6d-8e7f-90a1b2c3d4e5-000000");
    assert_eq!(recipients[0].status.as_deref(), Some("5.1.1"));
    assert_eq!(recipients[0].diagnostic.as_deref(), Some("smtp; 550 5.1.1 no such mailbox"));
}

/// Cutting and flipping octets of real events must never panic, and must reach every outcome.
#[test]
fn damaged_events_are_read_or_refused() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let (mut read, mut unknown, mut refused) = (0, 0, 0);
    for (name, _) in FILES {
        let whole = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
        for _ in 0..200 {
            let mut body = whole.clone();
            match next(3) {
                0 => body.truncate(next(whole.len())),
                1 => {
                    let at = next(whole.len());
                    body[at] = u8::try_from(next(256)).unwrap();
                }
                _ => {
                    let (at, to) = (next(whole.len()), next(whole.len()));
                    body[at] = whole[to];
                }
            }
            match parse(&body) {
                Ok(Notice::Unknown { .. }) => unknown += 1,
                Ok(_) => read += 1,
                Err(why) => {
                    refused += 1;
                    assert!(!why.to_string().contains('@'), "{why}");
                    assert!(why.to_string().len() < 200, "{why}");
                }
            }
        }
    }
    assert!(read > 2000 && refused > 2000 && unknown > 5, "{read} {refused} {unknown}");
}
