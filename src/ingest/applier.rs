//! The applier: from notices to what is safely in the store.
//!
//! A notice about a message is taken apart into its recipients' shares ([`ledger::Share`]); each
//! share is committed together with its effects, `If::Absent` on the ledger, so it is applied once
//! whatever the queue does. Shares of several events go into one commit of up to [`BATCH_ITEMS`]
//! writes; an event's shares stay together as far as they fit, and an event is safe when all of
//! them are.
//!
//! Promises: [`Outcome::is_safe`] only after a durable commit, and in the order the notices came in;
//! the same counts and suppressions whatever the order, the grouping and the repeats (what remains of
//! order in runs of soft bounces is `policy::run`'s to tell). A delivery to an address that never
//! bounced softly costs one read more, and writes nothing for it. Usable on its
//! own: `events replay` hands it an archive instead of a queue. Counter rows and suppressions are
//! written on the version that was read, so a second applier or a command is a conflict and a
//! second look, never a lost count.
//!
//! What can go wrong: the store. What it did not take is [`Outcome::Deferred`], and nothing of that
//! share has changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::owner::{cannot_be_told, owner};
use super::witness::{Fact, Hearing, one};
use crate::announce::{self, Announcement, Kind, Severity};
use crate::event::Notice;
use crate::event::kind::{Event, Recommendation, SendingStatus};
use crate::journal::{self, Owner};
use crate::mail::{Mailbox, TenantId};
use crate::policy::effect::{self, Before, Count, Effect};
use crate::policy::run::{self, Rules, Run, Step};
use crate::policy::tenant::{Cohort, Suppression, SuppressionReason};
use crate::secret::Random;
use crate::store::counters::{self, Counts, Row};
use crate::store::directory::{Current, Directory};
use crate::store::domains::{self, Domains};
use crate::store::ledger::{self, Share};
use crate::store::ses_statuses::{self, Status};
use crate::store::{BATCH_ITEMS, Batch, CommitError, If, Key, ReadError, Store, record, runs, suppressions};
use crate::time::{Clock, Timestamp};

/// How often a commit is folded anew after a conflict, before its events are left for later.
const ATTEMPTS: usize = 8;
/// Most tenants of one SES tenant that are told of it.
const MIRRORED: usize = 50;

/// What became of a notice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// An event: its effects are durable (or it has none).
    Applied,
    /// An event that had been applied before, to all its recipients.
    Repeated,
    /// An event that no tenant owns: logged.
    Unowned,
    /// Not about a message: logged.
    Noted,
    /// The store did not take all of it: it must come again.
    Deferred,
}

impl Outcome {
    /// Whether the notice may be deleted.
    pub fn is_safe(self) -> bool {
        match self {
            Self::Applied | Self::Repeated | Self::Unowned | Self::Noted => true,
            Self::Deferred => false,
        }
    }
}

/// Applies notices, each once.
pub struct Applier {
    store: Arc<dyn Store>,
    directory: Current,
    clock: Arc<dyn Clock>,
    node: String,
    hearing: Hearing,
    rules: Rules,
    domains: Arc<Domains>,
}

/// One owned event on its way.
struct Task {
    event: Event,
    owner: Owner,
    /// How many recipients' shares it has; none if it changes nothing.
    shares: usize,
    /// Shares that are not yet known to be applied.
    open: usize,
    /// Shares that this run applied.
    fresh: usize,
    /// Addresses that came onto the list by it.
    suppressed: Vec<Mailbox>,
}

/// One recipient's share of a task, with all that its commit needs.
struct Part {
    task: usize,
    share: Share,
    row: Row,
    /// When SES took the message.
    sent: Timestamp,
    count: Option<Count>,
    suppress: Option<(Mailbox, Suppression)>,
    run: Option<(Mailbox, Step)>,
    /// By which domain it is counted, too: the recipient's, and where that has no row, all others'.
    domain: Option<domains::Row>,
}

/// Parts that go into one commit.
type Group = Vec<Part>;

/// What one commit holds besides the ledger.
#[derive(Default)]
struct Fold {
    rows: BTreeMap<Row, (If, Counts)>,
    entries: BTreeMap<Key, Entry>,
    runs: BTreeMap<Key, RunRow>,
    domains: BTreeMap<domains::Row, (If, Counts)>,
}

/// A run of soft bounces as it is to be.
struct RunRow {
    condition: If,
    run: Run,
    changed: bool,
}

/// A suppression as it stands and as it is to be.
struct Entry {
    condition: If,
    there: Option<Suppression>,
    /// Whether it stood when the commit was folded.
    stood: bool,
    changed: bool,
}

/// Why a group was not committed.
struct Stopped {
    reason: String,
    /// Whether the next group need not be tried.
    unavailable: bool,
}

impl Applier {
    /// `node` names the counter rows this one writes: not empty, without NUL.
    pub fn new(store: Arc<dyn Store>, directory: Current, clock: Arc<dyn Clock>, node: String) -> Self {
        Self {
            store,
            directory,
            clock,
            node,
            hearing: Hearing::default(),
            rules: Rules::default(),
            domains: Arc::default(),
        }
    }

    /// The same with another bound on the domains of a tenant's day. Appliers of one node share it.
    pub fn with_domains(self, domains: Arc<Domains>) -> Self {
        Self { domains, ..self }
    }

    /// The same, heard by whoever is there when something is applied.
    pub fn heard_by(self, hearing: Hearing) -> Self {
        Self { hearing, ..self }
    }

    /// The same with other rules of when soft bounces suppress.
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Applies `notices`, each with an id for the log; the outcomes come in the same order.
    pub async fn apply(&self, notices: Vec<(String, Notice)>) -> Vec<Outcome> {
        let now = self.clock.now();
        let directory = self.directory.load_full();
        let mut outcomes = Vec::with_capacity(notices.len());
        let mut tasks = Vec::new();
        let mut parts = Vec::new();
        for (id, notice) in notices {
            let event = match notice {
                Notice::Event(event) => event,
                Notice::SendingStatus(status) => {
                    outcomes.push(Ok(self.mirror(&status, &directory, now).await));
                    continue;
                }
                other => {
                    note(&id, other);
                    outcomes.push(Ok(Outcome::Noted));
                    continue;
                }
            };
            let Some(owner) = owner(&directory, &event.mail) else {
                if cannot_be_told(&directory) {
                    journal::events_deferred(1, "whose it is cannot be told while a tenant's record is damaged");
                    outcomes.push(Ok(Outcome::Deferred));
                    continue;
                }
                journal::event_unowned(&event);
                outcomes.push(Ok(Outcome::Unowned));
                continue;
            };
            let shares = shares(tasks.len(), &event, &owner, &directory, now);
            outcomes.push(Err(tasks.len()));
            let count = shares.len();
            tasks.push(Task { event, owner, shares: count, open: count, fresh: 0, suppressed: Vec::new() });
            parts.push(shares);
        }
        self.forget_idle_steps(&mut parts).await;
        self.commit_all(&mut tasks, parts, now).await;
        let done: Vec<Outcome> = tasks.iter().map(|task| task.tell(now)).collect();
        outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Ok(outcome) => outcome,
                Err(task) => done.get(task).copied().unwrap_or(Outcome::Deferred),
            })
            .collect()
    }

    /// Takes from the parts what changes no run: deliveries to addresses that have none. That is nearly
    /// all there are, and each then costs one read and no room in a commit. A delivery stays where a
    /// soft bounce of the same address is at hand, whichever of them is the older.
    async fn forget_idle_steps(&self, parts: &mut [Vec<Part>]) {
        let mut begun: HashMap<Key, bool> = HashMap::new();
        let all = || parts.iter().flatten().filter_map(Part::run_key);
        for (key, step) in all() {
            let bounced = matches!(step, Step::Bounced(_)) && self.rules.bounces > 0;
            *begun.entry(key).or_default() |= bounced;
        }
        for (key, begun) in &mut begun {
            // What cannot be read is found out, and told, when the part is folded.
            *begun = *begun || !matches!(self.store.get(key).await, Ok(None));
        }
        for part in parts.iter_mut().flatten() {
            if part.run_key().is_some_and(|(key, _)| begun.get(&key) == Some(&false)) {
                part.run = None;
            }
        }
    }

    /// Adds accepted recipients to their rows. What the store did not take comes back.
    pub async fn count(&self, accepted: Vec<(Row, u64)>) -> Vec<(Row, u64)> {
        let mut left = Vec::new();
        for chunk in accepted.chunks(BATCH_ITEMS) {
            if let Err((rows, reason)) = self.count_some(chunk).await {
                journal::events_deferred(0, &format!("accepted recipients of {} hours wait: {reason}", rows.len()));
                left.extend(rows);
            }
        }
        left
    }

    async fn count_some(&self, accepted: &[(Row, u64)]) -> Result<(), (Vec<(Row, u64)>, String)> {
        let mut why = String::from("the rows kept changing");
        for _ in 0..ATTEMPTS {
            let mut batch = Batch::new();
            let mut left = Vec::new();
            for (row, recipients) in accepted {
                match counters::read(&*self.store, row, &self.node).await {
                    Ok((mut counts, condition)) => {
                        counts += Counts { accepted: *recipients, ..Counts::default() };
                        counters::write(&mut batch, row, &self.node, condition, &counts);
                    }
                    Err(error) => {
                        why = error.to_string();
                        left.push((row.clone(), *recipients));
                    }
                }
            }
            match self.store.commit(batch).await {
                Ok(_) if left.is_empty() => return Ok(()),
                Ok(_) => return Err((left, why)),
                Err(CommitError::Conflict(_)) => {}
                Err(
                    error @ (CommitError::KeyTwice(_)
                    | CommitError::TooMany
                    | CommitError::TooLong(_)
                    | CommitError::Unavailable(_)),
                ) => {
                    why = error.to_string();
                    break;
                }
            }
        }
        Err((accepted.to_vec(), why))
    }

    /// Adds accepted recipients to the rows of their domains. What the store did not take comes back; what
    /// meets a damaged row is told and given up, since it is a statistic.
    pub async fn count_domains(&self, accepted: Vec<(domains::Row, u64)>) -> Vec<(domains::Row, u64)> {
        let mut left = Vec::new();
        for chunk in accepted.chunks(BATCH_ITEMS) {
            if let Err(reason) = self.count_some_domains(chunk).await {
                journal::events_deferred(0, &format!("accepted recipients of {} domains wait: {reason}", chunk.len()));
                left.extend_from_slice(chunk);
            }
        }
        left
    }

    async fn count_some_domains(&self, accepted: &[(domains::Row, u64)]) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            let mut sums: BTreeMap<domains::Row, (If, Counts)> = BTreeMap::new();
            for (row, recipients) in accepted {
                let found = self.domain_row(&sums, row).await.map_err(|error| error.to_string())?;
                let Some((row, there)) = found else { continue };
                let (_, counts) = sums.entry(row).or_insert(there);
                *counts += Counts { accepted: *recipients, ..Counts::default() };
            }
            let mut batch = Batch::new();
            for (row, (condition, counts)) in &sums {
                domains::write(&mut batch, row, &self.node, *condition, counts);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(
                    error @ (CommitError::KeyTwice(_)
                    | CommitError::TooMany
                    | CommitError::TooLong(_)
                    | CommitError::Unavailable(_)),
                ) => return Err(error.to_string()),
            }
        }
        Err("the rows kept changing".into())
    }

    /// The row in which a domain is counted, and how it stands if it is not among `there`. `None`: it is
    /// damaged, which is told and holds up nobody.
    async fn domain_row(
        &self,
        there: &BTreeMap<domains::Row, (If, Counts)>,
        wanted: &domains::Row,
    ) -> Result<Option<(domains::Row, (If, Counts))>, ReadError> {
        let read = async {
            let row = self.domains.row(&*self.store, &wanted.tenant, wanted.day, &wanted.domain).await?;
            if let Some(known) = there.get(&row) {
                let known = *known;
                return Ok((row, known));
            }
            let (counts, condition) = domains::read(&*self.store, &row, &self.node).await?;
            Ok((row, (condition, counts)))
        };
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(ReadError::Corrupt(key, what)) => {
                journal::record_damaged(
                    &key.to_string(),
                    &what,
                    "restore a backup; its tenant's mail goes on uncounted by this domain",
                );
                Ok(None)
            }
            Err(error @ ReadError::Unavailable(_)) => Err(error),
        }
    }

    /// Commits all parts, group by group, and marks their tasks.
    async fn commit_all(&self, tasks: &mut [Task], parts: Vec<Vec<Part>>, now: Timestamp) {
        let (groups, twins) = group(parts);
        let mut known = HashSet::new();
        let mut stopped: Option<Stopped> = None;
        for group in groups {
            if stopped.as_ref().is_some_and(|stop| stop.unavailable) {
                break;
            }
            if let Err(stop) = self.commit_group(tasks, group, &mut known, now).await {
                stopped = Some(stop);
            }
        }
        for (task, share) in twins {
            if let Some(task) = tasks.get_mut(task).filter(|_| known.contains(&share)) {
                task.open = task.open.saturating_sub(1);
            }
        }
        if let Some(stop) = stopped {
            let waiting = tasks.iter().filter(|task| task.open > 0).count();
            journal::events_deferred(waiting, &stop.reason);
        }
    }

    /// Commits one group; what of it had been applied before is left out. `known` gets every share
    /// that is in the ledger afterwards.
    async fn commit_group(
        &self,
        tasks: &mut [Task],
        mut group: Group,
        known: &mut HashSet<Share>,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let mut fault = None;
        for _ in 0..ATTEMPTS {
            let (fold, folded) = self.fold(group, &mut fault, now).await;
            group = folded;
            if group.is_empty() {
                break;
            }
            match self.store.commit(fold.batch(&group, &self.node, now)).await {
                Ok(_) => {
                    self.tell(&group);
                    for part in group {
                        if let Some(task) = tasks.get_mut(part.task) {
                            task.open = task.open.saturating_sub(1);
                            task.fresh += 1;
                            task.suppressed.extend(fold.newly_suppressed(&part));
                        }
                        known.insert(part.share);
                    }
                    return fault.map_or(Ok(()), Err);
                }
                Err(CommitError::Conflict(_)) => {
                    group = self.without_repeats(tasks, group, known).await?;
                }
                Err(
                    error @ (CommitError::KeyTwice(_)
                    | CommitError::TooMany
                    | CommitError::TooLong(_)
                    | CommitError::Unavailable(_)),
                ) => return Err(Stopped::by_commit(&error)),
            }
        }
        if group.is_empty() {
            return fault.map_or(Ok(()), Err);
        }
        Err(Stopped { reason: "the records kept changing".into(), unavailable: false })
    }

    /// Tells whoever hears of it what has just become durable.
    fn tell(&self, group: &[Part]) {
        let Some(witness) = self.hearing.get() else { return };
        let fact = |part: &Part| {
            let Row { tenant, stream, cohort } = &part.row;
            let (tenant, stream) = (tenant.clone(), stream.clone());
            Some(Fact { tenant, stream, cohort: *cohort, sent: part.sent, count: part.count? })
        };
        let facts: Vec<Fact> = group.iter().filter_map(fact).collect();
        witness.applied(&facts);
    }

    /// Takes over what SES says of one of its tenants, unless it has said something newer. Their contacts
    /// are told by rows of the same commit.
    async fn mirror(&self, told: &SendingStatus, directory: &Directory, now: Timestamp) -> Outcome {
        let name = told.ses_tenant.as_ref().map_or("", |name| name.as_str());
        journal::sending_status_noted(name, &told.status, &told.cause);
        let Some(ses_tenant) = &told.ses_tenant else { return Outcome::Noted };
        let status = Status { at: told.at, disabled: told.status == "DISABLED", cause: told.cause.clone() };
        for _ in 0..ATTEMPTS {
            let (before, condition) = match ses_statuses::read(&*self.store, ses_tenant).await {
                Ok(read) => read,
                Err(error) => return self.deferred(&error.to_string()),
            };
            if before.as_ref().is_some_and(|before| before.at >= status.at) {
                return Outcome::Noted;
            }
            let was_disabled = before.is_some_and(|before| before.disabled);
            let mut batch = Batch::new();
            ses_statuses::write(&mut batch, ses_tenant, condition, &status);
            let mut announcements = Vec::new();
            if was_disabled != status.disabled {
                let owners = directory.tenants().filter(|tenant| tenant.ses_tenant.as_ref() == Some(ses_tenant));
                announcements.extend(owners.take(MIRRORED).map(|tenant| status_told(told, &tenant.id, now)));
                announcements.iter().for_each(|announcement| announce::write(&mut batch, announcement));
            }
            match self.store.commit(batch).await {
                Ok(_) => {
                    if let Some(witness) = self.hearing.get() {
                        witness.status_changed(&announcements);
                    }
                    return Outcome::Noted;
                }
                Err(CommitError::Conflict(_)) => {}
                Err(
                    error @ (CommitError::KeyTwice(_)
                    | CommitError::TooMany
                    | CommitError::TooLong(_)
                    | CommitError::Unavailable(_)),
                ) => return self.deferred(&error.to_string()),
            }
        }
        self.deferred("the status kept changing")
    }

    fn deferred(&self, why: &str) -> Outcome {
        journal::events_deferred(1, why);
        Outcome::Deferred
    }

    /// Somebody wrote first: was it us, in an earlier run?
    async fn without_repeats(
        &self,
        tasks: &mut [Task],
        group: Group,
        known: &mut HashSet<Share>,
    ) -> Result<Group, Stopped> {
        let mut fresh = Vec::with_capacity(group.len());
        for part in group {
            if !ledger::contains(&*self.store, &part.share).await.map_err(|error| Stopped::by_read(&error))? {
                fresh.push(part);
                continue;
            }
            if let Some(task) = tasks.get_mut(part.task) {
                task.open = task.open.saturating_sub(1);
            }
            known.insert(part.share);
        }
        Ok(fresh)
    }

    /// Reads what the group's effects meet and works out what to write. Parts whose records cannot
    /// be read are dropped (they stay open), so that one damaged record holds up nobody else.
    async fn fold(&self, group: Group, fault: &mut Option<Stopped>, now: Timestamp) -> (Fold, Group) {
        let mut fold = Fold::default();
        let mut folded = Vec::with_capacity(group.len());
        for mut part in group {
            match self.meet(&mut fold, &mut part, now).await {
                Ok(()) => {
                    fold.add(&part, &self.rules, now);
                    folded.push(part);
                }
                Err(error) => *fault = Some(Stopped::by_read(&error)),
            }
        }
        (fold, folded)
    }

    /// Reads the records that `part` changes, unless the fold has them.
    async fn meet(&self, fold: &mut Fold, part: &mut Part, now: Timestamp) -> Result<(), ReadError> {
        let row = match &part.run {
            Some((mailbox, _)) => {
                let key = Key::run(&part.row.tenant, mailbox);
                if fold.runs.contains_key(&key) {
                    None
                } else {
                    let runs::Found { run, condition } = runs::read(&*self.store, &part.row.tenant, mailbox).await?;
                    Some((key, RunRow { condition, run, changed: false }))
                }
            }
            None => None,
        };
        let entry = match part.entry_key() {
            Some(key) if !fold.entries.contains_key(&key) => {
                let (condition, there) = match self.store.get(&key).await? {
                    None => (If::Absent, None),
                    Some(found) => (If::At(found.version), Some(suppressions::opened(&key, &found.value)?)),
                };
                let stood = there.as_ref().is_some_and(|entry| entry.stands(now));
                Some((key, Entry { condition, there, stood, changed: false }))
            }
            Some(_) | None => None,
        };
        if part.count.is_some() && !fold.rows.contains_key(&part.row) {
            let (counts, condition) = counters::read(&*self.store, &part.row, &self.node).await?;
            fold.rows.insert(part.row.clone(), (condition, counts));
        }
        if let Some(wanted) = part.domain.take()
            && let Some((row, there)) = self.domain_row(&fold.domains, &wanted).await?
        {
            fold.domains.entry(row.clone()).or_insert(there);
            part.domain = Some(row);
        }
        fold.entries.extend(entry);
        fold.runs.extend(row);
        Ok(())
    }
}

impl Part {
    /// The entry it may change. What suppresses by itself is no step of a run.
    fn entry_key(&self) -> Option<Key> {
        match (&self.suppress, &self.run) {
            (Some((mailbox, entry)), _) => Some(Key::suppression(&self.row.tenant, mailbox, entry.reason)),
            (None, Some((mailbox, _))) => Some(Key::suppression(&self.row.tenant, mailbox, SuppressionReason::Soft)),
            (None, None) => None,
        }
    }

    fn run_key(&self) -> Option<(Key, Step)> {
        self.run.as_ref().map(|(mailbox, step)| (Key::run(&self.row.tenant, mailbox), *step))
    }
}

impl Fold {
    fn add(&mut self, part: &Part, rules: &Rules, now: Timestamp) {
        if let Some(count) = part.count
            && let Some((_, counts)) = self.rows.get_mut(&part.row)
        {
            *counts += one(count);
        }
        if let Some(count) = part.count
            && let Some((_, counts)) = part.domain.as_ref().and_then(|row| self.domains.get_mut(row))
        {
            *counts += one(count);
        }
        if let Some((_, new)) = &part.suppress
            && let Some(entry) = part.entry_key().and_then(|key| self.entries.get_mut(&key))
            && !entry.there.as_ref().is_some_and(|there| effect::outlasts(there, new))
        {
            entry.there = Some(new.clone());
            entry.changed = true;
        }
        if let Some((key, step)) = part.run_key()
            && let Some(row) = self.runs.get_mut(&key)
        {
            let before = std::mem::take(&mut row.run);
            row.run = before.after(step);
            row.changed |= row.run != before;
            if let Some(entry) = part.entry_key().and_then(|key| self.entries.get_mut(&key)) {
                entry.follow(&before, &row.run, rules, now);
            }
        }
    }

    fn batch(&self, group: &[Part], node: &str, now: Timestamp) -> Batch {
        let mut batch = Batch::new();
        for part in group {
            ledger::write(&mut batch, &part.share, now.hour());
        }
        for (row, (condition, counts)) in &self.rows {
            counters::write(&mut batch, row, node, *condition, counts);
        }
        for (row, (condition, counts)) in &self.domains {
            domains::write(&mut batch, row, node, *condition, counts);
        }
        for (key, entry) in &self.entries {
            match &entry.there {
                _ if !entry.changed => {}
                Some(value) => {
                    batch.put(key.clone(), entry.condition, record::seal(value));
                }
                // Made and lifted in one commit: there is nothing to remove.
                None if entry.condition == If::Absent => {}
                None => {
                    batch.remove(key.clone(), entry.condition);
                }
            }
        }
        for (key, row) in &self.runs {
            // Deliveries alone begin no run.
            if row.changed && (row.condition != If::Absent || row.run.length() > 0) {
                runs::write(&mut batch, key.clone(), row.condition, &row.run);
            }
        }
        batch
    }

    fn newly_suppressed(&self, part: &Part) -> Option<Mailbox> {
        let entry = self.entries.get(&part.entry_key()?)?;
        let mailbox = match (&part.suppress, &part.run) {
            (Some((mailbox, _)), _) | (None, Some((mailbox, Step::Bounced(_)))) => mailbox,
            (None, Some((_, Step::Delivered(_))) | None) => return None,
        };
        (entry.changed && entry.there.is_some() && !entry.stood).then(|| mailbox.clone())
    }
}

impl Entry {
    /// Makes the entry for soft bounces what the run is a reason for: set, moved on, or lifted. One
    /// that no run made gives way only to what outlasts it, and is never lifted.
    fn follow(&mut self, before: &Run, after: &Run, rules: &Rules, now: Timestamp) {
        let ours = self.there.as_ref().is_some_and(run::made);
        match after.entry(rules).filter(|entry| entry.stands(now)) {
            Some(new) => {
                let stays =
                    self.there.as_ref().is_some_and(|there| *there == new || (!ours && effect::outlasts(there, &new)));
                if !stays {
                    self.there = Some(new);
                    self.changed = true;
                }
            }
            None if ours && before.entry(rules).is_some() && after.entry(rules).is_none() => {
                self.there = None;
                self.changed = true;
            }
            None => {}
        }
    }
}

impl Task {
    /// Writes the log line of a finished task and says what became of it.
    fn tell(&self, now: Timestamp) -> Outcome {
        if self.open > 0 {
            return Outcome::Deferred;
        }
        if self.fresh == 0 && self.shares > 0 {
            journal::event_repeated(&self.event.fate);
            return Outcome::Repeated;
        }
        journal::event_applied(&self.event, &self.owner, &self.suppressed, now.since(self.event.at));
        Outcome::Applied
    }
}

impl Stopped {
    fn by_read(error: &ReadError) -> Self {
        let unavailable = match error {
            ReadError::Unavailable(_) => true,
            ReadError::Corrupt(..) => false,
        };
        Self { reason: error.to_string(), unavailable }
    }

    fn by_commit(error: &CommitError) -> Self {
        let unavailable = match error {
            CommitError::Unavailable(_) => true,
            CommitError::Conflict(_) | CommitError::KeyTwice(_) | CommitError::TooMany | CommitError::TooLong(_) => {
                false
            }
        };
        Self { reason: error.to_string(), unavailable }
    }
}

/// Logs a notice that changes nothing.
fn note(id: &str, notice: Notice) {
    match notice {
        Notice::Recommendation(Recommendation { ses_tenant, open, impact, finding, words, .. }) => {
            let status = format!("finding {} ({impact} {finding})", if open { "open" } else { "resolved" });
            journal::sending_status_noted(ses_tenant.as_ref().map_or("", |name| name.as_str()), &status, &words);
        }
        Notice::SubscriptionConfirmation { topic_arn } => journal::subscription_unconfirmed(&topic_arn),
        Notice::TopicValidated => journal::topic_validated(),
        Notice::Unknown { kind } => journal::notice_unknown(id, &kind),
        // The applier's own.
        Notice::Event(_) | Notice::SendingStatus(_) => {}
    }
}

/// What a tenant's contact and the operator hear of its SES tenant. EventBridge's id and the tenant
/// make its id, so that a notice that comes again tells the same.
fn status_told(status: &SendingStatus, tenant: &TenantId, now: Timestamp) -> Announcement {
    let disabled = status.status == "DISABLED";
    let (what, severity) =
        if disabled { ("has disabled sending", Severity::Alarm) } else { ("lets sending go on", Severity::Notice) };
    let headline = format!("Amazon SES {what} for tenant {tenant}: {}", status.cause);
    let seed = Named(Sha256::digest(format!("{}\0{tenant}", status.id)).into());
    let mut told = Announcement::new(now, &seed, Kind::SesTenantChanged, severity, &headline);
    told.tenant = Some(tenant.clone());
    told.figures = vec![("status".into(), status.status.clone()), ("origin".into(), status.origin.clone())];
    if disabled {
        told.still_works = vec!["nothing is lost: mail that was accepted waits".into()];
        told.to_do = vec!["look at the SES tenant's findings in the Amazon SES console, and reinstate it there".into()];
    }
    told
}

/// Octets that a name is turned into, where an id wants chance.
struct Named([u8; 32]);

impl Random for Named {
    fn fill(&self, into: &mut [u8]) {
        for (octet, named) in into.iter_mut().zip(self.0.iter().cycle()) {
            *octet = *named;
        }
    }
}

/// An event's shares, one a recipient; none if it changes nothing.
fn shares(task: usize, event: &Event, owner: &Owner, directory: &Directory, now: Timestamp) -> Vec<Part> {
    let Some(stream) = owner.stream.clone() else { return Vec::new() };
    let sent = event.mail.timestamp;
    let known = directory.tenant(&owner.tenant).and_then(|tenant| tenant.streams.get(&stream));
    let cohort = known.map_or(Cohort::of(sent.hour()), |stream| stream.standing.cohort(sent));
    let row = Row { tenant: owner.tenant.clone(), stream, cohort };
    let day = domains::day_of(sent);
    let part = |Effect { recipient, count, suppress, run }| Part {
        task,
        share: Share::of(event, &recipient),
        row: row.clone(),
        sent,
        count,
        suppress,
        run,
        domain: count.filter(|count| domains::counts(*count)).map(|_| domains::Row {
            tenant: row.tenant.clone(),
            day,
            domain: domains::domain_of(&recipient),
        }),
    };
    effect::effects(event, &Before { now }).into_iter().map(part).collect()
}

/// Packs parts into groups of at most [`BATCH_ITEMS`] writes, an event's together where they fit.
/// A share that comes a second time is a twin: it is safe when the first is.
fn group(events: Vec<Vec<Part>>) -> (Vec<Group>, Vec<(usize, Share)>) {
    let mut seen = HashSet::new();
    let mut twins = Vec::new();
    let mut groups = Vec::new();
    let mut packing = Packing::default();
    for parts in events {
        let (fresh, again): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| seen.insert(part.share.clone()));
        twins.extend(again.into_iter().map(|part| (part.task, part.share)));
        // At most: rows and entries that the group has already are counted again.
        let most: usize = fresh.iter().map(Part::most_writes).sum();
        if packing.writes() + most > BATCH_ITEMS {
            groups.push(packing.close());
        }
        for part in fresh {
            if packing.writes() + part.most_writes() > BATCH_ITEMS {
                groups.push(packing.close());
            }
            packing.add(part);
        }
    }
    groups.push(packing.close());
    groups.retain(|group| !group.is_empty());
    (groups, twins)
}

impl Part {
    fn most_writes(&self) -> usize {
        // A step of a run may write the run and its entry.
        let run = 2 * usize::from(self.run.is_some());
        let counted = usize::from(self.count.is_some()) + usize::from(self.domain.is_some());
        ledger::WRITES + counted + usize::from(self.suppress.is_some()) + run
    }
}

/// A group in the making, with the distinct records it touches.
#[derive(Default)]
struct Packing {
    parts: Group,
    rows: HashSet<Row>,
    entries: HashSet<Key>,
    runs: HashSet<Key>,
    domains: HashSet<domains::Row>,
}

impl Packing {
    fn writes(&self) -> usize {
        let counted = self.rows.len() + self.domains.len();
        self.parts.len() * ledger::WRITES + counted + self.entries.len() + self.runs.len()
    }

    fn add(&mut self, part: Part) {
        if part.count.is_some() {
            self.rows.insert(part.row.clone());
        }
        self.entries.extend(part.entry_key());
        self.runs.extend(part.run_key().map(|(key, _)| key));
        self.domains.extend(part.domain.clone());
        self.parts.push(part);
    }

    fn close(&mut self) -> Group {
        self.rows.clear();
        self.entries.clear();
        self.runs.clear();
        self.domains.clear();
        std::mem::take(&mut self.parts)
    }
}
