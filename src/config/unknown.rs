//! What nobody asked for: stray keys and variables, and what was likely meant.

use std::collections::BTreeSet;

use super::given::nearest;
use super::problem::{Fault, Place, Problem};
use super::setting::{Entry, PREFIX, variable};

/// Most keys that are listed as a cure.
const FEW: usize = 12;

/// A key that nobody asked for.
pub struct Unknown {
    /// Its section.
    pub path: String,
    /// Its section in the catalogue.
    pub chapter: &'static str,
    /// Itself.
    pub key: String,
    /// Where.
    pub place: Place,
    /// What was asked for there.
    pub siblings: BTreeSet<&'static str>,
}

/// What to say of a stray key.
pub fn unknown_key(stray: Unknown, entries: &[Entry]) -> Problem {
    let Unknown { path, chapter, key, place, siblings } = stray;
    let elsewhere = || entries.iter().find(|entry| entry.key == key && entry.chapter != chapter);
    let home = if path.is_empty() { "the top of the file".to_owned() } else { format!("[{path}]") };
    let cure = if let Some(near) = nearest(&key, siblings.iter().copied()) {
        format!("did you mean {near}?")
    } else if let Some(entry) = elsewhere() {
        match entry.chapter {
            "" => "it belongs to the top of the file, before the first section".into(),
            chapter => format!("it belongs to [{chapter}]"),
        }
    } else if siblings.len() <= FEW {
        format!("remove it; known there: {}", siblings.iter().copied().collect::<Vec<_>>().join(", "))
    } else {
        "remove it; config/bulkhead.toml has every setting there is".into()
    };
    let full = if path.is_empty() { key } else { format!("{path}.{key}") };
    place.problem(full, Fault::new(format!("is not a setting of {home}"), cure))
}

/// What to say of a stray variable.
pub fn unknown_variable(stray: &str, entries: &[Entry]) -> Problem {
    let names: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.key.is_empty())
        .map(|entry| match entry.chapter {
            "listener" => variable("listener.0", entry.key),
            chapter => variable(chapter, entry.key),
        })
        .collect();
    let cure = if stray.starts_with("BULKHEAD_LISTENER__") {
        "name it as BULKHEAD_LISTENER__0__ADDRESS: listeners are numbered from 0, without gaps".into()
    } else {
        match nearest_variable(stray, &names) {
            Some(near) => format!("did you mean {near}?"),
            None => "unset it; settings are named BULKHEAD_SECTION__KEY, as BULKHEAD_LIMITS__RECIPIENTS".into(),
        }
    };
    Place { file: stray.into(), line: None }.problem("", Fault::new("is not the variable of a setting", cure))
}

/// As [`nearest`], without the prefix that all share.
fn nearest_variable<'w>(name: &str, names: &'w [String]) -> Option<&'w str> {
    let bare = |name: &str| name.trim_start_matches(PREFIX).to_ascii_lowercase();
    let wanted = bare(name);
    let likeliest = names
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&wanted, &bare(name)), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeliest.0 >= 0.75).then_some(likeliest.1.as_str())
}

/// Whether a variable is one of those that Kubernetes sets in every container for a Service whose
/// name begins with "bulkhead" (`…_SERVICE_HOST`, `…_PORT_587_TCP_ADDR`): they are nobody's settings.
pub fn is_service_link(rest: &str, value: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let link = words.windows(2).any(|pair| match pair {
        ["SERVICE", "HOST" | "PORT"] => true,
        ["PORT", number] => !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    });
    !rest.contains("__") && (link || words.last() == Some(&"PORT") && value.contains("://"))
}
