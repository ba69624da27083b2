//! Kept forecasts in memory.

use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{
    BoxFuture, FleetQuery, ForecastScore, Forecasts, KeptForecast, LatestForecast, LedgerError, MeterGrowth,
    SCORE_COUNTS, SettledForecast,
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

type KeptName = (Day, TenantId, MeterKey, Arc<str>, Day);

fn name(kept: &KeptForecast) -> KeptName {
    (kept.horizon, kept.tenant.clone(), kept.meter.clone(), kept.limit.clone(), kept.asked)
}

#[derive(Default)]
struct Book {
    latest: BTreeMap<(TenantId, MeterKey), LatestForecast>,
    kept: BTreeMap<KeptName, KeptForecast>,
    scores: BTreeMap<(MeterKey, PlanKey), [u64; SCORE_COUNTS]>,
    growth: Vec<MeterGrowth>,
}

/// A book of forecasts in memory.
#[derive(Default)]
pub struct MemoryForecasts(Mutex<Book>);

impl MemoryForecasts {
    fn with<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Book) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        Box::pin(async move { Ok(work(&mut self.0.lock())) })
    }
}

impl Forecasts for MemoryForecasts {
    fn put_latest<'a>(&'a self, rows: Vec<LatestForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(|book| {
            book.latest.extend(rows.into_iter().map(|row| ((row.tenant.clone(), row.meter.clone()), row)));
        })
    }

    fn fleet<'a>(&'a self, query: &'a FleetQuery) -> BoxFuture<'a, Result<Vec<LatestForecast>, LedgerError>> {
        self.with(move |book| {
            let after = |row: &LatestForecast| query.after.as_ref().is_none_or(|after| row.place() > *after);
            let asked = book.latest.values().filter(|row| query.asks_for(row) && after(row));
            let mut rows: Vec<LatestForecast> = asked.cloned().collect();
            rows.sort_by_key(LatestForecast::place);
            rows.truncate(query.limit);
            rows
        })
    }

    fn last<'a>(&'a self) -> BoxFuture<'a, Result<Option<LatestForecast>, LedgerError>> {
        self.with(|book| book.latest.values().next_back().cloned())
    }

    fn drop_latest_before<'a>(&'a self, made_at: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |book| book.latest.retain(|_, row| row.made_at >= made_at))
    }

    fn keep<'a>(&'a self, rows: Vec<KeptForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(|book| book.kept.extend(rows.into_iter().map(|row| (name(&row), row))))
    }

    fn due<'a>(&'a self, horizon: Day, limit: usize) -> BoxFuture<'a, Result<Vec<KeptForecast>, LedgerError>> {
        self.with(move |book| book.kept.values().filter(|row| row.horizon <= horizon).take(limit).cloned().collect())
    }

    fn settle<'a>(&'a self, rows: Vec<SettledForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(|book| {
            for row in rows {
                let was_kept = book.kept.remove(&name(&row.kept)).is_some();
                if let (true, Some(counts)) = (was_kept, row.counts) {
                    let sums = book.scores.entry((row.kept.meter, row.kept.plan)).or_default();
                    sums.iter_mut().zip(counts).for_each(|(sum, more)| *sum = sum.saturating_add(more));
                }
            }
        })
    }

    fn scores<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ForecastScore>, LedgerError>> {
        self.with(|book| {
            let scores = book.scores.iter();
            let scores = scores.map(|((meter, plan), counts)| ForecastScore {
                meter: meter.clone(),
                plan: plan.clone(),
                counts: *counts,
            });
            scores.collect()
        })
    }

    fn put_growth<'a>(&'a self, mut rows: Vec<MeterGrowth>) -> BoxFuture<'a, Result<(), LedgerError>> {
        rows.sort_by(|a, b| a.meter.cmp(&b.meter));
        self.with(|book| book.growth = rows)
    }

    fn growth<'a>(&'a self) -> BoxFuture<'a, Result<Vec<MeterGrowth>, LedgerError>> {
        self.with(|book| book.growth.clone())
    }
}
