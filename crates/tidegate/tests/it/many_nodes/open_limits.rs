//! PostgreSQL is away, and a limit says that its tenants may go on: as much passes as its allowance permits, and when
//! PostgreSQL is back, each of what passed is recorded once, whatever happened to the node that let it through.

use super::{
    cluster::{Server, World, until},
    proxy::Proxy,
    traffic::{LIMIT, Traffic, compare},
};
use crate::harness::{ADMIN_KEY, Answer, Node, Upstream, binary, run_command};
use http::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{sync::watch, task::JoinSet};

const CATALOG: &str = r#"
default_plan = "free"
[meters.calls]
kind = "counter"
[meters.strict]
kind = "counter"
[plans.free]
rank = 0
limits = [
  { meter = "calls", max = 1500, per = "month", outage = "open", outage_allowance = 250 },
  { meter = "strict", max = 1500, per = "month" },
]
[[identity]]
type = "api_key"
[[routes]]
match = "GET /calls"
charge = [{ meter = "calls" }]
[[routes]]
match = "GET /done"
charge = [{ meter = "calls" }]
charge_when = "success"
"#;

/// A node with a spool of its own.
fn node(world: &World, url: &str, name: &str, upstream: Option<&str>) -> Node {
    patient_node(world, url, name, upstream, "300ms")
}

fn patient_node(world: &World, url: &str, name: &str, upstream: Option<&str>, patience: &str) -> Node {
    let mut command = world.serve_at(url);
    command
        .env("TIDEGATE_LEDGER_SPOOL", world.place.folder.path().join(name))
        .env("TIDEGATE_LEDGER_OUTAGE_AFTER", patience);
    if let Some(upstream) = upstream {
        command.env("TIDEGATE_GATEWAY_UPSTREAM", upstream);
    }
    Node::start(command)
}

async fn spend(node: &Node, meter: &str, amount: i64, id: Option<&str>) -> Answer {
    let mut body = json!({"tenant_id": "acme", "meter": meter, "amount": amount, "consume": true});
    if let Some(id) = id {
        body["id"] = id.into();
    }
    node.api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(body)).await.unwrap()
}

async fn figure(node: &Node, name: &str) -> u64 {
    let metrics = node.api(Method::GET, "/metrics", None).await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("tidegate_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_an_outage_owes_nothing_and_repeats_nothing() {
    let server = Server::start();
    let world = World::on(&server.url, CATALOG).await;
    // A machine that is merely busy is no outage here: two nodes that pass at the limit would both pass it.
    let start = |name: &str| patient_node(&world, &world.url, name, None, "10s");
    let nodes = [start("first.db"), start("second.db")];
    let apis = nodes.iter().map(|node| node.api.clone()).collect();
    let traffic = Traffic::start(apis, 34, LIMIT * 9 / 10);
    traffic.passed(LIMIT / 3).await;
    server.crash();
    let before = traffic.books.allowed();
    // Both let pass what they may, and not one more.
    until("both allowances are used up", || async {
        let kept = (figure(&nodes[0], "outage_spool_lines").await, figure(&nodes[1], "outage_spool_lines").await);
        assert!(kept.0 <= 250 && kept.1 <= 250, "{kept:?}");
        kept == (250, 250)
    })
    .await;
    until("others are told to come back", || async { traffic.books.unavailable() > 0 }).await;
    assert!(traffic.books.allowed() > before + 100, "{before}, then {}", traffic.books.allowed());
    let [first, second] = nodes;
    first.kill();
    server.resume();
    // It finds what it owes in its spool.
    let first = start("first.db");
    for node in [&first, &second] {
        until("the spool is empty", || async { figure(node, "outage_spool_lines").await == 0 }).await;
    }
    assert!(figure(&first, "outage_reconciled_total").await + figure(&first, "outage_duplicates_total").await >= 250);
    let books = traffic.exhaust().await;
    compare(&world, &[&first, &second], &books).await;
    first.stop();
    let log = second.stop();
    assert!(log.contains("OUTAGE") && log.contains("the outage is over"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_that_expect_more_than_there_is_one_passes_in_an_outage() {
    let server = Server::start();
    let route = "[[routes]]\nmatch = \"GET /long\"\ncharge = [{ meter = \"calls\", from = \"usage\", expect = 150 }]\n";
    let world = World::on(&server.url, &format!("{CATALOG}{route}")).await;
    let upstream = Upstream::start().await;
    let node = node(&world, &world.url, "spool.db", Some(&upstream.url));
    node.put_tenant("acme", json!({"plan": "free"})).await;
    let key = node.tenant_key("acme").await;
    assert_eq!(node.through(&key, Method::GET, "/long", "").await.status, 200);
    server.crash();
    let ask = || node.through(&key, Method::GET, "/long", "");
    let (one, other) = tokio::join!(ask(), ask());
    let mut told =
        [&one, &other].map(|answer| (answer.status.as_u16(), answer.headers.contains_key("x-tidegate-outage")));
    told.sort();
    assert_eq!(told, [(200, true), (503, false)], "{one:?} {other:?}");
    assert_eq!(upstream.reached(), 2);
    server.resume();
    until("the spool is empty", || async { figure(&node, "outage_spool_lines").await == 0 }).await;
    // What may have been held before the ledger was known to be away is released, too.
    until("each is charged once, and nothing held", || async {
        let usage = node.api_as(ADMIN_KEY, Method::GET, "/api/v1/tenants/acme/usage", None).await.unwrap();
        let usage: Value = serde_json::from_slice(&usage.body).unwrap();
        let calls = usage["meters"].as_array().unwrap().iter().find(|meter| meter["meter"] == "calls").unwrap();
        (calls["used"].as_i64(), calls["held"].as_i64()) == (Some(300), Some(0))
    })
    .await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_through_the_gateway_are_each_charged_once_across_an_outage() {
    let server = Server::start();
    let world = World::on(&server.url, CATALOG).await;
    let upstream = Upstream::start().await;
    let node = node(&world, &world.url, "spool.db", Some(&upstream.url));
    node.put_tenant("acme", json!({"plan": "free"})).await;
    let key: Arc<str> = node.tenant_key("acme").await.into();
    let (node, books) = (Arc::new(node), Arc::new(Mutex::new((0_i64, 0_i64, 0_i64))));
    let stop = watch::Sender::new(false);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (node, books, key, stopped) = (node.clone(), books.clone(), key.clone(), stop.subscribe());
        clients.spawn(async move {
            while !*stopped.borrow() {
                let answer = node.through(&key, Method::GET, "/calls", "").await;
                let mut books = books.lock().unwrap();
                match (answer.status.as_u16(), answer.headers.contains_key("x-tidegate-outage")) {
                    (200, true) => *books = (books.0 + 1, books.1 + 1, books.2),
                    (200, false) => books.0 += 1,
                    (503, _) => books.2 += 1,
                    _ => panic!("{answer:?}"),
                }
            }
        });
    }
    let passed = || async { *books.lock().unwrap() };
    until("some requests pass", || async { passed().await.0 >= 100 }).await;
    server.crash();
    until("others pass in the outage", || async { passed().await.1 >= 100 }).await;
    server.resume();
    until("the outage is over", || async { figure(&node, "outage_under_way").await == 0 }).await;
    let before = passed().await.0;
    until("requests pass as before", || async { passed().await.0 >= before + 20 }).await;
    stop.send_replace(true);
    clients.join_all().await;
    until("the spool is empty", || async { figure(&node, "outage_spool_lines").await == 0 }).await;
    let (used, (allowed, in_outage, unanswered)) = (node.used_and_denied("acme", "calls").await.0, passed().await);
    // Nobody knows of those that were told to come again.
    assert!(
        (allowed..=allowed + unanswered).contains(&used),
        "{used} used, {allowed} allowed, {unanswered} unanswered"
    );
    assert!(in_outage <= 250 + 250, "{in_outage}: more than two outages' allowance");
    assert_eq!(upstream.reached() as i64, allowed);
    Arc::into_inner(node).unwrap().stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_is_an_outage_and_its_late_commits_are_no_second_charge() {
    let world = World::new(CATALOG).await;
    let (before, after) = world.url.split_once('@').unwrap();
    let (server, database) = after.split_once('/').unwrap();
    let proxy = Proxy::start(server.to_owned()).await;
    let node = node(&world, &format!("{before}@{}/{database}", proxy.address), "spool.db", None);
    for number in 0..5 {
        assert_eq!(spend(&node, "calls", 1, Some(&format!("before-{number}"))).await.json()["allowed"], true);
    }
    // What is sent now arrives, long after nobody waits for its answer any more.
    proxy.delay_ms(1_200);
    let node = Arc::new(node);
    let mut sent = JoinSet::new();
    for number in 0..20 {
        let (node, id) = (node.clone(), (number % 2 == 0).then(|| format!("slow-{number}")));
        sent.spawn(async move { spend(&node, "calls", 1, id.as_deref()).await.json() });
    }
    for answer in sent.join_all().await {
        assert_eq!((&answer["allowed"], &answer["outage"]), (&json!(true), &json!(true)), "{answer}");
    }
    proxy.delay_ms(0);
    until("the spool is empty", || async { figure(&node, "outage_spool_lines").await == 0 }).await;
    until("everything is counted", || async { node.used_and_denied("acme", "calls").await.0 >= 25 }).await;
    assert_eq!(spend(&node, "calls", 1, Some("slow-0")).await.json()["allowed"], true);
    assert_eq!(node.used_and_denied("acme", "calls").await.0, 25);
    assert!(figure(&node, "outage_duplicates_total").await > 0, "no commit came late");
    Arc::into_inner(node).unwrap().stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_what_is_known_decides_and_answers_say_so() {
    let server = Server::start();
    let world = World::on(&server.url, CATALOG).await;
    let failing = axum::Router::new().route("/done", axum::routing::get(|| async { http::StatusCode::BAD_GATEWAY }));
    let upstream = Upstream::with(failing).await;
    let node = node(&world, &world.url, "spool.db", Some(&upstream.url));
    node.put_tenant("acme", json!({"plan": "free"})).await;
    let key = node.tenant_key("acme").await;
    assert_eq!(spend(&node, "calls", 1300, None).await.json()["allowed"], true);
    assert_eq!(spend(&node, "strict", 1, None).await.json()["allowed"], true);
    server.crash();

    let through = spend(&node, "calls", 7, Some("one")).await.json();
    assert_eq!(
        (&through["allowed"], &through["outage"], &through["limits"][0]["used"]),
        (&json!(true), &json!(true), &json!(1307))
    );
    let again = spend(&node, "calls", 7, Some("one")).await.json();
    assert_eq!((&again["allowed"], &again["limits"][0]["used"]), (&json!(true), &json!(1307)));
    assert_eq!(spend(&node, "calls", 8, Some("one")).await.status, 409);
    // A limit that is known to be reached refuses; a larger part than the allowance, and a closed limit, say nothing.
    let refused = spend(&node, "calls", 200, None).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (200, &json!("period_limit_reached")),
        "{refused:?}"
    );
    assert_eq!((&refused.json()["outage"], &refused.json()["limits"][0]["used"]), (&json!(true), &json!(1307)));
    for (meter, tenant) in [("strict", "acme"), ("calls", "never-seen")] {
        let body = json!({"tenant_id": tenant, "meter": meter, "consume": true});
        let answer = node.api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(body)).await.unwrap();
        assert!(answer.status == 503 && answer.headers.contains_key("retry-after"), "{meter} of {tenant}: {answer:?}");
    }
    let event = json!({"specversion": "1.0", "id": "e", "source": "s", "type": "calls", "subject": "acme"});
    assert_eq!(node.api(Method::POST, "/api/v1/events", Some(json!([event]))).await.status, 503);

    let answer = node.through(&key, Method::GET, "/calls", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers.get("x-tidegate-outage").unwrap().to_str().unwrap()),
        (200, "open")
    );
    // One that did not succeed is given back, in the spool.
    assert_eq!(node.through(&key, Method::GET, "/done", "").await.status, 502);
    let ready = node.api(Method::GET, "/readyz", None).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (200, &json!("outage")));
    assert_eq!((figure(&node, "outage_under_way").await, figure(&node, "outage_spool_lines").await), (1, 3));

    server.resume();
    until("the spool is empty", || async { figure(&node, "outage_spool_lines").await == 0 }).await;
    until("the refusal is counted", || async { node.used_and_denied("acme", "calls").await == (1308, 200) }).await;
    assert_eq!(spend(&node, "calls", 7, Some("one")).await.json()["outage"], Value::Null);
    assert_eq!(node.used_and_denied("acme", "calls").await.0, 1308);
    assert_eq!(node.api(Method::GET, "/readyz", None).await.json()["status"], "ok");
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_limits_without_a_spool_are_refused_at_the_start() {
    let world = World::new(CATALOG).await;
    let (status, _, log) = run_command(&mut world.serve());
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("TIDEGATE_LEDGER_SPOOL"), "{log}");
    // Nor can a node without one put such a catalog in force.
    let strict = world.place.catalog();
    std::fs::write(&strict, CATALOG.replace(", outage = \"open\", outage_allowance = 250", "")).unwrap();
    let node = Node::start(world.serve());
    std::fs::write(&strict, CATALOG).unwrap();
    let mut apply = binary();
    apply.args(["catalog", "apply"]).arg(&strict).env("TIDEGATE_API_URL", &node.api).env("TIDEGATE_API_KEY", ADMIN_KEY);
    let (status, _, log) = run_command(&mut apply);
    assert!(!status.success() && log.contains("TIDEGATE_LEDGER_SPOOL"), "{status}: {log}");
    node.stop();
}
