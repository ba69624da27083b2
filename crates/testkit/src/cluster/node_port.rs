//! The port.

use super::{
    database::{Decided, State},
    node_ledger::NodeLedger,
    queue::Checkpoint,
};
use domain::{
    entry::{Effect, Entry},
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
};
use engine::{
    denial_id,
    ports::{
        ApiKey, Append, Appended, BoxFuture, ClosedRow, Commit, DenialId, DenialQuery, Fold, JobLease, Ledger,
        LedgerError, LedgerStats, Line, Loaded, Lookup, Published, Retention, Seq, SharedLedger, Signals, Snapshots,
        Stored, StoredCatalog, StoredDenial, TailLines,
    },
};
use tokio::sync::oneshot;

impl Ledger for NodeLedger {
    fn shared(&self) -> Option<&dyn SharedLedger> {
        Some(self)
    }

    fn snapshots(&self) -> &dyn Snapshots {
        self.database.snapshots()
    }

    fn load_tenant<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Option<Stored<Tenant>>, LedgerError>> {
        Box::pin(self.read(move |state| state.fold(tenant)))
    }

    fn load_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Stored<User>>, LedgerError>> {
        Box::pin(self.read(move |state| state.user(tenant, user)))
    }

    fn tail(&self) -> Result<TailLines, LedgerError> {
        Ok(TailLines::default())
    }

    fn ready(&self) -> Result<(), LedgerError> {
        let waiting = self.queue.lock().entries() as usize;
        if self.chance.percent(self.chance.weather().overloaded) {
            return Err(LedgerError::Overloaded { waiting });
        }
        // A node does not always know.
        let state = self.database.state();
        if self.chance.percent(50) { state.check() } else { Ok(()) }
    }

    fn append(&self, append: Append) -> Result<Appended, LedgerError> {
        let attempt = self.database.state().attempt;
        let decided = Decided { by_clock_ms: self.clock.now().ms(), steady_ms: self.clock.steady_ms() };
        self.queue.lock().push(append, attempt, decided)
    }

    fn committed(&self, tenant: &TenantId, seq: Seq) -> Commit {
        self.queue.lock().committed(tenant, seq)
    }

    fn find(&self, tenant: &TenantId, id: u128) -> Lookup {
        if let Some(known) = self.queue.lock().find(tenant, id) {
            return known;
        }
        match id % 100 < u128::from(self.chance.weather().unsure) {
            true => Lookup::Unsure { generation: 1 },
            false => Lookup::Fresh,
        }
    }

    fn find_on_disk<'a>(&'a self, tenant: &'a TenantId, id: u128) -> BoxFuture<'a, Result<Option<Seq>, LedgerError>> {
        Box::pin(self.read(move |state| state.bound(tenant, id)))
    }

    fn entry<'a>(&'a self, tenant: &'a TenantId, seq: Seq) -> BoxFuture<'a, Result<Option<Entry>, LedgerError>> {
        Box::pin(self.read(move |state| state.entry(tenant, seq)))
    }

    fn journal<'a>(&'a self, after: Seq, limit: usize) -> BoxFuture<'a, Result<Vec<Line>, LedgerError>> {
        Box::pin(self.read(move |state| {
            let lines = (1..).zip(&state.order).skip(after as usize).take(limit);
            let line = |(place, (tenant, seq)): (Seq, &(TenantId, Seq))| {
                state.entry(tenant, *seq).map(|entry| (place, tenant.clone(), entry))
            };
            lines.filter_map(line).collect()
        }))
    }

    fn checkpoint(&self, folds: Vec<Fold>, _complete_through: Option<Seq>) -> Commit {
        let (waiter, receiver) = oneshot::channel();
        self.queue.lock().checkpoints.push_back(Checkpoint { folds, waiter });
        Commit::Waiting(receiver)
    }

    fn reopen(&self) -> Result<(), LedgerError> {
        Ok(())
    }

    fn tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TenantId>, LedgerError>> {
        Box::pin(self.read(move |state| {
            let all = state.tenants.keys().filter(|id| after.is_none_or(|after| *id > after));
            all.take(limit).cloned().collect()
        }))
    }

    fn plans_in_use<'a>(&'a self) -> BoxFuture<'a, Result<Vec<PlanKey>, LedgerError>> {
        Box::pin(self.read(|state| state.plans()))
    }

    fn denials<'a>(&'a self, query: &'a DenialQuery) -> BoxFuture<'a, Result<Vec<StoredDenial>, LedgerError>> {
        Box::pin(self.read(move |state| {
            let mut found: Vec<StoredDenial> = Vec::new();
            for (tenant, seq) in &state.order {
                if query.tenant.as_ref().is_some_and(|asked| asked != tenant) {
                    continue;
                }
                let Some(entry) = state.entry(tenant, *seq) else { continue };
                for effect in entry.effects {
                    let Effect::Denials(run) = effect else { continue };
                    let id = denial_id(tenant, &run.key);
                    match found.iter_mut().find(|known| known.id == id) {
                        Some(known) => {
                            known.run.count += run.count;
                            known.run.amount += run.amount;
                            known.run.last_at = known.run.last_at.max(run.last_at);
                        }
                        None => found.push(StoredDenial { id, tenant: tenant.clone(), run: *run }),
                    }
                }
            }
            found.retain(|denial| denial.run.key.shadow == query.shadow);
            found.sort_by_key(|denial| std::cmp::Reverse((denial.run.first_at, denial.id)));
            found.truncate(query.limit);
            found
        }))
    }

    fn denial<'a>(&'a self, id: DenialId) -> BoxFuture<'a, Result<Option<StoredDenial>, LedgerError>> {
        Box::pin(async move {
            for shadow in [false, true] {
                let query = DenialQuery { shadow, limit: usize::MAX, ..DenialQuery::default() };
                if let Some(found) = self.denials(&query).await?.into_iter().find(|denial| denial.id == id) {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    fn closed<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<ClosedRow>, LedgerError>> {
        Box::pin(self.read(move |state| state.closed(tenant, user)))
    }

    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ApiKey>, LedgerError>> {
        Box::pin(self.read(|state| state.keys.values().cloned().collect()))
    }

    fn put_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(self.read(move |state| {
            state.keys.insert(key.id.clone(), key.clone());
            state.keys_version += 1;
        }))
    }

    fn newest_catalog<'a>(&'a self) -> BoxFuture<'a, Result<Option<StoredCatalog>, LedgerError>> {
        Box::pin(self.read(|state| state.catalogs.last().map(|catalog| catalog.stored.clone())))
    }

    fn catalogs<'a>(&'a self) -> BoxFuture<'a, Result<Vec<StoredCatalog>, LedgerError>> {
        Box::pin(self.read(|state| state.catalogs.iter().map(|catalog| catalog.stored.clone()).collect()))
    }

    fn put_catalog<'a>(&'a self, text: &'a str, at: Instant) -> BoxFuture<'a, Result<u32, LedgerError>> {
        Box::pin(self.read(move |state| match state.publish(text, at, None) {
            Published::Version(version) => version,
            Published::PlansInUse(_) => 0,
        }))
    }

    fn secret(&self) -> [u8; 32] {
        [5; 32]
    }

    fn retain<'a>(&'a self, _retention: Retention, _now: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async { Ok(()) })
    }

    fn stats(&self) -> LedgerStats {
        let queue = self.queue.lock();
        LedgerStats { queue_entries: queue.entries(), tail_entries: queue.tail, ..LedgerStats::default() }
    }
}

impl SharedLedger for NodeLedger {
    fn load<'a>(&'a self, tenant: &'a TenantId, hold: bool) -> BoxFuture<'a, Result<Loaded, LedgerError>> {
        Box::pin(async move {
            while hold && self.wait_for_row(tenant).await {
                let kept = |state: &mut State| match state.is_kept_from(tenant, self.sender) {
                    true => None,
                    false => Some(state.load(tenant, Some(self.sender))),
                };
                if let Some(loaded) = self.read(kept).await? {
                    return Ok(self.seen(loaded));
                }
            }
            let loaded = self.read(move |state| state.load(tenant, None)).await?;
            Ok(self.seen(loaded))
        })
    }

    fn signals<'a>(&'a self) -> BoxFuture<'a, Result<Signals, LedgerError>> {
        Box::pin(self.read(|state| Signals {
            catalog_version: state.in_force(),
            keys_version: state.keys_version,
            now: Instant::from_ms(state.now_ms),
        }))
    }

    fn publish<'a>(
        &'a self,
        text: &'a str,
        at: Instant,
        plans: &'a [PlanKey],
    ) -> BoxFuture<'a, Result<Published, LedgerError>> {
        Box::pin(self.read(move |state| state.publish(text, at, Some(plans))))
    }

    fn claim<'a>(
        &'a self,
        job: &'a str,
        node: &'a str,
        ttl_ms: i64,
    ) -> BoxFuture<'a, Result<Option<JobLease>, LedgerError>> {
        Box::pin(self.read(move |state| state.claim(job, node, ttl_ms)))
    }

    fn release<'a>(&'a self, lease: &'a JobLease) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(self.read(move |state| state.release(lease)))
    }
}
