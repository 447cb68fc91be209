//! `config/bulkhead.toml`, written from the catalogue that reading the settings leaves behind.

use std::fmt::Write as _;

use super::file::Document;
use super::setting::{Bounds, Entry, Shown, quoted};
use super::{Listener, Tls};

const WIDTH: usize = 100;

const HEAD: &str = "\
# The settings of Bulkhead, each at its default. Leave out what you do not change.
#
# A setting that is commented out is absent by default; its value here is an example.
# Any setting can be overridden by a variable: BULKHEAD_HOSTNAME, BULKHEAD_LIMITS__RECIPIENTS,
# BULKHEAD_LISTENER__0__ADDRESS (listeners are numbered from 0; the number after the last adds one).
# Variables hold TOML values; text needs no quotes. Relative paths start at the working directory.
# `bulkhead check` tells what is wrong, with line and cure, and binds nothing.
";

/// The file of every setting at its default, each with its sentence and bounds.
pub fn default_file() -> String {
    let mut text = HEAD.to_owned();
    let mut chapter = "";
    for entry in catalogue() {
        if entry.chapter != chapter {
            if chapter == "listener" {
                text.push_str(&second_listener());
            }
            chapter = entry.chapter;
        }
        if entry.key.is_empty() {
            let heading = if chapter == "listener" { format!("[[{chapter}]]") } else { format!("[{chapter}]") };
            text.push('\n');
            comment(&mut text, entry.sentence);
            let _ = writeln!(text, "{heading}");
        } else {
            setting(&mut text, &entry);
        }
    }
    text
}

/// Every setting there is, in the order of the file.
pub(super) fn catalogue() -> Vec<Entry> {
    super::read(Document::empty()).map(|(_, entries)| entries).unwrap_or_default()
}

fn setting(text: &mut String, entry: &Entry) {
    let told = match &entry.bounds {
        Bounds::Told => entry.sentence.to_owned(),
        Bounds::Whole(range) => format!("{} From {} to {}.", entry.sentence, range.start(), range.end()),
        Bounds::AboveZero(most) => format!("{} Above 0, up to {most}.", entry.sentence),
        Bounds::Times(most) => format!("{} From 1 to {most}.", entry.sentence),
        Bounds::TimesOrZero(most) => format!("{} From 1 to {most}, or 0.", entry.sentence),
        Bounds::Choice(words) => {
            let words: Vec<String> = words.iter().map(quoted).collect();
            format!("{} One of {}.", entry.sentence, words.join(", "))
        }
        Bounds::Flag => entry.sentence.to_owned(),
    };
    text.push('\n');
    comment(text, &told);
    let _ = match &entry.value {
        Shown::Default(value) => writeln!(text, "{} = {value}", entry.key),
        Shown::Example(value) => writeln!(text, "# {} = {value}", entry.key),
    };
}

/// The default listeners after the first.
fn second_listener() -> String {
    let mut text = String::new();
    for (address, tls) in Listener::DEFAULTS.into_iter().skip(1) {
        let tls = match tls {
            Tls::Starttls => "starttls",
            Tls::Implicit => "implicit",
            Tls::None => "none",
        };
        let _ = write!(text, "\n[[listener]]\naddress = {}\ntls = {}\n", quoted(address), quoted(tls));
    }
    text
}

fn comment(text: &mut String, sentence: &str) {
    let mut line = String::from("#");
    for word in sentence.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            line.truncate(1);
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::setting::variable;
    use super::super::{Problem, Settings, load};
    use super::*;

    fn with(name: &str, value: &str) -> Result<Settings, Vec<Problem>> {
        load(None::<&Path>, [(name.to_owned(), value.to_owned())].into_iter())
    }

    /// The variable of a setting, and another value than its default that fits the other defaults.
    fn another(entry: &Entry) -> (String, String) {
        let chapter = if entry.chapter == "listener" { "listener.0" } else { entry.chapter };
        let value = match (&entry.bounds, &entry.value, entry.key) {
            (Bounds::Whole(range), Shown::Default(default), _) => {
                let default: u64 = default.parse().unwrap();
                if default < *range.end() { default + 1 } else { default - 1 }.to_string()
            }
            (Bounds::Times(_) | Bounds::TimesOrZero(_), Shown::Default(default), _) => {
                (default.parse::<f64>().unwrap() + 0.5).to_string()
            }
            (Bounds::Flag, Shown::Default(default), _) => (default != "true").to_string(),
            (Bounds::Choice(words), Shown::Default(default), _) => {
                (*words.iter().find(|word| quoted(*word) != *default).unwrap()).to_owned()
            }
            (Bounds::Told | Bounds::AboveZero(_), Shown::Example(example), _) => example.clone(),
            // A warning is not above its pause.
            (Bounds::AboveZero(_), Shown::Default(default), _) => (default.parse::<f64>().unwrap() * 0.9).to_string(),
            (Bounds::Told, _, "address") => "[::1]:4000".into(),
            (Bounds::Told, _, "trusted_proxies") => "[\"10.0.0.0/8\"]".into(),
            (Bounds::Told, _, "level") => "warn,bulkhead=debug".into(),
            (_, _, _) => "another-one".into(),
        };
        (variable(chapter, entry.key), value)
    }

    #[test]
    fn every_setting_can_be_set_and_has_its_own_effect() {
        let defaults = load(None, std::iter::empty()).unwrap();
        let mut outcomes = vec![defaults];
        for entry in catalogue().iter().filter(|entry| !entry.key.is_empty()) {
            let (name, value) = another(entry);
            // What a setting cannot be without.
            let beside = match (entry.chapter, entry.key) {
                (_, "proxy_protocol") => Some(("BULKHEAD_LISTENER__0__TRUSTED_PROXIES", "[\"192.0.2.0/24\"]")),
                ("notify", "from") => Some(("BULKHEAD_NOTIFY__CONFIGURATION_SET", "beside")),
                ("notify", "configuration_set") => Some(("BULKHEAD_NOTIFY__FROM", "beside@example.com")),
                ("notify", "webhook_url") => Some(("BULKHEAD_NOTIFY__WEBHOOK_SECRET_FILE", "beside")),
                ("notify", "webhook_secret_file") => Some(("BULKHEAD_NOTIFY__WEBHOOK_URL", "https://beside.example/")),
                _ => None,
            };
            let mut beside: Vec<_> =
                beside.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            if (entry.chapter, entry.key) == ("notify", "operator") {
                beside.push(("BULKHEAD_NOTIFY__FROM".into(), "told@example.com".into()));
                beside.push(("BULKHEAD_NOTIFY__CONFIGURATION_SET".into(), "told".into()));
            }
            let settings = load(None, [(name.clone(), value.clone())].into_iter().chain(beside));
            let settings = settings.unwrap_or_else(|problems| panic!("{name}={value}: {problems:?}"));
            assert!(!outcomes.contains(&settings), "{name}={value} does what another setting does, or nothing");
            let told = [outcomes[0].changed_limits(&settings), outcomes[0].changed_beside_limits(&settings)].concat();
            let key = match entry.chapter {
                "" => entry.key.to_owned(),
                "listener" => "listener".to_owned(),
                chapter => format!("{chapter}.{}", entry.key),
            };
            assert!(told.contains(&key.as_str()), "a reload does not see {key}: {told:?}");
            outcomes.push(settings);
        }
        assert!(outcomes.len() > 50, "only {} settings", outcomes.len());
    }

    #[test]
    fn every_bound_is_kept_to_the_last_number() {
        let mut bounds = 0;
        for entry in catalogue() {
            let Bounds::Whole(range) = &entry.bounds else { continue };
            bounds += 1;
            let name = variable(entry.chapter, entry.key);
            let own = |value: u64| {
                let problems = with(&name, &value.to_string()).err().unwrap_or_default();
                problems.iter().any(|problem| {
                    problem.file == name && problem.what.contains(" than ") && problem.cure.starts_with("write")
                })
            };
            assert!(!own(*range.start()) && !own(*range.end()), "{name} refuses what it allows");
            assert!(own(range.end() + 1), "{name} allows more than {}", range.end());
            assert!(*range.start() == 0 || own(range.start() - 1), "{name} allows less than {}", range.start());
        }
        assert!(bounds > 30, "only {bounds} bounds");
    }

    #[test]
    fn a_number_with_a_fraction_is_kept_above_zero_and_within_its_bound() {
        let name = "BULKHEAD_AWS__MAX_SEND_RATE";
        for (value, meant) in [("0.5", 0.5), ("14", 14.0), ("1e2", 100.0), ("100_000", 100_000.0)] {
            assert_eq!(with(name, value).unwrap().aws.max_send_rate, Some(meant), "{value}");
        }
        for value in ["0", "-1", "0.0", "100000.1", "inf", "nan", "many", "[14]"] {
            let problems = with(name, value).unwrap_err();
            assert_eq!(problems.len(), 1, "{value}: {problems:?}");
            assert_eq!(problems[0].cure, "write a number above 0 and up to 100000, such as 14", "{value}");
        }
        assert_eq!(load(None, std::iter::empty()).unwrap().aws.max_send_rate, None);
    }

    #[test]
    fn how_many_times_is_one_at_least_or_never() {
        for (name, zero) in [("BULKHEAD_WATCH__JUMP_TIMES", false), ("BULKHEAD_WATCH__VOLUME_TIMES", true)] {
            for value in ["1", "1.5", "1000", "3"] {
                assert!(with(name, value).is_ok(), "{name}={value}");
            }
            assert_eq!(with(name, "0").is_ok(), zero, "{name}");
            for value in ["0.5", "-1", "1000.1", "inf", "nan", "many"] {
                let problems = with(name, value).unwrap_err();
                assert!(problems[0].cure.starts_with("write a number from 1 to 1000"), "{value}: {problems:?}");
            }
        }
    }

    #[test]
    fn every_setting_has_a_sentence_and_numbers_have_units() {
        let units = [
            "_percent",
            "_recipients",
            "_bytes",
            "_seconds",
            "_hours",
            "days",
            "_second",
            "_unauthenticated",
            "_bounces",
            "_complaints",
        ];
        let counts = [
            "header_fields",
            "recipients",
            "received_hops",
            "connections",
            "connections_per_ip",
            "connections_per_tenant",
            "handshakes",
            "messages_per_connection",
            "errors",
            "auth_failures",
            "auth_verifications",
            "calls_in_flight",
            "bytes_in_flight",
            "calls_per_message",
            "auth_cache_entries",
            "pollers",
            "workers",
            "commands_before_login",
            "refusals",
            "messages",
            "messages_per_tenant",
            "bytes_per_tenant",
            "writers",
            "calls_per_stream",
            "dedupe_entries",
            "least_recipients",
            "least_bounces",
            "least_complaints",
            "account_least_recipients",
            "mails_per_hour",
            "announcements",
            "credentials",
            "soft_bounces",
            "domains_per_day",
        ];
        for entry in catalogue() {
            assert!(entry.sentence.len() > 10 && entry.sentence.ends_with('.'), "{}.{}", entry.chapter, entry.key);
            if let Bounds::Whole(_) = entry.bounds {
                let named = units.iter().any(|unit| entry.key.ends_with(unit)) || counts.contains(&entry.key);
                assert!(named, "{}.{} does not say what it counts", entry.chapter, entry.key);
            }
        }
    }
}
