//! Answers of the gateway's own, read by pages in a browser.

use crate::world::{Answer, BY_HEADER, World};
use bytes::Bytes;
use gateway::GatewayOptions;
use http::Method;
use wire::cors::CorsOrigins;

const ROUTES: &str = "[[routes]]\nmatch = \"POST /api/*\"\ncharge = [{ meter = \"messages\", amount = 51 }]\n\
                      [[routes]]\nmatch = \"/calls/*\"\ncharge = [{ meter = \"calls\" }]\n\
                      [[routes]]\nmatch = \"/open/*\"\npublic = true\n";
const PAGE: &str = "https://app.example.com";

async fn world(origins: &str) -> World {
    let cors_origins = CorsOrigins::parse(origins).unwrap();
    let options = GatewayOptions { cors_origins, ..GatewayOptions::default() };
    World::with(&format!("{BY_HEADER}\n{ROUTES}"), options).await
}

async fn preflight(world: &World, path: &str, origin: &str) -> Answer {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    world.send(Method::OPTIONS, path, &asked, Bytes::new()).await
}

#[tokio::test]
async fn a_page_that_is_named_may_ask_and_read_why_it_was_refused() {
    let world = world(PAGE).await;
    let asked = preflight(&world, "/api/x", PAGE).await;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(asked.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(asked.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert_eq!(world.upstream.requests(), 0);

    let refused = world.post("/api/x", &[("x-org", "acme"), ("origin", PAGE)], "").await;
    let unknown = world.post("/api/x", &[("origin", PAGE)], "").await;
    assert_eq!((refused.status.as_u16(), unknown.status.as_u16()), (402, 401));
    for answer in [refused, unknown] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(answer.header("vary"), Some("origin"));
        assert!(answer.header("access-control-expose-headers").unwrap().contains("retry-after"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    // What the upstream answers is the upstream's to open.
    let passed = world.get("/calls/x", &[("x-org", "acme"), ("origin", PAGE)]).await;
    assert_eq!((passed.status.as_u16(), passed.header("access-control-allow-origin")), (200, None));
    // So are questions about what the gateway asks nobody's name for.
    for path in ["/open/x", "/elsewhere"] {
        let asked = preflight(&world, path, PAGE).await;
        assert_eq!((asked.status.as_u16(), asked.json()["method"].as_str()), (200, Some("OPTIONS")));
    }
}

#[tokio::test]
async fn other_pages_are_told_nothing() {
    let world = world(PAGE).await;
    for origin in ["https://evil.example", "null", "https://app.example.com.evil.example"] {
        let asked = preflight(&world, "/calls/x", origin).await;
        assert_eq!((asked.status.as_u16(), asked.header("access-control-allow-origin")), (401, None), "{origin}");
        let refused = world.post("/api/x", &[("x-org", "acme"), ("origin", origin)], "").await;
        assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (402, None), "{origin}");
        assert_eq!(refused.header("vary"), Some("origin"));
    }
}

#[tokio::test]
async fn without_named_pages_nothing_changes() {
    let world = world("").await;
    let refused = world.post("/api/x", &[("x-org", "acme"), ("origin", PAGE)], "").await;
    assert_eq!((refused.header("vary"), refused.header("access-control-allow-origin")), (None, None));
    assert_eq!(preflight(&world, "/calls/x", PAGE).await.status, 401);
}
