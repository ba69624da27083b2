//! Reads of tenants, users, entries and ids.

use super::{
    errors::{Done, damaged_row},
    pool::Conn,
    values::{Bits, first, get},
};
use crate::{
    codec::{self, Malformed},
    rows::{is_plan, read_tenant_row, read_user_row},
};
use domain::{
    entry::{ClosedWindow, Entry},
    id::{MeterKey, PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::{Instant, Window, WindowKind},
};
use engine::ports::{ClosedRow, Loaded, Seq, Stored};
use tokio_postgres::{Row, types::Type};

const ENTRY: i16 = 1;

/// The fold and what came after it, in one snapshot.
pub(super) async fn load(conn: &mut Conn, id: &TenantId) -> Done<Loaded> {
    let sql = "SELECT 0::smallint, seq, 0::bigint, state FROM tidegate.folds WHERE tenant = $1
               UNION ALL
               SELECT 1::smallint, seq, at_ms, body FROM tidegate.entries
               WHERE tenant = $1 AND seq > coalesce((SELECT seq FROM tidegate.folds WHERE tenant = $1), 0)";
    let mut fold = None;
    let mut after: Vec<(Seq, Entry)> = Vec::new();
    for row in conn.rows(sql, &[(&id.as_str(), Type::TEXT)]).await? {
        let seq: i64 = get(&row, 1)?;
        match get::<i16>(&row, 0)? {
            ENTRY => after.push((seq as Seq, read_entry(id, seq, get(&row, 2)?, get(&row, 3)?)?)),
            _ => fold = Some(tenant(id, seq, get(&row, 3)?)?),
        }
    }
    after.sort_unstable_by_key(|(seq, _)| *seq);
    let begins = fold.as_ref().map_or(0, |fold: &Stored<Tenant>| fold.seq) + 1;
    if !after.iter().map(|(seq, _)| *seq).eq(begins..begins + after.len() as Seq) {
        return Err(damaged_row(format_args!("the journal of tenant {id:?}"), Malformed("entries are missing")));
    }
    Ok(Loaded { fold, after })
}

fn tenant(id: &TenantId, seq: i64, state: &[u8]) -> Done<Stored<Tenant>> {
    read_tenant_row(id, seq, state).map_err(|why| damaged_row(format_args!("tenant {id:?}"), why))
}

/// The bytes of an entry. Those of one that was made under a lease were sealed before it had a position.
pub(super) fn checked_entry<'a>(tenant: &str, seq: i64, at_ms: i64, body: &'a [u8]) -> Result<&'a [u8], Malformed> {
    codec::checked(&[tenant], &[seq, at_ms], body)
        .or_else(|why| codec::checked(&[tenant], &[at_ms], body).map_err(|_| why))
}

/// An entry as it stands in its row.
pub(super) fn read_entry(tenant: &TenantId, seq: i64, at_ms: i64, body: &[u8]) -> Done<Entry> {
    checked_entry(tenant.as_str(), seq, at_ms, body)
        .and_then(|body| codec::decode_entry(Instant::from_ms(at_ms), body))
        .map_err(|why| damaged_row(format_args!("entry {seq} of tenant {tenant:?}"), why))
}

/// The fold of a tenant.
pub(super) async fn load_tenant(conn: &mut Conn, id: &TenantId) -> Done<Option<Stored<Tenant>>> {
    let sql = "SELECT seq, state FROM tidegate.folds WHERE tenant = $1";
    let rows = conn.rows(sql, &[(&id.as_str(), Type::TEXT)]).await?;
    rows.first().map(|row| tenant(id, get(row, 0)?, get(row, 1)?)).transpose()
}

/// The fold of a user.
pub(super) async fn load_user(conn: &mut Conn, tenant: &TenantId, id: &UserId) -> Done<Option<Stored<User>>> {
    let sql = "SELECT seq, state FROM tidegate.user_folds WHERE tenant = $1 AND user_id = $2";
    let rows = conn.rows(sql, &[(&tenant.as_str(), Type::TEXT), (&id.as_str(), Type::TEXT)]).await?;
    let read = |row: &Row| {
        read_user_row(tenant, id, get(row, 0)?, get(row, 1)?)
            .map_err(|why| damaged_row(format_args!("user {id:?} of tenant {tenant:?}"), why))
    };
    rows.first().map(read).transpose()
}

/// One entry.
pub(super) async fn entry(conn: &mut Conn, tenant: &TenantId, seq: Seq) -> Done<Option<Entry>> {
    let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
    let sql = "SELECT at_ms, body FROM tidegate.entries WHERE tenant = $1 AND seq = $2";
    let rows = conn.rows(sql, &[(&tenant.as_str(), Type::TEXT), (&seq, Type::INT8)]).await?;
    rows.first().map(|row| read_entry(tenant, seq, get(row, 0)?, get(row, 1)?)).transpose()
}

/// Which entry an id is bound to.
pub(super) async fn find(conn: &mut Conn, tenant: &TenantId, id: u128) -> Done<Option<Seq>> {
    let sql = "SELECT seq FROM tidegate.ids WHERE tenant = $1 AND id = $2";
    let rows = conn.rows(sql, &[(&tenant.as_str(), Type::TEXT), (&Bits(id), Type::UUID)]).await?;
    Ok(first::<i64>(&rows)?.map(|seq| seq as Seq))
}

/// Tenants with an entry.
pub(super) async fn tenants(conn: &mut Conn, after: Option<TenantId>, limit: usize) -> Done<Vec<TenantId>> {
    let sql = "SELECT tenant FROM tidegate.tenants WHERE tenant > $1 ORDER BY tenant LIMIT $2";
    let after = after.as_ref().map_or("", TenantId::as_str);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = conn.rows(sql, &[(&after, Type::TEXT), (&limit, Type::INT8)]).await?;
    rows.iter().map(|row| Ok(TenantId::trusted(get(row, 0)?))).collect()
}

/// The plans of all tenants that are not pinned. Jumps from plan to plan along the index, however many tenants there are.
pub(super) async fn plans(conn: &mut Conn) -> Done<Vec<PlanKey>> {
    let sql = r#"WITH RECURSIVE found(plan) AS (
                    SELECT min(plan) FROM tidegate.tenants WHERE plan IS NOT NULL
                    UNION ALL
                    SELECT (SELECT min(t.plan) FROM tidegate.tenants t WHERE t.plan IS NOT NULL AND t.plan > found.plan)
                    FROM found WHERE found.plan IS NOT NULL
                 ) SELECT plan FROM found WHERE plan IS NOT NULL ORDER BY plan COLLATE "C""#;
    let rows = conn.rows(sql, &[]).await?;
    let mut plans: Vec<PlanKey> = rows.iter().map(|row| Ok(PlanKey::trusted(get(row, 0)?))).collect::<Done<_>>()?;
    plans.retain(is_plan);
    Ok(plans)
}

/// Totals of closed windows, oldest first.
pub(super) async fn closed(conn: &mut Conn, tenant: &TenantId, user: Option<UserId>) -> Done<Vec<ClosedRow>> {
    let sql = "SELECT start_ms, end_ms, kind, meter, used, denied FROM tidegate.closed
               WHERE tenant = $1 AND user_id = $2 ORDER BY start_ms, kind, meter";
    let user = user.as_ref().map_or("", UserId::as_str);
    let rows = conn.rows(sql, &[(&tenant.as_str(), Type::TEXT), (&user, Type::TEXT)]).await?;
    rows.iter().map(|row| closed_row(tenant, row)).collect()
}

fn closed_row(tenant: &TenantId, row: &Row) -> Done<ClosedRow> {
    let kind: i16 = get(row, 2)?;
    let kind = usize::try_from(kind).ok().and_then(|index| WindowKind::ALL.get(index).copied());
    let unknown = || damaged_row(format_args!("history of {tenant:?}"), Malformed("an unknown kind of window"));
    let kind = kind.ok_or_else(unknown)?;
    let window = Window { start: Instant::from_ms(get(row, 0)?), end: Instant::from_ms(get(row, 1)?) };
    let meter = MeterKey::trusted(get(row, 3)?);
    Ok(ClosedRow { meter, closed: ClosedWindow { kind, window }, used: get(row, 4)?, denied: get(row, 5)? })
}
