//! The nine meters of a bakery, in a real PostgreSQL, SQLite and Redis, and counted here.

use crate::{
    servers::{PASSWORD, Postgres, Redis},
    world::{World, day},
};
use domain::op::Movement;
use engine::ports::SnapshotSource;
use std::{fs, path::Path};
use wire::v1::snapshots::{SnapshotAsked, SnapshotLine};

const TENANTS: i64 = 1_000;
const METERS: [&str; 9] =
    ["api_calls", "forecasts", "locations", "orders", "products", "recipes", "storage", "training_jobs", "users"];

fn catalog(folder: &Path, users_table: &str) -> String {
    let folder = folder.display();
    let gauges = ["locations", "orders", "products", "recipes", "storage", "users"];
    let mut text = String::from("[plans.free]\nrank = 0\n");
    for meter in METERS {
        let kind = if gauges.contains(&meter) { "gauge" } else { "counter" };
        text.push_str(&format!("[meters.{meter}]\nkind = \"{kind}\"\n"));
    }
    text + &format!(
        r#"
[snapshots.sources.app]
kind = "postgres"
url_file = "{folder}/app"
[snapshots.sources.kitchen]
kind = "sqlite"
url = "{folder}/kitchen.db"
[snapshots.sources.cache]
kind = "redis"
url_file = "{folder}/cache"
[snapshots.meters.products]
source = "app"
query = "SELECT tenant_id, count(*) AS value FROM products WHERE created_at < :day_end GROUP BY tenant_id"
[snapshots.meters.users]
source = "app"
query = "SELECT tenant_id, count(*) AS value FROM {users_table} GROUP BY tenant_id -- all of them"
[snapshots.meters.storage]
source = "app"
query = "SELECT tenant_id, sum(bytes) AS value FROM files GROUP BY tenant_id;"
[snapshots.meters.locations]
source = "kitchen"
query = "SELECT tenant_id, count(*) AS value FROM locations GROUP BY tenant_id"
[snapshots.meters.recipes]
source = "kitchen"
query = "SELECT tenant_id, count(*) AS value FROM recipes WHERE created_at < :day_end GROUP BY tenant_id"
[snapshots.meters.training_jobs]
source = "cache"
keys = "usage:{{tenant}}:training_jobs:{{day}}"
[snapshots.meters.forecasts]
source = "cache"
keys = "usage:{{tenant}}:forecasts:{{day}}"
"#
    )
}

fn name(number: i64) -> String {
    format!("bakery-{number:04}")
}

async fn tables(app: &Postgres, folder: &Path, cache: &Redis) {
    let of_each = format!("FROM generate_series(0, {}) AS t(n)", TENANTS - 1);
    let id = "'bakery-' || lpad(n::text, 4, '0')";
    let sql = format!(
        "CREATE TABLE products (tenant_id text, created_at timestamptz);
         INSERT INTO products SELECT {id}, '2026-03-04T12:00:00Z' {of_each}, generate_series(1, n % 7);
         INSERT INTO products SELECT {id}, '2026-03-05T23:59:59Z' {of_each};
         INSERT INTO products SELECT {id}, '2026-03-06T00:00:00Z' {of_each};
         CREATE TABLE members (tenant_id text); INSERT INTO members SELECT {id} {of_each}, generate_series(1, 2);
         CREATE TABLE files (tenant_id text, bytes bigint); INSERT INTO files SELECT {id}, n {of_each}, generate_series(1, 3);"
    );
    app.client.batch_execute(&sql).await.unwrap();
    fs::write(folder.join("app"), format!("{}\n", app.url)).unwrap();
    fs::write(folder.join("cache"), cache.url()).unwrap();
    let kitchen = rusqlite::Connection::open(folder.join("kitchen.db")).unwrap();
    let numbers = format!("WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n < {})", TENANTS - 1);
    let sql = format!(
        "CREATE TABLE locations(tenant_id TEXT); {numbers} INSERT INTO locations SELECT printf('bakery-%04d', n) FROM t;
         CREATE TABLE recipes(tenant_id TEXT, created_at TEXT);
         {numbers} INSERT INTO recipes SELECT printf('bakery-%04d', n), '2026-03-05 23:59:59' FROM t;
         {numbers} INSERT INTO recipes SELECT printf('bakery-%04d', n), '2026-03-06 00:00:00' FROM t;"
    );
    kitchen.execute_batch(&sql).unwrap();
    let mut commands = String::new();
    for number in 0..TENANTS {
        let name = name(number);
        commands.push_str(&format!("SET usage:{name}:training_jobs:2026-03-05 {}\n", number % 5));
        commands.push_str(&format!("SET usage:{name}:training_jobs:2026-03-06 99\n"));
        commands.push_str(&format!("SET usage:{name}:forecasts:2026-03-05 {number}\n"));
    }
    cache.run(&commands);
}

async fn tenants(world: &World) {
    for number in 0..TENANTS {
        world.put_tenant(&name(number), None).await;
    }
    world.happened(&name(3), "api_calls", Movement::Add(41), None).await;
    world.happened(&name(3), "orders", Movement::Set(12), None).await;
}

async fn expect_values(world: &World, number: i64, with_users: bool) {
    let own = if number == 3 { (41, 12) } else { (0, 0) };
    let users = with_users.then_some(2);
    let expected = [
        Some(own.0),
        Some(number),
        Some(1),
        Some(own.1),
        Some(number % 7 + 1),
        Some(1),
        Some(number * 3),
        Some(number % 5),
        users,
    ];
    for (meter, value) in METERS.iter().zip(expected) {
        assert_eq!(world.value(&name(number), meter, "2026-03-05").await, value, "{meter} of {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_meters_of_a_thousand_tenants_are_taken_and_one_broken_query_spoils_one() {
    let (app, cache, folder) = (Postgres::new().await, Redis::start(), tempfile::tempdir().unwrap());
    tables(&app, folder.path(), &cache).await;
    let world = World::with_sources_in(folder.path(), &catalog(folder.path(), "members"), "2026-03-05 10:00").await;
    tenants(&world).await;
    world.set_clock("2026-03-06 02:00");
    let summary = world.close_day("2026-03-05").await;
    assert!(summary.complete, "{summary:?}");
    assert_eq!((summary.tenants_done, summary.tenants_failed, summary.values), (1_000, 0, 9_000));
    for number in [0, 3, 6, 999] {
        expect_values(&world, number, true).await;
    }
    let products = world.row(&name(3), "products", "2026-03-05").await.unwrap();
    assert_eq!((products.source, products.after_reset), (SnapshotSource::Collector, None));
    // Once more: the same rows.
    let before = world.kept(&name(3)).await;
    assert!(world.close_day("2026-03-05").await.complete);
    assert_eq!(world.kept(&name(3)).await, before);

    // The table of users is called otherwise: that is named, and the other eight are there.
    let broken = World::with_sources_in(folder.path(), &catalog(folder.path(), "membres"), "2026-03-05 10:00").await;
    tenants(&broken).await;
    broken.set_clock("2026-03-06 02:00");
    let summary = broken.close_day("2026-03-05").await;
    assert_eq!((summary.complete, summary.tenants_failed, summary.values), (false, 1_000, 8_000));
    let [failure] = &summary.meters_failed[..] else { panic!("{summary:?}") };
    assert_eq!(failure.meter, "users");
    assert!(failure.reason.contains("\"membres\" does not exist"), "{}", failure.reason);
    for number in [0, 3, 999] {
        expect_values(&broken, number, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_spoils_its_own_tenant_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Redis::start();
    fs::write(folder.path().join("cache"), cache.url()).unwrap();
    let catalog = format!(
        "[meters.jobs]\nkind = \"counter\"\n[plans.free]\nrank = 0\n[snapshots.sources.cache]\nkind = \"redis\"\n\
         url_file = \"{}/cache\"\n[snapshots.meters.jobs]\nsource = \"cache\"\nkeys = \"jobs:{{tenant}}\"\nvalue_max = 100",
        folder.path().display()
    );
    cache.run(
        "SET jobs:a 7\nSET jobs:b seven\nSET jobs:c 101\nSET jobs:d -1\nLPUSH jobs:e 1\nSET jobs:stranger 1\nSET jobs:no/name 1\n",
    );
    let world = World::with_sources_in(folder.path(), &catalog, "2026-03-05 10:00").await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.put_tenant(name, None).await;
    }
    world.set_clock("2026-03-06 02:00");
    let summary = world.close_day("2026-03-05").await;
    assert_eq!((summary.tenants_done, summary.tenants_failed, summary.values), (2, 4, 2), "{summary:?}");
    assert_eq!(world.value("a", "jobs", "2026-03-05").await, Some(7));
    assert_eq!(world.value("f", "jobs", "2026-03-05").await, Some(0), "who is not named stands at 0");
    let mut named: Vec<(&str, &str)> =
        summary.failures.iter().map(|failure| (failure.tenant_id.as_str(), failure.reason.as_str())).collect();
    named.sort_unstable();
    let tenants: Vec<&str> = named.iter().map(|(tenant, _)| *tenant).collect();
    assert_eq!(tenants, ["b", "c", "d", "e", "no/name"], "{named:?}");
    assert!(named[0].1.contains("\"seven\" is no whole number") && named[1].1.contains("101 is not between 0 and 100"));

    // The day before: the keys tell only what they are now.
    let summary = world.close_day("2026-03-04").await;
    assert!(summary.meters_failed.is_empty() || summary.meters_failed[0].reason.contains("yesterday only"));
    assert!(!summary.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_shows_a_password_and_no_source_is_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let cache = Redis::start();
    for (file, text) in [
        ("wrong", format!("redis://:hunter2@127.0.0.1:{}", cache.port)),
        ("silent", format!("postgres://app:hunter2@{silent_at}/app")),
        ("none", "postgres://app:hunter2@/%%%".to_owned()),
        ("http", format!("http://{silent_at}")),
        ("authorization", "Bearer hunter2".to_owned()),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let mut catalog = String::from("[plans.free]\nrank = 0\n");
    let shown = folder.path().display();
    for (source, kind, how) in [
        ("wrong", "redis", "keys = \"a:{tenant}\""),
        ("silent", "postgres", "query = \"SELECT 1\""),
        ("none", "postgres", "query = \"SELECT 1\""),
        ("http", "http", "path = \"/usage\""),
        ("missing", "sqlite", "query = \"SELECT 1\""),
    ] {
        catalog += &format!(
            "[meters.m_{source}]\nkind = \"gauge\"\n[snapshots.sources.{source}]\nkind = \"{kind}\"\n\
             url_file = \"{shown}/{source}\"\ntimeout = \"300ms\"\n[snapshots.meters.m_{source}]\n\
             source = \"{source}\"\n{how}\n"
        );
    }
    let world = World::with_sources_in(folder.path(), &catalog, "2026-03-05 10:00").await;
    world.put_tenant("acme", None).await;
    world.set_clock("2026-03-06 02:00");
    let asked = SnapshotAsked { day: day("2026-03-05"), tenant: None, dry_run: false, per_tenant: false };
    let (lines, summary) = world.close(asked).await;
    assert_eq!(summary.meters_failed.len(), 5, "{summary:?}");
    let told = format!("{lines:?}");
    assert!(!told.contains("hunter2") && !told.contains(PASSWORD), "{told}");
    let reason = |meter: &str| {
        let failure = summary.meters_failed.iter().find(|failure| failure.meter == meter).unwrap();
        failure.reason.clone()
    };
    assert_eq!(reason("m_silent"), "no answer within 300 ms");
    assert_eq!(reason("m_http"), "no answer within 300 ms");
    // Not in the words of the server, which may quote what was sent.
    assert_eq!(reason("m_wrong"), "it does not accept the user or the password of its address");
    assert!(lines.iter().any(|line| matches!(line, SnapshotLine::NotCollected { .. })));
}
