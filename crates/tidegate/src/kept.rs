//! How long history is kept: settings that must fit each other.

use domain::time::DAY_MS;
use engine::HistoryKept;
use wire::catalog::LATE_MAX_MS;

/// The day before is split at the ends of billing periods by quarters of an hour, up to a day after it is over.
const QUARTERS_MIN_MS: i64 = 2 * DAY_MS;
/// Days to which late events can still come are closed again, a day later at the latest.
const DAYS_MIN_MS: i64 = LATE_MAX_MS + 2 * DAY_MS;

/// Two days by minutes, 95 by quarters of an hour; no longer than the next coarser ones, where nobody set them.
const MINUTES_MS: i64 = 2 * DAY_MS;
const QUARTERS_MS: i64 = 95 * DAY_MS;

/// How long history is kept by what was set.
///
/// # Errors
/// A sentence that says what to change, where settings don't fit each other.
pub fn of(minutes_ms: Option<i64>, quarters_ms: Option<i64>, days_ms: i64) -> Result<HistoryKept, String> {
    let quarters_ms = quarters_ms.unwrap_or(QUARTERS_MS.min(days_ms));
    let minutes_ms = minutes_ms.unwrap_or(MINUTES_MS.min(quarters_ms));
    check(HistoryKept { minutes_ms, quarters_ms, days_ms })
}

fn check(kept: HistoryKept) -> Result<HistoryKept, String> {
    let (minutes, quarters, days) =
        ("TIDEGATE_LEDGER_HISTORY_MINUTES", "TIDEGATE_LEDGER_HISTORY_QUARTERS", "TIDEGATE_LEDGER_HISTORY");
    for ((finer, finer_ms), (coarser, coarser_ms)) in [
        ((minutes, kept.minutes_ms), (quarters, kept.quarters_ms)),
        ((quarters, kept.quarters_ms), (days, kept.days_ms)),
    ] {
        if finer_ms > coarser_ms {
            return Err(format!(
                "{finer} is longer than {coarser}: what is kept finely must be kept as long in the whole; make the first \
                 shorter or the second longer"
            ));
        }
    }
    let shortest = |name: &str, least_ms: i64, why: &str| {
        Err(format!("{name} is too short: {why}; give at least {}d", least_ms / DAY_MS))
    };
    if kept.quarters_ms < QUARTERS_MIN_MS {
        return shortest(quarters, QUARTERS_MIN_MS, "yesterday is split by it where a billing period ended");
    }
    if kept.days_ms < DAYS_MIN_MS {
        return shortest(days, DAYS_MIN_MS, "events may come 35 days late, and their day is closed again from it");
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_set_fits_what_somebody_did() {
        let days = |kept: HistoryKept| [kept.minutes_ms, kept.quarters_ms, kept.days_ms].map(|ms| ms / DAY_MS);
        assert_eq!(of(None, None, 400 * DAY_MS).map(days), Ok([2, 95, 400]));
        assert_eq!(of(None, None, 90 * DAY_MS).map(days), Ok([2, 90, 90]));
        assert_eq!(of(None, Some(2 * DAY_MS), 400 * DAY_MS).map(days), Ok([2, 2, 400]));
        assert!(of(None, Some(95 * DAY_MS), 90 * DAY_MS).is_err(), "what was set is not changed in silence");
    }

    #[test]
    fn settings_that_do_not_fit_each_other_are_refused_by_name() {
        for (minutes, quarters, days, refused) in [
            (2, 95, 400, None),
            (0, 2, 37, None),
            (37, 37, 37, None),
            (96, 95, 400, Some("HISTORY_MINUTES is longer than TIDEGATE_LEDGER_HISTORY_QUARTERS")),
            (2, 95, 94, Some("HISTORY_QUARTERS is longer than TIDEGATE_LEDGER_HISTORY:")),
            (1, 1, 400, Some("HISTORY_QUARTERS is too short")),
            (
                2,
                36,
                36,
                Some(
                    "HISTORY is too short: events may come 35 days late, and their day is closed again from it; give at least 37d",
                ),
            ),
        ] {
            let [minutes_ms, quarters_ms, days_ms] = [minutes, quarters, days].map(|days| days * DAY_MS);
            let kept = HistoryKept { minutes_ms, quarters_ms, days_ms };
            match (check(kept), refused) {
                (Ok(found), None) => assert_eq!(found, kept),
                (Err(found), Some(said)) => assert!(found.contains(said), "{found}"),
                (found, said) => panic!("{found:?} instead of {said:?}"),
            }
        }
    }
}
