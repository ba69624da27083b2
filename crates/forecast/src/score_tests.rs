#![allow(clippy::unwrap_used)]

use super::{Calibration, Kept, Score, upper_point};
use crate::{answer::Dates, question::Measure};
use domain::day::Day;

fn day(number: i32) -> Day {
    Day::from_number(20_000 + number)
}

fn dates(earliest: i32, likely: i32, latest: i32) -> Dates {
    let told = |number: i32| (number < 90).then(|| day(number));
    Dates { earliest: told(earliest), likely: told(likely), latest: told(latest) }
}

fn level(dates: Dates) -> Kept {
    Kept::of(Measure::Level, day(0), dates, day(90))
}

#[test]
fn what_has_not_come_yet_is_not_judged() {
    let kept = level(dates(5, 10, 20));
    assert_eq!(kept.judge(None, day(89)), None);
    assert!(kept.judge(None, day(90)).is_some());
    assert!(kept.judge(Some(day(3)), day(3)).is_some());
    // What came after the horizon is none of its business.
    assert_eq!(kept.judge(Some(day(91)), day(91)), kept.judge(None, day(90)));
}

#[test]
fn misses_are_told_by_their_side() {
    let kept = level(dates(5, 10, 20));
    let judged = |came: i32| kept.judge(Some(day(came)), day(came)).unwrap();
    for (came, error, before, after) in
        [(4, 6, true, false), (5, 5, false, false), (20, -10, false, false), (21, -11, false, true)]
    {
        let judgement = judged(came);
        assert_eq!(judgement.error_days, error, "{came}");
        assert_eq!((judgement.before, judgement.after), (Some(before), Some(after)), "{came}");
        assert_eq!(judgement.covered, !before && !after, "{came}");
    }
    let never = kept.judge(None, day(90)).unwrap();
    assert_eq!((never.error_days, never.after, never.covered), (10 - 91, Some(true), false));
    // Open-ended intervals hold "never".
    assert!(level(dates(5, 10, 99)).judge(None, day(90)).unwrap().covered);
    assert!(level(dates(99, 99, 99)).judge(None, day(90)).unwrap().covered);
}

#[test]
fn alerts_of_levels_are_those_of_thirty_days_and_of_windows_those_of_the_window() {
    let judged = |kept: Kept, came: i32| {
        let judgement = kept.judge(Some(day(came)), day(came)).unwrap();
        (judgement.alerted, judgement.alarming)
    };
    assert_eq!(judged(level(dates(5, 30, 60)), 31), (true, false));
    assert_eq!(judged(level(dates(5, 31, 60)), 30), (false, true));
    let window = Measure::Total { start: day(-3), end: day(60) };
    assert_eq!(judged(Kept::of(window, day(0), dates(5, 50, 60), day(60)), 55), (true, true));
}

#[test]
fn scores_are_sums_and_shares_of_them() {
    let kept = level(dates(5, 10, 20));
    let (mut score, mut other) = (Score::default(), Score::default());
    assert_eq!(
        (score.mean_error_days(), score.coverage(), score.precision(), score.recall()),
        (None, None, None, None)
    );
    for came in [4, 12] {
        score.add(&kept.judge(Some(day(came)), day(came)).unwrap());
    }
    other.add(&kept.judge(None, day(90)).unwrap());
    other.add(&level(dates(99, 99, 99)).judge(Some(day(7)), day(7)).unwrap());
    score.merge(&other);
    assert_eq!(score.count, 4);
    assert_eq!(score.mean_error_days(), Some(f64::from(6 + 2 + 81 + 84) / 4.0));
    assert_eq!(score.coverage(), Some(0.25));
    assert_eq!(score.precision(), Some(2.0 / 3.0));
    assert_eq!(score.recall(), Some(2.0 / 3.0));
    assert_eq!((score.with_earliest, score.before, score.with_latest, score.after), (3, 1, 3, 1));
}

#[test]
fn intervals_that_missed_more_are_made_wider_and_none_without_evidence() {
    let tails = |before: u64, of: u64| Score { before, with_earliest: of, ..Score::default() }.calibration();
    let near = |value: f64, to: f64| (value - to).abs() < 0.002;
    let none = Score::default().calibration();
    assert!(near(none.early, 1.0) && near(none.late, 1.0), "{none:?}");
    // As often as promised changes nothing, however many there are.
    assert!(near(tails(1_000, 10_000).early, 1.0));
    // One in five: 1.2816 / 0.8416.
    assert!((tails(20_000, 100_000).early - 1.523).abs() < 0.01);
    assert!(tails(10, 50).early > 1.1 && tails(10, 50).early < 1.4);
    assert!(tails(0, 10_000).early >= 0.5 && tails(0, 10_000).early < 0.6);
    assert_eq!(tails(9_999, 10_000).early, 2.0);
    assert!(near(tails(9_999, 10_000).late, Calibration::default().late));
}

#[test]
fn the_points_are_as_in_tables() {
    for (chance, point) in [(0.1, 1.2816), (0.2, 0.8416), (0.05, 1.6449), (0.01, 2.3263), (0.4, 0.2533)] {
        assert!((upper_point(chance) - point).abs() < 5e-4, "{chance}");
    }
}
