//! SQS's routes over the one queue there is (protocol JSON 1.0: the operation is in
//! `X-Amz-Target`), and the long poll.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::md5;
use super::queue::{Counts, HandleError, Queue, Received};
use super::refusal::Refusal;
use super::ses::signed;
use super::{BODY_BYTES, House, Shared};
use crate::secret::Random;
use crate::time::Clock;

/// The queue's name.
pub const QUEUE_NAME: &str = "bulkhead-events";
/// Longest wait of a long poll.
const MOST_WAIT: u64 = 20;
/// Most notices of a receive and of a batch.
const MOST_NOTICES: u64 = 10;
/// Longest visibility time: 12 hours.
const MOST_HIDDEN: u64 = 43_200;

/// The events queue: the machine, its clock, and who waits at it.
pub struct EventQueue {
    queue: Mutex<Queue>,
    arrived: Notify,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl EventQueue {
    pub(super) fn new(most: usize, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { queue: Mutex::new(Queue::new(most)), arrived: Notify::new(), clock, random }
    }

    /// Puts a notice into the queue as it is: what a test or another program wants the relay to read.
    pub fn put(&self, body: String) -> String {
        self.put_after(body, Duration::ZERO)
    }

    /// How many notices are in the queue, received and delayed ones included.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many notices were dropped to stay within the bound.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped()
    }

    /// Empties it.
    pub fn purge(&self) {
        self.lock().purge();
    }

    pub(super) fn put_after(&self, body: String, after: Duration) -> String {
        let id = super::uuid(&*self.random);
        self.lock().push(id.clone(), body, self.clock.instant() + after, self.clock.now());
        self.arrived.notify_waiters();
        id
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits up to `wait` for the first visible notice.
    async fn receive(&self, most: usize, hidden: Duration, wait: Duration) -> Vec<Received> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // Before looking, so that nothing can arrive between looking and waiting.
            arrived.as_mut().enable();
            let now = self.clock.instant();
            let (got, next) = {
                let mut queue = self.lock();
                let got = queue.receive(now, self.clock.now(), most, hidden);
                (got, queue.next_visible())
            };
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if !got.is_empty() || left.is_zero() {
                return got;
            }
            let pause = next.map_or(left, |next| next.saturating_duration_since(now).min(left));
            tokio::select! {
                () = arrived => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

impl std::fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventQueue").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What the operations ask; each uses its part.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    queue_url: Option<String>,
    queue_name: Option<String>,
    max_number_of_messages: Option<u64>,
    visibility_timeout: Option<u64>,
    wait_time_seconds: Option<u64>,
    receipt_handle: Option<String>,
    entries: Vec<Entry>,
    message_body: Option<String>,
    delay_seconds: Option<u64>,
    attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: String,
    receipt_handle: String,
}

/// `POST /`.
pub(super) async fn call(State(house): State<Shared>, request: axum::extract::Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Err(refusal) = signed(&head.headers) {
        return house.refused_by_sqs(&refusal);
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return house.refused_by_sqs(&invalid("The request is too large."));
    };
    let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let request = if body.is_empty() { Ok(Request::default()) } else { serde_json::from_slice(&body) };
    let answer = match request {
        Ok(request) => house.perform(target.strip_prefix("AmazonSQS.").unwrap_or(target), request).await,
        Err(error) => Err(Refusal::new(400, "SerializationException", error.to_string())),
    };
    match answer {
        Ok(body) => house.reply_as("application/x-amz-json-1.0", 200, &[], &body),
        Err(refusal) => house.refused_by_sqs(&refusal),
    }
}

impl House {
    async fn perform(&self, operation: &str, request: Request) -> Result<Value, Refusal> {
        match operation {
            "GetQueueUrl" => {
                named(request.queue_name.as_deref() == Some(QUEUE_NAME))?;
                return Ok(json!({ "QueueUrl": self.queue_url }));
            }
            "ListQueues" => return Ok(json!({ "QueueUrls": [self.queue_url] })),
            _ => {}
        }
        let url = request.queue_url.as_deref().unwrap_or_default();
        named(url.rsplit('/').next() == Some(QUEUE_NAME))?;
        match operation {
            "ReceiveMessage" => self.receive(&request).await,
            "DeleteMessage" => match self.queue.lock().delete(handle(&request)?) {
                // SQS answers 200 to a handle of an earlier receive, and deletes nothing.
                Ok(()) | Err(HandleError::Stale) => Ok(json!({})),
                Err(HandleError::Malformed) => Err(bad_handle()),
            },
            "DeleteMessageBatch" => self.delete_batch(&request.entries),
            "ChangeMessageVisibility" => {
                let hidden = bounded("VisibilityTimeout", request.visibility_timeout, 0, MOST_HIDDEN, 0)?;
                let visible = self.options.clock.instant() + Duration::from_secs(hidden);
                let changed = self.queue.lock().change(handle(&request)?, visible);
                self.queue.arrived.notify_waiters();
                match changed {
                    Ok(()) => Ok(json!({})),
                    Err(HandleError::Malformed) => Err(bad_handle()),
                    Err(HandleError::Stale) => {
                        Err(Refusal::new(400, "MessageNotInflight", "The specified message isn't in flight."))
                    }
                }
            }
            "SendMessage" => {
                let body = request.message_body.filter(|body| !body.is_empty());
                let body = body.ok_or_else(|| Refusal::new(400, "MissingParameter", "MessageBody is required."))?;
                let delay = bounded("DelaySeconds", request.delay_seconds, 0, 900, 0)?;
                let digest = md5::hex(body.as_bytes());
                let id = self.queue.put_after(body, Duration::from_secs(delay));
                Ok(json!({ "MessageId": id, "MD5OfMessageBody": digest }))
            }
            "GetQueueAttributes" => Ok(json!({ "Attributes": self.attributes(&request.attribute_names) })),
            "PurgeQueue" => {
                self.queue.purge();
                Ok(json!({}))
            }
            _ => {
                Err(Refusal::new(400, "UnknownOperationException", format!("The sandbox does not know {operation:?}.")))
            }
        }
    }

    async fn receive(&self, request: &Request) -> Result<Value, Refusal> {
        let most = bounded("MaxNumberOfMessages", request.max_number_of_messages, 1, MOST_NOTICES, 1)?;
        let wait = bounded("WaitTimeSeconds", request.wait_time_seconds, 0, MOST_WAIT, 0)?;
        let default = self.options.visibility_timeout.as_secs();
        let hidden = bounded("VisibilityTimeout", request.visibility_timeout, 0, MOST_HIDDEN, default)?;
        let poll = self.queue.receive(
            usize::try_from(most).unwrap_or(1),
            Duration::from_secs(hidden),
            Duration::from_secs(wait),
        );
        let received = tokio::select! {
            received = poll => received,
            () = self.closing.cancelled() => Vec::new(),
        };
        if received.is_empty() {
            return Ok(json!({}));
        }
        let messages: Vec<Value> = received
            .into_iter()
            .map(|notice| {
                json!({
                    "MessageId": notice.id,
                    "ReceiptHandle": notice.handle,
                    "MD5OfBody": md5::hex(notice.body.as_bytes()),
                    "Attributes": {
                        "SentTimestamp": notice.sent.millis().to_string(),
                        "ApproximateReceiveCount": notice.receives.to_string(),
                        "ApproximateFirstReceiveTimestamp": notice.first_received.millis().to_string(),
                    },
                    "Body": notice.body,
                })
            })
            .collect();
        Ok(json!({ "Messages": messages }))
    }

    fn delete_batch(&self, entries: &[Entry]) -> Result<Value, Refusal> {
        if entries.is_empty() {
            return Err(Refusal::new(400, "EmptyBatchRequest", "There should be at least one entry in the request."));
        }
        if entries.len() > 10 {
            return Err(Refusal::new(400, "TooManyEntriesInBatchRequest", "At most 10 entries are allowed."));
        }
        let mut seen = std::collections::HashSet::new();
        if !entries.iter().all(|entry| seen.insert(&entry.id)) {
            return Err(Refusal::new(400, "BatchEntryIdsNotDistinct", "Ids of a batch must be distinct."));
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        let mut queue = self.queue.lock();
        for Entry { id, receipt_handle } in entries {
            match queue.delete(receipt_handle) {
                Ok(()) | Err(HandleError::Stale) => done.push(json!({ "Id": id })),
                Err(HandleError::Malformed) => failed.push(json!({
                    "Id": id,
                    "Code": "ReceiptHandleIsInvalid",
                    "Message": "The input receipt handle is invalid.",
                    "SenderFault": true,
                })),
            }
        }
        Ok(json!({ "Successful": done, "Failed": failed }))
    }

    fn attributes(&self, wanted: &[String]) -> Value {
        let Counts { visible, in_flight, delayed } = self.queue.lock().counts(self.options.clock.instant());
        let all = [
            ("ApproximateNumberOfMessages", visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", delayed.to_string()),
            ("VisibilityTimeout", self.options.visibility_timeout.as_secs().to_string()),
            ("MaximumMessageSize", "1048576".to_owned()),
            ("MessageRetentionPeriod", "345600".to_owned()),
            ("ReceiveMessageWaitTimeSeconds", "0".to_owned()),
            ("DelaySeconds", "0".to_owned()),
            ("QueueArn", format!("arn:aws:sqs:{}:{}:{QUEUE_NAME}", self.place.region, self.place.account)),
        ];
        let everything = wanted.iter().any(|name| name == "All");
        let chosen = all.into_iter().filter(|(name, _)| everything || wanted.iter().any(|w| w == name));
        Value::Object(chosen.map(|(name, value)| (name.to_owned(), Value::String(value))).collect())
    }

    fn refused_by_sqs(&self, refusal: &Refusal) -> Response<Body> {
        let body = json!({ "__type": format!("com.amazonaws.sqs#{}", refusal.code), "message": refusal.message });
        // The SDKs still go by the names of SQS's older protocol.
        let query = match refusal.code {
            "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue",
            "EmptyBatchRequest" => "AWS.SimpleQueueService.EmptyBatchRequest",
            "TooManyEntriesInBatchRequest" => "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            "BatchEntryIdsNotDistinct" => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            "MessageNotInflight" => "AWS.SimpleQueueService.MessageNotInflight",
            other => other,
        };
        let extra = [("x-amzn-query-error", format!("{query};Sender"))];
        self.reply_as("application/x-amz-json-1.0", refusal.status, &extra, &body)
    }
}

fn named(right: bool) -> Result<(), Refusal> {
    if right {
        return Ok(());
    }
    Err(Refusal::new(400, "QueueDoesNotExist", "The specified queue does not exist."))
}

fn handle(request: &Request) -> Result<&str, Refusal> {
    request
        .receipt_handle
        .as_deref()
        .ok_or_else(|| Refusal::new(400, "MissingParameter", "The request must contain the parameter ReceiptHandle."))
}

fn bad_handle() -> Refusal {
    Refusal::new(400, "ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
}

fn invalid(words: &str) -> Refusal {
    Refusal::new(400, "InvalidParameterValue", words)
}

fn bounded(name: &str, given: Option<u64>, least: u64, most: u64, default: u64) -> Result<u64, Refusal> {
    let value = given.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(invalid(&format!("Value {value} for parameter {name} is invalid. Reason: Must be between {least} and {most}.")))
}
