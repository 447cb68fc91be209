//! SES's own word on its tenants, out of the queue and into what the gate reads: mirrored by SES's clock,
//! told once, and kept over a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::announce::{Announce, Announcement, Kind};
use bulkhead::event::parse;
use bulkhead::ingest::{Applier, Hearing, Outcome};
use bulkhead::mail::{ReversePath, StreamId, TenantId};
use bulkhead::policy::decide::{self, Reason, Stop};
use bulkhead::policy::reputation::Rules;
use bulkhead::reputation::{Means, Reputation};
use bulkhead::store::directory::{Changing, Current};
use bulkhead::store::memory::MemoryStore;
use bulkhead::store::tally::Tally;
use bulkhead::store::tenants::{self, Declared};
use bulkhead::store::{Key, Store};

const TENANTS: &str = r#"
[[tenant]]
id = "acme"
ses_tenant = "acme-at-ses"
senders = ["acme.example"]
default_stream = "main"
[[tenant.stream]]
id = "main"
kind = "bulk"
configuration_set = "acme-main"

[[tenant]]
id = "other"
ses_tenant = "other-at-ses"
senders = ["other.example"]
default_stream = "main"
[[tenant.stream]]
id = "main"
kind = "bulk"
configuration_set = "other-main"
"#;

#[derive(Default)]
struct Told(Mutex<Vec<Announcement>>);

impl Announce for Told {
    fn announce(&self, announcement: &Announcement) {
        self.0.lock().unwrap().push(announcement.clone());
    }
}

struct World {
    store: Arc<MemoryStore>,
    directory: Current,
    reputation: Arc<Reputation>,
    applier: Applier,
    told: Arc<Told>,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let (declared, _): (Declared, _) = bulkhead::config::read_tenants("tenants.toml", TENANTS).unwrap();
        let nobody = tenants::load(&*store).await.unwrap();
        let changes = tenants::differences(&nobody, &declared, false).unwrap();
        tenants::apply(&*store, &changes, &[]).await.unwrap();
        Self::on(store).await
    }

    /// As after a restart on the same store.
    async fn on(store: Arc<MemoryStore>) -> Self {
        let directory: Current = Arc::new(ArcSwap::from_pointee(tenants::load(&*store).await.unwrap()));
        let told = Arc::new(Told::default());
        let means = Means {
            store: Arc::clone(&store) as _,
            directory: Arc::clone(&directory),
            changing: Changing::default(),
            tally: Arc::new(Tally::default()),
            clock: Arc::new(MachineClock),
            random: Arc::new(MachineRandom),
            announce: Arc::clone(&told) as _,
        };
        let reputation = Reputation::open(means, Rules::default()).await.unwrap();
        let hearing = Hearing::default();
        hearing.set(Arc::clone(&reputation) as _).ok().unwrap();
        let applier = Applier::new(store.clone(), directory.clone(), Arc::new(MachineClock), "n1".into());
        Self { store, directory, reputation, applier: applier.heard_by(hearing), told }
    }

    /// SES says this of its tenant at a second of the day.
    async fn says(&self, ses_tenant: &str, status: &str, second: u32) {
        let body = format!(
            r#"{{"version":"0","id":"{ses_tenant}-{status}-{second}","detail-type":"Sending Status {}","source":"aws.ses",
            "account":"000000000000","time":"2026-11-20T10:00:{second:02}Z","region":"eu-west-1",
            "resources":["arn:aws:ses:eu-west-1:000000000000:tenant/{ses_tenant}/tn-0123"],
            "detail":{{"version":"1.0.0","data":{{"origin":"AWS_MANAGED","record":{{"status":"{status}",
            "cause":"bounce rate","lastUpdatedTimestamp":[2026,11,20,10,0,{second},0]}}}}}}}}"#,
            if status == "DISABLED" { "Disabled" } else { "Enabled" },
        );
        let notice = parse(body.as_bytes()).unwrap();
        assert_eq!(self.applier.apply(vec![("n".into(), notice)]).await, [Outcome::Noted]);
        self.reputation.look(false).await.unwrap();
    }

    /// What a tenant's mail meets at MAIL and when its turn comes.
    fn meets(&self, tenant: &str) -> Option<&'static str> {
        let directory = self.directory.load();
        let tenant = directory.tenant(&TenantId::parse(tenant).unwrap()).unwrap();
        let login = bulkhead::mail::Login {
            tenant: tenant.id.clone(),
            credential: "app".parse().unwrap(),
            stream: None,
            secret_fingerprint: 0,
        };
        let at_mail = decide::sender(tenant, &login, &ReversePath::Null).into_result().err();
        let held = decide::leaving(Some(tenant), &StreamId::parse("main").unwrap()).into_result().err();
        let name = |stop: Option<Stop>| {
            stop.map(|stop| match stop {
                Stop::Defer(reason @ Reason::SesTenantDisabled(_), None) => reason.name(),
                other => panic!("{other:?}"),
            })
        };
        let (at_mail, held) = (name(at_mail), name(held));
        assert_eq!(at_mail, held);
        held
    }

    fn told(&self) -> Vec<(String, Kind)> {
        let told = self.told.0.lock().unwrap();
        told.iter().map(|one| (one.tenant.as_ref().unwrap().to_string(), one.kind)).collect()
    }
}

#[tokio::test]
async fn what_ses_says_of_its_tenant_holds_that_tenant_alone() {
    let world = World::new().await;
    assert_eq!(world.meets("acme"), None);
    world.says("acme-at-ses", "DISABLED", 10).await;
    assert_eq!((world.meets("acme"), world.meets("other")), (Some("ses_tenant_disabled"), None));
    // EventBridge keeps no order: what SES said before that changes nothing, nor does hearing it again.
    world.says("acme-at-ses", "REINSTATED", 5).await;
    world.says("acme-at-ses", "DISABLED", 10).await;
    assert_eq!(world.meets("acme"), Some("ses_tenant_disabled"));
    let acme = |n| vec![("acme".to_owned(), Kind::SesTenantChanged); n];
    assert_eq!(world.told(), acme(1), "told once");
    let rows = world.store.scan(&Key::announcements(), None, 10).await.unwrap();
    assert_eq!(rows.len(), 1, "and whoever tells finds it after a crash");

    let again = World::on(Arc::clone(&world.store)).await;
    assert_eq!((again.meets("acme"), again.meets("other")), (Some("ses_tenant_disabled"), None));
    again.says("acme-at-ses", "REINSTATED", 20).await;
    assert_eq!(again.meets("acme"), None);
    assert_eq!(again.told(), acme(1));
    again.says("nobodys", "DISABLED", 30).await;
    assert_eq!((again.meets("acme"), again.meets("other")), (None, None));
}
