//! Whether settings fit each other, and the files and addresses they name.
//!
//! [`together`] is part of every reading and looks at nothing but the settings. What needs the disk
//! ([`Settings::certificate_problems`], [`Settings::webhook_signer`]) or is no fault ([`Settings::notes`], [`Settings::notes_on`]) is asked for by whoever
//! is about to use them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::file::Document;
use super::problem::{Fault, Note, Problem};
use super::{Listener, Settings, Tls};
use crate::announce::webhook::Signer;
use crate::mail::{StreamId, TenantId};
use crate::policy::reputation::Offence;
use crate::policy::tenant::Tenant;
use crate::secret::Secret;
use crate::store::tenants::Declared;

/// As much of the file of a secret as is read: more than a secret has.
const SECRET_BYTES: usize = 1024;
/// Largest PEM file that is looked at.
const PEM_BYTES: u64 = 1024 * 1024;

/// Tells what is wrong between settings that are right one by one.
pub(super) fn together(settings: &Settings, document: &Document<'_>) {
    let check = Check { document };
    for (number, listener) in settings.listeners.iter().enumerate() {
        alone(&check, number, listener);
        let key = |number: usize| format!("listener.{number}.address");
        let address = listener.address;
        let earlier = settings.listeners.iter().take(number).position(|other| overlap(other.address, address));
        if let Some(other) = earlier {
            check.fault(
                &[&key(number), &key(other)],
                format!("is {address}, where listener.{other} listens already"),
                "give it another port or address, or remove one of the two",
            );
        }
        if overlap(settings.admin.address, address) {
            check.fault(
                &["admin.address", &key(number)],
                format!("is {}, where listener.{number} listens already", settings.admin.address),
                "give one of the two another port",
            );
        }
    }
    if !settings.admin.allow_insecure && !settings.admin.address.ip().is_loopback() {
        check.fault(
            &["admin.address", "admin.allow_insecure"],
            format!("is {}, where others than this machine could read health and metrics", settings.admin.address),
            "listen on 127.0.0.1 or [::1], or set admin.allow_insecure = true",
        );
    }
    sizes(&check, settings);
    outbox(&check, settings);
    notify(&check, settings);
    reputation(&check, settings);
    exposure(&check, settings);
}

struct Check<'c> {
    document: &'c Document<'c>,
}

impl Check<'_> {
    /// Tells a fault of the first of `keys`, at the first that was typed; but not where one of them
    /// has a fault of its own, since then its default stood in for it.
    fn fault(&self, keys: &[&str], what: String, cure: &str) {
        let Some(key) = keys.first() else { return };
        if !self.document.has_faults(keys) {
            self.document.report(self.document.place(keys).problem(*key, Fault::new(what, cure)));
        }
    }
}

fn alone(check: &Check<'_>, number: usize, listener: &Listener) {
    let key = |name: &str| format!("listener.{number}.{name}");
    let address = listener.address;
    if listener.tls == Tls::None && !listener.allow_insecure && !address.ip().is_loopback() {
        check.fault(
            &[&key("tls"), &key("allow_insecure")],
            format!("is \"none\" on {address}, so passwords and mail would cross the network unprotected"),
            "use \"starttls\" or \"implicit\", listen on 127.0.0.1 or [::1], or set allow_insecure = true",
        );
    }
    if listener.proxy_protocol && listener.trusted_proxies.is_empty() {
        check.fault(
            &[&key("proxy_protocol"), &key("trusted_proxies")],
            "is true without trusted_proxies, so anybody could claim any address".into(),
            "set trusted_proxies to the load balancer's networks, as [\"10.0.0.0/8\"]",
        );
    }
}

fn sizes(check: &Check<'_>, settings: &Settings) {
    let (limits, aws) = (&settings.limits, &settings.aws);
    let message = limits.message_bytes;
    if limits.memory_bytes < message {
        check.fault(
            &["limits.memory_bytes", "limits.message_bytes"],
            format!("is {}, so no message of limits.message_bytes ({message}) could be held", limits.memory_bytes),
            "raise it to several times limits.message_bytes, or lower limits.message_bytes",
        );
    }
    if limits.header_bytes > message {
        check.fault(
            &["limits.header_bytes", "limits.message_bytes"],
            format!(
                "is {}, more than limits.message_bytes ({message}), so it would bound nothing",
                limits.header_bytes
            ),
            "lower it, or raise limits.message_bytes",
        );
    }
    if aws.large_call_seconds < aws.call_seconds {
        let (large, small) = (aws.large_call_seconds.as_secs(), aws.call_seconds.as_secs());
        check.fault(
            &["aws.large_call_seconds", "aws.call_seconds"],
            format!("is {large}, less than aws.call_seconds ({small})"),
            "give large messages at least the time of small ones",
        );
    }
}

fn exposure(check: &Check<'_>, settings: &Settings) {
    let set = &settings.exposure;
    if set.floor_recipients > set.start_recipients {
        check.fault(
            &["exposure.floor_recipients", "exposure.start_recipients"],
            format!("is {}, more than exposure.start_recipients ({})", set.floor_recipients, set.start_recipients),
            "lower it, or raise exposure.start_recipients",
        );
    }
    if set.open_recipients < set.start_recipients {
        check.fault(
            &["exposure.open_recipients", "exposure.start_recipients"],
            format!(
                "is {}, less than exposure.start_recipients ({}), so no stream would have a window",
                set.open_recipients, set.start_recipients
            ),
            "raise it; exposure = false in a stream's declaration turns its window off",
        );
    }
}

fn outbox(check: &Check<'_>, settings: &Settings) {
    let Settings { outbox, limits, aws, .. } = settings;
    if outbox.messages_per_tenant > outbox.messages {
        check.fault(
            &["outbox.messages_per_tenant", "outbox.messages"],
            format!(
                "is {}, more than outbox.messages ({}), so it would bound nothing",
                outbox.messages_per_tenant, outbox.messages
            ),
            "lower it, or raise outbox.messages",
        );
    }
    if outbox.calls_per_stream > outbox.calls_in_flight {
        check.fault(
            &["outbox.calls_per_stream", "outbox.calls_in_flight"],
            format!(
                "is {}, more than outbox.calls_in_flight ({}), so it would bound nothing",
                outbox.calls_per_stream, outbox.calls_in_flight
            ),
            "lower it, or raise outbox.calls_in_flight",
        );
    }
    if outbox.spill_bytes > limits.memory_bytes {
        check.fault(
            &["outbox.spill_bytes", "limits.memory_bytes"],
            format!(
                "is {}, more than limits.memory_bytes ({}), so no message would go to a file before memory is full",
                outbox.spill_bytes, limits.memory_bytes
            ),
            "lower it, or raise limits.memory_bytes",
        );
    }
    let (call, turn) = (aws.large_call_seconds, aws.call_wait_seconds);
    if outbox.lease_seconds <= call + turn {
        check.fault(
            &["outbox.lease_seconds", "aws.large_call_seconds", "aws.call_wait_seconds"],
            format!(
                "is {}, not more than aws.large_call_seconds and aws.call_wait_seconds together ({} + {}), so a message could be sent again while its call is under way",
                outbox.lease_seconds.as_secs(),
                call.as_secs(),
                turn.as_secs()
            ),
            "raise it, or lower one of the two",
        );
    }
    for (first_key, longest_key, first, longest) in [
        (
            "outbox.retry_first_seconds",
            "outbox.retry_longest_seconds",
            outbox.retry_first_seconds,
            outbox.retry_longest_seconds,
        ),
        (
            "outbox.throttle_first_seconds",
            "outbox.throttle_longest_seconds",
            outbox.throttle_first_seconds,
            outbox.throttle_longest_seconds,
        ),
        (
            "outbox.operator_first_seconds",
            "outbox.operator_longest_seconds",
            outbox.operator_first_seconds,
            outbox.operator_longest_seconds,
        ),
    ] {
        if first > longest {
            check.fault(
                &[first_key, longest_key],
                format!("is {}, more than {longest_key} ({})", first.as_secs(), longest.as_secs()),
                "let the first wait be at most the longest",
            );
        }
    }
}

/// A warning that comes after its pause warns nobody.
fn reputation(check: &Check<'_>, settings: &Settings) {
    let rules = &settings.reputation.rules;
    for (kind, lines) in
        [("transactional", &rules.transactional), ("bulk", &rules.bulk), ("marketing", &rules.marketing)]
    {
        for offence in Offence::ALL {
            let (warn, pause) = (lines.warn(offence), lines.pause(offence));
            if warn > pause {
                let key = |step: &str| format!("reputation.{kind}_{step}_{}", offence.word());
                check.fault(
                    &[&key("warn"), &key("pause")],
                    format!("is {warn}, above {} ({pause}), so the warning would come too late", key("pause")),
                    "lower it, or raise the rate of the pause",
                );
            }
        }
    }
}

/// Whose mail it is and by which set it goes, where the webhook is and what signs for it: one without
/// the other sends nothing.
fn notify(check: &Check<'_>, settings: &Settings) {
    let notify = &settings.notify;
    let pairs = [
        (
            ("notify.from", notify.from.is_some()),
            ("notify.configuration_set", notify.configuration_set.is_some()),
            "no notice could be sent",
        ),
        (
            ("notify.webhook_url", notify.webhook_url.is_some()),
            ("notify.webhook_secret_file", notify.webhook_secret_file.is_some()),
            "nothing could be posted",
        ),
    ];
    for ((one, has_one), (two, has_two), so) in pairs {
        let (key, other) = match (has_one, has_two) {
            (true, true) | (false, false) => continue,
            (true, false) => (one, two),
            (false, true) => (two, one),
        };
        check.fault(&[key, other], format!("is set without {other}, so {so}"), "set both, or neither");
    }
    if notify.operator.is_some() && notify.from.is_none() && notify.configuration_set.is_none() {
        check.fault(
            &["notify.operator", "notify.from"],
            "is set without notify.from, so nobody could write to it".into(),
            "set notify.from and notify.configuration_set, or leave it out",
        );
    }
    if notify.webhook_url.as_deref().is_some_and(|url| !url.starts_with("https://")) && !notify.webhook_private {
        check.fault(
            &["notify.webhook_url", "notify.webhook_private"],
            "is not https://, so what is posted would cross the network unprotected".into(),
            "use https://, or set webhook_private = true",
        );
    }
}

impl Settings {
    /// What is wrong with the certificate files, by reading them: whether they are there and hold a
    /// PEM certificate and a PEM private key. Empty where no listener uses TLS.
    pub fn certificate_problems(&self) -> Vec<Problem> {
        if !self.needs_certificate() {
            return Vec::new();
        }
        let files = [
            ("tls.certificate_file", &self.tls.certificate_file, "CERTIFICATE-----", "certificate"),
            ("tls.private_key_file", &self.tls.private_key_file, "PRIVATE KEY-----", "private key"),
        ];
        files
            .into_iter()
            .filter_map(|(key, path, mark, thing)| {
                let fault = pem_fault(path, mark, thing)?;
                Some(self.place(key).problem(key, fault))
            })
            .collect()
    }

    /// What signs for the webhook, out of its file; `None`: there is no webhook. The problem says nothing
    /// of what the file holds.
    pub fn webhook_signer(&self) -> Result<Option<Signer>, Problem> {
        const KEY: &str = "notify.webhook_secret_file";
        let Some(path) = &self.notify.webhook_secret_file else { return Ok(None) };
        let fault = |what: String| {
            let cure =
                "put whsec_ and the base64 of 24 to 64 random octets there, as `openssl rand -base64 32` makes them";
            self.place(KEY).problem(KEY, Fault::new(format!("names {}, which {what}", path.display()), cure))
        };
        let text = read_secret(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
        Signer::parse(text.expose()).map(Some).map_err(|error| fault(error.to_string()))
    }

    /// What there is to know about settings that can be used as they are. Looks at the data folder
    /// and the private key's permissions.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut note = |key: &str, what: String| notes.push(self.place(key).note(key, what));
        if self.hostname == "relay.example.com" {
            note("hostname", "is the example's name; set it to the name clients reach the relay by".into());
        }
        if self.events.queue_url.is_none() {
            note(
                "events.queue_url",
                "is not set: NO EVENTS ARE READ, so bounces and complaints suppress nobody and count nowhere".into(),
            );
        }
        if let Some(what) = unwritable(&self.data_dir) {
            note("data_dir", what);
        }
        if self.needs_certificate() && open_to_others(&self.tls.private_key_file) {
            let file = self.tls.private_key_file.display();
            note("tls.private_key_file", format!("can be read by others than its owner; run chmod 600 {file}"));
        }
        if let Some(file) = self.notify.webhook_secret_file.as_ref().filter(|file| open_to_others(file)) {
            let file = file.display();
            note("notify.webhook_secret_file", format!("can be read by others than its owner; run chmod 600 {file}"));
        }
        for (number, listener) in self.listeners.iter().enumerate() {
            for (name, what) in listener_notes(listener) {
                note(&format!("listener.{number}.{name}"), what);
            }
        }
        let limits = &self.limits;
        for (key, value) in [
            ("limits.connections_per_ip", limits.connections_per_ip),
            ("limits.connections_per_tenant", limits.connections_per_tenant),
        ] {
            if value > limits.connections {
                note(key, format!("is {value}, more than limits.connections ({})", limits.connections));
            }
        }
        let urls = [
            ("aws.ses_endpoint_url", &self.aws.ses_endpoint_url),
            ("aws.sqs_endpoint_url", &self.aws.sqs_endpoint_url),
            ("events.queue_url", &self.events.queue_url),
        ];
        for (key, url) in urls {
            if url.as_deref().is_some_and(is_remote_http) {
                note(key, "is not https://, so mail or events would cross the network unprotected".into());
            }
        }
        if let (Some(region), Some(url), None) = (&self.aws.region, &self.events.queue_url, &self.aws.sqs_endpoint_url)
            && let Some(other) = region_of(url)
            && other != region
        {
            note("events.queue_url", format!("is in {other}, but aws.region is {region}"));
        }
        notes.sort();
        notes
    }

    /// What there is to know about tenants under these settings: what they ask for and do not get.
    pub fn notes_on(&self, tenants: &Declared) -> Vec<Note> {
        let mut notes = self.note_on_exposure(tenants);
        if self.notify.from.is_some() {
            return notes;
        }
        let file = self.tenants_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let asked = tenants.tenants.iter().flat_map(|declared| {
            let Tenant { id, streams, .. } = &declared.tenant;
            streams.values().filter(|stream| stream.dsn).map(move |stream| (id, &stream.id))
        });
        let note = |(tenant, stream): (&TenantId, &StreamId)| Note {
            file: file.clone(),
            line: None,
            key: format!("tenant.{tenant}.stream.{stream}.dsn"),
            what: "is true, but the settings have no [notify]: no delivery status notification is sent".into(),
        };
        notes.extend(asked.map(note));
        notes.sort();
        notes
    }

    /// That the exposure windows have nothing to open by but the horizon.
    fn note_on_exposure(&self, tenants: &Declared) -> Vec<Note> {
        let streams = tenants.tenants.iter().flat_map(|declared| declared.tenant.streams.values());
        let exposed = streams.filter(|stream| stream.exposure).count();
        if self.events.queue_url.is_some() || exposed == 0 {
            return Vec::new();
        }
        let what = format!(
            "is not set: no outcome is heard of, and the exposure windows of {exposed} streams open by exposure.horizon_seconds alone; exposure = false in a stream's declaration turns its window off"
        );
        vec![self.place("events.queue_url").note("events.queue_url", what)]
    }
}

/// A file that is as short as a secret.
fn read_secret(path: &Path) -> std::io::Result<Secret> {
    use std::io::Read as _;
    let mut octets = Vec::with_capacity(SECRET_BYTES);
    std::fs::File::open(path)?.take(SECRET_BYTES as u64).read_to_end(&mut octets)?;
    Ok(Secret::new(octets))
}

fn listener_notes(listener: &Listener) -> Vec<(&'static str, String)> {
    let mut notes = Vec::new();
    if listener.tls == Tls::None && listener.allow_insecure && !listener.address.ip().is_loopback() {
        notes.push(("allow_insecure", "is true: passwords and mail cross the network unprotected".into()));
    }
    if !listener.proxy_protocol && !listener.trusted_proxies.is_empty() {
        notes.push(("trusted_proxies", "has no effect while proxy_protocol is false".into()));
    }
    if listener.proxy_protocol && listener.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        notes.push(("trusted_proxies", "holds the whole internet, so anybody can claim any address".into()));
    }
    notes
}

/// Whether two sockets cannot be bound together. IPv4 and IPv6 are apart.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_family && same_host
}

fn pem_fault(path: &Path, mark: &str, thing: &str) -> Option<Fault> {
    let shown = path.display();
    let unread = |error: std::io::Error| {
        let cure = format!(
            "put the PEM {thing} there, or make one for development with certs/make.sh; the user the relay runs as must be able to read it"
        );
        Fault::new(format!("names {shown}, which cannot be read: {error}"), cure)
    };
    let size = match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            return Some(Fault::new(format!("names {shown}, which is a folder"), "name the file in it"));
        }
        Ok(meta) => meta.len(),
        Err(error) => return Some(unread(error)),
    };
    if size > PEM_BYTES {
        return Some(Fault::new(format!("names {shown}, which is {size} bytes long"), format!("name a PEM {thing}")));
    }
    match std::fs::read(path) {
        Ok(octets) if memchr::memmem::find(&octets, mark.as_bytes()).is_some() => None,
        Ok(_) => Some(Fault::new(
            format!("names {shown}, which holds no PEM {thing}"),
            format!("name the file of the {thing}"),
        )),
        Err(error) => Some(unread(error)),
    }
}

/// Why a folder cannot be written to, as far as looking at it tells.
fn unwritable(dir: &Path) -> Option<String> {
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => Some(format!("names {shown}, which is not a folder")),
        Ok(meta) if meta.permissions().readonly() => Some(format!("names {shown}, which is read-only")),
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("names {shown}, which is not there yet; the relay makes it at its start"))
        }
        Err(error) => Some(format!("names {shown}, which cannot be looked at: {error}")),
    }
}

#[cfg(unix)]
fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o044 != 0)
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> bool {
    false
}

fn is_remote_http(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    let ip = host.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| host.parse::<IpAddr>());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    !(name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()))
}

/// The region in a queue URL of AWS's own.
fn region_of(queue_url: &str) -> Option<&str> {
    let (region, rest) = queue_url.strip_prefix("https://sqs.")?.split_once('.')?;
    rest.starts_with("amazonaws.com").then_some(region)
}
