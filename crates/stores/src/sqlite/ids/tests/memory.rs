use super::{DAY_MS, World, id};
use crate::sqlite::ids::{
    Options,
    filter::{BLOCK_BYTES, Block, Filter, Probe, blocks_for, part_of},
};
use engine::ports::Lookup;

/// The filter of a large run at the density it has, on fewer ids.
#[test]
fn a_filter_is_seldom_wrong_and_only_one_way() {
    let ids = 200_000;
    let blocks = blocks_for(100_000_000) / 500;
    assert!(u64::from(blocks) * BLOCK_BYTES as u64 * 8 / ids <= 14, "measured at the density of large runs");
    let mut lines = vec![Block::default(); blocks as usize];
    for n in 0..ids {
        lines[part_of(id(n), blocks) as usize].add(id(n));
    }
    let filter = Filter::new(lines);
    assert!((0..ids).all(|n| filter.may_hold(&Probe::new(id(n)))));
    let wrong = (ids..2 * ids).filter(|n| filter.may_hold(&Probe::new(id(*n)))).count();
    assert!(wrong < ids as usize / 400, "{wrong} of {ids}");
}

#[test]
fn fresh_ids_seldom_cost_a_read() {
    let mut world = World::new(Options { filter_budget_bytes: 1 << 20, seal_ids: 2_000, seal_positions: 1 << 40 });
    for _ in 0..30 {
        world.insert(2_000);
        world.commit();
        world.settle();
        world.now_ms += DAY_MS / 3;
    }
    assert!(world.index.stats().runs > 4);
    let asked = 50_000;
    let unsure = (0..asked).filter(|n| world.index.find(id(1 << 40 | n)) != Lookup::Fresh).count();
    assert!(unsure < asked as usize / 50, "{unsure} of {asked}");
}

#[test]
fn filters_beyond_the_budget_are_dropped_oldest_first_and_come_back() {
    // Room for the filters of five runs as they are sealed.
    let budget = 640;
    let mut world = World::new(Options { filter_budget_bytes: budget, seal_ids: 50, seal_positions: 1 << 40 });
    let mut starved = false;
    for _ in 0..40 {
        world.insert(50);
        world.commit();
        while world.maintain(4) {
            assert!(world.index.stats().filter_bytes <= budget as u64, "{:?}", world.index.stats());
        }
        starved |= world.index.stats().unfiltered_runs > 0;
        world.now_ms += DAY_MS / 2;
        world.check(&world.index);
    }
    assert!(starved, "the budget was never met");
    world.check(&world.opened());
    assert!(world.opened().stats().filter_bytes <= budget as u64);
    // Fewer ids again: every filter fits.
    for _ in 0..40 {
        world.insert(2);
        world.commit();
        world.now_ms += DAY_MS;
        world.settle();
    }
    assert_eq!(world.index.stats().unfiltered_runs, 0);
}
