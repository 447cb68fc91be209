//! The sandbox, by the unmodified AWS SDK and by plain HTTP: the promises of its manual page.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message, MessageTag, RawMessage};
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, QueueAttributeName};
use base64::Engine as _;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::ses::{Credentials, sdk_config};
use bulkhead::sandbox::fault::{Fault, Faults, Kind};
use bulkhead::sandbox::inbox::Inbox;
use bulkhead::sandbox::socket::Door;
use bulkhead::sandbox::sqs::EventQueue;
use bulkhead::sandbox::{self, EventForm, Sandbox};
use bulkhead::secret::Secret;
use bulkhead::time::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MESSAGE: &str =
    "From: Anna <anna@acme.example>\r\nTo: x@ok.example, y@ok.example\r\nSubject: hello\r\n\r\nbody\r\n";
const FEEDBACK: [&str; 2] = ["Bounce", "Complaint"];

struct Running {
    url: String,
    queue_url: String,
    inbox: Arc<Inbox>,
    faults: Arc<Faults>,
    door: Arc<Door>,
    queue: Arc<EventQueue>,
    ses: aws_sdk_sesv2::Client,
    sqs: aws_sdk_sqs::Client,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

async fn sandbox(change: impl FnOnce(&mut sandbox::Options)) -> Running {
    let mut options = sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom));
    change(&mut options);
    let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
    let keys = Credentials::Static { access_key_id: "test".into(), secret_access_key: Secret::new(b"test".to_vec()) };
    let config = sdk_config(Some("eu-west-1".into()), keys).await;
    let url = sandbox.url();
    let drain = CancellationToken::new();
    Running {
        queue_url: sandbox.queue_url(),
        inbox: sandbox.messages(),
        faults: sandbox.faults(),
        door: sandbox.door(),
        queue: sandbox.queue(),
        ses: aws_sdk_sesv2::Client::from_conf(
            aws_sdk_sesv2::config::Builder::from(&config)
                .endpoint_url(&url)
                .retry_config(aws_sdk_sesv2::config::retry::RetryConfig::disabled())
                .build(),
        ),
        sqs: aws_sdk_sqs::Client::from_conf(
            aws_sdk_sqs::config::Builder::from(&config)
                .endpoint_url(&url)
                .retry_config(aws_sdk_sqs::config::retry::RetryConfig::disabled())
                .build(),
        ),
        url,
        drain: drain.clone(),
        task: tokio::spawn(sandbox.run(drain)),
    }
}

impl Running {
    async fn send(&self, recipients: &[&str], set: Option<&str>, tenant: Option<&str>) -> String {
        let raw = RawMessage::builder().data(Blob::new(MESSAGE)).build().unwrap();
        let to = recipients.iter().map(ToString::to_string).collect();
        let sent = self
            .ses
            .send_email()
            .content(EmailContent::builder().raw(raw).build())
            .destination(Destination::builder().set_to_addresses(Some(to)).build())
            .set_configuration_set_name(set.map(str::to_owned))
            .set_tenant_name(tenant.map(str::to_owned))
            .email_tags(MessageTag::builder().name("tenant").value("acme").build().unwrap())
            .send()
            .await
            .unwrap();
        sent.message_id.unwrap()
    }

    fn receive(&self) -> aws_sdk_sqs::operation::receive_message::builders::ReceiveMessageFluentBuilder {
        self.sqs.receive_message().queue_url(&self.queue_url).max_number_of_messages(10)
    }

    async fn bodies(&self) -> Vec<String> {
        let got = self.receive().send().await.unwrap();
        got.messages().iter().map(|m| m.body().unwrap().to_owned()).collect()
    }

    /// Every event in the queue, out of its SNS envelope.
    async fn events(&self) -> Vec<Value> {
        let bodies = self.bodies().await;
        bodies.iter().map(|body| inner(&serde_json::from_str(body).unwrap())).collect()
    }

    /// What plain HTTP answers: status, `x-amzn-errortype`, body.
    async fn http(&self, method: &'static str, path: &str, signed: bool, body: &str) -> (u16, String, Value) {
        let url = format!("{}{path}", self.url);
        let body = body.to_owned();
        tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut request = ureq::http::Request::builder().method(method).uri(url);
            if signed {
                request = request.header("authorization", "AWS4-HMAC-SHA256 whatever");
            }
            let mut response = agent.run(request.body(body).unwrap()).unwrap();
            let error = response.headers().get("x-amzn-errortype").map(|v| v.to_str().unwrap().to_owned());
            assert!(response.headers().contains_key("x-amzn-requestid"));
            let text = response.body_mut().read_to_string().unwrap();
            (response.status().as_u16(), error.unwrap_or_default(), serde_json::from_str(&text).unwrap())
        })
        .await
        .unwrap()
    }
}

fn inner(envelope: &Value) -> Value {
    assert_eq!(envelope["Type"], "Notification");
    serde_json::from_str(envelope["Message"].as_str().unwrap()).unwrap()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["eventType"].as_str().unwrap()).collect()
}

fn at(value: &Value) -> Timestamp {
    Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn it_listens_on_loopback_alone() {
    for outside in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let options = sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom));
        let error = Sandbox::bind(outside.parse().unwrap(), options).await.err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{outside}");
        assert!(error.to_string().contains("loopback only"), "{error}");
    }
}

#[tokio::test]
async fn every_recipient_has_its_events() {
    // Recipient, event kinds in order, and for the last of them where to look and what is there.
    let rows: &[(&str, &[&str], &str, Value)] = &[
        ("a@ok.example", &["Send", "Delivery"], "/delivery/recipients/0", json!("a@ok.example")),
        (
            "success@simulator.amazonses.com",
            &["Send", "Delivery"],
            "/delivery/smtpResponse",
            json!("250 2.0.0 Ok: queued as sandbox"),
        ),
        (
            "success+tag@simulator.amazonses.com",
            &["Send", "Delivery"],
            "/delivery/recipients",
            json!(["success+tag@simulator.amazonses.com"]),
        ),
        ("bounce@simulator.amazonses.com", &["Send", "Bounce"], "/bounce/bounceType", json!("Permanent")),
        ("bounce+x-1@simulator.amazonses.com", &["Send", "Bounce"], "/bounce/bounceSubType", json!("General")),
        (
            "BOUNCE+x@Simulator.AmazonSES.com",
            &["Send", "Bounce"],
            "/bounce/bouncedRecipients/0/emailAddress",
            json!("BOUNCE+x@Simulator.AmazonSES.com"),
        ),
        ("suppressionlist@simulator.amazonses.com", &["Send", "Bounce"], "/bounce/bounceSubType", json!("Suppressed")),
        (
            "ooto@simulator.amazonses.com",
            &["Send", "Delivery", "Bounce"],
            "/bounce/bouncedRecipients",
            json!([{"emailAddress": "ooto@simulator.amazonses.com"}]),
        ),
        ("ooto+z@simulator.amazonses.com", &["Send", "Delivery", "Bounce"], "/bounce/bounceType", json!("Transient")),
        (
            "complaint@simulator.amazonses.com",
            &["Send", "Delivery", "Complaint"],
            "/complaint/complaintFeedbackType",
            json!("abuse"),
        ),
        (
            "complaint+y@simulator.amazonses.com",
            &["Send", "Delivery", "Complaint"],
            "/complaint/complaintSubType",
            Value::Null,
        ),
        ("who@bounce.test", &["Send", "Bounce"], "/bounce/bouncedRecipients/0/status", json!("5.1.1")),
        ("who@soft.test", &["Send", "Bounce"], "/bounce/bounceSubType", json!("MailboxFull")),
        ("other@soft.test", &["Send", "Bounce"], "/bounce/bounceType", json!("Transient")),
        (
            "who@complaint.test",
            &["Send", "Delivery", "Complaint"],
            "/complaint/complainedRecipients",
            json!([{"emailAddress": "who@complaint.test"}]),
        ),
        ("who@slow.test", &["Send", "DeliveryDelay", "Delivery"], "/delivery/recipients", json!(["who@slow.test"])),
    ];
    let house = sandbox(|options| options.slow_delay = Duration::ZERO).await;
    for (recipient, wanted, pointer, value) in rows {
        let id = house.send(&[recipient], Some("acme-tx"), Some("acme")).await;
        let events = house.events().await;
        assert_eq!(kinds(&events), *wanted, "{recipient}");
        assert_eq!(events.last().unwrap().pointer(pointer), Some(value), "{recipient} {pointer}");
        for event in &events {
            let (kind, mail) = (event["eventType"].as_str().unwrap(), &event["mail"]);
            assert_eq!(mail["messageId"], json!(id), "{recipient}");
            assert_eq!(mail["destination"], json!([recipient]));
            assert_eq!(mail["source"], "Anna <anna@acme.example>");
            assert_eq!(mail["commonHeaders"]["to"], json!(["x@ok.example", "y@ok.example"]));
            assert_eq!(mail["headers"][2], json!({ "name": "Subject", "value": "hello" }));
            assert_eq!(mail["tags"]["tenant"], json!(["acme"]));
            assert_eq!(mail["tags"]["ses:configuration-set"], json!(["acme-tx"]));
            assert_eq!(mail["tags"]["ses:operation"], json!(["SendEmail"]));
            let tenant_named = mail["tags"].get("ses:tenant-name").is_some();
            assert_eq!(tenant_named, FEEDBACK.contains(&kind), "{recipient} {kind}");
            assert_eq!(mail["tags"].get("ses:outgoing-ip").is_some(), kind == "Delivery");
            let _ = at(&mail["timestamp"]);
        }
        house.queue.purge();
    }
    assert_eq!(house.inbox.received(), rows.len() as u64);
}

#[tokio::test]
async fn a_complaint_is_stamped_before_its_delivery_and_feedback_ids_differ() {
    let house = sandbox(|_| ()).await;
    house.send(&["a@complaint.test", "b@complaint.test"], Some("s"), None).await;
    let events = house.events().await;
    assert_eq!(kinds(&events), ["Send", "Delivery", "Complaint", "Delivery", "Complaint"]);
    assert!(at(&events[2]["complaint"]["timestamp"]) < at(&events[1]["delivery"]["timestamp"]));
    assert_ne!(events[2]["complaint"]["feedbackId"], events[4]["complaint"]["feedbackId"]);
    assert_eq!(events[2]["mail"]["tags"].get("ses:tenant-name"), None, "no TenantName was given");
}

#[tokio::test]
async fn the_bounces_of_one_call_come_in_one_event_and_the_rest_is_delivered() {
    let house = sandbox(|_| ()).await;
    let all = ["a@bounce.test", "b@ok.example", "c@bounce.test", "d@soft.test"];
    house.send(&all, Some("s"), None).await;
    let events = house.events().await;
    assert_eq!(kinds(&events), ["Send", "Bounce", "Bounce", "Delivery"]);
    assert_eq!(events[1]["bounce"]["bouncedRecipients"][1]["emailAddress"], "c@bounce.test");
    assert_eq!(events[2]["bounce"]["bouncedRecipients"][0]["emailAddress"], "d@soft.test");
    assert_eq!(events[3]["mail"]["destination"], json!(all), "the whole envelope");
}

#[tokio::test]
async fn without_a_configuration_set_there_are_no_events() {
    let house = sandbox(|_| ()).await;
    house.send(&["a@bounce.test"], None, None).await;
    assert_eq!(house.inbox.received(), 1);
    assert!(house.queue.is_empty());
}

#[tokio::test]
async fn events_come_in_each_of_the_three_forms() {
    for form in [EventForm::Sns, EventForm::Raw, EventForm::EventBridge] {
        let house = sandbox(|options| options.event_form = form).await;
        house.send(&["a@bounce.test"], Some("s"), None).await;
        let bodies = house.bodies().await;
        let body: Value = serde_json::from_str(&bodies[1]).unwrap();
        let event = match form {
            EventForm::Sns => inner(&body),
            EventForm::Raw => body,
            EventForm::EventBridge => {
                assert_eq!((&body["detail-type"], &body["source"]), (&json!("Email Bounced"), &json!("aws.ses")));
                body["detail"].clone()
            }
        };
        assert_eq!(event["eventType"], "Bounce", "{form:?}");
    }
}

#[tokio::test]
async fn a_long_poll_wakes_when_an_event_arrives() {
    let house = sandbox(|options| options.event_delay = Duration::from_millis(400)).await;
    let began = Instant::now();
    let (got, _) =
        tokio::join!(house.receive().wait_time_seconds(20).send(), house.send(&["a@ok.example"], Some("s"), None));
    let took = began.elapsed();
    assert!(!got.unwrap().messages().is_empty());
    assert!(took >= Duration::from_millis(400), "before its delay: {took:?}");
    assert!(took < Duration::from_secs(10), "not by its arrival: {took:?}");

    // And for one put in by hand while the poll is under way.
    house.queue.purge();
    let began = Instant::now();
    let poll = tokio::spawn(house.receive().wait_time_seconds(20).send());
    let sent = house.sqs.send_message().queue_url(&house.queue_url).message_body("by hand").send().await.unwrap();
    assert_eq!(sent.md5_of_message_body(), Some("7d909037a76176adb749eda313187060"));
    let got = poll.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "not by its arrival");
    assert_eq!(got.messages()[0].body(), Some("by hand"));
    assert_eq!(got.messages()[0].md5_of_body(), sent.md5_of_message_body());
}

#[tokio::test]
async fn what_is_not_deleted_comes_again() {
    let house = sandbox(|_| ()).await;
    house.queue.put("one".into());
    let first = house.receive().visibility_timeout(1).send().await.unwrap();
    assert!(house.bodies().await.is_empty(), "it is hidden");
    let again = house.receive().wait_time_seconds(20).send().await.unwrap();
    let again = &again.messages()[0];
    assert_eq!((again.body(), again.message_id()), (Some("one"), first.messages()[0].message_id()));
    let change = |seconds| {
        house
            .sqs
            .change_message_visibility()
            .queue_url(&house.queue_url)
            .receipt_handle(again.receipt_handle().unwrap())
            .visibility_timeout(seconds)
            .send()
    };
    change(600).await.unwrap();
    assert!(house.bodies().await.is_empty());
    change(0).await.unwrap();
    assert_eq!(house.bodies().await, ["one"]);
    assert!(change(0).await.is_err(), "the handle of an earlier receive");
}

#[tokio::test]
async fn a_batch_is_deleted_entry_by_entry() {
    let house = sandbox(|_| ()).await;
    for body in ["one", "two", "three"] {
        house.queue.put(body.into());
    }
    let got = house.receive().send().await.unwrap();
    let handles: Vec<_> = got.messages().iter().map(|m| m.receipt_handle().unwrap()).collect();
    let entry = |id: &str, handle: &str| {
        DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(handle).build().unwrap()
    };
    let delete =
        |entries| house.sqs.delete_message_batch().queue_url(&house.queue_url).set_entries(Some(entries)).send();
    let batch = vec![entry("a", handles[0]), entry("b", "not a handle"), entry("c", handles[2])];
    let done = delete(batch).await.unwrap();
    assert_eq!(done.successful().iter().map(|s| s.id()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(done.failed().len(), 1);
    assert_eq!((done.failed()[0].id(), done.failed()[0].code()), ("b", "ReceiptHandleIsInvalid"));
    assert_eq!(house.queue.len(), 1);

    let error = delete(vec![]).await.unwrap_err().into_service_error();
    assert!(error.is_empty_batch_request(), "{error:?}");
    let error = delete(vec![entry("a", handles[1]), entry("a", handles[1])]).await.unwrap_err().into_service_error();
    assert!(error.is_batch_entry_ids_not_distinct(), "{error:?}");

    let one = |handle: &str| house.sqs.delete_message().queue_url(&house.queue_url).receipt_handle(handle).send();
    one(handles[1]).await.unwrap();
    one(handles[1]).await.unwrap();
    assert!(house.queue.is_empty());
}

#[tokio::test]
async fn the_queue_tells_of_itself_and_knows_no_other() {
    let house = sandbox(|options| options.event_delay = Duration::from_secs(600)).await;
    let named = house.sqs.get_queue_url().queue_name("bulkhead-events").send().await.unwrap();
    assert_eq!(named.queue_url(), Some(house.queue_url.as_str()));
    let error = house.sqs.get_queue_url().queue_name("other").send().await.unwrap_err().into_service_error();
    assert!(error.is_queue_does_not_exist(), "{error:?}");
    let error = house.sqs.receive_message().queue_url("http://x/0/other").send().await.unwrap_err();
    assert!(error.into_service_error().is_queue_does_not_exist());

    for body in ["one", "two", "three"] {
        house.queue.put(body.into());
    }
    house.receive().max_number_of_messages(1).send().await.unwrap();
    house.send(&["a@ok.example"], Some("s"), None).await;
    let asked = house.sqs.get_queue_attributes().queue_url(&house.queue_url).attribute_names(QueueAttributeName::All);
    let told = asked.send().await.unwrap().attributes.unwrap();
    for (name, wanted) in [
        (QueueAttributeName::ApproximateNumberOfMessages, "2"),
        (QueueAttributeName::ApproximateNumberOfMessagesNotVisible, "1"),
        (QueueAttributeName::ApproximateNumberOfMessagesDelayed, "2"),
        (QueueAttributeName::VisibilityTimeout, "30"),
    ] {
        assert_eq!(told.get(&name).map(String::as_str), Some(wanted), "{name:?}");
    }
    house.sqs.purge_queue().queue_url(&house.queue_url).send().await.unwrap();
    assert!(house.queue.is_empty());
    for (most, wait) in [(0, 0), (11, 0), (1, 21)] {
        assert!(house.receive().max_number_of_messages(most).wait_time_seconds(wait).send().await.is_err());
    }
}

#[tokio::test]
async fn only_raw_content_under_its_own_from_field_is_taken() {
    let house = sandbox(|_| ()).await;
    let text = |text: &str| Content::builder().data(text).build().unwrap();
    let simple = Message::builder().subject(text("s")).body(Body::builder().text(text("b")).build()).build();
    let to = Destination::builder().to_addresses("a@ok.example").build();
    let refused = house
        .ses
        .send_email()
        .from_email_address("a@acme.example")
        .destination(to.clone())
        .content(EmailContent::builder().simple(simple).build())
        .send()
        .await;
    assert!(refused.unwrap_err().into_service_error().is_bad_request_exception());
    let raw = RawMessage::builder().data(Blob::new(MESSAGE)).build().unwrap();
    let raw = EmailContent::builder().raw(raw).build();
    let refused =
        house.ses.send_email().from_email_address("a@acme.example").destination(to).content(raw.clone()).send().await;
    assert!(refused.unwrap_err().into_service_error().is_bad_request_exception());
    assert_eq!(house.inbox.received(), 0);

    // Without Destination the header section is the envelope, as SES has it.
    house.ses.send_email().content(raw).send().await.unwrap();
    assert_eq!(house.inbox.all()[0].destination, ["x@ok.example", "y@ok.example"]);
}

#[tokio::test]
async fn what_the_call_leaves_out_the_header_section_says() {
    let house = sandbox(|_| ()).await;
    let text = format!("X-SES-CONFIGURATION-SET: theirs\r\nX-SES-MESSAGE-TAGS: a=1, b=2\r\n{MESSAGE}");
    let raw = RawMessage::builder().data(Blob::new(text)).build().unwrap();
    house.ses.send_email().content(EmailContent::builder().raw(raw).build()).send().await.unwrap();
    let got = &house.inbox.all()[0];
    assert_eq!(got.configuration_set.as_deref(), Some("theirs"));
    assert_eq!((got.tag("a"), got.tag("b")), (Some("1"), Some("2")));
}

#[tokio::test]
async fn who_does_not_sign_and_what_is_not_known_is_refused() {
    let house = sandbox(|_| ()).await;
    let send = "/v2/email/outbound-emails";
    for (method, path) in [("POST", send), ("GET", "/v2/email/account"), ("POST", "/")] {
        let (status, error, body) = house.http(method, path, false, "{}").await;
        assert_eq!(status, 403, "{path}");
        if path != "/" {
            assert_eq!(error, "MissingAuthenticationTokenException");
        }
        assert_eq!(body["message"], "Missing Authentication Token");
    }
    for (method, path) in [("GET", "/v2/email/identities"), ("DELETE", send), ("PUT", "/v2/email/tenants")] {
        let (status, error, _) = house.http(method, path, true, "").await;
        assert_eq!((status, error.as_str()), (404, "UnknownOperationException"), "{method} {path}");
    }
    for (body, wanted) in [
        ("not json", "SerializationException"),
        ("{}", "BadRequestException"),
        (r#"{"Content":{"Raw":{"Data":"!!"}}}"#, "BadRequestException"),
        (
            r#"{"Content":{"Raw":{"Data":"RnJvbTogYUBiLmUNCg0K"}},"Destination":{"ToAddresses":["\u00fc@b.example"]}}"#,
            "BadRequestException",
        ),
    ] {
        let (status, error, _) = house.http("POST", send, true, body).await;
        assert_eq!((status, error.as_str()), (400, wanted), "{body}");
    }
    let (status, _, body) = house.http("POST", "/", true, "{}").await;
    assert_eq!((status, body["__type"].as_str()), (400, Some("com.amazonaws.sqs#QueueDoesNotExist")));
    assert_eq!(house.inbox.received(), 0);
}

#[tokio::test]
async fn other_programs_see_and_script_it_over_http() {
    let house = sandbox(|_| ()).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(house.send(&["a@ok.example"], Some("acme-tx"), Some("acme_ses")).await);
    }
    let (status, _, first) = house.http("GET", "/sandbox/messages?limit=2", false, "").await;
    assert_eq!((status, first["messages"].as_array().unwrap().len()), (200, 2));
    let message = &first["messages"][1];
    assert_eq!(message["id"], json!(ids[1]));
    assert_eq!(message["tags"], json!({ "tenant": "acme" }));
    assert_eq!(message["tenant_name"], "acme_ses");
    assert_eq!(message["configuration_set"], "acme-tx");
    assert_eq!(message["destination"], json!(["a@ok.example"]));
    let raw = base64::engine::general_purpose::STANDARD.decode(message["raw"].as_str().unwrap()).unwrap();
    assert_eq!(raw, MESSAGE.as_bytes());
    let _ = at(&message["at"]);
    let (_, _, rest) = house.http("GET", &format!("/sandbox/messages?after={}", ids[1]), false, "").await;
    assert_eq!(rest["messages"].as_array().unwrap().len(), 1);
    assert_eq!((&rest["messages"][0]["id"], &rest["received"]), (&json!(ids[2]), &json!(3)));
    house.http("DELETE", "/sandbox/messages", false, "").await;
    assert_eq!((house.inbox.received(), house.inbox.all().len()), (0, 0));

    let script = r#"[{"kind":"throttle","count":2,"match":{"recipient":"@ok.example"}},{"kind":"503"}]"#;
    let (status, _, waiting) = house.http("POST", "/sandbox/faults", false, script).await;
    assert_eq!((status, waiting.as_array().unwrap().len()), (200, 2));
    assert_eq!(house.faults.waiting()[0], Fault::times(Kind::Throttle, 2).to("@ok.example"));
    let (_, _, told) = house.http("GET", "/sandbox/faults", false, "").await;
    assert_eq!(told, waiting);
    for wrong in ["{}", r#"[{"kind":"nope"}]"#, r#"[{"kind":"500","typo":1}]"#] {
        let (status, _, body) = house.http("POST", "/sandbox/faults", false, wrong).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(body["message"].as_str().unwrap().contains("not a list of faults"), "{body}");
    }
    for blind in ["reset_connect", "reset_body"] {
        let script = format!(r#"[{{"kind":"500"}},{{"kind":"{blind}","match":{{"recipient":"@ok.example"}}}}]"#);
        let (status, _, body) = house.http("POST", "/sandbox/faults", false, &script).await;
        assert_eq!(status, 400, "{blind}");
        assert!(body["message"].as_str().unwrap().contains("takes no match"), "{body}");
    }
    assert_eq!(house.faults.waiting().len(), 2, "a script is taken whole or not at all");
    house.http("DELETE", "/sandbox/faults", false, "").await;
    assert!(house.faults.waiting().is_empty());
}

#[tokio::test]
async fn an_outage_lasts_until_its_fault_is_cleared() {
    let house = sandbox(|_| ()).await;
    let outage = r#"[{"kind":"503","lasting":true}]"#;
    let (status, _, waiting) = house.http("POST", "/sandbox/faults", false, outage).await;
    assert_eq!((status, &waiting[0]["lasting"]), (200, &json!(true)));
    let call = r#"{"Content":{"Raw":{"Data":"RnJvbTogYUBiLmUNCg0K"}},"Destination":{"ToAddresses":["a@b.example"]}}"#;
    for _ in 0..5 {
        assert_eq!(house.http("POST", "/v2/email/outbound-emails", true, call).await.0, 503);
    }
    house.http("DELETE", "/sandbox/faults", false, "").await;
    assert_eq!(house.http("POST", "/v2/email/outbound-emails", true, call).await.0, 200);
}

/// What a plain connection meets after it has sent this.
async fn meets(house: &Running, request: &[u8]) -> std::io::Result<usize> {
    let address = house.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await.unwrap()
}

#[tokio::test]
async fn a_request_is_reset_at_its_head_or_in_the_middle_of_its_body() {
    let house = sandbox(|_| ()).await;
    let length = 2 * 1024 * 1024;
    let head = format!(
        "POST /v2/email/outbound-emails HTTP/1.1\r\nhost: x\r\nauthorization: AWS4-HMAC-SHA256 x\r\ncontent-length: {length}\r\n\r\n"
    );
    let with = |body: usize| [head.as_bytes(), &vec![b'x'; body]].concat();
    // Not an octet of the body has come: nothing of it is waited for.
    assert!(house.faults.script([Fault::once(Kind::ResetConnect)]));
    let error = meets(&house, &with(0)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // Half of it has come and the rest never does.
    assert!(house.faults.script([Fault::once(Kind::ResetBody)]));
    let error = meets(&house, &with(length / 2)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(house.faults.waiting().is_empty());
    // Less than half: the middle is not reached, and the connection stands.
    assert!(house.faults.script([Fault::once(Kind::ResetBody)]));
    let address = house.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&with(length / 2 - 1)).await.unwrap();
    until(|| house.faults.waiting().is_empty()).await;
    house.http("GET", "/sandbox/faults", false, "").await;
    assert_eq!(stream.try_read(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    stream.write_all(b"x").await.unwrap();
    let met = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await.unwrap();
    assert_eq!(met.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(house.inbox.received(), 0);
}

#[tokio::test]
async fn a_closed_door_refuses_connections_and_breaks_those_that_wait() {
    let house = sandbox(|_| ()).await;
    let address = house.url.strip_prefix("http://").unwrap();
    for _ in 0..3 {
        let mut waiting = TcpStream::connect(address).await.unwrap();
        // Answered once: the connection is in, kept alive.
        waiting.write_all(b"GET /sandbox/faults HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"[]") {
            let mut piece = [0; 512];
            let n = waiting.read(&mut piece).await.unwrap();
            assert!(n > 0, "closed under its first answer");
            answer.extend_from_slice(&piece[..n]);
        }
        house.door.close().unwrap();
        house.door.close().unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let met = tokio::time::timeout(Duration::from_secs(20), waiting.read(&mut [0; 64])).await.unwrap();
        assert_eq!(met.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        house.door.open().unwrap();
        house.door.open().unwrap();
        house.send(&["a@ok.example"], None, None).await;
    }
    assert_eq!(house.inbox.received(), 3);
}

/// Lets the other tasks run until `done`.
async fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it never came to that");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_waits_for_messages_is_woken_by_the_last_of_them() {
    let house = sandbox(|_| ()).await;
    let waiting = tokio::spawn({
        let inbox = house.inbox.clone();
        async move { inbox.wait_for(2).await.len() }
    });
    house.send(&["a@ok.example"], None, None).await;
    assert!(!waiting.is_finished());
    house.send(&["a@ok.example"], None, None).await;
    assert_eq!(waiting.await.unwrap(), 2);
}

#[tokio::test]
async fn a_drain_ends_long_polls_and_hanging_calls() {
    let house = sandbox(|_| ()).await;
    assert!(house.faults.script([Fault::once(Kind::Hang)]));
    let poll = tokio::spawn(house.receive().wait_time_seconds(20).send());
    let raw = RawMessage::builder().data(Blob::new(MESSAGE)).build().unwrap();
    let hanging = tokio::spawn(house.ses.send_email().content(EmailContent::builder().raw(raw).build()).send());
    until(|| house.faults.waiting().is_empty()).await;
    let began = Instant::now();
    house.drain.cancel();
    house.task.await.unwrap();
    assert!(began.elapsed() < sandbox::DRAIN_TIME, "it took until the bound");
    assert!(hanging.await.unwrap().is_err(), "a hanging call is never answered");
    // Answered empty, or never let in: as the drain found it.
    if let Ok(answer) = poll.await.unwrap() {
        assert!(answer.messages().is_empty());
    }
    assert_eq!(house.inbox.received(), 0);
}
