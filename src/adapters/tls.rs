//! TLS for the listeners: rustls with aws-lc-rs, TLS 1.2 and 1.3.
//!
//! Promises: a certificate is loaded whole or not at all; a reload that fails keeps the old one; a
//! reload never touches a connection that is up, the next handshake has the new certificate. Every
//! error names the file and what to do about it.
//! Refuses: a key that does not belong to the certificate, files without either. An expired
//! certificate is served (clients that do not check are better off with TLS than without) and
//! said loudly in the log, when it is loaded and once a day from 14 days before its end.
//! What can go wrong: certificate and key are two files, and whoever renews them writes one after
//! the other. In between they do not fit: `certificate_refused` is logged, the old pair stays, and
//! the change of the second file starts the next attempt.
//!
//! No session tickets are sent: with an ECDSA key resumption saves nothing (measured: manual,
//! measurements), and a client that hangs up without having read them would turn our close into a
//! reset.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::journal;
use crate::store::Pending;
use crate::time::{Clock, Timestamp};
use crate::wire::{Acceptor, Secured};

/// How long before its end a certificate is warned about.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often it is warned about.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Why a certificate is not used. Every variant says which file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error(
        "{file}: cannot be read ({source}); set tls.certificate_file and tls.private_key_file to files that this process may read"
    )]
    Read {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file that is damaged as PEM.
    #[error("{file}: is no valid PEM ({why}); write it again, complete with its BEGIN and END lines")]
    Pem {
        /// Which.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// No certificate in the certificate file.
    #[error("{file}: has no certificate in it; it should hold the server's certificate in PEM, then its issuers'")]
    NoCertificate {
        /// Which.
        file: String,
    },
    /// No key in the key file.
    #[error("{file}: has no private key in it; it should hold one key in PEM without a passphrase")]
    NoKey {
        /// Which.
        file: String,
    },
    /// The two files do not belong together.
    #[error("{key_file}: is not the key of {certificate_file}; put the pair from one issuance in place")]
    Mismatch {
        /// The certificate.
        certificate_file: String,
        /// The key.
        key_file: String,
    },
    /// rustls cannot use it.
    #[error(
        "{file}: cannot be used ({why}); ECDSA P-256 or P-384, Ed25519 and RSA keys of 2048 bits and more are good"
    )]
    Unusable {
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// A throw-away certificate could not be made.
    #[error("a certificate for {names} could not be made ({why})")]
    Making {
        /// For which names.
        names: String,
        /// Why.
        why: String,
    },
}

/// A CA certificate in PEM.
#[derive(Clone, Debug)]
pub struct CaPem(pub String);

/// A server certificate in PEM, with its chain if it has one.
#[derive(Clone, Debug)]
pub struct CertPem(pub String);

/// A private key in PEM. Shows nothing in `Debug`.
#[derive(Clone)]
pub struct KeyPem(pub zeroize::Zeroizing<String>);

impl std::fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPem(…)")
    }
}

/// The certificate that new connections get.
pub struct Certificates {
    config: ArcSwap<ServerConfig>,
    source: Source,
    end: Mutex<End>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("file", &self.source.name()).finish_non_exhaustive()
    }
}

/// The end of the certificate in use.
struct End {
    /// `None`: it cannot be read, or the certificate came from memory and is nobody's to renew.
    at: Option<Timestamp>,
    /// When it was last looked at.
    looked: Instant,
}

enum Source {
    Memory,
    Files { certificate: PathBuf, key: PathBuf, seen: Mutex<[Stamp; 2]> },
}

/// What tells one state of a file from another; `None` while it is not there.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Memory => "memory".into(),
            Self::Files { certificate, .. } => certificate.display().to_string(),
        }
    }
}

impl Certificates {
    /// Loads certificate and key from PEM files.
    pub fn load(certificate: &Path, key: &Path, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        // The stamps first: a change between stamp and read is then seen at the next look.
        let seen = [stamp(certificate), stamp(key)];
        let (config, ends) = read_files(certificate, key)?;
        let certificates = Self {
            config: ArcSwap::from_pointee(config),
            source: Source::Files { certificate: certificate.into(), key: key.into(), seen: Mutex::new(seen) },
            end: Mutex::new(End { at: ends, looked: clock.instant() }),
            clock,
        };
        certificates.tell(ends);
        Ok(certificates)
    }

    /// Takes certificate and key as they are, from memory; [`Self::reload`] does nothing.
    pub fn from_pem(certificate: &CertPem, key: &KeyPem, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let (config, _) = build(
            certificate.0.as_bytes(),
            key.0.as_bytes(),
            &Names { certificate: "the certificate".into(), key: "the private key".into() },
        )?;
        let end = Mutex::new(End { at: None, looked: clock.instant() });
        Ok(Self { config: ArcSwap::from_pointee(config), source: Source::Memory, end, clock })
    }

    /// Replaces the certificate that new connections get. Open connections keep theirs.
    pub fn replace(&self, certificate: &CertPem, key: &KeyPem) -> Result<(), TlsError> {
        let names = Names { certificate: "the certificate".into(), key: "the private key".into() };
        let (config, _) = build(certificate.0.as_bytes(), key.0.as_bytes(), &names)?;
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// Reads the files again; on an error the old certificate stays. Blocks for as long as reading
    /// two small files takes.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Source::Files { certificate, key, seen } = &self.source else { return Ok(()) };
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = [stamp(certificate), stamp(key)];
        match read_files(certificate, key) {
            Ok((config, ends)) => {
                self.config.store(Arc::new(config));
                self.tell(ends);
                Ok(())
            }
            Err(error) => {
                journal::certificate_refused(&self.source.name(), &error.to_string());
                Err(error)
            }
        }
    }

    /// Whether a file is not what it was when it was last read (time, length or inode).
    pub fn changed(&self) -> bool {
        match &self.source {
            Source::Memory => false,
            Source::Files { certificate, key, seen } => {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) != [stamp(certificate), stamp(key)]
            }
        }
    }

    /// Looks at the files every so often and reloads what has changed, until the drain. Once a day it
    /// warns of a certificate whose end is near or over.
    pub async fn watch(self: Arc<Self>, every: Duration, drain: CancellationToken) {
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let this = Arc::clone(&self);
            // The outcome is in the journal; a panic in there ends one look, not the watch.
            let look = move || {
                this.changed().then(|| this.reload());
                this.look_at_end();
            };
            let _ = tokio::task::spawn_blocking(look).await;
        }
    }

    fn tell(&self, ends: Option<Timestamp>) {
        journal::certificate_loaded(&self.source.name());
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = End { at: ends, looked: self.clock.instant() };
        self.warn(ends);
    }

    /// Warns, unless that was looked at within the day.
    fn look_at_end(&self) {
        let now = self.clock.instant();
        let ends = {
            let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            if now.saturating_duration_since(end.looked) < WARN_EVERY {
                return;
            }
            end.looked = now;
            end.at
        };
        self.warn(ends);
    }

    fn warn(&self, ends: Option<Timestamp>) {
        let now = self.clock.now();
        if let Some(ends) = ends.filter(|ends| *ends < now.plus(WARN_BEFORE)) {
            journal::certificate_ends(&self.source.name(), ends, ends <= now);
        }
    }
}

impl Acceptor for Certificates {
    fn secure(&self, plain: TcpStream) -> Pending<'static, io::Result<Secured>> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        Box::pin(async move {
            let stream = acceptor.accept(plain).await?;
            Ok(Box::new(stream) as Secured)
        })
    }
}

struct Names {
    certificate: String,
    key: String,
}

fn read_files(certificate: &Path, key: &Path) -> Result<(ServerConfig, Option<Timestamp>), TlsError> {
    let read =
        |file: &Path| std::fs::read(file).map_err(|source| TlsError::Read { file: file.display().to_string(), source });
    let names = Names { certificate: certificate.display().to_string(), key: key.display().to_string() };
    build(&read(certificate)?, &zeroize::Zeroizing::new(read(key)?), &names)
}

/// The configuration, and when the certificate ends if that can be read.
fn build(certificate: &[u8], key: &[u8], names: &Names) -> Result<(ServerConfig, Option<Timestamp>), TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(&names.certificate, &error))?;
    let Some(leaf) = chain.first() else {
        return Err(TlsError::NoCertificate { file: names.certificate.clone() });
    };
    let ends = not_after(leaf);
    let key = match PrivateKeyDer::from_pem_slice(key) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { file: names.key.clone() }),
        Err(error) => return Err(damaged(&names.key, &error)),
    };
    let provider = provider();
    let signing = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| TlsError::Unusable { file: names.key.clone(), why: error.to_string() })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // A key that cannot say its public half is told apart by the first handshake only.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(TlsError::Mismatch {
                certificate_file: names.certificate.clone(),
                key_file: names.key.clone(),
            });
        }
        Err(error) => {
            return Err(TlsError::Unusable { file: names.certificate.clone(), why: error.to_string() });
        }
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError::Unusable { file: names.certificate.clone(), why: error.to_string() })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.send_tls13_tickets = 0;
    Ok((config, ends))
}

fn damaged(file: &str, error: &pem::Error) -> TlsError {
    TlsError::Pem { file: file.into(), why: error.to_string() }
}

/// One provider for every configuration, named here rather than installed for the process, so that
/// what another crate installs changes nothing.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
}

/// A client configuration that trusts one CA and nothing else: for the demo, `send-test` and tests.
pub fn client_trusting(ca: &CaPem) -> Result<Arc<ClientConfig>, TlsError> {
    let file = || "the CA certificate".to_owned();
    let unusable = |error: rustls::Error| TlsError::Unusable { file: file(), why: error.to_string() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.0.as_bytes()) {
        roots.add(certificate.map_err(|error| damaged(&file(), &error))?).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificate { file: file() });
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A throw-away CA and a server certificate of it for `names` (DNS names or addresses), `127.0.0.1`,
/// `::1` and `localhost`. The CA's key is forgotten on return.
pub fn self_signed(names: &[String]) -> Result<(CaPem, CertPem, KeyPem), TlsError> {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };

    let making = |error: rcgen::Error| TlsError::Making { names: names.join(", "), why: error.to_string() };
    let mut ca = CertificateParams::new(Vec::new()).map_err(making)?;
    ca.distinguished_name.push(DnType::CommonName, "Bulkhead throw-away CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate().map_err(making)?;
    let ca_certificate = ca.self_signed(&ca_key).map_err(making)?;

    let mut all: Vec<String> = names.to_vec();
    for name in ["localhost", "127.0.0.1", "::1"] {
        if !all.iter().any(|have| have == name) {
            all.push(name.into());
        }
    }
    let mut leaf = CertificateParams::new(all).map_err(making)?;
    leaf.distinguished_name.push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(making)?;
    let certificate = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).map_err(making)?;
    Ok((CaPem(ca_certificate.pem()), CertPem(certificate.pem()), KeyPem(zeroize::Zeroizing::new(key.serialize_pem()))))
}

/// When a certificate ends (RFC 5280 4.1.2.5); `None` for what cannot be read, which is no reason to
/// refuse it: rustls has judged it already.
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (SEQUENCE, outer, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(outer)? else { return None };
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // serialNumber, signature, issuer
    for expected in [INTEGER, SEQUENCE, SEQUENCE] {
        let (tag, _, after) = element(rest)?;
        if tag != expected {
            return None;
        }
        rest = after;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (_, _, after) = element(validity)?;
    let (tag, time, _) = element(after)?;
    read_time(tag, std::str::from_utf8(time).ok()?)
}

/// `YYMMDDHHMMSSZ` (UTCTime, 1950 to 2049) or `YYYYMMDDHHMMSSZ` (GeneralizedTime).
fn read_time(tag: u8, text: &str) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let full = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |range| full.get(range);
    Timestamp::parse_rfc3339(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    ))
}

/// The first DER element: its tag, its content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let octets = usize::from(first & 0x7f);
        if octets == 0 || octets > 4 {
            return None;
        }
        let (size, after) = rest.split_at_checked(octets)?;
        length = size.iter().fold(0, |sum, octet| (sum << 8) | usize::from(*octet));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::parse_rfc3339("2026-11-22T12:00:00Z").unwrap()
        }
        fn instant(&self) -> std::time::Instant {
            std::time::Instant::now()
        }
    }

    fn pair() -> (CaPem, CertPem, KeyPem) {
        self_signed(&["relay.example".into()]).unwrap()
    }

    fn written(certificate: &str, key: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (c, k) = (dir.path().join("relay.pem"), dir.path().join("relay.key"));
        std::fs::write(&c, certificate).unwrap();
        std::fs::write(&k, key).unwrap();
        (dir, c, k)
    }

    fn load(certificate: &Path, key: &Path) -> Result<Certificates, TlsError> {
        Certificates::load(certificate, key, Arc::new(Noon))
    }

    #[test]
    fn every_error_names_its_file_and_a_cure() {
        let (_, certificate, key) = pair();
        let (_, _, other_key) = pair();
        let cases: [(&str, &str, &str, &str); 6] = [
            ("", &key.0, "relay.pem", "has no certificate"),
            (&key.0, &key.0, "relay.pem", "has no certificate"),
            (&certificate.0, "", "relay.key", "has no private key"),
            (&certificate.0, &certificate.0, "relay.key", "has no private key"),
            (&certificate.0, &other_key.0, "relay.key", "is not the key of"),
            ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", &key.0, "relay.pem", "no valid PEM"),
        ];
        for (certificate, key, file, words) in cases {
            let (_dir, c, k) = written(certificate, key);
            let text = load(&c, &k).err().unwrap().to_string();
            assert!(text.contains(file) && text.contains(words) && text.contains(';'), "{words}: {text}");
        }
        let (_dir, c, k) = written(&certificate.0, &key.0);
        std::fs::remove_file(&k).unwrap();
        let text = load(&c, &k).err().unwrap().to_string();
        assert!(text.contains("relay.key") && text.contains("cannot be read"), "{text}");
    }

    #[test]
    fn a_failed_reload_keeps_the_old_certificate_and_is_tried_again_on_the_next_change() {
        let (_, certificate, key) = pair();
        let (_, new_certificate, new_key) = pair();
        let (_dir, c, k) = written(&certificate.0, &key.0);
        let certificates = load(&c, &k).unwrap();
        let before = certificates.config.load_full();
        assert!(!certificates.changed());

        std::fs::write(&c, new_certificate.0.as_bytes()).unwrap();
        assert!(certificates.changed());
        assert!(matches!(certificates.reload(), Err(TlsError::Mismatch { .. })));
        assert!(Arc::ptr_eq(&before, &certificates.config.load_full()));
        assert!(!certificates.changed(), "one failure is told once");

        // Renamed over, as careful tools do it.
        let fresh = c.with_extension("new");
        std::fs::write(&fresh, new_key.0.as_bytes()).unwrap();
        std::fs::rename(&fresh, &k).unwrap();
        assert!(certificates.changed());
        certificates.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &certificates.config.load_full()));
    }

    #[tokio::test]
    async fn the_watch_loads_what_has_changed_and_ends_with_the_drain() {
        let (_, certificate, key) = pair();
        let (_, new_certificate, new_key) = pair();
        let (_dir, c, k) = written(&certificate.0, &key.0);
        let certificates = Arc::new(load(&c, &k).unwrap());
        let before = certificates.config.load_full();
        let drain = CancellationToken::new();
        let watch = tokio::spawn(Arc::clone(&certificates).watch(Duration::from_millis(1), drain.clone()));
        std::fs::write(&k, new_key.0.as_bytes()).unwrap();
        std::fs::write(&c, new_certificate.0.as_bytes()).unwrap();
        let loaded = async {
            while Arc::ptr_eq(&before, &certificates.config.load_full()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), loaded).await.unwrap();
        drain.cancel();
        watch.await.unwrap();
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms() {
        for (year, expected) in [(2031, "2031-02-03T00:00:00.000Z"), (2131, "2131-02-03T00:00:00.000Z")] {
            let mut params = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            assert_eq!(not_after(der.der()).unwrap().rfc3339(), expected);
            // No prefix of it makes the reader stumble.
            for length in 0..der.der().len() {
                let _ = not_after(&der.der()[..length]);
            }
        }
        assert_eq!(read_time(0x17, "991231235959Z").unwrap().rfc3339(), "1999-12-31T23:59:59.000Z");
        assert_eq!(read_time(0x17, "9912"), None);
        assert_eq!(read_time(0x0c, "991231235959Z"), None);
    }

    #[test]
    fn an_expired_certificate_still_loads() {
        let mut params = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let (_dir, c, k) = written(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem());
        assert!(load(&c, &k).is_ok());
    }

    #[test]
    fn a_key_shows_nothing_in_debug() {
        let (_, _, key) = pair();
        assert_eq!(format!("{key:?}"), "KeyPem(…)");
    }
}
