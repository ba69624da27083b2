//! How a session ends that nobody closes, and what is said of one without touching it.

use super::{CloseReason, Session, SessionEnd, SessionId, SessionState, TouchSession, step::Next, time::Ran};
use crate::{
    catalog::Catalog,
    decision::Decision,
    entry::{Cause, Effect, Entry},
    id::{MeterKey, UserId},
    limits::SessionUse,
    op::Outcome,
    tenant::{Tenant, User},
    time::Instant,
};

impl Tenant {
    /// Ends a session that was not touched in time.
    pub(super) fn end_idle(
        &mut self,
        user: Option<&mut User>,
        session: &Session,
        at: Instant,
        catalog: &Catalog,
    ) -> Entry {
        let mut entry = self.entry(Cause::Session, user.as_deref(), at, catalog);
        entry.dimensions = session.dimensions.clone();
        let ended = end_of(session, session.touched_at, CloseReason::Idle);
        entry.effects.push(Effect::SessionClosed(Box::new(ended)));
        self.fold(user, &entry);
        entry
    }

    /// Ends a session whose meter is none of time any more: what was held ahead of it is charged as far as it ran.
    pub(super) fn end_stranded(
        &mut self,
        user: Option<&mut User>,
        session: Session,
        (touch, ran_ms): (&TouchSession, i64),
        at: Instant,
        catalog: &Catalog,
    ) -> Outcome {
        let windows = self.windows_at(at);
        let ran = Ran { from: at.plus_ms(-ran_ms), ran_ms, windows: &windows };
        let charged_ms = ran_ms.min(session.held_ms);
        let mut entry = self.entry(Cause::Session, user.as_deref(), at, catalog);
        entry.dimensions = session.dimensions.clone();
        entry.binding = touch.binding;
        let effects = self.time_effects(&session.meter, &ran, charged_ms);
        let fits = |effect: &Effect| self.check_range(user.as_deref(), effect, &windows).is_ok();
        entry.effects.extend(effects.into_iter().filter(fits));
        self.draw(&mut entry, catalog);
        let session = Session { accrued_ms: session.accrued_ms.saturating_add(charged_ms), held_ms: 0, ..session };
        let ended = end_of(&session, ran.from.plus_ms(charged_ms), CloseReason::Forced);
        entry.effects.push(Effect::SessionClosed(Box::new(ended.clone())));
        self.fold(user, &entry);
        over(session, ended, entry)
    }

    /// Writes down that a session was not touched in time; `None` if it was, or is closed.
    pub(crate) fn lapse_session(
        &mut self,
        user: Option<&mut User>,
        id: SessionId,
        now: Instant,
        catalog: &Catalog,
    ) -> Option<Entry> {
        let at = self.instant(now);
        let session = self.in_flight.session(id).filter(|session| session.idle_at() <= at)?.clone();
        Some(self.end_idle(user, &session, at, catalog))
    }

    /// How a session stands that was opened before, with its limits as they are now; how it ended, if it has. Nothing is
    /// changed. Without a decision, where its meter is none of time any more.
    pub fn session_now(
        &self,
        user: Option<&User>,
        session: &Session,
        ended: Option<SessionEnd>,
        now: Instant,
        catalog: &Catalog,
    ) -> Outcome {
        let at = self.instant(now);
        let is_idle = session.idle_at() <= at;
        let ended = ended.or_else(|| is_idle.then(|| end_of(session, session.touched_at, CloseReason::Idle)));
        let session = match &ended {
            None => session.clone(),
            Some(end) => {
                let (accrued_ms, overage_ms) = (end.accrued_ms, end.overage_ms);
                Session { accrued_ms, overage_ms, held_ms: 0, ..session.clone() }
            }
        };
        let Ok(step) = self.step(&session.meter, None, now, catalog) else {
            let may_run_ms = Some(session.held_ms);
            let state = SessionState { session, ended, was_open: true, may_run_ms, limited_by: None };
            return Outcome { session: Some(Box::new(state)), ..Outcome::default() };
        };
        let decision = Decision {
            allowed: true,
            plan: self.profile.plan.clone(),
            denial: None,
            shadow: None,
            limits: Vec::new(),
            charged: true,
            at,
        };
        let decision = Some(decision);
        let next = Next { session, was_open: true, ended, denial: None, is_refused: false, decision };
        self.stands(user, &step, next)
    }

    /// What the longest open session on a meter took.
    pub(crate) fn longest_session(&self, meter: &MeterKey, user: Option<&UserId>, at: Instant) -> SessionUse {
        let is_its = |session: &&Session| {
            session.meter == *meter
                && session.idle_at() > at
                && user.is_none_or(|user| session.user.as_ref() == Some(user))
        };
        let longest = self.in_flight.sessions().filter(is_its).max_by_key(|session| session.accrued_ms);
        longest.map_or(SessionUse::default(), |session| SessionUse {
            used_ms: session.accrued_ms,
            held_ms: session.held_ms,
            is_open: false,
        })
    }
}

/// What is answered of a session that had ended when it was touched.
pub(super) fn over(session: Session, ended: SessionEnd, entry: Entry) -> Outcome {
    let ended = Some(ended);
    let state = SessionState { session, ended, was_open: true, may_run_ms: Some(0), limited_by: None };
    Outcome { session: Some(Box::new(state)), ..Outcome::of_entry(entry) }
}

/// How long a session ran since it was touched, at most until it is idle.
pub(super) fn ran_ms(session: &Session, measured_ms: Option<i64>, at: Instant) -> i64 {
    let by_clock = at.ms() - session.touched_at.ms();
    measured_ms.unwrap_or(by_clock).clamp(0, session.idle_timeout_ms)
}

pub(super) fn end_of(session: &Session, ended_at: Instant, reason: CloseReason) -> SessionEnd {
    SessionEnd {
        id: session.id,
        key: session.key.clone(),
        meter: session.meter.clone(),
        opened_at: session.opened_at,
        ended_at,
        accrued_ms: session.accrued_ms,
        overage_ms: session.overage_ms,
        reason,
    }
}
