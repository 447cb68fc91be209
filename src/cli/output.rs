//! What commands print: tables for people, JSON for programs.
//!
//! Promises: what a table shows cannot drive the terminal; a reader that has gone (`| head`) ends
//! the printing and nothing else. Answers go to standard output, remarks to standard error.

use std::io::{self, Write};

use serde::Serialize;

/// Where answers go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// `--json`.
    pub(super) json: bool,
}

impl Out {
    /// A value as JSON, indented.
    pub(super) fn json<T: Serialize>(self, value: &T) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        put(&text);
        Ok(())
    }

    /// One line of an answer, as it is.
    pub(super) fn line(self, text: impl AsRef<str>) {
        put(&format!("{}\n", safe_lines(text.as_ref())));
    }

    /// A remark, on standard error.
    pub(super) fn note(self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr().lock(), "{}", safe_lines(text.as_ref()));
    }

    /// Rows under a header, in columns as wide as they need to be.
    pub(super) fn table(self, header: &[&str], rows: &[Vec<String>]) {
        put(&table(header, rows));
    }

    /// Names and values in two columns; those without a value are left out.
    pub(super) fn pairs(self, pairs: &[(&str, String)]) {
        let widest = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            put(&format!("{name:widest$}  {}\n", safe(value)));
        }
    }
}

/// Writes to standard output; a reader that has gone is none of our business.
pub(super) fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Rows under a header as text.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| safe(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `-` for nothing.
pub(super) fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".into() } else { text }
}

/// Without control characters, which could drive a terminal.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same, with line ends kept.
fn safe_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_harmless() {
        let rows = vec![vec!["acme".into(), "ünïcode".into()], vec!["a-much-longer-name".into(), "\u{1b}[2J".into()]];
        assert_eq!(
            table(&["TENANT", "WHAT"], &rows),
            "TENANT              WHAT\nacme                ünïcode\na-much-longer-name  \u{fffd}[2J\n"
        );
    }
}
