//! From what a SendEmail call met to what it means: one table (SES API reference, SendEmail and
//! Common Errors; SES Developer Guide, troubleshooting).
//!
//! Promises: every failure has an outcome. Only an answer of SES's own about the content, the
//! envelope or the sender can be [`Outcome::Refused`]; what is temporary, local, the operator's to
//! mend or unheard of is kept. An answer counts, whatever its status; no answer after the request
//! may have left is [`Outcome::Unknown`], never a retry that would send twice in silence.
//! Refuses: guessing. A code that is not in the table is [`Retry::Unrecognised`] unless its status
//! alone says more.
//! What can go wrong: SES distinguishes some causes by its English words alone (the daily quota,
//! what is paused, what was not found). If it rewords them the coarser outcome of the same code
//! stands, which is always the safer one.

use super::{Outcome, Paused, Refused, Retry};

/// Longest text an outcome carries, in characters.
pub const WORDS: usize = 500;

/// What a call met instead of a message id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// SES answered with an error.
    Service {
        /// The HTTP status.
        status: u16,
        /// The error's name, from `x-amzn-ErrorType` or the body, as it came.
        code: Option<String>,
        /// `message` of the body; may be empty.
        message: String,
    },
    /// Nothing left: DNS, connect, TLS, or the request could not be built.
    NotSent(String),
    /// There are no credentials, no region, or they could not be fetched: nothing left.
    CredentialsMissing(String),
    /// The request may have left and no complete answer came: a time-out after the connection
    /// stood, a broken connection, a 200 that cannot be read.
    Interrupted(String),
    /// Our own bound on calls or octets in flight; nothing left.
    Busy(String),
}

/// What a failure means.
pub fn classify(failure: &Failure) -> Outcome {
    match failure {
        Failure::Service { status, code, message } => service(*status, code.as_deref(), message),
        Failure::NotSent(words) => Outcome::Retry(Retry::Network, tidy(words)),
        Failure::CredentialsMissing(words) => Outcome::Retry(Retry::Credentials, tidy(words)),
        Failure::Interrupted(words) => Outcome::Unknown(tidy(words)),
        Failure::Busy(words) => Outcome::Retry(Retry::Busy, tidy(words)),
    }
}

/// What the operator can do about it, for outcomes that neither time nor the client can mend.
pub fn cure(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Sent(_) | Outcome::Unknown(_) => None,
        Outcome::Retry(retry, _) => match retry {
            Retry::Throttled | Retry::Service | Retry::Network | Retry::Busy => None,
            Retry::DailyQuota => {
                Some("the account's 24-hour quota is used up: it frees itself by the hour; ask AWS for a larger one")
            }
            Retry::Credentials => Some(
                "give Bulkhead valid AWS credentials and a region: a role by the SDK's default chain, and a clock that is right",
            ),
            Retry::AccessDenied => Some(
                "allow ses:SendEmail and ses:SendRawEmail on the identities and configuration sets to Bulkhead's role",
            ),
            Retry::ConfigurationSetMissing => Some(
                "create the configuration set in this account and region, or correct the stream's configuration_set; an identity's default configuration set may be the missing one",
            ),
            Retry::TenantMissing => Some("create the SES tenant in this region, or correct the tenant's ses_tenant"),
            Retry::NotAssociated => Some(
                "associate the sender's identity and the stream's configuration set with the SES tenant (CreateTenantResourceAssociation)",
            ),
            Retry::MailFromDomain => Some(
                "mend the MX record of the identity's custom MAIL FROM domain, or let SES fall back to its own (BehaviorOnMxFailure)",
            ),
            Retry::Unrecognised => {
                Some("SES said something Bulkhead does not know: read its words, check endpoint and region")
            }
        },
        Outcome::Refused(refused, _) => match refused {
            Refused::Content | Refused::TooLarge => None,
            Refused::IdentityNotVerified => {
                Some("verify the identity in SES in this region, or take it off the tenant's senders")
            }
        },
        Outcome::Paused(paused, _) => Some(match paused {
            Paused::Account => {
                "the account's sending is paused: read AWS's mail to the account and its health dashboard"
            }
            Paused::AccountSuspended => "AWS has shut the account's sending down: open a case with AWS support",
            Paused::ConfigurationSet => {
                "enable sending of the configuration set or SES tenant again (PutConfigurationSetSendingOptions, UpdateReputationEntityCustomerManagedStatus)"
            }
        }),
    }
}

/// A text for logs and replies: one line, printable, at most [`WORDS`] characters.
pub fn tidy(text: &str) -> String {
    let mut words = String::with_capacity(text.len().min(WORDS * 4));
    let mut blank = false;
    let mut length = 0;
    for c in text.trim().chars() {
        let white = c.is_whitespace() || c.is_control() || is_invisible(c);
        if white && blank {
            continue;
        }
        if length == WORDS {
            break;
        }
        words.push(if white { ' ' } else { c });
        length += 1;
        blank = white;
    }
    words.truncate(words.trim_end().len());
    words
}

/// Characters that turn or hide text in a terminal: zero width, bidirectional controls, line and
/// paragraph separators.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// `ns#NameException:http://…` is `Name` (the header form carries a URL, the body form a namespace).
fn stem(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or(code);
    let code = code.rsplit('#').next().unwrap_or(code).trim();
    code.strip_suffix("Exception").unwrap_or(code)
}

fn service(status: u16, code: Option<&str>, message: &str) -> Outcome {
    let answer = Answer {
        name: code.map(stem).filter(|name| !name.is_empty()),
        words: tidy(message),
        text: message.to_ascii_lowercase(),
        status,
    };
    match status {
        // A success without a message id: SES may have the message.
        200..=299 => Outcome::Unknown(answer.told()),
        // Whatever name it goes by, a fault of SES's own is no verdict on the message.
        500..=599 => answer.retry(Retry::Service),
        _ => answer.by_name(),
    }
}

/// An error answer, read.
struct Answer<'a> {
    name: Option<&'a str>,
    /// SES's words as they are shown.
    words: String,
    /// The same in lower case, to compare.
    text: String,
    status: u16,
}

impl Answer<'_> {
    /// The table.
    fn by_name(&self) -> Outcome {
        let Some(name) = self.name else { return self.by_status() };
        match name {
            "TooManyRequests"
            | "Throttling"
            | "Throttled"
            | "RequestThrottled"
            | "RequestLimitExceeded"
            | "LimitExceeded"
            | "SlowDown"
            | "BandwidthLimitExceeded" => self.throttled(),
            "AccountSuspended" => self.paused(Paused::AccountSuspended),
            "SendingPaused" | "AccountSendingPaused" | "ConfigurationSetSendingPaused" => self.paused(self.part()),
            "MessageRejected" => self.rejected(),
            "BadRequest" | "InvalidParameterValue" => self.bad_request(),
            "NotFound" | "ConfigurationSetDoesNotExist" => self.not_found(),
            "MailFromDomainNotVerified" => self.retry(Retry::MailFromDomain),
            "AccessDenied" if self.has("not associated") => self.retry(Retry::NotAssociated),
            "AccessDenied" | "NotAuthorized" | "OptInRequired" | "SubscriptionRequired" | "UnauthorizedOperation" => {
                self.retry(Retry::AccessDenied)
            }
            "ExpiredToken"
            | "RequestExpired"
            | "TokenRefreshRequired"
            | "UnrecognizedClient"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "InvalidSignature"
            | "IncompleteSignature"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "MissingAuthentication"
            | "AuthFailure"
            | "RequestTimeTooSkewed" => self.retry(Retry::Credentials),
            "RequestTimeout"
            | "RequestTimedOut"
            | "InternalFailure"
            | "InternalServerError"
            | "InternalService"
            | "InternalServiceError"
            | "InternalError"
            | "ServiceUnavailable"
            | "Unavailable" => self.retry(Retry::Service),
            "RequestEntityTooLarge" => self.refused(Refused::TooLarge),
            "ValidationError" | "Validation" => self.invalid(),
            // UnknownOperation and the like: we do not talk to the SES we think.
            _ => self.by_status(),
        }
    }

    /// For an answer without a name, or with one that is not in the table. Never a refusal: a
    /// proxy between us and SES answers so too.
    fn by_status(&self) -> Outcome {
        match self.status {
            429 => self.throttled(),
            401 | 403 => self.retry(Retry::AccessDenied),
            408 => self.retry(Retry::Service),
            _ => self.retry(Retry::Unrecognised),
        }
    }

    fn throttled(&self) -> Outcome {
        self.retry(if self.has("daily message quota") { Retry::DailyQuota } else { Retry::Throttled })
    }

    /// MessageRejected: most often the content; SES's older wordings hide other causes in it.
    fn rejected(&self) -> Outcome {
        if self.has("is not verified") {
            return self.refused(Refused::IdentityNotVerified);
        }
        self.hidden()
            .unwrap_or_else(|| self.refused(if self.is_about_size() { Refused::TooLarge } else { Refused::Content }))
    }

    /// BadRequest: the content, unless it names something that we put into the call.
    fn bad_request(&self) -> Outcome {
        if self.has("is not verified") {
            return self.refused(Refused::IdentityNotVerified);
        }
        if let Some(outcome) = self.hidden() {
            return outcome;
        }
        if self.has("configuration set") || self.has("configurationset") {
            return self.retry(Retry::ConfigurationSetMissing);
        }
        if self.is_about_our_part() {
            return self.retry(Retry::Unrecognised);
        }
        self.refused(if self.is_about_size() { Refused::TooLarge } else { Refused::Content })
    }

    /// ValidationError: the request itself. Ours, unless it is about what the client gave.
    fn invalid(&self) -> Outcome {
        let clients = ["header", "'from'", "content.raw", "toaddresses", "recipient", "mime"];
        if self.is_about_our_part() || !clients.iter().any(|word| self.has(word)) {
            return self.retry(Retry::Unrecognised);
        }
        self.refused(if self.is_about_size() { Refused::TooLarge } else { Refused::Content })
    }

    fn not_found(&self) -> Outcome {
        self.retry(if self.has("configuration set") || self.name == Some("ConfigurationSetDoesNotExist") {
            Retry::ConfigurationSetMissing
        } else if self.text.starts_with("tenant ") {
            Retry::TenantMissing
        } else {
            Retry::Unrecognised
        })
    }

    /// Throttles and pauses that come under the name of something else.
    fn hidden(&self) -> Option<Outcome> {
        if self.has("daily message quota exceeded") || self.has("maximum sending rate exceeded") {
            return Some(self.throttled());
        }
        let paused = self.has("sending paused for this account") || self.has("sending is paused");
        paused.then(|| self.paused(self.part()))
    }

    /// What a pause is about. A paused SES tenant is nobody else's: like a set, never the account.
    fn part(&self) -> Paused {
        let narrow = self.has("configuration set") || self.has("tenant");
        if narrow || self.name == Some("ConfigurationSetSendingPaused") {
            Paused::ConfigurationSet
        } else {
            Paused::Account
        }
    }

    /// Tags, tenant name and the number of recipients in a call are Bulkhead's doing.
    fn is_about_our_part(&self) -> bool {
        ["recipient count exceeds", "tenantname", "emailtags", "message tag", "tag name", "tag value", "endpointid"]
            .iter()
            .any(|word| self.has(word))
    }

    fn is_about_size(&self) -> bool {
        ["is too long", "message length", "too large", "message size", "size limit", "maximum size"]
            .iter()
            .any(|word| self.has(word))
    }

    fn has(&self, word: &str) -> bool {
        self.text.contains(word)
    }

    /// SES's words alone: a client hears these.
    fn spoken(&self) -> String {
        if self.words.is_empty() { self.told() } else { self.words.clone() }
    }

    /// Words, name and status: an operator reads these.
    fn told(&self) -> String {
        let name = self.name.unwrap_or("no error name");
        if self.words.is_empty() {
            tidy(&format!("{name} (HTTP {})", self.status))
        } else {
            tidy(&format!("{name} (HTTP {}): {}", self.status, self.words))
        }
    }

    fn retry(&self, why: Retry) -> Outcome {
        Outcome::Retry(why, self.told())
    }

    fn refused(&self, why: Refused) -> Outcome {
        Outcome::Refused(why, self.spoken())
    }

    fn paused(&self, what: Paused) -> Outcome {
        Outcome::Paused(what, self.spoken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outcome without its words.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Kind {
        Retry(Retry),
        Refused(Refused),
        Paused(Paused),
        Unknown,
    }

    fn kind(outcome: &Outcome) -> Kind {
        match outcome {
            Outcome::Retry(why, _) => Kind::Retry(*why),
            Outcome::Refused(why, _) => Kind::Refused(*why),
            Outcome::Paused(what, _) => Kind::Paused(*what),
            Outcome::Unknown(_) => Kind::Unknown,
            Outcome::Sent(_) => panic!("a failure can never be Sent"),
        }
    }

    fn answered(status: u16, code: Option<&str>, message: &str) -> Outcome {
        classify(&Failure::Service { status, code: code.map(str::to_owned), message: message.to_owned() })
    }

    const UNVERIFIED: &str =
        "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@b.example";
    const PAUSED: &str =
        "Sending paused for this account. For more information, please check the inbox of the email address";

    #[test]
    fn every_error_ses_can_answer_has_its_outcome() {
        use Kind::{Paused as P, Refused as N, Retry as R};
        let rows: &[(u16, &str, &str, Kind)] = &[
            // modelled errors of SendEmail
            (429, "TooManyRequestsException", "Maximum sending rate exceeded.", R(Retry::Throttled)),
            (429, "TooManyRequestsException", "Daily message quota exceeded.", R(Retry::DailyQuota)),
            (400, "LimitExceededException", "", R(Retry::Throttled)),
            (400, "AccountSuspendedException", "suspended", P(Paused::AccountSuspended)),
            (400, "SendingPausedException", PAUSED, P(Paused::Account)),
            (400, "SendingPausedException", "", P(Paused::Account)),
            (400, "SendingPausedException", "Sending is paused for configuration set x", P(Paused::ConfigurationSet)),
            (400, "SendingPausedException", "Sending is paused for tenant acme", P(Paused::ConfigurationSet)),
            (400, "MessageRejected", UNVERIFIED, N(Refused::IdentityNotVerified)),
            (400, "MessageRejected", PAUSED, P(Paused::Account)),
            (400, "MessageRejected", "Message is too long.", N(Refused::TooLarge)),
            (400, "MessageRejected", "Illegal address", N(Refused::Content)),
            (400, "MessageRejected", "Daily message quota exceeded", R(Retry::DailyQuota)),
            (400, "MailFromDomainNotVerifiedException", "MX", R(Retry::MailFromDomain)),
            (404, "NotFoundException", "Configuration set <x> does not exist.", R(Retry::ConfigurationSetMissing)),
            (404, "NotFoundException", "Configuration set tenant-a does not exist", R(Retry::ConfigurationSetMissing)),
            (404, "NotFoundException", "Tenant a for AwsAccountId 1 not found.", R(Retry::TenantMissing)),
            (404, "NotFoundException", "Something else", R(Retry::Unrecognised)),
            (400, "BadRequestException", "Missing required header 'From'.", N(Refused::Content)),
            (400, "BadRequestException", "Duplicate header 'Subject'.", N(Refused::Content)),
            (400, "BadRequestException", "Local address contains control or whitespace", N(Refused::Content)),
            (400, "BadRequestException", "Message length is more than 41943040 bytes long", N(Refused::TooLarge)),
            (400, "BadRequestException", "Configuration set x is gone", R(Retry::ConfigurationSetMissing)),
            (400, "BadRequestException", "Recipient count exceeds 50.", R(Retry::Unrecognised)),
            (400, "BadRequestException", "Invalid message tag value", R(Retry::Unrecognised)),
            (400, "BadRequestException", UNVERIFIED, N(Refused::IdentityNotVerified)),
            (400, "BadRequestException", PAUSED, P(Paused::Account)),
            (400, "BadRequestException", "Maximum sending rate exceeded.", R(Retry::Throttled)),
            // version 1's names
            (400, "InvalidParameterValue", "Duplicate header 'From'.", N(Refused::Content)),
            (400, "ConfigurationSetDoesNotExist", "no x", R(Retry::ConfigurationSetMissing)),
            (400, "ConfigurationSetSendingPausedException", "", P(Paused::ConfigurationSet)),
            (400, "AccountSendingPausedException", "", P(Paused::Account)),
            // common errors
            (400, "ThrottlingException", "Rate exceeded", R(Retry::Throttled)),
            (400, "Throttling", "Daily message quota exceeded", R(Retry::DailyQuota)),
            (400, "Throttling", "Maximum sending rate exceeded", R(Retry::Throttled)),
            (403, "AccessDeniedException", "Tenant not associated with resources [arn:x].", R(Retry::NotAssociated)),
            (403, "AccessDeniedException", "User arn is not authorized to perform", R(Retry::AccessDenied)),
            (401, "NotAuthorized", "", R(Retry::AccessDenied)),
            (403, "OptInRequired", "", R(Retry::AccessDenied)),
            (403, "ExpiredTokenException", "expired", R(Retry::Credentials)),
            (400, "RequestExpired", "", R(Retry::Credentials)),
            (403, "UnrecognizedClientException", "", R(Retry::Credentials)),
            (403, "InvalidClientTokenId", "", R(Retry::Credentials)),
            (403, "InvalidSignatureException", "", R(Retry::Credentials)),
            (403, "IncompleteSignature", "", R(Retry::Credentials)),
            (403, "SignatureDoesNotMatch", "", R(Retry::Credentials)),
            (403, "MissingAuthenticationTokenException", "", R(Retry::Credentials)),
            (408, "RequestTimeoutException", "", R(Retry::Service)),
            (413, "RequestEntityTooLargeException", "", N(Refused::TooLarge)),
            (500, "InternalFailure", "", R(Retry::Service)),
            (503, "ServiceUnavailable", "", R(Retry::Service)),
            (400, "ValidationError", "Value at 'emailTags.1.member.value' failed", R(Retry::Unrecognised)),
            (400, "ValidationError", "Value at 'configurationSetName' failed", R(Retry::Unrecognised)),
            (400, "ValidationError", "Invalid header name", N(Refused::Content)),
            (404, "UnknownOperationException", "", R(Retry::Unrecognised)),
        ];
        for (status, code, message, wanted) in rows {
            assert_eq!(kind(&answered(*status, Some(code), message)), *wanted, "{status} {code} {message:?}");
        }
    }

    #[test]
    fn an_unknown_name_and_no_name_are_judged_by_status() {
        let rows: &[(u16, Kind)] = &[
            (200, Kind::Unknown),
            (202, Kind::Unknown),
            (301, Kind::Retry(Retry::Unrecognised)),
            (400, Kind::Retry(Retry::Unrecognised)),
            (401, Kind::Retry(Retry::AccessDenied)),
            (403, Kind::Retry(Retry::AccessDenied)),
            (404, Kind::Retry(Retry::Unrecognised)),
            (408, Kind::Retry(Retry::Service)),
            (413, Kind::Retry(Retry::Unrecognised)),
            (418, Kind::Retry(Retry::Unrecognised)),
            (429, Kind::Retry(Retry::Throttled)),
            (500, Kind::Retry(Retry::Service)),
            (502, Kind::Retry(Retry::Service)),
            (503, Kind::Retry(Retry::Service)),
            (504, Kind::Retry(Retry::Service)),
            (599, Kind::Retry(Retry::Service)),
        ];
        for (status, wanted) in rows {
            for code in [None, Some(""), Some("BrandNewException"), Some("#:")] {
                assert_eq!(kind(&answered(*status, code, "what")), *wanted, "{status} {code:?}");
            }
        }
        assert_eq!(kind(&answered(429, None, "Daily message quota exceeded")), Kind::Retry(Retry::DailyQuota));
    }

    #[test]
    fn a_fault_of_sess_own_refuses_nothing_whatever_its_name() {
        for code in ["BadRequestException", "MessageRejected", "RequestEntityTooLargeException", "AccountSuspended"] {
            assert_eq!(kind(&answered(500, Some(code), "x")), Kind::Retry(Retry::Service), "{code}");
        }
    }

    #[test]
    fn names_are_read_in_every_spelling() {
        for code in [
            "TooManyRequestsException",
            "TooManyRequests",
            "TooManyRequestsException:http://internal.example/coral/com.example#x/",
            "com.amazonaws.sesv2#TooManyRequestsException",
            "com.amazonaws.sesv2#TooManyRequestsException:http://internal.example/",
        ] {
            assert_eq!(kind(&answered(400, Some(code), "")), Kind::Retry(Retry::Throttled), "{code}");
        }
    }

    #[test]
    fn what_never_reached_ses_is_kept_and_what_may_have_is_unknown() {
        let words = || "refused by 192.0.2.1".to_owned();
        let rows = [
            (Failure::NotSent(words()), Kind::Retry(Retry::Network)),
            (Failure::CredentialsMissing(words()), Kind::Retry(Retry::Credentials)),
            (Failure::Interrupted(words()), Kind::Unknown),
            (Failure::Busy(words()), Kind::Retry(Retry::Busy)),
        ];
        for (failure, wanted) in rows {
            assert_eq!(kind(&classify(&failure)), wanted, "{failure:?}");
        }
    }

    #[test]
    fn words_are_one_printable_line_of_at_most_500_characters() {
        let Outcome::Refused(_, words) =
            answered(400, Some("BadRequest"), &format!("a\r\n250 2.0.0 Ok\0{}", "é".repeat(900)))
        else {
            panic!("not refused")
        };
        assert!(words.starts_with("a 250 2.0.0 Ok é"), "{words}");
        assert_eq!(words.chars().count(), WORDS);
        assert_eq!(tidy("  a\t\u{202e}b \u{7f}"), "a b");
        let Outcome::Refused(_, words) = answered(400, Some("BadRequestException"), "") else { panic!("not refused") };
        assert_eq!(words, "BadRequest (HTTP 400)");
        let Outcome::Retry(_, words) = answered(503, None, "") else { panic!("not kept") };
        assert_eq!(words, "no error name (HTTP 503)");
    }

    #[test]
    fn every_operators_fault_has_a_cure_and_nothing_else_has() {
        let cured = |outcome| cure(&outcome).is_some();
        for (retry, wanted) in [
            (Retry::Throttled, false),
            (Retry::DailyQuota, true),
            (Retry::Service, false),
            (Retry::Network, false),
            (Retry::Credentials, true),
            (Retry::AccessDenied, true),
            (Retry::ConfigurationSetMissing, true),
            (Retry::TenantMissing, true),
            (Retry::NotAssociated, true),
            (Retry::MailFromDomain, true),
            (Retry::Busy, false),
            (Retry::Unrecognised, true),
        ] {
            assert_eq!(cured(Outcome::Retry(retry, String::new())), wanted, "{retry:?}");
        }
        for paused in [Paused::Account, Paused::AccountSuspended, Paused::ConfigurationSet] {
            assert!(cured(Outcome::Paused(paused, String::new())));
        }
        assert!(cured(Outcome::Refused(Refused::IdentityNotVerified, String::new())));
        assert!(!cured(Outcome::Refused(Refused::Content, String::new())));
        assert!(!cured(Outcome::Refused(Refused::TooLarge, String::new())));
        assert!(!cured(Outcome::Unknown(String::new())));
    }
}
