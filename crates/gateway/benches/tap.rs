//! What reading the usage of a streamed answer costs: `cargo bench -p gateway --bench tap -- [rounds] [MiB]`.
//!
//! First the reader alone. Then whole streams through a gateway over loopback, from a route that reads nothing, one that
//! reads usage, and one that also takes the usage chunk out; rounds are interleaved, and the ratio to the first counts.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use domain::time::Instant as Time;
use engine::{Engine, ports::Clock};
use gateway::{
    Gateway, GatewayOptions,
    tap::{Encoding, EventFlow, Format, Tap},
};
use std::{
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use stores::memory::MemoryLedger;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22,\"total_tokens\":33}}\n\n";
/// How much of a stream the model writes at once: a delta, as models do, and a few.
const WRITES_BYTES: [usize; 2] = [DELTA.len(), 4096];
const DELTA: &str = "data: {\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const ROUTES: [&str; 3] = ["/plain", "/read", "/asked"];

struct Now;
impl Clock for Now {
    fn now(&self) -> Time {
        Time::from_ms(1_800_000_000_000)
    }
}

/// A stream of deltas of about this size, with its usage at the end.
fn chat(bytes: usize) -> Vec<u8> {
    [DELTA.repeat(bytes / DELTA.len()).as_str(), USAGE, "data: [DONE]\n\n"].concat().into_bytes()
}

fn per_second(what: &str, bytes: usize, took: Duration) -> f64 {
    let rate = bytes as f64 / took.as_secs_f64() / f64::from(1 << 20);
    println!("{what:<40} {rate:>9.0} MiB/s");
    rate
}

/// The reader alone, fed what the upstream writes at once, and pieces that fall into the middle of events.
fn alone(body: &[u8]) {
    // What was just received is in the cache.
    let part = Bytes::copy_from_slice(&body[..DELTA.len() * 1_000]);
    let turns = body.len() / part.len();
    for size in [DELTA.len(), 1000, 4096, 65_536] {
        let mut tap = Tap::new(Format::Events, Encoding::Identity);
        let begun = Instant::now();
        (0..turns).for_each(|_| part.chunks(size).for_each(|chunk| tap.feed(chunk)));
        let took = begun.elapsed();
        tap.feed(USAGE.as_bytes());
        assert_eq!(tap.usage(true).and_then(|usage| usage.total()), Some(33));
        per_second(&format!("tap, {size} bytes at a time"), turns * part.len(), took);
        let mut flow = EventFlow::new(true);
        let begun = Instant::now();
        for at in (0..turns).flat_map(|_| (0..part.len()).step_by(size)) {
            black_box(flow.feed(&part.slice(at..(at + size).min(part.len()))));
        }
        per_second(&format!("taking out, {size} bytes at a time"), turns * part.len(), begun.elapsed());
    }
}

/// Answers every request with the body.
async fn model(body: Arc<Vec<u8>>, write_bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = body.clone();
            tokio::spawn(async move {
                let (mut asked, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut part).await {
                    asked.extend_from_slice(&part[..length]);
                    if !asked.ends_with(b"}") {
                        continue;
                    }
                    asked.clear();
                    let head =
                        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                    stream.write_all(head.as_bytes()).await.unwrap();
                    for chunk in body.chunks(write_bytes) {
                        let written = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
                        if stream.write_all(&written).await.is_err() {
                            return;
                        }
                    }
                    stream.write_all(b"0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    address
}

async fn start(upstream: SocketAddr) -> SocketAddr {
    let text = format!(
        r#"
default_plan = "free"
[meters.tokens]
kind = "counter"
[plans.free]
rank = 0
[[routes]]
match = "/plain"
charge = [{{ meter = "tokens" }}]
[[routes]]
match = "/read"
charge = [{{ meter = "tokens", from = "usage", expect = 10 }}]
[[routes]]
match = "/asked"
charge = [{{ meter = "tokens", from = "usage", expect = 10 }}]
include_usage = true
[[identity]]
type = "header"
tenant = "x-org"
from = ["127.0.0.0/8"]
[upstreams.model]
url = "http://{upstream}"
"#
    );
    let loaded = wire::catalog::load(&text, "bench.toml").unwrap();
    let engine = Engine::open(MemoryLedger::new([7; 32]), Arc::new(Now), loaded.catalog, &text).await.unwrap();
    let gateway = Arc::new(Gateway::new(engine, loaded.gateway, GatewayOptions::default()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway.serve(listener, std::future::pending()));
    address
}

/// How long a whole stream takes.
async fn stream(gateway: SocketAddr, path: &str) -> Duration {
    let body = r#"{"messages":[],"stream":true}"#;
    let mut client = TcpStream::connect(gateway).await.unwrap();
    let head = "HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let ask = format!("POST {path} {head}content-length: {}\r\n\r\n{body}", body.len());
    let begun = Instant::now();
    client.write_all(ask.as_bytes()).await.unwrap();
    let mut part = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        match client.read(&mut part).await.unwrap() {
            0 => break,
            length => total += length,
        }
    }
    assert!(total > 1 << 20, "{path} gave {total} bytes");
    begun.elapsed()
}

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<usize>().ok());
    let (rounds, mebibytes) = (numbers.next().unwrap_or(9), numbers.next().unwrap_or(64));
    let body = chat(mebibytes << 20);
    alone(&body);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (length, body) = (body.len(), Arc::new(body));
        for write_bytes in WRITES_BYTES {
            println!("streams written {write_bytes} bytes at a time");
            compare(length, start(model(body.clone(), write_bytes).await).await, rounds).await;
        }
    });
}

/// Whole streams of each route, in turns.
async fn compare(length: usize, gateway: SocketAddr, rounds: usize) {
    let mut took: [Vec<Duration>; 3] = Default::default();
    for _ in 0..rounds {
        for (path, took) in ROUTES.iter().zip(&mut took) {
            took.push(stream(gateway, path).await);
        }
    }
    let medians = took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2]
    });
    let rates: Vec<f64> = ROUTES.iter().zip(medians).map(|(path, took)| per_second(path, length, took)).collect();
    println!("read: {:.3} of plain; read and taken out: {:.3}", rates[1] / rates[0], rates[2] / rates[0]);
}
