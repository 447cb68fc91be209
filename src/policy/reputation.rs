//! The judge: from what became of a stream's mail to what it may still do. Pure.
//!
//! A *charge* is a rate that is over its limit. It stands when the lower bound of the rate's 95 %
//! interval (Wilson 1927) is over the limit and the bad events are no fewer than a minimum; a stream
//! with fewer recipients than a minimum is judged as though the missing ones had been clean. So small
//! numbers do not convict, and clean mail can never be what does (manual: `decisions/judge`).
//!
//! | step | whose | when | what follows |
//! |---|---|---|---|
//! | good | | | |
//! | warned | a stream's | a rate is over `warn` | it is told |
//! | slowed | a stream's | … over the middle of `warn` and `pause` | half rate |
//! | paused | a stream's | … over `pause` | its mail waits |
//! | transactional only | a tenant's | its sum is over `pause` | all but its transactional streams wait |
//! | paused | a tenant's | so is the sum of its transactional streams | all its mail waits |
//!
//! A tenant younger than [`Rules::young_days`] has ceilings besides: so many bad events in a window,
//! with a rate over `warn`, are too many whatever the interval says.
//!
//! Promises: a bad event never makes a standing better, a clean recipient never worse; order does not
//! matter; one tenant's figures touch no other's standing, but for the account's line, which takes the
//! worst first. A pause is kept until the moment that was said when it was made ([`settle`]): figures
//! that were lost make nobody good.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cohort::{DAY, Figures, History, WEEK, Windows};
use super::tenant::{Limits, StreamKind};
use crate::time::{Hour, Timestamp};

/// The 97.5th percentile of the normal distribution: two-sided 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// How long a warning or a slowing stays at the least, so that a rate near its limit is not told of
/// every minute.
pub const LEAST_STAY: Duration = Duration::from_secs(3600);

/// How far a tenant's or a stream's mail is restrained; the further the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Not at all.
    #[default]
    Good,
    /// It was told.
    Warned,
    /// A stream's rate is halved.
    Slowed,
    /// A tenant's transactional streams alone may send.
    TransactionalOnly,
    /// Nothing leaves.
    Paused,
}

/// What a rate is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offence {
    /// Permanent bounces.
    Bounce,
    /// Complaints.
    Complaint,
}

/// Over which time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
}

/// By which rule somebody is charged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A rate is over its limit.
    Rate,
    /// A young tenant has too many bad events; `limit` is their number.
    Ceiling,
    /// The account's rate nears SES's line, and this stream contributes most; `limit` is the account's.
    Account,
    /// SES has disabled the SES tenant.
    SesTenant,
    /// The record of the standing cannot be read: who cannot be told why is paused all the same.
    Damaged,
}

/// What somebody is charged with.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Charge {
    /// By which rule.
    pub rule: Rule,
    /// Of what.
    pub offence: Offence,
    /// Over which time.
    pub span: Span,
    /// Bad events of that time.
    pub bad: u64,
    /// Recipients accepted in it.
    pub accepted: u64,
    /// What it is over: a rate, or of [`Rule::Ceiling`] a number.
    pub limit: f64,
}

/// A standing other than good.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Brake {
    /// How far it goes.
    pub step: Step,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub charge: Charge,
    /// When it ends by itself if nothing bad comes; `None`: that is not known.
    pub clears: Option<Timestamp>,
    /// It is only told of, and restrains nothing.
    #[serde(default)]
    pub shadow: bool,
}

/// What the figures say, before what was said earlier.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judged {
    /// How far.
    pub step: Step,
    /// Why; `None` if good.
    pub charge: Option<Charge>,
}

/// Limits with nothing left out: rates from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Lines {
    /// Bounce rate of the first warning.
    pub warn_bounce: f64,
    /// Complaint rate of the first warning.
    pub warn_complaint: f64,
    /// Bounce rate of the pause.
    pub pause_bounce: f64,
    /// Complaint rate of the pause.
    pub pause_complaint: f64,
}

/// Numbers of bad events that a young tenant may not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bounces of the first warning.
    pub warn_bounces: u64,
    /// Bounces of the pause.
    pub pause_bounces: u64,
    /// Complaints of the first warning.
    pub warn_complaints: u64,
    /// Complaints of the pause.
    pub pause_complaints: u64,
}

/// The relay's rules.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rules {
    /// False: every standing is only told of.
    pub enforce: bool,
    /// Fewer recipients in a window are taken as so many.
    pub least_recipients: u64,
    /// Fewer bounces in a window charge nobody.
    pub least_bounces: u64,
    /// Fewer complaints in a window charge nobody.
    pub least_complaints: u64,
    /// Days from its first mail for which a tenant has ceilings.
    pub young_days: u32,
    /// A young tenant's ceilings of 24 hours.
    pub ceilings_day: Ceilings,
    /// Of 7 days.
    pub ceilings_week: Ceilings,
    /// Limits of transactional streams that have none of their own.
    pub transactional: Lines,
    /// Of bulk streams, and of a tenant's sum.
    pub bulk: Lines,
    /// Of marketing streams.
    pub marketing: Lines,
    /// The account's bounce rate at which the worst contributors are paused: before SES's review at 5 %.
    pub account_bounce: f64,
    /// Its complaint rate: before SES's review at 0.1 %.
    pub account_complaint: f64,
    /// The account's recipients in a window are taken as so many if they are fewer.
    pub account_least_recipients: u64,
}

impl Default for Rules {
    fn default() -> Self {
        let wide = Lines { warn_bounce: 0.02, warn_complaint: 0.0008, pause_bounce: 0.05, pause_complaint: 0.001 };
        Self {
            enforce: true,
            least_recipients: 100,
            least_bounces: 5,
            least_complaints: 3,
            young_days: 30,
            ceilings_day: Ceilings { warn_bounces: 10, pause_bounces: 25, warn_complaints: 3, pause_complaints: 7 },
            ceilings_week: Ceilings { warn_bounces: 25, pause_bounces: 50, warn_complaints: 10, pause_complaints: 20 },
            transactional: Lines { warn_bounce: 0.01, warn_complaint: 0.0005, ..wide },
            bulk: wide,
            marketing: wide,
            account_bounce: 0.04,
            account_complaint: 0.0008,
            account_least_recipients: 1000,
        }
    }
}

impl Rules {
    /// The limits of a stream: its own, else its tenant's, else its kind's.
    pub fn lines_of_stream(&self, kind: StreamKind, stream: &Limits, tenant: &Limits) -> Lines {
        let kind = match kind {
            StreamKind::Transactional => self.transactional,
            StreamKind::Bulk => self.bulk,
            StreamKind::Marketing => self.marketing,
        };
        kind.with(tenant).with(stream)
    }

    /// The limits of a tenant's sum: its own, else those of bulk mail.
    pub fn lines_of_tenant(&self, tenant: &Limits) -> Lines {
        self.bulk.with(tenant)
    }

    /// Whether a tenant whose first mail was then has ceilings at `now`.
    pub fn is_young(&self, first: Option<Timestamp>, now: Timestamp) -> bool {
        let days = Duration::from_secs(u64::from(self.young_days) * 86_400);
        first.is_none_or(|first| now.since(first) < days)
    }

    fn least(&self, offence: Offence) -> u64 {
        match offence {
            Offence::Bounce => self.least_bounces,
            Offence::Complaint => self.least_complaints,
        }
    }
}

impl Lines {
    /// These, where `own` says nothing else. A pause below a warning of another's moves the warning.
    fn with(self, own: &Limits) -> Self {
        let pause_bounce = own.pause_bounce.unwrap_or(self.pause_bounce);
        let pause_complaint = own.pause_complaint.unwrap_or(self.pause_complaint);
        Self {
            warn_bounce: own.warn_bounce.unwrap_or(self.warn_bounce).min(pause_bounce),
            warn_complaint: own.warn_complaint.unwrap_or(self.warn_complaint).min(pause_complaint),
            pause_bounce,
            pause_complaint,
        }
    }

    /// The rate of the warning.
    pub fn warn(&self, offence: Offence) -> f64 {
        match offence {
            Offence::Bounce => self.warn_bounce,
            Offence::Complaint => self.warn_complaint,
        }
    }

    /// The rate of the pause.
    pub fn pause(&self, offence: Offence) -> f64 {
        match offence {
            Offence::Bounce => self.pause_bounce,
            Offence::Complaint => self.pause_complaint,
        }
    }

    /// The rate at which a stream is slowed: the middle of the two.
    pub fn slow(&self, offence: Offence) -> f64 {
        f64::midpoint(self.warn(offence), self.pause(offence))
    }
}

impl Ceilings {
    /// The numbers of the first warning and of the pause.
    pub fn of(&self, offence: Offence) -> (u64, u64) {
        (self.warn(offence), self.pause(offence))
    }

    fn warn(&self, offence: Offence) -> u64 {
        match offence {
            Offence::Bounce => self.warn_bounces,
            Offence::Complaint => self.warn_complaints,
        }
    }

    fn pause(&self, offence: Offence) -> u64 {
        match offence {
            Offence::Bounce => self.pause_bounces,
            Offence::Complaint => self.pause_complaints,
        }
    }
}

impl Step {
    /// All of them, the best first.
    pub const ALL: [Self; 5] = [Self::Good, Self::Warned, Self::Slowed, Self::TransactionalOnly, Self::Paused];

    /// `good`, `warned`, `slowed`, `transactional_only`, `paused`: in records, the log and commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warned => "warned",
            Self::Slowed => "slowed",
            Self::TransactionalOnly => "transactional_only",
            Self::Paused => "paused",
        }
    }

    /// The same for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::TransactionalOnly => "left with its transactional streams",
            Self::Good | Self::Warned | Self::Slowed | Self::Paused => self.word(),
        }
    }
}

impl Offence {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bounce, Self::Complaint];

    /// `bounce`, `complaint`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Complaint => "complaint",
        }
    }

    /// The bad events of a window.
    pub fn of(self, figures: &Figures) -> u64 {
        match self {
            Self::Bounce => figures.bounced,
            Self::Complaint => figures.complained,
        }
    }
}

impl Span {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Day, Self::Week];

    /// A window's figures.
    pub fn of(self, windows: &Windows) -> Figures {
        match self {
            Self::Day => windows.day,
            Self::Week => windows.week,
        }
    }

    /// `24 hours`, `7 days`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Day => "24 hours",
            Self::Week => "7 days",
        }
    }
}

impl Charge {
    /// Bad events of recipients; 0 without any.
    pub fn rate(&self) -> f64 {
        rate(self.bad, self.accepted)
    }
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, offence, span, bad, accepted, limit } = self;
        let (offence, span, rate) = (offence.word(), span.words(), percent(self.rate()));
        match rule {
            Rule::Rate => {
                write!(f, "{offence} rate {rate} ({bad} of {accepted} in {span}) is over {}", percent(*limit))
            }
            Rule::Ceiling => {
                write!(f, "{bad} {offence}s of {accepted} in {span} ({rate}) reach {limit}, a new tenant's most")
            }
            Rule::Account => write!(
                f,
                "the account's {offence} rate is over {}, and this stream adds most to it ({bad} of {accepted} in {span})",
                percent(*limit)
            ),
            Rule::SesTenant => write!(f, "Amazon SES has disabled sending for the SES tenant"),
            Rule::Damaged => write!(f, "the record of this standing is damaged; resume ends it"),
        }
    }
}

impl Brake {
    /// Whether it restrains anything.
    pub fn is_in_force(&self) -> bool {
        !self.shadow && self.step > Step::Good
    }
}

impl Judged {
    /// Nothing is wrong.
    pub const GOOD: Self = Self { step: Step::Good, charge: None };

    fn worse(self, other: Self) -> Self {
        let excess = |judged: &Self| judged.charge.map_or(0.0, |charge| charge.rate() / charge.limit.max(1e-9));
        match other.step.cmp(&self.step) {
            std::cmp::Ordering::Greater => other,
            std::cmp::Ordering::Less => self,
            std::cmp::Ordering::Equal if excess(&other) > excess(&self) => other,
            std::cmp::Ordering::Equal => self,
        }
    }
}

/// Bad events of recipients, 0 to 1; 0 without any. Never fewer recipients than bad events: who was
/// lost to a crash was accepted all the same.
pub fn rate(bad: u64, accepted: u64) -> f64 {
    if bad == 0 { 0.0 } else { bad as f64 / accepted.max(bad) as f64 }
}

/// The lower bound of the 95 % interval of a rate (Wilson's score interval).
pub fn lower_bound(bad: u64, accepted: u64) -> f64 {
    if bad == 0 {
        return 0.0;
    }
    let n = accepted.max(bad) as f64;
    let p = bad as f64 / n;
    let z2 = Z * Z;
    let middle = p + z2 / (2.0 * n);
    let spread = Z * ((p * (1.0 - p) + z2 / (4.0 * n)) / n).sqrt();
    ((middle - spread) / (1.0 + z2 / n)).max(0.0)
}

/// `6.2 %`, `0.08 %`: two digits that say something.
pub fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    let text = if percent >= 1.0 { format!("{percent:.1}") } else { format!("{percent:.3}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// What a stream's figures say.
pub fn judge(windows: &Windows, lines: &Lines, rules: &Rules, young: bool) -> Judged {
    let mut judged = Judged::GOOD;
    for span in Span::ALL {
        for offence in Offence::ALL {
            judged = judged.worse(judge_one(windows, lines, rules, young, (span, offence)));
        }
    }
    judged
}

/// What one rate over one window says.
pub fn judge_one(
    windows: &Windows,
    lines: &Lines,
    rules: &Rules,
    young: bool,
    (span, offence): (Span, Offence),
) -> Judged {
    let figures = span.of(windows);
    let (bad, accepted) = (offence.of(&figures), figures.accepted);
    if bad == 0 {
        return Judged::GOOD;
    }
    let charge = |rule, limit| Some(Charge { rule, offence, span, bad, accepted, limit });
    let taken = accepted.max(rules.least_recipients);
    let (warn, slow, pause) = (lines.warn(offence), lines.slow(offence), lines.pause(offence));
    let ceilings = match span {
        Span::Day => &rules.ceilings_day,
        Span::Week => &rules.ceilings_week,
    };
    let bound = if bad >= rules.least(offence) { lower_bound(bad, taken) } else { 0.0 };
    let over_ceiling = |most: u64| young && bad >= most && rate(bad, accepted) > warn;
    if bound > pause {
        Judged { step: Step::Paused, charge: charge(Rule::Rate, pause) }
    } else if over_ceiling(ceilings.pause(offence)) {
        Judged { step: Step::Paused, charge: charge(Rule::Ceiling, ceilings.pause(offence) as f64) }
    } else if bound > slow {
        Judged { step: Step::Slowed, charge: charge(Rule::Rate, slow) }
    } else if bound > warn {
        Judged { step: Step::Warned, charge: charge(Rule::Rate, warn) }
    } else if over_ceiling(ceilings.warn(offence)) {
        Judged { step: Step::Warned, charge: charge(Rule::Ceiling, ceilings.warn(offence) as f64) }
    } else {
        Judged::GOOD
    }
}

/// What a tenant's sum says: `all` its streams, and its `transactional` ones among them. Its streams'
/// warnings are theirs; a tenant is restrained when its sum is over the pause.
pub fn judge_tenant(all: &Windows, transactional: &Windows, lines: &Lines, rules: &Rules, young: bool) -> Judged {
    let sum = judge(all, lines, rules, young);
    if sum.step < Step::Paused {
        return Judged::GOOD;
    }
    let reset = judge(transactional, lines, rules, young);
    if reset.step == Step::Paused { reset } else { Judged { step: Step::TransactionalOnly, ..sum } }
}

/// A stream as the account sees it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Contributor {
    /// Its figures.
    pub windows: Windows,
    /// Whether it may be paused for the account's sake: transactional streams may not.
    pub may_be_paused: bool,
}

/// What the sum of all streams says, and which of them are to be paused for it.
#[derive(Clone, PartialEq, Debug)]
pub struct AccountJudged {
    /// Why, if the account is over one of its lines: the figures are the account's.
    pub charge: Option<Charge>,
    /// The same of every line that it is over.
    pub charges: Vec<Charge>,
    /// The places of the worst contributors, each with its share of the bad events, the largest first:
    /// without them the rest is under the line.
    pub worst: Vec<(usize, f64)>,
}

/// What the account's sum says. The worst are those with the most bad events over what the line would
/// allow them.
pub fn judge_account(contributors: &[Contributor], rules: &Rules) -> AccountJudged {
    let mut sum = Windows::default();
    contributors.iter().for_each(|one| sum += one.windows);
    let lines = [(Offence::Bounce, rules.account_bounce), (Offence::Complaint, rules.account_complaint)];
    let mut found = AccountJudged { charge: None, charges: Vec::new(), worst: Vec::new() };
    for (offence, line) in lines {
        for span in Span::ALL {
            let figures = span.of(&sum);
            let (bad, accepted) = (offence.of(&figures), figures.accepted);
            // One complaint of a small account is over the line already: small numbers convict nobody here either.
            let over = |bad: u64, accepted: u64| {
                bad >= rules.least(offence) && rate(bad, accepted.max(rules.account_least_recipients)) > line
            };
            if !over(bad, accepted) {
                continue;
            }
            let charge = Charge { rule: Rule::Account, offence, span, bad, accepted, limit: line };
            found.charge.get_or_insert(charge);
            found.charges.push(charge);
            let excess = |one: &Contributor| {
                let figures = span.of(&one.windows);
                offence.of(&figures) as f64 - line * figures.accepted as f64
            };
            let mut order: Vec<(usize, &Contributor)> = contributors.iter().enumerate().collect();
            order.retain(|(_, one)| one.may_be_paused && excess(one) > 0.0);
            order.sort_by(|(_, a), (_, b)| excess(b).total_cmp(&excess(a)));
            let (mut rest_bad, mut rest_accepted) = (bad, accepted);
            for (at, one) in order {
                if !over(rest_bad, rest_accepted) {
                    break;
                }
                let figures = span.of(&one.windows);
                rest_bad = rest_bad.saturating_sub(offence.of(&figures));
                rest_accepted = rest_accepted.saturating_sub(figures.accepted);
                if !found.worst.iter().any(|(there, _)| *there == at) {
                    found.worst.push((at, rate(offence.of(&figures), bad)));
                }
            }
        }
    }
    found.worst.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    found
}

/// The standing that follows. What is worse holds at once. What is better holds when the brake that is
/// there has had its time: a pause when the moment has come that was said when it was made, all else
/// after [`LEAST_STAY`]. `clears` is when the figures alone will be better than `judged` if nothing
/// bad comes.
pub fn settle(
    before: Option<&Brake>,
    judged: Judged,
    clears: Option<Timestamp>,
    shadow: bool,
    now: Timestamp,
) -> Option<Brake> {
    let after = judged.charge.map(|charge| Brake { step: judged.step, since: now, charge, clears, shadow });
    let Some(before) = before else { return after };
    match after {
        Some(after) if after.step > before.step => Some(after),
        Some(after) if after.step == before.step => {
            // The same step with the figures of today; it never ends earlier than was said.
            Some(Brake { since: before.since, clears: later(before.clears, after.clears), ..after })
        }
        Some(_) | None => {
            let stays = match before.step {
                Step::Paused | Step::TransactionalOnly => before.clears.is_none_or(|until| now < until),
                Step::Good | Step::Warned | Step::Slowed => now.since(before.since) < LEAST_STAY,
            };
            if stays { Some(Brake { shadow, ..*before }) } else { after }
        }
    }
}

/// The later of two moments; unknown is later than any.
fn later(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    Some(one?.max(other?))
}

/// When `judge` gives less than `step` if nothing more is sent and nothing bad comes: the beginning of
/// the first such hour after `now`; at the latest when the week is over.
pub fn clears(history: &History, step: Step, now: Hour, judge: impl Fn(&Windows) -> Step) -> Timestamp {
    let mut ahead = history.clone();
    first_hour(now, |hour| {
        ahead.roll(hour);
        judge(&ahead.windows()) < step
    })
}

/// The same of a tenant's sum, which is judged by `all` its streams and the `transactional` ones.
pub fn clears_of_tenant(
    all: &History,
    transactional: &History,
    step: Step,
    now: Hour,
    judge: impl Fn(&Windows, &Windows) -> Step,
) -> Timestamp {
    let (mut all, mut transactional) = (all.clone(), transactional.clone());
    first_hour(now, |hour| {
        all.roll(hour);
        transactional.roll(hour);
        judge(&all.windows(), &transactional.windows()) < step
    })
}

fn first_hour(now: Hour, mut is_better: impl FnMut(Hour) -> bool) -> Timestamp {
    let last = Hour(now.0.saturating_add(WEEK + 1));
    let mut hours = (1..=WEEK).map(|hours| Hour(now.0.saturating_add(hours)));
    begin_of(hours.find(|hour| is_better(*hour)).unwrap_or(last))
}

/// How many more bad events, of the recipients there are, take a stream to a worse step; `None` where
/// none do, because it is at the worst or the recipients do not suffice.
pub fn more_until_worse(
    windows: &Windows,
    lines: &Lines,
    rules: &Rules,
    young: bool,
    offence: Offence,
) -> Option<(u64, Step)> {
    let step = judge(windows, lines, rules, young).step;
    let with = |more: u64| {
        let mut windows = *windows;
        for figures in [&mut windows.day, &mut windows.week] {
            match offence {
                Offence::Bounce => figures.bounced += more,
                Offence::Complaint => figures.complained += more,
            }
        }
        judge(&windows, lines, rules, young).step
    };
    let most = windows.week.accepted.max(rules.least_recipients);
    if step == Step::Paused || with(most) <= step {
        return None;
    }
    // The steps only get worse with more, so the least number is found by halving.
    let (mut enough, mut too_few) = (most, 0);
    while enough - too_few > 1 {
        let middle = u64::midpoint(enough, too_few);
        if with(middle) > step { enough = middle } else { too_few = middle }
    }
    Some((enough, with(enough)))
}

/// The first moment of an hour.
pub fn begin_of(hour: Hour) -> Timestamp {
    Timestamp::from_millis(u64::from(hour.0) * 3_600_000)
}

/// How many hours a window has, for texts and loops.
pub fn hours_of(span: Span) -> u32 {
    match span {
        Span::Day => DAY,
        Span::Week => WEEK,
    }
}

#[cfg(test)]
mod tests;
