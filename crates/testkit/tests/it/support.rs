//! What the tests share.

use domain::{
    catalog::{Catalog, MeterKind, Mode},
    time::WindowKind,
};
use engine::Engine;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use stores::postgres::{PostgresLedger, PostgresOptions};
use testkit::{
    catalog::{Draft, each_user, in_mode, limit},
    faulty::FaultyLedger,
    random::Random,
    world::World,
};
use tokio::task::{JoinHandle, JoinSet};

/// Three plans over a few meters.
pub fn draft() -> Draft {
    Draft::default()
        .meter("requests", MeterKind::Counter)
        .meter("tokens", MeterKind::Counter)
        .meter("seats", MeterKind::Gauge)
        .feature("analytics")
        .plan(
            "free",
            &[],
            vec![
                limit("requests", WindowKind::Day, 100),
                limit("requests", WindowKind::Month, 90),
                each_user(limit("requests", WindowKind::Day, 60)),
                limit("tokens", WindowKind::Period, 505),
                limit("seats", None, 5),
            ],
        )
        .plan("pro", &["analytics"], vec![limit("requests", WindowKind::Day, 1_000), limit("seats", None, 50)])
        .plan("watched", &[], vec![in_mode(limit("requests", WindowKind::Day, 3), Mode::Shadow)])
}

/// The catalog of [`draft`].
pub fn catalog() -> Catalog {
    draft().done()
}

/// What goes on around a test: upkeep all the time, and commits of whatever waits at the moment.
pub struct Unrest {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Unrest {
    /// Upkeep without a pause, commits in groups, slow loads, ids that memory can't tell about.
    pub fn around(world: &World, seed: u64) -> Self {
        world.ledger.hold();
        world.ledger.slow_down(3);
        world.ledger.unsure(2);
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = vec![
            tokio::spawn(keep_up(world.engine.clone(), stop.clone())),
            tokio::spawn(commit(world.ledger.clone(), seed, stop.clone())),
        ];
        Self { stop, tasks }
    }

    /// Ends it, and commits what waits.
    pub async fn end(self, world: &World) {
        self.stop.store(true, Ordering::SeqCst);
        world.ledger.let_go().await;
        for task in self.tasks {
            task.await.unwrap();
        }
        world.ledger.let_go().await;
        world.ledger.slow_down(0);
    }
}

async fn keep_up(engine: Arc<Engine>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let _ = engine.upkeep().await;
        tokio::task::yield_now().await;
    }
}

async fn commit(ledger: Arc<FaultyLedger>, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..random.below(20) {
            tokio::task::yield_now().await;
        }
        ledger.release_first(random.below(6) as usize).await;
        if random.percent(2) {
            ledger.seal_ids();
        }
    }
    ledger.release().await;
}

/// Nodes' ledgers on one PostgreSQL, in a schema of their own.
pub async fn postgres(nodes: usize) -> Vec<Arc<PostgresLedger>> {
    let server = std::env::var("TIDEGATE_TEST_POSTGRES")
        .expect("this test needs a PostgreSQL: eval \"$(.ci/postgres start)\", then .ci/postgres stop");
    let joint = if server.contains('?') { '&' } else { '?' };
    static SCHEMAS: AtomicU64 = AtomicU64::new(0);
    let number = SCHEMAS.fetch_add(1, Ordering::SeqCst);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let url = format!("{server}{joint}schema=testkit_{since:x}_{number}&sslmode=disable");
    let mut ledgers = Vec::new();
    for _ in 0..nodes {
        ledgers.push(PostgresLedger::open(&url, PostgresOptions::default()).await.unwrap());
    }
    ledgers
}

/// Runs `count` tasks at once and gives what they give.
pub async fn at_once<T, F>(count: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for index in 0..count {
        tasks.spawn(task(index));
    }
    tasks.join_all().await
}
