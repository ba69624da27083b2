//! `POST /api/v1/check`.

use crate::world::{ADMIN, World};
use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use stores::memory::Commits;

fn messages(extra: Value) -> Value {
    let mut body = json!({ "tenant_id": "acme", "meter": "messages", "consume": true });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn consuming_charges_until_the_limit_and_the_refusal_explains_itself() {
    let world = World::with_tenants().await;
    for used in 1..=5 {
        let answer = world.check(messages(json!({}))).await;
        assert_eq!((answer.status, &answer.body["allowed"]), (200, &json!(true)));
        assert_eq!(answer.body["limits"][0]["used"], used);
    }
    let answer = world.check(messages(json!({}))).await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!(answer.body);
    assert_eq!(world.used("acme", "messages").await, (5, 1));
}

#[tokio::test]
async fn a_dry_check_counts_as_neither_use_nor_demand() {
    let world = World::with_tenants().await;
    let dry = |amount: i64| json!({ "tenant_id": "acme", "meter": "messages", "amount": amount });
    assert_eq!(world.check(dry(5)).await.body["allowed"], true);
    let refused = world.check(dry(6)).await.body;
    assert_eq!((&refused["allowed"], refused.get("denial_id")), (&json!(false), None));
    assert_eq!(world.used("acme", "messages").await, (0, 0));
}

#[tokio::test]
async fn several_charges_are_made_all_or_none() {
    let world = World::with_tenants().await;
    let both = |messages: i64, documents: i64| {
        json!({ "tenant_id": "acme", "consume": true, "charges": [
            { "meter": "messages", "amount": messages }, { "meter": "documents", "amount": documents },
        ] })
    };
    assert_eq!(world.check(both(2, 5)).await.body["allowed"], true);
    let refused = world.check(both(1, 1)).await.body;
    assert_eq!(refused["code"], "gauge_limit_reached");
    assert_eq!(world.used("acme", "messages").await.0, 2);
    assert_eq!(world.check(both(1, -1)).await.body["allowed"], true);
    assert_eq!(world.used("acme", "documents").await.0, 4);
}

#[tokio::test]
async fn a_users_limit_binds_that_user_alone() {
    let world = World::with_tenants().await;
    let of = |user: &str| messages(json!({ "user_id": user, "amount": 3 }));
    assert_eq!(world.check(of("ada")).await.body["allowed"], true);
    let refused = world.check(messages(json!({ "user_id": "ada" }))).await.body;
    assert_eq!(refused["denied_by"], "messages_day_user");
    assert_eq!(world.check(messages(json!({ "user_id": "bob", "amount": 2 }))).await.body["allowed"], true);
}

#[tokio::test]
async fn a_missing_feature_names_the_plan_that_has_it() {
    let world = World::with_tenants().await;
    let answer = world.check(json!({ "tenant_id": "acme", "feature": "analytics" })).await;
    insta::assert_json_snapshot!(answer.body);
    let answer = world.check(json!({ "tenant_id": "globex", "feature": "analytics" })).await;
    assert_eq!(answer.body["allowed"], true);
}

#[tokio::test]
async fn an_id_is_bound_to_its_first_accepted_payload() {
    let world = World::with_tenants().await;
    let first = world.check(messages(json!({ "id": "a", "amount": 2 }))).await;
    let again = world.check(messages(json!({ "id": "a", "amount": 2 }))).await;
    assert_eq!(first.body["allowed"], again.body["allowed"]);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(world.used("acme", "messages").await.0, 2);
    let conflict = world.check(messages(json!({ "id": "a", "amount": 3 }))).await;
    assert_eq!(conflict.problem(), (409, "idempotency_conflict"));
}

#[tokio::test]
async fn a_refused_id_is_not_bound() {
    let world = World::with_tenants().await;
    assert_eq!(world.check(messages(json!({ "id": "a", "amount": 6 }))).await.body["allowed"], false);
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "basic" })).await;
    assert_eq!(world.check(messages(json!({ "id": "a", "amount": 6 }))).await.body["allowed"], true);
    assert_eq!(world.used("acme", "messages").await.0, 6);
}

#[tokio::test]
async fn the_header_and_the_bodys_id_are_the_same_thing() {
    let world = World::with_tenants().await;
    let send = async |header_id: &str, body: Value| {
        let request = Request::post("/api/v1/check")
            .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", header_id);
        world.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    assert_eq!(send("a", messages(json!({}))).await.body["allowed"], true);
    assert!(send("a", messages(json!({ "id": "a" }))).await.headers.contains_key("idempotent-replayed"));
    assert_eq!(send("a", messages(json!({ "id": "b" }))).await.problem(), (422, "two_ids"));
    assert_eq!(world.used("acme", "messages").await.0, 1);
}

#[tokio::test]
async fn what_can_not_be_decided_is_a_problem() {
    let world = World::with_tenants().await;
    for (body, expected) in [
        (json!({ "tenant_id": "nobody", "meter": "messages" }), (404, "unknown_tenant")),
        (json!({ "tenant_id": "acme" }), (422, "nothing_asked")),
        (json!({ "tenant_id": "acme", "meter": "nope" }), (422, "unknown_meter")),
        (json!({ "tenant_id": "acme", "feature": "nope" }), (422, "unknown_feature")),
        (json!({ "tenant_id": "acme", "meter": "messages", "amount": -1 }), (422, "negative_amount")),
        (
            json!({ "tenant_id": "acme", "meter": "messages", "amount": 9_007_199_254_740_992i64 }),
            (422, "invalid_body"),
        ),
        (json!({ "tenant_id": "acme", "meter": "messages", "amount": 1.5 }), (422, "invalid_body")),
    ] {
        assert_eq!(world.check(body.clone()).await.problem(), expected, "{body}");
    }
}

#[tokio::test]
async fn an_answer_waits_for_the_disk_unless_told_otherwise() {
    let world = World::with_tenants().await;
    world.ledger.set_commits(Commits::Held);
    let in_memory = world.check(messages(json!({ "ack": "memory" }))).await;
    assert_eq!(in_memory.body["allowed"], true);
    let durable = world.check(messages(json!({ "ack": "disk" })));
    let mut durable = std::pin::pin!(durable);
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), durable.as_mut()).await;
    assert!(early.is_err(), "answered before the commit");
    world.ledger.release();
    assert_eq!(durable.await.body["allowed"], true);
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_everything() {
    let world = World::with_tenants().await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "status": "suspended" })).await;
    let answer = world.check(messages(json!({}))).await.body;
    assert_eq!((&answer["code"], answer.get("denied_by")), (&json!("tenant_suspended"), None));
}

#[tokio::test]
async fn observing_refuses_nothing_and_says_what_it_would_have() {
    let world = World::with_tenants().await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "enforce": "observe" })).await;
    let answer = world.check(messages(json!({ "amount": 6 }))).await.body;
    assert_eq!((&answer["allowed"], &answer["code"]), (&json!(true), &json!("allowed")));
    assert_eq!(answer["shadow"]["code"], "period_limit_reached");
    assert_eq!(answer["shadow"]["denied_by"], "messages_day");
    assert_eq!(world.used("acme", "messages").await, (6, 0));
}

#[tokio::test]
async fn many_at_once_pass_exactly_as_often_as_there_is_room() {
    let world = std::sync::Arc::new(World::with_tenants().await);
    world
        .admin("PUT", "/api/v1/tenants/acme/overrides", json!({ "meter": "messages", "window": "day", "max": 100 }))
        .await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                let mut passed = 0;
                for _ in 0..25 {
                    passed += i32::from(world.check(messages(json!({}))).await.body["allowed"] == true);
                }
                passed
            })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    assert_eq!(passed, 100);
    assert_eq!(world.used("acme", "messages").await, (100, 300));
}

fn cost(extra: Value) -> Value {
    let mut cost = json!({ "table": "request", "properties": { "mode": "analyst", "tool": "general" } });
    cost.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({ "tenant_id": "acme", "cost": cost, "consume": true })
}

#[tokio::test]
async fn a_cost_is_charged_as_its_table_says_and_the_answer_names_the_amount() {
    let world = World::with_tenants().await;
    let answer = world.check(cost(json!({}))).await.body;
    assert_eq!((&answer["meter"], &answer["amount"], &answer["allowed"]), (&json!("tokens"), &json!(22), &json!(true)));
    let models =
        |quantities: Value| json!({ "table": "models", "properties": { "model": "small" }, "quantities": quantities });
    let quantities = json!({ "prompt_tokens": 700, "completion_tokens": 400.0 });
    assert_eq!(world.check(cost(models(quantities))).await.body["amount"], 2);
    // Beside a meter of the same name it is one sum.
    let mut both = cost(json!({ "properties": { "mode": "none" } }));
    both["charges"] = json!([{ "meter": "tokens", "amount": 10 }, { "meter": "messages" }]);
    assert_eq!(world.check(both).await.body["allowed"], true);
    assert_eq!((world.used("acme", "tokens").await.0, world.used("acme", "messages").await.0), (22 + 2 + 15, 1));
}

#[tokio::test]
async fn what_has_no_price_is_refused_with_words_that_help() {
    let world = World::with_tenants().await;
    let models = |more: Value| {
        let mut cost = json!({ "table": "models", "properties": { "model": "small" } });
        cost.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        cost
    };
    let mut told = Vec::new();
    for extra in [
        json!({ "table": "requests" }),
        json!({ "properties": { "mode": "new\u{1b}[31m" } }),
        json!({ "properties": {} }),
        json!({ "properties": { "mode": "none", "tol": "general" } }),
        json!({ "quantities": { "prompt_tokens": 1 } }),
        models(json!({})),
        models(json!({ "quantities": { "tokens": 1 } })),
        models(json!({ "quantities": { "prompt_tokens": -1 } })),
        json!({ "properties": (0..33).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>() }),
        json!({ "amount": 3 }),
    ] {
        let answer = world.check(cost(extra)).await;
        told.push(json!([answer.status, answer.body["code"], answer.body["detail"]]));
    }
    insta::assert_json_snapshot!(told);
    assert_eq!(world.used("acme", "tokens").await, (0, 0));
}

#[tokio::test]
async fn a_repeat_of_a_cost_is_charged_once_and_another_cost_under_its_id_is_a_conflict() {
    let world = World::with_tenants().await;
    let with_id = |mut body: Value| {
        body["id"] = json!("once");
        body
    };
    for _ in 0..2 {
        assert_eq!(world.check(with_id(cost(json!({})))).await.body["amount"], 22);
    }
    let other = world.check(with_id(cost(json!({ "properties": { "mode": "none" } })))).await;
    assert_eq!((other.status, &other.body["code"]), (409, &json!("idempotency_conflict")));
    assert_eq!(world.used("acme", "tokens").await.0, 22);
}

#[tokio::test]
async fn what_the_catalog_lacks_by_now_is_repeated_all_the_same() {
    let world = World::with_tenants().await;
    let asked = json!({ "tenant_id": "acme", "meter": "documents", "amount": 2, "consume": true, "id": "upload" });
    assert_eq!(world.check(asked.clone()).await.body["allowed"], true);
    super::holds::reprice(&world, "documents", "papers").await;
    let again = world.check(asked.clone()).await;
    assert_eq!((again.status, &again.body["meter"], &again.body["amount"]), (200, &json!("documents"), &json!(2)));
    assert_eq!((&again.body["limits"], &again.headers["idempotent-replayed"]), (&json!([]), &"true".parse().unwrap()));
    let mut other = asked.clone();
    other["amount"] = json!(3);
    assert_eq!(world.check(other).await.problem(), (409, "idempotency_conflict"));
    let mut fresh = asked;
    fresh["id"] = json!("another");
    assert_eq!(world.check(fresh).await.problem(), (422, "unknown_meter"));
}
