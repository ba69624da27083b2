// floor MODE PORT [FILE] : what the product's request path could cost at least.
// modes: axum-hello axum-check axum-buffered axum-durable hyper-hello hyper-check hyper-durable upstream
use axum::{extract::State, routing::post, Json, Router};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::{convert::Infallible, fs::File, io::Write, sync::Arc, time::Duration};
use tokio::sync::oneshot;

#[derive(Deserialize)]
struct Req<'a> {
    #[serde(borrow)]
    tenant: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    metric: std::borrow::Cow<'a, str>,
    n: u64,
}
#[derive(Deserialize)]
struct ReqO {
    tenant: String,
    metric: String,
    n: u64,
}
#[derive(Serialize)]
struct Resp {
    allowed: bool,
    remaining: u64,
}

struct Shards(Vec<Mutex<hashbrown::HashMap<String, (u64, u64)>>>, hashbrown::DefaultHashBuilder);
impl Shards {
    fn new() -> Self {
        Shards((0..64).map(|_| Mutex::new(Default::default())).collect(), Default::default())
    }
    fn check(&self, tenant: &str, metric: &str, n: u64) -> (bool, u64) {
        use std::hash::BuildHasher;
        let mut k = String::with_capacity(tenant.len() + metric.len() + 1);
        k.push_str(tenant);
        k.push(':');
        k.push_str(metric);
        let h = self.1.hash_one(&k) as usize;
        let mut m = self.0[(h >> 32) % 64].lock();
        let e = m.entry(k).or_insert((0, 1_000_000_000_000));
        if e.0 + n > e.1 {
            return (false, e.1 - e.0);
        }
        e.0 += n;
        (true, e.1 - e.0)
    }
}
#[derive(Default)]
struct Batch {
    buf: Vec<u8>,
    waiters: Vec<oneshot::Sender<()>>,
}
struct Log {
    m: Mutex<Batch>,
    cv: Condvar,
}
impl Log {
    fn start(path: &str, interval: Option<Duration>) -> Arc<Log> {
        let l = Arc::new(Log { m: Default::default(), cv: Condvar::new() });
        let mut f = File::create(path).unwrap();
        let l2 = l.clone();
        std::thread::spawn(move || {
            let (mut commits, mut bytes) = (0u64, 0u64);
            loop {
                let b = {
                    let mut g = l2.m.lock();
                    while g.buf.is_empty() {
                        l2.cv.wait(&mut g);
                    }
                    std::mem::take(&mut *g)
                };
                f.write_all(&b.buf).unwrap();
                f.sync_data().unwrap();
                commits += 1;
                bytes += b.buf.len() as u64;
                if commits % 2000 == 0 {
                    eprintln!("commits {commits} avg batch {:.1}", bytes as f64 / 64.0 / commits as f64);
                }
                for w in b.waiters {
                    let _ = w.send(());
                }
                if let Some(i) = interval {
                    std::thread::sleep(i)
                }
            }
        });
        l
    }
    fn push(&self, rec: &[u8; 64], wait: bool) -> Option<oneshot::Receiver<()>> {
        let mut g = self.m.lock();
        let was = g.buf.is_empty();
        g.buf.extend_from_slice(rec);
        let r = if wait {
            let (t, r) = oneshot::channel();
            g.waiters.push(t);
            Some(r)
        } else {
            None
        };
        drop(g);
        if was {
            self.cv.notify_one();
        }
        r
    }
}
#[derive(Clone)]
struct App {
    s: Arc<Shards>,
    log: Option<Arc<Log>>,
    wait: bool,
    hello: bool,
}
fn rec(tenant: &str, n: u64) -> [u8; 64] {
    let mut r = [0u8; 64];
    let t = tenant.as_bytes();
    let l = t.len().min(32);
    r[..l].copy_from_slice(&t[..l]);
    r[48..56].copy_from_slice(&n.to_le_bytes());
    r
}
async fn decide(a: &App, tenant: &str, metric: &str, n: u64) -> Resp {
    if a.hello {
        return Resp { allowed: true, remaining: n };
    }
    let (allowed, remaining) = a.s.check(tenant, metric, n);
    if let Some(l) = &a.log {
        if let Some(r) = l.push(&rec(tenant, n), a.wait) {
            let _ = r.await;
        }
    }
    Resp { allowed, remaining }
}
async fn ax(State(a): State<App>, Json(r): Json<ReqO>) -> Json<Resp> {
    Json(decide(&a, &r.tenant, &r.metric, r.n).await)
}
async fn hy(a: App, up: bool, req: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if up {
        return Ok(Response::builder()
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(br#"{"ok":true,"value":42}"#)))
            .unwrap());
    }
    let b = req.into_body().collect().await.map(|c| c.to_bytes()).unwrap_or_default();
    let Ok(r) = serde_json::from_slice::<Req>(&b) else {
        return Ok(Response::builder().status(400).body(Full::new(Bytes::new())).unwrap());
    };
    let out = decide(&a, &r.tenant, &r.metric, r.n).await;
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(&out).unwrap())))
        .unwrap())
}
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (mode, port) = (a[1].as_str(), a[2].parse::<u16>().unwrap());
    let file = a.get(3).map(|s| s.as_str()).unwrap_or("floor.log");
    let log = if mode.ends_with("durable") {
        Some(Log::start(file, None))
    } else if mode.ends_with("buffered") {
        Some(Log::start(file, Some(Duration::from_millis(10))))
    } else {
        None
    };
    let app = App { s: Arc::new(Shards::new()), log, wait: mode.ends_with("durable"), hello: mode.ends_with("hello") };
    let l = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    if mode.starts_with("axum") {
        use axum::serve::ListenerExt;
        let l = l.tap_io(|s| {
            let _ = s.set_nodelay(true);
        });
        axum::serve(l, Router::new().route("/check", post(ax)).with_state(app)).await.unwrap();
    } else {
        let up = mode == "upstream";
        loop {
            let (s, _) = l.accept().await.unwrap();
            let _ = s.set_nodelay(true);
            let app = app.clone();
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(s), hyper::service::service_fn(move |r| hy(app.clone(), up, r)))
                    .await;
            });
        }
    }
}
