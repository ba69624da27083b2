//! `GET /api/v1/tenants/{id}/usage`.

use crate::{
    body::{Params, TenantPath},
    reply::{Answer, ok},
    state::ApiState,
};
use axum::extract::State;
use domain::id::UserId;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::v1::{check::bad_name, usage::UsageAnswer};

/// Whose use within the tenant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageParams {
    /// One user's, instead of the whole tenant's.
    pub(super) user_id: Option<String>,
}

/// What a tenant used: every meter and limit, now. Never refused for lack of quota.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}/usage", tag = "usage", operation_id = "getUsage",
    params(("id" = String, Path, description = "The tenant."), UsageParams),
    responses((status = 200, description = "The numbers that are checked.", body = UsageAnswer)),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    TenantPath(tenant): TenantPath,
    Params(params): Params<UsageParams>,
) -> Answer {
    let user = params.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?;
    let (card, usage) = state.engine().usage(&tenant, user.as_ref()).await?;
    ok(&UsageAnswer::of(&card.id, user.as_ref(), &usage))
}
