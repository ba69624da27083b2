//! From a limit in force to the question that is asked about it.

use crate::{history::History, question::Measure};
use domain::{
    catalog::{Limit, LimitWindow, MeterKind, Mode, Scope},
    day::Day,
    time::{DAY_MS, Instant, Window, WindowKind},
    view::Usage,
};

/// The day that begins at the day boundary nearest to an instant. What a tenant's zone makes of midnight, and what has been
/// used since the last one, is at most half a day off by it.
fn beginning_near(at: Instant) -> Day {
    Day::of(at.plus_ms(DAY_MS / 2))
}

/// The last day that live use counts for: yesterday before noon in UTC, today after it.
pub fn last_known(now: Instant) -> Day {
    beginning_near(now) + -1
}

/// A window as UTC days, first and last.
pub fn days_of(window: Window) -> (Day, Day) {
    (beginning_near(window.start), beginning_near(window.end) + -1)
}

/// Whether the day on which a limit is reached can be foreseen at all: it bounds a level, or what adds up in a day or
/// longer, of the whole tenant, and means something to it.
pub(crate) fn is_foreseen(limit: &Limit) -> bool {
    let lasts = match limit.window {
        LimitWindow::Level => true,
        LimitWindow::Of(kind) => matches!(kind, WindowKind::Period | WindowKind::Month | WindowKind::Day),
        LimitWindow::Session | LimitWindow::Concurrent => false,
    };
    lasts && limit.scope == Scope::Tenant && limit.mode != Mode::Shadow
}

/// What a limit over such a window is compared with. `ends` is the end of the window that is open, where it is known.
pub(crate) fn measure(window: LimitWindow, ends: Option<Instant>, usage: &Usage) -> Measure {
    match window {
        LimitWindow::Of(WindowKind::Day | WindowKind::Hour | WindowKind::Minute) => Measure::EachDay,
        LimitWindow::Of(WindowKind::Period) => total(usage.period),
        LimitWindow::Of(WindowKind::Month) => {
            // A month of any zone ends within half a day or so of one of UTC.
            let (start, last) = calendar_month(ends.map_or(last_known(usage.at), |end| beginning_near(end) + -1));
            Measure::Total { start, end: ends.map_or(last, |end| beginning_near(end) + -1) }
        }
        LimitWindow::Level | LimitWindow::Session | LimitWindow::Concurrent => Measure::Level,
    }
}

/// What the use of a meter is compared with where nothing bounds it.
pub(crate) fn unbounded(kind: MeterKind, usage: &Usage) -> Measure {
    match kind {
        MeterKind::Gauge => Measure::Level,
        MeterKind::Counter | MeterKind::Duration => total(usage.period),
    }
}

fn total(window: Window) -> Measure {
    let (start, end) = days_of(window);
    Measure::Total { start, end }
}

/// The first and the last day of the month around a day.
fn calendar_month(around: Day) -> (Day, Day) {
    let (_, _, day) = around.civil();
    let first = around + (1 - day);
    // The 28th and four days more is in the next month, whichever it is.
    let next = first + 31;
    let (_, _, over) = next.civil();
    (first, if over == 1 { first + 30 } else { next + -over })
}

/// The windows before one of a month, and itself, back to a day: first and last day each, in order.
pub(crate) fn months_back(start: Day, end: Day, back_to: Day) -> Vec<(Day, Day)> {
    let mut windows = vec![(start, end)];
    let mut first = start;
    while first > back_to {
        let last = first + -1;
        // The same day of the month as today's window, or the month's last where it has no such day: in the month of that last
        // day, or else in the one before.
        let begun = |(month, month_end): (Day, Day)| (month + (start.civil().2 - 1)).min(month_end);
        let around = calendar_month(last);
        first = match begun(around) {
            day if day <= last => day,
            _ => begun(calendar_month(around.0 + -1)),
        };
        windows.push((first, last));
    }
    windows.reverse();
    windows
}

/// What a plan that the tenant is not on would count in such a window, as far as history tells.
pub(crate) fn used_so_far(measure: Measure, history: &History, today: Day) -> f64 {
    match measure {
        Measure::Total { start, .. } => history.sum(start, today),
        Measure::Level | Measure::EachDay => history.until(today).last().map_or(0.0, |(_, value)| *value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    #[test]
    fn a_month_is_its_first_to_its_last_day() {
        for (around, first, last) in [
            ("2026-02-10", "2026-02-01", "2026-02-28"),
            ("2024-02-29", "2024-02-01", "2024-02-29"),
            ("2026-03-31", "2026-03-01", "2026-03-31"),
            ("2026-04-01", "2026-04-01", "2026-04-30"),
            ("2026-12-31", "2026-12-01", "2026-12-31"),
        ] {
            assert_eq!(calendar_month(day(around)), (day(first), day(last)), "{around}");
        }
    }

    #[test]
    fn windows_before_one_are_months() {
        for (start, end, back_to, expected) in [
            ("2026-03-01", "2026-03-31", "2026-01-10", "2026-01-01 2026-02-01 2026-03-01"),
            ("2026-03-15", "2026-04-14", "2026-01-20", "2026-01-15 2026-02-15 2026-03-15"),
            ("2026-03-31", "2026-04-29", "2026-02-10", "2026-01-31 2026-02-28 2026-03-31"),
        ] {
            let windows = months_back(day(start), day(end), day(back_to));
            let starts: Vec<String> = windows.iter().map(|(first, _)| first.to_string()).collect();
            assert_eq!(starts.join(" "), expected);
            assert!(windows.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{windows:?}");
        }
    }

    #[test]
    fn yesterday_is_the_last_day_before_noon_and_today_after_it() {
        for (now, last) in [
            ("2026-03-10T00:00:00Z", "2026-03-09"),
            ("2026-03-10T11:59:59Z", "2026-03-09"),
            ("2026-03-10T12:00:00Z", "2026-03-10"),
            ("2026-03-10T23:59:59Z", "2026-03-10"),
        ] {
            assert_eq!(last_known(Instant::parse(now).unwrap()), day(last), "{now}");
        }
    }
}
