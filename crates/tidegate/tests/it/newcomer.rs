//! The first minutes of a new user: `init`, `check-config`, `serve` in front of a server of one's own, and the commands.

use crate::harness::{ADMIN_KEY, Node, Place, Upstream, binary, run, run_command};
use http::Method;
use serde_json::{Value, json};
use std::process::Command;

/// A command that talks to the node as admin.
fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = binary();
    command.args(args).env("TIDEGATE_API_URL", &node.api).env("TIDEGATE_API_KEY", ADMIN_KEY);
    command
}

fn shown(node: &Node, args: &[&str]) -> String {
    let (status, shown, problem) = run_command(&mut command(node, args));
    assert!(status.success(), "{args:?}: {problem}");
    shown
}

fn shown_json(node: &Node, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&shown(node, &args)).unwrap()
}

#[test]
fn init_writes_a_valid_catalog_and_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop/tidegate.toml");
    let (status, shown, problem) = run(&["init", folder.path().join("shop/").to_str().unwrap()]);
    assert!(status.success(), "{problem}");
    assert!(shown.contains("tidegate serve"), "{shown}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("enforce = \"observe\""));

    let (status, shown, _) = run(&["check-config", file.to_str().unwrap()]);
    assert!(status.success() && shown.contains("is valid"), "{shown}");

    let (status, _, problem) = run(&["init", file.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1));
    assert!(problem.contains("exists already"), "{problem}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn check_config_says_where_and_what_would_help() {
    let place = Place::new("default_plan = \"fre\"\n[meters.messages]\nkind = \"counter\"\n[plans.free]\nrank = 0\n");
    let file = place.catalog();
    let (status, shown, _) = run(&["check-config", file.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1));
    assert!(shown.contains("tidegate.toml:1:16") && shown.contains("free"), "{shown}");
    let (_, shown, _) = run(&["check-config", file.to_str().unwrap(), "--json"]);
    let answer: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&answer["valid"], &answer["problems"][0]["line"]), (&json!(false), &json!(1)), "{answer}");
}

#[test]
fn without_a_node_or_a_catalog_the_error_says_what_to_do() {
    let mut lonely = binary();
    lonely.args(["tenants", "list"]).env("TIDEGATE_API_URL", "http://127.0.0.1:1").env("TIDEGATE_API_KEY", "x");
    let (status, _, problem) = run_command(&mut lonely);
    assert_eq!(status.code(), Some(1));
    assert!(problem.contains("tidegate serve"), "{problem}");

    let (status, _, problem) = run(&["serve", "--config", "/nowhere/tidegate.toml"]);
    assert_eq!(status.code(), Some(1));
    assert!(problem.contains("tidegate init"), "{problem}");
    assert_eq!(run(&["nonsense"]).0.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_starter_works_in_front_of_a_server_of_ones_own() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    assert!(run(&["init", file.to_str().unwrap()]).0.success());
    let place = Place::new(&std::fs::read_to_string(&file).unwrap());
    let node = place.start(Some(&upstream.url));

    shown(&node, &["tenants", "set", "acme", "--plan", "free"]);
    let created = shown_json(&node, &["keys", "create", "--scope", "tenant", "--tenant", "acme"]);
    let key = created["key"].as_str().unwrap();
    for _ in 0..70 {
        assert_eq!(node.through(key, Method::GET, "/api/hello", "").await.status, 200, "observe refuses nothing");
    }
    assert_eq!(upstream.reached(), 70);
    assert!(shown(&node, &["usage", "acme"]).contains("requests"));
    assert_eq!(node.used_and_denied("acme", "requests").await.0, 70);
    let denials = shown_json(&node, &["denials", "--tenant", "acme", "--shadow"]);
    assert_eq!(denials["items"][0]["code"], "rate_limit_reached", "{denials}");
    node.stop();
}

const CATALOG: &str = r#"
[meters.messages]
kind = "counter"
[meters.talk]
kind = "duration"
[plans.free]
rank = 0
limits = [{ meter = "messages", max = 2, per = "day" }, { meter = "talk", max = 3, per = "concurrent" }]
[plans.pro]
rank = 1
limits = [{ meter = "messages", max = "unlimited" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_command_talks_to_the_node() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    shown(&node, &["tenants", "set", "acme", "--plan", "free", "--timezone", "Europe/Madrid"]);
    shown(&node, &["tenants", "set", "globex", "--plan", "pro"]);
    assert!(shown(&node, &["tenants", "show", "acme"]).contains("Europe/Madrid"));
    let tenants = shown(&node, &["tenants", "list"]);
    assert!(tenants.contains("acme") && tenants.contains("globex"), "{tenants}");

    for _ in 0..3 {
        let consume = json!({"tenant_id": "acme", "meter": "messages", "consume": true});
        node.api(Method::POST, "/api/v1/check", Some(consume)).await;
    }
    let usage = shown_json(&node, &["usage", "acme"]);
    assert_eq!((&usage["meters"][0]["used"], &usage["meters"][0]["denied"]), (&json!(2), &json!(1)), "{usage}");
    assert!(shown(&node, &["usage", "acme"]).contains("messages"));

    // Used up today; what is not limited would hold.
    let forecast = shown_json(&node, &["forecast", "acme"]);
    let messages =
        forecast["metrics"].as_array().unwrap().iter().find(|metric| metric["metric"] == "messages").unwrap();
    assert_eq!((&messages["status"], &messages["upgrade"]["plan"]), (&json!("breached"), &json!("pro")), "{forecast}");
    let table = shown(&node, &["forecast", "acme"]);
    assert!(table.contains("breached") && table.contains("pro"), "{table}");
    assert!(shown(&node, &["forecast", "acme", "--backtest"]).contains("no meter"));
    assert!(shown(&node, &["forecast", "--status", "critical"]).contains("no forecasts"));

    let proposed = place.folder.path().join("proposed.toml");
    std::fs::write(&proposed, CATALOG).unwrap();
    let simulate = ["simulate", "--plans", proposed.to_str().unwrap()];
    let simulated = shown(&node, &simulate);
    assert!(simulated.contains("2 tenants") && simulated.contains("free/talk_concurrent"), "{simulated}");
    assert_eq!(shown_json(&node, &simulate)["summary"]["refused"], json!(0));
    std::fs::write(&proposed, CATALOG.replace("[plans.pro]", "[plans.team]")).unwrap();
    let (status, _, problem) = run_command(&mut command(&node, &simulate));
    assert!(status.code() == Some(1) && problem.contains("--move pro=NAME"), "{problem}");

    assert!(shown(&node, &["sessions", "list", "acme"]).contains("no session is open"));
    let open = json!({"tenant_id": "acme", "meter": "talk", "key": "conversation-7"});
    node.api(Method::POST, "/api/v1/sessions", Some(open)).await;
    let sessions = shown_json(&node, &["sessions", "list", "acme"]);
    let session = sessions["items"][0]["session_id"].as_str().unwrap().to_owned();
    assert!(shown(&node, &["sessions", "list", "acme"]).contains("conversation-7"));
    // A count, whatever the meter is counted in.
    assert!(shown(&node, &["usage", "acme"]).contains("talk_concurrent (sessions)"));
    assert!(shown(&node, &["sessions", "close", &session]).contains("forced"));
    assert_eq!(shown_json(&node, &["sessions", "list", "acme"])["items"], json!([]));

    let denials = shown_json(&node, &["denials"]);
    let id = denials["items"][0]["denial_id"].as_str().unwrap().to_owned();
    assert!(shown(&node, &["denials"]).contains(&id));
    let explained = shown(&node, &["explain", &id]);
    assert!(explained.contains("messages_day") && explained.contains('2'), "{explained}");

    let created = shown_json(&node, &["keys", "create", "--scope", "read", "--name", "grafana"]);
    let (key, key_id) = (created["key"].as_str().unwrap(), created["key_id"].as_str().unwrap());
    let read = node.api_as(key, Method::GET, "/api/v1/tenants", None).await.unwrap();
    assert_eq!(read.status, 200);
    assert!(shown(&node, &["keys", "list"]).contains(key_id));
    shown(&node, &["keys", "revoke", key_id]);
    assert_eq!(node.api_as(key, Method::GET, "/api/v1/tenants", None).await.unwrap().status, 401);

    let token = shown(&node, &["token", "--tenant", "acme", "--ttl", "5m"]);
    let usage = node.api_as(token.trim(), Method::GET, "/api/v1/tenants/acme/usage", None).await.unwrap();
    assert_eq!(usage.status, 200, "{usage:?}");
    let other = node.api_as(token.trim(), Method::GET, "/api/v1/tenants/globex/usage", None).await.unwrap();
    assert!(other.status == 403 || other.status == 404, "{other:?}");

    // What did not work ends with 1, and says what to do.
    for (args, hint) in [
        (&["usage", "nobody"][..], "Create it with PUT"),
        (&["forecast", "nobody"], "Create it with PUT"),
        (&["forecast", "--status", "worrying"], "must be one of unlimited, breached"),
        (&["export", "nobody"], "Create it with PUT"),
        (&["export", "--from", "yesterday"], "from"),
        (&["simulate", "--plans", "nowhere.toml"], "tidegate init nowhere.toml"),
    ] {
        let (status, _, problem) = run_command(&mut command(&node, args));
        assert!(status.code() == Some(1) && problem.contains(hint), "{args:?}: {status}, {problem}");
    }

    let (status, _, problem) = run_command(command(&node, &["keys", "list"]).env("TIDEGATE_API_KEY", "tg_wrong"));
    assert_eq!(status.code(), Some(1));
    assert!(problem.contains("TIDEGATE_API_KEY"), "{problem}");
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_backup_and_verify_read_beside_a_running_node() {
    let place = Place::new(CATALOG);
    let node = place.start(None);
    node.put_tenant("acme", json!({"plan": "pro"})).await;
    for _ in 0..20 {
        let consume = json!({"tenant_id": "acme", "meter": "messages", "consume": true});
        assert_eq!(node.api(Method::POST, "/api/v1/check", Some(consume)).await.json()["allowed"], true);
    }
    let (status, shown, problem) = run_command(&mut command(&node, &["events", "--tenant", "acme"]));
    assert!(status.success(), "{problem}");
    assert!(shown.contains("acme") && shown.contains("check"), "{shown}");

    let copy = place.folder.path().join("copy.db");
    let (status, _, problem) = run(&["backup", copy.to_str().unwrap(), "--ledger", &place.ledger_url()]);
    assert!(status.success(), "{problem}");
    let (status, shown, problem) = run(&["verify", copy.to_str().unwrap()]);
    assert!(status.success(), "{shown}{problem}");
    let (status, _, problem) = run(&["backup", copy.to_str().unwrap(), "--ledger", &place.ledger_url()]);
    assert_eq!(status.code(), Some(1), "a backup overwrites nothing: {problem}");
    node.stop();

    // The copy is a ledger like any other.
    std::fs::rename(&copy, place.folder.path().join("ledger.db")).unwrap();
    for log in ["ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(place.folder.path().join(log));
    }
    let node = place.start(None);
    assert_eq!(node.used_and_denied("acme", "messages").await.0, 20);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_made_before_the_first_start() {
    let place = Place::new(CATALOG);
    let args = ["keys", "create", "--scope", "admin", "--ledger", &place.ledger_url(), "--json"];
    let (status, shown, problem) = run(&args);
    assert!(status.success(), "{problem}");
    let key = serde_json::from_str::<Value>(&shown).unwrap()["key"].as_str().unwrap().to_owned();
    let node = place.start(None);
    assert_eq!(node.api_as(&key, Method::GET, "/api/v1/tenants", None).await.unwrap().status, 200);
    let (status, _, problem) = run(&args);
    assert_eq!(status.code(), Some(1), "not while a node holds the file");
    assert!(problem.contains("TIDEGATE_API_URL") || problem.contains("process"), "{problem}");
    node.stop();
}
