//! One connection: the steps of a [`Session`] over a socket. No mail logic.
//!
//! Promises: octets are read into the stack of the moment and handed to the session at once, so an
//! idle connection holds no buffer; every wait has an end (the session's deadline, the write
//! time-out, the handshake time-out); the last reply is not lost to a reset, because the socket is
//! closed by halves and listened to a little longer. However a connection ends, its places are
//! given back and its end is logged ([`Opened`] does both when dropped): a panic in here ends this
//! connection and no other.
//!
//! A connection that ends before the client has sent an octet is a health check or a port scan: it
//! has no lines in the log.
//!
//! Memory: the data of a message is counted in steps in `limits.memory_bytes` as it comes in. While
//! it waits for room nothing is read, so the client slows down; when none comes it is starved. What
//! of a large message is spilled goes to a file of the outbox's while it comes in, and counts no more.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::Conversation;
use super::memory::Share;
use super::{Bounds, Door, Office, Tls};
use crate::journal::{self, Blame, Verdict};
use crate::mail::{Login, MessageId, SessionId};
use crate::outbox::Draft;
use crate::smtp::session::{Ending, Spurned, Unkept};
use crate::smtp::{Answer, Question, Session, Step, Terms};
use crate::time::Clock;
use crate::wire::Secured;

/// Most octets read at once; one TLS record (RFC 8446 5.1).
const READ: usize = 16 * 1024;
/// Most octets of a client's that are read and thrown away while closing.
const LINGER_OCTETS: u64 = 256 * 1024;

/// A socket, plain or secured.
enum Wire {
    Plain(TcpStream),
    Secured(Secured),
    /// Handed to a handshake that did not come to an end.
    Gone,
}

/// A connection that was admitted.
pub(super) struct Connection {
    wire: Wire,
    session: Session,
    conversation: Conversation,
    /// Memory that the session's data is counted in.
    share: Share,
    /// Where the session's data is spilled to.
    draft: Option<Box<dyn Draft>>,
    opened: Opened,
    secure: bool,
    door: Arc<Door>,
    drain: CancellationToken,
    /// The session has been told of the drain.
    drained: bool,
}

/// Why there is no TLS.
enum NoTls {
    /// The client sent nothing at all.
    Silent,
    /// We are draining, and it has sent nothing yet.
    Draining,
    Failed(String),
}

impl Connection {
    /// A conversation on `socket` for the client at `peer`. `quiet`: the client is a load balancer
    /// itself, its session is not logged.
    pub(super) fn new(
        office: Arc<Office>,
        bounds: Arc<Bounds>,
        door: Arc<Door>,
        socket: TcpStream,
        peer: SocketAddr,
        quiet: bool,
        drain: CancellationToken,
    ) -> Self {
        let clock = &office.means.clock;
        let id = SessionId::new(clock.now(), &*office.means.random);
        let secure = door.tls == Tls::Implicit;
        let session = greeted(&office, bounds.terms(door.tls), secure);
        let opened = Opened::new(Arc::clone(&office), Arc::clone(&bounds), id, peer, door.address, quiet);
        let conversation = Conversation { office, bounds, session: id, peer, place: None };
        Self {
            wire: Wire::Plain(socket),
            session,
            conversation,
            share: Share::default(),
            draft: None,
            opened,
            secure,
            door,
            drain,
            drained: false,
        }
    }

    /// The whole conversation.
    pub(super) async fn run(mut self) {
        if self.secure {
            match self.handshake().await {
                // The handshake took its time: the conversation begins here.
                Ok(()) => {
                    let terms = self.opened.bounds.terms(self.door.tls);
                    self.session = greeted(&self.opened.office, terms, true);
                }
                Err(why) => return self.no_tls(why),
            }
        }
        loop {
            let step = self.session.step(self.opened.now());
            for Spurned { username, why } in self.session.take_spurned() {
                let Conversation { session, peer, .. } = self.conversation;
                journal::login_refused(session, peer, &username, &why.to_string());
            }
            match step {
                Step::Read => self.read().await,
                Step::Wait => self.wait().await,
                Step::Write(octets) => self.write(octets).await,
                Step::Ask(question) => {
                    let (share, draft) = (std::mem::take(&mut self.share), self.draft_of(&question));
                    // The answers are the large states of a connection; they are there while asked.
                    let answer = Box::pin(self.conversation.answer(question, self.secure, share, draft)).await;
                    self.note(&answer);
                    self.session.answer(answer, self.opened.now());
                }
                Step::Secure => match self.handshake().await {
                    Ok(()) => {
                        self.secure = true;
                        self.session.secured(self.opened.now());
                    }
                    Err(why) => return self.no_tls(why),
                },
                Step::Close => return self.close().await,
            }
        }
    }

    /// Waits for octets until the session's deadline.
    async fn read(&mut self) {
        if self.session.held_bytes() == 0 {
            self.share.give_back();
        }
        let deadline = self.session.deadline();
        let Self { wire, session, opened, drain, drained, .. } = self;
        let clock = Arc::clone(&opened.office.means.clock);
        tokio::select! {
            biased;
            () = drain.cancelled(), if !*drained => {
                *drained = true;
                session.drain();
            }
            received = poll_fn(|cx| poll_receive(wire, session, &*clock, cx)) => match received {
                Ok(0) | Err(_) => session.lost(),
                Ok(_) => opened.tell(),
            },
            () = until(deadline) => session.expire(clock.instant()),
        }
        self.spill().await;
        self.count_memory().await;
    }

    /// Writes what the session gives out of a large message to a file, so that it need not be held in
    /// memory. What of it was given up is thrown away.
    async fn spill(&mut self) {
        if self.session.spilled_bytes() == 0 {
            self.draft = None;
        }
        let Opened { office, bounds, .. } = &self.opened;
        let outbox = office.means.dispatch.outbox();
        if self.draft.is_none() {
            if self.session.held_bytes() <= bounds.spill_bytes() {
                return;
            }
            // Where no file can be had the message stays in memory, as long as there is some: SES may
            // take it at once.
            match outbox.begin(bounds.head_bytes()).await {
                Ok(draft) => self.draft = Some(draft),
                Err(_) => return,
            }
        }
        let Some(draft) = &mut self.draft else { return };
        while let Some(octets) = self.session.spill() {
            if let Err(error) = outbox.append(&mut **draft, octets).await {
                journal::spill_failed(self.conversation.session, &error.to_string());
                self.draft = None;
                self.session.spill_failed();
                return;
            }
            self.share.shrink(self.session.held_bytes());
        }
    }

    /// The file of the message that is asked about.
    fn draft_of(&mut self, question: &Question) -> Option<Box<dyn Draft>> {
        match question {
            Question::Accept { .. } => self.draft.take(),
            Question::Authenticate { .. } | Question::Sender { .. } | Question::Recipient { .. } => None,
        }
    }

    /// Counts what the session holds; starves it when there is no room. What it held is not given
    /// back before the next read: if the data has come in whole, the message takes the share over.
    async fn count_memory(&mut self) {
        let memory = &self.opened.office.memory;
        if memory.cover(&mut self.share, self.session.held_bytes()).await.is_err() {
            self.session.starve();
        }
    }

    async fn wait(&mut self) {
        until(self.session.deadline()).await;
        self.session.expire(self.opened.now());
    }

    async fn write(&mut self, octets: Bytes) {
        for reply in self.session.take_replies() {
            journal::replied(&reply);
        }
        for unkept in self.session.take_unkept() {
            self.tell_unkept(&unkept);
        }
        let written = timeout(self.opened.bounds.limits.write_time, self.wire.write(&octets)).await;
        if !matches!(written, Ok(Ok(()))) {
            self.session.lost();
        }
    }

    /// The verdict line of a message that the session refused by itself.
    fn tell_unkept(&self, unkept: &Unkept) {
        let means = &self.opened.office.means;
        let verdict = Verdict {
            session: self.conversation.session,
            message: MessageId::new(means.clock.now(), &*means.random),
            peer: self.conversation.peer,
            login: &unkept.login,
            stream: unkept.login.stream.as_ref(),
            from: &unkept.envelope.reverse_path,
            recipients: &unkept.envelope.forward_paths,
            // Nothing of it was kept.
            bytes: 0,
            reply: &unkept.reply,
            ses: Duration::ZERO,
            total: Duration::ZERO,
        };
        let blame = if unkept.reply.code() < 500 { Blame::Us } else { Blame::Client };
        journal::message_refused(&verdict, &unkept.reply.text(), blame, &[], 0);
    }

    /// TLS, from the client's first octet on.
    async fn handshake(&mut self) -> Result<(), NoTls> {
        let Wire::Plain(socket) = std::mem::replace(&mut self.wire, Wire::Gone) else {
            return Err(NoTls::Failed("TLS is up already".into()));
        };
        let Self { opened, drain, .. } = self;
        let secured = timeout(opened.bounds.limits.handshake_time, Box::pin(secure(socket, opened, drain))).await;
        self.wire =
            Wire::Secured(secured.unwrap_or_else(|_| Err(NoTls::Failed("the handshake took too long".into())))?);
        Ok(())
    }

    fn no_tls(mut self, why: NoTls) {
        match why {
            NoTls::Silent => self.opened.ending = "lost",
            NoTls::Draining => self.opened.ending = "ours",
            NoTls::Failed(reason) => {
                self.opened.ending = "tls_failed";
                if self.opened.told {
                    journal::tls_failed(self.conversation.session, self.conversation.peer, &reason);
                }
            }
        }
    }

    /// Remembers what the end of the session will say.
    fn note(&mut self, answer: &Answer) {
        match answer {
            Answer::Login(Ok(login)) => self.opened.login = Some(Arc::clone(login)),
            Answer::Accept(Ok(_)) => self.opened.messages += 1,
            Answer::Login(Err(_)) | Answer::Path(_) | Answer::Accept(Err(_)) => {}
        }
    }

    async fn close(mut self) {
        let ending = self.session.ending();
        self.opened.ending = word(ending);
        if !matches!(ending, Some(Ending::Lost | Ending::LostInData)) {
            self.wire.close(&self.opened.bounds.limits).await;
        }
    }
}

/// A session whose greeting says so if no mail can be held. SES may still take what it takes at once.
fn greeted(office: &Office, terms: Arc<Terms>, secure: bool) -> Session {
    let mut session = Session::new(terms, secure, office.means.clock.instant());
    if office.means.dispatch.outbox().fault().is_some() {
        session.note_in_greeting("no mail can be held at the moment; what cannot be relayed at once hears 452");
    }
    session
}

/// Says `session`'s refusal and closes: for connections that are not admitted.
pub(super) async fn turn_away(office: &Office, bounds: &Bounds, socket: TcpStream, mut session: Session) {
    let mut wire = Wire::Plain(socket);
    loop {
        match session.step(office.means.clock.instant()) {
            Step::Write(octets) => {
                for reply in session.take_replies() {
                    journal::replied(&reply);
                }
                if !matches!(timeout(bounds.limits.linger_time, wire.write(&octets)).await, Ok(Ok(()))) {
                    return;
                }
            }
            // A refused session has nothing else to do.
            Step::Close | Step::Read | Step::Wait | Step::Ask(_) | Step::Secure => {
                return wire.close(&bounds.limits).await;
            }
        }
    }
}

/// Waits for the first octet, then for a place among the handshakes, then for TLS. A client that
/// says nothing costs no place.
async fn secure(socket: TcpStream, opened: &mut Opened, drain: &CancellationToken) -> Result<Secured, NoTls> {
    let failed = |error: io::Error| NoTls::Failed(error.to_string());
    let mut first = [0; 1];
    let first = tokio::select! {
        () = drain.cancelled(), if !opened.told => return Err(NoTls::Draining),
        first = socket.peek(&mut first) => first,
    };
    match first {
        Ok(0) if !opened.told => return Err(NoTls::Silent),
        Err(_) if !opened.told => return Err(NoTls::Silent),
        Ok(0) => return Err(NoTls::Failed("the client closed instead of a handshake".into())),
        Err(error) => return Err(failed(error)),
        Ok(_) => opened.tell(),
    }
    let Some(acceptor) = &opened.office.means.acceptor else {
        return Err(NoTls::Failed("there is no certificate".into()));
    };
    let _place = opened.office.handshakes.take(1).await;
    acceptor.secure(socket).await.map_err(failed)
}

/// Reads what is there into the stack and hands it over. The array is gone when this returns: it is
/// no part of the connection's state.
fn poll_receive(
    wire: &mut Wire,
    session: &mut Session,
    clock: &dyn Clock,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut octets = [MaybeUninit::uninit(); READ];
    let mut buffer = ReadBuf::uninit(&mut octets);
    match wire {
        Wire::Plain(socket) => ready!(Pin::new(socket).poll_read(cx, &mut buffer))?,
        Wire::Secured(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buffer))?,
        Wire::Gone => {}
    }
    if !buffer.filled().is_empty() {
        session.receive(buffer.filled(), clock.instant());
    }
    Poll::Ready(Ok(buffer.filled().len()))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Wire {
    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(octets).await,
            Self::Secured(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Closes our half (with TLS's close_notify), then reads until the client closes its own, for a
    /// while. A socket closed with unread octets would be reset, and the reset could overtake our
    /// last reply.
    async fn close(&mut self, limits: &super::Limits) {
        let closing = async {
            let nowhere = &mut tokio::io::sink();
            match self {
                Self::Plain(socket) => {
                    socket.shutdown().await?;
                    tokio::io::copy(&mut socket.take(LINGER_OCTETS), nowhere).await?;
                }
                Self::Secured(stream) => {
                    stream.shutdown().await?;
                    tokio::io::copy(&mut stream.take(LINGER_OCTETS), nowhere).await?;
                }
                Self::Gone => {}
            }
            io::Result::Ok(())
        };
        // The client's manners at the very end are no news.
        let _ = timeout(limits.linger_time, Box::pin(closing)).await;
    }
}

/// What a session's lines say, from its first octet to its end.
struct Opened {
    office: Arc<Office>,
    bounds: Arc<Bounds>,
    session: SessionId,
    peer: SocketAddr,
    listener: SocketAddr,
    login: Option<Arc<Login>>,
    /// Messages that were taken.
    messages: u64,
    since: Instant,
    quiet: bool,
    /// `session_opened` has been written.
    told: bool,
    ending: &'static str,
}

impl Opened {
    fn new(
        office: Arc<Office>,
        bounds: Arc<Bounds>,
        session: SessionId,
        peer: SocketAddr,
        listener: SocketAddr,
        quiet: bool,
    ) -> Self {
        let since = office.means.clock.instant();
        office.sessions.fetch_add(1, Ordering::Relaxed);
        Self {
            office,
            bounds,
            session,
            peer,
            listener,
            login: None,
            messages: 0,
            since,
            quiet,
            told: false,
            ending: "abandoned",
        }
    }

    fn now(&self) -> Instant {
        self.office.means.clock.instant()
    }

    /// The client has said something: the session has begun.
    fn tell(&mut self) {
        if !self.told && !self.quiet {
            self.told = true;
            journal::session_opened(self.session, self.peer, self.listener);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.office.sessions.fetch_sub(1, Ordering::Relaxed);
        if self.told {
            let ending = if std::thread::panicking() { "panicked" } else { self.ending };
            let lasted = self.now().saturating_duration_since(self.since);
            journal::session_closed(self.session, self.peer, self.login.as_deref(), ending, self.messages, lasted);
        }
    }
}

/// An ending in the log.
fn word(ending: Option<Ending>) -> &'static str {
    match ending {
        Some(Ending::Quit) => "quit",
        Some(Ending::Lost) => "lost",
        Some(Ending::LostInData) => "lost_in_data",
        Some(Ending::TimedOut) => "timed_out",
        Some(Ending::Expelled) => "expelled",
        Some(Ending::OutOfStep) => "out_of_step",
        Some(Ending::Ours) | None => "ours",
    }
}
