//! The port.

use super::{FaultyLedger, Queue, answered};
use domain::{
    entry::Entry,
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
};
use engine::ports::{
    ApiKey, Append, Appended, BoxFuture, ClosedRow, Commit, DenialId, DenialQuery, Fold, HistoryLedger, Ledger,
    LedgerError, LedgerStats, Line, Lookup, Retention, Seq, Snapshots, Stored, StoredCatalog, StoredDenial, TailLines,
};
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

impl Ledger for FaultyLedger {
    fn snapshots(&self) -> &dyn Snapshots {
        self.inner.snapshots()
    }

    fn history(&self) -> Option<&dyn HistoryLedger> {
        self.inner.history()
    }

    fn load_tenant<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Option<Stored<Tenant>>, LedgerError>> {
        Box::pin(async move {
            self.dawdle().await;
            let stored = self.inner.load_tenant(tenant).await;
            self.dawdle().await;
            stored
        })
    }

    fn load_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Stored<User>>, LedgerError>> {
        Box::pin(async move {
            self.dawdle().await;
            let stored = self.inner.load_user(tenant, user).await;
            if self.keeps_users.load(Ordering::SeqCst) {
                self.handed_over.notified().await;
            }
            self.dawdle().await;
            stored
        })
    }

    fn tail(&self) -> Result<TailLines, LedgerError> {
        self.inner.tail()
    }

    fn ready(&self) -> Result<(), LedgerError> {
        let queue = self.queue.lock();
        queue.check()?;
        let waiting = queue.rows.len();
        if self.overloaded.load(Ordering::SeqCst) { Err(LedgerError::Overloaded { waiting }) } else { Ok(()) }
    }

    fn append(&self, append: Append) -> Result<Appended, LedgerError> {
        let mut queue = self.queue.lock();
        queue.check()?;
        if self.held.load(Ordering::SeqCst) || !queue.rows.is_empty() {
            let wait = append.wait;
            let (first, last) = queue.push(append);
            let newest = queue.next - 1;
            let commit = if wait { queue.commit_for(newest) } else { Commit::Done };
            return Ok(Appended { first, last, commit });
        }
        let ids: Vec<u128> = append.entries.iter().map(|entry| entry.binding.map_or(0, |binding| binding.id)).collect();
        let appended = self.inner.append(append)?;
        queue.recent.extend(ids.into_iter().zip(appended.first..).filter(|(id, _)| *id != 0));
        queue.next = queue.next.max(appended.last + 1);
        Ok(appended)
    }

    fn committed(&self, tenant: &TenantId, seq: Seq) -> Commit {
        let mut queue = self.queue.lock();
        let newest = queue.next - 1;
        match queue.commit_for(seq.min(newest)) {
            Commit::Done => self.inner.committed(tenant, seq),
            waiting => waiting,
        }
    }

    fn find(&self, tenant: &TenantId, id: u128) -> Lookup {
        let queue = self.queue.lock();
        if let Some(seq) = queue.recent.get(&id) {
            return Lookup::Bound(*seq);
        }
        match self.unsure_one_in.load(Ordering::Relaxed) {
            n if n > 0 && id.is_multiple_of(u128::from(n)) => Lookup::Unsure { generation: queue.generation },
            _ => self.inner.find(tenant, id),
        }
    }

    fn find_on_disk<'a>(&'a self, tenant: &'a TenantId, id: u128) -> BoxFuture<'a, Result<Option<Seq>, LedgerError>> {
        Box::pin(async move {
            self.dawdle().await;
            let found = match self.inner.find(tenant, id) {
                Lookup::Bound(seq) => Ok(Some(seq)),
                Lookup::Fresh => Ok(None),
                Lookup::Unsure { .. } => self.inner.find_on_disk(tenant, id).await,
            };
            self.dawdle().await;
            found
        })
    }

    fn entry<'a>(&'a self, tenant: &'a TenantId, seq: Seq) -> BoxFuture<'a, Result<Option<Entry>, LedgerError>> {
        Box::pin(async move {
            self.dawdle().await;
            self.inner.entry(tenant, seq).await
        })
    }

    fn journal<'a>(&'a self, after: Seq, limit: usize) -> BoxFuture<'a, Result<Vec<Line>, LedgerError>> {
        self.inner.journal(after, limit)
    }

    fn checkpoint(&self, folds: Vec<Fold>, complete_through: Option<Seq>) -> Commit {
        let mut queue = self.queue.lock();
        if let Some(error) = &queue.failed {
            return answered(Err(error.clone()));
        }
        if queue.rows.is_empty() && queue.checkpoints.is_empty() {
            return self.inner.checkpoint(folds, complete_through);
        }
        let (sender, receiver) = oneshot::channel();
        queue.checkpoints.push((folds, complete_through, sender));
        Commit::Waiting(receiver)
    }

    fn reopen(&self) -> Result<(), LedgerError> {
        let mut queue = self.queue.lock();
        self.inner.reopen()?;
        let generation = queue.generation + 1;
        *queue = Queue { next: self.inner.stats().committed_seq + 1, generation, ..Queue::default() };
        Ok(())
    }

    fn tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TenantId>, LedgerError>> {
        self.inner.tenants(after, limit)
    }

    fn plans_in_use<'a>(&'a self) -> BoxFuture<'a, Result<Vec<PlanKey>, LedgerError>> {
        self.inner.plans_in_use()
    }

    fn denials<'a>(&'a self, query: &'a DenialQuery) -> BoxFuture<'a, Result<Vec<StoredDenial>, LedgerError>> {
        self.inner.denials(query)
    }

    fn denial<'a>(&'a self, id: DenialId) -> BoxFuture<'a, Result<Option<StoredDenial>, LedgerError>> {
        self.inner.denial(id)
    }

    fn closed<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<ClosedRow>, LedgerError>> {
        self.inner.closed(tenant, user)
    }

    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ApiKey>, LedgerError>> {
        self.inner.keys()
    }

    fn put_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.inner.put_key(key)
    }

    fn newest_catalog<'a>(&'a self) -> BoxFuture<'a, Result<Option<StoredCatalog>, LedgerError>> {
        self.inner.newest_catalog()
    }

    fn catalogs<'a>(&'a self) -> BoxFuture<'a, Result<Vec<StoredCatalog>, LedgerError>> {
        self.inner.catalogs()
    }

    fn put_catalog<'a>(&'a self, text: &'a str, at: Instant) -> BoxFuture<'a, Result<u32, LedgerError>> {
        Box::pin(async move {
            self.dawdle().await;
            self.inner.put_catalog(text, at).await
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.inner.secret()
    }

    fn retain<'a>(&'a self, retention: Retention, now: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.inner.retain(retention, now)
    }

    fn stats(&self) -> LedgerStats {
        let waiting = self.queue.lock().rows.len() as u64;
        let stats = self.inner.stats();
        LedgerStats {
            queue_entries: stats.queue_entries + waiting,
            tail_entries: stats.tail_entries + waiting,
            ..stats
        }
    }
}
