//! Outlooks, put together when they are asked for. A tenant's history is kept in memory as it was read last, for as long
//! as the ledger says that no row of it is another; live numbers never are.

use crate::state::ApiState;
use domain::{catalog::Catalog, id::TenantId};
use engine::{
    Engine,
    ports::{Days, ForecastScore, LedgerError, MeterGrowth, MeterSnapshots},
    requests::EngineError,
};
use forecast::{HISTORY_DAYS, Histories, Lessons, MeterBacktest, Outlook, Recorded, Seen, last_known};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Days of history held in memory, of all tenants and meters: 16 bytes each.
const HELD_DAYS_MAX: usize = 1_000_000;
/// Days that a tenant's past is asked on, at most.
const BACKTEST_DAYS: i32 = 400;
/// What was learnt changes once a night: as long is it believed, in milliseconds.
const LESSONS_MS: i64 = 60_000;

/// What is held of histories, and what was learnt.
#[derive(Default)]
pub(crate) struct Foresight {
    held: Mutex<Held>,
    lessons: Mutex<Option<(i64, Arc<Lessons>)>>,
}

/// An outlook, and what it was made with.
pub(crate) struct Foreseen {
    pub(crate) outlook: Outlook,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) lessons: Arc<Lessons>,
    /// Whether the history was held.
    pub(crate) was_held: bool,
}

/// Histories that were read, the oldest reading first.
#[derive(Default)]
struct Held {
    of: BTreeMap<TenantId, (HistoryVersion, Arc<Histories>)>,
    order: VecDeque<TenantId>,
    days: usize,
}

/// What a history is true for: the number that the ledger gives its rows, and the day after which it looks back.
#[derive(Clone, Copy, PartialEq, Eq)]
struct HistoryVersion {
    rows: u64,
    days: Days,
}

impl Held {
    fn get(&self, tenant: &TenantId, version: HistoryVersion) -> Option<Arc<Histories>> {
        self.of.get(tenant).filter(|(known, _)| *known == version).map(|(_, histories)| histories.clone())
    }

    fn put(&mut self, tenant: &TenantId, version: HistoryVersion, histories: &Arc<Histories>) {
        let more = count(histories);
        match self.of.insert(tenant.clone(), (version, histories.clone())) {
            Some((_, before)) => self.days -= count(&before),
            None => self.order.push_back(tenant.clone()),
        }
        self.days += more;
        while self.days > HELD_DAYS_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.days -= self.of.remove(&oldest).map_or(0, |(_, histories)| count(&histories));
        }
    }
}

/// How many days are held; a tenant without any counts as one.
fn count(histories: &Histories) -> usize {
    histories.values().map(|recorded| recorded.history.days().len()).sum::<usize>() + 1
}

/// What was recorded, as the forecaster takes it.
fn histories(meters: &[MeterSnapshots]) -> Histories {
    meters.iter().map(|of| (of.meter.clone(), Recorded::of(of.values(), of.is_from_outside()))).collect()
}

impl Foresight {
    /// A tenant's outlook, now.
    pub(crate) async fn of(&self, engine: &Engine, tenant: &TenantId) -> Result<Foreseen, EngineError> {
        let (_, usage) = engine.usage(tenant, None).await?;
        let catalog = engine.prices_for(tenant).await?;
        let last = last_known(usage.at);
        let days = Days { first: last + (1 - HISTORY_DAYS), last };
        let (histories, was_held) = self.histories(engine, tenant, days).await?;
        let lessons = self.lessons(engine).await?;
        let seen = Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &lessons };
        let outlook = forecast::outlook(seen);
        Ok(Foreseen { outlook, catalog, lessons, was_held })
    }

    /// How a tenant's forecasts would have done on the days that are kept of it.
    pub(crate) async fn backtests(
        &self,
        engine: &Engine,
        tenant: &TenantId,
    ) -> Result<Vec<MeterBacktest>, EngineError> {
        let (_, usage) = engine.usage(tenant, None).await?;
        let catalog = engine.prices_for(tenant).await?;
        let last = last_known(usage.at);
        let days = Days { first: last + -BACKTEST_DAYS, last };
        let histories = histories(&engine.snapshot_book().of_tenant(tenant, days).await?);
        // By what was known without it: how past forecasts did is what is asked.
        let lessons = Lessons::default();
        let seen = Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &lessons };
        Ok(forecast::backtests(seen))
    }

    async fn histories(
        &self,
        engine: &Engine,
        tenant: &TenantId,
        days: Days,
    ) -> Result<(Arc<Histories>, bool), LedgerError> {
        // Before the rows: what changes between the two is read again the next time.
        let version = HistoryVersion { rows: engine.snapshot_book().version(tenant, days).await?, days };
        if let Some(held) = self.held.lock().get(tenant, version) {
            return Ok((held, true));
        }
        let histories = Arc::new(histories(&engine.snapshot_book().of_tenant(tenant, days).await?));
        self.held.lock().put(tenant, version, &histories);
        Ok((histories, false))
    }

    /// What was learnt from all tenants.
    pub(crate) async fn lessons(&self, engine: &Engine) -> Result<Arc<Lessons>, LedgerError> {
        let now_ms = engine.steady_ms();
        if let Some((read_ms, lessons)) = &*self.lessons.lock()
            && (0..LESSONS_MS).contains(&(now_ms - read_ms))
        {
            return Ok(lessons.clone());
        }
        let lessons = Arc::new(match engine.forecast_book() {
            None => Lessons::default(),
            Some(book) => {
                let scores = book.scores().await?.into_iter().map(ForecastScore::sums);
                Lessons::of(scores, book.growth().await?.into_iter().map(MeterGrowth::sums))
            }
        });
        *self.lessons.lock() = Some((now_ms, lessons.clone()));
        Ok(lessons)
    }
}

impl ApiState {
    /// How a tenant's forecasts would have done.
    pub(crate) async fn backtests(&self, tenant: &TenantId) -> Result<Vec<MeterBacktest>, EngineError> {
        self.foresight.backtests(self.engine(), tenant).await
    }

    /// A tenant's outlook, now; tells the observer whether its history was held.
    pub(crate) async fn foresee(&self, tenant: &TenantId) -> Result<Foreseen, EngineError> {
        let foreseen = self.foresight.of(self.engine(), tenant).await?;
        self.parts.observer.foreseen(foreseen.was_held);
        Ok(foreseen)
    }
}
