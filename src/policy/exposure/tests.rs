//! The window by its rules, by campaigns in seconds, and by whatever comes in any order.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::OutcomeKind::{Bad, Delivered, Other};
use super::*;
use crate::policy::reputation::{Brake, Charge, Offence, Rule, Span};

const WARN: f64 = 0.02;

/// Seconds of a story that begins at some hour.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_777_000_000_000 + seconds * 1000)
}

fn standing(step: Step) -> Standing {
    let charge =
        Charge { rule: Rule::Rate, offence: Offence::Bounce, span: Span::Day, bad: 9, accepted: 100, limit: WARN };
    let brake = Brake { step, since: at(0), charge, clears: None, shadow: false };
    Standing { brake: (step > Step::Good).then_some(brake), ..Standing::default() }
}

fn new() -> Exposure {
    of(None)
}

fn of(kept: Option<Kept>) -> Exposure {
    let mut exposure = Exposure::new(Rules::default(), kept, &Past::default(), at(0));
    exposure.standing(&standing(Step::Good), WARN, at(0));
    exposure
}

fn take(exposure: &mut Exposure, recipients: u64, second: u64) {
    exposure.admits(recipients, at(second)).unwrap();
    exposure.reserve(recipients);
    exposure.taken(recipients, at(second), at(second));
    exposure.unreserve(recipients);
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[test]
fn a_new_stream_has_a_hundred_out_and_more_as_they_are_heard_of() {
    let mut exposure = new();
    assert_eq!(exposure.room(at(1)), Room::For(100));
    take(&mut exposure, 60, 1);
    exposure.reserve(30);
    assert_eq!(exposure.room(at(2)), Room::For(10));
    assert_eq!(exposure.admits(11, at(2)), Err(Some(at(602))), "until the oldest pass the horizon");
    exposure.reserve(10);
    assert_eq!(exposure.room(at(2)), Room::Shut(Some(at(602))));
    exposure.unreserve(25);
    assert_eq!(exposure.room(at(3)), Room::For(25));
    assert!(exposure.outcome(at(1), 20, Delivered, at(3)));
    assert!(exposure.outcome(at(1), 1, Bad, at(3)));
    assert!(exposure.outcome(at(1), 4, Other, at(3)));
    assert_eq!(exposure.room(at(3)), Room::For(50));
    assert_eq!(exposure.room(at(601)), Room::For(50));
    assert_eq!(exposure.room(at(602)), Room::For(85), "what is being offered is not out");
}

#[test]
fn a_message_larger_than_the_window_goes_alone() {
    let mut exposure = new();
    assert_eq!(exposure.admits(1000, at(1)), Ok(()));
    take(&mut exposure, 1, 1);
    assert_eq!(exposure.admits(1000, at(2)), Err(Some(at(602))));
    exposure.outcome(at(1), 1, Delivered, at(3));
    take(&mut exposure, 1000, 4);
    assert_eq!(exposure.admits(1, at(5)), Err(Some(at(605))));
    exposure.outcome(at(4), 950, Delivered, at(6));
    assert_eq!(exposure.room(at(6)), Room::For(50), "5 % are out, and may be bad");
    exposure.outcome(at(4), 40, Delivered, at(7));
    assert_eq!(exposure.room(at(7)), Room::For(190));
}

#[test]
fn a_clean_round_doubles_and_an_unclean_one_does_not() {
    let mut exposure = new();
    take(&mut exposure, 100, 1);
    exposure.outcome(at(1), 97, Delivered, at(2));
    assert_eq!(exposure.view(at(2)).window, Some(100), "the last three might be bad");
    exposure.outcome(at(1), 1, Delivered, at(2));
    assert_eq!(exposure.view(at(2)).window, Some(200));
    assert_eq!(exposure.room(at(2)), Room::For(198));
    // What was sent before the round began is not of it.
    exposure.outcome(at(1), 2, Bad, at(3));
    take(&mut exposure, 200, 4);
    exposure.outcome(at(4), 195, Delivered, at(5));
    exposure.outcome(at(4), 5, Bad, at(60));
    assert_eq!(exposure.view(at(60)).window, Some(200), "5 of 200 are over 2 %");
    take(&mut exposure, 200, 61);
    exposure.outcome(at(61), 196, Delivered, at(62));
    assert_eq!(exposure.view(at(62)).window, Some(400), "5 and 4 of 400 are not, by the interval");
}

/// After 12 of 100 one round is too little, and two are enough.
#[test]
fn an_unclean_round_weighs_on_the_next() {
    let mut exposure = new();
    take(&mut exposure, 100, 1);
    exposure.outcome(at(1), 88, Delivered, at(2));
    exposure.outcome(at(1), 12, Bad, at(3));
    for (second, window) in [(10, 100), (20, 200)] {
        take(&mut exposure, 100, second);
        exposure.outcome(at(second), 100, Delivered, at(second + 1));
        assert_eq!(exposure.view(at(second + 1)).window, Some(window));
    }
}

#[test]
fn whoever_is_late_is_waited_for_a_quarter_of_the_horizon() {
    let mut exposure = new();
    take(&mut exposure, 100, 1);
    exposure.outcome(at(1), 90, Delivered, at(2));
    assert_eq!(exposure.view(at(2)).window, Some(100), "they might be bad");
    assert_eq!(exposure.admits(95, at(2)), Err(Some(at(152))));
    assert_eq!(exposure.room(at(151)), Room::For(90));
    assert_eq!(exposure.room(at(152)), Room::For(190));
    // Of whom nothing is heard, nothing is known.
    let mut exposure = new();
    take(&mut exposure, 100, 1);
    exposure.outcome(at(1), 40, Delivered, at(2));
    assert_eq!(exposure.room(at(601)), Room::For(40));
    assert_eq!(exposure.room(at(602)), Room::For(100));
}

#[test]
fn each_step_down_halves_once_and_a_pause_shuts() {
    let mut exposure = of(Some(Kept { window: 800, ..new().to_keep() }));
    take(&mut exposure, 600, 1);
    assert!(exposure.standing(&standing(Step::Warned), WARN, at(2)));
    assert!(!exposure.standing(&standing(Step::Warned), WARN, at(2)));
    assert_eq!(exposure.view(at(2)).window, Some(300), "half of what is out, not of what might be");
    exposure.standing(&standing(Step::Slowed), WARN, at(3));
    assert_eq!(exposure.view(at(3)).window, Some(150));
    exposure.standing(&standing(Step::Warned), WARN, at(3));
    assert_eq!(exposure.view(at(3)).window, Some(150), "it stays where it is");
    exposure.standing(&standing(Step::Paused), WARN, at(4));
    assert_eq!(exposure.room(at(4)), Room::Shut(None));
    assert_eq!(exposure.admits(1, at(4000)), Err(None), "however empty it is");
    exposure.standing(&standing(Step::Good), WARN, at(4000));
    assert_eq!(exposure.room(at(4000)), Room::For(75), "it was slowed once more on the way");
    let resumed = Standing { resumed: Some(at(5000)), ..standing(Step::Good) };
    exposure.standing(&resumed, WARN, at(5000));
    assert_eq!(exposure.room(at(5000)), Room::For(100));
    // From good to slowed at once is two steps.
    let mut exposure = of(Some(Kept { window: 800, ..new().to_keep() }));
    take(&mut exposure, 800, 1);
    exposure.standing(&standing(Step::Slowed), WARN, at(2));
    assert_eq!(exposure.view(at(2)).window, Some(200));
    // Told of is not in force.
    let mut exposure = new();
    let mut shadow = standing(Step::Paused);
    shadow.brake.as_mut().unwrap().shadow = true;
    exposure.standing(&shadow, WARN, at(1));
    assert_eq!(exposure.room(at(1)), Room::For(100));
}

#[test]
fn no_window_grows_while_the_stream_is_warned() {
    let mut exposure = new();
    exposure.standing(&standing(Step::Warned), WARN, at(0));
    let window = exposure.view(at(0)).window.unwrap();
    assert_eq!(window, 10);
    for second in 1..100 {
        take(&mut exposure, window, second);
        exposure.outcome(at(second), window, Delivered, at(second));
    }
    assert_eq!(exposure.view(at(100)).window, Some(10));
    exposure.standing(&standing(Step::Good), WARN, at(100));
    for second in 101..112 {
        take(&mut exposure, 10, second);
        exposure.outcome(at(second), 10, Delivered, at(second));
    }
    assert_eq!(exposure.view(at(112)).window, Some(20), "a hundred clean outcomes");
}

#[test]
fn weeks_of_good_mail_need_no_window() {
    let day = 86_400;
    let good = Standing { good_since: Some(at(0).minus(Duration::from_secs(13 * day))), ..standing(Step::Good) };
    let days = (0..8).map(|ago| (second(at(0)) / day - 7 + ago, 200)).collect();
    let mut exposure = Exposure::new(Rules::default(), None, &Past { outstanding: 0, days }, at(0));
    exposure.standing(&good, WARN, at(0));
    assert_eq!(exposure.room(at(0)), Room::For(100), "13 days");
    assert_eq!(exposure.room(at(day)), Room::Open, "14 days and 1,400 recipients");
    take(&mut exposure, 50_000, day);
    assert_eq!(exposure.room(at(day)), Room::Open);
    exposure.standing(&Standing { good_since: None, ..standing(Step::Warned) }, WARN, at(day + 1));
    assert_eq!(exposure.view(at(day + 1)).window, Some(25_000), "half of what is out");
    // Who sends little for a week has a window again.
    let mut exposure = of(None);
    exposure.standing(&Standing { good_since: Some(at(0)), ..standing(Step::Good) }, WARN, at(0));
    take(&mut exposure, 100, 1);
    exposure.week_sum += 900;
    exposure.week.front_mut().unwrap().1 += 900;
    assert_eq!(exposure.room(at(14 * day)), Room::For(100), "it was more than a week ago");
    let mut settled = exposure.clone();
    settled.count_day(1000, at(14 * day));
    assert_eq!(settled.room(at(14 * day)), Room::Open);
}

#[test]
fn a_window_past_its_bound_is_none() {
    let mut exposure = of(Some(Kept { window: 100_000, ..new().to_keep() }));
    take(&mut exposure, 100_000, 1);
    exposure.outcome(at(1), 100_000, Delivered, at(2));
    assert_eq!(exposure.room(at(2)), Room::Open);
    take(&mut exposure, 1000, 3);
    exposure.standing(&standing(Step::Warned), WARN, at(4));
    assert_eq!(exposure.view(at(4)).window, Some(500));
}

#[test]
fn without_deliveries_the_horizon_alone_frees_and_grows() {
    let mut exposure = new();
    take(&mut exposure, 100, 1);
    assert_eq!(exposure.room(at(601)), Room::Shut(Some(at(602))));
    assert_eq!(exposure.room(at(602)), Room::For(100));
    assert!(!exposure.take_unseen(at(602)));
    take(&mut exposure, 100, 603);
    assert_eq!(exposure.room(at(1204)), Room::For(200), "silence is good news where there is no other");
    assert!(exposure.take_unseen(at(1204)) && !exposure.take_unseen(at(1204)));
    take(&mut exposure, 200, 1205);
    exposure.outcome(at(1205), 24, Bad, at(1300));
    assert_eq!(exposure.room(at(1806)), Room::For(200), "and bad news is bad");
    // Where deliveries were seen, silence is a fault of the way they come.
    let mut exposure = new();
    take(&mut exposure, 1, 1);
    exposure.outcome(at(1), 1, Delivered, at(2));
    for round in 0..5 {
        take(&mut exposure, 99, 3 + round * 700);
        assert_eq!(exposure.room(at(3 + round * 700 + 650)), Room::For(100));
    }
    assert!(!exposure.take_unseen(at(3600)));
}

#[test]
fn outcomes_find_their_second_or_one_near() {
    let mut exposure = new();
    take(&mut exposure, 10, 100);
    take(&mut exposure, 10, 101);
    exposure.outcome(at(101), 15, Delivered, at(110));
    assert_eq!(exposure.view(at(110)).outstanding, 5);
    exposure.outcome(at(130), 4, Delivered, at(140));
    assert_eq!(exposure.view(at(140)).outstanding, 1);
    exposure.outcome(at(300), 1, Delivered, at(310));
    assert_eq!(exposure.view(at(310)).outstanding, 1, "that was another's");
    exposure.outcome(at(100), 5, Delivered, at(310));
    assert_eq!(exposure.view(at(310)).outstanding, 0, "and never less than none");
    // An event may be faster than SES's answer.
    let mut exposure = new();
    exposure.reserve(2);
    exposure.outcome(at(5), 1, Bad, at(6));
    exposure.taken(1, at(4), at(7));
    exposure.unreserve(1);
    exposure.taken(1, at(4), at(7));
    assert_eq!((exposure.view(at(7)).outstanding, exposure.view(at(7)).bad), (1, 1));
    // A bounce after the horizon counts against the round that runs.
    let mut exposure = new();
    take(&mut exposure, 3, 1);
    exposure.outcome(at(1), 3, Bad, at(900));
    take(&mut exposure, 100, 901);
    exposure.outcome(at(901), 100, Delivered, at(902));
    assert_eq!(exposure.view(at(902)).window, Some(100));
}

#[test]
fn a_restart_keeps_the_window_and_takes_for_out_what_may_be() {
    let mut exposure = new();
    take(&mut exposure, 100, 1);
    exposure.outcome(at(1), 100, Delivered, at(2));
    take(&mut exposure, 150, 3);
    exposure.outcome(at(3), 50, Delivered, at(4));
    let kept = exposure.take_kept(at(4)).unwrap();
    assert_eq!(exposure.take_kept(at(4)), None);
    exposure.not_kept();
    assert_eq!(exposure.take_kept(at(4)), Some(kept));
    let past = Past { outstanding: 100, days: vec![(second(at(4)) / 86_400, 250)] };
    let mut again = Exposure::new(Rules::default(), Some(kept), &past, at(10));
    again.standing(&standing(Step::Good), WARN, at(10));
    assert_eq!(again.take_kept(at(10)), Some(Kept { outcomes: 0, ..kept }));
    assert_eq!(again.room(at(10)), Room::For(100));
    again.outcome(at(3), 30, Delivered, at(11));
    assert_eq!(again.room(at(11)), Room::For(130));
    assert_eq!(again.room(at(609)), Room::For(130));
    assert_eq!(again.room(at(610)), Room::For(200));
    // A round that was cut off tells against the next one, never for it.
    take(&mut exposure, 100, 5);
    exposure.outcome(at(5), 10, Bad, at(6));
    let bad = exposure.take_kept(at(6)).unwrap();
    let mut again = Exposure::new(Rules::default(), Some(bad), &Past::default(), at(10));
    again.standing(&standing(Step::Good), WARN, at(10));
    take(&mut again, 200, 11);
    again.outcome(at(11), 198, Delivered, at(12));
    again.outcome(at(11), 2, Bad, at(12));
    assert_eq!(again.view(at(12)).window, Some(200));
    // A step that was cut for is not cut for again; one that came meanwhile is.
    exposure.standing(&standing(Step::Warned), WARN, at(5));
    let kept = exposure.take_kept(at(5)).unwrap();
    assert_eq!(kept.window, 95);
    for (step, window) in [(Step::Warned, 95), (Step::Slowed, 47)] {
        let mut again = Exposure::new(Rules::default(), Some(kept), &past, at(10));
        again.standing(&standing(step), WARN, at(10));
        assert_eq!(again.view(at(10)).window, Some(window));
    }
}

/// A change here is a change of the format on disk.
#[test]
fn golden_encoding() {
    let kept = Kept { window: 200, outcomes: 7, bad: 1, step: Step::Warned, resumed: Some(at(0)), delivery: None };
    assert_eq!(
        serde_json::to_string(&kept).unwrap(),
        r#"{"window":200,"outcomes":7,"bad":1,"step":"warned","resumed":1777000000000}"#
    );
    let least: Kept = serde_json::from_str(r#"{"window":200}"#).unwrap();
    assert_eq!((least.window, least.step), (200, Step::Good));
}

/// A list thrown at the window as fast as it takes it: deliveries after 1 to 10 s, bounces after 5 to
/// 120 s. Gives the largest window, what went out in `seconds`, and when the window was none.
fn campaign(seed: u64, bad_of_1000: u64, seconds: u64, per_second: u64) -> (u64, u64, Option<u64>) {
    let mut chance = Chance(seed);
    let mut exposure = new();
    let mut due: Vec<Vec<(u64, OutcomeKind)>> = vec![Vec::new(); seconds as usize + 200];
    let (mut sent, mut largest) = (0, 0);
    for now in 0..seconds {
        for (of, kind) in std::mem::take(&mut due[now as usize]) {
            exposure.outcome(at(of), 1, kind, at(now));
        }
        largest = largest.max(exposure.window);
        if exposure.room(at(now)) == Room::Open {
            return (largest, sent, Some(now));
        }
        for _ in 0..per_second {
            if exposure.admits(1, at(now)).is_err() {
                break;
            }
            take(&mut exposure, 1, now);
            sent += 1;
            let (kind, after) = if chance.below(1000) < bad_of_1000 {
                (Bad, 5 + chance.below(116))
            } else {
                (Delivered, 1 + chance.below(10))
            };
            due[(now + after) as usize].push((now, kind));
        }
    }
    (largest, sent, None)
}

#[test]
fn a_stale_list_never_grows_its_window() {
    let mut most_sent = 0;
    for seed in 0..200 {
        let (window, sent, _) = campaign(seed, 120, 300, 100);
        assert_eq!(window, 100, "seed {seed}");
        most_sent = most_sent.max(sent);
    }
    println!("12 %: at most {most_sent} in five minutes");
    assert!(most_sent > 1000, "it was tried: {most_sent}");
}

#[test]
fn an_honest_list_is_soon_open() {
    let mut latest = 0;
    for seed in 0..20 {
        let (_, sent, open) = campaign(seed, 8, 1800, 20_000);
        latest = latest.max(open.unwrap_or_else(|| panic!("seed {seed}: {sent} sent")));
    }
    println!("0.8 %: open after {latest} s at the latest");
    assert!(latest <= 600, "{latest}");
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Pass(u64),
    Offer(u64),
    /// Of what is being offered SES takes so many parts of ten; the rest comes back.
    Answer(u64),
    /// So many, sent so long ago, by a clock that is off by so much.
    Outcome(u64, u64, i64, OutcomeKind),
    Stand(Step),
    Restart,
}

fn a_deed() -> impl Strategy<Value = Deed> {
    let kind = prop_oneof![60 => Just(Delivered), 1 => Just(Bad), 5 => Just(Other)];
    let step = prop_oneof![
        6 => Just(Step::Good), 2 => Just(Step::Warned), 1 => Just(Step::Slowed), 1 => Just(Step::Paused)
    ];
    prop_oneof![
        4 => prop_oneof![8 => 0..5_u64, 1 => 0..700_u64].prop_map(Deed::Pass),
        8 => prop_oneof![9 => 1..=60_u64, 1 => 1..=1000_u64].prop_map(Deed::Offer),
        8 => (0..=10_u64).prop_map(Deed::Answer),
        16 => (20..=400_u64, prop_oneof![8 => 0..10_u64, 1 => 0..700_u64], -3..=3_i64, kind).prop_map(|(n, ago, off, kind)| Deed::Outcome(n, ago, off, kind)),
        1 => step.prop_map(Deed::Stand),
        1 => Just(Deed::Restart),
    ]
}

/// Whatever comes when and in what order: what is out and being offered stays within the window, but for
/// one message that went alone; it only grows by doubling, when the stream is good; it is never none.
#[test]
fn what_is_out_stays_within_the_window() {
    let depth = std::cell::RefCell::new([0_u32; 5]);
    let config = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&prop::collection::vec(a_deed(), 1..250), |deeds| {
            let mut depth = depth.borrow_mut();
            let (mut exposure, mut now, mut step) = (new(), 1_u64, Step::Good);
            let mut offered = 0;
            for deed in deeds {
                let before = exposure.clone();
                match deed {
                    Deed::Pass(seconds) => now += seconds,
                    Deed::Offer(recipients) => match exposure.admits(recipients, at(now)) {
                        Ok(()) => {
                            let alone = exposure.in_use() == 0;
                            exposure.reserve(recipients);
                            offered += recipients;
                            prop_assert!(alone || exposure.in_use() <= exposure.window);
                            depth[0] += 1;
                            depth[1] += u32::from(recipients > exposure.window);
                        }
                        Err(until) => {
                            prop_assert!(until.is_none_or(|until| until > at(now)), "a moment to come");
                            depth[2] += 1;
                        }
                    },
                    Deed::Answer(tenths) => {
                        let taken = offered * tenths / 10;
                        exposure.taken(taken, at(now.saturating_sub(tenths)), at(now));
                        exposure.unreserve(offered);
                        offered = 0;
                    }
                    Deed::Outcome(recipients, ago, off, kind) => {
                        let sent = now.saturating_sub(ago).saturating_add_signed(off);
                        exposure.outcome(at(sent), recipients, kind, at(now));
                    }
                    Deed::Stand(to) => {
                        exposure.standing(&standing(to), WARN, at(now));
                        prop_assert!(exposure.window <= before.window.max(before.in_use() / 2).saturating_mul(2));
                        step = to;
                    }
                    Deed::Restart => {
                        let kept = exposure.take_kept(at(now)).or(exposure.kept);
                        let past = Past { outstanding: exposure.outstanding, days: Vec::new() };
                        let mut again = Exposure::new(Rules::default(), kept, &past, at(now));
                        again.standing(&standing(step), WARN, at(now));
                        prop_assert_eq!(again.window, exposure.window);
                        prop_assert_eq!(again.outstanding, exposure.outstanding);
                        exposure = again;
                        offered = 0;
                    }
                }
                exposure.roll(at(now));
                let open: u64 = exposure.buckets.iter().map(|bucket| bucket.open).sum();
                prop_assert_eq!(exposure.outstanding, open + exposure.before.0, "the sum is that of its parts");
                prop_assert_eq!(exposure.reserved, offered);
                let of_round = exposure.buckets.iter().filter(|bucket| exposure.round.has(bucket.second));
                prop_assert_eq!(exposure.round.open, of_round.map(|bucket| bucket.open).sum::<u64>());
                prop_assert!(exposure.round.sent >= exposure.round.open);
                prop_assert!(exposure.buckets.len() <= 602 && exposure.window > 0);
                prop_assert!(exposure.buckets.iter().is_sorted_by_key(|bucket| bucket.second));
                if exposure.window > before.window {
                    prop_assert_eq!(exposure.window, before.window * 2);
                    prop_assert!(exposure.step == Step::Good && before.step == Step::Good);
                    depth[3] += 1;
                }
                depth[4] += u32::from(exposure.window < before.window);
            }
            Ok(())
        })
        .unwrap();
    let [offered, alone, shut, grown, cut] = depth.into_inner();
    println!("{offered} offers, {alone} alone, {shut} shut, {grown} times grown, {cut} times cut");
    assert!(offered > 5000 && alone > 100 && shut > 1000 && grown > 100 && cut > 200);
}
