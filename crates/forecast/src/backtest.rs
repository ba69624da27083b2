//! How good would it have been? A history is replayed: asked on its own past days, judged by what came after.

use crate::{
    foresee::foresee,
    history::History,
    question::{Measure, Question, Settings},
    score::{Kept, Score},
};
use domain::day::Day;

/// What a history is replayed against.
#[derive(Debug, Clone, Copy)]
pub enum Replay<'a> {
    /// The level at the end of each day.
    Level,
    /// The sum over these windows, first and last day each, in order.
    Total(&'a [(Day, Day)]),
    /// Each day's use by itself.
    EachDay,
}

impl Replay<'_> {
    fn measure(&self, asked: Day) -> Option<Measure> {
        match self {
            Replay::Level => Some(Measure::Level),
            Replay::EachDay => Some(Measure::EachDay),
            Replay::Total(windows) => {
                let (start, end) = *windows.iter().find(|(start, end)| *start <= asked && asked <= *end)?;
                Some(Measure::Total { start, end })
            }
        }
    }
}

/// Asks every `every_days` (at least 1) what was known by then, against one limit, and judges the answers of which the history
/// tells the end. Days on which the limit had been reached already, or on which too little was known, ask nothing.
pub fn backtest(history: &History, replay: Replay<'_>, limit: f64, every_days: usize, settings: &Settings) -> Score {
    let mut score = Score::default();
    let days = history.days();
    let Some(&(last, _)) = days.last() else { return score };
    let first = (settings.days_min as usize).max(1);
    for at in (first - 1..days.len().saturating_sub(1)).step_by(every_days.max(1)) {
        let (today, value) = days[at];
        let Some(measure) = replay.measure(today) else { continue };
        let used = match measure {
            Measure::Level | Measure::EachDay => value,
            Measure::Total { start, .. } => history.sum(start, today),
        };
        if used >= limit {
            continue;
        }
        let question = Question { measure, history, today, used, limit: Some(limit), path_days: 0 };
        let forecast = foresee(&question, settings);
        let kept = Kept::of(measure, today, forecast.dates, forecast.horizon);
        let reached = first_reached(measure, used, &days[at + 1..], limit, forecast.horizon);
        if let Some(judgement) = kept.judge(reached, last) {
            score.add(&judgement);
        }
    }
    score
}

/// The first day of these on which the limit was reached.
pub fn first_reached(measure: Measure, used: f64, later: &[(Day, f64)], limit: f64, horizon: Day) -> Option<Day> {
    let mut total = used;
    later.iter().take_while(|(day, _)| *day <= horizon).find_map(|(day, value)| {
        total += value;
        let reached = match measure {
            Measure::Level | Measure::EachDay => *value,
            Measure::Total { .. } => total,
        };
        (reached >= limit).then_some(*day)
    })
}
