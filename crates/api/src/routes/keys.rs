//! `/api/v1/keys`.

use crate::{
    access::Caller,
    body::{IdPath, Input, Params},
    cursor::{self, Page, page_limit},
    reply::{Answer, json, ok},
    routes::tenants::PageParams,
    secrets,
    state::ApiState,
};
use axum::{Extension, extract::State};
use engine::ports::ApiKey;
use http::StatusCode;
use wire::{
    rescue,
    v1::keys::{KeyAnswer, KeyRequest, scope_word},
};

/// Every key, revoked ones included, oldest first. The keys themselves are not kept.
#[utoipa::path(
    get, path = "/api/v1/keys", tag = "keys", operation_id = "listKeys", params(PageParams),
    responses((status = 200, description = "A page of keys.", body = Page<KeyAnswer>)),
)]
pub(crate) async fn list(State(state): State<ApiState>, Params(page): Params<PageParams>) -> Answer {
    let limit = page_limit(page.limit)?;
    let after: Option<String> = cursor::decode(page.cursor.as_deref(), |id| Some(id.to_owned()))?;
    let keys = state.engine().keys();
    let begin = match after {
        None => 0,
        Some(after) => keys.iter().position(|key| *key.id == *after).map_or(keys.len(), |last| last + 1),
    };
    let rest = &keys[begin..];
    let shown = &rest[..limit.min(rest.len())];
    let next_cursor = shown.last().filter(|_| rest.len() > limit).map(|key| cursor::encode(&key.id));
    ok(&Page { items: shown.iter().map(KeyAnswer::of).collect(), next_cursor })
}

/// Makes a key. It is shown in this answer and never again.
#[utoipa::path(
    post, path = "/api/v1/keys", tag = "keys", operation_id = "createKey",
    request_body = KeyRequest,
    responses((status = 201, description = "The key.", body = KeyAnswer)),
)]
pub(crate) async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Input(request): Input<KeyRequest>,
) -> Answer {
    let scope = request.scope()?;
    let random = state.parts.random;
    let (Some(for_key), Some(for_id)) = (random(), random()) else {
        return Err(rescue::UNAVAILABLE.problem("The system has no randomness to give; try again.").into());
    };
    let text = secrets::key_text(scope_word(&scope), &for_key);
    let key = ApiKey {
        id: secrets::key_id(&for_id).into(),
        hash: secrets::key_hash(&text),
        name: request.name.into(),
        scope,
        created_at: state.engine().now(),
        created_by: caller.actor,
        revoked_at: None,
    };
    state.engine().create_key(key.clone()).await?;
    json(StatusCode::CREATED, &KeyAnswer { key: Some(&text), ..KeyAnswer::of(&key) })
}

/// Revokes a key: from here on it is refused; by other nodes within a second. Revoking it again changes nothing.
#[utoipa::path(
    delete, path = "/api/v1/keys/{id}", tag = "keys", operation_id = "revokeKey",
    params(("id" = String, Path, description = "The `key_id`.")),
    responses((status = 200, description = "The key, revoked.", body = KeyAnswer)),
)]
pub(crate) async fn revoke(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Answer {
    match state.engine().revoke_key(&id, &caller.actor).await? {
        Some(key) => ok(&KeyAnswer::of(&key)),
        None => Err(rescue::UNKNOWN_KEY.problem("There is no key with this id; GET /api/v1/keys lists them.").into()),
    }
}
