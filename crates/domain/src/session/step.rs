//! A session that is open goes on, or ends.

use super::{
    CloseReason, Session, SessionEnd, SessionOp, SessionState, TouchSession,
    end::{end_of, over, ran_ms},
    judge::Step,
    time::Ran,
};
use crate::{
    ask::{Asked, Judged},
    catalog::{Catalog, Enforce, LimitWindow, MeterKind},
    decision::{Code, Decision, Denial},
    demand::RUNS_MAX,
    entry::{Binding, Cause, DenialKey, Effect, Entry},
    id::MeterKey,
    limits::SessionUse,
    op::{Charge, OpError, Outcome},
    tenant::{Tenant, User},
    time::Instant,
};

impl Tenant {
    pub(crate) fn session(
        &mut self,
        user: Option<&mut User>,
        op: &SessionOp,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        match op {
            SessionOp::Open(open) => self.open_session(user, open, now, catalog),
            SessionOp::Touch(touch) => self.touch_session(user, touch, now, catalog),
        }
    }

    pub(super) fn step<'a>(
        &self,
        meter: &MeterKey,
        enforce: Option<Enforce>,
        now: Instant,
        catalog: &'a Catalog,
    ) -> Result<Step<'a>, OpError> {
        let at = self.instant(now);
        let meter = catalog.meters.get(meter).ok_or_else(|| OpError::UnknownMeter(meter.clone()))?;
        if meter.kind != MeterKind::Duration {
            return Err(OpError::NotADuration(meter.key.clone()));
        }
        let observed = self.enforce(enforce, catalog) == Enforce::Observe;
        let (plan, windows) = (self.plan(catalog)?.clone(), self.windows_at(at));
        Ok(Step { meter, plan, at, windows, observed, catalog })
    }

    fn touch_session(
        &mut self,
        user: Option<&mut User>,
        touch: &TouchSession,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let Some(session) = self.in_flight.session(touch.id).cloned() else { return Err(OpError::UnknownSession) };
        let at = self.instant(now);
        let ran_ms = ran_ms(&session, touch.ran_ms, at);
        if ran_ms >= session.idle_timeout_ms {
            let mut entry = self.end_idle(user, &session, at, catalog);
            entry.binding = touch.binding.filter(|_| touch.close.is_some());
            let ended = end_of(&session, session.touched_at, CloseReason::Idle);
            return Ok(over(session, ended, entry));
        }
        let step = match self.step(&session.meter, touch.enforce, now, catalog) {
            // Another catalog: nobody can use it any more.
            Err(OpError::UnknownMeter(_) | OpError::NotADuration(_)) => {
                return Ok(self.end_stranded(user, session, (touch, ran_ms), at, catalog));
            }
            step => step?,
        };
        let goes = Goes { is_request: false, close: touch.close, binding: touch.binding };
        self.go_on(user, &step, session, ran_ms, goes)
    }

    /// Charges what a session ran, and lets it go on, or ends it.
    pub(super) fn go_on(
        &mut self,
        mut user: Option<&mut User>,
        step: &Step<'_>,
        mut session: Session,
        ran_ms: i64,
        goes: Goes,
    ) -> Result<Outcome, OpError> {
        let ran = Ran { from: step.at.plus_ms(-ran_ms), ran_ms, windows: &step.windows };
        let took = self.took(user.as_deref(), step, &session, &ran);
        session.accrued_ms = session.accrued_ms.saturating_add(took.charged_ms());
        session.overage_ms += took.overage_ms;
        let more_ms = took.charged_ms() - ran_ms.min(session.held_ms);

        let mut entry = self.entry(Cause::Session, user.as_deref(), step.at, step.catalog);
        entry.dimensions = session.dimensions.clone();
        if self.crowds_leases(&session.meter, more_ms, step.at, step.catalog) {
            self.end_leases(&mut entry);
        }
        for effect in self.time_effects(&session.meter, &ran, took.charged_ms()) {
            self.check_range(user.as_deref(), &effect, &step.windows)?;
            entry.effects.push(effect);
        }
        self.draw(&mut entry, step.catalog);
        (session.touched_at, session.held_ms, session.windows) = (step.at, 0, step.windows);
        entry.effects.push(Effect::Session(Box::new(session.clone())));
        self.fold(user.as_deref_mut(), &entry);

        // What comes after is decided on what is charged now. How the session stands then is written once, as it is left.
        entry.effects.pop();
        let charged = std::mem::take(&mut entry.effects);
        let ends_at = ran.from.plus_ms(took.charged_ms());
        let is_cut = took.charged_ms() < ran_ms;
        let next = self.next(user.as_deref(), step, session, &mut entry, (ends_at, is_cut), &goes);
        self.fold(user.as_deref_mut(), &entry);
        entry.effects.splice(0..0, charged);
        let (next, mut noted) = self.note_refusal(user.as_deref_mut(), step, next);
        entry.effects.append(&mut noted);
        // What is begun is bound if it is not refused; of touches, the last.
        let binds = if goes.is_request { !next.is_refused } else { next.ended.is_some() };
        entry.binding = goes.binding.filter(|_| binds);
        let mut outcome = self.stands(user.as_deref(), step, next);
        outcome.entry = Some(entry);
        Ok(outcome)
    }

    /// What becomes of a session whose time is charged.
    fn next(
        &mut self,
        user: Option<&User>,
        step: &Step<'_>,
        mut session: Session,
        rest: &mut Entry,
        (ends_at, is_cut): (Instant, bool),
        goes: &Goes,
    ) -> Next {
        let asked = [Asked { meter: step.meter, amount: 1 }];
        let used = SessionUse { used_ms: session.accrued_ms, held_ms: 0, is_open: true };
        let Judged { mut decision, mut ends_leases } = step.judge(self, user, &asked, used);
        let mut next = Next {
            session: session.clone(),
            was_open: true,
            ended: None,
            denial: None,
            is_refused: false,
            decision: None,
        };
        if let Some(reason) = goes.close {
            (decision.denial, decision.shadow, decision.allowed) = (None, None, true);
            let reason = if is_cut { CloseReason::Limit } else { reason };
            next.ended = Some(end_of(&session, ends_at, reason));
        } else if decision.denial.is_some() {
            let finishes = step.finish_left(&session) > 0 && !is_suspended(&decision);
            session.is_finishing = finishes;
            next.is_refused = !finishes || goes.is_request;
            next.ended = (!finishes).then(|| end_of(&session, ends_at, CloseReason::Limit));
        } else {
            session.is_finishing = false;
            session.held_ms = step.slice(self, &decision.limits);
            if decision.limits.iter().any(|state| state.set_aside > 0) {
                let mut all = decision.limits.clone();
                all.iter_mut().for_each(|state| state.set_aside = 0);
                ends_leases |= step.slice(self, &all) > session.held_ms;
                session.held_ms = step.slice(self, &all);
            }
        }
        if ends_leases {
            self.end_leases(rest);
        }
        rest.effects.push(match &next.ended {
            Some(ended) => Effect::SessionClosed(Box::new(ended.clone())),
            None => Effect::Session(Box::new(session.clone())),
        });
        (next.session, next.decision) = (session, Some(decision));
        next
    }

    /// Counts a refusal; what is to be written of it, and is folded already, goes into the entry of the session.
    fn note_refusal(&mut self, user: Option<&mut User>, step: &Step<'_>, mut next: Next) -> (Next, Vec<Effect>) {
        let Some(mut decision) = next.decision.take() else { return (next, Vec::new()) };
        let demand = [step.demand()];
        self.name_demand(&mut decision, &demand[0], step);
        let mut effects = Vec::new();
        if let Some(denial) = decision.denial.clone().filter(|_| next.is_refused) {
            next.denial = Some(if user.is_some() && self.pending.runs.len() >= RUNS_MAX {
                // It would be noted without its user, and the entry names one.
                let (key, counted) = self.denial_to_count(None, &decision, &denial, &demand);
                self.pending.merge(counted);
                key
            } else {
                let (key, noted) = self.note_denial(user, &decision, &denial, &demand, false, step.catalog);
                effects.extend(noted.into_iter().flat_map(|entry| entry.effects));
                key
            });
        }
        next.decision = Some(decision);
        (next, effects)
    }

    /// How a session stands now, and what is answered.
    pub(super) fn stands(&self, user: Option<&User>, step: &Step<'_>, next: Next) -> Outcome {
        let Next { session, was_open, ended, denial, is_refused, decision } = next;
        let mut limits = Vec::new();
        let used = SessionUse { used_ms: session.accrued_ms, held_ms: session.held_ms, is_open: false };
        let now = (&step.windows, step.at);
        self.push_session_limits(&mut limits, user, &step.plan, &session.meter, now, used);
        let (may_run_ms, limited_by) = match ended {
            Some(_) => (Some(0), None),
            None => step.may_run(&session, &limits),
        };
        let decision = decision.map(|decision| {
            let denial = decision.denial.filter(|_| is_refused).map(|denial| {
                let place = denial.limit.and_then(|place| decision.limits.get(place)).map(|state| state.name.clone());
                let limit = place.and_then(|name| limits.iter().position(|state| state.name == name));
                Box::new(Denial { limit, ..*denial })
            });
            Decision { allowed: denial.is_none(), denial, limits, charged: true, ..decision }
        });
        let state = SessionState { session, ended, was_open, may_run_ms, limited_by };
        Outcome { decision, denial, session: Some(Box::new(state)), ..Outcome::default() }
    }

    /// worth to try again when another may have ended, or when this one has: then it is a new one.
    pub(super) fn name_demand(&self, decision: &mut Decision, demand: &Charge, step: &Step<'_>) {
        let limits = &decision.limits;
        for denial in [&mut decision.denial, &mut decision.shadow].into_iter().flatten() {
            let window = denial.limit.map(|place| limits[place].window);
            if denial.meter.as_ref() == Some(&demand.meter) && window != Some(LimitWindow::Concurrent) {
                denial.amount = demand.amount;
            }
            let again = match window {
                Some(LimitWindow::Concurrent) => self.in_flight.lapses_next(),
                Some(LimitWindow::Session) => Some(step.at.plus_ms(step.meter.session.idle_timeout_ms)),
                _ => None,
            };
            denial.retry_at = denial.retry_at.or(again).filter(|_| denial.waiting_helps);
        }
    }
}

/// How a session is to go on.
pub(super) struct Goes {
    /// Whether something new is begun in it, which is refused where what runs may only finish.
    pub(super) is_request: bool,
    pub(super) close: Option<CloseReason>,
    pub(super) binding: Option<Binding>,
}

/// What becomes of a session.
pub(super) struct Next {
    pub(super) session: Session,
    pub(super) was_open: bool,
    pub(super) ended: Option<SessionEnd>,
    pub(super) denial: Option<DenialKey>,
    pub(super) is_refused: bool,
    pub(super) decision: Option<Decision>,
}

fn is_suspended(decision: &Decision) -> bool {
    decision.code() == Code::TenantSuspended
}
