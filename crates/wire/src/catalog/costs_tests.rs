//! What a good price list means, and what a route makes of it.

#![allow(clippy::unwrap_used)]

use super::super::*;
use domain::cost::{CostRule, Otherwise};

const LISTS: &str = r#"
[plans.free]
rank = 0
[upstreams.app]
url = "http://127.0.0.1:3000"
[[identity]]
type = "api_key"
[meters.credits]
kind = "counter"
decimals = 2
[costs.request]
meter = "credits"
base = "0.50"
unknown = 7
[[costs.request.parts]]
property = "mode"
prices = { none = 0, analyst = "20", "chat with file" = 10 }
unknown = "refuse"
[[costs.request.parts]]
property = "tool"
prices = { general = 1 }
missing = "refuse"
[costs.tokens]
meter = "credits"
property = "model"
quantities = ["prompt_tokens", "completion_tokens"]
prices = { "gpt-4o" = { completion_tokens = 15, prompt_tokens = 5 } }
unknown = { prompt_tokens = 20, completion_tokens = 60 }
missing = "refuse"
[[routes]]
match = "POST /{model}"
charge = [{ cost = "request", properties = { tool = { capture = "model" }, mode = "none" } }]
[[routes]]
match = "PUT /a"
charge = [
  { cost = "request", properties = { mode = { header = "X-Mode" }, tool = { claim = "/app/tool" } } },
  { cost = "request", properties = { mode = { claim = "/app/mode" }, tool = { claim = "/app/tool" } } },
]
"#;

#[test]
fn every_key_of_a_cost_table_means_something() {
    let catalog = load(LISTS, "f").unwrap().catalog;
    let request = catalog.cost("request").unwrap();
    let CostRule::Parts(parts) = &request.rule else { panic!("{request:?}") };
    let known = |index: usize| {
        let known = parts.parts[index].known.iter();
        known.map(|(value, price)| (&**value, *price)).collect::<Vec<_>>()
    };
    assert_eq!((request.meter.as_str(), parts.base), ("credits", 50));
    assert_eq!(request.properties().collect::<Vec<_>>(), ["mode", "tool"]);
    assert_eq!(known(0), [("analyst", 2000), ("chat with file", 10), ("none", 0)]);
    assert_eq!(known(1), [("general", 1)]);
    let policies: Vec<_> = parts.parts.iter().map(|part| (part.unknown.clone(), part.missing.clone())).collect();
    let refuse = || Otherwise::Refuse;
    assert_eq!(policies, [(refuse(), refuse()), (Otherwise::Price(7), refuse())]);
    let tokens = catalog.cost("tokens").unwrap();
    let CostRule::Rates(rates) = &tokens.rule else { panic!("{tokens:?}") };
    assert_eq!((rates.per, &*rates.prices.known["gpt-4o"]), (1000, &[5, 15][..]));
    assert_eq!(
        (&rates.prices.unknown, &rates.prices.missing),
        (&Otherwise::Price([20, 60].into()), &Otherwise::Refuse)
    );
}

#[test]
fn a_route_tells_where_properties_come_from() {
    let gateway = load(LISTS, "f").unwrap().gateway;
    let route = gateway.routes.iter().find(|route| &*route.name == "POST /{model}").unwrap();
    let AmountSource::Cost { cost, properties } = &route.charges[0].amount else { panic!("{route:?}") };
    assert_eq!((cost.as_str(), route.charges[0].meter.as_str()), ("request", "credits"));
    let (mode, tool) = (PropertySource::Constant("none".into()), PropertySource::Capture("model".into()));
    assert_eq!(properties, &[("mode".into(), mode), ("tool".into(), tool)]);
    assert_eq!(gateway.claims(), ["/app/mode".into(), "/app/tool".into()]);
}

#[test]
fn lists_and_claims_are_bounded() {
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let prices = |count| {
        let prices = many(count, &|n| format!("p{n} = {n}"));
        format!(
            "[costs.a]\nmeter = \"credits\"\nunknown = 1\n[[costs.a.parts]]\nproperty = \"x\"\nprices = {{ {prices} }}\n"
        )
    };
    let told = |lines: &str| load(&format!("{LISTS}\n{lines}"), "f").map_err(|problems| problems[0].message.clone());
    assert!(told(&prices(1000)).is_ok());
    assert_eq!(told(&prices(1001)).unwrap_err(), "1001 prices of one property are too many: at most 1000 are allowed");
    let part = |n: usize| format!("[[costs.b.parts]]\nproperty = \"p{n}\"\nprices = {{ a = 1 }}\n");
    let parts: String = (0..17).map(part).collect();
    let refused = told(&format!("[costs.b]\nmeter = \"credits\"\nunknown = 1\n{parts}")).unwrap_err();
    assert_eq!(refused, "17 parts of one cost table are too many: at most 16 are allowed");
    let charge = |n: usize| {
        format!("{{ cost = \"request\", properties = {{ mode = \"none\", tool = {{ claim = \"/{n}\" }} }} }}")
    };
    let route = |n: usize| format!("[[routes]]\nmatch = \"GET /{n}\"\ncharge = [{}]\n", charge(n));
    let routes: String = (0..31).map(route).collect();
    assert_eq!(told(&routes).unwrap_err(), "33 claims that routes look at are too many: at most 32 are allowed");
}
