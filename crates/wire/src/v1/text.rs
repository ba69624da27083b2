//! Amounts and durations for people. Use that happened is never shown as none.

use domain::{
    catalog::{LimitWindow, Meter, MeterKind},
    time::WindowKind,
};

/// An amount of a meter as people read it: `1h 5m` for time, `1.5` where the meter has decimals.
pub fn amount_text(meter: &Meter, amount: i64) -> String {
    match meter.kind {
        MeterKind::Duration => duration_text(amount),
        MeterKind::Counter | MeterKind::Gauge => decimal_text(amount, meter.decimals),
    }
}

/// An amount of a limit as people read it. A limit on how many sessions are open at once counts sessions, whatever its
/// meter counts.
pub fn limit_text(meter: &Meter, window: LimitWindow, amount: i64) -> String {
    match window {
        LimitWindow::Concurrent => decimal_text(amount, 0),
        LimitWindow::Level | LimitWindow::Of(_) | LimitWindow::Session => amount_text(meter, amount),
    }
}

/// The unit that a limit's numbers are in.
pub fn limit_unit(meter: &Meter, window: LimitWindow) -> &str {
    match window {
        LimitWindow::Concurrent => "sessions",
        LimitWindow::Level | LimitWindow::Of(_) | LimitWindow::Session => &meter.unit,
    }
}

/// Milliseconds as `2h 5m`, `5m`, `59s`, `<1s` or `0m`: rounded down, but what was used never shows as nothing.
pub fn duration_text(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds) {
        (0, 0, 0) if ms > 0 => "<1s".to_owned(),
        (0, 0, 0) => "0m".to_owned(),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, _) => format!("{minutes}m"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

/// An integer with its last `decimals` digits behind a point; no digit is lost, and no zeros trail.
pub fn decimal_text(amount: i64, decimals: u8) -> String {
    if decimals == 0 {
        return amount.to_string();
    }
    let scale = 10u64.pow(u32::from(decimals.min(18)));
    let (whole, rest) = (amount.unsigned_abs() / scale, amount.unsigned_abs() % scale);
    let sign = if amount < 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let rest = format!("{rest:0width$}", width = usize::from(decimals.min(18)));
    format!("{sign}{whole}.{}", rest.trim_end_matches('0'))
}

/// The window of a limit inside a sentence.
pub fn window_text(window: LimitWindow) -> &'static str {
    match window {
        LimitWindow::Level => "in use",
        LimitWindow::Of(WindowKind::Period) => "used in this billing period",
        LimitWindow::Of(WindowKind::Month) => "used this month",
        LimitWindow::Of(WindowKind::Day) => "used today",
        LimitWindow::Of(WindowKind::Hour) => "used this hour",
        LimitWindow::Of(WindowKind::Minute) => "used this minute",
        LimitWindow::Session => "used in this session",
        LimitWindow::Concurrent => "open at once",
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
