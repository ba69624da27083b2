//! `GET /api/v1/tenants/{id}/warnings`: which limits use came close to, each told once.

use super::limit::Time;
use domain::{
    id::{TenantId, UserId},
    warning::Warning,
};
use serde::Serialize;

/// What a tenant (or one of its users) was warned of.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Warnings)]
pub struct WarningsAnswer<'a> {
    /// Whose.
    pub tenant_id: &'a str,
    /// The user, where one was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    /// Those of windows that are open, the oldest first.
    pub warnings: Vec<WarningShape<'a>>,
}

/// That use has reached a part of a limit, with the numbers of that moment.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Warning)]
pub struct WarningShape<'a> {
    /// The limit's name.
    #[schema(example = "messages_period")]
    pub limit: &'a str,
    /// Of which meter.
    pub meter: &'a str,
    /// `period`, `month` or `day`; `none` for the level of a gauge.
    pub window: &'static str,
    /// `tenant` or `user`.
    pub scope: &'static str,
    /// Which part of the limit was reached, in percent.
    #[schema(example = 80)]
    pub percent: u16,
    /// What was used then.
    pub used: i64,
    /// The largest use allowed then.
    pub max: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// When the window ends, and the next one may warn again; null for a gauge, which may once it has fallen below.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Time>,
}

impl<'a> WarningShape<'a> {
    fn of(warning: &'a Warning) -> Self {
        Self {
            limit: &warning.limit,
            meter: warning.meter.as_str(),
            window: warning.window.word(),
            scope: warning.scope.word(),
            percent: warning.percent,
            used: warning.used,
            max: warning.max,
            at: Time(warning.at),
            resets_at: warning.during.map(|window| Time(window.end)),
        }
    }
}

impl<'a> WarningsAnswer<'a> {
    /// The shape of warnings.
    pub fn of(tenant: &'a TenantId, user: Option<&'a UserId>, warnings: &'a [Warning]) -> Self {
        Self {
            tenant_id: tenant.as_str(),
            user_id: user.map(UserId::as_str),
            warnings: warnings.iter().map(WarningShape::of).collect(),
        }
    }
}
