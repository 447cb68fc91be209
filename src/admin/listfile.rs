//! Suppression lists in files: CSV and JSON lines, with the same columns for export and import.
//!
//! `address,reason,origin,at,expires,actor`: `reason` is bounce, complaint or manual, moments are
//! RFC 3339. Of an import only `address` is needed; the actor of the entries is who imports. A CSV
//! file without a header is read as a column of addresses, or our columns in our order.
//!
//! Promises: what is exported can be imported and says the same; a bad line is told with its number
//! and its cure and spoils no other. Refuses: quoted CSV fields over several lines, lines longer
//! than [`LINE`] octets.

use serde::{Deserialize, Serialize};

use super::view::SuppressionView;
use crate::mail::Mailbox;
use crate::policy::tenant::SuppressionReason;
use crate::time::Timestamp;

/// Longest line in octets.
pub const LINE: usize = 4096;
/// Our columns, in our order.
pub const COLUMNS: [&str; 6] = ["address", "reason", "origin", "at", "expires", "actor"];

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Comma-separated (RFC 4180), with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// One entry to be imported.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Whom.
    pub address: Mailbox,
    /// Why.
    pub reason: SuppressionReason,
    /// What brought it; `None`: the import.
    pub origin: Option<String>,
    /// Since when; `None`: now.
    pub at: Option<Timestamp>,
    /// Until when.
    pub expires: Option<Timestamp>,
}

/// A line that cannot be imported.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[error("line {line}: {what}; {cure}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// Reads a list line by line.
pub struct Reader {
    form: Form,
    otherwise: SuppressionReason,
    line: usize,
    columns: Option<Vec<Option<Column>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Address,
    Reason,
    Origin,
    At,
    Expires,
    Actor,
}

/// The texts of one entry, before they mean anything.
#[derive(Default, Deserialize)]
struct Texts {
    address: String,
    reason: Option<String>,
    origin: Option<String>,
    at: Option<String>,
    expires: Option<String>,
}

type Fault = (String, &'static str);

impl Form {
    /// By the end of a file's name: `.jsonl`, `.ndjson` and `.json` are JSON lines, all else CSV.
    pub fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if [".jsonl", ".ndjson", ".json"].iter().any(|end| name.ends_with(end)) { Self::Jsonl } else { Self::Csv }
    }

    /// What stands before the first entry.
    pub fn header(self) -> String {
        match self {
            Self::Csv => format!("{}\n", COLUMNS.join(",")),
            Self::Jsonl => String::new(),
        }
    }

    /// One entry as a line with its end.
    pub fn line(self, entry: &SuppressionView) -> String {
        match self {
            Self::Csv => {
                let reason = word(entry.reason);
                let expires = entry.expires.as_deref().unwrap_or_default();
                let fields = [&entry.address, reason, &entry.origin, &entry.at, expires, &entry.actor];
                format!("{}\n", fields.map(quoted).join(","))
            }
            Self::Jsonl => {
                let mut line = serde_json::json!({
                    "address": entry.address, "reason": entry.reason, "origin": entry.origin, "at": entry.at,
                    "actor": entry.actor,
                });
                if let (Some(until), Some(members)) = (&entry.expires, line.as_object_mut()) {
                    members.insert("expires".into(), until.clone().into());
                }
                format!("{line}\n")
            }
        }
    }
}

impl Reader {
    /// A list written as `form`; entries that give no reason get `otherwise`.
    pub fn new(form: Form, otherwise: SuppressionReason) -> Self {
        Self { form, otherwise, line: 0, columns: None }
    }

    /// Reads the next line: an entry, or none in an empty line or a header.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<Entry>, BadLine> {
        self.line += 1;
        self.texts(line)
            .and_then(|texts| texts.map(|texts| self.entry(texts)).transpose())
            .map_err(|(what, cure)| BadLine { line: self.line, what, cure: cure.into() })
    }

    fn texts(&mut self, line: &[u8]) -> Result<Option<Texts>, Fault> {
        if line.len() > LINE {
            return Err((format!("is longer than {LINE} octets"), "keep one entry a line"));
        }
        let text = std::str::from_utf8(line)
            .map_err(|_| ("is not UTF-8".to_owned(), "save the file as UTF-8"))?
            .trim_start_matches('\u{feff}')
            .trim();
        if text.is_empty() {
            return Ok(None);
        }
        match self.form {
            Form::Csv => self.csv(text),
            Form::Jsonl => serde_json::from_str(text)
                .map(Some)
                .map_err(|error| (format!("is no entry ({error})"), "write {\"address\": \"a@b.example\"}")),
        }
    }

    fn csv(&mut self, text: &str) -> Result<Option<Texts>, Fault> {
        let fields = split(text).ok_or_else(|| {
            ("has a quote that is not closed".to_owned(), "write \"…\" on one line, with \"\" for a quote inside")
        })?;
        let Some(columns) = &self.columns else {
            let (columns, is_header) = columns(&fields)?;
            self.columns = Some(columns);
            return if is_header { Ok(None) } else { self.csv(text) };
        };
        let mut texts = Texts::default();
        for (column, field) in columns.iter().zip(fields) {
            match column {
                Some(Column::Address) => texts.address = field,
                Some(Column::Reason) => texts.reason = Some(field),
                Some(Column::Origin) => texts.origin = Some(field),
                Some(Column::At) => texts.at = Some(field),
                Some(Column::Expires) => texts.expires = Some(field),
                Some(Column::Actor) | None => {}
            }
        }
        Ok(Some(texts))
    }

    fn entry(&self, texts: Texts) -> Result<Entry, Fault> {
        let given = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let address = Mailbox::parse(texts.address.trim().as_bytes()).map_err(|error| {
            (format!("the address {:?} {error}", short(&texts.address)), "give one address as name@domain")
        })?;
        let reason = match given(texts.reason) {
            None => self.otherwise,
            Some(text) => reason(&text).ok_or_else(|| {
                (format!("the reason {:?} is none", short(&text)), "write bounce, complaint or manual")
            })?,
        };
        let moment = |text: Option<String>| match given(text) {
            None => Ok(None),
            Some(text) => Timestamp::parse_rfc3339(&text)
                .map(Some)
                .ok_or_else(|| (format!("{:?} is no moment", short(&text)), "write it as 2026-05-01T09:15:02Z")),
        };
        Ok(Entry {
            address,
            reason,
            origin: given(texts.origin),
            at: moment(texts.at)?,
            expires: moment(texts.expires)?,
        })
    }
}

/// The columns that the first line names, and whether it is a header at all.
fn columns(fields: &[String]) -> Result<(Vec<Option<Column>>, bool), Fault> {
    const ORDER: [Column; 6] =
        [Column::Address, Column::Reason, Column::Origin, Column::At, Column::Expires, Column::Actor];
    if fields.first().is_some_and(|first| first.contains('@')) {
        return Ok((ORDER.into_iter().map(Some).collect(), false));
    }
    let named: Vec<Option<Column>> = fields
        .iter()
        .map(|field| {
            let name = field.trim().to_ascii_lowercase();
            COLUMNS.iter().zip(ORDER).find(|(known, _)| **known == name).map(|(_, column)| column)
        })
        .collect();
    if named.contains(&Some(Column::Address)) {
        Ok((named, true))
    } else {
        Err(("is no header with a column named address".into(), "begin the file with address,reason,origin,at,expires"))
    }
}

/// The fields of a line; `None` where a quote is not closed or does not stand around a whole field.
fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(inside) => closed(inside)?,
            None => match rest.find(',') {
                Some(comma) => (rest.get(..comma)?.to_owned(), rest.get(comma..)?),
                None => (rest.to_owned(), ""),
            },
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// A quoted field from behind its first quote, and what follows the last one.
fn closed(inside: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = inside;
    loop {
        let quote = rest.find('"')?;
        field.push_str(rest.get(..quote)?);
        rest = rest.get(quote + 1..)?;
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, rest)),
        }
    }
}

fn quoted(field: &str) -> String {
    // A local part may hold commas and quotes itself; a line end it may not, nor may any text of ours.
    let field: String = field.chars().filter(|c| !c.is_control()).collect();
    let needs = field.contains([',', '"']) || field.starts_with(' ') || field.ends_with(' ');
    if needs { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

/// `bounce`, `complaint`, `manual`.
pub fn word(reason: SuppressionReason) -> &'static str {
    reason.word()
}

/// Reads [`word`].
pub fn reason(text: &str) -> Option<SuppressionReason> {
    SuppressionReason::ALL.into_iter().find(|reason| word(*reason).eq_ignore_ascii_case(text))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: Form, text: &str) -> Vec<Result<Entry, String>> {
        let mut reader = Reader::new(form, SuppressionReason::Manual);
        text.lines()
            .filter_map(|line| reader.read(line.as_bytes()).transpose())
            .map(|read| read.map_err(|bad| bad.to_string()))
            .collect()
    }

    fn entry(address: &str, reason: SuppressionReason) -> Entry {
        let address = Mailbox::parse(address.as_bytes()).unwrap();
        Entry { address, reason, origin: None, at: None, expires: None }
    }

    #[test]
    fn columns_come_by_name_or_in_our_order_or_as_addresses_alone() {
        use SuppressionReason::{Bounce, Complaint, Manual};
        for (text, expected) in [
            ("address,reason\na@b.example,bounce\n", Bounce),
            ("Reason , Address,surprise\ncomplaint,a@b.example,7\n", Complaint),
            ("a@b.example\n", Manual),
            ("a@b.example,bounce\n", Bounce),
            ("\u{feff}address\r\n\r\na@b.example\r\n", Manual),
        ] {
            assert_eq!(read(Form::Csv, text), [Ok(entry("a@b.example", expected))], "{text:?}");
        }
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_cure_and_spoils_no_other() {
        let text = "address,reason,at\nnobody,bounce,\na@b.example,rude,\na@b.example,bounce,yesterday\n\"a@b.example,bounce,\n\"a\"b,c,d\ngood@b.example,bounce,\n";
        let read = read(Form::Csv, text);
        let bad: Vec<&String> = read.iter().filter_map(|one| one.as_ref().err()).collect();
        assert_eq!(bad.len(), 5, "{read:?}");
        assert_eq!(
            *bad[0],
            "line 2: the address \"nobody\" is not of the form local-part@domain; give one address as name@domain"
        );
        assert_eq!(*bad[1], "line 3: the reason \"rude\" is none; write bounce, complaint or manual");
        assert_eq!(*bad[2], "line 4: \"yesterday\" is no moment; write it as 2026-05-01T09:15:02Z");
        assert!(bad[3].starts_with("line 5: has a quote that is not closed"), "{}", bad[3]);
        assert!(bad[4].starts_with("line 6: has a quote"), "{}", bad[4]);
        assert_eq!(read.last().unwrap(), &Ok(entry("good@b.example", SuppressionReason::Bounce)));
        let read =
            super::tests::read(Form::Jsonl, "{\"address\":\"a@b.example\"}\nnonsense\n{\"reason\":\"bounce\"}\n");
        assert_eq!(read.iter().filter(|one| one.is_ok()).count(), 1);
        assert!(read[1].as_ref().unwrap_err().starts_with("line 2: is no entry"), "{read:?}");
    }

    #[test]
    fn what_is_exported_says_the_same_when_it_is_imported() {
        let at = "2026-05-01T09:15:02.418Z".to_owned();
        let views = [
            ("plain@b.example", "import old list, \"first\" half", None),
            ("\"a,b\\\"c\"@b.example", "cli", Some("2027-01-01T00:00:00.000Z".to_owned())),
        ]
        .map(|(address, origin, expires)| SuppressionView {
            address: address.into(),
            reason: SuppressionReason::Complaint,
            origin: origin.into(),
            at: at.clone(),
            expires,
            actor: "cli:root".into(),
            stands: true,
        });
        for form in [Form::Csv, Form::Jsonl] {
            let mut text = form.header();
            views.iter().for_each(|view| text.push_str(&form.line(view)));
            let read = read(form, &text);
            assert_eq!(read.len(), views.len(), "{text}");
            for (read, view) in read.into_iter().zip(&views) {
                let read = read.unwrap();
                assert_eq!(read.address.to_string(), view.address);
                assert_eq!(read.reason, view.reason);
                assert_eq!(read.origin.as_ref(), Some(&view.origin));
                assert_eq!(read.at.map(Timestamp::rfc3339).as_ref(), Some(&view.at));
                assert_eq!(read.expires.map(Timestamp::rfc3339), view.expires);
            }
        }
    }
}
