use super::*;

fn at(text: &str) -> Instant {
    Instant::parse(text).expect("a test's instant")
}
fn shown(window: Window) -> String {
    format!("{:?} {:?}", window.start, window.end)
}

#[test]
fn period_counts_from_the_original_anchor() {
    let frame = Frame { anchor: at("2027-01-31T10:00:00Z"), zone: Zone::utc() };
    let period = |t: &str| shown(frame.window(WindowKind::Period, at(t)));
    assert_eq!(period("2027-02-01T00:00:00Z"), "2027-01-31T10:00:00Z 2027-02-28T10:00:00Z");
    assert_eq!(period("2027-02-28T10:00:00Z"), "2027-02-28T10:00:00Z 2027-03-31T10:00:00Z");
    assert_eq!(period("2027-03-31T09:59:59Z"), "2027-02-28T10:00:00Z 2027-03-31T10:00:00Z");
    assert_eq!(period("2026-12-31T09:00:00Z"), "2026-11-30T10:00:00Z 2026-12-31T10:00:00Z");
}

#[test]
fn a_day_across_dst_has_23_or_25_hours() {
    let frame = Frame { anchor: Instant::EPOCH, zone: Zone::named("Europe/Madrid").expect("a zone") };
    let day = |t: &str| shown(frame.window(WindowKind::Day, at(t)));
    assert_eq!(day("2027-03-28T12:00:00Z"), "2027-03-27T23:00:00Z 2027-03-28T22:00:00Z");
    assert_eq!(day("2027-10-31T12:00:00Z"), "2027-10-30T22:00:00Z 2027-10-31T23:00:00Z");
}
