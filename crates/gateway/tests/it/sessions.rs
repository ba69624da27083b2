//! Time while a request runs: sessions opened, kept, warned, finished or cut at their limits, and ended with their streams.

use crate::{
    upstream::Play,
    world::{World, read_until, until},
};
use domain::{id::TenantId, session::Session};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Routes that run in sessions, and a plan of a minute a month.
const GATES: &str = r#"
[plans.minute]
rank = 5
limits = [{ meter = "time", max = "60s", per = "period" }, { meter = "time", max = 3, per = "concurrent" }]
[plans.patient]
rank = 6
sessions = { on_limit = "finish", finish_max = "20s", warn_before = "15s" }
limits = [{ meter = "time", max = "60s", per = "period" }, { meter = "messages", max = 2, per = "day" }]
[[routes]]
match = "GET /sse"
session = { meter = "time" }
[[routes]]
match = "GET /ws"
session = { meter = "time" }
[[routes]]
match = "GET /break"
session = { meter = "time" }
[[routes]]
match = "POST /echo"
session = { meter = "time", key = { body = "/conversation/id" } }
[[routes]]
match = "/play"
charge = [{ meter = "messages" }]
session = { meter = "time", key = { header = "x-conversation" } }
[[routes]]
match = "GET /status/{status}"
session = { meter = "time", key = { cookie = "talk" } }
"#;

async fn world(plan: &str) -> World {
    let world = World::new(GATES).await;
    world.put_on("acme", plan).await;
    world
}

async fn open(world: &World, path: &str) -> TcpStream {
    let mut stream = world.raw().await;
    let head = format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn sessions(world: &World) -> Vec<Session> {
    world.engine.sessions(&TenantId::trusted("acme")).await.unwrap()
}

async fn until_closed(world: &World) {
    until("no session is open", async || sessions(world).await.is_empty()).await;
}

#[tokio::test]
async fn a_stream_is_cut_between_two_events_when_its_time_is_over() {
    let world = world("minute").await;
    let mut stream = open(&world, "/sse").await;
    read_until(&mut stream, "Hel\"}}]}\n\n").await;
    world.pass(40).await;
    let (used, _) = world.usage("acme", "time").await;
    assert!((1..=40_000).contains(&used), "time moves while it runs: {used}");
    world.pass(30).await;
    let end = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(end.contains("event: error\ndata: {"), "{end}");
    let data = end.split("data: ").nth(1).unwrap().lines().next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["code"], &data["status"]), (&"period_limit_reached".into(), &429.into()));
    assert_eq!(data["error"]["code"], "period_limit_reached");
    assert!(data["decision"]["denial_id"].as_str().is_some_and(|id| id.starts_with("den_")), "{data}");
    until_closed(&world).await;
    assert_eq!(world.usage("acme", "time").await.0, 60_000, "to the millisecond, and no further");
    assert_eq!(world.get("/sse", &[("x-org", "acme")]).await.status, 429);
    assert_eq!(world.upstream.requests(), 1);
}

#[tokio::test]
async fn a_stream_is_warned_and_may_finish_where_the_plan_says_so() {
    let world = world("patient").await;
    let mut stream = open(&world, "/sse").await;
    read_until(&mut stream, "Hel\"}}]}\n\n").await;
    world.pass(50).await;
    let warned = read_until(&mut stream, "session_limit_near").await;
    assert!(warned.contains("event: tidegate.warning\ndata: {\"choices\":[]"), "{warned}");
    world.pass(15).await;
    let refused = world.get("/sse", &[("x-org", "acme")]).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (429, &"period_limit_reached".into()));
    assert_eq!(sessions(&world).await.len(), 1, "what runs may finish");
    world.upstream.seen.go_on.notify_one();
    let rest = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(rest.contains("[DONE]") && !rest.contains("event: error"), "{rest}");
    until_closed(&world).await;
    let (used, _) = world.usage("acme", "time").await;
    assert!((60_001..=66_000).contains(&used), "what was past the limit is recorded: {used}");
}

#[tokio::test]
async fn what_may_finish_ends_all_the_same_after_its_longest_time() {
    let world = world("patient").await;
    let mut stream = open(&world, "/sse").await;
    world.pass(95).await;
    let end = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(end.contains("event: error\n"), "{end}");
    until_closed(&world).await;
    assert_eq!(world.usage("acme", "time").await.0, 80_000);
}

#[tokio::test]
async fn only_so_many_streams_run_at_once_and_a_closed_one_frees_its_place() {
    let world = world("minute").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = open(&world, "/sse").await;
        read_until(&mut stream, "Hel").await;
        streams.push(stream);
    }
    let refused = world.get("/sse", &[("x-org", "acme")]).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (429, &"concurrency_limit_reached".into()));
    assert_eq!(refused.json()["details"].get("conversation_id"), None, "it has no name");
    let named = world.get("/play", &[("x-org", "acme"), ("x-conversation", "c-9")]).await;
    assert_eq!((named.status.as_u16(), &named.json()["details"]["conversation_id"]), (429, &"c-9".into()));
    drop(streams.pop());
    until("a place is free", async || sessions(&world).await.len() == 2).await;
    let mut stream = open(&world, "/sse").await;
    read_until(&mut stream, "Hel").await;
}

#[tokio::test]
async fn requests_with_one_key_run_in_one_session() {
    let world = world("minute").await;
    let talk = [("x-org", "acme"), ("content-type", "application/json")];
    let said = r#"{"conversation": {"id": "c-7"}, "text": "hello"}"#;
    for _ in 0..2 {
        let answer = world.post("/echo", &talk, said).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, said.as_bytes()), "the body passes untouched");
        world.pass(10).await;
    }
    let open = sessions(&world).await;
    assert_eq!(open.iter().map(|session| &*session.key).collect::<Vec<_>>(), ["c-7"]);
    assert_eq!(open[0].accrued_ms, 10_000, "what lies between two requests is time of the conversation");
    // A cookie does as well; another conversation is another session.
    world.get("/status/200", &[("x-org", "acme"), ("cookie", "a=b; talk=c-8")]).await;
    assert_eq!(sessions(&world).await.len(), 2);
    // Not touched in time: it ended when it was touched last.
    world.clock_jump(301).await;
    assert_eq!(sessions(&world).await.len(), 0);
    assert_eq!(world.usage("acme", "time").await.0, 10_000);
}

#[tokio::test]
async fn a_refused_charge_leaves_no_session_behind() {
    let world = world("patient").await;
    *world.upstream.seen.play.lock().unwrap() = Play { chunks: vec![b"ok".to_vec()], ..Play::default() };
    for expected in [200, 200, 429] {
        let answer = world.get("/play", &[("x-org", "acme")]).await;
        assert_eq!(answer.status, expected);
        until_closed(&world).await;
    }
    assert_eq!(world.usage("acme", "messages").await, (2, 1));
    assert_eq!(world.usage("acme", "time").await.0, 0, "no time passed");
}

#[tokio::test]
async fn a_body_without_events_breaks_off_at_the_limit() {
    let world = world("minute").await;
    let mut stream = open(&world, "/break").await;
    read_until(&mut stream, "half").await;
    world.pass(70).await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("it ends");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "not as if it were whole");
    until_closed(&world).await;
    assert_eq!(world.usage("acme", "time").await.0, 60_000);
}

#[tokio::test]
async fn a_websocket_is_closed_with_1008_between_two_frames() {
    let world = world("minute").await;
    let mut stream = world.raw().await;
    let head = "GET /ws HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    // The beginning of a frame comes back; its end comes when the time is over already.
    stream.write_all(&[0x82, 4, b'a', b'b']).await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    world.pass(70).await;
    stream.write_all(b"cd").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await.expect("it ends");
    assert_eq!(&rest[..2], b"cd", "the frame that was under way is whole");
    assert_eq!((rest[2], &rest[4..6]), (0x88, &1008_u16.to_be_bytes()[..]));
    until_closed(&world).await;
    assert_eq!(world.usage("acme", "time").await.0, 60_000);
}

#[tokio::test]
async fn a_session_that_an_administrator_closes_ends_its_stream() {
    let world = world("minute").await;
    let mut stream = open(&world, "/sse").await;
    read_until(&mut stream, "Hel").await;
    world.pass(5).await;
    let id = sessions(&world).await[0].id;
    let close = Some(domain::session::CloseReason::Forced);
    let touch = engine::session::SessionTouch { id, close, enforce: None };
    world.engine.touch_session(&TenantId::trusted("acme"), touch).await.unwrap();
    world.pass(60).await;
    let end = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(end.contains("\"code\":\"session_closed\"") && end.contains("forced"), "{end}");
    assert_eq!(world.usage("acme", "time").await.0, 5_000);
}

#[tokio::test]
async fn who_asks_for_a_websocket_and_gets_events_is_in_a_session_all_the_same() {
    let world = world("minute").await;
    let mut stream = world.raw().await;
    let head = "GET /sse HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "Hel\"}}]}\n\n").await;
    assert_eq!(sessions(&world).await.len(), 1);
    world.pass(70).await;
    let end = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(end.contains("event: error\n"), "{end}");
    until_closed(&world).await;
    assert_eq!(world.usage("acme", "time").await.0, 60_000);
}

#[tokio::test]
async fn a_route_that_only_observes_cuts_nothing() {
    let world =
        World::new(&GATES.replace("match = \"GET /sse\"\n", "match = \"GET /sse\"\nenforce = \"observe\"\n")).await;
    world.put_on("acme", "minute").await;
    let mut stream = open(&world, "/sse").await;
    read_until(&mut stream, "Hel\"}}]}\n\n").await;
    world.pass(90).await;
    world.upstream.seen.go_on.notify_one();
    let rest = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(rest.contains("[DONE]") && !rest.contains("event: error"), "{rest}");
    until_closed(&world).await;
    assert!(world.usage("acme", "time").await.0 >= 90_000, "what ran is recorded");
}

#[tokio::test]
async fn a_client_that_reads_slowly_does_not_outlast_its_time() {
    let world = World::new(&GATES.replace("match = \"GET /break\"", "match = \"GET /big/{mebibytes}\"")).await;
    world.put_on("acme", "minute").await;
    let mut stream = open(&world, "/big/64").await;
    read_until(&mut stream, "\r\n\r\n").await;
    world.pass(70).await;
    until_closed(&world).await;
    let (mut read, mut part) = (0_usize, vec![0; 1 << 20]);
    while let Ok(length @ 1..) = stream.read(&mut part).await {
        read += length;
    }
    assert!(read < 60 << 20, "it ended long before all of it was sent: {read}");
    assert_eq!(world.usage("acme", "time").await.0, 60_000);
}
