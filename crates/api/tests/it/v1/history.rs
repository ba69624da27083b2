//! `/api/v1/tenants/{id}/history`.

use crate::world::{World, event};
use engine::{Engine, HistoryKept};
use serde_json::{Value, json};

async fn fold(engine: &Engine) {
    while engine.fold_history(HistoryKept::default()).await.unwrap().more {}
}

async fn send(world: &World, id: &str, time: &str, value: i64, user: &str, model: &str) {
    let mut event = event(id, "messages", json!({ "value": value, "user_id": user, "model": model }));
    event["time"] = time.into();
    let answer = world.events("application/cloudevents+json", event).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
}

/// `start meter used`, one a line.
async fn lines(world: &World, query: &str) -> Vec<String> {
    let answer = world.get(&format!("/api/v1/tenants/acme/history?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let items = answer.body["items"].as_array().unwrap();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    items
        .iter()
        .map(|item| {
            let told = [&item["user_id"], &item["dimensions"]].into_iter().filter(|value| !value.is_null());
            let told: String = told.map(|value| format!(" {}", text(value))).collect();
            format!("{} {}{told} {}", text(&item["start"]), text(&item["meter"]), item["used"])
        })
        .collect()
}

/// The world's clock shows 2026-03-10T12:00Z, and clocks in Madrid are set ahead on the 29th.
async fn busy() -> World {
    let world = World::with_tenants().await;
    api::TestClock::advance(&*world.time, 20 * 86_400_000);
    send(&world, "a", "2026-03-28T22:59:59Z", 1, "ann", "small").await;
    send(&world, "b", "2026-03-28T23:00:00Z", 2, "ann", "large").await;
    send(&world, "c", "2026-03-29T21:59:00Z", 4, "bob", "small").await;
    send(&world, "d", "2026-03-29T22:00:00Z", 8, "bob", "strange").await;
    world.check(json!({ "tenant_id": "acme", "meter": "documents", "amount": 3, "consume": true })).await;
    world
}

#[tokio::test]
async fn a_day_of_a_zone_may_have_23_hours() {
    let world = busy().await;
    let madrid = "per=day&timezone=Europe/Madrid&from=2026-03-28&to=2026-03-30&meter=messages";
    let days =
        ["2026-03-27T23:00:00Z messages 1", "2026-03-28T23:00:00Z messages 6", "2026-03-29T22:00:00Z messages 8"];
    // Nothing is folded yet, then everything, then both.
    assert_eq!(lines(&world, madrid).await, days[..2]);
    assert_eq!(lines(&world, &madrid.replace("to=2026-03-30", "to=2026-03-31")).await, days);
    fold(&world.engine).await;
    assert_eq!(lines(&world, madrid).await, days[..2]);
    send(&world, "e", "2026-03-29T01:30:00Z", 16, "ann", "small").await;
    assert_eq!(lines(&world, madrid).await, [days[0], "2026-03-28T23:00:00Z messages 22"]);
    let hours = "per=hour&timezone=Europe/Madrid&from=2026-03-29&to=2026-03-30&meter=messages";
    assert_eq!(
        lines(&world, hours).await,
        ["2026-03-28T23:00:00Z messages 2", "2026-03-29T01:00:00Z messages 16", "2026-03-29T21:00:00Z messages 4"]
    );
    assert_eq!(
        lines(&world, "per=month&timezone=UTC&from=2026-03-01&meter=messages").await,
        ["2026-03-01T00:00:00Z messages 31"]
    );
}

#[tokio::test]
async fn users_and_dimensions_are_told_apart_and_what_named_none_is_what_is_left() {
    let world = busy().await;
    world.check(json!({ "tenant_id": "acme", "meter": "tokens", "amount": 5, "consume": true })).await;
    for _ in 0..2 {
        let day = "timezone=UTC&from=2026-03-28&to=2026-03-31";
        assert_eq!(
            lines(&world, &format!("{day}&group_by=user&meter=messages,tokens")).await,
            [
                "2026-03-28T00:00:00Z messages ann 3",
                "2026-03-28T00:00:00Z tokens ann 2",
                "2026-03-29T00:00:00Z messages bob 12",
                "2026-03-29T00:00:00Z tokens bob 2",
                "2026-03-30T00:00:00Z tokens 5",
            ]
        );
        assert_eq!(
            lines(&world, &format!("{day}&group_by=model,user&dimension=model:small&meter=messages")).await,
            [
                r#"2026-03-28T00:00:00Z messages ann {"model":"small"} 1"#,
                r#"2026-03-29T00:00:00Z messages bob {"model":"small"} 4"#,
            ]
        );
        assert_eq!(
            lines(&world, &format!("{day}&user_id=bob&group_by=model&meter=messages")).await,
            [
                r#"2026-03-29T00:00:00Z messages {"model":"other"} 8"#,
                r#"2026-03-29T00:00:00Z messages {"model":"small"} 4"#,
            ]
        );
        fold(&world.engine).await;
    }
}

#[tokio::test]
async fn gauges_are_shown_with_their_level_at_the_end_of_each_bucket() {
    let world = busy().await;
    fold(&world.engine).await;
    api::TestClock::advance(&*world.time, 2 * 86_400_000);
    world.check(json!({ "tenant_id": "acme", "meter": "documents", "amount": -1, "consume": true })).await;
    let days = "timezone=UTC&from=2026-03-29&meter=documents";
    for _ in 0..2 {
        assert_eq!(
            lines(&world, days).await,
            [
                "2026-03-29T00:00:00Z documents 0",
                "2026-03-30T00:00:00Z documents 3",
                "2026-03-31T00:00:00Z documents 3",
                "2026-04-01T00:00:00Z documents 2",
            ]
        );
        let hours = "per=hour&timezone=UTC&from=2026-03-30T11:30:00Z&to=2026-03-30T12:30:00Z&meter=documents";
        assert_eq!(
            lines(&world, hours).await,
            ["2026-03-30T11:00:00Z documents 0", "2026-03-30T12:00:00Z documents 3"]
        );
        fold(&world.engine).await;
    }
}

#[tokio::test]
async fn it_is_streamed_as_csv_and_as_lines() {
    let world = busy().await;
    let path = "/api/v1/tenants/acme/history?timezone=UTC&from=2026-03-28&to=2026-03-30&group_by=user&meter=messages";
    let csv = world.get(&format!("{path}&format=csv")).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(csv.headers["complete-until"], "2026-03-30T12:00:00Z");
    assert_eq!(
        csv.body.as_str().unwrap().lines().collect::<Vec<_>>(),
        [
            "start,end,meter,user_id,used,denied",
            "2026-03-28T00:00:00Z,2026-03-29T00:00:00Z,messages,ann,3,0",
            "2026-03-29T00:00:00Z,2026-03-30T00:00:00Z,messages,bob,12,0",
        ]
    );
    let lines = world.get(&format!("{path}&format=ndjson")).await;
    assert_eq!(lines.body.as_str().unwrap().lines().count(), 3);
    insta::assert_json_snapshot!(world.get(path).await.body);
}

#[tokio::test]
async fn what_is_not_kept_is_said_and_not_guessed() {
    let world = busy().await;
    fold(&world.engine).await;
    api::TestClock::advance(&*world.time, 10 * 86_400_000);
    fold(&world.engine).await;
    let get = async |query: &str| world.get(&format!("/api/v1/tenants/acme/history?{query}")).await;
    let answer = get("per=minute&from=2026-03-30T10:00:00Z&to=2026-03-30T12:00:00Z").await;
    assert_eq!(answer.problem(), (422, "history_not_kept"));
    assert_eq!(get("per=hour&from=2026-03-30").await.status, 200);
    assert_eq!(get("per=minute&from=2026-03-30").await.problem(), (422, "history_too_wide"));
    for query in [
        "per=period",
        "per=week",
        "from=yesterday",
        "from=2026-03-05&to=2026-03-04",
        "timezone=Europe/Atlantis",
        "dimension=model",
        "format=xml",
        "form=2026-03-05",
    ] {
        assert_eq!(get(query).await.problem(), (400, "invalid_request"), "{query}");
    }
    assert_eq!(get("group_by=colour").await.problem(), (422, "invalid_dimension"));
    assert_eq!(get("user_id=a/b").await.problem(), (422, "invalid_body"));
    let unknown = world.get("/api/v1/tenants/nobody/history").await;
    assert_eq!(unknown.problem(), (404, "unknown_tenant"));
}

#[tokio::test]
async fn a_tenant_sees_its_own_alone() {
    let world = busy().await;
    let key = world.key("tenant", Some("acme")).await;
    let get = async |tenant: &str| {
        world.with_key(&key, "GET", &format!("/api/v1/tenants/{tenant}/history"), Value::Null).await
    };
    assert_eq!(get("acme").await.status, 200);
    assert_eq!(get("globex").await.problem().0, 404);
}

#[tokio::test]
async fn what_was_used_before_there_was_a_ledger_is_brought_along() {
    let world = busy().await;
    let path = "/api/v1/tenants/acme/adjustments";
    let day = json!({ "meter": "messages", "add": 50, "on": "2026-01-05", "reason": "imported", "id": "one" });
    for _ in 0..2 {
        assert_eq!(world.admin("POST", path, day.clone()).await.status, 204);
    }
    assert_eq!(
        lines(&world, "timezone=UTC&from=2026-01-01&to=2026-02-01&meter=messages").await,
        ["2026-01-05T00:00:00Z messages 50"]
    );
    // It counts against no window that is open.
    assert_eq!(world.used("acme", "messages").await.0, 15);
    for wrong in [
        json!({ "meter": "messages", "set": 5, "on": "2026-01-05", "reason": "r" }),
        json!({ "meter": "messages", "add": 5, "on": "2026-01-05", "window": "day", "reason": "r" }),
        json!({ "meter": "messages", "add": 5, "on": "2026-02-30", "reason": "r" }),
        json!({ "meter": "messages", "add": 5, "on": "2026-05-01", "reason": "r" }),
        json!({ "meter": "documents", "add": 5, "on": "2026-01-05", "reason": "r" }),
    ] {
        assert_eq!(world.admin("POST", path, wrong).await.problem().0, 422);
    }
}

#[tokio::test]
async fn who_names_no_beginning_is_answered_from_where_history_is_whole() {
    let world = busy().await;
    let day_ms = 86_400_000;
    let kept = HistoryKept { minutes_ms: day_ms, quarters_ms: 2 * day_ms, days_ms: 400 * day_ms };
    while world.engine.fold_history(kept).await.unwrap().more {}
    let madrid = "per=day&timezone=Europe/Madrid&meter=messages";
    // Quarters are kept from noon of the 28th on.
    assert_eq!(lines(&world, madrid).await, ["2026-03-28T23:00:00Z messages 6", "2026-03-29T22:00:00Z messages 8"]);
    for named in ["&from=2026-03-28", "&to=2026-03-27"] {
        let answer = world.get(&format!("/api/v1/tenants/acme/history?{madrid}{named}")).await;
        assert_eq!(answer.problem(), (422, "history_not_kept"), "{named}");
    }
}
