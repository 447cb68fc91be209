//! The log on its way out: journal lines and other crates' warnings, one line each.
//!
//! The journal's events have the target `bulkhead` and one field, `line`: JSON members without their
//! braces. In [`Format::Json`] they get `ts` and `level` in front and leave as one object a line;
//! in [`Format::Text`] as `12:03:04.512 INFO  message_relayed tenant=acme …` for people, with
//! colours on a terminal only. Events of other crates become `"event":"library"` with `target` and
//! `text`.
//!
//! Promises: one event is one line and one write, whatever text it carries: control characters, line
//! separators and characters that turn the writing direction are escaped in both formats, so nothing
//! a peer says can forge a line or drive a terminal. No line is longer than [`LINE`] octets.
//! What can go wrong: the reader of the log is gone or its disk is full. Then lines are lost and
//! nothing else: a write that fails is not tried again and never ends the process. A reader that
//! stops reading without closing holds the writers back once its pipe is full.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::time::{Clock, Timestamp};

/// Longest text of another crate's event, in characters.
pub const TEXT: usize = 2000;
/// Longest line in octets; the journal's own bounds stay well below it.
pub const LINE: usize = 256 * 1024;

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// One readable line, for people.
    Text,
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is neither a level nor a list of directives.
    #[error(
        "log.level {0:?} is neither error, warn, info, debug or trace nor a list such as \"warn,bulkhead=info\": {1}"
    )]
    Level(String, String),
    /// There is a subscriber already.
    #[error("the log is set up already")]
    Twice,
}

/// Where lines go.
pub struct Output {
    sink: Box<dyn Write + Send>,
    colours: bool,
}

/// The layer that prints.
pub struct Lines {
    format: Format,
    clock: Arc<dyn Clock>,
    colours: bool,
    sink: Mutex<Box<dyn Write + Send>>,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("{other:?} is neither json nor text")),
        }
    }
}

impl Output {
    /// The process's standard output, unbuffered; colours if it is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        let out = io::stdout();
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // A copy of the descriptor, since the standard handle looks for line ends in what is one line anyway.
        let sink: Box<dyn Write + Send> = match out.as_fd().try_clone_to_owned() {
            Ok(descriptor) => Box::new(std::fs::File::from(descriptor)),
            Err(_) => Box::new(out),
        };
        Self { sink, colours }
    }

    /// Anything else: a file, a buffer. Without colours.
    pub fn to(sink: impl Write + Send + 'static) -> Self {
        Self { sink: Box::new(sink), colours: false }
    }
}

impl Lines {
    /// A layer that prints in `format` to `output` with the time of `clock`.
    pub fn new(format: Format, output: Output, clock: Arc<dyn Clock>) -> Self {
        Self { format, clock, colours: output.colours && format == Format::Text, sink: Mutex::new(output.sink) }
    }

    fn print(&self, line: &str) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is left to be told of a log that cannot be written.
        let _ = sink.write_all(line.as_bytes());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let mut found = Found::default();
        event.record(&mut found);
        let members = match found.line {
            Some(line) if meta.target() == "bulkhead" => line,
            Some(_) | None => library(meta.target(), &found.text),
        };
        let now = self.clock.now();
        self.print(&match self.format {
            Format::Json => json_line(now, *meta.level(), &members),
            Format::Text => text_line(now, *meta.level(), &members, self.colours),
        });
    }
}

/// Sets the process's log up: `level` is one level (`info`), which other crates get from `warn` on,
/// or a list of directives (`warn,bulkhead=info,sled=debug`).
pub fn install(format: Format, level: &str, output: Output, clock: Arc<dyn Clock>) -> Result<(), LogError> {
    let filter = filter(level)?;
    Registry::default().with(filter).with(Lines::new(format, output, clock)).try_init().map_err(|_| LogError::Twice)
}

/// Reads `log.level`.
pub fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let level = level.trim();
    let directives = match Level::from_str(level) {
        // More from other crates only for who asks for debug and below.
        Ok(one) if one <= Level::INFO => format!("{},bulkhead={one}", one.min(Level::WARN)),
        Ok(one) => one.to_string(),
        Err(_) => level.to_owned(),
    };
    let fault = |words: String| LogError::Level(level.to_owned(), words);
    if directives.is_empty() || level.parse::<u8>().is_ok() {
        return Err(fault("no level".into()));
    }
    // EnvFilter takes any bare word for a target: `inof` would silence everything without a word.
    if let Some(word) =
        directives.split(',').find(|part| !part.contains('=') && LevelFilter::from_str(part.trim()).is_err())
    {
        return Err(fault(format!("{word:?} is no level")));
    }
    EnvFilter::builder().parse(&directives).map_err(|error| fault(error.to_string()))
}

/// What an event carries.
#[derive(Default)]
struct Found {
    line: Option<String>,
    text: String,
}

impl Found {
    fn add(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        if self.text.len() > TEXT * 4 {
            return;
        }
        let space = if self.text.is_empty() { "" } else { " " };
        let _ = match name {
            "message" => write!(self.text, "{space}{value}"),
            other => write!(self.text, "{space}{other}={value}"),
        };
    }
}

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "line" => self.line = Some(value.to_owned()),
            other => self.add(other, format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field.name(), format_args!("{value:?}"));
    }
}

fn library(target: &str, text: &str) -> String {
    let text: String = text.chars().take(TEXT).collect();
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    format!("\"event\":\"library\",\"target\":{},\"text\":{}", quoted(target), quoted(&text))
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json_line(now: Timestamp, level: Level, members: &str) -> String {
    let mut line = String::with_capacity(members.len() + 64);
    let _ = write!(line, "{{\"ts\":\"{}\",\"level\":\"{}\",", now.rfc3339(), level_word(level));
    escape_into(&mut line, members);
    line.push_str("}\n");
    if line.len() <= LINE {
        return line;
    }
    json_line(now, level, &library("bulkhead", "a line over the longest length was left out"))
}

/// Characters that end a line, drive a terminal or turn the writing direction. JSON's own escapes
/// stop at U+001F; outside of JSON strings none of these occur, so `\u` is right wherever one stands.
fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_into(line: &mut String, text: &str) {
    let mut from = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_hostile(*c)) {
        line.push_str(text.get(from..at).unwrap_or_default());
        let _ = write!(line, "\\u{:04x}", u32::from(c));
        from = at + c.len_utf8();
    }
    line.push_str(text.get(from..).unwrap_or_default());
}

fn text_line(now: Timestamp, level: Level, members: &str, colours: bool) -> String {
    let stamp = now.rfc3339();
    let time = stamp.get(11..23).unwrap_or(&stamp);
    let word = match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN ",
        Level::INFO => "INFO ",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    };
    let (dim, bold, colour, plain) = match (colours, level) {
        (false, _) => ("", "", "", ""),
        (true, Level::ERROR) => ("\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[2m", "\x1b[1m", "\x1b[33m", "\x1b[0m"),
        (true, Level::INFO | Level::DEBUG | Level::TRACE) => ("\x1b[2m", "\x1b[1m", "\x1b[32m", "\x1b[0m"),
    };
    let mut line = format!("{dim}{time}{plain} {colour}{word}{plain}");
    match serde_json::from_str::<Members>(&format!("{{{members}}}")) {
        Ok(Members(pairs)) => {
            for (name, value) in pairs {
                let value = bare(&value);
                let _ = match name.as_str() {
                    "event" => write!(line, " {bold}{value}{plain}"),
                    other => write!(line, " {dim}{other}={plain}{value}"),
                };
            }
        }
        Err(_) => {
            line.push(' ');
            escape_into(&mut line, members);
        }
    }
    line.push('\n');
    line
}

/// A value as people read it: quoted where a space, a quote or an escape would mislead.
fn bare(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(plain_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let is_plain =
        !text.is_empty() && !text.chars().any(|c| c == ' ' || c == '"' || c == '=' || c == '\\' || is_hostile(c));
    if is_plain {
        return text;
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    escape_into(&mut quoted, &serde_json::to_string(&text).unwrap_or_default());
    quoted
}

fn plain_text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// JSON members in the order they were written, which a map of serde_json would lose.
struct Members(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Members(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    struct Noon;
    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::parse_rfc3339("2026-05-01T12:03:04.512Z").unwrap()
        }
        fn instant(&self) -> Instant {
            Instant::now()
        }
    }

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<Vec<u8>>>>);
    impl Write for Page {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(octets.to_vec());
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Page {
        fn writes(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().map(|octets| String::from_utf8(octets.clone()).unwrap()).collect()
        }
    }

    fn told(format: Format, level: &str, tell: impl FnOnce()) -> Vec<String> {
        let page = Page::default();
        let subscriber = Registry::default().with(filter(level).unwrap()).with(Lines::new(
            format,
            Output::to(page.clone()),
            Arc::new(Noon),
        ));
        tracing::subscriber::with_default(subscriber, tell);
        page.writes()
    }

    const HOSTILE: &str = "a\r\nb\u{1b}[31m\u{9b}2J\u{7f}\u{2028}\u{202e}\"=\\ ü";

    #[test]
    fn a_journal_line_is_one_object_and_one_write() {
        let lines = told(Format::Json, "info", || crate::journal::changed("cli:root", "tenant pause", None, HOSTILE));
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert!(line.starts_with(r#"{"ts":"2026-05-01T12:03:04.512Z","level":"info","event":"changed""#), "{line}");
        assert!(line.ends_with("}\n"));
        assert!(!line.trim_end_matches('\n').chars().any(is_hostile), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["reason"], HOSTILE, "the text is all there, escaped");
    }

    #[test]
    fn text_lines_are_readable_and_just_as_safe() {
        let lines = told(Format::Text, "info", || crate::journal::changed("cli:root", "tenant pause", None, HOSTILE));
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with(r#"12:03:04.512 INFO  changed actor=cli:root command="tenant pause" reason=""#),
            "{}",
            lines[0]
        );
        assert!(!lines[0].trim_end_matches('\n').chars().any(is_hostile), "{:?}", lines[0]);
    }

    #[test]
    fn a_hostile_value_cannot_pass_for_a_field_of_its_own() {
        let line =
            text_line(Noon.now(), Level::INFO, r#""event":"x","reason":"y tenant=other","list":["a b","c"]"#, false);
        assert_eq!(line, "12:03:04.512 INFO  x reason=\"y tenant=other\" list=\"a b,c\"\n");
    }

    #[test]
    fn colours_only_where_they_were_asked_for() {
        let members = r#""event":"changed","actor":"cli:root""#;
        assert!(!text_line(Noon.now(), Level::WARN, members, false).contains('\x1b'));
        assert!(text_line(Noon.now(), Level::WARN, members, true).contains("\x1b[33m"));
    }

    #[test]
    fn other_crates_are_heard_from_warn_on() {
        let tell = || {
            tracing::info!(target: "sled", "flushed");
            tracing::warn!(target: "sled", segment = 4, "slow\nflush");
            tracing::error!(target: "aws", line = "not the journal's");
            crate::journal::topic_validated();
        };
        let lines = told(Format::Json, "info", tell);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"ts": "2026-05-01T12:03:04.512Z", "level": "warn", "event": "library", "target": "sled", "text": "slow\nflush segment=4"})
        );
        assert!(lines[1].contains(r#""event":"library""#), "only the journal's target may shape a line");
        assert!(lines[2].contains("topic_validated"));
        assert_eq!(told(Format::Json, "debug", tell).len(), 4);
        assert_eq!(told(Format::Json, "error", tell).len(), 1);
        assert_eq!(told(Format::Json, "off,sled=info", tell).len(), 2);
    }

    #[test]
    fn a_level_that_is_none_is_an_error() {
        for text in ["", "inof", "7", "warn,bulkhead=lots", "info;debug"] {
            assert!(filter(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
        struct Broken(Arc<Mutex<usize>>);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                *self.0.lock().unwrap() += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let tries = Arc::new(Mutex::new(0));
        let lines = Lines::new(Format::Json, Output::to(Broken(tries.clone())), Arc::new(Noon));
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            crate::journal::topic_validated();
            crate::journal::topic_validated();
        });
        assert_eq!(*tries.lock().unwrap(), 2, "one try a line");
    }
}
