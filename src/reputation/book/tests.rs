//! The book over many tenants: what it says of one is its own mail's doing.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::policy::tenant::SenderPattern;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const STREAMS: [(&str, StreamKind); 3] =
    [("reset", StreamKind::Transactional), ("bulk", StreamKind::Bulk), ("news", StreamKind::Marketing)];

fn tenant(id: &str) -> Tenant {
    let stream = |(name, kind): (&str, StreamKind)| Stream {
        suppress_on: Vec::new(),
        ..Stream::new(name.parse().unwrap(), kind, format!("{id}-{name}").parse().unwrap())
    };
    Tenant {
        senders: vec![SenderPattern::parse("acme.example").unwrap()],
        standing: Standing { first: Some(NOW.minus(Duration::from_secs(90 * 86_400))), ..Standing::default() },
        streams: STREAMS.map(stream).map(|stream| (stream.id.clone(), stream)).into_iter().collect(),
        ..Tenant::new(id.parse().unwrap(), "reset".parse().unwrap())
    }
}

/// What comes of one stream: which, how many hours ago, how many recipients and bounces.
type Mail = (usize, u32, u64, u64);

fn mail() -> impl Strategy<Value = Vec<Mail>> {
    let one = (0..3_usize, 0..200_u32, 0..3000_u64, 0..120_u64)
        .prop_map(|(stream, age, accepted, permille)| (stream, age, accepted, accepted * permille / 1000));
    prop::collection::vec(one, 0..12)
}

fn enter(book: &mut Book, tenant: &Tenant, mail: &[Mail]) {
    for (stream, age, accepted, bounced) in mail {
        let stream: StreamId = STREAMS[*stream].0.parse().unwrap();
        let counts = Counts { accepted: *accepted, bounced: *bounced, ..Counts::default() };
        let cohort = Cohort::of(Hour(NOW.hour().0 - age));
        book.add(&tenant.id, &stream, &tenant.streams[&stream].standing, cohort, &counts);
    }
}

fn holds<S: Strategy>(cases: u32, of: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)).run(&of, property).unwrap();
}

#[test]
fn two_tenants_never_influence_each_other() {
    let (braked, apart) = (Cell::new(0_u32), Cell::new(0_u32));
    holds(600, (mail(), mail()), |(mine, others)| {
        let (acme, other) = (tenant("acme"), tenant("acme-two"));
        let judged = |mails: &[(&Tenant, &[Mail])]| {
            let mut book = Book::default();
            book.roll(NOW.hour());
            mails.iter().for_each(|(tenant, mail)| enter(&mut book, tenant, mail));
            book.roll(NOW.hour());
            book.judge(&acme, &Rules::default(), &BTreeSet::new(), NOW)
        };
        let alone = judged(&[(&acme, &mine)]);
        prop_assert_eq!(&alone, &judged(&[(&acme, &mine), (&other, &others)]));
        prop_assert_eq!(&alone, &judged(&[(&other, &others), (&acme, &mine)]));
        prop_assert!(alone.iter().all(|change| change.tenant == acme.id));
        let bad = alone.iter().filter(|change| change.to() > Step::Good).count();
        braked.set(braked.get() + u32::from(bad > 0));
        apart.set(apart.get() + u32::from(judged(&[(&other, &others)]) != alone));
        Ok(())
    });
    assert!(braked.get() > 100 && apart.get() > 300, "{braked:?} {apart:?}");
}

/// A tenant's standing clears when all that it is judged by says so, and not before.
#[test]
fn a_tenants_brake_clears_when_it_says() {
    let (restricted, paused) = (Cell::new(0_u32), Cell::new(0_u32));
    holds(900, mail(), |mail| {
        let acme = tenant("acme");
        let mut book = Book::default();
        book.roll(NOW.hour());
        enter(&mut book, &acme, &mail);
        book.roll(NOW.hour());
        let of = |book: &Book, now: Timestamp| {
            let changes = book.judge(&acme, &Rules::default(), &BTreeSet::new(), now);
            changes.into_iter().find(|change| change.stream.is_none()).and_then(|change| change.after.brake)
        };
        let Some(brake) = of(&book, NOW) else { return Ok(()) };
        let count = if brake.step == Step::Paused { &paused } else { &restricted };
        count.set(count.get() + 1);
        let (until, mut hour) = (brake.clears.unwrap(), NOW.hour());
        while reputation::begin_of(hour) < until {
            let there = of(&book, reputation::begin_of(hour));
            prop_assert!(there.is_some_and(|there| there.step >= brake.step), "better at {hour:?}");
            hour = Hour(hour.0 + 1);
            book.roll(hour);
        }
        prop_assert!(of(&book, until).is_none_or(|there| there.step < brake.step));
        Ok(())
    });
    assert!(restricted.get() > 100 && paused.get() > 40, "{restricted:?} {paused:?}");
}

#[test]
fn what_cannot_be_read_or_is_lost_makes_nobody_good() {
    let mut acme = tenant("acme");
    let bulk: StreamId = "bulk".parse().unwrap();
    let mut book = Book::default();
    book.roll(NOW.hour());
    enter(&mut book, &acme, &[(1, 0, 500, 100)]);
    let (rules, none) = (Rules::default(), BTreeSet::new());
    let put = |acme: &mut Tenant, changes: Vec<Change>| {
        for change in changes {
            match change.stream {
                Some(stream) => acme.streams.get_mut(&stream).unwrap().standing = change.after,
                None => acme.standing = change.after,
            }
        }
    };
    let changes = book.judge(&acme, &rules, &none, NOW);
    put(&mut acme, changes);
    let brake = acme.streams[&bulk].standing.brake.unwrap();
    assert_eq!((brake.step, acme.standing.brake.map(|b| b.step)), (Step::Paused, Some(Step::TransactionalOnly)));
    let until = brake.clears.unwrap();
    assert_eq!(book.judge(&acme, &rules, &none, NOW), [], "nothing new, nothing written");

    // Its counters are lost: paused until the moment that was said, and no longer.
    let lost = Book::default();
    assert_eq!(lost.judge(&acme, &rules, &none, until.minus(Duration::from_millis(1))), []);
    let after = lost.judge(&acme, &rules, &none, until);
    assert!(after.iter().any(|change| change.stream.as_ref() == Some(&bulk) && change.to() == Step::Good));

    // Its counters cannot be read: it stays as it is until a person looks at it.
    let mut damaged = Book::default();
    damaged.damaged(&acme.id, &bulk);
    assert_eq!(damaged.judge(&acme, &rules, &none, until.plus(Duration::from_secs(86_400))), []);
    damaged.resumed(&acme.id, &bulk);
    assert!(!damaged.judge(&acme, &rules, &none, until.plus(Duration::from_secs(86_400))).is_empty());
}

/// Who is paused for the account's complaints is told of complaints, though its bounces are over, too.
#[test]
fn a_pause_for_the_account_names_the_line_to_which_the_stream_adds() {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let directory = Directory::new([acme.clone(), other.clone()], []);
    let news: StreamId = "news".parse().unwrap();
    let mut book = Book::default();
    book.roll(NOW.hour());
    enter(&mut book, &other, &[(2, 0, 4000, 600)]);
    let counts = Counts { accepted: 20_000, complained: 19, ..Counts::default() };
    book.add(&acme.id, &news, &Standing::default(), Cohort::of(NOW.hour()), &counts);
    // The account's first line is its bounces'; it is not over that of complaints.
    assert!(!book.judge_account(&directory, &Rules::default()));
    let rules = Rules { account_bounce: 0.02, account_complaint: 0.0005, ..Rules::default() };
    assert!(book.judge_account(&directory, &rules));
    let worst = book.worst(&directory);
    let of = |id: &TenantId| worst.iter().filter(|(tenant, ..)| tenant == id).map(|(_, s, _)| s.clone()).collect();
    let mine: BTreeSet<StreamId> = of(&acme.id);
    assert_eq!(mine, BTreeSet::from([news.clone()]));
    let changes = book.judge(&acme, &rules, &mine, NOW);
    let brake = changes.iter().find(|change| change.stream.as_ref() == Some(&news)).unwrap().after.brake.unwrap();
    let charge = brake.charge;
    assert_eq!(
        (brake.step, charge.rule, charge.offence),
        (Step::Paused, Rule::Account, reputation::Offence::Complaint)
    );
    assert_eq!((charge.bad, charge.accepted, charge.limit), (19, 20_000, 0.0005));
}
