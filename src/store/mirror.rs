//! What is known of Amazon SES's own suppression lists, and how far the last comparison came.
//!
//! The account's list is kept under no tenant (`account-suppression`): its addresses get no mail of
//! anybody's, so who asks for one learns nothing of another tenant. A tenant's list at SES is kept
//! beside the tenant's own (`ses-list`), in SES's spelling, which alone finds an entry there again.
//!
//! Promises: a row says in which pass it was last seen, so what SES no longer has is found by a walk.
//! What can go wrong: the store; a damaged row is seen as one that is not there, and written anew by
//! the next pass.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Batch, If, Key, ReadError, Store, record};
use crate::mail::{Mailbox, SesTenant, TenantId};
use crate::policy::tenant::{Suppression, SuppressionReason};
use crate::time::Timestamp;

/// The origin of entries that SES's list of a tenant brought.
pub const ORIGIN: &str = "ses list";
/// The origin of those that the account's list brought.
pub const ACCOUNT_ORIGIN: &str = "ses account list";
/// Who put both there.
pub const ACTOR: &str = "ses";

/// The reasons that SES's lists know.
const AT_SES: [SuppressionReason; 2] = [SuppressionReason::Bounce, SuppressionReason::Complaint];
/// Most spellings of one address that are looked at.
const SPELLINGS: usize = 16;

/// An entry of one of SES's lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mirrored {
    /// `bounce` or `complaint`: SES has no other.
    pub reason: SuppressionReason,
    /// SES's `LastUpdateTime`, or when we put it there.
    pub at: Timestamp,
    /// The pass that saw it last.
    pub seen: Timestamp,
}

/// How far the comparison with a list has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Of which SES tenant the list is; `None`: the account's.
    pub ses_tenant: Option<SesTenant>,
    /// When the pass began: its name.
    pub pass: Timestamp,
    /// Where its next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether all pages have been read.
    #[serde(default)]
    pub listed: bool,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Timestamp>,
}

impl State {
    /// A pass that begins.
    pub fn begun(ses_tenant: Option<SesTenant>, pass: Timestamp) -> Self {
        Self { ses_tenant, pass, token: None, listed: false, done: None }
    }
}

/// How far a comparison has come, if there was one.
pub async fn state(store: &dyn Store, tenant: Option<&TenantId>) -> Result<Option<State>, ReadError> {
    let key = Key::sync(tenant);
    Ok(store.get(&key).await?.and_then(|row| lenient(&key, &row.value)))
}

/// Adds that it has come so far. A token that would not fit a row is left out, and the pass begins anew
/// if it is cut short.
pub fn write_state(batch: &mut Batch, tenant: Option<&TenantId>, state: &State) {
    const LONGEST: usize = 2048;
    let token = state.token.clone().filter(|token| token.len() <= LONGEST);
    batch.put(Key::sync(tenant), If::Any, record::seal(&State { token, ..state.clone() }));
}

/// The entries of an address on SES's account list, as entries of ours.
pub async fn of_account(store: &dyn Store, mailbox: &Mailbox) -> Result<Vec<Suppression>, ReadError> {
    let keys = AT_SES.map(|reason| Key::account_suppression(mailbox, reason));
    let rows = store.get_each(&keys).await?;
    let entry = |Mirrored { reason, at, .. }: Mirrored| Suppression {
        reason,
        origin: ACCOUNT_ORIGIN.to_owned(),
        at,
        expires: None,
        actor: ACTOR.to_owned(),
    };
    let found = keys.iter().zip(rows).filter_map(|(key, row)| lenient(key, &row?.value));
    Ok(found.map(entry).collect())
}

/// The spellings of an address on the list of a tenant's SES tenant.
pub async fn spellings(
    store: &dyn Store,
    tenant: &TenantId,
    folded: &str,
) -> Result<Vec<(String, Mirrored)>, ReadError> {
    let rows = store.scan(&Key::ses_list_of(tenant, folded), None, SPELLINGS).await?;
    Ok(rows.into_iter().filter_map(|(key, row)| Some((spelling(&key)?.1, lenient(&key, &row.value)?))).collect())
}

/// A page of such a list: folded address, spelling, entry; and from where to go on, if there is more.
pub async fn page(
    store: &dyn Store,
    tenant: &TenantId,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<(String, String, Mirrored)>, Option<Key>), ReadError> {
    let rows = store.scan(&Key::ses_lists(tenant), after.as_ref(), limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone());
    let read = rows.into_iter().filter_map(|(key, row)| {
        let (folded, spelled) = spelling(&key)?;
        Some((folded, spelled, lenient(&key, &row.value)?))
    });
    Ok((read.collect(), next))
}

/// Keys of SES's account list among the next `limit` after `after` that the pass has not seen; and from
/// where to go on, if there is more.
pub async fn unseen_of_account(
    store: &dyn Store,
    pass: Timestamp,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Key>, Option<Key>), ReadError> {
    let rows = store.scan(&Key::account_suppressions(), after.as_ref(), limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone());
    let unseen = rows.into_iter().filter(|(key, row)| {
        let entry: Option<Mirrored> = lenient(key, &row.value);
        entry.is_none_or(|entry| entry.seen < pass)
    });
    Ok((unseen.map(|(key, _)| key).collect(), next))
}

/// Adds an entry of SES's account list.
pub fn write_of_account(batch: &mut Batch, mailbox: &Mailbox, entry: &Mirrored) {
    batch.put(Key::account_suppression(mailbox, entry.reason), If::Any, record::seal(entry));
}

/// Adds an entry of the list of a tenant's SES tenant.
pub fn write(batch: &mut Batch, tenant: &TenantId, folded: &str, spelled: &str, entry: &Mirrored) {
    batch.put(Key::ses_list(tenant, folded, spelled), If::Any, record::seal(entry));
}

fn lenient<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Option<T> {
    record::open(key, value).ok()
}

/// The folded address and the spelling in a key.
fn spelling(key: &Key) -> Option<(String, String)> {
    let parts = key.parts()?;
    Some(((*parts.get(2)?).to_owned(), (*parts.get(3)?).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here is a change of the format on disk.
    #[test]
    fn golden_encodings() {
        let at = Timestamp::from_millis;
        let entry = Mirrored { reason: SuppressionReason::Bounce, at: at(1), seen: at(2) };
        assert_eq!(serde_json::to_string(&entry).unwrap(), r#"{"reason":"bounce","at":1,"seen":2}"#);
        let state = State::begun(Some("acme".parse().unwrap()), at(3));
        assert_eq!(serde_json::to_string(&state).unwrap(), r#"{"ses_tenant":"acme","pass":3,"listed":false}"#);
        let done = State { token: Some("t".into()), listed: true, done: Some(at(4)), ses_tenant: None, ..state };
        let text = r#"{"ses_tenant":null,"pass":3,"token":"t","listed":true,"done":4}"#;
        assert_eq!(serde_json::to_string(&done).unwrap(), text);
        assert_eq!(serde_json::from_str::<State>(text).unwrap(), done);
        let mut batch = Batch::new();
        write_state(&mut batch, None, &State { token: Some("t".repeat(5000)), ..done });
        assert_eq!(batch.check(), Ok(()), "a row stays small");
    }
}
