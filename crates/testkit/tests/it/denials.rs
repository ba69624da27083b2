//! Promises 6 and 7: denied is not used, and every denial can be explained; storms of them cost little.

use crate::support::{catalog, draft};
use engine::{
    EngineOptions,
    ports::{DenialQuery, StoredDenial},
    requests::{Ack, Check},
};
use testkit::world::{RESTLESS, World, by_user, charge, spend, tenant};

fn too_much() -> Check {
    spend("acme", vec![charge("tokens", 600)])
}

async fn listed(world: &World, shadow: bool) -> Vec<StoredDenial> {
    let query = DenialQuery { tenant: Some(tenant("acme")), shadow, limit: 1_000, ..DenialQuery::default() };
    world.engine.denials(&query).await.unwrap()
}

#[tokio::test]
async fn a_storm_of_identical_denials_is_one_line_and_all_are_counted() {
    let options = EngineOptions { flush_denials_every_ms: 10_000, ..EngineOptions::default() };
    let world = World::new(catalog(), options).await;
    world.put("acme", "free").await;
    let before = world.engine.stats().ledger.committed_seq;
    let first = world.admit(&too_much()).await.unwrap();
    for i in 1..20_000 {
        let denied = world.engine.admit(&too_much(), Ack::Disk).await.unwrap();
        assert_eq!(denied.denial_id, first.denial_id);
        if i % 1_000 == 0 {
            assert_eq!(world.used("acme", None, "tokens").await, (0, 600 * (i + 1)), "counted at once");
        }
    }
    world.engine.upkeep().await.unwrap();
    let lines = world.engine.stats().ledger.committed_seq - before;
    assert!(lines <= 2, "{lines} lines");
    let stored = listed(&world, false).await;
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].run.count, stored[0].run.amount), (20_000, 12_000_000));
    assert_eq!((stored[0].run.used, stored[0].run.max), (0, Some(505)));
    assert_eq!(Some(stored[0].id), first.denial_id);
    assert_eq!(world.used("acme", None, "tokens").await, (0, 12_000_000));

    world.clock.advance_ms(60_000);
    let later = world.admit(&too_much()).await.unwrap();
    assert_ne!(later.denial_id, first.denial_id, "another minute is another denial");
    assert_eq!(world.engine.denial(first.denial_id.unwrap()).await.unwrap().unwrap().run.count, 20_000);
}

#[tokio::test]
async fn denials_of_many_users_are_bounded_in_lines_and_counted_in_full() {
    let world = World::new(catalog(), EngineOptions { flush_denials_every_ms: 0, ..EngineOptions::default() }).await;
    world.put("acme", "free").await;
    let before = world.engine.stats().ledger.committed_seq;
    for i in 0..5_000 {
        world.engine.admit(&by_user(too_much(), &format!("u{i}")), Ack::Disk).await.unwrap();
    }
    world.engine.upkeep().await.unwrap();
    let lines = world.engine.stats().ledger.committed_seq - before;
    assert!(lines <= 600, "{lines} lines");
    assert_eq!(world.used("acme", None, "tokens").await, (0, 3_000_000));
    let counted: i64 = listed(&world, false).await.iter().map(|denial| denial.run.count).sum();
    assert_eq!(counted, 5_000);
}

#[tokio::test]
async fn a_denial_is_durable_before_it_is_explained() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    world.ledger.hold();
    let denied = world.engine.admit(&by_user(too_much(), "al"), Ack::Disk).await.unwrap();
    assert!(!denied.decision.allowed);
    assert_eq!(world.ledger.waiting(), 1, "the answer waits for the commit");
    world.ledger.let_go().await;
    denied.commit.wait().await.unwrap();
    let world = world.crashed().await;
    let stored = world.engine.denial(denied.denial_id.unwrap()).await.unwrap().unwrap();
    assert_eq!(stored.run.key.user.unwrap().as_str(), "al");
    assert_eq!(world.used("acme", Some("al"), "tokens").await, (0, 600));
}

#[tokio::test]
async fn a_dry_check_counts_as_neither_use_nor_demand() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let before = world.engine.stats().ledger.committed_seq;
    for amount in [1, 600] {
        let dry = Check { consume: false, ..spend("acme", vec![charge("tokens", amount)]) };
        let answer = world.admit(&dry).await.unwrap();
        assert_eq!(answer.decision.allowed, amount == 1);
        assert!(!answer.decision.charged && answer.denial_id.is_none());
    }
    world.engine.upkeep().await.unwrap();
    assert_eq!(world.used("acme", None, "tokens").await, (0, 0));
    assert_eq!(world.engine.stats().ledger.committed_seq, before);
}

#[tokio::test]
async fn what_a_shadow_limit_would_have_refused_is_listed_apart() {
    let world = World::new(draft().done(), RESTLESS).await;
    world.put("acme", "watched").await;
    for i in 0..10 {
        let answer = world.admit(&spend("acme", vec![charge("requests", 1)])).await.unwrap();
        assert!(answer.decision.allowed && answer.decision.denial.is_none());
        assert_eq!(answer.decision.shadow.is_some(), i >= 3);
        assert_eq!(answer.denial_id.is_some(), i >= 3);
    }
    world.engine.upkeep().await.unwrap();
    assert_eq!(world.used("acme", None, "requests").await, (10, 0));
    assert!(listed(&world, false).await.is_empty());
    let shadowed = listed(&world, true).await;
    assert_eq!((shadowed.len(), shadowed[0].run.count), (1, 7));
}

/// Counted denials wait in memory for their line: neither folds nor drops may lose them.
#[tokio::test]
async fn counted_denials_outlive_every_drop_from_memory() {
    let options = EngineOptions { flush_denials_every_ms: i64::MAX, ..RESTLESS };
    let world = World::new(catalog(), options).await;
    for name in ["acme", "b", "c"] {
        world.put(name, "free").await;
        for i in 0..50 {
            world.admit(&by_user(spend(name, vec![charge("tokens", 600)]), &format!("u{}", i % 3))).await.unwrap();
            world.engine.upkeep().await.unwrap();
        }
    }
    for _ in 0..64 {
        world.engine.upkeep().await.unwrap();
    }
    assert_eq!(world.used("acme", None, "tokens").await, (0, 30_000));
    assert_eq!(world.used("acme", Some("u1"), "tokens").await, (0, 17 * 600));
    world.engine.drain().await.unwrap();
    let world = world.crashed().await;
    assert_eq!(world.used("acme", None, "tokens").await, (0, 30_000));
    assert_eq!(world.used("acme", Some("u1"), "tokens").await, (0, 17 * 600));
}
