//! Commands: every change and every question an operator has, as values, and [`perform`].
//!
//! The same function stands behind the control socket and behind a command that opened the store
//! itself. Promises: changes are made one at a time; each is committed, then the [`Directory`] that
//! the message path reads is replaced, then the answer is given, so who has the answer can rely on
//! it; each leaves a `changed` line and entries of the audit trail, with who and why. What is changed in
//! one commit has its trail in the same. A secret is in the answer to `credential issue` and `rotate` and
//! nowhere else.
//! Refuses: what names a tenant, stream or credential that is not there, with the nearest name that
//! is. What can go wrong: [`CommandError`], each with what to do next.
//!
//! [`Directory`]: crate::store::directory::Directory

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::error::CommandError;
use super::health::Health;
use super::view::{
    AuditPage, CredentialView, Discarded, DomainRow, ExplainView, HeldPage, HeldView, HistoryPage, Issued, Retried,
    Revoked, Status, SuppressionView, TenantRow, TenantState, TenantView, Unsuppressed, Verified,
};
use super::warmup::WarmupView;
use super::{audit, credentials, explain, history, outbox, suppressions, tenants, verify, warmup};
use crate::announce::{Announce, Announcement};
use crate::ingest::Applier;
use crate::journal;
use crate::mail::{Mailbox, MessageId, StreamId, TenantId, Username};
use crate::outbox::{Cause, Lane, Outbox, Spool};
use crate::policy::decide::Stop;
use crate::policy::explain::Gate;
use crate::policy::reputation::Rules;
use crate::policy::tenant::{Limits, SuppressionReason, Tenant};
use crate::secret::Random;
use crate::store::audit::{Entry, Place};
use crate::store::directory::{Changing, Current, Fault};
use crate::store::tenants::{Change, Declared};
use crate::store::{Batch, Store};
use crate::time::{Clock, Hour, Timestamp};

/// Most rows of one answer; more are asked for with `after`.
pub const PAGE: usize = 1000;
/// Most suppressions or events of one request.
pub const CHUNK: usize = 500;
/// Longest reason in characters.
pub const REASON: usize = 300;

/// A command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How is the relay?
    Status,
    /// Tenants by name.
    TenantList {
        /// Only those after this one.
        after: Option<TenantId>,
    },
    /// One tenant in full.
    TenantShow {
        /// Which.
        tenant: TenantId,
    },
    /// Stops a tenant's or a stream's mail.
    TenantPause {
        /// Whose.
        tenant: TenantId,
        /// Only this stream's.
        stream: Option<StreamId>,
        /// Why; the tenant's clients hear it.
        reason: String,
    },
    /// Lets it go on.
    TenantResume {
        /// Whose.
        tenant: TenantId,
        /// Only this stream's.
        stream: Option<StreamId>,
        /// Why.
        reason: String,
    },
    /// Changes those limits that are given.
    TenantLimits {
        /// Whose.
        tenant: TenantId,
        /// Only this stream's.
        stream: Option<StreamId>,
        /// The new limits.
        limits: Limits,
        /// Take all limits of its own away first.
        reset: bool,
        /// Why.
        reason: String,
    },
    /// The chain of rules that a message would meet.
    Explain {
        /// Whose.
        tenant: TenantId,
        /// From whom.
        from: Mailbox,
        /// To whom.
        to: Mailbox,
        /// The stream it names.
        stream: Option<String>,
        /// By which credential; `None`: by one that is bound to no stream.
        credential: Option<Username>,
    },
    /// Tenants with their limits, for a replay of what was sent.
    TenantStates {
        /// Only this one.
        tenant: Option<TenantId>,
        /// Only those after this one.
        after: Option<TenantId>,
    },
    /// Stored counts, for a replay of what was sent.
    HistoryPage {
        /// Only this tenant's.
        tenant: Option<TenantId>,
        /// From this hour on.
        from: Hour,
        /// Only streams after this one.
        after: Option<(TenantId, StreamId)>,
    },
    /// What became of a tenant's mail by recipient domain.
    TenantDomains {
        /// Whose.
        tenant: TenantId,
        /// Days (UTC), today among them.
        days: u32,
    },
    /// Makes a credential with a new secret.
    CredentialIssue {
        /// Whose.
        tenant: TenantId,
        /// `None`: the tenant's name and six characters.
        username: Option<Username>,
        /// The stream it is bound to.
        stream: Option<StreamId>,
        /// When it ends.
        expires: Option<Timestamp>,
        /// Networks it may be used from.
        from_ip: Vec<IpNet>,
        /// Why.
        reason: String,
    },
    /// Credentials by username.
    CredentialList {
        /// Only this tenant's.
        tenant: Option<TenantId>,
        /// Only those after this one.
        after: Option<Username>,
    },
    /// Ends a credential at once.
    CredentialRevoke {
        /// Which.
        username: Username,
        /// Why.
        reason: String,
    },
    /// Gives a credential a new secret; the old one lives on for a while.
    CredentialRotate {
        /// Which.
        username: Username,
        /// Until when the old secret lives, in seconds from now.
        overlap_seconds: u64,
        /// Why.
        reason: String,
    },
    /// Puts a credential on hold: what it sends is deferred.
    CredentialHold {
        /// Which.
        username: Username,
        /// Why; its clients hear it.
        reason: String,
    },
    /// Ends the hold on a credential.
    CredentialRelease {
        /// Which.
        username: Username,
        /// Why.
        reason: String,
    },
    /// A tenant's suppression list.
    SuppressionList {
        /// Whose.
        tenant: TenantId,
        /// Only entries after this one: its address in lower case, and its reason.
        after: Option<(String, SuppressionReason)>,
    },
    /// The entries of an address.
    SuppressionShow {
        /// Whose.
        tenant: TenantId,
        /// Which.
        address: Mailbox,
    },
    /// Adds an entry.
    SuppressionAdd {
        /// Whose.
        tenant: TenantId,
        /// Which.
        address: Mailbox,
        /// What it counts as.
        kind: SuppressionReason,
        /// Until when it stands.
        expires: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// Removes the entries of an address.
    SuppressionRemove {
        /// Whose.
        tenant: TenantId,
        /// Which.
        address: Mailbox,
        /// Only the entry of this kind.
        kind: Option<SuppressionReason>,
        /// A complaint's entry, too.
        force: bool,
        /// Why.
        reason: String,
    },
    /// Adds up to [`CHUNK`] entries out of a file.
    SuppressionImport {
        /// Whose.
        tenant: TenantId,
        /// The file's name, which becomes the entries' origin.
        source: String,
        /// The entries.
        entries: Vec<super::listfile::Entry>,
    },
    /// Makes the store equal to a tenants file.
    Apply {
        /// What the file says.
        #[serde(with = "declared_form")]
        declared: Declared,
        /// The file's name, for the log.
        source: String,
        /// Only tell the difference.
        dry_run: bool,
        /// Remove what the file does not have.
        prune: bool,
    },
    /// Applies up to [`CHUNK`] archived events once.
    EventsReplay {
        /// The file's name, for the log.
        source: String,
        /// The events with the numbers of their lines.
        lines: Vec<ArchivedNotice>,
    },
    /// Held messages in the order they were accepted.
    OutboxList {
        /// Only this tenant's.
        tenant: Option<TenantId>,
        /// Only those of streams of this name.
        stream: Option<StreamId>,
        /// Only those that wait for this.
        cause: Option<Cause>,
        /// Only those after this one.
        after: Option<MessageId>,
    },
    /// A held message in full, but for its octets.
    OutboxShow {
        /// Which.
        message: MessageId,
    },
    /// Makes held messages ready at once, up to [`PAGE`] of them.
    OutboxRetry {
        /// Which.
        selection: Selection,
        /// Only those after this one, of a selection that names none.
        after: Option<MessageId>,
        /// Only those that were accepted by then, so that who goes on page by page comes to an end.
        until: Option<Timestamp>,
    },
    /// Gives held messages up, up to [`PAGE`] of them.
    OutboxDiscard {
        /// Which.
        selection: Selection,
        /// Only those after this one, of a selection that names none.
        after: Option<MessageId>,
        /// Only those that were accepted by then.
        until: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// Entries of the audit trail, newest first.
    AuditList {
        /// Only this tenant's.
        tenant: Option<TenantId>,
        /// Only those from this moment on.
        since: Option<Timestamp>,
        /// Only those behind this one.
        after: Option<Place>,
    },
    /// Warm-up ladders in the order of their tenants and streams.
    WarmupShow {
        /// Only this tenant's.
        tenant: Option<TenantId>,
        /// Only those of streams of this name.
        stream: Option<StreamId>,
        /// Only those after this one.
        after: Option<(TenantId, StreamId)>,
    },
    /// Checks a page of the store and of the outbox's files.
    StoreVerify {
        /// Where the page before ended.
        after: Option<String>,
    },
}

/// Which held messages are meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// These, at most [`CHUNK`]. Where one of them is not held, or is being sent, nothing is done.
    Messages(Vec<MessageId>),
    /// A tenant's.
    Of {
        /// Whose.
        tenant: TenantId,
        /// Only this stream's.
        stream: Option<StreamId>,
    },
    /// All there are.
    All,
}

/// A declaration on the control socket: each tenant with the credentials it is given.
mod declared_form {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::policy::tenant::Tenant;
    use crate::store::credential::Credential;
    use crate::store::tenants::{Declared, DeclaredTenant};

    pub(super) fn serialize<S: Serializer>(declared: &Declared, s: S) -> Result<S::Ok, S::Error> {
        declared.tenants.iter().map(|one| (&one.tenant, &one.credentials)).collect::<Vec<_>>().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Declared, D::Error> {
        let pairs = Vec::<(Tenant, Vec<Credential>)>::deserialize(d)?;
        let tenants = pairs.into_iter().map(|(tenant, credentials)| DeclaredTenant { tenant, credentials }).collect();
        Ok(Declared { tenants })
    }
}

/// One line of an archive of events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArchivedNotice {
    /// Its line in the file, from 1.
    pub line: usize,
    /// The event in any form that the queue brings.
    pub body: String,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
pub enum Response {
    /// To `Status`.
    Status(Status),
    /// To `TenantList`; full pages have more behind them.
    Tenants(Vec<TenantRow>),
    /// To `TenantShow`, `TenantPause`, `TenantResume`, `TenantLimits`: as it is now.
    Tenant(Box<TenantView>),
    /// To `Explain`.
    Explained(Box<ExplainView>),
    /// To `TenantStates`; full pages ([`TENANTS`](super::history::TENANTS)) have more behind them.
    States(Vec<TenantState>),
    /// To `HistoryPage`.
    History(HistoryPage),
    /// To `TenantDomains`: the worst first, at most [`PAGE`].
    Domains(Vec<DomainRow>),
    /// To `CredentialIssue` and `CredentialRotate`.
    Issued(Issued),
    /// To `CredentialList`; full pages have more behind them.
    Credentials(Vec<CredentialView>),
    /// To `CredentialHold` and `CredentialRelease`: as it is now.
    Credential(CredentialView),
    /// To `CredentialRevoke`: as it was.
    Revoked(Revoked),
    /// To `SuppressionList`; full pages have more behind them. To `SuppressionShow` and
    /// `SuppressionAdd`: all entries of the address.
    Suppressions(Vec<SuppressionView>),
    /// To `SuppressionRemove`.
    Unsuppressed(Unsuppressed),
    /// To `SuppressionImport`.
    Imported {
        /// How many are new or were made stronger.
        added: usize,
        /// How many were there as strong.
        kept: usize,
    },
    /// To `Apply`.
    Applied {
        /// Each difference.
        changes: Vec<Change>,
        /// The same in words, in the same order.
        words: Vec<String>,
        /// Whether it was only told.
        dry_run: bool,
    },
    /// To `EventsReplay`.
    Replayed {
        /// How many were taken: applied, applied before, or nobody's.
        taken: usize,
        /// Lines that are no events, with what is wrong.
        malformed: Vec<(usize, String)>,
        /// Lines that the store did not take.
        deferred: Vec<usize>,
    },
    /// To `OutboxList`.
    Held(HeldPage),
    /// To `OutboxShow`.
    HeldMessage(Box<HeldView>),
    /// To `OutboxRetry`.
    Retried(Retried),
    /// To `OutboxDiscard`.
    Discarded(Discarded),
    /// To `AuditList`.
    Audit(AuditPage),
    /// To `WarmupShow`; full pages have more behind them.
    Warmups(Vec<WarmupView>),
    /// To `StoreVerify`.
    Verified(Verified),
}

/// Says what a lane waits for, and for how long, if that is known.
pub type Behind = Box<dyn Fn(&Lane) -> Option<(String, Option<Duration>)> + Send + Sync>;

/// Hears that a tenant's window, or a stream's, has begun anew.
pub type Resumed = Box<dyn Fn(&Tenant, Option<&StreamId>) + Send + Sync>;

/// The rules of reputation that are in force.
pub type RulesNow = Box<dyn Fn() -> Rules + Send + Sync>;

/// Says what an accepted message of a lane has to wait for: rates, caps, windows.
pub type GatesOf = Box<dyn Fn(&Lane) -> Vec<Gate> + Send + Sync>;

/// A refusal as an SMTP client hears it.
pub type Spoken = fn(&Stop) -> String;

/// Where commands are carried out.
pub struct Desk {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The snapshot that changes replace.
    pub directory: Current,
    /// The time of changes.
    pub clock: Arc<dyn Clock>,
    /// What secrets are made of.
    pub random: Arc<dyn Random>,
    /// Applies archived events.
    pub applier: Applier,
    /// The process, if it is a relay.
    pub health: Option<Arc<Health>>,
    /// What is held, if this process works with it.
    pub outbox: Option<Arc<Outbox>>,
    /// Who says what lanes of the outbox wait for, once somebody sends what is held.
    lanes: OnceLock<Behind>,
    /// Who hears that a window begins anew.
    resumes: OnceLock<Resumed>,
    /// Who is woken for announcements.
    bell: OnceLock<Arc<dyn Announce>>,
    /// Who knows the rules of reputation.
    rules: OnceLock<RulesNow>,
    /// Who knows what accepted mail has to wait for.
    gates: OnceLock<GatesOf>,
    /// Who speaks SMTP.
    words: OnceLock<Spoken>,
    /// The outbox's files and the node they are of, for a desk that only checks them.
    pub files: Option<(Arc<dyn Spool>, String)>,
    /// One change at a time.
    changing: Changing,
}

impl Desk {
    /// A desk for commands on `store`, whose tenants `directory` holds.
    pub fn new(
        store: Arc<dyn Store>,
        directory: Current,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        applier: Applier,
        health: Option<Arc<Health>>,
    ) -> Self {
        tell_of_damage(&[], directory.load().faults());
        journal::credentials_held(directory.load().held_credentials());
        Self {
            store,
            directory,
            clock,
            random,
            applier,
            health,
            outbox: None,
            lanes: OnceLock::new(),
            resumes: OnceLock::new(),
            bell: OnceLock::new(),
            rules: OnceLock::new(),
            gates: OnceLock::new(),
            words: OnceLock::new(),
            files: None,
            changing: Changing::default(),
        }
    }

    /// The same with an outbox that is open.
    pub fn with_outbox(mut self, outbox: Arc<Outbox>) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// Held by whoever changes the directory.
    pub fn changing(&self) -> Changing {
        Arc::clone(&self.changing)
    }

    /// From now on `bell` is woken for what commands announce; without it the next start finds it.
    pub fn announce_by(&self, bell: Arc<dyn Announce>) {
        let _ = self.bell.set(bell);
    }

    /// An announcement is in the store.
    pub(super) fn announce(&self, announcement: &Announcement) {
        if let Some(bell) = self.bell.get() {
            bell.announce(announcement);
        }
    }

    /// From now on `fresh` hears whose window has begun anew.
    pub fn tell_of_resumes(&self, fresh: Resumed) {
        let _ = self.resumes.set(fresh);
    }

    /// A tenant's window, or a stream's, has begun anew.
    pub(super) fn resumed(&self, tenant: &Tenant, stream: Option<&StreamId>) {
        if let Some(fresh) = self.resumes.get() {
            fresh(tenant, stream);
        }
    }

    /// From now on `rules` says which rules of reputation are in force; without it the defaults are.
    pub fn ask_of_rules(&self, rules: RulesNow) {
        let _ = self.rules.set(rules);
    }

    /// The rules of reputation.
    pub(super) fn rules(&self) -> Rules {
        self.rules.get().map(|rules| rules()).unwrap_or_default()
    }

    /// From now on `gates` says what accepted mail of a lane has to wait for.
    pub fn ask_of_gates(&self, gates: GatesOf) {
        let _ = self.gates.set(gates);
    }

    pub(super) fn gates(&self, lane: &Lane) -> Vec<Gate> {
        self.gates.get().map(|gates| gates(lane)).unwrap_or_default()
    }

    /// From now on refusals are told as `words` has them.
    pub fn speak_as(&self, words: Spoken) {
        let _ = self.words.set(words);
    }

    /// A refusal as a client hears it; its name where nobody here speaks SMTP.
    pub(super) fn words(&self, stop: &Stop) -> String {
        self.words.get().map_or_else(|| stop.reason().name().to_owned(), |words| words(stop))
    }

    /// From now on `behind` says what a lane waits for beside its messages' own waits.
    pub fn ask_of_lanes(&self, behind: Behind) {
        let _ = self.lanes.set(behind);
    }

    /// What a lane waits for beside its messages' own waits, and for how long, if that is known.
    pub(super) fn behind(&self, lane: &Lane) -> Option<(String, Option<Duration>)> {
        self.lanes.get()?(lane)
    }

    /// Whether anybody here sends, and so knows what lanes wait for.
    pub(super) fn sends(&self) -> bool {
        self.lanes.get().is_some()
    }

    /// The same for a check of `node`'s outbox that nobody has open. To open it is to bring rows and
    /// files together, and what was to be found would be gone.
    pub fn with_files(mut self, spool: Arc<dyn Spool>, node: String) -> Self {
        self.files = Some((spool, node));
        self
    }

    /// What the audit trail is to say of a change.
    pub(super) fn trail(&self, changed: &Changed<'_>) -> Vec<Entry> {
        audit::entries(changed, self.clock.now(), &*self.random)
    }

    /// The same as a batch, for the commit that makes the change: there is none without its trail.
    pub(super) fn batch_of(&self, changed: &Changed<'_>) -> Batch {
        let mut batch = Batch::new();
        self.trail(changed).iter().for_each(|entry| crate::store::audit::write(&mut batch, entry));
        batch
    }

    /// Tells log and trail of what was done in many commits, whose outcome is known at their end alone.
    /// That the trail could not be told undoes nothing; the log says so.
    pub(super) async fn changed(&self, changed: Changed<'_>) {
        changed.tell();
        if let Err(error) = crate::store::audit::append_all(&*self.store, &self.trail(&changed)).await {
            journal::audit_failed(changed.actor, changed.command, &error.to_string());
        }
    }

    /// Reads all tenants and credentials anew and puts them in force.
    pub(super) async fn reload(&self) -> Result<(), CommandError> {
        match crate::store::tenants::load(self.store.as_ref()).await {
            Ok(directory) => {
                let before = self.directory.swap(Arc::new(directory));
                let now = self.directory.load();
                tell_of_damage(before.faults(), now.faults());
                journal::credentials_held(now.held_credentials());
                Ok(())
            }
            Err(error) => Err(CommandError::NotInForce { words: error.to_string() }),
        }
    }
}

/// A change, as log and audit trail are told of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed<'a> {
    /// Who.
    pub(super) actor: &'a str,
    /// By which command, with what it names.
    pub(super) command: &'a str,
    /// Whose.
    pub(super) tenant: Option<&'a TenantId>,
    /// Of which stream.
    pub(super) stream: Option<&'a StreamId>,
    /// Why, or what it came to.
    pub(super) reason: &'a str,
    /// How it was.
    pub(super) before: &'a str,
    /// How it is.
    pub(super) after: &'a str,
    /// What was changed of whom, where it was several things; each has an entry of its own.
    pub(super) parts: &'a [(TenantId, String)],
}

impl<'a> Changed<'a> {
    /// One that nothing more is known of yet.
    pub(super) fn by(actor: &'a str, command: &'a str) -> Self {
        Self { actor, command, ..Self::default() }
    }

    /// Tells the log of it, once it is in the store and in force.
    pub(super) fn tell(&self) {
        journal::changed(self.actor, self.command, self.tenant, self.reason);
    }
}

/// Logs the damaged records that were not known `before`, and counts all.
fn tell_of_damage(before: &[Fault], now: &[Fault]) {
    for fault in now.iter().filter(|fault| !before.contains(fault)) {
        let cure = cure(fault);
        journal::record_damaged(&fault.key.to_string(), &fault.what, &cure);
    }
    journal::damaged_records(now.len());
}

fn cure(fault: &Fault) -> String {
    match (&fault.tenant, &fault.username) {
        (Some(tenant), _) => {
            format!("apply a tenants file that declares {tenant}, or restore a backup; its mail is deferred until then")
        }
        (None, Some(username)) => format!(
            "apply the tenants file that declares it, or `bulkhead credential issue TENANT --username {username}` for a new secret; its logins hear 454 until then"
        ),
        (None, None) if fault.key.parts().is_some_and(|parts| parts.first() == Some(&"pause")) => {
            "`bulkhead tenant resume` ends the pause, which holds until then".into()
        }
        (None, None) if fault.key.parts().is_some_and(|parts| parts.first() == Some(&"credentialhold")) => {
            "`bulkhead credential release` ends the hold, which stands until then".into()
        }
        (None, None) => "restore a backup; nobody's mail waits for it".into(),
    }
}

/// Carries a command out for `actor` (`cli:root`).
pub async fn perform(desk: &Desk, request: Request, actor: &str) -> Result<Response, CommandError> {
    let _one_at_a_time = if request.changes() { Some(desk.changing.lock().await) } else { None };
    match request {
        Request::Status => Ok(Response::Status(status(desk))),
        Request::TenantList { after } => Ok(tenants::list(desk, after.as_ref())),
        Request::TenantShow { tenant } => tenants::show(desk, &tenant).await,
        Request::TenantPause { tenant, stream, reason } => {
            tenants::pause(desk, &tenant, stream.as_ref(), &reason, actor).await
        }
        Request::TenantResume { tenant, stream, reason } => {
            tenants::resume(desk, &tenant, stream.as_ref(), &reason, actor).await
        }
        Request::TenantLimits { tenant, stream, limits, reset, reason } => {
            tenants::limits(desk, &tenant, stream.as_ref(), &limits, reset, &reason, actor).await
        }
        Request::Explain { tenant, from, to, stream, credential } => {
            explain::explain(desk, explain::Question { tenant, from, to, stream, credential }).await
        }
        Request::TenantStates { tenant, after } => history::tenants(desk, tenant.as_ref(), after.as_ref()),
        Request::HistoryPage { tenant, from, after } => history::page(desk, tenant.as_ref(), from, after).await,
        Request::TenantDomains { tenant, days } => tenants::domains(desk, &tenant, days).await,
        Request::CredentialIssue { tenant, username, stream, expires, from_ip, reason } => {
            let wish = credentials::Wish { tenant, username, stream, expires, from_ip };
            credentials::issue(desk, wish, &reason, actor).await
        }
        Request::CredentialList { tenant, after } => credentials::list(desk, tenant.as_ref(), after.as_ref()),
        Request::CredentialRevoke { username, reason } => credentials::revoke(desk, &username, &reason, actor).await,
        Request::CredentialRotate { username, overlap_seconds, reason } => {
            credentials::rotate(desk, &username, overlap_seconds, &reason, actor).await
        }
        Request::CredentialHold { username, reason } => credentials::hold(desk, &username, &reason, actor).await,
        Request::CredentialRelease { username, reason } => credentials::release(desk, &username, &reason, actor).await,
        Request::SuppressionList { tenant, after } => suppressions::list(desk, &tenant, after).await,
        Request::SuppressionShow { tenant, address } => suppressions::show(desk, &tenant, &address).await,
        Request::SuppressionAdd { tenant, address, kind, expires, reason } => {
            suppressions::add(desk, &tenant, &address, (kind, expires), &reason, actor).await
        }
        Request::SuppressionRemove { tenant, address, kind, force, reason } => {
            suppressions::remove(desk, &tenant, &address, (kind, force), &reason, actor).await
        }
        Request::SuppressionImport { tenant, source, entries } => {
            suppressions::import(desk, &tenant, &source, entries, actor).await
        }
        Request::Apply { declared, source, dry_run, prune } => {
            tenants::apply(desk, &declared, &source, dry_run, prune, actor).await
        }
        Request::EventsReplay { source, lines } => events_replay(desk, &source, lines, actor).await,
        Request::OutboxList { tenant, stream, cause, after } => {
            outbox::list(desk, outbox::Filter { tenant, stream, cause }, after).await
        }
        Request::OutboxShow { message } => outbox::show(desk, message).await,
        Request::OutboxRetry { selection, after, until } => outbox::retry(desk, selection, after, until, actor).await,
        Request::OutboxDiscard { selection, after, until, reason } => {
            outbox::discard(desk, selection, (after, until), &reason, actor).await
        }
        Request::AuditList { tenant, since, after } => audit::list(desk, tenant, since, after).await,
        Request::WarmupShow { tenant, stream, after } => {
            warmup::show(desk, tenant.as_ref(), stream.as_ref(), after.as_ref()).await
        }
        Request::StoreVerify { after } => verify::page(desk, after.as_deref()).await,
    }
}

impl Request {
    /// Whether it may change anything.
    fn changes(&self) -> bool {
        match self {
            Self::Status
            | Self::TenantList { .. }
            | Self::TenantShow { .. }
            | Self::TenantDomains { .. }
            | Self::TenantStates { .. }
            | Self::HistoryPage { .. }
            | Self::Explain { .. }
            | Self::CredentialList { .. }
            | Self::SuppressionList { .. }
            | Self::SuppressionShow { .. }
            | Self::OutboxList { .. }
            | Self::OutboxShow { .. }
            | Self::AuditList { .. }
            | Self::WarmupShow { .. }
            | Self::StoreVerify { .. } => false,
            Self::TenantPause { .. }
            | Self::TenantResume { .. }
            | Self::TenantLimits { .. }
            | Self::CredentialIssue { .. }
            | Self::CredentialRevoke { .. }
            | Self::CredentialRotate { .. }
            | Self::CredentialHold { .. }
            | Self::CredentialRelease { .. }
            | Self::SuppressionAdd { .. }
            | Self::SuppressionRemove { .. }
            | Self::SuppressionImport { .. }
            | Self::Apply { .. }
            | Self::EventsReplay { .. }
            | Self::OutboxRetry { .. }
            | Self::OutboxDiscard { .. } => true,
        }
    }
}

fn status(desk: &Desk) -> Status {
    let directory = desk.directory.load();
    let process = desk
        .health
        .as_ref()
        .map(|health| health.status())
        .unwrap_or_else(|| Status { version: env!("CARGO_PKG_VERSION").into(), ..Status::default() });
    Status { tenants: directory.tenants().count(), credentials: directory.credentials().count(), ..process }
}

/// The name among `names` that `wanted` was most likely meant to be.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.to_owned())
}

/// A reason as it is kept: one line, not too long.
pub(super) fn reason(text: &str, otherwise: &str) -> String {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(REASON).collect();
    if text.is_empty() { otherwise.to_owned() } else { text }
}

async fn events_replay(
    desk: &Desk,
    source: &str,
    lines: Vec<ArchivedNotice>,
    actor: &str,
) -> Result<Response, CommandError> {
    if lines.len() > CHUNK {
        return Err(CommandError::TooMany { what: "events".into(), given: lines.len(), most: CHUNK });
    }
    let (mut numbers, mut notices, mut malformed) = (Vec::new(), Vec::new(), Vec::new());
    for ArchivedNotice { line, body } in lines {
        match crate::event::parse(body.as_bytes()) {
            Ok(notice) => {
                numbers.push(line);
                notices.push((format!("{source}:{line}"), notice));
            }
            Err(error) => malformed.push((line, error.to_string())),
        }
    }
    let outcomes = desk.applier.apply(notices).await;
    let (mut taken, mut deferred) = (0, Vec::new());
    for (line, outcome) in numbers.into_iter().zip(outcomes) {
        if outcome.is_safe() {
            taken += 1;
        } else {
            deferred.push(line);
        }
    }
    desk.changed(Changed { reason: &format!("{source}: {taken} events taken"), ..Changed::by(actor, "events replay") })
        .await;
    Ok(Response::Replayed { taken, malformed, deferred })
}
