//! What is asked.

use crate::{history::History, score::Calibration};
use domain::day::Day;

/// One question: when will this meter reach this limit?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What the limit is compared with.
    pub measure: Measure,
    /// What was recorded. Days after `today` are not looked at.
    pub history: &'a History,
    /// The last day that `used` includes: the first day that is foreseen is the next one.
    pub today: Day,
    /// The level now, or what the window that contains `today` has gathered so far. With `limit` it gives the headroom,
    /// so that grants and plans that changed need no other history.
    /// For [`Measure::EachDay`], what `today` has used.
    pub used: f64,
    /// The limit in force, or `None` for unlimited.
    pub limit: Option<f64>,
    /// How many days of [`Forecast::path`](crate::Forecast::path) are wanted; 0 for none.
    pub path_days: usize,
}

/// What a limit is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// A gauge: the level at the end of a day.
    Level,
    /// A counter's sum over a window.
    Total {
        /// The window's first day.
        start: Day,
        /// Its last day, included. Nothing is foreseen past it: there the sum begins anew.
        end: Day,
    },
    /// A counter's use of one day, each day anew: will any day pass the cap?
    EachDay,
}

/// What the answers of one installation have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// What is foreseen where the history says little.
    pub prior: Prior,
    /// How past forecasts did: by how much the interval is wider or narrower than the law has it.
    pub calibration: Calibration,
    /// From which dates on a meter is a warning, or critical.
    pub thresholds: Thresholds,
    /// Fewer recorded days than this are [`Status::InsufficientData`](crate::Status::InsufficientData).
    pub days_min: u32,
}

impl Default for Settings {
    /// The built-in prior, and at least the seven days that the design asks for.
    fn default() -> Self {
        Self {
            prior: Prior::default(),
            calibration: Calibration::default(),
            thresholds: Thresholds::default(),
            days_min: 7,
        }
    }
}

/// When a meter is a warning, or critical: by the likely date, in days from today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// At most this many days ahead is critical.
    pub critical_days: u32,
    /// At most this many days ahead is a warning.
    pub warning_days: u32,
}

impl Default for Thresholds {
    /// A week and two. The first seed names no thresholds; its example, 30 days ahead at 70 % of the limit, is safe.
    fn default() -> Self {
        Self { critical_days: 7, warning_days: 14 }
    }
}

/// What meters of this kind usually do, of which the history has to convince us otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Usual growth of a level, as a share of it a day.
    pub growth_per_day: f64,
}
