//! A little traffic, so that usage and figures move: about two requests a second, in turn.

use super::scene::{Scene, key};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of the traffic.
#[derive(Default)]
pub struct Tally {
    /// Requests that reached the upstream.
    pub passed: AtomicU64,
    /// Requests that were refused.
    pub refused: AtomicU64,
}

/// Sends the scene's requests in turn, until it is dropped.
pub async fn run(scene: Scene, gateway: String, tally: Arc<Tally>) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    for extra in scene.extras.iter().cycle() {
        tokio::time::sleep(PAUSE).await;
        let request = Request::builder()
            .method(extra.method)
            .uri(format!("{gateway}{}", extra.path))
            .header("authorization", format!("Bearer {}", key(extra.tenant)))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(extra.body.as_bytes())));
        let Ok(request) = request else { continue };
        // The demo may be stopping: what fails here is nobody's concern.
        let Ok(answer) = client.request(request).await else { continue };
        let counter = if answer.status().is_success() { &tally.passed } else { &tally.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        let _ = answer.into_body().collect().await;
    }
}
