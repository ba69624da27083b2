//! What is changed on one node holds on all of them within a second.

use super::{
    cluster::{World, until},
    traffic::CATALOG,
};
use crate::harness::{ADMIN_KEY, Node};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;

/// Within a second: what the nodes promise.
const SOON: Duration = Duration::from_secs(1);

const LARGE: &str = "\n[plans.large]\nrank = 1\nlimits = [{ meter = \"calls\", max = 5000, per = \"month\" }]\n";

async fn soon_everywhere<F: Future<Output = bool>>(what: &str, nodes: &[Node], is_so: impl Fn(usize) -> F) {
    let begun = std::time::Instant::now();
    for number in 0..nodes.len() {
        until(what, || is_so(number)).await;
    }
    assert!(begun.elapsed() < SOON, "{what}: only after {:?}", begun.elapsed());
}

async fn maximum(node: &Node) -> Value {
    let usage = node.usage("acme", "").await;
    usage["meters"][0]["limits"][0]["max"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_change_reaches_every_node_within_a_second() {
    let world = World::new(&format!("{CATALOG}{LARGE}")).await;
    let nodes = world.start(3);
    nodes[0].put_tenant("acme", json!({"plan": "free"})).await;
    for node in &nodes {
        until("the tenant is known", || async { maximum(node).await == 1500 }).await;
    }
    nodes[1].put_tenant("acme", json!({"plan": "large"})).await;
    soon_everywhere("the plan is the new one", &nodes, |number| {
        let node = &nodes[number];
        async move { maximum(node).await == 5000 }
    })
    .await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_by_every_node_within_a_second() {
    let world = World::new(CATALOG).await;
    let nodes = world.start(3);
    nodes[0].put_tenant("acme", json!({"plan": "free"})).await;
    let made = json!({"scope": "tenant", "tenant_id": "acme", "name": "test"});
    let made = nodes[0].api(Method::POST, "/api/v1/keys", Some(made)).await.json();
    let (id, key) = (made["key_id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let ask = |number: usize| {
        let asked = nodes[number].api_as(key, Method::GET, "/api/v1/tenants/acme/usage", None);
        async move { asked.await.unwrap().status }
    };
    soon_everywhere("the key is good", &nodes, |number| async move { ask(number).await == 200 }).await;
    let revoked = nodes[2].api(Method::DELETE, &format!("/api/v1/keys/{id}"), None).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    soon_everywhere("the key is refused", &nodes, |number| async move { ask(number).await == 401 }).await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_put_in_force_on_one_node_reaches_every_node_within_a_second() {
    let world = World::new(CATALOG).await;
    let nodes = world.start(3);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/api/v1/catalogs", nodes[0].api))
        .header("authorization", format!("Bearer {ADMIN_KEY}"))
        .header("content-type", "application/toml")
        .body(Full::new(format!("{CATALOG}{LARGE}").into()))
        .unwrap();
    let applied = crate::harness::send(&crate::harness::http_client(), request).await.unwrap();
    assert_eq!((applied.status.as_u16(), applied.json()["version"].as_u64()), (200, Some(2)), "{applied:?}");
    soon_everywhere("the plan is known", &nodes, |number| {
        let node = &nodes[number];
        async move {
            let plans = node.api(Method::GET, "/api/v1/plans", None).await;
            String::from_utf8_lossy(&plans.body).contains("\"large\"")
        }
    })
    .await;
    // A node that joins with the old file follows what is in force.
    let joined = Node::start(world.serve());
    let plans = joined.api(Method::GET, "/api/v1/plans", None).await;
    assert!(String::from_utf8_lossy(&plans.body).contains("\"large\""), "{plans:?}");
    joined.stop();
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_tenant_keeps_its_catalog_on_every_node() {
    let world = World::new(&crate::pins::first()).await;
    let nodes = world.start(3);
    crate::pins::pinned_tenants_keep_their_catalog(&nodes).await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
    let (status, out, log) = crate::harness::run(&["verify", "--ledger", &world.url]);
    assert!(status.success(), "{out}{log}");
}
