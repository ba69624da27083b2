//! Checkpoints: folds are written by a task of their own, in slices, in the order in which they came.

use super::{
    errors::{Done, Failure},
    ledger::Inner,
    pool::Conn,
    queue::Waiter,
    values::get,
};
use crate::rows::{tenant_row, user_row};
use domain::{
    id::{MeterKey, TenantId, UserId},
    tenant::ClosedTotal,
    time::Instant,
};
use engine::ports::{Commit, Fold, LedgerError};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_postgres::types::Type;

const WRITE: &str = include_str!("folds.sql");

/// Folds in one transaction.
const SLICE: usize = 64;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Folds to write.
pub(super) struct Checkpoint {
    /// Each with the commit of what it is a fold of.
    pub(super) folds: Vec<(Fold, Commit)>,
    /// How many entries this node had committed when everything before was handed over, if it is complete.
    pub(super) covers: Option<u64>,
    pub(super) done: Waiter,
}

/// Writes checkpoints until nobody can hand over any more.
pub(super) async fn run(inner: Weak<Inner>, mut waiting: mpsc::UnboundedReceiver<Checkpoint>) {
    while let Some(checkpoint) = waiting.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        let Checkpoint { folds, covers, done } = checkpoint;
        let result = write(&inner, folds).await;
        if let (Ok(()), Some(covers)) = (&result, covers) {
            let mut state = inner.queue.state.lock();
            state.covered = state.covered.max(covers);
        }
        let _ = done.send(result);
    }
}

async fn write(inner: &Arc<Inner>, folds: Vec<(Fold, Commit)>) -> Result<(), LedgerError> {
    let began = tokio::time::Instant::now();
    let mut ready = Vec::with_capacity(folds.len());
    for (fold, commit) in folds {
        // What could not be committed is no fold of anything; its basis is outdated already.
        if commit.wait().await.is_ok() && !fold.basis.is_stale() {
            ready.push(fold);
        }
    }
    ready.sort_by(|a, b| a.tenant.state.id.cmp(&b.tenant.state.id));
    for slice in ready.chunks(SLICE) {
        write_slice(inner, slice).await?;
    }
    inner.queue.state.lock().stats.checkpoint_us += began.elapsed().as_micros() as u64;
    Ok(())
}

/// Writes a slice, however often it takes. One that was written without an answer is skipped the second time, as it
/// does not go on from itself: nothing is added twice.
async fn write_slice(inner: &Arc<Inner>, folds: &[Fold]) -> Result<(), LedgerError> {
    let began = tokio::time::Instant::now();
    let mut wait = BACKOFF_FIRST;
    let columns = Columns::new(folds);
    loop {
        let sent = match inner.pool.get().await {
            Ok(mut conn) => columns.send(&mut conn).await,
            Err(failure) => Err(failure),
        };
        match sent {
            Ok(written) => {
                let mut rows = 0;
                for (fold, written) in folds.iter().zip(written) {
                    match written {
                        true => rows += 1 + fold.users.len() as u64,
                        false => fold.basis.outdate(),
                    }
                }
                inner.queue.state.lock().stats.checkpoint_rows += rows;
                return Ok(());
            }
            Err(failure @ (Failure::Unfit(_) | Failure::Ledger(_))) => return Err(failure.into()),
            Err(failure) if began.elapsed() >= inner.options.give_up => return Err(failure.into()),
            Err(_) => sleep(wait).await,
        }
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}

/// A slice as arrays.
#[derive(Default)]
struct Columns<'a> {
    tenants: Vec<&'a str>,
    bases: Vec<i64>,
    seqs: Vec<i64>,
    states: Vec<Vec<u8>>,
    user_folds: Vec<i64>,
    users: Vec<&'a str>,
    user_seqs: Vec<i64>,
    user_states: Vec<Vec<u8>>,
    closed: ClosedColumns<'a>,
}

/// Totals of closed windows as arrays.
#[derive(Default)]
struct ClosedColumns<'a> {
    folds: Vec<i64>,
    users: Vec<&'a str>,
    starts: Vec<i64>,
    kinds: Vec<i16>,
    meters: Vec<&'a str>,
    ends: Vec<i64>,
    used: Vec<i64>,
    denied: Vec<i64>,
}

/// Totals by user, start, kind and meter: end, use, unmet demand.
pub(super) type Totals<'a> = BTreeMap<(&'a str, Instant, usize, &'a MeterKey), (Instant, i64, i64)>;

/// Adds totals up: one statement may change a row but once.
pub(super) fn add_totals<'a>(totals: &mut Totals<'a>, user: Option<&'a UserId>, gained: &'a [ClosedTotal]) {
    for ClosedTotal { meter, closed, used, denied } in gained {
        let key = (user.map_or("", UserId::as_str), closed.window.start, closed.kind.index(), meter);
        let sums = totals.entry(key).or_insert((closed.window.end, 0, 0));
        sums.0 = closed.window.end;
        sums.1 = sums.1.saturating_add(*used);
        sums.2 = sums.2.saturating_add(*denied);
    }
}

impl<'a> Columns<'a> {
    fn new(folds: &'a [Fold]) -> Self {
        let mut columns = Self::default();
        for (ord, fold) in (1_i64..).zip(folds) {
            let tenant = &fold.tenant;
            let id: &TenantId = &tenant.state.id;
            columns.tenants.push(id.as_str());
            columns.bases.push(fold.from as i64);
            columns.seqs.push(tenant.seq as i64);
            columns.states.push(tenant_row(tenant));
            let mut totals = Totals::new();
            add_totals(&mut totals, None, tenant.state.accounts.closed());
            for user in &fold.users {
                columns.user_folds.push(ord);
                columns.users.push(user.state.id.as_str());
                columns.user_seqs.push(user.seq as i64);
                columns.user_states.push(user_row(id, user));
                add_totals(&mut totals, Some(&user.state.id), user.state.accounts.closed());
            }
            columns.closed.take(ord, &totals);
        }
        columns
    }

    /// Which folds were written.
    async fn send(&self, conn: &mut Conn) -> Done<Vec<bool>> {
        let closed = &self.closed;
        let rows = conn
            .rows(
                WRITE,
                &[
                    (&self.tenants, Type::TEXT_ARRAY),
                    (&self.bases, Type::INT8_ARRAY),
                    (&self.seqs, Type::INT8_ARRAY),
                    (&self.states, Type::BYTEA_ARRAY),
                    (&self.user_folds, Type::INT8_ARRAY),
                    (&self.users, Type::TEXT_ARRAY),
                    (&self.user_seqs, Type::INT8_ARRAY),
                    (&self.user_states, Type::BYTEA_ARRAY),
                    (&closed.folds, Type::INT8_ARRAY),
                    (&closed.users, Type::TEXT_ARRAY),
                    (&closed.starts, Type::INT8_ARRAY),
                    (&closed.kinds, Type::INT2_ARRAY),
                    (&closed.meters, Type::TEXT_ARRAY),
                    (&closed.ends, Type::INT8_ARRAY),
                    (&closed.used, Type::INT8_ARRAY),
                    (&closed.denied, Type::INT8_ARRAY),
                ],
            )
            .await?;
        let mut written = vec![false; self.tenants.len()];
        for row in &rows {
            if let Some(written) = written.get_mut(get::<i64>(row, 0)? as usize - 1) {
                *written = true;
            }
        }
        Ok(written)
    }
}

impl<'a> ClosedColumns<'a> {
    fn take(&mut self, ord: i64, totals: &Totals<'a>) {
        for ((user, start, kind, meter), (end, used, denied)) in totals {
            self.folds.push(ord);
            self.users.push(user);
            self.starts.push(start.ms());
            self.kinds.push(*kind as i16);
            self.meters.push(meter.as_str());
            self.ends.push(end.ms());
            self.used.push(*used);
            self.denied.push(*denied);
        }
    }
}
