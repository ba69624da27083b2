//! Charges from what the response reports: tokens charged are tokens reported, however the answer is framed.

use crate::{
    upstream::Play,
    world::{Answer, World, read_until, until},
};
use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use std::{io::Write, sync::atomic::Ordering, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TOKENS: &str = "[[routes]]\nmatch = \"/play\"\n\
    charge = [{ meter = \"calls\" }, { meter = \"tokens\", from = \"usage\", expect = 1000 }]\n";
const ACME: (&str, &str) = ("x-org", "acme");
const STREAM: &str = "text/event-stream";
const USAGE: &str = r#"{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33}"#;

fn play(kind: &str, chunks: Vec<Vec<u8>>) -> Play {
    Play { headers: vec![("content-type", kind.to_owned())], chunks, ..Play::default() }
}

fn delta(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n")
}

/// A chat as it is streamed, with its usage in a chunk of its own.
fn chat(usage: &str) -> String {
    format!("{}: ping\n\n{}data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n", delta("hé"), delta("🌊"))
}

impl World {
    async fn played(&self, play: Play) -> Answer {
        *self.upstream.seen.play.lock().unwrap() = play;
        self.post("/play", &[ACME], "{}").await
    }

    /// Plays an answer, wants it back as it was, and so many tokens charged for it.
    async fn charges(&self, what: &str, play: Play, tokens: i64) {
        let before = self.usage("acme", "tokens").await.0;
        let body = play.chunks.concat();
        let answer = self.played(play).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, body.as_slice()), "{what}");
        self.gateway_settles(before + tokens, what).await;
    }

    async fn gateway_settles(&self, tokens: i64, what: &str) {
        until(what, async || self.usage("acme", "tokens").await.0 == tokens).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(self.usage("acme", "tokens").await.0, tokens, "{what}");
    }
}

#[tokio::test]
async fn tokens_charged_are_tokens_reported_in_every_framing() {
    let world = World::new(TOKENS).await;
    let text = chat(USAGE).into_bytes();
    for at in [1, 30, 31, 50, 63, 64, 65, text.len() / 2, text.len() - 30, text.len() - 1] {
        let chunks = vec![text[..at].to_vec(), text[at..].to_vec()];
        world.charges(&format!("cut at {at}"), play(STREAM, chunks), 33).await;
    }
    world.charges("byte by byte", play(STREAM, text.chunks(1).map(<[u8]>::to_vec).collect()), 33).await;
    world.charges("in one chunk", play(STREAM, vec![text.clone()]), 33).await;
    let crlf = chat(USAGE).replace('\n', "\r\n").into_bytes();
    let chunks = crlf.split_inclusive(|byte| *byte == b'\r').map(<[u8]>::to_vec).collect();
    world.charges("cut between CR and LF", play(STREAM, chunks), 33).await;
    let growing = format!("{}{}", chat(r#"{"total_tokens":5}"#), chat(USAGE));
    world.charges("the last report counts", play(STREAM, vec![growing.into_bytes()]), 33).await;
    let responses = "event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":40,\"output_tokens\":4,\
        \"total_tokens\":44}}}\n\n";
    world.charges("events of the Responses API", play(STREAM, vec![responses.into()]), 44).await;
    let json = format!("{{\"choices\":[{{\"message\":{{\"content\":\"\\\"usage\\\"\"}}}}],\"usage\":{USAGE}}}");
    world.charges("plain JSON", play("application/json", vec![json.clone().into_bytes()]), 33).await;
    world.charges("JSON in pieces", play("application/json", json.bytes().map(|byte| vec![byte]).collect()), 33).await;
    let more = r#"{"usage":{"prompt_tokens":2000,"completion_tokens":500,"total_tokens":2500}}"#;
    world.charges("more than expected", play("application/json", vec![more.into()]), 2500).await;
    assert_eq!(world.usage("acme", "tokens").await.1, 0);
}

#[tokio::test]
async fn encoded_answers_are_read_and_passed_on_as_they_are() {
    let world = World::new(&format!("{TOKENS}identity_encoding = false\n")).await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(chat(USAGE).as_bytes()).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(chat(USAGE).as_bytes()).unwrap();
    let brotli = include_bytes!("usage.json.br").to_vec();
    for (encoding, kind, body, tokens) in [
        ("gzip", STREAM, gzip.finish().unwrap(), 33),
        ("deflate", STREAM, zlib.finish().unwrap(), 33),
        ("br", "application/json", brotli, 33),
        ("zstd", STREAM, b"what nobody here reads".to_vec(), 1000),
        ("gzip", STREAM, b"no gzip at all".to_vec(), 1000),
    ] {
        let mut play = play(kind, body.chunks(7).map(<[u8]>::to_vec).collect());
        play.headers.push(("content-encoding", encoding.to_owned()));
        world.charges(encoding, play, tokens).await;
    }
    assert!(!world.upstream.seen.asked.lock().unwrap().0.contains_key("accept-encoding"));
}

#[tokio::test]
async fn an_upstream_is_asked_not_to_encode_what_is_read() {
    let world = World::new(TOKENS).await;
    *world.upstream.seen.play.lock().unwrap() = play("application/json", vec![b"{}".to_vec()]);
    world.post("/play", &[ACME, ("accept-encoding", "gzip, br")], "{}").await;
    assert_eq!(world.upstream.seen.asked.lock().unwrap().0["accept-encoding"], "identity");
}

#[tokio::test]
async fn where_nothing_is_reported_what_was_expected_stays_charged() {
    let world = World::new(TOKENS).await;
    world.charges("no usage", play(STREAM, vec![delta("x").into(), b"data: [DONE]\n\n".to_vec()]), 1000).await;
    world.charges("another type", play("text/plain", vec![chat(USAGE).into()]), 1000).await;
    let mut broken = play(STREAM, vec![delta("x").into_bytes()]);
    broken.breaks = true;
    *world.upstream.seen.play.lock().unwrap() = broken;
    let mut stream = world.raw().await;
    stream.write_all(b"GET /play HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.ends_with(b"0\r\n\r\n"));
    world.gateway_settles(3000, "broken off by the upstream").await;
}

#[tokio::test]
async fn a_stream_that_is_cut_charges_what_it_reported_until_then() {
    let world = World::new(TOKENS).await;
    for (what, first, tokens) in [
        ("before any report", delta("x"), 1000),
        ("after a report", format!("{}data: {{\"usage\":{USAGE}}}\n\n", delta("x")), 1033),
    ] {
        let mut waiting = play(STREAM, vec![first.into_bytes(), chat(r#"{"total_tokens":5000}"#).into_bytes()]);
        waiting.waits = true;
        *world.upstream.seen.play.lock().unwrap() = waiting;
        let mut stream = world.raw().await;
        stream.write_all(b"GET /play HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
        read_until(&mut stream, "}\n\n").await;
        drop(stream);
        until("the upstream is told", async || world.upstream.seen.bodies.load(Ordering::SeqCst) == 0).await;
        world.gateway_settles(tokens, what).await;
    }
}

#[tokio::test]
async fn what_is_expected_takes_its_room_before_the_answer() {
    let world = World::new(TOKENS).await;
    let mut waiting = play(STREAM, vec![delta("x").into(), chat(USAGE).into()]);
    waiting.waits = true;
    *world.upstream.seen.play.lock().unwrap() = waiting;
    // Room for ten times a thousand, though each of them will use 33.
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = world.raw().await;
        stream.write_all(b"GET /play HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        streams.push(stream);
    }
    let refused = world.get("/play", &[ACME]).await;
    assert_eq!((refused.status.as_u16(), refused.json()["decision"]["meter"].clone()), (429, "tokens".into()));
    drop(streams);
    // Cut before anything was reported: what was expected stays.
    world.gateway_settles(10_000, "all ten").await;
    assert_eq!(world.usage("acme", "calls").await.0, 10);
}

#[tokio::test]
async fn answers_that_do_not_count_cost_nothing() {
    let world = World::new(&format!("{TOKENS}charge_when = \"success\"\n").replace("/play", "/status/*")).await;
    assert_eq!(world.get("/status/500", &[ACME]).await.status, 500);
    world.gateway_settles(0, "given back").await;
    assert_eq!(world.get("/status/200", &[ACME]).await.status, 200);
    world.gateway_settles(1000, "nothing reported").await;
    assert_eq!(world.usage("acme", "calls").await.0, 1);
}

#[tokio::test]
async fn a_header_of_the_response_and_its_duration_are_charged() {
    let world = World::new(
        "[[routes]]\nmatch = \"/play\"\ncharge = [{ meter = \"tokens\", response_header = \"x-tokens\", expect = 50 }, \
         { meter = \"time\", from = \"duration\" }]\n",
    )
    .await;
    for (header, tokens) in [("70", 70), ("0", 70), ("", 120), ("-3", 170), ("7.5", 220), ("99999999999999999999", 270)]
    {
        let mut play = play("text/plain", vec![b"x".to_vec()]);
        play.headers.push(("x-tokens", header.to_owned()));
        world.played(play).await;
        world.gateway_settles(tokens, header).await;
    }
    let before = world.usage("acme", "time").await.0;
    let mut slow = play(STREAM, vec![b"a".to_vec(), b"b".to_vec()]);
    slow.waits = true;
    let seen = world.upstream.seen.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        seen.go_on.notify_one();
    });
    world.played(slow).await;
    until("its time is charged", async || {
        (before + 300..before + 30_000).contains(&world.usage("acme", "time").await.0)
    })
    .await;
}

const BY_MODEL: &str = r#"
[costs.models]
meter = "tokens"
property = "model"
quantities = ["prompt_tokens", "completion_tokens"]
prices = { large = { prompt_tokens = 500, completion_tokens = 1500 }, small = { prompt_tokens = 100, completion_tokens = 0 } }
unknown = "refuse"
[[routes]]
match = "/play"
charge = [{ cost = "models", from = "usage", expect = 40, properties = { model = { header = "x-model" } } }]
"#;

#[tokio::test]
async fn tokens_cost_what_the_price_list_has_for_their_model() {
    let world = World::new(BY_MODEL).await;
    let ask = async |model: &str, play: Play| {
        *world.upstream.seen.play.lock().unwrap() = play;
        world.post("/play", &[ACME, ("x-model", model)], "{}").await
    };
    let mut total = 0;
    for (what, model, play, amount) in [
        // 11 * 500 + 22 * 1500 = 38,500 thousandths.
        ("streamed", "large", play(STREAM, vec![chat(USAGE).into_bytes()]), 39),
        ("cheaper", "small", play(STREAM, vec![chat(USAGE).into_bytes()]), 2),
        (
            "only one kind",
            "large",
            play("application/json", vec![br#"{"usage":{"prompt_tokens":2000}}"#.to_vec()]),
            1000,
        ),
        (
            "free, as the list says",
            "small",
            play("application/json", vec![br#"{"usage":{"completion_tokens":9}}"#.to_vec()]),
            0,
        ),
        (
            "nothing that has a price",
            "large",
            play("application/json", vec![br#"{"usage":{"total_tokens":9}}"#.to_vec()]),
            40,
        ),
        ("nothing at all", "large", play(STREAM, vec![delta("a").into_bytes()]), 40),
    ] {
        assert_eq!(ask(model, play).await.status, 200, "{what}");
        total += amount;
        world.gateway_settles(total, what).await;
    }
    let before = world.upstream.requests();
    let unpriced = ask("new", play(STREAM, vec![chat(USAGE).into_bytes()])).await;
    assert_eq!((unpriced.status.as_u16(), unpriced.json()["code"].clone()), (422, "unknown_price".into()));
    assert_eq!((world.upstream.requests(), world.usage("acme", "tokens").await), (before, (total, 0)));
}
