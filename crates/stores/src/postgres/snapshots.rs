//! The daily history.

use super::{
    errors::{Done, damaged_row},
    ledger::PostgresLedger,
    pool::Conn,
    values::{Params, get},
};
use crate::{
    codec::Malformed,
    snapshots::{Gathering, ordered, source},
    verify::VerifyReport,
};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::ports::{
    BoxFuture, Days, LedgerError, MeterSnapshots, Snapshot, SnapshotRun, Snapshots, Taken, TenantSnapshots,
};
use tokio_postgres::{Row, types::Type};

/// Rows of one statement.
const BATCH_ROWS: usize = 5_000;
/// Rows dropped in one transaction.
const SLICE: i64 = 5_000;

/// Writes rows, which are in order and of different places, but for those of which later ones are there.
pub(super) async fn put(conn: &mut Conn, rows: &[Snapshot]) -> Done<()> {
    let sql = "INSERT INTO tidegate.snapshots AS known
                   (day, tenant, meter, value, after_reset, observed_at_ms, source)
               SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                                    $7::smallint[])
               ON CONFLICT (day, tenant, meter) DO UPDATE
               SET value = excluded.value, after_reset = excluded.after_reset,
                   observed_at_ms = excluded.observed_at_ms, source = excluded.source
               WHERE excluded.observed_at_ms >= known.observed_at_ms";
    for batch in rows.chunks(BATCH_ROWS) {
        let days: Vec<i32> = batch.iter().map(|row| row.taken.day.number()).collect();
        let tenants: Vec<&str> = batch.iter().map(|row| row.tenant.as_str()).collect();
        let meters: Vec<&str> = batch.iter().map(|row| row.meter.as_str()).collect();
        let values: Vec<i64> = batch.iter().map(|row| row.taken.value).collect();
        let after_resets: Vec<Option<i64>> = batch.iter().map(|row| row.taken.after_reset).collect();
        let observed: Vec<i64> = batch.iter().map(|row| row.taken.observed_at.ms()).collect();
        let sources: Vec<i16> = batch.iter().map(|row| row.taken.source.index() as i16).collect();
        let columns: Params<'_> = &[
            (&days, Type::INT4_ARRAY),
            (&tenants, Type::TEXT_ARRAY),
            (&meters, Type::TEXT_ARRAY),
            (&values, Type::INT8_ARRAY),
            (&after_resets, Type::INT8_ARRAY),
            (&observed, Type::INT8_ARRAY),
            (&sources, Type::INT2_ARRAY),
        ];
        conn.rows(sql, columns).await?;
    }
    Ok(())
}

/// Reads `day, tenant, meter, value, after_reset, observed_at_ms, source`.
pub(super) fn read(row: &Row) -> Done<(&str, &str, Taken)> {
    let (day, tenant, meter): (i32, &str, &str) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
    let what = || format!("the snapshot of {meter:?} of {tenant:?} on {}", Day::from_number(day));
    let unknown = || damaged_row(what(), Malformed("its source is unknown"));
    let taken = Taken {
        day: Day::from_number(day),
        value: get(row, 3)?,
        after_reset: get(row, 4)?,
        observed_at: Instant::from_ms(get(row, 5)?),
        source: source(i64::from(get::<i16>(row, 6)?)).ok_or_else(unknown)?,
    };
    Ok((tenant, meter, taken))
}

fn gather(rows: &[Row]) -> Done<Gathering> {
    let mut gathering = Gathering::default();
    for row in rows {
        let (tenant, meter, taken) = read(row)?;
        gathering.add(tenant, meter, taken);
    }
    Ok(gathering)
}

/// All meters of a tenant.
pub(super) async fn of_tenant(conn: &mut Conn, tenant: &TenantId, days: Days) -> Done<Gathering> {
    // Day by day, each a look-up in the index.
    let sql = "SELECT s.* FROM generate_series(
                   greatest($1, (SELECT min(day) FROM tidegate.snapshots)),
                   least($2, (SELECT max(day) FROM tidegate.snapshots))) AS asked(day)
               CROSS JOIN LATERAL (
                   SELECT day, tenant, meter, value, after_reset, observed_at_ms, source FROM tidegate.snapshots
                   WHERE day = asked.day AND tenant = $3) AS s
               ORDER BY s.day, s.meter";
    let (first, last) = (days.first.number(), days.last.number());
    let params: Params<'_> = &[(&first, Type::INT4), (&last, Type::INT4), (&tenant.as_str(), Type::TEXT)];
    gather(&conn.rows(sql, params).await?)
}

/// A hash of the rows: other nodes write as well, so nothing in memory tells.
async fn version(conn: &mut Conn, tenant: &TenantId, days: Days) -> Done<u64> {
    let sql = "SELECT coalesce(sum((hashint8(s.value) # hashint8(s.observed_at_ms) # hashtext(s.meter)
                                    # hashint4(s.day))::bigint), 0)::bigint + count(*)
               FROM generate_series(
                   greatest($1, (SELECT min(day) FROM tidegate.snapshots)),
                   least($2, (SELECT max(day) FROM tidegate.snapshots))) AS asked(day)
               CROSS JOIN LATERAL (
                   SELECT day, meter, value, observed_at_ms FROM tidegate.snapshots
                   WHERE day = asked.day AND tenant = $3) AS s";
    let (first_day, last_day) = (days.first.number(), days.last.number());
    let params: Params<'_> = &[(&first_day, Type::INT4), (&last_day, Type::INT4), (&tenant.as_str(), Type::TEXT)];
    let number: Option<i64> = super::values::first(&conn.rows(sql, params).await?)?;
    Ok(number.unwrap_or(0) as u64)
}

/// All meters of the tenants after one through another.
pub(super) async fn of_tenants(conn: &mut Conn, after: &str, through: &str, days: Days) -> Done<Gathering> {
    let sql = "SELECT s.* FROM generate_series(
                   greatest($1, (SELECT min(day) FROM tidegate.snapshots)),
                   least($2, (SELECT max(day) FROM tidegate.snapshots))) AS asked(day)
               CROSS JOIN LATERAL (
                   SELECT day, tenant, meter, value, after_reset, observed_at_ms, source FROM tidegate.snapshots
                   WHERE day = asked.day AND tenant > $3 AND tenant <= $4) AS s
               ORDER BY s.day, s.tenant, s.meter";
    let (first, last) = (days.first.number(), days.last.number());
    let params: Params<'_> = &[(&first, Type::INT4), (&last, Type::INT4), (&after, Type::TEXT), (&through, Type::TEXT)];
    gather(&conn.rows(sql, params).await?)
}

/// A batch of rows after one, in order of day, tenant and meter.
pub(super) async fn after(conn: &mut Conn, after: Option<&Snapshot>, limit: usize) -> Done<Vec<Snapshot>> {
    let sql = "SELECT day, tenant, meter, value, after_reset, observed_at_ms, source FROM tidegate.snapshots
               WHERE (day, tenant, meter) > ($1, $2, $3) ORDER BY day, tenant, meter LIMIT $4";
    let day = after.map_or(i32::MIN, |row| row.taken.day.number());
    let (tenant, meter) = after.map_or(("", ""), |row| (row.tenant.as_str(), row.meter.as_str()));
    let params: Params<'_> =
        &[(&day, Type::INT4), (&tenant, Type::TEXT), (&meter, Type::TEXT), (&(limit as i64), Type::INT8)];
    let read = |row: &Row| {
        let (tenant, meter, taken) = read(row)?;
        Ok(Snapshot { tenant: TenantId::trusted(tenant), meter: MeterKey::trusted(meter), taken })
    };
    conn.rows(sql, params).await?.iter().map(read).collect()
}

/// Reads every row. (Their bytes are PostgreSQL's to check.) One that no release would write ends it.
pub(super) async fn check(conn: &mut Conn, report: &mut VerifyReport) -> Done<()> {
    let mut last: Option<Snapshot> = None;
    loop {
        let page = after(conn, last.as_ref(), BATCH_ROWS).await?;
        report.snapshots += page.len() as u64;
        if page.len() < BATCH_ROWS {
            return Ok(());
        }
        last = page.into_iter().next_back();
    }
}

/// Writes a run over the one of that day.
pub(super) async fn put_run(conn: &mut Conn, run: &SnapshotRun) -> Done<()> {
    let sql = "INSERT INTO tidegate.snapshot_runs (day, started_at_ms, ended_at_ms, tenants_done, tenants_failed)
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (day) DO UPDATE
               SET started_at_ms = excluded.started_at_ms, ended_at_ms = excluded.ended_at_ms,
                   tenants_done = excluded.tenants_done, tenants_failed = excluded.tenants_failed";
    let params: Params<'_> = &[
        (&run.day.number(), Type::INT4),
        (&run.started_at.ms(), Type::INT8),
        (&run.ended_at.ms(), Type::INT8),
        (&(run.tenants_done as i64), Type::INT8),
        (&(run.tenants_failed as i64), Type::INT8),
    ];
    conn.rows(sql, params).await.map(drop)
}

/// The days that were closed.
pub(super) async fn runs(conn: &mut Conn, days: Days) -> Done<Vec<SnapshotRun>> {
    let sql = "SELECT day, started_at_ms, ended_at_ms, tenants_done, tenants_failed FROM tidegate.snapshot_runs
               WHERE day BETWEEN $1 AND $2 ORDER BY day";
    let (first, last) = (days.first.number(), days.last.number());
    let read = |row: &Row| {
        Ok(SnapshotRun {
            day: Day::from_number(get(row, 0)?),
            started_at: Instant::from_ms(get(row, 1)?),
            ended_at: Instant::from_ms(get(row, 2)?),
            tenants_done: get::<i64>(row, 3)? as u64,
            tenants_failed: get::<i64>(row, 4)? as u64,
        })
    };
    conn.rows(sql, &[(&first, Type::INT4), (&last, Type::INT4)]).await?.iter().map(read).collect()
}

/// Drops rows and runs of days before one, in slices.
pub(super) async fn drop_before(conn: &mut Conn, day: Day) -> Done<()> {
    let sql = "WITH dropped AS (
                   DELETE FROM tidegate.snapshots WHERE ctid = ANY(ARRAY(
                       SELECT ctid FROM tidegate.snapshots WHERE day < $1 ORDER BY day LIMIT $2)) AND day < $1
                   RETURNING 1
               ) SELECT count(*) FROM dropped";
    loop {
        let rows = conn.rows(sql, &[(&day.number(), Type::INT4), (&SLICE, Type::INT8)]).await?;
        if super::values::first::<i64>(&rows)?.unwrap_or(0) < SLICE {
            break;
        }
    }
    let sql = "DELETE FROM tidegate.snapshot_runs WHERE day < $1";
    conn.rows(sql, &[(&day.number(), Type::INT4)]).await.map(drop)
}

impl Snapshots for PostgresLedger {
    fn put<'a>(&'a self, rows: Vec<Snapshot>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { put(&mut conn, &ordered(rows)).await })
    }

    fn of_tenant<'a>(
        &'a self,
        tenant: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<MeterSnapshots>, LedgerError>> {
        let tenant = tenant.clone();
        self.with(move |mut conn: Conn| async move { Ok(of_tenant(&mut conn, &tenant, days).await?.meters()) })
    }

    fn of_tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        through: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<TenantSnapshots>, LedgerError>> {
        let (after, through) = (after.map_or("", TenantId::as_str).to_owned(), through.clone());
        self.with(move |mut conn: Conn| async move {
            Ok(of_tenants(&mut conn, &after, through.as_str(), days).await?.tenants())
        })
    }

    fn version<'a>(&'a self, tenant: &'a TenantId, days: Days) -> BoxFuture<'a, Result<u64, LedgerError>> {
        let tenant = tenant.clone();
        self.with(move |mut conn: Conn| async move { version(&mut conn, &tenant, days).await })
    }

    fn put_run<'a>(&'a self, run: SnapshotRun) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { put_run(&mut conn, &run).await })
    }

    fn runs<'a>(&'a self, days: Days) -> BoxFuture<'a, Result<Vec<SnapshotRun>, LedgerError>> {
        self.with(move |mut conn: Conn| async move { runs(&mut conn, days).await })
    }

    fn drop_before<'a>(&'a self, day: Day) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { drop_before(&mut conn, day).await })
    }
}
