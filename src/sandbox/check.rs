//! What SES refuses in a raw message: read here on its own, by other code than the relay's, so that
//! the two check each other.
//!
//! Sources: SES Developer Guide, header fields and quotas; SES API reference, RawMessage.

use std::collections::HashSet;

/// SES's largest message: 40 MB, counted as MiB as version 1's error text does.
pub const MESSAGE_BYTES: usize = 40 * 1024 * 1024;
/// Most recipients of a call.
pub const RECIPIENTS: usize = 50;
/// Longest line with its CRLF (RFC 5321 4.5.3.1.6), as RawMessage's documentation asks.
pub const LINE_BYTES: usize = 1000;

/// Fields SES takes once; `*` ends a prefix.
const ONCE: &[&str] = &[
    "accept-language",
    "acceptlanguage",
    "archived-at",
    "auto-submitted",
    "bounces-to",
    "comments",
    "content-alternative",
    "content-base",
    "content-class",
    "content-description",
    "content-disposition",
    "content-duration",
    "content-id",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-transfer-encoding",
    "content-type",
    "date",
    "delivered-to",
    "disposition-notification-options",
    "disposition-notification-to",
    "dkim-signature",
    "domainkey-signature",
    "errors-to",
    "from",
    "importance",
    "in-reply-to",
    "keywords",
    "list-archive",
    "list-help",
    "list-id",
    "list-owner",
    "list-post",
    "list-subscribe",
    "list-unsubscribe",
    "message-context",
    "message-id",
    "mime-version",
    "organization",
    "original-*",
    "precedence",
    "priority",
    "references",
    "reply-to",
    "return-path",
    "return-receipt-to",
    "sender",
    "sensitivity",
    "solicitation",
    "subject",
    "thread-index",
    "thread-topic",
    "user-agent",
    "vbr-info",
];

/// The fields of a header section, names as given, values unfolded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Header(Vec<(String, String)>);

impl Header {
    /// Reads up to the first empty line; what is no field is passed over, as receivers do.
    pub(super) fn read(raw: &[u8]) -> Self {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in raw.split(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(line);
            if text.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push(' ');
                    value.push_str(text.trim());
                }
            } else if let Some((name, value)) = text.split_once(':') {
                fields.push((name.trim_end().to_owned(), value.trim().to_owned()));
            }
        }
        Self(fields)
    }

    pub(super) fn fields(&self) -> &[(String, String)] {
        &self.0
    }

    /// The first value of a field, by its name in any case.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every address in the fields of these names.
    pub(super) fn addresses(&self, names: &[&str]) -> Vec<String> {
        let wanted = self.0.iter().filter(|(n, _)| names.iter().any(|name| n.eq_ignore_ascii_case(name)));
        wanted.flat_map(|(_, value)| addresses(value)).collect()
    }

    /// SES's words for the first field that is there twice and may not be, or for a missing From.
    pub(super) fn fault(&self) -> Option<String> {
        let mut seen = HashSet::new();
        for (name, _) in &self.0 {
            let folded = name.to_ascii_lowercase();
            let once = ONCE.iter().any(|known| match known.strip_suffix('*') {
                Some(prefix) => folded.starts_with(prefix),
                None => folded == *known,
            });
            if once && !seen.insert(folded) {
                return Some(format!("Duplicate header '{name}'."));
            }
        }
        self.value("from").is_none().then(|| "Missing required header 'From'.".to_owned())
    }
}

/// The addresses of a field's value: what stands in angle brackets, else each bare word with an
/// `@`. Quoted strings and comments are passed over.
pub(super) fn addresses(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word = String::new();
    let mut depth = 0_u32;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            '"' => {
                while let Some(quoted) = chars.next() {
                    match quoted {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '<' => {
                word.clear();
                found.push(chars.by_ref().take_while(|c| *c != '>').collect::<String>().trim().to_owned());
            }
            ',' | ';' | ':' | ' ' => flush(&mut word, &mut found),
            _ => word.push(c),
        }
    }
    flush(&mut word, &mut found);
    found
}

fn flush(word: &mut String, found: &mut Vec<String>) {
    if word.contains('@') {
        found.push(std::mem::take(word));
    }
    word.clear();
}

/// SES's words for a recipient it does not take.
pub(super) fn recipient_fault(address: &str) -> Option<&'static str> {
    let Some((local, domain)) = address.rsplit_once('@') else { return Some("Missing final '@domain'") };
    let bad = |c: char| !c.is_ascii() || c.is_ascii_control() || c == ' ';
    if local.is_empty() || local.chars().any(bad) {
        return Some("Local address contains control or whitespace");
    }
    let labels = domain
        .split('.')
        .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    (!labels).then_some("Domain contains illegal character")
}

/// Whether a tag's name or value is one: 1 to 256 of `[A-Za-z0-9_-]` (SES API reference,
/// MessageTag). The two names with a colon are SES's own.
pub(super) fn is_tag(text: &str) -> bool {
    let alphabet = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    (alphabet && !text.is_empty() && text.len() <= 256) || matches!(text, "ses:feedback-id-a" | "ses:feedback-id-b")
}

/// The number of the first line over [`LINE_BYTES`], from 1.
pub(super) fn long_line(raw: &[u8]) -> Option<usize> {
    raw.split_inclusive(|b| *b == b'\n').position(|line| line.len() > LINE_BYTES).map(|at| at + 1)
}

/// Which of `claimed` no identity in `verified` covers: an address itself, or its domain or a
/// domain above it (SES Developer Guide, verified identities).
pub(super) fn unverified(claimed: &[String], verified: &[String]) -> Vec<String> {
    let covered = |address: &String| {
        let address = address.to_ascii_lowercase();
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        verified
            .iter()
            .map(|v| v.to_ascii_lowercase())
            .any(|identity| identity == address || identity == domain || domain.ends_with(&format!(".{identity}")))
    };
    claimed.iter().filter(|address| !covered(address)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(header: &str) -> Option<String> {
        Header::read(format!("{header}\r\nSubject-Of-Body: x\r\n\r\nFrom: in the body\r\n").as_bytes()).fault()
    }

    #[test]
    fn a_field_ses_takes_once_may_not_be_there_twice_in_any_spelling() {
        assert_eq!(fault("From: a@b.example"), None);
        assert_eq!(fault("From: a@b.example\r\nReceived: x\r\nReceived: y\r\nX-A: 1\r\nX-A: 2"), None);
        for twice in [
            "Subject: a\r\nsubject : b",
            "DKIM-Signature: 1\r\nDKIM-Signature:\r\n 2",
            "List-Unsubscribe: <a>\r\nLIST-UNSUBSCRIBE: <b>",
            "Original-Recipient: a\r\nOriginal-Recipient: b",
        ] {
            let text = fault(&format!("From: a@b.example\r\n{twice}")).unwrap_or_default();
            assert!(text.starts_with("Duplicate header '"), "{twice}: {text}");
        }
        assert_eq!(fault("To: a@b.example").as_deref(), Some("Missing required header 'From'."));
        assert_eq!(fault("To: a\r\n From: folded@b.example").as_deref(), Some("Missing required header 'From'."));
    }

    #[test]
    fn addresses_are_found_in_every_usual_form() {
        let rows: &[(&str, &[&str])] = &[
            ("a@b.example", &["a@b.example"]),
            ("\"x@y, z\" <a@b.example>, c@d.example (e@f.example)", &["a@b.example", "c@d.example"]),
            ("Name Of <a@b.example>,<c@d.example>", &["a@b.example", "c@d.example"]),
            ("team: a@b.example, c@d.example;", &["a@b.example", "c@d.example"]),
            ("nobody", &[]),
        ];
        for (value, wanted) in rows {
            assert_eq!(addresses(value), *wanted, "{value}");
        }
    }

    #[test]
    fn recipients_tags_lines_and_identities() {
        assert_eq!(recipient_fault("a.b+c@x-y.example"), None);
        for bad in ["plain", "@x.example", "\u{fc}@x.example", "a b@x.example", "a@", "a@b..c", "a@\u{fc}.example"] {
            assert!(recipient_fault(bad).is_some(), "{bad}");
        }
        assert!(is_tag("A-z_9") && is_tag("ses:feedback-id-a") && is_tag(&"x".repeat(256)));
        assert!(!is_tag("") && !is_tag("a.b") && !is_tag("a:b") && !is_tag(&"x".repeat(257)));
        let line = |n: usize| [b"a\r\n".to_vec(), vec![b'x'; n], b"\r\n".to_vec()].concat();
        assert_eq!((long_line(&line(998)), long_line(&line(999))), (None, Some(2)));
        let verified = ["Acme.example".to_owned(), "one@other.example".to_owned()];
        let claimed = |text: &str| unverified(&[text.to_owned()], &verified).is_empty();
        assert!(claimed("a@acme.example") && claimed("a@mail.ACME.example") && claimed("one@other.example"));
        assert!(!claimed("two@other.example") && !claimed("a@notacme.example"));
    }
}
