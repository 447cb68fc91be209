//! Checks of text values: each gives the meant value or a fault with its cure.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::given::{nearest, shown};
use super::problem::Fault;
use crate::mail::Mailbox;
use crate::mail::id::IdError;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A path; it need not exist.
pub(super) fn path(text: &str) -> Result<PathBuf, Fault> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Fault::new("is empty", "write a path, relative to the working directory or from the root"));
    }
    Ok(text.into())
}

/// A host name as it may stand in a greeting (RFC 5321 4.1.2, Domain), in A-labels.
pub(super) fn hostname(text: &str) -> Result<String, Fault> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 255 || !text.split('.').all(is_label) || text.parse::<IpAddr>().is_ok() {
        let cure = "write a name such as relay.example.com: letters, digits and -, labels joined by single dots";
        return Err(Fault::new(format!("is {}, which is no host name", shown(text)), cure));
    }
    Ok(text.into())
}

/// A node's name, which becomes part of store keys.
pub(super) fn node(text: &str) -> Result<String, Fault> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&text.len()) || !text.bytes().all(allowed) {
        return Err(Fault::new(format!("is {}", shown(text)), "write 1 to 64 characters of a-z, 0-9 and -"));
    }
    Ok(text.into())
}

/// An IP address and a port.
pub(super) fn socket(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        let cure = "write an IP address and a port, such as 0.0.0.0:587 or [::]:587";
        Fault::new(format!("is {}, which is no IP address with a port", shown(text)), cure)
    })
}

/// A network in CIDR form, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| {
        let cure = "write a network such as 10.0.0.0/8 or 2001:db8::/32, or one address";
        Fault::new(format!("is {}, which is no network", shown(text)), cure)
    })?;
    if network.addr() != network.network() {
        let fault = format!("is {}, whose address lies inside the network it names", shown(text));
        let one = IpNet::from(network.addr());
        return Err(Fault::new(
            fault,
            format!("write {} for the network, or {one} for the one address", network.trunc()),
        ));
    }
    Ok(network)
}

/// A mailbox.
pub(super) fn mailbox(text: &str) -> Result<Mailbox, Fault> {
    Mailbox::parse(text.as_bytes()).map_err(|error| {
        Fault::new(format!("is {}, which {error}", shown(text)), "write an address such as ops@acme.example")
    })
}

/// A name of ours or of SES's, which `parse` reads.
pub(super) fn id<T>(text: &str, parse: fn(&str) -> Result<T, IdError>) -> Result<T, Fault> {
    parse(text).map_err(|error| match error {
        IdError::Empty => Fault::new("is empty", "write a name of 1 to 64 characters"),
        IdError::TooLong => Fault::new("is longer than 64 characters", "write a shorter name"),
        IdError::Character(c, allowed) => {
            Fault::new(format!("is {}, which has the character {c:?}", shown(text)), format!("use {allowed} alone"))
        }
    })
}

/// An AWS region.
pub(super) fn region(text: &str) -> Result<String, Fault> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.len() > 32 || !text.contains('-') || !text.bytes().all(allowed) {
        let cure = "write it as AWS does, such as eu-central-1";
        return Err(Fault::new(format!("is {}, which is no region", shown(text)), cure));
    }
    Ok(text.into())
}

/// An `http://` or `https://` URL with a host.
pub(super) fn url(text: &str) -> Result<String, Fault> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = host.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    if !printable || host.is_none_or(|host| host.is_empty() || host.starts_with(':') || host.contains('@')) {
        let cure = "write https:// and a host (http:// for a local endpoint), without a user name";
        // What stands before an @ may be a secret.
        let what =
            if text.contains('@') { "has a user name".into() } else { format!("is {}, which is no URL", shown(text)) };
        return Err(Fault::new(what, cure));
    }
    Ok(text.into())
}

/// The URL of a webhook. What is wrong with it is told without it, for its path may be a secret.
pub(super) fn webhook(text: &str) -> Result<String, Fault> {
    let cure = "write https:// and a host, without a user name";
    url(text).map_err(|_| Fault::new("is no URL of a web server, or has a user name", cure))
}

/// A level or directives of the log.
pub(super) fn level(text: &str) -> Result<String, Fault> {
    let simple = !text.contains([',', '=', '[']);
    if simple && !LEVELS.contains(&text) {
        let cure = match nearest(text, LEVELS.into_iter()) {
            Some(level) => format!("did you mean {level:?}? It is one of {}", LEVELS.join(", ")),
            None => format!("write one of {}", LEVELS.join(", ")),
        };
        return Err(Fault::new(format!("is {}, which is no level", shown(text)), cure));
    }
    if EnvFilter::try_new(text).is_err() {
        let cure = "write a level, or directives such as \"warn,bulkhead=info\"";
        return Err(Fault::new(format!("is {}, which is no list of directives", shown(text)), cure));
    }
    Ok(text.into())
}
