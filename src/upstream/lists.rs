//! Amazon SES's own suppression lists: the account's, and one for each SES tenant.
//!
//! [`Suppressions`] is all that the services know of them. SES keeps addresses as they were given, and
//! finds them again in that spelling alone, so what is spelled here is SES's spelling and no mailbox.
//!
//! What can go wrong: [`ListError`], which says by what it is mended.

use crate::mail::SesTenant;
use crate::store::Pending;
use crate::time::Timestamp;
use crate::upstream::classify::Failure;

/// Most entries of one page that SES is asked for.
pub const PAGE: i32 = 1000;

/// Why SES has an address on a list. It knows no other reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ListReason {
    /// `BOUNCE`.
    Bounce,
    /// `COMPLAINT`.
    Complaint,
}

/// An entry of one of SES's lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The address in SES's spelling.
    pub address: String,
    /// Why.
    pub reason: ListReason,
    /// `LastUpdateTime`.
    pub at: Timestamp,
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// Its entries, in no order that is promised.
    pub entries: Vec<Listed>,
    /// `NextToken`: where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Why SES did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListError {
    /// Too many calls.
    #[error("Amazon SES throttles: {0}")]
    Throttled(String),
    /// Our role may not do this, or there are no credentials.
    #[error("Amazon SES does not let us: {0}")]
    Denied(String),
    /// The SES tenant is not there. For an address that is not on the list, that is no error.
    #[error("Amazon SES does not have it: {0}")]
    Missing(String),
    /// The request is of no use: an address that SES does not take, a token that has expired.
    #[error("Amazon SES refuses it: {0}")]
    Refused(String),
    /// SES or the network is in trouble.
    #[error("Amazon SES cannot be asked: {0}")]
    Unavailable(String),
}

impl ListError {
    /// What a failure of a call means.
    pub fn of(failure: Failure) -> Self {
        let (status, code, message) = match failure {
            Failure::CredentialsMissing(words) => return Self::Denied(words),
            Failure::NotSent(words) | Failure::Interrupted(words) | Failure::Busy(words) => {
                return Self::Unavailable(words);
            }
            Failure::Service { status, code, message } => (status, code.unwrap_or_default(), message),
        };
        // `x-amzn-ErrorType` may go on with the name of a host.
        let name = code.split(':').next().unwrap_or_default();
        let words = if message.is_empty() { format!("{status} {name}") } else { message };
        match (status, name) {
            (429, _) | (_, "TooManyRequestsException" | "ThrottlingException" | "Throttling") => Self::Throttled(words),
            (404, _) | (_, "NotFoundException") => Self::Missing(words),
            (401 | 403, _) => Self::Denied(words),
            (400..=499, _) => Self::Refused(words),
            (_, _) => Self::Unavailable(words),
        }
    }

    /// What the operator can do about it.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Throttled(_) | Self::Unavailable(_) => "none is needed: it is tried again",
            Self::Denied(_) => {
                "let the relay's role do ses:ListSuppressedDestinations, and ses:PutSuppressedDestination and ses:DeleteSuppressedDestination with suppression.ses_sync = \"both\""
            }
            Self::Missing(_) => "make the SES tenant, or take ses_tenant from the tenant",
            Self::Refused(_) => "see its words; where they make no sense, report this as a fault of Bulkhead",
        }
    }
}

/// SES's suppression lists. A call names an SES tenant, or means the account's list. SES allows
/// about one call a second; who calls keeps to that.
pub trait Suppressions: Send + Sync + 'static {
    /// A page of a list (`ListSuppressedDestinations`), from `token` on.
    fn list<'a>(
        &'a self,
        of: Option<&'a SesTenant>,
        token: Option<&'a str>,
    ) -> Pending<'a, Result<ListPage, ListError>>;

    /// Puts an address on a tenant's list (`PutSuppressedDestination`), or changes why it is there.
    fn put<'a>(&'a self, of: &'a SesTenant, address: &'a str, reason: ListReason)
    -> Pending<'a, Result<(), ListError>>;

    /// Takes an address in SES's spelling off a tenant's list (`DeleteSuppressedDestination`). One that
    /// is not there is [`ListError::Missing`], as is a tenant.
    fn delete<'a>(&'a self, of: &'a SesTenant, address: &'a str) -> Pending<'a, Result<(), ListError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failures_mean() {
        let service = |status, code: &str| Failure::Service {
            status,
            code: Some(code.to_owned()).filter(|code| !code.is_empty()),
            message: "words".into(),
        };
        let words = || "words".to_owned();
        for (failure, error) in [
            (service(429, ""), ListError::Throttled(words())),
            (service(400, "ThrottlingException"), ListError::Throttled(words())),
            (service(404, "NotFoundException:http://x/"), ListError::Missing(words())),
            (service(403, "AccessDeniedException"), ListError::Denied(words())),
            (service(400, "BadRequestException"), ListError::Refused(words())),
            (service(400, "InvalidNextTokenException"), ListError::Refused(words())),
            (service(500, ""), ListError::Unavailable(words())),
            (Failure::NotSent(words()), ListError::Unavailable(words())),
            (Failure::Interrupted(words()), ListError::Unavailable(words())),
            (Failure::CredentialsMissing(words()), ListError::Denied(words())),
        ] {
            let text = format!("{failure:?}");
            assert_eq!(ListError::of(failure), error, "{text}");
            assert!(!error.cure().is_empty());
        }
        let bare = Failure::Service { status: 418, code: Some("Teapot".into()), message: String::new() };
        assert_eq!(ListError::of(bare), ListError::Refused("418 Teapot".into()));
    }
}
