//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use crate::world::World;
use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use stores::memory::Commits;

async fn public(world: &World, path: &str) -> crate::world::Answer {
    world.send(Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn health_is_the_process_and_readiness_is_the_ledger() {
    let world = World::with_tenants().await;
    assert_eq!(public(&world, "/healthz").await.status, 200);
    assert_eq!(public(&world, "/readyz").await.status, 200);
    world.ledger.set_commits(Commits::Failing);
    let check = world.check(json!({ "tenant_id": "acme", "meter": "messages", "consume": true })).await;
    assert_eq!(check.problem(), (503, "ledger_unavailable"));
    assert!(check.headers.contains_key(header::RETRY_AFTER));
    let ready = public(&world, "/readyz").await;
    assert_eq!(ready.problem(), (503, "ledger_unavailable"));
    assert_eq!(public(&world, "/healthz").await.status, 200);
}

#[tokio::test]
async fn figures_are_openmetrics() {
    let world = World::new().await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

#[tokio::test]
async fn the_description_is_served() {
    let world = World::new().await;
    let answer = public(&world, "/openapi.json").await;
    assert_eq!(answer.body["info"]["title"], "Tidegate");
}
