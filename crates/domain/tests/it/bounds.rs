//! What a storm of refusals may cost: a bounded number of lines and of runs in memory, whoever is refused.

use crate::world::{World, add_plan, at, catalog, meter};
use domain::{
    demand::RUNS_MAX,
    entry::{Cause, Effect},
    id::PlanKey,
    op::{Charge, Op, ProfileChange, Spend},
    time::WindowKind,
};

#[test]
fn a_storm_of_refused_users_is_counted_in_bounded_space() {
    let mut catalog = catalog();
    add_plan(&mut catalog, "free", 0, &[], &["messages<=0/day"]);
    let change = ProfileChange { plan: Some(PlanKey::new("free").unwrap()), ..ProfileChange::default() };
    let now = at("2027-01-31T10:00Z");
    let mut world = World::create(catalog, &change, now).unwrap().unwrap();
    let users: Vec<String> = (0..RUNS_MAX + 200).map(|number| format!("user{number}")).collect();
    let charges = vec![Charge { meter: meter("messages"), amount: 1 }];
    let op = Op::Spend(Spend { charges, consume: true, ..Spend::default() }, Cause::Gateway);

    for _ in 0..3 {
        for user in &users {
            let outcome = world.apply(Some(user), &op, now).unwrap();
            assert!(!outcome.decision.unwrap().allowed);
            assert!(outcome.denial.is_some(), "every refusal can be explained");
        }
    }
    // The creation, one line for each run with a user, and one for the run that takes the rest.
    assert_eq!(world.entries.len(), 1 + RUNS_MAX + 1);
    assert_eq!(world.state.tenant.pending.runs.len(), RUNS_MAX + 1);

    let waiting = world.state.tenant.pending.users();
    assert_eq!(waiting.len(), RUNS_MAX + 1);
    for user in waiting {
        world.flush(user.as_ref().map(|user| user.as_str()), now);
    }
    assert!(world.state.tenant.pending.is_empty());
    let counted: i64 = world.entries.iter().flat_map(|entry| &entry.effects).map(count_of).sum();
    let wanted = 3 * users.len() as i64;
    assert_eq!(counted, wanted, "no refusal is lost");
    let usage = world.state.tenant.usage(None, now, &world.catalog);
    let shown = usage.meters.iter().find(|shown| shown.meter.key == meter("messages")).unwrap();
    assert_eq!((shown.used, shown.denied), (0, wanted));

    // The next minute begins with no run of the last.
    world.apply(Some("user0"), &op, now.plus_ms(60_000)).unwrap();
    assert_eq!(world.state.tenant.pending.runs.len(), 1);
    let day = world.state.tenant.windows_at(now.plus_ms(60_000))[WindowKind::Day.index()];
    assert_eq!(day.start, at("2027-01-31T00:00Z"));
    world.check_replay();
}

fn count_of(effect: &Effect) -> i64 {
    match effect {
        Effect::Denials(run) => run.count,
        _ => 0,
    }
}
