//! What was used when: rows of buckets, added to in the same transaction as the place that all of them are true for. Whoever
//! adds locks that place, so nothing is added twice, whoever folds.

use super::{
    errors::{Done, damaged_row},
    pool::Conn,
    values::{Params, first, get},
};
use crate::{
    codec::Malformed,
    rows::{HistoryRow, dimensions_text, grain, read_series},
    verify::VerifyReport,
};
use domain::{
    history::{Amounts, KeptFrom, Place, Resolution, Rows},
    id::{MeterKey, TenantId, UserId},
    time::Instant,
};
use engine::ports::{HistoryPage, HistoryQuery, HistoryState, Seq};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

/// Rows dropped in one transaction.
const DROP_ROWS: i64 = 2_000;

/// What history there is.
pub(super) async fn state(conn: &mut Conn) -> Done<HistoryState> {
    let sql = "SELECT through, at_ms, kept_from_ms FROM tidegate.history_state";
    let rows = conn.rows(sql, &[]).await?;
    rows.first().map_or_else(|| Err(no_state()), state_of)
}

fn no_state() -> super::errors::Failure {
    damaged_row("history", Malformed("its state is missing"))
}

fn state_of(row: &Row) -> Done<HistoryState> {
    let kept: Vec<i64> = get(row, 2)?;
    let mut from = KeptFrom::default();
    for (from, ms) in from.0.iter_mut().zip(kept) {
        *from = Instant::from_ms(ms);
    }
    Ok(HistoryState { through: get::<i64>(row, 0)? as Seq, at: Instant::from_ms(get(row, 1)?), kept: from })
}

/// The columns of rows.
#[derive(Default)]
struct Columns<'a> {
    grains: Vec<i16>,
    starts_ms: Vec<i64>,
    tenants: Vec<&'a str>,
    users: Vec<&'a str>,
    dimensions: Vec<String>,
    meters: Vec<&'a str>,
    used: Vec<i64>,
    denied: Vec<i64>,
    moved: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a Rows) -> Self {
        let mut columns = Self::default();
        for ((resolution, place), amounts) in rows {
            columns.grains.push(grain(*resolution, !place.series.is_whole()));
            columns.starts_ms.push(place.start.ms());
            columns.tenants.push(place.tenant.as_str());
            columns.users.push(place.series.user.as_ref().map_or("", UserId::as_str));
            columns.dimensions.push(dimensions_text(&place.series));
            columns.meters.push(place.meter.as_str());
            columns.used.push(amounts.used);
            columns.denied.push(amounts.denied);
            columns.moved.push(amounts.moved);
        }
        columns
    }

    /// The parameters of [`INSERT`].
    fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        vec![
            (&self.grains, Type::INT2_ARRAY),
            (&self.starts_ms, Type::INT8_ARRAY),
            (&self.tenants, Type::TEXT_ARRAY),
            (&self.users, Type::TEXT_ARRAY),
            (&self.dimensions, Type::TEXT_ARRAY),
            (&self.meters, Type::TEXT_ARRAY),
            (&self.used, Type::INT8_ARRAY),
            (&self.denied, Type::INT8_ARRAY),
            (&self.moved, Type::INT8_ARRAY),
        ]
    }
}

/// Inserts rows, whose columns are the first parameters.
const INSERT: &str = "INSERT INTO tidegate.history AS h
        (grain, start_ms, tenant, user_id, dimensions, meter, used, denied, moved)
    SELECT r.* FROM unnest($1::smallint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
        $8::bigint[], $9::bigint[]) AS r";

/// Writes rows of which there are none yet.
pub(super) async fn put(conn: &mut Conn, rows: &Rows) -> Done<()> {
    conn.rows(INSERT, &Columns::of(rows).params()).await.map(drop)
}

/// Says what history there is.
pub(super) async fn set_state(conn: &mut Conn, state: &HistoryState) -> Done<()> {
    let through = i64::try_from(state.through).unwrap_or(i64::MAX);
    let kept: Vec<i64> = state.kept.0.iter().map(|from| from.ms()).collect();
    let sql = "UPDATE tidegate.history_state SET through = $1, at_ms = $2, kept_from_ms = $3";
    let params: Params<'_> = &[(&through, Type::INT8), (&state.at.ms(), Type::INT8), (&kept, Type::INT8_ARRAY)];
    conn.rows(sql, params).await.map(drop)
}

/// Rows of all tenants in order, after one.
pub(super) async fn after(conn: &mut Conn, after: Option<&HistoryRow>, limit: usize) -> Done<Vec<HistoryRow>> {
    let sql = "SELECT grain, start_ms, tenant, user_id, dimensions, meter, used, denied, moved FROM tidegate.history
               WHERE (grain, start_ms, tenant, user_id, dimensions, meter) > ($1, $2, $3, $4, $5, $6)
               ORDER BY grain, start_ms, tenant, user_id, dimensions, meter LIMIT $7";
    let first = HistoryRow { grain: -1, ..HistoryRow::default() };
    let HistoryRow { grain, start_ms, tenant, user, dimensions, meter, .. } = after.unwrap_or(&first);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let params: Params<'_> = &[
        (grain, Type::INT2),
        (start_ms, Type::INT8),
        (&&**tenant, Type::TEXT),
        (&&**user, Type::TEXT),
        (&&**dimensions, Type::TEXT),
        (&&**meter, Type::TEXT),
        (&limit, Type::INT8),
    ];
    let read = |row: &Row| {
        Ok(HistoryRow {
            grain: get(row, 0)?,
            start_ms: get(row, 1)?,
            tenant: get::<&str>(row, 2)?.into(),
            user: get::<&str>(row, 3)?.into(),
            dimensions: get::<&str>(row, 4)?.into(),
            meter: get::<&str>(row, 5)?.into(),
            amounts: Amounts { used: get(row, 6)?, denied: get(row, 7)?, moved: get(row, 8)? },
        })
    };
    conn.rows(sql, params).await?.iter().map(read).collect()
}

/// What is kept in longer buckets must be the sum of what is kept in shorter ones.
pub(super) async fn check(conn: &mut Conn, report: &mut VerifyReport) -> Done<()> {
    let count: Option<i64> = first(&conn.rows("SELECT count(*) FROM tidegate.history", &[]).await?)?;
    report.history += count.unwrap_or(0) as u64;
    // Unmet demand may have stopped at the end of its integer.
    let sums = "SELECT start_ms - start_ms % $3, tenant, user_id, dimensions, meter, sum(used), sum(moved)
                FROM tidegate.history WHERE grain = $1 AND start_ms >= $4 GROUP BY 1, 2, 3, 4, 5";
    let known = "SELECT start_ms, tenant, user_id, dimensions, meter, used::numeric, moved::numeric
                 FROM tidegate.history WHERE grain = $2 AND start_ms >= $4";
    let sql = format!("(({sums}) EXCEPT ({known})) UNION ALL (({known}) EXCEPT ({sums})) LIMIT 10");
    let kept = state(conn).await?.kept;
    for pair in Resolution::ALL.windows(2) {
        let &[finer, coarser] = pair else { continue };
        // Settings of before may have kept the coarser ones for less.
        let from_ms = kept.both_from(finer, coarser).ms();
        for is_part in [false, true] {
            let params: Params<'_> = &[
                (&grain(finer, is_part), Type::INT2),
                (&grain(coarser, is_part), Type::INT2),
                (&coarser.length_ms(), Type::INT8),
                (&from_ms, Type::INT8),
            ];
            for row in &conn.rows(&sql, params).await? {
                report.differs(format_args!(
                    "history of {:?} from {} on is not the sum of its parts",
                    get::<&str>(row, 1)?,
                    Instant::from_ms(get(row, 0)?).rfc3339()
                ));
            }
        }
    }
    Ok(())
}

/// Adds rows, if they go on from where the others end.
pub(super) async fn add(conn: &mut Conn, from: Seq, through: Seq, at: Instant, rows: &Rows) -> Done<bool> {
    if through < from {
        return Ok(false);
    }
    // Sums stop at the ends of their integers: unmet demand may be anything.
    let sum = |column: &str| {
        format!(
            "{column} = greatest(least(h.{column}::numeric + excluded.{column}, 9223372036854775807), \
             -9223372036854775808)::bigint"
        )
    };
    let sql = format!(
        "WITH moved AS (
             UPDATE tidegate.history_state SET through = $10, at_ms = greatest(at_ms, $11) WHERE through = $12 RETURNING 1
         ), added AS (
             {INSERT} WHERE EXISTS (SELECT 1 FROM moved)
             ON CONFLICT (grain, start_ms, tenant, user_id, dimensions, meter) DO UPDATE SET {}, {}, {}
         ) SELECT count(*) FROM moved",
        sum("used"),
        sum("denied"),
        sum("moved")
    );
    let columns = Columns::of(rows);
    let (from, through) = (i64::try_from(from).unwrap_or(i64::MAX), i64::try_from(through).unwrap_or(i64::MAX));
    let mut params = columns.params();
    let at_ms = at.ms();
    params.extend([
        (&through as &(dyn ToSql + Sync), Type::INT8),
        (&at_ms as &(dyn ToSql + Sync), Type::INT8),
        (&from as &(dyn ToSql + Sync), Type::INT8),
    ]);
    Ok(first::<i64>(&conn.rows(&sql, &params).await?)? == Some(1))
}

/// State and rows as of one instant: the state is in the first columns of every row, of which there is at least one.
async fn read(conn: &mut Conn, of_rows: &str, order: &str, params: Params<'_>) -> Done<HistoryPage> {
    let sql = format!(
        "SELECT s.through, s.at_ms, s.kept_from_ms,
                h.start_ms, h.tenant, h.user_id, h.dimensions, h.meter, h.used, h.denied, h.moved
         FROM tidegate.history_state s LEFT JOIN LATERAL ({of_rows}) AS h ON true ORDER BY {order}"
    );
    let rows = conn.rows(&sql, params).await?;
    let state = rows.first().map_or_else(|| Err(no_state()), state_of)?;
    let mut page = HistoryPage { state, rows: Vec::with_capacity(rows.len()) };
    for row in &rows {
        if let Some(start_ms) = get::<Option<i64>>(row, 3)? {
            page.rows.push(row_of(start_ms, row)?);
        }
    }
    Ok(page)
}

fn row_of(start_ms: i64, row: &Row) -> Done<(Place, Amounts)> {
    let series = read_series(get(row, 5)?, get(row, 6)?).map_err(|why| damaged_row("history", why))?;
    let place = Place {
        start: Instant::from_ms(start_ms),
        tenant: TenantId::trusted(get(row, 4)?),
        series,
        meter: MeterKey::trusted(get(row, 7)?),
    };
    Ok((place, Amounts { used: get(row, 8)?, denied: get(row, 9)?, moved: get(row, 10)? }))
}

/// Rows of a tenant. Its buckets are looked up one by one.
pub(super) async fn page(conn: &mut Conn, query: &HistoryQuery) -> Done<HistoryPage> {
    let first = query.resolution.start_of(query.window.start).ms();
    let after = query.after.as_ref();
    // Before every row.
    let first_ms = after.map_or(first, |after| after.start.ms().max(first));
    let after_ms = after.map_or(first - 1, |after| after.start.ms());
    let after_user = after.and_then(|after| after.series.user.as_ref()).map_or("", UserId::as_str);
    let after_dimensions = after.map(|after| dimensions_text(&after.series)).unwrap_or_default();
    let after_meter = after.map_or("", |after| after.meter.as_str());
    let user = query.user.as_ref().map(UserId::as_str);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let of_rows = "SELECT h.* FROM generate_series($3::bigint, $4::bigint - 1, $5::bigint) AS bucket(start_ms)
         CROSS JOIN LATERAL (
             SELECT * FROM tidegate.history h
             WHERE h.grain = $1 AND h.start_ms = bucket.start_ms AND h.tenant = $2
               AND ($6::text IS NULL OR h.user_id = $6)
               AND (h.start_ms, h.user_id, h.dimensions, h.meter) > ($7, $8, $9, $10)
         ) AS h ORDER BY h.start_ms, h.user_id, h.dimensions, h.meter LIMIT $11";
    let params: Params<'_> = &[
        (&grain(query.resolution, query.parts), Type::INT2),
        (&query.tenant.as_str(), Type::TEXT),
        (&first_ms, Type::INT8),
        (&query.window.end.ms(), Type::INT8),
        (&query.resolution.length_ms(), Type::INT8),
        (&user, Type::TEXT),
        (&after_ms, Type::INT8),
        (&after_user, Type::TEXT),
        (&after_dimensions, Type::TEXT),
        (&after_meter, Type::TEXT),
        (&limit, Type::INT8),
    ];
    read(conn, of_rows, "h.start_ms, h.user_id, h.dimensions, h.meter", params).await
}

/// Rows of whole tenants, of one bucket.
pub(super) async fn bucket(
    conn: &mut Conn,
    resolution: Resolution,
    start: Instant,
    after: Option<&Place>,
    limit: usize,
) -> Done<HistoryPage> {
    let tenant = after.map_or("", |after| after.tenant.as_str());
    let meter = after.map_or("", |after| after.meter.as_str());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let of_rows = "SELECT * FROM tidegate.history h
         WHERE h.grain = $1 AND h.start_ms = $2 AND h.tenant >= $3 AND (h.tenant, h.meter) > ($3, $4)
         ORDER BY h.tenant, h.meter LIMIT $5";
    let params: Params<'_> = &[
        (&grain(resolution, false), Type::INT2),
        (&start.ms(), Type::INT8),
        (&tenant, Type::TEXT),
        (&meter, Type::TEXT),
        (&limit, Type::INT8),
    ];
    read(conn, of_rows, "h.tenant, h.meter", params).await
}

/// Drops buckets that are not kept any more.
pub(super) async fn drop_before(conn: &mut Conn, kept: KeptFrom) -> Done<()> {
    let from_ms: Vec<i64> = kept.0.iter().map(|from| from.ms()).collect();
    // Said before anything is dropped.
    let sql = "UPDATE tidegate.history_state SET kept_from_ms = ARRAY(
                   SELECT greatest(k.known, k.new) FROM unnest(kept_from_ms, $1::bigint[]) WITH ORDINALITY AS k(known, new, place)
                   ORDER BY k.place)
               RETURNING kept_from_ms";
    let rows = conn.rows(sql, &[(&from_ms, Type::INT8_ARRAY)]).await?;
    let from_ms: Vec<i64> = first(&rows)?.unwrap_or_default();
    let sql = "WITH dropped AS (
                   DELETE FROM tidegate.history WHERE ctid = ANY(ARRAY(
                       SELECT ctid FROM tidegate.history WHERE grain = $1 AND start_ms <= $2 LIMIT $3)) RETURNING 1
               ) SELECT count(*) FROM dropped";
    for (resolution, from_ms) in Resolution::ALL.into_iter().zip(from_ms) {
        let through_ms = from_ms - resolution.length_ms();
        for is_part in [false, true] {
            let params: Params<'_> =
                &[(&grain(resolution, is_part), Type::INT2), (&through_ms, Type::INT8), (&DROP_ROWS, Type::INT8)];
            while first::<i64>(&conn.rows(sql, params).await?)?.unwrap_or(0) >= DROP_ROWS {}
        }
    }
    Ok(())
}
