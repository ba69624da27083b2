//! What one forecast costs: `cargo bench -p forecast --bench series`.
//!
//! 1,000 made-up histories of 60 days, every kind of question, one thread, nothing drawn. The best of many rounds is told beside
//! the median: on a busy machine the median says more about the neighbours.
// Who measures may look at a clock.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use domain::day::Day;
use forecast::{History, Measure, Question, Settings, foresee};
use std::{hint::black_box, time::Instant};

const SERIES: u64 = 1_000;
const ROUNDS: usize = 300;
const DAYS: i32 = 60;

/// A number from 0 to 1 that looks drawn (SplitMix64).
fn drawn(seed: u64) -> f64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}

fn use_of(series: u64, day: i32) -> f64 {
    let seed = series.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(day as u64);
    (drawn(seed) * drawn(series) * 100.0).floor()
}

fn history(series: u64, level: bool) -> History {
    let mut sum = 1_000.0;
    let days = (0..DAYS).map(|day| {
        sum += use_of(series, day);
        (Day::from_number(day), if level { sum } else { use_of(series, day) })
    });
    History::new(days).unwrap()
}

fn main() {
    let today = Day::from_number(DAYS - 1);
    let total = Measure::Total { start: Day::from_number(DAYS - 10), end: Day::from_number(DAYS + 19) };
    for (name, measure) in [("level", Measure::Level), ("total", total), ("each day", Measure::EachDay)] {
        let level = measure == Measure::Level;
        let histories: Vec<History> = (0..SERIES).map(|series| history(series, level)).collect();
        let questions: Vec<Question<'_>> = histories
            .iter()
            .map(|history| {
                let used = if level { history.days().last().unwrap().1 } else { history.sum(today + -9, today) };
                // Beyond what is reached in time, so that every day is looked at.
                let limit = Some(used * 10.0 + 100_000.0);
                Question { measure, history, today, used, limit, path_days: 0 }
            })
            .collect();
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                for question in &questions {
                    black_box(foresee(black_box(question), &Settings::default()));
                }
                start.elapsed().as_secs_f64() * 1e6 / SERIES as f64
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        println!("{name:9} {:6.2} us a series, best; {:6.2} median", rounds[0], rounds[ROUNDS / 2]);
    }
}
