//! Golden transcripts of standing: what becomes of a tenant's mail, and what it may still do, told line
//! by line. The real applier, book, judge and commands on a store in memory, with a clock that is set.
//!
//! A file in `tests/policy` is one promise, in its first line. What it says is run and written down;
//! `BLESS=1` makes the `.ref` anew. The lines:
//!
//! ```text
//! tenant acme young|old [enforce=no] [reply=reject] [warn_bounce=… pause_bounce=… …]
//! stream acme/marketing transactional|bulk|marketing [enforce=yes|no] [limits as above]
//! rules [enforce=no] [account_bounce=…] [account_least_recipients=…]
//! hour 10:30                        the clock; hours begin at 2026-05-01T00:00Z
//! sent acme/marketing 500           SES took mail for so many
//! bounce acme/marketing 31 [sent=10:05] [twice]     likewise complain, soft, deliver
//! look                              judge; what changed
//! show acme                         figures and standings
//! ask acme/marketing                what a client hears for mail of that stream
//! pause|resume acme[/marketing] reason
//! enforce acme[/marketing] yes|no
//! lose acme/marketing               its counters are gone; needs a restart to be seen
//! damage acme[/marketing]           the record of its standing cannot be read, likewise
//! damage-counters acme/marketing
//! restart
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead::admin::{Desk, Request, perform};
use bulkhead::announce::{Announce, Announcement};
use bulkhead::event::Notice;
use bulkhead::event::kind::{BounceType, Event, Fate, Form, Mail, Recipient};
use bulkhead::ingest::{Applier, Hearing, Outcome};
use bulkhead::mail::header::{Originators, Wishes};
use bulkhead::mail::{Login, Mailbox, ReversePath, StreamId, TenantId};
use bulkhead::policy::decide;
use bulkhead::policy::reputation::Rules;
use bulkhead::policy::tenant::{Limits, PausedReply, SenderPattern, Standing, Stream, StreamKind, Tenant};
use bulkhead::relay::wording;
use bulkhead::reputation::{Means, Reputation};
use bulkhead::secret::Random;
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tally::Tally;
use bulkhead::store::tenants::{self, Declared, DeclaredTenant};
use bulkhead::store::{Batch, If, Key, Store, record};
use bulkhead::time::{Clock, Hour, Timestamp};

/// 2026-05-01T00:00:00Z: hour 0.
const BEGIN: Timestamp = Timestamp::from_millis(1_777_593_600_000);

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

/// Ids that differ, and nothing else.
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, into: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        into.iter_mut().zip(number.iter().cycle()).for_each(|(to, from)| *to = *from);
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<Announcement>>);

impl Announce for Told {
    fn announce(&self, announcement: &Announcement) {
        self.0.lock().unwrap().push(announcement.clone());
    }
}

/// What runs on the store.
struct House {
    directory: Current,
    tally: Arc<Tally>,
    applier: Applier,
    reputation: Arc<Reputation>,
    desk: Desk,
}

struct Play {
    store: Arc<MemoryStore>,
    clock: Arc<SetClock>,
    random: Arc<Counting>,
    told: Arc<Told>,
    rules: Rules,
    declared: BTreeMap<TenantId, Tenant>,
    house: Option<House>,
    events: AtomicUsize,
    out: String,
}

fn time(text: &str) -> Timestamp {
    let (hours, minutes) = text.split_once(':').unwrap_or((text, "0"));
    let seconds = hours.parse::<u64>().unwrap() * 3600 + minutes.parse::<u64>().unwrap() * 60;
    BEGIN.plus(Duration::from_secs(seconds))
}

/// As the files write it.
fn spelled(at: Timestamp) -> String {
    let minutes = at.since(BEGIN).as_secs() / 60;
    match (at < BEGIN, minutes % 60) {
        (true, _) => "before".into(),
        (false, 0) => format!("hour {}", minutes / 60),
        (false, rest) => format!("hour {}:{rest:02}", minutes / 60),
    }
}

fn whose(text: &str) -> (TenantId, Option<StreamId>) {
    let (tenant, stream) = text.split_once('/').map_or((text, None), |(tenant, stream)| (tenant, Some(stream)));
    (tenant.parse().unwrap(), stream.map(|stream| stream.parse().unwrap()))
}

fn stream_of(text: &str) -> (TenantId, StreamId) {
    let (tenant, stream) = whose(text);
    (tenant, stream.unwrap_or_else(|| panic!("{text}: tenant/stream")))
}

fn limits(words: &[&str]) -> Limits {
    let rate = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    Limits {
        warn_bounce: rate("warn_bounce"),
        warn_complaint: rate("warn_complaint"),
        pause_bounce: rate("pause_bounce"),
        pause_complaint: rate("pause_complaint"),
    }
}

fn yes(words: &[&str], name: &str) -> Option<bool> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(|word| word == "yes")
}

fn tenant(id: TenantId, words: &[&str]) -> Tenant {
    let old = Standing { first: Some(BEGIN.minus(Duration::from_secs(90 * 86_400))), ..Standing::default() };
    Tenant {
        senders: vec![SenderPattern::parse(&format!("{id}.example")).unwrap()],
        limits: limits(words),
        enforce: yes(words, "enforce").unwrap_or(true),
        paused_reply: if words.contains(&"reply=reject") { PausedReply::Reject } else { PausedReply::Defer },
        standing: if words.contains(&"old") { old } else { Standing::default() },
        ..Tenant::new(id, "transactional".parse().unwrap())
    }
}

fn stream(tenant: &TenantId, id: StreamId, words: &[&str]) -> Stream {
    let kind = StreamKind::ALL.into_iter().find(|kind| words.contains(&kind.word())).unwrap();
    let configuration_set = format!("{tenant}-{id}").parse().unwrap();
    Stream {
        suppress_on: Vec::new(),
        enforce: yes(words, "enforce"),
        limits: limits(words),
        ..Stream::new(id, kind, configuration_set)
    }
}

impl Play {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(SetClock(AtomicU64::new(BEGIN.millis()))),
            random: Arc::new(Counting(AtomicU64::new(0))),
            told: Arc::new(Told::default()),
            rules: Rules::default(),
            declared: BTreeMap::new(),
            house: None,
            events: AtomicUsize::new(0),
            out: String::new(),
        }
    }

    fn say(&mut self, text: &str) {
        writeln!(self.out, "    {text}").unwrap();
    }

    /// Writes what is declared and opens all on it.
    async fn open(&mut self) {
        let there = tenants::load(&*self.store).await.unwrap();
        let all = self.declared.values();
        let declared = all.map(|tenant| DeclaredTenant { tenant: tenant.clone(), credentials: Vec::new() }).collect();
        let changes = tenants::differences(&there, &Declared { tenants: declared }, false).unwrap();
        tenants::apply(&*self.store, &changes, &[]).await.unwrap();
        for tenant in self.declared.values().filter(|tenant| tenant.standing.first.is_some()) {
            if there.tenant(&tenant.id).is_none() {
                let mut batch = Batch::new();
                batch.put(Key::standing(&tenant.id, None), If::Absent, record::seal(&tenant.standing));
                self.store.commit(batch).await.unwrap();
            }
        }
        let directory: Current = Arc::new(ArcSwap::from_pointee(tenants::load(&*self.store).await.unwrap()));
        let hearing = Hearing::default();
        let applier = || {
            Applier::new(self.store.clone(), directory.clone(), self.clock.clone(), "n1".into())
                .heard_by(hearing.clone())
        };
        let (clock, random) = (self.clock.clone(), self.random.clone());
        let desk = Desk::new(self.store.clone(), directory.clone(), clock.clone(), random.clone(), applier(), None);
        let tally = Arc::new(Tally::default());
        let means = Means {
            store: self.store.clone(),
            directory: directory.clone(),
            changing: desk.changing(),
            tally: tally.clone(),
            clock,
            random,
            announce: self.told.clone(),
        };
        let reputation = Reputation::open(means, self.rules).await.unwrap();
        hearing.set(reputation.clone()).ok().unwrap();
        let windows = reputation.clone();
        desk.tell_of_resumes(Box::new(move |tenant, stream| windows.resumed(tenant, stream)));
        let applier = applier();
        self.house = Some(House { directory, tally, applier, reputation, desk });
    }

    fn house(&self) -> &House {
        self.house.as_ref().unwrap()
    }

    fn directory(&self) -> Arc<Directory> {
        self.house().directory.load_full()
    }

    async fn line(&mut self, line: &str) {
        writeln!(self.out, "{line}").unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().unwrap();
        match *verb {
            "tenant" => {
                let id: TenantId = rest[0].parse().unwrap();
                self.declared.insert(id.clone(), tenant(id, rest));
                return;
            }
            "stream" => {
                let (of, id) = stream_of(rest[0]);
                let stream = stream(&of, id, rest);
                self.declared.get_mut(&of).unwrap().streams.insert(stream.id.clone(), stream);
                return;
            }
            "rules" => {
                for (name, value) in rest.iter().filter_map(|word| word.split_once('=')) {
                    match name {
                        "enforce" => self.rules.enforce = value == "yes",
                        "account_bounce" => self.rules.account_bounce = value.parse().unwrap(),
                        "account_least_recipients" => {
                            self.rules.account_least_recipients = value.parse().unwrap();
                        }
                        other => panic!("no rule {other}"),
                    }
                }
                return;
            }
            _ => {}
        }
        if self.house.is_none() {
            self.open().await;
        }
        match *verb {
            "hour" => self.clock.0.store(time(rest[0]).millis(), Ordering::SeqCst),
            "sent" => self.sent(rest).await,
            "bounce" | "complain" | "soft" | "deliver" => self.event(verb, rest).await,
            "look" => self.look().await,
            "show" => self.show(rest[0]),
            "ask" => self.ask(rest),
            "pause" | "resume" => self.command(verb, rest).await,
            "enforce" => self.enforce(rest).await,
            "lose" | "damage-counters" => self.counters(verb, rest[0]).await,
            "damage" => {
                let (tenant, stream) = whose(rest[0]);
                let mut batch = Batch::new();
                batch.put(Key::standing(&tenant, stream.as_ref()), If::Any, bytes::Bytes::from_static(b"rubbish"));
                self.store.commit(batch).await.unwrap();
            }
            "restart" => self.open().await,
            other => panic!("no such line: {other}"),
        }
    }

    async fn sent(&mut self, rest: &[&str]) {
        let (tenant, stream) = stream_of(rest[0]);
        let house = self.house();
        let directory = self.directory();
        let cohort = directory.tenant(&tenant).unwrap().streams[&stream].standing.cohort(self.clock.now());
        house.tally.accepted(&tenant, &stream, cohort, rest[1].parse().unwrap());
        assert!(house.applier.count(house.tally.take()).await.is_empty());
    }

    async fn event(&mut self, verb: &str, rest: &[&str]) {
        let (tenant, stream) = stream_of(rest[0]);
        let sent = rest.iter().find_map(|word| word.strip_prefix("sent=")).map_or_else(|| self.clock.now(), time);
        let mut notices = Vec::new();
        for _ in 0..rest[1].parse::<usize>().unwrap() {
            let number = self.events.fetch_add(1, Ordering::SeqCst);
            let recipients = vec![Recipient::read(&format!("r{number}@dest.example"))];
            let feedback_id = format!("f-{number}");
            let fate = match verb {
                "bounce" | "soft" => Fate::Bounce {
                    bounce_type: if verb == "soft" { BounceType::Transient } else { BounceType::Permanent },
                    sub_type: "General".into(),
                    recipients,
                    feedback_id,
                },
                "complain" => Fate::Complaint { sub_type: None, feedback_type: None, recipients, feedback_id },
                _ => Fate::Delivery { recipients },
            };
            let mail = Mail {
                message_id: format!("ses-{number}"),
                timestamp: sent,
                source: None,
                destination: vec![format!("r{number}@dest.example")],
                tenant: Some(tenant.clone()),
                stream: Some(stream.clone()),
                credential: None,
                configuration_set: None,
                ses_tenant: None,
            };
            let event = Event { fate, at: self.clock.now(), mail, form: Form::Raw };
            notices.push((feedback_name(number), Notice::Event(event)));
        }
        // The queue brings each at least once, and in no order.
        let again: Vec<_> = if rest.contains(&"twice") { notices.iter().rev().cloned().collect() } else { Vec::new() };
        let outcomes = self.house().applier.apply(notices).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{outcomes:?}");
        let outcomes = self.house().applier.apply(again).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Repeated), "{outcomes:?}");
    }

    async fn look(&mut self) {
        let before = self.standings();
        self.house().reputation.look(true).await.unwrap();
        let after = self.standings();
        let changed: Vec<String> = after.iter().filter(|(who, is)| before.get(*who) != Some(is)).map(told).collect();
        if changed.is_empty() {
            self.say("nothing changed");
        }
        changed.iter().for_each(|line| self.say(line));
        let told = std::mem::take(&mut *self.told.0.lock().unwrap());
        for announcement in told {
            let whose = announcement.tenant.map_or_else(|| "the operator".into(), |tenant| tenant.to_string());
            self.say(&format!("told {whose}: {} ({})", announcement.headline, announcement.kind.word()));
        }
    }

    /// Each standing in words.
    fn standings(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for tenant in self.directory().tenants() {
            let streams =
                tenant.streams.values().map(|stream| (format!("{}/{}", tenant.id, stream.id), &stream.standing));
            for (who, standing) in streams.chain([(tenant.id.to_string(), &tenant.standing)]) {
                let words = match &standing.brake {
                    None => "good".to_owned(),
                    Some(brake) => {
                        let would = if brake.shadow { "would be " } else { "" };
                        let until = brake.clears.map_or_else(|| "it is resumed".to_owned(), spelled);
                        let since = spelled(brake.since);
                        format!("{would}{} since {since} until {until}: {}", brake.step.word(), brake.charge)
                    }
                };
                all.insert(who, words);
            }
        }
        all
    }

    fn show(&mut self, whose: &str) {
        let standings = self.standings();
        let tenant: TenantId = whose.parse().unwrap();
        let mut lines = Vec::new();
        let directory = self.directory();
        for stream in directory.tenant(&tenant).unwrap().streams.keys() {
            let windows = self.house().reputation.windows(&tenant, stream);
            let figures = |of: bulkhead::policy::cohort::Figures| {
                format!("{} accepted, {} bounced, {} complained", of.accepted, of.bounced, of.complained)
            };
            lines.push(format!("{tenant}/{stream} 24 hours: {}", figures(windows.day)));
            lines.push(format!("{tenant}/{stream} 7 days: {}", figures(windows.week)));
        }
        let mine = |who: &String| *who == whose || who.starts_with(&format!("{whose}/"));
        lines.extend(standings.iter().filter(|(who, _)| mine(who)).map(told));
        lines.iter().for_each(|line| self.say(line));
    }

    fn ask(&mut self, rest: &[&str]) {
        let (id, stream) = stream_of(rest[0]);
        let directory = self.directory();
        let tenant = directory.tenant(&id).unwrap();
        let login =
            Login { tenant: id.clone(), credential: "app".parse().unwrap(), stream: None, secret_fingerprint: 1 };
        let from = Mailbox::parse(format!("app@{id}.example").as_bytes()).unwrap();
        let originators = Originators { claims: vec![("From", from.clone())] };
        let wishes = Wishes { stream: Some(stream.to_string()), configuration_set: None, tags: Vec::new() };
        let judged = decide::sender(tenant, &login, &ReversePath::Mailbox(from))
            .into_result()
            .and_then(|()| decide::message(tenant, &login, &originators, &wishes).into_result());
        let words = match judged {
            Err(stop) => {
                let refusal = wording::stopped(&stop);
                let reply = refusal.reply();
                format!("{} {} {}", reply.code(), reply.enhanced(), reply.text())
            }
            Ok(stream) => match decide::would_stop(tenant, stream) {
                None => "may leave".to_owned(),
                Some(reason) => format!("may leave; {} would stop it", reason.name()),
            },
        };
        self.say(&words);
    }

    async fn command(&mut self, verb: &str, rest: &[&str]) {
        let (tenant, stream) = whose(rest[0]);
        let reason = rest[1..].join(" ");
        let request = match verb {
            "pause" => Request::TenantPause { tenant, stream, reason },
            _ => Request::TenantResume { tenant, stream, reason },
        };
        let answer = perform(&self.house().desk, request, "cli:test").await;
        if let Err(error) = answer {
            self.say(&error.to_string());
        }
    }

    async fn enforce(&mut self, rest: &[&str]) {
        let (id, stream) = whose(rest[0]);
        let tenant = self.declared.get_mut(&id).unwrap();
        match stream {
            None => tenant.enforce = rest[1] == "yes",
            Some(stream) => tenant.streams.get_mut(&stream).unwrap().enforce = Some(rest[1] == "yes"),
        }
        let declared = Declared { tenants: vec![DeclaredTenant { tenant: tenant.clone(), credentials: Vec::new() }] };
        let request = Request::Apply { declared, source: "t.toml".into(), dry_run: false, prune: false };
        perform(&self.house().desk, request, "cli:test").await.unwrap();
    }

    async fn counters(&mut self, verb: &str, which: &str) {
        let (tenant, stream) = stream_of(which);
        let rows = self.store.scan(&Key::counters_of(&tenant, &stream), None, 1000).await.unwrap();
        let mut batch = Batch::new();
        for (key, _) in rows.into_iter().take(90) {
            match verb {
                "lose" => batch.remove(key, If::Any),
                _ => batch.put(key, If::Any, bytes::Bytes::from_static(b"rubbish")),
            };
        }
        self.store.commit(batch).await.unwrap();
    }
}

fn feedback_name(number: usize) -> String {
    format!("n-{number}")
}

fn told((who, words): (&String, &String)) -> String {
    format!("{who}: {words}")
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "in"));
    files.sort();
    files
}

#[tokio::test]
async fn every_transcript_is_as_it_was() {
    let files = files();
    assert!(files.len() >= 14, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let promise = text.lines().next().unwrap();
        assert!(promise.starts_with("# ") && promise.ends_with('.'), "{}: says no promise", file.display());
        let mut play = Play::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                writeln!(play.out, "{line}").unwrap();
            } else {
                play.line(line).await;
            }
        }
        let reference = file.with_extension("ref");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&reference, &play.out).unwrap();
        }
        let wanted = std::fs::read_to_string(&reference).unwrap_or_default();
        for (at, (is, was)) in play.out.lines().zip(wanted.lines()).enumerate() {
            if is != was {
                wrong.push(format!("{}:{}\n  is  {is}\n  was {was}", reference.display(), at + 1));
                break;
            }
        }
        if play.out.lines().count() != wanted.lines().count() {
            wrong.push(format!("{}: ends elsewhere", reference.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 makes the references anew", wrong.join("\n"));
}

/// What is counted is in the store, hour by hour, so that the transcripts are of what a restart finds.
#[tokio::test]
async fn the_figures_of_a_transcript_are_those_of_the_store() {
    let mut play = Play::new();
    for line in [
        "tenant acme old",
        "stream acme/transactional transactional",
        "stream acme/marketing marketing",
        "hour 10",
        "sent acme/marketing 500",
        "bounce acme/marketing 31 twice",
        "complain acme/marketing 2",
    ] {
        play.line(line).await;
    }
    let (tenant, stream) = stream_of("acme/marketing");
    let counts =
        bulkhead::store::counters::of(&*play.store, &tenant, &stream, time("10").hour(), Hour(u32::MAX)).await.unwrap();
    assert_eq!((counts.accepted, counts.bounced, counts.complained), (500, 31, 2));
    assert_eq!(play.house().reputation.windows(&tenant, &stream).day.bounced, 31);
}
