//! A replay says what the relay would have said of each hour.

use std::time::Duration;

use super::*;
use crate::policy::tenant::{SenderPattern, Stream, StreamKind};

const BEGIN: Hour = Hour(500_000);

fn tenant(id: &str) -> Tenant {
    let stream = |(name, kind): (&str, StreamKind)| Stream {
        suppress_on: Vec::new(),
        ..Stream::new(name.parse().unwrap(), kind, format!("{id}-{name}").parse().unwrap())
    };
    let streams = [("reset", StreamKind::Transactional), ("news", StreamKind::Marketing)];
    Tenant {
        senders: vec![SenderPattern::parse("acme.example").unwrap()],
        standing: Standing {
            first: Some(begin_of(BEGIN).minus(Duration::from_secs(90 * 86_400))),
            ..Standing::default()
        },
        streams: streams.map(stream).map(|stream| (stream.id.clone(), stream)).into_iter().collect(),
        ..Tenant::new(id.parse().unwrap(), "reset".parse().unwrap())
    }
}

fn mail(tenant: &str, stream: &str, hour: u32, from_second: u16, accepted: u64, bounced: u64) -> Mail {
    Mail {
        tenant: tenant.parse().unwrap(),
        stream: stream.parse().unwrap(),
        cohort: Cohort { hour: Hour(BEGIN.0 + hour), from_second },
        counts: Counts { accepted, bounced, ..Counts::default() },
    }
}

/// `hour tenant/stream step until`, relative to the beginning.
fn spelled(transitions: &[Transition]) -> Vec<String> {
    let one = |t: &Transition| {
        let stream = t.stream.as_ref().map(|stream| format!("/{stream}")).unwrap_or_default();
        let until = t.clears.map(|until| format!(" until {}", until.hour().0 - BEGIN.0)).unwrap_or_default();
        format!("{} {}{stream} {}{until}", t.at.0 - BEGIN.0, t.tenant, t.to.word())
    };
    transitions.iter().map(one).collect()
}

fn run(past: &Past, rules: &Rules, tenants: &[&str], since: u32, until: u32) -> Vec<String> {
    let tenants = tenants.iter().map(|id| tenant(id)).collect();
    spelled(&replay(past, rules, tenants, Hour(BEGIN.0 + since), Hour(BEGIN.0 + until)))
}

#[test]
fn a_campaign_is_stopped_in_its_hour_and_clears_when_it_said() {
    let mut past = Past::default();
    past.add(mail("acme", "reset", 10, 0, 90_000, 10));
    past.add(mail("acme", "news", 10, 0, 500, 60));
    let rules = Rules::default();
    let all = run(&past, &rules, &["acme"], 0, 400);
    assert_eq!(all, ["10 acme/news paused until 179", "179 acme/news good"]);
    // Other limits, other steps; nothing before `since` is told, and nothing is forgotten of it.
    let lax = Rules { marketing: reputation_lines(0.05, 0.5), ..rules };
    assert_eq!(run(&past, &lax, &["acme"], 0, 400), ["10 acme/news warned until 179", "179 acme/news good"]);
    assert_eq!(run(&past, &rules, &["acme"], 20, 30), ["20 acme/news paused until 179"]);
    assert_eq!(run(&past, &rules, &["acme"], 200, 400), Vec::<String>::new());
    assert_eq!(past.rows(), 2);
}

fn reputation_lines(warn_bounce: f64, pause_bounce: f64) -> crate::policy::reputation::Lines {
    crate::policy::reputation::Lines { warn_bounce, pause_bounce, ..Rules::default().marketing }
}

#[test]
fn what_was_resumed_begins_anew() {
    let mut past = Past::default();
    past.add(mail("acme", "news", 10, 0, 500, 60));
    past.resumed(Hour(BEGIN.0 + 20), "acme".parse().unwrap(), None);
    let rules = Rules::default();
    let first = ["10 acme/news paused until 179", "10 acme transactional_only until 179"];
    assert_eq!(run(&past, &rules, &["acme"], 0, 60), first, "nothing is told of a resume, and nothing follows");
    // Within an hour: what was sent after it is judged by itself.
    past.add(mail("acme", "news", 30, 0, 100, 90));
    past.add(mail("acme", "news", 30, 1800, 400, 10));
    assert_eq!(run(&past, &rules, &["acme"], 0, 60), first);
    past.add(mail("acme", "news", 30, 1800, 100, 50));
    let again = ["30 acme/news paused until 199", "30 acme transactional_only until 199"];
    assert_eq!(run(&past, &rules, &["acme"], 0, 60), [first, again].concat());
    // A stream's resume leaves what its tenant's sum has come to.
    let mut past = Past::default();
    past.add(mail("acme", "news", 10, 0, 500, 60));
    past.resumed(Hour(BEGIN.0 + 20), "acme".parse().unwrap(), Some("news".parse().unwrap()));
    assert_eq!(run(&past, &rules, &["acme"], 0, 400), [first.as_slice(), &["179 acme good"]].concat());
}

#[test]
fn tenants_are_apart_but_for_the_accounts_line() {
    let mut past = Past::default();
    past.add(mail("acme", "news", 10, 0, 500, 60));
    past.add(mail("bravo", "news", 10, 0, 20_000, 100));
    let rules = Rules::default();
    let all = run(&past, &rules, &["acme", "bravo"], 0, 60);
    assert!(all.iter().all(|line| !line.contains("bravo")) && all.len() == 2, "{all:?}");
    let strict = Rules { account_bounce: 0.001, ..rules };
    let all = run(&past, &strict, &["acme", "bravo"], 0, 60);
    assert!(all.contains(&"10 bravo/news paused until 179".into()), "{all:?}");
    // Who is not there any more is passed over.
    assert_eq!(run(&past, &rules, &["bravo"], 0, 60), Vec::<String>::new());
}
