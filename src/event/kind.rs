//! What an SES event says, in SES's words (SES Developer Guide, event publishing).

use crate::mail::{ConfigurationSet, Mailbox, SesTenant, StreamId, TenantId};
use crate::time::Timestamp;

/// What one queue message turned out to be.
#[derive(Clone, PartialEq, Debug)]
pub enum Notice {
    /// Something happened to a message.
    Event(Event),
    /// EventBridge told of an SES tenant's sending status.
    SendingStatus(SendingStatus),
    /// EventBridge told of an advisor finding on an SES tenant.
    Recommendation(Recommendation),
    /// SNS asks for a subscription to be confirmed. Never fetched.
    SubscriptionConfirmation {
        /// The topic that asks.
        topic_arn: String,
    },
    /// "Successfully validated SNS topic …": plain text that SES posts once at set-up.
    TopicValidated,
    /// Well-formed, but of a kind we do not know: counted and acknowledged.
    Unknown {
        /// `eventType`, `detail-type` or SNS `Type` as it came, cut to 100 characters.
        kind: String,
    },
}

/// Something happened to a message.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// What happened.
    pub fate: Fate,
    /// When it happened (the inner timestamp; that of `mail` where the kind has none).
    pub at: Timestamp,
    /// The message it happened to.
    pub mail: Mail,
    /// By which form it came.
    pub form: Form,
}

/// The message an event is about.
#[derive(Clone, PartialEq, Debug)]
pub struct Mail {
    /// SES's message id.
    pub message_id: String,
    /// When SES took it: events are counted in this hour.
    pub timestamp: Timestamp,
    /// `mail.source`, display name removed; `None` if it is no address.
    pub source: Option<Mailbox>,
    /// The whole envelope of the call.
    pub destination: Vec<String>,
    /// Our own tag `tenant`.
    pub tenant: Option<TenantId>,
    /// Our own tag `stream`.
    pub stream: Option<StreamId>,
    /// Our own tag `credential`.
    pub credential: Option<String>,
    /// SES's tag `ses:configuration-set`.
    pub configuration_set: Option<ConfigurationSet>,
    /// SES's tag `ses:tenant-name`.
    pub ses_tenant: Option<SesTenant>,
}

/// How a notice was wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// SNS notification with the event as a string.
    Sns,
    /// The event itself: SNS raw delivery.
    Raw,
    /// EventBridge, `detail`.
    EventBridge,
}

/// What happened. Recipients are as SES gives them; see [`Recipient`].
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    /// SES took it.
    Send,
    /// The recipient's server took it.
    Delivery {
        /// Who got it.
        recipients: Vec<Recipient>,
    },
    /// It came back.
    Bounce {
        /// Permanent, Transient, Undetermined.
        bounce_type: BounceType,
        /// As SES spells it: `General`, `NoEmail`, `OnAccountSuppressionList` …
        sub_type: String,
        /// Whom it did not reach.
        recipients: Vec<Recipient>,
        /// SES's id of this bounce: the key by which it is applied once.
        feedback_id: String,
    },
    /// Somebody called it spam.
    Complaint {
        /// `OnAccountSuppressionList` and the like.
        sub_type: Option<String>,
        /// `abuse`, `not-spam` …
        feedback_type: Option<String>,
        /// Who may have complained.
        recipients: Vec<Recipient>,
        /// SES's id of this complaint.
        feedback_id: String,
    },
    /// SES found a virus after it had taken the message.
    Reject {
        /// SES's words.
        reason: String,
    },
    /// Not delivered yet.
    DeliveryDelay {
        /// As SES spells it.
        delay_type: String,
        /// Who waits.
        recipients: Vec<Recipient>,
    },
    /// Opened.
    Open,
    /// A link was followed.
    Click,
    /// A template could not be rendered.
    RenderingFailure {
        /// SES's words.
        message: String,
    },
    /// Topic preferences changed.
    Subscription,
}

/// SES's `bounceType`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BounceType {
    /// Hard.
    Permanent,
    /// Soft, and SES gave up.
    Transient,
    /// SES could not tell.
    Undetermined,
}

/// One recipient in an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// The address; `None` when what SES gave is none (it is then only counted).
    pub mailbox: Option<Mailbox>,
    /// As SES gave it, cut to 320 characters.
    pub given: String,
    /// Enhanced status code, if any.
    pub status: Option<String>,
    /// What the other server did (`failed`), if it is told.
    pub action: Option<String>,
    /// The other server's words, cut to 500 characters.
    pub diagnostic: Option<String>,
}

/// EventBridge "Sending Status Enabled" and "… Disabled".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendingStatus {
    /// EventBridge's id.
    pub id: String,
    /// The SES tenant, out of `resources`.
    pub ses_tenant: Option<SesTenant>,
    /// `ENABLED`, `DISABLED`, `REINSTATED`.
    pub status: String,
    /// `CUSTOMER_MANAGED` or `AWS_MANAGED`.
    pub origin: String,
    /// SES's words.
    pub cause: String,
    /// When.
    pub at: Timestamp,
}

/// EventBridge "Advisor Recommendation Status Open", "… Resolved" or "… Closed".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recommendation {
    /// EventBridge's id.
    pub id: String,
    /// The SES tenant, out of `resources`.
    pub ses_tenant: Option<SesTenant>,
    /// Whether the finding is open.
    pub open: bool,
    /// `HIGH` or `LOW`.
    pub impact: String,
    /// `BOUNCE`, `COMPLAINT` …
    pub finding: String,
    /// SES's words.
    pub words: String,
    /// When.
    pub at: Timestamp,
}

impl Recipient {
    /// Longest `given`, in characters.
    pub const GIVEN: usize = 320;

    /// A recipient as SES gives it: an address, sometimes with a display name.
    pub fn read(given: &str) -> Self {
        Self {
            mailbox: address(given),
            given: given.chars().take(Self::GIVEN).collect(),
            status: None,
            action: None,
            diagnostic: None,
        }
    }

    /// Whether nothing is told of it but its address: in a bounce, that of an automatic reply.
    pub fn is_bare(&self) -> bool {
        self.status.is_none() && self.action.is_none() && self.diagnostic.is_none()
    }

    /// The form under which recipients are told apart: the folded address, or what was given in
    /// lower case.
    pub fn folded(&self) -> String {
        self.mailbox.as_ref().map_or_else(|| self.given.to_lowercase(), Mailbox::folded)
    }
}

/// The address in `text`, a display name and angle brackets taken off; `None` if there is none.
pub(super) fn address(text: &str) -> Option<Mailbox> {
    let text = text.trim();
    let bare = match text.strip_suffix('>').and_then(|open| open.rsplit_once('<')) {
        Some((_, within)) => within.trim(),
        None => text,
    };
    Mailbox::parse(bare.as_bytes()).ok()
}

impl Fate {
    /// Whom it names, for kinds that name recipients.
    pub fn recipients(&self) -> Option<&[Recipient]> {
        match self {
            Self::Delivery { recipients }
            | Self::Bounce { recipients, .. }
            | Self::Complaint { recipients, .. }
            | Self::DeliveryDelay { recipients, .. } => Some(recipients),
            Self::Send
            | Self::Reject { .. }
            | Self::Open
            | Self::Click
            | Self::RenderingFailure { .. }
            | Self::Subscription => None,
        }
    }
}
