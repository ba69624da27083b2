//! When this node touched the sessions that it serves, by a clock that does not jump. A wall clock may be set while a
//! session runs: that must neither charge time that did not pass, nor let time pass that is not charged.

use domain::{
    id::TenantId,
    session::{Session, SessionId},
    time::Instant,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Past so many the oldest knowledge goes: then the wall clock decides.
const MARKS_MAX: usize = 100_000;

#[derive(Debug, Clone)]
struct Mark {
    tenant: TenantId,
    /// The instant of the touch, and what was charged by then. Another means that another node has touched it since. (Two
    /// touches may be at one instant, where a node's clock is behind the tenant's last entry.)
    touched_at: Instant,
    accrued_ms: i64,
    steady_ms: i64,
    idle_timeout_ms: i64,
}

/// What this node knows of the sessions it serves.
#[derive(Default)]
pub(crate) struct Marks(Mutex<FxHashMap<SessionId, Mark>>);

impl Marks {
    /// A session was opened or touched here.
    pub(crate) fn touched(&self, tenant: &TenantId, session: &Session, steady_ms: i64) {
        let mut marks = self.0.lock();
        if marks.len() >= MARKS_MAX && !marks.contains_key(&session.id) {
            marks.clear();
        }
        // Of two at once, the answer of the first may come last.
        if marks.get(&session.id).is_some_and(|known| known.steady_ms > steady_ms) {
            return;
        }
        let Session { touched_at, accrued_ms, idle_timeout_ms, .. } = *session;
        let tenant = tenant.clone();
        marks.insert(session.id, Mark { tenant, touched_at, accrued_ms, steady_ms, idle_timeout_ms });
    }

    /// A session has ended.
    pub(crate) fn ended(&self, id: SessionId) {
        self.0.lock().remove(&id);
    }

    /// Sessions that nobody touched in time, by the clock that does not jump; at most so many.
    pub(crate) fn overdue(&self, steady_ms: i64, at_most: usize) -> Vec<(TenantId, SessionId)> {
        let marks = self.0.lock();
        let is_overdue = |mark: &Mark| steady_ms - mark.steady_ms >= mark.idle_timeout_ms;
        let overdue = marks.iter().filter(|(_, mark)| is_overdue(mark));
        overdue.map(|(id, mark)| (mark.tenant.clone(), *id)).take(at_most).collect()
    }

    /// How long a session ran since it was touched, milliseconds; `None` if that was not done here.
    pub(crate) fn ran_ms(&self, session: &Session, steady_ms: i64) -> Option<i64> {
        let marks = self.0.lock();
        let mark = marks.get(&session.id)?;
        let is_last = (mark.touched_at, mark.accrued_ms) == (session.touched_at, session.accrued_ms);
        is_last.then(|| (steady_ms - mark.steady_ms).max(0))
    }
}
