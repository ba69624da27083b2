//! Hostile and mistaken requests: each a clear 4xx, none a charge.

use crate::world::{ADMIN, World};
use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let world = World::with_tenants().await;
    assert_eq!(world.get("/nowhere").await.problem(), (404, "not_found"));
    assert_eq!(world.get("/api/v1/tenants/").await.problem(), (404, "not_found"));
    assert_eq!(world.get("//api/v1/tenants").await.problem(), (404, "not_found"));
    let answer = world.admin("PATCH", "/api/v1/tenants/acme", json!({})).await;
    assert_eq!(answer.problem(), (405, "method_not_allowed"));
    let allow = answer.headers[header::ALLOW].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
}

#[tokio::test]
async fn bodies_that_are_not_what_was_asked_for_are_refused() {
    let world = World::with_tenants().await;
    let deep = format!(r#"{{"tenant_id":"acme","hold":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let large = format!(r#"{{"tenant_id":"{}"}}"#, "x".repeat(300_000));
    for (content_type, body, expected) in [
        ("application/json", b"".to_vec(), (400, "malformed_json")),
        ("application/json", b"{\"tenant_id\":\"acme\"".to_vec(), (400, "malformed_json")),
        ("application/json", b"{\"tenant_id\":\"\xff\"}".to_vec(), (400, "malformed_json")),
        ("application/json", b"{\"tenant_id\":\"acme\"} {}".to_vec(), (400, "malformed_json")),
        ("application/json", b"[]".to_vec(), (422, "invalid_body")),
        ("application/json", b"null".to_vec(), (422, "invalid_body")),
        ("application/json", b"{\"tenant_id\":5,\"meter\":\"messages\"}".to_vec(), (422, "invalid_body")),
        ("application/json", b"{\"tenant_id\":\"acme\",\"tenant_id\":\"globex\"}".to_vec(), (422, "invalid_body")),
        ("application/json", b"{\"tenant_id\":\"acme\",\"metre\":\"messages\"}".to_vec(), (422, "invalid_body")),
        ("application/json", deep.into_bytes(), (422, "invalid_body")),
        ("application/json", large.into_bytes(), (413, "payload_too_large")),
        ("text/plain", b"{}".to_vec(), (415, "unsupported_media_type")),
        ("application/json; charset=utf-16", b"{}".to_vec(), (415, "unsupported_media_type")),
        ("", b"{}".to_vec(), (415, "unsupported_media_type")),
    ] {
        let answer = world.post_bytes("/api/v1/check", content_type, body.clone()).await;
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        assert_eq!(answer.problem(), expected, "{content_type} {shown}: {}", answer.body);
    }
    assert_eq!(world.used("acme", "messages").await, (0, 0));
}

#[tokio::test]
async fn an_unknown_field_is_named() {
    let world = World::with_tenants().await;
    let answer = world.check(json!({ "tenant_id": "acme", "metre": "messages" })).await;
    assert!(answer.body["detail"].as_str().unwrap().contains("`metre`"), "{}", answer.body);
    let answer = world.get("/api/v1/tenants?limt=3").await;
    assert_eq!(answer.problem(), (400, "invalid_request"));
    assert!(answer.body["detail"].as_str().unwrap().contains("limt"), "{}", answer.body);
}

#[tokio::test]
async fn a_body_that_only_claims_to_be_large_is_refused_unread() {
    let world = World::new().await;
    let request = Request::post("/api/v1/events")
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
        .header(header::CONTENT_TYPE, "application/cloudevents-batch+json")
        .header(header::CONTENT_LENGTH, "99999999999");
    let answer = world.send(request.body(Body::from("[]")).unwrap()).await;
    assert_eq!(answer.problem(), (413, "payload_too_large"));
}

#[tokio::test]
async fn several_authorization_headers_are_none() {
    let world = World::new().await;
    let request = Request::get("/api/v1/tenants")
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
        .header(header::AUTHORIZATION, "Bearer other");
    assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.problem(), (401, "unauthenticated"));
}

#[tokio::test]
async fn refusals_of_credentials_say_which_scheme_is_meant() {
    let world = World::new().await;
    let answer = world.send(Request::get("/api/v1/tenants").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    let key = world.key("read", None).await;
    let answer = world.with_key(&key[..key.len() - 1], "GET", "/api/v1/tenants", Value::Null).await;
    assert!(answer.body["detail"].as_str().unwrap().contains("cut short"), "{}", answer.body);
}
