//! Forecasts that are kept. The latest ones are in order of tenant, as a night writes them; [`fleet`] reads them in order of
//! the day that they foresee.

use super::{
    errors::{OrDamaged, damaged_row},
    fleet,
    ledger::SqliteLedger,
    queue::{Work, in_steps},
};
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{
    BoxFuture, FleetQuery, ForecastDates, ForecastScore, Forecasts, KeptForecast, KeptMeasure, LatestForecast,
    LedgerError, MeterGrowth, SCORE_COUNTS, SettledForecast,
};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::time::Instant as Moment;

/// Rows written or dropped before the time is looked at.
const STEP_ROWS: usize = 200;

pub(super) const TABLES: &str = "
CREATE TABLE forecasts(
    tenant TEXT NOT NULL, meter TEXT NOT NULL, plan TEXT NOT NULL, limit_name TEXT, status TEXT NOT NULL,
    used INTEGER NOT NULL, max INTEGER, earliest INTEGER, likely INTEGER, latest INTEGER,
    growth INTEGER NOT NULL, made_at_ms INTEGER NOT NULL, place INTEGER NOT NULL,
    PRIMARY KEY(tenant, meter)) WITHOUT ROWID;
CREATE INDEX forecasts_by_day ON forecasts(place, tenant, meter);
CREATE TABLE forecasts_kept(
    tenant TEXT NOT NULL, meter TEXT NOT NULL, limit_name TEXT NOT NULL, asked INTEGER NOT NULL, plan TEXT NOT NULL,
    measure INTEGER NOT NULL, start INTEGER NOT NULL, horizon INTEGER NOT NULL, used INTEGER NOT NULL,
    max INTEGER NOT NULL, earliest INTEGER, likely INTEGER, latest INTEGER,
    PRIMARY KEY(horizon, tenant, meter, limit_name, asked)) WITHOUT ROWID;
CREATE TABLE forecast_scores(
    meter TEXT NOT NULL, plan TEXT NOT NULL, counts TEXT NOT NULL, PRIMARY KEY(meter, plan)) WITHOUT ROWID;
CREATE TABLE forecast_growth(
    meter TEXT PRIMARY KEY, tenants INTEGER NOT NULL, growth_millionths INTEGER NOT NULL) WITHOUT ROWID;
";

/// Every table that is kept with the ledger: name and number of columns. The latest forecasts are made anew every night.
pub(super) const COPIED: [(&str, usize); 3] = [("forecasts_kept", 13), ("forecast_scores", 3), ("forecast_growth", 3)];

fn number(day: Option<Day>) -> Option<i32> {
    day.map(Day::number)
}

fn dates(row: &Row<'_>, first: usize) -> rusqlite::Result<ForecastDates> {
    let day = |index: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i32>>(index)?.map(Day::from_number));
    Ok(ForecastDates { earliest: day(first)?, likely: day(first + 1)?, latest: day(first + 2)? })
}

/// Writes the latest forecast of a meter over the one before. (Most keep their place, and the index is as it was.)
pub(super) fn put_latest(conn: &Connection, row: &LatestForecast) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO forecasts(tenant, meter, plan, limit_name, status, used, max, earliest, likely, latest,
                               growth, made_at_ms, place)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT(tenant, meter) DO UPDATE
         SET plan = excluded.plan, limit_name = excluded.limit_name, status = excluded.status, used = excluded.used,
             max = excluded.max, earliest = excluded.earliest, likely = excluded.likely, latest = excluded.latest,
             growth = excluded.growth, made_at_ms = excluded.made_at_ms, place = excluded.place",
    )?
    .execute(params![
        row.tenant.as_str(),
        row.meter.as_str(),
        row.plan.as_str(),
        row.limit.as_deref(),
        &*row.status,
        row.used,
        row.max,
        number(row.dates.earliest),
        number(row.dates.likely),
        number(row.dates.latest),
        row.growth_per_day_thousandths,
        row.made_at.ms(),
        row.place().day,
    ])
    .map(drop)
}

/// A latest forecast, from its columns in the order of the table.
pub(super) fn latest(row: &Row<'_>) -> rusqlite::Result<LatestForecast> {
    let text = |index: usize| row.get::<_, String>(index);
    Ok(LatestForecast {
        tenant: TenantId::trusted(&text(0)?),
        meter: MeterKey::trusted(&text(1)?),
        plan: PlanKey::trusted(&text(2)?),
        limit: row.get::<_, Option<String>>(3)?.map(Into::into),
        status: text(4)?.into(),
        used: row.get(5)?,
        max: row.get(6)?,
        dates: dates(row, 7)?,
        growth_per_day_thousandths: row.get(10)?,
        made_at: Instant::from_ms(row.get(11)?),
    })
}

fn last(conn: &Connection) -> Result<Option<LatestForecast>, LedgerError> {
    let sql = "SELECT tenant, meter, plan, limit_name, status, used, max, earliest, likely, latest, growth, made_at_ms
               FROM forecasts ORDER BY tenant DESC, meter DESC LIMIT 1";
    conn.prepare_cached(sql).or_damaged()?.query_row([], latest).optional().or_damaged()
}

/// Writes a kept forecast over the one of its name.
pub(super) fn keep(conn: &Connection, row: &KeptForecast) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO forecasts_kept(tenant, meter, limit_name, asked, plan, measure, start, horizon, used, max,
                                               earliest, likely, latest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        row.tenant.as_str(),
        row.meter.as_str(),
        &*row.limit,
        row.asked.number(),
        row.plan.as_str(),
        row.measure as i64,
        row.start.number(),
        row.horizon.number(),
        row.used,
        row.max,
        number(row.dates.earliest),
        number(row.dates.likely),
        number(row.dates.latest),
    ])
    .map(drop)
}

fn due(conn: &Connection, horizon: Day, limit: usize) -> Result<Vec<KeptForecast>, LedgerError> {
    let sql =
        "SELECT tenant, meter, limit_name, asked, plan, measure, start, horizon, used, max, earliest, likely, latest
               FROM forecasts_kept WHERE horizon <= ?1 ORDER BY horizon, tenant, meter, limit_name, asked LIMIT ?2";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut rows = statement.query([i64::from(horizon.number()), limit as i64]).or_damaged()?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        found.push(kept_row(row)?);
    }
    Ok(found)
}

fn kept_row(row: &Row<'_>) -> Result<KeptForecast, LedgerError> {
    let text = |index: usize| row.get::<_, String>(index).or_damaged();
    let day = |index: usize| row.get(index).map(Day::from_number).or_damaged();
    let tenant = text(0)?;
    let measure = usize::try_from(row.get::<_, i64>(5).or_damaged()?).ok();
    let measure = measure.and_then(|index| KeptMeasure::ALL.get(index));
    Ok(KeptForecast {
        measure: *measure
            .ok_or_else(|| damaged_row(format_args!("a forecast of {tenant:?}"), "its kind is unknown"))?,
        tenant: TenantId::trusted(&tenant),
        meter: MeterKey::trusted(&text(1)?),
        limit: text(2)?.into(),
        asked: day(3)?,
        plan: PlanKey::trusted(&text(4)?),
        start: day(6)?,
        horizon: day(7)?,
        used: row.get(8).or_damaged()?,
        max: row.get(9).or_damaged()?,
        dates: dates(row, 10).or_damaged()?,
    })
}

fn settle(conn: &Connection, row: &SettledForecast) -> rusqlite::Result<()> {
    let kept = &row.kept;
    let taken = conn
        .prepare_cached(
            "DELETE FROM forecasts_kept
             WHERE horizon = ?1 AND tenant = ?2 AND meter = ?3 AND limit_name = ?4 AND asked = ?5",
        )?
        .execute(params![
            kept.horizon.number(),
            kept.tenant.as_str(),
            kept.meter.as_str(),
            &*kept.limit,
            kept.asked.number()
        ])?;
    let Some(counts) = row.counts.filter(|_| taken > 0) else { return Ok(()) };
    let place = [kept.meter.as_str(), kept.plan.as_str()];
    let mut known = conn.prepare_cached("SELECT counts FROM forecast_scores WHERE meter = ?1 AND plan = ?2")?;
    let known: Option<String> = rusqlite::OptionalExtension::optional(known.query_row(place, |row| row.get(0)))?;
    let mut counts = counts;
    let known = known.as_deref().and_then(read_counts).unwrap_or_default();
    counts.iter_mut().zip(known).for_each(|(sum, more)| *sum = sum.saturating_add(more));
    put_score(conn, &ForecastScore { meter: kept.meter.clone(), plan: kept.plan.clone(), counts })
}

/// Writes a score over what was there.
pub(super) fn put_score(conn: &Connection, row: &ForecastScore) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO forecast_scores(meter, plan, counts) VALUES (?1, ?2, ?3)")?
        .execute(params![row.meter.as_str(), row.plan.as_str(), write_counts(&row.counts)])
        .map(drop)
}

/// Sums as a text that people can read.
fn write_counts(counts: &[u64; SCORE_COUNTS]) -> String {
    counts.map(|count| count.to_string()).join(" ")
}

fn read_counts(text: &str) -> Option<[u64; SCORE_COUNTS]> {
    let counts: Option<Vec<u64>> = text.split(' ').map(|count| count.parse().ok()).collect();
    counts?.try_into().ok()
}

/// Every score.
pub(super) fn scores(conn: &Connection) -> Result<Vec<ForecastScore>, LedgerError> {
    let mut statement =
        conn.prepare_cached("SELECT meter, plan, counts FROM forecast_scores ORDER BY meter, plan").or_damaged()?;
    let mut rows = statement.query([]).or_damaged()?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        let text = |index: usize| row.get::<_, String>(index).or_damaged();
        let (meter, plan) = (MeterKey::trusted(&text(0)?), PlanKey::trusted(&text(1)?));
        let damaged = || damaged_row(format_args!("the score of {meter:?}"), "its sums can't be read");
        let counts = read_counts(&text(2)?).ok_or_else(damaged)?;
        found.push(ForecastScore { meter, plan, counts });
    }
    Ok(found)
}

/// Writes what all tenants show of a meter.
pub(super) fn put_growth(conn: &Connection, row: &MeterGrowth) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO forecast_growth(meter, tenants, growth_millionths) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?
        .execute(params![row.meter.as_str(), row.tenants as i64, row.growth_millionths as i64])
        .map(drop)
}

/// What all tenants show.
pub(super) fn growth(conn: &Connection) -> Result<Vec<MeterGrowth>, LedgerError> {
    let sql = "SELECT meter, tenants, growth_millionths FROM forecast_growth ORDER BY meter";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let rows = statement.query_map([], |row| {
        Ok(MeterGrowth {
            meter: MeterKey::trusted(&row.get::<_, String>(0)?),
            tenants: row.get::<_, i64>(1)? as u64,
            growth_millionths: row.get::<_, i64>(2)? as u64,
        })
    });
    rows.or_damaged()?.map(OrDamaged::or_damaged).collect()
}

/// Writes rows one by one, in slices between commits. `first` is run before the first of them.
struct Each<T> {
    rows: Vec<T>,
    written: usize,
    first: Option<&'static str>,
    write: fn(&Connection, &T) -> rusqlite::Result<()>,
}

impl<T: Send> Each<T> {
    fn new(rows: Vec<T>, write: fn(&Connection, &T) -> rusqlite::Result<()>) -> Self {
        Self { rows, written: 0, first: None, write }
    }

    fn some(&mut self, conn: &mut Connection, until: Moment) -> rusqlite::Result<()> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let (Some(sql), 0) = (self.first, self.written) {
            transaction.execute_batch(sql)?;
        }
        let mut written = self.written;
        while written < self.rows.len() {
            for row in self.rows[written..].iter().take(STEP_ROWS) {
                (self.write)(&transaction, row)?;
                written += 1;
            }
            if Moment::now() >= until {
                break;
            }
        }
        transaction.commit()?;
        self.written = written;
        Ok(())
    }
}

impl<T: Send> Work for Each<T> {
    fn slice(&mut self, conn: &mut Connection, until: Moment) -> Result<bool, LedgerError> {
        self.some(conn, until).or_unwritable()?;
        Ok(self.written == self.rows.len())
    }
}

/// Drops latest forecasts that were made before an instant, tenant after tenant.
struct DropLatest {
    before: Instant,
    after: String,
}

impl DropLatest {
    fn step(&mut self, conn: &Connection) -> rusqlite::Result<bool> {
        let mut page =
            conn.prepare_cached("SELECT tenant FROM forecasts WHERE tenant > ?1 ORDER BY tenant LIMIT ?2")?;
        let tenants = page.query_map(params![self.after, STEP_ROWS as i64], |row| row.get::<_, String>(0))?;
        let Some(last) = tenants.last().transpose()? else { return Ok(false) };
        conn.prepare_cached("DELETE FROM forecasts WHERE tenant > ?1 AND tenant <= ?2 AND made_at_ms < ?3")?
            .execute(params![self.after, last, self.before.ms()])?;
        self.after = last;
        Ok(true)
    }
}

impl Work for DropLatest {
    fn slice(&mut self, conn: &mut Connection, until: Moment) -> Result<bool, LedgerError> {
        in_steps(conn, until, |conn| self.step(conn)).map(|more| !more).or_unwritable()
    }
}

impl Forecasts for SqliteLedger {
    fn put_latest<'a>(&'a self, rows: Vec<LatestForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(Each::new(rows, put_latest), false)
    }

    fn fleet<'a>(&'a self, query: &'a FleetQuery) -> BoxFuture<'a, Result<Vec<LatestForecast>, LedgerError>> {
        self.read(move |_, conn| fleet::page(conn, query))
    }

    fn last<'a>(&'a self) -> BoxFuture<'a, Result<Option<LatestForecast>, LedgerError>> {
        self.read(|_, conn| last(conn))
    }

    fn drop_latest_before<'a>(&'a self, made_at: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(DropLatest { before: made_at, after: String::new() }, false)
    }

    fn keep<'a>(&'a self, rows: Vec<KeptForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(Each::new(rows, keep), false)
    }

    fn due<'a>(&'a self, horizon: Day, limit: usize) -> BoxFuture<'a, Result<Vec<KeptForecast>, LedgerError>> {
        self.read(move |_, conn| due(conn, horizon, limit))
    }

    fn settle<'a>(&'a self, rows: Vec<SettledForecast>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(Each::new(rows, settle), false)
    }

    fn scores<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ForecastScore>, LedgerError>> {
        self.read(|_, conn| scores(conn))
    }

    fn put_growth<'a>(&'a self, rows: Vec<MeterGrowth>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.write(Each { first: Some("DELETE FROM forecast_growth"), ..Each::new(rows, put_growth) }, false)
    }

    fn growth<'a>(&'a self) -> BoxFuture<'a, Result<Vec<MeterGrowth>, LedgerError>> {
        self.read(|_, conn| growth(conn))
    }
}
