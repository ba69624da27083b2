//! `GET /api/v1/tenants/{id}/usage`.

use crate::world::World;
use serde_json::json;

#[tokio::test]
async fn usage_shows_every_meter_and_limit() {
    let world = World::with_tenants().await;
    for _ in 0..4 {
        let body = json!({ "tenant_id": "acme", "user_id": "ada", "meter": "messages", "consume": true });
        world.check(body).await;
    }
    insta::assert_json_snapshot!(world.get("/api/v1/tenants/acme/usage").await.body);
    let ada = world.get("/api/v1/tenants/acme/usage?user_id=ada").await.body;
    assert_eq!(ada["user_id"], "ada");
    let messages = ada["meters"].as_array().unwrap().iter().find(|row| row["meter"] == "messages").unwrap();
    assert_eq!((&messages["used"], &messages["denied"]), (&json!(3), &json!(1)));
    assert_eq!(messages["limits"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn reading_is_never_refused_for_lack_of_quota() {
    let world = World::with_tenants().await;
    let key = world.key("tenant", Some("acme")).await;
    world.check(json!({ "tenant_id": "acme", "meter": "messages", "amount": 5, "consume": true })).await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "status": "suspended" })).await;
    let answer = world.with_key(&key, "GET", "/api/v1/tenants/acme/usage", serde_json::Value::Null).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn unknown_names_are_refused() {
    let world = World::with_tenants().await;
    assert_eq!(world.get("/api/v1/tenants/nobody/usage").await.problem(), (404, "unknown_tenant"));
    assert_eq!(world.get("/api/v1/tenants/acme/usage?user=ada").await.problem(), (400, "invalid_request"));
    assert_eq!(world.get("/api/v1/tenants/acme/usage?user_id=a/b").await.problem(), (422, "invalid_body"));
}
