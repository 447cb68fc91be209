//! What `explain` says is what the gate then does: ten thousand random tenants, standings, pauses, holds,
//! suppressions, senders, streams and logins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::MachineRandom;
use bulkhead::admin::view::{ExplainView, StepView};
use bulkhead::admin::{CommandError, Desk, Request, Response, perform};
use bulkhead::ingest::Applier;
use bulkhead::mail::header::{Originators, Wishes};
use bulkhead::mail::{Login, Mailbox, ReversePath, StreamId, Username};
use bulkhead::policy::decide::{self, Stop};
use bulkhead::policy::explain::{Gate, Moment};
use bulkhead::policy::reputation::{Brake, Charge, Offence, Rule, Span, Step};
use bulkhead::policy::tenant::{
    Cohort, Handoff, Pause, PausedReply, SenderPattern, Standing, Stream, StreamKind, Suppression, SuppressionReason,
    Tenant,
};
use bulkhead::relay::wording;
use bulkhead::secret::Secret;
use bulkhead::store::counters::{self, Counts, Row};
use bulkhead::store::credential::{Credential, Origin, SecretHash, StoredSecret};
use bulkhead::store::directory::Directory;
use bulkhead::store::holds::Hold;
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::{Batch, If, Key, Store, record};
use bulkhead::time::{Clock, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

/// A small generator of numbers (xorshift): the same cases each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % sides as u64).unwrap()
    }
    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.roll(some.len())]
    }
}

fn moment(dice: &mut Dice) -> Timestamp {
    let hours = Duration::from_secs(3600 * (1 + dice.roll(100) as u64));
    if dice.one_in(2) { NOW.plus(hours) } else { NOW.minus(hours) }
}

fn pause(dice: &mut Dice, sides: usize, why: &str) -> Option<Pause> {
    dice.one_in(sides).then(|| Pause { at: NOW, actor: "cli:root".into(), reason: why.into() })
}

fn standing(dice: &mut Dice, sides: usize, steps: &[Step]) -> Standing {
    let brake = dice.one_in(sides).then(|| {
        let (rule, offence) = (dice.of(&[Rule::Rate, Rule::Ceiling, Rule::Account]), dice.of(&Offence::ALL));
        let charge = Charge { rule, offence, span: dice.of(&Span::ALL), bad: 31, accepted: 500, limit: 0.05 };
        let clears = (!dice.one_in(5)).then(|| NOW.plus(Duration::from_secs(3600)));
        Brake { step: dice.of(steps), since: NOW, charge, clears, shadow: dice.one_in(3) }
    });
    Standing { brake, ..Standing::default() }
}

fn tenant(dice: &mut Dice) -> Tenant {
    use SuppressionReason::{Bounce, Complaint};
    let mut streams = BTreeMap::new();
    for name in ["reset", "bulk", "news"] {
        if name != "reset" && dice.one_in(3) {
            continue;
        }
        let id: StreamId = name.parse().unwrap();
        let kind = dice.of(&StreamKind::ALL);
        let stream = Stream {
            suppress_on: dice.of(&[[].as_slice(), &[Bounce], &[Complaint], &[Bounce, Complaint]]).to_vec(),
            handoff: dice.of(&Handoff::ALL),
            pause: pause(dice, 8, "list is stale"),
            standing: standing(dice, 3, &[Step::Warned, Step::Slowed, Step::Paused, Step::Paused]),
            ..Stream::new(id.clone(), kind, format!("acme-{name}").parse().unwrap())
        };
        streams.insert(id, stream);
    }
    Tenant {
        senders: ["acme.example", "billing@acme.test"].map(|text| SenderPattern::parse(text).unwrap()).to_vec(),
        paused_reply: dice.of(&[PausedReply::Defer, PausedReply::Reject]),
        ses_pause: pause(dice, 30, "bounces"),
        pause: pause(dice, 30, "on holiday"),
        standing: standing(dice, 5, &[Step::TransactionalOnly, Step::TransactionalOnly, Step::Paused]),
        streams,
        ..Tenant::new("acme".parse().unwrap(), "reset".parse().unwrap())
    }
}

/// A question, and all that the answer hangs on.
struct Case {
    tenant: Tenant,
    credential: Option<Credential>,
    hold: Option<Pause>,
    from: Mailbox,
    to: Mailbox,
    entries: Vec<Suppression>,
    wish: Option<String>,
}

fn case(dice: &mut Dice) -> Case {
    let tenant = tenant(dice);
    let credential = (!dice.one_in(3)).then(|| Credential {
        username: "acme-app".parse().unwrap(),
        tenant: tenant.id.clone(),
        stream: match dice.roll(8) {
            0 => Some("gone".parse().unwrap()),
            1 => Some("reset".parse().unwrap()),
            2 => Some("news".parse().unwrap()),
            _ => None,
        },
        secrets: vec![StoredSecret { hash: SecretHash::of(&Secret::new(b"x".to_vec())), expires: None }],
        from_ip: Vec::new(),
        expires: dice.one_in(4).then(|| moment(dice)),
        origin: Origin::Issued,
        created: NOW,
        actor: "cli:root".into(),
    });
    let hold = credential.as_ref().and_then(|_| pause(dice, 12, "seems stolen"));
    let from =
        dice.of(&["app@acme.example", "a@sub.acme.example", "billing@acme.test", "other@acme.test", "x@y.example"]);
    let from = if dice.one_in(2) { "app@acme.example" } else { from };
    let entries = (0..dice.roll(4).saturating_sub(1))
        .map(|_| Suppression {
            reason: dice.of(&SuppressionReason::ALL),
            origin: "ses".into(),
            at: NOW,
            expires: dice.one_in(2).then(|| moment(dice)),
            actor: "ses".into(),
        })
        .collect();
    Case {
        tenant,
        credential,
        hold,
        from: Mailbox::parse(from.as_bytes()).unwrap(),
        to: Mailbox::parse(b"Reader@there.example").unwrap(),
        entries,
        wish: dice.of(&[None, None, Some("reset"), Some("news"), Some("bulk"), Some("nothing")]).map(str::to_owned),
    }
}

impl Case {
    async fn desk(&self) -> Desk {
        let store = Arc::new(MemoryStore::new());
        let mut batch = Batch::new();
        let mut seen = BTreeMap::new();
        for entry in &self.entries {
            seen.insert(entry.reason, entry.clone());
        }
        for (reason, entry) in &seen {
            batch.put(Key::suppression(&self.tenant.id, &self.to, *reason), If::Absent, record::seal(entry));
        }
        store.commit(batch).await.unwrap();
        let holds = self.hold.clone().map(|since| {
            let hold = Hold { tenant: self.tenant.id.clone(), since, released: None };
            (Username::parse("acme-app").unwrap(), hold)
        });
        let directory = Directory::new([self.tenant.clone()], self.credential.clone())
            .with_holds(holds.into_iter().collect::<HashMap<_, _>>());
        let directory = Arc::new(ArcSwap::from_pointee(directory));
        let clock = Arc::new(Still);
        let applier = Applier::new(store.clone(), directory.clone(), clock.clone(), "n1".into());
        let desk = Desk::new(store, directory, clock, Arc::new(MachineRandom), applier, None);
        desk.speak_as(wording::spoken);
        desk
    }

    async fn explain(&self, desk: &Desk) -> ExplainView {
        let request = Request::Explain {
            tenant: self.tenant.id.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            stream: self.wish.clone(),
            credential: self.credential.as_ref().map(|credential| credential.username.clone()),
        };
        match perform(desk, request, "cli:test").await.unwrap() {
            Response::Explained(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    /// What the gate does: MAIL, RCPT, the end of DATA.
    fn gate(&self) -> Result<&Stream, (Moment, Stop)> {
        let tenant = &self.tenant;
        let login = Login {
            tenant: tenant.id.clone(),
            credential: "acme-app".parse().unwrap(),
            stream: self.credential.as_ref().and_then(|credential| credential.stream.clone()),
            secret_fingerprint: 0,
        };
        let stands = self.credential.as_ref().is_none_or(|one| one.live_secrets(NOW).next().is_some());
        let mut entries: BTreeMap<SuppressionReason, Suppression> = BTreeMap::new();
        self.entries.iter().for_each(|entry| drop(entries.insert(entry.reason, entry.clone())));
        let entries: Vec<Suppression> = entries.into_values().collect();
        let originators = Originators { claims: vec![("From", self.from.clone())] };
        let wishes = Wishes { stream: self.wish.clone(), configuration_set: None, tags: Vec::new() };
        let at_mail = |stop| (Moment::Mail, stop);
        let at_data = |stop| (Moment::Data, stop);
        decide::standing(Some(tenant), &login, stands).into_result().map_err(at_mail)?;
        decide::credential(&login, self.hold.as_ref()).into_result().map_err(at_mail)?;
        let path = ReversePath::Mailbox(self.from.clone());
        decide::sender(tenant, &login, &path).into_result().map_err(at_mail)?;
        decide::recipient(tenant, &login, &entries, NOW).into_result().map_err(|stop| (Moment::Rcpt, stop))?;
        let stream = decide::message(tenant, &login, &originators, &wishes).into_result().map_err(at_data)?;
        decide::recipient_under(stream, &entries, NOW).into_result().map_err(at_data)?;
        assert!(decide::leaving(Some(tenant), &stream.id).into_result().is_ok(), "what is taken may leave");
        Ok(stream)
    }
}

fn stops(view: &ExplainView) -> Vec<&StepView> {
    view.steps.iter().filter(|step| step.passes == Some(false)).collect()
}

#[tokio::test]
async fn explain_says_what_the_gate_then_does() {
    let mut dice = Dice(0x5eed_1234_abcd);
    let (mut counts, mut reasons, mut several) = (BTreeMap::new(), BTreeMap::new(), 0);
    for number in 0..10_000 {
        let case = case(&mut dice);
        let view = case.explain(&case.desk().await).await;
        let (verdict, stops) = (&view.verdict, stops(&view));
        several += usize::from(stops.len() > 1);
        match case.gate() {
            Ok(stream) => {
                let held = stream.handoff == Handoff::Queue;
                assert_eq!(verdict.stream.as_ref(), Some(&stream.id), "{number}: {view:#?}");
                assert_eq!(verdict.outcome, if held { "held" } else { "relayed" }, "{number}: {view:#?}");
                assert!(verdict.reply.starts_with("250 2.0.0 "), "{number}: {view:#?}");
                assert!(stops.iter().all(|step| step.moment == Moment::Outbox), "{number}: {view:#?}");
                assert_eq!(stops.len(), usize::from(held));
                *counts.entry("granted").or_insert(0) += 1;
            }
            Err((moment, stop)) => {
                let (outcome, until) = match &stop {
                    Stop::Defer(_, until) => ("deferred", *until),
                    Stop::Refuse(_) => ("refused", None),
                };
                assert_eq!((verdict.outcome.as_str(), verdict.moment), (outcome, Some(moment)), "{number}: {view:#?}");
                assert_eq!(verdict.reason.as_deref(), Some(stop.reason().name()), "{number}: {view:#?}");
                assert_eq!(verdict.reply, wording::spoken(&stop), "{number}: {view:#?}");
                assert_eq!(verdict.clears, until.map(Timestamp::rfc3339), "{number}: {view:#?}");
                assert_eq!(verdict.stream, None);
                // The first rule that does not pass is the reason.
                let first = stops.first().unwrap_or_else(|| panic!("{number}: {view:#?}"));
                assert_eq!((first.moment, Some(&first.rule)), (moment, verdict.rule.as_ref()), "{number}: {view:#?}");
                *counts.entry(outcome).or_insert(0) += 1;
                *reasons.entry(stop.reason().name()).or_insert(0) += 1;
            }
        }
    }
    println!("{counts:?}, {several} with more than one rule against them; {reasons:?}");
    assert!(["granted", "deferred", "refused"].iter().all(|outcome| counts[outcome] > 1000), "{counts:?}");
    assert!(reasons.len() == 12 && reasons.values().all(|count| *count > 25), "{reasons:?}");
    assert!(several > 2000, "{several}");
}

/// A tenant of whom nothing is wrong.
fn good() -> Case {
    let mut dice = Dice(7);
    let mut case = case(&mut dice);
    let tenant = &mut case.tenant;
    (tenant.pause, tenant.ses_pause, tenant.standing) = (None, None, Standing::default());
    for stream in tenant.streams.values_mut() {
        (stream.pause, stream.standing, stream.handoff) = (None, Standing::default(), Handoff::Through);
        stream.kind = StreamKind::Marketing;
    }
    Case {
        credential: None,
        hold: None,
        entries: Vec::new(),
        wish: None,
        from: Mailbox::parse(b"app@acme.example").unwrap(),
        ..case
    }
}

#[tokio::test]
async fn what_an_accepted_message_waits_for_is_told_with_its_end() {
    let case = good();
    let desk = case.desk().await;
    let view = case.explain(&desk).await;
    assert_eq!((view.verdict.outcome.as_str(), stops(&view).len()), ("relayed", 0));
    let until = NOW.plus(Duration::from_secs(90));
    desk.ask_of_gates(Box::new(move |lane| {
        assert_eq!((lane.tenant.as_str(), lane.stream.as_ref().unwrap().as_str()), ("acme", "reset"));
        let gate = |name: &str, open| Gate {
            name: name.into(),
            value: "100 of 100".into(),
            limit: "100".into(),
            open,
            until: Some(until),
        };
        vec![gate("tenant's rate", true), gate("exposure window", false), gate("daily cap", false)]
    }));
    let view = case.explain(&desk).await;
    assert_eq!((view.verdict.outcome.as_str(), view.verdict.rule.as_deref()), ("held", Some("exposure window")));
    assert_eq!(view.verdict.clears, Some(until.rfc3339()));
    assert_eq!(view.verdict.reply, "250 2.0.0 queued as <id>");
    let shown: Vec<_> = view.steps.iter().filter(|step| step.value.contains("100 of 100")).collect();
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[0].clears, None, "what is open clears nothing");
    // Something keeps the stream's mail: it is told before all others.
    desk.ask_of_lanes(Box::new(|_| Some(("throttled".into(), Some(Duration::from_secs(5))))));
    let view = case.explain(&desk).await;
    assert_eq!(view.verdict.rule.as_deref(), Some("the stream's mail"));
    assert_eq!(view.verdict.clears, Some(NOW.plus(Duration::from_secs(5)).rfc3339()));
}

#[tokio::test]
async fn the_figures_are_those_that_the_judge_goes_by() {
    let mut case = good();
    let resumed = NOW.minus(Duration::from_secs(10 * 3600));
    case.tenant.streams.get_mut(&"reset".parse::<StreamId>().unwrap()).unwrap().standing.resumed = Some(resumed);
    let desk = case.desk().await;
    let put = async |hours: u32, counts: Counts| {
        let hour = bulkhead::time::Hour(NOW.hour().0 - hours);
        let row = Row { tenant: case.tenant.id.clone(), stream: "reset".parse().unwrap(), cohort: Cohort::of(hour) };
        let mut batch = Batch::new();
        counters::write(&mut batch, &row, "n1", If::Absent, &counts);
        desk.store.commit(batch).await.unwrap();
    };
    put(20, Counts { accepted: 9000, bounced: 900, ..Counts::default() }).await;
    put(2, Counts { accepted: 500, bounced: 31, complained: 1, ..Counts::default() }).await;
    let view = case.explain(&desk).await;
    let of =
        |rule: &str| view.steps.iter().find(|step| step.rule == rule).unwrap_or_else(|| panic!("{rule}: {view:#?}"));
    let bounces = of("stream's bounces, 24 hours");
    assert_eq!(bounces.value, "6.2 % (31 of 500), at least 4.4 %", "nothing before the resume counts");
    assert!(bounces.limit.starts_with("warned over 2 %, slowed over 3.5 %, paused over 5 %; new: warned at 10"));
    assert_eq!(bounces.passes, None, "the gate goes by the standing");
    assert_eq!(of("tenant's complaints, 7 days").value, "0.2 % (1 of 500), at least 0.035 %");
}

#[tokio::test]
async fn who_is_not_there_is_an_error_with_the_nearest_name() {
    let mut case = good();
    case.credential = Some(Credential {
        username: "acme-app".parse().unwrap(),
        tenant: "acme".parse().unwrap(),
        stream: None,
        secrets: Vec::new(),
        from_ip: Vec::new(),
        expires: None,
        origin: Origin::Issued,
        created: NOW,
        actor: "cli:root".into(),
    });
    let desk = case.desk().await;
    let ask = |tenant: &str, credential: &str| Request::Explain {
        tenant: tenant.parse().unwrap(),
        from: case.from.clone(),
        to: case.to.clone(),
        stream: None,
        credential: Some(credential.parse().unwrap()),
    };
    let error = perform(&desk, ask("acmee", "acme-app"), "cli:test").await.unwrap_err();
    assert!(matches!(error, CommandError::NoTenant { near: Some(ref near), .. } if near == "acme"), "{error}");
    let error = perform(&desk, ask("acme", "acme-ap"), "cli:test").await.unwrap_err();
    assert!(matches!(error, CommandError::NoCredential { near: Some(ref near), .. } if near == "acme-app"), "{error}");
}
