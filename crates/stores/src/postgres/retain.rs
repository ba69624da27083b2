//! Retention: ids, denials and history past their time are dropped, entries past theirs are folded into openings and cut. All in
//! slices, so that no commit waits long.
//!
//! An entry of a tenant is cut when it is older than the journal and the dedupe window reach, is in the tenant's fold
//! and in history, and is older than the tenant's billing period, if that is still open.

use super::{
    errors::{Done, damaged_row},
    ledger::Inner,
    openings::Opening,
    queued::hour_of,
    reads::read_entry,
    values::{first, get},
};
use crate::rows::read_tenant_row;
use domain::{
    entry::Entry,
    id::TenantId,
    time::{DAY_MS, Instant, WindowKind},
};
use engine::ports::{Retention, Seq};
use std::sync::atomic::Ordering;
use tokio_postgres::types::Type;

/// Rows dropped in one transaction.
const SLICE: i64 = 2_000;
/// Tenants looked at in one read.
const PAGE: i64 = 200;
/// After a look for entries to cut, the next one waits this long, at most.
const PAUSE_MS: i64 = 3_600_000;

/// Drops what is past its time.
pub(super) async fn retain(inner: &Inner, retention: Retention, now: Instant) -> Done<()> {
    let ids_from = now.plus_ms(-retention.dedupe_ms.max(0));
    let denials_from = now.plus_ms(-retention.denials_ms.max(0));
    let history_from = now.plus_ms(-retention.history_ms.max(0));
    note_kept(inner, ids_from, denials_from, history_from).await?;
    drop_ids(inner, ids_from).await?;
    drop_denials(inner, denials_from).await?;
    if now.ms() < inner.cut_not_before_ms.load(Ordering::Relaxed) {
        return Ok(());
    }
    let before = now.plus_ms(-retention.journal_ms.max(retention.dedupe_ms).max(0));
    walk(inner, before, history_from, now).await?;
    let pause_ms = (retention.journal_ms / 16).clamp(0, DAY_MS).min(PAUSE_MS);
    inner.cut_not_before_ms.store(now.plus_ms(pause_ms).ms(), Ordering::Relaxed);
    Ok(())
}

/// Says what may be missing from now on.
async fn note_kept(inner: &Inner, ids_from: Instant, denials_from: Instant, history_from: Instant) -> Done<()> {
    let sql = "UPDATE tidegate.kept SET ids_from_hour = greatest(ids_from_hour, $1),
                   denials_from_ms = greatest(denials_from_ms, $2), history_from_ms = greatest(history_from_ms, $3)
               WHERE ids_from_hour < $1 OR denials_from_ms < $2 OR history_from_ms < $3";
    let hour = hour_of(ids_from.ms());
    let params: super::values::Params<'_> =
        &[(&hour, Type::INT4), (&denials_from.ms(), Type::INT8), (&history_from.ms(), Type::INT8)];
    inner.pool.rows(sql, params).await.map(drop)
}

/// Repeats a statement that drops at most a slice.
async fn drop_in_slices(inner: &Inner, sql: &str, bound: i64) -> Done<()> {
    loop {
        let rows = inner.pool.rows(sql, &[(&bound, Type::INT8), (&SLICE, Type::INT8)]).await?;
        if first::<i64>(&rows)?.unwrap_or(0) < SLICE {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// Ids are dropped by whole hours: none before its time.
async fn drop_ids(inner: &Inner, from: Instant) -> Done<()> {
    let sql = "WITH dropped AS (
                   DELETE FROM tidegate.ids WHERE ctid = ANY(ARRAY(
                       SELECT ctid FROM tidegate.ids WHERE arrived_hour < $1::bigint::integer
                       ORDER BY arrived_hour LIMIT $2)) RETURNING 1
               ) SELECT count(*) FROM dropped";
    drop_in_slices(inner, sql, i64::from(hour_of(from.ms()))).await
}

async fn drop_denials(inner: &Inner, from: Instant) -> Done<()> {
    let sql = "WITH dropped AS (
                   DELETE FROM tidegate.denials WHERE last_at_ms < $1 AND ctid = ANY(ARRAY(
                       SELECT ctid FROM tidegate.denials WHERE last_at_ms < $1 ORDER BY last_at_ms LIMIT $2)) RETURNING 1
               ) SELECT count(*) FROM dropped";
    drop_in_slices(inner, sql, from.ms()).await
}

/// Goes from tenant to tenant and drops what is past its time: entries before one instant, history before another.
async fn walk(inner: &Inner, before: Instant, history_from: Instant, now: Instant) -> Done<()> {
    let mut after = String::new();
    loop {
        // Instants of a tenant's entries hardly go back, so its first entry tells whether there is anything to cut.
        let sql = "SELECT f.tenant, f.seq, f.state, coalesce(e.at_ms, $2) < $2
                   FROM tidegate.folds f LEFT JOIN LATERAL (
                       SELECT e.at_ms FROM tidegate.entries e WHERE e.tenant = f.tenant ORDER BY e.seq LIMIT 1
                   ) e ON true
                   WHERE f.tenant > $1 ORDER BY f.tenant LIMIT $3";
        let params: super::values::Params<'_> =
            &[(&after, Type::TEXT), (&before.ms(), Type::INT8), (&PAGE, Type::INT8)];
        let rows = inner.pool.rows(sql, params).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        let next = get::<&str>(last, 0)?.to_owned();
        for row in &rows {
            if !get::<bool>(row, 3)? {
                continue;
            }
            let id = TenantId::trusted(get(row, 0)?);
            let fold = read_tenant_row(&id, get(row, 1)?, get(row, 2)?)
                .map_err(|why| damaged_row(format_args!("tenant {id:?}"), why))?;
            let period = fold.state.windows[WindowKind::Period.index()];
            let before = if now < period.end { before.min(period.start) } else { before };
            while cut(inner, &id, fold.seq, before).await? {}
        }
        for table in ["closed", "opening_closed"] {
            drop_history(inner, table, (&after, &next), history_from).await?;
        }
        after = next;
    }
}

/// Drops totals of closed windows of the tenants after one, through another.
async fn drop_history(inner: &Inner, table: &str, tenants: (&str, &str), from: Instant) -> Done<()> {
    let sql = format!(
        "WITH dropped AS (
             DELETE FROM tidegate.{table} WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM tidegate.{table} WHERE tenant > $1 AND tenant <= $2 AND end_ms < $3
                 ORDER BY tenant LIMIT $4)) AND end_ms < $3 RETURNING 1
         ) SELECT count(*) FROM dropped"
    );
    loop {
        let params: super::values::Params<'_> =
            &[(&tenants.0, Type::TEXT), (&tenants.1, Type::TEXT), (&from.ms(), Type::INT8), (&SLICE, Type::INT8)];
        if first::<i64>(&inner.pool.rows(&sql, params).await?)?.unwrap_or(0) < SLICE {
            return Ok(());
        }
    }
}

/// Cuts a stretch of one tenant; true if there may be more.
async fn cut(inner: &Inner, id: &TenantId, through: Seq, before: Instant) -> Done<bool> {
    let mut conn = inner.pool.get().await?;
    conn.begin("SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '5s'").await?;
    // Two that cut the same at once: the second waits here for the first, and then finds nothing.
    // Under leases entries are in the order of their commits, not of their instants: none is cut behind one that stays.
    let sql = "DELETE FROM tidegate.entries WHERE tenant = $1 AND seq IN (
                   SELECT seq FROM (
                       SELECT seq, bool_and(at_ms < $3) OVER (ORDER BY seq) AS is_old FROM (
                           SELECT seq, at_ms FROM tidegate.entries WHERE tenant = $1 AND seq <= $2
                               AND position <= (SELECT through FROM tidegate.history_state)
                           ORDER BY seq LIMIT $4
                       ) AS first_ones
                   ) AS judged WHERE is_old)
               RETURNING seq, at_ms, body";
    let through = i64::try_from(through).unwrap_or(i64::MAX);
    let params: super::values::Params<'_> =
        &[(&id.as_str(), Type::TEXT), (&through, Type::INT8), (&before.ms(), Type::INT8), (&SLICE, Type::INT8)];
    let rows = conn.rows(sql, params).await?;
    let mut entries: Vec<(Seq, Entry)> = Vec::with_capacity(rows.len());
    for row in &rows {
        let seq: i64 = get(row, 0)?;
        entries.push((seq as Seq, read_entry(id, seq, get(row, 1)?, get(row, 2)?)?));
    }
    if entries.is_empty() {
        conn.roll_back().await?;
        return Ok(false);
    }
    entries.sort_unstable_by_key(|(seq, _)| *seq);
    let mut touched: Vec<&str> = entries.iter().filter_map(|(_, entry)| Some(entry.user.as_ref()?.as_str())).collect();
    touched.sort_unstable();
    touched.dedup();
    let mut opening = Opening::read(&mut conn, id, &touched).await?;
    for (seq, entry) in &entries {
        opening.fold(*seq, entry)?;
    }
    opening.write(&mut conn).await?;
    conn.commit().await?;
    Ok(entries.len() as i64 == SLICE)
}
