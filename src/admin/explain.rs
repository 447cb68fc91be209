//! `explain`: the chain of rules for one message, and what the gate would come to.

use std::collections::BTreeMap;

use super::command::{Desk, Response, nearest};
use super::error::CommandError;
use super::tenants::{find, history, is_young};
use super::view::{ExplainView, StepView, VerdictView};
use crate::mail::{Login, Mailbox, TenantId, Username};
use crate::outbox::Lane;
use crate::policy::decide::Stop;
use crate::policy::explain::{self, Ask, Gate, Stopped};
use crate::policy::tenant::{Handoff, Stream};
use crate::store::suppressions;

/// Who is presumed to ask where no credential is named: one that is bound to no stream.
const ANY: &str = "any";

/// What is asked of one message.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) tenant: TenantId,
    pub(super) from: Mailbox,
    pub(super) to: Mailbox,
    pub(super) stream: Option<String>,
    pub(super) credential: Option<Username>,
}

pub(super) async fn explain(desk: &Desk, question: Question) -> Result<Response, CommandError> {
    let Question { tenant: id, from, to, stream: wish, credential } = question;
    let directory = desk.directory.load_full();
    if directory.tenant_is_damaged(&id) {
        return Err(CommandError::Damaged { words: format!("a record of tenant {id} cannot be read") });
    }
    let tenant = find(&directory, &id)?;
    let now = desk.clock.now();
    let named = credential.as_ref().map(|username| match directory.credential(username) {
        Some(credential) if credential.tenant == id => Ok(credential),
        Some(_) | None => {
            let own = directory.credentials().filter(|credential| credential.tenant == id);
            let near = nearest(username.as_str(), own.map(|credential| credential.username.as_str()));
            Err(CommandError::NoCredential { username: username.to_string(), near })
        }
    });
    let named = named.transpose()?;
    let login = Login {
        tenant: id.clone(),
        credential: credential.or_else(|| Username::parse(ANY).ok()).ok_or(CommandError::Fault)?,
        stream: named.and_then(|credential| credential.stream.clone()),
        secret_fingerprint: 0,
    };
    let entries = suppressions::find(&*desk.store, &id, &to).await?;
    let mut windows = BTreeMap::new();
    let mut first = None;
    for stream in tenant.streams.values() {
        let history = history(desk, tenant, stream, now).await?;
        first = first.into_iter().chain(history.first()).min();
        windows.insert(stream.id.clone(), history.windows());
    }
    let rules = desk.rules();
    let ask = Ask {
        tenant,
        login: &login,
        credential_stands: named.is_none_or(|credential| credential.live_secrets(now).next().is_some()),
        hold: named.and_then(|credential| directory.hold(&credential.username)),
        from: &from,
        entries: &entries,
        wish: wish.as_deref(),
        windows: &windows,
        rules: &rules,
        young: is_young(tenant, first, &rules, now),
        now,
    };
    let mut steps = explain::chain(&ask);
    let verdict = match explain::verdict(&ask) {
        Ok(stream) => {
            let gates = gates(desk, &id, stream);
            steps.extend(explain::at_outbox(&gates));
            taken(stream, gates.iter().find(|gate| !gate.open))
        }
        Err(Stopped { moment, stop }) => {
            let (outcome, until) = match &stop {
                Stop::Defer(_, until) => ("deferred", *until),
                Stop::Refuse(_) => ("refused", None),
            };
            VerdictView {
                outcome: outcome.into(),
                moment: Some(moment),
                rule: Some(explain::rule_for(moment, stop.reason()).into()),
                reason: Some(stop.reason().name().into()),
                stream: None,
                reply: desk.words(&stop),
                clears: until.map(crate::time::Timestamp::rfc3339),
            }
        }
    };
    Ok(Response::Explained(Box::new(ExplainView {
        tenant: id,
        credential: named.map(|credential| credential.username.clone()),
        from: from.to_string(),
        to: to.to_string(),
        steps: steps.into_iter().map(StepView::of).collect(),
        verdict,
    })))
}

/// What an accepted message meets: what its lane waits for, then what others have to say.
fn gates(desk: &Desk, tenant: &crate::mail::TenantId, stream: &Stream) -> Vec<Gate> {
    let lane = Lane { tenant: tenant.clone(), stream: Some(stream.id.clone()) };
    let now = desk.clock.now();
    let gate = |name: &str, value: String, limit: &str, open| Gate {
        name: name.into(),
        value,
        limit: limit.into(),
        open,
        until: None,
    };
    let through = stream.handoff == Handoff::Through;
    let mut gates = vec![gate("handoff", stream.handoff.word().into(), "through: SES first, then the outbox", through)];
    if desk.sends() {
        let behind = desk.behind(&lane);
        let words = behind.as_ref().map_or_else(|| "nothing keeps it".into(), |(why, _)| why.clone());
        gates.push(Gate {
            until: behind.as_ref().and_then(|(_, wait)| wait.map(|wait| now.plus(wait))),
            ..gate("the stream's mail", words, "nothing that keeps it: no breaker, no hold", behind.is_none())
        });
    }
    if let Some(outbox) = &desk.outbox {
        let state = outbox.with_index(|index| index.lane(&lane));
        let words = format!("{} ready, {} waiting, {} being sent", state.ready, state.waiting, state.active);
        gates.push(gate("backlog", words, "none that goes before", state.ready + state.active == 0));
    }
    gates.extend(desk.gates(&lane));
    gates
}

fn taken(stream: &Stream, shut: Option<&Gate>) -> VerdictView {
    let (outcome, reply) = match shut {
        None => ("relayed", "250 2.0.0 Ok <Amazon SES's message id>"),
        Some(_) => ("held", "250 2.0.0 queued as <id>"),
    };
    VerdictView {
        outcome: outcome.into(),
        moment: shut.map(|_| explain::Moment::Outbox),
        rule: shut.map(|gate| gate.name.clone()),
        reason: None,
        stream: Some(stream.id.clone()),
        reply: reply.into(),
        clears: shut.and_then(|gate| gate.until).map(crate::time::Timestamp::rfc3339),
    }
}
