//! What decisions cost where two nodes share a PostgreSQL, and one tenant that both are asked about, with leases and
//! without: `eval "$(.ci/postgres start)"; cargo bench -p testkit --bench nodes -- [seconds] [callers] [rounds]`.
//!
//! Two engines in one process, each on a ledger of its own. Callers consume one message under an id and wait until it is
//! durable. Processor time is that of all processes.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../stores/benches/processes/mod.rs"]
mod processes;

use domain::{
    catalog::{Catalog, MeterKind},
    entry::Cause,
    id::TenantId,
    time::{Instant, WindowKind},
};
use engine::{
    Engine, EngineOptions, LeaseOptions,
    ports::{Clock, Ledger},
    requests::{Ack, Check},
};
use processes::{client_seconds, postmaster, server_seconds};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use stores::postgres::{PostgresLedger, PostgresOptions};
use testkit::{
    catalog::{Draft, limit},
    world::{charge, op_id},
};

const TENANTS: u64 = 1_000;

struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Instant {
        Instant::from_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
    }
}

/// Who asks about whom.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// Many tenants, each always by the same node.
    EachByOne,
    /// Many tenants, each by any node.
    EachByAny,
    /// One tenant, by one node.
    HotByOne,
    /// One tenant, by both nodes.
    HotByBoth,
    /// As that, and nobody takes a lease.
    HotWithoutLeases,
}

const ALL: [Asked; 5] =
    [Asked::EachByOne, Asked::EachByAny, Asked::HotByOne, Asked::HotByBoth, Asked::HotWithoutLeases];

impl Asked {
    fn place(self, number: u64) -> (usize, u64) {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (any, tenant) = ((mixed & 1) as usize, mixed % TENANTS);
        match self {
            Asked::EachByOne => ((tenant % 2) as usize, tenant),
            Asked::EachByAny => (any, tenant),
            Asked::HotByOne => (0, 0),
            Asked::HotByBoth | Asked::HotWithoutLeases => (any, 0),
        }
    }
}

fn catalog() -> Catalog {
    let limits = vec![
        limit("messages", WindowKind::Minute, 1_000_000_000),
        limit("messages", WindowKind::Day, 100_000_000_000),
        limit("messages", WindowKind::Period, 1_000_000_000_000),
    ];
    Draft::default().meter("messages", MeterKind::Counter).plan("free", &[], limits).default_plan("free").done()
}

async fn nodes(url: &str, asked: Asked) -> Vec<(Arc<PostgresLedger>, Arc<Engine>)> {
    let lost_within_ms =
        if matches!(asked, Asked::HotWithoutLeases) { -1 } else { LeaseOptions::DEFAULT.lost_within_ms };
    let options = EngineOptions {
        leases: LeaseOptions {
            lost_within_ms,
            lasts_ms: std::env::var("LASTS").map_or(1000, |t| t.parse().unwrap()),
            ..LeaseOptions::DEFAULT
        },
        ..EngineOptions::default()
    };
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let ledger = PostgresLedger::open(url, PostgresOptions::default()).await.unwrap();
        let engine = Engine::open_with(ledger.clone(), Arc::new(WallClock), catalog(), "bench", options).await.unwrap();
        nodes.push((ledger, engine));
    }
    nodes
}

/// Asks until the time is over; gives how long each answer took, microseconds.
async fn ask(engines: Vec<Arc<Engine>>, asked: Asked, seconds: u64, callers: u64) -> Vec<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let engines = engines.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while std::time::Instant::now() < until {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let (node, tenant) = asked.place(number);
                let began = std::time::Instant::now();
                let check = Check {
                    tenant: TenantId::new(&format!("tenant-{tenant}")).unwrap(),
                    user: None,
                    charges: vec![charge("messages", 1)],
                    features: Vec::new(),
                    consume: true,
                    enforce: None,
                    dimensions: Vec::new(),
                    id: Some(op_id("", &number.to_string())),
                    cause: Cause::Check,
                    hold: None,
                    sent: None,
                };
                let admission = engines[node].admit(&check, Ack::Disk).await.unwrap();
                assert!(admission.decision.allowed);
                admission.commit.wait().await.unwrap();
                took.push(began.elapsed().as_micros() as u64);
            }
            took
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

fn measure(runtime: &tokio::runtime::Runtime, url: &str, asked: Asked, seconds: u64, callers: u64) -> f64 {
    let nodes = runtime.block_on(nodes(url, asked));
    let engines: Vec<_> = nodes.iter().map(|(_, engine)| engine.clone()).collect();
    let upkeep: Vec<_> = engines
        .iter()
        .map(|engine| {
            let engine = engine.clone();
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let _ = engine.upkeep().await;
                }
            })
        })
        .collect();
    // Tenants are made, and nodes meet.
    runtime.block_on(ask(engines.clone(), asked, 2, callers));
    let commits = || {
        nodes
            .iter()
            .map(|(ledger, _)| ledger.stats())
            .fold((0, 0), |sum, stats| (sum.0 + stats.commits, sum.1 + stats.entries))
    };
    let before = commits();
    let (server, client) = (server_seconds(postmaster()), client_seconds());
    let began = std::time::Instant::now();
    let mut took = runtime.block_on(ask(engines.clone(), asked, seconds, callers));
    let elapsed = began.elapsed().as_secs_f64();
    let (server, client) = (server_seconds(postmaster()) - server, client_seconds() - client);
    let after = commits();
    upkeep.iter().for_each(tokio::task::JoinHandle::abort);
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    let per_cpu_second = took.len() as f64 / (server + client);
    println!(
        "  {asked:?}: {:.0} a second, {per_cpu_second:.0} per processor second; half within {:.1} ms, 99 of 100 {:.1} ms, \
         999 of 1000 {:.1} ms; {:.1} entries a commit; server {:.2} cores, nodes {:.2} cores",
        took.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(0.999),
        (after.1 - before.1) as f64 / (after.0 - before.0).max(1) as f64,
        server / elapsed,
        client / elapsed,
    );
    runtime.block_on(async {
        for (ledger, engine) in nodes {
            engine.drain().await.unwrap();
            drop(engine);
            ledger.close().await;
        }
    });
    per_cpu_second
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let mut number = |or: u64| arguments.next().map_or(or, |text| text.parse().unwrap());
    let (seconds, callers, rounds) = (number(8), number(64), number(3));
    let url = std::env::var("TIDEGATE_TEST_POSTGRES").expect("eval \"$(.ci/postgres start)\" first");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for round in 1..=rounds {
        println!("round {round}, {callers} callers, {TENANTS} tenants or one, {seconds} s each");
        let schema = |asked: Asked| format!("{url}?schema=nodes_{round}_{}&sslmode=disable", asked as u8);
        let all = if std::env::var("HOT").is_ok() { [Asked::HotByBoth; 5] } else { ALL };
        let found = all.map(|asked| measure(&runtime, &schema(asked), asked, seconds, callers));
        let ratio = |asked: Asked| found[asked as usize] / found[Asked::EachByOne as usize];
        println!(
            "  per processor second, one hot tenant from two nodes is {:.2} x many tenants; without leases {:.2} x",
            ratio(Asked::HotByBoth),
            ratio(Asked::HotWithoutLeases)
        );
    }
}
