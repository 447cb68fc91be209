//! What a mail about announcements says, and to whom.
//!
//! The first announcement is told in full: what happened, the figures, what still works, what to do,
//! when it ends. Those that waited with it for room in the hour are told by their headlines, the
//! [`HEADLINES`] first of them, and counted.
//!
//! Promises: a letter to a contact is made of its own tenant's announcements alone; whoever calls
//! [`text`] for one hands in no others, and those that are not its own are left out here once more.

use std::fmt::Write as _;

use super::{Announcement, Severity};
use crate::mail::{Mailbox, MessageId, TenantId};
use crate::time::Timestamp;

/// Most further announcements that are told by their headlines.
pub const HEADLINES: usize = 20;
/// Longest subject in characters, before the hostname.
const SUBJECT: usize = 120;

/// Whom a letter is to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reader {
    /// Whoever looks after this tenant's mail: its own news alone.
    Contact(TenantId),
    /// Whoever runs the relay: all there is.
    Operator,
}

impl Reader {
    /// Whether an announcement is for them.
    pub fn may_read(&self, announcement: &Announcement) -> bool {
        match self {
            Self::Contact(tenant) => announcement.tenant.as_ref() == Some(tenant),
            Self::Operator => true,
        }
    }
}

/// A mail to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Its id, which with the hostname is its Message-ID.
    pub id: MessageId,
    /// The relay's name.
    pub hostname: String,
    /// From.
    pub from: Mailbox,
    /// To.
    pub to: Mailbox,
    /// Date.
    pub date: Timestamp,
    /// Subject.
    pub subject: String,
    /// Its text, lines ended by `\n`.
    pub text: String,
}

/// Makes the octets of a mail. The error is in words for the log.
pub type Compose = fn(&Letter) -> Result<Vec<u8>, String>;

/// Subject and text of the mail to `reader` about some announcements, the first in full. `mails` is
/// how many a reader gets in an hour at the most.
pub fn text(
    announcements: &[&Announcement],
    reader: &Reader,
    hostname: &str,
    mails: usize,
) -> Option<(String, String)> {
    let mut own = announcements.iter().filter(|announcement| reader.may_read(announcement));
    let first = own.next()?;
    let others: Vec<&&Announcement> = own.collect();
    let mut text = String::new();
    full(&mut text, first);
    headlines(&mut text, &others);
    let of = match reader {
        Reader::Contact(tenant) => format!("You get this as the contact of tenant {tenant}"),
        Reader::Operator => "You get this as the operator".to_owned(),
    };
    let _ = write!(
        text,
        "\n-- \n{of} of the mail relay {hostname}.\nIt writes to you {mails} times an hour at the most; what is over comes in one mail.\n"
    );
    let subject = crate::store::audit::shortened(&first.headline, SUBJECT);
    let subject = match others.len() {
        0 => subject,
        more => format!("{subject} (and {more} more)"),
    };
    Some((subject, text))
}

fn full(text: &mut String, told: &Announcement) {
    let mut facts = vec![("when", told.at.rfc3339())];
    facts.extend(told.tenant.as_ref().map(|tenant| ("tenant", tenant.to_string())));
    facts.extend(told.stream.as_ref().map(|stream| ("stream", stream.to_string())));
    facts.extend(told.credential.as_ref().map(|credential| ("credential", credential.to_string())));
    facts.push(("severity", told.severity.word().to_owned()));
    let _ = writeln!(text, "{}", sentence(&told.headline));
    text.push('\n');
    columns(text, facts.iter().map(|(label, value)| (*label, value.as_str())).collect());
    if !told.figures.is_empty() {
        text.push_str("\nThe figures\n\n");
        columns(text, told.figures.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect());
    }
    for (heading, entries) in [("What still works", &told.still_works), ("What to do", &told.to_do)] {
        if !entries.is_empty() {
            let _ = writeln!(text, "\n{heading}\n");
            for entry in entries {
                let _ = writeln!(text, "  - {entry}");
            }
        }
    }
    match (told.clears, told.severity) {
        (Some(moment), _) => {
            let _ = writeln!(text, "\nIt ends by itself at {}, if nothing happens that keeps it.", moment.rfc3339());
        }
        (None, Severity::Alarm) => text.push_str("\nIt does not end by itself.\n"),
        (None, Severity::Notice | Severity::Warning) => {}
    }
}

fn headlines(text: &mut String, others: &[&&Announcement]) {
    if others.is_empty() {
        return;
    }
    text.push_str("\nAlso, since the mail before\n\n");
    for other in others.iter().take(HEADLINES) {
        let _ = writeln!(text, "  - {}  {}: {}", other.at.rfc3339(), other.severity.word(), other.headline);
    }
    if let Some(more @ 1..) = others.len().checked_sub(HEADLINES) {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn columns(text: &mut String, pairs: Vec<(&str, &str)>) {
    let widest = pairs.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
    for (label, value) in pairs {
        let _ = writeln!(text, "  {label:widest$}  {value}");
    }
}

/// With its full stop.
fn sentence(headline: &str) -> String {
    if headline.ends_with(['.', '!', '?', '…']) { headline.to_owned() } else { format!("{headline}.") }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::mail::StreamId;

    fn announcement(tenant: &str, headline: &str) -> Announcement {
        Announcement {
            id: MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap(),
            at: Timestamp::parse_rfc3339("2026-05-01T09:15:02.418Z").unwrap(),
            kind: Kind::StreamPaused,
            severity: Severity::Alarm,
            tenant: TenantId::parse(tenant).ok(),
            stream: StreamId::parse("marketing").ok(),
            credential: None,
            headline: headline.into(),
            figures: vec![("bounce rate, 24 h".into(), "6.2 % (31 of 500)".into()), ("limit".into(), "5 %".into())],
            still_works: vec!["stream transactional".into()],
            to_do: vec!["take addresses that bounced off the list".into(), "then ask for a resume".into()],
            clears: Timestamp::parse_rfc3339("2026-05-02T09:15:02.418Z"),
        }
    }

    #[test]
    fn a_letter_says_what_happened_and_what_to_do() {
        let told = announcement("acme", "Stream marketing of tenant acme was paused");
        let contact = Reader::Contact(TenantId::parse("acme").unwrap());
        let (subject, text) = text(&[&told], &contact, "relay.example.com", 10).unwrap();
        assert_eq!(subject, "Stream marketing of tenant acme was paused");
        assert_eq!(
            text,
            "Stream marketing of tenant acme was paused.\n\
             \n  when      2026-05-01T09:15:02.418Z\n  tenant    acme\n  stream    marketing\n  severity  alarm\n\
             \nThe figures\n\n  bounce rate, 24 h  6.2 % (31 of 500)\n  limit              5 %\n\
             \nWhat still works\n\n  - stream transactional\n\
             \nWhat to do\n\n  - take addresses that bounced off the list\n  - then ask for a resume\n\
             \nIt ends by itself at 2026-05-02T09:15:02.418Z, if nothing happens that keeps it.\n\
             \n-- \nYou get this as the contact of tenant acme of the mail relay relay.example.com.\n\
             It writes to you 10 times an hour at the most; what is over comes in one mail.\n"
        );
    }

    #[test]
    fn what_waited_is_told_by_its_headlines_and_counted() {
        let all: Vec<Announcement> = (0..30).map(|n| announcement("acme", &format!("Event number {n}"))).collect();
        let (subject, text) =
            text(&all.iter().collect::<Vec<_>>(), &Reader::Operator, "relay.example.com", 10).unwrap();
        assert_eq!(subject, "Event number 0 (and 29 more)");
        assert!(text.contains("alarm: Event number 1\n") && text.contains("alarm: Event number 20\n"), "{text}");
        assert!(!text.contains("Event number 21") && text.contains("\n  and 9 more\n"), "{text}");
        assert_eq!(text.matches("What to do").count(), 1);
    }

    #[test]
    fn a_contact_reads_nothing_of_another_tenant() {
        let (acme, globex) = (announcement("acme", "Ours"), announcement("globex", "Theirs"));
        let account = Announcement { tenant: None, ..announcement("acme", "The account's") };
        let contact = Reader::Contact(TenantId::parse("acme").unwrap());
        let (subject, told) = text(&[&globex, &account, &acme], &contact, "relay.example.com", 10).unwrap();
        assert_eq!(subject, "Ours");
        assert!(!told.contains("Theirs") && !told.contains("globex") && !told.contains("account"), "{told}");
        assert_eq!(text(&[&globex, &account], &contact, "relay.example.com", 10), None);
        let (subject, _) = text(&[&globex, &account, &acme], &Reader::Operator, "relay.example.com", 10).unwrap();
        assert_eq!(subject, "Theirs (and 2 more)");
    }
}
