//! `POST /api/v1/tokens`: short-lived tokens for browsers.

use crate::{
    body::Input,
    reply::{Answer, json},
    state::ApiState,
};
use axum::extract::State;
use domain::id::TenantId;
use http::StatusCode;
use wire::{
    rescue,
    tokens::{self, TTL_DEFAULT_MS, TTL_MAX_MS},
    v1::{
        check::bad_name,
        duration::parse_duration_ms,
        keys::{TokenAnswer, TokenRequest},
        limit::Time,
    },
};

/// Makes a token with which a browser may read one tenant's usage and denials, and ask dry checks.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "keys", operation_id = "createToken",
    request_body = TokenRequest,
    responses((status = 201, description = "The token.", body = TokenAnswer)),
)]
pub(crate) async fn create(State(state): State<ApiState>, Input(request): Input<TokenRequest>) -> Answer {
    let tenant = TenantId::new(&request.tenant_id).map_err(|error| bad_name("tenant_id", &error))?;
    let ttl_ms = match request.ttl.as_deref() {
        None => Some(TTL_DEFAULT_MS),
        Some(text) => parse_duration_ms(text).filter(|ttl_ms| *ttl_ms <= TTL_MAX_MS),
    };
    let Some(ttl_ms) = ttl_ms else {
        return Err(rescue::INVALID_BODY
            .problem("\"ttl\" must be a duration such as \"15m\", at most \"24h\".")
            .into());
    };
    // A token for a tenant that was misspelt would be refused everywhere, without saying why.
    state.engine().tenant(&tenant).await?;
    let expires_at = state.engine().now().plus_ms(ttl_ms);
    let token = tokens::sign(&state.secret, &tenant, expires_at);
    json(StatusCode::CREATED, &TokenAnswer { token, tenant_id: tenant.to_string(), expires_at: Time(expires_at) })
}
