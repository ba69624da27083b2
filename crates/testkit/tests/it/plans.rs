//! Promise 5: a plan change never resets use, and works on the next request. And who may be refused at all.

use crate::support::{Unrest, at_once, catalog, draft};
use domain::{
    catalog::{Catalog, Enforce, Mode, Scope},
    decision::Code,
    entry::{Override, Status},
    op::{Adjustment, Movement, ProfileChange},
    time::WindowKind,
};
use engine::{
    EngineOptions,
    requests::{Check, EngineError},
};
use std::sync::Arc;
use testkit::{
    catalog::{feature, limit, meter},
    random::Random,
    world::{RESTLESS, World, admit, by_user, charge, event, spend, tenant, to_plan},
};

fn request() -> Check {
    spend("acme", vec![charge("requests", 1)])
}

async fn change(world: &World, change: ProfileChange) {
    world.engine.put_tenant(&tenant("acme"), &change, "test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plan_that_goes_up_and_down_under_load_keeps_the_use() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 41);
    let changer = tokio::spawn({
        let engine = world.engine.clone();
        async move {
            for i in 0..30 {
                let plan = if i % 2 == 0 { "pro" } else { "free" };
                engine.put_tenant(&tenant("acme"), &to_plan(plan), "test").await.unwrap();
            }
        }
    });
    let passed = at_once(8, |_| {
        let engine = world.engine.clone();
        async move {
            let mut passed = 0;
            for _ in 0..100 {
                let answer = admit(&engine, &request()).await.unwrap();
                let used = answer.decision.limits.iter().map(|limit| limit.used).max().unwrap();
                if answer.decision.allowed && answer.decision.plan.as_str() == "free" {
                    assert!(used <= 90, "free allows 90 a month, and {used} are used");
                }
                passed += i64::from(answer.decision.allowed);
            }
            passed
        }
    })
    .await;
    changer.await.unwrap();
    unrest.end(&world).await;
    let passed: i64 = passed.iter().sum();
    assert!(passed >= 90);
    assert_eq!(world.used("acme", None, "requests").await, (passed, 800 - passed));
}

#[tokio::test]
async fn up_and_down_again_refills_nothing() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    for _ in 0..91 {
        world.admit(&request()).await.unwrap();
    }
    change(&world, to_plan("pro")).await;
    assert!(world.admit(&request()).await.unwrap().decision.allowed, "works on the next request");
    change(&world, to_plan("free")).await;
    let refused = world.admit(&request()).await.unwrap().decision;
    assert_eq!((refused.code(), refused.limits[1].used), (Code::PeriodLimitReached, 91));
    // Neither does another anchor or zone.
    let anchor = ProfileChange { anchor: Some(world.now()), ..ProfileChange::default() };
    change(&world, anchor).await;
    let zone = ProfileChange { zone: domain::time::Zone::named("Asia/Tokyo"), ..ProfileChange::default() };
    change(&world, zone).await;
    assert!(!world.admit(&request()).await.unwrap().decision.allowed);
    assert_eq!(world.used("acme", None, "requests").await, (91, 3));
}

#[tokio::test]
async fn overrides_replace_and_end() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let of = |max| Override {
        meter: meter("requests"),
        window: Some(WindowKind::Month).into(),
        scope: Scope::Tenant,
        max: Some(max),
        mode: Mode::Hard,
        until: Some(world.now().plus_ms(60_000)),
        reason: None,
    };
    change(&world, ProfileChange { put_overrides: vec![of(2)], ..ProfileChange::default() }).await;
    let mut passed = 0;
    for _ in 0..5 {
        passed += usize::from(world.admit(&request()).await.unwrap().decision.allowed);
    }
    assert_eq!(passed, 2);
    world.clock.advance_ms(60_000);
    assert!(world.admit(&request()).await.unwrap().decision.allowed, "the override has ended");
    change(&world, ProfileChange { put_overrides: vec![of(2)], ..ProfileChange::default() }).await;
    change(&world, ProfileChange { remove_overrides: vec![of(0)], ..ProfileChange::default() }).await;
    assert!(world.admit(&request()).await.unwrap().decision.allowed);
}

#[tokio::test]
async fn observing_refuses_nothing_and_counts_use() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    change(&world, ProfileChange { enforce: Some(Some(Enforce::Observe)), ..ProfileChange::default() }).await;
    let big = spend("acme", vec![charge("tokens", 600)]);
    let passed = world.admit(&big).await.unwrap().decision;
    assert!(passed.allowed && passed.charged);
    assert_eq!(passed.shadow.unwrap().code, Code::PeriodLimitReached);
    assert_eq!(world.used("acme", None, "tokens").await, (600, 0), "what passed is use, not unmet demand");
    change(&world, ProfileChange { enforce: Some(Some(Enforce::On)), ..ProfileChange::default() }).await;
    assert!(!world.admit(&big).await.unwrap().decision.allowed);
    let observed = Check { enforce: Some(Enforce::Observe), ..big };
    assert!(world.admit(&observed).await.unwrap().decision.allowed, "a route may observe");
}

#[tokio::test]
async fn the_suspended_are_refused_and_still_recorded() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    change(&world, ProfileChange { status: Some(Status::Suspended), ..ProfileChange::default() }).await;
    assert_eq!(world.admit(&request()).await.unwrap().decision.code(), Code::TenantSuspended);
    world.engine.record(vec![event("acme", "1", "requests", 1)]).await.unwrap();
    assert_eq!(world.used("acme", None, "requests").await, (1, 1));
    let lacking = Check { features: vec![feature("analytics")], ..request() };
    change(&world, ProfileChange { status: Some(Status::Active), ..ProfileChange::default() }).await;
    let refused = world.admit(&lacking).await.unwrap().decision;
    assert_eq!(refused.code(), Code::FeatureNotInPlan);
    assert_eq!(refused.denial.unwrap().upgrade.unwrap().as_str(), "pro");
}

#[tokio::test]
async fn unknown_tenants_are_refused_and_leave_no_trace() {
    let world = World::new(catalog(), EngineOptions::default()).await;
    let before = world.engine.stats().ledger.committed_seq;
    for i in 0..2_000 {
        let name = format!("nobody-{i}");
        let refused = world.admit(&spend(&name, vec![charge("requests", 1)])).await.unwrap_err();
        assert_eq!(refused, EngineError::UnknownTenant(tenant(&name)));
    }
    assert!(matches!(world.engine.usage(&tenant("x"), None).await, Err(EngineError::UnknownTenant(_))));
    let refused = world.engine.put_tenant(&tenant("x"), &ProfileChange::default(), "test").await;
    assert_eq!(refused.unwrap_err(), EngineError::UnknownTenant(tenant("x")));
    assert_eq!(world.engine.stats().tenants_in_memory, 0);
    assert_eq!(world.engine.stats().ledger.committed_seq, before);
    assert!(world.engine.tenants(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn unknown_tenants_are_on_the_default_plan_if_there_is_one() {
    let world = World::new(draft().default_plan("free").done(), RESTLESS).await;
    let first = world.admit(&request()).await.unwrap();
    assert_eq!(first.decision.plan.as_str(), "free");
    let world = world.crashed().await;
    assert_eq!(world.used("acme", None, "requests").await, (1, 0));
}

#[tokio::test]
async fn a_set_adjustment_is_the_number_that_is_checked() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "free").await;
    let set =
        Adjustment { meter: meter("tokens"), movement: Movement::Set(500), window: None, on: None, binding: None };
    world.engine.adjust(&tenant("acme"), None, set, None, "key_1", "moved from the old system").await.unwrap();
    assert!(!world.admit(&spend("acme", vec![charge("tokens", 6)])).await.unwrap().decision.allowed);
    assert!(world.admit(&spend("acme", vec![charge("tokens", 5)])).await.unwrap().decision.allowed);
    assert_eq!(world.used("acme", None, "tokens").await, (505, 6));
}

fn without_pro() -> Catalog {
    let mut catalog = catalog();
    catalog.plans.remove("pro");
    catalog
}

#[tokio::test]
async fn a_catalog_that_lacks_a_plan_in_use_is_refused() {
    let world = World::new(catalog(), RESTLESS).await;
    world.put("acme", "pro").await;
    for restless in [false, true] {
        let refused = world.engine.apply_catalog(without_pro(), "without").await.unwrap_err();
        assert_eq!(refused, EngineError::PlansInUse("pro".into()), "written down: {restless}");
        assert_eq!(world.engine.catalog().version, 1);
        // From now on the tenant is on disk alone.
        for _ in 0..64 {
            world.engine.upkeep().await.unwrap();
        }
        world.put("other", "free").await;
    }
    change(&world, to_plan("free")).await;
    assert_eq!(world.engine.apply_catalog(without_pro(), "without").await.unwrap(), 2);
    assert!(world.admit(&request()).await.unwrap().decision.allowed);
}

/// Tenants move between plans, come and go from memory, and are created while catalogs that lack one of the plans are put
/// in force: nobody is ever on a plan that the catalog in force lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_slips_onto_a_plan_that_is_just_dropped() {
    let world = World::new(draft().default_plan("free").done(), RESTLESS).await;
    world.put("acme", "watched").await;
    let unrest = Unrest::around(&world, 42);
    let movers = at_once(6, |task| {
        let engine = world.engine.clone();
        async move {
            let mut random = Random::new(task as u64);
            for i in 0..40 {
                if task == 0 {
                    let default_plan = *random.pick(&["free", "watched"]);
                    let full = draft().default_plan(default_plan).done();
                    let lacks_one = {
                        let mut catalog = draft().default_plan("watched").done();
                        catalog.plans.remove(*random.pick(&["pro", "free"]));
                        catalog
                    };
                    let _ = engine.apply_catalog(lacks_one, &format!("lacks {i}")).await;
                    engine.apply_catalog(full, &format!("full {i}")).await.unwrap();
                    continue;
                }
                let name = tenant(&format!("t{}", random.below(4)));
                let plan = *random.pick(&["pro", "free", "watched"]);
                let _ = engine.put_tenant(&name, &to_plan(plan), "test").await;
                let new = spend(&format!("new-{task}-{i}"), vec![charge("requests", 1)]);
                let answer = admit(&engine, &new).await;
                assert!(answer.is_ok(), "{answer:?}");
                let known = spend(name.as_str(), vec![charge("requests", 1)]);
                let answer = admit(&engine, &known).await;
                assert!(answer.is_ok(), "{answer:?}");
            }
        }
    });
    movers.await;
    unrest.end(&world).await;
}

/// While the catalog is on its way to the disk, somebody asks to be put on a plan that it lacks, and somebody unknown
/// comes who would be put there.
#[tokio::test]
async fn a_plan_that_is_being_dropped_is_gone_for_those_who_come_meanwhile() {
    for (pause, slowness) in (0..160).map(|i| (i % 10, 1 + i / 10)) {
        let world = World::new(draft().default_plan("pro").done(), EngineOptions::default()).await;
        world.put("acme", "free").await;
        world.ledger.slow_down(slowness);
        let wait = async || {
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
        };
        let moved = async {
            wait().await;
            let _ = world.engine.put_tenant(&tenant("acme"), &to_plan("pro"), "test").await;
        };
        let new = async {
            wait().await;
            world.admit(&spend("new", vec![charge("requests", 1)])).await.unwrap();
        };
        let mut lacking = without_pro();
        lacking.default_plan = Some(testkit::catalog::plan("free"));
        let (applied, (), ()) = tokio::join!(world.engine.apply_catalog(lacking, "without"), moved, new);
        for name in ["acme", "new"] {
            let answer = world.admit(&spend(name, vec![charge("requests", 1)])).await;
            assert!(answer.is_ok(), "{name}, applied: {applied:?}, after {pause}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_catalog_put_in_force_under_load_works_on_the_next_request() {
    let world = Arc::new(World::new(catalog(), RESTLESS).await);
    world.put("acme", "free").await;
    let unrest = Unrest::around(&world, 43);
    let load = at_once(4, |_| {
        let engine = world.engine.clone();
        async move {
            let mut passed = 0;
            for _ in 0..100 {
                passed += i64::from(admit(&engine, &request()).await.unwrap().decision.allowed);
            }
            passed
        }
    });
    let raised = draft().plan("free", &[], vec![limit("requests", WindowKind::Month, 150)]).done();
    let (passed, version) = tokio::join!(load, world.engine.apply_catalog(raised, "raised"));
    assert_eq!(version.unwrap(), 2);
    let mut passed: i64 = passed.iter().sum();
    for _ in 0..100 {
        passed += i64::from(admit(&world.engine, &by_user(request(), "al")).await.unwrap().decision.allowed);
    }
    unrest.end(&world).await;
    assert_eq!(passed, 150);
    assert_eq!(world.used("acme", None, "requests").await, (150, 350));
}
