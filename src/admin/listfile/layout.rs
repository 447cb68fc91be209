//! Whose list a file is, by the names of its columns, and what its texts mean.
//!
//! | file | columns | entries are |
//! |---|---|---|
//! | ours | `address` (or `email`), `reason`, `origin`, `at`, `expires`, `actor` | what `reason` says |
//! | Amazon SES | `EmailAddress`, `Reason`, `LastUpdateTime` | what `Reason` says |
//! | Postmark | `EmailAddress`, `SuppressionReason`, `Origin`, `CreatedAt` | what `SuppressionReason` says |
//! | SendGrid, bounces | `email`, `created`, `reason`, `status` | bounces |
//! | SendGrid, spam reports | `email`, `created`, `ip` | complaints |
//! | SendGrid, else (unsubscribes, invalid addresses) | `email`, `created` | what the command says |
//! | Mailgun, bounces | `address`, `created_at`, `code`, `error` | bounces |
//! | Mailgun, unsubscribes | `address`, `created_at`, `tags` | entries by hand |
//! | Mailgun, complaints | `address`, `created_at` | complaints |
//!
//! Names are compared without case; columns with other names are passed over. Moments are RFC 3339,
//! the form of mail (RFC 5322), or seconds since 1970.
//!
//! Promises: a list whose kind its columns do not tell is not guessed at.

use super::{Fault, short};
use crate::policy::tenant::SuppressionReason;
use crate::time::Timestamp;

/// Seconds since 1970 above which a number is taken for milliseconds: the year 5138.
const SECONDS: f64 = 100_000_000_000.0;

/// How the texts of a file are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    whose: Whose,
    columns: Vec<Option<Column>>,
    /// What entries are that do not say it themselves.
    otherwise: SuppressionReason,
}

/// Who writes such files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    Ours,
    Ses,
    Postmark,
    SendGrid,
    Mailgun,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Address,
    Reason,
    Origin,
    At,
    Expires,
    /// A status code.
    Status,
    /// Why, in somebody's words.
    Words,
}

/// The texts of one entry, in their places.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Texts {
    pub(super) address: String,
    reason: Option<String>,
    origin: Option<String>,
    at: Option<String>,
    expires: Option<String>,
    status: Option<String>,
    words: Option<String>,
}

impl Layout {
    /// The order of our columns in a file without a header.
    pub(super) fn without_header(given: Option<SuppressionReason>) -> Self {
        use Column::{Address, At, Expires, Origin, Reason};
        Self {
            whose: Whose::Ours,
            columns: [Address, Reason, Origin, At, Expires].into_iter().map(Some).collect(),
            otherwise: given.unwrap_or(SuppressionReason::Manual),
        }
    }

    /// The layout that the columns' names tell; `None` if none of them holds addresses. `given` is what
    /// the command says that entries are.
    pub(super) fn of<'a>(
        names: impl Iterator<Item = &'a str>,
        given: Option<SuppressionReason>,
    ) -> Result<Option<Self>, Fault> {
        let names: Vec<String> = names.map(|name| name.trim().to_ascii_lowercase()).collect();
        let has = |name: &str| names.iter().any(|other| other == name);
        let (whose, list) = if has("emailaddress") && has("suppressionreason") {
            (Whose::Postmark, None)
        } else if has("emailaddress") {
            (Whose::Ses, None)
        } else if has("email") && has("created") {
            (Whose::SendGrid, Some(sendgrid(has)))
        } else if has("address") && has("created_at") {
            (Whose::Mailgun, Some(Some(mailgun(has))))
        } else if has("address") || has("email") {
            (Whose::Ours, None)
        } else {
            return Ok(None);
        };
        let otherwise = match (given, list) {
            (Some(given), _) => given,
            (None, None) => SuppressionReason::Manual,
            (None, Some(Some(list))) => list,
            (None, Some(None)) => {
                return Err(Fault::of_file(
                    "is the header of a SendGrid export that may be of unsubscribes, spam reports or invalid addresses",
                    "say which by --reason manual (unsubscribes), --reason complaint (spam reports) or --reason bounce (invalid addresses)",
                ));
            }
        };
        let columns = names.iter().map(|name| column(whose, name)).collect();
        Ok(Some(Self { whose, columns, otherwise }))
    }

    /// The fields of one entry in their places.
    pub(super) fn texts(&self, fields: impl Iterator<Item = Option<String>>) -> Texts {
        let mut texts = Texts::default();
        for (column, field) in self.columns.iter().zip(fields) {
            match column {
                Some(Column::Address) => texts.address = field.unwrap_or_default(),
                Some(Column::Reason) => texts.reason = field,
                Some(Column::Origin) => texts.origin = field,
                Some(Column::At) => texts.at = field,
                Some(Column::Expires) => texts.expires = field,
                Some(Column::Status) => texts.status = field,
                Some(Column::Words) => texts.words = field,
                None => {}
            }
        }
        texts
    }

    /// What an entry is.
    pub(super) fn reason(&self, texts: &Texts) -> Result<SuppressionReason, Fault> {
        let Some(text) = given(texts.reason.as_deref()) else { return Ok(self.otherwise) };
        let own = super::reason(text);
        let (found, cure) = match self.whose {
            Whose::Ours => (own, "write bounce, complaint, manual or soft"),
            Whose::Ses => (own, "Amazon SES has BOUNCE and COMPLAINT"),
            Whose::Postmark => {
                let words = [
                    ("hardbounce", SuppressionReason::Bounce),
                    ("spamcomplaint", SuppressionReason::Complaint),
                    ("manualsuppression", SuppressionReason::Manual),
                ];
                let found = words.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
                (found.map(|(_, reason)| reason), "Postmark has HardBounce, SpamComplaint and ManualSuppression")
            }
            // Their lists are of one kind each.
            Whose::SendGrid | Whose::Mailgun => (Some(self.otherwise), ""),
        };
        found.ok_or_else(|| Fault::of_line(format!("the reason {:?} is none", short(text)), cure))
    }

    /// What brought an entry, as the file has it.
    pub(super) fn origin(&self, texts: &Texts) -> Option<String> {
        let name = match self.whose {
            Whose::Ours => return given(texts.origin.as_deref()).map(str::to_owned),
            Whose::Ses => "SES list",
            Whose::Postmark => "Postmark",
            Whose::SendGrid => "SendGrid",
            Whose::Mailgun => "Mailgun",
        };
        let parts = [texts.status.as_deref(), texts.words.as_deref()];
        let words: Vec<&str> = parts.into_iter().filter_map(given).collect();
        if words.is_empty() {
            return Some(name.to_owned());
        }
        // Other servers' words come over several lines.
        let words = words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        Some(format!("{name}: {words}").chars().take(super::super::command::REASON).collect())
    }

    /// Since when an entry stands.
    pub(super) fn at(&self, texts: &Texts) -> Result<Option<Timestamp>, Fault> {
        moment(texts.at.as_deref())
    }

    /// Until when.
    pub(super) fn expires(&self, texts: &Texts) -> Result<Option<Timestamp>, Fault> {
        moment(texts.expires.as_deref())
    }
}

/// What a SendGrid export is of, if its columns tell.
fn sendgrid(has: impl Fn(&str) -> bool) -> Option<SuppressionReason> {
    if has("status") && has("reason") {
        Some(SuppressionReason::Bounce)
    } else if has("ip") {
        Some(SuppressionReason::Complaint)
    } else {
        None
    }
}

/// What a Mailgun export is of.
fn mailgun(has: impl Fn(&str) -> bool) -> SuppressionReason {
    if has("code") || has("error") {
        SuppressionReason::Bounce
    } else if has("tags") {
        SuppressionReason::Manual
    } else {
        SuppressionReason::Complaint
    }
}

fn column(whose: Whose, name: &str) -> Option<Column> {
    match (whose, name) {
        (Whose::Ours, "address" | "email") => Some(Column::Address),
        (Whose::Ours, "reason") => Some(Column::Reason),
        (Whose::Ours, "origin") => Some(Column::Origin),
        (Whose::Ours, "at") => Some(Column::At),
        (Whose::Ours, "expires") => Some(Column::Expires),
        (Whose::Ses | Whose::Postmark, "emailaddress") => Some(Column::Address),
        (Whose::Ses, "reason") | (Whose::Postmark, "suppressionreason") => Some(Column::Reason),
        (Whose::Ses, "lastupdatetime") | (Whose::Postmark, "createdat") => Some(Column::At),
        (Whose::Postmark, "origin") => Some(Column::Words),
        (Whose::SendGrid, "email") | (Whose::Mailgun, "address") => Some(Column::Address),
        (Whose::SendGrid, "created") | (Whose::Mailgun, "created_at") => Some(Column::At),
        (Whose::SendGrid, "status") | (Whose::Mailgun, "code") => Some(Column::Status),
        (Whose::SendGrid, "reason") | (Whose::Mailgun, "error") => Some(Column::Words),
        (Whose::Ours | Whose::Ses | Whose::Postmark | Whose::SendGrid | Whose::Mailgun, _) => None,
    }
}

/// A text that says something.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn moment(text: Option<&str>) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = given(text) else { return Ok(None) };
    let read = Timestamp::parse_rfc3339(text).or_else(|| Timestamp::parse_rfc5322(text)).or_else(|| since_1970(text));
    read.map(Some)
        .ok_or_else(|| Fault::of_line(format!("{:?} is no moment", short(text)), "write it as 2026-05-01T09:15:02Z"))
}

fn since_1970(text: &str) -> Option<Timestamp> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let millis = if number < SECONDS { number * 1000.0 } else { number };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is finite, not negative, and saturates"
    )]
    Some(Timestamp::from_millis(millis.round() as u64))
}
