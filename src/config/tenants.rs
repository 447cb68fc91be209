//! The tenants file: what is declared of tenants, streams and credentials.
//!
//! Promises: every problem at once, with its line; no stream without a configuration set, no set or
//! username claimed twice, no credential bound to a stream that is not there. Hashes of secrets are
//! never shown.
//!
//! The clock is not read: a credential of the file was `created` at the epoch, by `tenants file`,
//! so the same file always declares the same.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::{Document, Section, text_of};
use super::given::{Given, nearest, shown};
use super::groups::LARGEST_AGE_HOURS;
use super::problem::{Fault, Note, Place, Problem};
use super::value;
use crate::mail::id::IdError;
use crate::mail::{ConfigurationSet, SesTenant, StreamId, TenantId, Username};
use crate::policy::tenant::{
    FanOut, Handoff, Limits, PausedReply, SenderPattern, Stream, StreamKind, SuppressionReason, Tenant, Warmup,
};
use crate::store::credential::{Credential, HashError, Origin, SECRETS, SecretHash, StoredSecret};
use crate::store::tenants::{Declared, DeclaredTenant};
use crate::time::Timestamp;

/// Who made the credentials of a file.
const ACTOR: &str = "tenants file";

/// Recipients a second that a stream may have.
const LARGEST_RATE: f64 = 100_000.0;

/// What `suppress_on` may hold. Entries put on the list by hand bind always, so they are no choice.
const REASONS: [(&str, SuppressionReason); 2] =
    [("bounce", SuppressionReason::Bounce), ("complaint", SuppressionReason::Complaint)];

/// Reads a tenants file: what it declares, and what there is to know about it.
pub fn load_tenants(file: &Path) -> Result<(Declared, Vec<Note>), Vec<Problem>> {
    read_tenants(&file.display().to_string(), &text_of(file)?)
}

/// As [`load_tenants`], from text; `file` is its name in problems and notes.
pub fn read_tenants(file: &str, text: &str) -> Result<(Declared, Vec<Note>), Vec<Problem>> {
    read(Document::parse(file, text)?)
}

fn read(document: Document<'_>) -> Result<(Declared, Vec<Note>), Vec<Problem>> {
    let mut reader = Reader::default();
    let mut top = document.top();
    let mut tenants = Vec::new();
    let sections = top.tables("tenant");
    if sections.is_empty() {
        reader.notes.push(top.place().note("", "declares no tenant"));
    }
    for section in sections {
        tenants.extend(reader.tenant(section));
    }
    top.end();
    reader.shared_senders();
    document.end()?;
    reader.notes.sort();
    Ok((Declared { tenants }, reader.notes))
}

/// What has been seen so far, over all tenants.
#[derive(Default)]
struct Reader {
    notes: Vec<Note>,
    tenants: BTreeMap<String, Place>,
    usernames: BTreeMap<String, Place>,
    sets: BTreeMap<String, Place>,
    ses_tenants: BTreeMap<String, Place>,
    senders: Vec<(String, String, Place, SenderPattern)>,
}

impl Reader {
    fn tenant(&mut self, mut section: Section<'_>) -> Option<DeclaredTenant> {
        let cure = "write id = \"acme\": a-z, 0-9 and -, 1 to 64 characters";
        let id = section.needed("id", cure, |given| id(given, TenantId::parse));
        if let Some(id) = &id {
            section.name("id", id.as_str());
            let place = section.place();
            if let Some(first) = self.tenants.insert(id.to_string(), place) {
                section.fault("id", Fault::new(format!("is used at {first} already"), "give each tenant its own id"));
            }
        }
        let contact = section.read("contact", |given| given.text().and_then(value::mailbox));
        let senders = self.senders(&mut section, id.as_ref());
        let ses_tenant = section.read("ses_tenant", |given| self::id(given, SesTenant::parse));
        if let Some(ses_tenant) = &ses_tenant {
            let place = section.place_of("ses_tenant");
            if let Some(first) = self.ses_tenants.insert(ses_tenant.to_string(), place.clone()) {
                let what = format!("is the SES tenant of another tenant ({first}) too: SES judges the two as one");
                self.notes.push(place.note(section.key("ses_tenant"), what));
            }
        }
        let limits = limits(&mut section);
        let weight =
            section.read("weight", |given| given.whole(&(1..=Tenant::LARGEST_WEIGHT.into()), Tenant::WEIGHT.into()));
        let enforce = section.read("enforce", Given::flag);
        if enforce == Some(false) {
            let what = "is false: standing is only logged, as would_…, and brakes nothing";
            self.notes.push(section.place_of("enforce").note(section.key("enforce"), what));
        }
        let words = [("defer", PausedReply::Defer), ("reject", PausedReply::Reject)];
        let paused_reply = section.read("paused_reply", |given| given.choice(&words));
        let (rate_per_second, daily_recipients) = caps(&mut section);
        let streams = self.streams(&mut section);
        let default_stream = default_stream(&mut section, &streams);
        let credentials = section.tables("credential");
        let credentials: Vec<Credential> =
            credentials.into_iter().filter_map(|entry| self.credential(entry, id.as_ref(), &streams)).collect();
        section.end();
        let default = Tenant::new(id?, default_stream?);
        let tenant = Tenant {
            contact,
            senders,
            ses_tenant,
            limits,
            weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(default.weight),
            enforce: enforce.unwrap_or(default.enforce),
            paused_reply: paused_reply.unwrap_or(default.paused_reply),
            rate_per_second,
            daily_recipients,
            streams,
            ..default
        };
        Some(DeclaredTenant { tenant, credentials })
    }

    fn senders(&mut self, section: &mut Section<'_>, tenant: Option<&TenantId>) -> Vec<SenderPattern> {
        let key = section.key("senders");
        let cure = "write the domains and addresses it may send as: senders = [\"acme.example\"]";
        let typed = section.list("senders", |given| {
            let text = given.text()?;
            SenderPattern::parse(text).map_err(|error| {
                let cure = "write a domain of two labels or more, such as acme.example, or an address, such as billing@acme.io";
                Fault::new(format!("has {}, which {error}", shown(text)), cure)
            })
        });
        match &typed {
            None if section.given("senders").is_none() => section.fault("senders", Fault::new("is missing", cure)),
            Some(senders) if senders.is_empty() && !section.has_faults("senders") => {
                section.fault("senders", Fault::new("is empty, so the tenant could send nothing", cure));
            }
            None | Some(_) => {}
        }
        let mut senders: Vec<SenderPattern> = Vec::new();
        for (place, sender) in typed.unwrap_or_default() {
            if senders.contains(&sender) {
                let fault = Fault::new(format!("has {sender} twice"), "write it once");
                section.fault("senders", fault);
            } else {
                let owner = tenant.map_or_else(|| "?".to_owned(), TenantId::to_string);
                self.senders.push((owner, key.clone(), place, sender.clone()));
                senders.push(sender);
            }
        }
        senders
    }

    fn streams(&mut self, section: &mut Section<'_>) -> BTreeMap<StreamId, Stream> {
        let sections = section.tables("stream");
        if sections.is_empty() && section.given("stream").is_none() {
            let cure = "declare one below it: [[tenant.stream]] with id, kind and configuration_set";
            section.fault("stream", Fault::new("is missing: a tenant sends by its streams", cure));
        }
        let mut streams = BTreeMap::new();
        let mut places = BTreeMap::new();
        for mut section in sections {
            let cure = "write id = \"transactional\": a-z, 0-9 and -, 1 to 64 characters";
            let id = section.needed("id", cure, |given| id(given, StreamId::parse));
            if let Some(id) = &id {
                section.name("id", id.as_str());
                if let Some(first) = places.insert(id.clone(), section.place()) {
                    let what = format!("is used at {first} already");
                    section.fault("id", Fault::new(what, "give each stream of a tenant its own id"));
                }
            }
            streams.extend(self.stream(section, id).map(|stream| (stream.id.clone(), stream)));
        }
        streams
    }

    fn stream(&mut self, mut section: Section<'_>, id: Option<StreamId>) -> Option<Stream> {
        let cure = "write kind = \"transactional\", \"bulk\" or \"marketing\"";
        let kind = section.needed("kind", cure, |given| given.choice(&StreamKind::ALL.map(|kind| (kind.word(), kind))));
        let cure = "name the SES configuration set of this stream: no message leaves without one of its own";
        let set = section.needed("configuration_set", cure, |given| self::id(given, ConfigurationSet::parse));
        if let Some(set) = &set
            && let Some(first) = self.sets.insert(set.to_string(), section.place())
        {
            let what = format!("is {set}, the set of the stream at {first} already");
            section.fault(
                "configuration_set",
                Fault::new(what, "give each stream a set of its own, since SES counts reputation by set"),
            );
        }
        let suppress_on = section.list("suppress_on", |given| given.choice(&REASONS));
        let suppress_on = suppress_on.map(|reasons| {
            let mut reasons: Vec<SuppressionReason> = reasons.into_iter().map(|(_, reason)| reason).collect();
            reasons.sort();
            reasons.dedup();
            reasons
        });
        let (rate, daily) = caps(&mut section);
        let warmup = warmup(&mut section);
        let words = [("single", FanOut::Single), ("batch", FanOut::Batch)];
        let fan_out = section.read("fan_out", |given| given.choice(&words));
        let words = Handoff::ALL.map(|handoff| (handoff.word(), handoff));
        let handoff = section.read("handoff", |given| given.choice(&words));
        let max_age = section.read("max_age_hours", |given| given.whole(&(1..=LARGEST_AGE_HOURS), 48));
        let dedupe = section.read("dedupe", Given::flag);
        let dsn = section.read("dsn", Given::flag);
        let enforce = section.read("enforce", Given::flag);
        let exposure = section.read("exposure", Given::flag);
        let limits = limits(&mut section);
        section.end();
        let default = Stream::new(id?, kind?, set?);
        Some(Stream {
            suppress_on: suppress_on.unwrap_or(default.suppress_on),
            rate_per_second: rate,
            daily_recipients: daily,
            warmup,
            fan_out: fan_out.unwrap_or(default.fan_out),
            handoff: handoff.unwrap_or(default.handoff),
            max_age_hours: max_age.and_then(|hours| u32::try_from(hours).ok()),
            dedupe: dedupe.unwrap_or(default.dedupe),
            dsn: dsn.unwrap_or(default.dsn),
            enforce,
            exposure: exposure.unwrap_or(default.exposure),
            limits,
            ..default
        })
    }

    fn credential(
        &mut self,
        mut section: Section<'_>,
        tenant: Option<&TenantId>,
        streams: &BTreeMap<StreamId, Stream>,
    ) -> Option<Credential> {
        let cure = "write username = \"acme-app\": A-Z, a-z, 0-9, - _ . @ and +, 1 to 64 characters";
        let username = section.needed("username", cure, |given| id(given, Username::parse));
        if let Some(username) = &username {
            section.name("username", username.as_str());
            if let Some(first) = self.usernames.insert(username.to_string(), section.place()) {
                let what = format!("is {username}, which the credential at {first} has already");
                section.fault("username", Fault::new(what, "give each credential its own, over all tenants"));
            }
        }
        let secrets = secrets(&mut section);
        let stream = section.read("stream", |given| id(given, StreamId::parse));
        if let Some(stream) = &stream
            && !streams.is_empty()
            && !streams.contains_key(stream)
        {
            section.fault("stream", not_a_stream(stream, streams));
        }
        let from_ip = section.list("from_ip", |given| given.text().and_then(value::network));
        let expires = section.read("expires", |given| {
            let text = given.date()?;
            Timestamp::parse_rfc3339(&text).ok_or_else(|| {
                let cure = "write date, time and zone, such as 2027-01-31T00:00:00Z";
                Fault::new(format!("is {}, which is no moment (RFC 3339)", shown(&text)), cure)
            })
        });
        section.end();
        Some(Credential {
            username: username?,
            tenant: tenant?.clone(),
            stream,
            secrets: secrets?,
            from_ip: from_ip.unwrap_or_default().into_iter().map(|(_, network)| network).collect(),
            expires,
            origin: Origin::File,
            created: Timestamp::default(),
            actor: ACTOR.into(),
        })
    }

    /// Notes senders that two tenants may use: allowed, since a vendor's own domain is such a one.
    fn shared_senders(&mut self) {
        for (number, (owner, key, place, sender)) in self.senders.iter().enumerate() {
            let others = self.senders.iter().take(number).filter(|(other, ..)| other != owner);
            for (other, _, _, earlier) in others {
                if let Some(common) = common(sender, earlier) {
                    let what = format!("has {sender}, and tenant {other} may send as {common} too");
                    self.notes.push(place.clone().note(key.clone(), what));
                }
            }
        }
    }
}

/// `rate_per_second` and `daily_recipients`, which a tenant has as its streams do.
fn caps(section: &mut Section<'_>) -> (Option<f64>, Option<u64>) {
    let rate = section.read("rate_per_second", |given| {
        let cure = "write recipients a second, more than 0 and up to 100000, such as 5";
        given.above_zero(LARGEST_RATE, cure)
    });
    (rate, section.read("daily_recipients", |given| given.whole(&(1..=1_000_000_000), 50_000)))
}

/// The narrower of two senders where they meet.
fn common<'s>(a: &'s SenderPattern, b: &'s SenderPattern) -> Option<&'s SenderPattern> {
    let within = |inner: &SenderPattern, outer: &SenderPattern| match (inner, outer) {
        (SenderPattern::Domain(inner), SenderPattern::Domain(outer)) => inner.is_within(outer),
        (SenderPattern::Address(inner), _) => outer.covers(inner),
        (SenderPattern::Domain(_), SenderPattern::Address(_)) => false,
    };
    if within(a, b) {
        Some(a)
    } else if within(b, a) {
        Some(b)
    } else {
        None
    }
}

/// The limits of a tenant or a stream, if its section has any.
pub(super) fn limits(section: &mut Section<'_>) -> Limits {
    let Some(mut table) = section.table("limits") else { return Limits::default() };
    let mut rate = |key| {
        table.read(key, |given| {
            let cure = "write a rate above 0 and up to 1: 5 % is 0.05";
            given.above_zero(1.0, cure)
        })
    };
    let limits = Limits {
        warn_bounce: rate("warn_bounce"),
        warn_complaint: rate("warn_complaint"),
        pause_bounce: rate("pause_bounce"),
        pause_complaint: rate("pause_complaint"),
    };
    for (key, over, warn, pause) in [
        ("warn_bounce", "pause_bounce", limits.warn_bounce, limits.pause_bounce),
        ("warn_complaint", "pause_complaint", limits.warn_complaint, limits.pause_complaint),
    ] {
        if let (Some(warn), Some(pause)) = (warn, pause)
            && warn > pause
        {
            let what = format!("is {warn}, above {over} ({pause}), so the warning would come too late");
            table.fault(key, Fault::new(what, format!("lower it, or raise {over}")));
        }
    }
    table.end();
    limits
}

/// The default stream: the one that is named, else the only one.
fn default_stream(section: &mut Section<'_>, streams: &BTreeMap<StreamId, Stream>) -> Option<StreamId> {
    let typed = section.given("default_stream").is_some();
    let named = section.read("default_stream", |given| id(given, StreamId::parse));
    match named {
        Some(named) if streams.contains_key(&named) || streams.is_empty() => Some(named),
        Some(named) => {
            section.fault("default_stream", not_a_stream(&named, streams));
            None
        }
        None if typed => None,
        None if streams.len() == 1 => streams.keys().next().cloned(),
        None if streams.is_empty() => None,
        None => {
            let cure = format!("name the stream of mail that names none: {}", names(streams));
            section.fault("default_stream", Fault::new("is missing, and the tenant has several streams", cure));
            None
        }
    }
}

fn secrets(section: &mut Section<'_>) -> Option<Vec<StoredSecret>> {
    let cure = "write what `bulkhead credential issue --print-hash` prints, or \"$argon2id$…\" for a chosen password";
    let parse = |given: &Given<'_>| {
        let text = given.text().map_err(|fault| Fault::new(fault.what, cure))?;
        let hash = SecretHash::parse(text).map_err(|error| match error {
            HashError::Form => Fault::new("is neither sha256: with 64 hex digits nor an $argon2id$ string", cure),
            HashError::TooCostly => {
                Fault::new(error.to_string(), "hash the password anew with less memory and fewer passes")
            }
        })?;
        Ok(StoredSecret { hash, expires: None })
    };
    let is_list = section.needed("secret_hash", cure, |given| Ok(given.is_list()))?;
    if !is_list {
        return section.read("secret_hash", parse).map(|secret| vec![secret]);
    }
    let secrets: Vec<StoredSecret> =
        section.list("secret_hash", parse)?.into_iter().map(|(_, secret)| secret).collect();
    match secrets.len() {
        0 if section.has_faults("secret_hash") => None,
        0 => {
            section.fault("secret_hash", Fault::new("is empty", cure));
            None
        }
        1..=SECRETS => Some(secrets),
        many => {
            let what = format!("has {many} hashes, more than {SECRETS}");
            section
                .fault("secret_hash", Fault::new(what, "keep the new one and, while clients change over, the old one"));
            None
        }
    }
}

fn warmup(section: &mut Section<'_>) -> Option<Warmup> {
    let mut table = section.table("warmup")?;
    let start = table.needed("start", "write the first day, as start = \"2026-12-01\"", |given| {
        let text = given.date()?;
        match text.parse::<jiff::civil::Date>() {
            Ok(date) if date.to_string() == text => Ok(text),
            Ok(_) | Err(_) => Err(Fault::new(
                format!("is {}, which is no date", shown(&text)),
                "write year, month and day: 2026-12-01",
            )),
        }
    });
    let most = 1_000_000_000;
    let first_day = table.needed("first_day", "write the first day's recipients, as first_day = 200", |given| {
        given.whole(&(1..=most), 200)
    });
    let days = table.needed("days", "write how many days it takes, as days = 30", |given| given.whole(&(1..=365), 30));
    let target = table.needed("target", "write the last day's recipients, as target = 50000", |given| {
        given.whole(&(1..=most), 50_000)
    });
    if let (Some(first), Some(target)) = (first_day, target)
        && target < first
    {
        let what = format!("is {target}, less than first_day ({first})");
        table.fault("target", Fault::new(what, "a warm-up climbs: raise target or lower first_day"));
    }
    table.end();
    Some(Warmup { start: start?, first_day: first_day?, days: u32::try_from(days?).ok()?, target: target? })
}

pub(super) fn id<T>(given: &Given<'_>, parse: fn(&str) -> Result<T, IdError>) -> Result<T, Fault> {
    given.text().and_then(|text| value::id(text, parse))
}

fn not_a_stream(named: &StreamId, streams: &BTreeMap<StreamId, Stream>) -> Fault {
    let what = format!("is {:?}, which is no stream of this tenant", named.as_str());
    let cure = match nearest(named.as_str(), streams.keys().map(StreamId::as_str)) {
        Some(near) => format!("did you mean {near:?}? Its streams: {}", names(streams)),
        None => format!("name one of its streams: {}", names(streams)),
    };
    Fault::new(what, cure)
}

fn names(streams: &BTreeMap<StreamId, Stream>) -> String {
    streams.keys().map(StreamId::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
        [[tenant]]
        id = "acme"
        senders = ["acme.example", "billing@acme.io", "vendor.example"]
        ses_tenant = "shared"
        enforce = false
        paused_reply = "reject"
        weight = 7
        default_stream = "news"
        [[tenant.stream]]
        id = "news"
        kind = "marketing"
        configuration_set = "acme-news"
        rate_per_second = 2.5
        warmup = { start = 2026-12-01, first_day = 200, days = 30, target = 50_000 }
        [[tenant.stream]]
        id = "resets"
        kind = "transactional"
        configuration_set = "acme-resets"
        fan_out = "batch"
        handoff = "queue"
        max_age_hours = 12
        dedupe = false
        dsn = true
        limits = { pause_bounce = 1 }
        [[tenant.credential]]
        username = "acme-app"
        secret_hash = [
            "sha256:0000000000000000000000000000000000000000000000000000000000000001",
            "sha256:0000000000000000000000000000000000000000000000000000000000000002",
        ]
        stream = "resets"
        from_ip = ["192.0.2.7", "2001:db8::/32"]
        expires = 2027-01-31T01:00:00+01:00

        [[tenant]]
        id = "globex"
        senders = ["mail.vendor.example", "sales@acme.io"]
        ses_tenant = "shared"
        [[tenant.stream]]
        id = "all"
        kind = "bulk"
        configuration_set = "globex"
        suppress_on = ["complaint", "bounce", "bounce"]
    "#;

    #[test]
    fn what_is_declared_is_what_was_typed() {
        let (declared, _) = read_tenants("tenants.toml", TWO).unwrap();
        let [acme, globex] = &declared.tenants[..] else { panic!("{} tenants", declared.tenants.len()) };
        assert_eq!(acme.tenant.default_stream.as_str(), "news");
        assert_eq!((acme.tenant.enforce, acme.tenant.paused_reply), (false, PausedReply::Reject));
        let stream = |name: &str| &acme.tenant.streams[&StreamId::parse(name).unwrap()];
        let (news, resets) = (stream("news"), stream("resets"));
        assert_eq!(news.suppress_on, [SuppressionReason::Bounce, SuppressionReason::Complaint]);
        assert_eq!(resets.suppress_on, [SuppressionReason::Bounce]);
        assert_eq!((news.rate_per_second, news.fan_out, resets.fan_out), (Some(2.5), FanOut::Single, FanOut::Batch));
        assert_eq!(resets.limits.pause_bounce, Some(1.0));
        let of_outbox = |stream: &Stream| (stream.handoff, stream.max_age_hours, stream.dedupe, stream.dsn);
        assert_eq!(of_outbox(resets), (Handoff::Queue, Some(12), false, true));
        assert_eq!(of_outbox(news), (Handoff::Through, None, true, false));
        assert_eq!((news.enforce, news.exposure), (None, true));
        assert_eq!((acme.tenant.weight, globex.tenant.weight), (7, 1));
        let warmup = Warmup { start: "2026-12-01".into(), first_day: 200, days: 30, target: 50_000 };
        assert_eq!(news.warmup, Some(warmup));

        let [credential] = &acme.credentials[..] else { panic!("{:?}", acme.credentials) };
        assert_eq!(credential.stream.as_ref().map(StreamId::as_str), Some("resets"));
        let hashes: Vec<u8> = credential
            .secrets
            .iter()
            .map(|secret| match secret.hash {
                SecretHash::Sha256(digest) => digest[31],
                SecretHash::Argon2id(_) => 0,
            })
            .collect();
        assert_eq!(hashes, [1, 2], "the newest first");
        let networks: Vec<String> = credential.from_ip.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["192.0.2.7/32", "2001:db8::/32"]);
        assert_eq!(credential.expires.map(Timestamp::rfc3339).as_deref(), Some("2027-01-31T00:00:00.000Z"));
        assert_eq!(credential.origin, Origin::File);

        assert_eq!(globex.tenant.default_stream.as_str(), "all", "the only stream");
        assert_eq!((globex.tenant.enforce, globex.tenant.paused_reply), (true, PausedReply::Defer));
        let all: Vec<_> = globex.tenant.streams.values().flat_map(|stream| &stream.suppress_on).collect();
        assert_eq!(all, [&SuppressionReason::Bounce, &SuppressionReason::Complaint]);
        assert!(globex.credentials.is_empty());
    }

    #[test]
    fn what_a_file_does_not_say_is_as_the_constructors_have_it() {
        let kinds = StreamKind::ALL.map(StreamKind::word);
        let streams = kinds.map(|kind| {
            format!("[[tenant.stream]]\nid = \"{kind}\"\nkind = \"{kind}\"\nconfiguration_set = \"acme-{kind}\"\n")
        });
        let head = "[[tenant]]\nid = \"acme\"\nsenders = [\"acme.example\"]\ndefault_stream = \"bulk\"\n";
        let (declared, _) = read_tenants("tenants.toml", &(head.to_owned() + &streams.concat())).unwrap();
        let stream = |kind: StreamKind| {
            let id = StreamId::parse(kind.word()).unwrap();
            let set = ConfigurationSet::parse(&format!("acme-{id}")).unwrap();
            (id.clone(), Stream::new(id, kind, set))
        };
        let tenant = Tenant {
            senders: vec![SenderPattern::parse("acme.example").unwrap()],
            streams: StreamKind::ALL.map(stream).into(),
            ..Tenant::new(TenantId::parse("acme").unwrap(), StreamId::parse("bulk").unwrap())
        };
        let declared: Vec<Tenant> = declared.tenants.into_iter().map(|declared| declared.tenant).collect();
        assert_eq!(declared, [tenant]);
    }

    #[test]
    fn notes_are_told_with_their_lines() {
        let (_, notes) = read_tenants("tenants.toml", TWO).unwrap();
        let keys: Vec<(Option<usize>, &str)> = notes.iter().map(|note| (note.line, note.key.as_str())).collect();
        assert_eq!(
            keys,
            [
                (Some(6), "tenant.acme.enforce"),
                (Some(38), "tenant.globex.senders"),
                (Some(39), "tenant.globex.ses_tenant"),
            ]
        );
        let shared = notes.iter().find(|note| note.key == "tenant.globex.senders").unwrap();
        assert_eq!(shared.what, "has mail.vendor.example, and tenant acme may send as mail.vendor.example too");
        let nothing = read_tenants("tenants.toml", "").unwrap();
        assert_eq!((nothing.0.tenants.len(), nothing.1.len()), (0, 1), "an empty file is noted");
    }

    #[test]
    fn a_secret_in_the_place_of_its_hash_is_not_shown() {
        let text = TWO.replace("sha256:0", "hunter2");
        let problems = read_tenants("tenants.toml", &text).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|problem| !problem.to_string().contains("hunter2")), "{problems:?}");
    }
}
