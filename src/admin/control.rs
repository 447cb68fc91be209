//! The control socket: commands to a relay that runs.
//!
//! `control.sock` in the data folder, mode 0600: who may open it may do everything. One request is
//! one line, `{"request": …}`, answered by one line, `{"ok": …}` or `{"error": …}`, any number in
//! turn. Who asks is not what the client says but what the kernel says of the peer.
//!
//! Promises: the socket is never open to others, not for a moment and whatever the umask: it is made
//! in a folder of mode 0700 and moved into place. A socket that a dead process left is replaced, one
//! that answers is refused. A request that was read is carried out to its end, even if its sender
//! has gone.
//! Bounds: [`LINE`] octets a line, [`CONNECTIONS`] connections, [`IDLE`] between requests.
//! What can go wrong: a data folder whose path is too long for a socket address (107 octets on
//! Linux), or on a file system without sockets.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::command::{Desk, Request, Response, perform};
use super::error::CommandError;

/// The socket's name in the data folder.
pub const SOCKET: &str = "control.sock";
/// Longest request or answer in octets.
pub const LINE: usize = 4 * 1024 * 1024;
/// Most connections at a time; more wait.
pub const CONNECTIONS: usize = 8;
/// Longest wait for the next request of a connection, and for an answer to be taken.
pub const IDLE: Duration = Duration::from_secs(60);
/// Longest wait of a client for its answer.
pub const ANSWER: Duration = Duration::from_secs(600);

/// The socket, bound.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    desk: Arc<Desk>,
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another relay answers on it.
    #[error("{0} answers: another relay runs with this data folder; stop it first")]
    Live(PathBuf),
    /// Everything else.
    #[error("the control socket {0} cannot be made: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// One open connection to a relay that runs.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No relay runs with this data folder.
    #[error("no relay runs with this data folder")]
    NotRunning,
    /// The socket belongs to somebody else.
    #[error("{0} may be opened by its owner alone; run the command as the user the relay runs as")]
    Denied(PathBuf),
    /// Everything else.
    #[error("the control socket {0} cannot be reached: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Why an answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The relay answered that it could not.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The connection broke. Whether the command was carried out is not known.
    #[error("the relay did not answer ({0}); look whether the command was carried out before you give it again")]
    Lost(io::Error),
    /// What came is no answer of ours.
    #[error(
        "the relay's answer cannot be read ({0}); is it another version? `bulkhead status` and `bulkhead --version` tell"
    )]
    Strange(String),
    /// The request is over [`LINE`].
    #[error("the request is longer than {LINE} octets; split the file")]
    TooLong,
}

#[derive(Serialize, Deserialize)]
struct Question {
    request: Request,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Box<Response>),
    Error(CommandError),
}

impl Control {
    /// Opens the socket in `data_dir`, which must be there.
    pub async fn bind(data_dir: &Path, desk: Arc<Desk>) -> Result<Self, BindError> {
        let path = data_dir.join(SOCKET);
        if UnixStream::connect(&path).await.is_ok() {
            return Err(BindError::Live(path));
        }
        let (listener, inode) = place(data_dir, &path).map_err(|error| BindError::Io(path.clone(), error))?;
        Ok(Self { listener, path, inode, desk })
    }

    /// Answers until `stop`; what is being carried out then is finished. Removes the socket.
    pub async fn run(self, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: the next accept would fail as fast.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            let desk = Arc::clone(&self.desk);
            let stop = stop.clone();
            tasks.spawn(async move {
                converse(stream, desk, stop).await;
                drop(permit);
            });
        }
        tasks.close();
        tasks.wait().await;
        // Only our own: another relay may have moved in since.
        if std::fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket where nobody else can look, then moves it to its place.
fn place(data_dir: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
    // A short name: the whole path has to fit a socket address.
    let nest = data_dir.join(".ctl");
    let made = nest.join("s");
    let _ = std::fs::remove_file(&made);
    match std::fs::DirBuilder::new().mode(0o700).create(&nest) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => std::fs::set_permissions(&nest, std::fs::Permissions::from_mode(0o700))?,
    }
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&made, path)?;
    let inode = std::fs::metadata(path)?.ino();
    std::fs::remove_dir(&nest)?;
    Ok((listener, inode))
}

async fn converse(stream: UnixStream, desk: Arc<Desk>, stop: CancellationToken) {
    let actor = format!("cli:{}", stream.peer_cred().map_or_else(|_| "unknown".into(), |peer| os_user(peer.uid())));
    let mut stream = BufReader::new(stream);
    loop {
        let line = tokio::select! {
            () = stop.cancelled() => return,
            line = tokio::time::timeout(IDLE, read_line(&mut stream)) => line,
        };
        let Ok(Ok(Some(line))) = line else { return };
        let answer = match serde_json::from_slice::<Question>(&line) {
            Ok(Question { request }) => {
                // A task of its own, so that a client that leaves cannot stop a change half way.
                let (desk, actor) = (Arc::clone(&desk), actor.clone());
                match tokio::spawn(async move { perform(&desk, request, &actor).await }).await {
                    Ok(Ok(response)) => Answer::Ok(Box::new(response)),
                    Ok(Err(error)) => Answer::Error(error),
                    Err(_) => Answer::Error(CommandError::Fault),
                }
            }
            Err(error) => Answer::Error(CommandError::Unreadable { words: error.to_string() }),
        };
        let mut octets = serde_json::to_vec(&answer).unwrap_or_default();
        octets.push(b'\n');
        let written = tokio::time::timeout(IDLE, stream.write_all(&octets)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// One line without its end; `None` at the end of the stream; an error over [`LINE`].
async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let (taken, ended) = match chunk.iter().position(|octet| *octet == b'\n') {
            Some(end) => (end, true),
            None => (chunk.len(), false),
        };
        if line.len() + taken > LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        line.extend_from_slice(chunk.get(..taken).unwrap_or_default());
        from.consume(taken + usize::from(ended));
        if ended {
            return Ok(Some(line));
        }
    }
}

impl Client {
    /// Reaches the relay that runs with `data_dir`.
    pub async fn connect(data_dir: &Path) -> Result<Self, ConnectError> {
        let path = data_dir.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::NotRunning,
                io::ErrorKind::PermissionDenied => ConnectError::Denied(path),
                _ => ConnectError::Io(path, error),
            }),
        }
    }

    /// Gives a command and waits for its answer.
    pub async fn ask(&mut self, request: Request) -> Result<Response, AskError> {
        let mut line =
            serde_json::to_vec(&Question { request }).map_err(|error| AskError::Strange(error.to_string()))?;
        if line.len() > LINE {
            return Err(AskError::TooLong);
        }
        line.push(b'\n');
        self.stream.write_all(&line).await.map_err(AskError::Lost)?;
        let lost = |kind: io::ErrorKind| AskError::Lost(kind.into());
        let line = match tokio::time::timeout(ANSWER, read_line(&mut self.stream)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Err(lost(io::ErrorKind::UnexpectedEof)),
            Ok(Err(error)) => return Err(AskError::Lost(error)),
            Err(_) => return Err(lost(io::ErrorKind::TimedOut)),
        };
        match serde_json::from_slice(&line) {
            Ok(Answer::Ok(response)) => Ok(*response),
            Ok(Answer::Error(error)) => Err(error.into()),
            Err(error) => Err(AskError::Strange(error.to_string())),
        }
    }
}

/// The actor of a command that this process carries out itself: `cli:` and the name of its user.
pub fn own_actor() -> String {
    let user = std::fs::metadata("/proc/self").map(|meta| os_user(meta.uid()));
    format!("cli:{}", user.unwrap_or_else(|_| std::env::var("USER").unwrap_or_else(|_| "unknown".into())))
}

/// The name of a user by the machine's own list, else its number.
fn os_user(uid: u32) -> String {
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid-{uid}"), |name| name.chars().filter(|c| !c.is_control()).take(64).collect())
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;

    use super::*;
    use crate::adapters::clock::{MachineClock, MachineRandom};
    use crate::ingest::Applier;
    use crate::mail::TenantId;
    use crate::store::memory::MemoryStore;

    fn desk() -> Arc<Desk> {
        let store = Arc::new(MemoryStore::new());
        let directory = Arc::new(ArcSwap::from_pointee(crate::store::directory::Directory::default()));
        let clock = Arc::new(MachineClock);
        let applier = Applier::new(store.clone(), directory.clone(), clock.clone(), "test".into());
        Arc::new(Desk::new(store, directory, clock, Arc::new(MachineRandom), applier, None))
    }

    async fn open(folder: &Path) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = CancellationToken::new();
        let control = Control::bind(folder, desk()).await.unwrap();
        (stop.clone(), tokio::spawn(control.run(stop)))
    }

    async fn raw(folder: &Path, octets: &[u8]) -> Option<String> {
        let mut stream = BufReader::new(UnixStream::connect(folder.join(SOCKET)).await.unwrap());
        // The relay may hang up before it has read all of it, which is the point of the bound.
        let _ = stream.write_all(octets).await;
        let line = read_line(&mut stream).await.ok().flatten()?;
        Some(String::from_utf8(line).unwrap())
    }

    #[tokio::test]
    async fn requests_are_answered_in_turn_and_errors_arrive_as_they_left() {
        let folder = tempfile::tempdir().unwrap();
        let (_stop, _task) = open(folder.path()).await;
        let mut client = Client::connect(folder.path()).await.unwrap();
        for _ in 0..3 {
            assert!(matches!(client.ask(Request::Status).await, Ok(Response::Status(_))));
            let tenant = TenantId::parse("acme").unwrap();
            match client.ask(Request::TenantShow { tenant }).await {
                Err(AskError::Command(error)) => {
                    assert_eq!(error, CommandError::NoTenant { tenant: "acme".into(), near: None });
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_told_so_and_what_is_too_long_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (_stop, _task) = open(folder.path()).await;
        for nonsense in ["\n", "GET / HTTP/1.1\n", "{\"request\":{\"command\":\"format_disk\"}}\n"] {
            let answer = raw(folder.path(), nonsense.as_bytes()).await.unwrap();
            assert!(answer.contains("unreadable"), "{nonsense:?}: {answer}");
        }
        let mut long = vec![b' '; LINE + 1];
        long.extend_from_slice(b"{\"request\":{\"command\":\"status\"}}\n");
        assert_eq!(raw(folder.path(), &long).await, None);
        let mut fits = vec![b' '; LINE - 100];
        fits.extend_from_slice(b"{\"request\":{\"command\":\"status\"}}\n");
        assert!(raw(folder.path(), &fits).await.unwrap().starts_with("{\"ok\""));
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_a_dead_one_replaced_and_an_own_one_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (stop, task) = open(folder.path()).await;
        let mode = std::fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Control::bind(folder.path(), desk()).await, Err(BindError::Live(_))));
        stop.cancel();
        task.await.unwrap();
        assert!(!folder.path().join(SOCKET).exists());
        assert!(matches!(Client::connect(folder.path()).await, Err(ConnectError::NotRunning)));

        // A process that died leaves its socket behind.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap());
        assert!(matches!(Client::connect(folder.path()).await, Err(ConnectError::NotRunning)));
        let (stop, task) = open(folder.path()).await;
        assert!(Client::connect(folder.path()).await.is_ok());
        // One that another relay put in its place is not ours to remove.
        std::fs::remove_file(folder.path().join(SOCKET)).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        stop.cancel();
        task.await.unwrap();
        assert!(folder.path().join(SOCKET).exists());
    }

    #[tokio::test]
    async fn so_many_are_served_at_a_time_and_the_next_waits_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let (_stop, _task) = open(folder.path()).await;
        let mut seated = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = Client::connect(folder.path()).await.unwrap();
            client.ask(Request::Status).await.unwrap();
            seated.push(client);
        }
        let mut late = Client::connect(folder.path()).await.unwrap();
        let waiting = tokio::spawn(async move { late.ask(Request::Status).await.is_ok() });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        seated.pop();
        assert!(waiting.await.unwrap());
    }
}
