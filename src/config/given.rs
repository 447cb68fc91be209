//! One value as it was typed, and what it can be read as.
//!
//! A value is never bent into another type, except that a variable needs no quotes around text.
//! What goes wrong is a [`Fault`] that shows the value and the cure.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::problem::{Fault, Place};

/// A value as it was typed.
pub struct Given<'d> {
    /// The value itself.
    pub value: &'d DeValue<'d>,
    /// The text of the variable, where it is one.
    pub raw: Option<&'d str>,
    /// Where.
    pub place: Place,
}

impl Given<'_> {
    /// As text. A variable needs no quotes.
    pub fn text(&self) -> Result<&str, Fault> {
        match (self.value, self.raw) {
            (DeValue::String(text), _) => Ok(text),
            (_, Some(raw)) => Ok(raw),
            (_, None) => Err(self.wrong("text", "put it in double quotes")),
        }
    }

    /// As text or a TOML date, which is written without quotes.
    pub fn date(&self) -> Result<String, Fault> {
        match self.value {
            DeValue::Datetime(date) => Ok(date.to_string()),
            _ => self.text().map(str::to_owned),
        }
    }

    /// As a whole number within `range`.
    pub fn whole(&self, range: &RangeInclusive<u64>, example: u64) -> Result<u64, Fault> {
        let (least, most) = (range.start(), range.end());
        let cure = format!("write a whole number from {least} to {most}, such as {example}");
        let DeValue::Integer(number) = self.value else {
            return Err(self.wrong("a whole number", &cure));
        };
        let read = i128::from_str_radix(&number.as_str().replace('_', ""), number.radix());
        match read.ok().and_then(|number| u64::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ if number.as_str().starts_with('-') => Err(Fault::new(format!("is {number}, less than {least}"), cure)),
            Some(number) if number < *least => Err(Fault::new(format!("is {number}, less than {least}"), cure)),
            _ => Err(Fault::new(format!("is {number}, more than {most}"), cure)),
        }
    }

    /// As a finite number.
    pub fn number(&self, cure: &str) -> Result<f64, Fault> {
        let text = match self.value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return Err(self.wrong("a number", cure)),
        };
        let number = text.replace('_', "").parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| Fault::new(format!("is {text}, no finite number"), cure))
    }

    /// As a number above 0 and up to `most`, with or without a fraction.
    pub fn above_zero(&self, most: f64, cure: &str) -> Result<f64, Fault> {
        let number = self.number(cure)?;
        if number > 0.0 && number <= most { Ok(number) } else { Err(Fault::new(format!("is {number}"), cure)) }
    }

    /// As a number from 1 to `most`, with or without a fraction, or as 0 where that may be.
    pub fn times(&self, most: f64, or_zero: bool, cure: &str) -> Result<f64, Fault> {
        let number = self.number(cure)?;
        let fits = (1.0..=most).contains(&number) || or_zero && number == 0.0;
        if fits { Ok(number) } else { Err(Fault::new(format!("is {number}"), cure)) }
    }

    /// As yes or no.
    pub fn flag(&self) -> Result<bool, Fault> {
        match self.value {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => Err(self.wrong("true or false", "write true or false, without quotes")),
        }
    }

    /// As one of a few words.
    pub fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T, Fault> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let cure = match nearest(text, all.iter().copied()) {
            Some(word) => format!("did you mean {word:?}? It is one of {}", all.join(", ")),
            None => format!("write one of {}", all.join(", ")),
        };
        Err(Fault::new(format!("is {}, which is not a choice here", shown(text)), cure))
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// That it is not what was `expected`.
    pub fn wrong(&self, expected: &str, cure: &str) -> Fault {
        Fault::new(format!("is {}, not {expected}", kind(self.value)), cure)
    }
}

/// `text` in double quotes, cut to a readable length.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let cut: String = text.chars().take(LONGEST).collect();
    format!("{cut:?}…")
}

/// The likeliest of `words`, if any is likely at all.
pub fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const LIKELY: f64 = 0.85;
    let text = text.to_lowercase();
    words
        .map(|word| (strsim::jaro_winkler(&text, word), word))
        .filter(|(likeness, _)| *likeness >= LIKELY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// What a value is, in words; text is shown, since no secret stands where text is wrong.
pub fn kind(value: &DeValue<'_>) -> String {
    let words = match value {
        DeValue::String(text) => return format!("the text {}", shown(text)),
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    words.into()
}
