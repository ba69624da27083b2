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
async fn conversations_are_those_that_sessions_began_and_their_longest_is_the_tenants_own() {
    let world = World::with_tenants().await;
    for key in ["a", "b"] {
        let body = json!({ "tenant_id": "acme", "meter": "conversation_time", "key": key });
        assert_eq!(world.admin("POST", "/api/v1/sessions", body).await.body["allowed"], true);
    }
    let answer = world.get("/api/organizations/acme/usage").await.body;
    assert_eq!(answer["usage"]["conversations_count"], 2);
    assert_eq!(answer["limits"]["max_conversation_duration_minutes"], 30);
    assert_eq!(answer["tier"]["max_session"], "30m");
    // Not the limit on one session, nor on how many there are.
    assert_eq!(answer["limits"]["conversation_time_minutes_per_month"], 60);
    let own = json!({ "meter": "conversation_time", "window": "session", "max": 600_000 });
    assert_eq!(world.admin("PUT", "/api/v1/tenants/acme/overrides", own).await.status, 200);
    let answer = world.get("/api/organizations/acme/usage").await.body;
    assert_eq!(answer["limits"]["max_conversation_duration_minutes"], 10);
    let free = world.get("/api/organizations/globex/usage").await.body;
    assert_eq!(
        (&free["limits"]["max_conversation_duration_minutes"], &free["tier"]["max_session"]),
        (&json!(-1), &json!("Unlimited"))
    );
}

#[tokio::test]
async fn tiers_in_the_second_seeds_shape() {
    let world = World::new().await;
    insta::assert_json_snapshot!(world.get("/api/subscription-tiers").await.body);
}
