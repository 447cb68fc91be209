//! A client as tenants have them: TLS with the certificate checked, AUTH, one command after another.

use std::net::SocketAddr;
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;

use crate::adapters::tls::CaPem;
use crate::admin::view::Issued;
use crate::cli::Failure;

/// Longest wait for a reply.
const TIME: Duration = Duration::from_secs(30);

/// One connection, logged in.
pub(super) struct Client(AsyncSmtpConnection);

/// What the relay said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) code: u16,
    pub(super) words: String,
}

impl Said {
    pub(super) fn is_yes(&self) -> bool {
        self.code < 400
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.words)
    }
}

impl Client {
    /// Connects, with STARTTLS unless `implicit`, and logs in.
    pub(super) async fn connect(
        address: SocketAddr,
        implicit: bool,
        ca: &CaPem,
        who: &Issued,
    ) -> Result<Self, Failure> {
        let hello = ClientId::Domain("demo.example".into());
        let tls = TlsParameters::builder(address.ip().to_string())
            .certificate_store(CertificateStore::None)
            .add_root_certificate(Certificate::from_pem(ca.0.as_bytes())?)
            .build()?;
        let at_once = implicit.then(|| tls.clone());
        let mut connection = AsyncSmtpConnection::connect_tokio1(address, Some(TIME), &hello, at_once, None).await?;
        if !implicit {
            connection.starttls(tls, &hello).await?;
        }
        let credentials = Credentials::new(who.credential.username.to_string(), who.secret.0.clone());
        connection.auth(&[Mechanism::Plain], &credentials).await?;
        Ok(Self(connection))
    }

    /// MAIL FROM.
    pub(super) async fn mail(&mut self, from: &str) -> Result<Said, Failure> {
        said(self.0.command(Mail::new(Some(from.parse()?), Vec::new())).await)
    }

    /// RCPT TO.
    pub(super) async fn rcpt(&mut self, to: &str) -> Result<Said, Failure> {
        said(self.0.command(Rcpt::new(to.parse()?, Vec::new())).await)
    }

    /// DATA, and the message.
    pub(super) async fn data(&mut self, message: &[u8]) -> Result<Said, Failure> {
        let go_on = said(self.0.command(Data).await)?;
        if !go_on.is_yes() {
            return Ok(go_on);
        }
        // The client library ends the last line itself, whether it has an end or not.
        said(self.0.message(message.strip_suffix(b"\r\n").unwrap_or(message)).await)
    }

    /// RSET.
    pub(super) async fn reset(&mut self) -> Result<Said, Failure> {
        said(self.0.command(Rset).await)
    }

    /// A whole transaction to one recipient: the first no, or the last yes.
    pub(super) async fn send(&mut self, from: &str, to: &str, message: &[u8]) -> Result<Said, Failure> {
        for said in [self.mail(from).await?, self.rcpt(to).await?] {
            if !said.is_yes() {
                self.reset().await?;
                return Ok(said);
            }
        }
        self.data(message).await
    }

    /// QUIT.
    pub(super) async fn quit(mut self) {
        // The relay has all it was sent.
        let _ = self.0.quit().await;
    }
}

/// A reply is an answer here, whatever it says; only a broken connection is an error.
fn said(answer: Result<Response, Error>) -> Result<Said, Failure> {
    match answer {
        Ok(response) => {
            Ok(Said { code: response.code().into(), words: response.message().collect::<Vec<_>>().join(" ") })
        }
        Err(error) => match error.status() {
            Some(code) => {
                let text = error.to_string();
                let words = text.split_once("): ").map_or(text.as_str(), |(_, words)| words).to_owned();
                Ok(Said { code: code.into(), words })
            }
            None => Err(error.into()),
        },
    }
}
