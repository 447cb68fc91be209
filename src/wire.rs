//! The wire: a connection's octets, and how plain ones become TLS.
//!
//! [`Acceptor`] is all that the services know of TLS; `adapters/tls` has it from rustls. A secured
//! stream is an object on the heap, so that a connection that is idle costs no more than it must
//! and the services name no vendor.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::store::Pending;

/// Octets both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A secured connection.
pub type Secured = Box<dyn Duplex>;

/// Turns TCP into TLS, as the server.
pub trait Acceptor: Send + Sync + 'static {
    /// Performs the handshake with the certificate of this moment. It waits for the client without
    /// bound: the caller sets the time-out. The error is what rustls or the socket said.
    fn secure(&self, plain: TcpStream) -> Pending<'static, io::Result<Secured>>;
}
