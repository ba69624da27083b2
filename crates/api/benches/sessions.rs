//! What a session costs beside a check: `cargo bench -p api --bench sessions -- [rounds] [seconds] [directory]`.
//!
//! Beside checks with and without an id. Each on a SQLite file, durable, in closed loops, in interleaved rounds; opening and closing count as one. The ratio
//! of the rates counts.
#![allow(clippy::unwrap_used)]

use domain::{
    entry::Cause,
    id::{MeterKey, TenantId},
    op::Charge,
    session::CloseReason,
    time::Instant,
};
use engine::{
    Engine,
    ports::{Clock, Commit},
    requests::{Ack, Check, OpId},
    session::{SessionAsk, SessionTouch, Touched},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};
use stores::sqlite::{SqliteLedger, SqliteOptions};

// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TENANTS: u64 = 1_000;
const LOOPS: [u64; 2] = [1, 32];
const CATALOG: &str = r#"
default_plan = "free"
[meters.messages]
kind = "counter"
[meters.talk]
kind = "duration"
[plans.free]
rank = 0
limits = [
  { meter = "messages", max = 1000000000000, per = "month" },
  { meter = "messages", max = 1000000000000, per = "day" },
  { meter = "messages", max = 1000000000000, per = "minute" },
  { meter = "talk", max = 1000000000000, per = "period" },
  { meter = "talk", max = "30m", per = "session" },
  { meter = "talk", max = 1000, per = "concurrent" },
]
"#;

struct Now;
impl Clock for Now {
    fn now(&self) -> Instant {
        Instant::from_ms(UNIX_EPOCH.elapsed().unwrap().as_millis() as i64)
    }
}

/// What is done again and again.
#[derive(Clone, Copy)]
enum What {
    /// A check that is charged.
    Check,
    /// The same under an id, which makes a repeat harmless.
    CheckOnce,
    /// A session is opened and closed.
    Session,
}

#[derive(Clone)]
struct Bench {
    engine: Arc<Engine>,
    next: Arc<AtomicU64>,
}

impl Bench {
    /// A check that is charged; under an id where it `is_repeatable`.
    async fn check(&self, is_repeatable: bool) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let tenant = tenant(number);
        let check = Check {
            tenant,
            user: None,
            charges: vec![Charge { meter: MeterKey::trusted("messages"), amount: 1 }],
            features: Vec::new(),
            consume: true,
            enforce: None,
            dimensions: Vec::new(),
            id: is_repeatable.then(|| OpId { source: "".into(), id: number.to_string().into() }),
            cause: Cause::Check,
            hold: None,
            sent: None,
        };
        let admission = self.engine.admit(&check, Ack::Disk).await.unwrap();
        assert!(admission.decision.allowed);
        admission.commit.wait().await.unwrap();
    }

    async fn session(&self) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let tenant = tenant(number);
        let ask = SessionAsk {
            tenant: tenant.clone(),
            user: None,
            meter: MeterKey::trusted("talk"),
            key: None,
            id: None,
            fresh: u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(number),
            enforce: None,
            dimensions: Vec::new(),
        };
        let opened = self.engine.open_session(&ask).await.unwrap();
        let id = opened.state.as_ref().unwrap().session.id;
        opened.commit.wait().await.unwrap();
        let close = SessionTouch { id, close: Some(CloseReason::Closed), enforce: None };
        let Touched::Now(mut closed) = self.engine.touch_session(&tenant, close).await.unwrap() else {
            panic!("it was closed before");
        };
        std::mem::replace(&mut closed.commit, Commit::Done).wait().await.unwrap();
    }

    /// How many a second, by so many loops at once.
    async fn rate(&self, loops: u64, seconds: f64, what: What) -> f64 {
        let began = std::time::Instant::now();
        let tasks: Vec<_> = (0..loops)
            .map(|_| {
                let bench = self.clone();
                tokio::spawn(async move {
                    let mut done = 0_u64;
                    while began.elapsed() < Duration::from_secs_f64(seconds) {
                        match what {
                            What::Check => bench.check(false).await,
                            What::CheckOnce => bench.check(true).await,
                            What::Session => bench.session().await,
                        }
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.unwrap();
        }
        done as f64 / began.elapsed().as_secs_f64()
    }
}

fn tenant(number: u64) -> TenantId {
    TenantId::trusted(&format!("tenant-{}", number * 7919 % TENANTS))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |at: usize, default: f64| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(default);
    let (rounds, seconds) = (number(0, 5.0) as usize, number(1, 2.0));
    let folder = words.get(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("tidegate-sessions-{}.db", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = SqliteLedger::open(&path, SqliteOptions::default()).unwrap();
        let catalog = wire::catalog::load(CATALOG, "bench.toml").unwrap().catalog;
        let engine = Engine::open(ledger, Arc::new(Now), catalog, CATALOG).await.unwrap();
        let bench = Bench { engine, next: Arc::default() };
        for loops in LOOPS {
            let mut rates: [Vec<f64>; 3] = Default::default();
            for _ in 0..rounds {
                for (what, rates) in [What::Check, What::CheckOnce, What::Session].into_iter().zip(&mut rates) {
                    rates.push(bench.rate(loops, seconds, what).await);
                }
            }
            let [checks, once, sessions] = rates.map(median);
            println!(
                "{loops:>3} at once: {checks:.0} checks/s, {once:.0} under ids, {sessions:.0} sessions opened and closed/s: \
                one costs {:.2} checks, {:.2} under ids",
                checks / sessions,
                once / sessions
            );
        }
    });
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}
