//! `/api/v1/denials`.

use crate::world::World;
use serde_json::{Value, json};

async fn refuse(world: &World, tenant: &str, amount: i64) -> String {
    let body = json!({ "tenant_id": tenant, "meter": "messages", "amount": amount, "consume": true });
    let answer = world.check(body).await.body;
    assert_eq!(answer["allowed"], false);
    answer["denial_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn identical_refusals_share_an_id_and_are_counted_and_explained() {
    let world = World::with_tenants().await;
    let id = refuse(&world, "acme", 6).await;
    assert_eq!(refuse(&world, "acme", 7).await, id);
    world.engine.drain().await.unwrap();
    let denial = world.get(&format!("/api/v1/denials/{id}")).await.body;
    insta::assert_json_snapshot!(denial);
    assert_eq!(world.get("/api/v1/denials").await.body["items"][0], denial);
}

#[tokio::test]
async fn filters_and_pages() {
    let world = World::with_tenants().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(refuse(&world, "acme", 6).await);
        api::TestClock::advance(&*world.time, 60_000);
    }
    refuse(&world, "globex", 51).await;
    world.check(json!({ "tenant_id": "acme", "feature": "analytics", "consume": true })).await;
    world.engine.drain().await.unwrap();
    let mut seen = Vec::new();
    let query = "/api/v1/denials?tenant_id=acme&code=period_limit_reached&meter=messages&limit=2";
    let mut path = query.to_owned();
    loop {
        let page = world.get(&path).await.body;
        seen.extend(page["items"].as_array().unwrap().iter().map(|row| row["denial_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{query}&cursor={cursor}");
    }
    ids.reverse();
    assert_eq!(seen, ids);
    assert_eq!(world.get("/api/v1/denials?shadow=true").await.body["items"], json!([]));
    for query in ["code=allowed", "code=x", "shadow=maybe", "cursor=x", "tenant_id=a/b"] {
        assert_eq!(world.get(&format!("/api/v1/denials?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_tenant_is_shown_its_own_alone() {
    let world = World::with_tenants().await;
    let (own, other) = (refuse(&world, "acme", 6).await, refuse(&world, "globex", 51).await);
    world.engine.drain().await.unwrap();
    let key = world.key("tenant", Some("acme")).await;
    let get = async |path: &str| world.with_key(&key, "GET", path, Value::Null).await;
    let listed = get("/api/v1/denials").await.body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["denial_id"], own);
    assert_eq!(get(&format!("/api/v1/denials/{own}")).await.status, 200);
    let unknown = get("/api/v1/denials/den_00000000000000000000000000000000").await;
    assert_eq!(unknown.problem(), (404, "unknown_denial"));
    assert_eq!(get(&format!("/api/v1/denials/{other}")).await.body, unknown.body);
    assert_eq!(get("/api/v1/denials/den_x").await.problem(), (404, "unknown_denial"));
}
