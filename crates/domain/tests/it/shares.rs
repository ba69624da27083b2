//! Shares judged by a model that knows only who used how much and when: whatever the mode was before, nothing is lost,
//! nothing refills, and nobody passes a part or the whole.

use crate::{
    script::shares,
    world::{World, add_plan, at, catalog, meter},
};
use domain::{
    catalog::Scope,
    entry::Cause,
    id::{PlanKey, UserId},
    lease::Terms,
    op::{Charge, Op, ProfileChange, Spend},
    share::ShareMode,
    time::WindowKind,
};
use proptest::prelude::*;

const DAY_MAX: i64 = 12;
const PERIOD_MAX: i64 = 20;
const MODES: [&str; 6] = [
    "none",
    "messages:pooled",
    "messages:equal:2",
    "messages:equal:5",
    "messages:custom:ann~3+bob~0+*~6",
    "messages:custom:ann~9",
];

#[derive(Debug, Clone)]
enum Step {
    Spend(Option<&'static str>, i64),
    Share(&'static str),
    Days(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let user = prop::sample::select(vec![None, Some("ann"), Some("bob"), Some("eve")]);
    prop_oneof![
        6 => (user, 1..5_i64).prop_map(|(user, amount)| Step::Spend(user, amount)),
        2 => prop::sample::select(MODES.to_vec()).prop_map(Step::Share),
        1 => (1..20_i64).prop_map(Step::Days),
    ]
}

/// Who used how much, in which day and period: by number.
#[derive(Default)]
struct Model(Vec<(Option<&'static str>, i64, i64, i64)>);

impl Model {
    fn used(&self, user: Option<&str>, day: Option<i64>, period: i64) -> i64 {
        let counts = |(who, of_day, of_period, _): &&(Option<&str>, i64, i64, i64)| {
            (user.is_none() || *who == user) && *of_period == period && day.is_none_or(|day| *of_day == day)
        };
        self.0.iter().filter(counts).map(|(.., amount)| amount).sum()
    }
}

fn part(mode: &str, user: &str, max: i64) -> i64 {
    let share = shares(mode).pop();
    let part = share.and_then(|share| share.mode.part(&UserId::trusted(user), Some(max)));
    part.unwrap_or(i64::MAX)
}

proptest! {
    #![proptest_config(crate::config(256, "shares"))]

    #[test]
    fn a_change_of_mode_loses_and_refills_nothing(steps in prop::collection::vec(step(), 1..60)) {
        let mut catalog = catalog();
        add_plan(&mut catalog, "free", 0, &[], &["messages<=12/day", "messages<=20/period"]);
        let start = at("2027-01-01T00:00Z");
        let change = ProfileChange { plan: Some(PlanKey::trusted("free")), ..ProfileChange::default() };
        let mut world = World::create(catalog, &change, start).unwrap().unwrap();
        let (mut model, mut mode, mut day) = (Model::default(), "none", 0_i64);
        for step in steps {
            // Every period is one of the anchor's months; days are told apart by number.
            let now = start.plus_ms(day * 86_400_000 + 3_600_000);
            let period = world.state.tenant.windows_at(now)[WindowKind::Period.index()].start.ms();
            match step {
                Step::Days(days) => day += days,
                Step::Share(text) => {
                    mode = text;
                    let change = ProfileChange { shares: Some(shares(text)), ..ProfileChange::default() };
                    world.apply(None, &Op::Configure(change), now).unwrap();
                }
                Step::Spend(user, amount) => {
                    let spend = Spend {
                        charges: vec![Charge { meter: meter("messages"), amount }],
                        consume: true,
                        ..Spend::default()
                    };
                    let decision = world.apply(user, &Op::Spend(spend, Cause::Check), now).unwrap().decision.unwrap();
                    let windows = [(Some(day), DAY_MAX), (None, PERIOD_MAX)];
                    let fits = windows.iter().all(|(day, max)| {
                        let of_user = user.is_none_or(|name| {
                            model.used(user, *day, period) + amount <= part(mode, name, *max)
                        });
                        model.used(None, *day, period) + amount <= *max && of_user
                    });
                    prop_assert_eq!(decision.allowed, fits, "{} {:?} {}: {:?}", mode, user, amount, decision);
                    if fits {
                        model.0.push((user, day, period, amount));
                    }
                    for state in &decision.limits {
                        let who = if state.scope == Scope::User { user } else { None };
                        let of_day = (state.window.kind() == Some(WindowKind::Day)).then_some(day);
                        prop_assert_eq!(state.used, model.used(who, of_day, period), "{}", state.name);
                    }
                    let parts = decision.limits.iter().filter(|state| state.scope == Scope::User).count();
                    let bound = user.is_some_and(|user| part(mode, user, DAY_MAX) < i64::MAX);
                    prop_assert_eq!(parts, if bound { 2 } else { 0 });
                }
            }
        }
        world.check_replay();
    }

    /// Equal parts never come to more than the whole, and leave less than one for each seat.
    #[test]
    fn equal_parts_come_to_the_whole_but_for_the_rounding(seats in 1..2000_i64, max in 0..1_000_000_i64) {
        let part = ShareMode::Equal { seats }.part(&UserId::trusted("ann"), Some(max)).unwrap();
        prop_assert!(part * seats <= max && max - part * seats < seats);
    }
}

/// A node takes no lease on what is shared: each user has to be seen, also one that no number stands for today.
#[test]
fn what_is_shared_is_not_leased() {
    for (mode, leased) in [
        ("none", true),
        ("messages:pooled", true),
        ("tokens:equal:2", true),
        ("messages:equal:2", false),
        ("messages:custom:ann~3", false),
    ] {
        let mut catalog = catalog();
        add_plan(&mut catalog, "free", 0, &[], &["messages<=5000/day"]);
        let plan = Some(PlanKey::trusted("free"));
        let change = ProfileChange { plan, shares: Some(shares(mode)), ..ProfileChange::default() };
        let now = at("2027-01-01T00:00Z");
        let mut world = World::create(catalog, &change, now).unwrap().unwrap();
        let charges = vec![Charge { meter: meter("messages"), amount: 1 }];
        let op = Op::Spend(Spend { charges, consume: true, ..Spend::default() }, Cause::Check);
        let mut entry = world.apply(Some("eve"), &op, now).unwrap().entry.unwrap();
        let granted = world.state.tenant.grant(&mut entry, 2, None, &op, &Terms::DEFAULT, &world.catalog);
        assert_eq!(granted, leased, "{mode}");
    }
}
