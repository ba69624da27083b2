//! Time that streams take, under the test clock: limits hold to the millisecond, every session is closed once, whoever
//! kills what, and places are free again when those who held them are gone.

use crate::harness::{Node, PATIENCE, Place, Upstream};
use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
};

const CATALOG: &str = r#"
[meters.talk]
kind = "duration"
debit_interval = "30s"
idle_timeout = "5m"
[plans.cut]
rank = 0
limits = [{ meter = "talk", max = "60m", per = "period" }]
[plans.finish]
rank = 1
sessions = { on_limit = "finish", finish_max = "30s" }
limits = [{ meter = "talk", max = "60m", per = "period" }]
[plans.three]
rank = 2
limits = [{ meter = "talk", max = 3, per = "concurrent" }]
[[routes]]
match = "GET /talk"
session = { meter = "talk" }
[[identity]]
type = "header"
tenant = "x-org"
from = ["127.0.0.0/8"]
"#;

const LIMIT_MS: i64 = 3_600_000;
const FINISH_MAX_MS: i64 = 30_000;

/// A model that never stops talking.
async fn talk() -> ([(&'static str, &'static str); 1], Body) {
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        while sender.send_data(Bytes::from_static(b"data: {\"choices\":[]}\n\n")).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    ([("content-type", "text/event-stream")], Body::new(body))
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Refused, with this status.
    Refused(u16),
    /// By an event of the gateway's, and then in good order.
    Cut,
    /// The connection broke.
    Broken,
}

/// Asks for a stream; says when it has begun, and how it ended.
async fn stream(gateway: String, tenant: &'static str, begun: Option<oneshot::Sender<()>>) -> End {
    let Ok(mut stream) = TcpStream::connect(gateway.trim_start_matches("http://")).await else { return End::Broken };
    let head = format!("GET /talk HTTP/1.1\r\nhost: gate\r\nx-org: {tenant}\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return End::Broken;
    }
    let (mut seen, mut part, mut begun) = (Vec::new(), [0; 4096], begun);
    loop {
        let Ok(length @ 1..) = stream.read(&mut part).await else { return End::Broken };
        seen.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&seen);
        let Some(status) = text.split_once("\r\n\r\n").and_then(|(head, _)| head.split(' ').nth(1)?.parse().ok())
        else {
            continue;
        };
        if status != 200 {
            return End::Refused(status);
        }
        begun.take().map(|begun| begun.send(()));
        if text.ends_with("0\r\n\r\n") {
            return if text.contains("event: error\n") { End::Cut } else { End::Broken };
        }
    }
}

/// Streams of a tenant, all of which have begun.
async fn streams(node: &Node, tenant: &'static str, count: usize) -> JoinSet<End> {
    let (mut streams, mut begun) = (JoinSet::new(), Vec::new());
    for _ in 0..count {
        let (sender, receiver) = oneshot::channel();
        streams.spawn(stream(node.gateway().to_owned(), tenant, Some(sender)));
        begun.push(receiver);
    }
    for one in begun {
        tokio::time::timeout(PATIENCE, one).await.expect("a stream does not begin").expect("a stream was refused");
    }
    streams
}

/// A place with a node on it, whose clock is moved.
struct Stage {
    place: Place,
    upstream: Upstream,
    node: Node,
    /// How far its clock was moved, seconds.
    ahead_s: u64,
}

impl Stage {
    async fn new(tenants: &[(&str, &str)]) -> Self {
        let upstream = Upstream::with(Router::new().route("/talk", get(talk))).await;
        let place = Place::new(CATALOG);
        let node = start(&place, &upstream);
        for (tenant, plan) in tenants {
            node.put_tenant(tenant, json!({"plan": plan})).await;
        }
        Self { place, upstream, node, ahead_s: 0 }
    }

    async fn advance(&mut self, seconds: u64) {
        self.ahead_s += seconds;
        clock(&self.node, seconds).await;
    }

    /// `kill -9`, and a new node on the same ledger, at the same time of day.
    async fn kill(self) -> Self {
        let Self { place, upstream, node, ahead_s } = self;
        node.kill();
        let node = start(&place, &upstream);
        clock(&node, ahead_s).await;
        Self { place, upstream, node, ahead_s }
    }

    /// Lets time pass in seconds until all streams have ended; how many ended how. `each` looks at the books meanwhile.
    async fn until_ended(&mut self, mut streams: JoinSet<End>, tenant: &str, max_ms: i64) -> BTreeMap<End, usize> {
        let (mut ends, began) = (BTreeMap::new(), Instant::now());
        while !streams.is_empty() {
            assert!(began.elapsed() < 2 * PATIENCE, "{} streams do not end", streams.len());
            self.advance(1).await;
            let pause = tokio::time::sleep(Duration::from_millis(100));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    Some(end) = streams.join_next() => *ends.entry(end.unwrap()).or_insert(0) += 1,
                    () = &mut pause => break,
                }
            }
            let books = self.books(tenant).await;
            assert!(books.used <= max_ms, "{books:?}");
        }
        ends
    }

    async fn books(&self, tenant: &str) -> Books {
        let usage = self.node.usage(tenant, "").await;
        let talk = usage["meters"].as_array().unwrap().iter().find(|meter| meter["meter"] == "talk").unwrap().clone();
        let limit = talk["limits"].as_array().unwrap().iter().find(|limit| limit["max"] == LIMIT_MS);
        let number = |value: &Value| value.as_i64().unwrap();
        Books {
            used: number(&talk["used"]),
            held: number(&talk["held"]),
            remaining: limit.map_or(0, |limit| number(&limit["remaining"])),
        }
    }

    async fn open(&self, tenant: &str) -> usize {
        let path = format!("/api/v1/tenants/{tenant}/sessions?limit=500");
        self.node.api(Method::GET, &path, None).await.json()["items"].as_array().unwrap().len()
    }

    /// Waits until no session of a tenant is open.
    async fn until_closed(&self, tenant: &str) {
        let began = Instant::now();
        while self.open(tenant).await > 0 {
            assert!(began.elapsed() < PATIENCE, "sessions stay open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many sessions of a tenant were opened; each was closed once, as soon as all that lapsed is written down.
    async fn closed_once(&self, tenant: &str) -> usize {
        let began = Instant::now();
        loop {
            let closed = self.closed(tenant).await;
            let twice: Vec<_> = closed.iter().filter(|(_, times)| **times > 1).collect();
            assert!(twice.is_empty(), "closed more than once: {twice:?}");
            if closed.values().all(|times| *times == 1) {
                return closed.len();
            }
            assert!(began.elapsed() < PATIENCE, "not closed: {closed:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The sessions of a tenant that were opened, and how often the ledger says that they ended.
    async fn closed(&self, tenant: &str) -> BTreeMap<String, usize> {
        let mut closed: BTreeMap<String, usize> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page =
                self.node.api(Method::GET, &format!("/api/v1/entries?after={after}&limit=500"), None).await.json();
            let entries = page["items"].as_array().unwrap().clone();
            let Some(last) = entries.last() else { break };
            after = last["seq"].as_i64().unwrap();
            let own = entries.iter().filter(|entry| entry["tenant_id"] == tenant);
            for effect in own.flat_map(|entry| entry["effects"].as_array().unwrap()) {
                let session = || effect["session"].as_str().unwrap().to_owned();
                match effect["effect"].as_str() {
                    Some("session") => {
                        closed.entry(session()).or_insert(0);
                    }
                    Some("session_closed") => *closed.entry(session()).or_insert(0) += 1,
                    _ => {}
                }
            }
        }
        closed
    }
}

/// Used, held and left of the hour, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Books {
    used: i64,
    held: i64,
    remaining: i64,
}

fn start(place: &Place, upstream: &Upstream) -> Node {
    let mut command = place.serve();
    command.arg("--test-clock").env("TIDEGATE_GATEWAY_UPSTREAM", &upstream.url);
    Node::start(command)
}

async fn clock(node: &Node, seconds: u64) {
    let advance = json!({"advance": format!("{seconds}s")});
    if seconds > 0 {
        let answer = node.api(Method::POST, "/api/v1/test/clock", Some(advance)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_are_cut_when_their_hour_is_used_to_the_millisecond() {
    let mut stage = Stage::new(&[("acme", "cut")]).await;
    let streams = streams(&stage.node, "acme", 200).await;
    let ends = stage.until_ended(streams, "acme", LIMIT_MS).await;
    assert_eq!(ends, BTreeMap::from([(End::Cut, 200)]));
    stage.until_closed("acme").await;
    assert_eq!(stage.books("acme").await, Books { used: LIMIT_MS, held: 0, remaining: 0 });
    assert_eq!(stage.closed_once("acme").await, 200);
    assert_eq!(stream(stage.node.gateway().to_owned(), "acme", None).await, End::Refused(429));
    stage.node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_may_finish_and_what_they_take_past_the_hour_is_recorded() {
    let mut stage = Stage::new(&[("acme", "finish")]).await;
    let streams = streams(&stage.node, "acme", 200).await;
    let most = LIMIT_MS + 200 * FINISH_MAX_MS;
    let ends = stage.until_ended(streams, "acme", most).await;
    assert_eq!(ends, BTreeMap::from([(End::Cut, 200)]));
    stage.until_closed("acme").await;
    let books = stage.books("acme").await;
    assert!((LIMIT_MS + 1..=most).contains(&books.used), "{books:?}");
    assert_eq!((books.held, books.remaining), (0, 0));
    assert_eq!(stage.closed_once("acme").await, 200);
    stage.node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_ten_times_in_mid_flight_passes_no_limit_and_leaves_no_session_open() {
    let mut stage = Stage::new(&[("acme", "cut"), ("globex", "finish")]).await;
    let mut opened = BTreeMap::from([("acme", 0), ("globex", 0)]);
    for round in 0..10 {
        let mut running = JoinSet::new();
        for tenant in ["acme", "globex"] {
            for _ in 0..10 {
                running.spawn(stream(stage.node.gateway().to_owned(), tenant, None));
            }
        }
        for _ in 0..15 {
            stage.advance(1).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        stage = stage.kill().await;
        while running.join_next().await.is_some() {}
        // What a dead node held is held, or was used, until nobody touched it for so long.
        for (tenant, opened) in &mut opened {
            let books = stage.books(tenant).await;
            *opened = stage.open(tenant).await.max(*opened);
            let most = if *tenant == "acme" { LIMIT_MS } else { LIMIT_MS + 100 * FINISH_MAX_MS };
            assert!(books.used + books.held <= most, "{round}: {books:?}");
            if *tenant == "acme" {
                assert_eq!(books.used + books.held + books.remaining, LIMIT_MS, "{round}: {books:?}");
            }
        }
    }
    assert!(opened.values().all(|opened| *opened >= 10), "streams were in flight: {opened:?}");
    stage.advance(301).await;
    for tenant in ["acme", "globex"] {
        stage.until_closed(tenant).await;
        let books = stage.books(tenant).await;
        assert_eq!((books.held, books.used + books.remaining), (0, LIMIT_MS), "{tenant}");
        assert!(books.used > 0, "time was counted");
        assert!(stage.closed_once(tenant).await >= 30, "streams were in flight");
    }
    // What is left can be used, and no more.
    let rest = streams(&stage.node, "acme", 100).await;
    let ends = stage.until_ended(rest, "acme", LIMIT_MS).await;
    assert_eq!(ends, BTreeMap::from([(End::Cut, 100)]));
    stage.until_closed("acme").await;
    assert_eq!(stage.books("acme").await, Books { used: LIMIT_MS, held: 0, remaining: 0 });
    stage.node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_three_run_at_once_and_the_dead_free_their_places() {
    let mut stage = Stage::new(&[("acme", "three")]).await;
    let race = |node: &Node| {
        let gateway = node.gateway().to_owned();
        let mut racing = JoinSet::new();
        (0..100).for_each(|_| drop(racing.spawn(stream(gateway.clone(), "acme", None))));
        racing
    };
    let refused = async |racing: &mut JoinSet<End>, count: usize| {
        for _ in 0..count {
            let end = tokio::time::timeout(PATIENCE, racing.join_next()).await.expect("all are answered");
            assert_eq!(end.unwrap().unwrap(), End::Refused(429));
        }
    };
    let mut racing = race(&stage.node);
    refused(&mut racing, 97).await;
    assert_eq!((racing.len(), stage.open("acme").await), (3, 3));
    // The clients are gone.
    racing.shutdown().await;
    stage.until_closed("acme").await;
    let mut racing = race(&stage.node);
    refused(&mut racing, 97).await;
    assert_eq!(stage.open("acme").await, 3);
    // The node is gone: nobody says that they ended, but nobody touches them either.
    stage = stage.kill().await;
    while racing.join_next().await.is_some() {}
    assert_eq!(stage.open("acme").await, 3);
    stage.advance(301).await;
    let mut racing = race(&stage.node);
    refused(&mut racing, 97).await;
    assert_eq!(stage.open("acme").await, 3);
    racing.shutdown().await;
    stage.until_closed("acme").await;
    assert_eq!(stage.closed_once("acme").await, 9);
    stage.node.stop();
}
