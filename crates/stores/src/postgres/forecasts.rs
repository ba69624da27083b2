//! Forecasts that are kept.

use super::{
    errors::{Done, damaged_row},
    ledger::PostgresLedger,
    pool::Conn,
    values::{Params, first, get},
};
use crate::codec::Malformed;
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{
    BoxFuture, FleetQuery, ForecastDates, ForecastScore, Forecasts, KeptForecast, KeptMeasure, LatestForecast,
    LedgerError, MeterGrowth, SCORE_COUNTS, SettledForecast,
};
use std::collections::BTreeMap;
use tokio_postgres::{Row, types::Type};

/// Rows of one statement.
const BATCH_ROWS: usize = 5_000;
/// Rows dropped in one transaction.
const SLICE: i64 = 5_000;
const SETTINGS: &str = "SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// A column of rows.
fn column<'a, T, V>(rows: &'a [T], of: impl Fn(&'a T) -> V) -> Vec<V> {
    rows.iter().map(of).collect()
}

fn day_column<T>(rows: &[T], of: impl Fn(&T) -> Option<Day>) -> Vec<Option<i32>> {
    column(rows, |row| of(row).map(Day::number))
}

fn dates(row: &Row, first: usize) -> Done<ForecastDates> {
    let day = |index| -> Done<Option<Day>> { Ok(get::<Option<i32>>(row, index)?.map(Day::from_number)) };
    Ok(ForecastDates { earliest: day(first)?, likely: day(first + 1)?, latest: day(first + 2)? })
}

async fn put_latest(conn: &mut Conn, rows: &[LatestForecast]) -> Done<()> {
    let sql =
        "INSERT INTO tidegate.forecasts (tenant, meter, plan, limit_name, status, used, max, earliest, likely, latest,
                                               growth, made_at_ms, place)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                                    $7::bigint[], $8::integer[], $9::integer[], $10::integer[], $11::bigint[],
                                    $12::bigint[], $13::integer[])
               ON CONFLICT (tenant, meter) DO UPDATE
               SET plan = excluded.plan, limit_name = excluded.limit_name, status = excluded.status,
                   used = excluded.used, max = excluded.max, earliest = excluded.earliest, likely = excluded.likely,
                   latest = excluded.latest, growth = excluded.growth, made_at_ms = excluded.made_at_ms,
                   place = excluded.place";
    for batch in rows.chunks(BATCH_ROWS) {
        let columns: Params<'_> = &[
            (&column(batch, |row| row.tenant.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| row.meter.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| row.plan.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| row.limit.as_deref()), Type::TEXT_ARRAY),
            (&column(batch, |row| &*row.status), Type::TEXT_ARRAY),
            (&column(batch, |row| row.used), Type::INT8_ARRAY),
            (&column(batch, |row| row.max), Type::INT8_ARRAY),
            (&day_column(batch, |row| row.dates.earliest), Type::INT4_ARRAY),
            (&day_column(batch, |row| row.dates.likely), Type::INT4_ARRAY),
            (&day_column(batch, |row| row.dates.latest), Type::INT4_ARRAY),
            (&column(batch, |row| row.growth_per_day_thousandths), Type::INT8_ARRAY),
            (&column(batch, |row| row.made_at.ms()), Type::INT8_ARRAY),
            (&column(batch, |row| row.place().day), Type::INT4_ARRAY),
        ];
        conn.rows(sql, columns).await?;
    }
    Ok(())
}

fn latest(row: &Row) -> Done<LatestForecast> {
    Ok(LatestForecast {
        tenant: TenantId::trusted(get(row, 0)?),
        meter: MeterKey::trusted(get(row, 1)?),
        plan: PlanKey::trusted(get(row, 2)?),
        limit: get::<Option<&str>>(row, 3)?.map(Into::into),
        status: get::<&str>(row, 4)?.into(),
        used: get(row, 5)?,
        max: get(row, 6)?,
        dates: dates(row, 7)?,
        growth_per_day_thousandths: get(row, 10)?,
        made_at: Instant::from_ms(get(row, 11)?),
    })
}

/// A page of the fleet. Rows are in groups of one meter, plan and status, which the index keeps in order of their places:
/// those that are asked for are found by going from each to the next, and each gives a page at most.
const FLEET: &str = "
WITH RECURSIVE groups(meter, plan, status) AS (
    (SELECT meter, plan, status FROM tidegate.forecasts WHERE meter >= coalesce($4::text, '')
     ORDER BY meter, plan, status LIMIT 1)
    UNION ALL
    SELECT next.* FROM groups CROSS JOIN LATERAL (
        SELECT row.meter, row.plan, row.status FROM tidegate.forecasts row
        WHERE (row.meter, row.plan, row.status) > (groups.meter, groups.plan, groups.status)
        ORDER BY row.meter, row.plan, row.status LIMIT 1) next
    WHERE $4::text IS NULL OR next.meter = $4
)
SELECT found.* FROM groups CROSS JOIN LATERAL (
    SELECT tenant, row.meter, row.plan, limit_name, row.status, used, max, earliest, likely, latest, growth, made_at_ms,
           place
    FROM tidegate.forecasts row
    WHERE row.meter = groups.meter AND row.plan = groups.plan AND row.status = groups.status
    AND (place, tenant) >= ($1, $2) AND (place, tenant, row.meter) > ($1, $2, $3)
    ORDER BY place, tenant LIMIT $7) found
WHERE ($4::text IS NULL OR groups.meter = $4) AND ($5::text IS NULL OR groups.plan = $5)
AND ($6::text IS NULL OR groups.status = $6)
ORDER BY found.place, found.tenant, found.meter LIMIT $7";

async fn fleet(conn: &mut Conn, query: &FleetQuery) -> Done<Vec<LatestForecast>> {
    let after = query.after.as_ref();
    let params: Params<'_> = &[
        (&after.map_or(i32::MIN, |after| after.day), Type::INT4),
        (&after.map_or("", |after| after.tenant.as_str()), Type::TEXT),
        (&after.map_or("", |after| after.meter.as_str()), Type::TEXT),
        (&query.meter.as_ref().map(MeterKey::as_str), Type::TEXT),
        (&query.plan.as_ref().map(PlanKey::as_str), Type::TEXT),
        (&query.status.as_deref(), Type::TEXT),
        (&(query.limit as i64), Type::INT8),
    ];
    conn.rows(FLEET, params).await?.iter().map(latest).collect()
}

async fn last(conn: &mut Conn) -> Done<Option<LatestForecast>> {
    let sql = "SELECT tenant, meter, plan, limit_name, status, used, max, earliest, likely, latest, growth, made_at_ms
               FROM tidegate.forecasts ORDER BY tenant DESC, meter DESC LIMIT 1";
    conn.rows(sql, &[]).await?.first().map(latest).transpose()
}

async fn drop_latest_before(conn: &mut Conn, made_at: Instant) -> Done<()> {
    let sql = "WITH dropped AS (
                   DELETE FROM tidegate.forecasts WHERE ctid = ANY(ARRAY(
                       SELECT ctid FROM tidegate.forecasts WHERE made_at_ms < $1 LIMIT $2)) AND made_at_ms < $1
                   RETURNING 1
               ) SELECT count(*) FROM dropped";
    loop {
        let rows = conn.rows(sql, &[(&made_at.ms(), Type::INT8), (&SLICE, Type::INT8)]).await?;
        if first::<i64>(&rows)?.unwrap_or(0) < SLICE {
            return Ok(());
        }
    }
}

/// Writes kept forecasts over those of their names.
pub(super) async fn keep(conn: &mut Conn, rows: &[KeptForecast]) -> Done<()> {
    let sql = "INSERT INTO tidegate.forecasts_kept (tenant, meter, limit_name, asked, plan, measure, start, horizon, used,
                                                    max, earliest, likely, latest)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::smallint[],
                                    $7::integer[], $8::integer[], $9::bigint[], $10::bigint[], $11::integer[],
                                    $12::integer[], $13::integer[])
               ON CONFLICT (horizon, tenant, meter, limit_name, asked) DO UPDATE
               SET plan = excluded.plan, measure = excluded.measure, start = excluded.start, used = excluded.used, max = excluded.max, earliest = excluded.earliest, likely = excluded.likely,
                   latest = excluded.latest";
    for batch in rows.chunks(BATCH_ROWS) {
        let columns: Params<'_> = &[
            (&column(batch, |row| row.tenant.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| row.meter.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| &*row.limit), Type::TEXT_ARRAY),
            (&column(batch, |row| row.asked.number()), Type::INT4_ARRAY),
            (&column(batch, |row| row.plan.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| row.measure as i16), Type::INT2_ARRAY),
            (&column(batch, |row| row.start.number()), Type::INT4_ARRAY),
            (&column(batch, |row| row.horizon.number()), Type::INT4_ARRAY),
            (&column(batch, |row| row.used), Type::INT8_ARRAY),
            (&column(batch, |row| row.max), Type::INT8_ARRAY),
            (&day_column(batch, |row| row.dates.earliest), Type::INT4_ARRAY),
            (&day_column(batch, |row| row.dates.likely), Type::INT4_ARRAY),
            (&day_column(batch, |row| row.dates.latest), Type::INT4_ARRAY),
        ];
        conn.rows(sql, columns).await?;
    }
    Ok(())
}

async fn due(conn: &mut Conn, horizon: Day, limit: usize) -> Done<Vec<KeptForecast>> {
    let sql =
        "SELECT tenant, meter, limit_name, asked, plan, measure, start, horizon, used, max, earliest, likely, latest
               FROM tidegate.forecasts_kept WHERE horizon <= $1
               ORDER BY horizon, tenant, meter, limit_name, asked LIMIT $2";
    conn.rows(sql, &[(&horizon.number(), Type::INT4), (&(limit as i64), Type::INT8)])
        .await?
        .iter()
        .map(kept_row)
        .collect()
}

fn kept_row(row: &Row) -> Done<KeptForecast> {
    let day = |index| -> Done<Day> { Ok(Day::from_number(get(row, index)?)) };
    let tenant: &str = get(row, 0)?;
    let measure = usize::try_from(get::<i16>(row, 5)?).ok().and_then(|index| KeptMeasure::ALL.get(index));
    let unknown = || damaged_row(format_args!("a forecast of {tenant:?}"), Malformed("its kind is unknown"));
    Ok(KeptForecast {
        measure: *measure.ok_or_else(unknown)?,
        tenant: TenantId::trusted(tenant),
        meter: MeterKey::trusted(get(row, 1)?),
        limit: get::<&str>(row, 2)?.into(),
        asked: day(3)?,
        plan: PlanKey::trusted(get(row, 4)?),
        start: day(6)?,
        horizon: day(7)?,
        used: get(row, 8)?,
        max: get(row, 9)?,
        dates: dates(row, 10)?,
    })
}

async fn settle(conn: &mut Conn, rows: &[SettledForecast]) -> Done<()> {
    for batch in rows.chunks(BATCH_ROWS) {
        conn.begin(SETTINGS).await?;
        let sql = "DELETE FROM tidegate.forecasts_kept AS k
                   USING unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[])
                       AS s(tenant, meter, limit_name, asked, horizon)
                   WHERE (k.horizon, k.tenant, k.meter, k.limit_name, k.asked)
                       = (s.horizon, s.tenant, s.meter, s.limit_name, s.asked)
                   RETURNING k.tenant, k.meter, k.limit_name, k.asked, k.horizon";
        let columns: Params<'_> = &[
            (&column(batch, |row| row.kept.tenant.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| row.kept.meter.as_str()), Type::TEXT_ARRAY),
            (&column(batch, |row| &*row.kept.limit), Type::TEXT_ARRAY),
            (&column(batch, |row| row.kept.asked.number()), Type::INT4_ARRAY),
            (&column(batch, |row| row.kept.horizon.number()), Type::INT4_ARRAY),
        ];
        let taken = conn.rows(sql, columns).await?;
        let mut names = std::collections::BTreeSet::new();
        for row in &taken {
            let (tenant, meter, limit): (&str, &str, &str) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
            names.insert((tenant, meter, limit, get::<i32>(row, 3)?, get::<i32>(row, 4)?));
        }
        let mut sums: BTreeMap<(&str, &str), [i64; SCORE_COUNTS]> = BTreeMap::new();
        for SettledForecast { kept, counts } in batch {
            // Taken out once, whoever asks for it twice.
            let days = (kept.asked.number(), kept.horizon.number());
            let name = (kept.tenant.as_str(), kept.meter.as_str(), &*kept.limit, days.0, days.1);
            let (true, Some(counts)) = (names.remove(&name), counts) else { continue };
            let sum = sums.entry((kept.meter.as_str(), kept.plan.as_str())).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, more)| *sum += i64::try_from(*more).unwrap_or(i64::MAX));
        }
        add_scores(conn, &sums).await?;
        conn.commit().await?;
    }
    Ok(())
}

/// Adds to scores.
pub(super) async fn add_scores(conn: &mut Conn, sums: &BTreeMap<(&str, &str), [i64; SCORE_COUNTS]>) -> Done<()> {
    let sql = "INSERT INTO tidegate.forecast_scores AS known (meter, plan, counts) VALUES ($1, $2, $3)
               ON CONFLICT (meter, plan) DO UPDATE
               SET counts = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
                                  FROM unnest(known.counts, excluded.counts) WITH ORDINALITY AS t(a, b, place)
                                  ORDER BY place)";
    for ((meter, plan), counts) in sums {
        conn.rows(sql, &[(meter, Type::TEXT), (plan, Type::TEXT), (&counts.to_vec(), Type::INT8_ARRAY)]).await?;
    }
    Ok(())
}

/// Every score.
pub(super) async fn scores(conn: &mut Conn) -> Done<Vec<ForecastScore>> {
    let read = |row: &Row| {
        let (meter, plan) = (MeterKey::trusted(get(row, 0)?), PlanKey::trusted(get(row, 1)?));
        let counts: Vec<i64> = get(row, 2)?;
        let unknown =
            || damaged_row(format_args!("the score of {meter:?}"), Malformed("it has another number of sums"));
        let counts: [i64; SCORE_COUNTS] = counts.try_into().map_err(|_| unknown())?;
        Ok(ForecastScore { meter, plan, counts: counts.map(|count| count.max(0) as u64) })
    };
    let sql = "SELECT meter, plan, counts FROM tidegate.forecast_scores ORDER BY meter, plan";
    conn.rows(sql, &[]).await?.iter().map(read).collect()
}

async fn put_growth(conn: &mut Conn, rows: &[MeterGrowth]) -> Done<()> {
    conn.begin(SETTINGS).await?;
    conn.rows("DELETE FROM tidegate.forecast_growth", &[]).await?;
    add_growth(conn, rows).await?;
    conn.commit().await
}

/// Writes what all tenants show of meters of which nothing is there.
pub(super) async fn add_growth(conn: &mut Conn, rows: &[MeterGrowth]) -> Done<()> {
    let sql = "INSERT INTO tidegate.forecast_growth (meter, tenants, growth_millionths)
               SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])";
    let columns: Params<'_> = &[
        (&column(rows, |row| row.meter.as_str()), Type::TEXT_ARRAY),
        (&column(rows, |row| row.tenants as i64), Type::INT8_ARRAY),
        (&column(rows, |row| row.growth_millionths as i64), Type::INT8_ARRAY),
    ];
    conn.rows(sql, columns).await.map(drop)
}

/// What all tenants show.
pub(super) async fn growth(conn: &mut Conn) -> Done<Vec<MeterGrowth>> {
    let read = |row: &Row| {
        Ok(MeterGrowth {
            meter: MeterKey::trusted(get(row, 0)?),
            tenants: get::<i64>(row, 1)? as u64,
            growth_millionths: get::<i64>(row, 2)? as u64,
        })
    };
    let sql = "SELECT meter, tenants, growth_millionths FROM tidegate.forecast_growth ORDER BY meter";
    conn.rows(sql, &[]).await?.iter().map(read).collect()
}

impl Forecasts for PostgresLedger {
    fn put_latest<'a>(&'a self, rows: Vec<LatestForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { put_latest(&mut conn, &rows).await })
    }

    fn fleet<'a>(&'a self, query: &'a FleetQuery) -> BoxFuture<'a, Result<Vec<LatestForecast>, LedgerError>> {
        let query = query.clone();
        self.with(move |mut conn: Conn| async move { fleet(&mut conn, &query).await })
    }

    fn last<'a>(&'a self) -> BoxFuture<'a, Result<Option<LatestForecast>, LedgerError>> {
        self.with(|mut conn: Conn| async move { last(&mut conn).await })
    }

    fn drop_latest_before<'a>(&'a self, made_at: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { drop_latest_before(&mut conn, made_at).await })
    }

    fn keep<'a>(&'a self, rows: Vec<KeptForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { keep(&mut conn, &rows).await })
    }

    fn due<'a>(&'a self, horizon: Day, limit: usize) -> BoxFuture<'a, Result<Vec<KeptForecast>, LedgerError>> {
        self.with(move |mut conn: Conn| async move { due(&mut conn, horizon, limit).await })
    }

    fn settle<'a>(&'a self, rows: Vec<SettledForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { settle(&mut conn, &rows).await })
    }

    fn scores<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ForecastScore>, LedgerError>> {
        self.with(|mut conn: Conn| async move { scores(&mut conn).await })
    }

    fn put_growth<'a>(&'a self, rows: Vec<MeterGrowth>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { put_growth(&mut conn, &rows).await })
    }

    fn growth<'a>(&'a self) -> BoxFuture<'a, Result<Vec<MeterGrowth>, LedgerError>> {
        self.with(|mut conn: Conn| async move { growth(&mut conn).await })
    }
}
