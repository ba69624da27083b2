//! `POST /api/v1/snapshots` and `POST /api/v1/usage-forecast/track-usage`. The clock stands where the world's does.

use crate::world::World;
use domain::{day::Day, id::TenantId};
use engine::ports::{Days, SnapshotSource};
use serde_json::{Value, json};

const CLOSE: &str = "/api/v1/snapshots";
const TRACK: &str = "/api/v1/usage-forecast/track-usage";

#[tokio::test]
async fn closing_a_day_is_told_line_by_line() {
    let world = World::with_tenants().await;
    let yesterday = (Day::of(world.engine.now()) + -1).to_string();
    for body in [json!({}), json!({ "day": yesterday, "tenant_id": "acme", "dry_run": true })] {
        let answer = world.admin("POST", CLOSE, body.clone()).await;
        assert_eq!((answer.status, &answer.headers["content-type"]), (200, &"application/x-ndjson".parse().unwrap()));
        let lines: Vec<Value> =
            answer.body.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| &line["event"]).collect::<Vec<_>>(), ["begun", "ended"]);
        assert_eq!((&lines[0]["day"], &lines[0]["dry_run"]), (&json!(yesterday), &json!(body["dry_run"] == true)));
    }
    let busy = world.admin("POST", CLOSE, json!({ "per_tenant": true })).await;
    assert_eq!(busy.problem(), (409, "snapshot_running"));
}

#[tokio::test]
async fn a_day_that_is_not_over_or_none_is_refused() {
    let world = World::with_tenants().await;
    let today = Day::of(world.engine.now()).to_string();
    for (body, refused) in [
        (json!({ "day": today }), (422, "invalid_body")),
        (json!({ "day": "yesterday" }), (422, "invalid_body")),
        (json!({ "tenant_id": "a b" }), (422, "invalid_body")),
        (json!({ "tenant_id": "nobody" }), (404, "unknown_tenant")),
        (json!({ "days": 3 }), (422, "invalid_body")),
    ] {
        assert_eq!(world.admin("POST", CLOSE, body.clone()).await.problem(), refused, "{body}");
    }
}

#[tokio::test]
async fn what_is_told_of_a_day_is_kept_and_told_again_over_it() {
    let world = World::with_tenants().await;
    let today = Day::of(world.engine.now());
    let tell = async |body: Value| world.admin("POST", TRACK, body).await;
    let told = tell(json!({ "tenant_id": "acme", "metrics": { "documents": 35, "messages": 7 } })).await;
    assert_eq!(told.body, json!({ "tenant_id": "acme", "date": today.to_string(), "recorded": 2 }));
    let yesterday = (today + -1).to_string();
    tell(json!({ "tenant_id": "acme", "date": yesterday, "metric": "documents", "value": 34 })).await;
    tell(json!({ "tenant_id": "acme", "metrics": { "documents": 36 } })).await;
    let acme = TenantId::new("acme").unwrap();
    let kept = world.engine.snapshots(&acme, Days::ALL).await.unwrap();
    let documents = kept.iter().find(|meter| meter.meter.as_str() == "documents").unwrap();
    assert_eq!(documents.days.iter().map(|taken| taken.value).collect::<Vec<_>>(), [34, 36]);
    assert!(documents.days.iter().all(|taken| taken.source == SnapshotSource::Pushed));
}

#[tokio::test]
async fn what_can_not_be_kept_is_refused() {
    let world = World::with_tenants().await;
    let today = Day::of(world.engine.now());
    let dated =
        |days: i32| json!({ "tenant_id": "acme", "date": (today + days).to_string(), "metrics": { "documents": 1 } });
    for (body, refused) in [
        (dated(1), (422, "invalid_body")),
        (dated(-90), (422, "invalid_body")),
        (json!({ "tenant_id": "acme" }), (422, "invalid_body")),
        (json!({ "tenant_id": "acme", "metric": "documents" }), (422, "invalid_body")),
        (json!({ "tenant_id": "acme", "metrics": { "documents": -1 } }), (422, "invalid_body")),
        (json!({ "tenant_id": "acme", "metrics": { "documents": 1.5 } }), (422, "invalid_body")),
        (json!({ "tenant_id": "acme", "metrics": { "nothing": 1 } }), (422, "unknown_meter")),
        (json!({ "tenant_id": "nobody", "metrics": { "documents": 1 } }), (404, "unknown_tenant")),
    ] {
        assert_eq!(world.admin("POST", TRACK, body.clone()).await.problem(), refused, "{body}");
    }
    assert_eq!(world.admin("POST", TRACK, dated(-89)).await.status, 200);
}
