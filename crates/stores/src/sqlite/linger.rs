//! When the writer begins. A commit costs much the same for one entry as for hundreds, so where nobody waits for the
//! next one, the writer lingers a moment for more to gather. Whoever comes to wait ends that at once.

use super::queue::{Queue, Segment, State};
use parking_lot::MutexGuard;
use std::time::{Duration, Instant};

/// With this many rows there is enough for a commit.
const ENOUGH_ROWS: usize = 1_000;

/// With this many encoded bytes there is.
const ENOUGH_BYTES: usize = 256 << 10;

/// What the writer is to do.
pub(super) enum Next {
    /// Commit this.
    Commit(Segment),
    /// Something between commits.
    Other,
    /// End: the queue was stopped, and nothing is left.
    Stop,
}

impl Queue {
    /// Sleeps until there is something to do. `ids_have_more` says that the id index wants to be maintained: time that is
    /// spent on that gathers entries too. `linger_at_most` bounds how long entries that nobody waits for stay queued.
    pub(super) fn next_work(&self, ids_have_more: bool, linger_at_most: Duration) -> Next {
        let mut state = self.state.lock();
        loop {
            if !state.segments.is_empty() {
                if !ids_have_more {
                    self.linger(&mut state, linger_at_most);
                }
                return state.segments.pop_front().map_or(Next::Other, Next::Commit);
            }
            if !state.urgent.is_empty() || !state.tasks.is_empty() {
                return Next::Other;
            }
            if state.stopping || state.failed.is_some() {
                return Next::Stop;
            }
            if ids_have_more {
                return Next::Other;
            }
            self.work.wait(&mut state);
        }
    }

    fn linger(&self, state: &mut MutexGuard<'_, State>, at_most: Duration) {
        let until = Instant::now() + at_most;
        state.lingering = true;
        while state.may_linger() && !self.work.wait_until(state, until).timed_out() {}
        state.lingering = false;
    }

    /// Tells the writer that there is something, unless that can wait until it has lingered.
    pub(super) fn wake(&self, state: MutexGuard<'_, State>) {
        let later = state.lingering && state.may_linger();
        drop(state);
        if !later {
            self.work.notify_one();
        }
    }
}

impl State {
    /// Whether nobody waits, neither for a commit nor for a task, and there is room for more in the commit.
    fn may_linger(&self) -> bool {
        let nobody_waits = self.waiters.is_empty()
            && self.late_waiters.is_empty()
            && self.urgent.is_empty()
            && self.tasks.is_empty()
            && !self.stopping;
        let room = |segment: &Segment| segment.rows.len() < ENOUGH_ROWS && segment.bytes.len() < ENOUGH_BYTES;
        nobody_waits && self.segments.len() == 1 && self.segments.front().is_some_and(room)
    }
}

#[cfg(test)]
#[path = "linger_tests.rs"]
mod tests;
