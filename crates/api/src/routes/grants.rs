//! `/api/v1/tenants/{id}/grants`.

use crate::{
    access::Caller,
    body::{Input, TenantPath, idempotency_key},
    known::by_catalog_of,
    reply::{Answer, json, no_content, ok, replayed},
    state::ApiState,
};
use axum::{
    Extension,
    extract::{Path, State},
};
use domain::id::TenantId;
use http::{HeaderMap, StatusCode};
use wire::v1::{
    check::{bad_name, op_id},
    grants::{GrantAnswer, GrantRequest, GrantedAnswer, GrantsAnswer, grant_id, parse_grant_id},
};

/// The grants of a tenant, and what is left of each.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}/grants", tag = "tenants", operation_id = "listGrants",
    params(("id" = String, Path, description = "The tenant.")),
    responses((status = 200, description = "The grants, the oldest first.", body = GrantsAnswer)),
)]
pub(crate) async fn list(State(state): State<ApiState>, TenantPath(tenant): TenantPath) -> Answer {
    let grants = state.engine().grants(&tenant).await?;
    ok(&GrantsAnswer { grants: grants.iter().map(GrantAnswer::of).collect() })
}

/// Gives a tenant an amount on top of what its plan allows: a top-up, a gift. Spent by priority, then what ends soonest.
#[utoipa::path(
    post, path = "/api/v1/tenants/{id}/grants", tag = "tenants", operation_id = "grant",
    params(
        ("id" = String, Path, description = "The tenant."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same thing as `id` in the body."),
    ),
    request_body = GrantRequest,
    responses((status = 201, description = "It is granted, now or before under the same id.", body = GrantedAnswer)),
)]
pub(crate) async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    Input(request): Input<GrantRequest>,
) -> Answer {
    let engine = state.engine();
    let id = op_id(request.id.as_deref(), idempotency_key(&headers)?)?;
    let grant = by_catalog_of(engine, &tenant, |catalog| request.clone().into_grant(catalog)).await?;
    let drawn = (id, state.fresh()?);
    let (name, repeated) = engine.put_grant(&tenant, grant, drawn, &caller.actor).await?;
    let response = json(StatusCode::CREATED, &GrantedAnswer { grant_id: grant_id(name) })?;
    Ok(if repeated { replayed(response) } else { response })
}

/// Takes back what is left of a grant. What was drawn from it stays used.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{id}/grants/{grant}", tag = "tenants", operation_id = "revokeGrant",
    params(
        ("id" = String, Path, description = "The tenant."),
        ("grant" = String, Path, description = "The grant."),
    ),
    responses((status = 204, description = "Nothing is left of it.")),
)]
pub(crate) async fn revoke(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((tenant, grant)): Path<(String, String)>,
) -> Answer {
    let tenant = TenantId::new(&tenant).map_err(|error| bad_name("id", &error))?;
    let id = parse_grant_id(&grant)?;
    state.engine().revoke_grant(&tenant, id, &caller.actor).await?;
    Ok(no_content())
}
