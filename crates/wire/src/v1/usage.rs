//! `GET /api/v1/tenants/{id}/usage`.

use super::limit::{LimitShape, Time};
use domain::{
    id::{TenantId, UserId},
    time::Window,
    view::{MeterUsage, Usage},
};
use serde::Serialize;

/// What a tenant (or one of its users) used.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Usage)]
pub struct UsageAnswer<'a> {
    /// Whose.
    pub tenant_id: &'a str,
    /// The user, where one was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    /// The plan.
    pub plan: &'a str,
    /// The billing period.
    pub period: PeriodShape,
    /// Every meter of the catalog.
    pub meters: Vec<MeterUsageShape<'a>>,
}

/// A stretch of time, the end not included.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Period)]
pub struct PeriodShape {
    /// The first instant inside.
    #[schema(value_type = String, format = DateTime)]
    pub start: Time,
    /// The first instant after.
    #[schema(value_type = String, format = DateTime)]
    pub end: Time,
}

impl PeriodShape {
    /// The shape of a window.
    pub fn of(window: Window) -> Self {
        Self { start: Time(window.start), end: Time(window.end) }
    }
}

/// Use of one meter.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MeterUsage)]
pub struct MeterUsageShape<'a> {
    /// Which meter.
    pub meter: &'a str,
    /// For people.
    pub label: &'a str,
    /// `counter`, `gauge` or `duration`.
    pub kind: &'static str,
    /// The smallest unit amounts are counted in.
    pub unit: &'a str,
    /// Use in the billing period; a gauge's level.
    pub used: i64,
    /// Reserved for work in flight.
    pub held: i64,
    /// Unmet demand in the billing period; never part of `used`.
    pub denied: i64,
    /// Its limits, with their numbers.
    pub limits: Vec<LimitShape<'a>>,
}

impl<'a> MeterUsageShape<'a> {
    fn of(usage: &'a MeterUsage) -> Self {
        let meter = &usage.meter;
        Self {
            meter: meter.key.as_str(),
            label: &meter.label,
            kind: meter.kind.word(),
            unit: &meter.unit,
            used: usage.used,
            held: usage.held,
            denied: usage.denied,
            limits: usage.limits.iter().map(LimitShape::of).collect(),
        }
    }
}

impl<'a> UsageAnswer<'a> {
    /// The shape of usage.
    pub fn of(tenant: &'a TenantId, user: Option<&'a UserId>, usage: &'a Usage) -> Self {
        Self {
            tenant_id: tenant.as_str(),
            user_id: user.map(UserId::as_str),
            plan: usage.plan.as_str(),
            period: PeriodShape::of(usage.period),
            meters: usage.meters.iter().map(MeterUsageShape::of).collect(),
        }
    }
}
