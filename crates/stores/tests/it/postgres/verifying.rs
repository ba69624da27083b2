//! Verification: what is whole is found whole, while nodes write too, and damage is named.

use super::{Database, run};
use crate::world::{World, done, keep_finer_for_longer, retain, wait};
use domain::time::DAY_MS;
use engine::ports::{Ledger, Retention};
use std::sync::atomic::{AtomicBool, Ordering};
use stores::{VerifyReport, postgres::verify};

const RETENTION: Retention =
    Retention { dedupe_ms: 3 * DAY_MS, journal_ms: 5 * DAY_MS, denials_ms: 20 * DAY_MS, history_ms: 10_000 * DAY_MS };

fn verified(database: &Database) -> VerifyReport {
    run(verify(&database.url(""), &mut |_| {})).unwrap()
}

fn assert_clean(database: &Database, what: &str) -> VerifyReport {
    let report = verified(database);
    assert!(report.is_clean(), "{what}: {:#?}", report.differences);
    report
}

/// A ledger with a past: folds, tails, and entries that were cut.
fn with_a_past(seed: u64) -> (Database, World) {
    let database = Database::new();
    let ledger = database.open();
    let mut world = World::new(seed);
    for round in 0..6 {
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
    world.steps(&*ledger, 60);
    done(world.checkpoint(&*ledger)).unwrap();
    world.steps(&*ledger, 10);
    (database, world)
}

#[test]
fn what_is_whole_is_found_whole() {
    for seed in 41..44 {
        let (database, mut world) = with_a_past(seed);
        let report = assert_clean(&database, &format!("seed {seed}"));
        let cut: u64 = database.sql("SELECT sum(seq) FROM @.openings WHERE user_id = ''")[0].parse().unwrap();
        assert!(cut > 100, "seed {seed}: nothing was cut");
        assert_eq!(report.entries, world.log.len() as u64 - cut, "seed {seed}");
        assert!(report.tenants > 3 && report.users > 3 && report.closed > 10 && report.ids > 10, "{report:?}");
        assert!(report.denials > 0, "seed {seed}: {report:?}");
        let short = Retention { history_ms: 40 * DAY_MS, ..RETENTION };
        world.now = world.now.plus_ms(2 * DAY_MS);
        wait(database.open().retain(short, world.now)).unwrap();
        assert!(assert_clean(&database, "history was dropped").closed < report.closed);
    }
}

#[test]
fn history_that_was_kept_finer_for_longer_is_whole() {
    let (database, world) = with_a_past(46);
    keep_finer_for_longer(&*database.open(), world.now);
    assert_clean(&database, "days are dropped, and minutes of them are there");
}

/// The step of the tables to version 4, on tables with a past: what it says of a journal that was cut.
#[test]
fn history_begins_behind_what_was_cut_before_there_was_any() {
    let (database, _) = with_a_past(47);
    let step = include_str!("../../../src/postgres/tables_4.sql");
    let begin = step.find("INSERT INTO tidegate.history_state").unwrap();
    let insert = step[begin..].replace("tidegate.", "@.");
    database.sql(&format!("DELETE FROM @.history_state; {insert}"));
    let first = "SELECT max(first) FROM (SELECT min(at_ms) AS first FROM @.entries e
                 WHERE EXISTS (SELECT 1 FROM @.openings o WHERE o.tenant = e.tenant) GROUP BY tenant) AS firsts";
    let first: i64 = database.sql(first)[0].parse().unwrap();
    let kept = [60_000, 900_000, DAY_MS].map(|ms| (first / ms + 1) * ms);
    let found = &database.sql("SELECT array_to_string(kept_from_ms, ' ') FROM @.history_state")[0];
    assert_eq!(*found, kept.map(|from| from.to_string()).join(" "));
    database.sql(&format!("DELETE FROM @.openings; DELETE FROM @.history_state; {insert}"));
    assert_eq!(database.sql("SELECT array_to_string(kept_from_ms, ' ') FROM @.history_state")[0], "0 0 0");
}

#[test]
fn nodes_may_go_on_writing_folding_and_cutting() {
    let (database, mut world) = with_a_past(45);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let ledger = database.open();
            while !is_over.load(Ordering::Relaxed) {
                world.steps(&*ledger, 20);
                let some = world.take_folds(false);
                done(ledger.checkpoint(some, None)).unwrap();
                retain(&*ledger, RETENTION, world.now).unwrap();
            }
        });
        let reports: Vec<VerifyReport> = (0..12).map(|_| verified(&database)).collect();
        is_over.store(true, Ordering::Relaxed);
        let differences: Vec<&String> = reports.iter().flat_map(|report| &report.differences).collect();
        assert!(differences.is_empty(), "{differences:#?}");
        let mut counts: Vec<u64> = reports.iter().map(|report| report.entries).collect();
        counts.dedup();
        assert!(counts.len() > 3, "nothing was written meanwhile: {counts:?}");
    });
}

/// One tenant's journal is longer than what is read in one snapshot.
#[test]
fn a_long_journal_is_read_ahead() {
    use super::nodes::{append, commit, created, id, used};
    let database = Database::new();
    let ledger = database.open();
    let (acme, basis) = (id("acme"), Default::default());
    let mut last = commit(&*ledger, append(&acme, 0, &basis, vec![created("free")])).unwrap();
    for batch in 0..45_u128 {
        let entries = (1..=1_000).map(|number| used(batch * 1_000 + number)).collect();
        last = commit(&*ledger, append(&acme, last, &basis, entries)).unwrap();
    }
    let report = assert_clean(&database, "no fold yet");
    assert_eq!((report.entries, report.ids, report.tenants), (45_001, 45_000, 0));
    let mut folded = super::super::world::States::default();
    for (seq, tenant, entry) in crate::world::all_lines(&*ledger) {
        assert_eq!(tenant, acme);
        folded.fold(folded.tenants.get(&acme).map_or(0, |tenant| tenant.seq) + 1, &acme, &entry);
        assert!(seq > 0);
    }
    let tenant = folded.tenants[&acme].clone();
    let fold = engine::ports::Fold { tenant, users: vec![], from: 0, basis };
    done(ledger.checkpoint(vec![fold], None)).unwrap();
    let report = assert_clean(&database, "folded");
    assert_eq!((report.entries, report.ids, report.tenants), (45_001, 45_000, 1));
    database.sql("DELETE FROM @.entries WHERE seq = 31000");
    let report = verified(&database);
    assert!(report.differences.iter().any(|difference| difference.contains("31000 are missing")), "{report:?}");
}

#[test]
fn differences_are_named() {
    let (database, _world) = with_a_past(47);
    let flipped = |column: &str| format!("{column} = set_byte({column}, 9, get_byte({column}, 9) # 4)");
    let newest = "(SELECT max(seq) - 2 FROM @.entries WHERE tenant = 'tenant-1')";
    let late = "SELECT last_at_ms FROM @.denials ORDER BY last_at_ms DESC LIMIT 1";
    let tampering = [
        (format!("UPDATE @.folds SET {} WHERE tenant = 'tenant-1'", flipped("state")), "its row can't be read"),
        ("DELETE FROM @.folds WHERE tenant = 'tenant-2'".into(), "it has no row"),
        (
            "UPDATE @.folds SET seq = seq - 1, state = state WHERE tenant = 'tenant-3'".into(),
            "\"tenant-3\": its row can't be read",
        ),
        (format!("UPDATE @.entries SET {} WHERE tenant = 'tenant-1' AND seq = {newest}", flipped("body")), "can't be read"),
        (format!("DELETE FROM @.entries WHERE tenant = 'tenant-1' AND seq = {newest}"), "are missing"),
        (
            "DELETE FROM @.entries e WHERE tenant = 'tenant-1' AND seq = (SELECT version FROM @.tenants t WHERE t.tenant = e.tenant)".into(),
            "",
        ),
        (
            "DELETE FROM @.ids WHERE ctid = (SELECT ctid FROM @.ids ORDER BY arrived_hour DESC LIMIT 1)".into(),
            "is not in the index",
        ),
        (
            "UPDATE @.ids SET seq = seq - 1 WHERE ctid = (SELECT ctid FROM @.ids ORDER BY arrived_hour DESC LIMIT 1)".into(),
            "leads to entry",
        ),
        (
            "UPDATE @.ids i SET seq = seq + 1 WHERE ctid = (
                 SELECT i.ctid FROM @.ids i JOIN @.tenants t ON t.tenant = i.tenant
                 WHERE i.seq < t.version ORDER BY arrived_hour DESC LIMIT 1)"
                .into(),
            "which does not bind it",
        ),
        (format!("UPDATE @.user_folds SET {} WHERE tenant = 'tenant-2'", flipped("state")), "of \"tenant-2\" can't be read"),
        ("DELETE FROM @.user_folds WHERE tenant = 'tenant-2'".into(), "has no row"),
        ("UPDATE @.closed SET used = used + 1 WHERE tenant = 'tenant-3'".into(), "its history of"),
        ("DELETE FROM @.closed WHERE tenant = 'tenant-3'".into(), "its history of"),
        (format!("UPDATE @.denials SET count = count + 1 WHERE last_at_ms = ({late})"), "differs from its entries"),
        (format!("DELETE FROM @.denials WHERE last_at_ms = ({late})"), "has no row"),
        ("DELETE FROM @.tenants WHERE tenant = 'tenant-4'".into(), "is not listed"),
        ("UPDATE @.tenants SET version = version + 1 WHERE tenant = 'tenant-4'".into(), "it is listed at"),
        ("UPDATE @.tenants SET plan = 'gold' WHERE tenant = 'tenant-4'".into(), "is listed under plan"),
        ("DELETE FROM @.openings WHERE tenant = 'tenant-0' AND user_id = ''".into(), "\"tenant-0\""),
        (format!("UPDATE @.openings SET {} WHERE tenant = 'tenant-0'", flipped("state")), "its opening"),
        ("DELETE FROM @.opening_closed WHERE tenant = 'tenant-0'".into(), "its history of"),
        ("INSERT INTO @.closed SELECT 'nobody', '', 0, 0, 'messages', 9000000000000, 1, 0".into(), "\"nobody\""),
        ("INSERT INTO @.snapshots SELECT 1, 'tenant-1', 'users', 1, NULL, 0, 9".into(), "its source is unknown"),
        ("UPDATE @.history SET used = used + 1 WHERE grain = 4 AND tenant = 'tenant-3'".into(), "history of \"tenant-3\""),
        ("DELETE FROM @.history WHERE grain = 1 AND tenant = 'tenant-3'".into(), "history of \"tenant-3\""),
        ("UPDATE @.meta SET catalog_version = 7".into(), "catalog 7"),
    ];
    let tables = "entries ids folds user_folds closed denials tenants openings opening_closed snapshots history meta";
    let mut restored = String::new();
    for table in tables.split(' ') {
        database.sql(&format!("CREATE TABLE @.{table}_kept AS SELECT * FROM @.{table}"));
        let all = if table == "entries" { "OVERRIDING SYSTEM VALUE" } else { "" };
        let back = format!("DELETE FROM @.{table}; INSERT INTO @.{table} {all} SELECT * FROM @.{table}_kept;");
        restored.push_str(&back);
    }
    let mut missed = Vec::new();
    for (sql, named) in tampering {
        let changed = database.sql(&format!("WITH done AS ({sql} RETURNING 1) SELECT count(*) FROM done"));
        assert_ne!(changed, ["0"], "{sql} changed nothing");
        let report = verified(&database);
        let found = report.differences.iter().any(|difference| difference.contains(named));
        if report.is_clean() || !found {
            missed.push((sql, named, report.differences));
        }
        database.sql(&restored);
    }
    assert!(missed.is_empty(), "{missed:#?}");
    assert_clean(&database, "as it was");
}
