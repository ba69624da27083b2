//! The tables of the index. `id_runs` says which runs are in force: pages and filters of other runs are left-overs.

use super::{
    filter,
    page::{self, Shape},
};
use engine::ports::{LedgerError, Seq};
use rusqlite::{Connection, OptionalExtension, Row, params};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS id_runs (
    run INTEGER PRIMARY KEY,
    ids INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    seq_base INTEGER NOT NULL,
    seq_bytes INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    filter_blocks INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS id_pages (place INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS id_filters (place INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS id_state (only INTEGER PRIMARY KEY CHECK (only = 1), sealed_through INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO id_state (only, sealed_through) VALUES (1, 0);
";

/// The tables whose rows are kept by place.
pub(super) const PLACED: [&str; 2] = ["id_pages", "id_filters"];

/// A run as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunRow {
    pub(super) run: u32,
    pub(super) ids: u64,
    pub(super) shape: Shape,
    pub(super) last_seq: Seq,
    pub(super) filter_blocks: u32,
    /// When its first id arrived, at the earliest.
    pub(super) first_ms: i64,
    /// When its last id arrived, at the latest.
    pub(super) last_ms: i64,
}

impl RunRow {
    fn checksum(&self) -> i64 {
        let mut bytes = Vec::with_capacity(64);
        for number in [
            self.ids,
            u64::from(self.shape.pages),
            self.shape.base,
            u64::from(self.shape.seq_bytes),
            self.last_seq,
            u64::from(self.filter_blocks),
            self.first_ms.cast_unsigned(),
            self.last_ms.cast_unsigned(),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        page::checksum_of(page::place(self.run, 0), &bytes).cast_signed()
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<(Self, i64)> {
        let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let run = Self {
            run: row.get(0)?,
            ids: number(1)?,
            shape: Shape { pages: row.get(2)?, base: number(3)?, seq_bytes: row.get(4)? },
            last_seq: number(5)?,
            filter_blocks: row.get(6)?,
            first_ms: row.get(7)?,
            last_ms: row.get(8)?,
        };
        Ok((run, row.get(9)?))
    }

    /// Memory its filter takes.
    pub(super) fn filter_bytes(&self) -> usize {
        self.filter_blocks as usize * filter::BLOCK_BYTES
    }

    /// Puts the run in force.
    pub(super) fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.execute(
            "INSERT INTO id_runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                self.run,
                self.ids.cast_signed(),
                self.shape.pages,
                self.shape.base.cast_signed(),
                self.shape.seq_bytes,
                self.last_seq.cast_signed(),
                self.filter_blocks,
                self.first_ms,
                self.last_ms,
                self.checksum(),
            ],
        )?;
        Ok(())
    }
}

pub(super) fn create(conn: &Connection) -> Result<(), LedgerError> {
    conn.execute_batch(SCHEMA).map_err(failed)
}

/// Every run in force.
pub(super) fn runs(conn: &Connection) -> Result<Vec<RunRow>, LedgerError> {
    let mut statement = conn.prepare("SELECT * FROM id_runs ORDER BY run").map_err(failed)?;
    let rows = statement.query_map([], RunRow::read).map_err(failed)?;
    rows.map(|row| {
        let (row, checksum) = row.map_err(failed)?;
        if row.checksum() == checksum && row.shape.pages > 0 && (1..=8).contains(&row.shape.seq_bytes) {
            Ok(row)
        } else {
            Err(damaged(format!("the row of id run {}", row.run)))
        }
    })
    .collect()
}

/// A run's number is never one that anything on disk bears already.
pub(super) fn last_run(conn: &Connection) -> Result<u32, LedgerError> {
    let mut last = 0;
    for (sql, shift) in [
        ("SELECT max(run) FROM id_runs", 0),
        ("SELECT max(place) FROM id_pages", 32),
        ("SELECT max(place) FROM id_filters", 32),
    ] {
        let largest: Option<i64> = conn.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
        last = last.max(largest.unwrap_or(0) >> shift);
    }
    u32::try_from(last).map_err(|_| damaged("the number of an id run"))
}

/// Every id bound at or before this position is in a run in force.
pub(super) fn sealed_through(conn: &Connection) -> Result<Seq, LedgerError> {
    conn.query_row("SELECT sealed_through FROM id_state WHERE only = 1", [], |row| row.get::<_, i64>(0))
        .optional()
        .map_err(failed)?
        .map(i64::cast_unsigned)
        .ok_or_else(|| damaged("the state of the id index is missing"))
}

pub(super) fn set_sealed_through(conn: &Connection, seq: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE id_state SET sealed_through = ?1 WHERE only = 1")?.execute([seq.cast_signed()])?;
    Ok(())
}

pub(super) fn remove_run(conn: &Connection, run: u32) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM id_runs WHERE run = ?1")?.execute([run])?;
    Ok(())
}

pub(super) fn insert_page(conn: &Connection, place: i64, data: &[u8]) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO id_pages (place, data) VALUES (?1, ?2)")?.execute(params![place, data])?;
    Ok(())
}

pub(super) fn insert_filter(conn: &Connection, place: i64, data: &[u8]) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO id_filters (place, data) VALUES (?1, ?2)")?.execute(params![place, data])?;
    Ok(())
}

/// What a page without its checksum is good for; `None` where there is no such page.
pub(super) fn page<T>(
    conn: &Connection,
    run: u32,
    number: u32,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<Option<T>, LedgerError> {
    let place = page::place(run, number);
    let mut statement = conn.prepare_cached("SELECT data FROM id_pages WHERE place = ?1").map_err(failed)?;
    let mut rows = statement.query([place]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let data = row.get_ref(0).map_err(failed)?;
    let body = data.as_blob().ok().and_then(|data| page::open(place, data));
    body.map(|body| Some(read(body))).ok_or_else(|| damaged(format!("page {number} of id run {run}")))
}

/// Reads one part of a filter into `read`; `false` if it is missing or damaged.
pub(super) fn filter_part(
    conn: &Connection,
    run: u32,
    part: u32,
    read: impl FnOnce(&[u8]),
) -> Result<bool, LedgerError> {
    let place = page::place(run, part);
    let mut statement = conn.prepare_cached("SELECT data FROM id_filters WHERE place = ?1").map_err(failed)?;
    let mut rows = statement.query([place]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(false) };
    let data = row.get_ref(0).map_err(failed)?;
    let body = data.as_blob().ok().and_then(|data| page::open(place, data));
    Ok(body.map(read).is_some())
}

/// The first place at or after `from` in one of the [`PLACED`] tables.
pub(super) fn first_place(conn: &Connection, table: &str, from: i64) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(&format!("SELECT place FROM {table} WHERE place >= ?1 ORDER BY place LIMIT 1"))?
        .query_row([from], |row| row.get(0))
        .optional()
}

/// Deletes from `from` to before `end`; says how many rows that were.
pub(super) fn delete_places(conn: &Connection, table: &str, from: i64, end: i64) -> rusqlite::Result<usize> {
    conn.prepare_cached(&format!("DELETE FROM {table} WHERE place >= ?1 AND place < ?2"))?.execute([from, end])
}

/// Says that something on disk is not what was written.
pub(super) fn damaged(what: impl Into<String>) -> LedgerError {
    LedgerError::Damaged(what.into().into())
}

/// Says in the ledger's words what SQLite could not do.
pub(super) fn failed(error: rusqlite::Error) -> LedgerError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => damaged(error.to_string()),
        _ => LedgerError::Unwritable(error.to_string().into()),
    }
}
