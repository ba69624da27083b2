//! The journal of all tenants, in the order of all. What is returned is complete: nothing can appear before it later.

use super::{
    errors::Done,
    pool::Conn,
    reads::read_entry,
    values::{first, get},
};
use domain::id::TenantId;
use engine::ports::{LedgerError, Line, Seq};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

/// How long transactions that are under way are waited for.
const WAIT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Entries after `after`, in order. None that come after a transaction which does not end: where that leaves fewer than
/// there may be, it is an error, so that nobody takes them for all.
pub(super) async fn after(conn: &mut Conn, after: Seq, limit: usize, settled: &mut i64) -> Done<Vec<Line>> {
    let waiting = settle(conn, settled).await?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = "SELECT position, tenant, seq, at_ms, body FROM tidegate.entries
               WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3";
    let rows = conn.rows(sql, &[(&after, Type::INT8), (&*settled, Type::INT8), (&limit, Type::INT8)]).await?;
    let line = |row| {
        let tenant = TenantId::trusted(get(row, 1)?);
        let entry = read_entry(&tenant, get(row, 2)?, get(row, 3)?, get(row, 4)?)?;
        Ok((get::<i64>(row, 0)? as Seq, tenant, entry))
    };
    if waiting > 0 && rows.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(LedgerError::Overloaded { waiting }.into());
    }
    rows.iter().map(line).collect()
}

/// Moves `settled` on to a place at or before which no entry can appear any more. Gives how many transactions did not
/// end while they were waited for: then it is not as far as it could be.
async fn settle(conn: &mut Conn, settled: &mut i64) -> Done<usize> {
    let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tidegate.entries_position_seq";
    let reached: i64 = first(&conn.rows(sql, &[]).await?)?.unwrap_or(0);
    if reached == *settled {
        return Ok(0);
    }
    // Sequences run ahead of what is committed, so this one falls where a replica has taken over: nothing is known then.
    if reached < *settled {
        *settled = 0;
    }
    // Whoever has taken a place until now holds this lock until the transaction has ended and all can see what it did.
    let mut writers = writers(conn).await?;
    let began = Instant::now();
    while !writers.is_empty() {
        if began.elapsed() >= WAIT {
            tracing::warn!("a transaction on the journal does not end; what came after it is not read yet");
            return Ok(writers.len());
        }
        sleep(LOOK_EVERY).await;
        let still = self::writers(conn).await?;
        writers.retain(|writer| still.contains(writer));
    }
    *settled = reached;
    Ok(0)
}

async fn writers(conn: &mut Conn) -> Done<Vec<String>> {
    let sql = "SELECT virtualtransaction FROM pg_catalog.pg_locks
               WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
                 AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                 AND relation = 'tidegate.entries'::regclass";
    conn.rows(sql, &[]).await?.iter().map(|row| get(row, 0)).collect()
}
