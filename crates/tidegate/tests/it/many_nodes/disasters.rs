//! What needs a machine of one's own for a while: PostgreSQL's disk full, and a replica that takes over. `.ci/faults`
//! runs these; docs/many-nodes.md says what came out.

use super::{
    cluster::{Server, World, connect, until},
    traffic::{CATALOG, LIMIT, Traffic, compare},
};
use crate::harness::{ADMIN_KEY, Node, PATIENCE};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const WHY_IGNORED: &str = "TIDEGATE_TEST_SMALL_DISK is not set: run .ci/faults";

/// How long the disk stays full, and a primary dead: longer than anything waits for it.
const OUTAGE: Duration = Duration::from_secs(8);

fn catalog() -> String {
    format!("{CATALOG}[meters.bulk]\nkind = \"counter\"\n")
}

/// Writes as much as it can, batch by batch, each repeated until it is acknowledged.
struct Bulk {
    stop: Arc<AtomicBool>,
    done: tokio::task::JoinHandle<usize>,
}

const BATCH: usize = 200;
const BULK_TENANTS: usize = 20;

impl Bulk {
    fn start(apis: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let done = tokio::spawn(async move {
            let http = crate::harness::http_client();
            let mut acknowledged = 0;
            for batch in 0.. {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let events: Value = (0..BATCH).map(|number| event(batch * BATCH + number)).collect();
                let begun = Instant::now();
                for api in apis.iter().cycle().skip(batch) {
                    assert!(begun.elapsed() < 2 * PATIENCE, "a batch was never acknowledged");
                    let request = Request::post(format!("{api}/api/v1/events"))
                        .header("authorization", format!("Bearer {ADMIN_KEY}"))
                        .header("content-type", "application/json")
                        .body(Full::new(events.to_string().into()))
                        .unwrap();
                    let sent = crate::harness::send(&http, request);
                    let answer = tokio::time::timeout(Duration::from_secs(8), sent).await;
                    if let Ok(Ok(answer)) = answer
                        && answer.status == 200
                        && answer.json()["rejected"] == json!([])
                    {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                acknowledged += BATCH;
            }
            acknowledged
        });
        Self { stop, done }
    }

    /// Ends the writing; every acknowledged event was recorded once, and no other.
    async fn compare(self, node: &Node) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let acknowledged = self.done.await.unwrap();
        let mut used = 0;
        for number in 0..BULK_TENANTS.min(acknowledged) {
            used += node.used_and_denied(&format!("bulk-{number}"), "bulk").await.0;
        }
        assert_eq!(used, acknowledged as i64, "events recorded, and events acknowledged");
        acknowledged
    }
}

fn event(number: usize) -> Value {
    let tenant = format!("bulk-{}", number % BULK_TENANTS);
    json!({"specversion": "1.0", "source": "app", "id": format!("e{number}"), "type": "bulk", "subject": tenant, "data": {}})
}

/// Three nodes under load.
struct Load {
    world: World,
    nodes: Vec<Node>,
    bulk: Bulk,
    traffic: Traffic,
}

impl Load {
    /// A third of the limit has passed when this returns.
    async fn start(world: World, seed: u64) -> Self {
        let nodes = world.start(3);
        let apis: Vec<String> = nodes.iter().map(|node| node.api.clone()).collect();
        let bulk = Bulk::start(apis.clone());
        let traffic = Traffic::start(apis, seed, LIMIT * 2 / 3);
        traffic.passed(LIMIT / 3).await;
        Self { world, nodes, bulk, traffic }
    }

    /// While nothing can be written, every node says so the whole time, and nobody waits long to be told.
    async fn stays_away(&self) -> usize {
        for node in &self.nodes {
            until("a node says that it is not ready", || async { !is_ready(node).await }).await;
        }
        let begun = Instant::now();
        let (mut looks, mut ready, mut slowest) = (0, 0, Duration::ZERO);
        while begun.elapsed() < OUTAGE {
            for node in &self.nodes {
                ready += usize::from(is_ready(node).await);
                looks += 1;
                let asked = Instant::now();
                let body = json!({"tenant_id": "other", "meter": "calls", "consume": true});
                let answer = node.api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(body)).await.unwrap();
                assert_eq!(answer.status, 503, "{answer:?}");
                slowest = slowest.max(asked.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("  in {OUTAGE:?}: ready {ready} times of {looks}, the slowest 503 after {slowest:?}");
        assert_eq!(ready, 0, "a node took itself for well");
        assert!(slowest < Duration::from_secs(2), "a 503 took {slowest:?}");
        self.traffic.books.allowed()
    }

    /// Nodes are well again by themselves; how long that took.
    async fn heals(&self) -> Duration {
        let begun = Instant::now();
        for node in &self.nodes {
            until("a node is ready again", || is_ready(node)).await;
        }
        begun.elapsed()
    }

    /// The rest of the limit passes, and all books agree.
    async fn agrees(self, what: &str) {
        let Self { world, nodes, bulk, traffic } = self;
        traffic.passed(LIMIT * 2 / 3).await;
        let books = traffic.exhaust().await;
        compare(&world, &nodes.iter().collect::<Vec<_>>(), &books).await;
        let events = bulk.compare(&nodes[0]).await;
        println!(
            "{what}: {LIMIT} of {LIMIT} charges and {events} of {events} events acknowledged and recorded once, nothing \
             beside them; 503 to clients {} times",
            books.unavailable()
        );
        for node in nodes {
            node.stop();
        }
    }
}

async fn is_ready(node: &Node) -> bool {
    node.api(Method::GET, "/readyz", None).await.status == 200
}

/// Fills a disk to the last byte, until it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(disk: &Path) -> Self {
        let path = disk.join("ballast");
        let mut ballast = File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

async fn full_disk(log_elsewhere: bool) {
    let disk = PathBuf::from(std::env::var("TIDEGATE_TEST_SMALL_DISK").expect(WHY_IGNORED));
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::set_permissions(elsewhere.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let initdb = match log_elsewhere {
        true => format!("--wal-segsize=1 -X {}", elsewhere.path().join("log").display()),
        false => "--wal-segsize=1".to_owned(),
    };
    let settings = ["shared_buffers = 16MB", "min_wal_size = 2MB", "max_wal_size = 32MB"];
    let server = Server::on_disk(disk.to_str().unwrap(), &settings, &initdb);
    let load = Load::start(World::on(&server.url, &catalog()).await, 34).await;
    let ballast = Ballast::fill(&disk);
    if !log_elsewhere {
        // What the log has in store is used up, until the server ends itself.
        let client = connect(&server.url).await;
        let sql = "SELECT pg_logical_emit_message(false, 'more', 'log'), pg_switch_wal()";
        while client.batch_execute(sql).await.is_ok() {}
    }
    let passed = load.stays_away().await;
    drop(ballast);
    // With its log on the same disk it has ended itself: somebody has to start it again.
    let ended = tokio_postgres::connect(&server.url, tokio_postgres::NoTls).await.is_err();
    assert_ne!(ended, log_elsewhere);
    if ended {
        server.resume();
    }
    let healed = load.heals().await;
    let log = if log_elsewhere { "on another disk" } else { "on the same disk" };
    let server_did = if ended { "ended itself and was started again" } else { "went on" };
    load.agrees(&format!(
        "disk full after {passed} charges, PostgreSQL's log {log}: the server {server_did}, ready {healed:?} later"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs a small disk: .ci/faults runs it"]
async fn a_full_disk_is_a_503_until_there_is_room() {
    full_disk(true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs a small disk: .ci/faults runs it"]
async fn a_full_disk_under_the_log_too_is_a_503_until_the_server_is_started_again() {
    full_disk(false).await;
}

/// Commits are answered from now on only when the standby has them too.
async fn synchronous(primary: &Server) {
    let admin = connect(&primary.url).await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("the standby is synchronous", || async {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
}

async fn fail_over(how: &str, ends: impl Fn(&Server)) {
    let primary = Server::start();
    let mut world = World::on(&primary.url, &catalog()).await;
    let standby = primary.standby();
    synchronous(&primary).await;
    world.url = world.url.replace(primary.address(), &format!("{},{}", primary.address(), standby.address()));
    world.url.push_str("?target_session_attrs=read-write");
    let load = Load::start(world, 35).await;
    ends(&primary);
    let passed = load.stays_away().await;
    standby.promote();
    let healed = load.heals().await;
    // Should it live still, nobody may believe it any more.
    primary.kill();
    load.agrees(&format!(
        "primary {how} after {passed} charges, its synchronous replica promoted: ready {healed:?} later"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes a while: .ci/faults runs it"]
async fn a_replica_takes_over_from_a_primary_that_was_killed() {
    fail_over("killed", Server::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes a while: .ci/faults runs it"]
async fn a_replica_takes_over_from_a_primary_that_says_nothing() {
    fail_over("stopped, its connections held,", Server::pause).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes a while: .ci/faults runs it"]
async fn a_primary_that_lost_its_synchronous_replica_is_a_503_until_it_is_back() {
    let primary = Server::start();
    let world = World::on(&primary.url, &catalog()).await;
    let standby = primary.standby();
    synchronous(&primary).await;
    let load = Load::start(world, 36).await;
    standby.crash();
    let passed = load.stays_away().await;
    standby.resume();
    let healed = load.heals().await;
    load.agrees(&format!("synchronous replica away after {passed} charges, then back: ready {healed:?} later")).await;
}
