//! The PROXY protocol, version 1 and 2: who the client behind a load balancer is.
//!
//! Promises: not one octet behind the header is read, so the greeting or the TLS handshake that
//! follows finds the stream as the client sent it. A header is at most [`LONGEST`] octets.
//! Refuses: a listener that expects a header takes connections from its trusted addresses only,
//! and none without a header.
//!
//! `LOCAL` (version 2) and `UNKNOWN` (version 1) mean that the balancer speaks for itself, as in a
//! health check: the connection is served under the balancer's own address, and its session has no
//! lines in the log.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest header taken. Version 2 could be 64 KiB long; addresses and the fields that balancers
/// add come to a few hundred octets.
pub const LONGEST: usize = 2048;
/// What version 1 begins with.
const VERSION_1: &[u8] = b"PROXY ";
/// What version 2 begins with.
const VERSION_2: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n";
/// Longest version 1 header, CRLF included.
const LONGEST_VERSION_1: usize = 107;
/// Octets of a version 2 header before its addresses; no version 1 header is shorter than that
/// less one.
const FIXED_VERSION_2: usize = 16;

/// Who the header says is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// A client, at this address.
    Client(SocketAddr),
    /// The balancer itself.
    Balancer,
}

/// Why there is no origin.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// The connection ended before the first octet.
    #[error("the connection ended before a PROXY header came")]
    Silent,
    /// Neither version's first octets.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// A header that is over long.
    #[error("the PROXY header is longer than {LONGEST} octets")]
    TooLong,
    /// A header that cannot be read.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// A header of a UDP client.
    #[error("the PROXY header is of a datagram")]
    Datagram,
    /// The socket.
    #[error("the connection broke within the PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Reads the header and nothing behind it.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Origin, ProxyError> {
    let mut header = Vec::with_capacity(128);
    take(stream, &mut header, VERSION_2.len()).await.map_err(|error| match header.len() {
        0 if error.kind() == io::ErrorKind::UnexpectedEof => ProxyError::Silent,
        _ => ProxyError::Broken(error),
    })?;
    if header == VERSION_2 {
        take(stream, &mut header, FIXED_VERSION_2).await?;
        let length = match header.as_slice() {
            [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return Err(ProxyError::Malformed),
        };
        let whole = FIXED_VERSION_2 + length;
        if whole > LONGEST {
            return Err(ProxyError::TooLong);
        }
        take(stream, &mut header, whole).await?;
    } else if header.starts_with(VERSION_1) {
        // One by one, for what follows the line end belongs to the client. At most 95 reads.
        while !header.ends_with(b"\n") {
            if header.len() >= LONGEST_VERSION_1 {
                return Err(ProxyError::TooLong);
            }
            let next = header.len() + 1;
            take(stream, &mut header, next).await?;
        }
    } else {
        return Err(ProxyError::Missing);
    }
    parse(&header)
}

fn parse(header: &[u8]) -> Result<Origin, ProxyError> {
    // The header was cut to its length when it was read.
    let (parsed, _) = ProxyHeader::parse(header, ParseConfig::default()).map_err(|_| ProxyError::Malformed)?;
    match parsed.proxied_address() {
        None => Ok(Origin::Balancer),
        Some(address) if address.protocol == proxy_header::Protocol::Datagram => Err(ProxyError::Datagram),
        Some(address) => Ok(Origin::Client(address.source)),
    }
}

/// Reads on until `header` has `length` octets; what came before an error stays in it.
async fn take(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let missing = length.saturating_sub(header.len());
    let missing = u64::try_from(missing).unwrap_or(u64::MAX);
    stream.take(missing).read_to_end(header).await?;
    if header.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn origin(octets: &[u8]) -> (Result<Origin, ProxyError>, usize) {
        let mut left = octets;
        let origin = read(&mut left).await;
        (origin, left.len())
    }

    fn version_2(command: u8, family: u8, addresses: &[u8], extra: usize) -> Vec<u8> {
        let mut header = VERSION_2.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(addresses.len() + extra).unwrap().to_be_bytes());
        header.extend(addresses);
        if extra >= 3 {
            // PP2_TYPE_NOOP
            header.push(0x04);
            header.extend(u16::try_from(extra - 3).unwrap().to_be_bytes());
            header.extend(vec![0; extra - 3]);
        }
        header
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x02, 0x4b];

    #[tokio::test]
    async fn the_client_is_found_and_what_follows_is_left() {
        let ipv6: Vec<u8> = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0x30, 0x39, 0x02, 0x4b]].concat();
        let cases: [(Vec<u8>, Origin); 7] = [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 587\r\n".to_vec(),
                Origin::Client("192.0.2.7:12345".parse().unwrap()),
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 587\r\n".to_vec(),
                Origin::Client("[2001:db8::7]:12345".parse().unwrap()),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Balancer),
            (version_2(0x21, 0x11, &IPV4, 0), Origin::Client("192.0.2.7:12345".parse().unwrap())),
            (version_2(0x21, 0x11, &IPV4, 200), Origin::Client("192.0.2.7:12345".parse().unwrap())),
            (version_2(0x21, 0x21, &ipv6, 0), Origin::Client("[2001:db8::7]:12345".parse().unwrap())),
            (version_2(0x20, 0x00, &[], 0), Origin::Balancer),
        ];
        for (header, expected) in cases {
            let mut octets = header.clone();
            octets.extend(b"\x16\x03\x01EHLO");
            let (found, left) = origin(&octets).await;
            assert_eq!(found.unwrap(), expected, "{header:?}");
            assert_eq!(left, 7, "{header:?}");
            // No prefix of it is an origin.
            for length in 0..header.len() {
                assert!(origin(&header[..length]).await.0.is_err(), "{length} of {header:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let cases: [(Vec<u8>, &str); 9] = [
            (Vec::new(), "before"),
            (b"EHLO client.example\r\n".to_vec(), "does not begin"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00".to_vec(), "does not begin"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 99999\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.7 2001:db8::1 12345 587\r\n".to_vec(), "malformed"),
            ([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(), "longer"),
            (version_2(0x21, 0x11, &IPV4[..4], 0), "malformed"),
            (version_2(0x21, 0x12, &IPV4, 0), "datagram"),
            (version_2(0x21, 0x11, &IPV4, LONGEST), "longer"),
        ];
        for (octets, words) in cases {
            let error = origin(&octets).await.0.unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
