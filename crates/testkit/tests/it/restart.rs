//! What is there after a restart, drained or not, on both ledgers; and simulated worlds.

use crate::support::{Unrest, at_once, catalog, draft};
use domain::catalog::Catalog;
use engine::{
    EngineOptions,
    requests::{Event, EventOutcome},
};
use std::{path::Path, sync::Arc};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use testkit::{
    clock::SimClock,
    simulation::{audit, audit_on},
    world::{RESTLESS, World, admit, by_user, charge, event, spend, tenant, with_id},
};

fn open(path: &Path) -> Arc<SqliteLedger> {
    SqliteLedger::open(path, SqliteOptions::default()).unwrap()
}

async fn on_file(path: &Path, clock: Arc<SimClock>, catalog: Catalog, options: EngineOptions) -> World {
    World::at(clock, open(path), catalog, options).await
}

#[tokio::test]
async fn two_hundred_small_worlds_agree_with_their_auditor() {
    for seed in 0..200 {
        audit(seed, 60).await.unwrap();
    }
    for seed in 1_000..1_010 {
        audit(seed, 600).await.unwrap();
    }
}

#[tokio::test]
async fn worlds_on_files_agree_with_their_auditor() {
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        audit_on(seed, 100, open(&directory.path().join("t.db"))).await.unwrap();
    }
}

#[tokio::test]
async fn usage_is_the_same_after_a_restart() {
    for drained in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let clock = Arc::new(SimClock::at("2027-01-31T23:59:50Z"));
        let world = on_file(&path, clock.clone(), draft().default_plan("free").done(), RESTLESS).await;
        for i in 0..40 {
            let name = format!("t{}", i % 3);
            let check = by_user(spend(&name, vec![charge("requests", 1), charge("seats", 1)]), &format!("u{}", i % 2));
            world.admit(&check).await.unwrap();
            let late = |id: &str, ms| {
                let mut event = event(&name, id, "tokens", 3);
                event.fact.time = Some(engine::ports::Clock::now(&*clock).plus_ms(ms));
                event
            };
            world.engine.record(vec![late(&format!("{i}"), 0), late(&format!("l{i}"), -80_000_000)]).await.unwrap();
            if i % 7 == 0 {
                world.engine.upkeep().await.unwrap();
            }
            clock.advance_ms(977);
        }
        let usage = async |world: &World| {
            let mut all = Vec::new();
            for i in 0..3 {
                for user in [None, Some("u0"), Some("u1")] {
                    let user = user.map(testkit::world::user);
                    all.push(world.engine.usage(&tenant(&format!("t{i}")), user.as_ref()).await.unwrap());
                }
            }
            all
        };
        if drained {
            world.engine.drain().await.unwrap();
        } else {
            // Denials that were counted are written down now and then; those since are lost with the process.
            world.engine.upkeep().await.unwrap();
        }
        let before = usage(&world).await;
        drop(world);
        let world = on_file(&path, clock, draft().default_plan("free").done(), RESTLESS).await;
        assert_eq!(before, usage(&world).await, "drained: {drained}");
        assert_eq!(world.engine.tenants(None, 10).await.unwrap().len(), 3);
        assert_eq!(world.engine.catalog().version, 1, "the same text is the same version");
    }
}

/// Exactness and dedupe on a real file, with its writer, its folding and its ids on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_work_on_a_file_is_exact_and_once_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let clock = Arc::new(SimClock::at("2027-01-15T10:00:00Z"));
    let mut passed = 0;
    let mut accepted = 0;
    for round in 0..3 {
        let world = on_file(&path, clock.clone(), catalog(), RESTLESS).await;
        world.put("acme", "free").await;
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let upkeep = tokio::spawn({
            let (engine, stop) = (world.engine.clone(), stop.clone());
            async move {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    engine.upkeep().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let counts = at_once(8, |task| {
            let engine = world.engine.clone();
            async move {
                let (mut passed, mut accepted) = (0, 0);
                for i in 0..25 {
                    let gateway = engine::requests::Check {
                        cause: domain::entry::Cause::Gateway,
                        ..by_user(spend("acme", vec![charge("requests", 1)]), &format!("u{}", task % 3))
                    };
                    passed += usize::from(admit(&engine, &gateway).await.unwrap().decision.allowed);
                    // 50 ids, used by everybody in every round.
                    let batch: Vec<Event> =
                        (0..5).map(|j| event("acme", &format!("e{}", (i * 5 + j + task) % 50), "tokens", 2)).collect();
                    let outcomes = engine.record(batch).await.unwrap();
                    accepted += outcomes.iter().filter(|outcome| **outcome == EventOutcome::Accepted).count();
                    let check = with_id(spend("acme", vec![charge("seats", 1)]), "one-seat");
                    assert!(admit(&engine, &check).await.unwrap().decision.allowed);
                }
                (passed, accepted)
            }
        })
        .await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        upkeep.await.unwrap();
        passed += counts.iter().map(|count| count.0).sum::<usize>();
        accepted += counts.iter().map(|count| count.1).sum::<usize>();
        assert_eq!((passed, accepted), (90, 50), "round {round}");
        assert_eq!(world.used("acme", None, "requests").await.0, 90);
        assert_eq!(world.used("acme", None, "tokens").await.0, 100);
        assert_eq!(world.used("acme", None, "seats").await.0, 1);
        if round == 1 {
            world.engine.drain().await.unwrap();
        }
    }
}

/// What the engine says and what a fold of the whole journal says is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_journal_alone_gives_the_same_numbers() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "pro").await;
    let unrest = Unrest::around(&world, 61);
    at_once(6, |task| {
        let engine = world.engine.clone();
        async move {
            for i in 0..50 {
                let check = by_user(spend("acme", vec![charge("requests", 1)]), &format!("u{}", i % 4));
                admit(&engine, &check).await.unwrap();
                engine.record(vec![event("acme", &format!("{task}-{i}"), "tokens", 2)]).await.unwrap();
            }
        }
    })
    .await;
    unrest.end(&world).await;
    let journal = world.engine.journal(0, 1_000_000).await.unwrap();
    assert_eq!(journal.last().unwrap().0, world.disk.stats().committed_seq);
    let mut tenant: Option<domain::tenant::Tenant> = None;
    for (_, id, entry) in journal {
        let known = tenant.get_or_insert_with(|| domain::tenant::Tenant::born(id, &entry).unwrap());
        known.fold(None, &domain::entry::Entry { user: None, ..entry });
    }
    let usage = tenant.unwrap().usage(None, world.now(), &world.engine.catalog());
    assert_eq!(usage, world.engine.usage(&testkit::world::tenant("acme"), None).await.unwrap().1);
}
