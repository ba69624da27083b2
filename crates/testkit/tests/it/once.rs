//! Promise 3: an id that was accepted counts once.

use crate::support::{Unrest, at_once, catalog, draft};
use domain::{
    catalog::MeterKind,
    op::{Adjustment, Movement},
    time::WindowKind,
};
use engine::{
    EngineOptions,
    requests::{Ack, Check, EngineError, Event, EventOutcome},
};
use testkit::{
    catalog::{limit, meter},
    random::Random,
    world::{RESTLESS, World, admit, charge, event, fact, op_id, spend, tenant, to_plan, with_id},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_id_from_many_tasks_is_charged_once() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 11);
    let answers = at_once(8, |_| {
        let engine = world.engine.clone();
        async move {
            let mut repeated = Vec::new();
            for i in 0..30 {
                let check = with_id(spend("acme", vec![charge("requests", 2)]), &format!("id-{i}"));
                let answer = admit(&engine, &check).await.unwrap();
                assert!(answer.decision.allowed && answer.decision.charged);
                repeated.push(answer.repeated);
            }
            repeated
        }
    })
    .await;
    unrest.end(&world).await;
    for i in 0..30 {
        let firsts = answers.iter().filter(|repeated| !repeated[i]).count();
        assert_eq!(firsts, 1, "id-{i} must be charged by exactly one of 8");
    }
    assert_eq!(world.used("acme", None, "requests").await, (60, 0));
}

#[tokio::test]
async fn a_repeat_waits_for_the_commit_of_the_first() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    let check = with_id(spend("acme", vec![charge("requests", 1)]), "a");
    world.ledger.hold();
    let first = world.engine.admit(&check, Ack::Disk).await.unwrap();
    let repeat = tokio::spawn({
        let (engine, check) = (world.engine.clone(), check.clone());
        async move { admit(&engine, &check).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!repeat.is_finished(), "the first is not durable yet");
    world.ledger.let_go().await;
    first.commit.wait().await.unwrap();
    let repeat = repeat.await.unwrap().unwrap();
    assert!(repeat.repeated && repeat.decision.allowed);
    assert_eq!(repeat.decision.limits[0].used, 1, "current numbers");
}

#[tokio::test]
async fn a_repeat_is_allowed_even_when_the_limit_is_full_by_now() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    let check = with_id(spend("acme", vec![charge("tokens", 500)]), "a");
    assert!(world.admit(&check).await.unwrap().decision.allowed);
    let repeat = world.admit(&check).await.unwrap();
    assert!(repeat.repeated && repeat.decision.allowed && repeat.decision.denial.is_none());
    assert!(repeat.charged.is_none(), "there is nothing to give back twice");
    assert_eq!(world.used("acme", None, "tokens").await, (500, 0));
}

#[tokio::test]
async fn a_refused_id_is_not_bound() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    let check = with_id(spend("acme", vec![charge("tokens", 600)]), "a");
    let refused = world.admit(&check).await.unwrap();
    assert!(!refused.decision.allowed && !refused.repeated);
    world.engine.put_tenant(&tenant("acme"), &to_plan("pro"), "test").await.unwrap();
    let passed = world.admit(&check).await.unwrap();
    assert!(passed.decision.allowed && !passed.repeated);
    assert!(world.admit(&check).await.unwrap().repeated);
    assert_eq!(world.used("acme", None, "tokens").await, (600, 600));
}

#[tokio::test]
async fn another_payload_under_the_same_id_is_a_conflict() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let of = |amount| with_id(spend("acme", vec![charge("requests", amount)]), "a");
    world.admit(&of(1)).await.unwrap();
    world.engine.upkeep().await.unwrap();
    let conflict = world.admit(&of(2)).await.unwrap_err();
    assert!(matches!(conflict, EngineError::IdempotencyConflict { .. }), "{conflict:?}");
    let event = Event { id: op_id("", "a"), ..event("acme", "", "requests", 1) };
    let outcomes = world.engine.record(vec![event]).await.unwrap();
    assert!(matches!(outcomes[0], EventOutcome::Rejected(EngineError::IdempotencyConflict { .. })), "{outcomes:?}");
    assert_eq!(world.used("acme", None, "requests").await, (1, 0));
}

#[tokio::test]
async fn events_of_different_sources_and_tenants_are_different() {
    let world = World::new(draft().default_plan("pro").done(), EngineOptions::default()).await;
    let from = |of: &str, source: &str| Event { id: op_id(source, "1"), ..event(of, "1", "tokens", 1) };
    let batch = vec![from("a", "x"), from("a", "y"), from("b", "x"), from("a", "x")];
    let outcomes = world.engine.record(batch).await.unwrap();
    use EventOutcome::{Accepted, Duplicate};
    assert_eq!(outcomes, [Accepted, Accepted, Accepted, Duplicate]);
    // Where one name ends and the next begins matters.
    let split = vec![
        Event { id: op_id("s", "ab"), ..event("a", "", "tokens", 1) },
        Event { id: op_id("sa", "b"), ..event("a", "", "tokens", 1) },
    ];
    assert_eq!(world.engine.record(split).await.unwrap(), [Accepted, Accepted]);
    assert_eq!(world.used("a", None, "tokens").await.0, 4);
}

/// A batch of 600 with repeats inside, from 8 tasks, in different orders, with other times, while everything moves; then
/// again after restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_counts_once_however_often_and_whenever_it_comes() {
    let mut world = World::new(draft().default_plan("pro").done(), RESTLESS).await;
    for round in 0..3 {
        let unrest = Unrest::around(&world, 12 + round);
        let accepted = at_once(8, |task| {
            let engine = world.engine.clone();
            let now = world.now();
            async move {
                let mut random = Random::new(100 * round + task as u64);
                let mut accepted = 0;
                for _ in 0..2 {
                    let mut batch: Vec<Event> = (0..600)
                        .map(|i| {
                            event(&format!("t{}", i % 3), &format!("e{}", i % 500), "tokens", 1 + (i % 500) as i64)
                        })
                        .collect();
                    for event in &mut batch {
                        if random.percent(50) {
                            event.fact.time = Some(now.plus_ms(-random.between(0, 5 * 86_400_000)));
                        }
                    }
                    for i in (1..batch.len()).rev() {
                        batch.swap(i, random.below(i as u64 + 1) as usize);
                    }
                    let outcomes = engine.record(batch).await.unwrap();
                    assert!(outcomes.iter().all(|outcome| !matches!(outcome, EventOutcome::Rejected(_))));
                    accepted += outcomes.iter().filter(|outcome| **outcome == EventOutcome::Accepted).count();
                }
                accepted
            }
        })
        .await;
        unrest.end(&world).await;
        // `i % 3` and `i % 500` name a tenant and an id: 600 pairs, all of them different.
        assert_eq!(accepted.iter().sum::<usize>(), if round == 0 { 600 } else { 0 }, "round {round}");
        world.engine.drain().await.unwrap();
        world.clock.advance_ms(86_400_000);
        world = world.crashed().await;
    }
    let expected: i64 = (0..600).map(|i| 1 + i % 500).sum();
    let mut total = 0;
    for of in ["t0", "t1", "t2"] {
        total += world.engine.usage(&tenant(of), None).await.unwrap().1.meters[2].used;
        let rows = world.engine.closed(&tenant(of), None).await.unwrap();
        total += rows.iter().filter(|row| row.closed.kind == WindowKind::Period).map(|row| row.used).sum::<i64>();
    }
    assert_eq!(total, expected);
}

/// The disk is asked about some ids of a batch and not about others: the order of the batch stays.
#[tokio::test]
async fn a_batch_keeps_its_order_when_the_disk_is_asked() {
    let world = World::new(draft().default_plan("pro").done(), EngineOptions::default()).await;
    world.ledger.unsure(2);
    let set = |id: usize, level: i64| Event {
        fact: fact("seats", Movement::Set(level)),
        ..event("a", &id.to_string(), "seats", 0)
    };
    for round in 0..20 {
        let batch: Vec<Event> = (0..10).map(|i| set(round * 10 + i, i as i64)).collect();
        world.engine.record(batch).await.unwrap();
        assert_eq!(world.used("a", None, "seats").await.0, 9, "the last of the batch is the level");
    }
}

#[tokio::test]
async fn a_rejected_event_does_not_bind_its_id() {
    let world = World::new(draft().default_plan("pro").done(), EngineOptions::default()).await;
    let batch = vec![event("a", "1", "nothing", 1), event("a", "1", "tokens", 1), event("a", "1", "tokens", 2)];
    let outcomes = world.engine.record(batch).await.unwrap();
    assert!(matches!(outcomes[0], EventOutcome::Rejected(EngineError::Op(_))), "{outcomes:?}");
    assert_eq!(outcomes[1], EventOutcome::Accepted);
    assert!(matches!(outcomes[2], EventOutcome::Rejected(EngineError::IdempotencyConflict { .. })), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_adjustment_with_an_id_is_made_once() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 13);
    let of = |amount| Adjustment {
        meter: meter("tokens"),
        movement: Movement::Add(amount),
        window: None,
        on: None,
        binding: None,
    };
    let repeated = at_once(8, |_| {
        let (engine, adjustment) = (world.engine.clone(), of(7));
        async move {
            let id = Some(op_id("", "fix-1"));
            engine.adjust(&tenant("acme"), None, adjustment, id, "key_1", "opening balance").await.unwrap()
        }
    })
    .await;
    unrest.end(&world).await;
    assert_eq!(repeated.iter().filter(|repeated| !**repeated).count(), 1);
    assert_eq!(world.used("acme", None, "tokens").await.0, 7);
    let other = world.engine.adjust(&tenant("acme"), None, of(8), Some(op_id("", "fix-1")), "key_1", "again").await;
    assert!(matches!(other, Err(EngineError::IdempotencyConflict { .. })));
}

/// The metrics must not speak of a refusal that was never answered.
#[tokio::test]
async fn a_repeat_is_observed_as_allowed() {
    use engine::ports::{Decided, Observer};
    use std::sync::{Arc, Mutex};
    #[derive(Default)]
    struct Codes(Mutex<Vec<&'static str>>);
    impl Observer for Codes {
        fn decided(&self, decided: &Decided<'_>) {
            self.0.lock().unwrap().push(decided.code.word());
        }
    }
    let only = draft().meter("calls", MeterKind::Counter);
    let catalog = only.plan("one", &[], vec![limit("calls", WindowKind::Day, 1)]).done();
    let world = World::new(catalog, EngineOptions::default()).await;
    world.put("acme", "one").await;
    let codes = Arc::new(Codes::default());
    world.engine.set_observer(codes.clone());
    let check = with_id(spend("acme", vec![charge("calls", 1)]), "a");
    world.admit(&check).await.unwrap();
    world.admit(&check).await.unwrap();
    assert_eq!(*codes.0.lock().unwrap(), ["allowed", "allowed"]);
}

#[tokio::test]
async fn what_a_price_list_charged_is_known_by_what_was_sent() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    let sent = |text: &str, charges: Vec<_>| Check { sent: Some(text.into()), ..with_id(spend("acme", charges), "a") };
    // What stands for the price is not looked at.
    let unpriced = |text: &str| sent(text, vec![charge("gone", 0), charge("requests", 1)]);
    assert!(world.engine.accepted_check(&unpriced("a call")).await.unwrap().is_none(), "not yet");
    world.ledger.hold();
    world.engine.admit(&sent("a call", vec![charge("tokens", 7), charge("requests", 1)]), Ack::Disk).await.unwrap();
    let (engine, check) = (world.engine.clone(), unpriced("a call"));
    let again = tokio::spawn(async move { engine.accepted_check(&check).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!again.is_finished(), "the first is not durable yet");
    world.ledger.let_go().await;
    let (admission, priced) = again.await.unwrap().unwrap().unwrap();
    assert!(admission.repeated && admission.decision.allowed && admission.charged.is_none());
    assert_eq!(priced, Some(charge("tokens", 7)));
    let conflict = world.engine.accepted_check(&unpriced("another call")).await;
    assert!(matches!(conflict, Err(EngineError::IdempotencyConflict { .. })));
    for (tenant, is_dry) in [("nobody", false), ("acme", true)] {
        let check = Check { tenant: self::tenant(tenant), consume: !is_dry, ..unpriced("a call") };
        assert!(world.engine.accepted_check(&check).await.unwrap().is_none());
    }
    assert_eq!((world.used("acme", None, "tokens").await.0, world.used("acme", None, "requests").await.0), (7, 1));
}
