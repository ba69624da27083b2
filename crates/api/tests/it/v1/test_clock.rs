//! `POST /api/v1/test/clock`.

use crate::world::{Setup, World};
use serde_json::json;

#[tokio::test]
async fn time_can_be_moved_only_where_that_was_asked_for() {
    let plain = World::new().await;
    let answer = plain.admin("POST", "/api/v1/test/clock", json!({ "advance": "31d" })).await;
    assert_eq!(answer.problem(), (404, "not_found"));

    let world = World::with(Setup { test_clock: true, ..Setup::default() }).await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "free" })).await;
    let consume = json!({ "tenant_id": "acme", "meter": "messages", "amount": 5, "consume": true });
    assert_eq!(world.check(consume.clone()).await.body["allowed"], true);
    assert_eq!(world.check(consume.clone()).await.body["allowed"], false);
    let answer = world.admin("POST", "/api/v1/test/clock", json!({ "advance": "31d" })).await;
    assert_eq!(answer.body, json!({ "now": "2026-04-10T12:00:00Z" }));
    assert_eq!(world.check(consume).await.body["allowed"], true);
    let answer = world.admin("POST", "/api/v1/test/clock", json!({ "advance": "soon" })).await;
    assert_eq!(answer.problem(), (422, "invalid_body"));
}
