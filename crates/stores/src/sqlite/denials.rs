//! Denials on disk: one row a run, with totals as of the journal position that was folded into it last.

use super::{
    errors::{OrDamaged, damaged_row},
    queue::PendingDenials,
};
use crate::{
    codec,
    denials::{RunFold, Runs, add_to, page},
};
use domain::id::TenantId;
use engine::ports::{DenialId, DenialQuery, LedgerError, Seq, StoredDenial};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, tenant, first_seq, seq, body";

/// Adds a stretch of the journal to the row of its run, unless the row has it already.
pub(super) fn write_run(conn: &Connection, id: DenialId, stretch: &RunFold) -> rusqlite::Result<()> {
    let known = match read_run(conn, id) {
        Ok(known) => known,
        Err(LedgerError::Damaged(why)) => {
            // Explanations are not worth stopping the ledger for; `verify` names the row.
            tracing::error!(%why, %id, "a denial is damaged, and written anew");
            None
        }
        Err(_) => None,
    };
    let run = match known {
        Some(known) if known.seq >= stretch.seq => return Ok(()),
        Some(mut known) => {
            known.add(stretch);
            known
        }
        None => stretch.clone(),
    };
    put_run(conn, id, &run)
}

/// Writes a run as it is.
pub(super) fn put_run(conn: &Connection, id: DenialId, fold: &RunFold) -> rusqlite::Result<()> {
    let run = &fold.run;
    let mut body = Vec::with_capacity(96);
    codec::encode_run(run, &mut body);
    codec::seal(&[fold.tenant.as_str()], &[fold.first_seq as i64, fold.seq as i64], &mut body);
    conn.prepare_cached(
        "INSERT INTO denials(id, tenant, user, code, shadow, meter, first_at_ms, last_at_ms, first_seq, seq, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT(id) DO UPDATE
         SET first_at_ms = excluded.first_at_ms, last_at_ms = excluded.last_at_ms, first_seq = excluded.first_seq,
             seq = excluded.seq, body = excluded.body",
    )?
    .execute(params![
        id.0.to_be_bytes(),
        fold.tenant.as_str(),
        run.key.user.as_ref().map(|user| user.as_str()),
        run.key.code.word(),
        run.key.shadow,
        run.meter.as_ref().map(|meter| meter.as_str()),
        run.first_at.ms(),
        run.last_at.ms(),
        fold.first_seq as i64,
        fold.seq as i64,
        body,
    ])
    .map(|_| ())
}

/// The row of a run.
pub(super) fn read_run(conn: &Connection, id: DenialId) -> Result<Option<RunFold>, LedgerError> {
    let sql = "SELECT id, tenant, first_seq, seq, body FROM denials WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut rows = statement.query([id.0.to_be_bytes()]).or_damaged()?;
    match rows.next().or_damaged()? {
        Some(row) => read_row(row).map(|(_, fold)| Some(fold)),
        None => Ok(None),
    }
}

/// The position of a run's row.
pub(super) fn seq_of(conn: &Connection, id: DenialId) -> Result<Option<Seq>, LedgerError> {
    conn.prepare_cached("SELECT seq FROM denials WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id.0.to_be_bytes()], |row| row.get::<_, i64>(0)).optional())
        .or_damaged()
        .map(|seq| seq.map(|seq| seq as Seq))
}

/// Reads and checks a row of [`COLUMNS`].
pub(super) fn read_row(row: &Row<'_>) -> Result<(DenialId, RunFold), LedgerError> {
    let id: [u8; 16] = row.get(0).or_damaged()?;
    let id = DenialId(u128::from_be_bytes(id));
    let tenant: String = row.get(1).or_damaged()?;
    let (first_seq, seq): (i64, i64) = (row.get(2).or_damaged()?, row.get(3).or_damaged()?);
    let body: Vec<u8> = row.get(4).or_damaged()?;
    let run = codec::checked(&[&tenant], &[first_seq, seq], &body)
        .and_then(codec::decode_run)
        .map_err(|why| damaged_row(format_args!("denial {id}"), why.0))?;
    let tenant = TenantId::trusted(&tenant);
    Ok((id, RunFold { tenant, run, first_seq: first_seq as Seq, seq: seq as Seq }))
}

/// One denial: its row and what is pending.
pub(super) fn one(
    conn: &Connection,
    pending: &parking_lot::Mutex<PendingDenials>,
    id: DenialId,
) -> Result<Option<StoredDenial>, LedgerError> {
    // What is pending is read before the row: a stretch that is written in between is then seen twice and counted once.
    let stretches: Vec<RunFold> = {
        let pending = pending.lock();
        let frozen = pending.frozen.iter().filter_map(|frozen| {
            let index = frozen.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            Some(frozen[index].1.clone())
        });
        frozen.chain(pending.current.get(&id).cloned()).collect()
    };
    let mut total = read_run(conn, id)?;
    for stretch in stretches {
        total = Some(joined(total, stretch));
    }
    Ok(total.map(|fold| fold.stored(id)))
}

fn joined(total: Option<RunFold>, stretch: RunFold) -> RunFold {
    match total {
        Some(total) if total.seq >= stretch.seq => total,
        Some(mut total) => {
            total.add(&stretch);
            total
        }
        None => stretch,
    }
}

/// One page of the listing: rows and what is pending.
pub(super) fn list(
    conn: &Connection,
    pending: &parking_lot::Mutex<PendingDenials>,
    query: &DenialQuery,
) -> Result<Vec<StoredDenial>, LedgerError> {
    let mut stretches: Vec<(DenialId, RunFold)> = Vec::new();
    {
        let pending = pending.lock();
        let frozen = pending.frozen.iter().flat_map(|frozen| frozen.iter().map(|(id, fold)| (id, fold)));
        let all = frozen.chain(&pending.current);
        let of_tenant = |fold: &RunFold| query.tenant.as_ref().is_none_or(|tenant| *tenant == fold.tenant);
        stretches.extend(all.filter(|(_, fold)| of_tenant(fold)).map(|(id, fold)| (*id, fold.clone())));
    }
    let mut runs = Runs::default();
    for (id, fold) in rows(conn, query)? {
        runs.insert(id, fold);
    }
    for (id, stretch) in stretches {
        let known = match runs.remove(&id) {
            Some(known) => Some(known),
            // Its row may lie outside of what was read.
            None => read_run(conn, id)?,
        };
        add_to(&mut runs, id, joined(known, stretch));
    }
    Ok(page(query, runs.into_iter()))
}

/// Rows that a query lists, newest first.
fn rows(conn: &Connection, query: &DenialQuery) -> Result<Vec<(DenialId, RunFold)>, LedgerError> {
    let index = if query.tenant.is_some() { "denials_by_tenant" } else { "denials_by_time" };
    let tenant = if query.tenant.is_some() { "tenant = ?1" } else { "?1 IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM denials INDEXED BY {index}
         WHERE {tenant} AND shadow = ?2 AND (first_at_ms, id) < (?3, ?4)
           AND (?5 IS NULL OR user = ?5) AND (?6 IS NULL OR code = ?6) AND (?7 IS NULL OR meter = ?7)
         ORDER BY first_at_ms DESC, id DESC LIMIT ?8"
    );
    let (before_ms, before_id) =
        query.before.map_or((i64::MAX, u128::MAX), |before| (before.first_at.ms(), before.id.0));
    let mut statement = conn.prepare_cached(&sql).or_damaged()?;
    let mut rows = statement
        .query(params![
            query.tenant.as_ref().map(|tenant| tenant.as_str()),
            query.shadow,
            before_ms,
            before_id.to_be_bytes(),
            query.user.as_ref().map(|user| user.as_str()),
            query.code.map(|code| code.word()),
            query.meter.as_ref().map(|meter| meter.as_str()),
            i64::try_from(query.limit).unwrap_or(i64::MAX),
        ])
        .or_damaged()?;
    let mut list = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        list.push(read_row(row)?);
    }
    Ok(list)
}
