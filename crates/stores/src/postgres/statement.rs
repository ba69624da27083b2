//! The statement that commits a batch, and what it says.

use super::{
    batch::{Columns, Part, runs_of},
    errors::{Done, Failure},
    pool::Conn,
    values::{Bits, Params, get},
};
use engine::ports::{LedgerError, Seq};
use std::sync::LazyLock;
use tokio_postgres::types::Type;

const COMMIT: &str = include_str!("commit.sql");
const DENIALS: &str = include_str!("commit_denials.sql");

/// Whether rows that another transaction has locked are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    /// Their parts are stale.
    Skip,
    /// Waited for, for two seconds.
    Wait,
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
    /// For each part, whether it was written.
    pub(super) written: Vec<bool>,
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
    let row = rows.first().ok_or_else(no_meta)?;
    let in_force: Option<i32> = get(row, 0)?;
    let in_force = in_force.ok_or_else(no_meta)?;
    let mut written = vec![false; parts.len()];
    for ord in get::<Option<Vec<i64>>>(row, 1)?.unwrap_or_default() {
        if let Some(written) = written.get_mut(ord as usize - 1) {
            *written = true;
        }
    }
    let ords = get::<Option<Vec<i64>>>(row, 2)?.unwrap_or_default();
    let ids = get::<Option<Vec<Bits>>>(row, 3)?.unwrap_or_default();
    let seqs = get::<Option<Vec<i64>>>(row, 4)?.unwrap_or_default();
    let bound = ords.into_iter().zip(ids).zip(seqs);
    let bound = bound.map(|((ord, id), seq)| (ord as usize - 1, id.0, seq as Seq)).collect();
    Ok(Reply { in_force: in_force as u32, written, bound })
}

fn no_meta() -> Failure {
    Failure::Ledger(LedgerError::Damaged("the row of the table meta is missing".into()))
}

/// Which parts were written by an earlier try: their first entry carries their token.
pub(super) async fn find_tokens(conn: &mut Conn, parts: &[Part]) -> Done<Vec<bool>> {
    let tenants: Vec<&str> = parts.iter().map(|part| part.tenant.as_str()).collect();
    let seqs: Vec<i64> = parts.iter().map(|part| part.follows() as i64 + 1).collect();
    let tokens: Vec<i64> = parts.iter().map(|part| part.token).collect();
    let params: Params<'_> = &[(&tenants, Type::TEXT_ARRAY), (&seqs, Type::INT8_ARRAY), (&tokens, Type::INT8_ARRAY)];
    let sql = "SELECT p.ord FROM unnest($1::text[], $2::bigint[], $3::bigint[])
                   WITH ORDINALITY AS p(tenant, seq, token, ord)
               JOIN tidegate.entries e ON e.tenant = p.tenant AND e.seq = p.seq AND e.token = p.token";
    let mut found = vec![false; parts.len()];
    for row in conn.rows(sql, params).await? {
        if let Some(found) = found.get_mut(get::<i64>(&row, 0)? as usize - 1) {
            *found = true;
        }
    }
    Ok(found)
}
