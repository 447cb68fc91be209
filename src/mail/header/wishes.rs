//! What the client asked of us in the header section: stream, configuration set, message tags.

use super::{HeaderError, HeaderSection, Wishes};

/// The tags that every message leaves with; a client's tag of that name is left out.
pub const OUR_TAGS: [&str; 3] = ["tenant", "stream", "credential"];
/// Most tags of the client's own: with ours there are ten (SES says no number; ten is in use).
pub const CLIENT_TAGS: usize = 7;
/// Longest name or value of a tag (SES API reference, MessageTag).
const LONGEST_TAG: usize = 256;
/// Characters of a wrong tag that are shown.
const SHOWN_TAG: usize = 64;

const STREAM: &str = "X-Bulkhead-Stream";
const CONFIGURATION_SET: &str = "X-SES-CONFIGURATION-SET";
const MESSAGE_TAGS: &str = "X-SES-MESSAGE-TAGS";

/// Whether a tag name is one of [`OUR_TAGS`], in whatever case.
pub fn is_our_tag(name: &str) -> bool {
    OUR_TAGS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

impl HeaderSection {
    /// Stream, configuration set and tags the client asked for. A field without a value asks for
    /// nothing. Tags of our own names are among them, and not counted against [`CLIENT_TAGS`].
    pub fn wishes(&self) -> Result<Wishes, HeaderError> {
        Ok(Wishes { stream: self.one(STREAM)?, configuration_set: self.one(CONFIGURATION_SET)?, tags: self.tags()? })
    }

    /// The one value that all fields of that name agree on.
    fn one(&self, name: &'static str) -> Result<Option<String>, HeaderError> {
        let mut wish: Option<String> = None;
        for field in self.named(name) {
            let value = self.unfolded(field);
            match &wish {
                _ if value.is_empty() => {}
                Some(said) if *said != value => return Err(HeaderError::Contradiction(name)),
                Some(_) => {}
                None => wish = Some(value),
            }
        }
        Ok(wish)
    }

    /// `name1=value1, name2=value2`, over all such fields. A pair said twice counts once.
    fn tags(&self) -> Result<Vec<(String, String)>, HeaderError> {
        let mut tags: Vec<(String, String)> = Vec::new();
        for field in self.named(MESSAGE_TAGS) {
            let text = self.unfolded(field);
            for pair in text.split(',').map(|pair| pair.trim_matches([' ', '\t'])).filter(|pair| !pair.is_empty()) {
                let (name, value) = tag(pair).ok_or_else(|| wrong(pair))?;
                match tags.iter().find(|(said, _)| said == name) {
                    Some((_, said)) if said == value => continue,
                    Some(_) => return Err(wrong(pair)),
                    None => tags.push((name.to_owned(), value.to_owned())),
                }
                if tags.iter().filter(|(name, _)| !is_our_tag(name)).count() > CLIENT_TAGS {
                    return Err(HeaderError::TooManyTags(CLIENT_TAGS));
                }
            }
        }
        Ok(tags)
    }
}

/// Name and value of one tag.
fn tag(pair: &str) -> Option<(&str, &str)> {
    let (name, value) = pair.split_once('=')?;
    let (name, value) = (name.trim_end_matches([' ', '\t']), value.trim_start_matches([' ', '\t']));
    let fits = |text: &str| {
        (1..=LONGEST_TAG).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    (fits(name) && fits(value)).then_some((name, value))
}

/// The error that names the tag.
fn wrong(pair: &str) -> HeaderError {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name).trim_matches([' ', '\t']);
    HeaderError::Tag(name.chars().take(SHOWN_TAG).collect())
}
