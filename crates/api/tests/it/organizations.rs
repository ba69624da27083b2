//! `/api/organizations/{id}/usage` and `/api/subscription-tiers`.

use crate::world::{World, event};
use serde_json::json;

#[tokio::test]
async fn usage_in_the_second_seeds_shape() {
    let world = World::with_tenants().await;
    let batch =
        json!(
            [event("1", "conversation_time", json!({ "value": 2_999_999 })), event("2", "conversations", json!({})),]
        );
    world.events("application/cloudevents-batch+json", batch).await;
    insta::assert_json_snapshot!(world.get("/api/organizations/acme/usage").await.body);
}

#[tokio::test]
async fn time_that_was_used_is_shown_and_overshoot_is_not_hidden() {
    let world = World::with_tenants().await;
    world.events("application/json", event("1", "conversation_time", json!({ "value": 500 }))).await;
    let answer = world.get("/api/organizations/acme/usage").await;
    assert_eq!(answer.body["usage"]["used_formatted"], "<1s");
    world.events("application/json", event("2", "conversation_time", json!({ "value": 5_400_000 }))).await;
    let answer = world.get("/api/organizations/acme/usage").await.body;
    assert_eq!(answer["usage"]["used_formatted"], "1h 30m");
    assert_eq!(answer["usage"]["percentage_used"], 150.01);
    assert_eq!(answer["usage"]["remaining_seconds"], 0);
    assert_eq!(answer["status"], json!({ "allowed": false, "show_warning": true, "unlimited": false }));
}

#[tokio::test]
async fn tiers_in_the_second_seeds_shape() {
    let world = World::new().await;
    insta::assert_json_snapshot!(world.get("/api/subscription-tiers").await.body);
}
