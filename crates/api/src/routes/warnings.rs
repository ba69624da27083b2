//! `GET /api/v1/tenants/{id}/warnings`.

use super::usage::UsageParams;
use crate::{
    body::{Params, TenantPath},
    reply::{Answer, ok},
    state::ApiState,
};
use axum::extract::State;
use domain::id::UserId;
use wire::v1::{check::bad_name, warnings::WarningsAnswer};

/// Which limits use came close to in the windows that are open: each part of a limit that the catalog's `warnings` name
/// (80 % and 100 % unless it says otherwise) is told once for each window.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}/warnings", tag = "usage", operation_id = "listWarnings",
    params(("id" = String, Path, description = "The tenant."), UsageParams),
    responses((status = 200, description = "The warnings, the oldest first.", body = WarningsAnswer)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    TenantPath(tenant): TenantPath,
    Params(params): Params<UsageParams>,
) -> Answer {
    let user = params.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?;
    let warnings = state.engine().warnings(&tenant, user.as_ref()).await?;
    ok(&WarningsAnswer::of(&tenant, user.as_ref(), &warnings))
}
