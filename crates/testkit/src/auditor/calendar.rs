//! Civil dates by arithmetic alone (after Howard Hinnant), so that the auditor shares no code with the engine.

use domain::time::WindowKind;

/// All kinds of windows, in the order of their index.
pub const KINDS: [WindowKind; 5] = WindowKind::ALL;

const DAY: i64 = 86_400_000;

/// Days since 1970-01-01 of a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn length_of_month(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days(next_year, next, 1) - days(year, month, 1)
}

/// An instant moved by whole months, on the last day of a month that is too short.
fn plus_months(ms: i64, months: i64) -> i64 {
    let (year, month, day) = civil(ms.div_euclid(DAY));
    let count = year * 12 + month - 1 + months;
    let (year, month) = (count.div_euclid(12), count.rem_euclid(12) + 1);
    days(year, month, day.min(length_of_month(year, month))) * DAY + ms.rem_euclid(DAY)
}

/// The window of a kind around an instant, by an anchor and clocks that are `offset_ms` ahead of UTC.
pub fn natural(kind: usize, at_ms: i64, anchor_ms: i64, offset_ms: i64) -> (i64, i64) {
    let local = at_ms + offset_ms;
    let whole = |length: i64| {
        let start = local - local.rem_euclid(length) - offset_ms;
        (start, start + length)
    };
    match KINDS[kind] {
        WindowKind::Minute => (at_ms - at_ms.rem_euclid(60_000), at_ms - at_ms.rem_euclid(60_000) + 60_000),
        WindowKind::Hour => whole(3_600_000),
        WindowKind::Day => whole(DAY),
        WindowKind::Month => {
            let (year, month, _) = civil(local.div_euclid(DAY));
            let start = days(year, month, 1);
            ((start * DAY) - offset_ms, (start + length_of_month(year, month)) * DAY - offset_ms)
        }
        WindowKind::Period => {
            let mut months = (at_ms - anchor_ms).div_euclid(32 * DAY);
            while plus_months(anchor_ms, months + 1) <= at_ms {
                months += 1;
            }
            while plus_months(anchor_ms, months) > at_ms {
                months -= 1;
            }
            (plus_months(anchor_ms, months), plus_months(anchor_ms, months + 1))
        }
    }
}
