//! Refusals: status, headers, bodies; observing instead of refusing.

use crate::world::{Answer, World};
use serde_json::Value;

const ROUTES: &str = r#"
[[routes]]
match = "POST /v1/chat/completions"
charge = [{ meter = "messages" }]
[[routes]]
match = "GET /tenants/{tenant}/analytics/*"
feature = "analytics"
[[routes]]
match = "POST /seats"
charge = [{ meter = "seats" }]
[[routes]]
match = "POST /watched"
charge = [{ meter = "seats" }]
enforce = "observe"
"#;
const ACME: (&str, &str) = ("x-org", "acme");

fn shown(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.status);
    for (name, value) in &answer.headers {
        if !["date", "x-request-id", "content-length"].contains(&name.as_str()) {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
    }
    let mut body = answer.json();
    if let Some(id) = body.pointer_mut("/decision/denial_id") {
        assert!(id.as_str().unwrap().starts_with("den_"));
        *id = "den_...".into();
    }
    text + &serde_json::to_string_pretty(&body).unwrap()
}

#[tokio::test]
async fn a_used_up_day() {
    let world = World::new(ROUTES).await;
    for _ in 0..50 {
        assert_eq!(world.post("/v1/chat/completions", &[ACME], "{}").await.status, 200);
    }
    insta::assert_snapshot!(shown(&world.post("/v1/chat/completions", &[ACME], "{}").await));
    assert_eq!(world.upstream.requests(), 50);
}

#[tokio::test]
async fn a_missing_feature() {
    let world = World::new(ROUTES).await;
    insta::assert_snapshot!(shown(&world.get("/tenants/acme/analytics/sales", &[ACME]).await));
    world.put_on("acme", "professional").await;
    assert_eq!(world.get("/tenants/acme/analytics/sales", &[ACME]).await.status, 200);
    assert_eq!(world.upstream.requests(), 1);
}

#[tokio::test]
async fn a_full_gauge() {
    let world = World::new(ROUTES).await;
    for _ in 0..2 {
        assert_eq!(world.post("/seats", &[ACME], "").await.status, 200);
    }
    let refused = world.post("/seats", &[ACME], "").await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (402, "gauge_limit_reached".into()));
    assert_eq!(refused.header("payment-required"), None);
    assert_eq!(refused.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_suspended_tenant() {
    let world = World::new(ROUTES).await;
    let change = domain::op::ProfileChange { status: Some(domain::entry::Status::Suspended), ..Default::default() };
    world.engine.put_tenant(&domain::id::TenantId::trusted("acme"), &change, "test").await.unwrap();
    let refused = world.post("/seats", &[ACME], "").await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (402, "tenant_suspended".into()));
}

#[tokio::test]
async fn the_decision_is_what_check_answers_and_the_denial_can_be_asked_for() {
    let world = World::new(ROUTES).await;
    let body = world.get("/tenants/acme/analytics/x", &[ACME]).await.json();
    let decision = &body["decision"];
    assert_eq!((&decision["allowed"], &decision["code"]), (&Value::Bool(false), &"feature_not_in_plan".into()));
    let id = engine::ports::DenialId::parse(decision["denial_id"].as_str().unwrap()).unwrap();
    assert!(world.engine.denial(id).await.unwrap().is_some());
}

#[tokio::test]
async fn observing_refuses_nothing_and_says_what_it_saw() {
    let world = World::new(ROUTES).await;
    for _ in 0..2 {
        let answer = world.post("/watched", &[ACME], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-shadow")), (200, None));
    }
    let answer = world.post("/watched", &[ACME], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-shadow")), (200, Some("gauge_limit_reached")));
    assert_eq!(world.usage("acme", "seats").await, (3, 0));
    assert_eq!(world.upstream.requests(), 3);
}

#[tokio::test]
async fn another_tenants_path_is_refused_and_costs_nobody_anything() {
    let world = World::new(
        "[[routes]]\nmatch = \"/tenants/{tenant}/x\"\ncharge = [{ meter = \"calls\" }]\n\
         [[routes]]\nmatch = \"/users/{user}/x\"\ncharge = [{ meter = \"calls\" }]\n",
    )
    .await;
    for (path, code) in [
        ("/tenants/globex/x", "tenant_mismatch"),
        ("/tenants/ACME/x", "tenant_mismatch"),
        ("/Tenants/globex/x", "tenant_mismatch"),
        ("/users/bob/x", "user_mismatch"),
    ] {
        let refused = world.get(path, &[ACME, ("x-member", "ada")]).await;
        assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (403, code.into()), "{path}");
    }
    assert_eq!(world.get("/tenants/%61cme/x", &[ACME]).await.status, 200);
    assert_eq!(world.get("/users/ada/x", &[ACME, ("x-member", "ada")]).await.status, 200);
    assert_eq!(world.get("/users/ada/x", &[ACME]).await.status, 403);
    assert_eq!((world.usage("acme", "calls").await, world.usage("globex", "calls").await), ((2, 0), (0, 0)));
}

#[tokio::test]
async fn unmatched_requests_go_through_unless_the_catalog_says_otherwise() {
    let world = World::new(ROUTES).await;
    assert_eq!(world.get("/anything", &[]).await.status, 200);
    let world =
        World::with(&format!("{}\n{ROUTES}", crate::world::BY_HEADER), gateway::GatewayOptions::default()).await;
    assert_eq!(world.get("/anything", &[ACME]).await.status, 200);
    assert_eq!(world.usage("acme", "calls").await, (0, 0));

    let upstream = crate::upstream::Upstream::start().await;
    let text = format!(
        "unmatched = \"refuse\"\n{}",
        crate::world::catalog_text(upstream.address, &format!("{}{ROUTES}", crate::world::BY_HEADER))
    );
    let world = World::of(&text, upstream, gateway::GatewayOptions::default()).await;
    let refused = world.get("/anything", &[ACME]).await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (404, "not_found".into()));
    assert_eq!(world.upstream.requests(), 0);
}

#[tokio::test]
async fn unknown_tenants_are_refused_where_there_is_no_default_plan() {
    let upstream = crate::upstream::Upstream::start().await;
    let text = crate::world::catalog_text(upstream.address, &format!("{}{ROUTES}", crate::world::BY_HEADER));
    let text = text.replace("default_plan = \"free\"\n", "");
    let world = World::of(&text, upstream, gateway::GatewayOptions::default()).await;
    let refused = world.post("/seats", &[("x-org", "nobody")], "").await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (403, "unknown_tenant".into()));
    assert_eq!(world.upstream.requests(), 0);
}
