//! Declared settings: default, bounds and sentence stand where a setting is read, and nowhere else.
//!
//! Reading leaves an [`Entry`] behind for each; `config/bulkhead.toml` is written from them. After a
//! fault the default stands in, so that reading goes on.

use std::fmt::{Display, Write as _};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::file::Section;
use super::given::Given;
use super::problem::Fault;

/// What the variables that override settings begin with.
pub const PREFIX: &str = "BULKHEAD_";

/// A setting as its declaration has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The section: `limits`; empty for the top.
    pub chapter: &'static str,
    /// The key; empty for the section's own sentence.
    pub key: &'static str,
    /// Its default as TOML, or an example where it has none.
    pub value: Shown,
    /// What it does.
    pub sentence: &'static str,
    /// What it may be.
    pub bounds: Bounds,
}

/// A setting's value in the file of defaults.
#[derive(Clone, PartialEq, Debug)]
pub enum Shown {
    /// The default.
    Default(String),
    /// An example of a setting that is absent by default.
    Example(String),
}

/// What a setting may be.
#[derive(Clone, PartialEq, Debug)]
pub enum Bounds {
    /// What the sentence says.
    Told,
    /// A whole number in a range.
    Whole(RangeInclusive<u64>),
    /// A number above 0 and up to this one.
    AboveZero(u64),
    /// How many times something is: from 1 to this one.
    Times(u64),
    /// The same, or 0 for never.
    TimesOrZero(u64),
    /// One of a few words.
    Choice(Vec<&'static str>),
    /// `true` or `false`.
    Flag,
}

impl<'d> Section<'d> {
    /// A section of settings, which is there whether it was typed or not.
    pub fn section(&mut self, key: &'static str, sentence: &'static str) -> Section<'d> {
        let typed = self.table(key);
        let section = typed.unwrap_or_else(|| self.untyped(key));
        section.declare_section(sentence);
        section
    }

    /// What the section is for.
    pub fn declare_section(&self, sentence: &'static str) {
        self.declare("", Shown::Default(String::new()), sentence, Bounds::Told);
    }

    /// A whole number.
    pub fn whole(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>, about: &'static str) -> usize {
        self.declare(key, Shown::Default(default.to_string()), about, Bounds::Whole(range.clone()));
        let number = self.read(key, |given| given.whole(&range, default)).unwrap_or(default);
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    /// A whole number of seconds.
    pub fn seconds(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        about: &'static str,
    ) -> Duration {
        Duration::from_secs(self.whole(key, default, range, about) as u64)
    }

    /// A whole number of hours.
    pub fn hours(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        about: &'static str,
    ) -> Duration {
        Duration::from_hours(self.whole(key, default, range, about) as u64)
    }

    /// A number above 0 and up to `most`, with or without a fraction, that may be absent, and is by
    /// default.
    pub fn optional_above_zero(
        &mut self,
        key: &'static str,
        example: u64,
        most: u32,
        about: &'static str,
    ) -> Option<f64> {
        self.declare(key, Shown::Example(example.to_string()), about, Bounds::AboveZero(most.into()));
        let cure = format!("write a number above 0 and up to {most}, such as {example}");
        self.read(key, |given| given.above_zero(most.into(), &cure))
    }

    /// A rate: a number above 0 and up to 1.
    pub fn rate(&mut self, key: &'static str, default: f64, about: &'static str) -> f64 {
        self.declare(key, Shown::Default(default.to_string()), about, Bounds::AboveZero(1));
        let cure = format!("write a rate above 0 and up to 1, such as {default}: 5 % is 0.05");
        self.read(key, |given| given.above_zero(1.0, &cure)).unwrap_or(default)
    }

    /// How many times something is: from 1 to `most`, with or without a fraction; with `or_zero`, 0 too.
    pub fn times(&mut self, key: &'static str, default: f64, most: u32, or_zero: bool, about: &'static str) -> f64 {
        let bounds = if or_zero { Bounds::TimesOrZero(most.into()) } else { Bounds::Times(most.into()) };
        self.declare(key, Shown::Default(format!("{default:?}")), about, bounds);
        let zero = if or_zero { ", or 0" } else { "" };
        let cure = format!("write a number from 1 to {most}{zero}, such as {default:?}");
        self.read(key, |given| given.times(most.into(), or_zero, &cure)).unwrap_or(default)
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str, default: bool, about: &'static str) -> bool {
        self.declare(key, Shown::Default(default.to_string()), about, Bounds::Flag);
        self.read(key, Given::flag).unwrap_or(default)
    }

    /// Text with a default, which has to pass `check`; `None` after a fault.
    pub fn text<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        check: impl Fn(&str) -> Result<T, Fault>,
        about: &'static str,
    ) -> Option<T> {
        self.declare(key, Shown::Default(quoted(default)), about, Bounds::Told);
        match self.given(key) {
            Some(_) => self.read(key, |given| given.text().and_then(&check)),
            None => check(default).map_err(|fault| self.fault(key, fault)).ok(),
        }
    }

    /// As [`Self::text`]; without a default its absence is a problem.
    pub fn text_or_missing<T>(
        &mut self,
        key: &'static str,
        default: Option<&'static str>,
        example: &'static str,
        check: impl Fn(&str) -> Result<T, Fault>,
        about: &'static str,
    ) -> Option<T> {
        if let Some(default) = default {
            return self.text(key, default, check, about);
        }
        self.declare(key, Shown::Default(quoted(example)), about, Bounds::Told);
        self.needed(key, &format!("write {key} = {}", quoted(example)), |given| given.text().and_then(&check))
    }

    /// Text that may be absent, and is by default.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        example: &'static str,
        check: impl Fn(&str) -> Result<T, Fault>,
        about: &'static str,
    ) -> Option<T> {
        self.declare(key, Shown::Example(quoted(example)), about, Bounds::Told);
        self.read(key, |given| given.text().and_then(&check))
    }

    /// One of a few words.
    pub fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
        about: &'static str,
    ) -> T {
        let shown = words.iter().find(|(_, value)| *value == default).map_or("", |(word, _)| word);
        let bounds = Bounds::Choice(words.iter().map(|(word, _)| *word).collect());
        self.declare(key, Shown::Default(quoted(shown)), about, bounds);
        self.read(key, |given| given.choice(words)).unwrap_or(default)
    }

    /// A list of text, empty by default; items that fail `check` are told and left out.
    pub fn texts<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<T, Fault>,
        about: &'static str,
    ) -> Vec<T> {
        self.declare(key, Shown::Default("[]".into()), about, Bounds::Told);
        let items = self.list(key, |given| given.text().and_then(&check));
        items.unwrap_or_default().into_iter().map(|(_, item)| item).collect()
    }

    fn declare(&self, key: &'static str, value: Shown, sentence: &'static str, bounds: Bounds) {
        self.catalogue(Entry { chapter: self.chapter(), key, value, sentence, bounds });
    }
}

/// The variable that rules over `chapter.key`.
pub fn variable(chapter: &str, key: &str) -> String {
    let mut name = PREFIX.to_owned();
    if !chapter.is_empty() {
        let _ = write!(name, "{}__", chapter.replace('.', "__").to_ascii_uppercase());
    }
    name.push_str(&key.to_ascii_uppercase());
    name
}

/// Text as a TOML string.
pub fn quoted(text: &(impl Display + ?Sized)) -> String {
    toml::Value::String(text.to_string()).to_string()
}
