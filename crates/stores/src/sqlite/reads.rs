//! Short reads on connections of their own, beside the writer. No read outlives its call: a reader that stays open
//! keeps the log from being reused, and it grows.

use super::{
    checkpoint::{read_tenant_row, read_user_row},
    errors::{OrDamaged, damaged_row},
    schema,
};
use crate::{codec, rows::is_plan};
use domain::{
    entry::Entry,
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
};
use engine::ports::{LedgerError, Seq, Stored};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use std::path::{Path, PathBuf};

/// Connections kept for the next read.
const IDLE_MAX: usize = 4;

/// Connections that read.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default() }
    }

    /// Does a short read.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let idle = self.idle.lock().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => open(&self.path).or_damaged()?,
        };
        let result = read(&conn);
        if result.is_ok() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(conn);
            }
        }
        result
    }

    /// Closes the connections that are idle.
    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }
}

/// A connection that only reads.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    schema::prepare_reader(&conn)?;
    Ok(conn)
}

pub(super) fn tenant(conn: &Connection, id: &TenantId) -> Result<Option<Stored<Tenant>>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT seq, body FROM tenants WHERE tenant = ?1").or_damaged()?;
    let mut rows = statement.query([id.as_str()]).or_damaged()?;
    let Some(row) = rows.next().or_damaged()? else { return Ok(None) };
    let (seq, body) = seq_and_body(row, 0)?;
    read_tenant_row(id, seq, body).map(Some).map_err(|why| damaged_row(format_args!("tenant {id:?}"), why.0))
}

pub(super) fn user(conn: &Connection, tenant: &TenantId, id: &UserId) -> Result<Option<Stored<User>>, LedgerError> {
    let sql = "SELECT seq, body FROM users WHERE tenant = ?1 AND user = ?2";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut rows = statement.query([tenant.as_str(), id.as_str()]).or_damaged()?;
    let Some(row) = rows.next().or_damaged()? else { return Ok(None) };
    let (seq, body) = seq_and_body(row, 0)?;
    read_user_row(tenant, id, seq, body)
        .map(Some)
        .map_err(|why| damaged_row(format_args!("user {id:?} of tenant {tenant:?}"), why.0))
}

/// A position and the bytes beside it, without a copy.
pub(super) fn seq_and_body<'a>(row: &'a Row<'_>, first: usize) -> Result<(i64, &'a [u8]), LedgerError> {
    let seq = row.get(first).or_damaged()?;
    let body = row.get_ref(first + 1).or_damaged()?;
    Ok((seq, body.as_blob().map_err(|_| damaged_row(format_args!("row {seq}"), "it holds no bytes"))?))
}

/// A row of the journal, its checksum verified.
pub(super) struct JournalRow<'a> {
    pub(super) seq: Seq,
    pub(super) tenant: &'a str,
    pub(super) at: Instant,
    /// The encoded entry.
    pub(super) body: &'a [u8],
}

impl JournalRow<'_> {
    pub(super) fn entry(&self) -> Result<Entry, LedgerError> {
        codec::decode_entry(self.at, self.body).map_err(|why| damaged_row(format_args!("entry {}", self.seq), why.0))
    }
}

/// Visits at most `limit` rows after `after`, in order; gives the last position visited (or `after`) and their number.
pub(super) fn visit_journal(
    conn: &Connection,
    after: Seq,
    limit: usize,
    mut visit: impl FnMut(&JournalRow<'_>) -> Result<(), LedgerError>,
) -> Result<(Seq, usize), LedgerError> {
    let sql = "SELECT seq, tenant, at_ms, body FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![i64::try_from(after).unwrap_or(i64::MAX), limit]).or_damaged()?;
    let (mut last, mut count) = (after, 0);
    while let Some(row) = rows.next().or_damaged()? {
        let row = journal_row(row)?;
        visit(&row)?;
        last = row.seq;
        count += 1;
    }
    Ok((last, count))
}

fn journal_row<'a>(row: &'a Row<'_>) -> Result<JournalRow<'a>, LedgerError> {
    let seq: i64 = row.get(0).or_damaged()?;
    let damaged = |why: &str| damaged_row(format_args!("entry {seq}"), why);
    let tenant = row.get_ref(1).or_damaged()?.as_str().map_err(|_| damaged("its tenant is no text"))?;
    let at_ms: i64 = row.get(2).map_err(|_| damaged("its instant is no number"))?;
    let body = row.get_ref(3).or_damaged()?.as_blob().map_err(|_| damaged("it holds no bytes"))?;
    let body = codec::checked(&[tenant], &[seq, at_ms], body).map_err(|why| damaged(why.0))?;
    Ok(JournalRow { seq: seq as Seq, tenant, at: Instant::from_ms(at_ms), body })
}

/// Entries after `after`.
pub(super) fn journal(conn: &Connection, after: Seq, limit: usize) -> Result<Vec<(Seq, TenantId, Entry)>, LedgerError> {
    let mut entries = Vec::new();
    visit_journal(conn, after, limit, |row| {
        entries.push((row.seq, TenantId::trusted(row.tenant), row.entry()?));
        Ok(())
    })?;
    Ok(entries)
}

/// One entry.
pub(super) fn entry(conn: &Connection, tenant: &TenantId, seq: Seq) -> Result<Option<Entry>, LedgerError> {
    let Some(after) = seq.checked_sub(1) else { return Ok(None) };
    let found = journal(conn, after, 1)?.pop();
    Ok(found.filter(|(found, whose, _)| *found == seq && whose == tenant).map(|(.., entry)| entry))
}

pub(super) fn tenants(conn: &Connection, after: Option<&TenantId>, limit: usize) -> Result<Vec<TenantId>, LedgerError> {
    let sql = "SELECT tenant FROM tenants WHERE tenant > ?1 ORDER BY tenant LIMIT ?2";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let after = after.map_or("", TenantId::as_str);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![after, limit], |row| row.get::<_, String>(0)).or_damaged()?;
    rows.map(|id| id.or_damaged().map(|id| TenantId::trusted(&id))).collect()
}

/// Plans of tenants that are not pinned. Jumps from plan to plan along the index, however many tenants there are.
pub(super) fn plans_in_use(conn: &Connection) -> Result<Vec<PlanKey>, LedgerError> {
    let sql = "SELECT plan FROM tenants INDEXED BY tenants_by_plan WHERE plan > ?1 ORDER BY plan LIMIT 1";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut plans: Vec<PlanKey> = Vec::new();
    loop {
        let last = plans.last().map_or("", PlanKey::as_str);
        let next: Option<String> = statement.query_row([last], |row| row.get(0)).optional().or_damaged()?;
        let Some(next) = next else {
            plans.retain(is_plan);
            return Ok(plans);
        };
        plans.push(PlanKey::trusted(&next));
    }
}
