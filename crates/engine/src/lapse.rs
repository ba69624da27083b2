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
    id::{TenantId, UserId},
    in_flight::Lapse,
    op::Op,
    time::Instant,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// How many tenants are looked at in one round.
const TENANTS_AT_ONCE: usize = 1_024;
/// How many lapses of one tenant are written down at a time.
const LAPSES_AT_ONCE: usize = 256;

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
        let mut failed = Ok(());
        for tenant in self.lapses.take_due(now) {
            match self.lapse_tenant(&tenant).await {
                Ok(()) | Err(EngineError::UnknownTenant(_)) => {}
                Err(error) => {
                    self.lapses.note_again(now, tenant);
                    failed = Err(error);
                }
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
            let due: Vec<_> = in_flight.lapsed(at).take(LAPSES_AT_ONCE).map(|lapse| (lapse, user_of(&lapse))).collect();
            open.engine.lapses.note(&open.cell.id, open.book);
            Ok(due)
        };
        let due = self.with_tenant(Whom::known(tenant, &[]).look(Look::Memory).under_lease(), due).await?;
        for (lapse, user) in due {
            let users: Vec<UserId> = user.iter().cloned().collect();
            let work = |open: &mut Open<'_>| Ok(((), open.lapse(user.as_ref(), lapse)?));
            // Nobody waits for it: it is written with what comes next.
            let (_, commit) = self.commit_with(Whom::known(tenant, &users), work).await?;
            drop(commit);
        }
        Ok(())
    }
}

impl Open<'_> {
    /// Writes down that something has lapsed, if it has and that is not written down.
    pub(crate) fn lapse(&mut self, user: Option<&UserId>, lapse: Lapse) -> Result<Commit, EngineError> {
        self.engine.ledger.ready()?;
        if self.is_served(lapse) {
            return Ok(self.settled());
        }
        let outcome = self.apply(user, &Op::Lapse(lapse))?;
        let Some(mut entry) = outcome.entry else { return Ok(self.settled()) };
        if let Lapse::Session(id) = lapse {
            entry.binding = Some(self.engine.ids.of_session_end(&self.cell.id, id));
        }
        Ok(self.append(vec![entry], false, true)?.commit)
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
