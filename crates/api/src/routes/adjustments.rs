//! `POST /api/v1/tenants/{id}/adjustments`.

use crate::{
    access::Caller,
    body::{Input, TenantPath, idempotency_key},
    known::by_catalog_of,
    reply::{Answer, no_content, replayed},
    state::ApiState,
};
use axum::{Extension, extract::State};
use http::HeaderMap;
use wire::v1::{check::op_id, tenants::AdjustmentRequest};

/// Corrects an account, with a reason: an opening balance, a mistake made good. It may exceed limits.
#[utoipa::path(
    post, path = "/api/v1/tenants/{id}/adjustments", tag = "tenants", operation_id = "adjust",
    params(
        ("id" = String, Path, description = "The tenant."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same thing as `id` in the body."),
    ),
    request_body = AdjustmentRequest,
    responses((status = 204, description = "The account was corrected, now or before under the same id.")),
)]
pub(crate) async fn adjust(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    Input(request): Input<AdjustmentRequest>,
) -> Answer {
    let engine = state.engine();
    let asked = by_catalog_of(engine, &tenant, |catalog| request.clone().into_asked(catalog)).await?;
    let id = op_id(asked.id.as_deref(), idempotency_key(&headers)?)?;
    let repeated =
        engine.adjust(&tenant, asked.user.as_ref(), asked.adjustment, id, &caller.actor, &asked.reason).await?;
    Ok(if repeated { replayed(no_content()) } else { no_content() })
}
