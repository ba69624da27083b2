//! Random lives are warned of exactly what use has reached: every entry is read again by a book of its own, which knows
//! the limits from plan and overrides, and what it has seen told.

use crate::{
    auditor::limits_in_force,
    in_flight,
    steps::{Life, whole_life},
    world::{State, World},
};
use domain::{
    catalog::{Limit, LimitWindow, Mode, Scope},
    entry::{Effect, Entry},
    id::{MeterKey, UserId},
    tenant::Tenant,
    time::{Instant, WindowKind},
    warning::Warning,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Whose limit on what, and which part of it.
type Name = (Option<UserId>, MeterKey, LimitWindow, u16);

/// What was told: the amount that was reached, and in which window.
#[derive(Default)]
struct Told(BTreeMap<Name, (i64, Option<Instant>)>);

fn amount(max: i64, percent: u16) -> i64 {
    // The first amount that is so many percent, by looking for it.
    (1..).find(|used| used * 100 >= max * i64::from(percent)).unwrap()
}

impl Told {
    /// What the entry that led to this state had to tell.
    fn due(&mut self, world: &World, state: &State, entry: &Entry) -> BTreeSet<(Name, i64, i64)> {
        let tenant = &state.tenant;
        let user = entry.user.as_ref().map(|id| &state.users[id]);
        self.forget_levels(state);
        let is_moved = |meter: &MeterKey| {
            entry.effects.iter().any(|effect| match effect {
                Effect::Use { meter: moved, open, .. } => moved == meter && open.0 != 0,
                Effect::Level { meter: moved, .. } => moved == meter,
                Effect::Profile(_) => true,
                _ => false,
            })
        };
        let mut due = BTreeSet::new();
        for limit in limits_in_force(world, entry.at).iter().filter(|limit| warns(limit) && is_moved(&limit.meter)) {
            let owner = match (limit.scope, user) {
                (Scope::Tenant, _) => None,
                (Scope::User, Some(user)) => Some(user),
                (Scope::User, None) => continue,
            };
            let accounts = owner.map_or(&tenant.accounts, |user| &user.accounts);
            let window = limit.window.kind().map(|kind| tenant.windows[kind.index()]);
            let used = match limit.window.kind() {
                None => accounts.level(&limit.meter),
                Some(kind) => accounts.used(&limit.meter, kind, &tenant.windows[kind.index()]),
            };
            for percent in &world.catalog.warnings {
                let reached = amount(limit.max.unwrap(), *percent);
                let name = (owner.map(|user| user.id.clone()), limit.meter.clone(), limit.window, *percent);
                let start = window.map(|window| window.start);
                let is_told = self.0.get(&name).is_some_and(|told| told.1 == start && told.0 >= limit.max.unwrap());
                if used >= reached && !is_told {
                    self.0.insert(name.clone(), (limit.max.unwrap(), start));
                    due.insert((name, used, limit.max.unwrap()));
                }
            }
        }
        due
    }

    fn forget_levels(&mut self, state: &State) {
        self.0.retain(|(user, meter, window, percent), (max, _)| {
            let accounts = match user {
                None => &state.tenant.accounts,
                Some(id) => &state.users[id].accounts,
            };
            *window != LimitWindow::Level || accounts.level(meter) >= amount(*max, *percent)
        });
    }
}

fn warns(limit: &Limit) -> bool {
    let is_rate = matches!(limit.window, LimitWindow::Of(WindowKind::Hour | WindowKind::Minute));
    limit.max.is_some() && limit.mode != Mode::Shadow && !is_rate && !limit.window.is_of_sessions()
}

fn told(entry: &Entry) -> Vec<&Warning> {
    let warned = entry.effects.iter().filter_map(|effect| match effect {
        Effect::Warned(warning) => Some(&**warning),
        _ => None,
    });
    warned.collect()
}

/// Each part of each limit is told of in each window if and only if use has reached it, once, by the entry that carried use
/// there (or found it there when the limit changed).
fn told_once(life: &World) {
    let tenant = Tenant::born(life.state.tenant.id.clone(), &life.entries[0]).unwrap();
    let mut world = World { state: State { tenant, users: BTreeMap::new() }, ..life.twin() };
    let mut book = Told::default();
    for entry in &life.entries {
        world.state.fold(entry);
        let due = book.due(&world, &world.state, entry);
        let told: Vec<_> = told(entry)
            .into_iter()
            .map(|one| {
                assert_eq!(one.at, entry.at);
                let owner = entry.user.clone().filter(|_| one.scope == Scope::User);
                ((owner, one.meter.clone(), one.window, one.percent), one.used, one.max)
            })
            .collect();
        assert_eq!(told.len(), due.len(), "each once: {told:?} of {due:?}");
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), due);
    }
}

proptest! {
    #![proptest_config(crate::config(256, "auditor"))]

    #[test]
    fn what_use_has_reached_is_told_once(steps in whole_life()) {
        let mut life = Life::begin();
        steps.iter().for_each(|step| drop(life.step(step)));
        told_once(&life.world);
    }

    /// Settlements, lapses and time that ran carry use as well.
    #[test]
    fn what_work_in_flight_has_reached_is_told_once(steps in in_flight::acts::whole_life()) {
        let mut life = in_flight::life::Life::begin();
        steps.iter().for_each(|step| drop(life.step(step)));
        told_once(&life.world);
    }
}
