use super::{DAY_MS, World};
use crate::sqlite::ids::{IdIndex, Options, recent::SHARDS};
use engine::ports::Lookup;
use rusqlite::Connection;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

fn rows(world: &World) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM id_pages) + (SELECT count(*) FROM id_filters)";
    world.conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Time is not counted here, work is: what a slice writes does not grow with what there is to do.
#[test]
fn a_slice_does_what_it_was_asked_for_and_hardly_more() {
    let mut world = World::new(Options { filter_budget_bytes: 1 << 24, seal_ids: 20_000, seal_positions: 1 << 40 });
    let units = 8;
    // One shard more, and what ends a run: the last page and the last part of its filter.
    let most = units as i64 + 20_000 / SHARDS as i64 + 3;
    for _ in 0..6 {
        world.insert(20_000);
        world.commit();
        loop {
            let before = rows(&world);
            let more = world.maintain(units);
            let written = rows(&world) - before;
            assert!(written <= most, "{written} rows in one slice");
            assert!(written >= -64 * 8, "{written} rows in one slice");
            if !more {
                break;
            }
        }
    }
    assert_eq!(world.index.stats().runs, 3, "four were merged into one");
}

#[test]
fn what_is_not_committed_is_not_sealed() {
    let mut world = World::small();
    world.insert(290);
    world.commit();
    world.insert(30);
    world.settle();
    assert_eq!((world.index.stats().recent_ids, world.index.stats().sealed_through), (30, 290));
    world.crash();
    world.check(&world.index);
    assert_eq!(world.bound(&world.index, super::id(295)), None);
}

#[test]
fn the_generation_grows_when_ids_leave_memory() {
    let mut world = World::small();
    world.insert(310);
    world.commit();
    assert_eq!(world.index.find(super::id(3)), Lookup::Bound(3));
    world.settle();
    let Lookup::Unsure { generation: first } = world.index.find(super::id(3)) else { panic!("sealed ids are on disk") };
    world.insert(310);
    world.commit();
    world.settle();
    let Lookup::Unsure { generation: second } = world.index.find(super::id(3)) else {
        panic!("sealed ids are on disk")
    };
    assert!(second > first);
}

/// Readers ask for known ids while these are sealed, merged and their old pages deleted.
#[test]
fn known_ids_are_found_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.db");
    let mut writer = Connection::open(&path).unwrap();
    writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
    IdIndex::create_tables(&writer).unwrap();
    let options = Options { filter_budget_bytes: 1 << 20, seal_ids: 500, seal_positions: 1 << 40 };
    let (index, _) = IdIndex::open(&writer, options).unwrap();
    let known = std::sync::atomic::AtomicU64::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (index, known, done, path) = (&index, &known, &done, &path);
                scope.spawn(move || {
                    let conn = Connection::open(path).unwrap();
                    let mut n = reader;
                    let mut asked = 0_u64;
                    while !done.load(Ordering::Acquire) {
                        let known = known.load(Ordering::Acquire);
                        if known == 0 {
                            continue;
                        }
                        n = (n + 7_919) % known;
                        let found = match index.find(super::id(n + 1)) {
                            Lookup::Bound(seq) => Some(seq),
                            Lookup::Fresh => None,
                            Lookup::Unsure { .. } => index.find_on_disk(&conn, super::id(n + 1)).unwrap(),
                        };
                        assert_eq!(found, Some(n + 1));
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let mut now_ms = 1_000 * DAY_MS;
        for round in 0..40_u64 {
            for n in round * 510..(round + 1) * 510 {
                index.insert(super::id(n + 1), n + 1);
                known.store(n + 1, Ordering::Release);
            }
            now_ms += DAY_MS / 8;
            let committed = (round + 1) * 510;
            while index.maintain(&mut writer, committed, now_ms, super::WINDOW_MS, Duration::from_micros(100)).unwrap()
            {
            }
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 0, "a reader asked for nothing");
        }
    });
}
