//! The short way and the router give the same answers.

use crate::world::{ADMIN, World};
use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn both(world: &World, request: impl Fn() -> Request<Body>) -> (u16, Value) {
    let short = world.send(request()).await;
    let routed = world.door.router().oneshot(request()).await.unwrap();
    let status = routed.status().as_u16();
    let bytes = routed.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    assert_eq!((short.status, &short.body), (status, &body));
    (status, body)
}

#[tokio::test]
async fn checks_and_events_are_the_same_through_either_door() {
    let world = World::with_tenants().await;
    let post = |path: &'static str, content_type: &'static str, key: Option<&'static str>, body: Value| {
        move || {
            let mut request = Request::post(path).header(header::CONTENT_TYPE, content_type);
            if let Some(key) = key {
                request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
            }
            request.body(Body::from(body.to_string())).unwrap()
        }
    };
    let (json_type, batch) = ("application/json", "application/cloudevents-batch+json");
    for (path, content_type, key, body, status) in [
        ("/api/v1/check", json_type, Some(ADMIN), json!({ "tenant_id": "acme", "meter": "messages" }), 200),
        ("/api/v1/check", json_type, Some(ADMIN), json!({ "tenant_id": "acme" }), 422),
        ("/api/v1/check", "text/plain", Some(ADMIN), json!({}), 415),
        ("/api/v1/check", json_type, None, json!({}), 401),
        ("/api/v1/events", batch, Some(ADMIN), json!([]), 200),
        ("/api/v1/events", batch, Some(ADMIN), json!({}), 422),
        ("/api/v1/events", batch, None, json!([]), 401),
    ] {
        let (answered, body) = both(&world, post(path, content_type, key, body)).await;
        assert_eq!(answered, status, "{path} {content_type}: {body}");
    }
}

#[tokio::test]
async fn the_observer_is_told_patterns_and_never_names() {
    let world = World::with_tenants().await;
    world.told.0.lock().clear();
    world.get("/api/v1/tenants/acme/usage").await;
    world.get("/api/v1/tenants/secret-customer/nowhere").await;
    world.check(json!({ "tenant_id": "acme", "meter": "messages" })).await;
    world.send(Request::get("/api/v1/check").body(Body::empty()).unwrap()).await;
    let told = world.told.0.lock().clone();
    let told: Vec<_> = told.iter().map(|(method, route, status)| (method.as_str(), route.as_str(), *status)).collect();
    assert_eq!(
        told,
        [
            ("GET", "/api/v1/tenants/{id}/usage", 200),
            ("GET", "unmatched", 404),
            ("POST", "/api/v1/check", 200),
            ("GET", "unmatched", 405),
        ]
    );
}

#[tokio::test]
async fn a_request_in_flight_holds_little_memory() {
    let world = World::new().await;
    let answer = world.door.answer(Request::get("/healthz").body(Body::empty()).unwrap());
    assert!(size_of_val(&answer) < 6_000, "{} bytes", size_of_val(&answer));
}
