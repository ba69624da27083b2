//! A gateway, an upstream and an engine, and ways to talk to them.

use crate::upstream::Upstream;
use bytes::Bytes;
use domain::{
    id::{TenantId, UserId},
    op::ProfileChange,
    time::Instant,
};
use engine::{Engine, ports::Clock};
use gateway::{Gateway, GatewayOptions};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use stores::memory::MemoryLedger;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// Meters, features and plans of every test; routes and identity are the test's own.
const SOLD: &str = r#"
default_plan = "free"
upgrade_url = "https://app.example/upgrade?to={plan}&from={from}&feature={feature}"
[meters.messages]
kind = "counter"
[meters.calls]
kind = "counter"
[meters.traffic]
kind = "counter"
unit = "bytes"
[meters.seats]
kind = "gauge"
[meters.tokens]
kind = "counter"
[meters.credits]
kind = "counter"
unsettled = "charge"
[meters.time]
kind = "duration"
debit_interval = "10s"
[features.analytics]
title = "Unlock advanced analytics"
[plans.free]
rank = 0
price = { amount = 0, currency = "USD", per = "month" }
limits = [
  { meter = "messages", max = 50, per = "day" },
  { meter = "calls", max = 1000, per = "period" },
  { meter = "calls", max = 600, per = "hour", scope = "user" },
  { meter = "seats", max = 2 },
  { meter = "traffic", max = 100_000_000, per = "day" },
  { meter = "tokens", max = 10_000, per = "day" },
]
[plans.professional]
rank = 2
price = { amount = 99, currency = "USD", per = "month" }
features = ["analytics"]
limits = [{ meter = "messages", max = 500, per = "day" }, { meter = "calls", max = "unlimited" }]
"#;

/// A header that names the tenant, believed from this machine.
pub const BY_HEADER: &str =
    "[[identity]]\ntype = \"header\"\ntenant = \"x-org\"\nuser = \"x-member\"\nfrom = [\"127.0.0.0/8\"]\n";

/// Stands still unless it is told to move.
pub struct ToldClock(AtomicI64);

impl Clock for ToldClock {
    fn now(&self) -> Instant {
        Instant::from_ms(self.0.load(Ordering::SeqCst))
    }
}

pub struct World {
    pub engine: Arc<Engine>,
    pub clock: Arc<ToldClock>,
    pub ledger: Arc<MemoryLedger>,
    text: String,
    pub gateway: Arc<Gateway>,
    pub address: SocketAddr,
    pub upstream: Upstream,
    shutdown: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What the rules say: the usual things, an upstream, and these lines.
pub fn catalog_text(upstream: SocketAddr, gates: &str) -> String {
    let upstream = format!("url = \"http://{upstream}\"\nconnect_timeout = \"2s\"\nresponse_timeout = \"5s\"");
    format!("{SOLD}\n{gates}\n[upstreams.app]\n{upstream}\n")
}

impl World {
    /// A world whose identity is [`BY_HEADER`].
    pub async fn new(gates: &str) -> Self {
        Self::with(&format!("{BY_HEADER}\n{gates}"), GatewayOptions::default()).await
    }

    pub async fn with(gates: &str, options: GatewayOptions) -> Self {
        let upstream = Upstream::start().await;
        let text = catalog_text(upstream.address, gates);
        Self::of(&text, upstream, options).await
    }

    pub async fn of(text: &str, upstream: Upstream, options: GatewayOptions) -> Self {
        let loaded = wire::catalog::load(text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}"));
        let ledger = MemoryLedger::new([7; 32]);
        let clock = Arc::new(ToldClock(AtomicI64::new(Instant::parse("2026-03-10T12:00:00Z").unwrap().ms())));
        let engine = Engine::open(ledger.clone(), clock.clone(), loaded.catalog, text).await.unwrap();
        let gateway = Arc::new(Gateway::new(engine.clone(), loaded.gateway, options).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel::<()>();
        let serving = tokio::spawn(gateway.clone().serve(listener, async move {
            let _ = told.await;
        }));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let (shutdown, serving) = (Some(shutdown), Some(serving));
        let text = text.to_owned();
        Self { engine, clock, ledger, text, gateway, address, upstream, shutdown, serving, client }
    }

    /// Another engine on what is in the ledger: what a node finds that starts after this one was killed.
    pub async fn restarted(&self) -> Arc<Engine> {
        let catalog = wire::catalog::load(&self.text, "test.toml").unwrap().catalog;
        Engine::open(self.ledger.clone(), self.clock.clone(), catalog, &self.text).await.unwrap()
    }

    /// Lets so much time pass, in steps that are seen.
    pub async fn pass(&self, seconds: i64) {
        for _ in 0..seconds {
            self.clock.0.fetch_add(1_000, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }

    /// Sets the clock ahead, and nobody looks at it.
    pub fn clock_jump_alone(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }

    /// Sets the clock ahead at once.
    pub async fn clock_jump(&self, seconds: i64) {
        self.clock_jump_alone(seconds);
        self.engine.upkeep().await.unwrap();
    }

    /// Tells the gateway to stop, and gives what ends when it has.
    pub fn shut_down(&mut self) -> JoinHandle<()> {
        drop(self.shutdown.take());
        self.serving.take().unwrap()
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, headers, body.into()).await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back when these bytes are sent and the client then only reads.
    pub async fn raw_answer(&self, request: &str) -> String {
        let mut stream = self.raw().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(3), async {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut part).await {
                answer.extend_from_slice(&part[..length]);
                if is_whole(&answer) {
                    break;
                }
            }
        })
        .await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn put_on(&self, tenant: &str, plan: &str) {
        let change = ProfileChange { plan: Some(domain::id::PlanKey::trusted(plan)), ..ProfileChange::default() };
        self.engine.put_tenant(&TenantId::trusted(tenant), &change, "test").await.unwrap();
    }

    /// Used and denied of one meter.
    pub async fn usage(&self, tenant: &str, meter: &str) -> (i64, i64) {
        self.usage_of(tenant, None, meter).await
    }

    pub async fn usage_of(&self, tenant: &str, user: Option<&str>, meter: &str) -> (i64, i64) {
        let user = user.map(UserId::trusted);
        let Ok((_, usage)) = self.engine.usage(&TenantId::trusted(tenant), user.as_ref()).await else { return (0, 0) };
        let meter = usage.meters.iter().find(|known| known.meter.key.as_str() == meter).unwrap();
        (meter.used, meter.denied)
    }

    /// Used and held of one meter, as an engine has it.
    pub async fn in_flight(engine: &Engine, tenant: &str, meter: &str) -> (i64, i64) {
        let (_, usage) = engine.usage(&TenantId::trusted(tenant), None).await.unwrap();
        let meter = usage.meters.iter().find(|known| known.meter.key.as_str() == meter).unwrap();
        (meter.used, meter.held)
    }

    /// Waits until so much was used.
    pub async fn until_used(&self, tenant: &str, meter: &str, amount: i64) {
        until(&format!("{tenant} used {amount} {meter}"), async || self.usage(tenant, meter).await.0 == amount).await;
    }
}

/// Whether a small response is there whole: its head and, by Content-Length, its body.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

/// Reads until this text came by.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        let mut part = [0; 4096];
        while !seen.contains(text) {
            let length = stream.read(&mut part).await.unwrap();
            assert!(length > 0, "it ended before {text:?}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&part[..length]));
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap_or_else(|_| panic!("no {text:?}"));
    seen
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true: {what}");
}
