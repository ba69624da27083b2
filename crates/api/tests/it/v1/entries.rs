//! `GET /api/v1/entries`.

use crate::world::{World, event};
use serde_json::json;

#[tokio::test]
async fn the_journal_is_read_line_by_line() {
    let world = World::with_tenants().await;
    for id in ["1", "2", "3"] {
        world.events("application/json", event(id, "messages", json!({ "model": "small", "user_id": "ada" }))).await;
    }
    world
        .admin(
            "POST",
            "/api/v1/tenants/acme/adjustments",
            json!({ "meter": "messages", "add": -1, "reason": "mistake" }),
        )
        .await;
    let mut seen = Vec::new();
    let query = "/api/v1/entries?tenant_id=acme&limit=2";
    let mut path = query.to_owned();
    loop {
        let page = world.get(&path).await.body;
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{query}&cursor={cursor}");
    }
    let causes: Vec<_> = seen.iter().map(|row| row["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["admin", "event", "event", "event", "admin"]);
    assert!(seen.iter().all(|row| row["tenant_id"] == "acme"));
    assert_eq!(seen[1]["dimensions"], json!({ "model": "small" }));
    assert_eq!(seen[4]["note"], "bootstrap: mistake");
    insta::assert_json_snapshot!(seen[1]);
    let last = seen[4]["seq"].as_u64().unwrap();
    let rest = world.get(&format!("/api/v1/entries?after={last}")).await.body;
    assert_eq!(rest, json!({ "items": [], "next_cursor": null }));
}
