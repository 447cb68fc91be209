//! Reads one queue item into a [`Notice`], whatever SES and AWS wrapped it in.
//!
//! | form | looks like |
//! |---|---|
//! | SNS | `{"Type":"Notification","Message":"<event as a string>", …}`; an object is taken as well |
//! | raw | the event itself: `eventType`, or `notificationType` of the older identity notifications |
//! | EventBridge | `{"detail-type":"Email Bounced","source":"aws.ses","detail":<event>, …}` |
//! | plain text | "Successfully validated SNS topic …", in SNS or as the whole body |
//!
//! An EventBridge event inside an SNS notification is read too; SNS inside SNS is not.
//!
//! Promises: total (every input gives a notice or a reason), bounded (body, recipients, texts), and
//! nothing is fetched: URLs and signatures in a notice are not even kept. `mail.headers` is not
//! read at all, since it holds what the client wrote and must not decide whose mail it was.
//!
//! What can go wrong: [`Malformed`], which names the place and never quotes the body. Well-formed
//! but unheard-of kinds are [`Notice::Unknown`], so that a new SES feature fills no dead-letter queue.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::kind::{BounceType, Event, Fate, Form, Mail, Notice, Recipient, Recommendation, SendingStatus, address};
use crate::mail::SesTenant;
use crate::time::Timestamp;

/// Longest body in octets: SQS's own bound.
pub const BODY: usize = 1_048_576;
/// Most recipients in one event; SES takes 50 in a call.
pub const RECIPIENTS: usize = 100;
/// Longest message or feedback id in octets. They are keys, so a longer one is refused, not cut.
pub const ID: usize = 256;

/// Longest word of SES's own (kinds, sub-types, status codes, ids of EventBridge), in characters.
const WORD: usize = 100;
/// Longest sentence (diagnostics, causes, reasons), in characters.
const SENTENCE: usize = 500;
/// Longest topic ARN: 256 for the name and the rest.
const ARN: usize = 400;

/// What SES posts to a topic once, when it is made an event destination.
const TOPIC_VALIDATED: &str = "Successfully validated SNS topic";

/// Why a queue item cannot be read. Holds no text of the body.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Reads one queue item's body.
pub fn parse(body: &[u8]) -> Result<Notice, Malformed> {
    if body.len() > BODY {
        return Err(malformed(format!("the body is longer than {BODY} octets")));
    }
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8"))?;
    if text.trim_start().starts_with(TOPIC_VALIDATED) {
        return Ok(Notice::TopicValidated);
    }
    let outline: Outline = read(text, "the body")?;
    match outline.sns_type.as_deref() {
        None => inner(text, outline, Form::Raw),
        Some("Notification") => notification(text),
        Some("SubscriptionConfirmation") => {
            let topic: Topic = read(text, "the subscription confirmation")?;
            Ok(Notice::SubscriptionConfirmation { topic_arn: cut(&topic.arn, ARN) })
        }
        Some(kind) => Ok(Notice::Unknown { kind: cut(kind, WORD) }),
    }
}

/// The message of an SNS notification.
fn notification(text: &str) -> Result<Notice, Malformed> {
    let wrapped: Notification = read(text, "the SNS notification")?;
    let message = match wrapped.message {
        serde_json::Value::String(message) => message,
        object @ serde_json::Value::Object(_) => object.to_string(),
        _ => return Err(malformed("the SNS notification's Message is neither text nor an object")),
    };
    if message.trim_start().starts_with(TOPIC_VALIDATED) {
        return Ok(Notice::TopicValidated);
    }
    let outline: Outline = read(&message, "the SNS notification's Message")?;
    if outline.sns_type.is_some() {
        return Err(malformed("the SNS notification holds another one"));
    }
    inner(&message, outline, Form::Sns)
}

/// An event or EventBridge's envelope of one.
fn inner(text: &str, outline: Outline, form: Form) -> Result<Notice, Malformed> {
    let Some(detail_type) = outline.detail_type else {
        let Some(kind) = outline.event_type.or(outline.notification_type) else {
            return Err(malformed("has none of eventType, notificationType, detail-type and Type"));
        };
        let Some(what) = What::of(&kind) else {
            return Ok(Notice::Unknown { kind: cut(&kind, WORD) });
        };
        return event(what, read(text, "the event")?, form).map(Notice::Event);
    };
    // Nobody but AWS can put an event with this source on a bus.
    if outline.source.as_deref() != Some("aws.ses") {
        return Ok(Notice::Unknown { kind: cut(&detail_type, WORD) });
    }
    match detail_type.as_str() {
        "Sending Status Enabled" | "Sending Status Disabled" => {
            sending_status(read(text, "the sending status")?).map(Notice::SendingStatus)
        }
        "Advisor Recommendation Status Open" => {
            recommendation(read(text, "the recommendation")?, true).map(Notice::Recommendation)
        }
        "Advisor Recommendation Status Resolved" | "Advisor Recommendation Status Closed" => {
            recommendation(read(text, "the recommendation")?, false).map(Notice::Recommendation)
        }
        email if email.starts_with("Email ") => {
            let within: Within<Kind> = read(text, "the EventBridge event")?;
            let kind = within.detail.event_type.unwrap_or(detail_type);
            let Some(what) = What::of(&kind) else {
                return Ok(Notice::Unknown { kind: cut(&kind, WORD) });
            };
            let within: Within<EventBody> = read(text, "the EventBridge event")?;
            event(what, within.detail, Form::EventBridge).map(Notice::Event)
        }
        _ => Ok(Notice::Unknown { kind: cut(&detail_type, WORD) }),
    }
}

/// The kinds of events we know.
#[derive(Clone, Copy)]
enum What {
    Send,
    Delivery,
    Bounce,
    Complaint,
    Reject,
    DeliveryDelay,
    Open,
    Click,
    RenderingFailure,
    Subscription,
}

impl What {
    fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "Send" => Self::Send,
            "Delivery" => Self::Delivery,
            "Bounce" => Self::Bounce,
            "Complaint" => Self::Complaint,
            "Reject" => Self::Reject,
            "DeliveryDelay" => Self::DeliveryDelay,
            "Open" => Self::Open,
            "Click" => Self::Click,
            "Rendering Failure" => Self::RenderingFailure,
            "Subscription" => Self::Subscription,
            _ => return None,
        })
    }
}

fn event(what: What, body: EventBody, form: Form) -> Result<Event, Malformed> {
    let mail = mail(body.mail)?;
    let (fate, at) = match what {
        What::Send => (Fate::Send, None),
        What::Delivery => {
            let it = body.delivery.ok_or_else(|| lacks("delivery"))?;
            let recipients = bounded(it.recipients)?.iter().map(|given| Recipient::read(given)).collect();
            (Fate::Delivery { recipients }, it.timestamp)
        }
        What::Bounce => bounce(body.bounce.ok_or_else(|| lacks("bounce"))?)?,
        What::Complaint => complaint(body.complaint.ok_or_else(|| lacks("complaint"))?)?,
        What::Reject => {
            let reason = body.reject.and_then(|it| it.reason).unwrap_or_default();
            (Fate::Reject { reason: cut(&reason, SENTENCE) }, None)
        }
        What::DeliveryDelay => {
            let it = body.delivery_delay.ok_or_else(|| lacks("deliveryDelay"))?;
            let recipients = recipients(it.delayed_recipients)?;
            (Fate::DeliveryDelay { delay_type: cut(&it.delay_type, WORD), recipients }, it.timestamp)
        }
        What::Open => (Fate::Open, body.open.and_then(|it| it.timestamp)),
        What::Click => (Fate::Click, body.click.and_then(|it| it.timestamp)),
        What::RenderingFailure => {
            let message = body.failure.and_then(|it| it.error_message).unwrap_or_default();
            (Fate::RenderingFailure { message: cut(&message, SENTENCE) }, None)
        }
        What::Subscription => (Fate::Subscription, body.subscription.and_then(|it| it.timestamp)),
    };
    let at = match at {
        Some(text) => moment(&text, "the event's timestamp")?,
        None => mail.timestamp,
    };
    Ok(Event { fate, at, mail, form })
}

fn bounce(it: BounceBody) -> Result<(Fate, Option<String>), Malformed> {
    let bounce_type = match it.bounce_type.as_str() {
        "Permanent" => BounceType::Permanent,
        "Transient" => BounceType::Transient,
        // A type that SES adds later says no more than this one.
        _ => BounceType::Undetermined,
    };
    let fate = Fate::Bounce {
        bounce_type,
        sub_type: cut(&it.bounce_sub_type.unwrap_or_default(), WORD),
        recipients: recipients(it.bounced_recipients)?,
        feedback_id: id(it.feedback_id, "feedbackId")?,
    };
    Ok((fate, it.timestamp))
}

fn complaint(it: ComplaintBody) -> Result<(Fate, Option<String>), Malformed> {
    let fate = Fate::Complaint {
        sub_type: it.complaint_sub_type.map(|word| cut(&word, WORD)),
        feedback_type: it.complaint_feedback_type.map(|word| cut(&word, WORD)),
        recipients: recipients(it.complained_recipients)?,
        feedback_id: id(it.feedback_id, "feedbackId")?,
    };
    Ok((fate, it.timestamp))
}

fn recipients(given: Vec<RecipientBody>) -> Result<Vec<Recipient>, Malformed> {
    let read = |it: RecipientBody| Recipient {
        status: it.status.map(|word| cut(&word, WORD)),
        action: it.action.map(|word| cut(&word, WORD)),
        diagnostic: it.diagnostic_code.map(|words| cut(&words, SENTENCE)),
        ..Recipient::read(&it.email_address)
    };
    Ok(bounded(given)?.into_iter().map(read).collect())
}

fn mail(it: MailBody) -> Result<Mail, Malformed> {
    let tags = it.tags.unwrap_or_default();
    let first = |name: &str| tags.get(name).and_then(|values| values.first()).map(String::as_str);
    Ok(Mail {
        timestamp: moment(&it.timestamp, "mail.timestamp")?,
        message_id: id(it.message_id, "mail.messageId")?,
        source: it.source.as_deref().and_then(address),
        destination: bounded(it.destination.unwrap_or_default())?
            .iter()
            .map(|given| cut(given, Recipient::GIVEN))
            .collect(),
        tenant: first("tenant").and_then(|tag| tag.parse().ok()),
        stream: first("stream").and_then(|tag| tag.parse().ok()),
        credential: first("credential").map(|tag| cut(tag, WORD)),
        configuration_set: first("ses:configuration-set").and_then(|tag| tag.parse().ok()),
        ses_tenant: first("ses:tenant-name").and_then(|tag| tag.parse().ok()),
    })
}

fn sending_status(it: Bridged<StatusBody>) -> Result<SendingStatus, Malformed> {
    let record = it.detail.data.record;
    Ok(SendingStatus {
        id: cut(&it.id, WORD),
        ses_tenant: tenant_of(&it.resources),
        status: cut(&record.status, WORD),
        origin: cut(&it.detail.data.origin.unwrap_or_default(), WORD),
        cause: cut(&record.cause.unwrap_or_default(), SENTENCE),
        at: moment(&it.time, "the EventBridge time")?,
    })
}

fn recommendation(it: Bridged<FindingBody>, open: bool) -> Result<Recommendation, Malformed> {
    let metadata = it.detail.metadata.unwrap_or_default();
    Ok(Recommendation {
        id: cut(&it.id, WORD),
        ses_tenant: tenant_of(&it.resources),
        open,
        impact: cut(&metadata.impact.unwrap_or_default(), WORD),
        finding: cut(&metadata.finding.unwrap_or_default(), WORD),
        words: cut(&it.detail.data.unwrap_or_default(), SENTENCE),
        at: moment(&it.time, "the EventBridge time")?,
    })
}

/// The SES tenant in `arn:aws:ses:REGION:ACCOUNT:tenant/NAME/tn-…`.
fn tenant_of(resources: &[String]) -> Option<SesTenant> {
    resources.iter().find_map(|arn| {
        let resource = arn.splitn(6, ':').nth(5)?;
        SesTenant::parse(resource.strip_prefix("tenant/")?.split('/').next()?).ok()
    })
}

fn id(text: String, what: &str) -> Result<String, Malformed> {
    if text.is_empty() || text.len() > ID {
        return Err(malformed(format!("{what} is empty or longer than {ID} octets")));
    }
    Ok(text)
}

fn bounded<T>(list: Vec<T>) -> Result<Vec<T>, Malformed> {
    if list.len() > RECIPIENTS {
        return Err(malformed(format!("names more than {RECIPIENTS} recipients")));
    }
    Ok(list)
}

fn moment(text: &str, what: &str) -> Result<Timestamp, Malformed> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| malformed(format!("{what} is no RFC 3339 date and time")))
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn malformed(reason: impl Into<String>) -> Malformed {
    Malformed(reason.into())
}

fn lacks(field: &str) -> Malformed {
    malformed(format!("the event lacks its {field} object"))
}

/// Reads JSON; the reason names the place, and a field only where the name is one of ours.
fn read<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("at line {} column {}", error.line(), error.column());
        let words = error.to_string();
        malformed(match error.classify() {
            serde_json::error::Category::Data => match words.split(" at line ").next() {
                // serde says these two with nothing but the name of a field of our own structs.
                Some(ours) if ours.starts_with("missing field") || ours.starts_with("duplicate field") => {
                    format!("{what}: {ours} {place}")
                }
                _ => format!("{what}: a value is not of the type it should be {place}"),
            },
            serde_json::error::Category::Syntax => format!("{what} is no JSON {place}"),
            serde_json::error::Category::Eof => format!("{what} ends too early {place}"),
            serde_json::error::Category::Io => format!("{what} could not be read"),
        })
    })
}

// ---------------------------------------------------------------------------------------------
// What is on the wire. Fields that we do not use are skipped unread.

/// Enough to tell what the whole is.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "Type")]
    sns_type: Option<String>,
    #[serde(rename = "eventType")]
    event_type: Option<String>,
    #[serde(rename = "notificationType")]
    notification_type: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Message")]
    message: serde_json::Value,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(rename = "TopicArn")]
    arn: String,
}

#[derive(Deserialize)]
struct Within<T> {
    detail: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    event_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventBody {
    mail: MailBody,
    delivery: Option<DeliveryBody>,
    bounce: Option<BounceBody>,
    complaint: Option<ComplaintBody>,
    reject: Option<RejectBody>,
    delivery_delay: Option<DelayBody>,
    open: Option<Stamped>,
    click: Option<Stamped>,
    failure: Option<FailureBody>,
    subscription: Option<Stamped>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MailBody {
    timestamp: String,
    message_id: String,
    source: Option<String>,
    destination: Option<Vec<String>>,
    tags: Option<HashMap<String, Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryBody {
    timestamp: Option<String>,
    recipients: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BounceBody {
    bounce_type: String,
    bounce_sub_type: Option<String>,
    bounced_recipients: Vec<RecipientBody>,
    timestamp: Option<String>,
    feedback_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComplaintBody {
    complained_recipients: Vec<RecipientBody>,
    timestamp: Option<String>,
    feedback_id: String,
    complaint_sub_type: Option<String>,
    complaint_feedback_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DelayBody {
    timestamp: Option<String>,
    delay_type: String,
    delayed_recipients: Vec<RecipientBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecipientBody {
    email_address: String,
    status: Option<String>,
    action: Option<String>,
    diagnostic_code: Option<String>,
}

#[derive(Deserialize)]
struct RejectBody {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailureBody {
    error_message: Option<String>,
}

#[derive(Deserialize)]
struct Stamped {
    timestamp: Option<String>,
}

/// EventBridge's envelope where the envelope itself says something.
#[derive(Deserialize)]
struct Bridged<T> {
    id: String,
    time: String,
    #[serde(default)]
    resources: Vec<String>,
    detail: T,
}

#[derive(Deserialize)]
struct StatusBody {
    data: StatusData,
}

#[derive(Deserialize)]
struct StatusData {
    origin: Option<String>,
    record: StatusRecord,
}

#[derive(Deserialize)]
struct StatusRecord {
    status: String,
    cause: Option<String>,
}

#[derive(Deserialize)]
struct FindingBody {
    data: Option<String>,
    metadata: Option<FindingMetadata>,
}

#[derive(Deserialize, Default)]
struct FindingMetadata {
    impact: Option<String>,
    #[serde(rename = "type")]
    finding: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = r#""mail":{"timestamp":"2026-05-01T09:15:02.418Z","messageId":"m-1","source":"A <a@acme.example>",
        "destination":["b@there.example"],
        "headers":[{"name":"X-SES-MESSAGE-TAGS","value":"tenant=other"}],
        "tags":{"tenant":["acme","second"],"stream":["news"],"credential":["acme-app"],
        "ses:configuration-set":["acme-news"],"ses:tenant-name":["acme"],"theirs":["x"]}}"#;

    fn event_of(text: &str) -> Event {
        match parse(text.as_bytes()) {
            Ok(Notice::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    fn reason(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    fn bounce(recipients: &str) -> String {
        format!(
            r#"{{"eventType":"Bounce","bounce":{{"bounceType":"Permanent","bounceSubType":"General","feedbackId":"f-1",
            "timestamp":"2026-05-01T09:16:00Z","bouncedRecipients":[{recipients}]}},{MAIL}}}"#
        )
    }

    fn sns(message: &str) -> String {
        format!(r#"{{"Type":"Notification","TopicArn":"arn:t","Message":{}}}"#, serde_json::json!(message))
    }

    #[test]
    fn tags_are_their_first_values_and_headers_say_nothing() {
        let mail = event_of(&format!(r#"{{"eventType":"Send","send":{{}},{MAIL}}}"#)).mail;
        assert_eq!(mail.tenant.unwrap().as_str(), "acme");
        assert_eq!(mail.stream.unwrap().as_str(), "news");
        assert_eq!(mail.credential.unwrap(), "acme-app");
        assert_eq!(mail.configuration_set.unwrap().as_str(), "acme-news");
        assert_eq!(mail.ses_tenant.unwrap().as_str(), "acme");
        let no_tags = MAIL.replace(r#""tags""#, r#""other""#);
        let mail = event_of(&format!(r#"{{"eventType":"Send",{no_tags}}}"#)).mail;
        assert_eq!((mail.tenant, mail.configuration_set), (None, None));
        let wrong = MAIL.replace("\"acme\",\"second\"", "\"ACME\"");
        assert_eq!(event_of(&format!(r#"{{"eventType":"Send",{wrong}}}"#)).mail.tenant, None);
    }

    #[test]
    fn addresses_lose_their_names_and_brackets() {
        for (given, read) in [
            ("a@acme.example", Some("a@acme.example")),
            ("  <a@acme.example> ", Some("a@acme.example")),
            ("\\\"A, <b@x.example>\\\" <a@acme.example>", Some("a@acme.example")),
            ("MAILER-DAEMON", None),
            ("", None),
            ("a@acme.example, b@acme.example", None),
        ] {
            let event = event_of(&bounce(&format!(r#"{{"emailAddress":"{given}"}}"#)));
            let recipient = &event.fate.recipients().unwrap()[0];
            assert_eq!(recipient.mailbox.as_ref().map(ToString::to_string).as_deref(), read, "{given}");
        }
    }

    #[test]
    fn one_event_reads_alike_in_every_wrapping() {
        let raw = bounce(r#"{"emailAddress":"b@there.example","status":"5.1.1"}"#);
        let bridge = format!(
            r#"{{"id":"e-1","source":"aws.ses","time":"2026-05-01T09:16:01Z","detail-type":"Email Bounced","detail":{raw}}}"#
        );
        let object = format!(r#"{{"Type":"Notification","Message":{raw}}}"#);
        let legacy = raw.replace("eventType", "notificationType");
        let first = event_of(&raw);
        for (body, form) in [
            (sns(&raw), Form::Sns),
            (object, Form::Sns),
            (legacy.clone(), Form::Raw),
            (sns(&legacy), Form::Sns),
            (bridge.clone(), Form::EventBridge),
            (sns(&bridge), Form::EventBridge),
        ] {
            let event = event_of(&body);
            assert_eq!(event.form, form);
            assert_eq!(Event { form: first.form, ..event }, first);
        }
    }

    #[test]
    fn notices_that_are_no_events() {
        let told = |text: &str| parse(text.as_bytes()).unwrap();
        let validated = "Successfully validated SNS topic for Amazon SES event publishing.";
        assert_eq!(told(validated), Notice::TopicValidated);
        assert_eq!(told(&sns(validated)), Notice::TopicValidated);
        let confirmation = r#"{"Type":"SubscriptionConfirmation","TopicArn":"arn:aws:sns:x","Token":"secret",
            "SubscribeURL":"https://sns.example/?Token=secret","Message":"You have chosen"}"#;
        assert_eq!(told(confirmation), Notice::SubscriptionConfirmation { topic_arn: "arn:aws:sns:x".into() });
        for (body, kind) in [
            (r#"{"Type":"UnsubscribeConfirmation"}"#, "UnsubscribeConfirmation"),
            (r#"{"eventType":"Teleport","teleport":[1]}"#, "Teleport"),
            (r#"{"source":"aws.ses","detail-type":"Weather","detail":{}}"#, "Weather"),
            (r#"{"source":"aws.ses","detail-type":"Email Read","detail":{"eventType":"Read"}}"#, "Read"),
            (r#"{"source":"my.app","detail-type":"Email Bounced","detail":{"eventType":"Bounce"}}"#, "Email Bounced"),
        ] {
            assert_eq!(told(body), Notice::Unknown { kind: kind.into() }, "{body}");
        }
        let long = told(&format!(r#"{{"eventType":"{}"}}"#, "ü".repeat(300)));
        assert_eq!(long, Notice::Unknown { kind: "ü".repeat(100) });
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_words_of_our_own() {
        let one = r#"{"emailAddress":"b@there.example"}"#;
        for (body, said) in [
            ("", "the body ends too early"),
            ("hello b@there.example", "the body is no JSON"),
            ("[]", "the body: a value is not of the type it should be"),
            ("{}", "has none of eventType"),
            (&sns("hello b@there.example"), "the SNS notification's Message is no JSON"),
            (&sns(&sns("{}")), "the SNS notification holds another one"),
            (r#"{"Type":"Notification"}"#, "missing field `Message`"),
            (r#"{"Type":"Notification","Message":7}"#, "neither text nor an object"),
            (r#"{"eventType":"Bounce"}"#, "missing field `mail`"),
            (r#"{"eventType":"Bounce","eventType":"Send"}"#, "duplicate field `eventType`"),
            (&format!(r#"{{"eventType":"Bounce",{MAIL}}}"#), "lacks its bounce object"),
            (&bounce(one).replace("\"f-1\"", "\"\""), "feedbackId is empty"),
            (&bounce(one).replace("f-1", &"f".repeat(257)), "feedbackId is empty or longer"),
            (&bounce(one).replace("m-1", &"m".repeat(257)), "mail.messageId is empty or longer"),
            (&bounce(one).replace("2026-05-01T09:16:00Z", "today"), "the event's timestamp is no RFC 3339"),
            (&bounce(one).replace("2026-05-01T09:15:02.418Z", "today"), "mail.timestamp is no RFC 3339"),
            (&bounce(&vec![one; 101].join(",")), "names more than 100 recipients"),
            (&bounce(r#"{"emailAddress":["b@there.example"]}"#), "not of the type it should be"),
        ] {
            let words = reason(body);
            assert!(words.contains(said), "{body}\n{words}");
            assert!(!words.contains('@'), "{words}");
        }
        assert!(parse(&[b' '; BODY]).unwrap_err().to_string().contains("ends too early"));
        assert!(parse(&vec![b' '; BODY + 1]).unwrap_err().to_string().contains("longer than 1048576"));
        assert!(parse(b"{\"eventType\":\"\xff\"}").unwrap_err().to_string().contains("not UTF-8"));
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = "[".repeat(200_000);
        assert!(reason(&format!(r#"{{"a":{deep}"#)).contains("too early"));
        let nested = format!("{}{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
        assert!(parse(format!(r#"{{"Type":"Notification","Message":{nested}}}"#).as_bytes()).is_err());
        let event = event_of(&bounce(&format!(
            r#"{{"emailAddress":"{}@there.example","diagnosticCode":"{}"}}"#,
            "x".repeat(1000),
            "ü".repeat(1000)
        )));
        let recipient = &event.fate.recipients().unwrap()[0];
        assert_eq!(recipient.mailbox, None);
        assert_eq!(recipient.given.chars().count(), 320);
        assert_eq!(recipient.diagnostic.as_ref().unwrap().chars().count(), 500);
        assert_eq!(recipient.folded(), recipient.given);
    }

    #[test]
    fn an_ses_tenant_is_found_in_its_arn() {
        for (arn, name) in [
            ("arn:aws:ses:eu-west-1:410987654321:tenant/rx-1/tn-3f", Some("rx-1")),
            ("arn:aws:ses:eu-west-1::tenant/rx-1/tn-3f", Some("rx-1")),
            ("arn:aws:ses:eu-west-1:410987654321:identity/tenant/x", None),
            ("tenant/rx-1", None),
        ] {
            assert_eq!(tenant_of(&[arn.into()]).as_ref().map(SesTenant::as_str), name, "{arn}");
        }
    }
}
