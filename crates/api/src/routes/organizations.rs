//! The second seed's paths and shapes.

use crate::{
    body::TenantPath,
    reply::{Answer, ok},
    state::ApiState,
};
use axum::extract::State;
use wire::{
    rescue,
    v1::organizations::{OrganizationUsageAnswer, TiersAnswer},
};

/// A tenant's conversation time, in the shape that chat apps already read.
#[utoipa::path(
    get, path = "/api/organizations/{id}/usage", tag = "compatibility", operation_id = "getOrganizationUsage",
    params(("id" = String, Path, description = "The tenant.")),
    responses((status = 200, description = "Tier, period and conversation time.", body = OrganizationUsageAnswer)),
)]
pub(crate) async fn usage(State(state): State<ApiState>, TenantPath(tenant): TenantPath) -> Answer {
    let (card, usage) = state.engine().usage(&tenant, None).await?;
    let catalog = state.engine().catalog_of(&card.profile).await?;
    match OrganizationUsageAnswer::of(&card.id, &usage, &catalog) {
        Some(answer) => ok(&answer),
        None => Err(rescue::NOT_FOUND
            .problem("This shape shows time, and the catalog has no duration meter; use /api/v1/tenants/{id}/usage.")
            .into()),
    }
}

/// The public plans, in the shape that chat apps already read.
#[utoipa::path(
    get, path = "/api/subscription-tiers", tag = "compatibility", operation_id = "listSubscriptionTiers",
    responses((status = 200, description = "Public plans, by rank.", body = TiersAnswer)),
)]
pub(crate) async fn tiers(State(state): State<ApiState>) -> Answer {
    ok(&TiersAnswer::of(&state.engine().catalog()))
}
