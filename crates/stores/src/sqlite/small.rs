//! The small tables: API keys and catalogs.

use super::{
    errors::{OrDamaged, damaged_row},
    queue::Work,
};
use domain::{id::TenantId, time::Instant};
use engine::ports::{ApiKey, KeyScope, LedgerError, StoredCatalog};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Every key, in order of id.
pub(super) fn keys(conn: &Connection) -> Result<Vec<ApiKey>, LedgerError> {
    let sql = "SELECT id, hash, name, scope, tenant, created_at_ms, created_by, revoked_at_ms FROM keys ORDER BY id";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut rows = statement.query([]).or_damaged()?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        keys.push(key(row)?);
    }
    Ok(keys)
}

fn key(row: &Row<'_>) -> Result<ApiKey, LedgerError> {
    let text = |index: usize| row.get::<_, String>(index).or_damaged();
    let id = text(0)?;
    let tenant: Option<String> = row.get(4).or_damaged()?;
    let scope = match (text(3)?.as_str(), tenant) {
        ("admin", None) => KeyScope::Admin,
        ("ingest", None) => KeyScope::Ingest,
        ("read", None) => KeyScope::Read,
        ("tenant", Some(tenant)) => KeyScope::Tenant(TenantId::trusted(&tenant)),
        _ => return Err(damaged_row(format_args!("API key {id}"), "its scope is unknown")),
    };
    Ok(ApiKey {
        id: id.into(),
        hash: row.get(1).or_damaged()?,
        name: text(2)?.into(),
        scope,
        created_at: Instant::from_ms(row.get(5).or_damaged()?),
        created_by: text(6)?.into(),
        revoked_at: row.get::<_, Option<i64>>(7).or_damaged()?.map(Instant::from_ms),
    })
}

/// Writes a key.
pub(super) fn put_key(conn: &Connection, key: &ApiKey) -> rusqlite::Result<()> {
    let (scope, tenant) = match &key.scope {
        KeyScope::Admin => ("admin", None),
        KeyScope::Ingest => ("ingest", None),
        KeyScope::Read => ("read", None),
        KeyScope::Tenant(tenant) => ("tenant", Some(tenant.as_str())),
    };
    conn.prepare_cached(
        "INSERT INTO keys(id, hash, name, scope, tenant, created_at_ms, created_by, revoked_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT(id) DO UPDATE
         SET hash = excluded.hash, name = excluded.name, scope = excluded.scope, tenant = excluded.tenant,
             created_at_ms = excluded.created_at_ms, created_by = excluded.created_by,
             revoked_at_ms = excluded.revoked_at_ms",
    )?
    .execute(params![
        &*key.id,
        key.hash,
        &*key.name,
        scope,
        tenant,
        key.created_at.ms(),
        &*key.created_by,
        key.revoked_at.map(Instant::ms),
    ])
    .map(|_| ())
}

/// Every catalog, oldest first.
pub(super) fn catalogs(conn: &Connection) -> Result<Vec<StoredCatalog>, LedgerError> {
    let sql = "SELECT version, text, applied_at_ms FROM catalogs ORDER BY version";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let rows = statement.query_map([], catalog).or_damaged()?;
    rows.map(OrDamaged::or_damaged).collect()
}

/// The newest catalog.
pub(super) fn newest_catalog(conn: &Connection) -> Result<Option<StoredCatalog>, LedgerError> {
    conn.query_row("SELECT version, text, applied_at_ms FROM catalogs ORDER BY version DESC LIMIT 1", [], catalog)
        .optional()
        .or_damaged()
}

fn catalog(row: &Row<'_>) -> rusqlite::Result<StoredCatalog> {
    let text: String = row.get(1)?;
    Ok(StoredCatalog { version: row.get(0)?, text: text.into(), applied_at: Instant::from_ms(row.get(2)?) })
}

/// Writes a catalog as it is.
pub(super) fn put_catalog(conn: &Connection, catalog: &StoredCatalog) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO catalogs(version, text, applied_at_ms) VALUES (?1, ?2, ?3)")?
        .execute(params![catalog.version, &*catalog.text, catalog.applied_at.ms()])
        .map(|_| ())
}

/// Writes a key, between commits.
pub(super) struct PutKey(pub(super) ApiKey);

impl Work for PutKey {
    fn slice(&mut self, conn: &mut Connection, _until: std::time::Instant) -> Result<bool, LedgerError> {
        put_key(conn, &self.0).or_unwritable().map(|()| true)
    }
}

/// Puts a catalog in force, between commits, and says under which version.
pub(super) struct PutCatalog {
    pub(super) text: Arc<str>,
    pub(super) at: Instant,
    pub(super) version: Arc<AtomicU32>,
}

impl PutCatalog {
    fn write(&self, conn: &mut Connection) -> rusqlite::Result<u32> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let newest: Option<u32> = transaction.query_row("SELECT max(version) FROM catalogs", [], |row| row.get(0))?;
        let version = newest.map_or(1, |newest| newest + 1);
        put_catalog(&transaction, &StoredCatalog { version, text: self.text.clone(), applied_at: self.at })?;
        transaction.commit()?;
        Ok(version)
    }
}

impl Work for PutCatalog {
    fn slice(&mut self, conn: &mut Connection, _until: std::time::Instant) -> Result<bool, LedgerError> {
        let version = self.write(conn).or_unwritable()?;
        self.version.store(version, Ordering::Release);
        Ok(true)
    }
}
