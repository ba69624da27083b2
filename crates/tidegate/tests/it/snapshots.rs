//! `tidegate snapshot` and the schedule, as an operator meets them.

use crate::harness::{ADMIN_KEY, Node, PATIENCE, Place, binary, run_command};
use http::Method;
use serde_json::{Value, json};

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

async fn figure(node: &Node, name: &str) -> f64 {
    let text = String::from_utf8(node.api(Method::GET, "/metrics", None).await.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_closed_by_the_command_and_by_the_schedule() {
    let place = Place::new(CATALOG);
    let app = place.ledger().with_file_name("app.db");
    let mut serve = place.serve();
    serve.arg("--test-clock").env("TIDEGATE_SOURCE_APP", &app).env("TIDEGATE_SNAPSHOTS_SQLITE", app.parent().unwrap());
    let node = Node::start(serve);
    for tenant in ["acme", "bloom"] {
        node.put_tenant(tenant, json!({ "plan": "free" })).await;
    }
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

    std::process::Command::new("python3")
        .args(["-c", "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('CREATE TABLE products(tenant_id)'); db.execute(\"INSERT INTO products VALUES ('acme'), ('acme')\"); db.commit()"])
        .arg(&app)
        .status()
        .unwrap();
    let (code, out, log) = snapshot(&node, &["--verbose"]);
    assert_eq!(code, Some(0), "{out}{log}");
    assert!(out.contains("acme: calls 7, products 2, seats 0") && out.contains("2 of 2 done, 0 failed"), "{out}");
    let (code, out, _) = snapshot(&node, &["--json", "--dry-run"]);
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &summary["complete"], &summary["values"]), (Some(0), &json!(true), &json!(6)), "{summary}");
    assert_eq!(figure(&node, "tidegate_snapshot_tenants_done").await, 2.0);

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
