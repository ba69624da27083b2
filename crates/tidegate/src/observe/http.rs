//! Around every request to the API: an id for the log, a duration for the figures, one line when something failed.

use super::figures::Figures;
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue};
use std::{sync::Arc, time::Instant};
use tracing::Instrument;

/// The header that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a client.
const REQUEST_ID_MAX_BYTES: usize = 64;

/// Takes the request's id from the client, or makes one; logs and counts the answer.
pub async fn observe(State(figures): State<Arc<Figures>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    // Paths that match no route are one label: a client must not be able to make labels.
    let route: Arc<str> = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).into();
    let span = tracing::info_span!("request", door = "api", id = id.to_str().unwrap_or(""), %method, route = &*route);
    figures.in_flight().inc();
    let in_flight = InFlight(&figures);
    let mut response = next.run(request).instrument(span.clone()).await;
    drop(in_flight);
    response.headers_mut().insert(REQUEST_ID, id);
    let (took, status) = (begun.elapsed(), response.status());
    span.in_scope(|| {
        let duration_ms = took.as_secs_f64() * 1000.0;
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), duration_ms, "failed");
        } else {
            tracing::debug!(status = status.as_u16(), duration_ms, "answered");
        }
    });
    figures.answered("api", &method, route, status.as_u16(), took);
    response
}

/// Counts down also where the client went away and the future was dropped.
struct InFlight<'a>(&'a Figures);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight().dec();
    }
}

fn request_id(request: &Request) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    let sent = request.headers().get(&REQUEST_ID);
    let usable = |value: &&HeaderValue| {
        !value.is_empty() && value.len() <= REQUEST_ID_MAX_BYTES && value.as_bytes().iter().all(plain)
    };
    sent.filter(usable).cloned().unwrap_or_else(new_request_id)
}

fn new_request_id() -> HeaderValue {
    let text = format!("{:016x}", getrandom::u64().unwrap_or_default());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("none"))
}
