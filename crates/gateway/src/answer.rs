//! Answers of our own, and what is added to the upstream's.

use crate::{admit::Metered, body::ResponseBody};
use domain::{catalog::Catalog, decision::Decision};
use engine::requests::{Admission, EngineError};
use http::{HeaderMap, HeaderValue, Response, header};
use wire::{
    denial, headers,
    problem::{Kind, Problem},
    rescue,
};

/// Marks an answer that the gateway gives itself.
#[derive(Clone)]
struct Own;

/// Whether the gateway gave this answer itself.
pub(crate) fn is_own(response: &Response<ResponseBody>) -> bool {
    response.extensions().get::<Own>().is_some()
}

fn own(response: Response<Vec<u8>>) -> Response<ResponseBody> {
    let mut response = response.map(ResponseBody::own);
    response.extensions_mut().insert(Own);
    response
}

/// A problem as an answer.
pub(crate) fn problem(problem: &Problem) -> Response<ResponseBody> {
    own(problem.to_response())
}

/// A kind of problem with a sentence.
pub(crate) fn of(kind: Kind, detail: &str) -> Response<ResponseBody> {
    problem(&kind.problem(detail))
}

/// After this answer the connection is closed: what follows on it can't be told for sure.
pub(crate) fn and_close(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Credentials are missing or not valid.
pub(crate) fn unauthenticated(challenge: HeaderValue, why: &str) -> Response<ResponseBody> {
    let mut response = of(rescue::UNAUTHENTICATED, &rescue::sentence(why));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// A verified identity of a tenant that nobody created. For the API an unknown tenant is a thing that was not found;
/// here the upstream's resource may well exist, but these credentials may not reach it.
pub(crate) fn unknown_tenant(error: &EngineError) -> Response<ResponseBody> {
    let mut unknown = rescue::problem_of(error);
    unknown.status = 403;
    problem(&unknown)
}

/// The answer to a refusal; of a session, which its caller calls `conversation`.
pub(crate) fn denial(
    admission: &Admission,
    asked: Option<(&str, i64)>,
    conversation: Option<&str>,
    catalog: &Catalog,
) -> Response<ResponseBody> {
    match denial::session_response(admission, asked, conversation, catalog) {
        Some(response) => {
            let mut response = own(response);
            add_rate_limit(response.headers_mut(), &admission.decision, catalog);
            add_outage(response.headers_mut(), admission.outage);
            response
        }
        None => of(rescue::INTERNAL, "A refusal without a reason."),
    }
}

/// What an allowed request's response says about limits.
pub(crate) fn add_limits(headers: &mut HeaderMap, metered: &Metered) {
    add_rate_limit(headers, &metered.decision, &metered.catalog);
    if let Some(warning) = headers::warning(&metered.decision, metered.catalog.warn_percent) {
        headers.insert(headers::WARNING, warning);
    }
    add_outage(headers, metered.outage);
    if let Some(shadow) = &metered.decision.shadow {
        headers.insert(headers::SHADOW, HeaderValue::from_static(shadow.code.word()));
    }
}

fn add_outage(headers: &mut HeaderMap, outage: bool) {
    if outage {
        headers.insert(headers::OUTAGE, HeaderValue::from_static("open"));
    }
}

fn add_rate_limit(headers: &mut HeaderMap, decision: &Decision, catalog: &Catalog) {
    let fields = headers::rate_limit(decision, catalog);
    if let Some(policy) = fields.policy {
        headers.insert(headers::RATE_LIMIT_POLICY, policy);
    }
    if let Some(remaining) = fields.remaining {
        headers.insert(headers::RATE_LIMIT, remaining);
    }
}
