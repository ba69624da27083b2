//! A start reads the tail of the journal and folds a tenant of it when it is asked for, or by and by: nobody can tell.

use crate::support::{at_once, catalog};
use domain::catalog::Catalog;
use engine::{EngineOptions, requests::EngineError};
use testkit::world::{World, by_user, charge, spend, tenant, to_plan};

const TENANTS: i64 = 10;

/// Nothing is written down, nothing of the tail is folded but what is asked for.
const IDLE: EngineOptions = EngineOptions {
    tenants_max: 1_000,
    users_max: 1_000,
    checkpoint_every_ms: i64::MAX,
    tail_max: u64::MAX,
    fold_max: 0,
    flush_denials_every_ms: i64::MAX,
    recent_ms: 0,
    leases: engine::LeaseOptions::DEFAULT,
};

/// Everything is written down in every upkeep.
const BUSY: EngineOptions = EngineOptions { checkpoint_every_ms: 0, ..IDLE };

fn name(number: i64) -> String {
    format!("t{number}")
}

async fn spend_one(world: &World, number: i64) {
    let check = by_user(spend(&name(number), vec![charge("requests", 1)]), "ann");
    assert!(world.admit(&check).await.unwrap().decision.allowed);
}

/// The same ledger after a crash.
async fn after_a_crash(world: &World, options: EngineOptions) -> World {
    world.disk.reopen().unwrap();
    World::at(world.clock.clone(), world.disk.clone(), catalog(), options).await
}

/// Tenants that only the tail knows, each with as much use as its number.
async fn with_a_tail(options: EngineOptions) -> World {
    let world = World::new(catalog(), IDLE).await;
    for number in 0..TENANTS {
        world.put(&name(number), "free").await;
        for _ in 0..number {
            spend_one(&world, number).await;
        }
    }
    let world = after_a_crash(&world, options).await;
    assert_eq!(world.engine.stats().tenants_in_memory, 0);
    world
}

async fn use_is(world: &World, extra: impl Fn(i64) -> i64) {
    for number in 0..TENANTS {
        for by in [None, Some("ann")] {
            let used = world.used(&name(number), by, "requests").await.0;
            assert_eq!(used, number + extra(number), "{} {by:?}", name(number));
        }
    }
}

#[tokio::test]
async fn tenants_are_listed_before_they_are_folded() {
    let world = with_a_tail(IDLE).await;
    let page = world.engine.tenants(Some(&tenant("t3")), 4).await.unwrap();
    let ids: Vec<&str> = page.iter().map(|card| card.id.as_str()).collect();
    assert_eq!(ids, ["t4", "t5", "t6", "t7"]);
    assert_eq!(world.engine.stats().tenants_in_memory, 4, "no more than were asked for");
    assert_eq!(world.engine.tenants(None, 100).await.unwrap().len(), TENANTS as usize);
    use_is(&world, |_| 0).await;
}

#[tokio::test]
async fn what_is_used_goes_on_from_the_tail() {
    let world = with_a_tail(IDLE).await;
    spend_one(&world, 3).await;
    use_is(&world, |number| i64::from(number == 3)).await;
}

/// A checkpoint while most of the tail is not folded, and another crash behind it: nothing is lost, nothing counts twice.
#[tokio::test]
async fn a_checkpoint_does_not_pass_what_is_not_folded() {
    let mut world = with_a_tail(BUSY).await;
    for round in 1..=3 {
        spend_one(&world, 2).await;
        spend_one(&world, 7).await;
        world.engine.upkeep().await.unwrap();
        assert_eq!(world.disk.tenants(None, 100).await.unwrap(), [tenant("t2"), tenant("t7")]);
        world = after_a_crash(&world, BUSY).await;
        assert_eq!(world.engine.tenants(None, 100).await.unwrap().len(), TENANTS as usize);
        world = after_a_crash(&world, BUSY).await;
        let asked = |number: i64| number == 2 || number == 7;
        use_is(&world, |number| if asked(number) { round } else { 0 }).await;
        world = after_a_crash(&world, BUSY).await;
    }
}

#[tokio::test]
async fn upkeep_folds_it_by_and_by_and_then_it_is_done() {
    let world = with_a_tail(EngineOptions { fold_max: 3, ..BUSY }).await;
    for folded in [3, 6, 9] {
        world.engine.upkeep().await.unwrap();
        assert_eq!(world.engine.stats().tenants_in_memory, folded);
        assert!(world.disk.stats().tail_entries > 0);
    }
    spend_one(&world, 9).await;
    world.engine.upkeep().await.unwrap();
    assert_eq!(world.disk.stats().tail_entries, 0);
    let world = after_a_crash(&world, IDLE).await;
    use_is(&world, |number| i64::from(number == 9)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_ask_at_once_find_one_tenant() {
    let world = with_a_tail(EngineOptions { fold_max: 1, ..BUSY }).await;
    world.ledger.slow_down(5);
    at_once(16, |task| {
        let engine = world.engine.clone();
        async move {
            for number in 0..TENANTS {
                let check = by_user(spend(&name(number), vec![charge("requests", 1)]), "ann");
                testkit::world::admit(&engine, &check).await.unwrap();
                if task == 0 {
                    engine.upkeep().await.unwrap();
                }
            }
        }
    })
    .await;
    use_is(&world, |_| 16).await;
    let world = after_a_crash(&world, IDLE).await;
    use_is(&world, |_| 16).await;
}

#[tokio::test]
async fn a_tenant_of_the_tail_is_changed_not_made_again() {
    let world = with_a_tail(IDLE).await;
    let (_, created) = world.engine.put_tenant(&tenant("t5"), &to_plan("pro"), "test").await.unwrap();
    assert!(!created);
    use_is(&world, |_| 0).await;
}

fn lacking(plan: &str) -> Catalog {
    let mut catalog = catalog();
    catalog.plans.remove(plan);
    catalog
}

#[tokio::test]
async fn plans_in_the_tail_are_in_use_and_those_it_leaves_are_not() {
    let world = with_a_tail(BUSY).await;
    world.put("t1", "pro").await;
    let world = after_a_crash(&world, BUSY).await;
    let refused = world.engine.apply_catalog(lacking("pro"), "without").await.unwrap_err();
    assert_eq!(refused, EngineError::PlansInUse("pro".into()));
    // By now that plan is in the tenant's row, and the change away from it in the tail.
    world.put("t1", "free").await;
    let world = after_a_crash(&world, BUSY).await;
    assert_eq!(world.disk.plans_in_use().await.unwrap().len(), 2);
    world.engine.apply_catalog(lacking("pro"), "without").await.unwrap();
    use_is(&world, |_| 0).await;
}
