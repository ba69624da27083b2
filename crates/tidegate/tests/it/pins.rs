//! Tenants that are pinned to a version of the catalog: decided by it on every node, whatever is put in force.

use crate::harness::{ADMIN_KEY, Node, Place, run_command};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a change on one node may take to reach the others.
const SOON: Duration = Duration::from_secs(1);

const METERS: &str = "[meters.calls]\nkind = \"counter\"\n";

/// The first version: nobody is refused soon.
pub fn first() -> String {
    format!(
        "{METERS}{}{}{}{}",
        plan("free", 0, 50),
        plan("old", 1, 500),
        "[meters.faxes]\nkind = \"counter\"\n",
        cost(2)
    )
}

fn plan(name: &str, rank: u32, max: u32) -> String {
    format!("[plans.{name}]\nrank = {rank}\nlimits = [{{ meter = \"calls\", max = {max}, per = \"month\" }}]\n")
}

/// A price list by which a long call costs this much.
fn cost(price: u32) -> String {
    let part = format!("[[costs.call.parts]]\nproperty = \"length\"\nprices = {{ long = {price} }}\n");
    format!("[costs.call]\nmeter = \"calls\"\nunknown = \"refuse\"\n{part}")
}

/// What a long call would be charged.
async fn cost_of(node: &Node, tenant: &str) -> Value {
    let body = json!({"tenant_id": tenant, "cost": {"table": "call", "properties": {"length": "long"}}});
    node.api(Method::POST, "/api/v1/check", Some(body)).await.json()["amount"].clone()
}

async fn apply(node: &Node, text: String) -> (u16, Value) {
    let request = Request::post(format!("{}/api/v1/catalogs", node.api))
        .header("authorization", format!("Bearer {ADMIN_KEY}"))
        .header("content-type", "application/toml")
        .body(Full::from(text))
        .unwrap();
    let answer = crate::harness::send(&crate::harness::http_client(), request).await.unwrap();
    (answer.status.as_u16(), answer.json())
}

async fn put(node: &Node, tenant: &str, change: Value) -> (u16, Value) {
    let answer = node.api(Method::PUT, &format!("/api/v1/tenants/{tenant}"), Some(change)).await;
    (answer.status.as_u16(), answer.json())
}

async fn spend(node: &Node, tenant: &str, amount: u32) -> Value {
    let body = json!({"tenant_id": tenant, "meter": "calls", "amount": amount, "consume": true});
    node.api(Method::POST, "/api/v1/check", Some(body)).await.json()
}

/// On every node a tenant's limit is this, within a second.
async fn shows(nodes: &[Node], tenant: &str, max: u32) {
    let begun = Instant::now();
    for node in nodes {
        loop {
            let usage = node.usage(tenant, "").await;
            let calls = usage["meters"].as_array().unwrap().iter().find(|meter| meter["meter"] == "calls").unwrap();
            let found = &calls["limits"][0]["max"];
            if *found == max {
                break;
            }
            assert!(begun.elapsed() < SOON, "{tenant}: {found} instead of {max} on {}", node.api);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The life of two pinned tenants, on any number of nodes.
pub async fn pinned_tenants_keep_their_catalog(nodes: &[Node]) {
    let (here, there) = (&nodes[0], nodes.last().unwrap());
    for tenant in ["acme", "beta"] {
        assert_eq!(put(here, tenant, json!({"plan": "old"})).await.0, 201);
    }
    let second = format!("{METERS}{}{}{}", plan("free", 0, 40), plan("old", 1, 5), cost(3));
    assert_eq!(apply(here, second).await, (200, json!({"version": 2})));
    shows(nodes, "acme", 5).await;

    let (status, card) = put(there, "acme", json!({"catalog_pin": 1})).await;
    assert_eq!((status, &card["catalog_pin"], &card["plan"]), (200, &json!(1), &json!("old")), "{card}");
    shows(nodes, "acme", 500).await;
    shows(nodes, "beta", 5).await;
    let passed = spend(here, "acme", 60).await;
    assert_eq!((&passed["allowed"], &passed["limits"][0]["max"]), (&json!(true), &json!(500)), "{passed}");
    let refused = spend(there, "beta", 6).await;
    assert_eq!(refused["code"], "period_limit_reached", "{refused}");
    // So do its prices.
    assert_eq!((cost_of(here, "acme").await, cost_of(there, "beta").await), (json!(2), json!(3)));
    // A change of something else leaves the pin as it is.
    assert_eq!(put(here, "acme", json!({"timezone": "Europe/Madrid"})).await.1["catalog_pin"], 1);
    // A meter that only the pinned version has.
    let faxes = |tenant: &str| json!({"tenant_id": tenant, "meter": "faxes", "amount": 1, "consume": true});
    let fax = here.api(Method::POST, "/api/v1/check", Some(faxes("acme"))).await;
    assert_eq!((fax.status.as_u16(), &fax.json()["allowed"]), (200, &json!(true)), "{fax:?}");
    assert_eq!(here.api(Method::POST, "/api/v1/check", Some(faxes("beta"))).await.json()["code"], "unknown_meter");

    for (change, code) in [
        (json!({"catalog_pin": 9}), "unknown_catalog"),
        (json!({"catalog_pin": 0}), "unknown_catalog"),
        (json!({"plan": "gold"}), "unknown_plan"),
        (json!({"plan": "large", "catalog_pin": 2}), "unknown_plan"),
    ] {
        let (status, problem) = put(there, "acme", change.clone()).await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{change}: {problem}");
    }

    // A plan may go when only pinned tenants are on it.
    let news = "[meters.news]\nkind = \"counter\"\n";
    let third = || format!("{METERS}{news}{}{}", plan("free", 0, 30), plan("large", 2, 900));
    let (status, problem) = apply(there, third()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("plans_in_use")), "{problem}");
    assert_eq!(put(here, "beta", json!({"catalog_pin": 2})).await.0, 200);
    assert_eq!(apply(there, third()).await, (200, json!({"version": 3})));
    shows(nodes, "acme", 500).await;
    shows(nodes, "beta", 5).await;
    assert_eq!(spend(there, "acme", 60).await["allowed"], true);
    let event = json!({"id": "e", "source": "app", "type": "news", "subject": "acme", "data": {"value": 7}});
    let told = there.api(Method::POST, "/api/v1/events", Some(event)).await;
    assert_eq!(told.status.as_u16(), 204, "{told:?}");
    let (status, problem) = put(here, "acme", json!({"catalog_pin": null})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("unknown_plan")), "{problem}");
    let (status, card) = put(here, "acme", json!({"catalog_pin": null, "plan": "large"})).await;
    assert_eq!((status, &card["catalog_pin"]), (200, &Value::Null), "{card}");
    shows(nodes, "acme", 900).await;
    // What was used stays used, and what was told as a fact while it was pinned was kept.
    let usage = there.usage("acme", "").await;
    let of = |meter: &str| {
        usage["meters"].as_array().unwrap().iter().find(|found| found["meter"] == meter).unwrap()["used"].clone()
    };
    assert_eq!((of("calls"), of("news")), (json!(120), json!(7)), "{usage}");

    let by_command = |args: &[&str]| {
        let mut command = crate::harness::binary();
        command.arg("catalog").args(args).env("TIDEGATE_API_URL", &there.api).env("TIDEGATE_API_KEY", ADMIN_KEY);
        run_command(&mut command)
    };
    let (status, out, log) = by_command(&["pin", "acme", "1"]);
    assert!(!status.success() && log.contains("large"), "the first version has no such plan: {out}{log}");
    assert!(by_command(&["pin", "acme", "3"]).0.success());
    assert_eq!(put(here, "acme", json!({})).await.1["catalog_pin"], 3);
    let listed = by_command(&["list"]).1;
    assert!(listed.lines().any(|line| line.contains("in force")), "{listed}");
    assert!(by_command(&["pin", "acme", "--unpin"]).0.success());
    assert_eq!(put(here, "acme", json!({})).await.1["catalog_pin"], Value::Null);
    let (status, out, log) = by_command(&["pin", "nobody", "3"]);
    assert!(!status.success() && log.contains("nobody"), "{out}{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_tenant_keeps_its_catalog_on_one_machine_through_a_restart() {
    let place = Place::new(&first());
    let nodes = [place.start(None)];
    pinned_tenants_keep_their_catalog(&nodes).await;
    let [node] = nodes;
    node.kill();
    place.write_catalog(&format!("{METERS}{}{}", plan("free", 0, 30), plan("large", 2, 900)));
    let nodes = [place.start(None)];
    shows(&nodes, "beta", 5).await;
    assert_eq!(spend(&nodes[0], "beta", 6).await["code"], "period_limit_reached");
    let [node] = nodes;
    node.stop();
    let (status, out, log) = crate::harness::run(&["verify", place.ledger().to_str().unwrap()]);
    assert!(status.success(), "{out}{log}");
}
