//! Accepted connections that can be broken on purpose, and a door that can be closed.
//!
//! A `Fuse` belongs to one connection. Once it is blown the connection fails, whether it is written
//! to, read from or waits, and a zero linger makes the kernel send RST: what a client sees when a
//! load balancer dies under it. All fuses hang on the [`Door`]: closing it blows them.
//!
//! What can go wrong: between the closing of the listener and the binding of what holds its place
//! another program may take the port. The chance is a few microseconds; [`Door::close`] says so.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Most connections at once; more wait in the kernel's backlog.
pub const CONNECTIONS: usize = 1024;
/// How long a shortage of descriptors is waited out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may wait in the kernel once the door is opened again.
const BACKLOG: u32 = 1024;

/// Breaks one connection.
#[derive(Clone, Debug)]
pub(super) struct Fuse(CancellationToken);

impl Fuse {
    pub(super) fn blow(&self) {
        self.0.cancel();
    }
}

/// What lets connections in. Closed, it refuses them as a machine does on which nothing runs, and
/// breaks those that are open, with whatever was under way on them.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    way: Way,
    /// Who waits in accept.
    waiting: Option<Waker>,
}

#[derive(Debug)]
enum Way {
    /// Connections come in, their fuses hang on the token.
    Open(TcpListener, CancellationToken),
    /// A bound socket that does not listen: the kernel refuses, and gives the port to nobody else.
    Closed(Option<TcpSocket>),
}

impl Door {
    pub(super) fn new(listener: TcpListener, address: SocketAddr) -> Self {
        let way = Way::Open(listener, CancellationToken::new());
        Self { address, state: Mutex::new(State { way, waiting: None }) }
    }

    /// Refuses connections from now on and resets those that are open or wait to be accepted. Of a
    /// call under way nobody learns whether its message was taken. An error if another program took
    /// the port this very moment; it is closed all the same.
    pub fn close(&self) -> io::Result<()> {
        let mut state = self.state();
        match std::mem::replace(&mut state.way, Way::Closed(None)) {
            Way::Closed(held) => state.way = Way::Closed(held),
            Way::Open(listener, connections) => {
                connections.cancel();
                stop_listening(listener);
                state.way = Way::Closed(Some(self.holding()?));
            }
        }
        Ok(())
    }

    /// Lets connections in again, at the same address. An error if the port is gone; it stays
    /// closed. Within a Tokio runtime.
    pub fn open(&self) -> io::Result<()> {
        let mut state = self.state();
        let held = match &mut state.way {
            Way::Open(..) => return Ok(()),
            Way::Closed(held) => held.take(),
        };
        let listener = held.map_or_else(|| self.holding(), Ok)?.listen(BACKLOG)?;
        state.way = Way::Open(listener, CancellationToken::new());
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
        Ok(())
    }

    /// A socket that holds the address without listening.
    fn holding(&self) -> io::Result<TcpSocket> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The connections that were broken may linger at the port.
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        Ok(socket)
    }

    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr, Fuse)>> {
        let mut state = self.state();
        // Kept in either state: with its listener goes what would have woken us.
        state.waiting = Some(cx.waker().clone());
        let Way::Open(listener, connections) = &state.way else { return Poll::Pending };
        let mut cx = Context::from_waker(cx.waker());
        listener.poll_accept(&mut cx).map_ok(|(stream, peer)| (stream, peer, Fuse(connections.child_token())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To close it is not enough: a process that is being forked in this moment has it too, until it becomes
/// another program, and its port would not be ours to hold.
fn stop_listening(listener: TcpListener) {
    // Where a listening socket cannot be shut down it is closed alone.
    if let Ok(listener) = listener.into_std() {
        let _ = std::net::TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
    }
}

/// The door as axum sees it, with room for [`CONNECTIONS`].
pub(super) struct Entrance {
    door: Arc<Door>,
    room: Arc<Semaphore>,
}

/// A connection.
pub(super) struct Socket {
    stream: TcpStream,
    fuse: Fuse,
    blown: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Entrance {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self { door, room: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Entrance {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        let place = self.room.clone().acquire_owned().await.ok();
        loop {
            match poll_fn(|cx| self.door.poll_accept(cx)).await {
                Ok((stream, peer, fuse)) => {
                    // Without it, small answers wait 40 ms for the client's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let blown = Box::pin(fuse.0.clone().cancelled_owned());
                    return (Socket { stream, fuse, blown, _place: place }, peer);
                }
                Err(error) if is_the_clients(&error) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.door.address)
    }
}

/// A connection that was gone before it was accepted, rather than a shortage of ours.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

impl Connected<IncomingStream<'_, Entrance>> for Fuse {
    fn connect_info(stream: IncomingStream<'_, Entrance>) -> Self {
        stream.io().fuse.clone()
    }
}

impl Socket {
    fn check(&self) -> io::Result<()> {
        if self.fuse.0.is_cancelled() {
            return Err(self.broken());
        }
        Ok(())
    }

    fn broken(&self) -> io::Error {
        match self.stream.set_zero_linger() {
            Ok(()) => io::ErrorKind::ConnectionReset.into(),
            Err(error) => error,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A connection that serves nobody only ever reads: the fuse has to wake it.
        if self.fuse.0.is_cancelled() || self.blown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(self.broken()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn a_door_closes_and_opens_while_another_process_still_has_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // What a process has between its fork and its exec.
        let _inherited = listener.as_fd().try_clone_to_owned().unwrap();
        let door = Door::new(listener, address);
        door.close().unwrap();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        door.open().unwrap();
        TcpStream::connect(address).await.unwrap();
    }
}
