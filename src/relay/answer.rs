//! A session's questions, answered: who logs in, who may send from where and to whom.
//!
//! Promises: every question reads the directory of that moment, so a credential that was revoked,
//! rotated away or moved since the login ends the session at its next command, and a pause is heard
//! at the next MAIL. A tenant's login succeeds while it is paused: MAIL then says that it is paused
//! and why, where a refused login would send people looking for a wrong password. So it is with a
//! credential on hold.
//! What can go wrong: the store does not answer, or the record of the tenant or the credential has
//! become unreadable (451, nothing is lost); verification is busy, or a record is damaged (454).

use std::net::SocketAddr;
use std::sync::Arc;

use super::admission::Place;
use super::login::{NoLogin, still_stands};
use super::memory::Share;
use super::message::Message;
use super::{Bounds, Office, wording};
use crate::journal::{self, Blame};
use crate::mail::{Login, Mailbox, ReversePath, SessionId, TenantId};
use crate::outbox::Draft;
use crate::policy::decide::{self, Reason, Stop};
use crate::policy::tenant::Tenant;
use crate::secret::Secret;
use crate::smtp::{Answer, Question, Refusal, reply};
use crate::store::suppressions;

/// What a login hears that no tenant stands behind.
#[derive(Debug)]
pub(super) struct Turned {
    pub(super) refusal: Refusal,
    pub(super) blame: Blame,
}

/// One session's side of the questions.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) office: Arc<Office>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) session: SessionId,
    pub(super) peer: SocketAddr,
    /// Its place among its tenant's connections, once it is logged in.
    pub(super) place: Option<Place<TenantId>>,
}

impl Conversation {
    /// The answer to `question`; `secure` whether TLS is up. A message takes over `share`, the
    /// memory its data is counted in, until it has its verdict, and `draft`, where its data was
    /// spilled to.
    pub(super) async fn answer(
        &mut self,
        question: Question,
        secure: bool,
        share: Share,
        draft: Option<Box<dyn Draft>>,
    ) -> Answer {
        match question {
            Question::Authenticate { username, secret, mechanism: _ } => {
                Answer::Login(self.authenticate(&username, secret).await)
            }
            Question::Sender { login, reverse_path } => Answer::Path(self.sender(&login, &reverse_path)),
            Question::Recipient { login, forward_path } => Answer::Path(self.recipient(&login, &forward_path).await),
            Question::Accept { login, envelope, data, helo } => {
                let message = Message {
                    office: Arc::clone(&self.office),
                    bounds: Arc::clone(&self.bounds),
                    session: self.session,
                    peer: self.peer,
                    secure,
                    login,
                    envelope,
                    data,
                    draft,
                    helo,
                    share,
                };
                // By far the largest state: not to be made room for at every MAIL and RCPT.
                Answer::Accept(Box::pin(message.accept_to_the_end()).await)
            }
        }
    }

    async fn authenticate(&mut self, username: &str, secret: Secret) -> Result<Arc<Login>, Refusal> {
        let office = &self.office;
        let directory = office.means.directory.load_full();
        let (now, instant) = (office.means.clock.now(), office.means.clock.instant());
        let verified = office.verifier.verify(&directory, username, secret, self.peer.ip(), now, instant).await;
        let login = verified.map_err(|cause| match cause {
            NoLogin::Busy | NoLogin::Damaged => {
                journal::login_deferred(self.session, self.peer, &cause.to_string());
                reply::authentication_unavailable()
            }
            NoLogin::Unknown | NoLogin::WrongSecret | NoLogin::Expired | NoLogin::Network | NoLogin::NoTenant => {
                journal::login_refused(self.session, self.peer, username, &cause.to_string());
                reply::credentials_invalid()
            }
        })?;
        let Some(place) = office.gate.tenant(&login.tenant) else {
            let refusal = wording::too_many_of_tenant();
            journal::session_refused(self.peer, "connections_per_tenant", refusal.reply());
            return Err(refusal);
        };
        self.place = Some(place);
        journal::login_accepted(self.session, self.peer, &login);
        Ok(Arc::new(login))
    }

    fn sender(&self, login: &Login, reverse_path: &ReversePath) -> Result<(), Refusal> {
        let judged = self.office.tenant_of(login, self.peer).and_then(|tenant| {
            let verdict = decide::sender(&tenant, login, reverse_path).into_result();
            verdict.map_err(|stop| Turned::by(&stop))
        });
        judged.map_err(|Turned { refusal, blame }| {
            journal::sender_refused(self.session, self.peer, login, reverse_path, refusal.reply(), blame);
            refusal
        })
    }

    async fn recipient(&self, login: &Login, forward_path: &Mailbox) -> Result<(), Refusal> {
        let office = &self.office;
        let tenant = office.tenant_of(login, self.peer).map_err(|Turned { refusal, blame }| {
            let reply = refusal.reply();
            journal::recipient_deferred(self.session, login, forward_path, reply, &reply.text(), blame);
            refusal
        })?;
        let account = self.bounds.limits.account_list;
        let entries = suppressions::binding(&*office.means.store, &login.tenant, forward_path, account);
        let entries = entries.await.map_err(|error| {
            let refusal = wording::store_unavailable();
            let (reply, reason) = (refusal.reply(), error.to_string());
            journal::recipient_deferred(self.session, login, forward_path, reply, &reason, Blame::Us);
            refusal
        })?;
        let verdict = decide::recipient(&tenant, login, &entries, office.means.clock.now());
        verdict.into_result().map_err(|stop| {
            let refusal = wording::stopped(&stop);
            match stop.reason() {
                Reason::Suppressed { .. } => {
                    let stream = login.stream.as_ref();
                    journal::recipient_suppressed(self.session, login, stream, forward_path, refusal.reply());
                }
                reason => {
                    let (reply, name) = (refusal.reply(), reason.name());
                    journal::recipient_deferred(self.session, login, forward_path, reply, name, blame_of(reason));
                }
            }
            refusal
        })
    }
}

impl Office {
    /// The tenant that `login` speaks for, as it is now. When it no longer may, the refusal ends the
    /// session: the client logs in again and hears the truth there.
    /// What is only unreadable is not gone: it is deferred, and the session goes on.
    pub(super) fn tenant_of(&self, login: &Login, peer: SocketAddr) -> Result<Arc<Tenant>, Turned> {
        let directory = self.means.directory.load();
        if directory.tenant_is_damaged(&login.tenant) || directory.credential_is_damaged(&login.credential) {
            return Err(Turned { refusal: wording::record_damaged(), blame: Blame::Us });
        }
        let tenant = directory.tenant(&login.tenant);
        let stands = still_stands(&directory, login, peer.ip(), self.means.clock.now());
        let hold = directory.hold(&login.credential);
        let judged = decide::standing(tenant.map(|tenant| &**tenant), login, stands)
            .into_result()
            .and_then(|_| decide::credential(login, hold).into_result());
        match (judged, tenant) {
            (Ok(()), Some(tenant)) => Ok(Arc::clone(tenant)),
            (Err(stop), _) => Err(Turned::by(&stop)),
            // Standing is granted to a tenant that is there.
            (Ok(()), None) => Err(Turned::by(&Stop::Defer(Reason::TenantGone, None))),
        }
    }
}

impl Turned {
    fn by(stop: &Stop) -> Self {
        Self { refusal: wording::stopped(stop), blame: blame_of(stop.reason()) }
    }
}

/// Whose fault a decision is.
pub(super) fn blame_of(reason: &Reason) -> Blame {
    if reason.is_operators() { Blame::Us } else { Blame::Client }
}
