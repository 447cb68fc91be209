//! Every key of the store, built here and nowhere else.
//!
//! A key is its parts, each ended by `0x00`, so that keys sort by part and no part can be a prefix
//! of another: `kind 0x00 part 0x00 part 0x00`. Parts are text without NUL (all our identifiers are;
//! folded mailboxes are) or fixed-width numbers in hexadecimal, which sort as the numbers do.
//!
//! The layout, with golden encodings in the tests below:
//!
//! | kind | parts | holds |
//! |---|---|---|
//! | `meta` | name | one-off facts: the format of this store |
//! | `tenant` | tenant | the tenant but for its streams and senders |
//! | `sender` | tenant, pattern | one sender pattern |
//! | `stream` | tenant, stream | one stream |
//! | `pause` | tenant, stream or empty | a pause by hand |
//! | `standing` | tenant, stream or empty | what the judge has come to, and the last resume |
//! | `exposure` | tenant, stream | the exposure window of a stream |
//! | `ladder` | tenant, stream | where a stream stands on its warm-up ladder |
//! | `sesstatus` | SES tenant | SES has disabled its sending |
//! | `credential` | username | one credential with its secrets' hashes |
//! | `credentialhold` | username | that a credential is on hold, or was |
//! | `habit` | username | what a credential is used to |
//! | `habitfilter` | username, number | a chunk of the filter of whom it has mailed |
//! | `suppression` | tenant, folded mailbox, reason | one entry; an address has one a reason |
//! | `account-suppression` | folded mailbox, reason | one entry of SES's account list |
//! | `ses-list` | tenant, folded mailbox, SES's spelling | one entry of the list of the tenant's SES tenant |
//! | `sync` | tenant or empty | how far the comparison with SES's list has come |
//! | `run` | tenant, folded mailbox | soft bounces in a row of an address that had one |
//! | `counter` | tenant, stream, hour, node | one node's counts of a cohort; `node~` and four digits of the second from which, where the window began anew within the hour |
//! | `domain` | tenant, day, domain, node | one node's counts of a tenant's mail to a domain, or of all further ones (`*`) |
//! | `event` | hour applied, key of the event | this event has been applied |
//! | `eventid` | SHA-256 of the event's key | the same, found by its key |
//! | `outbox` | node, tenant, stream or empty, due, message | one held message |
//! | `audit` | milliseconds to the end of time, id | one entry of the audit trail, the newest first |
//! | `announce` | id | one announcement and who is still to be told |

use std::fmt;

use bytes::Bytes;

use crate::mail::{Mailbox, MessageId, SesTenant, StreamId, TenantId, Username};
use crate::policy::tenant::{Cohort, SuppressionReason};
use crate::time::{Hour, Timestamp};

/// A key; sorts as its octets do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    fn of(parts: &[&str]) -> Self {
        let mut octets = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            debug_assert!(!part.contains('\0'));
            octets.extend_from_slice(part.as_bytes());
            octets.push(0);
        }
        Self(octets.into())
    }

    /// A key as it came from a backend.
    pub fn from_octets(octets: impl Into<Bytes>) -> Self {
        Self(octets.into())
    }

    /// The octets, for a backend.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The parts, kind first; `None` if an octet string is none of ours.
    pub fn parts(&self) -> Option<Vec<&str>> {
        let text = std::str::from_utf8(&self.0).ok()?;
        Some(text.strip_suffix('\0')?.split('\0').collect())
    }

    /// Every key.
    pub fn all() -> Self {
        Self(Bytes::new())
    }

    /// A one-off fact.
    pub fn meta(name: &str) -> Self {
        Self::of(&["meta", name])
    }

    /// A tenant.
    pub fn tenant(tenant: &TenantId) -> Self {
        Self::of(&["tenant", tenant.as_str()])
    }

    /// All tenants.
    pub fn tenants() -> Self {
        Self::of(&["tenant"])
    }

    /// One sender pattern of a tenant.
    pub fn sender(tenant: &TenantId, pattern: &str) -> Self {
        Self::of(&["sender", tenant.as_str(), pattern])
    }

    /// All sender patterns.
    pub fn senders() -> Self {
        Self::of(&["sender"])
    }

    /// All sender patterns of a tenant.
    pub fn senders_of(tenant: &TenantId) -> Self {
        Self::of(&["sender", tenant.as_str()])
    }

    /// One stream.
    pub fn stream(tenant: &TenantId, stream: &StreamId) -> Self {
        Self::of(&["stream", tenant.as_str(), stream.as_str()])
    }

    /// All streams.
    pub fn streams() -> Self {
        Self::of(&["stream"])
    }

    /// All streams of a tenant.
    pub fn streams_of(tenant: &TenantId) -> Self {
        Self::of(&["stream", tenant.as_str()])
    }

    /// A pause of a tenant (`None`) or of one stream.
    pub fn pause(tenant: &TenantId, stream: Option<&StreamId>) -> Self {
        Self::of(&["pause", tenant.as_str(), stream.map_or("", StreamId::as_str)])
    }

    /// All pauses.
    pub fn pauses() -> Self {
        Self::of(&["pause"])
    }

    /// The pauses of a tenant and of its streams.
    pub fn pauses_of(tenant: &TenantId) -> Self {
        Self::of(&["pause", tenant.as_str()])
    }

    /// What the judge has come to, of a tenant's sum (`None`) or of one stream.
    pub fn standing(tenant: &TenantId, stream: Option<&StreamId>) -> Self {
        Self::of(&["standing", tenant.as_str(), stream.map_or("", StreamId::as_str)])
    }

    /// All standings.
    pub fn standings() -> Self {
        Self::of(&["standing"])
    }

    /// The exposure window of a stream.
    pub fn exposure(tenant: &TenantId, stream: &StreamId) -> Self {
        Self::of(&["exposure", tenant.as_str(), stream.as_str()])
    }

    /// All exposure windows.
    pub fn exposures() -> Self {
        Self::of(&["exposure"])
    }

    /// Where a stream stands on its warm-up ladder.
    pub fn ladder(tenant: &TenantId, stream: &StreamId) -> Self {
        Self::of(&["ladder", tenant.as_str(), stream.as_str()])
    }

    /// All positions on ladders.
    pub fn ladders() -> Self {
        Self::of(&["ladder"])
    }

    /// That SES has disabled an SES tenant's sending.
    pub fn ses_status(ses_tenant: &SesTenant) -> Self {
        Self::of(&["sesstatus", ses_tenant.as_str()])
    }

    /// All SES tenants that SES has disabled.
    pub fn ses_statuses() -> Self {
        Self::of(&["sesstatus"])
    }

    /// A credential.
    pub fn credential(username: &Username) -> Self {
        Self::of(&["credential", username.as_str()])
    }

    /// All credentials.
    pub fn credentials() -> Self {
        Self::of(&["credential"])
    }

    /// The hold on a credential.
    pub fn credential_hold(username: &Username) -> Self {
        Self::of(&["credentialhold", username.as_str()])
    }

    /// All holds on credentials.
    pub fn credential_holds() -> Self {
        Self::of(&["credentialhold"])
    }

    /// What a credential is used to.
    pub fn habit(username: &Username) -> Self {
        Self::of(&["habit", username.as_str()])
    }

    /// What all credentials are used to.
    pub fn habits() -> Self {
        Self::of(&["habit"])
    }

    /// A chunk of the filter of whom a credential has mailed.
    pub fn habit_filter(username: &Username, chunk: usize) -> Self {
        Self::of(&["habitfilter", username.as_str(), &format!("{chunk:02x}")])
    }

    /// An entry of the suppression list.
    pub fn suppression(tenant: &TenantId, mailbox: &Mailbox, reason: SuppressionReason) -> Self {
        Self::of(&["suppression", tenant.as_str(), &mailbox.folded(), reason.word()])
    }

    /// All entries of an address, of which there are as many as reasons at most.
    pub fn suppressions_of(tenant: &TenantId, mailbox: &Mailbox) -> Self {
        Self::of(&["suppression", tenant.as_str(), &mailbox.folded()])
    }

    /// The place of an entry in a tenant's list, for walking on behind it. Nothing is stored under
    /// text that no mailbox folds to; what follows a NUL is left out, for no part has one.
    pub fn suppression_place(tenant: &TenantId, folded: &str, reason: SuppressionReason) -> Self {
        let folded = folded.split('\0').next().unwrap_or_default();
        Self::of(&["suppression", tenant.as_str(), folded, reason.word()])
    }

    /// All suppression entries of a tenant.
    pub fn suppressions(tenant: &TenantId) -> Self {
        Self::of(&["suppression", tenant.as_str()])
    }

    /// Every suppression entry there is.
    pub fn all_suppressions() -> Self {
        Self::of(&["suppression"])
    }

    /// An entry of SES's account list, which is no tenant's.
    pub fn account_suppression(mailbox: &Mailbox, reason: SuppressionReason) -> Self {
        Self::of(&["account-suppression", &mailbox.folded(), reason.word()])
    }

    /// All of SES's account list.
    pub fn account_suppressions() -> Self {
        Self::of(&["account-suppression"])
    }

    /// An entry of the list of a tenant's SES tenant, in SES's spelling. What follows a NUL is left out,
    /// for no part has one.
    pub fn ses_list(tenant: &TenantId, folded: &str, spelled: &str) -> Self {
        let part = |text: &str| text.split('\0').next().unwrap_or_default().to_owned();
        Self::of(&["ses-list", tenant.as_str(), &part(folded), &part(spelled)])
    }

    /// The entries of an address on that list, in whatever spelling.
    pub fn ses_list_of(tenant: &TenantId, folded: &str) -> Self {
        Self::of(&["ses-list", tenant.as_str(), folded.split('\0').next().unwrap_or_default()])
    }

    /// All of that list.
    pub fn ses_lists(tenant: &TenantId) -> Self {
        Self::of(&["ses-list", tenant.as_str()])
    }

    /// How far the comparison with a list of SES's has come; `None`: the account's.
    pub fn sync(tenant: Option<&TenantId>) -> Self {
        Self::of(&["sync", tenant.map_or("", TenantId::as_str)])
    }

    /// The run of soft bounces of an address.
    pub fn run(tenant: &TenantId, mailbox: &Mailbox) -> Self {
        Self::of(&["run", tenant.as_str(), &mailbox.folded()])
    }

    /// All runs of soft bounces.
    pub fn runs() -> Self {
        Self::of(&["run"])
    }

    /// One node's counts of a cohort.
    pub fn counter(tenant: &TenantId, stream: &StreamId, cohort: Cohort, node: &str) -> Self {
        let hour = format!("{:08x}", cohort.hour.0);
        match cohort.from_second {
            0 => Self::of(&["counter", tenant.as_str(), stream.as_str(), &hour, node]),
            from => Self::of(&["counter", tenant.as_str(), stream.as_str(), &hour, &format!("{node}~{from:04x}")]),
        }
    }

    /// One node's counts of a tenant's mail of a day (UTC, since the epoch) to a domain.
    pub fn domain(tenant: &TenantId, day: u32, domain: &str, node: &str) -> Self {
        Self::of(&["domain", tenant.as_str(), &format!("{day:08x}"), domain, node])
    }

    /// All counts by domain of a tenant's day.
    pub fn domains_of_day(tenant: &TenantId, day: u32) -> Self {
        Self::of(&["domain", tenant.as_str(), &format!("{day:08x}")])
    }

    /// All counts by domain of a tenant.
    pub fn domains_of(tenant: &TenantId) -> Self {
        Self::of(&["domain", tenant.as_str()])
    }

    /// All counts by domain.
    pub fn domains() -> Self {
        Self::of(&["domain"])
    }

    /// All counters of a tenant's stream.
    pub fn counters_of(tenant: &TenantId, stream: &StreamId) -> Self {
        Self::of(&["counter", tenant.as_str(), stream.as_str()])
    }

    /// All counters.
    pub fn counters() -> Self {
        Self::of(&["counter"])
    }

    /// That an event was applied, found by what it is.
    pub fn event_id(digest: &str) -> Self {
        Self::of(&["eventid", digest])
    }

    /// That an event was applied, found by when: what the janitor walks.
    pub fn event(hour: Hour, digest: &str) -> Self {
        Self::of(&["event", &format!("{:08x}", hour.0), digest])
    }

    /// All applied events in the order of the hours they were applied in.
    pub fn events() -> Self {
        Self::of(&["event"])
    }

    /// A message that `node` holds, due at a moment; an empty stream is the relay's own reports.
    pub fn outbox(node: &str, tenant: &TenantId, stream: Option<&StreamId>, due: Timestamp, id: MessageId) -> Self {
        let (due, id) = (format!("{:016x}", due.millis()), id.to_string());
        Self::of(&["outbox", node, tenant.as_str(), stream.map_or("", StreamId::as_str), &due, &id])
    }

    /// All messages that `node` holds.
    pub fn outbox_of(node: &str) -> Self {
        Self::of(&["outbox", node])
    }

    /// An entry of the audit trail. The moment counts down, so that the newest sorts first.
    pub fn audit(at: Timestamp, id: MessageId) -> Self {
        Self::of(&["audit", &countdown(at), &id.to_string()])
    }

    /// The place behind all entries of a moment: what follows is older. Nothing is stored there.
    pub fn audit_place(at: Timestamp) -> Self {
        // No id begins with it.
        Self::of(&["audit", &countdown(at), "~"])
    }

    /// The whole audit trail.
    pub fn audits() -> Self {
        Self::of(&["audit"])
    }

    /// An announcement.
    pub fn announcement(id: MessageId) -> Self {
        Self::of(&["announce", &id.to_string()])
    }

    /// All announcements in the order they were made.
    pub fn announcements() -> Self {
        Self::of(&["announce"])
    }

    /// Whether `prefix` begins this key.
    pub fn begins_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }
}

fn countdown(at: Timestamp) -> String {
    format!("{:016x}", u64::MAX - at.millis())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0).trim_end_matches('\0').replace('\0', "/"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_encodings() {
        let tenant = TenantId::parse("acme").unwrap();
        let stream = StreamId::parse("marketing").unwrap();
        assert_eq!(Key::tenant(&tenant).octets(), b"tenant\0acme\0");
        assert_eq!(Key::stream(&tenant, &stream).octets(), b"stream\0acme\0marketing\0");
        assert_eq!(Key::pause(&tenant, None).octets(), b"pause\0acme\0\0");
        assert_eq!(
            Key::counter(&tenant, &stream, Cohort::of(Hour(0x7_9abc)), "n1").octets(),
            b"counter\0acme\0marketing\x0000079abc\0n1\0"
        );
        assert_eq!(
            Key::counter(&tenant, &stream, Cohort { hour: Hour(0x7_9abc), from_second: 3599 }, "n1").octets(),
            b"counter\0acme\0marketing\x0000079abc\0n1~0e0f\0"
        );
        assert_eq!(Key::standing(&tenant, None).octets(), b"standing\0acme\0\0");
        assert_eq!(Key::exposure(&tenant, &stream).octets(), b"exposure\0acme\0marketing\0");
        assert_eq!(Key::ladder(&tenant, &stream).octets(), b"ladder\0acme\0marketing\0");
        assert_eq!(Key::ses_status(&"acme".parse().unwrap()).octets(), b"sesstatus\0acme\0");
        assert_eq!(
            Key::domain(&tenant, 0x4abc, "gmail.com", "n1").octets(),
            b"domain\0acme\x0000004abc\0gmail.com\0n1\0"
        );
        let username = Username::parse("acme-app").unwrap();
        assert_eq!(Key::credential_hold(&username).octets(), b"credentialhold\0acme-app\0");
        assert_eq!(Key::habit(&username).octets(), b"habit\0acme-app\0");
        assert_eq!(Key::habit_filter(&username, 31).octets(), b"habitfilter\0acme-app\x001f\0");
        assert_eq!(Key::domains_of_day(&tenant, 0x4abc).octets(), b"domain\0acme\x0000004abc\0");
        assert_eq!(Key::event_id("00ff").octets(), b"eventid\x0000ff\0");
        assert_eq!(Key::event(Hour(1), "00ff").octets(), b"event\x0000000001\x0000ff\0");
        let id = MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
        assert_eq!(
            Key::outbox("main", &tenant, Some(&stream), Timestamp::from_millis(0x1_9abc), id).octets(),
            b"outbox\0main\0acme\0marketing\x000000000000019abc\x0001ARZ3NDEKTSV4RRFFQ69G5FAV\0"
        );
        assert_eq!(
            Key::audit(Timestamp::from_millis(0x1_9abc), id).octets(),
            b"audit\0fffffffffffe6543\x0001ARZ3NDEKTSV4RRFFQ69G5FAV\0"
        );
        assert_eq!(Key::announcement(id).octets(), b"announce\x0001ARZ3NDEKTSV4RRFFQ69G5FAV\0");
    }

    #[test]
    fn the_keys_of_a_tenant_begin_with_its_prefixes() {
        let (tenant, other) = (TenantId::parse("acme").unwrap(), TenantId::parse("acme-two").unwrap());
        let stream = StreamId::parse("marketing").unwrap();
        let mailbox = Mailbox::parse(b"Joe@Acme.example").unwrap();
        for (key, prefix) in [
            (Key::sender(&tenant, "acme.example"), Key::senders_of as fn(&TenantId) -> Key),
            (Key::stream(&tenant, &stream), Key::streams_of),
            (Key::pause(&tenant, None), Key::pauses_of),
            (Key::pause(&tenant, Some(&stream)), Key::pauses_of),
            (Key::suppression(&tenant, &mailbox, SuppressionReason::Bounce), Key::suppressions),
        ] {
            assert!(key.begins_with(&prefix(&tenant)), "{key}");
            assert!(!key.begins_with(&prefix(&other)), "{key}");
        }
    }

    #[test]
    fn an_address_has_an_entry_a_reason_in_the_order_of_reasons() {
        let tenant = TenantId::parse("acme").unwrap();
        let mailbox = Mailbox::parse(b"Joe@Acme.example").unwrap();
        let keys = SuppressionReason::ALL.map(|reason| Key::suppression(&tenant, &mailbox, reason));
        let golden: [&[u8]; 4] = [
            b"suppression\0acme\0joe@acme.example\0bounce\0",
            b"suppression\0acme\0joe@acme.example\0complaint\0",
            b"suppression\0acme\0joe@acme.example\0manual\0",
            b"suppression\0acme\0joe@acme.example\0soft\0",
        ];
        assert_eq!(keys.each_ref().map(Key::octets), golden);
        assert!(keys.is_sorted());
        assert!(keys.iter().all(|key| key.begins_with(&Key::suppressions_of(&tenant, &mailbox))));
        let account = Key::account_suppression(&mailbox, SuppressionReason::Complaint);
        assert_eq!(account.octets(), b"account-suppression\0joe@acme.example\0complaint\0");
        assert!(account.begins_with(&Key::account_suppressions()));
        let spelled = Key::ses_list(&tenant, "joe@acme.example", "Joe@Acme.example");
        assert_eq!(spelled.octets(), b"ses-list\0acme\0joe@acme.example\0Joe@Acme.example\0");
        assert!(spelled.begins_with(&Key::ses_list_of(&tenant, "joe@acme.example")));
        assert_eq!(Key::ses_list(&tenant, "a\0b", "c\0d").octets(), b"ses-list\0acme\0a\0c\0");
        assert_eq!(Key::sync(None).octets(), b"sync\0\0");
        assert_eq!(Key::sync(Some(&tenant)).octets(), b"sync\0acme\0");
        assert_eq!(Key::run(&tenant, &mailbox).octets(), b"run\0acme\0joe@acme.example\0");
        // Neither a longer domain nor a longer local part is the same address.
        for other in [b"joe@acme.example.net".as_slice(), b"joe2@acme.example"] {
            let other = Key::suppression(&tenant, &Mailbox::parse(other).unwrap(), SuppressionReason::Bounce);
            assert!(!other.begins_with(&Key::suppressions_of(&tenant, &mailbox)), "{other}");
        }
        let place = |folded| Key::suppression_place(&tenant, folded, SuppressionReason::Complaint);
        assert_eq!(place("joe@acme.example"), keys[1]);
        assert_eq!(place("joe\0x").octets(), b"suppression\0acme\0joe\0complaint\0");
    }

    #[test]
    fn a_tenants_keys_are_no_prefix_of_a_longer_named_ones() {
        let short = TenantId::parse("acme").unwrap();
        let long = TenantId::parse("acme-two").unwrap();
        let key = Key::stream(&long, &StreamId::parse("x").unwrap());
        assert!(!key.begins_with(&Key::counters_of(&short, &StreamId::parse("x").unwrap())));
        assert!(!Key::tenant(&long).begins_with(&Key::tenant(&short)));
    }
}
