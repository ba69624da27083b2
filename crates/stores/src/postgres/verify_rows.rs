//! What a verification reads, page by page.

use super::{
    errors::Done,
    pool::Conn,
    refold::{Kept, TotalRow},
    values::{Bits, Params, get},
};
use domain::time::Instant;
use engine::ports::Seq;
use tokio_postgres::{Row, types::Type};

/// Rows read in one statement.
pub(super) const PAGE_ROWS: usize = 10_000;

/// Tenants listed in one statement.
const PAGE_TENANTS: i64 = 500;

/// Every table that names tenants: one that is listed nowhere else is found as well.
const TABLES: [&str; 9] =
    ["tenants", "entries", "ids", "folds", "user_folds", "closed", "denials", "openings", "opening_closed"];

/// A tenant, and how many entries of it there are, about.
pub(super) struct Listed {
    pub(super) tenant: String,
    pub(super) entries: u64,
}

/// Tenants after one, wherever they are named.
pub(super) async fn tenants(conn: &mut Conn, after: &str) -> Done<Vec<Listed>> {
    let next = |after: &str| {
        let least = TABLES.map(|table| format!("(SELECT min(tenant) FROM tidegate.{table} WHERE tenant > {after})"));
        format!("least({})", least.join(", "))
    };
    let sql = format!(
        r#"WITH RECURSIVE found(tenant) AS (
               SELECT {} COLLATE "C" UNION ALL SELECT {} COLLATE "C" FROM found WHERE found.tenant IS NOT NULL
           ), listed AS (SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT $2)
           SELECT l.tenant, greatest(coalesce(t.version, 0) - coalesce(o.seq, 0), 0)
           FROM listed l LEFT JOIN tidegate.tenants t ON t.tenant = l.tenant
           LEFT JOIN tidegate.openings o ON o.tenant = l.tenant AND o.user_id = '' ORDER BY l.tenant"#,
        next("$1"),
        next("found.tenant")
    );
    let rows = conn.rows(&sql, &[(&after, Type::TEXT), (&PAGE_TENANTS, Type::INT8)]).await?;
    rows.iter().map(|row| Ok(Listed { tenant: get(row, 0)?, entries: get::<i64>(row, 1)? as u64 })).collect()
}

/// How many entries there are, about: without reading them.
pub(super) async fn entries_about(conn: &mut Conn) -> Done<u64> {
    let sql = "SELECT coalesce((SELECT max(position) FROM tidegate.entries)
                   - (SELECT min(position) FROM tidegate.entries) + 1, 0)";
    Ok(super::values::first::<i64>(&conn.rows(sql, &[]).await?)?.unwrap_or(0) as u64)
}

/// The newest catalog, and the one that is said to be in force.
pub(super) async fn catalogs(conn: &mut Conn) -> Done<(i32, i32)> {
    let sql = "SELECT catalog_version, (SELECT coalesce(max(version), 0) FROM tidegate.catalogs) FROM tidegate.meta";
    let rows = conn.rows(sql, &[]).await?;
    Ok(rows
        .first()
        .map(|row| Ok::<_, super::errors::Failure>((get(row, 0)?, get(row, 1)?)))
        .transpose()?
        .unwrap_or_default())
}

pub(super) async fn kept(conn: &mut Conn) -> Done<Kept> {
    let rows = conn.rows("SELECT ids_from_hour, denials_from_ms, history_from_ms FROM tidegate.kept", &[]).await?;
    let Some(row) = rows.first() else { return Ok(Kept::default()) };
    Ok(Kept {
        ids_from_hour: get(row, 0)?,
        denials_from: Instant::from_ms(get(row, 1)?),
        history_from: Instant::from_ms(get(row, 2)?),
    })
}

/// A page of states of some tenants' users (the empty name is the tenant itself), after one of them.
pub(super) async fn states(conn: &mut Conn, table: &str, tenants: &[&str], after: &(String, String)) -> Done<Vec<Row>> {
    let sql = format!(
        "SELECT tenant, user_id, seq, state FROM tidegate.{table}
         WHERE tenant = ANY($1) AND (tenant, user_id) > ($2, $3) ORDER BY tenant, user_id LIMIT {PAGE_ROWS}"
    );
    conn.rows(&sql, &[(&tenants, Type::TEXT_ARRAY), (&after.0, Type::TEXT), (&after.1, Type::TEXT)]).await
}

/// The rows of some tenants: tenant, version, plan, position and state of the fold.
pub(super) async fn folds(conn: &mut Conn, tenants: &[&str]) -> Done<Vec<Row>> {
    let sql = "SELECT w.tenant, t.version, t.plan, f.seq, f.state FROM unnest($1::text[]) AS w(tenant)
               LEFT JOIN tidegate.tenants t ON t.tenant = w.tenant LEFT JOIN tidegate.folds f ON f.tenant = w.tenant";
    conn.rows(sql, &[(&tenants, Type::TEXT_ARRAY)]).await
}

/// The position of a tenant's fold, and that of its opening.
pub(super) async fn positions(conn: &mut Conn, tenant: &str) -> Done<(Seq, Seq)> {
    let sql = "SELECT coalesce((SELECT seq FROM tidegate.folds WHERE tenant = $1), 0),
                   coalesce((SELECT seq FROM tidegate.openings WHERE tenant = $1 AND user_id = ''), 0)";
    let rows = conn.rows(sql, &[(&tenant, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok((0, 0)) };
    Ok((get::<i64>(row, 0)? as Seq, get::<i64>(row, 1)? as Seq))
}

/// A page of totals of some tenants, after one of them.
pub(super) async fn totals(
    conn: &mut Conn,
    table: &str,
    tenants: &[&str],
    after: &(String, TotalRow),
) -> Done<Vec<(String, TotalRow)>> {
    let sql = format!(
        "SELECT tenant, user_id, start_ms, kind, meter, end_ms, used, denied FROM tidegate.{table}
         WHERE tenant = ANY($1) AND (tenant, user_id, start_ms, kind, meter) > ($2, $3, $4, $5, $6)
         ORDER BY tenant, user_id, start_ms, kind, meter LIMIT {PAGE_ROWS}"
    );
    let (tenant, row) = after;
    let (user, meter): (&str, &str) = (&row.user, &row.meter);
    let params: Params<'_> = &[
        (&tenants, Type::TEXT_ARRAY),
        (tenant, Type::TEXT),
        (&user, Type::TEXT),
        (&row.start_ms, Type::INT8),
        (&row.kind, Type::INT2),
        (&meter, Type::TEXT),
    ];
    let read = |row: &Row| {
        let total = TotalRow {
            user: get::<&str>(row, 1)?.into(),
            start_ms: get(row, 2)?,
            kind: get(row, 3)?,
            meter: get::<&str>(row, 4)?.into(),
            end_ms: get(row, 5)?,
            used: get(row, 6)?,
            denied: get(row, 7)?,
        };
        Ok((get(row, 0)?, total))
    };
    conn.rows(&sql, params).await?.iter().map(read).collect()
}

/// A page of entries of some tenants, after a position of one of them, through the fold or behind it.
pub(super) async fn entries(conn: &mut Conn, tenants: &[&str], after: (&str, i64), folded: bool) -> Done<Vec<Row>> {
    let which = if folded { "e.seq <= f.seq" } else { "e.seq > coalesce(f.seq, 0)" };
    let sql = format!(
        "SELECT e.tenant, e.seq, e.at_ms, e.body
         FROM tidegate.entries e LEFT JOIN tidegate.folds f ON f.tenant = e.tenant
         WHERE e.tenant = ANY($1) AND (e.tenant, e.seq) > ($2, $3) AND {which}
         ORDER BY e.tenant, e.seq LIMIT {PAGE_ROWS}"
    );
    conn.rows(&sql, &[(&tenants, Type::TEXT_ARRAY), (&after.0, Type::TEXT), (&after.1, Type::INT8)]).await
}

/// A page of one tenant's entries, between two positions.
pub(super) async fn stretch(conn: &mut Conn, tenant: &str, after: i64, through: i64) -> Done<Vec<Row>> {
    let sql = format!(
        "SELECT tenant, seq, at_ms, body FROM tidegate.entries
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT {PAGE_ROWS}"
    );
    conn.rows(&sql, &[(&tenant, Type::TEXT), (&after, Type::INT8), (&through, Type::INT8)]).await
}

/// Where ids lead.
pub(super) async fn find(conn: &mut Conn, tenants: &[&str], ids: &[Bits]) -> Done<Vec<Option<Seq>>> {
    let sql = "SELECT d.seq FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS i(tenant, id, ord)
               LEFT JOIN tidegate.ids d ON d.tenant = i.tenant AND d.id = i.id ORDER BY i.ord";
    let rows = conn.rows(sql, &[(&tenants, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)]).await?;
    rows.iter().map(|row| Ok(get::<Option<i64>>(row, 0)?.map(|seq| seq as Seq))).collect()
}
