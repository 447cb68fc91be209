//! What SES says of the account: its rate, its quota of 24 hours, and whether it may send at all; asked
//! every minute, for SES allows it once a second.
//!
//! Promises: a setting overrides what SES says of rate and quota, never what it says of standing. What is
//! told is told once a change. A quota nobody has confirmed for [`STALE`] is none: SES then keeps it by
//! itself.
//! What can go wrong: our role may not ask. That is told once; then nothing is known but SES's refusals.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Dispatch;
use super::gate::Quota;
use crate::journal;
use crate::outbox::Cause;
use crate::upstream::Account;

/// How often SES is asked what the account may send.
const EVERY: Duration = Duration::from_secs(60);
/// How long the first answer to that is waited for where mail is held already.
const FIRST: Duration = Duration::from_secs(5);
/// Questions in a row without an answer after which the last one says nothing any more.
pub const STALE: u32 = 10;
/// The part of the quota whose use is told of, and the part below which it may be told of again.
const NEAR: (f64, f64) = (0.80, 0.75);

/// A change of how SES sees the account.
#[derive(Clone, PartialEq, Debug)]
pub struct AccountNews {
    /// `HEALTHY`, `PROBATION`, `SHUTDOWN`; empty if SES says nothing.
    pub enforcement_status: String,
    /// False: the account's sending is paused.
    pub sending_enabled: bool,
    /// The quota of 24 hours, when it has become nearly or wholly used up.
    pub quota: Option<QuotaNews>,
}

/// How much of the quota of 24 hours is used.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct QuotaNews {
    /// Recipients sent in 24 hours.
    pub sent: f64,
    /// The most of them.
    pub most: f64,
    /// What is left is none, or too little for mail that waits for it.
    pub is_reached: bool,
}

/// How far the quota is used up, as it has been told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Used {
    Little,
    Nearly,
    Wholly,
}

/// What has been told of the account.
#[derive(Debug)]
struct Told {
    rate: Option<f64>,
    standing: AccountNews,
    used: Used,
    is_unknown: bool,
    misses: u32,
}

impl Dispatch {
    /// Whoever wants to hear of changes of how SES sees the account. The first call counts.
    pub fn tell_account_news(&self, tell: Box<dyn Fn(AccountNews) + Send + Sync>) {
        let _ = self.account_news.set(tell);
    }

    /// Begins to learn what SES takes. Where mail is held already, the first answer is waited for, so that
    /// a start does not begin with throttles.
    pub(super) async fn know_account(self: &Arc<Self>, drain: CancellationToken) -> JoinHandle<()> {
        let (first, answered) = oneshot::channel();
        let learning = tokio::spawn(Arc::clone(self).learn_account(first, drain));
        if self.means.outbox.backlog().messages > 0 {
            let _ = timeout(FIRST, answered).await;
        }
        learning
    }

    async fn learn_account(self: Arc<Self>, first: oneshot::Sender<()>, drain: CancellationToken) {
        let mut first = Some(first);
        let standing = AccountNews { enforcement_status: String::new(), sending_enabled: true, quota: None };
        let mut told = Told { rate: None, standing, used: Used::Little, is_unknown: false, misses: 0 };
        loop {
            match self.means.mailer.account().await {
                Ok(account) => self.note_account(&account, &mut told),
                Err(error) => self.miss_account(&error, &mut told),
            }
            if let Some(first) = first.take() {
                // Nobody may wait for it any more.
                let _ = first.send(());
            }
            if timeout(EVERY, drain.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    fn note_account(&self, account: &Account, told: &mut Told) {
        told.misses = 0;
        if self.options.max_send_rate.is_none()
            && account.max_send_rate > 0.0
            && told.rate != Some(account.max_send_rate)
        {
            told.rate = Some(account.max_send_rate);
            journal::rate_learned(account.max_send_rate);
            self.board().change_rate(told.rate, self.means.clock.instant());
        }
        // SES says -1 where there is no limit.
        let most = self.options.max_24_hour_send.unwrap_or(account.max_24_hour_send);
        let most = (most >= 0.0).then_some(most);
        let sent = account.sent_last_24_hours.max(0.0);
        let news = AccountNews {
            enforcement_status: account.enforcement_status.clone(),
            sending_enabled: account.sending_enabled,
            quota: None,
        };
        let is_shut = !news.sending_enabled || news.enforcement_status == "SHUTDOWN";
        let quota = Quota { most, sent, reserve: self.options.quota_reserve, is_shut };
        self.board().gates.change_quota(quota);
        journal::quota(most, sent);
        if let Some(most) = most.filter(|most| *most > 0.0) {
            let part = sent / most;
            let is_waited_for = self.board().gated().contains_key(&Cause::DailyQuota);
            let used = match part {
                _ if part >= 1.0 || is_waited_for => Used::Wholly,
                _ if part >= NEAR.0 => Used::Nearly,
                _ => Used::Little,
            };
            if used > told.used {
                journal::quota_near(most, sent);
                if let Some(tell) = self.account_news.get() {
                    let quota = Some(QuotaNews { sent, most, is_reached: used == Used::Wholly });
                    tell(AccountNews { quota, ..news.clone() });
                }
            }
            told.used = if part < NEAR.1 { used } else { used.max(told.used) };
        }
        let is_first_and_well = told.standing.enforcement_status.is_empty()
            && news.sending_enabled
            && matches!(news.enforcement_status.as_str(), "" | "HEALTHY");
        if told.standing != news {
            if !is_first_and_well || !told.standing.sending_enabled {
                journal::account_standing(&news.enforcement_status, news.sending_enabled);
                if let Some(tell) = self.account_news.get() {
                    tell(news.clone());
                }
            }
            told.standing = news;
        }
        self.unpark_gated();
        self.news.notify_one();
    }

    fn miss_account(&self, error: &str, told: &mut Told) {
        told.misses = told.misses.saturating_add(1);
        if !std::mem::replace(&mut told.is_unknown, true) {
            journal::account_unknown(error);
        }
        if told.misses == STALE {
            self.board().gates.change_quota(Quota::default());
            self.unpark_gated();
        }
    }
}
