#![allow(clippy::unwrap_used)]

use super::*;

fn file() -> (Connection, &'static Path) {
    (Connection::open_in_memory().unwrap(), Path::new("test.db"))
}

#[test]
fn an_older_file_is_brought_forward_step_by_step() {
    let (mut conn, path) = file();
    prepare_with(&mut conn, path, 1, &[]).unwrap();
    let secret_before = secret(&conn).unwrap();
    let steps: &[Migration] = &[
        |conn| conn.execute_batch("ALTER TABLE journal ADD COLUMN colour TEXT"),
        |conn| conn.execute_batch("UPDATE journal SET colour = 'red'; CREATE TABLE tides(height)"),
    ];
    prepare_with(&mut conn, path, 3, steps).unwrap();
    assert_eq!(version_of(&conn, path).unwrap(), Some(3));
    conn.execute_batch("SELECT colour FROM journal; SELECT height FROM tides").unwrap();
    assert_eq!(secret(&conn).unwrap(), secret_before);
}

#[test]
fn a_step_that_fails_leaves_the_file_as_it_was() {
    let (mut conn, path) = file();
    prepare_with(&mut conn, path, 1, &[]).unwrap();
    let steps: &[Migration] = &[
        |conn| conn.execute_batch("CREATE TABLE tides(height)"),
        |conn| conn.execute_batch("INSERT INTO nowhere VALUES (1)"),
    ];
    let error = prepare_with(&mut conn, path, 3, steps).unwrap_err();
    assert!(error.to_string().contains("from schema version 2 to 3"), "{error}");
    assert_eq!(version_of(&conn, path).unwrap(), Some(1));
    assert!(conn.execute_batch("SELECT height FROM tides").is_err());
}

#[test]
fn a_version_without_a_way_forward_is_refused() {
    let (mut conn, path) = file();
    prepare_with(&mut conn, path, 1, &[]).unwrap();
    conn.pragma_update(None, "user_version", 0).unwrap();
    let error = prepare(&mut conn, path).unwrap_err();
    assert!(error.to_string().contains("schema version 0"), "{error}");
}

#[test]
fn history_of_a_file_that_was_cut_begins_behind_the_cut() {
    let day_ms = 86_400_000;
    for (cut, kept) in [(0, [0, 0, 0]), (7, [60_000, 900_000, day_ms].map(|ms| 1_000 * day_ms + ms))] {
        let (mut conn, path) = file();
        prepare_with(&mut conn, path, 3, &MIGRATIONS[..2]).unwrap();
        set_number(&conn, super::super::recover::CUT_THROUGH, cut).unwrap();
        let first = 1_000 * day_ms + 5_000;
        let sql = "INSERT INTO journal(seq, tenant, at_ms, body) VALUES (8, 'acme', ?1, x''), (9, 'acme', ?1 + 1, x'')";
        conn.execute(sql, [first]).unwrap();
        prepare(&mut conn, path).unwrap();
        assert_eq!(buckets::state(&conn).unwrap().kept.0.map(|from| from.ms()), kept, "{cut}");
    }
}
