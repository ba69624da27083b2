//! What a node knows during an outage, and what it let through.

use super::{OutageStats, pass::Sent};
use crate::{
    live::Book,
    ports::{Basis, Commit, LedgerError, OutageOptions, Seq, Spool, SpoolLine},
};
use domain::{
    catalog::Catalog,
    id::{TenantId, UserId},
    outage::{Outstanding, Passed},
    tenant::{Tenant, User},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A tenant as it was known last, with what passed since.
pub(super) struct Known {
    pub(super) tenant: Tenant,
    pub(super) users: FxHashMap<UserId, User>,
    /// What it was in memory.
    basis: Arc<Basis>,
    seq: Seq,
    /// Whether something passed on it. Until then memory may know better.
    pub(super) is_charged: bool,
}

impl Known {
    /// Whether the charge of an operation that was sent to the ledger is in what is known.
    pub(super) fn holds(&self, sent: &Sent) -> bool {
        sent.queued.as_ref().is_some_and(|(basis, seq)| Arc::ptr_eq(basis, &self.basis) && *seq <= self.seq)
    }
}

/// What passed under an id and is not known to be in the ledger.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) tenant: TenantId,
    pub(super) passed: Passed,
    /// The line that gives it back, if there is one.
    pub(super) given_back: Option<u64>,
    /// Whether it is being recorded.
    pub(super) in_work: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) known: FxHashMap<TenantId, Known>,
    pub(super) outstanding: FxHashMap<TenantId, Outstanding>,
    /// By id.
    pub(super) kept: FxHashMap<u128, Kept>,
}

impl State {
    /// Takes note of a line that is, or is about to be, in the spool.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.outstanding.entry(kept.tenant.clone()).or_default().add(&kept.passed);
        self.kept.insert(kept.passed.binding.id, kept);
    }

    /// Forgets a line that left the spool.
    pub(super) fn forget(&mut self, id: u128) {
        let Some(kept) = self.kept.remove(&id) else { return };
        if let Some(outstanding) = self.outstanding.get_mut(&kept.tenant) {
            outstanding.remove(&kept.passed);
            if *outstanding == Outstanding::default() {
                self.outstanding.remove(&kept.tenant);
            }
        }
    }
}

/// Everything about outages. An engine has one if it has a spool.
pub(crate) struct Desk {
    pub(super) spool: Arc<dyn Spool>,
    pub(super) options: OutageOptions,
    pub(super) state: Mutex<State>,
    /// One reconciliation at a time.
    pub(super) busy: tokio::sync::Mutex<()>,
    under_way: AtomicBool,
    /// How many lines are kept: asked on the way of every request.
    lines: AtomicU64,
    /// Version of the catalog that was looked at last, doubled, and one more if it has open limits.
    looked_at: AtomicU64,
    pub(super) figures: Figures,
}

#[derive(Default)]
pub(super) struct Figures {
    pub(super) passed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) reconciled: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) set_aside: AtomicU64,
}

pub(super) fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

impl Desk {
    /// With what an earlier life of the node left in the spool.
    ///
    /// # Errors
    /// A spool that can't be read.
    pub(crate) fn new(spool: Arc<dyn Spool>, options: OutageOptions) -> Result<Self, LedgerError> {
        let mut state = State::default();
        // Those of a life that was killed between removing a charge and what gives it back.
        let mut widows = Vec::new();
        for (number, line) in spool.lines()? {
            match line {
                SpoolLine::Passed(tenant, passed) => {
                    state.keep(Kept { number, tenant, passed, given_back: None, in_work: false });
                }
                SpoolLine::GivenBack(id) => match state.kept.get_mut(&id) {
                    Some(kept) => kept.given_back = Some(number),
                    None => widows.push(number),
                },
            }
        }
        if !widows.is_empty() {
            drop(spool.settle(widows, Vec::new()));
        }
        let lines = AtomicU64::new(state.kept.len() as u64);
        Ok(Self {
            spool,
            options,
            state: Mutex::new(state),
            busy: tokio::sync::Mutex::new(()),
            under_way: AtomicBool::new(false),
            lines,
            looked_at: AtomicU64::new(u64::MAX),
            figures: Figures::default(),
        })
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }

    /// What is known is charged with what passes from here on. To be called with the state locked.
    pub(super) fn begin(&self) {
        self.under_way.store(true, Ordering::Release);
    }

    /// The ledger is asked again.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        self.under_way.store(false, Ordering::Release);
        state.known.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.load(Ordering::Acquire) == 0
    }

    /// To be called with the state locked, after each change of what is kept.
    pub(super) fn counted(&self, state: &State) {
        self.lines.store(state.kept.len() as u64, Ordering::Release);
    }

    /// Whether a catalog has open limits; looked at once for each version.
    pub(crate) fn has_open(&self, catalog: &Catalog) -> bool {
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        if looked_at >> 1 == u64::from(catalog.version) {
            return looked_at & 1 == 1;
        }
        let any_open = catalog.any_open();
        self.looked_at.store(u64::from(catalog.version) << 1 | u64::from(any_open), Ordering::Relaxed);
        any_open
    }

    /// Takes over what is known of a tenant, and of a user of it.
    pub(super) fn learn(&self, id: &TenantId, user: Option<&UserId>, book: &Book) {
        let mut state = self.state.lock();
        if state.known.get(id).is_some_and(|known| !known.is_charged) {
            // What was learnt for an operation that did not pass is old by now.
            state.known.remove(id);
        }
        let known = state.known.entry(id.clone()).or_insert_with(|| {
            // What is set aside for others does not matter: the allowance bounds what passes.
            let tenant = Tenant { pending: Default::default(), leases: Vec::new(), ..book.tenant.clone() };
            let (basis, seq) = book.decided();
            Known { tenant, users: FxHashMap::default(), basis, seq, is_charged: false }
        });
        if let Some(live) = user.and_then(|user| book.users.get(user))
            && !known.users.contains_key(&live.user.id)
        {
            known.users.insert(live.user.id.clone(), live.user.clone());
        }
    }

    /// Whether nothing more can be learnt from memory.
    pub(super) fn knows(&self, id: &TenantId, user: Option<&UserId>) -> bool {
        let knows_user = |known: &Known| user.is_none_or(|user| known.users.contains_key(user));
        let state = self.state.lock();
        self.is_under_way() && state.known.get(id).is_some_and(|known| known.is_charged && knows_user(known))
    }

    /// Nothing passed of what was learnt of a tenant.
    pub(super) fn unlearn(&self, id: &TenantId) {
        let mut state = self.state.lock();
        if state.known.get(id).is_some_and(|known| !known.is_charged) {
            state.known.remove(id);
        }
    }

    /// Queues a line that passed; the caller waits for it.
    pub(super) fn keep(&self, state: &mut State, tenant: &TenantId, passed: Passed) -> Result<Commit, LedgerError> {
        let (number, commit) = self.spool.append(SpoolLine::Passed(tenant.clone(), passed.clone()))?;
        state.keep(Kept { number, tenant: tenant.clone(), passed, given_back: None, in_work: false });
        self.counted(state);
        Ok(commit)
    }

    /// A line could not be written.
    pub(super) fn failed(&self, id: u128) {
        let mut state = self.state.lock();
        state.forget(id);
        self.counted(&state);
    }

    /// What passed under an id, once it is durable.
    pub(super) async fn kept(&self, id: u128) -> Result<Option<Passed>, LedgerError> {
        let Some(kept) = self.state.lock().kept.get(&id).cloned() else { return Ok(None) };
        if kept.number > self.spool.durable() {
            self.spool.flushed().wait().await?;
        }
        if self.spool.is_lost(kept.number) {
            // Its own caller may be gone.
            self.failed(id);
            return Ok(None);
        }
        Ok(Some(kept.passed))
    }

    /// Queues a line that gives back what passed under an id; `None` if it is in the ledger, or about to be.
    pub(crate) fn give_back(&self, id: u128) -> Option<Result<Commit, LedgerError>> {
        let mut state = self.state.lock();
        let kept = state.kept.get_mut(&id).filter(|kept| !kept.in_work)?;
        Some(self.spool.append(SpoolLine::GivenBack(id)).map(|(number, commit)| {
            kept.given_back = Some(number);
            commit
        }))
    }

    /// What is durable and not in the ledger yet, by tenant, in order: to be recorded now.
    pub(super) fn take_up(&self) -> BTreeMap<TenantId, Vec<Kept>> {
        let mut waiting: BTreeMap<TenantId, Vec<Kept>> = BTreeMap::new();
        // Nothing is recorded that might not be told of.
        let durable = self.spool.durable();
        let is_written = |kept: &&mut Kept| kept.number <= durable && !self.spool.is_lost(kept.number);
        for kept in self.state.lock().kept.values_mut().filter(is_written) {
            kept.in_work = true;
            waiting.entry(kept.tenant.clone()).or_default().push(kept.clone());
        }
        waiting.values_mut().for_each(|lines| lines.sort_by_key(|kept| kept.number));
        waiting
    }

    /// What was taken up and is kept still is not being recorded any more.
    pub(super) fn put_down(&self) {
        self.state.lock().kept.values_mut().for_each(|kept| kept.in_work = false);
    }

    pub(crate) fn stats(&self) -> OutageStats {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        OutageStats {
            under_way: self.is_under_way(),
            passed: read(&self.figures.passed),
            refused: read(&self.figures.refused),
            closed: read(&self.figures.closed),
            spool_lines: self.lines.load(Ordering::Acquire),
            reconciled: read(&self.figures.reconciled),
            duplicates: read(&self.figures.duplicates),
            set_aside: read(&self.figures.set_aside),
        }
    }
}
