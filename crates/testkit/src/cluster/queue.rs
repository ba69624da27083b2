//! What waits in one node to be written.

use super::database::{Decided, Message, Verdict};
use domain::{entry::Entry, id::TenantId};
use engine::ports::{Append, Appended, Basis, Commit, Fold, LedgerError, Lookup, Seq, leased_entries};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::oneshot;

pub(super) type Waiter = oneshot::Sender<Result<(), LedgerError>>;

/// An append that waits.
pub(super) struct Queued {
    pub(super) tenant: TenantId,
    pub(super) follows: Seq,
    under: Option<u64>,
    pub(super) entries: Vec<(Entry, u64, Decided)>,
    basis: Arc<Basis>,
    waiter: Option<Waiter>,
}

impl Queued {
    fn last(&self) -> Seq {
        self.follows + self.entries.len() as Seq
    }

    fn line(&self) -> Line {
        (self.tenant.clone(), self.under.is_some())
    }

    fn ids(&self) -> impl Iterator<Item = (u128, Seq)> {
        let entries = (self.follows + 1..).zip(&self.entries);
        entries.filter_map(|(seq, (entry, ..))| entry.binding.map(|binding| (binding.id, seq)))
    }
}

/// Appends of one tenant that were sent together, and how far that has come.
pub(super) struct Flight {
    pub(super) appends: Vec<Queued>,
    pub(super) message: Message,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// On its way to the database.
    Sent,
    /// On its way back.
    Answered(Verdict),
    /// Nothing will come back.
    Lost,
}

impl Flight {
    pub(super) fn tenant(&self) -> &TenantId {
        &self.message.tenant
    }

    fn line(&self) -> Line {
        (self.message.tenant.clone(), self.message.under.is_some())
    }
}

/// A tenant, and whether what was made under leases.
pub(super) type Line = (TenantId, bool);

fn is_leased(seq: Seq) -> bool {
    leased_entries(seq).is_some()
}

/// Folds that wait for what was queued before them.
pub(super) struct Checkpoint {
    pub(super) folds: Vec<Fold>,
    pub(super) waiter: Waiter,
}

struct Pending {
    appends: usize,
    durable: Seq,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Queued>,
    pub(super) flights: Vec<Flight>,
    pub(super) checkpoints: VecDeque<Checkpoint>,
    pending: BTreeMap<Line, Pending>,
    late: Vec<(TenantId, Seq, Waiter)>,
    ids: BTreeMap<(TenantId, u128), Seq>,
    remembered: BTreeMap<(TenantId, u128), Seq>,
    /// Entries committed since the last checkpoint.
    pub(super) tail: u64,
    /// Whether the failure of a part outdates what it was decided on.
    outdates: bool,
}

impl Queue {
    pub(super) fn new(outdates: bool) -> Self {
        Self { outdates, ..Self::default() }
    }

    pub(super) fn push(&mut self, append: Append, attempt: u64, decided: Decided) -> Result<Appended, LedgerError> {
        let Append { tenant, entries, follows, under, basis, wait, .. } = append;
        if basis.is_stale() {
            return Err(LedgerError::Stale);
        }
        let entries: Vec<_> = entries.into_iter().map(|entry| (entry, attempt, decided)).collect();
        let (first, last) = (follows + 1, follows + entries.len() as Seq);
        let (waiter, commit) = if wait {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Commit::Waiting(receiver))
        } else {
            (None, Commit::Done)
        };
        let queued = Queued { tenant: tenant.clone(), follows, under, entries, basis, waiter };
        self.ids.extend(queued.ids().map(|(id, seq)| ((tenant.clone(), id), seq)));
        self.pending.entry(queued.line()).or_insert(Pending { appends: 0, durable: follows }).appends += 1;
        self.waiting.push_back(queued);
        Ok(Appended { first, last, commit })
    }

    pub(super) fn committed(&mut self, tenant: &TenantId, seq: Seq) -> Commit {
        match self.pending.get(&(tenant.clone(), is_leased(seq))) {
            Some(pending) if pending.durable < seq => {
                let (sender, receiver) = oneshot::channel();
                self.late.push((tenant.clone(), seq, sender));
                Commit::Waiting(receiver)
            }
            _ => Commit::Done,
        }
    }

    pub(super) fn find(&self, tenant: &TenantId, id: u128) -> Option<Lookup> {
        let key = (tenant.clone(), id);
        self.ids.get(&key).or_else(|| self.remembered.get(&key)).map(|seq| Lookup::Bound(*seq))
    }

    pub(super) fn remember(&mut self, tenant: &TenantId, bound: Vec<(u128, Seq)>) {
        self.remembered.extend(bound.into_iter().map(|(id, seq)| ((tenant.clone(), id), seq)));
    }

    pub(super) fn has_pending(&self, tenant: &TenantId) -> bool {
        [true, false].into_iter().any(|leased| self.pending.contains_key(&(tenant.clone(), leased)))
    }

    pub(super) fn entries(&self) -> u64 {
        let sent = self.flights.iter().flat_map(|flight| &flight.appends);
        self.waiting.iter().chain(sent).map(|queued| queued.entries.len() as u64).sum()
    }

    /// Tenants with something to send that nothing is under way for.
    pub(super) fn sendable(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.waiting.iter().map(Queued::line).collect();
        lines.sort();
        lines.dedup();
        lines.retain(|line| self.flights.iter().all(|flight| flight.line() != *line));
        lines
    }

    /// Takes what can be sent together for a tenant, at most so many appends.
    pub(super) fn take(&mut self, line: &Line, most: usize, token: u64, sender: u64) {
        let mut taken: Vec<Queued> = Vec::new();
        let mut rest = VecDeque::new();
        let mut is_open = true;
        for queued in std::mem::take(&mut self.waiting) {
            if queued.line() != *line {
                rest.push_back(queued);
                continue;
            }
            is_open &= taken.len() < most
                && taken.last().is_none_or(|last| last.last() == queued.follows && last.under == queued.under);
            match is_open {
                true => taken.push(queued),
                false => rest.push_back(queued),
            }
        }
        self.waiting = rest;
        let Some(first) = taken.first() else { return };
        let entries = taken.iter().flat_map(|queued| queued.entries.iter().cloned()).collect();
        let (tenant, under) = (line.0.clone(), first.under);
        let follows = leased_entries(first.follows).unwrap_or(first.follows);
        let message = Message { tenant, follows, under, entries, token, sender, again: false };
        self.flights.push(Flight { appends: taken, message, stage: Stage::Sent });
    }

    /// What was sent is durable, after this position.
    pub(super) fn succeed(&mut self, flight: Flight, before: Seq) {
        let tenant = flight.tenant().clone();
        let (follows, last) =
            (flight.appends.first().map_or(0, |first| first.follows), flight.appends.last().map_or(0, Queued::last));
        let position = |seq: Seq| before + (seq - follows);
        let mut woken = Vec::new();
        for queued in flight.appends {
            self.remembered.extend(queued.ids().map(|(id, seq)| ((tenant.clone(), id), position(seq))));
            if queued.under.is_some() {
                queued.basis.placed(position(queued.follows) + 1, position(queued.last()));
            }
            self.tail += queued.entries.len() as u64;
            self.forget(&queued, last);
            queued.basis.made_durable(queued.last());
            woken.extend(queued.waiter);
        }
        woken.extend(self.late_ones(&tenant, |seq| is_leased(seq) == is_leased(last) && seq <= last));
        for waiter in woken {
            let _ = waiter.send(Ok(()));
        }
    }

    /// What was sent is not written, or nobody knows; and nothing is that was decided on the same.
    pub(super) fn fail(&mut self, flight: Flight, error: &LedgerError) {
        let tenant = flight.tenant().clone();
        let mut failed: Vec<(Queued, LedgerError)> = Vec::new();
        for queued in flight.appends {
            if self.outdates {
                queued.basis.outdate();
                let waiting = std::mem::take(&mut self.waiting);
                for other in waiting {
                    match Arc::ptr_eq(&other.basis, &queued.basis) {
                        true => failed.push((other, LedgerError::Stale)),
                        false => self.waiting.push_back(other),
                    }
                }
            }
            failed.push((queued, error.clone()));
        }
        let least = failed.iter().map(|(queued, _)| queued.follows).min().unwrap_or(Seq::MAX);
        for (queued, _) in &failed {
            self.forget(queued, 0);
        }
        for waiter in self.late_ones(&tenant, |seq| is_leased(seq) == is_leased(least) && seq > least) {
            let _ = waiter.send(Err(LedgerError::Stale));
        }
        for (queued, error) in failed {
            queued.waiter.map(|waiter| waiter.send(Err(error)));
        }
    }

    fn forget(&mut self, queued: &Queued, durable: Seq) {
        for (id, seq) in queued.ids() {
            let key = (queued.tenant.clone(), id);
            if self.ids.get(&key) == Some(&seq) {
                self.ids.remove(&key);
            }
        }
        if let Some(pending) = self.pending.get_mut(&queued.line()) {
            pending.appends -= 1;
            pending.durable = pending.durable.max(durable);
            if pending.appends == 0 {
                self.pending.remove(&queued.line());
            }
        }
    }

    fn late_ones(&mut self, tenant: &TenantId, is_over: impl Fn(Seq) -> bool) -> Vec<Waiter> {
        let mut over = Vec::new();
        for (whose, seq, waiter) in std::mem::take(&mut self.late) {
            match whose == *tenant && is_over(seq) {
                true => over.push(waiter),
                false => self.late.push((whose, seq, waiter)),
            }
        }
        over
    }
}
