//! A query of an SQLite file, opened for reading alone.

use super::{Row, Rows, integer, late};
use domain::day::Day;
use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit, types::ValueRef};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as Moment},
};
use wire::catalog::{DAY_END, Query, Source};

/// The longest text or blob that a query may make: one is held in memory whole.
const TEXT_MAX_BYTES: i32 = 64 << 20;
/// Steps of SQLite's machine between two looks whether anybody still waits: a fraction of a millisecond.
const STEPS_PER_LOOK: i32 = 1_000;

/// Tells the thread that nobody waits for it any more.
struct Awaited(Arc<AtomicBool>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Asks, on a thread of its own, which ends when its time is over or nobody waits for it, whatever it is at.
pub(super) async fn ask(file: PathBuf, source: &Source, query: &Query, day: Day) -> Result<Vec<Row>, String> {
    let (source, query) = (source.clone(), query.clone());
    let until = Moment::now() + Duration::from_millis(source.timeout_ms);
    let awaited = Awaited(Arc::new(AtomicBool::new(true)));
    let is_awaited = awaited.0.clone();
    let is_over = move || !is_awaited.load(Ordering::Relaxed) || Moment::now() >= until;
    let asked = tokio::task::spawn_blocking(move || {
        let rows = match open(&file, &source, is_over) {
            Ok(conn) => rows(&conn, &source, &query, day),
            Err(error) => Err(error),
        };
        rows.map_err(|error| error.told(&source))
    });
    asked.await.unwrap_or_else(|_| Err("the query could not be asked".into()))
}

/// Why there are no rows.
enum Failure {
    Sqlite(rusqlite::Error),
    Rows(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    /// What SQLite says; of a file that can't be opened only that, for its words name the path.
    fn told(self, source: &Source) -> String {
        use rusqlite::ErrorCode::{CannotOpen, NotADatabase, OperationInterrupted};
        let error = match self {
            Self::Rows(reason) => return reason,
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(OperationInterrupted) => late(source),
            Some(CannotOpen | NotADatabase) => "SQLite: the file can't be opened as a database".to_owned(),
            _ => format!("SQLite: {error}"),
        }
    }
}

/// Opens a file that somebody else made: nothing in it may run what a query would not, nor go on past its time.
fn open(file: &Path, source: &Source, is_over: impl FnMut() -> bool + Send + 'static) -> Result<Connection, Failure> {
    // The path has no link left in it: one that takes its place meanwhile is not followed.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut conn = Connection::open_with_flags(file, flags)?;
    conn.progress_handler(STEPS_PER_LOOK, Some(is_over))?;
    conn.busy_timeout(Duration::from_millis(source.timeout_ms))?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, TEXT_MAX_BYTES)?;
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(conn)
}

fn rows(conn: &Connection, source: &Source, query: &Query, day: Day) -> Result<Vec<Row>, Failure> {
    let asked = format!("SELECT tenant_id, value FROM (\n{}\n)", query.sql());
    let mut statement = conn.prepare(&asked)?;
    if let Some(place) = statement.parameter_index(DAY_END)? {
        // As CURRENT_TIMESTAMP writes it.
        let day_end = format!("{} 00:00:00", day + 1);
        statement.raw_bind_parameter(place, day_end)?;
    }
    let mut found = statement.raw_query();
    let mut rows = Rows::new(source);
    while let Some(row) = found.next()? {
        let tenant = text(row.get_ref(0)?).unwrap_or_default();
        let value = match row.get_ref(1)? {
            ValueRef::Integer(value) => Ok(value),
            other => text(other).map_or_else(|| Err("it is NULL, or no number".to_owned()), |text| integer(&text)),
        };
        rows.push(&tenant, value).map_err(Failure::Rows)?;
    }
    Ok(rows.rows)
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null | ValueRef::Blob(_) => None,
        ValueRef::Integer(value) => Some(value.to_string()),
        ValueRef::Real(value) => Some(value.to_string()),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
    }
}
