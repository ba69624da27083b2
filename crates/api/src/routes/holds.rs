//! `/api/v1/holds/{id}`: work that was in flight is settled.

use crate::{
    body::{IdPath, Nothing, OptionalJson},
    known::by_catalog_of,
    reply::{Answer, Failure, ok, replayed},
    state::ApiState,
};
use axum::{extract::State, response::Response};
use domain::{
    hold::{HoldId, Settlement},
    id::TenantId,
};
use engine::{Settled, requests::EngineError};
use std::sync::Arc;
use wire::v1::{
    holds::{CommitRequest, SettleAnswer, settle_problem, unknown_hold},
    in_flight_id::parse_hold,
};

/// Settles a hold with what the work took: without a body, with what was held. It is charged to the windows in which the
/// hold was taken. The same again is a repeat and changes nothing.
#[utoipa::path(
    post, path = "/api/v1/holds/{id}/commit", tag = "decisions", operation_id = "commitHold",
    params(("id" = String, Path, description = "The `hold_id`.")),
    request_body = Option<CommitRequest>,
    responses((status = 200, description = "The hold is settled, now or before in the same way.", body = SettleAnswer)),
)]
pub(crate) async fn commit(State(state): State<ApiState>, IdPath(id): IdPath, body: OptionalJson) -> Answer {
    let request: CommitRequest<'_> = body.parse()?;
    let (tenant, id) = named(&id)?;
    let hold = match request.needs_hold() {
        true => state.engine().hold(&tenant, id).await.map_err(failure)?,
        false => None,
    };
    let engine = state.engine();
    let how = match request.needs_prices() {
        true => by_catalog_of(engine, &tenant, |catalog| request.settlement(hold.as_ref(), catalog)).await,
        false => request.settlement(hold.as_ref(), &engine.catalog()).map_err(Failure::from),
    };
    let sent = request.sent();
    match how {
        Ok(how) => settle(&state, &tenant, id, (&how, sent)).await,
        Err(why) => match repeat(&state, &tenant, id, (request.as_sent(), sent)).await? {
            Some(answer) => Ok(answer),
            None => Err(why),
        },
    }
}

/// The answer to a settlement that can't be read by the catalog, where the hold was settled so before: it could then.
async fn repeat(
    state: &ApiState,
    tenant: &TenantId,
    id: HoldId,
    (how, sent): (Option<Settlement>, Option<Arc<str>>),
) -> Result<Option<Response>, Failure> {
    let Some(how) = how else { return Ok(None) };
    let settled = state.engine().accepted_settlement(tenant, id, &how, sent.as_deref()).await.map_err(failure)?;
    match settled {
        Some(settled) => Ok(Some(answer(state, tenant, id, (&how, settled)).await?)),
        None => Ok(None),
    }
}

/// Settles a hold of which nothing was used: what was held returns. The same again is a repeat and changes nothing.
#[utoipa::path(
    post, path = "/api/v1/holds/{id}/release", tag = "decisions", operation_id = "releaseHold",
    params(("id" = String, Path, description = "The `hold_id`.")),
    responses((status = 200, description = "The hold is settled, now or before in the same way.", body = SettleAnswer)),
)]
pub(crate) async fn release(State(state): State<ApiState>, IdPath(id): IdPath, body: OptionalJson) -> Answer {
    let Nothing {} = body.parse()?;
    let (tenant, id) = named(&id)?;
    settle(&state, &tenant, id, (&Settlement::Release, None)).await
}

fn named(id: &str) -> Result<(TenantId, HoldId), Failure> {
    Ok(parse_hold(id).ok_or_else(unknown_hold)?)
}

async fn settle(
    state: &ApiState,
    tenant: &TenantId,
    id: HoldId,
    (how, sent): (&Settlement, Option<Arc<str>>),
) -> Answer {
    let settled = state.engine().settle_as(tenant, id, how, sent.as_deref()).await.map_err(failure)?;
    answer(state, tenant, id, (how, settled)).await
}

async fn answer(state: &ApiState, tenant: &TenantId, id: HoldId, (how, settled): (&Settlement, Settled)) -> Answer {
    let limits = match settled.decision {
        Some(decision) => decision.limits,
        None => state.engine().limits_of_hold(tenant, id).await?,
    };
    let response = ok(&SettleAnswer::of(tenant, id, how, &limits, settled.repeated))?;
    Ok(if settled.repeated { replayed(response) } else { response })
}

fn failure(error: EngineError) -> Failure {
    settle_problem(&error).map_or_else(|| error.into(), Failure::from)
}
