//! `tidegate copy`: a ledger goes from a file to PostgreSQL and back, and is the same one everywhere.

use super::cluster::World;
use crate::harness::{Node, PATIENCE, Place, run};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::ports::{Ledger, Snapshot, SnapshotRun, SnapshotSource, Taken};
use http::Method;
use serde_json::{Value, json};
use std::path::Path;
use stores::{
    copy::{Place as CopyPlace, copy},
    sqlite::{SqliteLedger, SqliteOptions},
};

const CATALOG: &str = r#"
default_plan = "free"
[meters.calls]
kind = "counter"
event_type = "call"
[meters.credits]
kind = "counter"
[plans.free]
rank = 0
limits = [
  { meter = "calls", max = 100000, per = "day" },
  { meter = "credits", max = 50, per = "month" },
]
[plans.large]
rank = 1
limits = [{ meter = "credits", max = 5000, per = "month" }]
"#;

const TENANTS: usize = 30;

/// Events of many tenants and users, plans, keys, refusals.
async fn live(node: &Node) {
    for number in 0..TENANTS {
        let plan = if number % 3 == 0 { "large" } else { "free" };
        node.put_tenant(&format!("t{number}"), json!({"plan": plan})).await;
    }
    for batch in 0..25 {
        let events: Value = (0..1000).map(|number| event(batch * 1000 + number)).collect();
        let answer = node.api(Method::POST, "/api/v1/events", Some(events)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["rejected"]), (200, &json!([])), "{answer:?}");
    }
    for number in 0..120 {
        spend(node, number).await;
    }
}

fn event(number: usize) -> Value {
    let data = json!({"value": 1, "user_id": format!("u{}", number % 7)});
    let tenant = format!("t{}", number % TENANTS);
    json!({"specversion": "1.0", "source": "app", "id": format!("e{number}"), "type": "call", "subject": tenant, "data": data})
}

async fn spend(node: &Node, number: usize) -> bool {
    let tenant = format!("t{}", number % 4);
    let body =
        json!({"tenant_id": tenant, "meter": "credits", "amount": 3, "consume": true, "id": format!("s{number}")});
    node.api(Method::POST, "/api/v1/check", Some(body)).await.json()["allowed"] == true
}

/// Everything that can be asked about tenants, as text.
async fn shown(node: &Node, key: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for number in 0..TENANTS {
        for user in ["", "?user_id=u3"] {
            let path = format!("/api/v1/tenants/t{number}/usage{user}");
            let mut usage = node.api_as(key, Method::GET, &path, None).await.unwrap().json();
            usage.as_object_mut().unwrap().remove("as_of");
            shown.push(usage.to_string());
        }
    }
    let denials = node.api(Method::GET, "/api/v1/denials?limit=500", None).await.json();
    assert!(!denials["items"].as_array().unwrap().is_empty());
    shown.push(denials.to_string());
    shown.push(node.api(Method::GET, "/api/v1/keys", None).await.json().to_string());
    shown
}

fn same(found: &[String], expected: &[String]) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).for_each(|(found, expected)| assert_eq!(found, expected));
}

/// Repeats are known to be repeats.
async fn repeat(node: &Node) {
    let events: Value = (5000..5500).map(event).collect();
    let answer = node.api(Method::POST, "/api/v1/events", Some(events)).await.json();
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(0), &json!(500)), "{answer}");
}

fn copied(from: &str, to: &str) -> Value {
    let (status, out, log) = run(&["copy", "--json", "--from", from, "--to", to]);
    assert!(status.success(), "{out}{log}");
    serde_json::from_str(&out).unwrap()
}

/// A ledger on PostgreSQL says what its journal says, while a node is at work on it.
fn verified(url: &str, copied: &Value) {
    let (status, out, log) = run(&["verify", "--json", "--ledger", url]);
    assert!(status.success(), "{out}{log}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["clean"], &report["ids"]), (&json!(true), &copied["ids"]), "{report}");
    assert_eq!((&report["entries"], &report["denials"]), (&copied["entries"], &copied["denials"]), "{report}");
}

/// A daily history, and a day that is noted as closed.
async fn with_snapshots(file: &Path) {
    let ledger = SqliteLedger::open(file, SqliteOptions::default()).unwrap();
    let at = Instant::from_ms(1_800_000_000_000);
    let taken = |number| Taken {
        day: Day::of(at) + number,
        value: i64::from(number),
        after_reset: (number % 2 == 0).then_some(1),
        observed_at: at,
        source: SnapshotSource::Pushed,
    };
    let row =
        |number| Snapshot { tenant: TenantId::trusted("t1"), meter: MeterKey::trusted("users"), taken: taken(number) };
    ledger.snapshots().put((0..50).map(row).collect()).await.unwrap();
    let run = SnapshotRun { day: Day::of(at), started_at: at, ended_at: at, tenants_done: 1, tenants_failed: 0 };
    ledger.snapshots().put_run(run).await.unwrap();
}

/// Begins a copy and gives it up after its first batch.
async fn interrupted(from: &CopyPlace, to: &CopyPlace) {
    let first_batch = tokio::sync::Notify::new();
    let mut progress = |_| first_batch.notify_one();
    tokio::select! {
        biased;
        () = first_batch.notified() => {}
        ended = copy(from, to, &mut progress) => panic!("it was not interrupted: {ended:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_goes_to_postgresql_and_back_and_is_the_same() {
    let world = World::new(CATALOG).await;
    let file = world.place.ledger_url();
    let node = world.place.start(None);
    live(&node).await;
    let read = json!({"scope": "read", "name": "reader"});
    let key = node.api(Method::POST, "/api/v1/keys", Some(read)).await.json()["key"].as_str().unwrap().to_owned();
    // Counts of refusals that waited in memory are written down now.
    node.stop();
    let node = world.place.start(None);
    let before = shown(&node, &key).await;
    let (status, _, log) = run(&["copy", "--from", &file, "--to", &world.url]);
    assert!(!status.success() && log.contains("in use"), "a node runs on it: {log}");
    node.stop();

    with_snapshots(&world.place.ledger()).await;
    let (in_file, in_database) = (CopyPlace::Sqlite(world.place.ledger()), CopyPlace::Postgres(world.url.clone()));
    interrupted(&in_file, &in_database).await;
    let report = copied(&file, &world.url);
    assert!(report["resumed_at"].as_u64() > Some(0), "{report}");
    assert_eq!(report["snapshots"], 50, "{report}");
    assert_eq!((&report["tenants"], &report["users"]), (&json!(TENANTS), &json!(TENANTS * 7)), "{report}");
    let node = Node::start(world.serve());
    same(&shown(&node, &key).await, &before);
    repeat(&node).await;
    same(&shown(&node, &key).await, &before);
    verified(&world.url, &report);

    let back = Place::new(CATALOG);
    let (status, _, log) = run(&["copy", "--from", &world.url, "--to", &back.ledger_url()]);
    assert!(!status.success() && log.contains("stop them first"), "a node runs on it: {log}");
    // What is done there goes back too.
    node.put_tenant("t1", json!({"plan": "large"})).await;
    assert!(spend(&node, 9001).await);
    let there = shown(&node, &key).await;
    node.kill();
    interrupted(&in_database, &CopyPlace::Sqlite(back.ledger())).await;
    assert!(!back.ledger().exists(), "half a copy is in its place");
    let report = copied(&world.url, &back.ledger_url());
    assert_eq!(report["snapshots"], 50, "{report}");
    assert!(report["resumed_at"].as_u64() > Some(0), "{report}");
    let (status, out, log) = run(&["verify", back.ledger().to_str().unwrap()]);
    assert!(status.success(), "{out}{log}");
    let node = back.start(None);
    same(&shown(&node, &key).await, &there);
    repeat(&node).await;
    same(&shown(&node, &key).await, &there);
    node.stop();

    for (from, to) in [(&file, &world.url), (&world.url, &file)] {
        let (status, _, log) = run(&["copy", "--from", from, "--to", to]);
        assert!(!status.success(), "the target is taken");
        assert!(!log.contains(world.url.split(['@', ':']).nth(2).unwrap()), "the password is shown: {log}");
    }
    let (status, _, log) = run(&["copy", "--from", &file, "--to", "sqlite:other.db"]);
    assert_eq!(status.code(), Some(2), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_copy_to_the_same_place_is_refused_while_the_first_is_under_way() {
    let world = World::new(CATALOG).await;
    let node = world.place.start(None);
    live(&node).await;
    node.stop();
    let twin = Place::new(CATALOG);
    std::fs::copy(world.place.ledger(), twin.ledger()).unwrap();
    let (from, to) = (CopyPlace::Sqlite(world.place.ledger()), CopyPlace::Postgres(world.url.clone()));
    let first_batch = tokio::sync::Notify::new();
    let mut progress = |_| first_batch.notify_one();
    let mut first = std::pin::pin!(copy(&from, &to, &mut progress));
    tokio::select! {
        biased;
        () = first_batch.notified() => {}
        ended = &mut first => panic!("it has ended: {ended:?}"),
    }
    let mut unseen = |_| {};
    let also_from = CopyPlace::Sqlite(twin.ledger());
    let second = tokio::time::timeout(PATIENCE, copy(&also_from, &to, &mut unseen)).await.expect("it is told at once");
    assert!(second.as_ref().is_err_and(|error| error.to_string().contains("another copy")), "{second:?}");
    first.await.unwrap();
}
