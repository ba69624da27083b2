//! The daily history as it is read: what every meter stood at, or gained, by UTC day.

use super::limit::Time;
use engine::ports::{Days, MeterSnapshots, SnapshotSource, Taken, TenantSnapshots};
use serde::Serialize;
use utoipa::ToSchema;

/// A page of daily history.
#[derive(Debug, Serialize, ToSchema)]
pub struct DailyAnswer {
    /// The first day that was asked for.
    #[schema(format = Date)]
    pub from: String,
    /// The last, yesterday by the node's clock.
    #[schema(format = Date)]
    pub to: String,
    /// Tenants in order of id; those without history are left out.
    pub items: Vec<DailyTenant>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

impl DailyAnswer {
    /// The shape of a page.
    pub fn of(days: Days, tenants: &[TenantSnapshots], next_cursor: Option<String>) -> Self {
        let items = tenants.iter().map(DailyTenant::of).collect();
        Self { from: days.first.to_string(), to: days.last.to_string(), items, next_cursor }
    }
}

/// The daily history of one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct DailyTenant {
    /// Whose.
    #[schema(example = "acme")]
    pub tenant_id: String,
    /// Its meters, in order of their keys.
    pub meters: Vec<DailyMeter>,
}

impl DailyTenant {
    fn of(tenant: &TenantSnapshots) -> Self {
        Self { tenant_id: tenant.tenant.to_string(), meters: tenant.meters.iter().map(DailyMeter::of).collect() }
    }
}

/// The daily history of one meter.
#[derive(Debug, Serialize, ToSchema)]
pub struct DailyMeter {
    /// Of what.
    #[schema(example = "messages")]
    pub meter: String,
    /// Its days, oldest first; those that were not closed are left out.
    pub days: Vec<DailyValue>,
}

impl DailyMeter {
    fn of(meter: &MeterSnapshots) -> Self {
        Self { meter: meter.meter.to_string(), days: meter.days.iter().map(DailyValue::of).collect() }
    }
}

/// One day.
#[derive(Debug, Serialize, ToSchema)]
pub struct DailyValue {
    /// The UTC day.
    #[schema(format = Date)]
    pub day: String,
    /// Of a gauge the level at the day's end; of any other meter what that day alone used. In the meter's smallest unit.
    pub value: i64,
    /// Where a billing period ended within the day: how much of `value` was used after that.
    pub after_reset: Option<i64>,
    /// When the value was looked at.
    #[schema(value_type = String, format = DateTime)]
    pub observed_at: Time,
    /// `ledger`, `collector` or `pushed`.
    pub source: &'static str,
}

impl DailyValue {
    fn of(taken: &Taken) -> Self {
        let source = match taken.source {
            SnapshotSource::Ledger => "ledger",
            SnapshotSource::Collector => "collector",
            SnapshotSource::Pushed => "pushed",
        };
        let Taken { day, value, after_reset, observed_at, .. } = *taken;
        Self { day: day.to_string(), value, after_reset, observed_at: Time(observed_at), source }
    }
}
