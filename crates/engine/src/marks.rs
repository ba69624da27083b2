//! When this node touched the sessions that it serves, by a clock that does not jump. A wall clock may be set while a
//! session runs: that must neither charge time that did not pass, nor let time pass that is not charged.

use domain::{
    session::{Session, SessionId},
    time::Instant,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Past so many the oldest knowledge goes: then the wall clock decides.
const MARKS_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The instant of the touch, and what was charged by then. Another means that another node has touched it since. (Two
    /// touches may be at one instant, where a node's clock is behind the tenant's last entry.)
    touched_at: Instant,
    accrued_ms: i64,
    steady_ms: i64,
}

/// What this node knows of the sessions it serves.
#[derive(Default)]
pub(crate) struct Marks(Mutex<FxHashMap<SessionId, Mark>>);

impl Marks {
    /// A session was opened or touched here.
    pub(crate) fn touched(&self, session: &Session, steady_ms: i64) {
        let mut marks = self.0.lock();
        if marks.len() >= MARKS_MAX && !marks.contains_key(&session.id) {
            marks.clear();
        }
        let Session { touched_at, accrued_ms, .. } = *session;
        marks.insert(session.id, Mark { touched_at, accrued_ms, steady_ms });
    }

    /// A session has ended.
    pub(crate) fn ended(&self, id: SessionId) {
        self.0.lock().remove(&id);
    }

    /// How long a session ran since it was touched, milliseconds; `None` if that was not done here.
    pub(crate) fn ran_ms(&self, session: &Session, steady_ms: i64) -> Option<i64> {
        let mark = self.0.lock().get(&session.id).copied()?;
        let is_last = (mark.touched_at, mark.accrued_ms) == (session.touched_at, session.accrued_ms);
        is_last.then(|| (steady_ms - mark.steady_ms).max(0))
    }
}
