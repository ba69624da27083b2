//! Retention, verification and backups of the embedded ledger.

use crate::{
    snapshots::row,
    world::{Random, States, World, done, fold_history, keep_finer_for_longer, retain, wait},
};
use domain::{
    history::{Amounts, KeptFrom, Place as DayPlace, Resolution, Rows, fold},
    id::TenantId,
    time::{DAY_MS, Window},
};
use engine::ports::{ApiKey, HistoryQuery, KeyScope, Ledger, LedgerError, Retention, Seq};
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use stores::sqlite::{SqliteLedger, SqliteOptions, VerifyReport, backup, ids, verify};

const RETENTION: Retention =
    Retention { dedupe_ms: 3 * DAY_MS, journal_ms: 5 * DAY_MS, denials_ms: 20 * DAY_MS, history_ms: 10_000 * DAY_MS };

/// The same, with history that is dropped too.
const SHORT: Retention = Retention { history_ms: 40 * DAY_MS, ..RETENTION };

fn options() -> SqliteOptions {
    // Runs of ids small enough that there are some.
    let ids = ids::Options { seal_ids: 50, seal_positions: 200, ..ids::Options::default() };
    SqliteOptions { ids, log_pages: u64::MAX, ..SqliteOptions::default() }
}

fn open(path: &Path) -> Arc<SqliteLedger> {
    SqliteLedger::open(path, options()).unwrap()
}

fn verified(path: &Path) -> VerifyReport {
    verify(path, &mut |_| {}).unwrap()
}

fn assert_clean(path: &Path, what: &str) -> VerifyReport {
    let report = verified(path);
    assert!(report.is_clean(), "{what}: {:#?}", report.differences);
    report
}

/// A ledger with a past: folds, a tail, and entries that were cut.
fn with_a_past(seed: u64) -> (tempfile::TempDir, PathBuf, World) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path);
    let mut world = World::new(seed);
    let snapshots = (0..40).map(|at| row(&format!("tenant-{}", at % 7), "users", at / 7, at.into(), 1)).collect();
    wait(ledger.snapshots().put(snapshots)).unwrap();
    for round in 0..8 {
        world.steps(&*ledger, 50);
        done(world.checkpoint(&*ledger)).unwrap();
        world.steps(&*ledger, 10);
        let some = world.take_folds(false);
        done(ledger.checkpoint(some, None)).unwrap();
        retain(&*ledger, RETENTION, world.now).unwrap();
        if round % 3 == 2 {
            world.now = world.now.plus_ms(70 * DAY_MS);
        }
    }
    world.steps(&*ledger, 40);
    done(world.checkpoint(&*ledger)).unwrap();
    world.steps(&*ledger, 10);
    (directory, path, world)
}

/// All that is left, wherever it is: rows of every user too, also of those whose entries were cut.
fn states_of(ledger: &SqliteLedger, world: &World) -> States {
    let mut states = States::of(ledger);
    let users: BTreeSet<_> =
        world.log.iter().filter_map(|(_, tenant, entry)| Some((tenant.clone(), entry.user.clone()?))).collect();
    let missing = users.into_iter().filter(|key| !states.users.contains_key(key)).collect();
    states.load_users(ledger, missing);
    states.denials.clear();
    states
}

fn states_through(world: &World, seq: Seq) -> States {
    States { denials: Default::default(), ..world.states(seq) }
}

#[test]
fn what_was_cut_is_in_the_openings() {
    let mut ids = 0;
    for seed in 31..36 {
        let (_directory, path, world) = with_a_past(seed);
        let report = assert_clean(&path, &format!("seed {seed}"));
        assert!(report.cut_through > 100, "seed {seed}: {report:?}");
        assert!(report.entries > 10 && report.tenants > 3 && report.users > 3 && report.closed > 10, "{report:?}");
        assert!(report.denials > 0, "seed {seed}: {report:?}");
        ids += report.ids;
        let ledger = open(&path);
        assert!(wait(ledger.entry(&world.whose(1), 1)).unwrap().is_none());
        assert!(states_of(&ledger, &world) == states_through(&world, world.last()), "seed {seed}");
    }
    assert!(ids > 50, "only {ids} ids were looked up");
}

/// Rows of history that ended before this instant, of all accounts.
fn older_than(path: &Path, from_ms: i64) -> i64 {
    let conn = Connection::open(path).unwrap();
    conn.query_row("SELECT count(*) FROM closed WHERE end_ms < ?1", [from_ms], |row| row.get(0)).unwrap()
}

#[test]
fn history_past_its_time_is_dropped_and_the_rest_still_agrees() {
    let (directory, path, world) = with_a_past(37);
    let from_ms = world.now.plus_ms(-SHORT.history_ms).ms();
    assert!(older_than(&path, from_ms) > 20);
    let before: i64 = older_than(&path, i64::MAX);
    let ledger = open(&path);
    retain(&*ledger, SHORT, world.now).unwrap();
    drop(ledger);
    assert_eq!(older_than(&path, from_ms), 0);
    assert!(older_than(&path, i64::MAX) < before);
    let report = assert_clean(&path, "history was dropped");
    assert!(report.closed > 0, "{report:?}");
    let copy = directory.path().join("copy.db");
    backup(&path, &copy, &mut |_| {}).unwrap();
    assert_eq!(assert_clean(&copy, "a backup of it").snapshots, 40);
}

#[test]
fn a_crash_in_the_middle_of_retention_cuts_whole_slices() {
    let (_directory, path, mut world) = with_a_past(36);
    let copies = tempfile::tempdir().unwrap();
    let ledger = open(&path);
    world.now = world.now.plus_ms(100 * DAY_MS);
    world.steps(&*ledger, 5);
    done(world.checkpoint(&*ledger)).unwrap();
    let before = (fs::read(&path).unwrap(), fs::read(path.with_extension("db-wal")).unwrap().len());
    retain(&*ledger, RETENTION, world.now).unwrap();
    let log = fs::read(path.with_extension("db-wal")).unwrap();
    assert!(log.len() > before.1, "the log was not copied back meanwhile");
    let copy = copies.path().join("crashed.db");
    let mut random = Random(36);
    for round in 0..25 {
        let cut = before.1 + random.below((log.len() - before.1) as u64) as usize;
        let _ = fs::remove_file(copy.with_extension("db-shm"));
        fs::write(&copy, &before.0).unwrap();
        fs::write(copy.with_extension("db-wal"), &log[..cut]).unwrap();
        assert_clean(&copy, &format!("seed 36, round {round}: log cut at {cut}"));
        let crashed = open(&copy);
        assert!(states_of(&crashed, &world) == states_through(&world, world.last()), "round {round}");
    }
}

#[test]
fn differences_are_named() {
    let (_directory, path, _) = with_a_past(37);
    let tampering = [
        ("DELETE FROM tenants WHERE tenant = 'tenant-1'", "tenant \"tenant-1\""),
        ("DELETE FROM users WHERE tenant = 'tenant-2'", "has no readable row"),
        ("UPDATE tenants SET plan = 'gold' WHERE tenant = 'tenant-1'", "listed under plan"),
        (
            "UPDATE tenants SET body = (SELECT body FROM tenants WHERE tenant = 'tenant-2') WHERE tenant = 'tenant-1'",
            "can't be read",
        ),
        ("DELETE FROM closed WHERE tenant = 'tenant-3'", "history"),
        ("UPDATE closed SET used = used + 1 WHERE tenant = 'tenant-3'", "history of \"tenant-3\""),
        (
            "UPDATE snapshots SET value = value + 1 WHERE tenant = 'tenant-3'",
            "the snapshot of \"users\" of \"tenant-3\"",
        ),
        ("UPDATE snapshots SET tenant = 'tenant-9' WHERE tenant = 'tenant-3'", "of \"tenant-9\""),
        ("DELETE FROM denials WHERE first_seq > (SELECT value FROM meta WHERE key = 'cut_through')", "has no row"),
        ("DELETE FROM openings WHERE tenant = 'tenant-4'", "not what was sealed"),
        ("DELETE FROM opening_closed WHERE tenant = 'tenant-4'", "not what was sealed"),
        ("UPDATE meta SET value = 1 WHERE key = 'seal_rows'", "not what was sealed"),
        ("DELETE FROM journal WHERE seq = (SELECT max(seq) - 20 FROM journal)", "missing"),
        (
            "UPDATE journal SET tenant = 'tenant-5' WHERE seq = (SELECT max(seq) FROM journal WHERE tenant <> 'tenant-5')",
            "checksum",
        ),
    ];
    let copy = path.with_extension("copy");
    for (sql, named) in tampering {
        fs::copy(&path, &copy).unwrap();
        // Where the last reader was still at it when the ledger was closed, part of it is in the log.
        let log = |file: &Path| PathBuf::from(format!("{}-wal", file.display()));
        match log(&path).exists() {
            true => drop(fs::copy(log(&path), log(&copy)).unwrap()),
            false => drop(fs::remove_file(log(&copy))),
        }
        assert_clean(&copy, "before");
        let conn = Connection::open(&copy).unwrap();
        assert!(conn.execute(sql, []).unwrap() > 0, "{sql} changed nothing");
        drop(conn);
        let report = verified(&copy);
        let found = report.differences.iter().any(|difference| difference.contains(named));
        assert!(!report.is_clean() && found, "{sql}: {:#?}", report.differences);
    }
}

#[test]
fn no_flipped_bit_passes_unseen() {
    let (_directory, path, world) = with_a_past(38);
    // Where the last reader was still at it when the ledger was closed, part of it is in the log.
    let copied = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let busy = Connection::open(&path).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], copied).unwrap();
    assert_eq!(busy, 0, "nobody reads or writes it any more");
    let whole = fs::read(&path).unwrap();
    let copy = path.with_extension("copy");
    let mut random = Random(38);
    let mut seen = 0;
    for round in 0..80 {
        let mut bytes = whole.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        let _ = fs::remove_file(format!("{}-wal", copy.display()));
        fs::write(&copy, bytes).unwrap();
        let what = format!("seed 38, round {round}, byte {at}");
        match verify(&copy, &mut |_| {}) {
            Err(LedgerError::Damaged(_) | LedgerError::Unopenable(_)) => seen += 1,
            Err(other) => panic!("{what}: {other}"),
            Ok(report) if !report.is_clean() => seen += 1,
            // It hit nothing that matters: an index, a free page, or a table that `verify` does not speak of.
            Ok(_) => {
                let ledger = open(&copy);
                assert!(states_of(&ledger, &world) == states_through(&world, world.last()), "{what}");
            }
        }
    }
    assert!(seen > 20, "only {seen} of 80 were noticed");
}

type Days = Vec<(DayPlace, Amounts)>;

/// Days of history, of tenants, users and dimensions.
fn days_of(ledger: &dyn Ledger, world: &World) -> Days {
    let mut days = Days::new();
    let tenants: BTreeSet<TenantId> = world.log.iter().map(|(_, tenant, _)| tenant.clone()).collect();
    let window = Window { start: world.log[0].2.at.plus_ms(-2 * DAY_MS), end: world.now.plus_ms(1) };
    for (tenant, parts) in tenants.iter().flat_map(|tenant| [(tenant, false), (tenant, true)]) {
        let (tenant, resolution) = (tenant.clone(), Resolution::Day);
        let query = HistoryQuery { tenant, resolution, window, parts, user: None, after: None, limit: usize::MAX };
        days.extend(wait(ledger.history().unwrap().page(&query)).unwrap().rows);
    }
    days.sort_by(|(one, _), (other, _)| one.cmp(other));
    days
}

fn days_through(world: &World, last: Seq) -> Days {
    let mut rows = Rows::new();
    let entries = world.log.iter().filter(|(seq, ..)| *seq <= last);
    entries.for_each(|(_, tenant, entry)| fold(&mut rows, tenant, entry, &KeptFrom::default()));
    let days = rows.into_iter().filter(|((resolution, _), _)| *resolution == Resolution::Day);
    days.map(|((_, place), amounts)| (place, amounts)).collect()
}

#[test]
fn a_ledger_in_use_is_not_verified() {
    let (_directory, path, _) = with_a_past(39);
    let _ledger = open(&path);
    let error = verify(&path, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("in use") && error.to_string().contains("backup"), "{error}");
}

#[test]
fn a_backup_under_load_opens_at_once_and_verifies() {
    let (directory, path, mut world) = with_a_past(40);
    let ledger = open(&path);
    let key = ApiKey {
        id: "key_1".into(),
        hash: [9; 32],
        name: "one".into(),
        scope: KeyScope::Admin,
        created_at: world.now,
        created_by: "bootstrap".into(),
        revoked_at: None,
    };
    wait(ledger.put_key(&key)).unwrap();
    wait(ledger.put_catalog("# one", world.now)).unwrap();
    wait(ledger.put_catalog("# two", world.now)).unwrap();
    let before = world.last();
    let (stop, copied) = (AtomicBool::new(false), AtomicUsize::new(0));
    let copies: Vec<PathBuf> = (0..6).map(|number| directory.path().join(format!("copy-{number}.db"))).collect();
    let world = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut round, mut cuts) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                world.steps(&*ledger, 20);
                done(world.checkpoint(&*ledger)).unwrap();
                round += 1;
                if round % 3 == 0 {
                    fold_history(&*ledger);
                }
                // Time goes by while each is made, but not faster than a busy machine can copy.
                if round % 8 == 0 && cuts <= 2 * copied.load(Ordering::Relaxed) {
                    cuts += 1;
                    world.now = world.now.plus_ms(40 * DAY_MS);
                    retain(&*ledger, RETENTION, world.now).unwrap();
                }
            }
            world
        });
        let mut reports = Vec::new();
        for copy in &copies {
            let mut steps = 0;
            reports.push(backup(&path, copy, &mut |_| steps += 1).map(|report| (report, steps)));
            copied.fetch_add(1, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        let world = writer.join().unwrap();
        for report in reports {
            let (report, steps) = report.unwrap();
            assert!(report.last >= before && report.tenants > 3 && report.bytes > 10_000 && steps > 0, "{report:?}");
        }
        world
    });
    for copy in &copies {
        assert_clean(copy, &copy.display().to_string());
        let restored = open(copy);
        let last = restored.stats().committed_seq;
        assert!(states_of(&restored, &world) == states_through(&world, last), "{}", copy.display());
        fold_history(&*restored);
        assert!(days_of(&*restored, &world) == days_through(&world, last), "{}", copy.display());
        assert_eq!(restored.secret(), ledger.secret());
        assert_eq!(wait(restored.keys()).unwrap(), std::slice::from_ref(&key));
        assert_eq!(&*wait(restored.newest_catalog()).unwrap().unwrap().text, "# two");
        for (id, seq) in world.bindings.iter().filter(|(_, seq)| *seq > before && *seq <= last) {
            let known = match restored.find(&world.whose(*seq), *id) {
                engine::ports::Lookup::Bound(seq) => Some(seq),
                engine::ports::Lookup::Fresh => None,
                engine::ports::Lookup::Unsure { .. } => wait(restored.find_on_disk(&world.whose(*seq), *id)).unwrap(),
            };
            let was_cut = wait(restored.entry(&world.whose(*seq), *seq)).unwrap().is_none();
            assert!(known == Some(*seq) || was_cut, "the id of entry {seq}");
        }
    }
}

#[test]
fn history_that_was_kept_finer_for_longer_is_whole() {
    let (_directory, path, world) = with_a_past(29);
    keep_finer_for_longer(&*open(&path), world.now);
    assert_clean(&path, "days are dropped, and minutes of them are there");
}

#[test]
fn a_backup_never_overwrites() {
    let (directory, path, _) = with_a_past(41);
    let to = directory.path().join("copy.db");
    fs::write(&to, "precious").unwrap();
    let error = backup(&path, &to, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(fs::read(&to).unwrap(), b"precious");
    let missing = backup(&directory.path().join("nothing.db"), &directory.path().join("x.db"), &mut |_| {});
    assert!(matches!(missing, Err(LedgerError::Unopenable(_))));
    let nowhere = backup(&path, &directory.path().join("nowhere/x.db"), &mut |_| {});
    assert!(matches!(nowhere, Err(LedgerError::Unopenable(_))));
}

#[test]
fn a_backup_is_its_owners_alone_and_whole_in_one_file() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, path, _) = with_a_past(42);
    let copies = tempfile::tempdir().unwrap();
    let to = copies.path().join("copy.db");
    backup(&path, &to, &mut |_| {}).unwrap();
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let files: Vec<_> = fs::read_dir(copies.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["copy.db"]);
}
