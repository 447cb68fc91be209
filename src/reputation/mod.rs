//! Reputation: what became of every stream's mail, judged as it becomes known, and put in force.
//!
//! ```text
//! SES took it ──▶ tally ──┐                    ┌─▶ store: standing, audit, announcement in one commit
//!                         ├─▶ book ─▶ judge ───┼─▶ directory: gate and dispatcher read it
//! SES's events ─▶ applier ┘  (pure)            └─▶ journal; contact, operator, webhook
//! ```
//!
//! The [`Book`] adds up; [`policy::reputation`](crate::policy::reputation) judges. This is the loop
//! around them: a look after every commit of events, and one a minute, since hours pass.
//!
//! Promises: a standing is in the store before anybody meets or hears of it; each transition is told
//! once. A restart judges by the same figures and finds the same standings. What is lost of the figures
//! (a second's accepted recipients, a damaged row) makes nobody good before the moment that was said.
//! Refuses: to judge on the message path; there a snapshot is read.
//! What can go wrong: the store; then standings stay as they are, and the next look tries again.

mod book;
pub mod replay;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use book::{Book, Change};

use crate::announce::{self, Announce, Announcement};
use crate::ingest::{Fact, Witness, one};
use crate::journal;
use crate::mail::{StreamId, TenantId};
use crate::policy::cohort::{WEEK, Windows};
use crate::policy::reputation::{self, Offence, Rules, Step};
use crate::policy::tenant::{Standing, Tenant};
use crate::secret::Random;
use crate::store::counters::{self, Counts};
use crate::store::directory::{Changing, Current, Directory};
use crate::store::tally::Tally;
use crate::store::{Batch, CommitError, If, Key, ReadError, Store, audit, record, tenants};
use crate::time::{Clock, Hour};

/// How often all is judged, whether anything is new or not.
const EVERY: Duration = Duration::from_secs(60);
/// How soon after an event the look comes: events of one moment are judged together.
const GATHER: Duration = Duration::from_millis(50);
/// How soon accepted recipients are looked at without an event: they only make rates lower.
const TALLY: Duration = Duration::from_secs(1);
/// Where it is kept whether the account is over its line.
const ACCOUNT: &str = "account_near_line";
/// Standings of one commit, each with its audit row and its announcement.
const TOGETHER: usize = 30;

/// What the service works with.
pub struct Means {
    /// Where standings are kept.
    pub store: Arc<dyn Store>,
    /// The snapshot they are read from.
    pub directory: Current,
    /// Who may change it at the moment.
    pub changing: Changing,
    /// Accepted recipients.
    pub tally: Arc<Tally>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids of announcements.
    pub random: Arc<dyn Random>,
    /// Who tells people.
    pub announce: Arc<dyn Announce>,
}

/// Why a look came to no end; what was not put in force is looked at again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookError {
    /// A record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A standing could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The service.
pub struct Reputation {
    means: Means,
    rules: ArcSwap<Rules>,
    book: Mutex<Book>,
    /// Whether the account was over its line at the last look.
    account_is_over: Mutex<bool>,
    /// SES has said something of one of its tenants.
    statuses_are_new: AtomicBool,
    news: Notify,
    /// Who bounds mail whose outcome is not known.
    outcomes: OnceLock<Outcomes>,
    /// Who goes by standings.
    standings: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Hears of each outcome as it becomes known.
pub type Outcomes = Box<dyn Fn(&Fact) + Send + Sync>;

impl Reputation {
    /// Reads the counters of the last week. Nothing is judged before [`run`](Self::run).
    pub async fn open(means: Means, rules: Rules) -> Result<Arc<Self>, ReadError> {
        let directory = means.directory.load_full();
        let now = means.clock.now().hour();
        let mut book = Book::default();
        book.roll(now);
        let from = Hour(now.0.saturating_sub(WEEK));
        for tenant in directory.tenants() {
            for stream in tenant.streams.values() {
                match counters::cohorts(&*means.store, &tenant.id, &stream.id, from, Hour(u32::MAX)).await {
                    Ok(cohorts) => {
                        for (cohort, counts) in cohorts {
                            book.add(&tenant.id, &stream.id, &stream.standing, cohort, &counts);
                        }
                    }
                    Err(ReadError::Corrupt(key, what)) => {
                        let cure = "restore a backup; the stream's standing gets no better until it is resumed";
                        journal::record_damaged(&key.to_string(), &what, cure);
                        book.damaged(&tenant.id, &stream.id);
                    }
                    Err(error @ ReadError::Unavailable(_)) => return Err(error),
                }
            }
        }
        book.roll(now);
        let key = Key::meta(ACCOUNT);
        // A damaged flag tells once more what was told.
        let was_over = means.store.get(&key).await?.and_then(|row| record::open(&key, &row.value).ok());
        Ok(Arc::new(Self {
            means,
            rules: ArcSwap::from_pointee(rules),
            book: Mutex::new(book),
            account_is_over: Mutex::new(was_over.unwrap_or(false)),
            statuses_are_new: AtomicBool::new(false),
            news: Notify::new(),
            outcomes: OnceLock::new(),
            standings: OnceLock::new(),
        }))
    }

    /// Judges until `drain` is cancelled.
    pub async fn run(self: Arc<Self>, drain: CancellationToken) {
        let (mut all, mut every) = (true, tokio::time::Instant::now() + EVERY);
        let mut told = false;
        loop {
            match self.look(all).await {
                Ok(()) => told = false,
                Err(error) if !told => {
                    told = true;
                    journal::standings_deferred(&error.to_string());
                }
                Err(_) => {}
            }
            tokio::select! {
                () = drain.cancelled() => return,
                () = self.news.notified() => {
                    // An event seldom comes alone.
                    tokio::time::sleep(GATHER).await;
                }
                () = tokio::time::sleep(TALLY) => {}
            }
            all = tokio::time::Instant::now() >= every;
            if all {
                every = tokio::time::Instant::now() + EVERY;
            }
        }
    }

    /// From now on `outcomes` hears of each fact, after the book has.
    pub fn tell_of_outcomes(&self, outcomes: Outcomes) {
        let _ = self.outcomes.set(outcomes);
    }

    /// From now on `standings` is told whenever the directory has other standings.
    pub fn tell_of_standings(&self, standings: Box<dyn Fn() + Send + Sync>) {
        let _ = self.standings.set(standings);
    }

    /// From now on these rules hold.
    pub fn change_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.news.notify_one();
    }

    /// The rules.
    pub fn rules(&self) -> Rules {
        **self.rules.load()
    }

    /// A tenant's window, or a stream's, begins anew.
    pub fn resumed(&self, tenant: &Tenant, stream: Option<&StreamId>) {
        let mut book = self.book();
        for id in tenant.streams.keys().filter(|id| stream.is_none_or(|stream| *id == stream)) {
            book.resumed(&tenant.id, id);
        }
    }

    /// The sums of a stream, and the account's.
    pub fn windows(&self, tenant: &TenantId, stream: &StreamId) -> Windows {
        self.take_tally();
        self.book().windows(tenant, stream)
    }

    /// The sums of the account.
    pub fn account_windows(&self) -> Windows {
        self.take_tally();
        self.book().account_windows()
    }

    /// Judges those of whom something is new, or `all`; puts in force what follows.
    pub async fn look(&self, all: bool) -> Result<(), LookError> {
        self.take_tally();
        self.take_statuses().await?;
        let now = self.means.clock.now();
        let directory = self.means.directory.load_full();
        let rules = self.rules();
        let (tenants, worst) = {
            let mut book = self.book();
            book.roll(now.hour());
            let mut tenants = book.take_fresh();
            if tenants.is_empty() && !all {
                return Ok(());
            }
            if all {
                book.keep(&directory);
                tenants = directory.tenants().map(|tenant| tenant.id.clone()).collect();
            }
            let is_over = book.judge_account(&directory, &rules);
            let worst = if is_over { book.worst(&directory) } else { Vec::new() };
            tenants.extend(worst.iter().map(|(tenant, ..)| tenant.clone()));
            (tenants, worst)
        };
        let result = self.judge(&tenants, &worst).await;
        if result.is_err() {
            // They are looked at again.
            let mut book = self.book();
            book.remember(tenants);
        }
        self.tell_of_account(&directory, &worst).await?;
        let windows = self.book().account_windows();
        self.tell_of_rates(&windows);
        Ok(result?)
    }

    async fn judge(
        &self,
        tenants: &BTreeSet<TenantId>,
        worst: &[(TenantId, StreamId, f64)],
    ) -> Result<(), CommitError> {
        let mut paused: BTreeMap<&TenantId, BTreeSet<StreamId>> = BTreeMap::new();
        for (tenant, stream, _) in worst {
            paused.entry(tenant).or_default().insert(stream.clone());
        }
        let none = BTreeSet::new();
        let rules = self.rules();
        let judge = |directory: &Directory| {
            let (book, now) = (self.book(), self.means.clock.now());
            let of = |id: &TenantId| {
                let tenant = directory.tenant(id)?;
                Some(book.judge(tenant, &rules, paused.get(id).unwrap_or(&none), now))
            };
            tenants.iter().filter_map(of).flatten().collect::<Vec<Change>>()
        };
        if judge(&self.means.directory.load()).is_empty() {
            return Ok(());
        }
        // Nobody else changes the directory meanwhile: what is judged is what is replaced.
        let _one_at_a_time = self.means.changing.lock().await;
        let directory = self.means.directory.load_full();
        let changes = judge(&directory);
        for some in changes.chunks(TOGETHER) {
            self.put_in_force(some).await?;
        }
        Ok(())
    }

    /// Commits standings with what tells of them, then puts them in force, then tells.
    async fn put_in_force(&self, changes: &[Change]) -> Result<(), CommitError> {
        let now = self.means.clock.now();
        let directory = self.means.directory.load_full();
        let mut batch = Batch::new();
        let mut announcements: Vec<Announcement> = Vec::new();
        for change in changes {
            let key = Key::standing(&change.tenant, change.stream.as_ref());
            batch.put(key, If::Any, record::seal(&change.after));
            if !change.is_transition() {
                continue;
            }
            audit::write(&mut batch, &tell::entry(change, now, &*self.means.random));
            let Some(tenant) = directory.tenant(&change.tenant) else { continue };
            if !change.is_shadow() {
                let announcement = tell::announcement(change, tenant, now, &*self.means.random);
                announce::write(&mut batch, &announcement);
                announcements.push(announcement);
            }
        }
        self.means.store.commit(batch).await?;
        let standings: Vec<(TenantId, Option<StreamId>, Standing)> =
            changes.iter().map(|change| (change.tenant.clone(), change.stream.clone(), change.after.clone())).collect();
        self.means.directory.rcu(|current| current.with_standings(&standings));
        if let Some(standings) = self.standings.get() {
            standings();
        }
        for change in changes.iter().filter(|change| change.is_transition()) {
            tell::line(change);
        }
        for announcement in &announcements {
            self.means.announce.announce(announcement);
        }
        Ok(())
    }

    /// Tells once when the account comes over its line, and when it is under it again.
    async fn tell_of_account(
        &self,
        directory: &Directory,
        worst: &[(TenantId, StreamId, f64)],
    ) -> Result<(), CommitError> {
        let charge = self.book().account().and_then(|account| account.charge);
        let is_over = charge.is_some();
        if *self.account_is_over.lock().unwrap_or_else(PoisonError::into_inner) == is_over {
            return Ok(());
        }
        let now = self.means.clock.now();
        let announcement = tell::account(charge.as_ref(), worst, directory, now, &*self.means.random);
        let mut batch = Batch::new();
        announce::write(&mut batch, &announcement);
        batch.put(Key::meta(ACCOUNT), If::Any, record::seal(&is_over));
        self.means.store.commit(batch).await?;
        *self.account_is_over.lock().unwrap_or_else(PoisonError::into_inner) = is_over;
        self.means.announce.announce(&announcement);
        match &charge {
            Some(charge) => journal::account_near_line(&charge.to_string(), &tell::shares(worst)),
            None => journal::account_clear(),
        }
        Ok(())
    }

    /// Puts in force what SES has said of its tenants.
    async fn take_statuses(&self) -> Result<(), LookError> {
        if !self.statuses_are_new.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let _one_at_a_time = self.means.changing.lock().await;
        match tenants::load_ses_statuses(&*self.means.store).await {
            Ok(disabled) => {
                self.means.directory.rcu(|current| current.with_ses_statuses(&disabled));
                Ok(())
            }
            Err(error) => {
                self.statuses_are_new.store(true, Ordering::Release);
                Err(error.into())
            }
        }
    }

    /// Takes in what SES has accepted since this was done last.
    fn take_tally(&self) {
        let fresh = self.means.tally.take_fresh();
        if fresh.is_empty() {
            return;
        }
        let directory = self.means.directory.load();
        let mut book = self.book();
        for (row, accepted) in fresh {
            let stream = directory.tenant(&row.tenant).and_then(|tenant| tenant.streams.get(&row.stream));
            if let Some(stream) = stream {
                let counts = Counts { accepted, ..Counts::default() };
                book.add(&row.tenant, &row.stream, &stream.standing, row.cohort, &counts);
            }
        }
    }

    fn tell_of_rates(&self, windows: &Windows) {
        let directory = self.means.directory.load();
        let mut steps = BTreeMap::from(Step::ALL.map(|step| (step, 0_usize)));
        for tenant in directory.tenants() {
            let streams = tenant.streams.values().map(|stream| &stream.standing);
            for standing in streams.chain([&tenant.standing]) {
                let step = standing.brake.as_ref().map_or(Step::Good, |brake| brake.step);
                *steps.entry(step).or_default() += 1;
            }
        }
        steps.into_iter().for_each(|(step, count)| journal::standings(step.word(), count));
        for (span, figures) in [("24h", windows.day), ("7d", windows.week)] {
            let rate = |offence: Offence| reputation::rate(offence.of(&figures), figures.accepted);
            journal::account_rates(span, rate(Offence::Bounce), rate(Offence::Complaint));
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Reputation {
    fn applied(&self, facts: &[Fact]) {
        let directory = self.means.directory.load();
        let mut bad = false;
        {
            let mut book = self.book();
            for fact in facts {
                let Some(stream) = directory.tenant(&fact.tenant).and_then(|tenant| tenant.streams.get(&fact.stream))
                else {
                    continue;
                };
                let counts = one(fact.count);
                bad |= counts.bounced + counts.complained > 0;
                book.add(&fact.tenant, &fact.stream, &stream.standing, fact.cohort, &counts);
            }
        }
        if let Some(outcomes) = self.outcomes.get() {
            facts.iter().for_each(outcomes);
        }
        if bad {
            self.news.notify_one();
        }
    }

    fn status_changed(&self, announcements: &[Announcement]) {
        self.statuses_are_new.store(true, Ordering::Release);
        self.news.notify_one();
        announcements.iter().for_each(|announcement| self.means.announce.announce(announcement));
    }
}

impl std::fmt::Debug for Reputation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reputation").finish_non_exhaustive()
    }
}
