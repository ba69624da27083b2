//! What a history looks like, in numbers that do not depend on the unit it is counted in.

use crate::question::Measure;
use domain::day::Day;

/// Most days that are looked at: as many as the constants were found with.
pub(crate) const DAYS_MAX: usize = 90;

/// Daily changes of a level, or daily use of a counter; the newest is last.
pub(crate) struct Changes {
    values: [f64; DAYS_MAX],
    count: usize,
    /// The day of the newest change.
    pub(crate) last: Day,
    /// How many of the days were recorded; the others lay in gaps.
    pub(crate) recorded: usize,
}

impl Changes {
    /// The changes until `today`, of at most `days_max` days.
    ///
    /// A level's change over a gap is spread evenly over it. Nothing is known of the days that a counter lacks, so they are
    /// taken to be like the mean of the others, and don't count as evidence.
    pub(crate) fn new(measure: Measure, days: &[(Day, f64)], today: Day, used: f64, days_max: usize) -> Self {
        let mut changes = Self { values: [0.0; DAYS_MAX], count: 0, last: today, recorded: 0 };
        let days_max = days_max.min(DAYS_MAX);
        match measure {
            Measure::Level => changes.of_level(days, today, used, days_max),
            Measure::Total { .. } | Measure::EachDay => changes.of_use(days, days_max),
        }
        changes
    }

    /// Walks from the newest recorded level to the oldest, and fills from the end.
    fn of_level(&mut self, days: &[(Day, f64)], today: Day, used: f64, days_max: usize) {
        let (mut after, mut level) = (today, used);
        let mut at = DAYS_MAX;
        for &(day, value) in days.iter().rev().filter(|(day, _)| *day < today) {
            let gap = (after - day) as usize;
            let change = (level - value) / gap as f64;
            let part = gap.min(days_max - (DAYS_MAX - at));
            self.values[at - part..at].fill(change);
            (at, after, level) = (at - part, day, value);
            self.recorded += 1;
            if DAYS_MAX - at == days_max {
                break;
            }
        }
        self.take_from(at);
    }

    fn of_use(&mut self, days: &[(Day, f64)], days_max: usize) {
        let Some(&(last, _)) = days.last() else { return };
        self.last = last;
        let first = last + (1 - days_max as i32);
        let known = &days[days.partition_point(|(day, _)| *day < first)..];
        let from = known[0].0;
        let count = (last - from) as usize + 1;
        let start = DAYS_MAX - count;
        self.recorded = known.len();
        if known.len() < count {
            let mean = known.iter().map(|(_, value)| value).sum::<f64>() / known.len() as f64;
            self.values[start..].fill(mean);
        }
        for (day, value) in known {
            self.values[start + (*day - from) as usize] = *value;
        }
        self.take_from(start);
    }

    fn take_from(&mut self, start: usize) {
        self.values.copy_within(start.., 0);
        self.count = DAYS_MAX - start;
    }

    /// The changes, the newest last.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values[..self.count]
    }

    /// Takes out shifts of a level: what is more than `times` as large as the changes of the other days on which something
    /// changed. A deletion in bulk is left out, an import or a burst is cut down to that much: it may come again. With
    /// fewer than four days of change nothing tells a shift from what is usual.
    pub(crate) fn cut_shifts(&mut self, times: f64) {
        let values = &mut self.values[..self.count];
        let (mut sum, mut largest, mut active) = (0.0, 0.0_f64, 0);
        for value in values.iter().map(|value| value.abs()).filter(|value| *value > 0.0) {
            (sum, largest, active) = (sum + value, largest.max(value), active + 1);
        }
        if active < 4 {
            return;
        }
        let bound = times * (sum - largest) / f64::from(active - 1);
        if largest > bound {
            values.iter_mut().for_each(|value| *value = if *value < -bound { 0.0 } else { value.min(bound) });
        }
    }
}
