//! Denials: one row a run, written in the commit that counts them.

use super::{
    errors::{Done, damaged_row},
    pool::Conn,
    values::{Bits, get},
};
use crate::codec;
use domain::{id::TenantId, time::Instant};
use engine::ports::{DenialId, DenialQuery, StoredDenial};
use tokio_postgres::{Row, types::Type};

const COLUMNS: &str = "id, tenant, count, amount, first_at_ms, last_at_ms, body";

pub(super) fn read(row: &Row) -> Done<StoredDenial> {
    let id = DenialId(get::<Bits>(row, 0)?.0);
    let tenant: &str = get(row, 1)?;
    let mut run = codec::checked(&[tenant, &id.to_string()], &[], get(row, 6)?)
        .and_then(codec::decode_run)
        .map_err(|why| damaged_row(format_args!("denial {id}"), why))?;
    // The bytes are those of the first stretch of the run; the columns have the totals.
    (run.count, run.amount) = (get(row, 2)?, get(row, 3)?);
    run.first_at = Instant::from_ms(get(row, 4)?);
    run.last_at = Instant::from_ms(get(row, 5)?);
    Ok(StoredDenial { id, tenant: TenantId::trusted(tenant), run })
}

/// One denial.
pub(super) async fn one(conn: &mut Conn, id: DenialId) -> Done<Option<StoredDenial>> {
    let sql = format!("SELECT {COLUMNS} FROM tidegate.denials WHERE id = $1");
    let rows = conn.rows(&sql, &[(&Bits(id.0), Type::UUID)]).await?;
    rows.first().map(read).transpose()
}

/// A batch of all of them, in order of id.
pub(super) async fn after(conn: &mut Conn, id: u128, limit: usize) -> Done<Vec<StoredDenial>> {
    let sql = format!("SELECT {COLUMNS} FROM tidegate.denials WHERE id > $1 ORDER BY id LIMIT $2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    conn.rows(&sql, &[(&Bits(id), Type::UUID), (&limit, Type::INT8)]).await?.iter().map(read).collect()
}

/// A batch of those of some tenants, in order of tenant and id, not yet read: see [`read`].
pub(super) async fn of_tenants(conn: &mut Conn, tenants: &[&str], after: (&str, u128), limit: usize) -> Done<Vec<Row>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tidegate.denials WHERE tenant = ANY($1) AND (tenant, id) > ($2, $3)
         ORDER BY tenant, id LIMIT $4"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (tenant, id) = (after.0, Bits(after.1));
    let params: super::values::Params<'_> =
        &[(&tenants, Type::TEXT_ARRAY), (&tenant, Type::TEXT), (&id, Type::UUID), (&limit, Type::INT8)];
    conn.rows(&sql, params).await
}

/// One page of the listing, newest first.
pub(super) async fn list(conn: &mut Conn, query: &DenialQuery) -> Done<Vec<StoredDenial>> {
    let whose = if query.tenant.is_some() { "tenant = $8" } else { "$8::text IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM tidegate.denials
         WHERE {whose} AND shadow = $1 AND (first_at_ms, id) < ($2, $3)
           AND ($4::text IS NULL OR user_id = $4) AND ($5::text IS NULL OR code = $5)
           AND ($6::text IS NULL OR meter = $6)
         ORDER BY first_at_ms DESC, id DESC LIMIT $7"
    );
    let (before_ms, before_id) =
        query.before.map_or((i64::MAX, u128::MAX), |before| (before.first_at.ms(), before.id.0));
    let user = query.user.as_ref().map(|user| user.as_str());
    let code = query.code.map(|code| code.word());
    let meter = query.meter.as_ref().map(|meter| meter.as_str());
    let tenant = query.tenant.as_ref().map(|tenant| tenant.as_str());
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let rows = conn
        .rows(
            &sql,
            &[
                (&query.shadow, Type::BOOL),
                (&before_ms, Type::INT8),
                (&Bits(before_id), Type::UUID),
                (&user, Type::TEXT),
                (&code, Type::TEXT),
                (&meter, Type::TEXT),
                (&limit, Type::INT8),
                (&tenant, Type::TEXT),
            ],
        )
        .await?;
    rows.iter().map(read).collect()
}
