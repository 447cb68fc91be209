//! What the machines cost by themselves, without sockets, TLS or SES: `cargo bench`. And what the
//! disk lets the spool do: `SPOOL_BENCH=FOLDER cargo bench spool`, with a folder on the disk in
//! question (the temporary one if none is named).
//!
//! The figures of a whole message, beside the floor of the AWS SDK, are made with `bulkhead.sh`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::spool::{FileSpool, Options};
use bulkhead::announce::Silence;
use bulkhead::event;
use bulkhead::mail::header::{Additions, HeaderLimits, HeaderSection};
use bulkhead::mail::{
    ConfigurationSet, Login, Mailbox, MessageId, Receipt, ReversePath, StreamId, Taken, TenantId, Username,
};
use bulkhead::outbox::Spool;
use bulkhead::policy::decide;
use bulkhead::policy::tenant::{SenderPattern, Stream, StreamKind, SuppressionReason, Tenant};
use bulkhead::smtp::{Answer, Question, Session, Step, Terms};
use bulkhead::store::Pending;
use bulkhead::store::memory::MemoryStore;
use bulkhead::time::Clock;
use bulkhead::watch::{self, Credentials, Holding, Watch};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

fn main() {
    divan::main();
}

const LIMITS: HeaderLimits = HeaderLimits { bytes: 262_144, fields: 1_000, line: 998 };

fn message(size: usize) -> Vec<u8> {
    let mut text = b"From: App <app@acme.example>\r\nTo: reader@dest.example\r\nSubject: Your receipt\r\n\
        MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nX-Mailer: bench\r\n\r\n"
        .to_vec();
    while text.len() < size {
        text.extend_from_slice(b"A line of the body, as long as lines in bodies usually are, or so it seems.\r\n");
    }
    text
}

fn terms() -> Arc<Terms> {
    Arc::new(Terms {
        hostname: "relay.test".into(),
        starttls: true,
        cleartext_auth: false,
        message_bytes: 26_214_400,
        head_bytes: 0,
        spill_bytes: usize::MAX,
        recipients: 50,
        messages: 1_000_000,
        command_bytes: 2_048,
        auth_bytes: 12_288,
        line_bytes: 1_000,
        errors: 10,
        commands_before_login: 100,
        auth_failures: 3,
        auth_delay: Duration::from_secs(1),
        auth_delay_longest: Duration::from_secs(60),
        command_time_unauthenticated: Duration::from_secs(60),
        command_time: Duration::from_secs(300),
        data_time: Duration::from_secs(600),
        data_rate: 512,
        data_grace: Duration::from_secs(30),
    })
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

/// Drives the session until it wants to read; answers yes to everything.
fn settle(session: &mut Session, login: &Arc<Login>, now: Instant) {
    loop {
        let answer = match session.step(now) {
            Step::Read => return,
            Step::Write(bytes) => {
                divan::black_box(bytes);
                continue;
            }
            Step::Ask(Question::Authenticate { .. }) => Answer::Login(Ok(Arc::clone(login))),
            Step::Ask(Question::Sender { .. } | Question::Recipient { .. }) => Answer::Path(Ok(())),
            Step::Ask(Question::Accept { data, .. }) => {
                divan::black_box(data);
                Answer::Accept(Ok(Receipt::one(Taken::by_ses("id".into()))))
            }
            Step::Wait | Step::Secure | Step::Close => panic!("not in this conversation"),
        };
        session.answer(answer, now);
    }
}

/// MAIL, RCPT, DATA, the data and its dot, read in pieces of 16 KiB, on an authenticated session.
#[divan::bench(args = [2_048, 10_240, 102_400, 5_242_880])]
fn session_message(bencher: Bencher<'_, '_>, size: usize) {
    let (login, now) = (login(), Instant::now());
    let mut session = Session::new(terms(), true, now);
    session.receive(b"EHLO c.example\r\nAUTH PLAIN AGFjbWUtYXBwAG9wZW4tc2VzYW1lLW9wZW4tc2VzYW1l\r\n", now);
    settle(&mut session, &login, now);
    let mut data = message(size);
    data.extend_from_slice(b".\r\n");
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        for command in ["MAIL FROM:<app@acme.example>\r\n", "RCPT TO:<reader@dest.example>\r\n", "DATA\r\n"] {
            session.receive(command.as_bytes(), now);
            settle(&mut session, &login, now);
        }
        for piece in data.chunks(16_384) {
            session.receive(piece, now);
            settle(&mut session, &login, now);
        }
    });
}

/// Scan, single fields, originators, wishes, edit, and the one copy for the SDK.
#[divan::bench(args = [2_048, 10_240, 102_400, 5_242_880])]
fn header_section(bencher: Bencher<'_, '_>, size: usize) {
    let message = Bytes::from(message(size));
    let additions = Additions {
        trace: "Received: from c.example by relay.test with ESMTPSA; Fri, 01 May 2026 09:15:02 +0000\r\n",
        date: "Fri, 01 May 2026 09:15:02 +0000",
        message_id: "<01KAH2V4S9Q0ZC7M3T8N5XW1YE@relay.test>",
    };
    bencher.counter(BytesCount::new(size)).bench(|| {
        let section = HeaderSection::scan(message.clone(), LIMITS).unwrap();
        section.check_single().unwrap();
        divan::black_box((section.originators().unwrap(), section.wishes().unwrap()));
        section.edit(&additions).to_vec()
    });
}

/// The decisions of one message with one recipient.
#[divan::bench]
fn decisions(bencher: Bencher<'_, '_>) {
    let (tenant, login) = (tenant(), login());
    let from = ReversePath::Mailbox(Mailbox::parse(b"app@acme.example").unwrap());
    let section = HeaderSection::scan(Bytes::from(message(500)), LIMITS).unwrap();
    let (originators, wishes) = (section.originators().unwrap(), section.wishes().unwrap());
    bencher.bench(|| {
        divan::black_box(decide::sender(&tenant, &login, &from).into_result()).unwrap();
        divan::black_box(decide::message(&tenant, &login, &originators, &wishes).into_result().unwrap().id.clone())
    });
}

/// A bounce in its SNS envelope.
#[divan::bench]
fn event_parse(bencher: Bencher<'_, '_>) {
    let body = include_bytes!("../tests/events/envelope_sns_to_sqs_bounce.json");
    bencher.bench(|| event::parse(divan::black_box(body)).unwrap());
}

/// A watch on credentials over an empty store in memory.
fn watched() -> (Watch, Credentials) {
    struct Nobody;
    impl Holding for Nobody {
        fn hold<'a>(&'a self, _: &'a Username, _: &'a str) -> Pending<'a, Result<(), String>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }
    let means = watch::Means {
        store: Arc::new(MemoryStore::new()),
        directory: Arc::default(),
        clock: Arc::new(MachineClock),
        random: Arc::new(MachineRandom),
        announce: Arc::new(Silence),
        holding: Arc::new(Nobody),
    };
    watch::credentials(means, watch::Options { waiting: usize::MAX, ..watch::Options::default() })
}

fn readers(many: usize) -> Vec<Mailbox> {
    (0..many).map(|n| Mailbox::parse(format!("reader-{n}@customer.example").as_bytes()).unwrap()).collect()
}

/// What the watch on credentials costs the path of a message, by recipients.
#[divan::bench(args = [1, 50])]
fn watch_accepted(bencher: Bencher<'_, '_>, recipients: usize) {
    let ((watch, _credentials), login, readers) = (watched(), login(), readers(recipients));
    let (peer, now) = ("192.0.2.71".parse().unwrap(), MachineClock.now());
    bencher.bench_local(|| watch.accepted(&login, peer, divan::black_box(&readers), now));
}

/// The same with all that its loop does about the message: known recipients and a usual network, the
/// filter of 46,000 addresses nearly full.
#[divan::bench(args = [1, 50])]
fn watch_accepted_and_judged(bencher: Bencher<'_, '_>, recipients: usize) {
    let ((watch, mut credentials), login) = (watched(), login());
    let (peer, now) = ("192.0.2.71".parse().unwrap(), MachineClock.now());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    watch.accepted(&login, peer, &readers(40_000), now);
    runtime.block_on(credentials.look_at_all());
    let readers = readers(recipients);
    bencher.bench_local(|| {
        watch.accepted(&login, peer, divan::black_box(&readers), now);
        runtime.block_on(credentials.look_at_all());
    });
}

fn bench_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var_os("SPOOL_BENCH").map_or_else(std::env::temp_dir, Into::into)).unwrap()
}

fn new_id() -> MessageId {
    MessageId::new(MachineClock.now(), &MachineRandom)
}

/// Messages of 10 KB that are kept by 1, 16 and 64 at once, durably; the items are messages.
/// `SPOOL_WRITERS` says how many are written at once.
#[divan::bench(args = [1, 16, 64], sample_count = 10, sample_size = 1)]
fn spool_keep(bencher: Bencher<'_, '_>, keepers: usize) {
    const EACH: usize = 50;
    let folder = bench_folder();
    let writers = std::env::var("SPOOL_WRITERS").map_or(32, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let spool = Arc::new(FileSpool::open(folder.path(), Options { writers }).unwrap());
    let message = Bytes::from(message(10_240));
    bencher.counter(ItemsCount::new(keepers * EACH)).bench_local(|| {
        let keepers = (0..keepers).map(|_| {
            let (spool, message) = (Arc::clone(&spool), message.clone());
            runtime.spawn(async move {
                for _ in 0..EACH {
                    spool.keep(new_id(), vec![message.slice(..500), message.slice(500..)]).await.unwrap();
                }
            })
        });
        let keepers: Vec<_> = keepers.collect();
        runtime.block_on(async {
            for keeper in keepers {
                keeper.await.unwrap();
            }
        });
    });
}

/// The ids of so many files.
#[divan::bench(args = [1_000, 100_000], sample_count = 10, sample_size = 1)]
fn spool_list(bencher: Bencher<'_, '_>, files: usize) {
    let folder = bench_folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let spool = FileSpool::open(folder.path(), Options { writers: 1 }).unwrap();
    for _ in 0..files {
        std::fs::File::create(folder.path().join("outbox").join(new_id().to_string())).unwrap();
    }
    bencher.bench_local(|| assert_eq!(runtime.block_on(spool.list()).unwrap().len(), files));
}
