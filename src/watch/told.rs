//! What is told of a suspicion and of an unusual volume: one sentence, the figures, what to do.
//!
//! The tenant's contact reads it too, so it says nothing of any other tenant.

use ipnet::IpNet;

use super::Effect;
use crate::announce::{Announcement, Kind, Severity};
use crate::mail::{TenantId, Username};
use crate::policy::takeover::{Suspicion, share};
use crate::policy::volume::{Turn, Unusual};
use crate::secret::Random;
use crate::time::{Hour, Timestamp};

/// Why a credential seems stolen, in one sentence: what its clients hear of a hold, too.
pub(super) fn reason(suspicion: &Suspicion) -> String {
    let Suspicion { hour, past, .. } = suspicion;
    format!(
        "it seems stolen: {} of {} recipients of this hour were never mailed before, {} came from new networks, and {:.0} are usual at this hour",
        hour.first_time.unwrap_or_default(),
        hour.recipients,
        hour.from_new_networks,
        past.same_hour_mean,
    )
}

/// A credential that seems stolen.
pub(super) fn suspected(
    tenant: &TenantId,
    credential: &Username,
    suspicion: &Suspicion,
    networks: &[IpNet],
    effect: Effect,
    (now, random): (Timestamp, &dyn Random),
) -> Announcement {
    let Suspicion { hour, past, .. } = suspicion;
    let (kind, severity, headline, first) = match effect {
        Effect::Hold => (
            Kind::CredentialHeld,
            Severity::Alarm,
            format!("Credential {credential} seems stolen and is on hold"),
            format!("When it is safe again: `bulkhead credential release {credential}`"),
        ),
        Effect::Alert => (
            Kind::CredentialSuspected,
            Severity::Warning,
            format!("Credential {credential} seems stolen"),
            format!("To stop it meanwhile: `bulkhead credential hold {credential} --reason WHY`"),
        ),
    };
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    let first_time = hour.first_time.unwrap_or_default();
    let percent = |part, whole| format!("{:.0} % ({part} of {whole})", share(part, whole) * 100.0);
    let mut announcement = Announcement::new(now, random, kind, severity, &headline);
    announcement.tenant = Some(tenant.clone());
    announcement.credential = Some(credential.clone());
    announcement.figures = vec![
        ("recipients never mailed before, this hour".into(), percent(first_time, hour.recipients)),
        ("the same, last 7 days".into(), percent(past.first_time, past.recipients)),
        ("recipients from new networks, this hour".into(), percent(hour.from_new_networks, hour.recipients)),
        ("new networks".into(), networks.join(", ")),
        ("recipients, this hour".into(), hour.recipients.to_string()),
        ("recipients at this hour, usually".into(), format!("{:.0}", past.same_hour_mean)),
    ];
    announcement.still_works = match effect {
        Effect::Hold => vec![
            "The tenant's other credentials".into(),
            "Mail that was accepted before; `bulkhead outbox list` shows what of it waits".into(),
        ],
        Effect::Alert => vec!["All of the tenant's mail, this credential's too".into()],
    };
    announcement.to_do = vec![
        "Find out whether this mail is the tenant's own".into(),
        format!(
            "If it is not: `bulkhead credential rotate {credential} --overlap 0s`, and give the new secret to its owner"
        ),
        first,
    ];
    announcement
}

/// A tenant whose volume of `hour` was unusual.
pub(super) fn unusual(
    tenant: &TenantId,
    hour: Hour,
    unusual: &Unusual,
    (now, random): (Timestamp, &dyn Random),
) -> Announcement {
    let (severity, headline, to_do) = match unusual.turn {
        Turn::Rose => (
            Severity::Warning,
            format!("Tenant {tenant} sends far more than usual"),
            "Ask whether a campaign was meant; look at the tenant's bounces and complaints",
        ),
        Turn::Fell => (
            Severity::Notice,
            format!("Tenant {tenant} sends far less than usual"),
            "Look for refused logins and messages of the tenant's in the log",
        ),
    };
    let mut announcement = Announcement::new(now, random, Kind::VolumeUnusual, severity, &headline);
    announcement.tenant = Some(tenant.clone());
    announcement.figures = vec![
        ("hour".into(), began(hour).rfc3339()),
        ("recipients".into(), unusual.recipients.to_string()),
        ("recipients at this hour, usually".into(), format!("{:.0}, over {} days", unusual.mean, unusual.days)),
    ];
    announcement.still_works = vec!["Everything: nothing was held for this".into()];
    announcement.to_do = vec![to_do.into()];
    announcement
}

/// When `hour` began.
pub(super) fn began(hour: Hour) -> Timestamp {
    Timestamp::from_millis(u64::from(hour.0) * 3_600_000)
}
