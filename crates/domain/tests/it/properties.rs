//! What holds for every life of a tenant.

use crate::{
    steps::{Life, Step, plain_life, whole_life},
    table::history,
};
use domain::{
    op::{Op, Spend},
    time::WindowKind,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(crate::config(256, "auditor"))]

    /// Every decision is the one the auditor would have made; nothing is negative; what is charged is what is shown;
    /// no change of plan, anchor or zone moves an open window's start or use; every total adds up; and the fold of the
    /// entries is the state. Whatever was recorded before, what is *decided* never passes a hard limit: the auditor
    /// judges each one by its own numbers.
    #[test]
    fn the_auditor_agrees(steps in whole_life()) {
        let mut life = Life::begin();
        for step in &steps {
            life.step(step);
        }
        life.end();
    }

    /// Looking costs nothing: dry checks and views in between change neither what is decided nor what is stored.
    #[test]
    fn looking_changes_nothing(steps in whole_life(), looks in prop::collection::vec(0..9_i64, 40)) {
        let (mut plain, mut watched) = (Life::begin(), Life::begin());
        for (step, look) in steps.iter().zip(&looks) {
            look_around(&watched, step, *look);
            prop_assert_eq!(plain.step(step), watched.step(step));
        }
        prop_assert_eq!(&plain.world.state, &watched.world.state);
        prop_assert_eq!(&plain.world.entries, &watched.world.entries);
    }

    /// Writing waiting denials down earlier or later, and so turning windows at other instants, changes no number.
    #[test]
    fn splitting_time_changes_no_number(steps in plain_life(), flushes in prop::collection::vec(any::<bool>(), 40)) {
        let (mut plain, mut split) = (Life::begin(), Life::begin());
        for (step, flush) in steps.iter().zip(&flushes) {
            // The clock of a tenant stands still while nothing is written; here it must go on for both alike.
            let step = &(step.0.max(0), step.1.clone());
            if *flush {
                let between = split.now.plus_ms(step.0 / 2);
                for user in [None, Some("ann"), Some("bob")] {
                    split.world.flush(user, between).into_iter().for_each(|_| split.auditor.entry_at(between));
                }
            }
            prop_assert_eq!(plain.step(step), split.step(step));
        }
        plain.end();
        split.end();
        for key in ["messages", "tokens", "documents", "seats"] {
            for kind in WindowKind::ALL.into_iter().filter(|kind| kind.is_kept()) {
                let numbers = |life: &Life| history(&life.world.state.tenant.accounts, key, kind);
                prop_assert_eq!(numbers(&plain), numbers(&split), "{} by {:?}", key, kind);
            }
        }
    }
}

fn look_around(life: &Life, step: &Step, look: i64) {
    let mut world = life.world.twin();
    let now = life.now.plus_ms(step.0.max(0) * look / 9);
    let before = world.state.clone();
    world.state.tenant.usage(None, now, &world.catalog);
    let ask = Spend { features: world.catalog.features.keys().cloned().collect(), ..Spend::default() };
    world.apply(None, &Op::Spend(ask, domain::entry::Cause::Check), now).unwrap();
    assert_eq!(world.state, before, "a look changes nothing");
}
