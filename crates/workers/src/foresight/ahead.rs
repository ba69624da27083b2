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
use tokio::{runtime::Handle, task::JoinHandle};

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
        let lost = |_| Err(LedgerError::Damaged("tenants could not be read ahead".into()).into());
        page.await.unwrap_or_else(lost).map(Some)
    }

    async fn ask_for_more(&mut self) -> Result<(), EngineError> {
        let cards = self.engine.tenants(self.last.as_ref(), PAGE_TENANTS).await?;
        let Some(last) = cards.last().map(|card| card.id.clone()) else {
            self.is_last = true;
            return Ok(());
        };
        let ids = cards.into_iter().map(|card| card.id).collect();
        let (engine, after, days, runtime) =
            (self.engine.clone(), self.last.replace(last), self.days, Handle::current());
        let read = move || runtime.block_on(recorded(&engine, after, ids, days));
        self.pages.push_back(tokio::task::spawn_blocking(read));
        Ok(())
    }
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
