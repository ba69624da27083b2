use super::{DAY_MS, World};
use crate::sqlite::ids::IdIndex;
use engine::ports::{LedgerError, Lookup};

fn sealed() -> World {
    let mut world = World::small();
    world.insert(310);
    world.commit();
    world.settle();
    world
}

fn spoil(world: &World, table: &str) {
    let sql = format!("UPDATE {table} SET data = CAST(substr(data, 1, 40) || x'00ff00' || substr(data, 44) AS BLOB)");
    assert!(world.conn.execute(&sql, []).unwrap() > 0);
}

#[test]
fn a_damaged_page_is_named_and_never_an_answer() {
    let world = sealed();
    spoil(&world, "id_pages");
    let index = world.opened();
    for n in 1..=310 {
        let Err(LedgerError::Damaged(what)) = index.find_on_disk(&world.conn, super::id(n)) else {
            panic!("an answer from a damaged page")
        };
        assert!(what.contains("of id run 1"), "{what}");
    }
}

#[test]
fn a_page_in_the_wrong_place_is_damaged() {
    let world = sealed();
    world.conn.execute("UPDATE id_pages SET place = -1 WHERE place = 1 << 32", []).unwrap();
    world.conn.execute("UPDATE id_pages SET place = 1 << 32 WHERE place = (1 << 32) + 1", []).unwrap();
    world.conn.execute("UPDATE id_pages SET place = (1 << 32) + 1 WHERE place = -1", []).unwrap();
    let damaged = (1..=310).filter(|n| world.index.find_on_disk(&world.conn, super::id(*n)).is_err()).count();
    assert_eq!(damaged, 310);
}

#[test]
fn a_missing_page_is_damage() {
    let world = sealed();
    world.conn.execute("DELETE FROM id_pages", []).unwrap();
    assert!(matches!(world.index.find_on_disk(&world.conn, super::id(1)), Err(LedgerError::Damaged(_))));
}

#[test]
fn a_damaged_page_stops_no_upkeep() {
    let mut world = sealed();
    spoil(&world, "id_pages");
    for _ in 0..8 {
        world.insert(310);
        world.commit();
        world.settle();
    }
    world.now_ms += 2 * DAY_MS;
    world.settle();
    assert_eq!(world.index.stats().runs, 2, "the damaged one, and all others in one");
    for n in 311..=9 * 310 {
        let found = world.index.find_on_disk(&world.conn, super::id(n));
        assert!(found.is_err() || found == Ok(Some(n)));
    }
    assert_eq!(world.index.find_on_disk(&world.conn, super::id(400)), Ok(Some(400)));
}

#[test]
fn a_damaged_filter_costs_time_and_is_written_anew() {
    let mut world = sealed();
    spoil(&world, "id_filters");
    world.index = world.opened();
    assert_eq!(world.index.stats().unfiltered_runs, 1);
    assert!(matches!(world.index.find(super::id(5_000)), Lookup::Unsure { .. }));
    world.check(&world.index);
    world.settle();
    assert_eq!(world.index.stats().unfiltered_runs, 0);
    assert_eq!(world.index.find(super::id(5_000)), Lookup::Fresh);
    world.check(&world.opened());
}

#[test]
fn a_damaged_row_of_a_run_does_not_open() {
    let world = sealed();
    world.conn.execute("UPDATE id_runs SET pages = pages - 1", []).unwrap();
    assert!(matches!(IdIndex::open(&world.conn, world.options), Err(LedgerError::Damaged(_))));
}
