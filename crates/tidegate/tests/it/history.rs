//! History through the binary: brought along, folded by the node itself, kept through a restart, and taken out.

use crate::harness::{ADMIN_KEY, Node, Place, binary, run_command};
use domain::day::Day;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

const CATALOG: &str = "
[meters.messages]
kind = \"counter\"
[meters.documents]
kind = \"gauge\"
[plans.free]
rank = 0
limits = [{ meter = \"messages\", max = 50, per = \"month\" }]
";

fn command(node: &Node, args: &[&str]) -> (ExitStatus, String, String) {
    let mut command = binary();
    run_command(command.args(args).env("TIDEGATE_API_URL", &node.api).env("TIDEGATE_API_KEY", ADMIN_KEY))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// How many rows of history the file of a ledger has.
fn rows_in(place: &Place) -> u64 {
    let (status, shown, problem) = run_command(binary().args(["backup", "--ledger", &place.ledger_url()]).arg({
        let copy = place.ledger().with_extension("copy");
        let _ = fs::remove_file(&copy);
        copy
    }));
    assert!(status.success(), "{shown} {problem}");
    let copy = place.ledger().with_extension("copy");
    let (status, shown, problem) = run_command(binary().arg("verify").arg(&copy).arg("--json"));
    assert!(status.success(), "{shown} {problem}");
    serde_json::from_str::<Value>(&shown).unwrap()["history"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_is_exported_by_day() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    let folder = tempfile::tempdir().unwrap();
    let tenants = write(folder.path(), "tenants.csv", "tenant_id,plan,timezone\nacme,free,UTC\nzoo,free,UTC\n");
    let balances = write(folder.path(), "balances.csv", "tenant_id,meter,value\nacme,messages,12\nacme,documents,4\n");
    let text = "date,tenant_id,meter,used,user_id\n2026-03-01,acme,messages,7,ann\n2026-03-02,acme,messages,5,\n";
    let history = write(folder.path(), "history.csv", text);
    let files = ["import", "--tenants", &tenants, "--balances", &balances, "--history", &history];

    let (status, shown, problem) = command(&node, &[&files[..], &["--dry-run"]].concat());
    assert!(status.success(), "{shown} {problem}");
    assert_eq!(node.api(http::Method::GET, "/api/v1/tenants/acme", None).await.status, 404);
    // Twice is as good as once.
    for _ in 0..2 {
        let (status, shown, problem) = command(&node, &[&files[..], &["--json"]].concat());
        assert!(status.success(), "{shown} {problem}");
        let report: Value = serde_json::from_str(&shown).unwrap();
        let done: Vec<&Value> = report["files"].as_array().unwrap().iter().map(|file| &file["done"]).collect();
        assert_eq!(done, [&json!(2), &json!(2), &json!(2)]);
    }
    let usage = node.usage("acme", "").await;
    let used = |key: &str| {
        let meters = usage["meters"].as_array().unwrap();
        meters.iter().find(|meter| meter["meter"] == key).unwrap()["used"].clone()
    };
    assert_eq!((used("messages"), used("documents")), (json!(12), json!(4)));

    let wrong = write(
        folder.path(),
        "wrong.csv",
        "tenant_id,date,meter,used\nnobody,2026-03-01,messages,1\nacme,2026-03-03,mails,1\n",
    );
    let (status, shown, _) = command(&node, &["import", "--history", &wrong]);
    assert_eq!(status.code(), Some(1));
    assert!(shown.contains("wrong.csv:2: ") && shown.contains("wrong.csv:3: ") && shown.contains("mails"), "{shown}");

    // The node folds by itself, and what is folded outlives it.
    let began = Instant::now();
    while rows_in(&place) < 6 {
        assert!(began.elapsed() < Duration::from_secs(60), "the journal is not folded");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    node.kill();
    let node = place.start(None);
    let out = folder.path().join("out.csv");
    let out = out.to_str().unwrap();
    let export = [
        "export",
        "--out",
        out,
        "--from",
        "2026-03-01",
        "--to",
        "2026-03-04",
        "--group-by",
        "user",
        "--meter",
        "messages",
    ];
    let (status, shown, problem) = command(&node, &export);
    assert!(status.success(), "{problem}");
    assert!(shown.contains("2 rows of 2 tenants, complete until "), "{shown}");
    assert_eq!(
        fs::read_to_string(out).unwrap(),
        "tenant_id,start,end,meter,user_id,used,denied\r\n\
         acme,2026-03-01T00:00:00Z,2026-03-02T00:00:00Z,messages,ann,7,0\r\n\
         acme,2026-03-02T00:00:00Z,2026-03-03T00:00:00Z,messages,,5,0\r\n"
    );
    let (status, _, problem) = command(&node, &export);
    assert!(!status.success() && problem.contains("is there already"), "{problem}");
    let lines = ["export", "acme", "--format", "jsonl", "--from", "2026-03-01", "--to", "2026-03-02"];
    let (status, shown, problem) = command(&node, &[&lines[..], &["--meter", "messages"]].concat());
    assert!(status.success(), "{problem}");
    let row: Value = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
    assert_eq!((&row["tenant_id"], &row["used"]), (&json!("acme"), &json!(7)));
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_over_with_daily_history_has_a_forecast_at_once() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    let folder = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let today = Day::from_number((now.as_secs() / 86_400) as i32);
    let tenants = write(folder.path(), "tenants.csv", "tenant_id,plan,timezone\nacme,free,Pacific/Auckland\n");
    let mut lines = vec!["tenant_id,date,meter,used,level".to_owned()];
    for back in 1..=60 {
        let date = today + -back;
        lines.push(format!("acme,{date},messages,{},", if back % 7 == 0 { 0 } else { 2 }));
        lines.push(format!("acme,{date},documents,,{}", 100 - back));
    }
    lines.push(format!("acme,{},documents,,{}", today + -3_000, 1));
    let history = write(folder.path(), "history.csv", &lines.join("\n"));
    let report = |args: &[&str]| {
        let (status, shown, problem) = command(&node, &[&["import", "--json"], args].concat());
        let report: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown} {problem}"));
        let of_history = report["files"].as_array().unwrap().last().unwrap().clone();
        (status.code(), of_history)
    };
    let files = ["--tenants", &tenants, "--history", &history];
    let (code, told) = report(&[&files[..], &["--dry-run"]].concat());
    assert_eq!((code, &told["done"], &told["snapshot_days"]), (Some(1), &json!(120), &json!(60)), "{told}");
    assert_eq!(told["failed"][0]["line"], 122, "a level of a day that is not kept");
    assert_eq!(node.api(http::Method::GET, "/api/v1/tenants/acme", None).await.status, 404);
    for _ in 0..2 {
        let (code, told) = report(&files);
        assert_eq!((code, &told["done"], &told["snapshot_days"]), (Some(1), &json!(120), &json!(60)), "{told}");
        assert_eq!(told["failed"].as_array().unwrap().len(), 1, "{told}");
    }
    let path = "/api/v1/usage-forecast?tenant_id=acme";
    let forecast = node.api(http::Method::GET, path, None).await.json();
    for metric in ["messages", "documents"] {
        let metrics = forecast["metrics"].as_array().unwrap();
        let metric = metrics.iter().find(|found| found["metric"] == metric).unwrap();
        assert_ne!(metric["status"], "insufficient_data", "{metric}");
        assert!(metric["trend_data"].as_array().unwrap().len() >= 29, "{metric}");
        assert!(metric["daily_growth_rate"].as_f64().unwrap() > 0.5, "{metric}");
    }
    let kept = node.api(http::Method::GET, "/api/v1/snapshots?tenant_id=acme&days=100", None).await.json();
    for meter in kept["items"][0]["meters"].as_array().unwrap() {
        let days = meter["days"].as_array().unwrap();
        assert_eq!((days.len(), &days[0]["day"]), (60, &json!((today + -60).to_string())), "{meter}");
        let value = |back: usize| days[60 - back]["value"].as_i64().unwrap();
        match meter["meter"].as_str() {
            Some("messages") => assert_eq!((value(7), value(6), value(60)), (0, 2, 2)),
            _ => assert_eq!((value(7), value(60)), (93, 40)),
        }
    }
    let (status, shown, _) = command(&node, &[&["import"], &files[..]].concat());
    assert_eq!(status.code(), Some(1));
    assert!(shown.contains("60 days of tenants became snapshots"), "{shown}");
    node.stop();
}
