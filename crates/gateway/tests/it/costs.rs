//! Requests that are charged by a price list, and what has no price.

use crate::{
    identity::{claims, hs256, shared, with},
    world::{Answer, World},
};
use gateway::GatewayOptions;
use serde_json::{Value, json};

const COSTS: &str = r#"
[costs.request]
meter = "calls"
unknown = "refuse"
[[costs.request.parts]]
property = "mode"
prices = { none = 0, analyst = 20, chat_with_file = 10 }
unknown = 5
missing = "refuse"
[[costs.request.parts]]
property = "tool"
prices = { general = 1, marketing_plan = 2, "7" = 3 }
[[routes]]
match = "POST /by-header/{tool}"
charge = [{ cost = "request", properties = { mode = { header = "x-mode" }, tool = { capture = "tool" } } }]
[[routes]]
match = "POST /by-body/*"
charge = [{ cost = "request", properties = { mode = { body = "/chat/mode" }, tool = { body = "/tools/0" } } }]
body_peek_max_bytes = 200
[[routes]]
match = "POST /by-claim"
charge = [
  { cost = "request", properties = { mode = "analyst", tool = { claim = "/app/tool" } } },
  { meter = "messages" },
]
"#;

const ACME: (&str, &str) = ("x-org", "acme");

fn code(answer: &Answer) -> (u16, Value) {
    (answer.status.as_u16(), answer.json()["code"].clone())
}

#[tokio::test]
async fn a_request_costs_what_its_table_says() {
    let world = World::new(COSTS).await;
    let mut total = 0;
    for (path, mode, amount) in [
        ("/by-header/general", "analyst", 21),
        ("/by-header/marketing_plan", "none", 2),
        ("/by-header/general", "of-tomorrow", 6),
    ] {
        assert_eq!(world.post(path, &[ACME, ("x-mode", mode)], "").await.status, 200, "{path} {mode}");
        total += amount;
        assert_eq!(world.usage("acme", "calls").await, (total, 0), "{path} {mode}");
    }
}

#[tokio::test]
async fn what_has_no_price_never_reaches_the_upstream_and_costs_nothing() {
    let world = World::new(COSTS).await;
    let unpriced = world.post("/by-header/of-tomorrow", &[ACME, ("x-mode", "none")], "").await;
    assert_eq!(code(&unpriced), (422, json!("unknown_price")));
    let detail = unpriced.json()["detail"].clone();
    let detail = detail.as_str().unwrap();
    assert!(detail.starts_with("Cost table request has no price where tool is \"of-tomorrow\""), "{detail}");
    let unsaid = world.post("/by-header/general", &[ACME], "").await;
    assert_eq!(code(&unsaid), (422, json!("unknown_price")));
    // The upstream may read the other one.
    let twice = world.post("/by-header/general", &[ACME, ("x-mode", "none"), ("x-mode", "analyst")], "").await;
    assert_eq!(code(&twice), (400, json!("invalid_request")));
    assert_eq!((world.upstream.requests(), world.usage("acme", "calls").await), (0, (0, 0)));
}

#[tokio::test]
async fn the_refusal_names_the_amount_that_the_table_came_to() {
    let world = World::new(COSTS).await;
    for _ in 0..47 {
        world.post("/by-header/general", &[ACME, ("x-mode", "analyst")], "").await;
    }
    let refused = world.post("/by-header/general", &[ACME, ("x-mode", "analyst")], "").await;
    let decision = refused.json()["decision"].clone();
    assert_eq!((refused.status.as_u16(), &decision["amount"], &decision["meter"]), (429, &json!(21), &json!("calls")));
    assert_eq!(world.post("/by-header/general", &[ACME, ("x-mode", "chat_with_file")], "").await.status, 200);
}

#[tokio::test]
async fn claims_count_only_in_a_token_that_was_verified() {
    let shared = shared();
    let gates = format!("{}[[identity]]\ntype = \"api_key\"\n{COSTS}", shared.gates);
    let world = World::with(&gates, GatewayOptions::default()).await;
    let ask = async |token: &str| world.post("/by-claim", &[("authorization", &format!("Bearer {token}"))], "").await;
    // Twice: a token that was seen before says the same.
    for used in [22, 44] {
        assert_eq!(ask(&hs256(&with(json!({"app": {"tool": "marketing_plan"}})))).await.status, 200);
        assert_eq!(world.usage("acme", "calls").await.0, used);
    }
    assert_eq!(ask(&hs256(&with(json!({"app": {"tool": 7}})))).await.status, 200);
    assert_eq!(world.usage("acme", "calls").await.0, 67);
    for token in
        [claims(), with(json!({"app": {"tool": ["general"]}})), with(json!({"app": {"tool": "x".repeat(900)}}))]
    {
        assert_eq!(code(&ask(&hs256(&token)).await), (422, json!("unknown_price")));
    }
    let forged = hs256(&with(json!({"app": {"tool": "general"}}))).replace('.', ".e");
    assert_eq!(ask(&forged).await.status, 401);
    assert_eq!((world.usage("acme", "calls").await.0, world.usage("acme", "messages").await.0), (67, 3));
}

#[tokio::test]
async fn a_field_of_the_body_has_a_price_and_the_body_goes_on_as_it_was() {
    let world = World::new(COSTS).await;
    let json = [ACME, ("content-type", "application/json")];
    let long = format!("{{\"chat\":{{\"mode\":\"none\"}},\"tools\":[7],\"x\":\"{}\"}}", "x".repeat(200));
    for (body, used) in [
        (r#"{"chat": {"mode": "analyst"}, "tools": ["marketing_plan"]}"#, 22),
        (r#"{"tools": [7], "chat": {"mode": "new"}}"#, 30),
    ] {
        let answer = world.post("/by-body/echo", &json, body).await;
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(world.usage("acme", "calls").await.0, used, "{body}");
    }
    // What can't be read, or is not looked at, is missing.
    for (headers, body) in [
        (&json[..], r#"{"chat": {"mode": ["none"]}, "tools": [7]}"#),
        (&json[..], "{"),
        (&json[..], &long),
        (&json[..1], r#"{"chat": {"mode": "none"}, "tools": [7]}"#),
    ] {
        let answer = world.post("/by-body/echo", headers, body.to_owned()).await;
        assert_eq!(code(&answer), (422, "unknown_price".into()), "{body}");
    }
    assert_eq!(world.upstream.requests(), 2);
}
