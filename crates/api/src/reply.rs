//! Answers: JSON, or a problem.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use engine::{ports::LedgerError, requests::EngineError};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use wire::{problem::Problem, rescue};

/// Says that an answer repeats one that was given before to the same id.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What handlers return.
pub(crate) type Answer = Result<Response, Failure>;

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Box<Problem>);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        if let EngineError::Ledger(error) = &error {
            tracing::warn!(%error, "the ledger refused");
        }
        rescue::problem_of(&error).into()
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        EngineError::Ledger(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.to_response().map(Body::from);
        if self.0.status == 401 {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// JSON that is written already.
pub(crate) fn json_bytes(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => Ok(json_bytes(status, json)),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            Err(rescue::INTERNAL.problem("The answer could not be written.").into())
        }
    }
}

/// 200 with a value as JSON.
pub(crate) fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}

/// 204.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Says in an answer that it repeats an earlier one.
pub(crate) fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
