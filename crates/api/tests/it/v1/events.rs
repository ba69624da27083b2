//! `POST /api/v1/events`.

use crate::world::{ADMIN, World, event};
use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

#[tokio::test]
async fn every_form_records() {
    let world = World::with_tenants().await;
    let plain = json!({ "id": "3", "subject": "acme", "type": "messages" });
    assert_eq!(world.events(ONE, event("1", "messages", json!({ "value": 2 }))).await.status, 204);
    assert_eq!(world.events("application/json", event("2", "messages", json!({}))).await.status, 204);
    assert_eq!(world.events("application/json", plain).await.status, 204);
    let batch = json!([event("4", "messages", json!({ "value": 3 })), event("5", "messages", Value::Null)]);
    let answer = world.events(BATCH, batch.clone()).await;
    assert_eq!(answer.body, json!({ "accepted": 2, "duplicates": 0, "rejected": [] }));
    let answer = world.events("application/json", batch).await;
    assert_eq!(answer.body, json!({ "accepted": 0, "duplicates": 2, "duplicate_ids": ["4", "5"], "rejected": [] }));
    let binary = Request::post("/api/v1/events")
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-id", "caf%C3%A9")
        .header("ce-source", "test")
        .header("ce-type", "messages")
        .header("ce-subject", "acme");
    assert_eq!(world.send(binary.body(Body::from(r#"{"value":4}"#)).unwrap()).await.status, 204);
    assert_eq!(world.used("acme", "messages").await.0, 2 + 1 + 1 + 3 + 1 + 4);
}

#[tokio::test]
async fn events_may_pass_limits_and_refusals_follow() {
    let world = World::with_tenants().await;
    assert_eq!(world.events(ONE, event("1", "messages", json!({ "value": 12 }))).await.status, 204);
    let answer = world.check(json!({ "tenant_id": "acme", "meter": "messages" })).await.body;
    let limit = &answer["limits"][0];
    assert_eq!((&limit["used"], &limit["remaining"], &limit["percent"]), (&json!(12), &json!(0), &json!(240)));
}

#[tokio::test]
async fn a_repeat_changes_nothing_whatever_its_time() {
    let world = World::with_tenants().await;
    api::TestClock::advance(&*world.time, 2 * 3_600_000);
    let mut repeat = event("1", "messages", json!({ "value": 2 }));
    assert_eq!(world.events(ONE, repeat.clone()).await.status, 204);
    repeat["time"] = "2026-03-10T13:00:00Z".into();
    let answer = world.events(ONE, repeat.clone()).await;
    assert_eq!((answer.status, answer.headers["idempotent-replayed"].to_str().unwrap()), (204, "true"));
    repeat["source"] = "another".into();
    assert_eq!(world.events(ONE, repeat.clone()).await.status, 204);
    assert_eq!(world.used("acme", "messages").await.0, 4);
}

#[tokio::test]
async fn the_same_id_with_another_amount_is_a_conflict() {
    let world = World::with_tenants().await;
    world.events(ONE, event("1", "messages", json!({ "value": 2 }))).await;
    let answer = world.events(ONE, event("1", "messages", json!({ "value": 3 }))).await;
    assert_eq!(answer.problem(), (409, "idempotency_conflict"));
}

#[tokio::test]
async fn a_batch_names_what_it_did_not_record() {
    let world = World::with_tenants().await;
    world.events(ONE, event("old", "messages", json!({}))).await;
    let mut stranger = event("stranger", "messages", json!({}));
    stranger["subject"] = "nobody".into();
    let mut late = event("late", "messages", json!({}));
    late["time"] = "2020-01-01T00:00:00Z".into();
    let mut early = event("early", "messages", json!({}));
    early["time"] = "2026-03-11T12:00:00Z".into();
    let batch = json!([
        event("good", "messages", json!({})),
        event("old", "messages", json!({})),
        event("old", "messages", json!({ "value": 9 })),
        event("unread", "nothing", json!({})),
        event("half", "messages", json!({ "value": 0.5 })),
        event("negative", "messages", json!({ "value": -1 })),
        stranger,
        late,
        early,
        17,
        event("good", "messages", json!({})),
    ]);
    let answer = world.events(BATCH, batch).await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!(answer.body);
    assert_eq!(world.used("acme", "messages").await.0, 2);
}

#[tokio::test]
async fn gauges_are_set_by_the_newest_observation() {
    let world = World::with_tenants().await;
    let set = |id: &str, value: i64, time: &str| {
        let mut event = event(id, "documents", json!({ "op": "set", "value": value }));
        event["time"] = time.into();
        event
    };
    world.events(ONE, set("1", 7, "2026-03-10T11:30:00Z")).await;
    world.events(ONE, set("2", 3, "2026-03-10T11:00:00Z")).await;
    assert_eq!(world.used("acme", "documents").await.0, 7);
    world.events(ONE, event("3", "documents", json!({ "op": "add", "value": -2 }))).await;
    assert_eq!(world.used("acme", "documents").await.0, 5);
}

#[tokio::test]
async fn batches_have_a_size() {
    let world = World::with_tenants().await;
    let too_many = Value::Array(vec![json!({}); 10_001]);
    assert_eq!(world.events(BATCH, too_many).await.problem(), (413, "batch_too_large"));
    let too_large = format!("[\"{}\"]", "x".repeat(8 * 1024 * 1024));
    let answer = world.post_bytes("/api/v1/events", BATCH, too_large).await;
    assert_eq!(answer.problem(), (413, "payload_too_large"));
    let full: Vec<Value> = (0..10_000).map(|id| event(&id.to_string(), "messages", Value::Null)).collect();
    let answer = world.events(BATCH, full.into()).await;
    assert_eq!(answer.body, json!({ "accepted": 10_000, "duplicates": 0, "rejected": [] }));
    assert_eq!(world.used("acme", "messages").await.0, 10_000);
}

#[tokio::test]
async fn single_events_that_can_not_be_recorded_are_problems() {
    let world = World::with_tenants().await;
    let mut stranger = event("1", "messages", json!({}));
    stranger["subject"] = "nobody".into();
    for (content_type, body, expected) in [
        (ONE, stranger, (404, "unknown_tenant")),
        (ONE, event("1", "nothing", json!({})), (422, "unknown_event_type")),
        (ONE, json!([]), (422, "invalid_event")),
        (ONE, json!({ "id": "1", "subject": "acme", "type": "messages" }), (422, "invalid_event")),
        (BATCH, json!({}), (422, "invalid_body")),
        ("text/csv", json!({}), (415, "unsupported_media_type")),
    ] {
        assert_eq!(world.events(content_type, body.clone()).await.problem(), expected, "{content_type} {body}");
    }
    let answer = world.post_bytes("/api/v1/events", BATCH, "[{}").await;
    assert_eq!(answer.problem(), (400, "malformed_json"));
}
