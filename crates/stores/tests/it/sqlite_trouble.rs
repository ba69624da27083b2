//! Everything that can be wrong with a file, and the clear error for it.

use crate::world::{States, World, done, wait};
use domain::id::TenantId;
use engine::ports::{Ledger, LedgerError};
use rusqlite::Connection;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use stores::sqlite::{SqliteLedger, SqliteOptions};

fn open(path: &Path) -> Result<Arc<SqliteLedger>, LedgerError> {
    SqliteLedger::open(path, SqliteOptions::default())
}

/// The sentence with which it can't be opened.
fn refusal(path: &Path) -> String {
    match open(path) {
        Err(LedgerError::Unopenable(why)) => why.to_string(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was opened"),
    }
}

fn damage(result: Result<impl Sized, LedgerError>) -> String {
    match result {
        Err(LedgerError::Damaged(why)) => why.to_string(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn paths_that_are_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let why = refusal(&directory.path().join("nowhere/ledger.db"));
    assert!(why.contains("nowhere") && why.contains("does not exist"), "{why}");
    let why = refusal(directory.path());
    assert!(why.contains("is a directory"), "{why}");
    fs::write(directory.path().join("file"), "x").unwrap();
    let why = refusal(&directory.path().join("file/ledger.db"));
    assert!(why.contains("is not a directory") || why.contains("Not a directory"), "{why}");
}

#[test]
fn files_that_are_read_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    drop(open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let why = refusal(&path);
    assert!(why.contains("ledger.db is read-only"), "{why}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let why = refusal(&path);
    assert!(why.contains("directory") && why.contains("read-only"), "{why}");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    open(&path).unwrap();
}

#[test]
fn files_that_are_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("notes.txt");
    fs::write(
        &text,
        "these are not the bytes you are looking for, and there are more than a hundred of them. ".repeat(9),
    )
    .unwrap();
    let why = refusal(&text);
    assert!(why.contains("not even an SQLite database"), "{why}");
    let other = directory.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE songs(title)").unwrap();
    let why = refusal(&other);
    assert!(why.contains("another program"), "{why}");
    Connection::open(&other).unwrap().execute_batch("SELECT title FROM songs").unwrap();
}

#[test]
fn an_empty_file_becomes_a_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    fs::write(&path, "").unwrap();
    open(&path).unwrap();
}

#[test]
fn the_file_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path).unwrap();
    World::new(1).steps(&*ledger, 1);
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    drop(open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let why = refusal(&path);
    assert!(why.contains("version 7") && why.contains("newer release"), "{why}");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 0).unwrap();
    let why = refusal(&path);
    assert!(why.contains("version 0"), "{why}");
}

#[test]
fn a_file_has_one_holder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let first = open(&path).unwrap();
    let why = refusal(&path);
    assert!(why.contains("in use by another process") && why.contains(&std::process::id().to_string()), "{why}");
    World::new(2).steps(&*first, 3);
    drop(first);
    let second = open(&path).unwrap();
    assert_eq!(second.stats().committed_seq, wait(second.journal(0, 100)).unwrap().len() as u64);
}

/// Makes a ledger with folds and a tail, and changes it behind its back.
fn tampered(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path).unwrap();
    let mut world = World::new(3);
    world.steps(&*ledger, 40);
    done(world.checkpoint(&*ledger)).unwrap();
    world.steps(&*ledger, 40);
    drop(ledger);
    let changed = Connection::open(&path).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "{sql}");
    (directory, path)
}

#[test]
fn a_changed_entry_of_the_tail_is_found_at_the_start() {
    let changes = [
        "UPDATE journal SET body = CAST(substr(body, 1, 5) || x'ff' || substr(body, 7) AS BLOB)
         WHERE seq = (SELECT max(seq) FROM journal)",
        "UPDATE journal SET tenant = 'tenant-x' WHERE seq = (SELECT max(seq) FROM journal)",
        "UPDATE journal SET at_ms = at_ms + 1 WHERE seq = (SELECT max(seq) FROM journal)",
        "UPDATE journal SET body = 'text' WHERE seq = (SELECT max(seq) FROM journal)",
        "UPDATE journal SET body = x'' WHERE seq = (SELECT max(seq) FROM journal)",
    ];
    for sql in changes {
        let (_directory, path) = tampered(sql);
        let why = damage(open(&path));
        assert!(why.contains("entry ") && why.contains("can't be read"), "{sql}: {why}");
    }
}

#[test]
fn a_missing_entry_of_the_tail_is_found_at_the_start() {
    let (_directory, path) = tampered("DELETE FROM journal WHERE seq = (SELECT max(seq) - 3 FROM journal)");
    let why = damage(open(&path));
    assert!(why.contains("missing from the journal"), "{why}");
    let (_directory, path) =
        tampered("DELETE FROM journal WHERE seq >= (SELECT value FROM meta WHERE key = 'complete_through')");
    let why = damage(open(&path));
    assert!(why.contains("missing from the journal"), "{why}");
}

#[test]
fn a_missing_end_is_found_at_the_start_even_when_all_of_it_is_in_folds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ids = stores::sqlite::ids::Options { seal_ids: 1, seal_positions: 1, ..Default::default() };
    let ledger = SqliteLedger::open(&path, SqliteOptions { ids, ..SqliteOptions::default() }).unwrap();
    let mut world = World::new(3);
    world.steps(&*ledger, 40);
    done(world.checkpoint(&*ledger)).unwrap();
    while ledger.stats().recent_ids > 0 {
        std::thread::yield_now();
    }
    drop(ledger);
    Connection::open(&path).unwrap().execute("DELETE FROM journal WHERE seq > 30", []).unwrap();
    let why = damage(open(&path));
    assert!(why.contains("missing from the journal"), "{why}");
}

#[test]
fn a_changed_fold_is_found_when_it_is_read() {
    let (_directory, path) = tampered("UPDATE tenants SET seq = seq + 1 WHERE tenant = 'tenant-1'");
    let ledger = open(&path).unwrap();
    let why = damage(wait(ledger.load_tenant(&TenantId::new("tenant-1").unwrap())));
    assert!(why.contains("tenant-1") && why.contains("checksum"), "{why}");
    assert!(wait(ledger.load_tenant(&TenantId::new("tenant-2").unwrap())).unwrap().is_some());

    let (_directory, path) = tampered("UPDATE closed SET used = used + 1 WHERE tenant = 'tenant-1'");
    let ledger = open(&path).unwrap();
    let why = damage(wait(ledger.closed(&TenantId::new("tenant-1").unwrap(), None)));
    assert!(why.contains("tenant-1"), "{why}");
}

#[test]
fn a_corrupt_page_is_named_as_such() {
    let (_directory, path) = tampered("UPDATE meta SET value = value WHERE key = 'secret'");
    // The root page of the journal.
    let (page, size): (u64, u64) = {
        let conn = Connection::open(&path).unwrap();
        let page = conn
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'journal'", [], |row| row.get::<_, i64>(0))
            .unwrap();
        (page as u64, conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0)).unwrap() as u64)
    };
    let mut bytes = fs::read(&path).unwrap();
    let start = ((page - 1) * size) as usize;
    bytes[start..start + 64].fill(0xee);
    fs::write(&path, bytes).unwrap();
    let why = damage(open(&path));
    assert!(why.contains("corrupt"), "{why}");
}

#[test]
fn a_full_disk_fails_what_was_not_acknowledged_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let full = SqliteOptions { max_pages: Some(120), ..SqliteOptions::default() };
    let ledger = SqliteLedger::open(&path, full).unwrap();
    let mut world = World::new(4);
    let mut acknowledged = 0;
    let error = loop {
        let Ok(appended) = world.step(&*ledger) else { panic!("the append came after the failure was told") };
        let last = appended.last;
        match done(appended.commit) {
            Ok(()) => acknowledged = last,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, LedgerError::Unwritable(why) if why.contains("disk is full")), "{error}");
    assert!(acknowledged > 100, "{acknowledged}");
    // Everything is refused in the same words until it is reopened; reading goes on.
    assert_eq!(ledger.ready(), Err(error.clone()));
    assert_eq!(world.step(&*ledger).unwrap_err(), error);
    assert_eq!(done(ledger.committed(&world.whose(acknowledged), acknowledged)), Err(error.clone()));
    assert_eq!(done(ledger.checkpoint(vec![], None)), Err(error.clone()));
    assert_eq!(wait(ledger.put_catalog("x", world.now)), Err(error.clone()));
    assert!(wait(ledger.entry(&world.whose(acknowledged), acknowledged)).unwrap().is_some());
    assert!(ledger.stats().commit_failures >= 1);
    ledger.reopen().unwrap();
    assert_eq!(States::of(&*ledger), world.states(acknowledged));
    drop(ledger);

    // With room again, it goes on where it was.
    let ledger = open(&path).unwrap();
    assert_eq!(States::of(&*ledger), world.states(acknowledged));
    let mut later = World::new(5);
    assert_eq!(later.step(&*ledger).unwrap().first, acknowledged + 1);
}

#[test]
fn an_append_without_a_waiter_fails_the_next_who_waits() {
    let directory = tempfile::tempdir().unwrap();
    let full = SqliteOptions { max_pages: Some(70), ..SqliteOptions::default() };
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), full).unwrap();
    let mut world = World::new(6);
    let failed = (0..100_000).find_map(|_| world.step(&*ledger).err());
    assert!(matches!(failed, Some(LedgerError::Unwritable(_))), "{failed:?}");
}

#[test]
fn a_folder_that_vanishes_is_an_error_on_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inner/ledger.db");
    fs::create_dir(directory.path().join("inner")).unwrap();
    let ledger = open(&path).unwrap();
    World::new(7).steps(&*ledger, 3);
    fs::remove_dir_all(directory.path().join("inner")).unwrap();
    assert!(ledger.reopen().is_err());
    assert!(ledger.ready().is_err());
    assert!(World::new(8).step(&*ledger).is_err());
}

#[test]
fn a_file_that_vanishes_is_not_replaced_by_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path).unwrap();
    World::new(7).steps(&*ledger, 3);
    fs::remove_file(&path).unwrap();
    assert!(matches!(ledger.reopen(), Err(LedgerError::Unopenable(_))));
    assert!(!path.exists());
}

#[test]
fn the_log_is_copied_back_while_commits_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let options = SqliteOptions { log_pages: 100, ..SqliteOptions::default() };
    let ledger = SqliteLedger::open(&path, options).unwrap();
    let mut world = World::new(9);
    let (mut longest, mut written) = (0, 0);
    for _ in 0..600 {
        let before = ledger.stats().commits;
        world.steps(&*ledger, 1);
        written += (ledger.stats().commits - before) * 2 * 4096;
        longest = longest.max(fs::metadata(path.with_extension("db-wal")).unwrap().len());
    }
    assert!(longest < written / 2, "{longest} bytes of log while at least {written} were written");
    drop(ledger);
    assert_eq!(States::of(&*open(&path).unwrap()), world.states(world.last()));
}
