//! Whether an answer was right at some time that it may be about.

use super::{Case, replay::Replay};
use crate::{
    auditor::{Book, Who},
    cluster::attempts::{Attempt, End},
    simulation::verify::limits_differ,
};
use domain::{decision::Decision, time::Instant};
use std::ops::RangeInclusive;

/// The states, by the number of entries, that an answer may be about: all there were between the call, less what a node
/// may believe without asking, and the answer.
pub(super) fn states(case: &Case<'_>, attempt: &Attempt, end: &End, replay: &Replay) -> RangeInclusive<usize> {
    let plan = &case.cluster.plan;
    let from_ms = attempt.at_ms - plan.options.recent_ms;
    let first = replay.written.partition_point(|written| written.at_ms < from_ms);
    let last = replay.written.partition_point(|written| written.tick <= end.tick);
    first..=last.max(first)
}

/// The instants an answer may be about.
pub(super) fn is_instant(case: &Case<'_>, attempt: &Attempt, end: &End, at: Instant, book_ms: i64) -> bool {
    let jitter_ms = case.cluster.plan.jitter_ms;
    let clock = attempt.at_ms - jitter_ms..=end.at_ms + jitter_ms;
    at.ms() == book_ms && book_ms > *clock.start() || at.ms() >= book_ms && clock.contains(&at.ms())
}

/// A decision against a book, its numbers and its plan.
pub(super) fn decision_differs(book: &Book, who: &Who, decision: &Decision) -> Option<String> {
    if decision.plan != book.plan {
        return Some(format!("the plan is {}, not {}", decision.plan, book.plan));
    }
    limits_differ(book, who, &decision.limits)
}

/// Looks for a state about which an answer is right; tells what is wrong with the last one.
pub(super) fn find(
    case: &Case<'_>,
    attempt: &Attempt,
    replay: &Replay,
    at: Instant,
    mut differs: impl FnMut(&mut Book) -> Option<String>,
) -> Result<(), String> {
    let Some(end) = &attempt.end else { return Ok(()) };
    let range = states(case, attempt, end, replay);
    let mut why: Vec<String> = Vec::new();
    for number in range.clone() {
        let Some(Some(book)) = replay.states.get(number) else { continue };
        let book_ms = replay.instants[number];
        if !is_instant(case, attempt, end, at, book_ms) {
            continue;
        }
        let mut book = book.clone();
        book.turn(at.ms());
        match differs(&mut book) {
            None => return Ok(()),
            Some(wrong) => why.push(format!("after {number}: {wrong}")),
        }
    }
    Err(format!("at {at:?} it is right about none of the states after {range:?} entries; {}", why.join("; ")))
}
