//! A little traffic, so that usage and figures move: about two requests a second, in turn.

use super::scene::{Extra, Scene, key};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
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

type Requests = Client<HttpConnector, Full<Bytes>>;

/// Sends the scene's requests in turn, until it is dropped.
pub async fn run(scene: Scene, gateway: String, tally: Arc<Tally>) {
    let client: Requests = Client::builder(TokioExecutor::new()).build_http();
    let turns = async {
        for extra in scene.extras.iter().cycle() {
            tokio::time::sleep(PAUSE).await;
            send(&client, &gateway, extra, &tally).await;
        }
    };
    let opening = async {
        if let Some(opening) = &scene.opening {
            send(&client, &gateway, opening, &tally).await;
        }
    };
    tokio::join!(turns, opening);
}

/// Sends a request and reads its answer to the end. The demo may be stopping: what fails here is nobody's concern.
async fn send(client: &Requests, gateway: &str, extra: &Extra, tally: &Tally) {
    let request = Request::builder()
        .method(extra.method)
        .uri(format!("{gateway}{}", extra.path))
        .header("authorization", format!("Bearer {}", key(extra.tenant)))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(extra.body.as_bytes())));
    let Ok(request) = request else { return };
    let Ok(answer) = client.request(request).await else { return };
    let counter = if answer.status().is_success() { &tally.passed } else { &tally.refused };
    counter.fetch_add(1, Ordering::Relaxed);
    let _ = answer.into_body().collect().await;
}
