//! How fast the embedded ledger is: `cargo bench -p stores --bench ledger -- [seconds] [directory]`.
//!
//! Batches of entries with idempotency keys by one thread that waits for none of them but keeps the queue bounded; then
//! single entries by 32 threads that wait for each commit; then gateway traffic that folds; then single entries while a checkpoint is written.
#![allow(clippy::unwrap_used)]

use domain::{
    entry::{Binding, Cause, Effect, Entry, KindSet, Profile, Status},
    id::{MeterKey, PlanKey, TenantId},
    tenant::{Account, Slot, Tenant, Windows},
    time::{Instant, WindowKind, Zone},
};
use engine::ports::{Append, Commit, Fold, Ledger, Stored};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use stores::sqlite::{SqliteLedger, SqliteOptions};

const TENANTS: u64 = 1_000;

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn entry(meter: &MeterKey, number: u64, bound: bool) -> Entry {
    let id = u128::from(mix(number)) << 64 | u128::from(mix(!number));
    Entry {
        at: Instant::from_ms(1_790_000_000_000 + number as i64 / 200),
        catalog: 1,
        cause: Cause::Event,
        binding: bound.then_some(Binding { id, fingerprint: number }),
        user: None,
        dimensions: vec![],
        note: None,
        effects: vec![Effect::Use { meter: meter.clone(), amount: 1, open: KindSet::ALL, closed: vec![] }],
    }
}

fn wait(commit: Commit) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(commit.wait()).unwrap();
}

/// Processor time of this process so far, in seconds.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

struct Bench {
    ledger: Arc<SqliteLedger>,
    meter: MeterKey,
    tenants: Vec<TenantId>,
    next: AtomicU64,
    lasts: Duration,
}

impl Bench {
    fn report(&self, what: &str, appended: u64, began: std::time::Instant, before: (engine::ports::LedgerStats, f64)) {
        let seconds = began.elapsed().as_secs_f64();
        let busy = processor_seconds() - before.1;
        let before = before.0;
        let stats = self.ledger.stats();
        let commits = (stats.commits - before.commits).max(1);
        println!(
            "{what}: {:.0} a second, {:.0} a processor second, {:.1} rows a commit, {:.0} us a commit, {:.0} bytes a row, {} ids in memory, {} runs",
            appended as f64 / seconds,
            appended as f64 / busy.max(0.01),
            (stats.entries - before.entries) as f64 / commits as f64,
            (stats.commit_us - before.commit_us) as f64 / commits as f64,
            (stats.file_bytes.saturating_sub(before.file_bytes)) as f64
                / (stats.entries - before.entries).max(1) as f64,
            stats.recent_ids,
            stats.id_runs,
        );
    }

    /// As `POST /events` does: a batch is one append for each tenant in it, and one wait.
    fn batches(&self, size: u64, callers: usize) {
        let (before, began) = ((self.ledger.stats(), processor_seconds()), std::time::Instant::now());
        let appended = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    while began.elapsed() < self.lasts {
                        let first = self.next.fetch_add(size, Ordering::Relaxed);
                        let mut last = 0;
                        for number in (first..first + size).step_by(10) {
                            let tenant = self.tenants[(mix(number) % TENANTS) as usize].clone();
                            let entries =
                                (number..number + 10).map(|number| entry(&self.meter, number, true)).collect();
                            last = self
                                .ledger
                                .append(Append { wait: false, ..Append::new(tenant, entries) })
                                .unwrap()
                                .last;
                        }
                        wait(self.ledger.committed(&self.tenants[0], last));
                        appended.fetch_add(size, Ordering::Relaxed);
                    }
                });
            }
        });
        self.report(&format!("batches of {size}, {callers} callers"), appended.into_inner(), began, before);
    }

    fn singles(&self, callers: usize, folds: bool) {
        let (before, began) = ((self.ledger.stats(), processor_seconds()), std::time::Instant::now());
        let appended = AtomicU64::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            let until = began + self.lasts;
            for _ in 0..callers {
                let (ledger, meter) = (self.ledger.clone(), self.meter.clone());
                let tenants = self.tenants.clone();
                let first = self.next.fetch_add(1_000_000, Ordering::Relaxed);
                tasks.spawn(async move {
                    let mut number = first;
                    while std::time::Instant::now() < until {
                        number += 1;
                        let pick = if folds { 20 } else { TENANTS };
                        let tenant = tenants[(mix(number) % pick) as usize].clone();
                        let append = Append {
                            fold_after: folds.then_some(0),
                            ..Append::new(tenant, vec![entry(&meter, number, !folds)])
                        };
                        ledger.append(append).unwrap().commit.wait().await.unwrap();
                    }
                    number - first
                });
            }
            while let Some(count) = tasks.join_next().await {
                appended.fetch_add(count.unwrap(), Ordering::Relaxed);
            }
        });
        let what = if folds { "gateway traffic of 20 tenants" } else { "single checks" };
        self.report(&format!("{what}, {callers} waiting"), appended.into_inner(), began, before);
    }
}

/// Writes many folds down while single checks go on.
fn checkpoint_under_load(bench: &Bench, tenants: u64) {
    let windows = Windows::default();
    let profile = Profile {
        plan: PlanKey::new("free").unwrap(),
        status: Status::Active,
        enforce: None,
        zone: Zone::utc(),
        anchor: Instant::EPOCH,
        created_at: Instant::EPOCH,
        catalog_pin: None,
        shares: Vec::new(),
        overrides: vec![],
    };
    let slot = Slot { window: windows[0], used: 1_000, denied: 3 };
    let account = Account { slots: [slot; WindowKind::COUNT], level: 7, level_set_at: Instant::EPOCH };
    let seq = bench.ledger.stats().committed_seq;
    let fold = |number: u64| {
        let id = TenantId::new(&format!("tenant-{:08x}", mix(number) as u32)).unwrap();
        let mut state = Tenant::unborn(id, profile.clone());
        let meters = ["messages", "documents", "storage", "seats", "calls"];
        meters.into_iter().for_each(|meter| state.accounts.restore(MeterKey::new(meter).unwrap(), &account));
        Fold { tenant: Stored { state, seq }, users: vec![], from: 0, basis: Default::default() }
    };
    let folds: Vec<Fold> = (0..tenants).map(fold).collect();
    let began = std::time::Instant::now();
    let written = bench.ledger.checkpoint(folds, Some(seq));
    let took = std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            wait(written);
            began.elapsed()
        });
        bench.singles(32, false);
        waits.join().unwrap()
    });
    println!("{tenants} folds written meanwhile, in {took:?}: {:?}", bench.ledger.stats());
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let seconds: u64 = arguments.next().map_or(3, |text| text.parse().unwrap());
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).unwrap();
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), SqliteOptions::default()).unwrap();
    let bench = Bench {
        ledger,
        meter: MeterKey::new("messages").unwrap(),
        tenants: (0..TENANTS).map(|number| TenantId::new(&format!("tenant-{number}")).unwrap()).collect(),
        next: AtomicU64::new(0),
        lasts: Duration::from_secs(seconds),
    };
    bench.singles(32, false);
    bench.singles(512, true);
    checkpoint_under_load(&bench, 50_000);
    bench.batches(100, 4);
    bench.batches(1000, 4);
    let rows = bench.ledger.stats();
    println!("{rows:?}");
    drop(bench);
    let began = std::time::Instant::now();
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), SqliteOptions::default()).unwrap();
    println!("opened {} entries of tail in {:?}", ledger.stats().tail_entries, began.elapsed());
}
