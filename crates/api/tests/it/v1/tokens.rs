//! `POST /api/v1/tokens`.

use crate::world::World;
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_reads_its_tenant_until_it_expires() {
    let world = World::with_tenants().await;
    let made = world.admin("POST", "/api/v1/tokens", json!({ "tenant_id": "acme", "ttl": "5m" })).await;
    assert_eq!((made.status, &made.body["expires_at"]), (201, &json!("2026-03-10T12:05:00Z")));
    let token = made.body["token"].as_str().unwrap();
    let usage = async |tenant: &str| {
        world.with_key(token, "GET", &format!("/api/v1/tenants/{tenant}/usage"), Value::Null).await
    };
    assert_eq!(usage("acme").await.status, 200);
    assert_eq!(usage("globex").await.problem(), (404, "unknown_tenant"));
    api::TestClock::advance(&*world.time, 300_000);
    let expired = usage("acme").await;
    assert_eq!(expired.problem(), (401, "unauthenticated"));
    assert!(expired.body["detail"].as_str().unwrap().contains("expired"));
}

#[tokio::test]
async fn tokens_are_short_lived_and_for_tenants_that_exist() {
    let world = World::with_tenants().await;
    for (body, expected) in [
        (json!({ "tenant_id": "acme", "ttl": "25h" }), (422, "invalid_body")),
        (json!({ "tenant_id": "acme", "ttl": "0s" }), (422, "invalid_body")),
        (json!({ "tenant_id": "acme", "ttl": "soon" }), (422, "invalid_body")),
        (json!({ "tenant_id": "nobody" }), (404, "unknown_tenant")),
    ] {
        assert_eq!(world.admin("POST", "/api/v1/tokens", body.clone()).await.problem(), expected, "{body}");
    }
}
