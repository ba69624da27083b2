//! `GET /api/v1/plans`.

use crate::{
    reply::{Answer, ok},
    state::ApiState,
};
use axum::extract::State;
use wire::v1::plans::PlansAnswer;

/// The public comparison of plans: what each costs, has and allows.
#[utoipa::path(
    get, path = "/api/v1/plans", tag = "plans", operation_id = "listPlans",
    responses((status = 200, description = "Public plans, by rank.", body = PlansAnswer)),
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Answer {
    ok(&PlansAnswer::of(&state.engine().catalog()))
}
