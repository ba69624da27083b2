//! A night: a day is closed and the forecasts of all tenants are made, from the daily history of nine meters each, on SQLite.
//! The data are made here: every tenant used each of its meters on the day that is closed.
//! `cargo bench -p workers --bench night`; `TENANTS=10000 DAYS=60` are how many, of how long.

use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    op::{Dimensions, Fact, Movement, ProfileChange},
    time::{DAY_MS, Instant},
};
use engine::{
    Engine, HistoryKept,
    ports::{Clock, Days, Ledger, Snapshot, SnapshotSource, Taken},
    requests::{Event, EventOutcome, OpId},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant as Moment,
};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use wire::v1::snapshots::SnapshotAsked;
use workers::{collect::Allowed, foresight::foresee_all, snapshot::close};

// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const METERS: usize = 9;
const TODAY: &str = "2026-03-10";
/// Tenants that are made at once.
const AT_ONCE: usize = 500;
/// Tenants whose forecast is asked for.
const ANSWERS: usize = 2_000;

/// A clock that is told. What is timed is timed by another.
struct Told(AtomicI64);

impl Clock for Told {
    fn now(&self) -> Instant {
        Instant::from_ms(self.0.load(Ordering::Relaxed))
    }
}

/// An hour of a day.
fn at(day: Day, hour: i64) -> Instant {
    Instant::from_ms(i64::from(day.number()) * DAY_MS + hour * 3_600_000)
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
            observed_at: at(date + 1, 2),
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

/// Every tenant uses each of its meters.
async fn use_all(engine: &Engine, tenants: usize, day: usize) {
    for first in (0..tenants).step_by(AT_ONCE) {
        let event = |tenant: usize| {
            let movement = |meter: usize| match (meter, value(tenant, meter, day)) {
                (0..5, level) => Movement::Set(level),
                (_, used) => Movement::Add(used),
            };
            let movements =
                (0..METERS).map(|meter| (MeterKey::trusted(&format!("m{meter}")), movement(meter))).collect();
            let fact = Fact { movements, time: None, dimensions: Dimensions::default(), binding: None };
            let id = OpId { source: "bench".into(), id: tenant.to_string().into() };
            Event { tenant: name(tenant), user: None, id, fact }
        };
        let outcomes = engine.record((first..(first + AT_ONCE).min(tenants)).map(event).collect()).await;
        let is_done = |outcomes: &Vec<EventOutcome>| outcomes.iter().all(|of| *of == EventOutcome::Accepted);
        assert!(outcomes.is_ok_and(|outcomes| is_done(&outcomes)), "use could not be recorded");
    }
    while engine.fold_history(HistoryKept::default()).await.is_ok_and(|folded| folded.more) {}
}

async fn close_day(engine: &Arc<Engine>, day: Day, tenants: usize) {
    let (lines, mut listener) = tokio::sync::mpsc::channel(1_000);
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let asked = SnapshotAsked { day, tenant: None, dry_run: false, per_tenant: false };
    let begun = Moment::now();
    let summary = close(engine, &Allowed::default(), &asked, &lines).await;
    assert_eq!((summary.complete, summary.values), (true, (tenants * METERS) as u64), "{summary:?}");
    println!("a day of {tenants} tenants of {METERS} meters, that the ledger counted, closed in {:?}", begun.elapsed());
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
    let (yesterday, begins) = (today() + -1, today() + -(days as i32 + 1));
    let clock = Arc::new(Told(AtomicI64::new(at(begins, 0).ms())));
    let engine = match Engine::open(ledger.clone(), clock.clone(), loaded.catalog, &text).await {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    };
    fill(&engine, &ledger, tenants, days).await;
    clock.0.store(at(yesterday, 12).ms(), Ordering::Relaxed);
    use_all(&engine, tenants, days - 1).await;
    clock.0.store(at(today(), 3).ms(), Ordering::Relaxed);
    close_day(&engine, yesterday, tenants).await;
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
