//! The sandbox's suppression lists: the account's, and one for each SES tenant.
//!
//! | route | operation |
//! |---|---|
//! | `GET /v2/email/suppression/addresses` | ListSuppressedDestinations |
//! | `PUT /v2/email/suppression/addresses` | PutSuppressedDestination |
//! | `GET /v2/email/suppression/addresses/{EmailAddress}` | GetSuppressedDestination |
//! | `DELETE /v2/email/suppression/addresses/{EmailAddress}` | DeleteSuppressedDestination |
//!
//! Promises: as SES does, addresses are kept as they were given and found in that spelling alone; a
//! page's token is good for the list it is of; at most [`ENTRIES`] in all. They stop no mail: that is
//! what the recipients' domains are for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::ses::signed;
use super::{House, Shared};
use crate::time::Timestamp;

/// Most entries of all lists.
pub const ENTRIES: usize = 1_000_000;
/// Most entries of a page.
pub const PAGE: usize = 1000;
/// Largest request.
const REQUEST_BYTES: usize = 64 * 1024;

/// Whose list, and the address in its spelling; the account's list is nobody's.
type Place = (Option<String>, String);

/// All lists.
#[derive(Debug)]
pub struct Lists(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    entries: BTreeMap<Place, Entry>,
    page: usize,
    calls: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    reason: String,
    at: Timestamp,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Asked {
    tenant_name: Option<String>,
    next_token: Option<String>,
    page_size: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put {
    email_address: String,
    reason: String,
    tenant_name: Option<String>,
}

impl Default for Lists {
    fn default() -> Self {
        Self(Mutex::new(Kept { entries: BTreeMap::new(), page: PAGE, calls: 0 }))
    }
}

impl Lists {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an address on a list; `reason` is `BOUNCE` or `COMPLAINT`. Whether there was room.
    pub fn put(&self, tenant: Option<&str>, address: &str, reason: &str, at: Timestamp) -> bool {
        let mut kept = self.kept();
        let place = (tenant.map(str::to_owned), address.to_owned());
        if kept.entries.len() >= ENTRIES && !kept.entries.contains_key(&place) {
            return false;
        }
        kept.entries.insert(place, Entry { reason: reason.to_owned(), at });
        true
    }

    /// Takes an address off a list; whether it was there in that spelling.
    pub fn delete(&self, tenant: Option<&str>, address: &str) -> bool {
        self.kept().entries.remove(&(tenant.map(str::to_owned), address.to_owned())).is_some()
    }

    /// A list: addresses and reasons.
    pub fn of(&self, tenant: Option<&str>) -> Vec<(String, String)> {
        let kept = self.kept();
        let of = kept.entries.iter().filter(|((whose, _), _)| whose.as_deref() == tenant);
        of.map(|((_, address), entry)| (address.clone(), entry.reason.clone())).collect()
    }

    /// From now on a page has at most so many entries, one at least.
    pub fn pages_of(&self, entries: usize) {
        self.kept().page = entries.clamp(1, PAGE);
    }

    /// How many calls came.
    pub fn calls(&self) -> usize {
        self.kept().calls
    }

    fn page(&self, tenant: Option<String>, after: Option<String>, most: usize) -> Result<Value, Refusal> {
        let kept = self.kept();
        let start = (tenant.clone(), after.clone().unwrap_or_default());
        if after.is_some() && !kept.entries.contains_key(&start) {
            return Err(Refusal::new(
                400,
                "InvalidNextTokenException",
                "The specified request includes an invalid or expired token.",
            ));
        }
        let start = if after.is_some() { Bound::Excluded(start) } else { Bound::Included(start) };
        let most = most.clamp(1, kept.page);
        let mut listed =
            kept.entries.range((start, Bound::Unbounded)).filter(|((whose, _), _)| *whose == tenant).take(most + 1);
        let page: Vec<_> = listed.by_ref().take(most).collect();
        let more = listed.next().is_some();
        let summaries: Vec<Value> = page.iter().map(|((_, address), entry)| shown(address, entry)).collect();
        let mut answer = json!({ "SuppressedDestinationSummaries": summaries });
        if let (true, Some(((_, last), _)), Some(members)) = (more, page.last(), answer.as_object_mut()) {
            members.insert("NextToken".into(), json!(last));
        }
        Ok(answer)
    }
}

fn shown(address: &str, entry: &Entry) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "SES tells moments as seconds with a fraction")]
    let at = entry.at.millis() as f64 / 1000.0;
    json!({ "EmailAddress": address, "Reason": entry.reason, "LastUpdateTime": at })
}

/// ListSuppressedDestinations.
pub(super) async fn list(
    State(house): State<Shared>,
    Query(asked): Query<Asked>,
    request: axum::extract::Request,
) -> Response<Body> {
    let page = house
        .enter(&request, asked.tenant_name.as_deref())
        .and_then(|()| house.lists.page(asked.tenant_name, asked.next_token, asked.page_size.unwrap_or(PAGE)));
    house.told(page)
}

/// PutSuppressedDestination.
pub(super) async fn put(State(house): State<Shared>, request: axum::extract::Request) -> Response<Body> {
    if let Err(refusal) = signed(request.headers()) {
        return house.refused(&refusal);
    }
    let Ok(body) = axum::body::to_bytes(request.into_body(), REQUEST_BYTES).await else {
        return house.refused(&Refusal::new(413, "RequestEntityTooLargeException", "Request is too large."));
    };
    house.told(house.take_entry(&body))
}

/// GetSuppressedDestination.
pub(super) async fn show(
    State(house): State<Shared>,
    Path(address): Path<String>,
    Query(asked): Query<Asked>,
    request: axum::extract::Request,
) -> Response<Body> {
    let found = house.enter(&request, asked.tenant_name.as_deref()).and_then(|()| {
        let kept = house.lists.kept();
        let entry = kept.entries.get(&(asked.tenant_name.clone(), address.clone()));
        entry.map(|entry| json!({ "SuppressedDestination": shown(&address, entry) })).ok_or_else(|| missing(&address))
    });
    house.told(found)
}

/// DeleteSuppressedDestination.
pub(super) async fn delete(
    State(house): State<Shared>,
    Path(address): Path<String>,
    Query(asked): Query<Asked>,
    request: axum::extract::Request,
) -> Response<Body> {
    let gone = house.enter(&request, asked.tenant_name.as_deref()).and_then(|()| {
        if house.lists.delete(asked.tenant_name.as_deref(), &address) { Ok(json!({})) } else { Err(missing(&address)) }
    });
    house.told(gone)
}

fn missing(address: &str) -> Refusal {
    Refusal::new(404, "NotFoundException", format!("Email address {address} does not exist on your suppression list."))
}

impl House {
    /// A signed call about a list that there is.
    fn enter(&self, request: &axum::extract::Request, tenant: Option<&str>) -> Result<(), Refusal> {
        signed(request.headers())?;
        self.lists.kept().calls += 1;
        self.known(tenant)
    }

    fn known(&self, tenant: Option<&str>) -> Result<(), Refusal> {
        match (tenant, &self.options.ses_tenants) {
            (Some(name), Some(known)) if !known.iter().any(|tenant| tenant.name == name) => {
                Err(Refusal::missing_tenant(name, &self.place.account))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn take_entry(&self, body: &[u8]) -> Result<Value, Refusal> {
        self.lists.kept().calls += 1;
        let Put { email_address, reason, tenant_name } = serde_json::from_slice(body).map_err(|error| {
            Refusal::new(400, "SerializationException", format!("Could not read the request: {error}"))
        })?;
        self.known(tenant_name.as_deref())?;
        if !matches!(reason.as_str(), "BOUNCE" | "COMPLAINT") {
            return Err(Refusal::bad("Reason must be BOUNCE or COMPLAINT."));
        }
        if !email_address.contains('@') {
            return Err(Refusal::bad(format!("Invalid email address <{email_address}>.")));
        }
        if self.lists.put(tenant_name.as_deref(), &email_address, &reason, self.options.clock.now()) {
            Ok(json!({}))
        } else {
            Err(Refusal::bad(format!("The sandbox keeps {ENTRIES} suppressed addresses.")))
        }
    }

    fn told(&self, answer: Result<Value, Refusal>) -> Response<Body> {
        match answer {
            Ok(answer) => self.reply(200, None, &answer),
            Err(refusal) => self.refused(&refusal),
        }
    }
}
