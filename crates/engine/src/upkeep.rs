//! What has to happen now and then: recover from a failure, write down counted denials, write folds, drop what is
//! idle. Called by the binary; spawns nothing itself.

use crate::{
    engine::Engine,
    live::{Book, Cell, Place, Reload},
    open::Whom,
    ports::{Commit, Fold, LedgerError, Retention, Seq, Stored},
    requests::EngineError,
};
use domain::{
    demand::PendingDenials,
    id::UserId,
    tenant::{Accounts, Tenant, User},
};
use futures_util::{StreamExt, stream};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How many tenants one fold batch holds: work for the ledger's slices between several commits, so that it does not wait
/// for the next batch while the tail grows.
const FOLD_BATCH: usize = 2_048;
/// Where other nodes write as well: how many entries of a tenant are read one by one before they are folded.
const FOLD_AFTER: Seq = 32;
/// How many runs of denials are written at a time.
const FLUSH_AT_ONCE: usize = 64;
/// How many shards one upkeep sweeps at most.
const SWEEP_SHARDS: usize = 8;

impl Engine {
    /// Recovers if the ledger failed; else writes down what is due. Call it several times a second.
    ///
    /// # Errors
    /// What is wrong with the ledger; the next call tries again.
    pub async fn upkeep(&self) -> Result<(), EngineError> {
        let Ok(_one_at_a_time) = self.rounds.busy.try_lock() else { return Ok(()) };
        if let Err(error @ (LedgerError::Unwritable(_) | LedgerError::Damaged(_))) = self.ledger.ready() {
            self.fail(self.epoch(), &error);
        }
        let failure = self.failure.read().clone();
        match (failure, self.ledger.shared()) {
            (None, _) => {}
            (Some(_), None) => return self.recover().await,
            (Some(error), Some(_)) => return Err(error.into()),
        }
        let done = self.write_down().await;
        // Also while nothing can be written: what was asked for in vain must not fill the memory.
        self.evict();
        done
    }

    async fn write_down(&self) -> Result<(), EngineError> {
        self.fold_some(self.options.fold_max).await?;
        let lapsed = self.write_lapses().await;
        // A tenant whose lease can't be given back, or whose denials can't be written, must not keep folds from being
        // written.
        let given_back = self.give_leases_back(false).await;
        let now_ms = self.now().ms();
        let flushed = match due(&self.rounds.last_flush_ms, now_ms, self.options.flush_denials_every_ms) {
            true => self.flush_denials().await,
            false => Ok(()),
        };
        let tail = self.ledger.stats().tail_entries;
        if tail >= self.options.tail_max
            || (tail > 0 && due(&self.rounds.last_checkpoint_ms, now_ms, self.options.checkpoint_every_ms))
        {
            self.checkpoint().await?;
        }
        given_back.and(flushed).and(lapsed)
    }

    /// Writes everything down: on shutdown, after the doors are closed.
    ///
    /// # Errors
    /// What is wrong with the ledger. What was acknowledged is on disk all the same.
    pub async fn drain(&self) -> Result<(), EngineError> {
        let _one_at_a_time = self.rounds.busy.lock().await;
        if let Some(error) = self.failure.read().clone() {
            return Err(error.into());
        }
        self.flush_denials().await?;
        self.give_leases_back(true).await?;
        self.checkpoint().await
    }

    /// Drops what is past its time.
    ///
    /// # Errors
    /// What is wrong with the ledger.
    pub async fn retain(&self, retention: Retention) -> Result<(), EngineError> {
        Ok(self.ledger.retain(retention, self.now()).await?)
    }

    async fn flush_denials(&self) -> Result<(), EngineError> {
        let mut taken = self.live.take_demanding();
        let mut failed = Ok(());
        while !taken.cells.is_empty() {
            let rest = taken.cells.len().saturating_sub(FLUSH_AT_ONCE);
            let due: Vec<_> = taken.cells[rest..]
                .iter()
                .flat_map(|cell| users_waiting(cell).into_iter().map(|user| (cell.clone(), user)))
                .collect();
            // Many wait for the same commit.
            let flushes = due.into_iter().map(|(cell, user)| async move { self.flush_denials_of(&cell, user).await });
            let mut flushed = stream::iter(flushes).buffer_unordered(FLUSH_AT_ONCE);
            while let Some(outcome) = flushed.next().await {
                // A tenant that can't be written must not keep the others from it.
                failed = failed.and(outcome);
            }
            taken.cells.truncate(rest);
        }
        failed
    }

    async fn flush_denials_of(&self, cell: &Arc<Cell>, user: Option<UserId>) -> Result<(), EngineError> {
        let users: Vec<UserId> = user.clone().into_iter().collect();
        // What was taken to be written, until it is: another node may have come first.
        let mut taken = PendingDenials::default();
        let flushed = self
            .commit_with(Whom::known(&cell.id, &users), |open| {
                open.engine.ledger.ready()?;
                let shared = open.engine.ledger.shared().is_some();
                let Book { tenant, users, .. } = &mut *open.book;
                tenant.pending.merge(std::mem::take(&mut taken));
                if let Some(reload) = &open.cell.reload {
                    tenant.pending.merge(std::mem::take(&mut *reload.left.lock()));
                }
                if shared {
                    taken = tenant.pending.of_user(user.as_ref());
                }
                let user = user.as_ref().and_then(|user| users.get_mut(user)).map(|live| &mut live.user);
                let entry = tenant.flush_denials(user, open.now, open.catalog);
                let appended = entry.map(|entry| open.append(vec![entry], false, shared)).transpose()?;
                Ok(((), appended.map_or(Commit::Done, |appended| appended.commit)))
            })
            .await;
        match flushed {
            Ok(_) => Ok(()),
            // What could not be written is still counted in memory.
            Err(error) => {
                if let Some(reload) = &cell.reload {
                    reload.left.lock().merge(taken);
                }
                self.live.list_demanding_again(cell);
                match error {
                    EngineError::Ledger(LedgerError::Overloaded { .. }) => Ok(()),
                    error => Err(error),
                }
            }
        }
    }

    /// Hands every dirty book to the ledger. Then the tail begins where this round began. One at a time: the caller holds
    /// [`Rounds::busy`](crate::engine::Rounds::busy).
    pub(crate) async fn checkpoint(&self) -> Result<(), EngineError> {
        let round = self.rounds.begun.fetch_add(1, Ordering::AcqRel) + 1;
        // Every entry up to here was queued by a book that stood on the list before, or is in the tail; and what is folded
        // of the tail stood on the list before it left.
        let committed = self.ledger.stats().committed_seq;
        let through = self.tail.first().map_or(committed, |first| committed.min(first - 1));
        let created = self.unsaved.lock().clone();
        let mut dirty = self.live.take_dirty();
        if self.ledger.shared().is_some() {
            dirty.sort_out_repeated();
        }
        // They go back on the list however this ends.
        let mut later = self.live.none_dirty();
        loop {
            // A fold that was handed over is written even if nobody waits for it any more.
            let rest = dirty.cells.len().saturating_sub(FOLD_BATCH);
            let (due, not_yet): (Vec<_>, Vec<_>) = dirty.cells.drain(rest..).partition(|cell| self.is_fold_due(cell));
            later.cells.extend(not_yet);
            let folds: Vec<Fold> = due.iter().filter_map(|cell| snapshot(cell, round)).collect();
            self.checkpointed(self.ledger.checkpoint(folds, (rest == 0).then_some(through))).await?;
            if rest == 0 {
                break;
            }
        }
        self.unsaved.lock().retain(|id| !created.contains(id));
        self.rounds.done.store(round, Ordering::Release);
        Ok(())
    }

    /// Whether a book has to be written down. Where a fold is only a shortcut to what is committed, not for a few entries.
    fn is_fold_due(&self, cell: &Cell) -> bool {
        match &*cell.place.lock() {
            Place::Open(book) if self.ledger.shared().is_some() => {
                let has_closed = |accounts: &Accounts| !accounts.closed().is_empty();
                book.lease.is_none()
                    && (book.seq - book.saved >= FOLD_AFTER
                        || has_closed(&book.tenant.accounts)
                        || book.users.values().any(|live| has_closed(&live.user.accounts)))
            }
            _ => true,
        }
    }

    async fn checkpointed(&self, commit: Commit) -> Result<(), EngineError> {
        // A fold that was taken and not written is lost to memory's book-keeping: a recovery finds it again. (Where other
        // nodes write as well its basis is outdated instead, and it is loaded anew.)
        let epoch = self.epoch();
        Ok(commit.wait().await.inspect_err(|error| self.fail(epoch, error))?)
    }

    /// Drops clean tenants and users where there are more in memory than there may be.
    fn evict(&self) {
        let too_many = |count: &AtomicU64, max: u64| count.load(Ordering::Relaxed) > max;
        for step in 0..SWEEP_SHARDS {
            let users = too_many(&self.live.users, self.options.users_max);
            let tenants = too_many(&self.live.tenants, self.options.tenants_max);
            if step > 0 && !users && !tenants {
                return;
            }
            let shard = self.rounds.sweep.fetch_add(1, Ordering::Relaxed) as usize;
            self.live.forget_empty(shard, self.passes_outages() && self.ledger.ready().is_err());
            if !users && !tenants {
                return;
            }
            for cell in self.live.shard_cells(shard) {
                self.evict_from(&cell, tenants);
            }
        }
    }

    /// Drops the clean users of a tenant, and the tenant itself if it is clean and may be dropped. Users are dropped from
    /// a busy tenant too: it is hardly ever clean, and may have millions.
    fn evict_from(&self, cell: &Arc<Cell>, tenants: bool) {
        let written = self.rounds.done.load(Ordering::Acquire);
        let mut place = cell.place.lock();
        let Place::Open(book) = &mut *place else { return };
        if self.ledger.shared().is_some() {
            // Nothing is lost with it that is not committed or about to be.
            let is_needed = |reload: &Reload| !reload.left.lock().is_empty() || reload.contention.is_listed();
            let is_left = cell.reload.as_deref().is_some_and(is_needed);
            if book.tenant.pending.is_empty() && !is_left && book.lease.is_none() {
                self.drop_book(cell, &mut place);
                *place = Place::Gone;
                drop(place);
                self.live.forget(cell);
            }
            return;
        }
        // What was handed over through `saved` is on disk once the round it was handed to is done.
        if book.saved_round > written {
            return;
        }
        let before = book.users.len();
        book.users.retain(|_, live| live.seq > live.saved);
        let dropped = before - book.users.len();
        if dropped > 0 {
            book.user_drops += 1;
            self.live.users.fetch_sub(dropped as u64, Ordering::Relaxed);
        }
        if tenants && !book.listed && book.users.is_empty() && book.tenant.pending.is_empty() {
            *place = Place::Gone;
            drop(place);
            self.live.forget(cell);
            self.live.tenants.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The users (or `None`) of a tenant whose counted denials wait to be written down.
fn users_waiting(cell: &Cell) -> Vec<Option<UserId>> {
    let mut users = match &mut *cell.place.lock() {
        Place::Open(book) => {
            book.demanding = false;
            book.tenant.pending.users()
        }
        Place::Empty | Place::Gone => Vec::new(),
    };
    if let Some(reload) = &cell.reload {
        let left = reload.left.lock().users();
        users.extend(left.into_iter().filter(|user| !users.contains(user)).collect::<Vec<_>>());
    }
    users
}

/// Whether `every_ms` have passed since `last`, or the clock was moved back; remembers `now_ms` if so.
fn due(last: &AtomicU64, now_ms: i64, every_ms: i64) -> bool {
    let before = last.load(Ordering::Relaxed) as i64;
    let is_due = now_ms - before >= every_ms || now_ms < before;
    if is_due {
        last.store(now_ms as u64, Ordering::Relaxed);
    }
    is_due
}

/// What has to be written of a book, which is clean afterwards.
pub(crate) fn snapshot(cell: &Arc<Cell>, round: u64) -> Option<Fold> {
    let mut place = cell.place.lock();
    let Place::Open(book) = &mut *place else { return None };
    book.listed = false;
    // A book that was dropped and loaded again may be on the list for what is written already.
    if book.seq == 0 || cell.reload.is_some() && book.seq == book.saved {
        return None;
    }
    // Under a lease it is not known what others charged in between.
    if book.lease.is_some() {
        return None;
    }
    let from = std::mem::replace(&mut book.saved, book.seq);
    book.saved_round = round;
    let users = book
        .users
        .values_mut()
        .filter(|live| live.seq > live.saved)
        .map(|live| {
            live.saved = live.seq;
            let accounts = live.user.accounts.taken();
            let (id, warnings) = (live.user.id.clone(), live.user.warnings.clone());
            Stored { state: User { id, accounts, warnings }, seq: live.seq }
        })
        .collect();
    let accounts = book.tenant.accounts.taken();
    let tenant = &book.tenant;
    let state = Tenant {
        id: tenant.id.clone(),
        profile: tenant.profile.clone(),
        last: tenant.last,
        windows: tenant.windows,
        previous: tenant.previous,
        accounts,
        leases: tenant.leases.clone(),
        in_flight: tenant.in_flight.clone(),
        grants: tenant.grants.clone(),
        warnings: tenant.warnings.clone(),
        pending: Default::default(),
    };
    Some(Fold { tenant: Stored { state, seq: book.seq }, users, from, basis: book.basis.clone() })
}
