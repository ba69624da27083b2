//! A day of the calendar, without a zone: what a daily history is kept by.

use crate::time::{DAY_MS, Instant};
use std::{
    fmt,
    ops::{Add, Sub},
};

/// A calendar day, counted from 1970-01-01. Years 0001 to 9999; what would lie outside is held at the bound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

/// 0001-01-01.
const FIRST: i32 = -719_162;
/// 9999-12-31.
const LAST: i32 = 2_932_896;
/// Days from 0000-03-01, where the count below begins, to 1970-01-01.
const MARCH_OF_YEAR_0: i32 = 719_468;
/// Days in 400 years: the calendar repeats itself after them.
const ERA: i32 = 146_097;

impl Day {
    /// The first there is.
    pub const MIN: Day = Day(FIRST);
    /// The last there is.
    pub const MAX: Day = Day(LAST);
    /// The day that is `number` days after 1970-01-01 (before it, where negative).
    pub fn from_number(number: i32) -> Self {
        Self(number.clamp(FIRST, LAST))
    }
    /// Days since 1970-01-01.
    pub fn number(self) -> i32 {
        self.0
    }
    /// The UTC day around an instant.
    pub fn of(at: Instant) -> Self {
        Self::from_number(i32::try_from(at.ms().div_euclid(DAY_MS)).unwrap_or(LAST))
    }
    /// Reads `YYYY-MM-DD`, and nothing else; `None` for dates that do not exist.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
        if bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
        if year < 1 || !(1..=12).contains(&month) || day < 1 {
            return None;
        }
        // A day past the end of its month comes back as one of the next.
        let found = Self(count(year, month, day));
        (found.civil() == (year, month, day)).then_some(found)
    }
    /// The day of the week, 0 for Monday to 6 for Sunday.
    pub fn weekday(self) -> usize {
        // 1970-01-01 was a Thursday.
        (self.0 + 3).rem_euclid(7) as usize
    }
    /// Year, month and day of the month.
    pub fn civil(self) -> (i32, i32, i32) {
        let days = self.0 + MARCH_OF_YEAR_0;
        let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        (year_of_era + era * 400 + i32::from(month <= 2), month, day)
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, by years that begin in March, so that a leap day is last
/// (H. Hinnant, "chrono-compatible low-level date algorithms").
fn count(year: i32, month: i32, day: i32) -> i32 {
    let year = year - i32::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - MARCH_OF_YEAR_0
}

fn digits(bytes: &[u8]) -> Option<i32> {
    bytes.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i32::from(byte - b'0')))
}

impl Add<i32> for Day {
    type Output = Day;
    fn add(self, days: i32) -> Day {
        Day::from_number(self.0.saturating_add(days))
    }
}

/// Days between.
impl Sub for Day {
    type Output = i32;
    fn sub(self, other: Day) -> i32 {
        self.0 - other.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::Day;
    use jiff::civil;

    #[test]
    fn days_are_those_of_the_calendar() {
        let mut date = civil::date(1, 1, 1);
        let mut number = super::FIRST;
        while number <= super::LAST {
            let day = Day::from_number(number);
            assert_eq!(day.to_string(), date.to_string());
            assert_eq!(Day::parse(&day.to_string()), Some(day));
            assert_eq!(day.weekday(), date.weekday().to_monday_zero_offset() as usize);
            let Ok(later) = date.checked_add(jiff::Span::new().days(37)) else { break };
            (date, number) = (later, number + 37);
        }
        assert!(number > super::LAST - 37, "the walk ended at {date}");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "2026-02-29", "2026-00-10", "2026-13-01", "2026-04-31", "2026-4-01", "0000-01-01", "2026-01-01T"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
        assert!(Day::parse("2024-02-29").is_some());
    }
}
