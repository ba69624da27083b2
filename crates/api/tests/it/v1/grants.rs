//! `/api/v1/tenants/{id}/grants`: amounts on top of what the plan allows. The plan of these tests allows five messages a
//! day.

use crate::world::{Answer, World};
use api::TestClock;
use serde_json::{Value, json};

const GRANTS: &str = "/api/v1/tenants/acme/grants";

async fn grant(world: &World, extra: Value) -> Answer {
    let mut body = json!({ "meter": "messages", "amount": 3, "reason": "bought" });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    world.admin("POST", GRANTS, body).await
}

async fn spend(world: &World, amount: i64) -> Answer {
    world.check(json!({ "tenant_id": "acme", "meter": "messages", "amount": amount, "consume": true })).await
}

#[tokio::test]
async fn what_is_granted_is_spent_after_the_plans_own_and_shown_apart() {
    let world = World::with_tenants().await;
    let given = grant(&world, json!({})).await;
    assert_eq!(given.status, 201);
    let id = given.body["grant_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("grt_") && id.len() == 36, "{id}");
    assert_eq!(spend(&world, 9).await.body["code"], "period_limit_reached");
    let spent = spend(&world, 7).await.body;
    assert_eq!((&spent["allowed"], &spent["limits"][0]["used"]), (&json!(true), &json!(5)));
    let listed = world.get(GRANTS).await.body;
    let shown = &listed["grants"][0];
    assert_eq!((&shown["id"], &shown["amount"], &shown["left"]), (&json!(id), &json!(3), &json!(1)));
    let usage = world.get("/api/v1/tenants/acme/usage").await.body;
    let meters = usage["meters"].as_array().unwrap();
    let messages = meters.iter().find(|meter| meter["meter"] == "messages").unwrap();
    assert_eq!((&messages["used"], &messages["limits"][0]["used"]), (&json!(7), &json!(5)));
    // What is left may be taken back; what was drawn stays used.
    assert_eq!(world.admin("DELETE", &format!("{GRANTS}/{id}"), json!({})).await.status, 204);
    assert_eq!(spend(&world, 1).await.body["allowed"], false);
    let again = world.admin("DELETE", &format!("{GRANTS}/{id}"), json!({})).await;
    assert_eq!(again.problem(), (404, "unknown_grant"));
}

#[tokio::test]
async fn a_grant_is_given_once_under_its_id_and_ends_when_it_says() {
    let world = World::with_tenants().await;
    let first = grant(&world, json!({ "id": "order-7" })).await;
    let again = grant(&world, json!({ "id": "order-7" })).await;
    assert_eq!((first.status, again.status, &first.body), (201, 201, &again.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(world.get(GRANTS).await.body["grants"].as_array().unwrap().len(), 1);
    let other = grant(&world, json!({ "id": "order-7", "amount": 4 })).await;
    assert_eq!(other.problem(), (409, "idempotency_conflict"));
    let over = grant(&world, json!({ "expires_at": "2020-01-01T00:00:00Z" })).await;
    assert_eq!(over.problem(), (422, "invalid_body"));
    world.time.advance(400 * 86_400_000);
    assert_eq!(spend(&world, 8).await.body["allowed"], true, "one that never ends is there after a year");
}

#[tokio::test]
async fn what_can_not_be_granted_is_refused_by_name() {
    let world = World::with_tenants().await;
    for (body, code) in [
        (json!({ "meter": "nothing" }), "unknown_meter"),
        (json!({ "meter": "documents" }), "gauge_has_no_window"),
        (json!({ "amount": 0 }), "negative_amount"),
        (json!({ "amount": -1 }), "negative_amount"),
        (json!({ "priority": 1_000_001 }), "invalid_body"),
        (json!({ "reason": "" }), "invalid_body"),
        (json!({ "expires_at": "soon" }), "invalid_body"),
        (json!({ "more": 1 }), "invalid_body"),
    ] {
        assert_eq!(grant(&world, body.clone()).await.problem(), (422, code), "{body}");
    }
    for id in ["x", "grt_", "grt_zz", "grt_+0000000000000000000000000000001"] {
        let revoked = world.admin("DELETE", &format!("{GRANTS}/{id}"), json!({})).await;
        assert_eq!(revoked.problem(), (404, "unknown_grant"), "{id}");
    }
    assert_eq!(world.get(GRANTS).await.body, json!({ "grants": [] }));
}
