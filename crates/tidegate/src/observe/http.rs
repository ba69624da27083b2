//! Around every request to the API: an id that the answer and the log share.

use api::Door;
use axum::response::Response;
use gateway::REQUEST_ID;
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// The longest request id that is taken over from a client.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// Gives ids to requests that come without one.
pub struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that no earlier run of the program gave.
    pub fn new() -> Self {
        Self { prefix: getrandom::u64().unwrap_or_default(), next: AtomicU64::new(0) }
    }

    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let usable = |value: &&HeaderValue| {
            let bytes = value.as_bytes();
            !bytes.is_empty() && bytes.len() <= REQUEST_ID_MAX_BYTES && bytes.iter().all(plain)
        };
        headers.get(&REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| {
            let text = format!("{:016x}{:08x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed));
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-"))
        })
    }
}

/// Lets the door answer, names the answer, and logs what failed. The path is not logged as it was sent: it may name a
/// tenant.
pub async fn answer(door: Door, ids: &RequestIds, request: Request<Incoming>) -> Response {
    let begun = Instant::now();
    let id = ids.of(request.headers());
    let method = request.method().clone();
    let mut response = door.answer(request).await;
    let status = response.status();
    let (request_id, status_code) = (id.to_str().unwrap_or("-"), status.as_u16());
    let duration_ms = begun.elapsed().as_secs_f64() * 1000.0;
    if status.is_server_error() {
        tracing::warn!(request_id, %method, status = status_code, duration_ms, "the API could not answer");
    } else {
        tracing::debug!(request_id, %method, status = status_code, duration_ms, "the API answered");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
