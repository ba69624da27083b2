//! Instants and windows: pure functions of an instant, an anchor and a time zone. Nothing here reads a clock.

use crate::day::Day;
use jiff::{
    SignedDuration, Span, Timestamp, civil,
    tz::{AmbiguousOffset, TimeZone},
};
use std::fmt;

/// A UTC instant in whole milliseconds since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(i64);

/// Milliseconds in a day of 24 hours.
pub const DAY_MS: i64 = 86_400_000;

const HOUR_MS: i64 = 3_600_000;

const MINUTE_MS: i64 = 60_000;

/// The instants this program accepts: years 1970 to 9000, so that window arithmetic never leaves jiff's range.
const MAX_MS: i64 = 221_845_392_000_000;

/// How far the end of a window may lie past that: 900 years, still inside jiff's range.
const MARGIN_MS: i64 = 28_401_840_000_000;

impl Instant {
    /// The first instant, 1970-01-01T00:00:00Z.
    pub const EPOCH: Instant = Instant(0);

    /// Milliseconds since the epoch, held within the accepted range.
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.clamp(0, MAX_MS))
    }
    /// Milliseconds since the epoch.
    pub fn ms(self) -> i64 {
        self.0
    }
    /// This instant moved by `ms`, held within the accepted range.
    pub fn plus_ms(self, ms: i64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }
    /// RFC 3339 in UTC, with milliseconds only where there are some.
    pub fn rfc3339(self) -> String {
        self.timestamp().to_string()
    }
    /// Reads RFC 3339; `None` for anything else and for instants before 1970 or after 9000.
    pub fn parse(text: &str) -> Option<Self> {
        let ms = text.parse::<Timestamp>().ok()?.as_millisecond();
        (0..=MAX_MS).contains(&ms).then_some(Self(ms))
    }
    /// A bound of a window, which may lie a little past the last accepted instant: every window has an end.
    fn bound(ms: i64) -> Self {
        Self(ms.clamp(0, MAX_MS + MARGIN_MS))
    }
    fn timestamp(self) -> Timestamp {
        Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp())
    }
}

/// A named time zone. Two zones are equal when their names are.
#[derive(Clone)]
pub struct Zone {
    name: Box<str>,
    zone: TimeZone,
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self { name: "UTC".into(), zone: TimeZone::UTC }
    }
    /// An IANA name such as `Europe/Madrid`, from the table built into the program; `None` if unknown.
    pub fn named(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > 64 {
            return None;
        }
        if name == "UTC" {
            return Some(Self::utc());
        }
        let zone = TimeZone::get(name).ok()?;
        let name = zone.iana_name().unwrap_or(name).into();
        Some(Self { name, zone })
    }
    /// The IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The first instant at which clocks in the zone show this date or a later one.
    pub fn start_of(&self, day: Day) -> Instant {
        let (year, month, day) = day.civil();
        let part = |number: i32| i8::try_from(number).ok();
        let date = i16::try_from(year).ok().zip(part(month).zip(part(day)));
        let date = date.and_then(|(year, (month, day))| civil::Date::new(year, month, day).ok());
        date.map_or(Instant::EPOCH, |date| start_of_date(&self.zone, date))
    }
    /// An instant of this date that has the same date in UTC: the middle of what both days share. (Noon of the zone would
    /// not do: where clocks are 12 hours and more ahead of UTC or behind it, that is another day there.) Of a date that
    /// the zone's clocks never showed, where the next one begins.
    pub fn middle_of(&self, day: Day) -> Instant {
        let (start, end) = (self.start_of(day), self.start_of(day + 1));
        let (utc_start, utc_end) = (Self::utc().start_of(day), Self::utc().start_of(day + 1));
        let (from, until) = (start.max(utc_start), end.min(utc_end));
        if from < until { from.plus_ms((until.ms() - from.ms()) / 2) } else { start }
    }
    /// The rules of the zone.
    pub(crate) fn tz(&self) -> &TimeZone {
        &self.zone
    }
    fn is_utc(&self) -> bool {
        &*self.name == "UTC"
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Zone {}
impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The windows in which use adds up. Order is from the longest to the shortest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// The billing period: months counted from the tenant's anchor, in UTC (as Stripe counts them).
    Period,
    /// A calendar month in the tenant's time zone.
    Month,
    /// A calendar day in the tenant's time zone.
    Day,
    /// A calendar hour in the tenant's time zone.
    Hour,
    /// A minute.
    Minute,
}

impl WindowKind {
    /// How many kinds there are.
    pub const COUNT: usize = 5;
    /// Every kind, in order.
    pub const ALL: [WindowKind; Self::COUNT] =
        [WindowKind::Period, WindowKind::Month, WindowKind::Day, WindowKind::Hour, WindowKind::Minute];
    /// Position in [`WindowKind::ALL`]; part of the ledger's format.
    pub fn index(self) -> usize {
        self as usize
    }
    /// The word used in the catalog and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            WindowKind::Period => "period",
            WindowKind::Month => "month",
            WindowKind::Day => "day",
            WindowKind::Hour => "hour",
            WindowKind::Minute => "minute",
        }
    }
    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
    /// Seconds, for the kinds whose length never changes by calendar: an hour and a minute.
    pub fn fixed_seconds(self) -> Option<u64> {
        match self {
            WindowKind::Hour => Some(3600),
            WindowKind::Minute => Some(60),
            WindowKind::Period | WindowKind::Month | WindowKind::Day => None,
        }
    }
    /// Whether the totals of closed windows of this kind are kept as history.
    pub fn is_kept(self) -> bool {
        matches!(self, WindowKind::Period | WindowKind::Month | WindowKind::Day)
    }
}

/// A half-open stretch of time, `start <= t < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Window {
    /// First instant inside.
    pub start: Instant,
    /// First instant after.
    pub end: Instant,
}

impl Window {
    /// Whether `at` lies inside.
    pub fn contains(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }
}

/// What shapes a tenant's windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where the billing period is anchored.
    pub anchor: Instant,
    /// In which zone calendar windows are cut.
    pub zone: Zone,
}

impl Frame {
    /// The window of `kind` around `at`, with no memory of earlier frames.
    pub fn window(&self, kind: WindowKind, at: Instant) -> Window {
        match kind {
            WindowKind::Period => period(self.anchor, at),
            WindowKind::Month => self.calendar(at, kind),
            WindowKind::Day | WindowKind::Hour | WindowKind::Minute if self.zone.is_utc() => fixed(kind, at),
            WindowKind::Minute => fixed(kind, at),
            WindowKind::Day | WindowKind::Hour => self.calendar(at, kind),
        }
    }

    /// The first boundary of `kind` at or after `at`.
    pub fn boundary_at_or_after(&self, kind: WindowKind, at: Instant) -> Instant {
        let window = self.window(kind, at);
        if window.start == at { at } else { window.end }
    }

    fn calendar(&self, at: Instant, kind: WindowKind) -> Window {
        let zone = &self.zone.zone;
        let local = zone.to_datetime(at.timestamp());
        if kind == WindowKind::Hour {
            return hour(zone, at, local);
        }
        let (mut first, step) = match kind {
            WindowKind::Month => (local.date().first_of_month(), Span::new().months(1)),
            _ => (local.date(), Span::new().days(1)),
        };
        // Clocks that are set back across midnight (St. John's until 2011, at 00:01) show the old date once more after
        // the new one has begun. A day that has begun is not taken back: it would open its predecessor anew.
        let mut next = first.saturating_add(step);
        while start_of_date(zone, next) <= at && next > first {
            (first, next) = (next, next.saturating_add(step));
        }
        Window { start: start_of_date(zone, first), end: start_of_date(zone, next) }
    }
}

/// The first instant at which clocks in the zone show this date or a later one: there are dates that begin at 01:00
/// (Sao Paulo's summers), in the middle of a gap (Toronto's, at 00:30), twice, or never (Samoa's 30 December 2011).
fn start_of_date(zone: &TimeZone, date: civil::Date) -> Instant {
    let midnight = zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
    let in_gap = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
    match midnight.compatible() {
        // "Compatible" reads a midnight inside a gap as the instant that is as far after the gap.
        Ok(after) if in_gap => {
            let jump = zone.preceding(after + SignedDuration::from_nanos(1)).next();
            Instant::bound(jump.map_or(after, |jump| jump.timestamp()).as_millisecond())
        }
        Ok(start) => Instant::bound(start.as_millisecond()),
        Err(_) => Instant::bound(i64::MAX),
    }
}

/// Hours are real hours: across a DST change an hour of the wall clock that happens twice is two windows. The offset
/// in force at `at` says where the hour began, cut at a change of offset that lies inside it.
fn hour(zone: &TimeZone, at: Instant, local: civil::DateTime) -> Window {
    let into_ms = i64::from(local.minute()) * 60_000
        + i64::from(local.second()) * 1000
        + i64::from(local.subsec_nanosecond()) / 1_000_000;
    let (mut start, mut end) = (at.ms() - into_ms, at.ms() - into_ms + HOUR_MS);
    if let Some(change) = zone.preceding(at.plus_ms(1).timestamp()).next() {
        start = start.max(change.timestamp().as_millisecond());
    }
    if let Some(change) = zone.following(at.timestamp()).next() {
        end = end.min(change.timestamp().as_millisecond());
    }
    Window { start: Instant::bound(start), end: Instant::bound(end) }
}

fn fixed(kind: WindowKind, at: Instant) -> Window {
    let length_ms = match kind {
        WindowKind::Day => DAY_MS,
        WindowKind::Hour => HOUR_MS,
        _ => MINUTE_MS,
    };
    let start = at.ms() - at.ms().rem_euclid(length_ms);
    Window { start: Instant(start), end: Instant(start + length_ms) }
}

/// The billing period around `at`: anchor + n months, each computed from the *original* anchor, so that 31 January is
/// followed by 28 February and then 31 March.
fn period(anchor: Instant, at: Instant) -> Window {
    let from = TimeZone::UTC.to_datetime(anchor.timestamp());
    let now = TimeZone::UTC.to_datetime(at.timestamp());
    let nth = |months: i32| -> Instant {
        let date = from.saturating_add(Span::new().months(months));
        Instant::bound(TimeZone::UTC.to_timestamp(date).map_or(i64::MAX, Timestamp::as_millisecond))
    };
    let between = |from: i16, now: i16| i32::from(now) - i32::from(from);
    let mut months = between(from.year(), now.year()) * 12 + between(i16::from(from.month()), i16::from(now.month()));
    // Both lie in months that are this far apart; within its month, `at` may still be before the anchor's day and time.
    if nth(months) > at {
        months -= 1;
    }
    Window { start: nth(months), end: nth(months + 1) }
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;
