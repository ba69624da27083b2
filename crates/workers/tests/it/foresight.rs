//! What follows the closing of a day.

use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    op::ProfileChange,
    time::{DAY_MS, Instant},
};
use engine::{
    Engine,
    ports::{Clock, FleetQuery, LatestForecast, Ledger, Snapshot, SnapshotRun, SnapshotSource, Taken},
};
use parking_lot::Mutex;
use std::sync::Arc;
use stores::memory::MemoryLedger;
use workers::foresight::{Foreseen, foresee_all, is_due, scores, watch};

const CATALOG: &str = r#"
[meters.calls]
kind = "counter"
[meters.products]
kind = "gauge"
[plans.starter]
rank = 0
limits = [{ meter = "products", max = 50 }, { meter = "calls", max = 1000, per = "month" }]
[plans.team]
rank = 1
limits = [{ meter = "products", max = 500 }]
"#;

struct ToldClock(Mutex<Instant>);

impl Clock for ToldClock {
    fn now(&self) -> Instant {
        *self.0.lock()
    }
}

struct World {
    engine: Arc<Engine>,
    ledger: Arc<MemoryLedger>,
    clock: Arc<ToldClock>,
}

fn night_of(day: Day) -> Instant {
    Instant::from_ms(i64::from(day.number() + 1) * DAY_MS + 7_200_000)
}

impl World {
    async fn new(tenants: &[&str]) -> Self {
        let ledger = MemoryLedger::new([3; 32]);
        let clock = Arc::new(ToldClock(Mutex::new(Instant::parse("2026-01-01T00:00:00Z").unwrap())));
        let catalog = wire::catalog::load(CATALOG, "test.toml").unwrap().catalog;
        let engine = Engine::open(ledger.clone(), clock.clone(), catalog, CATALOG).await.unwrap();
        let world = Self { engine, ledger, clock };
        for tenant in tenants {
            world.put(tenant, "starter").await;
        }
        world
    }

    async fn put(&self, tenant: &str, plan: &str) {
        let change = ProfileChange { plan: Some(PlanKey::new(plan).unwrap()), ..ProfileChange::default() };
        self.engine.put_tenant(&TenantId::new(tenant).unwrap(), &change, "test").await.unwrap();
    }

    /// The night after a day: what stood, or was used, then, and what follows.
    async fn close(&self, day: Day, values: &[(&str, &str, i64)]) -> Foreseen {
        *self.clock.0.lock() = night_of(day);
        let taken = |value| Taken {
            day,
            value,
            after_reset: None,
            observed_at: night_of(day),
            source: SnapshotSource::Collector,
        };
        let row = |(tenant, meter, value): &(&str, &str, i64)| Snapshot {
            tenant: TenantId::new(tenant).unwrap(),
            meter: MeterKey::new(meter).unwrap(),
            taken: taken(*value),
        };
        self.ledger.snapshots().put(values.iter().map(row).collect()).await.unwrap();
        foresee_all(&self.engine).await.unwrap()
    }

    async fn fleet(&self) -> Vec<LatestForecast> {
        let all = FleetQuery { limit: 100, ..FleetQuery::default() };
        self.ledger.forecasts().unwrap().fleet(&all).await.unwrap()
    }

    async fn score(&self, meter: &str) -> u64 {
        let scores = scores(&self.engine).await.unwrap();
        scores.iter().find(|(of, _)| of.as_str() == meter).map_or(0, |(_, score)| score.count)
    }
}

fn day(number: i32) -> Day {
    Day::parse("2026-01-01").unwrap() + number
}

#[tokio::test]
async fn a_night_foresees_all_tenants_and_forgets_what_is_gone() {
    let world = World::new(&["acme", "bloom"]).await;
    for number in 0..20 {
        let level = 20 + i64::from(number);
        world.close(day(number), &[("acme", "products", level), ("bloom", "products", 5)]).await;
    }
    let fleet = world.fleet().await;
    let places: Vec<(&str, &str, &str)> =
        fleet.iter().map(|row| (row.tenant.as_str(), row.meter.as_str(), &*row.status)).collect();
    assert_eq!(places[0], ("acme", "products", "warning"));
    assert_eq!(places.len(), 4, "{places:?}");
    assert_eq!((fleet[0].used, fleet[0].max, fleet[0].limit.as_deref()), (39, Some(50), Some("products")));
    assert!(fleet.iter().all(|row| row.made_at == night_of(day(19))));
    let growth = world.ledger.forecasts().unwrap().growth().await.unwrap();
    assert_eq!(growth.iter().map(|row| (row.meter.as_str(), row.tenants)).collect::<Vec<_>>(), [("products", 2)]);
    // Another plan is another headroom, and the same history.
    world.put("acme", "team").await;
    world.close(day(20), &[("acme", "products", 40), ("bloom", "products", 5)]).await;
    let fleet = world.fleet().await;
    let acme = fleet.iter().find(|row| row.tenant.as_str() == "acme" && row.meter.as_str() == "products").unwrap();
    assert_eq!((&*acme.status, acme.plan.as_str(), acme.max), ("safe", "team", Some(500)));
}

#[tokio::test]
async fn forecasts_are_kept_once_a_week_and_judged_once_when_their_horizon_has_passed() {
    let world = World::new(&["acme"]).await;
    let (mut kept, mut judged) = (0, 0);
    for number in 0..59 {
        let values = [("acme", "calls", 20)];
        let first = world.close(day(number), &values).await;
        let again = world.close(day(number), &values).await;
        assert_eq!((again.judged, again.void), (0, 0), "nothing is judged twice");
        assert_eq!(first.kept, again.kept, "what is kept is written over");
        (kept, judged) = (kept + first.kept, judged + first.judged);
    }
    // January and February have passed: from the seventh day on, one a week, none on a month's last day.
    assert!((6..=8).contains(&kept), "{kept}");
    assert_eq!(world.score("calls").await, judged);
    assert!((6..=8).contains(&judged), "{judged} of {kept}");
}

#[tokio::test]
async fn what_was_foreseen_of_another_limit_or_without_days_is_void() {
    for spoil in ["nothing", "the limit", "days"] {
        let world = World::new(&["acme"]).await;
        let mut sums = Foreseen::default();
        for number in 0..32 {
            if number == 25 && spoil == "the limit" {
                let change = ProfileChange { plan: Some(PlanKey::new("team").unwrap()), ..ProfileChange::default() };
                world.engine.put_tenant(&TenantId::new("acme").unwrap(), &change, "test").await.unwrap();
            }
            let is_lost = spoil == "days" && number == 30;
            let values: &[_] = if is_lost { &[] } else { &[("acme", "calls", 20)] };
            let night = world.close(day(number), values).await;
            (sums.judged, sums.void) = (sums.judged + night.judged, sums.void + night.void);
        }
        let all = sums.judged + sums.void;
        assert!(all > 0, "{spoil}");
        assert_eq!(if spoil == "nothing" { sums.judged } else { sums.void }, all, "{spoil}: {sums:?}");
    }
}

#[tokio::test]
async fn it_is_due_after_a_day_was_closed_and_not_again() {
    let world = World::new(&["acme"]).await;
    assert!(!is_due(&world.engine).await.unwrap(), "no day was closed yet");
    world.close(day(8), &[("acme", "products", 5)]).await;
    assert!(!is_due(&world.engine).await.unwrap());
    let ended_at = world.engine.now().plus_ms(1);
    let run = SnapshotRun { day: day(8), started_at: ended_at, ended_at, tenants_done: 1, tenants_failed: 0 };
    world.ledger.snapshots().put_run(run).await.unwrap();
    assert!(is_due(&world.engine).await.unwrap());
    *world.clock.0.lock() = ended_at.plus_ms(1);
    foresee_all(&world.engine).await.unwrap();
    assert!(!is_due(&world.engine).await.unwrap());
}

#[tokio::test]
async fn a_night_that_was_broken_off_is_due_still() {
    let world = World::new(&["acme", "bloom", "cask"]).await;
    world.close(day(8), &[("acme", "products", 45), ("bloom", "products", 5)]).await;
    let ended_at = world.engine.now().plus_ms(1);
    let run = SnapshotRun { day: day(8), started_at: ended_at, ended_at, tenants_done: 3, tenants_failed: 0 };
    world.ledger.snapshots().put_run(run).await.unwrap();
    let book = world.ledger.forecasts().unwrap();
    for (name, is_due_then) in [("acme", true), ("bloom", true), ("cask", false)] {
        let rows = world.fleet().await.into_iter().filter(|row| row.tenant.as_str() == name);
        let rows: Vec<_> = rows.map(|row| LatestForecast { made_at: ended_at.plus_ms(1), ..row }).collect();
        assert!(!rows.is_empty());
        book.put_latest(rows).await.unwrap();
        assert_eq!(is_due(&world.engine).await.unwrap(), is_due_then, "after {name}");
    }
}

/// On one thread: what a night does not let others do does not happen meanwhile.
#[tokio::test]
async fn others_have_their_turn_while_a_night_is_made() {
    const TENANTS: usize = 600;
    let names: Vec<String> = (0..TENANTS).map(|number| format!("tenant-{number:03}")).collect();
    let world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // A week's days, so that some are judged a month later; then the night that is looked at.
    let values: Vec<(&str, &str, i64)> = names.iter().map(|name| (name.as_str(), "calls", 20)).collect();
    for number in 0..30 {
        world.close(day(number), &values).await;
    }
    *world.clock.0.lock() = night_of(day(30));
    let rounds = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let upkeep = {
        let (engine, rounds) = (world.engine.clone(), rounds.clone());
        tokio::spawn(async move {
            loop {
                engine.upkeep().await.unwrap();
                rounds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        })
    };
    let engine = world.engine.clone();
    let night = tokio::spawn(async move { foresee_all(&engine).await.unwrap() });
    let foreseen = night.await.unwrap();
    upkeep.abort();
    assert_eq!(foreseen.tenants, TENANTS as u64);
    let rounds = rounds.load(std::sync::atomic::Ordering::SeqCst);
    assert!(rounds >= TENANTS / 50, "{rounds} rounds of upkeep in a night of {TENANTS} tenants");
}

#[tokio::test]
async fn a_node_that_stops_leaves_the_night_where_it_is() {
    let names: Vec<String> = (0..600).map(|number| format!("tenant-{number:03}")).collect();
    let world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.close(day(8), &[("tenant-000", "products", 5)]).await;
    let ended_at = world.engine.now().plus_ms(1);
    let run = SnapshotRun { day: day(8), started_at: ended_at, ended_at, tenants_done: 1, tenants_failed: 0 };
    world.ledger.snapshots().put_run(run).await.unwrap();
    *world.clock.0.lock() = ended_at.plus_ms(1);
    let nights = Mutex::new(0);
    let told = |foreseen: &Foreseen, _: &[_]| *nights.lock() += foreseen.tenants;
    // It is told to stop when a few of its twelve pages are through.
    let after_some_pages = async {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    };
    watch(&world.engine, "a", &told, after_some_pages).await;
    assert_eq!(*nights.lock(), 0);
    assert!(is_due(&world.engine).await.unwrap());
    // The next one makes it whole.
    let until_it_is_made = async {
        while *nights.lock() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    watch(&world.engine, "a", &told, until_it_is_made).await;
    assert_eq!(*nights.lock(), 600);
    assert!(!is_due(&world.engine).await.unwrap());
}
