//! `include_usage`: a streamed chat is made to ask for its usage, and the client gets what it would have got without.

use crate::{
    upstream::Play,
    world::{World, until},
};
use bytes::Bytes;
use domain::id::TenantId;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUTE: &str = "[[routes]]\nmatch = \"/play\"\ninclude_usage = true\nbody_peek_max_bytes = 1000\n\
    charge = [{ meter = \"tokens\", from = \"usage\", expect = 1000 }, { meter = \"traffic\", from = \"request_bytes\" }]\n";
const ACME: (&str, &str) = ("x-org", "acme");
const JSON: (&str, &str) = ("content-type", "application/json");
const ASKS: &str = r#"{"model":"m","messages":[],"stream":true}"#;
const ASKED: &str = r#"{"stream_options":{"include_usage":true},"model":"m","messages":[],"stream":true}"#;
const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hé\"}}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":33}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn stream(chunks: Vec<Vec<u8>>) -> Play {
    Play { headers: vec![("content-type", "text/event-stream".to_owned())], chunks, ..Play::default() }
}

impl World {
    fn plays(&self, play: Play) {
        *self.upstream.seen.play.lock().unwrap() = play;
    }

    fn was_asked(&self) -> (Option<String>, String) {
        let (headers, body) = self.upstream.seen.asked.lock().unwrap().clone();
        let length = headers.get("content-length").map(|value| value.to_str().unwrap().to_owned());
        (length, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn what_the_client_did_not_ask_for_it_does_not_get() {
    let world = World::new(ROUTE).await;
    let whole = format!("{DELTA}: ping\n\n{USAGE}{DONE}").into_bytes();
    let expected = format!("{DELTA}: ping\n\n{DONE}");
    for (round, chunks) in [
        vec![whole.clone()],
        whole.chunks(1).map(<[u8]>::to_vec).collect(),
        whole.chunks(40).map(<[u8]>::to_vec).collect(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut play = stream(chunks);
        play.headers.push(("content-length", whole.len().to_string()));
        world.plays(play);
        let answer = world.post("/play", &[ACME, JSON], ASKS).await;
        assert_eq!((answer.status.as_u16(), answer.body), (200, Bytes::from(expected.clone())));
        assert_eq!(answer.headers.get("content-length"), None);
        assert_eq!(world.was_asked(), (Some(ASKED.len().to_string()), ASKED.to_owned()));
        world.until_used("acme", "tokens", 33 * (round as i64 + 1)).await;
    }
    // What the client sent is what it is charged for.
    assert_eq!(world.usage("acme", "traffic").await.0, 3 * ASKS.len() as i64);
    until("the connection is kept", async || world.upstream.connections() == 1).await;
}

#[tokio::test]
async fn a_client_that_asked_gets_what_it_asked_for() {
    let world = World::new(ROUTE).await;
    let whole = format!("{DELTA}{USAGE}{DONE}");
    world.plays(stream(vec![whole.clone().into()]));
    let answer = world.post("/play", &[ACME, JSON], ASKED).await;
    assert_eq!(answer.body, Bytes::from(whole));
    assert_eq!(world.was_asked().1, ASKED);
    world.until_used("acme", "tokens", 33).await;
}

#[tokio::test]
async fn what_can_not_be_asked_for_its_usage_passes_as_it_is() {
    let world = World::new(ROUTE).await;
    let long = format!("{{\"messages\":[\"{}\"],\"stream\":true}}", "x".repeat(5000));
    let whole = format!("{DELTA}{USAGE}{DONE}");
    world.plays(stream(vec![whole.clone().into()]));
    for (kind, body) in [
        ("application/json", r#"{"messages":[],"stream":false}"#),
        ("application/json", long.as_str()),
        ("application/json", "no json"),
        ("text/plain", ASKS),
    ] {
        let answer = world.post("/play", &[ACME, ("content-type", kind)], body.to_owned()).await;
        assert_eq!(answer.body, Bytes::from(whole.clone()), "{body}");
        assert_eq!(world.was_asked(), (Some(body.len().to_string()), body.to_owned()));
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_looked_at_as_well() {
    let world = World::new(ROUTE).await;
    world.plays(stream(vec![format!("{DELTA}{USAGE}{DONE}").into()]));
    let long = format!("{{\"messages\":[\"{}\"],\"stream\":true}}", "x".repeat(5000));
    for (round, (body, asked)) in [(ASKS, ASKED), (&long, &long)].into_iter().enumerate() {
        let (first, second) = body.split_at(20);
        let chunked = "POST /play HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        let mut client = world.raw().await;
        client.write_all(chunked.as_bytes()).await.unwrap();
        let mut go_on = [0; 25];
        client.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        for part in [first, second] {
            client.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("0\r\n\r\n"), "{answer}");
        assert_eq!(answer.contains("total_tokens"), round == 1, "{answer}");
        assert_eq!(world.was_asked(), (None, asked.to_owned()));
        world.until_used("acme", "tokens", 33 * (round as i64 + 1)).await;
    }
    assert_eq!(world.usage("acme", "traffic").await.0, (ASKS.len() + long.len()) as i64);
}

#[tokio::test]
async fn a_client_that_breaks_off_while_it_asks_is_charged_nothing() {
    let world = World::new(ROUTE).await;
    let mut client = world.raw().await;
    let head = "POST /play HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    client.write_all(head.as_bytes()).await.unwrap();
    until("the tenant is known", async || world.engine.tenant(&TenantId::trusted("acme")).await.is_ok()).await;
    let held = async || World::in_flight(&world.engine, "acme", "tokens").await;
    until("what it may cost is held", async || held().await == (0, 1000)).await;
    drop(client);
    until("it is given back", async || held().await == (0, 0)).await;
    assert_eq!(world.upstream.requests(), 0);
}
