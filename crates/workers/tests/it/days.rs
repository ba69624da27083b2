//! What the ledger counted itself: days, resets, levels, late use.

use crate::world::{Store, World, day, on_every_store, tenant};
use domain::{id::MeterKey, op::Movement, time::DAY_MS};
use engine::{
    HistoryKept,
    ports::{Snapshot, SnapshotSource, Taken},
};
use std::time::Duration;
use tokio::{
    sync::mpsc::{Receiver, channel},
    task::JoinHandle,
};
use wire::v1::snapshots::{SnapshotAsked, SnapshotLine, SnapshotSummary};
use workers::{collect::Allowed, snapshot::close};

const CATALOG: &str = r#"
[meters.calls]
kind = "counter"
[meters.documents]
kind = "gauge"
[meters.seats]
kind = "gauge"
[snapshots.meters.seats]
source = "pushed"
[plans.free]
rank = 0
"#;

on_every_store! {
    a_day_holds_what_it_alone_used_and_where_levels_stood_when_it_ended
    a_day_in_which_a_period_ends_is_split_there
    late_use_closes_its_day_again
    what_was_pushed_stands_and_a_dry_run_writes_nothing
    days_past_their_keeping_are_dropped
    levels_are_those_of_the_days_end_whatever_moves_while_the_run_is_under_way
    levels_are_those_of_the_days_end_however_much_is_not_folded
    what_history_has_lost_is_not_written_over_what_it_had
}

async fn a_day_holds_what_it_alone_used_and_where_levels_stood_when_it_ended(store: Store) {
    let world = World::on(store, CATALOG, "2026-03-05 10:00").await;
    world.put_tenant("acme", None).await;
    world.happened("acme", "calls", Movement::Add(5), None).await;
    world.happened("acme", "documents", Movement::Set(30), None).await;
    world.set_clock("2026-03-05 23:59");
    world.happened("acme", "calls", Movement::Add(2), None).await;
    world.set_clock("2026-03-06 01:00");
    // After the day: neither is part of it.
    world.happened("acme", "calls", Movement::Add(100), None).await;
    world.happened("acme", "documents", Movement::Add(7), None).await;
    world.put_tenant("newcomer", None).await;
    world.set_clock("2026-03-06 02:00");
    let summary = world.close_day("2026-03-05").await;
    assert_eq!((summary.complete, summary.tenants_done, summary.values), (true, 1, 2), "{summary:?}");
    assert_eq!(world.value("acme", "calls", "2026-03-05").await, Some(7));
    assert_eq!(world.value("acme", "documents", "2026-03-05").await, Some(30));
    assert!(world.kept("newcomer").await.is_empty(), "there was no such tenant on that day");
    world.set_clock("2026-03-09 02:00");
    assert!(world.close_day("2026-03-06").await.complete);
    assert_eq!(world.value("acme", "calls", "2026-03-06").await, Some(100));
    assert_eq!(world.value("acme", "documents", "2026-03-06").await, Some(37));
    assert_eq!(world.value("newcomer", "calls", "2026-03-06").await, Some(0), "a day without use is a day");
}

async fn a_day_in_which_a_period_ends_is_split_there(store: Store) {
    let world = World::on(store, CATALOG, "2026-02-10 15:30").await;
    world.put_tenant("acme", Some("2026-02-10 15:30")).await;
    world.put_tenant("other", None).await;
    for (when, amount) in
        [("2026-03-10 09:00", 10), ("2026-03-10 15:29", 3), ("2026-03-10 15:30", 4), ("2026-03-10 23:00", 5)]
    {
        world.set_clock(when);
        world.happened("acme", "calls", Movement::Add(amount), None).await;
    }
    world.set_clock("2026-03-11 02:00");
    assert!(world.close_day("2026-03-10").await.complete);
    let row = world.row("acme", "calls", "2026-03-10").await.unwrap();
    assert_eq!((row.value, row.after_reset), (22, Some(9)));
    // The same later, when another period is open.
    world.set_clock("2026-04-20 02:00");
    assert!(world.close_day("2026-03-10").await.complete);
    let row = world.row("acme", "calls", "2026-03-10").await.unwrap();
    assert_eq!((row.value, row.after_reset), (22, Some(9)));
    world.close_day("2026-03-11").await;
    assert_eq!(world.row("acme", "calls", "2026-03-11").await.unwrap().after_reset, None);
}

async fn late_use_closes_its_day_again(store: Store) {
    let world = World::on(store, CATALOG, "2026-03-04 10:00").await;
    world.put_tenant("acme", None).await;
    world.put_tenant("bloom", None).await;
    world.happened("acme", "calls", Movement::Add(5), None).await;
    for (clock, closed) in [("2026-03-05 02:00", "2026-03-04"), ("2026-03-06 02:00", "2026-03-05")] {
        world.set_clock(clock);
        assert_eq!(world.close_day(closed).await.days_closed_again, 0);
    }
    world.happened("acme", "calls", Movement::Add(3), Some("2026-03-04 11:00")).await;
    world.set_clock("2026-03-07 02:00");
    let summary = world.close_day("2026-03-06").await;
    assert_eq!((summary.complete, summary.days_closed_again), (true, 1));
    assert_eq!(world.value("acme", "calls", "2026-03-04").await, Some(8));
    assert_eq!(world.value("bloom", "calls", "2026-03-04").await, Some(0));
}

async fn what_was_pushed_stands_and_a_dry_run_writes_nothing(store: Store) {
    let world = World::on(store, CATALOG, "2026-03-05 10:00").await;
    for name in ["acme", "bloom"] {
        world.put_tenant(name, None).await;
    }
    let push = |meter: &str, value| Snapshot {
        tenant: tenant("acme"),
        meter: MeterKey::trusted(meter),
        taken: Taken {
            day: day("2026-03-05"),
            value,
            after_reset: None,
            observed_at: world.engine.now(),
            source: SnapshotSource::Pushed,
        },
    };
    world.engine.put_snapshots(vec![push("seats", 4), push("documents", 9)]).await.unwrap();
    world.set_clock("2026-03-06 02:00");
    let asked = SnapshotAsked { day: day("2026-03-05"), tenant: None, dry_run: true, per_tenant: true };
    let (lines, summary) = world.close(asked.clone()).await;
    assert_eq!((summary.dry_run, summary.complete, summary.values), (true, true, 3));
    assert!(world.kept("bloom").await.is_empty());
    let tenants = lines.iter().filter(|line| matches!(line, SnapshotLine::Tenant { .. })).count();
    assert_eq!(tenants, 2);
    // One tenant alone.
    let one = SnapshotAsked { tenant: Some(tenant("acme")), dry_run: false, ..asked };
    assert_eq!(world.close(one).await.1.values, 1);
    assert!(world.kept("bloom").await.is_empty());
    for (meter, value) in [("seats", 4), ("documents", 9), ("calls", 0)] {
        assert_eq!(world.value("acme", meter, "2026-03-05").await, Some(value), "{meter}");
    }
}

async fn days_past_their_keeping_are_dropped(store: Store) {
    let catalog = format!("{CATALOG}\n[snapshots]\nkeep_days = 60")
        .replace("[snapshots.meters.seats]\nsource = \"pushed\"\n", "");
    let world = World::on(store, &catalog, "2026-01-05 10:00").await;
    world.put_tenant("acme", None).await;
    world.set_clock("2026-01-06 02:00");
    world.close_day("2026-01-05").await;
    world.set_clock("2026-03-06 02:00");
    world.close_day("2026-03-05").await;
    assert!(world.value("acme", "calls", "2026-01-05").await.is_some());
    world.set_clock("2026-03-07 02:00");
    world.close_day("2026-03-06").await;
    assert!(world.value("acme", "calls", "2026-01-05").await.is_none());
}

/// A run that has looked at the first tenant, and stops there until its lines are taken.
async fn begun(world: &World) -> (JoinHandle<SnapshotSummary>, Receiver<SnapshotLine>) {
    let asked = SnapshotAsked { day: day("2026-03-05"), tenant: None, dry_run: false, per_tenant: true };
    // There is room for one line, the first: that of the first tenant waits.
    let (lines, listener) = channel(1);
    let engine = world.engine.clone();
    let run = tokio::spawn(async move { close(&engine, &Allowed::default(), &asked, &lines).await });
    // As long as it may take to come that far; what it is asked to withstand holds wherever it is.
    tokio::time::sleep(Duration::from_millis(200)).await;
    (run, listener)
}

async fn levels_are_those_of_the_days_end_whatever_moves_while_the_run_is_under_way(store: Store) {
    let world = World::on(store, CATALOG, "2026-03-05 10:00").await;
    for name in ["acme", "bloom", "cid"] {
        world.put_tenant(name, None).await;
        world.happened(name, "documents", Movement::Set(30), None).await;
    }
    world.set_clock("2026-03-06 02:00");
    world.happened("bloom", "documents", Movement::Add(5), None).await;
    // History is as it was before the run began: what moves now is in the journal alone.
    world.fold().await;
    let (run, mut listener) = begun(&world).await;
    world.set_clock("2026-03-06 02:01");
    for name in ["acme", "bloom", "cid"] {
        world.happened(name, "documents", Movement::Add(7), None).await;
    }
    world.set_clock("2026-03-06 02:02");
    while listener.recv().await.is_some() {}
    assert!(run.await.unwrap().complete);
    for name in ["acme", "bloom", "cid"] {
        assert_eq!(world.value(name, "documents", "2026-03-05").await, Some(30), "{name}");
    }
    assert!(world.close_day("2026-03-05").await.complete);
    assert_eq!(world.value("bloom", "documents", "2026-03-05").await, Some(30));
}

async fn levels_are_those_of_the_days_end_however_much_is_not_folded(store: Store) {
    let world = World::on(store, CATALOG, "2026-03-05 10:00").await;
    for name in ["acme", "bloom"] {
        world.put_tenant(name, None).await;
        world.happened(name, "documents", Movement::Set(30), None).await;
    }
    world.set_clock("2026-03-06 01:00");
    world.happened("bloom", "documents", Movement::Add(3), None).await;
    world.fold().await;
    let (run, mut listener) = begun(&world).await;
    world.set_clock("2026-03-06 01:01");
    world.happened_often("bloom", "documents", Movement::Add(1), 11_000).await;
    while listener.recv().await.is_some() {}
    assert!(run.await.unwrap().complete);
    assert_eq!(world.value("bloom", "documents", "2026-03-05").await, Some(30));
}

async fn what_history_has_lost_is_not_written_over_what_it_had(store: Store) {
    let world = World::on(store, CATALOG, "2026-03-04 10:00").await;
    world.put_tenant("acme", None).await;
    for (clock, closed) in [("2026-03-05 02:00", "2026-03-04"), ("2026-03-06 02:00", "2026-03-05")] {
        world.happened("acme", "calls", Movement::Add(5), None).await;
        world.happened("acme", "documents", Movement::Add(2), None).await;
        world.set_clock(clock);
        assert!(world.close_day(closed).await.complete);
    }
    // Settings of before kept two days: the first of them, and what comes late to it, is not whole any more.
    world.set_clock("2026-03-07 02:00");
    let two_days = HistoryKept { minutes_ms: 0, quarters_ms: 0, days_ms: 2 * DAY_MS - 1 };
    world.happened("acme", "calls", Movement::Add(1), Some("2026-03-04 11:00")).await;
    while world.engine.fold_history(two_days).await.unwrap().more {}
    let summary = world.close_day("2026-03-06").await;
    assert_eq!((summary.complete, summary.days_closed_again), (true, 0), "{summary:?}");
    assert_eq!(world.value("acme", "calls", "2026-03-04").await, Some(5));
    // Asked for by hand it is lacking, and said so.
    let summary = world.close_day("2026-03-04").await;
    assert_eq!((summary.complete, summary.tenants_failed, summary.values), (false, 1, 0), "{summary:?}");
    let lacking: Vec<&str> = summary.meters_failed.iter().map(|failed| &*failed.meter).collect();
    assert_eq!(lacking, ["calls", "documents"]);
    assert!(summary.meters_failed[0].reason.contains("TIDEGATE_LEDGER_HISTORY"), "{summary:?}");
    assert_eq!(world.value("acme", "calls", "2026-03-04").await, Some(5));
}
