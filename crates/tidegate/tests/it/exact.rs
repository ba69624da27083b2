//! Acceptance 3: with room for k, exactly k of many parallel requests pass, through every door.

use crate::harness::{ADMIN_KEY, Node, Place, Upstream};
use http::Method;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

const CATALOG: &str = r#"
[meters.requests]
kind = "counter"
[meters.tokens]
kind = "counter"
[meters.images]
kind = "counter"

[plans.small]
rank = 1
limits = [
  { meter = "requests", max = 1000, per = "period" },
  { meter = "tokens", max = 500, per = "month" },
  { meter = "tokens", max = 450, per = "day" },
  { meter = "tokens", max = 40, per = "day", scope = "user" },
  { meter = "images", max = 300, per = "period" },
]

[[routes]]
match = "GET /jobs/*"
charge = [{ meter = "requests" }]

[[identity]]
type = "api_key"
"#;

/// Parallel clients.
const CLIENTS: u64 = 64;
const REQUESTS: u64 = 10_000;

/// Runs `requests` numbered calls from `CLIENTS` tasks; how many were allowed.
pub async fn storm<F, R>(requests: u64, call: F) -> u64
where
    F: Fn(u64) -> R + Send + Sync + 'static,
    R: Future<Output = bool> + Send,
{
    let (call, next, allowed) = (Arc::new(call), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (call, next, allowed) = (call.clone(), next.clone(), allowed.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= requests {
                    return;
                }
                if call(number).await {
                    allowed.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    allowed.load(Ordering::SeqCst)
}

async fn check(node: &Node, body: Value) -> Value {
    let answer = node.api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(body)).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_a_thousand_requests_reach_the_upstream() {
    let upstream = Upstream::start().await;
    let place = Place::new(CATALOG);
    let node = Arc::new(place.start(Some(&upstream.url)));
    node.put_tenant("acme", json!({"plan": "small"})).await;
    let key = Arc::new(node.tenant_key("acme").await);

    let caller = node.clone();
    let allowed = storm(REQUESTS, move |number| {
        let (node, key) = (caller.clone(), key.clone());
        async move {
            let answer = node.through(&key, Method::GET, &format!("/jobs/{number}"), "").await;
            let expected = if answer.status == 200 { "allowed" } else { "period_limit_reached" };
            if answer.status != 200 {
                assert_eq!(answer.status, 429, "{answer:?}");
                assert_eq!(answer.json()["decision"]["code"], expected, "{answer:?}");
            }
            answer.status == 200
        }
    })
    .await;

    assert_eq!(allowed, 1000);
    assert_eq!(upstream.reached(), 1000);
    assert_eq!(node.used_and_denied("acme", "requests").await, (1000, 9000));
    Arc::into_inner(node).unwrap().stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_exact_with_several_limits_on_one_meter() {
    let place = Place::new(CATALOG);
    let node = Arc::new(place.start(None));
    node.put_tenant("acme", json!({"plan": "small"})).await;

    // Twenty users with room for 40 each could use 800; the day of the tenant has room for 450.
    let caller = node.clone();
    let allowed = storm(REQUESTS, move |number| {
        let node = caller.clone();
        async move {
            let user = format!("user{}", number % 20);
            let body = json!({"tenant_id": "acme", "meter": "tokens", "user_id": user, "consume": true});
            check(&node, body).await["allowed"] == true
        }
    })
    .await;

    assert_eq!(allowed, 450);
    assert_eq!(node.used_and_denied("acme", "tokens").await, (450, REQUESTS as i64 - 450));
    let mut of_users = 0;
    for user in 0..20 {
        let usage = node.usage("acme", &format!("?user_id=user{user}")).await;
        let tokens = usage["meters"].as_array().unwrap().iter().find(|m| m["meter"] == "tokens").unwrap().clone();
        let used = tokens["used"].as_i64().unwrap();
        assert!(used <= 40, "user{user} used {used}");
        of_users += used;
    }
    assert_eq!(of_users, 450);
    Arc::into_inner(node).unwrap().stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_charges_are_made_all_or_none() {
    let place = Place::new(CATALOG);
    let node = Arc::new(place.start(None));
    node.put_tenant("acme", json!({"plan": "small"})).await;

    let caller = node.clone();
    let allowed = storm(REQUESTS, move |_| {
        let node = caller.clone();
        async move {
            let charges = json!([{"meter": "requests", "amount": 2}, {"meter": "images", "amount": 3}]);
            let body = json!({"tenant_id": "acme", "charges": charges, "consume": true});
            check(&node, body).await["allowed"] == true
        }
    })
    .await;

    // The images are the tighter limit: a hundred times three. Not one request was charged without its images.
    assert_eq!(allowed, 100);
    assert_eq!(node.used_and_denied("acme", "images").await.0, 300);
    assert_eq!(node.used_and_denied("acme", "requests").await.0, 200);
    Arc::into_inner(node).unwrap().stop();
}
