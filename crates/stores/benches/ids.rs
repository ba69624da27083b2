//! How fast the id index is: `cargo bench -p stores --bench ids -- [millions of ids] [directory]`.
//!
//! Inserts that many ids, spread over a window of 35 days, with the upkeep a writer would do between commits; then asks
//! for fresh and known ids, and opens the index again as after a restart.
#![allow(clippy::unwrap_used)]

use engine::ports::Lookup;
use rusqlite::Connection;
use std::{
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};
use stores::sqlite::ids::{IdIndex, Options};

const DAY_MS: i64 = 86_400_000;
const WINDOW_MS: i64 = 35 * DAY_MS;

fn id(n: u64) -> u128 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let high = mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    u128::from(high) << 64 | u128::from(mix(high ^ n))
}

fn open(path: &PathBuf) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384").unwrap();
    conn
}

fn per_call(calls: u64, took: Duration) -> String {
    format!("{:.0} ns ({:.0} per second)", took.as_nanos() as f64 / calls as f64, calls as f64 / took.as_secs_f64())
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let millions: u64 = arguments.next().map_or(2, |text| text.parse().unwrap());
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(dir).unwrap();
    let path = scratch.path().join("ids.db");
    let total = millions * 1_000_000;
    let mut conn = open(&path);
    IdIndex::create_tables(&conn).unwrap();
    let (index, _) = IdIndex::open(&conn, Options::default()).unwrap();

    fill(&index, &mut conn, total);
    ask(&index, &conn, total);

    drop(index);
    drop(conn);
    let conn = open(&path);
    let started = Instant::now();
    let (index, replay_after) = IdIndex::open(&conn, Options::default()).unwrap();
    let loaded = started.elapsed();
    for n in replay_after..total {
        index.insert(id(n), n + 1);
    }
    println!("open             {loaded:.0?} for the filters, {:.0?} with the rest inserted again", started.elapsed());
    println!("file             {:.1} bytes an id", std::fs::metadata(&path).unwrap().len() as f64 / total as f64);
}

fn fill(index: &IdIndex, conn: &mut Connection, total: u64) {
    let (mut inserting, mut upkeep, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut slices, mut most_runs, mut slow) = (0_u64, 0, 0_u64);
    for batch in 0..total / 1_000 {
        let started = Instant::now();
        for n in batch * 1_000..(batch + 1) * 1_000 {
            index.insert(id(n), n + 1);
        }
        inserting += started.elapsed();
        let last = batch + 1 == total / 1_000;
        // One slice between two commits; at the end all that is left.
        loop {
            let now_ms = 20_000 * DAY_MS + (batch * 1_000 * WINDOW_MS as u64 / total) as i64;
            let started = Instant::now();
            let more = index.maintain(conn, (batch + 1) * 1_000, now_ms, WINDOW_MS, Duration::from_millis(10)).unwrap();
            let took = started.elapsed();
            upkeep += took;
            if took > Duration::from_micros(100) {
                slices += 1;
                slow += u64::from(took > Duration::from_millis(12));
                longest = longest.max(took);
            }
            if !(more && last) {
                break;
            }
        }
        most_runs = most_runs.max(index.stats().runs);
    }
    let stats = index.stats();
    println!("insert           {}", per_call(total, inserting));
    println!("upkeep           {} an id", per_call(total, upkeep));
    println!("slices           {slices}, {slow} over 12 ms, the longest {longest:.1?}");
    println!("runs             {} now, {most_runs} at most, {} unfiltered", stats.runs, stats.unfiltered_runs);
    println!("filters          {:.1} MiB", stats.filter_bytes as f64 / f64::from(1 << 20));
    println!("recent           {}", stats.recent_ids);
}

fn ask(index: &IdIndex, conn: &Connection, total: u64) {
    let calls = 2_000_000;
    let making = Instant::now();
    for n in 0..calls {
        black_box(id(1 << 40 | n));
    }
    let making = making.elapsed();
    let started = Instant::now();
    let unsure = (0..calls).filter(|n| index.find(id(1 << 40 | n)) != Lookup::Fresh).count();
    println!("find, fresh      {}", per_call(calls, started.elapsed().saturating_sub(making)));
    println!("  not sure       {:.2} %", unsure as f64 * 100.0 / calls as f64);
    let step = 7_919 * 31;
    let started = Instant::now();
    let fresh = (0..calls).filter(|n| index.find(id(n * step % total)) == Lookup::Fresh).count();
    println!("find, known      {}", per_call(calls, started.elapsed().saturating_sub(making)));
    assert_eq!(fresh, 0, "a known id was taken for a fresh one");
    let reads = 100_000;
    let started = Instant::now();
    for n in 0..reads {
        if let Lookup::Unsure { .. } = index.find(id(n * step % total)) {
            assert!(index.find_on_disk(conn, id(n * step % total)).unwrap().is_some());
        }
    }
    println!("find on disk     {}", per_call(reads, started.elapsed()));
}
