//! The same through PgBouncer in transaction mode.

use super::{
    cluster::{Pooler, World, until},
    traffic::{CATALOG, LIMIT, Traffic, compare},
};
use crate::harness::Node;
use http::Method;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn by_way_of_pgbouncer_nothing_is_lost_or_repeated_and_changes_are_followed() {
    let world = World::new(CATALOG).await;
    let pooler = Pooler::start();
    let start = || Node::start(world.serve_at(&pooler.url(&world)));
    let [killed, one, other] = [start(), start(), start()];
    let apis = [&killed, &one, &other].map(|node| node.api.clone());

    let traffic = Traffic::start(apis.to_vec(), 37, LIMIT * 3 / 4);
    traffic.passed(LIMIT / 4).await;
    killed.kill();
    traffic.passed(LIMIT / 2).await;
    pooler.replace();
    let books = traffic.exhaust().await;
    compare(&world, &[&one, &other], &books).await;

    let made = one.api(Method::POST, "/api/v1/keys", Some(json!({"scope": "read", "name": "reader"}))).await.json();
    let (key, path) = (made["key"].as_str().unwrap(), "/api/v1/tenants/acme/usage");
    let status = async || other.api_as(key, Method::GET, path, None).await.unwrap().status;
    let took = until("a key is known", || async { status().await == 200 }).await;
    let revoked = one.api(Method::DELETE, &format!("/api/v1/keys/{}", made["key_id"].as_str().unwrap()), None).await;
    assert!(revoked.status.is_success(), "{revoked:?}");
    let took = took.max(until("it is known no more", || async { status().await == 401 }).await);
    assert!(took < Duration::from_secs(1), "only after {took:?}");
    one.stop();
    other.stop();
}
