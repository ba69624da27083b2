//! Acceptance 5: what is sent again is counted once, also after restarts and with another `time`.

use crate::harness::{ADMIN_KEY, Node, Place};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use tokio::task::JoinSet;

const CATALOG: &str = r#"
default_plan = "free"
[meters.messages]
kind = "counter"
[plans.free]
rank = 0
limits = [{ meter = "messages", max = 100, per = "period" }]
"#;

const EVENTS: usize = 1000;

fn batch(time: Option<&str>) -> Value {
    let event = |number: usize| {
        let mut event = json!({
            "specversion": "1.0", "id": format!("e{number}"), "source": "app", "type": "messages", "subject": "acme",
            "data": {"value": number % 7 + 1},
        });
        if let Some(time) = time {
            event["time"] = json!(time);
        }
        event
    };
    (0..EVENTS).map(event).collect()
}

fn total() -> i64 {
    (0..EVENTS).map(|number| (number % 7 + 1) as i64).sum()
}

async fn post(node: &Node, body: Value) -> (u16, Value) {
    let answer = node.api_as(ADMIN_KEY, Method::POST, "/api/v1/events", Some(body)).await.unwrap();
    (answer.status.as_u16(), answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_twenty_times_is_counted_once() {
    let place = Place::new(CATALOG);
    let (mut accepted, mut duplicates) = (0, 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = domain::time::Instant::from_ms(now.as_millis() as i64);
    let an_hour_ago = now.plus_ms(-3_600_000).rfc3339();
    // A billing period that holds the hour before, whichever batch comes first: a tenant's first period begins when it
    // is first heard of, and what happened before then belongs to the one before.
    let tenant = json!({"plan": "free", "period_anchor": now.plus_ms(-domain::time::DAY_MS).rfc3339()});
    let node = place.start(None);
    let made = node.api_as(ADMIN_KEY, Method::PUT, "/api/v1/tenants/acme", Some(tenant)).await.unwrap();
    assert!(made.status.is_success(), "{:?}", made.json());
    node.stop();
    for round in 0..3 {
        let node = Arc::new(place.start(None));
        let mut clients = JoinSet::new();
        for number in (round..20).step_by(3) {
            let (node, time) = (node.clone(), (number % 2 == 1).then(|| an_hour_ago.clone()));
            clients.spawn(async move { post(&node, batch(time.as_deref())).await });
        }
        for (status, outcome) in clients.join_all().await {
            assert_eq!(status, 200, "{outcome}");
            assert_eq!(outcome["rejected"], json!([]), "{outcome}");
            accepted += outcome["accepted"].as_u64().unwrap();
            duplicates += outcome["duplicates"].as_u64().unwrap();
        }
        assert_eq!(node.used_and_denied("acme", "messages").await, (total(), 0));
        let node = Arc::into_inner(node).unwrap();
        if round == 1 {
            node.kill()
        } else {
            drop(node.stop())
        };
    }
    assert_eq!((accepted, duplicates), (EVENTS as u64, 19 * EVENTS as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_another_amount_is_a_conflict() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    let event = |amount: i64| json!({"specversion": "1.0", "id": "e1", "source": "app", "type": "messages", "subject": "acme", "data": {"value": amount}});
    assert_eq!(post(&node, event(3)).await.0, 204);
    assert_eq!(post(&node, event(3)).await.0, 204);
    let (status, problem) = post(&node, event(4)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("idempotency_conflict")), "{problem}");
    assert_eq!(node.used_and_denied("acme", "messages").await, (3, 0));
    node.kill();

    let node = place.start(None);
    let (status, _) = post(&node, event(5)).await;
    assert_eq!(status, 409, "after a restart too");
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_check_gets_the_same_decision_and_charges_once() {
    let place = Place::new(CATALOG);
    let node = Arc::new(place.start(None));
    let body = json!({"tenant_id": "acme", "meter": "messages", "amount": 60, "consume": true, "id": "order-1"});
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let (node, body) = (node.clone(), body.clone());
        clients.spawn(async move { node.api(Method::POST, "/api/v1/check", Some(body)).await.json() });
    }
    let answers: BTreeSet<String> = clients.join_all().await.iter().map(|answer| answer["code"].to_string()).collect();
    assert_eq!(answers, BTreeSet::from(["\"allowed\"".to_owned()]));
    assert_eq!(node.used_and_denied("acme", "messages").await, (60, 0));

    // A refused id is not bound: with room, the same id passes.
    let mut larger = body.clone();
    larger["id"] = json!("order-2");
    let refused = node.api(Method::POST, "/api/v1/check", Some(larger.clone())).await.json();
    assert_eq!(refused["code"], "period_limit_reached", "{refused}");
    let room = json!({"meter": "messages", "window": "period", "max": 1000});
    let overrides = node.api(Method::PUT, "/api/v1/tenants/acme/overrides", Some(room)).await;
    assert!(overrides.status.is_success(), "{overrides:?}");
    let allowed = node.api(Method::POST, "/api/v1/check", Some(larger)).await.json();
    assert_eq!(allowed["code"], "allowed", "{allowed}");
    Arc::into_inner(node).unwrap().stop();
}
