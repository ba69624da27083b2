//! The store of many nodes against a real PostgreSQL: each test has a schema of its own.

mod faults;
mod holds;
mod journal;
mod leases;
mod nodes;
mod pooler;
mod proxy;
mod verifying;

pub use pooler::Pooler;

use engine::ports::Ledger;
use std::{
    future::Future,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};
use stores::postgres::{PostgresLedger, PostgresOptions};

/// Ledgers live here, whatever thread or runtime a test calls them from.
static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Waits for something that needs the network.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// A place for a ledger.
pub struct Database {
    server: String,
    schema: String,
}

impl Database {
    pub fn new() -> Self {
        let server = std::env::var("TIDEGATE_TEST_POSTGRES").unwrap_or_else(|_| {
            panic!(
                "these tests need a PostgreSQL, and TIDEGATE_TEST_POSTGRES does not say where it is. ./test.sh starts \
                 one by itself; to start one by hand, that is stopped with `.ci/postgres stop`: \
                 eval \"$(.ci/postgres start)\""
            )
        });
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        Self { server, schema: format!("test_{:016x}", u64::from_be_bytes(random)) }
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The URL with other parameters as well.
    pub fn url(&self, more: &str) -> String {
        let joint = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{joint}schema={}&sslmode=disable{more}", self.server, self.schema)
    }

    /// The URL by way of another port on this machine.
    pub fn url_by(&self, port: u16) -> String {
        let url = self.url("");
        let (before, after) = url.split_once('@').unwrap();
        let (_, path) = after.split_once('/').unwrap();
        format!("{before}@127.0.0.1:{port}/{path}")
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Where the server listens.
    pub fn address(&self) -> String {
        let (_, after) = self.server.split_once('@').unwrap();
        after.split_once('/').unwrap().0.to_owned()
    }

    pub fn open(&self) -> Arc<PostgresLedger> {
        run(PostgresLedger::open(&self.url(""), PostgresOptions::default())).unwrap()
    }

    /// SQL beside the ledger, `@` standing for the schema; gives the first column as text.
    pub fn sql(&self, statements: &str) -> Vec<String> {
        sql(&self.server, &statements.replace("@.", &format!("{}.", self.schema)))
    }
}

fn sql(server: &str, statements: &str) -> Vec<String> {
    run(async {
        let (client, connection) = tokio_postgres::connect(server, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let messages = client.simple_query(statements).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
        let first = |message: &tokio_postgres::SimpleQueryMessage| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        };
        messages.iter().filter_map(first).collect()
    })
}

impl Database {
    /// Commits that wait for a lock inside the server.
    pub fn commits_waiting(&self) -> u32 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%@.meta%'
                   AND pid <> pg_backend_pid()";
        self.sql(sql)[0].parse().unwrap()
    }

    /// A session of somebody else.
    pub fn client(&self) -> tokio_postgres::Client {
        run(async {
            let (client, connection) = tokio_postgres::connect(&self.server, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sql(&format!("SET lock_timeout = '20s'; DROP SCHEMA IF EXISTS {} CASCADE", self.schema));
        }
    }
}

/// Waits for something that will be so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

/// Two nodes on one database.
pub fn two(database: &Database) -> (Arc<PostgresLedger>, Arc<PostgresLedger>) {
    let (one, two) = (database.open(), database.open());
    assert_eq!(one.secret(), two.secret(), "whoever comes first makes the secret");
    (one, two)
}
