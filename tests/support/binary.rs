//! The program itself as a process of its own, in a folder of its own: started, signalled, killed,
//! asked by its commands and read by its log; the sandbox in front of which a gate counts and holds
//! what the relay asks of the queue; and a client that takes a broken connection for an answer.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::tls::{CaPem, CertPem, KeyPem, client_trusting, self_signed};
use bulkhead::sandbox::fault::Faults;
use bulkhead::sandbox::inbox::Inbox;
use bulkhead::sandbox::socket::Door;
use bulkhead::sandbox::sqs::EventQueue;
use bulkhead::sandbox::{self, Sandbox};
use bulkhead::secret::Secret;
use bulkhead::store::credential::SecretHash;
use bulkhead::wire::Duplex;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What nothing here may take longer than.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const HOSTNAME: &str = "relay.example";
pub const USERNAME: &str = "acme-app";
pub const SECRET: &str = "bh_the-secret-of-an-application";
/// Who sends.
pub const SENDER: &str = "app@acme.example";

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

// ---------------------------------------------------------------------------------------------
// The folder

/// Settings, tenants, certificate and data of one relay, which may be started many times.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub ca: CaPem,
}

impl Place {
    /// A relay in front of `ses` that reads `queue` (endpoint and queue URL). `settings` are written
    /// behind the others and must begin with a section.
    pub fn new(ses: &str, queue: Option<(&str, &str)>, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (endpoint, events) = match queue {
            Some((endpoint, url)) => (
                format!("sqs_endpoint_url = \"{endpoint}\"\n"),
                format!("[events]\nqueue_url = \"{url}\"\nwait_seconds = 1\n"),
            ),
            None => Default::default(),
        };
        let text = format!(
            r#"hostname = "{HOSTNAME}"
data_dir = "{data}"
tenants_file = "{tenants}"
[[listener]]
address = "127.0.0.1:0"
tls = "starttls"
[[listener]]
address = "127.0.0.1:0"
tls = "implicit"
[tls]
certificate_file = "{certificate}"
private_key_file = "{key}"
[admin]
address = "127.0.0.1:0"
[aws]
region = "eu-west-1"
ses_endpoint_url = "{ses}"
{endpoint}{events}{settings}
"#,
            data = at("data"),
            tenants = at("tenants.toml"),
            certificate = at("relay.pem"),
            key = at("relay.key"),
        );
        let (ca, certificate, key) = certificate();
        let place = Self { dir, ca };
        place.write("bulkhead.toml", &text);
        place.write("tenants.toml", &tenants(&[(USERNAME, SECRET)]));
        place.write_certificate(&certificate, &key);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn write_certificate(&self, certificate: &CertPem, key: &KeyPem) {
        self.write("relay.key", &key.0);
        self.write("relay.pem", &certificate.0);
    }

    /// The program with arguments, in this folder, with no environment but what it needs.
    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    /// The relay, for which a write beyond a file size limit is a failed write and not its end.
    fn limited_program(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" serve", env!("CARGO_BIN_EXE_bulkhead")]);
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("AWS_ACCESS_KEY_ID", "sandbox")
            .env("AWS_SECRET_ACCESS_KEY", "sandbox")
            .env("BULKHEAD_CONFIG", self.path("bulkhead.toml"))
            .current_dir(self.dir.path());
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.program(arguments);
        soon("a command", tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap()
    }

    /// Runs a command that succeeds, and reads its answer.
    pub async fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What became of the tenant's mail.
    pub async fn counts(&self) -> Value {
        self.ask(&["tenant", "show", "acme"]).await["streams"][0]["last_day"].clone()
    }

    /// The addresses on the tenant's suppression list, in the order they are told.
    pub async fn suppressed(&self) -> Vec<String> {
        let list = self.ask(&["suppression", "list", "acme"]).await;
        list.as_array().unwrap().iter().map(|entry| entry["address"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn start(&self) -> Process {
        let process = Process::spawn(self.program(&["serve"]));
        process.ready().await;
        process
    }

    /// As [`start`](Self::start), with a relay that survives the signal of the file size limit.
    pub async fn start_limited(&self) -> Process {
        let process = Process::spawn(self.limited_program());
        process.ready().await;
        process
    }

    pub fn tls(&self) -> Arc<ClientConfig> {
        client_trusting(&self.ca).unwrap()
    }
}

/// A fresh CA, and a certificate and key of the relay's.
pub fn certificate() -> (CaPem, CertPem, KeyPem) {
    self_signed(&[HOSTNAME.into()]).unwrap()
}

/// A tenants file with one tenant and these credentials.
pub fn tenants(credentials: &[(&str, &str)]) -> String {
    let mut text = r#"[[tenant]]
id = "acme"
senders = ["acme.example"]
[[tenant.stream]]
id = "main"
kind = "bulk"
configuration_set = "acme-main"
suppress_on = ["bounce", "complaint"]
exposure = false
"#
    .to_owned();
    for (username, secret) in credentials {
        let hash = SecretHash::of(&Secret::new(secret.as_bytes().to_vec()));
        text += &format!("[[tenant.credential]]\nusername = \"{username}\"\nsecret_hash = \"{hash}\"\n");
    }
    text
}

// ---------------------------------------------------------------------------------------------
// The process

/// A running program and what it says.
pub struct Process {
    child: Option<Child>,
    pub pid: u32,
    said: Arc<Said>,
    /// Reads standard error to its end.
    errors: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<Value>>,
    errors: Mutex<String>,
    ended: AtomicBool,
    news: Notify,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = Arc::new(Said::default());
        let (out, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let reader = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                reader.lines.lock().unwrap().push(value);
                reader.news.notify_waiters();
            }
            reader.ended.store(true, Ordering::SeqCst);
            reader.news.notify_waiters();
        });
        let reader = Arc::clone(&said);
        let errors = std::thread::spawn(move || {
            let mut errors = errors;
            let mut octets = [0; 1024];
            while let Ok(n) = errors.read(&mut octets) {
                if n == 0 {
                    break;
                }
                reader.errors.lock().unwrap().push_str(&String::from_utf8_lossy(&octets[..n]));
            }
        });
        Self { pid: child.id(), child: Some(child), said, errors: Some(errors) }
    }

    async fn ready(&self) {
        self.line("relay_started", |_| true).await;
        self.listener("starttls").await;
        self.listener("implicit").await;
    }

    /// Where the listener with this kind of TLS is.
    pub async fn listener(&self, tls: &str) -> SocketAddr {
        let line = self.line("listener_opened", |line| line["tls"] == tls).await;
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// The lines of `event` so far.
    pub fn lines(&self, event: &str) -> Vec<Value> {
        self.said.lines.lock().unwrap().iter().filter(|line| line["event"] == event).cloned().collect()
    }

    /// Looks at every line so far.
    pub fn each_line(&self, look: impl FnMut(&Value)) {
        self.said.lines.lock().unwrap().iter().for_each(look);
    }

    /// Waits until it has closed its output: after its end nothing it said is missing.
    pub async fn silent(&self) {
        self.until("the end of its output", PATIENCE, || self.said.ended.load(Ordering::SeqCst)).await;
    }

    /// Waits until something holds that changes with what it says.
    pub async fn until(&self, what: &str, patience: Duration, holds: impl Fn() -> bool) {
        let look = async {
            loop {
                let mut news = std::pin::pin!(self.said.news.notified());
                news.as_mut().enable();
                let ended = self.said.ended.load(Ordering::SeqCst);
                if holds() {
                    return;
                }
                assert!(!ended, "it ended before {what}: {}", self.transcript());
                news.await;
            }
        };
        if timeout(patience, look).await.is_err() {
            panic!("{what} takes too long: {}", self.transcript());
        }
    }

    /// All it said, for a test that fails.
    pub fn transcript(&self) -> String {
        let lines = self.said.lines.lock().unwrap();
        let last: Vec<String> = lines.iter().rev().take(20).rev().map(Value::to_string).collect();
        format!("{}\n{}", last.join("\n"), self.said.errors.lock().unwrap())
    }

    /// Waits for a line of `event` that fits.
    pub async fn line(&self, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let mut news = std::pin::pin!(self.said.news.notified());
                news.as_mut().enable();
                let ended = self.said.ended.load(Ordering::SeqCst);
                if let Some(line) = self.lines(event).into_iter().find(|line| fits(line)) {
                    return line;
                }
                assert!(!ended, "it ended before {event}: {}", self.transcript());
                news.await;
            }
        };
        match timeout(PATIENCE, look).await {
            Ok(line) => line,
            Err(_) => panic!("no {event}: {}", self.transcript()),
        }
    }

    /// kill -9, and gone when this returns.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether nobody has killed it or waited for its end.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it has closed its output: it ends or has ended.
    pub fn has_ended(&self) -> bool {
        self.said.ended.load(Ordering::SeqCst)
    }

    /// Octets it has read so far, from wherever.
    pub fn octets_read(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for it to end by itself; gives what it wrote on standard error too.
    pub async fn ended(&mut self) -> (ExitStatus, String) {
        let mut child = self.child.take().expect("it runs");
        let status = timeout(PATIENCE, tokio::task::spawn_blocking(move || child.wait())).await;
        let Ok(status) = status else { panic!("it does not end: {}", self.transcript()) };
        // Its last words may be on their way yet.
        if let Some(errors) = self.errors.take() {
            tokio::task::spawn_blocking(move || errors.join()).await.unwrap().unwrap();
        }
        (status.unwrap().unwrap(), self.said.errors.lock().unwrap().clone())
    }

    /// Resident memory in KiB that this process has written: not the pages of its program, which come
    /// and go with the page cache, and are shared with whoever runs the same.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap();
        let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Status and body of a GET.
pub async fn get(address: &str, path: &str) -> (u16, String) {
    let look = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = soon("an answer of the admin address", look).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

// ---------------------------------------------------------------------------------------------
// SES and the queue

/// The sandbox in this process, and the gate in front of its queue.
pub struct Aws {
    pub url: String,
    pub queue_url: String,
    pub messages: Arc<Inbox>,
    pub faults: Arc<Faults>,
    pub door: Arc<Door>,
    pub queue: Arc<EventQueue>,
    pub gate: Arc<Gate>,
}

/// Between the relay and the queue.
#[derive(Default)]
pub struct Gate {
    pub url: std::sync::OnceLock<String>,
    /// Deletes are held unanswered, and the queue does not see them.
    pub hold_deletes: AtomicBool,
    /// Answers with notices are kept from the relay.
    pub hold_receives: AtomicBool,
    /// Notices that were given to the relay.
    pub given: AtomicUsize,
    /// Notices whose delete has arrived here.
    pub delete_asked: AtomicUsize,
    /// The two above, and every answer held, wake who waits.
    pub news: Notify,
    pub receives_held: AtomicUsize,
    pub deletes_held: AtomicUsize,
}

impl Aws {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With another account than the usual.
    pub async fn start_with(change: impl FnOnce(&mut sandbox::Options)) -> Self {
        let mut options = sandbox::Options::new(Arc::new(MachineClock), Arc::new(MachineRandom));
        options.visibility_timeout = Duration::from_secs(1);
        change(&mut options);
        let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
        let aws = Self {
            url: sandbox.url(),
            queue_url: sandbox.queue_url(),
            messages: sandbox.messages(),
            faults: sandbox.faults(),
            door: sandbox.door(),
            queue: sandbox.queue(),
            gate: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        aws.gate.url.set(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(Arc::clone(&aws.gate).run(listener, sandbox.address()));
        tokio::spawn(sandbox.run(Default::default()));
        aws
    }

    /// A relay's folder with this behind it.
    pub fn place(&self, settings: &str) -> Place {
        Place::new(&self.url, Some((self.gate.url.get().unwrap(), &self.queue_url)), settings)
    }
}

impl Gate {
    async fn run(self: Arc<Self>, listener: TcpListener, sandbox: SocketAddr) {
        while let Ok((client, _)) = listener.accept().await {
            let gate = Arc::clone(&self);
            // A broken connection is the relay's death or the test's end.
            tokio::spawn(async move {
                let _ = gate.pass(client, sandbox).await;
            });
        }
    }

    /// Hands requests and answers over until either side goes.
    async fn pass(&self, mut client: TcpStream, sandbox: SocketAddr) -> io::Result<()> {
        let mut server = TcpStream::connect(sandbox).await?;
        loop {
            let request = http(&mut client).await?;
            let text = String::from_utf8_lossy(&request).to_lowercase();
            if text.contains("amazonsqs.deletemessagebatch") {
                self.delete_asked.fetch_add(text.matches("\"receipthandle\"").count(), Ordering::SeqCst);
                if self.hold_deletes.load(Ordering::SeqCst) {
                    self.deletes_held.fetch_add(1, Ordering::SeqCst);
                    self.news.notify_waiters();
                    return gone(&client).await;
                }
                self.news.notify_waiters();
            }
            server.write_all(&request).await?;
            let answer = tokio::select! {
                answer = http(&mut server) => answer?,
                // The relay has died: its poll must not swallow notices for a second.
                gone = gone(&client) => return gone,
            };
            let notices = String::from_utf8_lossy(&answer).matches("\"ReceiptHandle\"").count();
            if notices > 0 && self.hold_receives.load(Ordering::SeqCst) {
                self.receives_held.fetch_add(1, Ordering::SeqCst);
                self.news.notify_waiters();
                return gone(&client).await;
            }
            client.write_all(&answer).await?;
            if notices > 0 {
                self.given.fetch_add(notices, Ordering::SeqCst);
            }
            self.news.notify_waiters();
        }
    }

    /// Waits until `fits` the gate.
    pub async fn until(&self, what: &str, fits: impl Fn(&Self) -> bool) {
        let look = async {
            loop {
                let mut news = std::pin::pin!(self.news.notified());
                news.as_mut().enable();
                if fits(self) {
                    return;
                }
                news.await;
            }
        };
        soon(what, look).await;
    }
}

/// Waits until the other side has closed.
async fn gone(socket: &TcpStream) -> io::Result<()> {
    let mut octet = [0; 1];
    while socket.peek(&mut octet).await? > 0 {}
    Ok(())
}

/// One request or answer with its body.
async fn http(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    loop {
        if let Some(end) = octets.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&octets[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if octets.len() >= end + 4 + length {
                return Ok(octets);
            }
        }
        if socket.read_buf(&mut octets).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

// ---------------------------------------------------------------------------------------------
// The client

/// A client to whom a broken connection is an answer like others.
pub struct Caller {
    wire: Option<Box<dyn Duplex>>,
    read: Vec<u8>,
}

pub fn code(reply: &str) -> u16 {
    reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default()
}

impl Caller {
    /// TCP, the greeting read.
    pub async fn plain(address: SocketAddr, from: Ipv4Addr) -> io::Result<Self> {
        let socket = tcp(address, from).await?;
        let mut caller = Self { wire: Some(Box::new(socket)), read: Vec::new() };
        caller.expect(220).await?;
        Ok(caller)
    }

    /// TCP, greeting, EHLO, STARTTLS, TLS, EHLO.
    pub async fn starttls(address: SocketAddr, from: Ipv4Addr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let socket = starting_tls(address, from).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
        let secured = connector.connect(HOSTNAME.try_into().unwrap(), socket).await?;
        let mut caller = Self { wire: Some(Box::new(secured)), read: Vec::new() };
        caller.say("EHLO client.example").await?;
        Ok(caller)
    }

    /// The above and a login.
    pub async fn login(address: SocketAddr, from: Ipv4Addr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut caller = Self::starttls(address, from, tls).await?;
        let reply = caller.auth(USERNAME, SECRET).await?;
        if code(&reply) != 235 {
            return Err(io::Error::other(reply));
        }
        Ok(caller)
    }

    pub async fn auth(&mut self, username: &str, secret: &str) -> io::Result<String> {
        let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{username}\0{secret}"));
        self.say(&format!("AUTH PLAIN {plain}")).await
    }

    pub async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(wire) = &mut self.wire else { return Err(io::ErrorKind::NotConnected.into()) };
        let writing = async {
            wire.write_all(octets).await?;
            wire.flush().await
        };
        soon("writing", writing).await
    }

    /// One reply, all its lines; an error when the connection ends before it is whole.
    pub async fn reply(&mut self) -> io::Result<String> {
        let Some(wire) = &mut self.wire else { return Err(io::ErrorKind::NotConnected.into()) };
        loop {
            if let Some(end) = whole_reply(&self.read) {
                let rest = self.read.split_off(end);
                return Ok(String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap());
            }
            if soon("a reply", wire.read_buf(&mut self.read)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub async fn say(&mut self, line: &str) -> io::Result<String> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    pub async fn expect(&mut self, wanted: u16) -> io::Result<String> {
        let reply = self.reply().await?;
        if code(&reply) == wanted { Ok(reply) } else { Err(io::Error::other(reply)) }
    }

    /// MAIL, RCPT and DATA, up to the 354; the first reply that is something else is an error.
    pub async fn begin(&mut self, to: &str) -> io::Result<()> {
        self.write(format!("MAIL FROM:<{SENDER}>\r\nRCPT TO:<{to}>\r\nDATA\r\n").as_bytes()).await?;
        for wanted in [250, 250, 354] {
            self.expect(wanted).await?;
        }
        Ok(())
    }

    /// A whole transaction; the reply to its data, whatever it is.
    pub async fn send(&mut self, to: &str, subject: &str) -> io::Result<String> {
        self.begin(to).await?;
        self.write(message(to, subject).as_bytes()).await?;
        self.reply().await
    }

    /// Whether the other side has closed and said nothing more.
    pub async fn closed(&mut self) -> bool {
        matches!(self.reply().await, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof) && self.read.is_empty()
    }
}

/// A message with its final dot.
pub fn message(to: &str, subject: &str) -> String {
    format!("From: <{SENDER}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\r\nbody\r\n.\r\n")
}

pub async fn tcp(address: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let socket = soon("connecting", socket.connect(address)).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// TCP up to the 220 of STARTTLS: the handshake is next.
pub async fn starting_tls(address: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let mut socket = tcp(address, from).await?;
    for line in ["", "EHLO client.example\r\n", "STARTTLS\r\n"] {
        socket.write_all(line.as_bytes()).await?;
        let mut read = Vec::new();
        while whole_reply(&read).is_none() {
            if soon("a reply", socket.read_buf(&mut read)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let reply = String::from_utf8_lossy(&read);
        if !reply.starts_with('2') {
            return Err(io::Error::other(reply.into_owned()));
        }
    }
    Ok(socket)
}

/// Where the first whole reply ends.
fn whole_reply(read: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + read[from..].windows(2).position(|pair| pair == b"\r\n")?;
        if read.get(from + 3) != Some(&b'-') {
            return Some(end + 2);
        }
        from = end + 2;
    }
}

// ---------------------------------------------------------------------------------------------

/// Reproducible chance.
pub struct Dice(AtomicU32);

impl Dice {
    pub fn new(seed: u32) -> Self {
        Self(AtomicU32::new(seed | 1))
    }
    pub fn below(&self, n: u32) -> u32 {
        let mut state = self.0.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        self.0.store(state, Ordering::Relaxed);
        state % n
    }
    pub fn shuffle<T>(&self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, usize::try_from(self.below(u32::try_from(at + 1).unwrap())).unwrap());
        }
    }
}

/// Whether the path is there.
pub fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
