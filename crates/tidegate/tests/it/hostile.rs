//! Acceptance 8: what a hostile client sends gets a clear 4xx: never a crash, a hang, a charge, or another's data.

use crate::harness::{ADMIN_KEY, Node, PATIENCE, Place, Upstream};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CATALOG: &str = r#"
default_plan = "free"
[meters.requests]
kind = "counter"
[meters.seats]
kind = "gauge"
[plans.free]
rank = 0
limits = [{ meter = "requests", max = 1000, per = "day" }]
[[routes]]
match = "/tenants/{tenant}/*"
charge = [{ meter = "requests" }]
[[identity]]
type = "jwt"
issuer = "https://login.example.com/"
audience = "https://api.example.com"
secret_env = "TEST_JWT_SECRET"
tenant_claim = "/tenant_id"
[[identity]]
type = "api_key"
"#;

/// Sends bytes to an address; the status of every answer until the connection ends.
async fn raw(base: &str, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
    // A server may answer and close before it read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("a hang");
    let text = String::from_utf8_lossy(&answer);
    text.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

fn token(header: &serde_json::Value, claims: &serde_json::Value, signature: &str) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

async fn started() -> (Upstream, Place, Node, String) {
    let upstream = Upstream::start().await;
    let place = Place::new(CATALOG);
    let mut serve = place.serve();
    serve.env("TIDEGATE_GATEWAY_UPSTREAM", &upstream.url).env("TEST_JWT_SECRET", "0123456789abcdef0123456789abcdef");
    let node = Node::start(serve);
    node.put_tenant("acme", json!({})).await;
    node.put_tenant("globex", json!({})).await;
    let key = node.tenant_key("acme").await;
    (upstream, place, node, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_whole() {
    let (_upstream, _place, node, _) = started().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let event = |data: &str| {
        format!(r#"{{"specversion":"1.0","id":"e","source":"s","type":"requests","subject":"acme","data":{data}}}"#)
    };
    let deep_data = event(&format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000)));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"[1,2,".to_vec(),
        b"null".to_vec(),
        b"\xff\xfe{}".to_vec(),
        deep.into_bytes(),
        deep_data.into_bytes(),
        event(r#"{"value":-1}"#).into_bytes(),
        event(r#"{"value":1e400}"#).into_bytes(),
        event(r#"{"value":9007199254740992}"#).into_bytes(),
        event(r#"{"value":1.5}"#).into_bytes(),
        event(r#"{"value":"1"}"#).into_bytes(),
        event(r#"{"value":1,"value":2}"#).into_bytes(),
        br#"{"specversion":"1.0","id":"a","id":"b","source":"s","type":"requests","subject":"acme"}"#.to_vec(),
        br#"{"specversion":"1.0","id":"e","source":"s","type":"requests","subject":"../globex"}"#.to_vec(),
        br#"{"tenant_id":"acme","meter":"requests","amount":-5,"consume":true}"#.to_vec(),
        br#"{"tenant_id":"acme","meter":"requests","amount":99999999999999999999,"consume":true}"#.to_vec(),
        br#"{"tenant_id":"acme","meter":["requests"],"consume":true}"#.to_vec(),
        br#"{"tenant_id":"acme","meter":"requests","consume":true,"sudo":true}"#.to_vec(),
        vec![b' '; 9 * 1024 * 1024],
    ];
    for (number, body) in bodies.iter().enumerate() {
        for (path, content_type) in [
            ("/api/v1/events", "application/cloudevents+json"),
            ("/api/v1/events", "application/cloudevents-batch+json"),
            ("/api/v1/check", "application/json"),
        ] {
            let mut request = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: {content_type}\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(body);
            let statuses = raw(&node.api, &request).await;
            let refused = statuses.len() == 1 && (400..500).contains(&statuses[0]);
            assert!(refused, "body {number} to {path} as {content_type}: {statuses:?}");
        }
    }
    assert_eq!(node.used_and_denied("acme", "requests").await, (0, 0));
    assert_eq!(node.api(Method::GET, "/healthz", None).await.status, 200);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_identity_and_other_tenants_paths_reach_nothing() {
    let (upstream, _place, node, key) = started().await;
    let claims = json!({"iss": "https://login.example.com/", "aud": "https://api.example.com", "exp": 4_000_000_000_u64, "tenant_id": "globex"});
    let hs256 = json!({"alg": "HS256", "typ": "JWT"});
    let forged = [
        token(&json!({"alg": "none"}), &claims, ""),
        token(&json!({"alg": "None", "typ": "JWT"}), &claims, ""),
        token(&hs256, &claims, ""),
        token(&hs256, &claims, &URL_SAFE_NO_PAD.encode([0; 32])),
        token(&json!({"alg": "RS256"}), &claims, &URL_SAFE_NO_PAD.encode([0; 256])),
        format!("{}x", key),
        "tgt_e30.e30".to_owned(),
        "a.b.c".to_owned(),
    ];
    for credentials in &forged {
        let answer = node.through(credentials, Method::GET, "/tenants/globex/data", "").await;
        assert_eq!(answer.status, 401, "{credentials}: {answer:?}");
    }
    for path in [
        "/tenants/globex/data",
        "/tenants/acme/../globex/data",
        "/tenants//globex/data",
        "//tenants/globex/data",
        "/tenants/acme/%2e%2e/globex/data",
        "/tenants/acme/%2E%2E%2Fglobex/data",
        "/tenants/acme%2f..%2fglobex/data",
        "/tenants/globex;acme/data",
        "/tenants/acme;/data",
        "/tenants/%67lobex/data",
        "/tenants/acme/..;/globex/data",
        "/tenants/acme%00/data",
        "/tenants\\globex/data",
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nx-tidegate-tenant: globex\r\nconnection: close\r\n\r\n"
        );
        let statuses = raw(node.gateway(), request.as_bytes()).await;
        let refused = statuses.len() == 1 && (400..500).contains(&statuses[0]);
        assert!(refused, "{path}: {statuses:?}");
    }
    assert_eq!(upstream.reached(), 0);
    for tenant in ["acme", "globex"] {
        assert_eq!(node.used_and_denied(tenant, "requests").await, (0, 0), "{tenant}");
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggled_requests_are_not_seen_as_two() {
    let (upstream, _place, node, key) = started().await;
    let inner = format!("GET /tenants/acme/smuggled HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let head = format!("POST /tenants/acme/a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n");
    let pairs = [
        format!("{head}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5),
        format!("{head}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}content-length: 0\r\ncontent-length: {}\r\n\r\n{inner}", inner.len()),
        format!("{head}content-length: +0\r\n\r\n{inner}"),
        format!("{head}content-length : 0\r\n\r\n{inner}"),
        format!("{head}host: y\r\ncontent-length: 0\r\n\r\n{inner}"),
    ];
    for pair in &pairs {
        let statuses = raw(node.gateway(), pair.as_bytes()).await;
        let refused = statuses.len() == 1 && (400..500).contains(&statuses[0]);
        assert!(refused, "{pair}\n{statuses:?}");
    }
    assert_eq!(upstream.reached(), 0);
    assert_eq!(node.used_and_denied("acme", "requests").await, (0, 0));
    node.stop();
}
