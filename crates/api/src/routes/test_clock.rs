//! `POST /api/v1/test/clock`: there only with `--test-clock`.

use crate::{
    body::Input,
    reply::{Answer, ok},
    state::ApiState,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{
    rescue,
    v1::{duration::parse_duration_ms, limit::Time},
};

/// How far to move the clock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClockRequest {
    /// A duration such as `31d`.
    #[schema(example = "31d")]
    advance: String,
}

/// What time it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClockAnswer {
    /// The new instant.
    #[schema(value_type = String, format = DateTime)]
    now: Time,
}

/// Moves the server's clock ahead. Answers 404 unless the server was started with `--test-clock`.
#[utoipa::path(
    post, path = "/api/v1/test/clock", tag = "operation", operation_id = "advanceTestClock",
    request_body = ClockRequest,
    responses((status = 200, description = "The new instant.", body = ClockAnswer)),
)]
pub(crate) async fn advance(State(state): State<ApiState>, Input(request): Input<ClockRequest>) -> Answer {
    let Some(clock) = &state.parts.test_clock else {
        return Err(rescue::NOT_FOUND.problem("The server was not started with --test-clock.").into());
    };
    let Some(ms) = parse_duration_ms(&request.advance) else {
        return Err(rescue::INVALID_BODY.problem("\"advance\" must be a duration such as \"31d\".").into());
    };
    ok(&ClockAnswer { now: Time(clock.advance(ms)) })
}
