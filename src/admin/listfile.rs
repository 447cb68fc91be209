//! Suppression lists in files: CSV and JSON lines, with the same columns for export and import.
//!
//! `address,reason,origin,at,expires,actor`: `reason` is bounce, complaint, manual or soft, moments are
//! RFC 3339. Of an import only `address` is needed; the actor of the entries is who imports. A CSV
//! file without a header is read as a column of addresses, or our columns in our order. Exports of
//! Amazon SES, SendGrid, Mailgun and Postmark are known by their columns: see `layout`.
//!
//! Promises: what is exported can be imported and says the same; a bad line is told with its number
//! and its cure and spoils no other; however long a file, one record of it is in memory.
//! Refuses: lines longer than [`LINE`] octets; a quoted field that goes over more than [`RECORD_LINES`]
//! lines or [`RECORD`] octets. Such a record's first line is bad, and the others are read anew.

mod layout;

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};

use self::layout::{Layout, Texts};
use super::view::SuppressionView;
use crate::mail::Mailbox;
use crate::policy::tenant::SuppressionReason;
use crate::time::Timestamp;

/// Longest line in octets.
pub const LINE: usize = 4096;
/// Most lines of one record, whose quoted fields may hold line ends.
pub const RECORD_LINES: usize = 64;
/// Most octets of one.
pub const RECORD: usize = 16 * 1024;
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

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unread {
    /// One line cannot be imported; the others can.
    #[error(transparent)]
    Line(BadLine),
    /// Nothing of the file can: what its entries are cannot be told.
    #[error(transparent)]
    File(BadLine),
}

/// Reads a list, entry by entry, out of a file of any length.
pub struct Entries<R> {
    source: R,
    reader: Reader,
    /// Lines that have been read, and belong to no record as yet.
    ahead: VecDeque<Vec<u8>>,
    octets: u64,
}

/// What the lines of a list mean.
pub struct Reader {
    form: Form,
    given: Option<SuppressionReason>,
    line: usize,
    layout: Option<Layout>,
}

/// What is wrong, before it has the number of its line.
#[derive(Debug)]
struct Fault {
    what: String,
    cure: String,
    /// Whether nothing of the file can be read.
    whole: bool,
}

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

impl<R: BufRead> Entries<R> {
    /// The entries of `source`.
    pub fn new(source: R, reader: Reader) -> Self {
        Self { source, reader, ahead: VecDeque::new(), octets: 0 }
    }

    /// Octets read so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The next entry, or what is wrong in its place; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "an iterator's items would be three deep")]
    pub fn next(&mut self) -> io::Result<Option<Result<Entry, Unread>>> {
        while let Some(record) = self.record()? {
            if let Some(read) = self.reader.read(&record).transpose() {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    /// A line, and in CSV the lines after it that a quoted field goes over.
    fn record(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.reader.line += 1;
        let Some(first) = self.line()? else { return Ok(None) };
        if self.reader.form != Form::Csv || !is_open(&first) || first.len() > LINE {
            return Ok(Some(first));
        }
        let mut record = first.clone();
        let mut more = VecDeque::new();
        while more.len() < RECORD_LINES
            && let Some(next) = self.line()?
        {
            let fits = record.len() + next.len() < RECORD;
            record.push(b'\n');
            record.extend_from_slice(&next);
            let closes = is_open(&next);
            more.push_back(next);
            if !fits {
                break;
            }
            if closes {
                self.reader.line += more.len();
                return Ok(Some(record));
            }
        }
        // Its end was not found: it is bad by itself, and what followed is read anew.
        more.append(&mut self.ahead);
        self.ahead = more;
        Ok(Some(first))
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(line) = self.ahead.pop_front() {
            return Ok(Some(line));
        }
        let (line, octets) = bounded_line(&mut self.source, LINE + 2)?;
        self.octets = self.octets.saturating_add(octets);
        Ok(line)
    }
}

/// Whether a quoted field is open at the end of a line that began without one.
fn is_open(line: &[u8]) -> bool {
    line.iter().filter(|octet| **octet == b'"').count() % 2 == 1
}

/// One line without its end, of which at most `most` octets are kept, and how many there were with it;
/// `None` at the end.
pub fn bounded_line(from: &mut dyn BufRead, most: usize) -> io::Result<(Option<Vec<u8>>, u64)> {
    let mut line = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut octets = count((&mut *from).take(limit).read_until(b'\n', &mut line)?);
    if octets == 0 {
        return Ok((None, 0));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok((Some(line), octets));
    }
    // Longer than is kept, or the last line: what is left of it is passed over.
    loop {
        let chunk = from.fill_buf()?;
        if chunk.is_empty() {
            return Ok((Some(line), octets));
        }
        let (pass, found) = match chunk.iter().position(|octet| *octet == b'\n') {
            Some(end) => (end + 1, true),
            None => (chunk.len(), false),
        };
        octets += count(pass);
        from.consume(pass);
        if found {
            return Ok((Some(line), octets));
        }
    }
}

fn count(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

impl Fault {
    fn of_line(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), whole: false }
    }

    fn of_file(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { whole: true, ..Self::of_line(what, cure) }
    }

    fn at(self, line: usize) -> Unread {
        let Self { what, cure, whole } = self;
        let bad = BadLine { line, what, cure };
        if whole { Unread::File(bad) } else { Unread::Line(bad) }
    }
}

impl Reader {
    /// A list written as `form`; entries that give no reason are `given`. Without it they are what the
    /// columns tell, or else entries by hand.
    pub fn new(form: Form, given: Option<SuppressionReason>) -> Self {
        Self { form, given, line: 0, layout: None }
    }

    /// Reads a record that ends with the line numbered `self.line`: an entry, or none in an empty line
    /// or a header.
    fn read(&mut self, record: &[u8]) -> Result<Option<Entry>, Unread> {
        let lines = record.iter().filter(|octet| **octet == b'\n').count();
        self.meant(record).map_err(|fault| fault.at(self.line.saturating_sub(lines)))
    }

    fn meant(&mut self, record: &[u8]) -> Result<Option<Entry>, Fault> {
        if record.len() > LINE && !record.contains(&b'\n') {
            return Err(Fault::of_line(format!("is longer than {LINE} octets"), "keep one entry a line"));
        }
        let text = std::str::from_utf8(record)
            .map_err(|_| Fault::of_line("is not UTF-8", "save the file as UTF-8"))?
            .trim_start_matches('\u{feff}')
            .trim();
        if text.is_empty() {
            return Ok(None);
        }
        match self.form {
            Form::Csv => self.csv(text),
            Form::Jsonl => json(text, self.given).map(Some),
        }
    }

    fn csv(&mut self, text: &str) -> Result<Option<Entry>, Fault> {
        let fields = split(text).ok_or_else(|| {
            Fault::of_line("has a quote that is not closed", "write \"…\" around a field, with \"\" for a quote inside")
        })?;
        let Some(layout) = &self.layout else {
            let (layout, is_header) = layout_of(&fields, self.given)?;
            self.layout = Some(layout);
            return if is_header { Ok(None) } else { self.csv(text) };
        };
        entry(layout, &layout.texts(fields.into_iter().map(Some))).map(Some)
    }
}

/// An object on one line, whose members are its columns.
fn json(text: &str, given: Option<SuppressionReason>) -> Result<Entry, Fault> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| {
        let cure = if text.starts_with(['[', '{']) && !text.ends_with('}') {
            "put each object on a line of its own, as `jq -c '.[]'` does, or `jq -c '.SuppressedDestinationSummaries[]'` of SES's answers"
        } else {
            "write {\"address\": \"a@b.example\"}"
        };
        Fault::of_line(format!("is no entry ({error})"), cure)
    })?;
    let layout = Layout::of(object.keys().map(String::as_str), given)?
        .ok_or_else(|| Fault::of_line("has no member named address", "write {\"address\": \"a@b.example\"}"))?;
    let text = |(_, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        // No column of an entry is one of these.
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    };
    entry(&layout, &layout.texts(object.into_iter().map(text)))
}

fn entry(layout: &Layout, texts: &Texts) -> Result<Entry, Fault> {
    let address = Mailbox::parse(texts.address.trim().as_bytes()).map_err(|error| {
        Fault::of_line(format!("the address {:?} {error}", short(&texts.address)), "give one address as name@domain")
    })?;
    Ok(Entry {
        address,
        reason: layout.reason(texts)?,
        origin: layout.origin(texts),
        at: layout.at(texts)?,
        expires: layout.expires(texts)?,
    })
}

/// The layout that the first line tells, and whether it is a header at all.
fn layout_of(fields: &[String], given: Option<SuppressionReason>) -> Result<(Layout, bool), Fault> {
    if fields.first().is_some_and(|first| first.contains('@')) {
        return Ok((Layout::without_header(given), false));
    }
    match Layout::of(fields.iter().map(String::as_str), given)? {
        Some(layout) => Ok((layout, true)),
        None => Err(Fault::of_file(
            "is no header with a column named address",
            "begin the file with address,reason,origin,at,expires",
        )),
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

/// `bounce`, `complaint`, `manual`, `soft`.
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
        read_as(form, None, text)
    }

    fn read_as(form: Form, given: Option<SuppressionReason>, text: &str) -> Vec<Result<Entry, String>> {
        let mut entries = Entries::new(text.as_bytes(), Reader::new(form, given));
        let mut all = Vec::new();
        while let Some(read) = entries.next().unwrap() {
            all.push(read.map_err(|bad| bad.to_string()));
        }
        assert_eq!(entries.octets(), text.len() as u64);
        all
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
        assert_eq!(*bad[1], "line 3: the reason \"rude\" is none; write bounce, complaint, manual or soft");
        assert_eq!(*bad[2], "line 4: \"yesterday\" is no moment; write it as 2026-05-01T09:15:02Z");
        assert!(bad[3].starts_with("line 5: has a quote that is not closed"), "{}", bad[3]);
        assert!(bad[4].starts_with("line 6: has a quote"), "{}", bad[4]);
        assert_eq!(read.last().unwrap(), &Ok(entry("good@b.example", SuppressionReason::Bounce)));
        let read =
            super::tests::read(Form::Jsonl, "{\"address\":\"a@b.example\"}\nnonsense\n{\"reason\":\"bounce\"}\n");
        assert_eq!(read.iter().filter(|one| one.is_ok()).count(), 1);
        assert!(read[1].as_ref().unwrap_err().starts_with("line 2: is no entry"), "{read:?}");
    }

    /// What others write is known by its columns. text; reason, origin, moment.
    #[test]
    fn foreign_exports_are_known_by_their_columns() {
        use SuppressionReason::{Bounce, Complaint, Manual};
        let noon = "2026-05-01T12:00:00.000Z";
        let table: &[(Form, &str, SuppressionReason, &str, &str)] = &[
            (
                Form::Csv,
                "EmailAddress,Reason,LastUpdateTime\na@b.example,BOUNCE,2026-05-01T12:00:00+00:00\n",
                Bounce,
                "SES list",
                noon,
            ),
            (
                Form::Csv,
                "\"EmailAddress\",\"Reason\",\"LastUpdateTime\"\r\n\"a@b.example\",\"COMPLAINT\",\"1777636800.0\"\r\n",
                Complaint,
                "SES list",
                noon,
            ),
            (
                Form::Jsonl,
                "{\"EmailAddress\":\"a@b.example\",\"Reason\":\"BOUNCE\",\"LastUpdateTime\":1777636800.0}\n",
                Bounce,
                "SES list",
                noon,
            ),
            (
                Form::Jsonl,
                "{\"EmailAddress\":\"a@b.example\",\"Reason\":\"COMPLAINT\",\"LastUpdateTime\":\"2026-05-01T14:00:00.000000+02:00\"}\n",
                Complaint,
                "SES list",
                noon,
            ),
            (
                Form::Csv,
                "status,reason,email,created\n5.1.1,\"550 5.1.1 no such\nuser, sorry\",a@b.example,1777636800\n",
                Bounce,
                "SendGrid: 5.1.1 550 5.1.1 no such user, sorry",
                noon,
            ),
            (Form::Csv, "email,ip,created\na@b.example,192.0.2.1,1777636800\n", Complaint, "SendGrid", noon),
            (
                Form::Jsonl,
                "{\"created\":1777636800,\"email\":\"a@b.example\",\"reason\":\"550 gone\",\"status\":\"5.1.1\"}\n",
                Bounce,
                "SendGrid: 5.1.1 550 gone",
                noon,
            ),
            (
                Form::Csv,
                "address,code,error,created_at\na@b.example,550,No such mailbox,\"Fri, 01 May 2026 12:00:00 UTC\"\n",
                Bounce,
                "Mailgun: 550 No such mailbox",
                noon,
            ),
            (
                Form::Csv,
                "address,created_at\na@b.example,\"Fri, 01 May 2026 12:00:00 GMT\"\n",
                Complaint,
                "Mailgun",
                noon,
            ),
            (Form::Csv, "address,tags,created_at\na@b.example,*,2026-05-01T12:00:00Z\n", Manual, "Mailgun", noon),
            (
                Form::Jsonl,
                "{\"address\":\"a@b.example\",\"tags\":[\"*\"],\"created_at\":\"2026-05-01T12:00:00Z\"}\n",
                Manual,
                "Mailgun",
                noon,
            ),
            (
                Form::Csv,
                "EmailAddress,SuppressionReason,Origin,CreatedAt\na@b.example,HardBounce,Recipient,2026-05-01T08:00:00-04:00\n",
                Bounce,
                "Postmark: Recipient",
                noon,
            ),
            (
                Form::Csv,
                "EmailAddress,SuppressionReason,Origin,CreatedAt\na@b.example,SpamComplaint,Recipient,2026-05-01T12:00:00Z\n",
                Complaint,
                "Postmark: Recipient",
                noon,
            ),
            (
                Form::Jsonl,
                "{\"EmailAddress\":\"a@b.example\",\"SuppressionReason\":\"ManualSuppression\",\"Origin\":\"Customer\",\"CreatedAt\":\"2026-05-01T12:00:00Z\"}\n",
                Manual,
                "Postmark: Customer",
                noon,
            ),
        ];
        for (form, text, reason, origin, at) in table {
            let read = read(*form, text);
            let [Ok(entry)] = &read[..] else { panic!("{text}: {read:?}") };
            assert_eq!(entry.reason, *reason, "{text}");
            assert_eq!(entry.origin.as_deref(), Some(*origin), "{text}");
            assert_eq!(entry.at.map(Timestamp::rfc3339).as_deref(), Some(*at), "{text}");
            assert_eq!(entry.address.to_string(), "a@b.example");
        }
        assert_eq!(read(Form::Csv, "email\na@b.example\n"), [Ok(entry("a@b.example", Manual))]);
        let odd = read(Form::Csv, "EmailAddress,SuppressionReason\na@b.example,Bored\n");
        assert!(odd[0].as_ref().unwrap_err().contains("Postmark has HardBounce"), "{odd:?}");
    }

    /// Unsubscribes, spam reports, invalid addresses: SendGrid may write all of them with the same columns.
    #[test]
    fn a_list_whose_kind_cannot_be_told_is_not_guessed_at() {
        use SuppressionReason::{Bounce, Complaint, Manual};
        for text in [
            "email,created\na@b.example,1\nb@b.example,2\n",
            "reason,email,created\nx,a@b.example,1\nx,b@b.example,2\n",
        ] {
            let mut entries = Entries::new(text.as_bytes(), Reader::new(Form::Csv, None));
            let Some(Err(Unread::File(bad))) = entries.next().unwrap() else { panic!("{text}") };
            assert_eq!(bad.line, 1);
            assert!(bad.to_string().contains("--reason complaint"), "{bad}");
            for given in [Bounce, Complaint, Manual] {
                let read = read_as(Form::Csv, Some(given), text);
                assert_eq!(read.iter().map(|one| one.as_ref().unwrap().reason).collect::<Vec<_>>(), [given; 2]);
            }
        }
        // What is said rules over what the columns tell, and not over what an entry says itself.
        let text = "email,ip,created\na@b.example,192.0.2.1,1\n";
        assert_eq!(read_as(Form::Csv, Some(Manual), text)[0].as_ref().unwrap().reason, Manual);
        let text = "EmailAddress,Reason\na@b.example,BOUNCE\n";
        assert_eq!(read_as(Form::Csv, Some(Manual), text)[0].as_ref().unwrap().reason, Bounce);
        let Some(Err(Unread::File(bad))) =
            Entries::new(&b"name,phone\nx,y\n"[..], Reader::new(Form::Csv, None)).next().unwrap()
        else {
            panic!()
        };
        assert!(bad.what.contains("no header"), "{bad}");
    }

    #[test]
    fn a_quoted_field_may_go_over_lines_and_one_that_never_ends_costs_its_own_line() {
        let header = "address,origin\n";
        let two = format!("{header}a@b.example,\"one\ntwo\"\nnobody\n");
        let read_two = read(Form::Csv, &two);
        assert_eq!(read_two[0].as_ref().unwrap().origin.as_deref(), Some("one\ntwo"));
        assert!(read_two[1].as_ref().unwrap_err().starts_with("line 4: "), "{read_two:?}");
        for (lines, long) in [(RECORD_LINES * 3, 1), (20, LINE - 100)] {
            let rest: String = (0..lines).map(|n| format!("r{n}@b.example,{}\n", "x".repeat(long))).collect();
            let read = read(Form::Csv, &format!("{header}a@b.example,\"never\n{rest}"));
            assert!(
                read[0].as_ref().unwrap_err().starts_with("line 2: has a quote that is not closed"),
                "{:?}",
                read[0]
            );
            assert_eq!(read.len(), lines + 1);
            assert!(read[1..].iter().all(Result::is_ok));
        }
        let long = read(Form::Csv, &format!("{header}{}@b.example\nok@b.example,x\n", "x".repeat(LINE * 3)));
        assert!(long[0].as_ref().unwrap_err().contains("line 2: is longer than 4096 octets"), "{long:?}");
        assert!(long[1].is_ok() && long.len() == 2);
    }

    #[test]
    fn json_that_is_not_one_object_a_line_is_told_how_to_make_it_so() {
        let read = read(Form::Jsonl, "{\n  \"SuppressedDestinationSummaries\": [\n");
        assert!(read[0].as_ref().unwrap_err().contains("jq -c"), "{read:?}");
    }

    #[test]
    fn long_lines_are_cut_and_the_next_one_is_whole() {
        let text = format!("short\n{}\nlast", "x".repeat(100));
        let mut from = io::BufReader::with_capacity(7, text.as_bytes());
        let mut next = || {
            let (line, octets) = bounded_line(&mut from, 10).unwrap();
            (line.map(|line| String::from_utf8(line).unwrap()), octets)
        };
        assert_eq!(next(), (Some("short".into()), 6));
        assert_eq!(next(), (Some("xxxxxxxxxx".into()), 101));
        assert_eq!(next(), (Some("last".into()), 4));
        assert_eq!(next(), (None, 0));
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
