//! What people meet, one line a case. Whoever changes a number of the law looks at this table, and says that it is reasonable.

use domain::day::Day;
use forecast::{Forecast, History, Measure, Question, Settings, Status, foresee};

fn day(text: &str) -> Day {
    Day::parse(text).unwrap()
}

/// Days that end with `today`.
fn history(today: Day, values: impl IntoIterator<Item = f64>) -> History {
    let values: Vec<f64> = values.into_iter().collect();
    let first = today + (1 - values.len() as i32);
    History::new((0..).zip(values).map(|(number, value)| (first + number, value))).unwrap()
}

/// Levels that begin with `from` and change by these amounts.
fn levels(from: f64, changes: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let sums = changes.into_iter().scan(from, |level, change| {
        *level += change;
        Some(*level)
    });
    std::iter::once(from).chain(sums).collect()
}

fn level(today: Day, values: Vec<f64>, limit: f64) -> Forecast {
    let used = *values.last().unwrap();
    let history = history(today, values);
    let question =
        Question { measure: Measure::Level, history: &history, today, used, limit: Some(limit), path_days: 0 };
    foresee(&question, &Settings::default())
}

fn total(today: Day, values: Vec<f64>, window: (&str, &str), limit: f64) -> Forecast {
    let history = history(today, values);
    let (start, end) = (day(window.0), day(window.1));
    let used = history.sum(start, today);
    let measure = Measure::Total { start, end };
    foresee(
        &Question { measure, history: &history, today, used, limit: Some(limit), path_days: 0 },
        &Settings::default(),
    )
}

fn each_day(today: Day, values: Vec<f64>, cap: f64) -> Forecast {
    let used = *values.last().unwrap();
    let history = history(today, values);
    let question =
        Question { measure: Measure::EachDay, history: &history, today, used, limit: Some(cap), path_days: 0 };
    foresee(&question, &Settings::default())
}

/// Changes that go up and down by a week's rhythm about a mean.
fn lively(days: usize, mean: f64) -> Vec<f64> {
    (0..days).map(|number| mean * [1.4, 1.2, 1.0, 1.3, 1.1, 0.6, 0.4][number % 7]).collect()
}

fn with(mut values: Vec<f64>, at: usize, value: f64) -> Vec<f64> {
    values[at] = value;
    values
}

fn cases() -> Vec<(&'static str, Forecast)> {
    let today = day("2025-01-19");
    let steady = |rate: f64, days: usize| vec![rate; days];
    let mid = day("2026-03-10");
    let (march, rest) = (("2026-03-01", "2026-03-31"), day("2026-03-29"));
    let gaps = History::new(
        (0..60)
            .filter(|number| number % 5 != 2 && !(20..30).contains(number))
            .map(|number| (mid + (number - 59), 1_000.0 + 5.0 * f64::from(number))),
    );
    let with_gaps = Question {
        measure: Measure::Level,
        history: &gaps.unwrap(),
        today: mid,
        used: 1_295.0,
        limit: Some(1_395.0),
        path_days: 0,
    };
    vec![
        ("the first seed's example: 35 of 50, +0.5 a day", level(today, levels(20.5, steady(0.5, 29)), 50.0)),
        ("created yesterday: one day is known", level(mid, vec![3.0], 50.0)),
        ("six days are known", level(mid, levels(3.0, steady(1.0, 5)), 50.0)),
        ("seven days are known", level(mid, levels(3.0, steady(1.0, 6)), 50.0)),
        ("a level that never moved, two months", level(mid, levels(100.0, steady(0.0, 59)), 120.0)),
        ("nothing yet, two months", level(mid, levels(0.0, steady(0.0, 59)), 10.0)),
        ("+5 a day, 100 to go", level(mid, levels(1_000.0, steady(5.0, 59)), 1_395.0)),
        ("the same with gaps", foresee(&with_gaps, &Settings::default())),
        ("the same, 1,000 deleted at once ten days ago", {
            level(mid, levels(2_000.0, with(steady(5.0, 59), 49, -1_000.0)), 1_390.0)
        }),
        ("the same, 1,000 imported at once ten days ago", {
            level(mid, levels(1_000.0, with(steady(5.0, 59), 49, 1_000.0)), 2_390.0)
        }),
        ("-5 a day, 100 to go", level(mid, levels(1_000.0, steady(-5.0, 59)), 805.0)),
        ("at its limit", level(mid, levels(1_000.0, steady(5.0, 59)), 1_295.0)),
        ("a smaller plan: over its limit", level(mid, levels(1_000.0, steady(5.0, 59)), 1_000.0)),
        ("about 100 a day, day 10 of 31, 2,500 a month", total(mid, lively(69, 100.0), march, 2_500.0)),
        ("the same after an upgrade to 10,000", total(mid, lively(69, 100.0), march, 10_000.0)),
        ("the same after a downgrade to 1,100", total(mid, lively(69, 100.0), march, 1_100.0)),
        ("the same, two days before the month's end, 3,300", total(rest, lively(88, 100.0), march, 3_300.0)),
        ("the same, on the last day", total(day("2026-03-31"), lively(90, 100.0), march, 3_300.0)),
        ("on the first day of a month, 30 days before it", total(day("2026-03-01"), lively(31, 100.0), march, 2_500.0)),
        ("nothing used for 60 days", total(mid, steady(0.0, 60), march, 100.0)),
        ("a day of 40,000 a week ago, 100 a day otherwise", {
            total(mid, with(lively(69, 100.0), 61, 40_000.0), march, 42_500.0)
        }),
        ("about 100 a day, at most 140 on its best, cap 400 a day", each_day(mid, lively(60, 100.0), 400.0)),
        ("the same, cap 150 a day", each_day(mid, lively(60, 100.0), 150.0)),
        ("the same, cap 130 a day, which a day a week passes", each_day(mid, lively(60, 100.0), 130.0)),
    ]
}

#[test]
fn cases_that_people_meet() {
    let shown = |date: Option<Day>| date.map_or_else(|| "-".to_owned(), |date| date.to_string());
    let mut table = format!(
        "{:55} {:>17} {:>9} {:>10} {:>10} {:>10} {:>10}\n",
        "", "status", "a day", "earliest", "likely", "latest", "until"
    );
    for (name, forecast) in cases() {
        let dates = forecast.dates;
        let word = match forecast.status {
            Status::InsufficientData { days_missing } => format!("{days_missing} days missing"),
            status => status.word().to_owned(),
        };
        table += &format!(
            "{name:55} {word:>17} {:9.2} {:>10} {:>10} {:>10} {:>10}\n",
            forecast.growth_per_day,
            shown(dates.earliest),
            shown(dates.likely),
            shown(dates.latest),
            forecast.horizon.to_string(),
        );
    }
    insta::assert_snapshot!(table);
}

/// What the seed's own example says, give or take: it has to stay believable whatever the numbers of the law become.
#[test]
fn the_seeds_example_is_about_thirty_days() {
    let forecast = level(day("2025-01-19"), levels(20.5, vec![0.5; 29]), 50.0);
    assert_eq!(forecast.status, Status::Safe);
    assert!((forecast.growth_per_day - 0.5).abs() < 0.05, "{forecast:?}");
    let days = forecast.dates.likely.unwrap() - day("2025-01-19");
    assert!((27..=33).contains(&days), "{days} days: {forecast:?}");
}

/// A deletion or an import in bulk moves the level, and hardly the day on which what is left will be used.
#[test]
fn a_shift_of_the_level_is_no_rate() {
    let today = day("2026-03-10");
    let plain = level(today, levels(1_000.0, vec![5.0; 59]), 1_395.0).dates.likely.unwrap();
    for (shift, from) in [(-1_000.0, 2_000.0), (1_000.0, 1_000.0)] {
        let values = levels(from, with(vec![5.0; 59], 49, shift));
        let limit = values.last().unwrap() + 100.0;
        let likely = level(today, values, limit).dates.likely.unwrap();
        assert!((likely - plain).abs() <= 4, "{shift}: {likely}, not {plain}");
    }
}
