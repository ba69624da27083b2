//! `/api/v1/tenants` and `/api/v1/tenants/{id}`.

use crate::{
    access::Caller,
    body::{Input, Params, TenantPath},
    cursor::{self, Page, page_limit},
    reply::{Answer, json, ok},
    state::ApiState,
};
use axum::{Extension, extract::State};
use domain::id::TenantId;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::v1::tenants::{TenantAnswer, TenantRequest};

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Rows of a page, 1 to 500; 50 where it is not given.
    pub(crate) limit: Option<usize>,
    /// The `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Every tenant, in order of id.
#[utoipa::path(
    get, path = "/api/v1/tenants", tag = "tenants", operation_id = "listTenants", params(PageParams),
    responses((status = 200, description = "A page of tenants.", body = Page<TenantAnswer>)),
)]
pub(crate) async fn list(State(state): State<ApiState>, Params(page): Params<PageParams>) -> Answer {
    let limit = page_limit(page.limit)?;
    let after = cursor::decode(page.cursor.as_deref(), |id| TenantId::new(id).ok())?;
    let mut cards = state.engine().tenants(after.as_ref(), limit + 1).await?;
    let more = cards.len() > limit;
    cards.truncate(limit);
    let next_cursor = cards.last().filter(|_| more).map(|card| cursor::encode(card.id.as_str()));
    ok(&Page { items: cards.iter().map(TenantAnswer::of).collect(), next_cursor })
}

/// One tenant.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}", tag = "tenants", operation_id = "getTenant",
    params(("id" = String, Path, description = "The tenant.")),
    responses((status = 200, description = "The tenant.", body = TenantAnswer)),
)]
pub(crate) async fn get(State(state): State<ApiState>, TenantPath(id): TenantPath) -> Answer {
    ok(&TenantAnswer::of(&state.engine().tenant(&id).await?))
}

/// Creates or changes a tenant. What is left out stays as it is; use is never touched.
#[utoipa::path(
    put, path = "/api/v1/tenants/{id}", tag = "tenants", operation_id = "putTenant",
    params(("id" = String, Path, description = "The tenant.")),
    request_body = TenantRequest,
    responses(
        (status = 200, description = "The tenant as it is now.", body = TenantAnswer),
        (status = 201, description = "The tenant, which is new.", body = TenantAnswer),
    ),
)]
pub(crate) async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    TenantPath(id): TenantPath,
    Input(request): Input<TenantRequest>,
) -> Answer {
    let change = request.into_change()?;
    let (card, created) = state.engine().put_tenant(&id, &change, &caller.actor).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    json(status, &TenantAnswer::of(&card))
}
