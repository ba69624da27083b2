//! Tenants' rows that are kept locked for a caller who lost before: nobody else can write to the tenant until what is
//! appended next is committed, in the same transaction, or a short while has passed.

use super::{
    batch::Part,
    errors::{Done, Failure},
    ledger::Inner,
    outcome,
    pool::Conn,
    queue::Slot,
    queued::Queued,
    reads,
    statement::Locked,
    values::first,
};
use domain::id::TenantId;
use engine::ports::Loaded;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::{Instant, timeout},
};
use tokio_postgres::types::Type;

/// How long a row is kept without anything appended.
const KEPT: Duration = Duration::from_millis(250);
/// How long others may join the first append.
const LINGER: Duration = Duration::from_micros(200);
/// A node that stops here blocks others no longer than this.
const SETTINGS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// A tenant whose appends come here instead of to the committer. When it is dropped they go back.
struct Kept {
    inner: Arc<Inner>,
    tenant: TenantId,
    news: Arc<Notify>,
}

impl Kept {
    /// `None` if there is one for the tenant already.
    fn new(inner: &Arc<Inner>, tenant: &TenantId) -> Result<Self, Arc<Notify>> {
        let mut state = inner.queue.state.lock();
        if let Some(slot) = state.slots.get(tenant) {
            return Err(slot.news.clone());
        }
        let news = Arc::new(Notify::new());
        state.slots.insert(tenant.clone(), Slot { appends: Vec::new(), news: news.clone() });
        drop(state);
        Ok(Self { inner: inner.clone(), tenant: tenant.clone(), news })
    }

    fn has_news(&self) -> bool {
        let state = self.inner.queue.state.lock();
        state.stopping || state.slots.get(&self.tenant).is_none_or(|slot| !slot.appends.is_empty())
    }

    fn close(&self) -> Vec<Queued> {
        self.inner.queue.close_slot(&self.tenant)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let left = self.close();
        self.inner.queue.put_back(left);
    }
}

/// Loads a tenant and keeps its row locked.
pub(super) async fn load(inner: &Arc<Inner>, tenant: &TenantId) -> Done<Loaded> {
    let plain = async || reads::load(&mut inner.pool.get().await?, tenant).await;
    let kept = match Kept::new(inner, tenant) {
        Ok(kept) => kept,
        // This node keeps the row already: whoever appends first commits for all.
        Err(_) => return plain().await,
    };
    let Ok(permit) = inner.holds.clone().try_acquire_owned() else {
        drop(kept);
        return plain().await;
    };
    let mut conn = inner.pool.get().await?;
    match lock(&mut conn, tenant).await {
        Ok(true) => {}
        Ok(false) => {
            conn.roll_back().await?;
            drop(kept);
            return reads::load(&mut conn, tenant).await;
        }
        // Somebody else keeps it for too long. What is loaded may be outdated by them, as without a hold.
        Err(Failure::Again(_)) => {
            conn.roll_back().await?;
            drop(kept);
            return reads::load(&mut conn, tenant).await;
        }
        Err(failure) => return Err(failure),
    }
    let loaded = reads::load(&mut conn, tenant).await?;
    tokio::spawn(keep(kept, conn, permit));
    Ok(loaded)
}

/// Locks the row; false if there is none.
async fn lock(conn: &mut Conn, tenant: &TenantId) -> Done<bool> {
    conn.begin(SETTINGS).await?;
    // As commits do, before any row: whoever waits to put a catalog in force must not stand between the two.
    let first_of_all = "SELECT pg_advisory_xact_lock_shared(1413958724, 'tidegate.meta'::regclass::oid::integer)";
    conn.run(first_of_all).await?;
    let sql = "SELECT version FROM tidegate.tenants WHERE tenant = $1 FOR NO KEY UPDATE";
    let rows = conn.rows(sql, &[(&tenant.as_str(), Type::TEXT)]).await?;
    Ok(first::<i64>(&rows)?.is_some())
}

/// Waits for what is appended, and commits it.
async fn keep(kept: Kept, mut conn: Conn, _permit: OwnedSemaphorePermit) {
    let appended = timeout(KEPT, async {
        loop {
            let news = kept.news.notified();
            if kept.has_news() {
                return;
            }
            news.await;
        }
    });
    if appended.await.is_ok() {
        let began = Instant::now();
        while began.elapsed() < LINGER {
            tokio::task::yield_now().await;
        }
    }
    match kept.inner.queue.take_kept(&kept.tenant) {
        Some(part) => commit(&kept.inner, &mut conn, vec![part]).await,
        // A transaction that can't be rolled back is one whose connection is gone.
        None => drop(conn.roll_back().await),
    }
    // Only now does the rest go the usual way, when `kept` is dropped: two connections that write to one tenant at once
    // could build on what the other has not committed.
}

async fn commit(inner: &Arc<Inner>, conn: &mut Conn, mut parts: Vec<Part>) {
    outcome::stamp(&mut parts, || (inner.options.random)());
    let verdicts = match outcome::send(conn, &inner.queue, &mut parts, Locked::Skip).await {
        Ok(verdicts) => match conn.commit().await {
            Ok(()) => Ok(verdicts),
            Err(failure) => {
                parts.iter_mut().for_each(|part| part.uncertain = true);
                Err(failure)
            }
        },
        Err(failure) => {
            // If this fails, the connection is gone, and the transaction with it.
            let _ = conn.roll_back().await;
            Err(failure)
        }
    };
    match verdicts {
        Ok(verdicts) => outcome::tell(&inner.queue, parts, verdicts),
        // The committer finds out what became of it, or tries again.
        Err(_) => inner.queue.carry(parts),
    }
}
