//! A node's life: ready, reload, drain, and what it does not share.

use crate::harness::{Node, Place, Upstream, binary, http_client, send};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const CATALOG: &str = r#"
default_plan = "free"
[meters.messages]
kind = "counter"
[plans.free]
rank = 0
limits = [{ meter = "messages", max = 5, per = "day" }]
[[routes]]
match = "GET /slow"
charge = [{ meter = "messages" }]
[[identity]]
type = "api_key"
"#;

async fn limit_of(node: &Node) -> i64 {
    node.usage("acme", "").await["meters"][0]["limits"][0]["max"].as_i64().unwrap()
}

async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn figure(node: &Node, line_start: &str) -> Option<f64> {
    let answer = node.api(Method::GET, "/metrics", None).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(line_start))?.to_owned();
    line.rsplit(' ').next().unwrap().parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_there_is_no_gateway() {
    let place = Place::new(&CATALOG[..CATALOG.find("[[routes]]").unwrap()]);
    let node = place.start(None);
    assert_eq!(node.gateway, None);
    assert_eq!(node.api(Method::GET, "/healthz", None).await.status, 200);
    assert_eq!(node.api(Method::GET, "/readyz", None).await.status, 200);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_request_in_flight_end_and_keeps_its_charge() {
    let slow = axum::Router::new().route(
        "/slow",
        axum::routing::get(|| async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            "slow"
        }),
    );
    let upstream = Upstream::with(slow).await;
    let place = Place::new(CATALOG);
    let node = Arc::new(place.start(Some(&upstream.url)));
    node.put_tenant("acme", json!({})).await;
    let key = node.tenant_key("acme").await;
    let request = Request::builder()
        .uri(format!("{}/slow", node.gateway()))
        .header("authorization", format!("Bearer {key}"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let in_flight = tokio::spawn(async move { send(&http_client(), request).await.map_err(|e| e.to_string()) });
    until("the request", || async { upstream.reached() == 1 }).await;
    node.signal("TERM");
    let answer = in_flight.await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"slow"[..]));
    let (status, log) = Arc::into_inner(node).unwrap().wait();
    assert!(status.success(), "{log}");

    let node = place.start(Some(&upstream.url));
    assert_eq!(node.used_and_denied("acme", "messages").await.0, 1);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_count_decisions_and_name_no_tenant() {
    let upstream = Upstream::start().await;
    let place = Place::new(CATALOG);
    let node = place.start(Some(&upstream.url));
    let key = node.tenant_key("tenant-nobody-may-see").await;
    for _ in 0..7 {
        node.through(&key, Method::GET, "/slow", "").await;
    }
    let decisions =
        r#"tidegate_decisions_total{door="gateway",plan="free",code="allowed",meter="messages",feature=""}"#;
    assert_eq!(figure(&node, decisions).await, Some(5.0));
    let denials =
        r#"tidegate_denials_total{door="gateway",plan="free",code="period_limit_reached",meter="messages",feature=""}"#;
    assert_eq!(figure(&node, denials).await, Some(2.0));
    let requests = r#"tidegate_http_server_request_duration_seconds_count{door="gateway",http_request_method="",http_route="GET /slow",http_response_status_code="429"}"#;
    assert_eq!(figure(&node, requests).await, Some(2.0));
    assert_eq!(figure(&node, "tidegate_catalog_version").await, Some(1.0));
    assert!(figure(&node, "tidegate_ledger_commits_total").await >= Some(1.0));
    let text = node.api(Method::GET, "/metrics", None).await.body;
    let text = String::from_utf8_lossy(&text);
    assert!(!text.contains("nobody-may-see") && text.ends_with("# EOF\n"), "{text}");
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_takes_a_good_catalog_whole_and_refuses_a_bad_one() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    node.put_tenant("acme", json!({})).await;
    assert_eq!(limit_of(&node).await, 5);

    place.write_catalog(&CATALOG.replace("max = 5", "max = 7"));
    node.signal("HUP");
    until("the reload", || async { limit_of(&node).await == 7 }).await;

    place.write_catalog(&CATALOG.replace("max = 5", "max = 9").replace("plans.free", "plans.fre"));
    node.signal("HUP");
    until("the refusal", || async { figure(&node, "tidegate_catalog_reloads_refused_total").await == Some(1.0) }).await;
    assert_eq!(limit_of(&node).await, 7, "the old catalog stays in force, whole");
    let log = node.stop();
    assert!(log.contains("tidegate.toml:"), "the log says where and why: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_file_is_refused_and_harms_nothing() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    let (status, log) = Node::try_start(place.serve()).err().expect("two nodes on one file");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("another process") || log.contains("held"), "{log}");
    node.put_tenant("acme", json!({"plan": "free"})).await;
    node.stop();
}

#[test]
fn the_clock_can_t_be_moved_where_it_is_not_this_nodes_alone() {
    let place = Place::new(CATALOG);
    let mut command = place.serve();
    command.arg("--test-clock").env("TIDEGATE_LEDGER_URL", "postgres://me:hunter2@localhost/tidegate");
    let (status, _, problem) = crate::harness::run_command(&mut command);
    assert_eq!(status.code(), Some(2), "{problem}");
    assert!(problem.contains("--test-clock") && !problem.contains("hunter2"), "{problem}");
}

#[test]
fn history_that_would_be_kept_finer_for_longer_is_refused_at_start() {
    let place = Place::new(CATALOG);
    let mut command = place.serve();
    command.env("TIDEGATE_LEDGER_HISTORY_MINUTES", "96d");
    let (status, log) = Node::try_start(command).err().expect("it must not start");
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("TIDEGATE_LEDGER_HISTORY_MINUTES is longer than TIDEGATE_LEDGER_HISTORY_QUARTERS"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_key_is_made_and_shown_once() {
    let place = Place::new(CATALOG);
    let mut serve = place.serve();
    serve.env_remove("TIDEGATE_ADMIN_KEY");
    let node = Node::start(serve);
    let api = node.api.clone();
    let log = node.stop();
    let key = log.split_whitespace().find(|word| word.starts_with("tg_")).expect("a key on stderr").to_owned();
    assert!(!api.is_empty());

    let mut serve = place.serve();
    serve.env_remove("TIDEGATE_ADMIN_KEY");
    let node = Node::start(serve);
    let tenants = node.api_as(&key, Method::GET, "/api/v1/tenants", None).await.unwrap();
    assert_eq!(tenants.status, 200, "the key works after a restart");
    let log = node.stop();
    assert!(!log.contains(&key) && !log.contains("tg_"), "no second key is made, and none is logged: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_clock_moves_time_and_is_absent_otherwise() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    let advance = json!({"advance": "2d"});
    let answer = node.api(Method::POST, "/api/v1/test/clock", Some(advance.clone())).await;
    assert_eq!(answer.status, 404, "{answer:?}");
    node.stop();

    let mut serve = place.serve();
    serve.arg("--test-clock").env("TIDEGATE_LEDGER_URL", "memory:");
    let node = Node::start(serve);
    let consume = json!({"tenant_id": "acme", "meter": "messages", "amount": 5, "consume": true});
    let check = || async { node.api(Method::POST, "/api/v1/check", Some(consume.clone())).await.json() };
    assert_eq!(check().await["allowed"], true);
    assert_eq!(check().await["allowed"], false);
    let answer = node.api(Method::POST, "/api/v1/test/clock", Some(advance)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(check().await["allowed"], true, "another day, another five");
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn json_logs_are_json_and_hold_no_secret() {
    let upstream = Upstream::start().await;
    let place = Place::new(CATALOG);
    let mut serve = place.serve();
    serve.env("TIDEGATE_LOG_FORMAT", "json").env("TIDEGATE_LOG_LEVEL", "debug");
    serve.env("TIDEGATE_GATEWAY_UPSTREAM", &upstream.url);
    let node = Node::start(serve);
    node.put_tenant("acme", json!({})).await;
    let key = node.tenant_key("acme").await;
    assert_eq!(node.through(&key, Method::GET, "/slow", "body-nobody-may-see").await.status, 200);
    node.api_as("tg_wrong_key_nobody_may_see", Method::GET, "/api/v1/tenants", None).await.unwrap();
    let log = node.stop();
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    }
    for secret in [&key, crate::harness::ADMIN_KEY, "nobody-may-see", "nobody_may_see"] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}

#[test]
fn settings_are_shown_without_secrets() {
    let mut command = binary();
    command.args(["serve", "--print-settings"]).env("TIDEGATE_ADMIN_KEY", "very-secret");
    let (status, shown, _) = crate::harness::run_command(&mut command);
    assert!(status.success());
    assert!(shown.contains("TIDEGATE_ADMIN_KEY=[secret]") && !shown.contains("very-secret"), "{shown}");
    assert!(shown.contains("TIDEGATE_API_CORS_ORIGINS=\n"), "{shown}");
}

#[test]
fn pages_that_may_call_are_named_one_by_one() {
    let with = |origins: &str| {
        let mut command = binary();
        command.args(["serve", "--print-settings"]).env("TIDEGATE_API_CORS_ORIGINS", origins);
        crate::harness::run_command(&mut command)
    };
    let (status, shown, _) = with("https://app.example.com, http://localhost:5173");
    assert!(status.success());
    assert!(shown.contains("TIDEGATE_API_CORS_ORIGINS=https://app.example.com,http://localhost:5173\n"), "{shown}");
    let (status, _, told) = with("*");
    assert_eq!(status.code(), Some(2));
    assert!(told.contains("TIDEGATE_API_CORS_ORIGINS") && told.contains("https://app.example.com"), "{told}");
}
