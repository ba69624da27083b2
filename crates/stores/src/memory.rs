//! A ledger in memory: for `memory:`, and for tests, which can hold commits back or make them fail.
//!
//! Same contract as the embedded store, by the same conformance suite. Nothing is merged and nothing is dropped but
//! what retention drops; a process that ends takes it all along.

mod forecasts;
mod history;
mod snapshots;
mod state;

pub use self::{forecasts::MemoryForecasts, snapshots::MemorySnapshots};

use self::state::{State, answered, closed_order};
use crate::{
    codec,
    denials::{self, Runs},
    rows::{is_plan, listed_plan},
};
use domain::{
    entry::Entry,
    id::{MeterKey, PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::{Instant, WindowKind},
};
use engine::ports::{
    ApiKey, Append, Appended, BoxFuture, ClosedRow, Commit, DenialId, DenialQuery, Fold, Forecasts, HistoryLedger,
    Ledger, LedgerError, LedgerStats, Lookup, Retention, Seq, Snapshots, Stored, StoredCatalog, StoredDenial,
    TailLines,
};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// When entries become durable, as far as memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Commits {
    /// At once.
    #[default]
    AtOnce,
    /// Not before [`MemoryLedger::release`].
    Held,
    /// Never: the next commit fails, and the ledger is unwritable until it is reopened.
    Failing,
}

/// The ledger. Share it in an [`Arc`].
pub struct MemoryLedger {
    state: Mutex<State>,
    snapshots: MemorySnapshots,
    forecasts: MemoryForecasts,
    secret: [u8; 32],
    queue_entries_max: usize,
}

impl MemoryLedger {
    /// An empty ledger whose secret is made of `secret`, which should be random.
    pub fn new(secret: [u8; 32]) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            snapshots: MemorySnapshots::default(),
            forecasts: MemoryForecasts::default(),
            secret,
            queue_entries_max: 200_000,
        })
    }

    /// From here on, commits happen so. Turning from held to at once commits what waits.
    pub fn set_commits(&self, commits: Commits) {
        let mut state = self.state.lock();
        state.commits = commits;
        if commits == Commits::AtOnce {
            state.commit();
        }
    }

    /// Commits what waits, once; with [`Commits::Failing`], fails it.
    pub fn release(&self) {
        self.state.lock().commit();
    }

    /// Commits the first so many entries of what waits; the rest waits still.
    pub fn release_first(&self, entries: usize) {
        self.state.lock().commit_first(entries as Seq);
    }

    /// Fails the commit of what waits, and takes no more until it is reopened. The first so many entries of it are durable
    /// all the same.
    pub fn fail_behind(&self, entries: usize) {
        let mut state = self.state.lock();
        state.committed = (state.committed + entries as Seq).min(state.last());
        state.commits = Commits::Failing;
        state.commit();
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(&State) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        Box::pin(async move { Ok(read(&self.state.lock())) })
    }
}

impl Ledger for MemoryLedger {
    fn snapshots(&self) -> &dyn Snapshots {
        &self.snapshots
    }

    fn forecasts(&self) -> Option<&dyn Forecasts> {
        Some(&self.forecasts)
    }

    fn history(&self) -> Option<&dyn HistoryLedger> {
        Some(self)
    }

    fn load_tenant<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Option<Stored<Tenant>>, LedgerError>> {
        self.read(|state| state.tenants.get(tenant).cloned())
    }

    fn load_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Stored<User>>, LedgerError>> {
        self.read(|state| state.users.get(&(tenant.clone(), user.clone())).cloned())
    }

    fn tail(&self) -> Result<TailLines, LedgerError> {
        let state = self.state.lock();
        let after = state.complete_through.max(state.cut);
        let mut lines = TailLines::new(after, codec::read_entry);
        let mut body = Vec::new();
        for (tenant, entry) in state.journal.iter().skip((after - state.cut) as usize) {
            body.clear();
            codec::encode_entry(entry, &mut body);
            lines.push(tenant.as_str(), entry.at, &body);
        }
        Ok(lines)
    }

    fn ready(&self) -> Result<(), LedgerError> {
        let state = self.state.lock();
        state.check()?;
        let waiting = (state.last() - state.committed) as usize;
        if waiting >= self.queue_entries_max { Err(LedgerError::Overloaded { waiting }) } else { Ok(()) }
    }

    fn append(&self, append: Append) -> Result<Appended, LedgerError> {
        let mut state = self.state.lock();
        state.check()?;
        let first = state.last() + 1;
        for (seq, entry) in (first..).zip(append.entries) {
            if let Some(binding) = entry.binding {
                state.ids.insert(binding.id, (seq, entry.at));
            }
            denials::note_entry(&mut state.denials, seq, &append.tenant, &entry);
            state.journal.push_back((append.tenant.clone(), entry));
        }
        let last = state.last();
        let commit = if append.wait { state.commit_for(last) } else { Commit::Done };
        state.settle();
        Ok(Appended { first, last, commit })
    }

    fn committed(&self, _tenant: &TenantId, seq: Seq) -> Commit {
        self.state.lock().commit_for(seq)
    }

    fn find(&self, _tenant: &TenantId, id: u128) -> Lookup {
        self.state.lock().ids.get(&id).map_or(Lookup::Fresh, |(seq, _)| Lookup::Bound(*seq))
    }

    fn find_on_disk<'a>(&'a self, _tenant: &'a TenantId, id: u128) -> BoxFuture<'a, Result<Option<Seq>, LedgerError>> {
        self.read(move |state| state.ids.get(&id).map(|(seq, _)| *seq))
    }

    fn entry<'a>(&'a self, tenant: &'a TenantId, seq: Seq) -> BoxFuture<'a, Result<Option<Entry>, LedgerError>> {
        self.read(move |state| {
            let index = seq.checked_sub(state.cut + 1).filter(|_| seq <= state.committed)?;
            state.journal.get(index as usize).filter(|(whose, _)| whose == tenant).map(|(_, entry)| entry.clone())
        })
    }

    fn journal<'a>(
        &'a self,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Seq, TenantId, Entry)>, LedgerError>> {
        self.read(move |state| {
            let after = after.max(state.cut);
            let durable = state.committed.saturating_sub(after) as usize;
            let rows = state.journal.iter().skip((after - state.cut) as usize).take(limit.min(durable));
            (after + 1..).zip(rows).map(|(seq, (tenant, entry))| (seq, tenant.clone(), entry.clone())).collect()
        })
    }

    fn checkpoint(&self, folds: Vec<Fold>, complete_through: Option<Seq>) -> Commit {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return answered(Err(error.clone()));
        }
        let (sender, receiver) = oneshot::channel();
        let last = state.last();
        state.checkpoints.push_back((last, folds, complete_through, sender));
        state.settle();
        Commit::Waiting(receiver)
    }

    fn reopen(&self) -> Result<(), LedgerError> {
        let mut state = self.state.lock();
        let durable = (state.committed - state.cut) as usize;
        state.journal.truncate(durable);
        state.failed = None;
        if state.commits == Commits::Failing {
            state.commits = Commits::AtOnce;
        }
        state.waiters.clear();
        state.checkpoints.clear();
        let committed = state.committed;
        state.ids.retain(|_, (seq, _)| *seq <= committed);
        let mut runs = Runs::default();
        for (seq, (tenant, entry)) in (state.cut + 1..).zip(&state.journal) {
            denials::note_entry(&mut runs, seq, tenant, entry);
        }
        let cut = state.cut;
        state.denials.retain(|_, run| run.first_seq <= cut);
        for (id, run) in runs {
            denials::add_to(&mut state.denials, id, run);
        }
        Ok(())
    }

    fn tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TenantId>, LedgerError>> {
        self.read(move |state| {
            let all = state.tenants.keys();
            all.filter(|id| after.is_none_or(|after| *id > after)).take(limit).cloned().collect()
        })
    }

    fn plans_in_use<'a>(&'a self) -> BoxFuture<'a, Result<Vec<PlanKey>, LedgerError>> {
        self.read(|state| {
            let mut plans: Vec<PlanKey> =
                state.tenants.values().map(|tenant| listed_plan(&tenant.state.profile)).filter(is_plan).collect();
            plans.sort();
            plans.dedup();
            plans
        })
    }

    fn denials<'a>(&'a self, query: &'a DenialQuery) -> BoxFuture<'a, Result<Vec<StoredDenial>, LedgerError>> {
        self.read(|state| denials::page(query, state.denials.iter().map(|(id, fold)| (*id, fold.clone()))))
    }

    fn denial<'a>(&'a self, id: DenialId) -> BoxFuture<'a, Result<Option<StoredDenial>, LedgerError>> {
        self.read(move |state| state.denials.get(&id).map(|fold| fold.stored(id)))
    }

    fn closed<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<ClosedRow>, LedgerError>> {
        self.read(move |state| {
            let first = (tenant.clone(), user.cloned(), WindowKind::Period, Instant::EPOCH, MeterKey::trusted(""));
            let rows = state.closed.range(first..).take_while(|(key, _)| key.0 == *tenant && key.1.as_ref() == user);
            let mut rows: Vec<ClosedRow> = rows.map(|(_, row)| row.clone()).collect();
            rows.sort_by(|a, b| closed_order(&a.closed, &a.meter).cmp(&closed_order(&b.closed, &b.meter)));
            rows
        })
    }

    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ApiKey>, LedgerError>> {
        self.read(|state| state.keys.values().cloned().collect())
    }

    fn put_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check()?;
            state.keys.insert(key.id.clone(), key.clone());
            Ok(())
        })
    }

    fn newest_catalog<'a>(&'a self) -> BoxFuture<'a, Result<Option<StoredCatalog>, LedgerError>> {
        self.read(|state| state.catalogs.last().cloned())
    }

    fn catalogs<'a>(&'a self) -> BoxFuture<'a, Result<Vec<StoredCatalog>, LedgerError>> {
        self.read(|state| state.catalogs.clone())
    }

    fn put_catalog<'a>(&'a self, text: &'a str, at: Instant) -> BoxFuture<'a, Result<u32, LedgerError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check()?;
            let version = state.catalogs.last().map_or(1, |newest| newest.version + 1);
            state.catalogs.push(StoredCatalog { version, text: text.into(), applied_at: at });
            Ok(version)
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn retain<'a>(&'a self, retention: Retention, now: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check()?;
            state.retain(retention, now);
            Ok(())
        })
    }

    fn stats(&self) -> LedgerStats {
        let state = self.state.lock();
        LedgerStats {
            committed_seq: state.committed,
            queue_entries: state.last() - state.committed,
            tail_entries: state.last().saturating_sub(state.complete_through),
            recent_ids: state.ids.len() as u64,
            ..state.stats
        }
    }
}
