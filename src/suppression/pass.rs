//! One pass over one of SES's lists.
//!
//! 1. *List.* Page after page; each entry is noted as seen by this pass. One of a tenant's list that was
//!    not known comes onto the tenant's own, unless what stands there binds as much. One that was known
//!    and is no longer on the tenant's own was taken off there, and is not brought back.
//! 2. *Gone.* What this pass has not seen SES has no longer: it goes, and with it the entry of the
//!    tenant's own list that SES's list alone had brought.
//! 3. *Put* ([`Mode::Both`]). What stands on the tenant's own list and in no spelling on SES's is put
//!    there: a complaint as one, all else as a bounce, for SES knows no other reasons. Soft bounces are
//!    not: they end by themselves.
//! 4. *Delete* ([`Mode::Both`]). What SES's list has and nothing on the tenant's own stands for is
//!    deleted there, in SES's spelling.
//!
//! Promises: after each step of a page all is in the store, so a pass that stops anywhere does the rest
//! when it goes on; a step that is done twice does no harm. What was put in the lower-case spelling of
//! our records is found again in it.

use std::collections::HashSet;

use super::{Fault, ListSync, Mode, Pace, Scope};
use crate::journal::{self, Synced};
use crate::mail::{Mailbox, SesTenant, TenantId};
use crate::policy::tenant::{Suppression, SuppressionReason};
use crate::store::mirror::{self, Mirrored, State};
use crate::store::{BATCH_ITEMS, Batch, CommitError, If, Key, record, suppressions};
use crate::time::Timestamp;
use crate::upstream::lists::{ListError, ListReason, Listed};

/// Entries of a page that are noted in one commit: each is two writes at most.
const TOGETHER: usize = BATCH_ITEMS / 2;
/// How often a commit is made anew when somebody else wrote first.
const TRIES: usize = 16;

impl ListSync {
    /// Brings the comparison with a list to its end, or up to what is in the way; `None`: it is not due.
    pub(super) async fn advance(&self, scope: &Scope, pace: &mut Pace) -> Result<Option<Synced>, Fault> {
        let now = self.clock.now();
        let known = mirror::state(&*self.store, scope.tenant()).await?;
        let same = |state: &State| state.ses_tenant.as_ref() == scope.ses_tenant();
        let state = match known {
            Some(state) if same(&state) && state.done.is_none() => state,
            Some(state) if same(&state) && state.done.is_some_and(|done| now < done.plus(self.options.every)) => {
                return Ok(None);
            }
            // A clock that was put back must not make what is seen now look unseen.
            Some(state) => State::begun(scope.ses_tenant().cloned(), now.max(state.pass.plus(MOMENT))),
            None => State::begun(scope.ses_tenant().cloned(), now),
        };
        let mut synced = Synced::default();
        let state = self.list(scope, state, pace, &mut synced).await?;
        match &scope.0 {
            None => self.gone_of_account(state.pass, &mut synced).await?,
            Some((tenant, ses_tenant)) => {
                self.gone(tenant, state.pass, &mut synced).await?;
                if self.options.mode == Mode::Both {
                    self.put(tenant, ses_tenant, state.pass, pace, &mut synced).await?;
                    self.delete(tenant, ses_tenant, pace, &mut synced).await?;
                }
            }
        }
        let mut batch = Batch::new();
        mirror::write_state(&mut batch, scope.tenant(), &State { done: Some(self.clock.now()), ..state });
        self.store.commit(batch).await?;
        journal::suppressions_synced(scope.tenant(), &synced);
        Ok(Some(synced))
    }

    /// Reads what pages are left.
    async fn list(
        &self,
        scope: &Scope,
        mut state: State,
        pace: &mut Pace,
        synced: &mut Synced,
    ) -> Result<State, Fault> {
        let mut may_begin_anew = true;
        while !state.listed {
            pace.turn().await;
            let page = match self.lists.list(scope.ses_tenant(), state.token.as_deref()).await {
                Ok(page) => page,
                // Tokens do not live for ever. Once: SES may refuse for another reason.
                Err(ListError::Refused(_)) if state.token.is_some() && may_begin_anew => {
                    may_begin_anew = false;
                    let pass = self.clock.now().max(state.pass.plus(MOMENT));
                    state = State::begun(state.ses_tenant, pass);
                    *synced = Synced::default();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            synced.listed += page.entries.len();
            for some in page.entries.chunks(TOGETHER) {
                match scope.tenant() {
                    None => self.note_of_account(some, state.pass).await?,
                    Some(tenant) => synced.added += self.note(tenant, some, state.pass).await?,
                }
            }
            state.listed = page.next.is_none();
            state.token = page.next;
            let mut batch = Batch::new();
            mirror::write_state(&mut batch, scope.tenant(), &state);
            self.store.commit(batch).await?;
        }
        Ok(state)
    }

    /// Notes entries of the account's list. One that is no mailbox of ours gets no mail from us either.
    async fn note_of_account(&self, listed: &[Listed], pass: Timestamp) -> Result<(), Fault> {
        let mut batch = Batch::new();
        let mut seen = HashSet::new();
        for one in listed {
            let Ok(mailbox) = Mailbox::parse(one.address.as_bytes()) else { continue };
            // Two spellings are one entry of ours.
            if seen.insert((mailbox.folded(), one.reason)) {
                mirror::write_of_account(&mut batch, &mailbox, &mirrored(one.reason, one.at, pass));
            }
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Notes entries of a tenant's list at SES; how many are new on the tenant's own.
    async fn note(&self, tenant: &TenantId, listed: &[Listed], pass: Timestamp) -> Result<usize, Fault> {
        for tries in 1.. {
            let mut batch = Batch::new();
            let (mut seen, mut own) = (HashSet::new(), HashSet::new());
            for one in listed {
                let Ok(mailbox) = Mailbox::parse(one.address.as_bytes()) else { continue };
                let folded = mailbox.folded();
                if !seen.insert((folded.clone(), one.address.clone())) {
                    continue;
                }
                let entry = mirrored(one.reason, one.at, pass);
                let known = mirror::spellings(&*self.store, tenant, &folded).await?;
                let is_new = !known.iter().any(|(_, known)| known.reason == entry.reason);
                if is_new && own.insert((folded.clone(), entry.reason)) {
                    self.bring(&mut batch, tenant, &mailbox, &entry).await?;
                }
                mirror::write(&mut batch, tenant, &folded, &one.address, &entry);
            }
            let added = batch.len() - seen.len();
            match self.store.commit(batch).await {
                Ok(_) => return Ok(added),
                Err(CommitError::Conflict(_)) if tries < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }

    /// Adds what SES's list says to the tenant's own, unless what stands there binds as much.
    async fn bring(
        &self,
        batch: &mut Batch,
        tenant: &TenantId,
        mailbox: &Mailbox,
        entry: &Mirrored,
    ) -> Result<(), Fault> {
        let key = Key::suppression(tenant, mailbox, entry.reason);
        let there = self.store.get(&key).await?;
        let entries = suppressions::find(&*self.store, tenant, mailbox).await?;
        if !is_news(&entries, entry.reason, self.clock.now()) {
            return Ok(());
        }
        let new = Suppression {
            reason: entry.reason,
            origin: mirror::ORIGIN.to_owned(),
            at: entry.at,
            expires: None,
            actor: mirror::ACTOR.to_owned(),
        };
        batch.put(key, there.map_or(If::Absent, |row| If::At(row.version)), record::seal(&new));
        Ok(())
    }

    /// Lets go what the account's list no longer has.
    async fn gone_of_account(&self, pass: Timestamp, synced: &mut Synced) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let (keys, next) = mirror::unseen_of_account(&*self.store, pass, after, BATCH_ITEMS).await?;
            synced.removed += keys.len();
            let mut batch = Batch::new();
            for key in keys {
                batch.remove(key, If::Any);
            }
            self.store.commit(batch).await?;
            match next {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Lets go what SES's list of a tenant no longer has, and what it had brought.
    async fn gone(&self, tenant: &TenantId, pass: Timestamp, synced: &mut Synced) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let (rows, next) = mirror::page(&*self.store, tenant, after, BATCH_ITEMS).await?;
            for (folded, spelled, _) in rows.into_iter().filter(|(.., entry)| entry.seen < pass) {
                synced.removed += usize::from(self.let_go(tenant, &folded, &spelled, pass).await?);
            }
            match next {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Forgets one spelling; whether an entry of the tenant's own list went with it.
    async fn let_go(&self, tenant: &TenantId, folded: &str, spelled: &str, pass: Timestamp) -> Result<bool, Fault> {
        let others = mirror::spellings(&*self.store, tenant, folded).await?;
        let mut left = others.iter().filter(|(other, entry)| other != spelled && entry.seen >= pass);
        let mut batch = Batch::new();
        batch.remove(Key::ses_list(tenant, folded, spelled), If::Any);
        let mut went = false;
        if let Ok(mailbox) = Mailbox::parse(folded.as_bytes())
            && let Some((_, entry)) = others.iter().find(|(other, _)| other == spelled)
            && !left.any(|(_, other)| other.reason == entry.reason)
        {
            let key = Key::suppression(tenant, &mailbox, entry.reason);
            if let Some(row) = self.store.get(&key).await? {
                let own = suppressions::opened(&key, &row.value)?;
                if own.origin == mirror::ORIGIN && own.actor == mirror::ACTOR {
                    batch.remove(key, If::At(row.version));
                    went = true;
                }
            }
        }
        match self.store.commit(batch).await {
            Ok(_) => Ok(went),
            // Somebody made the entry theirs: it stays, and the next pass looks again.
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts what the tenant's own list has on SES's.
    async fn put(
        &self,
        tenant: &TenantId,
        ses_tenant: &SesTenant,
        pass: Timestamp,
        pace: &mut Pace,
        synced: &mut Synced,
    ) -> Result<(), Fault> {
        let mut after: Option<(String, SuppressionReason)> = None;
        loop {
            let from = after.as_ref().map(|(folded, reason)| (folded.as_str(), *reason));
            let page = suppressions::list(&*self.store, tenant, from, BATCH_ITEMS).await?;
            after =
                page.last().filter(|_| page.len() == BATCH_ITEMS).map(|(folded, entry)| (folded.clone(), entry.reason));
            for (folded, entry) in page {
                let now = self.clock.now();
                let Some(reason) = at_ses(entry.reason).filter(|_| entry.stands(now)) else { continue };
                if !mirror::spellings(&*self.store, tenant, &folded).await?.is_empty() {
                    continue;
                }
                pace.turn().await;
                match self.lists.put(ses_tenant, &folded, reason).await {
                    Ok(()) => {}
                    // An address that SES does not take gets no mail through SES.
                    Err(ListError::Refused(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
                let mut batch = Batch::new();
                mirror::write(&mut batch, tenant, &folded, &folded, &mirrored(reason, now, pass));
                self.store.commit(batch).await?;
                synced.put += 1;
            }
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Deletes from SES's list what nothing on the tenant's own stands for.
    async fn delete(
        &self,
        tenant: &TenantId,
        ses_tenant: &SesTenant,
        pace: &mut Pace,
        synced: &mut Synced,
    ) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let (rows, next) = mirror::page(&*self.store, tenant, after, BATCH_ITEMS).await?;
            for (folded, spelled, _) in rows {
                let Ok(mailbox) = Mailbox::parse(folded.as_bytes()) else { continue };
                let entries = suppressions::find(&*self.store, tenant, &mailbox).await?;
                let now = self.clock.now();
                if entries.iter().any(|entry| at_ses(entry.reason).is_some() && entry.stands(now)) {
                    continue;
                }
                pace.turn().await;
                match self.lists.delete(ses_tenant, &spelled).await {
                    // Gone already is as good.
                    Ok(()) | Err(ListError::Missing(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                let mut batch = Batch::new();
                batch.remove(Key::ses_list(tenant, &folded, &spelled), If::Any);
                self.store.commit(batch).await?;
                synced.deleted += 1;
            }
            match next {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }
}

/// The least time between two passes' names.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(1);

/// Whether what SES has an address for is more than what stands of it on the tenant's own list.
fn is_news(entries: &[Suppression], reason: SuppressionReason, now: Timestamp) -> bool {
    // By hand binds always.
    let as_much = |entry: &&Suppression| entry.reason == reason || entry.reason == SuppressionReason::Manual;
    !entries.iter().filter(as_much).any(|entry| entry.stands(now))
}

/// As what an entry goes onto SES's list; `None`: it does not.
fn at_ses(reason: SuppressionReason) -> Option<ListReason> {
    match reason {
        SuppressionReason::Bounce | SuppressionReason::Manual => Some(ListReason::Bounce),
        SuppressionReason::Complaint => Some(ListReason::Complaint),
        SuppressionReason::Soft => None,
    }
}

fn mirrored(reason: ListReason, at: Timestamp, seen: Timestamp) -> Mirrored {
    let reason = match reason {
        ListReason::Bounce => SuppressionReason::Bounce,
        ListReason::Complaint => SuppressionReason::Complaint,
    };
    Mirrored { reason, at, seen }
}
