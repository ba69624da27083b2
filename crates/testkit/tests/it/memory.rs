//! What comes into memory and what leaves it.

use crate::support::catalog;
use engine::{EngineOptions, requests::Ack};
use testkit::world::{RESTLESS, World, admit, by_user, charge, spend};

/// Users are dropped from a tenant that is never clean: memory follows `users_max`, not the users that ever came.
#[tokio::test]
async fn users_of_a_busy_tenant_leave_memory() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "pro").await;
    let busy = by_user(spend("acme", vec![charge("requests", 1)]), "busy");
    for i in 0..40 {
        world.admit(&by_user(spend("acme", vec![charge("requests", 1)]), &format!("u{i}"))).await.unwrap();
        // One upkeep looks at an eighth of all tenants.
        for _ in 0..8 {
            // Another request comes while the checkpoint waits, so that the tenant is dirty whenever it is looked at.
            world.ledger.hold();
            let pending = world.engine.admit(&busy, Ack::Disk).await.unwrap();
            let another = async {
                world.engine.admit(&busy, Ack::Disk).await.unwrap();
                world.ledger.let_go().await;
            };
            let (kept, ()) = tokio::join!(world.engine.upkeep(), another);
            kept.unwrap();
            pending.commit.wait().await.unwrap();
        }
    }
    let held = world.engine.stats().users_in_memory;
    assert!(held <= 10, "{held} users in memory");
    assert_eq!(world.used("acme", Some("u0"), "requests").await.0, 1);
    assert_eq!(world.used("acme", Some("busy"), "requests").await.0, 640);
}

/// A user is read; before the reader gets it, another request brings it into memory, charges it, and it leaves again.
#[tokio::test]
async fn what_was_read_before_a_user_came_and_went_is_not_believed() {
    let options = EngineOptions { tenants_max: 100, users_max: 0, ..RESTLESS };
    let world = World::new(catalog(), options).await;
    world.put("acme", "free").await;
    let one = by_user(spend("acme", vec![charge("tokens", 1)]), "al");
    let settle = async || {
        for _ in 0..16 {
            world.engine.upkeep().await.unwrap();
        }
        assert_eq!(world.engine.stats().users_in_memory, 0);
    };
    world.admit(&one).await.unwrap();
    settle().await;

    world.ledger.keep_users(true);
    let slow = tokio::spawn({
        let (engine, one) = (world.engine.clone(), one.clone());
        async move { admit(&engine, &one).await }
    });
    tokio::task::yield_now().await;
    world.ledger.keep_users(false);
    world.admit(&one).await.unwrap();
    settle().await;
    world.ledger.hand_over();
    assert_eq!(slow.await.unwrap().unwrap().decision.limits[0].used, 3);
    assert_eq!(world.used("acme", Some("al"), "tokens").await.0, 3);
    assert_eq!(world.used("acme", None, "tokens").await.0, 3);
}
