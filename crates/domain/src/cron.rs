//! When a job is due: five fields, as crontab(5) has them, in a time zone.

use crate::time::{Instant, Zone};
use jiff::{Timestamp, civil, tz::AmbiguousOffset};

/// What may stand in each field, in the order in which they are written.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7)];

/// Days looked ahead: a 29th of February on a given day of the week comes within 40 years.
const LOOK_AHEAD_DAYS: usize = 15_000;

/// A cron expression: `minute hour day-of-month month day-of-week`. Each is `*`, a number, a range `1-5`, a list `1,15` or a
/// step `*/15`; Sunday is 0 or 7. Where both days are given, either will do, as in crontab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// One bit for each number that fits.
    fits: [u64; 5],
    either_day: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// A sentence that says which field is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let Ok(fields) = <[&str; 5]>::try_from(fields) else {
            return Err("a schedule has five fields: minute, hour, day of the month, month, day of the week".into());
        };
        let mut fits = [0; 5];
        for ((field, (name, least, most)), fit) in fields.iter().zip(FIELDS).zip(&mut fits) {
            let wrong =
                || format!("{field:?} is no {name}: write *, numbers from {least} to {most}, 1-5, 1,15 or */10");
            *fit = bits(field, least, most).ok_or_else(wrong)?;
        }
        // Sunday is 0 and 7.
        fits[4] |= fits[4] >> 7 & 1;
        let either_day = !fields[2].starts_with('*') && !fields[4].starts_with('*');
        Ok(Self { fits, either_day })
    }

    /// The first time it is due after an instant; `None` if that is in no near future (`0 0 31 2 *`). What the clocks skip in
    /// spring is due when they have jumped; what comes twice in autumn is due the first time.
    pub fn next_after(&self, after: Instant, zone: &Zone) -> Option<Instant> {
        let start = Timestamp::from_millisecond(after.ms()).ok()?;
        let mut date = zone.tz().to_datetime(start).date();
        for _ in 0..LOOK_AHEAD_DAYS {
            if self.is_day(date) {
                let due = self.minutes().filter_map(|(hour, minute)| instant(zone, date, hour, minute));
                if let Some(due) = due.filter(|due| *due > after).min() {
                    return Some(due);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn has(&self, field: usize, number: i8) -> bool {
        self.fits[field] >> number & 1 == 1
    }

    fn is_day(&self, date: civil::Date) -> bool {
        let of_month = self.has(2, date.day());
        let of_week = self.has(4, date.weekday().to_sunday_zero_offset());
        let is_day = if self.either_day { of_month || of_week } else { of_month && of_week };
        is_day && self.has(3, date.month())
    }

    fn minutes(&self) -> impl Iterator<Item = (i8, i8)> + '_ {
        let hours = (0..24).filter(|hour| self.has(1, *hour));
        hours.flat_map(|hour| (0..60).filter(|minute| self.has(0, *minute)).map(move |minute| (hour, minute)))
    }
}

fn instant(zone: &Zone, date: civil::Date, hour: i8, minute: i8) -> Option<Instant> {
    let ambiguous = zone.tz().to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
    let at = match ambiguous.offset() {
        AmbiguousOffset::Fold { .. } => ambiguous.earlier(),
        _ => ambiguous.later(),
    };
    at.ok().map(|at| Instant::from_ms(at.as_millisecond()))
}

fn bits(field: &str, least: u32, most: u32) -> Option<u64> {
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step).filter(|step| *step > 0)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (least, most.min(if most == 7 { 6 } else { most })),
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, if part.contains('/') { most } else { number(range)? }),
        };
        if first < least || last > most || first > last {
            return None;
        }
        bits |= (first..=last).step_by(step as usize).fold(0, |bits, number| bits | 1 << number);
    }
    Some(bits)
}

fn number(text: &str) -> Option<u32> {
    let is_short = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_short)
}
