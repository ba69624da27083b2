//! The statement that commits a batch, and what it says.

use super::{
    batch::{Columns, LeasedColumns, Part, runs_of},
    errors::{Done, Failure},
    pool::Conn,
    values::{Bits, Params, get},
};
use engine::ports::{LedgerError, Seq};
use std::sync::LazyLock;
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};

const COMMIT: &str = include_str!("commit.sql");
const COMMIT_LEASED: &str = include_str!("commit_leased.sql");
const DENIALS: &str = include_str!("commit_denials.sql");

/// Whether rows that another transaction has locked are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    /// Their parts are stale.
    Skip,
    /// Waited for, for two seconds.
    Wait,
    /// As [`Locked::Wait`]; and the parts were made under leases.
    Leased,
}

/// The four forms of the statement: whether it waits, and whether it writes denials.
static FORMS: LazyLock<[String; 4]> = LazyLock::new(|| {
    [(false, false), (false, true), (true, false), (true, true)].map(|(waits, denials)| {
        COMMIT
            .replace("/*wait*/", if waits { "" } else { "SKIP LOCKED" })
            .replace("/*denials*/", if denials { DENIALS } else { "" })
    })
});

/// What the statement says.
pub(super) struct Reply {
    /// The catalog in force.
    pub(super) in_force: u32,
    /// For each part that was written, the position that its entries follow.
    pub(super) written: Vec<Option<Seq>>,
    /// Ids that are bound already: part, id, position.
    pub(super) bound: Vec<(usize, u128, Seq)>,
}

/// Sends a batch.
pub(super) async fn send(conn: &mut Conn, parts: &[Part], locked: Locked) -> Done<Reply> {
    let runs = runs_of(parts);
    let columns = Columns::new(parts, &runs);
    let c = &columns;
    let mut params: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), Type)> = vec![
        (&c.tenants, Type::TEXT_ARRAY),
        (&c.follows, Type::INT8_ARRAY),
        (&c.lasts, Type::INT8_ARRAY),
        (&c.catalogs, Type::INT4_ARRAY),
        (&c.plans, Type::TEXT_ARRAY),
        (&c.id_parts, Type::INT8_ARRAY),
        (&c.ids, Type::UUID_ARRAY),
        (&c.tokens, Type::INT8_ARRAY),
        (&c.entry_parts, Type::INT8_ARRAY),
        (&c.entry_seqs, Type::INT8_ARRAY),
        (&c.entry_at_ms, Type::INT8_ARRAY),
        (&c.entry_bodies, Type::BYTEA_ARRAY),
        (&c.id_seqs, Type::INT8_ARRAY),
        (&c.id_hours, Type::INT4_ARRAY),
        (&c.lease_epochs, Type::TEXT_ARRAY),
        (&c.lease_entries, Type::TEXT_ARRAY),
    ];
    let d = &c.denials;
    let with_denials = !d.parts.is_empty();
    if with_denials {
        params.extend::<[(&(dyn tokio_postgres::types::ToSql + Sync), Type); 11]>([
            (&d.parts, Type::INT8_ARRAY),
            (&d.ids, Type::UUID_ARRAY),
            (&d.users, Type::TEXT_ARRAY),
            (&d.codes, Type::TEXT_ARRAY),
            (&d.shadows, Type::BOOL_ARRAY),
            (&d.meters, Type::TEXT_ARRAY),
            (&d.counts, Type::INT8_ARRAY),
            (&d.amounts, Type::INT8_ARRAY),
            (&d.first_at_ms, Type::INT8_ARRAY),
            (&d.last_at_ms, Type::INT8_ARRAY),
            (&d.bodies, Type::BYTEA_ARRAY),
        ]);
    }
    let form = usize::from(locked == Locked::Wait) * 2 + usize::from(with_denials);
    let rows = conn.rows(&FORMS[form], &params).await?;
    let mut reply = Reply { in_force: in_force(&rows)?, written: vec![None; parts.len()], bound: bound(&rows, 2)? };
    for ord in list::<i64>(&rows, 1)? {
        let index = ord as usize - 1;
        if let (Some(written), Some(part)) = (reply.written.get_mut(index), parts.get(index)) {
            *written = Some(part.follows());
        }
    }
    Ok(reply)
}

/// Sends a batch of what was made under leases.
pub(super) async fn send_leased(conn: &mut Conn, parts: &[Part]) -> Done<Reply> {
    let c = LeasedColumns::new(parts);
    let params: Params<'_> = &[
        (&c.tenants, Type::TEXT_ARRAY),
        (&c.epochs, Type::INT8_ARRAY),
        (&c.follows, Type::INT8_ARRAY),
        (&c.counts, Type::INT8_ARRAY),
        (&c.catalogs, Type::INT4_ARRAY),
        (&c.tokens, Type::INT8_ARRAY),
        (&c.id_parts, Type::INT8_ARRAY),
        (&c.ids, Type::UUID_ARRAY),
        (&c.entry_parts, Type::INT8_ARRAY),
        (&c.entry_numbers, Type::INT8_ARRAY),
        (&c.entry_at_ms, Type::INT8_ARRAY),
        (&c.entry_bodies, Type::BYTEA_ARRAY),
        (&c.id_numbers, Type::INT8_ARRAY),
        (&c.id_hours, Type::INT4_ARRAY),
    ];
    let rows = conn.rows(COMMIT_LEASED, params).await?;
    let mut reply = Reply { in_force: in_force(&rows)?, written: vec![None; parts.len()], bound: bound(&rows, 3)? };
    for (ord, before) in list::<i64>(&rows, 1)?.into_iter().zip(list::<i64>(&rows, 2)?) {
        if let Some(written) = reply.written.get_mut(ord as usize - 1) {
            *written = Some(before as Seq);
        }
    }
    Ok(reply)
}

fn in_force(rows: &[Row]) -> Done<u32> {
    let row = rows.first().ok_or_else(no_meta)?;
    let in_force: Option<i32> = get(row, 0)?;
    Ok(in_force.ok_or_else(no_meta)? as u32)
}

/// An array; empty where there is none.
fn list<'a, T: FromSql<'a>>(rows: &'a [Row], column: usize) -> Done<Vec<T>> {
    let row = rows.first().ok_or_else(no_meta)?;
    Ok(get::<Option<Vec<T>>>(row, column)?.unwrap_or_default())
}

/// Ids that are bound already, in three columns.
fn bound(rows: &[Row], column: usize) -> Done<Vec<(usize, u128, Seq)>> {
    let places = list::<i64>(rows, column)?.into_iter().zip(list::<Bits>(rows, column + 1)?);
    let bound = places.zip(list::<i64>(rows, column + 2)?);
    Ok(bound.map(|((ord, id), seq)| (ord as usize - 1, id.0, seq as Seq)).collect())
}

fn no_meta() -> Failure {
    Failure::Ledger(LedgerError::Damaged("the row of the table meta is missing".into()))
}

/// Which parts were written by an earlier try: their entries carry their token. Gives the position that they follow.
pub(super) async fn find_tokens(conn: &mut Conn, parts: &[Part]) -> Done<Vec<Option<Seq>>> {
    let tenants: Vec<&str> = parts.iter().map(|part| part.tenant.as_str()).collect();
    // Under a lease it can be anywhere after the entry that granted it.
    let from = |part: &Part| part.under().unwrap_or(part.follows()) as i64 + 1;
    let to = |part: &Part| if part.under().is_some() { i64::MAX } else { part.follows() as i64 + 1 };
    let froms: Vec<i64> = parts.iter().map(from).collect();
    let tos: Vec<i64> = parts.iter().map(to).collect();
    let tokens: Vec<i64> = parts.iter().map(|part| part.token).collect();
    let params: Params<'_> = &[
        (&tenants, Type::TEXT_ARRAY),
        (&froms, Type::INT8_ARRAY),
        (&tos, Type::INT8_ARRAY),
        (&tokens, Type::INT8_ARRAY),
    ];
    let sql = "SELECT p.ord, e.seq FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
                   WITH ORDINALITY AS p(tenant, least, most, token, ord)
               CROSS JOIN LATERAL (
                   SELECT min(e.seq) AS seq FROM tidegate.entries e
                   WHERE e.tenant = p.tenant AND e.seq BETWEEN p.least AND p.most AND e.token = p.token
               ) e WHERE e.seq IS NOT NULL";
    let mut found = vec![None; parts.len()];
    for row in conn.rows(sql, params).await? {
        if let Some(found) = found.get_mut(get::<i64>(&row, 0)? as usize - 1) {
            *found = Some(get::<i64>(&row, 1)? as Seq - 1);
        }
    }
    Ok(found)
}
