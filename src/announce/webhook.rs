//! What the webhook gets: a JSON body, and the three header fields of Standard Webhooks that say which
//! it is, when it was sent and that it is ours.
//!
//! `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256 of `{id}.{timestamp}.{body}`, under
//! the octets of the secret (`whsec_` and base64, 24 to 64 octets). The timestamp is that of the
//! offer, so that a receiver may refuse what is old; the id stays the same over all offers of an
//! announcement, so that it is counted once.
//!
//! Promises: a [`Signer`] shows its secret nowhere; a secret that is of no use is told of without a
//! letter of it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use super::Announcement;
use crate::secret::Secret;
use crate::store::Pending;
use crate::time::Timestamp;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Least and most octets of a secret (Standard Webhooks).
const OCTETS: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a secret is of no use. Says nothing of what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// It is no text that begins as it should.
    #[error("does not begin with {PREFIX}")]
    Prefix,
    /// What follows is no base64.
    #[error("is no base64 behind {PREFIX}")]
    Base64,
    /// It is too short or too long.
    #[error("has not from {} to {} octets behind {PREFIX}", OCTETS.start(), OCTETS.end())]
    Length,
}

/// Signs what is offered.
#[derive(Clone)]
pub struct Signer(Secret);

impl Signer {
    /// Reads a secret as its file has it; space around it is none of it.
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let text = std::str::from_utf8(text).map_err(|_| SecretError::Prefix)?;
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let octets = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        let secret = Secret::new(octets);
        if OCTETS.contains(&secret.expose().len()) { Ok(Self(secret)) } else { Err(SecretError::Length) }
    }

    /// The offer of an announcement at the moment `now`.
    pub fn offer(&self, announcement: &Announcement, now: Timestamp) -> Offer {
        let (id, body) = (announcement.id.to_string(), body(announcement));
        let timestamp = now.millis() / 1000;
        let signature = self.sign(&id, timestamp, &body);
        Offer { id, timestamp, signature, body }
    }

    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose()) else { return String::new() };
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

/// One POST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`: seconds since the epoch.
    pub timestamp: u64,
    /// `webhook-signature`.
    pub signature: String,
    /// The body: JSON.
    pub body: Vec<u8>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// Where it would have gone is no place for it: a private address. Nothing was sent.
    Refused(String),
    /// No connection, no answer in time, or none that is HTTP.
    Failed(String),
}

impl Answer {
    /// In words, for the log.
    pub fn words(&self) -> String {
        match self {
            Self::Status(status @ 300..=399) => format!("it answered {status}; redirects are not followed"),
            Self::Status(status) => format!("it answered {status}"),
            Self::Refused(words) | Self::Failed(words) => words.clone(),
        }
    }
}

/// Posts to the webhook.
pub trait Post: Send + Sync + 'static {
    /// Makes one POST, within a time-out of its own. Never fails: every fault is an answer.
    fn post(&self, offer: Offer) -> Pending<'_, Answer>;
}

/// The type of an announcement: `bulkhead.stream.paused`.
pub fn type_of(announcement: &Announcement) -> String {
    format!("bulkhead.{}", announcement.kind.word().replacen('_', ".", 1))
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    id: String,
    kind: &'static str,
    severity: &'static str,
    tenant: Option<&'a str>,
    stream: Option<&'a str>,
    credential: Option<&'a str>,
    headline: &'a str,
    figures: Vec<Figure<'a>>,
    still_works: &'a [String],
    to_do: &'a [String],
    clears: Option<String>,
}

#[derive(Serialize)]
struct Figure<'a> {
    label: &'a str,
    value: &'a str,
}

fn body(announcement: &Announcement) -> Vec<u8> {
    let Announcement { id, at, kind, severity, tenant, stream, credential, .. } = announcement;
    let body = Body {
        r#type: type_of(announcement),
        timestamp: at.rfc3339(),
        data: Data {
            id: id.to_string(),
            kind: kind.word(),
            severity: severity.word(),
            tenant: tenant.as_ref().map(|tenant| tenant.as_str()),
            stream: stream.as_ref().map(|stream| stream.as_str()),
            credential: credential.as_ref().map(|credential| credential.as_str()),
            headline: &announcement.headline,
            figures: announcement.figures.iter().map(|(label, value)| Figure { label, value }).collect(),
            still_works: &announcement.still_works,
            to_do: &announcement.to_do,
            clears: announcement.clears.map(Timestamp::rfc3339),
        },
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Severity};
    use super::*;
    use crate::mail::{MessageId, StreamId, TenantId};

    /// The example of Standard Webhooks' specification, which its libraries are tested with.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let signer = Signer::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        assert_eq!(
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn secrets_of_no_use_are_told_of_without_a_letter_of_them() {
        let of = |octets: usize| format!("whsec_{}", STANDARD.encode(vec![7; octets]));
        assert!(Signer::parse(of(24).as_bytes()).is_ok());
        assert!(Signer::parse(of(64).as_bytes()).is_ok());
        for (text, error) in [
            (of(23), SecretError::Length),
            (of(65), SecretError::Length),
            ("whsec_hunter2!".into(), SecretError::Base64),
            ("hunter2".into(), SecretError::Prefix),
            (String::new(), SecretError::Prefix),
        ] {
            let found = Signer::parse(text.as_bytes()).unwrap_err();
            assert_eq!(found, error);
            assert!(!found.to_string().contains("hunter2"));
        }
        assert_eq!(Signer::parse(&[0xff; 40]).unwrap_err(), SecretError::Prefix);
        assert_eq!(format!("{:?}", Signer::parse(of(24).as_bytes()).unwrap()), "Signer(…)");
    }

    /// What receivers read: a change here breaks them.
    #[test]
    fn golden_body() {
        let at = Timestamp::parse_rfc3339("2026-05-01T09:15:02.418Z").unwrap();
        let announcement = Announcement {
            id: MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap(),
            at,
            kind: Kind::StreamPaused,
            severity: Severity::Alarm,
            tenant: TenantId::parse("acme").ok(),
            stream: StreamId::parse("marketing").ok(),
            credential: None,
            headline: "Stream marketing of tenant acme was paused".into(),
            figures: vec![("bounce rate, 24 h".into(), "6.2 % (31 of 500)".into())],
            still_works: vec!["transactional".into()],
            to_do: vec!["clean the list".into()],
            clears: None,
        };
        let signer = Signer::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let offer = signer.offer(&announcement, at);
        assert_eq!((offer.id.as_str(), offer.timestamp), ("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1_777_626_902));
        assert_eq!(
            String::from_utf8(offer.body).unwrap(),
            concat!(
                r#"{"type":"bulkhead.stream.paused","timestamp":"2026-05-01T09:15:02.418Z","data":{"#,
                r#""id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","kind":"stream_paused","severity":"alarm","tenant":"acme","#,
                r#""stream":"marketing","credential":null,"headline":"Stream marketing of tenant acme was paused","#,
                r#""figures":[{"label":"bounce rate, 24 h","value":"6.2 % (31 of 500)"}],"#,
                r#""still_works":["transactional"],"to_do":["clean the list"],"clears":null}}"#
            )
        );
        let types: Vec<String> = [Kind::SesTenantChanged, Kind::AccountProbation, Kind::VolumeUnusual]
            .map(|kind| type_of(&Announcement { kind, ..announcement.clone() }))
            .to_vec();
        assert_eq!(types, ["bulkhead.ses.tenant_changed", "bulkhead.account.probation", "bulkhead.volume.unusual"]);
    }
}
