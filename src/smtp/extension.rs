//! What EHLO offers (RFC 5321 4.1.1.1).
//!
//! Promises: an extension stands here only while it would work: STARTTLS before TLS on a listener
//! that has it, AUTH once it would be accepted. SMTPUTF8 and BINARYMIME are not offered, because
//! Amazon SES carries neither.

use super::session::Terms;

/// The lines of the answer to EHLO.
pub fn lines(terms: &Terms, secure: bool) -> Vec<String> {
    let mut lines = vec![
        terms.hostname.clone(),
        "PIPELINING".to_owned(),
        format!("SIZE {}", terms.message_bytes),
        "8BITMIME".to_owned(),
        "ENHANCEDSTATUSCODES".to_owned(),
        "CHUNKING".to_owned(),
        format!("LIMITS RCPTMAX={} MAILMAX={}", terms.recipients, terms.messages),
    ];
    if starttls_works(terms, secure) {
        lines.push("STARTTLS".to_owned());
    }
    if auth_works(terms, secure) {
        lines.push("AUTH PLAIN LOGIN".to_owned());
    }
    lines
}

/// Whether STARTTLS may be given now.
pub fn starttls_works(terms: &Terms, secure: bool) -> bool {
    terms.starttls && !secure
}

/// Whether a login is accepted now: under TLS, or where the listener was told to do without.
pub fn auth_works(terms: &Terms, secure: bool) -> bool {
    secure || terms.cleartext_auth
}
