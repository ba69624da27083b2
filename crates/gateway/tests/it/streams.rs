//! Bodies pass as they come: event streams, large uploads and downloads, WebSockets, early answers, broken ends.

use crate::{
    upstream::Upstream,
    world::{BY_HEADER, World, catalog_text, read_until, until},
};
use bytes::Bytes;
use gateway::GatewayOptions;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const CALLS: &str = "[[routes]]\nmatch = \"/*\"\ncharge = [{ meter = \"calls\" }]\n";
const ACME: (&str, &str) = ("x-org", "acme");
const MIB: usize = 1 << 20;

#[tokio::test]
async fn events_arrive_while_the_upstream_is_still_talking() {
    let world = World::new(CALLS).await;
    let mut stream = world.raw().await;
    stream.write_all(b"GET /sse HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
    let first = read_until(&mut stream, "Hel\"}}]}\n\n").await;
    assert!(first.contains("content-type: text/event-stream") && !first.contains("[DONE]"), "{first}");
    world.upstream.seen.go_on.notify_one();
    let rest = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(rest.contains("data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n"), "{rest}");
    assert!(rest.contains("data: [DONE]\n\n"), "{rest}");
}

#[tokio::test]
async fn a_client_that_goes_away_mid_stream_leaves_nothing_open() {
    let world = World::new(CALLS).await;
    for path in ["/sse", "/big/256"] {
        let mut stream = world.raw().await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").as_bytes()).await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(world.upstream.seen.bodies.load(Ordering::SeqCst), 1);
        drop(stream);
        until("the body is dropped", async || world.upstream.seen.bodies.load(Ordering::SeqCst) == 0).await;
        until("the connection is closed", async || world.upstream.connections() == 0).await;
    }
    assert_eq!(world.usage("acme", "calls").await, (2, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_mid_upload_leaves_nothing_open() {
    let world = World::new(CALLS).await;
    let mut stream = world.raw().await;
    stream
        .write_all(b"POST /sink HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-length: 1000000\r\n\r\nabc")
        .await
        .unwrap();
    until("the upstream hears of it", async || world.upstream.requests() == 1).await;
    drop(stream);
    until("the connection is closed", async || world.upstream.connections() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_dies_mid_body_is_not_a_clean_end() {
    let world = World::new(CALLS).await;
    let mut stream = world.raw().await;
    stream.write_all(b"GET /break HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "half").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    world.upstream.seen.go_on.notify_one();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("0\r\n\r\n"), "{rest}");
}

/// 64 MiB each way: far more than all the buffers between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_whole_in_little_memory() {
    let world = World::new(CALLS).await;
    let before = resident_bytes();
    let mut stream = world.raw().await;
    stream.write_all(b"GET /big/64 HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: close\r\n\r\n").await.unwrap();
    read_until_head(&mut stream).await;
    let (mut total, mut part) = (0, vec![0; MIB]);
    let mut high = before;
    while let Ok(length @ 1..) = stream.read(&mut part).await {
        total += length;
        high = high.max(resident_bytes());
    }
    // Chunk heads come on top.
    assert!((64 * MIB..65 * MIB).contains(&total), "{total}");

    let mut stream = world.raw().await;
    let head = format!("POST /sink HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-length: {}\r\n\r\n", 64 * MIB);
    stream.write_all(head.as_bytes()).await.unwrap();
    let part = vec![1; MIB];
    for _ in 0..64 {
        stream.write_all(&part).await.unwrap();
        high = high.max(resident_bytes());
    }
    let answer = read_until(&mut stream, &format!("\r\n\r\n{} ", 64 * MIB)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Other tests run beside this one; a buffered body would take 64 MiB.
    assert!(high - before < 48 * MIB, "{} MiB more", (high - before) / MIB);
}

async fn read_until_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[tokio::test]
async fn bodies_with_and_without_a_length_come_back_as_they_were() {
    let world = World::new(CALLS).await;
    let body: Vec<u8> = (0..300_000u32).map(|number| (number * 7 % 256) as u8).collect();
    assert_eq!(world.post("/echo", &[ACME], body.clone()).await.body, Bytes::from(body));
    let chunked = "POST /echo HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let mut stream = world.raw().await;
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("abc") && answer.contains("de") && answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn head_keeps_the_length_of_the_body_that_is_not_sent() {
    let world = World::new(CALLS).await;
    let answer =
        world.raw_answer("HEAD /status/200 HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content-length: 4\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_websocket_is_tunnelled_and_closed_by_either_side() {
    let world = World::new(CALLS).await;
    let hello = "GET /ws HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    let mut stream = world.raw().await;
    stream.write_all(hello.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("sec-websocket-accept"), "{answer}");
    assert!(answer.contains("upgrade: websocket") && answer.contains("connection: upgrade"), "{answer}");
    for text in ["one", "two", "three"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        read_until(&mut stream, text).await;
    }
    assert_eq!(world.usage("acme", "calls").await, (1, 0));
    drop(stream);
    until("the tunnel is closed", async || world.upstream.connections() == 0).await;
}

#[tokio::test]
async fn tunnels_are_closed_at_the_drain_deadline() {
    let options = GatewayOptions { drain_max: Duration::from_millis(200), ..GatewayOptions::default() };
    let mut world = World::with(&format!("{BY_HEADER}{CALLS}"), options).await;
    let mut stream = world.raw().await;
    let hello = "GET /ws HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(hello.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let stopped = world.shut_down();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), stopped).await.unwrap().unwrap();
    until("the tunnel is closed", async || world.upstream.connections() == 0).await;
}

#[tokio::test]
async fn no_other_protocol_is_switched_to() {
    let world = World::new(CALLS).await;
    let answer = world
        .get(
            "/x",
            &[ACME, ("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")],
        )
        .await;
    let headers = answer.json()["headers"].to_string();
    assert!(!headers.contains("upgrade") && !headers.contains("http2"), "{headers}");
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_upload() {
    let world = World::new(CALLS).await;
    let mut stream = world.raw().await;
    stream
        .write_all(b"POST /early HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-length: 1000000\r\n\r\nbeginning")
        .await
        .unwrap();
    let answer = read_until(&mut stream, "too much").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    until("nothing is left open", async || world.upstream.connections() == 0).await;
}

/// An upstream that is driven by hand.
async fn by_hand() -> (World, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream { address: listener.local_addr().unwrap(), seen: Default::default() };
    let text = catalog_text(upstream.address, &format!("{BY_HEADER}{CALLS}"));
    (World::of(&text, upstream, GatewayOptions::default()).await, listener)
}

const EXPECTING: &[u8] =
    b"POST /x HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn the_client_is_told_to_go_on_when_the_upstream_says_so() {
    let (world, listener) = by_hand().await;
    let mut client = world.raw().await;
    client.write_all(EXPECTING).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    let head = read_until(&mut upstream, "\r\n\r\n").await;
    assert!(head.to_lowercase().contains("expect: 100-continue"), "{head}");
    let early = tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await;
    assert!(early.is_err(), "the client was told to go on before the upstream said so");
    upstream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    read_until(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"hello").await.unwrap();
    read_until(&mut upstream, "hello").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    read_until(&mut client, "ok").await;
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_never_sent() {
    let (world, listener) = by_hand().await;
    let mut client = world.raw().await;
    client.write_all(EXPECTING).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 417 No\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    let answer = read_until(&mut client, "no").await;
    assert!(answer.starts_with("HTTP/1.1 417") && !answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn a_refused_client_is_not_told_to_go_on() {
    let world = World::new(CALLS).await;
    let expecting = String::from_utf8_lossy(EXPECTING).replace("x-org: acme\r\n", "");
    let answer = world.raw_answer(&expecting).await;
    assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("100 Continue"), "{answer}");
    assert_eq!(world.upstream.requests(), 0);
}

#[tokio::test]
async fn an_upstream_that_does_not_know_expect_gets_the_body_all_the_same() {
    let (world, listener) = by_hand().await;
    let mut client = world.raw().await;
    client.write_all(EXPECTING).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    read_until(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"hello").await.unwrap();
    read_until(&mut upstream, "hello").await;
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_nothing() {
    let (world, listener) = by_hand().await;
    let serve_one = async |close: bool| {
        let (mut upstream, _) = listener.accept().await.unwrap();
        read_until(&mut upstream, "\r\n\r\n").await;
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        if close {
            drop(upstream);
            return None;
        }
        Some(upstream)
    };
    let (answer, _) = tokio::join!(world.get("/x", &[ACME]), serve_one(true));
    assert_eq!(answer.status, 200);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (answer, _kept) = tokio::join!(world.get("/x", &[ACME]), serve_one(false));
    assert_eq!(answer.status, 200);
    assert_eq!(world.usage("acme", "calls").await, (2, 0));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_or_stalls_is_answered_for() {
    let (world, listener) = by_hand().await;
    let breaking = async {
        let (mut upstream, _) = listener.accept().await.unwrap();
        read_until(&mut upstream, "\r\n\r\n").await;
    };
    let (answer, ()) = tokio::join!(world.get("/x", &[ACME]), breaking);
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (502, "upstream_failed".into()));
    // It reached the upstream: the charge stands.
    assert_eq!(world.usage("acme", "calls").await, (1, 0));

    let upstream = Upstream::start().await;
    let text = catalog_text(upstream.address, &format!("{BY_HEADER}{CALLS}")).replace("\"5s\"", "\"100ms\"");
    let world = World::of(&text, upstream, GatewayOptions::default()).await;
    let answer = world.get("/hang", &[ACME]).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (504, "upstream_timeout".into()));
    until("the connection is closed", async || world.upstream.connections() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_switches_unasked_is_not_followed() {
    let (world, listener) = by_hand().await;
    for asking in ["", "connection: upgrade\r\nupgrade: websocket\r\n"] {
        let request = format!("GET /x HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n{asking}\r\n");
        let switching = async {
            let (mut upstream, _) = listener.accept().await.unwrap();
            read_until(&mut upstream, "\r\n\r\n").await;
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
            upstream.write_all(answer).await.unwrap();
            upstream
        };
        let (answer, _open) = tokio::join!(world.raw_answer(&request), switching);
        assert!(answer.starts_with("HTTP/1.1 502"), "{asking:?}: {answer}");
    }
}
