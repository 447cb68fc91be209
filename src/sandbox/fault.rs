//! Scripted faults: what SendEmail is to answer next, in order.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// Most faults that may wait.
pub const FAULTS: usize = 1000;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 429, the sending rate.
    Throttle,
    /// 429, the daily quota.
    Quota,
    /// 500 InternalFailure.
    #[serde(rename = "500")]
    Internal,
    /// 503 ServiceUnavailable.
    #[serde(rename = "503")]
    Unavailable,
    /// The request is read and never answered; the message is not taken.
    Hang,
    /// The connection breaks without an answer; the message is not taken.
    Reset,
    /// The message is taken, then the connection breaks without an answer.
    ResetAfter,
    /// The answer comes `delay_ms` late, otherwise all is well.
    Slow,
    /// The account's sending is paused.
    Paused,
    /// The configuration set's sending is paused.
    SetPaused,
    /// The account is shut.
    Suspended,
    /// 403, the role may not send.
    AccessDenied,
    /// 403, identity or set is not the tenant's.
    NotAssociated,
    /// 404, no such configuration set.
    MissingSet,
    /// 404, no such tenant.
    MissingTenant,
    /// 403, the session token has expired.
    ExpiredToken,
    /// The custom MAIL FROM domain's MX is broken.
    MailFrom,
    /// MessageRejected for its content.
    Reject,
    /// MessageRejected, identity not verified.
    Unverified,
    /// BadRequestException.
    BadRequest,
}

/// A fault and how often, for whom and how late it strikes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// How many calls it strikes.
    #[serde(default = "once")]
    pub count: u32,
    /// Which calls.
    #[serde(default, rename = "match")]
    pub only: Match,
    /// Milliseconds before it strikes.
    #[serde(default)]
    pub delay_ms: u64,
}

/// Which calls a fault strikes: those that fit everything given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Calls with this configuration set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_set: Option<String>,
    /// Calls with this recipient, or with one at this `@domain`; cases are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
}

/// The faults that wait.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<Fault>>);

const fn once() -> u32 {
    1
}

impl Fault {
    /// The fault once, for any call.
    pub fn once(kind: Kind) -> Self {
        Self { kind, count: 1, only: Match::default(), delay_ms: 0 }
    }

    /// The fault for the next `count` calls.
    pub fn times(kind: Kind, count: u32) -> Self {
        Self { count, ..Self::once(kind) }
    }

    /// The fault only for calls with this recipient or `@domain`.
    pub fn to(mut self, recipient: &str) -> Self {
        self.only.recipient = Some(recipient.to_owned());
        self
    }

    /// The fault only for calls with this configuration set.
    pub fn with_set(mut self, configuration_set: &str) -> Self {
        self.only.configuration_set = Some(configuration_set.to_owned());
        self
    }
}

impl Match {
    fn fits(&self, configuration_set: Option<&str>, recipients: &[String]) -> bool {
        let set = self.configuration_set.as_deref().is_none_or(|wanted| configuration_set == Some(wanted));
        let recipient = self.recipient.as_deref().is_none_or(|wanted| {
            let wanted = wanted.to_ascii_lowercase();
            recipients
                .iter()
                .map(|r| r.to_ascii_lowercase())
                .any(|r| if wanted.starts_with('@') { r.ends_with(&wanted) } else { r == wanted })
        });
        set && recipient
    }
}

impl Faults {
    /// Puts faults behind those that wait. `false` if there would be more than [`FAULTS`]; then
    /// none is taken.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more: Vec<Fault> = faults.into_iter().filter(|fault| fault.count > 0).collect();
        let room = waiting.len() + more.len() <= FAULTS;
        if room {
            waiting.extend(more);
        }
        room
    }

    /// The faults that wait, in order.
    pub fn waiting(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets them.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The first that fits a call, used once.
    pub(super) fn take(&self, configuration_set: Option<&str>, recipients: &[String]) -> Option<Fault> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = waiting.iter().position(|fault| fault.only.fits(configuration_set, recipients))?;
        let fault = waiting.get_mut(at)?;
        let taken = fault.clone();
        fault.count -= 1;
        if fault.count == 0 {
            waiting.remove(at);
        }
        Some(taken)
    }
}

/// The answer a fault is, for those that are one.
pub(super) fn refusal(kind: Kind, set: Option<&str>, region: &str, account: &str) -> Option<Refusal> {
    let set = set.unwrap_or("none");
    Some(match kind {
        Kind::Hang | Kind::Reset | Kind::ResetAfter | Kind::Slow => return None,
        Kind::Throttle => Refusal::new(429, "TooManyRequestsException", "Maximum sending rate exceeded."),
        Kind::Quota => Refusal::new(429, "TooManyRequestsException", "Daily message quota exceeded."),
        Kind::Internal => Refusal::new(500, "InternalFailure", "The request failed because of an internal fault."),
        Kind::Unavailable => Refusal::new(503, "ServiceUnavailable", "The service is not available."),
        Kind::Paused => Refusal::paused_account(),
        Kind::SetPaused => {
            Refusal::new(400, "SendingPausedException", format!("Sending is paused for configuration set {set}. "))
        }
        Kind::Suspended => {
            Refusal::new(400, "AccountSuspendedException", "Your account's ability to send has been shut down.")
        }
        Kind::AccessDenied => Refusal::denied(format!(
            "User: arn:aws:sts::{account}:assumed-role/relay/i-0 is not authorized to perform: ses:SendEmail on resource: arn:aws:ses:{region}:{account}:identity/example.com"
        )),
        Kind::NotAssociated => {
            Refusal::not_associated(&[format!("arn:aws:ses:{region}:{account}:configuration-set/{set}")])
        }
        Kind::MissingSet => Refusal::missing_set(set),
        Kind::MissingTenant => Refusal::missing_tenant("acme", account),
        Kind::ExpiredToken => {
            Refusal::new(403, "ExpiredTokenException", "The security token included in the request is expired")
        }
        Kind::MailFrom => Refusal::new(
            400,
            "MailFromDomainNotVerifiedException",
            "Mail From domain is not verified for identity example.com",
        ),
        Kind::Reject => Refusal::new(400, "MessageRejected", "Message was rejected for its content."),
        Kind::Unverified => Refusal::unverified(region, &["sender@example.com".to_owned()]),
        Kind::BadRequest => Refusal::bad("Invalid MIME structure."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_in_order_the_calls_they_fit_and_no_oftener_than_told() {
        let faults = Faults::default();
        assert!(faults.script([
            Fault::times(Kind::Throttle, 2).to("@bad.example"),
            Fault::once(Kind::Internal).with_set("acme-marketing"),
            Fault::once(Kind::Quota),
        ]));
        let to = |address: &str| vec!["x@ok.example".to_owned(), address.to_owned()];
        let kinds: Vec<_> = [
            faults.take(Some("acme-tx"), &to("a@BAD.example")),
            faults.take(Some("acme-marketing"), &to("a@ok.example")),
            faults.take(None, &to("a@bad.example")),
            faults.take(None, &to("a@bad.example")),
            faults.take(None, &to("a@bad.example")),
        ]
        .into_iter()
        .map(|fault| fault.map(|f| f.kind))
        .collect();
        assert_eq!(kinds, [Some(Kind::Throttle), Some(Kind::Internal), Some(Kind::Throttle), Some(Kind::Quota), None]);
        assert!(!faults.script(vec![Fault::once(Kind::Hang); FAULTS + 1]), "a bound that does not bind");
        assert!(faults.waiting().is_empty());
    }

    #[test]
    fn faults_are_read_as_the_manual_spells_them() {
        let text = r#"[{"kind":"500"},{"kind":"reset_after","count":3,"delay_ms":5,
            "match":{"configuration_set":"s","recipient":"@x.example"}}]"#;
        let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        assert_eq!(faults[0], Fault::once(Kind::Internal));
        assert_eq!(faults[1].kind, Kind::ResetAfter);
        assert_eq!((faults[1].count, faults[1].delay_ms), (3, 5));
        assert_eq!(faults[1].only.recipient.as_deref(), Some("@x.example"));
        for wrong in [r#"{"kind":"nope"}"#, r#"{"kind":"500","cout":1}"#, r#"{"kind":"500","match":{"to":"a"}}"#] {
            assert!(serde_json::from_str::<Fault>(wrong).is_err(), "{wrong}");
        }
    }
}
