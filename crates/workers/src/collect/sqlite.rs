//! A query of an SQLite file, opened for reading alone.

use super::{Row, Rows, integer};
use domain::day::Day;
use rusqlite::{Connection, InterruptHandle, OpenFlags, types::ValueRef};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use wire::catalog::{DAY_END, Source};

/// Ends the query when nobody waits for it any more: the thread must not go on for ever.
struct Ends(Arc<OnceLock<InterruptHandle>>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(handle) = self.0.get() {
            handle.interrupt();
        }
    }
}

/// Asks, on a thread of its own.
pub(super) async fn ask(path: &str, source: &Source, sql: &str, day: Day) -> Result<Vec<Row>, String> {
    let (path, source, sql) = (path.to_owned(), source.clone(), sql.to_owned());
    let ends = Ends(Arc::default());
    let handle = ends.0.clone();
    let asked = tokio::task::spawn_blocking(move || query(&path, &source, &sql, day, &handle));
    asked.await.unwrap_or_else(|_| Err("the query could not be asked".into()))
}

fn query(
    path: &str,
    source: &Source,
    sql: &str,
    day: Day,
    handle: &OnceLock<InterruptHandle>,
) -> Result<Vec<Row>, String> {
    let path = path.strip_prefix("sqlite:").unwrap_or(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|error| told(&error))?;
    let _ = handle.set(conn.get_interrupt_handle());
    conn.busy_timeout(Duration::from_millis(source.timeout_ms)).map_err(|error| told(&error))?;
    let asked = format!("SELECT tenant_id, value FROM (\n{sql}\n)");
    let mut statement = conn.prepare(&asked).map_err(|error| told(&error))?;
    if let Some(place) = statement.parameter_index(DAY_END).map_err(|error| told(&error))? {
        // As CURRENT_TIMESTAMP writes it.
        let day_end = format!("{} 00:00:00", day + 1);
        statement.raw_bind_parameter(place, day_end).map_err(|error| told(&error))?;
    }
    let mut found = statement.raw_query();
    let mut rows = Rows::new(source);
    while let Some(row) = found.next().map_err(|error| told(&error))? {
        let tenant = text(row.get_ref(0).map_err(|error| told(&error))?).unwrap_or_default();
        let value = match row.get_ref(1).map_err(|error| told(&error))? {
            ValueRef::Integer(value) => Ok(value),
            other => text(other).map_or_else(|| Err("it is NULL, or no number".to_owned()), |text| integer(&text)),
        };
        rows.push(&tenant, value)?;
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

/// What SQLite says; of a file that can't be opened only that, for its words name the path.
fn told(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::NotADatabase) => {
            "SQLite: the file can't be opened as a database".to_owned()
        }
        _ => format!("SQLite: {error}"),
    }
}
