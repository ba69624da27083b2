//! Sessions: opened, touched, closed.

use crate::{
    engine::Engine,
    ids::denial_id,
    open::{Look, Open, TRIES_MAX, Whom},
    ports::{Commit, DenialId, LedgerError},
    repeat::{Once, is_in_vain},
    requests::{EngineError, OpId},
    tries::until_done,
};
use domain::{
    catalog::Enforce,
    decision::Decision,
    demand::PendingDenials,
    entry::{Binding, Effect},
    id::{MeterKey, TenantId, UserId},
    op::{Charge, Dimensions, Op, OpError, Outcome},
    session::{CloseReason, OpenSession, Session, SessionEnd, SessionId, SessionOp, SessionState, TouchSession},
};
use std::sync::Arc;

/// A session that is to be opened, or goes on if it is open.
#[derive(Debug, Clone)]
pub struct SessionAsk {
    /// Whose.
    pub tenant: TenantId,
    /// The user, if one is named.
    pub user: Option<UserId>,
    /// The meter of time.
    pub meter: MeterKey,
    /// What the caller calls it; `None` is a session of its own.
    pub key: Option<Arc<str>>,
    /// The idempotency key.
    pub id: Option<OpId>,
    /// A number that nobody has drawn before: the name of the session if it is opened without an id.
    pub fresh: u128,
    /// Whether this door refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
    /// Declared dimensions.
    pub dimensions: Dimensions,
}

/// A session that goes on, or ends.
#[derive(Debug, Clone, Copy)]
pub struct SessionTouch {
    /// Which.
    pub id: SessionId,
    /// Why it ends, if it does.
    pub close: Option<CloseReason>,
    /// Whether this door refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
}

/// What became of a session.
#[derive(Debug)]
pub enum Touched {
    /// It was touched, or closed, now.
    Now(Box<SessionAnswer>),
    /// It had ended before.
    Before(SessionEnd),
}

/// How a session stands.
#[derive(Debug)]
pub struct SessionAnswer {
    /// Whose.
    pub tenant: TenantId,
    /// What was decided. `None` where it ended because nobody had touched it.
    pub decision: Option<Decision>,
    /// The session; `None` where none was opened.
    pub state: Option<Box<SessionState>>,
    /// The denial's id, for a refusal.
    pub denial_id: Option<DenialId>,
    /// Whether this repeats an operation that was accepted before.
    pub repeated: bool,
    /// The version of the catalog that the tenant is pinned to.
    pub catalog_pin: Option<u32>,
    /// Resolves when the answer may go out.
    pub commit: Commit,
}

impl Engine {
    /// Opens a session, or touches the one that is open under this name. On an embedded ledger it returns before the
    /// commit.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing has changed.
    pub async fn open_session(&self, ask: &SessionAsk) -> Result<SessionAnswer, EngineError> {
        let binding = ask.id.as_ref().map(|id| self.ids.of_session(ask, id));
        let id = SessionId(binding.map_or(ask.fresh, |binding| binding.id));
        let key = ask.key.clone().unwrap_or_else(|| format!("{:032x}", id.0).into());
        let (meter, enforce, dimensions) = (ask.meter.clone(), ask.enforce, ask.dimensions.clone());
        let asked = OpenSession { id, key: key.clone(), meter, enforce, dimensions, ran_ms: None, binding };
        let users: Vec<UserId> = ask.user.iter().cloned().collect();
        let whom = Whom::new(&ask.tenant, &users);
        let work = |open: &mut Open<'_>| {
            let known = open.book.tenant.in_flight.session_named(&ask.meter, ask.user.as_ref(), &key);
            let ran_ms = known.and_then(|session| open.ran_ms(session));
            let asked = OpenSession { ran_ms, ..asked.clone() };
            let replaced = open.end_idle_named(ask.user.as_ref(), &asked)?;
            let (made, commit) = open.do_session(ask.user.as_ref(), &ask.meter, SessionOp::Open(asked))?;
            Ok((MadeSession { replaced, ..made }, commit))
        };
        // Also what would go on may be a repeat: another node may have opened it, or another, under this id.
        match self.once(whom, binding, work, |_| Ok(true)).await? {
            Once::Done(made, commit) => Ok(self.answer(&ask.tenant, made, commit)),
            Once::Repeat => self.repeat_open(ask, id).await,
        }
    }

    /// A session that was opened, or touched by being opened again, under the same id: as it stands now, or as it ended.
    async fn repeat_open(&self, ask: &SessionAsk, id: SessionId) -> Result<SessionAnswer, EngineError> {
        let bound = |effect| match effect {
            Effect::Session(session) => Some(*session),
            _ => None,
        };
        let bound = self.effects_bound_to(&ask.tenant, id.0).await?.into_iter().flatten().find_map(bound);
        let Some(bound) = bound else { return Err(OpError::UnknownSession.into()) };
        let users: Vec<UserId> = ask.user.iter().cloned().collect();
        // It may have been opened on another node a moment ago.
        let whom = Whom::known(&ask.tenant, &users).look(Look::Now).under_lease();
        let mut ended = None;
        for _ in 0..TRIES_MAX {
            let look = |open: &mut Open<'_>| {
                let tenant = &open.book.tenant;
                let in_flight = tenant.in_flight.session(bound.id);
                if in_flight.is_none() && ended.is_none() {
                    return Ok(None);
                }
                let ended = ended.clone().filter(|_| in_flight.is_none());
                let user = ask.user.as_ref().and_then(|user| open.book.users.get(user)).map(|live| &live.user);
                let outcome = tenant.session_now(user, in_flight.unwrap_or(&bound), ended, open.now, open.catalog);
                Ok(Some((outcome, open.catalog_pin())))
            };
            if let Some((outcome, catalog_pin)) = self.look_at(whom, look).await? {
                let made = MadeSession { outcome, counted: None, catalog_pin, marked_ms: None, replaced: None };
                return Ok(SessionAnswer { repeated: true, ..self.answer(&ask.tenant, made, Commit::Done) });
            }
            ended = match self.ended(&ask.tenant, self.ids.of_session_end(&ask.tenant, bound.id)).await {
                Err(error) if is_in_vain(&error) => continue,
                ended => Some(ended?.ok_or(OpError::UnknownSession)?),
            };
        }
        Err(LedgerError::Overloaded { waiting: 0 }.into())
    }

    /// Lets a session go on, or ends it. On an embedded ledger it returns before the commit.
    ///
    /// # Errors
    /// [`OpError::UnknownSession`] where there is none and was none; other [`EngineError`]s. Then nothing has changed.
    pub async fn touch_session(&self, tenant: &TenantId, touch: SessionTouch) -> Result<Touched, EngineError> {
        let once = || async move {
            match self.touch_once(tenant, touch).await {
                // It seemed to have ended, by what was decided here in vain: it goes on.
                Err(error) if is_in_vain(&error) => Ok(None),
                touched => touched.map(Some),
            }
        };
        until_done(once).await
    }

    /// In vain ([`is_in_vain`]) where it seemed to have ended, and that was not committed.
    async fn touch_once(&self, tenant: &TenantId, touch: SessionTouch) -> Result<Touched, EngineError> {
        let SessionTouch { id, close, enforce } = touch;
        let binding = self.ids.of_session_end(tenant, id);
        for look in [Look::Memory, Look::Now] {
            let Some(session) = self.session_at(tenant, id, look).await? else {
                if self.ledger.shared().is_none() {
                    break;
                }
                continue;
            };
            let users: Vec<UserId> = session.user.iter().cloned().collect();
            let work = |open: &mut Open<'_>| {
                let known = open.book.tenant.in_flight.session(id);
                let ran_ms = known.and_then(|session| open.ran_ms(session));
                let op = TouchSession { id, ran_ms, close, enforce, binding: Some(binding) };
                open.do_session(session.user.as_ref(), &session.meter, SessionOp::Touch(op))
            };
            match self.commit_with(Whom::known(tenant, &users), work).await {
                Ok((made, commit)) => return Ok(Touched::Now(Box::new(self.answer(tenant, made, commit)))),
                // It has ended since.
                Err(EngineError::Op(OpError::UnknownSession)) => {}
                Err(error) => return Err(error),
            }
        }
        match self.ended(tenant, binding).await? {
            Some(end) => Ok(Touched::Before(end)),
            None => Err(OpError::UnknownSession.into()),
        }
    }

    /// The sessions of a tenant that are open now.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn sessions(&self, tenant: &TenantId) -> Result<Vec<Session>, EngineError> {
        let whom = Whom::known(tenant, &[]).look(Look::Now);
        let open_now = |open: &mut Open<'_>| {
            let at = open.book.tenant.instant(open.now);
            let sessions = open.book.tenant.in_flight.sessions();
            Ok(sessions.filter(|session| session.idle_at() > at).cloned().collect())
        };
        self.look_at(whom, open_now).await
    }

    async fn session_at(&self, tenant: &TenantId, id: SessionId, look: Look) -> Result<Option<Session>, EngineError> {
        let whom = Whom::known(tenant, &[]).look(look).under_lease();
        self.with_tenant(whom, |open| Ok(open.book.tenant.in_flight.session(id).cloned())).await
    }

    /// How a session ended, as it was written down. In vain ([`is_in_vain`]) where it seems so, and was not committed.
    async fn ended(&self, tenant: &TenantId, binding: Binding) -> Result<Option<SessionEnd>, EngineError> {
        let ended = |effect| match effect {
            Effect::SessionClosed(end) => Some(*end),
            _ => None,
        };
        Ok(self.effects_known(tenant, binding.id).await?.into_iter().flatten().find_map(ended))
    }

    fn answer(&self, tenant: &TenantId, made: MadeSession, commit: Commit) -> SessionAnswer {
        let MadeSession { outcome, counted, catalog_pin, marked_ms, replaced } = made;
        replaced.into_iter().for_each(|id| self.marks.ended(id));
        if let (Some(state), Some(marked_ms)) = (&outcome.session, marked_ms) {
            // Not before it counts: what was decided in vain is no touch.
            match &state.ended {
                Some(end) => self.marks.ended(end.id),
                None => self.marks.touched(tenant, &state.session, marked_ms),
            }
        }
        if let Some(counted) = counted {
            self.count(tenant, counted);
        }
        SessionAnswer {
            tenant: tenant.clone(),
            denial_id: outcome.denial.map(|key| denial_id(tenant, &key)),
            decision: outcome.decision,
            state: outcome.session,
            repeated: false,
            catalog_pin,
            commit,
        }
    }
}

/// What was decided about a session.
struct MadeSession {
    outcome: Outcome,
    /// A denial that is still to be counted.
    counted: Option<PendingDenials>,
    catalog_pin: Option<u32>,
    /// When it was touched or ended, by the clock that does not jump; `None` where it was not, and only looked at.
    marked_ms: Option<i64>,
    /// The session under its name that had ended before.
    replaced: Option<SessionId>,
}

impl Open<'_> {
    fn do_session(
        &mut self,
        user: Option<&UserId>,
        meter: &MeterKey,
        op: SessionOp,
    ) -> Result<(MadeSession, Commit), EngineError> {
        self.engine.ledger.ready()?;
        let demand = demand_of(self, meter);
        let mut outcome = self.apply(user, &Op::Session(op))?;
        let counted = match (self.engine.ledger.shared(), &outcome.decision, &outcome.denial) {
            (Some(_), Some(decision), Some(key)) => self.book.tenant.take_out_denial(decision, key, &demand),
            _ => None,
        };
        if outcome.denial.is_some() && counted.is_none() {
            self.engine.live.list_demanding(self.cell, self.book);
        }
        let is_marked = outcome.entry.iter().flat_map(|entry| &entry.effects).any(is_of_session);
        let marked_ms = is_marked.then(|| self.engine.steady_ms());
        let commit = match outcome.entry.take() {
            Some(mut entry) => {
                let ended = outcome.session.as_ref().and_then(|state| state.ended.as_ref());
                if let Some(ended) = ended {
                    entry.binding = Some(self.engine.ids.of_session_end(&self.cell.id, ended.id));
                }
                self.append(vec![entry], false, true)?.commit
            }
            None if !self.is_recent => {
                self.distrust();
                return Err(LedgerError::Stale.into());
            }
            None => self.settled(),
        };
        let catalog_pin = self.catalog_pin();
        Ok((MadeSession { outcome, counted, catalog_pin, marked_ms, replaced: None }, commit))
    }

    /// How long a session ran since it was touched, if that was done here.
    pub(crate) fn ran_ms(&self, session: &Session) -> Option<i64> {
        self.engine.marks.ran_ms(session, self.engine.steady_ms())
    }

    /// Writes down the end of a session that nobody touched in time, before another stretch begins under its name: in an
    /// entry of its own, which its end is bound to, as one that lapsed otherwise. Gives which.
    fn end_idle_named(&mut self, user: Option<&UserId>, open: &OpenSession) -> Result<Option<SessionId>, EngineError> {
        let tenant = &self.book.tenant;
        let Some(known) = tenant.in_flight.session_named(&open.meter, user, &open.key) else { return Ok(None) };
        let ran_ms = open.ran_ms.unwrap_or(tenant.instant(self.now).ms() - known.touched_at.ms());
        if ran_ms < known.idle_timeout_ms {
            return Ok(None);
        }
        let id = known.id;
        drop(self.end_idle(user, id, ran_ms)?);
        Ok(Some(id))
    }
}

fn is_of_session(effect: &Effect) -> bool {
    matches!(effect, Effect::Session(_) | Effect::SessionClosed(_))
}

/// What a session that is refused is counted to have asked for.
fn demand_of(open: &Open<'_>, meter: &MeterKey) -> [Charge; 1] {
    let amount = open.catalog.meters.get(meter).map_or(0, |meter| meter.session.debit_interval_ms);
    [Charge { meter: meter.clone(), amount }]
}
