//! The tables, their version, and how a file of an older version becomes one of this.

use super::{
    buckets,
    errors::{OrDamaged, damaged, unopenable},
    fleet, forecasts,
    ids::IdIndex,
    snapshots,
};
use engine::ports::LedgerError;
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::path::Path;

/// `TGLD`, so that `file` and we can tell a ledger from any other SQLite file.
pub(crate) const APPLICATION_ID: i32 = 0x5447_4c44;

/// The version of the tables this program reads and writes; kept in `PRAGMA user_version`.
pub(crate) const VERSION: i32 = MIGRATIONS.len() as i32 + 1;

/// One step forward: from the version at its place in the list to the next.
type Migration = fn(&Connection) -> rusqlite::Result<()>;

/// Steps from version 1 on: `MIGRATIONS[0]` leads from 1 to 2.
const MIGRATIONS: &[Migration] = &[
    |conn| conn.execute_batch(snapshots::TABLES),
    |conn| conn.execute_batch(forecasts::TABLES),
    buckets::create,
    |conn| conn.execute_batch(fleet::INDEX),
];

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE journal(seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE tenants(
    tenant TEXT PRIMARY KEY, seq INTEGER NOT NULL, plan TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX tenants_by_plan ON tenants(plan);
CREATE TABLE users(
    tenant TEXT NOT NULL, user TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY(tenant, user)) WITHOUT ROWID;
CREATE TABLE closed(
    tenant TEXT NOT NULL, user TEXT NOT NULL, start_ms INTEGER NOT NULL, kind INTEGER NOT NULL, meter TEXT NOT NULL,
    end_ms INTEGER NOT NULL, used INTEGER NOT NULL, denied INTEGER NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY(tenant, user, start_ms, kind, meter)) WITHOUT ROWID;
CREATE TABLE denials(
    id BLOB PRIMARY KEY, tenant TEXT NOT NULL, user TEXT, code TEXT NOT NULL, shadow INTEGER NOT NULL, meter TEXT,
    first_at_ms INTEGER NOT NULL, last_at_ms INTEGER NOT NULL, first_seq INTEGER NOT NULL, seq INTEGER NOT NULL,
    body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX denials_by_time ON denials(shadow, first_at_ms, id);
CREATE INDEX denials_by_tenant ON denials(tenant, shadow, first_at_ms, id);
CREATE INDEX denials_by_age ON denials(last_at_ms);
CREATE TABLE keys(
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL, tenant TEXT,
    created_at_ms INTEGER NOT NULL, created_by TEXT NOT NULL, revoked_at_ms INTEGER) WITHOUT ROWID;
CREATE TABLE catalogs(version INTEGER PRIMARY KEY, text TEXT NOT NULL, applied_at_ms INTEGER NOT NULL);
CREATE TABLE openings(
    tenant TEXT NOT NULL, user TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY(tenant, user)) WITHOUT ROWID;
CREATE TABLE opening_closed(
    tenant TEXT NOT NULL, user TEXT NOT NULL, start_ms INTEGER NOT NULL, kind INTEGER NOT NULL, meter TEXT NOT NULL,
    end_ms INTEGER NOT NULL, used INTEGER NOT NULL, denied INTEGER NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY(tenant, user, start_ms, kind, meter)) WITHOUT ROWID;
";

/// Settings of a connection that writes. The log is kept short by [`log`](super::log); should that ever lag behind,
/// SQLite bounds it by itself.
pub(crate) fn prepare_writer(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 16000; PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
    )?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Settings of a connection that reads.
pub(crate) fn prepare_reader(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.execute_batch(
        "PRAGMA query_only = ON; PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
    )?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Makes the tables in an empty file, brings older ones forward, and refuses what it does not know.
pub(crate) fn prepare(conn: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    prepare_with(conn, path, VERSION, MIGRATIONS)
}

fn prepare_with(conn: &mut Connection, path: &Path, version: i32, migrations: &[Migration]) -> Result<(), LedgerError> {
    let found = version_of(conn, path)?;
    if found == Some(version) {
        return Ok(());
    }
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).or_unwritable()?;
    let mut at = match found {
        None => {
            create(&transaction)?;
            1
        }
        Some(found) if found > version => return Err(newer(path, found, version)),
        Some(found) => found,
    };
    while at < version {
        let step = usize::try_from(at - 1).ok().and_then(|index| migrations.get(index));
        let step = step.ok_or_else(|| {
            unopenable(format_args!(
                "{} has schema version {at}, from which this program knows no way to version {version}; \
                 open it first with the release of Tidegate that came after it",
                path.display()
            ))
        })?;
        step(&transaction).map_err(|error| {
            unopenable(format_args!(
                "{} could not be brought from schema version {at} to {}: {error}",
                path.display(),
                at + 1
            ))
        })?;
        at += 1;
    }
    transaction.pragma_update(None, "user_version", version).or_unwritable()?;
    transaction.commit().or_unwritable()
}

fn create(conn: &Connection) -> Result<(), LedgerError> {
    conn.execute_batch(TABLES).or_unwritable()?;
    IdIndex::create_tables(conn)?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| unopenable(format_args!("the system gives no random numbers: {error}")))?;
    conn.execute("INSERT INTO meta(key, value) VALUES ('secret', ?1)", [&secret[..]]).or_unwritable()?;
    conn.pragma_update(None, "application_id", APPLICATION_ID).or_unwritable()
}

fn newer(path: &Path, found: i32, version: i32) -> LedgerError {
    unopenable(format_args!(
        "{} has schema version {found}, made by a newer release of Tidegate; this one knows versions up to {version}. \
         Run that release, or restore a backup from before the upgrade",
        path.display()
    ))
}

/// The version of the tables; `None` for an empty file.
pub(crate) fn version_of(conn: &Connection, path: &Path) -> Result<Option<i32>, LedgerError> {
    let readable = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => unopenable(format_args!(
            "{} is not a ledger: it is not even an SQLite database. Is the path right?",
            path.display()
        )),
        Some(ErrorCode::CannotOpen) => unopenable(format_args!("{}: {error}", path.display())),
        _ => damaged(&error),
    };
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(readable)?;
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(readable)?;
    if application == APPLICATION_ID {
        return conn.pragma_query_value(None, "user_version", |row| row.get(0)).map(Some).map_err(readable);
    }
    if tables == 0 && application == 0 {
        return Ok(None);
    }
    Err(unopenable(format_args!(
        "{} is an SQLite database of another program, not a ledger. Is the path right?",
        path.display()
    )))
}

/// Checks a file that is only read: it must be of exactly this version.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<(), LedgerError> {
    match version_of(conn, path)? {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => Err(newer(path, found, VERSION)),
        Some(found) => Err(unopenable(format_args!(
            "{} has schema version {found}; start a node on it once, which brings it to version {VERSION}",
            path.display()
        ))),
        None => Err(unopenable(format_args!("{} holds no ledger yet", path.display()))),
    }
}

/// A number in `meta`; 0 if it was never set.
pub(crate) fn number(conn: &Connection, key: &str) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Sets a number in `meta`.
pub(crate) fn set_number(conn: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO meta(key, value) VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
    )?;
    statement.execute(rusqlite::params![key, value]).map(|_| ())
}

/// The secret made when the ledger was.
pub(crate) fn secret(conn: &Connection) -> Result<[u8; 32], LedgerError> {
    conn.query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0)).map_err(|error| match error {
        rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::InvalidColumnType(..) => missing_secret(),
        error => damaged(&error),
    })
}

fn missing_secret() -> LedgerError {
    LedgerError::Damaged("the ledger's secret is missing".into())
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
