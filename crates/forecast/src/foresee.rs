//! From a question to its answer.

use crate::{
    answer::{Dates, Forecast, Quantiles, Status},
    constants::{COUNTER, Constants, LEVEL},
    daily::Peaks,
    law::Law,
    question::{Measure, Question, Settings, Thresholds},
    score::Calibration,
    shape::Changes,
    traits::{Sums, weekday_profile},
};
use domain::day::Day;

/// How far ahead a level or a daily cap is looked at, in days: as far as the yardstick asks.
pub const HORIZON_DAYS: i32 = 90;
/// The longest window of a counter that is looked at to its end, in days.
pub const WINDOW_MAX_DAYS: i32 = 366;
/// The chances of which [`Dates`] tells: 1 in 10, 1 in 2, 9 in 10.
const CHANCES: [f64; 3] = [0.1, 0.5, 0.9];
/// Growth a day is told as the mean of so many days ahead.
const GROWTH_DAYS: usize = 30;

/// Answers one question. Pure: the same question has the same answer, whatever else was asked.
pub fn foresee(question: &Question<'_>, settings: &Settings) -> Forecast {
    let horizon = horizon(question);
    let nothing = |status| Forecast { status, dates: Dates::default(), horizon, growth_per_day: 0.0, path: Vec::new() };
    let days = question.history.until(question.today);
    let constants = constants(question.measure);
    let mut changes = Changes::new(question.measure, days, question.today, question.used, constants.days_max);
    let missing = settings.days_min.saturating_sub(days.len() as u32);
    let known = if missing > 0 || changes.values().is_empty() {
        None
    } else {
        if question.measure != Measure::EachDay {
            changes.cut_shifts(constants.shift);
        }
        Some(Known::new(question, settings, constants, &changes))
    };
    let status = match (question.limit, &known) {
        (None, _) => Some(Status::Unlimited),
        (Some(limit), _) if question.used >= limit => Some(Status::Breached),
        (Some(_), None) => Some(Status::InsufficientData { days_missing: missing.max(1) }),
        (Some(_), Some(_)) => None,
    };
    let mut forecast = nothing(status.unwrap_or(Status::Safe));
    if let Some(known) = &known {
        known.tell(question, &mut forecast);
    }
    match status {
        Some(Status::Breached) => {
            let today = Some(question.today);
            forecast.dates = Dates { earliest: today, likely: today, latest: today };
        }
        Some(_) => forecast.dates = Dates::default(),
        None => forecast.status = by_date(forecast.dates.likely, question.today, &settings.thresholds),
    }
    forecast
}

fn constants(measure: Measure) -> &'static Constants {
    match measure {
        Measure::Level => &LEVEL,
        Measure::Total { .. } | Measure::EachDay => &COUNTER,
    }
}

fn horizon(question: &Question<'_>) -> Day {
    match question.measure {
        Measure::Level | Measure::EachDay => question.today + HORIZON_DAYS,
        Measure::Total { end, .. } => end.min(question.today + WINDOW_MAX_DAYS).max(question.today),
    }
}

fn by_date(likely: Option<Day>, today: Day, thresholds: &Thresholds) -> Status {
    let within = |days: u32| likely.is_some_and(|day| i64::from(day - today) <= i64::from(days));
    if within(thresholds.critical_days) {
        Status::Critical
    } else if within(thresholds.warning_days) {
        Status::Warning
    } else {
        Status::Safe
    }
}

/// What a history of enough days tells.
struct Known {
    sums: Sums,
    usual: f64,
    profile: [f64; 7],
    first_weekday: usize,
    constants: &'static Constants,
    calibration: Calibration,
}

impl Known {
    fn new(question: &Question<'_>, settings: &Settings, constants: &'static Constants, changes: &Changes) -> Self {
        let level = (question.measure == Measure::Level).then_some(question.used);
        let evidence = if level.is_some() { changes.values().len() } else { changes.recorded };
        let sums = Sums::of(changes.values(), evidence as f64, level);
        let profile = match question.measure {
            Measure::Level => [1.0; 7],
            Measure::Total { .. } | Measure::EachDay => weekday_profile(changes.values(), changes.last),
        };
        let usual = level.map_or(0.0, |level| level * settings.prior.growth_per_day.max(0.0));
        Self {
            sums,
            usual,
            profile,
            first_weekday: (question.today + 1).weekday(),
            constants,
            calibration: settings.calibration,
        }
    }

    fn law(&self) -> Option<Law<'_>> {
        let Self { constants, sums, usual, profile, first_weekday, calibration } = self;
        Law::new(constants, sums, *usual, *profile, *first_weekday, *calibration)
    }

    fn tell(&self, question: &Question<'_>, forecast: &mut Forecast) {
        let Some(law) = self.law() else {
            return;
        };
        let ahead = (forecast.horizon - question.today) as usize;
        let growth_day = ahead.clamp(1, GROWTH_DAYS);
        let total = question.measure != Measure::EachDay;
        let path_days = if total { question.path_days.min(ahead) } else { 0 };
        // A hair less, for sums of days that ought to come to just the limit.
        let room = question.limit.filter(|_| total).map(|limit| (limit - question.used) * (1.0 - 1e-9));
        let mut dates = Found::new(question.today);
        for (day, at) in (1..).zip(law.days()) {
            if day <= path_days {
                forecast.path.push(Quantiles { low: at.low, middle: at.middle, high: at.high });
            }
            if day == growth_day {
                forecast.growth_per_day = at.middle / day as f64;
            }
            if day <= ahead {
                room.iter().for_each(|room| dates.see(day, [at.high, at.middle, at.low].map(|use_| use_ >= *room)));
            }
            if day >= growth_day.max(path_days) && (day >= ahead || dates.are_all() || room.is_none()) {
                break;
            }
        }
        if let (Some(cap), false) = (question.limit, total) {
            let peaks = Peaks::new(&self.sums, forecast.growth_per_day, &self.profile, cap);
            for (day, chance) in (1..=ahead).zip(peaks.by_day(self.first_weekday)) {
                dates.see(day, CHANCES.map(|at| chance >= at));
            }
        }
        forecast.dates = dates.dates;
    }
}

/// The first days on which something was reached.
struct Found {
    today: Day,
    dates: Dates,
}

impl Found {
    fn new(today: Day) -> Self {
        Self { today, dates: Dates::default() }
    }
    /// What is reached so many days ahead: with one chance in ten, with one in two, with nine in ten.
    fn see(&mut self, day: usize, reached: [bool; 3]) {
        let Dates { earliest, likely, latest } = &mut self.dates;
        for (date, reached) in [earliest, likely, latest].into_iter().zip(reached) {
            if reached && date.is_none() {
                *date = Some(self.today + day as i32);
            }
        }
    }
    fn are_all(&self) -> bool {
        self.dates.latest.is_some()
    }
}
