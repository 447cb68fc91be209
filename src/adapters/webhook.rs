//! The webhook: [`Post`] on hyper, over a connection that is made here for each offer.
//!
//! The name is resolved, each address is judged ([`is_public`]), and the connection is made to the
//! very address that was judged: nothing is resolved a second time, so a name that means one address
//! to a check and another to a connection gains nothing. A proxy is not used.
//!
//! Promises: no redirect is followed; the answer's status is read and nothing behind its header
//! section, which has `ANSWER` octets at the most; all of it within one time-out; one offer, one
//! connection. Without leave for private addresses it goes to none, and never without TLS.
//! Refuses: an address that is not public, as [`Answer::Refused`]; nothing has been sent then.
//! What can go wrong: [`Answer::Failed`], in words without the URL's path, which may be a secret too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::announce::webhook::{Answer, Offer, Post};
use crate::store::Pending;
use crate::wire::Duplex;

/// Most octets of an answer that are read.
const ANSWER: usize = 8192;
/// Most addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Where and how it posts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The URL.
    pub url: String,
    /// Time for all of one offer.
    pub time: Duration,
    /// Private addresses, and `http://`, are meant.
    pub private: bool,
}

/// Why there is no webhook.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL names no host that could be connected to.
    #[error("notify.webhook_url is no URL of a web server")]
    Url,
    /// It would go over the network unprotected.
    #[error("notify.webhook_url is not https://, and notify.webhook_private is not set")]
    Plain,
    /// TLS cannot be set up.
    #[error("TLS for the webhook cannot be set up: {0}")]
    Tls(String),
}

/// A webhook.
pub struct Webhook {
    host: String,
    port: u16,
    /// The path with its query.
    path: String,
    /// The `Host` field.
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    time: Duration,
    private: bool,
}

impl Webhook {
    /// A webhook behind the certificates that this machine trusts. Nothing is connected to yet.
    pub fn new(options: &Options) -> Result<Self, WebhookError> {
        let mut roots = RootCertStore::empty();
        if options.url.starts_with("https://") {
            // Some that cannot be read are no reason to trust none.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(WebhookError::Tls("this machine has no trusted certificates".into()));
            }
        }
        Self::trusting(options, roots)
    }

    fn trusting(options: &Options, roots: RootCertStore) -> Result<Self, WebhookError> {
        let uri: Uri = options.url.parse().map_err(|_| WebhookError::Url)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(WebhookError::Url);
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(WebhookError::Url);
        }
        let (tls, port) = match scheme {
            "https" => {
                let name = ServerName::try_from(host.clone()).map_err(|_| WebhookError::Url)?;
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                    .map_err(|error| WebhookError::Tls(error.to_string()))?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                (Some((TlsConnector::from(Arc::new(config)), name)), 443)
            }
            "http" if options.private => (None, 80),
            "http" => return Err(WebhookError::Plain),
            _ => return Err(WebhookError::Url),
        };
        Ok(Self {
            host,
            port: authority.port_u16().unwrap_or(port),
            path: uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string),
            authority: authority.to_string(),
            tls,
            time: options.time,
            private: options.private,
        })
    }

    async fn try_post(&self, offer: Offer) -> Result<Answer, Answer> {
        let request = Request::post(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", offer.id)
            .header("webhook-timestamp", offer.timestamp)
            .header("webhook-signature", offer.signature)
            .body(Full::new(Bytes::from(offer.body)))
            .map_err(|_| Answer::Failed("the request cannot be written".into()))?;
        let stream = self.connect().await?;
        let failed = |error: hyper::Error| Answer::Failed(format!("the exchange failed: {}", causes(&error)));
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(ANSWER).handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let answered = sender.send_request(request);
        // The connection ends with this future, whatever it has still to read.
        tokio::pin!(answered, connection);
        let response = tokio::select! {
            response = &mut answered => response,
            ended = &mut connection => match ended {
                // What was read before the end is the answer.
                Ok(()) => answered.await,
                Err(error) => Err(error),
            },
        };
        response.map(|response| Answer::Status(response.status().as_u16())).map_err(failed)
    }

    async fn connect(&self) -> Result<Box<dyn Duplex>, Answer> {
        let resolved = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| Answer::Failed(format!("its name cannot be resolved: {error}")))?;
        let resolved: Vec<SocketAddr> = resolved.collect();
        let public: Vec<&SocketAddr> =
            resolved.iter().filter(|address| self.private || is_public(address.ip())).take(ADDRESSES).collect();
        if public.is_empty() {
            return Err(match resolved.is_empty() {
                true => Answer::Failed("its name has no address".into()),
                false => Answer::Refused(
                    "its name has no public address, and notify.webhook_private is not set; nothing was sent".into(),
                ),
            });
        }
        let mut last = String::new();
        for address in public {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.secure(stream).await,
                Err(error) => last = error.to_string(),
            }
        }
        Err(Answer::Failed(format!("it cannot be connected to: {last}")))
    }

    async fn secure(&self, plain: TcpStream) -> Result<Box<dyn Duplex>, Answer> {
        match &self.tls {
            None => Ok(Box::new(plain)),
            Some((connector, name)) => {
                let secured = connector.connect(name.clone(), plain).await;
                Ok(Box::new(secured.map_err(|error| Answer::Failed(format!("TLS failed: {error}")))?))
            }
        }
    }
}

impl Post for Webhook {
    fn post(&self, offer: Offer) -> Pending<'_, Answer> {
        Box::pin(async move {
            match tokio::time::timeout(self.time, self.try_post(offer)).await {
                Ok(Ok(answer) | Err(answer)) => answer,
                Err(_) => Answer::Failed(format!("it did not answer within {} s", self.time.as_secs_f64())),
            }
        })
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// An error and what is behind it: hyper keeps the reason there.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// IPv4 networks that are not of the public internet (IANA, IPv4 Special-Purpose Address Registry), with
/// multicast and what is reserved.
const PRIVATE_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether an address is one of the public internet. Of IPv6 that is 2000::/3 without what is set apart
/// in it; an address that stands for an IPv4 one (mapped, NAT64, 6to4) is as public as that.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !PRIVATE_V4.iter().any(|(network, bits)| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        address.to_bits() & mask == network.to_bits()
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        // Mapped: ::ffff:0:0/96.
        [0, 0, 0, 0, 0, 0xffff] => is_public_v4(v4(g, h)),
        // NAT64: 64:ff9b::/96.
        [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(v4(g, h)),
        // 6to4: 2002::/16.
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Teredo, benchmarks, ORCHID and their like: 2001::/23; documentation: 2001:db8::/32, 3fff::/20.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn public_is_what_is_not_set_apart() {
        let private = [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.255",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "64:ff9b::1:808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "1fff::1",
        ];
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7::1",
            "2001:db9::1",
            "2002:808:808::1",
            "2003::1",
            "2a00:1450::1",
            "3ffe::1",
            "3fff:1000::1",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    fn offer() -> Offer {
        Offer { id: "01X".into(), timestamp: 1, signature: "v1,c2ln".into(), body: b"{\"a\":1}".to_vec() }
    }

    fn options(url: String, private: bool) -> Options {
        Options { url, time: Duration::from_millis(500), private }
    }

    /// A server that reads one request and answers it, if it has an answer; gives what it read.
    async fn server(answer: Option<&'static str>) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            let mut room = [0; 4096];
            while !read.ends_with(b"{\"a\":1}") {
                match stream.read(&mut room).await.unwrap() {
                    0 => break,
                    n => read.extend_from_slice(&room[..n]),
                }
            }
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                // Until the client gives up.
                None => while stream.read(&mut room).await.unwrap_or(0) > 0 {},
            }
            String::from_utf8(read).unwrap()
        });
        (port, task)
    }

    async fn answer(answer: Option<&'static str>) -> (Answer, String) {
        let (port, task) = server(answer).await;
        let url = format!("http://127.0.0.1:{port}/hook/s3cr3t?x=1");
        let answer = Webhook::new(&options(url, true)).unwrap().post(offer()).await;
        (answer, task.await.unwrap())
    }

    #[tokio::test]
    async fn an_offer_is_a_post_with_its_three_fields() {
        let (answer, read) = answer(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
        assert_eq!(answer, Answer::Status(204));
        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook/s3cr3t?x=1 HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        for field in [
            "content-type: application/json",
            "webhook-id: 01x",
            "webhook-timestamp: 1",
            "webhook-signature: v1,c2ln",
            "content-length: 7",
            "connection: close",
        ] {
            assert!(head.lines().any(|line| line == field), "{field}: {head}");
        }
        assert!(head.lines().any(|line| line.starts_with("host: 127.0.0.1:")), "{head}");
        assert_eq!(body, "{\"a\":1}");
    }

    #[tokio::test]
    async fn answers_are_told_apart_and_no_redirect_is_followed() {
        let (redirect, _) = answer(Some("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")).await;
        assert_eq!(redirect, Answer::Status(302));
        let (failed, _) = answer(Some("HTTP/1.1 500 Oh\r\nContent-Length: 99999999\r\n\r\nsome")).await;
        assert_eq!(failed, Answer::Status(500), "its body is not waited for");
        let (rubbish, _) = answer(Some("220 smtp.example ESMTP\r\n")).await;
        let Answer::Failed(words) = rubbish else { panic!("{rubbish:?}") };
        assert!(words.contains("failed") && !words.contains("s3cr3t"), "{words}");
        let (nothing, _) = answer(Some("")).await;
        assert!(matches!(nothing, Answer::Failed(_)), "{nothing:?}");
        let (slow, _) = answer(None).await;
        assert_eq!(slow, Answer::Failed("it did not answer within 0.5 s".into()));
    }

    #[tokio::test]
    async fn a_header_section_without_end_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let flood = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut written = 0_usize;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {
                written += 1024;
                assert!(written < 64 << 20);
            }
        });
        let options = Options { time: Duration::from_secs(30), ..options(url, true) };
        let answer = Webhook::new(&options).unwrap().post(offer()).await;
        assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn private_addresses_are_refused_before_anything_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in
            ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "169.254.169.254"]
        {
            let url = format!("https://{host}:{port}/");
            let hook = match Webhook::trusting(&options(url, false), RootCertStore::empty()) {
                Ok(hook) => hook,
                // A number is no name for TLS.
                Err(WebhookError::Url) => continue,
                Err(error) => panic!("{host}: {error}"),
            };
            let answer = hook.post(offer()).await;
            assert!(matches!(answer, Answer::Refused(_)), "{host}: {answer:?}");
        }
        let accepted = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
        assert!(accepted.is_err(), "somebody connected");
    }

    #[tokio::test]
    async fn tls_goes_to_whom_the_certificate_is_of() {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut served = 0;
            while served < 1 {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut room = [0; 4096];
                let _ = stream.read(&mut room).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                served += 1;
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let of = |host: &str, roots: &RootCertStore| {
            let options = Options { time: Duration::from_secs(5), ..options(format!("https://{host}:{port}/"), true) };
            Webhook::trusting(&options, roots.clone()).unwrap()
        };
        let wrong_name = of("127.0.0.1", &roots).post(offer()).await;
        let Answer::Failed(words) = wrong_name else { panic!("{wrong_name:?}") };
        assert!(words.starts_with("TLS failed"), "{words}");
        let strange = of("localhost", &RootCertStore::empty()).post(offer()).await;
        assert!(matches!(strange, Answer::Failed(_)), "{strange:?}");
        assert_eq!(of("localhost", &roots).post(offer()).await, Answer::Status(200));
        task.await.unwrap();
    }

    #[test]
    fn only_urls_that_could_work_are_taken() {
        let of = |url: &str, private| Webhook::new(&options(url.into(), private)).map(|hook| (hook.host, hook.port));
        assert_eq!(of("http://hooks.example/", false), Err(WebhookError::Plain));
        assert_eq!(of("http://hooks.example", true), Ok(("hooks.example".into(), 80)));
        assert_eq!(of("http://[::1]:8080/x", true), Ok(("::1".into(), 8080)));
        for url in ["", "/x", "ftp://x.example/", "http://", "http://user:pw@x.example/"] {
            let error = of(url, true).unwrap_err();
            assert_eq!(error, WebhookError::Url, "{url}");
            assert!(!error.to_string().contains("pw"));
        }
        let hook = Webhook::new(&options("http://hooks.example/s3cr3t".into(), true)).unwrap();
        assert!(!format!("{hook:?}").contains("s3cr3t"));
    }
}
