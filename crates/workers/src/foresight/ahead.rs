//! What was recorded of all tenants, page by page.

use domain::id::TenantId;
use engine::{
    Engine,
    ports::{Days, LedgerError, MeterSnapshots, TenantSnapshots},
    requests::EngineError,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle},
};

/// Tenants read at once. Few: a read of the embedded ledger is done where it is asked for, and requests wait meanwhile.
const PAGE_TENANTS: usize = 50;
/// Pages that are read at once, while one is worked on.
const PAGES_AHEAD: usize = 2;

/// Some tenants, and what was recorded of each.
pub(super) type Tenants = Vec<(TenantId, Vec<MeterSnapshots>)>;

/// The next tenants, read on threads that may wait: an embedded ledger is read where it is asked. There is far more to read
/// than to work out, so that some pages are read at once.
pub(super) struct ReadAhead<'a> {
    engine: &'a Arc<Engine>,
    days: Days,
    /// The last tenant whose page is asked for.
    last: Option<TenantId>,
    is_last: bool,
    pages: VecDeque<JoinHandle<Result<Tenants, EngineError>>>,
}

impl<'a> ReadAhead<'a> {
    pub(super) fn of(engine: &'a Arc<Engine>, days: Days) -> Self {
        Self { engine, days, last: None, is_last: false, pages: VecDeque::new() }
    }

    /// The next page; `None` where there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Tenants>, EngineError> {
        while self.pages.len() < PAGES_AHEAD && !self.is_last {
            self.ask_for_more().await?;
        }
        let Some(page) = self.pages.pop_front() else { return Ok(None) };
        page.await.unwrap_or_else(lost).map(Some)
    }

    async fn ask_for_more(&mut self) -> Result<(), EngineError> {
        let (engine, after) = (self.engine.clone(), self.last.clone());
        let listed = on_a_thread(async move { engine.tenants(after.as_ref(), PAGE_TENANTS).await });
        let ids: Vec<TenantId> = listed.await.unwrap_or_else(lost)?.into_iter().map(|card| card.id).collect();
        let Some(last) = ids.last().cloned() else {
            self.is_last = true;
            return Ok(());
        };
        let (engine, after, days) = (self.engine.clone(), self.last.replace(last), self.days);
        self.pages.push_back(on_a_thread(async move { recorded(&engine, after, ids, days).await }));
        Ok(())
    }
}

/// Reads on a thread that may wait.
fn on_a_thread<T: Send + 'static>(
    read: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> JoinHandle<Result<T, EngineError>> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(read))
}

fn lost<T>(_: JoinError) -> Result<T, EngineError> {
    Err(LedgerError::Damaged("tenants could not be read ahead".into()).into())
}

/// What was recorded of these tenants, which are the next after one.
async fn recorded(
    engine: &Engine,
    after: Option<TenantId>,
    ids: Vec<TenantId>,
    days: Days,
) -> Result<Tenants, EngineError> {
    let Some(last) = ids.last() else { return Ok(Vec::new()) };
    let known = engine.snapshot_book().of_tenants(after.as_ref(), last, days).await?;
    let mut known: BTreeMap<TenantId, TenantSnapshots> =
        known.into_iter().map(|known| (known.tenant.clone(), known)).collect();
    let of_tenant = |id: TenantId| {
        let meters = known.remove(&id).map(|known| known.meters).unwrap_or_default();
        (id, meters)
    };
    Ok(ids.into_iter().map(of_tenant).collect())
}
