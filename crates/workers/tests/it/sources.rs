//! Sources that mean ill, are slow, or are set up otherwise than one would think; asked as they really are.

use crate::{
    servers::Postgres,
    world::{World, day},
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use workers::collect::{Allowed, Row, collect};

const DAY: &str = "2026-03-05";

/// Asks one source for one meter: `how` are the keys of its collector.
async fn ask(allowed: &Allowed, source: &str, how: &str) -> Result<Vec<(String, i64)>, String> {
    let text = format!(
        "[meters.m]\nkind = \"gauge\"\n[plans.free]\nrank = 0\n[snapshots.sources.app]\n{source}\n\
         [snapshots.meters.m]\nsource = \"app\"\n{how}"
    );
    let rules = wire::catalog::load(&text, "test").unwrap_or_else(|problems| panic!("{problems:?}")).snapshots;
    let rows = collect(allowed, &rules, &rules.collectors["m"], day(DAY)).await?;
    let mut rows: Vec<(String, i64)> =
        rows.into_iter().map(|Row { tenant, value }| (tenant, value.unwrap_or(-1))).collect();
    rows.sort_unstable();
    Ok(rows)
}

fn below(folder: &Path) -> Allowed {
    Allowed { secrets: Some(folder.to_owned()), sqlite: Some(folder.to_owned()), ..Allowed::default() }
}

fn rows(of: &[(&str, i64)]) -> Result<Vec<(String, i64)>, String> {
    Ok(of.iter().map(|(tenant, value)| ((*tenant).to_owned(), *value)).collect())
}

/// A real PostgreSQL with a table of notes, and where its address is told.
struct App {
    app: Postgres,
    folder: tempfile::TempDir,
}

impl App {
    async fn new() -> Self {
        let (app, folder) = (Postgres::new().await, tempfile::tempdir().unwrap());
        fs::write(folder.path().join("app"), &app.url).unwrap();
        let sql = "CREATE TABLE notes (tenant_id text, made_at timestamp, note text);
                   INSERT INTO notes VALUES ('a', '2026-03-05 23:30', ':day_end'), ('a', '2026-03-06 00:30', ':day_end'),
                                            ('a', '2026-03-05 12:00', 'another')";
        app.client.batch_execute(sql).await.unwrap();
        Self { app, folder }
    }

    async fn ask(&self, timeout: &str, query: &str) -> Result<Vec<(String, i64)>, String> {
        let source = format!("kind = \"postgres\"\nurl_file = \"app\"\ntimeout = \"{timeout}\"");
        ask(&below(self.folder.path()), &source, &format!("query = '''\n{query}'''")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_without_a_zone_is_utc_wherever_the_server_is() {
    let app = App::new().await;
    let query = "SELECT tenant_id, count(*) AS value FROM notes WHERE made_at < :day_end GROUP BY 1";
    for zone in ["UTC", "Asia/Tokyo", "America/Los_Angeles"] {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''{zone}''', current_database()); END $$"
        );
        app.app.client.batch_execute(&sql).await.unwrap();
        assert_eq!(app.ask("10s", query).await, rows(&[("a", 2)]), "{zone}");
        let of_session = "SELECT 'a' AS tenant_id, (current_setting('timezone') = 'UTC')::int AS value";
        assert_eq!(app.ask("10s", of_session).await, rows(&[("a", 1)]), "{zone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_quoted_or_a_comment_is_not_replaced() {
    let app = App::new().await;
    for condition in [
        "note = ':day_end' -- it's :day_end",
        "note = $$:day_end$$ /* :day_end /* ' */ \" :day_end */",
        "note = E'\\x3aday_end' AND note <> E'it\\'s :day_end'",
        "note = U&'\\003aday_end'",
    ] {
        let query = format!(
            "SELECT tenant_id, count(*) AS value, 1 AS \":day_end\" FROM notes WHERE made_at < :day_end AND {condition}\nGROUP BY 1"
        );
        assert_eq!(app.ask("10s", &query).await, rows(&[("a", 1)]), "{condition}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
    let sql = "CREATE TABLE notes(tenant_id, made_at, note); INSERT INTO notes VALUES ('a', '2026-03-05 23:30:00', ':day_end'),
               ('a', '2026-03-06 00:30:00', ':day_end')";
    file.execute_batch(sql).unwrap();
    let query = "query = '''\nSELECT tenant_id, count(*) AS value, 1 AS [:day_end] FROM notes\n\
                 WHERE made_at < :day_end AND note = ':day_end' GROUP BY 1 -- :day_end'''";
    let found = ask(&below(folder.path()), "kind = \"sqlite\"\nurl = \"app.db\"", query).await;
    assert_eq!(found, rows(&[("a", 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_not_write_nor_go_on_when_nobody_waits() {
    let app = App::new().await;
    for query in [
        "WITH gone AS (DELETE FROM notes RETURNING 1) SELECT 'a' AS tenant_id, 1 AS value FROM gone",
        "SELECT 'a' AS tenant_id, set_config('transaction_read_only', 'off', true) AS value",
        "SELECT 'a' AS tenant_id, 1 AS value) AS x; DELETE FROM notes; SELECT 1 FROM (SELECT 1",
    ] {
        let refused = app.ask("10s", query).await.unwrap_err();
        assert!(refused.starts_with("PostgreSQL: "), "{query}: {refused}");
    }
    let slow = "SELECT 'a' AS tenant_id, count(*) AS value FROM generate_series(1, 1000000000), pg_sleep(60)";
    let refused = app.ask("300ms", slow).await.unwrap_err();
    // Whoever's clock was first.
    assert!(refused == "no answer within 300 ms" || refused.contains("statement timeout"), "{refused}");
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tidegate%'";
    let gone = async {
        while app.app.client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the server is rid of it");
    // Texts are cut where they can mean nothing any more.
    let long = "SELECT repeat('a', 10000000) AS tenant_id, repeat('9', 10000000) AS value";
    let found = app.ask("60s", long).await.unwrap();
    assert_eq!((found.len(), found[0].0.len() < 1_000, found[0].1), (1, true, -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_the_node_does_not_allow_spoils_its_meter_and_says_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().display();
    fs::write(folder.path().join("secret"), "redis://127.0.0.1:1").unwrap();
    rusqlite::Connection::open(folder.path().join("app.db")).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let mut catalog = String::from("[meters.calls]\nkind = \"counter\"\n[plans.free]\nrank = 0\n");
    for (name, source, how) in [
        ("variable", "kind = \"postgres\"\nurl_env = \"PATH\"".to_owned(), "query = \"SELECT 1\""),
        ("file", format!("kind = \"redis\"\nurl_file = \"{shown}/secret\""), "keys = \"a:{tenant}\""),
        ("sqlite", format!("kind = \"sqlite\"\nurl = \"{shown}/app.db\""), "query = \"SELECT 1\""),
        (
            "header",
            "kind = \"http\"\nurl = \"http://127.0.0.1:1\"\nauthorization_env = \"PATH\"".to_owned(),
            "path = \"/\"",
        ),
    ] {
        catalog += &format!(
            "[meters.{name}]\nkind = \"gauge\"\n[snapshots.sources.{name}]\n{source}\n\
             [snapshots.meters.{name}]\nsource = \"{name}\"\n{how}\n"
        );
    }
    let world = World::new(&catalog, "2026-03-05 10:00").await;
    world.put_tenant("acme", None).await;
    world.set_clock("2026-03-06 02:00");
    let summary = world.close_day(DAY).await;
    assert_eq!(summary.values, 1, "what is counted here is there: {summary:?}");
    let told: Vec<(&str, bool)> = summary
        .meters_failed
        .iter()
        .map(|failure| (failure.meter.as_str(), failure.reason.contains("set TIDEGATE_SNAPSHOTS_")))
        .collect();
    assert_eq!(told, [("file", true), ("header", true), ("sqlite", true), ("variable", true)], "{summary:?}");
}

/// A query that never ends.
const ENDLESS: &str = "query = \"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT 'a' AS tenant_id, max(n) AS value FROM t\"";
const ONE: &str = "query = \"SELECT 'a' AS tenant_id, 1 AS value\"";

#[test]
fn a_query_of_sqlite_ends_with_its_time_even_if_it_began_when_nobody_waited() {
    let folder = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(folder.path().join("app.db")).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let allowed = below(folder.path());
    let source = |timeout: &str| format!("kind = \"sqlite\"\nurl = \"app.db\"\ntimeout = \"{timeout}\"");
    // One thread: a query that goes on would keep the next from ever being asked.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let late = ask(&allowed, &source("200ms"), ENDLESS).await;
        assert_eq!(late.unwrap_err(), "no answer within 200 ms");
        assert_eq!(ask(&allowed, &source("60s"), ONE).await, rows(&[("a", 1)]));

        let (let_go, until) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || until.recv());
        let late = ask(&allowed, &source("200ms"), ENDLESS).await;
        assert_eq!(late.unwrap_err(), "no answer within 200 ms");
        drop(let_go);
        let _ = busy.await;
        assert_eq!(ask(&allowed, &source("60s"), ONE).await, rows(&[("a", 1)]));

        // Whoever stops waiting before the time is over stops the query as well.
        let source_of_an_hour = source("1h");
        let asked = ask(&allowed, &source_of_an_hour, ENDLESS);
        assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
        assert_eq!(ask(&allowed, &source("60s"), ONE).await, rows(&[("a", 1)]));

        let large = "query = \"SELECT 'a' AS tenant_id, length(zeroblob(900000000)) AS value\"";
        let refused = ask(&allowed, &source("60s"), large).await.unwrap_err();
        assert!(refused.contains("too big"), "{refused}");
    });
}

/// A service that says the same to everybody, and how often it was called.
struct Service {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Service {
    fn new(answer: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, calls) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = calls.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                answer(&mut stream);
            }
        });
        Self { address, calls }
    }

    fn saying(answer: String) -> Self {
        Self::new(move |stream| drop(stream.write_all(answer.as_bytes())))
    }

    async fn ask(&self, more: &str) -> Result<Vec<(String, i64)>, String> {
        let source = format!("kind = \"http\"\nurl = \"http://{}\"\n{more}", self.address);
        ask(&Allowed::default(), &source, "path = \"/usage?day={day}\"").await
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_read_in_both_shapes_and_no_further_than_it_may_go() {
    let list = r#"[{"tenant_id":"a","value":1},{"tenant_id":"b","value":"2.0"},{"tenant_id":"c","value":[]}]"#;
    let expected = rows(&[("a", 1), ("b", 2), ("c", -1)]);
    assert_eq!(Service::saying(ok(list)).ask("").await, expected);
    assert_eq!(Service::saying(ok(r#"{"a":1,"b":2,"c":2.5}"#)).ask("").await, expected);
    let many = Service::saying(ok(list)).ask("rows_max = 2").await.unwrap_err();
    assert!(many.contains("raise `rows_max`"), "{many}");
    let page = Service::saying(ok("<html>")).ask("").await.unwrap_err();
    assert!(page.contains("a list of") || page.contains("can't be read"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_told_and_not_followed() {
    let elsewhere = Service::saying(ok(r#"{"a":1}"#));
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let to = format!("HTTP/1.1 {status}\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", elsewhere.address);
        let told = Service::saying(to).ask("").await.unwrap_err();
        assert!(told.contains("redirects are not followed"), "{told}");
    }
    assert_eq!(elsewhere.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_has_its_time_and_an_endless_one_its_size() {
    let drop_by_drop = Service::new(|stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[";
        let mut goes_on = stream.write_all(head.as_bytes()).is_ok();
        while goes_on {
            std::thread::sleep(Duration::from_millis(20));
            goes_on = stream.write_all(b" ").is_ok();
        }
    });
    let late = drop_by_drop.ask("timeout = \"300ms\"").await;
    assert_eq!(late.unwrap_err(), "no answer within 300 ms");

    let endless = Service::new(|stream| {
        let piece = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
        let mut goes_on = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_ok();
        while goes_on {
            goes_on = stream.write_all(piece.as_bytes()).is_ok();
        }
    });
    let large = endless.ask("timeout = \"5m\"").await.unwrap_err();
    assert!(large.contains("more than 64 MiB"), "{large}");
}
