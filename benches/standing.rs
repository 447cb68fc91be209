//! What policy, judge and applier cost: `cargo bench --bench standing`. Events are applied on the disk of
//! `SPOOL_BENCH=FOLDER` (the temporary one if none is named).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::MachineClock;
use bulkhead::adapters::sled::SledStore;
use bulkhead::event::Notice;
use bulkhead::event::kind::{BounceType, Event, Fate, Form, Mail, Recipient};
use bulkhead::ingest::Applier;
use bulkhead::mail::header::{HeaderLimits, HeaderSection};
use bulkhead::mail::{ConfigurationSet, Login, Mailbox, ReversePath, StreamId, TenantId, Username};
use bulkhead::policy::decide;
use bulkhead::policy::reputation::{self, Brake, Charge, Offence, Rule, Rules, Span};
use bulkhead::policy::tenant::{Cohort, SenderPattern, Stream, StreamKind, Suppression, SuppressionReason, Tenant};
use bulkhead::reputation::Book;
use bulkhead::store::counters::Counts;
use bulkhead::store::directory::Directory;
use bulkhead::time::{Clock as _, Hour, Timestamp};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

const LIMITS: HeaderLimits = HeaderLimits { bytes: 262_144, fields: 1_000, line: 998 };
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MESSAGE: &[u8] =
    b"From: App <app@acme.example>\r\nTo: reader@dest.example\r\nSubject: Your receipt\r\n\r\nHello\r\n";

fn bench_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var_os("SPOOL_BENCH").map_or_else(std::env::temp_dir, Into::into)).unwrap()
}

fn login() -> Arc<Login> {
    Arc::new(Login {
        tenant: TenantId::parse("acme").unwrap(),
        credential: Username::parse("acme-app").unwrap(),
        stream: None,
        secret_fingerprint: 1,
    })
}

fn tenant() -> Tenant {
    let stream = |id: &str, kind| {
        let id = StreamId::parse(id).unwrap();
        let stream = Stream {
            suppress_on: vec![SuppressionReason::Bounce],
            ..Stream::new(id.clone(), kind, ConfigurationSet::parse(&format!("acme-{id}")).unwrap())
        };
        (id, stream)
    };
    Tenant {
        senders: vec![SenderPattern::parse("acme.example").unwrap()],
        streams: BTreeMap::from([
            stream("transactional", StreamKind::Transactional),
            stream("marketing", StreamKind::Marketing),
        ]),
        ..Tenant::new(TenantId::parse("acme").unwrap(), StreamId::parse("transactional").unwrap())
    }
}

/// The decisions of one message with one recipient, of a tenant some of whose mail is restrained and whose
/// recipient has entries that do not bind.
#[divan::bench]
fn decisions_with_standings(bencher: Bencher<'_, '_>) {
    let (mut tenant, login) = (tenant(), login());
    let (rule, offence, span) = (Rule::Rate, Offence::Bounce, Span::Day);
    let charge = Charge { rule, offence, span, bad: 31, accepted: 500, limit: 0.05 };
    let brake = |step| Brake { step, since: NOW, charge, clears: Some(NOW), shadow: false };
    tenant.standing.brake = Some(brake(reputation::Step::TransactionalOnly));
    for stream in tenant.streams.values_mut() {
        let step = match stream.kind {
            StreamKind::Transactional => reputation::Step::Slowed,
            StreamKind::Bulk | StreamKind::Marketing => reputation::Step::Paused,
        };
        stream.standing.brake = Some(brake(step));
    }
    let from = ReversePath::Mailbox(Mailbox::parse(b"app@acme.example").unwrap());
    let section = HeaderSection::scan(Bytes::from_static(MESSAGE), LIMITS).unwrap();
    let (originators, wishes) = (section.originators().unwrap(), section.wishes().unwrap());
    let entry = |reason, expires| Suppression { reason, origin: "ses".into(), at: NOW, expires, actor: "ses".into() };
    let entries = [entry(SuppressionReason::Complaint, None), entry(SuppressionReason::Bounce, Some(NOW))];
    bencher.bench(|| {
        divan::black_box(decide::sender(&tenant, &login, &from).into_result()).unwrap();
        divan::black_box(decide::recipient(&tenant, &login, &entries, NOW).into_result()).unwrap();
        let stream = decide::message(&tenant, &login, &originators, &wishes).into_result().unwrap();
        divan::black_box(decide::recipient_under(stream, &entries, NOW).into_result()).unwrap();
        stream.id.clone()
    });
}

/// A tenant of three streams, each with mail in every hour of the week; with a rate over the warning, so that
/// it is worked out when that clears.
#[divan::bench(args = [0, 3])]
fn book_judge(bencher: Bencher<'_, '_>, bounces_of_a_hundred: u64) {
    let mut tenant = tenant();
    let mut bulk = tenant.streams.values().next().unwrap().clone();
    (bulk.id, bulk.kind) = (StreamId::parse("bulk").unwrap(), StreamKind::Bulk);
    tenant.streams.insert(bulk.id.clone(), bulk);
    let mut book = Book::default();
    book.roll(NOW.hour());
    for age in 0..=168 {
        for stream in tenant.streams.values() {
            let counts = Counts { accepted: 1000, bounced: 10 * bounces_of_a_hundred, ..Counts::default() };
            let cohort = Cohort::of(Hour(NOW.hour().0 - age));
            book.add(&tenant.id, &stream.id, &stream.standing, cohort, &counts);
        }
    }
    book.roll(NOW.hour());
    let (rules, none) = (Rules::default(), BTreeSet::new());
    bencher.bench(|| book.judge(divan::black_box(&tenant), &rules, &none, NOW));
}

/// Events through the applier into a store on a disk, durably, as they come from the queue: up to 320
/// together. `delayed` is counted by hour alone, `delivered` by the recipient's domain besides, of which
/// there are 30, and `bounced` puts the address on the suppression list as well. The items are events.
#[divan::bench(args = ["delayed", "delivered", "bounced"], sample_count = 3, sample_size = 1)]
fn events_apply(bencher: Bencher<'_, '_>, kind: &str) {
    const EVENTS: usize = 20_000;
    let folder = bench_folder();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    let directory = Arc::new(ArcSwap::from_pointee(Directory::new([tenant()], [])));
    let applier = Applier::new(store.clone(), directory, Arc::new(MachineClock), "n1".into());
    let mut sample = 0;
    let event = |sample: usize, number: usize| {
        let to = format!("r{number}@provider{}.example", number % 30);
        let recipients = vec![Recipient::read(&to)];
        let fate = match kind {
            "delivered" => Fate::Delivery { recipients },
            "delayed" => Fate::DeliveryDelay { delay_type: "InternalFailure".into(), recipients },
            _ => Fate::Bounce {
                bounce_type: BounceType::Permanent,
                sub_type: "General".into(),
                recipients,
                feedback_id: format!("f-{sample}-{number}"),
            },
        };
        let now = MachineClock.now();
        let mail = Mail {
            message_id: format!("ses-{sample}-{number}"),
            timestamp: now,
            source: None,
            destination: vec![to],
            tenant: Some(TenantId::parse("acme").unwrap()),
            stream: Some(StreamId::parse("marketing").unwrap()),
            credential: None,
            configuration_set: None,
            ses_tenant: None,
        };
        (format!("n{number}"), Notice::Event(Event { fate, at: now, mail, form: Form::Raw }))
    };
    bencher
        .counter(ItemsCount::new(EVENTS))
        .with_inputs(|| {
            sample += 1;
            (0..EVENTS).map(|number| event(sample, number)).collect::<Vec<_>>()
        })
        .bench_local_values(|mut events| {
            runtime.block_on(async {
                while !events.is_empty() {
                    let together: Vec<_> = events.drain(..events.len().min(320)).collect();
                    assert!(applier.apply(together).await.iter().all(|outcome| outcome.is_safe()));
                }
            });
        });
}
