//! Health, readiness, figures and the description of the API.

use crate::{
    openapi::document,
    reply::{Answer, Failure, json_bytes, ok},
    state::ApiState,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use std::sync::LazyLock;
use utoipa::ToSchema;
use wire::rescue;

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`; or `outage`: the ledger can't be written, and requests under limits that are open pass all the same.
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "operation", operation_id = "healthz",
    responses((status = 200, description = "It does.", body = Health)),
)]
pub(crate) async fn healthz() -> Answer {
    ok(&Health { status: "ok" })
}

/// Whether decisions can be made and kept: the ledger is writable, or limits are open while it is not.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "They can.", body = Health),
        (status = 503, description = "They can't, for now.", body = wire::problem::ProblemSchema,
         content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(State(state): State<ApiState>) -> Answer {
    match state.engine().healthy() {
        Ok(()) => ok(&Health { status: "ok" }),
        // A load balancer that took this node out would close what the catalog leaves open.
        Err(_) if state.engine().passes_outages() => ok(&Health { status: "outage" }),
        Err(error) => Err(Failure::from(rescue::problem_of_ledger(&error))),
    }
}

/// Figures for Prometheus, never by tenant. They are business figures, so a key is asked for unless the configuration
/// opens them.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "OpenMetrics text.", body = String,
               content_type = "application/openmetrics-text")),
)]
pub(crate) async fn metrics(State(state): State<ApiState>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], state.parts.observer.metrics_text()).into_response()
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value)),
)]
pub(crate) async fn openapi() -> Response {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| document().into_bytes());
    json_bytes(StatusCode::OK, DOCUMENT.clone())
}
