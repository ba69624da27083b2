//! A running API, and how to talk to it.

use api::{ApiObserver, ApiParts, ApiState, CatalogDesk, CatalogRefused, Door, SnapshotDesk, TestClock, secrets};
use axum::body::Body;
use domain::time::Instant;
use engine::{
    Engine,
    ports::{BoxFuture, Clock},
    requests::EngineError,
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use stores::memory::MemoryLedger;
use tokio::sync::mpsc::{Receiver, channel};
use wire::{
    cors::CorsOrigins,
    v1::snapshots::{SnapshotAsked, SnapshotLine, SnapshotSummary},
};

pub const ADMIN: &str = "the operator's own admin key";

const CATALOG: &str = r#"
upgrade_url = "/billing?plan={plan}&from={from}"

[meters.messages]
kind = "counter"
label = "Messages"

[meters.tokens]
kind = "counter"
event_type = "messages"
value = "/usage/tokens"

[meters.conversation_time]
kind = "duration"
label = "Conversation time"
counted_by = "conversations"

[meters.conversations]
kind = "counter"

[meters.documents]
kind = "gauge"
label = "Documents"

[meters.users]
kind = "gauge"

[dimensions.model]
values = ["small", "large"]

[features.analytics]
title = "Unlock advanced analytics"

[costs.request]
meter = "tokens"
base = 1
unknown = "refuse"
[[costs.request.parts]]
property = "mode"
prices = { analyst = 20, none = 0 }
[[costs.request.parts]]
property = "tool"
prices = { general = 1 }
missing = 4

[costs.models]
meter = "tokens"
property = "model"
quantities = ["prompt_tokens", "completion_tokens"]
prices = { small = { prompt_tokens = 1, completion_tokens = 2 } }
unknown = { prompt_tokens = 20, completion_tokens = 60 }

[plans.free]
rank = 0
price = { amount = 0, currency = "USD", per = "month" }
limits = [
  { meter = "messages", max = 5, per = "day" },
  { meter = "messages", max = 3, per = "day", scope = "user" },
  { meter = "conversation_time", max = "60m", per = "period" },
  { meter = "conversation_time", max = "30m", per = "session" },
  { meter = "conversation_time", max = 3, per = "concurrent" },
  { meter = "documents", max = 5 },
  { meter = "users", max = 1 },
]

[plans.basic]
rank = 1
price = { amount = 29, currency = "USD", per = "month" }
features = ["analytics"]
limits = [
  { meter = "messages", max = 50, per = "day" },
  { meter = "conversation_time", max = "300m", per = "period" },
  { meter = "documents", max = 50 },
]

[plans.enterprise]
rank = 2
features = ["analytics"]
limits = [{ meter = "messages", max = "unlimited" }]

[plans.hidden]
rank = 3
public = false
limits = [{ meter = "conversation_time", max = "1m", per = "session" }]
sessions = { on_limit = "finish", finish_max = "30s" }
"#;

pub struct TestTime {
    now: Mutex<Instant>,
    /// By how much the clock on the wall was set back.
    back_ms: AtomicI64,
}

impl TestTime {
    pub fn set_back(&self, ms: i64) {
        self.back_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestTime {
    fn now(&self) -> Instant {
        self.now.lock().plus_ms(-self.back_ms.load(Ordering::Relaxed))
    }
    fn steady_ms(&self) -> i64 {
        self.now.lock().ms()
    }
}

impl TestTime {
    pub fn set(&self, now: &str) {
        *self.now.lock() = Instant::parse(now).unwrap();
    }
}

impl TestClock for TestTime {
    fn advance(&self, ms: i64) -> Instant {
        let mut now = self.now.lock();
        *now = now.plus_ms(ms);
        *now
    }
}

/// What the observer was told: method, route, status; and of forecasts whether their history was in memory.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<(String, String, u16)>>, pub Mutex<Vec<bool>>);

impl ApiObserver for Told {
    fn answered(&self, method: &Method, route: &str, status: u16, _: Duration) {
        self.0.lock().push((method.to_string(), route.to_owned(), status));
    }
    fn foreseen(&self, was_held: bool) {
        self.1.lock().push(was_held);
    }
    fn metrics_text(&self) -> String {
        "# EOF\n".to_owned()
    }
}

/// Keys made in a test differ; the same test makes the same ones.
fn random() -> Option<[u8; 32]> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Some(std::array::from_fn(|place| number[place % number.len()]))
}

pub struct World {
    pub door: Door,
    pub engine: Arc<Engine>,
    pub ledger: Arc<MemoryLedger>,
    pub time: Arc<TestTime>,
    pub told: Arc<Told>,
}

/// How the API is set up.
#[derive(Default)]
pub struct Setup {
    pub test_clock: bool,
    pub metrics_open: bool,
    pub cors_origins: &'static str,
    /// Another catalog than the tests' own.
    pub catalog: Option<&'static str>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let ledger = MemoryLedger::new([9; 32]);
        let time = Arc::new(TestTime {
            now: Mutex::new(Instant::parse("2026-03-10T12:00:00Z").unwrap()),
            back_ms: AtomicI64::new(0),
        });
        let text = setup.catalog.unwrap_or(CATALOG);
        let catalog = wire::catalog::load(text, "test.toml").unwrap().catalog;
        let engine = Engine::open(ledger.clone(), time.clone(), catalog, text).await.unwrap();
        let told = Arc::new(Told::default());
        let test_clock: Option<Arc<dyn TestClock>> = if setup.test_clock { Some(time.clone()) } else { None };
        let state = ApiState::new(ApiParts {
            engine: engine.clone(),
            admin_key_hash: Some(secrets::key_hash(ADMIN)),
            catalogs: Arc::new(Desk(engine.clone())),
            snapshots: Arc::new(Days),
            observer: told.clone(),
            test_clock,
            metrics_open: setup.metrics_open,
            cors_origins: CorsOrigins::parse(setup.cors_origins).unwrap(),
            random,
        });
        Self { door: Door::new(state), engine, ledger, time, told }
    }

    /// With the tenants `acme` (free) and `globex` (basic).
    pub async fn with_tenants() -> Self {
        let world = Self::new().await;
        for (tenant, plan) in [("acme", "free"), ("globex", "basic")] {
            let answer = world.admin("PUT", &format!("/api/v1/tenants/{tenant}"), json!({ "plan": plan })).await;
            assert_eq!(answer.status, 201, "{}", answer.body);
        }
        world
    }

    /// A new key of this scope.
    pub async fn key(&self, scope: &str, tenant: Option<&str>) -> String {
        let mut body = json!({ "name": "test", "scope": scope });
        if let Some(tenant) = tenant {
            body["tenant_id"] = tenant.into();
        }
        let answer = self.admin("POST", "/api/v1/keys", body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["key"].as_str().unwrap().to_owned()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.door.answer(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
        };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// A JSON request with these credentials.
    pub async fn with_key(&self, key: &str, method: &str, path: &str, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        };
        self.send(request.body(body).unwrap()).await
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        self.with_key(ADMIN, method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.admin("GET", path, Value::Null).await
    }

    pub async fn check(&self, body: Value) -> Answer {
        self.admin("POST", "/api/v1/check", body).await
    }

    /// Raw bytes as the administrator, with a media type.
    pub async fn post_bytes(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
            .header(header::CONTENT_TYPE, content_type);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn events(&self, content_type: &str, body: Value) -> Answer {
        self.post_bytes("/api/v1/events", content_type, body.to_string()).await
    }

    /// Use of one meter in the billing period, and unmet demand.
    pub async fn used(&self, tenant: &str, meter: &str) -> (i64, i64) {
        let answer = self.get(&format!("/api/v1/tenants/{tenant}/usage")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let meters = answer.body["meters"].as_array().unwrap();
        let meter = meters.iter().find(|row| row["meter"] == meter).unwrap();
        (meter["used"].as_i64().unwrap(), meter["denied"].as_i64().unwrap())
    }
}

/// An answer, its body read as JSON where it is some.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The code of a problem, which must be a whole problem.
    pub fn problem(&self) -> (u16, &str) {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.body);
        assert_eq!(self.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(self.body["status"], self.status);
        let code = self.body["code"].as_str().unwrap();
        assert_eq!(self.body["type"], format!("urn:problem-type:tidegate:{code}"));
        assert!(!self.body["title"].as_str().unwrap().is_empty());
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.ends_with('.'), "{detail}");
        (self.status, code)
    }

    pub fn is_ok(&self) -> bool {
        StatusCode::from_u16(self.status).unwrap().is_success()
    }
}

/// An event about `acme`.
pub fn event(id: &str, kind: &str, data: Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "test", "subject": "acme", "type": kind, "data": data })
}

/// Puts catalogs in force where there is no gateway.
pub struct Desk(pub Arc<Engine>);

impl CatalogDesk for Desk {
    fn apply(&self, text: String) -> BoxFuture<'_, Result<u32, CatalogRefused>> {
        Box::pin(async move {
            let loaded = wire::catalog::load(&text, "tidegate.toml").map_err(CatalogRefused::Invalid)?;
            self.0.apply_catalog(loaded.catalog, &text).await.map_err(CatalogRefused::Engine)
        })
    }
}

/// Closes no day, but tells of it.
pub struct Days;

impl SnapshotDesk for Days {
    fn begin(&self, asked: SnapshotAsked) -> Option<Receiver<SnapshotLine>> {
        // As if one were being closed already.
        if asked.per_tenant {
            return None;
        }
        let (lines, listener) = channel(2);
        let day = asked.day.to_string();
        let begun = SnapshotLine::Begun { day: day.clone(), dry_run: asked.dry_run, tenants_about: 0 };
        lines.try_send(begun).unwrap();
        lines.try_send(SnapshotLine::Ended(SnapshotSummary { day, complete: true, ..Default::default() })).unwrap();
        Some(listener)
    }
    fn keep_days(&self) -> BoxFuture<'_, Result<i32, EngineError>> {
        Box::pin(async { Ok(90) })
    }
}
