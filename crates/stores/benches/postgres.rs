//! How fast the store of many nodes is, beside the statements one would write oneself (`bench/pg`), in one run:
//! `eval "$(.ci/postgres start)"; cargo bench -p stores --bench postgres -- [seconds] [callers] [connections]`.
//!
//! Callers wait for each commit; each entry is what a check writes: an id and an amount. Processor time is that of all
//! processes: ours (or pgbench's) and the server's.
#![allow(clippy::unwrap_used)]

mod processes;

use domain::{
    entry::{Binding, Cause, Effect, Entry, KindSet},
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::ports::{Append, Basis, Ledger};
use parking_lot::Mutex;
use processes::{client_seconds, postmaster, server_seconds};
use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use stores::postgres::{PostgresLedger, PostgresOptions};

const TENANTS: u64 = 1_000;

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn entry(meter: &MeterKey, number: u64) -> Entry {
    let id = u128::from(mix(number)) << 64 | u128::from(mix(!number));
    Entry {
        at: Instant::from_ms(1_790_000_000_000),
        catalog: 1,
        cause: Cause::Check,
        binding: Some(Binding { id, fingerprint: number }),
        user: None,
        dimensions: vec![],
        note: None,
        effects: vec![Effect::Use { meter: meter.clone(), amount: 1, open: KindSet::ALL, closed: vec![] }],
    }
}

struct Bench {
    url: String,
    postmaster: u64,
    seconds: u64,
    callers: u64,
}

impl Bench {
    /// Measures what adds to a count.
    fn measure(&self, what: &str, run: impl FnOnce() -> u64) -> f64 {
        let (server, client) = (server_seconds(self.postmaster), client_seconds());
        let began = std::time::Instant::now();
        let count = run() as f64;
        let seconds = began.elapsed().as_secs_f64();
        let (server, client) = (server_seconds(self.postmaster) - server, client_seconds() - client);
        println!(
            "{what}: {:.0} a second; per processor second {:.0} (all processes), {:.0} (server alone); \
             server {:.2} cores, client {:.2} cores",
            count / seconds,
            count / (server + client),
            count / server,
            server / seconds,
            client / seconds,
        );
        count / (server + client)
    }

    fn ours(&self, runtime: &tokio::runtime::Runtime, ledger: &Arc<PostgresLedger>) -> u64 {
        type Books = Arc<Vec<(TenantId, Mutex<(u64, Arc<Basis>)>)>>;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let book = |number| {
            let tenant = TenantId::new(&format!("tenant-{number}")).unwrap();
            let loaded = runtime.block_on(ledger.shared().unwrap().load(&tenant, false)).unwrap();
            (tenant, Mutex::new((loaded.after.last().map_or(0, |(seq, _)| *seq), Arc::default())))
        };
        let books: Books = Arc::new((0..TENANTS).map(book).collect());
        let meter = MeterKey::new("messages").unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(self.seconds);
        let waits = Arc::new(Mutex::new(Vec::new()));
        let count = runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..self.callers {
                let (ledger, meter, books, waits) = (ledger.clone(), meter.clone(), books.clone(), waits.clone());
                tasks.spawn(async move {
                    let (mut count, mut took) = (0, Vec::new());
                    while std::time::Instant::now() < until {
                        let number = NEXT.fetch_add(1, Ordering::Relaxed) + (u64::from(std::process::id()) << 40);
                        let (tenant, book) = &books[(mix(number) % TENANTS) as usize];
                        let began = std::time::Instant::now();
                        let appended = {
                            let mut book = book.lock();
                            let append = Append {
                                follows: book.0,
                                basis: book.1.clone(),
                                ..Append::new(tenant.clone(), vec![entry(&meter, number)])
                            };
                            let appended = ledger.append(append).unwrap();
                            book.0 = appended.last;
                            appended
                        };
                        appended.commit.wait().await.unwrap();
                        took.push(began.elapsed().as_micros() as u64);
                        count += 1;
                    }
                    waits.lock().extend(took);
                    count
                });
            }
            tasks.join_all().await.into_iter().sum::<u64>()
        });
        let mut waits = std::mem::take(&mut *waits.lock());
        waits.sort_unstable();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        println!("  waited: median {:.2} ms, 99 of 100 {:.2} ms, longest {:.2} ms", at(0.5), at(0.99), at(1.0));
        count
    }

    fn pgbench(&self, script: &str) -> u64 {
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bench/pg");
        let output = Command::new("pgbench")
            .args(["-n", "-M", "prepared", "-c", &self.callers.to_string(), "-j", "2", "-T", &self.seconds.to_string()])
            .arg("-f")
            .arg(scripts.join(script))
            .arg(&self.url)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let done = text.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
        done.and_then(|count| count.split('/').next()?.trim().parse().ok()).unwrap_or_else(|| {
            panic!("pgbench said: {text}{}", String::from_utf8_lossy(&output.stderr));
        })
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let mut number = |or: u64| arguments.next().map_or(or, |text| text.parse().unwrap());
    let (seconds, callers, connections) = (number(10), number(64), number(8));
    let url = std::env::var("TIDEGATE_TEST_POSTGRES").expect("eval \"$(.ci/postgres start)\" first");
    let schema = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bench/pg/schema.sql");
    assert!(Command::new("psql").args(["-q", "-f"]).arg(schema).arg(&url).status().unwrap().success());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let own = format!("{url}?schema=bench&sslmode=disable&pool_max={connections}");
    let ledger = runtime.block_on(PostgresLedger::open(&own, PostgresOptions::default())).unwrap();
    let bench = Bench { url, postmaster: postmaster(), seconds, callers };
    for round in 1..=3 {
        println!("round {round}, {callers} callers, {TENANTS} tenants, {seconds} s each");
        let before = ledger.stats();
        let ours = bench.measure("tidegate", || bench.ours(&runtime, &ledger));
        let stats = ledger.stats();
        let commits = (stats.commits - before.commits).max(1);
        println!(
            "  {:.1} entries a commit, {:.0} us a commit",
            (stats.entries - before.entries) as f64 / commits as f64,
            (stats.commit_us - before.commit_us) as f64 / commits as f64
        );
        let transaction = bench.measure("own transaction", || bench.pgbench("check.pgbench"));
        let statement = bench.measure("own statement", || bench.pgbench("check_cte.pgbench"));
        println!("  tidegate is {:.2} x the transaction, {:.2} x the statement", ours / transaction, ours / statement);
    }
    runtime.block_on(ledger.close());
}
