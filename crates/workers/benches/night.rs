//! A night: the forecasts of all tenants, from the daily history of nine meters each, on SQLite. The data are made here.
//! `cargo bench -p workers --bench night`; `TENANTS=10000 DAYS=60` are how many, of how long.

use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    op::ProfileChange,
    time::{DAY_MS, Instant},
};
use engine::{
    Engine,
    ports::{Clock, Days, Ledger, Snapshot, SnapshotSource, Taken},
};
use std::{sync::Arc, time::Instant as Moment};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use workers::foresight::foresee_all;

// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const METERS: usize = 9;
const TODAY: &str = "2026-03-10";
/// Tenants that are made at once.
const AT_ONCE: usize = 500;
/// Tenants whose forecast is asked for.
const ANSWERS: usize = 2_000;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Instant {
        Instant::from_ms(i64::from(today().number()) * DAY_MS + 7_200_000)
    }
}

fn today() -> Day {
    Day::parse(TODAY).unwrap_or(Day::from_number(20_000))
}

/// Five levels and four counters; one plan with a limit on each.
fn catalog() -> String {
    let meters: String = (0..METERS)
        .map(|meter| format!("[meters.m{meter}]\nkind = \"{}\"\n", if meter < 5 { "gauge" } else { "counter" }))
        .collect();
    let limit = |meter: usize| match meter {
        0..5 => format!("{{ meter = \"m{meter}\", max = 1000 }}"),
        5..7 => format!("{{ meter = \"m{meter}\", max = 5000, per = \"month\" }}"),
        _ => format!("{{ meter = \"m{meter}\", max = 300, per = \"day\" }}"),
    };
    let limits = |factor: &str| (0..METERS).map(limit).collect::<Vec<_>>().join(", ").replace("000", factor);
    let (small, large) = (limits("000"), limits("0000"));
    format!("{meters}[plans.small]\nrank = 0\nlimits = [{small}]\n[plans.large]\nrank = 1\nlimits = [{large}]\n")
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn name(tenant: usize) -> TenantId {
    TenantId::trusted(&format!("tenant-{tenant:07}"))
}

/// A number that looks random, and is the same every time.
fn noise(tenant: usize, meter: usize, day: usize) -> i64 {
    let mixed = (tenant * 31 + meter * 17 + day * 101).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as i64 % 100
}

fn value(tenant: usize, meter: usize, day: usize) -> i64 {
    match meter {
        0..5 => 200 + (day as i64 * (noise(tenant, meter, 0) % 12)) + noise(tenant, meter, day) / 30,
        _ => 50 + noise(tenant, meter, day),
    }
}

async fn fill(engine: &Arc<Engine>, ledger: &SqliteLedger, tenants: usize, days: usize) {
    for first in (0..tenants).step_by(AT_ONCE) {
        let all = (first..(first + AT_ONCE).min(tenants)).map(|tenant| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let change = ProfileChange { plan: Some(PlanKey::trusted("small")), ..ProfileChange::default() };
                engine.put_tenant(&name(tenant), &change, "bench").await.is_ok()
            })
        });
        for done in all.collect::<Vec<_>>() {
            assert!(matches!(done.await, Ok(true)), "a tenant could not be made");
        }
    }
    for day in 0..days {
        let date = today() + (day as i32 - days as i32);
        let taken = |value| Taken {
            day: date,
            value,
            after_reset: None,
            observed_at: Fixed.now(),
            source: SnapshotSource::Collector,
        };
        let rows = (0..tenants).flat_map(|tenant| {
            (0..METERS)
                .map(move |meter| (name(tenant), MeterKey::trusted(&format!("m{meter}")), value(tenant, meter, day)))
        });
        let rows = rows.map(|(tenant, meter, value)| Snapshot { tenant, meter, taken: taken(value) }).collect();
        let begun = Moment::now();
        assert!(ledger.snapshots().put(rows).await.is_ok(), "a day could not be written");
        if day + 1 == days {
            println!("snapshots of one day, {} rows, written in {:?}", tenants * METERS, begun.elapsed());
        }
    }
}

/// What is behind a tenant's forecast whose history was not in memory.
async fn answers(engine: &Engine, ledger: &SqliteLedger, tenants: usize) {
    let lessons = forecast::Lessons::default();
    let days = Days { first: today() + -forecast::HISTORY_DAYS, last: today() };
    let mut took = Vec::new();
    for ask in 0..ANSWERS {
        let tenant = name(ask * 7_919 % tenants);
        let begun = Moment::now();
        let (Ok((_, usage)), Ok(known)) =
            (engine.usage(&tenant, None).await, ledger.snapshots().of_tenant(&tenant, days).await)
        else {
            panic!("no history");
        };
        let histories = workers::foresight::histories(&known);
        let catalog = engine.catalog();
        let seen = forecast::Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &lessons };
        assert_eq!(forecast::outlook(seen).meters.len(), METERS);
        took.push(begun.elapsed());
    }
    took.sort();
    println!("cold answers: median {:?}, p99 {:?}", took[ANSWERS / 2], took[ANSWERS * 99 / 100]);
}

#[tokio::main]
async fn main() {
    let (tenants, days) = (setting("TENANTS", 100_000), setting("DAYS", 60));
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => panic!("no folder: {error}"),
    };
    let text = catalog();
    let loaded = match wire::catalog::load(&text, "bench.toml") {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems:?}"),
    };
    let ledger = match SqliteLedger::open(&folder.path().join("night.db"), SqliteOptions::default()) {
        Ok(ledger) => ledger,
        Err(error) => panic!("{error}"),
    };
    let engine = match Engine::open(ledger.clone(), Arc::new(Fixed), loaded.catalog, &text).await {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    };
    fill(&engine, &ledger, tenants, days).await;
    answers(&engine, &ledger, tenants).await;
    for night in ["first", "second"] {
        let begun = Moment::now();
        match foresee_all(&engine).await {
            Ok(foreseen) => {
                let (took, series) = (begun.elapsed(), tenants * METERS);
                let each = took.as_secs_f64() * 1e6 / series as f64;
                println!(
                    "{night} night, {tenants} tenants of {METERS} meters with {days} days: {took:?}, {each:.1} us a meter, {foreseen:?}"
                )
            }
            Err(error) => panic!("{error}"),
        }
    }
}
