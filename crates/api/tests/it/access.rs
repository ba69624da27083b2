//! Every endpoint, tried with no, forged, too weak and another tenant's credentials.

use crate::world::{ADMIN, Setup, World};
use api::access::{Access, ENDPOINTS};
use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Paths and methods of the OpenAPI document.
fn described() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, methods): (&String, &Value)| -> Vec<(String, String)> {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_ascii_uppercase(), path.clone())).collect()
    };
    paths.iter().flat_map(methods).collect()
}

#[test]
fn the_table_holds_every_endpoint_once() {
    let table: Vec<(String, String)> =
        ENDPOINTS.iter().map(|endpoint| (endpoint.method.to_owned(), endpoint.path.to_owned())).collect();
    let unique: BTreeSet<_> = table.iter().cloned().collect();
    assert_eq!(unique.len(), table.len(), "an endpoint stands twice in the table");
    assert_eq!(unique, described());
}

/// A body that each endpoint can read, so that only credentials can refuse.
fn body_for(path: &str, tenant: &str) -> Value {
    match path {
        "/api/v1/check" => json!({ "tenant_id": tenant, "meter": "messages" }),
        "/api/v1/sessions" => json!({ "tenant_id": tenant, "meter": "conversation_time" }),
        "/api/v1/events" => json!({ "id": "e", "subject": tenant, "type": "documents" }),
        "/api/v1/keys" => json!({ "name": "n", "scope": "read" }),
        "/api/v1/tokens" => json!({ "tenant_id": tenant }),
        "/api/v1/test/clock" => json!({ "advance": "1s" }),
        "/api/v1/usage-forecast/track-usage" => json!({ "tenant_id": tenant, "metrics": { "documents": 1 } }),
        "/api/v1/snapshots/counted" => json!({ "tenant_id": tenant, "meters": [] }),
        path if path.ends_with("/adjustments") => json!({ "meter": "documents", "add": 1, "reason": "test" }),
        path if path.ends_with("/overrides") => json!([]),
        path if path.ends_with("/{id}") => json!({}),
        _ => Value::Null,
    }
}

async fn call(world: &World, credentials: Option<&str>, method: &str, path: &str, tenant: &str) -> u16 {
    let body = if method == "GET" || method == "DELETE" { Value::Null } else { body_for(path, tenant) };
    let mut request = Request::builder().method(method).uri(path.replace("{id}", tenant));
    if let Some(credentials) = credentials {
        request = request.header(header::AUTHORIZATION, credentials);
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        request = request.header(header::CONTENT_TYPE, "application/json");
        Body::from(body.to_string())
    };
    let answer = world.send(request.body(body).unwrap()).await;
    if answer.status >= 400 {
        answer.problem();
    }
    answer.status
}

/// Keys and ids are not tenants: these answer 404 to those who may ask.
fn allowed(status: u16) -> bool {
    !matches!(status, 401 | 403 | 500..)
}

#[tokio::test]
async fn without_valid_credentials_only_public_endpoints_answer() {
    let world = World::with(Setup { test_clock: true, ..Setup::default() }).await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "free" })).await;
    let forged = format!("tgt_{}.{}", "eyJ0ZW5hbnQiOiJhY21lIiwiZXhwaXJlc19tcyI6OTk5OTk5OTk5OTk5OX0", "AAAA");
    let attempts = [
        None,
        Some("Bearer wrong".to_owned()),
        Some("Bearer ".to_owned()),
        Some(ADMIN.to_owned()),
        Some(format!("Basic {ADMIN}")),
        Some(format!("Bearer {forged}")),
        Some(format!("Bearer {}", "x".repeat(100_000))),
        Some("Bearer tg_admin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA000000".to_owned()),
    ];
    for endpoint in ENDPOINTS {
        for credentials in &attempts {
            let status = call(&world, credentials.as_deref(), endpoint.method, endpoint.path, "acme").await;
            let public = endpoint.access == Access::Public;
            assert_eq!(allowed(status), public, "{} {}: {status}", endpoint.method, endpoint.path);
            assert!(public || status == 401, "{} {}: {status}", endpoint.method, endpoint.path);
        }
    }
}

#[tokio::test]
async fn each_scope_may_do_its_own_and_nothing_more() {
    let world = World::with(Setup { test_clock: true, ..Setup::default() }).await;
    for tenant in ["acme", "globex"] {
        world.admin("PUT", &format!("/api/v1/tenants/{tenant}"), json!({ "plan": "free" })).await;
    }
    let token = world.admin("POST", "/api/v1/tokens", json!({ "tenant_id": "acme" })).await;
    let keys = [
        ("admin", world.key("admin", None).await),
        ("ingest", world.key("ingest", None).await),
        ("read", world.key("read", None).await),
        ("tenant", world.key("tenant", Some("acme")).await),
        ("tenant", token.body["token"].as_str().unwrap().to_owned()),
    ];
    for endpoint in ENDPOINTS {
        for (scope, key) in &keys {
            let may = match (endpoint.access, *scope) {
                (Access::Public, _) | (_, "admin") => true,
                (Access::Admin, _) => false,
                (Access::Ingest, scope) => scope == "ingest",
                (Access::Check, scope) => scope != "read",
                (Access::Read | Access::Figures, scope) => scope == "read",
                (Access::OwnPath | Access::OwnRows, scope) => scope != "ingest",
            };
            let credentials = format!("Bearer {key}");
            let status = call(&world, Some(&credentials), endpoint.method, endpoint.path, "acme").await;
            assert_eq!(allowed(status), may, "{scope}: {} {}: {status}", endpoint.method, endpoint.path);
            assert!(may || status == 403, "{scope}: {} {}: {status}", endpoint.method, endpoint.path);
        }
    }
}

#[tokio::test]
async fn a_tenant_learns_nothing_about_another() {
    let world = World::with_tenants().await;
    let key = world.key("tenant", Some("acme")).await;
    for path in [
        "/api/v1/tenants/{id}",
        "/api/v1/tenants/{id}/usage",
        "/api/v1/tenants/{id}/overrides",
        "/api/v1/tenants/{id}/sessions",
        "/api/v1/tenants/{id}/warnings",
        "/api/organizations/{id}/usage",
        "/api/v1/denials?tenant_id={id}",
        "/api/v1/usage-forecast?tenant_id={id}",
        "/api/v1/usage-forecast/backtest?tenant_id={id}",
    ] {
        let of = async |tenant: &str| world.with_key(&key, "GET", &path.replace("{id}", tenant), Value::Null).await;
        assert!(of("acme").await.is_ok(), "{path}");
        let (other, nobody) = (of("globex").await, of("nobody").await);
        assert_eq!(other.problem(), (404, "unknown_tenant"), "{path}");
        assert_eq!(other.body, nobody.body, "{path}: the answers tell which tenant exists");
        // Tricks with the path reach nothing either.
        for trick in ["%67lobex", "acme%2f..%2fglobex", "./globex", "acme/../globex", "globex;acme", "globex%00"] {
            let status = of(trick).await.status;
            assert!((400..500).contains(&status), "{path} {trick}: {status}");
        }
    }
    let check = async |tenant: &str, consume: bool| {
        let body = json!({ "tenant_id": tenant, "meter": "messages", "consume": consume });
        world.with_key(&key, "POST", "/api/v1/check", body).await
    };
    assert!(check("acme", false).await.is_ok());
    assert_eq!(check("acme", true).await.problem(), (403, "forbidden"));
    assert_eq!(check("globex", false).await.body, check("nobody", false).await.body);
    assert_eq!(check("globex", true).await.problem(), (404, "unknown_tenant"));
    assert_eq!(world.used("acme", "messages").await, (0, 0));
    assert_eq!(world.used("globex", "messages").await, (0, 0));
}

#[tokio::test]
async fn credentials_in_the_query_are_never_taken() {
    let world = World::with_tenants().await;
    for path in ["/api/v1/tenants?key={}", "/api/v1/tenants?access_token={}", "/api/v1/tenants?authorization={}"] {
        let path = path.replace("{}", &ADMIN.replace([' ', '\''], "%20"));
        let answer = world.send(Request::get(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.problem(), (401, "unauthenticated"));
    }
}

#[tokio::test]
async fn figures_can_be_opened() {
    let open = World::with(Setup { metrics_open: true, ..Setup::default() }).await;
    let answer = open.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, answer.body), (200, "# EOF\n".into()));
}
