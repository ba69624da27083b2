//! What the API's own way costs, without sockets: `cargo bench -p api --bench door -- [seconds] [part of a name]`.
//!
//! A check that consumes through the short way, through the router, and the engine alone; batches of 1,000 events
//! through the door, and their reading alone. One thread, a ledger in memory that commits at once.
#![allow(clippy::unwrap_used)]

use api::{ApiObserver, ApiParts, ApiState, CatalogDesk, CatalogRefused, Door, SnapshotDesk, secrets};
use axum::body::Body;
use domain::{entry::Cause, id::TenantId, op::Charge, time::Instant};
use engine::{
    Engine,
    ports::{BoxFuture, Clock},
    requests::{Ack, Check, EngineError},
};
use http::{Request, header};
use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use stores::memory::MemoryLedger;
use tokio::sync::mpsc::Receiver;
use tower::ServiceExt;
use wire::{
    cloudevents::{Batch, Reader, read_batch},
    v1::snapshots::{SnapshotAsked, SnapshotLine},
};

const KEY: &str = "bench";
const TENANTS: usize = 1_000;
const CATALOG: &str = r#"
default_plan = "free"
[meters.messages]
kind = "counter"
[plans.free]
rank = 0
limits = [
  { meter = "messages", max = 1000000000000, per = "month" },
  { meter = "messages", max = 1000000000000, per = "day" },
  { meter = "messages", max = 1000000000000, per = "minute" },
]
"#;

struct Now;
impl Clock for Now {
    fn now(&self) -> Instant {
        Instant::from_ms(1_800_000_000_000)
    }
}

struct Silent;
impl CatalogDesk for Silent {
    fn apply(&self, _: String) -> BoxFuture<'_, Result<u32, CatalogRefused>> {
        Box::pin(async { Err(CatalogRefused::Gateway("nothing is put in force here".to_owned())) })
    }
}

impl SnapshotDesk for Silent {
    fn begin(&self, _: SnapshotAsked) -> Option<Receiver<SnapshotLine>> {
        None
    }
    fn keep_days(&self) -> BoxFuture<'_, Result<i32, EngineError>> {
        Box::pin(async { Ok(400) })
    }
}

impl ApiObserver for Silent {
    fn metrics_text(&self) -> String {
        String::new()
    }
}

/// Nothing here waits for anything but itself.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Processor time of this thread, so that neighbours don't count; the time of day where the system does not tell.
fn thread_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat");
    let first = told.ok().and_then(|text| text.split(' ').next().and_then(|number| number.parse().ok()));
    first.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64))
}

fn measure(name: &str, seconds: f64, per_call: usize, mut call: impl FnMut(usize)) {
    let wanted = std::env::args().skip(1).find(|text| text.parse::<f64>().is_err() && !text.starts_with("--"));
    if wanted.is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    (0..200).for_each(&mut call);
    let begun = std::time::Instant::now();
    let begun_ns = thread_ns();
    let mut calls = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        for _ in 0..100 {
            call(calls);
            calls += 1;
        }
    }
    let ns = (thread_ns() - begun_ns) as f64 / (calls * per_call) as f64;
    println!("{name:<40} {ns:>8.0} ns");
}

fn post(path: &str, content_type: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, "127.0.0.1:8081")
        .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .unwrap()
}

fn check(number: usize) -> Request<Body> {
    let tenant = number * 7919 % TENANTS;
    let body = format!(r#"{{"tenant_id":"tenant-{tenant}","meter":"messages","consume":true,"ack":"memory"}}"#);
    post("/api/v1/check", "application/json", body.into_bytes())
}

fn batch(round: usize) -> Vec<u8> {
    let events: Vec<String> = (0..1_000)
        .map(|number| {
            let tenant = number * 7919 % TENANTS;
            format!(
                r#"{{"specversion":"1.0","id":"{round}-{number}","source":"bench","type":"messages","subject":"tenant-{tenant}","time":"2027-01-15T07:59:00Z","data":{{"value":3,"user_id":"u1"}}}}"#
            )
        })
        .collect();
    format!("[{}]", events.join(",")).into_bytes()
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let catalog = wire::catalog::load(CATALOG, "bench.toml").unwrap().catalog;
    let engine = run(Engine::open(MemoryLedger::new([1; 32]), Arc::new(Now), catalog, CATALOG)).unwrap();
    let door = Door::new(ApiState::new(ApiParts {
        engine: engine.clone(),
        admin_key_hash: Some(secrets::key_hash(KEY)),
        catalogs: Arc::new(Silent),
        snapshots: Arc::new(Silent),
        observer: Arc::new(Silent),
        test_clock: None,
        metrics_open: false,
        cors_origins: Default::default(),
        random: || None,
    }));
    measure("making the request", seconds, 1, |number| {
        black_box(check(number));
    });
    measure("check through the short way", seconds, 1, |number| {
        assert!(run(door.answer(check(number))).status().is_success());
    });
    let router = door.router();
    measure("check through the router", seconds, 1, |number| {
        assert!(run(router.clone().oneshot(check(number))).unwrap().status().is_success());
    });
    let meter = engine.catalog().meters.keys().next().unwrap().clone();
    measure("check in the engine alone", seconds, 1, |number| {
        let check = Check {
            tenant: TenantId::new(&format!("tenant-{}", number * 7919 % TENANTS)).unwrap(),
            user: None,
            charges: vec![Charge { meter: meter.clone(), amount: 1 }],
            features: Vec::new(),
            consume: true,
            enforce: None,
            dimensions: Vec::new(),
            id: None,
            cause: Cause::Check,
            hold: None,
            sent: None,
        };
        black_box(run(engine.admit(&check, Ack::Memory)).unwrap());
    });
    let body = batch(0);
    let catalog = engine.catalog();
    measure("an event, read alone", seconds, 1_000, |_| {
        let Ok(Batch::Many(envelopes)) = read_batch(&body, false) else { return };
        let mut reader = Reader::new(&catalog);
        for envelope in &envelopes {
            black_box(reader.event(envelope, false).is_ok());
        }
    });
    let mut round = 0;
    measure("making an event", seconds, 1_000, |_| {
        round += 1;
        black_box(batch(round));
    });
    measure("an event through the door", seconds.min(1.0), 1_000, |_| {
        round += 1;
        let request = post("/api/v1/events", "application/cloudevents-batch+json", batch(round));
        assert!(run(door.answer(request)).status().is_success());
    });
}
