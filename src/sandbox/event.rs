//! What becomes of a message, and the events SES tells it by.
//!
//! The recipient decides. SES's simulator addresses do what SES's do, labels and all (SES Developer
//! Guide, mailbox simulator); at the domains below a recipient does the like and counts as a real
//! one. Shapes and order follow events captured from a real account: a complaint and an automatic
//! reply are stamped before the delivery they belong to, the bounces of one call come in one event,
//! `ses:outgoing-*` tags are on deliveries alone and `ses:tenant-name` on bounces and complaints.

use std::time::Duration;

use serde_json::{Value, json};

use super::EventForm;
use super::check::Header;
use super::inbox::Message;
use crate::time::Timestamp;

/// SES's simulator.
pub(super) const SIMULATOR: &str = "simulator.amazonses.com";
/// Recipients here bounce for good.
pub const BOUNCE_DOMAIN: &str = "bounce.test";
/// Recipients here have a full mailbox until SES gives up.
pub const SOFT_DOMAIN: &str = "soft.test";
/// Recipients here get the message and complain.
pub const COMPLAINT_DOMAIN: &str = "complaint.test";
/// Recipients here get the message after a delay.
pub const SLOW_DOMAIN: &str = "slow.test";

/// Octets of header fields SES copies into an event.
const HEADER_BYTES: usize = 10 * 1024;

/// Who and where the sandbox says it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) region: String,
    pub(super) account: String,
    pub(super) slow: Duration,
}

/// One event and how long after the message it is told.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    pub(super) after: Duration,
    pub(super) event: Value,
}

/// What becomes of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Delivered,
    Bounced,
    Suppressed,
    Full,
    Complained,
    Away,
    Slow,
}

impl Fate {
    fn of(recipient: &str) -> Self {
        let recipient = recipient.to_ascii_lowercase();
        let (local, domain) = recipient.rsplit_once('@').unwrap_or((recipient.as_str(), ""));
        match domain {
            BOUNCE_DOMAIN => Self::Bounced,
            SOFT_DOMAIN => Self::Full,
            COMPLAINT_DOMAIN => Self::Complained,
            SLOW_DOMAIN => Self::Slow,
            SIMULATOR => match local.split('+').next().unwrap_or(local) {
                "bounce" => Self::Bounced,
                "complaint" => Self::Complained,
                "ooto" => Self::Away,
                "suppressionlist" => Self::Suppressed,
                _ => Self::Delivered,
            },
            _ => Self::Delivered,
        }
    }
}

/// Whether SES would not count the recipient against the daily quota.
pub(super) fn is_simulator(recipient: &str) -> bool {
    recipient.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(SIMULATOR))
}

/// Every event of a message, in the order in which they are told. `id` makes feedback ids.
pub(super) fn events(message: &Message, set: &str, place: &Place, mut id: impl FnMut() -> String) -> Vec<Told> {
    let about = About { message, set, place, header: Header::read(&message.raw) };
    let mut told = vec![about.now(json!({ "eventType": "Send", "send": {}, "mail": about.mail(Extra::Nothing) }))];
    let fates: Vec<(&String, Fate)> = message.destination.iter().map(|r| (r, Fate::of(r))).collect();
    let whose = |wanted: Fate| -> Vec<&str> {
        fates.iter().filter(|(_, fate)| *fate == wanted).map(|(recipient, _)| recipient.as_str()).collect()
    };
    for (fate, sub_type) in [(Fate::Bounced, "General"), (Fate::Suppressed, "Suppressed"), (Fate::Full, "MailboxFull")]
    {
        let recipients = whose(fate);
        if !recipients.is_empty() {
            told.push(about.now(about.bounce(fate, sub_type, &recipients, &id())));
        }
    }
    for (recipient, fate) in &fates {
        match fate {
            Fate::Bounced | Fate::Suppressed | Fate::Full => {}
            Fate::Delivered => told.push(about.now(about.delivery(recipient, Duration::ZERO))),
            Fate::Complained => {
                told.push(about.now(about.delivery(recipient, Duration::ZERO)));
                told.push(about.now(about.complaint(recipient, &id())));
            }
            Fate::Away => {
                told.push(about.now(about.delivery(recipient, Duration::ZERO)));
                told.push(about.now(about.bounce(Fate::Away, "General", &[recipient], &id())));
            }
            Fate::Slow => {
                told.push(about.now(about.delay(recipient)));
                told.push(Told { after: place.slow, event: about.delivery(recipient, place.slow) });
            }
        }
    }
    told
}

/// Tags that only some events have.
enum Extra {
    Nothing,
    Outgoing,
    Tenant,
}

struct About<'a> {
    message: &'a Message,
    set: &'a str,
    place: &'a Place,
    header: Header,
}

impl About<'_> {
    fn now(&self, event: Value) -> Told {
        Told { after: Duration::ZERO, event }
    }

    fn stamp(&self, after: Duration) -> String {
        self.message.at.plus(after).rfc3339()
    }

    fn mail(&self, extra: Extra) -> Value {
        let Place { region, account, .. } = self.place;
        let from = self.header.value("from").unwrap_or_default();
        let identity = self.header.addresses(&["from"]).into_iter().next().unwrap_or_default();
        let domain = identity.rsplit_once('@').map_or("", |(_, domain)| domain);
        let (headers, truncated) = self.headers();
        json!({
            "timestamp": self.stamp(Duration::ZERO),
            "source": from,
            "sourceArn": format!("arn:aws:ses:{region}:{account}:identity/{domain}"),
            "sendingAccountId": account,
            "messageId": self.message.id,
            "destination": self.message.destination,
            "headersTruncated": truncated,
            "headers": headers,
            "commonHeaders": self.common(),
            "tags": self.tags(domain, extra),
        })
    }

    fn headers(&self) -> (Vec<Value>, bool) {
        let mut room = HEADER_BYTES;
        let mut headers = Vec::new();
        for (name, value) in self.header.fields() {
            let Some(left) = room.checked_sub(name.len() + value.len() + 4) else { return (headers, true) };
            room = left;
            headers.push(json!({ "name": name, "value": value }));
        }
        (headers, false)
    }

    fn common(&self) -> Value {
        let list = |name: &str| -> Vec<&str> {
            self.header.value(name).map(|v| v.split(',').map(str::trim).collect()).unwrap_or_default()
        };
        let mut common = json!({ "from": list("from"), "messageId": self.message.id });
        for name in ["to", "cc"] {
            if self.header.value(name).is_some() {
                add(&mut common, name, json!(list(name)));
            }
        }
        for name in ["date", "subject"] {
            if let Some(value) = self.header.value(name) {
                add(&mut common, name, json!(value));
            }
        }
        common
    }

    fn tags(&self, domain: &str, extra: Extra) -> Value {
        let mut tags = json!({
            "ses:operation": ["SendEmail"],
            "ses:configuration-set": [self.set],
            "ses:source-ip": ["127.0.0.1"],
            "ses:from-domain": [domain],
            "ses:caller-identity": ["sandbox"],
        });
        for (name, value) in &self.message.tags {
            add(&mut tags, name, json!([value]));
        }
        match (extra, &self.message.tenant_name) {
            (Extra::Outgoing, _) => {
                add(&mut tags, "ses:outgoing-ip", json!(["192.0.2.10"]));
                add(&mut tags, "ses:outgoing-tls-version", json!(["TLSv1.3"]));
            }
            (Extra::Tenant, Some(tenant)) => add(&mut tags, "ses:tenant-name", json!([tenant])),
            (Extra::Tenant, None) | (Extra::Nothing, _) => {}
        }
        tags
    }

    fn delivery(&self, recipient: &str, after: Duration) -> Value {
        let took = after + Duration::from_millis(26);
        json!({
            "eventType": "Delivery",
            "mail": self.mail(Extra::Outgoing),
            "delivery": {
                "timestamp": self.stamp(took),
                "processingTimeMillis": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "recipients": [recipient],
                "smtpResponse": "250 2.0.0 Ok: queued as sandbox",
                "remoteMtaIp": "192.0.2.201",
                "reportingMTA": self.reporter(),
            },
        })
    }

    fn bounce(&self, fate: Fate, sub_type: &str, recipients: &[&str], id: &str) -> Value {
        let bounced = |recipient: &&str| match fate {
            Fate::Full => json!({ "emailAddress": recipient, "action": "failed", "status": "5.2.2",
                "diagnosticCode": "smtp; 552 5.2.2 mailbox full" }),
            Fate::Suppressed => json!({ "emailAddress": recipient, "action": "failed", "status": "5.1.1",
                "diagnosticCode": "Amazon SES has suppressed sending to this address because it has a recent history of bouncing as an invalid address." }),
            Fate::Bounced => json!({ "emailAddress": recipient, "action": "failed", "status": "5.1.1",
                "diagnosticCode": format!("smtp; 550 5.1.1 As requested: user unknown <{recipient}>") }),
            // An automatic reply is told with the bare address.
            Fate::Away | Fate::Delivered | Fate::Complained | Fate::Slow => json!({ "emailAddress": recipient }),
        };
        let mut bounce = json!({
            "bounceType": if matches!(fate, Fate::Full | Fate::Away) { "Transient" } else { "Permanent" },
            "bounceSubType": sub_type,
            "bouncedRecipients": recipients.iter().map(bounced).collect::<Vec<_>>(),
            "timestamp": self.stamp(Duration::from_millis(3)),
            "feedbackId": id,
        });
        if matches!(fate, Fate::Bounced | Fate::Full) {
            add(&mut bounce, "remoteMtaIp", json!("192.0.2.201"));
            add(&mut bounce, "reportingMTA", json!(format!("dns; {}", self.reporter())));
        }
        json!({ "eventType": "Bounce", "bounce": bounce, "mail": self.mail(Extra::Tenant) })
    }

    fn complaint(&self, recipient: &str, id: &str) -> Value {
        json!({
            "eventType": "Complaint",
            "complaint": {
                "complainedRecipients": [{ "emailAddress": recipient }],
                "timestamp": self.stamp(Duration::from_millis(3)),
                "feedbackId": id,
                "complaintSubType": Value::Null,
                "userAgent": "Amazon SES Mailbox Simulator",
                "complaintFeedbackType": "abuse",
                "arrivalDate": self.stamp(Duration::from_millis(3)),
            },
            "mail": self.mail(Extra::Tenant),
        })
    }

    fn delay(&self, recipient: &str) -> Value {
        json!({
            "eventType": "DeliveryDelay",
            "mail": self.mail(Extra::Nothing),
            "deliveryDelay": {
                "timestamp": self.stamp(Duration::from_millis(3)),
                "delayType": "TransientCommunicationFailure",
                "expirationTime": self.stamp(Duration::from_secs(50_400)),
                "reportingMTA": self.reporter(),
                "delayedRecipients": [{ "emailAddress": recipient, "status": "4.4.1",
                    "diagnosticCode": "smtp; 421 4.4.1 unable to connect" }],
            },
        })
    }

    fn reporter(&self) -> String {
        format!("sandbox.smtp-out.{}.amazonses.com", self.place.region)
    }
}

fn add(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

/// An event as it lies in the queue. `id` is the envelope's own.
pub(super) fn wrapped(form: EventForm, event: &Value, place: &Place, id: &str, at: Timestamp) -> String {
    let Place { region, account, .. } = place;
    match form {
        EventForm::Raw => event.to_string(),
        EventForm::Sns => json!({
            "Type": "Notification",
            "MessageId": id,
            "TopicArn": format!("arn:aws:sns:{region}:{account}:bulkhead-events"),
            "Subject": "Amazon SES Email Event Notification",
            "Message": event.to_string(),
            "Timestamp": at.rfc3339(),
            "SignatureVersion": "1",
            "Signature": "c2FuZGJveA==",
            "SigningCertURL": format!("https://sns.{region}.amazonaws.com/SimpleNotificationService-sandbox.pem"),
            "UnsubscribeURL": format!("https://sns.{region}.amazonaws.com/?Action=Unsubscribe"),
        })
        .to_string(),
        EventForm::EventBridge => json!({
            "version": "0",
            "id": id,
            "detail-type": detail_type(event.get("eventType").and_then(Value::as_str).unwrap_or_default()),
            "source": "aws.ses",
            "account": account,
            "time": at.rfc3339(),
            "region": region,
            "resources": [],
            "detail": event,
        })
        .to_string(),
    }
}

/// EventBridge's name of an event type.
fn detail_type(event_type: &str) -> &'static str {
    match event_type {
        "Send" => "Email Sent",
        "Delivery" => "Email Delivered",
        "Bounce" => "Email Bounced",
        "Complaint" => "Email Complaint Received",
        "DeliveryDelay" => "Email Delivery Delayed",
        _ => "Email Rejected",
    }
}
