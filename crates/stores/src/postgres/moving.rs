//! A ledger on PostgreSQL as the one that is copied, or that is being made by a copy.

use super::{
    buckets, denials,
    errors::{damaged_row, unopenable},
    forecasts,
    pool::{Conn, Pool},
    reads::checked_entry,
    schema, small, snapshots, url,
    values::{Bits, first, get},
};
use crate::{
    codec::{self, Malformed},
    copy::{BATCH_ROWS, CopiedHistory, EntryRow, Small, StateRow, States, TotalRow, Totals},
    rows::HistoryRow,
};
use engine::ports::{Days, LedgerError, Snapshot, StoredDenial};
use rustc_hash::FxHashMap;
use tokio_postgres::{Row, types::Type};

type Done<T> = Result<T, LedgerError>;

/// The longest that a copy's own statement takes.
const STATEMENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// A ledger that is read, or made.
pub(crate) struct PostgresSide {
    pub(super) conn: Conn,
    /// Held open with a lock that keeps nodes from writing to what is copied, and other copies from what is made.
    _guard: Conn,
    schema: String,
    /// What is taken off a tenant's positions, where its journal was cut.
    offsets: FxHashMap<Box<str>, i64>,
    /// The place in the table of so many first entries.
    reached: (u64, i64),
}

impl PostgresSide {
    /// The ledger at a URL, with nodes kept out.
    pub(crate) async fn source(url: &str) -> Result<Self, LedgerError> {
        let (pool, schema) = pool(url, "")?;
        schema::check(&pool, &schema).await?;
        let mut guard = pool.get().await?;
        guard.begin("SET LOCAL lock_timeout = '3s'; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        let others = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'tidegate'";
        let others: Option<i64> = first(&guard.rows(others, &[]).await?)?;
        let locked = guard.run("LOCK TABLE tidegate.entries, tidegate.folds, tidegate.meta IN EXCLUSIVE MODE").await;
        if others.unwrap_or(0) > 0 || locked.is_err() {
            return Err(unopenable("nodes run on the ledger to be copied: stop them first"));
        }
        let mut side = Self::with(pool.get().await?, guard, schema);
        let sql = "SELECT tenant, seq FROM tidegate.openings WHERE user_id = ''";
        for row in side.conn.rows(sql, &[]).await? {
            side.offsets.insert(get::<&str>(&row, 0)?.into(), get::<i64>(&row, 1)? - 1);
        }
        Ok(side)
    }

    /// A copy that is begun, or gone on with, beside the place at a URL.
    pub(crate) async fn target(url: &str, secret: &[u8; 32]) -> Result<Self, LedgerError> {
        let (pool, schema) = pool(url, "_copying")?;
        let place = schema.strip_suffix("_copying").unwrap_or(&schema).to_owned();
        let mut guard = pool.get().await?;
        guard.begin("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        let sql = "SELECT pg_try_advisory_xact_lock(1413958724, hashtext($1))";
        let rows = guard.rows(sql, &[(&format!("tidegate copies to {schema}"), Type::TEXT)]).await?;
        if first::<bool>(&rows)? != Some(true) {
            return Err(unopenable(format_args!("another copy into the schema {place} is under way")));
        }
        let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        if first::<bool>(&pool.rows(sql, &[(&place, Type::TEXT)]).await?)? == Some(true) {
            return Err(unopenable(format_args!(
                "the schema {place} is there already in the database to copy to: name another database, or another \
                 schema with ?schema="
            )));
        }
        if schema::prepare(&pool, &schema, secret).await? != *secret {
            return Err(unopenable(format_args!(
                "the schema {schema} holds the beginning of a copy of another ledger: DROP SCHEMA {schema} CASCADE to \
                 begin anew"
            )));
        }
        Ok(Self::with(pool.get().await?, guard, place))
    }

    fn with(conn: Conn, guard: Conn, schema: String) -> Self {
        Self { conn, _guard: guard, schema, offsets: FxHashMap::default(), reached: (0, i64::MIN) }
    }

    /// A neutral position: what was cut is at 1.
    fn neutral(&self, tenant: &str, seq: i64) -> i64 {
        self.offsets.get(tenant).map_or(seq, |offset| (seq - offset).max(1))
    }

    pub(crate) async fn count(&mut self) -> Done<u64> {
        let count: Option<i64> = first(&self.conn.rows("SELECT count(*) FROM tidegate.entries", &[]).await?)?;
        Ok(count.unwrap_or(0) as u64)
    }

    pub(crate) async fn rows(&mut self) -> Done<u64> {
        let tables = ["folds", "user_folds", "openings", "closed", "opening_closed", "denials", "snapshots", "history"];
        let counts = tables.map(|table| format!("(SELECT count(*) FROM tidegate.{table})"));
        let rows = self.conn.rows(&format!("SELECT {}", counts.join(" + ")), &[]).await?;
        Ok(first::<i64>(&rows)?.unwrap_or(0) as u64)
    }

    pub(crate) async fn is_cut(&mut self) -> Done<bool> {
        Ok(!self.offsets.is_empty())
    }

    pub(crate) async fn entries(&mut self, after: u64, limit: usize) -> Done<Vec<EntryRow>> {
        if after == 0 {
            self.reached = (0, i64::MIN);
        } else if self.reached.0 != after {
            let sql = "SELECT position FROM tidegate.entries ORDER BY position OFFSET $1 LIMIT 1";
            let place: Option<i64> = first(&self.conn.rows(sql, &[(&(after as i64 - 1), Type::INT8)]).await?)?;
            self.reached = (after, place.unwrap_or(i64::MAX));
        }
        let sql = "SELECT position, tenant, seq, at_ms, body FROM tidegate.entries
                   WHERE position > $1 ORDER BY position LIMIT $2";
        let rows = self.conn.rows(sql, &[(&self.reached.1, Type::INT8), (&(limit as i64), Type::INT8)]).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            let (tenant, seq, at_ms): (&str, i64, i64) = (get(row, 1)?, get(row, 2)?, get(row, 3)?);
            let body = checked_entry(tenant, seq, at_ms, get(row, 4)?)
                .map_err(|why| damaged_row(format_args!("entry {seq} of tenant {tenant:?}"), why))?;
            let seq = self.neutral(tenant, seq);
            entries.push(EntryRow { tenant: tenant.into(), seq, at_ms, body: body.to_vec() });
            self.reached = (self.reached.0, get(row, 0)?);
        }
        self.reached.0 = after + rows.len() as u64;
        Ok(entries)
    }

    pub(crate) async fn states(&mut self, table: States, after: Option<&StateRow>) -> Done<Vec<StateRow>> {
        let (tenant, user) = after.map_or(("", ""), |row| (&*row.tenant, &*row.user));
        let sql = match table {
            States::Tenants => {
                "SELECT tenant, '', seq, state FROM tidegate.folds
                 WHERE tenant > $1 AND $2::text IS NOT NULL ORDER BY tenant LIMIT $3"
            }
            States::Users => {
                "SELECT tenant, user_id, seq, state FROM tidegate.user_folds
                 WHERE (tenant, user_id) > ($1, $2) ORDER BY tenant, user_id LIMIT $3"
            }
            States::Openings => {
                "SELECT tenant, user_id, seq, state FROM tidegate.openings
                 WHERE (tenant, user_id) > ($1, $2) ORDER BY tenant, user_id LIMIT $3"
            }
        };
        let limit = BATCH_ROWS as i64;
        let rows = self.conn.rows(sql, &[(&tenant, Type::TEXT), (&user, Type::TEXT), (&limit, Type::INT8)]).await?;
        let read = |row: &Row| {
            let (tenant, user, seq): (&str, &str, i64) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
            let names = [tenant, user];
            let names = if user.is_empty() { &names[..1] } else { &names[..] };
            let body = codec::checked(names, &[seq], get(row, 3)?)
                .map_err(|why| damaged_row(format_args!("{table:?}: {tenant:?} {user:?}"), why))?;
            let seq = self.neutral(tenant, seq);
            Ok(StateRow { tenant: tenant.into(), user: user.into(), seq, body: body.to_vec() })
        };
        rows.iter().map(read).collect()
    }

    pub(crate) async fn totals(&mut self, table: Totals, after: Option<&TotalRow>) -> Done<Vec<TotalRow>> {
        let name = totals_table(table);
        let sql = format!(
            "SELECT tenant, user_id, start_ms, kind, meter, end_ms, used, denied FROM {name}
             WHERE (tenant, user_id, start_ms, kind, meter) > ($1, $2, $3, $4, $5)
             ORDER BY tenant, user_id, start_ms, kind, meter LIMIT $6"
        );
        let (tenant, user, meter) = after.map_or(("", "", ""), |row| (&*row.tenant, &*row.user, &*row.meter));
        let (start_ms, kind) = after.map_or((i64::MIN, 0), |row| (row.start_ms, row.kind));
        let limit = BATCH_ROWS as i64;
        let rows = self
            .conn
            .rows(
                &sql,
                &[
                    (&tenant, Type::TEXT),
                    (&user, Type::TEXT),
                    (&start_ms, Type::INT8),
                    (&kind, Type::INT2),
                    (&meter, Type::TEXT),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let read = |row: &Row| {
            Ok(TotalRow {
                tenant: get::<&str>(row, 0)?.into(),
                user: get::<&str>(row, 1)?.into(),
                start_ms: get(row, 2)?,
                kind: get(row, 3)?,
                meter: get::<&str>(row, 4)?.into(),
                end_ms: get(row, 5)?,
                used: get(row, 6)?,
                denied: get(row, 7)?,
            })
        };
        rows.iter().map(read).collect()
    }

    pub(crate) async fn denials(&mut self, after: u128) -> Done<Vec<StoredDenial>> {
        Ok(denials::after(&mut self.conn, after, BATCH_ROWS).await?)
    }

    pub(crate) async fn snapshots(&mut self, after: Option<&Snapshot>) -> Done<Vec<Snapshot>> {
        Ok(snapshots::after(&mut self.conn, after, BATCH_ROWS).await?)
    }

    pub(crate) async fn history(&mut self, after: Option<&HistoryRow>) -> Done<Vec<HistoryRow>> {
        Ok(buckets::after(&mut self.conn, after, BATCH_ROWS).await?)
    }

    pub(crate) async fn small(&mut self) -> Done<Small> {
        let rows = self.conn.rows("SELECT secret FROM tidegate.meta", &[]).await?;
        let secret: Option<&[u8]> = first(&rows)?;
        let missing = || damaged_row("the table meta", Malformed("it holds no secret"));
        let secret = secret.and_then(|secret| secret.try_into().ok()).ok_or_else(missing)?;
        let catalogs = small::catalogs(&mut self.conn, false).await?;
        let keys = small::keys(&mut self.conn).await?;
        let runs = snapshots::runs(&mut self.conn, Days::ALL).await?;
        let scores = forecasts::scores(&mut self.conn).await?;
        let growth = forecasts::growth(&mut self.conn).await?;
        let history = buckets::state(&mut self.conn).await?;
        let sql = "SELECT count(*) FROM tidegate.entries WHERE position <= $1";
        let through = i64::try_from(history.through).unwrap_or(i64::MAX);
        let entries: Option<i64> = first(&self.conn.rows(sql, &[(&through, Type::INT8)]).await?)?;
        let history = CopiedHistory { entries: entries.unwrap_or(0) as u64, at: history.at, kept: history.kept };
        Ok(Small { secret, catalogs, keys, runs, scores, growth, history })
    }

    pub(crate) async fn find(&mut self, ids: &[(&str, u128)]) -> Done<Vec<Option<i64>>> {
        let tenants: Vec<&str> = ids.iter().map(|(tenant, _)| *tenant).collect();
        let bits: Vec<Bits> = ids.iter().map(|(_, id)| Bits(*id)).collect();
        let sql = "SELECT d.seq FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS i(tenant, id, ord)
                   LEFT JOIN tidegate.ids d ON d.tenant = i.tenant AND d.id = i.id ORDER BY i.ord";
        let rows = self.conn.rows(sql, &[(&tenants, Type::TEXT_ARRAY), (&bits, Type::UUID_ARRAY)]).await?;
        rows.iter().map(|row| Ok(get(row, 0)?)).collect()
    }

    pub(crate) async fn finish(&mut self) -> Done<()> {
        let place = &self.schema;
        Ok(self.conn.run(&format!("ALTER SCHEMA {place}_copying RENAME TO {place}")).await?)
    }
}

pub(super) fn totals_table(table: Totals) -> &'static str {
    match table {
        Totals::Live => "tidegate.closed",
        Totals::Opening => "tidegate.opening_closed",
    }
}

/// Connections of a copy, which is not taken for a node, and the schema they work on.
fn pool(url: &str, suffix: &str) -> Result<(Pool, String), LedgerError> {
    let mut settings = url::parse(url)?;
    settings.config.application_name("tidegate copy");
    settings.statement_timeout = STATEMENT_TIMEOUT;
    if !settings.pgbouncer {
        settings.config.options(format!("-c statement_timeout={}", STATEMENT_TIMEOUT.as_millis()));
    }
    settings.schema.push_str(suffix);
    Ok((Pool::new(&settings)?, settings.schema))
}
