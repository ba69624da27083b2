//! What hostile clients send: forged headers, path tricks, messages that can be read in two ways, slow heads.

use crate::world::{BY_HEADER, World, until};
use gateway::GatewayOptions;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CALLS: &str = "[[routes]]\nmatch = \"/api/*\"\ncharge = [{ meter = \"calls\" }]\n\
                     [[routes]]\nmatch = \"/public/*\"\npublic = true\n";
const ACME: (&str, &str) = ("x-org", "acme");

fn sent(answer: &crate::world::Answer) -> Vec<(String, String)> {
    let headers = answer.json()["headers"].clone();
    serde_json::from_value(headers).unwrap()
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(known, _)| known == name);
    let first = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} arrived twice");
    first
}

#[tokio::test]
async fn the_upstream_hears_only_what_was_verified() {
    let world = World::new(CALLS).await;
    let answer = world
        .get(
            "/api/x?a=1&b=%2F",
            &[
                ACME,
                ("x-member", "ada"),
                ("x-tidegate-tenant", "globex"),
                ("X-Tidegate-User", "root"),
                ("x_tidegate_tenant", "globex"),
                ("x-tidegate-plan", "enterprise"),
                ("x-forwarded-for", "8.8.8.8"),
                ("connection", "x-secret, x-tidegate-tenant"),
                ("x-secret", "1"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ("x-request-id", "my-id-1"),
            ],
        )
        .await;
    assert_eq!(answer.json()["uri"], "/api/x?a=1&b=%2F");
    let headers = sent(&answer);
    let own = |name: &str| value(&headers, name);
    assert_eq!((own("x-tidegate-tenant"), own("x-tidegate-user")), (Some("acme"), Some("ada")));
    assert_eq!(own("x-tidegate-plan"), Some("free"));
    assert_eq!((own("x_tidegate_tenant"), own("x-org"), own("x-member"), own("x-secret")), (None, None, None, None));
    assert_eq!(own("host"), Some(world.upstream.address.to_string().as_str()));
    assert_eq!(own("x-forwarded-host"), Some(world.address.to_string().as_str()));
    assert_eq!(own("x-forwarded-for"), Some("8.8.8.8, 127.0.0.1"));
    assert_eq!(own("x-forwarded-proto"), Some("http"));
    assert_eq!(own("traceparent"), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    assert_eq!((own("x-request-id"), answer.header("x-request-id")), (Some("my-id-1"), Some("my-id-1")));
    assert_eq!((answer.header("x-hop"), answer.header("x-tidegate-warning")), (None, None));
}

#[tokio::test]
async fn forged_identities_are_stripped_from_unmetered_requests_too() {
    let world = World::with(
        &format!("[[identity]]\ntype = \"header\"\ntenant = \"x-org\"\nfrom = [\"10.0.0.0/8\"]\n{CALLS}"),
        GatewayOptions::default(),
    )
    .await;
    for path in ["/public/x", "/unmatched"] {
        let headers =
            sent(&world.get(path, &[ACME, ("x-tidegate-tenant", "acme"), ("x-forwarded-for", "1.1.1.1")]).await);
        for name in ["x-org", "x-tidegate-tenant", "x-tidegate-plan"] {
            assert_eq!(value(&headers, name), None, "{path} {name}");
        }
        assert_eq!(value(&headers, "x-forwarded-for"), Some("127.0.0.1"));
    }
    // From another network the header is no credential at all.
    let refused = world.get("/api/x", &[ACME]).await;
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, Some("Bearer realm=\"tidegate\"")));
}

#[tokio::test]
async fn request_ids_that_make_no_sense_are_replaced() {
    let world = World::new(CALLS).await;
    let long = "x".repeat(500);
    for id in ["", "a b", long.as_str()] {
        let answer = world.get("/api/x", &[ACME, ("x-request-id", id)]).await;
        let own = answer.header("x-request-id").unwrap();
        assert!(own != id && own.len() == 32, "{own}");
    }
}

#[tokio::test]
async fn path_tricks_are_refused_before_anything_is_charged() {
    let world = World::new(CALLS).await;
    for path in [
        "//api/x",
        "/api//x",
        "/public/../api/x",
        "/public/%2e%2e/api/x",
        "/public/%2E%2E/api/x",
        "/public/..%2fapi/x",
        "/api%2fx",
        "/api;a=b/x",
        "/api/x;y",
        "/api/%00",
        "/api/%zz",
        "/api/%",
        "/api\\x",
        "/api/%5cx",
        "/./api/x",
        "/api/%ff",
        "/api/%252e%252e",
        "*",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n");
        let answer = world.raw_answer(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    assert_eq!(world.upstream.requests(), 0);
    assert_eq!(world.usage("acme", "calls").await, (0, 0));
    for path in ["/api/x/", "/API/x", "/%61pi/x", "/api"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n");
        assert!(world.raw_answer(&request).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert_eq!(world.usage("acme", "calls").await, (4, 0));
}

#[tokio::test]
async fn messages_that_can_be_read_in_two_ways_are_refused() {
    let world = World::new(CALLS).await;
    let smuggled = "GET /api/smuggled HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n";
    let head = "POST /api/x HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n";
    for lines in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        "content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        "content-length: 4, 5\r\n\r\nabcd",
        "content-length: 4, 4\r\n\r\nabcd",
        "content-length: +4\r\n\r\nabcd",
        "content-length: -1\r\n\r\n",
        "content-length: 0x4\r\n\r\nabcd",
        "content-length: \r\n\r\n",
        "content-length: 99999999999999999999999\r\n\r\n",
        "transfer-encoding: identity\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        " transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "x-a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
        "x-a: b\rx-b: c\r\n\r\n",
        "x-a: b\0c\r\n\r\n",
        "x a: b\r\n\r\n",
        "host: other\r\n\r\n",
    ] {
        let answer = world.raw_answer(&format!("{head}{lines}{smuggled}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{lines:?}: {answer}");
        // Nothing that follows on the connection is read as a request.
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lines:?}: {answer}");
    }
    let no_host = world.raw_answer("GET /api/x HTTP/1.1\r\nx-org: acme\r\n\r\n").await;
    assert!(no_host.starts_with("HTTP/1.1 400"), "{no_host}");
    for method in ["CONNECT gate:80", "TRACE /api/x"] {
        let answer = world.raw_answer(&format!("{method} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
    assert_eq!(world.upstream.requests(), 0);
    assert_eq!(world.usage("acme", "calls").await, (0, 0));
}

#[tokio::test]
async fn the_framing_of_each_request_of_a_connection_is_looked_at() {
    let world = World::new(CALLS.replace("/api/*", "/sink").as_str()).await;
    let mut stream = world.raw().await;
    let good = ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"];
    let bad = "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n";
    for (lines, status) in [(good[0], "200"), (good[1], "200"), (good[0], "200"), (good[1], "200"), (bad, "400")] {
        let request = format!("POST /sink HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n{lines}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{lines:?}: {answer}");
    }
    assert_eq!(world.usage("acme", "calls").await, (4, 0));
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let world = World::new(CALLS).await;
    let long = "x".repeat(100_000);
    let answer = world.raw_answer(&format!("GET /api/x HTTP/1.1\r\nhost: gate\r\nx-long: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = "a: b\r\n".repeat(500);
    let answer = world.raw_answer(&format!("GET /api/x HTTP/1.1\r\nhost: gate\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn slow_heads_are_cut_off() {
    let options = GatewayOptions { header_timeout: Duration::from_millis(200), ..GatewayOptions::default() };
    let world = World::with(&format!("{BY_HEADER}{CALLS}"), options).await;
    for beginning in ["", "P", "PRI * HTTP", "GET /api/x HTTP/1.1\r\nhost: ga"] {
        let mut stream = world.raw().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{beginning:?} was left open");
    }
}

#[tokio::test]
async fn only_so_many_connections_are_served_at_once() {
    let options = GatewayOptions { connections_max: 2, ..GatewayOptions::default() };
    let world = World::with(&format!("{BY_HEADER}{CALLS}"), options).await;
    let (first, _second) = (world.raw().await, world.raw().await);
    let request = "GET /api/x HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n";
    let third = world.raw_answer(request);
    let waited = tokio::time::timeout(Duration::from_millis(300), third).await;
    assert!(waited.is_err(), "a third connection was served");
    drop(first);
    assert!(world.raw_answer(request).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let world = World::new(CALLS).await;
    // 8 MiB are more than any socket buffer holds; nobody reads them.
    let mut stream = world.raw().await;
    let head = "POST /api/x HTTP/1.1\r\nhost: gate\r\ncontent-length: 8388608\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let part = vec![0; 65_536];
        for _ in 0..128 {
            if writer.write_all(&part).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
    sending.abort();
    until("nothing is left open", async || world.upstream.connections() == 0).await;
}

#[tokio::test]
async fn bodies_that_are_looked_at_take_no_more_memory_together_than_they_may() {
    let route = "[[routes]]\nmatch = \"POST /echo\"\nsession = { meter = \"time\", key = { body = \"/id\" } }\n";
    let options = GatewayOptions { peek_bytes_max: 4_000, ..GatewayOptions::default() };
    let world = World::with(&format!("{BY_HEADER}{route}"), options).await;
    let json = [("x-org", "acme"), ("content-type", "application/json")];
    let said = format!("{{\"id\":\"{}\"}}", "x".repeat(1_000));
    // Two that send half of what they announce, and wait.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = world.raw().await;
        let head = "POST /echo HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n";
        stream.write_all(format!("{head}{said}").as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    let refused = async || world.post("/echo", &json, said.repeat(2)).await.status == 503;
    until("there is no room for more", refused).await;
    let answer = world.post("/echo", &json, said.repeat(2)).await;
    assert_eq!((&answer.json()["code"], answer.header("retry-after")), (&"overloaded".into(), Some("1")));
    drop(waiting);
    let passed = async || world.post("/echo", &json, said.clone()).await.status == 200;
    until("what they held is free again", passed).await;
}

#[tokio::test]
async fn bodies_of_one_tenant_leave_room_for_those_of_others() {
    let route = "[[routes]]\nmatch = \"POST /echo\"\nbody_peek_max_bytes = 2000\nsession = { meter = \"time\", key = { body = \"/id\" } }\n";
    let options = GatewayOptions { peek_bytes_max: 8_000, ..GatewayOptions::default() };
    let world = World::with(&format!("{BY_HEADER}{route}"), options).await;
    let said = format!("{{\"id\":\"{}\"}}", "x".repeat(1_500));
    let ask = async |tenant: &str| {
        world.post("/echo", &[("x-org", tenant), ("content-type", "application/json")], said.clone()).await
    };
    // One that sends nearly all of what it announces, and waits.
    let mut waiting = world.raw().await;
    let head = "POST /echo HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n";
    waiting.write_all(format!("{head}{said}").as_bytes()).await.unwrap();
    until("there is no room for more of the tenant", async || ask("acme").await.status == 429).await;
    let refused = ask("acme").await;
    assert_eq!((&refused.json()["code"], refused.header("retry-after")), (&"too_many_in_flight".into(), Some("1")));
    assert_eq!(ask("other").await.status, 200);
    drop(waiting);
    until("what it held is free again", async || ask("acme").await.status == 200).await;
}

#[tokio::test]
async fn nobody_waits_for_the_body_of_what_its_head_refuses() {
    let session = "session = { meter = \"time\", key = { body = \"/id\" } }\n";
    let amount = "charge = [{ meter = \"traffic\", header = \"x-bytes\" }]\n";
    let routes = format!(
        "[[routes]]\nmatch = \"POST /of/{{tenant}}\"\n{session}[[routes]]\nmatch = \"POST /sized\"\n{amount}{session}"
    );
    let world = World::new(&routes).await;
    for (path, line, code) in [("/of/other", "HTTP/1.1 403", "tenant_mismatch"), ("/sized", "HTTP/1.1 400", "x-bytes")]
    {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n"
        );
        let answer = world.raw_answer(&head).await;
        assert!(answer.starts_with(line) && answer.contains(code), "{answer}");
    }
}
