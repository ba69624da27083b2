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

/// Puts a catalog in force; its version.
async fn put_in_force(node: &Node, catalog: &str) -> Option<u64> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/api/v1/catalogs", node.api))
        .header("authorization", format!("Bearer {ADMIN_KEY}"))
        .header("content-type", "application/toml")
        .body(Full::new(catalog.to_owned().into()))
        .unwrap();
    let applied = crate::harness::send(&crate::harness::http_client(), request).await.unwrap();
    assert_eq!(applied.status, 200, "{applied:?}");
    applied.json()["version"].as_u64()
}

/// Nodes hear of a catalog a little later: what they have not heard of they ask for before they say that it does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_catalog_knows_is_known_on_every_node_at_once() {
    let catalog = CATALOG.replace("default_plan = \"free\"\n", "");
    let world = World::new(&catalog).await;
    let nodes = world.start(2);
    nodes[1].put_tenant("acme", json!({"plan": "free"})).await;
    let check = async |body: serde_json::Value| nodes[1].api(Method::POST, "/api/v1/check", Some(body)).await;
    let mut catalog = catalog;
    for round in 0..4 {
        let [meter, feature] = ["meter", "feature"].map(|kind| format!("{kind}_{round}"));
        assert_eq!(check(json!({"tenant_id": "acme", "meter": meter, "consume": true})).await.status, 422);
        catalog.push_str(&format!("[meters.{meter}]\nkind = \"counter\"\n[features.{feature}]\ntitle = \"x\"\n"));
        put_in_force(&nodes[0], &catalog).await.unwrap();
        let event =
            json!({"specversion": "1.0", "source": "app", "id": meter, "type": meter, "subject": "acme", "data": {}});
        let answer = match round {
            0 => check(json!({"tenant_id": "acme", "meter": meter, "consume": true})).await,
            1 => check(json!({"tenant_id": "acme", "feature": feature})).await,
            2 => nodes[1].api(Method::POST, "/api/v1/events", Some(event)).await,
            _ => nodes[1].api(Method::POST, "/api/v1/events", Some(json!([event]))).await,
        };
        assert!(answer.status.is_success(), "round {round}: {answer:?}");
        assert!(answer.json()["rejected"].as_array().is_none_or(Vec::is_empty), "round {round}: {answer:?}");
    }
    for (round, way) in ["check", "put"].into_iter().enumerate() {
        let tenant = format!("newcomer-{round}");
        let with_default = format!("default_plan = \"free\"\n# {round}\n{catalog}");
        put_in_force(&nodes[0], &catalog.replace("kind", &format!("kind {}", " ".repeat(round)))).await.unwrap();
        until("there is no default plan", || async {
            check(json!({"tenant_id": "nobody", "meter": "calls"})).await.status == 404
        })
        .await;
        put_in_force(&nodes[0], &with_default).await.unwrap();
        let answer = match way {
            "check" => check(json!({"tenant_id": tenant, "meter": "calls", "consume": true})).await,
            _ => nodes[1].api(Method::PUT, &format!("/api/v1/tenants/{tenant}"), Some(json!({}))).await,
        };
        assert!(answer.status.is_success(), "{way}: {answer:?}");
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_put_in_force_on_one_node_reaches_every_node_within_a_second() {
    let world = World::new(CATALOG).await;
    let nodes = world.start(3);
    assert_eq!(put_in_force(&nodes[0], &format!("{CATALOG}{LARGE}")).await, Some(2));
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
