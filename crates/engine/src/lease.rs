//! Where other nodes charge the same tenant at once: leases are taken when nodes get in each other's way, used until
//! they are old or empty, and given back when nobody needs them. What a lease is, and what may be done under one, is the
//! core's ([`domain::lease`]); that nothing is done under one that has ended, the ledger's.

use crate::{
    engine::Engine,
    live::{Book, Cell, LiveLease, Place},
    open::{Look, Open, Whom, Wrote},
    ports::{Append, Appended, Commit, LEASED_ENTRIES_MAX, LedgerError, Seq, leased_entries, leased_seq},
    requests::EngineError,
};
use domain::{
    entry::Entry,
    id::{TenantId, UserId},
    op::{Op, Outcome},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
};

/// For how long nodes that were in each other's way are believed to be so still.
const CONTENDED_MS: i64 = 5_000;

/// What a node remembers of a tenant that other nodes charge as well, whatever becomes of the book. Its times are by the
/// clock that does not jump.
#[derive(Debug)]
pub(crate) struct Contention {
    lost_at_ms: AtomicI64,
    until_ms: AtomicI64,
    /// The lease this node had last, until it is known to have ended; 0 if none.
    own: AtomicU64,
    /// Whether it stands in the list of tenants that this node has, or had, a lease of.
    is_listed: AtomicBool,
    /// Whether the next to load the tenant keeps others from writing to it.
    hold: AtomicBool,
    /// How many want to see what all nodes did. No lease is taken meanwhile: they would not see all.
    readers: AtomicUsize,
}

impl Default for Contention {
    fn default() -> Self {
        let never = || AtomicI64::new(i64::MIN);
        let no = || AtomicBool::new(false);
        let (own, readers) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { lost_at_ms: never(), until_ms: never(), own, is_listed: no(), hold: no(), readers }
    }
}

impl Contention {
    /// What was decided here was in vain: another node was quicker.
    pub(crate) fn lost(&self, now_ms: i64, lost_within_ms: i64) {
        let before_ms = self.lost_at_ms.swap(now_ms, Ordering::Relaxed);
        if now_ms.saturating_sub(before_ms) <= lost_within_ms {
            self.is_met(now_ms);
        }
    }

    fn is_met(&self, now_ms: i64) {
        self.until_ms.store(now_ms + CONTENDED_MS, Ordering::Relaxed);
    }

    fn wants_lease(&self, now_ms: i64) -> bool {
        now_ms < self.until_ms.load(Ordering::Relaxed) && self.readers.load(Ordering::Relaxed) == 0
    }

    /// Whether a lease of this node may be set aside still.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_listed.load(Ordering::Acquire)
    }

    pub(crate) fn take_hold(&self) -> bool {
        self.hold.swap(false, Ordering::AcqRel)
    }
}

impl Cell {
    /// The lease has ended for good; `false` if there is another by now.
    fn has_given_back(&self, own: u64) -> bool {
        let Some(reload) = &self.reload else { return true };
        let contention = &reload.contention;
        // Leases are taken under this lock.
        let place = self.place.lock();
        let is_leased = matches!(&*place, Place::Open(book) if book.lease.is_some());
        let gone = !is_leased && contention.own.compare_exchange(own, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if gone {
            contention.is_listed.store(false, Ordering::Release);
        }
        gone
    }
}

/// Somebody who wants to see what all nodes did.
pub(crate) struct Reader(Arc<Cell>);

impl Reader {
    pub(crate) fn of(cell: &Arc<Cell>) -> Self {
        if let Some(reload) = &cell.reload {
            reload.contention.readers.fetch_add(1, Ordering::Relaxed);
        }
        Self(cell.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(reload) = &self.0.reload {
            reload.contention.readers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What has to happen before a verb gets at a tenant.
pub(crate) enum Way {
    Free,
    /// This, and then another look.
    Wait(Commit),
    /// It must be loaded anew.
    Reload,
}

impl Engine {
    /// What a lease of this node asks of who comes. Nothing but what is done under it is done while it lasts.
    pub(crate) fn way(&self, cell: &Cell, book: &mut Book, whom: Whom<'_>, asked_ms: i64, now_ms: i64) -> Way {
        let Book { lease: Some(lease), basis, seq, confirmed_ms, .. } = book else { return Way::Free };
        if !basis.is_durable(*seq) {
            // It is not granted yet, and perhaps never will be.
            return Way::Wait(basis.settled(*seq));
        }
        if let Some(reload) = &cell.reload {
            reload.contention.own.store(lease.epoch, Ordering::Relaxed);
        }
        let is_used = lease.last != leased_seq(lease.epoch, 0);
        let sees_too_little = match whom.look {
            Look::Memory | Look::Recent | Look::Held => false,
            Look::Now => *confirmed_ms <= asked_ms || is_used,
            Look::Loaded => *confirmed_ms < asked_ms || is_used,
        };
        let is_over = !(0..self.options.leases.lasts_ms).contains(&(now_ms - lease.since_ms));
        lease.closing |= sees_too_little || is_over || !whom.under_lease;
        if !lease.closing {
            return Way::Free;
        }
        if !lease.basis.is_durable(lease.last) {
            return Way::Wait(lease.basis.settled(lease.last));
        }
        if let Some(reload) = &cell.reload {
            if lease.basis.has_others() {
                reload.contention.is_met(now_ms);
            }
            // Who only looks writes nothing that others would have to wait for.
            reload.contention.hold.store(matches!(whom.look, Look::Memory | Look::Held), Ordering::Release);
        }
        Way::Reload
    }

    /// What was begun under a lease at `at_ms` was committed: the lease was there then.
    pub(crate) fn note_lasted(&self, tenant: &TenantId, at_ms: i64) {
        let Some(cell) = self.live.known(tenant) else { return };
        if let Place::Open(book) = &mut *cell.place.lock()
            && let Some(lease) = &mut book.lease
        {
            lease.lasted_ms = lease.lasted_ms.max(at_ms);
        }
    }

    /// Gives back the leases of tenants that are not charged any more; all of them with `all`.
    pub(crate) async fn give_leases_back(&self, all: bool) -> Result<(), EngineError> {
        let mut taken = self.live.take_leased();
        let mut leasing = self.live.none_leased();
        let mut failed = Ok(());
        while let Some(cell) = taken.cells.last().cloned() {
            if !all && self.is_leasing(&cell) {
                leasing.cells.extend(taken.cells.pop());
                continue;
            }
            // Others need not wait for what may turn out to be nothing.
            let whom = Whom::known(&cell.id, &[]).look(Look::Recent);
            match self.commit_with(whom, |open| open.give_lease_back()).await {
                Ok((own, _)) if !cell.has_given_back(own) => leasing.cells.extend(taken.cells.pop()),
                Ok(_) | Err(EngineError::UnknownTenant(_)) => drop(taken.cells.pop()),
                Err(error) => {
                    leasing.cells.extend(taken.cells.pop());
                    failed = failed.and(Err(error));
                }
            }
        }
        failed
    }

    /// Whether a lease is in use, or another will be soon.
    fn is_leasing(&self, cell: &Cell) -> bool {
        let now_ms = self.steady_ms();
        let is_wanted = cell.reload.as_ref().is_some_and(|reload| reload.contention.wants_lease(now_ms));
        let Place::Open(book) = &*cell.place.lock() else { return is_wanted };
        let is_fresh = |lease: &LiveLease| (0..2 * self.options.leases.lasts_ms).contains(&(now_ms - lease.since_ms));
        book.lease.as_ref().map_or(is_wanted, |lease| is_fresh(lease))
    }
}

impl Open<'_> {
    /// What is in memory can't be told without another look at what is committed.
    pub(crate) fn distrust(&mut self) {
        match &mut self.book.lease {
            Some(lease) => lease.closing = true,
            None => self.book.basis.outdate(),
        }
    }

    /// Whether what happens here happens under a lease.
    pub(crate) fn is_leased(&self) -> bool {
        self.book.lease.is_some()
    }

    /// Whether something may be told from beside the lease that leaves no entry to be judged: there is room for it under
    /// the lease, and the lease was there a moment ago, so that the tenant is what it was.
    pub(crate) fn is_covered(&mut self, user: Option<&UserId>, op: &Op) -> bool {
        let Book { tenant, users, lease, .. } = &mut *self.book;
        let Some(lease) = lease else { return false };
        let user = user.and_then(|user| users.get(user)).map(|live| &live.user);
        let age_ms = self.engine.steady_ms() - lease.lasted_ms;
        (0..=self.engine.options.recent_ms).contains(&age_ms)
            && tenant.is_covered(lease.epoch, user, op, self.now, self.catalog)
    }

    /// Applies an operation under the lease of this node.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] if it can't be done under it: the tenant is loaded anew before it is tried again.
    pub(crate) fn apply_under(&mut self, user: Option<&UserId>, op: &Op) -> Result<Outcome, EngineError> {
        let catalog = self.catalog_of_fact(op);
        let Book { tenant, users, lease, .. } = &mut *self.book;
        let Some(lease) = lease else { return Err(LedgerError::Stale.into()) };
        let user = user.and_then(|user| users.get_mut(user)).map(|live| &mut live.user);
        let has_place = leased_entries(lease.last).is_some_and(|entries| entries < LEASED_ENTRIES_MAX);
        let applied = match has_place {
            true => tenant.apply_under(lease.epoch, user, op, self.now, catalog)?,
            false => None,
        };
        lease.closing |= applied.is_none();
        applied.ok_or_else(|| LedgerError::Stale.into())
    }

    /// Queues entries that were just decided under the lease.
    pub(crate) fn append_under(&mut self, entries: Vec<Entry>) -> Result<Appended, EngineError> {
        let in_force = self.pinned_beside();
        let Some(lease) = &mut self.book.lease else { return Err(LedgerError::Stale.into()) };
        self.wrote = Wrote::UnderLease;
        let (follows, basis, under) = (lease.last, lease.basis.clone(), Some(lease.epoch));
        let append = Append { follows, under, basis, in_force, ..Append::new(self.cell.id.clone(), entries) };
        // What was applied and is not taken must not be believed.
        let appended = self.engine.ledger.append(append).inspect_err(|_| lease.basis.outdate())?;
        lease.last = appended.last;
        Ok(appended)
    }

    /// Takes a lease in the entry of an operation that was just applied, if nodes are in each other's way. The entry must
    /// be the last of those that are appended next, and get the position `epoch`.
    pub(crate) fn take_lease(&mut self, op: &Op, entry: &mut Entry, epoch: Seq) {
        let Some(reload) = &self.cell.reload else { return };
        let contention = &reload.contention;
        if self.is_leased() || !contention.wants_lease(self.engine.steady_ms()) {
            return;
        }
        let before = contention.own.load(Ordering::Relaxed);
        let terms = self.engine.options.leases.terms;
        if self.book.tenant.grant(entry, epoch, (before != 0).then_some(before), op, &terms, self.catalog) {
            // Its own it is when the grant is committed: another node may have come first to the same position.
            self.book.lease = Some(Box::new(LiveLease::new(epoch, self.engine.steady_ms())));
            if !contention.is_listed.swap(true, Ordering::AcqRel) {
                self.engine.live.list_leased(self.cell);
            }
        }
    }

    /// Which lease was given back, once that is committed.
    fn give_lease_back(&mut self) -> Result<(u64, Commit), EngineError> {
        self.engine.ledger.ready()?;
        let own = self.cell.reload.as_ref().map_or(0, |reload| reload.contention.own.load(Ordering::Relaxed));
        match self.book.tenant.give_back(own, self.now, self.catalog) {
            None => Ok((own, self.settled())),
            Some(entry) => Ok((own, self.append(vec![entry], false, true)?.commit)),
        }
    }
}
