//! SES v2's own routes: SendEmail with raw content, GetAccount (protocol rest-json).

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, State};
use axum::http::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::check::{self, Header};
use super::event;
use super::fault::{self, Fault, Kind};
use super::inbox::Message;
use super::quota::Exceeded;
use super::refusal::Refusal;
use super::socket::Fuse;
use super::{BODY_BYTES, House, Shared};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    from_email_address: Option<String>,
    #[serde(default)]
    destination: Destination,
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(default)]
    email_tags: Vec<Tag>,
    configuration_set_name: Option<String>,
    tenant_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Destination {
    to_addresses: Vec<String>,
    cc_addresses: Vec<String>,
    bcc_addresses: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    #[serde(borrow)]
    raw: Option<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw<'a> {
    /// Tens of megabytes: borrowed from the request's body.
    #[serde(borrow)]
    data: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    name: String,
    value: String,
}

/// A call that was read and is to be judged.
struct Call {
    raw: Vec<u8>,
    header: Header,
    destination: Vec<String>,
    tags: Vec<(String, String)>,
    configuration_set: Option<String>,
    tenant_name: Option<String>,
}

/// `POST /v2/email/outbound-emails`.
pub(super) async fn send_email(
    State(house): State<Shared>,
    ConnectInfo(fuse): ConnectInfo<Fuse>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Err(refusal) = signed(&head.headers) {
        return house.refused(&refusal);
    }
    let blind = house.faults.take_blind();
    if let Some(fault) = blind {
        return house.cut(&fault, &fuse, body).await;
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return house.refused(&Refusal::new(413, "RequestEntityTooLargeException", "Request is too large."));
    };
    let call = match read(&body) {
        Ok(call) => call,
        Err(refusal) => return house.refused(&refusal),
    };
    let fault = house.faults.take(call.configuration_set.as_deref(), &call.destination);
    let Some(Fault { kind, delay_ms, .. }) = fault else { return house.answered(house.take(call)) };
    house.wait(delay_ms).await;
    if let Some(refusal) =
        fault::refusal(kind, call.configuration_set.as_deref(), &house.place.region, &house.place.account)
    {
        return house.refused(&refusal);
    }
    match kind {
        Kind::Hang => house.closing.cancelled().await,
        Kind::ResetAfter => drop(house.take(call)),
        Kind::Reset => {}
        _ => return house.answered(house.take(call)),
    }
    house.broken(&fuse)
}

/// `GET /v2/email/account`.
pub(super) async fn get_account(State(house): State<Shared>, request: axum::extract::Request) -> Response<Body> {
    if let Err(refusal) = signed(request.headers()) {
        return house.refused(&refusal);
    }
    let sent = house.quota().last_24_hours(house.options.clock.now());
    let options = &house.options;
    #[expect(clippy::cast_precision_loss, reason = "SES itself tells its quotas as doubles")]
    let daily = options.max_24_hour_send.map_or(-1.0, |most| most as f64);
    let account = json!({
        "DedicatedIpAutoWarmupEnabled": false,
        "EnforcementStatus": options.enforcement_status,
        "ProductionAccessEnabled": true,
        "SendQuota": { "Max24HourSend": daily, "MaxSendRate": options.max_send_rate, "SentLast24Hours": sent },
        "SendingEnabled": options.sending_enabled,
        "SuppressionAttributes": { "SuppressedReasons": [] },
    });
    house.reply(200, None, &account)
}

/// The signature is not verified, but a caller that does not sign is not an AWS client.
pub(super) fn signed(headers: &axum::http::HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key("authorization") {
        return Ok(());
    }
    Err(Refusal::new(403, "MissingAuthenticationTokenException", "Missing Authentication Token"))
}

/// Reads a request; what SES takes from the header section where the call does not say it is taken
/// from there, so that a relay that forgets to say it is found out.
fn read(body: &[u8]) -> Result<Call, Refusal> {
    let request: Request<'_> = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, "SerializationException", format!("Could not read the request: {error}")))?;
    let only_raw = || Refusal::bad("Only raw content is taken by the sandbox.");
    let raw = request.content.and_then(|content| content.raw).ok_or_else(only_raw)?;
    if request.from_email_address.is_some() {
        return Err(Refusal::bad(
            "FromEmailAddress is not taken by the sandbox with raw content: it would replace the From header.",
        ));
    }
    let raw = STANDARD.decode(raw.data.as_bytes()).map_err(|_| Refusal::bad("Raw.Data is not valid base64."))?;
    let header = Header::read(&raw);
    let Destination { mut to_addresses, cc_addresses, bcc_addresses } = request.destination;
    to_addresses.extend(cc_addresses);
    to_addresses.extend(bcc_addresses);
    if to_addresses.is_empty() {
        to_addresses = header.addresses(&["to", "cc", "bcc"]);
    }
    let mut tags: Vec<_> = request.email_tags.into_iter().map(|tag| (tag.name, tag.value)).collect();
    if tags.is_empty() {
        let given = header.value("x-ses-message-tags").unwrap_or_default();
        let pairs = given.split([',', ';']).filter_map(|pair| pair.split_once('='));
        tags = pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    }
    let set = request.configuration_set_name.or_else(|| header.value("x-ses-configuration-set").map(str::to_owned));
    Ok(Call { destination: to_addresses, tags, configuration_set: set, tenant_name: request.tenant_name, header, raw })
}

/// Half of a body, or its first piece where its length is not known. Less only of a body that broke.
async fn read_half(body: &mut Body) {
    let wanted = body.size_hint().exact().unwrap_or(0) / 2;
    let mut seen = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        seen += frame.data_ref().map_or(0, |piece| u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if seen >= wanted {
            return;
        }
    }
}

impl House {
    /// A fault that strikes before the whole call is there.
    async fn cut(&self, fault: &Fault, fuse: &Fuse, mut body: Body) -> Response<Body> {
        if fault.kind == Kind::ResetBody {
            read_half(&mut body).await;
        }
        self.wait(fault.delay_ms).await;
        self.broken(fuse)
    }

    async fn wait(&self, delay_ms: u64) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// The answer that never leaves.
    fn broken(&self, fuse: &Fuse) -> Response<Body> {
        fuse.blow();
        self.reply(200, None, &json!({}))
    }

    fn answered(&self, outcome: Result<String, Refusal>) -> Response<Body> {
        match outcome {
            Ok(id) => self.reply(200, None, &json!({ "MessageId": id })),
            Err(refusal) => self.refused(&refusal),
        }
    }

    /// Judges a call as SES does, keeps it, and puts its events into the queue.
    fn take(&self, call: Call) -> Result<String, Refusal> {
        self.judge(&call)?;
        let at = self.options.clock.now();
        let counted = call.destination.iter().filter(|r| !event::is_simulator(r)).count();
        let admitted = self.quota().admit(self.options.clock.instant(), at, call.destination.len(), counted);
        admitted.map_err(|exceeded| {
            Refusal::new(
                429,
                "TooManyRequestsException",
                match exceeded {
                    Exceeded::Rate => "Maximum sending rate exceeded.",
                    Exceeded::Daily => "Daily message quota exceeded.",
                },
            )
        })?;
        let id = self.message_id(at);
        let message = Message {
            id: id.clone(),
            at,
            tags: call.tags,
            tenant_name: call.tenant_name,
            configuration_set: call.configuration_set,
            destination: call.destination,
            raw: call.raw.into(),
        };
        // Only a configuration set has event destinations.
        if let Some(set) = &message.configuration_set {
            for told in event::events(&message, set, &self.place, || self.message_id(at)) {
                let body = event::wrapped(self.options.event_form, &told.event, &self.place, &self.uuid(), at);
                self.queue.put_after(body, self.options.event_delay + told.after);
            }
        }
        self.inbox.put(message);
        Ok(id)
    }

    fn judge(&self, call: &Call) -> Result<(), Refusal> {
        if !self.options.sending_enabled {
            return Err(Refusal::paused_account());
        }
        self.judge_envelope(call)?;
        if call.raw.len() > check::MESSAGE_BYTES {
            return Err(Refusal::bad(format!(
                "Message length is more than {} bytes long: '{}'.",
                check::MESSAGE_BYTES,
                call.raw.len()
            )));
        }
        if let Some(words) = call.header.fault() {
            return Err(Refusal::bad(words));
        }
        if let Some(line) = check::long_line(&call.raw).filter(|_| self.options.refuse_long_lines) {
            return Err(Refusal::bad(format!("Line {line} is longer than {} octets.", check::LINE_BYTES)));
        }
        self.judge_account(call)
    }

    fn judge_envelope(&self, call: &Call) -> Result<(), Refusal> {
        if call.destination.is_empty() {
            return Err(Refusal::bad("Missing required destination."));
        }
        if call.destination.len() > check::RECIPIENTS {
            return Err(Refusal::bad(format!("Recipient count exceeds {}.", check::RECIPIENTS)));
        }
        if let Some(words) = call.destination.iter().find_map(|recipient| check::recipient_fault(recipient)) {
            return Err(Refusal::bad(words));
        }
        for (name, value) in &call.tags {
            for text in [name, value] {
                if !check::is_tag(text) {
                    return Err(Refusal::bad(format!(
                        "Invalid message tag <{text}>: only alphanumeric ASCII characters, '_', and '-' are allowed."
                    )));
                }
            }
        }
        Ok(())
    }

    /// Configuration set, identities and SES tenant: what the account has and what goes together.
    fn judge_account(&self, call: &Call) -> Result<(), Refusal> {
        let set = call.configuration_set.as_deref();
        if let (Some(set), Some(known)) = (set, &self.options.configuration_sets)
            && !known.iter().any(|name| name == set)
        {
            return Err(Refusal::missing_set(set));
        }
        if let Some(verified) = &self.options.verified_identities {
            let claimed = call.header.addresses(&["from", "sender", "return-path"]);
            let failed = check::unverified(&claimed, verified);
            if !failed.is_empty() {
                return Err(Refusal::unverified(&self.place.region, &failed));
            }
        }
        let (Some(tenant), Some(tenants)) = (&call.tenant_name, &self.options.ses_tenants) else { return Ok(()) };
        let Some(tenant) = tenants.iter().find(|known| known.name == *tenant) else {
            return Err(Refusal::missing_tenant(tenant, &self.place.account));
        };
        let arn =
            |kind: &str, name: &str| format!("arn:aws:ses:{}:{}:{kind}/{name}", self.place.region, self.place.account);
        let identities = check::unverified(&call.header.addresses(&["from"]), &tenant.identities);
        let mut missing: Vec<String> = identities.iter().map(|identity| arn("identity", identity)).collect();
        match set {
            Some(set) if tenant.configuration_sets.iter().any(|name| name == set) => {}
            Some(set) => missing.push(arn("configuration-set", set)),
            None => missing.push(arn("configuration-set", "")),
        }
        if missing.is_empty() { Ok(()) } else { Err(Refusal::not_associated(&missing)) }
    }
}
