//! `/api/v1/tenants`, overrides and adjustments.

use crate::world::World;
use serde_json::{Value, json};

#[tokio::test]
async fn put_creates_and_changes_and_what_is_left_out_stays() {
    let world = World::new().await;
    let created = world
        .admin(
            "PUT",
            "/api/v1/tenants/acme",
            json!({ "plan": "free", "timezone": "Europe/Madrid", "enforce": "observe" }),
        )
        .await;
    assert_eq!(created.status, 201);
    insta::assert_json_snapshot!(created.body);
    let changed = world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "basic", "enforce": null })).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.body["timezone"], "Europe/Madrid");
    assert_eq!((&changed.body["plan"], &changed.body["enforce"]), (&json!("basic"), &Value::Null));
    assert_eq!(world.get("/api/v1/tenants/acme").await.body, changed.body);
}

#[tokio::test]
async fn what_can_not_be_is_refused_by_name() {
    let world = World::with_tenants().await;
    for (body, expected) in [
        (json!({ "plan": "gold" }), (422, "unknown_plan")),
        (json!({ "timezone": "Mars/Olympus" }), (422, "invalid_body")),
        (json!({ "period_anchor": "the 1st" }), (422, "invalid_body")),
        (json!({ "status": "asleep" }), (422, "invalid_body")),
        (json!({ "enforce": "off" }), (422, "invalid_body")),
        (json!({ "tier": "free" }), (422, "invalid_body")),
    ] {
        assert_eq!(world.admin("PUT", "/api/v1/tenants/acme", body.clone()).await.problem(), expected, "{body}");
    }
    assert_eq!(world.admin("PUT", "/api/v1/tenants/new", json!({})).await.problem(), (404, "unknown_tenant"));
    assert_eq!(world.admin("PUT", "/api/v1/tenants/a%2Fb", json!({})).await.problem(), (400, "invalid_request"));
    assert_eq!(world.get("/api/v1/tenants/nobody").await.problem(), (404, "unknown_tenant"));
}

#[tokio::test]
async fn pages_hold_every_tenant_once() {
    let world = World::new().await;
    for number in 0..7 {
        world.admin("PUT", &format!("/api/v1/tenants/t{number}"), json!({ "plan": "free" })).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/tenants?limit=3".to_owned();
    loop {
        let page = world.get(&path).await.body;
        seen.extend(page["items"].as_array().unwrap().iter().map(|row| row["tenant_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/tenants?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
    for query in ["limit=0", "limit=501", "limit=x", "cursor=!!", "cursor=Ly8v"] {
        let answer = world.get(&format!("/api/v1/tenants?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn a_plan_change_raises_the_limit_at_once_and_keeps_the_use() {
    let world = World::with_tenants().await;
    let consume = json!({ "tenant_id": "acme", "meter": "messages", "amount": 5, "consume": true });
    assert_eq!(world.check(consume.clone()).await.body["allowed"], true);
    assert_eq!(world.check(consume.clone()).await.body["allowed"], false);
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "basic" })).await;
    assert_eq!(world.check(consume.clone()).await.body["limits"][0]["used"], 10);
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "free" })).await;
    assert_eq!(world.check(consume).await.body["allowed"], false);
    assert_eq!(world.used("acme", "messages").await.0, 10);
}

const OVERRIDES: &str = "/api/v1/tenants/acme/overrides";

#[tokio::test]
async fn overrides_replace_the_plans_limits_and_can_be_taken_back() {
    let world = World::with_tenants().await;
    let one = json!({ "meter": "messages", "window": "day", "max": 7, "reason": "trial" });
    let answer = world.admin("PUT", OVERRIDES, one).await;
    insta::assert_json_snapshot!(answer.body);
    let check = json!({ "tenant_id": "acme", "meter": "messages", "amount": 7 });
    let limit = world.check(check.clone()).await.body["limits"][0].clone();
    assert_eq!((&limit["source"], &limit["max"]), (&json!("override"), &json!(7)));
    let all = json!([
        { "meter": "documents", "max": "unlimited" },
        { "meter": "messages", "window": "hour", "max": 2, "mode": "soft", "until": "2027-01-01T00:00:00Z" },
    ]);
    assert_eq!(world.admin("PUT", OVERRIDES, all).await.body["items"].as_array().unwrap().len(), 2);
    let shown = world.get(OVERRIDES).await.body;
    // What is shown can be sent back.
    assert_eq!(world.admin("PUT", OVERRIDES, shown["items"].clone()).await.body, shown);
    let left = world.admin("DELETE", &format!("{OVERRIDES}?meter=messages"), Value::Null).await.body;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    let left = world.admin("DELETE", OVERRIDES, Value::Null).await.body;
    assert_eq!(left, json!({ "items": [] }));
    assert_eq!(world.check(check).await.body["allowed"], false);
}

#[tokio::test]
async fn overrides_that_do_not_fit_are_refused() {
    let world = World::with_tenants().await;
    for (body, expected) in [
        (json!({ "meter": "messages", "max": 5 }), (422, "window_does_not_fit")),
        (json!({ "meter": "documents", "window": "day", "max": 5 }), (422, "window_does_not_fit")),
        (json!({ "meter": "messages", "window": "day", "max": -1 }), (422, "negative_amount")),
        (json!({ "meter": "messages", "window": "day", "max": "lots" }), (422, "invalid_body")),
        (json!({ "meter": "messages", "window": "week", "max": 5 }), (422, "invalid_body")),
        (json!({ "meter": "nope", "window": "day", "max": 5 }), (422, "unknown_meter")),
        (json!({ "meter": "messages", "window": "day" }), (422, "invalid_body")),
    ] {
        assert_eq!(world.admin("PUT", OVERRIDES, body.clone()).await.problem(), expected, "{body}");
    }
    let path = "/api/v1/tenants/nobody/overrides";
    let one = json!({ "meter": "documents", "max": 5 });
    assert_eq!(world.admin("PUT", path, one).await.problem(), (404, "unknown_tenant"));
}

const ADJUSTMENTS: &str = "/api/v1/tenants/acme/adjustments";

#[tokio::test]
async fn adjustments_set_or_add_with_a_reason_once() {
    let world = World::with_tenants().await;
    let set = json!({ "meter": "messages", "set": 40, "reason": "opening balance", "id": "opening" });
    assert_eq!(world.admin("POST", ADJUSTMENTS, set.clone()).await.status, 204);
    assert!(world.admin("POST", ADJUSTMENTS, set).await.headers.contains_key("idempotent-replayed"));
    let add = json!({ "meter": "messages", "add": -10, "reason": "counted twice" });
    assert_eq!(world.admin("POST", ADJUSTMENTS, add).await.status, 204);
    assert_eq!(world.used("acme", "messages").await.0, 30);
    let other = json!({ "meter": "messages", "set": 41, "reason": "opening balance", "id": "opening" });
    assert_eq!(world.admin("POST", ADJUSTMENTS, other).await.problem(), (409, "idempotency_conflict"));
    for body in [
        json!({ "meter": "messages", "reason": "nothing" }),
        json!({ "meter": "messages", "add": 1, "set": 1, "reason": "both" }),
        json!({ "meter": "messages", "add": 1 }),
        json!({ "meter": "messages", "add": 1, "reason": "" }),
        json!({ "meter": "messages", "add": 1, "reason": "two\nlines" }),
    ] {
        assert_eq!(world.admin("POST", ADJUSTMENTS, body.clone()).await.problem(), (422, "invalid_body"), "{body}");
    }
}

#[tokio::test]
async fn what_a_tenant_may_use_is_shared_among_its_users() {
    let world = World::with_tenants().await;
    let put = async |shares: Value| world.admin("PUT", "/api/v1/tenants/globex", json!({ "shares": shares })).await;
    let spend = async |user: &str, amount: i64| {
        let body =
            json!({ "tenant_id": "globex", "meter": "messages", "user_id": user, "amount": amount, "consume": true });
        world.check(body).await.body["denied_by"].clone()
    };
    let equal = put(json!([{ "meter": "messages", "mode": "equal", "seats": 5 }])).await;
    assert_eq!((equal.status, &equal.body["shares"][0]["seats"]), (200, &json!(5)));
    assert_eq!(spend("ada", 10).await, Value::Null);
    assert_eq!(spend("ada", 1).await, "messages_day_share");
    // Another mode finds what was used; what is not named in a change stays.
    let users = json!({ "ada": 12, "bob": 0 });
    let custom = put(json!([{ "meter": "messages", "mode": "custom", "users": users, "default": 3 }])).await;
    assert_eq!(custom.status, 200);
    insta::assert_json_snapshot!(custom.body["shares"]);
    world.admin("PUT", "/api/v1/tenants/globex", json!({ "timezone": "Europe/Madrid" })).await;
    assert_eq!(world.get("/api/v1/tenants/globex").await.body["shares"], custom.body["shares"]);
    assert_eq!((spend("ada", 2).await, spend("ada", 1).await), (Value::Null, json!("messages_day_share")));
    assert_eq!((spend("bob", 1).await, spend("new", 3).await), (json!("messages_day_share"), Value::Null));
    let usage = world.get("/api/v1/tenants/globex/usage?user_id=new").await.body;
    let messages = usage["meters"].as_array().unwrap().iter().find(|meter| meter["meter"] == "messages").unwrap();
    insta::assert_json_snapshot!(messages["limits"]);
    // Nothing shared: a null, as an empty list.
    for nothing in [Value::Null, json!([])] {
        assert_eq!(put(nothing).await.body["shares"], json!([]));
    }
    assert_eq!(spend("ada", 30).await, Value::Null);
    let journal = world.get("/api/v1/entries?tenant_id=globex").await.body.to_string();
    assert!(journal.contains(r#""mode":"custom""#) && !journal.contains(r#""bob":0"#), "{journal}");
}

#[tokio::test]
async fn shares_without_meaning_are_refused_by_name() {
    let world = World::with_tenants().await;
    let crowd: serde_json::Map<_, _> = (0..1001).map(|number| (format!("u{number}"), json!(1))).collect();
    for (share, expected) in [
        (json!({ "meter": "nope", "mode": "pooled" }), "unknown_meter"),
        (json!({ "meter": "a b", "mode": "pooled" }), "unknown_meter"),
        (json!({ "meter": "documents", "mode": "pooled" }), "gauge_has_no_window"),
        (json!({ "meter": "messages", "mode": "even" }), "invalid_body"),
        (json!({ "meter": "messages", "mode": "equal" }), "invalid_body"),
        (json!({ "meter": "messages", "mode": "equal", "seats": 0 }), "invalid_shares"),
        (json!({ "meter": "messages", "mode": "equal", "seats": 2, "default": 1 }), "invalid_body"),
        (json!({ "meter": "messages", "mode": "pooled", "users": {} }), "invalid_body"),
        (json!({ "meter": "messages", "mode": "custom", "seats": 2 }), "invalid_body"),
        (json!({ "meter": "messages", "mode": "custom", "users": { "a/b": 2 } }), "invalid_body"),
        (json!({ "meter": "messages", "mode": "custom", "users": { "ada": -2 } }), "negative_amount"),
        (json!({ "meter": "messages", "mode": "custom", "users": crowd }), "invalid_shares"),
    ] {
        let answer = world.admin("PUT", "/api/v1/tenants/acme", json!({ "shares": [share] })).await;
        assert_eq!(answer.problem(), (422, expected), "{share}");
    }
    let twice = json!([{ "meter": "messages", "mode": "pooled" }, { "meter": "messages", "mode": "pooled" }]);
    let answer = world.admin("PUT", "/api/v1/tenants/acme", json!({ "shares": twice })).await;
    assert_eq!(answer.problem(), (422, "invalid_shares"));
    assert_eq!(world.get("/api/v1/tenants/acme").await.body["shares"], json!([]));
}
