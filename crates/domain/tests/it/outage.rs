//! What may pass while the ledger can't be written.

use crate::world::{add_plan, at, catalog, limit, meter};
use domain::{
    catalog::{Catalog, Limit, Outage, Plan},
    decision::Code,
    entry::{Binding, Cause, Status},
    id::{FeatureKey, PlanKey, TenantId, UserId},
    op::{Charge, Op, ProfileChange, Spend},
    outage::{Closed, Outstanding, Passed, Passing, pass_decided},
    tenant::{Tenant, User},
    time::Instant,
};
use proptest::prelude::*;
use std::sync::Arc;

const NOW: &str = "2026-06-15T12:00:30Z";

fn open(text: &str, allowance: i64) -> Limit {
    Limit { outage: Outage::Open { allowance }, ..limit(text) }
}

/// A tenant on a plan of these limits.
fn tenant(limits: Vec<Limit>) -> (Tenant, Catalog) {
    let mut catalog = catalog();
    add_plan(&mut catalog, "pro", 1, &["analytics"], &[]);
    let key = PlanKey::new("pro").unwrap();
    let plan = Plan { limits: limits.into_iter().collect(), ..Plan::clone(&catalog.plans[&key]) };
    catalog.plans.insert(key.clone(), Arc::new(plan));
    catalog.default_plan = Some(key);
    let id = TenantId::new("acme").unwrap();
    let (tenant, _) =
        Tenant::create(id, &ProfileChange::default(), at("2026-06-15T12:00:00Z"), &catalog).unwrap().unwrap();
    (tenant, catalog)
}

fn spend(charges: &[(&str, i64)], id: u128) -> Spend {
    let charge = |(key, amount): &(&str, i64)| Charge { meter: meter(key), amount: *amount };
    Spend {
        charges: charges.iter().map(charge).collect(),
        consume: true,
        binding: Some(Binding { id, fingerprint: 7 }),
        ..Spend::default()
    }
}

fn pass(tenant: &mut Tenant, ask: &Spend, outstanding: &mut Outstanding, catalog: &Catalog) -> Passing {
    let passing = tenant.pass(None, true, (ask, Cause::Check), outstanding, at(NOW), catalog).unwrap();
    if let Passing::Through(_, Some(passed)) = &passing {
        outstanding.add(passed);
    }
    passing
}

fn passes(passing: &Passing) -> bool {
    matches!(passing, Passing::Through(..))
}

#[test]
fn as_much_passes_as_the_allowance_and_what_is_known_permit() {
    let (mut tenant, catalog) = tenant(vec![open("messages<=100/day", 3)]);
    let mut outstanding = Outstanding::default();
    for id in 0..3 {
        let passing = pass(&mut tenant, &spend(&[("messages", 1)], id), &mut outstanding, &catalog);
        let Passing::Through(decision, Some(passed)) = passing else { panic!("{passing:?}") };
        assert_eq!((decision.limits[0].used, passed.binding.id, passed.at), (id as i64 + 1, id, at(NOW)));
    }
    let passing = pass(&mut tenant, &spend(&[("messages", 1)], 9), &mut outstanding, &catalog);
    assert_eq!(passing, Passing::Closed(Closed::Allowance("messages_day".into())));
    // What is recorded earns its allowance back.
    outstanding.remove(&passed_of(&spend(&[("messages", 1)], 0)));
    assert!(passes(&pass(&mut tenant, &spend(&[("messages", 1)], 9), &mut outstanding, &catalog)));
}

fn passed_of(spend: &Spend) -> Passed {
    let Spend { charges, dimensions, binding, .. } = spend.clone();
    Passed { user: None, charges, at: at(NOW), dimensions, binding: binding.unwrap() }
}

#[test]
fn a_limit_that_is_known_to_be_reached_refuses_with_its_numbers() {
    let (mut tenant, catalog) = tenant(vec![open("messages<=2/day", 100)]);
    let mut outstanding = Outstanding::default();
    for id in 0..2 {
        assert!(passes(&pass(&mut tenant, &spend(&[("messages", 1)], id), &mut outstanding, &catalog)));
    }
    let passing = pass(&mut tenant, &spend(&[("messages", 1)], 3), &mut outstanding, &catalog);
    let Passing::Refused(decision, Some((_, counted))) = passing else { panic!("{passing:?}") };
    assert_eq!((decision.code(), decision.limits[0].used), (Code::PeriodLimitReached, 2));
    assert_eq!(counted.runs[0].run.count, 1);
}

#[test]
fn one_closed_limit_closes_and_so_does_a_meter_without_an_open_one() {
    let closed = |limits: Vec<Limit>, charges: &[(&str, i64)]| {
        let (mut tenant, catalog) = tenant(limits);
        match pass(&mut tenant, &spend(charges, 1), &mut Outstanding::default(), &catalog) {
            Passing::Closed(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let minute: Arc<str> = "messages_minute".into();
    let both = vec![open("messages<=9/day", 9), limit("messages<=5/minute")];
    assert_eq!(closed(both, &[("messages", 1)]), Closed::Limit(minute));
    assert_eq!(closed(vec![open("messages<=9/day", 9)], &[("messages", 1), ("tokens", 1)]), Closed::NothingOpen);
    assert_eq!(closed(vec![], &[("messages", 1)]), Closed::NothingOpen);
    let (mut tenant_of_features, catalog_of_features) = tenant(vec![open("messages<=9/day", 9)]);
    let asked = Spend { features: vec![FeatureKey::new("analytics").unwrap()], ..spend(&[], 1) };
    let passing = pass(&mut tenant_of_features, &asked, &mut Outstanding::default(), &catalog_of_features);
    assert_eq!(passing, Passing::Closed(Closed::NothingOpen));
    // What never refuses does not close.
    let (mut tenant, catalog) = tenant(vec![open("messages<=9/day", 9), limit("messages<=5/minute:soft")]);
    assert!(passes(&pass(&mut tenant, &spend(&[("messages", 1)], 1), &mut Outstanding::default(), &catalog)));
}

#[test]
fn a_suspended_tenant_and_a_missing_feature_are_refused() {
    let (mut tenant, catalog) = tenant(vec![open("messages<=9/day", 9)]);
    let lacking = Spend { features: vec![FeatureKey::new("export").unwrap()], ..spend(&[("messages", 1)], 1) };
    let Passing::Refused(decision, _) = pass(&mut tenant, &lacking, &mut Outstanding::default(), &catalog) else {
        panic!("passed without a feature")
    };
    assert_eq!(decision.code(), Code::FeatureNotInPlan);
    let change = ProfileChange { status: Some(Status::Suspended), ..ProfileChange::default() };
    tenant.apply(None, &Op::Configure(change), at(NOW), &catalog).unwrap();
    let asked = spend(&[("messages", 1)], 2);
    let Passing::Refused(decision, _) = pass(&mut tenant, &asked, &mut Outstanding::default(), &catalog) else {
        panic!("passed while suspended")
    };
    assert_eq!(decision.code(), Code::TenantSuspended);
}

#[test]
fn a_users_limit_has_an_allowance_for_each_user_and_needs_its_use_to_be_known() {
    let (mut tenant, catalog) = tenant(vec![open("messages<=50/day/user", 2), open("messages<=100/day", 3)]);
    let mut outstanding = Outstanding::default();
    let mut users = ["ann", "ben"].map(|name| User::new(UserId::new(name).unwrap()));
    let mut ask = |user: &mut User, known, id| {
        let ask = spend(&[("messages", 1)], id);
        let passing = tenant.pass(Some(user), known, (&ask, Cause::Check), &outstanding, at(NOW), &catalog).unwrap();
        if let Passing::Through(_, Some(passed)) = &passing {
            outstanding.add(passed);
        }
        passing
    };
    assert_eq!(ask(&mut users[0], false, 1), Passing::Closed(Closed::UnknownUser));
    assert!(passes(&ask(&mut users[0], true, 2)) && passes(&ask(&mut users[0], true, 3)));
    assert_eq!(ask(&mut users[0], true, 4), Passing::Closed(Closed::Allowance("messages_day_user".into())));
    assert!(passes(&ask(&mut users[1], true, 5)));
    assert_eq!(ask(&mut users[1], true, 6), Passing::Closed(Closed::Allowance("messages_day".into())));
}

#[test]
fn what_was_decided_before_the_outage_is_not_decided_twice() {
    let (mut tenant, catalog) = tenant(vec![open("messages<=1/day", 1)]);
    let ask = spend(&[("messages", 1)], 1);
    let decided =
        tenant.apply(None, &Op::Spend(ask.clone(), Cause::Check), at(NOW), &catalog).unwrap().decision.unwrap();
    // The limit is full of this very charge.
    let passed = pass_decided(&decided, &ask, None, &Outstanding::default()).unwrap().unwrap();
    let mut outstanding = Outstanding::default();
    outstanding.add(&passed);
    let why = pass_decided(&decided, &ask, None, &outstanding);
    assert_eq!(why, Err(Closed::Allowance("messages_day".into())));
}

#[test]
fn what_passed_is_recorded_in_its_own_windows_and_can_be_given_back_from_them() {
    let (mut tenant, catalog) = tenant(vec![open("messages<=9/day", 9)]);
    let mut later = tenant.clone();
    let passing =
        pass(&mut tenant, &spend(&[("messages", 2), ("messages", 1)], 1), &mut Outstanding::default(), &catalog);
    let Passing::Through(_, Some(passed)) = passing else { panic!("{passing:?}") };
    // The next day.
    let now = at("2026-06-16T00:10:00Z");
    later.apply(None, &Op::Record(passed.fact(now, &catalog)), now, &catalog).unwrap();
    let used = |tenant: &Tenant| {
        let usage = tenant.usage(None, now, &catalog);
        let meter = usage.meters.iter().find(|shown| shown.meter.key == meter("messages")).unwrap();
        (meter.used, meter.limits[0].used)
    };
    assert_eq!(used(&later), (3, 0), "the period holds it, the new day does not");
    let receipt = later.receipt_of(&passed, now, &catalog);
    later.apply(None, &Op::Refund(receipt), now, &catalog).unwrap();
    assert_eq!(used(&later), (0, 0));
    // Longer ago than late events are accepted: it is recorded all the same.
    let years_later = at("2028-01-01T00:00:00Z");
    later.apply(None, &Op::Record(passed.fact(years_later, &catalog)), years_later, &catalog).unwrap();
}

proptest! {
    #![proptest_config(crate::config(200, "outage"))]

    /// Whatever is asked in whatever order: what passes stays within the allowance and the limit, nothing passes under a
    /// closed limit, and what passed and is recorded is what was acknowledged.
    #[test]
    fn allowance_and_limit_bound_what_passes(
        max in 1_i64..30, allowance in 0_i64..20, before in 0_i64..30, closed in any::<bool>(),
        asks in proptest::collection::vec((1_i64..6, any::<bool>()), 1..30),
    ) {
        let mut limits = vec![open(&format!("messages<={max}/day"), allowance)];
        if closed {
            limits.push(limit("messages<=1000/month"));
        }
        let (mut tenant, catalog) = tenant(limits);
        let fact = Passed { charges: vec![Charge { meter: meter("messages"), amount: before }], ..passed_of(&spend(&[], 99)) };
        tenant.apply(None, &Op::Record(fact.fact(at(NOW), &catalog)), at(NOW), &catalog).unwrap();
        let mut truth = tenant.clone();
        let mut outstanding = Outstanding::default();
        let (mut kept, mut acknowledged): (Vec<Passed>, i64) = (Vec::new(), 0);
        for (id, (amount, reconcile)) in asks.into_iter().enumerate() {
            let ask = spend(&[("messages", amount)], id as u128);
            match pass(&mut tenant, &ask, &mut outstanding, &catalog) {
                Passing::Through(_, Some(passed)) => {
                    prop_assert!(!closed);
                    acknowledged += amount;
                    kept.push(passed);
                    let waiting: i64 = kept.iter().flat_map(|passed| &passed.charges).map(|charge| charge.amount).sum();
                    prop_assert!(waiting <= allowance && before + acknowledged <= max);
                }
                Passing::Refused(..) => prop_assert!(before + acknowledged + amount > max),
                Passing::Closed(Closed::Limit(_)) => prop_assert!(closed),
                other => prop_assert!(matches!(other, Passing::Closed(Closed::Allowance(_))), "{:?}", other),
            }
            if reconcile {
                for passed in kept.drain(..) {
                    outstanding.remove(&passed);
                    truth.apply(None, &Op::Record(passed.fact(later(), &catalog)), later(), &catalog).unwrap();
                }
                prop_assert_eq!(&outstanding, &Outstanding::default());
            }
        }
        for passed in kept {
            truth.apply(None, &Op::Record(passed.fact(later(), &catalog)), later(), &catalog).unwrap();
        }
        let usage = truth.usage(None, later(), &catalog);
        let recorded = usage.meters.iter().find(|shown| shown.meter.key == meter("messages")).unwrap().used;
        prop_assert_eq!(recorded, before + acknowledged);
    }
}

fn later() -> Instant {
    at("2026-06-15T13:00:00Z")
}
