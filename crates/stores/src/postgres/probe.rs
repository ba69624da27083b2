//! Whether a commit would go through, found out without one: a server that answers may still be read-only, have its disk
//! full, or wait for a replica that is away.

use super::{
    batch::Part,
    errors::{Done, Failure},
    pool::Conn,
    queued::Queued,
    statement::{self, Locked},
    values::first,
};
use domain::{
    entry::{Cause, Entry},
    id::TenantId,
    time::Instant,
};
use engine::ports::{Append, LedgerError};

/// As long as this, an entry does not fit into what is left on pages that are there: the table's file has to grow.
const NOTE_BYTES: usize = 64 * 1024;

/// Commits of ours that wait for a replica, and have done so for longer than one that answers takes.
const WAITING: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity
                       WHERE wait_event = 'SyncRep' AND datname = current_database() AND usename = current_user
                         AND query_start < clock_timestamp() - interval '2 seconds'";

/// Does what a commit does, and takes it back; then commits what changes nothing.
pub(super) async fn commit_in_vain(conn: &mut Conn, random: u64) -> Done<()> {
    // Another one that hangs would only hold another connection of the server's.
    let rows = conn.rows(WAITING, &[]).await?;
    if first::<i64>(&rows)? > Some(0) {
        return Err(Failure::Refused("PostgreSQL: commits wait for a synchronous replica that does not answer".into()));
    }
    // Nobody can be called so, and no two nodes call theirs the same.
    let tenant = TenantId::trusted(&format!("\u{1}probe {random:016x}"));
    let entry = Entry {
        at: Instant::from_ms(0),
        catalog: u32::MAX,
        cause: Cause::ALL[0],
        binding: None,
        user: None,
        dimensions: Vec::new(),
        note: Some("x".repeat(NOTE_BYTES).into()),
        effects: Vec::new(),
    };
    let parts = [Part::new(Queued::new(Append::new(tenant, vec![entry])))];
    conn.begin("SET LOCAL lock_timeout = '2s'").await?;
    let reply = statement::send(conn, &parts, Locked::Skip).await?;
    conn.roll_back().await?;
    if reply.written != [Some(0)] {
        return Err(Failure::Ledger(LedgerError::Damaged("PostgreSQL: a new tenant is not written".into())));
    }
    // Whoever locks a row has written to the server's log, and waits until it is where it has to be.
    conn.rows("SELECT one FROM tidegate.meta WHERE one FOR SHARE", &[]).await?;
    Ok(())
}
