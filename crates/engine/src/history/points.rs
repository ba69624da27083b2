//! Answers of history: by minute, hour, day or month of a time zone, told apart by users and dimensions, a stretch of time
//! after another, so that no answer is ever held whole.

use super::HistoryReader;
use crate::{engine::Engine, ports::HistoryQuery, requests::EngineError};
use domain::{
    catalog::MeterKind,
    history::{Amounts, Resolution, Series},
    id::{DimensionKey, MeterKey, TenantId, UserId},
    time::{Frame, Instant, Window, WindowKind, Zone},
};
use std::{collections::BTreeMap, sync::Arc};

/// Buckets of the ledger that are looked at in one step, about.
const STEP_BUCKETS: i64 = 1_000;
/// Rows read at a time.
const PAGE_ROWS: usize = 5_000;
/// Series of one step.
const SERIES_MAX: usize = 100_000;

/// What is asked of history.
#[derive(Debug, Clone)]
pub struct HistoryAsked {
    /// Whose.
    pub tenant: TenantId,
    /// By which windows: months, days, hours or minutes.
    pub per: WindowKind,
    /// Cut in which zone.
    pub zone: Zone,
    /// From when until when. Whole windows are answered, those that its ends lie in too.
    pub window: Window,
    /// Of which meters; none is all.
    pub meters: Vec<MeterKey>,
    /// Of one user alone.
    pub user: Option<UserId>,
    /// Of one value of a dimension alone.
    pub dimension: Option<(DimensionKey, Arc<str>)>,
    /// Whether users are told apart.
    pub by_user: bool,
    /// The dimensions that are told apart.
    pub by: Vec<DimensionKey>,
}

/// What a series of an answer is told apart by. `None` is use that named no user, or no value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Group {
    user: Option<UserId>,
    dimensions: Vec<(DimensionKey, Option<Arc<str>>)>,
}

/// One number of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPoint {
    /// When.
    pub window: Window,
    /// Of which meter.
    pub meter: MeterKey,
    /// Whose, where users are told apart.
    pub user: Option<UserId>,
    /// With which dimensions, where they are told apart.
    pub dimensions: Vec<(DimensionKey, Option<Arc<str>>)>,
    /// What was used; the level of a gauge when the window ended, or now.
    pub used: i64,
    /// Unmet demand.
    pub denied: i64,
}

/// An answer, step by step.
pub struct HistoryPoints {
    asked: HistoryAsked,
    frame: Frame,
    base: Resolution,
    reader: HistoryReader,
    /// What comes next.
    at: Instant,
    /// The levels of gauges at that instant.
    levels: BTreeMap<MeterKey, i64>,
    complete_until: Instant,
}

impl HistoryAsked {
    /// The buckets that windows of this kind and zone are made of. Days in UTC are kept the longest.
    fn base(&self) -> Resolution {
        match self.per {
            WindowKind::Minute => Resolution::Minute,
            WindowKind::Day | WindowKind::Month if self.zone == Zone::utc() => Resolution::Day,
            _ => Resolution::Quarter,
        }
    }

    /// Whether one series alone is asked for, whose levels are known.
    fn has_levels(&self) -> bool {
        self.dimension.is_none() && !self.by_user && self.by.is_empty()
    }

    fn is_of_parts(&self) -> bool {
        self.user.is_some() || !self.has_levels()
    }

    fn wants(&self, meter: &MeterKey) -> bool {
        self.meters.is_empty() || self.meters.contains(meter)
    }

    fn is_about(&self, series: &Series) -> bool {
        self.dimension.as_ref().is_none_or(|wanted| series.dimensions.contains(wanted))
    }

    fn group(&self, series: &Series) -> Group {
        let value = |key: &DimensionKey| {
            series.dimensions.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
        };
        Group {
            user: series.user.clone().filter(|_| self.by_user),
            dimensions: self.by.iter().map(|key| (key.clone(), value(key))).collect(),
        }
    }
}

type Sums = BTreeMap<(Instant, MeterKey, Group), Amounts>;

impl HistoryPoints {
    /// The beginning of an answer.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`]; [`EngineError::HistoryNotKept`] where it would begin before what is kept; a failing
    /// ledger.
    pub async fn begin(engine: &Arc<Engine>, mut asked: HistoryAsked) -> Result<Self, EngineError> {
        engine.tenant(&asked.tenant).await?;
        let frame = Frame { anchor: Instant::EPOCH, zone: asked.zone.clone() };
        let start = frame.window(asked.per, asked.window.start).start;
        let end = frame.boundary_at_or_after(asked.per, asked.window.end);
        asked.window = Window { start, end };
        let base = asked.base();
        let since = engine.history_ledger()?.state().await?.kept.of(base);
        if start < base.start_of(since) {
            return Err(EngineError::HistoryNotKept { since });
        }
        let reader = engine.history(asked.tenant.clone());
        let (at, complete_until) = (start, engine.now());
        let mut points = Self { asked, frame, base, reader, at, levels: BTreeMap::new(), complete_until };
        if points.asked.has_levels() {
            points.find_levels(engine).await?;
        }
        Ok(points)
    }

    /// What is answered: whole windows.
    pub fn window(&self) -> Window {
        self.asked.window
    }

    /// Everything that was recorded before this instant is in what was given so far.
    pub fn complete_until(&self) -> Instant {
        self.complete_until
    }

    /// The next points, in order of time; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::TooManySeries`], or a failing ledger.
    pub async fn next(&mut self) -> Result<Option<Vec<HistoryPoint>>, EngineError> {
        if self.at >= self.asked.window.end {
            return Ok(None);
        }
        let windows = self.step();
        let end = windows.last().map_or(self.asked.window.end, |window| window.end);
        let stretch = Window { start: self.at, end };
        let mut sums = Sums::new();
        let parts = self.asked.is_of_parts();
        self.sum(&mut sums, self.base, stretch, parts, false).await?;
        if parts && self.asked.user.is_none() && self.asked.dimension.is_none() {
            // What named neither a user nor a dimension is what is left of the whole.
            self.sum(&mut sums, self.base, stretch, false, true).await?;
        }
        let mut points = Vec::new();
        for window in windows {
            self.push(&mut points, window, &sums);
        }
        self.at = end;
        Ok(Some(points))
    }

    /// Some windows, beginning with the next.
    fn step(&self) -> Vec<Window> {
        let (mut windows, mut at) = (Vec::new(), self.at);
        let through_ms = self.at.ms().saturating_add(STEP_BUCKETS * self.base.length_ms());
        while at < self.asked.window.end && (windows.is_empty() || at.ms() < through_ms) {
            let window = Window { start: at, ..self.frame.window(self.asked.per, at) };
            at = window.end.max(at.plus_ms(1));
            windows.push(window);
        }
        windows
    }

    /// Sums rows by window and group. The whole is what its parts are taken from: together they are what named nothing.
    async fn sum(
        &mut self,
        sums: &mut Sums,
        resolution: Resolution,
        stretch: Window,
        parts: bool,
        is_rest: bool,
    ) -> Result<(), EngineError> {
        let mut query = HistoryQuery {
            tenant: self.asked.tenant.clone(),
            resolution,
            window: stretch,
            parts,
            user: self.asked.user.clone(),
            after: None,
            limit: PAGE_ROWS,
        };
        let tells_apart = !self.asked.has_levels();
        let mut window = Window::default();
        loop {
            let page = self.reader.rows(&query).await?;
            self.complete_until = self.complete_until.min(page.complete_until);
            for (place, amounts) in &page.rows {
                if !self.asked.wants(&place.meter) || !self.asked.is_about(&place.series) {
                    continue;
                }
                if !window.contains(place.start) {
                    window = self.frame.window(self.asked.per, place.start);
                }
                let key = |group| (window.start.max(stretch.start), place.meter.clone(), group);
                sums.entry(key(self.asked.group(&place.series))).or_default().add(amounts);
                if tells_apart && !is_rest && self.asked.user.is_none() && self.asked.dimension.is_none() {
                    sums.entry(key(self.asked.group(&Series::WHOLE))).or_default().subtract(amounts);
                }
            }
            if sums.len() > SERIES_MAX {
                return Err(EngineError::TooManySeries { max: SERIES_MAX });
            }
            match page.rows.last() {
                Some((last, _)) if page.more => query.after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    fn push(&mut self, points: &mut Vec<HistoryPoint>, window: Window, sums: &Sums) {
        let first = (window.start, MeterKey::trusted(""), Group::default());
        let of_window = sums.range(first..).take_while(|((start, ..), _)| *start < window.end);
        let now = self.complete_until;
        for ((_, meter, group), amounts) in of_window {
            if let Some(level) = self.levels.get_mut(meter) {
                *level = level.saturating_add(amounts.moved);
            }
            if amounts.used != 0 || amounts.denied != 0 {
                points.push(HistoryPoint {
                    window,
                    meter: meter.clone(),
                    user: group.user.clone(),
                    dimensions: group.dimensions.clone(),
                    used: amounts.used,
                    denied: amounts.denied,
                });
            }
        }
        if window.start <= now {
            for (meter, level) in &self.levels {
                let (meter, used) = (meter.clone(), *level);
                points.push(HistoryPoint { window, meter, user: None, dimensions: Vec::new(), used, denied: 0 });
            }
        }
    }

    /// The levels of gauges where the answer begins: those of now, less what moved them since.
    async fn find_levels(&mut self, engine: &Arc<Engine>) -> Result<(), EngineError> {
        let now = engine.now();
        let (_, usage) = engine.usage(&self.asked.tenant, self.asked.user.as_ref()).await?;
        let gauges = usage.meters.iter().filter(|known| known.meter.kind == MeterKind::Gauge);
        self.levels = gauges
            .filter(|known| self.asked.wants(&known.meter.key))
            .map(|known| (known.meter.key.clone(), known.used))
            .collect();
        if self.levels.is_empty() {
            return Ok(());
        }
        let day = Resolution::Day;
        let midnight = match day.is_boundary(self.at) {
            true => self.at,
            false => day.start_of(self.at).plus_ms(day.length_ms()),
        };
        let end = now.plus_ms(day.length_ms());
        let mut moved = Sums::new();
        let parts = self.asked.is_of_parts();
        self.sum(&mut moved, self.base, Window { start: self.at, end: midnight }, parts, false).await?;
        self.sum(&mut moved, day, Window { start: midnight, end }, parts, false).await?;
        for ((_, meter, _), amounts) in &moved {
            if let Some(level) = self.levels.get_mut(meter) {
                *level = level.saturating_sub(amounts.moved);
            }
        }
        Ok(())
    }
}
