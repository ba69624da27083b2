//! `GET /api/v1/snapshots`: the daily history, tenant by tenant.

use crate::{
    body::Params,
    cursor::{self, page_limit},
    reply::{Answer, ok},
    state::ApiState,
};
use axum::extract::State;
use domain::{day::Day, id::TenantId};
use engine::ports::{Days, TenantSnapshots};
use engine::requests::EngineError;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::{rescue, v1::daily::DailyAnswer};

/// The most days that can be asked for: ten years.
const DAYS_MAX: u16 = 3653;
/// The most days of a page, over all of its tenants: what one reading and one answer may cost.
const PAGE_DAYS_MAX: usize = 6_000;
/// How many days are shown where nothing is said.
const DAYS_DEFAULT: u16 = 60;

/// Which part of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DailyParams {
    /// How many days, until yesterday by the node's clock: 1 to 3653; 60 where it is not given.
    days: Option<u16>,
    /// Only this tenant.
    tenant_id: Option<String>,
    /// Tenants of a page, 1 to 500; 50 where it is not given. Fewer where that would be more than 6,000 days.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What every meter of every tenant stood at, or gained, by UTC day.
#[utoipa::path(
    get, path = "/api/v1/snapshots", tag = "foresight", operation_id = "listSnapshots", params(DailyParams),
    responses((status = 200, description = "A page of tenants with their days.", body = DailyAnswer)),
)]
pub(crate) async fn list(State(state): State<ApiState>, Params(asked): Params<DailyParams>) -> Answer {
    let count = asked.days.unwrap_or(DAYS_DEFAULT);
    if count == 0 || count > DAYS_MAX {
        return Err(rescue::INVALID_REQUEST.problem(format!("\"days\" must be 1 to {DAYS_MAX}.")).into());
    }
    let limit = page_limit(asked.limit)?.min(PAGE_DAYS_MAX / usize::from(count)).max(1);
    let after = cursor::decode(asked.cursor.as_deref(), |id| TenantId::new(id).ok())?;
    let last = Day::of(state.engine().now()) + -1;
    let days = Days { first: last + (1 - i32::from(count)), last };
    let named = asked.tenant_id.as_deref().map(TenantId::new).transpose();
    let named = named.map_err(|error| rescue::INVALID_REQUEST.problem(format!("\"tenant_id\": {error}.")))?;
    let (tenants, next) = match &named {
        Some(tenant) => {
            // An unknown tenant is said to be so.
            state.engine().tenant(tenant).await?;
            let meters = state.engine().snapshot_book().of_tenant(tenant, days).await.map_err(EngineError::from)?;
            (vec![TenantSnapshots { tenant: tenant.clone(), meters }], None)
        }
        None => state.engine().daily_histories(after.as_ref(), limit, days).await?,
    };
    let next_cursor = next.map(|id| cursor::encode(id.as_str()));
    ok(&DailyAnswer::of(days, &tenants, next_cursor))
}
