//! What was recorded, day by day.

use domain::day::Day;
use std::fmt;

/// The value of a meter at the end of each day that was recorded: a level's level, or a counter's use of that day alone
/// (never the running total of its window). Days may be missing; they are kept in order, whatever order they came in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History(Vec<(Day, f64)>);

/// Why days are no history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HistoryError {
    /// A day was given twice: which of the two counts is for the caller to know.
    Twice(Day),
    /// A value that is no number, or one below 0.
    Value(Day, f64),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryError::Twice(day) => write!(f, "the history has {day} twice: give each day once"),
            HistoryError::Value(day, value) => {
                write!(f, "the history's value of {day} is {value}: give a number that is 0 or more")
            }
        }
    }
}

impl std::error::Error for HistoryError {}

impl History {
    /// A history of these days, in any order.
    ///
    /// # Errors
    /// Where a day comes twice, or a value is negative, infinite or no number.
    pub fn new(days: impl IntoIterator<Item = (Day, f64)>) -> Result<Self, HistoryError> {
        let mut days: Vec<(Day, f64)> = days.into_iter().collect();
        days.sort_by_key(|(day, _)| *day);
        if let Some((day, value)) = days.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err(HistoryError::Value(*day, *value));
        }
        match days.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(HistoryError::Twice(pair[0].0)),
            None => Ok(Self(days)),
        }
    }
    /// A history of what was recorded, each day once, in any order. Where corrections took more back than a day had used, it
    /// used nothing.
    pub fn recorded(days: impl IntoIterator<Item = (Day, i64)>) -> Self {
        let mut days: Vec<(Day, f64)> = days.into_iter().map(|(day, value)| (day, value.max(0) as f64)).collect();
        days.sort_by_key(|(day, _)| *day);
        days.dedup_by_key(|(day, _)| *day);
        Self(days)
    }
    /// The days in order, with their values.
    pub fn days(&self) -> &[(Day, f64)] {
        &self.0
    }
    /// The days until `last`, it included.
    pub fn until(&self, last: Day) -> &[(Day, f64)] {
        &self.0[..self.0.partition_point(|(day, _)| *day <= last)]
    }
    /// The sum of the days from `first` to `last`, both included.
    pub fn sum(&self, first: Day, last: Day) -> f64 {
        let days = self.until(last);
        days[days.partition_point(|(day, _)| *day < first)..].iter().map(|(_, value)| value).sum()
    }
}
