//! Windows tile time: whatever the zone, the anchor and the instant, the window around an instant contains it, every
//! instant inside it has the same window, and the next begins where it ends.

use crate::world::at;
use domain::{
    day::Day,
    time::{Frame, Instant, Window, WindowKind, Zone},
};
use proptest::prelude::*;

/// Ordinary ones, and every oddity known: half-hour DST, quarter-hour offsets, DST at midnight, a day that never was,
/// clocks set back across midnight, gaps that begin before midnight, DST the other way round.
const ZONES: [&str; 16] = [
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "America/St_Johns",
    "America/Toronto",
    "Africa/Cairo",
    "America/Nuuk",
    "America/Havana",
    "Europe/Dublin",
    "Asia/Gaza",
];

fn frame(zone: &str, anchor: Instant) -> Frame {
    Frame { anchor, zone: Zone::named(zone).unwrap() }
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ZONES[..])
}

/// 1970 to 2060: inside lie all the oddities; and, rarely, anything that is accepted.
fn instant() -> impl Strategy<Value = Instant> {
    prop_oneof![9 => 0..2_840_140_800_000_i64, 1 => 0..i64::MAX].prop_map(Instant::from_ms)
}

fn check_tiling(frame: &Frame, kind: WindowKind, instant: Instant) {
    let window = frame.window(kind, instant);
    let what = format!("{kind:?} around {instant:?} in {frame:?}: {window:?}");
    assert!(window.contains(instant), "{what} contains it");
    assert_eq!(frame.window(kind, window.start), window, "{what} is the window of its start");
    let last = Instant::from_ms(window.end.ms() - 1);
    assert_eq!(frame.window(kind, last), window, "{what} is the window of its last instant");
    // What is accepted ends in the year 9000; the last window ends a little later.
    if window.end == Instant::from_ms(window.end.ms()) {
        assert_eq!(frame.boundary_at_or_after(kind, last), boundary_after(&window, last), "{what} has an end");
        assert_eq!(frame.window(kind, window.end).start, window.end, "{what} is followed at once");
        assert_eq!(frame.boundary_at_or_after(kind, window.end), window.end, "{what} ends at a boundary");
    }
}

fn boundary_after(window: &Window, instant: Instant) -> Instant {
    if window.start == instant { instant } else { window.end }
}

proptest! {
    #![proptest_config(crate::config(2_000, "windows"))]

    #[test]
    fn windows_tile_time(zone in zone(), anchor in instant(), instant in instant()) {
        for kind in WindowKind::ALL {
            check_tiling(&frame(zone, anchor), kind, instant);
        }
    }

    #[test]
    fn every_change_of_clocks_is_tiled(zone in zone(), instant in instant(), minutes in -180..180_i64) {
        let Some(change) = change_of_clocks_after(zone, instant) else { return Ok(()) };
        let near = change.plus_ms(minutes * 60_000);
        for kind in WindowKind::ALL {
            check_tiling(&frame(zone, Instant::EPOCH), kind, near);
        }
    }

    /// Days, months and years are neither lost nor doubled on the way.
    #[test]
    fn lengths_are_believable(zone in zone(), anchor in instant(), instant in instant()) {
        let hours = |kind| {
            let window = frame(zone, anchor).window(kind, instant);
            (window.end.ms() - window.start.ms()) as f64 / 3_600_000.0
        };
        // The two ends of what is accepted are cut.
        prop_assume!(instant.ms() > 86_400_000 * 40);
        prop_assert!(hours(WindowKind::Hour) <= 1.0);
        prop_assert!((22.0..=48.0).contains(&hours(WindowKind::Day)), "{}", hours(WindowKind::Day));
        prop_assert!((26.9 * 24.0..=31.2 * 24.0).contains(&hours(WindowKind::Month)), "{}", hours(WindowKind::Month));
        prop_assert!((28.0 * 24.0..=31.0 * 24.0).contains(&hours(WindowKind::Period)), "{}", hours(WindowKind::Period));
    }
}

/// The next instant at which the zone's clocks jump, found by its days alone.
fn change_of_clocks_after(zone: &str, instant: Instant) -> Option<Instant> {
    let frame = frame(zone, Instant::EPOCH);
    let mut day = frame.window(WindowKind::Day, instant);
    for _ in 0..366 {
        if day.end.ms() - day.start.ms() != 86_400_000 {
            let mut hour = frame.window(WindowKind::Hour, day.start);
            while hour.end < day.end && hour.end.ms() - hour.start.ms() == 3_600_000 {
                hour = frame.window(WindowKind::Hour, hour.end);
            }
            return Some(hour.end.min(day.end));
        }
        if day.end == day.end.plus_ms(1) {
            return None;
        }
        day = frame.window(WindowKind::Day, day.end);
    }
    None
}

proptest! {
    #![proptest_config(crate::config(2_000, "windows"))]

    /// Wherever clocks are at most a day from UTC: the middle of a date has that date by both.
    #[test]
    fn the_middle_of_a_date_has_it_in_utc_as_well(
        zone in prop_oneof![zone(), prop::sample::select(&FARTHEST[..])],
        days in 1..33_000,
    ) {
        let day = Day::from_number(days);
        let middle = Zone::named(zone).unwrap().middle_of(day);
        prop_assert_eq!(Day::of(middle), day, "{} {}", zone, day);
        let local = frame(zone, Instant::EPOCH).window(WindowKind::Day, middle);
        // A date that was skipped lies where the next begins.
        let begins = Zone::named(zone).unwrap().start_of(day);
        prop_assert_eq!(local.start, begins, "{} {}", zone, day);
    }
}

/// The ends of the world: clocks 14 hours ahead of UTC, 12 behind it, and 13 by turns.
const FARTHEST: [&str; 4] = ["Pacific/Kiritimati", "Etc/GMT+12", "Pacific/Auckland", "Pacific/Honolulu"];

#[test]
fn middles_of_known_dates() {
    let day = Day::parse("2027-01-08").unwrap();
    for (zone, middle) in [
        ("UTC", "2027-01-08T12:00:00Z"),
        ("Europe/Madrid", "2027-01-08T11:30:00Z"),
        ("Pacific/Auckland", "2027-01-08T05:30:00Z"),
        ("Pacific/Honolulu", "2027-01-08T17:00:00Z"),
        ("Pacific/Kiritimati", "2027-01-08T05:00:00Z"),
        ("Etc/GMT+12", "2027-01-08T18:00:00Z"),
    ] {
        assert_eq!(Zone::named(zone).unwrap().middle_of(day).rfc3339(), middle, "{zone}");
    }
}

fn shown(zone: &str, kind: WindowKind, instant: &str) -> String {
    let window = frame(zone, at("2027-01-31T10:00Z")).window(kind, at(instant));
    format!("{}..{}", window.start.rfc3339(), window.end.rfc3339())
}

/// Known days, worked out by hand from the time-zone table.
#[test]
fn odd_days() {
    let day = |zone, instant| shown(zone, WindowKind::Day, instant);
    // Sao Paulo's summer began at midnight: there was no 00:00.
    assert_eq!(day("America/Sao_Paulo", "2018-11-04T12:00Z"), "2018-11-04T03:00:00Z..2018-11-05T02:00:00Z");
    assert_eq!(day("America/Sao_Paulo", "2018-02-18T01:30Z"), "2018-02-17T02:00:00Z..2018-02-18T03:00:00Z");
    // Samoa had no 30 December 2011.
    assert_eq!(day("Pacific/Apia", "2011-12-30T09:59:59Z"), "2011-12-29T10:00:00Z..2011-12-30T10:00:00Z");
    assert_eq!(day("Pacific/Apia", "2011-12-30T10:00Z"), "2011-12-30T10:00:00Z..2011-12-31T10:00:00Z");
    // St. John's set clocks back at 00:01, to 23:01 of the day before: the new day, once begun, stays.
    assert_eq!(day("America/St_Johns", "2010-11-07T02:30:30Z"), "2010-11-07T02:30:00Z..2010-11-08T03:30:00Z");
    assert_eq!(day("America/St_Johns", "2010-11-07T03:15Z"), "2010-11-07T02:30:00Z..2010-11-08T03:30:00Z");
    // Cairo's clocks go forward at midnight and back at midnight.
    assert_eq!(day("Africa/Cairo", "2027-04-30T12:00Z"), "2027-04-29T22:00:00Z..2027-04-30T21:00:00Z");
}

#[test]
fn odd_hours() {
    let hour = |instant| shown("Australia/Lord_Howe", WindowKind::Hour, instant);
    // Lord Howe's clocks go from 02:00 to 01:30 in April and from 02:00 to 02:30 in October.
    assert_eq!(hour("2027-04-03T14:59Z"), "2027-04-03T14:00:00Z..2027-04-03T15:00:00Z");
    assert_eq!(hour("2027-04-03T15:10Z"), "2027-04-03T15:00:00Z..2027-04-03T15:30:00Z");
    assert_eq!(hour("2027-10-02T15:10Z"), "2027-10-02T14:30:00Z..2027-10-02T15:30:00Z");
    assert_eq!(hour("2027-10-02T15:30Z"), "2027-10-02T15:30:00Z..2027-10-02T16:00:00Z");
}

#[test]
fn leap_years_and_the_first_anchor() {
    let period = |instant| shown("UTC", WindowKind::Period, instant);
    assert_eq!(period("2028-02-29T09:59Z"), "2028-01-31T10:00:00Z..2028-02-29T10:00:00Z");
    assert_eq!(period("2028-02-29T10:00Z"), "2028-02-29T10:00:00Z..2028-03-31T10:00:00Z");
    assert_eq!(period("2100-03-01T00:00Z"), "2100-02-28T10:00:00Z..2100-03-31T10:00:00Z");
    // Before the anchor, periods count backwards.
    assert_eq!(period("2026-12-31T09:00Z"), "2026-11-30T10:00:00Z..2026-12-31T10:00:00Z");
}

#[test]
fn the_ends_of_time() {
    let last = Instant::from_ms(i64::MAX);
    for zone in ZONES {
        for anchor in [Instant::EPOCH, at("2027-01-31T10:00Z"), last] {
            for instant in [Instant::EPOCH, Instant::from_ms(1), Instant::from_ms(last.ms() - 1), last] {
                for kind in WindowKind::ALL {
                    assert!(frame(zone, anchor).window(kind, instant).contains(instant), "{zone} {anchor:?} {kind:?}");
                }
            }
        }
    }
}
