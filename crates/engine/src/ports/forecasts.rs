//! Forecasts that are kept: the latest of every meter, those that wait to be judged, and what was learnt from those that
//! were.

use super::{BoxFuture, LedgerError};
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use std::sync::Arc;

/// How many sums a score is made of. What they mean is the forecaster's business.
pub const SCORE_COUNTS: usize = 11;

/// The dates of a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForecastDates {
    /// One in ten is earlier.
    pub earliest: Option<Day>,
    /// As likely earlier as later.
    pub likely: Option<Day>,
    /// One in ten is later.
    pub latest: Option<Day>,
}

/// The latest forecast of a tenant's meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestForecast {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub meter: MeterKey,
    /// The plan that the tenant was on.
    pub plan: PlanKey,
    /// The limit that will be reached first; `None` where there is none.
    pub limit: Option<Arc<str>>,
    /// The word for what it comes to.
    pub status: Arc<str>,
    /// What was used.
    pub used: i64,
    /// Of how much; `None` for unlimited.
    pub max: Option<i64>,
    /// When it will be reached.
    pub dates: ForecastDates,
    /// What a day adds, in thousandths of the meter's smallest unit.
    pub growth_per_day_thousandths: i64,
    /// When this was foreseen.
    pub made_at: Instant,
}

impl LatestForecast {
    /// Its place in the fleet: by the day on which the limit is likely reached, those without one last.
    pub fn place(&self) -> FleetPlace {
        let day = self.dates.likely.map_or(NO_DAY, Day::number);
        FleetPlace { day, tenant: self.tenant.clone(), meter: self.meter.clone() }
    }
}

/// The [`FleetPlace::day`] of what has no date.
pub const NO_DAY: i32 = i32::MAX;

/// The place of a forecast among all tenants': by day, then tenant and meter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetPlace {
    /// The day on which the limit is likely reached, as its number, or [`NO_DAY`].
    pub day: i32,
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub meter: MeterKey,
}

/// Which of the latest forecasts, in order of their places.
#[derive(Debug, Clone, Default)]
pub struct FleetQuery {
    /// Only of this meter.
    pub meter: Option<MeterKey>,
    /// Only of tenants that were on this plan.
    pub plan: Option<PlanKey>,
    /// Only with this status.
    pub status: Option<Arc<str>>,
    /// Only after this place.
    pub after: Option<FleetPlace>,
    /// How many at most.
    pub limit: usize,
}

impl FleetQuery {
    /// Whether a forecast is asked for.
    pub fn asks_for(&self, row: &LatestForecast) -> bool {
        self.meter.as_ref().is_none_or(|meter| row.meter == *meter)
            && self.plan.as_ref().is_none_or(|plan| row.plan == *plan)
            && self.status.as_ref().is_none_or(|status| row.status == *status)
    }
}

/// What a forecast was compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptMeasure {
    /// A level.
    Level,
    /// The sum of a window.
    Total,
    /// Each day by itself.
    EachDay,
}

impl KeptMeasure {
    /// All, in the order in which they are written down: append, never reorder.
    pub const ALL: [KeptMeasure; 3] = [KeptMeasure::Level, KeptMeasure::Total, KeptMeasure::EachDay];
}

/// A forecast that waits for its day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptForecast {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub meter: MeterKey,
    /// Of which limit. Horizon, tenant, meter, limit and day name a forecast.
    pub limit: Arc<str>,
    /// The last day that it knew.
    pub asked: Day,
    /// The plan that the tenant was on.
    pub plan: PlanKey,
    /// What the limit was compared with.
    pub measure: KeptMeasure,
    /// The first day of the window, of a sum; `asked` of anything else.
    pub start: Day,
    /// The last day that it looked at.
    pub horizon: Day,
    /// What was used.
    pub used: i64,
    /// What it was foreseen to reach.
    pub max: i64,
    /// What it said.
    pub dates: ForecastDates,
}

/// A forecast whose day has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledForecast {
    /// Which.
    pub kept: KeptForecast,
    /// What it adds to the score of its meter and plan; `None` where it can't be judged any more.
    pub counts: Option<[u64; SCORE_COUNTS]>,
}

/// How the forecasts of a meter did, of tenants on one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForecastScore {
    /// The meter.
    pub meter: MeterKey,
    /// The plan.
    pub plan: PlanKey,
    /// The sums.
    pub counts: [u64; SCORE_COUNTS],
}

impl ForecastScore {
    /// The meter, the plan and the sums.
    pub fn sums(self) -> (MeterKey, PlanKey, [u64; SCORE_COUNTS]) {
        (self.meter, self.plan, self.counts)
    }
}

/// What all tenants show of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterGrowth {
    /// The meter.
    pub meter: MeterKey,
    /// How many tenants.
    pub tenants: u64,
    /// Sum of their growth a day, in millionths of the level.
    pub growth_millionths: u64,
}

impl MeterGrowth {
    /// The meter, and its sums: tenants, and growth a day.
    pub fn sums(self) -> (MeterKey, (u64, u64)) {
        (self.meter, (self.tenants, self.growth_millionths))
    }
}

/// The book of forecasts. Writes are done in slices, each durable by itself: when one fails, the same call again gives
/// what it would have given.
pub trait Forecasts: Send + Sync {
    /// Writes the latest forecasts of meters, over what was there.
    fn put_latest<'a>(&'a self, rows: Vec<LatestForecast>) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Forecasts of all tenants, in order of their places.
    fn fleet<'a>(&'a self, query: &'a FleetQuery) -> BoxFuture<'a, Result<Vec<LatestForecast>, LedgerError>>;

    /// The last of the latest forecasts in order of tenant and meter, the order in which a night writes them.
    fn last<'a>(&'a self) -> BoxFuture<'a, Result<Option<LatestForecast>, LedgerError>>;

    /// Drops latest forecasts that were made before an instant: of tenants, or meters, that are there no more.
    fn drop_latest_before<'a>(&'a self, made_at: Instant) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Keeps forecasts until they are settled, over those of the same name.
    fn keep<'a>(&'a self, rows: Vec<KeptForecast>) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Kept forecasts whose horizon is this day or earlier, the earliest first, at most `limit`.
    fn due<'a>(&'a self, horizon: Day, limit: usize) -> BoxFuture<'a, Result<Vec<KeptForecast>, LedgerError>>;

    /// Takes forecasts out, and adds what was judged to the scores. One that is not kept (any more) adds nothing: so
    /// nothing counts twice.
    fn settle<'a>(&'a self, rows: Vec<SettledForecast>) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Every score, in order of meter and plan.
    fn scores<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ForecastScore>, LedgerError>>;

    /// Writes what all tenants show of the meters, instead of what was there.
    fn put_growth<'a>(&'a self, rows: Vec<MeterGrowth>) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// What all tenants show of each meter, in order of meter.
    fn growth<'a>(&'a self) -> BoxFuture<'a, Result<Vec<MeterGrowth>, LedgerError>>;
}
