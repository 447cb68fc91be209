//! What the applier tells once it is durable: to the book that rates are made of, and to whoever
//! bounds mail whose outcome is not known yet.

use std::sync::{Arc, OnceLock};

use crate::announce::Announcement;
use crate::mail::{StreamId, TenantId};
use crate::policy::effect::Count;
use crate::policy::tenant::Cohort;
use crate::store::counters::Counts;
use crate::time::Timestamp;

/// What became of one recipient of a message, applied for the first time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Whose mail.
    pub tenant: TenantId,
    /// Of which stream.
    pub stream: StreamId,
    /// In which cohort it counts.
    pub cohort: Cohort,
    /// When SES took the message, by SES's clock.
    pub sent: Timestamp,
    /// What became of it.
    pub count: Count,
}

/// Hears of facts after the commit that holds them. Called from the applier's task: it must not wait.
pub trait Witness: Send + Sync + 'static {
    /// These were applied.
    fn applied(&self, facts: &[Fact]);

    /// The status of an SES tenant was written, and so were these announcements of it.
    fn status_changed(&self, announcements: &[Announcement]);
}

/// Who hears, once there is somebody: the appliers are built before.
pub type Hearing = Arc<OnceLock<Arc<dyn Witness>>>;

/// One recipient as the counters have it.
pub fn one(count: Count) -> Counts {
    let mut counts = Counts::default();
    match count {
        Count::Delivered => counts.delivered = 1,
        Count::Bounced => counts.bounced = 1,
        Count::SoftBounced => counts.soft_bounced = 1,
        Count::Complained => counts.complained = 1,
        Count::Delayed => counts.delayed = 1,
        Count::Rejected => counts.rejected = 1,
    }
    counts
}
