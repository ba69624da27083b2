//! What ends by itself: holds that nobody settled, sessions that nobody touched. They count no more from the instant on
//! at which they lapse; here that is written down.

use crate::{
    engine::Engine,
    live::Book,
    open::{Look, Open, Whom},
    ports::Commit,
    requests::EngineError,
};
use domain::{
    entry::Entry,
    id::{TenantId, UserId},
    in_flight::Lapse,
    op::Op,
    session::{SessionId, SessionOp, TouchSession},
    time::Instant,
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicI64, Ordering},
};

/// How many tenants are looked at in one round.
const TENANTS_AT_ONCE: usize = 1_024;
/// How many lapses of one tenant are written down at a time.
const LAPSES_AT_ONCE: usize = 256;

/// How many tenants' lapses wait for their commits at once.
const COMMITS_AT_ONCE: usize = 64;
/// A wall clock that falls back by less, against the one that does not jump, only runs unevenly, milliseconds.
const SET_BACK_MIN_MS: i64 = 1_000;

/// Until when instants that were seen before the wall clock was set back lie ahead of it.
pub(crate) struct SetBack {
    /// What the wall clock showed more than the one that does not jump, at the last look.
    offset_ms: AtomicI64,
    until_ms: AtomicI64,
}

impl Default for SetBack {
    fn default() -> Self {
        Self { offset_ms: AtomicI64::new(i64::MIN), until_ms: AtomicI64::new(i64::MIN) }
    }
}

impl SetBack {
    /// Whether the wall clock was set back, and has not come to where it was before.
    fn is_so(&self, now: Instant, steady_ms: i64) -> bool {
        let offset_ms = now.ms().saturating_sub(steady_ms);
        let fell_ms = self.offset_ms.swap(offset_ms, Ordering::Relaxed).saturating_sub(offset_ms);
        if fell_ms >= SET_BACK_MIN_MS {
            self.until_ms.fetch_max(now.ms().saturating_add(fell_ms), Ordering::Relaxed);
        }
        now.ms() < self.until_ms.load(Ordering::Relaxed)
    }
}

/// When something of the tenants in memory lapses next.
#[derive(Default)]
pub(crate) struct Lapses(Mutex<Noted>);

/// At most one instant for each tenant.
#[derive(Default)]
struct Noted {
    of: FxHashMap<TenantId, Instant>,
    in_order: BTreeSet<(Instant, TenantId)>,
}

impl Noted {
    fn note(&mut self, when: Instant, tenant: TenantId) {
        match self.of.get(&tenant) {
            // It is looked at then, and noted again.
            Some(known) if *known <= when => return,
            Some(known) => self.in_order.remove(&(*known, tenant.clone())),
            None => false,
        };
        self.of.insert(tenant.clone(), when);
        self.in_order.insert((when, tenant));
    }
}

impl Lapses {
    /// Notes when something of this tenant lapses next.
    pub(crate) fn note(&self, tenant: &TenantId, book: &Book) {
        if let Some(next) = book.tenant.in_flight.lapses_next() {
            self.0.lock().note(next, tenant.clone());
        }
    }

    fn take_due(&self, now: Instant) -> BTreeSet<TenantId> {
        let mut noted = self.0.lock();
        let mut due = BTreeSet::new();
        while due.len() < TENANTS_AT_ONCE
            && let Some((when, tenant)) = noted.in_order.pop_first()
        {
            if when > now {
                noted.in_order.insert((when, tenant));
                break;
            }
            noted.of.remove(&tenant);
            due.insert(tenant);
        }
        due
    }

    fn note_again(&self, now: Instant, tenant: TenantId) {
        self.0.lock().note(now, tenant);
    }
}

impl Engine {
    /// Writes down what has lapsed of the tenants in memory.
    ///
    /// # Errors
    /// What is wrong with the ledger; the next call tries again.
    pub(crate) async fn write_lapses(&self) -> Result<(), EngineError> {
        let now = self.now();
        let due = self.lapses.take_due(now);
        // Many wait for the same commit.
        let lapses = due.into_iter().map(|tenant| async move { (self.lapse_tenant(&tenant).await, tenant) });
        let mut lapsed = stream::iter(lapses).buffer_unordered(COMMITS_AT_ONCE);
        let mut failed = Ok(());
        while let Some((done, tenant)) = lapsed.next().await {
            match done {
                Ok(()) | Err(EngineError::UnknownTenant(_)) => {}
                Err(error) => {
                    self.lapses.note_again(now, tenant);
                    failed = Err(error);
                }
            }
        }
        drop(lapsed);
        match self.rounds.set_back.is_so(now, self.steady_ms()) {
            true => failed.and(self.end_overdue().await),
            false => failed,
        }
    }

    /// Ends the sessions that nobody touched in time, by the clock that does not jump: by the other one, which was set back,
    /// they would keep their places for as long as it was.
    ///
    /// One that can't be ended is in nobody's way.
    async fn end_overdue(&self) -> Result<(), EngineError> {
        let mut failed = Ok(());
        for (tenant, id) in self.marks.overdue(self.steady_ms(), TENANTS_AT_ONCE) {
            let whom = Whom::known(&tenant, &[]).look(Look::Memory).under_lease();
            let user = |open: &mut Open<'_>| Ok(open.book.tenant.in_flight.session(id).map(|known| known.user.clone()));
            let user = match self.with_tenant(whom, user).await {
                Ok(Some(user)) => user,
                Ok(None) | Err(EngineError::UnknownTenant(_)) => {
                    self.marks.ended(id);
                    continue;
                }
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            let users: Vec<UserId> = user.into_iter().collect();
            let work = |open: &mut Open<'_>| open.end_overdue(users.first(), id);
            match self.commit_with(Whom::known(&tenant, &users), work).await {
                // Not before it counts.
                Ok((true, _)) => self.marks.ended(id),
                Ok((false, _)) => {}
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn lapse_tenant(&self, tenant: &TenantId) -> Result<(), EngineError> {
        let due = |open: &mut Open<'_>| {
            let at = open.book.tenant.instant(open.now);
            let in_flight = &open.book.tenant.in_flight;
            let user_of = |lapse: &Lapse| match lapse {
                Lapse::Hold(id) => in_flight.hold(*id).and_then(|hold| hold.user.clone()),
                Lapse::Session(id) => in_flight.session(*id).and_then(|session| session.user.clone()),
            };
            let lapsed = in_flight.lapsed(at).filter(|lapse| !open.is_served(*lapse)).take(LAPSES_AT_ONCE);
            let due: Vec<_> = lapsed.map(|lapse| (lapse, user_of(&lapse))).collect();
            open.engine.lapses.note(&open.cell.id, open.book);
            Ok(due)
        };
        let due = self.with_tenant(Whom::known(tenant, &[]).look(Look::Memory).under_lease(), due).await?;
        if due.is_empty() {
            return Ok(());
        }
        let users: BTreeSet<UserId> = due.iter().filter_map(|(_, user)| user.clone()).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let work = |open: &mut Open<'_>| Ok(((), open.lapse_all(&due)?));
        // Nobody waits for it: it is written with what comes next.
        drop(self.commit_with(Whom::known(tenant, &users), work).await?);
        Ok(())
    }
}

impl Open<'_> {
    /// Writes down what has lapsed, where it has and that is not written down.
    fn lapse_all(&mut self, due: &[(Lapse, Option<UserId>)]) -> Result<Commit, EngineError> {
        self.engine.ledger.ready()?;
        let mut entries = Vec::with_capacity(due.len());
        for (lapse, user) in due {
            if self.is_served(*lapse) {
                continue;
            }
            // What is folded already must be appended, whatever becomes of one; that one is tried again.
            let Ok(outcome) = self.apply(user.as_ref(), &Op::Lapse(*lapse)) else { continue };
            let Some(mut entry) = outcome.entry else { continue };
            if let Lapse::Session(id) = *lapse {
                entry.binding = Some(self.engine.ids.of_session_end(&self.cell.id, id));
                self.engine.marks.ended(id);
            }
            entries.push(entry);
        }
        match entries.is_empty() {
            true => Ok(self.settled()),
            false => Ok(self.append(entries, false, true)?.commit),
        }
    }

    /// Ends a session that nobody touched in time by the clock that does not jump, unless somebody just has. Gives whether
    /// it has ended.
    fn end_overdue(&mut self, user: Option<&UserId>, id: SessionId) -> Result<(bool, Commit), EngineError> {
        let session = self.book.tenant.in_flight.session(id);
        let ran_ms = session.and_then(|session| self.ran_ms(session).filter(|ran| *ran >= session.idle_timeout_ms));
        let Some(ran_ms) = ran_ms else {
            return Ok((session.is_none(), self.settled()));
        };
        Ok((true, self.end_idle(user, id, ran_ms)?))
    }

    /// Ends a session that ran so long without a touch that it is idle, whatever the wall clock says.
    pub(crate) fn end_idle(
        &mut self,
        user: Option<&UserId>,
        id: SessionId,
        ran_ms: i64,
    ) -> Result<Commit, EngineError> {
        self.engine.ledger.ready()?;
        let touch = TouchSession { id, ran_ms: Some(ran_ms), close: None, enforce: None, binding: None };
        let outcome = self.apply(user, &Op::Session(SessionOp::Touch(touch)))?;
        let Some(entry) = outcome.entry else { return Ok(self.settled()) };
        let binding = Some(self.engine.ids.of_session_end(&self.cell.id, id));
        Ok(self.append(vec![Entry { binding, ..entry }], false, true)?.commit)
    }

    /// Whether a session was touched here in time, by the clock that does not jump: then it only seems to be idle, and will
    /// be touched again.
    fn is_served(&self, lapse: Lapse) -> bool {
        let Lapse::Session(id) = lapse else { return false };
        let session = self.book.tenant.in_flight.session(id);
        session.is_some_and(|session| self.ran_ms(session).is_some_and(|ran_ms| ran_ms < session.idle_timeout_ms))
    }

    /// Notes when something lapses that was just put in flight.
    pub(crate) fn note_lapses(&self, in_flight: bool) {
        if in_flight {
            self.engine.lapses.note(&self.cell.id, self.book);
        }
    }
}
