//! The small tables: catalogs, API keys, jobs, and what all nodes must hear of soon.

use super::{
    errors::{Done, damaged_row},
    pool::Conn,
    reads,
    values::{first, get},
};
use crate::codec::Malformed;
use domain::{
    id::{PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{ApiKey, JobLease, KeyScope, Published, Signals, StoredCatalog};
use std::sync::Arc;
use tokio_postgres::{Row, types::Type};

/// Keeps commits out, fairly: they hold the same lock together with others. (A share lock on a row alone could be
/// handed from commit to commit forever.)
const EXCLUDE_COMMITS: &str =
    "SELECT pg_advisory_xact_lock(1413958724, 'tidegate.meta'::regclass::oid::integer) IS NOT NULL";
const SETTINGS: &str = "SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '5s'";

pub(super) async fn signals(conn: &mut Conn) -> Done<Signals> {
    let sql = "SELECT catalog_version, keys_version, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
               FROM tidegate.meta";
    let rows = conn.rows(sql, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(damaged_row("the table meta", Malformed("its row is missing")));
    };
    Ok(Signals {
        catalog_version: get::<i32>(row, 0)? as u32,
        keys_version: get::<i64>(row, 1)? as u64,
        now: Instant::from_ms(get(row, 2)?),
    })
}

/// Puts a catalog in force, unless tenants are on plans that it lacks.
pub(super) async fn publish(conn: &mut Conn, text: &str, at: Instant, plans: Option<&[PlanKey]>) -> Done<Published> {
    conn.begin(SETTINGS).await?;
    conn.rows(EXCLUDE_COMMITS, &[]).await?;
    if let Some(plans) = plans {
        let in_use = reads::plans(conn).await?;
        let lacking: Vec<PlanKey> = in_use.into_iter().filter(|plan| !plans.contains(plan)).collect();
        if !lacking.is_empty() {
            conn.roll_back().await?;
            return Ok(Published::PlansInUse(lacking));
        }
    }
    let sql = "WITH next AS (
                   UPDATE tidegate.meta SET catalog_version = catalog_version + 1 RETURNING catalog_version
               ) INSERT INTO tidegate.catalogs (version, text, applied_at_ms) SELECT catalog_version, $1, $2 FROM next
               RETURNING version";
    let rows = conn.rows(sql, &[(&text, Type::TEXT), (&at.ms(), Type::INT8)]).await?;
    let version: i32 = first(&rows)?.unwrap_or(0);
    conn.commit().await?;
    Ok(Published::Version(version as u32))
}

/// Every catalog, oldest first; or the newest alone.
pub(super) async fn catalogs(conn: &mut Conn, newest: bool) -> Done<Vec<StoredCatalog>> {
    let sql = match newest {
        true => "SELECT version, text, applied_at_ms FROM tidegate.catalogs ORDER BY version DESC LIMIT 1",
        false => "SELECT version, text, applied_at_ms FROM tidegate.catalogs ORDER BY version",
    };
    let read = |row: &Row| {
        Ok(StoredCatalog {
            version: get::<i32>(row, 0)? as u32,
            text: get::<&str>(row, 1)?.into(),
            applied_at: Instant::from_ms(get(row, 2)?),
        })
    };
    conn.rows(sql, &[]).await?.iter().map(read).collect()
}

/// Every key, in order of id.
pub(super) async fn keys(conn: &mut Conn) -> Done<Vec<ApiKey>> {
    let sql = "SELECT id, hash, name, scope, tenant, created_at_ms, created_by, revoked_at_ms
               FROM tidegate.api_keys ORDER BY id";
    conn.rows(sql, &[]).await?.iter().map(key).collect()
}

fn key(row: &Row) -> Done<ApiKey> {
    let id: Arc<str> = get::<&str>(row, 0)?.into();
    let damaged = |why| damaged_row(format_args!("API key {id}"), Malformed(why));
    let scope = match (get(row, 3)?, get::<Option<&str>>(row, 4)?) {
        ("admin", None) => KeyScope::Admin,
        ("ingest", None) => KeyScope::Ingest,
        ("read", None) => KeyScope::Read,
        ("tenant", Some(tenant)) => KeyScope::Tenant(TenantId::trusted(tenant)),
        _ => return Err(damaged("its scope is unknown")),
    };
    let hash: &[u8] = get(row, 1)?;
    Ok(ApiKey {
        hash: hash.try_into().map_err(|_| damaged("its hash is not as long as a hash"))?,
        name: get::<&str>(row, 2)?.into(),
        scope,
        created_at: Instant::from_ms(get(row, 5)?),
        created_by: get::<&str>(row, 6)?.into(),
        revoked_at: get::<Option<i64>>(row, 7)?.map(Instant::from_ms),
        id,
    })
}

/// Writes a key, and lets all nodes know.
pub(super) async fn put_key(conn: &mut Conn, key: &ApiKey) -> Done<()> {
    let (scope, tenant) = match &key.scope {
        KeyScope::Admin => ("admin", None),
        KeyScope::Ingest => ("ingest", None),
        KeyScope::Read => ("read", None),
        KeyScope::Tenant(tenant) => ("tenant", Some(tenant.as_str())),
    };
    conn.begin(SETTINGS).await?;
    conn.rows(EXCLUDE_COMMITS, &[]).await?;
    let sql = "WITH known AS (UPDATE tidegate.meta SET keys_version = keys_version + 1)
               INSERT INTO tidegate.api_keys (id, hash, name, scope, tenant, created_at_ms, created_by, revoked_at_ms)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE
               SET hash = excluded.hash, name = excluded.name, scope = excluded.scope, tenant = excluded.tenant,
                   created_at_ms = excluded.created_at_ms, created_by = excluded.created_by,
                   revoked_at_ms = excluded.revoked_at_ms";
    conn.rows(
        sql,
        &[
            (&&*key.id, Type::TEXT),
            (&&key.hash[..], Type::BYTEA),
            (&&*key.name, Type::TEXT),
            (&scope, Type::TEXT),
            (&tenant, Type::TEXT),
            (&key.created_at.ms(), Type::INT8),
            (&&*key.created_by, Type::TEXT),
            (&key.revoked_at.map(Instant::ms), Type::INT8),
        ],
    )
    .await?;
    conn.commit().await
}

/// Takes or renews a job. The epoch grows when another node takes it over.
pub(super) async fn claim(conn: &mut Conn, job: &str, node: &str, ttl_ms: i64) -> Done<Option<JobLease>> {
    let sql = "INSERT INTO tidegate.jobs AS held (job, node, epoch, expires_at)
               VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 millisecond')
               ON CONFLICT (job) DO UPDATE
               SET node = excluded.node, epoch = held.epoch + (held.node <> excluded.node)::integer,
                   expires_at = clock_timestamp() + $3 * interval '1 millisecond'
               WHERE held.node = excluded.node OR held.expires_at <= clock_timestamp()
               RETURNING epoch";
    let ttl_ms = ttl_ms.clamp(0, 366 * domain::time::DAY_MS) as f64;
    let rows = conn.rows(sql, &[(&job, Type::TEXT), (&node, Type::TEXT), (&ttl_ms, Type::FLOAT8)]).await?;
    let epoch: Option<i64> = first(&rows)?;
    Ok(epoch.map(|epoch| JobLease { job: job.into(), node: node.into(), epoch: epoch as u64 }))
}

/// Gives a job back.
pub(super) async fn release(conn: &mut Conn, lease: &JobLease) -> Done<()> {
    let sql = "UPDATE tidegate.jobs SET expires_at = '-infinity' WHERE job = $1 AND node = $2 AND epoch = $3";
    let epoch = i64::try_from(lease.epoch).unwrap_or(i64::MAX);
    conn.rows(sql, &[(&&*lease.job, Type::TEXT), (&&*lease.node, Type::TEXT), (&epoch, Type::INT8)]).await?;
    Ok(())
}
