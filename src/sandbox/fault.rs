//! Scripted faults: what SendEmail is to answer next, in order.
//!
//! Most strike a call that was read whole, so they can be told which ones. Two, `reset_connect` and
//! `reset_body`, strike before its body is there: they strike the next call, whichever it is, and
//! one of them that is told which is refused. Their turn comes with the next call once no fault for
//! every call stands before them; faults for some calls that stand before them are passed over, for
//! whether the call is one of those is not known yet.

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
    /// The connection breaks as soon as the request's head is there; nothing of its body is read.
    ResetConnect,
    /// The connection breaks once half of the request's body is there (its first piece, where its
    /// length is not told); the message is not taken.
    ResetBody,
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
    /// 403, the credentials are nobody's.
    WrongCredentials,
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
    /// How many calls it strikes; of no matter if it is lasting.
    #[serde(default = "once")]
    pub count: u32,
    /// It strikes every call that fits until the faults are cleared: an outage.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lasting: bool,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Kind {
    /// Whether it strikes before the call is known: nobody can tell whose it is.
    pub const fn is_blind(self) -> bool {
        matches!(self, Self::ResetConnect | Self::ResetBody)
    }
}

impl Fault {
    /// The fault once, for any call.
    pub fn once(kind: Kind) -> Self {
        Self { kind, count: 1, lasting: false, only: Match::default(), delay_ms: 0 }
    }

    /// The fault for the next `count` calls.
    pub fn times(kind: Kind, count: u32) -> Self {
        Self { count, ..Self::once(kind) }
    }

    /// The fault for every call until the faults are cleared.
    pub fn lasting(kind: Kind) -> Self {
        Self { lasting: true, ..Self::once(kind) }
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

    /// Whether it can be as it is told: a fault that strikes before the call is known cannot be told
    /// which calls.
    pub fn is_sound(&self) -> bool {
        !self.kind.is_blind() || self.only.is_all()
    }
}

impl Match {
    fn is_all(&self) -> bool {
        self.configuration_set.is_none() && self.recipient.is_none()
    }

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
    /// Puts faults behind those that wait. `false` if there would be more than [`FAULTS`] or one is
    /// not sound ([`Fault::is_sound`]); then none is taken.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more: Vec<Fault> = faults.into_iter().filter(|fault| fault.lasting || fault.count > 0).collect();
        let taken = waiting.len() + more.len() <= FAULTS && more.iter().all(Fault::is_sound);
        if taken {
            waiting.extend(more);
        }
        taken
    }

    /// The faults that wait, in order.
    pub fn waiting(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets them.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The first for a call of which the head alone is known, used once.
    pub(super) fn take_blind(&self) -> Option<Fault> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = waiting.iter().position(|fault| fault.only.is_all())?;
        waiting.get(at).filter(|fault| fault.kind.is_blind())?;
        used(&mut waiting, at)
    }

    /// The first that fits a call, used once. One that should have struck sooner waits for the next.
    pub(super) fn take(&self, configuration_set: Option<&str>, recipients: &[String]) -> Option<Fault> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |fault: &Fault| !fault.kind.is_blind() && fault.only.fits(configuration_set, recipients);
        let at = waiting.iter().position(fits)?;
        used(&mut waiting, at)
    }
}

fn used(waiting: &mut Vec<Fault>, at: usize) -> Option<Fault> {
    let fault = waiting.get_mut(at)?;
    let taken = fault.clone();
    if !fault.lasting {
        fault.count -= 1;
        if fault.count == 0 {
            waiting.remove(at);
        }
    }
    Some(taken)
}

/// The answer a fault is, for those that are one.
pub(super) fn refusal(kind: Kind, set: Option<&str>, region: &str, account: &str) -> Option<Refusal> {
    let set = set.unwrap_or("none");
    Some(match kind {
        Kind::Hang | Kind::ResetConnect | Kind::ResetBody | Kind::Reset | Kind::ResetAfter | Kind::Slow => {
            return None;
        }
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
        Kind::WrongCredentials => {
            Refusal::new(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
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
    fn a_fault_that_is_blind_strikes_the_next_call_whichever_it_is() {
        let kind = |fault: Option<Fault>| fault.map(|f| f.kind);
        let faults = Faults::default();
        assert!(!faults.script([Fault::once(Kind::Quota), Fault::once(Kind::ResetBody).to("@x.example")]));
        assert!(!faults.script([Fault::once(Kind::ResetConnect).with_set("s")]));
        assert!(faults.waiting().is_empty(), "a script is taken whole or not at all");

        assert!(faults.script([
            Fault::once(Kind::Throttle).to("@bad.example"),
            Fault::once(Kind::Quota),
            Fault::once(Kind::ResetBody),
            Fault::once(Kind::Internal),
        ]));
        assert_eq!(faults.take_blind(), None, "a fault for every call stands before it");
        assert_eq!(kind(faults.take(None, &[])), Some(Kind::Quota));
        // A call that was read while another took the quota's fault: the body is there already.
        assert_eq!(kind(faults.take(None, &[])), Some(Kind::Internal));
        assert_eq!(kind(faults.take_blind()), Some(Kind::ResetBody), "a fault for some calls holds it up");
        assert_eq!(faults.take_blind(), None);
    }

    #[test]
    fn a_lasting_fault_strikes_until_it_is_cleared() {
        let faults = Faults::default();
        assert!(faults.script([Fault { count: 0, ..Fault::lasting(Kind::Unavailable) }.to("@x.example")]));
        for _ in 0..100 {
            assert!(faults.take(None, &["a@x.example".into()]).is_some());
            assert!(faults.take(None, &["a@y.example".into()]).is_none());
        }
        faults.clear();
        assert!(faults.take(None, &["a@x.example".into()]).is_none());
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
        let text = r#"{"kind":"wrong_credentials","lasting":true}"#;
        assert_eq!(serde_json::from_str::<Fault>(text).unwrap(), Fault::lasting(Kind::WrongCredentials));
        for wrong in [r#"{"kind":"nope"}"#, r#"{"kind":"500","cout":1}"#, r#"{"kind":"500","match":{"to":"a"}}"#] {
            assert!(serde_json::from_str::<Fault>(wrong).is_err(), "{wrong}");
        }
    }
}
