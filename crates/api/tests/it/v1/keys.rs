//! `/api/v1/keys`.

use crate::world::{ADMIN, World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_key_is_shown_once_works_and_can_be_revoked() {
    let world = World::with_tenants().await;
    let made = world.admin("POST", "/api/v1/keys", json!({ "name": "collector", "scope": "ingest" })).await;
    assert_eq!(made.status, 201);
    let (key, id) = (made.body["key"].as_str().unwrap(), made.body["key_id"].as_str().unwrap());
    assert!(key.starts_with("tg_ingest_"));
    let listed = world.get("/api/v1/keys").await.body;
    assert_eq!(listed["items"][0]["key_id"], id);
    assert!(!listed.to_string().contains(key), "a key is shown again");
    let check = json!({ "tenant_id": "acme", "meter": "messages" });
    assert_eq!(world.with_key(key, "POST", "/api/v1/check", check.clone()).await.status, 200);
    let revoked = world.admin("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    assert!(revoked.body["revoked_at"].is_string());
    assert_eq!(world.with_key(key, "POST", "/api/v1/check", check).await.problem(), (401, "unauthenticated"));
    assert_eq!(world.admin("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await.body, revoked.body);
    assert_eq!(world.admin("DELETE", "/api/v1/keys/key_0", Value::Null).await.problem(), (404, "unknown_key"));
}

#[tokio::test]
async fn only_scopes_that_exist_are_given() {
    let world = World::new().await;
    for body in [
        json!({ "name": "n", "scope": "god" }),
        json!({ "name": "n", "scope": "tenant" }),
        json!({ "name": "n", "scope": "read", "tenant_id": "acme" }),
        json!({ "name": "", "scope": "read" }),
        json!({ "name": "n", "scope": "tenant", "tenant_id": "a/b" }),
        json!({ "scope": "read" }),
    ] {
        assert_eq!(world.admin("POST", "/api/v1/keys", body.clone()).await.problem(), (422, "invalid_body"), "{body}");
    }
}

#[tokio::test]
async fn keys_come_in_pages() {
    let world = World::new().await;
    for _ in 0..3 {
        world.key("read", None).await;
    }
    let page = world.get("/api/v1/keys?limit=2").await.body;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = world.with_key(ADMIN, "GET", &format!("/api/v1/keys?limit=2&cursor={cursor}"), Value::Null).await.body;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next_cursor"]), (1, &Value::Null));
}
