//! SES's suppression lists by the AWS SDK: see [`Suppressions`].
//!
//! Promises: nothing is retried here, and nothing waits for a turn among SendEmail calls.

use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::types::{SuppressedDestinationSummary, SuppressionListReason};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{SesMailer, TRAIL, Trail};
use crate::mail::SesTenant;
use crate::store::Pending;
use crate::time::Timestamp;
use crate::upstream::lists::{ListError, ListPage, ListReason, Listed, PAGE, Suppressions};

impl SesMailer {
    async fn listed<T, E>(
        &self,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, ListError>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let trail = Trail::default();
        let answer = TRAIL.scope(trail.clone(), call).await;
        answer.map_err(|error| ListError::of(self.failure(error, &trail)))
    }
}

impl Suppressions for SesMailer {
    fn list<'a>(
        &'a self,
        of: Option<&'a SesTenant>,
        token: Option<&'a str>,
    ) -> Pending<'a, Result<ListPage, ListError>> {
        Box::pin(async move {
            let call = self
                .client
                .list_suppressed_destinations()
                .page_size(PAGE)
                .set_next_token(token.map(str::to_owned))
                .set_tenant_name(of.map(ToString::to_string));
            let page = self.listed(call.send()).await?;
            let next = page.next_token.filter(|token| !token.is_empty());
            let entries = page.suppressed_destination_summaries.unwrap_or_default();
            Ok(ListPage { entries: entries.into_iter().map(read).collect(), next })
        })
    }

    fn put<'a>(
        &'a self,
        of: &'a SesTenant,
        address: &'a str,
        reason: ListReason,
    ) -> Pending<'a, Result<(), ListError>> {
        Box::pin(async move {
            let reason = match reason {
                ListReason::Bounce => SuppressionListReason::Bounce,
                ListReason::Complaint => SuppressionListReason::Complaint,
            };
            let call = self.client.put_suppressed_destination().email_address(address).reason(reason);
            self.listed(call.tenant_name(of.as_str()).send()).await.map(drop)
        })
    }

    fn delete<'a>(&'a self, of: &'a SesTenant, address: &'a str) -> Pending<'a, Result<(), ListError>> {
        Box::pin(async move {
            let call = self.client.delete_suppressed_destination().email_address(address);
            self.listed(call.tenant_name(of.as_str()).send()).await.map(drop)
        })
    }
}

fn read(summary: SuppressedDestinationSummary) -> Listed {
    let reason = match summary.reason {
        SuppressionListReason::Complaint => ListReason::Complaint,
        // What SES may add one day stops mail as a bounce does.
        _ => ListReason::Bounce,
    };
    let millis = summary.last_update_time.to_millis().ok().and_then(|millis| u64::try_from(millis).ok());
    Listed { address: summary.email_address, reason, at: Timestamp::from_millis(millis.unwrap_or_default()) }
}
