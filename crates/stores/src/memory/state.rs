//! What the ledger in memory knows.

use super::Commits;
use crate::denials::Runs;
use domain::{
    entry::{ClosedWindow, Entry},
    history::Rows,
    id::{MeterKey, TenantId, UserId},
    tenant::{ClosedTotal, Tenant, User},
    time::{Instant, WindowKind},
};
use engine::ports::{
    ApiKey, ClosedRow, Commit, Fold, HistoryState, LedgerError, LedgerStats, Retention, Seq, Stored, StoredCatalog,
};
use rustc_hash::FxHashMap;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::oneshot;

type Waiter = oneshot::Sender<Result<(), LedgerError>>;
type ClosedKey = (TenantId, Option<UserId>, WindowKind, Instant, MeterKey);

#[derive(Default)]
pub(super) struct State {
    pub(super) commits: Commits,
    pub(super) failed: Option<LedgerError>,
    /// Entries after `cut`, the first of which is at `cut + 1`.
    pub(super) journal: VecDeque<(TenantId, Entry)>,
    pub(super) cut: Seq,
    pub(super) committed: Seq,
    pub(super) complete_through: Seq,
    pub(super) waiters: Vec<(Seq, Waiter)>,
    pub(super) checkpoints: VecDeque<(Seq, Vec<Fold>, Option<Seq>, Waiter)>,
    pub(super) ids: FxHashMap<u128, (Seq, Instant)>,
    pub(super) tenants: BTreeMap<TenantId, Stored<Tenant>>,
    pub(super) users: BTreeMap<(TenantId, UserId), Stored<User>>,
    pub(super) closed: BTreeMap<ClosedKey, ClosedRow>,
    pub(super) denials: Runs,
    pub(super) keys: BTreeMap<Arc<str>, ApiKey>,
    pub(super) catalogs: Vec<StoredCatalog>,
    pub(super) history: Rows,
    pub(super) history_state: HistoryState,
    pub(super) stats: LedgerStats,
}

impl State {
    pub(super) fn last(&self) -> Seq {
        self.cut + self.journal.len() as Seq
    }

    pub(super) fn check(&self) -> Result<(), LedgerError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Makes everything queued durable, or fails it.
    pub(super) fn commit(&mut self) {
        if self.commits == Commits::Failing {
            let error = LedgerError::Unwritable("the commit was made to fail".into());
            self.failed = Some(error.clone());
            self.stats.commit_failures += 1;
            for (_, waiter) in self.waiters.drain(..) {
                let _ = waiter.send(Err(error.clone()));
            }
            for (_, _, _, waiter) in self.checkpoints.drain(..) {
                let _ = waiter.send(Err(error.clone()));
            }
            return;
        }
        self.commit_first(self.last() - self.committed);
    }

    /// Makes so many entries durable.
    pub(super) fn commit_first(&mut self, entries: Seq) {
        let through = (self.committed + entries).min(self.last());
        if through > self.committed {
            self.stats.commits += 1;
            self.stats.entries += through - self.committed;
            self.committed = through;
        }
        for (_, waiter) in self.waiters.extract_if(.., |(seq, _)| *seq <= through) {
            let _ = waiter.send(Ok(()));
        }
        while self.checkpoints.front().is_some_and(|(seq, ..)| *seq <= through) {
            let Some((_, folds, complete_through, waiter)) = self.checkpoints.pop_front() else { return };
            self.write_folds(folds, complete_through);
            let _ = waiter.send(Ok(()));
        }
    }

    pub(super) fn settle(&mut self) {
        if self.commits != Commits::Held {
            self.commit();
        }
    }

    pub(super) fn write_folds(&mut self, folds: Vec<Fold>, complete_through: Option<Seq>) {
        for Fold { mut tenant, users, .. } in folds {
            let id = tenant.state.id.clone();
            if self.tenants.get(&id).is_some_and(|known| known.seq >= tenant.seq) {
                continue;
            }
            for mut user in users {
                let key = (id.clone(), user.state.id.clone());
                if self.users.get(&key).is_some_and(|known| known.seq >= user.seq) {
                    continue;
                }
                let gained = user.state.accounts.take_closed();
                self.add_closed(&id, Some(&key.1), gained);
                self.users.insert(key, user);
                self.stats.checkpoint_rows += 1;
            }
            let gained = tenant.state.accounts.take_closed();
            tenant.state.pending = Default::default();
            self.add_closed(&id, None, gained);
            self.tenants.insert(id, tenant);
            self.stats.checkpoint_rows += 1;
        }
        self.complete_through = self.complete_through.max(complete_through.unwrap_or(0));
    }

    pub(super) fn add_closed(&mut self, tenant: &TenantId, user: Option<&UserId>, gained: Vec<ClosedTotal>) {
        for ClosedTotal { meter, closed, used, denied } in gained {
            let key = (tenant.clone(), user.cloned(), closed.kind, closed.window.start, meter.clone());
            let row = self.closed.entry(key).or_insert(ClosedRow { meter, closed, used: 0, denied: 0 });
            row.closed.window.end = closed.window.end;
            row.used = row.used.saturating_add(used);
            row.denied = row.denied.saturating_add(denied);
        }
    }

    pub(super) fn commit_for(&mut self, seq: Seq) -> Commit {
        if let Some(error) = &self.failed {
            return answered(Err(error.clone()));
        }
        if seq <= self.committed {
            return Commit::Done;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.push((seq, sender));
        Commit::Waiting(receiver)
    }
}

pub(super) fn answered(result: Result<(), LedgerError>) -> Commit {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(result);
    Commit::Waiting(receiver)
}

/// Closed windows are listed oldest first.
pub(super) fn closed_order<'a>(closed: &ClosedWindow, meter: &'a MeterKey) -> (Instant, usize, &'a MeterKey) {
    (closed.window.start, closed.kind.index(), meter)
}

impl State {
    pub(super) fn retain(&mut self, retention: Retention, now: Instant) {
        let kept_from = now.plus_ms(-retention.dedupe_ms.max(0));
        self.ids.retain(|_, (_, at)| *at >= kept_from);
        let denials_from = now.plus_ms(-retention.denials_ms.max(0));
        self.denials.retain(|_, fold| fold.run.last_at >= denials_from);
        let history_from = now.plus_ms(-retention.history_ms.max(0));
        self.closed.retain(|_, row| row.closed.window.end >= history_from);
        let entries_from = now.plus_ms(-retention.journal_ms.max(retention.dedupe_ms));
        let open = self.tenants.values().map(|tenant| tenant.state.windows[WindowKind::Period.index()]);
        let open_from = open.filter(|window| window.contains(now)).map(|window| window.start).min();
        let cut_before = open_from.map_or(entries_from, |open| open.min(entries_from));
        while self.cut < self.complete_through.min(self.committed).min(self.history_state.through) {
            if self.journal.front().is_none_or(|(_, entry)| entry.at >= cut_before) {
                break;
            }
            self.journal.pop_front();
            self.cut += 1;
        }
    }
}
