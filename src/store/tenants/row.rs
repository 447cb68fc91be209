//! The rows of a tenant and of a stream: what they hold but for their names, which are in the keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mail::{ConfigurationSet, Mailbox, SesTenant, StreamId, TenantId};
use crate::policy::tenant::{
    FanOut, Handoff, Limits, Pause, PausedReply, SenderPattern, Standing, Stream, StreamKind, SuppressionReason,
    Tenant, Warmup,
};

/// What fields mean that a record leaves out: records from before there was such a field read as
/// those of today that are left at their default.
const LEFT_OUT: [(&str, &str); 5] =
    [("weight", "1"), ("handoff", "through"), ("dedupe", "true"), ("dsn", "false"), ("exposure", "true")];

/// A tenant but for its streams, senders and pause.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct TenantRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) contact: Option<Mailbox>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ses_tenant: Option<SesTenant>,
    pub(super) default_stream: StreamId,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default = "usual_weight", skip_serializing_if = "is_usual_weight")]
    pub(super) weight: u32,
    pub(super) enforce: bool,
    #[serde(default)]
    pub(super) paused_reply: PausedReply,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rate_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) daily_recipients: Option<u64>,
}

/// A stream but for its pause.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct StreamRow {
    pub(super) kind: StreamKind,
    pub(super) configuration_set: ConfigurationSet,
    pub(super) suppress_on: Vec<SuppressionReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rate_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) daily_recipients: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warmup: Option<Warmup>,
    #[serde(default)]
    pub(super) fan_out: FanOut,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) handoff: Handoff,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_age_hours: Option<u32>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub(super) dedupe: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) dsn: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) enforce: Option<bool>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub(super) exposure: bool,
    #[serde(default)]
    pub(super) limits: Limits,
}

impl TenantRow {
    pub(super) fn of(tenant: &Tenant) -> Self {
        Self {
            contact: tenant.contact.clone(),
            ses_tenant: tenant.ses_tenant.clone(),
            default_stream: tenant.default_stream.clone(),
            limits: tenant.limits,
            weight: tenant.weight,
            enforce: tenant.enforce,
            paused_reply: tenant.paused_reply,
            rate_per_second: tenant.rate_per_second,
            daily_recipients: tenant.daily_recipients,
        }
    }

    pub(super) fn tenant(
        self,
        id: TenantId,
        senders: Vec<SenderPattern>,
        streams: BTreeMap<StreamId, Stream>,
        pause: Option<Pause>,
    ) -> Tenant {
        let Self {
            contact,
            ses_tenant,
            default_stream,
            limits,
            weight,
            enforce,
            paused_reply,
            rate_per_second,
            daily_recipients,
        } = self;
        Tenant {
            id,
            contact,
            senders,
            ses_tenant,
            default_stream,
            limits,
            weight,
            enforce,
            paused_reply,
            rate_per_second,
            daily_recipients,
            pause,
            ses_pause: None,
            standing: Standing::default(),
            streams,
        }
    }
}

impl StreamRow {
    pub(super) fn of(stream: &Stream) -> Self {
        Self {
            kind: stream.kind,
            configuration_set: stream.configuration_set.clone(),
            suppress_on: stream.suppress_on.clone(),
            rate_per_second: stream.rate_per_second,
            daily_recipients: stream.daily_recipients,
            warmup: stream.warmup.clone(),
            fan_out: stream.fan_out,
            handoff: stream.handoff,
            max_age_hours: stream.max_age_hours,
            dedupe: stream.dedupe,
            dsn: stream.dsn,
            enforce: stream.enforce,
            exposure: stream.exposure,
            limits: stream.limits,
        }
    }

    /// The stream, not paused and with a standing of nothing.
    pub(super) fn stream(self, id: StreamId) -> Stream {
        let Self {
            kind,
            configuration_set,
            suppress_on,
            rate_per_second,
            daily_recipients,
            warmup,
            fan_out,
            handoff,
            max_age_hours,
            dedupe,
            dsn,
            enforce,
            exposure,
            limits,
        } = self;
        Stream {
            id,
            kind,
            configuration_set,
            suppress_on,
            rate_per_second,
            daily_recipients,
            warmup,
            fan_out,
            handoff,
            max_age_hours,
            dedupe,
            dsn,
            enforce,
            exposure,
            limits,
            pause: None,
            standing: Standing::default(),
        }
    }
}

/// What differs between two rows, field by field: `rate_per_second 5 → 10, limits.pause_bounce none → 0.05`.
pub(super) fn changes<T: Serialize>(from: &T, to: &T) -> Vec<String> {
    let (from, to) = (fields(from), fields(to));
    let names: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let left_out = |name: &str| LEFT_OUT.iter().find(|(field, _)| *field == name).map_or("none", |(_, value)| value);
    let shown = |fields: &BTreeMap<String, String>, name: &str| {
        fields.get(name).map_or(left_out(name), String::as_str).to_owned()
    };
    names
        .into_iter()
        .filter(|name| from.get(*name) != to.get(*name))
        .map(|name| format!("{name} {} → {}", shown(&from, name), shown(&to, name)))
        .collect()
}

fn usual_weight() -> u32 {
    Tenant::WEIGHT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_usual_weight(weight: &u32) -> bool {
    *weight == Tenant::WEIGHT
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A row's fields by name, inner ones with a dot.
fn fields<T: Serialize>(row: &T) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    gather("", &serde_json::to_value(row).unwrap_or_default(), &mut found);
    found
}

fn gather(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(inner) => {
            for (field, value) in inner {
                let path = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                gather(&path, value, into);
            }
        }
        Value::Null => {}
        other => {
            into.insert(name.to_owned(), word(other));
        }
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, |n| n.to_string()),
        Value::Array(items) => format!("[{}]", items.iter().map(word).collect::<Vec<_>>().join(", ")),
        Value::Number(_) | Value::Bool(_) | Value::Null | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD_TENANT: &str = r#"{"default_stream":"main","limits":{},"enforce":true,"paused_reply":"defer"}"#;
    const OLD_STREAM: &str =
        r#"{"kind":"bulk","configuration_set":"acme-main","suppress_on":["bounce"],"fan_out":"single","limits":{}}"#;

    #[test]
    fn rows_from_before_the_outbox_read_and_are_written_as_they_were() {
        let tenant: TenantRow = serde_json::from_str(OLD_TENANT).unwrap();
        assert_eq!(tenant.weight, 1);
        assert_eq!(serde_json::to_string(&tenant).unwrap(), OLD_TENANT);
        let stream: StreamRow = serde_json::from_str(OLD_STREAM).unwrap();
        let read = (stream.handoff, stream.max_age_hours, stream.dedupe, stream.dsn);
        assert_eq!(read, (Handoff::Through, None, true, false));
        assert_eq!(serde_json::to_string(&stream).unwrap(), OLD_STREAM);
    }

    #[test]
    fn golden_rows_of_the_outbox() {
        let tenant = r#"{"default_stream":"main","limits":{},"weight":7,"enforce":true,"paused_reply":"defer"}"#;
        let row: TenantRow = serde_json::from_str(tenant).unwrap();
        assert_eq!(row.weight, 7);
        assert_eq!(serde_json::to_string(&row).unwrap(), tenant);
        let stream = OLD_STREAM
            .replace(r#","limits""#, r#","handoff":"queue","max_age_hours":12,"dedupe":false,"dsn":true,"limits""#);
        let row: StreamRow = serde_json::from_str(&stream).unwrap();
        assert_eq!((row.handoff, row.max_age_hours, row.dedupe, row.dsn), (Handoff::Queue, Some(12), false, true));
        assert_eq!(serde_json::to_string(&row).unwrap(), stream);
        let there_and_back = StreamRow::of(&row.clone().stream("main".parse().unwrap()));
        assert_eq!(there_and_back, row);
    }

    /// What a difference says of a field that is left out is what reading makes of it.
    #[test]
    fn what_is_left_out_is_told_as_it_reads() {
        let tenant: TenantRow = serde_json::from_str(OLD_TENANT).unwrap();
        let stream: StreamRow = serde_json::from_str(OLD_STREAM).unwrap();
        let reads: BTreeMap<&str, String> = BTreeMap::from([
            ("weight", tenant.weight.to_string()),
            ("handoff", stream.handoff.word().into()),
            ("dedupe", stream.dedupe.to_string()),
            ("dsn", stream.dsn.to_string()),
            ("exposure", stream.exposure.to_string()),
        ]);
        assert_eq!(
            LEFT_OUT.into_iter().map(|(field, word)| (field, word.to_owned())).collect::<BTreeMap<_, _>>(),
            reads
        );
    }
}
