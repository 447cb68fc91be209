//! The sandbox's own routes, for the programs that test with it: what came, and what is to go wrong.
//!
//! | route | does |
//! |---|---|
//! | `GET /sandbox/messages?limit=&after=` | the messages, oldest first, at most 1000; `after` is the id of the last one seen |
//! | `DELETE /sandbox/messages` | forgets them |
//! | `GET`, `POST`, `DELETE /sandbox/faults` | the faults that wait; puts a JSON list behind them; forgets them |

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::fault::{FAULTS, Fault};
use super::inbox::Message;

/// Most messages of one answer.
pub const PAGE: usize = 1000;
/// Largest script.
const SCRIPT_BYTES: usize = 1024 * 1024;

#[derive(Deserialize, Default)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

pub(super) async fn messages(State(house): State<Shared>, Query(page): Query<Page>) -> Response<Body> {
    let limit = page.limit.unwrap_or(PAGE).min(PAGE);
    let messages: Vec<Value> =
        house.inbox.page(page.after.as_deref(), limit).iter().map(|message| shown(message)).collect();
    let body = json!({
        "messages": messages,
        "received": house.inbox.received(),
        "dropped": house.inbox.dropped(),
    });
    house.reply(200, None, &body)
}

pub(super) async fn clear_messages(State(house): State<Shared>) -> Response<Body> {
    house.inbox.clear();
    house.reply(200, None, &json!({}))
}

pub(super) async fn faults(State(house): State<Shared>) -> Response<Body> {
    house.reply(200, None, &json!(house.faults.waiting()))
}

pub(super) async fn script(State(house): State<Shared>, request: axum::extract::Request) -> Response<Body> {
    let wrong = |words: String| house.reply(400, None, &json!({ "message": words }));
    let Ok(body) = axum::body::to_bytes(request.into_body(), SCRIPT_BYTES).await else {
        return wrong(format!("more than {SCRIPT_BYTES} octets"));
    };
    let faults = match serde_json::from_slice::<Vec<Fault>>(&body) {
        Ok(faults) => faults,
        Err(error) => return wrong(format!("not a list of faults: {error}")),
    };
    if let Some(blind) = faults.iter().find(|fault| !fault.is_sound()) {
        return wrong(format!("{} strikes before the call is known, so it takes no match", json!(blind.kind)));
    }
    if !house.faults.script(faults) {
        return wrong(format!("more than {FAULTS} faults would wait"));
    }
    house.reply(200, None, &json!(house.faults.waiting()))
}

pub(super) async fn clear_faults(State(house): State<Shared>) -> Response<Body> {
    house.faults.clear();
    house.reply(200, None, &json!([]))
}

fn shown(message: &Message) -> Value {
    let tags: Map<String, Value> = message.tags.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "id": message.id,
        "at": message.at.rfc3339(),
        "tags": tags,
        "tenant_name": message.tenant_name,
        "configuration_set": message.configuration_set,
        "destination": message.destination,
        "raw": STANDARD.encode(&message.raw),
    })
}
