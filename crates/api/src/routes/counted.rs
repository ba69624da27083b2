//! `POST /api/v1/snapshots/counted`: days whose use was recorded afterwards.

use crate::{
    body::Input,
    known::by_catalog,
    reply::{Answer, Failure, ok},
    state::ApiState,
};
use axum::extract::State;
use engine::CountedDays;
use wire::v1::counted::{CountedAnswer, CountedRequest};

/// Writes down, for forecasts, what a tenant used on days that are over, as history has it now: after days were brought along. Of
/// meters that add up; again writes the same. A day without use stands at 0. What a collector found, or was pushed, stays as it is.
#[utoipa::path(
    post, path = "/api/v1/snapshots/counted", tag = "foresight", operation_id = "closeCounted",
    request_body = CountedRequest,
    responses((status = 200, description = "It is on disk.", body = CountedAnswer)),
)]
pub(crate) async fn close(State(state): State<ApiState>, Input(request): Input<CountedRequest>) -> Answer {
    let engine = &state.parts.engine;
    let ((tenant, asked), _) = by_catalog(engine, |catalog| request.into_asked(catalog)).await?;
    let keep_days = state.parts.snapshots.keep_days().await.map_err(Failure::from)?;
    let bounds = engine.countable_days(keep_days).await?;
    let counted: Vec<CountedDays> = asked.iter().filter_map(|of| of.within(bounds)).collect();
    let values = match request.dry_run {
        true => counted.iter().map(CountedDays::count).sum(),
        false => engine.close_counted(&tenant, &counted).await?,
    };
    ok(&CountedAnswer::of(&tenant, bounds, values))
}
