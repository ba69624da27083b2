//! Starting, changing the rules, stopping; h2 clients; what observers are told.

use crate::world::{BY_HEADER, World, catalog_text, until};
use bytes::Bytes;
use gateway::{Finished, GatewayObserver, GatewayOptions};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;

const CALLS: &str = "[[routes]]\nname = \"calls\"\nmatch = \"/*\"\ncharge = [{ meter = \"calls\" }]\n";
const ACME: (&str, &str) = ("x-org", "acme");

#[tokio::test]
async fn h2_clients_are_served_side_by_side_on_one_connection() {
    let world = World::new(CALLS).await;
    let stream = TokioIo::new(TcpStream::connect(world.address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let requests = (0..20).map(|number| {
        let mut sender = sender.clone();
        let uri = format!("http://gate.example/echo?{number}");
        let request =
            Request::post(uri).header("x-org", "acme").body(Full::new(Bytes::from(vec![7; 100_000]))).unwrap();
        tokio::spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            (response.status(), response.into_body().collect().await.unwrap().to_bytes().len())
        })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap(), (http::StatusCode::OK, 100_000));
    }
    assert_eq!(world.usage("acme", "calls").await, (20, 0));
    let mut sender = sender;
    let request = Request::get("http://gate.example/x").header("x-org", "acme").body(Full::default()).unwrap();
    let described = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&described).contains("gate.example"));
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let world = World::new(CALLS).await;
    for _ in 0..20 {
        assert_eq!(world.get("/x", &[ACME]).await.status, 200);
        assert_eq!(world.post("/echo", &[ACME], "hello").await.body, "hello");
        assert_eq!(world.send(http::Method::HEAD, "/status/200", &[ACME], Bytes::new()).await.status, 200);
        assert_eq!(world.get("/status/204", &[ACME]).await.status, 204);
    }
    assert_eq!(world.upstream.seen.connections_ever.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn new_rules_hold_from_the_next_request_on() {
    let world = World::new(CALLS).await;
    world.get("/x", &[ACME]).await;
    let text = catalog_text(world.upstream.address, &format!("{BY_HEADER}[[routes]]\nmatch = \"/*\"\npublic = true\n"));
    world.gateway.replace_rules(wire::catalog::load(&text, "").unwrap().gateway).unwrap();
    assert_eq!(world.get("/x", &[]).await.status, 200);
    assert_eq!(world.usage("acme", "calls").await, (1, 0));

    let identity =
        "[[identity]]\ntype = \"jwt\"\nissuer = \"https://i\"\naudience = \"a\"\nsecret_env = \"NOT_SET_ANYWHERE\"\n";
    let text = catalog_text(world.upstream.address, identity);
    let error = world.gateway.replace_rules(wire::catalog::load(&text, "").unwrap().gateway).unwrap_err();
    assert!(error.to_string().contains("NOT_SET_ANYWHERE"), "{error}");
    assert_eq!(world.get("/x", &[]).await.status, 200);
}

#[tokio::test]
async fn requests_in_flight_may_end_when_the_gateway_stops() {
    let mut world = World::new(CALLS).await;
    let mut streaming = world.raw().await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    streaming.write_all(b"GET /sse HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
    let mut idle = world.raw().await;
    let mut part = [0; 4096];
    assert!(streaming.read(&mut part).await.unwrap() > 0);
    let stopped = world.shut_down();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(!stopped.is_finished());
    world.upstream.seen.go_on.notify_one();
    let mut rest = Vec::new();
    streaming.read_to_end(&mut rest).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("[DONE]"));
    tokio::time::timeout(Duration::from_secs(5), stopped).await.unwrap().unwrap();
    assert!(TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_is_cut_off_at_the_deadline() {
    let options = GatewayOptions { drain_max: Duration::from_millis(200), ..GatewayOptions::default() };
    let mut world = World::with(&format!("{BY_HEADER}{CALLS}"), options).await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut streaming = world.raw().await;
    streaming.write_all(b"GET /sse HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
    let mut part = [0; 4096];
    assert!(streaming.read(&mut part).await.unwrap() > 0);
    let stopped = world.shut_down();
    tokio::time::timeout(Duration::from_secs(5), stopped).await.unwrap().unwrap();
    until("the upstream's connection is closed", async || world.upstream.connections() == 0).await;
}

#[derive(Default)]
struct Noted(Mutex<Vec<(Option<String>, u16, u64)>>);

impl GatewayObserver for Noted {
    fn finished(&self, finished: &Finished<'_>) {
        self.0.lock().push((finished.route.map(str::to_owned), finished.status, finished.response_bytes));
    }
}

#[tokio::test]
async fn every_request_is_told_when_it_is_over() {
    let noted = Arc::new(Noted::default());
    let options = GatewayOptions { observer: noted.clone(), ..GatewayOptions::default() };
    let world = World::with(&format!("{BY_HEADER}{}", CALLS.replace("/*", "/echo")), options).await;
    world.post("/echo", &[ACME], "12345").await;
    world.post("/echo", &[], "12345").await;
    world.get("/status/200", &[]).await;
    until("three were told", async || noted.0.lock().len() == 3).await;
    let noted = noted.0.lock();
    assert_eq!(noted[0], (Some("calls".into()), 200, 5));
    assert_eq!((noted[1].0.as_deref(), noted[1].1), (Some("calls"), 401));
    assert_eq!(noted[2], (None, 200, 4));
}
