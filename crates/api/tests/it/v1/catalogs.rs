//! `/api/v1/catalogs`.

use crate::world::{Answer, World};
use serde_json::json;

const BROKEN: &str = "[meters.messages]\nkind = \"countr\"\n";

async fn post(world: &World, text: &str) -> Answer {
    world.post_bytes("/api/v1/catalogs", "application/toml", text.to_owned()).await
}

#[tokio::test]
async fn a_catalog_is_put_in_force_whole() {
    let world = World::with_tenants().await;
    let first = world.get("/api/v1/catalogs/1").await;
    let text = first.body["text"].as_str().unwrap().replace("Messages", "Letters");
    let applied = post(&world, &text).await;
    assert_eq!((applied.status, &applied.body["version"]), (200, &json!(2)), "{}", applied.body);

    let list = world.get("/api/v1/catalogs").await;
    let versions: Vec<_> = list.body["items"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
    assert_eq!(versions, [&json!(2), &json!(1)]);
    assert_eq!(list.body["items"][0]["in_force"], json!(true));
    assert_eq!(list.body["items"][1]["in_force"], json!(false));
    let usage = world.get("/api/v1/tenants/acme/usage").await;
    assert!(usage.body.to_string().contains("Letters"), "{}", usage.body);
    let second = world.get("/api/v1/catalogs/2").await;
    assert_eq!(second.body["text"], json!(text));
    let none = world.get("/api/v1/catalogs/7").await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn a_broken_one_is_refused_with_all_that_is_wrong() {
    let world = World::with_tenants().await;
    let refused = post(&world, BROKEN).await;
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("invalid_catalog")), "{}", refused.body);
    let problem = &refused.body["problems"][1];
    assert_eq!(problem["line"], json!(2), "{}", refused.body);
    assert!(problem["message"].as_str().unwrap().contains("countr"), "{}", refused.body);
    let list = world.get("/api/v1/catalogs").await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1, "the old one stays");
}

#[tokio::test]
async fn one_that_lacks_a_plan_in_use_is_refused() {
    let world = World::with_tenants().await;
    let refused = post(&world, "[meters.messages]\nkind = \"counter\"\n[plans.gold]\nrank = 1\n").await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("plans_in_use")), "{}", refused.body);
}
