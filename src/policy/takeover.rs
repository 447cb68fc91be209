//! Whether a credential seems stolen: an hour of its mail against its own past.
//!
//! Who has stolen a credential sends from somewhere else, to people its owner never wrote to, and
//! much at once. Each of the three happens to honest senders every day: a campaign goes to new
//! readers, a server moves, a backlog leaves. All three in one hour do not.
//!
//! Promises: pure; no signal convicts alone, nor do two. A credential that has no past is never
//! suspected, nor one whose first-time recipients cannot be told. Usual mail (to known recipients,
//! from known networks) never makes an hour more suspicious, however much of it there is: besides
//! the whole hour's volume, what came from new networks has to be a jump by itself.
//! Refuses: nothing; what it is not told counts for the credential.

use std::net::IpAddr;

use ipnet::IpNet;

/// Days of use before a credential has a past, and the days that its past is.
pub const DAYS: u32 = 7;
/// Least recipients of the past days whose share of first-time ones says anything.
pub const PAST_LEAST: u64 = 10;

/// From what on a signal is given.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rules {
    /// Share of first-time recipients of an hour, 0 to 1, that is not yet one.
    pub first_time_share: f64,
    /// Usual share of first-time recipients, 0 to 1, below which such an hour is unusual.
    pub usual_share: f64,
    /// Least recipients of an hour whose share says anything.
    pub first_time_least: u64,
    /// How many times the usual volume is not yet a jump.
    pub jump_times: f64,
    /// Recipients over the usual volume that a jump has at least.
    pub jump_least: u64,
}

/// What the credential is used to. The past ends with the day before: an hour of theft is no past of
/// the next one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Past {
    /// Whole days since its first use.
    pub days_of_use: u32,
    /// Recipients of the last [`DAYS`] days.
    pub recipients: u64,
    /// Of them, those it had never mailed before.
    pub first_time: u64,
    /// Mean recipients of this hour of the day over those days; days without mail count as 0.
    pub same_hour_mean: f64,
}

/// What it did in the current hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hour {
    /// Recipients that were accepted.
    pub recipients: u64,
    /// Of them, those it had never mailed before; `None`: nobody can tell any more.
    pub first_time: Option<u64>,
    /// Of them, those that came from networks it was not used from before.
    pub from_new_networks: u64,
}

/// The three signals, with the figures they were given on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Suspicion {
    /// Its recipients have turned mostly first-time.
    pub first_time: bool,
    /// Its source network has changed.
    pub network: bool,
    /// Its volume has jumped.
    pub volume: bool,
    /// What came from new networks is a jump by itself, the usual mail set aside.
    pub volume_by_itself: bool,
    /// Its past.
    pub past: Past,
    /// The hour that was judged.
    pub hour: Hour,
}

impl Default for Rules {
    fn default() -> Self {
        Self { first_time_share: 0.8, usual_share: 0.5, first_time_least: 50, jump_times: 3.0, jump_least: 100 }
    }
}

impl Suspicion {
    /// Whether all signals are there together.
    pub fn stands(&self) -> bool {
        self.first_time && self.network && self.volume && self.volume_by_itself
    }
}

/// The signals of `hour` against `past`.
pub fn judge(rules: &Rules, past: &Past, hour: &Hour) -> Suspicion {
    let seasoned = past.days_of_use >= DAYS;
    let jump = |recipients: u64| {
        let recipients = number(recipients);
        recipients > rules.jump_times * past.same_hour_mean
            && recipients >= past.same_hour_mean + number(rules.jump_least)
    };
    let usually_known = past.recipients >= PAST_LEAST && share(past.first_time, past.recipients) < rules.usual_share;
    let mostly_new = hour.recipients >= rules.first_time_least
        && hour.first_time.is_some_and(|first| share(first, hour.recipients) > rules.first_time_share);
    Suspicion {
        first_time: seasoned && usually_known && mostly_new,
        network: seasoned && hour.from_new_networks.saturating_mul(2) > hour.recipients,
        volume: seasoned && jump(hour.recipients),
        volume_by_itself: seasoned && jump(hour.from_new_networks),
        past: *past,
        hour: *hour,
    }
}

/// The network an address counts for: IPv4 /24, IPv6 /48. An IPv4-mapped address counts as IPv4.
pub fn network_of(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { 24 } else { 48 };
    // Neither length is too long for its kind of address.
    IpNet::new(address, prefix).unwrap_or_else(|_| IpNet::from(address)).trunc()
}

/// `part` of `whole`, 0 to 1; 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of recipients are far below 2^53")]
fn number(recipients: u64) -> f64 {
    recipients as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Used for weeks, 100 recipients at this hour, a tenth of them new.
    const PAST: Past = Past { days_of_use: 30, recipients: 5_000, first_time: 500, same_hour_mean: 100.0 };
    /// Ten times as many, all new, from elsewhere.
    const STOLEN: Hour = Hour { recipients: 1_000, first_time: Some(1_000), from_new_networks: 1_000 };

    fn signals(past: &Past, hour: &Hour) -> (bool, bool, bool, bool) {
        let suspicion = judge(&Rules::default(), past, hour);
        (suspicion.first_time, suspicion.network, suspicion.volume, suspicion.stands())
    }

    #[test]
    fn all_three_signals_together_convict_and_nothing_less() {
        // first-time recipients, recipients from new networks, recipients; which signals; whether it stands
        let cases = [
            ("a usual hour", 10, 0, 100, (false, false, false)),
            ("new recipients alone", 90, 0, 100, (true, false, false)),
            ("a new network alone", 10, 100, 100, (false, true, false)),
            ("volume alone", 100, 0, 1_000, (false, false, true)),
            ("a campaign", 950, 0, 1_000, (true, false, true)),
            ("a move with a backlog", 100, 1_000, 1_000, (false, true, true)),
            ("a move that meets new customers", 90, 100, 100, (true, true, false)),
            ("all of it", 1_000, 1_000, 1_000, (true, true, true)),
        ];
        for (what, first, new, recipients, (first_time, network, volume)) in cases {
            let hour = Hour { recipients, first_time: Some(first), from_new_networks: new };
            let stands = first_time && network && volume;
            assert_eq!(signals(&PAST, &hour), (first_time, network, volume, stands), "{what}");
        }
    }

    #[test]
    fn each_limit_is_where_it_is_said_to_be() {
        let hour = |recipients, first, new| Hour { recipients, first_time: Some(first), from_new_networks: new };
        // Share of first-time recipients: over 80 %, of 50 at least.
        assert!(!signals(&PAST, &hour(100, 80, 0)).0);
        assert!(signals(&PAST, &hour(100, 81, 0)).0);
        assert!(!signals(&PAST, &hour(49, 49, 0)).0);
        assert!(signals(&PAST, &hour(50, 50, 0)).0);
        // The usual share: under 50 %, of 10 recipients at least.
        let past = |recipients, first_time| Past { recipients, first_time, ..PAST };
        assert!(!signals(&past(1_000, 500), &STOLEN).0);
        assert!(signals(&past(1_000, 499), &STOLEN).0);
        assert!(!signals(&past(9, 0), &STOLEN).0);
        assert!(signals(&past(10, 0), &STOLEN).0);
        // Networks: most of the hour's recipients.
        assert!(!signals(&PAST, &hour(100, 0, 50)).1);
        assert!(signals(&PAST, &hour(100, 0, 51)).1);
        // Volume: over three times the mean, and 100 recipients more than it.
        assert!(!signals(&PAST, &hour(300, 0, 0)).2);
        assert!(signals(&PAST, &hour(301, 0, 0)).2);
        let mean = |same_hour_mean| Past { same_hour_mean, ..PAST };
        assert!(!signals(&mean(10.0), &hour(109, 0, 0)).2);
        assert!(signals(&mean(10.0), &hour(110, 0, 0)).2);
        assert!(!signals(&mean(0.0), &hour(99, 0, 0)).2);
        assert!(signals(&mean(0.0), &hour(100, 0, 0)).2);
    }

    #[test]
    fn without_a_past_or_a_memory_nobody_is_convicted() {
        assert!(signals(&PAST, &STOLEN).3);
        assert_eq!(signals(&Past { days_of_use: 6, ..PAST }, &STOLEN), (false, false, false, false));
        assert!(signals(&Past { days_of_use: 7, ..PAST }, &STOLEN).3);
        assert!(!signals(&PAST, &Hour { first_time: None, ..STOLEN }).3);
        let never = Past { days_of_use: 400, recipients: 0, first_time: 0, same_hour_mean: 0.0 };
        assert!(!signals(&never, &STOLEN).3);
    }

    #[test]
    fn usual_mail_beside_it_does_not_make_a_jump_of_a_few() {
        // 290 from elsewhere are under three times the mean; with 40 usual ones the hour is over.
        let hour = Hour { recipients: 330, first_time: Some(290), from_new_networks: 290 };
        assert_eq!(signals(&PAST, &hour), (true, true, true, false));
    }

    #[test]
    fn networks_are_of_24_and_48_bits() {
        for (address, network) in [
            ("192.0.2.71", "192.0.2.0/24"),
            ("::ffff:192.0.2.71", "192.0.2.0/24"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
            ("::1", "::/48"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()).to_string(), network, "{address}");
        }
    }

    prop_compose! {
        fn pasts()(
            days_of_use in 0..40_u32,
            recipients in 0..20_000_u64,
            share in 0.0..1.0_f64,
            same_hour_mean in 0.0..400.0_f64,
        ) -> Past {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a small number above 0")]
            let first_time = (number(recipients) * share) as u64;
            Past { days_of_use, recipients, first_time, same_hour_mean }
        }
    }

    prop_compose! {
        fn hours()(recipients in 0..3_000_u64, first in 0.6..1.2_f64, new in 0.3..1.2_f64) -> Hour {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a small number above 0")]
            let part = |share: f64| ((number(recipients) * share) as u64).min(recipients);
            Hour { recipients, first_time: Some(part(first)), from_new_networks: part(new) }
        }
    }

    prop_compose! {
        /// All new, all from elsewhere, and not quite a jump; and some usual mail beside it.
        fn nearly()(past in pasts(), times in 2.4..3.0_f64, part in 0.0..0.25_f64) -> (Past, Hour, u64) {
            let past = Past { days_of_use: 30, recipients: 1_000, first_time: 100, same_hour_mean: past.same_hour_mean + 50.0 };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a small number above 0")]
            let whole = |number: f64| number as u64;
            let recipients = whole(past.same_hour_mean * times);
            let hour = Hour { recipients, first_time: Some(recipients), from_new_networks: recipients };
            (past, hour, whole(number(recipients) * part))
        }
    }

    proptest! {
        /// As above, where a little more would make a jump of it.
        #[test]
        fn nor_where_it_was_nearly_a_jump((past, hour, more) in nearly()) {
            let now = judge(&Rules::default(), &past, &Hour { recipients: hour.recipients + more, ..hour });
            prop_assert!(!judge(&Rules::default(), &past, &hour).stands() && !now.stands());
        }

        /// Mail to known recipients from a known network, now or at this hour of the days before.
        #[test]
        fn usual_mail_never_makes_it_more_suspicious(
            past in pasts(), hour in hours(), more in 0..5_000_u64, before in 0..5_000_u64,
        ) {
            let rules = Rules::default();
            let stood = judge(&rules, &past, &hour).stands();
            let now = judge(&rules, &past, &Hour { recipients: hour.recipients + more, ..hour });
            let longer = Past { same_hour_mean: past.same_hour_mean + number(before) / 7.0, ..past };
            prop_assert!(stood || !now.stands());
            prop_assert!(stood || !judge(&rules, &longer, &hour).stands());
        }

        #[test]
        fn no_two_signals_convict(past in pasts(), hour in hours(), which in 0..3_usize) {
            let known = Hour { first_time: hour.first_time.map(|first| first.min(hour.recipients / 2)), ..hour };
            let here = Hour { from_new_networks: hour.from_new_networks.min(hour.recipients / 2), ..hour };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a small number above 0")]
            let usual = (past.same_hour_mean * 3.0) as u64;
            let few = hour.recipients.min(usual);
            let few = Hour { recipients: few, first_time: Some(few), from_new_networks: few };
            let hour = [known, here, few][which];
            prop_assert!(!judge(&Rules::default(), &past, &hour).stands());
        }
    }

    /// What the properties above are drawn from convicts often enough to mean something.
    #[test]
    fn the_generators_reach_convictions() {
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let mut stands = 0;
        for _ in 0..2_000 {
            let past = pasts().new_tree(&mut runner).unwrap().current();
            let hour = hours().new_tree(&mut runner).unwrap().current();
            stands += usize::from(judge(&Rules::default(), &past, &hour).stands());
        }
        assert!((100..1_900).contains(&stands), "{stands} of 2000");
        let mut turned = 0;
        for _ in 0..2_000 {
            let (past, hour, more) = nearly().new_tree(&mut runner).unwrap().current();
            let now = judge(&Rules::default(), &past, &Hour { recipients: hour.recipients + more, ..hour });
            turned += usize::from(now.first_time && now.network && now.volume);
        }
        assert!(turned > 200, "all three signals in {turned} of 2000");
    }
}
