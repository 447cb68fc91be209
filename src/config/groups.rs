//! The groups of settings: what each is, and how its section is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::file::Section;
use super::value;
use crate::journal::Addresses;
use crate::mail::{ConfigurationSet, Mailbox};
use crate::policy::exposure;
use crate::policy::reputation::{Ceilings, Lines, Rules};
use crate::policy::run;
use crate::policy::tenant::{Stream, StreamKind};

/// SES takes 40 MiB (SES developer guide, quotas); the rest is for the fields we add.
pub const LARGEST_MESSAGE_BYTES: u64 = 40 * 1024 * 1024 - 64 * 1024;

/// Two weeks. What was held for longer is no news to anybody.
pub const LARGEST_AGE_HOURS: u64 = 14 * 24;

/// Recipients in 24 hours that SES may be said to take.
const LARGEST_DAILY_SEND: u32 = 1_000_000_000;
/// As many soft bounces of a run as are remembered.
const LONGEST_RUN: u64 = run::LONGEST as u64;

/// Recipients a second that SES may be said to take.
const LARGEST_SEND_RATE: u32 = 100_000;

/// One listening socket.
#[derive(Clone, PartialEq, Debug)]
pub struct Listener {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether and when TLS begins.
    pub tls: Tls,
    /// `tls = "none"` is meant, although the address is no loopback one.
    pub allow_insecure: bool,
    /// Connections begin with a PROXY protocol header, v1 or v2.
    pub proxy_protocol: bool,
    /// Who may send that header; not empty where `proxy_protocol` is set.
    pub trusted_proxies: Vec<IpNet>,
}

/// When TLS begins on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// With STARTTLS (RFC 3207).
    Starttls,
    /// With the first octet (RFC 8314).
    Implicit,
    /// Never.
    None,
}

/// The PEM files of the listeners' certificate.
#[derive(Clone, PartialEq, Debug)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub private_key_file: PathBuf,
}

/// Bounds. Fields are the keys of `[limits]`; what they bound stands in `config/bulkhead.toml`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Limits {
    pub message_bytes: usize,
    pub header_bytes: usize,
    pub header_fields: usize,
    pub line_bytes: usize,
    pub recipients: usize,
    pub received_hops: usize,
    pub memory_bytes: usize,
    pub memory_wait_seconds: Duration,
    pub call_bytes: usize,
    pub call_wait_seconds: Duration,
    pub calls_per_message: usize,
    pub connections: usize,
    pub refusals: usize,
    pub connections_per_ip: usize,
    pub connections_per_tenant: usize,
    pub handshakes: usize,
    pub messages_per_connection: usize,
    pub command_bytes: usize,
    pub auth_bytes: usize,
    pub errors: usize,
    pub commands_before_login: usize,
    pub auth_failures: usize,
    pub auth_delay_seconds: Duration,
    pub auth_delay_longest_seconds: Duration,
    pub auth_verifications: usize,
    pub auth_wait_seconds: Duration,
    pub auth_cache_entries: usize,
    pub auth_cache_seconds: Duration,
    pub proxy_seconds: Duration,
    pub handshake_seconds: Duration,
    pub command_seconds: Duration,
    pub command_seconds_unauthenticated: Duration,
    pub data_seconds: Duration,
    pub data_rate_bytes_per_second: usize,
    pub data_grace_seconds: Duration,
    pub write_seconds: Duration,
    pub linger_seconds: Duration,
    pub drain_seconds: Duration,
}

/// SES and SQS. Fields are the keys of `[aws]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Aws {
    pub region: Option<String>,
    pub ses_endpoint_url: Option<String>,
    pub sqs_endpoint_url: Option<String>,
    pub calls_in_flight: usize,
    pub bytes_in_flight: usize,
    pub call_seconds: Duration,
    pub large_call_seconds: Duration,
    pub call_wait_seconds: Duration,
    pub max_send_rate: Option<f64>,
    pub max_24_hour_send: Option<f64>,
    pub quota_reserve_percent: usize,
}

/// Messages that are held until SES takes them. Fields are the keys of `[outbox]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Outbox {
    pub messages: usize,
    pub messages_per_tenant: usize,
    pub bytes_per_tenant: usize,
    pub disk_reserve_bytes: usize,
    pub spill_bytes: usize,
    pub writers: usize,
    pub calls_in_flight: usize,
    pub calls_per_stream: usize,
    pub bytes_in_flight: usize,
    pub data_deadline_seconds: Duration,
    pub dedupe_window_seconds: Duration,
    pub dedupe_entries: usize,
    pub lease_seconds: Duration,
    pub unknown_wait_seconds: Duration,
    pub retry_first_seconds: Duration,
    pub retry_longest_seconds: Duration,
    pub throttle_first_seconds: Duration,
    pub throttle_longest_seconds: Duration,
    pub quota_wait_seconds: Duration,
    pub operator_first_seconds: Duration,
    pub operator_longest_seconds: Duration,
    pub max_age_transactional_hours: Duration,
    pub max_age_bulk_hours: Duration,
    pub max_age_marketing_hours: Duration,
}

/// The relay's own mail and its webhook. Fields are the keys of `[notify]`; of sender and configuration
/// set both are there, or neither, and so of the webhook's URL and secret.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Notify {
    pub from: Option<Mailbox>,
    pub configuration_set: Option<ConfigurationSet>,
    pub operator: Option<Mailbox>,
    pub mails_per_hour: usize,
    pub announcements: usize,
    pub webhook_url: Option<String>,
    pub webhook_secret_file: Option<PathBuf>,
    pub webhook_seconds: Duration,
    pub webhook_private: bool,
}

/// The local store. Fields are the keys of `[store]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Store {
    pub cache_bytes: usize,
}

/// The audit trail. Fields are the keys of `[audit]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Audit {
    pub days: usize,
}

/// SES's events. Fields are the keys of `[events]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Events {
    pub queue_url: Option<String>,
    pub pollers: usize,
    pub wait_seconds: Duration,
    pub ledger_days: usize,
    pub counter_days: usize,
    pub domains_per_day: usize,
}

/// When standing changes. Fields are the keys of `[reputation]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Reputation {
    pub rules: Rules,
}

/// What is watched for. Fields are the keys of `[watch]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Watch {
    pub stolen_credentials: Stolen,
    pub first_time_percent: usize,
    pub usual_first_time_percent: usize,
    pub first_time_least_recipients: usize,
    pub network_days: usize,
    pub jump_times: f64,
    pub jump_least_recipients: usize,
    pub again_hours: Duration,
    pub volume_times: f64,
    pub volume_least_recipients: usize,
    pub credentials: usize,
    pub memory_bytes: usize,
    pub filter_bytes: usize,
    pub waiting_recipients: usize,
    pub flush_seconds: Duration,
}

/// What follows where a credential seems stolen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stolen {
    /// It is told.
    Alert,
    /// The credential is put on hold as well.
    Hold,
    /// Nobody looks.
    Off,
}

/// The exposure window. Fields are the keys of `[exposure]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Exposure {
    pub start_recipients: usize,
    pub floor_recipients: usize,
    pub open_recipients: usize,
    pub horizon_seconds: Duration,
    pub settled_days: usize,
    pub settled_recipients: usize,
}

/// Tenants' suppression lists. Fields are the keys of `[suppression]`.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each has its sentence where it is read")]
pub struct Suppression {
    pub soft_bounces: usize,
    pub soft_days: usize,
    pub ses_sync: SesSync,
    pub ses_sync_hours: Duration,
}

/// What is kept equal with Amazon SES's own suppression lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SesSync {
    /// Nothing.
    Off,
    /// What is on SES's lists is on ours.
    Pull,
    /// That, and what is on a tenant's list is on SES's list of its SES tenant.
    Both,
}

/// The admin address.
#[derive(Clone, PartialEq, Debug)]
pub struct Admin {
    /// Where health and metrics answer; port 0 takes a free one.
    pub address: SocketAddr,
    /// An address that is no loopback one is meant.
    pub allow_insecure: bool,
}

/// The journal.
#[derive(Clone, PartialEq, Debug)]
pub struct Log {
    /// How lines look.
    pub format: Format,
    /// How addresses show.
    pub recipients: Addresses,
    /// A level, or directives such as `warn,bulkhead=info`.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Listener {
    /// The listeners of a file that has none.
    pub(super) const DEFAULTS: [(&'static str, Tls); 2] =
        [("0.0.0.0:587", Tls::Starttls), ("0.0.0.0:465", Tls::Implicit)];

    pub(super) fn all(top: &mut Section<'_>) -> Option<Vec<Self>> {
        let written = top.tables("listener");
        let mut listeners = Vec::new();
        if written.is_empty() {
            for (number, (address, tls)) in Self::DEFAULTS.into_iter().enumerate() {
                listeners.push(Self::of(top.absent("listener", number), Some(address), tls));
            }
        } else {
            listeners.extend(written.into_iter().map(|section| Self::of(section, None, Tls::Starttls)));
        }
        while let Some(section) = top.unwritten("listener", listeners.len()) {
            listeners.push(Self::of(section, None, Tls::Starttls));
        }
        listeners.into_iter().collect()
    }

    fn of(mut section: Section<'_>, address: Option<&'static str>, tls: Tls) -> Option<Self> {
        section.declare_section(
            "A socket clients connect to; there may be several. Where a file has any, these two defaults do not apply.",
        );
        let address = section.text_or_missing(
            "address",
            address,
            "0.0.0.0:587",
            value::socket,
            "Where it listens: IP address and port. [::]:587 takes IPv6 alone.",
        );
        let tls = section.choice("tls", tls, &[("starttls", Tls::Starttls), ("implicit", Tls::Implicit), ("none", Tls::None)],
            "When TLS begins: after STARTTLS, at once, or never. AUTH is taken under TLS alone, except on a listener that has none.");
        let allow_insecure = section.flag("allow_insecure", false,
            "Allows tls = \"none\" on an address that is not a loopback one: passwords and mail then cross the network unprotected.");
        let proxy_protocol = section.flag(
            "proxy_protocol",
            false,
            "Connections begin with a PROXY protocol header (v1 or v2), which has the client's address.",
        );
        let trusted_proxies = section.texts(
            "trusted_proxies",
            value::network,
            "Networks that may connect where proxy_protocol is on, and whose headers are believed, as [\"10.0.0.0/8\"].",
        );
        section.end();
        Some(Self { address: address?, tls, allow_insecure, proxy_protocol, trusted_proxies })
    }
}

impl CertificateFiles {
    pub(super) fn of(mut section: Section<'_>) -> Option<Self> {
        let certificate_file = section.text("certificate_file", "certs/relay.pem", value::path,
            "PEM file of the certificate chain, the relay's own certificate first. certs/make.sh makes one for development.");
        let private_key_file = section.text(
            "private_key_file",
            "certs/relay.key",
            value::path,
            "PEM file of the certificate's private key. Nobody but the relay should be able to read it.",
        );
        section.end();
        Some(Self { certificate_file: certificate_file?, private_key_file: private_key_file? })
    }
}

impl Limits {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let limits = Self {
            message_bytes: s.whole("message_bytes", 26_214_400, 1_024..=LARGEST_MESSAGE_BYTES,
                "Largest message in octets, as it is sent (attachments in base64): EHLO's SIZE, else 552. SES takes 40 MiB."),
            header_bytes: s.whole("header_bytes", 262_144, 4_096..=1_048_576,
                "Largest header section of a message in octets, else 554."),
            header_fields: s.whole("header_fields", 1_000, 50..=10_000,
                "Most header fields of a message, else 554."),
            line_bytes: s.whole("line_bytes", 1_000, 1_000..=1_000_000,
                "Longest line of a message in octets with its CRLF, else 554, in its header section too. RFC 5321 has 1000."),
            recipients: s.whole("recipients", 50, 1..=1_000,
                "Most recipients of a message, else 452; the client sends the others as another message. RFC 5321 wants 100 of a server on the open internet; SES has 50 for one call."),
            received_hops: s.whole("received_hops", 50, 10..=500,
                "Most Received fields of a message: more is a loop, 554."),
            memory_bytes: s.whole("memory_bytes", 536_870_912, 1_048_576..=1_099_511_627_776,
                "Octets of messages held in memory at once, over all connections; what is over it hears 452."),
            memory_wait_seconds: s.seconds("memory_wait_seconds", 5, 0..=60,
                "Time a message waits for room under memory_bytes before it hears 452."),
            call_bytes: s.whole("call_bytes", 268_435_456, 1_048_576..=1_099_511_627_776,
                "Octets of the copies of messages that are made for SES, over all connections; a larger message goes alone."),
            call_wait_seconds: s.seconds("call_wait_seconds", 60, 0..=600,
                "Time a message waits for room under call_bytes before it is held."),
            calls_per_message: s.whole("calls_per_message", 8, 1..=1_000,
                "SendEmail calls of one message at once."),
            connections: s.whole("connections", 1_000, 1..=100_000,
                "Open connections, over all listeners; the next hears 421. Each takes a file descriptor."),
            refusals: s.whole("refusals", 256, 0..=100_000,
                "Connections over a bound that are told so at once; others are closed without a word."),
            connections_per_ip: s.whole("connections_per_ip", 50, 1..=100_000,
                "Open connections of one IPv4 address or one IPv6 /64."),
            connections_per_tenant: s.whole("connections_per_tenant", 20, 1..=100_000,
                "Open connections that are logged in as one tenant."),
            handshakes: s.whole("handshakes", 1_000, 1..=10_000,
                "TLS handshakes under way at once; others wait their turn within handshake_seconds."),
            messages_per_connection: s.whole("messages_per_connection", 1_000, 1..=1_000_000,
                "Messages of one connection, then 421; the client connects anew."),
            command_bytes: s.whole("command_bytes", 2_048, 512..=65_536,
                "Longest command line in octets with its CRLF, else 500."),
            auth_bytes: s.whole("auth_bytes", 12_288, 1_024..=65_536,
                "Longest line of an AUTH exchange in octets (RFC 4954 has 12288), else 500."),
            errors: s.whole("errors", 10, 1..=1_000,
                "Commands refused for their form on one connection, then 421."),
            commands_before_login: s.whole("commands_before_login", 100, 5..=10_000,
                "Commands of a connection before its login, then 421. An honest client needs five."),
            auth_failures: s.whole("auth_failures", 3, 1..=100,
                "Refused logins on one connection, then 421."),
            auth_delay_seconds: s.seconds("auth_delay_seconds", 1, 0..=60,
                "Wait before the answer to the first refused login; it doubles with each."),
            auth_delay_longest_seconds: s.seconds("auth_delay_longest_seconds", 60, 0..=300,
                "Longest such wait."),
            auth_verifications: s.whole("auth_verifications", 2, 1..=64,
                "Chosen passwords (argon2id) verified at once. Each may take a processor and 64 MiB while it lasts."),
            auth_wait_seconds: s.seconds("auth_wait_seconds", 5, 0..=60,
                "Time a login waits for its verification to begin before it hears 454."),
            auth_cache_entries: s.whole("auth_cache_entries", 10_000, 1..=1_000_000,
                "Verified chosen passwords that are remembered, so that argon2id need not run for each login."),
            auth_cache_seconds: s.seconds("auth_cache_seconds", 300, 1..=86_400,
                "Time for which each is remembered; revoking and rotating forget it at once."),
            proxy_seconds: s.seconds("proxy_seconds", 5, 1..=60,
                "Time for a PROXY header."),
            handshake_seconds: s.seconds("handshake_seconds", 10, 1..=300,
                "Time for a TLS handshake."),
            command_seconds: s.seconds("command_seconds", 300, 5..=3_600,
                "Time for a client's next command, to the end of its line, after login (RFC 5321 has 5 minutes)."),
            command_seconds_unauthenticated: s.seconds("command_seconds_unauthenticated", 60, 1..=3_600,
                "The same before login."),
            data_seconds: s.seconds("data_seconds", 600, 10..=7_200,
                "Time for the whole of one message's data."),
            data_rate_bytes_per_second: s.whole("data_rate_bytes_per_second", 512, 0..=1_048_576,
                "Least average rate of a message's data after data_grace_seconds; slower senders are cut off. 0: no such bound."),
            data_grace_seconds: s.seconds("data_grace_seconds", 30, 0..=600,
                "Time for which a message's data may come as slowly as it likes."),
            write_seconds: s.seconds("write_seconds", 60, 1..=600,
                "Time for a client to take the replies of one write; then the connection is closed."),
            linger_seconds: s.seconds("linger_seconds", 2, 0..=30,
                "Time a closed connection is still listened to, so that its last reply arrives."),
            drain_seconds: s.seconds("drain_seconds", 20, 1..=900,
                "Time to finish what is under way after SIGTERM; then connections are closed. All that comes after takes up to 9 seconds more."),
        };
        section.end();
        limits
    }
}

impl Aws {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let aws = Self {
            region: s.optional(
                "region",
                "eu-central-1",
                value::region,
                "Region of SES and SQS. Without it the SDK's chain decides: AWS_REGION, the profile, the instance.",
            ),
            ses_endpoint_url: s.optional(
                "ses_endpoint_url",
                "http://127.0.0.1:9025",
                value::url,
                "Another SES endpoint: a sandbox, a VPC endpoint. AWS_ENDPOINT_URL_SESV2 works too.",
            ),
            sqs_endpoint_url: s.optional(
                "sqs_endpoint_url",
                "http://127.0.0.1:9025",
                value::url,
                "Another SQS endpoint. AWS_ENDPOINT_URL_SQS works too.",
            ),
            calls_in_flight: s.whole("calls_in_flight", 64, 1..=10_000, "SendEmail calls under way at once."),
            bytes_in_flight: s.whole(
                "bytes_in_flight",
                134_217_728,
                1_048_576..=1_099_511_627_776,
                "Octets held by SendEmail calls under way at once; a message counts four times, for its encodings, and a larger one goes alone.",
            ),
            call_seconds: s.seconds("call_seconds", 30, 1..=300, "Time for a SendEmail call of a message up to 5 MiB."),
            large_call_seconds: s.seconds("large_call_seconds", 60, 1..=900, "The same for a larger message."),
            call_wait_seconds: s.seconds(
                "call_wait_seconds",
                10,
                0..=300,
                "Time a message waits for its turn under the two bounds above; then it is held.",
            ),
            max_send_rate: s.optional_above_zero(
                "max_send_rate",
                14,
                LARGEST_SEND_RATE,
                "Recipients a second that SES takes from this account. Without it GetAccount is asked.",
            ),
            max_24_hour_send: s.optional_above_zero(
                "max_24_hour_send",
                50_000,
                LARGEST_DAILY_SEND,
                "Recipients in 24 hours that SES takes from this account. Without it GetAccount is asked.",
            ),
            quota_reserve_percent: s.whole(
                "quota_reserve_percent",
                5,
                0..=50,
                "The last part of these, in percent, that is kept for transactional mail.",
            ),
        };
        section.end();
        aws
    }
}

impl Outbox {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let outbox = Self {
            messages: s.whole("messages", 200_000, 1..=10_000_000,
                "Most messages held at once; the next hears 452."),
            messages_per_tenant: s.whole("messages_per_tenant", 50_000, 1..=10_000_000,
                "Most of them of one tenant."),
            bytes_per_tenant: s.whole("bytes_per_tenant", 10_737_418_240, 1_048_576..=1_099_511_627_776,
                "Octets of one tenant's held messages; what is over it hears 452."),
            disk_reserve_bytes: s.whole("disk_reserve_bytes", 1_073_741_824, 0..=1_099_511_627_776,
                "Free octets of the data folder's disk that are left alone: where holding a message would take of them, it hears 452."),
            spill_bytes: s.whole("spill_bytes", 1_048_576, 65_536..=1_099_511_627_776,
                "A message larger than this goes to a file while it arrives, instead of growing in memory."),
            writers: s.whole("writers", 32, 1..=256,
                "Body files written at once."),
            calls_in_flight: s.whole("calls_in_flight", 32, 1..=10_000,
                "SendEmail calls of held messages under way at once."),
            calls_per_stream: s.whole("calls_per_stream", 8, 1..=10_000,
                "Most of them of one stream."),
            bytes_in_flight: s.whole("bytes_in_flight", 67_108_864, 1_048_576..=1_099_511_627_776,
                "Octets of held messages being sent at once; a larger one goes alone."),
            data_deadline_seconds: s.seconds("data_deadline_seconds", 25, 1..=600,
                "Time from the end of a message's data to its reply: where SES has not answered by then, the message is held."),
            dedupe_window_seconds: s.seconds("dedupe_window_seconds", 600, 0..=86_400,
                "A client that sends the same message again within this time hears the first answer, and SES gets it once. 0: off."),
            dedupe_entries: s.whole("dedupe_entries", 100_000, 1..=10_000_000,
                "Answers remembered for that."),
            lease_seconds: s.seconds("lease_seconds", 300, 1..=3_600,
                "After a crash, a message whose call was under way is tried again after this time at most."),
            unknown_wait_seconds: s.seconds("unknown_wait_seconds", 60, 0..=3_600,
                "Wait before a message is sent again that SES may have already."),
            retry_first_seconds: s.seconds("retry_first_seconds", 30, 1..=86_400,
                "First wait while SES is in trouble or out of reach; it grows with each try."),
            retry_longest_seconds: s.seconds("retry_longest_seconds", 1_800, 1..=86_400,
                "Longest such wait."),
            throttle_first_seconds: s.seconds("throttle_first_seconds", 1, 1..=3_600,
                "First wait where SES says that mail comes too fast; it grows with each try."),
            throttle_longest_seconds: s.seconds("throttle_longest_seconds", 60, 1..=3_600,
                "Longest such wait."),
            quota_wait_seconds: s.seconds("quota_wait_seconds", 600, 1..=86_400,
                "Wait after SES's \"Daily message quota exceeded\"."),
            operator_first_seconds: s.seconds("operator_first_seconds", 60, 1..=86_400,
                "First wait where an operator must mend something: credentials, permissions, a missing configuration set; it grows with each try."),
            operator_longest_seconds: s.seconds("operator_longest_seconds", 900, 1..=86_400,
                "Longest such wait."),
            max_age_transactional_hours: s.hours("max_age_transactional_hours", 48, 1..=LARGEST_AGE_HOURS,
                "Time after which a held message of a transactional stream expires; a stream may have its own."),
            max_age_bulk_hours: s.hours("max_age_bulk_hours", 24, 1..=LARGEST_AGE_HOURS,
                "The same of a bulk stream."),
            max_age_marketing_hours: s.hours("max_age_marketing_hours", 24, 1..=LARGEST_AGE_HOURS,
                "The same of a marketing stream."),
        };
        section.end();
        outbox
    }

    /// Time after which a held message of `stream` expires: its own, else its kind's.
    pub fn max_age(&self, stream: &Stream) -> Duration {
        match (stream.max_age_hours, stream.kind) {
            (Some(hours), _) => Duration::from_hours(hours.into()),
            (None, StreamKind::Transactional) => self.max_age_transactional_hours,
            (None, StreamKind::Bulk) => self.max_age_bulk_hours,
            (None, StreamKind::Marketing) => self.max_age_marketing_hours,
        }
    }
}

impl Notify {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let notify = Self {
            from: section.optional(
                "from",
                "postmaster@relay.example.com",
                value::mailbox,
                "Mailbox that the relay's own mail comes from; its domain is an identity of SES. Needs configuration_set.",
            ),
            configuration_set: section.optional(
                "configuration_set",
                "bulkhead-notices",
                |text| value::id(text, ConfigurationSet::parse),
                "SES configuration set of the relay's own mail, apart from every stream's. Needs from.",
            ),
            operator: section.optional(
                "operator",
                "ops@example.com",
                value::mailbox,
                "Mailbox that is told of every brake, pause and alarm, over all tenants and the account. Needs from.",
            ),
            mails_per_hour: section.whole("mails_per_hour", 10, 1..=1_000,
                "Mails about such that a recipient, operator or tenant's contact, gets in an hour at the most; what is over comes together in one."),
            announcements: section.whole("announcements", 10_000, 100..=1_000_000,
                "Announcements that are still to be told to somebody, at the most; the oldest give way, and the log says so."),
            webhook_url: section.optional(
                "webhook_url",
                "https://hooks.example.com/bulkhead",
                value::webhook,
                "URL that the same is posted to, as JSON signed by Standard Webhooks. Needs webhook_secret_file.",
            ),
            webhook_secret_file: section.optional(
                "webhook_secret_file",
                "certs/webhook.secret",
                value::path,
                "File of the secret that signs it: whsec_ and the base64 of 24 to 64 octets. Needs webhook_url.",
            ),
            webhook_seconds: section.seconds("webhook_seconds", 10, 1..=60, "Time for one POST, to its answer."),
            webhook_private: section.flag(
                "webhook_private",
                false,
                "Allows a webhook_url that is not https://, or whose host has a private, loopback or otherwise special address.",
            ),
        };
        section.end();
        notify
    }
}

impl Store {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let cache_bytes = section.whole("cache_bytes", 268_435_456, 16_777_216..=1_099_511_627_776,
            "Octets of the store's pages that are kept in memory, about; up to two and a half times as many while it works. A million suppressions fit in 256 MiB; where they do not, a look-up of one reads the disk.");
        section.end();
        Self { cache_bytes }
    }
}

impl Audit {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let days = section.whole("days", 400, 1..=3_650, "Days for which an entry is kept.");
        section.end();
        Self { days }
    }
}

impl Events {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let events = Self {
            queue_url: s.optional("queue_url", "https://sqs.eu-central-1.amazonaws.com/123456789012/bulkhead-events", value::url,
                "URL of the SQS queue that SES's events reach through SNS or EventBridge. Without it none are read: bounces and complaints suppress nobody."),
            pollers: s.whole("pollers", 2, 1..=32, "Readers of the queue at once."),
            wait_seconds: s.seconds("wait_seconds", 20, 0..=20, "How long one read of the queue waits for a notice (SQS long polling)."),
            ledger_days: s.whole("ledger_days", 15, 15..=365,
                "Days for which an applied event is remembered, so that it counts once. SQS keeps a message for up to 14."),
            counter_days: s.whole("counter_days", 35, 8..=400,
                "Days for which the counters of an hour are kept."),
            domains_per_day: s.whole("domains_per_day", 200, 0..=2_000,
                "Recipient domains by which a tenant's mail of a day is counted one by one; all further ones are counted together."),
        };
        section.end();
        events
    }
}

impl Reputation {
    pub(super) fn of(section: Section<'_>) -> Self {
        Self::over(section, Rules::default())
    }

    /// What the section says, and where it says nothing, as it is `usual`.
    pub(super) fn over(mut section: Section<'_>, usual: Rules) -> Self {
        let s = &mut section;
        let rules = Rules {
            enforce: s.flag("enforce", usual.enforce,
                "False: standings are only logged, as would_…, and brake nobody. Tenants and streams may say so for themselves."),
            least_recipients: s.whole("least_recipients", usual.least_recipients, 1..=1_000_000,
                "A window with fewer recipients is judged as though the missing ones had been clean.") as u64,
            least_bounces: s.whole("least_bounces", usual.least_bounces, 1..=1_000_000,
                "Fewer bounces in a window charge nobody.") as u64,
            least_complaints: s.whole("least_complaints", usual.least_complaints, 1..=1_000_000,
                "Fewer complaints in a window charge nobody.") as u64,
            young_days: u32::try_from(s.whole("young_days", usual.young_days.into(), 0..=365,
                "Days from a tenant's first mail for which the ceilings below hold; 0: for none.")).unwrap_or(u32::MAX),
            ceilings_day: Ceilings {
                warn_bounces: s.whole("young_day_warn_bounces", usual.ceilings_day.warn_bounces, 1..=1_000_000,
                    "Bounces in 24 hours at which a young tenant's stream is told of, if its rate is over the warning besides.") as u64,
                pause_bounces: s.whole("young_day_pause_bounces", usual.ceilings_day.pause_bounces, 1..=1_000_000,
                    "Bounces in 24 hours at which it is paused, likewise.") as u64,
                warn_complaints: s.whole("young_day_warn_complaints", usual.ceilings_day.warn_complaints, 1..=1_000_000,
                    "Complaints in 24 hours at which it is told of, likewise.") as u64,
                pause_complaints: s.whole("young_day_pause_complaints", usual.ceilings_day.pause_complaints, 1..=1_000_000,
                    "Complaints in 24 hours at which it is paused, likewise.") as u64,
            },
            ceilings_week: Ceilings {
                warn_bounces: s.whole("young_week_warn_bounces", usual.ceilings_week.warn_bounces, 1..=1_000_000,
                    "Bounces in 7 days at which a young tenant's stream is told of, if its rate is over the warning besides.") as u64,
                pause_bounces: s.whole("young_week_pause_bounces", usual.ceilings_week.pause_bounces, 1..=1_000_000,
                    "Bounces in 7 days at which it is paused, likewise.") as u64,
                warn_complaints: s.whole("young_week_warn_complaints", usual.ceilings_week.warn_complaints, 1..=1_000_000,
                    "Complaints in 7 days at which it is told of, likewise.") as u64,
                pause_complaints: s.whole("young_week_pause_complaints", usual.ceilings_week.pause_complaints, 1..=1_000_000,
                    "Complaints in 7 days at which it is paused, likewise.") as u64,
            },
            transactional: Lines {
                warn_bounce: s.rate("transactional_warn_bounce", usual.transactional.warn_bounce,
                    "Bounce rate at which it is told of, for transactional streams without a limit of their own: 0.05 is 5 %."),
                warn_complaint: s.rate("transactional_warn_complaint", usual.transactional.warn_complaint,
                    "Complaint rate at which it is told of, for transactional streams without a limit of their own: 0.05 is 5 %."),
                pause_bounce: s.rate("transactional_pause_bounce", usual.transactional.pause_bounce,
                    "Bounce rate of the pause, for transactional streams without a limit of their own: 0.05 is 5 %."),
                pause_complaint: s.rate("transactional_pause_complaint", usual.transactional.pause_complaint,
                    "Complaint rate of the pause, for transactional streams without a limit of their own: 0.05 is 5 %."),
            },
            bulk: Lines {
                warn_bounce: s.rate("bulk_warn_bounce", usual.bulk.warn_bounce,
                    "Bounce rate at which it is told of, for bulk streams, and of a tenant's sum without a limit of their own: 0.05 is 5 %."),
                warn_complaint: s.rate("bulk_warn_complaint", usual.bulk.warn_complaint,
                    "Complaint rate at which it is told of, for bulk streams, and of a tenant's sum without a limit of their own: 0.05 is 5 %."),
                pause_bounce: s.rate("bulk_pause_bounce", usual.bulk.pause_bounce,
                    "Bounce rate of the pause, for bulk streams, and of a tenant's sum without a limit of their own: 0.05 is 5 %."),
                pause_complaint: s.rate("bulk_pause_complaint", usual.bulk.pause_complaint,
                    "Complaint rate of the pause, for bulk streams, and of a tenant's sum without a limit of their own: 0.05 is 5 %."),
            },
            marketing: Lines {
                warn_bounce: s.rate("marketing_warn_bounce", usual.marketing.warn_bounce,
                    "Bounce rate at which it is told of, for marketing streams without a limit of their own: 0.05 is 5 %."),
                warn_complaint: s.rate("marketing_warn_complaint", usual.marketing.warn_complaint,
                    "Complaint rate at which it is told of, for marketing streams without a limit of their own: 0.05 is 5 %."),
                pause_bounce: s.rate("marketing_pause_bounce", usual.marketing.pause_bounce,
                    "Bounce rate of the pause, for marketing streams without a limit of their own: 0.05 is 5 %."),
                pause_complaint: s.rate("marketing_pause_complaint", usual.marketing.pause_complaint,
                    "Complaint rate of the pause, for marketing streams without a limit of their own: 0.05 is 5 %."),
            },
            account_bounce: s.rate("account_bounce", usual.account_bounce,
                "Bounce rate of all mail at which the worst contributors are paused, transactional streams never. SES reviews an account at 0.05."),
            account_complaint: s.rate("account_complaint", usual.account_complaint,
                "Complaint rate of all mail, likewise. SES reviews an account at 0.001."),
            account_least_recipients: s.whole("account_least_recipients", usual.account_least_recipients, 1..=100_000_000,
                "All mail of a window is judged as though it had so many recipients at the least.") as u64,
        };
        section.end();
        Self { rules }
    }
}

impl Watch {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let watch = Self {
            stolen_credentials: s.choice("stolen_credentials", Stolen::Alert,
                &[("alert", Stolen::Alert), ("hold", Stolen::Hold), ("off", Stolen::Off)],
                "What follows where a credential's recipients turn mostly first-time, its source network changes and its volume jumps, all in one hour: it is told, the credential is put on hold as well, or nobody looks."),
            first_time_percent: s.whole("first_time_percent", 80, 1..=99,
                "Percent of an hour's recipients that the credential may never have mailed before; more is a sign."),
            usual_first_time_percent: s.whole("usual_first_time_percent", 50, 1..=100,
                "The same over the last 7 days: where it was not under this percent, new recipients are no sign."),
            first_time_least_recipients: s.whole("first_time_least_recipients", 50, 1..=1_000_000,
                "Least recipients of an hour for that."),
            network_days: s.whole("network_days", 30, 1..=365,
                "Days for which a network (IPv4 /24, IPv6 /48) is known to a credential after its last use. Mail that comes mostly from unknown ones is a sign."),
            jump_times: s.times("jump_times", 3.0, 1_000, false,
                "How many times the usual volume of the same hour of the day, over the last 7 days, an hour may have; more is a sign."),
            jump_least_recipients: s.whole("jump_least_recipients", 100, 1..=1_000_000,
                "Recipients over the usual volume that such an hour has at least."),
            again_hours: s.hours("again_hours", 24, 1..=720,
                "Time in which the same credential is not told of again, and not put on hold again after its release."),
            volume_times: s.times("volume_times", 3.0, 1_000, true,
                "A tenant's hour is told of where it has more than so many times the recipients of the same hour of the last 7 days on average, or fewer than one in so many. 0: off."),
            volume_least_recipients: s.whole("volume_least_recipients", 50, 1..=1_000_000,
                "Least average for that, in recipients of the hour."),
            credentials: s.whole("credentials", 10_000, 1..=1_000_000,
                "Credentials whose habits are in memory at once; those used least recently are written and read again at their next mail."),
            memory_bytes: s.whole("memory_bytes", 67_108_864, 1_048_576..=1_099_511_627_776,
                "Octets that they take there, about."),
            filter_bytes: s.whole("filter_bytes", 65_536, 2_048..=65_536,
                "Largest filter of the addresses a credential has mailed, in octets, rounded down to a power of two; 65536 hold some 46,000. Past it nobody can tell who is new, and the credential is not suspected."),
            waiting_recipients: s.whole("waiting_recipients", 100_000, 1_000..=10_000_000,
                "Recipients of accepted messages that wait to be looked at; what is over it is not watched."),
            flush_seconds: s.seconds("flush_seconds", 30, 1..=3_600,
                "How often habits are written; a crash forgets what came since."),
        };
        section.end();
        watch
    }
}

impl Exposure {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let exposure = Self {
            start_recipients: s.whole("start_recipients", 100, 10..=1_000_000,
                "Recipients of a new stream, or of one that was resumed, that may be out unheard of at once. It doubles with each such number that came back clean."),
            floor_recipients: s.whole("floor_recipients", 10, 1..=1_000_000,
                "Recipients below which a warning does not cut it."),
            open_recipients: s.whole("open_recipients", 100_000, 100..=1_000_000_000,
                "Recipients beyond which a stream has no window until it is warned."),
            horizon_seconds: s.seconds("horizon_seconds", 600, 60..=86_400,
                "Time after which a recipient's outcome is no longer waited for."),
            settled_days: s.whole("settled_days", 14, 1..=365,
                "Days for which a stream must have been good to need no window."),
            settled_recipients: s.whole("settled_recipients", 1_000, 1..=1_000_000_000,
                "Recipients of the last 7 days that it needs for that."),
        };
        section.end();
        exposure
    }

    /// As the dispatcher has them.
    pub fn rules(&self) -> exposure::Rules {
        exposure::Rules {
            start: self.start_recipients as u64,
            floor: self.floor_recipients as u64,
            open: self.open_recipients as u64,
            horizon: self.horizon_seconds,
            settled_for: Duration::from_hours(24 * self.settled_days as u64),
            settled_recipients: self.settled_recipients as u64,
        }
    }
}

impl Suppression {
    pub(super) fn of(mut section: Section<'_>) -> Self {
        let s = &mut section;
        let suppression = Self {
            soft_bounces: s.whole("soft_bounces", 5, 0..=LONGEST_RUN,
                "Soft bounces of an address in a row, without a delivery between them, that suppress it for a while. 0: none ever does."),
            soft_days: s.whole("soft_days", 14, 1..=365,
                "Days for which they do, from the last of them on."),
            ses_sync: s.choice("ses_sync", SesSync::Off,
                &[("off", SesSync::Off), ("pull", SesSync::Pull), ("both", SesSync::Both)],
                "Whether Amazon SES's own suppression lists, the account's and those of SES tenants, are taken over; with both, a tenant's entries are also put on the list of its SES tenant, and removed from it."),
            ses_sync_hours: s.hours("ses_sync_hours", 24, 1..=720,
                "Time from the end of one comparison with SES's lists to the next."),
        };
        section.end();
        suppression
    }

    /// When soft bounces suppress.
    pub fn rules(&self) -> run::Rules {
        let days = u64::try_from(self.soft_days).unwrap_or(u64::MAX);
        run::Rules { bounces: self.soft_bounces, time: Duration::from_secs(days.saturating_mul(86_400)) }
    }
}

impl Admin {
    pub(super) fn of(mut section: Section<'_>) -> Option<Self> {
        let address =
            section.text("address", "127.0.0.1:8025", value::socket, "Where it listens: IP address and port.");
        let allow_insecure = section.flag(
            "allow_insecure",
            false,
            "Allows an address that is not a loopback one: whoever reaches it can then read health and metrics.",
        );
        section.end();
        Some(Self { address: address?, allow_insecure })
    }
}

impl Log {
    pub(super) fn of(mut section: Section<'_>) -> Option<Self> {
        let format = section.choice(
            "format",
            Format::Json,
            &[("json", Format::Json), ("text", Format::Text)],
            "JSON lines for programs, or text for people.",
        );
        let recipients = section.choice(
            "recipients",
            Addresses::Domain,
            &[("domain", Addresses::Domain), ("full", Addresses::Full), ("hash", Addresses::Hash)],
            "How addresses show: their domain alone, in full, or a hash in place of the local part.",
        );
        let level = section.text(
            "level",
            "info",
            value::level,
            "Least level that is written: error, warn, info, debug or trace; or directives, as \"warn,bulkhead=info\".",
        );
        section.end();
        Some(Self { format, recipients, level: level? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_no_age_of_its_own_has_that_of_its_kind() {
        let file = "[outbox]\nmax_age_transactional_hours = 3\nmax_age_bulk_hours = 2\nmax_age_marketing_hours = 1\n";
        let document = super::super::file::Document::parse("settings.toml", file).unwrap();
        let (settings, _) = super::super::read(document).unwrap();
        let tenants = StreamKind::ALL.map(|kind| {
            let kind = kind.word();
            format!("[[tenant.stream]]\nid = \"{kind}\"\nkind = \"{kind}\"\nconfiguration_set = \"{kind}\"\n")
        });
        let head = "[[tenant]]\nid = \"acme\"\nsenders = [\"acme.example\"]\ndefault_stream = \"bulk\"\n";
        let (declared, _) = super::super::read_tenants("tenants.toml", &(head.to_owned() + &tenants.concat())).unwrap();
        for (stream, hours) in declared.tenants[0].tenant.streams.values().zip([2, 1, 3]) {
            assert_eq!(settings.outbox.max_age(stream), Duration::from_hours(hours), "{}", stream.id);
            let own = Stream { max_age_hours: Some(336), ..stream.clone() };
            assert_eq!(settings.outbox.max_age(&own), Duration::from_hours(336), "{}", stream.id);
        }
    }
}
