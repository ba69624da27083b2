//! What was used when: rows of buckets, added to in the same transaction as the position they are true for.
//!
//! The resolution and the bucket come first in the key: what is written now lies together, what is dropped does, and a
//! tenant's buckets are looked up one by one.

use super::{
    errors::{OrDamaged, damaged_row},
    queue::Work,
    recover::CUT_THROUGH,
    schema,
};
use crate::{
    codec,
    rows::{HistoryRow, dimensions_text, grain, read_series},
    verify::VerifyReport,
};
use domain::{
    history::{Amounts, KeptFrom, Place, Resolution, Rows, Series, starts},
    id::{MeterKey, TenantId, UserId},
    time::Instant,
};
use engine::ports::{HistoryPage, HistoryQuery, HistoryState, LedgerError, Seq};
use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, TransactionBehavior, params, params_from_iter, types::Value,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant as Moment,
};

/// The table.
pub(super) const TABLE: &str = "
CREATE TABLE history(
    grain INTEGER NOT NULL, start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, user TEXT NOT NULL,
    dimensions TEXT NOT NULL, meter TEXT NOT NULL, used INTEGER NOT NULL, denied INTEGER NOT NULL,
    moved INTEGER NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY(grain, start_ms, tenant, user, dimensions, meter)) WITHOUT ROWID;
";

/// Makes the table in a file of before. Where the journal was cut by then, nothing is known of what was cut: history is kept from the
/// first bucket that is whole.
pub(super) fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TABLE)?;
    if schema::number(conn, CUT_THROUGH)? == 0 {
        return Ok(());
    }
    let first = "SELECT coalesce((SELECT at_ms FROM journal ORDER BY seq LIMIT 1), strftime('%s', 'now') * 1000)";
    let first = Instant::from_ms(conn.query_row(first, [], |row| row.get(0))?);
    for (resolution, key) in Resolution::ALL.into_iter().zip(KEPT_FROM_MS) {
        let from = resolution.start_of(first).plus_ms(resolution.length_ms());
        schema::set_number(conn, key, from.ms())?;
    }
    Ok(())
}

/// Entries through this position are in the table, in `meta`.
pub(super) const BUCKETS_THROUGH: &str = "buckets_through";
/// The latest instant of those, in `meta`.
const BUCKETS_AT_MS: &str = "buckets_at_ms";
/// What ended before these instants may be dropped, in `meta`.
const KEPT_FROM_MS: [&str; Resolution::ALL.len()] =
    ["minutes_kept_from_ms", "quarters_kept_from_ms", "days_kept_from_ms"];

/// Rows dropped before the time is looked at.
const DROP_ROWS: i64 = 200;

/// What history there is.
pub(super) fn state(conn: &Connection) -> rusqlite::Result<HistoryState> {
    let mut kept = KeptFrom::default();
    for (from, key) in kept.0.iter_mut().zip(KEPT_FROM_MS) {
        *from = Instant::from_ms(schema::number(conn, key)?);
    }
    let at = Instant::from_ms(schema::number(conn, BUCKETS_AT_MS)?);
    Ok(HistoryState { through: schema::number(conn, BUCKETS_THROUGH)? as Seq, at, kept })
}

/// Says what history there is.
pub(super) fn set_state(conn: &Connection, state: &HistoryState) -> rusqlite::Result<()> {
    schema::set_number(conn, BUCKETS_THROUGH, state.through as i64)?;
    schema::set_number(conn, BUCKETS_AT_MS, state.at.ms())?;
    for (from, key) in state.kept.0.iter().zip(KEPT_FROM_MS) {
        schema::set_number(conn, key, from.ms())?;
    }
    Ok(())
}

/// Adds rows, if they go on from where the others end.
pub(super) struct AddRows {
    pub(super) from: Seq,
    pub(super) through: Seq,
    pub(super) at: Instant,
    pub(super) rows: Rows,
    pub(super) is_added: Arc<AtomicBool>,
}

impl AddRows {
    fn write(&self, conn: &mut Connection) -> Result<bool, LedgerError> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).or_unwritable()?;
        let known = state(&transaction).or_damaged()?;
        if known.through != self.from || self.through < self.from {
            return Ok(false);
        }
        for ((resolution, place), amounts) in &self.rows {
            add(&transaction, *resolution, place, amounts).or_unwritable()?;
        }
        let state = HistoryState { through: self.through, at: known.at.max(self.at), ..known };
        set_state(&transaction, &state).or_unwritable()?;
        transaction.commit().or_unwritable()?;
        Ok(true)
    }
}

impl Work for AddRows {
    /// All of it at once, whenever the slice should end: rows and the position that they are true for are one transaction, or
    /// a crash would count some twice. Whoever folds keeps it to about a thousand rows.
    fn slice(&mut self, conn: &mut Connection, _until: Moment) -> Result<bool, LedgerError> {
        let is_added = self.write(conn)?;
        self.is_added.store(is_added, Ordering::Release);
        Ok(true)
    }
}

/// A row's place, as columns.
struct Columns<'a> {
    grain: i64,
    start_ms: i64,
    tenant: &'a str,
    user: &'a str,
    dimensions: String,
    meter: &'a str,
}

impl<'a> Columns<'a> {
    fn of(resolution: Resolution, place: &'a Place) -> Self {
        Self {
            grain: grain(resolution, !place.series.is_whole()).into(),
            start_ms: place.start.ms(),
            tenant: place.tenant.as_str(),
            user: place.series.user.as_ref().map_or("", UserId::as_str),
            dimensions: dimensions_text(&place.series),
            meter: place.meter.as_str(),
        }
    }

    /// Detects damage to the row with these amounts.
    fn checksum(&self, amounts: &Amounts) -> [u8; codec::CHECKSUM_BYTES] {
        let names = [self.tenant, self.user, &self.dimensions, self.meter];
        let numbers = [self.grain, self.start_ms, amounts.used, amounts.denied, amounts.moved];
        codec::checksum(&names, &numbers, &[])
    }
}

/// Adds to a row.
pub(super) fn add(conn: &Connection, resolution: Resolution, place: &Place, amounts: &Amounts) -> rusqlite::Result<()> {
    let columns = Columns::of(resolution, place);
    let Columns { grain, start_ms, tenant, user, dimensions, meter } = &columns;
    let known = conn
        .prepare_cached(
            "SELECT used, denied, moved FROM history
             WHERE grain = ?1 AND start_ms = ?2 AND tenant = ?3 AND user = ?4 AND dimensions = ?5 AND meter = ?6",
        )?
        .query_row(params![grain, start_ms, tenant, user, dimensions, meter], |row| amounts_of(row, 0))
        .optional()?;
    let mut sum = known.unwrap_or_default();
    sum.add(amounts);
    let checksum = columns.checksum(&sum);
    conn.prepare_cached(
        "INSERT INTO history(grain, start_ms, tenant, user, dimensions, meter, used, denied, moved, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT(grain, start_ms, tenant, user, dimensions, meter) DO UPDATE
         SET used = excluded.used, denied = excluded.denied, moved = excluded.moved, checksum = excluded.checksum",
    )?
    .execute(params![grain, start_ms, tenant, user, dimensions, meter, sum.used, sum.denied, sum.moved, checksum])
    .map(|_| ())
}

fn amounts_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Amounts> {
    Ok(Amounts { used: row.get(first)?, denied: row.get(first + 1)?, moved: row.get(first + 2)? })
}

const COLUMNS: &str = "start_ms, tenant, user, dimensions, meter, used, denied, moved, checksum";

/// Reads and checks a row of [`COLUMNS`].
fn read(resolution: Resolution, row: &Row<'_>) -> Result<(Place, Amounts), LedgerError> {
    let text = |index: usize| row.get_ref(index).or_damaged()?.as_str().map_err(|_| damaged("a name is no text"));
    let (tenant, user, dimensions, meter) = (text(1)?, text(2)?, text(3)?, text(4)?);
    let amounts = amounts_of(row, 5).or_damaged()?;
    let series: Series = read_series(user, dimensions).map_err(|why| damaged(why.0))?;
    let place = Place {
        start: Instant::from_ms(row.get(0).or_damaged()?),
        tenant: TenantId::trusted(tenant),
        series,
        meter: MeterKey::trusted(meter),
    };
    let sum: Vec<u8> = row.get(8).or_damaged()?;
    if sum != Columns::of(resolution, &place).checksum(&amounts) {
        return Err(damaged("the checksum does not match"));
    }
    Ok((place, amounts))
}

fn damaged(why: &str) -> LedgerError {
    damaged_row("history", why)
}

/// Rows of a tenant, and what they are complete through, as of one instant.
pub(super) fn page(conn: &Connection, query: &HistoryQuery) -> Result<HistoryPage, LedgerError> {
    let snapshot = conn.unchecked_transaction().or_damaged()?;
    let mut page = HistoryPage { state: state(&snapshot).or_damaged()?, rows: Vec::new() };
    let user = query.user.as_ref().map(UserId::as_str);
    let sql = format!(
        "SELECT {COLUMNS} FROM history WHERE grain = ?1 AND start_ms = ?2 AND tenant = ?3 AND (user, dimensions, meter) > (?4, ?5, ?6)
         {} ORDER BY user, dimensions, meter LIMIT ?7",
        if user.is_some() { "AND user = ?8" } else { "" }
    );
    let mut statement = snapshot.prepare_cached(&sql).or_damaged()?;
    let grain = i64::from(grain(query.resolution, query.parts));
    for start in starts(query.resolution, query.window) {
        let after = match &query.after {
            Some(after) if start < after.start => continue,
            after => after.as_ref().filter(|after| after.start == start),
        };
        let after_user = after.and_then(|after| after.series.user.as_ref()).map_or("", UserId::as_str);
        let after_dimensions = after.map(|after| dimensions_text(&after.series)).unwrap_or_default();
        let after_meter = after.map_or("", |after| after.meter.as_str());
        let room = i64::try_from(query.limit - page.rows.len()).unwrap_or(i64::MAX);
        let (start_ms, tenant) = (start.ms(), query.tenant.as_str());
        let mut values: Vec<&dyn ToSql> =
            vec![&grain, &start_ms, &tenant, &after_user, &after_dimensions, &after_meter, &room];
        values.extend(user.as_ref().map(|user| user as &dyn ToSql));
        let mut rows = statement.query(&values[..]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            page.rows.push(read(query.resolution, row)?);
        }
        if page.rows.len() >= query.limit {
            break;
        }
    }
    Ok(page)
}

/// Rows of whole tenants, of one bucket.
pub(super) fn bucket(
    conn: &Connection,
    resolution: Resolution,
    start: Instant,
    after: Option<&Place>,
    limit: usize,
) -> Result<HistoryPage, LedgerError> {
    let snapshot = conn.unchecked_transaction().or_damaged()?;
    let mut page = HistoryPage { state: state(&snapshot).or_damaged()?, rows: Vec::new() };
    let sql = format!(
        "SELECT {COLUMNS} FROM history WHERE grain = ?1 AND start_ms = ?2 AND (tenant, meter) > (?3, ?4)
         ORDER BY tenant, meter LIMIT ?5"
    );
    let mut statement = snapshot.prepare_cached(&sql).or_damaged()?;
    let tenant = after.map_or("", |after| after.tenant.as_str());
    let meter = after.map_or("", |after| after.meter.as_str());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = params![grain(resolution, false), start.ms(), tenant, meter, limit];
    let mut rows = statement.query(values).or_damaged()?;
    while let Some(row) = rows.next().or_damaged()? {
        page.rows.push(read(resolution, row)?);
    }
    Ok(page)
}

/// Drops buckets that are not kept any more.
pub(super) struct DropRows(pub(super) KeptFrom);

impl DropRows {
    /// Drops some, in a transaction of its own; true if there may be more.
    fn step(&self, conn: &mut Connection) -> rusqlite::Result<bool> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = state(&transaction)?;
        let mut kept = known.kept;
        let mut dropped = 0;
        for resolution in Resolution::ALL {
            let from = &mut kept.0[resolution as usize];
            *from = self.0.of(resolution).max(*from);
            // The last bucket that ended by then.
            let through_ms = from.ms() - resolution.length_ms();
            for is_part in [false, true] {
                dropped += drop_some(&transaction, grain(resolution, is_part).into(), through_ms)?;
            }
        }
        if dropped > 0 || kept != known.kept {
            set_state(&transaction, &HistoryState { kept, ..known })?;
            transaction.commit()?;
        }
        Ok(dropped > 0)
    }
}

/// Drops the first rows of a grain that begin by then; how many. Through the place of the last of them: so that they are found by the
/// index alone, however many rows begin at once.
fn drop_some(conn: &Connection, grain: i64, through_ms: i64) -> rusqlite::Result<usize> {
    let last = conn
        .prepare_cached(
            "SELECT start_ms, tenant, user, dimensions, meter FROM history WHERE grain = ?1 AND start_ms <= ?2
             ORDER BY start_ms, tenant, user, dimensions, meter LIMIT 1 OFFSET ?3",
        )?
        .query_row(params![grain, through_ms, DROP_ROWS - 1], |row| {
            (0..5).map(|column| row.get::<_, Value>(column)).collect::<rusqlite::Result<Vec<Value>>>()
        })
        .optional()?;
    let Some(last) = last else {
        let mut rest = conn.prepare_cached("DELETE FROM history WHERE grain = ?1 AND start_ms <= ?2")?;
        return rest.execute(params![grain, through_ms]);
    };
    let place = std::iter::once(Value::Integer(grain)).chain(last);
    conn.prepare_cached(
        "DELETE FROM history
         WHERE grain = ?1 AND (start_ms, tenant, user, dimensions, meter) <= (?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params_from_iter(place))
}

impl Work for DropRows {
    fn slice(&mut self, conn: &mut Connection, until: Moment) -> Result<bool, LedgerError> {
        while self.step(conn).or_unwritable()? {
            if Moment::now() >= until {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Every row must be what was written, and what is kept in longer buckets the sum of what is kept in shorter ones.
pub(super) fn check(conn: &Connection, report: &mut VerifyReport) -> Result<(), LedgerError> {
    let sql = format!("SELECT {COLUMNS}, grain FROM history");
    let mut statement = conn.prepare(&sql).or_damaged()?;
    let mut rows = statement.query([]).or_damaged()?;
    while let Some(row) = rows.next().or_damaged()? {
        report.history += 1;
        let grain: i64 = row.get(9).or_damaged()?;
        let place = usize::try_from(grain / 2).ok();
        let resolution = place.and_then(|place| Resolution::ALL.get(place).copied());
        let read = resolution.map_or_else(|| Err(damaged("an unknown resolution")), |found| read(found, row));
        match read {
            Ok(_) => {}
            Err(LedgerError::Damaged(why)) => report.differs(why),
            Err(other) => return Err(other),
        }
    }
    let kept = state(conn).or_damaged()?.kept;
    for pair in Resolution::ALL.windows(2) {
        let &[finer, coarser] = pair else { continue };
        // Settings of before may have kept the coarser ones for less.
        let from_ms = kept.both_from(finer, coarser).ms();
        for is_part in [false, true] {
            check_sums(conn, (finer, coarser), is_part, from_ms, report)?;
        }
    }
    Ok(())
}

fn check_sums(
    conn: &Connection,
    (finer, coarser): (Resolution, Resolution),
    is_part: bool,
    from_ms: i64,
    report: &mut VerifyReport,
) -> Result<(), LedgerError> {
    // Unmet demand may have stopped at the end of its integer.
    let sums = "SELECT start_ms - start_ms % ?3, tenant, user, dimensions, meter, sum(used), sum(moved) FROM history
                WHERE grain = ?1 AND start_ms >= ?4 GROUP BY 1, 2, 3, 4, 5";
    let known = "SELECT start_ms, tenant, user, dimensions, meter, used, moved FROM history
                 WHERE grain = ?2 AND start_ms >= ?4";
    let sql = format!("SELECT * FROM ({sums} EXCEPT {known}) UNION ALL SELECT * FROM ({known} EXCEPT {sums}) LIMIT 10");
    let mut statement = conn.prepare(&sql).or_damaged()?;
    let grains = (grain(finer, is_part), grain(coarser, is_part));
    let mut rows = statement.query(params![grains.0, grains.1, coarser.length_ms(), from_ms]).or_damaged()?;
    while let Some(row) = rows.next().or_damaged()? {
        let (start_ms, tenant): (i64, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
        report.differs(format!(
            "history of {tenant:?} from {} on is not the sum of its parts",
            Instant::from_ms(start_ms).rfc3339()
        ));
    }
    Ok(())
}

/// Rows of all tenants in order, after one.
pub(super) fn after(
    conn: &Connection,
    after: Option<&HistoryRow>,
    limit: usize,
) -> Result<Vec<HistoryRow>, LedgerError> {
    let sql = "SELECT grain, start_ms, tenant, user, dimensions, meter, used, denied, moved FROM history
               WHERE (grain, start_ms, tenant, user, dimensions, meter) > (?1, ?2, ?3, ?4, ?5, ?6)
               ORDER BY grain, start_ms, tenant, user, dimensions, meter LIMIT ?7";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let first = HistoryRow { grain: -1, ..HistoryRow::default() };
    let HistoryRow { grain, start_ms, tenant, user, dimensions, meter, .. } = after.unwrap_or(&first);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let parameters = params![grain, start_ms, tenant, user, dimensions, meter, limit];
    let read = |row: &Row<'_>| {
        Ok(HistoryRow {
            grain: row.get(0)?,
            start_ms: row.get(1)?,
            tenant: row.get::<_, String>(2)?.into(),
            user: row.get::<_, String>(3)?.into(),
            dimensions: row.get::<_, String>(4)?.into(),
            meter: row.get::<_, String>(5)?.into(),
            amounts: amounts_of(row, 6)?,
        })
    };
    let rows = statement.query_map(parameters, read).or_damaged()?;
    rows.map(OrDamaged::or_damaged).collect()
}

/// Writes a row as it is.
pub(super) fn put(conn: &Connection, row: &HistoryRow) -> Result<(), LedgerError> {
    let (resolution, place) = row.place().map_err(|why| damaged(why.0))?;
    add(conn, resolution, &place, &row.amounts).or_unwritable()
}
