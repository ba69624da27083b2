//! What the ledger counted in a day, of all tenants in order of id, read as they are gone through. Of a day that history is
//! not kept of wholly, nothing is said.

use super::start_of;
use domain::{
    day::Day,
    history::{Amounts, Place, Resolution},
    id::{MeterKey, TenantId},
    time::{DAY_MS, Frame, Instant, Window, WindowKind},
    view::Usage,
};
use engine::{
    Engine,
    ports::HistoryQuery,
    requests::{EngineError, TenantCard},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Rows read at once.
const PAGE_ROWS: usize = 5_000;
/// Buckets of one tenant read at once, where a day is split.
const SPLIT_ROWS: usize = 2_000;

/// A tenant's billing periods.
pub(super) struct Periods {
    present: Window,
    frame: Frame,
}

impl Periods {
    pub(super) fn of(card: &TenantCard, usage: &Usage) -> Self {
        let (anchor, zone) = (card.profile.anchor, card.profile.zone.clone());
        Self { present: usage.period, frame: Frame { anchor, zone } }
    }
}

/// What one tenant used.
#[derive(Default)]
pub(super) struct Counts {
    of_day: BTreeMap<MeterKey, Amounts>,
    after_reset: Option<BTreeMap<MeterKey, i64>>,
}

impl Counts {
    /// What it used of a counter in the day.
    pub(super) fn used(&self, meter: &MeterKey) -> i64 {
        self.of_day.get(meter).map_or(0, |amounts| amounts.used)
    }

    /// How much of that after a billing period ended in the day; `None` where none did.
    pub(super) fn after_reset(&self, meter: &MeterKey) -> Option<i64> {
        self.after_reset.as_ref().map(|after| after.get(meter).copied().unwrap_or(0))
    }
}

/// The rows of one day, tenant by tenant.
struct Stream {
    day: Day,
    rows: VecDeque<(Place, Amounts)>,
    last: Option<Place>,
    is_read: bool,
}

impl Stream {
    fn of(day: Day) -> Self {
        Self { day, rows: VecDeque::new(), last: None, is_read: false }
    }

    /// The rows of a tenant, which is behind all that were asked for before.
    async fn of_tenant(
        &mut self,
        engine: &Engine,
        tenant: &TenantId,
        mut visit: impl FnMut(MeterKey, Amounts),
    ) -> Result<(), EngineError> {
        loop {
            while let Some((place, amounts)) = self.rows.front() {
                if place.tenant > *tenant {
                    return Ok(());
                }
                if place.tenant == *tenant && place.series.is_whole() {
                    visit(place.meter.clone(), *amounts);
                }
                self.rows.pop_front();
            }
            if self.is_read {
                return Ok(());
            }
            let start = start_of(self.day);
            let page = engine.history_of_all(Resolution::Day, start, self.last.as_ref(), PAGE_ROWS).await?;
            let kept = page.state.kept;
            if self.day < kept.first_whole_day() {
                return Err(EngineError::HistoryNotKept { since: kept.of(Resolution::Day) });
            }
            self.is_read = page.rows.len() < PAGE_ROWS;
            self.last = page.rows.last().map(|(place, _)| place.clone());
            self.rows = page.rows.into();
        }
    }
}

/// What was counted in a day.
pub(super) struct Counted<'a> {
    engine: &'a Arc<Engine>,
    day: Day,
    of_day: Stream,
}

impl<'a> Counted<'a> {
    /// Of a day.
    pub(super) fn of(engine: &'a Arc<Engine>, day: Day) -> Self {
        Self { engine, day, of_day: Stream::of(day) }
    }

    /// What a tenant used. Tenants are asked for in order of id.
    pub(super) async fn of_tenant(&mut self, tenant: &TenantId, periods: &Periods) -> Result<Counts, EngineError> {
        let mut counts = self.used_by(tenant).await?;
        counts.after_reset = self.after_reset(tenant, periods).await?;
        Ok(counts)
    }

    /// What a tenant used of the meters that add up, alone. Tenants are asked for in order of id.
    pub(super) async fn used_by(&mut self, tenant: &TenantId) -> Result<Counts, EngineError> {
        let mut counts = Counts::default();
        let of_day = &mut counts.of_day;
        let note = |meter, amounts| *of_day.entry(meter).or_default() = amounts;
        self.of_day.of_tenant(self.engine, tenant, note).await?;
        Ok(counts)
    }

    /// What a tenant, with these billing periods used in the day after one ended; `None` where none did.
    pub(super) async fn after_reset(
        &self,
        tenant: &TenantId,
        periods: &Periods,
    ) -> Result<Option<BTreeMap<MeterKey, i64>>, EngineError> {
        match self.reset(periods) {
            Some(reset) => self.used_from(tenant, reset).await,
            None => Ok(None),
        }
    }

    /// When a billing period ended within the day. Of a period before the present one that is where the anchor says it
    /// began: earlier anchors are not known any more.
    fn reset(&self, periods: &Periods) -> Option<Instant> {
        let start = start_of(self.day);
        let end = start.plus_ms(DAY_MS);
        let began = match periods.present.start < end {
            true => periods.present.start,
            false => periods.frame.window(WindowKind::Period, end.plus_ms(-1)).start,
        };
        (start < began).then_some(began)
    }

    /// What was used from an instant of the day on: to the minute as long as minutes are kept, to the quarter of an hour later;
    /// `None` when those are not kept either.
    async fn used_from(
        &self,
        tenant: &TenantId,
        from: Instant,
    ) -> Result<Option<BTreeMap<MeterKey, i64>>, EngineError> {
        let kept = self.engine.history_kept().await?;
        let fine = [Resolution::Minute, Resolution::Quarter];
        let Some(resolution) = fine.into_iter().find(|resolution| kept.is_whole(*resolution, from)) else {
            return Ok(None);
        };
        let mut query = HistoryQuery {
            tenant: tenant.clone(),
            resolution,
            window: Window { start: from, end: start_of(self.day).plus_ms(DAY_MS) },
            parts: false,
            user: None,
            after: None,
            limit: SPLIT_ROWS,
        };
        let mut reader = self.engine.history(tenant.clone());
        let mut used: BTreeMap<MeterKey, i64> = BTreeMap::new();
        loop {
            let page = reader.rows(&query).await?;
            for (place, amounts) in &page.rows {
                let sum = used.entry(place.meter.clone()).or_default();
                *sum = sum.saturating_add(amounts.used);
            }
            query.after = page.rows.last().map(|(place, _)| place.clone());
            if !page.more || query.after.is_none() {
                return Ok(Some(used));
            }
        }
    }
}
