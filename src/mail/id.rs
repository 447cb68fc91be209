//! Names and identifiers: who sends, by what, and which message it is.
//!
//! Promises: a value of these types has been checked once and stays valid; all are cheap to clone.
//! Tenant and stream ids and configuration set names are also SES message tags, so their alphabets
//! fit SES's (`[A-Za-z0-9_-]`, SES API reference, MessageTag).

use std::fmt;
use std::sync::Arc;

use crate::secret::Random;
use crate::time::Timestamp;

/// What is wrong with an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// Longer than 64 characters.
    #[error("is longer than 64 characters")]
    TooLong,
    /// A character outside the alphabet.
    #[error("has the character {0:?}; allowed are {1}")]
    Character(char, &'static str),
}

const LONGEST: usize = 64;

fn check(text: &str, allowed: fn(char) -> bool, alphabet: &'static str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.chars().count() > LONGEST {
        return Err(IdError::TooLong);
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(IdError::Character(c, alphabet)),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $allowed:expr, $alphabet:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length (1 to 64) and alphabet.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text, $allowed, $alphabet)?;
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::parse(&text).map_err(|e| serde::de::Error::custom(format!("{:?} {e}", text)))
            }
        }
    };
}

identifier!(
    /// A customer of the software vendor: `[a-z0-9-]`, 1 to 64.
    TenantId,
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
    "a-z, 0-9 and -"
);
identifier!(
    /// One kind of mail of a tenant: `[a-z0-9-]`, 1 to 64.
    StreamId,
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
    "a-z, 0-9 and -"
);
identifier!(
    /// The name of an SES configuration set: `[A-Za-z0-9_-]`, 1 to 64.
    ConfigurationSet,
    |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
    "A-Z, a-z, 0-9, - and _"
);
identifier!(
    /// The name of an SES tenant (`TenantName`): `[A-Za-z0-9_-]`, 1 to 64.
    SesTenant,
    |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
    "A-Z, a-z, 0-9, - and _"
);
identifier!(
    /// What a client logs in with. Old applications insist on address-like names, so `@ . +` are
    /// allowed too: `[A-Za-z0-9_.@+-]`, 1 to 64.
    Username,
    |c| c.is_ascii_alphanumeric() || "-_.@+".contains(c),
    "A-Z, a-z, 0-9, - _ . @ and +"
);

impl Username {
    /// The username as an SES tag value: `@ . +`, which SES refuses, become `_`.
    pub fn tag(&self) -> String {
        self.0.replace(['@', '.', '+'], "_")
    }
}

macro_rules! sortable {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ulid::Ulid);

        impl $name {
            /// A new one: the time first, then randomness, so that they sort by time.
            pub fn new(now: Timestamp, random: &dyn Random) -> Self {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                Self(ulid::Ulid::from_parts(now.millis(), u128::from_le_bytes(bytes)))
            }

            /// Reads the 26 characters back, in any case. A number of more than 128 bits, which the
            /// decoder would cut to another id, is none.
            pub fn parse(text: &str) -> Option<Self> {
                let id = Self(ulid::Ulid::from_string(text).ok()?);
                id.to_string().eq_ignore_ascii_case(text).then_some(id)
            }

            /// The one that sorts behind all others.
            pub const LAST: Self = Self(ulid::Ulid(u128::MAX));

            /// The moment it was made.
            pub fn made(&self) -> Timestamp {
                Timestamp::from_millis(self.0.timestamp_ms())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no id")))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

sortable!(
    /// One SMTP connection.
    SessionId
);
sortable!(
    /// One message a client gave us; ours, not SES's and not the Message-ID field.
    MessageId
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A counter in place of randomness.
    struct Counting(std::sync::atomic::AtomicU8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    #[test]
    fn names_within_their_alphabets() {
        let longest = "a".repeat(64);
        for text in ["a", "acme", "acme-2", "-", "0", &longest] {
            assert_eq!(TenantId::parse(text).unwrap().as_str(), text);
            assert_eq!(text.parse::<StreamId>().unwrap().to_string(), text);
        }
        for text in ["Acme_Set-1", "_", &longest] {
            assert_eq!(ConfigurationSet::parse(text).unwrap().as_str(), text);
            assert_eq!(SesTenant::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Username::parse("App_1.x@acme.example+y").unwrap().tag(), "App_1_x_acme_example_y");
    }

    #[test]
    fn names_beyond_them() {
        let small = |c| Err(IdError::Character(c, "a-z, 0-9 and -"));
        let large = |c| Err(IdError::Character(c, "A-Z, a-z, 0-9, - and _"));
        let too_long = "a".repeat(65);
        assert_eq!(TenantId::parse("").map(|_| ()), Err(IdError::Empty));
        assert_eq!(TenantId::parse(&too_long).map(|_| ()), Err(IdError::TooLong));
        for (text, character) in [("Acme", 'A'), ("a_b", '_'), ("a b", ' '), ("a/b", '/'), ("a\0", '\0'), ("ä", 'ä')]
        {
            assert_eq!(TenantId::parse(text).map(|_| ()), small(character));
            assert_eq!(StreamId::parse(text).map(|_| ()), small(character));
        }
        for (text, character) in [("a.b", '.'), ("a b", ' '), ("a\n", '\n'), ("ä", 'ä')] {
            assert_eq!(ConfigurationSet::parse(text).map(|_| ()), large(character));
            assert_eq!(SesTenant::parse(text).map(|_| ()), large(character));
        }
        for text in ["a b", "a:b", "a/b", "a\r\n", "é", "a\"b"] {
            assert!(Username::parse(text).is_err(), "{text:?}");
        }
        let said = serde_json::from_str::<TenantId>("\"A\"").unwrap_err().to_string();
        assert!(said.contains("has the character 'A'; allowed are a-z, 0-9 and -"), "{said}");
        assert_eq!(serde_json::to_string(&TenantId::parse("a").unwrap()).unwrap(), "\"a\"");
    }

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let random = Counting(200.into());
        let at = Timestamp::from_millis(1_777_000_000_000);
        let ids: Vec<_> = (0..100).map(|i| MessageId::new(at.plus(Duration::from_millis(i)), &random)).collect();
        assert!(ids.is_sorted());
        for id in &ids {
            assert_eq!(id.to_string().len(), 26);
            assert_eq!(MessageId::parse(&id.to_string()), Some(*id));
            assert_eq!(MessageId::parse(&id.to_string().to_lowercase()), Some(*id));
        }
        let same_moment = [MessageId::new(at, &random), MessageId::new(at, &random)];
        assert_ne!(same_moment[0], same_moment[1]);
        assert_eq!(MessageId::parse("8ZZZZZZZZZZZZZZZZZZZZZZZZZ"), None);
        assert_eq!(SessionId::parse("short"), None);
    }
}
