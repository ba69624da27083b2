//! Folds, written down in slices between commits.
//!
//! A tenant, its changed users and what their closed windows gained go into one transaction, and only if the fold is
//! newer than the row: so no user's row is ahead of its tenant's, a fold written twice counts once, and a crash between
//! two slices leaves rows that are each true for their own position. The position through which everything is in folds
//! is written last.

use super::{
    closed,
    denials::write_run,
    errors::OrDamaged,
    queue::{Frozen, Queue, Work},
    schema,
};
use crate::rows::listed_plan;
pub(super) use crate::rows::{read_tenant_row, read_user_row, tenant_row, user_row};
use domain::{id::TenantId, tenant::User};
use engine::ports::{Fold, LedgerError, Seq, Stored};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::{
    sync::{Arc, Weak},
    time::Instant,
    vec,
};

/// The position through which everything is in folds, in `meta`.
pub(super) const COMPLETE_THROUGH: &str = "complete_through";

/// Folds and the order in which they are written.
pub(super) struct Ordered {
    folds: Vec<Fold>,
    order: Vec<usize>,
}

impl Ordered {
    pub(super) fn new(mut folds: Vec<Fold>) -> Self {
        for fold in &mut folds {
            fold.users.sort_unstable_by(|a, b| a.state.id.cmp(&b.state.id));
        }
        let mut order: Vec<usize> = (0..folds.len()).collect();
        order.sort_by(|a, b| folds[*a].tenant.state.id.cmp(&folds[*b].tenant.state.id));
        Self { folds, order }
    }
}

/// A checkpoint that is being written.
pub(super) struct Checkpoint {
    folds: Vec<Fold>,
    /// The folds in order of tenant: neighbours share a page, which is then written once.
    order: vec::IntoIter<usize>,
    denials: Frozen,
    denials_written: usize,
    complete_through: Option<Seq>,
    queue: Weak<Queue>,
}

impl Checkpoint {
    pub(super) fn new(folds: Ordered, denials: Frozen, complete_through: Option<Seq>, queue: &Arc<Queue>) -> Self {
        let queue = Arc::downgrade(queue);
        let Ordered { folds, order } = folds;
        Self { folds, order: order.into_iter(), denials, denials_written: 0, complete_through, queue }
    }

    fn write(&mut self, conn: &mut Connection, until: Instant) -> rusqlite::Result<(bool, u64)> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut rows = 0;
        let mut done = false;
        while !done {
            if let Some(index) = self.order.next() {
                rows += write_fold(&transaction, &self.folds[index])?;
            } else if let Some((id, run)) = self.denials.get(self.denials_written) {
                write_run(&transaction, *id, run)?;
                self.denials_written += 1;
                rows += 1;
            } else {
                if let Some(seq) = self.complete_through {
                    let known = schema::number(&transaction, COMPLETE_THROUGH)?;
                    schema::set_number(&transaction, COMPLETE_THROUGH, known.max(seq as i64))?;
                }
                done = true;
            }
            if Instant::now() >= until {
                break;
            }
        }
        transaction.commit()?;
        Ok((done, rows))
    }
}

impl Work for Checkpoint {
    fn slice(&mut self, conn: &mut Connection, until: Instant) -> Result<bool, LedgerError> {
        let began = Instant::now();
        let (done, rows) = self.write(conn, until).or_unwritable()?;
        let Some(queue) = self.queue.upgrade() else { return Ok(done) };
        let mut state = queue.state.lock();
        state.stats.checkpoint_rows += rows;
        state.stats.checkpoint_us += began.elapsed().as_micros() as u64;
        if done {
            state.complete_through = state.complete_through.max(self.complete_through.unwrap_or(0));
            // Checkpoints run in the order in which they were queued, so the oldest stretch is this one's.
            queue.denials.lock().frozen.pop_front();
        }
        Ok(done)
    }

    /// A fold that is missing while later ones are complete would be use that is forgotten.
    fn is_vital(&self) -> bool {
        true
    }
}

/// Writes a tenant and its users, if the tenant's row is older; gives the number of rows written.
pub(super) fn write_fold(conn: &Connection, fold: &Fold) -> rusqlite::Result<u64> {
    let tenant = &fold.tenant;
    let id = &tenant.state.id;
    let known: Option<i64> = conn
        .prepare_cached("SELECT seq FROM tenants WHERE tenant = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    if known.is_some_and(|known| known as Seq >= tenant.seq) {
        return Ok(0);
    }
    let mut rows = 1;
    for user in &fold.users {
        rows += write_user(conn, id, user)?;
    }
    closed::add(conn, closed::Table::Live, id, None, tenant.state.accounts.closed())?;
    let body = tenant_row(tenant);
    conn.prepare_cached(
        "INSERT INTO tenants(tenant, seq, plan, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(tenant) DO UPDATE SET seq = excluded.seq, plan = excluded.plan, body = excluded.body",
    )?
    .execute(params![id.as_str(), tenant.seq as i64, listed_plan(&tenant.state.profile).as_str(), body])?;
    Ok(rows)
}

fn write_user(conn: &Connection, tenant: &TenantId, user: &Stored<User>) -> rusqlite::Result<u64> {
    let id = &user.state.id;
    let known: Option<i64> = conn
        .prepare_cached("SELECT seq FROM users WHERE tenant = ?1 AND user = ?2")?
        .query_row([tenant.as_str(), id.as_str()], |row| row.get(0))
        .optional()?;
    if known.is_some_and(|known| known as Seq >= user.seq) {
        return Ok(0);
    }
    closed::add(conn, closed::Table::Live, tenant, Some(id), user.state.accounts.closed())?;
    conn.prepare_cached(
        "INSERT INTO users(tenant, user, seq, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(tenant, user) DO UPDATE SET seq = excluded.seq, body = excluded.body",
    )?
    .execute(params![tenant.as_str(), id.as_str(), user.seq as i64, user_row(tenant, user)])?;
    Ok(1)
}
