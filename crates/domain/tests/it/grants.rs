//! Random lives with grants: nothing is spent that is not there, and every amount comes out of one pool.

use crate::world::{World, add_plan, at, catalog, meter};
use domain::{
    entry::{Cause, Effect},
    grant::{GRANTS_MAX, Grant, GrantChange, GrantId, GrantSource},
    id::PlanKey,
    op::{Charge, Op, OpError, ProfileChange, Spend},
    time::{DAY_MS, Instant, WindowKind},
};
use proptest::prelude::*;

const QUOTA: i64 = 20;

fn world() -> World {
    let mut catalog = catalog();
    add_plan(&mut catalog, "free", 0, &[], &[&format!("messages<={QUOTA}/period")]);
    let change = ProfileChange { plan: Some(PlanKey::new("free").unwrap()), ..ProfileChange::default() };
    World::create(catalog, &change, at("2027-01-01T00:00Z")).unwrap().unwrap()
}

fn grant(id: u128, amount: i64, priority: i64, expires_at: Option<Instant>) -> Op {
    let (meter, reason) = (meter("messages"), "a test".into());
    let (granted_at, source) = (Instant::EPOCH, GrantSource::Given);
    let id = GrantId(id);
    let grant = Grant { id, meter, amount, left: 0, priority, granted_at, expires_at, source, reason };
    Op::Grant(GrantChange::Put { grant, binding: None })
}

fn spend(amount: i64) -> Op {
    let charges = vec![Charge { meter: meter("messages"), amount }];
    Op::Spend(Spend { charges, consume: true, refundable: true, ..Spend::default() }, Cause::Check)
}

#[test]
fn a_tenant_has_so_many_grants_and_no_more() {
    let mut world = world();
    let now = at("2027-01-01T10:00Z");
    for id in 0..GRANTS_MAX as u128 {
        world.apply(None, &grant(id, 1, 0, None), now).unwrap();
    }
    let refused = world.apply(None, &grant(1_000, 1, 0, None), now);
    assert_eq!(refused.unwrap_err(), OpError::TooManyGrants(GRANTS_MAX));
    // What is used up makes room.
    world.apply(None, &spend(QUOTA + 1), now).unwrap();
    world.apply(None, &grant(1_000, 1, 0, None), now).unwrap();
    world.check_replay();
}

#[derive(Debug, Clone)]
enum Act {
    Grant { amount: i64, priority: i64, days: Option<i64> },
    Spend(i64),
    Refund,
    Wait(i64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1_i64..15, -1_i64..2, prop::option::of(1_i64..40))
            .prop_map(|(amount, priority, days)| Act::Grant { amount, priority, days }),
        6 => (1_i64..12).prop_map(Act::Spend),
        1 => Just(Act::Refund),
        2 => (1_i64..20).prop_map(Act::Wait),
    ]
}

proptest! {
    /// What is allowed is what plan and open grants have room for; what is used is what the plan's pool and the grants
    /// gave; a refund gives back to where it was taken from.
    #[test]
    fn what_is_spent_was_there(acts in prop::collection::vec(act(), 1..40)) {
        let mut world = world();
        let mut now = at("2027-01-01T10:00Z");
        let (mut id, mut last) = (0, None);
        for act in acts {
            match act {
                Act::Grant { amount, priority, days } => {
                    id += 1;
                    let end = days.map(|days| now.plus_ms(days * DAY_MS));
                    world.apply(None, &grant(id, amount, priority, end), now).unwrap();
                    last = None;
                }
                Act::Wait(days) => (now, last) = (now.plus_ms(days * DAY_MS), None),
                Act::Spend(amount) => {
                    let room = room(&world, now);
                    let outcome = world.apply(None, &spend(amount), now).unwrap();
                    let decision = outcome.decision.unwrap();
                    prop_assert_eq!(decision.allowed, amount <= room, "{} of {}", amount, room);
                    if decision.allowed {
                        prop_assert_eq!(self::room(&world, now), room - amount);
                        let usage = world.state.tenant.usage(None, now, &world.catalog);
                        let shown = usage.meters.iter().find(|known| known.meter.key == meter("messages")).unwrap();
                        prop_assert_eq!(&shown.limits[0], &decision.limits[0], "what is shown is what is checked");
                        last = outcome.receipt.map(|receipt| (*receipt, room));
                    }
                }
                Act::Refund => {
                    if let Some((receipt, room)) = last.take() {
                        world.apply(None, &Op::Refund(receipt), now).unwrap();
                        prop_assert_eq!(self::room(&world, now), room, "all of it is back where it was");
                    }
                }
            }
            for grant in world.state.tenant.grants.iter() {
                prop_assert!((0..=grant.amount).contains(&grant.left), "{:?}", grant);
            }
            world.check_replay();
        }
        // Draws never exceed the use they stand beside.
        for entry in &world.entries {
            let sum = |of: fn(&Effect) -> i64| entry.effects.iter().map(of).sum::<i64>();
            let used = sum(|effect| if let Effect::Use { amount, .. } = effect { *amount } else { 0 });
            let drawn = sum(|effect| if let Effect::Draw(draw) = effect { draw.amount } else { 0 });
            prop_assert!(drawn.abs() <= used.abs(), "{:?}", entry);
        }
    }
}

/// By its own arithmetic: the plan's pool of this period, and what is left of grants that have not ended.
fn room(world: &World, now: Instant) -> i64 {
    let tenant = &world.state.tenant;
    let at = tenant.instant(now);
    let period = tenant.windows_at(at)[WindowKind::Period.index()];
    let in_period = |entry: &&domain::entry::Entry| entry.at >= period.start;
    let effects = world.entries.iter().filter(in_period).flat_map(|entry| &entry.effects);
    let plans = effects.map(|effect| match effect {
        Effect::Use { amount, .. } => *amount,
        Effect::Draw(draw) => -draw.amount,
        _ => 0,
    });
    let used: i64 = plans.sum();
    let open = tenant.grants.iter().filter(|grant| grant.expires_at.is_none_or(|end| at < end));
    (QUOTA - used).max(0) + open.map(|grant| grant.left).sum::<i64>()
}
