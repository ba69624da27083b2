//! The rows of a backup that are not the journal, copied as they are.

use super::{
    backup::Ended,
    errors::{OrDamaged, unwritable},
    forecasts,
    recover::CUT_THROUGH,
    schema,
};
use engine::ports::{LedgerError, Seq};
use rusqlite::{Connection, types::Value};

/// Tenants in one read.
const PAGE_TENANTS: i64 = 50;

/// Other rows in one read.
const PAGE_ROWS: i64 = 2_000;

/// The tables of folds that are copied tenant by tenant.
const OF_TENANT: [(&str, usize); 3] = [("tenants", 4), ("users", 4), ("closed", 9)];

/// One read of several statements: all of one moment.
pub(super) fn in_one_read<T>(
    source: &Connection,
    read: impl FnOnce() -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    source.execute_batch("BEGIN").or_damaged()?;
    let result = read();
    source.execute_batch("COMMIT").or_damaged()?;
    result
}

/// Copies the rows a query gives into a table; gives the last row.
pub(super) fn copy_rows(
    source: &Connection,
    target: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
    table: &str,
    columns: usize,
) -> Result<(usize, Option<Vec<Value>>), LedgerError> {
    let places: Vec<String> = (1..=columns).map(|place| format!("?{place}")).collect();
    let mut insert = target
        .prepare_cached(&format!("INSERT INTO {table} VALUES ({})", places.join(", ")))
        .map_err(|error| unwritable(&error))?;
    let mut select = source.prepare_cached(query).or_damaged()?;
    let mut rows = select.query(parameters).or_damaged()?;
    let (mut count, mut last) = (0, None);
    while let Some(row) = rows.next().or_damaged()? {
        let values = (0..columns).map(|column| row.get::<_, Value>(column)).collect::<rusqlite::Result<Vec<_>>>();
        let values = values.or_damaged()?;
        insert.execute(rusqlite::params_from_iter(&values)).or_unwritable()?;
        count += 1;
        last = Some(values);
    }
    Ok((count, last))
}

pub(super) fn in_one_write<T>(
    target: &Connection,
    write: impl FnOnce() -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    target.execute_batch("BEGIN").or_unwritable()?;
    let result = write()?;
    target.execute_batch("COMMIT").or_unwritable()?;
    Ok(result)
}

/// The openings and their seal, as of `cut`.
pub(super) fn copy_openings(source: &Connection, target: &Connection, cut: Seq) -> Result<(), Ended> {
    let states = "SELECT tenant, user, seq, body FROM openings WHERE (tenant, user) > (?1, ?2)
                  ORDER BY tenant, user LIMIT ?3";
    let mut after = (Value::Text(String::new()), Value::Text(String::new()));
    loop {
        let (same, (count, last)) = in_one_read(source, || {
            let same = schema::number(source, CUT_THROUGH).or_damaged()? as Seq == cut;
            let parameters = rusqlite::params![after.0, after.1, PAGE_ROWS];
            let copied = in_one_write(target, || copy_rows(source, target, states, parameters, "openings", 4))?;
            Ok((same, copied))
        })?;
        if !same {
            return Err(Ended::Cut);
        }
        if let Some(last) = &last {
            after = (last[0].clone(), last[1].clone());
        }
        if (count as i64) < PAGE_ROWS {
            break;
        }
    }
    copy_opening_totals(source, target, cut)
}

fn copy_opening_totals(source: &Connection, target: &Connection, cut: Seq) -> Result<(), Ended> {
    let totals = "SELECT tenant, user, start_ms, kind, meter, end_ms, used, denied, checksum FROM opening_closed
                  WHERE (tenant, user, start_ms, kind, meter) > (?1, ?2, ?3, ?4, ?5)
                  ORDER BY tenant, user, start_ms, kind, meter LIMIT ?6";
    let mut after = vec![
        Value::Text(String::new()),
        Value::Text(String::new()),
        Value::Integer(i64::MIN),
        Value::Integer(0),
        Value::Text(String::new()),
    ];
    loop {
        let (same, (count, last)) = in_one_read(source, || {
            let same = schema::number(source, CUT_THROUGH).or_damaged()? as Seq == cut;
            let parameters = after.iter().cloned().chain([Value::Integer(PAGE_ROWS)]);
            let parameters = rusqlite::params_from_iter(parameters);
            let copied = in_one_write(target, || copy_rows(source, target, totals, parameters, "opening_closed", 9))?;
            if count_is_last(&copied) {
                let seal = "SELECT key, value FROM meta
                            WHERE key IN ('cut_through', 'seal_rows', 'seal_sum', 'sealed_at_ms')";
                copy_rows(source, target, seal, [], "meta", 2)?;
            }
            Ok((same, copied))
        })?;
        if !same {
            return Err(Ended::Cut);
        }
        if let Some(last) = last {
            after = last.into_iter().take(5).collect();
        }
        if (count as i64) < PAGE_ROWS {
            return Ok(());
        }
    }
}

fn count_is_last<T>(copied: &(usize, T)) -> bool {
    (copied.0 as i64) < PAGE_ROWS
}

/// The folds, tenant by tenant: a tenant's row, its users' and its history are of one moment. Gives the number of
/// tenants.
pub(super) fn copy_folds(source: &Connection, target: &Connection) -> Result<u64, LedgerError> {
    let mut after = String::new();
    let mut tenants = 0;
    loop {
        let page = in_one_read(source, || in_one_write(target, || copy_tenants(source, target, &after)))?;
        let Some(last) = page.last() else { return Ok(tenants) };
        after = last.clone();
        tenants += page.len() as u64;
    }
}

fn copy_tenants(source: &Connection, target: &Connection, after: &str) -> Result<Vec<String>, LedgerError> {
    let mut select =
        source.prepare_cached("SELECT tenant FROM tenants WHERE tenant > ?1 ORDER BY tenant LIMIT ?2").or_damaged()?;
    let page = select
        .query_map(rusqlite::params![after, PAGE_TENANTS], |row| row.get::<_, String>(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
        .or_damaged()?;
    for tenant in &page {
        for (table, columns) in OF_TENANT {
            let query = format!("SELECT * FROM {table} WHERE tenant = ?1");
            copy_rows(source, target, &query, [tenant], table, columns)?;
        }
    }
    Ok(page)
}

/// The daily history.
pub(super) fn copy_snapshots(source: &Connection, target: &Connection) -> Result<(), LedgerError> {
    let page = "SELECT * FROM snapshots WHERE (day, tenant, meter) > (?1, ?2, ?3) ORDER BY day, tenant, meter LIMIT ?4";
    let mut after = vec![Value::Integer(i64::MIN), Value::Text(String::new()), Value::Text(String::new())];
    loop {
        let parameters = rusqlite::params_from_iter(after.iter().cloned().chain([Value::Integer(PAGE_ROWS)]));
        let (count, last) = in_one_write(target, || copy_rows(source, target, page, parameters, "snapshots", 8))?;
        if let Some(last) = last {
            after = last.into_iter().take(3).collect();
        }
        if (count as i64) < PAGE_ROWS {
            break;
        }
    }
    let runs = "SELECT * FROM snapshot_runs ORDER BY day";
    in_one_write(target, || copy_rows(source, target, runs, [], "snapshot_runs", 5)).map(drop)
}

/// Forecasts that wait to be judged, and what was learnt. The latest ones are made anew by the next night.
pub(super) fn copy_forecasts(source: &Connection, target: &Connection) -> Result<(), LedgerError> {
    for (table, columns) in forecasts::COPIED {
        let rows = format!("SELECT * FROM {table}");
        in_one_write(target, || copy_rows(source, target, &rows, [], table, columns))?;
    }
    Ok(())
}

/// The denials.
pub(super) fn copy_denials(source: &Connection, target: &Connection) -> Result<(), LedgerError> {
    let page = "SELECT * FROM denials WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut after = Value::Blob(Vec::new());
    loop {
        let parameters = rusqlite::params![after, PAGE_ROWS];
        let (count, last) = in_one_write(target, || copy_rows(source, target, page, parameters, "denials", 11))?;
        if let Some(last) = last {
            after = last[0].clone();
        }
        if (count as i64) < PAGE_ROWS {
            return Ok(());
        }
    }
}
