//! Whose event is it? Pure.
//!
//! | the event has | it is of |
//! |---|---|
//! | our tag `tenant`, naming a tenant | that tenant |
//! | else `ses:configuration-set`, a stream's | that stream's tenant |
//! | else neither, nor an SES tenant (identity notifications have no tags) | the one tenant that may send as `mail.source` |
//! | else | nobody |
//!
//! The stream is our tag `stream`; when the tenant is known by our own tag, as it stands, for the
//! mail was counted under that name even if the stream is gone since. Otherwise the tag is believed
//! if the tenant has such a stream; else it is the configuration set's, else the default stream.
//!
//! A tenant whose record is damaged is not in the directory, and its events are not nobody's for it:
//! what our tags say is believed as ever, and of the rest it is not told while that lasts.
//!
//! Promises: nothing that a client can write decides: our tags go over the client's, and the header
//! section is not looked at.

use crate::event::kind::Mail;
use crate::journal::Owner;
use crate::mail::StreamId;
use crate::policy::tenant::Tenant;
use crate::store::directory::Directory;

/// Whose `mail` is; the stream is always named.
pub fn owner(directory: &Directory, mail: &Mail) -> Option<Owner> {
    let of_set = mail.configuration_set.as_ref().and_then(|set| directory.owner_of_set(set));
    if let Some(tenant) = mail.tenant.as_ref().and_then(|id| directory.tenant(id)) {
        let stream =
            mail.stream.clone().unwrap_or_else(|| fallback(tenant, of_set.map(|(of, id)| (of == &tenant.id, id))));
        return Some(Owner { tenant: tenant.id.clone(), stream: Some(stream) });
    }
    if let (Some(id), Some(stream)) = (&mail.tenant, &mail.stream)
        && directory.tenant_is_damaged(id)
    {
        return Some(Owner { tenant: id.clone(), stream: Some(stream.clone()) });
    }
    let untagged = mail.tenant.is_none() && mail.configuration_set.is_none() && mail.ses_tenant.is_none();
    let (tenant, set_stream) = match of_set {
        Some((id, stream)) => (directory.tenant(id)?, Some((true, stream))),
        None if untagged => (directory.owner_of_sender(mail.source.as_ref()?)?, None),
        None => return None,
    };
    let tagged = mail.stream.clone().filter(|id| tenant.streams.contains_key(id));
    let stream = tagged.unwrap_or_else(|| fallback(tenant, set_stream));
    Some(Owner { tenant: tenant.id.clone(), stream: Some(stream) })
}

/// Whether an event without an owner may be of a tenant whose record is damaged.
pub fn cannot_be_told(directory: &Directory) -> bool {
    directory.faults().iter().any(|fault| fault.tenant.is_some())
}

/// The configuration set's stream where the set is the tenant's own, else the default stream.
fn fallback(tenant: &Tenant, of_set: Option<(bool, &StreamId)>) -> StreamId {
    match of_set {
        Some((true, stream)) => stream.clone(),
        Some((false, _)) | None => tenant.default_stream.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Mailbox;
    use crate::policy::tenant::{SenderPattern, Stream, StreamKind};
    use crate::time::Timestamp;

    fn tenant(id: &str, senders: &[&str], streams: &[&str]) -> Tenant {
        let stream = |name: &&str| Stream {
            suppress_on: Vec::new(),
            ..Stream::new(name.parse().unwrap(), StreamKind::Bulk, format!("{id}-{name}").parse().unwrap())
        };
        Tenant {
            senders: senders.iter().map(|text| SenderPattern::parse(text).unwrap()).collect(),
            streams: streams.iter().map(stream).map(|stream| (stream.id.clone(), stream)).collect(),
            ..Tenant::new(id.parse().unwrap(), streams[0].parse().unwrap())
        }
    }

    /// `tenant stream set ses-tenant source`, `-` for what is not there.
    fn whose(line: &str) -> String {
        let acme = tenant("acme", &["acme.example", "shared.example"], &["main", "news"]);
        let other = tenant("other", &["other.example", "shared.example"], &["main", "bulk"]);
        let directory = Directory::new([acme, other], []);
        let mut words = line.split_whitespace().map(|word| (word != "-").then_some(word));
        let mut next = || words.next().unwrap();
        let mail = Mail {
            tenant: next().map(|tag| tag.parse().unwrap()),
            stream: next().map(|tag| tag.parse().unwrap()),
            configuration_set: next().map(|tag| tag.parse().unwrap()),
            ses_tenant: next().map(|tag| tag.parse().unwrap()),
            source: next().map(|text| Mailbox::parse(text.as_bytes()).unwrap()),
            message_id: "m".into(),
            timestamp: Timestamp::default(),
            destination: Vec::new(),
            credential: None,
        };
        owner(&directory, &mail).map_or_else(|| "nobody".into(), |it| format!("{}/{}", it.tenant, it.stream.unwrap()))
    }

    #[test]
    fn the_table_of_owners() {
        for (line, owner) in [
            // our own tag, whatever else there is
            ("acme news acme-news - a@acme.example", "acme/news"),
            ("acme news other-bulk other a@other.example", "acme/news"),
            ("acme gone acme-gone - a@acme.example", "acme/gone"),
            ("acme - acme-news - a@acme.example", "acme/news"),
            ("acme - other-bulk - a@acme.example", "acme/main"),
            ("acme - - - -", "acme/main"),
            // the configuration set
            ("- - other-bulk - a@acme.example", "other/bulk"),
            ("- main other-bulk - a@acme.example", "other/main"),
            ("- news other-bulk - a@acme.example", "other/bulk"),
            ("gone news other-bulk - a@acme.example", "other/bulk"),
            // the source, without any tag
            ("- - - - a@acme.example", "acme/main"),
            ("- - - - a@deep.other.example", "other/main"),
            ("- - - - a@shared.example", "nobody"),
            ("- - - - a@unheard.example", "nobody"),
            ("- - - - -", "nobody"),
            // tags that name none of ours are not overruled by the source
            ("gone - - - a@acme.example", "nobody"),
            ("- - foreign-set - a@acme.example", "nobody"),
            ("- - - foreign a@acme.example", "nobody"),
        ] {
            assert_eq!(whose(line), owner, "{line}");
        }
    }
}
