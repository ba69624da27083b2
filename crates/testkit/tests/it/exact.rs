//! Promise 1: of N parallel requests with room for k, exactly k pass.

use crate::support::{Unrest, at_once, catalog};
use domain::{decision::Code, time::WindowKind};
use engine::requests::Check;
use testkit::{
    random::Random,
    world::{RESTLESS, World, admit, by_user, charge, event, spend},
};

/// Makes the checks from 8 tasks at once; tells how many passed.
async fn storm(world: &World, checks: Vec<Check>) -> usize {
    let shares: Vec<Vec<Check>> = (0..8).map(|i| checks.iter().skip(i).step_by(8).cloned().collect()).collect();
    let passed = at_once(8, |index| {
        let (engine, share) = (world.engine.clone(), shares[index].clone());
        async move {
            let mut passed = 0;
            for check in share {
                passed += usize::from(admit(&engine, &check).await.unwrap().decision.allowed);
            }
            passed
        }
    });
    passed.await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_limits_of_the_tenant_and_one_of_its_users_hold_together() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 1);
    let one =
        |i: usize| by_user(spend("acme", vec![charge("requests", 1)]), if i.is_multiple_of(3) { "bo" } else { "al" });
    let passed = storm(&world, (0..400).map(one).collect()).await;
    unrest.end(&world).await;

    assert_eq!(passed, 90, "the month is the smallest limit");
    assert_eq!(world.used("acme", None, "requests").await, (90, 310));
    assert_eq!(world.used_in("acme", None, "requests", WindowKind::Day).await, [90]);
    let of_users = [world.used("acme", Some("al"), "requests").await, world.used("acme", Some("bo"), "requests").await];
    assert_eq!(of_users[0].0 + of_users[1].0, 90);
    assert_eq!(of_users[0].1 + of_users[1].1, 310);
    assert!(of_users.iter().all(|(used, _)| *used <= 60), "each user has a limit of 60: {of_users:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_charges_are_made_all_or_none() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 2);
    let both = || spend("acme", vec![charge("requests", 1), charge("tokens", 10)]);
    let passed = storm(&world, (0..200).map(|_| both()).collect()).await;
    unrest.end(&world).await;

    assert_eq!(passed, 50, "505 tokens are enough for 50 requests of 10");
    assert_eq!(world.used("acme", None, "requests").await, (50, 150));
    assert_eq!(world.used("acme", None, "tokens").await, (500, 1500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_tenant_gets_its_own_while_all_are_loaded_and_dropped() {
    let world = World::new(catalog(), RESTLESS).await;
    for i in 0..12 {
        world.put(&format!("t{i}"), "free").await;
    }
    let unrest = Unrest::around(&world, 3);
    let mut random = Random::new(3);
    let mut checks: Vec<Check> = (0..12)
        .flat_map(|t| (0..70).map(move |u| (t, u % 2)))
        .map(|(t, u)| by_user(spend(&format!("t{t}"), vec![charge("tokens", 10)]), &format!("u{u}")))
        .collect();
    for i in (1..checks.len()).rev() {
        checks.swap(i, random.below(i as u64 + 1) as usize);
    }
    let passed = storm(&world, checks).await;
    unrest.end(&world).await;

    assert_eq!(passed, 12 * 50);
    for i in 0..12 {
        let name = format!("t{i}");
        assert_eq!(world.used(&name, None, "tokens").await, (500, 200), "{name}");
        let (first, second) =
            (world.used(&name, Some("u0"), "tokens").await, world.used(&name, Some("u1"), "tokens").await);
        assert_eq!((first.0 + second.0, first.1 + second.1), (500, 200), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gauge_never_passes_its_limit_while_it_goes_up_and_down() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 4);
    let nets = at_once(8, |_| {
        let engine = world.engine.clone();
        async move {
            let (mut net, mut most) = (0, 0);
            for _ in 0..40 {
                let took = admit(&engine, &spend("acme", vec![charge("seats", 1)])).await.unwrap();
                net += i64::from(took.decision.allowed);
                most = most.max(took.decision.limits[0].used);
                if took.decision.allowed && net > 1 {
                    admit(&engine, &spend("acme", vec![charge("seats", -1)])).await.unwrap();
                    net -= 1;
                }
            }
            (net, most)
        }
    })
    .await;
    unrest.end(&world).await;
    assert!(nets.iter().all(|(_, most)| *most <= 5), "{nets:?}");
    let level = nets.iter().map(|(net, _)| net).sum::<i64>();
    assert_eq!(world.used("acme", None, "seats").await.0, level);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_may_pass_a_limit_and_decisions_do_not_add_to_it() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 5);
    let counted = at_once(8, |task| {
        let engine = world.engine.clone();
        async move {
            let mut allowed = 0;
            for i in 0..40 {
                engine.record(vec![event("acme", &format!("{task}-{i}"), "tokens", 1)]).await.unwrap();
                let check = admit(&engine, &spend("acme", vec![charge("tokens", 5)])).await.unwrap();
                let tokens = &check.decision.limits[0];
                assert!(!check.decision.allowed || tokens.used <= 505, "passed with {} used", tokens.used);
                allowed += i64::from(check.decision.allowed);
            }
            allowed
        }
    })
    .await;
    unrest.end(&world).await;
    let used = 320 + 5 * counted.iter().sum::<i64>();
    assert_eq!(world.used("acme", None, "tokens").await.0, used);
    world.engine.record(vec![event("acme", "late", "tokens", 1_000)]).await.unwrap();
    assert_eq!(world.used("acme", None, "tokens").await.0, used + 1_000, "facts are always recorded");
}

#[tokio::test]
async fn a_clock_that_goes_back_gives_nothing_back() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    for _ in 0..95 {
        world.admit(&spend("acme", vec![charge("requests", 1)])).await.unwrap();
    }
    world.clock.advance_ms(-40 * 86_400_000);
    world.engine.upkeep().await.unwrap();
    let refused = world.admit(&spend("acme", vec![charge("requests", 1)])).await.unwrap();
    assert_eq!(refused.decision.code(), Code::PeriodLimitReached);
    assert_eq!(world.used("acme", None, "requests").await, (90, 6));
}
