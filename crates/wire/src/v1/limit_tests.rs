#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn text(at: Instant) -> String {
    serde_json::to_value(Time(at)).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn instants_are_written_as_the_time_library_writes_them() {
    for known in [
        "1970-01-01T00:00:00Z",
        "2000-02-29T23:59:59.999Z",
        "2026-11-22T05:50:00.5Z",
        "2026-12-31T23:59:59.01Z",
        "2100-02-28T00:00:00.1Z",
        "2400-02-29T12:00:00Z",
    ] {
        assert_eq!(text(Instant::parse(known).unwrap()), known);
    }
    assert_eq!(text(Instant::from_ms(i64::MAX)), Instant::from_ms(i64::MAX).rfc3339());
}

proptest! {
    #[test]
    fn every_instant_is_written_as_the_time_library_writes_it(ms in 0i64..221_845_392_000_000, round in 0usize..4) {
        // Whole tenths, hundredths and seconds are rare among random milliseconds.
        let step = [1, 10, 100, 1000][round];
        let at = Instant::from_ms(ms / step * step);
        prop_assert_eq!(text(at), at.rfc3339());
    }
}
