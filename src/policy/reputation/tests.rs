//! Properties of the judge. Each generator says how deep it got.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::*;

const NOW: Hour = Hour(500_000);

/// Runs a property on so many cases, the same each time.
fn holds<S: Strategy>(cases: u32, of: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)).run(&of, property).unwrap();
}

/// How often each step was come to.
#[derive(Default)]
struct Depth(RefCell<BTreeMap<Step, u32>>);

impl Depth {
    fn came_to(&self, step: Step) {
        *self.0.borrow_mut().entry(step).or_default() += 1;
    }

    /// At least so often to each of `steps`.
    fn reached(&self, least: u32, steps: &[Step]) {
        let depth = self.0.borrow();
        assert!(steps.iter().all(|step| depth.get(step).is_some_and(|count| *count >= least)), "{depth:?}");
    }
}

const OF_A_STREAM: [Step; 4] = [Step::Good, Step::Warned, Step::Slowed, Step::Paused];

/// Figures with volumes on both sides of the minimum, and rates on both sides of every limit.
fn figures() -> impl Strategy<Value = Figures> {
    let accepted = prop_oneof![0..40_u64, 80..130_u64, 100..3000_u64, 3000..80_000_u64];
    (accepted, 0..150_u64, 0..40_u64, 0..10_u64).prop_map(|(accepted, permille, per_ten_thousand, few)| Figures {
        accepted,
        bounced: accepted * permille / 1000 + few % 4,
        complained: accepted * per_ten_thousand / 10_000 + few % 3,
    })
}

fn windows() -> impl Strategy<Value = Windows> {
    (figures(), figures(), any::<bool>()).prop_map(|(day, older, is_new)| {
        let mut week = day;
        if !is_new {
            week += older;
        }
        Windows { day, week }
    })
}

fn lines() -> impl Strategy<Value = Lines> {
    let usual = Just(Rules::default().marketing);
    let any =
        (1..60_u32, 0..100_u32, 1..30_u32, 0..30_u32).prop_map(|(warn, more, complaint, more_complaints)| Lines {
            warn_bounce: f64::from(warn) / 1000.0,
            pause_bounce: f64::from(warn + more) / 1000.0,
            warn_complaint: f64::from(complaint) / 10_000.0,
            pause_complaint: f64::from(complaint + more_complaints) / 10_000.0,
        });
    prop_oneof![usual, any]
}

fn rules() -> impl Strategy<Value = Rules> {
    let ceilings = |warn: u64, more: u64| Ceilings {
        warn_bounces: warn,
        pause_bounces: warn + more,
        warn_complaints: warn.div_ceil(3),
        pause_complaints: warn.div_ceil(3) + more,
    };
    let any = (1..400_u64, 1..12_u64, 1..6_u64, 1..40_u64, 0..40_u64).prop_map(
        move |(least_recipients, least_bounces, least_complaints, warn, more)| Rules {
            least_recipients,
            least_bounces,
            least_complaints,
            ceilings_day: ceilings(warn, more),
            ceilings_week: ceilings(2 * warn, 2 * more),
            ..Rules::default()
        },
    );
    prop_oneof![Just(Rules::default()), any]
}

/// The same with `bounced` and `complained` more, in the week alone if they are `old`.
fn with_bad(windows: &Windows, bounced: u64, complained: u64, old: bool) -> Windows {
    let more = Figures { accepted: 0, bounced, complained };
    with_more(windows, more, old)
}

fn with_more(windows: &Windows, more: Figures, old: bool) -> Windows {
    let mut windows = *windows;
    windows.week += more;
    if !old {
        windows.day += more;
    }
    windows
}

#[test]
fn the_interval_is_wilsons() {
    // Found by halving between 0 and the rate: where the score test rejects.
    for (bad, accepted, bound) in [
        (12, 100, 0.069_994_064_4),
        (5, 100, 0.021_543_679_2),
        (1, 20, 0.008_881_448_8),
        (3, 100, 0.010_254_524_0),
        (10, 10, 0.722_467_200_1),
        (25, 100, 0.175_452_113_6),
        (50, 1000, 0.038_130_262_4),
        (400, 50_000, 0.007_256_069_4),
    ] {
        let is = lower_bound(bad, accepted);
        assert!((is - bound).abs() < 1e-10, "{bad} of {accepted}: {is}");
    }
    assert_eq!((lower_bound(0, 0), lower_bound(0, 1000), rate(0, 0)), (0.0, 0.0, 0.0));
    // Who was lost to a crash was accepted all the same.
    assert_eq!((lower_bound(7, 0), rate(7, 3)), (lower_bound(7, 7), 1.0));
}

#[test]
fn the_bound_is_where_the_score_test_rejects() {
    let deep = Cell::new(0_u32);
    holds(2000, (1..3000_u64, 1..100_000_u64), |(bad, accepted)| {
        let (n, p) = (accepted.max(bad) as f64, rate(bad, accepted));
        let bound = lower_bound(bad, accepted);
        prop_assert!(bound > 0.0 && bound <= p, "{bound} {p}");
        let score = (p - bound) / (bound * (1.0 - bound) / n).sqrt();
        prop_assert!((score - Z).abs() < 1e-6, "{score}");
        deep.set(deep.get() + u32::from(accepted > bad));
        Ok(())
    });
    assert!(deep.get() > 1500, "{}", deep.get());
}

#[test]
fn a_bad_event_never_makes_a_standing_better() {
    let (depth, worse) = (Depth::default(), Cell::new(0_u32));
    let more = (0..15_u64, 0..4_u64, any::<bool>());
    holds(6000, (windows(), lines(), rules(), any::<bool>(), more), |(windows, lines, rules, young, more)| {
        let (bounced, complained, old) = more;
        let before = judge(&windows, &lines, &rules, young).step;
        let after = judge(&with_bad(&windows, bounced, complained, old), &lines, &rules, young).step;
        prop_assert!(after >= before, "{before:?} became {after:?}");
        depth.came_to(before);
        worse.set(worse.get() + u32::from(after > before));
        Ok(())
    });
    depth.reached(200, &OF_A_STREAM);
    assert!(worse.get() > 200, "{}", worse.get());
}

#[test]
fn a_clean_recipient_never_makes_a_standing_worse() {
    let (depth, better) = (Depth::default(), Cell::new(0_u32));
    let more = (prop_oneof![1..3_u64, 1..2000_u64], any::<bool>());
    holds(6000, (windows(), lines(), rules(), any::<bool>(), more), |(windows, lines, rules, young, more)| {
        let (accepted, old) = more;
        let clean = Figures { accepted, ..Figures::default() };
        let before = judge(&windows, &lines, &rules, young).step;
        let after = judge(&with_more(&windows, clean, old), &lines, &rules, young).step;
        prop_assert!(after <= before, "{before:?} became {after:?}");
        depth.came_to(before);
        better.set(better.get() + u32::from(after < before));
        Ok(())
    });
    depth.reached(200, &OF_A_STREAM);
    assert!(better.get() > 200, "{}", better.get());
}

/// The same of a tenant's sum, whichever of its streams it is.
#[test]
fn a_tenants_sum_is_no_better_for_bad_and_no_worse_for_clean() {
    let (depth, moved) = (Depth::default(), Cell::new((0_u32, 0_u32)));
    let more = (0..20_u64, 0..4_u64, 1..3000_u64, any::<bool>(), any::<bool>());
    let given = (windows(), windows(), lines(), rules(), any::<bool>(), more);
    holds(8000, given, |(transactional, other, lines, rules, young, more)| {
        let (bounced, complained, accepted, old, in_transactional) = more;
        let judged = |more: Figures| {
            let (mut transactional, mut other) = (transactional, other);
            let one = if in_transactional { &mut transactional } else { &mut other };
            *one = with_more(one, more, old);
            let mut all = transactional;
            all += other;
            judge_tenant(&all, &transactional, &lines, &rules, young)
        };
        let before = judged(Figures::default());
        prop_assert!([Step::Good, Step::TransactionalOnly, Step::Paused].contains(&before.step));
        prop_assert_eq!(before.charge.is_some(), before.step > Step::Good);
        let bad = judged(Figures { accepted: 0, bounced, complained }).step;
        let clean = judged(Figures { accepted, ..Figures::default() }).step;
        prop_assert!(bad >= before.step && clean <= before.step, "{:?}: {bad:?}, {clean:?}", before.step);
        depth.came_to(before.step);
        let (worse, better) = moved.get();
        moved.set((worse + u32::from(bad > before.step), better + u32::from(clean < before.step)));
        Ok(())
    });
    depth.reached(200, &[Step::Good, Step::TransactionalOnly, Step::Paused]);
    let (worse, better) = moved.get();
    assert!(worse > 80 && better > 80, "{worse} {better}");
}

/// The charge is the rate that is over: it has the figures of its window, and they are over its limit.
#[test]
fn a_charge_is_what_it_says() {
    let depth = Depth::default();
    let ceilings = Cell::new(0_u32);
    holds(4000, (windows(), lines(), rules(), any::<bool>()), |(windows, lines, rules, young)| {
        let judged = judge(&windows, &lines, &rules, young);
        depth.came_to(judged.step);
        let Some(charge) = judged.charge else {
            prop_assert_eq!(judged.step, Step::Good);
            return Ok(());
        };
        let figures = charge.span.of(&windows);
        prop_assert_eq!((charge.bad, charge.accepted), (charge.offence.of(&figures), figures.accepted));
        match charge.rule {
            Rule::Rate => {
                let bound = lower_bound(charge.bad, charge.accepted.max(rules.least_recipients));
                prop_assert!(charge.bad >= rules.least(charge.offence) && bound > charge.limit);
            }
            Rule::Ceiling => {
                ceilings.set(ceilings.get() + 1);
                prop_assert!(young && charge.bad as f64 >= charge.limit && charge.rate() > lines.warn(charge.offence));
            }
            Rule::Account | Rule::SesTenant | Rule::Damaged => prop_assert!(false, "{charge}"),
        }
        Ok(())
    });
    depth.reached(200, &OF_A_STREAM);
    assert!(ceilings.get() > 100, "{}", ceilings.get());
}

/// Cohorts of two weeks, as they come in: late, in pieces, some of mail that has left the week.
fn cohorts() -> impl Strategy<Value = Vec<(u32, Figures)>> {
    prop::collection::vec((0..200_u32, figures()), 1..25)
}

fn history(cohorts: impl IntoIterator<Item = (u32, Figures)>) -> History {
    let mut history = History::default();
    history.roll(NOW);
    cohorts.into_iter().for_each(|(age, figures)| history.add(Hour(NOW.0 - age), figures));
    history
}

/// A hundred bounces are a hundred times one, in whatever order with all else.
#[test]
fn order_and_grouping_change_nothing() {
    let depth = Depth::default();
    let given = (cohorts(), any::<prop::sample::Index>(), any::<u64>(), any::<bool>());
    holds(1500, given, |(cohorts, at, seed, young)| {
        let mut pieces = Vec::new();
        for (age, of) in &cohorts {
            let (bounced, complained) = (of.bounced / 2, of.complained / 3);
            pieces.push((*age, Figures { accepted: of.accepted, ..Figures::default() }));
            pieces.push((*age, Figures { bounced, complained, ..Figures::default() }));
            let rest = Figures { bounced: of.bounced - bounced, complained: of.complained - complained, accepted: 0 };
            pieces.push((*age, rest));
        }
        // As good an order as any: by a number that the seed makes of each place.
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        order.rotate_left(at.index(pieces.len()));
        let shuffled = history(order.iter().filter_map(|at| pieces.get(*at).copied()));
        let plain = history(cohorts);
        prop_assert_eq!(plain.windows(), shuffled.windows());
        let (rules, lines) = (Rules::default(), Rules::default().bulk);
        let judged = judge(&plain.windows(), &lines, &rules, young);
        prop_assert_eq!(judged, judge(&shuffled.windows(), &lines, &rules, young));
        depth.came_to(judged.step);
        Ok(())
    });
    depth.reached(20, &OF_A_STREAM);
}

#[test]
fn a_single_bounce_on_a_first_message_convicts_nobody() {
    let one = Figures { accepted: 1, bounced: 1, complained: 0 };
    let windows = Windows { day: one, week: one };
    let rules = Rules::default();
    for kind in StreamKind::ALL {
        for young in [false, true] {
            let lines = rules.lines_of_stream(kind, &Limits::default(), &Limits::default());
            assert_eq!(judge(&windows, &lines, &rules, young), Judged::GOOD);
            assert_eq!(judge_tenant(&windows, &windows, &lines, &rules, young), Judged::GOOD);
        }
    }
    // Nor does any with the minimum of events, however strict the limits.
    let checked = Cell::new(0_u32);
    holds(1000, (lines(), 1..6_u64, 0..3_u64, any::<bool>()), |(lines, bounced, complained, young)| {
        let few = Figures { accepted: 1, bounced: bounced.min(4), complained: complained.min(2) };
        let windows = Windows { day: few, week: few };
        prop_assert_eq!(judge(&windows, &lines, &rules, young), Judged::GOOD);
        checked.set(checked.get() + 1);
        Ok(())
    });
    assert_eq!(checked.get(), 1000);
}

/// A new tenant's first campaign of 50,000 with 0.8 % bounces: at no moment of it is it braked.
#[test]
fn an_honest_young_tenant_is_never_paused() {
    let (rules, steps) = (Rules::default(), Depth::default());
    let bounces = Cell::new(0_u64);
    holds(20, any::<u64>(), |seed| {
        let (mut figures, mut dice) = (Figures::default(), seed | 1);
        for _ in 0..50_000 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            figures.accepted += 1;
            figures.bounced += u64::from(dice % 1000 < 8);
            let windows = Windows { day: figures, week: figures };
            let step = judge(&windows, &rules.marketing, &rules, true).step;
            prop_assert!(step < Step::Slowed, "{figures:?}");
            steps.came_to(step);
        }
        bounces.set(bounces.get() + figures.bounced);
        Ok(())
    });
    assert!((7000..9000).contains(&bounces.get()), "{}", bounces.get());
    steps.reached(900_000, &[Step::Good]);
}

#[test]
fn the_ceilings_of_the_young_hold_for_them_alone() {
    let rules = Rules::default();
    let of = |accepted, bounced, young| {
        let day = Figures { accepted, bounced, complained: 0 };
        judge(&Windows { day, week: day }, &rules.marketing, &rules, young)
    };
    assert_eq!(of(30, 25, true).step, Step::Paused, "25 bounces of 30");
    // The interval is too wide to convict them; for the young the number is enough.
    let judged = of(800, 25, true);
    assert_eq!((judged.step, judged.charge.map(|charge| charge.rule)), (Step::Paused, Some(Rule::Ceiling)));
    assert_eq!(of(800, 25, false).step, Step::Warned);
    assert_eq!(of(800, 24, true).step, Step::Warned);
    assert_eq!(of(480, 10, true).charge.map(|charge| (charge.rule, charge.limit)), Some((Rule::Ceiling, 10.0)));
    assert_eq!(of(480, 10, false).step, Step::Good);
    assert_eq!(of(480, 9, true).step, Step::Good);
    // Many bounces of very much mail are no harm.
    assert_eq!(of(50_000, 400, true).step, Step::Good);
    assert_eq!(of(20_000, 400, true).step, Step::Good, "at the warning's rate, not over it");
    let (born, day) = (Timestamp::from_millis(86_400_000), Duration::from_secs(86_400));
    assert!(rules.is_young(None, born) && rules.is_young(Some(born), born.plus(day * 29)));
    assert!(!rules.is_young(Some(born), born.plus(day * 30)));
    let never = Rules { young_days: 0, ..rules };
    assert!(!never.is_young(Some(born), born));
}

#[test]
fn a_brake_clears_when_it_says() {
    let (depth, hours) = (Depth::default(), Cell::new(0_u32));
    holds(1200, (cohorts(), lines(), rules(), any::<bool>()), |(cohorts, lines, rules, young)| {
        let history = history(cohorts);
        let judge = |windows: &Windows| judge(windows, &lines, &rules, young).step;
        let step = judge(&history.windows());
        if step == Step::Good {
            return Ok(());
        }
        depth.came_to(step);
        let until = clears(&history, step, NOW, judge);
        let mut ahead = history;
        let mut hour = NOW;
        while begin_of(hour) < until {
            prop_assert!(judge(&ahead.windows()) >= step, "better at {hour:?}, not at {:?}", until.hour());
            hour = Hour(hour.0 + 1);
            ahead.roll(hour);
            hours.set(hours.get() + 1);
        }
        prop_assert_eq!(begin_of(hour), until);
        prop_assert!(judge(&ahead.windows()) < step);
        prop_assert!(hour.0 - NOW.0 <= WEEK + 1);
        Ok(())
    });
    depth.reached(40, &[Step::Warned, Step::Slowed, Step::Paused]);
    assert!(hours.get() > 20_000, "{}", hours.get());
}

#[test]
fn the_forecast_is_exact() {
    let (found, none) = (Depth::default(), Cell::new(0_u32));
    let given = (windows(), lines(), rules(), any::<bool>(), prop::sample::select(&Offence::ALL[..]));
    holds(4000, given, |(windows, lines, rules, young, offence)| {
        let step = judge(&windows, &lines, &rules, young).step;
        let with = |more: u64| {
            let (bounced, complained) = match offence {
                Offence::Bounce => (more, 0),
                Offence::Complaint => (0, more),
            };
            judge(&with_bad(&windows, bounced, complained, false), &lines, &rules, young).step
        };
        match more_until_worse(&windows, &lines, &rules, young, offence) {
            Some((more, next)) => {
                prop_assert!(next > step && with(more) == next && with(more - 1) == step);
                found.came_to(next);
            }
            None => {
                let most = windows.week.accepted.max(rules.least_recipients);
                prop_assert!(step == Step::Paused || with(most) == step);
                none.set(none.get() + 1);
            }
        }
        Ok(())
    });
    found.reached(100, &[Step::Warned, Step::Slowed, Step::Paused]);
    assert!(none.get() > 100, "{}", none.get());
}

fn charged(step: Step) -> Judged {
    let charge =
        Charge { rule: Rule::Rate, offence: Offence::Bounce, span: Span::Day, bad: 12, accepted: 100, limit: 0.05 };
    Judged { step, charge: (step > Step::Good).then_some(charge) }
}

/// Hour by hour, whatever the figures say or lose: what is worse holds at once, a pause to its moment,
/// a warning for an hour.
#[test]
fn what_is_worse_holds_at_once_and_what_is_better_after_its_time() {
    const STEPS: [Step; 5] = Step::ALL;
    let (depth, kept, ended) = (Depth::default(), Cell::new(0_u32), Cell::new(0_u32));
    let hour = (prop::sample::select(&STEPS[..]), 0..200_u64, 1..90_u64, 0..5_u8);
    holds(2000, prop::collection::vec(hour, 1..60), |hours| {
        let mut now = begin_of(NOW);
        let mut standing: Option<Brake> = None;
        for (step, clears_in, minutes, lost) in hours {
            now = now.plus(Duration::from_secs(60 * minutes));
            let judged = if lost == 0 { Judged::GOOD } else { charged(step) };
            let until = Some(now.plus(Duration::from_secs(3600 * clears_in)));
            let after = settle(standing.as_ref(), judged, until, false, now);
            let (was, is) = (standing.map_or(Step::Good, |b| b.step), after.map_or(Step::Good, |b| b.step));
            prop_assert!(is >= judged.step, "what is worse holds at once");
            prop_assert!(is <= judged.step.max(was));
            if let Some(before) = standing {
                let held = match was {
                    Step::Paused | Step::TransactionalOnly => before.clears.is_none_or(|until| now < until),
                    Step::Good | Step::Warned | Step::Slowed => now < before.since.plus(LEAST_STAY),
                };
                prop_assert!(!held || is >= was, "better before its time");
                prop_assert!(held || is == judged.step, "its time is over");
                if let Some(after) = after.filter(|_| is == was) {
                    prop_assert_eq!(after.since, before.since);
                    prop_assert!(after.clears >= before.clears || after.clears.is_none());
                }
                kept.set(kept.get() + u32::from(held && judged.step < was));
                ended.set(ended.get() + u32::from(is < was));
            }
            depth.came_to(is);
            standing = after;
        }
        Ok(())
    });
    depth.reached(500, &STEPS[..]);
    assert!(kept.get() > 1000 && ended.get() > 500, "{} {}", kept.get(), ended.get());
}

/// A paused stream whose counters are lost is paused until the moment that was said, to the hour.
#[test]
fn lost_figures_make_nobody_good() {
    let (depth, longest) = (Depth::default(), Cell::new(0_u32));
    holds(800, (cohorts(), lines(), rules(), any::<bool>(), 0..170_u32), |(cohorts, lines, rules, young, lost_at)| {
        let mut history = history(cohorts);
        let step_of = |windows: &Windows| judge(windows, &lines, &rules, young);
        let judged = step_of(&history.windows());
        depth.came_to(judged.step);
        if judged.step < Step::Paused {
            return Ok(());
        }
        let until = clears(&history, judged.step, NOW, |windows| step_of(windows).step);
        let mut brake = settle(None, judged, Some(until), false, begin_of(NOW));
        for hours in 1..=WEEK + 2 {
            let hour = Hour(NOW.0 + hours);
            if hours > lost_at {
                history.clear();
            }
            history.roll(hour);
            let judged = step_of(&history.windows());
            let again = clears(&history, judged.step, hour, |windows| step_of(windows).step);
            brake = settle(brake.as_ref(), judged, Some(again), false, begin_of(hour));
            let paused = brake.is_some_and(|brake| brake.step == Step::Paused);
            prop_assert!(paused || begin_of(hour) >= until, "good at {hour:?}, before {:?}", until.hour());
            if paused {
                longest.set(longest.get().max(hours));
            }
        }
        prop_assert!(brake.is_none());
        Ok(())
    });
    depth.reached(150, &[Step::Paused]);
    assert!(longest.get() > 140, "{}", longest.get());
}

#[test]
fn shadow_follows_the_setting_and_restrains_nothing() {
    let now = begin_of(NOW);
    let until = Some(now.plus(Duration::from_secs(7200)));
    let told = settle(None, charged(Step::Paused), until, true, now).unwrap();
    assert!(told.shadow && !told.is_in_force());
    // In force from the moment the setting says so, though the figures say nothing new.
    let later = now.plus(Duration::from_secs(60));
    for judged in [charged(Step::Paused), Judged::GOOD] {
        let brake = settle(Some(&told), judged, until, false, later).unwrap();
        assert!(brake.is_in_force() && brake.since == now, "{brake:?}");
    }
    assert_eq!(settle(Some(&told), Judged::GOOD, None, true, now.plus(Duration::from_secs(7200))), None);
}

#[test]
fn limits_are_the_streams_then_the_tenants_then_the_kinds() {
    let rules = Rules::default();
    let tenant = Limits { pause_bounce: Some(0.03), warn_complaint: Some(0.0002), ..Limits::default() };
    let stream = Limits { pause_bounce: Some(0.01), ..Limits::default() };
    let of = |kind, stream: &Limits, tenant: &Limits| rules.lines_of_stream(kind, stream, tenant);
    let none = Limits::default();
    assert_eq!(of(StreamKind::Transactional, &none, &none).warn_bounce, 0.01);
    assert_eq!(of(StreamKind::Marketing, &none, &tenant).pause_bounce, 0.03);
    let own = of(StreamKind::Marketing, &stream, &tenant);
    assert_eq!((own.pause_bounce, own.warn_bounce), (0.01, 0.01), "a pause below the warning moves the warning");
    assert_eq!((own.warn_complaint, own.pause_complaint), (0.0002, 0.001));
    assert_eq!(rules.lines_of_tenant(&tenant).pause_bounce, 0.03);
    assert!((rules.bulk.slow(Offence::Bounce) - 0.035).abs() < 1e-12);
}

/// Contributors to an account that is over its line, or not.
fn contributors() -> impl Strategy<Value = Vec<Contributor>> {
    let one = (windows(), 0..4_u8).prop_map(|(windows, kind)| Contributor { windows, may_be_paused: kind > 0 });
    prop::collection::vec(one, 1..12)
}

/// Without those that are named the rest is under the line, as far as pausing can bring it there; the
/// worst come first, none of them harmless, none of them transactional.
#[test]
fn the_account_is_brought_under_its_line_by_its_worst() {
    let (over, spared, enough) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
    holds(1500, contributors(), |contributors| {
        let rules = Rules::default();
        let judged = judge_account(&contributors, &rules);
        prop_assert_eq!(judged.charge.is_some(), !judged.charges.is_empty());
        if judged.charges.is_empty() {
            prop_assert!(judged.worst.is_empty());
            return Ok(());
        }
        over.set(over.get() + 1);
        prop_assert!(judged.worst.iter().map(|(_, share)| share).is_sorted_by(|a, b| a >= b));
        let harms = |one: &Contributor, charge: &Charge| {
            let figures = charge.span.of(&one.windows);
            let bad = charge.offence.of(&figures);
            bad > 0 && bad as f64 > charge.limit * figures.accepted as f64
        };
        for (at, share) in &judged.worst {
            let one = contributors.get(*at).unwrap();
            prop_assert!(one.may_be_paused && *share > 0.0 && *share <= 1.0);
            prop_assert!(judged.charges.iter().any(|charge| harms(one, charge)));
        }
        for charge in &judged.charges {
            // A line is brought down by those that harm it; who harms another only counts here still.
            let named = |at: usize| judged.worst.iter().any(|(there, _)| *there == at);
            let mut rest = Windows::default();
            let mut might = false;
            for (at, one) in contributors.iter().enumerate() {
                let harms = harms(one, charge);
                if !(named(at) && harms) {
                    rest += one.windows;
                }
                might |= one.may_be_paused && harms && !named(at);
            }
            let figures = charge.span.of(&rest);
            let taken = figures.accepted.max(rules.account_least_recipients);
            let bad = charge.offence.of(&figures);
            let is_under = bad < rules.least(charge.offence) || rate(bad, taken) <= charge.limit;
            prop_assert!(is_under || !might, "{charge}: {figures:?} is over, and somebody might be paused");
            enough.set(enough.get() + u32::from(is_under));
            spared.set(spared.get() + u32::from(might));
        }
        Ok(())
    });
    assert!(over.get() > 500 && spared.get() > 100 && enough.get() > 500, "{over:?} {spared:?} {enough:?}");
}

#[test]
fn the_worst_of_an_account_is_who_adds_most_not_who_has_the_highest_rate() {
    let of = |accepted, bounced, may_be_paused| {
        let day = Figures { accepted, bounced, complained: 0 };
        Contributor { windows: Windows { day, week: day }, may_be_paused }
    };
    let rules = Rules::default();
    // 1,000 of 17,100 are 5.8 %; without the second 2.7 %. The first's rate is the higher.
    let all = [of(100, 20, true), of(7000, 730, true), of(10_000, 250, true)];
    let judged = judge_account(&all, &rules);
    assert_eq!(judged.worst.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1]);
    assert!((judged.worst.first().unwrap().1 - 0.73).abs() < 1e-9);
    // A transactional stream is never among them, whatever it adds.
    let all = [of(100, 20, true), of(7000, 730, false), of(10_000, 250, true)];
    assert_eq!(judge_account(&all, &rules).worst.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0]);
    // One complaint, or two, of a small account are no campaign.
    let complained = |complained| {
        let day = Figures { accepted: 500, bounced: 0, complained };
        judge_account(&[Contributor { windows: Windows { day, week: day }, may_be_paused: true }], &rules)
    };
    assert_eq!((complained(1).worst, complained(2).charge), (Vec::new(), None));
    assert_eq!(complained(3).worst, [(0, 1.0)]);
    // A new account of few recipients is over nothing yet.
    assert_eq!(judge_account(&[of(30, 20, true)], &rules).charge, None);
}
