//! What waits for a commit: encoded, in order, each with its positions.

use super::{batch::Part, queued::Queued};
use domain::id::TenantId;
use engine::ports::{Append, Appended, Basis, Commit, LedgerError, LedgerStats, Lookup, Seq, leased_entries};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{Notify, oneshot};

pub(super) type Waiter = oneshot::Sender<Result<(), LedgerError>>;

/// Entries in one batch, at most, but for an append that alone has more.
const BATCH_ENTRIES: usize = 5_000;
/// Bytes in one batch, about, at most.
const BATCH_BYTES: usize = 4 << 20;

/// What a committer commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// What follows a tenant's last entry.
    Main,
    /// What was made under leases. It waits for rows, which the other must not.
    Leased,
}

/// A tenant's queue: of what follows its last entry, or of what was made under leases.
type Line = (TenantId, bool);

/// Whether a position is a place under a lease.
fn is_leased(seq: Seq) -> bool {
    leased_entries(seq).is_some()
}

/// A tenant that has something queued or under way.
struct Pending {
    appends: usize,
    /// The last position that is known to be durable.
    durable: Seq,
}

/// Ids that were found bound or were committed by this node lately.
struct Remembered {
    seqs: FxHashMap<(TenantId, u128), Seq>,
    order: VecDeque<(TenantId, u128)>,
    max: usize,
}

impl Remembered {
    fn insert(&mut self, tenant: TenantId, id: u128, seq: Seq) {
        if self.seqs.insert((tenant.clone(), id), seq).is_none() {
            self.order.push_back((tenant, id));
        }
        while self.order.len() > self.max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.seqs.remove(&oldest);
        }
    }
}

/// A tenant's row that this node keeps locked, or is about to.
pub(super) struct Slot {
    pub(super) appends: Vec<Queued>,
    /// Told of appends, and when the slot is gone.
    pub(super) news: Arc<Notify>,
}

pub(super) struct State {
    waiting: VecDeque<Queued>,
    leased: VecDeque<Queued>,
    /// Parts that another task sent, of which nobody knows what became.
    carried: Vec<Part>,
    /// Entries queued or under way.
    pub(super) entries: usize,
    pending: FxHashMap<Line, Pending>,
    late: Vec<(TenantId, Seq, Waiter)>,
    ids: FxHashMap<(TenantId, u128), Seq>,
    remembered: Remembered,
    pub(super) slots: FxHashMap<TenantId, Slot>,
    /// Why nothing can be written at present.
    pub(super) down: Option<LedgerError>,
    pub(super) stopping: bool,
    pub(super) stats: LedgerStats,
    /// Of the entries committed here, those that a checkpoint has covered.
    pub(super) covered: u64,
}

/// What callers and the committer share.
pub(super) struct Queue {
    pub(super) state: Mutex<State>,
    /// Wakes the committer.
    pub(super) work: Notify,
    /// Wakes the one of what was made under leases.
    pub(super) leased_work: Notify,
    entries_max: usize,
}

impl Queue {
    pub(super) fn new(entries_max: usize, remembered_max: usize) -> Self {
        let remembered = Remembered { seqs: FxHashMap::default(), order: VecDeque::new(), max: remembered_max };
        let state = State {
            waiting: VecDeque::new(),
            leased: VecDeque::new(),
            carried: Vec::new(),
            entries: 0,
            pending: FxHashMap::default(),
            late: Vec::new(),
            ids: FxHashMap::default(),
            remembered,
            slots: FxHashMap::default(),
            down: None,
            stopping: false,
            stats: LedgerStats::default(),
            covered: 0,
        };
        Self { state: Mutex::new(state), work: Notify::new(), leased_work: Notify::new(), entries_max }
    }

    pub(super) fn ready(&self) -> Result<(), LedgerError> {
        let state = self.state.lock();
        state.check()?;
        match state.entries >= self.entries_max {
            true => Err(LedgerError::Overloaded { waiting: state.entries }),
            false => Ok(()),
        }
    }

    pub(super) fn append(&self, append: Append) -> Result<Appended, LedgerError> {
        let wait = append.wait;
        let mut queued = Queued::new(append);
        let (first, last) = (queued.follows + 1, queued.last());
        let commit = match wait {
            true => {
                let (sender, receiver) = oneshot::channel();
                queued.waiter = Some(sender);
                Commit::Waiting(receiver)
            }
            false => Commit::Done,
        };
        let mut state = self.state.lock();
        state.check()?;
        // A part that is not written outdates its basis under this lock: what is queued after that is refused, what was
        // before is failed. Who outdates one for another reason does so at any time: what is queued is judged by its commit.
        if queued.basis.is_stale() {
            return Err(LedgerError::Stale);
        }
        let lane = queued.lane();
        state.note(&queued);
        state.push(queued);
        drop(state);
        self.work_of(lane).notify_one();
        Ok(Appended { first, last, commit })
    }

    pub(super) fn committed(&self, tenant: &TenantId, seq: Seq) -> Commit {
        let mut state = self.state.lock();
        match state.pending.get(&(tenant.clone(), is_leased(seq))) {
            Some(pending) if pending.durable < seq => {
                let (sender, receiver) = oneshot::channel();
                state.late.push((tenant.clone(), seq, sender));
                Commit::Waiting(receiver)
            }
            _ => Commit::Done,
        }
    }

    pub(super) fn find(&self, tenant: &TenantId, id: u128) -> Lookup {
        let key = (tenant.clone(), id);
        let state = self.state.lock();
        let known = state.ids.get(&key).or_else(|| state.remembered.seqs.get(&key));
        known.map_or(Lookup::Fresh, |seq| Lookup::Bound(*seq))
    }

    /// Remembers an id that was found bound.
    pub(super) fn remember(&self, tenant: &TenantId, id: u128, seq: Seq) {
        self.state.lock().remembered.insert(tenant.clone(), id, seq);
    }

    /// The next batch: at most one part for each tenant, in order of tenant.
    pub(super) fn take_batch(&self, lane: Lane) -> Vec<Part> {
        self.state.lock().take_batch(lane)
    }

    pub(super) fn work_of(&self, lane: Lane) -> &Notify {
        match lane {
            Lane::Main => &self.work,
            Lane::Leased => &self.leased_work,
        }
    }

    /// What can be committed at once of what was queued for a tenant whose row is kept locked. The rest stays.
    pub(super) fn take_kept(&self, tenant: &TenantId) -> Option<Part> {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(tenant)?;
        let mut parts = Part::all_of(std::mem::take(&mut slot.appends)).into_iter();
        let first = parts.next();
        slot.appends = parts.flat_map(|part| part.appends).collect();
        first
    }

    /// Puts back what was queued for a tenant whose row was to be kept locked, and forgets the slot.
    pub(super) fn close_slot(&self, tenant: &TenantId) -> Vec<Queued> {
        let slot = self.state.lock().slots.remove(tenant);
        let Some(slot) = slot else { return Vec::new() };
        slot.news.notify_waiters();
        slot.appends
    }

    /// Queues appends again that were taken out.
    pub(super) fn put_back(&self, appends: Vec<Queued>) {
        let mut state = self.state.lock();
        for queued in appends.into_iter().rev() {
            state.waiting.push_front(queued);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Leaves parts to the committer that were sent elsewhere.
    pub(super) fn carry(&self, parts: Vec<Part>) {
        self.state.lock().carried.extend(parts);
        self.work.notify_one();
    }

    /// A part is durable: its entries follow this position.
    pub(super) fn succeed(&self, part: Part, before: Seq) {
        let (follows, last) = (part.follows(), part.last());
        // Under a lease places become positions now.
        let position = |seq: Seq| before + (seq - follows);
        let mut woken: Vec<Waiter> = Vec::new();
        let mut state = self.state.lock();
        for mut queued in part.appends {
            state.forget(&queued, Some(last));
            state.stats.entries += queued.rows.len() as u64;
            state.stats.committed_seq += queued.rows.len() as u64;
            for bound in &queued.ids {
                state.remembered.insert(queued.tenant.clone(), bound.id, position(bound.seq));
            }
            if queued.under.is_some() {
                queued.basis.placed(position(queued.follows) + 1, position(queued.last()));
            }
            queued.basis.made_durable(queued.last());
            woken.extend(queued.waiter.take());
        }
        woken.extend(state.take_late(&part.tenant, |seq| is_leased(seq) == is_leased(last) && seq <= last));
        drop(state);
        for waiter in woken {
            let _ = waiter.send(Ok(()));
        }
    }

    /// A part is not written, and neither is anything that was decided on the same.
    pub(super) fn fail(&self, part: Part, error: &LedgerError) {
        let mut woken: Vec<(Waiter, LedgerError)> = Vec::new();
        let mut state = self.state.lock();
        let mut failed = Vec::new();
        for queued in part.appends {
            queued.basis.outdate();
            failed.extend(state.take_of_basis(&queued.basis).into_iter().map(|queued| (queued, LedgerError::Stale)));
            failed.push((queued, error.clone()));
        }
        let mut least = Seq::MAX;
        for (mut queued, error) in failed {
            least = least.min(queued.follows);
            state.forget(&queued, None);
            woken.extend(queued.waiter.take().map(|waiter| (waiter, error)));
        }
        let late = state.take_late(&part.tenant, |seq| is_leased(seq) == is_leased(least) && seq > least);
        woken.extend(late.into_iter().map(|waiter| (waiter, LedgerError::Stale)));
        drop(state);
        for (waiter, error) in woken {
            let _ = waiter.send(Err(error));
        }
    }

    /// Everything that is queued in a lane, as parts.
    pub(super) fn take_all(&self, lane: Lane) -> Vec<Part> {
        let mut state = self.state.lock();
        if lane == Lane::Leased {
            return state.leased.drain(..).map(Part::new).collect();
        }
        let slots: Vec<Queued> = state.slots.values_mut().flat_map(|slot| std::mem::take(&mut slot.appends)).collect();
        let carried = std::mem::take(&mut state.carried);
        carried.into_iter().chain(state.waiting.drain(..).chain(slots).map(Part::new)).collect()
    }
}

impl State {
    fn check(&self) -> Result<(), LedgerError> {
        match self.stopping {
            true => Err(LedgerError::Unwritable("the ledger is being closed".into())),
            false => self.down.clone().map_or(Ok(()), Err),
        }
    }

    /// Appends that wait for a committer.
    pub(super) fn appends(&self, lane: Lane) -> usize {
        match lane {
            Lane::Main => self.waiting.len(),
            Lane::Leased => self.leased.len(),
        }
    }

    pub(super) fn ids_in_memory(&self) -> u64 {
        (self.ids.len() + self.remembered.seqs.len()) as u64
    }

    fn note(&mut self, queued: &Queued) {
        self.entries += queued.rows.len();
        for bound in &queued.ids {
            self.ids.insert((queued.tenant.clone(), bound.id), bound.seq);
        }
        let fresh = Pending { appends: 0, durable: queued.follows };
        self.pending.entry(queued.line()).or_insert(fresh).appends += 1;
    }

    fn push(&mut self, queued: Queued) {
        if queued.lane() == Lane::Leased {
            return self.leased.push_back(queued);
        }
        match self.slots.get_mut(&queued.tenant) {
            Some(slot) => {
                slot.appends.push(queued);
                slot.news.notify_waiters();
            }
            None => self.waiting.push_back(queued),
        }
    }

    /// The opposite of [`State::note`].
    fn forget(&mut self, queued: &Queued, durable: Option<Seq>) {
        self.entries = self.entries.saturating_sub(queued.rows.len());
        for bound in &queued.ids {
            let key = (queued.tenant.clone(), bound.id);
            if self.ids.get(&key) == Some(&bound.seq) {
                self.ids.remove(&key);
            }
        }
        if let Some(pending) = self.pending.get_mut(&queued.line()) {
            pending.appends = pending.appends.saturating_sub(1);
            pending.durable = pending.durable.max(durable.unwrap_or(0));
            if pending.appends == 0 {
                self.pending.remove(&queued.line());
            }
        }
    }

    fn take_late(&mut self, tenant: &TenantId, is_over: impl Fn(Seq) -> bool) -> Vec<Waiter> {
        let over = self.late.extract_if(.., |(whose, seq, _)| whose == tenant && is_over(*seq));
        over.map(|(.., waiter)| waiter).collect()
    }

    fn take_of_basis(&mut self, basis: &Arc<Basis>) -> Vec<Queued> {
        let mut same = Vec::new();
        for waiting in [&mut self.waiting, &mut self.leased] {
            let is_same = |queued: &Queued| Arc::ptr_eq(&queued.basis, basis);
            let (taken, others) = std::mem::take(waiting).into_iter().partition::<Vec<_>, _>(is_same);
            *waiting = others.into();
            same.extend(taken);
        }
        for slot in self.slots.values_mut() {
            same.extend(slot.appends.extract_if(.., |queued| Arc::ptr_eq(&queued.basis, basis)));
        }
        same
    }

    fn take_batch(&mut self, lane: Lane) -> Vec<Part> {
        if lane == Lane::Main
            && let Some(carried) = self.carried.pop()
        {
            return vec![carried];
        }
        let mut waiting = std::mem::take(self.line_of(lane));
        let mut parts: Vec<Part> = Vec::new();
        let mut by_tenant: FxHashMap<TenantId, usize> = FxHashMap::default();
        let mut rest = VecDeque::new();
        // Tenants of which something has to wait: then all that comes after it has to.
        let mut behind: FxHashSet<TenantId> = FxHashSet::default();
        let (mut entries, mut bytes) = (0, 0);
        while let Some(queued) = waiting.pop_front() {
            if let Some(slot) = self.slots.get_mut(&queued.tenant).filter(|_| lane == Lane::Main) {
                slot.appends.push(queued);
                slot.news.notify_waiters();
                continue;
            }
            if entries >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                rest.push_back(queued);
                break;
            }
            if behind.contains(&queued.tenant) {
                rest.push_back(queued);
                continue;
            }
            let size = (queued.rows.len(), queued.bytes());
            match by_tenant.get(&queued.tenant).and_then(|index| parts.get_mut(*index)) {
                // It must come after what does not fit here.
                Some(part) if !part.is_followed_by(&queued) => {
                    behind.insert(queued.tenant.clone());
                    rest.push_back(queued);
                    continue;
                }
                Some(part) => part.appends.push(queued),
                None => {
                    by_tenant.insert(queued.tenant.clone(), parts.len());
                    parts.push(Part::new(queued));
                }
            }
            entries += size.0;
            bytes += size.1;
        }
        rest.extend(waiting);
        *self.line_of(lane) = rest;
        parts.sort_unstable_by(|a, b| a.tenant.cmp(&b.tenant));
        parts
    }

    fn line_of(&mut self, lane: Lane) -> &mut VecDeque<Queued> {
        match lane {
            Lane::Main => &mut self.waiting,
            Lane::Leased => &mut self.leased,
        }
    }
}
