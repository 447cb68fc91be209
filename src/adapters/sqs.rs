//! SQS: [`Notices`] on the AWS SDK.
//!
//! The SDK's own retries are off, since ingest has its own with a pause that it can log and end;
//! so is its stalled-stream protection, which takes a long poll for a stall. Each call has a time
//! limit here instead: a receive its wait and 10 s more, a delete 10 s.
//!
//! Promises: errors are [`QueueError`] in words that name the code and the cause; bodies and
//! receipt handles are not in them. An item that SQS gives without a receipt handle is left out,
//! since it could never be deleted.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;

use crate::store::Pending;
use crate::upstream::{Item, Notices, QueueError};

/// Most items in one receive or delete (SQS API reference).
const ITEMS: usize = 10;
/// Longest wait of a receive (SQS API reference).
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long a call may take beyond its own wait.
const MARGIN: Duration = Duration::from_secs(10);
/// How deep the cause of an error is followed.
const CAUSES: usize = 6;

/// One queue.
#[derive(Clone, Debug)]
pub struct SqsNotices {
    client: Client,
    queue_url: String,
}

impl SqsNotices {
    /// The queue at `queue_url`, with the region, credentials and HTTP client of `config`. An
    /// `endpoint_url` goes before the SDK's own `AWS_ENDPOINT_URL_SQS`.
    pub fn new(config: &SdkConfig, endpoint_url: Option<String>, queue_url: String) -> Self {
        let mut sqs = aws_sdk_sqs::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(limit(MARGIN));
        if let Some(url) = endpoint_url {
            sqs = sqs.endpoint_url(url);
        }
        Self { client: Client::from_conf(sqs.build()), queue_url }
    }

    async fn receive_some(&self, wait: Duration) -> Result<Vec<Item>, QueueError> {
        let wait = wait.min(LONGEST_WAIT);
        let received = self
            .client
            .receive_message()
            .queue_url(&self.queue_url)
            .max_number_of_messages(i32::try_from(ITEMS).unwrap_or(1))
            .wait_time_seconds(i32::try_from(wait.as_secs()).unwrap_or(0))
            .customize()
            .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(limit(wait + MARGIN)))
            .send()
            .await
            .map_err(|error| said(&error))?;
        let item = |message: aws_sdk_sqs::types::Message| {
            Some(Item {
                id: message.message_id.unwrap_or_default(),
                receipt_handle: message.receipt_handle?,
                body: message.body.unwrap_or_default(),
            })
        };
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(item).collect())
    }

    async fn delete_some(&self, items: &[Item]) -> Result<Vec<(Item, String)>, QueueError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        // Ids within a batch are ours to choose: the position.
        let entries = items.iter().enumerate().map(|(at, item)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(at.to_string())
                .receipt_handle(&item.receipt_handle)
                .build()
                .map_err(|error| QueueError(error.to_string()))
        });
        let answer = self
            .client
            .delete_message_batch()
            .queue_url(&self.queue_url)
            .set_entries(Some(entries.collect::<Result<_, _>>()?))
            .send()
            .await
            .map_err(|error| said(&error))?;
        let mut failed: HashMap<String, String> = HashMap::new();
        for entry in answer.failed {
            let words = match entry.message {
                Some(message) => format!("{}: {message}", entry.code),
                None => entry.code,
            };
            failed.insert(entry.id, words);
        }
        let of = |(at, item): (usize, &Item)| failed.remove(&at.to_string()).map(|words| (item.clone(), words));
        Ok(items.iter().enumerate().filter_map(of).collect())
    }
}

impl Notices for SqsNotices {
    fn receive(&self, wait: Duration) -> Pending<'_, Result<Vec<Item>, QueueError>> {
        Box::pin(self.receive_some(wait))
    }

    fn delete<'a>(&'a self, items: &'a [Item]) -> Pending<'a, Result<Vec<(Item, String)>, QueueError>> {
        Box::pin(self.delete_some(items))
    }
}

fn limit(operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_timeout(operation).connect_timeout(MARGIN / 2).build()
}

/// The code and words of a service error, or the chain of causes of any other.
fn said<E>(error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(answer) = error {
        let status = answer.raw().status().as_u16();
        let code = answer.err().code().unwrap_or("no error code");
        return QueueError(match answer.err().message() {
            Some(message) => format!("{code} (HTTP {status}): {message}"),
            None => format!("{code} (HTTP {status})"),
        });
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    for _ in 0..CAUSES {
        let Some(error) = cause else { break };
        words = format!("{words}: {error}");
        cause = error.source();
    }
    QueueError(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with `status` and `body` and gives back its head and body.
    async fn once(listener: TcpListener, status: u16, body: &'static str) -> (String, serde_json::Value) {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, sent)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if sent.len() >= length.parse().unwrap() {
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    socket.write_all(answer.as_bytes()).await.unwrap();
                    return (head, serde_json::from_str(sent).unwrap());
                }
            }
            assert!(socket.read_buf(&mut request).await.unwrap() > 0);
        }
    }

    async fn queue() -> (TcpListener, SqsNotices) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Credentials::new("AKIDEXAMPLE", "top-secret", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build();
        (listener, SqsNotices::new(&config, Some(url.clone()), format!("{url}/1/events")))
    }

    fn item(n: usize) -> Item {
        Item { id: format!("m-{n}"), receipt_handle: format!("handle-{n}"), body: "{}".into() }
    }

    #[tokio::test]
    async fn a_receive_asks_for_ten_and_leaves_out_what_cannot_be_deleted() {
        let (listener, sqs) = queue().await;
        let body =
            r#"{"Messages":[{"MessageId":"m-1","ReceiptHandle":"h-1","Body":"one"},{"MessageId":"m-2","Body":"two"}]}"#;
        let (items, (head, asked)) = tokio::join!(sqs.receive(Duration::from_secs(60)), once(listener, 200, body));
        let items = items.unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(
            (items[0].id.as_str(), items[0].receipt_handle.as_str(), items[0].body.as_str()),
            ("m-1", "h-1", "one")
        );
        assert!(head.contains("x-amz-target: amazonsqs.receivemessage"), "{head}");
        assert_eq!(asked["MaxNumberOfMessages"], 10);
        assert_eq!(asked["WaitTimeSeconds"], 20);
    }

    #[tokio::test]
    async fn an_empty_receive_is_no_error() {
        let (listener, sqs) = queue().await;
        let (items, _) = tokio::join!(sqs.receive(Duration::ZERO), once(listener, 200, "{}"));
        assert!(items.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_delete_names_what_was_not_deleted() {
        let (listener, sqs) = queue().await;
        let body = r#"{"Successful":[{"Id":"0"},{"Id":"2"}],
            "Failed":[{"Id":"1","SenderFault":true,"Code":"ReceiptHandleIsInvalid","Message":"too old"}]}"#;
        let items: Vec<Item> = (0..3).map(item).collect();
        let (failed, (head, asked)) = tokio::join!(sqs.delete(&items), once(listener, 200, body));
        let failed = failed.unwrap();
        assert_eq!(failed.len(), 1);
        assert_eq!((failed[0].0.id.as_str(), failed[0].1.as_str()), ("m-1", "ReceiptHandleIsInvalid: too old"));
        assert!(head.contains("amazonsqs.deletemessagebatch"), "{head}");
        assert_eq!(asked["Entries"].as_array().unwrap().len(), 3);
        assert_eq!(asked["Entries"][1]["ReceiptHandle"], "handle-1");
    }

    #[tokio::test]
    async fn errors_are_told_with_their_code_and_without_secrets() {
        let (listener, sqs) = queue().await;
        let body =
            r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}"#;
        let (received, _) = tokio::join!(sqs.receive(Duration::ZERO), once(listener, 400, body));
        let words = received.unwrap_err().to_string();
        assert!(words.contains("QueueDoesNotExist") && words.contains("HTTP 400"), "{words}");
        assert!(words.contains("does not exist"), "{words}");

        let (listener, sqs) = queue().await;
        drop(listener);
        let words = sqs.delete(&[item(1)]).await.unwrap_err().to_string();
        assert!(words.len() > 20 && !words.contains("handle-1") && !words.contains("top-secret"), "{words}");
    }
}
