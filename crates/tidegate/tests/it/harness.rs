//! A node under test: starts the binary, waits for its ready line, talks to it.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The admin key of every node under test.
pub const ADMIN_KEY: &str = "admin-key-of-the-integration-tests";

/// How long anything may take before a test calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary: the one cargo built for these tests, or the one that `TEST_BINARY` names (a release build, for one).
pub fn binary() -> Command {
    let built = || env!("CARGO_BIN_EXE_tidegate").into();
    let mut command = Command::new(std::env::var_os("TEST_BINARY").unwrap_or_else(built));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end.
pub fn run(args: &[&str]) -> (ExitStatus, String, String) {
    run_command(binary().args(args))
}

/// Runs a prepared command to its end.
pub fn run_command(command: &mut Command) -> (ExitStatus, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

/// A folder with a catalog and, once a node ran, a ledger.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    /// A new folder with this catalog.
    pub fn new(catalog: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write_catalog(catalog);
        place
    }
    pub fn write_catalog(&self, catalog: &str) {
        std::fs::write(self.catalog(), catalog).unwrap();
    }
    pub fn catalog(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }
    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }
    pub fn ledger_url(&self) -> String {
        format!("sqlite:{}", self.ledger().display())
    }
    /// `serve`, not yet started.
    pub fn serve(&self) -> Command {
        let mut command = binary();
        command
            .arg("serve")
            .arg("--config")
            .arg(self.catalog())
            .env("TIDEGATE_GATEWAY_LISTEN", "127.0.0.1:0")
            .env("TIDEGATE_API_LISTEN", "127.0.0.1:0")
            .env("TIDEGATE_LEDGER_URL", self.ledger_url())
            .env("TIDEGATE_ADMIN_KEY", ADMIN_KEY);
        command
    }
    /// A running node with this upstream.
    pub fn start(&self, upstream: Option<&str>) -> Node {
        let mut command = self.serve();
        if let Some(upstream) = upstream {
            command.env("TIDEGATE_GATEWAY_UPSTREAM", upstream);
        }
        Node::start(command)
    }
}

/// A running node.
pub struct Node {
    child: Child,
    log: thread::JoinHandle<String>,
    pub api: String,
    pub gateway: Option<String>,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null where it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Node {
    /// Starts `command` and waits for the ready line.
    pub fn start(command: Command) -> Self {
        Self::try_start(command).unwrap_or_else(|(status, log)| panic!("the node ended with {status}:\n{log}"))
    }

    /// As [`Node::start`]; where the process ends instead, its status and log.
    pub fn try_start(mut command: Command) -> Result<Self, (ExitStatus, String)> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(line) => {
                let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a ready line: {line}"));
                let api = ready["api"].as_str().unwrap().to_owned();
                let gateway = ready["gateway"].as_str().map(str::to_owned);
                assert!(ready.get("gateway").is_some(), "{line}");
                Ok(Self { child, log, api, gateway, http: http_client() })
            }
            Err(_) => {
                let _ = child.kill();
                Err((child.wait().unwrap(), log.join().unwrap()))
            }
        }
    }

    pub fn gateway(&self) -> &str {
        self.gateway.as_deref().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process; its status and log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log.join().unwrap());
            }
            assert!(begun.elapsed() < PATIENCE, "the node did not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the node in good order.
    pub fn stop(self) -> String {
        self.signal("TERM");
        let (status, log) = self.wait();
        assert!(status.success(), "{status}\n{log}");
        log
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = self.log.join();
    }

    /// Calls the API as admin.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.api_as(ADMIN_KEY, method, path, body).await.unwrap()
    }

    /// Calls the API with a key; an error where the connection broke.
    pub async fn api_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.api))
            .header("authorization", format!("Bearer {key}"));
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        send(&self.http, request.body(Full::new(bytes))?).await
    }

    /// Sends a request through the gateway.
    pub async fn through(&self, key: &str, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.gateway()))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::new(body.into()))
            .unwrap();
        send(&self.http, request).await.unwrap()
    }

    /// Creates or changes a tenant.
    pub async fn put_tenant(&self, tenant: &str, change: Value) {
        let answer = self.api(Method::PUT, &format!("/api/v1/tenants/{tenant}"), Some(change)).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    /// A key of one tenant.
    pub async fn tenant_key(&self, tenant: &str) -> String {
        let key = serde_json::json!({"scope": "tenant", "tenant_id": tenant, "name": "test"});
        let answer = self.api(Method::POST, "/api/v1/keys", Some(key)).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.json()["key"].as_str().unwrap().to_owned()
    }

    /// `used` and `denied` of a meter in the billing period.
    pub async fn used_and_denied(&self, tenant: &str, meter: &str) -> (i64, i64) {
        let usage = self.usage(tenant, "").await;
        let meter = usage["meters"].as_array().unwrap().iter().find(|m| m["meter"] == meter).unwrap().clone();
        (meter["used"].as_i64().unwrap(), meter["denied"].as_i64().unwrap())
    }

    /// The usage document.
    pub async fn usage(&self, tenant: &str, query: &str) -> Value {
        let answer = self.api(Method::GET, &format!("/api/v1/tenants/{tenant}/usage{query}"), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// A client that keeps its connections.
pub fn http_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request and reads the answer to its end.
pub async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let exchange = async {
        let (head, body) = client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

/// A server behind the gateway, in this process.
pub struct Upstream {
    pub url: String,
    pub reached: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Upstream {
    /// Counts requests under `/` and answers 200.
    pub async fn start() -> Self {
        Self::with(axum::Router::new()).await
    }
    /// `router`, with everything else answered 200; every request is counted.
    pub async fn with(router: axum::Router) -> Self {
        let reached = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = reached.clone();
        let count = move |request: axum::extract::Request, next: axum::middleware::Next| {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            next.run(request)
        };
        let router = router.fallback(|| async { "reached" }).layer(axum::middleware::from_fn(count));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, reached }
    }
    pub fn reached(&self) -> u64 {
        self.reached.load(std::sync::atomic::Ordering::SeqCst)
    }
}
