//! AUTH exchanges: PLAIN (RFC 4616) and LOGIN, over RFC 4954.
//!
//! Promises: a username of 1 to [`USERNAME_BYTES`] octets and a secret of 1 to [`SECRET_BYTES`]
//! leave here, or a [`Turn`] that says what else to do. The secret goes into a [`Secret`] at once.
//! Refuses: an authorisation identity other than the username, for nobody may act for another here
//! (RFC 4616 2: the server decides); empty and over-long names and secrets. These are refused
//! logins, counted and delayed like a wrong password, so that they look like one.
//! What can go wrong: base64 that is none, or a PLAIN response that is not three parts
//! ([`Turn::Malformed`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Secret;

/// Longest username in octets.
pub const USERNAME_BYTES: usize = 255;
/// Longest secret in octets.
pub const SECRET_BYTES: usize = 1024;

/// `Username:` and `Password:`, which every client of LOGIN expects.
const ASK_USERNAME: &str = "VXNlcm5hbWU6";
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

/// What we offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old one without an RFC that older applications speak.
    Login,
}

/// An exchange that waits for the client's next line.
#[derive(PartialEq, Eq, Debug)]
pub enum Exchange {
    /// PLAIN's one response.
    Plain,
    /// LOGIN's username.
    Username,
    /// LOGIN's password.
    Password {
        /// The username that was given.
        username: Vec<u8>,
    },
}

/// What follows from a line of the exchange.
#[derive(PartialEq, Eq, Debug)]
pub enum Turn {
    /// Send this challenge (base64) and go on.
    Challenge(Exchange, &'static str),
    /// Ask whether this is right.
    Attempt {
        /// As sent; octets that are no UTF-8 are replaced, which no username has.
        username: String,
        /// As sent.
        secret: Secret,
        /// `PLAIN` or `LOGIN`.
        mechanism: &'static str,
    },
    /// A login that can only be wrong.
    Refused {
        /// As sent, cut to [`USERNAME_BYTES`]; octets that are no UTF-8 are replaced.
        username: String,
        /// Why, for the log; the client hears what every refused login hears.
        why: Unfit,
    },
    /// The client gave up with `*`.
    Cancelled,
    /// Not base64, or not the form of the mechanism.
    Malformed,
}

/// Why a login can only be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Nobody acts for another here.
    #[error("the authorisation identity is another than the username")]
    Identity,
    /// No username.
    #[error("the username is empty")]
    NoUsername,
    /// A username past [`USERNAME_BYTES`].
    #[error("the username is longer than {USERNAME_BYTES} octets")]
    LongUsername,
    /// No secret.
    #[error("the secret is empty")]
    NoSecret,
    /// A secret past [`SECRET_BYTES`].
    #[error("the secret is longer than {SECRET_BYTES} octets")]
    LongSecret,
}

/// The first turn, with the initial response if the client sent one (`=` is an empty one).
pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Turn {
    let (exchange, challenge) = match mechanism {
        Mechanism::Plain => (Exchange::Plain, ""),
        Mechanism::Login => (Exchange::Username, ASK_USERNAME),
    };
    match initial {
        None => Turn::Challenge(exchange, challenge),
        Some(b"=") => take(exchange, Vec::new()),
        Some(response) => decoded(exchange, response),
    }
}

/// The client's next line.
pub fn respond(exchange: Exchange, line: &[u8]) -> Turn {
    match line {
        b"*" => Turn::Cancelled,
        response => decoded(exchange, response),
    }
}

fn decoded(exchange: Exchange, response: &[u8]) -> Turn {
    STANDARD.decode(response).map_or(Turn::Malformed, |octets| take(exchange, octets))
}

fn take(exchange: Exchange, response: Vec<u8>) -> Turn {
    match exchange {
        Exchange::Plain => plain(&response),
        Exchange::Username => Turn::Challenge(Exchange::Password { username: response }, ASK_PASSWORD),
        Exchange::Password { username } => attempt(&username, response, "LOGIN"),
    }
}

/// `authzid NUL authcid NUL passwd`.
fn plain(response: &[u8]) -> Turn {
    let mut parts = response.split(|octet| *octet == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(identity), Some(username), Some(secret), None) => {
            if !identity.is_empty() && identity != username {
                return refused(username, Unfit::Identity);
            }
            attempt(username, secret.to_vec(), "PLAIN")
        }
        (_, _, _, _) => Turn::Malformed,
    }
}

fn attempt(username: &[u8], secret: Vec<u8>, mechanism: &'static str) -> Turn {
    let secret = Secret::new(secret);
    match (username.len(), secret.expose().len()) {
        (0, _) => refused(username, Unfit::NoUsername),
        (octets, _) if octets > USERNAME_BYTES => refused(username, Unfit::LongUsername),
        (_, 0) => refused(username, Unfit::NoSecret),
        (_, octets) if octets > SECRET_BYTES => refused(username, Unfit::LongSecret),
        (_, _) => Turn::Attempt { username: String::from_utf8_lossy(username).into_owned(), secret, mechanism },
    }
}

fn refused(username: &[u8], why: Unfit) -> Turn {
    let username = username.get(..USERNAME_BYTES).unwrap_or(username);
    Turn::Refused { username: String::from_utf8_lossy(username).into_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(username: &str, secret: &str, mechanism: &'static str) -> Turn {
        Turn::Attempt { username: username.into(), secret: Secret::new(secret.into()), mechanism }
    }

    fn plain_of(octets: &[u8]) -> Turn {
        begin(Mechanism::Plain, Some(STANDARD.encode(octets).as_bytes()))
    }

    #[test]
    fn plain_has_three_parts_and_one_identity() {
        assert_eq!(plain_of(b"\0joe\0pw"), found("joe", "pw", "PLAIN"));
        assert_eq!(plain_of(b"joe\0joe\0pw"), found("joe", "pw", "PLAIN"));
        let longest = "x".repeat(USERNAME_BYTES);
        for (octets, username, why) in [
            (b"ann\0joe\0pw".to_vec(), "joe", Unfit::Identity),
            (b"\0joe\0".to_vec(), "joe", Unfit::NoSecret),
            (b"\0\0pw".to_vec(), "", Unfit::NoUsername),
            ([b"\0joe\0".as_slice(), &[b'x'; SECRET_BYTES + 1]].concat(), "joe", Unfit::LongSecret),
            ([b"\0".as_slice(), &[b'x'; USERNAME_BYTES + 1], b"\0pw"].concat(), &longest, Unfit::LongUsername),
        ] {
            assert_eq!(plain_of(&octets), Turn::Refused { username: username.into(), why });
        }
        assert_eq!(
            plain_of(&[b"\0joe\0".as_slice(), &[b'x'; SECRET_BYTES]].concat()),
            found("joe", &"x".repeat(SECRET_BYTES), "PLAIN")
        );
        assert_eq!(plain_of(format!("\0{longest}\0pw").as_bytes()), found(&longest, "pw", "PLAIN"));
        for octets in [b"joe\0pw".as_slice(), b"joe", b"", b"\0joe\0p\0w"] {
            assert_eq!(plain_of(octets), Turn::Malformed);
        }
        assert_eq!(begin(Mechanism::Plain, Some(b"=")), Turn::Malformed);
        assert_eq!(begin(Mechanism::Plain, Some(b"AGpvZQBwdw=")), Turn::Malformed);
        assert_eq!(begin(Mechanism::Plain, None), Turn::Challenge(Exchange::Plain, ""));
    }

    #[test]
    fn login_asks_twice_or_once() {
        assert_eq!(begin(Mechanism::Login, None), Turn::Challenge(Exchange::Username, ASK_USERNAME));
        let asked = Turn::Challenge(Exchange::Password { username: b"joe".to_vec() }, ASK_PASSWORD);
        assert_eq!(respond(Exchange::Username, b"am9l"), asked);
        assert_eq!(begin(Mechanism::Login, Some(b"am9l")), asked);
        assert_eq!(respond(Exchange::Password { username: b"joe".to_vec() }, b"cHc="), found("joe", "pw", "LOGIN"));
        let nobody = Turn::Refused { username: String::new(), why: Unfit::NoUsername };
        assert_eq!(respond(Exchange::Password { username: Vec::new() }, b"cHc="), nobody);
        assert_eq!(respond(Exchange::Username, b"*"), Turn::Cancelled);
        assert_eq!(respond(Exchange::Username, b"%"), Turn::Malformed);
    }

    #[test]
    fn the_prompts_say_what_clients_expect() {
        assert_eq!(STANDARD.decode(ASK_USERNAME).unwrap(), b"Username:");
        assert_eq!(STANDARD.decode(ASK_PASSWORD).unwrap(), b"Password:");
    }
}
