//! What comes in: bodies with a bound and a time limit, JSON with a strict media type, queries without surprises.

use crate::{auth, reply::Failure, state::ApiState};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use bytes::Bytes;
use domain::id::TenantId;
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;
use wire::{
    cloudevents::{charset_is_utf8, json_problem, utf8},
    problem::Problem,
    rescue::{self, sentence},
};

/// The largest body of a call that is not a batch of events.
pub(crate) const BODY_MAX_BYTES: usize = 256 * 1024;
/// The largest body of `POST /events`.
pub(crate) const EVENTS_MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// The longest `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The whole body, if it is no larger than `max_bytes` and does not take for ever.
pub(crate) async fn read<B>(headers: &HeaderMap, body: B, max_bytes: usize) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        rescue::PAYLOAD_TOO_LARGE.problem(format!("The body may have at most {max_bytes} bytes; send less at a time."))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large());
    }
    let whole = tokio::time::timeout(BODY_PATIENCE, Limited::new(body, max_bytes).collect());
    match whole.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(rescue::INVALID_REQUEST.problem("The body ended before it was complete.")),
        Err(_) => Err(rescue::REQUEST_TIMEOUT.problem("The body took too long to arrive.")),
    }
}

/// Refuses every media type but JSON in UTF-8.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    // What nearly everyone sends, compared without work.
    if content_type == Some("application/json") {
        return Ok(());
    }
    let (media_type, parameters) = content_type.unwrap_or_default().split_once(';').unwrap_or_else(|| {
        let whole = content_type.unwrap_or_default();
        (whole, "")
    });
    if media_type.trim().eq_ignore_ascii_case("application/json") && charset_is_utf8(parameters) {
        return Ok(());
    }
    Err(rescue::UNSUPPORTED_MEDIA_TYPE.problem("Send JSON in UTF-8, with Content-Type: application/json."))
}

/// JSON of a shape.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_str(utf8(body)?).map_err(|error| json_problem(&error))
}

/// A body that is JSON, not yet parsed.
pub(crate) struct JsonBytes(pub(crate) Bytes);

impl FromRequest<ApiState> for JsonBytes {
    type Rejection = Failure;
    async fn from_request(request: Request, _: &ApiState) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        Ok(Self(read(&parts.headers, body, BODY_MAX_BYTES).await?))
    }
}

/// A body that is JSON, not yet parsed, or none at all.
pub(crate) struct OptionalJson(pub(crate) Option<Bytes>);

impl FromRequest<ApiState> for OptionalJson {
    type Rejection = Failure;
    async fn from_request(request: Request, _: &ApiState) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, body, BODY_MAX_BYTES).await?;
        if body.is_empty() {
            return Ok(Self(None));
        }
        require_json(&parts.headers)?;
        // Where every member may be left out, an array would read as an object without any.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(rescue::INVALID_BODY.problem("Send an object, or no body at all.").into());
        }
        Ok(Self(Some(body)))
    }
}

impl OptionalJson {
    /// What it says; without a body, what a shape says where everything is left out.
    pub(crate) fn parse<'a, T: Deserialize<'a> + Default>(&'a self) -> Result<T, Problem> {
        self.0.as_ref().map_or_else(|| Ok(T::default()), |body| parse(body))
    }
}

/// A body that says nothing: `{}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// A body that is JSON of a shape.
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Input<T> {
    type Rejection = Failure;
    async fn from_request(request: Request<Body>, state: &ApiState) -> Result<Self, Failure> {
        let JsonBytes(body) = JsonBytes::from_request(request, state).await?;
        Ok(Self(parse(&body)?))
    }
}

/// Query parameters of a shape. Its types refuse unknown fields: a misspelt filter must not show everything.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Params<T> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Failure> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(rescue::INVALID_REQUEST.problem(sentence(&error.body_text())).into()),
        }
    }
}

/// `{id}` in the path, where it names a tenant.
pub(crate) struct TenantPath(pub(crate) TenantId);

impl FromRequestParts<ApiState> for TenantPath {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let IdPath(id) = IdPath::from_request_parts(parts, state).await?;
        match TenantId::new(&id) {
            Ok(tenant) => Ok(Self(tenant)),
            Err(error) => Err(rescue::INVALID_REQUEST
                .problem(format!("The tenant's id in the path can't be used: {error}."))
                .into()),
        }
    }
}

/// `{id}` in the path, whatever it names.
pub(crate) struct IdPath(pub(crate) String);

impl FromRequestParts<ApiState> for IdPath {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(rescue::INVALID_REQUEST.problem("The id in the path is not percent-encoded UTF-8.").into()),
        }
    }
}

/// The `Idempotency-Key` header.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(rescue::INVALID_REQUEST.problem("Send one Idempotency-Key, not several."));
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(Some).map_err(|_| rescue::INVALID_REQUEST.problem("The Idempotency-Key is not valid UTF-8."))
}

/// A tenant's id in a body or a query, which the caller must be allowed to see.
pub(crate) fn visible_tenant(caller: &crate::access::Caller, field: &str, name: &str) -> Result<TenantId, Problem> {
    let tenant = TenantId::new(name)
        .map_err(|error| rescue::INVALID_REQUEST.problem(format!("\"{field}\" can't be used: {error}.")))?;
    auth::own(caller, &tenant)?;
    Ok(tenant)
}
