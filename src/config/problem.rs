//! What is wrong with a file or a variable, and what is worth knowing about one that is right.
//!
//! Promises: a [`Problem`] says where (file and line, or the variable's name), which key, what is
//! wrong and what to do about it; it never shows a secret or a hash of one. A [`Note`] hinders
//! nothing.

use std::fmt;

use serde::Serialize;

/// A fault that keeps the settings or the tenants file from being used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Problem {
    /// The file, or the name of the environment variable.
    pub file: String,
    /// The line, from 1; `None` where it is the whole file or a variable.
    pub line: Option<usize>,
    /// `limits.recipients`, `tenant.acme.stream.news.kind`; empty where it is no key's fault.
    pub key: String,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// Something to know about settings or tenants that are usable as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Note {
    /// The file, or the name of the environment variable.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The key.
    pub key: String,
    /// What there is to know.
    pub what: String,
}

/// Where something was typed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// The file, or the name of the environment variable.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
}

/// What is wrong with a value, before anybody says which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// As [`Problem::what`].
    pub what: String,
    /// As [`Problem::cure`].
    pub cure: String,
}

impl Fault {
    /// Both texts.
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into() }
    }
}

impl Place {
    /// A problem with `key`, which was typed here.
    pub fn problem(self, key: impl Into<String>, fault: Fault) -> Problem {
        Problem { file: self.file, line: self.line, key: key.into(), what: fault.what, cure: fault.cure }
    }

    /// A note about `key`, which was typed here.
    pub fn note(self, key: impl Into<String>, what: impl Into<String>) -> Note {
        Note { file: self.file, line: self.line, key: key.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(f, &self.file, self.line, &self.key)?;
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(f, &self.file, self.line, &self.key)?;
        f.write_str(&self.what)
    }
}

/// `line 12`, or the name of the variable: for a second mention of something.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}"),
            None => f.write_str(&self.file),
        }
    }
}

fn head(f: &mut fmt::Formatter<'_>, file: &str, line: Option<usize>, key: &str) -> fmt::Result {
    f.write_str(file)?;
    if let Some(line) = line {
        write!(f, ":{line}")?;
    }
    f.write_str(": ")?;
    if !key.is_empty() {
        write!(f, "{key}: ")?;
    }
    Ok(())
}
