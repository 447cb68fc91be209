//! The journal: one function per event, which writes its log line and counts its metric together.
//!
//! # The lines
//! JSON objects, one a line. Every line has `ts`, `level` and `event`; the others where they apply:
//!
//! | field | is |
//! |---|---|
//! | `session` | the connection (ULID) |
//! | `message` | the message, our id (ULID) |
//! | `ses_id` | SES's message id; joins later events to the verdict |
//! | `ses_ids` | the same where several calls were made, the first 50 |
//! | `tenant` `stream` `credential` | whose mail |
//! | `peer` | the client's address |
//! | `listener` `address` `tls` | our own address, where a line is about a listener; how it speaks TLS |
//! | `from` | the reverse-path, shown as `log.recipients` says |
//! | `recipients` | the forward-paths, the first 50, shown as `log.recipients` says |
//! | `recipient_count` | how many there were; of `message_discarded`: how many were still open |
//! | `sent` | for how many of them SES took the message, where that is not all |
//! | `suppressed` | addresses that an event brought onto the tenant's list, shown likewise |
//! | `bytes` | octets of the message as the client sent it |
//! | `code` `enhanced` | the reply |
//! | `reason` | why, in words |
//! | `diagnostic` | the receiving server's words, out of an event |
//! | `blame` | `client`, `upstream` or `us`: whose fault; sets the level (info, warn, error) |
//! | `cure` | what the operator should do |
//! | `warning` | what follows from the line |
//! | `notes` | wishes of the client that were not followed; `would_defer: …` where a standing that is only told of would have stopped it |
//! | `ses_ms` `total_ms` | milliseconds at SES, and from the end of the data to the reply; `total_ms` of `session_closed` is the session's |
//! | `lag_ms` | milliseconds from what an event tells to its being applied |
//! | `retry_ms` | milliseconds until the next try |
//! | `sessions` `abandoned_sessions` `messages` | how many are open, did not end in the drain's time, came in the session |
//! | `actor` `command` | who changed something, by which command |
//! | `key` | a record of the store |
//! | `file` `changes` `items` `files` | a file that was read, what it changed; how many events, files are meant |
//! | `repeat_of` | the message whose repetition this one is: it was answered as that one, and not sent again |
//! | `cause` | why a message is held, or a breaker is open, in one word |
//! | `attempts` `unknown` | attempts at a held message, or how often in a row a breaker has opened; calls of it whose outcome never came to be known, or such messages at start |
//! | `refused` | for how many recipients SES refused it for good |
//! | `held_ms` | milliseconds from the end of the data to the end of a held message |
//! | `until` | the moment at which something ends by itself |
//! | `step` `step_before` | how far a tenant's or stream's mail is restrained now, and was before: `good`, `warned`, `slowed`, `transactional_only`, `paused` |
//! | `contributors` | the streams that add most to the account's rate, by their shares |
//! | `scope` | what a breaker is about: `account`, or a tenant and stream |
//! | `listed` `added` `removed` `put` `deleted` | of a comparison with a list of SES's: entries it has; that came onto ours, and went from it; that were put on SES's, and deleted there |
//! | `held` `swept` `adopted` | messages held at start; files without a row that were removed, taken up again |
//! | `report` `to` | the id of a report of the relay's own, to whom it goes |
//! | `announcement` `audience` | the id of an announcement; whom a line says it was told to, or not: `contact`, `operator`, `webhook` |
//! | `rate` | recipients a second |
//! | `quota` `used` | recipients in 24 hours that SES takes, and of those it took |
//! | `rung` `rungs` `cap` | the step of a warm-up ladder, of how many, and its recipients a day |
//! | `sending` | `enabled` or `disabled`: whether SES takes mail of the account |
//! | `restart` `problems` | settings that changed and need a restart; what is wrong with the settings: the first 50 each |
//! | `expires` | when a certificate ends |
//! | `version` `data_dir` | Bulkhead's version and data folder |
//! | `notice` `kind` `topic` `call` | SQS's id of a notice, its kind, the SNS topic, the SQS call that failed |
//! | `ses_tenant` `status` | an SES tenant and its sending status |
//! | `effect` | what follows for a credential that seems stolen: `alert` or `hold` |
//! | `first_time` | recipients of the hour that the credential had never mailed before |
//! | `usual_first_time` | their usual share, 0 to 1 |
//! | `from_new` `networks` | recipients of the hour that came from networks that were not seen before; some of the networks |
//! | `mean` | recipients of the same hour on the days before, on average |
//! | `hour` | when an hour began that is over |
//! | `target` `text` | in `library` lines (`adapters/log`): which part of a library spoke, and what it said |
//!
//! `manual/log.schema.json` says which event has which fields; `tests/journal.rs` holds the two together.
//!
//! Promises: exactly one of `message_relayed`, `message_queued`, `message_refused` for each message
//! whose data came in whole; every text is cut to [`TEXT`] characters; no secret, AUTH line or body
//! has a way in, since no function takes one. Metric labels are from closed sets.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::event::kind::{Event, Fate};
use crate::mail::{Login, Mailbox, MessageId, ReversePath, SessionId, StreamId, TenantId, Username};
use crate::outbox::{Entry, Manifest, Mark};
use crate::smtp::Reply;
use crate::time::Timestamp;
use crate::upstream::Outcome;

/// Longest text of a field, in characters.
pub const TEXT: usize = 500;
/// Most entries of a list.
pub const LIST: usize = 50;

/// What a comparison with one of SES's suppression lists came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Synced {
    /// Entries that SES's list has.
    pub listed: usize,
    /// Entries that came onto the tenant's list.
    pub added: usize,
    /// Entries that went, from the tenant's list or from what is known of the account's.
    pub removed: usize,
    /// Entries that were put on SES's list.
    pub put: usize,
    /// Entries that were deleted there.
    pub deleted: usize,
}

/// How addresses show in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Addresses {
    /// The domain alone.
    #[default]
    Domain,
    /// The whole address.
    Full,
    /// The first 12 hex digits of the SHA-256 of the folded address, `@`, the domain.
    Hash,
}

static ADDRESSES: OnceLock<Addresses> = OnceLock::new();

/// Sets once, before the first line, how addresses show.
pub fn show_addresses(how: Addresses) {
    let _ = ADDRESSES.set(how);
}

/// An address as the log shows it.
pub fn shown(mailbox: &Mailbox) -> String {
    shown_as(mailbox, ADDRESSES.get().copied().unwrap_or_default())
}

/// An address shown in one of the ways.
pub fn shown_as(mailbox: &Mailbox, how: Addresses) -> String {
    match how {
        Addresses::Domain => mailbox.domain().to_string(),
        Addresses::Full => mailbox.to_string(),
        Addresses::Hash => {
            use sha2::Digest as _;
            let digest = sha2::Sha256::digest(mailbox.folded());
            let mut text = String::with_capacity(16);
            for byte in digest.iter().take(6) {
                let _ = write!(text, "{byte:02x}");
            }
            format!("{text}@{}", mailbox.domain())
        }
    }
}

fn shown_path(path: &ReversePath) -> String {
    match path {
        ReversePath::Null => "<>".into(),
        ReversePath::Mailbox(mailbox) => shown(mailbox),
    }
}

/// Whose fault something was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The client's or its tenant's: info.
    Client,
    /// SES's, SQS's or the network's: warn.
    Upstream,
    /// Ours or the operator's: error.
    Us,
}

impl Blame {
    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Us => "us",
        }
    }
    fn level(self) -> Level {
        match self {
            Self::Client => Level::Info,
            Self::Upstream => Level::Warn,
            Self::Us => Level::Error,
        }
    }
}

#[derive(Clone, Copy)]
enum Level {
    Info,
    Warn,
    Error,
}

/// One line in the making: JSON members in the order they were given.
struct Line(String);

impl Line {
    fn new(event: &'static str) -> Self {
        let mut line = String::with_capacity(384);
        let _ = write!(line, "\"event\":\"{event}\"");
        Self(line)
    }
    fn text(mut self, key: &'static str, value: impl AsRef<str>) -> Self {
        let _ = write!(self.0, ",\"{key}\":{}", serde_json::to_string(&cut(value.as_ref())).unwrap_or_default());
        self
    }
    fn shown(self, key: &'static str, value: impl std::fmt::Display) -> Self {
        self.text(key, value.to_string())
    }
    fn number(mut self, key: &'static str, value: impl Into<u64>) -> Self {
        let _ = write!(self.0, ",\"{key}\":{}", value.into());
        self
    }
    fn decimal(mut self, key: &'static str, value: f64) -> Self {
        // JSON has no word for what is not finite.
        let _ = write!(self.0, ",\"{key}\":{}", if value.is_finite() { value } else { 0.0 });
        self
    }
    fn millis(mut self, key: &'static str, value: Duration) -> Self {
        let _ = write!(self.0, ",\"{key}\":{:.3}", value.as_secs_f64() * 1000.0);
        self
    }
    fn list(mut self, key: &'static str, values: impl Iterator<Item = String>) -> Self {
        let values: Vec<String> = values.take(LIST).map(|value| cut(&value).into_owned()).collect();
        let _ = write!(self.0, ",\"{key}\":{}", serde_json::to_string(&values).unwrap_or_default());
        self
    }
    fn maybe(self, key: &'static str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.shown(key, value),
            None => self,
        }
    }
    fn maybe_number(self, key: &'static str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.number(key, value),
            None => self,
        }
    }
    fn login(self, login: &Login) -> Self {
        self.shown("tenant", &login.tenant).shown("credential", &login.credential)
    }
    fn reply(self, reply: &Reply) -> Self {
        let line = self.number("code", reply.code());
        let enhanced = reply.enhanced();
        if enhanced.is_empty() { line } else { line.text("enhanced", enhanced) }
    }
    fn write(self, level: Level) {
        let line = self.0;
        match level {
            Level::Info => tracing::info!(target: "bulkhead", line),
            Level::Warn => tracing::warn!(target: "bulkhead", line),
            Level::Error => tracing::error!(target: "bulkhead", line),
        }
    }
    fn blamed(self, blame: Blame) {
        self.text("blame", blame.word()).write(blame.level());
    }
}

/// The text, or its first [`TEXT`] characters and an ellipsis.
fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(TEXT).and_then(|(at, _)| text.get(..at)) {
        Some(first) => Cow::Owned(format!("{first}…")),
        None => Cow::Borrowed(text),
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

// ---------------------------------------------------------------------------------------------
// The process

/// `relay_started`: listeners are bound and answer.
pub fn relay_started(version: &str, data_dir: &str) {
    Line::new("relay_started").text("version", version).text("data_dir", data_dir).write(Level::Info);
}

/// `listener_opened`: one listener answers at `address`.
pub fn listener_opened(address: SocketAddr, tls: &'static str) {
    Line::new("listener_opened").shown("address", address).text("tls", tls).write(Level::Info);
}

/// `drain_started`: no new connections; what is under way is finished.
pub fn drain_started(sessions: usize) {
    Line::new("drain_started").number("sessions", count(sessions)).write(Level::Info);
}

/// `relay_stopped`: the last line.
pub fn relay_stopped(abandoned_sessions: usize) {
    Line::new("relay_stopped").number("abandoned_sessions", count(abandoned_sessions)).write(Level::Info);
}

/// `certificate_loaded`: new connections get this certificate.
pub fn certificate_loaded(file: &str) {
    Line::new("certificate_loaded").text("file", file).write(Level::Info);
}

/// `certificate_refused`: the files changed and are of no use; the old certificate stays.
pub fn certificate_refused(file: &str, reason: &str) {
    Line::new("certificate_refused").text("file", file).text("reason", reason).blamed(Blame::Us);
}

/// `certificate_ends`: the certificate in use has ended or soon will.
pub fn certificate_ends(file: &str, at: Timestamp, ended: bool) {
    let reason = if ended { "the certificate has expired" } else { "the certificate expires soon" };
    Line::new("certificate_ends")
        .text("file", file)
        .text("expires", at.rfc3339())
        .text("reason", reason)
        .text("cure", "renew it and put the new pair in place; it is loaded without a restart")
        .blamed(Blame::Us);
}

/// `tenants_applied`: the store equals the tenants file.
pub fn tenants_applied(file: &str, changes: usize) {
    Line::new("tenants_applied").text("file", file).number("changes", count(changes)).write(Level::Info);
}

/// `tenants_refused`: the tenants file could not be applied; what was there stays.
pub fn tenants_refused(file: &str, reason: &str) {
    Line::new("tenants_refused").text("file", file).text("reason", reason).blamed(Blame::Us);
}

/// `settings_applied`: the settings were read anew, and this many limits changed. `restart`: other
/// keys that are not as they were at the start, and that a restart alone can follow.
pub fn settings_applied(file: &str, changes: usize, restart: &[&str]) {
    let line = Line::new("settings_applied").text("file", file).number("changes", count(changes));
    match restart {
        [] => line.write(Level::Info),
        keys => line.list("restart", keys.iter().map(ToString::to_string)).write(Level::Warn),
    }
}

/// `setting_noted`: a setting that is allowed and that the operator should know of.
pub fn setting_noted(reason: &str) {
    Line::new("setting_noted").text("reason", reason).write(Level::Warn);
}

/// `settings_refused`: the settings are of no use; the old ones stay.
pub fn settings_refused(file: &str, problems: impl Iterator<Item = String>) {
    Line::new("settings_refused")
        .text("file", file)
        .text("reason", "the settings are wrong; the old ones stay")
        .list("problems", problems)
        .blamed(Blame::Us);
}

/// `store_failed`: the store has stopped for good; clients hear 4xx until a restart.
pub fn store_failed(reason: &str) {
    gauge!("bulkhead_store_available").set(0.0);
    Line::new("store_failed").text("reason", reason).blamed(Blame::Us);
}

/// `record_damaged`: a record of a tenant or a credential cannot be read. Its mail is deferred,
/// others' goes on. Once for each record, when it is found.
pub fn record_damaged(key: &str, what: &str, cure: &str) {
    Line::new("record_damaged").text("key", key).text("reason", what).text("cure", cure).blamed(Blame::Us);
}

/// Sets how many records are damaged; no line.
pub fn damaged_records(records: usize) {
    gauge!("bulkhead_damaged_records").set(f64::from(u32::try_from(records).unwrap_or(u32::MAX)));
}

/// Counts one durable commit; no line.
pub fn store_committed(took: Duration, writes: usize) {
    histogram!("bulkhead_store_commit_seconds").record(took.as_secs_f64());
    counter!("bulkhead_store_writes_total").increment(count(writes));
}

/// `store_blobs_found`: sled made files it never syncs; they were synced for it.
pub fn store_blobs_found(files: usize) {
    Line::new("store_blobs_found")
        .number("files", count(files))
        .text("reason", "values are bounded so that sled makes no blob files; it did, and they were synced")
        .blamed(Blame::Us);
}

/// `changed`: an operator or integrator changed something by command.
pub fn changed(actor: &str, command: &str, tenant: Option<&TenantId>, reason: &str) {
    let line = Line::new("changed").text("actor", actor).text("command", command).maybe("tenant", tenant);
    if reason.is_empty() { line } else { line.text("reason", reason) }.write(Level::Info);
}

/// `accept_failed`: a listener could not accept; it tries again after `pause`.
pub fn accept_failed(listener: SocketAddr, reason: &str, pause: Duration) {
    Line::new("accept_failed")
        .shown("listener", listener)
        .text("reason", reason)
        .millis("retry_ms", pause)
        .text("cure", "raise the limit of open files (ulimit -n, LimitNOFILE) or lower limits.connections")
        .blamed(Blame::Us);
}

// ---------------------------------------------------------------------------------------------
// Sessions

/// `session_opened`.
pub fn session_opened(session: SessionId, peer: SocketAddr, listener: SocketAddr) {
    counter!("bulkhead_sessions_total").increment(1);
    gauge!("bulkhead_sessions_open").increment(1.0);
    Line::new("session_opened")
        .shown("session", session)
        .shown("peer", peer)
        .shown("listener", listener)
        .write(Level::Info);
}

/// `session_closed`.
pub fn session_closed(
    session: SessionId,
    peer: SocketAddr,
    login: Option<&Login>,
    ending: &'static str,
    messages: u64,
    lasted: Duration,
) {
    gauge!("bulkhead_sessions_open").decrement(1.0);
    counter!("bulkhead_sessions_closed_total", "ending" => ending).increment(1);
    let mut line = Line::new("session_closed").shown("session", session).shown("peer", peer);
    if let Some(login) = login {
        line = line.login(login);
    }
    line.text("reason", ending).number("messages", messages).millis("total_ms", lasted).write(Level::Info);
}

/// `session_refused`: admission said no; `limit` is the rung of the ladder.
pub fn session_refused(peer: SocketAddr, limit: &'static str, reply: &Reply) {
    counter!("bulkhead_sessions_refused_total", "limit" => limit).increment(1);
    Line::new("session_refused").shown("peer", peer).reply(reply).text("reason", limit).write(Level::Warn);
}

/// `tls_failed`: the handshake did not come to an end.
pub fn tls_failed(session: SessionId, peer: SocketAddr, reason: &str) {
    counter!("bulkhead_tls_failures_total").increment(1);
    Line::new("tls_failed").shown("session", session).shown("peer", peer).text("reason", reason).blamed(Blame::Client);
}

/// `proxy_refused`: a connection without a usable PROXY header, or from an untrusted address.
pub fn proxy_refused(peer: SocketAddr, reason: &str) {
    counter!("bulkhead_sessions_refused_total", "limit" => "proxy_protocol").increment(1);
    Line::new("proxy_refused").shown("peer", peer).text("reason", reason).write(Level::Warn);
}

/// `login_accepted`.
pub fn login_accepted(session: SessionId, peer: SocketAddr, login: &Login) {
    counter!("bulkhead_logins_total", "outcome" => "accepted").increment(1);
    Line::new("login_accepted").shown("session", session).shown("peer", peer).login(login).write(Level::Info);
}

/// `login_refused`; `username` as sent, cut short; `reason` is for us, the client hears one sentence.
pub fn login_refused(session: SessionId, peer: SocketAddr, username: &str, reason: &str) {
    counter!("bulkhead_logins_total", "outcome" => "refused").increment(1);
    let username: String = username.chars().take(64).collect();
    Line::new("login_refused")
        .shown("session", session)
        .shown("peer", peer)
        .text("credential", username)
        .text("reason", reason)
        .blamed(Blame::Client);
}

/// `login_deferred`: a fault of ours kept us from telling; the client hears 454.
pub fn login_deferred(session: SessionId, peer: SocketAddr, reason: &str) {
    counter!("bulkhead_logins_total", "outcome" => "deferred").increment(1);
    Line::new("login_deferred").shown("session", session).shown("peer", peer).text("reason", reason).blamed(Blame::Us);
}

/// `spill_failed`: a large message could not be written to a file while it came in; its client hears
/// 452.
pub fn spill_failed(session: SessionId, reason: &str) {
    Line::new("spill_failed").shown("session", session).text("reason", reason).blamed(Blame::Us);
}

/// Counts a reply by its code; no line.
pub fn replied(reply: &Reply) {
    counter!("bulkhead_replies_total", "code" => reply.code().to_string()).increment(1);
}

/// `sender_refused`: MAIL FROM got a 4xx or 5xx from policy.
pub fn sender_refused(
    session: SessionId,
    peer: SocketAddr,
    login: &Login,
    from: &ReversePath,
    reply: &Reply,
    blame: Blame,
) {
    Line::new("sender_refused")
        .shown("session", session)
        .shown("peer", peer)
        .login(login)
        .text("from", shown_path(from))
        .reply(reply)
        .text("reason", reply.text())
        .blamed(blame);
}

/// `recipient_suppressed`: a recipient on the tenant's list, at RCPT or, under the stream that the
/// message itself named, after DATA.
pub fn recipient_suppressed(
    session: SessionId,
    login: &Login,
    stream: Option<&StreamId>,
    recipient: &Mailbox,
    reply: &Reply,
) {
    counter!("bulkhead_recipients_suppressed_total").increment(1);
    Line::new("recipient_suppressed")
        .shown("session", session)
        .login(login)
        .maybe("stream", stream)
        .list("recipients", std::iter::once(shown(recipient)))
        .reply(reply)
        .text("reason", reply.text())
        .blamed(Blame::Client);
}

/// `recipient_deferred`: a fault of ours at RCPT, or a login that no longer stands.
pub fn recipient_deferred(
    session: SessionId,
    login: &Login,
    recipient: &Mailbox,
    reply: &Reply,
    reason: &str,
    blame: Blame,
) {
    Line::new("recipient_deferred")
        .shown("session", session)
        .login(login)
        .list("recipients", std::iter::once(shown(recipient)))
        .reply(reply)
        .text("reason", reason)
        .blamed(blame);
}

// ---------------------------------------------------------------------------------------------
// Messages

/// What every verdict line says.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// The connection.
    pub session: SessionId,
    /// The message.
    pub message: MessageId,
    /// The client's address.
    pub peer: SocketAddr,
    /// Who sent it.
    pub login: &'a Login,
    /// Its stream, if it came so far.
    pub stream: Option<&'a StreamId>,
    /// MAIL FROM.
    pub from: &'a ReversePath,
    /// RCPT TO.
    pub recipients: &'a [Mailbox],
    /// Octets as the client sent them.
    pub bytes: usize,
    /// What the client hears.
    pub reply: &'a Reply,
    /// Time at SES.
    pub ses: Duration,
    /// Time from the end of data to the reply.
    pub total: Duration,
}

impl Verdict<'_> {
    fn line(&self, event: &'static str) -> Line {
        Line::new(event)
            .shown("session", self.session)
            .shown("message", self.message)
            .login(self.login)
            .maybe("stream", self.stream)
            .shown("peer", self.peer)
            .text("from", shown_path(self.from))
            .list("recipients", self.recipients.iter().map(shown))
            .number("recipient_count", count(self.recipients.len()))
            .number("bytes", count(self.bytes))
            .reply(self.reply)
            .millis("ses_ms", self.ses)
            .millis("total_ms", self.total)
    }
    fn count(&self, outcome: &'static str) {
        counter!("bulkhead_messages_total", "outcome" => outcome).increment(1);
        histogram!("bulkhead_message_seconds", "outcome" => outcome).record(self.total.as_secs_f64());
    }
}

/// `message_relayed`: SES has it, for `sent` of its recipients. `notes` are client wishes that were
/// not followed (a tag over ours, say).
pub fn message_relayed(verdict: &Verdict<'_>, ses_ids: &[&str], sent: usize, notes: &[String]) {
    verdict.count("relayed");
    counter!("bulkhead_recipients_relayed_total").increment(count(sent));
    let line = verdict.line("message_relayed");
    let line = match ses_ids {
        [one] if sent == verdict.recipients.len() => line.text("ses_id", one),
        [one] => line.text("ses_id", one).number("sent", count(sent)),
        many => line.list("ses_ids", many.iter().map(ToString::to_string)).number("sent", count(sent)),
    };
    if notes.is_empty() { line } else { line.list("notes", notes.iter().cloned()) }.write(Level::Info);
}

/// `message_queued`: the outbox has it, for whom SES has neither taken nor refused it; `cause` says
/// why, `reason` in SES's words, if it said any. `sent` recipients had been taken by SES before.
pub fn message_queued(
    verdict: &Verdict<'_>,
    cause: &'static str,
    reason: &str,
    ses_ids: &[&str],
    sent: usize,
    notes: &[String],
) {
    verdict.count("queued");
    counter!("bulkhead_messages_held_total", "cause" => cause).increment(1);
    let mut line = verdict.line("message_queued").text("cause", cause);
    if !reason.is_empty() {
        line = line.text("reason", reason);
    }
    if sent > 0 {
        counter!("bulkhead_recipients_relayed_total").increment(count(sent));
        line = line.list("ses_ids", ses_ids.iter().map(ToString::to_string)).number("sent", count(sent));
    }
    if notes.is_empty() { line } else { line.list("notes", notes.iter().cloned()) }.write(Level::Info);
}

/// `message_relayed` or `message_queued` of a message that a client sent again: it was answered as
/// `first` was, and not sent.
pub fn message_repeated(verdict: &Verdict<'_>, first: MessageId, held: bool) {
    verdict.count("repeated");
    verdict.line(if held { "message_queued" } else { "message_relayed" }).shown("repeat_of", first).write(Level::Info);
}

/// `message_refused`: the client heard 4xx or 5xx after DATA. `sent` recipients had been taken by
/// SES before: a client that tries again doubles those, and the line says so.
pub fn message_refused(verdict: &Verdict<'_>, reason: &str, blame: Blame, ses_ids: &[&str], sent: usize) {
    verdict.count(if verdict.reply.code() < 500 { "deferred" } else { "refused" });
    let mut line = verdict.line("message_refused").text("reason", reason);
    if sent > 0 {
        counter!("bulkhead_recipients_relayed_total").increment(count(sent));
        counter!("bulkhead_recipients_doubled_total").increment(count(sent));
        line = line.list("ses_ids", ses_ids.iter().map(ToString::to_string)).number("sent", count(sent)).text(
            "warning",
            "these recipients have the message already; a client that tries again sends it to them twice",
        );
    }
    line.blamed(blame);
}

/// `recipient_relayed`: one of several calls; joins SES's id to the message's recipients.
pub fn recipient_relayed(
    session: SessionId,
    message: MessageId,
    login: &Login,
    stream: &StreamId,
    recipients: &[Mailbox],
    ses_id: &str,
) {
    Line::new("recipient_relayed")
        .shown("session", session)
        .shown("message", message)
        .text("ses_id", ses_id)
        .login(login)
        .shown("stream", stream)
        .list("recipients", recipients.iter().map(shown))
        .number("recipient_count", count(recipients.len()))
        .write(Level::Info);
}

/// `recipient_refused`: SES took the message for others and will never take it for this one. One
/// line a recipient, however many shared the refused call.
pub fn recipient_refused(
    session: SessionId,
    message: MessageId,
    login: &Login,
    stream: &StreamId,
    recipient: &Mailbox,
    reason: &str,
) {
    counter!("bulkhead_recipients_refused_total").increment(1);
    Line::new("recipient_refused")
        .shown("session", session)
        .shown("message", message)
        .login(login)
        .shown("stream", stream)
        .list("recipients", std::iter::once(shown(recipient)))
        .text("reason", reason)
        .blamed(Blame::Upstream);
}

/// `message_discarded`: an operator gave a held message up; for `open` recipients nobody will send it
/// any more. Joined to its verdict by `message`.
pub fn message_discarded(
    message: MessageId,
    tenant: &TenantId,
    stream: Option<&StreamId>,
    open: usize,
    bytes: u64,
    actor: &str,
    reason: &str,
) {
    counter!("bulkhead_messages_discarded_total").increment(1);
    let line = Line::new("message_discarded")
        .shown("message", message)
        .shown("tenant", tenant)
        .maybe("stream", stream)
        .number("recipient_count", count(open))
        .number("bytes", bytes)
        .text("actor", actor);
    if reason.is_empty() { line } else { line.text("reason", reason) }.write(Level::Warn);
}

/// Counts one SendEmail call; no line.
pub fn ses_called(outcome: &Outcome, took: Duration) {
    let word = match outcome {
        Outcome::Sent(_) => "sent",
        Outcome::Retry(..) => "retry",
        Outcome::Refused(..) => "refused",
        Outcome::Paused(..) => "paused",
        Outcome::Unknown(_) => "unknown",
    };
    histogram!("bulkhead_ses_call_seconds", "outcome" => word).record(took.as_secs_f64());
}

/// `upstream_alarm`: SES said something that the operator must mend (credentials, a missing
/// configuration set, a paused account). `cure` says what to do. Rate limited by the caller.
pub fn upstream_alarm(tenant: Option<&TenantId>, stream: Option<&StreamId>, reason: &str, cure: &str) {
    counter!("bulkhead_upstream_alarms_total").increment(1);
    Line::new("upstream_alarm")
        .maybe("tenant", tenant)
        .maybe("stream", stream)
        .text("reason", reason)
        .text("cure", cure)
        .blamed(Blame::Us);
}

// ---------------------------------------------------------------------------------------------
// The outbox

/// What every line about a held message says.
fn held(event: &'static str, manifest: &Manifest) -> Line {
    Line::new(event)
        .shown("session", manifest.session)
        .shown("message", manifest.id)
        .shown("tenant", &manifest.tenant)
        .shown("credential", &manifest.credential)
        .maybe("stream", manifest.stream.as_ref())
}

/// The same, where the manifest is not at hand.
fn held_in(event: &'static str, id: MessageId, tenant: &TenantId, stream: Option<&StreamId>) -> Line {
    Line::new(event).shown("message", id).shown("tenant", tenant).maybe("stream", stream)
}

/// `outbox_opened`: what was found at start.
pub fn outbox_opened(held: usize, unknown: usize, swept: usize, adopted: usize) {
    Line::new("outbox_opened")
        .number("held", count(held))
        .number("unknown", count(unknown))
        .number("swept", count(swept))
        .number("adopted", count(adopted))
        .write(Level::Info);
}

/// `outcome_unknown` at start: a message was being sent when the process ended.
pub fn outcome_unknown_at_start(id: MessageId, tenant: &TenantId, stream: Option<&StreamId>) {
    counter!("bulkhead_outcomes_unknown_total").increment(1);
    held_in("outcome_unknown", id, tenant, stream)
        .text("reason", "the relay ended while it was being sent; SES may have it, and it will be sent again")
        .blamed(Blame::Us);
}

/// `outcome_unknown`: a call was sent and not answered; SES may have the message, and it will be sent
/// again.
pub fn outcome_unknown(manifest: &Manifest, recipients: usize, reason: &str) {
    counter!("bulkhead_outcomes_unknown_total").increment(1);
    held("outcome_unknown", manifest)
        .number("recipient_count", count(recipients))
        .text("reason", reason)
        .blamed(Blame::Upstream);
}

/// `body_missing`: at start, a held message has no body file: it is lost.
pub fn body_missing(id: MessageId) {
    Line::new("body_missing")
        .shown("message", id)
        .text("reason", "its row is there and its body file is not")
        .text("cure", "restore the data folder's outbox from a backup, or discard the message")
        .blamed(Blame::Us);
}

/// `body_damaged`: a held message's body file cannot be used; the message waits.
pub fn body_damaged(id: MessageId, tenant: &TenantId, stream: Option<&StreamId>, reason: &str) {
    held_in("body_damaged", id, tenant, stream)
        .text("reason", reason)
        .text("cure", "`bulkhead store verify` tells of all; restore the file from a backup, or discard the message")
        .blamed(Blame::Us);
}

/// `recipient_relayed` of a held message.
pub fn held_relayed(manifest: &Manifest, recipients: &[Mailbox], ses_id: &str) {
    counter!("bulkhead_recipients_relayed_total").increment(count(recipients.len()));
    held("recipient_relayed", manifest)
        .text("ses_id", ses_id)
        .list("recipients", recipients.iter().map(shown))
        .number("recipient_count", count(recipients.len()))
        .write(Level::Info);
}

/// `recipient_refused` of a held message: SES refused it for good, or the recipient was suppressed
/// meanwhile, or the tenant may no longer send it.
pub fn held_refused(manifest: &Manifest, recipient: &Mailbox, reason: &str) {
    counter!("bulkhead_recipients_refused_total").increment(1);
    held("recipient_refused", manifest)
        .list("recipients", std::iter::once(shown(recipient)))
        .text("reason", reason)
        .blamed(Blame::Upstream);
}

/// `message_dispatched`: a held message is done with.
pub fn message_dispatched(
    manifest: &Manifest,
    sent: usize,
    refused: usize,
    attempts: u32,
    unknown: u32,
    lasted: Duration,
) {
    let outcome = if sent > 0 { "dispatched" } else { "failed" };
    counter!("bulkhead_outbox_messages_total", "outcome" => outcome).increment(1);
    histogram!("bulkhead_outbox_held_seconds").record(lasted.as_secs_f64());
    let line = held("message_dispatched", manifest)
        .number("sent", count(sent))
        .number("refused", count(refused))
        .number("attempts", attempts)
        .number("unknown", unknown)
        .millis("held_ms", lasted);
    if sent > 0 { line.write(Level::Info) } else { line.blamed(Blame::Upstream) }
}

/// `message_deferred`: an attempt at a held message ended without an end of the message.
pub fn message_deferred(
    id: MessageId,
    tenant: &TenantId,
    stream: Option<&StreamId>,
    attempts: u32,
    cause: &'static str,
    reason: &str,
    wait: Option<Duration>,
) {
    counter!("bulkhead_outbox_attempts_total", "cause" => cause).increment(1);
    let line = held_in("message_deferred", id, tenant, stream).number("attempts", attempts).text("cause", cause);
    let line = if reason.is_empty() { line } else { line.text("reason", reason) };
    line.millis("retry_ms", wait.unwrap_or_default()).blamed(Blame::Upstream);
}

/// `message_expired`: a held message was too old and is given up.
pub fn message_expired(id: MessageId, tenant: &TenantId, stream: Option<&StreamId>, entry: &Entry, now: Timestamp) {
    counter!("bulkhead_outbox_messages_total", "outcome" => "expired").increment(1);
    held_in("message_expired", id, tenant, stream)
        .number("sent", count(entry.progress.count(Mark::Taken)))
        .number("refused", count(entry.progress.count(Mark::Refused)))
        .number("attempts", entry.attempts)
        .number("unknown", entry.unknown)
        .text("cause", entry.cause.word())
        .text("reason", &entry.words)
        .millis("held_ms", now.since(entry.created))
        .blamed(Blame::Upstream);
}

/// `outbox_deferred`: the outbox could not be read or written; the message comes due again.
pub fn outbox_deferred(tenant: &TenantId, stream: Option<&StreamId>, reason: &str) {
    Line::new("outbox_deferred")
        .shown("tenant", tenant)
        .maybe("stream", stream)
        .text("reason", reason)
        .blamed(Blame::Us);
}

/// `outbox_unrenewed`: the outbox could not note that its rows are the newest; it tries again in an
/// hour.
pub fn outbox_unrenewed(reason: &str) {
    Line::new("outbox_unrenewed").text("reason", reason).blamed(Blame::Us);
}

/// `outbox_failed`: nothing can be held. Once, when it begins.
pub fn outbox_failed(reason: &str) {
    Line::new("outbox_failed")
        .text("reason", reason)
        .text("cure", "make room on the disk of data_dir, or mend it; nothing else is to be done")
        .blamed(Blame::Us);
}

/// `outbox_recovered`: mail can be held again.
pub fn outbox_recovered() {
    Line::new("outbox_recovered").write(Level::Info);
}

/// Sets whether mail can be held; no line.
pub fn outbox_available(available: bool) {
    gauge!("bulkhead_outbox_available").set(if available { 1.0 } else { 0.0 });
}

/// `lane_held`: nothing of a lane is sent until it is released, or until a moment.
pub fn lane_held(tenant: &TenantId, stream: Option<&StreamId>, reason: &str, until: Option<Timestamp>) {
    Line::new("lane_held")
        .shown("tenant", tenant)
        .maybe("stream", stream)
        .text("reason", reason)
        .maybe("until", until.map(Timestamp::rfc3339))
        .write(Level::Warn);
}

/// `lane_released`: it is sent again.
pub fn lane_released(tenant: &TenantId, stream: Option<&StreamId>) {
    Line::new("lane_released").shown("tenant", tenant).maybe("stream", stream).write(Level::Info);
}

/// A standing that has changed.
#[derive(Clone, Debug)]
pub struct StandingChanged<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Of which stream; `None`: of the tenant's sum.
    pub stream: Option<&'a StreamId>,
    /// The step before, and the one after.
    pub from: &'static str,
    /// See `from`.
    pub to: &'static str,
    /// Whether it is further than before.
    pub is_worse: bool,
    /// Whether it is only told of.
    pub is_shadow: bool,
    /// The charge: of the step after, or where that is none of the one before.
    pub reason: String,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// `stream_warned`, `stream_slowed`, `stream_paused`, `stream_resumed`, `tenant_restricted`,
/// `tenant_paused`, `tenant_resumed`: a standing has changed; with `would_` before it where the
/// standing is only told of.
pub fn standing_changed(change: &StandingChanged<'_>) {
    let whose = if change.stream.is_some() { "stream" } else { "tenant" };
    let shadow = if change.is_shadow { "true" } else { "false" };
    counter!("bulkhead_standing_changes_total", "of" => whose, "step" => change.to, "shadow" => shadow).increment(1);
    let line = Line::new(standing_event(change))
        .shown("tenant", change.tenant)
        .maybe("stream", change.stream)
        .text("step", change.to)
        .text("step_before", change.from);
    let line = if change.reason.is_empty() { line } else { line.text("reason", &change.reason) };
    let level = if change.is_worse { Level::Warn } else { Level::Info };
    line.maybe("until", change.until.map(Timestamp::rfc3339)).write(level);
}

fn standing_event(change: &StandingChanged<'_>) -> &'static str {
    let (is_stream, shadow) = (change.stream.is_some(), change.is_shadow);
    if !change.is_worse {
        return match (is_stream, shadow) {
            (true, false) => "stream_resumed",
            (true, true) => "would_stream_resumed",
            (false, false) => "tenant_resumed",
            (false, true) => "would_tenant_resumed",
        };
    }
    match (is_stream, change.to, shadow) {
        (true, "paused", false) => "stream_paused",
        (true, "paused", true) => "would_stream_paused",
        (true, "slowed", false) => "stream_slowed",
        (true, "slowed", true) => "would_stream_slowed",
        (true, _, false) => "stream_warned",
        (true, _, true) => "would_stream_warned",
        (false, "paused", false) => "tenant_paused",
        (false, "paused", true) => "would_tenant_paused",
        (false, _, false) => "tenant_restricted",
        (false, _, true) => "would_tenant_restricted",
    }
}

/// A message passed that a standing would have stopped if it were in force. The verdict line has it in
/// its `notes`.
pub fn would_be_stopped(reason: &'static str) {
    counter!("bulkhead_messages_would_be_stopped_total", "reason" => reason).increment(1);
}

/// `standings_deferred`: what is to change of standings cannot be written, or judged; it is tried again.
pub fn standings_deferred(reason: &str) {
    Line::new("standings_deferred").text("reason", reason).blamed(Blame::Us);
}

/// `account_near_line`: the sum of all mail nears SES's line; `contributors` are paused for it.
pub fn account_near_line(reason: &str, contributors: &str) {
    Line::new("account_near_line").text("reason", reason).text("contributors", contributors).write(Level::Error);
}

/// `account_clear`: it is under the line again.
pub fn account_clear() {
    Line::new("account_clear").write(Level::Info);
}

/// How many tenants and streams stand at a step. No line.
pub fn standings(step: &'static str, count: usize) {
    gauge!("bulkhead_standings", "step" => step).set(count as f64);
}

/// The account's rates over a window, 0 to 1. No line.
pub fn account_rates(window: &'static str, bounce: f64, complaint: f64) {
    gauge!("bulkhead_account_bounce_rate", "window" => window).set(bounce);
    gauge!("bulkhead_account_complaint_rate", "window" => window).set(complaint);
}

/// `breaker_opened`: what does not get through is left alone for `wait`, then one message tries.
/// `scope`: the lane; `None`: the account. `times`: how often in a row.
pub fn breaker_opened(scope: Option<String>, cause: &'static str, wait: Duration, times: u32) {
    counter!("bulkhead_breakers_opened_total", "cause" => cause).increment(1);
    Line::new("breaker_opened")
        .text("scope", scope.as_deref().unwrap_or("account"))
        .text("cause", cause)
        .millis("retry_ms", wait)
        .number("attempts", times)
        .blamed(Blame::Upstream);
}

/// `breaker_closed`: SES answers again.
pub fn breaker_closed(scope: Option<String>, cause: &'static str) {
    Line::new("breaker_closed")
        .text("scope", scope.as_deref().unwrap_or("account"))
        .text("cause", cause)
        .write(Level::Info);
}

/// `report_queued`: a report of the relay's own about `about` waits to be sent.
pub fn report_queued(about: MessageId, report: MessageId, tenant: &TenantId, kind: &'static str, to: &Mailbox) {
    counter!("bulkhead_reports_total", "kind" => kind).increment(1);
    Line::new("report_queued")
        .shown("message", about)
        .shown("report", report)
        .shown("tenant", tenant)
        .text("kind", kind)
        .text("to", shown(to))
        .write(Level::Info);
}

/// `report_lost`: it could not be held.
pub fn report_lost(about: MessageId, tenant: &TenantId, kind: &'static str, reason: &str) {
    Line::new("report_lost")
        .shown("message", about)
        .shown("tenant", tenant)
        .text("kind", kind)
        .text("reason", reason)
        .blamed(Blame::Us);
}

/// `rate_learned`: SES takes so many recipients a second.
pub fn rate_learned(rate: f64) {
    gauge!("bulkhead_send_rate").set(rate);
    Line::new("rate_learned").decimal("rate", rate).write(Level::Info);
}

/// Sets the account's quota of 24 hours and what of it is used; no line. Without a limit it is 0.
pub fn quota(most: Option<f64>, used: f64) {
    gauge!("bulkhead_quota_recipients").set(most.unwrap_or_default());
    gauge!("bulkhead_quota_used_recipients").set(used);
}

/// `quota_near`: most of the account's quota of 24 hours is used, or mail waits for it.
pub fn quota_near(most: f64, used: f64) {
    Line::new("quota_near")
        .decimal("quota", most)
        .decimal("used", used)
        .text("cure", "ask AWS for a higher sending quota, or send less")
        .write(Level::Warn);
}

/// `account_standing`: SES sees the account otherwise than before.
pub fn account_standing(status: &str, sending_enabled: bool) {
    let is_well = sending_enabled && matches!(status, "" | "HEALTHY");
    let cure = match (status, sending_enabled) {
        ("PROBATION", true) => Some("read AWS's mail to the account's owner: SES reviews the account"),
        (_, false) | ("SHUTDOWN", _) => {
            Some("read AWS's mail to the account's owner: SES takes nothing, and all mail is held")
        }
        (_, true) => None,
    };
    Line::new("account_standing")
        .text("status", status)
        .text("sending", if sending_enabled { "enabled" } else { "disabled" })
        .maybe("cure", cure)
        .write(if is_well { Level::Info } else { Level::Error });
}

/// `account_unknown`: SES did not say what the account may send; nothing limits the rate but its
/// refusals.
pub fn account_unknown(reason: &str) {
    Line::new("account_unknown")
        .text("reason", reason)
        .text("cure", "allow ses:GetAccount, or set aws.max_send_rate")
        .write(Level::Warn);
}

/// `counts_unknown`: the store does not tell, or keep, what bounds a stream; it is tried again.
pub fn counts_unknown(reason: &str) {
    Line::new("counts_unknown").text("reason", reason).write(Level::Warn);
}

/// `deliveries_unseen`: SES publishes no deliveries of this stream, so that its exposure window is freed by
/// the horizon alone. Once a stream.
pub fn deliveries_unseen(tenant: &TenantId, stream: Option<&StreamId>) {
    Line::new("deliveries_unseen")
        .shown("tenant", tenant)
        .maybe("stream", stream)
        .text("cure", "let the configuration set publish DELIVERY events, or set exposure = false for the stream")
        .write(Level::Warn);
}

/// `warmup_stepped`: a stream's ladder took a step, up or back; `cap`: recipients a day, none after the
/// last.
pub fn warmup_stepped(tenant: &TenantId, stream: &StreamId, step: u32, steps: u32, cap: Option<u64>) {
    Line::new("warmup_stepped")
        .shown("tenant", tenant)
        .shown("stream", stream)
        .number("rung", step)
        .number("rungs", steps)
        .maybe_number("cap", cap)
        .write(Level::Info);
}

/// Sets how many streams wait for a gate; no line.
pub fn lanes_gated(cause: &'static str, lanes: usize) {
    gauge!("bulkhead_outbox_lanes_waiting", "cause" => cause).set(f64::from(u32::try_from(lanes).unwrap_or(u32::MAX)));
}

/// Sets how much is held; no line.
pub fn backlog(messages: usize, bytes: u64, oldest: Duration, sending: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge of octets need not be exact")]
    gauge!("bulkhead_outbox_bytes").set(bytes as f64);
    gauge!("bulkhead_outbox_messages").set(f64::from(u32::try_from(messages).unwrap_or(u32::MAX)));
    gauge!("bulkhead_outbox_oldest_seconds").set(oldest.as_secs_f64());
    gauge!("bulkhead_outbox_sending").set(f64::from(u32::try_from(sending).unwrap_or(u32::MAX)));
}

/// Sets how many lanes have held mail, and how many of them are held themselves; no line.
pub fn lanes(lanes: usize, held: usize) {
    gauge!("bulkhead_outbox_lanes").set(f64::from(u32::try_from(lanes).unwrap_or(u32::MAX)));
    gauge!("bulkhead_outbox_lanes_held").set(f64::from(u32::try_from(held).unwrap_or(u32::MAX)));
}

// ---------------------------------------------------------------------------------------------
// Announcements

/// What the lines about an announcement say of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Which.
    pub id: MessageId,
    /// Of what kind; from a closed set.
    pub kind: &'static str,
    /// Whose.
    pub tenant: Option<&'a TenantId>,
    /// Of which stream.
    pub stream: Option<&'a StreamId>,
}

impl Told<'_> {
    fn line(&self, event: &'static str) -> Line {
        Line::new(event)
            .shown("announcement", self.id)
            .text("kind", self.kind)
            .maybe("tenant", self.tenant)
            .maybe("stream", self.stream)
    }
}

/// `announcement_mailed`: the mail `report` that tells somebody of it waits to be sent. One line for
/// each announcement in it; `audience` is `contact` or `operator`.
pub fn announcement_mailed(told: Told<'_>, audience: &'static str, report: MessageId, to: &Mailbox) {
    counter!("bulkhead_announcements_told_total", "kind" => told.kind, "audience" => audience).increment(1);
    told.line("announcement_mailed")
        .text("audience", audience)
        .shown("report", report)
        .text("to", shown(to))
        .write(Level::Info);
}

/// `announcement_deferred`: a mail could not be held, or the store did not say what is to be told; it is
/// tried again.
pub fn announcement_deferred(waiting: usize, reason: &str, wait: Duration) {
    Line::new("announcement_deferred")
        .number("items", count(waiting))
        .text("reason", reason)
        .millis("retry_ms", wait)
        .blamed(Blame::Us);
}

/// `announcement_lost`: somebody will not be told of it; `audience` says who.
pub fn announcement_lost(told: Told<'_>, audience: &'static str, reason: &str) {
    counter!("bulkhead_announcements_lost_total", "kind" => told.kind, "audience" => audience).increment(1);
    told.line("announcement_lost").text("audience", audience).text("reason", reason).blamed(Blame::Us);
}

/// `webhook_delivered`: the webhook took it, at the offer with this number.
pub fn webhook_delivered(told: Told<'_>, attempts: u32, took: Duration) {
    counter!("bulkhead_announcements_told_total", "kind" => told.kind, "audience" => "webhook").increment(1);
    histogram!("bulkhead_webhook_seconds", "outcome" => "delivered").record(took.as_secs_f64());
    told.line("webhook_delivered").number("attempts", attempts).millis("total_ms", took).write(Level::Info);
}

/// `webhook_failed`: the webhook did not take it; it is offered again after `wait`.
pub fn webhook_failed(told: Told<'_>, attempts: u32, reason: &str, wait: Duration, took: Duration) {
    histogram!("bulkhead_webhook_seconds", "outcome" => "failed").record(took.as_secs_f64());
    told.line("webhook_failed")
        .number("attempts", attempts)
        .text("reason", reason)
        .millis("retry_ms", wait)
        .millis("total_ms", took)
        .blamed(Blame::Upstream);
}

/// `webhook_disabled`: the webhook said that nobody listens there any more; nothing is offered until a
/// restart.
pub fn webhook_disabled(told: Told<'_>) {
    gauge!("bulkhead_webhook_enabled").set(0.0);
    told.line("webhook_disabled")
        .text("reason", "it answered 410: nobody listens there any more")
        .text("cure", "set another notify.webhook_url, or take it out, and restart the relay")
        .blamed(Blame::Us);
}

/// Sets that the webhook is there; no line.
pub fn webhook_enabled() {
    gauge!("bulkhead_webhook_enabled").set(1.0);
}

/// Sets how many announcements are still to be told to somebody; no line.
pub fn announcements_pending(pending: usize) {
    gauge!("bulkhead_announcements_pending").set(f64::from(u32::try_from(pending).unwrap_or(u32::MAX)));
}

/// `audit_failed`: something was changed, and the audit trail could not be told of it; the `changed`
/// line before this one says the same.
pub fn audit_failed(actor: &str, command: &str, reason: &str) {
    Line::new("audit_failed").text("actor", actor).text("command", command).text("reason", reason).blamed(Blame::Us);
}

// Watching

/// The hour in which a credential came to seem stolen.
#[derive(Clone, Debug)]
pub struct Suspected<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Which.
    pub credential: &'a Username,
    /// `alert` or `hold`.
    pub effect: &'static str,
    /// Recipients of the hour.
    pub recipients: u64,
    /// Of them, those it had never mailed.
    pub first_time: u64,
    /// The usual share of those.
    pub usual_first_time: f64,
    /// Recipients that came from new networks.
    pub from_new: u64,
    /// Some of the networks.
    pub networks: &'a [String],
    /// Usual recipients of this hour.
    pub mean: f64,
}

/// `credential_suspected`: a credential seems stolen.
pub fn credential_suspected(suspected: &Suspected<'_>, reason: &str) {
    counter!("bulkhead_credentials_suspected_total", "effect" => suspected.effect).increment(1);
    Line::new("credential_suspected")
        .shown("tenant", suspected.tenant)
        .shown("credential", suspected.credential)
        .text("effect", suspected.effect)
        .number("recipient_count", suspected.recipients)
        .number("first_time", suspected.first_time)
        .decimal("usual_first_time", suspected.usual_first_time)
        .number("from_new", suspected.from_new)
        .list("networks", suspected.networks.iter().cloned())
        .decimal("mean", suspected.mean)
        .text("reason", reason)
        .text("cure", "ask the tenant; `bulkhead credential rotate` and `revoke` end a stolen secret, `release` a hold")
        .write(Level::Warn);
}

/// Sets how many credentials are on hold; no line.
pub fn credentials_held(credentials: usize) {
    gauge!("bulkhead_credentials_held").set(f64::from(u32::try_from(credentials).unwrap_or(u32::MAX)));
}

/// `volume_unusual`: a tenant's volume fell or rose out of the usual in an hour that is over. `kind`:
/// `fell` or `rose`.
pub fn volume_unusual(tenant: &TenantId, hour: Timestamp, kind: &'static str, recipients: u64, mean: f64, why: &str) {
    counter!("bulkhead_volumes_unusual_total", "kind" => kind).increment(1);
    Line::new("volume_unusual")
        .shown("tenant", tenant)
        .text("kind", kind)
        .text("hour", hour.rfc3339())
        .number("recipient_count", recipients)
        .decimal("mean", mean)
        .text("reason", why)
        .write(Level::Warn);
}

/// `watch_deferred`: what credentials are used to, or tenants' volumes, could not be read or written.
pub fn watch_deferred(reason: &str) {
    Line::new("watch_deferred").text("reason", reason).blamed(Blame::Us);
}

/// Sets how many credentials' habits are in memory, and their octets; no line.
pub fn watched(credentials: usize, bytes: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge of octets need not be exact")]
    gauge!("bulkhead_watch_bytes").set(bytes as f64);
    gauge!("bulkhead_watch_credentials").set(f64::from(u32::try_from(credentials).unwrap_or(u32::MAX)));
}

/// Counts recipients that were not watched, since too many waited for it; no line.
pub fn unwatched(recipients: usize) {
    counter!("bulkhead_watch_skipped_total").increment(count(recipients));
}

// ---------------------------------------------------------------------------------------------
// Events

/// Whose event it was.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// The stream, where the event says so.
    pub stream: Option<StreamId>,
}

/// `message_bounced`, `message_complained`, `message_delivered` and so on: one line per applied
/// event. `suppressed` are the addresses that came onto the tenant's list by it.
pub fn event_applied(event: &Event, owner: &Owner, suppressed: &[Mailbox], lag: Duration) {
    let (name, kind) = event_words(&event.fate);
    counter!("bulkhead_events_total", "kind" => kind, "outcome" => "applied").increment(1);
    histogram!("bulkhead_event_lag_seconds").record(lag.as_secs_f64());
    let mut line = Line::new(name)
        .text("ses_id", &event.mail.message_id)
        .shown("tenant", &owner.tenant)
        .maybe("stream", owner.stream.as_ref())
        .maybe("credential", event.mail.credential.as_ref());
    if let Some(recipients) = event.fate.recipients() {
        line = line
            .list("recipients", recipients.iter().map(|r| r.mailbox.as_ref().map_or_else(|| "?".into(), shown)))
            .number("recipient_count", count(recipients.len()));
        if let Some(words) = recipients.iter().find_map(|r| r.diagnostic.as_deref()) {
            line = line.text("diagnostic", words);
        }
    }
    match &event.fate {
        Fate::Bounce { bounce_type, sub_type, .. } => line = line.text("reason", format!("{bounce_type:?}/{sub_type}")),
        Fate::Complaint { sub_type, feedback_type, .. } => {
            line = line.maybe("reason", feedback_type.as_ref().or(sub_type.as_ref()));
        }
        Fate::Reject { reason } => line = line.text("reason", reason),
        Fate::DeliveryDelay { delay_type, .. } => line = line.text("reason", delay_type),
        Fate::RenderingFailure { message } => line = line.text("reason", message),
        Fate::Send | Fate::Delivery { .. } | Fate::Open | Fate::Click | Fate::Subscription => {}
    }
    if !suppressed.is_empty() {
        line = line.list("suppressed", suppressed.iter().map(shown));
    }
    line.millis("lag_ms", lag).write(Level::Info);
}

fn event_words(fate: &Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::Send => ("message_sent", "send"),
        Fate::Delivery { .. } => ("message_delivered", "delivery"),
        Fate::Bounce { .. } => ("message_bounced", "bounce"),
        Fate::Complaint { .. } => ("message_complained", "complaint"),
        Fate::Reject { .. } => ("message_rejected", "reject"),
        Fate::DeliveryDelay { .. } => ("message_delayed", "delivery_delay"),
        Fate::Open => ("message_opened", "open"),
        Fate::Click => ("message_clicked", "click"),
        Fate::RenderingFailure { .. } => ("message_unrendered", "rendering_failure"),
        Fate::Subscription => ("subscription_changed", "subscription"),
    }
}

/// Counts an event that had been applied before; no line.
pub fn event_repeated(fate: &Fate) {
    counter!("bulkhead_events_total", "kind" => event_words(fate).1, "outcome" => "repeated").increment(1);
}

/// `event_unowned`: no tenant owns it; acknowledged.
pub fn event_unowned(event: &Event) {
    let (_, kind) = event_words(&event.fate);
    counter!("bulkhead_events_total", "kind" => kind, "outcome" => "unowned").increment(1);
    Line::new("event_unowned")
        .text("ses_id", &event.mail.message_id)
        .text("kind", kind)
        .maybe("from", event.mail.source.as_ref().map(shown))
        .text("reason", "no tenant owns its tags, configuration set or source domain")
        .write(Level::Warn);
}

/// `notice_malformed`: a queue item that cannot be read; left to the queue's redrive policy.
pub fn notice_malformed(id: &str, reason: &str) {
    counter!("bulkhead_notices_total", "outcome" => "malformed").increment(1);
    Line::new("notice_malformed")
        .text("notice", id)
        .text("reason", reason)
        .text("cure", "left in the queue; its redrive policy moves it to the dead-letter queue")
        .blamed(Blame::Upstream);
}

/// `notice_unknown`: well-formed, of a kind we do not know; acknowledged.
pub fn notice_unknown(id: &str, kind: &str) {
    counter!("bulkhead_notices_total", "outcome" => "unknown").increment(1);
    Line::new("notice_unknown").text("notice", id).text("kind", kind).write(Level::Warn);
}

/// `subscription_unconfirmed`: SNS waits for a confirmation that we never fetch.
pub fn subscription_unconfirmed(topic_arn: &str) {
    counter!("bulkhead_notices_total", "outcome" => "subscription").increment(1);
    Line::new("subscription_unconfirmed").text("topic", topic_arn).text("cure", "subscribe the queue to the topic with `aws sns subscribe --protocol sqs`, which needs no confirmation within one account; Bulkhead never opens a URL from a notice").write(Level::Warn);
}

/// `topic_validated`: SES's one-time notice at set-up.
pub fn topic_validated() {
    counter!("bulkhead_notices_total", "outcome" => "topic_validated").increment(1);
    Line::new("topic_validated").write(Level::Info);
}

/// `sending_status_noted`: EventBridge told that an SES tenant's status or a finding on it changed.
pub fn sending_status_noted(ses_tenant: &str, status: &str, cause: &str) {
    counter!("bulkhead_notices_total", "outcome" => "sending_status").increment(1);
    Line::new("sending_status_noted")
        .text("ses_tenant", ses_tenant)
        .text("status", status)
        .text("reason", cause)
        .write(Level::Warn);
}

/// `queue_failed`: receiving or deleting failed; tried again after `pause`.
pub fn queue_failed(what: &'static str, reason: &str, pause: Duration) {
    counter!("bulkhead_queue_failures_total", "call" => what).increment(1);
    Line::new("queue_failed")
        .text("call", what)
        .text("reason", reason)
        .millis("retry_ms", pause)
        .blamed(Blame::Upstream);
}

/// `suppressions_synced`: a list of SES's was compared with ours; no tenant: the account's.
pub fn suppressions_synced(tenant: Option<&TenantId>, synced: &Synced) {
    counter!("bulkhead_suppression_syncs_total", "outcome" => "done").increment(1);
    let Synced { listed, added, removed, put, deleted } = *synced;
    Line::new("suppressions_synced")
        .maybe("tenant", tenant)
        .number("listed", count(listed))
        .number("added", count(added))
        .number("removed", count(removed))
        .number("put", count(put))
        .number("deleted", count(deleted))
        .write(Level::Info);
}

/// `sync_failed`: a list of SES's could not be compared with ours; it goes on after `pause`.
pub fn sync_failed(tenant: Option<&TenantId>, reason: &str, cure: &str, blame: Blame, pause: Duration) {
    counter!("bulkhead_suppression_syncs_total", "outcome" => "failed").increment(1);
    Line::new("sync_failed")
        .maybe("tenant", tenant)
        .text("reason", reason)
        .text("cure", cure)
        .millis("retry_ms", pause)
        .blamed(blame);
}

/// `events_deferred`: the store did not take events; they stay in the queue.
pub fn events_deferred(items: usize, reason: &str) {
    Line::new("events_deferred").number("items", count(items)).text("reason", reason).blamed(Blame::Us);
}
