//! Two tenants in one house: the relay on TLS, the real AWS SDK, the sandbox in this process, the
//! store on sled, and ingest on the sandbox's queue.
//!
//! acme (A) and bravo (B) have a transactional and a marketing stream each, a domain each, and
//! share `vendor.example`. acme may also send as the one address `billing@acme.test`.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use bulkhead::adapters::clock::{MachineClock, MachineRandom};
use bulkhead::adapters::ses::{self, Credentials, SesMailer, sdk_config};
use bulkhead::adapters::sled::SledStore;
use bulkhead::adapters::spool::{self, FileSpool};
use bulkhead::adapters::sqs::SqsNotices;
use bulkhead::adapters::tls::{CaPem, Certificates, self_signed};
use bulkhead::dispatch::waits::Waits;
use bulkhead::dispatch::{self, Dispatch};
use bulkhead::ingest::{self, Ingest};
use bulkhead::mail::{Mailbox, StreamId, TenantId};
use bulkhead::outbox::{self, Bounds, Outbox};
use bulkhead::policy::tenant::{FanOut, Pause, SenderPattern, Suppression, SuppressionReason, Tenant};
use bulkhead::relay::{Limits, Listener, Means, Options, Relay, Tls};
use bulkhead::sandbox::fault::Faults;
use bulkhead::sandbox::inbox::{Inbox, Message};
use bulkhead::sandbox::sqs::EventQueue;
use bulkhead::sandbox::{self, Sandbox};
use bulkhead::secret::Secret;
use bulkhead::smtp::Terms;
use bulkhead::store::credential::Credential;
use bulkhead::store::directory::{Current, Directory};
use bulkhead::store::suppressions;
use bulkhead::store::tally::Tally;
use bulkhead::time::Clock as _;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{Client, bounds, clients_of, code, credential, hash, journal, limits, long_ago, tenant, terms};

/// bravo's secret; acme's is another.
pub const SECRET: &str = "bh_bravo-knows-this-one";
pub const SECRET_OF_ACME: &str = "bh_only-acme-knows-this";

pub struct House {
    pub starttls: SocketAddr,
    pub implicit: SocketAddr,
    pub ca: CaPem,
    pub inbox: Arc<Inbox>,
    pub faults: Arc<Faults>,
    pub queue: Arc<EventQueue>,
    pub store: Arc<SledStore>,
    pub directory: Current,
    pub tenants: Vec<Tenant>,
    pub credentials: Vec<Credential>,
    pub outbox: Arc<Outbox>,
    _drain: DropGuard,
    _folder: tempfile::TempDir,
}

/// What a house is like, to be changed before it is built.
pub struct Plan {
    pub terms: Terms,
    pub limits: Limits,
    pub mailer: ses::Options,
    pub dispatch: dispatch::Options,
    /// What the outbox holds at most.
    pub bounds: Bounds,
    /// The names of the two tenants.
    pub names: [String; 2],
}

impl Plan {
    /// Nothing that is held waits for anything but its turn.
    pub fn without_waits(mut self) -> Self {
        self.dispatch.waits = Waits {
            throttle_first: Duration::ZERO,
            throttle_most: Duration::ZERO,
            quota: Duration::ZERO,
            retry_first: Duration::ZERO,
            retry_most: Duration::ZERO,
            outage_most: Duration::ZERO,
            operator_first: Duration::ZERO,
            operator_most: Duration::ZERO,
            unknown: Duration::ZERO,
        };
        self
    }

    /// Both tenants with names of their own, for the journal is one for all tests of a process.
    pub fn named(a: &str, b: &str) -> Self {
        Self {
            terms: Terms { auth_delay: Duration::from_millis(1), ..terms() },
            limits: limits(),
            mailer: ses::Options::default(),
            dispatch: dispatch::Options::default(),
            bounds: bounds(),
            names: [a.into(), b.into()],
        }
    }
}

impl House {
    pub async fn build(plan: Plan) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        journal();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        let clock = Arc::new(MachineClock);
        let random = Arc::new(MachineRandom);
        let drain = CancellationToken::new();

        let sandbox_options = sandbox::Options::new(clock.clone(), random.clone());
        let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), sandbox_options).await.unwrap();
        let (url, queue_url) = (sandbox.url(), sandbox.queue_url());
        let (inbox, faults, queue) = (sandbox.messages(), sandbox.faults(), sandbox.queue());
        tokio::spawn(sandbox.run(drain.clone()));

        let keys =
            Credentials::Static { access_key_id: "test".into(), secret_access_key: Secret::new(b"test".to_vec()) };
        let aws = sdk_config(Some("eu-west-1".into()), keys).await;
        let endpoint_url = plan.mailer.endpoint_url.clone().unwrap_or_else(|| url.clone());
        let mailer = SesMailer::new(&aws, ses::Options { endpoint_url: Some(endpoint_url), ..plan.mailer });

        let [a, b] = &plan.names;
        let tenants = vec![shared(tenant(a), a), shared(tenant(b), "bravo")];
        let credentials = vec![
            credential(a, "app", None, vec![hash(SECRET_OF_ACME)]),
            credential(b, "app", None, vec![hash(SECRET)]),
            credential(b, "bound", Some("transactional"), vec![hash(SECRET)]),
            credential(b, "passing", None, vec![hash(SECRET)]),
            Credential {
                from_ip: vec!["192.0.2.0/24".parse().unwrap()],
                ..credential(b, "elsewhere", None, vec![hash(SECRET)])
            },
            Credential { expires: Some(long_ago()), ..credential(b, "expired", None, vec![hash(SECRET)]) },
        ];
        let directory: Current = Arc::new(ArcSwap::from_pointee(Directory::new(tenants.clone(), credentials.clone())));
        let tally = Arc::new(Tally::default());
        let ingest = Ingest::new(
            Arc::clone(&store) as _,
            Arc::clone(&directory),
            Arc::new(SqsNotices::new(&aws, Some(url), queue_url)),
            clock.clone(),
            random.clone(),
            tally.clone(),
            ingest::Options { pollers: 1, wait: Duration::from_secs(1), node: "test".into() },
        );
        tokio::spawn(ingest.run(drain.clone()));

        let (ca, certificate, key) = self_signed(&["relay.example".into()]).unwrap();
        let certificates = Certificates::from_pem(&certificate, &key, clock.clone()).unwrap();
        let spool = Arc::new(FileSpool::open(folder.path(), spool::Options { writers: 4 }).unwrap());
        let outbox = outbox::Options { bounds: plan.bounds, disk_reserve_bytes: 0 };
        let opened = Outbox::open(Arc::clone(&store) as _, spool, "test", outbox, clock.now(), Duration::ZERO).await;
        let outbox = opened.unwrap().0;
        let dispatch = Dispatch::new(
            dispatch::Means {
                outbox: Arc::clone(&outbox),
                mailer: Arc::new(mailer),
                store: Arc::clone(&store) as _,
                directory: Arc::clone(&directory),
                clock: clock.clone(),
                random: random.clone(),
                tally,
            },
            plan.dispatch,
            &[],
        );
        tokio::spawn(Arc::clone(&dispatch).run(drain.clone(), drain.clone(), Duration::ZERO));
        let means = Means {
            store: Arc::clone(&store) as _,
            store_available: Arc::new(|| true),
            directory: Arc::clone(&directory),
            dispatch,
            acceptor: Some(Arc::new(certificates)),
            clock,
            random,
        };
        let listener = |tls| Listener { address: "127.0.0.1:0".parse().unwrap(), tls, trusted_proxies: None };
        let listeners = vec![listener(Tls::Starttls), listener(Tls::Implicit)];
        let relay = Relay::bind(means, Options { terms: plan.terms, listeners, limits: plan.limits }).await.unwrap();
        let addresses = relay.addresses();
        clients_of(&addresses, 1000 + NUMBER.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(relay.run(drain.clone()));
        Self {
            starttls: addresses[0],
            implicit: addresses[1],
            ca,
            inbox,
            faults,
            queue,
            store,
            directory,
            tenants,
            credentials,
            outbox,
            _drain: drain.drop_guard(),
            _folder: folder,
        }
    }

    fn publish(&self, tenants: Vec<Tenant>, credentials: Vec<Credential>) {
        self.directory.store(Arc::new(Directory::new(tenants, credentials)));
    }

    /// Everything as it was built.
    pub fn restore(&self) {
        self.publish(self.tenants.clone(), self.credentials.clone());
    }

    /// Without that credential.
    pub fn revoke(&self, username: &str) {
        let mut credentials = self.credentials.clone();
        credentials.retain(|credential| credential.username.as_str() != username);
        self.publish(self.tenants.clone(), credentials);
    }

    /// With that tenant, or a stream of it, paused.
    pub fn pause(&self, tenant: usize, stream: Option<&str>) {
        let mut tenants = self.tenants.clone();
        let pause = Some(Pause { at: long_ago(), actor: "test".into(), reason: "a test".into() });
        match stream {
            Some(stream) => {
                tenants[tenant].streams.get_mut(&StreamId::parse(stream).unwrap()).unwrap().pause = pause;
            }
            None => tenants[tenant].pause = pause,
        }
        self.publish(tenants, self.credentials.clone());
    }

    /// With that stream sent in batches.
    pub fn batch(&self, tenant: usize, stream: &str) {
        let mut tenants = self.tenants.clone();
        tenants[tenant].streams.get_mut(&StreamId::parse(stream).unwrap()).unwrap().fan_out = FanOut::Batch;
        self.publish(tenants, self.credentials.clone());
    }

    /// A client in TLS that has said EHLO.
    pub async fn client(&self) -> Client {
        let mut client = Client::implicit(self.implicit, &self.ca).await.unwrap();
        assert_eq!(code(&client.say("EHLO client.example").await), 250);
        client
    }

    /// A client that is logged in.
    pub async fn login(&self, username: &str, secret: &str) -> Client {
        let mut client = Client::implicit(self.implicit, &self.ca).await.unwrap();
        let reply = client.login(username, secret).await;
        assert_eq!(code(&reply), 235, "{username}: {reply}");
        client
    }

    pub async fn suppress(&self, tenant: &str, mailbox: &str, reason: SuppressionReason) {
        let entry = Suppression { reason, origin: "test".into(), at: long_ago(), expires: None, actor: "test".into() };
        suppressions::add(&*self.store, &TenantId::parse(tenant).unwrap(), &address(mailbox), &entry).await.unwrap();
    }

    pub async fn is_suppressed(&self, tenant: &str, mailbox: &str) -> bool {
        let tenant = TenantId::parse(tenant).unwrap();
        !suppressions::find(&*self.store, &tenant, &address(mailbox)).await.unwrap().is_empty()
    }

    /// What SES got since `before`.
    pub fn since(&self, before: usize) -> Vec<Arc<Message>> {
        self.inbox.all().split_off(before)
    }
}

fn shared(mut tenant: Tenant, name: &str) -> Tenant {
    tenant.senders.push(SenderPattern::parse("vendor.example").unwrap());
    if name == "acme" {
        tenant.senders.push(SenderPattern::parse("billing@acme.test").unwrap());
    }
    tenant
}

pub fn address(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

pub fn base64(octets: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(octets)
}
