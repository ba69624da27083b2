use super::*;

#[test]
fn time_that_was_used_is_never_shown_as_none() {
    for (ms, text) in [
        (0, "0m"),
        (1, "<1s"),
        (999, "<1s"),
        (1_000, "1s"),
        (59_999, "59s"),
        (60_000, "1m"),
        (3_599_999, "59m"),
        (3_600_000, "1h 0m"),
        (18_000_000, "5h 0m"),
        (90_061_000, "25h 1m"),
        (-5, "0m"),
    ] {
        assert_eq!(duration_text(ms), text, "{ms}");
    }
}

#[test]
fn sessions_are_counted_and_not_timed() {
    let catalog = super::super::sample::catalog();
    let time = &catalog.meters["conversation_time"];
    assert_eq!(limit_text(time, LimitWindow::Concurrent, 3), "3");
    assert_eq!(limit_unit(time, LimitWindow::Concurrent), "sessions");
    for window in [LimitWindow::Session, LimitWindow::Of(WindowKind::Period)] {
        assert_eq!(limit_text(time, window, 1_800_000), "30m");
        assert_eq!(limit_unit(time, window), "ms");
    }
}

#[test]
fn decimals_lose_no_digit() {
    for (amount, decimals, text) in [
        (0, 2, "0"),
        (5, 0, "5"),
        (1, 2, "0.01"),
        (150, 2, "1.5"),
        (-150, 2, "-1.5"),
        (-1, 3, "-0.001"),
        (i64::MIN, 0, "-9223372036854775808"),
        (i64::MAX, 9, "9223372036.854775807"),
    ] {
        assert_eq!(decimal_text(amount, decimals), text, "{amount} {decimals}");
    }
}
