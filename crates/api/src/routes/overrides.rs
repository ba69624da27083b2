//! `/api/v1/tenants/{id}/overrides`: limits of one tenant.

use crate::{
    access::Caller,
    body::{JsonBytes, Params, TenantPath, parse},
    reply::{Answer, ok},
    state::ApiState,
};
use axum::{Extension, extract::State};
use domain::{entry::Override, op::ProfileChange};
use engine::requests::TenantCard;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wire::v1::{
    check::known_meter,
    tenants::{OverrideAnswer, OverrideRequest, limit_window, scope},
};

/// The limits of one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overrides {
    /// At most one on each meter, window and scope.
    items: Vec<OverrideAnswer>,
}

impl Overrides {
    fn of(card: &TenantCard) -> Self {
        Self { items: card.profile.overrides.iter().map(OverrideAnswer::of).collect() }
    }
}

/// The limits of its own that a tenant has.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}/overrides", tag = "tenants", operation_id = "listOverrides",
    params(("id" = String, Path, description = "The tenant.")),
    responses((status = 200, description = "Its overrides.", body = Overrides)),
)]
pub(crate) async fn get(State(state): State<ApiState>, TenantPath(id): TenantPath) -> Answer {
    ok(&Overrides::of(&state.engine().tenant(&id).await?))
}

/// Puts overrides in place. One object replaces the override on the same meter, window and scope, and leaves the others;
/// an array becomes all there are.
#[utoipa::path(
    put, path = "/api/v1/tenants/{id}/overrides", tag = "tenants", operation_id = "putOverrides",
    params(("id" = String, Path, description = "The tenant.")),
    request_body(content = Vec<OverrideRequest>, description = "One override, or an array of all."),
    responses((status = 200, description = "Its overrides as they are now.", body = Overrides)),
)]
pub(crate) async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    TenantPath(id): TenantPath,
    JsonBytes(body): JsonBytes,
) -> Answer {
    let engine = state.engine();
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    // Only a tenant that exists has overrides: a misspelt id must not create one.
    let known = engine.tenant(&id).await?;
    let catalog = engine.catalog_of(&known.profile).await?;
    let (requests, removed) = if is_list {
        (parse::<Vec<OverrideRequest>>(&body)?, known.profile.overrides)
    } else {
        (vec![parse::<OverrideRequest>(&body)?], Vec::new())
    };
    let put: Result<Vec<Override>, _> = requests.into_iter().map(|request| request.into_override(&catalog)).collect();
    let change = ProfileChange { put_overrides: put?, remove_overrides: removed, ..ProfileChange::default() };
    let (card, _) = engine.put_tenant(&id, &change, &caller.actor).await?;
    ok(&Overrides::of(&card))
}

/// Which overrides to remove.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Only those on this meter.
    meter: Option<String>,
    /// Only those in this window.
    window: Option<String>,
    /// Only those of this scope.
    scope: Option<String>,
}

/// Removes overrides: all, or those that the query names. The plan's limits apply again.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{id}/overrides", tag = "tenants", operation_id = "removeOverrides",
    params(("id" = String, Path, description = "The tenant."), Which),
    responses((status = 200, description = "Its overrides as they are now.", body = Overrides)),
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    TenantPath(id): TenantPath,
    Params(which): Params<Which>,
) -> Answer {
    let engine = state.engine();
    let profile = engine.tenant(&id).await?.profile;
    let catalog = engine.catalog_of(&profile).await?;
    let meter = which.meter.map(|meter| known_meter(&catalog, &meter)).transpose()?;
    let window = which.window.map(|word| limit_window(Some(&word))).transpose()?;
    let scope = which.scope.map(|word| scope(Some(&word))).transpose()?;
    let mut removed = profile.overrides;
    removed.retain(|own| {
        meter.as_ref().is_none_or(|meter| own.meter == *meter)
            && window.is_none_or(|window| own.window == window)
            && scope.is_none_or(|scope| own.scope == scope)
    });
    let change = ProfileChange { remove_overrides: removed, ..ProfileChange::default() };
    let (card, _) = engine.put_tenant(&id, &change, &caller.actor).await?;
    ok(&Overrides::of(&card))
}
