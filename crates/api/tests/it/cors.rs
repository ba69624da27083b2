//! Calls by pages in a browser: through the short way and through the router alike.

use crate::world::{ADMIN, Answer, Setup, World};
use axum::body::Body;
use http::{Request, header};
use serde_json::json;

const PAGE: &str = "https://app.example.com";

async fn world() -> World {
    World::with(Setup { cors_origins: "https://app.example.com, http://localhost:5173", ..Setup::default() }).await
}

fn request(method: &str, path: &str, origin: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::ORIGIN, origin)
}

fn origin_of(answer: &Answer) -> Option<&str> {
    answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_named_page_may_call_every_endpoint_and_read_every_answer() {
    let world = world().await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "free" })).await;
    let token = world.admin("POST", "/api/v1/tokens", json!({ "tenant_id": "acme" })).await;
    let token = token.body["token"].as_str().unwrap().to_owned();
    let check = json!({ "tenant_id": "acme", "meter": "messages" }).to_string();
    for (method, path, credential, body, status) in [
        ("GET", "/api/v1/tenants/acme/usage", token.as_str(), "", 200),
        ("GET", "/api/v1/tenants/globex/usage", &token, "", 404),
        ("GET", "/nowhere", &token, "", 404),
        ("POST", "/api/v1/check", &token, &check, 200),
        ("POST", "/api/v1/check", "tgt_forged", &check, 401),
        ("POST", "/api/v1/events", &token, "[]", 403),
    ] {
        let request = request(method, path, PAGE)
            .header(header::AUTHORIZATION, format!("Bearer {credential}"))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = world.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!((answer.status, origin_of(&answer)), (status, Some(PAGE)), "{method} {path}: {}", answer.body);
        assert_eq!(answer.headers[header::VARY], "origin");
        assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}

#[tokio::test]
async fn preflights_of_named_pages_are_answered_without_credentials() {
    let world = world().await;
    for (path, method) in [("/api/v1/check", "POST"), ("/api/v1/tenants/acme/usage", "GET")] {
        let asked = request("OPTIONS", path, "http://localhost:5173")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, method)
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization");
        let answer = world.send(asked.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, origin_of(&answer)), (204, Some("http://localhost:5173")));
        assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_METHODS], method);
        assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
    }
}

#[tokio::test]
async fn other_pages_are_told_nothing() {
    let quiet = World::new().await;
    let named = world().await;
    for (world, origin, varies) in [
        (&named, "https://evil.example", true),
        (&named, "null", true),
        (&named, "https://app.example.com.evil.example", true),
        (&quiet, PAGE, false),
    ] {
        let asked = request("OPTIONS", "/api/v1/check", origin).header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        let answer = world.send(asked.body(Body::empty()).unwrap()).await;
        assert!(answer.status >= 400 && origin_of(&answer).is_none(), "{origin}: {}", answer.status);
        let get = request("GET", "/api/v1/plans", origin).header(header::AUTHORIZATION, format!("Bearer {ADMIN}"));
        let answer = world.send(get.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, origin_of(&answer)), (200, None), "{origin}");
        assert_eq!(answer.headers.contains_key(header::VARY), varies);
    }
}
