//! What meters of one kind usually do, learnt from all tenants that have it.

use crate::{history::History, question::Prior};

/// How many tenants like the built-in prior a meter begins with: with as many of its own, half of what they show is believed.
/// Set by hand; the sample the built-in prior was found on has 306 gauges.
const TENANTS: f64 = 20.0;
/// No tenant counts for more growth a day than this share of its level, nor for less than none: one import is no habit.
const GROWTH_MAX: f64 = 0.05;
/// Fewer days than this tell nothing.
const DAYS_MIN: i32 = 7;

/// Gathers what tenants show of one meter. The sums are whole numbers: the order of tenants makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learning {
    tenants: u64,
    /// Sum of growth a day as a share of the level, in millionths.
    growth_millionths: u64,
}

impl Learning {
    /// Adds what one tenant's levels show: growth from the first to the last day, by the mean level and the days between.
    /// A history of less than a week, or one that was at 0 throughout, adds nothing.
    pub fn add(&mut self, levels: &History) {
        let days = levels.days();
        let (Some(first), Some(last)) = (days.first(), days.last()) else { return };
        let between = last.0 - first.0;
        let mean = days.iter().map(|(_, level)| level).sum::<f64>() / days.len() as f64;
        if between < DAYS_MIN - 1 || mean <= 0.0 {
            return;
        }
        let growth = ((last.1 - first.1) / (mean * f64::from(between))).clamp(0.0, GROWTH_MAX);
        self.tenants += 1;
        self.growth_millionths += (growth * 1e6).round() as u64;
    }

    /// Adds what others gathered.
    pub fn merge(&mut self, other: &Learning) {
        self.tenants += other.tenants;
        self.growth_millionths += other.growth_millionths;
    }

    /// What is kept of it: how many tenants were added, and the sum of their growth a day in millionths of the level.
    pub fn sums(&self) -> (u64, u64) {
        (self.tenants, self.growth_millionths)
    }

    /// What [`Learning::sums`] gave.
    pub fn of_sums((tenants, growth_millionths): (u64, u64)) -> Self {
        Self { tenants, growth_millionths }
    }

    /// How many tenants were added.
    pub fn tenants(&self) -> u64 {
        self.tenants
    }

    /// The mean of the tenants' growth, drawn towards `built_in` by as much as they are few.
    pub fn prior(&self, built_in: Prior) -> Prior {
        let shown = self.growth_millionths as f64 / 1e6;
        Prior { growth_per_day: (shown + TENANTS * built_in.growth_per_day) / (self.tenants as f64 + TENANTS) }
    }
}
