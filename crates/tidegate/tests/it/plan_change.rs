//! Acceptance 6: a plan change works on the next request, keeps the use, and nothing refills.

use crate::harness::{Node, Place};
use http::Method;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

const CATALOG: &str = r#"
[meters.messages]
kind = "counter"
[meters.pages]
kind = "counter"
[plans.free]
rank = 0
limits = [{ meter = "messages", max = 50, per = "period" }]
[plans.basic]
rank = 1
price = { amount = 29, currency = "USD", per = "month" }
limits = [{ meter = "messages", max = 80, per = "period" }]
"#;

async fn consume(node: &Node, meter: &str, id: Option<&str>) -> Value {
    let mut body = json!({"tenant_id": "acme", "meter": meter, "consume": true});
    if let Some(id) = id {
        body["id"] = json!(id);
    }
    node.api(Method::POST, "/api/v1/check", Some(body)).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_under_load_raises_the_limit_and_keeps_the_use() {
    let place = Place::new(CATALOG);
    let node = Arc::new(place.start(None));
    node.put_tenant("acme", json!({"plan": "free"})).await;
    let (done, pages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (node, done, pages) = (node.clone(), done.clone(), pages.clone());
        load.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                assert_eq!(consume(&node, "pages", None).await["allowed"], true);
                pages.fetch_add(1, Ordering::SeqCst);
            }
        });
    }

    for _ in 0..50 {
        assert_eq!(consume(&node, "messages", None).await["allowed"], true);
    }
    let refused = consume(&node, "messages", Some("the-51st")).await;
    assert_eq!(refused["code"], "period_limit_reached", "{refused}");
    assert_eq!(refused["upgrade"]["plan"], "basic", "{refused}");

    node.put_tenant("acme", json!({"plan": "basic"})).await;
    let allowed = consume(&node, "messages", Some("the-51st")).await;
    assert_eq!(allowed["allowed"], true, "the same id passes on the next request: {allowed}");
    assert_eq!(allowed["limits"][0]["used"], 51, "{allowed}");
    assert_eq!(allowed["limits"][0]["max"], 80, "{allowed}");

    node.put_tenant("acme", json!({"plan": "free"})).await;
    let refused = consume(&node, "messages", None).await;
    assert_eq!(refused["allowed"], false, "{refused}");
    for _ in 0..5 {
        node.put_tenant("acme", json!({"plan": "basic"})).await;
        node.put_tenant("acme", json!({"plan": "free"})).await;
    }
    assert_eq!(consume(&node, "messages", None).await["allowed"], false, "changing plans to and fro refills nothing");
    assert_eq!(node.used_and_denied("acme", "messages").await.0, 51);

    done.store(true, Ordering::SeqCst);
    load.join_all().await;
    assert_eq!(node.used_and_denied("acme", "pages").await.0, pages.load(Ordering::SeqCst));
    Arc::into_inner(node).unwrap().stop();
}
