#![allow(clippy::unwrap_used)]

use super::*;
use QuantityError::{NoUnit, NotWhole, Shape, TooLarge, UnknownUnit};

#[test]
fn durations_are_sums_of_terms() {
    for (text, ms) in [
        ("60m", 3_600_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        (" 7d ", 604_800_000),
        ("500ms", 500),
        ("1.5s", 1500),
        ("0s", 0),
    ] {
        assert_eq!(duration_ms(text), Ok(ms), "{text}");
    }
}

#[test]
fn sizes_are_decimal_or_binary_by_their_unit() {
    for (text, bytes) in
        [("10GB", 10_000_000_000), ("10 GB", 10_000_000_000), ("10GiB", 10_737_418_240), ("1.5 kB", 1500), ("7B", 7)]
    {
        assert_eq!(size_bytes(text), Ok(bytes), "{text}");
    }
}

#[test]
fn decimals_are_exact() {
    assert_eq!(decimal("9.90", 2), Ok(990));
    assert_eq!(decimal("9.9", 2), Ok(990));
    assert_eq!(decimal("9", 2), Ok(900));
    assert_eq!(decimal("9.901", 2), Err(NotWhole));
}

#[test]
fn what_is_not_an_amount_says_why() {
    for (text, error) in [
        ("", Shape),
        ("m", Shape),
        ("-1m", Shape),
        ("1,5h", Shape),
        ("1.h", Shape),
        ("60", NoUnit),
        ("60 minutes", UnknownUnit("minutes".to_owned())),
        ("0.5ms", NotWhole),
        ("99999999999999999999d", TooLarge),
        ("9999999999999999999d", TooLarge),
        ("9000000000000000000ms 9000000000000000000ms", TooLarge),
    ] {
        assert_eq!(duration_ms(text), Err(error), "{text}");
    }
    assert_eq!(decimal("9.90 ", 2), Err(Shape));
    assert_eq!(decimal("1e3", 2), Err(Shape));
}
