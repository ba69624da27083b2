//! Was it true? A forecast that was kept is judged when its day has come, and what is learnt widens or narrows the next.

use crate::{answer::Dates, question::Measure};
use domain::day::Day;

/// A gauge's forecast of a date at most this many days ahead is an alert: as the yardstick counts. A window's is one wherever
/// in the window it lies.
pub const ALERT_DAYS: i32 = 30;
/// The chance of a miss that each end of the interval promises.
const MISS: f64 = 0.1;
/// Its standard normal point.
const MISS_POINT: f64 = 1.281_551_6;
/// How many forecasts that missed as often as promised a calibration begins with. Chosen so that a single bad week of a few
/// tenants moves it little: with 50 of its own, half of what they say is believed.
const EVIDENCE: f64 = 50.0;
/// A tail is never made narrower or wider than by this factor: past it, the law is wrong and no factor mends it.
const FACTOR_MAX: f64 = 2.0;

/// What has to be kept of a forecast, to judge it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The last day that it knew.
    pub asked: Day,
    /// What it said.
    pub dates: Dates,
    /// The last day that it looked at.
    pub horizon: Day,
    /// Until when a date is an alert.
    pub alert_until: Day,
}

impl Kept {
    /// What to keep of the answer to a question of this measure.
    pub fn of(measure: Measure, asked: Day, dates: Dates, horizon: Day) -> Self {
        let alert_until = match measure {
            Measure::Level | Measure::EachDay => horizon.min(asked + ALERT_DAYS),
            Measure::Total { .. } => horizon,
        };
        Self { asked, dates, horizon, alert_until }
    }

    /// Judges it by what came: the first day after it on which the limit was reached, and the last day of which that is known.
    /// `None` as long as the limit was not reached and the horizon lies ahead.
    pub fn judge(&self, reached: Option<Day>, known_until: Day) -> Option<Judgement> {
        let reached = reached.filter(|day| *day <= self.horizon);
        if reached.is_none() && known_until < self.horizon {
            return None;
        }
        // Later than the horizon is one day past it, as the yardstick counts.
        let place = |day: Option<Day>| day.unwrap_or(self.horizon + 1);
        let came = place(reached);
        let Dates { earliest, likely, latest } = self.dates;
        let is_alert = |day: Option<Day>| day.is_some_and(|day| day <= self.alert_until);
        Some(Judgement {
            error_days: place(likely) - came,
            reached: reached.is_some(),
            dated: likely.is_some(),
            before: earliest.map(|earliest| came < earliest),
            after: latest.map(|latest| came > latest),
            covered: place(earliest) <= came && came <= place(latest),
            alerted: is_alert(likely),
            alarming: is_alert(reached),
        })
    }
}

/// What came of one forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Days from what came to what was said: above 0, it was said too late. Never counts as the day after the horizon.
    pub error_days: i32,
    /// Whether the limit was reached within the horizon.
    pub reached: bool,
    /// Whether a date had been said at all.
    pub dated: bool,
    /// Whether it came before the earliest date, where one was said.
    pub before: Option<bool>,
    /// Whether it came after the latest, where one was said.
    pub after: Option<bool>,
    /// Whether it came within the interval.
    pub covered: bool,
    /// Whether the forecast was an alert.
    pub alerted: bool,
    /// Whether it should have been.
    pub alarming: bool,
}

/// How many sums a [`Score`] is made of.
pub const SCORE_COUNTS: usize = 11;

/// Judgements added up. Whole numbers, so that sums do not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Score {
    /// How many were judged.
    pub count: u64,
    /// How many of them said a date, or should have.
    pub dated: u64,
    /// Sum of the sizes of errors, in days, over those.
    pub error_days: u64,
    /// How many intervals held what came.
    pub covered: u64,
    /// How many said an earliest date...
    pub with_earliest: u64,
    /// ...and how often the limit was reached before it.
    pub before: u64,
    /// How many said a latest date...
    pub with_latest: u64,
    /// ...and how often it was reached after it, or not at all.
    pub after: u64,
    /// Alerts that were right.
    pub alerts_right: u64,
    /// Alerts that were not.
    pub alerts_false: u64,
    /// Alerts that were missed.
    pub alerts_missed: u64,
}

impl Score {
    /// Adds one judgement.
    pub fn add(&mut self, judgement: &Judgement) {
        self.count += 1;
        if judgement.dated || judgement.reached {
            self.dated += 1;
            self.error_days += u64::from(judgement.error_days.unsigned_abs());
        }
        self.covered += u64::from(judgement.covered);
        self.with_earliest += u64::from(judgement.before.is_some());
        self.before += u64::from(judgement.before == Some(true));
        self.with_latest += u64::from(judgement.after.is_some());
        self.after += u64::from(judgement.after == Some(true));
        match (judgement.alerted, judgement.alarming) {
            (true, true) => self.alerts_right += 1,
            (true, false) => self.alerts_false += 1,
            (false, true) => self.alerts_missed += 1,
            (false, false) => {}
        }
    }

    /// Adds what others were judged.
    pub fn merge(&mut self, other: &Score) {
        let mut counts = self.counts();
        counts.iter_mut().zip(other.counts()).for_each(|(to, more)| *to = to.saturating_add(more));
        *self = Self::of_counts(counts);
    }

    /// Every sum, in the order of the fields, which is the order in which they are kept: append, never reorder.
    pub fn counts(&self) -> [u64; SCORE_COUNTS] {
        let Self { count, dated, error_days, covered, with_earliest, before, with_latest, after, .. } = *self;
        let Self { alerts_right, alerts_false, alerts_missed, .. } = *self;
        [
            count,
            dated,
            error_days,
            covered,
            with_earliest,
            before,
            with_latest,
            after,
            alerts_right,
            alerts_false,
            alerts_missed,
        ]
    }

    /// What [`Score::counts`] gave.
    pub fn of_counts(counts: [u64; SCORE_COUNTS]) -> Self {
        let [
            count,
            dated,
            error_days,
            covered,
            with_earliest,
            before,
            with_latest,
            after,
            alerts_right,
            alerts_false,
            alerts_missed,
        ] = counts;
        Self {
            count,
            dated,
            error_days,
            covered,
            with_earliest,
            before,
            with_latest,
            after,
            alerts_right,
            alerts_false,
            alerts_missed,
        }
    }

    /// Mean size of the error in days, of those that said a date or should have; `None` without any.
    pub fn mean_error_days(&self) -> Option<f64> {
        share(self.error_days, self.dated)
    }
    /// Share of the intervals that held what came; 0.8 is what they promise. `None` without any.
    pub fn coverage(&self) -> Option<f64> {
        share(self.covered, self.count)
    }
    /// Share of the alerts that were right; `None` without alerts.
    pub fn precision(&self) -> Option<f64> {
        share(self.alerts_right, self.alerts_right + self.alerts_false)
    }
    /// Share of what was worth an alert that had one; `None` where nothing was.
    pub fn recall(&self) -> Option<f64> {
        share(self.alerts_right, self.alerts_right + self.alerts_missed)
    }
    /// What the next intervals learn from these.
    pub fn calibration(&self) -> Calibration {
        Calibration { early: factor(self.before, self.with_earliest), late: factor(self.after, self.with_latest) }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// By how much the two tails of the law are made wider (above 1) or narrower, for what past forecasts missed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Of more use than expected, which decides the earliest date. 0.5 to 2.
    pub early: f64,
    /// Of less use, which decides the latest. 0.5 to 2.
    pub late: f64,
}

impl Default for Calibration {
    /// As the law has them.
    fn default() -> Self {
        Self { early: 1.0, late: 1.0 }
    }
}

/// A tail that promised to be missed once in ten and was missed `misses` times in `of`: a normal tail that is so much wider
/// would have been missed as promised.
fn factor(misses: u64, of: u64) -> f64 {
    let rate = (misses as f64 + EVIDENCE * MISS) / (of as f64 + EVIDENCE);
    let point = upper_point(rate.clamp(1e-6, 0.45));
    (MISS_POINT / point).clamp(1.0 / FACTOR_MAX, FACTOR_MAX)
}

/// The standard normal point that is exceeded with this chance (below a half), to 4.5e-4 (Abramowitz and Stegun, 26.2.23).
fn upper_point(chance: f64) -> f64 {
    let t = (-2.0 * chance.ln()).sqrt();
    t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
