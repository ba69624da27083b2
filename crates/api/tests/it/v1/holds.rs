//! Holds: taken by `POST /api/v1/check`, settled by `POST /api/v1/holds/{id}/commit` and `/release`.

use crate::world::{Answer, World};
use api::TestClock;
use serde_json::{Value, json};

async fn hold(world: &World, extra: Value) -> Answer {
    let mut body = json!({ "tenant_id": "acme", "meter": "messages", "amount": 3, "hold": { "ttl": "60s" } });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    world.check(body).await
}

fn id_of(answer: &Answer) -> String {
    answer.body["hold_id"].as_str().unwrap_or_else(|| panic!("no hold: {}", answer.body)).to_owned()
}

async fn settle(world: &World, id: &str, how: &str, body: Value) -> Answer {
    world.admin("POST", &format!("/api/v1/holds/{id}/{how}"), body).await
}

/// Used and held of the day's limit.
async fn stands(world: &World) -> (i64, i64) {
    let usage = world.get("/api/v1/tenants/acme/usage").await.body;
    let meters = usage["meters"].as_array().unwrap();
    let limit = &meters.iter().find(|meter| meter["meter"] == "messages").unwrap()["limits"][0];
    (limit["used"].as_i64().unwrap(), limit["held"].as_i64().unwrap())
}

#[tokio::test]
async fn what_is_held_is_nobody_elses_and_settled_with_what_the_work_took() {
    let world = World::with_tenants().await;
    let taken = hold(&world, json!({ "id": "work" })).await;
    let id = id_of(&taken);
    assert!(id.starts_with("hold_") && id.ends_with("_61636d65"), "{id}");
    insta::assert_json_snapshot!(taken.body);
    assert_eq!(hold(&world, json!({})).await.body["code"], "period_limit_reached");
    let settled = settle(&world, &id, "commit", json!({ "amount": 2 })).await;
    assert_eq!(settled.status, 200);
    insta::assert_json_snapshot!(settled.body);
    assert_eq!(settled.body["hold_id"], id.as_str());
    assert_eq!(stands(&world).await, (2, 0));
}

#[tokio::test]
async fn a_refused_hold_holds_nothing_and_has_no_id() {
    let world = World::with_tenants().await;
    let refused = hold(&world, json!({ "amount": 6, "id": "work" })).await;
    assert_eq!((refused.status, &refused.body["allowed"]), (200, &json!(false)));
    assert!(refused.body.get("hold_id").is_none() && refused.body.get("expires_at").is_none(), "{}", refused.body);
    assert!(refused.body["denial_id"].is_string());
    // And its id is not bound.
    id_of(&hold(&world, json!({ "amount": 1, "id": "work" })).await);
}

#[tokio::test]
async fn the_same_again_is_a_repeat_and_anything_else_a_conflict() {
    let world = World::with_tenants().await;
    let first = hold(&world, json!({ "id": "work" })).await;
    world.time.advance(10_000);
    let again = hold(&world, json!({ "id": "work" })).await;
    assert_eq!((id_of(&first), &first.body["expires_at"]), (id_of(&again), &again.body["expires_at"]));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(stands(&world).await, (0, 3));
    for other in [
        json!({ "amount": 2 }),
        json!({ "hold": { "ttl": "61s" } }),
        json!({ "hold": { "ttl": "60s", "excess": "room" } }),
        json!({ "hold": null, "consume": true }),
    ] {
        let mut other = other;
        other["id"] = json!("work");
        assert_eq!(hold(&world, other.clone()).await.problem(), (409, "idempotency_conflict"), "{other}");
    }

    let id = id_of(&first);
    let other = id_of(&hold(&world, json!({ "amount": 1 })).await);
    for (id, body) in [(&id, json!({ "amount": 1 })), (&other, json!({ "charges": [] }))] {
        let settled = settle(&world, id, "commit", body.clone()).await;
        assert!(settled.body.get("repeated").is_none() && !settled.headers.contains_key("idempotent-replayed"));
        let again = settle(&world, id, "commit", body).await;
        assert_eq!((again.status, &again.body["repeated"]), (200, &json!(true)));
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.body["limits"], settled.body["limits"], "a repeat has current numbers");
        let more = settle(&world, id, "commit", json!({ "amount": 2 })).await;
        assert_eq!(more.problem(), (409, "hold_settled"));
        assert_eq!(settle(&world, id, "release", Value::Null).await.problem(), (409, "hold_settled"));
    }
    assert_eq!(stands(&world).await, (2, 0));
    // The hold's own id still says what it was.
    let late = hold(&world, json!({ "id": "work" })).await;
    assert_eq!((id_of(&late), late.body.get("expires_at")), (id, None));
}

#[tokio::test]
async fn released_it_is_as_if_it_had_never_been() {
    let world = World::with_tenants().await;
    let id = id_of(&hold(&world, json!({})).await);
    let released = settle(&world, &id, "release", Value::Null).await;
    assert_eq!((released.status, &released.body["status"]), (200, &json!("released")));
    assert_eq!(settle(&world, &id, "release", json!({})).await.body["repeated"], true);
    assert_eq!(settle(&world, &id, "commit", Value::Null).await.problem(), (409, "hold_settled"));
    assert_eq!(stands(&world).await, (0, 0));
}

#[tokio::test]
async fn more_than_was_held_is_taken_as_the_hold_says() {
    let world = World::with_tenants().await;
    let with = |excess: &str| json!({ "amount": 1, "hold": { "ttl": "60s", "excess": excess } });
    let refuse = id_of(&hold(&world, with("refuse")).await);
    assert_eq!(settle(&world, &refuse, "commit", json!({ "amount": 2 })).await.problem(), (409, "hold_exceeded"));
    // What was refused left it as it was.
    assert_eq!(settle(&world, &refuse, "commit", json!({ "amount": 1 })).await.status, 200);
    let room = id_of(&hold(&world, with("room")).await);
    assert_eq!(settle(&world, &room, "commit", json!({ "amount": 5 })).await.problem(), (409, "hold_exceeded"));
    assert_eq!(settle(&world, &room, "commit", json!({ "amount": 4 })).await.status, 200);
    assert_eq!(stands(&world).await, (5, 0));
    world.time.advance(86_400_000);
    let overage = id_of(&hold(&world, with("overage")).await);
    let settled = settle(&world, &overage, "commit", json!({ "amount": 50 })).await;
    assert_eq!((&settled.body["limits"][0]["used"], &settled.body["limits"][0]["percent"]), (&json!(50), &json!(1000)));
}

#[tokio::test]
async fn a_hold_on_several_meters_is_settled_by_meter() {
    let world = World::with_tenants().await;
    let body = json!({ "tenant_id": "acme", "hold": { "ttl": "1h" }, "user_id": "ada", "charges": [
        { "meter": "messages", "amount": 2 }, { "meter": "documents", "amount": 4 },
    ] });
    let id = id_of(&world.check(body).await);
    let problem = settle(&world, &id, "commit", json!({ "amount": 1 })).await;
    assert_eq!(problem.problem(), (422, "invalid_body"));
    let charges = json!({ "charges": [{ "meter": "documents", "amount": 1 }] });
    let settled = settle(&world, &id, "commit", charges).await;
    let numbers: Vec<_> = settled.body["limits"].as_array().unwrap().iter().map(|limit| &limit["used"]).collect();
    assert_eq!(numbers, [2, 2, 1]);
    assert_eq!((world.used("acme", "messages").await.0, world.used("acme", "documents").await.0), (2, 1));
}

#[tokio::test]
async fn what_nobody_settles_lapses_and_may_be_told_for_a_day() {
    let world = World::with_tenants().await;
    let (late, too_late) = (hold(&world, json!({ "amount": 2 })).await, hold(&world, json!({ "amount": 2 })).await);
    assert_eq!(late.body["expires_at"], "2026-03-10T12:01:00Z");
    world.time.advance(59_999);
    assert_eq!(stands(&world).await, (0, 4));
    world.time.advance(1);
    assert_eq!(stands(&world).await, (0, 0));
    world.engine.upkeep().await.unwrap();
    assert_eq!(stands(&world).await, (0, 0));
    world.time.advance(3_600_000);
    assert_eq!(settle(&world, &id_of(&late), "commit", Value::Null).await.status, 200);
    assert_eq!(stands(&world).await, (2, 0));
    world.time.advance(86_400_000);
    world.engine.upkeep().await.unwrap();
    assert_eq!(settle(&world, &id_of(&too_late), "commit", Value::Null).await.problem(), (404, "unknown_hold"));
    assert_eq!(world.used("acme", "messages").await.0, 2);
}

#[tokio::test]
async fn ids_that_name_no_hold_are_unknown() {
    let world = World::with_tenants().await;
    let id = id_of(&hold(&world, json!({})).await);
    let (number, of_globex) = (&id[5..37], "676c6f626578");
    for wrong in [
        "acme".to_owned(),
        "hold_".to_owned(),
        id.to_uppercase(),
        id.replace("hold_", "ses_"),
        id[..id.len() - 1].to_owned(),
        format!("{id}00"),
        format!("hold_{number}_{of_globex}"),
        format!("hold_{number}_6e6f626f6479"),
        format!("hold_{}_61636d65", "f".repeat(32)),
        format!("hold_{}_61636d65", "0".repeat(33)),
        "x".repeat(5_000),
        "%F0%9F%8C%8A".to_owned(),
    ] {
        for how in ["commit", "release"] {
            for body in [Value::Null, json!({})] {
                assert_eq!(settle(&world, &wrong, how, body).await.problem(), (404, "unknown_hold"), "{wrong}");
            }
        }
        let amount = settle(&world, &wrong, "commit", json!({ "amount": 1 })).await;
        assert_eq!(amount.problem(), (404, "unknown_hold"), "{wrong}");
    }
    assert_eq!(settle(&world, "%ff", "release", Value::Null).await.problem(), (400, "invalid_request"));
    assert_eq!(stands(&world).await, (0, 3));
}

#[tokio::test]
async fn what_can_not_be_held_or_settled_so_is_refused() {
    let world = World::with_tenants().await;
    for (extra, expected) in [
        (json!({ "hold": { "ttl": "25h" } }), (422, "invalid_hold")),
        (json!({ "hold": { "ttl": "99999999999d" } }), (422, "invalid_body")),
        (json!({ "hold": { "ttl": "" } }), (422, "invalid_body")),
        (json!({ "hold": { "ttl": 60 } }), (422, "invalid_body")),
        (json!({ "hold": {} }), (422, "invalid_body")),
        (json!({ "hold": true }), (422, "invalid_body")),
        (json!({ "hold": { "ttl": "60s", "more": 1 } }), (422, "invalid_body")),
        (json!({ "hold": { "ttl": "60s", "excess": "x".repeat(10_000) } }), (422, "invalid_body")),
        (json!({ "amount": 0 }), (422, "nothing_asked")),
        (json!({ "amount": -1 }), (422, "negative_amount")),
    ] {
        let answer = hold(&world, extra.clone()).await;
        assert_eq!(answer.problem(), expected, "{}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().len() < 500);
    }
    let features = json!({ "tenant_id": "globex", "feature": "analytics", "hold": { "ttl": "60s" } });
    assert_eq!(world.check(features).await.problem(), (422, "nothing_asked"));

    let id = id_of(&hold(&world, json!({})).await);
    let many: Vec<_> = (0..33).map(|_| json!({ "meter": "messages", "amount": 1 })).collect();
    for (body, expected) in [
        (json!({ "amount": -1 }), (422, "negative_amount")),
        (json!({ "amount": 1.5 }), (422, "invalid_body")),
        (json!({ "amount": 9_007_199_254_740_992i64 }), (422, "invalid_body")),
        (json!({ "amount": 1, "charges": [{ "meter": "messages", "amount": 1 }] }), (422, "invalid_body")),
        (json!({ "charges": [{ "meter": "documents", "amount": 1 }] }), (422, "not_held")),
        (json!({ "charges": [{ "meter": "no such", "amount": 1 }] }), (422, "invalid_body")),
        (json!({ "charges": [{ "meter": "messages" }] }), (422, "invalid_body")),
        (json!({ "charges": many }), (422, "invalid_body")),
        (json!({ "took": 1 }), (422, "invalid_body")),
        (json!([]), (422, "invalid_body")),
    ] {
        let answer = settle(&world, &id, "commit", body.clone()).await;
        // An array too: it could be read as an object without members, which commits what was held.
        assert_eq!(answer.problem(), expected, "{body}: {}", answer.body);
    }
    assert_eq!(settle(&world, &id, "release", json!({ "amount": 1 })).await.problem(), (422, "invalid_body"));
    let path = format!("/api/v1/holds/{id}/commit");
    assert_eq!(world.post_bytes(&path, "text/plain", "{}").await.problem(), (415, "unsupported_media_type"));
    let large = format!("{{\"amount\":{}1}}", " ".repeat(300_000));
    assert_eq!(world.post_bytes(&path, "application/json", large).await.problem(), (413, "payload_too_large"));
    assert_eq!(world.post_bytes(&path, "application/json", "{").await.problem(), (400, "malformed_json"));
    assert_eq!(stands(&world).await, (0, 3));
}

#[tokio::test]
async fn a_tenants_own_key_neither_holds_nor_settles() {
    let world = World::with_tenants().await;
    let id = id_of(&hold(&world, json!({})).await);
    let body = json!({ "tenant_id": "acme", "meter": "messages", "hold": { "ttl": "60s" } });
    for tenant in ["acme", "globex"] {
        let key = world.key("tenant", Some(tenant)).await;
        let expected = if tenant == "acme" { (403, "forbidden") } else { (404, "unknown_tenant") };
        assert_eq!(world.with_key(&key, "POST", "/api/v1/check", body.clone()).await.problem(), expected);
        for how in ["commit", "release"] {
            let answer = world.with_key(&key, "POST", &format!("/api/v1/holds/{id}/{how}"), Value::Null).await;
            assert_eq!(answer.problem(), (403, "forbidden"));
        }
    }
    assert_eq!(stands(&world).await, (0, 3));
}

#[tokio::test]
async fn many_at_once_hold_exactly_what_there_is_and_settle_once() {
    let world = std::sync::Arc::new(World::with_tenants().await);
    let override_ = json!({ "meter": "messages", "window": "day", "max": 40 });
    world.admin("PUT", "/api/v1/tenants/acme/overrides", override_).await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                let answer = hold(&world, json!({})).await;
                let Some(id) = answer.body["hold_id"].as_str() else { return 0 };
                let (one, other) =
                    tokio::join!(settle(&world, id, "commit", Value::Null), settle(&world, id, "release", Value::Null));
                assert_eq!(one.status.min(other.status), 200, "{} {}", one.body, other.body);
                assert_eq!(one.status.max(other.status), 409, "{} {}", one.body, other.body);
                if one.status == 200 { 3 } else { 0 }
            })
        })
        .collect();
    let mut used = 0;
    for task in tasks {
        used += task.await.unwrap();
    }
    assert_eq!(stands(&world).await, (used, 0));
    assert!(used <= 40);
}

/// Another catalog: the newest, with something else in the place of `from`.
pub async fn reprice(world: &World, from: &str, to: &str) {
    let newest = world.get("/api/v1/catalogs").await.body["items"][0]["version"].as_i64().unwrap();
    let text = world.get(&format!("/api/v1/catalogs/{newest}")).await.body["text"].as_str().unwrap().replace(from, to);
    let applied = world.post_bytes("/api/v1/catalogs", "application/toml", text).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
}

fn cost(mode: &str) -> Value {
    json!({ "table": "request", "properties": { "mode": mode, "tool": "general" } })
}

#[tokio::test]
async fn a_price_that_changes_makes_no_other_payload_of_a_repeat() {
    let world = World::with_tenants().await;
    let asked = json!({ "tenant_id": "acme", "cost": cost("analyst"), "consume": true, "id": "call-1" });
    let held = json!({ "tenant_id": "acme", "cost": cost("analyst"), "hold": { "ttl": "60s" }, "id": "call-2" });
    let (first, taken) = (world.check(asked.clone()).await, world.check(held.clone()).await);
    assert_eq!((&first.body["amount"], &taken.body["amount"]), (&json!(22), &json!(22)));
    reprice(&world, "analyst = 20", "analyst = 30").await;
    for (asked, before) in [(asked, first), (held, taken)] {
        let again = world.check(asked.clone()).await;
        assert_eq!((again.status, &again.headers["idempotent-replayed"]), (200, &"true".parse().unwrap()));
        let members = ["amount", "allowed", "meter", "hold_id"];
        members.iter().for_each(|member| assert_eq!(again.body[member], before.body[member], "{member}"));
        let mut other = asked.clone();
        other["cost"] = cost("none");
        assert_eq!(world.check(other).await.problem(), (409, "idempotency_conflict"));
    }
    assert_eq!(world.used("acme", "tokens").await.0, 22);
    let fresh = json!({ "tenant_id": "acme", "cost": cost("analyst"), "consume": true, "id": "call-3" });
    assert_eq!(world.check(fresh).await.body["amount"], 32);
}

#[tokio::test]
async fn what_has_no_price_any_more_is_repeated_all_the_same() {
    for (from, to) in [("analyst = 20, ", ""), ("costs.request", "costs.gone"), ("base = 1", "base = 9007199254740991")]
    {
        let world = World::with_tenants().await;
        let asked = json!({ "tenant_id": "acme", "cost": cost("analyst"), "consume": true, "id": "call-1",
            "charges": [{ "meter": "tokens", "amount": 5 }, { "meter": "messages" }], "user_id": "ada" });
        let held = json!({ "tenant_id": "acme", "cost": cost("analyst"), "hold": { "ttl": "60s" }, "id": "call-2" });
        let settled = json!({ "cost": cost("analyst"), "charges": [] });
        let (first, taken) = (world.check(asked.clone()).await, world.check(held.clone()).await);
        let id = id_of(&taken);
        let open = id_of(
            &world.check(json!({ "tenant_id": "acme", "cost": cost("analyst"), "hold": { "ttl": "60s" } })).await,
        );
        assert_eq!(settle(&world, &id, "commit", settled.clone()).await.status, 200);
        let used = world.used("acme", "tokens").await;
        reprice(&world, from, to).await;
        for (asked, before) in [(asked, first), (held, taken)] {
            let again = world.check(asked.clone()).await;
            assert_eq!(
                (again.status, again.headers.get("idempotent-replayed")),
                (200, Some(&"true".parse().unwrap())),
                "{}",
                again.body
            );
            let members = ["allowed", "code", "meter", "amount", "plan", "hold_id"];
            members.iter().for_each(|member| assert_eq!(again.body[member], before.body[member], "{member}"));
            // Another payload under the id, or the same without one.
            for (member, other) in [("cost", cost("none")), ("user_id", json!("bo")), ("id", json!("call-3"))] {
                let mut asked = asked.clone();
                asked[member] = other;
                let expected = if member == "id" { 422 } else { 409 };
                assert_eq!(world.check(asked.clone()).await.status, expected, "{asked}");
            }
        }
        let again = settle(&world, &id, "commit", settled.clone()).await;
        assert_eq!(
            (again.status, &again.body["repeated"], &again.body["status"]),
            (200, &json!(true), &json!("committed"))
        );
        assert_eq!(settle(&world, &open, "commit", settled).await.status, 422, "it was not settled before");
        assert_eq!(world.used("acme", "tokens").await, used);
        // A tenant's own key charges nothing, again or not.
        let key = world.key("tenant", Some("acme")).await;
        let own = json!({ "tenant_id": "acme", "cost": cost("analyst"), "consume": true, "id": "call-1" });
        assert_eq!(world.with_key(&key, "POST", "/api/v1/check", own).await.status, 422);
    }
}

#[tokio::test]
async fn work_may_be_committed_by_a_price_list() {
    let world = World::with_tenants().await;
    let held = json!({ "tenant_id": "acme", "meter": "tokens", "amount": 50, "hold": { "ttl": "60s" } });
    let id = id_of(&world.check(held).await);
    for (body, code) in [
        (json!({ "cost": cost("analyst"), "amount": 3 }), "invalid_body"),
        (json!({ "cost": cost("unheard of") }), "unknown_price"),
        (json!({ "cost": { "table": "nothing" } }), "unknown_cost"),
    ] {
        assert_eq!(settle(&world, &id, "commit", body.clone()).await.problem(), (422, code), "{body}");
    }
    let settled = settle(&world, &id, "commit", json!({ "cost": cost("analyst") })).await;
    assert_eq!(settled.status, 200, "{}", settled.body);
    assert_eq!(world.used("acme", "tokens").await.0, 22);
    reprice(&world, "analyst = 20", "analyst = 30").await;
    let again = settle(&world, &id, "commit", json!({ "cost": cost("analyst") })).await;
    assert_eq!((again.status, &again.headers["idempotent-replayed"]), (200, &"true".parse().unwrap()));
    assert_eq!(settle(&world, &id, "commit", json!({ "cost": cost("none") })).await.problem(), (409, "hold_settled"));
    let on_messages = id_of(&hold(&world, json!({})).await);
    let other = settle(&world, &on_messages, "commit", json!({ "cost": cost("none") })).await;
    assert_eq!(other.problem().0, 422, "what is not held can't be committed");
}
