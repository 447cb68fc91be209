//! The dispatcher: every message on its way to SES, at once or after it was held.
//!
//! [`Dispatch::hand_over`] takes what has just come in: through to SES where that may be, into the
//! [outbox](crate::outbox) where not. [`Dispatch::run`] sends what is held. Both make their calls by
//! the same code, and both tell the same [`board`] how they ended.
//!
//! - [`breaker`]: what is not called while it does not answer
//! - [`choose`]: whose turn it is
//! - [`pace`]: how many recipients a second
//! - [`gate`]: what else bounds a lane, its tenant and the account
//! - [`waits`]: how long is waited, by cause
//!
//! these are pure machines; a *lane* is what is kept in order and is held or let go as one: a stream
//! of a tenant.
//!
//! Promises: nothing is ever sent twice on purpose; calls and octets under way are bounded, in all
//! and by lane; a lane that does not get through delays no other by more than its share; a pause is
//! looked at again when a message's turn comes. While SES is down there is one probe and no storm.
//! What can go wrong: the store stops; then nothing more is leased, and what is under way ends as
//! unknown, for the row says that it was being sent.
//!
//! The drain ([`Dispatch::hurry`], then the end of [`Dispatch::run`]): nothing more is leased; who
//! still waits for SES is held; calls under way have until the end, and are unknown after it.

mod account;
pub mod alarm;
pub mod board;
pub mod breaker;
pub(crate) mod budget;
mod calls;
pub mod choose;
mod copies;
mod exposed;
pub mod gate;
mod handover;
mod held;
pub mod join;
pub mod pace;
pub mod parcel;
mod past;
pub mod repeats;
mod report;
mod reserved;
pub mod waits;

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::journal;
use crate::mail::{ConfigurationSet, Mailbox, Receipt};
use crate::outbox::recover::Remembered;
use crate::outbox::{Cause, Claim, Lane, Outbox};
use crate::policy::decide::{self, Stop};
use crate::policy::tenant::StreamKind;
use crate::policy::{exposure, reputation};
use crate::secret::Random;
use crate::store::Store;
use crate::store::directory::{Current, Directory};
use crate::store::tally::Tally;
use crate::time::Clock;
use crate::upstream::Mailer;

pub use account::{AccountNews, QuotaNews};
pub use alarm::words;
pub use board::{Hold, Standing};
pub use handover::{HandedOver, How};
pub use parcel::{Answered, Calls, Parcel, Passage, SINGLE_BYTES};

use board::{Board, Pick};
use breaker::Change;
use copies::Copies;
use gate::Moment;
use repeats::Repeats;
use reserved::Reserved;
use waits::Waits;

/// How long the dispatcher sleeps at most: how late it may learn of a pause or a resume.
const NAP: Duration = Duration::from_millis(500);
/// How often a disk is tried that failed, and how often the backlog is told to the metrics.
const UPKEEP: Duration = Duration::from_secs(2);
/// How often the outbox notes that its rows are the newest, so that a copy of the store made before is
/// known for an older one.
const RENEWAL: Duration = Duration::from_secs(3600);
/// Most messages given up in one go.
const EXPIRIES: usize = 100;
/// Octets a place stands for.
const UNIT: u64 = 1024;

/// What the dispatcher works with.
pub struct Means {
    /// What is held.
    pub outbox: Arc<Outbox>,
    /// SES.
    pub mailer: Arc<dyn Mailer>,
    /// Suppressions are read here.
    pub store: Arc<dyn Store>,
    /// Tenants of the moment.
    pub directory: Current,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Arc<dyn Random>,
    /// Where accepted recipients are counted.
    pub tally: Arc<Tally>,
}

/// How it is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our name in reports.
    pub hostname: String,
    /// SendEmail calls of held messages at once.
    pub calls_in_flight: usize,
    /// Of one stream's.
    pub calls_per_stream: usize,
    /// Octets of held messages being sent at once; a larger one goes alone.
    pub bytes_in_flight: u64,
    /// Octets of copies for SES, over all messages.
    pub call_bytes: usize,
    /// How long a call waits for room among them.
    pub call_wait: Duration,
    /// SendEmail calls of one message at once.
    pub calls_per_message: usize,
    /// How long a lease lasts when nobody ends it.
    pub lease_time: Duration,
    /// How long is waited, by cause.
    pub waits: Waits,
    /// The duplicate window; zero: there is none.
    pub dedupe_window: Duration,
    /// Answers remembered for it.
    pub dedupe_entries: usize,
    /// Recipients a second; `None`: SES is asked.
    pub max_send_rate: Option<f64>,
    /// Recipients in 24 hours, -1 without limit; `None`: SES is asked.
    pub max_24_hour_send: Option<f64>,
    /// The part of these, 0 to 1, that is kept for transactional mail.
    pub quota_reserve: f64,
    /// The rules of the exposure window.
    pub exposure: exposure::Rules,
    /// Limits of rates, and whether standing is in force at all.
    pub reputation: reputation::Rules,
    /// The relay's own mail; `None`: it sends none.
    pub reports: Option<Reports>,
    /// Whether what is known of SES's account list binds recipients.
    pub account_list: bool,
}

/// By what the relay sends its own mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reports {
    /// Its sender.
    pub from: Mailbox,
    /// Its configuration set.
    pub configuration_set: ConfigurationSet,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hostname: "relay.example.com".into(),
            calls_in_flight: 32,
            calls_per_stream: 8,
            bytes_in_flight: 64 * 1024 * 1024,
            call_bytes: 256 * 1024 * 1024,
            call_wait: Duration::from_secs(60),
            calls_per_message: 8,
            lease_time: Duration::from_secs(300),
            waits: Waits::default(),
            dedupe_window: Duration::from_secs(600),
            dedupe_entries: 100_000,
            max_send_rate: None,
            max_24_hour_send: None,
            quota_reserve: 0.05,
            exposure: exposure::Rules::default(),
            reputation: reputation::Rules::default(),
            reports: None,
            account_list: false,
        }
    }
}

/// The dispatcher.
pub struct Dispatch {
    means: Means,
    options: Options,
    board: Mutex<Board>,
    copies: Copies,
    calls_per_message: AtomicUsize,
    /// Places for messages that were held.
    calls: Arc<Semaphore>,
    units: Arc<Semaphore>,
    all_units: u32,
    repeats: Arc<Repeats>,
    alarms: alarm::Alarms,
    notices: report::Notices,
    /// Nothing could be held when that was last looked at.
    failed: AtomicBool,
    /// Who hears how SES sees the account.
    account_news: OnceLock<Box<dyn Fn(AccountNews) + Send + Sync>>,
    /// The past of some lanes could not be read.
    unrecalled: AtomicBool,
    /// The board has changed.
    news: Notify,
    /// Attempts under way.
    tasks: TaskTracker,
    /// Who waits for SES is to be held now.
    hurry: CancellationToken,
    /// Attempts end, whatever they are at.
    abandon: CancellationToken,
}

/// An attempt's place on the board, given back however it ends.
struct Flight {
    dispatch: Arc<Dispatch>,
    lane: Lane,
    /// Somebody waits for what becomes of it.
    probe: bool,
    _call: OwnedSemaphorePermit,
}

/// How an attempt ended, as far as a probe is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// Calls were made, and their outcomes told.
    Called,
    /// No call was made.
    Uncalled,
}

impl Dispatch {
    /// A dispatcher that sends nothing until it [runs](Self::run). `known` are held messages that a
    /// client may still repeat.
    pub fn new(means: Means, options: Options, known: &[Remembered]) -> Arc<Self> {
        let all_units = u32::try_from(options.bytes_in_flight.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        let repeats = Repeats::new(options.dedupe_window, options.dedupe_entries);
        let since = means.clock.now().minus(options.dedupe_window);
        for Remembered { tenant, digest, id, created } in known.iter().filter(|known| known.created >= since) {
            if let Some(durable) = means.outbox.durable(*id) {
                repeats.remember(tenant, digest, *id, Receipt::held(durable), *created);
            }
        }
        Arc::new(Self {
            board: Mutex::new(Board::new(options.max_send_rate, options.calls_per_stream, options.exposure)),
            copies: Copies::new(options.call_bytes, options.call_wait),
            calls_per_message: AtomicUsize::new(options.calls_per_message),
            calls: Arc::new(Semaphore::new(options.calls_in_flight.clamp(1, Semaphore::MAX_PERMITS))),
            units: Arc::new(Semaphore::new(usize::try_from(all_units).unwrap_or(Semaphore::MAX_PERMITS))),
            all_units,
            repeats,
            alarms: alarm::Alarms::default(),
            notices: report::Notices::default(),
            failed: AtomicBool::new(false),
            account_news: OnceLock::new(),
            unrecalled: AtomicBool::new(false),
            news: Notify::new(),
            tasks: TaskTracker::new(),
            hurry: CancellationToken::new(),
            abandon: CancellationToken::new(),
            means,
            options,
        })
    }

    /// What it holds.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.means.outbox
    }

    /// From now on these are the bounds of calls; what is taken stays until it is given back.
    pub fn resize(&self, call_bytes: usize, call_wait: Duration, calls_per_message: usize) {
        self.copies.resize(call_bytes, call_wait);
        self.calls_per_message.store(calls_per_message, Ordering::Relaxed);
    }

    /// Holds a lane until a moment, or until it is released: nothing of it is sent.
    pub fn hold_lane(&self, lane: &Lane, hold: Hold) {
        journal::lane_held(&lane.tenant, lane.stream.as_ref(), &hold.reason, hold.until);
        self.board().hold(lane, hold);
    }

    /// Lets a held lane go.
    pub fn release_lane(&self, lane: &Lane) {
        if self.board().let_go(lane) {
            journal::lane_released(&lane.tenant, lane.stream.as_ref());
            self.refresh([lane.clone()], &self.means.directory.load());
            self.news.notify_one();
        }
    }

    /// By hand: what a breaker keeps is tried at once, of a lane or of all.
    pub fn try_now(&self, lane: Option<&Lane>) {
        self.board().try_now(lane);
        self.unpark();
    }

    /// Why a lane waits, where it is not its messages' own wait; and for how long, if that is known.
    pub fn why(&self, lane: &Lane) -> Option<(String, Option<Duration>)> {
        self.board().why(lane, self.means.clock.instant())
    }

    /// From now on whoever waits for SES is held instead.
    pub fn hurry(&self) {
        self.hurry.cancel();
    }

    /// Sends what is held until `drain`, and lets attempts under way go on until `end`; then waits up to
    /// `grace` for the last of them. Gives how many were cut off.
    pub async fn run(self: Arc<Self>, drain: CancellationToken, end: CancellationToken, grace: Duration) -> usize {
        // Whoever stops this stops these with it.
        let account = AbortOnDropHandle::new(self.know_account(drain.clone()).await);
        let mut directory = self.means.directory.load_full();
        self.follow_directory(&directory).await;
        let keeping = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).keep_windows(drain.clone())));
        let all: Vec<Lane> =
            self.means.outbox.with_index(|index| index.lanes().map(|(lane, _)| lane.clone()).collect());
        self.refresh(all, &directory);
        let (mut upkeep, mut renewal) = (Instant::now(), Instant::now() + RENEWAL);
        let mut no_expiry_before = Instant::now();
        while !drain.is_cancelled() {
            let now_in_force = self.means.directory.load_full();
            if !Arc::ptr_eq(&directory, &now_in_force) {
                directory = now_in_force;
                self.follow_directory(&directory).await;
                let lanes: Vec<Lane> =
                    self.means.outbox.with_index(|index| index.lanes().map(|(lane, _)| lane.clone()).collect());
                self.refresh(lanes, &directory);
            }
            if upkeep <= Instant::now() {
                upkeep = Instant::now() + UPKEEP;
                self.keep_up().await;
            }
            if renewal <= Instant::now() {
                renewal = Instant::now() + RENEWAL;
                if let Err(error) = self.means.outbox.renew().await {
                    journal::outbox_unrenewed(&error.to_string());
                }
            }
            let wake = self.turn(&directory, &mut no_expiry_before).await;
            tokio::select! {
                () = drain.cancelled() => {}
                () = self.means.outbox.changed() => {}
                () = self.news.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
        account.abort();
        // It ends with the drain; a store that hangs is not waited for.
        let _ = timeout(UPKEEP, keeping).await;
        // The relay may still hand over messages, whose calls outlive their deadline.
        end.cancelled().await;
        self.tasks.close();
        let mut cut = 0;
        if timeout(grace, self.tasks.wait()).await.is_err() {
            cut = self.tasks.len();
            self.abandon.cancel();
            self.tasks.wait().await;
        }
        while self.keep_some().await == Some(true) {}
        cut
    }

    /// Sends whatever may be sent now; gives when to look again. Nothing is given up before a moment that
    /// it moves on when the store gives nothing up.
    async fn turn(self: &Arc<Self>, directory: &Directory, no_expiry_before: &mut Instant) -> Instant {
        let (now, instant) = (self.means.clock.now(), self.means.clock.instant());
        let most = if *no_expiry_before <= Instant::now() { EXPIRIES } else { 0 };
        let (changed, expired, moment) = self.means.outbox.with_index(|index| {
            index.promote(now);
            (index.take_changed(), index.expired(now, most), index.next_moment())
        });
        for id in expired {
            if !self.expire(id).await {
                // A store that does not work is no reason to turn without rest.
                *no_expiry_before = Instant::now() + NAP;
                break;
            }
        }
        for lane in self.means.outbox.take_urged() {
            self.try_now(Some(&lane));
        }
        let over = self.board().take_holds_over(now);
        for lane in &over {
            journal::lane_released(&lane.tenant, lane.stream.as_ref());
        }
        self.refresh(changed.into_iter().chain(over).collect::<BTreeSet<_>>(), directory);
        if self.board().parked_until().is_some_and(|until| until <= instant) {
            self.unpark();
        }
        let open = self.board().take_gates_over(instant);
        self.refresh(open, directory);

        let mut wake = Instant::now() + NAP;
        loop {
            let Ok(call) = Arc::clone(&self.calls).try_acquire_owned() else { break };
            let outbox = &self.means.outbox;
            let picked = outbox.with_index(|index| {
                let next = |lane: &Lane| Some(index.next(lane)?.1.recipients);
                self.board().pick((instant, now), next)
            });
            match picked {
                Pick::Go { lane, recipients, slot, probe } => {
                    let reserved = Reserved::of(self, lane.clone(), recipients, slot);
                    let flight = Flight { dispatch: Arc::clone(self), lane: lane.clone(), probe, _call: call };
                    let Some(claim) = outbox.claim(&lane) else { continue };
                    let units = u32::try_from(claim.bytes().div_ceil(UNIT)).unwrap_or(u32::MAX);
                    let units = units.clamp(1, self.all_units);
                    // The loop alone asks for octets, so who is large waits at the head of the line.
                    let Ok(octets) = Arc::clone(&self.units).acquire_many_owned(units).await else { break };
                    self.fly((flight, reserved), claim, octets);
                }
                Pick::Wait(at) => {
                    if let Some(at) = at {
                        wake = wake.min(Instant::from_std(at));
                    }
                    break;
                }
            }
        }
        let by_clock = |at: crate::time::Timestamp| Instant::now() + at.since(self.means.clock.now());
        let hold = self.board().next_hold();
        // A moment that has passed is one that something keeps, as a store that does not work.
        moment.filter(|at| *at > now).into_iter().chain(hold).map(by_clock).fold(wake, Instant::min)
    }

    /// Starts the attempt at a message.
    fn fly(self: &Arc<Self>, (mut flight, reserved): (Flight, Reserved), claim: Claim, octets: OwnedSemaphorePermit) {
        let (dispatch, abandon) = (Arc::clone(self), self.abandon.clone());
        self.tasks.spawn(async move {
            // An attempt that is cut off leaves its lease behind.
            let ended = abandon.run_until_cancelled(dispatch.send(claim, &flight.lane, reserved)).await;
            flight.probe &= ended != Some(Ended::Called);
            drop((flight, octets));
        });
    }

    /// Looks anew at lanes.
    fn refresh(&self, lanes: impl IntoIterator<Item = Lane>, directory: &Directory) {
        let now = self.means.clock.now();
        for lane in lanes {
            let standing = self.standing(&lane, directory);
            let state = self.means.outbox.with_index(|index| index.lane(&lane));
            self.board().refresh(&lane, state, &standing, now);
        }
    }

    fn standing(&self, lane: &Lane, directory: &Directory) -> Standing {
        let Some(stream) = &lane.stream else {
            return match &self.options.reports {
                Some(_) => Standing::Granted { kind: StreamKind::Transactional, weight: 1 },
                None => Standing::Held { reason: "notify.from is not set".into(), until: None },
            };
        };
        let tenant = directory.tenant(&lane.tenant).map(|tenant| &**tenant);
        match decide::leaving(tenant, stream).into_result() {
            Ok(stream) => Standing::Granted { kind: stream.kind, weight: tenant.map_or(1, |tenant| tenant.weight) },
            Err(Stop::Defer(reason, until)) => Standing::Held { reason: reason.name().to_owned(), until },
            Err(Stop::Refuse(reason)) => Standing::Held { reason: reason.name().to_owned(), until: None },
        }
    }

    /// Does what follows from a breaker that changed.
    fn follow(&self, change: Change<Lane>, now: std::time::Instant) {
        match change {
            Change::Opened { scope, cause, until, trips } => {
                let wait = until.saturating_duration_since(now);
                journal::breaker_opened(scope.as_ref().map(ToString::to_string), cause.word(), wait, trips);
                // Those that failed before it opened wait for it now, in their lane's order.
                self.means.outbox.release(scope.as_ref(), &[Cause::Network, Cause::Service]);
                self.unpark();
            }
            Change::Closed { scope, cause } => {
                journal::breaker_closed(scope.as_ref().map(ToString::to_string), cause.word());
                let passed: &[Cause] = match cause {
                    Cause::Network | Cause::Service | Cause::Unknown => &[Cause::Network, Cause::Service],
                    _ => &[cause],
                };
                self.means.outbox.release(scope.as_ref(), passed);
                if passed.contains(&Cause::Network) {
                    // Who was the probe of a long outage, and heard nothing, has waited longer each time.
                    let latest = self.means.clock.now().plus(self.options.waits.unknown);
                    self.means.outbox.bring_forward(scope.as_ref(), &[Cause::Unknown], latest);
                }
                self.unpark();
            }
        }
    }

    /// Lanes that wait for a breaker may ask it again.
    fn unpark(&self) {
        let parked = self.board().take_parked();
        self.refresh(parked, &self.means.directory.load());
        self.news.notify_one();
    }

    async fn keep_up(&self) {
        let outbox = &self.means.outbox;
        outbox.probe().await;
        if self.unrecalled.load(Ordering::Relaxed) {
            self.follow_directory(&self.means.directory.load_full()).await;
        }
        self.forget_given_up();
        self.repeats.sweep(self.means.clock.now());
        let backlog = outbox.backlog();
        let age = backlog.oldest.map(|oldest| self.means.clock.now().since(oldest));
        journal::backlog(backlog.messages, backlog.bytes, age.unwrap_or_default(), backlog.active);
        let (held, gated) = {
            let board = self.board();
            (board.held(), board.gated())
        };
        journal::lanes(backlog.lanes, held);
        for cause in Cause::GATES {
            journal::lanes_gated(cause.word(), gated.get(&cause).copied().unwrap_or_default());
        }
        let fault = outbox.fault();
        journal::outbox_available(fault.is_none());
        match (self.failed.swap(fault.is_some(), Ordering::Relaxed), fault) {
            (false, Some(fault)) => journal::outbox_failed(&fault),
            (true, None) => journal::outbox_recovered(),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn moment(&self) -> Moment {
        (self.means.clock.instant(), self.means.clock.now())
    }

    fn calls_per_message(&self) -> usize {
        NonZero::new(self.calls_per_message.load(Ordering::Relaxed)).map_or(1, NonZero::get)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        {
            let mut board = self.dispatch.board();
            board.landed(&self.lane);
            if self.probe {
                board.abandoned(&self.lane);
            }
        }
        self.dispatch.refresh([self.lane.clone()], &self.dispatch.means.directory.load());
        if self.probe { self.dispatch.unpark() } else { self.dispatch.news.notify_one() }
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}
