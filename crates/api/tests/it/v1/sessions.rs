//! `/api/v1/sessions`: opened, touched, closed, listed; idle, at limits, by force.

use crate::world::{Answer, World};
use api::TestClock;
use serde_json::{Value, json};

const MINUTE_MS: i64 = 60_000;

async fn open(world: &World, extra: Value) -> Answer {
    let mut body = json!({ "tenant_id": "acme", "meter": "conversation_time" });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    world.admin("POST", "/api/v1/sessions", body).await
}

async fn opened(world: &World, key: &str) -> String {
    id_of(&open(world, json!({ "key": key })).await)
}

fn id_of(answer: &Answer) -> String {
    answer.body["session_id"].as_str().unwrap_or_else(|| panic!("no session: {}", answer.body)).to_owned()
}

async fn go_on(world: &World, id: &str, how: &str, body: Value) -> Answer {
    world.admin("POST", &format!("/api/v1/sessions/{id}/{how}"), body).await
}

async fn touch(world: &World, id: &str) -> Answer {
    go_on(world, id, "touch", Value::Null).await
}

async fn close(world: &World, id: &str) -> Answer {
    go_on(world, id, "close", Value::Null).await
}

async fn list(world: &World) -> Vec<Value> {
    let answer = world.get("/api/v1/tenants/acme/sessions").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["items"].as_array().unwrap().clone()
}

async fn time_used(world: &World) -> i64 {
    world.used("acme", "conversation_time").await.0
}

#[tokio::test]
async fn a_session_is_opened_touched_and_closed() {
    let world = World::with_tenants().await;
    let first = open(&world, json!({ "id": "talk", "key": "conversation-1", "user_id": "ada" })).await;
    insta::assert_json_snapshot!("opened", first.body);
    let id = id_of(&first);
    assert!(id.starts_with("ses_") && id.ends_with("_61636d65"), "{id}");
    world.time.advance(30_500);
    insta::assert_json_snapshot!("touched", touch(&world, &id).await.body);
    insta::assert_json_snapshot!("listed", list(&world).await);
    world.time.advance(1_000);
    insta::assert_json_snapshot!("closed", close(&world, &id).await.body);
    assert_eq!(list(&world).await, Vec::<Value>::new());
    assert_eq!(time_used(&world).await, 31_500);
    assert_eq!(world.used("acme", "conversations").await.0, 1);
}

#[tokio::test]
async fn the_same_key_is_the_same_session_until_it_is_idle() {
    let world = World::with_tenants().await;
    let id = opened(&world, "a").await;
    world.time.advance(10_000);
    let again = open(&world, json!({ "key": "a" })).await;
    assert_eq!((id_of(&again), &again.body["accrued_ms"]), (id.clone(), &json!(10_000)));
    assert_ne!(id_of(&open(&world, json!({ "key": "a", "user_id": "ada" })).await), id);
    world.time.advance(5 * MINUTE_MS);
    let next = opened(&world, "a").await;
    assert_ne!(next, id);
    assert_eq!(touch(&world, &id).await.problem(), (409, "session_closed"));
    // What ran until the last touch is charged, and the silence is not.
    assert_eq!(time_used(&world).await, 10_000);
}

#[tokio::test]
async fn a_repeat_under_an_id_is_the_session_that_it_opened() {
    let world = World::with_tenants().await;
    let first = open(&world, json!({ "id": "once", "key": "a" })).await;
    let again = open(&world, json!({ "id": "once", "key": "a" })).await;
    assert_eq!((id_of(&first), &again.headers["idempotent-replayed"]), (id_of(&again), &"true".parse().unwrap()));
    assert_eq!(again.body["status"], "open");
    assert_eq!(open(&world, json!({ "id": "once", "key": "b" })).await.problem(), (409, "idempotency_conflict"));
    assert_eq!(world.used("acme", "conversations").await.0, 1);
    world.time.advance(7_000);
    close(&world, &id_of(&first)).await;
    let late = open(&world, json!({ "id": "once", "key": "a" })).await.body;
    assert_eq!(
        (&late["status"], &late["reason"], &late["accrued_ms"]),
        (&json!("closed"), &json!("closed"), &json!(7_000))
    );
    assert_eq!(world.used("acme", "conversations").await.0, 1);
    // Ended by itself, whether that is written down or not.
    open(&world, json!({ "id": "other" })).await;
    world.time.advance(5 * MINUTE_MS);
    for _ in 0..2 {
        let idle = open(&world, json!({ "id": "other" })).await.body;
        assert_eq!((&idle["status"], &idle["reason"]), (&json!("closed"), &json!("idle")));
        world.engine.upkeep().await.unwrap();
    }
}

#[tokio::test]
async fn an_id_is_bound_to_the_session_that_was_open_already() {
    let world = World::with_tenants().await;
    let id = opened(&world, "a").await;
    world.time.advance(5_000);
    let first = open(&world, json!({ "id": "second-request", "key": "a" })).await;
    assert_eq!((id_of(&first), &first.body["accrued_ms"]), (id.clone(), &json!(5_000)));
    assert!(!first.headers.contains_key("idempotent-replayed"));
    world.time.advance(5_000);
    let again = open(&world, json!({ "id": "second-request", "key": "a" })).await;
    assert_eq!((id_of(&again), &again.headers["idempotent-replayed"]), (id.clone(), &"true".parse().unwrap()));
    assert_eq!(again.body["accrued_ms"], 5_000, "a repeat touches nothing");
    assert_eq!(open(&world, json!({ "id": "second-request", "key": "b" })).await.problem().1, "idempotency_conflict");
    close(&world, &id).await;
    let late = open(&world, json!({ "id": "second-request", "key": "a" })).await;
    assert_eq!((id_of(&late), &late.body["status"]), (id, &json!("closed")), "and opens none");
    assert_eq!(world.used("acme", "conversations").await.0, 1);
}

#[tokio::test]
async fn a_repeat_makes_no_time_free() {
    let world = World::with_tenants().await;
    let first = open(&world, json!({ "id": "once", "key": "a" })).await;
    world.time.advance(20_000);
    let again = open(&world, json!({ "id": "once", "key": "a" })).await;
    assert_eq!((id_of(&again), &again.headers["idempotent-replayed"]), (id_of(&first), &"true".parse().unwrap()));
    assert_eq!(touch(&world, &id_of(&first)).await.body["accrued_ms"], 20_000);
    assert_eq!(time_used(&world).await, 20_000);
}

#[tokio::test]
async fn a_repeat_has_the_limits_as_they_are_now() {
    let world = World::with_tenants().await;
    let first = open(&world, json!({ "id": "once", "key": "a" })).await.body;
    let numbers = |answer: &Value| -> Vec<(String, i64)> {
        let limits = answer["limits"].as_array().unwrap().iter();
        limits.map(|one| (one["name"].as_str().unwrap().to_owned(), one["used"].as_i64().unwrap())).collect()
    };
    let again = open(&world, json!({ "id": "once", "key": "a" })).await.body;
    assert_eq!((numbers(&again), &again["may_run_ms"]), (numbers(&first), &first["may_run_ms"]));
    assert_eq!(again["limited_by"], first["limited_by"]);
    world.time.advance(20_000);
    touch(&world, &id_of(&open(&world, json!({ "key": "a" })).await)).await;
    let later = open(&world, json!({ "id": "once", "key": "a" })).await.body;
    let used = [
        ("conversation_time_period", 20_000),
        ("conversation_time_session", 20_000),
        ("conversation_time_concurrent", 1),
    ];
    assert_eq!(numbers(&later), used.map(|(name, used)| (name.to_owned(), used)));
    assert_eq!((&later["allowed"], &later["code"]), (&json!(true), &json!("allowed")));
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_place_for_the_dead() {
    let world = World::with_tenants().await;
    world.time.advance(60 * MINUTE_MS);
    world.engine.upkeep().await.unwrap();
    for key in ["a", "b", "c"] {
        opened(&world, key).await;
    }
    world.time.set_back(60 * MINUTE_MS);
    world.time.advance(4 * MINUTE_MS);
    world.engine.upkeep().await.unwrap();
    assert_eq!(open(&world, json!({ "key": "d" })).await.body["code"], "concurrency_limit_reached");
    touch(&world, &id_of(&open(&world, json!({ "key": "a" })).await)).await;
    world.time.advance(2 * MINUTE_MS);
    world.engine.upkeep().await.unwrap();
    let left: Vec<_> = list(&world).await.iter().map(|one| one["key"].clone()).collect();
    assert_eq!(left, [json!("a")], "who was touched in time is there still");
    assert_eq!(open(&world, json!({ "key": "d" })).await.body["allowed"], true);
    assert_eq!(time_used(&world).await, 4 * MINUTE_MS);
}

#[tokio::test]
async fn a_catalog_without_the_meter_ends_what_is_open_when_it_is_touched() {
    let world = World::with_tenants().await;
    let (touched, closed) = (opened(&world, "a").await, opened(&world, "b").await);
    world.time.advance(10_000);
    let text = world.get("/api/v1/catalogs/1").await.body["text"].as_str().unwrap().to_owned();
    let lines = text.lines().filter(|line| !line.contains("meter = \"conversation_time\""));
    let text = lines.collect::<Vec<_>>().join("\n").replace("[meters.conversation_time]", "[meters.talk_time]");
    let text = text.replace("[[routes]]", "");
    let applied = world.post_bytes("/api/v1/catalogs", "application/toml", text).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    assert_eq!(touch(&world, &touched).await.problem(), (409, "session_closed"));
    let answer = close(&world, &closed).await.body;
    assert_eq!(
        (&answer["status"], &answer["reason"], &answer["accrued_ms"]),
        (&json!("closed"), &json!("forced"), &json!(10_000))
    );
    assert_eq!(list(&world).await, Vec::<Value>::new());
}

#[tokio::test]
async fn one_that_ended_is_closed_again_but_not_touched() {
    let world = World::with_tenants().await;
    let id = opened(&world, "a").await;
    world.time.advance(2_000);
    let closed = close(&world, &id).await;
    assert!(!closed.headers.contains_key("idempotent-replayed"));
    world.time.advance(2_000);
    let again = close(&world, &id).await;
    assert_eq!((again.status, &again.headers["idempotent-replayed"]), (200, &"true".parse().unwrap()));
    for member in ["session_id", "status", "reason", "accrued_ms", "opened_at", "ended_at", "key"] {
        assert_eq!(again.body[member], closed.body[member], "{member}");
    }
    let touched = touch(&world, &id).await;
    assert_eq!(touched.problem(), (409, "session_closed"));
    insta::assert_json_snapshot!(touched.body["detail"]);
    assert_eq!((&touched.body["reason"], &touched.body["accrued_ms"]), (&json!("closed"), &json!(2_000)));
    assert_eq!(time_used(&world).await, 2_000);
}

#[tokio::test]
async fn one_that_nobody_touched_ended_at_its_last_touch() {
    let world = World::with_tenants().await;
    let (touched, closed, swept) = (opened(&world, "a").await, opened(&world, "b").await, opened(&world, "c").await);
    world.time.advance(5 * MINUTE_MS);
    assert_eq!(list(&world).await, Vec::<Value>::new());
    let problem = touch(&world, &touched).await;
    assert_eq!((problem.problem(), &problem.body["reason"]), ((409, "session_closed"), &json!("idle")));
    assert_eq!(problem.body["ended_at"], "2026-03-10T12:00:00Z");
    assert_eq!(touch(&world, &touched).await.body, problem.body);
    let end = close(&world, &closed).await;
    assert_eq!(
        (end.status, &end.body["reason"], &end.body["ended_at"]),
        (200, &json!("idle"), &problem.body["ended_at"])
    );
    world.engine.upkeep().await.unwrap();
    assert_eq!(touch(&world, &swept).await.body["reason"], "idle");
    assert_eq!(time_used(&world).await, 0);
}

#[tokio::test]
async fn one_that_another_stretch_of_its_name_replaced_has_ended() {
    for set_back_ms in [0, 60 * MINUTE_MS] {
        let world = World::with_tenants().await;
        let first = opened(&world, "a").await;
        world.time.advance(10_000);
        assert_eq!(touch(&world, &first).await.status, 200);
        // By the clock on the wall it is not idle, by the one that does not jump it is.
        world.time.set_back(set_back_ms);
        world.time.advance(5 * MINUTE_MS);
        let next = opened(&world, "a").await;
        assert_ne!(next, first);
        let problem = touch(&world, &first).await;
        assert_eq!((problem.problem(), &problem.body["reason"]), ((409, "session_closed"), &json!("idle")));
        let end = close(&world, &first).await;
        assert_eq!((end.status, &end.headers["idempotent-replayed"]), (200, &"true".parse().unwrap()), "{}", end.body);
        assert_eq!((&end.body["reason"], &end.body["accrued_ms"]), (&json!("idle"), &json!(10_000)));
        assert_eq!(touch(&world, &next).await.status, 200);
        assert_eq!((list(&world).await.len(), time_used(&world).await), (1, 10_000));
    }
}

#[tokio::test]
async fn the_limit_on_one_session_ends_it_and_another_may_follow() {
    let world = World::with_tenants().await;
    let id = id_of(&open(&world, json!({ "key": "a", "id": "long" })).await);
    let mut may_run = Vec::new();
    for _ in 0..7 {
        world.time.advance(4 * MINUTE_MS + 500);
        let answer = touch(&world, &id).await.body;
        may_run.push((answer["may_run_s"].as_i64().unwrap(), answer["limited_by"].clone()));
        assert_eq!(answer["may_run_ms"].as_i64().unwrap() / 1_000, answer["may_run_s"].as_i64().unwrap());
    }
    // Rounded down, so that nobody is promised a second that is not there.
    assert_eq!(may_run[0], (1_559, json!("conversation_time_session")));
    assert_eq!(may_run[6], (116, json!("conversation_time_session")));
    world.time.advance(4 * MINUTE_MS);
    let over = touch(&world, &id).await;
    insta::assert_json_snapshot!("ended_by_its_limit", over.body);
    assert_eq!(touch(&world, &id).await.problem(), (409, "session_closed"));
    assert_eq!(touch(&world, &id).await.body["reason"], "limit");
    assert_eq!(time_used(&world).await, 30 * MINUTE_MS);
    assert_eq!(open(&world, json!({ "key": "a" })).await.body["may_run_s"], 1_800);
}

#[tokio::test]
async fn where_the_plan_lets_answers_finish_so_much_is_overage_and_the_next_is_refused() {
    let world = World::with_tenants().await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "hidden" })).await;
    let id = opened(&world, "a").await;
    world.time.advance(MINUTE_MS);
    let finishing = touch(&world, &id).await.body;
    assert_eq!((&finishing["status"], &finishing["allowed"]), (&json!("finishing"), &json!(true)));
    assert_eq!((&finishing["may_run_s"], &finishing["limited_by"]), (&json!(30), &Value::Null));
    assert_eq!(list(&world).await[0]["status"], "finishing");
    let next = open(&world, json!({ "key": "a" })).await.body;
    assert_eq!((&next["allowed"], &next["code"]), (&json!(false), &json!("session_limit_reached")));
    assert_eq!((&next["session_id"], &next["status"]), (&json!(id), &json!("finishing")));
    world.time.advance(20_500);
    let touched = touch(&world, &id).await.body;
    assert_eq!((&touched["overage_ms"], &touched["may_run_s"]), (&json!(20_500), &json!(9)));
    world.time.advance(MINUTE_MS);
    let over = touch(&world, &id).await.body;
    assert_eq!(
        (&over["status"], &over["reason"], &over["allowed"]),
        (&json!("closed"), &json!("limit"), &json!(false))
    );
    assert_eq!((&over["overage_ms"], &over["accrued_ms"]), (&json!(30_000), &json!(90_000)));
    assert_eq!(time_used(&world).await, 90_000);
}

#[tokio::test]
async fn observing_refuses_no_session_and_says_what_it_would_have() {
    let world = World::with_tenants().await;
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "enforce": "observe" })).await;
    for key in ["a", "b", "c"] {
        opened(&world, key).await;
    }
    let fourth = open(&world, json!({ "key": "d" })).await.body;
    assert_eq!((&fourth["allowed"], &fourth["may_run_s"]), (&json!(true), &Value::Null));
    assert_eq!(fourth["shadow"]["code"], "concurrency_limit_reached");
    assert!(fourth["session_id"].is_string() && fourth["denial_id"].is_string(), "{fourth}");
}

#[tokio::test]
async fn as_many_as_the_plan_says_are_open_at_once() {
    let world = std::sync::Arc::new(World::with_tenants().await);
    let racing: Vec<_> = (0..100)
        .map(|number| {
            let world = world.clone();
            tokio::spawn(async move { open(&world, json!({ "key": format!("s{number}") })).await })
        })
        .collect();
    let mut ids = Vec::new();
    let mut refused = Vec::new();
    for answer in racing {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200);
        match answer.body["session_id"].as_str() {
            Some(id) => ids.push(id.to_owned()),
            None => refused.push(answer),
        }
    }
    assert_eq!((ids.len(), refused.len(), list(&world).await.len()), (3, 97, 3));
    let refused = &refused[0].body;
    assert_eq!((&refused["allowed"], &refused["code"]), (&json!(false), &json!("concurrency_limit_reached")));
    assert_eq!(refused["denied_by"], "conversation_time_concurrent");
    // A count of sessions, not milliseconds.
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("Conversation time: 3 of 3 open at once, 1 more asked for"), "{message}");
    for absent in ["session_id", "status", "opened_at", "reason"] {
        assert!(refused.get(absent).is_none(), "{absent}");
    }
    assert!(refused["denial_id"].is_string() && refused["retry_after_s"].is_number(), "{refused}");
    close(&world, &ids[0]).await;
    opened(&world, "after").await;
    // Those that nobody touches free their slots by themselves.
    world.time.advance(5 * MINUTE_MS);
    for key in ["x", "y", "z"] {
        opened(&world, key).await;
    }
    assert_eq!(world.used("acme", "conversations").await.0, 7);
}

#[tokio::test]
async fn reading_is_never_refused_for_lack_of_quota() {
    let world = World::with_tenants().await;
    for key in ["a", "b", "c"] {
        opened(&world, key).await;
    }
    let spent = json!({ "meter": "conversation_time", "set": 3_600_000, "window": "period", "reason": "test" });
    assert_eq!(world.admin("POST", "/api/v1/tenants/acme/adjustments", spent).await.status, 204);
    assert_eq!(open(&world, json!({ "key": "d" })).await.body["allowed"], false);
    let key = world.key("tenant", Some("acme")).await;
    for path in [
        "/api/v1/tenants/acme",
        "/api/v1/tenants/acme/usage",
        "/api/v1/tenants/acme/sessions",
        "/api/v1/denials",
        "/api/organizations/acme/usage",
        "/api/v1/plans",
    ] {
        assert_eq!(world.with_key(&key, "GET", path, Value::Null).await.status, 200, "{path}");
    }
    // Nor is what ends: it gives time back.
    let id = list(&world).await[0]["session_id"].as_str().unwrap().to_owned();
    assert_eq!(close(&world, &id).await.status, 200);
}

#[tokio::test]
async fn an_administrator_may_end_any_session() {
    let world = World::with_tenants().await;
    let id = opened(&world, "a").await;
    let path = format!("/api/v1/sessions/{id}/close");
    for scope in ["ingest", "read"] {
        let key = world.key(scope, None).await;
        let answer = world.with_key(&key, "POST", &path, json!({ "force": true })).await;
        assert_eq!(answer.problem(), (403, "forbidden"), "{scope}");
    }
    assert_eq!(list(&world).await.len(), 1);
    assert_eq!(go_on(&world, &id, "close", json!({ "force": true })).await.body["reason"], "forced");
    let ingest = world.key("ingest", None).await;
    assert_eq!(world.with_key(&ingest, "POST", &path, json!({ "force": false })).await.body["reason"], "forced");
}

#[tokio::test]
async fn lists_are_pages_and_of_one_tenant() {
    let world = World::with_tenants().await;
    for key in ["a", "b", "c"] {
        opened(&world, key).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/tenants/acme/sessions?limit=2".to_owned();
    loop {
        let page = world.get(&path).await.body;
        seen.extend(page["items"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/tenants/acme/sessions?limit=2&cursor={cursor}");
    }
    seen.sort();
    assert_eq!(seen, ["a", "b", "c"]);
    assert_eq!(world.get("/api/v1/tenants/globex/sessions").await.body["items"], json!([]));
    assert_eq!(world.get("/api/v1/tenants/nobody/sessions").await.problem(), (404, "unknown_tenant"));
    for wrong in ["?limit=0", "?limit=501", "?cursor=AAAA", "?user=ada"] {
        let answer = world.get(&format!("/api/v1/tenants/acme/sessions{wrong}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{wrong}");
    }
}

#[tokio::test]
async fn what_can_not_be_opened_or_gone_on_with_is_refused() {
    let world = World::with_tenants().await;
    for (extra, expected) in [
        (json!({ "tenant_id": "nobody" }), (404, "unknown_tenant")),
        (json!({ "tenant_id": "a/b" }), (422, "invalid_body")),
        (json!({ "user_id": "" }), (422, "invalid_body")),
        (json!({ "meter": "nope" }), (422, "unknown_meter")),
        (json!({ "meter": "messages" }), (422, "not_a_duration")),
        (json!({ "key": "" }), (422, "invalid_body")),
        (json!({ "key": "x".repeat(201) }), (422, "invalid_body")),
        (json!({ "key": "a\nb" }), (422, "invalid_body")),
        (json!({ "id": "" }), (422, "invalid_body")),
        (json!({ "ran_ms": 5 }), (422, "invalid_body")),
        (json!({ "key": "x".repeat(300_000) }), (413, "payload_too_large")),
    ] {
        let answer = open(&world, extra).await;
        assert_eq!(answer.problem(), expected, "{}", answer.body);
    }
    let id = opened(&world, "a").await;
    let (number, other) = (&id[4..36], "f".repeat(32));
    for wrong in [
        "acme".to_owned(),
        id.to_uppercase(),
        id.replace("ses_", "hold_"),
        id[..id.len() - 2].to_owned(),
        format!("{id}_00"),
        format!("ses_{number}_676c6f626578"),
        format!("ses_{number}_6e6f626f6479"),
        format!("ses_{other}_61636d65"),
        "x".repeat(5_000),
    ] {
        assert_eq!(touch(&world, &wrong).await.problem(), (404, "unknown_session"), "{wrong}");
        assert_eq!(close(&world, &wrong).await.problem(), (404, "unknown_session"), "{wrong}");
    }
    for body in [json!([]), json!({ "force": 1 }), json!({ "reason": "idle" })] {
        assert_eq!(go_on(&world, &id, "close", body).await.problem(), (422, "invalid_body"));
    }
    assert_eq!(go_on(&world, &id, "touch", json!({ "ran_ms": 1 })).await.problem(), (422, "invalid_body"));
    assert_eq!(list(&world).await.len(), 1);
}

#[tokio::test]
async fn a_tenants_own_key_reads_its_sessions_and_changes_none() {
    let world = World::with_tenants().await;
    let id = opened(&world, "a").await;
    for tenant in ["acme", "globex"] {
        let key = world.key("tenant", Some(tenant)).await;
        for path in [format!("/api/v1/sessions/{id}/touch"), format!("/api/v1/sessions/{id}/close")] {
            assert_eq!(world.with_key(&key, "POST", &path, Value::Null).await.problem(), (403, "forbidden"));
        }
        let body = json!({ "tenant_id": tenant, "meter": "conversation_time" });
        assert_eq!(world.with_key(&key, "POST", "/api/v1/sessions", body).await.problem(), (403, "forbidden"));
        let own = world.with_key(&key, "GET", "/api/v1/tenants/acme/sessions", Value::Null).await;
        assert_eq!(own.status, if tenant == "acme" { 200 } else { 404 });
    }
    assert_eq!(list(&world).await.len(), 1);
}
