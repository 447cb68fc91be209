//! What was typed: a TOML document and the variables over it, read key by key.
//!
//! Promises: reading goes on past a fault, so that all of them are told at once; each has its file
//! and line, or its variable. A key is known once it has been asked for, and whatever nobody asked
//! for is a problem with a suggestion. A variable `BULKHEAD_SECTION__KEY` rules over the file's
//! `section.key`.
//!
//! Refuses: TOML faults end the reading there, since what follows one is guesswork; files over
//! [`FILE_BYTES`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::given::{Given, kind};
use super::problem::{Fault, Place, Problem};
use super::setting::{Entry, PREFIX};
use super::unknown::{Unknown, is_service_link, unknown_key, unknown_variable};

/// Largest file that is read.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Variables that begin with `BULKHEAD_` and are no settings: the command line reads them.
pub const OTHER_VARIABLES: [&str; 1] = ["BULKHEAD_CONFIG"];

/// A parsed file, the variables over it, and what reading it has found so far.
pub struct Document<'s> {
    file: String,
    text: &'s str,
    root: DeTable<'s>,
    variables: BTreeMap<String, Variable<'s>>,
    found: RefCell<Found>,
}

/// What a reading without problems leaves behind.
pub struct Reading {
    /// Every declared setting, in the order of reading.
    pub entries: Vec<Entry>,
    /// Where each key was typed.
    pub places: BTreeMap<String, Place>,
}

/// One section that is being read.
pub struct Section<'d> {
    document: &'d Document<'d>,
    table: Option<&'d DeTable<'d>>,
    /// `limits`, `listener.0`, `tenant.acme`; empty for the top.
    path: String,
    /// The same in the catalogue: `listener`.
    chapter: &'static str,
    place: Place,
    known: BTreeSet<&'static str>,
}

struct Variable<'s> {
    name: &'s str,
    raw: &'s str,
    value: DeValue<'s>,
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    entries: Vec<Entry>,
    places: BTreeMap<String, Place>,
    used: BTreeSet<String>,
    unknown: Vec<Unknown>,
}

/// The text of a file.
pub fn text_of(path: &Path) -> Result<String, Vec<Problem>> {
    let place = || Place { file: path.display().to_string(), line: None };
    let whole = |what: String, cure: &str| vec![place().problem("", Fault::new(what, cure))];
    let unread = |error: std::io::Error| {
        whole(format!("cannot be read: {error}"), "give the path of a readable file, relative to the working directory")
    };
    let size = std::fs::metadata(path).map_err(unread)?.len();
    if size > FILE_BYTES {
        return Err(whole(format!("is {size} bytes long"), "give a file of at most 16 MiB"));
    }
    let octets = std::fs::read(path).map_err(unread)?;
    String::from_utf8(octets).map_err(|_| whole("is not UTF-8 text".into(), "save it as UTF-8"))
}

impl<'s> Document<'s> {
    /// Parses the text of a file.
    pub fn parse(file: &str, text: &'s str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| {
                let line = error.span().map(|span| line_of(text, span.start));
                let what = format!("is not TOML: {}", error.message().replace('\n', ", "));
                Place { file: file.into(), line }.problem("", Fault::new(what, "correct the line"))
            })
            .collect();
        problems.sort();
        problems.dedup();
        if !problems.is_empty() {
            return Err(problems);
        }
        let root = root.into_inner();
        Ok(Self { file: file.into(), text, root, variables: BTreeMap::new(), found: RefCell::default() })
    }

    /// A file of nothing: defaults and variables alone.
    pub fn empty() -> Self {
        Self {
            file: "defaults".into(),
            text: "",
            root: DeTable::new(),
            variables: BTreeMap::new(),
            found: RefCell::default(),
        }
    }

    /// Lays the variables named `BULKHEAD_…` over the file.
    pub fn with_variables(mut self, variables: &'s [(String, String)]) -> Self {
        for (name, raw) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if OTHER_VARIABLES.contains(&name.as_str()) || is_service_link(rest, raw) {
                continue;
            }
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let value = DeValue::parse(raw).map_or_else(|_| DeValue::String(raw.into()), |value| value.into_inner());
            self.variables.insert(key, Variable { name, raw, value });
        }
        self
    }

    /// The top of the document.
    pub fn top(&self) -> Section<'_> {
        let place = Place { file: self.file.clone(), line: None };
        Section {
            document: self,
            table: Some(&self.root),
            path: String::new(),
            chapter: "",
            place,
            known: BTreeSet::new(),
        }
    }

    /// Where the first of `keys` that was typed stands; the file alone if none was.
    pub fn place(&self, keys: &[&str]) -> Place {
        let found = self.found.borrow();
        let typed = keys.iter().find_map(|key| found.places.get(*key).cloned());
        typed.unwrap_or_else(|| Place { file: self.file.clone(), line: None })
    }

    /// Whether a fault of any of `keys` has been told.
    pub fn has_faults(&self, keys: &[&str]) -> bool {
        self.found.borrow().problems.iter().any(|problem| keys.contains(&problem.key.as_str()))
    }

    /// Tells a problem.
    pub fn report(&self, problem: Problem) {
        self.found.borrow_mut().problems.push(problem);
    }

    /// Ends the reading: every problem, in the order of the lines, what nobody asked for among them;
    /// if there is none, the places of all keys.
    pub fn end(self) -> Result<Reading, Vec<Problem>> {
        let Found { mut problems, entries, places, used, unknown } = self.found.into_inner();
        for stray in unknown {
            problems.push(unknown_key(stray, &entries));
        }
        for (key, variable) in &self.variables {
            if !used.contains(key) {
                problems.push(unknown_variable(variable.name, &entries));
            }
        }
        problems.sort_by(|a, b| {
            (a.line.is_none(), a.line, &a.file, &a.key).cmp(&(b.line.is_none(), b.line, &b.file, &b.key))
        });
        problems.dedup();
        if problems.is_empty() { Ok(Reading { entries, places }) } else { Err(problems) }
    }

    fn at(&self, offset: usize) -> Place {
        Place { file: self.file.clone(), line: Some(line_of(self.text, offset)) }
    }

    /// Whether a variable lies under `path`.
    fn has_variable_under(&self, path: &str) -> bool {
        let under = |key: &String| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.variables.keys().any(under)
    }
}

/// Reading, whatever the document.
impl<'d> Section<'d> {
    /// The full name of one of its keys.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// Where the section begins.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Calls an entry of a list of sections by its own name, which is its `key`, from here on.
    pub fn name(&mut self, key: &'static str, name: &str) {
        if let Some((list, _)) = self.path.rsplit_once('.') {
            self.path = format!("{list}.{name}");
        }
        // Found anew under the new path, so that later faults have its line.
        let _ = self.given(key);
    }

    /// Where one of its keys was typed; where the section begins if it was not.
    pub fn place_of(&self, key: &str) -> Place {
        let full = self.key(key);
        let typed = self.document.found.borrow().places.get(&full).cloned();
        typed.unwrap_or_else(|| self.place())
    }

    /// Whether a fault of one of its keys has been told.
    pub fn has_faults(&self, key: &str) -> bool {
        self.document.has_faults(&[&self.key(key)])
    }

    /// Tells a fault of one of its keys, at the key's line if it was typed, else at the section's.
    pub fn fault(&self, key: &str, fault: Fault) {
        self.document.report(self.place_of(key).problem(self.key(key), fault));
    }

    /// What was typed for `key`, which is a known one from here on.
    pub fn given(&mut self, key: &'static str) -> Option<Given<'d>> {
        self.known.insert(key);
        let full = self.key(key);
        let given = if let Some(variable) = self.document.variables.get(&full) {
            let place = Place { file: variable.name.into(), line: None };
            self.document.found.borrow_mut().used.insert(full.clone());
            Given { value: &variable.value, raw: Some(variable.raw), place }
        } else {
            let (name, value) = self.table?.get_key_value(key)?;
            Given { value: value.get_ref(), raw: None, place: self.document.at(name.span().start) }
        };
        self.document.found.borrow_mut().places.insert(full, given.place.clone());
        Some(given)
    }

    /// Reads `key` if it was typed; `None` if not, or if it is wrong, which is told.
    pub fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&Given<'d>) -> Result<T, Fault>) -> Option<T> {
        let given = self.given(key)?;
        match read(&given) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.document.report(given.place.clone().problem(self.key(key), fault));
                None
            }
        }
    }

    /// As [`Self::read`], and its absence is told with `cure`.
    pub fn needed<T>(
        &mut self,
        key: &'static str,
        cure: &str,
        read: impl FnOnce(&Given<'d>) -> Result<T, Fault>,
    ) -> Option<T> {
        let present = self.given(key).is_some();
        if !present {
            self.fault(key, Fault::new("is missing", cure));
        }
        self.read(key, read)
    }

    /// Reads a list, each item with its line; a fault of one item leaves the others.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        each: impl Fn(&Given<'d>) -> Result<T, Fault>,
    ) -> Option<Vec<(Place, T)>> {
        let given = self.given(key)?;
        let DeValue::Array(items) = given.value else {
            let fault = given.wrong("a list", &format!("write {key} = [\"…\"]"));
            self.document.report(given.place.clone().problem(self.key(key), fault));
            return None;
        };
        let mut read = Vec::new();
        for item in items.iter() {
            let place = if given.raw.is_some() { given.place.clone() } else { self.document.at(item.span().start) };
            match each(&Given { value: item.get_ref(), raw: None, place: place.clone() }) {
                Ok(value) => read.push((place, value)),
                Err(fault) => self.document.report(place.problem(self.key(key), fault)),
            }
        }
        Some(read)
    }

    /// A section within this one, if it was typed.
    pub fn table(&mut self, key: &'static str) -> Option<Section<'d>> {
        let given = self.given(key)?;
        match given.value {
            DeValue::Table(table) => Some(self.within(self.key(key), key, Some(table), given.place)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let fault = given.wrong("a section", &format!("write [{}] with its settings below", self.key(key)));
                self.document.report(given.place.clone().problem(self.key(key), fault));
                None
            }
        }
    }

    /// A list of sections within this one, named by their numbers from 0.
    pub fn tables(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(given) = self.given(key) else { return Vec::new() };
        let full = self.key(key);
        let mut sections = Vec::new();
        if let DeValue::Array(items) = given.value {
            for (number, item) in items.iter().enumerate() {
                let place = self.document.at(item.span().start);
                let path = format!("{full}.{number}");
                match item.get_ref() {
                    DeValue::Table(table) => sections.push(self.within(path, key, Some(table), place)),
                    DeValue::String(_)
                    | DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_) => {
                        self.document.report(place.problem(path, list_of_sections(item.get_ref(), key)));
                    }
                }
            }
        } else {
            self.document.report(given.place.clone().problem(full, list_of_sections(given.value, key)));
        }
        sections
    }

    /// A section of a list that only variables speak of, if they do.
    pub fn unwritten(&self, key: &'static str, number: usize) -> Option<Section<'d>> {
        let path = self.key(&format!("{key}.{number}"));
        self.document.has_variable_under(&path).then(|| self.absent(key, number))
    }

    /// A section of a list that is not in the file.
    pub fn absent(&self, key: &'static str, number: usize) -> Section<'d> {
        self.within(self.key(&format!("{key}.{number}")), key, None, self.place())
    }

    /// Ends the section: keys nobody asked for are told.
    pub fn end(self) {
        let Some(table) = self.table else { return };
        for name in table.keys() {
            if !self.known.contains(name.get_ref().as_ref()) {
                self.document.found.borrow_mut().unknown.push(Unknown {
                    path: self.path.clone(),
                    chapter: self.chapter,
                    key: name.get_ref().to_string(),
                    place: self.document.at(name.span().start),
                    siblings: self.known.clone(),
                });
            }
        }
    }

    /// Adds to the catalogue, once.
    pub fn catalogue(&self, entry: Entry) {
        let entries = &mut self.document.found.borrow_mut().entries;
        if !entries.iter().any(|other| other.chapter == entry.chapter && other.key == entry.key) {
            entries.push(entry);
        }
    }

    /// Its name in the catalogue.
    pub fn chapter(&self) -> &'static str {
        self.chapter
    }

    /// A section of that name within this one that is not in the file.
    pub fn untyped(&self, key: &'static str) -> Section<'d> {
        self.within(self.key(key), key, None, self.place())
    }

    fn within(&self, path: String, chapter: &'static str, table: Option<&'d DeTable<'d>>, place: Place) -> Section<'d> {
        Section { document: self.document, table, path, chapter, place, known: BTreeSet::new() }
    }
}

fn list_of_sections(value: &DeValue<'_>, key: &str) -> Fault {
    Fault::new(format!("is {}, not a list of sections", kind(value)), format!("write [[{key}]] with two brackets"))
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
