//! Schedules, against the calendar.

use domain::{
    cron::Cron,
    time::{Instant, Zone},
};

fn at(text: &str) -> Instant {
    Instant::from_ms(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn next(expression: &str, zone: &str, after: &str) -> String {
    let due = Cron::parse(expression).unwrap().next_after(at(after), &Zone::named(zone).unwrap());
    due.map_or("never".into(), |due| jiff::Timestamp::from_millisecond(due.ms()).unwrap().to_string())
}

#[test]
fn a_schedule_is_due_when_the_calendar_says_so() {
    for (expression, zone, after, due) in [
        ("0 2 * * *", "UTC", "2026-03-01T01:59:59Z", "2026-03-01T02:00:00Z"),
        ("0 2 * * *", "UTC", "2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z"),
        ("*/15 * * * *", "UTC", "2026-03-01T23:50:00Z", "2026-03-02T00:00:00Z"),
        ("5/20 3 * * *", "UTC", "2026-03-01T03:06:00Z", "2026-03-01T03:25:00Z"),
        ("30 1,13 1-7 * *", "UTC", "2026-03-07T13:30:00Z", "2026-04-01T01:30:00Z"),
        ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 0 31 2 *", "UTC", "2026-03-01T00:00:00Z", "never"),
        // Sundays by either number; 2026-03-01 is one.
        ("0 6 * * 0", "UTC", "2026-03-01T06:00:00Z", "2026-03-08T06:00:00Z"),
        ("0 6 * * 7", "UTC", "2026-03-01T06:00:00Z", "2026-03-08T06:00:00Z"),
        ("0 6 * * 1-5", "UTC", "2026-03-06T06:00:00Z", "2026-03-09T06:00:00Z"),
        // Both days: either will do.
        ("0 6 15 * 1", "UTC", "2026-03-09T06:00:00Z", "2026-03-15T06:00:00Z"),
        // The clocks go forward at 02:00 and back at 03:00 in Madrid.
        ("0 2 * * *", "Europe/Madrid", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        ("30 2 * * *", "Europe/Madrid", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"),
        ("30 2 * * *", "Europe/Madrid", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
        ("30 2 * * *", "Europe/Madrid", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
    ] {
        assert_eq!(next(expression, zone, after), due, "{expression} in {zone} after {after}");
    }
}

#[test]
fn what_is_no_schedule_says_which_field_is_wrong() {
    for (expression, named) in [
        ("", "five fields"),
        ("0 2 * *", "five fields"),
        ("60 2 * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 2 0 * *", "day of the month"),
        ("0 2 * 13 *", "month"),
        ("0 2 * * 8", "day of the week"),
        ("0 5-2 * * *", "hour"),
        ("*/0 * * * *", "minute"),
        ("a * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("+1 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
    ] {
        let why = Cron::parse(expression).unwrap_err();
        assert!(why.contains(named), "{expression:?}: {why}");
    }
}
