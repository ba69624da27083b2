//! Days whose use was recorded afterwards, such as those that were brought along from elsewhere: what history has of them
//! becomes the daily history that forecasts are made of, at once and not by the next night.

use crate::{
    engine::Engine,
    ports::{Days, HistoryQuery, MeterSnapshots, Snapshot, SnapshotSource, Taken},
    requests::EngineError,
};
use domain::{
    day::Day,
    history::Resolution,
    id::{MeterKey, TenantId},
    time::{DAY_MS, Instant, Window},
};
use std::{collections::BTreeMap, sync::Arc};

/// Rows read at once.
const PAGE_ROWS: usize = 5_000;

/// Days of a meter that adds up, each of which is to have a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedDays {
    /// Which meter.
    pub meter: MeterKey,
    /// From when until when.
    pub days: Days,
}

impl CountedDays {
    /// Those of them that lie within others; `None` where there are none.
    pub fn within(&self, bounds: Days) -> Option<Self> {
        let days = Days { first: self.days.first.max(bounds.first), last: self.days.last.min(bounds.last) };
        (days.first <= days.last).then(|| Self { meter: self.meter.clone(), days })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        usize::try_from(self.days.last - self.days.first + 1).unwrap_or(0)
    }
}

impl Engine {
    /// The days that can be written down from history now: those that are over and that history, and the daily history
    /// with so many days, are kept of.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn countable_days(&self, keep_days: i32) -> Result<Days, EngineError> {
        let today = Day::of(self.now());
        let kept = self.history_kept().await?.first_whole_day();
        Ok(Days { first: kept.max(today + (1 - keep_days)), last: today + -1 })
    }

    /// Writes down what a tenant used on days that are over, as history has it now; again writes the same. A day of which
    /// history has nothing stands at 0, unless there is a row of it. What a collector found, or
    /// somebody pushed, stays. Gives how many rows there are
    /// to be of these days. Durable when it returns.
    ///
    /// # Errors
    /// [`EngineError::HistoryBehind`] while not everything that was recorded before can be in the rows; an unknown tenant; a failing
    /// ledger.
    pub async fn close_counted(
        self: &Arc<Self>,
        tenant: &TenantId,
        counted: &[CountedDays],
    ) -> Result<usize, EngineError> {
        self.tenant(tenant).await?;
        let bounds = counted
            .iter()
            .map(|of| of.days)
            .reduce(|a, b| Days { first: a.first.min(b.first), last: a.last.max(b.last) });
        let Some(bounds) = bounds else { return Ok(0) };
        let observed_at = self.now();
        let used = self.used_by_day(tenant, bounds, observed_at).await?;
        let known = self.snapshots(tenant, bounds).await?;
        let rows = counted.iter().flat_map(|of| rows(tenant, of, &used, &known, observed_at));
        self.put_snapshots(rows.collect()).await?;
        Ok(counted.iter().map(CountedDays::count).sum())
    }

    /// What a tenant used by day and meter, of everything that was recorded before an instant.
    async fn used_by_day(
        self: &Arc<Self>,
        tenant: &TenantId,
        days: Days,
        recorded_before: Instant,
    ) -> Result<BTreeMap<(Day, MeterKey), i64>, EngineError> {
        let mut query = HistoryQuery {
            tenant: tenant.clone(),
            resolution: Resolution::Day,
            window: Window { start: start_of(days.first), end: start_of(days.last + 1) },
            parts: false,
            user: None,
            after: None,
            limit: PAGE_ROWS,
        };
        let mut reader = self.history(tenant.clone());
        let mut used = BTreeMap::new();
        loop {
            let page = reader.rows(&query).await?;
            if page.complete_until < recorded_before {
                return Err(EngineError::HistoryBehind);
            }
            for (place, amounts) in &page.rows {
                used.insert((Day::of(place.start), place.meter.clone()), amounts.used);
            }
            query.after = page.rows.last().map(|(place, _)| place.clone());
            if !page.more || query.after.is_none() {
                return Ok(used);
            }
        }
    }
}

fn start_of(day: Day) -> Instant {
    Instant::from_ms(i64::from(day.number()) * DAY_MS)
}

fn rows<'a>(
    tenant: &'a TenantId,
    of: &'a CountedDays,
    used: &'a BTreeMap<(Day, MeterKey), i64>,
    known: &'a [MeterSnapshots],
    observed_at: Instant,
) -> impl Iterator<Item = Snapshot> + 'a {
    let known = known.iter().find(|known| known.meter == of.meter).map_or(&[][..], |known| &known.days);
    let days = (of.days.first.number()..=of.days.last.number()).map(Day::from_number);
    days.filter_map(move |day| {
        let known = known.iter().find(|taken| taken.day == day);
        let value = used.get(&(day, of.meter.clone())).copied();
        let taken = taken(day, value, known, observed_at)?;
        Some(Snapshot { tenant: tenant.clone(), meter: of.meter.clone(), taken })
    })
}

/// The row of a day; `None` where the one that is known stays.
fn taken(day: Day, used: Option<i64>, known: Option<&Taken>, observed_at: Instant) -> Option<Taken> {
    // Corrections may have taken away more than was used.
    let value = used.map(|used| used.max(0));
    match (known, value) {
        (Some(known), _) if known.source != SnapshotSource::Ledger => None,
        (Some(_), None) => None,
        // How another value was split at a reset is not known.
        (Some(known), Some(value)) => {
            let after_reset = known.after_reset.filter(|_| value == known.value);
            Some(Taken { value, after_reset, observed_at, ..*known })
        }
        (None, value) => Some(Taken {
            day,
            value: value.unwrap_or(0),
            after_reset: None,
            observed_at,
            source: SnapshotSource::Ledger,
        }),
    }
}
