//! What a session may do: its slices, how long it may run, how long it may finish.

use super::{Session, time::Ran};
use crate::{
    ask::{Ask, Asked, Judged},
    catalog::{Catalog, LimitWindow, Meter, Mode, OnLimit, Plan},
    decision::LimitState,
    limits::{SessionUse, room},
    op::Charge,
    tenant::{Tenant, User, Windows},
    time::Instant,
};
use std::sync::Arc;

/// What an operation on a session is decided on.
pub(super) struct Step<'a> {
    pub(super) meter: &'a Arc<Meter>,
    pub(super) plan: Arc<Plan>,
    pub(super) at: Instant,
    pub(super) windows: Windows,
    pub(super) observed: bool,
    pub(super) catalog: &'a Catalog,
}

impl Step<'_> {
    /// Where a session stands that is, or would be, open.
    pub(super) fn judge(
        &self,
        tenant: &Tenant,
        user: Option<&User>,
        asked: &[Asked<'_>],
        session: SessionUse,
    ) -> Judged {
        let Step { plan, at, windows, observed, catalog, .. } = self;
        let ask = Ask { features: &[], charges: asked, windows, at: *at, session: Some(session) };
        let mut judged = tenant.judge(user, plan, &ask, *observed, catalog);
        if session.is_open {
            // It was not in its own way; it is shown all the same.
            let concurrent = |state: &&mut LimitState| state.window == LimitWindow::Concurrent;
            judged.decision.limits.iter_mut().filter(concurrent).for_each(|state| state.used += 1);
        }
        judged
    }

    /// What a session that is refused is counted to have asked for: not the one millisecond by which it is judged.
    pub(super) fn demand(&self) -> Charge {
        Charge { meter: self.meter.key.clone(), amount: self.meter.session.debit_interval_ms }
    }

    /// What can be held ahead: up to the end of the first window that is bounded, as far as there is room.
    pub(super) fn slice(&self, tenant: &Tenant, limits: &[LimitState]) -> i64 {
        let open = tenant.in_flight.open_sessions(&self.meter.key, None, self.at);
        let mut slice = self.meter.session.debit_interval_ms.min(self.meter.session.idle_timeout_ms);
        for state in limits.iter().filter(|state| state.meter == self.meter.key && state.max.is_some()) {
            if state.mode != Mode::Hard || state.window == LimitWindow::Concurrent {
                continue;
            }
            if let Some(ends_at) = state.resets_at {
                slice = slice.min(ends_at.ms() - self.at.ms());
            }
            if !self.observed {
                slice = slice.min(part_of_room(state, open));
            }
        }
        slice.max(0)
    }

    /// How long a session may run on, and the limit that ends it. What it holds itself is still its own.
    pub(super) fn may_run(&self, session: &Session, limits: &[LimitState]) -> (Option<i64>, Option<usize>) {
        if self.observed {
            return (None, None);
        }
        if session.is_finishing {
            return (Some(self.finish_left(session)), None);
        }
        let bounds = limits.iter().enumerate().filter(|(_, state)| {
            state.meter == session.meter && state.mode == Mode::Hard && state.window != LimitWindow::Concurrent
        });
        let rooms = bounds.filter_map(|(place, state)| Some((room(state)?.saturating_add(session.held_ms), place)));
        match rooms.min() {
            Some((room, place)) => (Some(room), Some(place)),
            None => (None, None),
        }
    }

    /// How much longer a session may run past its limit.
    pub(super) fn finish_left(&self, session: &Session) -> i64 {
        match self.plan.sessions.on_limit {
            OnLimit::Cut => 0,
            OnLimit::Finish { max_ms } => (max_ms - session.overage_ms).max(0),
        }
    }
}

/// A session holds at most one part in so many, and as many more as are open, of what is left: so that others may run as
/// well.
const SHARE: i64 = 8;
/// But no less than this, milliseconds, if there is as much.
const LEAST_MS: i64 = 1_000;

/// What one session may hold ahead under a limit.
fn part_of_room(state: &LimitState, open: i64) -> i64 {
    let Some(room) = room(state) else { return i64::MAX };
    match state.window {
        LimitWindow::Of(_) => (room / (SHARE + open)).max(LEAST_MS).min(room),
        // Its own limit is nobody else's.
        LimitWindow::Session | LimitWindow::Level | LimitWindow::Concurrent => room,
    }
}

/// What of the time that a session ran is charged.
pub(super) struct Took {
    /// What was held, or there was room for, milliseconds.
    pub(super) within_ms: i64,
    /// What was past a limit, and may be to finish, milliseconds.
    pub(super) overage_ms: i64,
}

impl Took {
    pub(super) fn charged_ms(&self) -> i64 {
        self.within_ms + self.overage_ms
    }
}

impl Tenant {
    /// What of the time that a session ran is charged: what was held, and as much more as there is room for.
    pub(super) fn took(&self, user: Option<&User>, step: &Step<'_>, session: &Session, ran: &Ran<'_>) -> Took {
        if step.observed {
            return Took { within_ms: ran.ran_ms, overage_ms: 0 };
        }
        // A session that seems to be idle, by a clock that jumped, holds nothing: others may have used it.
        let is_held = step.at < session.idle_at();
        let mut covered = if is_held { ran.ran_ms.min(session.held_ms) } else { 0 };
        let used = SessionUse { used_ms: session.accrued_ms, held_ms: covered, is_open: true };
        let mut limits = Vec::new();
        let now = (&step.windows, step.at);
        self.push_session_limits(&mut limits, user, &step.plan, &session.meter, now, used);
        for state in limits.iter().filter(|state| state.mode == Mode::Hard && state.max.is_some()) {
            if let Some(kind) = state.window.kind() {
                // It was held in these windows. A limit that came later may have others.
                let ends_at = session.windows[kind.index()].end;
                covered = covered.min(ends_at.ms() - ran.from.ms()).max(0);
            }
        }
        if covered == ran.ran_ms {
            return Took { within_ms: covered, overage_ms: 0 };
        }
        // Nobody is refused for what is only set aside: then all leases end.
        limits.iter_mut().for_each(|state| state.set_aside = 0);
        let within_ms = covered + self.room_for_more(user, session, ran, covered, &limits);
        Took { within_ms, overage_ms: (ran.ran_ms - within_ms).min(step.finish_left(session)).max(0) }
    }
}
