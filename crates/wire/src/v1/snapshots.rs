//! The daily history: closing a day, with what is told meanwhile, and telling of a day from outside.

use super::check::bad_name;
use crate::{
    problem::Problem,
    rescue::{INVALID_BODY, UNKNOWN_METER, problem_of_op},
};
use domain::{
    catalog::{AMOUNT_MAX, Catalog, MeterKind},
    day::Day,
    id::{MeterKey, TenantId},
    op::OpError,
    time::Instant,
};
use engine::ports::{Snapshot, SnapshotSource, Taken};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Failures of single tenants that are told of one by one; further ones are counted.
pub const FAILURES_NAMED_MAX: usize = 100;
/// How many meters one call may tell of.
pub(super) const METRICS_MAX: usize = 256;

/// Asks to close a day.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// The UTC day, `YYYY-MM-DD`: one that is over. Default: yesterday.
    pub day: Option<String>,
    /// Only this tenant. Default: all.
    pub tenant_id: Option<String>,
    /// Ask and count everything, write nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Tell the values of each tenant as well.
    #[serde(default)]
    pub per_tenant: bool,
}

/// A request that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotAsked {
    /// The day.
    pub day: Day,
    /// Only this tenant.
    pub tenant: Option<TenantId>,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Whether each tenant's values are told.
    pub per_tenant: bool,
}

impl SnapshotRequest {
    /// Reads it.
    ///
    /// # Errors
    /// A day that is none, or not over, or a name that can't be one.
    pub fn into_asked(self, now: Instant) -> Result<SnapshotAsked, Problem> {
        let today = Day::of(now);
        let day = match &self.day {
            None => today + -1,
            Some(text) => day(text, "day")?,
        };
        if day >= today {
            let detail = format!(
                "\"day\" is {day}, which is not over in UTC: the last day that can be closed is {}.",
                today + -1
            );
            return Err(INVALID_BODY.problem(detail));
        }
        let tenant = self.tenant_id.as_deref().map(TenantId::new).transpose();
        let tenant = tenant.map_err(|error| bad_name("tenant_id", &error))?;
        Ok(SnapshotAsked { day, tenant, dry_run: self.dry_run, per_tenant: self.per_tenant })
    }
}

pub(super) fn day(text: &str, field: &str) -> Result<Day, Problem> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        INVALID_BODY.problem(format!("\"{field}\" is {shown:?}: write a day such as \"2026-03-31\"."))
    };
    Day::parse(text).ok_or_else(wrong)
}

/// One line of what is told while a day is closed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SnapshotLine {
    /// It began.
    Begun {
        /// The day.
        day: String,
        /// Whether nothing is written.
        dry_run: bool,
        /// How many tenants there are, about: as many as when a day was closed last; 0 where that was never.
        tenants_about: u64,
    },
    /// A meter was asked for.
    Collected {
        /// Which.
        meter: String,
        /// Of how many tenants there is a value.
        values: u64,
        /// How long it took, milliseconds.
        took_ms: u64,
    },
    /// A meter could not be asked for. The others go on.
    NotCollected {
        /// Which.
        meter: String,
        /// Why.
        reason: String,
    },
    /// A tenant's values, where that was asked for.
    Tenant {
        /// Whose.
        tenant_id: String,
        /// By meter.
        values: BTreeMap<String, i64>,
    },
    /// How far it is.
    Progress {
        /// Tenants that are through.
        done: u64,
    },
    /// It ended.
    Ended(SnapshotSummary),
    /// It could not be done at all.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How closing a day went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct SnapshotSummary {
    /// The day.
    pub day: String,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Whether every meter of every tenant is there.
    pub complete: bool,
    /// Tenants all of whose meters are there.
    pub tenants_done: u64,
    /// Tenants that lack one.
    pub tenants_failed: u64,
    /// Values that were written.
    pub values: u64,
    /// Earlier days of which values were written again because late use had come.
    pub days_closed_again: u64,
    /// Meters that could not be asked for.
    pub meters_failed: Vec<MeterFailure>,
    /// Values that were refused; the first hundred.
    pub failures: Vec<ValueFailure>,
    /// How many values were refused.
    pub failures_total: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// A meter that could not be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MeterFailure {
    /// Which.
    pub meter: String,
    /// Why.
    pub reason: String,
}

/// A value that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ValueFailure {
    /// Whose, as far as that could be read.
    pub tenant_id: String,
    /// Of what.
    pub meter: String,
    /// Why.
    pub reason: String,
}

/// A day of a tenant, told from outside.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrackUsageRequest {
    /// Whose.
    pub tenant_id: String,
    /// The UTC day, `YYYY-MM-DD`. Default: today.
    pub date: Option<String>,
    /// Values by meter: a gauge's level at the day's end, what any other meter used that day, in its smallest unit.
    #[serde(default)]
    pub metrics: BTreeMap<String, i64>,
    /// Levels at the day's end, of gauges alone: whoever brings levels along is told where a meter is none.
    #[serde(default)]
    pub levels: BTreeMap<String, i64>,
    /// One meter, instead of `metrics`.
    pub metric: Option<String>,
    /// Its value.
    pub value: Option<i64>,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TrackUsageAnswer {
    /// Whose.
    pub tenant_id: String,
    /// Of which day.
    pub date: String,
    /// How many values.
    pub recorded: usize,
}

impl TrackUsageRequest {
    /// Reads it; gives whose, of when, and the rows.
    ///
    /// # Errors
    /// Names that can't be any, meters that the catalog lacks, days that are not over and not today, or past keeping.
    pub fn into_rows(
        mut self,
        catalog: &Catalog,
        now: Instant,
        keep_days: i32,
    ) -> Result<(TenantId, Day, Vec<Snapshot>), Problem> {
        let tenant = TenantId::new(&self.tenant_id).map_err(|error| bad_name("tenant_id", &error))?;
        let today = Day::of(now);
        let date = self.date.as_deref().map_or(Ok(today), |text| day(text, "date"))?;
        if date > today || date <= today + -keep_days {
            let detail = format!("\"date\" is {date}: write a day from {} to {today}.", today + (1 - keep_days));
            return Err(INVALID_BODY.problem(detail));
        }
        match (self.metric.take(), self.value.take()) {
            (Some(metric), Some(value)) => drop(self.metrics.insert(metric, value)),
            (None, None) => {}
            _ => return Err(INVALID_BODY.problem("\"metric\" and \"value\" go together.")),
        }
        for (name, level) in std::mem::take(&mut self.levels) {
            let key = meter(catalog, &name)?;
            if catalog.meters.get(&key).is_none_or(|known| known.kind != MeterKind::Gauge) {
                return Err(problem_of_op(&OpError::NotAGauge(key)));
            }
            self.metrics.insert(name, level);
        }
        if self.metrics.is_empty() || self.metrics.len() > METRICS_MAX {
            let detail = format!("Write 1 to {METRICS_MAX} values: \"metrics\": {{\"products\": 35}}.");
            return Err(INVALID_BODY.problem(detail));
        }
        let rows = self.metrics.iter().map(|(metric, value)| {
            let meter = meter(catalog, metric)?;
            if !(0..=AMOUNT_MAX).contains(value) {
                let detail = format!("The value of {metric:?} is {value}: write a number from 0 to {AMOUNT_MAX}.");
                return Err(INVALID_BODY.problem(detail));
            }
            let taken =
                Taken { day: date, value: *value, after_reset: None, observed_at: now, source: SnapshotSource::Pushed };
            Ok(Snapshot { tenant: tenant.clone(), meter, taken })
        });
        let rows = rows.collect::<Result<Vec<_>, Problem>>()?;
        Ok((tenant, date, rows))
    }
}

pub(super) fn meter(catalog: &Catalog, name: &str) -> Result<MeterKey, Problem> {
    catalog.meters.keys().find(|key| key.as_str() == name).cloned().ok_or_else(|| {
        let shown: String = name.chars().take(64).collect();
        UNKNOWN_METER.problem(format!("The catalog has no meter {shown:?}."))
    })
}
