//! `/api/v1/tenants/{id}/warnings`. The plan of these tests allows five messages a day, three to each user, and one user.

use crate::world::World;
use api::TestClock;
use serde_json::{Value, json};

const WARNINGS: &str = "/api/v1/tenants/acme/warnings";

async fn use_messages(world: &World, amount: i64, user: Option<&str>) {
    let mut body = json!({ "tenant_id": "acme", "meter": "messages", "amount": amount, "consume": true });
    if let Some(user) = user {
        body["user_id"] = user.into();
    }
    assert_eq!(world.check(body).await.body["allowed"], true);
}

fn told(warnings: &Value) -> Vec<(&str, u64, u64)> {
    let number = |warning: &Value, key: &str| warning[key].as_u64().unwrap();
    let told = warnings["warnings"].as_array().unwrap().iter();
    told.map(|one| (one["limit"].as_str().unwrap(), number(one, "percent"), number(one, "used"))).collect()
}

#[tokio::test]
async fn what_use_has_reached_is_listed_once_until_the_window_turns() {
    let world = World::with_tenants().await;
    use_messages(&world, 3, None).await;
    assert_eq!(world.get(WARNINGS).await.body, json!({ "tenant_id": "acme", "warnings": [] }));
    use_messages(&world, 1, None).await;
    let answer = world.get(WARNINGS).await.body;
    let first = &answer["warnings"][0];
    assert_eq!(told(&answer), [("messages_day", 80, 4)]);
    assert_eq!(
        (&first["meter"], &first["window"], &first["scope"]),
        (&json!("messages"), &json!("day"), &json!("tenant"))
    );
    assert_eq!(first["max"], 5);
    assert!(first["at"].is_string() && first["resets_at"].is_string(), "{first}");
    use_messages(&world, 1, None).await;
    assert_eq!(told(&world.get(WARNINGS).await.body), [("messages_day", 80, 4), ("messages_day", 100, 5)]);
    // The entry says so as well, beside what it charged.
    let entries = world.get("/api/v1/entries").await.body;
    let effects = entries["items"].as_array().unwrap().iter().flat_map(|entry| entry["effects"].as_array().unwrap());
    let warned: Vec<_> =
        effects.filter(|effect| effect["effect"] == "warned").map(|effect| &effect["percent"]).collect();
    assert_eq!(warned, [&json!(80), &json!(100)]);
    world.time.advance(86_400_000);
    assert_eq!(told(&world.get(WARNINGS).await.body), []);
}

#[tokio::test]
async fn users_and_gauges_have_their_own() {
    let world = World::with_tenants().await;
    use_messages(&world, 3, Some("ann")).await;
    assert_eq!(told(&world.get(WARNINGS).await.body), []);
    let of_ann = world.get(&format!("{WARNINGS}?user_id=ann")).await.body;
    assert_eq!(of_ann["user_id"], "ann");
    assert_eq!(told(&of_ann), [("messages_day_user", 80, 3), ("messages_day_user", 100, 3)]);
    assert_eq!(told(&world.get(&format!("{WARNINGS}?user_id=bob")).await.body), []);
    let users = json!({ "tenant_id": "acme", "meter": "users", "consume": true });
    world.check(users).await;
    let of_all = world.get(WARNINGS).await.body;
    assert_eq!(told(&of_all), [("users", 80, 1), ("users", 100, 1)]);
    assert_eq!((&of_all["warnings"][0]["window"], &of_all["warnings"][0]["resets_at"]), (&json!("none"), &Value::Null));
    assert_eq!(world.get(&format!("{WARNINGS}?more=1")).await.status, 400);
}
