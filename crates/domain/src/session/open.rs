//! A session is opened, or goes on under the name it has.

use super::{
    OpenSession, Session,
    end::ran_ms,
    judge::Step,
    step::{Goes, Next},
};
use crate::{
    ask::{Asked, Judged},
    catalog::Catalog,
    entry::{Cause, Effect, KindSet},
    in_flight::IN_FLIGHT_MAX,
    limits::SessionUse,
    op::{OpError, Outcome},
    tenant::{Tenant, User},
    time::Instant,
};

impl Tenant {
    pub(super) fn open_session(
        &mut self,
        mut user: Option<&mut User>,
        open: &OpenSession,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let step = self.step(&open.meter, open.enforce, now, catalog)?;
        let whose = user.as_deref().map(|user| user.id.clone());
        let known = self.in_flight.session_named(&open.meter, whose.as_ref(), &open.key).cloned();
        let Some(session) = known else { return self.begin(user, &step, open) };
        let ran_ms = ran_ms(&session, open.ran_ms, step.at);
        if ran_ms < session.idle_timeout_ms {
            if let Some(refused) = self.refuse_beside(user.as_deref_mut(), &step, &session) {
                return Ok(refused);
            }
            let goes = Goes { is_request: true, close: None, binding: open.binding };
            return self.go_on(user, &step, session, ran_ms, goes);
        }
        // It ended when it was touched last; this is another stretch.
        let mut ended = self.end_idle(user.as_deref_mut(), &session, step.at, catalog);
        let mut outcome = self.begin(user, &step, open)?;
        let effects = outcome.entry.take().map(|entry| (entry.binding, entry.dimensions, entry.effects));
        if let Some((binding, dimensions, effects)) = effects {
            (ended.binding, ended.dimensions) = (binding, dimensions);
            ended.effects.extend(effects);
        }
        Ok(Outcome { entry: Some(ended), ..outcome })
    }

    /// Refuses to begin anything in a session that may only finish what runs in it, if that is so still. It charges
    /// nothing: what runs is charged when it is touched, and if nothing does, nothing is.
    fn refuse_beside(&mut self, user: Option<&mut User>, step: &Step<'_>, session: &Session) -> Option<Outcome> {
        if !session.is_finishing {
            return None;
        }
        let asked = [Asked { meter: step.meter, amount: 1 }];
        let used = SessionUse { used_ms: session.accrued_ms, held_ms: session.held_ms, is_open: true };
        let Judged { mut decision, .. } = step.judge(self, user.as_deref(), &asked, used);
        let demand = [step.demand()];
        self.name_demand(&mut decision, &demand[0], step);
        let denial = decision.denial.clone()?;
        let mut user = user;
        let (key, entry) = self.note_denial(user.as_deref_mut(), &decision, &denial, &demand, false, step.catalog);
        let (session, decision) = (session.clone(), Some(decision));
        let next = Next { session, was_open: true, ended: None, denial: Some(key), is_refused: true, decision };
        let mut outcome = self.stands(user.as_deref(), step, next);
        outcome.decision.iter_mut().for_each(|decision| decision.charged = false);
        Some(Outcome { entry, ..outcome })
    }

    /// Opens a session that is not open.
    fn begin(&mut self, mut user: Option<&mut User>, step: &Step<'_>, open: &OpenSession) -> Result<Outcome, OpError> {
        if self.in_flight.sessions_count() >= IN_FLIGHT_MAX {
            return Err(OpError::TooManyInFlight(IN_FLIGHT_MAX));
        }
        let counted_by = step.meter.session.counted_by.as_ref().and_then(|key| step.catalog.meters.get(key));
        let mut asked = vec![Asked { meter: step.meter, amount: 1 }];
        asked.extend(counted_by.map(|meter| Asked { meter, amount: 1 }));
        let Judged { mut decision, mut ends_leases } = step.judge(self, user.as_deref(), &asked, SessionUse::default());
        let mut slice = step.slice(self, &decision.limits);
        if decision.limits.iter().any(|state| state.set_aside > 0) {
            let before = slice;
            let mut all = decision.limits.clone();
            all.iter_mut().for_each(|state| state.set_aside = 0);
            slice = step.slice(self, &all);
            // Nobody gets less for what is only set aside.
            ends_leases |= slice > before;
        }
        let demand = [step.demand()];
        self.name_demand(&mut decision, &demand[0], step);
        if let Some(denial) = decision.denial.clone() {
            let (key, entry) = self.note_denial(user, &decision, &denial, &demand, false, step.catalog);
            return Ok(Outcome { decision: Some(decision), entry, denial: Some(key), ..Outcome::default() });
        }
        let shadowed = decision
            .shadow
            .clone()
            .map(|shadow| self.note_denial(user.as_deref_mut(), &decision, &shadow, &demand, true, step.catalog));
        let mut entry = self.entry(Cause::Session, user.as_deref(), step.at, step.catalog);
        entry.binding = open.binding;
        entry.dimensions = open.dimensions.clone();
        if ends_leases {
            self.end_leases(&mut entry);
        }
        if let Some(meter) = counted_by {
            let (meter, closed) = (meter.key.clone(), Vec::new());
            entry.effects.push(Effect::Use { meter, amount: 1, open: KindSet::ALL, closed });
        }
        let session = Session {
            id: open.id,
            key: open.key.clone(),
            meter: step.meter.key.clone(),
            user: user.as_deref().map(|user| user.id.clone()),
            opened_at: step.at,
            touched_at: step.at,
            idle_timeout_ms: step.meter.session.idle_timeout_ms,
            accrued_ms: 0,
            overage_ms: 0,
            held_ms: slice,
            windows: step.windows,
            is_finishing: false,
            dimensions: open.dimensions.clone(),
        };
        self.draw(&mut entry, step.catalog);
        entry.effects.push(Effect::Session(Box::new(session.clone())));
        self.fold(user.as_deref_mut(), &entry);
        let (key, noted) = shadowed.map_or((None, None), |(key, noted)| (Some(key), noted));
        let decision = Some(decision);
        let next = Next { session, was_open: false, ended: None, denial: None, is_refused: false, decision };
        let mut outcome = self.stands(user.as_deref(), step, next);
        if let Some(noted) = noted {
            entry.effects.splice(0..0, noted.effects);
        }
        outcome.denial = key;
        Ok(Outcome { entry: Some(entry), ..outcome })
    }
}
