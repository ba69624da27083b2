//! `/api/v1/sessions`: for apps that meter time themselves.

use crate::{
    access::Caller,
    body::{IdPath, JsonBytes, Nothing, OptionalJson, Params, TenantPath, idempotency_key, parse},
    cursor::{self, Page, page_limit},
    known::by_catalog_of,
    reply::{Answer, Failure, ok, replayed},
    routes::tenants::PageParams,
    state::ApiState,
};
use axum::{Extension, extract::State};
use domain::{
    id::TenantId,
    op::OpError,
    session::{CloseReason, SessionEnd, SessionId},
};
use engine::{
    ports::{Commit, KeyScope},
    requests::EngineError,
    session::{SessionAnswer, SessionTouch, Touched},
};
use http::HeaderMap;
use wire::{
    rescue,
    v1::{
        in_flight_id::parse_session,
        sessions::{
            CloseRequest, OpenSessionShape, SessionRequest, SessionShape, parse_place, place_text, session_closed,
            unknown_session,
        },
    },
};

/// Opens a session, or touches the one that is open under its key. The answer says how many seconds it may run, and within
/// how many to touch it. Refused, it answers 200 as `/check` does, without a `session_id`.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "sessions", operation_id = "openSession",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same thing as `id` in the body.")),
    request_body = SessionRequest,
    responses((status = 200, description = "The session, or why there is none.", body = SessionShape)),
)]
pub(crate) async fn open(State(state): State<ApiState>, headers: HeaderMap, JsonBytes(body): JsonBytes) -> Answer {
    let engine = state.engine();
    let header_id = idempotency_key(&headers)?;
    let request = parse::<SessionRequest<'_>>(&body)?;
    let fresh = state.fresh()?;
    let tenant = request.tenant()?;
    let ask = by_catalog_of(engine, &tenant, |catalog| request.to_ask(header_id, fresh, catalog)).await?;
    let mut answer = engine.open_session(&ask).await?;
    let response = shown(&state, &mut answer).await?;
    Ok(if answer.repeated { replayed(response) } else { response })
}

/// Says that a session goes on: what it ran is charged, and more is held ahead. One that has ended is a problem that says
/// why and when.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/touch", tag = "sessions", operation_id = "touchSession",
    params(("id" = String, Path, description = "The `session_id`.")),
    responses((status = 200, description = "The session.", body = SessionShape)),
)]
pub(crate) async fn touch(State(state): State<ApiState>, IdPath(id): IdPath, body: OptionalJson) -> Answer {
    let Nothing {} = body.parse()?;
    let (tenant, id) = named(&id)?;
    match touched(&state, &tenant, id, None).await? {
        Touched::Before(end) => Err(session_closed(&tenant, &end).into()),
        Touched::Now(mut answer) => {
            let response = shown(&state, &mut answer).await?;
            match ended_untouched(&answer) {
                Some(end) => Err(session_closed(&tenant, end).into()),
                None => Ok(response),
            }
        }
    }
}

/// Ends a session: what it ran is charged, what was held ahead returns. One that has ended before is shown as it ended.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/close", tag = "sessions", operation_id = "closeSession",
    params(("id" = String, Path, description = "The `session_id`.")),
    request_body = Option<CloseRequest>,
    responses((status = 200, description = "How it ended.", body = SessionShape)),
)]
pub(crate) async fn close(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
    body: OptionalJson,
) -> Answer {
    let request: CloseRequest = body.parse()?;
    if request.force && caller.scope != KeyScope::Admin {
        return Err(rescue::FORBIDDEN.problem("To close a session by force needs an admin key.").into());
    }
    let (tenant, id) = named(&id)?;
    let reason = if request.force { CloseReason::Forced } else { CloseReason::Closed };
    match touched(&state, &tenant, id, Some(reason)).await? {
        Touched::Before(end) => Ok(replayed(ok(&SessionShape::ended(&tenant, &end))?)),
        Touched::Now(mut answer) => shown(&state, &mut answer).await,
    }
}

/// The sessions of a tenant that are open.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}/sessions", tag = "sessions", operation_id = "listSessions",
    params(("id" = String, Path, description = "The tenant."), PageParams),
    responses((status = 200, description = "A page of open sessions.", body = Page<OpenSessionShape>)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    TenantPath(tenant): TenantPath,
    Params(page): Params<PageParams>,
) -> Answer {
    let limit = page_limit(page.limit)?;
    let after = cursor::decode(page.cursor.as_deref(), parse_place)?;
    let mut sessions = state.engine().sessions(&tenant).await?;
    sessions.retain(|session| after.is_none_or(|after| session.id > after));
    let more = sessions.len() > limit;
    sessions.truncate(limit);
    let next_cursor = sessions.last().filter(|_| more).map(|session| cursor::encode(&place_text(session.id)));
    ok(&Page { items: sessions.iter().map(|session| OpenSessionShape::of(&tenant, session)).collect(), next_cursor })
}

fn named(id: &str) -> Result<(TenantId, SessionId), Failure> {
    Ok(parse_session(id).ok_or_else(unknown_session)?)
}

async fn touched(
    state: &ApiState,
    tenant: &TenantId,
    id: SessionId,
    close: Option<CloseReason>,
) -> Result<Touched, Failure> {
    let touch = SessionTouch { id, close, enforce: None };
    state.engine().touch_session(tenant, touch).await.map_err(|error| match error {
        EngineError::UnknownTenant(_) | EngineError::Op(OpError::UnknownSession) => unknown_session().into(),
        error => error.into(),
    })
}

/// How a session ended before it could be decided whether it goes on, if it did.
fn ended_untouched(answer: &SessionAnswer) -> Option<&SessionEnd> {
    answer.state.as_ref().and_then(|state| state.ended.as_ref()).filter(|_| answer.decision.is_none())
}

/// The answer, once it is durable.
async fn shown(state: &ApiState, answer: &mut SessionAnswer) -> Answer {
    let engine = state.engine();
    let commit = std::mem::replace(&mut answer.commit, Commit::Done);
    let catalog = match answer.catalog_pin {
        None => engine.catalog(),
        Some(version) => engine.catalog_at(version).await?,
    };
    let response = ok(&SessionShape::of(answer, &catalog))?;
    commit.wait().await?;
    Ok(response)
}
