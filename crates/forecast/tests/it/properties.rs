//! What holds for every history.

use domain::day::Day;
use forecast::{
    Calibration, Dates, Forecast, History, Learning, Measure, Prior, Question, Replay, Settings, Status, backtest,
    foresee,
};
use proptest::prelude::*;

const TODAY: i32 = 20_000;

/// Days of a history, newest first in time though not in order, some missing, with jumps and zeros among them.
fn days() -> impl Strategy<Value = Vec<(Day, f64)>> {
    let value = prop_oneof![3 => Just(0.0), 6 => 0.0..100.0_f64, 1 => 0.0..100_000.0_f64];
    let days = proptest::collection::vec((value, 0..4_u8), 1..120);
    days.prop_map(|days| {
        let known = (0..).zip(days).filter(|(_, (_, lost))| *lost > 0);
        known.map(|(back, (value, _))| (Day::from_number(TODAY - back), f64::from(value as f32))).collect()
    })
}

fn measure() -> impl Strategy<Value = Measure> {
    let total = (0..40, 0..60).prop_map(|(back, ahead)| Measure::Total {
        start: Day::from_number(TODAY - back),
        end: Day::from_number(TODAY + ahead),
    });
    prop_oneof![Just(Measure::Level), Just(Measure::EachDay), total]
}

fn ask(measure: Measure, days: &[(Day, f64)], used: f64, limit: Option<f64>) -> Forecast {
    let history = History::new(days.iter().copied()).unwrap();
    let question = Question { measure, history: &history, today: Day::from_number(TODAY), used, limit, path_days: 30 };
    foresee(&question, &Settings { days_min: 1, ..Settings::default() })
}

/// Later than the horizon is later than every day of it.
fn places(dates: Dates) -> [Day; 3] {
    [dates.earliest, dates.likely, dates.latest].map(|date| date.unwrap_or(Day::from_number(TODAY + 10_000)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn quantiles_are_in_order(measure in measure(), days in days(), used in 0.0..1e6_f64, room in 0.1..1e6_f64) {
        let forecast = ask(measure, &days, used, Some(used + room));
        let [earliest, likely, latest] = places(forecast.dates);
        prop_assert!(earliest <= likely && likely <= latest);
        prop_assert!(forecast.growth_per_day.is_finite() && forecast.growth_per_day >= 0.0);
        for date in [forecast.dates.earliest, forecast.dates.likely, forecast.dates.latest].into_iter().flatten() {
            prop_assert!(date > Day::from_number(TODAY) && date <= forecast.horizon);
        }
        let mut before = (0.0, 0.0, 0.0);
        for at in &forecast.path {
            prop_assert!(at.low <= at.middle && at.middle <= at.high && at.high.is_finite());
            prop_assert!(before.0 <= at.low && before.1 <= at.middle && before.2 <= at.high);
            before = (at.low, at.middle, at.high);
        }
    }

    #[test]
    fn more_headroom_is_never_reached_earlier(
        measure in measure(), days in days(), used in 0.0..1e6_f64, room in 0.1..1e6_f64, more in 0.0..1e6_f64,
    ) {
        let narrow = places(ask(measure, &days, used, Some(used + room)).dates);
        let wide = places(ask(measure, &days, used, Some(used + room + more)).dates);
        prop_assert!(narrow.iter().zip(&wide).all(|(narrow, wide)| narrow <= wide), "{narrow:?} {wide:?}");
    }

    #[test]
    fn the_unit_makes_no_difference(
        measure in measure(), days in days(), used in 0.0..1e6_f64, room in 0.1..1e6_f64, power in -20..30_i32,
    ) {
        // Powers of two: so that rounding is the same, and the answers are.
        let factor = 2.0_f64.powi(power);
        let scaled: Vec<_> = days.iter().map(|(day, value)| (*day, value * factor)).collect();
        let plain = ask(measure, &days, used, Some(used + room));
        let other = ask(measure, &scaled, used * factor, Some((used + room) * factor));
        prop_assert_eq!(plain.dates, other.dates);
        prop_assert_eq!(plain.status, other.status);
    }

    #[test]
    fn the_order_of_arrival_makes_no_difference(
        measure in measure(), days in days(), used in 0.0..1e6_f64, room in 0.1..1e6_f64, turn in 0..120_usize,
    ) {
        let mut other = days.clone();
        let turn = turn % other.len().max(1);
        other.rotate_left(turn);
        other[..turn / 2].reverse();
        prop_assert_eq!(ask(measure, &days, used, Some(used + room)), ask(measure, &other, used, Some(used + room)));
    }

    #[test]
    fn days_after_today_are_not_looked_at(measure in measure(), days in days(), used in 0.0..1e6_f64, room in 0.1..1e6_f64) {
        let mut other = days.clone();
        other.push((Day::from_number(TODAY + 3), 1e9));
        prop_assert_eq!(ask(measure, &days, used, Some(used + room)), ask(measure, &other, used, Some(used + room)));
    }

    #[test]
    fn what_is_reached_or_unlimited_says_so(measure in measure(), days in days(), used in 0.0..1e6_f64, over in 0.0..10.0_f64) {
        let reached = ask(measure, &days, used + over, Some(used));
        prop_assert_eq!(reached.status, Status::Breached);
        prop_assert_eq!(reached.dates.likely, Some(Day::from_number(TODAY)));
        let unlimited = ask(measure, &days, used, None);
        prop_assert_eq!(unlimited.status, Status::Unlimited);
        prop_assert_eq!(unlimited.dates, Dates::default());
    }
}

#[test]
fn what_is_no_history_is_named() {
    let day = Day::from_number(TODAY);
    let told = |days: Vec<(Day, f64)>| History::new(days).map_err(|error| error.to_string());
    assert_eq!(told(vec![(day, 1.0), (day, 1.0)]).unwrap_err(), "the history has 2024-10-04 twice: give each day once");
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(told(vec![(day, value)]).unwrap_err().contains("2024-10-04"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_wider_calibration_never_narrows_and_leaves_the_likely_day(
        days in days(), used in 0.0..1e6_f64, room in 0.1..1e6_f64, early in 1.0..2.0_f64, late in 1.0..2.0_f64,
    ) {
        let history = History::new(days).unwrap();
        let at = |calibration: Calibration| {
            let question = Question {
                measure: Measure::Level, history: &history, today: Day::from_number(TODAY), used, limit: Some(used + room), path_days: 0,
            };
            foresee(&question, &Settings { days_min: 1, calibration, ..Settings::default() }).dates
        };
        let (plain, wide) = (places(at(Calibration::default())), places(at(Calibration { early, late })));
        prop_assert_eq!(plain[1], wide[1]);
        // The gamma law's far tails bend back where it is widest: what is promised is the order of the three.
        prop_assert!(wide[0] <= wide[1] && wide[1] <= wide[2]);
        prop_assert!(wide[2] >= plain[2], "{:?} {:?}", plain, wide);
    }

    #[test]
    fn what_is_learnt_does_not_depend_on_the_order_of_tenants(tenants in proptest::collection::vec(days(), 0..12), turn in 0..12_usize) {
        let learn = |tenants: &[Vec<(Day, f64)>]| {
            let mut learning = Learning::default();
            tenants.iter().for_each(|days| learning.add(&History::new(days.iter().copied()).unwrap()));
            learning
        };
        let mut other = tenants.clone();
        other.rotate_left(turn.min(tenants.len()));
        prop_assert_eq!(learn(&tenants), learn(&other));
        let prior = learn(&tenants).prior(Prior::default());
        prop_assert!(prior.growth_per_day >= 0.0 && prior.growth_per_day <= 0.05);
    }

    #[test]
    fn a_backtest_judges_only_what_the_history_tells_the_end_of(days in days(), limit in 1.0..1e5_f64, every in 1..10_usize) {
        let history = History::new(days.clone()).unwrap();
        for replay in [Replay::Level, Replay::EachDay, Replay::Total(&[(Day::from_number(TODAY - 200), Day::from_number(TODAY))])] {
            let score = backtest(&history, replay, limit, every, &Settings::default());
            prop_assert!(score.count <= days.len() as u64);
            prop_assert!(score.covered <= score.count && score.before <= score.with_earliest && score.after <= score.with_latest);
        }
    }
}

#[test]
fn a_backtest_of_an_even_pace_is_right_to_the_day() {
    let first = Day::from_number(TODAY - 59);
    let history = History::new((0..60).map(|number| (first + number, 1_000.0 + 5.0 * f64::from(number)))).unwrap();
    let score = backtest(&history, Replay::Level, 1_200.0, 1, &Settings::default());
    // Reached on the 41st day: asked from the 7th on, and each answer's end is known.
    assert_eq!(score.count, 34);
    // On the day before thirty are left, the likely day is one too late.
    assert!(score.alerts_missed <= 1 && score.alerts_false == 0, "{score:?}");
    assert!(score.mean_error_days().unwrap() < 3.0, "{score:?}");
    assert!(score.coverage().unwrap() > 0.9, "{score:?}");
}

#[test]
fn a_prior_is_learnt_from_many_tenants_and_hardly_from_one() {
    let growing = |share: f64| {
        let first = Day::from_number(TODAY - 29);
        History::new((0..30).map(|number| (first + number, 1_000.0 * (1.0 + share * f64::from(number))))).unwrap()
    };
    let learn = |tenants: usize| {
        let mut learning = Learning::default();
        (0..tenants).for_each(|_| learning.add(&growing(0.01)));
        learning.prior(Prior::default()).growth_per_day
    };
    let built_in = Prior::default().growth_per_day;
    assert_eq!(learn(0), built_in);
    assert!(learn(1) < 1.1 * built_in);
    assert!((learn(10_000) - 0.01 / 1.145).abs() < 1e-4, "{}", learn(10_000));
}
