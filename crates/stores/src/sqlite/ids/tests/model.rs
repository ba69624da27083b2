use super::{DAY_MS, World};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Insert(u64),
    Commit,
    Maintain(usize),
    Settle,
    Wait(i64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..400u64).prop_map(Step::Insert),
        4 => Just(Step::Commit),
        6 => (1..40usize).prop_map(Step::Maintain),
        2 => Just(Step::Settle),
        2 => (1..4 * DAY_MS).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map_whatever_happens(steps in prop::collection::vec(step(), 1..50)) {
        let mut world = World::small();
        for step in steps {
            match step {
                Step::Insert(count) => world.insert(count),
                Step::Commit => world.commit(),
                Step::Maintain(units) => {
                    world.maintain(units);
                }
                Step::Settle => world.settle(),
                Step::Wait(ms) => world.now_ms += ms,
                Step::Crash => world.crash(),
            }
            world.check(&world.index);
        }
        // What is past the window goes in the end, with all it had on disk.
        world.commit();
        world.settle();
        world.now_ms += super::WINDOW_MS * 2;
        world.settle();
        world.now_ms += super::WINDOW_MS * 2;
        world.settle();
        let rows: i64 = world
            .conn
            .query_row("SELECT (SELECT count(*) FROM id_pages) + (SELECT count(*) FROM id_filters)", [], |row| row.get(0))
            .unwrap();
        prop_assert_eq!((world.index.stats().runs, world.index.stats().recent_ids, rows), (0, 0, 0));
    }
}

#[test]
fn opens_from_every_state_between_two_slices() {
    let mut world = World::small();
    for _ in 0..12 {
        world.insert(310);
        world.commit();
        world.now_ms += DAY_MS;
        let mut slices = 0;
        while world.maintain(1) {
            world.check(&world.opened());
            slices += 1;
            assert!(slices < 10_000, "upkeep does not come to an end");
        }
        world.check(&world.opened());
    }
    assert!(world.index.stats().runs < 12, "nothing was merged");
}

#[test]
fn an_id_bound_anew_counts_from_there() {
    let mut world = World::small();
    world.insert(310);
    world.commit();
    world.settle();
    world.index.insert(super::id(7), 311);
    world.next = 312;
    world.insert(310);
    world.commit();
    world.now_ms += 4 * DAY_MS;
    world.settle();
    assert_eq!(world.index.stats().recent_ids, 0, "all are sealed");
    assert_eq!(world.bound(&world.index, super::id(7)), Some(311));
}

#[test]
fn a_replay_may_begin_too_early() {
    let mut world = World::small();
    world.insert(310);
    world.commit();
    world.settle();
    for n in 1..=310 {
        world.index.insert(super::id(n), n);
    }
    assert_eq!(world.index.stats().recent_ids, 0);
}

#[test]
fn positions_without_ids_move_the_replay_on() {
    let mut world = World::small();
    world.insert(10);
    world.next = 5_000;
    world.commit();
    world.settle();
    assert_eq!(world.index.stats().sealed_through, 4_999);
    world.next = 50_000;
    world.commit();
    world.settle();
    assert_eq!((world.index.stats().sealed_through, world.index.stats().runs), (49_999, 1));
    world.check(&world.opened());
}

#[test]
fn a_period_that_is_over_ends_up_as_one_run() {
    let mut world = World::small();
    for _ in 0..3 {
        for _ in 0..5 {
            world.insert(250);
            world.commit();
            world.settle();
        }
        world.now_ms += 2 * DAY_MS;
        world.settle();
    }
    let stats = world.index.stats();
    assert_eq!((stats.runs, stats.recent_ids), (3, 0));
    assert_eq!(stats.sealed_ids, 3 * 5 * 250);
    world.check(&world.index);
}
