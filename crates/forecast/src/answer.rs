//! What is answered.

use domain::day::Day;

/// When a limit will be reached, as far as can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// What it comes to.
    pub status: Status,
    /// The dates; all `None` unless something is foreseen.
    pub dates: Dates,
    /// The last day that was looked at: `None` in [`Forecast::dates`] means later than this, or never.
    pub horizon: Day,
    /// What is expected to be added a day, as a mean of the days foreseen; below what is shown for a level only where the
    /// history says so. 0 without data.
    pub growth_per_day: f64,
    /// Use above what is used today, for each of the next days, never falling; at most as many days as were asked for, and
    /// none past the horizon. Empty for [`Measure::EachDay`](crate::Measure::EachDay).
    pub path: Vec<Quantiles>,
}

/// The day on which the limit will be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dates {
    /// One in ten is earlier.
    pub earliest: Option<Day>,
    /// As likely earlier as later.
    pub likely: Option<Day>,
    /// One in ten is later. `None` beside an earlier date: open-ended.
    pub latest: Option<Day>,
}

/// Use that is exceeded with nine chances in ten, with one in two, and with one in ten.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quantiles {
    /// The 10 % point.
    pub low: f64,
    /// The median.
    pub middle: f64,
    /// The 90 % point.
    pub high: f64,
}

/// What a forecast comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no limit.
    Unlimited,
    /// The limit has been reached.
    Breached,
    /// It will be within the days that [`Thresholds`](crate::Thresholds) name as critical.
    Critical,
    /// It will be within those they name as a warning.
    Warning,
    /// Later, or never within the horizon.
    Safe,
    /// The history is too short to say.
    InsufficientData {
        /// How many more days have to be recorded.
        days_missing: u32,
    },
}

impl Status {
    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            Status::Unlimited => "unlimited",
            Status::Breached => "breached",
            Status::Critical => "critical",
            Status::Warning => "warning",
            Status::Safe => "safe",
            Status::InsufficientData { .. } => "insufficient_data",
        }
    }
}
