//! Gateway traffic is added up before it is written: the sums survive everything.

use crate::support::{Unrest, at_once, catalog};
use domain::entry::Cause;
use engine::{
    EngineOptions,
    requests::{Ack, Check},
};
use testkit::{
    random::Random,
    world::{RESTLESS, World, admit, by_user, charge, spend},
};

fn gateway(amount: i64) -> Check {
    Check { cause: Cause::Gateway, ..spend("acme", vec![charge("requests", 1), charge("tokens", amount)]) }
}

#[tokio::test]
async fn requests_that_wait_for_one_commit_are_one_line_per_user() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    world.put("acme", "pro").await;
    // The first opens windows, which is never added to.
    world.admit(&gateway(1)).await.unwrap();
    world.ledger.hold();
    for i in 0..300 {
        let name = format!("u{}", i % 3);
        world.engine.admit(&by_user(gateway(2), &name), Ack::Disk).await.unwrap();
    }
    assert_eq!(world.ledger.waiting(), 3);
    world.ledger.let_go().await;
    let world = world.crashed().await;
    assert_eq!(world.used("acme", None, "tokens").await.0, 601);
    assert_eq!(world.used("acme", Some("u1"), "tokens").await.0, 200);
}

/// Folds taken at any moment between requests that are added to one line: nothing is folded twice or not at all.
#[tokio::test]
async fn a_fold_between_two_requests_counts_each_once() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut world = World::new(catalog(), RESTLESS).await;
        world.put("acme", "pro").await;
        let mut sums = [0; 3];
        for _ in 0..40 {
            world.ledger.hold();
            for _ in 0..random.below(6) {
                let (who, amount) = (random.below(3) as usize, random.between(1, 9));
                world.engine.admit(&by_user(gateway(amount), &format!("u{who}")), Ack::Disk).await.unwrap();
                sums[who] += amount;
                if random.percent(20) {
                    world.clock.advance_ms(random.between(1, 70_000));
                }
            }
            let some = random.below(4) as usize;
            // The upkeep takes its folds now, and more traffic comes before they are written.
            let upkeep = async { world.engine.upkeep().await.unwrap() };
            let who = random.below(3) as usize;
            let later = async {
                world.engine.admit(&by_user(gateway(5), &format!("u{who}")), Ack::Disk).await.unwrap();
                world.ledger.release_first(some).await;
                world.ledger.let_go().await;
            };
            tokio::join!(upkeep, later);
            sums[who] += 5;
            if random.percent(15) {
                if random.percent(50) {
                    world.engine.drain().await.unwrap();
                }
                world = world.crashed().await;
            }
        }
        for (who, sum) in sums.iter().enumerate() {
            assert_eq!(world.used("acme", Some(&format!("u{who}")), "tokens").await.0, *sum, "seed {seed}");
        }
        assert_eq!(world.used("acme", None, "tokens").await.0, sums.iter().sum::<i64>(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_gateway_traffic_adds_up_after_a_restart() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "pro").await;
    let unrest = Unrest::around(&world, 51);
    let sums = at_once(8, |task| {
        let engine = world.engine.clone();
        async move {
            let mut random = Random::new(task as u64);
            let mut sum = 0;
            for _ in 0..100 {
                let amount = random.between(1, 5);
                let name = format!("u{}", random.below(4));
                let answer = admit(&engine, &by_user(gateway(amount), &name)).await.unwrap();
                sum += if answer.decision.allowed { amount } else { 0 };
            }
            sum
        }
    })
    .await;
    unrest.end(&world).await;
    let sum: i64 = sums.iter().sum();
    let world = world.crashed().await;
    assert_eq!(world.used("acme", None, "tokens").await.0, sum);
    let mut of_users = 0;
    for who in 0..4 {
        of_users += world.used("acme", Some(&format!("u{who}")), "tokens").await.0;
    }
    assert_eq!(of_users, sum);
}
