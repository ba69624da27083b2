//! The daily history. Rows are in order of day first: a night's rows are appended, a day that is past its time is one
//! stretch, and a tenant's history is one look-up a day.

use super::{
    errors::{OrDamaged, damaged_row},
    ledger::SqliteLedger,
    queue::{Work, in_steps},
};
use crate::{
    codec,
    snapshots::{Gathering, Versions, ordered, source},
};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::ports::{
    BoxFuture, Days, LedgerError, MeterSnapshots, Snapshot, SnapshotRun, Snapshots, Taken, TenantSnapshots,
};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params, types::Value};
use std::{sync::Arc, time::Instant as Moment};

/// Rows written or dropped before the time is looked at.
const STEP_ROWS: usize = 200;

pub(super) const TABLES: &str = "
CREATE TABLE snapshots(
    day INTEGER NOT NULL, tenant TEXT NOT NULL, meter TEXT NOT NULL, value INTEGER NOT NULL, after_reset INTEGER,
    observed_at_ms INTEGER NOT NULL, source INTEGER NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY(day, tenant, meter)) WITHOUT ROWID;
CREATE TABLE snapshot_runs(
    day INTEGER PRIMARY KEY, started_at_ms INTEGER NOT NULL, ended_at_ms INTEGER NOT NULL,
    tenants_done INTEGER NOT NULL, tenants_failed INTEGER NOT NULL);
";

/// The columns of a row, in the order in which [`read`] takes them.
pub(super) const COLUMNS: &str = "day, tenant, meter, value, after_reset, observed_at_ms, source, checksum";

fn checksum(tenant: &str, meter: &str, taken: &Taken) -> [u8; codec::CHECKSUM_BYTES] {
    let after_reset = taken.after_reset.unwrap_or(0);
    let numbers = [
        i64::from(taken.day.number()),
        taken.value,
        i64::from(taken.after_reset.is_some()),
        after_reset,
        taken.observed_at.ms(),
        taken.source.index() as i64,
    ];
    codec::checksum(&[tenant, meter], &numbers, &[])
}

/// Writes a row, unless what is there was observed later.
pub(super) fn put(conn: &Connection, row: &Snapshot) -> rusqlite::Result<()> {
    let (tenant, meter, taken) = (row.tenant.as_str(), row.meter.as_str(), &row.taken);
    conn.prepare_cached(
        "INSERT INTO snapshots(day, tenant, meter, value, after_reset, observed_at_ms, source, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT(day, tenant, meter) DO UPDATE
         SET value = excluded.value, after_reset = excluded.after_reset, observed_at_ms = excluded.observed_at_ms,
             source = excluded.source, checksum = excluded.checksum
         WHERE excluded.observed_at_ms >= snapshots.observed_at_ms",
    )?
    .execute(params![
        taken.day.number(),
        tenant,
        meter,
        taken.value,
        taken.after_reset,
        taken.observed_at.ms(),
        taken.source.index() as i64,
        checksum(tenant, meter, taken),
    ])
    .map(|_| ())
}

/// Reads and checks a row of [`COLUMNS`].
pub(super) fn read<'a>(row: &'a Row<'_>) -> Result<(&'a str, &'a str, Taken), LedgerError> {
    read_of(row, Day::from_number(row.get(0).or_damaged()?), 1)
}

/// Reads and checks a row of a day whose other columns begin with this one.
fn read_of<'a>(row: &'a Row<'_>, day: Day, first: usize) -> Result<(&'a str, &'a str, Taken), LedgerError> {
    let text = |index: usize| {
        let value = row.get_ref(index).or_damaged()?;
        value.as_str().map_err(|_| damaged_row("a snapshot", "a name is no text"))
    };
    let (tenant, meter) = (text(first)?, text(first + 1)?);
    let what = || format!("the snapshot of {meter:?} of {tenant:?} on {day}");
    let taken = Taken {
        day,
        value: row.get(first + 2).or_damaged()?,
        after_reset: row.get(first + 3).or_damaged()?,
        observed_at: Instant::from_ms(row.get(first + 4).or_damaged()?),
        source: source(row.get(first + 5).or_damaged()?).ok_or_else(|| damaged_row(what(), "its source is unknown"))?,
    };
    let sum = row.get_ref(first + 6).or_damaged()?;
    match sum.as_blob() {
        Ok(sum) if sum == checksum(tenant, meter, &taken) => Ok((tenant, meter, taken)),
        _ => Err(damaged_row(what(), "the checksum does not match")),
    }
}

/// Those of the days asked for of which there may be rows.
fn present(conn: &Connection, days: Days) -> Result<std::ops::RangeInclusive<i32>, LedgerError> {
    let bound = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<i32>>(0));
    let first = bound("SELECT min(day) FROM snapshots").or_damaged()?.unwrap_or(i32::MAX);
    let last = bound("SELECT max(day) FROM snapshots").or_damaged()?.unwrap_or(i32::MIN);
    Ok(days.first.number().max(first)..=days.last.number().min(last))
}

/// All meters of a tenant.
pub(super) fn of_tenant(conn: &Connection, tenant: &TenantId, days: Days) -> Result<Vec<MeterSnapshots>, LedgerError> {
    let sql = "SELECT tenant, meter, value, after_reset, observed_at_ms, source, checksum FROM snapshots
               WHERE day = ?1 AND tenant = ?2 ORDER BY meter";
    let mut gathering = Gathering::default();
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    for day in present(conn, days)? {
        let mut rows = statement.query(params![day, tenant.as_str()]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let (tenant, meter, taken) = read_of(row, Day::from_number(day), 0)?;
            gathering.add(tenant, meter, taken);
        }
    }
    Ok(gathering.meters())
}

/// All meters of the tenants after one through another.
pub(super) fn of_tenants(
    conn: &Connection,
    after: &str,
    through: &TenantId,
    days: Days,
) -> Result<Vec<TenantSnapshots>, LedgerError> {
    let sql = "SELECT tenant, meter, value, after_reset, observed_at_ms, source, checksum FROM snapshots
               WHERE day = ?1 AND tenant > ?2 AND tenant <= ?3 ORDER BY tenant, meter";
    let mut gathering = Gathering::default();
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    for day in present(conn, days)? {
        let mut rows = statement.query(params![day, after, through.as_str()]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let (tenant, meter, taken) = read_of(row, Day::from_number(day), 0)?;
            gathering.add(tenant, meter, taken);
        }
    }
    Ok(gathering.tenants())
}

/// The days that were closed.
pub(super) fn runs(conn: &Connection, days: Days) -> Result<Vec<SnapshotRun>, LedgerError> {
    let sql = "SELECT day, started_at_ms, ended_at_ms, tenants_done, tenants_failed FROM snapshot_runs
               WHERE day BETWEEN ?1 AND ?2 ORDER BY day";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let rows = statement.query_map([days.first.number(), days.last.number()], |row| {
        Ok(SnapshotRun {
            day: Day::from_number(row.get(0)?),
            started_at: Instant::from_ms(row.get(1)?),
            ended_at: Instant::from_ms(row.get(2)?),
            tenants_done: row.get::<_, i64>(3)? as u64,
            tenants_failed: row.get::<_, i64>(4)? as u64,
        })
    });
    rows.or_damaged()?.map(OrDamaged::or_damaged).collect()
}

/// A batch of rows after one, in order of day, tenant and meter.
pub(super) fn after(conn: &Connection, after: Option<&Snapshot>, limit: usize) -> Result<Vec<Snapshot>, LedgerError> {
    let sql = "SELECT day, tenant, meter, value, after_reset, observed_at_ms, source, checksum FROM snapshots
               WHERE (day, tenant, meter) > (?1, ?2, ?3) ORDER BY day, tenant, meter LIMIT ?4";
    let day = after.map_or(i64::MIN, |row| i64::from(row.taken.day.number()));
    let (tenant, meter) = after.map_or(("", ""), |row| (row.tenant.as_str(), row.meter.as_str()));
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut rows = statement.query(params![day, tenant, meter, limit as i64]).or_damaged()?;
    let mut list = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        let (tenant, meter, taken) = read(row)?;
        list.push(Snapshot { tenant: TenantId::trusted(tenant), meter: MeterKey::trusted(meter), taken });
    }
    Ok(list)
}

/// Writes a run over the one of that day.
pub(super) fn put_run(conn: &Connection, run: &SnapshotRun) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO snapshot_runs(day, started_at_ms, ended_at_ms, tenants_done, tenants_failed)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        run.day.number(),
        run.started_at.ms(),
        run.ended_at.ms(),
        run.tenants_done as i64,
        run.tenants_failed as i64,
    ])
    .map(|_| ())
}

/// Writes rows, in slices between commits.
pub(super) struct Put {
    pub(super) rows: Vec<Snapshot>,
    pub(super) written: usize,
    pub(super) versions: Arc<Versions>,
}

impl Put {
    fn write(&mut self, conn: &mut Connection, until: Moment) -> rusqlite::Result<()> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut written = self.written;
        while written < self.rows.len() {
            for row in self.rows[written..].iter().take(STEP_ROWS) {
                put(&transaction, row)?;
                written += 1;
            }
            if Moment::now() >= until {
                break;
            }
        }
        transaction.commit()?;
        self.versions.written(&self.rows[self.written..written]);
        self.written = written;
        Ok(())
    }
}

impl Work for Put {
    fn slice(&mut self, conn: &mut Connection, until: Moment) -> Result<bool, LedgerError> {
        self.write(conn, until).or_unwritable()?;
        Ok(self.written == self.rows.len())
    }
}

/// Writes a run, between commits.
pub(super) struct PutRun(pub(super) SnapshotRun);

impl Work for PutRun {
    fn slice(&mut self, conn: &mut Connection, _until: Moment) -> Result<bool, LedgerError> {
        put_run(conn, &self.0).or_unwritable().map(|()| true)
    }
}

/// Drops rows and runs of days before one, in slices between commits.
pub(super) struct Drop(pub(super) Day);

impl Drop {
    /// Through the place of the last row of the step: so that what is deleted is found by the index alone, however many rows a day has.
    fn step(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let last = conn
            .prepare_cached(
                "SELECT day, tenant, meter FROM snapshots WHERE day < ?1 ORDER BY day, tenant, meter LIMIT 1 OFFSET ?2",
            )?
            .query_row([i64::from(self.0.number()), STEP_ROWS as i64 - 1], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Value>(1)?, row.get::<_, Value>(2)?))
            })
            .optional()?;
        let Some((day, tenant, meter)) = last else {
            conn.prepare_cached("DELETE FROM snapshots WHERE day < ?1")?.execute([self.0.number()])?;
            conn.prepare_cached("DELETE FROM snapshot_runs WHERE day < ?1")?.execute([self.0.number()])?;
            return Ok(false);
        };
        conn.prepare_cached("DELETE FROM snapshots WHERE (day, tenant, meter) <= (?1, ?2, ?3)")?
            .execute(params![day, tenant, meter])?;
        Ok(true)
    }
}

impl Work for Drop {
    fn slice(&mut self, conn: &mut Connection, until: Moment) -> Result<bool, LedgerError> {
        in_steps(conn, until, |conn| self.step(conn)).map(|more| !more).or_unwritable()
    }
}

impl SqliteLedger {
    pub(super) fn write<'a>(
        &'a self,
        work: impl Work + 'static,
        urgent: bool,
    ) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let written = self.running().queue.push_task(Box::new(work), urgent);
            written.wait().await
        })
    }
}

impl Snapshots for SqliteLedger {
    fn put<'a>(&'a self, rows: Vec<Snapshot>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(Put { rows: ordered(rows), written: 0, versions: self.snapshot_versions.clone() }, false)
    }

    fn of_tenant<'a>(
        &'a self,
        tenant: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<MeterSnapshots>, LedgerError>> {
        self.read(move |_, conn| of_tenant(conn, tenant, days))
    }

    fn of_tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        through: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<TenantSnapshots>, LedgerError>> {
        let after = after.map_or("", TenantId::as_str);
        self.read(move |_, conn| of_tenants(conn, after, through, days))
    }

    fn version<'a>(&'a self, tenant: &'a TenantId, _days: Days) -> BoxFuture<'a, Result<u64, LedgerError>> {
        Box::pin(async move { Ok(self.snapshot_versions.of(tenant)) })
    }

    fn put_run<'a>(&'a self, run: SnapshotRun) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(PutRun(run), true)
    }

    fn runs<'a>(&'a self, days: Days) -> BoxFuture<'a, Result<Vec<SnapshotRun>, LedgerError>> {
        self.read(move |_, conn| runs(conn, days))
    }

    fn drop_before<'a>(&'a self, day: Day) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(Drop(day), false)
    }
}
