//! The relay's own mail about held messages: a delivery status notification (RFC 3464) to the
//! reverse-path, where the stream asks for it, and a notice to the tenant's contact.
//!
//! Promises: a message with a null reverse-path, and a report itself, are never reported on, so no
//! two systems answer each other for ever; what is said of a message is its header section's first
//! lines and what became of each recipient, never its body; a contact gets one notice an hour at the
//! most. Reports are held like any mail and go out in a lane of their own, which a pause of the
//! tenant's does not hold up.
//! Refuses: to send any without a sender and a configuration set of the relay's own (`[notify]`).
//! What can go wrong: the outbox is full; then there is no report, and the log has the line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Dispatch, Reports};
use crate::journal;
use crate::mail::{Mailbox, MessageId, ReversePath, TenantId};
use crate::outbox::{Cause, Content, Holding, Manifest, Mark, Progress, Start};
use crate::time::Timestamp;

/// How long a contact is left alone after a notice.
const SILENCE: Duration = Duration::from_secs(3600);
/// Tenants whose last notice is remembered.
const TENANTS: usize = 10_000;
/// How long a report is tried.
const AGE: Duration = Duration::from_secs(24 * 3600);
/// Longest text of a reason.
const WORDS: usize = 300;

/// When each tenant's contact was last told.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<HashMap<TenantId, Instant>>);

impl Notices {
    fn is_due(&self, tenant: &TenantId, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Instant| now.saturating_duration_since(*at) < SILENCE;
        if told.get(tenant).is_some_and(recent) {
            return false;
        }
        if told.len() >= TENANTS {
            told.retain(|_, at| recent(at));
        }
        if told.len() >= TENANTS {
            return false;
        }
        told.insert(tenant.clone(), now);
        true
    }
}

/// What a report tells.
#[derive(Debug)]
struct Failure<'a> {
    hostname: &'a str,
    reports: &'a Reports,
    manifest: &'a Manifest,
    marks: &'a Progress,
    why: &'a str,
    expired: bool,
    now: Timestamp,
}

impl Dispatch {
    /// Reports on a message that is done with and that somebody will not get: those whose mark is
    /// refused, and if it `expired` those that are open.
    pub(super) async fn report(self: &Arc<Self>, manifest: &Manifest, marks: &Progress, why: &str, expired: bool) {
        let (Some(reports), Some(stream)) = (&self.options.reports, &manifest.stream) else { return };
        let directory = self.means.directory.load_full();
        let Some(tenant) = directory.tenant(&manifest.tenant) else { return };
        let (hostname, now) = (self.options.hostname.as_str(), self.means.clock.now());
        let failure = Failure { hostname, reports, manifest, marks, why, expired, now };
        let wants_dsn = tenant.streams.get(stream).is_some_and(|stream| stream.dsn);
        if let (true, ReversePath::Mailbox(sender)) = (wants_dsn, &manifest.reverse_path) {
            self.send_report(&failure, sender, "dsn", dsn).await;
        }
        if let Some(contact) = &tenant.contact
            && self.notices.is_due(&manifest.tenant, self.means.clock.instant())
        {
            self.send_report(&failure, contact, "notice", notice).await;
        }
    }

    async fn send_report(
        self: &Arc<Self>,
        failure: &Failure<'_>,
        to: &Mailbox,
        kind: &'static str,
        text: fn(&Failure<'_>, &Mailbox, MessageId) -> String,
    ) {
        let (now, about) = (failure.now, failure.manifest);
        let id = MessageId::new(now, &*self.means.random);
        let manifest = Manifest {
            id,
            session: about.session,
            tenant: about.tenant.clone(),
            stream: None,
            credential: about.credential.clone(),
            reverse_path: ReversePath::Null,
            recipients: vec![to.clone()],
            claims: vec![failure.reports.from.clone()],
            tags: vec![("report".into(), kind.into())],
            created: now,
            expires: now.plus(AGE),
            digest: None,
        };
        let content = Content { first: vec![Bytes::from(text(failure, to, id))], draft: None };
        let holding = Holding {
            manifest: &manifest,
            content: &content,
            progress: Progress::none(1),
            cause: Cause::Handoff,
            words: "",
            unknown: 0,
            until: Start::Ready,
        };
        match self.means.outbox.hold(holding).await {
            Ok(_) => journal::report_queued(about.id, id, &about.tenant, kind, to),
            Err(error) => journal::report_lost(about.id, &about.tenant, kind, &error.to_string()),
        }
    }
}

impl Failure<'_> {
    /// Those who will not get the message.
    fn failed(&self) -> impl Iterator<Item = &Mailbox> {
        self.manifest.recipients.iter().enumerate().filter_map(|(at, recipient)| match self.marks.of(at) {
            Mark::Refused => Some(recipient),
            Mark::Open if self.expired => Some(recipient),
            Mark::Open | Mark::Taken => None,
        })
    }

    fn status(&self) -> &'static str {
        if self.expired { "5.4.7" } else { "5.0.0" }
    }

    fn what(&self) -> &'static str {
        if self.expired { "could not be sent in time and was given up" } else { "was refused after it was accepted" }
    }

    fn why(&self) -> String {
        plain(self.why)
    }

    fn header(&self, to: &Mailbox, id: MessageId, subject: &str) -> String {
        format!(
            "From: Bulkhead at {host} <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}@{host}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n",
            host = self.hostname,
            from = self.reports.from,
            date = self.now.rfc5322(),
        )
    }
}

/// A delivery status notification (RFC 3464): for a person, and for a program.
fn dsn(failure: &Failure<'_>, to: &Mailbox, id: MessageId) -> String {
    let about = failure.manifest;
    let boundary = format!("bulkhead-{id}");
    let mut text = failure.header(to, id, "Delivery status notification (failure)");
    let _ = write!(
        text,
        "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nYour message of {date} {what}:\r\n{why}\r\n\r\nIt did not reach:\r\n",
        date = about.created.rfc5322(),
        what = failure.what(),
        why = failure.why(),
    );
    for recipient in failure.failed() {
        let _ = write!(text, "  <{recipient}>\r\n");
    }
    let _ = write!(
        text,
        "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {host}\r\nX-Bulkhead-Message: {message}\r\nArrival-Date: {date}\r\n",
        host = failure.hostname,
        message = about.id,
        date = about.created.rfc5322(),
    );
    for recipient in failure.failed() {
        let _ = write!(
            text,
            "\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: {status}\r\nDiagnostic-Code: x-bulkhead; {why}\r\nLast-Attempt-Date: {now}\r\n",
            status = failure.status(),
            why = failure.why(),
            now = failure.now.rfc5322(),
        );
    }
    let _ = write!(text, "\r\n--{boundary}--\r\n");
    text
}

/// A notice to whoever looks after the tenant's mail.
fn notice(failure: &Failure<'_>, to: &Mailbox, id: MessageId) -> String {
    let about = failure.manifest;
    let (tenant, stream) = (&about.tenant, about.stream.as_ref().map_or("", |stream| stream.as_str()));
    let mut text = failure.header(to, id, &format!("Mail of {tenant} was not sent"));
    let _ = write!(
        text,
        "Content-Type: text/plain; charset=us-ascii\r\n\r\nA message of tenant {tenant}, stream {stream}, {what}.\r\n\r\nmessage:    {message}\r\naccepted:   {date}\r\nrecipients: {failed} of {all} did not get it\r\nreason:     {why}\r\n\r\nOther messages may share its fate; you hear of it once an hour at the most.\r\n`bulkhead outbox list --tenant {tenant}` shows what still waits, and why.\r\n",
        what = failure.what(),
        message = about.id,
        date = about.created.rfc3339(),
        failed = failure.failed().count(),
        all = about.recipients.len(),
        why = failure.why(),
    );
    text
}

/// Somebody else's words on one line of printable US-ASCII.
fn plain(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(WORDS).map(printable).collect()
}
