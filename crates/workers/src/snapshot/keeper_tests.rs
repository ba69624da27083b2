//! The schedule, by a clock that is told.
#![allow(clippy::unwrap_used)]

use super::*;
use domain::time::DAY_MS;
use engine::ports::{Clock, SnapshotRun};
use std::sync::atomic::{AtomicI64, Ordering};
use stores::memory::MemoryLedger;

fn at(text: &str) -> Instant {
    let (day, time) = text.split_once(' ').unwrap();
    let (hour, minute) = time.split_once(':').unwrap();
    let minutes = hour.parse::<i64>().unwrap() * 60 + minute.parse::<i64>().unwrap();
    start_of(Day::parse(day).unwrap()).plus_ms(minutes * 60_000)
}

#[test]
fn days_are_due_when_the_schedule_has_come_round() {
    for (schedule, zone, closed, now, due) in [
        // Nothing was closed yet: yesterday, when its time has come.
        ("0 2 * * *", "UTC", "", "2026-03-10 01:59", "-"),
        ("0 2 * * *", "UTC", "", "2026-03-10 02:00", "2026-03-09"),
        ("0 2 * * *", "UTC", "2026-03-09", "2026-03-10 02:00", "-"),
        // After days without a node the oldest comes first.
        ("0 2 * * *", "UTC", "2026-03-05 2026-03-07", "2026-03-10 09:00", "2026-03-06"),
        ("0 2 * * *", "UTC", "2026-03-05 2026-03-06 2026-03-07", "2026-03-10 09:00", "2026-03-08"),
        // Two in the morning in New York is seven in UTC, in winter.
        ("0 2 * * *", "America/New_York", "2026-01-08", "2026-01-10 06:59", "-"),
        ("0 2 * * *", "America/New_York", "2026-01-08", "2026-01-10 07:00", "2026-01-09"),
        // Once a week, on Mondays: all that is missing.
        ("0 2 * * 1", "UTC", "2026-03-07", "2026-03-09 01:00", "-"),
        ("0 2 * * 1", "UTC", "2026-03-07", "2026-03-09 02:00", "2026-03-08"),
        ("off", "UTC", "", "2026-03-10 09:00", "-"),
    ] {
        let text = format!("[snapshots]\nschedule = \"{schedule}\"\ntimezone = \"{zone}\"\n[plans.free]\nrank = 0");
        let rules = wire::catalog::load(&text, "test").unwrap().snapshots;
        let closed: Vec<Day> = closed.split_whitespace().map(|day| Day::parse(day).unwrap()).collect();
        let found = first_due(&rules, &closed, at(now), |_| false).map_or("-".to_owned(), |day| day.to_string());
        assert_eq!(found, due, "{schedule} in {zone} at {now}");
    }
}

struct Told(AtomicI64);

impl Clock for Told {
    fn now(&self) -> Instant {
        Instant::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// A node with a clock that is told, on which two days were closed.
async fn node(now: &str) -> (Arc<Engine>, Arc<Told>) {
    let text = "[plans.free]\nrank = 0";
    let clock = Arc::new(Told(AtomicI64::new(at(now).ms())));
    let catalog = wire::catalog::load(text, "test").unwrap().catalog;
    let engine = Engine::open(MemoryLedger::new([5; 32]), clock.clone(), catalog, text).await.unwrap();
    closed(&engine, "2026-03-07", 0).await;
    closed(&engine, "2026-03-08", 0).await;
    (engine, clock)
}

async fn closed(engine: &Engine, day: &str, tenants_failed: u64) {
    let (day, now) = (Day::parse(day).unwrap(), engine.now());
    let run = SnapshotRun { day, started_at: now, ended_at: now, tenants_done: 1, tenants_failed };
    engine.put_snapshot_run(run).await.unwrap();
}

#[tokio::test]
async fn a_day_that_can_not_be_closed_is_tried_after_ever_longer_waits() {
    let (engine, clock) = node("2026-03-10 02:00").await;
    let mut schedule = Schedule::default();
    let day = Day::parse("2026-03-09").unwrap();
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert_eq!(schedule.due(&engine).await.unwrap(), Some(day));
        assert_eq!(schedule.failed(day, engine.now()), minutes * 60_000);
        clock.0.fetch_add(minutes * 60_000 - 1, Ordering::SeqCst);
        assert_eq!(schedule.due(&engine).await.unwrap(), None, "{minutes}");
        clock.0.fetch_add(1, Ordering::SeqCst);
    }
    // The next day is not kept waiting by it.
    clock.0.store(at("2026-03-11 01:30").ms(), Ordering::SeqCst);
    schedule.failed(day, engine.now());
    clock.0.store(at("2026-03-11 02:00").ms(), Ordering::SeqCst);
    assert_eq!(schedule.due(&engine).await.unwrap(), Some(day + 1));
    schedule.failed(day + 1, engine.now());
    assert_eq!(schedule.due(&engine).await.unwrap(), None);
    clock.0.fetch_add(60_000, Ordering::SeqCst);
    assert_eq!(schedule.due(&engine).await.unwrap(), Some(day + 1));
    closed(&engine, "2026-03-10", 0).await;
    assert_eq!(schedule.due(&engine).await.unwrap(), None);
    clock.0.fetch_add(3_600_000, Ordering::SeqCst);
    assert_eq!(schedule.due(&engine).await.unwrap(), Some(day));
    // Nobody waits for days because a clock was set back.
    schedule.failed(day, engine.now());
    clock.0.fetch_add(-DAY_MS / 2, Ordering::SeqCst);
    schedule.waiting.values_mut().for_each(|waiting| waiting.until = engine.now().plus_ms(DAY_MS / 2));
    assert_eq!(schedule.due(&engine).await.unwrap(), Some(day));
}

#[tokio::test]
async fn a_day_that_was_closed_in_part_waits_as_well() {
    let (engine, clock) = node("2026-03-10 02:00").await;
    closed(&engine, "2026-03-09", 1).await;
    let mut schedule = Schedule::default();
    let day = Day::parse("2026-03-09").unwrap();
    assert_eq!(schedule.due(&engine).await.unwrap(), None);
    clock.0.fetch_add(AGAIN_AFTER_MS, Ordering::SeqCst);
    assert_eq!(schedule.due(&engine).await.unwrap(), Some(day));
    schedule.failed(day, engine.now());
    assert_eq!(schedule.due(&engine).await.unwrap(), None);
    clock.0.fetch_add(WAIT_FIRST_MS, Ordering::SeqCst);
    assert_eq!(schedule.due(&engine).await.unwrap(), Some(day));
}

#[tokio::test]
async fn only_whole_nights_that_write_are_told_of() {
    let (engine, _) = node("2026-03-10 02:00").await;
    let nights = Arc::new(AtomicI64::new(0));
    let told = nights.clone();
    let ended: Ended = Arc::new(move |_| {
        told.fetch_add(1, Ordering::SeqCst);
    });
    let keeper = Keeper::new(engine, "node".to_owned(), Allowed::default(), ended);
    let day = Day::parse("2026-03-09").unwrap();
    let all = SnapshotAsked { day, tenant: None, dry_run: false, per_tenant: false };
    let one = SnapshotAsked { tenant: domain::id::TenantId::new("nobody").ok(), ..all.clone() };
    let dry = SnapshotAsked { dry_run: true, ..all.clone() };
    for (asked, told) in [(dry, 0), (one, 0), (all, 1)] {
        let mut lines = keeper.begin(asked.clone()).unwrap();
        while lines.recv().await.is_some() {}
        // The turn is given back after the last line.
        drop(keeper.busy.clone().lock_owned().await);
        assert_eq!(nights.load(Ordering::SeqCst), told, "{asked:?}");
    }
}
