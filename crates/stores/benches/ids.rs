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
    sync::OnceLock,
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

fn per_call(calls: u64, took_ns: u64) -> String {
    format!("{:.0} ns of a processor", took_ns as f64 / calls as f64)
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
    let (mut inserting, mut upkeep, mut longest) = (0, 0, Duration::ZERO);
    let (mut slices, mut most_runs, mut slow) = (0_u64, 0, 0_u64);
    for batch in 0..total / 1_000 {
        let before = busy_ns();
        for n in batch * 1_000..(batch + 1) * 1_000 {
            index.insert(id(n), n + 1);
        }
        inserting += busy_ns() - before;
        let last = batch + 1 == total / 1_000;
        // One slice between two commits; at the end all that is left.
        loop {
            let now_ms = 20_000 * DAY_MS + (batch * 1_000 * WINDOW_MS as u64 / total) as i64;
            let (started, before) = (Instant::now(), busy_ns());
            let more = index.maintain(conn, (batch + 1) * 1_000, now_ms, WINDOW_MS, Duration::from_millis(10)).unwrap();
            let took = started.elapsed();
            upkeep += busy_ns() - before;
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

/// Time this thread has had a processor, in nanoseconds, so that other programs do not count; elsewhere than on Linux,
/// the clock.
fn busy_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let busy = figures.as_deref().and_then(|figures| figures.split(' ').next()).and_then(|figure| figure.parse().ok());
    busy.unwrap_or_else(|| start.elapsed().as_nanos() as u64)
}

/// Nanoseconds of a call: the median of parts of the calls.
fn median_ns(calls: u64, mut call: impl FnMut(u64)) -> f64 {
    const PARTS: u64 = 50;
    let mut parts: Vec<f64> = (0..PARTS)
        .map(|part| {
            let before = busy_ns();
            for n in part * calls / PARTS..(part + 1) * calls / PARTS {
                call(n);
            }
            (busy_ns() - before) as f64 / (calls / PARTS) as f64
        })
        .collect();
    parts.sort_by(f64::total_cmp);
    parts[parts.len() / 2]
}

fn ask(index: &IdIndex, conn: &Connection, total: u64) {
    let calls = 4_000_000;
    let fresh: Vec<u128> = (0..calls).map(|n| id(1 << 40 | n)).collect();
    let mut unsure = 0_u64;
    let ns = median_ns(calls, |n| unsure += u64::from(index.find(fresh[n as usize]) != Lookup::Fresh));
    println!("find, fresh      {ns:.0} ns, {:.2} % not sure", unsure as f64 * 100.0 / calls as f64);
    let known = |n: u64| n * 245_489 % total;
    let ids: Vec<u128> = (0..calls).map(|n| id(known(n))).collect();
    let ns = median_ns(calls, |n| assert_ne!(index.find(ids[n as usize]), Lookup::Fresh));
    println!("find, known      {ns:.0} ns");
    let ns = median_ns(100_000, |n| {
        if let Lookup::Unsure { .. } = index.find(ids[n as usize]) {
            assert_eq!(index.find_on_disk(conn, black_box(ids[n as usize])).unwrap(), Some(known(n) + 1));
        }
    });
    println!("find on disk     {ns:.0} ns");
}
