//! An engine on a ledger, with a clock that is told, and a catalog.

use crate::servers::Postgres;
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    op::{Dimensions, Fact, Movement, ProfileChange},
    time::{DAY_MS, Instant},
};
use engine::{
    Engine, HistoryKept,
    ports::{Clock, Days, Ledger, MeterSnapshots, Taken},
    requests::{Event, EventOutcome, OpId},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use stores::{
    memory::MemoryLedger,
    postgres::{PostgresLedger, PostgresOptions},
    sqlite::{SqliteLedger, SqliteOptions},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use wire::v1::snapshots::{SnapshotAsked, SnapshotLine, SnapshotSummary};
use workers::{collect::Allowed, snapshot::close};

struct Told(AtomicI64);

impl Clock for Told {
    fn now(&self) -> Instant {
        Instant::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// Where the ledger is.
#[derive(Debug, Clone, Copy)]
pub enum Store {
    Memory,
    Sqlite,
    Postgres,
}

/// Runs tests that take a [`Store`] on every one of them.
macro_rules! on_every_store {
    ($($name:ident)*) => {
        mod in_memory { $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
            super::$name(crate::world::Store::Memory).await;
        })* }
        mod on_sqlite { $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
            super::$name(crate::world::Store::Sqlite).await;
        })* }
        mod on_postgres { $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
            super::$name(crate::world::Store::Postgres).await;
        })* }
    };
}
pub(crate) use on_every_store;

pub struct World {
    pub engine: Arc<Engine>,
    clock: Arc<Told>,
    pub allowed: Allowed,
    _folder: TempDir,
}

/// An instant, written `2026-03-05 10:30`.
pub fn at(text: &str) -> Instant {
    let (day, time) = text.split_once(' ').unwrap();
    let (hour, minute) = time.split_once(':').unwrap();
    let minutes = hour.parse::<i64>().unwrap() * 60 + minute.parse::<i64>().unwrap();
    Instant::from_ms(i64::from(self::day(day).number()) * DAY_MS + minutes * 60_000)
}

pub fn day(text: &str) -> Day {
    Day::parse(text).unwrap()
}

impl World {
    /// In memory.
    pub async fn new(catalog: &str, now: &str) -> Self {
        Self::on(Store::Memory, catalog, now).await
    }

    pub async fn on(store: Store, catalog: &str, now: &str) -> Self {
        let clock = Arc::new(Told(AtomicI64::new(at(now).ms())));
        let folder = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = match store {
            Store::Memory => MemoryLedger::new([7; 32]),
            Store::Sqlite => SqliteLedger::open(&folder.path().join("ledger.db"), SqliteOptions::default()).unwrap(),
            Store::Postgres => {
                PostgresLedger::open(&Postgres::new().await.url, PostgresOptions::default()).await.unwrap()
            }
        };
        let loaded = wire::catalog::load(catalog, "tidegate.toml").unwrap_or_else(|problems| panic!("{problems:?}"));
        let engine = Engine::open(ledger, clock.clone(), loaded.catalog, catalog).await.unwrap();
        Self { engine, clock, allowed: Allowed::default(), _folder: folder }
    }

    /// The same where sources lie in a directory.
    pub async fn with_sources_in(folder: &Path, catalog: &str, now: &str) -> Self {
        let folder = Some(folder.to_owned());
        let allowed = Allowed { secrets: folder.clone(), sqlite: folder, ..Allowed::default() };
        Self { allowed, ..Self::new(catalog, now).await }
    }

    pub fn set_clock(&self, now: &str) {
        self.clock.0.store(at(now).ms(), Ordering::SeqCst);
    }
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn event(name: &str, meter: &str, movement: Movement, time: Option<Instant>) -> Event {
    static NUMBER: AtomicI64 = AtomicI64::new(0);
    let id = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
    let (movements, dimensions) = (vec![(MeterKey::trusted(meter), movement)], Dimensions::default());
    let fact = Fact { movements, time, dimensions, binding: None };
    Event { tenant: tenant(name), user: None, id: OpId { source: "test".into(), id: id.into() }, fact }
}

impl World {
    /// A tenant on the plan `free`, whose billing periods are anchored at an instant.
    pub async fn put_tenant(&self, name: &str, anchor: Option<&str>) {
        let change =
            ProfileChange { plan: Some(PlanKey::trusted("free")), anchor: anchor.map(at), ..ProfileChange::default() };
        self.engine.put_tenant(&tenant(name), &change, "test").await.unwrap();
    }

    /// Something happened, now or at an instant.
    pub async fn happened(&self, name: &str, meter: &str, movement: Movement, when: Option<&str>) {
        let event = event(name, meter, movement, when.map(at));
        assert_eq!(self.engine.record(vec![event]).await.unwrap(), [EventOutcome::Accepted]);
    }

    /// Something happened so many times, now.
    pub async fn happened_often(&self, name: &str, meter: &str, movement: Movement, times: usize) {
        for begun in (0..times).step_by(1_000) {
            let events = (begun..times.min(begun + 1_000)).map(|_| event(name, meter, movement, None)).collect();
            let outcomes = self.engine.record(events).await.unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == EventOutcome::Accepted));
        }
    }

    /// Folds all there is into history.
    pub async fn fold(&self) {
        let kept = HistoryKept { minutes_ms: 30 * DAY_MS, quarters_ms: 90 * DAY_MS, days_ms: 400 * DAY_MS };
        while self.engine.fold_history(kept).await.unwrap().more {}
    }

    /// Closes a day; gives what was told, and how it went.
    pub async fn close(&self, asked: SnapshotAsked) -> (Vec<SnapshotLine>, SnapshotSummary) {
        self.fold().await;
        let (lines, mut listener) = mpsc::channel(10_000);
        let summary = close(&self.engine, &self.allowed, &asked, &lines).await;
        let mut told = Vec::new();
        while let Ok(line) = listener.try_recv() {
            told.push(line);
        }
        (told, summary)
    }

    /// Closes a day of all tenants.
    pub async fn close_day(&self, text: &str) -> SnapshotSummary {
        self.close(SnapshotAsked { day: day(text), tenant: None, dry_run: false, per_tenant: false }).await.1
    }

    pub async fn kept(&self, name: &str) -> Vec<MeterSnapshots> {
        self.engine.snapshots(&tenant(name), Days::ALL).await.unwrap()
    }

    /// The row of a tenant's meter on a day.
    pub async fn row(&self, name: &str, meter: &str, text: &str) -> Option<Taken> {
        let kept = self.kept(name).await;
        let meter = kept.into_iter().find(|kept| kept.meter.as_str() == meter)?;
        meter.days.into_iter().find(|taken| taken.day == day(text))
    }

    /// Its value.
    pub async fn value(&self, name: &str, meter: &str, text: &str) -> Option<i64> {
        self.row(name, meter, text).await.map(|taken| taken.value)
    }
}
