//! Promise 2: what was acknowledged is there after a failure; what was not is wholly there or wholly absent.

use crate::support::{at_once, catalog, draft};
use domain::op::ProfileChange;
use engine::{
    EngineOptions,
    ports::{ApiKey, KeyScope, LedgerError},
    requests::{Ack, EngineError, EventOutcome},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use testkit::{
    faulty::Loss,
    random::Random,
    world::{RESTLESS, World, admit, by_user, charge, event, spend, tenant, to_plan, with_id},
};

fn is_unwritable(error: &EngineError) -> bool {
    matches!(error, EngineError::Ledger(LedgerError::Unwritable(_)))
}

#[tokio::test]
async fn after_a_failed_commit_the_numbers_are_those_on_disk() {
    for (loss, on_disk) in [(Loss::Everything, 10), (Loss::AllButFirst(1), 11), (Loss::OnlyTheAnswer, 13)] {
        let world = World::new(catalog(), EngineOptions::default()).await;
        world.put("acme", "free").await;
        let one = by_user(spend("acme", vec![charge("requests", 1)]), "al");
        for _ in 0..10 {
            world.admit(&one).await.unwrap();
        }
        world.ledger.hold();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(world.engine.admit(&one, Ack::Disk).await.unwrap().commit);
        }
        world.ledger.fail(loss).await;
        for commit in waiting {
            assert!(matches!(commit.wait().await, Err(LedgerError::Unwritable(_))), "{loss:?}");
        }
        let refused = world.engine.admit(&one, Ack::Disk).await.unwrap_err();
        assert!(is_unwritable(&refused), "{refused:?}");
        assert!(world.engine.healthy().is_err());
        world.recover().await;
        world.ledger.let_go().await;
        assert_eq!(world.used("acme", None, "requests").await.0, on_disk, "{loss:?}");
        assert_eq!(world.used("acme", Some("al"), "requests").await.0, on_disk, "{loss:?}");
        assert_eq!(world.engine.stats().recoveries, 1);
    }
}

/// Clients repeat what was not acknowledged, under the same ids, through failure after failure: in the end everything
/// counts once, and no failure led to more than one recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repeats_through_many_failures_count_once() {
    let world = Arc::new(World::new(catalog(), RESTLESS).await);
    world.put("acme", "pro").await;
    world.put("other", "pro").await;
    world.ledger.hold();
    world.ledger.slow_down(2);
    world.ledger.unsure(3);
    let done = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(AtomicUsize::new(0));
    let trouble = tokio::spawn(make_trouble(world.clone(), done.clone(), failures.clone()));
    let upkeep = tokio::spawn({
        let (world, done) = (world.clone(), done.clone());
        async move {
            while !done.load(Ordering::SeqCst) {
                let _ = world.engine.upkeep().await;
                tokio::task::yield_now().await;
            }
        }
    });
    let firsts = at_once(8, |task| {
        let engine = world.engine.clone();
        async move {
            let mut firsts = 0;
            for i in 0..60 {
                // Every id is used by two tasks.
                let id = format!("{}-{i}", task / 2);
                if i % 2 == 0 {
                    let check = by_user(spend("acme", vec![charge("requests", 1), charge("seats", 0)]), "al");
                    while admit(&engine, &with_id(check.clone(), &id)).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                } else {
                    let batch = || vec![event("other", &id, "tokens", 3), event("acme", &id, "tokens", 2)];
                    let outcomes = loop {
                        match engine.record(batch()).await {
                            Ok(outcomes) => break outcomes,
                            Err(error) => assert!(is_unwritable(&error), "{error:?}"),
                        }
                        tokio::task::yield_now().await;
                    };
                    assert!(outcomes.iter().all(|o| !matches!(o, EventOutcome::Rejected(_))), "{outcomes:?}");
                    firsts += 1;
                }
            }
            firsts
        }
    })
    .await;
    assert_eq!(firsts.iter().sum::<usize>(), 240);
    done.store(true, Ordering::SeqCst);
    trouble.await.unwrap();
    upkeep.await.unwrap();
    world.ledger.let_go().await;
    world.recover().await;

    let failures = failures.load(Ordering::SeqCst) as u64;
    let recoveries = world.engine.stats().recoveries;
    assert!(failures >= 3, "there was no trouble");
    assert!(recoveries <= failures, "{recoveries} recoveries from {failures} failures");
    assert_eq!(world.used("acme", Some("al"), "requests").await.0, 120);
    assert_eq!(world.used("acme", None, "requests").await.0, 120);
    assert_eq!(world.used("acme", None, "tokens").await.0, 240);
    assert_eq!(world.used("other", None, "tokens").await.0, 360);
}

async fn make_trouble(world: Arc<World>, done: Arc<AtomicBool>, failures: Arc<AtomicUsize>) {
    let mut random = Random::new(21);
    while !done.load(Ordering::SeqCst) {
        for _ in 0..random.below(30) {
            tokio::task::yield_now().await;
        }
        if random.percent(85) || world.ledger.waiting() == 0 || world.engine.healthy().is_err() {
            world.ledger.release_first(random.below(4) as usize).await;
            if random.percent(10) {
                world.ledger.seal_ids();
            }
            continue;
        }
        let loss = *random.pick(&[Loss::Everything, Loss::AllButFirst(1), Loss::OnlyTheAnswer]);
        failures.fetch_add(1, Ordering::SeqCst);
        world.ledger.fail(loss).await;
        while world.engine.healthy().is_err() && !done.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_full_queue_decides_nothing() {
    let world = World::new(draft().default_plan("free").done(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    world.ledger.overload(true);
    let overloaded = |error: EngineError| matches!(error, EngineError::Ledger(LedgerError::Overloaded { .. }));
    let check = with_id(spend("acme", vec![charge("requests", 1)]), "a");
    assert!(overloaded(world.engine.admit(&check, Ack::Memory).await.unwrap_err()));
    assert!(overloaded(world.engine.record(vec![event("acme", "e", "tokens", 1)]).await.unwrap_err()));
    assert!(overloaded(world.engine.put_tenant(&tenant("acme"), &to_plan("pro"), "x").await.unwrap_err()));
    assert!(overloaded(world.admit(&spend("unknown", vec![charge("requests", 1)])).await.unwrap_err()));
    world.engine.upkeep().await.unwrap();
    world.ledger.overload(false);
    assert_eq!(world.engine.stats().recoveries, 0, "a full queue is no failure");
    assert_eq!(world.used("acme", None, "requests").await, (0, 0));
    let first = world.admit(&check).await.unwrap();
    assert!(!first.repeated && first.decision.plan.as_str() == "free");
    assert_eq!(world.used("acme", None, "requests").await, (1, 0));
}

/// A server that stops aborts its upkeep wherever that stands, then drains: nothing may be forgotten.
#[tokio::test]
async fn upkeep_that_is_given_up_half_way_forgets_nothing() {
    let mut world = World::new(catalog(), RESTLESS).await;
    for i in 0..600 {
        world.put(&format!("t{i:03}"), "free").await;
    }
    world.engine.upkeep().await.unwrap();
    for i in 0..600 {
        let check = by_user(spend(&format!("t{i:03}"), vec![charge("tokens", 1)]), "al");
        world.admit(&check).await.unwrap();
        let storm = by_user(spend(&format!("t{i:03}"), vec![charge("tokens", 999)]), "al");
        world.admit(&storm).await.unwrap();
        world.admit(&storm).await.unwrap();
    }
    // A commit that waits makes the checkpoint wait, after its first batch was handed over.
    world.ledger.hold();
    let held = world.engine.admit(&spend("t000", vec![charge("tokens", 1)]), Ack::Disk).await.unwrap();
    tokio::select! {
        biased;
        done = world.engine.upkeep() => panic!("the checkpoint did not wait: {done:?}"),
        () = async { for _ in 0..10 { tokio::task::yield_now().await } } => {}
    }
    world.ledger.let_go().await;
    held.commit.wait().await.unwrap();
    world.engine.drain().await.unwrap();
    world = world.crashed().await;
    for i in 0..600 {
        let name = format!("t{i:03}");
        let used = 1 + i64::from(i == 0);
        assert_eq!(world.used(&name, None, "tokens").await, (used, 1998), "{name}");
        assert_eq!(world.used(&name, Some("al"), "tokens").await, (1, 1998), "{name}");
    }
}

/// What was handed to a checkpoint that nobody waits for any more is not on disk yet: it must not leave memory.
#[tokio::test]
async fn nothing_leaves_memory_before_its_fold_is_written() {
    let options = EngineOptions { checkpoint_every_ms: 1_000, tail_max: u64::MAX, ..RESTLESS };
    let world = World::new(catalog(), EngineOptions { tenants_max: 0, users_max: 0, ..options }).await;
    world.put("acme", "free").await;
    world.engine.upkeep().await.unwrap();
    world.clock.advance_ms(1_000);
    world.ledger.hold();
    let one = by_user(spend("acme", vec![charge("tokens", 7)]), "al");
    let pending = world.engine.admit(&one, Ack::Disk).await.unwrap();
    tokio::select! {
        biased;
        done = world.engine.upkeep() => panic!("the checkpoint did not wait: {done:?}"),
        () = async { for _ in 0..10 { tokio::task::yield_now().await } } => {}
    }
    for _ in 0..64 {
        world.engine.upkeep().await.unwrap();
    }
    assert_eq!(world.used("acme", Some("al"), "tokens").await, (7, 0));
    assert_eq!(world.used("acme", None, "tokens").await, (7, 0));
    world.ledger.let_go().await;
    pending.commit.wait().await.unwrap();
}

/// A tenant is created once, however many ask at once and however soon it leaves memory again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_is_created_once() {
    let world = World::new(draft().default_plan("free").done(), RESTLESS).await;
    let unrest = crate::support::Unrest::around(&world, 31);
    world.ledger.slow_down(6);
    for i in 0..40 {
        let created = at_once(6, |task| {
            let engine = world.engine.clone();
            async move {
                let name = tenant(&format!("t{i}"));
                let used = event(name.as_str(), &task.to_string(), "tokens", 1);
                engine.record(vec![used]).await.unwrap();
                let change = ProfileChange::default();
                let (_, created) = engine.put_tenant(&name, &change, "x").await.unwrap();
                engine.put_tenant(&tenant(&format!("s{i}")), &to_plan("pro"), "x").await.unwrap().1 || created
            }
        })
        .await;
        assert_eq!(created.iter().filter(|created| **created).count(), 1, "s{i}");
        assert_eq!(world.used(&format!("t{i}"), None, "tokens").await.0, 6, "t{i}");
    }
    unrest.end(&world).await;
    world.engine.upkeep().await.unwrap();
    assert_eq!(world.engine.tenants(None, 1000).await.unwrap().len(), 80);
}

#[tokio::test]
async fn keys_survive_a_recovery() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    let key = |n: u8| ApiKey {
        id: format!("key_{n}").into(),
        hash: [n; 32],
        name: "test".into(),
        scope: KeyScope::Admin,
        created_at: world.now(),
        created_by: "test".into(),
        revoked_at: None,
    };
    world.engine.create_key(key(1)).await.unwrap();
    world.engine.create_key(key(2)).await.unwrap();
    world.engine.revoke_key("key_2", "test").await.unwrap().unwrap();
    world.ledger.fail(Loss::Everything).await;
    world.recover().await;
    assert!(world.engine.key_by_hash(&[1; 32]).is_some());
    assert!(world.engine.key_by_hash(&[2; 32]).is_none(), "revoked is revoked");
    assert_eq!(world.engine.keys().len(), 2);
}
