//! The fields that SES takes once: a second one fails the whole message there ("Duplicate header"),
//! so it is said here, with the name.

use super::{HeaderError, HeaderSection, must_not_leave};

/// SES Developer Guide, "Amazon SES header fields". Two of them never leave the relay and so do not
/// count (Return-Path, DKIM-Signature).
const ONCE: [&str; 60] = [
    "Accept-Language",
    "acceptLanguage",
    "Archived-At",
    "Auto-Submitted",
    "Bounces-to",
    "Comments",
    "Content-Alternative",
    "Content-Base",
    "Content-Class",
    "Content-Description",
    "Content-Disposition",
    "Content-Duration",
    "Content-ID",
    "Content-Language",
    "Content-Length",
    "Content-Location",
    "Content-MD5",
    "Content-Transfer-Encoding",
    "Content-Type",
    "Date",
    "Delivered-To",
    "Disposition-Notification-Options",
    "Disposition-Notification-To",
    "DKIM-Signature",
    "DomainKey-Signature",
    "Errors-To",
    "From",
    "Importance",
    "In-Reply-To",
    "Keywords",
    "List-Archive",
    "List-Help",
    "List-Id",
    "List-Owner",
    "List-Post",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Message-Context",
    "Message-ID",
    "MIME-Version",
    "Organization",
    "Original-From",
    "Original-Message-ID",
    "Original-Recipient",
    "Original-Subject",
    "Precedence",
    "Priority",
    "References",
    "Reply-To",
    "Return-Path",
    "Return-Receipt-To",
    "Sender",
    "Solicitation",
    "Sensitivity",
    "Subject",
    "Thread-Index",
    "Thread-Topic",
    "User-Agent",
    "VBR-Info",
];

impl HeaderSection {
    /// Fails on a second occurrence of a field that SES allows once, among those that are kept.
    pub fn check_single(&self) -> Result<(), HeaderError> {
        let mut seen = [false; ONCE.len()];
        for field in &self.fields {
            let name = self.name(field);
            if must_not_leave(name) {
                continue;
            }
            for (once, seen) in ONCE.iter().zip(&mut seen) {
                if name.eq_ignore_ascii_case(once.as_bytes()) && std::mem::replace(seen, true) {
                    return Err(HeaderError::Duplicate((*once).to_owned()));
                }
            }
        }
        Ok(())
    }
}
