//! What is between nodes and PostgreSQL breaks, and PostgreSQL itself: nothing acknowledged is lost, nothing is
//! recorded twice, and nodes are well again by themselves.

use super::{
    cluster::{Server, World, until},
    proxy::Proxy,
    traffic::{CATALOG, LIMIT, Traffic, compare},
};
use crate::{
    crash::Random,
    harness::{ADMIN_KEY, Node},
};
use http::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn cut_and_slow_connections_lose_nothing_and_repeat_nothing() {
    const SEED: u64 = 32;
    let world = World::new(CATALOG).await;
    let (before, after) = world.url.split_once('@').unwrap();
    let (server, database) = after.split_once('/').unwrap();
    let proxies = [Proxy::start(server.to_owned()).await, Proxy::start(server.to_owned()).await];
    let start = |proxy: &Proxy| Node::start(world.serve_at(&format!("{before}@{}/{database}", proxy.address)));
    let nodes = [start(&proxies[0]), start(&proxies[1])];

    let traffic = Traffic::start(nodes.iter().map(|node| node.api.clone()).collect(), SEED, LIMIT * 7 / 8);
    let mut random = Random::new(SEED);
    for round in 1..=12 {
        traffic.passed(round * LIMIT / 16).await;
        let proxy = &proxies[random.below(2) as usize];
        proxy.delay_ms(0);
        match random.below(4) {
            0 | 1 => proxy.cut(),
            2 => {
                // Cut in the middle of what is slow.
                proxy.delay_ms(20 + random.below(80));
                traffic.passed(round * LIMIT / 16 + 10).await;
                proxy.cut();
            }
            _ => {
                // The other node goes on alone.
                proxy.refuse(true);
                proxy.cut();
                traffic.passed(round * LIMIT / 16 + 20).await;
                proxy.refuse(false);
            }
        }
    }
    for proxy in &proxies {
        proxy.delay_ms(0);
    }
    let books = traffic.exhaust().await;
    compare(&world, &[&nodes[0], &nodes[1]], &books).await;
    for node in nodes {
        node.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgresql_is_a_503_and_heals_by_itself() {
    let server = Server::start();
    let world = World::on(&server.url, CATALOG).await;
    let nodes = world.start(2);
    let traffic = Traffic::start(nodes.iter().map(|node| node.api.clone()).collect(), 33, LIMIT * 2 / 3);
    traffic.passed(LIMIT / 3).await;
    server.crash();
    until("clients are told to come back", || async { traffic.books.unavailable() > 0 }).await;
    for node in &nodes {
        until("a node says that it is not ready", || async {
            let body = json!({"tenant_id": "other", "meter": "calls", "consume": true});
            let answer = node.api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(body)).await.unwrap();
            let is_away = answer.status == 503 && answer.headers.contains_key("retry-after");
            is_away && node.api(Method::GET, "/readyz", None).await.status == 503
        })
        .await;
    }
    let passed = traffic.books.allowed();
    assert!(passed < LIMIT * 2 / 3, "the crash came too late to matter");
    server.resume();
    traffic.passed(LIMIT * 2 / 3).await;
    for node in &nodes {
        until("a node is ready again", || async { node.api(Method::GET, "/readyz", None).await.status == 200 }).await;
    }
    let books = traffic.exhaust().await;
    compare(&world, &[&nodes[0], &nodes[1]], &books).await;
    for node in nodes {
        node.stop();
    }
}
