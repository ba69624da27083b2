//! A PostgreSQL for tests: a database of its own for each, or a server of its own where it is to be stopped.

use crate::harness::{Node, PATIENCE, Place};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio_postgres::NoTls;

const HOW_TO_START: &str = "TIDEGATE_TEST_POSTGRES is not set: these tests need a PostgreSQL. Start one with\n\
                            eval \"$(.ci/postgres start)\"\nand stop it with .ci/postgres stop";

/// An empty database, and a folder with a catalog.
pub struct World {
    pub place: Place,
    pub url: String,
}

impl World {
    /// On the server that is there for all tests.
    pub async fn new(catalog: &str) -> Self {
        let server = std::env::var("TIDEGATE_TEST_POSTGRES").expect(HOW_TO_START);
        Self::on(&server, catalog).await
    }

    /// On this server.
    pub async fn on(server: &str, catalog: &str) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let name = format!("nodes_{:016x}", u64::from_le_bytes(random));
        connect(server).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { place: Place::new(catalog), url: format!("{base}/{name}") }
    }

    /// A node, not yet started.
    pub fn serve(&self) -> Command {
        self.serve_at(&self.url)
    }

    /// A node that connects by another way, not yet started.
    pub fn serve_at(&self, url: &str) -> Command {
        let mut command = self.place.serve();
        command.env("TIDEGATE_LEDGER_URL", url);
        command
    }

    /// Running nodes.
    pub fn start(&self, count: usize) -> Vec<Node> {
        (0..count).map(|_| Node::start(self.serve())).collect()
    }

    /// A number that a statement gives.
    pub async fn number(&self, sql: &str) -> i64 {
        connect(&self.url).await.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Ids that are bound to an entry, and the entries they are bound to; neither may be more than the other.
    pub async fn bound_ids(&self, tenant: &str) -> (i64, i64) {
        let of = |what: &str| format!("SELECT count({what}) FROM tidegate.ids WHERE tenant = '{tenant}'");
        (self.number(&of("*")).await, self.number(&of("DISTINCT seq")).await)
    }
}

/// A connection for the test itself. The first tries may find a server that is only just there.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let begun = Instant::now();
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server of one test.
pub struct Server {
    folder: String,
    pub url: String,
}

impl Server {
    pub fn start() -> Self {
        Self::told(&script("postgres", &["start"], &[]))
    }

    /// With its files on this disk, with these settings, made by `initdb` with these arguments.
    pub fn on_disk(disk: &str, settings: &[&str], initdb: &str) -> Self {
        let variables = [("TMPDIR", disk), ("TIDEGATE_TEST_POSTGRES_INITDB", initdb)];
        Self::told(&script("postgres", &[&["start"], settings].concat(), &variables))
    }

    /// A streaming replica.
    pub fn standby(&self) -> Self {
        Self::told(&script("postgres", &["standby"], &[("TIDEGATE_TEST_POSTGRES", &self.url)]))
    }

    fn told(shown: &str) -> Self {
        Self { folder: value(shown, "TIDEGATE_TEST_POSTGRES_DIR"), url: value(shown, "TIDEGATE_TEST_POSTGRES") }
    }

    /// Ends it as a crash does.
    pub fn crash(&self) {
        self.script("crash");
    }

    /// Ends it, every process at once.
    pub fn kill(&self) {
        self.script("kill");
    }

    /// It holds its connections and says nothing.
    pub fn pause(&self) {
        self.script("pause");
    }

    /// Starts it again on the same port, with what it had.
    pub fn resume(&self) {
        self.script("resume");
    }

    /// A replica becomes a primary.
    pub fn promote(&self) {
        self.script("promote");
    }

    fn script(&self, verb: &str) {
        script("postgres", &[verb], &[("TIDEGATE_TEST_POSTGRES_DIR", &self.folder)]);
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        self.url.split_once('@').unwrap().1.split_once('/').unwrap().0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script("stop");
    }
}

/// A PgBouncer of one test, in front of the server that is there for all tests.
pub struct Pooler {
    folder: String,
    address: String,
}

impl Pooler {
    pub fn start() -> Self {
        let shown = script("pgbouncer", &["start"], &[]);
        let url = value(&shown, "TIDEGATE_TEST_PGBOUNCER");
        let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        Self { folder: value(&shown, "TIDEGATE_TEST_PGBOUNCER_DIR"), address }
    }

    /// The way to a world by it.
    pub fn url(&self, world: &World) -> String {
        let (before, after) = world.url.split_once('@').unwrap();
        format!("{before}@{}/{}?pgbouncer=true", self.address, after.split_once('/').unwrap().1)
    }

    /// Kills it, with whatever is on its way, and starts it again.
    pub fn replace(&self) {
        for verb in ["crash", "resume"] {
            self.script(verb);
        }
    }

    fn script(&self, verb: &str) {
        script("pgbouncer", &[verb], &[("TIDEGATE_TEST_PGBOUNCER_DIR", &self.folder)]);
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.script("stop");
    }
}

fn script(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.ci").join(name);
    let mut command = Command::new(path);
    command.args(arguments).envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), ".ci/{name} {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a script says that is to be exported.
fn value(shown: &str, name: &str) -> String {
    let line = shown.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
    line.unwrap_or_else(|| panic!("no {name} in {shown}")).trim_end_matches('\'').to_owned()
}

/// Waits until something is so; how long that took.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
