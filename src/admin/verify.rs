//! The command that checks the store, and what to do about what it finds.

use std::fmt::Write as _;

use super::command::{Desk, Response};
use super::error::CommandError;
use super::view::{FaultView, Verified};
use crate::outbox::verify::{Checked, Fault, Kind, verify};
use crate::store::Key;

/// Checks a page that begins behind `after`, the [`Verified::next`] of the page before.
pub(super) async fn page(desk: &Desk, after: Option<&str>) -> Result<Response, CommandError> {
    let after = after.map(|place| key(place).ok_or(CommandError::NoPlace)).transpose()?;
    let now = desk.clock.now();
    let checked = match (&desk.outbox, &desk.files) {
        (Some(outbox), _) => outbox.verify(after.as_ref(), now).await?,
        (None, Some((spool, node))) => verify(&*desk.store, Some((&**spool, node)), after.as_ref(), now).await?,
        (None, None) => verify(&*desk.store, None, after.as_ref(), now).await?,
    };
    let Checked { records, messages, bytes, files, faults, faults_in_all, next } = checked;
    Ok(Response::Verified(Verified {
        records,
        messages,
        bytes,
        files,
        outbox: desk.outbox.is_some() || desk.files.is_some(),
        faults_in_all,
        faults: faults.into_iter().map(shown).collect(),
        next: next.as_ref().map(place),
    }))
}

fn shown(fault: Fault) -> FaultView {
    let Fault { kind, name, words } = fault;
    let kind_word = match kind {
        Kind::Record => "record",
        Kind::Row => "row",
        Kind::Missing => "missing",
        Kind::Body => "body",
        Kind::Mismatch => "mismatch",
        Kind::Stray => "stray",
    };
    FaultView { kind: kind_word.into(), cure: cure(kind, &name), name, fault: words }
}

fn cure(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Record => of_record(name).into(),
        Kind::Row => {
            "stop the relay and give `bulkhead store rebuild`, which makes the rows anew out of the body files".into()
        }
        Kind::Missing => format!(
            "the message is lost, unless a backup has outbox/{name}; then put that in place, else `bulkhead outbox discard {name}`"
        ),
        Kind::Body => format!(
            "the message cannot be sent; put outbox/{name} back from a backup, or `bulkhead outbox discard {name}`, and look to the disk"
        ),
        Kind::Mismatch => {
            "stop the relay and give `bulkhead store rebuild`, which goes by what the body files say".into()
        }
        Kind::Stray => {
            "none is needed: the next start of the relay removes it, since its message has served, or takes it up, if the store is older than the files".into()
        }
    }
}

/// What to do about a damaged record, by what it is about.
fn of_record(key: &str) -> &'static str {
    match key.split('/').next().unwrap_or_default() {
        "tenant" | "sender" | "stream" => {
            "apply a tenants file that declares it, or restore a backup; the tenant's mail is deferred until then"
        }
        "credential" => {
            "apply the tenants file that declares it, or issue it anew with `bulkhead credential issue`; its logins hear 454 until then"
        }
        "pause" => "`bulkhead tenant resume` ends the pause, which holds until then",
        "suppression" => "put the entry on the list anew with `bulkhead suppression add`",
        "audit" => "none is needed: what one command did is no longer known but from the log",
        "announce" => "none is needed: somebody may not be told of something that the audit trail has",
        "run" => "none is needed: the address's next soft bounce writes it anew",
        "account-suppression" | "ses-list" | "sync" => {
            "none is needed: the next comparison with SES's lists writes it anew"
        }
        "counter" => "none is needed: the counts of one hour are lost",
        "event" | "eventid" => "none is needed: an event that SES tells again may be applied twice",
        "outbox" => "it is another node's: check there, with that node's settings",
        _ => "restore a backup",
    }
}

/// A key as the place to go on from: its octets in hexadecimal.
fn place(key: &Key) -> String {
    key.octets().iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn key(place: &str) -> Option<Key> {
    let pairs = place.as_bytes().chunks(2);
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(octet).collect::<Option<Vec<u8>>>().map(Key::from_octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_key_and_back() {
        let odd = Key::from_octets(&b"\x00kind\xff\x00"[..]);
        assert_eq!(key(&place(&odd)), Some(odd));
        for none in ["zz", "é"] {
            assert_eq!(key(none), None, "{none}");
        }
    }
}
