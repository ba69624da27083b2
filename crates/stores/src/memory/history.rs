//! History in memory.

use super::MemoryLedger;
use domain::{
    history::{KeptFrom, Place, Resolution, Rows, Series},
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::ports::{BoxFuture, HistoryLedger, HistoryPage, HistoryQuery, HistoryState, LedgerError, Seq};

impl HistoryLedger for MemoryLedger {
    fn state<'a>(&'a self) -> BoxFuture<'a, Result<HistoryState, LedgerError>> {
        self.read(|state| state.history_state)
    }

    fn add<'a>(&'a self, from: Seq, through: Seq, at: Instant, rows: Rows) -> BoxFuture<'a, Result<bool, LedgerError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check()?;
            if state.history_state.through != from || through < from {
                return Ok(false);
            }
            for (place, amounts) in rows {
                state.history.entry(place).or_default().add(&amounts);
            }
            state.history_state.through = through;
            state.history_state.at = state.history_state.at.max(at);
            Ok(true)
        })
    }

    fn page<'a>(&'a self, query: &'a HistoryQuery) -> BoxFuture<'a, Result<HistoryPage, LedgerError>> {
        self.read(move |state| {
            let first = first_of(query.resolution.start_of(query.window.start));
            let rows = state.history.range((query.resolution, first)..);
            let rows = rows
                .take_while(|((resolution, place), _)| {
                    *resolution == query.resolution && place.start < query.window.end
                })
                .filter(|((_, place), _)| {
                    place.tenant == query.tenant
                        && place.series.is_whole() != query.parts
                        && (query.user.is_none() || place.series.user == query.user)
                        && query.after.as_ref().is_none_or(|after| place > after)
                });
            let rows = rows.take(query.limit).map(|((_, place), amounts)| (place.clone(), *amounts)).collect();
            HistoryPage { state: state.history_state, rows }
        })
    }

    fn bucket<'a>(
        &'a self,
        resolution: Resolution,
        start: Instant,
        after: Option<&'a Place>,
        limit: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, LedgerError>> {
        self.read(move |state| {
            let rows = state.history.range((resolution, first_of(start))..);
            let rows = rows
                .take_while(|((found, place), _)| *found == resolution && place.start == start)
                .filter(|((_, place), _)| place.series.is_whole() && after.is_none_or(|after| place > after));
            let rows = rows.take(limit).map(|((_, place), amounts)| (place.clone(), *amounts)).collect();
            HistoryPage { state: state.history_state, rows }
        })
    }

    fn drop_before<'a>(&'a self, kept: KeptFrom) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check()?;
            let known = &mut state.history_state.kept;
            for (known, from) in known.0.iter_mut().zip(kept.0) {
                *known = from.max(*known);
            }
            let kept = *known;
            state.history.retain(|(resolution, place), _| kept.keeps(*resolution, place.start));
            Ok(())
        })
    }
}

/// Before every row of a bucket.
fn first_of(start: Instant) -> Place {
    Place { start, tenant: TenantId::trusted(""), series: Series::WHOLE, meter: MeterKey::trusted("") }
}
