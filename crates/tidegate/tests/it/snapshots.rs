//! `tidegate snapshot` and the schedule, as an operator meets them.

use crate::harness::{ADMIN_KEY, Node, PATIENCE, Place, binary, run_command};
use http::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const CATALOG: &str = r#"
[meters.calls]
kind = "counter"
[meters.products]
kind = "gauge"
[meters.seats]
kind = "gauge"
[plans.free]
rank = 0
[snapshots]
schedule = "off"
[snapshots.sources.app]
kind = "sqlite"
url_env = "TIDEGATE_SOURCE_APP"
[snapshots.meters.products]
source = "app"
query = "SELECT tenant_id, count(*) AS value FROM products GROUP BY tenant_id"
"#;

fn snapshot(node: &Node, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.arg("snapshot").args(args).env("TIDEGATE_API_URL", &node.api).env("TIDEGATE_API_KEY", ADMIN_KEY);
    let (status, out, log) = run_command(&mut command);
    (status.code(), out, log)
}

/// The database of somebody's app.
fn sqlite(file: &Path, statements: &str) {
    let program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
    let status = std::process::Command::new("python3").args(["-c", program]).arg(file).arg(statements).status();
    assert!(status.unwrap().success());
}

/// A node with two tenants, and the path of an app's database that it may ask.
async fn with_an_app(place: &Place) -> (Node, PathBuf) {
    let app = place.ledger().with_file_name("app.db");
    let mut serve = place.serve();
    serve.arg("--test-clock").env("TIDEGATE_SOURCE_APP", &app).env("TIDEGATE_SNAPSHOTS_SQLITE", app.parent().unwrap());
    let node = Node::start(serve);
    for tenant in ["acme", "bloom"] {
        node.put_tenant(tenant, json!({ "plan": "free" })).await;
    }
    (node, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_refused_is_named_and_makes_the_day_partial() {
    let place =
        Place::new(&CATALOG.replace("count(*) AS value FROM products GROUP BY tenant_id", "value FROM products"));
    let (node, app) = with_an_app(&place).await;
    node.api(Method::POST, "/api/v1/test/clock", Some(json!({ "advance": "1d" }))).await;
    sqlite(&app, "CREATE TABLE products(tenant_id, value)");
    for (row, refused) in [
        ("'acme', -1", "products of acme: -1 is not between 0 and"),
        ("'acme', 'many'", "products of acme: "),
        ("'acme', 9007199254740992", "products of acme: 9007199254740992 is not between 0 and"),
        // The tenants' own values are all there; who wrote the row has to know.
        ("'a b', 1", "products of a b: the row is no tenant's"),
    ] {
        sqlite(&app, &format!("DELETE FROM products; INSERT INTO products VALUES ('bloom', 4), ({row})"));
        let (code, out, log) = snapshot(&node, &["--verbose"]);
        assert_eq!(code, Some(1), "{row}: {out}{log}");
        assert!(out.contains(&format!("refused:   {refused}")) && out.contains("products 4"), "{row}: {out}");
    }
    sqlite(&app, "DELETE FROM products; INSERT INTO products VALUES ('bloom', 4)");
    assert_eq!(snapshot(&node, &[]).0, Some(0));
    node.stop();
}

async fn figure(node: &Node, name: &str) -> f64 {
    let text = String::from_utf8(node.api(Method::GET, "/metrics", None).await.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_closed_by_the_command_and_by_the_schedule() {
    let place = Place::new(CATALOG);
    let (node, app) = with_an_app(&place).await;
    let event = json!({ "id": "1", "source": "test", "subject": "acme", "type": "calls", "data": { "value": 7 } });
    assert_eq!(node.api(Method::POST, "/api/v1/events", Some(event)).await.status, 204);
    let clock = json!({ "advance": "1d" });
    assert_eq!(node.api(Method::POST, "/api/v1/test/clock", Some(clock)).await.status, 200);

    // The app's database is not there yet: that meter is lacking, and named; the others are taken.
    let (code, out, log) = snapshot(&node, &[]);
    assert_eq!(code, Some(1), "{out}{log}");
    assert!(out.contains("0 of 2 done, 2 failed") && out.contains("values:    4"), "{out}");
    assert!(out.contains("lacking:   products: SQLite") && log.contains("products: SQLite"), "{out}{log}");
    let (code, out, log) = snapshot(&node, &["--day", "tomorrow"]);
    assert_eq!(code, Some(2), "{out}{log}");
    let (code, _, log) = snapshot(&node, &["--tenant", "nobody"]);
    assert!(code == Some(2) && log.contains("nobody"), "{log}");

    sqlite(&app, "CREATE TABLE products(tenant_id); INSERT INTO products VALUES ('acme'), ('acme')");
    let (code, out, log) = snapshot(&node, &["--verbose"]);
    assert_eq!(code, Some(0), "{out}{log}");
    assert!(out.contains("acme: calls 7, products 2, seats 0") && out.contains("2 of 2 done, 0 failed"), "{out}");
    let (code, out, _) = snapshot(&node, &["--json", "--dry-run"]);
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &summary["complete"], &summary["values"]), (Some(0), &json!(true), &json!(6)), "{summary}");
    assert_eq!(figure(&node, "tidegate_snapshot_tenants_done").await, 2.0);
    // Neither a try nor one tenant alone is a night.
    let runs = figure(&node, "tidegate_snapshot_runs_total").await;
    assert_eq!(snapshot(&node, &["--tenant", "acme"]).0, Some(0));
    assert_eq!(figure(&node, "tidegate_snapshot_tenants_done").await, 2.0);
    assert_eq!(figure(&node, "tidegate_snapshot_runs_total").await, runs);

    // From now on as soon as a day is over: a day later the node closes it by itself.
    let runs = figure(&node, "tidegate_snapshot_runs_total").await;
    place.write_catalog(&CATALOG.replace("\"off\"", "\"* * * * *\""));
    node.signal("HUP");
    let clock = json!({ "advance": "1d" });
    node.api(Method::POST, "/api/v1/test/clock", Some(clock)).await;
    let closed = async {
        while figure(&node, "tidegate_snapshot_runs_total").await <= runs {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the schedule closes the day");
    let told = json!({ "tenant_id": "acme", "metrics": { "seats": 3 } });
    assert_eq!(node.api(Method::POST, "/api/v1/usage-forecast/track-usage", Some(told)).await.status, 200);
    node.stop();
}
