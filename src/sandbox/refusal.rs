//! SES's error answers: status, name, words, as its SDKs read them.

/// One error answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// `x-amzn-ErrorType`.
    pub(super) code: &'static str,
    pub(super) message: String,
    /// SES's access check spells the body's key `Message`, everything else `message`.
    pub(super) capital: bool,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), capital: false }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequestException", message)
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self { capital: true, ..Self::new(403, "AccessDeniedException", message) }
    }

    pub(super) fn not_associated(resources: &[String]) -> Self {
        Self::denied(format!("Tenant not associated with resources [{}].", resources.join(", ")))
    }

    pub(super) fn missing_set(set: &str) -> Self {
        Self::new(404, "NotFoundException", format!("Configuration set <{set}> does not exist."))
    }

    pub(super) fn missing_tenant(tenant: &str, account: &str) -> Self {
        Self::new(404, "NotFoundException", format!("Tenant {tenant} for AwsAccountId {account} not found."))
    }

    pub(super) fn paused_account() -> Self {
        Self::new(
            400,
            "SendingPausedException",
            "Sending paused for this account. For more information, please check the inbox of the email address associated with your AWS account.",
        )
    }

    pub(super) fn unverified(region: &str, identities: &[String]) -> Self {
        Self::new(
            400,
            "MessageRejected",
            format!(
                "Email address is not verified. The following identities failed the check in region {}: {}",
                region.to_ascii_uppercase(),
                identities.join(", ")
            ),
        )
    }

    pub(super) fn body(&self) -> serde_json::Value {
        if self.capital {
            serde_json::json!({ "Message": self.message })
        } else {
            serde_json::json!({ "message": self.message })
        }
    }
}
