//! Without faults: exactly the limit passes, whichever nodes were asked.

use super::{
    cluster::{World, until},
    traffic::{CATALOG, LIMIT, effects},
};
use crate::{
    exact::storm,
    harness::{ADMIN_KEY, Node},
};
use http::Method;
use serde_json::{Value, json};
use std::sync::Arc;

const REQUESTS: u64 = 4000;

async fn spend(node: &Node) -> bool {
    let body = json!({"tenant_id": "acme", "meter": "calls", "consume": true});
    let answer = node.api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(body)).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    if answer["allowed"] != true {
        assert_eq!(answer["code"], "period_limit_reached", "{answer}");
    }
    answer["allowed"] == Value::Bool(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_limit_passes_through_three_nodes() {
    let world = World::new(CATALOG).await;
    let nodes: Arc<Vec<Node>> = Arc::new(world.start(3));
    let asked = nodes.clone();
    let in_storm = storm(REQUESTS, move |number| {
        let nodes = asked.clone();
        async move { spend(&nodes[number as usize % nodes.len()]).await }
    })
    .await as usize;
    // Nobody was refused for room that another node had set aside.
    assert_eq!(in_storm, LIMIT);
    for node in nodes.iter() {
        assert!(!spend(node).await, "one too many passed");
    }
    let leased = effects(&nodes[0], "under").await.len();
    assert!(leased > LIMIT / 4, "only {leased} were charged under leases");
    for node in nodes.iter() {
        until("every node knows what was used", || async {
            node.used_and_denied("acme", "calls").await.0 == LIMIT as i64
        })
        .await;
    }
    for node in Arc::into_inner(nodes).unwrap() {
        node.stop();
    }
    // What was written down when they stopped is what a new node finds.
    let node = Node::start(world.serve());
    assert_eq!(node.used_and_denied("acme", "calls").await.0, LIMIT as i64);
    node.stop();
}
